//! One request of a client: who may ask it, and what it does when no media is needed for it.

use super::Server;
use crate::protocol::message::{
    IceCandidateToServer, Notification, ParticipantGone, Request, RequestError, Role, SignalEvent, SignalMessage,
    SignalMessageError, StreamPropertyChanged, StreamPropertyChangedEvent, VideoDimensions,
};
use crate::protocol::rpc::{self, ClientFrame};
use crate::protocol::{ErrorCode, Now, lenient};
use serde_json::Value;
use std::collections::BTreeSet;

/// A refusal: code and text.
pub(super) type Refusal = (ErrorCode, String);

/// Who asks, where, and under which number.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) rpc_id: String,
    pub(super) id: Option<i64>,
    pub(super) session_id: String,
    pub(super) connection_id: String,
}

impl Server {
    /// Runs one request to its answer, or to its question to the media server.
    pub(super) fn execute(&mut self, rpc_id: &str, frame: ClientFrame, now: Now) {
        let Some(link) = self.links.get(rpc_id) else { return };
        let (member, gone, tried) = (link.member.clone(), link.gone_until.is_some(), link.tried);
        let Some((session_id, connection_id)) = member else {
            match frame.method.as_str() {
                "joinRoom" if !gone => self.join(rpc_id, &frame, now),
                "echo" if gone => self.answer_empty(rpc_id, frame.id),
                "subscribeToSpeechToText" | "unsubscribeFromSpeechToText" if gone => {
                    self.no_speech_to_text(rpc_id, frame.id)
                }
                _ if gone => {
                    self.refuse(rpc_id, frame.id, ErrorCode::UserNotFound, "The participant has left the session")
                }
                _ => {
                    let what = if tried { "session information" } else { "connection" };
                    let text = format!(
                        "No {what} found for participant with privateId {rpc_id}. Method 'Session.connect()' must be the first operation called in any session"
                    );
                    self.refuse(rpc_id, frame.id, ErrorCode::Transport, &text);
                }
            }
            return;
        };
        let caller = Caller { rpc_id: rpc_id.to_owned(), id: frame.id, session_id, connection_id };
        if let Err((code, text)) = self.dispatch(&caller, &frame, now) {
            self.refuse(rpc_id, frame.id, code, &text);
        }
    }

    fn dispatch(&mut self, c: &Caller, frame: &ClientFrame, now: Now) -> Result<(), Refusal> {
        // The role is looked at before the parameters.
        match frame.method.as_str() {
            "publishVideo" => self.need(c, Role::Publisher, "publish video")?,
            "streamPropertyChanged" => self.need(c, Role::Publisher, "change stream property")?,
            "forceDisconnect" => self.need(c, Role::Moderator, "force disconnect")?,
            "forceUnpublish" => self.need(c, Role::Moderator, "force unpublish")?,
            _ => {}
        }
        let request = Request::parse(&frame.method, frame.params.as_ref()).map_err(|e| match e {
            RequestError::UnknownMethod => (
                ErrorCode::WrongPath,
                format!("Unknown method '{}'", frame.method.chars().take(64).collect::<String>()),
            ),
            other => (ErrorCode::BadRequest, other.to_string()),
        })?;
        match request {
            Request::JoinRoom(_) => {
                return Err((
                    ErrorCode::ExistingUserInRoom,
                    format!("This socket has joined session {} already", c.session_id),
                ));
            }
            Request::PublishVideo(p) => return self.publish(c, p, now),
            Request::UnpublishVideo(_) => self.unpublish(c)?,
            Request::PrepareReceiveVideoFrom(p) => return self.prepare(c, &p.sender, p.reconnect, now),
            Request::ReceiveVideoFrom(p) => return self.receive(c, p, now),
            Request::UnsubscribeFromVideo(p) => self.unsubscribe(c, &p.sender)?,
            Request::ReconnectStream(p) => return self.reconnect(c, p, now),
            Request::OnIceCandidate(p) => self.candidate(c, p),
            Request::SendMessage(p) => return self.signal(c, &p.message, now),
            Request::StreamPropertyChanged(p) => return self.property_changed(c, &p),
            Request::ForceDisconnect(p) => return self.force_disconnect(c, &p.connection_id, now),
            Request::ForceUnpublish(p) => return self.force_unpublish(c, &p.stream_id),
            Request::Tiles(p) => self.tiles(c, &p),
            Request::LeaveRoom(_) => {
                self.leave_room(c, now);
                return Ok(());
            }
            Request::VideoData(_)
            | Request::Echo(_)
            | Request::Ping(_)
            | Request::Connect(_)
            | Request::CloseSession(_) => {}
            Request::ApplyFilter(p) => return Err(self.no_filter(c, &p.stream_id, "apply filter", true)),
            Request::RemoveFilter(p) => return Err(self.no_filter(c, &p.stream_id, "remove filter", false)),
            Request::ExecFilterMethod(p) => {
                return Err(self.no_filter(c, &p.stream_id, "execute filter method", false));
            }
            Request::AddFilterEventListener(p) | Request::RemoveFilterEventListener(p) => {
                return Err(self.no_filter(c, &p.stream_id, "listen to filter", false));
            }
            Request::SubscribeToSpeechToText(_) | Request::UnsubscribeFromSpeechToText(_) => {
                self.no_speech_to_text(&c.rpc_id, c.id);
                return Ok(());
            }
            Request::SessionStatus(_) => {
                return Err((ErrorCode::WrongOpenViduEdition, "This server has one node only".into()));
            }
        }
        self.answer_empty(&c.rpc_id, c.id);
        Ok(())
    }

    fn need(&self, c: &Caller, role: Role, what: &str) -> Result<(), Refusal> {
        let session = self.state.sessions.get(&c.session_id);
        if session.and_then(|s| s.participants.get(&c.connection_id)).is_some_and(|p| p.may(role)) {
            Ok(())
        } else {
            Err((ErrorCode::UserUnauthorized, format!("Unable to {what}. The user does not have a valid token")))
        }
    }

    fn no_speech_to_text(&mut self, rpc_id: &str, id: Option<i64>) {
        self.refuse(
            rpc_id,
            id,
            ErrorCode::WrongOpenViduEdition,
            "Speech To Text requires OpenVidu Pro/Enterprise edition",
        );
    }

    /// There are no filters here: whoever may use one is told that none is applied, everybody else that they may not.
    fn no_filter(&self, c: &Caller, stream_id: &str, what: &str, needs_permission: bool) -> Refusal {
        let session = self.state.sessions.get(&c.session_id);
        let me = session.and_then(|s| s.participants.get(&c.connection_id));
        let mine = me.and_then(|p| p.stream.as_ref()).is_some_and(|s| s.info.id == stream_id);
        let allowed = !needs_permission || me.and_then(|p| p.ticket.kurento_options.as_ref()).is_some();
        let moderator = me.is_some_and(|p| p.may(Role::Moderator));
        let may = moderator || (mine && allowed);
        if !may {
            return (ErrorCode::UserUnauthorized, format!("Unable to {what}. The user does not have a valid token"));
        }
        match session.and_then(|s| s.publisher(stream_id)) {
            None => (
                ErrorCode::UserNotStreaming,
                format!("Stream '{stream_id}' does not exist in Session '{}'", c.session_id),
            ),
            Some((owner, _)) => (
                ErrorCode::FilterNotApplied,
                format!(
                    "User '{}' has no filter applied in session '{}': this host has no filters",
                    owner.id(),
                    c.session_id
                ),
            ),
        }
    }

    fn leave_room(&mut self, c: &Caller, now: Now) {
        let hidden = self.leave(&c.session_id, &c.connection_id, "disconnect", now).is_some_and(|p| p.hidden.is_some());
        self.answer_empty(&c.rpc_id, c.id);
        self.after_departure(&c.session_id, now);
        if hidden && let Some(link) = self.links.get_mut(&c.rpc_id) {
            link.gone_until = Some(now.mono);
        }
    }

    fn force_disconnect(&mut self, c: &Caller, target: &str, now: Now) -> Result<(), Refusal> {
        const REASON: &str = "forceDisconnectByUser";
        let Some(evicted) = self.leave(&c.session_id, target, REASON, now) else {
            return Err((ErrorCode::UserNotFound, "Connection not found when calling 'forceDisconnect'".into()));
        };
        self.answer_empty(&c.rpc_id, c.id);
        self.announce_eviction(&c.session_id, &evicted, REASON);
        self.after_departure(&c.session_id, now);
        Ok(())
    }

    fn force_unpublish(&mut self, c: &Caller, stream_id: &str) -> Result<(), Refusal> {
        let owner =
            self.state.sessions.get(&c.session_id).and_then(|s| s.publisher(stream_id)).map(|(p, _)| p.id().to_owned());
        let Some(owner) = owner else {
            return Err((
                ErrorCode::UserNotStreaming,
                format!("Stream '{stream_id}' does not exist in Session '{}'", c.session_id),
            ));
        };
        self.drop_stream(&c.session_id, &owner);
        self.answer_empty(&c.rpc_id, c.id);
        self.broadcast(&c.session_id, None, &unpublished(&owner, "forceUnpublishByUser"));
        Ok(())
    }

    fn signal(&mut self, c: &Caller, message: &str, now: Now) -> Result<(), Refusal> {
        if !self.links.get_mut(&c.rpc_id).is_some_and(|l| l.signals.take(now.mono)) {
            return Err((ErrorCode::Generic, "Too many signals".into()));
        }
        let signal = SignalMessage::parse(message).map_err(|e| match e {
            SignalMessageError::Format => (
                ErrorCode::SignalFormatInvalid,
                format!("Provided signal object '{message}' has not a valid JSON format"),
            ),
            SignalMessageError::To => (ErrorCode::SignalToInvalid, "Signal \"to\" field invalid format: null".into()),
        })?;
        let event = SignalEvent { data: signal.data, kind: signal.kind, from: Some(c.connection_id.clone()) };
        if !self.deliver_signal(&c.session_id, signal.to, &event) {
            return Err((
                ErrorCode::SignalToInvalid,
                "Signal \"to\" field invalid format: some connectionId does not exist in this session".into(),
            ));
        }
        self.answer_empty(&c.rpc_id, c.id);
        Ok(())
    }

    /// Delivers a signal to some or, without names, to everybody; `false`, and to nobody, if a name is unknown.
    pub(super) fn deliver_signal(&mut self, session_id: &str, to: Vec<String>, event: &SignalEvent) -> bool {
        let Some(session) = self.state.sessions.get(session_id) else { return false };
        let to: BTreeSet<String> = if to.is_empty() { session.everybody() } else { to.into_iter().collect() };
        if !to.iter().all(|id| session.participants.contains_key(id)) {
            return false;
        }
        let text = rpc::notification(&Notification::SendMessage(event.clone()));
        for id in to {
            self.notify(session_id, &id, &text);
        }
        true
    }

    fn property_changed(&mut self, c: &Caller, p: &StreamPropertyChanged) -> Result<(), Refusal> {
        let session = self.state.sessions.get_mut(&c.session_id);
        let stream = session.and_then(|s| s.participants.get_mut(&c.connection_id)).and_then(|p| p.stream.as_mut());
        let Some(stream) = stream else {
            return Err((
                ErrorCode::UserNotStreaming,
                format!("Participant '{}' is not streaming media", c.connection_id),
            ));
        };
        let mut new_value = p.new_value.clone();
        match p.property.as_str() {
            "audioActive" | "videoActive" => {
                // Foreign clients send texts for booleans; others understand the plain boolean only.
                let active = lenient::to_bool(&new_value);
                new_value = Value::Bool(active);
                let stored = if p.property == "audioActive" {
                    &mut stream.info.audio_active
                } else {
                    &mut stream.info.video_active
                };
                *stored = Some(active);
            }
            "videoDimensions" => {
                let text = lenient::to_text(&new_value).unwrap_or_default();
                if VideoDimensions::parse(&text).is_none() {
                    return Err((
                        ErrorCode::BadRequest,
                        "videoDimensions is not a JSON text with width and height".into(),
                    ));
                }
                stream.info.video_dimensions = Some(text);
            }
            "audioTrack" | "videoTrack" => {}
            other => {
                return Err((
                    ErrorCode::BadRequest,
                    format!("Unknown stream property '{}'", other.chars().take(64).collect::<String>()),
                ));
            }
        }
        let event = StreamPropertyChangedEvent {
            connection_id: c.connection_id.clone(),
            stream_id: stream.info.id.clone(),
            property: p.property.clone(),
            new_value: StreamPropertyChangedEvent::forwarded_value(&new_value),
            reason: p.reason.clone(),
        };
        self.broadcast(&c.session_id, Some(&c.connection_id), &Notification::StreamPropertyChanged(event));
        self.answer_empty(&c.rpc_id, c.id);
        Ok(())
    }

    fn candidate(&mut self, c: &Caller, p: IceCandidateToServer) {
        let index = u16::try_from(p.sdp_m_line_index).unwrap_or(0);
        self.client_candidate(c, &p.endpoint_name, p.candidate, p.sdp_mid, index);
    }
}

/// `participantUnpublished`
pub(super) fn unpublished(connection_id: &str, reason: &str) -> Notification {
    Notification::ParticipantUnpublished(ParticipantGone {
        connection_id: connection_id.to_owned(),
        reason: reason.to_owned(),
    })
}
