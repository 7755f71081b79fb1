//! The state of a session, as plain data: another host can take it over.

use super::api::LegId;
use crate::protocol::Secret;
use crate::protocol::message::{IceServer, Role, StreamInfo};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A video codec that can be forced on a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum VideoCodecName {
    /// VP8.
    Vp8,
    /// VP9.
    Vp9,
    /// H.264.
    H264,
}

impl VideoCodecName {
    /// The name in `a=rtpmap`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
        }
    }
}

/// The session property `forcedVideoCodec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ForcedCodec {
    /// The default: VP8.
    MediaServerPreferred,
    /// Whatever is offered.
    None,
    /// VP8 alone.
    Vp8,
    /// VP9 alone.
    Vp9,
    /// H.264 alone.
    H264,
}

impl ForcedCodec {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MediaServerPreferred => "MEDIA_SERVER_PREFERRED",
            Self::None => "NONE",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
        }
    }

    /// The property with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::MediaServerPreferred, Self::None, Self::Vp8, Self::Vp9, Self::H264]
            .into_iter()
            .find(|c| c.name() == name)
    }

    /// The codec it comes to.
    pub const fn resolved(self) -> Option<VideoCodecName> {
        match self {
            Self::MediaServerPreferred | Self::Vp8 => Some(VideoCodecName::Vp8),
            Self::Vp9 => Some(VideoCodecName::Vp9),
            Self::H264 => Some(VideoCodecName::H264),
            Self::None => None,
        }
    }
}

/// Properties of a session, as given over REST.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionProperties {
    /// `customSessionId`, empty if none was given.
    pub custom_session_id: String,
    /// `ROUTED` or `RELAYED`; both mean the same here.
    pub media_mode: String,
    /// `MANUAL` or `ALWAYS`; kept and shown, nothing is recorded.
    pub recording_mode: String,
    /// `forcedVideoCodec`.
    pub forced_video_codec: ForcedCodec,
    /// `allowTranscoding`: the forced codec becomes a wish. Nothing is transcoded.
    pub allow_transcoding: bool,
    /// `defaultRecordingProperties` with its defaults filled in.
    pub recording: Value,
    /// `mediaNode`, shown if given.
    pub media_node: Option<Value>,
}

/// What a token stands for: everything about a connection that is decided before anybody joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// The id the joined participant will have.
    pub connection_id: String,
    /// The whole token URL; `None` for somebody who joins with the secret.
    pub token: Option<Secret>,
    /// When it was made, UTC ms.
    pub created_at: u64,
    /// UTC ms from which it is worth nothing; `None` for one that waits as long as its session.
    #[serde(default)]
    pub expires_at: Option<u64>,
    /// The room key it was made for.
    #[serde(default)]
    pub key: Option<super::KeyId>,
    /// Role.
    pub role: Role,
    /// Property `record`.
    pub record: bool,
    /// Property `data`: the server's part of the metadata.
    pub server_data: String,
    /// Property `kurentoOptions`, kept and shown.
    pub kurento_options: Option<Value>,
    /// Property `customIceServers`; empty = the host's own entry.
    pub ice_servers: Vec<IceServer>,
}

/// Who is not to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hidden {
    /// A recorder.
    Recorder,
    /// A speech-to-text worker.
    SpeechToText,
}

/// Somebody in a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Participant {
    /// What the token said.
    pub ticket: Ticket,
    /// When it joined, UTC ms.
    pub active_at: u64,
    /// The client's part of the metadata.
    pub client_data: String,
    /// What the client says it runs on.
    pub platform: String,
    /// Address of its socket.
    pub ip: String,
    /// The same for all connections of one browser.
    pub final_user_id: String,
    /// Not shown to others.
    pub hidden: Option<Hidden>,
    /// Joined with the secret: every role check passes.
    pub insecure: bool,
    /// Its JSON-RPC session, the handle to resume with.
    pub rpc_id: String,
    /// What it publishes.
    pub stream: Option<Stream>,
    /// What it receives, by stream id.
    pub subscriptions: BTreeMap<String, Subscription>,
    /// How large it draws streams, in pixels; zero for a hidden one. By stream id.
    #[serde(default)]
    pub tiles: BTreeMap<String, (u32, u32)>,
}

impl Participant {
    /// Connection id.
    pub fn id(&self) -> &str {
        &self.ticket.connection_id
    }

    /// Client's and server's part of the metadata as others see them.
    pub fn metadata(&self) -> String {
        match (self.client_data.is_empty(), self.ticket.server_data.is_empty()) {
            (false, false) => format!("{}%/%{}", self.client_data, self.ticket.server_data),
            (false, true) => self.client_data.clone(),
            (true, _) => self.ticket.server_data.clone(),
        }
    }

    /// Whether it has at least this role.
    pub fn may(&self, role: Role) -> bool {
        self.insecure || self.ticket.role >= role
    }
}

/// A published stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// What others are told: id (`str_…`, ending in the connection id), time, properties.
    pub info: StreamInfo,
    /// The publisher wants its own media back.
    pub loopback: bool,
    /// The leg it comes in on.
    pub leg: LegId,
}

/// A received stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// UTC ms.
    pub created_at: u64,
    /// The leg it goes out on.
    pub leg: LegId,
    /// The host made an offer on this leg that is not answered yet.
    pub prepared: Option<LegId>,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Session id.
    pub id: String,
    /// UTC ms.
    pub created_at: u64,
    /// Properties.
    pub properties: SessionProperties,
    /// Whether somebody joined yet.
    pub active: bool,
    /// Tokens not yet used, by connection id.
    pub pending: BTreeMap<String, Ticket>,
    /// Who is here, by connection id.
    pub participants: BTreeMap<String, Participant>,
}

impl Session {
    /// The participant that publishes a stream, and the stream.
    pub fn publisher(&self, stream_id: &str) -> Option<(&Participant, &Stream)> {
        self.participants.values().find_map(|p| p.stream.as_ref().filter(|s| s.info.id == stream_id).map(|s| (p, s)))
    }

    /// How many people are here whom others can see.
    pub fn visible(&self) -> usize {
        self.participants.values().filter(|p| p.hidden.is_none()).count()
    }

    /// Connection ids of everybody who gets notifications.
    pub fn everybody(&self) -> BTreeSet<String> {
        self.participants.keys().cloned().collect()
    }
}
