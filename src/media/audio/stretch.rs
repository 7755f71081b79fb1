//! Time-scale modification: takes out or puts in one period of the sound, where it is least heard.

use super::Frame;
use super::dsp::{rms, similarity};

/// Samples needed in front for [`accelerate`]: 30 ms.
pub const ACCELERATE_NEEDS: usize = 1_440;
/// Samples needed in front for [`decelerate`]: 10 ms.
pub const DECELERATE_NEEDS: usize = 480;
/// Samples of the past needed for [`decelerate`]: 10 ms.
pub const DECELERATE_PAST: usize = 480;

/// Shortest period looked for: 2.5 ms (400 Hz; higher voices repeat several times in it).
const MIN_LAG: usize = 120;
/// Coarse search works on every 8th sample of a running mean.
const COARSE: usize = 8;
/// Quieter than this (−50 dBFS) nothing of a cut is heard.
const QUIET_RMS: f32 = 0.003;
/// Similarity of two neighboring periods that lets the seam disappear.
const GOOD_SIMILARITY: f32 = 0.6;

/// How much it matters to change the length now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Only where the sound is quiet.
    OnlyQuiet,
    /// Where the seam is not heard.
    Normal,
    /// Wherever it is least bad.
    High,
}

/// Lag with the best similarity between the piece at `anchor` and the piece `lag` samples after (or before) it.
fn best_lag(samples: &[f32], anchor: usize, backwards: bool, max_lag: usize, window: usize) -> Option<(usize, f32)> {
    let pair = |s: &'_ [f32], anchor: usize, lag: usize, window: usize| -> Option<f32> {
        let other = if backwards { anchor.checked_sub(lag)? } else { anchor + lag };
        Some(similarity(s.get(anchor..anchor + window)?, s.get(other..other + window)?))
    };
    let coarse: Vec<f32> = samples.chunks_exact(COARSE).map(|c| c.iter().sum::<f32>()).collect();
    let (rough, _) = (MIN_LAG / COARSE..=max_lag / COARSE)
        .filter_map(|lag| Some((lag, pair(&coarse, anchor / COARSE, lag, window / COARSE)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let around = rough * COARSE;
    (around.saturating_sub(COARSE).max(MIN_LAG)..=(around + COARSE).min(max_lag))
        .filter_map(|lag| Some((lag, pair(samples, anchor, lag, window)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
}

fn acceptable(similarity: f32, quiet: bool, urgency: Urgency) -> bool {
    match urgency {
        Urgency::OnlyQuiet => quiet,
        Urgency::Normal => quiet || similarity > GOOD_SIMILARITY,
        Urgency::High => true,
    }
}

/// Length of a period of 2.5–15 ms that can be taken out at the beginning of `samples`: two of them become one by
/// [`crossfade`]; where it is quiet not more than `excess`. `None` when there is no good place.
pub fn accelerate(samples: &[f32], urgency: Urgency, excess: usize) -> Option<usize> {
    let part = samples.get(..ACCELERATE_NEEDS)?;
    let max_lag = ACCELERATE_NEEDS / 2;
    let quiet = rms(part) < QUIET_RMS;
    let (lag, alike) =
        if quiet { (excess.clamp(MIN_LAG, max_lag), 1.0) } else { best_lag(part, 0, false, max_lag, max_lag)? };
    acceptable(alike, quiet, urgency).then_some(lag)
}

/// Length of a period of 2.5–10 ms that can be put in between `past` and `samples`: the beginning of `samples` crossfaded to the
/// end of `past`; where it is quiet not more than `lack`. `None` when there is no good place.
pub fn decelerate(past: &[f32], samples: &[f32], urgency: Urgency, lack: usize) -> Option<usize> {
    let future = samples.get(..DECELERATE_NEEDS)?;
    let past = past.get(past.len().checked_sub(DECELERATE_PAST)?..)?;
    let mut joined = past.to_vec();
    joined.extend_from_slice(future);
    let quiet = rms(&joined) < QUIET_RMS;
    let (lag, alike) = if quiet {
        (lack.clamp(MIN_LAG, DECELERATE_PAST), 1.0)
    } else {
        best_lag(&joined, past.len(), true, DECELERATE_PAST, DECELERATE_NEEDS)?
    };
    acceptable(alike, quiet, urgency).then_some(lag)
}

/// Length of a period of 2.5–10 ms at the end of `samples` that can be played once more, `missing` samples long or little
/// longer where there is such a one. `None` when it would be heard.
pub fn last_period(samples: &[f32], missing: usize) -> Option<usize> {
    let part = samples.get(samples.len().checked_sub(2 * DECELERATE_PAST)?..)?;
    if rms(part) < QUIET_RMS {
        return Some(missing.max(MIN_LAG));
    }
    let short = (missing + MIN_LAG).clamp(2 * MIN_LAG, DECELERATE_PAST);
    [short, DECELERATE_PAST].into_iter().find_map(|most| {
        let (lag, alike) = best_lag(part, DECELERATE_PAST, true, most, DECELERATE_PAST)?;
        acceptable(alike, false, Urgency::Normal).then_some(lag)
    })
}

/// From `from` to `to`, both channels, over `lag` frames.
pub fn crossfade(
    from: impl Iterator<Item = Frame>,
    to: impl Iterator<Item = Frame>,
    lag: usize,
) -> impl Iterator<Item = Frame> {
    from.zip(to).take(lag).enumerate().map(move |(i, (a, b))| {
        let w = i as f32 / lag.max(1) as f32;
        [a[0] * (1.0 - w) + b[0] * w, a[1] * (1.0 - w) + b[1] * w]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f32::consts::TAU;

    fn tone(hz: f32, n: usize) -> Vec<f32> {
        (0..n).map(|i| 0.3 * (TAU * hz * i as f32 / 48_000.0).sin()).collect()
    }

    /// Largest step between neighboring samples: a click would stand out.
    fn roughness(samples: &[f32]) -> f32 {
        samples.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_tone_stays_a_tone_when_shortened_and_lengthened() {
        for hz in [110.0, 300.0, 440.0, 1_237.0] {
            let original = tone(hz, 4_800);
            let smooth = roughness(&original) * 1.15;

            let frames = |samples: &[f32]| samples.iter().map(|s| [*s, -*s]).collect::<Vec<Frame>>();
            let (wide, faded) = (frames(&original), |f: Vec<Frame>| {
                assert!(f.iter().all(|f| f[0] == -f[1]), "both channels alike");
                f.iter().map(|f| f[0]).collect::<Vec<f32>>()
            });
            let lag = accelerate(&original, Urgency::Normal, 480).unwrap();
            assert!(lag >= 120, "{hz}");
            let (now, later) = (wide.iter().copied(), wide[lag..].iter().copied());
            let mut shorter = faded(crossfade(now, later, lag).collect());
            shorter.extend_from_slice(&original[2 * lag..]);
            assert!(roughness(&shorter) < smooth, "{hz}: {} {}", roughness(&shorter), smooth);

            let (mut again, lag) = (original.clone(), last_period(&original, 200).unwrap());
            again.extend_from_within(original.len() - lag..);
            again.extend(tone(hz, 4_800 + lag).split_off(4_800));
            // A period is no whole number of samples.
            assert!((120..=480).contains(&lag) && roughness(&again) < smooth * 1.4, "{hz}: {lag}");

            let (past, future) = original.split_at(960);
            let lag = decelerate(past, future, Urgency::Normal, 480).unwrap();
            assert!((120..=480).contains(&lag));
            let (after, again) = (wide[960..].iter().copied(), wide[960 - lag..].iter().copied());
            let inserted = faded(crossfade(after, again, lag).collect());
            let longer: Vec<f32> = past.iter().chain(&inserted).chain(future).copied().collect();
            assert!(roughness(&longer) < smooth, "{hz}: {} {}", roughness(&longer), smooth);
        }
    }

    #[test]
    fn noise_is_cut_only_when_urgent_and_silence_always() {
        let mut seed = 3u32;
        let noise: Vec<f32> = (0..1_440)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) as f32 / 16_777_216.0 - 0.5
            })
            .collect();
        assert!(accelerate(&noise, Urgency::Normal, 480).is_none());
        assert!(accelerate(&noise, Urgency::High, 480).is_some());
        let quiet = |excess| accelerate(&[0.0; 1_440], Urgency::OnlyQuiet, excess);
        assert_eq!([0, 300, 9_999].map(quiet), [Some(120), Some(300), Some(720)]);
        assert_eq!(decelerate(&[0.0; 480], &[0.0; 480], Urgency::OnlyQuiet, 200), Some(200));
        assert!(accelerate(&[0.0; 1_000], Urgency::High, 480).is_none());
    }
}
