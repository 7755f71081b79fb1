//! What goes over a path beside the picture.

use std::time::Duration;

/// The mean follows over this time.
const MEAN: Duration = Duration::from_secs(1);

/// What repeats, or sound, take of a path in bit/s, as a mean over time.
#[derive(Debug, Default)]
pub struct Beside {
    bytes: u64,
    bps: f64,
}

impl Beside {
    /// Takes the bytes sent so far, `passed` since the last time; what they take in bit/s.
    pub fn follow(&mut self, bytes: u64, passed: Duration) -> f64 {
        let fresh = bytes.saturating_sub(std::mem::replace(&mut self.bytes, bytes)) as f64 * 8.0;
        let passed = passed.as_secs_f64().max(1e-3);
        let share = 1.0 - (-passed / MEAN.as_secs_f64()).exp();
        self.bps += (fresh / passed - self.bps) * share;
        self.bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_by_the_time_in_which_they_left() {
        let second = |tick: u64, burst: u64| {
            let mut beside = Beside::default();
            beside.follow(burst, Duration::from_millis(tick));
            (1..1_000 / tick).map(|_| beside.follow(burst, Duration::from_millis(tick))).last()
        };
        let (slow, fast) = (second(200, 12_500).unwrap_or(0.0), second(25, 12_500).unwrap_or(0.0));
        assert!((slow / fast - 1.0).abs() < 0.15 && slow < 100_000.0, "{slow} {fast}");
    }
}
