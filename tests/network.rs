//! Calls of the real program over bad networks, between network namespaces (see `netns`): an independent witness beside
//! `--simulate-network`. Limits are wider than the figures: these runs share their machine with other tests.
//!
//! `cargo test --test network -- --ignored --nocapture` prints the rows of the list of figures; `TERTULIA_BIN` names another
//! build, `TERTULIA_SEED` another seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod netns;

use netns::{Call, Sample};
use serde_json::json;

fn mean(samples: &[Sample], from: f64, to: f64) -> f64 {
    let targets: Vec<f64> = samples.iter().filter(|s| (from..to).contains(&s.at)).map(|s| s.target_bps()).collect();
    targets.iter().sum::<f64>() / targets.len() as f64
}

fn freeze_ms(samples: &[Sample]) -> f64 {
    samples.last().unwrap().number("freeze_ms")
}

#[test]
fn the_rate_follows_steps_of_the_capacity() {
    let links = ["pub up rate=2000,queue=300,delay=35", "pub down delay=35"];
    let Some(mut call) = Call::begin(&links, "1280x720", 41) else { return };
    let wide = call.until(14.0);
    call.set("pub up rate=700");
    let narrow = call.until(32.0);
    call.set("pub up rate=1400");
    let wider = call.until(50.0);
    // Of 2 Mbit/s some are headers and sound; so are some of the others.
    assert!(mean(&wide, 5.0, 14.0) > 1.0e6, "{}", mean(&wide, 5.0, 14.0));
    let down = narrow.iter().find(|s| s.target_bps() <= 0.7e6).map_or(99.0, |s| s.at - 14.0);
    assert!(down <= 6.0, "down after {down} s");
    let used = mean(&narrow, 20.0, 32.0);
    assert!((0.3e6..0.72e6).contains(&used), "{used}");
    let up = wider.iter().find(|s| s.target_bps() >= 0.75e6).map_or(99.0, |s| s.at - 32.0);
    assert!(up <= 11.0, "up after {up} s");
    assert!(mean(&wider, 43.0, 50.0) > 0.65e6, "{}", mean(&wider, 43.0, 50.0));
    assert!(freeze_ms(&wider) <= 3_000.0, "{}", freeze_ms(&wider));
    assert_eq!(wider.last().unwrap().video["pattern"]["crc_errors"], 0);
}

#[test]
fn a_narrow_link_is_no_reason_to_begin_with_a_still_picture() {
    let links = ["pub up rate=400,queue=300,delay=50", "pub down delay=50"];
    let Some(mut call) = Call::begin(&links, "1280x720", 42) else { return };
    let samples = call.until(10.0);
    assert!(freeze_ms(&samples) <= 1_000.0, "{}", freeze_ms(&samples));
    let last = samples.last().unwrap();
    assert!(last.number("fps") >= 15.0, "{last:?}");
    assert!(last.target_bps() >= 0.1e6 && last.target_bps() <= 0.42e6, "{last:?}");
}

#[test]
fn a_wide_link_shows_the_whole_picture_within_a_second() {
    let Some(mut call) = Call::begin(&[], "1280x720", 43) else { return };
    let samples = call.until(4.0);
    let last = samples.last().unwrap();
    let after_ms = last.video["time_to_720p_ms"].as_f64().expect("720 lines");
    assert!(after_ms <= 1_500.0, "{after_ms}");
}

#[test]
fn lost_packets_are_no_freezes() {
    for (leg, seed) in [("view", 44), ("pub", 45)] {
        let (up, down) = (format!("{leg} up loss=5,delay=45"), format!("{leg} down loss=5,delay=45"));
        let Some(mut call) = Call::begin(&[&up, &down], "640x360", seed) else { return };
        let samples = call.until(20.0);
        let last = samples.last().unwrap();
        assert!(freeze_ms(&samples) <= 2_000.0, "{leg}: {}", freeze_ms(&samples));
        assert!(last.number("fps") >= 24.0, "{leg}: {}", last.number("fps"));
        assert_eq!(last.video["pattern"]["crc_errors"], 0, "{leg}: nothing broken is shown");
    }
}

#[test]
fn bursts_of_losses_leave_a_moving_picture() {
    let links = ["view up loss=10,burst=3,delay=30", "view down loss=10,burst=3,delay=30"];
    let Some(mut call) = Call::begin(&links, "640x360", 46) else { return };
    let samples = call.until(20.0);
    let last = samples.last().unwrap();
    assert!(last.number("fps") >= 22.0, "{}", last.number("fps"));
    assert!(freeze_ms(&samples) <= 3_000.0, "{}", freeze_ms(&samples));
    assert_eq!(last.video["pattern"]["crc_errors"], 0);
}

#[test]
fn the_playout_delay_comes_and_goes_with_the_jitter() {
    let links = ["view up delay=40", "view down delay=40,jitter=60"];
    let Some(mut call) = Call::begin(&links, "640x360", 47) else { return };
    let bad = call.until(12.0);
    call.set("view down jitter=0");
    let good = call.until(26.0);
    let (held, after) =
        (bad.last().unwrap().number("playout_delay_ms"), good.last().unwrap().number("playout_delay_ms"));
    assert!(held <= 57.0 + 20.0 + 60.0, "{held}");
    assert!(after <= 70.0 && freeze_ms(&good) <= 1_000.0, "{after} {}", freeze_ms(&good));
}

/// Several flows on one line (N2): none of them starves, whoever came first.
#[test]
fn two_publishers_behind_one_link_share_it() {
    let links = ["pub up rate=1500,queue=300,delay=30", "pub down delay=30"];
    let Some(mut call) = Call::begin(&links, "1280x720", 48) else { return };
    call.until(8.0);
    call.join_beside(4, "1280x720");
    let fairness = |call: &mut Call, seconds: usize| {
        let mut rates = vec![0.0; 2];
        for _ in 0..seconds {
            std::thread::sleep(std::time::Duration::from_secs(1));
            call.sent_kbps().iter().zip(&mut rates).for_each(|(now, sum)| *sum += now / seconds as f64);
        }
        let (sum, squares) = (rates.iter().sum::<f64>(), rates.iter().map(|r| r * r).sum::<f64>());
        let jain = sum * sum / (rates.len() as f64 * squares);
        println!("{rates:.0?} kbit/s: Jain {jain:.3}");
        jain
    };
    std::thread::sleep(std::time::Duration::from_secs(10));
    assert!(fairness(&mut call, 10) >= 0.8);
    call.set("pub up rate=900");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(fairness(&mut call, 10) >= 0.8);
}

/// One row of the list of figures: links, picture, seconds, and what changes when.
type Row = (&'static str, &'static [&'static str], &'static str, f64, &'static [(f64, &'static str)]);

const ROWS: [Row; 24] = [
    ("F13 viewer", &["view up loss=5,delay=45", "view down loss=5,delay=45"], "640x360", 60.0, &[]),
    ("F13 publisher", &["pub up loss=5,delay=45", "pub down loss=5,delay=45"], "640x360", 60.0, &[]),
    ("F14 viewer", &["view up loss=10,burst=3,delay=30", "view down loss=10,burst=3,delay=30"], "640x360", 60.0, &[]),
    ("F14 publisher", &["pub up loss=10,burst=3,delay=30", "pub down loss=10,burst=3,delay=30"], "640x360", 60.0, &[]),
    ("F15 viewer", &["view up loss=30,delay=20", "view down loss=30,delay=20"], "640x360", 60.0, &[]),
    ("F15 publisher", &["pub up loss=30,delay=20", "pub down loss=30,delay=20"], "640x360", 60.0, &[]),
    (
        "F16 jitter 30",
        &["view up delay=50", "view down delay=50,jitter=30"],
        "640x360",
        30.0,
        &[(15.0, "view down jitter=0")],
    ),
    (
        "F16 jitter 100",
        &["view up delay=50", "view down delay=50,jitter=100"],
        "640x360",
        30.0,
        &[(15.0, "view down jitter=0")],
    ),
    ("F16 reorder", &["view up delay=50", "view down delay=50,reorder=5"], "640x360", 60.0, &[]),
    (
        "F17",
        &["pub up rate=1000,queue=300,delay=50", "pub down delay=50"],
        "1280x720",
        100.0,
        &[(40.0, "pub up rate=2500"), (60.0, "pub up rate=600"), (80.0, "pub up rate=1000")],
    ),
    ("begins at 400", &["pub up rate=400,queue=300,delay=50", "pub down delay=50"], "1280x720", 20.0, &[]),
    ("F10", &["pub up rate=3000,queue=300,delay=20", "pub down delay=20"], "1280x720", 15.0, &[]),
    (
        "F17 viewer",
        &["view down rate=1000,queue=300,delay=50", "view up delay=50"],
        "1280x720",
        100.0,
        &[(40.0, "view down rate=2500"), (60.0, "view down rate=600"), (80.0, "view down rate=1000")],
    ),
    // The scenarios of `quality.md`, D.3. Delays of N6 are round trips.
    ("N5 viewer", &["view up delay=500", "view down delay=500"], "640x360", 30.0, &[]),
    ("N5 publisher", &["pub up delay=500", "pub down delay=500"], "640x360", 30.0, &[]),
    ("N6.1 wifi", &["view up delay=8,loss=0.1", "view down delay=8,loss=0.1"], "1280x720", 20.0, &[]),
    (
        "N6.2 busy wifi",
        &["view up delay=20,loss=1", "view down rate=25000,queue=300,delay=20,loss=1"],
        "1280x720",
        30.0,
        &[],
    ),
    (
        "N6.3 weak 4G",
        &["view up delay=45,loss=2", "view down rate=8000,queue=300,delay=45,loss=2"],
        "1280x720",
        30.0,
        &[],
    ),
    (
        "N6.4 slow 3G",
        &["view up delay=100,loss=3", "view down rate=3000,queue=300,delay=100,loss=3"],
        "1280x720",
        40.0,
        &[],
    ),
    (
        "N6.5 busy cell",
        &["view up delay=150,loss=5", "view down rate=1500,queue=300,delay=150,loss=5"],
        "1280x720",
        40.0,
        &[],
    ),
    (
        "N6.6 bad cell",
        &["view up delay=225,loss=8", "view down rate=800,queue=300,delay=225,loss=8"],
        "1280x720",
        40.0,
        &[],
    ),
    (
        "N6.7 satellite",
        &["view up delay=300,loss=1.5", "view down rate=25000,queue=300,delay=300,loss=1.5"],
        "1280x720",
        40.0,
        &[],
    ),
    (
        "N6.8 barely usable",
        &["view up delay=225,loss=12", "view down rate=500,queue=300,delay=225,loss=12"],
        "1280x720",
        40.0,
        &[],
    ),
    ("viewer narrow", &["view down rate=700,queue=300,delay=30", "view up delay=30"], "1280x720", 30.0, &[]),
];

#[test]
#[ignore = "nine minutes of figures"]
fn rows() {
    let seed = std::env::var("TERTULIA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let only = std::env::var("TERTULIA_ROWS").ok();
    let mut out = Vec::new();
    for (row, links, size, seconds, steps) in ROWS {
        if only.as_ref().is_some_and(|only| !row.contains(only.as_str())) {
            continue;
        }
        println!("{row}");
        let Some(mut call) = Call::begin(links, size, seed) else { return };
        let connected_s = call.connected_s;
        let mut samples = Vec::new();
        let mut phases = Vec::new();
        let mut began = 0.0;
        let limited = links.iter().find(|l| l.contains("rate="));
        let mut rate = limited.and_then(|l| rate_of(l));
        let ends = steps.iter().map(|(at, link)| (*at, Some(*link))).chain([(seconds, None)]);
        for (at, link) in ends {
            samples.extend(call.until(at));
            let narrow = limited.and_then(|l| l.rsplit_once(' ')).map(|(link, _)| link);
            if let (Some(link), Some(rate)) = (narrow, rate) {
                phases.push(phase(&mut call, link, rate, (began, at), &samples));
            }
            if let Some(link) = link {
                call.set(link);
                rate = rate_of(link).or(rate);
            }
            began = at;
        }
        drop(call);
        let last = samples.last().unwrap();
        out.push(json!({
            "row": row, "links": links, "changes": steps, "size": size, "seconds": seconds, "seed": seed,
            "connected_s": connected_s, "video": last.video, "audio": last.audio, "target_bitrate_bps": last.target_bps(), "phases": phases,
            "held_ms": samples.iter().map(|s| s.number("playout_delay_ms")).collect::<Vec<_>>(),
        }));
    }
    let text = serde_json::to_string_pretty(&out).expect("JSON");
    match std::env::var_os("TERTULIA_ROWS_JSON") {
        Some(path) => std::fs::write(path, text).expect("the rows' file"),
        None => println!("{text}"),
    }
}

/// The rate in a link's words, in kbit/s.
fn rate_of(link: &str) -> Option<f64> {
    link.split(['=', ',', ' ']).skip_while(|w| *w != "rate").nth(1)?.parse().ok()
}

/// One capacity: how much of it was used (all packets of the link, the first seconds of finding out left out), how long the queue was that the sender
/// made itself, and how soon the rate was right.
fn phase(call: &mut Call, link: &str, kbps: f64, (from, to): (f64, f64), samples: &[Sample]) -> serde_json::Value {
    let now: Vec<&Sample> = samples.iter().filter(|s| (from..to).contains(&s.at)).collect();
    let first = now.first().map_or(0.0, |s| s.target_bps());
    let right = |s: &&&Sample| {
        let (target, capacity) = (s.target_bps(), kbps * 1e3);
        if first > capacity { target <= capacity } else { target >= 0.75 * capacity }
    };
    let (bytes, queue_ms_p95) = call.crossed(link).unwrap_or((0.0, f64::NAN));
    json!({
        "kbps": kbps, "from_s": from, "to_s": to, "used": bytes * 8.0 / 1e3 / (kbps * (to - from)), "queue_ms_p95": queue_ms_p95,
        "right_after_s": now.iter().find(right).map(|s| s.at - from),
        "target_bps": now.iter().map(|s| s.target_bps()).collect::<Vec<_>>(),
    })
}
