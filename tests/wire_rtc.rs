//! Two connections of the stack with the interceptors of `wire` between them, in simulated time over a simulated path.
//!
//! No socket and no clock: the same seed gives the same run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::interceptor::Registry;
use rtc::media_stream::{MediaStreamTrack, MediaStreamTrackId};
use rtc::peer_connection::configuration::media_engine::MediaEngine;
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCPeerConnectionEvent, RTCTrackEvent};
use rtc::peer_connection::message::RTCMessage;
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::rtp_transceiver::{RTCRtpReceiverId, RTCRtpSenderId};
use rtc::sansio::Protocol;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use tertulia::rtp::congestion::Bounds;
use tertulia::rtp::frame::{EncodedFrame, VideoCodec};
use tertulia::rtp::packetise::{Start, VideoPacketizer};
use tertulia::rtp::receiver::{ReceiverConfig, VideoReceiver};
use tertulia::rtp::rtx::RtxMap;
use tertulia::rtp::sdp;
use tertulia::wire::netsim::{Impairments, Link};
use tertulia::wire::{ABS_SEND_TIME_URI, MID_URI, TRANSPORT_CC_URI, WireHandle, from_rtp, to_rtp};

const MS: Duration = Duration::from_millis(1);
const SSRC: u32 = 4_000_000_001;

fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "video/VP8".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: [("nack", ""), ("nack", "pli"), ("ccm", "fir"), ("goog-remb", ""), ("transport-cc", "")]
            .into_iter()
            .map(|(typ, parameter)| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() })
            .collect(),
    }
}

fn media_engine(rtx: bool) -> MediaEngine {
    let mut engine = MediaEngine::default();
    let codec = RTCRtpCodecParameters { rtp_codec: vp8(), payload_type: 96 };
    engine.register_codec(codec, RtpCodecKind::Video).unwrap();
    if rtx {
        let rtx = RTCRtpCodec {
            mime_type: "video/rtx".to_owned(),
            sdp_fmtp_line: "apt=96".to_owned(),
            rtcp_feedback: Vec::new(),
            ..vp8()
        };
        let rtx = RTCRtpCodecParameters { rtp_codec: rtx, payload_type: 97 };
        engine.register_codec(rtx, RtpCodecKind::Video).unwrap();
    }
    for uri in [ABS_SEND_TIME_URI, TRANSPORT_CC_URI, MID_URI] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        engine.register_header_extension(extension, RtpCodecKind::Video, None).unwrap();
    }
    engine
}

/// One end: its connection and what it has done.
struct End {
    pc: RTCPeerConnection,
    handle: WireHandle,
    address: SocketAddr,
    peer: SocketAddr,
    connected: bool,
    track: Option<(MediaStreamTrackId, RTCRtpReceiverId)>,
}

impl End {
    fn new(registry: Registry, handle: WireHandle, rtx: bool, port: u16, peer: u16, now: Instant) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut pc = RTCPeerConnectionBuilder::new()
            .with_media_engine(media_engine(rtx))
            .with_interceptor_registry(registry)
            .with_setting_engine(SettingEngineBuilder::new().build())
            .build(now)
            .unwrap();
        let candidate = CandidateHostConfig {
            base_config: CandidateConfig {
                network: "udp".to_owned(),
                address: address.ip().to_string(),
                port,
                component: 1,
                ..CandidateConfig::default()
            },
            ..CandidateHostConfig::default()
        };
        let candidate = RTCIceCandidate::from(&candidate.new_candidate_host().unwrap());
        pc.add_local_candidate(candidate.to_json().unwrap()).unwrap();
        Self { pc, handle, address, peer: SocketAddr::from(([127, 0, 0, 1], peer)), connected: false, track: None }
    }

    /// Datagrams in, timers, datagrams out; what came for the application.
    fn turn(&mut self, inbound: &mut Link<BytesMut>, outbound: &mut Link<BytesMut>, now: Instant) -> Vec<RTCMessage> {
        while let Some(message) = inbound.poll(now) {
            let transport = TransportContext {
                local_addr: self.address,
                peer_addr: self.peer,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            };
            self.pc.handle_read(TaggedBytesMut { now, transport, message }).unwrap();
        }
        if self.pc.poll_timeout().is_some_and(|at| at <= now) {
            self.pc.handle_timeout(now).unwrap();
        }
        while let Some(event) = self.pc.poll_event() {
            match event {
                RTCPeerConnectionEvent::OnConnectionStateChangeEvent(RTCPeerConnectionState::Connected) => {
                    self.connected = true;
                }
                RTCPeerConnectionEvent::OnTrack(RTCTrackEvent::OnOpen(init)) => {
                    self.track = Some((init.track_id, init.receiver_id));
                }
                _ => {}
            }
        }
        let mut messages = Vec::new();
        while let Some(message) = self.pc.poll_read() {
            messages.push(message.message);
        }
        while let Some(datagram) = self.pc.poll_write() {
            let bytes = datagram.message.len();
            outbound.push(datagram.message, bytes, now);
        }
        messages
    }
}

/// A sender and a receiver of one video stream, not yet connected.
struct Call {
    sender: End,
    sender_id: RTCRtpSenderId,
    receiver: End,
    up: Link<BytesMut>,
    down: Link<BytesMut>,
    now: Instant,
}

impl Call {
    fn connect(rtx: bool, estimate: Option<Bounds>) -> Self {
        let now = Instant::now();
        let (handle, other) = (WireHandle::new(), WireHandle::new());
        let mut sender = End::new(tertulia::wire::sending(&handle, estimate), handle.clone(), rtx, 1000, 2000, now);
        let mut receiver = End::new(tertulia::wire::receiving(&other), other.clone(), rtx, 2000, 1000, now);
        let encoding = RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..RTCRtpCodingParameters::default() },
            codec: vp8(),
            ..RTCRtpEncodingParameters::default()
        };
        let track = MediaStreamTrack::new(
            "stream".to_owned(),
            "video".to_owned(),
            "video".to_owned(),
            RtpCodecKind::Video,
            vec![encoding],
        );
        let sender_id = sender.pc.add_track(track).unwrap();
        // As over a server: descriptions travel as text, with the measures of both ends.
        let offer = sender.pc.create_offer(None).unwrap();
        sender.pc.set_local_description(now, offer).unwrap();
        let text = sdp::prepare_local(&sender.pc.local_description().unwrap().sdp);
        let offer = RTCSessionDescription::offer(sdp::prepare_remote(&text)).unwrap();
        other.add_rtx(RtxMap::from_sdp(&text));
        receiver.pc.set_remote_description(now, offer).unwrap();
        let answer = receiver.pc.create_answer(None).unwrap();
        receiver.pc.set_local_description(now, answer).unwrap();
        let text = sdp::prepare_local(&receiver.pc.local_description().unwrap().sdp);
        let answer = RTCSessionDescription::answer(sdp::prepare_remote(&text)).unwrap();
        sender.pc.set_remote_description(now, answer).unwrap();
        let clean = Impairments::parse("delay=20").unwrap();
        let mut call =
            Self { sender, sender_id, receiver, up: Link::new(clean.up, 11), down: Link::new(clean.down, 12), now };
        for _ in 0..5_000 {
            call.turn();
            if call.sender.connected && call.receiver.connected {
                return call;
            }
        }
        panic!("not connected after 5 s");
    }

    /// A millisecond; what came for the application at the sender and at the receiver.
    fn turn(&mut self) -> (Vec<RTCMessage>, Vec<RTCMessage>) {
        self.now += MS;
        let at_sender = self.sender.turn(&mut self.up, &mut self.down, self.now);
        let at_receiver = self.receiver.turn(&mut self.down, &mut self.up, self.now);
        (at_sender, at_receiver)
    }

    fn impair(&mut self, spec: &str) {
        let impairments = Impairments::parse(spec).unwrap();
        self.up.set_profile(impairments.up);
        self.down.set_profile(impairments.down);
    }

    fn write_rtcp(&mut self, packet: Box<dyn rtc::rtcp::Packet>) {
        let (_, id) = self.receiver.track.clone().unwrap();
        self.receiver.pc.rtp_receiver(id).unwrap().write_rtcp(self.now, vec![packet]).unwrap();
    }
}

struct Outcome {
    sent: usize,
    received: usize,
    stats: tertulia::rtp::receiver::ReceiverStats,
    reports: usize,
}

/// Ten seconds of 30 frames per second.
fn stream(call: &mut Call) -> Outcome {
    let mut packetizer = VideoPacketizer::new(VideoCodec::Vp8, SSRC, 96, Start { sequence: 65_000, picture_id: 7 });
    let mut video = VideoReceiver::new(ReceiverConfig::standard(VideoCodec::Vp8));
    let (mut sent, mut received, mut reports, mut key_frame) = (0, 0, 0, true);
    for ms in 0..10_500u32 {
        if ms % 33 == 0 && ms < 10_000 {
            let mut data = vec![9u8; if key_frame { 15_000 } else { 4_000 }];
            data[0] = u8::from(!key_frame);
            let frame = EncodedFrame {
                codec: VideoCodec::Vp8,
                data: data.into(),
                rtp_timestamp: (u32::MAX - 90_000).wrapping_add(ms * 90),
                key_frame: std::mem::take(&mut key_frame),
                size: None,
                at: call.now,
            };
            let mut packets = Vec::new();
            packetizer.packetize(&frame, &mut packets);
            for packet in packets {
                let mut sender = call.sender.pc.rtp_sender(call.sender_id).unwrap();
                sender.write_rtp(call.now, from_rtp(packet)).unwrap();
            }
            sent += 1;
        }
        let (at_sender, at_receiver) = call.turn();
        for message in at_sender {
            if let RTCMessage::RtcpPacket(_, list) = message {
                for packet in list {
                    key_frame |= packet.as_any().is::<PictureLossIndication>();
                    reports += usize::from(packet.as_any().is::<ReceiverReport>());
                }
            }
        }
        for message in at_receiver {
            if let RTCMessage::RtpPacket(_, packet) = message {
                assert_eq!((packet.header.ssrc, packet.header.payload_type), (SSRC, 96));
                video.push(to_rtp(&packet), call.now);
            }
        }
        if let Some(rtt) = call.receiver.handle.rtt().or(call.sender.handle.rtt()) {
            video.set_rtt(rtt);
        }
        if video.poll_timeout().is_some_and(|at| at <= call.now) {
            let feedback = video.poll_feedback(call.now);
            if !feedback.nacks.is_empty() {
                call.write_rtcp(Box::new(TransportLayerNack {
                    sender_ssrc: 1,
                    media_ssrc: SSRC,
                    nacks: nack_pairs_from_sequence_numbers(&feedback.nacks),
                }));
            }
            if feedback.pli {
                call.write_rtcp(Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: SSRC }));
            }
        }
        received += std::iter::from_fn(|| video.poll_frame()).count();
    }
    Outcome { sent, received, stats: video.stats(), reports }
}

#[test]
fn ten_percent_loss_is_repaired_by_rtx_without_needless_repeats() {
    let mut call = Call::connect(true, None);
    call.impair("delay=20,jitter=5,loss=10");
    let Outcome { sent, received, stats, reports } = stream(&mut call);
    let (out, inbound) = (call.sender.handle.stats(), call.receiver.handle.stats());
    assert!(stats.packets_lost > 80, "{stats:?}");
    assert!(received + 10 >= sent, "{received} of {sent}: {stats:?}");
    assert!(inbound.rtx_received > 70 && inbound.rtx_unknown == 0, "{inbound:?}");
    // One repeat per loss, and one more where a repeat or its request is lost itself.
    assert!(out.retransmissions_sent < stats.packets_lost * 3 / 2, "{out:?} {stats:?}");
    // What is left is lost on the way to the application only once.
    assert!(reports > 10, "{reports}");
    let rtt = call.sender.handle.rtt().unwrap();
    assert!((35 * MS..60 * MS).contains(&rtt), "{rtt:?}");
    let report = call.sender.handle.report(SSRC).unwrap();
    assert!(report.rtt.is_some());
    assert!(call.receiver.handle.sender_clock(SSRC).is_some());
}

#[test]
fn without_rtx_repeats_on_the_same_ssrc_are_accepted() {
    let mut call = Call::connect(false, None);
    call.impair("delay=20,loss=5");
    let Outcome { sent, received, stats, .. } = stream(&mut call);
    assert!(stats.packets_lost > 30 && received + 10 >= sent, "{received} of {sent}: {stats:?}");
    assert_eq!(call.receiver.handle.stats().rtx_received, 0);
    assert!(call.sender.handle.stats().retransmissions_sent > 30);
}

#[test]
fn an_estimate_comes_from_our_numbers() {
    let estimate = Bounds { start_bps: 1e6, min_bps: 1e5, max_bps: 5e6 };
    let mut call = Call::connect(true, Some(estimate));
    let Outcome { sent, received, .. } = stream(&mut call);
    assert_eq!(sent, received);
    let target = call.sender.handle.allowance().unwrap().target_bps;
    assert!(target > 200_000.0, "{target}");
}

#[test]
fn kurentos_compound_reaches_the_track() {
    let mut call = Call::connect(false, None);
    let _ = stream(&mut call);
    // Kurento's order: an empty report first, by which the stack would route and lose the compound.
    let compound = |sequence_number| -> Vec<Box<dyn rtc::rtcp::Packet>> {
        vec![
            Box::new(ReceiverReport::default()),
            Box::new(FullIntraRequest {
                sender_ssrc: 9,
                media_ssrc: 0,
                fir: vec![FirEntry { ssrc: SSRC, sequence_number }],
            }),
        ]
    };
    let mut requests = 0;
    for sequence in [1, 1, 2] {
        let (_, id) = call.receiver.track.clone().unwrap();
        let now = call.now;
        call.receiver.pc.rtp_receiver(id).unwrap().write_rtcp(now, compound(sequence)).unwrap();
        for _ in 0..100 {
            for message in call.turn().0 {
                if let RTCMessage::RtcpPacket(_, list) = message {
                    requests += list.iter().filter(|packet| packet.as_any().is::<FullIntraRequest>()).count();
                }
            }
        }
    }
    assert_eq!(requests, 2, "each number once");
}
