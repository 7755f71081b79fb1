//! One encoder thread per publication: newest picture → size the bitrate is good for → encoded frame.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::codec::{CodecError, Content, EncoderSettings, Quality, VideoCodec, VideoEncoder, new_encoder};
use super::frame::{FramePool, FrameSlot, VideoFrame};
use super::ladder::Ladder;
use super::overuse::Overuse;
use super::refine::{MotionDetector, Next, Refiner, same};
use super::scale::{Scaler, fit_within};
use super::source::Tuning;
use crate::rtp::frame::{EncodedFrame, VIDEO_CLOCK_HZ};

/// Key frames on request come no closer together than this: ten viewers that ask within a second get few.
pub const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(300);
/// A still source (shared screen) is encoded again for a key frame request after this long without a new picture.
const STILL_AFTER: Duration = Duration::from_millis(120);
/// How long the thread sleeps at most when nothing comes; it is woken by pictures, requests and the end.
const IDLE: Duration = Duration::from_millis(500);
/// No layer is narrower or lower than this.
const LEAST_SIDE: u32 = 32;
/// Rates outside make no picture or no sense.
const BITRATE_RANGE_BPS: std::ops::RangeInclusive<u32> = 30_000..=20_000_000;

/// What is to be encoded, and how.
#[derive(Debug, Clone, Copy)]
pub struct EncoderConfig {
    /// Codec negotiated.
    pub codec: VideoCodec,
    /// Never larger than this, whatever the camera gives.
    pub max_size: (u32, u32),
    /// Never more pictures a second.
    pub max_fps: u32,
    /// Target at the start, in bit/s.
    pub bitrate_bps: u32,
    /// What a screen is tuned for; `None` for a camera.
    pub tuning: Option<Tuning>,
    /// A page that stands still is sent again now and then: its viewers were told of a camera, and take silence for a fault.
    pub keep_alive: bool,
    /// The layer, where there are several, which then begins paused; `None` for the whole picture.
    pub layer: Option<LayerConfig>,
}

/// One of several encoders of the same pictures.
#[derive(Debug, Clone, Copy)]
pub struct LayerConfig {
    /// Width and height of the picture are divided by this.
    pub divisor: u32,
    /// The size follows the bitrate; else it stays, and a rate that is too low for it is a matter of whoever sets it.
    pub adapts: bool,
    /// The clock of all layers: a picture has the same timestamp in each.
    pub clock: Clock,
}

/// Where timestamps count from.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    base: u32,
}

impl Clock {
    /// Begins now, at a random timestamp (RFC 3550 5.1).
    pub fn start() -> Self {
        Self { origin: Instant::now(), base: rand::random() }
    }
}

impl Default for EncoderConfig {
    fn default() -> Self {
        Self {
            codec: VideoCodec::Vp8,
            max_size: (1280, 720),
            max_fps: 30,
            bitrate_bps: 1_000_000,
            tuning: None,
            keep_alive: false,
            layer: None,
        }
    }
}

/// Where encoded frames go. Called on the encoder's thread; must not block.
pub type EncodedSink = Box<dyn Fn(EncodedFrame) + Send>;

/// What an encoder has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EncoderStats {
    /// Frames given to the sink.
    pub frames: u64,
    /// Key frames among them.
    pub key_frames: u64,
    /// Pictures left out: overtaken by newer ones, beyond the frame rate, or dropped by the rate control.
    pub dropped: u64,
    /// Bytes given to the sink.
    pub bytes: u64,
    /// Width of the last frame in pixels, 0 before the first.
    pub width: u32,
    /// Height of the last frame in pixels, 0 before the first.
    pub height: u32,
    /// Frames a second over the last two seconds or so.
    pub fps: f32,
    /// Bits a second over the same time.
    pub bitrate_bps: u32,
    /// Target set last.
    pub target_bitrate_bps: u32,
    /// Time for one picture, scaling included, moving average in ms.
    pub encode_ms: f32,
    /// Times the codec failed and was started again.
    pub failures: u64,
}

struct Shared {
    stop: AtomicBool,
    paused: AtomicBool,
    target_bps: AtomicU32,
    key_frame_wanted: AtomicBool,
    begin_anew: AtomicBool,
    codec: Mutex<VideoCodec>,
    max_size: AtomicU64,
    max_fps: AtomicU32,
    tuning: Mutex<Option<Tuning>>,
    stats: Mutex<EncoderStats>,
}

/// A running encoder. Dropping it ends the thread after the picture in work.
pub struct EncoderThread {
    slot: FrameSlot,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for EncoderThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncoderThread").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl EncoderThread {
    /// Starts encoding whatever appears in `slot`. Fails if the codec's library does not start or no thread can be had.
    ///
    /// An empty slot (muted camera) gives no frames at all.
    pub fn start(slot: FrameSlot, config: EncoderConfig, sink: EncodedSink) -> Result<Self, CodecError> {
        // The library is tried here, where the caller can still choose another codec.
        new_encoder(config.codec, settings_for((320, 180), 15, config.bitrate_bps, content_of(config.tuning)))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            paused: AtomicBool::new(config.layer.is_some()),
            target_bps: AtomicU32::new(clamp_bitrate(config.bitrate_bps)),
            key_frame_wanted: AtomicBool::new(true),
            begin_anew: AtomicBool::new(false),
            codec: Mutex::new(config.codec),
            max_size: AtomicU64::new(pack(config.max_size)),
            max_fps: AtomicU32::new(config.max_fps.max(1)),
            tuning: Mutex::new(config.tuning),
            stats: Mutex::default(),
        });
        let worker = Worker::new(slot.clone(), Arc::clone(&shared), config, sink);
        let thread = std::thread::Builder::new()
            .name("video-encoder".into())
            .spawn(move || worker.run())
            .map_err(|e| CodecError::Setup { codec: config.codec.name(), detail: e.to_string() })?;
        Ok(Self { slot, shared, thread: Some(thread) })
    }

    /// What congestion control allows, in bit/s. The size of the picture follows.
    pub fn set_target_bitrate(&self, bitrate_bps: u32) {
        self.shared.target_bps.store(clamp_bitrate(bitrate_bps), Ordering::Relaxed);
    }

    /// Somebody needs a key frame. Requests closer than [`KEY_FRAME_INTERVAL`] are answered by one.
    pub fn request_key_frame(&self) {
        self.shared.key_frame_wanted.store(true, Ordering::SeqCst);
        self.slot.wake();
    }

    /// Nobody wants the pictures for now: none is encoded. Goes on with a key frame.
    pub fn set_paused(&self, paused: bool) {
        self.shared.paused.store(paused, Ordering::SeqCst);
        self.slot.wake();
    }

    /// There is a new way for the pictures, and nothing that was sent before counts: a key frame at once.
    pub fn begin_anew(&self) {
        self.shared.begin_anew.store(true, Ordering::SeqCst);
        self.request_key_frame();
    }

    /// Goes on with another codec, beginning with a key frame.
    pub fn set_codec(&self, codec: VideoCodec) {
        *self.shared.codec.lock().unwrap_or_else(PoisonError::into_inner) = codec;
    }

    /// Limits the size and frame rate from now on.
    pub fn set_limit(&self, max_size: (u32, u32), max_fps: u32) {
        self.shared.max_size.store(pack(max_size), Ordering::Relaxed);
        self.shared.max_fps.store(max_fps.max(1), Ordering::Relaxed);
    }

    /// What the pictures are from now on: a screen tuned for this, or a camera.
    pub fn set_tuning(&self, tuning: Option<Tuning>) {
        *self.shared.tuning.lock().unwrap_or_else(PoisonError::into_inner) = tuning;
        self.slot.wake();
    }

    /// What it has done so far.
    pub fn stats(&self) -> EncoderStats {
        let mut stats = *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.target_bitrate_bps = self.shared.target_bps.load(Ordering::Relaxed);
        stats
    }

    /// Ends the thread; no frame reaches the sink after this.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.slot.wake();
        if let Some(thread) = self.thread.take() {
            // One picture takes milliseconds; the thread waits for nothing else.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for EncoderThread {
    fn drop(&mut self) {
        self.end();
    }
}

fn clamp_bitrate(bps: u32) -> u32 {
    bps.clamp(*BITRATE_RANGE_BPS.start(), *BITRATE_RANGE_BPS.end())
}

fn pack((width, height): (u32, u32)) -> u64 {
    (u64::from(width) << 32) | u64::from(height)
}

fn unpack(size: u64) -> (u32, u32) {
    (u32::try_from(size >> 32).unwrap_or(u32::MAX), u32::try_from(size & 0xffff_ffff).unwrap_or(u32::MAX))
}

fn settings_for((width, height): (u32, u32), fps: u32, bitrate_bps: u32, content: Content) -> EncoderSettings {
    EncoderSettings { width, height, fps, bitrate_bps: clamp_bitrate(bitrate_bps), content }
}

fn content_of(tuning: Option<Tuning>) -> Content {
    match tuning {
        None => Content::Camera,
        Some(Tuning::Auto | Tuning::Text) => Content::Screen,
        Some(Tuning::Motion) => Content::Motion,
    }
}

struct Worker {
    slot: FrameSlot,
    shared: Arc<Shared>,
    tuning: Option<Tuning>,
    content: Content,
    keep_alive: bool,
    layer: Option<LayerConfig>,
    motion: MotionDetector,
    refiner: Refiner,
    /// What was seen last on a screen, and what was encoded last of it.
    shown: Option<Arc<VideoFrame>>,
    sent: Option<Arc<VideoFrame>>,
    sink: EncodedSink,
    ladder: Ladder,
    overuse: Overuse,
    encoder: Option<Box<dyn VideoEncoder>>,
    scaler: Scaler,
    pool: FramePool,
    origin: Option<Instant>,
    rtp_base: u32,
    last_ticks: Option<u64>,
    last_key_frame: Option<Instant>,
    next_due: Option<Instant>,
    failures_in_a_row: u64,
    window: Window,
}

/// Counts for rates over the last seconds.
struct Window {
    since: Instant,
    frames: u32,
    bytes: u64,
}

impl Worker {
    fn new(slot: FrameSlot, shared: Arc<Shared>, config: EncoderConfig, sink: EncodedSink) -> Self {
        Self {
            slot,
            shared,
            layer: config.layer,
            keep_alive: config.keep_alive,
            overuse: Overuse::default(),
            tuning: config.tuning,
            content: content_of(config.tuning),
            motion: MotionDetector::default(),
            refiner: Refiner::default(),
            shown: None,
            sent: None,
            sink,
            ladder: Ladder::new(content_of(config.tuning), config.bitrate_bps),
            encoder: None,
            scaler: Scaler::new(),
            pool: FramePool::new(2),
            origin: config.layer.map(|layer| layer.clock.origin),
            // RFC 3550 5.1: the first timestamp is random.
            rtp_base: config.layer.map_or_else(rand::random, |layer| layer.clock.base),
            last_ticks: None,
            last_key_frame: None,
            next_due: None,
            failures_in_a_row: 0,
            window: Window { since: Instant::now(), frames: 0, bytes: 0 },
        }
    }

    fn run(mut self) {
        let mut seen = 0;
        let mut last_picture = Instant::now();
        let mut rest = Duration::ZERO;
        while !self.shared.stop.load(Ordering::SeqCst) {
            let wanted = self.shared.key_frame_wanted.load(Ordering::SeqCst);
            let timeout = match self.content {
                Content::Screen => rest,
                _ if wanted && self.slot.version() > 0 => STILL_AFTER,
                _ => IDLE,
            };
            let version = self.slot.wait(seen, timeout);
            if self.shared.stop.load(Ordering::SeqCst) {
                break;
            }
            if self.shared.paused.load(Ordering::SeqCst) {
                // Whoever wants pictures again has to begin anew; what was missed until then is nobody's loss.
                seen = version;
                (self.encoder, self.sent, self.next_due, rest) = (None, None, None, IDLE);
                self.refiner.clear();
                self.shared.key_frame_wanted.store(true, Ordering::SeqCst);
                self.stats(|s| (s.fps, s.bitrate_bps) = (0.0, 0));
                continue;
            }
            let new = version != seen;
            let missed = version.saturating_sub(seen).saturating_sub(1);
            if seen > 0 && missed > 0 {
                self.stats(|s| s.dropped += missed);
            }
            seen = version;
            if self.shared.begin_anew.swap(false, Ordering::SeqCst) {
                self.refiner = Refiner::default();
                self.last_key_frame = None;
            }
            self.tune(new);
            if self.content == Content::Screen {
                rest = self.page(new);
                continue;
            }
            if !new {
                // Nothing new: a still screen, or a muted camera (then the slot is empty and there is nothing to send).
                let still = last_picture.elapsed() >= STILL_AFTER;
                if still
                    && self.key_frame_due()
                    && let Some(frame) = self.slot.latest()
                {
                    last_picture = Instant::now();
                    self.encode(&frame, last_picture, Quality::Rate);
                }
                continue;
            }
            let Some(frame) = self.slot.latest() else { continue };
            last_picture = Instant::now();
            if self.in_time(&frame) {
                self.encode(&frame, frame.at, Quality::Rate);
            } else {
                self.stats(|s| s.dropped += 1);
            }
        }
    }

    /// Takes over what a screen is tuned for, and looks whether it shows a film.
    fn tune(&mut self, new: bool) {
        let tuning = *self.shared.tuning.lock().unwrap_or_else(PoisonError::into_inner);
        let mut content = if tuning == self.tuning { self.content } else { content_of(tuning) };
        if tuning != self.tuning {
            (self.tuning, self.motion, self.shown) = (tuning, MotionDetector::default(), None);
        }
        if new && tuning == Some(Tuning::Auto) {
            let picture = self.slot.latest();
            if let Some(picture) = &picture {
                content = self.motion.picture(self.shown.as_deref(), picture, Instant::now());
            }
            self.shown = picture;
        }
        if content != self.content {
            self.content = content;
            self.ladder = Ladder::new(content, self.shared.target_bps.load(Ordering::Relaxed));
            (self.next_due, self.sent) = (None, None);
            self.refiner.clear();
        }
    }

    /// One step of a shared page; for how long there is nothing more to do.
    fn page(&mut self, new: bool) -> Duration {
        let Some(frame) = self.slot.latest() else {
            self.refiner.clear();
            self.sent = None;
            return IDLE;
        };
        let now = Instant::now();
        if (new || self.sent.is_none()) && self.sent.as_ref().is_none_or(|sent| !same(sent, &frame)) {
            self.refiner.changed(now);
        }
        let bitrate = self.shared.target_bps.load(Ordering::Relaxed);
        match self.refiner.next(now, bitrate, self.key_frame_due(), self.keep_alive) {
            Next::Wait(time) => time.min(IDLE),
            // A key frame that may not come yet.
            Next::Rest if self.shared.key_frame_wanted.load(Ordering::SeqCst) => STILL_AFTER,
            Next::Rest => IDLE,
            Next::Encode(quality) => {
                let repeated = self.sent.as_ref().is_some_and(|sent| Arc::ptr_eq(sent, &frame) || same(sent, &frame));
                let encoded = self.encode(&frame, if repeated { now } else { frame.at }, quality);
                self.sent = Some(frame);
                if encoded { Duration::ZERO } else { STILL_AFTER }
            }
        }
    }

    fn stats(&self, change: impl FnOnce(&mut EncoderStats)) {
        change(&mut self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn fps(&self) -> u32 {
        if self.layer.is_some_and(|layer| !layer.adapts) {
            return self.shared.max_fps.load(Ordering::Relaxed).max(1);
        }
        self.ladder.rung().fps.min(self.shared.max_fps.load(Ordering::Relaxed)).max(1)
    }

    /// Thins a faster source out to the frame rate, evenly.
    fn in_time(&mut self, frame: &VideoFrame) -> bool {
        let interval = Duration::from_secs(1) / self.fps();
        let due = self.next_due.unwrap_or(frame.at);
        // A quarter of an interval of grace: cameras jitter, and a 30 fps source at 30 fps must lose nothing.
        if frame.at + interval / 4 < due {
            return false;
        }
        let next = due + interval;
        self.next_due = Some(if next + interval < frame.at { frame.at + interval } else { next });
        true
    }

    fn key_frame_due(&self) -> bool {
        self.shared.key_frame_wanted.load(Ordering::SeqCst)
            && self.last_key_frame.is_none_or(|at| at.elapsed() >= KEY_FRAME_INTERVAL)
    }

    fn encode(&mut self, frame: &Arc<VideoFrame>, at: Instant, quality: Quality) -> bool {
        let started = Instant::now();
        match self.try_encode(frame, at, quality) {
            Ok(()) => {
                self.failures_in_a_row = 0;
                let took = started.elapsed();
                let interval = Duration::from_secs(1) / self.fps();
                // Letters are not made smaller; there the frame rate gives way by itself. Nor is a layer: whoever has them all leaves
                // out the highest.
                let adapts = self.layer.is_none_or(|layer| layer.adapts) && self.content == Content::Camera;
                if adapts && self.overuse.picture(took, interval, Instant::now()) {
                    tracing::info!(limit = ?self.overuse.limit(self.ladder.rung().limit), "the picture's size follows the machine");
                }
                let took = took.as_secs_f32() * 1000.0;
                self.stats(|s| s.encode_ms = if s.encode_ms == 0.0 { took } else { s.encode_ms * 0.9 + took * 0.1 });
                true
            }
            Err(error) => {
                self.encoder = None;
                self.failures_in_a_row += 1;
                // Once, twice, four times …: a source that can never be encoded must not fill the log at 30 lines a second.
                if self.failures_in_a_row.is_power_of_two() {
                    tracing::warn!(%error, times = self.failures_in_a_row, "the video encoder failed and is started again");
                }
                self.shared.key_frame_wanted.store(true, Ordering::SeqCst);
                self.stats(|s| {
                    s.failures += 1;
                    s.dropped += 1;
                });
                false
            }
        }
    }

    fn try_encode(&mut self, frame: &Arc<VideoFrame>, at: Instant, quality: Quality) -> Result<(), CodecError> {
        let bitrate = self.shared.target_bps.load(Ordering::Relaxed);
        self.ladder.update(bitrate, Instant::now());
        let limit = self.ladder.rung().limit;
        let cap = unpack(self.shared.max_size.load(Ordering::Relaxed));
        let limit = self.overuse.limit((limit.0.min(cap.0), limit.1.min(cap.1)));
        let size = match self.layer {
            None => fit_within((frame.width, frame.height), limit),
            Some(layer) => {
                let whole = fit_within((frame.width, frame.height), cap);
                let part = (whole.0 / layer.divisor.max(1), whole.1 / layer.divisor.max(1));
                let part = if layer.adapts { (part.0.min(limit.0), part.1.min(limit.1)) } else { part };
                fit_within((frame.width, frame.height), (part.0.max(LEAST_SIDE), part.1.max(LEAST_SIDE)))
            }
        };
        let wanted = settings_for(size, self.fps(), bitrate, self.content);
        let codec = *self.shared.codec.lock().unwrap_or_else(PoisonError::into_inner);

        let mut encoder = match self.encoder.take() {
            Some(encoder) if encoder.codec() == codec => encoder,
            _ => new_encoder(codec, wanted)?,
        };
        if encoder.settings() != wanted {
            encoder.configure(wanted)?;
        }
        let picture = if (frame.width, frame.height) == size {
            Arc::clone(frame)
        } else {
            let scaler = &mut self.scaler;
            self.pool
                .draw(size.0, size.1, |target| scaler.scale(frame, target))
                .map_err(|e| CodecError::Encode(e.to_string()))?
        };
        let force = self.key_frame_due();
        let ticks = self.ticks(at);
        encoder.set_quality(quality)?;
        let encoded = encoder.encode(&picture, ticks, force)?;
        let quantizer = encoder.last_quantizer();
        self.encoder = Some(encoder);
        self.refiner.encoded(Instant::now(), quality, quantizer, encoded.as_ref().map_or(0, |e| e.data.len()));
        let Some(encoded) = encoded else {
            self.stats(|s| s.dropped += 1);
            return Ok(());
        };
        if encoded.key_frame {
            self.last_key_frame = Some(Instant::now());
            self.shared.key_frame_wanted.store(false, Ordering::SeqCst);
        }
        self.count(encoded.data.len(), encoded.key_frame, size);
        (self.sink)(EncodedFrame {
            codec,
            data: encoded.data,
            rtp_timestamp: self.rtp_base.wrapping_add(u32::try_from(ticks & 0xffff_ffff).unwrap_or(0)),
            key_frame: encoded.key_frame,
            size: encoded.key_frame.then_some(size),
            at,
        });
        Ok(())
    }

    /// Capture time at 90 kHz since the first picture, always rising: two pictures never share a timestamp.
    fn ticks(&mut self, at: Instant) -> u64 {
        let origin = *self.origin.get_or_insert(at);
        let micros = u64::try_from(at.saturating_duration_since(origin).as_micros()).unwrap_or(u64::MAX);
        let mut ticks = micros.saturating_mul(u64::from(VIDEO_CLOCK_HZ)) / 1_000_000;
        if let Some(last) = self.last_ticks {
            ticks = ticks.max(last + 1);
        }
        self.last_ticks = Some(ticks);
        ticks
    }

    fn count(&mut self, bytes: usize, key_frame: bool, size: (u32, u32)) {
        let bytes = bytes as u64;
        self.window.frames += 1;
        self.window.bytes += bytes;
        let seconds = self.window.since.elapsed().as_secs_f32();
        let rates = (seconds >= 1.0).then(|| {
            let rates = (self.window.frames as f32 / seconds, (self.window.bytes * 8) as f32 / seconds);
            self.window = Window { since: Instant::now(), frames: 0, bytes: 0 };
            rates
        });
        self.stats(|s| {
            s.frames += 1;
            s.key_frames += u64::from(key_frame);
            s.bytes += bytes;
            (s.width, s.height) = size;
            if let Some((fps, bps)) = rates {
                s.fps = fps;
                s.bitrate_bps = bps as u32;
            }
        });
    }
}

#[cfg(test)]
#[path = "encoder_tests.rs"]
mod tests;
