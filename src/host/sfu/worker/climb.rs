//! When a viewer may get a higher layer again after one that was too much.

/// After a fall of the choice nothing rises for this long, in µs ...
const CALM_US: u64 = 1_500_000;
/// ... and for twice as long each time that the rise before it was wrong, up to this.
const CALM_MAX_US: u64 = 24_000_000;
/// A fall this soon after a rise, by an estimate that has fallen, says that the rise was wrong.
const REGRET_US: u64 = 5_000_000;
/// With so much more than what turned out to be too little, in percent, nothing is waited for.
const MUCH_MORE_PERCENT: u64 = 150;

/// What became of the rises of one viewer's picture. A layer begins with a key frame: on a path that is between two layers
/// each try costs a queue, and a picture that changes its sharpness every few seconds is worse than the lower one.
#[derive(Debug, Clone, Default)]
pub(super) struct Climb {
    /// When the choice last rose, and the estimate in bit/s by which it did.
    rose: Option<(u64, u64)>,
    fell_us: Option<u64>,
    /// How often in a row a rise was wrong.
    wrong: u32,
}

impl Climb {
    /// The choice is a higher layer than before. Nothing is learnt from one without an estimate.
    pub(super) fn rose(&mut self, estimate_bps: Option<u64>, now_us: u64) {
        self.rose = estimate_bps.map(|bps| (now_us, bps));
    }

    /// It is a lower one.
    pub(super) fn fell(&mut self, estimate_bps: Option<u64>, now_us: u64) {
        let less = |bps| estimate_bps.is_some_and(|now_bps| now_bps < bps);
        let wrong = self.rose.is_some_and(|(at, bps)| now_us.saturating_sub(at) < REGRET_US && less(bps));
        self.wrong = if wrong { self.wrong.saturating_add(1) } else { 0 };
        self.fell_us = Some(now_us);
    }

    /// Whether more may be chosen than last time.
    pub(super) fn may_rise(&self, estimate_bps: Option<u64>, now_us: u64) -> bool {
        let Some(fell_us) = self.fell_us else { return true };
        let calm_us = CALM_US.saturating_mul(1 << self.wrong.min(5)).min(CALM_MAX_US);
        let passed_us = now_us.saturating_sub(fell_us);
        let much_more =
            |(_, bps): (u64, u64)| estimate_bps.is_none_or(|now_bps| now_bps * 100 >= bps * MUCH_MORE_PERCENT);
        passed_us >= calm_us || (passed_us >= CALM_US && self.rose.is_some_and(much_more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn tries_that_fail_become_seldom_and_much_more_is_taken_at_once() {
        let mut climb = Climb::default();
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert!(climb.may_rise(Some(400_000), now));
            climb.rose(Some(400_000), now);
            climb.fell(Some(200_000), now + SECOND);
            let fell = now + SECOND;
            now = (fell..).step_by(100_000).find(|at| climb.may_rise(Some(400_000), *at)).unwrap_or(u64::MAX);
            waits.push((now - fell) / 100_000);
        }
        assert_eq!(waits, [30, 60, 120, 240, 240, 240]);
        climb.rose(Some(400_000), now);
        climb.fell(Some(200_000), now + SECOND);
        assert!(!climb.may_rise(Some(550_000), now + 3 * SECOND) && climb.may_rise(Some(650_000), now + 3 * SECOND));
    }

    #[test]
    fn what_stood_for_a_while_or_gave_way_to_somebody_else_was_not_wrong() {
        let mut climb = Climb::default();
        climb.rose(Some(800_000), 0);
        climb.fell(Some(300_000), 20 * SECOND);
        assert!(!climb.may_rise(Some(800_000), 21 * SECOND) && climb.may_rise(Some(800_000), 22 * SECOND));
        climb.rose(Some(800_000), 22 * SECOND);
        climb.fell(Some(800_000), 23 * SECOND);
        assert!(climb.may_rise(Some(800_000), 25 * SECOND), "the estimate has not fallen: another one speaks");
    }
}
