//! The light RTP packet that travels through this room.

use bytes::Bytes;

/// One RTP packet (RFC 3550 §5.1) without header extensions, CSRCs and padding.
///
/// Header extensions belong to a connection, not to the media: whoever sends a packet writes the ones that its
/// connection negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpPacket {
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Marker bit: last packet of a video frame, first of an audio talk spurt.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp in the clock rate of the payload type.
    pub timestamp: u32,
    /// Synchronization source.
    pub ssrc: u32,
    /// Payload; empty for a packet that carried nothing but padding.
    pub payload: Bytes,
}
