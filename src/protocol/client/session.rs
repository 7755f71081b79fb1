//! What a client knows about the session it is in.

use super::MAX_QUEUED_CANDIDATES;
use crate::protocol::message::{IceCandidateFromServer, JoinResult, ParticipantInfo, Role, StreamInfo};
use crate::protocol::secret::Secret;
use std::collections::{BTreeMap, VecDeque};

/// One side of a transport: the own publication or a subscription.
#[derive(Debug, Default)]
pub(super) struct Endpoint {
    /// Stream; empty for a publication that is not answered yet.
    pub(super) stream_id: String,
    /// The remote description was handed out: candidates may follow.
    pub(super) ready: bool,
    /// It was ready at least once, so the server has it.
    pub(super) established: bool,
    /// Candidates that came too early.
    pub(super) queue: VecDeque<IceCandidateFromServer>,
}

impl Endpoint {
    /// Keeps a candidate until the description is there. Gives back whether an older one had to go.
    pub(super) fn queue(&mut self, candidate: IceCandidateFromServer) -> bool {
        let full = self.queue.len() >= MAX_QUEUED_CANDIDATES;
        if full {
            self.queue.pop_front();
        }
        self.queue.push_back(candidate);
        full
    }
}

/// The session after `joinRoom`.
#[derive(Debug)]
pub(super) struct Session {
    /// Own connection id.
    pub(super) id: String,
    /// Needed to resume.
    pub(super) rpc_session_id: Secret,
    pub(super) role: Role,
    pub(super) own_stream: Option<String>,
    /// Everybody else.
    pub(super) roster: BTreeMap<String, ParticipantInfo>,
    /// By the connection that publishes.
    pub(super) endpoints: BTreeMap<String, Endpoint>,
}

impl Session {
    pub(super) fn new(result: &JoinResult) -> Self {
        Self {
            id: result.id.clone(),
            rpc_session_id: result.rpc_session_id.clone(),
            role: result.role(),
            own_stream: None,
            roster: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    /// The connection that publishes a stream: as the roster has it, else as the stream's id tells.
    pub(super) fn publisher_of(&self, stream_id: &str) -> Option<String> {
        let known = self.roster.values().find(|p| p.streams.iter().any(|s| s.id == stream_id));
        known
            .map(|p| p.id.as_str())
            .or_else(|| crate::protocol::ids::connection_of_stream(stream_id))
            .map(str::to_owned)
    }

    /// An endpoint that waits for its description. One that works already goes on working: a second request for it is the server's to refuse.
    pub(super) fn expect(&mut self, connection_id: &str, stream_id: &str) {
        let endpoint = self.endpoints.entry(connection_id.to_owned()).or_default();
        if !endpoint.ready {
            endpoint.stream_id = stream_id.to_owned();
        }
    }

    /// An endpoint that starts over: candidates from now on belong to the new description.
    pub(super) fn renew(&mut self, connection_id: &str, stream_id: &str) {
        let endpoint = self.endpoints.entry(connection_id.to_owned()).or_default();
        endpoint.stream_id = stream_id.to_owned();
        endpoint.ready = false;
        endpoint.queue.clear();
    }

    /// The description was handed out. Gives the candidates that waited for it.
    pub(super) fn ready(&mut self, connection_id: &str) -> VecDeque<IceCandidateFromServer> {
        let Some(endpoint) = self.endpoints.get_mut(connection_id) else { return VecDeque::new() };
        endpoint.ready = true;
        endpoint.established = true;
        std::mem::take(&mut endpoint.queue)
    }

    /// A request for an endpoint failed: it is forgotten unless the server has it from before.
    pub(super) fn failed(&mut self, connection_id: &str) {
        if self.endpoints.get(connection_id).is_some_and(|e| !e.established) {
            self.endpoints.remove(connection_id);
        }
    }

    /// Streams the server sends us.
    pub(super) fn subscribed(&self) -> Vec<String> {
        self.endpoints
            .iter()
            .filter(|(connection, endpoint)| **connection != self.id && endpoint.established)
            .map(|(_, endpoint)| endpoint.stream_id.clone())
            .collect()
    }

    /// Takes a participant's stream out, if it has one.
    pub(super) fn take_stream(&mut self, connection_id: &str) -> Option<StreamInfo> {
        self.endpoints.remove(connection_id);
        self.roster.get_mut(connection_id).and_then(|p| p.streams.pop())
    }
}
