//! Where sound comes from: the microphone SOURCE of the command line.

use super::dsp::sane;
use super::resample::resample_whole;
use super::{AudioError, BLOCK_SAMPLES, Block, SAMPLE_RATE_HZ};
use std::f32::consts::TAU;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Amplitude of the test tone: −20 dBFS, where a full-scale sine is 0 dBFS (AES17).
pub const TONE_AMPLITUDE: f32 = 0.1;
/// Amplitude of the lip-sync click on top of the tone.
const CLICK_AMPLITUDE: f32 = 0.4;
/// Frequency of the lip-sync click, in Hz.
pub const CLICK_HZ: f32 = 1_000.0;
/// Length of the lip-sync click from each full second of Unix time, in ms.
const CLICK_MS: u64 = 20;
/// Longest sound file that is loaded, in seconds; the rest is left out.
const FILE_LIMIT_S: usize = 1_800;

/// A parsed microphone SOURCE.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum MicrophoneSource {
    /// A sine at −20 dBFS; `None` is the default frequency of the participant, see [`default_tone_hz`].
    Tone(Option<f32>),
    /// A WAV file, looped.
    File(PathBuf),
    /// A capture device; `None` follows the system's default.
    Device(Option<String>),
    /// What the other programs of this computer play.
    System,
    /// No sound is sent.
    #[default]
    None,
}

/// Default tone of the participant with this pattern ID, in Hz: 300 + 100 × (ID mod 20).
pub fn default_tone_hz(id: u8) -> f32 {
    300.0 + 100.0 * f32::from(id % 20)
}

impl FromStr for MicrophoneSource {
    type Err = AudioError;

    fn from_str(text: &str) -> Result<Self, AudioError> {
        let bad = || AudioError::BadSource(text.to_owned());
        match text.split_once(':') {
            None if text == "none" => Ok(Self::None),
            None if text == "tone" => Ok(Self::Tone(None)),
            None if text == "system" => Ok(Self::System),
            None if text == "device" => Ok(Self::Device(None)),
            Some(("tone", hz)) => match hz.parse::<f32>() {
                Ok(hz) if (20.0..=20_000.0).contains(&hz) => Ok(Self::Tone(Some(hz))),
                _ => Err(bad()),
            },
            Some(("device", id)) if !id.is_empty() => Ok(Self::Device(Some(id.to_owned()))),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for MicrophoneSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tone(None) => f.write_str("tone"),
            Self::Tone(Some(hz)) => write!(f, "tone:{hz}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Device(None) => f.write_str("device"),
            Self::Device(Some(id)) => write!(f, "device:{id}"),
            Self::System => f.write_str("system"),
            Self::None => f.write_str("none"),
        }
    }
}

/// The test tone, with the click of `pattern+sync` when asked for.
#[derive(Debug, Clone)]
pub struct ToneGenerator {
    step: f32,
    phase: f32,
    sync: bool,
}

impl ToneGenerator {
    /// A tone of `hz`; `sync` adds 20 ms of 1 kHz at each full second of Unix time.
    pub fn new(hz: f32, sync: bool) -> Self {
        Self { step: TAU * hz / SAMPLE_RATE_HZ as f32, phase: 0.0, sync }
    }

    /// Next 10 ms. `unix_ms` is the Unix time of the block's first sample.
    pub fn next_block(&mut self, unix_ms: u64) -> Block {
        let mut block = [0.0; BLOCK_SAMPLES];
        let into_second = (unix_ms % 1_000) as f32 / 1_000.0;
        for (i, sample) in block.iter_mut().enumerate() {
            *sample = TONE_AMPLITUDE * self.phase.sin();
            self.phase += self.step;
            if self.phase > TAU {
                self.phase -= TAU;
            }
            if self.sync {
                let t = (into_second + i as f32 / SAMPLE_RATE_HZ as f32) % 1.0;
                if t < CLICK_MS as f32 / 1_000.0 {
                    *sample += CLICK_AMPLITUDE * (TAU * CLICK_HZ * t).sin();
                }
            }
        }
        block
    }
}

/// A WAV file in memory, at 48 kHz, played in a loop.
#[derive(Debug, Clone)]
pub struct WavLoop {
    samples: Arc<[f32]>,
    /// Half the difference of two channels.
    side: Option<Arc<[f32]>>,
    position: usize,
}

impl WavLoop {
    /// Reads a WAV file of any rate and channel count (integer 8–32 bit or 32 bit float); at most 30 minutes are kept.
    ///
    /// # Errors
    /// [`AudioError::File`] when it cannot be read, is no WAV, or holds no sample.
    pub fn open(path: &Path) -> Result<Self, AudioError> {
        let fail = |detail: String| AudioError::File { path: path.display().to_string(), detail };
        let mut reader = hound::WavReader::open(path).map_err(|e| fail(e.to_string()))?;
        let spec = reader.spec();
        let channels = usize::from(spec.channels.max(1));
        let limit = FILE_LIMIT_S.saturating_mul(spec.sample_rate as usize).saturating_mul(channels);
        let interleaved: Vec<f32> = match spec.sample_format {
            hound::SampleFormat::Float => {
                reader.samples::<f32>().take(limit).map(|s| s.map(sane)).collect::<Result<_, _>>()
            }
            hound::SampleFormat::Int => {
                let full = 2f32.powi(i32::from(spec.bits_per_sample.clamp(1, 32)) - 1);
                reader.samples::<i32>().take(limit).map(|s| s.map(|v| v as f32 / full)).collect::<Result<_, _>>()
            }
        }
        .map_err(|e| fail(e.to_string()))?;
        let mono: Vec<f32> =
            interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() / channels as f32).collect();
        if mono.is_empty() || spec.sample_rate == 0 {
            return Err(fail("no samples".to_owned()));
        }
        let side = match channels {
            2 => {
                let half = |frame: &[f32]| frame.iter().copied().reduce(|left, right| (left - right) / 2.0);
                let side: Vec<f32> = interleaved.chunks_exact(2).filter_map(half).collect();
                let side = side.iter().any(|s| *s != 0.0).then_some(side);
                side.map(|side| resample_whole(&side, spec.sample_rate, SAMPLE_RATE_HZ)).transpose().map_err(fail)?
            }
            _ => None,
        };
        let samples = resample_whole(&mono, spec.sample_rate, SAMPLE_RATE_HZ).map_err(fail)?;
        if samples.is_empty() {
            return Err(fail("no samples".to_owned()));
        }
        Ok(Self { samples: samples.into(), side: side.map(Arc::from), position: 0 })
    }

    /// Silence without end, in place of a file that cannot be read.
    pub fn silence() -> Self {
        Self { samples: vec![0.0; BLOCK_SAMPLES].into(), side: None, position: 0 }
    }

    /// Length of one round, in samples at 48 kHz.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Never true: an empty file is refused when opened.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Next 10 ms, the mean of the channels.
    pub fn next_block(&mut self) -> Block {
        self.next_wide().0
    }

    /// Next 10 ms: the mean of the channels, and half their difference where they are two that differ.
    pub fn next_wide(&mut self) -> (Block, Option<Block>) {
        let mut block = [0.0; BLOCK_SAMPLES];
        let mut side = self.side.is_some().then_some([0.0; BLOCK_SAMPLES]);
        for (i, sample) in block.iter_mut().enumerate() {
            *sample = self.samples.get(self.position).copied().unwrap_or(0.0);
            if let (Some(side), Some(from)) = (side.as_mut().and_then(|s| s.get_mut(i)), &self.side) {
                *side = from.get(self.position).copied().unwrap_or(0.0);
            }
            self.position += 1;
            if self.position >= self.samples.len() {
                self.position = 0;
            }
        }
        (block, side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_and_written_alike() {
        for text in ["none", "tone", "tone:440", "tone:512.5", "device", "device:pulseaudio:x", "file:/a b.wav"] {
            assert_eq!(text.parse::<MicrophoneSource>().unwrap().to_string(), text);
        }
        for text in ["", "tone:", "tone:0", "tone:x", "file:", "device:", "null", "tone:1e9"] {
            assert!(matches!(text.parse::<MicrophoneSource>(), Err(AudioError::BadSource(_))), "{text}");
        }
        assert_eq!(default_tone_hz(0), 300.0);
        assert_eq!(default_tone_hz(19), 2_200.0);
        assert_eq!(default_tone_hz(23), 600.0);
    }

    #[test]
    fn tone_is_at_minus_20_dbfs_and_clicks_on_the_second() {
        let mut tone = ToneGenerator::new(440.0, true);
        let quiet = tone.next_block(500);
        assert!(quiet.iter().all(|s| s.abs() <= TONE_AMPLITUDE + 1e-6));
        assert!(quiet.iter().any(|s| s.abs() > TONE_AMPLITUDE * 0.99));
        assert!(tone.next_block(3_000).iter().any(|s| s.abs() > 0.3));
        assert!(tone.next_block(3_010).iter().any(|s| s.abs() > 0.3));
        assert!(tone.next_block(3_020).iter().all(|s| s.abs() <= TONE_AMPLITUDE + 1e-6));
        // A block that begins 5 ms before the second clicks in its second half only.
        let split = tone.next_block(3_995);
        let (before, after) = split.split_at(BLOCK_SAMPLES / 2);
        assert!(before.iter().all(|s| s.abs() <= TONE_AMPLITUDE + 1e-3));
        assert!(after.iter().any(|s| s.abs() > 0.3));
    }

    #[test]
    fn wav_of_any_rate_and_channel_count_becomes_48_khz_mono() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stereo.wav");
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 44_100,
            bits_per_sample: 24,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&path, spec).unwrap();
        for i in 0..44_100 {
            let s = (TAU * 440.0 * i as f32 / 44_100.0).sin() * 0.5 * 8_388_607.0;
            writer.write_sample(s as i32).unwrap();
            writer.write_sample(s as i32).unwrap();
        }
        writer.finalize().unwrap();
        let mut wav = WavLoop::open(&path).unwrap();
        assert!((47_900..=48_100).contains(&wav.len()), "{}", wav.len());
        let mut meter = crate::media::audio::meter::ToneMeter::new();
        for _ in 0..150 {
            meter.push(&wav.next_block());
        }
        let hz = meter.tone_hz().unwrap();
        assert!((hz - 440.0).abs() < 2.0, "{hz}");
        assert!(wav.next_wide().1.is_none(), "both channels are the same");
        // Sound on the left alone: as much of it in the difference as in the mean.
        let mut writer = hound::WavWriter::create(&path, hound::WavSpec { sample_rate: 48_000, ..spec }).unwrap();
        for i in 0..4_800 {
            writer.write_sample(i * 100).unwrap();
            writer.write_sample(0).unwrap();
        }
        writer.finalize().unwrap();
        let (mid, side) = WavLoop::open(&path).unwrap().next_wide();
        assert_eq!(Some(mid), side);
        assert!(mid[100] > 0.0);
        assert!(matches!(WavLoop::open(&dir.path().join("none.wav")), Err(AudioError::File { .. })));
    }
}
