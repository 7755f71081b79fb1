//! Retransmission streams, RFC 4588.

use std::collections::HashMap;

use bytes::{Buf, BufMut, BytesMut};

use super::packet::RtpPacket;
use super::sdp::{self, Description, Summary};

/// Which SSRC and payload type repair which, for one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RtxMap {
    payload_types: HashMap<u8, u8>,
    ssrcs: HashMap<u32, u32>,
}

impl RtxMap {
    /// Reads `apt=` and `a=ssrc-group:FID` of a description: the payload types hold for both ends of a connection, the
    /// SSRCs are those of its writer.
    pub fn from_sdp(text: &str) -> Self {
        let mut map = Self::default();
        for section in &Description::parse(text).media {
            map.payload_types.extend(sdp::apt_pairs(section));
        }
        for media in Summary::parse(text).media {
            map.ssrcs.extend(media.fid_groups.iter().map(|group| (group.rtx, group.primary)));
        }
        map
    }

    /// Notes that payload type `rtx` repairs `primary`.
    pub fn add_payload_type(&mut self, rtx: u8, primary: u8) {
        self.payload_types.insert(rtx, primary);
    }

    /// Notes that SSRC `rtx` repairs `primary`.
    pub fn add_ssrc(&mut self, rtx: u32, primary: u32) {
        self.ssrcs.insert(rtx, primary);
    }

    /// Adds everything from `other`.
    pub fn merge(&mut self, other: Self) {
        self.payload_types.extend(other.payload_types);
        self.ssrcs.extend(other.ssrcs);
    }

    /// Whether packets of this payload type are retransmissions.
    pub fn is_rtx(&self, payload_type: u8) -> bool {
        self.payload_types.contains_key(&payload_type)
    }

    /// The SSRC that `rtx` repairs.
    pub fn primary_of(&self, rtx: u32) -> Option<u32> {
        self.ssrcs.get(&rtx).copied()
    }

    /// The original of a retransmission.
    pub fn unwrap(&self, packet: &RtpPacket) -> Unwrapped {
        let Some(&payload_type) = self.payload_types.get(&packet.payload_type) else {
            return Unwrapped::NotRtx;
        };
        let Some(ssrc) = self.primary_of(packet.ssrc) else {
            return Unwrapped::UnknownSource;
        };
        let mut payload = packet.payload.clone();
        if payload.len() < 2 {
            return Unwrapped::Padding;
        }
        let sequence = payload.get_u16();
        Unwrapped::Packet(RtpPacket { payload_type, sequence, ssrc, payload, ..*packet })
    }
}

/// What [`RtxMap::unwrap`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwrapped {
    /// Not a retransmission payload type: pass the packet on.
    NotRtx,
    /// A retransmission stream that no FID line and no repaired rid has named yet: drop it.
    UnknownSource,
    /// Too short for an original sequence number; senders probe with such padding: drop it.
    Padding,
    /// The original packet.
    Packet(RtpPacket),
}

/// Wraps `packet` for its repair stream: own SSRC, payload type and sequence space, original number in front.
pub fn wrap(packet: &RtpPacket, rtx_ssrc: u32, rtx_payload_type: u8, rtx_sequence: u16) -> RtpPacket {
    let mut payload = BytesMut::with_capacity(packet.payload.len() + 2);
    payload.put_u16(packet.sequence);
    payload.extend_from_slice(&packet.payload);
    RtpPacket {
        payload_type: rtx_payload_type,
        sequence: rtx_sequence,
        ssrc: rtx_ssrc,
        payload: payload.freeze(),
        ..*packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn packet() -> RtpPacket {
        RtpPacket {
            payload_type: 96,
            marker: true,
            sequence: 65_535,
            timestamp: 77,
            ssrc: 3_247_169_190,
            payload: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn a_recorded_offer_gives_the_map_and_packets_come_back_whole() {
        let map = RtxMap::from_sdp(include_str!("../../tests/fixtures/sdp/chromium-publish-offer.sdp"));
        assert!(map.is_rtx(97));
        assert!(!map.is_rtx(96));
        assert_eq!(map.primary_of(980_958_193), Some(3_247_169_190));
        let wrapped = wrap(&packet(), 980_958_193, 97, 5);
        assert_eq!(wrapped.sequence, 5);
        assert_eq!(map.unwrap(&wrapped), Unwrapped::Packet(packet()));
    }

    #[test]
    fn everything_else_is_told_apart() {
        let mut map = RtxMap::default();
        assert_eq!(map.unwrap(&packet()), Unwrapped::NotRtx);
        map.add_payload_type(97, 96);
        let wrapped = wrap(&packet(), 9, 97, 5);
        assert_eq!(map.unwrap(&wrapped), Unwrapped::UnknownSource);
        map.add_ssrc(9, 3_247_169_190);
        let padding = RtpPacket { payload: Bytes::from_static(b"x"), ..wrapped };
        assert_eq!(map.unwrap(&padding), Unwrapped::Padding);
    }
}
