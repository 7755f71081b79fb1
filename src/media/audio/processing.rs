//! Echo, noise and gain on the way from the microphone to the encoder.

use super::{BLOCK_SAMPLES, Block, SAMPLE_RATE_HZ};
use std::str::FromStr;

/// The `--processing` option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Processing {
    /// On for devices, off for tone and file: a noise suppressor removes a steady tone.
    #[default]
    Auto,
    /// Always on.
    On,
    /// Always off.
    Off,
}

impl Processing {
    /// The word of the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

impl FromStr for Processing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => Err(format!("processing {text:?} is not one of auto, on, off")),
        }
    }
}

/// The gain control raises quiet voices by at most this. Its default of 50 dB also raises what little the canceller leaves
/// of an echo back to full loudness.
const GAIN_LIMIT_DB: f32 = 10.0;

/// What works on captured blocks. Far end and near end come from the same thread, one after the other.
pub trait CaptureProcessor: Send {
    /// Exactly what is being played.
    fn far_end(&mut self, block: &Block);
    /// Works on a captured block in place.
    fn near_end(&mut self, block: &mut Block);
    /// Turns stages on and off; what the others have learned stays. Nothing to do where there are none.
    fn set_stages(&mut self, _stages: Stages) {}
}

/// Leaves everything as it is.
#[derive(Debug, Default)]
pub struct PassThrough;

impl CaptureProcessor for PassThrough {
    fn far_end(&mut self, _block: &Block) {}
    fn near_end(&mut self, _block: &mut Block) {}
}

/// Which stages of [`VoiceProcessor`] run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// Acoustic echo canceller.
    pub echo: bool,
    /// Noise suppressor.
    pub noise: bool,
    /// Automatic gain.
    pub gain: bool,
    /// High pass: takes away rumble and a constant offset.
    pub high_pass: bool,
}

impl Stages {
    /// Sound as it was captured.
    pub const NONE: Self = Self { echo: false, noise: false, gain: false, high_pass: false };
}

impl Default for Stages {
    fn default() -> Self {
        Self { echo: true, noise: true, gain: true, high_pass: true }
    }
}

/// What is done to captured sound. Can be changed at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VoiceChoice {
    /// Whether the stages run at all.
    pub processing: Processing,
    /// Which of them.
    pub stages: Stages,
    /// Music: no stage at all, both channels, a higher rate, no pauses in the transmission.
    pub original_sound: bool,
}

impl VoiceChoice {
    /// The stages that run for a source that is a device or not.
    pub fn stages_for(&self, device: bool) -> Stages {
        let on = match self.processing {
            Processing::Auto => device,
            Processing::On => true,
            Processing::Off => false,
        };
        if on && !self.original_sound { self.stages } else { Stages::NONE }
    }
}

/// Echo canceller, noise suppressor, gain control and high pass, as WebRTC's audio processing module does them.
pub struct VoiceProcessor {
    inner: sonora::AudioProcessing,
    scratch: Block,
    failed: bool,
}

impl VoiceProcessor {
    /// With these stages.
    pub fn new(stages: Stages) -> Self {
        let format = sonora::StreamConfig::new(SAMPLE_RATE_HZ, 1);
        let inner = sonora::AudioProcessing::builder()
            .config(Self::config(stages))
            .capture_config(format)
            .render_config(format)
            .build();
        Self { inner, scratch: [0.0; BLOCK_SAMPLES], failed: false }
    }

    fn config(stages: Stages) -> sonora::Config {
        sonora::Config {
            high_pass_filter: stages.high_pass.then(sonora::config::HighPassFilter::default),
            echo_canceller: stages.echo.then(sonora::config::EchoCanceller::default),
            noise_suppression: stages.noise.then(sonora::config::NoiseSuppression::default),
            gain_controller2: stages.gain.then(|| sonora::config::GainController2 {
                adaptive_digital: Some(sonora::config::AdaptiveDigital {
                    max_gain_db: GAIN_LIMIT_DB,
                    initial_gain_db: 0.0,
                    max_gain_change_db_per_second: 3.0,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// A processor never stops a call: on an error the block stays as it was, and the log says so once.
    fn report(&mut self, what: &str, error: &dyn std::fmt::Debug) {
        if !self.failed {
            tracing::warn!(?error, "audio processing of the {what} failed");
            self.failed = true;
        }
    }
}

impl CaptureProcessor for VoiceProcessor {
    fn far_end(&mut self, block: &Block) {
        let mut scratch = self.scratch;
        if let Err(error) = self.inner.process_render_f32(&[block.as_slice()], &mut [scratch.as_mut_slice()]) {
            self.report("far end", &error);
        }
    }

    fn near_end(&mut self, block: &mut Block) {
        let mut out = self.scratch;
        match self.inner.process_capture_f32(&[block.as_slice()], &mut [out.as_mut_slice()]) {
            Ok(()) => *block = out,
            Err(error) => self.report("near end", &error),
        }
    }

    fn set_stages(&mut self, stages: Stages) {
        self.inner.apply_config(Self::config(stages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::dsp::rms;

    fn noise(seed: &mut u32) -> f32 {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*seed >> 8) as f32 / 8_388_608.0 - 1.0
    }

    /// Something like speech: a buzz of moving pitch and level, some hiss, with pauses.
    fn voice(i: usize, phase: &mut f32, seed: &mut u32) -> f32 {
        let t = i as f32 / 48_000.0;
        *phase = (*phase + (130.0 + 40.0 * (t * 3.1).sin()) / 48_000.0) % 1.0;
        let buzz: f32 = (1..20).map(|h| (std::f32::consts::TAU * *phase * h as f32).sin() / h as f32).sum();
        let envelope = (t * 9.0).sin().max(0.0) * if (t * 0.7).fract() < 0.8 { 1.0 } else { 0.0 };
        envelope * (buzz * 0.15 + noise(seed) * 0.05)
    }

    /// How much of an echo (60 ms late, `loudness` times as loud) is gone between the 8th and the 12th second, in dB.
    fn erle_db(stages: Stages, loudness: f32) -> f32 {
        let mut voice_processor = VoiceProcessor::new(stages);
        let (mut phase, mut seed) = (0.0, 7);
        let mut delayed = std::collections::VecDeque::from(vec![0.0f32; 48 * 60]);
        let (mut heard, mut left) = (0.0, 0.0);
        for i in 0..1_200 {
            let far: Block = std::array::from_fn(|k| voice(i * 480 + k, &mut phase, &mut seed));
            voice_processor.far_end(&far);
            let mut near = [0.0; BLOCK_SAMPLES];
            for (s, f) in near.iter_mut().zip(&far) {
                delayed.push_back(*f);
                *s = delayed.pop_front().unwrap_or(0.0) * loudness;
            }
            let before = rms(&near);
            voice_processor.near_end(&mut near);
            if i > 800 {
                heard += before * before;
                left += rms(&near).powi(2);
            }
        }
        10.0 * (heard / left.max(1e-12)).log10()
    }

    #[test]
    fn an_echo_of_the_far_end_is_removed() {
        for gain in [false, true] {
            let erle_db = erle_db(Stages { gain, ..Stages::default() }, 0.5);
            assert!(erle_db > 40.0, "gain {gain}: echo return loss enhancement {erle_db} dB");
        }
    }
}
