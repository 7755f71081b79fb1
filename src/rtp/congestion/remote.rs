//! What a path takes, as the receiver sees it: for senders that get no transport-wide feedback and are told a rate (REMB,
//! draft-alvestrand-rmcat-remb-03).
//!
//! The same filter as the sender's, on the send times that packets carry, and the same judgement of losses. Nothing is known of
//! the path until a queue grows or packets get lost: up to then there is no limit to be told. A receiver cannot send bursts to
//! measure: while all is calm it grows faster instead.

use std::time::Duration;

use super::loss::LossLimit;
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
/// Losses are judged in portions of this length.
const PORTION: Duration = Duration::from_millis(50);
/// What the limit drawn from losses grows by with each calm verdict, half a second.
const LOSS_GROWTH: f64 = 1.14;
/// Send times count 24 bits: 64 seconds at 2⁻¹⁸.
const TURN: u32 = 1 << 24;

/// The estimate of one path. Times are differences to an origin of the caller's.
#[derive(Debug)]
pub struct RemoteEstimate {
    trendline: Trendline,
    throughput: Throughput,
    rate: RateControl,
    loss: LossLimit,
    /// Since when, and packets that arrived, were lost, and bytes that arrived.
    portion: (Duration, u32, u32, usize),
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
            rate: RateControl::new(max_bps, min_bps, max_bps).eager(),
            loss: LossLimit::new(LOSS_GROWTH),
            portion: (Duration::ZERO, 0, 0, 0),
            clock: None,
            limited: false,
            told: None,
        }
    }

    /// Takes a packet of `bytes`, everything below RTP included, that carried `abs_send_time` and arrived `at`.
    pub fn packet(&mut self, abs_send_time: u32, bytes: usize, at: Duration, rtt: Duration) {
        let sent = self.sent(abs_send_time % TURN);
        let queued = self.trendline.packet(sent, at, false);
        self.throughput.add(at, bytes, queued);
        let before = self.rate.bps();
        let newest_sent = at.saturating_sub(rtt + REACTION);
        let (long_bps, short_bps) = (self.throughput.long_bps(), self.throughput.short_bps());
        let busy_bps = self.throughput.busy_bps();
        let path =
            Path { rtt, queue: self.trendline.queue(), newest_sent, long_bps, short_bps, busy_bps, sent_bps: None };
        if self.rate.update(self.trendline.usage(), self.throughput.bps(), path, at) {
            self.trendline.rebase();
        }
        self.limited |= self.rate.bps() < before;
        let (since, arrived, lost, sum) = &mut self.portion;
        *arrived += 1;
        *sum += bytes;
        if at.saturating_sub(*since) >= PORTION {
            // What was lost at a rate that has been taken back is no reason to go down again.
            let old = self.rate.decreased_at().is_some_and(|fell| newest_sent < fell);
            let fate = (*arrived, if old { 0 } else { *lost });
            let bytes = *sum;
            self.portion = (at, 0, 0, 0);
            self.loss.add(fate, bytes, self.bps(), path.queue, at);
            self.limited |= self.loss.limit_bps().is_some();
            self.loss.release_above(self.rate.bps());
        }
    }

    /// So many packets did not arrive.
    pub fn lost(&mut self, count: u32) {
        self.portion.2 = self.portion.2.saturating_add(count);
    }

    fn bps(&self) -> f64 {
        self.rate.within(self.loss.limit_bps().unwrap_or(f64::INFINITY).min(self.rate.bps()))
    }

    /// What the sender is to be told now, if anything.
    pub fn message(&mut self, now: Duration) -> Option<f64> {
        if !self.limited {
            return None;
        }
        let bps = self.bps();
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
#[path = "remote_tests.rs"]
mod tests;
