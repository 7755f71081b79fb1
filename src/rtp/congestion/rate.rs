//! From usage to a rate: up carefully, down at once (additive increase, multiplicative decrease).

use std::time::Duration;

use super::trendline::Usage;

/// After overuse the rate is this share of what arrived.
const BACKOFF: f64 = 0.85;
/// And this one while a long queue has to drain, or one that will be: the path has just become narrower.
const BACKOFF_HARD: f64 = 0.7;
const LONG_QUEUE: Duration = Duration::from_millis(100);
/// Behind a queue of this length already, where so much less arrives now than before.
const QUEUE: Duration = Duration::from_millis(50);
const MUCH_LESS: f64 = 0.75;
/// Where so much more arrives, the source has just begun to send.
const MUCH_MORE: f64 = 1.25;
/// A source that sends less than this share of what it may is idle.
const IDLE: f64 = 0.25;
/// It never falls to less than this share of what arrived in the last two seconds: a stall, of the path or of a busy machine,
/// is no new capacity, and if it is, the next step follows soon.
const LEAST_SHARE: f64 = 0.35;
/// A queue of this length that does not even grow any more is full, where more is sent than arrives.
const FULL_QUEUE: Duration = Duration::from_millis(150);
const MORE_THAN_ARRIVES: f64 = 1.1;
/// A queue of this length that stands is too long, where the source sends about what it may.
const STANDING: Duration = Duration::from_millis(40);
const BUSY: f64 = 0.7;
/// If it has not fallen to this share of its length after some falls of the rate and this time, it is none: the way is longer
/// now, or others fill it.
const DRAINED: f64 = 0.8;
const FALLS: u32 = 3;
const DRAINS_FOR: Duration = Duration::from_millis(1_500);
/// Growth per second while the capacity is unknown.
const GROWTH: f64 = 1.08;
/// And of the eager, while there has been no queue of this length for this long.
const EAGER_GROWTH: f64 = 1.3;
const NEARLY: f64 = 0.9;
const NO_QUEUE: Duration = Duration::from_millis(15);
const CALM: Duration = Duration::from_secs(1);
/// What lies this much above the known capacity says that it is another one now.
pub const BEYOND: f64 = 1.1;
/// Never further ahead of what arrives than this.
const AHEAD: f64 = 1.5;
const AHEAD_BPS: f64 = 50_000.0;
/// Bits of a packet: the step of additive growth per response time.
const PACKET_BITS: f64 = 9_600.0;
/// How the capacity's mean and variance follow new samples.
const CAPACITY_SHARE: f64 = 0.05;

/// Packets sent for this long at a rate tell about it.
const SETTLE: Duration = Duration::from_millis(80);

/// What is known of the path beside its usage.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Length of the queue on the way.
    pub queue: Duration,
    /// When the newest packet left that is known to have arrived.
    pub newest_sent: Duration,
    /// What arrived per second over the last two seconds.
    pub long_bps: Option<f64>,
    /// And over the last fifth of one.
    pub short_bps: Option<f64>,
    /// The rate at which a queue gave out what waited in it, while it does.
    pub busy_bps: Option<f64>,
    /// What the source sent per second of late, where that is known.
    pub sent_bps: Option<f64>,
}

/// What is known of the capacity: rates at which queues grew.
#[derive(Debug, Clone, Copy)]
struct Capacity {
    mean_kbps: f64,
    /// Variance relative to the mean.
    variance: f64,
}

impl Capacity {
    fn deviation_kbps(&self) -> f64 {
        (self.variance * self.mean_kbps).sqrt()
    }

    fn sample(&mut self, kbps: f64) {
        self.mean_kbps += CAPACITY_SHARE * (kbps - self.mean_kbps);
        let error = self.mean_kbps - kbps;
        self.variance = ((1.0 - CAPACITY_SHARE) * self.variance
            + CAPACITY_SHARE * error * error / self.mean_kbps.max(1.0))
        .clamp(0.4, 2.5);
    }
}

/// A queue that stands.
#[derive(Debug, Clone, Copy)]
struct Stands {
    since: Duration,
    longest: Duration,
    falls: u32,
}

/// The rate control.
#[derive(Debug)]
pub struct RateControl {
    bps: f64,
    min_bps: f64,
    max_bps: f64,
    capacity: Option<Capacity>,
    eager: bool,
    holding: bool,
    changed: Option<Duration>,
    decreased: Option<Duration>,
    /// The last rate before it fell.
    before_bps: f64,
    /// A queue that stands now.
    stands: Option<Stands>,
}

impl RateControl {
    /// Begins at `start_bps`.
    pub fn new(start_bps: f64, min_bps: f64, max_bps: f64) -> Self {
        Self {
            bps: start_bps.clamp(min_bps, max_bps),
            min_bps,
            max_bps,
            capacity: None,
            eager: false,
            holding: false,
            changed: None,
            decreased: None,
            before_bps: 0.0,
            stands: None,
        }
    }

    /// For whoever cannot send bursts to measure: faster up while all is calm.
    pub fn eager(mut self) -> Self {
        self.eager = true;
        self
    }

    /// `bps`, as far as it lies within the bounds.
    pub fn within(&self, bps: f64) -> f64 {
        bps.clamp(self.min_bps, self.max_bps)
    }

    /// The rate.
    pub fn bps(&self) -> f64 {
        self.bps
    }

    /// When it fell last.
    pub fn decreased_at(&self) -> Option<Duration> {
        self.decreased
    }

    /// The rate before it fell last.
    pub fn before_decrease_bps(&self) -> f64 {
        self.before_bps
    }

    /// What the path is thought to take, once a queue has grown.
    pub fn capacity_bps(&self) -> Option<f64> {
        self.capacity.map(|capacity| capacity.mean_kbps * 1e3)
    }

    /// A measurement of the capacity that is worth more than growth.
    pub fn jump(&mut self, bps: f64, now: Duration) {
        if bps > self.bps {
            self.bps = bps.clamp(self.min_bps, self.max_bps);
            self.changed = Some(now);
            self.holding = false;
            if self.capacity_bps().is_some_and(|capacity| bps > capacity * BEYOND) {
                // What was thought of the capacity is out of date.
                self.capacity = None;
            }
        }
    }

    /// Takes what the detector says, what arrived per second, and what else is known of the path. `true`: what seemed to be a
    /// queue is none, since it stays although less is sent.
    pub fn update(&mut self, usage: Usage, arrived_bps: Option<f64>, path: Path, now: Duration) -> bool {
        let full =
            path.queue >= FULL_QUEUE && arrived_bps.is_some_and(|arrived| self.bps > arrived * MORE_THAN_ARRIVES);
        let busy = arrived_bps.is_some_and(|arrived| arrived > self.bps * BUSY);
        let standing = usage == Usage::Normal && path.queue >= STANDING && busy && self.settled(path, SETTLE);
        match &mut self.stands {
            Some(_) if path.queue < STANDING => self.stands = None,
            Some(stands) => {
                stands.longest = stands.longest.max(path.queue);
                if standing && now.saturating_sub(stands.since) >= DRAINS_FOR + path.rtt {
                    let drains = path.queue.as_secs_f64() < stands.longest.as_secs_f64() * DRAINED;
                    self.stands = None;
                    if !drains {
                        return true;
                    }
                } else if standing && stands.falls >= FALLS {
                    self.holding = true;
                    return false;
                }
            }
            None => {}
        }
        if standing {
            let new = Stands { since: now, longest: path.queue, falls: 0 };
            self.stands.get_or_insert(new).falls += 1;
        }
        let full = full || standing;
        match usage {
            Usage::Normal if full => self.decrease(arrived_bps, path, now),
            Usage::Over => self.decrease(arrived_bps, path, now),
            // A queue drains: leave it to it.
            Usage::Under => self.holding = true,
            Usage::Normal if self.holding => {
                self.holding = false;
                self.changed = Some(now);
            }
            Usage::Normal => self.increase(arrived_bps, path, now),
        }
        false
    }

    /// Whether what has arrived was sent at least this long after the rate fell.
    fn settled(&self, path: Path, after: Duration) -> bool {
        self.decreased.is_none_or(|at| path.newest_sent >= at + after)
    }

    fn decrease(&mut self, arrived_bps: Option<f64>, path: Path, now: Duration) {
        self.holding = true;
        // Until packets tell that were sent at the last rate, this is still the queue of the one before.
        if !self.settled(path, SETTLE) {
            // But behind a long one packets arrive at the path's own rate, whatever is sent: the first guess may have been
            // too high, since most of what it went by had arrived before.
            let idle = path.sent_bps.is_some_and(|sent| sent < self.bps * IDLE);
            if let Some(short) = path.short_bps.filter(|_| path.queue > LONG_QUEUE && !idle) {
                self.bps = backed_off(short, BACKOFF_HARD, path).min(self.bps).max(self.min_bps);
            }
            return;
        }
        let Some(arrived) = arrived_bps else {
            self.bps = (self.bps / 2.0).max(self.min_bps);
            self.note_decrease(now);
            return;
        };
        // What came before the queue tells about another rate.
        let narrower = |short: &f64| path.queue > LONG_QUEUE || (path.queue > QUEUE && *short < arrived * MUCH_LESS);
        let own = path.short_bps.filter(narrower);
        // A source that has just begun to send, after a pause, fills no window; its queue shows the path all the same.
        let arrived = path.busy_bps.map_or(arrived, |busy| busy.max(arrived));
        let arrived = path.short_bps.filter(|short| *short > arrived * MUCH_MORE).unwrap_or(arrived);
        let arrived = own.map_or(arrived, |own| arrived.min(own));
        let kbps = arrived / 1e3;
        match &mut self.capacity {
            Some(capacity) if (kbps - capacity.mean_kbps).abs() <= 3.0 * capacity.deviation_kbps() => {
                capacity.sample(kbps)
            }
            // It is another link now than the one that was measured.
            capacity => *capacity = Some(Capacity { mean_kbps: kbps, variance: 0.4 }),
        }
        let narrow = path.queue > LONG_QUEUE || own.is_some();
        let wanted = backed_off(arrived, if narrow { BACKOFF_HARD } else { BACKOFF }, path);
        // A source that sends next to nothing, as sound alone, fills no queue: what arrives of it is no measure of the path.
        let idle = path.sent_bps.is_some_and(|sent| sent < self.bps * IDLE);
        let wanted = if idle { wanted.max(self.bps * BACKOFF) } else { wanted };
        tracing::trace!(from = self.bps, wanted, arrived, queue = ?path.queue, "fall");
        self.before_bps = self.bps;
        self.bps = wanted.min(self.bps).max(self.min_bps);
        self.note_decrease(now);
    }

    fn note_decrease(&mut self, now: Duration) {
        self.decreased = Some(now);
        self.changed = Some(now);
    }

    fn increase(&mut self, arrived_bps: Option<f64>, path: Path, now: Duration) {
        let since = now.saturating_sub(*self.changed.get_or_insert(now)).as_secs_f64().min(1.0);
        self.changed = Some(now);
        if let (Some(capacity), Some(arrived)) = (self.capacity, arrived_bps)
            && arrived / 1e3 > capacity.mean_kbps + 3.0 * capacity.deviation_kbps()
        {
            self.capacity = None;
        }
        let near = self.capacity.is_some();
        let calm =
            self.eager && path.queue < NO_QUEUE && self.decreased.is_none_or(|at| now.saturating_sub(at) >= CALM);
        let grown = if calm {
            // Slower past the rate at which the last queue grew.
            let known = self.capacity_bps().is_some_and(|at| (at * NEARLY..at * BEYOND).contains(&self.bps));
            self.bps * if known { GROWTH } else { EAGER_GROWTH }.powf(since)
        } else if near {
            let response = path.rtt.as_secs_f64() + 0.1;
            self.bps + (PACKET_BITS / response).max(4_000.0) * since
        } else {
            self.bps * GROWTH.powf(since) + 1_000.0 * since
        };
        let limit = arrived_bps.map_or(self.bps, |arrived| arrived * AHEAD + AHEAD_BPS);
        // A source that sends less than it may proves nothing about more; what was reached stays.
        self.bps = grown.min(limit).max(self.bps).clamp(self.min_bps, self.max_bps);
    }
}

/// This share of what arrives, but no less than is sure.
fn backed_off(arrived_bps: f64, share: f64, path: Path) -> f64 {
    (arrived_bps * share).max(path.long_bps.unwrap_or_default() * LEAST_SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn path(queue_ms: u64, newest_ms: u64) -> Path {
        Path {
            rtt: at(100),
            queue: at(queue_ms),
            newest_sent: at(newest_ms),
            long_bps: None,
            short_bps: None,
            busy_bps: None,
            sent_bps: None,
        }
    }

    #[test]
    fn it_falls_below_what_arrives_and_grows_by_packets_afterwards() {
        let mut rate = RateControl::new(2e6, 50e3, 5e6);
        rate.update(Usage::Over, Some(1e6), path(20, 1_000), at(1_000));
        assert!((rate.bps() - 850e3).abs() < 1.0);
        rate.update(Usage::Over, Some(1e6), path(20, 1_010), at(1_110));
        assert!((rate.bps() - 850e3).abs() < 1.0, "once until its effect is seen");
        rate.update(Usage::Under, Some(1e6), path(20, 1_200), at(1_200));
        rate.update(Usage::Normal, Some(1e6), path(20, 1_300), at(1_300));
        let before = rate.bps();
        for ms in (1_350..2_350).step_by(50) {
            rate.update(Usage::Normal, Some(0.85e6), path(0, ms), at(ms));
        }
        let grown = rate.bps() - before;
        assert!((40e3..60e3).contains(&grown), "a packet per response time: {grown}");
    }

    #[test]
    fn a_long_queue_drains_faster() {
        let mut rate = RateControl::new(2e6, 50e3, 5e6);
        rate.update(Usage::Over, Some(1e6), path(250, 1_000), at(1_000));
        assert!((rate.bps() - 700e3).abs() < 1.0);
    }

    #[test]
    fn a_hiccup_while_only_sound_is_sent_does_not_take_the_path_away() {
        let mut rate = RateControl::new(2e6, 50e3, 5e6);
        let quiet = Path { sent_bps: Some(40e3), ..path(150, 1_000) };
        rate.update(Usage::Over, Some(40e3), quiet, at(1_000));
        assert!((rate.bps() - 1.7e6).abs() < 1.0, "{}", rate.bps());
        rate.update(Usage::Over, Some(40e3), Path { short_bps: Some(30e3), ..quiet }, at(1_050));
        assert!((rate.bps() - 1.7e6).abs() < 1.0, "{}", rate.bps());
    }

    #[test]
    fn an_idle_source_does_not_talk_the_rate_up_or_down() {
        let mut rate = RateControl::new(2e6, 50e3, 5e6);
        for ms in (0..20_000).step_by(50) {
            rate.update(Usage::Normal, Some(100e3), path(0, ms), at(ms));
        }
        assert!((rate.bps() - 2e6).abs() < 1.0);
    }
}
