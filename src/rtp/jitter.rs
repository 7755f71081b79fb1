//! Inter-arrival jitter as RFC 3550 §6.4.1 and appendix A.8 define it.

use std::time::{Duration, Instant};

/// Smoothed deviation of arrival spacing from timestamp spacing.
#[derive(Debug, Clone)]
pub struct Jitter {
    clock_hz: u32,
    last: Option<(u32, Instant)>,
    ticks: f64,
}

impl Jitter {
    /// An estimator for timestamps at `clock_hz` (Hz, not zero; zero is taken as one).
    pub fn new(clock_hz: u32) -> Self {
        Self { clock_hz: clock_hz.max(1), last: None, ticks: 0.0 }
    }

    /// Takes one packet that arrived in order and was not a retransmission.
    pub fn update(&mut self, timestamp: u32, arrived: Instant) {
        if let Some((last_timestamp, last_arrived)) = self.last {
            // A step of more than 2^31 ticks is a step backwards.
            let sent = f64::from(timestamp.wrapping_sub(last_timestamp) as i32);
            let spacing = arrived.saturating_duration_since(last_arrived).as_secs_f64();
            let deviation = (spacing * f64::from(self.clock_hz) - sent).abs();
            // A jump of more than ten seconds is a new timeline, not jitter.
            if deviation < f64::from(self.clock_hz) * 10.0 {
                self.ticks += (deviation - self.ticks) / 16.0;
            }
        }
        self.last = Some((timestamp, arrived));
    }

    /// The jitter in timestamp units.
    pub fn ticks(&self) -> u32 {
        self.ticks as u32
    }

    /// The jitter as time.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.ticks / f64::from(self.clock_hz))
    }

    /// The jitter in milliseconds.
    pub fn ms(&self) -> f64 {
        self.ticks * 1000.0 / f64::from(self.clock_hz)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_spacing_has_none_and_a_late_packet_counts_a_sixteenth() {
        let start = Instant::now();
        let mut j = Jitter::new(90_000);
        // Timestamps wrap on the way.
        let first = u32::MAX - 4_000;
        for i in 0..10u32 {
            j.update(first.wrapping_add(i * 3_000), start + Duration::from_nanos(33_333_333) * i);
        }
        assert!(j.ms() < 0.01, "{}", j.ms());
        j.update(first.wrapping_add(30_000), start + Duration::from_nanos(333_333_330) + Duration::from_millis(16));
        assert!((j.ms() - 1.0).abs() < 0.05, "{}", j.ms());
    }

    #[test]
    fn a_new_timeline_is_not_jitter() {
        let start = Instant::now();
        let mut j = Jitter::new(90_000);
        j.update(0, start);
        j.update(2_000_000_000, start + Duration::from_millis(33));
        assert!(j.ms() < f64::EPSILON);
    }
}
