//! Frames for a client until it has read them. A socket that died without a word took what was written to it along: a client that
//! resumes on another one gets it again.

use super::api::Limits;
use super::{Server, SocketId};
use serde::Deserialize;
use std::collections::VecDeque;

struct Frame {
    /// Its number on the client's socket; none while there is no socket.
    number: Option<u64>,
    text: String,
}

/// What one client has not read as far as is known, oldest first.
#[derive(Default)]
pub(super) struct Unread {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Number of the newest one that did not fit.
    gap: Option<u64>,
}

impl Unread {
    /// Keeps one more; `false` where something had to go for it.
    pub(super) fn keep(&mut self, text: String, number: Option<u64>, limits: &Limits) -> bool {
        self.bytes += text.len();
        self.frames.push_back(Frame { number, text });
        let mut whole = true;
        while self.frames.len() > limits.queued_frames || self.bytes > limits.queued_bytes {
            self.gap = self.pop().map(|f| f.number.unwrap_or(u64::MAX));
            whole = false;
        }
        whole
    }

    /// The first frames of the client's socket have been read.
    fn read(&mut self, frames: u64) {
        while self.frames.front().is_some_and(|f| f.number.is_some_and(|n| n <= frames)) {
            self.pop();
        }
        // What did not fit here has arrived all the same.
        self.gap = self.gap.filter(|n| *n > frames);
    }

    fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.text.len();
        Some(frame)
    }

    /// Whether a client that comes back can be told everything it may have missed.
    pub(super) fn is_whole(&self) -> bool {
        self.gap.is_none()
    }
}

/// Whom a frame announces, or whose stream.
fn announced(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Announcement {
        method: String,
        params: Whose,
    }
    #[derive(Deserialize)]
    struct Whose {
        id: String,
    }
    let frame: Announcement = serde_json::from_str(text).ok()?;
    matches!(frame.method.as_str(), "participantJoined" | "participantPublished").then_some(frame.params.id)
}

impl Server {
    pub(super) fn delivered(&mut self, socket: SocketId, frames: u64) {
        let rpc_id = self.sockets.get(&socket).and_then(|s| s.rpc_id.as_ref());
        if let Some(link) = rpc_id.and_then(|id| self.links.get_mut(id)).filter(|l| l.socket == Some(socket)) {
            link.unread.read(frames);
        }
    }

    /// Sends all of it on the client's new socket. Twice is better than never, with one exception: browsers make a new stream of
    /// every `participantPublished`, so whoever's stream they have asked for already is not announced again.
    pub(super) fn send_unread(&mut self, rpc_id: &str, socket: SocketId) {
        let Some(link) = self.links.get_mut(rpc_id) else { return };
        let unread = std::mem::take(&mut link.unread);
        let member = link.member.clone();
        for frame in unread.frames {
            if frame.number.is_some()
                && let (Some((session, me)), Some(who)) = (&member, announced(&frame.text))
                && self.receives_from(session, me, &who)
            {
                continue;
            }
            let number = self.put(socket, frame.text.clone());
            if let Some(link) = self.links.get_mut(rpc_id) {
                link.unread.keep(frame.text, number, &self.config.limits);
            }
        }
    }

    fn receives_from(&self, session: &str, me: &str, who: &str) -> bool {
        let Some(session) = self.state.sessions.get(session) else { return false };
        let stream = session.participants.get(who).and_then(|p| p.stream.as_ref());
        let me = session.participants.get(me);
        stream.zip(me).is_some_and(|(stream, me)| me.subscriptions.contains_key(&stream.info.id))
    }
}
