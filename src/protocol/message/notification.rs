//! Notifications of a server.

use super::stream::{ParticipantInfo, StreamInfo, VideoDimensions};
use crate::protocol::lenient;
use crate::protocol::secret::Sdp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One notification. Serialises as its `params`; [`crate::protocol::rpc::notification`] writes the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each variant is the method of the same name; the fields are documented at their types")]
pub enum Notification {
    ParticipantJoined(ParticipantInfo),
    ParticipantPublished(ParticipantPublished),
    ParticipantUnpublished(ParticipantGone),
    ParticipantLeft(ParticipantGone),
    ParticipantEvicted(ParticipantGone),
    IceCandidate(IceCandidateFromServer),
    SendMessage(SignalEvent),
    StreamPropertyChanged(StreamPropertyChangedEvent),
    ConnectionPropertyChanged(ConnectionPropertyChanged),
    NetworkQualityLevelChanged(NetworkQualityLevelChanged),
    FilterEventDispatched(FilterEvent),
    MediaError(MediaErrorEvent),
    RecordingStarted(RecordingEvent),
    RecordingStopped(RecordingEvent),
    BroadcastStarted(BroadcastEvent),
    BroadcastStopped(BroadcastEvent),
    ForciblyReconnectSubscriber(ForciblyReconnectSubscriber),
    SpeechToTextMessage(SpeechToTextMessage),
    SpeechToTextDisconnected(SpeechToTextDisconnected),
    MasterNodeCrashedNotification(BroadcastEvent),
    Unknown(UnknownNotification),
}

/// `participantPublished`: exactly one stream, no metadata.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ParticipantPublished {
    /// Connection id of the publisher.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// Its stream.
    #[serde(deserialize_with = "lenient::list")]
    pub streams: Vec<StreamInfo>,
}

/// `participantUnpublished`, `participantLeft`, `participantEvicted`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParticipantGone {
    /// Whose.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// `disconnect`, `forceDisconnectByUser`, `networkDisconnect`, `nodeCrashed` …, may be empty.
    #[serde(deserialize_with = "lenient::string")]
    pub reason: String,
}

/// `iceCandidate`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IceCandidateFromServer {
    /// Connection that publishes the stream: the routing key.
    #[serde(deserialize_with = "lenient::string")]
    pub sender_connection_id: String,
    /// Stream id of a publication, `<subscriber con>_<stream id>` of a subscription.
    #[serde(deserialize_with = "lenient::string")]
    pub endpoint_name: String,
    /// Index of the m-line.
    #[serde(rename = "sdpMLineIndex", deserialize_with = "lenient::u32")]
    pub sdp_m_line_index: u32,
    /// Mid of the m-line.
    #[serde(deserialize_with = "lenient::string")]
    pub sdp_mid: String,
    /// `candidate:…`.
    #[serde(deserialize_with = "lenient::string")]
    pub candidate: String,
}

/// `sendMessage`: a signal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SignalEvent {
    /// Content.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// `signal:chat` and the like, as the sender wrote it.
    #[serde(rename = "type", deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Connection id of the sender; absent when the signal came over REST.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl SignalEvent {
    /// The type without its prefix, `""` when there is none.
    pub fn bare_kind(&self) -> &str {
        let kind = self.kind.as_deref().unwrap_or_default();
        kind.strip_prefix("signal:").unwrap_or(kind)
    }
}

/// `streamPropertyChanged`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamPropertyChangedEvent {
    /// Publisher.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// Stream.
    #[serde(deserialize_with = "lenient::string")]
    pub stream_id: String,
    /// Property.
    #[serde(deserialize_with = "lenient::string")]
    pub property: String,
    /// JSON text of the value, or an object for `filter`. See [`StreamPropertyChangedEvent::value`].
    pub new_value: Value,
    /// Reason.
    #[serde(deserialize_with = "lenient::string")]
    pub reason: String,
}

/// A decoded property of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum PropertyValue {
    /// Microphone on or off.
    AudioActive(bool),
    /// Camera on or off.
    VideoActive(bool),
    /// Picture size.
    VideoDimensions(VideoDimensions),
    /// Name of the new audio track.
    AudioTrack(String),
    /// Name of the new video track.
    VideoTrack(String),
    /// Filter, `{}` when removed.
    Filter(Value),
    /// A property this version does not know, or a value it cannot read.
    Other {
        /// The property.
        name: String,
        /// Its value as it came.
        value: Value,
    },
}

impl StreamPropertyChangedEvent {
    /// How a request's `newValue` is forwarded: its JSON text as a string, so that texts arrive encoded twice.
    pub fn forwarded_value(new_value: &Value) -> Value {
        Value::String(new_value.to_string())
    }

    /// The decoded value.
    pub fn value(&self) -> PropertyValue {
        let label = || match &self.new_value {
            Value::String(text) => {
                let value: Value = serde_json::from_str(text).ok()?;
                value.get("label").and_then(lenient::to_text)
            }
            value => value.get("label").and_then(lenient::to_text),
        };
        let other = || PropertyValue::Other { name: self.property.clone(), value: self.new_value.clone() };
        match self.property.as_str() {
            "audioActive" => PropertyValue::AudioActive(lenient::to_bool(&self.new_value)),
            "videoActive" => PropertyValue::VideoActive(lenient::to_bool(&self.new_value)),
            "videoDimensions" => self
                .new_value
                .as_str()
                .and_then(VideoDimensions::parse)
                .map_or_else(other, PropertyValue::VideoDimensions),
            "audioTrack" => label().map_or_else(other, PropertyValue::AudioTrack),
            "videoTrack" => label().map_or_else(other, PropertyValue::VideoTrack),
            "filter" => PropertyValue::Filter(self.new_value.clone()),
            _ => other(),
        }
    }
}

/// `connectionPropertyChanged`: role or record of the own connection.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionPropertyChanged {
    /// `role` or `record`.
    #[serde(deserialize_with = "lenient::string")]
    pub property: String,
    /// New value as text.
    #[serde(deserialize_with = "lenient::string")]
    pub new_value: String,
}

/// `networkQualityLevelChanged`: 0 (broken) to 5 (excellent).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkQualityLevelChanged {
    /// Whose.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// Level now.
    #[serde(deserialize_with = "lenient::u32")]
    pub new_value: u32,
    /// Level before.
    #[serde(deserialize_with = "lenient::u32")]
    pub old_value: u32,
}

/// `filterEventDispatched`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilterEvent {
    /// Publisher.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// Stream.
    #[serde(deserialize_with = "lenient::string")]
    pub stream_id: String,
    /// Filter.
    #[serde(deserialize_with = "lenient::string")]
    pub filter_type: String,
    /// Event.
    #[serde(deserialize_with = "lenient::string")]
    pub event_type: String,
    /// Content.
    #[serde(deserialize_with = "lenient::string")]
    pub data: String,
}

/// `mediaError`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MediaErrorEvent {
    /// Description.
    #[serde(deserialize_with = "lenient::string")]
    pub error: String,
}

/// `recordingStarted` and `recordingStopped`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordingEvent {
    /// Recording.
    #[serde(deserialize_with = "lenient::string")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "lenient::string")]
    pub name: String,
    /// Why it stopped.
    #[serde(deserialize_with = "lenient::opt_string", skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A notification without parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BroadcastEvent {}

/// `forciblyReconnectSubscriber`: the server offers anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ForciblyReconnectSubscriber {
    /// Publisher.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// Stream.
    #[serde(deserialize_with = "lenient::string")]
    pub stream_id: String,
    /// Offer.
    pub sdp_offer: Sdp,
}

/// `speechToTextMessage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpeechToTextMessage {
    /// UTC milliseconds.
    #[serde(deserialize_with = "lenient::u64")]
    pub timestamp: u64,
    /// OpenVidu session id.
    #[serde(deserialize_with = "lenient::string")]
    pub session_id: String,
    /// Speaker.
    #[serde(deserialize_with = "lenient::string")]
    pub connection_id: String,
    /// Speaker's stream.
    #[serde(deserialize_with = "lenient::string")]
    pub stream_id: String,
    /// Words.
    #[serde(deserialize_with = "lenient::string")]
    pub text: String,
    /// `recognizing` or `recognized`, in any case.
    #[serde(deserialize_with = "lenient::string")]
    pub reason: String,
    /// What the engine said.
    #[serde(deserialize_with = "lenient::string")]
    pub raw: String,
    /// Language tag.
    #[serde(deserialize_with = "lenient::string")]
    pub lang: String,
}

/// `speechToTextDisconnected`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SpeechToTextDisconnected {
    /// Why.
    #[serde(deserialize_with = "lenient::string")]
    pub message: String,
}

/// A notification that this version does not know.
#[derive(Debug, Clone, PartialEq)]
pub struct UnknownNotification {
    /// Method.
    pub method: String,
    /// Parameters as they came.
    pub params: Value,
}

impl Serialize for UnknownNotification {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.params.serialize(serializer)
    }
}

/// Why a notification of a known name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// `params` is not an object.
    #[error("params of '{0}' is not an object")]
    ParamsNotAnObject(String),
    /// Something without which it means nothing is missing.
    #[error("'{method}' lacks '{element}'")]
    Missing {
        /// Method.
        method: &'static str,
        /// Element.
        element: &'static str,
    },
}

fn read<T: DeserializeOwned>(method: &str, params: Value) -> Result<T, NotificationError> {
    serde_json::from_value(params).map_err(|_| NotificationError::ParamsNotAnObject(method.to_owned()))
}

impl Notification {
    /// Reads a notification. One with an unknown name is [`Notification::Unknown`], not an error.
    ///
    /// # Errors
    /// [`NotificationError`] when a known one lacks the member it is about.
    pub fn parse(method: &str, params: Value) -> Result<Self, NotificationError> {
        let params = match params {
            Value::Null => Value::Object(serde_json::Map::new()),
            Value::Object(map) => Value::Object(map),
            other => {
                return if Self::METHODS.contains(&method) {
                    Err(NotificationError::ParamsNotAnObject(method.to_owned()))
                } else {
                    Ok(Self::Unknown(UnknownNotification { method: method.to_owned(), params: other }))
                };
            }
        };
        let n = match method {
            "participantJoined" => Self::ParticipantJoined(read(method, params)?),
            "participantPublished" => Self::ParticipantPublished(read(method, params)?),
            "participantUnpublished" => Self::ParticipantUnpublished(read(method, params)?),
            "participantLeft" => Self::ParticipantLeft(read(method, params)?),
            "participantEvicted" => Self::ParticipantEvicted(read(method, params)?),
            "iceCandidate" => Self::IceCandidate(read(method, params)?),
            "sendMessage" => Self::SendMessage(read(method, params)?),
            "streamPropertyChanged" => Self::StreamPropertyChanged(read(method, params)?),
            "connectionPropertyChanged" => Self::ConnectionPropertyChanged(read(method, params)?),
            "networkQualityLevelChanged" => Self::NetworkQualityLevelChanged(read(method, params)?),
            "filterEventDispatched" => Self::FilterEventDispatched(read(method, params)?),
            "mediaError" => Self::MediaError(read(method, params)?),
            "recordingStarted" => Self::RecordingStarted(read(method, params)?),
            "recordingStopped" => Self::RecordingStopped(read(method, params)?),
            "broadcastStarted" => Self::BroadcastStarted(BroadcastEvent {}),
            "broadcastStopped" => Self::BroadcastStopped(BroadcastEvent {}),
            "forciblyReconnectSubscriber" => Self::ForciblyReconnectSubscriber(read(method, params)?),
            "speechToTextMessage" => Self::SpeechToTextMessage(read(method, params)?),
            "speechToTextDisconnected" => Self::SpeechToTextDisconnected(read(method, params)?),
            "masterNodeCrashedNotification" => Self::MasterNodeCrashedNotification(BroadcastEvent {}),
            _ => {
                return Ok(Self::Unknown(UnknownNotification { method: method.to_owned(), params }));
            }
        };
        n.check()?;
        Ok(n)
    }

    /// Whether what the notification is about is there at all.
    fn check(&self) -> Result<(), NotificationError> {
        let missing = match self {
            Self::ParticipantJoined(p) if p.id.is_empty() => Some(("participantJoined", "id")),
            Self::ParticipantPublished(p) if p.id.is_empty() => Some(("participantPublished", "id")),
            Self::ParticipantPublished(p) if p.streams.iter().all(|s| s.id.is_empty()) => {
                Some(("participantPublished", "streams"))
            }
            Self::ParticipantUnpublished(p) if p.connection_id.is_empty() => {
                Some(("participantUnpublished", "connectionId"))
            }
            Self::ParticipantLeft(p) if p.connection_id.is_empty() => Some(("participantLeft", "connectionId")),
            Self::ParticipantEvicted(p) if p.connection_id.is_empty() => Some(("participantEvicted", "connectionId")),
            Self::IceCandidate(c) if c.sender_connection_id.is_empty() => Some(("iceCandidate", "senderConnectionId")),
            Self::StreamPropertyChanged(e) if e.property.is_empty() => Some(("streamPropertyChanged", "property")),
            Self::StreamPropertyChanged(e) if e.stream_id.is_empty() => Some(("streamPropertyChanged", "streamId")),
            Self::ForciblyReconnectSubscriber(e) if e.stream_id.is_empty() => {
                Some(("forciblyReconnectSubscriber", "streamId"))
            }
            Self::ForciblyReconnectSubscriber(e) if e.sdp_offer.is_empty() => {
                Some(("forciblyReconnectSubscriber", "sdpOffer"))
            }
            _ => None,
        };
        missing.map_or(Ok(()), |(method, element)| Err(NotificationError::Missing { method, element }))
    }

    /// Name of the method on the wire.
    pub fn method(&self) -> &str {
        match self {
            Self::ParticipantJoined(_) => "participantJoined",
            Self::ParticipantPublished(_) => "participantPublished",
            Self::ParticipantUnpublished(_) => "participantUnpublished",
            Self::ParticipantLeft(_) => "participantLeft",
            Self::ParticipantEvicted(_) => "participantEvicted",
            Self::IceCandidate(_) => "iceCandidate",
            Self::SendMessage(_) => "sendMessage",
            Self::StreamPropertyChanged(_) => "streamPropertyChanged",
            Self::ConnectionPropertyChanged(_) => "connectionPropertyChanged",
            Self::NetworkQualityLevelChanged(_) => "networkQualityLevelChanged",
            Self::FilterEventDispatched(_) => "filterEventDispatched",
            Self::MediaError(_) => "mediaError",
            Self::RecordingStarted(_) => "recordingStarted",
            Self::RecordingStopped(_) => "recordingStopped",
            Self::BroadcastStarted(_) => "broadcastStarted",
            Self::BroadcastStopped(_) => "broadcastStopped",
            Self::ForciblyReconnectSubscriber(_) => "forciblyReconnectSubscriber",
            Self::SpeechToTextMessage(_) => "speechToTextMessage",
            Self::SpeechToTextDisconnected(_) => "speechToTextDisconnected",
            Self::MasterNodeCrashedNotification(_) => "masterNodeCrashedNotification",
            Self::Unknown(u) => &u.method,
        }
    }

    /// Every known name.
    pub const METHODS: [&'static str; 20] = [
        "participantJoined",
        "participantPublished",
        "participantUnpublished",
        "participantLeft",
        "participantEvicted",
        "iceCandidate",
        "sendMessage",
        "streamPropertyChanged",
        "connectionPropertyChanged",
        "networkQualityLevelChanged",
        "filterEventDispatched",
        "mediaError",
        "recordingStarted",
        "recordingStopped",
        "broadcastStarted",
        "broadcastStopped",
        "forciblyReconnectSubscriber",
        "speechToTextMessage",
        "speechToTextDisconnected",
        "masterNodeCrashedNotification",
    ];
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_ones_are_kept_and_broken_ones_named() {
        let n = Notification::parse("brandNew", json!({"a":1})).unwrap();
        assert_eq!(n, Notification::Unknown(UnknownNotification { method: "brandNew".into(), params: json!({"a":1}) }));
        assert!(matches!(Notification::parse("brandNew", json!([1])), Ok(Notification::Unknown(_))));
        assert_eq!(
            Notification::parse("participantLeft", json!({"reason":"x"})),
            Err(NotificationError::Missing { method: "participantLeft", element: "connectionId" })
        );
        assert!(matches!(
            Notification::parse("participantLeft", json!([])),
            Err(NotificationError::ParamsNotAnObject(_))
        ));
    }

    #[test]
    fn every_known_name_is_parsed_and_named_alike() {
        for m in Notification::METHODS {
            match Notification::parse(m, json!({})) {
                Ok(n) => assert_eq!(n.method(), m),
                Err(NotificationError::Missing { method, .. }) => assert_eq!(method, m),
                Err(e) => panic!("{m}: {e}"),
            }
        }
    }

    #[test]
    fn properties_are_decoded_by_the_rule_of_each() {
        let ev = |property: &str, new_value: Value| StreamPropertyChangedEvent {
            connection_id: "con_A".into(),
            stream_id: "s".into(),
            property: property.into(),
            new_value,
            reason: String::new(),
        };
        let forwarded = StreamPropertyChangedEvent::forwarded_value;
        assert_eq!(ev("videoActive", forwarded(&json!(false))).value(), PropertyValue::VideoActive(false));
        assert_eq!(
            ev("audioActive", forwarded(&json!("true"))).value(),
            PropertyValue::AudioActive(false),
            "encoded twice is not `true`"
        );
        assert_eq!(ev("audioActive", json!("true")).value(), PropertyValue::AudioActive(true));
        let dims = forwarded(&json!("{\"width\":1000,\"height\":700}"));
        assert_eq!(dims, json!("\"{\\\"width\\\":1000,\\\"height\\\":700}\""));
        assert_eq!(
            ev("videoDimensions", dims).value(),
            PropertyValue::VideoDimensions(VideoDimensions { width: 1000, height: 700 })
        );
        assert_eq!(
            ev("videoTrack", forwarded(&json!({"label":"USB"}))).value(),
            PropertyValue::VideoTrack("USB".into())
        );
        assert_eq!(ev("filter", json!({})).value(), PropertyValue::Filter(json!({})));
        assert_eq!(ev("new", json!(1)).value(), PropertyValue::Other { name: "new".into(), value: json!(1) });
    }
}
