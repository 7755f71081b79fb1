//! Streams: publishing, subscribing, reconnecting, and the talk with the media server about them.

use super::Server;
use super::api::{LegId, MediaDone, MediaError, MediaOp, OpId, StreamSpec};
use super::codec::offers_codec;
use super::link::EarlyCandidate;
use super::request::{Caller, Refusal, unpublished};
use super::session::{Session, Stream, Subscription};
use crate::protocol::ids::connection_of_stream;
use crate::protocol::message::{
    IceCandidateFromServer, Notification, ParticipantPublished, PrepareResult, PublishResult, PublishVideo,
    ReceiveResult, ReceiveVideoFrom, ReconnectStream, StreamInfo, VideoDimensions,
};
use crate::protocol::{ErrorCode, Now, Sdp, rpc};
use serde_json::json;
use std::time::Duration;

/// A leg and whose it is.
pub(super) struct Leg {
    session_id: String,
    /// Connection whose client is at the other end.
    connection_id: String,
    /// Connection that publishes what flows on it.
    sender: String,
    endpoint_name: String,
    /// Candidates of the media server found before the client could use them; `None` once they can be passed on.
    held: Option<Vec<IceCandidateFromServer>>,
}

/// What an answer of the media server completes.
enum Pending {
    Publish { stream: Box<Stream>, previous: Option<LegId> },
    Subscribe { stream_id: String, leg: LegId, previous: Option<LegId> },
    Prepare { stream_id: String, leg: LegId },
    Answer { stream_id: String, leg: LegId },
}

impl Pending {
    fn leg(&self) -> LegId {
        match self {
            Self::Publish { stream, .. } => stream.leg,
            Self::Subscribe { leg, .. } | Self::Prepare { leg, .. } | Self::Answer { leg, .. } => *leg,
        }
    }
}

/// A request of a client that waits for the media server.
pub(super) struct PendingOp {
    pub(super) deadline: Duration,
    caller: Caller,
    pending: Pending,
}

impl Server {
    fn media_op(&mut self, caller: &Caller, request: MediaOp, pending: Pending, now: Now) {
        let op = self.ask(request);
        let deadline = now.mono + self.config.limits.media_timeout;
        self.ops.insert(op, PendingOp { deadline, caller: caller.clone(), pending });
        if let Some(link) = self.links.get_mut(&caller.rpc_id) {
            link.waiting = Some(op);
        }
    }

    fn register_leg(&mut self, c: &Caller, sender: &str, endpoint_name: String) -> LegId {
        let leg = self.new_leg();
        self.legs.insert(
            leg,
            Leg {
                session_id: c.session_id.clone(),
                connection_id: c.connection_id.clone(),
                sender: sender.to_owned(),
                endpoint_name,
                held: Some(Vec::new()),
            },
        );
        leg
    }

    pub(super) fn close_legs(&mut self, legs: impl IntoIterator<Item = LegId>) {
        for leg in legs {
            self.legs.remove(&leg);
            self.ask(MediaOp::CloseLeg { leg });
        }
    }

    /// The codec to force on one offer, or the refusal if it lacks it. Where transcoding is allowed the codec is only a wish: nothing is transcoded here.
    fn codec_for(
        &self,
        session: &Session,
        offer: Option<&str>,
        whose: &str,
    ) -> Result<Option<super::VideoCodecName>, Refusal> {
        let Some(codec) = session.properties.forced_video_codec.resolved() else { return Ok(None) };
        match offer {
            Some(sdp) if !offers_codec(sdp, codec) => {
                if session.properties.allow_transcoding {
                    return Ok(None);
                }
                let text = format!(
                    "Error forcing codec: '{}', for PARTICIPANT: '{whose}': the offer does not have it",
                    codec.name()
                );
                Err((ErrorCode::ForcedCodecNotFoundInSdpOffer, text))
            }
            _ => Ok(Some(codec)),
        }
    }

    fn session(&self, c: &Caller) -> Result<&Session, Refusal> {
        self.state
            .sessions
            .get(&c.session_id)
            .ok_or_else(|| (ErrorCode::RoomNotFound, format!("Session {} cannot be found", c.session_id)))
    }

    // Publishing.

    pub(super) fn publish(&mut self, c: &Caller, p: PublishVideo, now: Now) -> Result<(), Refusal> {
        let session = self.session(c)?;
        let me = session.participants.get(&c.connection_id);
        if me.is_some_and(|me| me.stream.is_some()) {
            let text = format!("User {} is already publishing in session {}", c.connection_id, c.session_id);
            return Err((ErrorCode::UserAlreadyStreaming, text));
        }
        let kind = p.type_of_video.as_deref().filter(|_| p.has_video);
        if p.has_video && !matches!(kind, Some("CAMERA" | "SCREEN" | "CUSTOM")) {
            return Err((
                ErrorCode::BadRequest,
                "Element 'typeOfVideo' of 'publishVideo' must be CAMERA, SCREEN or CUSTOM".into(),
            ));
        }
        if p.video_dimensions
            .as_deref()
            .is_some_and(|d| d.len() > 256 || serde_json::from_str::<serde_json::Value>(d).is_err())
        {
            return Err((
                ErrorCode::BadRequest,
                "Element 'videoDimensions' of 'publishVideo' is not a JSON text".into(),
            ));
        }
        if p.filter.as_ref().is_some_and(|f| !f.kind.is_empty()) {
            return Err((ErrorCode::FilterNotApplied, "This host has no filters".into()));
        }
        if session.participants.values().filter(|p| p.stream.is_some()).count() >= self.config.limits.streams {
            return Err((ErrorCode::RoomGeneric, format!("Session {} has too many streams", c.session_id)));
        }
        let codec = self.codec_for(session, Some(&p.sdp_offer), &c.connection_id)?;
        let letters: String = kind.unwrap_or("MIC").chars().take(3).collect();
        let stream_id = format!("str_{letters}_{}_{}", self.ids.id("", 3), c.connection_id);
        let leg = self.register_leg(c, &c.connection_id, stream_id.clone());
        let stream = Stream {
            info: StreamInfo {
                id: stream_id,
                created_at: now.unix_ms,
                has_audio: p.has_audio,
                has_video: p.has_video,
                audio_active: p.audio_active.filter(|_| p.has_audio),
                video_active: p.video_active.filter(|_| p.has_video),
                type_of_video: kind.map(str::to_owned),
                frame_rate: p.frame_rate,
                video_dimensions: p.video_dimensions.filter(|_| p.has_video),
                filter: Some(json!({})),
            },
            loopback: p.do_loopback,
            leg,
        };
        let spec = spec(&c.session_id, &c.connection_id, &stream, codec);
        let request = MediaOp::Publish { leg, stream: spec, previous: None, offer: p.sdp_offer };
        self.media_op(c, request, Pending::Publish { stream: Box::new(stream), previous: None }, now);
        self.flush_early(c, &c.connection_id, leg);
        Ok(())
    }

    pub(super) fn unpublish(&mut self, c: &Caller) -> Result<(), Refusal> {
        if !self.drop_stream(&c.session_id, &c.connection_id) {
            return Err((
                ErrorCode::UserNotStreaming,
                format!("Participant '{}' is not streaming media", c.connection_id),
            ));
        }
        self.broadcast(&c.session_id, Some(&c.connection_id), &unpublished(&c.connection_id, "unpublish"));
        Ok(())
    }

    /// Ends a participant's stream and every subscription to it, without telling anybody.
    pub(super) fn drop_stream(&mut self, session_id: &str, connection_id: &str) -> bool {
        let Some(session) = self.state.sessions.get_mut(session_id) else { return false };
        let Some(stream) = session.participants.get_mut(connection_id).and_then(|p| p.stream.take()) else {
            return false;
        };
        let mut legs = vec![stream.leg];
        for p in session.participants.values_mut() {
            if let Some(s) = p.subscriptions.remove(&stream.info.id) {
                legs.extend([Some(s.leg), s.prepared].into_iter().flatten());
            }
        }
        legs.dedup();
        self.close_legs(legs);
        true
    }

    // Subscribing.

    /// The stream somebody wants to receive, or why it cannot.
    fn wanted(&self, c: &Caller, stream_id: &str) -> Result<(String, Stream), Refusal> {
        let Some(owner) = connection_of_stream(stream_id) else {
            return Err((ErrorCode::BadRequest, "Element 'sender' is not a stream id".into()));
        };
        let session = self.session(c)?;
        let Some(publisher) = session.participants.get(owner) else {
            return Err((ErrorCode::UserNotFound, format!("User '{owner}' not found in session '{}'", c.session_id)));
        };
        if owner == c.connection_id {
            return Err((ErrorCode::UserNotStreaming, "Can loopback only when publishing media".into()));
        }
        match &publisher.stream {
            Some(stream) if stream.info.id == stream_id => Ok((owner.to_owned(), stream.clone())),
            _ => Err((
                ErrorCode::UserNotStreaming,
                format!("User '{owner}' not streaming media in session '{}'", c.session_id),
            )),
        }
    }

    fn subscription(&self, c: &Caller, stream_id: &str) -> Option<&Subscription> {
        self.state.sessions.get(&c.session_id)?.participants.get(&c.connection_id)?.subscriptions.get(stream_id)
    }

    pub(super) fn receive(&mut self, c: &Caller, p: ReceiveVideoFrom, now: Now) -> Result<(), Refusal> {
        self.wanted(c, &p.sender)?;
        let current = self.subscription(c, &p.sender).cloned();
        match (p.sdp_offer, p.sdp_answer) {
            (Some(offer), _) => {
                if current.is_some() {
                    return Err((
                        ErrorCode::BadRequest,
                        "The stream is subscribed already: unsubscribe first or use reconnectStream".into(),
                    ));
                }
                self.subscribe(c, &p.sender, offer, None, now)
            }
            (None, Some(answer)) => self.accept(c, &p.sender, answer, now),
            (None, None) => Err((
                ErrorCode::BadRequest,
                "One of the elements 'sdpOffer' and 'sdpAnswer' of 'receiveVideoFrom' is needed".into(),
            )),
        }
    }

    fn subscribe(
        &mut self,
        c: &Caller,
        stream_id: &str,
        offer: Sdp,
        previous: Option<LegId>,
        now: Now,
    ) -> Result<(), Refusal> {
        let (owner, stream) = self.wanted(c, stream_id)?;
        let codec = self.codec_for(self.session(c)?, Some(&offer), &c.connection_id)?;
        let leg = self.register_leg(c, &owner, format!("{}_{stream_id}", c.connection_id));
        let request = MediaOp::Subscribe {
            leg,
            stream: spec(&c.session_id, &owner, &stream, codec),
            receiver: c.connection_id.clone(),
            offer,
        };
        self.media_op(c, request, Pending::Subscribe { stream_id: stream_id.to_owned(), leg, previous }, now);
        self.flush_early(c, &owner, leg);
        Ok(())
    }

    pub(super) fn prepare(&mut self, c: &Caller, stream_id: &str, reconnect: bool, now: Now) -> Result<(), Refusal> {
        let (owner, stream) = self.wanted(c, stream_id)?;
        if self.subscription(c, stream_id).is_some_and(|s| !reconnect && s.prepared.is_none()) {
            return Err((ErrorCode::BadRequest, "The stream is subscribed already: ask with reconnect = true".into()));
        }
        let codec = self.codec_for(self.session(c)?, None, &c.connection_id)?;
        self.drop_subscription(c, stream_id);
        let leg = self.register_leg(c, &owner, format!("{}_{stream_id}", c.connection_id));
        let request = MediaOp::PrepareSubscribe {
            leg,
            stream: spec(&c.session_id, &owner, &stream, codec),
            receiver: c.connection_id.clone(),
        };
        self.media_op(c, request, Pending::Prepare { stream_id: stream_id.to_owned(), leg }, now);
        Ok(())
    }

    /// The client's answer to an offer of the host.
    fn accept(&mut self, c: &Caller, stream_id: &str, answer: Sdp, now: Now) -> Result<(), Refusal> {
        let Some(leg) = self.subscription(c, stream_id).and_then(|s| s.prepared) else {
            return Err((
                ErrorCode::MediaEndpoint,
                "There is no offer to answer: ask with prepareReceiveVideoFrom first".into(),
            ));
        };
        self.media_op(
            c,
            MediaOp::SetAnswer { leg, answer },
            Pending::Answer { stream_id: stream_id.to_owned(), leg },
            now,
        );
        Ok(())
    }

    fn drop_subscription(&mut self, c: &Caller, stream_id: &str) {
        let session = self.state.sessions.get_mut(&c.session_id);
        let removed = session
            .and_then(|s| s.participants.get_mut(&c.connection_id))
            .and_then(|p| p.subscriptions.remove(stream_id));
        if let Some(s) = removed {
            let both = [Some(s.leg), s.prepared.filter(|p| *p != s.leg)];
            self.close_legs(both.into_iter().flatten());
        }
    }

    pub(super) fn unsubscribe(&mut self, c: &Caller, sender: &str) -> Result<(), Refusal> {
        let session = self.session(c)?;
        if !session.participants.contains_key(sender) {
            return Err((ErrorCode::UserNotFound, format!("User {sender} not found in session {}", c.session_id)));
        }
        let me = session.participants.get(&c.connection_id);
        let streams: Vec<String> = me
            .map(|p| p.subscriptions.keys().filter(|id| connection_of_stream(id) == Some(sender)).cloned().collect())
            .unwrap_or_default();
        for stream_id in streams {
            self.drop_subscription(c, &stream_id);
        }
        Ok(())
    }

    pub(super) fn reconnect(&mut self, c: &Caller, p: ReconnectStream, now: Now) -> Result<(), Refusal> {
        let session = self.session(c)?;
        let me = session.participants.get(&c.connection_id);
        if let Some(stream) = me.and_then(|m| m.stream.clone()).filter(|s| s.info.id == p.stream) {
            let Some(offer) = p.sdp_string.or(p.sdp_offer) else {
                return Err((ErrorCode::BadRequest, "Element 'sdpString' of 'reconnectStream' is missing".into()));
            };
            let codec = self.codec_for(session, Some(&offer), &c.connection_id)?;
            let previous = stream.leg;
            let leg = self.register_leg(c, &c.connection_id, stream.info.id.clone());
            let mut stream = Stream { leg, ..stream };
            stream.info.created_at = now.unix_ms;
            let request = MediaOp::Publish {
                leg,
                stream: spec(&c.session_id, &c.connection_id, &stream, codec),
                previous: Some(previous),
                offer,
            };
            self.media_op(c, request, Pending::Publish { stream: Box::new(stream), previous: Some(previous) }, now);
            self.flush_early(c, &c.connection_id, leg);
            return Ok(());
        }
        if session.publisher(&p.stream).is_none() {
            return Err((
                ErrorCode::UserNotStreaming,
                format!("Stream '{}' does not exist in Session '{}'", p.stream, c.session_id),
            ));
        }
        match (p.sdp_offer, p.sdp_string) {
            (Some(offer), _) => {
                let previous = self.subscription(c, &p.stream).map(|s| s.leg);
                self.subscribe(c, &p.stream, offer, previous, now)
            }
            (None, Some(answer)) => self.accept(c, &p.stream, answer, now),
            (None, None) => Err((
                ErrorCode::BadRequest,
                "One of the elements 'sdpOffer' and 'sdpString' of 'reconnectStream' is needed".into(),
            )),
        }
    }

    // Candidates.

    /// A candidate of a client: to its endpoint, or kept for one that is still to come.
    pub(super) fn client_candidate(
        &mut self,
        c: &Caller,
        endpoint: &str,
        candidate: String,
        sdp_mid: String,
        sdp_mline_index: u16,
    ) {
        let me = self.state.sessions.get(&c.session_id).and_then(|s| s.participants.get(&c.connection_id));
        let leg = me.and_then(|me| {
            if endpoint == c.connection_id {
                return me.stream.as_ref().map(|s| s.leg);
            }
            let mut to = me.subscriptions.iter().filter(|(id, _)| connection_of_stream(id) == Some(endpoint));
            to.next().map(|(_, s)| s.prepared.unwrap_or(s.leg))
        });
        if let Some(leg) = leg {
            self.ask(MediaOp::Candidate { leg, candidate, sdp_mid, sdp_mline_index });
            return;
        }
        let limit = self.config.limits.early_candidates;
        if let Some(link) = self.links.get_mut(&c.rpc_id)
            && link.early.values().map(Vec::len).sum::<usize>() < limit
        {
            link.early.entry(endpoint.to_owned()).or_default().push(EarlyCandidate {
                candidate,
                sdp_mid,
                sdp_mline_index,
            });
        }
    }

    fn flush_early(&mut self, c: &Caller, endpoint: &str, leg: LegId) {
        let early = self.links.get_mut(&c.rpc_id).and_then(|l| l.early.remove(endpoint)).unwrap_or_default();
        for e in early {
            self.ask(MediaOp::Candidate {
                leg,
                candidate: e.candidate,
                sdp_mid: e.sdp_mid,
                sdp_mline_index: e.sdp_mline_index,
            });
        }
    }

    /// A candidate of the media server: passed on as soon as the client knows the description it belongs to.
    pub(super) fn local_candidate(&mut self, leg_id: LegId, candidate: String, sdp_mid: String, sdp_mline_index: u16) {
        let limit = self.config.limits.early_candidates;
        let Some(leg) = self.legs.get_mut(&leg_id) else { return };
        let event = IceCandidateFromServer {
            sender_connection_id: leg.sender.clone(),
            endpoint_name: leg.endpoint_name.clone(),
            sdp_m_line_index: u32::from(sdp_mline_index),
            sdp_mid,
            candidate,
        };
        match &mut leg.held {
            Some(held) => {
                if held.len() < limit {
                    held.push(event);
                }
            }
            None => {
                let (session_id, connection_id) = (leg.session_id.clone(), leg.connection_id.clone());
                self.notify(&session_id, &connection_id, &rpc::notification(&Notification::IceCandidate(event)));
            }
        }
    }

    fn release_candidates(&mut self, leg_id: LegId) {
        let Some(leg) = self.legs.get_mut(&leg_id) else { return };
        let held = leg.held.take().unwrap_or_default();
        let (session_id, connection_id) = (leg.session_id.clone(), leg.connection_id.clone());
        for event in held {
            self.notify(&session_id, &connection_id, &rpc::notification(&Notification::IceCandidate(event)));
        }
    }

    // Answers of the media server.

    pub(super) fn media_done(&mut self, op: OpId, result: Result<MediaDone, MediaError>, now: Now) {
        let Some(PendingOp { caller: c, pending, .. }) = self.ops.remove(&op) else { return };
        let leg = pending.leg();
        result.iter().for_each(|done| self.note_done(leg, done));
        let outcome = match result {
            Ok(done) => self.complete(&c, pending, done, now),
            Err(error) => {
                self.forget_failed(&c, &pending);
                Err(refusal(&error))
            }
        };
        match outcome {
            Ok(()) => self.release_candidates(leg),
            Err((code, text)) => {
                self.close_legs([leg]);
                self.refuse(&c.rpc_id, c.id, code, &text);
            }
        }
        if let Some(link) = self.links.get_mut(&c.rpc_id).filter(|l| l.waiting == Some(op)) {
            link.waiting = None;
        }
        self.pump(&c.rpc_id, now);
    }

    /// A subscription whose answer was not understood is none any more.
    fn forget_failed(&mut self, c: &Caller, pending: &Pending) {
        if let Pending::Answer { stream_id, leg } = pending
            && self.subscription(c, stream_id).is_some_and(|s| s.prepared == Some(*leg))
        {
            self.drop_subscription(c, stream_id);
        }
    }

    fn complete(&mut self, c: &Caller, pending: Pending, done: MediaDone, now: Now) -> Result<(), Refusal> {
        let gone = || (ErrorCode::UserNotStreaming, "The stream has ended meanwhile".to_owned());
        let odd = || (ErrorCode::MediaGeneric, "The media server gave an answer to another question".to_owned());
        let Some(session) = self.state.sessions.get_mut(&c.session_id) else { return Err(gone()) };
        match (pending, done) {
            (Pending::Publish { stream, previous }, MediaDone::Answer(answer)) => {
                let me = session.participants.get_mut(&c.connection_id).ok_or_else(gone)?;
                let still = me.stream.as_ref().map(|s| s.leg) == previous;
                if !still {
                    return Err(gone());
                }
                let info = stream.info.clone();
                me.stream = Some(*stream);
                let result = PublishResult { sdp_answer: answer, id: info.id.clone(), created_at: info.created_at };
                self.answer(&c.rpc_id, c.id, &result);
                match previous {
                    Some(leg) => self.close_legs([leg]),
                    None => {
                        let event = ParticipantPublished { id: c.connection_id.clone(), streams: vec![info] };
                        self.broadcast(
                            &c.session_id,
                            Some(&c.connection_id),
                            &Notification::ParticipantPublished(event),
                        );
                    }
                }
            }
            (Pending::Subscribe { stream_id, leg, previous }, MediaDone::Answer(answer)) => {
                if session.publisher(&stream_id).is_none() {
                    return Err(gone());
                }
                let me = session.participants.get_mut(&c.connection_id).ok_or_else(gone)?;
                let old =
                    me.subscriptions.insert(stream_id, Subscription { created_at: now.unix_ms, leg, prepared: None });
                let result = ReceiveResult { sdp_answer: Some(answer) };
                self.answer(&c.rpc_id, c.id, &result);
                self.draw_as_told(c, leg);
                let mut replaced: Vec<LegId> =
                    old.into_iter().flat_map(|s| [Some(s.leg), s.prepared]).flatten().chain(previous).collect();
                replaced.sort();
                replaced.dedup();
                self.close_legs(replaced);
            }
            (Pending::Prepare { stream_id, leg }, MediaDone::Offer(offer)) => {
                if session.publisher(&stream_id).is_none() {
                    return Err(gone());
                }
                let me = session.participants.get_mut(&c.connection_id).ok_or_else(gone)?;
                me.subscriptions.insert(stream_id, Subscription { created_at: now.unix_ms, leg, prepared: Some(leg) });
                self.answer(&c.rpc_id, c.id, &PrepareResult { sdp_offer: offer });
                self.draw_as_told(c, leg);
                if let Some(sender) = self.legs.get(&leg).map(|l| l.sender.clone()) {
                    self.flush_early(c, &sender, leg);
                }
            }
            (Pending::Answer { stream_id, leg }, MediaDone::Done) => {
                let me = session.participants.get_mut(&c.connection_id).ok_or_else(gone)?;
                let s = me.subscriptions.get_mut(&stream_id).filter(|s| s.leg == leg).ok_or_else(gone)?;
                s.prepared = None;
                self.answer_empty(&c.rpc_id, c.id);
            }
            _ => return Err(odd()),
        }
        Ok(())
    }

    /// Every stream is gone, everything else is as it was.
    pub(super) fn media_restarted(&mut self) {
        self.legs.clear();
        let mut published = Vec::new();
        for session in self.state.sessions.values_mut() {
            for p in session.participants.values_mut() {
                p.subscriptions.clear();
                if p.stream.take().is_some() {
                    published.push((session.id.clone(), p.id().to_owned()));
                }
            }
        }
        for (session_id, connection_id) in published {
            self.broadcast(&session_id, None, &unpublished(&connection_id, "mediaServerReconnect"));
        }
    }
}

fn refusal(error: &MediaError) -> Refusal {
    let code = match error {
        MediaError::BadSdp(_) => ErrorCode::MediaSdp,
        MediaError::NoCodec(_) => ErrorCode::ForcedCodecNotFoundInSdpOffer,
        MediaError::NoSuchStream => ErrorCode::UserNotStreaming,
        MediaError::Full => ErrorCode::RoomCannotBeCreated,
        MediaError::Failed(_) => ErrorCode::MediaEndpoint,
    };
    (code, error.to_string())
}

fn spec(session_id: &str, connection_id: &str, stream: &Stream, codec: Option<super::VideoCodecName>) -> StreamSpec {
    StreamSpec {
        session_id: session_id.to_owned(),
        stream_id: stream.info.id.clone(),
        connection_id: connection_id.to_owned(),
        has_audio: stream.info.has_audio,
        has_video: stream.info.has_video,
        loopback: stream.loopback,
        codec,
        size: stream
            .info
            .video_dimensions
            .as_deref()
            .and_then(VideoDimensions::parse)
            .map(|size| (size.width, size.height))
            .filter(|(width, height)| *width > 0 && *height > 0),
    }
}
