//! The interceptors on crafted packets, alone and in a chain of the stack.

mod remb;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::interceptor::{
    Attribute, AttributedPacket, Interceptor, NackResponderBuilder, Packet, RTCPFeedback, RTPHeaderExtension, Registry,
    Slot, StreamInfo, TaggedPacket, TwccReceiverBuilder,
};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, RunLengthChunk, SymbolTypeTcc, TransportLayerCc,
};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;

use super::*;
use crate::rtp::congestion::Bounds;
use crate::rtp::packet::RtpPacket;
use crate::rtp::rtx::{RtxMap, wrap};

const MS: Duration = Duration::from_millis(1);
const VIDEO: u32 = 0x1122_3344;
const RTX: u32 = 0x5566_7788;

fn tagged(packet: Packet, now: Instant) -> TaggedPacket {
    TaggedPacket { now, transport: TransportContext::default(), message: AttributedPacket::new(packet) }
}

fn media(sequence: u16) -> RtpPacket {
    RtpPacket {
        payload_type: 96,
        marker: true,
        sequence,
        timestamp: 90,
        ssrc: VIDEO,
        payload: Bytes::copy_from_slice(&sequence.to_be_bytes()),
    }
}

fn rtp(packet: RtpPacket) -> Packet {
    Packet::Rtp(from_rtp(packet))
}

fn stream(ids: &[(&str, u16)]) -> StreamInfo {
    StreamInfo {
        ssrc: VIDEO,
        ssrc_rtx: Some(RTX),
        payload_type: 96,
        payload_type_rtx: Some(97),
        clock_rate: 90_000,
        mime_type: "video/VP8".to_owned(),
        rtcp_feedback: vec![RTCPFeedback { typ: "nack".to_owned(), parameter: String::new() }],
        rtp_header_extensions: ids
            .iter()
            .map(|(uri, id)| RTPHeaderExtension { uri: (*uri).to_owned(), id: *id })
            .collect(),
        ..StreamInfo::default()
    }
}

fn read_all(chain: &mut impl Interceptor) -> Vec<TaggedPacket> {
    std::iter::from_fn(|| chain.poll_read()).collect()
}

fn written(chain: &mut impl Interceptor) -> Vec<(rtc::rtp::Packet, bool)> {
    std::iter::from_fn(|| chain.poll_write())
        .filter_map(|message| {
            let repeat = message.message.has(&Attribute::Retransmission);
            match message.message.packet {
                Packet::Rtp(packet) => Some((packet, repeat)),
                _ => None,
            }
        })
        .collect()
}

fn rtcp_of(message: &TaggedPacket) -> &dyn rtc::rtcp::Packet {
    assert!(message.message.has(&Attribute::DeliverToApplication));
    match &message.message.packet {
        Packet::Rtcp(list) => {
            assert_eq!(list.len(), 1);
            list[0].as_ref()
        }
        _ => panic!("not RTCP"),
    }
}

/// The bytes that Kurento sends: an empty RR, SDES, FIR, REMB.
fn kurento_compound(fir_sequence: u8) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&[0x80, 201, 0, 1, 0, 0, 0, 9]);
    // SDES: one chunk, CNAME "user1@ho", end, padded to 32 bits.
    bytes.extend_from_slice(&[0x81, 202, 0, 4, 0, 0, 0, 9, 1, 8]);
    bytes.extend_from_slice(b"user1@ho");
    bytes.extend_from_slice(&[0, 0]);
    // FIR: media SSRC 0, the target in the entry.
    bytes.extend_from_slice(&[0x84, 206, 0, 4, 0, 0, 0, 9, 0, 0, 0, 0]);
    bytes.extend_from_slice(&VIDEO.to_be_bytes());
    bytes.extend_from_slice(&[fir_sequence, 0, 0, 0]);
    // REMB: 300 000 bit/s = 150 000 << 1, one SSRC.
    let mantissa = 150_000u32;
    bytes.extend_from_slice(&[0x8f, 206, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0]);
    bytes.extend_from_slice(b"REMB");
    bytes.extend_from_slice(&[1, (1 << 2) | (mantissa >> 16) as u8, (mantissa >> 8) as u8, mantissa as u8]);
    bytes.extend_from_slice(&VIDEO.to_be_bytes());
    bytes.freeze()
}

fn kurento(fir_sequence: u8, now: Instant) -> TaggedPacket {
    let compound = rtc::rtcp::packet::unmarshal(&mut kurento_compound(fir_sequence)).unwrap();
    assert_eq!(compound.len(), 4);
    tagged(Packet::Rtcp(compound), now)
}

#[test]
fn the_key_frame_request_of_kurento_reaches_the_application_once() {
    let now = Instant::now();
    let handle = WireHandle::new();
    let mut chain = receiving(&handle).build();
    chain.handle_read(kurento(3, now)).unwrap();
    let out = read_all(&mut chain);
    assert_eq!(out.len(), 2);
    // Each is routed by its own first SSRC: that of the stream it is about.
    let fir = rtcp_of(&out[0]);
    assert_eq!(fir.destination_ssrc(), [VIDEO]);
    assert_eq!(fir.as_any().downcast_ref::<FullIntraRequest>().unwrap().fir[0].sequence_number, 3);
    let remb = rtcp_of(&out[1]);
    assert_eq!(remb.destination_ssrc(), [VIDEO]);
    let bitrate = remb.as_any().downcast_ref::<ReceiverEstimatedMaximumBitrate>().unwrap().bitrate;
    assert!((bitrate - 300_000.0).abs() < 1.0, "{bitrate}");
    assert_eq!(handle.remb(), Some((300_000, now)));
    // Kurento repeats it until it is answered: the same number is the same request.
    chain.handle_read(kurento(3, now)).unwrap();
    let out = read_all(&mut chain);
    assert_eq!(out.len(), 1, "only the REMB");
    chain.handle_read(kurento(4, now)).unwrap();
    assert_eq!(read_all(&mut chain).len(), 2);
    let stats = handle.stats();
    assert_eq!((stats.key_frame_requests, stats.fir_repeats), (2, 1));
}

#[test]
fn reports_find_the_stream_they_are_about() {
    let now = Instant::now();
    let handle = WireHandle::new();
    let mut interceptor = RtcpToApp::new(handle);
    let block = |ssrc| ReceptionReport { ssrc, ..ReceptionReport::default() };
    let compound: Vec<Box<dyn rtc::rtcp::Packet>> = vec![
        Box::new(SenderReport {
            ssrc: 5,
            ntp_time: 77,
            rtp_time: 88,
            reports: vec![block(1), block(2)],
            ..SenderReport::default()
        }),
        Box::new(PictureLossIndication { sender_ssrc: 5, media_ssrc: 2 }),
        Box::new(TransportLayerNack {
            sender_ssrc: 5,
            media_ssrc: 1,
            nacks: vec![NackPair { packet_id: 9, lost_packets: 0 }],
        }),
    ];
    interceptor.handle_read(tagged(Packet::Rtcp(compound), now)).unwrap();
    let out = read_all(&mut interceptor);
    let about: Vec<Vec<u32>> = out.iter().map(|message| rtcp_of(message).destination_ssrc()).collect();
    assert_eq!(about, [vec![2], vec![1], vec![5], vec![1], vec![2]]);
    assert!(rtcp_of(&out[0]).as_any().is::<PictureLossIndication>());
    assert!(rtcp_of(&out[2]).as_any().is::<SenderReport>());
    assert!(rtcp_of(&out[4]).as_any().is::<ReceiverReport>());
    // What others attached goes on, media as well.
    let mut carrier = tagged(Packet::Rtcp(Vec::new()), now);
    carrier.message.add(Attribute::TargetBitrateChanged { bits_per_second: 1.0 });
    interceptor.handle_read(carrier).unwrap();
    interceptor.handle_read(tagged(rtp(media(1)), now)).unwrap();
    assert_eq!(read_all(&mut interceptor).len(), 2);
}

#[test]
fn retransmissions_become_their_originals_and_repeats_are_dropped() {
    let now = Instant::now();
    let handle = WireHandle::new();
    let mut map = RtxMap::default();
    map.add_payload_type(97, 96);
    map.add_ssrc(RTX, VIDEO);
    handle.add_rtx(map);
    let mut chain = receiving(&handle).build();
    let mut push = |packet: RtpPacket| {
        chain.handle_read(tagged(rtp(packet), now)).unwrap();
        read_all(&mut chain)
            .into_iter()
            .filter_map(|message| match message.message.packet {
                Packet::Rtp(packet) => Some(to_rtp(&packet)),
                _ => None,
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(push(media(65_535)), [media(65_535)]);
    assert_eq!(push(media(1)), [media(1)]);
    assert_eq!(push(wrap(&media(0), RTX, 97, 7_000)), [media(0)]);
    // The original comes after all, and the sender probes with old packets.
    assert_eq!(push(media(0)), []);
    assert_eq!(push(wrap(&media(65_535), RTX, 97, 7_001)), []);
    // Probes without content, and a repair stream that nobody named.
    assert_eq!(push(RtpPacket { payload: Bytes::new(), ..wrap(&media(0), RTX, 97, 7_002) }), []);
    assert_eq!(push(wrap(&media(2), 999, 97, 1)), []);
    let stats = handle.stats();
    assert_eq!((stats.rtx_received, stats.duplicates, stats.rtx_padding, stats.rtx_unknown), (2, 2, 1, 1));
    // A long stream never mistakes a new turn of the numbers for a repeat.
    let mut passed = 0;
    for number in 2..200_000u32 {
        passed += push(media(number as u16)).len();
    }
    assert_eq!(passed, 199_998);
}

#[test]
fn a_repaired_rid_names_the_stream_that_it_repairs() {
    let now = Instant::now();
    let handle = WireHandle::new();
    let mut interceptor = RtxUnwrap::new(handle);
    let mut info = stream(&[(RID_URI, 10), (RRID_URI, 11)]);
    // Chromium's offers with rids carry no SSRCs at all.
    info.ssrc_rtx = None;
    interceptor.bind_remote_stream(&info);
    let with = |packet: RtpPacket, id: u8| {
        let mut packet = from_rtp(packet);
        packet.header.set_extension(id, Bytes::from_static(b"h")).unwrap();
        tagged(Packet::Rtp(packet), now)
    };
    interceptor.handle_read(with(wrap(&media(4), RTX, 97, 1), 11)).unwrap();
    assert!(read_all(&mut interceptor).is_empty(), "the rid is not known yet");
    interceptor.handle_read(with(media(5), 10)).unwrap();
    interceptor.handle_read(with(wrap(&media(4), RTX, 97, 2), 11)).unwrap();
    interceptor.handle_read(tagged(rtp(wrap(&media(3), RTX, 97, 3)), now)).unwrap();
    let out: Vec<u16> = read_all(&mut interceptor)
        .iter()
        .filter_map(|message| match &message.message.packet {
            Packet::Rtp(packet) => Some(packet.header.sequence_number),
            _ => None,
        })
        .collect();
    assert_eq!(out, [5, 4, 3]);
}

#[test]
fn packets_are_stamped_and_a_same_ssrc_repeat_is_the_same_packet() {
    let start = Instant::now();
    let handle = WireHandle::new();
    handle.set_mid(VIDEO, "1");
    let mut chain = Registry::new()
        .with(Slot::NackResponder, NackResponderBuilder::new().with_size(64).build())
        .with(Slot::from(STAMP_SLOT), Stamp::new(StampConfig::default(), handle.clone()))
        .build();
    let mut info = stream(&[(TRANSPORT_CC_URI, 3), (ABS_SEND_TIME_URI, 2), (MID_URI, 4)]);
    info.ssrc_rtx = None;
    info.payload_type_rtx = None;
    chain.bind_local_stream(&info);
    for sequence in 0..3 {
        chain.handle_write(tagged(rtp(media(sequence)), start + 500 * MS * u32::from(sequence))).unwrap();
    }
    let sent = written(&mut chain);
    for (number, (packet, repeat)) in sent.iter().enumerate() {
        assert!(!repeat);
        assert_eq!(packet.header.get_extension(3).unwrap().as_ref(), (number as u16).to_be_bytes());
        assert_eq!(packet.header.get_extension(4).unwrap().as_ref(), b"1");
        // Half a second is 2^17 ticks of 2^-18 s.
        let time = packet.header.get_extension(2).unwrap();
        let ticks = u32::from_be_bytes([0, time[0], time[1], time[2]]);
        assert_eq!(ticks, number as u32 * (1 << 17));
    }
    // Somebody asks for number 1 again.
    let later = start + 2_000 * MS;
    let nack = TransportLayerNack {
        sender_ssrc: 1,
        media_ssrc: VIDEO,
        nacks: vec![NackPair { packet_id: 1, lost_packets: 0 }],
    };
    chain.handle_read(tagged(Packet::Rtcp(vec![Box::new(nack)]), later)).unwrap();
    let again = written(&mut chain);
    assert_eq!(again, [(sent[1].0.clone(), true)]);
    assert_eq!(handle.stats().retransmissions_sent, 1);
}

#[test]
fn rtx_repeats_get_numbers_of_their_own() {
    let now = Instant::now();
    let handle = WireHandle::new();
    let mut chain = sending(&handle, Some(Bounds { start_bps: 1e6, min_bps: 1e5, max_bps: 5e6 })).build();
    chain.bind_local_stream(&stream(&[(TRANSPORT_CC_URI, 3)]));
    for sequence in 0..3 {
        chain.handle_write(tagged(rtp(media(sequence)), now)).unwrap();
    }
    let nack = TransportLayerNack {
        sender_ssrc: 1,
        media_ssrc: VIDEO,
        nacks: vec![NackPair { packet_id: 0, lost_packets: 1 }],
    };
    let again = nack.clone();
    let _ = written(&mut chain);
    chain.handle_read(tagged(Packet::Rtcp(vec![Box::new(nack)]), now)).unwrap();
    let repeats = written(&mut chain);
    let numbers: Vec<(u32, u8, Vec<u8>)> = repeats
        .iter()
        .map(|(packet, _)| {
            (packet.header.ssrc, packet.header.payload_type, packet.header.get_extension(3).unwrap().to_vec())
        })
        .collect();
    assert_eq!(numbers, [(RTX, 97, vec![0, 3]), (RTX, 97, vec![0, 4])]);
    // The NACK reaches the application as well.
    let out = read_all(&mut chain);
    // Asked again at once: the repeats are still on their way.
    chain.handle_read(tagged(Packet::Rtcp(vec![Box::new(again)]), now + MS)).unwrap();
    assert!(written(&mut chain).is_empty());
    assert!(out.iter().any(|message| matches!(&message.message.packet, Packet::Rtcp(list) if list.iter().any(|p| p.as_any().is::<TransportLayerNack>()))));
}

#[test]
fn answers_are_sent_several_times_where_much_is_lost() {
    let start = Instant::now();
    for (every, copies) in [(600, 1), (30, 2), (8, 3)] {
        let handle = WireHandle::new();
        let mut chain = sending(&handle, Some(Bounds { start_bps: 2e6, min_bps: 1e5, max_bps: 5e6 })).build();
        chain.bind_local_stream(&stream(&[(TRANSPORT_CC_URI, 3)]));
        let ask = |chain: &mut dyn FnMut(TaggedPacket), sequence, now| {
            let nacks = vec![NackPair { packet_id: sequence, lost_packets: 0 }];
            let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: VIDEO, nacks };
            chain(tagged(Packet::Rtcp(vec![Box::new(nack)]), now));
        };
        let mut now = start;
        for sequence in 0..600 {
            now += 10 * MS;
            chain.handle_write(tagged(rtp(media(sequence)), now)).unwrap();
            if sequence == 0 {
                let small = SymbolTypeTcc::PacketReceivedSmallDelta;
                let run = RunLengthChunk { packet_status_symbol: small, run_length: 1, ..RunLengthChunk::default() };
                let feedback = TransportLayerCc {
                    packet_status_count: 1,
                    packet_chunks: vec![PacketStatusChunk::RunLengthChunk(run)],
                    recv_deltas: vec![RecvDelta { type_tcc_packet: small, delta: 0 }],
                    ..TransportLayerCc::default()
                };
                chain.handle_read(tagged(Packet::Rtcp(vec![Box::new(feedback)]), now)).unwrap();
            }
            if sequence % every == every - 1 {
                ask(&mut |nack| chain.handle_read(nack).unwrap(), sequence - 1, now);
            }
        }
        chain.handle_timeout(now + 100 * MS).unwrap();
        written(&mut chain);
        now += 200 * MS;
        ask(&mut |nack| chain.handle_read(nack).unwrap(), 599, now);
        assert_eq!(written(&mut chain).len(), 1, "the first at once");
        assert!(copies == 1 || chain.poll_timeout().unwrap() <= now + 15 * MS);
        chain.handle_timeout(now + 14 * MS).unwrap();
        assert_eq!(written(&mut chain).len(), 0, "no copy in the same run of losses");
        chain.handle_timeout(now + 50 * MS).unwrap();
        let again = written(&mut chain);
        assert_eq!(again.len() + 1, copies, "one of {every} was lost");
        assert!(again.iter().all(|(packet, repeat)| *repeat && packet.payload[..2] == 599u16.to_be_bytes()));
    }
}

#[test]
fn feedback_raises_the_rate_and_a_probe_is_filled_with_repeats() {
    let start = Instant::now();
    let handle = WireHandle::new();
    let mut chain = sending(&handle, Some(Bounds { start_bps: 1e6, min_bps: 1e5, max_bps: 5e6 })).build();
    chain.bind_local_stream(&stream(&[(TRANSPORT_CC_URI, 3)]));
    assert_eq!(handle.allowance(), None, "nothing is known without feedback");
    chain.handle_write(tagged(rtp(media(0)), start)).unwrap();
    assert_eq!(written(&mut chain).len(), 1);
    handle.tick(start);
    let probe = handle.take_probe(200, start).unwrap();
    assert!((probe.bps - 3e6).abs() < 1.0);
    // The next media packet takes the rest of the burst with it.
    chain.handle_write(tagged(rtp(media(1)), start)).unwrap();
    let sent = written(&mut chain);
    assert!(sent.iter().skip(1).all(|(packet, repeat)| *repeat && packet.header.ssrc == RTX));
    let bytes: usize = sent.iter().map(|(packet, _)| packet.payload.len() + 60).sum();
    assert!(bytes + 200 >= probe.bytes && sent.len() >= 5, "{bytes} of {}", probe.bytes);
    // All of it arrives within half a millisecond.
    let count = sent.len() as u16 + 1;
    let small = SymbolTypeTcc::PacketReceivedSmallDelta;
    let run = RunLengthChunk { packet_status_symbol: small, run_length: count, ..RunLengthChunk::default() };
    let feedback = TransportLayerCc {
        packet_status_count: count,
        packet_chunks: vec![PacketStatusChunk::RunLengthChunk(run)],
        // Multiples of 250 µs are what it counts in; nearly all at once.
        recv_deltas: (0..count).map(|n| RecvDelta { type_tcc_packet: small, delta: i64::from(n == 4) * 250 }).collect(),
        ..TransportLayerCc::default()
    };
    chain.handle_read(tagged(Packet::Rtcp(vec![Box::new(feedback)]), start + 20 * MS)).unwrap();
    assert!(handle.allowance().unwrap().target_bps > 2.5e6, "{:?}", handle.allowance());
}

#[test]
fn feedback_is_written_while_packets_come_and_no_timer_runs_while_none_do() {
    let start = Instant::now();
    let mut quiet = Quiet::new(TwccReceiverBuilder::new().with_interval(50 * MS).build());
    quiet.bind_remote_stream(&stream(&[(TRANSPORT_CC_URI, 3)]));
    assert_eq!(quiet.poll_timeout(), None);
    for turn in 0..2 {
        let now = start + turn * Duration::from_secs(60);
        let mut packet = from_rtp(media(7));
        packet.header.set_extension(3, Bytes::copy_from_slice(&(turn as u16).to_be_bytes())).unwrap();
        quiet.handle_read(tagged(Packet::Rtp(packet), now)).unwrap();
        let due = quiet.poll_timeout().expect("there is something to tell");
        assert!(due <= now + 50 * MS);
        quiet.handle_timeout(now + 50 * MS).unwrap();
        let told = quiet.poll_write().expect("feedback");
        assert!(
            matches!(&told.message.packet, Packet::Rtcp(list) if list.iter().any(|p| p.as_any().is::<TransportLayerCc>()))
        );
        assert_eq!((quiet.poll_timeout(), quiet.poll_write().is_none()), (None, true));
    }
}

#[test]
fn repeats_that_measure_the_path_are_told_as_arrived() {
    let start = Instant::now();
    let handle = WireHandle::new();
    let mut chain = receiving(&handle).build();
    chain.bind_remote_stream(&stream(&[(TRANSPORT_CC_URI, 3)]));
    let mut number = 0u16;
    let mut arrive = |packet: RtpPacket| {
        let mut packet = from_rtp(packet);
        packet.header.set_extension(3, Bytes::copy_from_slice(&number.to_be_bytes())).unwrap();
        number += 1;
        chain.handle_read(tagged(Packet::Rtp(packet), start)).unwrap();
    };
    arrive(media(7));
    for sequence in 0..3 {
        // The same packet again and again, in its repair stream.
        arrive(wrap(&media(7), RTX, 97, sequence));
    }
    assert_eq!(std::iter::from_fn(|| chain.poll_read()).count(), 1);
    chain.handle_timeout(start + 60 * MS).unwrap();
    let told = std::iter::from_fn(|| chain.poll_write()).find_map(|message| match message.message.packet {
        Packet::Rtcp(list) => list.iter().find_map(|p| p.as_any().downcast_ref::<TransportLayerCc>().cloned()),
        _ => None,
    });
    let arrived = rtc::interceptor::convert_twcc(&told.expect("feedback"));
    assert_eq!(arrived.iter().filter(|packet| packet.arrived).count(), 4);
}

#[test]
fn mids_are_written_until_the_first_report() {
    let now = Instant::now();
    let handle = WireHandle::new();
    handle.set_mid(VIDEO, "v");
    handle.set_rid(VIDEO, "q");
    let mut stamp = Stamp::new(StampConfig::default(), handle.clone());
    stamp.bind_local_stream(&stream(&[(MID_URI, 4), (RID_URI, 10)]));
    let extensions = |stamp: &mut Stamp, sequence| {
        stamp.handle_write(tagged(rtp(media(sequence)), now)).unwrap();
        written(stamp)[0].0.header.get_extension_ids()
    };
    assert_eq!(extensions(&mut stamp, 1), [4, 10]);
    let report = ReceiverReport {
        ssrc: 9,
        reports: vec![ReceptionReport {
            ssrc: VIDEO,
            fraction_lost: 64,
            total_lost: 0x00ff_fffe,
            jitter: 12,
            ..ReceptionReport::default()
        }],
        ..ReceiverReport::default()
    };
    stamp.handle_read(tagged(Packet::Rtcp(vec![Box::new(report)]), now)).unwrap();
    assert!(extensions(&mut stamp, 2).is_empty());
    let report = handle.report(VIDEO).unwrap();
    assert_eq!((report.fraction_lost, report.packets_lost, report.jitter), (0.25, -2, 12));
    assert_eq!(report.rtt, None);
}

#[test]
fn round_trip_time_and_clocks_come_from_the_reports() {
    let start = Instant::now();
    let handle = WireHandle::new();
    let mut stamp = Stamp::new(StampConfig::default(), handle.clone());
    let ntp = 0xdead_beef_1234_5678u64;
    let own = SenderReport { ssrc: VIDEO, ntp_time: ntp, ..SenderReport::default() };
    stamp.handle_write(tagged(Packet::Rtcp(vec![Box::new(own)]), start)).unwrap();
    assert!(written(&mut stamp).is_empty());
    let answer = SenderReport {
        ssrc: 42,
        ntp_time: 1 << 32,
        rtp_time: 5_000,
        reports: vec![ReceptionReport {
            ssrc: VIDEO,
            last_sender_report: 0xbeef_1234,
            // A quarter of a second at 1/65 536 s.
            delay: 16_384,
            ..ReceptionReport::default()
        }],
        ..SenderReport::default()
    };
    stamp.handle_read(tagged(Packet::Rtcp(vec![Box::new(answer)]), start + 330 * MS)).unwrap();
    assert_eq!(handle.rtt(), Some(80 * MS));
    let clock = handle.sender_clock(42).unwrap();
    assert_eq!((clock.ntp, clock.rtp, clock.at), (1 << 32, 5_000, start + 330 * MS));
    assert_eq!(handle.sender_clock(43), None);
    assert_eq!(read_all(&mut stamp).len(), 1, "the report goes on to the others");
}

#[test]
fn sender_reports_carry_on_from_the_capture() {
    let start = Instant::now();
    let handle = WireHandle::new();
    let mut stamp = Stamp::new(StampConfig::default(), handle.clone());
    let mut reported = |handle: &WireHandle, at: Instant| {
        let report = SenderReport { ssrc: VIDEO, rtp_time: 7, packet_count: 3, ..SenderReport::default() };
        stamp.handle_write(tagged(Packet::Rtcp(vec![Box::new(report)]), at)).unwrap();
        let Some(Packet::Rtcp(compound)) = stamp.poll_write().map(|m| m.message.packet) else { panic!("no report") };
        let report = compound[0].as_any().downcast_ref::<SenderReport>().unwrap().clone();
        assert_eq!((report.packet_count, handle.rtt()), (3, None), "the rest is as it was");
        report.rtp_time
    };
    assert_eq!(reported(&handle, start), 7, "nothing is known of this stream");
    // Captured now, sent much later: what counts is the capture.
    handle.note_capture(VIDEO, 90_000, u32::MAX - 899, start);
    assert_eq!(reported(&handle, start + 500 * MS), 45_000u32.wrapping_sub(900));
    // The next picture 20 ms later; a thread that came 32 ms late moves the clock by a 64th of that only.
    handle.note_capture(VIDEO, 90_000, 900, start + 52 * MS);
    assert_eq!(reported(&handle, start + 20 * MS), 900 - 45);
    // An earlier capture is the better measure, and another source is believed at once.
    handle.note_capture(VIDEO, 90_000, 2_700, start + 30 * MS);
    assert_eq!(reported(&handle, start + 30 * MS), 2_700);
    handle.note_capture(VIDEO, 90_000, 1_000_000, start + 40 * MS);
    handle.note_capture(VIDEO, 90_000, 1_001_800, start + 2_000 * MS);
    assert_eq!(reported(&handle, start + 2_010 * MS), 1_002_700);
}

proptest::proptest! {
    /// Whatever RTCP and RTP comes in, nothing panics, and only whole facts leave.
    #[test]
    fn any_packets_pass_or_are_dropped(
        datagrams in proptest::collection::vec((proptest::bool::ANY, 192u8..=207, 0u8..32, proptest::collection::vec(proptest::num::u8::ANY, 0..40)), 0..20),
    ) {
        let now = Instant::now();
        let handle = WireHandle::new();
        let mut map = RtxMap::default();
        map.add_payload_type(97, 96);
        map.add_ssrc(RTX, VIDEO);
        handle.add_rtx(map);
        let mut chain = receiving(&handle).build();
        chain.bind_remote_stream(&stream(&[(TRANSPORT_CC_URI, 3), (RID_URI, 10), (RRID_URI, 11)]));
        for (control, kind, count, mut body) in datagrams {
            if control {
                body.resize(body.len().next_multiple_of(4), 0);
                let mut bytes = BytesMut::from(&[0x80 | count, kind, 0, (body.len() / 4) as u8][..]);
                bytes.extend_from_slice(&body);
                if let Ok(compound) = rtc::rtcp::packet::unmarshal(&mut bytes.freeze()) {
                    chain.handle_read(tagged(Packet::Rtcp(compound), now)).unwrap();
                }
            } else {
                let mut packet = from_rtp(RtpPacket { payload_type: kind & 0x7f, payload: body.into(), ..media(u16::from(count)) });
                packet.header.set_extension(11, Bytes::from_static(b"q")).unwrap();
                chain.handle_read(tagged(Packet::Rtp(packet), now)).unwrap();
            }
        }
        for message in read_all(&mut chain) {
            if let Packet::Rtcp(list) = &message.message.packet {
                proptest::prop_assert!(list.len() == 1 && list[0].destination_ssrc().len() <= 2);
            }
        }
    }
}
