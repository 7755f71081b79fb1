//! Packets to frames: VP8 (RFC 7741) and H264 (RFC 6184: single NAL unit, STAP-A, FU-A).

use bytes::{Buf, Bytes, BytesMut};

use super::frame::VideoCodec;
use super::h264;
use super::vp8;

/// Why packets do not make a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A payload ends inside its descriptor or a length inside it is wrong.
    #[error("payload cut short")]
    Truncated,
    /// The first packet does not begin a frame, or a later one begins another.
    #[error("packets of different frames")]
    Mixed,
    /// A fragment without its beginning or end.
    #[error("fragments do not fit")]
    Fragments,
    /// A packet type that packetization-mode 1 does not have.
    #[error("packet type {0} not supported")]
    Unsupported(u8),
    /// Nothing inside.
    #[error("empty frame")]
    Empty,
}

/// One access unit from its packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// VP8: the frame. H264: Annex B with four byte start codes.
    pub data: Bytes,
    /// VP8: key frame. H264: an IDR slice is inside (parameter sets may be elsewhere).
    pub key_frame: bool,
    /// Width and height in pixels where the packets tell them.
    pub size: Option<(u32, u32)>,
}

/// Whether a packet begins a frame: `Some` where the payload tells (VP8), `None` where only its neighbors do (H264).
pub fn begins_frame(codec: VideoCodec, payload: &[u8]) -> Option<bool> {
    match codec {
        VideoCodec::Vp8 => {
            Some(vp8::Descriptor::parse(payload).is_some_and(|(descriptor, _)| descriptor.starts_frame()))
        }
        VideoCodec::H264 => None,
    }
}

/// Whether a packet begins a key frame. H264: it carries a sequence parameter set, or the beginning of an IDR slice.
pub fn begins_key_frame(codec: VideoCodec, payload: &[u8]) -> bool {
    match codec {
        VideoCodec::Vp8 => vp8::starts_key_frame(payload),
        VideoCodec::H264 => match h264::nal_type(payload) {
            h264::NAL_SPS | h264::NAL_IDR => true,
            24 => stap_a(payload).any(|nal| matches!(nal.map(h264::nal_type), Ok(h264::NAL_SPS | h264::NAL_IDR))),
            28 => payload.get(1).is_some_and(|header| header & 0x80 != 0 && header & 0x1f == h264::NAL_IDR),
            _ => false,
        },
    }
}

/// Whether an H264 packet carries a sequence parameter set, alone or in a STAP-A.
pub fn carries_parameter_sets(payload: &[u8]) -> bool {
    match h264::nal_type(payload) {
        h264::NAL_SPS => true,
        24 => stap_a(payload).any(|nal| nal.map(h264::nal_type) == Ok(h264::NAL_SPS)),
        _ => false,
    }
}

/// Joins the payloads of one frame, in order and without gaps.
///
/// # Errors
/// [`Malformed`] when they do not make one frame.
pub fn assemble<'a>(codec: VideoCodec, payloads: impl Iterator<Item = &'a Bytes>) -> Result<Assembled, Malformed> {
    match codec {
        VideoCodec::Vp8 => assemble_vp8(payloads),
        VideoCodec::H264 => assemble_h264(payloads),
    }
}

fn assemble_vp8<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> Result<Assembled, Malformed> {
    let mut data = BytesMut::new();
    let mut picture_id = None;
    let mut first = true;
    for payload in payloads {
        let (descriptor, length) = vp8::Descriptor::parse(payload).ok_or(Malformed::Truncated)?;
        if descriptor.starts_frame() != first || (!first && descriptor.picture_id != picture_id) {
            return Err(Malformed::Mixed);
        }
        picture_id = descriptor.picture_id;
        first = false;
        data.extend_from_slice(payload.get(length..).unwrap_or_default());
    }
    if data.is_empty() {
        return Err(Malformed::Empty);
    }
    let data = data.freeze();
    Ok(Assembled { key_frame: vp8::is_key_frame(&data), size: vp8::key_frame_size(&data), data })
}

fn assemble_h264<'a>(payloads: impl Iterator<Item = &'a Bytes>) -> Result<Assembled, Malformed> {
    let mut data = BytesMut::new();
    let mut in_fragment = false;
    for payload in payloads {
        let kind = h264::nal_type(payload);
        if in_fragment && kind != 28 {
            return Err(Malformed::Fragments);
        }
        match kind {
            1..=23 => {
                data.extend_from_slice(&h264::START_CODE);
                data.extend_from_slice(payload);
            }
            24 => {
                for nal in stap_a(payload) {
                    data.extend_from_slice(&h264::START_CODE);
                    data.extend_from_slice(nal?);
                }
            }
            28 => {
                let [indicator, header, body @ ..] = payload.as_ref() else {
                    return Err(Malformed::Truncated);
                };
                let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
                if start == in_fragment {
                    return Err(Malformed::Fragments);
                }
                if start {
                    data.extend_from_slice(&h264::START_CODE);
                    data.extend_from_slice(&[(indicator & 0xe0) | (header & 0x1f)]);
                }
                data.extend_from_slice(body);
                in_fragment = !end;
            }
            other => return Err(Malformed::Unsupported(other)),
        }
    }
    if in_fragment {
        return Err(Malformed::Fragments);
    }
    if data.is_empty() {
        return Err(Malformed::Empty);
    }
    let data = data.freeze();
    Ok(Assembled { key_frame: h264::has_idr(&data), size: h264::picture_size(&data), data })
}

/// The NAL units of a STAP-A payload.
fn stap_a(payload: &[u8]) -> impl Iterator<Item = Result<&[u8], Malformed>> {
    let mut rest = payload.get(1..).unwrap_or_default();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if rest.len() < 2 {
            rest = &[];
            return Some(Err(Malformed::Truncated));
        }
        let length = usize::from(rest.get_u16());
        match rest.split_at_checked(length) {
            Some((nal, tail)) if length > 0 => {
                rest = tail;
                Some(Ok(nal))
            }
            _ => {
                rest = &[];
                Some(Err(Malformed::Truncated))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::rtp::frame::{EncodedAudio, EncodedFrame};
    use crate::rtp::packet::RtpPacket;
    use crate::rtp::packetise::{AudioPacketizer, MAX_PAYLOAD, Start, VideoPacketizer};

    fn frame(codec: VideoCodec, data: Vec<u8>) -> EncodedFrame {
        EncodedFrame { codec, data: data.into(), rtp_timestamp: 9, key_frame: false, size: None, at: Instant::now() }
    }

    fn packets(codec: VideoCodec, data: Vec<u8>, start: Start) -> Vec<RtpPacket> {
        let mut out = Vec::new();
        VideoPacketizer::new(codec, 1, 96, start).packetize(&frame(codec, data), &mut out);
        out
    }

    fn annex_b(nals: &[Vec<u8>]) -> Vec<u8> {
        nals.iter().flat_map(|nal| h264::START_CODE.iter().chain(nal).copied()).collect()
    }

    /// NAL units as encoders write them: a type with a payload that cannot be taken for a start code.
    fn nal(kind: impl Strategy<Value = u8>, sizes: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        (kind, prop::collection::vec(4u8..=255, sizes)).prop_map(|(kind, mut body)| {
            body.insert(0, 0x60 | kind);
            body
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn vp8_comes_back_whole(data in prop::collection::vec(any::<u8>(), 1..20_000), sequence: u16, picture_id: u16) {
            let packets = packets(VideoCodec::Vp8, data.clone(), Start { sequence, picture_id });
            prop_assert!(packets.iter().all(|p| p.payload.len() <= MAX_PAYLOAD && p.timestamp == 9));
            prop_assert_eq!(packets.iter().filter(|p| p.marker).count(), 1);
            prop_assert!(packets.last().unwrap().marker);
            for (index, packet) in packets.iter().enumerate() {
                prop_assert_eq!(packet.sequence, sequence.wrapping_add(index as u16));
                prop_assert_eq!(begins_frame(VideoCodec::Vp8, &packet.payload), Some(index == 0));
            }
            let whole = assemble(VideoCodec::Vp8, packets.iter().map(|p| &p.payload)).unwrap();
            prop_assert_eq!(&whole.data[..], &data[..]);
            prop_assert_eq!(whole.key_frame, data[0] & 1 == 0);
            // Without its first packet nothing comes out.
            prop_assert!(assemble(VideoCodec::Vp8, packets.iter().skip(1).map(|p| &p.payload)).is_err());
        }

        #[test]
        fn h264_comes_back_whole(
            parameters in prop::collection::vec(nal(6u8..9, 1..400), 0..4),
            slices in prop::collection::vec(nal(prop_oneof![Just(1u8), Just(5u8)], 1..5_000), 1..4),
            sequence: u16,
        ) {
            let nals: Vec<Vec<u8>> = parameters.iter().chain(&slices).cloned().collect();
            let data = annex_b(&nals);
            let packets = packets(VideoCodec::H264, data.clone(), Start { sequence, picture_id: 0 });
            prop_assert!(packets.iter().all(|p| p.payload.len() <= MAX_PAYLOAD));
            prop_assert!(packets.last().unwrap().marker);
            let whole = assemble(VideoCodec::H264, packets.iter().map(|p| &p.payload)).unwrap();
            prop_assert_eq!(&whole.data[..], &data[..]);
            prop_assert_eq!(whole.key_frame, slices.iter().any(|s| h264::nal_type(s) == 5));
        }

        #[test]
        fn garbage_never_panics(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let payloads: Vec<Bytes> = payloads.into_iter().map(Bytes::from).collect();
            for codec in [VideoCodec::Vp8, VideoCodec::H264] {
                let _ = assemble(codec, payloads.iter());
                for payload in &payloads {
                    let _ = (begins_frame(codec, payload), begins_key_frame(codec, payload));
                }
            }
        }
    }

    #[test]
    fn parameter_sets_share_one_packet_and_begin_the_key_frame() {
        let data = annex_b(&[vec![0x09, 0xf0], vec![0x67, 9], vec![0x68, 9], vec![0x65; 3_000]]);
        let packets = packets(VideoCodec::H264, data, Start::default());
        assert_eq!(h264::nal_type(&packets[0].payload), 24);
        assert_eq!(packets.len(), 4);
        let begins: Vec<bool> = packets.iter().map(|p| begins_key_frame(VideoCodec::H264, &p.payload)).collect();
        assert_eq!(begins, [true, true, false, false]);
    }

    #[test]
    fn a_lost_fragment_is_noticed() {
        let packets = packets(VideoCodec::H264, annex_b(&[vec![0x65; 5_000]]), Start::default());
        for gone in 0..packets.len() {
            let rest = packets.iter().enumerate().filter(|(i, _)| *i != gone).map(|(_, p)| &p.payload);
            let result = assemble(VideoCodec::H264, rest);
            // A lost middle fragment shows in the sequence numbers only.
            assert_eq!(result.is_err(), gone == 0 || gone + 1 == packets.len(), "{gone}");
        }
    }

    #[test]
    fn audio_talk_spurts_are_marked_and_silence_is_not_sent() {
        let mut audio = AudioPacketizer::new(7, 111, 65_535);
        let mut opus = EncodedAudio {
            at: Instant::now(),
            data: Bytes::from_static(b"o"),
            rtp_timestamp: u32::MAX - 959,
            samples: 960,
            level: 30,
            voice: true,
        };
        let first = audio.packetize(&opus).unwrap();
        assert!(first.marker && first.sequence == 65_535);
        opus.rtp_timestamp = 0;
        let second = audio.packetize(&opus).unwrap();
        assert!(!second.marker && second.sequence == 0);
        opus.data = Bytes::new();
        assert_eq!(audio.packetize(&opus), None);
        opus.data = Bytes::from_static(b"o");
        opus.rtp_timestamp = 96_000;
        assert!(audio.packetize(&opus).unwrap().marker);
    }
}
