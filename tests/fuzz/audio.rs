//! The playout's pure part, as `src/media/audio/mod.rs` puts it together.

pub const SAMPLE_RATE_HZ: u32 = 48_000;
pub const BLOCK_SAMPLES: usize = 480;
pub const PACKET_SAMPLES: usize = 960;
pub type Block = [f32; BLOCK_SAMPLES];
pub type Frame = [f32; 2];

fn mid_side(left: f32, right: f32) -> Frame {
    [(left + right) / 2.0, (left - right) / 2.0]
}

#[path = "../../src/media/audio/arrival.rs"]
mod arrival;
#[path = "../../src/media/audio/codec.rs"]
pub mod codec;
#[path = "../../src/media/audio/dsp.rs"]
mod dsp;
#[path = "../../src/media/audio/error.rs"]
mod error;
#[path = "../../src/media/audio/histogram.rs"]
pub mod histogram;
#[path = "../../src/media/audio/jitter.rs"]
pub mod jitter;
#[path = "../../src/media/audio/stretch.rs"]
pub mod stretch;

pub use error::AudioError;
