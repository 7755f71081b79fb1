//! What goes into the room machine and what comes out of it.

use super::session::VideoCodecName;
use crate::protocol::{Sdp, Secret};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// One WebSocket of the host, numbered by whoever accepts it and never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SocketId(pub u64);

/// One request to the media server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpId(pub u64);

/// One PeerConnection of the media server: a publisher's or a subscriber's. A reconnected stream gets a new one; numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LegId(pub u64);

/// What happened, for [`Server::handle`](super::Server::handle).
#[derive(Clone)]
pub enum ServerInput {
    /// A WebSocket is open.
    SocketOpened {
        /// Its number.
        socket: SocketId,
        /// Address of the other end.
        peer: IpAddr,
        /// Value of the cookie `OVJSESSIONID`, given or just set: the same for all sockets of one browser.
        cookie: String,
    },
    /// A text frame came in.
    Text {
        /// On this socket.
        socket: SocketId,
        /// The whole message.
        text: String,
    },
    /// The other end has read the first frames that were sent on a socket: it has answered something that was sent behind them.
    Delivered {
        /// On this socket.
        socket: SocketId,
        /// So many since it was opened.
        frames: u64,
    },
    /// A WebSocket is gone, for whatever reason.
    SocketClosed {
        /// Its number.
        socket: SocketId,
        /// Close code, 1006 without one.
        code: u16,
        /// Close reason.
        reason: String,
    },
    /// The media server answers.
    Media {
        /// The request.
        op: OpId,
        /// Its outcome.
        result: Result<MediaDone, MediaError>,
    },
    /// The media server found a candidate of its own.
    LocalCandidate {
        /// The connection it belongs to.
        leg: LegId,
        /// `candidate:…`
        candidate: String,
        /// m-line by name.
        sdp_mid: String,
        /// m-line by number.
        sdp_mline_index: u16,
    },
    /// The media server lost everything but is back: every stream is unpublished, sessions and sockets survive.
    MediaRestarted,
    /// The media server is gone for good: everybody is evicted with `nodeCrashed`.
    MediaGone,
    /// Time has passed; due at the moment [`Server::poll_timeout`](super::Server::poll_timeout) names, harmless at any other.
    Tick,
}

/// What is to be done, from [`Server::poll_output`](super::Server::poll_output), in this order.
#[derive(Clone, PartialEq)]
pub enum ServerOutput {
    /// Send a text frame.
    Send {
        /// On this socket.
        socket: SocketId,
        /// The frame.
        text: String,
    },
    /// Close a socket after what was sent before. No [`ServerInput::SocketClosed`] is needed afterwards, it does no harm either.
    Close {
        /// This socket.
        socket: SocketId,
        /// Close code.
        code: u16,
        /// Close reason.
        reason: &'static str,
    },
    /// Ask the media server. [`MediaOp::Candidate`], [`MediaOp::Draw`] and [`MediaOp::CloseLeg`] are not answered, all others are awaited for
    /// [`Limits::media_timeout`].
    Media {
        /// Number of the request.
        op: OpId,
        /// The request.
        request: MediaOp,
    },
}

/// What the media server is asked to do. Requests about one leg are to be carried out in the order given.
#[derive(Debug, Clone, PartialEq)]
pub enum MediaOp {
    /// Receive a stream on a new leg; answered with [`MediaDone::Answer`]. A stream that exists already (same id) is being reconnected: its subscribers
    /// stay connected and get the media of the new leg, and the old leg is closed by its own [`MediaOp::CloseLeg`] afterwards.
    Publish {
        /// The new leg.
        leg: LegId,
        /// The stream.
        stream: StreamSpec,
        /// The leg the stream comes in on until now, if it is being reconnected.
        previous: Option<LegId>,
        /// The client's offer.
        offer: Sdp,
    },
    /// Send a stream on a new leg, the client having made the offer; answered with [`MediaDone::Answer`].
    Subscribe {
        /// The new leg.
        leg: LegId,
        /// The stream.
        stream: StreamSpec,
        /// Who receives it: legs of one receiver share a downlink.
        receiver: String,
        /// The client's offer.
        offer: Sdp,
    },
    /// Send a stream on a new leg, the media server making the offer; answered with [`MediaDone::Offer`].
    PrepareSubscribe {
        /// The new leg.
        leg: LegId,
        /// The stream.
        stream: StreamSpec,
        /// Who receives it.
        receiver: String,
    },
    /// The client's answer to the offer of [`MediaOp::PrepareSubscribe`]; answered with [`MediaDone::Done`].
    SetAnswer {
        /// The leg.
        leg: LegId,
        /// The client's answer.
        answer: Sdp,
    },
    /// A candidate of the client; not answered.
    Candidate {
        /// The leg.
        leg: LegId,
        /// `candidate:…`, or empty for the end of candidates.
        candidate: String,
        /// m-line by name.
        sdp_mid: String,
        /// m-line by number.
        sdp_mline_index: u16,
    },
    /// How large the receiver draws what comes on a leg, zero for a hidden picture; not answered.
    Draw {
        /// The leg.
        leg: LegId,
        /// Width and height in pixels.
        size: (u32, u32),
    },
    /// Forget a leg, known or not; not answered. A stream whose newest publishing leg is closed is gone.
    CloseLeg {
        /// The leg.
        leg: LegId,
    },
}

/// A stream as the media server needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// OpenVidu session: streams of one session are forwarded by one shard.
    pub session_id: String,
    /// Stream id, unique on this host.
    pub stream_id: String,
    /// Connection that publishes it.
    pub connection_id: String,
    /// Whether it has audio.
    pub has_audio: bool,
    /// Whether it has video.
    pub has_video: bool,
    /// Whether the publisher gets its own media back on the same leg.
    pub loopback: bool,
    /// The one video codec to negotiate, `None` for any of those offered.
    pub codec: Option<VideoCodecName>,
    /// Width and height of the picture, where its publisher told them.
    pub size: Option<(u32, u32)>,
}

/// A good answer of the media server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaDone {
    /// To [`MediaOp::Publish`] and [`MediaOp::Subscribe`].
    Answer(Sdp),
    /// To [`MediaOp::PrepareSubscribe`].
    Offer(Sdp),
    /// To [`MediaOp::SetAnswer`].
    Done,
}

/// Why the media server could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// The client's description cannot be read or fits nothing.
    #[error("the session description is not usable: {0}")]
    BadSdp(String),
    /// No common codec.
    #[error("no common codec: {0}")]
    NoCodec(String),
    /// The stream or the leg does not exist (any more).
    #[error("no such stream")]
    NoSuchStream,
    /// A limit is reached.
    #[error("the media server is full")]
    Full,
    /// Anything else.
    #[error("media server: {0}")]
    Failed(String),
}

impl fmt::Debug for ServerInput {
    /// Names what happened without the content of messages, which holds tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SocketOpened { socket, peer, .. } => write!(f, "SocketOpened({}, {peer})", socket.0),
            Self::Text { socket, text } => write!(f, "Text({}, {} bytes)", socket.0, text.len()),
            Self::Delivered { socket, frames } => write!(f, "Delivered({}, {frames})", socket.0),
            Self::SocketClosed { socket, code, .. } => write!(f, "SocketClosed({}, {code})", socket.0),
            Self::Media { op, result } => write!(f, "Media({}, ok: {})", op.0, result.is_ok()),
            Self::LocalCandidate { leg, .. } => write!(f, "LocalCandidate({})", leg.0),
            Self::MediaRestarted => f.write_str("MediaRestarted"),
            Self::MediaGone => f.write_str("MediaGone"),
            Self::Tick => f.write_str("Tick"),
        }
    }
}

impl fmt::Debug for ServerOutput {
    /// Names what is to be done without the content of messages, which holds credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { socket, text } => write!(f, "Send({}, {} bytes)", socket.0, text.len()),
            Self::Close { socket, code, reason } => write!(f, "Close({}, {code}, {reason})", socket.0),
            Self::Media { op, request } => write!(f, "Media({}, {request:?})", op.0),
        }
    }
}

/// What the machine needs to know about the host it runs in.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Password of the user `OPENVIDUAPP`.
    pub secret: Secret,
    /// `https://host[:port]`, without a trailing slash: what tokens point to (with `wss` for `https`).
    pub public_url: String,
    /// Whether the URL is only a guess: then a token leads back to the address under which its caller reached this host, unless that is
    /// this very machine and others may need another.
    pub public_url_guessed: bool,
    /// Seed of all identifiers, tokens and keys: 32 bytes of real randomness.
    pub seed: [u8; 32],
    /// Bounds of what clients can make the host keep and do.
    pub limits: Limits,
}

/// Bounds, each with what happens beyond it.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest inbound text message in bytes; beyond: close 1009.
    pub message_bytes: usize,
    /// Sockets in all; beyond: close 1013 at once.
    pub sockets: usize,
    /// Sockets that have not joined; beyond: the oldest of them is closed with 1013.
    pub unjoined_sockets: usize,
    /// How long a socket may stay without joining; then close 1008.
    pub unjoined_for: Duration,
    /// Sessions; beyond: REST 503.
    pub sessions: usize,
    /// Tokens not yet used per session; beyond: REST 503.
    pub tokens: usize,
    /// Participants per session; beyond: error 203.
    pub participants: usize,
    /// Streams per session; beyond: error 201.
    pub streams: usize,
    /// Requests of one socket waiting behind one that waits for media; beyond: error 999.
    pub queued_requests: usize,
    /// Frames kept for a client until it has read them. Beyond: one that is absent is evicted at once, one that is there when it wants
    /// to resume on another socket, since a gap would leave it with a wrong picture of the room.
    pub queued_frames: usize,
    /// Bytes of such frames; beyond: the same.
    pub queued_bytes: usize,
    /// Candidates kept for an endpoint that does not exist yet; beyond: the newest is dropped.
    pub early_candidates: usize,
    /// Signals of one connection: burst and refill per second; beyond: error 999.
    pub signals: (u32, u32),
    /// Messages of one socket: burst and refill per second; beyond: close 1008.
    pub messages: (u32, u32),
    /// Attempts with a wrong room key on the whole host: burst and refill per second; beyond: 429.
    pub wrong_keys: (u32, u32),
    /// How long an absent client is kept.
    pub resume_window: Duration,
    /// How long an evicted client may take to close its socket.
    pub eviction_grace: Duration,
    /// How long the media server may take; beyond: error 302, the leg is closed.
    pub media_timeout: Duration,
    /// Age at which a session nobody joined is removed.
    pub unused_session: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 51_200,
            sockets: 2_000,
            unjoined_sockets: 512,
            unjoined_for: Duration::from_secs(60),
            sessions: 1_000,
            tokens: 1_000,
            participants: 500,
            streams: 200,
            queued_requests: 256,
            queued_frames: 512,
            queued_bytes: 4 << 20,
            early_candidates: 64,
            signals: (200, 50),
            messages: (2_000, 400),
            wrong_keys: (20, 2),
            resume_window: Duration::from_secs(10),
            eviction_grace: Duration::from_secs(10),
            media_timeout: Duration::from_secs(8),
            unused_session: Duration::from_secs(3_600),
        }
    }
}
