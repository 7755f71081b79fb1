//! Losses that come with the rate limit it; losses that the path has anyway do not.
//!
//! A full queue is seen by its delay: losses with a queue are too much. Losses without one (radio, or a policer that
//! keeps no queue) are told apart by trying less: where the rate was too high fewer are lost then, where the path just
//! loses as many as before.

use std::time::Duration;

/// Packets of one verdict, and the least time for it.
const PACKETS: u32 = 60;
const LENGTH: Duration = Duration::from_millis(500);
/// Packets of a verdict without any loss.
const CALM_PACKETS: u32 = 8;
/// Share of losses beyond what the path has anyway, from which they are looked at; and how many times what they usually differ
/// by they must lie beyond it.
const TOO_MUCH: f64 = 0.08;
const UNUSUAL: f64 = 2.5;
/// How that usual share and difference follow, without a queue.
const USUAL_WEIGHT: f64 = 0.1;
/// And from which they are soon after a path turned out to lose by itself: bursts make one half second
/// unlike another.
const FAR_TOO_MUCH: f64 = 0.25;
/// After a trial that said that less is lost with less, the next one waits for this long.
const CALM: Duration = Duration::from_secs(4);
/// A path that turned out so is believed to stay so for this long; longer each time it does.
const BELIEVED: Duration = Duration::from_secs(20);
const BELIEVED_MAX: Duration = Duration::from_secs(160);
/// A queue of this length makes the losses that came with it the rate's.
const QUEUED: Duration = Duration::from_millis(20);
/// The rate falls by at most this share at a time.
const DEEPEST: f64 = 0.3;
/// And grows by this factor with each verdict that finds nothing.
const GROWTH: f64 = 1.05;
/// A trial sends about what arrived: at most and at least this share of what was sent.
const TRIAL: (f64, f64) = (0.75, 0.6);
/// Verdicts of a trial: the first one still tells about what was sent before, the last one ends it.
const TRIAL_FIRST: u32 = 2;
const TRIAL_LAST: u32 = 4;
/// What was sent must have fallen to this share for a trial to tell something.
const TRIAL_LESS: f64 = 0.85;

/// A limit drawn from losses.
#[derive(Debug)]
pub struct LossLimit {
    /// Factor of the limit with each verdict that finds nothing.
    growth: f64,
    since: Option<Duration>,
    arrived: u32,
    lost: u32,
    bytes: usize,
    queue: Duration,
    /// What the path loses at any rate.
    base: f64,
    /// How far what is lost usually lies from that.
    deviation: f64,
    limit_bps: Option<f64>,
    trial: Option<Trial>,
    /// Until when the path is believed to lose by itself.
    path_until: Duration,
    believed: Duration,
    /// The last verdict, as far as it lies above what the path loses anyway.
    excess: f64,
}

/// Less is sent, to see whether less is lost.
#[derive(Debug, Clone, Copy)]
struct Trial {
    share: f64,
    sent_bps: f64,
    verdicts: u32,
}

impl Default for LossLimit {
    fn default() -> Self {
        Self::new(GROWTH)
    }
}

impl LossLimit {
    /// Grows by `growth` with each verdict that finds nothing.
    pub fn new(growth: f64) -> Self {
        Self {
            growth,
            since: None,
            arrived: 0,
            lost: 0,
            bytes: 0,
            queue: Duration::ZERO,
            base: 0.0,
            deviation: 0.0,
            limit_bps: None,
            trial: None,
            path_until: Duration::ZERO,
            believed: Duration::ZERO,
            excess: 0.0,
        }
    }

    /// Takes the fate of some packets: `bytes` arrived in `arrived` of them; `target_bps` was the rate and `queue` the
    /// queue on the way meanwhile.
    pub fn add(&mut self, (arrived, lost): (u32, u32), bytes: usize, target_bps: f64, queue: Duration, now: Duration) {
        let Some(since) = self.since else {
            // What this is about was sent before the window.
            self.since = Some(now);
            return;
        };
        self.arrived += arrived;
        self.lost += lost;
        self.bytes += bytes;
        self.queue = self.queue.max(queue);
        let total = self.arrived + self.lost;
        let length = now.saturating_sub(since);
        if length < LENGTH {
            return;
        }
        if total < PACKETS {
            // That nothing is lost shows with few packets too: a source that was pressed down sends no more. About the path
            // they tell nothing, for those with losses are waited for longer.
            if self.lost == 0 && total >= CALM_PACKETS && self.trial.is_none() && self.limit_bps.is_some() {
                self.limit_bps = self.limit_bps.map(|limit| limit * self.growth);
                (self.since, self.arrived, self.bytes, self.queue) = (Some(now), 0, 0, Duration::ZERO);
            }
            return;
        }
        let share = f64::from(self.lost) / f64::from(total);
        let arrived_bps = self.bytes as f64 * 8.0 / length.as_secs_f64();
        let queued = self.queue >= QUEUED;
        (self.since, self.arrived, self.lost, self.bytes, self.queue) = (Some(now), 0, 0, 0, Duration::ZERO);
        self.judge(share, arrived_bps, target_bps, queued, now);
    }

    fn judge(&mut self, share: f64, arrived_bps: f64, target_bps: f64, queued: bool, now: Duration) {
        // All lost: nothing can be told from what was sent.
        let sent_bps = arrived_bps / (1.0 - share).max(0.05);
        // It may get better at any time, and slowly does so in our belief.
        if share < self.base {
            self.base = self.base * 0.9 + share * 0.1;
        }
        if let Some(trial) = &mut self.trial {
            trial.verdicts += 1;
            let (trial, ratio) = (*trial, sent_bps / trial.sent_bps.max(1.0));
            if trial.verdicts < TRIAL_FIRST || (ratio > TRIAL_LESS && trial.verdicts < TRIAL_LAST) {
                return;
            }
            self.trial = None;
            // If the path took a fixed rate, what is lost is what was more than that.
            let too_high = (1.0 - (1.0 - trial.share) / ratio.max(0.01)).max(0.0);
            if ratio > TRIAL_LESS || share > (trial.share + too_high) / 2.0 {
                self.base = share.max(trial.share);
                self.limit_bps = None;
                self.believed = (self.believed * 2).clamp(BELIEVED, BELIEVED_MAX);
                self.path_until = now + self.believed;
            } else {
                (self.believed, self.path_until) = (Duration::ZERO, now + CALM);
                self.limit_bps = Some(arrived_bps.max(trial.sent_bps * (1.0 - trial.share) * 0.95));
            }
            return;
        }
        let excess = share - self.base;
        let too_much = TOO_MUCH.max(self.deviation * UNUSUAL);
        if !queued && excess <= too_much {
            // Few packets, and losses that come in runs, make one half second unlike another.
            self.deviation += (excess.abs() - self.deviation) * USUAL_WEIGHT;
            self.base += excess.max(0.0) * USUAL_WEIGHT;
        }
        // Twice in a row, or a run of losses on a good path would be taken for a bad one.
        let twice = excess.min(std::mem::replace(&mut self.excess, excess));
        if excess <= too_much {
            self.limit_bps = self.limit_bps.map(|limit| limit * self.growth);
        } else if queued {
            let least = arrived_bps * 0.9;
            let less = target_bps.min(sent_bps * 1.2) * (1.0 - (excess * 1.5).min(DEEPEST));
            self.limit_bps = Some(less.max(least));
        } else if twice > FAR_TOO_MUCH.max(too_much) || (twice > too_much && now >= self.path_until) {
            self.trial = Some(Trial { share, sent_bps, verdicts: 0 });
            self.limit_bps = Some(target_bps.min(sent_bps) * (1.0 - share).clamp(TRIAL.1, TRIAL.0));
        }
    }

    /// Share of packets that the path loses by itself.
    pub fn base(&self) -> f64 {
        self.base
    }

    /// The limit, while there is one.
    pub fn limit_bps(&self) -> Option<f64> {
        self.limit_bps
    }

    /// Forgets a limit that no longer limits.
    pub fn release_above(&mut self, bps: f64) {
        if self.limit_bps.is_some_and(|limit| limit > bps * 1.2) {
            self.limit_bps = None;
            self.trial = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_QUEUE: Duration = Duration::ZERO;

    #[test]
    fn losses_of_the_path_do_not_starve_the_rate() {
        let mut limit = LossLimit::default();
        let (mut lowest, mut sum): (f64, f64) = (2e6, 0.0);
        for n in 0..100u64 {
            let target = limit.limit_bps().map_or(2e6, |limit| limit.min(2e6));
            lowest = lowest.min(target);
            sum += target / 100.0;
            let bytes = (target / 16.0 * 0.7) as usize;
            limit.add((49, 21), bytes, target, NO_QUEUE, Duration::from_millis(n * 500));
        }
        assert!(lowest > 0.6e6 && sum > 1.8e6, "{lowest} {sum}");
        assert_eq!(limit.limit_bps(), None);
    }

    #[test]
    fn losses_in_bursts_are_one_and_the_same_path() {
        // Far below its target, as a quiet picture is: nothing that the target does changes what is lost.
        let mut limit = LossLimit::default();
        let mut lowest: f64 = 2e6;
        for n in 0..200u64 {
            let target = limit.limit_bps().map_or(2e6, |limit| limit.min(2e6));
            lowest = lowest.min(target);
            let lost = [0, 3, 14, 6, 9, 0, 20, 4][(n % 8) as usize];
            let bytes = (target.min(350e3) / 16.0) as usize * (70 - lost as usize) / 70;
            limit.add((70 - lost, lost), bytes, target, NO_QUEUE, Duration::from_millis(n * 500));
        }
        assert!(lowest > 0.1e6, "{lowest}");
    }

    #[test]
    fn losses_by_too_much_do_limit() {
        for queue in [NO_QUEUE, Duration::from_millis(150)] {
            let mut limit = LossLimit::default();
            let mut target = 4e6;
            for n in 0..60u64 {
                // A path of 1 Mbit/s that drops what is more.
                let share = (1.0f64 - 1e6 / target).max(0.0);
                let lost = (share * 70.0).round() as u32;
                let bytes = (target.min(1e6) / 16.0) as usize;
                let queue = if lost > 0 { queue } else { NO_QUEUE };
                limit.add((70 - lost, lost), bytes, target, queue, Duration::from_millis(n * 500));
                target = limit.limit_bps().map_or(4e6, |limit| limit.min(4e6));
                if n > 10 {
                    assert!((0.55e6..1.3e6).contains(&target), "{n}: {target}");
                }
            }
        }
    }
}
