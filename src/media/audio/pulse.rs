//! What callbacks of a device report: how many came, when, and how much sound they moved.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Frames asked for per callback: 5 ms. A sound server keeps three of them, and takes powers of two anyway; PulseAudio's
/// default would be 2 s.
pub(crate) const CALLBACK_FRAMES: u32 = 256;
/// Ring between callback and audio thread, in ms; when full the newest samples are dropped.
const RING_MS: u32 = 200;
/// The ring of a device at 48 kHz, and of slower ones.
const RING_FRAMES_LEAST: u32 = 9_600;
/// Unit of the time in a [`Mark`], in µs: 32 bits of it are 19 hours.
const TICK_US: u128 = 16;

/// Frames of the ring of a device at this rate.
pub(crate) fn ring_frames(rate_hz: u32) -> usize {
    // At low rates a callback may be longer than a quarter of that.
    (rate_hz / 1_000 * RING_MS).max(RING_FRAMES_LEAST) as usize
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
    began: Instant,
    /// The longest callback that is believed: a quarter of the ring.
    most: u32,
    pub(crate) calls: AtomicU64,
    /// The last callback, as a [`Mark`].
    mark: AtomicU64,
    /// Frames of the last callback.
    pub(crate) frames: AtomicU32,
    pub(crate) failed: AtomicBool,
    /// Frames that the ring had no sound for.
    pub(crate) missing: AtomicU64,
    /// Frames a second as found by counting, where the device is not true to what it says; else 0.
    pub(crate) true_rate_hz: AtomicU32,
    /// Whether the audio thread has something to play and wants to be woken.
    pub(crate) active: AtomicBool,
}

impl Pulse {
    /// For a device at this rate.
    pub(crate) fn new(rate_hz: u32) -> Self {
        Self {
            began: Instant::now(),
            most: ring_frames(rate_hz) as u32 / 4,
            calls: AtomicU64::default(),
            mark: AtomicU64::default(),
            frames: AtomicU32::default(),
            failed: AtomicBool::default(),
            missing: AtomicU64::default(),
            true_rate_hz: AtomicU32::default(),
            active: AtomicBool::default(),
        }
    }

    /// Frames of a callback, as far as known.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed).clamp(CALLBACK_FRAMES / 4, self.most) as usize
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

    /// Notes a callback. Only that one device calls it.
    pub(crate) fn beat(&self, frames: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let total = u64::from(self.mark.load(Ordering::Relaxed) as u32) + frames as u64;
        self.mark.store(Mark::new(self.began.elapsed(), total).0, Ordering::Relaxed);
        self.frames.store(frames as u32, Ordering::Relaxed);
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
        assert_eq!([8_000, 48_000, 192_000].map(ring_frames), [9_600, 9_600, 38_400]);
    }
}
