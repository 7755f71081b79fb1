//! How much may leave at this tick.

use std::time::Duration;

/// A tick that comes later than this lets out no more: the timer slept, not the path.
const LONGEST: Duration = Duration::from_millis(20);

/// Meters bytes out at a rate. A packet goes whole, and what it was too much is waited for: rounding each tick up to a
/// packet would be several times a low rate.
#[derive(Debug, Default)]
pub struct Pacer {
    /// Bytes that may leave now; negative after a packet that was larger.
    credit_bytes: f64,
    at: Option<Duration>,
}

impl Pacer {
    /// A tick at `rate_bps`, with `waiting_bytes` to leave within `drain` whatever the rate is. Of what earlier ticks did not
    /// need no more is left than the rate gives in `saved`. `now` counts from any origin.
    pub fn tick(&mut self, rate_bps: f64, waiting_bytes: usize, drain: Duration, saved: Duration, now: Duration) {
        let passed = self.at.map_or(LONGEST, |at| now.saturating_sub(at)).min(LONGEST).as_secs_f64();
        self.at = Some(now);
        let fresh = (rate_bps / 8.0 * passed).max(waiting_bytes as f64 * passed / drain.as_secs_f64());
        self.credit_bytes = (self.credit_bytes + fresh).min(fresh.max(rate_bps / 8.0 * saved.as_secs_f64()));
    }

    /// At least so many bytes leave now.
    pub fn burst(&mut self, bytes: usize) {
        self.credit_bytes = self.credit_bytes.max(bytes as f64);
    }

    /// Whether another packet may leave.
    pub fn open(&self) -> bool {
        self.credit_bytes > 0.0
    }

    /// A packet left.
    pub fn left(&mut self, bytes: usize) {
        self.credit_bytes -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that leave of `backlog` packets of 1150 bytes within `ticks` of 5 ms.
    fn run(rate_bps: f64, backlog: usize, drain: Duration, ticks: u32) -> usize {
        let (mut pacer, mut left) = (Pacer::default(), 0);
        for tick in 0..ticks {
            let waiting = (backlog - left) * 1_150;
            pacer.tick(rate_bps, waiting, drain, Duration::ZERO, Duration::from_millis(5) * tick);
            while pacer.open() && left < backlog {
                pacer.left(1_150);
                left += 1;
            }
        }
        left * 1_150
    }

    #[test]
    fn a_low_rate_is_not_rounded_up_to_a_packet_a_tick() {
        for kbps in [300.0, 800.0, 1_500.0, 5_000.0] {
            let bytes = run(kbps * 1e3, 100_000, Duration::from_secs(1_000_000), 400);
            let expected = kbps * 1e3 / 8.0 * 2.0;
            assert!((bytes as f64 / expected - 1.0).abs() < 0.03, "{kbps}: {bytes} of {expected}");
        }
    }

    #[test]
    fn a_backlog_leaves_in_time_at_any_rate() {
        let bytes = run(100e3, 100, Duration::from_millis(200), 80);
        assert!(bytes > 60 * 1_150, "{bytes}");
    }

    #[test]
    fn a_pause_saves_nothing_up() {
        let mut pacer = Pacer::default();
        for seconds in [0, 60] {
            pacer.tick(1e6, 0, Duration::from_secs(1), Duration::ZERO, Duration::from_secs(seconds));
        }
        let mut packets = 0;
        while pacer.open() {
            pacer.left(1_150);
            packets += 1;
        }
        assert!(packets <= 3, "{packets}");
    }

    #[test]
    fn what_is_saved_lets_one_frame_out_at_once_and_not_two() {
        let mut pacer = Pacer::default();
        for ms in (0..1_000).step_by(5) {
            pacer.tick(1e6, 0, Duration::from_secs(1), Duration::from_millis(40), Duration::from_millis(ms));
        }
        let mut bytes = 0;
        while pacer.open() {
            pacer.left(1_000);
            bytes += 1_000;
        }
        assert_eq!(bytes, 5_000);
    }
}
