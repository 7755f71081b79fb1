//! What a path takes, as the receiver sees it: for senders that get no transport-wide feedback and are told a rate (REMB,
//! draft-alvestrand-rmcat-remb-03).
//!
//! The same filter as the sender's, on the send times that packets carry. Nothing is known of the path until a queue grows:
//! up to then there is no limit to be told.

use std::time::Duration;

use super::rate::{Path, RateControl};
use super::throughput::Throughput;
use super::trendline::Trendline;

/// Between two messages while nothing important changes.
const INTERVAL: Duration = Duration::from_millis(1_000);
/// And at least between two that tell of a fall.
const FALL_INTERVAL: Duration = Duration::from_millis(100);
/// A rate that is lower than the last one told by this much is told at once.
const FALL: f64 = 0.97;
/// How long a sender takes to follow, without the way there and back.
const REACTION: Duration = Duration::from_millis(200);
/// Send times count 24 bits: 64 seconds at 2⁻¹⁸.
const TURN: u32 = 1 << 24;

/// The estimate of one path. Times are differences to an origin of the caller's.
#[derive(Debug)]
pub struct RemoteEstimate {
    trendline: Trendline,
    throughput: Throughput,
    rate: RateControl,
    /// Last send time as read, and what it stands for in ticks of 2⁻¹⁸ s.
    clock: Option<(u32, u64)>,
    limited: bool,
    told: Option<(f64, Duration)>,
}

impl RemoteEstimate {
    /// Knows nothing; never tells less than `min_bps`, and begins at `max_bps`.
    pub fn new(min_bps: f64, max_bps: f64) -> Self {
        Self {
            trendline: Trendline::default(),
            throughput: Throughput::default(),
            rate: RateControl::new(max_bps, min_bps, max_bps),
            clock: None,
            limited: false,
            told: None,
        }
    }

    /// Takes a packet of `bytes`, everything below RTP included, that carried `abs_send_time` and arrived `at`.
    pub fn packet(&mut self, abs_send_time: u32, bytes: usize, at: Duration, rtt: Duration) {
        let sent = self.sent(abs_send_time % TURN);
        self.trendline.packet(sent, at);
        self.throughput.add(at, bytes);
        let before = self.rate.bps();
        let newest_sent = at.saturating_sub(rtt + REACTION);
        let (long_bps, short_bps) = (self.throughput.long_bps(), self.throughput.short_bps());
        let path = Path { rtt, queue: self.trendline.queue(), newest_sent, long_bps, short_bps };
        if self.rate.update(self.trendline.usage(), self.throughput.bps(), path, at) {
            self.trendline.rebase();
        }
        self.limited |= self.rate.bps() < before;
    }

    /// What the sender is to be told now, if anything.
    pub fn message(&mut self, now: Duration) -> Option<f64> {
        if !self.limited {
            return None;
        }
        let bps = self.rate.bps();
        let due = self.told.is_none_or(|(told, at)| {
            let age = now.saturating_sub(at);
            age >= INTERVAL || (bps < told * FALL && age >= FALL_INTERVAL)
        });
        due.then(|| {
            self.told = Some((bps, now));
            bps
        })
    }

    /// Carries the counter of 24 bits on; a packet that was overtaken lies a little back.
    fn sent(&mut self, ticks: u32) -> Duration {
        let (last, whole) = *self.clock.get_or_insert((ticks, u64::from(TURN)));
        let ahead = ticks.wrapping_sub(last) % TURN;
        let here =
            if ahead < TURN / 2 { whole + u64::from(ahead) } else { whole.saturating_sub(u64::from(TURN - ahead)) };
        if here > whole {
            self.clock = Some((ticks, here));
        }
        Duration::from_nanos((u128::from(here) * 1_000_000_000 / (1 << 18)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sender that does what it is told, over a bottleneck: kbit/s that arrived and that was sent at the end of each
    /// second, and the worst queue in ms after the first five seconds of each step.
    fn run(seconds: u64, capacity: impl Fn(u64) -> f64, source_bps: f64) -> Vec<(f64, f64)> {
        let one_way = Duration::from_millis(40);
        let mut estimate = RemoteEstimate::new(50e3, 3e6);
        let mut target = source_bps;
        let (mut busy, mut credit) = (0.0f64, 0.0);
        let mut arriving: std::collections::VecDeque<(Duration, Duration, usize)> = std::collections::VecDeque::new();
        let mut told: Option<(Duration, f64)> = None;
        let (mut arrived, mut out) = (0.0, Vec::new());
        for ms in 0..seconds * 1_000 {
            let now = Duration::from_millis(ms);
            if let Some((at, bps)) = told
                && at <= now
            {
                target = bps.min(source_bps);
                told = None;
            }
            credit += target / 8.0 / 1e3;
            while credit >= 1_000.0 {
                credit -= 1_000.0;
                let start = busy.max(now.as_secs_f64());
                if start - now.as_secs_f64() <= 0.3 {
                    busy = start + 8_000.0 / capacity(ms / 1_000);
                    arriving.push_back((Duration::from_secs_f64(busy) + one_way, now, 1_000));
                }
            }
            while let Some((at, sent, bytes)) = arriving.front().copied()
                && at <= now
            {
                arriving.pop_front();
                arrived += bytes as f64 * 8.0;
                // The counter turns on the way.
                let ticks = ((sent.as_micros() + 50_000_000) << 18) / 1_000_000;
                estimate.packet((ticks % u128::from(TURN)) as u32, bytes, at, one_way * 2);
                if let Some(bps) = estimate.message(at) {
                    told = Some((now + one_way, bps));
                }
            }
            if ms % 1_000 == 999 {
                out.push((arrived, target));
                arrived = 0.0;
            }
        }
        out
    }

    #[test]
    fn nothing_is_told_while_the_path_takes_everything() {
        let seconds = run(30, |_| 5e6, 1.2e6);
        assert!(seconds.iter().all(|(_, target)| *target >= 1.2e6), "{seconds:?}");
    }

    #[test]
    fn it_follows_the_capacity_down_and_up() {
        let capacity = |second| if (20..50).contains(&second) { 0.7e6 } else { 2e6 };
        let seconds = run(90, capacity, 1.8e6);
        let used = |from: usize, to: usize, bps: f64| {
            seconds[from..to].iter().map(|(arrived, _)| arrived).sum::<f64>() / (to - from) as f64 / bps
        };
        assert!(used(3, 20, 1.8e6) > 0.95, "{seconds:?}");
        assert!(seconds[25].1 < 0.75e6, "down within five seconds: {seconds:?}");
        assert!(used(26, 50, 0.7e6) > 0.75, "{} {seconds:?}", used(26, 50, 0.7e6));
        assert!(used(62, 90, 1.8e6) > 0.75, "{} {seconds:?}", used(62, 90, 1.8e6));
    }
}
