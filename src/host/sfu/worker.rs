//! The media thread: commands, datagrams, timers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::Rng;
use tokio::sync::mpsc;

use crate::rtp::sdp::{CandidateLine, Direction, MediaKind, Summary, force_video_codec};

use super::answer::{LocalTransport, Plan, VideoChoice, Wanted, remote};
use super::demux::{BINDING_REQUEST, Demux, LegKey, stun_head};
use super::egress::{Loss, Receiver, Wire};
use super::outbound::TrackOut;
use super::packet::{Kind, RtpView, classify};
use super::publication::{Fed, Publication, TrackKind};
use super::rtcp::{self, Item, Writer};
use super::transport::{Identity, Transport, TransportEvent};
use super::{
    Command, LegId, LegStats, Negotiated, PublishSpec, SfuConfig, SfuError, SfuEvent, SfuStats,
};

/// Reads in one turn before timers and commands get their chance.
const READS_PER_TURN: usize = 16;
/// Timers are not looked at more often than this.
const TICK_US: u64 = 5_000;
/// Pause between sender reports of a leg.
const SENDER_REPORT_US: u64 = 1_000_000;
/// Requested packets looked up per RTCP packet.
const NACKS_PER_PACKET: usize = 256;

/// Index of a leg whose publication has ended.
const NO_STREAM: usize = usize::MAX;

/// What [`super::start`] learns from the thread.
pub(super) struct Started {
    pub(super) udp_addr: SocketAddr,
    pub(super) fingerprint: String,
    pub(super) candidates: Vec<SocketAddr>,
}

/// One transport and what runs over it.
struct Leg {
    id: LegId,
    ufrag: String,
    pwd: String,
    session_id: u64,
    transport: Transport,
    /// Key of the publication it carries.
    stream: usize,
    publishes: bool,
    audio: Option<TrackOut>,
    video: Option<TrackOut>,
    /// Our offer, until it is answered.
    offered: Option<Plan>,
    created: Instant,
    candidates: usize,
    loss: Option<Loss>,
    queue: Vec<BytesMut>,
    report_us: u64,
    next_us: u64,
}

impl Leg {
    fn sends(&self) -> bool {
        self.audio.is_some() || self.video.is_some()
    }
}

struct Worker {
    wire: Wire,
    identity: Identity,
    config: SfuConfig,
    locals: Vec<SocketAddr>,
    events: mpsc::Sender<SfuEvent>,
    legs: Vec<Option<Leg>>,
    free: Vec<LegKey>,
    by_id: HashMap<LegId, LegKey>,
    demux: Demux,
    streams: Vec<Option<Publication>>,
    by_stream: HashMap<String, usize>,
    loss: Option<Loss>,
    origin: Instant,
    next_us: u64,
    stats: SfuStats,
    writer: Writer,
    /// Legs with something queued, once each.
    dirty: Vec<LegKey>,
    /// Legs whose transport reported something.
    noisy: Vec<LegKey>,
    stopping: bool,
}

/// Binds the socket and starts the thread.
pub(super) fn spawn(
    config: SfuConfig,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<SfuEvent>,
) -> Result<Started, SfuError> {
    let identity = Identity::generate(config.aes_cm_only)?;
    let socket = std::net::UdpSocket::bind(config.udp)?;
    socket.set_nonblocking(true)?;
    let udp_addr = socket.local_addr()?;
    let locals = advertised(&config, udp_addr);
    let started = Started {
        udp_addr,
        fingerprint: identity.fingerprint.clone(),
        candidates: locals.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let wire = {
        let _guard = runtime.enter();
        Wire::new(tokio::net::UdpSocket::from_std(socket)?)?
    };
    let worker = Worker {
        wire,
        identity,
        loss: config.impairment.map(Loss::new),
        config,
        locals,
        events,
        legs: Vec::new(),
        free: Vec::new(),
        by_id: HashMap::new(),
        demux: Demux::default(),
        streams: Vec::new(),
        by_stream: HashMap::new(),
        origin: Instant::now(),
        next_us: 0,
        stats: SfuStats::default(),
        writer: Writer::default(),
        dirty: Vec::new(),
        noisy: Vec::new(),
        stopping: false,
    };
    std::thread::Builder::new()
        .name("sfu".to_owned())
        .spawn(move || runtime.block_on(worker.run(commands)))?;
    Ok(started)
}

/// The addresses to advertise: as told, else the bound one, else every usable interface.
fn advertised(config: &SfuConfig, bound: SocketAddr) -> Vec<SocketAddr> {
    let with_port = |ip: IpAddr| SocketAddr::new(ip, bound.port());
    if !config.advertised.is_empty() {
        return config.advertised.iter().copied().map(with_port).collect();
    }
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<SocketAddr> = interfaces
        .iter()
        .filter(|interface| !interface.is_loopback() && !interface.is_link_local())
        .map(if_addrs::Interface::ip)
        .filter(|ip| bound.is_ipv6() || ip.is_ipv4())
        .map(with_port)
        .collect();
    if found.is_empty() {
        found.push(with_port(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
    found
}

pub(super) fn random_text(length: usize) -> String {
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(random.sample(rand::distr::Alphanumeric)))
        .collect()
}

fn random_ssrc() -> u32 {
    rand::rng().random_range(1..u32::MAX)
}

impl Worker {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut buffers = Receiver::new();
        while !self.stopping {
            let now_us = self.now_us();
            let wait = Duration::from_micros(self.next_us.saturating_sub(now_us).min(1_000_000));
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    // The last handle is gone.
                    None => self.stopping = true,
                },
                ready = self.wire.readable() => if ready.is_ok() {
                    self.read(&mut buffers);
                },
                () = tokio::time::sleep(wait) => {}
            }
            self.tick();
        }
        let keys: Vec<LegKey> = self.by_id.values().copied().collect();
        for key in keys {
            self.close_leg(key, true);
        }
    }

    fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    fn emit(&mut self, event: SfuEvent) {
        if self.events.try_send(event).is_err() {
            self.stats.events_dropped += 1;
        }
    }

    // ---- datagrams ----

    fn read(&mut self, buffers: &mut Receiver) {
        for _ in 0..READS_PER_TURN {
            let Ok(count) = self.wire.receive(buffers) else {
                break;
            };
            let now = Instant::now();
            let now_us = now.saturating_duration_since(self.origin).as_micros() as u64;
            buffers.each(count, |from, local, data| {
                self.guarded(from, local, data, now, now_us);
            });
            self.flush();
            if count < quinn_udp::BATCH_SIZE {
                break;
            }
        }
    }

    /// A panic in a parser of somebody else's must cost its sender the leg, not everybody the call.
    fn guarded(
        &mut self,
        from: SocketAddr,
        local: Option<IpAddr>,
        data: &[u8],
        now: Instant,
        now_us: u64,
    ) {
        let work = std::panic::AssertUnwindSafe(|| self.datagram(from, local, data, now, now_us));
        if std::panic::catch_unwind(work).is_err() {
            self.stats.rejected += 1;
            let key = self.demux.bound_to(from).or_else(|| self.demux.by_username(data));
            let id = key.and_then(|key| self.legs.get(key)?.as_ref()).map(|leg| leg.id);
            if let (Some(key), Some(leg)) = (key, id) {
                tracing::error!(leg = leg.0, "a datagram could not be processed, the leg is closed");
                self.close_leg(key, false);
                let reason = "a datagram could not be processed".to_owned();
                self.emit(SfuEvent::LegFailed { leg, reason });
            }
        }
    }

    fn datagram(
        &mut self,
        from: SocketAddr,
        local: Option<IpAddr>,
        data: &[u8],
        now: Instant,
        now_us: u64,
    ) {
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += data.len() as u64;
        let bound = self.demux.bound_to(from);
        let kind = classify(data);
        if kind == Some(Kind::Stun) {
            let request = stun_head(data).is_some_and(|(kind, _)| kind == BINDING_REQUEST);
            // A check names its leg; the address alone may have passed to another behind the same NAT.
            let key = if request {
                self.demux.by_username(data)
            } else {
                bound
            };
            match key {
                Some(key) => self.stun(key, from, local, data, now),
                None => self.stats.unknown_source += 1,
            }
            return;
        }
        let (Some(key), Some(kind)) = (bound, kind) else {
            self.stats.unknown_source += 1;
            return;
        };
        if self.lost(key, true) {
            return;
        }
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        match kind {
            Kind::Dtls => {
                if !leg.transport.dtls(data, from, now) {
                    self.stats.rejected += 1;
                }
                self.noisy.push(key);
            }
            Kind::Rtp => match leg.transport.decrypt_rtp(data, from, now) {
                Some(plain) => self.media(key, &plain, now_us),
                None => self.stats.rejected += 1,
            },
            Kind::Rtcp => match leg.transport.decrypt_rtcp(data, from, now) {
                Some(plain) => self.control(key, &plain, now_us),
                None => self.stats.rejected += 1,
            },
            Kind::Stun => {}
        }
    }

    /// Draws artificial loss.
    fn lost(&mut self, key: LegKey, inbound: bool) -> bool {
        let draw = |loss: &mut Option<Loss>| {
            loss.as_mut().is_some_and(|loss| {
                if inbound {
                    loss.inbound()
                } else {
                    loss.outbound()
                }
            })
        };
        let lost = draw(&mut self.loss)
            || self
                .legs
                .get_mut(key)
                .and_then(Option::as_mut)
                .is_some_and(|leg| draw(&mut leg.loss));
        self.stats.impaired += u64::from(lost);
        lost
    }

    fn stun(
        &mut self,
        key: LegKey,
        from: SocketAddr,
        local: Option<IpAddr>,
        data: &[u8],
        now: Instant,
    ) {
        if self.lost(key, true) {
            return;
        }
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let outcome = leg.transport.stun(data, from, local, now);
        if outcome.answered {
            self.demux.bind(from, key);
        } else {
            let request = stun_head(data).is_some_and(|(kind, _)| kind == BINDING_REQUEST);
            self.stats.rejected += u64::from(request);
        }
        if outcome.moved {
            self.stats.rebinds += 1;
            tracing::info!(leg = leg.id.0, "the peer's address changed");
        }
        self.noisy.push(key);
    }

    fn media(&mut self, key: LegKey, plain: &[u8], now_us: u64) {
        let Some(leg) = self.legs.get(key).and_then(Option::as_ref) else {
            return;
        };
        let (publishes, stream, id) = (leg.publishes, leg.stream, leg.id);
        let (Some(view), true) = (RtpView::parse(plain), publishes) else {
            self.stats.rejected += 1;
            return;
        };
        self.stats.rtp_in += 1;
        let abs = abs_send_time(now_us);
        let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) else {
            return;
        };
        let fed = publication.feed(&view, now_us, abs);
        let next = publication.next_us();
        let first = fed.is_some() && !publication.announced;
        if first {
            publication.announced = true;
            let stream_id = publication.stream_id.clone();
            self.emit(SfuEvent::StreamStarted { stream_id, leg: id });
        }
        self.next_us = self.next_us.min(next);
        if let Some(fed) = fed {
            self.forward(stream, fed, now_us);
        }
    }

    /// One packet to every subscriber.
    fn forward(&mut self, stream: usize, fed: Fed, now_us: u64) {
        let Some(publication) = self.streams.get(stream).and_then(Option::as_ref) else {
            return;
        };
        let Some(stored) = publication
            .track(fed.kind)
            .and_then(|track| track.cache.get(fed.number))
        else {
            return;
        };
        for &key in &publication.subscribers {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            let track = match fed.kind {
                TrackKind::Audio => leg.audio.as_mut(),
                TrackKind::Video => leg.video.as_mut(),
            };
            let (Some(track), true) = (track, leg.transport.connected()) else {
                continue;
            };
            let Some(context) = leg.transport.srtp_out() else {
                continue;
            };
            if let Some(data) = track.forward(stored, context, now_us) {
                self.stats.rtp_forwarded += 1;
                if leg.queue.is_empty() {
                    self.dirty.push(key);
                }
                leg.queue.push(data);
            }
        }
    }

    fn control(&mut self, key: LegKey, plain: &[u8], now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let Some(publication) = self.streams.get_mut(leg.stream).and_then(Option::as_mut) else {
            return;
        };
        let stats = &mut self.stats;
        let dirty = &mut self.dirty;
        rtcp::parse(plain, |item| match item {
            Item::SenderReport { ssrc, ntp, rtp } if leg.publishes => {
                publication.sender_report(ssrc, ntp, rtp, now_us);
            }
            Item::Report(block) => {
                let track = [&mut leg.audio, &mut leg.video]
                    .into_iter()
                    .flatten()
                    .find(|track| track.plan.ssrc == block.ssrc);
                if let Some(track) = track {
                    report(track, &block, now_us);
                }
            }
            Item::Nack { media_ssrc, pairs } => {
                for (kind, track) in [
                    (TrackKind::Audio, &mut leg.audio),
                    (TrackKind::Video, &mut leg.video),
                ] {
                    let (Some(track), Some(source)) = (
                        track.as_mut().filter(|track| track.plan.ssrc == media_ssrc),
                        publication.track(kind),
                    ) else {
                        continue;
                    };
                    let missed = track.missed;
                    for number in rtcp::nack_numbers(pairs, NACKS_PER_PACKET) {
                        let highest = publication.highest(kind);
                        let Some(context) = leg.transport.srtp_out() else {
                            break;
                        };
                        if let Some(data) =
                            track.repair(number, highest, &source.cache, context, now_us)
                        {
                            stats.nacks_answered += 1;
                            if leg.queue.is_empty() {
                                dirty.push(key);
                            }
                            leg.queue.push(data);
                        }
                    }
                    stats.nacks_missed += track.missed - missed;
                }
            }
            Item::KeyFrameRequest { media_ssrc } => {
                if leg.video.as_ref().is_some_and(|track| track.plan.ssrc == media_ssrc) {
                    stats.plis_received += 1;
                    publication.want_key_frame();
                }
            }
            Item::Remb { bitrate_bps } if leg.video.is_some() && !leg.publishes => {
                publication.estimate(key, bitrate_bps, now_us);
            }
            _ => {}
        });
        let next = publication.next_us();
        self.next_us = self.next_us.min(next);
    }

    /// Sends what is queued, legs in the order they got something.
    fn flush(&mut self) {
        let mut noisy = std::mem::take(&mut self.noisy);
        noisy.sort_unstable();
        noisy.dedup();
        for key in noisy.drain(..) {
            self.pump(key);
        }
        self.noisy = noisy;
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let impaired = self.loss.is_some();
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            let Some((to, from)) = leg.transport.path() else {
                leg.queue.clear();
                continue;
            };
            if impaired || leg.loss.is_some() {
                let mut queue = std::mem::take(&mut leg.queue);
                queue.retain(|_| !self.lost(key, false));
                if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
                    leg.queue = queue;
                }
            }
            if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
                self.wire.send_all(to, from, &mut leg.queue);
            }
        }
        self.dirty = dirty;
    }

    /// Sends what a transport wrote, carries out what it reported.
    fn pump(&mut self, key: LegKey) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let outgoing: Vec<_> = leg.transport.take_outgoing().collect();
        let events = leg.transport.take_events();
        leg.next_us = match leg.transport.poll_timeout() {
            Some(at) => at.saturating_duration_since(self.origin).as_micros() as u64,
            None => u64::MAX,
        };
        self.next_us = self.next_us.min(leg.next_us);
        let (id, created) = (leg.id, leg.created);
        for datagram in outgoing {
            if !self.lost(key, false) {
                self.wire.send(datagram.to, datagram.from_ip, &datagram.data);
            }
        }
        for event in events {
            match event {
                TransportEvent::Connected => {
                    let after_ms = created.elapsed().as_millis() as u64;
                    tracing::debug!(leg = id.0, after_ms, "media leg connected");
                    self.leg_connected(key);
                    self.emit(SfuEvent::LegConnected { leg: id, after_ms });
                }
                TransportEvent::Disconnected => self.emit(SfuEvent::LegDisconnected { leg: id }),
                TransportEvent::Reconnected => self.emit(SfuEvent::LegReconnected { leg: id }),
                TransportEvent::Failed(reason) => {
                    tracing::info!(leg = id.0, reason, "media leg failed");
                    self.close_leg(key, false);
                    let reason = reason.to_owned();
                    self.emit(SfuEvent::LegFailed { leg: id, reason });
                }
                TransportEvent::Closed => {
                    self.close_leg(key, false);
                    self.emit(SfuEvent::LegClosed { leg: id });
                }
            }
        }
    }

    fn leg_connected(&mut self, key: LegKey) {
        let Some(leg) = self.legs.get(key).and_then(Option::as_ref) else {
            return;
        };
        // A new viewer starts at a key frame, whenever the publisher's next one would have been.
        if leg.video.is_some() {
            if let Some(publication) = self.streams.get_mut(leg.stream).and_then(Option::as_mut) {
                publication.want_key_frame();
                self.next_us = 0;
            }
        }
    }

    // ---- timers ----

    fn tick(&mut self) {
        let now = Instant::now();
        let now_us = now.saturating_duration_since(self.origin).as_micros() as u64;
        if now_us < self.next_us {
            self.flush();
            return;
        }
        let mut next = now_us + 1_000_000;
        for key in 0..self.legs.len() {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            if leg.next_us <= now_us {
                leg.transport.timeout(now);
                self.noisy.push(key);
            }
            if leg.sends() && leg.transport.connected() && leg.report_us <= now_us {
                leg.report_us = now_us + SENDER_REPORT_US;
                self.sender_reports(key, now_us);
                self.noisy.push(key);
            }
        }
        for stream in 0..self.streams.len() {
            let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) else {
                continue;
            };
            if publication.next_us() <= now_us {
                self.writer.clear();
                let (asked, requests) = publication.tick(now_us, &mut self.writer);
                self.stats.nacks_sent += asked;
                self.stats.plis_sent += requests;
                if let Some(key) = publication.publisher {
                    if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
                        if !self.writer.bytes().is_empty() {
                            leg.transport.send_rtcp(self.writer.bytes());
                            self.noisy.push(key);
                        }
                    }
                }
            }
            next = next.min(publication.next_us());
        }
        // `flush` lowers it again for every leg it pumps.
        self.next_us = u64::MAX;
        self.flush();
        for leg in self.legs.iter().flatten() {
            next = next.min(leg.next_us);
            if leg.sends() && leg.transport.connected() {
                next = next.min(leg.report_us);
            }
        }
        self.next_us = self.next_us.min(next).max(now_us + TICK_US);
    }

    /// Sender reports: the publisher's clock, carried on to now, in this leg's timestamps.
    fn sender_reports(&mut self, key: LegKey, now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let Some(publication) = self.streams.get(leg.stream).and_then(Option::as_ref) else {
            return;
        };
        let cname = &publication.stream_id;
        for (kind, track) in [
            (TrackKind::Audio, &mut leg.audio),
            (TrackKind::Video, &mut leg.video),
        ] {
            let (Some(track), Some(source)) = (track.as_mut(), publication.track(kind)) else {
                continue;
            };
            let Some(clock) = source.last_sr.filter(|_| track.started()) else {
                continue;
            };
            let elapsed = now_us.saturating_sub(clock.at_us);
            let fraction = (u128::from(elapsed) << 32) / 1_000_000;
            let ntp = clock.ntp.wrapping_add(fraction as u64);
            let ticks = elapsed * u64::from(track.plan.codec.clock_hz()) / 1_000_000;
            let rtp = track.timestamp(clock.rtp.wrapping_add(ticks as u32));
            track.sr_sent = Some(((ntp >> 16) as u32, now_us));
            self.writer.clear();
            self.writer.sender_report(
                track.plan.ssrc,
                ntp,
                rtp,
                track.packets as u32,
                track.octets as u32,
            );
            self.writer.canonical_name(track.plan.ssrc, cname);
            leg.transport.send_rtcp(self.writer.bytes());
        }
    }

    // ---- commands ----

    fn command(&mut self, command: Command) {
        // A caller that gave up does not read its answer; that is no error here.
        match command {
            Command::Publish { leg, spec, offer, reply } => {
                let _ = reply.send(self.publish(leg, spec, &offer));
            }
            Command::ReconnectPublisher { leg, stream_id, offer, reply } => {
                let _ = reply.send(self.reconnect(leg, &stream_id, &offer));
            }
            Command::Subscribe { leg, stream_id, offer, reply } => {
                let _ = reply.send(self.subscribe(leg, &stream_id, &offer));
            }
            Command::PrepareSubscribe { leg, stream_id, reply } => {
                let _ = reply.send(self.prepare(leg, &stream_id));
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
        self.by_id
            .get(&id)
            .and_then(|key| self.legs.get_mut(*key)?.as_mut())
            .ok_or(SfuError::UnknownLeg(id))
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
    fn new_leg(
        &mut self,
        id: LegId,
        stream: usize,
        publishes: bool,
        controlling: bool,
    ) -> Result<Leg, SfuError> {
        let now = Instant::now();
        // 8 and 24 of 62 characters: 47 and 142 bits, above what RFC 8445 §5.3 asks for.
        let (ufrag, pwd) = (random_text(8), random_text(24));
        let transport =
            Transport::new(&self.identity, &self.locals, &ufrag, &pwd, controlling, now)?;
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
            report_us: 0,
            next_us: 0,
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
        Ok(if remote.we_are_client {
            "active"
        } else {
            "passive"
        })
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
        let plain = format!(
            "{} 1 udp {} {} {} typ host",
            line.foundation, line.priority, line.address, line.port
        );
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
                force_video_codec(offer, codec.name())
                    .map_err(|_| SfuError::NoCommonCodec { wanted: codec.name() })?,
            ),
            None => None,
        };
        let summary = Summary::parse(forced.as_deref().unwrap_or(offer));
        let wanted = Wanted {
            audio: spec.audio,
            video: spec.video.then_some(VideoChoice::Offered(spec.forced_video)),
        };
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
        let mut publication =
            Publication::new(spec.stream_id.clone(), spec.session, &mut random_ssrc);
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
        let wanted = Wanted {
            audio: publication.audio.is_some(),
            video: codec.map(VideoChoice::Exactly),
        };
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
        let publication = self
            .streams
            .get(stream)
            .and_then(Option::as_ref)
            .ok_or(SfuError::UnknownStream)?;
        Ok((stream, publication))
    }

    fn subscribe(&mut self, id: LegId, stream_id: &str, offer: &str) -> Result<Negotiated, SfuError> {
        self.check_new(id, offer)?;
        let (stream, publication) = self.stream(stream_id)?;
        if publication.subscribers.len() >= self.config.limits.subscribers_per_stream {
            return Err(SfuError::Limit("subscribers of a stream"));
        }
        let wanted = Wanted {
            audio: publication.audio.is_some(),
            video: publication.video_codec().map(VideoChoice::Exactly),
        };
        let summary = Summary::parse(offer);
        let plan = Plan::answer(&summary, &wanted, false, true, &mut random_ssrc)?;
        let mut leg = self.new_leg(id, stream, false, false)?;
        let setup = self.connect(&mut leg, &summary, false)?;
        let negotiated = self.describe(&leg, &plan, setup, stream_id);
        attach_senders(&mut leg, &plan);
        self.join(leg, stream);
        Ok(negotiated)
    }

    fn join(&mut self, leg: Leg, stream: usize) {
        let key = self.insert(leg);
        if let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) {
            publication.subscribers.push(key);
        }
    }

    fn prepare(&mut self, id: LegId, stream_id: &str) -> Result<Negotiated, SfuError> {
        self.check_new(id, "")?;
        let (stream, publication) = self.stream(stream_id)?;
        if publication.subscribers.len() >= self.config.limits.subscribers_per_stream {
            return Err(SfuError::Limit("subscribers of a stream"));
        }
        let plan = Plan::offer(
            publication.audio.is_some(),
            publication.video_codec(),
            &mut random_ssrc,
        );
        let mut leg = self.new_leg(id, stream, false, true)?;
        let negotiated = self.describe(&leg, &plan, "actpass", stream_id);
        leg.offered = Some(plan);
        self.join(leg, stream);
        Ok(negotiated)
    }

    fn set_answer(&mut self, id: LegId, answer: &str) -> Result<(), SfuError> {
        if answer.len() > self.config.limits.sdp_bytes {
            return Err(SfuError::Limit("SDP size"));
        }
        let key = *self.by_id.get(&id).ok_or(SfuError::UnknownLeg(id))?;
        let mut leg = self
            .legs
            .get_mut(key)
            .and_then(Option::take)
            .ok_or(SfuError::UnknownLeg(id))?;
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
        let mut leg = self
            .legs
            .get_mut(key)
            .and_then(Option::take)
            .ok_or(SfuError::UnknownLeg(id))?;
        let result = self.candidate(&mut leg, candidate);
        if let Some(slot) = self.legs.get_mut(key) {
            *slot = Some(leg);
        }
        self.noisy.push(key);
        self.next_us = 0;
        result
    }

    fn close_leg(&mut self, key: LegKey, polite: bool) {
        let Some(mut leg) = self.legs.get_mut(key).and_then(Option::take) else {
            return;
        };
        self.by_id.remove(&leg.id);
        self.demux.remove(&leg.ufrag, key);
        self.free.push(key);
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
                slot.as_ref().is_some_and(|publication| {
                    publication.publisher.is_none() && publication.publisher_id == id
                })
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
        stats.bytes_out = self.wire.bytes_out;
        stats.send_calls = self.wire.send_calls;
        stats.send_failed = self.wire.send_failed;
        for leg in self.legs.iter().flatten() {
            let publication = self.streams.get(leg.stream).and_then(Option::as_ref);
            let tracks = || [&leg.audio, &leg.video].into_iter().flatten();
            let streamed = publication.map(Publication::stats);
            let (packets, bytes) = match &streamed {
                Some(stream) if leg.publishes => (stream.packets_in, stream.bytes_in),
                _ => tracks().fold((0, 0), |(packets, bytes), track| {
                    (packets + track.packets, bytes + track.octets)
                }),
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
    let mut make = |plan: &super::answer::TrackPlan| {
        TrackOut::new(plan.clone(), 0, random.random::<u32>())
    };
    leg.audio = plan.audio().map(&mut make);
    leg.video = plan.video().map(|(plan, _)| make(plan));
}

/// Takes a subscriber's reception report.
fn report(track: &mut TrackOut, block: &rtcp::ReportBlock, now_us: u64) {
    track.fraction_lost = block.fraction_lost;
    let Some((middle, sent_us)) = track.sr_sent else {
        return;
    };
    if block.last_sr != middle {
        return;
    }
    let held = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
    let rtt = now_us.saturating_sub(sent_us).saturating_sub(held) as f64;
    track.rtt_us = Some(track.rtt_us.map_or(rtt, |old| old + (rtt - old) / 8.0));
}

/// 24 bits of seconds in 6.18 fixed point.
fn abs_send_time(now_us: u64) -> u32 {
    ((u128::from(now_us) << 18) / 1_000_000) as u32 & 0x00ff_ffff
}
