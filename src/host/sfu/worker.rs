//! The media thread: datagrams and what is sent; commands, feedback, layers and timers are in files of their own.

mod climb;
mod commands;
mod feedback;
mod forward;
mod layers;
mod timers;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rand::Rng;
use tokio::sync::mpsc;

use self::forward::Held;
use self::layers::{Receiver as Viewer, Viewing};
use super::answer::Plan;
use super::demux::{BINDING_REQUEST, Demux, LegKey, stun_head};
use super::egress::{Loss, Receiver, Wire};
use super::outbound::TrackOut;
use super::packet::{Kind, RtpView, classify};
use super::publication::Publication;
use super::rtcp::Writer;
use super::transport::{Identity, Transport, TransportEvent};
use super::{Command, LegId, SfuConfig, SfuError, SfuEvent, SfuStats};

/// Reads in one turn (the last one finds nothing) before timers and commands get their chance.
const READS_PER_TURN: usize = 16;

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
    /// Packets of pictures that wait for their receiver's pace.
    held: Held,
    report_us: u64,
    next_us: u64,
    viewing: Viewing,
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
    bound: SocketAddr,
    /// When the addresses of this computer were looked at last.
    looked_at: Instant,
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
    receivers: Vec<Option<Viewer>>,
    /// When layers are chosen next, and when the receivers' estimators are told the time.
    choose_us: u64,
    beat_us: u64,
    /// Packets leave, and not only those that keep calls alive.
    busy: bool,
    /// Work space for feedback.
    arrivals: Vec<(u16, Option<u64>)>,
    /// Legs with something queued, once each.
    dirty: Vec<LegKey>,
    /// Legs that hold something, once each.
    holding: Vec<LegKey>,
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
    let started = Started { udp_addr, fingerprint: identity.fingerprint.clone(), candidates: locals.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let wire = {
        let _guard = runtime.enter();
        Wire::new(socket)?
    };
    let wire = match config.network {
        Some(impairments) => {
            let mut wire = wire;
            wire.simulate(impairments);
            wire
        }
        None => wire,
    };
    let worker = Worker {
        wire,
        identity,
        loss: config.impairment.map(Loss::new),
        config,
        locals,
        bound: udp_addr,
        looked_at: Instant::now(),
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
        receivers: Vec::new(),
        choose_us: 0,
        beat_us: 0,
        busy: false,
        arrivals: Vec::new(),
        dirty: Vec::new(),
        holding: Vec::new(),
        noisy: Vec::new(),
        stopping: false,
    };
    std::thread::Builder::new().name("sfu".to_owned()).spawn(move || runtime.block_on(worker.run(commands)))?;
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
    (0..length).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
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
            let wait = self.wire.quiet_for(Instant::now()).map_or(wait, |quiet| quiet.min(wait));
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
            self.simulated_arrivals();
            self.tick();
            self.wire.let_out(Instant::now());
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
                if !self.wire.delayed(from, local, data, now) {
                    self.guarded(from, local, data, now, now_us);
                }
            });
            self.flush();
        }
    }

    /// What has come over a simulated path by now.
    fn simulated_arrivals(&mut self) {
        let now = Instant::now();
        let now_us = now.saturating_duration_since(self.origin).as_micros() as u64;
        while let Some(datagram) = self.wire.arrived(now) {
            self.guarded(datagram.remote, datagram.local, &datagram.data, now, now_us);
        }
    }

    /// A panic in a parser of somebody else's must cost its sender the leg, not everybody the call.
    fn guarded(&mut self, from: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant, now_us: u64) {
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

    fn datagram(&mut self, from: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant, now_us: u64) {
        self.stats.datagrams_in += 1;
        self.stats.bytes_in += data.len() as u64;
        let bound = self.demux.bound_to(from);
        let kind = classify(data);
        if kind == Some(Kind::Stun) {
            let request = stun_head(data).is_some_and(|(kind, _)| kind == BINDING_REQUEST);
            // A check names its leg; the address alone may have passed to another behind the same NAT.
            let key = if request { self.demux.by_username(data) } else { bound };
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
            loss.as_mut().is_some_and(|loss| if inbound { loss.inbound() } else { loss.outbound() })
        };
        let lost = draw(&mut self.loss)
            || self.legs.get_mut(key).and_then(Option::as_mut).is_some_and(|leg| draw(&mut leg.loss));
        self.stats.impaired += u64::from(lost);
        lost
    }

    fn stun(&mut self, key: LegKey, from: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant) {
        if self.lost(key, true) {
            return;
        }
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let outcome = leg.transport.stun(data, from, local, now);
        if outcome.authentic {
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

    /// A new viewer starts at a key frame: at the last one if it is recent, else the publisher is asked for one.
    fn leg_connected(&mut self, key: LegKey) {
        let now_us = self.now_us();
        let Some(leg) = self.legs.get(key).and_then(Option::as_ref) else { return };
        if leg.viewing.receiver.is_none() {
            // Its own media back: there is nothing to choose.
            return self.begin_layer(key, true, now_us);
        }
        // Its tile and what its receiver takes decide about the layer; then it begins.
        self.choose(now_us);
    }
}

/// 24 bits of seconds in 6.18 fixed point.
fn abs_send_time(now_us: u64) -> u32 {
    ((u128::from(now_us) << 18) / 1_000_000) as u32 & 0x00ff_ffff
}
