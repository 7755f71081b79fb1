//! Something like speech, made from numbers: a buzz of moving pitch and level, some hiss, with pauses.

use crate::media::audio::SAMPLE_RATE_HZ;

/// Endless; the same for the same seed.
#[derive(Debug, Clone)]
pub struct Speech {
    seed: u32,
    phase: f32,
    sample: u64,
    /// How often a syllable comes, in radians a second: two voices never fit onto one another.
    tempo: f32,
}

impl Speech {
    /// A voice.
    pub fn new(seed: u32) -> Self {
        Self {
            seed: seed.wrapping_mul(2_654_435_761) | 1,
            phase: 0.0,
            sample: 0,
            tempo: 8.0 + (seed % 5) as f32 * 0.37,
        }
    }

    fn noise(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.seed >> 8) as f32 / 8_388_608.0 - 1.0
    }

    /// The next sample.
    pub fn next_sample(&mut self) -> f32 {
        let t = self.sample as f32 / SAMPLE_RATE_HZ as f32;
        self.sample += 1;
        self.phase = (self.phase + (130.0 + 40.0 * (t * 3.1).sin()) / SAMPLE_RATE_HZ as f32) % 1.0;
        let buzz: f32 = (1..20).map(|h| (std::f32::consts::TAU * self.phase * h as f32).sin() / h as f32).sum();
        let talks = (t * 0.7).fract() < 0.8;
        let envelope = if talks { (t * self.tempo).sin().max(0.0) } else { 0.0 };
        envelope * (buzz * 0.15 + self.noise() * 0.05)
    }
}
