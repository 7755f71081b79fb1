//! Token bucket.

use std::time::Duration;

/// Allows a burst and then a steady rate.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    burst: f64,
    per_second: f64,
    level: f64,
    at: Duration,
}

impl Bucket {
    pub(super) fn new((burst, per_second): (u32, u32), now: Duration) -> Self {
        Self { burst: f64::from(burst), per_second: f64::from(per_second), level: f64::from(burst), at: now }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.level = (self.level + passed * self.per_second).min(self.burst);
    }

    /// Takes one out; `false` when there is none.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.refill(now);
        let ok = self.level >= 1.0;
        if ok {
            self.level -= 1.0;
        }
        ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut b = Bucket::new((3, 2), Duration::ZERO);
        assert_eq!((0..5).filter(|_| b.take(Duration::ZERO)).count(), 3);
        assert!(b.take(Duration::from_millis(500)));
        assert!(!b.take(Duration::from_millis(500)));
        assert_eq!((0..9).filter(|_| b.take(Duration::from_secs(60))).count(), 3);
    }
}
