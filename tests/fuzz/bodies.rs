//! What each target does with its bytes: feed a pure room, and hold what comes out against what must always be true.
//!
//! Shared by the fuzz targets and by the test that plays the corpus back.

#[path = "bits.rs"]
mod bits;
#[path = "room.rs"]
mod room;
#[path = "wire.rs"]
mod wire;

use std::time::{Duration, Instant};

use bits::Bits;
use bytes::{Bytes, BytesMut};
use tertulia::media::audio::codec::OpusPacketDecoder;
use tertulia::media::audio::jitter::JitterBuffer;
use tertulia::protocol::Now;
use tertulia::protocol::client::{Action, Client, ClientConfig, Input, Output, SDK_VERSION, Seed, Text};
use tertulia::protocol::message::{Notification, Request, SignalMessage};
use tertulia::protocol::metadata::{Persona, clean_name};
use tertulia::protocol::rpc;
use tertulia::protocol::token::Token;
use tertulia::rtp::congestion::{Arrival, Bounds, Congestion, Departed};
use tertulia::rtp::depacketise::{assemble, begins_frame, begins_key_frame, carries_parameter_sets};
use tertulia::rtp::frame::VideoCodec;
use tertulia::rtp::packet::RtpPacket;
use tertulia::rtp::receiver::{ReceiverConfig, VideoReceiver};
use tertulia::rtp::rtx::{self, RtxMap, Unwrapped};
use tertulia::rtp::sdp::{self, CandidateLine, Description, MediaRef, Summary};
use tertulia::rtp::vp8::Descriptor;
use tertulia::rtp::{h264, vp8};

pub use room::room;
pub use wire::wire;

/// What a target does with an input; it panics at a fault.
pub type Body = fn(&[u8]);
/// A target by the name of its corpus.
pub const TARGETS: [(&str, Body); 8] = [
    ("video_payload", video_payload),
    ("video_receiver", video_receiver),
    ("audio_jitter", audio_jitter),
    ("congestion", congestion),
    ("sdp", sdp_text),
    ("frames", frames),
    ("room", room),
    ("wire", wire),
];

fn codec(number: u8) -> VideoCodec {
    if number & 1 == 0 { VideoCodec::Vp8 } else { VideoCodec::H264 }
}

/// Depacketisers, payload descriptors and RTX on payloads of any content.
pub fn video_payload(data: &[u8]) {
    let mut bits = Bits(data);
    let codec = codec(bits.u8());
    let mut payloads = Vec::new();
    while !bits.is_empty() && payloads.len() < 64 {
        let length = usize::from(bits.u8()) * 4;
        payloads.push(Bytes::copy_from_slice(bits.take(length)));
    }
    let mut map = RtxMap::default();
    map.add_payload_type(97, 96);
    map.add_ssrc(2, 1);
    for payload in &payloads {
        let (begins, key) = (begins_frame(codec, payload), begins_key_frame(codec, payload));
        assert!(!(key && begins == Some(false)), "a key frame begins where no frame begins");
        let _ = carries_parameter_sets(payload);
        if let Some((descriptor, length)) = Descriptor::parse(payload) {
            assert!(length <= payload.len());
            let mut written = BytesMut::new();
            descriptor.write(&mut written);
            let (again, read) = Descriptor::parse(&written).expect("what was written can be read");
            assert_eq!((again, read), (descriptor, written.len()));
        }
        let ranges = h264::nal_ranges(payload);
        assert!(ranges.iter().all(|range| range.start <= range.end && range.end <= payload.len()));
        let _ = (
            h264::has_idr(payload),
            h264::picture_size(payload),
            vp8::key_frame_size(payload),
            vp8::is_key_frame(payload),
        );
        let packet =
            RtpPacket { payload_type: 96, marker: true, sequence: 7, timestamp: 9, ssrc: 1, payload: payload.clone() };
        let wrapped = rtx::wrap(&packet, 2, 97, 1);
        assert_eq!(map.unwrap(&wrapped), Unwrapped::Packet(packet));
        let _ = map.unwrap(&RtpPacket { payload: payload.clone(), ..wrapped });
    }
    let total: usize = payloads.iter().map(Bytes::len).sum();
    if let Ok(frame) = assemble(codec, payloads.iter()) {
        // Start codes are the only bytes that are added: four for at most each two bytes of an aggregation.
        assert!(!frame.data.is_empty() && frame.data.len() <= total * 3 + 4 * payloads.len());
    }
}

/// Reordering, repair and assembly under any order, loss, jump and time.
pub fn video_receiver(data: &[u8]) {
    let mut bits = Bits(data);
    let kind = bits.u8();
    let config =
        if kind & 2 == 0 { ReceiverConfig::standard(codec(kind)) } else { ReceiverConfig::kurento(codec(kind)) };
    let mut receiver = VideoReceiver::new(config);
    let origin = Instant::now();
    let (mut now, mut sequence, mut timestamp, mut ssrc) = (Duration::ZERO, bits.u16(), bits.u32(), 1);
    let (mut pushed, mut frames) = (0u64, 0u64);
    while !bits.is_empty() {
        match bits.u8() % 8 {
            0 => sequence = sequence.wrapping_add(bits.u16()),
            1 => timestamp = timestamp.wrapping_add(bits.u32()),
            2 => now += Duration::from_millis(u64::from(bits.u16())),
            3 => receiver.set_rtt(Duration::from_millis(u64::from(bits.u16()))),
            4 if bits.u8() == 7 => ssrc += 1,
            4 => receiver.decoder_lost(origin + now),
            5 => receiver.note_pause(),
            _ => {
                let flags = bits.u8();
                let length = usize::from(bits.u8() % 40);
                let payload = Bytes::copy_from_slice(bits.take(length));
                receiver.push(
                    RtpPacket { payload_type: 96, marker: flags & 1 != 0, sequence, timestamp, ssrc, payload },
                    origin + now,
                );
                pushed += 1;
                sequence = sequence.wrapping_add(1);
                if flags & 1 != 0 {
                    timestamp = timestamp.wrapping_add(3_000);
                }
                now += Duration::from_millis(u64::from(flags >> 4));
            }
        }
        let at = origin + now;
        // Many requests go out in several rounds, but not without end.
        let settled = (0..64).any(|_| {
            assert!(receiver.poll_feedback(at).nacks.len() <= 256, "too many requests at once");
            receiver.poll_timeout().is_none_or(|next| next > at)
        });
        assert!(settled, "its timer would spin");
        while let Some(frame) = receiver.poll_frame() {
            assert!(!frame.data.is_empty());
            frames += 1;
        }
    }
    let stats = receiver.stats();
    assert!(frames <= pushed && stats.packets <= pushed, "{stats:?}");
    assert!(stats.jitter_ms.is_finite());
}

/// The audio jitter buffer with the real decoder under any order, jump, burst and content.
pub fn audio_jitter(data: &[u8]) {
    let mut bits = Bits(data);
    let Ok(decoder) = OpusPacketDecoder::new() else { return };
    let mut buffer = JitterBuffer::new(Box::new(decoder));
    let (mut now, mut sequence, mut timestamp) = (Duration::ZERO, bits.u16(), bits.u32());
    let mut pushed = 0u64;
    while !bits.is_empty() {
        match bits.u8() % 8 {
            0 => sequence = sequence.wrapping_add(bits.u16()),
            1 => timestamp = timestamp.wrapping_add(bits.u32()),
            2 => now += Duration::from_millis(u64::from(bits.u16() % 3_000)),
            3 => buffer.set_expected_active(bits.u8() & 1 == 0),
            4 => {
                for _ in 0..bits.u8() % 32 {
                    let block = buffer.pull(now);
                    assert!(block.iter().all(|sample| sample.is_finite() && sample.abs() <= 4.0), "wild samples");
                    now += Duration::from_millis(10);
                }
            }
            _ => {
                let length = usize::from(bits.u8() % 64);
                let payload = Bytes::copy_from_slice(bits.take(length));
                buffer.insert(sequence, timestamp, payload, now);
                pushed += 1;
                sequence = sequence.wrapping_add(1);
                timestamp = timestamp.wrapping_add(960);
            }
        }
    }
    let stats = buffer.stats();
    assert!(stats.packets <= pushed, "{stats:?}");
    assert!(stats.target_delay_ms.is_finite() && (0.0..=1_000.0).contains(&stats.target_delay_ms), "{stats:?}");
}

/// The rate control under any feedback.
pub fn congestion(data: &[u8]) {
    let mut bits = Bits(data);
    let bounds = Bounds { start_bps: 1e6, min_bps: 1e5, max_bps: 3e6 };
    let mut control = Congestion::new(bounds);
    let (mut now, mut number) = (Duration::ZERO, bits.u16());
    while !bits.is_empty() {
        match bits.u8() % 4 {
            0 => {
                let probe = control.take_probe(now).map(|probe| probe.id);
                control.departed(Departed { number, bytes: usize::from(bits.u8()) * 6, at: now, probe });
                number = number.wrapping_add(1);
            }
            1 => {
                let count = bits.u8() % 16;
                let arrivals: Vec<_> = (0..count)
                    .map(|_| Arrival {
                        number: number.wrapping_sub(u16::from(bits.u8())),
                        at: (bits.u8() & 1 == 0).then(|| Duration::from_millis(u64::from(bits.u16()))),
                    })
                    .collect();
                control.feedback(&arrivals, now);
            }
            2 => now += Duration::from_millis(u64::from(bits.u8())),
            _ => control.tick(now),
        }
        let target = control.target_bps();
        assert!((bounds.min_bps..=bounds.max_bps).contains(&target), "{target}");
        assert!(control.pacing_bps().is_finite() && control.pacing_bps() > 0.0);
    }
}

/// Session descriptions and candidates of any text.
pub fn sdp_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let once = Description::parse(&text).to_text();
    assert_eq!(Description::parse(&once).to_text(), once, "a description changes by being read again");
    for text in [&*text, &once] {
        let _ = (Summary::parse(text), RtxMap::from_sdp(text));
        let _ = (sdp::prepare_local(text), sdp::force_video_codec(text, "VP8"), sdp::prefer_video_codec(text, "H264"));
        let prepared = sdp::prepare_remote(text);
        let sections = |text: &str| Description::parse(text).media.len();
        assert_eq!(sections(&prepared), sections(text), "preparing changes what is described");
    }
    let candidates: Vec<String> = text.lines().take(8).map(str::to_owned).collect();
    for candidate in &candidates {
        let _ = CandidateLine::parse(candidate);
    }
    let _ = sdp::add_candidates(&once, MediaRef::Index(usize::from(data.len() as u8)), &candidates);
}

/// Frames, tokens and metadata of any text, and a client machine that is fed with them.
pub fn frames(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (Token::parse(&text), Persona::parse(&text), clean_name(&text), SignalMessage::parse(&text));
    let token = Token::parse("wss://localhost:4443?sessionId=room&token=tok_a").expect("a token");
    let config = ClientConfig {
        token,
        platform: String::new(),
        sdk_version: SDK_VERSION.to_owned(),
        metadata: String::new(),
        can_rejoin: true,
        seed: Seed(7),
    };
    let mut client = Client::new(config);
    let mut time = Duration::ZERO;
    let mut socket = None;
    let drain = |client: &mut Client, socket: &mut Option<_>| {
        for _ in 0..10_000 {
            match client.poll_output() {
                Some(Output::OpenSocket { socket: id, .. }) => *socket = Some(id),
                Some(_) => {}
                None => return,
            }
        }
        panic!("the machine never comes to rest");
    };
    let at = |time| Now { mono: time, unix_ms: 0 };
    client.handle(Input::User(0, Action::Join), at(time));
    drain(&mut client, &mut socket);
    for line in text.lines().take(64) {
        let _ = format!("{:?} {:?}", rpc::ClientFrame::parse(line), rpc::ServerFrame::parse(line));
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(line) {
            let method = value.get("method").and_then(|m| m.as_str()).unwrap_or("");
            let params = value.get("params");
            let _ = (Request::parse(method, params), Notification::parse(method, params.cloned().unwrap_or_default()));
        }
        if let Some(id) = socket {
            client.handle(Input::SocketOpen(id), at(time));
            client.handle(Input::Text { socket: id, text: Text::from(line) }, at(time));
            drain(&mut client, &mut socket);
        }
        time += Duration::from_secs(1);
        client.handle(Input::Timeout, at(time));
        drain(&mut client, &mut socket);
        assert!(client.poll_timeout().is_none_or(|next| next > time), "its timer would spin");
    }
}
