//! What a server says beside the call itself (recordings, filters, quality), made fit for events and reports.

use serde_json::{Map, Value};

use super::super::SignalingEvent;
use super::super::error::without_tokens;
use crate::protocol::message::{JoinResult, Notification, PropertyValue, RecordingEvent};

/// Under this name come notifications that this version does not know: their own names could be those of our own events.
const UNKNOWN: &str = "unknownNotification";
/// Most characters of names and texts kept of one notification.
const BUDGET: usize = 4_096;
/// Deepest nesting kept.
const DEPTH: usize = 6;

/// The event that tells of a notification without a meaning of its own for the call.
pub(super) fn other(notification: Notification) -> SignalingEvent {
    let mut left = BUDGET;
    match notification {
        Notification::Unknown(unknown) => {
            let mut detail = Map::new();
            detail.insert("method".to_owned(), Value::String(text(&unknown.method, &mut left)));
            detail.insert("params".to_owned(), fit(unknown.params, DEPTH, &mut left));
            SignalingEvent::Other { name: UNKNOWN.to_owned(), detail }
        }
        Notification::ConnectionPropertyChanged(change) => {
            let mut detail = Map::new();
            detail.insert("property".to_owned(), Value::String(text(&change.property, &mut left)));
            detail.insert("value".to_owned(), fit(decoded(Value::String(change.new_value)), DEPTH, &mut left));
            SignalingEvent::Other { name: "connectionPropertyChanged".to_owned(), detail }
        }
        known => {
            let name = known.method().to_owned();
            let detail = match serde_json::to_value(&known) {
                Ok(Value::Object(members)) => {
                    let fit = |(name, value): (String, Value)| (snake_case(&name), fit(value, DEPTH, &mut left));
                    members.into_iter().map(fit).collect()
                }
                _ => Map::new(),
            };
            SignalingEvent::Other { name, detail }
        }
    }
}

/// A recording that runs already when we come in, told as one that starts (protocol §3.1).
pub(super) fn running_recording(result: &JoinResult) -> Option<SignalingEvent> {
    let id = result.recording_id.clone().filter(|id| !id.is_empty())?;
    let name = result.recording_name.clone().unwrap_or_default();
    Some(other(Notification::RecordingStarted(RecordingEvent { id, name, reason: None })))
}

/// A property's value, where it is of any shape.
pub(super) fn property(property: PropertyValue) -> PropertyValue {
    let mut left = BUDGET;
    match property {
        PropertyValue::Filter(value) => PropertyValue::Filter(fit(value, DEPTH, &mut left)),
        PropertyValue::AudioTrack(label) => PropertyValue::AudioTrack(text(&label, &mut left)),
        PropertyValue::VideoTrack(label) => PropertyValue::VideoTrack(text(&label, &mut left)),
        PropertyValue::Other { name, value } => {
            PropertyValue::Other { name: text(&name, &mut left), value: fit(decoded(value), DEPTH, &mut left) }
        }
        known => known,
    }
}

/// Values are forwarded as JSON text; what is none stays the text it is.
fn decoded(value: Value) -> Value {
    match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        value => value,
    }
}

/// The value without tokens, as far as it goes into what is `left`.
fn fit(value: Value, depth: usize, left: &mut usize) -> Value {
    *left = left.saturating_sub(1);
    match value {
        Value::String(whole) => Value::String(text(&whole, left)),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::Null,
        Value::Array(all) => {
            let mut kept = Vec::new();
            for one in all {
                if *left == 0 {
                    break;
                }
                kept.push(fit(one, depth - 1, left));
            }
            Value::Array(kept)
        }
        Value::Object(all) => {
            let mut kept = Map::new();
            for (name, one) in all {
                if *left == 0 {
                    break;
                }
                kept.insert(text(&name, left), fit(one, depth - 1, left));
            }
            Value::Object(kept)
        }
        value => value,
    }
}

fn text(whole: &str, left: &mut usize) -> String {
    let kept: String = without_tokens(whole).chars().take(*left).collect();
    *left = left.saturating_sub(kept.chars().count());
    kept
}

/// `streamId` as our events write it.
fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(method: &str, params: Value) -> (String, Value) {
        match other(Notification::parse(method, params).unwrap()) {
            SignalingEvent::Other { name, detail } => (name, Value::Object(detail)),
            event => panic!("{event:?}"),
        }
    }

    #[test]
    fn notifications_keep_their_content() {
        for (method, params, expected) in [
            ("recordingStarted", json!({"id":"S","name":"R"}), json!({"id":"S","name":"R"})),
            (
                "recordingStopped",
                json!({"id":"S","name":"R","reason":"automaticStop"}),
                json!({"id":"S","name":"R","reason":"automaticStop"}),
            ),
            ("mediaError", json!({"error":"no node"}), json!({"error":"no node"})),
            (
                "networkQualityLevelChanged",
                json!({"connectionId":"con_A","newValue":2,"oldValue":5}),
                json!({"connection_id":"con_A","new_value":2,"old_value":5}),
            ),
            (
                "filterEventDispatched",
                json!({"connectionId":"con_A","streamId":"s","filterType":"ZBarFilter","eventType":"CodeFound","data":"http://x"}),
                json!({"connection_id":"con_A","stream_id":"s","filter_type":"ZBarFilter","event_type":"CodeFound","data":"http://x"}),
            ),
            (
                "connectionPropertyChanged",
                json!({"property":"record","newValue":"false"}),
                json!({"property":"record","value":false}),
            ),
        ] {
            assert_eq!(told(method, params), (method.to_owned(), expected));
        }
        let result =
            JoinResult { recording_id: Some("S".into()), recording_name: Some("R".into()), ..JoinResult::default() };
        assert!(matches!(running_recording(&result), Some(SignalingEvent::Other { name, detail })
            if name == "recordingStarted" && Value::Object(detail.clone()) == json!({"id":"S","name":"R"})));
        assert!(running_recording(&JoinResult::default()).is_none());
    }

    #[test]
    fn what_is_unknown_keeps_apart_from_our_own_events_and_is_no_flood() {
        let params = json!({"a":1,"event":"joined","url":"wss://x?token=tok_Hush"});
        assert_eq!(
            told("givenUp", params),
            (UNKNOWN.to_owned(), json!({"method":"givenUp","params":{"a":1,"event":"joined","url":"…"}}))
        );
        let (_, flood) = told("x", json!({"big":"y".repeat(100_000),"many":vec!["z".repeat(50); 1000]}));
        assert!(flood.to_string().len() < 2 * BUDGET, "{}", flood.to_string().len());
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(told("deep", deep).1.to_string().len() < 100);
    }

    #[test]
    fn a_property_of_a_later_version_keeps_name_and_value() {
        let unknown = |value| PropertyValue::Other { name: "zoom".to_owned(), value };
        assert_eq!(property(unknown(json!("{\"by\":2}"))), unknown(json!({"by":2})));
        assert_eq!(property(unknown(json!("plain text"))), unknown(json!("plain text")));
        assert_eq!(property(unknown(json!("secret=hush"))), unknown(json!("…")));
    }
}
