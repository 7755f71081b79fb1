//! Reading RTP headers without copying, and telling what a datagram is.

use crate::rtp::frame::VideoCodec;

/// What a datagram carries, by its first byte (RFC 7983) and, for media, its second (RFC 5761).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
}

/// Classifies a datagram; `None` for anything that cannot be ours.
pub(super) fn classify(datagram: &[u8]) -> Option<Kind> {
    let (&first, rest) = datagram.split_first()?;
    match first {
        0..=3 => Some(Kind::Stun),
        20..=63 => Some(Kind::Dtls),
        128..=191 => match rest.first()? {
            192..=223 => Some(Kind::Rtcp),
            _ => Some(Kind::Rtp),
        },
        _ => None,
    }
}

/// A parsed RTP packet; the payload is without padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct RtpView<'a> {
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    two_byte: bool,
    extensions: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> RtpView<'a> {
    /// Parses RFC 3550 §5.1; `None` for anything cut short or inconsistent.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let (&[b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3], mut rest) = data.split_first_chunk::<12>()?;
        if b0 >> 6 != 2 {
            return None;
        }
        rest = rest.get(usize::from(b0 & 0x0f) * 4..)?;
        let mut extensions: &[u8] = &[];
        let mut two_byte = false;
        if b0 & 0x10 != 0 {
            let (&[p0, p1, l0, l1], body) = rest.split_first_chunk::<4>()?;
            let length = usize::from(u16::from_be_bytes([l0, l1])) * 4;
            let profile = u16::from_be_bytes([p0, p1]);
            two_byte = profile & 0xfff0 == 0x1000;
            let known = two_byte || profile == 0xbede;
            extensions = if known { body.get(..length)? } else { &[] };
            rest = body.get(length..)?;
        }
        if b0 & 0x20 != 0 {
            let padding = usize::from(*rest.last()?);
            let length = rest.len().checked_sub(padding)?;
            if padding == 0 {
                return None;
            }
            rest = rest.get(..length)?;
        }
        Some(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            two_byte,
            extensions,
            payload: rest,
        })
    }

    /// The value of header extension `id` (RFC 8285, one- and two-byte form).
    pub(super) fn extension(&self, id: u8) -> Option<&'a [u8]> {
        let mut rest = self.extensions;
        loop {
            let (&first, tail) = rest.split_first()?;
            if first == 0 {
                rest = tail;
                continue;
            }
            let (found, length, body) = if self.two_byte {
                let (&length, body) = tail.split_first()?;
                (first, usize::from(length), body)
            } else {
                if first >> 4 == 15 {
                    return None;
                }
                (first >> 4, usize::from(first & 0x0f) + 1, tail)
            };
            let value = body.get(..length)?;
            if found == id {
                return Some(value);
            }
            rest = body.get(length..)?;
        }
    }
}

/// Whether a payload starts a key frame: a decoder can begin here.
pub(super) fn starts_key_frame(codec: VideoCodec, payload: &[u8]) -> bool {
    match codec {
        VideoCodec::Vp8 => vp8_key_frame(payload).unwrap_or(false),
        VideoCodec::H264 => h264_key_frame(payload).unwrap_or(false),
    }
}

fn vp8_key_frame(payload: &[u8]) -> Option<bool> {
    let descriptor = Vp8Descriptor::parse(payload)?;
    let first = payload.get(descriptor.length)?;
    Some(descriptor.start && descriptor.partition == 0 && first & 1 == 0)
}

fn h264_key_frame(payload: &[u8]) -> Option<bool> {
    let (&header, rest) = payload.split_first()?;
    Some(match header & 0x1f {
        // Parameter sets precede every IDR picture of a live sender; the IDR itself counts as well.
        5 | 7 => true,
        24 => {
            let mut units = rest;
            while let Some((&[l0, l1], body)) = units.split_first_chunk::<2>() {
                let length = usize::from(u16::from_be_bytes([l0, l1]));
                let Some(unit) = body.first() else { break };
                if matches!(unit & 0x1f, 5 | 7) {
                    return Some(true);
                }
                let Some(next) = body.get(length..) else {
                    break;
                };
                if length == 0 {
                    break;
                }
                units = next;
            }
            false
        }
        28 => {
            let fu = rest.first()?;
            fu & 0x80 != 0 && fu & 0x1f == 5
        }
        _ => false,
    })
}

/// Offsets of what is rewritten in a VP8 payload descriptor (RFC 7741 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Vp8Descriptor {
    pub(super) start: bool,
    pub(super) partition: u8,
    /// Offset of the picture id and whether it has 15 bits.
    pub(super) picture_id: Option<(usize, bool, u16)>,
    /// Offset of TL0PICIDX and its value.
    pub(super) tl0: Option<(usize, u8)>,
    /// Bytes of the descriptor.
    pub(super) length: usize,
}

impl Vp8Descriptor {
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let first = *payload.first()?;
        let mut found =
            Self { start: first & 0x10 != 0, partition: first & 0x07, picture_id: None, tl0: None, length: 1 };
        if first & 0x80 == 0 {
            return Some(found);
        }
        let extension = *payload.get(1)?;
        let mut at = 2;
        if extension & 0x80 != 0 {
            let high = *payload.get(at)?;
            if high & 0x80 != 0 {
                let low = *payload.get(at + 1)?;
                found.picture_id = Some((at, true, u16::from_be_bytes([high & 0x7f, low])));
                at += 2;
            } else {
                found.picture_id = Some((at, false, u16::from(high)));
                at += 1;
            }
        }
        if extension & 0x40 != 0 {
            found.tl0 = Some((at, *payload.get(at)?));
            at += 1;
        }
        if extension & 0x30 != 0 {
            payload.get(at)?;
            at += 1;
        }
        found.length = at;
        Some(found)
    }

    /// Adds to picture id and TL0PICIDX of the payload that it was parsed from.
    pub(super) fn renumber(&self, payload: &mut [u8], picture_shift: u16, tl0_shift: u8) {
        if let Some((at, long, picture)) = self.picture_id.filter(|_| picture_shift != 0) {
            let picture = picture.wrapping_add(picture_shift);
            let [high, low] = picture.to_be_bytes();
            match payload.get_mut(at..) {
                Some([first, second, ..]) if long => {
                    *first = 0x80 | high;
                    *second = low;
                }
                Some([first, ..]) if !long => *first = low & 0x7f,
                _ => {}
            }
        }
        if let Some((at, tl0)) = self.tl0
            && let Some(byte) = payload.get_mut(at)
        {
            *byte = tl0.wrapping_add(tl0_shift);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_csrc_and_padding_are_stepped_over() {
        let mut data = vec![0xb1, 0x80 | 111, 0, 7, 0, 0, 0, 9, 0, 0, 0, 3];
        data.extend([1, 2, 3, 4]);
        data.extend([0xbe, 0xde, 0, 2, 0x10, 0x85, 0x22, 1, 2, 3, 0, 0]);
        data.extend([42, 43, 0, 2]);
        let view = RtpView::parse(&data).unwrap();
        assert_eq!((view.payload_type, view.sequence, view.ssrc), (111, 7, 3));
        assert!(view.marker);
        assert_eq!(view.extension(1), Some(&[0x85][..]));
        assert_eq!(view.extension(2), Some(&[1, 2, 3][..]));
        assert_eq!(view.extension(3), None);
        assert_eq!(view.payload, [42, 43]);
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_survived() {
        let mut data = vec![0xb2, 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 3, 9, 9, 9, 9, 8, 8, 8, 8];
        data.extend([0xbe, 0xde, 0, 1, 0x10, 0x85, 0x2f, 1, 0x90, 0xf0, 0x81, 1, 5, 9, 1]);
        for length in 0..data.len() {
            let _ = RtpView::parse(data.get(..length).unwrap());
        }
        for at in 0..data.len() {
            for value in 0..=255u8 {
                let mut changed = data.clone();
                changed[at] = value;
                if let Some(view) = RtpView::parse(&changed) {
                    for id in 0..16 {
                        let _ = view.extension(id);
                    }
                    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
                        let _ = starts_key_frame(codec, view.payload);
                    }
                }
            }
        }
    }

    #[test]
    fn key_frames_are_recognised() {
        assert!(starts_key_frame(VideoCodec::Vp8, &[0x10, 0x00]));
        assert!(!starts_key_frame(VideoCodec::Vp8, &[0x10, 0x01]));
        assert!(!starts_key_frame(VideoCodec::Vp8, &[0x00, 0x00]));
        assert!(starts_key_frame(VideoCodec::Vp8, &[0x90, 0x80, 0x81, 5, 0x10]));
        assert!(starts_key_frame(VideoCodec::H264, &[0x67, 1]));
        assert!(starts_key_frame(VideoCodec::H264, &[0x7c, 0x85]));
        assert!(!starts_key_frame(VideoCodec::H264, &[0x7c, 0x05]));
        assert!(!starts_key_frame(VideoCodec::H264, &[0x41, 0]));
        assert!(starts_key_frame(VideoCodec::H264, &[24, 0, 1, 0x41, 0, 1, 0x67]));
    }

    #[test]
    fn datagrams_are_told_apart() {
        assert_eq!(classify(&[0, 1]), Some(Kind::Stun));
        assert_eq!(classify(&[22, 254]), Some(Kind::Dtls));
        assert_eq!(classify(&[0x80, 96]), Some(Kind::Rtp));
        assert_eq!(classify(&[0x80, 96 | 0x80]), Some(Kind::Rtp));
        assert_eq!(classify(&[0x80, 200]), Some(Kind::Rtcp));
        assert_eq!(classify(&[64, 0]), None);
        assert_eq!(classify(&[]), None);
    }
}
