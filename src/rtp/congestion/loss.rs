//! Losses that come with the rate limit it; losses that the path has anyway do not.
//!
//! The two are told apart by trying less: where the rate was too high, as much arrives as before; where the path just
//! loses (radio), less arrives.

use std::time::Duration;

/// Packets of one verdict, and the least time for it.
const PACKETS: u32 = 40;
const LENGTH: Duration = Duration::from_millis(400);
/// Share of losses beyond what the path has anyway, from which the rate falls.
const TOO_MUCH: f64 = 0.08;
/// Verdicts in which less helped nothing, before a loss is believed to belong to the path.
const TRIES: u32 = 2;
/// The rate falls by at most this share at a time.
const DEEPEST: f64 = 0.3;
/// Less arrived when this share of the former was reached or less.
const LESS: f64 = 0.88;

/// A limit drawn from losses.
#[derive(Debug, Default)]
pub struct LossLimit {
    since: Option<Duration>,
    arrived: u32,
    lost: u32,
    bytes: usize,
    /// What the path loses at any rate.
    base: f64,
    limit_bps: Option<f64>,
    /// Bytes per second that arrived before the last fall.
    before: Option<f64>,
    in_vain: u32,
}

impl LossLimit {
    /// Takes the fate of some packets: `bytes` arrived in `arrived` of them; `target_bps` was the rate meanwhile.
    pub fn add(&mut self, arrived: u32, bytes: usize, lost: u32, target_bps: f64, now: Duration) {
        let since = *self.since.get_or_insert(now);
        self.arrived += arrived;
        self.lost += lost;
        self.bytes += bytes;
        let total = self.arrived + self.lost;
        let length = now.saturating_sub(since);
        if total < PACKETS || length < LENGTH {
            return;
        }
        let share = f64::from(self.lost) / f64::from(total);
        let rate = self.bytes as f64 / length.as_secs_f64();
        *self = Self {
            since: Some(now),
            base: self.base,
            limit_bps: self.limit_bps,
            before: self.before,
            in_vain: self.in_vain,
            ..Self::default()
        };
        // It may get better at any time, and slowly does so in our belief.
        if share < self.base {
            self.base = self.base * 0.8 + share * 0.2;
        }
        let excess = share - self.base;
        if excess <= TOO_MUCH {
            (self.before, self.in_vain) = (None, 0);
            self.limit_bps = self.limit_bps.map(|limit| limit * 1.05);
            return;
        }
        match self.before {
            Some(before) if rate < before * LESS => self.in_vain += 1,
            Some(_) => self.in_vain = 0,
            None => {}
        }
        if self.in_vain >= TRIES {
            self.base = share;
            (self.limit_bps, self.before, self.in_vain) = (None, None, 0);
            return;
        }
        self.before = Some(rate);
        self.limit_bps = Some(target_bps * (1.0 - (excess * 1.5).min(DEEPEST)));
    }

    /// The limit, while there is one.
    pub fn limit_bps(&self) -> Option<f64> {
        self.limit_bps
    }

    /// Forgets a limit that no longer limits.
    pub fn release_above(&mut self, bps: f64) {
        if self.limit_bps.is_some_and(|limit| limit > bps * 1.2) {
            self.limit_bps = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_of_the_path_do_not_starve_the_rate() {
        let mut limit = LossLimit::default();
        let mut lowest: f64 = 2e6;
        for n in 0..100u64 {
            let target = limit.limit_bps().map_or(2e6, |limit| limit.min(2e6));
            lowest = lowest.min(target);
            let bytes = (target / 16.0 * 0.7) as usize;
            limit.add(35, bytes, 15, target, Duration::from_millis(n * 500));
        }
        assert!(lowest > 0.6e6, "{lowest}");
        assert_eq!(limit.limit_bps(), None);
    }

    #[test]
    fn losses_by_too_much_do_limit() {
        let mut limit = LossLimit::default();
        let mut target = 4e6;
        for n in 0..60u64 {
            // A path of 1 Mbit/s that drops what is more.
            let share = (1.0f64 - 1e6 / target).max(0.0);
            let lost = (share * 50.0).round() as u32;
            let bytes = (target.min(1e6) / 16.0) as usize;
            limit.add(50 - lost, bytes, lost, target, Duration::from_millis(n * 500));
            target = limit.limit_bps().map_or(4e6, |limit| limit.min(4e6));
            if n > 10 {
                assert!((0.7e6..1.3e6).contains(&target), "{n}: {target}");
            }
        }
    }
}
