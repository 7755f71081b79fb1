//! JSON-RPC 2.0 as OpenVidu writes it: one object per text frame, no batches, no `null` members.
//!
//! Client frames are read with the leniency of the original server, server frames with the rules of `openvidu-browser`.

use super::error_code::ErrorCode;
use super::lenient;
use super::message::{Notification, Request};
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;

/// Longest text frame that the original server takes, in bytes. A longer one closes the socket with 1009.
pub const MAX_FRAME_BYTES: usize = 51_200;

/// A frame of a client, as a host reads it. `Debug` leaves the parameters out: they may hold a token.
#[derive(Clone, PartialEq)]
pub struct ClientFrame {
    /// Request id; absent ids are executed and answered by an error without id.
    pub id: Option<i64>,
    /// Method.
    pub method: String,
    /// Parameters, if there are any.
    pub params: Option<Value>,
}

impl fmt::Debug for ClientFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFrame").field("id", &self.id).field("method", &self.method).finish_non_exhaustive()
    }
}

/// Why a frame is dropped without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON.
    #[error("not JSON")]
    NotJson,
    /// JSON, but not an object.
    #[error("not an object")]
    NotAnObject,
    /// Neither a method nor an answer.
    #[error("neither request nor answer")]
    Neither,
    /// An id that is not a number.
    #[error("id is not a number")]
    BadId,
    /// `jsonrpc` is not `2.0`.
    #[error("not JSON-RPC 2.0")]
    Version,
}

fn object(text: &str) -> Result<Map<String, Value>, FrameError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(FrameError::NotAnObject),
        Err(_) => Err(FrameError::NotJson),
    }
}

impl ClientFrame {
    /// Reads a text frame of a client. `jsonrpc` is not looked at.
    ///
    /// # Errors
    /// [`FrameError`]: the original server ignores such a frame and keeps the socket open.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let mut map = object(text)?;
        let Some(Value::String(method)) = map.remove("method") else {
            return Err(FrameError::Neither);
        };
        let id = match map.remove("id") {
            None | Some(Value::Null) => None,
            Some(Value::Number(n)) => Some(lenient::to_i64(&Value::Number(n)).ok_or(FrameError::BadId)?),
            Some(_) => return Err(FrameError::BadId),
        };
        Ok(Self { id, method, params: map.remove("params").filter(|p| !p.is_null()) })
    }
}

/// An error answer. `Debug` gives the code alone: the original server repeats the token in the text of a 401.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RpcError {
    /// Number, see [`ErrorCode`].
    pub code: i64,
    /// Text.
    pub message: String,
}

impl fmt::Debug for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RpcError({})", self.code)
    }
}

impl RpcError {
    /// An error with a known code; the suffix `. Code: n` is added to `text`.
    pub fn new(code: ErrorCode, text: &str) -> Self {
        Self { code: code.code(), message: code.message(text) }
    }

    /// The known code, if it is one.
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::from_code(self.code)
    }
}

/// A frame of a server, as a client reads it. `Debug` leaves the contents out: they may hold credentials.
#[derive(Clone, PartialEq)]
pub enum ServerFrame {
    /// A notification.
    Notification {
        /// Method.
        method: String,
        /// Parameters, `null` when absent.
        params: Value,
    },
    /// A success.
    Success {
        /// Request id.
        id: i64,
        /// Result.
        result: Value,
    },
    /// An error.
    Error {
        /// Request id; the original server leaves it out for a request without id.
        id: Option<i64>,
        /// What went wrong.
        error: RpcError,
    },
}

impl fmt::Debug for ServerFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notification { method, .. } => write!(f, "Notification({method})"),
            Self::Success { id, .. } => write!(f, "Success({id})"),
            Self::Error { id, error } => write!(f, "Error({id:?}, {})", error.code),
        }
    }
}

impl ServerFrame {
    /// Reads a text frame of a server.
    ///
    /// # Errors
    /// [`FrameError`]: drop the frame.
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let mut map = object(text)?;
        if map.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(FrameError::Version);
        }
        if let Some(method) = map.remove("method") {
            let Value::String(method) = method else {
                return Err(FrameError::Neither);
            };
            return Ok(Self::Notification { method, params: map.remove("params").unwrap_or(Value::Null) });
        }
        let id = match map.remove("id") {
            None | Some(Value::Null) => None,
            Some(id) => Some(lenient::to_i64(&id).ok_or(FrameError::BadId)?),
        };
        match (map.remove("result"), map.remove("error")) {
            (Some(result), None) => Ok(Self::Success { id: id.ok_or(FrameError::BadId)?, result }),
            (None, Some(error)) => Ok(Self::Error {
                id,
                error: RpcError {
                    code: error.get("code").and_then(lenient::to_i64).unwrap_or(ErrorCode::Internal.code()),
                    message: error.get("message").and_then(lenient::to_text).unwrap_or_default(),
                },
            }),
            _ => Err(FrameError::Neither),
        }
    }
}

/// Serialises one of the frames below. They hold no type that could fail to serialise, so the empty text is never seen.
fn write(frame: &impl Serialize) -> String {
    serde_json::to_string(frame).unwrap_or_default()
}

/// A request: `jsonrpc`, `method`, `params`, `id`, in the browser's order.
pub fn request(id: i64, request: &Request) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        jsonrpc: &'static str,
        method: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        params: Option<&'a Request>,
        id: i64,
    }
    write(&Frame { jsonrpc: "2.0", method: request.method(), params: request.has_params().then_some(request), id })
}

/// A success: `id`, `result` with `sessionId` added as its last member, `jsonrpc`.
///
/// `result` must serialise as an object; [`super::message::Empty`] is the empty one.
pub fn success(id: i64, result: &impl Serialize, rpc_session_id: &str) -> String {
    #[derive(Serialize)]
    struct WithSession<'a, T: Serialize> {
        #[serde(flatten)]
        result: &'a T,
        #[serde(rename = "sessionId")]
        session_id: &'a str,
    }
    success_plain(id, &WithSession { result, session_id: rpc_session_id })
}

/// A success whose result goes out as it is: `ping` (`{"value":"pong"}`) and `closeSession` (`"bye"`).
pub fn success_plain(id: i64, result: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Frame<'a, T: Serialize> {
        id: i64,
        result: &'a T,
        jsonrpc: &'static str,
    }
    write(&Frame { id, result, jsonrpc: "2.0" })
}

/// An error: `id` (left out when the request had none), `error`, `jsonrpc`.
pub fn error(id: Option<i64>, error: &RpcError) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        code: i64,
        message: &'a str,
    }
    #[derive(Serialize)]
    struct Frame<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<i64>,
        error: Body<'a>,
        jsonrpc: &'static str,
    }
    write(&Frame { id, error: Body { code: error.code, message: &error.message }, jsonrpc: "2.0" })
}

/// A notification: `method`, `params`, `jsonrpc`.
pub fn notification(notification: &Notification) -> String {
    #[derive(Serialize)]
    struct Frame<'a> {
        method: &'a str,
        params: &'a Notification,
        jsonrpc: &'static str,
    }
    write(&Frame { method: notification.method(), params: notification, jsonrpc: "2.0" })
}

#[cfg(test)]
mod tests {
    use super::super::message::{Empty, ParticipantInfo, Ping, PingResult, ReceiveResult};
    use super::*;

    #[test]
    fn frames_are_written_in_the_order_of_the_original() {
        assert_eq!(
            request(0, &Request::Ping(Ping { interval: Some(5000) })),
            r#"{"jsonrpc":"2.0","method":"ping","params":{"interval":5000},"id":0}"#
        );
        assert_eq!(request(2, &Request::Ping(Ping { interval: None })), r#"{"jsonrpc":"2.0","method":"ping","id":2}"#);
        assert_eq!(
            request(50, &Request::LeaveRoom(Empty {})),
            r#"{"jsonrpc":"2.0","method":"leaveRoom","params":{},"id":50}"#
        );
        assert_eq!(success(5, &Empty {}, "5bd1"), r#"{"id":5,"result":{"sessionId":"5bd1"},"jsonrpc":"2.0"}"#);
        assert_eq!(
            success(5, &ReceiveResult { sdp_answer: Some("v=0".into()) }, "5bd1"),
            r#"{"id":5,"result":{"sdpAnswer":"v=0","sessionId":"5bd1"},"jsonrpc":"2.0"}"#
        );
        assert_eq!(success_plain(0, &PingResult::default()), r#"{"id":0,"result":{"value":"pong"},"jsonrpc":"2.0"}"#);
        assert_eq!(success_plain(0, &"bye"), r#"{"id":0,"result":"bye","jsonrpc":"2.0"}"#);
        assert_eq!(
            error(Some(37), &RpcError::new(ErrorCode::ReconnectionError, "reconnection error")),
            r#"{"id":37,"error":{"code":40007,"message":"reconnection error"},"jsonrpc":"2.0"}"#
        );
        let joined = Notification::ParticipantJoined(ParticipantInfo {
            id: "con_B".into(),
            created_at: 7,
            ..Default::default()
        });
        assert_eq!(
            notification(&joined),
            r#"{"method":"participantJoined","params":{"id":"con_B","createdAt":7,"metadata":""},"jsonrpc":"2.0"}"#
        );
    }

    #[test]
    fn a_host_ignores_what_the_original_ignores() {
        for (text, want) in [
            ("not json", FrameError::NotJson),
            ("[]", FrameError::NotAnObject),
            ("\"x\"", FrameError::NotAnObject),
            ("{}", FrameError::Neither),
            (r#"{"jsonrpc":"2.0","id":1}"#, FrameError::Neither),
            (r#"{"method":"echo","id":"seven"}"#, FrameError::BadId),
        ] {
            assert_eq!(ClientFrame::parse(text), Err(want), "{text}");
        }
        let f = ClientFrame::parse(r#"{"method":"echo","params":{}}"#).unwrap();
        assert_eq!((f.id, f.method.as_str()), (None, "echo"));
    }

    #[test]
    fn a_client_drops_what_the_browser_drops() {
        for text in [
            "x",
            "[]",
            r#"{"id":1,"result":{}}"#,
            r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
        ] {
            assert!(ServerFrame::parse(text).is_err(), "{text}");
        }
        assert_eq!(
            ServerFrame::parse(
                r#"{"id":11,"error":{"code":105,"message":"m","sessionId":"s"},"data":{},"jsonrpc":"2.0"}"#
            ),
            Ok(ServerFrame::Error { id: Some(11), error: RpcError { code: 105, message: "m".into() } })
        );
        assert_eq!(
            ServerFrame::parse(r#"{"id":1,"result":null,"jsonrpc":"2.0"}"#),
            Ok(ServerFrame::Success { id: 1, result: Value::Null })
        );
    }
}
