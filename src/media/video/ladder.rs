//! Which size and frame rate a bitrate is good for, with hysteresis, so that a wavering estimate does not make the
//! picture jump: every change of size costs a key frame.

use std::time::{Duration, Instant};

use super::codec::Content;

/// Size limit and frame rate to encode at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Largest width and height in pixels.
    pub limit: (u32, u32),
    /// Most pictures a second.
    pub fps: u32,
}

/// Lowest bitrate in bit/s, size, pictures a second. Rising.
const CAMERA: [(u32, u32, u32, u32); 6] = [
    (0, 320, 180, 15),
    (150_000, 320, 180, 30),
    (250_000, 480, 270, 30),
    (400_000, 640, 360, 30),
    (700_000, 1280, 720, 30),
    (2_500_000, 1920, 1080, 30),
];
/// A screen keeps its size, or letters blur; it gives up frame rate instead.
const SCREEN: [(u32, u32, u32, u32); 3] = [(0, 4096, 4096, 5), (300_000, 4096, 4096, 10), (1_000_000, 4096, 4096, 15)];
/// A film on a screen: what it shows is larger than a face.
const MOTION: [(u32, u32, u32, u32); 5] = [
    (0, 640, 360, 15),
    (300_000, 640, 360, 30),
    (700_000, 960, 540, 30),
    (1_200_000, 1280, 720, 30),
    (2_500_000, 1920, 1080, 30),
];

/// Going up needs this much more than the rung asks, in percent …
const UP_PERCENT: u64 = 115;
/// … for this long.
const UP_AFTER: Duration = Duration::from_millis(600);
/// Soon after it went down, going up waits longer, each time twice as long: where the rate wavers round a rung's, every change
/// costs a key frame, which on a narrow path costs the rate again.
const SOON: Duration = Duration::from_secs(20);
const UP_AFTER_DOWN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(8));
/// At the beginning it goes up at once: the rate starts low, and the first answers of the network say what is really there.
const OPENING: Duration = Duration::from_millis(2_500);
/// Going down needs less than this part of what the rung asks, in percent …
const DOWN_PERCENT: u64 = 85;
/// … for this long.
const DOWN_AFTER: Duration = Duration::from_millis(400);

/// The ladder of one stream.
#[derive(Debug)]
pub struct Ladder {
    content: Content,
    rung: usize,
    wish: Option<(usize, Instant)>,
    began: Option<Instant>,
    /// When it went down last, and how long going up waits since.
    fell: Option<(Instant, Duration)>,
}

impl Ladder {
    /// Starts on the rung that `bitrate_bps` pays for.
    pub fn new(content: Content, bitrate_bps: u32) -> Self {
        let mut ladder = Self { content, rung: 0, wish: None, began: None, fell: None };
        ladder.rung = ladder.affordable(u64::from(bitrate_bps));
        ladder
    }

    fn rungs(&self) -> &'static [(u32, u32, u32, u32)] {
        match self.content {
            Content::Camera => &CAMERA,
            Content::Screen => &SCREEN,
            Content::Motion => &MOTION,
        }
    }

    fn affordable(&self, bitrate_bps: u64) -> usize {
        self.rungs().iter().rposition(|(floor, ..)| bitrate_bps >= u64::from(*floor)).unwrap_or(0)
    }

    /// The rung it stands on.
    pub fn rung(&self) -> Rung {
        let (_, width, height, fps) = self.rungs().get(self.rung).copied().unwrap_or((0, 320, 180, 15));
        Rung { limit: (width, height), fps }
    }

    /// Tells the bitrate of this moment; `true` when the rung has changed. To be called with every picture.
    pub fn update(&mut self, bitrate_bps: u32, now: Instant) -> bool {
        let opening = now.saturating_duration_since(*self.began.get_or_insert(now)) < OPENING;
        let up = self.affordable(u64::from(bitrate_bps) * 100 / UP_PERCENT);
        let down = self.affordable(u64::from(bitrate_bps) * 100 / DOWN_PERCENT);
        let (target, after) = if up > self.rung {
            let fell = self.fell.filter(|(at, _)| now.saturating_duration_since(*at) < SOON);
            match fell {
                None if opening => (up, Duration::ZERO),
                None => (up, UP_AFTER),
                // Far up is no wavering.
                Some(_) if up > self.rung + 1 => (up, UP_AFTER),
                Some((_, wait)) => (up, wait),
            }
        } else if down < self.rung {
            (down, DOWN_AFTER)
        } else {
            self.wish = None;
            return false;
        };
        if after.is_zero() {
            self.rung = target;
            self.wish = None;
            return true;
        }
        match self.wish {
            // The side counts, not the exact rung: a rising estimate must not start its waiting anew with every rung.
            Some((wished, since)) if (wished > self.rung) == (target > self.rung) => {
                if now.saturating_duration_since(since) < after {
                    return false;
                }
                if target < self.rung {
                    let (first, last) = UP_AFTER_DOWN;
                    let soon = self.fell.filter(|(at, _)| now.saturating_duration_since(*at) < SOON);
                    self.fell = Some((now, soon.map_or(first, |(_, wait)| (wait * 2).min(last))));
                }
                self.rung = target;
                self.wish = None;
                true
            }
            _ => {
                self.wish = Some((target, now));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ladder: &mut Ladder, from: Instant, ms: std::ops::Range<u64>, bitrate: impl Fn(u64) -> u32) -> usize {
        ms.step_by(33).filter(|ms| ladder.update(bitrate(*ms), from + Duration::from_millis(*ms))).count()
    }

    #[test]
    fn it_starts_where_the_bitrate_allows() {
        for (bitrate, height, fps) in
            [(100_000, 180, 15), (150_000, 180, 30), (399_999, 270, 30), (400_000, 360, 30), (700_000, 720, 30)]
        {
            let rung = Ladder::new(Content::Camera, bitrate).rung();
            assert_eq!((rung.limit.1, rung.fps), (height, fps), "{bitrate}");
        }
    }

    #[test]
    fn wavering_round_a_threshold_changes_nothing() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Content::Camera, 720_000);
        assert_eq!(run(&mut ladder, start, 0..20_000, |ms| if ms % 2 == 0 { 640_000 } else { 760_000 }), 0);
        assert_eq!(ladder.rung().limit.1, 720);
    }

    #[test]
    fn short_dips_are_sat_out_and_long_ones_are_not() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Content::Camera, 1_000_000);
        assert_eq!(run(&mut ladder, start, 0..300, |_| 100_000), 0);
        assert_eq!(run(&mut ladder, start, 300..400, |_| 1_000_000), 0);
        assert_eq!(run(&mut ladder, start, 400..1_000, |_| 100_000), 1);
        assert_eq!((ladder.rung().limit.1, ladder.rung().fps), (180, 15));
    }

    #[test]
    fn a_rate_that_swings_round_a_rung_changes_it_ever_more_rarely() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Content::Camera, 500_000);
        // Four seconds below 640x360, four above.
        let changes = run(&mut ladder, start, 0..60_000, |ms| if ms / 4_000 % 2 == 0 { 300_000 } else { 520_000 });
        assert!(changes <= 8, "{changes}");
        // What is far above is believed at once.
        assert_eq!(run(&mut ladder, start, 64_000..64_500, |_| 100_000), 1);
        assert_eq!(run(&mut ladder, start, 64_500..66_000, |_| 2_000_000), 1);
        assert_eq!(ladder.rung().limit.1, 720);
    }

    #[test]
    fn it_opens_at_once() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Content::Camera, 280_000);
        assert_eq!(run(&mut ladder, start, 0..100, |_| 280_000), 0);
        assert_eq!(run(&mut ladder, start, 100..200, |_| 900_000), 1);
        assert_eq!(ladder.rung().limit.1, 720);
    }

    #[test]
    fn a_ramp_reaches_720p_in_few_steps() {
        let start = Instant::now();
        let mut ladder = Ladder::new(Content::Camera, 300_000);
        let changes = run(&mut ladder, start, 0..4_000, |ms| 300_000 + ms as u32 * 700);
        assert_eq!(ladder.rung().limit.1, 720);
        assert!(changes <= 3, "{changes}");
    }

    #[test]
    fn a_screen_keeps_its_size() {
        let mut ladder = Ladder::new(Content::Screen, 3_000_000);
        assert_eq!(ladder.rung().fps, 15);
        run(&mut ladder, Instant::now(), 0..2_000, |_| 100_000);
        assert_eq!(ladder.rung(), Rung { limit: (4096, 4096), fps: 5 });
        assert_eq!(Ladder::new(Content::Motion, 3_000_000).rung(), Rung { limit: (1920, 1080), fps: 30 });
    }
}
