//! Sockets and the JSON-RPC sessions on them: resuming, the ping watchdog, the order of requests.

use super::Server;
use super::api::{Limits, OpId, ServerOutput, SocketId};
use super::rate::Bucket;
use super::unread::Unread;
use crate::protocol::message::{Connect, ConnectResult, Ping, PingResult};
use crate::protocol::rpc::{self, ClientFrame, RpcError};
use crate::protocol::{ErrorCode, Now};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// Ping interval assumed when the first ping names none.
const DEFAULT_PING_MS: u64 = 20_000;
/// The watchdog barks after this many intervals without a ping.
const WATCHDOG_INTERVALS: u32 = 3;

/// One WebSocket.
pub(super) struct Socket {
    /// The JSON-RPC session it speaks for; none before the first request and after another socket has taken it over.
    pub(super) rpc_id: Option<String>,
    pub(super) peer: IpAddr,
    pub(super) cookie: String,
    pub(super) opened_at: Duration,
    /// Frames sent on it.
    pub(super) sent: u64,
    messages: Bucket,
}

/// A candidate that came before its endpoint.
pub(super) struct EarlyCandidate {
    pub(super) candidate: String,
    pub(super) sdp_mid: String,
    pub(super) sdp_mline_index: u16,
}

struct Watchdog {
    interval: Duration,
    heard_at: Duration,
}

/// A JSON-RPC session: what survives a socket.
pub(super) struct Link {
    pub(super) socket: Option<SocketId>,
    pub(super) lost_at: Option<Duration>,
    /// Session and connection it has joined.
    pub(super) member: Option<(String, String)>,
    /// It was a member; the socket is closed at this time.
    pub(super) gone_until: Option<Duration>,
    /// A `joinRoom` has been tried.
    pub(super) tried: bool,
    watchdog: Option<Watchdog>,
    pub(super) unread: Unread,
    /// Requests behind the one that waits.
    pub(super) requests: VecDeque<ClientFrame>,
    pub(super) waiting: Option<OpId>,
    pub(super) signals: Bucket,
    /// Candidates for endpoints that do not exist yet, by the connection id of the endpoint.
    pub(super) early: BTreeMap<String, Vec<EarlyCandidate>>,
}

impl Link {
    pub(super) fn new(limits: &Limits, now: Duration) -> Self {
        Self {
            socket: None,
            lost_at: None,
            member: None,
            gone_until: None,
            tried: false,
            watchdog: None,
            unread: Unread::default(),
            requests: VecDeque::new(),
            waiting: None,
            signals: Bucket::new(limits.signals, now),
            early: BTreeMap::new(),
        }
    }

    /// When something happens to it by itself.
    pub(super) fn due(&self, limits: &Limits) -> Option<Duration> {
        let bark = self
            .watchdog
            .as_ref()
            .filter(|_| self.socket.is_some())
            .map(|w| w.heard_at + w.interval * WATCHDOG_INTERVALS);
        let lost = self.lost_at.map(|at| at + limits.resume_window);
        [bark, lost.filter(|_| self.gone_until.is_none()), self.gone_until].into_iter().flatten().min()
    }
}

impl Server {
    pub(super) fn joined(&self, socket: &Socket) -> bool {
        let link = socket.rpc_id.as_ref().and_then(|id| self.links.get(id));
        link.is_some_and(|l| l.member.is_some() || l.gone_until.is_some())
    }

    pub(super) fn socket_opened(&mut self, socket: SocketId, peer: IpAddr, cookie: String, now: Now) {
        let limits = &self.config.limits;
        if self.sockets.len() >= limits.sockets {
            self.outputs.push_back(ServerOutput::Close { socket, code: 1013, reason: "Too many sockets" });
            return;
        }
        let waiting: Vec<SocketId> = self.sockets.iter().filter(|(_, s)| !self.joined(s)).map(|(id, _)| *id).collect();
        if waiting.len() >= limits.unjoined_sockets
            && let Some(oldest) = waiting.first()
        {
            self.close_socket(*oldest, 1013, "Too many sockets", now);
        }
        let messages = Bucket::new(self.config.limits.messages, now.mono);
        self.sockets.insert(socket, Socket { rpc_id: None, peer, cookie, opened_at: now.mono, sent: 0, messages });
    }

    /// Closes a socket from this side; its client has the same time to come back as with any other loss.
    pub(super) fn close_socket(&mut self, socket: SocketId, code: u16, reason: &'static str, now: Now) {
        if self.sockets.contains_key(&socket) {
            self.outputs.push_back(ServerOutput::Close { socket, code, reason });
            self.socket_lost(socket, now);
        }
    }

    pub(super) fn socket_lost(&mut self, socket: SocketId, now: Now) {
        let Some(rpc_id) = self.sockets.remove(&socket).and_then(|s| s.rpc_id) else { return };
        let Some(link) = self.links.get_mut(&rpc_id) else { return };
        if link.member.is_none() && link.gone_until.is_none() {
            self.links.remove(&rpc_id);
            return;
        }
        link.socket = None;
        link.lost_at = Some(now.mono);
        // Clients forget what they asked for on a lost socket; what has not begun is not done any more.
        link.requests.clear();
    }

    /// Something is due for a JSON-RPC session.
    pub(super) fn link_due(&mut self, rpc_id: &str, now: Now) {
        let limits = self.config.limits.clone();
        let Some(link) = self.links.get(rpc_id) else { return };
        if link.gone_until.is_some_and(|at| at <= now.mono) {
            let socket = link.socket;
            self.links.remove(rpc_id);
            if let Some(socket) = socket {
                self.close_socket(socket, 1000, "", now);
            }
        } else if link.socket.is_some() {
            if let Some(socket) = link.socket.filter(|_| {
                link.watchdog.as_ref().is_some_and(|w| w.heard_at + w.interval * WATCHDOG_INTERVALS <= now.mono)
            }) {
                self.close_socket(socket, 1000, "Close for not receive ping from client", now);
            }
        } else if link.lost_at.is_some_and(|at| at + limits.resume_window <= now.mono)
            && let Some(link) = self.links.remove(rpc_id)
            && let Some((session_id, connection_id)) = link.member
        {
            self.evict(&session_id, &connection_id, "networkDisconnect", now);
            self.after_departure(&session_id, now);
        }
    }

    pub(super) fn text(&mut self, socket: SocketId, text: &str, now: Now) {
        let max = self.config.limits.message_bytes;
        let Some(s) = self.sockets.get_mut(&socket) else { return };
        if text.len() > max {
            self.close_socket(socket, 1009, "The decoded text message was too big for the output buffer and the endpoint does not support partial messages", now);
            return;
        }
        if !s.messages.take(now.mono) {
            self.close_socket(socket, 1008, "Too many messages", now);
            return;
        }
        // What is not a request at all is ignored, as the original does; the rate above bounds what it costs.
        let Ok(frame) = ClientFrame::parse(text) else { return };
        match frame.method.as_str() {
            "ping" => self.ping(socket, &frame, now),
            "connect" => self.connect(socket, &frame, now),
            "closeSession" => self.close_rpc_session(socket, &frame, now),
            _ => {
                let rpc_id = self.rpc_session(socket, now);
                self.enqueue(&rpc_id, frame, now);
            }
        }
    }

    fn enqueue(&mut self, rpc_id: &str, frame: ClientFrame, now: Now) {
        let max = self.config.limits.queued_requests;
        let Some(link) = self.links.get_mut(rpc_id) else { return };
        if link.requests.len() >= max {
            self.refuse(rpc_id, frame.id, ErrorCode::Generic, "Too many requests are waiting");
            return;
        }
        link.requests.push_back(frame);
        self.pump(rpc_id, now);
    }

    /// Runs what is waiting, one after another, until one has to wait for the media server.
    pub(super) fn pump(&mut self, rpc_id: &str, now: Now) {
        while let Some(link) = self.links.get_mut(rpc_id).filter(|l| l.waiting.is_none()) {
            let Some(frame) = link.requests.pop_front() else { return };
            self.execute(rpc_id, frame, now);
        }
    }

    /// The JSON-RPC session of a socket, made at its first request.
    pub(super) fn rpc_session(&mut self, socket: SocketId, now: Now) -> String {
        if let Some(id) = self.sockets.get(&socket).and_then(|s| s.rpc_id.clone()) {
            return id;
        }
        let id = self.ids.rpc_session();
        let mut link = Link::new(&self.config.limits, now.mono);
        link.socket = Some(socket);
        self.links.insert(id.clone(), link);
        if let Some(s) = self.sockets.get_mut(&socket) {
            s.rpc_id = Some(id.clone());
        }
        id
    }

    fn params<T>(frame: &ClientFrame, pick: impl FnOnce(crate::protocol::message::Request) -> Option<T>) -> Option<T> {
        crate::protocol::message::Request::parse(&frame.method, frame.params.as_ref()).ok().and_then(pick)
    }

    fn ping(&mut self, socket: SocketId, frame: &ClientFrame, now: Now) {
        use crate::protocol::message::Request;
        let given = Self::params(frame, |r| if let Request::Ping(Ping { interval }) = r { interval } else { None });
        let rpc_id = self.rpc_session(socket, now);
        if let Some(link) = self.links.get_mut(&rpc_id) {
            let interval = |ms: u64| Duration::from_millis(ms.clamp(1_000, 120_000));
            let watchdog = link.watchdog.get_or_insert_with(|| Watchdog {
                interval: interval(given.unwrap_or(DEFAULT_PING_MS)),
                heard_at: now.mono,
            });
            watchdog.heard_at = now.mono;
            if let Some(ms) = given {
                watchdog.interval = interval(ms);
            }
        }
        if let Some(id) = frame.id {
            self.put(socket, rpc::success_plain(id, &PingResult::default()));
        }
    }

    /// `connect`: a new socket for a JSON-RPC session, or a new session.
    fn connect(&mut self, socket: SocketId, frame: &ClientFrame, now: Now) {
        use crate::protocol::message::Request;
        let wanted =
            Self::params(
                frame,
                |r| if let Request::Connect(Connect { session_id, .. }) = r { session_id } else { None },
            );
        let Some(wanted) = wanted else {
            let rpc_id = self.rpc_session(socket, now);
            self.answer(&rpc_id, frame.id, &ConnectResult::ok());
            return;
        };
        let rpc_id = wanted.expose();
        if self.links.get(rpc_id).is_some_and(|l| l.socket != Some(socket) && !l.unread.is_whole()) {
            // It did not read for too long: it is evicted, and may join again.
            self.overflowed.push(rpc_id.to_owned());
        }
        let resumed = if self.overflowed.iter().any(|id| id == rpc_id) { None } else { self.links.get_mut(rpc_id) };
        let Some(link) = resumed else {
            let error = RpcError::new(ErrorCode::ReconnectionError, "reconnection error");
            if frame.id.is_some() {
                self.put(socket, rpc::error(frame.id, &error));
            }
            return;
        };
        let previous = link.socket.replace(socket);
        link.lost_at = None;
        // The client pings anew; until it does, it is given one full interval.
        if let Some(w) = &mut link.watchdog {
            w.heard_at = now.mono;
        }
        if let Some(old) = previous.filter(|p| *p != socket).and_then(|p| self.sockets.get_mut(&p)) {
            old.rpc_id = None;
        }
        let own = self.sockets.get_mut(&socket).and_then(|s| s.rpc_id.replace(rpc_id.to_owned()));
        if let Some(own) = own.filter(|own| own != rpc_id) {
            match self.links.get_mut(&own) {
                // It spoke for somebody else before: that one has lost its socket.
                Some(link) if link.member.is_some() || link.gone_until.is_some() => {
                    link.socket = None;
                    link.lost_at = Some(now.mono);
                    link.requests.clear();
                }
                _ => drop(self.links.remove(&own)),
            }
        }
        if let Some(id) = frame.id {
            self.put(socket, rpc::success(id, &ConnectResult::resumed(), rpc_id));
        }
        // On a socket that it has had all along nothing is missing.
        if previous != Some(socket) {
            self.send_unread(rpc_id, socket);
        }
    }

    /// `closeSession`: the client gives its JSON-RPC session up, so its participant goes too.
    fn close_rpc_session(&mut self, socket: SocketId, frame: &ClientFrame, now: Now) {
        if let Some(id) = frame.id {
            self.put(socket, rpc::success_plain(id, &"bye"));
        }
        let rpc_id = self.sockets.get(&socket).and_then(|s| s.rpc_id.clone());
        let member = rpc_id.and_then(|id| self.links.remove(&id)).and_then(|l| l.member);
        if let Some((session_id, connection_id)) = member {
            self.leave(&session_id, &connection_id, "disconnect", now);
            self.after_departure(&session_id, now);
        }
        self.close_socket(socket, 1000, "", now);
    }
}
