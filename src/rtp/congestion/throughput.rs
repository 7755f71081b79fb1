//! What has arrived per second.

use std::collections::VecDeque;
use std::time::Duration;

/// Length of the window, and of the short and the long one.
const WINDOW: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_millis(2_000);
/// A queue gave out its packets at the path's own rate, if it did so for this long and for so many of them.
const BUSY: Duration = Duration::from_millis(60);
const BUSY_PACKETS: usize = 8;
/// No figure before this much of it has passed.
const LEAST: Duration = Duration::from_millis(150);

/// A packet at the receiver.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    at: Duration,
    bytes: usize,
    /// It had to wait on the way.
    queued: bool,
}

/// Bytes acknowledged by time of arrival.
#[derive(Debug, Default)]
pub struct Throughput {
    /// Of the long window.
    arrivals: VecDeque<Arrived>,
    since: Option<Duration>,
}

impl Throughput {
    /// Takes `bytes` that arrived `at`; whether they had to wait on the way.
    pub fn add(&mut self, at: Duration, bytes: usize, queued: bool) {
        // The receiver's clock went back, or began anew: what is here belongs to another time.
        if self.arrivals.back().is_some_and(|last| at + WINDOW < last.at) {
            *self = Self::default();
        }
        self.since.get_or_insert(at);
        self.arrivals.push_back(Arrived { at, bytes, queued });
        while self.arrivals.front().is_some_and(|old| at.saturating_sub(old.at) > LONG) {
            self.arrivals.pop_front();
        }
    }

    /// Bits per second over the window, once there is enough of it.
    pub fn bps(&self) -> Option<f64> {
        self.over(WINDOW)
    }

    /// The same over the last fifth of a second: while a queue stands, that is what the path takes now.
    pub fn short_bps(&self) -> Option<f64> {
        self.over(SHORT)
    }

    /// The same over the last two seconds: what a moment in which nothing came does not hide.
    pub fn long_bps(&self) -> Option<f64> {
        self.over(LONG)
    }

    /// At which rate the queue gave out the last packets that had to wait in it: what the path takes, also where the source
    /// sends now much and now little.
    pub fn busy_bps(&self) -> Option<f64> {
        let newest = self.arrivals.back()?.at;
        let waited = |old: &&Arrived| old.queued && newest.saturating_sub(old.at) <= WINDOW;
        let (mut first, mut bytes, mut packets) = (None, 0, 0);
        for old in self.arrivals.iter().rev().take_while(waited) {
            // The first one opens the interval; its own bytes took time before.
            bytes += first.replace(*old).map_or(0, |newer: Arrived| newer.bytes);
            packets += 1;
        }
        let length = newest.saturating_sub(first?.at);
        (length >= BUSY && packets >= BUSY_PACKETS).then(|| bytes as f64 * 8.0 / length.as_secs_f64())
    }

    fn over(&self, window: Duration) -> Option<f64> {
        let newest = self.arrivals.back()?.at;
        let length = newest.saturating_sub(self.since?).min(window);
        let recent = self.arrivals.iter().rev().take_while(|old| newest.saturating_sub(old.at) <= window);
        let bytes: usize = recent.map(|old| old.bytes).sum();
        (length >= LEAST).then(|| bytes as f64 * 8.0 / length.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_the_last_half_second() {
        let mut throughput = Throughput::default();
        for n in 0..100u64 {
            throughput.add(Duration::from_millis(n * 10), 1_000, false);
        }
        assert!((throughput.bps().unwrap_or(0.0) - 800_000.0).abs() < 30_000.0, "{:?}", throughput.bps());
        throughput.add(Duration::from_secs(5), 1_000, false);
        assert!((throughput.bps().unwrap_or(0.0) - 16_000.0).abs() < 1_000.0, "{:?}", throughput.bps());
    }

    #[test]
    fn a_clock_that_goes_back_begins_anew() {
        let mut throughput = Throughput::default();
        for n in 0..2_000u64 {
            let at = if n < 100 { 1_000_000 + n * 10 } else { n * 10 };
            throughput.add(Duration::from_millis(at), 1_000, false);
        }
        assert!(throughput.arrivals.len() < 220, "{}", throughput.arrivals.len());
        assert!((throughput.bps().unwrap_or(0.0) - 800_000.0).abs() < 30_000.0, "{:?}", throughput.bps());
    }

    #[test]
    fn a_burst_that_waits_shows_the_path_and_not_the_pause_before_it() {
        let mut throughput = Throughput::default();
        throughput.add(Duration::ZERO, 1_000, false);
        for n in 0..12u64 {
            throughput.add(Duration::from_millis(2_000 + n * 8), 1_000, n > 1);
        }
        assert!(throughput.bps().is_some_and(|bps| bps < 250_000.0), "{:?}", throughput.bps());
        assert!(throughput.busy_bps().is_some_and(|bps| (bps - 1e6).abs() < 1e4), "{:?}", throughput.busy_bps());
        throughput.add(Duration::from_millis(2_100), 1_000, false);
        assert_eq!(throughput.busy_bps(), None);
    }

    #[test]
    fn it_says_nothing_too_early() {
        let mut throughput = Throughput::default();
        throughput.add(Duration::from_millis(5), 10_000, false);
        throughput.add(Duration::from_millis(50), 10_000, false);
        assert_eq!(throughput.bps(), None);
    }
}
