//! Joining: from a token to a participant.

use super::session::{Hidden, Participant, Session, Ticket, VideoCodecName};
use super::{OPENVIDU_VERSION, Server};
use crate::protocol::message::{
    IceServer, JoinResult, JoinRoom, Notification, ParticipantInfo, Request, RequestError, Role,
};
use crate::protocol::rpc::ClientFrame;
use crate::protocol::{ErrorCode, Now, Secret};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;

use super::request::Refusal;

fn same(a: &str, b: &str) -> bool {
    bool::from(a.as_bytes().ct_eq(b.as_bytes()))
}

fn info(p: &Participant) -> ParticipantInfo {
    ParticipantInfo {
        id: p.id().to_owned(),
        created_at: p.active_at,
        metadata: p.metadata(),
        streams: p.stream.iter().map(|s| s.info.clone()).collect(),
    }
}

/// `host` of `scheme://host[:port][/…][?…]`, with the brackets of an IPv6 address.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, r)| r);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|b| b < *colon)) {
        Some(colon) => authority.get(..colon).unwrap_or(authority),
        None => authority,
    }
}

impl Server {
    /// A new token for a session: the ticket is kept until somebody joins with it.
    pub(super) fn issue(&mut self, session_id: &str, mut ticket: Ticket, base_url: &str) -> Option<Ticket> {
        let limit = self.config.limits.tokens;
        let session = self.state.sessions.get_mut(session_id)?;
        session.pending.retain(|_, old| old.expires_at.is_none_or(|at| at > ticket.created_at));
        if session.pending.len() >= limit {
            // Whoever has a key could fill the list: the tokens of keys are worth the least, those of the same key first, then the oldest.
            let of_keys = session.pending.values().filter(|old| old.expires_at.is_some());
            let oldest = of_keys.min_by_key(|old| (old.key != ticket.key, old.created_at))?.connection_id.clone();
            session.pending.remove(&oldest);
        }
        let taken =
            |session: &Session, id: &str| session.pending.contains_key(id) || session.participants.contains_key(id);
        ticket.connection_id =
            match super::body::custom_connection_id(&ticket.server_data).filter(|id| !taken(session, id)) {
                Some(id) => id,
                None => self.ids.id("con_", 9),
            };
        let base = match base_url.split_once("://") {
            Some(("http", rest)) => format!("ws://{rest}"),
            Some((_, rest)) => format!("wss://{rest}"),
            None => format!("wss://{base_url}"),
        };
        ticket.token = Some(Secret::new(format!("{base}?sessionId={session_id}&token={}", self.ids.id("tok_", 15))));
        session.pending.insert(ticket.connection_id.clone(), ticket.clone());
        Some(ticket)
    }

    /// Takes the ticket of a token out of a session. Every token is compared, in constant time.
    fn consume(&mut self, session_id: &str, token: &str, unix_ms: u64) -> Option<Ticket> {
        let session = self.state.sessions.get_mut(session_id)?;
        let mut found = None;
        for (id, ticket) in &session.pending {
            if ticket.token.as_ref().is_some_and(|t| same(t.expose(), token)) {
                found = Some(id.clone());
            }
        }
        session.pending.remove(&found?).filter(|ticket| ticket.expires_at.is_none_or(|at| at > unix_ms))
    }

    pub(super) fn join(&mut self, rpc_id: &str, frame: &ClientFrame, now: Now) {
        if let Some(link) = self.links.get_mut(rpc_id) {
            link.tried = true;
        }
        if let Err((code, text)) = self.try_join(rpc_id, frame, now) {
            self.refuse(rpc_id, frame.id, code, &text);
        }
    }

    fn try_join(&mut self, rpc_id: &str, frame: &ClientFrame, now: Now) -> Result<(), Refusal> {
        let request = match Request::parse(&frame.method, frame.params.as_ref()) {
            Ok(Request::JoinRoom(request)) => request,
            Err(error) => {
                // The metadata is read after the token, so such a request spends it all the same.
                if matches!(error, RequestError::Missing { element: "metadata", .. }) {
                    let member = |name: &str| frame.params.as_ref().and_then(|p| p.get(name)).and_then(Value::as_str);
                    if let (Some(session), Some(token)) = (member("session"), member("token")) {
                        self.consume(session, token, now.unix_ms);
                    }
                }
                return Err((ErrorCode::BadRequest, error.to_string()));
            }
            Ok(_) => return Ok(()),
        };
        if let Some(version) = &request.sdk_version
            && semver::Version::parse(version).is_err()
        {
            return Err((
                ErrorCode::BadRequest,
                "The version of openvidu-browser does not comply with semver format".into(),
            ));
        }
        let session_id = request.session.clone();
        let Some(session) = self.state.sessions.get(&session_id) else {
            return Err((
                ErrorCode::RoomNotFound,
                format!("Unable to join session. Session {session_id} cannot be found"),
            ));
        };
        if session.participants.len() >= self.config.limits.participants {
            return Err((ErrorCode::RoomClosed, format!("Session {session_id} is full")));
        }
        let insecure = !self.config.secret.is_empty() && same(request.secret.expose(), self.config.secret.expose());
        let (ticket, hidden) = if insecure {
            self.secret_ticket(&session_id, &request, now)?
        } else {
            let ticket = self.consume(&session_id, request.token.expose(), now.unix_ms).ok_or_else(|| {
                let token: String = request.token.expose().chars().take(256).collect();
                (
                    ErrorCode::UserUnauthorized,
                    format!("Unable to join session {session_id}. Token {token} is not valid"),
                )
            })?;
            (ticket, None)
        };
        self.admit(rpc_id, frame.id, request, ticket, hidden, insecure, now);
        Ok(())
    }

    /// What somebody who knows the secret joins with.
    fn secret_ticket(
        &mut self,
        session_id: &str,
        request: &JoinRoom,
        now: Now,
    ) -> Result<(Ticket, Option<Hidden>), Refusal> {
        let hidden = match (request.recorder, request.stt) {
            (true, _) => Some(Hidden::Recorder),
            (false, true) => Some(Hidden::SpeechToText),
            _ => None,
        };
        let connection_id = match hidden {
            Some(Hidden::Recorder) => "RECORDER".to_owned(),
            Some(Hidden::SpeechToText) => "SPEECH_TO_TEXT".to_owned(),
            None => self.ids.id("con_", 9),
        };
        if self.state.sessions.get(session_id).is_some_and(|s| s.participants.contains_key(&connection_id)) {
            return Err((ErrorCode::ExistingUserInRoom, format!("{connection_id} is in session {session_id} already")));
        }
        let base = self.config.public_url.replacen("http", "ws", 1);
        let token = Secret::new(format!("{base}?sessionId={session_id}&token={}", self.ids.id("tok_", 15)));
        let ticket = Ticket {
            connection_id,
            token: Some(token),
            created_at: now.unix_ms,
            expires_at: None,
            key: None,
            role: Role::Subscriber,
            record: true,
            server_data: String::new(),
            kurento_options: None,
            ice_servers: Vec::new(),
        };
        Ok((ticket, hidden))
    }

    #[allow(clippy::too_many_arguments, reason = "all of it is known only where it is called")]
    fn admit(
        &mut self,
        rpc_id: &str,
        id: Option<i64>,
        request: JoinRoom,
        ticket: Ticket,
        hidden: Option<Hidden>,
        insecure: bool,
        now: Now,
    ) {
        let session_id = request.session;
        let socket = self.links.get(rpc_id).and_then(|l| l.socket).and_then(|s| self.sockets.get(&s));
        let participant = Participant {
            active_at: now.unix_ms,
            client_data: request.metadata,
            platform: request.platform.chars().take(512).collect(),
            ip: socket.map(|s| s.peer.to_string()).unwrap_or_default(),
            final_user_id: socket.map(|s| s.cookie.chars().take(16).collect()).unwrap_or_default(),
            hidden,
            insecure,
            rpc_id: rpc_id.to_owned(),
            stream: None,
            subscriptions: BTreeMap::new(),
            tiles: BTreeMap::new(),
            ticket,
        };
        let connection_id = participant.id().to_owned();
        let Some(session) = self.state.sessions.get_mut(&session_id) else { return };
        // Snapshot and registration happen in one step, so a publication is seen either in the one or as a notification.
        let value = session.participants.values().filter(|p| p.hidden.is_none()).map(info).collect();
        let joined = info(&participant);
        let layered = session.properties.forced_video_codec.resolved().is_none_or(|codec| codec == VideoCodecName::Vp8);
        let result = JoinResult {
            id: connection_id.clone(),
            final_user_id: hidden.is_none().then(|| participant.final_user_id.clone()),
            created_at: participant.active_at,
            metadata: participant.metadata(),
            value,
            session: session_id.clone(),
            version: OPENVIDU_VERSION.into(),
            media_server: "kurento".into(),
            video_simulcast: false,
            record: (!insecure).then_some(participant.ticket.record),
            role: participant.ticket.role.as_str().into(),
            custom_ice_servers: match participant.ticket.ice_servers.is_empty() {
                false => participant.ticket.ice_servers.clone(),
                true => own_ice_server(participant.ticket.token.as_ref()),
            },
            // Layers are forwarded of VP8 only: with another codec forced, a publisher need not offer any.
            tertulia: Some(json!({"version": 1, "tiles": true, "simulcast": layered})),
            ..JoinResult::default()
        };
        session.active = true;
        session.participants.insert(connection_id.clone(), participant);
        if let Some(link) = self.links.get_mut(rpc_id) {
            link.member = Some((session_id.clone(), connection_id.clone()));
        }
        if hidden.is_none() {
            self.broadcast(&session_id, Some(&connection_id), &Notification::ParticipantJoined(joined));
        }
        self.answer(rpc_id, id, &result);
    }
}

/// Port of the entry below: "discard" (RFC 863), where nobody answers.
const NOBODY_PORT: u16 = 9;

/// An entry that leads nowhere: without any, a browser would ask public STUN servers, which no call on a local network needs.
///
/// It must not name the media port. Chromium takes every datagram from the address of a STUN server for an answer to its
/// own STUN requests and swallows it, connectivity checks included: no call would ever connect.
fn own_ice_server(token: Option<&Secret>) -> Vec<IceServer> {
    let host = token.map(|t| host_of(t.expose())).unwrap_or_default();
    if host.is_empty() {
        return Vec::new();
    }
    vec![IceServer { url: format!("stun:{host}:{NOBODY_PORT}"), username: None, credential: None }]
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts_of_urls() {
        assert_eq!(host_of("wss://127.0.0.1:4443?sessionId=a&token=b"), "127.0.0.1");
        assert_eq!(host_of("wss://meet.example?x=:1"), "meet.example");
        assert_eq!(host_of("https://[fd00::2]:4443/x"), "[fd00::2]");
        assert_eq!(host_of("https://[fd00::2]"), "[fd00::2]");
    }
}
