//! When the machine is too slow for the picture: smaller ones, until it is not.
//!
//! What counts is the time that one picture takes, scaling included, as a share of the time there is for it. A machine that
//! is busy with other things is too slow as well.

use std::time::{Duration, Instant};

/// Width and height in eighths, step by step.
const EIGHTHS: [u32; 5] = [8, 6, 4, 3, 2];
/// The same in layers, of which each has twice the width and height of the next lower one.
const LAYERS: [u32; 3] = [8, 4, 2];
/// Above this share of a picture's time for [`LONG`] a step down is taken.
const TOO_MUCH: f32 = 0.9;
const LONG: Duration = Duration::from_secs(4);
/// A step up is taken when the larger picture is expected to take less than this share …
const ENOUGH: f32 = 0.7;
/// … for this long; for twice as long each time it turned out wrong, up to the other.
const CALM: (Duration, Duration) = (Duration::from_secs(8), Duration::from_secs(64));
/// A step down this soon after a step up says that it was wrong.
const REGRET: Duration = Duration::from_secs(15);
/// The work grows with this power of the pixels: a larger picture is encoded with less care, see the encoder's speeds.
const WORK: f32 = 0.75;
/// Weight of one picture in the mean.
const SHARE: f32 = 0.08;

/// Watches one encoder.
#[derive(Debug)]
pub struct Overuse {
    steps: &'static [u32],
    step: usize,
    mean: Option<f32>,
    /// Since when it is too much, or little enough for more.
    since: Option<(bool, Instant)>,
    calm: Duration,
    raised: Option<Instant>,
}

impl Default for Overuse {
    fn default() -> Self {
        Self { steps: &EIGHTHS, step: 0, mean: None, since: None, calm: CALM.0, raised: None }
    }
}

impl Overuse {
    /// Watches the highest of `count` layers that is sent: each step leaves out one.
    pub fn of_layers(count: usize) -> Self {
        Self { steps: LAYERS.get(..count.max(1)).unwrap_or(&LAYERS), ..Self::default() }
    }

    /// Steps down so far.
    pub fn steps(&self) -> usize {
        self.step
    }

    /// Takes the time `took` for a picture of which one comes every `interval`; `true` when the size changes.
    pub fn picture(&mut self, took: Duration, interval: Duration, now: Instant) -> bool {
        let share = took.as_secs_f32() / interval.as_secs_f32().max(0.001);
        // One picture in which the machine did something else says little.
        let share = share.min(4.0);
        let mean = self.mean.map_or(share, |mean| mean + (share - mean) * SHARE);
        self.mean = Some(mean);
        self.judge(mean, now)
    }

    /// Takes the mean share of a picture's time that its work takes; `true` when the size changes.
    pub fn judge(&mut self, mean: f32, now: Instant) -> bool {
        let wish = if mean > TOO_MUCH && self.step + 1 < self.steps.len() {
            Some(false)
        } else if self.step > 0 && mean * self.growth() < ENOUGH {
            Some(true)
        } else {
            None
        };
        let Some(up) = wish else {
            self.since = None;
            return false;
        };
        let since = match self.since {
            Some((wished, since)) if wished == up => since,
            _ => {
                self.since = Some((up, now));
                now
            }
        };
        let long = if up { self.calm } else { LONG };
        if now.saturating_duration_since(since) < long {
            return false;
        }
        (self.since, self.mean) = (None, None);
        if up {
            self.step -= 1;
            self.raised = Some(now);
        } else {
            self.step += 1;
            let wrong = self.raised.take().is_some_and(|at| now.saturating_duration_since(at) < REGRET);
            self.calm = if wrong { (self.calm * 2).min(CALM.1) } else { CALM.0 };
        }
        true
    }

    /// The limit of size with what the machine is able to do.
    pub fn limit(&self, (width, height): (u32, u32)) -> (u32, u32) {
        let eighths = self.steps.get(self.step).copied().unwrap_or(8);
        let part = |pixels: u32| (u64::from(pixels) * u64::from(eighths) / 8) as u32;
        (part(width).max(2), part(height).max(2))
    }

    /// How many times the work of now the next larger picture is.
    fn growth(&self) -> f32 {
        let eighths = |step: usize| self.steps.get(step).copied().unwrap_or(8) as f32;
        (eighths(self.step.saturating_sub(1)) / eighths(self.step)).powi(2).powf(WORK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(33);

    /// Pictures from `from` ms for `seconds`, of which a whole one takes `ms`; the changes.
    fn run(overuse: &mut Overuse, start: Instant, from: u64, seconds: u64, ms: impl Fn(u64) -> f32) -> usize {
        let mut changes = 0;
        for at in (from..from + seconds * 1_000).step_by(33) {
            let (width, _) = overuse.limit((1_000, 1_000));
            let took = ms(at) * (width as f32 / 1_000.0).powi(2);
            let now = start + Duration::from_millis(at);
            changes += usize::from(overuse.picture(Duration::from_secs_f32(took / 1e3), INTERVAL, now));
        }
        changes
    }

    #[test]
    fn a_fast_machine_is_left_alone_and_so_is_a_short_stall() {
        let (mut overuse, start) = (Overuse::default(), Instant::now());
        assert_eq!(run(&mut overuse, start, 0, 60, |_| 15.0), 0);
        assert_eq!(run(&mut overuse, start, 60_000, 30, |at| if at % 10_000 < 700 { 60.0 } else { 8.0 }), 0);
        assert_eq!(overuse.limit((1_280, 720)), (1_280, 720));
    }

    #[test]
    fn a_slow_machine_gets_a_smaller_picture_and_the_whole_one_again_when_it_can() {
        let (mut overuse, start) = (Overuse::default(), Instant::now());
        // A whole picture takes longer than there is time: three quarters of it do not.
        assert_eq!(run(&mut overuse, start, 0, 20, |_| 35.0), 1);
        assert_eq!(overuse.limit((1_280, 720)), (960, 540));
        assert_eq!(run(&mut overuse, start, 20_000, 20, |_| 140.0), 2);
        assert_eq!(overuse.limit((1_280, 720)), (480, 270));
        // The other work is done.
        assert_eq!(run(&mut overuse, start, 40_000, 60, |_| 10.0), 3);
        assert_eq!(overuse.limit((1_280, 720)), (1_280, 720));
    }

    #[test]
    fn it_does_not_swing() {
        let (mut overuse, start) = (Overuse::default(), Instant::now());
        // Just too slow for the whole picture, every now and then fast for some seconds.
        let changes = run(&mut overuse, start, 0, 240, |at| if at % 24_000 < 12_000 { 34.0 } else { 9.0 });
        assert!(changes <= 9, "{changes}");
    }
}
