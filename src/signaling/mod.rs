//! Talking to a server: the small [`Signaling`] interface and the OpenVidu 2 dialect.
//!
//! A second dialect gets its own folder beside `openvidu`; nothing above this room names a dialect.

pub mod error;
pub mod openvidu;
pub mod target;
pub mod tls;

use std::time::Instant;

use async_trait::async_trait;

use crate::protocol::message::{IceServer, ParticipantInfo, PropertyValue, Role, StreamInfo};

pub use error::SignalingError;

/// Result of a join, as far as the engine needs it.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Own connection id.
    pub connection_id: String,
    /// Session id.
    pub session: String,
    /// What we may do.
    pub role: Role,
    /// ICE servers with credentials.
    pub ice_servers: Vec<IceServer>,
    /// Whether the server makes the offers for subscriptions (`mediasoup`).
    pub server_offers: bool,
    /// What serves: `openvidu`, or `tertulia` where it announces our extensions.
    pub server: ServerKind,
    /// It takes pictures in several layers.
    pub simulcast: bool,
    /// It wants to know how large streams are drawn.
    pub tiles: bool,
    /// Host and port of the server, for people to read.
    pub host: String,
}

/// What kind of server answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// An OpenVidu 2 server.
    OpenVidu,
    /// Our own embedded host.
    Tertulia,
}

impl ServerKind {
    /// The word of the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenVidu => "openvidu",
            Self::Tertulia => "tertulia",
        }
    }
}

/// A publication as announced to the server.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// SDP offer.
    pub sdp_offer: String,
    /// Carries audio.
    pub has_audio: bool,
    /// Carries video.
    pub has_video: bool,
    /// Microphone on.
    pub audio_active: bool,
    /// Camera on.
    pub video_active: bool,
    /// `CAMERA`, `SCREEN` or `CUSTOM`.
    pub type_of_video: String,
    /// Frames per second.
    pub frame_rate: u32,
    /// Width and height in pixels.
    pub video_dimensions: (u32, u32),
}

/// Answer to a publication.
#[derive(Debug, Clone)]
pub struct Published {
    /// Stream id.
    pub stream_id: String,
    /// SDP answer.
    pub sdp_answer: String,
}

/// A property of the own stream that others are told about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// Microphone on or off.
    AudioActive(bool),
    /// Camera on or off.
    VideoActive(bool),
    /// Another picture size.
    VideoDimensions(u32, u32),
    /// Another microphone, by its label.
    AudioTrack(String),
    /// Another camera, by its label.
    VideoTrack(String),
}

/// Which of our publications or subscriptions a candidate belongs to.
#[derive(Debug, Clone)]
pub struct LocalCandidate {
    /// Connection id that publishes the stream (own id for the publication).
    pub endpoint: String,
    /// `candidate:…` line.
    pub candidate: String,
    /// Media id.
    pub sdp_mid: String,
    /// Index of the m-line.
    pub sdp_mline_index: u16,
}

/// What a server or the way to it tells the engine.
#[derive(Debug, Clone)]
pub enum SignalingEvent {
    /// The socket opened (for the timeline; again after a reconnection).
    SocketOpen,
    /// In the session. Events for everybody who is already there follow.
    Joined {
        /// What the server said.
        joined: Box<Joined>,
        /// Joined again with a new connection id: roster and streams are new, forget the old ones.
        rejoined: bool,
    },
    /// Somebody is there.
    ParticipantJoined(Box<ParticipantInfo>),
    /// Somebody left; a stream of theirs was unpublished just before.
    ParticipantLeft {
        /// Connection id.
        connection_id: String,
        /// Reason as the server names it.
        reason: String,
    },
    /// Somebody published.
    StreamPublished {
        /// Connection id.
        connection_id: String,
        /// The stream.
        stream: Box<StreamInfo>,
    },
    /// A stream ended.
    StreamUnpublished {
        /// Connection id.
        connection_id: String,
        /// Stream id.
        stream_id: String,
        /// Reason as the server names it.
        reason: String,
    },
    /// A moderator or the server ended our own stream.
    OwnStreamUnpublished {
        /// Reason as the server names it.
        reason: String,
    },
    /// A candidate of the server.
    RemoteCandidate {
        /// Connection id that publishes the stream.
        connection_id: String,
        /// Candidate line.
        candidate: String,
        /// Media id.
        sdp_mid: String,
        /// Index of the m-line.
        sdp_mline_index: u16,
    },
    /// The server wants a subscription's transport to be replaced, and offers the new one.
    ServerOffers {
        /// Connection id of the publisher.
        connection_id: String,
        /// Stream id.
        stream_id: String,
        /// SDP offer.
        sdp_offer: String,
    },
    /// A signal; our own broadcasts come back too.
    Signal {
        /// Sender's connection id, absent when sent over REST.
        from: Option<String>,
        /// Type without prefix.
        kind: String,
        /// Text.
        data: String,
    },
    /// A property of somebody's stream changed.
    PropertyChanged {
        /// Connection id.
        connection_id: String,
        /// Stream id.
        stream_id: String,
        /// Which, and its value.
        property: PropertyValue,
        /// Reason as the server names it.
        reason: String,
    },
    /// Our role changed.
    RoleChanged(Role),
    /// The socket is silent: an answer is overdue.
    Checking,
    /// The overdue answer came.
    CheckedWell,
    /// The socket is lost.
    Reconnecting {
        /// Attempt, from 1.
        attempt: u32,
        /// When the next try starts, absent while one is running.
        retry_at: Option<Instant>,
        /// Until when the server is sure to keep our place.
        place_kept_until: Instant,
    },
    /// Resumed with the same connection id.
    Reconnected,
    /// Our place is gone: joining again with a new token.
    Rejoining {
        /// Attempt, from 1.
        attempt: u32,
        /// When the next try starts, absent while one is running.
        retry_at: Option<Instant>,
        /// Why the place is gone, in one word.
        cause: Option<&'static str>,
    },
    /// No way back within the limit; `retry_now` starts over.
    GivenUp,
    /// Over: we left.
    Left,
    /// Over: removed, or the session is closed.
    Evicted {
        /// Reason as the server names it.
        reason: String,
    },
    /// Over, or never begun.
    Failed(SignalingError),
    /// Something the server said that has no other place: recordings, filters, quality, and under one name of our own whatever is unknown.
    Other {
        /// Name of the event.
        name: String,
        /// What it said, bounded and without tokens.
        detail: serde_json::Map<String, serde_json::Value>,
    },
    /// A frame that could not be used.
    Garbage {
        /// What was wrong with it.
        what: String,
        /// How many so far.
        count: u64,
    },
}

/// What the engine asks of a server. Every call ends within the request timeout (10 s).
#[async_trait]
pub trait Signaling: Send + Sync {
    /// Publishes; the answer has the stream id.
    async fn publish(&self, request: PublishRequest) -> Result<Published, SignalingError>;
    /// Ends the publication.
    async fn unpublish(&self) -> Result<(), SignalingError>;
    /// Subscribes with our offer; gives the answer.
    async fn subscribe(&self, stream_id: &str, sdp_offer: &str) -> Result<String, SignalingError>;
    /// Asks the server for an offer of this stream.
    async fn prepare_subscribe(&self, stream_id: &str, reconnect: bool) -> Result<String, SignalingError>;
    /// Answers the server's offer.
    async fn answer_subscribe(&self, stream_id: &str, sdp_answer: &str) -> Result<(), SignalingError>;
    /// Ends the subscription to a stream.
    async fn unsubscribe(&self, stream_id: &str) -> Result<(), SignalingError>;
    /// New transport for our own stream: offer in, answer out.
    async fn reconnect_publication(&self, sdp_offer: &str) -> Result<String, SignalingError>;
    /// New transport for a subscription: offer in, answer out.
    async fn reconnect_subscription(&self, stream_id: &str, sdp_offer: &str) -> Result<String, SignalingError>;
    /// New transport for a subscription whose offer the server made; `forcibly` where nobody had asked it to.
    async fn reconnect_subscription_answer(
        &self,
        stream_id: &str,
        sdp_answer: &str,
        forcibly: bool,
    ) -> Result<(), SignalingError>;
    /// Sends one local candidate. Not waited for.
    async fn candidate(&self, candidate: LocalCandidate);
    /// Tells everybody about a changed property of our stream.
    async fn set_property(&self, property: Property) -> Result<(), SignalingError>;
    /// Sends a signal; `kind` without prefix, empty `to` is everybody.
    async fn signal(&self, kind: &str, data: &str, to: &[String]) -> Result<(), SignalingError>;
    /// Size and state of our video, as the browser reports it a few times after publishing.
    async fn video_data(&self, width: u32, height: u32, video_active: bool, audio_active: bool);
    /// How large streams are drawn, in physical pixels, (0, 0) for hidden ones; only for servers that want to know
    /// ([`Joined::tiles`]). Not waited for.
    async fn tiles(&self, tiles: Vec<(String, (u32, u32))>);
    /// Moderator: removes a connection.
    async fn force_disconnect(&self, connection_id: &str) -> Result<(), SignalingError>;
    /// Moderator: stops a stream.
    async fn force_unpublish(&self, stream_id: &str) -> Result<(), SignalingError>;
    /// Whether the server answers, before a stream is negotiated anew. Silence for 3 s counts as a lost connection.
    async fn probe(&self) -> Result<(), SignalingError>;
    /// Tries to reconnect at once.
    async fn retry_now(&self);
    /// Leaves; returns when the server answered or the time for it is up.
    async fn leave(&self);
}
