//! The controller against links in virtual time: capacity steps (RFC 8867 §5.1), losses, jitter, a clean link.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Arrival, Bounds, Congestion, Departed};

const STEP: Duration = Duration::from_millis(1);
const FEEDBACK_MS: u64 = 50;

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

/// Sends video that follows the target, and some audio, for `length_s` over `link`.
fn run(link: &Link, bounds: Bounds, length_s: u64) -> Run {
    run_quiet(link, bounds, length_s, f64::INFINITY)
}

/// The same with a picture that is content with `most_bps`.
fn run_quiet(link: &Link, bounds: Bounds, length_s: u64, most_bps: f64) -> Run {
    let mut noise = Noise(link.seed);
    let mut control = Congestion::new(bounds);
    let mut now = Duration::ZERO;
    let mut number = 0u16;
    let mut pacer: VecDeque<usize> = VecDeque::new();
    let mut budget = 0.0;
    let mut probing: Option<(u32, usize)> = None;
    // When the bottleneck is done with what it has.
    let mut busy_until = 0.0f64;
    let mut arriving: Vec<(Duration, u16, usize)> = Vec::new();
    let mut seen: Vec<(u16, Duration)> = Vec::new();
    let mut highest: Option<u16> = None;
    let mut next_base = 0u16;
    let mut reports: VecDeque<(Duration, Vec<Arrival>)> = VecDeque::new();
    let mut out = Run { seconds: Vec::new(), queued_ms: Vec::new() };
    let (mut delivered, mut frame, mut losing) = (0.0, 0u32, false);
    for ms in 0..length_s * 1_000 {
        let seconds = ms as f64 / 1e3;
        let capacity = (link.capacity)(seconds);
        let mut send =
            |bytes: usize, probe: Option<u32>, now: Duration, noise: &mut Noise, control: &mut Congestion| {
                control.departed(Departed { number, bytes, at: now, probe });
                let start = busy_until.max(seconds);
                let waits = start - seconds;
                let share = (link.loss)(seconds);
                losing = match (link.burst > 1.0, losing) {
                    (true, true) => noise.unit() >= 1.0 / link.burst,
                    (true, false) => noise.unit() < share / (1.0 - share) / link.burst,
                    (false, _) => noise.unit() < share,
                };
                if waits <= link.queue.as_secs_f64() && !losing {
                    busy_until = start + bytes as f64 * 8.0 / capacity;
                    out.queued_ms.push(waits * 1e3);
                    let jitter = link.jitter.as_secs_f64() * noise.unit();
                    let at = Duration::from_secs_f64(busy_until + jitter) + link.one_way;
                    arriving.push((at, number, bytes));
                }
                number = number.wrapping_add(1);
            };
        if ms % 20 == 0 {
            send(120, None, now, &mut noise, &mut control);
        }
        if ms * 30 / 1_000 != (ms + 1) * 30 / 1_000 {
            let mean = (control.target_bps() - 48_000.0).clamp(20_000.0, most_bps.max(20_000.0)) / 30.0 / 8.0;
            let size = mean * (0.75 + 0.5 * noise.unit()) * if frame == 0 { 5.0 } else { 1.0 };
            frame += 1;
            let packets = (size / 1_150.0).ceil().max(1.0);
            pacer.extend(std::iter::repeat_n((size / packets) as usize, packets as usize));
        }
        if ms % 5 == 0 {
            control.tick(now);
            if probing.is_none() && !pacer.is_empty() {
                probing = control.take_probe(now).map(|probe| (probe.id, probe.bytes));
            }
            if let Some((id, bytes)) = probing.take() {
                // Media first, repeats of it for the rest.
                let mut left = bytes as i64;
                while left > 0 {
                    let size = pacer.pop_front().unwrap_or(1_150);
                    send(size, Some(id), now, &mut noise, &mut control);
                    left -= size as i64;
                }
            }
            budget = (budget + control.pacing_bps() / 8.0 * 0.005).min(control.pacing_bps() / 8.0 * 0.02);
            while budget > 0.0 {
                let Some(size) = pacer.pop_front() else { break };
                budget -= size as f64;
                send(size, None, now, &mut noise, &mut control);
            }
        }
        arriving.retain(|(at, number, bytes)| {
            let here = *at <= now;
            if here {
                seen.push((*number, *at));
                delivered += *bytes as f64 * 8.0;
                if highest.is_none_or(|high| number.wrapping_sub(high) < 0x8000) {
                    highest = Some(*number);
                }
            }
            !here
        });
        if ms % FEEDBACK_MS == 0
            && !seen.is_empty()
            && let Some(high) = highest
        {
            let count = high.wrapping_add(1).wrapping_sub(next_base);
            let mut list: Vec<Arrival> = if count < 0x8000 {
                (0..count).map(|n| Arrival { number: next_base.wrapping_add(n), at: None }).collect()
            } else {
                Vec::new()
            };
            for (number, at) in seen.drain(..) {
                match list.iter_mut().find(|arrival| arrival.number == number) {
                    Some(arrival) => arrival.at = Some(at),
                    None => list.push(Arrival { number, at: Some(at) }),
                }
            }
            next_base = high.wrapping_add(1);
            // Feedback is lost like anything else.
            if noise.unit() >= (link.loss)(seconds) {
                reports.push_back((now + link.one_way, list));
            }
        }
        while reports.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, list)) = reports.pop_front() {
                control.feedback(&list, now);
            }
        }
        now += STEP;
        if ms % 1_000 == 999 {
            out.seconds.push(Second {
                capacity_bps: capacity,
                delivered_bps: delivered,
                target_bps: control.target_bps(),
            });
            delivered = 0.0;
        }
    }
    // Seen when the test fails, or with --nocapture: capacity, arrived and target in kbit/s, second by second.
    for (second, s) in out.seconds.iter().enumerate() {
        println!("{second:3} {:5.0} {:5.0} {:5.0}", s.capacity_bps / 1e3, s.delivered_bps / 1e3, s.target_bps / 1e3);
    }
    out
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
