//! A bare peer connection for the other side, dressed up as a recorded Kurento.
#![allow(dead_code)]

use bytes::Bytes;
use rtc::interceptor::{NackResponderBuilder, ReceiverReportBuilder, SenderReportBuilder, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tertulia::peer::{PeerEvent, Publication, PublishMedia, Sinks, SubscribeMedia, Subscription, TransportConfig};
use tertulia::rtp::frame::{AudioPacket, EncodedAudio, EncodedFrame, VideoCodec};
use tokio::sync::mpsc;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::*;
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

pub fn config() -> TransportConfig {
    TransportConfig { local_addrs: vec![IpAddr::from([127, 0, 0, 1])], ..TransportConfig::default() }
}

#[derive(Clone, Default)]
pub struct Taken {
    pub video: Arc<Mutex<Vec<EncodedFrame>>>,
    pub audio: Arc<Mutex<Vec<AudioPacket>>>,
}

impl Taken {
    pub fn sinks(&self) -> Sinks {
        let (video, audio) = (Arc::clone(&self.video), Arc::clone(&self.audio));
        Sinks {
            video: Arc::new(move |f| video.lock().unwrap().push(f)),
            audio: Arc::new(move |p| audio.lock().unwrap().push(p)),
        }
    }
}

fn noise(seed: u32, data: &mut Vec<u8>, size: usize) {
    let mut x = seed.wrapping_mul(2_654_435_761).max(1);
    while data.len() < size {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        // No byte that could make a start code.
        data.push((x as u8) | 4);
    }
}

/// A VP8-looking frame: the frame tag says key or inter, the rest is noise that must arrive untouched.
pub fn vp8_frame(n: u32, key: bool, size: usize) -> EncodedFrame {
    let mut data = vec![u8::from(!key), 0, 0];
    if key {
        // Start code, 640×480.
        data.extend_from_slice(&[0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01]);
    }
    noise(n, &mut data, size);
    frame(VideoCodec::Vp8, n, key, data)
}

/// An H264-looking access unit in Annex B: parameter sets and an IDR slice, or one slice.
pub fn h264_frame(n: u32, key: bool, size: usize) -> EncodedFrame {
    let mut data = Vec::new();
    if key {
        data.extend_from_slice(&[0, 0, 0, 1, 0x67, 0x42, 0xe0, 0x1f, 0xda, 0x02, 0x80, 0xf6, 0x40]);
        data.extend_from_slice(&[0, 0, 0, 1, 0x68, 0xce, 0x06, 0xe2]);
    }
    data.extend_from_slice(&[0, 0, 0, 1, if key { 0x65 } else { 0x61 }]);
    noise(n, &mut data, size);
    frame(VideoCodec::H264, n, key, data)
}

fn frame(codec: VideoCodec, n: u32, key_frame: bool, data: Vec<u8>) -> EncodedFrame {
    EncodedFrame { codec, data: Bytes::from(data), rtp_timestamp: n * 3000, key_frame, size: None, at: Instant::now() }
}

pub fn opus_packet(n: u32) -> EncodedAudio {
    let data: Vec<u8> = (0..80).map(|i| (n * 31 + i) as u8).collect();
    EncodedAudio {
        data: Bytes::from(data),
        rtp_timestamp: n * 960,
        samples: 960,
        level: 30,
        voice: true,
        at: Instant::now(),
    }
}

pub async fn wait_for(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < limit, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What arrived at the bare side: kind of the track it was delivered on, packet.
pub type Packets = Arc<Mutex<Vec<(RtpCodecKind, rtc::rtp::Packet)>>>;

struct Handler {
    candidates: mpsc::Sender<String>,
    state: Arc<Mutex<RTCPeerConnectionState>>,
    packets: Packets,
    tracks: Arc<Mutex<Vec<Arc<dyn TrackRemote>>>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let _ = self.candidates.try_send(event.candidate.to_json().unwrap().candidate);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        *self.state.lock().unwrap() = state;
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tracks.lock().unwrap().push(Arc::clone(&track));
        let packets = Arc::clone(&self.packets);
        tokio::spawn(async move {
            let kind = track.kind().await;
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    packets.lock().unwrap().push((kind, packet));
                }
            }
        });
    }
}

/// The bare side.
pub struct Other {
    pub pc: Arc<dyn PeerConnection>,
    pub candidates: mpsc::Receiver<String>,
    pub state: Arc<Mutex<RTCPeerConnectionState>>,
    pub packets: Packets,
    pub tracks: Arc<Mutex<Vec<Arc<dyn TrackRemote>>>>,
}

pub fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "audio/opus".into(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".into(),
        rtcp_feedback: vec![],
    }
}

pub fn video(name: &str) -> RTCRtpCodec {
    let fmtp =
        if name == "H264" { "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f" } else { "" };
    let feedback = [("goog-remb", ""), ("ccm", "fir"), ("nack", ""), ("nack", "pli")];
    RTCRtpCodec {
        mime_type: format!("video/{name}"),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: fmtp.into(),
        rtcp_feedback: feedback.map(|(t, p)| RTCPFeedback { typ: t.into(), parameter: p.into() }).to_vec(),
    }
}

impl Other {
    /// A side that knows Opus and one video codec under the given payload types, as Kurento does after openvidu-server's reduction.
    pub async fn new(opus_pt: u8, name: &str, video_pt: u8) -> Self {
        let mut engine = MediaEngine::default();
        engine
            .register_codec(RTCRtpCodecParameters { rtp_codec: opus(), payload_type: opus_pt }, RtpCodecKind::Audio)
            .unwrap();
        engine
            .register_codec(
                RTCRtpCodecParameters { rtp_codec: video(name), payload_type: video_pt },
                RtpCodecKind::Video,
            )
            .unwrap();
        let registry = Registry::new()
            .with(Slot::NackResponder, NackResponderBuilder::new().build())
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().with_interval(Duration::from_millis(200)).build())
            .with(
                Slot::SenderReport,
                SenderReportBuilder::new().with_interval(Duration::from_millis(200)).with_use_latest_packet().build(),
            );
        let (tx, candidates) = mpsc::channel(64);
        let state = Arc::new(Mutex::new(RTCPeerConnectionState::New));
        let packets = Packets::default();
        let tracks = Arc::default();
        let handler = Handler {
            candidates: tx,
            state: Arc::clone(&state),
            packets: Arc::clone(&packets),
            tracks: Arc::clone(&tracks),
        };
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(true)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .build();
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
        Self { pc: Arc::new(pc), candidates, state, packets, tracks }
    }

    /// A track of ours under a given SSRC.
    pub async fn add_track(&self, codec: RTCRtpCodec, ssrc: u32) -> Arc<TrackLocalStaticRTP> {
        let kind = if codec.mime_type.starts_with("audio") { RtpCodecKind::Audio } else { RtpCodecKind::Video };
        let coding = RTCRtpCodingParameters { ssrc: Some(ssrc), ..Default::default() };
        let encoding =
            RTCRtpEncodingParameters { rtp_coding_parameters: coding, active: true, codec, ..Default::default() };
        let track = MediaStreamTrack::new("s".into(), format!("t{ssrc}"), format!("t{ssrc}"), kind, vec![encoding]);
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let init = RTCRtpTransceiverInit { direction: RTCRtpTransceiverDirection::Sendonly, ..Default::default() };
        self.pc.add_transceiver_from_track(track.clone() as Arc<dyn TrackLocal>, Some(init)).await.unwrap();
        track
    }

    pub async fn answer(&self, offer: &str) -> String {
        self.pc.set_remote_description(RTCSessionDescription::offer(offer.to_owned()).unwrap()).await.unwrap();
        let answer = self.pc.create_answer(None).await.unwrap();
        self.pc.set_local_description(answer.clone()).await.unwrap();
        answer.sdp
    }

    pub async fn offer(&self) -> String {
        let offer = self.pc.create_offer(None).await.unwrap();
        self.pc.set_local_description(offer.clone()).await.unwrap();
        offer.sdp
    }

    pub async fn set_answer(&self, answer: &str) {
        self.pc.set_remote_description(RTCSessionDescription::answer(answer.to_owned()).unwrap()).await.unwrap();
    }

    pub async fn add_candidate(&self, candidate: &str) {
        let init = RTCIceCandidateInit {
            candidate: candidate.to_owned(),
            sdp_mid: Some(String::new()),
            sdp_mline_index: Some(0),
            ..Default::default()
        };
        self.pc.add_ice_candidate(init).await.unwrap();
    }

    pub fn connected(&self) -> bool {
        *self.state.lock().unwrap() == RTCPeerConnectionState::Connected
    }
}

/// First value of an attribute anywhere in a description.
pub fn attribute(sdp: &str, name: &str) -> String {
    let prefix = format!("a={name}:");
    sdp.lines().find_map(|line| line.trim_end().strip_prefix(&prefix)).unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// The recorded text with the transport of a living side: user name, password, fingerprint on the m-lines. A session-level fingerprint of the
/// record (Kurento repeating the offerer's own) becomes `session_fingerprint`.
pub fn dressed_up(recorded: &str, living: &str, session_fingerprint: Option<&str>) -> String {
    let (ufrag, pwd, fingerprint) =
        (attribute(living, "ice-ufrag"), attribute(living, "ice-pwd"), attribute(living, "fingerprint"));
    let mut media = false;
    let mut out = String::new();
    for line in recorded.lines().map(str::trim_end) {
        media |= line.starts_with("m=");
        let line = if line.starts_with("a=ice-ufrag:") {
            format!("a=ice-ufrag:{ufrag}")
        } else if line.starts_with("a=ice-pwd:") {
            format!("a=ice-pwd:{pwd}")
        } else if line.starts_with("a=fingerprint:") {
            format!("a=fingerprint:{}", if media { &fingerprint } else { session_fingerprint.unwrap() })
        } else {
            line.to_owned()
        };
        out.push_str(&line);
        out.push_str("\r\n");
    }
    out
}

/// A relay between us and the other side that drops what `drop` says.
pub async fn relay(to: std::net::SocketAddr, drop: impl Fn(&[u8]) -> bool + Send + 'static) -> std::net::SocketAddr {
    let front = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let back = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    tokio::spawn(async move {
        let mut client = None;
        let (mut a, mut b) = (vec![0u8; 2048], vec![0u8; 2048]);
        loop {
            tokio::select! {
                Ok((n, from)) = front.recv_from(&mut a) => {
                    client = Some(from);
                    if !drop(&a[..n]) {
                        let _ = back.send_to(&a[..n], to).await;
                    }
                }
                Ok((n, _)) = back.recv_from(&mut b) => {
                    if let (Some(client), false) = (client, drop(&b[..n])) {
                        let _ = front.send_to(&b[..n], client).await;
                    }
                }
            }
        }
    });
    address
}

/// A socket that swallows everything: what a pair of component 2 would lead to.
pub fn black_hole() -> (std::net::UdpSocket, u16) {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// What Kurento sends for one host candidate: for each m-line UDP, TCP active and passive, and all of them for component 2 on other ports.
pub fn kurento_candidates(udp: &str, dead_port: u16) -> Vec<(String, String, u16)> {
    let fields: Vec<&str> = udp.trim_start_matches("candidate:").split(' ').collect();
    let (address, port) = (fields[4], fields[5]);
    let mut out = Vec::new();
    // The wrong component first and with the higher priority: the trap has to be real.
    for (index, mid) in ["0", "1"].iter().enumerate() {
        for line in [
            format!("candidate:1 2 UDP 2130706431 {address} {dead_port} typ host"),
            format!("candidate:2 1 TCP 1015022591 {address} 9 typ host tcptype active"),
            format!("candidate:3 1 TCP 1010828287 {address} {dead_port} typ host tcptype passive"),
            format!("candidate:2 2 TCP 1015022590 {address} 9 typ host tcptype active"),
            format!("candidate:1 1 UDP 2015364095 {address} {port} typ host"),
        ] {
            out.push((line, (*mid).to_owned(), index as u16));
        }
    }
    out
}

/// What a handle has told.
pub type Log = Arc<Mutex<Vec<PeerEvent>>>;

/// A publisher and a subscriber that are about to connect, and what they tell.
pub struct Pair {
    pub publication: Arc<Publication>,
    pub subscription: Arc<Subscription>,
    pub published: Log,
    pub subscribed: Log,
}

/// Whether a handle has connected.
pub fn connected(log: &Log) -> bool {
    log.lock().unwrap().contains(&PeerEvent::Connected)
}

/// Negotiates `media` from `publisher` to `subscriber`, who takes it into `taken`.
pub async fn pair(
    publisher: &TransportConfig,
    subscriber: &TransportConfig,
    media: PublishMedia,
    taken: &Taken,
) -> Pair {
    let (publication, pub_events) = Publication::new(publisher, media).await.unwrap();
    let both = SubscribeMedia { audio: true, video: true };
    let (subscription, sub_events) = Subscription::new(subscriber, both, taken.sinks()).await.unwrap();
    let (publication, subscription) = (Arc::new(publication), Arc::new(subscription));
    let offer = publication.offer().await.unwrap();
    let to = Arc::clone(&subscription);
    let published = pump(pub_events, move |candidate, mid, index| {
        let to = Arc::clone(&to);
        async move { to.add_candidate(&candidate, mid, index).await.unwrap() }
    });
    let answer = subscription.answer(&offer).await.unwrap();
    let to = Arc::clone(&publication);
    let subscribed = pump(sub_events, move |candidate, mid, index| {
        let to = Arc::clone(&to);
        async move { to.add_candidate(&candidate, mid, index).await.unwrap() }
    });
    publication.set_answer(&answer).await.unwrap();
    Pair { publication, subscription, published, subscribed }
}

/// Carries candidates from one handle's events to the other, keeps the rest.
fn pump<F>(
    mut events: mpsc::Receiver<PeerEvent>,
    carry: impl Fn(String, Option<String>, Option<u16>) -> F + Send + 'static,
) -> Log
where
    F: Future<Output = ()> + Send,
{
    let log = Log::default();
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let PeerEvent::LocalCandidate { candidate, sdp_mid, sdp_mline_index } = &event {
                carry(candidate.clone(), sdp_mid.clone(), *sdp_mline_index).await;
            }
            kept.lock().unwrap().push(event);
        }
    });
    log
}
