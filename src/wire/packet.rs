//! Between the packets of `rtc` and those of `rtp`.

use rtc::rtp::{Header, Packet};

use crate::rtp::packet::RtpPacket;

/// The light packet; header extensions, CSRCs and the padding flag are left behind.
pub fn to_rtp(packet: &Packet) -> RtpPacket {
    RtpPacket {
        payload_type: packet.header.payload_type,
        marker: packet.header.marker,
        sequence: packet.header.sequence_number,
        timestamp: packet.header.timestamp,
        ssrc: packet.header.ssrc,
        payload: packet.payload.clone(),
    }
}

/// The packet as `rtc` sends it: version 2, no extensions.
pub fn from_rtp(packet: RtpPacket) -> Packet {
    Packet {
        header: Header {
            version: 2,
            marker: packet.marker,
            payload_type: packet.payload_type,
            sequence_number: packet.sequence,
            timestamp: packet.timestamp,
            ssrc: packet.ssrc,
            ..Header::default()
        },
        payload: packet.payload,
    }
}
