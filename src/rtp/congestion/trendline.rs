//! Whether a queue grows on the way: the slope of one-way delay over groups of packets.
//!
//! The filter and the adaptive threshold are those of Google's congestion control (draft-ietf-rmcat-gcc-02 §5, and
//! Carlucci et al., "Analysis and Design of the Google Congestion Control for WebRTC", 2016).

use std::collections::VecDeque;
use std::time::Duration;

/// Packets sent within this time are one group: they left as one burst.
const GROUP: Duration = Duration::from_millis(5);
/// Packets that arrive this close together although they were sent apart were held up together.
const HELD_UP: Duration = Duration::from_millis(5);
/// A held-up group is not joined for longer than this.
const HELD_UP_MAX: Duration = Duration::from_millis(100);
/// Groups of the regression.
const WINDOW: usize = 20;
/// Share of the old value in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Slopes are multiplied by the groups seen (up to this) and [`GAIN`], to be compared with the threshold in ms.
const MAX_GROUPS: u32 = 60;
const GAIN: f64 = 4.0;
/// Over the threshold for this long before it counts.
const OVER_MS: f64 = 10.0;
/// Start and bounds of the threshold, in ms.
const THRESHOLD_MS: f64 = 12.5;
const THRESHOLD_MIN_MS: f64 = 6.0;
const THRESHOLD_MAX_MS: f64 = 600.0;
/// The threshold follows the slope slowly up and fast down; a spike beyond this distance does not move it.
const RISE: f64 = 0.0087;
const FALL: f64 = 0.039;
const SPIKE_MS: f64 = 15.0;
/// The present delay is the least of this time: jitter alone leaves it where it was.
const RECENT: Duration = Duration::from_millis(200);
/// The least delay there can be is looked for in one to two of these; clocks drift, and routes change.
const BASE: Duration = Duration::from_secs(10);
/// A slope counts as a queue only when the present delay lies this far above the least.
const QUEUE_MS: f64 = 20.0;
/// A packet that took this much longer than the least had to wait.
const WAITED_MS: f64 = 5.0;
/// Packets overtake others by no more than this.
const OVERTAKING: Duration = Duration::from_millis(500);
/// A jump of the receiver's or sender's clock: start again.
const JUMP: Duration = Duration::from_secs(3);

/// What the network does with what we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Usage {
    /// The queue stays as it is.
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue drains.
    Under,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: Duration,
    last_sent: Duration,
    first_arrived: Duration,
    last_arrived: Duration,
}

/// The filter. Times are differences to any two origins, one of the sender and one of the receiver.
#[derive(Debug)]
pub struct Trendline {
    current: Option<Group>,
    previous: Option<Group>,
    points: VecDeque<(f64, f64)>,
    origin: Option<Duration>,
    accumulated_ms: f64,
    smoothed_ms: f64,
    groups: u32,
    slope: f64,
    threshold_ms: f64,
    threshold_at: Option<Duration>,
    over_ms: Option<f64>,
    over_count: u32,
    usage: Usage,
    delays: Delays,
}

/// One-way delays in ms, to an unknown origin.
#[derive(Debug, Default)]
struct Delays {
    recent: VecDeque<(Duration, f64)>,
    /// Least of the present and of the last [`BASE`].
    base: [Option<f64>; 2],
    base_at: Option<Duration>,
    shortcut: Option<Shortcut>,
}

/// What made the least delay shorter, as long as it may turn out to have overtaken others: it was in no queue then, and says
/// nothing about how long the way is for those that are.
#[derive(Debug, Clone, Copy)]
struct Shortcut {
    sent: Duration,
    arrived: Duration,
    /// The least of the present before it.
    before: Option<f64>,
}

impl Delays {
    /// Takes a packet; how much longer than the least it was on its way, in ms.
    ///
    /// `ahead`: it came although others that left before it had not, lost or overtaken.
    fn add(&mut self, sent: Duration, arrived: Duration, ahead: bool) -> f64 {
        let delay = ms(arrived, sent);
        if ahead && self.least().is_some_and(|least| delay < least) {
            return 0.0;
        }
        let shortcut = self.shortcut.filter(|by| arrived.saturating_sub(by.arrived) < OVERTAKING);
        if let Some(by) = shortcut.filter(|by| sent < by.sent) {
            let [present, _] = &mut self.base;
            *present = Some(by.before.map_or(delay, |before| before.min(delay)));
            let least = self.least().unwrap_or(delay);
            self.recent.retain(|(_, recent)| *recent >= least);
            self.shortcut = None;
        }
        // What is longer than a newer one never is the least again.
        while self.recent.back().is_some_and(|(_, old)| *old >= delay) {
            self.recent.pop_back();
        }
        self.recent.push_back((arrived, delay));
        while self.recent.front().is_some_and(|(at, _)| arrived.saturating_sub(*at) > RECENT) {
            self.recent.pop_front();
        }
        if arrived.saturating_sub(*self.base_at.get_or_insert(arrived)) > BASE {
            self.base_at = Some(arrived);
            let [present, _] = self.base;
            self.base = [None, present];
        }
        let [present, _] = &mut self.base;
        if present.is_none_or(|least| delay < least) {
            // Several may overtake at a time.
            let before = self.shortcut.filter(|_| shortcut.is_some()).map_or(*present, |first| first.before);
            self.shortcut = Some(Shortcut { sent, arrived, before });
            *present = Some(delay);
        }
        delay - self.least().unwrap_or(delay)
    }

    fn least(&self) -> Option<f64> {
        self.base.iter().flatten().copied().reduce(f64::min)
    }

    fn rebase(&mut self) {
        self.base = [self.recent.front().map(|(_, delay)| *delay), None];
        self.base_at = self.recent.back().map(|(at, _)| *at);
    }

    fn queue_ms(&self) -> f64 {
        match (self.recent.front(), self.least()) {
            (Some((_, recent)), Some(least)) => (recent - least).max(0.0),
            _ => 0.0,
        }
    }
}

impl Default for Trendline {
    fn default() -> Self {
        Self {
            current: None,
            previous: None,
            points: VecDeque::with_capacity(WINDOW),
            origin: None,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            groups: 0,
            slope: 0.0,
            threshold_ms: THRESHOLD_MS,
            threshold_at: None,
            over_ms: None,
            over_count: 0,
            usage: Usage::Normal,
            delays: Delays::default(),
        }
    }
}

impl Trendline {
    /// Takes a packet that left at `sent` and arrived at `arrived`, in the order of arrival; whether it had to wait.
    ///
    /// `ahead`: others that left shortly before it had not come by then; it may have overtaken them.
    pub fn packet(&mut self, sent: Duration, arrived: Duration, ahead: bool) -> bool {
        let queued = self.delays.add(sent, arrived, ahead) > WAITED_MS;
        self.group(sent, arrived);
        queued
    }

    fn group(&mut self, sent: Duration, arrived: Duration) {
        let Some(group) = &mut self.current else {
            self.current = Some(Group::of(sent, arrived));
            return;
        };
        if sent < group.first_sent {
            // Reordered: its group is done.
            return;
        }
        if group.takes(sent, arrived) {
            group.last_sent = group.last_sent.max(sent);
            group.last_arrived = group.last_arrived.max(arrived);
            return;
        }
        let done = *group;
        self.current = Some(Group::of(sent, arrived));
        let Some(previous) = self.previous.replace(done) else { return };
        let sent_ms = ms(done.last_sent, previous.last_sent);
        let arrived_ms = ms(done.last_arrived, previous.last_arrived);
        if arrived_ms < 0.0 || (arrived_ms - sent_ms).abs() > JUMP.as_secs_f64() * 1e3 {
            // What the delays were measured against is another clock.
            *self = Self { current: self.current, ..Self::default() };
            return;
        }
        self.groups = (self.groups + 1).min(MAX_GROUPS);
        self.point(arrived_ms - sent_ms, done.last_arrived, sent_ms);
    }

    /// What the last groups say. That a queue grew is out of date when what has come since did not meet one.
    pub fn usage(&self) -> Usage {
        match self.usage {
            Usage::Over if self.delays.queue_ms() <= QUEUE_MS => Usage::Normal,
            usage => usage,
        }
    }

    /// How long the queue was that the newest arrivals met.
    pub fn queue(&self) -> Duration {
        Duration::from_secs_f64(self.delays.queue_ms() / 1e3)
    }

    /// What seemed to be a queue is the length of the way itself.
    pub fn rebase(&mut self) {
        self.delays.rebase();
    }

    fn point(&mut self, delay_ms: f64, arrived: Duration, sent_ms: f64) {
        let origin = *self.origin.get_or_insert(arrived);
        self.accumulated_ms += delay_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        if self.points.len() == WINDOW {
            self.points.pop_front();
        }
        self.points.push_back((ms(arrived, origin), self.smoothed_ms));
        let before = self.slope;
        if self.points.len() == WINDOW {
            self.slope = slope(&self.points).unwrap_or(self.slope);
        }
        self.detect(before, sent_ms, arrived);
    }

    fn detect(&mut self, before: f64, sent_ms: f64, at: Duration) {
        if self.groups < 2 {
            return;
        }
        let scaled = f64::from(self.groups) * self.slope * GAIN;
        if scaled > self.threshold_ms {
            let over = self.over_ms.map_or(sent_ms / 2.0, |over| over + sent_ms);
            self.over_ms = Some(over);
            self.over_count += 1;
            let queued = self.delays.queue_ms() > QUEUE_MS;
            if over > OVER_MS && self.over_count > 1 && self.slope >= before && queued {
                self.over_ms = Some(0.0);
                self.over_count = 0;
                self.usage = Usage::Over;
            }
        } else {
            self.over_ms = None;
            self.over_count = 0;
            self.usage = if scaled < -self.threshold_ms { Usage::Under } else { Usage::Normal };
        }
        let since_ms = self.threshold_at.map_or(0.0, |last| ms(at, last)).clamp(0.0, 100.0);
        self.threshold_at = Some(at);
        if scaled.abs() <= self.threshold_ms + SPIKE_MS {
            let speed = if scaled.abs() < self.threshold_ms { FALL } else { RISE };
            self.threshold_ms = (self.threshold_ms + speed * (scaled.abs() - self.threshold_ms) * since_ms)
                .clamp(THRESHOLD_MIN_MS, THRESHOLD_MAX_MS);
        }
    }
}

impl Group {
    fn of(sent: Duration, arrived: Duration) -> Self {
        Self { first_sent: sent, last_sent: sent, first_arrived: arrived, last_arrived: arrived }
    }

    fn takes(&self, sent: Duration, arrived: Duration) -> bool {
        if sent.saturating_sub(self.first_sent) <= GROUP {
            return true;
        }
        // Sent apart and arrived together: a hop released what it held back; its end tells the delay, not its parts.
        let gap = arrived.saturating_sub(self.last_arrived);
        gap <= HELD_UP
            && ms(arrived, self.last_arrived) < ms(sent, self.last_sent)
            && arrived.saturating_sub(self.first_arrived) < HELD_UP_MAX
    }
}

/// `a − b` in milliseconds.
fn ms(a: Duration, b: Duration) -> f64 {
    (a.as_secs_f64() - b.as_secs_f64()) * 1e3
}

/// Least squares; `None` where all points lie at one time.
fn slope(points: &VecDeque<(f64, f64)>) -> Option<f64> {
    let count = points.len() as f64;
    let (sum_x, sum_y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (mean_x, mean_y) = (sum_x / count, sum_y / count);
    let (over, under) = points.iter().fold((0.0, 0.0), |(over, under), (x, y)| {
        (over + (x - mean_x) * (y - mean_y), under + (x - mean_x) * (x - mean_x))
    });
    (under > 0.0).then(|| over / under)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a packet every 10 ms whose delay is `delay_ms(n)`; how often each usage was seen.
    fn run(count: u32, delay_ms: impl Fn(u32) -> f64) -> [usize; 3] {
        let mut trendline = Trendline::default();
        let mut seen = [0; 3];
        for n in 0..count {
            let sent = Duration::from_millis(u64::from(n) * 10);
            trendline.packet(sent, sent + Duration::from_secs_f64(delay_ms(n) / 1e3), false);
            seen[trendline.usage() as usize] += 1;
        }
        seen
    }

    #[test]
    fn a_steady_delay_is_normal_and_so_is_jitter() {
        assert_eq!(run(500, |_| 50.0), [500, 0, 0]);
        let noise = |n: u32| 50.0 + f64::from(n.wrapping_mul(2_654_435_761) >> 24) / 25.6;
        let [normal, over, _] = run(2_000, noise);
        assert!(over < 20 && normal > 1_800, "{normal} {over}");
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_draining_one_underuse() {
        let [_, over, under] = run(300, |n| 50.0 + f64::from(n) * 1.5);
        assert!(over > 200 && under == 0, "{over} {under}");
        let [_, over, under] = run(300, |n| 600.0 - f64::from(n) * 1.5);
        assert!(under > 200 && over == 0, "{over} {under}");
    }

    #[test]
    fn packets_that_overtake_others_make_no_queue_of_the_others() {
        for first in [0, 7] {
            let delay_ms = |n: u64| match n {
                n if n % 20 == first => 50,
                1_000.. => 180,
                _ => 100,
            };
            let mut packets: Vec<(u64, u64)> = (0..2_000).map(|n| (n * 10, n * 10 + delay_ms(n))).collect();
            packets.sort_by_key(|(_, arrived)| *arrived);
            let mut trendline = Trendline::default();
            for (n, (sent, arrived)) in packets.into_iter().enumerate() {
                trendline.packet(Duration::from_millis(sent), Duration::from_millis(arrived), false);
                let queue = trendline.queue();
                if (30..990).contains(&n) {
                    assert_eq!(queue, Duration::ZERO, "{first}: {n}");
                    assert_ne!(trendline.usage(), Usage::Over, "{first}: {n}");
                }
                // A queue is one all the same.
                if (1_050..1_900).contains(&n) && n % 20 == (first as usize + 19) % 20 {
                    assert_eq!(queue, Duration::from_millis(80), "{first}: {n}");
                }
            }
        }
    }

    #[test]
    fn what_came_ahead_of_others_does_not_shorten_the_way() {
        let mut trendline = Trendline::default();
        for n in 0..200u64 {
            let (sent, ahead) = (Duration::from_millis(n * 10), n % 20 == 19);
            trendline.packet(sent, sent + Duration::from_millis(if ahead { 50 } else { 100 }), ahead);
            assert_eq!(trendline.queue(), Duration::ZERO, "{n}");
        }
        // Whatever else is shorter is the way.
        trendline.packet(Duration::from_secs(3), Duration::from_millis(3_050), false);
        trendline.packet(Duration::from_millis(3_300), Duration::from_millis(3_400), false);
        assert_eq!(trendline.queue(), Duration::from_millis(50));
    }

    #[test]
    fn a_clock_that_jumps_is_forgotten() {
        let mut trendline = Trendline::default();
        for n in 0..200u64 {
            let sent = Duration::from_millis(n * 10);
            let jump = if n > 100 { Duration::from_secs(3_600) } else { Duration::ZERO };
            trendline.packet(sent, sent + jump, false);
            assert_eq!(trendline.usage(), Usage::Normal, "{n}");
        }
    }
}
