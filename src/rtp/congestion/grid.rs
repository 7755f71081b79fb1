//! The same steps over a grid of delays and queues, with jitter and with packets of others in between.

use std::time::Duration;

use super::{Second, bounds, link, run, steps};

/// Capacities in Mbit/s from a second on.
const STEPS: [&[(f64, f64)]; 6] = [
    &[(0.0, 1.0), (40.0, 2.5), (60.0, 0.6), (80.0, 1.0)],
    &[(0.0, 3.0), (30.0, 0.4), (55.0, 1.7), (80.0, 1.7)],
    &[(0.0, 2.0), (30.0, 0.3), (55.0, 3.0), (80.0, 0.7)],
    &[(0.0, 1.5), (25.0, 0.8), (50.0, 1.2), (75.0, 0.5)],
    &[(0.0, 10.0), (30.0, 1.0), (60.0, 10.0)],
    &[(0.0, 0.5), (30.0, 2.0), (60.0, 0.25), (80.0, 0.8)],
];

/// What disturbs the path.
#[derive(Debug, Clone, Copy)]
enum Disturbed {
    Nothing,
    Jitter(u64),
    Others,
}

/// Share used, 95th percentile of the queue, seconds up and down.
#[derive(Debug, Clone, Copy)]
struct Cell {
    used: f64,
    queued_ms: f64,
    up: usize,
    down: usize,
}

impl Cell {
    /// Whether it is within what a sender has to keep to.
    fn good(&self) -> bool {
        self.used >= 0.8 && self.queued_ms <= 100.0 && self.up <= 10 && self.down <= 5
    }
}

fn cell(caps: &'static [(f64, f64)], one_way: u64, queue: u64, disturbed: Disturbed) -> Cell {
    let mut link = link(steps(caps), one_way + queue);
    (link.one_way, link.queue, link.in_order) = (Duration::from_millis(one_way), Duration::from_millis(queue), true);
    match disturbed {
        Disturbed::Nothing => {}
        Disturbed::Jitter(ms) => link.jitter = Duration::from_millis(ms),
        Disturbed::Others => link.cross = 0.2,
    }
    let run = run(&link, bounds(2.6e6), 100);
    let there = |bps: f64| (bps * (1.0 - link.cross)).min(2.5e6);
    let room = |s: &Second| there(s.capacity_bps);
    let from = &run.seconds[5..];
    let used = from.iter().map(|s| s.delivered_bps.min(room(s))).sum::<f64>() / from.iter().map(room).sum::<f64>();
    let mut cell = Cell { used, queued_ms: run.queued_p95(), up: 0, down: 0 };
    for step in caps.windows(2) {
        let (from, bps) = (step[1].0 as usize, step[1].1 * 1e6);
        let good = |at: usize| run.seconds[at].delivered_bps >= 0.8 * there(bps);
        if step[1].1 > step[0].1 {
            cell.up = cell.up.max((from..99).find(|at| good(*at) && good(at + 1)).map_or(99, |at| at - from));
        } else if step[1].1 < step[0].1 {
            let down = (from..99).find(|at| run.seconds[*at].target_bps <= 1.1 * bps);
            cell.down = cell.down.max(down.map_or(99, |at| at - from));
        }
    }
    cell
}

#[test]
fn it_keeps_to_its_limits_on_a_grid_of_paths() {
    // How many of a hundred paths may miss one of the limits. Packets of others, on a path of which one takes a thirtieth of a
    // second, are a queue that nobody here has made.
    let allowed =
        [(Disturbed::Nothing, 3), (Disturbed::Jitter(15), 5), (Disturbed::Jitter(30), 15), (Disturbed::Others, 35)];
    for (disturbed, most) in allowed {
        let mut cells = Vec::new();
        for caps in STEPS {
            for one_way in [10, 50, 150] {
                for queue in [100, 300, 500] {
                    cells.push(cell(caps, one_way, queue, disturbed));
                }
            }
        }
        let count = |good: &dyn Fn(&Cell) -> bool| cells.iter().filter(|cell| !good(cell)).count() * 100 / cells.len();
        let bad = count(&Cell::good);
        println!("{disturbed:?}: {bad} of 100 out of the limits");
        assert!(bad <= most, "{disturbed:?}: {bad} {cells:?}");
        assert_eq!(count(&|cell| cell.down <= 5 && cell.used >= 0.7), 0, "{disturbed:?}: {cells:?}");
    }
}
