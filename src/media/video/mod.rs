//! Camera to encoded frames, encoded frames to tiles.
//!
//! Out: [`capture::Capture`] (own thread per open source) → [`frame::FrameSlot`] (newest wins) → [`encoder::EncoderThread`].
//! In: [`decoder::DecoderStream`] on a [`decoder::DecoderPool`] → presentation time → [`frame::FrameSlot`] of the tile.

pub mod capture;
pub mod codec;
pub mod convert;
pub mod decoder;
pub mod device;
pub mod encoder;
pub mod file;
pub mod frame;
#[cfg(feature = "h264")]
pub mod h264;
pub mod ladder;
pub mod overuse;
pub mod pattern;
mod refine;
pub mod scale;
pub mod source;
#[cfg(feature = "vp8")]
pub mod vp8;
#[cfg(all(feature = "vp8", target_os = "linux", target_env = "gnu"))]
mod vp8_tokens;
