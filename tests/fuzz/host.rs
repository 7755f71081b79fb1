//! What the forwarder reads bytes with. These files belong to it alone, so they are compiled here beside their bodies.
// The bodies of the other rooms have the same helper, in another crate when they are fuzzed.
#![allow(dead_code, clippy::duplicate_mod)]

#[path = "bits.rs"]
mod bits;
#[path = "../../src/host/sfu/demux.rs"]
mod demux;
#[path = "../../src/host/sfu/packet.rs"]
mod packet;
#[path = "../../src/host/sfu/rtcp.rs"]
mod rtcp;
#[path = "../../src/host/sfu/sequence.rs"]
mod sequence;
#[path = "../../src/host/sfu/twcc.rs"]
mod twcc;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use crate::rtp::frame::VideoCodec;
use crate::rtp::seq::Unwrapper;
use bits::Bits;
use demux::{Demux, request_ufrag, stun_head, uses_candidate};
use packet::{Kind, RtpView, Vp8Descriptor, classify, starts_key_frame};
use rtcp::{Item, Writer, nack_numbers};
use sequence::Sequence;
use twcc::TwccRecorder;

/// What a target does with an input; it panics at a fault.
type Body = fn(&[u8]);
/// The targets here, by the names of their corpora.
pub const TARGETS: [(&str, Body); 4] =
    [("host_datagram", datagram), ("host_rtcp", control), ("host_twcc", feedback), ("host_numbers", numbers)];

/// A datagram before and after decryption: telling kinds apart, finding the leg, header, extensions, payload.
pub fn datagram(data: &[u8]) {
    let kind = classify(data);
    let mut demux = Demux::default();
    demux.add("abcdefgh", 3);
    let from = SocketAddr::from(([127, 0, 0, 1], 9));
    if let Some(leg) = demux.by_username(data) {
        assert_eq!((kind, leg), (Some(Kind::Stun), 3), "only a check names a leg");
        demux.bind(from, leg);
    }
    assert_eq!(demux.bound_to(from).is_some(), request_ufrag(data) == Some(&b"abcdefgh"[..]));
    if let Some((_, transaction)) = stun_head(data) {
        assert_eq!((kind, transaction.len()), (Some(Kind::Stun), 12));
    }
    let _ = uses_candidate(data);
    let Some(view) = RtpView::parse(data) else { return };
    assert!(view.payload.len() + 12 <= data.len());
    for id in 0..=255 {
        assert!(view.extension(id).is_none_or(|value| value.len() <= 255));
    }
    // What the stack reads of the same bytes is the same.
    let mut bytes = bytes::Bytes::copy_from_slice(data);
    if let Ok(other) = <rtc::rtp::Packet as rtc::shared::marshal::Unmarshal>::unmarshal(&mut bytes) {
        let header = &other.header;
        assert_eq!(
            (view.marker, view.payload_type, view.sequence, view.timestamp, view.ssrc),
            (header.marker, header.payload_type, header.sequence_number, header.timestamp, header.ssrc)
        );
        // Its extensions may reach into the payload.
        assert!(header.extension || view.payload == &other.payload[..], "another payload");
    }
    let _ = starts_key_frame(VideoCodec::H264, view.payload);
    let key = starts_key_frame(VideoCodec::Vp8, view.payload);
    let Some(descriptor) = Vp8Descriptor::parse(view.payload) else {
        assert!(!key, "a key frame without a descriptor");
        return;
    };
    assert!(descriptor.length <= view.payload.len());
    let mut payload = view.payload.to_vec();
    descriptor.renumber(&mut payload, 0x1234, 0x56);
    let moved = Vp8Descriptor::parse(&payload).expect("it stays a descriptor");
    assert_eq!(
        (moved.length, moved.start, moved.partition),
        (descriptor.length, descriptor.start, descriptor.partition)
    );
    assert_eq!(payload[descriptor.length..], view.payload[descriptor.length..], "the picture is as it was");
    let shifted = |(at, long, picture): (usize, bool, u16)| {
        (at, long, picture.wrapping_add(0x1234) & if long { 0x7fff } else { 0x7f })
    };
    assert_eq!(descriptor.picture_id.map(shifted), moved.picture_id);
    assert_eq!(descriptor.tl0.map(|(at, tl0)| (at, tl0.wrapping_add(0x56))), moved.tl0);
}

/// Compound RTCP of any content, and what is written for what was read.
pub fn control(data: &[u8]) {
    let mut items = 0;
    let mut writer = Writer::default();
    rtcp::parse(data, |item| {
        items += 1;
        match item {
            Item::SenderReport { ssrc, ntp, rtp } => writer.sender_report(ssrc, ntp, rtp, 0, 0),
            Item::Report(block) => writer.receiver_report(1, &[block]),
            Item::Nack { media_ssrc, pairs } => {
                let all: Vec<u16> = nack_numbers(pairs, usize::MAX).collect();
                assert!(all.len() <= pairs.len() / 4 * 17);
                assert!(nack_numbers(pairs, 100).eq(all.iter().copied().take(100)));
                let mut numbers = all;
                numbers.sort_unstable();
                numbers.dedup();
                let mut own = Writer::default();
                own.nack(1, media_ssrc, &numbers);
                let mut read = Vec::new();
                rtcp::parse(own.bytes(), |item| {
                    if let Item::Nack { pairs, .. } = item {
                        read.extend(nack_numbers(pairs, usize::MAX));
                    }
                });
                assert_eq!(read, numbers, "a request changes by being written");
            }
            Item::KeyFrameRequest { media_ssrc } => writer.picture_loss(1, media_ssrc),
            Item::Remb { bitrate_bps } => writer.remb(1, bitrate_bps, &[2]),
            Item::TransportFeedback { body } => feedback(body),
            Item::Bye => {}
        }
    });
    assert!(items <= data.len() / 4, "more items than words");
    let mut again = 0;
    rtcp::parse(writer.bytes(), |_| again += 1);
    assert!(again <= items);
    let mut bytes = bytes::Bytes::copy_from_slice(writer.bytes());
    assert!(writer.bytes().is_empty() || rtc::rtcp::packet::unmarshal(&mut bytes).is_ok(), "the stack reads it too");
}

/// Transport-wide feedback of any content, and of any arrivals.
pub fn feedback(data: &[u8]) {
    let mut read = Vec::new();
    twcc::read(data, &mut read);
    assert!(read.len() <= 2_048, "{}", read.len());
    let mut bits = Bits(data);
    let mut recorder = TwccRecorder::default();
    let (mut number, mut at_us) = (bits.u16(), 1_000_000u64);
    let mut noted = BTreeMap::new();
    while !bits.is_empty() {
        let step = bits.u8();
        match step >> 6 {
            0 => number = number.wrapping_add(u16::from(step)),
            1 => number = number.wrapping_sub(u16::from(step & 0x3f)),
            2 => at_us += u64::from(step & 0x3f) * 1_000,
            _ => at_us += u64::from(bits.u16()) * 250,
        }
        number = number.wrapping_add(1);
        recorder.record(number, at_us);
        noted.entry(number).or_insert_with(HashSet::new).insert(at_us / 250);
    }
    let mut body = Vec::new();
    let mut rounds = 0;
    while recorder.take(&mut body) {
        rounds += 1;
        assert!(rounds <= 4_096, "it never has told everything");
        twcc::read(&body, &mut read);
        assert!(!read.is_empty(), "feedback about nothing");
        // The time in a message counts from its own reference; of a short life it is the time itself.
        for (number, at) in read.iter().filter_map(|(number, at)| Some((*number, (*at)?))) {
            assert!(
                noted.get(&number).is_some_and(|times| times.contains(&(at / 250))),
                "{number} never arrived at {at}"
            );
        }
    }
}

/// Numbers of a source in any order: what is passed on has one number each, whatever closes up.
pub fn numbers(data: &[u8]) {
    let mut bits = Bits(data);
    let mut sequence = Sequence::new(90_000, bits.u16());
    let mut unwrapper = Unwrapper::default();
    let (mut number, mut now_us, mut source) = (bits.u16(), 0u64, 0u32);
    let mut given: BTreeMap<u64, (u32, u64)> = BTreeMap::new();
    while !bits.is_empty() {
        let step = bits.u8();
        match step >> 5 {
            0 => number = number.wrapping_add(bits.u16()),
            1 => number = number.wrapping_sub(u16::from(step & 0x1f)),
            2 if step & 0x1f == 9 => {
                sequence.new_source();
                unwrapper = Unwrapper::default();
                source += 1;
            }
            2 => now_us += u64::from(step & 0x1f) * 1_000,
            3 => {
                let _ = sequence.skip(unwrapper.unwrap(number));
                number = number.wrapping_add(1);
            }
            _ => {
                let input = unwrapper.unwrap(number);
                if let Some((output, _)) = sequence.map(input, u32::from(number) * 90, now_us) {
                    let owner = given.entry(output).or_insert((source, input));
                    assert_eq!(*owner, (source, input), "{output} is given twice");
                }
                number = number.wrapping_add(1);
            }
        }
    }
}
