//! The controller against links in virtual time: capacity steps (RFC 8867 §5.1), losses, jitter, a clean link.

#[path = "grid.rs"]
mod grid;

use std::collections::VecDeque;
use std::time::Duration;

use super::{Arrival, Bounds, Congestion, Departed};

const FEEDBACK_MS: u64 = 50;
/// A packet of others.
const OTHERS_BITS: f64 = 9_600.0;

/// Reproducible noise (SplitMix64).
struct Noise(u64);

impl Noise {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A bottleneck: capacity by time in bit/s, delay one way, the longest queue, and what it does besides.
struct Link {
    capacity: Box<dyn Fn(f64) -> f64>,
    one_way: Duration,
    queue: Duration,
    loss: Box<dyn Fn(f64) -> f64>,
    /// Mean length of a run of losses.
    burst: f64,
    jitter: Duration,
    /// Jitter does not change the order.
    in_order: bool,
    /// Share of the capacity that packets of others take, at random times.
    cross: f64,
    /// From this second on the way is longer by so much.
    longer: Option<(f64, Duration)>,
    /// A shaper that lets so many bytes through at once.
    bucket: f64,
    seed: u64,
}

/// One second of a run.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    capacity_bps: f64,
    delivered_bps: f64,
    target_bps: f64,
}

struct Run {
    seconds: Vec<Second>,
    /// Time in the bottleneck's queue of every packet.
    queued_ms: Vec<f64>,
}

impl Run {
    fn queued_p95(&self) -> f64 {
        let mut all = self.queued_ms.clone();
        all.sort_by(f64::total_cmp);
        all.get(all.len() * 95 / 100).copied().unwrap_or(0.0)
    }

    fn used(&self, from: usize, to: usize) -> f64 {
        let part = &self.seconds[from..to];
        part.iter().map(|s| s.delivered_bps).sum::<f64>() / part.iter().map(|s| s.capacity_bps).sum::<f64>()
    }

    /// Seconds from `from` until the delivered rate stays at `share` of the capacity or more for two seconds.
    fn reaches(&self, from: usize, share: f64) -> usize {
        let good = |s: &Second| s.delivered_bps >= share * s.capacity_bps;
        (from..self.seconds.len() - 1)
            .find(|at| good(&self.seconds[*at]) && good(&self.seconds[*at + 1]))
            .map_or(usize::MAX, |at| at - from)
    }
}

/// The bottleneck at work.
struct Bottleneck<'a> {
    link: &'a Link,
    noise: Noise,
    /// When it is done with what it has.
    busy_until: f64,
    losing: bool,
    queued_ms: Vec<f64>,
}

impl Bottleneck<'_> {
    /// Packets of others come in.
    fn others(&mut self, seconds: f64) {
        let capacity = (self.link.capacity)(seconds);
        if self.link.cross > 0.0 && self.noise.unit() < self.link.cross * capacity / OTHERS_BITS / 1e3 {
            let start = self.busy_until.max(seconds);
            if start - seconds <= self.link.queue.as_secs_f64() {
                self.busy_until = start + OTHERS_BITS / capacity;
            }
        }
    }

    /// When a packet of `bytes` arrives at the other end; `None` if it does not.
    fn carry(&mut self, bytes: usize, seconds: f64) -> Option<Duration> {
        let (link, noise) = (self.link, &mut self.noise);
        let capacity = (link.capacity)(seconds);
        let start = self.busy_until.max(seconds - link.bucket * 8.0 / capacity);
        let waits = (start - seconds).max(0.0);
        let share = (link.loss)(seconds);
        self.losing = match (link.burst > 1.0, self.losing) {
            (true, true) => noise.unit() >= 1.0 / link.burst,
            (true, false) => noise.unit() < share / (1.0 - share) / link.burst,
            (false, _) => noise.unit() < share,
        };
        if waits > link.queue.as_secs_f64() || self.losing {
            return None;
        }
        self.busy_until = start + bytes as f64 * 8.0 / capacity;
        self.queued_ms.push(waits * 1e3);
        let jitter = link.jitter.as_secs_f64() * noise.unit();
        let longer = link.longer.filter(|(from, _)| seconds >= *from).map_or(Duration::ZERO, |(_, by)| by);
        Some(Duration::from_secs_f64(self.busy_until.max(seconds) + jitter) + link.one_way + longer)
    }
}

/// One sender and its receiver.
struct Flow {
    control: Congestion,
    /// Begins this late, in ms.
    from_ms: u64,
    /// The picture is content with this.
    most_bps: f64,
    number: u16,
    pacer: VecDeque<usize>,
    budget: f64,
    frame: u32,
    arriving: Vec<(Duration, u16, usize)>,
    last_at: Duration,
    seen: Vec<(u16, Duration)>,
    highest: Option<u16>,
    next_base: u16,
    reports: VecDeque<(Duration, Vec<Arrival>)>,
    delivered: f64,
}

impl Flow {
    fn new(bounds: Bounds, most_bps: f64, from_ms: u64) -> Self {
        Self {
            control: Congestion::new(bounds),
            from_ms,
            most_bps,
            number: 0,
            pacer: VecDeque::new(),
            budget: 0.0,
            frame: 0,
            arriving: Vec::new(),
            last_at: Duration::ZERO,
            seen: Vec::new(),
            highest: None,
            next_base: 0,
            reports: VecDeque::new(),
            delivered: 0.0,
        }
    }

    fn send(&mut self, bytes: usize, probe: Option<u32>, now: Duration, path: &mut Bottleneck) {
        self.control.departed(Departed { number: self.number, bytes, at: now, probe });
        if let Some(mut at) = path.carry(bytes, now.as_secs_f64()) {
            if path.link.in_order {
                at = at.max(self.last_at);
                self.last_at = at;
            }
            self.arriving.push((at, self.number, bytes));
        }
        self.number = self.number.wrapping_add(1);
    }

    /// One millisecond of it.
    fn step(&mut self, ms: u64, path: &mut Bottleneck) {
        let Some(ms) = ms.checked_sub(self.from_ms) else { return };
        let now = Duration::from_millis(ms + self.from_ms);
        if ms % 20 == 0 {
            self.send(120, None, now, path);
        }
        if ms * 30 / 1_000 != (ms + 1) * 30 / 1_000 {
            let mean = (self.control.target_bps() - 48_000.0).clamp(20_000.0, self.most_bps.max(20_000.0)) / 30.0 / 8.0;
            let size = mean * (0.75 + 0.5 * path.noise.unit()) * if self.frame == 0 { 5.0 } else { 1.0 };
            self.frame += 1;
            let packets = (size / 1_150.0).ceil().max(1.0);
            self.pacer.extend(std::iter::repeat_n((size / packets) as usize, packets as usize));
        }
        if ms % 5 == 0 {
            self.control.tick(now);
            let probe = (!self.pacer.is_empty()).then(|| self.control.take_probe(now)).flatten();
            if let Some(probe) = probe {
                // Media first, repeats of it for the rest.
                let mut left = probe.bytes as i64;
                while left > 0 {
                    let size = self.pacer.pop_front().unwrap_or(1_150);
                    self.send(size, Some(probe.id), now, path);
                    left -= size as i64;
                }
            }
            let pacing = self.control.pacing_bps() / 8.0;
            self.budget = (self.budget + pacing * 0.005).min(pacing * 0.02);
            while self.budget > 0.0 {
                let Some(size) = self.pacer.pop_front() else { break };
                self.budget -= size as f64;
                self.send(size, None, now, path);
            }
        }
        self.receive(now);
        if ms % FEEDBACK_MS == 0 {
            self.report(now, path);
        }
        while self.reports.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, list)) = self.reports.pop_front() {
                self.control.feedback(&list, now);
            }
        }
    }

    fn receive(&mut self, now: Duration) {
        self.arriving.retain(|(at, number, bytes)| {
            let here = *at <= now;
            if here {
                self.seen.push((*number, *at));
                self.delivered += *bytes as f64 * 8.0;
                if self.highest.is_none_or(|high| number.wrapping_sub(high) < 0x8000) {
                    self.highest = Some(*number);
                }
            }
            !here
        });
    }

    fn report(&mut self, now: Duration, path: &mut Bottleneck) {
        let Some(high) = self.highest.filter(|_| !self.seen.is_empty()) else { return };
        let base = self.next_base;
        let count = high.wrapping_add(1).wrapping_sub(base);
        let mut list: Vec<Arrival> = if count < 0x8000 {
            (0..count).map(|n| Arrival { number: base.wrapping_add(n), at: None }).collect()
        } else {
            Vec::new()
        };
        for (number, at) in self.seen.drain(..) {
            match list.get_mut(usize::from(number.wrapping_sub(base))) {
                Some(arrival) => arrival.at = Some(at),
                None => list.push(Arrival { number, at: Some(at) }),
            }
        }
        self.next_base = high.wrapping_add(1);
        // Feedback is lost like anything else.
        if path.noise.unit() >= (path.link.loss)(now.as_secs_f64()) {
            self.reports.push_back((now + path.link.one_way, list));
        }
    }
}

/// Lets `flows` share `link` for `length_s`; the seconds of each, and the time in the queue of every packet.
fn share(link: &Link, mut flows: Vec<Flow>, length_s: u64) -> Vec<Run> {
    let mut path = Bottleneck { link, noise: Noise(link.seed), busy_until: 0.0, losing: false, queued_ms: Vec::new() };
    let mut out: Vec<Run> = flows.iter().map(|_| Run { seconds: Vec::new(), queued_ms: Vec::new() }).collect();
    for ms in 0..length_s * 1_000 {
        let seconds = ms as f64 / 1e3;
        path.others(seconds);
        for (flow, run) in flows.iter_mut().zip(&mut out) {
            flow.step(ms, &mut path);
            if ms % 1_000 == 999 {
                let delivered_bps = std::mem::take(&mut flow.delivered);
                let (capacity_bps, target_bps) = ((link.capacity)(seconds), flow.control.target_bps());
                run.seconds.push(Second { capacity_bps, delivered_bps, target_bps });
            }
        }
    }
    for run in &mut out {
        run.queued_ms.clone_from(&path.queued_ms);
    }
    out
}

/// Sends video that follows the target, and some audio, for `length_s` over `link`.
fn run(link: &Link, bounds: Bounds, length_s: u64) -> Run {
    run_quiet(link, bounds, length_s, f64::INFINITY)
}

/// The same with a picture that is content with `most_bps`.
fn run_quiet(link: &Link, bounds: Bounds, length_s: u64, most_bps: f64) -> Run {
    let run = share(link, vec![Flow::new(bounds, most_bps, 0)], length_s).remove(0);
    // Seen when the test fails, or with --nocapture: capacity, arrived and target in kbit/s, second by second.
    for (second, s) in run.seconds.iter().enumerate() {
        println!("{second:3} {:5.0} {:5.0} {:5.0}", s.capacity_bps / 1e3, s.delivered_bps / 1e3, s.target_bps / 1e3);
    }
    run
}

fn bounds(max_bps: f64) -> Bounds {
    Bounds { start_bps: 300e3, min_bps: 60e3, max_bps }
}

fn link(capacity: impl Fn(f64) -> f64 + 'static, seed: u64) -> Link {
    Link {
        capacity: Box::new(capacity),
        one_way: Duration::from_millis(50),
        queue: Duration::from_millis(300),
        loss: Box::new(|_| 0.0),
        burst: 1.0,
        jitter: Duration::ZERO,
        in_order: false,
        cross: 0.0,
        longer: None,
        bucket: 0.0,
        seed,
    }
}

fn steps(list: &'static [(f64, f64)]) -> impl Fn(f64) -> f64 {
    move |at| list.iter().rev().find(|(from, _)| at >= *from).map_or(1e6, |(_, mbps)| mbps * 1e6)
}

#[test]
fn it_follows_steps_of_the_capacity() {
    for seed in 1..6 {
        let link = link(steps(&[(0.0, 1.0), (40.0, 2.5), (60.0, 0.6), (80.0, 1.0)]), seed);
        let run = run(&link, bounds(5e6), 100);
        let p95 = run.queued_p95();
        let used = run.used(5, 100);
        println!(
            "seed {seed}: {:.1} % used, queue p95 {p95:.0} ms, up {} s, down {} s, up {} s",
            used * 100.0,
            run.reaches(40, 0.8),
            run.reaches(60, 0.8),
            run.reaches(80, 0.8)
        );
        assert!(used >= 0.8, "{used}");
        assert!(p95 <= 100.0, "{p95}");
        assert!(run.reaches(0, 0.8) <= 5);
        assert!(run.reaches(40, 0.8) <= 10);
        assert!(run.reaches(80, 0.8) <= 10);
        let settled = (60..80).find(|at| run.seconds[*at].target_bps <= 0.66e6).unwrap_or(usize::MAX);
        assert!(settled - 60 <= 5, "{settled}");
    }
}

#[test]
fn other_steps_and_delays_are_no_other_matter() {
    for (seed, one_way) in [(11, 10), (12, 100), (13, 25), (14, 5)] {
        let mut link = link(steps(&[(0.0, 3.0), (20.0, 0.8), (40.0, 2.0), (60.0, 0.4), (75.0, 3.0)]), seed);
        link.one_way = Duration::from_millis(one_way);
        let run = run(&link, bounds(5e6), 100);
        let (p95, used) = (run.queued_p95(), run.used(5, 100));
        println!("{one_way} ms: {:.1} % used, queue p95 {p95:.0} ms", used * 100.0);
        assert!(used >= 0.75, "{used}");
        assert!(p95 <= 120.0, "{p95}");
    }
}

#[test]
fn a_clean_link_is_used_within_a_second() {
    for mbps in [20.0, 100.0] {
        let mut link = link(move |_| mbps * 1e6, 3);
        link.one_way = Duration::from_millis(1);
        let run = run(&link, bounds(2.5e6), 5);
        assert!(run.seconds[0].target_bps >= 2.4e6, "{:?}", run.seconds);
    }
    let mut three = link(|_| 3e6, 4);
    three.one_way = Duration::from_millis(20);
    let run = run(&three, bounds(2.5e6), 10);
    assert!(run.seconds[3].target_bps >= 1.8e6, "{:?}", run.seconds);
}

#[test]
fn random_losses_and_jitter_do_not_starve_it() {
    for (loss, jitter_ms) in [(0.05, 0), (0.1, 0), (0.3, 0), (0.0, 20), (0.02, 30)] {
        let mut link = link(|_| 4e6, 7);
        link.loss = Box::new(move |_| loss);
        link.jitter = Duration::from_millis(jitter_ms);
        let run = run(&link, bounds(2e6), 40);
        let last = run.seconds.last().map_or(0.0, |s| s.target_bps);
        println!("loss {loss}, jitter {jitter_ms} ms: {:.0} kbit/s at the end", last / 1e3);
        assert!(last > 1.0e6, "{last}");
    }
}

#[test]
fn losses_in_bursts_do_not_starve_a_quiet_picture() {
    for (seed, loss, burst) in [(21, 0.1, 3.0), (22, 0.1, 5.0), (23, 0.05, 2.0), (24, 0.3, 1.0), (25, 0.2, 2.0)] {
        let mut link = link(|_| 6e6, seed);
        link.one_way = Duration::from_millis(15);
        link.loss = Box::new(move |_| loss);
        link.burst = burst;
        let run = run_quiet(&link, bounds(3e6), 60, 350e3);
        let low = run.seconds[3..].iter().filter(|s| s.target_bps < 250e3).count();
        println!("loss {loss} in bursts of {burst}: {low} seconds below 250 kbit/s");
        assert!(low <= 15, "{low}");
    }
}

#[test]
fn a_narrow_link_is_not_flooded_at_the_beginning() {
    for (seed, kbps) in [(31, 400.0), (32, 600.0), (33, 1_000.0), (34, 300.0)] {
        let run = run(&link(move |_| kbps * 1e3, seed), bounds(3e6), 20);
        let early: Vec<f64> = run.queued_ms.iter().copied().take(200).collect();
        let worst = early.iter().copied().fold(0.0, f64::max);
        println!("{kbps}: queue at first {worst:.0} ms, {:.0} % used", run.used(3, 20) * 100.0);
        assert!(worst < 290.0, "{worst}");
        assert!(run.used(3, 20) >= 0.75);
    }
}

#[test]
fn a_dead_path_is_not_flooded_and_recovers() {
    let mut dead = link(|_| 2e6, 9);
    dead.loss = Box::new(|at| f64::from(u8::from((10.0..20.0).contains(&at))));
    let run = run(&dead, bounds(2e6), 45);
    assert!(run.seconds[18].target_bps < 0.4e6, "{:?}", run.seconds[18]);
    let last = run.seconds.last().map_or(0.0, |s| s.target_bps);
    assert!(last > 1.2e6, "{last}");
}

#[test]
fn a_longer_way_is_no_queue() {
    for (seed, by) in [(41, 60), (42, 120), (43, 250)] {
        let mut link = link(|_| 6e6, seed);
        link.one_way = Duration::from_millis(30);
        link.longer = Some((20.0, Duration::from_millis(by)));
        let run = run(&link, bounds(2.5e6), 45);
        let after: Vec<f64> = run.seconds[20..].iter().map(|s| s.target_bps).collect();
        let low = after.iter().filter(|bps| **bps < 1.5e6).count();
        println!("{by} ms more: {low} seconds low");
        assert!(low <= 6, "{after:?}");
        assert!(after.iter().all(|bps| *bps > 0.4e6), "{after:?}");
    }
}

#[test]
fn a_shaper_that_lets_bursts_through_fools_nobody() {
    for bucket in [8_000.0, 30_000.0, 100_000.0] {
        // Where in its bucket a burst ends is chance: one run says little.
        let mut queued_ms = 0.0;
        for seed in 51..57 {
            let mut link = link(|_| 1e6, seed);
            (link.one_way, link.bucket) = (Duration::from_millis(30), bucket);
            let run = run(&link, bounds(2.6e6), 60);
            let (used, p95) = (run.used(5, 60), run.queued_p95());
            println!("{bucket} bytes at once, seed {seed}: {used:.2} used, queue p95 {p95:.0} ms");
            assert!(used >= 0.8, "{used}");
            assert!(p95 <= 220.0, "{p95}");
            queued_ms += p95 / 6.0;
        }
        assert!(queued_ms <= 145.0, "{queued_ms}");
    }
}

#[test]
fn several_share_a_path() {
    let caps: &'static [(f64, f64)] = &[(0.0, 2.0), (25.0, 1.0), (50.0, 1.75), (75.0, 0.6), (100.0, 1.0)];
    for count in [2, 3] {
        for (one_way, queue) in [(25, 100), (50, 300), (100, 300)] {
            for stagger in [0, 5_000] {
                let mut link = link(steps(caps), one_way + queue + count);
                (link.one_way, link.queue) = (Duration::from_millis(one_way), Duration::from_millis(queue));
                let flows = (0..count).map(|n| Flow::new(bounds(3e6), f64::INFINITY, n * (stagger + 7))).collect();
                let runs = share(&link, flows, 125);
                let means: Vec<f64> = runs
                    .iter()
                    .map(|run| run.seconds[20..].iter().map(|s| s.delivered_bps).sum::<f64>() / 105.0)
                    .collect();
                let sum: f64 = means.iter().sum();
                let jain = sum * sum / (means.len() as f64 * means.iter().map(|bps| bps * bps).sum::<f64>());
                let used: f64 = runs.iter().map(|run| run.used(20, 125)).sum();
                let p95 = runs[0].queued_p95();
                println!(
                    "{count} flows, {one_way} ms, {stagger} ms apart: Jain {jain:.2}, used {used:.2}, {p95:.0} ms"
                );
                assert!(jain >= 0.9, "{means:?}");
                assert!(used >= 0.8, "{used}");
                assert!(p95 <= 270.0, "{p95}");
            }
        }
    }
}
