//! What every video codec offers, so that the threads around it need not know which one it is.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::frame::{FramePool, VideoFrame};
#[cfg(feature = "h264")]
use super::h264;
#[cfg(feature = "vp8")]
use super::vp8;
pub use crate::rtp::frame::VideoCodec;

/// What kind of picture is encoded; encoders spend their bits differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Content {
    /// Moving people: smooth motion first, size follows the bitrate.
    #[default]
    Camera,
    /// A screen: sharp letters first, size stays.
    Screen,
    /// A screen on which something moves, a film: smooth motion first, as for a camera.
    Motion,
}

/// How well a picture is to be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Quality {
    /// As the rate allows.
    #[default]
    Rate,
    /// With this quantizer, 0 (best) to 63, whatever it costs.
    Quantizer(u8),
}

/// Why a codec could not do its work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The library refused to start or to change its settings.
    #[error("{codec} does not start: {detail}")]
    Setup {
        /// Codec name.
        codec: &'static str,
        /// What the library said.
        detail: String,
    },
    /// The size is odd, zero, beyond the codec's limit, or the planes do not match it.
    #[error("a picture of {0}x{1} cannot be encoded")]
    Size(u32, u32),
    /// The library failed on a picture that it should have taken.
    #[error("encoding failed: {0}")]
    Encode(String),
    /// The frame is damaged or its references are missing: a key frame is needed.
    #[error("damaged frame: {0}")]
    Corrupt(String),
}

/// What an encoder is asked to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Pictures a second that will come, for the rate control.
    pub fps: u32,
    /// Target in bit/s.
    pub bitrate_bps: u32,
    /// Kind of picture.
    pub content: Content,
}

/// One encoded picture.
#[derive(Debug, Clone)]
pub struct EncodedPicture {
    /// VP8: one frame. H264: one access unit in Annex B, parameter sets before every IDR.
    pub data: Bytes,
    /// Whether decoding can start here.
    pub key_frame: bool,
}

/// A running encoder of one stream.
pub trait VideoEncoder: Send {
    /// Its codec.
    fn codec(&self) -> VideoCodec;
    /// What it is set to.
    fn settings(&self) -> EncoderSettings;
    /// Changes rate, frame rate or size; another size makes the next picture a key frame.
    fn configure(&mut self, settings: EncoderSettings) -> Result<(), CodecError>;
    /// How well the next pictures are to be encoded. `false` where the codec decides that alone.
    fn set_quality(&mut self, _quality: Quality) -> Result<bool, CodecError> {
        Ok(false)
    }
    /// Quantizer of the last picture, 0 (best) to 63, where the codec tells it.
    fn last_quantizer(&mut self) -> Option<u8> {
        None
    }
    /// Encodes one picture of exactly the set size. `None`: the rate control has left it out.
    /// `timestamp` is at 90 kHz, rising.
    fn encode(
        &mut self,
        frame: &VideoFrame,
        timestamp: u64,
        key_frame: bool,
    ) -> Result<Option<EncodedPicture>, CodecError>;
}

/// A running decoder of one stream.
pub trait VideoDecoder: Send {
    /// Its codec.
    fn codec(&self) -> VideoCodec;
    /// Decodes one frame. `None`: nothing to show (yet). After an error only a key frame helps.
    fn decode(
        &mut self,
        data: &[u8],
        pool: &mut FramePool,
        stamp: FrameStamp,
    ) -> Result<Option<Arc<VideoFrame>>, CodecError>;
}

/// What the decoded picture is stamped with.
#[derive(Debug, Clone, Copy)]
pub struct FrameStamp {
    /// When it is to be shown.
    pub at: Instant,
    /// RTP timestamp it came with.
    pub rtp_timestamp: u32,
}

/// Largest width or height taken, by encoders and decoders alike; 4K and a little.
pub const MAX_DIMENSION: u32 = 4096;

/// Most pixels of a received picture: 4K and a little, either way up.
pub const MAX_PIXELS: u64 = 4096 * 2304;

/// Whether a received picture of this size is shown.
#[cfg(any(feature = "vp8", feature = "h264"))]
pub(super) fn fits(width: u32, height: u32) -> bool {
    let side = |d: u32| (2..=MAX_DIMENSION).contains(&d);
    side(width) && side(height) && u64::from(width) * u64::from(height) <= MAX_PIXELS
}

/// A new encoder.
pub fn new_encoder(codec: VideoCodec, settings: EncoderSettings) -> Result<Box<dyn VideoEncoder>, CodecError> {
    match codec {
        #[cfg(feature = "vp8")]
        VideoCodec::Vp8 => Ok(Box::new(vp8::Vp8Encoder::new(settings)?)),
        #[cfg(feature = "h264")]
        VideoCodec::H264 => Ok(Box::new(h264::H264Encoder::new(settings)?)),
        #[cfg(not(all(feature = "vp8", feature = "h264")))]
        left_out => check_settings(&settings).and(Err(not_built(left_out))),
    }
}

/// A new decoder.
pub fn new_decoder(codec: VideoCodec) -> Result<Box<dyn VideoDecoder>, CodecError> {
    match codec {
        #[cfg(feature = "vp8")]
        VideoCodec::Vp8 => Ok(Box::new(vp8::Vp8Decoder::new()?)),
        #[cfg(feature = "h264")]
        VideoCodec::H264 => Ok(Box::new(h264::H264Decoder::new()?)),
        #[cfg(not(all(feature = "vp8", feature = "h264")))]
        left_out => Err(not_built(left_out)),
    }
}

#[cfg(not(all(feature = "vp8", feature = "h264")))]
fn not_built(codec: VideoCodec) -> CodecError {
    CodecError::Setup { codec: codec.name(), detail: "this program was built without it".into() }
}

/// Refuses sizes that would make a library read beyond the planes.
pub(super) fn check_settings(settings: &EncoderSettings) -> Result<(), CodecError> {
    let EncoderSettings { width, height, .. } = *settings;
    let fits = |d: u32| (16..=MAX_DIMENSION).contains(&d) && d.is_multiple_of(2);
    if fits(width) && fits(height) { Ok(()) } else { Err(CodecError::Size(width, height)) }
}

/// Refuses a picture that does not have the size the encoder is set to.
#[cfg(any(feature = "vp8", feature = "h264"))]
pub(super) fn check_frame(settings: &EncoderSettings, frame: &VideoFrame) -> Result<(), CodecError> {
    if frame.is_consistent() && (frame.width, frame.height) == (settings.width, settings.height) {
        Ok(())
    } else {
        Err(CodecError::Size(frame.width, frame.height))
    }
}

/// Copies one plane with padding at the end of its rows into a tight one.
pub(super) fn copy_plane(target: &mut [u8], source: &[u8], width: usize, stride: usize) {
    if width == 0 || stride == 0 {
        return;
    }
    for (to, from) in target.chunks_exact_mut(width).zip(source.chunks(stride)) {
        if let Some(row) = from.get(..width) {
            to.copy_from_slice(row);
        }
    }
}

#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
