//! What the server says about the session and the connection.

use std::time::Instant;

use tracing::{debug, info};

use super::Engine;
use super::reporting::state_word;
use crate::call::candidates::of_use;
use crate::call::event::Event;
use crate::call::leg::LegInput;
use crate::call::view::{Connection, Failure, JoinStep};
use crate::protocol::message::PropertyValue;
use crate::signaling::{Joined, SignalingError, SignalingEvent};

impl Engine {
    pub(super) async fn signaling_event(&mut self, event: SignalingEvent) {
        self.dirty = true;
        match event {
            SignalingEvent::SocketOpen => {
                self.timeline.socket_open.get_or_insert(self.config.started.elapsed().as_millis() as u64);
                if matches!(self.connection, Connection::Joining(_)) {
                    self.connection = Connection::Joining(JoinStep::Entering);
                }
            }
            SignalingEvent::Joined { joined, rejoined } => self.joined(*joined, rejoined),
            SignalingEvent::ParticipantJoined(info) => self.participant_joined(&info),
            SignalingEvent::ParticipantLeft { connection_id, reason } => self.participant_left(&connection_id, &reason),
            SignalingEvent::StreamPublished { connection_id, stream } => self.stream_published(&connection_id, *stream),
            SignalingEvent::StreamUnpublished { connection_id, stream_id, reason } => {
                self.stream_gone(&connection_id, &stream_id, &reason)
            }
            SignalingEvent::OwnStreamUnpublished { reason } => self.own_stream_gone(&reason),
            SignalingEvent::RemoteCandidate { candidate, .. } if !of_use(&candidate) => {}
            SignalingEvent::RemoteCandidate { connection_id, candidate, sdp_mid, sdp_mline_index } => {
                let told =
                    LegInput::Candidate { candidate, sdp_mid: Some(sdp_mid), sdp_mline_index: Some(sdp_mline_index) };
                self.route_candidate(&connection_id, told);
            }
            SignalingEvent::ServerOffers { connection_id, stream_id, sdp_offer } => {
                self.server_offers(&connection_id, &stream_id, sdp_offer);
            }
            SignalingEvent::Signal { from, kind, data } => self.signal(from, &kind, data),
            SignalingEvent::PropertyChanged { connection_id, stream_id, property, reason } => {
                self.property_changed(&connection_id, &stream_id, &property, &reason);
            }
            SignalingEvent::RoleChanged(role) => {
                if let Some(joined) = &mut self.place.joined {
                    joined.role = role;
                }
                self.settle_devices();
                let event =
                    self.event("connectionPropertyChanged").with("property", "role").with("value", role.as_str());
                self.emit(event);
            }
            SignalingEvent::Checking => {
                if self.connection == Connection::Connected {
                    self.connection = Connection::Checking;
                }
            }
            SignalingEvent::CheckedWell => {
                if self.connection == Connection::Checking {
                    self.connection = Connection::Connected;
                }
            }
            SignalingEvent::Reconnecting { attempt, retry_at, place_kept_until } => {
                self.reconnecting(attempt, retry_at, place_kept_until)
            }
            SignalingEvent::Reconnected => self.reconnected(),
            SignalingEvent::Rejoining { attempt, cause, .. } => self.rejoining(attempt, cause),
            SignalingEvent::GivenUp => {
                self.connection = Connection::Failed(Failure {
                    key: "conn.cut_off",
                    values: Vec::new(),
                    detail: "no way back within 60 s".to_owned(),
                });
                self.error = Some("the connection was lost and there was no way back for 60 s; try again".to_owned());
                let event = self.event("givenUp");
                self.emit(event);
                self.settle_devices();
            }
            SignalingEvent::Left => {
                // The report says how the connection stood; that we left is in the timeline.
                self.place.left_in = Some(state_word(&self.connection));
                self.ended("disconnect");
            }
            SignalingEvent::Evicted { reason } => {
                self.error = Some(format!("removed from the session ({reason}): {}", eviction(&reason)));
                self.ended(&reason);
            }
            SignalingEvent::Failed(error) => self.failed(error),
            SignalingEvent::Other { name, detail } => {
                let mut event = self.event(&name);
                event.detail = detail;
                self.emit(event);
            }
            SignalingEvent::Garbage { what, count } => {
                debug!(what, count, "unusable frame");
                if count == 1 {
                    let event = self.event("garbage").with("what", what);
                    self.emit(event);
                }
            }
        }
    }

    fn joined(&mut self, joined: Joined, rejoined: bool) {
        info!(connection_id = joined.connection_id, rejoined, "joined");
        let name = if rejoined { "rejoined" } else { "joined" };
        let event = self
            .event(name)
            .with("connection_id", joined.connection_id.clone())
            .with("role", joined.role.as_str())
            .with("session", joined.session.clone());
        self.timeline.joined.get_or_insert(event.t_ms);
        self.joined_at.get_or_insert_with(Instant::now);
        self.emit(event);
        if rejoined {
            self.came_back();
            self.forget_everybody();
        }
        let may_publish = joined.role.may_publish();
        self.place.joined = Some(joined);
        self.place.rejoining = false;
        if !may_publish && self.wants_to_publish() {
            self.refuse("publish", "the role does not allow publishing");
        }
        self.connection = Connection::Connected;
        self.own.new_place();
        self.settle_devices();
        self.tell_sizes_again();
    }

    fn reconnecting(&mut self, attempt: u32, retry_at: Option<Instant>, place_kept_until: Instant) {
        let now = Instant::now();
        let ms = |until: Instant| u64::try_from(until.saturating_duration_since(now).as_millis()).unwrap_or(0);
        if self.place.lost_at.is_none() {
            self.place.lost_at = Some(now);
            let event = self.event("reconnecting");
            self.emit(event);
        }
        self.connection = Connection::Reconnecting {
            attempt,
            retry_in_ms: retry_at.map_or(0, ms),
            place_kept_ms: ms(place_kept_until),
        };
    }

    fn reconnected(&mut self) {
        self.came_back();
        self.connection = Connection::Connected;
        let took_ms = self.place.reconnect_ms.last().copied();
        let event = self.event("reconnected").with("took_ms", took_ms);
        self.emit(event);
        self.settle_devices();
        self.tell_sizes_again();
        // Streams whose media did not survive are renegotiated; the others never noticed.
        self.rebuild_interrupted();
    }

    fn came_back(&mut self) {
        self.error = None;
        if let Some(lost_at) = self.place.lost_at.take() {
            self.place.reconnects += 1;
            self.place.reconnect_ms.push(u64::try_from(lost_at.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
    }

    fn rejoining(&mut self, attempt: u32, cause: Option<&'static str>) {
        self.place.lost_at.get_or_insert_with(Instant::now);
        if !self.place.rejoining {
            self.place.rejoining = true;
            let event = self.event("rejoining").with("reason", cause);
            self.emit(event);
            // A shared screen stays: its connection is its own and finds its own way back.
            self.close_legs();
        }
        self.connection = Connection::Rejoining { attempt };
    }

    /// The session is over for us.
    fn ended(&mut self, reason: &str) {
        let event = self.event("sessionDisconnected").with("reason", reason);
        self.timeline.left.get_or_insert(event.t_ms);
        self.emit(event);
        self.connection = Connection::Ended { reason: reason.to_owned() };
        self.over = true;
    }

    fn failed(&mut self, error: SignalingError) {
        let failure = failure_of(&error);
        let lost_for_good = self.place.joined.is_some();
        self.error = Some(if lost_for_good {
            format!("the connection was lost and could not be restored: {error}; {}", error.remedy())
        } else {
            format!("{error}; {}", error.remedy())
        });
        let event = self.event("error").with("key", failure.key).with("message", error.to_string());
        self.emit(event);
        if lost_for_good {
            let event: Event = self.event("sessionDisconnected").with("reason", "networkDisconnect");
            self.emit(event);
        }
        self.connection = Connection::Failed(failure);
        self.over = true;
    }

    fn signal(&mut self, from: Option<String>, kind: &str, data: String) {
        let event = self.event("signal").with("type", kind).with("data", data.clone()).with("from", from.clone());
        self.emit(event);
        if kind == "chat" {
            // openvidu-call wraps the text; others send it bare.
            let parsed: Option<serde_json::Value> = serde_json::from_str(&data).ok();
            let member = |name: &str| {
                parsed.as_ref().and_then(|v| v.get(name)).and_then(serde_json::Value::as_str).map(str::to_owned)
            };
            let own = from.is_some() && from == self.place.joined.as_ref().map(|j| j.connection_id.clone());
            let name = from.and_then(|id| self.name_of(&id)).or_else(|| member("nickname")).unwrap_or_default();
            let text = member("message").unwrap_or(data);
            self.say(if own { self.config.name.clone() } else { name }, text, own);
        }
    }

    pub(super) fn send_signal(&mut self, kind: String, data: String, to: Vec<String>) {
        let server = std::sync::Arc::clone(&self.signaling);
        self.request("signal", async move { crate::signaling::Signaling::signal(&*server, &kind, &data, &to).await });
    }

    fn property_changed(&mut self, connection_id: &str, stream_id: &str, property: &PropertyValue, reason: &str) {
        let (name, value) = match property {
            PropertyValue::AudioActive(on) => ("audioActive", serde_json::Value::from(*on)),
            PropertyValue::VideoActive(on) => ("videoActive", serde_json::Value::from(*on)),
            PropertyValue::VideoDimensions(d) => {
                ("videoDimensions", serde_json::Value::from(format!("{}x{}", d.width, d.height)))
            }
            PropertyValue::AudioTrack(label) => ("audioTrack", serde_json::Value::from(label.clone())),
            PropertyValue::VideoTrack(label) => ("videoTrack", serde_json::Value::from(label.clone())),
            PropertyValue::Filter(value) => ("filter", value.clone()),
            PropertyValue::Other { name, value } => (name.as_str(), value.clone()),
        };
        let event = self
            .event("streamPropertyChanged")
            .with("stream_id", stream_id)
            .with("connection_id", connection_id)
            .with("property", name)
            .with("value", value)
            .with("reason", reason);
        self.emit(event);
        self.apply_property(stream_id, property);
    }
}

/// What became of us and what to do, by the reason as the protocol names it.
fn eviction(reason: &str) -> &'static str {
    match reason {
        "forceDisconnectByUser" => "a moderator did it; ask for a new invitation",
        "forceDisconnectByServer" => "the server's owner did it; ask for a new invitation",
        "sessionClosedByServer" => "the room was closed; ask whoever opened it whether there is another",
        "openviduServerStopped" => "the host was stopped; ask whoever runs it when it is back",
        "nodeCrashed" | "mediaServerDisconnect" => "the media server stopped; join again",
        _ => "join again, or ask for a new invitation",
    }
}

/// The failure of the screen that belongs to an error of a server.
pub(super) fn failure_of(error: &SignalingError) -> Failure {
    Failure { key: error.key(), values: error.values(), detail: error.to_string() }
}
