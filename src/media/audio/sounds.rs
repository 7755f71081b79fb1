//! Local sounds: short, soft, made from numbers. They go through the mixer, hence the echo canceller knows them.

use super::SAMPLE_RATE_HZ;
use std::f32::consts::TAU;
use std::sync::Arc;

/// A sound of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sound {
    /// Somebody came.
    Join,
    /// Somebody left.
    Leave,
    /// Somebody calls: one ring, to be repeated.
    Ring,
}

/// Peak of a note: −26 dBFS, well below speech.
const PEAK: f32 = 0.05;
/// A note rises in this time, so that it does not click, in seconds.
const ATTACK_S: f32 = 0.008;

impl Sound {
    /// Notes: begin in seconds, frequency in Hz, time until it has fallen to a third in seconds.
    fn notes(self) -> &'static [(f32, f32, f32)] {
        match self {
            Self::Join => &[(0.0, 523.25, 0.09), (0.11, 783.99, 0.14)],
            Self::Leave => &[(0.0, 783.99, 0.09), (0.11, 523.25, 0.14)],
            Self::Ring => &[(0.0, 659.26, 0.25), (0.16, 830.61, 0.25), (0.32, 987.77, 0.4), (0.9, 659.26, 0.4)],
        }
    }

    /// Its samples, 48 kHz mono.
    pub fn samples(self) -> Arc<[f32]> {
        let rate = SAMPLE_RATE_HZ as f32;
        // After five times its decay nothing of a note is heard; the last 10 ms fade to nothing.
        let end_s = self.notes().iter().map(|(at, _, decay)| at + 5.0 * decay).fold(0.0, f32::max);
        let length = (end_s * rate) as usize;
        (0..length)
            .map(|i| {
                let t = i as f32 / rate;
                let fade = ((length - i) as f32 / 480.0).min(1.0);
                let sum: f32 = self
                    .notes()
                    .iter()
                    .filter(|(at, ..)| t >= *at)
                    .map(|(at, hz, decay)| {
                        let since = t - at;
                        let envelope = (since / ATTACK_S).min(1.0) * (-since / decay).exp();
                        // A little of the octave makes it a bell.
                        envelope * ((TAU * hz * since).sin() + 0.3 * (TAU * 2.0 * hz * since).sin())
                    })
                    .sum();
                PEAK * fade * sum
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sounds_are_short_soft_and_do_not_click() {
        for sound in [Sound::Join, Sound::Leave, Sound::Ring] {
            let samples = sound.samples();
            let seconds = samples.len() as f32 / SAMPLE_RATE_HZ as f32;
            assert!((0.3..3.5).contains(&seconds), "{sound:?}: {seconds}");
            let peak = samples.iter().fold(0.0f32, |p, s| p.max(s.abs()));
            assert!((0.03..0.15).contains(&peak), "{sound:?}: {peak}");
            let step = samples.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
            assert!(step < 0.02, "{sound:?}: {step}");
            assert!(samples[0] == 0.0 && samples[samples.len() - 1].abs() < 1e-4);
        }
    }
}
