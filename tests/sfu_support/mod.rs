//! Clients for the forwarder's tests: the async `webrtc` crate on loopback, fed with numbered packets.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use rtc::interceptor::{
    NackGeneratorBuilder, NackResponderBuilder, ReceiverReportBuilder, Registry, SenderReportBuilder, Slot,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use tertulia::host::sfu::{LegId, PublishSpec, Sfu};
use tokio::sync::watch;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCPeerConnectionState, RTCSessionDescription, SettingEngineBuilder,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

/// One received packet.
#[derive(Debug, Clone)]
pub struct Got {
    pub ssrc: u32,
    pub payload_type: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub picture: Option<u16>,
    /// The number the publisher wrote into the payload.
    pub number: u32,
    pub at: Instant,
}

pub type Log = Arc<Mutex<HashMap<&'static str, Vec<Got>>>>;

struct Handler {
    state: watch::Sender<RTCPeerConnectionState>,
    log: Log,
    video_pt: u8,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let log = self.log.clone();
        let video_pt = self.video_pt;
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let video = packet.header.payload_type == video_pt;
                    let payload = &packet.payload;
                    let (picture, body) = if video {
                        (Some(u16::from_be_bytes([payload[2] & 0x7f, payload[3]])), &payload[5..])
                    } else {
                        (None, &payload[..])
                    };
                    let got = Got {
                        ssrc: packet.header.ssrc,
                        payload_type: packet.header.payload_type,
                        sequence: packet.header.sequence_number,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        picture,
                        number: u32::from_be_bytes([body[0], body[1], body[2], body[3]]),
                        at: Instant::now(),
                    };
                    let kind = if video { "video" } else { "audio" };
                    log.lock().unwrap().entry(kind).or_default().push(got);
                }
            }
        });
    }
}

fn feedback(list: &[(&str, &str)]) -> Vec<RTCPFeedback> {
    list.iter()
        .map(|(typ, parameter)| RTCPFeedback { typ: (*typ).to_owned(), parameter: (*parameter).to_owned() })
        .collect()
}

pub fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "video/VP8".to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: feedback(&[
            ("goog-remb", ""),
            ("transport-cc", ""),
            ("ccm", "fir"),
            ("nack", ""),
            ("nack", "pli"),
        ]),
    }
}

pub fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "audio/opus".to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: feedback(&[("transport-cc", ""), ("nack", "")]),
    }
}

/// A client's connection.
pub struct Client {
    pub pc: Arc<dyn PeerConnection>,
    pub state: watch::Receiver<RTCPeerConnectionState>,
    pub log: Log,
}

impl Client {
    async fn new(video_pt: u8) -> Self {
        let mut engine = MediaEngine::default();
        for (codec, payload_type, kind) in [(opus(), 111, RtpCodecKind::Audio), (vp8(), video_pt, RtpCodecKind::Video)]
        {
            let parameters = RTCRtpCodecParameters { rtp_codec: codec, payload_type };
            engine.register_codec(parameters, kind).unwrap();
        }
        for (uri, kind) in [
            ("urn:ietf:params:rtp-hdrext:ssrc-audio-level", RtpCodecKind::Audio),
            ("http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", RtpCodecKind::Video),
            ("urn:ietf:params:rtp-hdrext:sdes:mid", RtpCodecKind::Audio),
            ("urn:ietf:params:rtp-hdrext:sdes:mid", RtpCodecKind::Video),
        ] {
            let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
            engine.register_header_extension(extension, kind, None).unwrap();
        }
        let interval = Duration::from_millis(500);
        let registry = Registry::new()
            .with(Slot::NackResponder, NackResponderBuilder::new().with_size(1024).build())
            .with(Slot::NackGenerator, NackGeneratorBuilder::new().with_interval(Duration::from_millis(20)).build())
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().with_interval(interval).build())
            .with(
                Slot::SenderReport,
                SenderReportBuilder::new().with_interval(interval).with_use_latest_packet().build(),
            );
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(Duration::from_millis(20)), Some(1_000))
            // A repeat on the same SSRC must still be new to SRTP when it comes a second late.
            .with_srtp_replay_protection_window(2_048)
            .with_ice_timeouts(None, None, Some(Duration::from_millis(500)))
            .build();
        let (state_tx, state) = watch::channel(RTCPeerConnectionState::New);
        let log = Log::default();
        let handler = Handler { state: state_tx, log: log.clone(), video_pt };
        let pc = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build()
            .await
            .unwrap();
        Self { pc: Arc::new(pc), state, log }
    }

    async fn offer(&self) -> String {
        let offer = self.pc.create_offer(None).await.unwrap();
        let text = offer.sdp.clone();
        self.pc.set_local_description(offer).await.unwrap();
        text
    }

    async fn answered(&self, sdp: String) {
        let answer = RTCSessionDescription::answer(sdp).unwrap();
        self.pc.set_remote_description(answer).await.unwrap();
    }

    /// Waits for the connection; the elapsed time.
    pub async fn connected(&mut self, limit: Duration) -> Option<Duration> {
        let begin = Instant::now();
        tokio::time::timeout(limit, self.state.wait_for(|state| *state == RTCPeerConnectionState::Connected))
            .await
            .ok()?
            .ok()?;
        Some(begin.elapsed())
    }

    pub fn got(&self, kind: &'static str) -> Vec<Got> {
        self.log.lock().unwrap().get(kind).cloned().unwrap_or_default()
    }
}

/// A publisher that sends numbered packets.
pub struct Publisher {
    pub client: Client,
    video: Arc<TrackLocalStaticRTP>,
    audio: Arc<TrackLocalStaticRTP>,
    video_ssrc: u32,
    audio_ssrc: u32,
    pub sent_video: AtomicU64,
    pub sent_audio: AtomicU64,
}

fn track(kind: RtpCodecKind, codec: RTCRtpCodec, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
    let name = format!("{kind}");
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "stream".to_owned(),
        name.clone(),
        name,
        kind,
        vec![RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() },
            active: true,
            codec,
            ..Default::default()
        }],
    )))
}

impl Publisher {
    async fn build(ssrc: u32, direction: RTCRtpTransceiverDirection) -> Self {
        let client = Client::new(96).await;
        let audio = track(RtpCodecKind::Audio, opus(), ssrc);
        let video = track(RtpCodecKind::Video, vp8(), ssrc + 1);
        for track in [&audio, &video] {
            let init = RTCRtpTransceiverInit { direction, ..Default::default() };
            client.pc.add_transceiver_from_track(track.clone() as Arc<dyn TrackLocal>, Some(init)).await.unwrap();
        }
        Self {
            client,
            video,
            audio,
            video_ssrc: ssrc + 1,
            audio_ssrc: ssrc,
            sent_video: AtomicU64::new(0),
            sent_audio: AtomicU64::new(0),
        }
    }

    pub async fn publish(sfu: &Sfu, leg: u64, stream: &str) -> Self {
        let mut publisher = Self::build(1_000_000 + leg as u32 * 10, RTCRtpTransceiverDirection::Sendonly).await;
        let offer = publisher.client.offer().await;
        let answer = sfu.publish(LegId(leg), spec(stream), &offer).await.unwrap();
        publisher.client.answered(answer.sdp).await;
        assert!(publisher.client.connected(Duration::from_secs(15)).await.is_some());
        publisher
    }

    /// As [`Publisher::publish`], sending and receiving (`doLoopback`).
    pub async fn publish_loopback(sfu: &Sfu, leg: u64, stream: &str) -> Self {
        let mut publisher = Self::build(1_000_000, RTCRtpTransceiverDirection::Sendrecv).await;
        let offer = publisher.client.offer().await;
        let mut spec = spec(stream);
        spec.loopback = true;
        let answer = sfu.publish(LegId(leg), spec, &offer).await.unwrap();
        publisher.client.answered(answer.sdp).await;
        assert!(publisher.client.connected(Duration::from_secs(15)).await.is_some());
        publisher
    }

    pub async fn reconnect(sfu: &Sfu, leg: u64, stream: &str) -> Self {
        let mut publisher = Self::build(1_000_000 + leg as u32 * 10, RTCRtpTransceiverDirection::Sendonly).await;
        let offer = publisher.client.offer().await;
        let answer = sfu.reconnect_publisher(LegId(leg), stream, &offer).await.unwrap();
        publisher.client.answered(answer.sdp).await;
        assert!(publisher.client.connected(Duration::from_secs(15)).await.is_some());
        publisher
    }

    /// Sends `frames` frames of three packets and an audio packet each, 10 ms apart. Packets are numbered from
    /// `first`; a following call has to go on with `first` and `sequence` 3 × `frames` higher.
    pub async fn send(&self, frames: u32, first: u32, sequence: u16, key_every: u32) {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut number = first;
        for frame in 0..frames {
            ticks.tick().await;
            let picture = (first / 3 + frame) as u16 & 0x7fff;
            for part in 0..3u16 {
                let key = frame % key_every == 0;
                let mut payload = BytesMut::new();
                payload.put_u8(if part == 0 { 0x90 } else { 0x80 });
                payload.put_u8(0x80);
                payload.put_u16(0x8000 | picture);
                payload.put_u8(u8::from(!key));
                payload.put_u32(number);
                payload.resize(900, 7);
                number += 1;
                let packet = rtc::rtp::Packet {
                    header: rtc::rtp::Header {
                        version: 2,
                        payload_type: 96,
                        sequence_number: sequence.wrapping_add((frame * 3) as u16 + part),
                        timestamp: (first / 3 + frame) * 900 + 77,
                        ssrc: self.video_ssrc,
                        marker: part == 2,
                        ..Default::default()
                    },
                    payload: payload.freeze(),
                };
                self.video.write_rtp(packet).await.unwrap();
                self.sent_video.fetch_add(1, Ordering::Relaxed);
            }
            let mut payload = BytesMut::new();
            payload.put_u32(first + frame);
            payload.resize(80, 1);
            let packet = rtc::rtp::Packet {
                header: rtc::rtp::Header {
                    version: 2,
                    payload_type: 111,
                    sequence_number: sequence.wrapping_sub(first as u16).wrapping_add((first / 3 + frame) as u16),
                    timestamp: (first / 3 + frame) * 480,
                    ssrc: self.audio_ssrc,
                    ..Default::default()
                },
                payload: payload.freeze(),
            };
            self.audio.write_rtp(packet).await.unwrap();
            self.sent_audio.fetch_add(1, Ordering::Relaxed);
        }
    }
}

pub fn spec(stream: &str) -> PublishSpec {
    PublishSpec {
        stream_id: stream.to_owned(),
        session: "session".to_owned(),
        audio: true,
        video: true,
        loopback: false,
        forced_video: None,
        size: None,
    }
}

/// A subscriber that offers; `video_pt` is its own number for VP8. Not yet connected when this returns.
pub async fn subscriber(sfu: &Sfu, leg: u64, stream: &str, video_pt: u8) -> Client {
    subscriber_with(sfu, leg, stream, video_pt, |offer| offer).await
}

/// As [`subscriber`], but the forwarder is reached through another address.
pub async fn subscriber_by(sfu: &Sfu, leg: u64, stream: &str, video_pt: u8, by: SocketAddr) -> Client {
    let (client, answer) = offering(sfu, leg, stream, video_pt, |offer| {
        // Without candidates the forwarder knows only what comes through the other address.
        let kept: Vec<&str> = offer.lines().filter(|line| !line.starts_with("a=candidate")).collect();
        kept.join("\r\n") + "\r\n"
    })
    .await;
    let own = format!("127.0.0.1 {} typ", sfu.udp_addr().port());
    assert!(answer.contains(&own));
    let other = format!("127.0.0.1 {} typ", by.port());
    client.answered(answer.replace(&own, &other)).await;
    client
}

/// As [`subscriber`], with the offer changed on its way.
pub async fn subscriber_with(
    sfu: &Sfu,
    leg: u64,
    stream: &str,
    video_pt: u8,
    change: impl FnOnce(String) -> String,
) -> Client {
    let (client, answer) = offering(sfu, leg, stream, video_pt, change).await;
    client.answered(answer).await;
    client
}

async fn offering(
    sfu: &Sfu,
    leg: u64,
    stream: &str,
    video_pt: u8,
    change: impl FnOnce(String) -> String,
) -> (Client, String) {
    let client = Client::new(video_pt).await;
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        let init = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Recvonly, ..Default::default() };
        client.pc.add_transceiver_from_kind(kind, Some(init)).await.unwrap();
    }
    let offer = change(client.offer().await);
    let answer = sfu.subscribe(LegId(leg), stream, &offer).await.unwrap();
    (client, answer.sdp)
}

/// A subscriber that answers the forwarder's offer.
pub async fn answering_subscriber(sfu: &Sfu, leg: u64, stream: &str) -> Client {
    let client = Client::new(96).await;
    let offer = sfu.prepare_subscribe(LegId(leg), stream).await.unwrap();
    let remote = RTCSessionDescription::offer(offer.sdp).unwrap();
    client.pc.set_remote_description(remote).await.unwrap();
    let answer = client.pc.create_answer(None).await.unwrap();
    let text = answer.sdp.clone();
    client.pc.set_local_description(answer).await.unwrap();
    sfu.set_answer(LegId(leg), &text).await.unwrap();
    client
}

/// Waits until `done`, at most `limit`.
pub async fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if done() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    done()
}

/// Sorted by extended sequence number: asserts one SSRC, no hole, no duplicate; returns the payload numbers.
pub fn unbroken(packets: &[Got]) -> Vec<u32> {
    assert!(!packets.is_empty(), "nothing received");
    let ssrc = packets[0].ssrc;
    let base = packets[0].sequence;
    let mut sorted: Vec<(i32, &Got)> = packets
        .iter()
        .map(|packet| {
            assert_eq!(packet.ssrc, ssrc, "one source per leg");
            (i32::from(packet.sequence.wrapping_sub(base) as i16), packet)
        })
        .collect();
    sorted.sort_by_key(|(at, _)| *at);
    sorted.dedup_by_key(|(at, _)| *at);
    for pair in sorted.windows(2) {
        assert_eq!(pair[0].0 + 1, pair[1].0, "hole in the sequence numbers");
    }
    sorted.iter().map(|(_, packet)| packet.number).collect()
}

pub fn bytes(data: &[u8]) -> Bytes {
    Bytes::copy_from_slice(data)
}
