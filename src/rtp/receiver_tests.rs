//! Loss, reordering, duplication and wraps against the receiver, seeded.

use bytes::BytesMut;
use proptest::prelude::*;

use super::super::h264::START_CODE;
use super::super::packetise::{Start, VideoPacketizer};
use super::*;

const MS: Duration = Duration::from_millis(1);

/// A small deterministic generator (xorshift), so that a failing seed is a failing test.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// A sender of 30 frames per second that keeps what it sent and answers requests.
struct Sender {
    codec: VideoCodec,
    packetizer: VideoPacketizer,
    sent: Vec<RtpPacket>,
    timestamp: u32,
    frames: u32,
    key_frame_wanted: bool,
}

impl Sender {
    fn new(codec: VideoCodec, start: Start, timestamp: u32) -> Self {
        Self {
            codec,
            packetizer: VideoPacketizer::new(codec, 7, 96, start),
            sent: Vec::new(),
            timestamp,
            frames: 0,
            key_frame_wanted: true,
        }
    }

    fn frame(&mut self, now: Instant) -> Vec<RtpPacket> {
        let key_frame = std::mem::take(&mut self.key_frame_wanted);
        let size = if key_frame { 20_000 } else { 3_000 };
        // The number of the frame is written all over it, so that a mixed frame shows.
        let mark = 16 + (self.frames % 200) as u8;
        let data: Bytes = match self.codec {
            VideoCodec::Vp8 => {
                let mut data = vec![mark; size];
                data[0] = u8::from(!key_frame);
                if key_frame {
                    data[3..10].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
                }
                data.into()
            }
            VideoCodec::H264 => {
                let mut data = BytesMut::new();
                let mut nal = |kind: u8, size: usize| {
                    data.extend_from_slice(&START_CODE);
                    data.extend_from_slice(&[kind]);
                    data.extend_from_slice(&vec![mark; size]);
                };
                if key_frame {
                    nal(0x67, 10);
                    nal(0x68, 4);
                    nal(0x65, size);
                } else {
                    nal(0x41, size);
                }
                data.freeze()
            }
        };
        let frame = EncodedFrame {
            codec: self.codec,
            data,
            rtp_timestamp: self.timestamp.wrapping_add(self.frames * 3_000),
            key_frame,
            size: None,
            at: now,
        };
        self.frames += 1;
        let mut packets = Vec::new();
        self.packetizer.packetize(&frame, &mut packets);
        self.sent.extend(packets.iter().cloned());
        packets
    }

    fn again(&self, sequence: u16) -> Option<RtpPacket> {
        self.sent.iter().rev().find(|packet| packet.sequence == sequence).cloned()
    }
}

/// What a run gave.
struct Run {
    frames: Vec<EncodedFrame>,
    stats: ReceiverStats,
    sent: u32,
}

/// Network of a run, per cent and milliseconds.
#[derive(Debug, Clone, Copy)]
struct Net {
    loss: u64,
    duplicates: u64,
    jitter_ms: u64,
    delay_ms: u64,
    /// Whether the other side answers key frame requests.
    key_frames: bool,
    /// Everything is lost in this span.
    outage_ms: (u64, u64),
}

const CLEAN: Net = Net { loss: 0, duplicates: 0, jitter_ms: 0, delay_ms: 20, key_frames: true, outage_ms: (0, 0) };

/// Seconds of a stream over a network with losses in both directions.
fn run(config: ReceiverConfig, net: Net, start: Start, timestamp: u32, seconds: u64, seed: u64) -> Run {
    let origin = Instant::now();
    let mut random = Random::new(seed);
    let mut sender = Sender::new(config.codec, start, timestamp);
    let mut receiver = VideoReceiver::new(config);
    receiver.set_rtt(MS * 2 * net.delay_ms as u32);
    let mut down: Vec<(u64, RtpPacket)> = Vec::new();
    let mut up: Vec<(u64, Feedback)> = Vec::new();
    let mut frames = Vec::new();
    for ms in 0..seconds * 1000 {
        let now = origin + MS * ms as u32;
        let out = (net.outage_ms.0..net.outage_ms.1).contains(&ms);
        let mut leaving = Vec::new();
        // The last half second is silent, so that repairs can end.
        if ms % 33 == 0 && ms + 500 < seconds * 1000 {
            leaving = sender.frame(now);
        }
        for (_, feedback) in up.extract_if(.., |(at, _)| *at <= ms) {
            sender.key_frame_wanted |= feedback.pli && net.key_frames;
            leaving.extend(feedback.nacks.iter().filter_map(|sequence| sender.again(*sequence)));
        }
        for packet in leaving {
            if random.percent(net.loss) || out {
                continue;
            }
            for _ in 0..1 + u64::from(random.percent(net.duplicates)) {
                let late = if net.jitter_ms > 0 { random.next() % net.jitter_ms } else { 0 };
                down.push((ms + net.delay_ms + late, packet.clone()));
            }
        }
        for (_, packet) in down.extract_if(.., |(at, _)| *at <= ms) {
            receiver.push(packet, now);
        }
        if receiver.poll_timeout().is_some_and(|at| at <= now) {
            let feedback = receiver.poll_feedback(now);
            if (feedback.pli || !feedback.nacks.is_empty()) && !random.percent(net.loss) && !out {
                up.push((ms + net.delay_ms, feedback));
            }
        }
        while let Some(frame) = receiver.poll_frame() {
            frames.push(frame);
        }
    }
    Run { frames, stats: receiver.stats(), sent: sender.frames }
}

/// Every frame whole and in order, and decodable: after a skip comes a key frame.
fn check(run: &Run, timestamp: u32) {
    let mut last: Option<u32> = None;
    for frame in &run.frames {
        let number = frame.rtp_timestamp.wrapping_sub(timestamp) / 3_000;
        let mark = 16 + (number % 200) as u8;
        let body = match frame.codec {
            VideoCodec::Vp8 => frame.data.get(10..).unwrap(),
            VideoCodec::H264 => frame.data.get(frame.data.len() - 2_000..).unwrap(),
        };
        assert!(body.iter().all(|byte| *byte == mark), "frame {number} is mixed");
        match last {
            Some(last) if number != last + 1 => assert!(frame.key_frame && number > last, "{last} -> {number}"),
            None => assert!(frame.key_frame),
            _ => {}
        }
        last = Some(number);
    }
    assert_eq!(run.stats.frames, run.frames.len() as u64);
}

#[test]
fn a_clean_stream_comes_through_at_once_across_both_wraps() {
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let start = Start { sequence: 65_500, picture_id: 0x7ff0 };
        let timestamp = u32::MAX - 50_000;
        let run = run(ReceiverConfig::standard(codec), CLEAN, start, timestamp, 5, 1);
        check(&run, timestamp);
        assert_eq!(run.frames.len(), run.sent as usize);
        assert_eq!((run.stats.packets_lost, run.stats.nacks, run.stats.plis), (0, 0, 0));
        assert_eq!((run.stats.freezes, run.stats.key_frames), (0, 1));
        assert!(run.stats.jitter_ms < 1.0);
        if codec == VideoCodec::Vp8 {
            assert_eq!(run.frames[0].size, Some((640, 480)));
        }
    }
}

#[test]
fn losses_are_repaired() {
    for (loss, seed) in [(5, 1), (5, 2), (10, 3), (10, 4)] {
        let net = Net { loss, duplicates: 3, jitter_ms: 8, ..CLEAN };
        let run = run(ReceiverConfig::standard(VideoCodec::Vp8), net, Start::default(), 0, 20, seed);
        check(&run, 0);
        let stats = run.stats;
        assert!(stats.packets_lost > 50 && stats.duplicates > 20, "{stats:?}");
        assert!(stats.packets_recovered * 100 >= stats.packets_lost * 97, "{stats:?}");
        assert!(run.frames.len() as u32 + 10 >= run.sent, "{} of {}: {stats:?}", run.frames.len(), run.sent);
        assert!(stats.plis <= 2, "{stats:?}");
        assert!(stats.nacks < stats.packets_lost * 3, "{stats:?}");
    }
}

#[test]
fn overtaking_alone_costs_nothing() {
    let net = Net { jitter_ms: 9, ..CLEAN };
    let run = run(ReceiverConfig::standard(VideoCodec::H264), net, Start::default(), 0, 10, 9);
    check(&run, 0);
    assert_eq!(run.frames.len(), run.sent as usize);
    assert_eq!((run.stats.packets_lost, run.stats.nacks, run.stats.plis), (0, 0, 0));
}

#[test]
fn without_nack_a_key_frame_is_asked_for_and_nothing_broken_comes_out() {
    let config = ReceiverConfig { nack: None, ..ReceiverConfig::standard(VideoCodec::Vp8) };
    let net = Net { loss: 2, ..CLEAN };
    let run = run(config, net, Start::default(), 0, 20, 5);
    check(&run, 0);
    assert!(run.stats.plis > 3 && run.stats.key_frames > 3, "{:?}", run.stats);
    // Rate limit: one request in half a second.
    assert!(run.stats.plis <= 40, "{:?}", run.stats);
    assert_eq!(run.stats.nacks, 0);
}

#[test]
fn an_outage_of_three_seconds_is_repaired_from_kurento_without_a_key_frame() {
    let net = Net { key_frames: false, outage_ms: (2_000, 5_000), ..CLEAN };
    let run = run(ReceiverConfig::kurento(VideoCodec::Vp8), net, Start::default(), 0, 10, 6);
    // The one key frame was asked for at the beginning.
    check(&run, 0);
    assert_eq!(run.stats.key_frames, 1);
    assert_eq!(run.frames.len(), run.sent as usize, "{:?}", run.stats);
    assert_eq!(run.stats.packets_recovered, run.stats.packets_lost);
    assert!(run.stats.freezes == 1 && run.stats.freeze_ms >= 2_900, "{:?}", run.stats);
}

#[test]
fn an_outage_ends_with_a_key_frame_where_the_sender_gives_one() {
    let net = Net { outage_ms: (2_000, 6_000), ..CLEAN };
    // So long that the repairs are given up.
    let mut config = ReceiverConfig::standard(VideoCodec::H264);
    config.nack = Some(NackConfig { max_gap: 100, ..NackConfig::default() });
    let run = run(config, net, Start::default(), 0, 10, 7);
    check(&run, 0);
    assert!(run.stats.key_frames >= 2 && run.stats.plis >= 1, "{:?}", run.stats);
    let last = run.frames.last().unwrap();
    assert_eq!(last.rtp_timestamp / 3_000 + 1, run.sent, "the stream goes on to its end");
}

#[test]
fn a_stream_without_key_frame_is_not_shown_and_asks_again_and_again() {
    let origin = Instant::now();
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    sender.key_frame_wanted = false;
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    assert_eq!(receiver.poll_timeout(), None);
    let mut asked = Vec::new();
    for ms in 0..3_000u32 {
        let now = origin + MS * ms;
        if ms % 33 == 0 {
            for packet in sender.frame(now) {
                receiver.push(packet, now);
            }
        }
        if receiver.poll_feedback(now).pli {
            asked.push(ms);
        }
        assert!(receiver.poll_frame().is_none());
    }
    assert!(receiver.needs_key_frame());
    assert_eq!(receiver.waiting_since(), Some(origin));
    assert_eq!(asked, [100, 600, 1_100, 1_600, 2_100, 2_600]);
    // As soon as one comes, it is shown.
    sender.key_frame_wanted = true;
    let now = origin + MS * 3_000;
    for packet in sender.frame(now) {
        receiver.push(packet, now);
    }
    assert!(receiver.poll_frame().is_some_and(|frame| frame.key_frame));
    assert!(!receiver.needs_key_frame());
    assert_eq!((receiver.waiting_since(), receiver.poll_timeout()), (None, None));
}

#[test]
fn a_key_frame_behind_an_overdue_gap_is_shown_as_soon_as_it_is_there() {
    let start = Instant::now();
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    for packet in sender.frame(start) {
        receiver.push(packet, start);
    }
    assert!(receiver.poll_frame().is_some());
    // A packet is lost for good; what comes behind it waits.
    let mut lost = sender.frame(start);
    lost.remove(1);
    for packet in lost.into_iter().chain(sender.frame(start)) {
        receiver.push(packet, start + 33 * MS);
    }
    assert!(receiver.poll_frame().is_none());
    // Before the wait is over, even a key frame does not end it: the repair may still come.
    sender.key_frame_wanted = true;
    for packet in sender.frame(start) {
        receiver.push(packet, start + 60 * MS);
    }
    assert!(receiver.poll_frame().is_none());
    let late = start + 500 * MS;
    assert!(receiver.poll_feedback(start + 450 * MS).pli || receiver.poll_frame().is_some());
    sender.key_frame_wanted = true;
    for packet in sender.frame(late) {
        receiver.push(packet, late);
    }
    let shown: Vec<EncodedFrame> = std::iter::from_fn(|| receiver.poll_frame()).collect();
    assert!(shown.iter().all(|frame| frame.key_frame) && !shown.is_empty(), "{shown:?}");
    assert_eq!(shown.last().map(|frame| frame.rtp_timestamp), Some(4 * 3_000));
}

#[test]
fn padding_and_missing_markers_do_no_harm() {
    let now = Instant::now();
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    let mut sequence = 65_530u16;
    let mut handed = 0;
    for _ in 0..20 {
        for packet in sender.frame(now) {
            let packet = RtpPacket { sequence, marker: false, ..packet };
            receiver.push(packet.clone(), now);
            receiver.push(packet.clone(), now);
            sequence = sequence.wrapping_add(1);
        }
        receiver.push(RtpPacket { sequence, payload: Bytes::new(), marker: false, ..sender.sent[0].clone() }, now);
        sequence = sequence.wrapping_add(1);
        while let Some(frame) = receiver.poll_frame() {
            assert_eq!(frame.key_frame, handed == 0);
            handed += 1;
        }
    }
    // The last frame is only known to be over when the next begins.
    assert_eq!(handed, 19);
    let stats = receiver.stats();
    assert_eq!((stats.padding, stats.packets_lost), (20, 0));
    assert!(stats.duplicates > 40);
}

#[test]
fn a_new_source_begins_with_a_key_frame_and_counters_go_on() {
    let now = Instant::now();
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    for packet in sender.frame(now) {
        receiver.push(packet, now);
    }
    assert!(receiver.poll_frame().is_some());
    for key_frame in [false, true] {
        sender.key_frame_wanted = key_frame;
        for packet in sender.frame(now) {
            receiver.push(RtpPacket { ssrc: 99, ..packet }, now);
        }
        assert_eq!(receiver.poll_frame().is_some(), key_frame);
    }
    assert_eq!(receiver.stats().frames, 2);
    receiver.decoder_lost(now);
    assert!(receiver.needs_key_frame());
    for packet in sender.frame(now) {
        receiver.push(RtpPacket { ssrc: 99, ..packet }, now);
    }
    assert!(receiver.poll_frame().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn only_whole_frames_in_order_come_out(
        seed: u64, sequence: u16, timestamp: u32, h264: bool, patient: bool,
        loss in 0u64..25, duplicates in 0u64..20, jitter_ms in 0u64..80, delay_ms in 0u64..150,
    ) {
        let codec = if h264 { VideoCodec::H264 } else { VideoCodec::Vp8 };
        let config = if patient { ReceiverConfig::kurento(codec) } else { ReceiverConfig::standard(codec) };
        let net = Net { loss, duplicates, jitter_ms, delay_ms, ..CLEAN };
        let run = run(config, net, Start { sequence, picture_id: 0 }, timestamp, 6, seed);
        check(&run, timestamp);
        // Repair keeps most of the stream alive wherever it can.
        if loss <= 10 && delay_ms <= 50 {
            prop_assert!(run.frames.len() * 10 >= run.sent as usize * 7, "{} of {}: {:?}", run.frames.len(), run.sent, run.stats);
        }
    }

    #[test]
    fn any_packets_leave_it_standing(packets in prop::collection::vec((any::<u16>(), 0u32..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..12)), 0..300), h264: bool) {
        let origin = Instant::now();
        let codec = if h264 { VideoCodec::H264 } else { VideoCodec::Vp8 };
        let mut receiver = VideoReceiver::new(ReceiverConfig { max_packets: 64, ..ReceiverConfig::standard(codec) });
        for (step, (sequence, timestamp, marker, payload)) in packets.into_iter().enumerate() {
            let now = origin + MS * (step as u32 * 7);
            receiver.push(RtpPacket { payload_type: 96, marker, sequence, timestamp, ssrc: 1, payload: payload.into() }, now);
            let _ = receiver.poll_feedback(now);
            while receiver.poll_frame().is_some() {}
            prop_assert!(receiver.slots.len() <= 66);
        }
    }
}

/// What is fed to a receiver that knows nothing of the sender, one packet a millisecond.
fn feed(
    receiver: &mut VideoReceiver,
    origin: Instant,
    packets: impl IntoIterator<Item = RtpPacket>,
) -> Vec<EncodedFrame> {
    let mut frames = Vec::new();
    for (ms, packet) in packets.into_iter().enumerate() {
        let now = origin + MS * ms as u32;
        receiver.push(packet, now);
        receiver.poll_feedback(now);
        frames.extend(std::iter::from_fn(|| receiver.poll_frame()));
    }
    frames
}

fn packets_of(sender: &mut Sender, frames: usize, now: Instant) -> Vec<RtpPacket> {
    (0..frames).flat_map(|_| sender.frame(now)).collect()
}

#[test]
fn a_jump_of_the_sequence_begins_anew_with_a_key_frame() {
    for jump in [30_000u16, 40_000] {
        let origin = Instant::now();
        let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
        let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
        let mut packets = packets_of(&mut sender, 20, origin);
        let jumped = packets.len();
        packets.extend(packets_of(&mut sender, 20, origin));
        sender.key_frame_wanted = true;
        packets.extend(packets_of(&mut sender, 20, origin));
        packets[jumped..].iter_mut().for_each(|packet| packet.sequence = packet.sequence.wrapping_add(jump));
        let frames = feed(&mut receiver, origin, packets);
        // Those before the jump, and from the key frame on; what lies between refers to what may be missing.
        assert_eq!(frames.len(), 40, "{jump}");
        assert!(frames[20].key_frame);
        assert!(receiver.stats().nacks < 50, "nobody asks for thirty thousand packets: {:?}", receiver.stats());
    }
}

#[test]
fn jumps_of_the_timestamp_by_hours_lose_no_frame() {
    let origin = Instant::now();
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 7);
    let mut packets = packets_of(&mut sender, 60, origin);
    for packet in &mut packets {
        let frame = packet.timestamp / 3_000;
        packet.timestamp = packet.timestamp.wrapping_add(frame / 20 * 3 * 3_600 * 90_000);
    }
    let frames = feed(&mut receiver, origin, packets);
    assert_eq!((frames.len(), receiver.stats().frames_dropped), (60, 0));
    assert!(receiver.stats().jitter_ms < 1_000.0, "{:?}", receiver.stats());
}

#[test]
fn a_source_that_changes_with_every_frame_stays_bounded() {
    let origin = Instant::now();
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    let mut packets = Vec::new();
    for ssrc in 1..200u32 {
        // Every other one begins with a key frame.
        sender.key_frame_wanted = ssrc % 2 == 0;
        packets.extend(sender.frame(origin).into_iter().map(|packet| RtpPacket { ssrc, ..packet }));
    }
    let frames = feed(&mut receiver, origin, packets);
    assert!(frames.iter().all(|frame| frame.key_frame) && frames.len() == 99, "{}", frames.len());
    assert!(receiver.slots.len() < 100);
}

#[test]
fn a_thousand_packets_in_one_millisecond_and_empty_ones_are_taken() {
    let origin = Instant::now();
    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let mut sender = Sender::new(VideoCodec::Vp8, Start::default(), 0);
    let packets = packets_of(&mut sender, 330, origin);
    assert!(packets.len() > 1_000);
    let mut frames = 0;
    for (number, packet) in packets.into_iter().enumerate() {
        receiver.push(packet, origin + MS * (number / 1_000) as u32);
        if number % 64 == 0 {
            frames += std::iter::from_fn(|| receiver.poll_frame()).count();
        }
    }
    frames += std::iter::from_fn(|| receiver.poll_frame()).count();
    assert_eq!((frames, receiver.stats().nacks), (330, 0));
    // Nothing but empty packets, at the same rate, for ten times the memory.
    let last = receiver.tracker.highest().unwrap() as u16;
    for number in 0..20_000u16 {
        receiver.push(
            RtpPacket {
                payload_type: 96,
                marker: number % 3 == 0,
                sequence: last.wrapping_add(number + 1),
                timestamp: u32::from(number / 7),
                ssrc: 7,
                payload: Bytes::new(),
            },
            origin + MS * (2 + u32::from(number) / 1_000),
        );
    }
    assert!(receiver.poll_frame().is_none());
    assert!(receiver.slots.len() <= 4_096, "{}", receiver.slots.len());
    sender.key_frame_wanted = true;
    let mut next = packets_of(&mut sender, 1, origin);
    let first = next[0].sequence;
    for packet in &mut next {
        packet.sequence = last.wrapping_add(20_001).wrapping_add(packet.sequence.wrapping_sub(first));
        receiver.push(packet.clone(), origin + MS * 40);
    }
    assert!(receiver.poll_frame().is_some_and(|frame| frame.key_frame), "it goes on");
}
