//! Microphone to Opus, Opus to speaker.
//!
//! One [`AudioEngine`] serves one call. Outwards: source → 10 ms blocks at 48 kHz → processing → meters → **mute gate** →
//! Opus 20 ms → the sink given by [`AudioEngine::set_sink`]. Inwards: [`PlayoutStream::push`] → adaptive jitter buffer →
//! gain → mixer with soft limiter → speaker; what the mixer plays is also the echo canceller's far end.
//!
//! All of it runs on one thread of the engine. Device callbacks only move samples through wait-free rings.

mod arrival;
pub mod bench;
mod callbacks;
mod channels;
mod clock;
pub mod codec;
#[cfg(test)]
mod custom_host_tests;
pub mod device;
mod dsp;
pub mod engine;
mod error;
pub mod gate;
pub mod histogram;
pub mod host;
pub mod jitter;
mod leveller;
mod line;
pub mod meter;
pub mod mixer;
#[cfg(not(feature = "opus"))]
mod no_opus;
#[cfg(test)]
mod odd_devices_tests;
mod pacing;
mod pipeline;
mod ports;
pub mod processing;
mod pulse;
mod rates;
pub mod resample;
mod restart;
pub mod sink;
#[cfg(target_os = "linux")]
mod sound_server;
pub mod sounds;
pub mod source;
pub mod stream;
mod streams;
pub mod stretch;
#[cfg(target_os = "linux")]
mod system;
mod worker;

pub use device::{AudioDevice, AudioDevices, list_devices};
pub use engine::{AudioConfig, AudioEngine, AudioEvent, EncodedAudioSink, Levels};
pub use error::AudioError;
pub use gate::MuteGate;
pub use host::SoundHost;
pub use pipeline::{CapturePipeline, CaptureStep};
pub use processing::{Processing, Stages, VoiceChoice};
pub use sink::SpeakerSink;
pub use sounds::Sound;
pub use source::MicrophoneSource;
pub use stream::{PlayoutStats, PlayoutStream};

/// Sample rate of everything between device and codec, in Hz.
pub const SAMPLE_RATE_HZ: u32 = 48_000;
/// Samples of one block: 10 ms, mono.
pub const BLOCK_SAMPLES: usize = 480;
/// Samples of one Opus packet: 20 ms, mono.
pub const PACKET_SAMPLES: usize = 960;

/// One block of 10 ms, mono, nominally within −1.0 to 1.0.
pub type Block = [f32; BLOCK_SAMPLES];
/// One moment of sound with two channels: their mean, which is what is heard in mono, and half their difference, which is 0
/// where both are the same.
pub type Frame = [f32; 2];

/// Left and right.
pub(crate) fn left_right([mid, side]: Frame) -> [f32; 2] {
    [mid + side, mid - side]
}

/// The frame of left and right.
pub(crate) fn mid_side(left: f32, right: f32) -> Frame {
    [(left + right) / 2.0, (left - right) / 2.0]
}
