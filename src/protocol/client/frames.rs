//! What the server says.

use super::link::{CLOSE_LEFT, CLOSE_MASTER_CRASHED, CLOSE_REFUSED};
use super::session::Session;
use super::types::{ActionError, ActionId, Answer, ClientEvent, EndReason, LostPlace, State};
use super::{Client, MAX_EARLY, MAX_PARTICIPANTS, Purpose, REQUEST_TIMEOUT, What};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::message::{
    Empty, ForciblyReconnectSubscriber, IceCandidateFromServer, JoinResult, Notification, ParticipantGone,
    ParticipantInfo, PrepareResult, PropertyValue, PublishResult, ReceiveResult, Request, Role, StreamInfo,
    StreamPropertyChangedEvent, UnsubscribeFromVideo,
};
use crate::protocol::rpc::{RpcError, ServerFrame};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Evictions that somebody decided, or behind which there is no session any more.
const FINAL_EVICTIONS: [&str; 6] = [
    "forceDisconnectByUser",
    "forceDisconnectByServer",
    "sessionClosedByServer",
    "nodeCrashed",
    "mediaServerDisconnect",
    "openviduServerStopped",
];

/// Results are lenient: what is not an object reads as an empty one.
fn read<T: DeserializeOwned + Default>(result: Value) -> T {
    serde_json::from_value(result).unwrap_or_default()
}

impl Client {
    pub(super) fn on_text(&mut self, text: &str, now: Duration) {
        self.counters.frames_in += 1;
        match ServerFrame::parse(text) {
            Ok(ServerFrame::Notification { method, params }) => match Notification::parse(&method, params) {
                Ok(notification) => self.on_notification(notification, now),
                Err(error) => self.garbage(error),
            },
            Ok(ServerFrame::Success { id, result }) => self.on_answer(id, Ok(result), now),
            Ok(ServerFrame::Error { id: Some(id), error }) => self.on_answer(id, Err(error), now),
            Ok(ServerFrame::Error { id: None, .. }) => self.garbage("error without id"),
            Err(error) => self.garbage(error),
        }
    }

    fn on_answer(&mut self, id: i64, outcome: Result<Value, RpcError>, now: Duration) {
        let Some(pending) = self.pending.remove(&id) else {
            // A second answer, one that came too late, or one to a request of before the connection broke.
            self.counters.stray_answers += 1;
            return;
        };
        match pending.purpose {
            Purpose::Ping { sent_at } => {
                self.checking_at = None;
                if self.state == State::Checking {
                    self.set_state(State::Joined);
                }
                self.emit(ClientEvent::Pong { rtt: now.saturating_sub(sent_at) });
            }
            Purpose::Join => self.on_joined(outcome, now),
            Purpose::Connect => match outcome {
                Ok(_) => self.verify(now),
                Err(e) if e.code == ErrorCode::ReconnectionError.code() => {
                    self.close_socket(CLOSE_REFUSED);
                    self.lose_place(LostPlace::Expired, now);
                }
                Err(_) => self.attempt_failed(now),
            },
            Purpose::Verify => match outcome {
                // The original answers so when the session, and with it the participant, is gone.
                Err(e) if e.code == ErrorCode::Transport.code() => self.lose_place(LostPlace::ParticipantGone, now),
                // Any other answer, an error as well, is given to a participant that exists.
                _ => self.resumed(now),
            },
            Purpose::Leave => {
                self.close_socket(CLOSE_LEFT);
                self.end(EndReason::Left);
            }
            Purpose::Silent => {}
            Purpose::LatePublish => {
                if outcome.is_ok() && self.own_stream().is_none() {
                    self.send(&Request::UnpublishVideo(Empty {}), Purpose::Silent, REQUEST_TIMEOUT, now);
                }
            }
            Purpose::LateSubscribe { connection_id } => {
                let wanted = self.session.as_ref().is_some_and(|s| s.endpoints.contains_key(&connection_id));
                if outcome.is_ok() && !wanted {
                    let request = Request::UnsubscribeFromVideo(UnsubscribeFromVideo { sender: connection_id });
                    self.send(&request, Purpose::Silent, REQUEST_TIMEOUT, now);
                }
            }
            Purpose::Action { action, what } => match outcome {
                Ok(result) => self.on_action_done(action, what, result, now),
                Err(error) => {
                    let missed = self.proves_missed_news(&what, &error);
                    self.answer(action, Err(ActionError::Refused(error)));
                    self.on_action_failed(&what);
                    if missed {
                        self.lose_place(LostPlace::MissedNews, now);
                    }
                }
            },
        }
    }

    fn on_joined(&mut self, outcome: Result<Value, RpcError>, now: Duration) {
        let rejoined = match self.state {
            State::Joining => false,
            State::Rejoining { .. } => true,
            _ => return,
        };
        let mut result: JoinResult = match outcome {
            Ok(result) => read(result),
            Err(_) if rejoined => return self.rejoin_failed(now),
            Err(mut error) => {
                self.close_socket(CLOSE_LEFT);
                // The original server repeats the token in its refusal.
                error.message = error.message.replace(self.config.token.raw().expose(), "[token]");
                return self.end(EndReason::Refused(error));
            }
        };
        if result.id.is_empty() {
            return self.end(EndReason::BadServer);
        }
        let people = result.value.clone();
        result.value.retain(|p| !p.id.is_empty() && p.id != result.id);
        self.session = Some(Session::new(&result));
        self.forget_loss();
        self.place_lost = None;
        self.deaf_once = false;
        self.set_state(State::Joined);
        self.emit(ClientEvent::Joined { result: Box::new(result), rejoined });
        for mut person in people {
            let streams = std::mem::take(&mut person.streams);
            let id = person.id.clone();
            self.participant_joined(person);
            for stream in streams {
                self.stream_published(&id, stream);
            }
        }
        for notification in std::mem::take(&mut self.early) {
            self.on_notification(notification, now);
        }
    }

    fn on_action_done(&mut self, action: ActionId, what: What, result: Value, now: Duration) {
        match what {
            What::Plain | What::Probe | What::SubscribeAnswer { .. } | What::Property(_) => {
                self.answer(action, Ok(Answer::Done));
            }
            What::Unpublish => {
                if let Some(session) = self.session.as_mut() {
                    session.own_stream = None;
                    let id = session.id.clone();
                    session.endpoints.remove(&id);
                }
                self.drop_deferred(&ActionError::NotPublishing);
                self.answer(action, Ok(Answer::Done));
            }
            What::Publish | What::ReconnectPublisher => {
                let result: PublishResult = read(result);
                if result.id.is_empty() || result.sdp_answer.is_empty() {
                    self.answer(action, Err(ActionError::BadAnswer));
                    return self.on_action_failed(&what);
                }
                let mut own_id = String::new();
                if let Some(session) = self.session.as_mut() {
                    session.own_stream = Some(result.id.clone());
                    own_id = session.id.clone();
                    if let Some(endpoint) = session.endpoints.get_mut(&own_id) {
                        endpoint.stream_id = result.id.clone();
                    }
                }
                let PublishResult { sdp_answer, id: stream_id, created_at } = result;
                self.answer(action, Ok(Answer::Published { stream_id, created_at, sdp_answer }));
                self.endpoint_ready(&own_id);
                self.flush_deferred(now);
            }
            What::Subscribe { stream_id } | What::ReconnectSubscriber { stream_id } => {
                let ReceiveResult { sdp_answer } = read(result);
                let Some(sdp_answer) = sdp_answer.filter(|s| !s.is_empty()) else {
                    self.answer(action, Err(ActionError::BadAnswer));
                    return self.on_action_failed(&What::Subscribe { stream_id });
                };
                self.description_arrived(action, stream_id, |stream_id| Answer::Subscribed {
                    stream_id,
                    sdp_answer: Some(sdp_answer),
                });
            }
            What::Prepare { stream_id } => {
                let PrepareResult { sdp_offer } = read(result);
                if sdp_offer.is_empty() {
                    self.answer(action, Err(ActionError::BadAnswer));
                    return self.on_action_failed(&What::Prepare { stream_id });
                }
                self.description_arrived(action, stream_id, |stream_id| Answer::Offer { stream_id, sdp_offer });
            }
        }
    }

    /// Whether a refusal says that a stream is gone of whose end nobody told us. What a server writes into a dead connection is lost (protocol
    /// §2.6), so that after one what we know of the others may be old; only a new join tells anew.
    fn proves_missed_news(&self, what: &What, error: &RpcError) -> bool {
        let (What::Subscribe { stream_id } | What::Prepare { stream_id } | What::ReconnectSubscriber { stream_id }) =
            what
        else {
            return false;
        };
        let gone = [ErrorCode::UserNotFound, ErrorCode::UserNotStreaming].iter().any(|code| code.code() == error.code);
        let listed = self.participants().any(|p| p.streams.iter().any(|s| s.id == *stream_id));
        gone && listed && self.deaf_once && self.config.can_rejoin && self.is_joined()
    }

    /// Hands out a remote description, then the candidates that waited for it.
    fn description_arrived(&mut self, action: ActionId, stream_id: String, answer: impl FnOnce(String) -> Answer) {
        let publisher = self.session.as_ref().and_then(|s| s.publisher_of(&stream_id));
        self.answer(action, Ok(answer(stream_id)));
        if let Some(publisher) = publisher {
            self.endpoint_ready(&publisher);
        }
    }

    fn endpoint_ready(&mut self, connection_id: &str) {
        let queue = self.session.as_mut().map(|s| s.ready(connection_id)).unwrap_or_default();
        for candidate in queue {
            self.emit_candidate(candidate);
        }
    }

    fn emit_candidate(&mut self, c: IceCandidateFromServer) {
        self.emit(ClientEvent::RemoteCandidate {
            connection_id: c.sender_connection_id,
            endpoint_name: c.endpoint_name,
            candidate: c.candidate,
            sdp_mid: c.sdp_mid,
            sdp_m_line_index: c.sdp_m_line_index,
        });
    }

    /// What a failed action leaves behind.
    pub(super) fn on_action_failed(&mut self, what: &What) {
        match what {
            What::Publish => {
                if let Some(session) = self.session.as_mut() {
                    let id = session.id.clone();
                    session.failed(&id);
                }
                if self.own_stream().is_none() {
                    self.drop_deferred(&ActionError::NotPublishing);
                }
            }
            What::Subscribe { stream_id } | What::Prepare { stream_id } => {
                if let Some(session) = self.session.as_mut()
                    && let Some(publisher) = session.publisher_of(stream_id)
                {
                    session.failed(&publisher);
                }
            }
            _ => {}
        }
    }

    fn on_notification(&mut self, notification: Notification, now: Duration) {
        let Some(own_id) = self.session.as_ref().map(|s| s.id.clone()) else {
            // The server counts us in before it answers: what happens in between may overtake the answer.
            let joining = matches!(self.state, State::Joining | State::Rejoining { .. });
            if !joining || self.early.len() >= MAX_EARLY {
                return self.garbage("notification before joining");
            }
            return self.early.push(notification);
        };
        if matches!(self.state, State::Leaving) {
            // Nothing but the end matters any more.
            return;
        }
        match notification {
            Notification::ParticipantJoined(mut p) => {
                let streams = std::mem::take(&mut p.streams);
                let id = p.id.clone();
                self.participant_joined(p);
                for stream in streams {
                    self.stream_published(&id, stream);
                }
            }
            Notification::ParticipantPublished(p) => {
                for stream in p.streams {
                    self.stream_published(&p.id, stream);
                }
            }
            Notification::ParticipantUnpublished(gone) if gone.connection_id == own_id => self.own_unpublished(gone),
            Notification::ParticipantUnpublished(gone) => self.stream_gone(&gone.connection_id, &gone.reason),
            Notification::ParticipantLeft(gone) if gone.connection_id == own_id => {}
            Notification::ParticipantLeft(gone) => {
                self.stream_gone(&gone.connection_id, &gone.reason);
                let known = self.session.as_mut().and_then(|s| s.roster.remove(&gone.connection_id)).is_some();
                if known {
                    let ParticipantGone { connection_id, reason } = gone;
                    self.emit(ClientEvent::ParticipantLeft { connection_id, reason });
                }
            }
            Notification::ParticipantEvicted(gone) if gone.connection_id == own_id => self.evicted(gone.reason, now),
            // Somebody else's eviction follows its `participantLeft`.
            Notification::ParticipantEvicted(_) => {}
            Notification::IceCandidate(candidate) => self.candidate(candidate),
            Notification::SendMessage(signal) => {
                let kind = signal.bare_kind().to_owned();
                let data = signal.data.unwrap_or_default();
                self.emit(ClientEvent::Signal { from: signal.from, kind, data });
            }
            Notification::StreamPropertyChanged(event) => self.property_changed(event),
            Notification::ConnectionPropertyChanged(change) if change.property == "role" => {
                match Role::parse(&change.new_value) {
                    Some(role) => {
                        if let Some(session) = self.session.as_mut() {
                            session.role = role;
                        }
                        self.emit(ClientEvent::RoleChanged(role));
                    }
                    None => self.garbage("unknown role"),
                }
            }
            Notification::ForciblyReconnectSubscriber(offer) => self.forcibly_reconnect(offer),
            Notification::MasterNodeCrashedNotification(_) => {
                self.close_socket(CLOSE_MASTER_CRASHED);
                self.end(EndReason::Evicted { reason: "nodeCrashed".to_owned() });
            }
            other => self.emit(ClientEvent::Other(Box::new(other))),
        }
    }

    fn participant_joined(&mut self, person: ParticipantInfo) {
        let Some(session) = self.session.as_mut() else { return };
        if person.id.is_empty() || person.id == session.id || session.roster.contains_key(&person.id) {
            return;
        }
        if session.roster.len() >= MAX_PARTICIPANTS {
            return self.garbage("too many participants");
        }
        session.roster.insert(person.id.clone(), person.clone());
        self.emit(ClientEvent::ParticipantJoined(person));
    }

    fn stream_published(&mut self, connection_id: &str, stream: StreamInfo) {
        let own = self.session.as_ref().is_none_or(|s| s.id == connection_id);
        if own || connection_id.is_empty() || stream.id.is_empty() {
            return;
        }
        // A publication may overtake the publisher's `participantJoined`.
        self.participant_joined(ParticipantInfo { id: connection_id.to_owned(), ..ParticipantInfo::default() });
        let Some(person) = self.session.as_mut().and_then(|s| s.roster.get_mut(connection_id)) else { return };
        if person.streams.iter().any(|s| s.id == stream.id) {
            return;
        }
        if !person.streams.is_empty() {
            // One stream per connection: the notification about the end of the old one was lost.
            self.stream_gone(connection_id, "");
        }
        if let Some(person) = self.session.as_mut().and_then(|s| s.roster.get_mut(connection_id)) {
            person.streams.push(stream.clone());
        }
        self.emit(ClientEvent::StreamPublished { connection_id: connection_id.to_owned(), stream });
    }

    fn stream_gone(&mut self, connection_id: &str, reason: &str) {
        if let Some(stream) = self.session.as_mut().and_then(|s| s.take_stream(connection_id)) {
            self.emit(ClientEvent::StreamUnpublished {
                connection_id: connection_id.to_owned(),
                stream_id: stream.id,
                reason: reason.to_owned(),
            });
        }
    }

    fn own_unpublished(&mut self, gone: ParticipantGone) {
        let Some(session) = self.session.as_mut() else { return };
        session.endpoints.remove(&gone.connection_id);
        if let Some(stream_id) = session.own_stream.take() {
            self.drop_deferred(&ActionError::NotPublishing);
            self.emit(ClientEvent::OwnStreamUnpublished { stream_id, reason: gone.reason });
        }
    }

    fn evicted(&mut self, reason: String, now: Duration) {
        self.close_socket(CLOSE_LEFT);
        if FINAL_EVICTIONS.contains(&reason.as_str()) {
            self.end(EndReason::Evicted { reason });
        } else {
            // Nobody wanted us out: the server only thought that our network had failed. As the reason it gives that of whatever it could
            // not tell us then (protocol §2.4), or none.
            self.lose_place(LostPlace::NetworkEviction, now);
        }
    }

    fn candidate(&mut self, candidate: IceCandidateFromServer) {
        let endpoint = self.session.as_mut().and_then(|s| s.endpoints.get_mut(&candidate.sender_connection_id));
        match endpoint {
            Some(endpoint) if endpoint.ready => self.emit_candidate(candidate),
            Some(endpoint) => {
                if endpoint.queue(candidate) {
                    self.counters.dropped_candidates += 1;
                }
            }
            None => self.counters.dropped_candidates += 1,
        }
    }

    fn property_changed(&mut self, event: StreamPropertyChangedEvent) {
        let property = event.value();
        let person = self.session.as_mut().and_then(|s| s.roster.get_mut(&event.connection_id));
        if let Some(stream) = person.and_then(|p| p.streams.iter_mut().find(|s| s.id == event.stream_id)) {
            match &property {
                PropertyValue::AudioActive(on) => stream.audio_active = Some(*on),
                PropertyValue::VideoActive(on) => stream.video_active = Some(*on),
                PropertyValue::VideoDimensions(d) => stream.video_dimensions = Some(d.to_json()),
                PropertyValue::Filter(filter) => stream.filter = Some(filter.clone()),
                PropertyValue::AudioTrack(_) | PropertyValue::VideoTrack(_) | PropertyValue::Other { .. } => {}
            }
        }
        self.emit(ClientEvent::PropertyChanged {
            connection_id: event.connection_id,
            stream_id: event.stream_id,
            property,
            reason: event.reason,
        });
    }

    fn forcibly_reconnect(&mut self, event: ForciblyReconnectSubscriber) {
        let ForciblyReconnectSubscriber { connection_id, stream_id, sdp_offer } = event;
        let Some(session) = self.session.as_mut() else { return };
        let connection_id =
            if connection_id.is_empty() { session.publisher_of(&stream_id).unwrap_or_default() } else { connection_id };
        if !session.endpoints.contains_key(&connection_id) {
            return self.garbage("forciblyReconnectSubscriber for a stream that is not subscribed");
        }
        session.renew(&connection_id, &stream_id);
        let publisher = connection_id.clone();
        self.emit(ClientEvent::ForciblyReconnect { stream_id, connection_id, sdp_offer });
        self.endpoint_ready(&publisher);
    }
}
