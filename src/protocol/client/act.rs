//! What the user and the engine want.

use super::reconnect::PROBE_TIMEOUT;
use super::types::{Action, ActionError, ActionId, Answer, DimensionsReason, OwnProperty, State};
use super::{Client, EndReason, LEAVE_TIMEOUT, Purpose, REQUEST_TIMEOUT, What};
use crate::protocol::message::{
    Empty, ForceDisconnect, ForceUnpublish, IceCandidateToServer, PrepareReceiveVideoFrom, PublishVideo,
    ReceiveVideoFrom, ReconnectStream, Request, SendMessage, SignalMessage, StreamPropertyChanged,
    UnsubscribeFromVideo,
};
use serde_json::{Value, json};
use std::time::Duration;

/// A change of the own stream that waits for the connection or for the stream's id.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) property: OwnProperty,
    pub(super) action: ActionId,
}

impl OwnProperty {
    /// Name on the wire, which also tells which of two changes overtakes the other.
    fn name(&self) -> &'static str {
        match self {
            Self::AudioActive(_) => "audioActive",
            Self::VideoActive(_) => "videoActive",
            Self::VideoDimensions { .. } => "videoDimensions",
            Self::AudioTrack(_) => "audioTrack",
            Self::VideoTrack(_) => "videoTrack",
        }
    }

    fn to_request(&self, stream_id: &str) -> Request {
        let (new_value, reason): (Value, &str) = match self {
            Self::AudioActive(on) => (json!(on), "publishAudio"),
            Self::VideoActive(on) => (json!(on), "publishVideo"),
            Self::VideoDimensions { dimensions, reason } => (
                json!(dimensions.to_json()),
                match reason {
                    DimensionsReason::ScreenResized => "screenResized",
                    DimensionsReason::DeviceRotated => "deviceRotated",
                    DimensionsReason::TrackReplaced => "trackReplaced",
                },
            ),
            Self::AudioTrack(label) | Self::VideoTrack(label) => (json!({ "label": label }), "trackReplaced"),
        };
        Request::StreamPropertyChanged(StreamPropertyChanged {
            stream_id: stream_id.to_owned(),
            property: self.name().to_owned(),
            new_value,
            reason: reason.to_owned(),
        })
    }
}

impl Client {
    pub(super) fn act(&mut self, action: ActionId, wish: Action, now: Duration) {
        match wish {
            Action::Join => self.join(now),
            Action::Leave => self.leave(now),
            Action::Rejoin(token) => self.rejoin(token, now),
            Action::NoToken { for_good } => self.no_token(for_good, now),
            Action::NetworkChanged => self.network_changed(now),
            Action::RetryNow => self.retry_now(now),
            Action::PropertyChanged(property) => self.change_property(action, property, now),
            other => {
                if let Err(error) = self.request_action(action, other, now) {
                    self.answer(action, Err(error));
                }
            }
        }
    }

    /// Sends the request of an action that needs nothing but the session.
    fn request_action(&mut self, action: ActionId, wish: Action, now: Duration) -> Result<(), ActionError> {
        if !self.is_joined() {
            return Err(ActionError::NotJoined);
        }
        let session = self.session.as_ref().ok_or(ActionError::NotJoined)?;
        let own_id = session.id.clone();
        let own_stream = session.own_stream.clone();
        let publisher = |stream_id: &str| session.publisher_of(stream_id).unwrap_or_default();
        let mut timeout = REQUEST_TIMEOUT;
        // (endpoint, stream, whether it starts over)
        let mut endpoint: Option<(String, String, bool)> = None;
        let mut forget: Option<String> = None;
        let (request, what) = match wish {
            Action::Publish { properties: p, sdp_offer } => {
                endpoint = Some((own_id, String::new(), false));
                let request = Request::PublishVideo(PublishVideo {
                    do_loopback: p.do_loopback,
                    has_audio: p.has_audio,
                    has_video: p.has_video,
                    audio_active: p.audio_active,
                    video_active: p.video_active,
                    type_of_video: p.type_of_video,
                    frame_rate: p.frame_rate,
                    video_dimensions: p.video_dimensions.map(|d| d.to_json()),
                    filter: p.filter,
                    sdp_offer,
                });
                (request, What::Publish)
            }
            Action::Unpublish => (Request::UnpublishVideo(Empty {}), What::Unpublish),
            Action::Subscribe { stream_id, sdp_offer } => {
                endpoint = Some((publisher(&stream_id), stream_id.clone(), false));
                let request = Request::ReceiveVideoFrom(ReceiveVideoFrom {
                    sender: stream_id.clone(),
                    sdp_offer: Some(sdp_offer),
                    sdp_answer: None,
                });
                (request, What::Subscribe { stream_id })
            }
            Action::PrepareSubscribe { stream_id, reconnect } => {
                endpoint = Some((publisher(&stream_id), stream_id.clone(), reconnect));
                let request =
                    Request::PrepareReceiveVideoFrom(PrepareReceiveVideoFrom { sender: stream_id.clone(), reconnect });
                (request, What::Prepare { stream_id })
            }
            Action::SubscribeAnswer { stream_id, sdp_answer } => {
                let request = Request::ReceiveVideoFrom(ReceiveVideoFrom {
                    sender: stream_id.clone(),
                    sdp_offer: None,
                    sdp_answer: Some(sdp_answer),
                });
                (request, What::SubscribeAnswer { stream_id })
            }
            Action::Unsubscribe { stream_id } => {
                let sender = publisher(&stream_id);
                forget = Some(sender.clone());
                (Request::UnsubscribeFromVideo(UnsubscribeFromVideo { sender }), What::Plain)
            }
            Action::IceCandidate { connection_id, candidate, sdp_mid, sdp_m_line_index } => {
                let request = Request::OnIceCandidate(IceCandidateToServer {
                    endpoint_name: connection_id,
                    candidate,
                    sdp_mid,
                    sdp_m_line_index,
                });
                (request, What::Plain)
            }
            Action::Signal { kind, data, to } => {
                let message = SignalMessage::new(&kind, &data, to).to_json();
                (Request::SendMessage(SendMessage { message }), What::Plain)
            }
            Action::VideoData(data) => (Request::VideoData(data), What::Plain),
            Action::ReconnectPublisher { sdp_offer } => {
                let stream = own_stream.ok_or(ActionError::NotPublishing)?;
                endpoint = Some((own_id, stream.clone(), true));
                let request = Request::ReconnectStream(ReconnectStream {
                    stream,
                    sdp_string: Some(sdp_offer),
                    ..ReconnectStream::default()
                });
                (request, What::ReconnectPublisher)
            }
            Action::ReconnectSubscriber { stream_id, sdp_offer } => {
                endpoint = Some((publisher(&stream_id), stream_id.clone(), true));
                let request = Request::ReconnectStream(ReconnectStream {
                    stream: stream_id.clone(),
                    sdp_string: None,
                    sdp_offer: Some(sdp_offer),
                    forcibly_reconnect: Some(false),
                });
                (request, What::ReconnectSubscriber { stream_id })
            }
            Action::ReconnectSubscriberAnswer { stream_id, sdp_answer, forcibly } => {
                let request = Request::ReconnectStream(ReconnectStream {
                    stream: stream_id.clone(),
                    sdp_string: Some(sdp_answer),
                    sdp_offer: None,
                    forcibly_reconnect: Some(forcibly),
                });
                (request, What::SubscribeAnswer { stream_id })
            }
            Action::Probe => {
                timeout = PROBE_TIMEOUT;
                (Request::Echo(Empty {}), What::Probe)
            }
            Action::ForceDisconnect { connection_id } => {
                (Request::ForceDisconnect(ForceDisconnect { connection_id }), What::Plain)
            }
            Action::ForceUnpublish { stream_id } => {
                (Request::ForceUnpublish(ForceUnpublish { stream_id }), What::Plain)
            }
            Action::Request(request) => (*request, What::Plain),
            // Handled by `act`.
            Action::Join
            | Action::Leave
            | Action::Rejoin(_)
            | Action::NoToken { .. }
            | Action::NetworkChanged
            | Action::RetryNow
            | Action::PropertyChanged(_) => return Ok(()),
        };
        self.try_send(&request, Purpose::Action { action, what }, timeout, now)?;
        if let Some(session) = self.session.as_mut() {
            if let Some((connection, stream, over)) = endpoint {
                if over {
                    session.renew(&connection, &stream);
                } else {
                    session.expect(&connection, &stream);
                }
            }
            if let Some(connection) = forget {
                session.endpoints.remove(&connection);
            }
        }
        Ok(())
    }

    fn change_property(&mut self, action: ActionId, property: OwnProperty, now: Duration) {
        if matches!(self.state, State::Ended(_) | State::Idle | State::GivenUp | State::Leaving) {
            return self.answer(action, Err(ActionError::NotJoined));
        }
        let publishing =
            self.pending.values().any(|p| matches!(p.purpose, Purpose::Action { what: What::Publish, .. }));
        if self.own_stream().is_none() && !publishing {
            return self.answer(action, Err(ActionError::NotPublishing));
        }
        self.defer(action, property);
        self.flush_deferred(now);
    }

    /// Keeps a change for later; an older one of the same property is overtaken and thereby done.
    pub(super) fn defer(&mut self, action: ActionId, property: OwnProperty) {
        let name = property.name();
        if let Some(at) = self.deferred.iter().position(|d| d.property.name() == name) {
            let overtaken = self.deferred.remove(at);
            self.answer(overtaken.action, Ok(Answer::Done));
        }
        self.deferred.push(Deferred { property, action });
    }

    /// Keeps a change that was on its way when the connection broke, unless a newer one waits already.
    pub(super) fn defer_lost(&mut self, action: ActionId, property: OwnProperty) {
        if self.deferred.iter().any(|d| d.property.name() == property.name()) {
            self.answer(action, Ok(Answer::Done));
        } else {
            self.deferred.push(Deferred { property, action });
        }
    }

    /// Sends the changes that waited, once there are a session and a stream.
    pub(super) fn flush_deferred(&mut self, now: Duration) {
        if !self.is_joined() {
            return;
        }
        let Some(stream_id) = self.own_stream().map(str::to_owned) else { return };
        for Deferred { property, action } in std::mem::take(&mut self.deferred) {
            let request = property.to_request(&stream_id);
            let purpose = Purpose::Action { action, what: What::Property(property) };
            if let Err(error) = self.try_send(&request, purpose, REQUEST_TIMEOUT, now) {
                self.answer(action, Err(error));
            }
        }
    }

    /// Ends all changes that waited.
    pub(super) fn drop_deferred(&mut self, error: &ActionError) {
        for Deferred { action, .. } in std::mem::take(&mut self.deferred) {
            self.answer(action, Err(error.clone()));
        }
    }

    fn leave(&mut self, now: Duration) {
        match self.state {
            State::Leaving | State::Ended(_) => {}
            // The server works through the requests of a socket in order, so a leave behind an unanswered join is right, too.
            State::Joined | State::Checking | State::Joining | State::Rejoining { .. } | State::Resuming { .. }
                if self.may_leave_in_order() =>
            {
                self.ping_at = None;
                self.checking_at = None;
                self.deadline = None;
                self.set_state(State::Leaving);
                if !self.send(&Request::LeaveRoom(Empty {}), Purpose::Leave, LEAVE_TIMEOUT, now) {
                    self.end(EndReason::Left);
                }
            }
            _ => self.end(EndReason::Left),
        }
    }

    /// Whether the socket knows us, so that `leaveRoom` on it means something.
    fn may_leave_in_order(&self) -> bool {
        let resuming = matches!(self.state, State::Resuming { .. });
        self.socket.as_ref().is_some_and(|s| s.open)
            && (!resuming || self.pending.values().any(|p| p.purpose == Purpose::Verify))
    }
}
