//! Where sound goes: the speaker SINK of the command line.

use super::{AudioError, Block, SAMPLE_RATE_HZ};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A parsed speaker SINK.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpeakerSink {
    /// A playback device; `None` follows the system's default.
    Device(Option<String>),
    /// A WAV file, 48 kHz mono 16 bit, written in real time.
    File(PathBuf),
    /// Nowhere, but paced like a device so that playout runs.
    #[default]
    Null,
}

impl FromStr for SpeakerSink {
    type Err = AudioError;

    fn from_str(text: &str) -> Result<Self, AudioError> {
        let bad = || AudioError::BadSink(text.to_owned());
        match text.split_once(':') {
            None if text == "null" => Ok(Self::Null),
            None if text == "device" => Ok(Self::Device(None)),
            Some(("device", id)) if !id.is_empty() => Ok(Self::Device(Some(id.to_owned()))),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            _ => Err(bad()),
        }
    }
}

impl std::fmt::Display for SpeakerSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Device(None) => f.write_str("device"),
            Self::Device(Some(id)) => write!(f, "device:{id}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Null => f.write_str("null"),
        }
    }
}

/// A WAV file being written.
pub(crate) struct WavSink {
    writer: hound::WavWriter<std::io::BufWriter<std::fs::File>>,
    blocks: u64,
    path: PathBuf,
}

impl WavSink {
    /// Creates or truncates the file.
    pub(crate) fn create(path: &Path) -> Result<Self, AudioError> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: SAMPLE_RATE_HZ,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let writer = hound::WavWriter::create(path, spec).map_err(|e| file_error(path, &e))?;
        Ok(Self { writer, blocks: 0, path: path.to_owned() })
    }

    /// Appends a block; the header is brought up to date every second, so that a killed process leaves a readable file.
    pub(crate) fn write(&mut self, block: &Block) -> Result<(), AudioError> {
        for sample in block {
            let value = (sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16;
            self.writer.write_sample(value).map_err(|e| file_error(&self.path, &e))?;
        }
        self.blocks += 1;
        if self.blocks.is_multiple_of(100) {
            self.writer.flush().map_err(|e| file_error(&self.path, &e))?;
        }
        Ok(())
    }

    /// Writes the final header.
    pub(crate) fn finish(self) -> Result<(), AudioError> {
        let Self { writer, path, .. } = self;
        writer.finalize().map_err(|e| file_error(&path, &e))
    }
}

fn file_error(path: &Path, error: &hound::Error) -> AudioError {
    AudioError::File { path: path.display().to_string(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_read_and_written_alike() {
        for text in ["null", "device", "device:pulseaudio:vspeaker", "file:/a/b c.wav"] {
            assert_eq!(text.parse::<SpeakerSink>().unwrap().to_string(), text);
        }
        for text in ["", "nul", "file:", "file", "device:", "tone"] {
            assert!(matches!(text.parse::<SpeakerSink>(), Err(AudioError::BadSink(_))), "{text}");
        }
    }
}
