//! Encoded frames as they travel between codec and packets.

use bytes::Bytes;

/// Clock rate of every video payload (RFC 7741, RFC 6184), in Hz.
pub const VIDEO_CLOCK_HZ: u32 = 90_000;
/// Clock rate of Opus on the wire (RFC 7587), in Hz.
pub const AUDIO_CLOCK_HZ: u32 = 48_000;

/// Video codecs spoken by client and host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VideoCodec {
    /// VP8, RFC 7741.
    Vp8,
    /// H264 constrained baseline, packetization-mode 1, RFC 6184.
    H264,
}

impl VideoCodec {
    /// Those that this build encodes and decodes (features `vp8`, `h264`), the one to prefer first.
    pub const BUILT: &'static [Self] = &[
        #[cfg(feature = "vp8")]
        Self::Vp8,
        #[cfg(feature = "h264")]
        Self::H264,
    ];

    /// The name used in `a=rtpmap` and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H264",
        }
    }
}

/// One access unit, complete and in decode order.
#[derive(Debug, Clone)]
pub struct EncodedFrame {
    /// Codec of `data`.
    pub codec: VideoCodec,
    /// VP8: one frame. H264: Annex B with start codes.
    pub data: Bytes,
    /// Timestamp at [`VIDEO_CLOCK_HZ`]; the origin is the sender's own.
    pub rtp_timestamp: u32,
    /// Whether decoding can start here.
    pub key_frame: bool,
    /// Width and height in pixels, where known without decoding (key frames).
    pub size: Option<(u32, u32)>,
    /// When the picture was captured (sender) or its last packet arrived (receiver).
    pub at: std::time::Instant,
}

/// Whether this build encodes and decodes any video.
pub const VIDEO_BUILT: bool = cfg!(any(feature = "vp8", feature = "h264"));
/// Whether this build encodes and decodes Opus (feature `opus`).
pub const AUDIO_BUILT: bool = cfg!(feature = "opus");

/// One Opus packet.
#[derive(Debug, Clone)]
pub struct EncodedAudio {
    /// Opus payload; an empty one stands for DTX silence and is not sent.
    pub data: Bytes,
    /// Timestamp at [`AUDIO_CLOCK_HZ`] of the first sample.
    pub rtp_timestamp: u32,
    /// Samples per channel in `data` at 48 kHz (960 for 20 ms).
    pub samples: u32,
    /// Level for the RFC 6464 header extension: 0 (loud) to 127 (silence), in −dBov.
    pub level: u8,
    /// Whether somebody speaks, by the encoder side's detector.
    pub voice: bool,
    /// When the first sample was captured.
    pub at: std::time::Instant,
}

/// One received Opus packet with what playout needs to place it.
#[derive(Debug, Clone)]
pub struct AudioPacket {
    /// RTP sequence number.
    pub sequence: u16,
    /// Timestamp at [`AUDIO_CLOCK_HZ`].
    pub rtp_timestamp: u32,
    /// Opus payload.
    pub data: Bytes,
    /// When it arrived.
    pub at: std::time::Instant,
}
