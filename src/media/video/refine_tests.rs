use super::*;

const RATE: u32 = 1_500_000;

fn ms(from: Instant, ms: u64) -> Instant {
    from + Duration::from_millis(ms)
}

/// Lets a page be encoded for some time, 5 ms by 5 ms; what was encoded when. `bytes` tells how long a picture becomes.
fn run(
    refiner: &mut Refiner,
    from: Instant,
    times: std::ops::Range<u64>,
    changes: impl Fn(u64) -> bool,
    bytes: impl Fn(Quality) -> usize,
) -> Vec<(u64, Quality)> {
    let mut encoded = Vec::new();
    for t in times.step_by(5) {
        let now = ms(from, t);
        if changes(t) {
            refiner.changed(now);
        }
        if let Next::Encode(quality) = refiner.next(now, RATE, false, false) {
            let quantizer = match quality {
                Quality::Rate => 54,
                Quality::Quantizer(q) => q,
            };
            refiner.encoded(now, quality, Some(quantizer), bytes(quality));
            encoded.push((t, quality));
        }
    }
    encoded
}

#[test]
fn a_page_is_shown_at_once_made_finer_step_by_step_and_then_left_alone() {
    let start = Instant::now();
    let mut refiner = Refiner::default();
    let encoded = run(&mut refiner, start, 0..10_000, |t| t == 0, |_| 30_000);
    assert_eq!(encoded.first(), Some(&(0, Quality::Rate)));
    let quantizers: Vec<u8> = encoded
        .iter()
        .filter_map(|(_, q)| match q {
            Quality::Quantizer(q) => Some(*q),
            Quality::Rate => None,
        })
        .collect();
    assert!(quantizers.windows(2).all(|w| w[1] < w[0]), "{quantizers:?}");
    assert_eq!(quantizers.last(), Some(&SHARP));
    assert_eq!(encoded.len(), quantizers.len() + 1);
    // 30 kB take 160 ms of this path: the next one waits for nearly all of that.
    assert!(encoded.windows(2).all(|w| w[1].0 - w[0].0 >= 100), "{encoded:?}");
    assert!(encoded.last().is_some_and(|(t, _)| *t < 1_500), "{encoded:?}");
    assert_eq!(refiner.next(ms(start, 20_000), RATE, false, false), Next::Rest);
    // A newcomer's key frame is made finer again.
    assert_eq!(refiner.next(ms(start, 20_000), RATE, false, true), Next::Encode(Quality::Quantizer(SHARP)));
    assert_eq!(refiner.next(ms(start, 20_000), RATE, true, false), Next::Encode(Quality::Rate));
    refiner.encoded(ms(start, 20_000), Quality::Rate, Some(50), 30_000);
    assert!(!run(&mut refiner, start, 20_005..25_000, |_| false, |_| 30_000).is_empty());
}

#[test]
fn a_scrolled_page_has_as_many_pictures_as_the_path_takes() {
    let per_second = |bytes: usize| {
        let encoded = run(&mut Refiner::default(), Instant::now(), 0..10_000, |t| t % 30 == 0, |_| bytes);
        encoded.len() as u64 / 10
    };
    assert!((13..=15).contains(&per_second(1_000)), "{}", per_second(1_000));
    assert!((5..=7).contains(&per_second(30_000)), "{}", per_second(30_000));
    // 60 kB are 320 ms of this path: never more in flight than it can forgive.
    assert!((3..=4).contains(&per_second(60_000)), "{}", per_second(60_000));
}

#[test]
fn what_stands_still_beside_something_that_moves_is_made_finer_too() {
    let encoded = run(&mut Refiner::default(), Instant::now(), 0..6_000, |t| t % 30 == 0, |_| 2_000);
    let finer = encoded.iter().filter(|(_, q)| *q != Quality::Rate).count();
    assert!((4..=6).contains(&finer), "{finer} in {encoded:?}");
}

#[test]
fn a_codec_without_quantizers_comes_to_an_end_too() {
    let start = Instant::now();
    let mut refiner = Refiner::default();
    refiner.changed(start);
    let mut passes = 0;
    for t in (0..20_000).step_by(5) {
        if let Next::Encode(quality) = refiner.next(ms(start, t), RATE, false, false) {
            refiner.encoded(ms(start, t), quality, None, 5_000);
            passes += 1;
        }
    }
    assert_eq!(passes, PASSES + 1);
}

#[test]
fn a_muted_screen_asks_for_nothing() {
    let start = Instant::now();
    let mut refiner = Refiner::default();
    refiner.changed(start);
    refiner.clear();
    assert_eq!(refiner.next(ms(start, 10), RATE, false, false), Next::Rest);
}

#[test]
fn a_film_is_told_from_a_page_and_from_scrolling() {
    let start = Instant::now();
    let picture = |n: u64, rows: usize| {
        let mut frame = VideoFrame::black(64, 64);
        for row in frame.y.chunks_exact_mut(64).take(rows) {
            row.fill(16 + (n % 200) as u8);
        }
        frame
    };
    // Pictures come at 30 a second. A film of 24 a second in the upper half for 6 s; scrolling for 2 s; a blinking cursor.
    let after = |rows: usize, moving_ms: u64, every: u64| {
        let mut detector = MotionDetector::default();
        let mut last = picture(0, rows);
        let mut film = None;
        for n in 0..300u64 {
            let t = n * 33;
            let shown = if t < moving_ms { n / every } else { 500 };
            let next = picture(shown, rows);
            let content = detector.picture(Some(&last), &next, ms(start, t));
            if content == Content::Motion {
                film.get_or_insert(t);
            }
            last = next;
        }
        (film, detector.picture(Some(&last), &last, ms(start, 10_000)))
    };
    let (film, end) = after(32, 6_000, 1);
    assert!(film.is_some_and(|t| (2_900..4_500).contains(&t)), "{film:?}");
    assert_eq!(end, Content::Screen, "it ends with the film");
    assert_eq!(after(32, 2_000, 1).0, None, "scrolled");
    assert_eq!(after(4, 10_000, 1).0, None, "a small thing that moves");
    assert_eq!(after(64, 10_000, 6).0, None, "slides, quickly");
}
