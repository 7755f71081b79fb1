//! Requests of a client.

use crate::protocol::lenient;
use crate::protocol::secret::{Sdp, Secret};
use serde::Serialize;
use serde_json::{Map, Value};

/// One request. Serialises as its `params`; [`crate::protocol::rpc::request`] writes the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(
    missing_docs,
    reason = "each variant is the method of the same name; the fields are documented at their types"
)]
pub enum Request {
    Ping(Ping),
    Connect(Connect),
    CloseSession(Empty),
    JoinRoom(JoinRoom),
    PublishVideo(PublishVideo),
    UnpublishVideo(Empty),
    PrepareReceiveVideoFrom(PrepareReceiveVideoFrom),
    ReceiveVideoFrom(ReceiveVideoFrom),
    UnsubscribeFromVideo(UnsubscribeFromVideo),
    OnIceCandidate(IceCandidateToServer),
    SendMessage(SendMessage),
    StreamPropertyChanged(StreamPropertyChanged),
    ForceDisconnect(ForceDisconnect),
    ForceUnpublish(ForceUnpublish),
    ApplyFilter(ApplyFilter),
    RemoveFilter(RemoveFilter),
    ExecFilterMethod(ExecFilterMethod),
    AddFilterEventListener(FilterEventListener),
    RemoveFilterEventListener(FilterEventListener),
    ReconnectStream(ReconnectStream),
    VideoData(VideoData),
    Echo(Empty),
    LeaveRoom(Empty),
    SubscribeToSpeechToText(SpeechToText),
    UnsubscribeFromSpeechToText(SpeechToText),
    SessionStatus(SessionStatus),
}

/// No parameters: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Empty {}

/// `ping`; without interval it is written without `params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Ping {
    /// Milliseconds between pings, only in the first one on a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
}

/// `connect`: resume a JSON-RPC session on a new socket.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Connect {
    /// JSON-RPC session id of the `joinRoom` result; without it a new session is made.
    #[serde(rename = "sessionId", skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Secret>,
    /// Always true from a browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconnect: Option<bool>,
}

/// `joinRoom`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRoom {
    /// The whole token, byte for byte.
    pub token: Secret,
    /// OpenVidu session id.
    pub session: String,
    /// Description of the client's platform.
    pub platform: String,
    /// Semver of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk_version: Option<String>,
    /// Client part of the metadata.
    pub metadata: String,
    /// `""`, or the server's secret for hidden participants.
    pub secret: Secret,
    /// Hidden participant that records.
    pub recorder: bool,
    /// Hidden participant that transcribes.
    pub stt: bool,
}

/// A filter named in `publishVideo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct FilterWish {
    /// Kurento's name of it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its options.
    pub options: Value,
}

/// `publishVideo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishVideo {
    /// The publisher wants its own media back.
    pub do_loopback: bool,
    /// There is an audio m-line.
    pub has_audio: bool,
    /// There is a video m-line.
    pub has_video: bool,
    /// Microphone on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_active: Option<bool>,
    /// Camera on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_active: Option<bool>,
    /// `CAMERA`, `SCREEN`, `CUSTOM`; absent for audio-only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub type_of_video: Option<String>,
    /// Frames per second, −1 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_rate: Option<i32>,
    /// JSON text, see [`super::VideoDimensions`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_dimensions: Option<String>,
    /// Filter to start with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<FilterWish>,
    /// Offer.
    pub sdp_offer: Sdp,
}

/// `prepareReceiveVideoFrom`: ask the server for an offer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct PrepareReceiveVideoFrom {
    /// Stream id.
    pub sender: String,
    /// Drop the existing subscription first.
    pub reconnect: bool,
}

/// `receiveVideoFrom`, with one of the two descriptions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiveVideoFrom {
    /// Stream id.
    pub sender: String,
    /// Client-made offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_offer: Option<Sdp>,
    /// Answer to the server's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_answer: Option<Sdp>,
}

/// `unsubscribeFromVideo`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UnsubscribeFromVideo {
    /// **Connection** id of the publisher.
    pub sender: String,
}

/// `onIceCandidate`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidateToServer {
    /// Connection id that owns the stream: the own one for a publication, the remote one for a subscription.
    pub endpoint_name: String,
    /// `candidate:…`, may be empty (end of candidates).
    pub candidate: String,
    /// Mid of the m-line.
    pub sdp_mid: String,
    /// Index of the m-line.
    #[serde(rename = "sdpMLineIndex")]
    pub sdp_m_line_index: u32,
}

/// `sendMessage`: the text is JSON, see [`SignalMessage`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SendMessage {
    /// JSON text.
    pub message: String,
}

/// `streamPropertyChanged`.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamPropertyChanged {
    /// Own stream.
    pub stream_id: String,
    /// `audioActive`, `videoActive`, `videoDimensions`, `videoTrack`, `audioTrack`.
    pub property: String,
    /// Boolean, JSON text, or `{label}`.
    pub new_value: Value,
    /// `publishAudio`, `publishVideo`, `trackReplaced`, `screenResized`, `deviceRotated`.
    pub reason: String,
}

/// `forceDisconnect`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceDisconnect {
    /// Whom.
    pub connection_id: String,
}

/// `forceUnpublish`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForceUnpublish {
    /// Which stream.
    pub stream_id: String,
}

/// `applyFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplyFilter {
    /// Which stream.
    pub stream_id: String,
    /// Kurento's name of the filter.
    #[serde(rename = "type")]
    pub kind: String,
    /// JSON text of an object.
    pub options: String,
}

/// `removeFilter`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveFilter {
    /// Which stream.
    pub stream_id: String,
}

/// `execFilterMethod`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFilterMethod {
    /// Which stream.
    pub stream_id: String,
    /// Method of the filter.
    pub method: String,
    /// JSON text of an object.
    pub params: String,
}

/// `addFilterEventListener` and `removeFilterEventListener`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FilterEventListener {
    /// Which stream.
    pub stream_id: String,
    /// Which event.
    pub event_type: String,
}

/// `reconnectStream`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReconnectStream {
    /// Stream id, the own one or a subscribed one.
    pub stream: String,
    /// Publisher: the new offer. Subscriber: the answer to the server's offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_string: Option<Sdp>,
    /// Subscriber: the client's offer, takes precedence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdp_offer: Option<Sdp>,
    /// Subscribers only: an answer to `forciblyReconnectSubscriber`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forcibly_reconnect: Option<bool>,
}

/// `videoData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VideoData {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// Camera on.
    pub video_active: bool,
    /// Microphone on.
    pub audio_active: bool,
}

/// `subscribeToSpeechToText` and `unsubscribeFromSpeechToText`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SpeechToText {
    /// Whose words.
    pub connection_id: String,
    /// Language tag; not for unsubscribing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<String>,
}

/// `sessionStatus` (multi-master deployments).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// OpenVidu session id.
    pub session_id: String,
}

/// Why a request cannot be carried out. [`RequestError::message`] is the text the original server answers, with code −1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The method is none of the protocol.
    #[error("unknown method")]
    UnknownMethod,
    /// `params` is neither absent nor an object.
    #[error("params is a {0}")]
    ParamsNotAnObject(&'static str),
    /// A mandatory element is missing.
    #[error("element '{element}' of '{method}' is missing")]
    Missing {
        /// Element.
        element: &'static str,
        /// Method.
        method: &'static str,
    },
    /// An element has a type that nothing can be read from.
    #[error("element '{element}' of '{method}' has a wrong type")]
    WrongType {
        /// Element.
        element: &'static str,
        /// Method.
        method: &'static str,
    },
}

impl RequestError {
    /// The text for the error answer, worded as the original server does.
    pub fn message(&self) -> String {
        match self {
            Self::UnknownMethod => "java.lang.UnsupportedOperationException:Unknown method".into(),
            Self::ParamsNotAnObject(kind) => format!(
                "com.google.gson.JsonSyntaxException:Expected a com.google.gson.JsonObject but was com.google.gson.{kind}; at path $"
            ),
            Self::Missing { element, method } => format!(
                "java.lang.RuntimeException:Request element '{element}' is missing in RPC method '{method}'. Check that 'openvidu-server' and 'openvidu-browser' versions are compatible with each other"
            ),
            Self::WrongType { element, method } => {
                format!(
                    "java.lang.UnsupportedOperationException:Request element '{element}' in RPC method '{method}' has a wrong type"
                )
            }
        }
    }
}

/// Lenient access to the members of `params`.
struct Params<'a> {
    method: &'static str,
    map: Option<&'a Map<String, Value>>,
}

impl Params<'_> {
    /// The member, `null` counting as absent.
    fn get(&self, element: &str) -> Option<&Value> {
        self.map
            .and_then(|m| m.get(element))
            .filter(|v| !v.is_null())
    }

    fn value(&self, element: &'static str) -> Result<Value, RequestError> {
        self.get(element).cloned().ok_or(RequestError::Missing {
            element,
            method: self.method,
        })
    }

    fn opt_text(&self, element: &'static str) -> Result<Option<String>, RequestError> {
        self.get(element)
            .map(|v| {
                lenient::to_text(v).ok_or(RequestError::WrongType {
                    element,
                    method: self.method,
                })
            })
            .transpose()
    }

    fn text(&self, element: &'static str) -> Result<String, RequestError> {
        self.opt_text(element)?.ok_or(RequestError::Missing {
            element,
            method: self.method,
        })
    }

    fn opt_boolean(&self, element: &str) -> Option<bool> {
        self.get(element).map(lenient::to_bool)
    }

    fn boolean(&self, element: &'static str) -> Result<bool, RequestError> {
        self.opt_boolean(element).ok_or(RequestError::Missing {
            element,
            method: self.method,
        })
    }

    /// A mandatory number; one that cannot be read counts as 0.
    fn number(&self, element: &'static str) -> Result<u32, RequestError> {
        Ok(lenient::to_u32(&self.value(element)?).unwrap_or(0))
    }

    fn opt_i32(&self, element: &str) -> Option<i32> {
        self.get(element)
            .and_then(lenient::to_i64)
            .and_then(|n| i32::try_from(n).ok())
    }

    fn opt_sdp(&self, element: &'static str) -> Result<Option<Sdp>, RequestError> {
        Ok(self.opt_text(element)?.map(Sdp::from))
    }
}

impl Request {
    /// Reads a request of a client, with the leniency of the original server.
    ///
    /// # Errors
    /// [`RequestError`], whose text names the element at fault.
    pub fn parse(method: &str, params: Option<&Value>) -> Result<Self, RequestError> {
        let name = Self::method_name(method).ok_or(RequestError::UnknownMethod)?;
        let map = match params {
            None | Some(Value::Null) => None,
            Some(Value::Object(map)) => Some(map),
            Some(Value::Array(_)) => return Err(RequestError::ParamsNotAnObject("JsonArray")),
            Some(_) => return Err(RequestError::ParamsNotAnObject("JsonPrimitive")),
        };
        let p = Params { method: name, map };
        Ok(match name {
            "ping" => Self::Ping(Ping {
                interval: p.get("interval").and_then(lenient::to_u64),
            }),
            "connect" => Self::Connect(Connect {
                session_id: p.opt_text("sessionId")?.map(Secret::from),
                reconnect: p.opt_boolean("reconnect"),
            }),
            "closeSession" => Self::CloseSession(Empty {}),
            "joinRoom" => Self::JoinRoom(JoinRoom {
                session: p.text("session")?,
                token: p.text("token")?.into(),
                platform: p.text("platform")?,
                secret: p.text("secret")?.into(),
                metadata: p.text("metadata")?,
                sdk_version: p.opt_text("sdkVersion")?,
                recorder: p.opt_boolean("recorder").unwrap_or(false),
                stt: p.opt_boolean("stt").unwrap_or(false),
            }),
            "publishVideo" => Self::PublishVideo(PublishVideo {
                sdp_offer: p.text("sdpOffer")?.into(),
                do_loopback: p.boolean("doLoopback")?,
                has_audio: p.boolean("hasAudio")?,
                has_video: p.boolean("hasVideo")?,
                audio_active: p.opt_boolean("audioActive"),
                video_active: p.opt_boolean("videoActive"),
                type_of_video: p.opt_text("typeOfVideo")?,
                frame_rate: p.opt_i32("frameRate"),
                video_dimensions: p.opt_text("videoDimensions")?,
                filter: p.get("filter").and_then(Value::as_object).and_then(|f| {
                    Some(FilterWish {
                        kind: lenient::to_text(f.get("type")?)?,
                        options: f
                            .get("options")
                            .cloned()
                            .map(lenient::drop_nulls)
                            .unwrap_or(Value::Object(Map::new())),
                    })
                }),
            }),
            "unpublishVideo" => Self::UnpublishVideo(Empty {}),
            "prepareReceiveVideoFrom" => Self::PrepareReceiveVideoFrom(PrepareReceiveVideoFrom {
                sender: p.text("sender")?,
                reconnect: p.boolean("reconnect")?,
            }),
            "receiveVideoFrom" => Self::ReceiveVideoFrom(ReceiveVideoFrom {
                sender: p.text("sender")?,
                sdp_offer: p.opt_sdp("sdpOffer")?,
                sdp_answer: p.opt_sdp("sdpAnswer")?,
            }),
            "unsubscribeFromVideo" => Self::UnsubscribeFromVideo(UnsubscribeFromVideo {
                sender: p.text("sender")?,
            }),
            "onIceCandidate" => Self::OnIceCandidate(IceCandidateToServer {
                endpoint_name: p.text("endpointName")?,
                candidate: p.text("candidate")?,
                sdp_mid: p.text("sdpMid")?,
                sdp_m_line_index: p.number("sdpMLineIndex")?,
            }),
            "sendMessage" => Self::SendMessage(SendMessage {
                message: p.text("message")?,
            }),
            "streamPropertyChanged" => Self::StreamPropertyChanged(StreamPropertyChanged {
                stream_id: p.text("streamId")?,
                property: p.text("property")?,
                new_value: lenient::drop_nulls(p.value("newValue")?),
                reason: p.text("reason")?,
            }),
            "forceDisconnect" => Self::ForceDisconnect(ForceDisconnect {
                connection_id: p.text("connectionId")?,
            }),
            "forceUnpublish" => Self::ForceUnpublish(ForceUnpublish {
                stream_id: p.text("streamId")?,
            }),
            "applyFilter" => Self::ApplyFilter(ApplyFilter {
                stream_id: p.text("streamId")?,
                kind: p.text("type")?,
                options: p.text("options")?,
            }),
            "removeFilter" => Self::RemoveFilter(RemoveFilter {
                stream_id: p.text("streamId")?,
            }),
            "execFilterMethod" => Self::ExecFilterMethod(ExecFilterMethod {
                stream_id: p.text("streamId")?,
                method: p.text("method")?,
                params: p.text("params")?,
            }),
            "addFilterEventListener" => Self::AddFilterEventListener(FilterEventListener {
                stream_id: p.text("streamId")?,
                event_type: p.text("eventType")?,
            }),
            "removeFilterEventListener" => Self::RemoveFilterEventListener(FilterEventListener {
                stream_id: p.text("streamId")?,
                event_type: p.text("eventType")?,
            }),
            "reconnectStream" => Self::ReconnectStream(ReconnectStream {
                stream: p.text("stream")?,
                sdp_string: p.opt_sdp("sdpString")?,
                sdp_offer: p.opt_sdp("sdpOffer")?,
                forcibly_reconnect: p.opt_boolean("forciblyReconnect"),
            }),
            "videoData" => Self::VideoData(VideoData {
                height: p.number("height")?,
                width: p.number("width")?,
                video_active: p.boolean("videoActive")?,
                audio_active: p.boolean("audioActive")?,
            }),
            "echo" => Self::Echo(Empty {}),
            "leaveRoom" => Self::LeaveRoom(Empty {}),
            "subscribeToSpeechToText" => Self::SubscribeToSpeechToText(SpeechToText {
                connection_id: p.text("connectionId")?,
                lang: p.opt_text("lang")?,
            }),
            "unsubscribeFromSpeechToText" => Self::UnsubscribeFromSpeechToText(SpeechToText {
                connection_id: p.text("connectionId")?,
                lang: None,
            }),
            "sessionStatus" => Self::SessionStatus(SessionStatus {
                session_id: p.opt_text("sessionId")?.unwrap_or_default(),
            }),
            _ => return Err(RequestError::UnknownMethod),
        })
    }

    /// Name of the method on the wire.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Ping(_) => "ping",
            Self::Connect(_) => "connect",
            Self::CloseSession(_) => "closeSession",
            Self::JoinRoom(_) => "joinRoom",
            Self::PublishVideo(_) => "publishVideo",
            Self::UnpublishVideo(_) => "unpublishVideo",
            Self::PrepareReceiveVideoFrom(_) => "prepareReceiveVideoFrom",
            Self::ReceiveVideoFrom(_) => "receiveVideoFrom",
            Self::UnsubscribeFromVideo(_) => "unsubscribeFromVideo",
            Self::OnIceCandidate(_) => "onIceCandidate",
            Self::SendMessage(_) => "sendMessage",
            Self::StreamPropertyChanged(_) => "streamPropertyChanged",
            Self::ForceDisconnect(_) => "forceDisconnect",
            Self::ForceUnpublish(_) => "forceUnpublish",
            Self::ApplyFilter(_) => "applyFilter",
            Self::RemoveFilter(_) => "removeFilter",
            Self::ExecFilterMethod(_) => "execFilterMethod",
            Self::AddFilterEventListener(_) => "addFilterEventListener",
            Self::RemoveFilterEventListener(_) => "removeFilterEventListener",
            Self::ReconnectStream(_) => "reconnectStream",
            Self::VideoData(_) => "videoData",
            Self::Echo(_) => "echo",
            Self::LeaveRoom(_) => "leaveRoom",
            Self::SubscribeToSpeechToText(_) => "subscribeToSpeechToText",
            Self::UnsubscribeFromSpeechToText(_) => "unsubscribeFromSpeechToText",
            Self::SessionStatus(_) => "sessionStatus",
        }
    }

    /// Whether the frame has a `params` member.
    pub const fn has_params(&self) -> bool {
        !matches!(self, Self::Ping(Ping { interval: None }))
    }

    /// Every method name.
    pub const METHODS: [&'static str; 26] = [
        "ping",
        "connect",
        "closeSession",
        "joinRoom",
        "publishVideo",
        "unpublishVideo",
        "prepareReceiveVideoFrom",
        "receiveVideoFrom",
        "unsubscribeFromVideo",
        "onIceCandidate",
        "sendMessage",
        "streamPropertyChanged",
        "forceDisconnect",
        "forceUnpublish",
        "applyFilter",
        "removeFilter",
        "execFilterMethod",
        "addFilterEventListener",
        "removeFilterEventListener",
        "reconnectStream",
        "videoData",
        "echo",
        "leaveRoom",
        "subscribeToSpeechToText",
        "unsubscribeFromSpeechToText",
        "sessionStatus",
    ];

    fn method_name(method: &str) -> Option<&'static str> {
        Self::METHODS.into_iter().find(|m| *m == method)
    }
}

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
        Self {
            to,
            data: Some(data.to_owned()),
            kind: Some(format!("signal:{bare}")),
        }
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
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| lenient::to_text(v).ok_or(SignalMessageError::To))
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(SignalMessageError::Format),
        };
        let member = |name: &str| match map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => lenient::to_text(v)
                .map(Some)
                .ok_or(SignalMessageError::Format),
        };
        Ok(Self {
            to,
            data: member("data")?,
            kind: member("type")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_method_is_parsed_and_named_alike() {
        for m in Request::METHODS {
            match Request::parse(m, Some(&json!({}))) {
                Ok(r) => assert_eq!(r.method(), m),
                Err(RequestError::Missing { method, .. }) => assert_eq!(method, m),
                Err(e) => panic!("{m}: {e}"),
            }
        }
        assert_eq!(
            Request::parse("noSuchMethod", None),
            Err(RequestError::UnknownMethod)
        );
    }

    #[test]
    fn a_missing_element_is_named_as_the_original_does() {
        let e = Request::parse("joinRoom", None).unwrap_err();
        assert_eq!(
            e.message(),
            "java.lang.RuntimeException:Request element 'session' is missing in RPC method 'joinRoom'. Check that 'openvidu-server' and 'openvidu-browser' versions are compatible with each other"
        );
        let e = Request::parse("joinRoom", Some(&json!("text"))).unwrap_err();
        assert_eq!(
            e.message(),
            "com.google.gson.JsonSyntaxException:Expected a com.google.gson.JsonObject but was com.google.gson.JsonPrimitive; at path $"
        );
    }

    #[test]
    fn a_null_element_counts_as_absent() {
        let e = Request::parse("forceDisconnect", Some(&json!({"connectionId":null}))).unwrap_err();
        assert_eq!(
            e,
            RequestError::Missing {
                element: "connectionId",
                method: "forceDisconnect"
            }
        );
    }

    #[test]
    fn debug_of_a_join_hides_token_and_secret() {
        let r = Request::parse(
            "joinRoom",
            Some(&json!({"token":"wss://h?token=tok_Hush","session":"s","platform":"p","metadata":"","secret":"MY_SECRET"})),
        )
        .unwrap();
        let text = format!("{r:?}");
        assert!(
            !text.contains("tok_Hush") && !text.contains("MY_SECRET"),
            "{text}"
        );
    }

    #[test]
    fn signals_are_read_as_the_original_does() {
        let ok = SignalMessage::parse("{\"data\":5,\"type\":\"signal:num\"}").unwrap();
        assert_eq!(
            (ok.to.len(), ok.data.as_deref(), ok.kind.as_deref()),
            (0, Some("5"), Some("signal:num"))
        );
        assert_eq!(
            SignalMessage::parse("{\"to\":null}"),
            Err(SignalMessageError::Format)
        );
        assert_eq!(
            SignalMessage::parse("{\"to\":\"x\"}"),
            Err(SignalMessageError::Format)
        );
        assert_eq!(
            SignalMessage::parse("{\"to\":[null]}"),
            Err(SignalMessageError::To)
        );
        assert_eq!(SignalMessage::parse("[]"), Err(SignalMessageError::Format));
        assert_eq!(
            SignalMessage::new("chat", "Hi", vec![]).to_json(),
            "{\"to\":[],\"data\":\"Hi\",\"type\":\"signal:chat\"}"
        );
        assert_eq!(
            SignalMessage::new("signal:chat", "", vec![])
                .kind
                .as_deref(),
            Some("signal:chat")
        );
        assert_eq!(
            SignalMessage::new("", "", vec![]).kind.as_deref(),
            Some("signal:signal")
        );
    }
}
