//! Somebody's stream on its way in: subscribed, decoded, heard, judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tracing::warn;

use super::figures::Received;
use super::{Engine, MediaNotice, in_turn};
use crate::call::leg::{self, LegId, LegInput, LegReport, Line, Reporter, SubscribeSpec, Turn};
use crate::call::sync::LipSync;
use crate::call::view::{Connection, Failure, Level};
use crate::media::audio::PlayoutStream;
use crate::media::video::decoder::{DecoderEvent, DecoderStream};
use crate::media::video::frame::{FrameSlot, VideoFrame};
use crate::media::video::pattern::{PatternStats, sync_flash};
use crate::peer::{MediaKind, Sinks, SubscribeMedia, Subscription};
use crate::protocol::message::{PropertyValue, StreamInfo, VideoDimensions};
use crate::rtp::frame::{AUDIO_BUILT, AudioPacket, EncodedFrame, VIDEO_BUILT};
use crate::signaling::Signaling as _;

/// Told as the size of a picture of which nothing else is known: larger than any.
const WHOLE: (u32, u32) = (4_096, 4_096);

/// Somebody's stream.
pub(super) struct Stream {
    pub(super) id: String,
    pub(super) has_audio: bool,
    pub(super) has_video: bool,
    pub(super) audio_active: bool,
    pub(super) video_active: bool,
    pub(super) screen: bool,
    pub(super) source: String,
    /// Size of the picture as its publisher announces it.
    pub(super) size: Option<(u32, u32)>,
    pub(super) slot: FrameSlot,
    pub(super) level: Level,
    pub(super) wants_audio: bool,
    pub(super) wants_video: bool,
    /// Its picture is left out for the sake of its sound.
    pub(super) held_back: bool,
    pub(super) visible: bool,
    pub(super) subscribed: Option<Subscribed>,
    /// Over the subscriptions before this one.
    pub(super) received: Received,
    /// Goes from leg to leg: what is asked of the server about this stream is asked in order.
    turn: Turn,
    /// Since how many ms no sound and no picture come that should.
    pub(super) stalled: (Option<u64>, Option<u64>),
    pub(super) failure: Option<Failure>,
    pub(super) bars: u8,
    /// Packets that came, never came, and came on request.
    pub(super) last_packets: [u64; 3],
}

impl Stream {
    /// Sound and picture that should come: a host that knows which tiles are hidden sends no pictures for those.
    fn expected(&self, pauses: bool) -> (bool, bool) {
        (self.audio_active, self.video_active && (self.visible || !pauses))
    }

    /// Since how many ms something is missing that should come.
    pub(super) fn stalled_ms(&self) -> Option<u64> {
        self.stalled.0.max(self.stalled.1)
    }

    /// Ends the subscription if there is one; what it has counted stays.
    pub(super) fn unsubscribe(&mut self) -> bool {
        let Some(old) = self.subscribed.take() else { return false };
        self.received = std::mem::take(&mut self.received).then(Received::of(&old));
        true
    }

    /// Everything that was received of it so far.
    pub(super) fn all_received(&self) -> Received {
        match &self.subscribed {
            Some(now) => self.received.clone().then(Received::of(now)),
            None => self.received.clone(),
        }
    }

    fn note_stall(&mut self, kind: MediaKind, ms: Option<u64>) {
        match kind {
            MediaKind::Audio => self.stalled.0 = ms,
            MediaKind::Video => self.stalled.1 = ms,
        }
    }
}

/// A running subscription.
pub(super) struct Subscribed {
    pub(super) leg: LegId,
    pub(super) media: SubscribeMedia,
    pub(super) connected_at: Option<Instant>,
    pub(super) input: mpsc::Sender<LegInput>,
    pub(super) line: Line<Subscription>,
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
    tall_ms: AtomicU64,
}

impl PictureTimes {
    fn new() -> Self {
        Self { origin: Instant::now(), first_ms: AtomicU64::new(0), tall_ms: AtomicU64::new(0) }
    }

    fn shown(&self, frame: &VideoFrame) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        // Lost races only mean that a neighboring picture's time is kept.
        let _ = self.first_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        if frame.height >= 720 {
            let _ = self.tall_ms.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// From the first picture to the first with 720 lines.
    pub(super) fn to_720p_ms(&self) -> Option<u64> {
        let (first, tall) = (self.first_ms.load(Ordering::Relaxed), self.tall_ms.load(Ordering::Relaxed));
        (tall > 0).then(|| tall.saturating_sub(first))
    }
}

impl Engine {
    pub(super) fn stream_published(&mut self, connection_id: &str, info: StreamInfo) {
        let known = |p: &super::people::Person| p.stream.as_ref().is_some_and(|s| s.id == info.id);
        if self.people.iter().any(|p| p.connection_id == connection_id && known(p)) {
            return;
        }
        let event = self
            .event("streamCreated")
            .with("stream_id", info.id.clone())
            .with("connection_id", connection_id)
            .with("reason", None::<String>);
        self.emit(event);
        let only_publishing = self.config.media.publish_only;
        let tiles = self.place.joined.as_ref().is_some_and(|joined| joined.tiles);
        let Some(person) = self.people.iter_mut().find(|p| p.connection_id == connection_id) else { return };
        // A stream without video has no kind of video (protocol §4): it is the sound of a camera's connection.
        let unnamed = if info.has_video { "CUSTOM" } else { "CAMERA" };
        let kind = info.type_of_video.clone().unwrap_or_else(|| unnamed.to_owned());
        let mut stream = Stream {
            has_audio: info.has_audio,
            has_video: info.has_video,
            audio_active: info.audio_active.unwrap_or(info.has_audio),
            video_active: info.video_active.unwrap_or(info.has_video),
            screen: person.screen || kind == "SCREEN",
            source: kind.to_ascii_lowercase(),
            size: info
                .video_dimensions
                .as_deref()
                .and_then(VideoDimensions::parse)
                .map(|size| (size.width, size.height)),
            // A tile may have been drawn before its stream came back.
            visible: !(self.sound_only && tiles)
                && self.drawn.get(&info.id).is_none_or(|size| size.0 > 0 && size.1 > 0),
            id: info.id,
            slot: FrameSlot::new(),
            level: Level::default(),
            wants_audio: true,
            wants_video: !self.sound_only || tiles,
            held_back: self.sound_only && !tiles,
            subscribed: None,
            received: Received::default(),
            turn: Turn::default(),
            stalled: (None, None),
            failure: None,
            bars: 4,
            last_packets: [0; 3],
        };
        // Reconnecting publishers keep their tile: the picture stays until the new one comes.
        if let Some(old) = person.stream.take() {
            stream.slot = old.slot;
            stream.level = old.level;
        }
        let skip = person.ours || only_publishing;
        if self.sound_only && !skip {
            self.drawn_anew.insert(stream.id.clone());
        }
        person.stream = Some(stream);
        if !skip {
            let connection_id = connection_id.to_owned();
            self.subscribe(&connection_id);
        }
    }

    /// Somebody was taken for our own screen, or our own screen for somebody.
    pub(super) fn correct_ours(&mut self, connection_id: &str) {
        let Some(person) = self.people.iter_mut().find(|p| p.connection_id == connection_id) else { return };
        person.ours = !person.ours;
        self.dirty = true;
        let Some(stream) = &mut person.stream else { return };
        if !person.ours {
            if !self.config.media.publish_only {
                self.subscribe(connection_id);
            }
        } else if stream.unsubscribe() {
            let (turn, server, stream_id) = (Arc::clone(&stream.turn), self.signaling.clone(), stream.id.clone());
            tokio::spawn(leg::unsubscribe(turn, server, stream_id));
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
            audio: stream.has_audio && stream.wants_audio && AUDIO_BUILT,
            video: stream.has_video && stream.wants_video && VIDEO_BUILT,
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
        let (reader, clock, flashes) = (pattern.clone(), Arc::clone(&times), Arc::clone(&lips));
        let hook = Box::new(move |frame: &VideoFrame| {
            clock.shown(frame);
            if reader.observe(frame).is_some_and(|strip| strip.crc_ok) {
                flashes.shown(sync_flash(frame), Instant::now());
            }
        });
        let decoder = Arc::new(decoders.stream(stream.slot.clone(), events, Some(hook)));
        decoder.set_visible(stream.visible);
        decoder.set_active(stream.video_active);
        pattern.set_active(stream.visible && stream.video_active);
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
            may_rest: stream.screen,
            server_offers: joined.server_offers,
            turn: Arc::clone(&stream.turn),
            gate: self.gate.clone(),
        };
        let line = Line::default();
        let reporter = Reporter { leg, queue: self.leg_reports.0.clone() };
        // The queue was just made: there is room.
        let (audio, video) = stream.expected(joined.tiles);
        drop(input.try_send(LegInput::ExpectActive { audio, video }));
        tokio::spawn(leg::subscribe(spec, self.signaling.clone(), queue, reporter, line.clone()));
        stream.failure = None;
        stream.subscribed = Some(Subscribed {
            leg,
            media,
            connected_at: None,
            input,
            line,
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
        self.drawn.remove(stream_id);
        let at = self.people.iter().position(|p| p.connection_id == connection_id);
        if let (Some(stream), Some(person)) = (&stream, at.and_then(|i| self.people.get(i))) {
            let report = self.stream_report(person, stream, true);
            self.push_ended(report);
        }
        let event = self
            .event("streamDestroyed")
            .with("stream_id", stream_id)
            .with("connection_id", connection_id)
            .with("reason", reason);
        self.emit(event);
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
        self.dirty |= report.is_shown();
        let t_ms = self.t_ms();
        let mut told = None;
        if let Some(stream) = self.people.get_mut(at).and_then(|p| p.stream.as_mut()) {
            let stream_id = stream.id.clone();
            let Some(subscribed) = &mut stream.subscribed else { return };
            match report {
                LegReport::Connected => {
                    subscribed.connected_at.get_or_insert_with(Instant::now);
                    subscribed.flowing = true;
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
                LegReport::FirstPacket(kind) => {
                    if kind == MediaKind::Audio {
                        self.timeline.first_remote_audio.get_or_insert(t_ms);
                    }
                    stream.note_stall(kind, None);
                }
                LegReport::Stalled(kind, ms) => {
                    let before = stream.stalled_ms();
                    stream.note_stall(kind, ms);
                    if before.is_none() && ms.is_some() {
                        told = Some(crate::call::Event::new(t_ms, "streamStalled").with("stream_id", stream_id));
                    }
                }
                LegReport::SenderReport { kind, ntp, rtp } => subscribed.lips.report(kind, ntp, rtp),
                LegReport::Refused(error) => {
                    let failure = error.failure();
                    told = Some(
                        crate::call::Event::new(t_ms, "error")
                            .with("command", "subscribe")
                            .with("stream_id", stream_id)
                            .with("key", failure.key)
                            .with("message", error.to_string()),
                    );
                    stream.failure = Some(failure);
                    stream.unsubscribe();
                }
                LegReport::KeyFrame
                | LegReport::LayerKeyFrame(_)
                | LegReport::LayersWanted(_)
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
        let pauses = self.place.joined.as_ref().is_some_and(|joined| joined.tiles);
        let found = self.people.iter_mut().filter_map(|p| p.stream.as_mut()).find(|s| s.id == stream_id);
        let Some(stream) = found else { return };
        match property {
            PropertyValue::AudioActive(on) => stream.audio_active = *on,
            PropertyValue::VideoActive(on) => stream.video_active = *on,
            PropertyValue::VideoDimensions(size) => stream.size = Some((size.width, size.height)),
            _ => return,
        }
        if let Some(subscribed) = &stream.subscribed {
            let (audio, video) = stream.expected(pauses);
            drop(subscribed.input.try_send(LegInput::ExpectActive { audio, video }));
            if let Some(playout) = &subscribed.playout {
                playout.set_expected_active(stream.audio_active);
            }
            subscribed.decoder.set_active(stream.video_active);
            subscribed.pattern.set_active(stream.video_active && stream.visible);
        }
        if !stream.video_active {
            // A switched-off camera shows the person's initial, not a frozen face.
            stream.slot.clear();
            stream.stalled.1 = None;
        }
        if !stream.audio_active {
            stream.stalled.0 = None;
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
        let had = stream.unsubscribe();
        stream.slot.clear();
        self.dirty = true;
        let turn = Arc::clone(&stream.turn);
        if audio || video {
            // The new leg waits for the end of the old one and takes its subscription back before it offers.
            self.subscribe(&connection_id);
        } else if had {
            let server = self.signaling.clone();
            tokio::spawn(leg::unsubscribe(turn, server, stream_id.to_owned()));
        }
    }

    pub(super) fn tile_size(&mut self, stream_id: &str, size: (u32, u32)) {
        if !self.people.iter().filter_map(|p| p.stream.as_ref()).any(|s| s.id == stream_id) {
            // The window asks for every tile, also its own.
            let own = self.own.publishing.as_ref().and_then(|p| p.stream_id.as_deref());
            if !stream_id.is_empty() && own != Some(stream_id) {
                self.refuse("tile", "no such stream");
            }
            return;
        }
        if self.drawn.insert(stream_id.to_owned(), size) != Some(size) {
            self.drawn_anew.insert(stream_id.to_owned());
        }
        self.follow_visibility(stream_id);
    }

    /// Decodes what is seen of a stream, and nothing else.
    pub(super) fn follow_visibility(&mut self, stream_id: &str) {
        let pauses = self.place.joined.as_ref().is_some_and(|joined| joined.tiles);
        let drawn = self.drawn.get(stream_id).is_none_or(|size| size.0 > 0 && size.1 > 0);
        let visible = drawn && !(self.sound_only && pauses);
        let found = self.people.iter_mut().filter_map(|p| p.stream.as_mut()).find(|s| s.id == stream_id);
        let Some(stream) = found else { return };
        if stream.visible == visible {
            return;
        }
        stream.visible = visible;
        if !visible {
            stream.stalled.1 = None;
        }
        if self.sound_only {
            // The person's initial, not a frozen face.
            stream.slot.clear();
        }
        if let Some(subscribed) = &stream.subscribed {
            let (audio, video) = stream.expected(pauses);
            drop(subscribed.input.try_send(LegInput::ExpectActive { audio, video }));
            subscribed.decoder.set_visible(visible);
            subscribed.pattern.set_active(visible && stream.video_active);
        }
    }
}

impl Engine {
    /// Tells the host how large tiles have become, so that no more is sent than is seen. Ten times a second at most.
    pub(super) fn tell_sizes(&mut self) {
        if self.drawn_anew.is_empty() || self.connection != Connection::Connected {
            return;
        }
        let changed = std::mem::take(&mut self.drawn_anew);
        if !self.place.joined.as_ref().is_some_and(|joined| joined.tiles) {
            return;
        }
        let size = |id: &String| match (self.sound_only, self.drawn.get(id)) {
            (true, _) => Some((0, 0)),
            // Whoever draws nothing had the whole picture before.
            (false, size) => Some(size.copied().unwrap_or(WHOLE)),
        };
        let tiles = changed.into_iter().filter_map(|id| Some((size(&id)?, id))).map(|(size, id)| (id, size)).collect();
        let server = Arc::clone(&self.signaling);
        in_turn(async move { server.tiles(tiles).await });
    }

    /// A new place, or a way back to it: whatever is known of tiles is told anew.
    pub(super) fn tell_sizes_again(&mut self) {
        self.drawn_anew = self.drawn.keys().cloned().collect();
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
