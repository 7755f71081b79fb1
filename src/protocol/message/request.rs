//! Requests of a client.

use crate::protocol::secret::{Sdp, Secret};
use serde::Serialize;
use serde_json::Value;

/// One request. Serialises as its `params`; [`crate::protocol::rpc::request`] writes the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[allow(missing_docs, reason = "each variant is the method of the same name; the fields are documented at their types")]
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
    Tiles(Tiles),
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

/// `sendMessage`: the text is JSON, see [`super::SignalMessage`].
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

/// `tertuliaTiles`, towards a host that announces it only (`tiles` in the member `tertulia` of the `joinRoom` result): how
/// large streams are drawn here, so that no more is sent than is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tiles {
    /// Those that changed.
    pub tiles: Vec<TileSize>,
}

/// How large one stream is drawn.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TileSize {
    /// Which stream.
    pub stream_id: String,
    /// Physical pixels; 0 for a hidden one.
    pub width: u32,
    /// Physical pixels; 0 for a hidden one.
    pub height: u32,
}

impl Request {
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
            Self::Tiles(_) => "tertuliaTiles",
        }
    }

    /// Whether the frame has a `params` member.
    pub const fn has_params(&self) -> bool {
        !matches!(self, Self::Ping(Ping { interval: None }))
    }

    /// Every method name.
    pub const METHODS: [&'static str; 27] = [
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
        "tertuliaTiles",
    ];

    pub(super) fn method_name(method: &str) -> Option<&'static str> {
        Self::METHODS.into_iter().find(|m| *m == method)
    }
}
