//! A publisher, this host and a viewer in virtual time, and a path between two of them that loses packets both ways.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rtc::interceptor::{
    AttributedPacket, Interceptor, Packet, RTCPFeedback, RTPHeaderExtension, StreamInfo, TaggedPacket,
};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::marshal::Marshal;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use crate::rtp::congestion::Bounds;
use crate::rtp::frame::{EncodedFrame, VideoCodec};
use crate::rtp::packet::RtpPacket;
use crate::rtp::packetise::{Start, VideoPacketizer};
use crate::rtp::playout::VideoPlayout;
use crate::rtp::receiver::{ReceiverConfig, VideoReceiver};
use crate::wire::netsim::{Impairments, Link};
use crate::wire::{TRANSPORT_CC_URI, WireHandle, from_rtp, sending};

use super::LegId;
use super::answer::{Codec, Extensions, FeedbackKinds, TrackPlan};
use super::layer::Layer;
use super::outbound::TrackOut;
use super::packet::RtpView;
use super::publication::Publication;
use super::rtcp::{self, Item, Writer};
use super::transport::Exit;

const MS: Duration = Duration::from_millis(1);
const VIDEO: u32 = 0x0a0b_0c0d;
const REPAIR: u32 = 0x0e0f_1011;
const TRANSPORT_CC: u8 = 3;
/// A picture that stands still for this long over the mean of 33 ms is a freeze.
const FREEZE: Duration = Duration::from_millis(183);
/// Bytes of a picture and of a key frame.
const PICTURE: usize = 1_500;
const KEY_FRAME: usize = 12_000;
/// Less than this and a picture of this size would give way to a smaller one, in bit/s.
const PRESSED_BPS: f64 = 250_000.0;
/// Calls of each path.
const MINUTES: u64 = 10;

/// Which path is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bad {
    Publisher,
    Viewer,
}

/// What the viewer saw, in all.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Seen {
    frames: u32,
    key_frames: u32,
    freezes: u32,
    freeze_ms: u64,
    /// Sum over all pictures of the time from capture to screen.
    late: Duration,
    /// Packets that the publisher sent, and repeats among them.
    sent: u64,
    repeats: u64,
    /// The same of the host.
    forwarded: u64,
    answers: u64,
    /// Pictures for which the path was thought to take little.
    pressed: u32,
}

fn info() -> StreamInfo {
    StreamInfo {
        ssrc: VIDEO,
        ssrc_rtx: Some(REPAIR),
        payload_type: 96,
        payload_type_rtx: Some(97),
        clock_rate: 90_000,
        mime_type: "video/VP8".to_owned(),
        rtcp_feedback: vec![RTCPFeedback { typ: "nack".to_owned(), parameter: String::new() }],
        rtp_header_extensions: vec![RTPHeaderExtension {
            uri: TRANSPORT_CC_URI.to_owned(),
            id: u16::from(TRANSPORT_CC),
        }],
        ..StreamInfo::default()
    }
}

fn plan() -> TrackPlan {
    TrackPlan {
        codec: Codec::Video(VideoCodec::Vp8),
        mid: "1".into(),
        payload_type: 96,
        rtx: Some(97),
        fmtp: None,
        extensions: Extensions { transport_cc: Some(TRANSPORT_CC), ..Extensions::default() },
        feedback: FeedbackKinds { nack: true, pli: true, transport_cc: true, ..FeedbackKinds::default() },
        ssrc: 0,
        rtx_ssrc: 0,
        layers: Vec::new(),
    }
}

fn tagged(packet: Packet, now: Instant) -> TaggedPacket {
    TaggedPacket { now, transport: TransportContext::default(), message: AttributedPacket::new(packet) }
}

fn picture(key_frame: bool, number: u32, target_bps: f64, now: Instant) -> EncodedFrame {
    let mut data =
        vec![7; if key_frame { KEY_FRAME } else { PICTURE.min((target_bps * 0.9 / 240.0).max(300.0) as usize) }];
    data[0] = u8::from(!key_frame);
    if key_frame {
        data[3..10].copy_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01]);
    }
    EncodedFrame {
        codec: VideoCodec::Vp8,
        data: data.into(),
        rtp_timestamp: number * 3_000,
        key_frame,
        size: None,
        at: now,
    }
}

/// What is to be shown, and when.
#[derive(Default)]
struct Screen {
    playout: VideoPlayout,
    shown: Option<Instant>,
}

impl Screen {
    fn frame(&mut self, frame: &EncodedFrame, captured: Instant, now: Instant, seen: &mut Seen) {
        let due = now + self.playout.frame(frame.rtp_timestamp, now);
        let due = self.shown.map_or(due, |last| due.max(last));
        if let Some(gap) = self.shown.map(|last| due - last).filter(|gap| *gap > FREEZE) {
            seen.freezes += 1;
            seen.freeze_ms += gap.as_millis() as u64;
        }
        self.shown = Some(due);
        seen.late += due - captured;
        seen.frames += 1;
        seen.key_frames += u32::from(frame.key_frame);
    }
}

/// A minute of a call; what was seen is added.
fn call(bad: Bad, network: &str, seed: u64, seen: &mut Seen) {
    let origin = Instant::now();
    let path = Impairments::parse(network).unwrap();
    let clean = Impairments::default();
    let (first, second) = if bad == Bad::Publisher { (path, clean) } else { (clean, path) };
    let mut up: Link<Vec<u8>> = Link::new(first.up, seed);
    let mut down: Link<Vec<u8>> = Link::new(first.down, seed + 1);
    let mut out: Link<BytesMut> = Link::new(second.down, seed + 2);
    let mut back: Link<(Vec<u16>, bool)> = Link::new(second.up, seed + 3);

    let rtt = second.up.delay + second.down.delay;

    let handle = WireHandle::new();
    let bounds = Bounds { start_bps: 300_000.0, min_bps: 60_000.0, max_bps: 5_000_000.0 };
    let mut chain = sending(&handle, Some(bounds)).build();
    chain.bind_local_stream(&info());
    let mut packetizer = VideoPacketizer::new(VideoCodec::Vp8, VIDEO, 96, Start::default());
    let mut backlog = std::collections::VecDeque::new();
    let (mut wanted, mut pictures) = (true, 0);
    let (mut repeated, mut repeated_bps) = (0, 0.0);

    let mut publication = Publication::new("stream".into(), "session".into(), &mut || 7);
    publication.publisher = Some(1);
    publication.publisher_id = LegId(1);
    publication.layers.push(Layer::new(plan(), 1));
    let mut writer = Writer::default();
    let mut track = TrackOut::new(TrackPlan { ssrc: 9, rtx_ssrc: 10, ..plan() }, 0);
    track.roomy = true;
    track.note_rtt(rtt.as_micros() as f64);
    let (mut locked, mut unlocked, mut transport_number) = (cipher(), cipher(), 0);

    let mut receiver = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    receiver.set_rtt(rtt);
    let mut screen = Screen::default();

    for ms in 0..60_000u64 {
        let now = origin + MS * ms as u32;
        let now_us = ms * 1_000;
        // The publisher.
        while let Some(data) = down.poll(now) {
            let compound = rtc::rtcp::packet::unmarshal(&mut Bytes::from(data)).unwrap();
            wanted |= compound.iter().any(|packet| packet.as_any().is::<PictureLossIndication>());
            chain.handle_read(tagged(Packet::Rtcp(compound), now)).unwrap();
        }
        while chain.poll_read().is_some() {}
        if chain.poll_timeout().is_some_and(|at| at <= now) {
            chain.handle_timeout(now).unwrap();
        }
        if ms % 25 == 0 {
            let fresh = handle.stats().repeated_bytes;
            repeated_bps += ((fresh - std::mem::replace(&mut repeated, fresh)) as f64 * 320.0 - repeated_bps) * 0.025;
            handle.tick(now);
        }
        if ms * 30 / 1_000 >= u64::from(pictures) {
            let mut fresh = Vec::new();
            let target = handle.allowance().map_or(300_000.0, |allowance| allowance.target_bps);
            let target = target - repeated_bps;
            seen.pressed += u32::from(ms > 2_000 && target < PRESSED_BPS);
            packetizer.packetize(&picture(std::mem::take(&mut wanted), pictures, target, now), &mut fresh);
            pictures += 1;
            backlog.extend(fresh);
        }
        if ms % 5 == 0 {
            let pacing = handle.allowance().map_or(600_000.0, |allowance| allowance.pacing_bps);
            let mut budget = (pacing / 8.0 * 0.005) as usize;
            while let Some(packet) = backlog.pop_front_if(|_: &mut RtpPacket| budget > 0) {
                budget = budget.saturating_sub(packet.payload.len());
                chain.handle_write(tagged(Packet::Rtp(from_rtp(packet)), now)).unwrap();
            }
        }
        while let Some(message) = chain.poll_write() {
            let data = match message.message.packet {
                Packet::Rtp(packet) => packet.marshal().unwrap(),
                Packet::Rtcp(compound) => rtc::rtcp::packet::marshal(&compound).unwrap(),
                _ => continue,
            };
            up.push(data.to_vec(), data.len() + 38, now);
        }
        // The host.
        while let Some(data) = up.poll(now) {
            if (192..224).contains(&data[1]) {
                rtcp::parse(&data, |item| {
                    if let Item::SenderReport { ssrc, ntp, rtp } = item {
                        publication.sender_report(ssrc, ntp, rtp, now_us);
                    }
                });
                continue;
            }
            let fed = publication.feed(&RtpView::parse(&data).unwrap(), now_us, 0);
            let stored = fed.and_then(|fed| publication.layers[0].track.cache.get(fed.number));
            if let Some(data) = stored.and_then(|stored| {
                track.forward(
                    0,
                    stored,
                    &mut Exit { context: &mut locked, transport_number: &mut transport_number },
                    now_us,
                )
            }) {
                seen.forwarded += 1;
                out.push(data, 1_000, now);
            }
        }
        while let Some((nacks, pli)) = back.poll(now) {
            if pli {
                publication.want_key_frame(0);
            }
            for number in nacks {
                let caches = |layer: usize| Some(&publication.layers[layer].track.cache);
                if let Some(data) = track.repair(
                    number,
                    caches,
                    &mut Exit { context: &mut locked, transport_number: &mut transport_number },
                    now_us,
                ) {
                    out.push(data, 1_000, now);
                }
            }
        }
        while ms % 5 == 0
            && let Some(data) = track.copy_due(
                |at| Some(&publication.layers[at].track.cache),
                &mut Exit { context: &mut locked, transport_number: &mut transport_number },
                now_us,
            )
        {
            out.push(data, 1_000, now);
        }
        if publication.next_us() <= now_us {
            writer.clear();
            publication.tick(now_us, &mut writer);
            if !writer.bytes().is_empty() {
                down.push(writer.bytes().to_vec(), writer.bytes().len() + 38, now);
            }
        }
        // The viewer.
        while let Some(data) = out.poll(now) {
            receiver.push(opened(&unlocked.decrypt_rtp(&data).unwrap()), now);
        }
        while let Some(frame) = receiver.poll_frame() {
            let number = frame.rtp_timestamp / 3_000;
            let captured = origin + Duration::from_micros(u64::from(number) * 1_000_000 / 30);
            screen.frame(&frame, captured, now, seen);
        }
        if receiver.poll_timeout().is_some_and(|at| at <= now) {
            let feedback = receiver.poll_feedback(now);
            if feedback.pli || !feedback.nacks.is_empty() {
                back.push((feedback.nacks, feedback.pli), 100, now);
            }
        }
    }
    seen.repeats += handle.stats().retransmissions_sent;
    seen.sent += handle.stats().packets_sent;
    seen.answers += track.repaired + track.copies;
}

fn cipher() -> Context {
    let crypto = rtc::crypto::default_provider().unwrap();
    Context::new(&[1; 16], &[2; 14], ProtectionProfile::Aes128CmHmacSha1_80, None, None, crypto.crypto()).unwrap()
}

/// A packet of a viewer's leg; a repeat is what it repeats.
fn opened(plain: &[u8]) -> RtpPacket {
    let view = RtpView::parse(plain).unwrap();
    let (sequence, payload) = match (view.payload_type, view.payload) {
        (97, [high, low, payload @ ..]) => (u16::from_be_bytes([*high, *low]), payload),
        (_, payload) => (view.sequence, payload),
    };
    let payload = Bytes::copy_from_slice(payload);
    RtpPacket { payload_type: 96, marker: view.marker, sequence, timestamp: view.timestamp, ssrc: 9, payload }
}

#[test]
fn losses_are_seldom_seen_on_either_path() {
    // Freezes in ms, and key frames, that a minute may have at most behind a publisher's bad path, and behind a viewer's.
    for (network, publisher, viewer) in [
        ("loss=5,delay=45", (180, 1.5), (200, 1.5)),
        ("loss=5,delay=100", (1_100, 2.0), (1_300, 2.0)),
        ("loss=5,delay=150", (1_100, 2.0), (2_000, 2.0)),
        ("loss=10,burst=3,delay=30", (1_000, 3.0), (800, 2.0)),
        ("loss=30,delay=20", (300, 5.0), (300, 3.0)),
    ] {
        for (bad, (freeze_ms, key_frames)) in [(Bad::Publisher, publisher), (Bad::Viewer, viewer)] {
            let mut seen = Seen::default();
            (0..MINUTES).for_each(|seed| call(bad, network, seed * 10, &mut seen));
            let minute = |sum: f64| sum / MINUTES as f64;
            println!(
                "{network}, {bad:?}: {:.1} fps, {:.1} freezes, {:.0} ms, {:.1} key frames, {} ms late, pressed {:.1} s, {:.0} packets, {:.0} repeats, {:.0} forwarded, {:.0} answers",
                minute(seen.frames.into()) / 60.0,
                minute(seen.freezes.into()),
                minute(seen.freeze_ms as f64),
                minute(seen.key_frames.into()),
                (seen.late / seen.frames.max(1)).as_millis(),
                minute(seen.pressed.into()) / 30.0,
                minute(seen.sent as f64),
                minute(seen.repeats as f64),
                minute(seen.forwarded as f64),
                minute(seen.answers as f64),
            );
            assert!(seen.freeze_ms <= freeze_ms * MINUTES, "{network}, {bad:?}: {seen:?}");
            assert!(f64::from(seen.key_frames) <= key_frames * MINUTES as f64, "{network}, {bad:?}: {seen:?}");
            assert!(u64::from(seen.frames) >= MINUTES * 60 * 29, "{network}, {bad:?}: {seen:?}");
        }
    }
}
