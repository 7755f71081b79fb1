//! Everybody else: roster, subscriptions, decoders and playout.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::{Engine, MediaNotice};
use crate::call::leg::{self, Current, LegError, LegId, LegInput, LegReport, Reporter, SubscribeSpec};
use crate::call::sync::LipSync;
use crate::call::view::{DeviceState, Failure, Level};
use crate::media::audio::PlayoutStream;
use crate::media::video::decoder::{DecoderEvent, DecoderStream};
use crate::media::video::frame::{FrameSlot, VideoFrame};
use crate::media::video::pattern::PatternStats;
use crate::peer::{IceServer, MediaKind, Sinks, SubscribeMedia, Subscription, TransportConfig};
use crate::protocol::message::{ParticipantInfo, PropertyValue, StreamInfo};
use crate::protocol::metadata::Persona;
use crate::rtp::frame::{AudioPacket, EncodedFrame};
use crate::signaling::{Joined, ServerKind, Signaling as _, SignalingError};

/// Beyond so many people nobody is announced any more.
const ANNOUNCE_LIMIT: usize = 12;
/// Reports of streams that are gone, kept for the end.
const ENDED_LIMIT: usize = 256;

/// Somebody else's connection.
pub(super) struct Person {
    pub(super) connection_id: String,
    /// Survives a new connection id where the client tells who it is.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) screen: bool,
    /// Our own second connection.
    pub(super) ours: bool,
    pub(super) gain: f32,
    pub(super) pinned: bool,
    pub(super) stream: Option<Stream>,
}

/// Somebody's stream.
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) has_audio: bool,
    pub(super) has_video: bool,
    pub(super) audio_active: bool,
    pub(super) video_active: bool,
    pub(super) screen: bool,
    pub(super) source: String,
    pub(super) slot: FrameSlot,
    pub(super) level: Level,
    pub(super) wants_audio: bool,
    pub(super) wants_video: bool,
    pub(super) visible: bool,
    pub(super) subscribed: Option<Subscribed>,
    pub(super) stalled_ms: Option<u64>,
    pub(super) failure: Option<Failure>,
    pub(super) bars: u8,
    last_packets: (u64, u64),
}

/// A running subscription.
pub(super) struct Subscribed {
    pub(super) leg: LegId,
    pub(super) input: mpsc::Sender<LegInput>,
    pub(super) current: Current<Subscription>,
    pub(super) decoder: Arc<DecoderStream>,
    pub(super) playout: Option<Arc<PlayoutStream>>,
    pub(super) pattern: PatternStats,
    pub(super) lips: Arc<LipSync>,
    pub(super) started: Instant,
    pub(super) first_picture: Option<Instant>,
    pub(super) flowing: bool,
    pub(super) times: Arc<PictureTimes>,
}

/// When pictures became ready, written by the decoder's threads. Milliseconds since `origin`, 0 is never.
#[derive(Debug)]
pub(super) struct PictureTimes {
    origin: Instant,
    first_ms: AtomicU64,
    last_ms: AtomicU64,
    tall_ms: AtomicU64,
}

impl PictureTimes {
    fn new() -> Self {
        Self {
            origin: Instant::now(),
            first_ms: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
            tall_ms: AtomicU64::new(0),
        }
    }

    fn shown(&self, frame: &VideoFrame) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        // Lost races only mean that a neighboring picture's time is kept.
        let _ = self.first_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        self.last_ms.store(now, Ordering::Relaxed);
        if frame.height >= 720 {
            let _ = self.tall_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Length of time over which pictures came.
    pub(super) fn span(&self) -> Duration {
        let (first, last) = (self.first_ms.load(Ordering::Relaxed), self.last_ms.load(Ordering::Relaxed));
        Duration::from_millis(last.saturating_sub(first))
    }

    /// From the first picture to the first with 720 lines.
    pub(super) fn to_720p_ms(&self) -> Option<u64> {
        let (first, tall) = (self.first_ms.load(Ordering::Relaxed), self.tall_ms.load(Ordering::Relaxed));
        (tall > 0).then(|| tall.saturating_sub(first))
    }
}

impl Engine {
    /// How media travels in this place.
    pub(super) fn transport(&self, joined: &Joined) -> TransportConfig {
        let host = joined.host.rsplit_once(':').map_or(joined.host.as_str(), |(h, _)| h);
        let local = host == "localhost"
            || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|a| a.is_loopback());
        TransportConfig {
            ice_servers: joined
                .ice_servers
                .iter()
                // Our own host is reached directly: its entry only keeps browsers from asking public servers.
                .filter(|s| !((local || joined.server == ServerKind::Tertulia) && s.url.starts_with("stun:")))
                .map(|s| IceServer {
                    url: s.url.clone(),
                    username: s.username.clone(),
                    credential: s.credential.as_ref().map(|c| c.expose().to_owned()),
                })
                .collect(),
            include_loopback: local,
            impairment: self.config.impairments,
            ..TransportConfig::default()
        }
    }

    pub(super) fn participant_joined(&mut self, info: &ParticipantInfo) {
        let persona = Persona::parse(&info.metadata);
        let ours = persona.participant_id.as_deref() == Some(self.config.device_key.as_str());
        let key = match &persona.participant_id {
            Some(id) if persona.screen => format!("{id}/screen"),
            Some(id) => id.clone(),
            None => info.id.clone(),
        };
        let name = persona.name.unwrap_or_else(|| info.id.clone());
        // A client that came back before its old connection was given up: the new one takes its place.
        let (gain, pinned) = self.remembered.get(&key).copied().unwrap_or((1.0, false));
        let event = self.event("connectionCreated").with("connection_id", info.id.clone());
        self.emit(event);
        if self.joined_at.is_some_and(|at| at.elapsed() > Duration::from_secs(1))
            && !ours
            && self.people.len() < ANNOUNCE_LIMIT
        {
            self.notice("note.joined", vec![("name", name.clone())]);
        }
        self.people.retain(|p| p.connection_id != info.id);
        self.people.push(Person {
            connection_id: info.id.clone(),
            key,
            name,
            screen: persona.screen,
            ours,
            gain,
            pinned,
            stream: None,
        });
    }

    pub(super) fn participant_left(&mut self, connection_id: &str, reason: &str) {
        let Some(at) = self.people.iter().position(|p| p.connection_id == connection_id) else { return };
        let person = self.people.remove(at);
        self.remembered.insert(person.key.clone(), (person.gain, person.pinned));
        if let Some(stream) = &person.stream {
            self.keep_report(&person, stream);
        }
        let event = self.event("connectionDestroyed").with("connection_id", connection_id).with("reason", reason);
        self.emit(event);
        if !person.ours && self.people.len() < ANNOUNCE_LIMIT {
            self.notice("note.left", vec![("name", person.name.clone())]);
        }
    }

    pub(super) fn stream_published(&mut self, connection_id: &str, info: StreamInfo) {
        let event = self
            .event("streamCreated")
            .with("stream_id", info.id.clone())
            .with("connection_id", connection_id)
            .with("reason", None::<String>);
        self.emit(event);
        let only_publishing = self.config.media.publish_only;
        let Some(person) = self.people.iter_mut().find(|p| p.connection_id == connection_id) else { return };
        let kind = info.type_of_video.clone().unwrap_or_else(|| "CUSTOM".to_owned());
        let mut stream = Stream {
            has_audio: info.has_audio,
            has_video: info.has_video,
            audio_active: info.audio_active.unwrap_or(info.has_audio),
            video_active: info.video_active.unwrap_or(info.has_video),
            screen: person.screen || kind == "SCREEN",
            source: kind.to_ascii_lowercase(),
            id: info.id,
            slot: FrameSlot::new(),
            level: Level::default(),
            wants_audio: true,
            wants_video: true,
            visible: true,
            subscribed: None,
            stalled_ms: None,
            failure: None,
            bars: 4,
            last_packets: (0, 0),
        };
        // Reconnecting publishers keep their tile: the picture stays until the new one comes.
        if let Some(old) = person.stream.take() {
            stream.slot = old.slot;
            stream.level = old.level;
        }
        let skip = person.ours || only_publishing;
        person.stream = Some(stream);
        if !skip {
            let connection_id = connection_id.to_owned();
            self.subscribe(&connection_id);
        }
    }

    /// Starts the leg, decoder and playout of somebody's stream.
    fn subscribe(&mut self, connection_id: &str) {
        let Some(joined) = self.place.joined.clone() else { return };
        let (leg, input, queue) = self.new_leg();
        let transport = self.transport(&joined);
        let decoders = self.config.decoders.clone();
        let repaint = self.config.repaint.clone();
        let notices = self.notices.0.clone();
        let Some(person) = self.people.iter_mut().find(|p| p.connection_id == connection_id) else { return };
        let gain = person.gain;
        let Some(stream) = &mut person.stream else { return };
        let media = SubscribeMedia {
            audio: stream.has_audio && stream.wants_audio,
            video: stream.has_video && stream.wants_video,
        };
        if !media.audio && !media.video {
            return;
        }
        let (pattern, times, lips) = (PatternStats::new(), Arc::new(PictureTimes::new()), Arc::new(LipSync::default()));
        let events = Box::new(move |event| match event {
            DecoderEvent::Picture => {
                if let Some(repaint) = &repaint {
                    repaint();
                }
            }
            other => {
                if notices.try_send(MediaNotice::Decoder(leg, other, Instant::now())).is_err() {
                    warn!("the engine is behind: a decoder event was dropped");
                }
            }
        });
        let (reader, clock) = (pattern.clone(), Arc::clone(&times));
        let hook = Box::new(move |frame: &VideoFrame| {
            clock.shown(frame);
            reader.observe(frame);
        });
        let decoder = Arc::new(decoders.stream(stream.slot.clone(), events, Some(hook)));
        decoder.set_visible(stream.visible);
        let playout = if media.audio { self.audio.as_ref().map(|a| Arc::new(a.open_stream())) } else { None };
        if let Some(playout) = &playout {
            playout.set_gain(gain);
            playout.set_expected_active(stream.audio_active);
        }
        let sinks = sinks(Arc::clone(&decoder), playout.clone(), Arc::clone(&lips));
        let spec = SubscribeSpec {
            transport,
            connection_id: connection_id.to_owned(),
            stream_id: stream.id.clone(),
            media,
            sinks,
            server_offers: joined.server_offers,
        };
        let current = Current::default();
        let reporter = Reporter { leg, queue: self.leg_reports.0.clone() };
        // The queue was just made: there is room.
        drop(input.try_send(LegInput::ExpectActive {
            audio: stream.audio_active,
            video: stream.video_active && stream.visible,
        }));
        tokio::spawn(leg::subscribe(spec, self.signaling.clone(), queue, reporter, Arc::clone(&current)));
        stream.failure = None;
        stream.subscribed = Some(Subscribed {
            leg,
            input,
            current,
            decoder,
            playout,
            pattern,
            lips,
            started: Instant::now(),
            first_picture: None,
            flowing: false,
            times,
        });
        self.dirty = true;
    }

    pub(super) fn stream_gone(&mut self, connection_id: &str, stream_id: &str, reason: &str) {
        let Some(person) = self.people.iter_mut().find(|p| p.connection_id == connection_id) else { return };
        if person.stream.as_ref().is_none_or(|s| s.id != stream_id) {
            return;
        }
        let stream = person.stream.take();
        let at = self.people.iter().position(|p| p.connection_id == connection_id);
        if let (Some(stream), Some(person)) = (&stream, at.and_then(|i| self.people.get(i))) {
            let report = self.stream_report(person, stream);
            self.push_ended(report);
        }
        let event = self
            .event("streamDestroyed")
            .with("stream_id", stream_id)
            .with("connection_id", connection_id)
            .with("reason", reason);
        self.emit(event);
    }

    fn keep_report(&mut self, person: &Person, stream: &Stream) {
        let report = self.stream_report(person, stream);
        self.push_ended(report);
    }

    pub(super) fn push_ended(&mut self, report: crate::call::report::StreamReport) {
        if self.ended_streams.len() >= ENDED_LIMIT {
            self.ended_streams.remove(0);
        }
        self.ended_streams.push(report);
    }

    /// After a rejoin everybody comes anew, with new connection ids; what belongs to a person is remembered.
    pub(super) fn forget_everybody(&mut self) {
        for person in std::mem::take(&mut self.people) {
            if let Some(stream) = &person.stream {
                self.keep_report(&person, stream);
            }
            self.remembered.insert(person.key.clone(), (person.gain, person.pinned));
        }
    }

    /// Ends every transport; tiles stay, dimmed by the connection's state.
    pub(super) fn close_legs(&mut self) {
        self.collect_own_stream();
        self.own.close_leg();
        self.stop_audio_sink();
        for person in &mut self.people {
            if let Some(stream) = &mut person.stream
                && let Some(subscribed) = stream.subscribed.take()
            {
                drop(subscribed);
                stream.stalled_ms = None;
            }
        }
        if let Some(screen) = self.screen_call.take() {
            let _ = screen.send(crate::call::Command::Leave);
        }
    }

    pub(super) fn rebuild_interrupted(&mut self) {
        // A full queue means that the leg has enough to do already.
        if let Some(publishing) = &self.own.publishing
            && !publishing.flowing
        {
            drop(publishing.input.try_send(LegInput::Rebuild));
        }
        for subscribed in self.people.iter().filter_map(|p| p.stream.as_ref()?.subscribed.as_ref()) {
            if !subscribed.flowing {
                drop(subscribed.input.try_send(LegInput::Rebuild));
            }
        }
    }

    pub(super) fn route_candidate(&mut self, connection_id: &str, told: LegInput) {
        let own = self.place.joined.as_ref().is_some_and(|j| j.connection_id == connection_id);
        let input = if own {
            self.own.publishing.as_ref().map(|p| &p.input)
        } else {
            self.people
                .iter()
                .find(|p| p.connection_id == connection_id)
                .and_then(|p| Some(&p.stream.as_ref()?.subscribed.as_ref()?.input))
        };
        if let Some(input) = input
            && input.try_send(told).is_err()
        {
            warn!("a leg is behind: a candidate of the server was dropped");
        }
    }

    pub(super) async fn leg_report(&mut self, leg: LegId, report: LegReport) {
        if self.own.publishing.as_ref().is_some_and(|p| p.leg == leg) {
            return self.own_report(report);
        }
        let found = self
            .people
            .iter()
            .position(|p| p.stream.as_ref().and_then(|s| s.subscribed.as_ref()).is_some_and(|s| s.leg == leg));
        let Some(at) = found else { return };
        self.dirty = true;
        let t_ms = self.t_ms();
        let mut told = None;
        if let Some(stream) = self.people.get_mut(at).and_then(|p| p.stream.as_mut()) {
            let stream_id = stream.id.clone();
            let Some(subscribed) = &mut stream.subscribed else { return };
            match report {
                LegReport::Connected => {
                    subscribed.flowing = true;
                    stream.stalled_ms = None;
                }
                LegReport::Interrupted { why } => {
                    subscribed.flowing = false;
                    subscribed.lips.reset();
                    if why != "disconnected" {
                        subscribed.decoder.reset();
                    }
                    told = Some(
                        crate::call::Event::new(t_ms, "mediaReconnecting")
                            .with("stream_id", stream_id)
                            .with("direction", "recv")
                            .with("reason", why),
                    );
                }
                LegReport::FirstPacket(MediaKind::Audio) => {
                    self.timeline.first_remote_audio.get_or_insert(t_ms);
                }
                LegReport::Stalled(ms) => {
                    // A server whose transport is up but gives nothing: one new transport per stall, then patience.
                    if stream.stalled_ms.is_none() && ms.is_some() {
                        drop(subscribed.input.try_send(LegInput::Rebuild));
                        told = Some(crate::call::Event::new(t_ms, "streamStalled").with("stream_id", stream_id));
                    }
                    stream.stalled_ms = ms;
                }
                LegReport::SenderReport { kind, ntp, rtp } => subscribed.lips.report(kind, ntp, rtp),
                LegReport::Refused(error) => {
                    let failure = subscription_failure(&error);
                    told = Some(
                        crate::call::Event::new(t_ms, "error")
                            .with("command", "subscribe")
                            .with("stream_id", stream_id)
                            .with("key", failure.key)
                            .with("message", error.to_string()),
                    );
                    stream.failure = Some(failure);
                    stream.subscribed = None;
                }
                LegReport::FirstPacket(_)
                | LegReport::KeyFrame
                | LegReport::Target(_)
                | LegReport::Loss(..)
                | LegReport::Published { .. }
                | LegReport::Sender { .. } => {}
            }
        }
        if let Some(event) = told {
            self.emit(event);
        }
    }

    pub(super) fn decoder_event(&mut self, leg: LegId, event: DecoderEvent, at: Instant) {
        let t_ms = u64::try_from(at.saturating_duration_since(self.config.started).as_millis()).unwrap_or(0);
        let found = self
            .people
            .iter_mut()
            .filter_map(|p| p.stream.as_mut())
            .find(|s| s.subscribed.as_ref().is_some_and(|x| x.leg == leg));
        let Some(stream) = found else { return };
        let Some(subscribed) = &mut stream.subscribed else { return };
        match event {
            DecoderEvent::NeedKeyFrame => drop(subscribed.input.try_send(LegInput::NeedKeyFrame)),
            DecoderEvent::FirstPicture { width, height } => {
                subscribed.first_picture = Some(at);
                let started = subscribed.started;
                let id = stream.id.clone();
                self.timeline.first_remote_frame.get_or_insert(t_ms);
                let event = crate::call::Event::new(t_ms, "firstPicture")
                    .with("stream_id", id)
                    .with("width", width)
                    .with("height", height)
                    .with("after_ms", u64::try_from(at.saturating_duration_since(started).as_millis()).unwrap_or(0));
                self.emit(event);
            }
            DecoderEvent::Failed => {
                stream.failure = Some(Failure {
                    key: "err.codec",
                    values: Vec::new(),
                    detail: "the decoder does not start".to_owned(),
                });
            }
            DecoderEvent::Picture => {}
        }
    }

    pub(super) fn apply_property(&mut self, stream_id: &str, property: &PropertyValue) {
        let found = self.people.iter_mut().filter_map(|p| p.stream.as_mut()).find(|s| s.id == stream_id);
        let Some(stream) = found else { return };
        match property {
            PropertyValue::AudioActive(on) => stream.audio_active = *on,
            PropertyValue::VideoActive(on) => stream.video_active = *on,
            _ => return,
        }
        if let Some(subscribed) = &stream.subscribed {
            let video = stream.video_active && stream.visible;
            drop(subscribed.input.try_send(LegInput::ExpectActive { audio: stream.audio_active, video }));
            if let Some(playout) = &subscribed.playout {
                playout.set_expected_active(stream.audio_active);
            }
            if !stream.video_active {
                subscribed.pattern.interrupted();
            }
        }
        if !stream.video_active {
            // A switched-off camera shows the person's initial, not a frozen face.
            stream.slot.clear();
            stream.stalled_ms = None;
        }
        self.dirty = true;
    }

    pub(super) fn choose_media(&mut self, stream_id: &str, audio: bool, video: bool) {
        let Some(person) = self.people.iter_mut().find(|p| p.stream.as_ref().is_some_and(|s| s.id == stream_id)) else {
            return self.refuse("subscribe", "no such stream");
        };
        let connection_id = person.connection_id.clone();
        let Some(stream) = &mut person.stream else { return };
        if (stream.wants_audio, stream.wants_video) == (audio, video) && stream.subscribed.is_some() == (audio || video)
        {
            return;
        }
        stream.wants_audio = audio;
        stream.wants_video = video;
        let had = stream.subscribed.take().is_some();
        stream.slot.clear();
        self.dirty = true;
        if had {
            let (server, id) = (Arc::clone(&self.signaling), stream_id.to_owned());
            // The server takes the requests of one socket in order: unsubscribing is done before the new offer comes.
            self.request("subscribe", async move { server.unsubscribe(&id).await });
        }
        self.subscribe(&connection_id);
    }

    pub(super) fn tile_size(&mut self, stream_id: &str, size: (u32, u32)) {
        let found = self.people.iter_mut().filter_map(|p| p.stream.as_mut()).find(|s| s.id == stream_id);
        let Some(stream) = found else { return };
        let visible = size.0 > 0 && size.1 > 0;
        if stream.visible == visible {
            return;
        }
        stream.visible = visible;
        if let Some(subscribed) = &stream.subscribed {
            subscribed.decoder.set_visible(visible);
            if !visible {
                subscribed.pattern.interrupted();
            }
        }
    }

    pub(super) fn set_volume(&mut self, key: &str, gain: f32) {
        let gain = if gain.is_finite() { gain.clamp(0.0, 2.0) } else { 1.0 };
        for person in self.people.iter_mut().filter(|p| p.key == key) {
            person.gain = gain;
            if let Some(playout) = person.stream.as_ref().and_then(|s| s.subscribed.as_ref()?.playout.as_ref()) {
                playout.set_gain(gain);
            }
        }
        self.remembered.entry(key.to_owned()).or_insert((1.0, false)).0 = gain;
        self.dirty = true;
    }

    pub(super) fn set_pin(&mut self, key: &str, pinned: bool) {
        for person in self.people.iter_mut().filter(|p| p.key == key) {
            person.pinned = pinned;
        }
        self.remembered.entry(key.to_owned()).or_insert((1.0, false)).1 = pinned;
        self.dirty = true;
    }

    pub(super) fn name_of(&self, connection_id: &str) -> Option<String> {
        self.people.iter().find(|p| p.connection_id == connection_id).map(|p| p.name.clone())
    }

    pub(super) fn update_levels(&mut self) {
        let own = match (&self.audio, &self.own.microphone_state) {
            (Some(audio), DeviceState::On | DeviceState::Muted) => audio.levels().processed_dbfs,
            _ => -120.0,
        };
        self.own.level.set_dbfs(own);
        for stream in self.people.iter().filter_map(|p| p.stream.as_ref()) {
            let level = match stream.subscribed.as_ref().and_then(|s| s.playout.as_ref()) {
                Some(playout) if stream.audio_active && stream.stalled_ms.is_none() => playout.level_dbfs(),
                _ => -120.0,
            };
            stream.level.set_dbfs(level);
        }
    }

    /// Once a second: bars from the share of packets that never came.
    pub(super) fn update_quality(&mut self) {
        self.note_path();
        let mut changed = false;
        for stream in self.people.iter_mut().filter_map(|p| p.stream.as_mut()) {
            let Some(subscription) = stream.subscribed.as_ref().and_then(|s| s.current.load_full()) else { continue };
            let stats = subscription.stats();
            let sum = |f: fn(&crate::peer::ReceiveStats) -> u64| {
                stats.video.as_ref().map_or(0, f) + stats.audio.as_ref().map_or(0, f)
            };
            let (packets, lost) = (sum(|s| s.packets), sum(|s| s.packets_lost));
            let (new, gone) =
                (packets.saturating_sub(stream.last_packets.0), lost.saturating_sub(stream.last_packets.1));
            stream.last_packets = (packets, lost);
            let percent = (gone * 100).checked_div(new + gone).unwrap_or(0);
            let bars = match percent {
                0..=2 => 4,
                3..=7 => 3,
                8..=19 => 2,
                _ => 1,
            };
            changed |= bars != stream.bars;
            stream.bars = bars;
        }
        self.dirty |= changed;
    }
}

fn sinks(decoder: Arc<DecoderStream>, playout: Option<Arc<PlayoutStream>>, lips: Arc<LipSync>) -> Sinks {
    let sound = playout.clone();
    Sinks {
        video: Arc::new(move |frame: EncodedFrame| {
            let due = lips.due(frame.rtp_timestamp, playout.as_deref(), Instant::now());
            decoder.push_at(frame, due);
        }),
        audio: Arc::new(move |packet: AudioPacket| {
            if let Some(playout) = &sound {
                playout.push(packet);
            }
        }),
    }
}

fn subscription_failure(error: &LegError) -> Failure {
    let key = match error {
        LegError::Signaling(SignalingError::Codec { .. })
        | LegError::Peer(crate::peer::PeerError::NoCommonCodec(_)) => "err.codec",
        LegError::Signaling(e) => e.key(),
        LegError::Peer(_) => "err.media",
    };
    Failure { key, values: Vec::new(), detail: error.to_string() }
}
