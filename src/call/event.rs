//! What happened in a call, as the report and the control channel print it.

use serde::Serialize;
use serde_json::{Map, Value};

/// One event: a name, when it happened, and its content as further members.
///
/// The names are those of `openvidu-browser` where it has one (`streamCreated`, `connectionDestroyed`, `signal`, `reconnecting` …).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Milliseconds since the program started.
    pub t_ms: u64,
    /// Name.
    pub event: String,
    /// Further members.
    #[serde(flatten)]
    pub detail: Map<String, Value>,
}

impl Event {
    /// An event without members.
    pub fn new(t_ms: u64, event: impl Into<String>) -> Self {
        Self { t_ms, event: event.into(), detail: Map::new() }
    }

    /// The same with one more member.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }
}
