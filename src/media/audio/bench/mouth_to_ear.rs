//! Delay through real (or virtual) sound devices (F9): a mouth that plays chirps into what our microphone hears, and an ear that
//! records what our loudspeaker plays.
//!
//! A second ear listens at the mouth: what lies between the two is the figure, and what a recording itself takes cancels.

use crate::media::audio::pulse::CALLBACK_FRAMES;
use crate::media::audio::stream::lock;
use crate::media::audio::streams::{device_error, find};
use crate::media::audio::{AudioError, SAMPLE_RATE_HZ};
use cpal::traits::{DeviceTrait, StreamTrait};
use cpal::{BufferSize, StreamConfig};
use std::f32::consts::TAU;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A chirp every so often, in samples: longer than any delay that is looked for.
const PERIOD: usize = 48_000;
/// Length of a chirp, in samples: 60 ms.
const CHIRP: usize = 2_880;
/// It rises from here to there, in Hz.
const SWEEP_HZ: (f32, f32) = (400.0, 3_600.0);
const LOUDNESS: f32 = 0.25;
/// A tone for the rest of the second: from and until this sample, how high in Hz, and how loud.
const TONE: (f32, f32) = (9_600.0, 45_600.0);
pub(crate) const TONE_HZ: f32 = 440.0;
pub(crate) const TONE_LOUDNESS: f32 = 0.1;
/// Search works on every so many samples.
const DECIMATION: usize = 4;
/// Longest delay that is looked for.
const LONGEST: Duration = Duration::from_millis(700);
/// Likeness to the chirp from which it counts as heard.
const ALIKE: f32 = 0.4;
/// How long a sound server may take to set up a stream.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3);
/// Callbacks within this many samples tell the time of a sample: half a second.
const NEAR: usize = 24_000;
/// Longest recording, in samples: a minute.
const RECORDING: usize = 48_000 * 60;

fn chirp(i: usize) -> f32 {
    chirp_at(i as f32)
}

/// As [`chirp`], also between two samples.
fn chirp_at(i: f32) -> f32 {
    let t = i / SAMPLE_RATE_HZ as f32;
    let length = CHIRP as f32 / SAMPLE_RATE_HZ as f32;
    let slope = (SWEEP_HZ.1 - SWEEP_HZ.0) / length;
    let fade = (i.min(CHIRP as f32 - i) / 240.0).min(1.0);
    LOUDNESS * fade * (TAU * (SWEEP_HZ.0 * t + 0.5 * slope * t * t)).sin()
}

/// What is heard after so many seconds where each second begins with a chirp and has a tone behind it.
pub(crate) fn sung(seconds: f64) -> f32 {
    let place = (seconds.fract() * f64::from(SAMPLE_RATE_HZ)) as f32;
    let (from, until) = TONE;
    if place < CHIRP as f32 {
        chirp_at(place)
    } else if (from..until).contains(&place) {
        let fade = ((place - from).min(until - place) / 480.0).min(1.0);
        TONE_LOUDNESS * fade * (TAU * TONE_HZ * place / SAMPLE_RATE_HZ as f32).sin()
    } else {
        0.0
    }
}

/// What was recorded, and when each callback brought how much of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Recording {
    samples: Vec<f32>,
    /// Samples there were after a callback, and when it came.
    callbacks: Vec<(usize, Instant)>,
}

impl Recording {
    pub(super) fn take(&mut self, frames: impl Iterator<Item = f32>, now: Instant) {
        let room = RECORDING.saturating_sub(self.samples.len());
        self.samples.extend(frames.take(room));
        self.callbacks.push((self.samples.len(), now));
    }

    /// When a sample was, but for a constant delay: the callbacks near to it that came earliest know best. On a busy machine
    /// others come late, and what was lost before shifts all that follows.
    fn time_of(&self, sample: usize) -> Option<Instant> {
        let seconds = |samples: usize| Duration::from_secs_f64(samples as f64 / f64::from(SAMPLE_RATE_HZ));
        self.callbacks
            .iter()
            .filter(|(end, _)| end.abs_diff(sample) < NEAR)
            .filter_map(|(end, at)| match end.checked_sub(sample) {
                Some(after) => at.checked_sub(seconds(after)),
                None => at.checked_add(seconds(sample - end)),
            })
            .min()
    }

    /// When chirps began.
    pub(super) fn times(&self) -> Vec<Instant> {
        chirps(&self.samples).into_iter().filter_map(|at| self.time_of(at)).collect()
    }
}

/// Where chirps begin, in samples.
pub(crate) fn chirps(samples: &[f32]) -> Vec<usize> {
    let coarse = |samples: &mut dyn Iterator<Item = f32>| -> Vec<f32> {
        let all: Vec<f32> = samples.collect();
        all.chunks_exact(DECIMATION).map(|c| c.iter().sum::<f32>() / DECIMATION as f32).collect()
    };
    let wanted = coarse(&mut (0..CHIRP).map(chirp));
    let heard = coarse(&mut samples.iter().copied());
    let power = |s: &[f32]| s.iter().map(|x| x * x).sum::<f32>();
    let wanted_power = power(&wanted);
    let mut found: Vec<(usize, f32)> = Vec::new();
    for (at, piece) in heard.windows(wanted.len()).enumerate() {
        let product: f32 = piece.iter().zip(&wanted).map(|(a, b)| a * b).sum();
        // The power of the piece only where it could matter: most of a recording is silent.
        if product <= 0.0 || product * product < ALIKE * ALIKE * wanted_power * 1e-5 {
            continue;
        }
        let alike = product / (power(piece) * wanted_power).sqrt().max(1e-9);
        if alike < ALIKE {
            continue;
        }
        match found.last_mut() {
            Some((last, best)) if at - *last < PERIOD / DECIMATION / 2 => {
                if alike > *best {
                    (*last, *best) = (at, alike);
                }
            }
            _ => found.push((at, alike)),
        }
    }
    found.into_iter().map(|(at, _)| at * DECIMATION).collect()
}

fn config(channels: u16) -> StreamConfig {
    StreamConfig { channels, sample_rate: SAMPLE_RATE_HZ, buffer_size: BufferSize::Fixed(CALLBACK_FRAMES) }
}

/// Plays chirps.
pub struct Mouth {
    _stream: cpal::Stream,
}

impl Mouth {
    /// Begins to play on the speaker with this id.
    ///
    /// # Errors
    /// The device is not there or refuses.
    pub fn open(id: &str) -> Result<Self, AudioError> {
        let device = find(&cpal::default_host(), Some(id), false)?;
        let mut at = 0usize;
        let stream = device
            .build_output_stream::<f32, _, _>(
                config(2),
                move |samples, _| {
                    for frame in samples.chunks_exact_mut(2) {
                        let place = at % PERIOD;
                        frame.fill(if place < CHIRP { chirp(place) } else { 0.0 });
                        at += 1;
                    }
                },
                |error| tracing::warn!(%error, "mouth"),
                Some(BUILD_TIMEOUT),
            )
            .and_then(|stream| stream.play().map(|()| stream))
            .map_err(|e| device_error(false, id, &e))?;
        Ok(Self { _stream: stream })
    }
}

/// Records.
pub struct Ear {
    _stream: cpal::Stream,
    heard: Arc<Mutex<Recording>>,
}

impl Ear {
    /// Begins to record from the source with this id.
    ///
    /// # Errors
    /// The device is not there or refuses.
    pub fn open(id: &str) -> Result<Self, AudioError> {
        let device = find(&cpal::default_host(), Some(id), true)?;
        let heard = Arc::new(Mutex::new(Recording::default()));
        let record = Arc::clone(&heard);
        let stream = device
            .build_input_stream::<f32, _, _>(
                config(2),
                move |samples, _| {
                    let mono = samples.chunks_exact(2).map(|frame| frame.iter().sum::<f32>() / 2.0);
                    lock(&record).take(mono, Instant::now());
                },
                |error| tracing::warn!(%error, "ear"),
                Some(BUILD_TIMEOUT),
            )
            .and_then(|stream| stream.play().map(|()| stream))
            .map_err(|e| device_error(true, id, &e))?;
        Ok(Self { _stream: stream, heard })
    }

    /// How much later than `first` this one heard each chirp, in ms, and how many chirps the first one heard.
    pub fn delays_ms(&self, first: &Self) -> (Vec<f32>, usize) {
        let (first, this) = (lock(&first.heard).clone(), lock(&self.heard).clone());
        delays(&first, &this)
    }
}

fn delays(first: &Recording, second: &Recording) -> (Vec<f32>, usize) {
    let (first, second) = (first.times(), second.times());
    let found = first
        .iter()
        .filter_map(|spoken| {
            let after = |heard: &Instant| heard.checked_duration_since(*spoken).filter(|late| *late < LONGEST);
            second.iter().find_map(after).map(|late| late.as_secs_f32() * 1_000.0)
        })
        .collect();
    (found, first.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording in callbacks of 10 ms, of which some come late and one second is lost.
    fn recording(begun: Instant, chirps: &[f64], loudness: f32) -> Recording {
        let mut r = Recording::default();
        let mut seed = 1u32;
        for callback in 0..800u64 {
            if (300..400).contains(&callback) {
                continue;
            }
            let from = callback * 480;
            let block: Vec<f32> = (from..from + 480)
                .map(|i| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let noise = 0.01 * ((seed >> 8) as f32 / 8_388_608.0 - 1.0);
                    let into = chirps.iter().filter_map(|at| (i as usize).checked_sub((at * 48_000.0) as usize));
                    noise + into.filter(|i| *i < CHIRP).map(|i| loudness * chirp(i)).sum::<f32>()
                })
                .collect();
            let late = if callback % 7 == 0 { 0 } else { callback % 5 * 3 };
            r.take(block.into_iter(), begun + Duration::from_millis(callback * 10 + 10 + late));
        }
        r
    }

    #[test]
    fn a_chirp_is_found_where_it_is() {
        let begun = Instant::now();
        let first = recording(begun, &[0.5, 1.5, 2.5, 4.5, 5.5, 6.5], 1.0);
        // Begun a little later; the chirp at 5.5 never came.
        let later = 0.083 - 0.004;
        let heard: Vec<f64> = [0.5, 1.5, 2.5, 4.5, 6.5].iter().map(|at| at + later).collect();
        let second = recording(begun + Duration::from_millis(4), &heard, 0.3);
        let (found, possible) = delays(&first, &second);
        assert_eq!((found.len(), possible), (5, 6), "{found:?}");
        assert!(found.iter().all(|ms| (ms - 83.0).abs() < 1.0), "{found:?}");
    }
}
