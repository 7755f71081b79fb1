//! What goes into the client machine and what comes out of it.

use super::reconnect::Seed;
use crate::protocol::message::{
    FilterWish, JoinResult, Notification, ParticipantInfo, PropertyValue, Request, Role, StreamInfo, VideoData,
    VideoDimensions,
};
use crate::protocol::rpc::RpcError;
use crate::protocol::secret::Sdp;
use crate::protocol::token::Token;
use std::time::Duration;

/// The caller's own number of an action; its answer carries it.
pub type ActionId = u64;

/// Number of a socket, rising. What comes from an older socket than the newest is ignored.
pub type SocketId = u32;

/// What a client needs to know from the start.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// The token to join with.
    pub token: Token,
    /// Description of the platform, for example `Tertulia 0.1.0 on Linux x86_64`.
    pub platform: String,
    /// Semver of the protocol's client library that this one behaves like.
    pub sdk_version: String,
    /// Client part of the metadata.
    pub metadata: String,
    /// Whether the caller can get a fresh token (an invitation, or access to REST). Without it a lost place ends in [`EndReason::NeedsNewToken`].
    pub can_rejoin: bool,
    /// Spreads the retries of many clients that lost the same server.
    pub seed: Seed,
}

/// The version of `openvidu-browser` whose behavior this client follows.
pub const SDK_VERSION: &str = "2.32.2";

/// Everything that can happen to the machine.
#[derive(Debug, Clone)]
pub enum Input {
    /// The socket is open.
    SocketOpen(SocketId),
    /// The socket is closed, by whomever.
    SocketClosed {
        /// Which.
        socket: SocketId,
        /// WebSocket close code, 1006 when there was none.
        code: u16,
        /// Text of the close frame.
        reason: String,
    },
    /// The socket could not be opened.
    SocketFailed {
        /// Which.
        socket: SocketId,
        /// Technical cause, without secrets.
        detail: String,
    },
    /// A text frame.
    Text {
        /// Which socket.
        socket: SocketId,
        /// Content.
        text: Text,
    },
    /// The time of [`super::Client::poll_timeout`] has come. Early or superfluous ones do no harm.
    Timeout,
    /// A wish of the user or the engine.
    User(ActionId, Action),
}

/// Text of a frame. `Debug` gives its length only.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(pub String);

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// What a publication is announced with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PublishProperties {
    /// The publisher wants its own media back.
    pub do_loopback: bool,
    /// There is an audio m-line.
    pub has_audio: bool,
    /// There is a video m-line.
    pub has_video: bool,
    /// Microphone on; `None` says nothing (video only).
    pub audio_active: Option<bool>,
    /// Camera on; `None` says nothing (audio only).
    pub video_active: Option<bool>,
    /// `CAMERA`, `SCREEN`, `CUSTOM`; `None` for audio only.
    pub type_of_video: Option<String>,
    /// Frames per second, −1 for none.
    pub frame_rate: Option<i32>,
    /// Picture size.
    pub video_dimensions: Option<VideoDimensions>,
    /// Filter to start with.
    pub filter: Option<FilterWish>,
}

/// A change of the own stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnProperty {
    /// Microphone on or off.
    AudioActive(bool),
    /// Camera on or off.
    VideoActive(bool),
    /// Picture size.
    VideoDimensions {
        /// Size.
        dimensions: VideoDimensions,
        /// `screenResized` or `deviceRotated` or `trackReplaced`.
        reason: DimensionsReason,
    },
    /// Another audio track, with its label.
    AudioTrack(String),
    /// Another video track, with its label.
    VideoTrack(String),
}

/// Why a picture has a new size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DimensionsReason {
    /// The shared window or screen was resized.
    ScreenResized,
    /// The device was turned.
    DeviceRotated,
    /// Another source.
    TrackReplaced,
}

/// A wish. Each one is answered by exactly one [`ClientEvent::Answered`], except [`Action::Join`], [`Action::Leave`], [`Action::Rejoin`],
/// [`Action::NoToken`], [`Action::NetworkChanged`] and [`Action::RetryNow`], whose effect is the change of state.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Open the socket and join.
    Join,
    /// Publish; answered by [`Answer::Published`].
    Publish {
        /// What is announced.
        properties: PublishProperties,
        /// Offer.
        sdp_offer: Sdp,
    },
    /// Stop publishing.
    Unpublish,
    /// Subscribe with an own offer; answered by [`Answer::Subscribed`].
    Subscribe {
        /// Stream.
        stream_id: String,
        /// Offer.
        sdp_offer: Sdp,
    },
    /// Ask the server for an offer; answered by [`Answer::Offer`].
    PrepareSubscribe {
        /// Stream.
        stream_id: String,
        /// Drop the existing subscription first.
        reconnect: bool,
    },
    /// Answer the server's offer.
    SubscribeAnswer {
        /// Stream.
        stream_id: String,
        /// Answer.
        sdp_answer: Sdp,
    },
    /// Stop receiving a stream.
    Unsubscribe {
        /// Stream.
        stream_id: String,
    },
    /// A local ICE candidate. While the connection is away it is dropped (answered [`ActionError::NotJoined`]): the stream is then renegotiated anyway.
    IceCandidate {
        /// Connection that publishes the stream: the own id for the publication.
        connection_id: String,
        /// `candidate:…`.
        candidate: String,
        /// Mid.
        sdp_mid: String,
        /// Index of the m-line.
        sdp_m_line_index: u32,
    },
    /// Send a signal.
    Signal {
        /// Type; the prefix `signal:` is added when it is missing.
        kind: String,
        /// Content.
        data: String,
        /// Connection ids, empty for everybody.
        to: Vec<String>,
    },
    /// Announce a change of the own stream. While the connection is away the last value of each property is kept and sent on return.
    PropertyChanged(OwnProperty),
    /// Report size and state of the own picture.
    VideoData(VideoData),
    /// Renegotiate the own publication; answered by [`Answer::Published`].
    ReconnectPublisher {
        /// New offer.
        sdp_offer: Sdp,
    },
    /// Renegotiate a subscription with an own offer; answered by [`Answer::Subscribed`].
    ReconnectSubscriber {
        /// Stream.
        stream_id: String,
        /// New offer.
        sdp_offer: Sdp,
    },
    /// Renegotiate a subscription by answering the server's offer ([`Action::PrepareSubscribe`] or [`ClientEvent::ForciblyReconnect`]).
    ReconnectSubscriberAnswer {
        /// Stream.
        stream_id: String,
        /// Answer.
        sdp_answer: Sdp,
        /// It answers [`ClientEvent::ForciblyReconnect`].
        forcibly: bool,
    },
    /// Ask whether the server still answers, before renegotiating a stream. No answer within 3 s counts as a lost connection.
    Probe,
    /// Moderator: remove a connection.
    ForceDisconnect {
        /// Whom.
        connection_id: String,
    },
    /// Moderator: stop a stream.
    ForceUnpublish {
        /// Which.
        stream_id: String,
    },
    /// Any other request that belongs to a joined connection (filters, speech to text).
    Request(Box<Request>),
    /// Join again with a fresh token, after [`ClientEvent::RejoinNeeded`].
    Rejoin(Token),
    /// No fresh token could be had: for now, or for good.
    NoToken {
        /// Trying again makes no sense (key revoked, session gone).
        for_good: bool,
    },
    /// The operating system reported another network or woke up: retries start over at once, a standing connection is checked.
    NetworkChanged,
    /// The user does not want to wait for the next retry.
    RetryNow,
    /// Leave. Wherever the machine stands, [`State::Ended`] follows within [`super::LEAVE_TIMEOUT`].
    Leave,
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Open a socket. Any older one is of no interest any more.
    OpenSocket {
        /// Number for everything about it.
        socket: SocketId,
        /// URL without token or secret.
        url: String,
    },
    /// Close a socket, or give up opening it.
    CloseSocket {
        /// Which.
        socket: SocketId,
        /// Close code.
        code: u16,
        /// Close text.
        reason: &'static str,
    },
    /// Send a text frame. Holds the token when it joins.
    Send {
        /// Which socket.
        socket: SocketId,
        /// Content.
        text: Text,
    },
    /// Something happened.
    Event(ClientEvent),
}

/// How an action ended when it ended well.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Done.
    Done,
    /// Published, or the publication renegotiated.
    Published {
        /// Stream id.
        stream_id: String,
        /// UTC milliseconds.
        created_at: u64,
        /// Answer.
        sdp_answer: Sdp,
    },
    /// Subscribed, or the subscription renegotiated. No answer when the client answered the server's offer.
    Subscribed {
        /// Stream.
        stream_id: String,
        /// Answer.
        sdp_answer: Option<Sdp>,
    },
    /// The server's offer.
    Offer {
        /// Stream.
        stream_id: String,
        /// Offer.
        sdp_offer: Sdp,
    },
}

/// How an action ended when it ended badly.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// The server refused.
    #[error("refused with code {}", .0.code)]
    Refused(RpcError),
    /// No answer within [`super::REQUEST_TIMEOUT`].
    #[error("no answer")]
    TimedOut,
    /// The connection was lost before the answer came; whether the server carried it out is unknown.
    #[error("connection lost")]
    Cancelled,
    /// Not in the session at the moment.
    #[error("not joined")]
    NotJoined,
    /// There is no own stream.
    #[error("not publishing")]
    NotPublishing,
    /// The answer lacks what it is about.
    #[error("unusable answer")]
    BadAnswer,
    /// Too many requests wait for an answer.
    #[error("too many requests")]
    TooMany,
    /// The message is longer than a server takes.
    #[error("message too long")]
    TooLong,
}

/// Where the machine stands. Every change is a [`ClientEvent::State`].
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Nothing started.
    Idle,
    /// Opening the first socket.
    Connecting,
    /// `joinRoom` is on its way.
    Joining,
    /// In the session.
    Joined,
    /// In the session, but the server has not answered a ping for [`super::CHECKING_AFTER`].
    Checking,
    /// The socket is gone. Times are on the caller's monotonic clock.
    Reconnecting {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// When the next attempt starts; `None` while one is running.
        retry_at: Option<Duration>,
        /// Until when the server is sure to keep the place.
        place_kept_until: Duration,
    },
    /// A new socket is open: resuming, then checking that the participant still exists.
    Resuming {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Until when the server is sure to keep the place.
        place_kept_until: Duration,
    },
    /// The place is lost; [`ClientEvent::RejoinNeeded`] asked for a fresh token.
    AwaitingToken {
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// The place is lost and the last attempt failed; the next [`ClientEvent::RejoinNeeded`] comes at this time.
    RejoinPaused {
        /// Number of the attempt that failed, from 1.
        attempt: u32,
        /// When the next attempt starts.
        retry_at: Duration,
    },
    /// Joining again with a fresh token.
    Rejoining {
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Nothing worked for [`super::reconnect::GIVE_UP_AFTER`]. [`Action::RetryNow`] and [`Action::NetworkChanged`] start over.
    GivenUp,
    /// `leaveRoom` is on its way.
    Leaving,
    /// Over.
    Ended(EndReason),
}

/// Why it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndReason {
    /// The user left.
    Left,
    /// The server removed us; the reason as the protocol names it (`forceDisconnectByUser`, `sessionClosedByServer`, `nodeCrashed` …).
    Evicted {
        /// Reason.
        reason: String,
    },
    /// `joinRoom` was refused.
    Refused(RpcError),
    /// The first socket could not be opened; the token is unspent.
    Unreachable {
        /// Technical cause.
        detail: String,
    },
    /// The server never answered `joinRoom`.
    JoinTimedOut,
    /// The socket closed while joining; the token may be spent.
    JoinInterrupted {
        /// Close code.
        code: u16,
    },
    /// The answer to `joinRoom` lacks a connection id.
    BadServer,
    /// The place is lost and there is no means to get a new token: ask for a new invitation.
    NeedsNewToken,
    /// No fresh token, and trying again makes no sense.
    RejoinImpossible,
}

/// Why the place in the session is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostPlace {
    /// The server does not know the connection any more (40007).
    Expired,
    /// The server resumed the connection, but the participant is gone.
    ParticipantGone,
    /// The server evicted us because our network failed.
    NetworkEviction,
    /// The server had given no id to resume with.
    NoResume,
    /// A stream that should be there is gone: notifications were lost while the socket was dead.
    MissedNews,
    /// The attempt before failed.
    RejoinFailed,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// Another state.
    State(State),
    /// The end of an action.
    Answered {
        /// The caller's number.
        action: ActionId,
        /// How it ended.
        outcome: Result<Answer, ActionError>,
    },
    /// In the session. [`ClientEvent::ParticipantJoined`] and [`ClientEvent::StreamPublished`] for everybody already there follow.
    Joined {
        /// The server's answer.
        result: Box<JoinResult>,
        /// It was a rejoin: connection id, roster and streams are new, forget the old ones.
        rejoined: bool,
    },
    /// Somebody is there.
    ParticipantJoined(ParticipantInfo),
    /// Somebody left. The stream, if there was one, was unpublished just before.
    ParticipantLeft {
        /// Who.
        connection_id: String,
        /// Reason of the protocol, may be empty.
        reason: String,
    },
    /// Somebody publishes.
    StreamPublished {
        /// Who.
        connection_id: String,
        /// What.
        stream: StreamInfo,
    },
    /// A stream is gone.
    StreamUnpublished {
        /// Whose.
        connection_id: String,
        /// Which.
        stream_id: String,
        /// Reason of the protocol, may be empty.
        reason: String,
    },
    /// The server ended the own publication (`forceUnpublishByUser`, `mediaServerReconnect` …). It may be published again.
    OwnStreamUnpublished {
        /// Which.
        stream_id: String,
        /// Reason of the protocol.
        reason: String,
    },
    /// A candidate of the server, after the description it belongs to.
    RemoteCandidate {
        /// Connection that publishes the stream.
        connection_id: String,
        /// The server's name of the endpoint.
        endpoint_name: String,
        /// `candidate:…`.
        candidate: String,
        /// Mid.
        sdp_mid: String,
        /// Index of the m-line.
        sdp_m_line_index: u32,
    },
    /// A signal; one's own broadcasts come back, too.
    Signal {
        /// Sender, `None` when it came over REST.
        from: Option<String>,
        /// Type without `signal:`.
        kind: String,
        /// Content.
        data: String,
    },
    /// Somebody's stream changed.
    PropertyChanged {
        /// Whose.
        connection_id: String,
        /// Which.
        stream_id: String,
        /// What.
        property: PropertyValue,
        /// Reason of the protocol.
        reason: String,
    },
    /// The own role changed.
    RoleChanged(Role),
    /// The server offers a subscription anew: answer with [`Action::ReconnectSubscriberAnswer`] on a fresh transport.
    ForciblyReconnect {
        /// Stream.
        stream_id: String,
        /// Publisher.
        connection_id: String,
        /// Offer.
        sdp_offer: Sdp,
    },
    /// Anything else the server said: recordings, filters, quality, unknown ones.
    Other(Box<Notification>),
    /// A ping was answered after this time.
    Pong {
        /// Round trip to the server's signaling.
        rtt: Duration,
    },
    /// The connection is resumed and the participant still exists. Renegotiate those streams whose media does not flow.
    Reconnected {
        /// The own stream, if there is one.
        own_stream: Option<String>,
        /// Subscribed streams.
        subscribed: Vec<String>,
    },
    /// The place is lost: answer with [`Action::Rejoin`] or [`Action::NoToken`].
    RejoinNeeded {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Why.
        cause: LostPlace,
    },
    /// A frame that could not be used. Counted, never fatal.
    Garbage {
        /// What was wrong with it, without its content.
        what: String,
        /// How many so far.
        count: u64,
    },
}
