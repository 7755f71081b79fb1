//! The client of one connection: user actions, frames and time in; frames and events out.
//!
//! One [`Client`] is one place in a session: it joins, keeps the socket alive, comes back after a loss, and joins again with a fresh token when the
//! place is gone. A screen shared beside a camera is a second client.
//!
//! The caller opens and closes sockets as [`Output`] says, hands in what they deliver, calls [`Client::handle`] with [`Input::Timeout`] when
//! [`Client::poll_timeout`] has come, and drains [`Client::poll_output`] after every call.
//!
//! | wait | ends after | by |
//! |---|---|---|
//! | first socket | 10 s | [`EndReason::Unreachable`] |
//! | answer to a request | 10 s | [`ActionError::TimedOut`] |
//! | answer to a ping | 5 s | new socket |
//! | socket of an attempt, `connect` | 5 s | next attempt |
//! | proof that the participant exists | 3 s | rejoin |
//! | fresh token | 15 s | next attempt |
//! | all attempts together | 60 s | [`State::GivenUp`] |
//! | answer to `leaveRoom` | 3 s | [`State::Ended`] |

mod act;
mod frames;
mod link;
pub mod reconnect;
mod session;
mod types;

pub use reconnect::{CHECKING_AFTER, Seed};
pub use types::{
    Action, ActionError, ActionId, Answer, ClientConfig, ClientEvent, DimensionsReason, EndReason, Input, LostPlace,
    Output, OwnProperty, PublishProperties, SDK_VERSION, SocketId, State, Text,
};

use super::Now;
use super::message::{Notification, ParticipantInfo, Request, Role};
use super::rpc;
use act::Deferred;
use reconnect::Reconnect;
use session::Session;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a request waits for its answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first socket may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `leaveRoom` waits for an answer before the socket is closed all the same.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the answer to a timed-out `publishVideo` or `receiveVideoFrom` is still expected, to undo it.
const LATE_ANSWER: Duration = Duration::from_secs(30);
/// Most requests that may wait for an answer; more are refused ([`ActionError::TooMany`]).
pub const MAX_PENDING: usize = 512;
/// Most participants kept; joins beyond are counted as garbage.
pub const MAX_PARTICIPANTS: usize = 1000;
/// Most candidates kept per endpoint before its description is there; the oldest gives way.
pub const MAX_QUEUED_CANDIDATES: usize = 256;

/// Most notifications kept that come before the answer to `joinRoom`; more count as garbage.
const MAX_EARLY: usize = 512;

/// What a request was sent for.
#[derive(Debug, Clone, PartialEq)]
enum Purpose {
    Ping {
        sent_at: Duration,
    },
    Join,
    Connect,
    Verify,
    Leave,
    /// Sent by the machine itself, the answer is of no interest.
    Silent,
    /// `publishVideo` whose action has timed out.
    LatePublish,
    /// `receiveVideoFrom` of this connection's stream whose action has timed out.
    LateSubscribe {
        connection_id: String,
    },
    Action {
        action: ActionId,
        what: What,
    },
}

/// What an action's answer means.
#[derive(Debug, Clone, PartialEq)]
enum What {
    Plain,
    Probe,
    Publish,
    Unpublish,
    ReconnectPublisher,
    Subscribe { stream_id: String },
    Prepare { stream_id: String },
    SubscribeAnswer { stream_id: String },
    ReconnectSubscriber { stream_id: String },
    Property(OwnProperty),
}

#[derive(Debug)]
struct Pending {
    purpose: Purpose,
    deadline: Duration,
}

#[derive(Debug)]
struct Socket {
    id: SocketId,
    open: bool,
}

/// Figures about the wire, for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Frames that could not be used.
    pub garbage: u64,
    /// Answers to requests that no one waits for: duplicates and late ones.
    pub stray_answers: u64,
    /// Candidates without an endpoint, or pushed out of a full queue.
    pub dropped_candidates: u64,
}

/// The client machine.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    state: State,
    out: VecDeque<Output>,
    next_id: i64,
    next_socket: SocketId,
    socket: Option<Socket>,
    pending: BTreeMap<i64, Pending>,
    /// When the next ping is due; `None` while there is no socket to ping on.
    ping_at: Option<Duration>,
    /// When an unanswered ping becomes [`State::Checking`].
    checking_at: Option<Duration>,
    /// End of the state's own wait.
    deadline: Option<Duration>,
    reconnect: Option<Reconnect>,
    /// When the last attempt to come back was made, over all losses.
    last_attempt: Option<Duration>,
    /// The place is lost: only a fresh token helps.
    place_lost: Option<LostPlace>,
    session: Option<Session>,
    /// A socket of this place was dead for a while: what the server wrote into it is lost.
    deaf_once: bool,
    deferred: Vec<Deferred>,
    /// Notifications that overtook the answer to `joinRoom`.
    early: Vec<Notification>,
    counters: Counters,
}

impl Client {
    /// A client at rest. [`Action::Join`] starts it.
    pub fn new(config: ClientConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            out: VecDeque::new(),
            next_id: 0,
            next_socket: 1,
            socket: None,
            pending: BTreeMap::new(),
            ping_at: None,
            checking_at: None,
            deadline: None,
            reconnect: None,
            last_attempt: None,
            place_lost: None,
            session: None,
            deaf_once: false,
            deferred: Vec::new(),
            early: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Takes in one thing that happened at `now`, then does what is due by then.
    pub fn handle(&mut self, input: Input, now: Now) {
        let now = now.mono;
        match input {
            Input::SocketOpen(id) => {
                if let Some(socket) = self.socket.as_mut().filter(|s| s.id == id && !s.open) {
                    socket.open = true;
                    self.on_open(now);
                }
            }
            Input::SocketClosed { socket, code, reason } => {
                if self.is_current(socket) {
                    self.socket = None;
                    tracing::debug!(code, reason = %reason.escape_debug(), "socket closed");
                    self.on_lost(now, code, "closed");
                }
            }
            Input::SocketFailed { socket, detail } => {
                if self.is_current(socket) {
                    self.socket = None;
                    self.on_lost(now, 1006, &detail);
                }
            }
            Input::Text { socket, text } => {
                if self.socket.as_ref().is_some_and(|s| s.id == socket && s.open) {
                    self.on_text(&text.0, now);
                }
            }
            Input::Timeout => {}
            Input::User(action, wish) => self.act(action, wish, now),
        }
        self.expire(now);
    }

    /// The next thing to do, in order. `None` when there is nothing left until the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The monotonic time at which [`Input::Timeout`] is wanted; `None` when nothing is waited for.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.pending.values().map(|p| p.deadline).chain(self.deadline).chain(self.ping_at).chain(self.checking_at).min()
    }

    /// Where the machine stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Own connection id, once joined.
    pub fn connection_id(&self) -> Option<&str> {
        self.session.as_ref().map(|s| s.id.as_str())
    }

    /// Own role, once joined.
    pub fn role(&self) -> Option<Role> {
        self.session.as_ref().map(|s| s.role)
    }

    /// Own stream, while publishing.
    pub fn own_stream(&self) -> Option<&str> {
        self.session.as_ref().and_then(|s| s.own_stream.as_deref())
    }

    /// Everybody else, by connection id.
    pub fn participants(&self) -> impl Iterator<Item = &ParticipantInfo> {
        self.session.iter().flat_map(|s| s.roster.values())
    }

    /// Figures about the wire.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn is_current(&self, socket: SocketId) -> bool {
        self.socket.as_ref().is_some_and(|s| s.id == socket)
    }

    /// In the session, with a socket that is believed to work.
    fn is_joined(&self) -> bool {
        matches!(self.state, State::Joined | State::Checking)
    }

    fn emit(&mut self, event: ClientEvent) {
        self.out.push_back(Output::Event(event));
    }

    fn answer(&mut self, action: ActionId, outcome: Result<Answer, ActionError>) {
        self.emit(ClientEvent::Answered { action, outcome });
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state.clone();
            self.emit(ClientEvent::State(state));
        }
    }

    fn garbage(&mut self, what: impl std::fmt::Display) {
        self.counters.garbage += 1;
        let event = ClientEvent::Garbage { what: what.to_string(), count: self.counters.garbage };
        self.emit(event);
    }

    /// Sends a request on the open socket. `false` when it cannot be sent.
    fn send(&mut self, request: &Request, purpose: Purpose, timeout: Duration, now: Duration) -> bool {
        self.try_send(request, purpose, timeout, now).is_ok()
    }

    fn try_send(
        &mut self,
        request: &Request,
        purpose: Purpose,
        timeout: Duration,
        now: Duration,
    ) -> Result<(), ActionError> {
        let Some(socket) = self.socket.as_ref().filter(|s| s.open).map(|s| s.id) else {
            return Err(ActionError::NotJoined);
        };
        // The machine's own requests are few and always find room.
        if self.pending.len() >= MAX_PENDING && matches!(purpose, Purpose::Action { .. }) {
            return Err(ActionError::TooMany);
        }
        let text = rpc::request(self.next_id, request);
        if text.len() > rpc::MAX_FRAME_BYTES {
            return Err(ActionError::TooLong);
        }
        self.pending.insert(self.next_id, Pending { purpose, deadline: now + timeout });
        self.next_id += 1;
        self.counters.frames_out += 1;
        self.out.push_back(Output::Send { socket, text: text.into() });
        Ok(())
    }
}
