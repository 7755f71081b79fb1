//! Frames to packets: VP8 (RFC 7741), H264 (RFC 6184, packetization-mode 1) and Opus (RFC 7587).

use bytes::{BufMut, Bytes, BytesMut};

use super::frame::{EncodedAudio, EncodedFrame, VideoCodec};
use super::h264;
use super::packet::RtpPacket;
use super::vp8::{Descriptor, PictureId};

/// Largest RTP payload in bytes: leaves room for extensions, SRTP and a TURN header inside 1280 byte paths.
pub const MAX_PAYLOAD: usize = 1200;
/// STAP-A, RFC 6184 §5.7.1.
const STAP_A: u8 = 24;
/// FU-A, RFC 6184 §5.8.
const FU_A: u8 = 28;

/// First numbers of a stream; should be random (RFC 3550 §5.1), and never go back on the same SSRC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// Sequence number of the first packet.
    pub sequence: u16,
    /// VP8 picture id of the first frame; the upper bit is ignored.
    pub picture_id: u16,
}

/// Cuts the frames of one video stream into packets.
#[derive(Debug, Clone)]
pub struct VideoPacketizer {
    codec: VideoCodec,
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    picture_id: u16,
}

impl VideoPacketizer {
    /// A packetizer for one SSRC.
    pub fn new(codec: VideoCodec, ssrc: u32, payload_type: u8, start: Start) -> Self {
        Self { codec, ssrc, payload_type, sequence: start.sequence, picture_id: start.picture_id & 0x7fff }
    }

    /// The SSRC it writes.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Changes the payload type, as after a renegotiation.
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.payload_type = payload_type;
    }

    /// Changes the codec; numbering goes on.
    pub fn set_codec(&mut self, codec: VideoCodec, payload_type: u8) {
        self.codec = codec;
        self.payload_type = payload_type;
    }

    /// The numbers the next frame begins with.
    pub fn next(&self) -> Start {
        Start { sequence: self.sequence, picture_id: self.picture_id }
    }

    /// Appends the packets of one access unit to `out`. A frame of another codec, or without data, gives none.
    pub fn packetize(&mut self, frame: &EncodedFrame, out: &mut Vec<RtpPacket>) {
        if frame.codec != self.codec || frame.data.is_empty() {
            return;
        }
        let first = out.len();
        match self.codec {
            VideoCodec::Vp8 => self.vp8(frame, out),
            VideoCodec::H264 => self.h264(frame, out),
        }
        if out.len() > first
            && let Some(last) = out.last_mut()
        {
            last.marker = true;
        }
    }

    fn push(&mut self, payload: Bytes, timestamp: u32, out: &mut Vec<RtpPacket>) {
        out.push(RtpPacket {
            payload_type: self.payload_type,
            marker: false,
            sequence: self.sequence,
            timestamp,
            ssrc: self.ssrc,
            payload,
        });
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn vp8(&mut self, frame: &EncodedFrame, out: &mut Vec<RtpPacket>) {
        let mut descriptor =
            Descriptor { start: true, picture_id: Some(PictureId::Long(self.picture_id)), ..Descriptor::default() };
        for chunk in even_chunks(&frame.data, MAX_PAYLOAD - 4) {
            let mut payload = BytesMut::with_capacity(chunk.len() + 4);
            descriptor.write(&mut payload);
            payload.extend_from_slice(chunk);
            descriptor.start = false;
            self.push(payload.freeze(), frame.rtp_timestamp, out);
        }
        self.picture_id = (self.picture_id + 1) & 0x7fff;
    }

    fn h264(&mut self, frame: &EncodedFrame, out: &mut Vec<RtpPacket>) {
        // Parameter sets and SEI wait here until something else comes, then leave as one STAP-A.
        let mut small: Vec<Bytes> = Vec::new();
        let mut small_size = 1;
        for range in h264::nal_ranges(&frame.data) {
            let nal = frame.data.slice(range);
            match h264::nal_type(&nal) {
                h264::NAL_AUD | h264::NAL_FILLER => {}
                h264::NAL_SPS | h264::NAL_PPS | h264::NAL_SEI if nal.len() + 3 <= MAX_PAYLOAD => {
                    if small_size + nal.len() + 2 > MAX_PAYLOAD {
                        self.aggregate(&mut small, frame.rtp_timestamp, out);
                        small_size = 1;
                    }
                    small_size += nal.len() + 2;
                    small.push(nal);
                }
                _ => {
                    self.aggregate(&mut small, frame.rtp_timestamp, out);
                    small_size = 1;
                    self.nal(nal, frame.rtp_timestamp, out);
                }
            }
        }
        self.aggregate(&mut small, frame.rtp_timestamp, out);
    }

    fn aggregate(&mut self, small: &mut Vec<Bytes>, timestamp: u32, out: &mut Vec<RtpPacket>) {
        if small.len() < 2 {
            if let Some(nal) = small.pop() {
                self.push(nal, timestamp, out);
            }
            return;
        }
        let mut payload = BytesMut::with_capacity(MAX_PAYLOAD);
        // F and NRI of a STAP-A are the maximum of what is inside.
        let importance = small.iter().filter_map(|nal| nal.first()).map(|first| first & 0x60).max().unwrap_or(0);
        payload.put_u8(importance | STAP_A);
        for nal in small.drain(..) {
            payload.put_u16(u16::try_from(nal.len()).unwrap_or(u16::MAX));
            payload.extend_from_slice(&nal);
        }
        self.push(payload.freeze(), timestamp, out);
    }

    fn nal(&mut self, nal: Bytes, timestamp: u32, out: &mut Vec<RtpPacket>) {
        if nal.len() <= MAX_PAYLOAD {
            self.push(nal, timestamp, out);
            return;
        }
        let Some((&header, body)) = nal.split_first() else {
            return;
        };
        let total = body.len().div_ceil(MAX_PAYLOAD - 2);
        for (index, chunk) in even_chunks(body, MAX_PAYLOAD - 2).enumerate() {
            let mut payload = BytesMut::with_capacity(chunk.len() + 2);
            payload.put_u8((header & 0xe0) | FU_A);
            payload.put_u8((u8::from(index == 0) << 7) | (u8::from(index + 1 == total) << 6) | (header & 0x1f));
            payload.extend_from_slice(chunk);
            self.push(payload.freeze(), timestamp, out);
        }
    }
}

/// `data` in the fewest chunks of at most `limit` bytes, all of nearly the same size: a tiny last packet would be as
/// easily lost as a full one.
fn even_chunks(data: &[u8], limit: usize) -> impl Iterator<Item = &[u8]> {
    let count = data.len().div_ceil(limit).max(1);
    let (size, longer) = (data.len() / count, data.len() % count);
    let mut rest = data;
    (0..count).map(move |index| {
        let (chunk, tail) = rest.split_at_checked(size + usize::from(index < longer)).unwrap_or((rest, &[]));
        rest = tail;
        chunk
    })
}

/// Puts Opus packets into RTP.
#[derive(Debug, Clone)]
pub struct AudioPacketizer {
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    /// Where the next packet of the same talk spurt would begin.
    expected: Option<u32>,
}

impl AudioPacketizer {
    /// A packetizer for one SSRC, beginning at `sequence`.
    pub fn new(ssrc: u32, payload_type: u8, sequence: u16) -> Self {
        Self { ssrc, payload_type, sequence, expected: None }
    }

    /// Changes the payload type, as after a renegotiation.
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.payload_type = payload_type;
    }

    /// The packet for one Opus frame; none for DTX silence. The marker says that a talk spurt begins (RFC 3551 §4.1).
    pub fn packetize(&mut self, audio: &EncodedAudio) -> Option<RtpPacket> {
        if audio.data.is_empty() {
            return None;
        }
        let packet = RtpPacket {
            payload_type: self.payload_type,
            marker: self.expected != Some(audio.rtp_timestamp),
            sequence: self.sequence,
            timestamp: audio.rtp_timestamp,
            ssrc: self.ssrc,
            payload: audio.data.clone(),
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.expected = Some(audio.rtp_timestamp.wrapping_add(audio.samples));
        Some(packet)
    }
}
