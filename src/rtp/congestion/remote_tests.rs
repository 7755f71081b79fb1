//! A sender that does what it is told, over a bottleneck in virtual time.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;

/// What the sender would send, and the bounds of what it is told, in bit/s.
const SOURCE_BPS: f64 = 2.5e6;
const BOUNDS_BPS: (f64, f64) = (100e3, 6e6);
const PACKET: usize = 1_000;

struct Link {
    /// Capacity in Mbit/s from a second on.
    steps: &'static [(f64, f64)],
    one_way: Duration,
    queue: Duration,
    /// Delay that varies, without changing the order.
    jitter: Duration,
    /// Share of packets that are lost on the way.
    loss: f64,
}

impl Link {
    fn bps(&self, seconds: f64) -> f64 {
        self.steps.iter().rev().find(|(from, _)| seconds >= *from).map_or(1e6, |(_, mbps)| mbps * 1e6)
    }
}

/// Bits that arrived in each second, and the rate at its end.
fn run(link: &Link, seconds: u64) -> Vec<(f64, f64)> {
    let mut estimate = RemoteEstimate::new(BOUNDS_BPS.0, BOUNDS_BPS.1);
    let (mut target, mut busy, mut credit, mut noise) = (SOURCE_BPS, 0.0f64, 0.0, 12_345u64);
    let mut random = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        (noise >> 11) as f64 / (1u64 << 53) as f64
    };
    // When, when sent, and how many were lost just before.
    let mut arriving: VecDeque<(Duration, Duration, u32)> = VecDeque::new();
    let mut told: VecDeque<(Duration, f64)> = VecDeque::new();
    let (mut last, mut gap, mut got, mut out) = (Duration::ZERO, 0, 0.0, Vec::new());
    for ms in 0..seconds * 1_000 {
        let (now, at) = (Duration::from_millis(ms), ms as f64 / 1e3);
        while let Some((_, bps)) = told.pop_front_if(|(at, _)| *at <= now) {
            target = bps.min(SOURCE_BPS);
        }
        credit += target / 8.0 / 1e3;
        // Pictures come at 30 a second.
        while ms % 33 == 0 && credit >= PACKET as f64 {
            credit -= PACKET as f64;
            let start = busy.max(at);
            if start - at > link.queue.as_secs_f64() || random() < link.loss {
                gap += 1;
                continue;
            }
            busy = start + PACKET as f64 * 8.0 / link.bps(at);
            let jitter = link.jitter.as_secs_f64() * random();
            last = last.max(Duration::from_secs_f64(busy + jitter) + link.one_way);
            arriving.push_back((last, now, std::mem::take(&mut gap)));
        }
        while let Some((at, sent, lost)) = arriving.pop_front_if(|(at, ..)| *at <= now) {
            got += PACKET as f64 * 8.0;
            // The counter turns on the way.
            let ticks = ((sent.as_micros() + 50_000_000) << 18) / 1_000_000;
            estimate.lost(lost);
            estimate.packet((ticks % u128::from(TURN)) as u32, PACKET, at, link.one_way * 2);
            if let Some(bps) = estimate.message(at) {
                told.push_back((now + link.one_way, bps));
            }
        }
        if ms % 1_000 == 999 {
            out.push((std::mem::take(&mut got), target));
        }
    }
    out
}

fn link(steps: &'static [(f64, f64)]) -> Link {
    let (one_way, queue) = (Duration::from_millis(40), Duration::from_millis(300));
    Link { steps, one_way, queue, jitter: Duration::ZERO, loss: 0.0 }
}

#[test]
fn nothing_is_told_while_the_path_takes_everything() {
    let seconds = run(&link(&[(0.0, 5.0)]), 30);
    assert!(seconds.iter().all(|(_, target)| *target >= SOURCE_BPS), "{seconds:?}");
}

#[test]
fn losses_of_the_path_do_not_starve_it() {
    for loss in [0.02, 0.1, 0.2] {
        let seconds = run(&Link { loss, ..link(&[(0.0, 5.0)]) }, 60);
        let mean = seconds[5..].iter().map(|(_, target)| target).sum::<f64>() / 55.0;
        assert!(mean >= 0.75 * SOURCE_BPS, "{loss}: {mean} {seconds:?}");
    }
}

#[test]
fn it_follows_the_capacity_down_and_up_on_a_grid_of_paths() {
    let sets: [&'static [(f64, f64)]; 3] = [
        &[(0.0, 3.0), (30.0, 0.4), (55.0, 1.7)],
        &[(0.0, 2.0), (30.0, 0.7), (55.0, 2.0)],
        &[(0.0, 1.5), (30.0, 0.6), (55.0, 1.0)],
    ];
    let (mut bad, mut all) = (0, 0);
    for steps in sets {
        for one_way in [20, 75, 150] {
            for jitter in [0, 20, 30] {
                for queue in [50, 100, 130, 200, 300, 500] {
                    let millis = Duration::from_millis;
                    let link = Link {
                        steps,
                        one_way: millis(one_way),
                        queue: millis(queue),
                        jitter: millis(jitter),
                        loss: 0.0,
                    };
                    let seconds = run(&link, 100);
                    let (low, high) = (steps[1].1 * 1e6, steps[2].1 * 1e6);
                    let down = (30..55).find(|at| seconds[*at].1 <= 1.1 * low).map_or(99, |at| at - 30);
                    let good = |at: usize| seconds[at].0 >= 0.8 * high;
                    let up = (55..99).find(|at| good(*at) && good(at + 1)).map_or(99, |at| at - 55);
                    let used = |from: usize, to: usize| {
                        let there: f64 = (from..to).map(|at| link.bps(at as f64).min(SOURCE_BPS)).sum();
                        seconds[from..to].iter().map(|(got, _)| got).sum::<f64>() / there
                    };
                    let over = seconds[36..55].iter().filter(|(_, target)| *target > 1.25 * low).count();
                    all += 1;
                    let fine = down <= 5 && up <= 10 && used(5, 100) >= 0.8 && over <= 2;
                    if !fine {
                        bad += 1;
                        println!(
                            "{steps:?} {one_way} ms, jitter {jitter}, queue {queue}: down {down}, up {up}, over {over}, used {:.2}",
                            used(5, 100)
                        );
                    }
                }
            }
        }
    }
    println!("{bad} of {all}");
    assert!(bad * 20 <= all, "{bad} of {all} out of the limits");
}
