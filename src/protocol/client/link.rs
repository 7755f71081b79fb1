//! The socket: opening it, keeping it alive, losing it, coming back.

use super::reconnect::{
    ATTEMPT_TIMEOUT, CHECKING_AFTER, Next, PING_INTERVAL, PING_TIMEOUT, PROBE_TIMEOUT, Reconnect, TOKEN_TIMEOUT,
    VERIFY_TIMEOUT,
};
use super::types::{ActionError, ClientEvent, EndReason, LostPlace, Output, State};
use super::{CONNECT_TIMEOUT, Client, LATE_ANSWER, Pending, Purpose, REQUEST_TIMEOUT, Socket, What};
use crate::protocol::message::{Connect, JoinRoom, Ping, Request, VideoData};
use crate::protocol::token::Token;
use std::time::Duration;

/// A close frame of the client.
#[derive(Clone, Copy)]
pub(super) struct Close(pub(super) u16, pub(super) &'static str);

/// After `leaveRoom` was answered, or after an eviction.
pub(super) const CLOSE_LEFT: Close = Close(4102, "Connection closed by client");
/// The server keeps the place for a resume and evicts whoever does not return. Also right wherever it is unknown whether the participant exists:
/// behind any other text the original server would keep a ghost for ever.
pub(super) const CLOSE_RECONNECTING: Close = Close(4104, "Connection closed for reconnection");
/// `connect` was refused.
pub(super) const CLOSE_REFUSED: Close =
    Close(4101, "Reconnection fault: WS successfully reconnected but the user was already evicted due to timeout");
/// The master node of a multi-master deployment is gone.
pub(super) const CLOSE_MASTER_CRASHED: Close = Close(4103, "Master Node has crashed");

impl Client {
    fn open_socket(&mut self, reconnect: bool) {
        self.close_socket(CLOSE_RECONNECTING);
        let socket = self.next_socket;
        self.next_socket = self.next_socket.wrapping_add(1);
        self.socket = Some(Socket { id: socket, open: false });
        let url = self.config.token.socket_url(reconnect);
        self.out.push_back(Output::OpenSocket { socket, url });
    }

    pub(super) fn close_socket(&mut self, Close(code, reason): Close) {
        self.ping_at = None;
        self.checking_at = None;
        if let Some(socket) = self.socket.take() {
            self.out.push_back(Output::CloseSocket { socket: socket.id, code, reason });
        }
    }

    pub(super) fn join(&mut self, now: Duration) {
        if self.state == State::Idle {
            self.open_socket(false);
            self.deadline = Some(now + CONNECT_TIMEOUT);
            self.set_state(State::Connecting);
        }
    }

    pub(super) fn on_open(&mut self, now: Duration) {
        self.deadline = None;
        match self.state {
            State::Connecting => {
                self.set_state(State::Joining);
                self.send_join(now);
            }
            State::Rejoining { .. } => self.send_join(now),
            State::Reconnecting { attempt, place_kept_until, .. } => {
                self.set_state(State::Resuming { attempt, place_kept_until });
                let session_id = self.session.as_ref().map(|s| s.rpc_session_id.clone());
                let connect = Request::Connect(Connect { session_id, reconnect: Some(true) });
                self.send(&connect, Purpose::Connect, ATTEMPT_TIMEOUT, now);
            }
            _ => self.close_socket(CLOSE_RECONNECTING),
        }
    }

    fn send_join(&mut self, now: Duration) {
        self.early.clear();
        self.ping(true, PING_TIMEOUT, now);
        let token = &self.config.token;
        let join = Request::JoinRoom(JoinRoom {
            token: token.raw().clone(),
            session: token.session().to_owned(),
            platform: self.config.platform.clone(),
            sdk_version: Some(self.config.sdk_version.clone()),
            metadata: self.config.metadata.clone(),
            secret: token.secret().clone(),
            recorder: token.recorder(),
            stt: token.stt(),
        });
        if !self.send(&join, Purpose::Join, REQUEST_TIMEOUT, now) {
            // Only metadata beyond all measure can make it too long.
            self.end(EndReason::BadServer);
        }
    }

    /// Sends a ping, the first one on a socket with the interval.
    pub(super) fn ping(&mut self, first: bool, timeout: Duration, now: Duration) {
        let interval = first.then(|| u64::try_from(PING_INTERVAL.as_millis()).unwrap_or(5000));
        self.ping_at = Some(now + PING_INTERVAL);
        if self.send(&Request::Ping(Ping { interval }), Purpose::Ping { sent_at: now }, timeout, now) {
            self.checking_at = Some(now + CHECKING_AFTER);
        }
    }

    /// The socket is gone, or was never there.
    pub(super) fn on_lost(&mut self, now: Duration, code: u16, detail: &str) {
        self.ping_at = None;
        self.checking_at = None;
        match self.state {
            State::Connecting => self.end(EndReason::Unreachable { detail: detail.to_owned() }),
            State::Joining => self.end(EndReason::JoinInterrupted { code }),
            State::Joined | State::Checking => self.begin_reconnect(now),
            State::Reconnecting { .. } | State::Resuming { .. } => self.attempt_failed(now),
            State::Rejoining { .. } => self.rejoin_failed(now),
            State::Leaving => self.end(EndReason::Left),
            State::Idle
            | State::AwaitingToken { .. }
            | State::RejoinPaused { .. }
            | State::GivenUp
            | State::Ended(_) => {}
        }
    }

    /// The socket does not answer any more.
    fn socket_dead(&mut self, now: Duration) {
        self.deaf_once = true;
        self.close_socket(CLOSE_RECONNECTING);
        self.on_lost(now, 4104, "no answer to ping");
    }

    fn begin_reconnect(&mut self, now: Duration) {
        self.cancel_pending(true);
        if let Some(session) = self.session.as_mut() {
            session.endpoints.retain(|_, e| e.established);
        }
        if self.session.as_ref().is_none_or(|s| s.rpc_session_id.is_empty()) {
            return self.lose_place(LostPlace::NoResume, now);
        }
        let reconnect = Reconnect::new(now, self.config.seed);
        let first = reconnect.first_try_at(self.last_attempt);
        let place_kept_until = reconnect.place_kept_until();
        self.reconnect = Some(reconnect);
        if first <= now {
            self.start_attempt(now);
        } else {
            self.deadline = Some(first);
            self.set_state(State::Reconnecting { attempt: 1, retry_at: Some(first), place_kept_until });
        }
    }

    fn start_attempt(&mut self, now: Duration) {
        let seed = self.config.seed;
        let reconnect = self.reconnect.get_or_insert_with(|| Reconnect::new(now, seed));
        let attempt = reconnect.start_attempt(now);
        let place_kept_until = reconnect.place_kept_until();
        self.last_attempt = Some(now);
        self.open_socket(true);
        self.deadline = Some(now + ATTEMPT_TIMEOUT);
        self.set_state(State::Reconnecting { attempt, retry_at: None, place_kept_until });
    }

    pub(super) fn attempt_failed(&mut self, now: Duration) {
        self.close_socket(CLOSE_RECONNECTING);
        self.cancel_pending(true);
        let Some(reconnect) = self.reconnect.as_mut() else { return self.give_up() };
        match reconnect.attempt_failed(now) {
            Next::RetryAt(at) => {
                let state = State::Reconnecting {
                    attempt: reconnect.attempt(),
                    retry_at: Some(at),
                    place_kept_until: reconnect.place_kept_until(),
                };
                self.deadline = Some(at);
                self.set_state(state);
            }
            Next::GiveUp => self.give_up(),
        }
    }

    fn give_up(&mut self) {
        self.close_socket(CLOSE_RECONNECTING);
        self.cancel_pending(false);
        self.deadline = None;
        self.set_state(State::GivenUp);
    }

    /// `connect` went well: ping again, and find out whether the participant still exists.
    ///
    /// The original server keeps the JSON-RPC session ten seconds longer than the participant. It drops every request of a participant that is gone
    /// except `echo`, `ping`, `connect`; `videoData` is the one that has no effect and needs no role.
    pub(super) fn verify(&mut self, now: Duration) {
        self.ping(true, PING_TIMEOUT, now);
        let probe = Request::VideoData(VideoData::default());
        self.send(&probe, Purpose::Verify, VERIFY_TIMEOUT, now);
    }

    /// The loss is over; its successor goes on with other random numbers.
    pub(super) fn forget_loss(&mut self) {
        if let Some(reconnect) = self.reconnect.take() {
            self.config.seed = reconnect.seed();
        }
    }

    /// The participant still exists.
    pub(super) fn resumed(&mut self, now: Duration) {
        self.forget_loss();
        self.deadline = None;
        self.set_state(State::Joined);
        let own_stream = self.own_stream().map(str::to_owned);
        let subscribed = self.session.as_ref().map(|s| s.subscribed()).unwrap_or_default();
        self.emit(ClientEvent::Reconnected { own_stream, subscribed });
        self.flush_deferred(now);
    }

    /// The place in the session is lost. The caller closes the socket first.
    pub(super) fn lose_place(&mut self, cause: LostPlace, now: Duration) {
        self.close_socket(CLOSE_RECONNECTING);
        self.cancel_pending(false);
        self.deadline = None;
        self.place_lost = Some(cause);
        if let Some(session) = self.session.as_mut() {
            session.own_stream = None;
            session.endpoints.clear();
        }
        if !self.config.can_rejoin {
            return self.end(EndReason::NeedsNewToken);
        }
        let rejoined_at = self
            .last_attempt
            .filter(|_| matches!(cause, LostPlace::NetworkEviction | LostPlace::NoResume | LostPlace::MissedNews));
        let reconnect = Reconnect::new(now, self.config.seed);
        // A server that takes us in only to evict us again is not asked all the time.
        let first = reconnect.first_try_at(rejoined_at);
        self.reconnect = Some(reconnect);
        if first <= now {
            self.request_token(now);
        } else {
            self.deadline = Some(first);
            self.set_state(State::RejoinPaused { attempt: 1, retry_at: first });
        }
    }

    fn request_token(&mut self, now: Duration) {
        let seed = self.config.seed;
        let attempt = self.reconnect.get_or_insert_with(|| Reconnect::new(now, seed)).start_attempt(now);
        self.last_attempt = Some(now);
        self.deadline = Some(now + TOKEN_TIMEOUT);
        let cause = if attempt == 1 { self.place_lost } else { None };
        self.set_state(State::AwaitingToken { attempt });
        self.emit(ClientEvent::RejoinNeeded { attempt, cause: cause.unwrap_or(LostPlace::RejoinFailed) });
    }

    pub(super) fn rejoin(&mut self, token: Token, now: Duration) {
        let attempt = match self.state {
            State::AwaitingToken { attempt } | State::RejoinPaused { attempt, .. } => attempt.max(1),
            State::GivenUp if self.place_lost.is_some() => {
                if let Some(reconnect) = self.reconnect.as_mut() {
                    reconnect.reset(now);
                }
                1
            }
            _ => return,
        };
        self.config.token = token;
        self.session = None;
        self.open_socket(false);
        self.deadline = Some(now + ATTEMPT_TIMEOUT);
        self.set_state(State::Rejoining { attempt });
    }

    pub(super) fn no_token(&mut self, for_good: bool, now: Duration) {
        if !matches!(self.state, State::AwaitingToken { .. }) {
            return;
        }
        if for_good { self.end(EndReason::RejoinImpossible) } else { self.rejoin_failed(now) }
    }

    pub(super) fn rejoin_failed(&mut self, now: Duration) {
        self.close_socket(CLOSE_RECONNECTING);
        self.cancel_pending(false);
        let Some(reconnect) = self.reconnect.as_mut() else { return self.give_up() };
        match reconnect.attempt_failed(now) {
            Next::RetryAt(at) => {
                let attempt = reconnect.attempt();
                self.deadline = Some(at);
                self.set_state(State::RejoinPaused { attempt, retry_at: at });
            }
            Next::GiveUp => self.give_up(),
        }
    }

    /// Ends whatever runs. Nothing more comes out than the rest of the outputs.
    pub(super) fn end(&mut self, reason: EndReason) {
        self.close_socket(CLOSE_RECONNECTING);
        self.cancel_pending(false);
        self.deadline = None;
        self.reconnect = None;
        self.set_state(State::Ended(reason));
    }

    /// Ends every request that waits. Changes of the own stream are kept for later when `keep_changes`.
    fn cancel_pending(&mut self, keep_changes: bool) {
        for (_, Pending { purpose, .. }) in std::mem::take(&mut self.pending) {
            match purpose {
                Purpose::Action { action, what: What::Property(property) } if keep_changes => {
                    self.defer_lost(action, property);
                }
                Purpose::Action { action, .. } => self.answer(action, Err(ActionError::Cancelled)),
                _ => {}
            }
        }
        let no_stream = self.session.as_ref().is_none_or(|s| s.own_stream.is_none());
        if !keep_changes || no_stream {
            self.drop_deferred(&ActionError::Cancelled);
        }
    }

    pub(super) fn network_changed(&mut self, now: Duration) {
        self.wake(now, true);
    }

    pub(super) fn retry_now(&mut self, now: Duration) {
        self.wake(now, false);
    }

    fn wake(&mut self, now: Duration, network: bool) {
        if let Some(reconnect) = self.reconnect.as_mut() {
            reconnect.reset(now);
        }
        match self.state {
            State::Joined | State::Checking => self.check_link(now),
            // A socket that is being opened over the old network may hang; one the user is impatient about is left alone.
            State::Reconnecting { retry_at, .. } if network || retry_at.is_some() => self.start_attempt(now),
            State::RejoinPaused { .. } => self.request_token(now),
            State::GivenUp if self.place_lost.is_some() => self.request_token(now),
            State::GivenUp => self.start_attempt(now),
            _ => {}
        }
    }

    /// Makes sure within [`PROBE_TIMEOUT`] that the socket still works.
    fn check_link(&mut self, now: Duration) {
        let mut waiting = false;
        for pending in self.pending.values_mut().filter(|p| matches!(p.purpose, Purpose::Ping { .. })) {
            pending.deadline = pending.deadline.min(now + PROBE_TIMEOUT);
            waiting = true;
        }
        if !waiting {
            self.ping(false, PROBE_TIMEOUT, now);
        }
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, now: Duration) {
        // Each round ends a wait or starts one that lies in the future, so the rounds come to an end; the bound is for safety.
        for _ in 0..4 * super::MAX_PENDING {
            let due = self.pending.iter().find(|(_, p)| p.deadline <= now).map(|(id, _)| *id);
            if let Some((id, pending)) = due.and_then(|id| Some((id, self.pending.remove(&id)?))) {
                self.on_request_timeout(id, pending.purpose, now);
            } else if self.deadline.is_some_and(|at| at <= now) {
                self.deadline = None;
                self.on_deadline(now);
            } else if self.checking_at.is_some_and(|at| at <= now) {
                self.checking_at = None;
                if self.state == State::Joined {
                    self.set_state(State::Checking);
                }
            } else if self.ping_at.is_some_and(|at| at <= now) {
                self.ping_at = Some(now + PING_INTERVAL);
                if !self.pending.values().any(|p| matches!(p.purpose, Purpose::Ping { .. })) {
                    self.ping(false, PING_TIMEOUT, now);
                }
            } else {
                return;
            }
        }
    }

    fn on_request_timeout(&mut self, id: i64, purpose: Purpose, now: Duration) {
        match purpose {
            // A server that has not answered the join either is called silent when the join's own time is over.
            Purpose::Ping { .. } if self.state == State::Joining => {}
            Purpose::Ping { .. } => self.socket_dead(now),
            Purpose::Join => match self.state {
                State::Rejoining { .. } => self.rejoin_failed(now),
                State::Joining => self.end(EndReason::JoinTimedOut),
                _ => {}
            },
            Purpose::Connect => self.attempt_failed(now),
            Purpose::Verify => {
                if matches!(self.state, State::Resuming { .. }) {
                    self.lose_place(LostPlace::ParticipantGone, now);
                }
            }
            Purpose::Leave => {
                self.close_socket(CLOSE_LEFT);
                self.end(EndReason::Left);
            }
            Purpose::Silent | Purpose::LatePublish | Purpose::LateSubscribe { .. } => {}
            Purpose::Action { action, what } => {
                self.answer(action, Err(ActionError::TimedOut));
                self.on_action_failed(&what);
                // Whoever asked believes that it failed: what the server does all the same is undone when it says so.
                let late = match what {
                    What::Probe => return self.socket_dead(now),
                    What::Publish => Purpose::LatePublish,
                    What::Subscribe { stream_id } => {
                        let publisher = self.session.as_ref().and_then(|s| s.publisher_of(&stream_id));
                        let Some(connection_id) = publisher else { return };
                        Purpose::LateSubscribe { connection_id }
                    }
                    _ => return,
                };
                self.pending.insert(id, Pending { purpose: late, deadline: now + LATE_ANSWER });
            }
        }
    }

    fn on_deadline(&mut self, now: Duration) {
        match self.state {
            State::Connecting => {
                self.close_socket(CLOSE_LEFT);
                self.end(EndReason::Unreachable { detail: "timed out".to_owned() });
            }
            State::Reconnecting { retry_at: None, .. } => self.attempt_failed(now),
            State::Reconnecting { .. } => self.start_attempt(now),
            State::AwaitingToken { .. } | State::Rejoining { .. } => self.rejoin_failed(now),
            State::RejoinPaused { .. } => self.request_token(now),
            _ => {}
        }
    }
}
