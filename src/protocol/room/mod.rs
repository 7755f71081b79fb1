//! The room: the server side of OpenVidu 2 for all sessions of a host, as a machine without sockets and clocks.
//!
//! Frames, REST requests, answers of the media server and the time go in; frames, REST answers and requests to the media server come out. It keeps the
//! order rules and error codes of the original and none of its defects:
//!
//! * An absent client is kept for ten seconds, whatever there is to tell it. Frames meant for it wait (bounded by [`Limits::queued_frames`] and
//!   [`Limits::queued_bytes`]) and are delivered behind the answer to its `connect`; so are those that were written to the old socket and perhaps
//!   never arrived (`unread`). When they no longer fit it is evicted: a gap would leave it with a wrong picture of the room, a rejoin gives it a
//!   right one.
//! * Every close that is not followed by a resume ends in an eviction; there are no ghosts.
//! * A request gets one answer: what the original drops silently gets an error, and its exceptions (−1) get the code that fits.
//! * Requests of one client run strictly one after another; while one waits for the media server the next ones queue.
//!
//! Nothing in here trusts a client: every queue, table and rate has a bound in [`Limits`].

mod api;
mod body;
mod codec;
mod http;
mod join;
mod keys;
mod link;
mod negotiated;
mod random;
mod rate;
mod request;
mod rest;
mod session;
mod streams;
mod tiles;
mod unread;
mod view;

pub use api::{
    LegId, Limits, MediaDone, MediaError, MediaOp, OpId, ServerConfig, ServerInput, ServerOutput, SocketId, StreamSpec,
};
pub use codec::offers_codec;
pub use http::{RestRequest, RestResponse, USER};
pub use keys::{KeyId, KeyRules, Rooms};
pub use session::{
    ForcedCodec, Hidden, Participant, Session, SessionProperties, Stream, Subscription, Ticket, VideoCodecName,
};

use crate::protocol::message::{Empty, Notification, ParticipantGone};
use crate::protocol::rpc::{self, RpcError};
use crate::protocol::{ErrorCode, Now, Secret};
use link::{Link, Socket};
use negotiated::Negotiations;
use random::IdSource;
use rate::Bucket;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use streams::{Leg, PendingOp};

/// Version the host claims: clients compare its minor number with theirs.
pub const OPENVIDU_VERSION: &str = "2.32.2";

/// How often sessions nobody joined are looked for.
const GARBAGE_INTERVAL: Duration = Duration::from_secs(900);

/// Everything another host needs to take the sessions over; live sockets are not part of it, their owners resume with `connect`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServerState {
    /// Sessions by id.
    pub sessions: BTreeMap<String, Session>,
    /// Rooms and their keys.
    pub rooms: Rooms,
}

/// Counts for a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Sessions, joined or not.
    pub sessions: usize,
    /// Participants in all sessions.
    pub participants: usize,
    /// Published streams.
    pub streams: usize,
    /// Open sockets.
    pub sockets: usize,
}

/// The room machine.
pub struct Server {
    config: ServerConfig,
    ids: IdSource,
    state: ServerState,
    sockets: BTreeMap<SocketId, Socket>,
    links: BTreeMap<String, Link>,
    ops: BTreeMap<OpId, PendingOp>,
    legs: BTreeMap<LegId, Leg>,
    negotiated: Negotiations,
    outputs: VecDeque<ServerOutput>,
    /// Clients that more is unread of than is kept, to be evicted at the end of the current input.
    overflowed: Vec<String>,
    next_op: u64,
    next_leg: u64,
    next_garbage: Duration,
    wrong_keys: Bucket,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Server {
    /// A host without sessions.
    pub fn new(config: ServerConfig, now: Now) -> Self {
        Self {
            ids: IdSource::new(config.seed),
            wrong_keys: Bucket::new(config.limits.wrong_keys, now.mono),
            config,
            state: ServerState::default(),
            sockets: BTreeMap::new(),
            links: BTreeMap::new(),
            ops: BTreeMap::new(),
            legs: BTreeMap::new(),
            negotiated: Negotiations::new(),
            outputs: VecDeque::new(),
            overflowed: Vec::new(),
            next_op: 1,
            next_leg: 1,
            next_garbage: now.mono + GARBAGE_INTERVAL,
        }
    }

    /// A host that takes sessions over: everybody counts as just having lost the socket. Streams have to be reconnected, since media does not travel along.
    pub fn restore(config: ServerConfig, state: ServerState, now: Now) -> Self {
        let mut server = Self::new(config, now);
        for session in state.sessions.values() {
            for p in session.participants.values() {
                let mut link = Link::new(&server.config.limits, now.mono);
                link.member = Some((session.id.clone(), p.id().to_owned()));
                link.lost_at = Some(now.mono);
                server.links.insert(p.rpc_id.clone(), link);
                let legs = p.stream.iter().map(|s| s.leg).chain(p.subscriptions.values().map(|s| s.leg));
                server.next_leg = legs.map(|l| l.0 + 1).fold(server.next_leg, u64::max);
            }
        }
        server.state = state;
        server
    }

    /// What another host would need.
    pub fn state(&self) -> &ServerState {
        &self.state
    }

    /// Counts for a report.
    pub fn counts(&self) -> Counts {
        let sessions = &self.state.sessions;
        Counts {
            sessions: sessions.len(),
            participants: sessions.values().map(|s| s.participants.len()).sum(),
            streams: sessions.values().flat_map(|s| s.participants.values()).filter(|p| p.stream.is_some()).count(),
            sockets: self.sockets.len(),
        }
    }

    /// Tells what happened.
    pub fn handle(&mut self, input: ServerInput, now: Now) {
        match input {
            ServerInput::SocketOpened { socket, peer, cookie } => self.socket_opened(socket, peer, cookie, now),
            ServerInput::Text { socket, text } => self.text(socket, &text, now),
            ServerInput::Delivered { socket, frames } => self.delivered(socket, frames),
            ServerInput::SocketClosed { socket, code, reason } => {
                tracing::debug!(socket = socket.0, code, reason, "socket closed");
                self.socket_lost(socket, now);
            }
            ServerInput::Media { op, result } => self.media_done(op, result, now),
            ServerInput::LocalCandidate { leg, candidate, sdp_mid, sdp_mline_index } => {
                self.local_candidate(leg, candidate, sdp_mid, sdp_mline_index);
            }
            ServerInput::MediaRestarted => {
                self.negotiated.clear();
                self.media_restarted();
            }
            ServerInput::MediaGone => self.media_gone(now),
            ServerInput::Tick => self.tick(now),
        }
        self.evict_overflowed(now);
    }

    /// The next thing to do, to be asked for until there is none.
    pub fn poll_output(&mut self) -> Option<ServerOutput> {
        self.outputs.pop_front()
    }

    /// When [`ServerInput::Tick`] is due next, on the clock of [`Now::mono`].
    pub fn poll_timeout(&self) -> Option<Duration> {
        let limits = &self.config.limits;
        let links = self.links.values().filter_map(|l| l.due(limits));
        let sockets = self.sockets.values().filter(|s| !self.joined(s)).map(|s| s.opened_at + limits.unjoined_for);
        let ops = self.ops.values().map(|o| o.deadline);
        let garbage = (!self.state.sessions.is_empty()).then_some(self.next_garbage);
        links.chain(sockets).chain(ops).chain(garbage).min()
    }

    fn tick(&mut self, now: Now) {
        let limits = self.config.limits.clone();
        let late: Vec<OpId> = self.ops.iter().filter(|(_, o)| o.deadline <= now.mono).map(|(id, _)| *id).collect();
        for op in late {
            self.media_done(op, Err(MediaError::Failed("no answer in time".into())), now);
        }
        let idle: Vec<SocketId> = self
            .sockets
            .iter()
            .filter(|(_, s)| !self.joined(s) && s.opened_at + limits.unjoined_for <= now.mono)
            .map(|(id, _)| *id)
            .collect();
        for socket in idle {
            self.close_socket(socket, 1008, "Nobody joined", now);
        }
        let due: Vec<String> = self
            .links
            .iter()
            .filter(|(_, l)| l.due(&limits).is_some_and(|at| at <= now.mono))
            .map(|(id, _)| id.clone())
            .collect();
        for rpc_id in due {
            self.link_due(&rpc_id, now);
        }
        if self.next_garbage <= now.mono {
            self.next_garbage = now.mono + GARBAGE_INTERVAL;
            let age_ms = u64::try_from(limits.unused_session.as_millis()).unwrap_or(u64::MAX);
            self.state.sessions.retain(|_, s| s.active || s.created_at.saturating_add(age_ms) > now.unix_ms);
        }
    }

    // Rooms and invitations.

    /// Makes a room and its session, and a key for it. A room keeps its keys when its session ends with the last leaver.
    ///
    /// # Errors
    /// [`RoomError`] if the name cannot be a session id or there are too many sessions.
    pub fn create_room(&mut self, name: &str, rules: KeyRules, now: Now) -> Result<(KeyId, Secret), RoomError> {
        if !crate::protocol::ids::is_session_id(name) {
            return Err(RoomError::Name);
        }
        if !self.ensure_session(name, now) {
            return Err(RoomError::Full);
        }
        Ok(self.state.rooms.add_key(name, rules, &mut self.ids))
    }

    /// Replaces all keys of a room by a new one; `None` for an unknown room.
    pub fn renew_key(&mut self, room: &str, rules: KeyRules) -> Option<(KeyId, Secret)> {
        self.state.rooms.renew(room, rules, &mut self.ids)
    }

    /// Takes a key back; whoever is in the room stays.
    pub fn revoke_key(&mut self, key: KeyId) -> bool {
        self.state.rooms.revoke(key)
    }

    /// Forgets a room and its keys; its session stays until it is closed.
    pub fn remove_room(&mut self, room: &str) -> bool {
        self.state.rooms.remove(room)
    }

    // Sending.

    fn new_leg(&mut self) -> LegId {
        let leg = LegId(self.next_leg);
        self.next_leg += 1;
        leg
    }

    fn ask(&mut self, request: MediaOp) -> OpId {
        let op = OpId(self.next_op);
        self.next_op += 1;
        self.note_asked(&request);
        self.outputs.push_back(ServerOutput::Media { op, request });
        op
    }

    /// Sends a frame to a client if it is there, and keeps it until it is known to have been read.
    fn send(&mut self, rpc_id: &str, text: String) {
        let Some(link) = self.links.get(rpc_id) else { return };
        let socket = link.socket;
        let number = socket.and_then(|socket| self.put(socket, text.clone()));
        let limits = &self.config.limits;
        if let Some(link) = self.links.get_mut(rpc_id)
            && !link.unread.keep(text, number, limits)
            && socket.is_none()
        {
            self.overflowed.push(rpc_id.to_owned());
        }
    }

    /// Sends a frame on this very socket; gives its number there.
    fn put(&mut self, socket: SocketId, text: String) -> Option<u64> {
        self.outputs.push_back(ServerOutput::Send { socket, text });
        let socket = self.sockets.get_mut(&socket)?;
        socket.sent += 1;
        Some(socket.sent)
    }

    fn answer(&mut self, rpc_id: &str, id: Option<i64>, result: &impl Serialize) {
        if let Some(id) = id {
            self.send(rpc_id, rpc::success(id, result, rpc_id));
        }
    }

    fn answer_empty(&mut self, rpc_id: &str, id: Option<i64>) {
        self.answer(rpc_id, id, &Empty {});
    }

    fn refuse(&mut self, rpc_id: &str, id: Option<i64>, code: ErrorCode, text: &str) {
        if id.is_some() {
            self.send(rpc_id, rpc::error(id, &RpcError::new(code, text)));
        }
    }

    /// Tells one participant.
    fn notify(&mut self, session_id: &str, connection_id: &str, text: &str) {
        let session = self.state.sessions.get(session_id);
        let Some(p) = session.and_then(|s| s.participants.get(connection_id)) else { return };
        let rpc_id = p.rpc_id.clone();
        self.send(&rpc_id, text.to_owned());
    }

    /// Tells everybody in a session but one.
    fn broadcast(&mut self, session_id: &str, except: Option<&str>, notification: &Notification) {
        let Some(session) = self.state.sessions.get(session_id) else { return };
        let to: Vec<String> =
            session.participants.values().filter(|p| Some(p.id()) != except).map(|p| p.rpc_id.clone()).collect();
        let text = rpc::notification(notification);
        for rpc_id in to {
            self.send(&rpc_id, text.clone());
        }
    }

    // Departures.

    /// Takes a participant out of its session with everything it published and received. Its JSON-RPC session stays for the eviction grace.
    fn remove_participant(&mut self, session_id: &str, connection_id: &str, now: Now) -> Option<Participant> {
        let session = self.state.sessions.get_mut(session_id)?;
        let participant = session.participants.remove(connection_id)?;
        let mut legs: Vec<LegId> =
            participant.subscriptions.values().flat_map(|s| [Some(s.leg), s.prepared]).flatten().collect();
        if let Some(stream) = &participant.stream {
            legs.push(stream.leg);
            for other in session.participants.values_mut() {
                if let Some(s) = other.subscriptions.remove(&stream.info.id) {
                    legs.extend([Some(s.leg), s.prepared].into_iter().flatten());
                }
            }
        }
        let others: Vec<String> = session.participants.values().map(|p| p.rpc_id.clone()).collect();
        self.close_legs(legs);
        for rpc_id in others {
            // Candidates for an endpoint that will not be any more.
            if let Some(link) = self.links.get_mut(&rpc_id) {
                link.early.remove(connection_id);
            }
        }
        if let Some(link) = self.links.get_mut(&participant.rpc_id) {
            link.member = None;
            link.early.clear();
            link.gone_until = Some(now.mono + self.config.limits.eviction_grace);
        }
        Some(participant)
    }

    fn gone(connection_id: &str, reason: &str) -> ParticipantGone {
        ParticipantGone { connection_id: connection_id.to_owned(), reason: reason.to_owned() }
    }

    /// Removes a participant and tells the others that it left.
    fn leave(&mut self, session_id: &str, connection_id: &str, reason: &str, now: Now) -> Option<Participant> {
        let p = self.remove_participant(session_id, connection_id, now)?;
        if p.hidden.is_none() {
            self.broadcast(session_id, None, &Notification::ParticipantLeft(Self::gone(connection_id, reason)));
        }
        Some(p)
    }

    /// Tells the evicted one and everybody left that it was evicted.
    fn announce_eviction(&mut self, session_id: &str, evicted: &Participant, reason: &str) {
        let notification = Notification::ParticipantEvicted(Self::gone(evicted.id(), reason));
        if evicted.hidden.is_none() {
            self.broadcast(session_id, None, &notification);
        }
        self.send(&evicted.rpc_id, rpc::notification(&notification));
    }

    /// Removes a participant against its will: the others see `participantLeft` and `participantEvicted`, the evicted one only the latter.
    fn evict(&mut self, session_id: &str, connection_id: &str, reason: &str, now: Now) {
        if let Some(p) = self.leave(session_id, connection_id, reason, now) {
            self.announce_eviction(session_id, &p, reason);
        }
    }

    /// Ends a session whose last visible participant has left.
    fn after_departure(&mut self, session_id: &str, now: Now) {
        let empty = self.state.sessions.get(session_id).is_some_and(|s| s.active && s.visible() == 0);
        if empty {
            self.close_session(session_id, "sessionClosedByServer", now);
        }
    }

    /// Ends a session: everybody is evicted one by one, tokens and the id are freed.
    fn close_session(&mut self, session_id: &str, reason: &str, now: Now) -> bool {
        let Some(session) = self.state.sessions.get(session_id) else { return false };
        let mut who: Vec<(bool, String)> =
            session.participants.values().map(|p| (p.hidden.is_some(), p.id().to_owned())).collect();
        who.sort();
        for (_, connection_id) in who {
            self.evict(session_id, &connection_id, reason, now);
        }
        self.state.sessions.remove(session_id).is_some()
    }

    /// The host ends: everybody is told so.
    pub fn stop(&mut self, now: Now) {
        let active: Vec<String> = self.state.sessions.values().filter(|s| s.active).map(|s| s.id.clone()).collect();
        for session_id in active {
            self.close_session(&session_id, "openviduServerStopped", now);
        }
    }

    fn media_gone(&mut self, now: Now) {
        let active: Vec<String> = self.state.sessions.values().filter(|s| s.active).map(|s| s.id.clone()).collect();
        for session_id in active {
            self.close_session(&session_id, "nodeCrashed", now);
        }
    }

    fn evict_overflowed(&mut self, now: Now) {
        // Evicting tells others, which can overflow further absent clients; each is evicted once, so this ends.
        while let Some(rpc_id) = self.overflowed.pop() {
            let Some(link) = self.links.remove(&rpc_id) else { continue };
            if let Some(socket) = link.socket {
                self.close_socket(socket, 1008, "Too much is unread", now);
            }
            if let Some((session_id, connection_id)) = link.member {
                tracing::warn!(
                    session = session_id,
                    connection = connection_id,
                    "evicted: more than is kept for those who do not read"
                );
                self.evict(&session_id, &connection_id, "networkDisconnect", now);
                self.after_departure(&session_id, now);
            }
        }
    }
}

/// Why a room cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// The name is not a session id.
    #[error("a room's name has 1 to 128 of the characters A-Z a-z 0-9 _ - ~")]
    Name,
    /// Too many sessions.
    #[error("this host has as many rooms as it can hold")]
    Full,
}

#[cfg(test)]
mod tests;
