//! Delay through real (or virtual) sound devices (F9): a mouth that plays chirps into what our microphone hears, and an ear that
//! records what our loudspeaker plays.
//!
//! Both have delays of their own. They are found by letting the ear listen to the mouth's device, and are taken off.

use crate::media::audio::device::CALLBACK_FRAMES;
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
/// Search works on every so many samples.
const DECIMATION: usize = 4;
/// Longest delay that is looked for.
const LONGEST: Duration = Duration::from_millis(700);
/// Likeness to the chirp from which it counts as heard.
const ALIKE: f32 = 0.35;
/// How long a sound server may take to set up a stream.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest recording, in samples: a minute.
const RECORDING: usize = 48_000 * 60;

fn chirp(i: usize) -> f32 {
    let t = i as f32 / SAMPLE_RATE_HZ as f32;
    let length = CHIRP as f32 / SAMPLE_RATE_HZ as f32;
    let slope = (SWEEP_HZ.1 - SWEEP_HZ.0) / length;
    let fade = (i.min(CHIRP - i) as f32 / 240.0).min(1.0);
    LOUDNESS * fade * (TAU * (SWEEP_HZ.0 * t + 0.5 * slope * t * t)).sin()
}

/// Sample number and time of a stream: the earliest callback says best when a sample was.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    frames: u64,
    /// When frame 0 was, by the earliest callback.
    zero: Option<Instant>,
}

impl Clock {
    /// A callback of `frames` frames now; what it is about begins (`true`) or ends now.
    fn beat(&mut self, frames: usize, begins: bool) {
        let before = self.frames;
        self.frames += frames as u64;
        let about = if begins { before } else { self.frames };
        let zero = Instant::now().checked_sub(Duration::from_secs_f64(about as f64 / f64::from(SAMPLE_RATE_HZ)));
        self.zero = match (self.zero, zero) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (old, new) => old.or(new),
        };
    }
}

fn config(channels: u16) -> StreamConfig {
    StreamConfig { channels, sample_rate: SAMPLE_RATE_HZ, buffer_size: BufferSize::Fixed(CALLBACK_FRAMES) }
}

/// Plays chirps.
pub struct Mouth {
    _stream: cpal::Stream,
    clock: Arc<Mutex<Clock>>,
}

impl Mouth {
    /// Begins to play on the speaker with this id.
    ///
    /// # Errors
    /// The device is not there or refuses.
    pub fn open(id: &str) -> Result<Self, AudioError> {
        let device = find(Some(id), false)?;
        let clock = Arc::new(Mutex::new(Clock::default()));
        let beat = Arc::clone(&clock);
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
                    lock(&beat).beat(samples.len() / 2, true);
                },
                |error| tracing::warn!(%error, "mouth"),
                Some(BUILD_TIMEOUT),
            )
            .and_then(|stream| stream.play().map(|()| stream))
            .map_err(|e| device_error(false, id, &e))?;
        Ok(Self { _stream: stream, clock })
    }
}

/// Records.
pub struct Ear {
    _stream: cpal::Stream,
    heard: Arc<Mutex<(Clock, Vec<f32>)>>,
}

impl Ear {
    /// Begins to record from the source with this id.
    ///
    /// # Errors
    /// The device is not there or refuses.
    pub fn open(id: &str) -> Result<Self, AudioError> {
        let device = find(Some(id), true)?;
        let heard = Arc::new(Mutex::new((Clock::default(), Vec::with_capacity(RECORDING))));
        let record = Arc::clone(&heard);
        let stream = device
            .build_input_stream::<f32, _, _>(
                config(2),
                move |samples, _| {
                    let mut heard = lock(&record);
                    heard.0.beat(samples.len() / 2, false);
                    let room = RECORDING.saturating_sub(heard.1.len());
                    heard.1.extend(samples.chunks_exact(2).take(room).map(|frame| frame.iter().sum::<f32>() / 2.0));
                },
                |error| tracing::warn!(%error, "ear"),
                Some(BUILD_TIMEOUT),
            )
            .and_then(|stream| stream.play().map(|()| stream))
            .map_err(|e| device_error(true, id, &e))?;
        Ok(Self { _stream: stream, heard })
    }

    /// Delays of the chirps of `mouth` that were heard so far, in ms, and how many there could have been.
    pub fn delays_ms(&self, mouth: &Mouth) -> (Vec<f32>, usize) {
        let (ear, heard) = lock(&self.heard).clone();
        let mouth = *lock(&mouth.clock);
        let (Some(spoken), Some(zero)) = (mouth.zero, ear.zero) else { return (Vec::new(), 0) };
        delays(&heard, mouth.frames, spoken, zero)
    }
}

/// Every chirp of a mouth whose frame 0 was `spoken`, in what an ear has `heard` since `zero`.
fn delays(heard: &[f32], frames: u64, spoken: Instant, zero: Instant) -> (Vec<f32>, usize) {
    let coarse = |samples: &mut dyn Iterator<Item = f32>| -> Vec<f32> {
        let all: Vec<f32> = samples.collect();
        all.chunks_exact(DECIMATION).map(|c| c.iter().sum::<f32>() / DECIMATION as f32).collect()
    };
    let wanted = coarse(&mut (0..CHIRP).map(chirp));
    let heard = coarse(&mut heard.iter().copied());
    let rate = SAMPLE_RATE_HZ as f32 / DECIMATION as f32;
    let longest = (LONGEST.as_secs_f32() * rate) as usize;
    let norm = |s: &[f32]| s.iter().map(|x| x * x).sum::<f32>().sqrt();
    let wanted_norm = norm(&wanted);
    let (mut found, mut possible) = (Vec::new(), 0);
    for number in 0..frames / PERIOD as u64 {
        let at = spoken + Duration::from_secs_f64((number * PERIOD as u64) as f64 / f64::from(SAMPLE_RATE_HZ));
        // Where it would be heard without any delay.
        let Some(since) = at.checked_duration_since(zero) else { continue };
        let first = (since.as_secs_f32() * rate) as usize;
        let Some(part) = heard.get(first..first + longest + wanted.len()) else { continue };
        possible += 1;
        let best = (0..longest)
            .filter_map(|lag| {
                let piece = part.get(lag..lag + wanted.len())?;
                let product: f32 = piece.iter().zip(&wanted).map(|(a, b)| a * b).sum();
                Some((lag, product / (norm(piece) * wanted_norm).max(1e-9)))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((lag, alike)) = best
            && alike > ALIKE
        {
            let exact = first as f32 + lag as f32 - since.as_secs_f32() * rate;
            found.push(exact * 1_000.0 / rate);
        }
    }
    (found, possible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chirp_is_found_where_it_is() {
        let spoken = Instant::now();
        let zero = spoken.checked_sub(Duration::from_millis(500)).unwrap_or(spoken);
        let mut heard = vec![0.0f32; PERIOD * 6];
        let mut seed = 1u32;
        for s in &mut heard {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *s = 0.01 * ((seed >> 8) as f32 / 8_388_608.0 - 1.0);
        }
        // Heard 83 ms after it was spoken, at a third of its loudness; the third one was lost.
        for number in [0usize, 1, 3, 4] {
            for i in 0..CHIRP {
                heard[number * PERIOD + 24_000 + 48 * 83 + i] += chirp(i) / 3.0;
            }
        }
        let (found, possible) = delays(&heard, 5 * PERIOD as u64, spoken, zero);
        assert_eq!((found.len(), possible), (4, 5), "{found:?}");
        assert!(found.iter().all(|ms| (ms - 83.0).abs() < 0.5), "{found:?}");
    }
}
