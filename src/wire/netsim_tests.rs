//! Statistics of the simulated path.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn profile(spec: &str) -> Profile {
    Impairments::parse(spec).unwrap().up
}

#[test]
fn specifications() {
    let both = Impairments::parse("loss=5,burst=3,delay=40,jitter=10,rate=800,queue=150").unwrap();
    assert_eq!(both.up, both.down);
    assert_eq!(
        both.up,
        Profile { loss: 0.05, burst: 3.0, delay: 40 * MS, jitter: 10 * MS, rate_bps: Some(800_000), queue: 150 * MS }
    );
    let split = Impairments::parse("delay=20, up:loss=5%,rate=800kbit/s,down:loss=1").unwrap();
    assert_eq!((split.up.loss, split.down.loss), (0.05, 0.01));
    assert_eq!((split.up.rate_bps, split.down.rate_bps), (Some(800_000), None));
    assert_eq!((split.up.delay, split.down.delay), (20 * MS, 20 * MS));
    assert!(Impairments::parse("").unwrap().is_clean());
    assert_eq!("loss=2".parse::<Impairments>().unwrap().down.loss, 0.02);
    assert_eq!(Impairments::parse("loss"), Err(ParseError::NotAPair("loss".to_owned())));
    assert_eq!(Impairments::parse("up:lag=3"), Err(ParseError::UnknownName("lag".to_owned())));
    for bad in ["loss=101", "loss=-1", "loss=x", "loss=NaN", "burst=0", "delay=-5", "rate=0", "queue=1e99", "delay=inf"]
    {
        assert!(matches!(Impairments::parse(bad), Err(ParseError::BadValue { .. })), "{bad}");
    }
}

#[test]
fn losses_are_as_many_and_as_long_as_asked_for() {
    for (spec, loss, burst) in [("loss=5", 0.05, 1.05), ("loss=10,burst=4", 0.10, 4.0), ("loss=30,burst=2", 0.3, 2.0)] {
        let now = Instant::now();
        let mut link = Link::new(profile(spec), 7);
        let fates: Vec<bool> = (0..200_000)
            .map(|number| {
                let arrives = link.push(number, 100, now);
                assert_eq!(link.poll(now).is_some(), arrives);
                arrives
            })
            .collect();
        let lost = fates.iter().filter(|arrives| !**arrives).count();
        let share = lost as f64 / fates.len() as f64;
        assert!((share - loss).abs() < loss * 0.1, "{spec}: {share}");
        let runs = fates.windows(2).filter(|pair| pair == &[true, false]).count();
        let mean = lost as f64 / runs as f64;
        assert!((mean - burst).abs() < burst * 0.1, "{spec}: {mean}");
        assert_eq!(link.stats().lost as usize, lost);
        let stats = link.stats();
        assert_eq!(stats.delivered + stats.lost + stats.overflowed, stats.pushed);
    }
    let mut link = Link::new(profile("loss=100"), 7);
    assert!((0..1000).all(|number| !link.push(number, 100, Instant::now())));
}

#[test]
fn delay_and_jitter() {
    let start = Instant::now();
    let mut link = Link::new(profile("delay=50,jitter=20"), 3);
    for number in 0..1000u32 {
        link.push(number, 100, start);
    }
    assert!(link.poll(start + 49 * MS).is_none());
    let mut times = Vec::new();
    let mut order = Vec::new();
    while let Some(at) = link.next_timeout() {
        order.push(link.poll(at).unwrap());
        times.push(at - start);
    }
    assert!(times.is_sorted() && times.iter().all(|time| (50 * MS..=70 * MS).contains(time)));
    let mean = times.iter().sum::<Duration>() / 1000;
    assert!((59 * MS..61 * MS).contains(&mean), "{mean:?}");
    assert!(!order.is_sorted(), "jitter lets datagrams overtake each other");
    // Without jitter the order is kept.
    let mut link = Link::new(profile("delay=5"), 3);
    for number in 0..100 {
        link.push(number, 100, start);
    }
    let order: Vec<u32> = std::iter::from_fn(|| link.poll(start + 5 * MS)).collect();
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[test]
fn the_rate_is_kept_and_the_queue_is_bounded() {
    // 1 Mbit/s: 1 250 bytes take 10 ms. Offered twice as much for ten seconds.
    let start = Instant::now();
    let mut link = Link::new(profile("rate=1000,queue=100"), 1);
    let mut delivered = 0;
    let mut longest = Duration::ZERO;
    for tick in 0..2_000u32 {
        let now = start + 5 * MS * tick;
        link.push(now, 1_250, now);
        while let Some(at) = link.next_timeout().filter(|at| *at <= now) {
            let sent = link.poll(now).unwrap();
            longest = longest.max(at - sent);
            delivered += 1;
        }
    }
    assert!((985..=1_000).contains(&delivered), "{delivered}");
    assert!(longest <= 112 * MS && longest > 90 * MS, "{longest:?}");
    assert!(link.stats().overflowed > 900);
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let now = Instant::now();
    let run = |seed| {
        let mut link = Link::new(profile("loss=20,jitter=30"), seed);
        let fates: Vec<bool> = (0..500).map(|number| link.push(number, 1, now)).collect();
        let order: Vec<i32> = std::iter::from_fn(|| link.poll(now + 30 * MS)).collect();
        (fates, order)
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
