//! H264 byte stream helpers (ITU-T H.264 annex B, §7.3.2.1) for constrained baseline.

use bytes::{Bytes, BytesMut};

/// Coded slice of an IDR picture.
pub const NAL_IDR: u8 = 5;
/// Supplemental enhancement information.
pub const NAL_SEI: u8 = 6;
/// Sequence parameter set.
pub const NAL_SPS: u8 = 7;
/// Picture parameter set.
pub const NAL_PPS: u8 = 8;
/// Access unit delimiter.
pub const NAL_AUD: u8 = 9;
/// Filler data.
pub const NAL_FILLER: u8 = 12;
/// Start code written in front of every NAL unit.
pub const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// The type of a NAL unit, 0 for an empty one.
pub fn nal_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |first| first & 0x1f)
}

/// Ranges of the NAL units in an Annex B byte stream, without start codes and trailing zeros.
pub fn nal_ranges(stream: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut begin = None;
    let mut zeros = 0usize;
    for (at, &byte) in stream.iter().enumerate() {
        if byte == 1 && zeros >= 2 {
            if let Some(begin) = begin {
                push_range(&mut ranges, begin, at.saturating_sub(zeros));
            }
            begin = Some(at + 1);
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    if let Some(begin) = begin {
        push_range(&mut ranges, begin, stream.len().saturating_sub(zeros));
    }
    ranges
}

fn push_range(ranges: &mut Vec<std::ops::Range<usize>>, begin: usize, end: usize) {
    if end > begin {
        ranges.push(begin..end);
    }
}

/// The NAL units of an Annex B byte stream.
pub fn nals(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    nal_ranges(stream).into_iter().filter_map(|range| stream.get(range))
}

/// Whether an access unit has an IDR slice.
pub fn has_idr(access_unit: &[u8]) -> bool {
    nals(access_unit).any(|nal| nal_type(nal) == NAL_IDR)
}

/// Width and height in pixels from the sequence parameter set of an access unit, cropping applied.
pub fn picture_size(access_unit: &[u8]) -> Option<(u32, u32)> {
    nals(access_unit).find(|nal| nal_type(nal) == NAL_SPS).and_then(sps_size)
}

/// The parameter sets seen last, to complete an IDR picture whose sender sent them earlier and apart.
#[derive(Debug, Clone, Default)]
pub struct ParameterSets {
    sps: Bytes,
    pps: Bytes,
}

/// What [`ParameterSets::complete`] made of an access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completed {
    /// No slice in it, parameter sets at most: nothing to decode.
    NoPicture,
    /// An inter picture.
    Inter(Bytes),
    /// An IDR picture with its parameter sets.
    Key(Bytes),
    /// An IDR picture whose parameter sets never came: it cannot be decoded.
    KeyWithoutParameters,
}

impl ParameterSets {
    /// Remembers the parameter sets of an access unit and puts them in front of an IDR picture that lacks them.
    pub fn complete(&mut self, access_unit: Bytes) -> Completed {
        let (mut idr, mut slice, mut sps, mut pps) = (false, false, false, false);
        for range in nal_ranges(&access_unit) {
            let nal = access_unit.slice(range);
            match nal_type(&nal) {
                NAL_IDR => idr = true,
                1..=4 => slice = true,
                NAL_SPS => {
                    self.sps = nal;
                    sps = true;
                }
                NAL_PPS => {
                    self.pps = nal;
                    pps = true;
                }
                _ => {}
            }
        }
        match (idr, slice) {
            (false, false) => Completed::NoPicture,
            (false, true) => Completed::Inter(access_unit),
            (true, _) if sps && pps => Completed::Key(access_unit),
            (true, _) if (sps || !self.sps.is_empty()) && (pps || !self.pps.is_empty()) => {
                let mut out = BytesMut::with_capacity(access_unit.len() + self.sps.len() + self.pps.len() + 8);
                for nal in [&self.sps, &self.pps] {
                    out.extend_from_slice(&START_CODE);
                    out.extend_from_slice(nal);
                }
                for nal in nals(&access_unit).filter(|nal| !matches!(nal_type(nal), NAL_SPS | NAL_PPS)) {
                    out.extend_from_slice(&START_CODE);
                    out.extend_from_slice(nal);
                }
                Completed::Key(out.freeze())
            }
            (true, _) => Completed::KeyWithoutParameters,
        }
    }
}

/// Width and height from one sequence parameter set NAL unit (H.264 §7.3.2.1.1).
fn sps_size(nal: &[u8]) -> Option<(u32, u32)> {
    let mut bits = Bits::new(nal.get(1..)?);
    let profile = bits.take(8)?;
    bits.take(16)?;
    bits.golomb()?;
    let mut chroma_format = 1;
    if matches!(profile, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128) {
        chroma_format = bits.golomb()?;
        if chroma_format == 3 {
            bits.take(1)?;
        }
        bits.golomb()?;
        bits.golomb()?;
        bits.take(1)?;
        if bits.take(1)? == 1 {
            // Scaling lists: no encoder we meet sends them, and the size behind them is only a hint.
            return None;
        }
    }
    bits.golomb()?;
    match bits.golomb()? {
        0 => {
            bits.golomb()?;
        }
        1 => {
            bits.take(1)?;
            bits.golomb()?;
            bits.golomb()?;
            for _ in 0..bits.golomb()?.min(255) {
                bits.golomb()?;
            }
        }
        _ => {}
    }
    bits.golomb()?;
    bits.take(1)?;
    let width_mbs = bits.golomb()?.checked_add(1)?;
    let height_units = bits.golomb()?.checked_add(1)?;
    let frame_only = bits.take(1)?;
    if frame_only == 0 {
        bits.take(1)?;
    }
    bits.take(1)?;
    let (mut left, mut right, mut top, mut bottom) = (0, 0, 0, 0);
    if bits.take(1)? == 1 {
        left = bits.golomb()?;
        right = bits.golomb()?;
        top = bits.golomb()?;
        bottom = bits.golomb()?;
    }
    let crop_x = if chroma_format == 0 || chroma_format == 3 { 1 } else { 2 };
    let crop_y = if chroma_format == 1 { 2 } else { 1 } * (2 - frame_only);
    let width = width_mbs.checked_mul(16)?.checked_sub(left.checked_add(right)?.checked_mul(crop_x)?)?;
    let height = height_units
        .checked_mul(16)?
        .checked_mul(2 - frame_only)?
        .checked_sub(top.checked_add(bottom)?.checked_mul(crop_y)?)?;
    Some((width, height))
}

/// Bit reader over a NAL unit that skips emulation prevention bytes.
struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    fn new(nal: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(nal.len());
        let mut zeros = 0;
        for &byte in nal {
            if zeros >= 2 && byte == 3 {
                zeros = 0;
                continue;
            }
            zeros = if byte == 0 { zeros + 1 } else { 0 };
            bytes.push(byte);
        }
        Self { bytes, at: 0 }
    }

    fn take(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value = (value << 1) | u32::from((byte >> (7 - self.at % 8)) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.take(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let tail = u64::from(self.take(zeros)?);
        u32::try_from((1u64 << zeros) - 1 + tail).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SPS of a 1280x720 constrained baseline stream (x264, level 3.1) and of 640x360 (cropping: 360 is no multiple of 16).
    const SPS_720: [u8; 21] = [
        0x67, 0x42, 0xc0, 0x1f, 0xd9, 0x00, 0x50, 0x05, 0xbb, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00,
        0x03, 0x03, 0xc0,
    ];

    #[test]
    fn ranges_of_both_start_codes_and_trailing_zeros() {
        let stream = [0, 0, 0, 1, 0x67, 9, 0, 0, 1, 0x68, 8, 0, 0, 0, 1, 0x65, 1, 2, 0, 0];
        let found: Vec<&[u8]> = nals(&stream).collect();
        assert_eq!(found, vec![&[0x67, 9][..], &[0x68, 8], &[0x65, 1, 2]]);
        assert!(has_idr(&stream));
        assert!(nal_ranges(&[1, 2, 3]).is_empty());
    }

    #[test]
    fn size_from_parameter_sets() {
        let mut stream = START_CODE.to_vec();
        stream.extend_from_slice(&SPS_720);
        assert_eq!(picture_size(&stream), Some((1280, 720)));
        assert_eq!(picture_size(&stream[..8]), None);
    }

    #[test]
    fn an_idr_gets_the_parameter_sets_that_came_before() {
        let unit = |nals: &[&[u8]]| {
            let mut out = BytesMut::new();
            for nal in nals {
                out.extend_from_slice(&START_CODE);
                out.extend_from_slice(nal);
            }
            out.freeze()
        };
        let mut sets = ParameterSets::default();
        assert_eq!(sets.complete(unit(&[&[0x65, 1]])), Completed::KeyWithoutParameters);
        assert_eq!(sets.complete(unit(&[&[0x67, 1], &[0x68, 1]])), Completed::NoPicture);
        assert_eq!(sets.complete(unit(&[&[0x65, 1]])), Completed::Key(unit(&[&[0x67, 1], &[0x68, 1], &[0x65, 1]])));
        let whole = unit(&[&[0x67, 2], &[0x68, 2], &[0x65, 1]]);
        assert_eq!(sets.complete(whole.clone()), Completed::Key(whole));
        let inter = unit(&[&[0x41, 1]]);
        assert_eq!(sets.complete(inter.clone()), Completed::Inter(inter));
    }
}
