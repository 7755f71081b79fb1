//! What callbacks of a device report: how many came, when, and how much sound they moved.

use super::clock::Clock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Frames asked for per callback: 5 ms. A sound server keeps three of them, and takes powers of two anyway; PulseAudio's
/// default would be 2 s.
pub(crate) const CALLBACK_FRAMES: u32 = 256;
/// Rings hold four callbacks of this length at least, in ms; when full the newest samples are dropped. A device whose callbacks
/// are longer gets larger ones.
pub(crate) const CALLBACK_MS: u32 = 50;
/// The ring of a device at 48 kHz, and of slower ones.
const RING_FRAMES_LEAST: u32 = 9_600;
/// Share of the longest callback that is forgotten with each one.
const FORGETTING: u32 = 128;
/// Unit of the time in a [`Mark`], in µs: 32 bits of it are 19 hours.
const TICK_US: u128 = 16;

/// Frames of the ring of a device at this rate, with callbacks of up to `callback_ms`.
pub(crate) fn ring_frames(rate_hz: u32, callback_ms: u32) -> usize {
    (rate_hz.div_ceil(1_000) * callback_ms * 4).max(RING_FRAMES_LEAST) as usize
}

/// Frames of all callbacks at the time of one of them; both run over and are good for differences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Mark {
    pub(crate) fn new(at: Duration, frames: u64) -> Self {
        let ticks = (at.as_micros() / TICK_US) as u32;
        Self((u64::from(ticks) << 32) | u64::from(frames as u32))
    }

    /// Time and frames from `earlier` on. Both are moments of callbacks, so that no part of one is counted.
    pub(crate) fn since(self, earlier: Self) -> (Duration, u64) {
        let ticks = ((self.0 >> 32) as u32).wrapping_sub((earlier.0 >> 32) as u32);
        let frames = (self.0 as u32).wrapping_sub(earlier.0 as u32);
        (Duration::from_micros(u64::from(ticks) * TICK_US as u64), u64::from(frames))
    }
}

/// What callbacks report.
#[derive(Debug)]
pub(crate) struct Pulse {
    clock: Clock,
    began: Instant,
    /// The longest callback that is believed: a quarter of the ring.
    most: u32,
    pub(crate) calls: AtomicU64,
    /// The last callback, as a [`Mark`].
    mark: AtomicU64,
    /// Frames of the longest callback of late.
    frames: AtomicU32,
    pub(crate) failed: AtomicBool,
    /// Frames that the ring had no sound for.
    pub(crate) missing: AtomicU64,
    /// Frames a second as found by counting, where the device is not true to what it says; else 0.
    pub(crate) true_rate_hz: AtomicU32,
    /// Whether the audio thread has something to play and wants to be woken.
    pub(crate) active: AtomicBool,
}

impl Pulse {
    /// For a device with a ring of so many frames.
    pub(crate) fn new(ring_frames: usize, clock: Clock) -> Self {
        Self {
            began: clock.now(),
            clock,
            most: ring_frames as u32 / 4,
            calls: AtomicU64::default(),
            mark: AtomicU64::default(),
            frames: AtomicU32::default(),
            failed: AtomicBool::default(),
            missing: AtomicU64::default(),
            true_rate_hz: AtomicU32::default(),
            active: AtomicBool::default(),
        }
    }

    /// Frames of the longest callback of late, as far as known and the ring has room for.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed).clamp(CALLBACK_FRAMES / 4, self.most) as usize
    }

    /// As [`Self::frames`], where that is more than the ring has room for.
    pub(crate) fn too_long(&self) -> Option<u32> {
        Some(self.frames.load(Ordering::Relaxed)).filter(|frames| *frames > self.most)
    }

    /// Frames filled with silence so far.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Says whether callbacks of the speaker shall wake the audio thread.
    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// The rate at which frames really come or go.
    pub(crate) fn rate_hz(&self, told_hz: u32) -> u32 {
        match self.true_rate_hz.load(Ordering::Relaxed) {
            0 => told_hz,
            hz => hz,
        }
    }

    /// The last callback.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.mark.load(Ordering::Relaxed))
    }

    /// Time since the last callback.
    pub(crate) fn since_last(&self) -> Duration {
        Mark::new(self.clock.now().saturating_duration_since(self.began), 0).since(self.mark()).0
    }

    /// Notes a callback. Only that one device calls it.
    pub(crate) fn beat(&self, frames: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let total = u64::from(self.mark.load(Ordering::Relaxed) as u32) + frames as u64;
        let at = self.clock.now().saturating_duration_since(self.began);
        self.mark.store(Mark::new(at, total).0, Ordering::Relaxed);
        // Callbacks of two sizes by turns are all provided for; a long one alone is forgotten within some hundred.
        let longest = self.frames.load(Ordering::Relaxed);
        let forgotten = longest.saturating_sub((longest / FORGETTING).max(1));
        self.frames.store(forgotten.max(frames as u32), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_count_from_callback_to_callback_also_where_they_run_over() {
        let day = Duration::from_secs(86_400);
        let (first, second) =
            (Mark::new(day, 86_400 * 48_000), Mark::new(day + Duration::from_secs(2), 86_402 * 48_000));
        assert_eq!(second.since(first), (Duration::from_secs(2), 96_000));
        let (first, second) = (Mark::new(day, u64::from(u32::MAX)), Mark::new(day, u64::from(u32::MAX) + 480));
        assert_eq!(second.since(first), (Duration::ZERO, 480));
        // A ring holds 200 ms at any rate.
        assert_eq!([8_000, 48_000, 192_000].map(|hz| ring_frames(hz, CALLBACK_MS)), [9_600, 9_600, 38_400]);
    }

    #[test]
    fn the_longest_callback_of_late_counts() {
        let pulse = Pulse::new(9_600, Clock::default());
        assert_eq!(pulse.frames(), 64);
        for _ in 0..20 {
            pulse.beat(64);
            pulse.beat(1_024);
        }
        assert_eq!(pulse.frames(), 1_024);
        (0..1_000).for_each(|_| pulse.beat(256));
        assert_eq!((pulse.frames(), pulse.too_long()), (256, None));
        pulse.beat(8_192);
        assert_eq!((pulse.frames(), pulse.too_long()), (2_400, Some(8_192)));
    }
}
