//! One outgoing stream from changing sources: continuous sequence numbers, timestamps and VP8 picture ids across
//! publisher reconnects, without the padding of the source.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::depacketise::begins_key_frame;
use super::frame::{VIDEO_CLOCK_HZ, VideoCodec};
use super::packet::RtpPacket;
use super::packetise::Start;
use super::seq::Unwrapper;
use super::vp8;

/// Dropped numbers remembered per source; a packet from before them is too old to be placed.
const MAX_DROPS: usize = 512;
/// Earlier sources for which requests are still answered.
const MAX_SEGMENTS: usize = 4;

/// What is being forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Audio at this clock rate in Hz.
    Audio {
        /// Clock rate of the timestamps.
        clock_hz: u32,
    },
    /// Video; begins at a key frame.
    Video(VideoCodec),
}

/// Where an outgoing packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRef {
    /// Source, as given to [`Rewriter::select`].
    pub source: u64,
    /// Its sequence number there.
    pub sequence: u16,
}

/// A run of packets from one source, with the offsets that place it in the outgoing stream.
#[derive(Debug, Clone)]
struct Segment {
    source: u64,
    unwrapper: Unwrapper,
    /// First source number that belongs to the run.
    first_in: u64,
    /// Outgoing number of `first_in`.
    first_out: u64,
    /// Source numbers that were dropped, ascending. The first `folded` of all drops are no longer listed.
    drops: VecDeque<u64>,
    folded: u64,
    timestamp_offset: u32,
    picture_offset: u16,
    tl0_offset: u8,
}

impl Segment {
    /// The outgoing number of a source number; `None` when it is before the run or was dropped.
    fn out_of(&self, extended: u64) -> Option<u64> {
        if extended < self.first_in || (self.folded > 0 && self.drops.front().is_some_and(|oldest| extended < *oldest))
        {
            return None;
        }
        let position = match self.drops.binary_search(&extended) {
            Ok(_) => return None,
            Err(position) => position as u64,
        };
        (self.first_out + (extended - self.first_in)).checked_sub(position + self.folded)
    }

    /// The source number behind an outgoing number.
    fn in_of(&self, out: u64) -> Option<u64> {
        let mut extended = self.first_in + out.checked_sub(self.first_out)? + self.folded;
        for dropped in &self.drops {
            if *dropped <= extended {
                extended += 1;
            }
        }
        Some(extended)
    }
}

/// Rewrites packets of one media kind for one receiver.
#[derive(Debug, Clone)]
pub struct Rewriter {
    kind: StreamKind,
    ssrc: u32,
    payload_type: u8,
    selected: Option<u64>,
    waiting: bool,
    /// Newest last.
    segments: VecDeque<Segment>,
    out: Unwrapper,
    start: Start,
    last_timestamp: Option<(u32, Instant)>,
    last_picture: Option<u16>,
    last_tl0: Option<u8>,
}

impl Rewriter {
    /// A stream towards one receiver: `ssrc` and `payload_type` are what that receiver negotiated.
    pub fn new(kind: StreamKind, ssrc: u32, payload_type: u8, start: Start) -> Self {
        Self {
            kind,
            ssrc,
            payload_type,
            selected: None,
            waiting: true,
            segments: VecDeque::new(),
            out: Unwrapper::default(),
            start,
            last_timestamp: None,
            last_picture: None,
            last_tl0: None,
        }
    }

    /// The payload type written.
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.payload_type = payload_type;
    }

    /// Chooses the source to forward; packets of others are refused from now on. Video of a new source begins with
    /// its next key frame. Choosing the source that is chosen already changes nothing.
    pub fn select(&mut self, source: u64) {
        if self.selected != Some(source) {
            self.selected = Some(source);
            self.waiting = true;
        }
    }

    /// Begins anew with the same source, as after a pause: video waits for a key frame, and the numbers go on as if
    /// nothing had been left out.
    pub fn restart(&mut self) {
        self.waiting = true;
    }

    /// Whether nothing is forwarded until a key frame of the chosen source comes.
    pub fn needs_key_frame(&self) -> bool {
        self.waiting && matches!(self.kind, StreamKind::Video(_))
    }

    /// The packet as this receiver gets it. `None`: padding, another source, from before the run, or video before its
    /// first key frame. The first packet ever chooses its source.
    pub fn forward(&mut self, source: u64, packet: &RtpPacket, now: Instant) -> Option<RtpPacket> {
        if *self.selected.get_or_insert(source) != source {
            return None;
        }
        if self.waiting {
            let begins = match self.kind {
                StreamKind::Audio { .. } => !packet.payload.is_empty(),
                StreamKind::Video(codec) => begins_key_frame(codec, &packet.payload),
            };
            if !begins {
                return None;
            }
            self.begin(source, packet, now);
        }
        let segment = self.segments.back_mut()?;
        let ahead = segment.unwrapper.highest();
        let extended = segment.unwrapper.unwrap(packet.sequence);
        if packet.payload.is_empty() && ahead.is_some_and(|highest| extended > highest) {
            segment.drops.push_back(extended);
            if segment.drops.len() > MAX_DROPS {
                segment.drops.pop_front();
                segment.folded += 1;
            }
            return None;
        }
        // Padding that comes late has its number already: later packets were placed behind it.
        let out = segment.out_of(extended)?;
        let rewritten = place(segment, packet, out, self.ssrc, self.payload_type);
        if self.out.highest().is_none_or(|highest| out > highest) {
            self.out = Unwrapper::starting_at(out);
            self.last_timestamp = Some((rewritten.timestamp, now));
            if let StreamKind::Video(VideoCodec::Vp8) = self.kind
                && let Some((descriptor, _)) = vp8::Descriptor::parse(&rewritten.payload)
            {
                self.last_picture = descriptor.picture_id.map(vp8::PictureId::value).or(self.last_picture);
                self.last_tl0 = descriptor.tl0_picture_index.or(self.last_tl0);
            }
        }
        Some(rewritten)
    }

    /// Where the outgoing packet with that number came from, also when it never passed here; `None` when it is from
    /// before what is remembered, or has not been given out.
    pub fn source_of(&self, sequence: u16) -> Option<SourceRef> {
        let (segment, out) = self.segment_of(sequence)?;
        Some(SourceRef {
            source: segment.source,
            // The low 16 bits are the number on the wire.
            sequence: segment.in_of(out)? as u16,
        })
    }

    /// The outgoing packet with that number made again from its source packet, byte for byte the same.
    pub fn resend(&self, sequence: u16, packet: &RtpPacket) -> Option<RtpPacket> {
        let (segment, out) = self.segment_of(sequence)?;
        (segment.in_of(out)? as u16 == packet.sequence)
            .then(|| place(segment, packet, out, self.ssrc, self.payload_type))
    }

    fn segment_of(&self, sequence: u16) -> Option<(&Segment, u64)> {
        let highest = self.out.highest()?;
        let out = self.out.peek(sequence);
        if out > highest {
            return None;
        }
        let segment = self.segments.iter().rev().find(|segment| segment.first_out <= out)?;
        Some((segment, out))
    }

    fn begin(&mut self, source: u64, packet: &RtpPacket, now: Instant) {
        let mut unwrapper = Unwrapper::default();
        let first_in = unwrapper.peek(packet.sequence);
        // So that the packet itself counts as ahead of everything.
        unwrapper = Unwrapper::starting_at(first_in.saturating_sub(1));
        let first_out =
            self.out.highest().map_or_else(|| u64::from(self.start.sequence) + 0x1_0000, |highest| highest + 1);
        let timestamp_offset = self.last_timestamp.map_or(0, |(last, at)| {
            self.timestamp_step(now.saturating_duration_since(at)).wrapping_add(last).wrapping_sub(packet.timestamp)
        });
        let (mut picture_offset, mut tl0_offset) = (0, 0);
        if let StreamKind::Video(VideoCodec::Vp8) = self.kind
            && let Some((descriptor, _)) = vp8::Descriptor::parse(&packet.payload)
        {
            if let (Some(last), Some(id)) = (self.last_picture, descriptor.picture_id) {
                picture_offset = last.wrapping_add(1).wrapping_sub(id.value()) & 0x7fff;
            }
            if let (Some(last), Some(index)) = (self.last_tl0, descriptor.tl0_picture_index) {
                tl0_offset = last.wrapping_add(1).wrapping_sub(index);
            }
        }
        self.segments.push_back(Segment {
            source,
            unwrapper,
            first_in,
            first_out,
            drops: VecDeque::new(),
            folded: 0,
            timestamp_offset,
            picture_offset,
            tl0_offset,
        });
        if self.segments.len() > MAX_SEGMENTS {
            self.segments.pop_front();
        }
        self.waiting = false;
    }

    /// How far the timestamp moves on over a change of source: as far as the time did, one frame at least.
    fn timestamp_step(&self, elapsed: Duration) -> u32 {
        let (clock_hz, least) = match self.kind {
            StreamKind::Audio { clock_hz } => (clock_hz, clock_hz / 50),
            StreamKind::Video(_) => (VIDEO_CLOCK_HZ, VIDEO_CLOCK_HZ / 60),
        };
        let ticks = elapsed.as_micros().saturating_mul(u128::from(clock_hz)) / 1_000_000;
        // Wrapping is what timestamps do.
        (ticks as u32).max(least)
    }
}

fn place(segment: &Segment, packet: &RtpPacket, out: u64, ssrc: u32, payload_type: u8) -> RtpPacket {
    RtpPacket {
        payload_type,
        ssrc,
        // The low 16 bits are the number on the wire.
        sequence: out as u16,
        timestamp: packet.timestamp.wrapping_add(segment.timestamp_offset),
        marker: packet.marker,
        payload: vp8::renumber(&packet.payload, segment.picture_offset, segment.tl0_offset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::frame::EncodedFrame;
    use crate::rtp::packetise::VideoPacketizer;
    use bytes::Bytes;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    /// Packets of `count` VP8 frames; the first is a key frame.
    fn source(ssrc: u32, start: Start, timestamp: u32, count: u32) -> Vec<RtpPacket> {
        let mut packetizer = VideoPacketizer::new(VideoCodec::Vp8, ssrc, 96, start);
        let mut out = Vec::new();
        for index in 0..count {
            let mut data = vec![7u8; 3_000];
            data[0] = u8::from(index != 0);
            let frame = EncodedFrame {
                codec: VideoCodec::Vp8,
                data: data.into(),
                rtp_timestamp: timestamp.wrapping_add(index * 3_000),
                key_frame: index == 0,
                size: None,
                at: Instant::now(),
            };
            packetizer.packetize(&frame, &mut out);
        }
        out
    }

    fn padding(after: &RtpPacket, sequence: u16) -> RtpPacket {
        RtpPacket { sequence, payload: Bytes::new(), marker: false, ..after.clone() }
    }

    fn rewriter() -> Rewriter {
        Rewriter::new(StreamKind::Video(VideoCodec::Vp8), 42, 100, Start { sequence: 65_530, picture_id: 0 })
    }

    #[test]
    fn numbers_go_on_across_a_publisher_reconnect() {
        let start = Instant::now();
        let mut rewriter = rewriter();
        let first = source(1, Start { sequence: 10, picture_id: 0x7ffe }, 1_000, 4);
        let second = source(2, Start { sequence: 60_000, picture_id: 55 }, 4_000_000_000, 4);
        let mut sent = Vec::new();
        for (index, packet) in first.iter().enumerate() {
            sent.push(rewriter.forward(1, packet, start + MS * index as u32).unwrap());
        }
        rewriter.select(2);
        assert!(rewriter.needs_key_frame());
        assert_eq!(rewriter.forward(1, &first[0], start), None, "the old source is refused");
        assert_eq!(rewriter.forward(2, &second[1], start), None, "video begins with a key frame");
        let later = start + MS * 2_000;
        for packet in &second {
            sent.push(rewriter.forward(2, packet, later).unwrap());
        }
        for (index, packet) in sent.iter().enumerate() {
            assert_eq!(packet.sequence, 65_530u16.wrapping_add(index as u16));
            assert_eq!((packet.ssrc, packet.payload_type), (42, 100));
        }
        let pictures: Vec<u16> = sent
            .iter()
            .filter(|packet| packet.marker)
            .map(|packet| vp8::Descriptor::parse(&packet.payload).unwrap().0.picture_id.unwrap().value())
            .collect();
        assert_eq!(pictures, [0x7ffe, 0x7fff, 0, 1, 2, 3, 4, 5]);
        let step = sent[12].timestamp.wrapping_sub(sent[11].timestamp);
        assert!((90_000 * 198 / 100..=90_000 * 2).contains(&step), "{step}");
        // Requests reach back over the change.
        assert_eq!(rewriter.source_of(65_530), Some(SourceRef { source: 1, sequence: 10 }));
        let asked = sent[13].sequence;
        assert_eq!(rewriter.source_of(asked), Some(SourceRef { source: 2, sequence: 60_001 }));
        assert_eq!(rewriter.resend(asked, &second[1]).as_ref(), Some(&sent[13]));
        assert_eq!(rewriter.resend(asked, &second[2]), None);
        assert_eq!(rewriter.source_of(asked.wrapping_add(100)), None);
    }

    #[test]
    fn padding_leaves_no_gap_and_late_padding_keeps_its_number() {
        let now = Instant::now();
        let mut rewriter = rewriter();
        let media = source(1, Start::default(), 0, 3);
        // On the wire: m0 m1 m2 [pad 3] m3 m4 m5 [pad 7] m6 …, where padding 7 comes after what follows it.
        let mut wire: Vec<RtpPacket> = Vec::new();
        let mut sequence = 0;
        for (index, packet) in media.iter().enumerate() {
            if index == 3 || index == 6 {
                wire.push(padding(packet, sequence));
                sequence += 1;
            }
            wire.push(RtpPacket { sequence, ..packet.clone() });
            sequence += 1;
        }
        wire.swap(7, 8);
        let sent: Vec<Option<RtpPacket>> = wire.iter().map(|packet| rewriter.forward(1, packet, now)).collect();
        let numbers: Vec<Option<u16>> =
            sent.iter().map(|packet| packet.as_ref().map(|packet| packet.sequence.wrapping_sub(65_530))).collect();
        assert_eq!(
            numbers,
            [Some(0), Some(1), Some(2), None, Some(3), Some(4), Some(5), Some(7), Some(6), Some(8), Some(9)]
        );
        for (packet, out) in wire.iter().zip(&sent) {
            if let Some(out) = out {
                assert_eq!(rewriter.source_of(out.sequence).unwrap().sequence, packet.sequence);
            }
        }
    }

    #[test]
    fn a_key_frame_packet_that_was_overtaken_can_still_be_had() {
        let now = Instant::now();
        let mut rewriter = rewriter();
        let media = source(1, Start { sequence: 500, picture_id: 0 }, 0, 1);
        // The second packet of the key frame comes first and is refused; the receiver then asks for it.
        assert_eq!(rewriter.forward(1, &media[1], now), None);
        assert!(rewriter.forward(1, &media[0], now).is_some());
        let third = rewriter.forward(1, &media[2], now).unwrap();
        let missing = third.sequence.wrapping_sub(1);
        assert_eq!(rewriter.source_of(missing), Some(SourceRef { source: 1, sequence: 501 }));
        assert_eq!(rewriter.resend(missing, &media[1]).unwrap().sequence, missing);
    }

    #[test]
    fn a_pause_leaves_no_gap() {
        let now = Instant::now();
        let mut rewriter = rewriter();
        let before = source(1, Start { sequence: 0, picture_id: 0 }, 0, 2);
        let after = source(1, Start { sequence: 900, picture_id: 300 }, 9_000_000, 2);
        let last = before.iter().filter_map(|packet| rewriter.forward(1, packet, now)).last().unwrap();
        rewriter.restart();
        let next = rewriter.forward(1, &after[0], now + MS * 100).unwrap();
        assert_eq!(next.sequence, last.sequence.wrapping_add(1));
    }

    #[test]
    fn audio_begins_with_any_packet() {
        let now = Instant::now();
        let mut rewriter = Rewriter::new(StreamKind::Audio { clock_hz: 48_000 }, 9, 111, Start::default());
        let packet = RtpPacket {
            payload_type: 96,
            marker: false,
            sequence: 7,
            timestamp: 5,
            ssrc: 3,
            payload: Bytes::from_static(b"opus"),
        };
        assert!(!rewriter.needs_key_frame());
        let out = rewriter.forward(1, &packet, now).unwrap();
        assert_eq!((out.sequence, out.timestamp, out.ssrc), (0, 5, 9));
        rewriter.select(2);
        let out = rewriter.forward(2, &packet, now + MS * 40).unwrap();
        assert_eq!((out.sequence, out.timestamp), (1, 5 + 1_920));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is lost, padded or overtaken: numbers are unique, ordered as the source's, without gaps where
        /// nothing was lost, and every one leads back to its packet.
        #[test]
        fn the_map_is_exact_both_ways(first: u16, steps in prop::collection::vec((0u8..10, 0u8..4), 1..900)) {
            let now = Instant::now();
            let mut rewriter = rewriter();
            let mut wire = source(1, Start { sequence: first, picture_id: 0 }, 0, 1)[..1].to_vec();
            let (mut sequence, mut lost) = (first, Vec::new());
            for (what, _) in &steps {
                sequence = sequence.wrapping_add(1);
                let packet = RtpPacket { sequence, payload: Bytes::from_static(&[1, 1]), ..wire[0].clone() };
                match what {
                    0 => lost.push(packet),
                    1 | 2 => wire.push(padding(&packet, sequence)),
                    _ => wire.push(packet),
                }
            }
            // Overtaking by one place.
            for (index, (_, swap)) in steps.iter().enumerate() {
                if *swap == 0 && index > 1 && index + 1 < wire.len() {
                    wire.swap(index, index + 1);
                }
            }
            let mut numbers = std::collections::BTreeMap::new();
            for packet in &wire {
                if let Some(out) = rewriter.forward(1, packet, now) {
                    let back = rewriter.source_of(out.sequence).unwrap();
                    prop_assert_eq!(back.sequence, packet.sequence);
                    prop_assert_eq!(rewriter.resend(out.sequence, packet).unwrap(), out.clone());
                    let steps_in = packet.sequence.wrapping_sub(first);
                    prop_assert!(numbers.insert(out.sequence.wrapping_sub(65_530), steps_in).is_none());
                }
            }
            let sources: Vec<u16> = numbers.values().copied().collect();
            prop_assert!(sources.is_sorted());
            let highest = usize::from(*numbers.keys().last().unwrap());
            let lost_before = lost.iter().filter(|p| p.sequence.wrapping_sub(first) < *sources.last().unwrap()).count();
            prop_assert_eq!(highest + 1, numbers.len() + lost_before);
        }
    }
}
