//! VP8 on RTP: payload descriptor (RFC 7741 §4.2) and the first bytes of a frame (RFC 6386 §9.1).

use bytes::BytesMut;

/// The VP8 payload descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Descriptor {
    /// N: no other frame refers to this one.
    pub non_reference: bool,
    /// S: a partition starts here.
    pub start: bool,
    /// PID: partition index, 0–7 (only 3 bits are written).
    pub partition: u8,
    /// PictureID.
    pub picture_id: Option<PictureId>,
    /// TL0PICIDX.
    pub tl0_picture_index: Option<u8>,
    /// TID (0–3) and the layer sync bit Y.
    pub temporal_layer: Option<(u8, bool)>,
    /// KEYIDX, 0–31.
    pub key_index: Option<u8>,
}

/// A picture id with the width it has on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureId {
    /// 7 bit.
    Short(u8),
    /// 15 bit.
    Long(u16),
}

impl PictureId {
    /// The number itself.
    pub fn value(self) -> u16 {
        match self {
            Self::Short(id) => u16::from(id & 0x7f),
            Self::Long(id) => id & 0x7fff,
        }
    }
}

impl Descriptor {
    /// Parses the descriptor in front of a payload and gives its length in bytes; `None` when it is cut short.
    pub fn parse(payload: &[u8]) -> Option<(Self, usize)> {
        let mut bytes = payload.iter().copied();
        let first = bytes.next()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            start: first & 0x10 != 0,
            partition: first & 0x07,
            ..Self::default()
        };
        if first & 0x80 != 0 {
            let extension = bytes.next()?;
            if extension & 0x80 != 0 {
                let high = bytes.next()?;
                descriptor.picture_id = Some(if high & 0x80 != 0 {
                    PictureId::Long(u16::from_be_bytes([high & 0x7f, bytes.next()?]))
                } else {
                    PictureId::Short(high)
                });
            }
            if extension & 0x40 != 0 {
                descriptor.tl0_picture_index = Some(bytes.next()?);
            }
            if extension & 0x30 != 0 {
                let octet = bytes.next()?;
                if extension & 0x20 != 0 {
                    descriptor.temporal_layer = Some((octet >> 6, octet & 0x20 != 0));
                }
                if extension & 0x10 != 0 {
                    descriptor.key_index = Some(octet & 0x1f);
                }
            }
        }
        Some((descriptor, payload.len() - bytes.len()))
    }

    /// Writes the descriptor.
    pub fn write(&self, out: &mut BytesMut) {
        let extension = (u8::from(self.picture_id.is_some()) << 7)
            | (u8::from(self.tl0_picture_index.is_some()) << 6)
            | (u8::from(self.temporal_layer.is_some()) << 5)
            | (u8::from(self.key_index.is_some()) << 4);
        let first = (u8::from(extension != 0) << 7)
            | (u8::from(self.non_reference) << 5)
            | (u8::from(self.start) << 4)
            | (self.partition & 0x07);
        out.extend_from_slice(&[first]);
        if extension == 0 {
            return;
        }
        out.extend_from_slice(&[extension]);
        match self.picture_id {
            Some(PictureId::Short(id)) => out.extend_from_slice(&[id & 0x7f]),
            Some(PictureId::Long(id)) => out.extend_from_slice(&(id | 0x8000).to_be_bytes()),
            None => {}
        }
        if let Some(index) = self.tl0_picture_index {
            out.extend_from_slice(&[index]);
        }
        if self.temporal_layer.is_some() || self.key_index.is_some() {
            let (layer, sync) = self.temporal_layer.unwrap_or_default();
            out.extend_from_slice(&[((layer & 0x03) << 6)
                | (u8::from(sync) << 5)
                | (self.key_index.unwrap_or(0) & 0x1f)]);
        }
    }

    /// Whether a frame starts with this packet.
    pub fn starts_frame(&self) -> bool {
        self.start && self.partition == 0
    }
}

/// Whether a frame (without descriptor) is a key frame: the lowest bit of its first byte is clear.
pub fn is_key_frame(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 0x01 == 0)
}

/// Width and height from the header of a key frame; `None` for an inter frame or when the start code is missing.
pub fn key_frame_size(frame: &[u8]) -> Option<(u32, u32)> {
    match frame {
        [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] if tag & 0x01 == 0 => Some((
            u32::from(u16::from_le_bytes([*w0, *w1]) & 0x3fff),
            u32::from(u16::from_le_bytes([*h0, *h1]) & 0x3fff),
        )),
        _ => None,
    }
}

/// Whether this RTP payload begins a key frame.
pub fn starts_key_frame(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|(descriptor, length)| {
        descriptor.starts_frame() && payload.get(length..).is_some_and(is_key_frame)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(descriptor: &Descriptor) -> BytesMut {
        let mut out = BytesMut::new();
        descriptor.write(&mut out);
        out
    }

    prop_compose! {
        fn any_descriptor()(
            non_reference: bool, start: bool, partition in 0u8..8,
            picture in prop::option::of((any::<bool>(), 0u16..0x8000)),
            tl0 in prop::option::of(any::<u8>()),
            layer in prop::option::of((0u8..4, any::<bool>())),
            key_index in prop::option::of(0u8..32),
        ) -> Descriptor {
            Descriptor {
                non_reference, start, partition,
                picture_id: picture.map(|(long, id)| if long { PictureId::Long(id) } else { PictureId::Short((id & 0x7f) as u8) }),
                tl0_picture_index: tl0,
                temporal_layer: layer,
                key_index,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(descriptor in any_descriptor(), tail in prop::collection::vec(any::<u8>(), 0..5)) {
            let mut bytes = written(&descriptor);
            let length = bytes.len();
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(Descriptor::parse(&bytes), Some((descriptor, length)));
            for cut in 0..length {
                prop_assert_eq!(Descriptor::parse(bytes.get(..cut).unwrap()), None);
            }
        }
    }

    #[test]
    fn size_of_a_key_frame() {
        // 640x480 with scaling bits set, as a libvpx key frame begins.
        let frame = [0x50, 0x2d, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x42, 0xe0, 0x41, 0x00];
        assert!(is_key_frame(&frame));
        assert_eq!(key_frame_size(&frame), Some((640, 480)));
        assert_eq!(key_frame_size(&[0x51, 0, 0]), None);
        assert!(starts_key_frame(&[0x10, 0x50]));
        assert!(!starts_key_frame(&[0x11, 0x50]));
        assert!(!starts_key_frame(&[0x10, 0x51]));
        assert!(!starts_key_frame(&[0x10]));
    }
}
