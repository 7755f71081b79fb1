//! The JSON inside `sendMessage`.

use crate::protocol::lenient;
use serde::Serialize;
use serde_json::Value;

/// The JSON inside `sendMessage.message`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SignalMessage {
    /// Receivers; empty is everybody, the sender included.
    pub to: Vec<String>,
    /// Content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `signal:chat` and the like. A client always sends one.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Why a signal is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalMessageError {
    /// Not an object, or `to` is not a list: code 600.
    #[error("the message is not a signal")]
    Format,
    /// `to` holds something that is no connection id: code 601.
    #[error("a receiver is not a text")]
    To,
}

impl SignalMessage {
    /// A signal as the browser sends it: the type with its prefix `signal:`, an empty one becoming `signal:signal`.
    pub fn new(kind: &str, data: &str, to: Vec<String>) -> Self {
        let bare = kind.strip_prefix("signal:").unwrap_or(kind);
        let bare = if bare.is_empty() { "signal" } else { bare };
        Self { to, data: Some(data.to_owned()), kind: Some(format!("signal:{bare}")) }
    }

    /// The text for `sendMessage.message`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the text of `sendMessage.message` as the original server does: `to` absent is everybody, numbers and booleans in `data` are delivered as text.
    ///
    /// # Errors
    /// [`SignalMessageError`] with the code's meaning.
    pub fn parse(text: &str) -> Result<Self, SignalMessageError> {
        let Ok(Value::Object(map)) = serde_json::from_str::<Value>(text) else {
            return Err(SignalMessageError::Format);
        };
        let to = match map.get("to") {
            None => Vec::new(),
            Some(Value::Array(list)) => {
                list.iter().map(|v| lenient::to_text(v).ok_or(SignalMessageError::To)).collect::<Result<Vec<_>, _>>()?
            }
            Some(_) => return Err(SignalMessageError::Format),
        };
        let member = |name: &str| match map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => lenient::to_text(v).map(Some).ok_or(SignalMessageError::Format),
        };
        Ok(Self { to, data: member("data")?, kind: member("type")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_the_original_does() {
        let ok = SignalMessage::parse("{\"data\":5,\"type\":\"signal:num\"}").unwrap();
        assert_eq!((ok.to.len(), ok.data.as_deref(), ok.kind.as_deref()), (0, Some("5"), Some("signal:num")));
        assert_eq!(SignalMessage::parse("{\"to\":null}"), Err(SignalMessageError::Format));
        assert_eq!(SignalMessage::parse("{\"to\":\"x\"}"), Err(SignalMessageError::Format));
        assert_eq!(SignalMessage::parse("{\"to\":[null]}"), Err(SignalMessageError::To));
        assert_eq!(SignalMessage::parse("[]"), Err(SignalMessageError::Format));
        assert_eq!(
            SignalMessage::new("chat", "Hi", vec![]).to_json(),
            "{\"to\":[],\"data\":\"Hi\",\"type\":\"signal:chat\"}"
        );
        assert_eq!(SignalMessage::new("signal:chat", "", vec![]).kind.as_deref(), Some("signal:chat"));
        assert_eq!(SignalMessage::new("", "", vec![]).kind.as_deref(), Some("signal:signal"));
    }
}
