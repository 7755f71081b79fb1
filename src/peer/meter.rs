//! Bit rate over the last two seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(2);
const SLOT: Duration = Duration::from_millis(100);

/// Counts bytes in slots of 100 ms and forgets them after two seconds.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// Start of the slot and bytes in it, oldest first, at most 21.
    slots: VecDeque<(Instant, u64)>,
}

impl Meter {
    pub(super) fn add(&mut self, now: Instant, bytes: usize) {
        self.forget(now);
        match self.slots.back_mut() {
            Some((start, sum)) if now.saturating_duration_since(*start) < SLOT => *sum += bytes as u64,
            _ => self.slots.push_back((now, bytes as u64)),
        }
    }

    fn forget(&mut self, now: Instant) {
        while self.slots.front().is_some_and(|(start, _)| now.saturating_duration_since(*start) > WINDOW) {
            self.slots.pop_front();
        }
    }

    /// Bits per second; over the time since the first byte while that is shorter than the window (but at least half a second).
    pub(super) fn bps(&mut self, now: Instant) -> u64 {
        self.forget(now);
        let Some((first, _)) = self.slots.front() else { return 0 };
        let span = now.saturating_duration_since(*first).clamp(Duration::from_millis(500), WINDOW);
        let bytes: u64 = self.slots.iter().map(|(_, sum)| sum).sum();
        ((bytes * 8) as f64 / span.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_the_last_two_seconds() {
        let start = Instant::now();
        let mut meter = Meter::default();
        for i in 0..400u32 {
            meter.add(start + Duration::from_millis(10) * i, 1_250);
        }
        let now = start + Duration::from_secs(4);
        let bps = meter.bps(now);
        assert!((900_000..1_100_000).contains(&bps), "{bps}");
        assert_eq!(meter.bps(now + Duration::from_secs(3)), 0);
    }
}
