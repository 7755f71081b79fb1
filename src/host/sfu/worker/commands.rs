//! Commands: legs are negotiated, started, replaced and closed here.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::Rng;

use crate::rtp::sdp::{CandidateLine, Direction, MediaKind, Summary, force_video_codec};

use super::super::answer::{LocalTransport, Plan, TrackPlan, VideoChoice, Wanted, remote};
use super::super::demux::LegKey;
use super::super::egress::Loss;
use super::super::outbound::TrackOut;
use super::super::publication::Publication;
use super::super::transport::Transport;
use super::super::{Command, LegId, LegStats, Negotiated, PublishSpec, SfuError, SfuStats};
use super::forward::Held;
use super::layers::Viewing;
use super::{Leg, NO_STREAM, Worker, advertised, random_ssrc, random_text};

/// How long the addresses of this computer are taken for the ones of now.
const ADDRESSES_LAST: Duration = Duration::from_secs(5);

impl Worker {
    pub(super) fn command(&mut self, command: Command) {
        // A caller that gave up does not read its answer; that is no error here.
        match command {
            Command::Publish { leg, spec, offer, reply } => {
                let _ = reply.send(self.publish(leg, spec, &offer));
            }
            Command::ReconnectPublisher { leg, stream_id, offer, reply } => {
                let _ = reply.send(self.reconnect(leg, &stream_id, &offer));
            }
            Command::Subscribe { leg, stream_id, receiver, offer, reply } => {
                let _ = reply.send(self.subscribe(leg, &stream_id, receiver.as_deref(), &offer));
            }
            Command::PrepareSubscribe { leg, stream_id, receiver, reply } => {
                let _ = reply.send(self.prepare(leg, &stream_id, receiver.as_deref()));
            }
            Command::Draw { leg, size, reply } => {
                let result = self.by_id.get(&leg).copied().ok_or(SfuError::UnknownLeg(leg));
                let _ = reply.send(result.map(|key| self.draw(key, size)));
            }
            Command::SetAnswer { leg, answer, reply } => {
                let _ = reply.send(self.set_answer(leg, &answer));
            }
            Command::AddCandidate { leg, candidate, reply } => {
                let _ = reply.send(self.add_candidate(leg, &candidate));
            }
            Command::Close { leg, reply } => {
                let result = match self.by_id.get(&leg) {
                    Some(&key) => {
                        self.close_leg(key, true);
                        Ok(())
                    }
                    None => self.close_abandoned(leg),
                };
                let _ = reply.send(result);
            }
            Command::SetImpairment { leg, impairment, reply } => {
                let loss = impairment.map(Loss::new);
                let result = match leg {
                    None => {
                        self.loss = loss;
                        Ok(())
                    }
                    Some(id) => self.leg_mut(id).map(|leg| leg.loss = loss),
                };
                let _ = reply.send(result);
            }
            Command::Stats { reply } => {
                let _ = reply.send(Ok(self.statistics()));
            }
            Command::Shutdown { reply } => {
                self.stopping = true;
                let _ = reply.send(Ok(()));
            }
        }
        self.flush();
    }

    fn leg_mut(&mut self, id: LegId) -> Result<&mut Leg, SfuError> {
        self.by_id.get(&id).and_then(|key| self.legs.get_mut(*key)?.as_mut()).ok_or(SfuError::UnknownLeg(id))
    }

    fn check_new(&self, id: LegId, sdp: &str) -> Result<(), SfuError> {
        if self.by_id.contains_key(&id) {
            return Err(SfuError::Duplicate("leg"));
        }
        if self.by_id.len() >= self.config.limits.legs {
            return Err(SfuError::Limit("legs"));
        }
        if sdp.len() > self.config.limits.sdp_bytes {
            return Err(SfuError::Limit("SDP size"));
        }
        Ok(())
    }

    /// Builds a leg; `remote` is there when the client offered.
    fn new_leg(&mut self, id: LegId, stream: usize, publishes: bool, controlling: bool) -> Result<Leg, SfuError> {
        let now = Instant::now();
        // Networks come and go: whoever comes later is told the addresses of now.
        if now.saturating_duration_since(self.looked_at) > ADDRESSES_LAST {
            self.locals = advertised(&self.config, self.bound);
            self.looked_at = now;
        }
        // 8 and 24 of 62 characters: 47 and 142 bits, above what RFC 8445 §5.3 asks for.
        let (ufrag, pwd) = (random_text(8), random_text(24));
        let transport = Transport::new(&self.identity, &self.locals, &ufrag, &pwd, controlling, now)?;
        Ok(Leg {
            id,
            ufrag,
            pwd,
            session_id: u64::from(random_ssrc()),
            transport,
            stream,
            publishes,
            audio: None,
            video: None,
            offered: None,
            created: now,
            candidates: 0,
            loss: None,
            queue: Vec::new(),
            held: Held::default(),
            report_us: 0,
            next_us: 0,
            viewing: Viewing::default(),
        })
    }

    fn insert(&mut self, leg: Leg) -> LegKey {
        let key = self.free.pop().unwrap_or(self.legs.len());
        self.by_id.insert(leg.id, key);
        self.demux.add(&leg.ufrag, key);
        match self.legs.get_mut(key) {
            Some(slot) => *slot = Some(leg),
            None => self.legs.push(Some(leg)),
        }
        self.noisy.push(key);
        self.next_us = 0;
        key
    }

    fn describe(&self, leg: &Leg, plan: &Plan, setup: &'static str, stream_id: &str) -> Negotiated {
        let sdp = plan.to_sdp(&LocalTransport {
            ufrag: &leg.ufrag,
            pwd: &leg.pwd,
            fingerprint: &self.identity.fingerprint,
            setup,
            candidates: &self.locals,
            session_id: leg.session_id,
            stream: stream_id,
        });
        Negotiated {
            sdp,
            candidates: plan.trickle(&self.locals),
            audio: plan.audio().is_some(),
            video: plan.video().map(|(_, codec)| codec),
        }
    }

    /// Starts the transport with what the client's description says.
    fn connect(&self, leg: &mut Leg, summary: &Summary, ours: bool) -> Result<&'static str, SfuError> {
        let (remote, candidates) = remote(summary, ours)?;
        leg.created = Instant::now();
        leg.transport.start(&remote, leg.created)?;
        for candidate in candidates {
            self.candidate(leg, &candidate)?;
        }
        Ok(if remote.we_are_client { "active" } else { "passive" })
    }

    fn candidate(&self, leg: &mut Leg, text: &str) -> Result<(), SfuError> {
        let text = text.trim();
        let text = text.strip_prefix("a=").unwrap_or(text);
        let text = text.strip_prefix("candidate:").unwrap_or(text);
        if text.is_empty() || text == "end-of-candidates" {
            return Ok(());
        }
        let line = CandidateLine::parse(text).ok_or(SfuError::InvalidCandidate)?;
        // Names need mDNS, which a peer-reflexive candidate makes up for.
        let usable = line.component == 1
            && line.transport.eq_ignore_ascii_case("udp")
            && line.port != 0
            && line.address.parse::<IpAddr>().is_ok_and(|ip| !ip.is_unspecified() && !ip.is_multicast());
        if !usable || leg.candidates >= self.config.limits.candidates_per_leg {
            return Ok(());
        }
        leg.candidates += 1;
        // Everything behind the type (generation, ufrag, network cost, related address) says nothing here; the
        // crate's parser wants eight fields and no surprise after them.
        let plain = format!("{} 1 udp {} {} {} typ host", line.foundation, line.priority, line.address, line.port);
        leg.transport.add_candidate(&plain, Instant::now())
    }

    fn publish(&mut self, id: LegId, spec: PublishSpec, offer: &str) -> Result<Negotiated, SfuError> {
        self.check_new(id, offer)?;
        if self.by_stream.contains_key(&spec.stream_id) {
            return Err(SfuError::Duplicate("stream id"));
        }
        if self.by_stream.len() >= self.config.limits.streams {
            return Err(SfuError::Limit("streams"));
        }
        let forced = match spec.forced_video.filter(|_| spec.video) {
            Some(codec) => Some(
                force_video_codec(offer, codec.name()).map_err(|_| SfuError::NoCommonCodec { wanted: codec.name() })?,
            ),
            None => None,
        };
        let summary = Summary::parse(forced.as_deref().unwrap_or(offer));
        let wanted = Wanted { audio: spec.audio, video: spec.video.then_some(VideoChoice::Offered(spec.forced_video)) };
        // Sending back needs an offer that is ready to receive.
        let loopback = spec.loopback && all_send_and_receive(&summary);
        let plan = Plan::answer(&summary, &wanted, true, loopback, &mut random_ssrc)?;
        let stream = self.streams.iter().position(Option::is_none).unwrap_or(self.streams.len());
        let mut leg = self.new_leg(id, stream, true, false)?;
        let setup = self.connect(&mut leg, &summary, false)?;
        let negotiated = self.describe(&leg, &plan, setup, &spec.stream_id);
        if loopback {
            attach_senders(&mut leg, &plan);
        }
        let key = self.insert(leg);
        let mut publication = Publication::new(spec.stream_id.clone(), spec.session, &mut random_ssrc);
        publication.size = spec.size.unwrap_or(publication.size);
        publication.attach(key, id, &plan, &mut random_ssrc);
        if loopback {
            publication.subscribers.push(key);
        }
        self.by_stream.insert(spec.stream_id, stream);
        match self.streams.get_mut(stream) {
            Some(slot) => *slot = Some(publication),
            None => self.streams.push(Some(publication)),
        }
        Ok(negotiated)
    }

    fn reconnect(&mut self, id: LegId, stream_id: &str, offer: &str) -> Result<Negotiated, SfuError> {
        self.check_new(id, offer)?;
        let (stream, publication) = self.stream(stream_id)?;
        let codec = publication.video_codec();
        let old = publication.publisher;
        let looped = old.is_some_and(|key| publication.subscribers.contains(&key));
        // Subscribers have negotiated the old codec; the new transport must bring the same.
        let wanted = Wanted { audio: publication.audio.is_some(), video: codec.map(VideoChoice::Exactly) };
        let summary = Summary::parse(offer);
        let loopback = looped && all_send_and_receive(&summary);
        let plan = Plan::answer(&summary, &wanted, true, loopback, &mut random_ssrc)?;
        let mut leg = self.new_leg(id, stream, true, false)?;
        let setup = self.connect(&mut leg, &summary, false)?;
        let negotiated = self.describe(&leg, &plan, setup, stream_id);
        if loopback {
            attach_senders(&mut leg, &plan);
        }
        // Detached first, so that closing the old leg does not end the publication.
        if let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) {
            publication.publisher = None;
        }
        if let Some(old) = old {
            self.close_leg(old, true);
        }
        let key = self.insert(leg);
        if let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) {
            publication.attach(key, id, &plan, &mut random_ssrc);
            if loopback {
                publication.subscribers.push(key);
            }
        }
        Ok(negotiated)
    }

    fn stream(&self, stream_id: &str) -> Result<(usize, &Publication), SfuError> {
        let stream = *self.by_stream.get(stream_id).ok_or(SfuError::UnknownStream)?;
        let publication = self.streams.get(stream).and_then(Option::as_ref).ok_or(SfuError::UnknownStream)?;
        Ok((stream, publication))
    }

    fn subscribe(
        &mut self,
        id: LegId,
        stream_id: &str,
        receiver: Option<&str>,
        offer: &str,
    ) -> Result<Negotiated, SfuError> {
        self.check_new(id, offer)?;
        let (stream, publication) = self.stream(stream_id)?;
        if publication.subscribers.len() >= self.config.limits.subscribers_per_stream {
            return Err(SfuError::Limit("subscribers of a stream"));
        }
        let wanted =
            Wanted { audio: publication.audio.is_some(), video: publication.video_codec().map(VideoChoice::Exactly) };
        let summary = Summary::parse(offer);
        let plan = Plan::answer(&summary, &wanted, false, true, &mut random_ssrc)?;
        let mut leg = self.new_leg(id, stream, false, false)?;
        let setup = self.connect(&mut leg, &summary, false)?;
        let negotiated = self.describe(&leg, &plan, setup, stream_id);
        attach_senders(&mut leg, &plan);
        self.join(leg, stream, receiver);
        Ok(negotiated)
    }

    fn join(&mut self, leg: Leg, stream: usize, receiver: Option<&str>) {
        let key = self.insert(leg);
        self.receive_on(key, receiver);
        if let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) {
            publication.subscribers.push(key);
        }
    }

    fn prepare(&mut self, id: LegId, stream_id: &str, receiver: Option<&str>) -> Result<Negotiated, SfuError> {
        self.check_new(id, "")?;
        let (stream, publication) = self.stream(stream_id)?;
        if publication.subscribers.len() >= self.config.limits.subscribers_per_stream {
            return Err(SfuError::Limit("subscribers of a stream"));
        }
        let plan = Plan::offer(publication.audio.is_some(), publication.video_codec(), &mut random_ssrc);
        let mut leg = self.new_leg(id, stream, false, true)?;
        let negotiated = self.describe(&leg, &plan, "actpass", stream_id);
        leg.offered = Some(plan);
        self.join(leg, stream, receiver);
        Ok(negotiated)
    }

    fn set_answer(&mut self, id: LegId, answer: &str) -> Result<(), SfuError> {
        if answer.len() > self.config.limits.sdp_bytes {
            return Err(SfuError::Limit("SDP size"));
        }
        let key = *self.by_id.get(&id).ok_or(SfuError::UnknownLeg(id))?;
        let mut leg = self.legs.get_mut(key).and_then(Option::take).ok_or(SfuError::UnknownLeg(id))?;
        let result = self.take_answer(&mut leg, answer);
        if let Some(slot) = self.legs.get_mut(key) {
            *slot = Some(leg);
        }
        self.noisy.push(key);
        self.next_us = 0;
        result
    }

    fn take_answer(&self, leg: &mut Leg, answer: &str) -> Result<(), SfuError> {
        let summary = Summary::parse(answer);
        let mut plan = leg.offered.clone().ok_or(SfuError::UnexpectedAnswer)?;
        plan.answered(&summary)?;
        self.connect(leg, &summary, true)?;
        leg.offered = None;
        attach_senders(leg, &plan);
        Ok(())
    }

    fn add_candidate(&mut self, id: LegId, candidate: &str) -> Result<(), SfuError> {
        let key = *self.by_id.get(&id).ok_or(SfuError::UnknownLeg(id))?;
        let mut leg = self.legs.get_mut(key).and_then(Option::take).ok_or(SfuError::UnknownLeg(id))?;
        let result = self.candidate(&mut leg, candidate);
        if let Some(slot) = self.legs.get_mut(key) {
            *slot = Some(leg);
        }
        self.noisy.push(key);
        self.next_us = 0;
        result
    }

    pub(super) fn close_leg(&mut self, key: LegKey, polite: bool) {
        let Some(mut leg) = self.legs.get_mut(key).and_then(Option::take) else {
            return;
        };
        self.by_id.remove(&leg.id);
        self.demux.remove(&leg.ufrag, key);
        self.free.push(key);
        self.received_on(key, &leg);
        if polite {
            leg.transport.close(Instant::now());
            for datagram in leg.transport.take_outgoing() {
                self.wire.send(datagram.to, datagram.from_ip, &datagram.data);
            }
        }
        let Some(publication) = self.streams.get_mut(leg.stream).and_then(Option::as_mut) else {
            return;
        };
        publication.subscribers.retain(|other| *other != key);
        publication.forget_estimate(key);
        if publication.publisher == Some(key) {
            publication.publisher = None;
            // A failed transport may be replaced; only a close by the host ends the publication.
            if polite {
                self.end_stream(leg.stream);
            }
        }
    }

    /// The host closes a publisher whose transport had failed before: its publication ends now.
    fn close_abandoned(&mut self, id: LegId) -> Result<(), SfuError> {
        let stream = self
            .streams
            .iter()
            .position(|slot| {
                slot.as_ref()
                    .is_some_and(|publication| publication.publisher.is_none() && publication.publisher_id == id)
            })
            .ok_or(SfuError::UnknownLeg(id))?;
        self.end_stream(stream);
        Ok(())
    }

    fn end_stream(&mut self, stream: usize) {
        let Some(publication) = self.streams.get_mut(stream).and_then(Option::take) else {
            return;
        };
        self.by_stream.remove(&publication.stream_id);
        // The subscribers' index must not lead to whatever publication takes the slot next.
        for key in publication.subscribers {
            if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
                leg.stream = NO_STREAM;
            }
        }
    }

    fn statistics(&self) -> SfuStats {
        let mut stats = self.stats.clone();
        stats.datagrams_out = self.wire.datagrams_out;
        stats.impaired += self.wire.simulated_losses();
        stats.bytes_out = self.wire.bytes_out;
        stats.send_calls = self.wire.send_calls;
        stats.send_failed = self.wire.send_failed;
        for leg in self.legs.iter().flatten() {
            let publication = self.streams.get(leg.stream).and_then(Option::as_ref);
            let tracks = || [&leg.audio, &leg.video].into_iter().flatten();
            let streamed = publication.map(Publication::stats);
            let (packets, bytes) = match &streamed {
                Some(stream) if leg.publishes => (stream.packets_in, stream.bytes_in),
                _ => tracks().fold((0, 0), |(packets, bytes), track| (packets + track.packets, bytes + track.octets)),
            };
            stats.legs.push(LegStats {
                leg: leg.id,
                stream_id: streamed.map(|stream| stream.stream_id).unwrap_or_default(),
                publisher: leg.publishes,
                connected: leg.transport.connected(),
                packets,
                bytes,
                retransmitted: tracks().map(|track| track.repaired).sum(),
                rtt_ms: tracks().find_map(|track| track.rtt_us).map(|us| us / 1_000.0),
                fraction_lost: tracks().map(|track| f64::from(track.fraction_lost) / 256.0).fold(0.0, f64::max),
            });
        }
        stats.streams = self.streams.iter().flatten().map(Publication::stats).collect();
        stats
    }
}

fn all_send_and_receive(summary: &Summary) -> bool {
    summary
        .media
        .iter()
        .filter(|media| matches!(media.kind, MediaKind::Audio | MediaKind::Video))
        .all(|media| media.direction == Direction::SendRecv)
}

fn attach_senders(leg: &mut Leg, plan: &Plan) {
    let mut random = rand::rng();
    let mut make = |plan: &TrackPlan| TrackOut::new(plan.clone(), random.random::<u32>());
    leg.audio = plan.audio().map(&mut make);
    leg.video = plan.video().map(|(plan, _)| make(plan));
}
