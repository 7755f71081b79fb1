//! Whether a device moves as much sound as it says: one that lies about its rate, and one that loses samples.

use super::pulse::Mark;
use std::time::Duration;

/// Callbacks are counted over this time, from one of them to another.
const WINDOW: Duration = Duration::from_secs(2);
/// A device that is off by less is true to its word: clocks are, to 0.1 %, and the moments of callbacks are not exact.
const NEAR: f64 = 0.012;
/// Over this time those moments matter less ...
const LONG_WINDOW: Duration = Duration::from_secs(20);
/// ... so that two such windows tell a clock that is off by more than this: others have to stretch its sound all the time.
const LONG_NEAR: f64 = 0.002_5;
/// How well they have to agree.
const LONG_AGREE: f64 = 0.001;
/// Windows that agree as well as this are another rate; a machine that loses samples is not as regular ...
const AGREE: f64 = 0.003;
/// ... so many of them, one after the other.
const WINDOWS: usize = 3;
/// No device is as far from what it says.
const FAR: f64 = 8.0;
/// Rates that devices have: what is counted is one of those where it is as near to it as windows are to each other.
const RATES_HZ: [u32; 11] = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000];

/// What a window says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Verdict {
    /// All is well.
    True,
    /// Something is wrong, and not yet certain what.
    Unclear,
    /// The device runs at this rate.
    Rate(u32),
    /// This share of the samples is lost.
    Lossy(f64),
}

/// Counts the frames of one device.
#[derive(Debug, Default)]
pub(crate) struct RateWatch {
    began: Option<Mark>,
    /// What was counted in the windows that were off, one after the other.
    off_hz: Vec<f64>,
    long_began: Option<Mark>,
    /// What was counted in the long window before, where that was off.
    long_off_hz: Option<f64>,
}

impl RateWatch {
    /// Looks at the last callback of a device that is believed to run at `told_hz`; a verdict at the end of each window.
    pub(crate) fn look(&mut self, mark: Mark, told_hz: u32) -> Option<Verdict> {
        let (elapsed, frames) = mark.since(*self.began.get_or_insert(mark));
        if elapsed < WINDOW {
            return None;
        }
        self.began = Some(mark);
        let verdict = self.counted(frames as f64 / elapsed.as_secs_f64(), told_hz);
        if matches!(verdict, Verdict::Rate(_) | Verdict::Lossy(_)) {
            (self.long_began, self.long_off_hz) = (None, None);
            return Some(verdict);
        }
        Some(self.long_counted(mark, told_hz).map_or(verdict, Verdict::Rate))
    }

    /// The rate of a device that is near to what it says and not near enough, after two long windows.
    fn long_counted(&mut self, mark: Mark, told_hz: u32) -> Option<u32> {
        let (elapsed, frames) = mark.since(*self.long_began.get_or_insert(mark));
        if elapsed < LONG_WINDOW {
            return None;
        }
        self.long_began = Some(mark);
        let (hz, told) = (frames as f64 / elapsed.as_secs_f64(), f64::from(told_hz.max(1)));
        let off = Some(hz).filter(|hz| (hz / told - 1.0).abs() > LONG_NEAR);
        let before = std::mem::replace(&mut self.long_off_hz, off);
        let (now, before) = (off?, before?);
        ((now / before - 1.0).abs() <= LONG_AGREE).then(|| {
            self.long_off_hz = None;
            ((now + before) / 2.0).round() as u32
        })
    }

    fn counted(&mut self, counted_hz: f64, told_hz: u32) -> Verdict {
        let told = f64::from(told_hz.max(1));
        if (counted_hz / told - 1.0).abs() < NEAR {
            self.off_hz.clear();
            return Verdict::True;
        }
        self.off_hz.push(counted_hz);
        let mean = self.off_hz.iter().sum::<f64>() / self.off_hz.len() as f64;
        let agree = self.off_hz.iter().all(|hz| (hz / mean - 1.0).abs() <= AGREE / 2.0);
        if !agree {
            // One window may be off because its first or last callback came late; two are not.
            let lossy = self.off_hz.iter().all(|hz| *hz < told);
            self.off_hz = vec![counted_hz];
            return if lossy { Verdict::Lossy(1.0 - mean / told) } else { Verdict::Unclear };
        }
        if self.off_hz.len() < WINDOWS || !(told / FAR..told * FAR).contains(&mean) {
            self.off_hz.truncate(WINDOWS);
            return Verdict::Unclear;
        }
        self.off_hz.clear();
        let known = RATES_HZ.into_iter().find(|hz| (mean / f64::from(*hz) - 1.0).abs() <= AGREE);
        Verdict::Rate(known.unwrap_or(mean.round() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verdicts on a device that is asked ten times a second, whose callbacks of `frames` come at `hz`, each late by up to `late_ms`.
    fn verdicts(told_hz: u32, hz: f64, frames: u64, seconds: u64, late_ms: u64) -> Vec<Verdict> {
        let mut watch = RateWatch::default();
        let (mut found, mut next_look, mut told_hz) = (Vec::new(), Duration::ZERO, told_hz);
        for call in 1.. {
            let late = Duration::from_millis((call * 7_919) % (late_ms + 1));
            let at = Duration::from_secs_f64((call * frames) as f64 / hz) + late;
            if at > Duration::from_secs(seconds) {
                break;
            }
            if at >= next_look {
                next_look = at + Duration::from_millis(100);
                if let Some(verdict) = watch.look(Mark::new(at, call * frames), told_hz) {
                    if let Verdict::Rate(hz) = verdict {
                        told_hz = hz;
                    }
                    found.push(verdict);
                }
            }
        }
        found
    }

    #[test]
    fn large_callbacks_are_no_loss() {
        // Whole callbacks of 2 048 frames over 2 s are up to 2.1 % off.
        for frames in [441, 480, 1_024, 2_048, 4_096] {
            let found = verdicts(48_000, 48_009.6, frames, 120, 0);
            assert!(found.len() > 50 && found.iter().all(|v| *v == Verdict::True), "{frames}: {found:?}");
        }
        // Nor is one that comes late now and then, by nearly its own length.
        let found = verdicts(48_000, 48_000.0, 2_048, 120, 30);
        assert!(found.iter().all(|v| matches!(v, Verdict::True | Verdict::Unclear)), "{found:?}");
    }

    #[test]
    fn any_rate_that_is_not_what_the_device_says_is_found_out() {
        let rates = [(48_000, 44_100), (48_000, 47_000), (48_000, 50_000), (8_000, 16_000), (44_100, 48_000)];
        for (told_hz, true_hz) in rates {
            for off in [0.999_9, 1.000_1] {
                let found = verdicts(told_hz, f64::from(true_hz) * off, 480, 20, 1);
                let rate = found.iter().find_map(|v| if let Verdict::Rate(hz) = v { Some(*hz) } else { None });
                assert!(rate.is_some_and(|hz| hz.abs_diff(true_hz) <= 30), "{told_hz} {true_hz}: {found:?}");
                assert!(!found.iter().any(|v| matches!(v, Verdict::Lossy(_))), "{found:?}");
                assert_eq!(found.last(), Some(&Verdict::True), "{found:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_is_a_little_off_is_found_out_in_time_and_a_true_one_is_left_alone() {
        for true_hz in [47_600.0, 47_850.0, 48_400.0] {
            let found = verdicts(48_000, true_hz, 480, 90, 5);
            let rate = found.iter().find_map(|v| if let Verdict::Rate(hz) = v { Some(*hz) } else { None });
            assert!(rate.is_some_and(|hz| (f64::from(hz) / true_hz - 1.0).abs() < 0.001), "{true_hz}: {found:?}");
            assert_eq!(found.iter().filter(|v| matches!(v, Verdict::Rate(_))).count(), 1, "{found:?}");
        }
        for (true_hz, late_ms) in [(48_000.0, 40), (47_952.0, 5), (48_048.0, 5)] {
            let found = verdicts(48_000, true_hz, 480, 300, late_ms);
            assert!(found.iter().all(|v| *v == Verdict::True), "{true_hz}: {found:?}");
        }
    }

    #[test]
    fn a_busy_machine_loses_a_different_share_each_time() {
        let mut watch = RateWatch::default();
        let found = [0.9, 0.95, 0.85, 0.93, 0.88].map(|share| watch.counted(48_000.0 * share, 48_000));
        assert_eq!(found[0], Verdict::Unclear, "one window says nothing");
        assert!(found[1..].iter().all(|v| matches!(v, Verdict::Lossy(_))), "{found:?}");
    }
}
