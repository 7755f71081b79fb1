//! What one receiver can take, over all its legs together.
//!
//! Every leg has its own numbers and its own clock, the path has one queue. So departures of all legs get common numbers,
//! and arrivals are laid on a common clock by the least delay that each leg has seen. Then it is one path for
//! [`crate::rtp::congestion`].

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::rtp::congestion::{AHEAD, Arrival, Bounds, Congestion, Departed, Probe};

use super::demux::LegKey;
use super::outbound::Departure;

/// Begins with what one whole picture needs: more is known after the first bursts where the path has it, and a narrow path does not lose its first
/// second, with the sound in its queue.
const BOUNDS: Bounds = Bounds { start_bps: 1_200_000.0, min_bps: 60_000.0, max_bps: 60_000_000.0 };
/// A queue of this length has to drain first, after the estimate has fallen: better to wait here than there. If it stays for longer
/// it is none.
const LONG_QUEUE: Duration = Duration::from_millis(100);
const DRAINS: Duration = Duration::from_secs(1);
/// What leaves meanwhile, as a factor of the estimate, and how long a backlog has.
const DRAINING_PACING: (f64, Duration) = (0.25, Duration::from_secs(1));
/// Departures remembered per leg: four seconds of 2.5 Mbit/s.
const SENT: usize = 1_024;
/// Bytes of a packet below RTP: IPv4 and UDP; the tag is counted with the packet.
pub(super) const BELOW_RTP: usize = 20 + 8;
/// A leg on which nothing left for this long is not waited for.
const QUIET: Duration = Duration::from_millis(200);
/// Feedback that waits longer than this for that of other legs is taken as it is.
const PATIENCE: Duration = Duration::from_millis(150);
/// Reports waiting for those of other legs; a flood of made-up ones is dropped.
const WAITING: usize = 4_096;
/// The least delay is that of the last one to two of these: clocks drift.
const LEAST_DELAY_AGE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
struct Sent {
    /// Number on the leg.
    number: u16,
    /// Number over all legs.
    common: u64,
    at: Duration,
}

/// One leg's part of it.
#[derive(Debug, Default)]
struct Leg {
    sent: VecDeque<Sent>,
    /// Common number of the newest packet that feedback spoke of.
    told: u64,
    /// Least delay in microseconds, by the two clocks: of this span of time, and of the one before.
    least: Option<i64>,
    least_before: Option<i64>,
    least_since: Duration,
}

impl Leg {
    fn find(&self, number: u16) -> Option<Sent> {
        let first = self.sent.front()?.number;
        self.sent.get(usize::from(number.wrapping_sub(first))).copied().filter(|sent| sent.number == number)
    }

    /// The arrival on the common clock.
    ///
    /// `ahead`: it may have overtaken others, and then says nothing about the least delay of those that wait for each other.
    fn arrival(&mut self, sent: Duration, arrived_us: u64, ahead: bool, now: Duration) -> Duration {
        let delay = arrived_us as i64 - sent.as_micros() as i64;
        let known = [self.least, self.least_before].into_iter().flatten().min();
        if ahead && known.is_some_and(|least| delay < least) {
            return sent;
        }
        if now.saturating_sub(self.least_since) > LEAST_DELAY_AGE {
            self.least_since = now;
            self.least_before = self.least.take();
        }
        let least = self.least.map_or(delay, |least| least.min(delay));
        self.least = Some(least);
        let least = self.least_before.map_or(least, |before| before.min(least));
        sent + Duration::from_micros(delay.saturating_sub(least).unsigned_abs())
    }
}

/// The estimator of one receiver. Times count from one origin of the caller's.
#[derive(Debug)]
pub(super) struct Estimator {
    congestion: Congestion,
    next: u64,
    legs: HashMap<LegKey, Leg>,
    waiting: Vec<(u64, Option<Duration>)>,
    waiting_since: Option<Duration>,
    fed: bool,
}

impl Estimator {
    pub(super) fn new() -> Self {
        Self {
            congestion: Congestion::new(BOUNDS),
            next: 0x1_0000,
            legs: HashMap::new(),
            waiting: Vec::new(),
            waiting_since: None,
            fed: false,
        }
    }

    /// What the receiver can take of pictures in bit/s, headers included; `None` while it has given no feedback.
    pub(super) fn bps(&self) -> Option<u64> {
        self.fed.then(|| self.congestion.target_bps() as u64)
    }

    /// What a pacer lets out in bit/s, and within which time a backlog leaves whatever that is; `None` while pictures need not
    /// wait.
    pub(super) fn pacing(&self, now: Duration) -> Option<(f64, Duration)> {
        let lately = self.congestion.fell_at().is_some_and(|at| now.saturating_sub(at) < DRAINS);
        let (factor, drain) = DRAINING_PACING;
        (lately && self.queue() >= LONG_QUEUE).then(|| (self.congestion.target_bps() * factor, drain))
    }

    /// How long the queue on the way is.
    pub(super) fn queue(&self) -> Duration {
        self.congestion.queue()
    }

    /// More than this is of no use now, in bit/s: nothing is probed beyond.
    pub(super) fn set_useful_bps(&mut self, bps: u64) {
        self.congestion.set_useful_bps(bps as f64);
    }

    /// A packet left on a leg, maybe as part of a burst.
    pub(super) fn departed(&mut self, leg: LegKey, departure: Departure, probe: Option<u32>, now: Duration) {
        let Departure { number, bytes, again } = departure;
        if again {
            if let Some(sent) = self.legs.get(&leg).and_then(|leg| leg.find(number)) {
                self.congestion.left_again(sent.common as u16);
            }
            return;
        }
        let common = self.next;
        self.next += 1;
        self.congestion.departed(Departed { number: common as u16, bytes: bytes + BELOW_RTP, at: now, probe });
        let leg = self.legs.entry(leg).or_default();
        if leg.sent.back().is_some_and(|last| last.number.wrapping_add(1) != number) {
            leg.sent.clear();
        }
        if leg.sent.len() >= SENT {
            leg.sent.pop_front();
        }
        leg.sent.push_back(Sent { number, common, at: now });
    }

    /// A leg is gone.
    pub(super) fn forget(&mut self, leg: LegKey) {
        self.legs.remove(&leg);
    }

    /// Feedback about a leg: numbers and arrival times in microseconds by the receiver's clock.
    pub(super) fn feedback(&mut self, leg: LegKey, arrivals: &[(u16, Option<u64>)], now: Duration) {
        let Some(leg) = self.legs.get_mut(&leg) else { return };
        // When the last one left that has not come, and when the last one came of those before.
        let (mut absent, mut newest): (Option<Duration>, u64) = (None, 0);
        for (number, arrived_us) in arrivals {
            let Some(sent) = leg.find(*number) else { continue };
            if self.waiting.len() >= WAITING {
                break;
            }
            leg.told = leg.told.max(sent.common);
            let at = arrived_us.map(|arrived_us| {
                let ahead = arrived_us < newest || absent.is_some_and(|absent| sent.at.saturating_sub(absent) < AHEAD);
                newest = newest.max(arrived_us);
                leg.arrival(sent.at, arrived_us, ahead, now)
            });
            if at.is_none() {
                absent = Some(sent.at);
            }
            self.waiting.push((sent.common, at));
            self.waiting_since.get_or_insert(now);
        }
        self.digest(now);
    }

    /// Takes what can be put in order: up to what every busy leg has told.
    fn digest(&mut self, now: Duration) {
        let Some(since) = self.waiting_since else { return };
        let busy = |leg: &&Leg| leg.sent.back().is_some_and(|sent| now.saturating_sub(sent.at) < QUIET);
        let known = self.legs.values().filter(busy).map(|leg| leg.told).min().unwrap_or(u64::MAX);
        let late = now.saturating_sub(since) >= PATIENCE;
        self.waiting.sort_unstable();
        let count =
            if late { self.waiting.len() } else { self.waiting.partition_point(|(common, _)| *common <= known) };
        if count == 0 {
            return;
        }
        let arrivals: Vec<Arrival> =
            self.waiting.drain(..count).map(|(common, at)| Arrival { number: common as u16, at }).collect();
        self.waiting_since = (!self.waiting.is_empty()).then_some(now);
        self.fed = true;
        self.congestion.feedback(&arrivals, now);
    }

    /// Lets the clock take effect, every 25 to 100 ms; a burst to send at once, if one is due and there is something to send.
    pub(super) fn tick(&mut self, pictures: bool, now: Duration) -> Option<Probe> {
        self.digest(now);
        if !self.fed {
            return None;
        }
        if !pictures {
            self.congestion.listen(now);
            return None;
        }
        self.congestion.tick(now);
        self.congestion.take_probe(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path with one queue for all legs, in steps of a millisecond.
    struct Path {
        rate_bps: f64,
        free_at_us: f64,
        /// Leg, number, arrival.
        told: Vec<(LegKey, u16, u64)>,
    }

    impl Path {
        fn send(&mut self, leg: LegKey, number: u16, bytes: usize, now_us: u64) {
            let begin = self.free_at_us.max(now_us as f64);
            // 300 ms of queue, then it drops.
            if begin - now_us as f64 > 300_000.0 {
                return;
            }
            self.free_at_us = begin + (bytes + BELOW_RTP) as f64 * 8e6 / self.rate_bps;
            self.told.push((leg, number, self.free_at_us as u64 + 10_000));
        }
    }

    fn packet(number: u16, bytes: usize) -> Departure {
        Departure { number, bytes, again: false }
    }

    /// Runs legs that share a path; each takes its part of the estimate. The estimate every second.
    fn run(legs: usize, seconds: u64, capacity: impl Fn(u64) -> f64) -> Vec<u64> {
        let mut estimator = Estimator::new();
        estimator.set_useful_bps(5_000_000);
        let mut path = Path { rate_bps: capacity(0), free_at_us: 0.0, told: Vec::new() };
        let (mut numbers, mut told, mut credit) = (vec![0u16; legs], vec![0u16; legs], vec![0.0; legs]);
        let mut estimates = Vec::new();
        for ms in 0..seconds * 1_000 {
            let (now_us, now) = (ms * 1_000, Duration::from_millis(ms));
            path.rate_bps = capacity(ms / 1_000);
            let share = estimator.bps().unwrap_or(2_000_000).min(5_000_000) as f64 / legs as f64;
            for leg in 0..legs {
                credit[leg] += share / 8_000.0;
                while credit[leg] > 1_000.0 {
                    credit[leg] -= 1_000.0;
                    path.send(leg, numbers[leg], 1_000 - BELOW_RTP, now_us);
                    estimator.departed(leg, packet(numbers[leg], 1_000 - BELOW_RTP), None, now);
                    numbers[leg] = numbers[leg].wrapping_add(1);
                }
                // Every 50 ms, each leg at another time and by a clock of its own.
                if ms % 50 == (leg as u64 * 17) % 50 && ms > 50 {
                    let clock = 1_000_000_000 * (leg as u64 + 1);
                    let until = now_us - 10_000;
                    let mut arrivals: Vec<(u16, Option<u64>)> = Vec::new();
                    let newest = path.told.iter().filter(|t| t.0 == leg && t.2 <= until).map(|t| t.1).max();
                    if let Some(newest) = newest {
                        for number in told[leg]..=newest {
                            let at = path.told.iter().find(|t| t.0 == leg && t.1 == number).map(|t| t.2 + clock);
                            arrivals.push((number, at));
                        }
                        told[leg] = newest + 1;
                        path.told.retain(|t| t.0 != leg || t.1 > newest);
                    }
                    estimator.feedback(leg, &arrivals, now);
                }
            }
            if ms % 25 == 0
                && let Some(probe) = estimator.tick(true, now)
            {
                for _ in 0..probe.bytes / 1_000 + 1 {
                    path.send(0, numbers[0], 1_000 - BELOW_RTP, now_us);
                    estimator.departed(0, packet(numbers[0], 1_000 - BELOW_RTP), Some(probe.id), now);
                    numbers[0] = numbers[0].wrapping_add(1);
                }
            }
            if ms % 1_000 == 999 {
                estimates.push(estimator.bps().unwrap_or(0));
            }
        }
        estimates
    }

    #[test]
    fn legs_of_one_receiver_share_one_estimate() {
        for legs in [1, 4] {
            let estimates = run(legs, 30, |second| if (10..20).contains(&second) { 600e3 } else { 2_500e3 });
            let mean = |from: usize, to: usize| estimates[from..to].iter().sum::<u64>() / (to - from) as u64;
            assert!((1_500_000..3_000_000).contains(&mean(5, 10)), "{legs}: {estimates:?}");
            assert!((350_000..680_000).contains(&mean(14, 20)), "{legs}: {estimates:?}");
            assert!((1_400_000..3_000_000).contains(&mean(26, 30)), "{legs}: {estimates:?}");
        }
    }

    #[test]
    fn packets_that_overtake_others_are_no_queue() {
        let mut estimator = Estimator::new();
        let arrives_ms = |n: u16| u64::from(n) * 10 + if n % 20 == 19 { 50 } else { 100 };
        let mut told = 0;
        for now_ms in (0..20_000u64).step_by(10) {
            let now = Duration::from_millis(now_ms);
            estimator.departed(1, packet((now_ms / 10) as u16, 1_000), None, now);
            if now_ms % 50 != 0 {
                continue;
            }
            // Up to the newest that has come; what comes later is not told again.
            let come = |n: &u16| arrives_ms(*n) <= now_ms;
            let Some(newest) = (told..=(now_ms / 10) as u16).rfind(come) else { continue };
            let arrivals: Vec<_> =
                (told..=newest).map(|n| (n, Some(arrives_ms(n) * 1_000).filter(|_| come(&n)))).collect();
            told = newest + 1;
            estimator.feedback(1, &arrivals, now);
            estimator.tick(true, now);
            assert!(estimator.queue() < Duration::from_millis(5), "{now_ms} ms: {:?}", estimator.queue());
        }
    }

    #[test]
    fn nothing_is_believed_about_what_never_left() {
        let mut estimator = Estimator::new();
        estimator.feedback(3, &[(1, Some(5)), (2, None)], Duration::from_secs(1));
        estimator.departed(3, packet(7, 100), None, Duration::from_secs(1));
        estimator.feedback(3, &[(1, Some(5)), (6, Some(9)), (8, None)], Duration::from_secs(1));
        assert_eq!((estimator.bps(), estimator.waiting.len()), (None, 0));
        estimator.forget(3);
        estimator.feedback(3, &[(7, Some(5))], Duration::from_secs(1));
        assert_eq!(estimator.bps(), None);
    }
}
