//! What has arrived per second.

use std::collections::VecDeque;
use std::time::Duration;

/// Length of the window, and of the short and the long one.
const WINDOW: Duration = Duration::from_millis(500);
const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_millis(2_000);
/// No figure before this much of it has passed.
const LEAST: Duration = Duration::from_millis(150);

/// Bytes acknowledged by time of arrival.
#[derive(Debug, Default)]
pub struct Throughput {
    /// Of the long window.
    arrivals: VecDeque<(Duration, usize)>,
    since: Option<Duration>,
}

impl Throughput {
    /// Takes `bytes` that arrived `at`.
    pub fn add(&mut self, at: Duration, bytes: usize) {
        // The receiver's clock went back, or began anew: what is here belongs to another time.
        if self.arrivals.back().is_some_and(|(last, _)| at + WINDOW < *last) {
            *self = Self::default();
        }
        self.since.get_or_insert(at);
        self.arrivals.push_back((at, bytes));
        while self.arrivals.front().is_some_and(|(old, _)| at.saturating_sub(*old) > LONG) {
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

    fn over(&self, window: Duration) -> Option<f64> {
        let (newest, _) = self.arrivals.back().copied()?;
        let length = newest.saturating_sub(self.since?).min(window);
        let recent = self.arrivals.iter().rev().take_while(|(at, _)| newest.saturating_sub(*at) <= window);
        let bytes: usize = recent.map(|(_, bytes)| bytes).sum();
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
            throughput.add(Duration::from_millis(n * 10), 1_000);
        }
        assert!((throughput.bps().unwrap_or(0.0) - 800_000.0).abs() < 30_000.0, "{:?}", throughput.bps());
        throughput.add(Duration::from_secs(5), 1_000);
        assert!((throughput.bps().unwrap_or(0.0) - 16_000.0).abs() < 1_000.0, "{:?}", throughput.bps());
    }

    #[test]
    fn a_clock_that_goes_back_begins_anew() {
        let mut throughput = Throughput::default();
        for n in 0..2_000u64 {
            let at = if n < 100 { 1_000_000 + n * 10 } else { n * 10 };
            throughput.add(Duration::from_millis(at), 1_000);
        }
        assert!(throughput.arrivals.len() < 220, "{}", throughput.arrivals.len());
        assert!((throughput.bps().unwrap_or(0.0) - 800_000.0).abs() < 30_000.0, "{:?}", throughput.bps());
    }

    #[test]
    fn it_says_nothing_too_early() {
        let mut throughput = Throughput::default();
        throughput.add(Duration::from_millis(5), 10_000);
        throughput.add(Duration::from_millis(50), 10_000);
        assert_eq!(throughput.bps(), None);
    }
}
