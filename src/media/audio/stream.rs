//! One remote voice as the call engine holds it.

use super::jitter::JitterStats;
use super::meter::ToneMeter;
use crate::rtp::frame::AudioPacket;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Packets that may wait for the audio thread; when full the oldest is dropped (it is the one that is too late).
const INBOX_LIMIT: usize = 512;

/// Delays kept for the report, one in five seconds: the last hour.
const DELAYS: usize = 720;

/// The most that sound waits for a picture, in ms.
const LEAST_DELAY_MS: u32 = 150;
/// After this long without a word from the picture, sound waits for it no more.
const LEAST_DELAY_HOLDS: Duration = Duration::from_secs(3);

/// Figures of one stream. Durations count from the stream's beginning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlayoutStats {
    /// Packets received, without duplicates.
    pub packets: u64,
    /// Packets that never came in time to be heard or used.
    pub packets_lost: u64,
    /// Packets that came twice.
    pub packets_duplicate: u64,
    /// Packets that came after their time; contained in `packets_lost`.
    pub packets_late: u64,
    /// Bytes of Opus received.
    pub bytes: u64,
    /// Made-up sound, in ms (silence of a sender that sends nothing does not count).
    pub concealed_ms: u64,
    /// Sound regained from forward error correction, in ms.
    pub fec_ms: u64,
    /// Sound cut out to shorten the delay, in ms.
    pub accelerated_ms: u64,
    /// Sound stretched in to lengthen the delay, in ms.
    pub decelerated_ms: u64,
    /// Inter-arrival jitter as RFC 3550 6.4.1 defines it, in ms.
    pub jitter_ms: f32,
    /// Delay from the fastest recent packet's arrival to the loudspeaker side of the mixer, in ms.
    pub playout_delay_ms: f32,
    /// What the delay is steered to, in ms.
    pub target_delay_ms: f32,
    /// The delay after each five seconds of sound, oldest first, of the last hour.
    pub delays_ms: Vec<u16>,
    /// What the delay was steered to at those moments.
    pub targets_ms: Vec<u16>,
    /// Level of the last 100 ms before the gain, in dBFS; `None` before the first packet.
    pub level_dbfs: Option<f32>,
    /// Strongest frequency of the last second, 100–2 500 Hz; `None` when silent.
    pub tone_hz: Option<f32>,
    /// When the last lip-sync click was played.
    pub last_click_at: Option<Instant>,
    /// When the first real sound of the stream was played.
    pub first_played_at: Option<Instant>,
}

#[derive(Default)]
pub(crate) struct StreamFigures {
    pub(crate) jitter: JitterStats,
    pub(crate) level_dbfs: Option<f32>,
    pub(crate) tone: ToneMeter,
    pub(crate) last_click_at: Option<Instant>,
    pub(crate) first_played_at: Option<Instant>,
    /// An RTP timestamp and when it is heard.
    pub(crate) anchor: Option<(u32, Instant)>,
    /// The delay after each five seconds of sound, and what it was to be, in ms.
    delays_ms: VecDeque<(u16, u16)>,
}

impl StreamFigures {
    /// Keeps the delay of now for the report; the oldest goes when there are too many.
    pub(crate) fn note_delay(&mut self) {
        if self.delays_ms.len() >= DELAYS {
            self.delays_ms.pop_front();
        }
        let ms = |ms: f32| ms.round() as u16;
        self.delays_ms.push_back((ms(self.jitter.playout_delay_ms), ms(self.jitter.target_delay_ms)));
    }
}

/// What handle and audio thread share.
pub(crate) struct StreamShared {
    inbox: Mutex<VecDeque<AudioPacket>>,
    gain: AtomicU32,
    expected_active: AtomicBool,
    closed: AtomicBool,
    overflow: AtomicU64,
    level: AtomicU32,
    /// How long sound waits for its picture, in ms, and since when that is known.
    least_delay: Mutex<Option<(u32, Instant)>>,
    pub(crate) figures: Mutex<StreamFigures>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

/// A poisoned lock only means that another thread panicked between two plain assignments: the data are still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StreamShared {
    pub(crate) fn new(wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self {
            inbox: Mutex::new(VecDeque::new()),
            gain: AtomicU32::new(1.0f32.to_bits()),
            expected_active: AtomicBool::new(true),
            closed: AtomicBool::new(false),
            overflow: AtomicU64::new(0),
            level: AtomicU32::new((-120.0f32).to_bits()),
            least_delay: Mutex::new(None),
            figures: Mutex::new(StreamFigures::default()),
            wake,
        }
    }

    /// Takes all waiting packets into `into`.
    pub(crate) fn take_packets(&self, into: &mut Vec<AudioPacket>) {
        into.extend(lock(&self.inbox).drain(..));
    }

    pub(crate) fn gain(&self) -> f32 {
        f32::from_bits(self.gain.load(Ordering::Relaxed))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn expected_active(&self) -> bool {
        self.expected_active.load(Ordering::Relaxed)
    }

    /// The delay that sound keeps for its picture, in ms.
    pub(crate) fn least_delay_ms(&self, now: Instant) -> u32 {
        let least = *lock(&self.least_delay);
        least.filter(|(_, at)| now.saturating_duration_since(*at) < LEAST_DELAY_HOLDS).map_or(0, |(ms, _)| ms)
    }

    pub(crate) fn set_level(&self, dbfs: f32) {
        self.level.store(dbfs.to_bits(), Ordering::Relaxed);
    }
}

/// Playout of one remote stream; made by [`super::AudioEngine::open_stream`]. Clones are the same stream.
///
/// The stream ends when [`Self::close`] is called or its last handle is dropped.
#[derive(Clone)]
pub struct PlayoutStream {
    pub(crate) shared: Arc<StreamShared>,
    _close_on_drop: Arc<CloseOnDrop>,
}

struct CloseOnDrop(Arc<StreamShared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for PlayoutStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlayoutStream").field("gain", &self.shared.gain()).finish_non_exhaustive()
    }
}

impl PlayoutStream {
    pub(crate) fn new(shared: Arc<StreamShared>) -> Self {
        Self { _close_on_drop: Arc::new(CloseOnDrop(Arc::clone(&shared))), shared }
    }

    /// Hands in a received packet, in any order. Never blocks for long and never fails: duplicates, late and malformed
    /// packets are counted and dropped.
    pub fn push(&self, packet: AudioPacket) {
        let was_empty = {
            let mut inbox = lock(&self.shared.inbox);
            if inbox.len() >= INBOX_LIMIT {
                inbox.pop_front();
                self.shared.overflow.fetch_add(1, Ordering::Relaxed);
            }
            inbox.push_back(packet);
            inbox.len() == 1
        };
        if was_empty {
            (self.shared.wake)();
        }
    }

    /// Volume of this person: 0 to 2, 1 is unchanged. Changes are ramped over 10 ms.
    pub fn set_gain(&self, gain: f32) {
        let gain = if gain.is_finite() { gain.clamp(0.0, 2.0) } else { 1.0 };
        self.shared.gain.store(gain.to_bits(), Ordering::Relaxed);
    }

    /// Says whether the sender announced an open microphone. While it is announced closed, missing packets are silence,
    /// not loss.
    pub fn set_expected_active(&self, active: bool) {
        self.shared.expected_active.store(active, Ordering::Relaxed);
    }

    /// Level of the last 10 ms before the gain, in dBFS, −120 when silent. Cheap: for meters.
    pub fn level_dbfs(&self) -> f32 {
        f32::from_bits(self.shared.level.load(Ordering::Relaxed))
    }

    /// When the sample with this RTP timestamp is (or was) heard, from the current playout position; `None` before
    /// anything was played. For lip sync.
    pub fn playout_time(&self, rtp_timestamp: u32) -> Option<Instant> {
        let (anchor, at) = lock(&self.shared.figures).anchor?;
        let ahead = rtp_timestamp.wrapping_sub(anchor) as i32;
        let offset =
            Duration::from_micros(u64::from(ahead.unsigned_abs()) * 1_000_000 / u64::from(super::SAMPLE_RATE_HZ));
        if ahead >= 0 { at.checked_add(offset) } else { at.checked_sub(offset) }
    }

    /// Keeps the sound back for so long at least, 150 ms at most, because its picture takes longer. Holds for 3 s.
    pub fn set_least_delay(&self, ms: u32, now: Instant) {
        *lock(&self.shared.least_delay) = (ms > 0).then_some((ms.min(LEAST_DELAY_MS), now));
    }

    /// How long the sound waits now, in ms. Cheap.
    pub fn delay_ms(&self) -> f32 {
        lock(&self.shared.figures).jitter.playout_delay_ms
    }

    /// When the last click of a test tone was heard. Cheap.
    pub fn last_click_at(&self) -> Option<Instant> {
        lock(&self.shared.figures).last_click_at
    }

    /// All figures. Computes a spectrum: for once a second, not for every frame.
    pub fn stats(&self) -> PlayoutStats {
        let (jitter, level_dbfs, tone, last_click_at, first_played_at, delays_ms) = {
            let f = lock(&self.shared.figures);
            let delays_ms: Vec<(u16, u16)> = f.delays_ms.iter().copied().collect();
            (f.jitter, f.level_dbfs, f.tone.clone(), f.last_click_at, f.first_played_at, delays_ms)
        };
        let ms = |samples: u64| samples * 1_000 / u64::from(super::SAMPLE_RATE_HZ);
        PlayoutStats {
            packets: jitter.packets,
            packets_lost: jitter.packets_lost + self.shared.overflow.load(Ordering::Relaxed),
            packets_duplicate: jitter.packets_duplicate,
            packets_late: jitter.packets_late,
            bytes: jitter.bytes,
            concealed_ms: ms(jitter.concealed_samples),
            fec_ms: ms(jitter.fec_samples),
            accelerated_ms: ms(jitter.accelerated_samples),
            decelerated_ms: ms(jitter.decelerated_samples),
            jitter_ms: jitter.jitter_ms,
            playout_delay_ms: jitter.playout_delay_ms,
            target_delay_ms: jitter.target_delay_ms,
            targets_ms: delays_ms.iter().map(|(_, target)| *target).collect(),
            delays_ms: delays_ms.into_iter().map(|(delay, _)| delay).collect(),
            level_dbfs,
            tone_hz: tone.tone_hz(),
            last_click_at,
            first_played_at,
        }
    }

    /// Ends the stream: it leaves the mixer with its next block.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}
