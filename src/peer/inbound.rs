//! The packet tasks of a subscription.

use super::connection::{Shared, lock};
use super::engine;
use super::event::{MediaKind, PeerEvent};
use super::net::RttProbe;
use super::receive::Incoming;
use super::stats::ReceiveStats;
use super::transform::FrameTransform;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, AudioPacket, EncodedFrame, VideoCodec};
use crate::rtp::jitter::Jitter;
use crate::rtp::nack::{Arrival, NackConfig, Tracker};
use crate::rtp::packet::RtpPacket;
use crate::rtp::receiver::{Feedback, ReceiverConfig, VideoReceiver};
use crate::wire::to_rtp;
use rtc::rtcp::Packet;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

type VideoSink = Arc<dyn Fn(EncodedFrame) + Send + Sync>;
type AudioSink = Arc<dyn Fn(AudioPacket) + Send + Sync>;

/// Passes on the sender's clock mapping.
fn sender_reports(shared: &Shared, kind: MediaKind, compound: &[Box<dyn Packet>]) {
    for packet in compound {
        if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
            shared.emit(PeerEvent::SenderReport {
                kind,
                ntp: report.ntp_time,
                rtp: report.rtp_time,
                at: Instant::now(),
            });
        }
    }
}

/// Audio is asked for again only while playout can still wait for it.
const AUDIO_NACK: NackConfig = NackConfig {
    first_delay: Duration::from_millis(10),
    min_spacing: Duration::from_millis(20),
    max_requests: 3,
    max_age: Duration::from_millis(300),
    max_gap: 1000,
};

struct AudioState {
    tracker: Tracker,
    jitter: Jitter,
    packets: u64,
    bytes: u64,
    /// Whether the other side repeats audio when asked (`nack` on Opus).
    nack: bool,
}

/// Audio on its way in.
pub(super) struct AudioIn {
    pub(super) incoming: Arc<Incoming>,
    shared: Arc<Shared>,
    sink: AudioSink,
    transform: Option<Arc<dyn FrameTransform>>,
    state: Mutex<AudioState>,
}

impl AudioIn {
    pub(super) fn new(shared: Arc<Shared>, sink: AudioSink, transform: Option<Arc<dyn FrameTransform>>) -> Self {
        let state = AudioState {
            tracker: Tracker::new(AUDIO_NACK),
            jitter: Jitter::new(AUDIO_CLOCK_HZ),
            packets: 0,
            bytes: 0,
            nack: false,
        };
        let incoming = Arc::new(Incoming::new(MediaKind::Audio));
        Self { incoming, shared, sink, transform, state: Mutex::new(state) }
    }

    /// What the descriptions agreed on.
    pub(super) fn set_nack(&self, nack: bool) {
        lock(&self.state).nack = nack;
    }

    fn packet(&self, packet: RtpPacket, now: Instant) {
        {
            let mut state = lock(&self.state);
            match state.tracker.push(packet.sequence, now) {
                Arrival::Duplicate | Arrival::TooOld => return,
                Arrival::New(_) | Arrival::Restarted(_) => state.jitter.update(packet.timestamp, now),
                Arrival::Recovered(_) | Arrival::Reordered(_) => {}
            }
            if packet.payload.is_empty() {
                // Padding: it has a number, but nothing to play.
                return;
            }
            state.packets += 1;
            state.bytes += packet.payload.len() as u64;
        }
        self.incoming.packet(&self.shared, now, packet.payload.len());
        let data = match &self.transform {
            Some(transform) => transform.inbound(MediaKind::Audio, packet.payload),
            None => Some(packet.payload),
        };
        if let Some(data) = data {
            (self.sink)(AudioPacket { sequence: packet.sequence, rtp_timestamp: packet.timestamp, data, at: now });
        }
    }

    /// Packets to ask for now, and when to look again.
    fn missing(&self, now: Instant) -> (Vec<u16>, Option<Instant>) {
        let mut state = lock(&self.state);
        if !state.nack {
            return (Vec::new(), None);
        }
        let due = state.tracker.poll(now);
        (due, state.tracker.poll_timeout())
    }

    pub(super) fn stats(&self) -> ReceiveStats {
        let bitrate_bps = lock(&self.incoming.rate).bps(Instant::now());
        let state = lock(&self.state);
        ReceiveStats {
            codec: (state.packets > 0).then_some("opus"),
            packets: state.packets,
            bytes: state.bytes,
            bitrate_bps,
            packets_lost: state.tracker.lost().saturating_sub(state.tracker.recovered()),
            packets_recovered: state.tracker.recovered(),
            nacks: state.tracker.requested(),
            jitter_ms: (state.packets > 1).then(|| state.jitter.ms()),
            frames: state.packets,
            ..ReceiveStats::default()
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Who asks, in feedback of a side that sends nothing; the number that browsers use, which Kurento is known to answer.
const FEEDBACK_SSRC: u32 = 1;

fn nack(media_ssrc: u32, sequences: &[u16]) -> Box<dyn Packet> {
    Box::new(TransportLayerNack {
        sender_ssrc: FEEDBACK_SSRC,
        media_ssrc,
        nacks: nack_pairs_from_sequence_numbers(sequences),
    })
}

/// Moves the packets of one audio track; without a taker it only empties the queue.
pub(super) async fn audio_task(track: Arc<dyn TrackRemote>, to: Option<Arc<AudioIn>>) {
    let Some(to) = to else {
        while track.poll().await.is_some() {}
        return;
    };
    let mut ssrc = None;
    let mut wake = None;
    loop {
        tokio::select! {
            event = track.poll() => match event {
                None => return,
                Some(TrackRemoteEvent::OnRtpPacket(packet)) => {
                    ssrc = Some(packet.header.ssrc);
                    to.packet(to_rtp(&packet), Instant::now());
                }
                Some(TrackRemoteEvent::OnRtcpPacket(compound)) => sender_reports(&to.shared, MediaKind::Audio, &compound),
                Some(_) => {}
            },
            () = until(wake) => {}
        }
        let (due, next) = to.missing(Instant::now());
        wake = next;
        if let (Some(ssrc), false) = (ssrc, due.is_empty()) {
            let _ = track.write_rtcp(vec![nack(ssrc, &due)]).await;
        }
    }
}

struct VideoState {
    /// A key frame has come.
    began: bool,
    /// Made with the first packet, when the codec is known; anew when the codec changes.
    receiver: Option<VideoReceiver>,
    codec: Option<VideoCodec>,
    repair: Repair,
}

/// What the other side is able to repair.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Repair {
    /// It repeats packets when asked.
    pub(super) nack: bool,
    /// It is a Kurento: it repairs outages of seconds, and passes no key frame request on.
    pub(super) kurento: bool,
}

/// Video on its way in.
pub(super) struct VideoIn {
    pub(super) incoming: Arc<Incoming>,
    shared: Arc<Shared>,
    sink: VideoSink,
    transform: Option<Arc<dyn FrameTransform>>,
    state: Mutex<VideoState>,
    wake: Notify,
}

impl VideoIn {
    pub(super) fn new(shared: Arc<Shared>, sink: VideoSink, transform: Option<Arc<dyn FrameTransform>>) -> Self {
        let state = VideoState { began: false, receiver: None, codec: None, repair: Repair::default() };
        let incoming = Arc::new(Incoming::new(MediaKind::Video));
        Self { incoming, shared, sink, transform, state: Mutex::new(state), wake: Notify::new() }
    }

    /// What the descriptions agreed on.
    pub(super) fn set_repair(&self, repair: Repair) {
        lock(&self.incoming.arrivals).set_deaf(repair.kurento);
        lock(&self.state).repair = repair;
    }

    /// The decoder lost its references: ask for a key frame and hold back what cannot be decoded. `false` when nobody will listen.
    pub(super) fn request_key_frame(&self) -> bool {
        let heard = {
            let mut state = lock(&self.state);
            if let Some(receiver) = &mut state.receiver {
                receiver.decoder_lost(Instant::now());
            }
            !state.repair.kurento
        };
        self.wake.notify_one();
        heard
    }

    /// The sender announced a pause: silence is no freeze.
    pub(super) fn note_pause(&self) {
        if let Some(receiver) = &mut lock(&self.state).receiver {
            receiver.note_pause();
        }
    }

    fn packet(&self, packet: RtpPacket, codec: VideoCodec, now: Instant) {
        self.incoming.packet(&self.shared, now, packet.payload.len());
        let mut state = lock(&self.state);
        if state.codec != Some(codec) {
            let mut config = match state.repair.kurento {
                true => ReceiverConfig::kurento(codec),
                false => ReceiverConfig::standard(codec),
            };
            config.nack = config.nack.filter(|_| state.repair.nack);
            state.receiver = Some(VideoReceiver::new(config));
            state.codec = Some(codec);
        }
        if let Some(receiver) = &mut state.receiver {
            receiver.push(packet, now);
        }
    }

    /// Hands on what is complete; then what to tell the sender, and when to look again.
    fn advance(&self, rtt: Option<Duration>, now: Instant) -> (Feedback, Option<Instant>) {
        loop {
            let (frame, began) = {
                let mut state = lock(&self.state);
                let Some(receiver) = &mut state.receiver else { return (Feedback::default(), None) };
                let Some(frame) = receiver.poll_frame() else {
                    if let Some(rtt) = rtt {
                        receiver.set_rtt(rtt);
                    }
                    let feedback = receiver.poll_feedback(now);
                    let (keyless, next) = (receiver.waiting_since(), receiver.poll_timeout());
                    drop(state);
                    lock(&self.incoming.arrivals).keyless(keyless);
                    return (feedback, next);
                };
                let began = frame.key_frame && !std::mem::replace(&mut state.began, true);
                (frame, began)
            };
            if began {
                self.shared.emit(PeerEvent::FirstKeyFrame);
            }
            let data = match &self.transform {
                Some(transform) => transform.inbound(MediaKind::Video, frame.data),
                None => Some(frame.data),
            };
            if let Some(data) = data {
                (self.sink)(EncodedFrame { data, ..frame });
            }
        }
    }

    pub(super) fn stats(&self) -> ReceiveStats {
        let bitrate_bps = lock(&self.incoming.rate).bps(Instant::now());
        let state = lock(&self.state);
        let Some(stats) = state.receiver.as_ref().map(VideoReceiver::stats) else { return ReceiveStats::default() };
        ReceiveStats {
            codec: state.codec.map(VideoCodec::name),
            packets: stats.packets,
            bytes: stats.bytes,
            bitrate_bps,
            packets_lost: stats.packets_lost.saturating_sub(stats.packets_recovered),
            packets_recovered: stats.packets_recovered,
            nacks: stats.nacks,
            plis: stats.plis,
            jitter_ms: (stats.packets > 1).then_some(stats.jitter_ms),
            frames: stats.frames,
            key_frames: stats.key_frames,
            frames_dropped: stats.frames_dropped,
            freezes: stats.freezes,
            freeze_ms: stats.freeze_ms,
        }
    }
}

/// Moves the packets of one video track and sends its feedback.
pub(super) async fn video_task(track: Arc<dyn TrackRemote>, to: Option<Arc<VideoIn>>, rtt: Arc<RttProbe>) {
    let Some(to) = to else {
        while track.poll().await.is_some() {}
        return;
    };
    let mut known: Option<(u32, u8)> = None;
    let mut codec = None;
    let mut wake = None;
    loop {
        tokio::select! {
            event = track.poll() => match event {
                None => return,
                Some(TrackRemoteEvent::OnRtpPacket(packet)) => {
                    let id = (packet.header.ssrc, packet.header.payload_type);
                    if known != Some(id) {
                        known = Some(id);
                        codec = track.codec(packet.header.ssrc).await.and_then(|codec| engine::codec_of(&codec));
                    }
                    if let Some(codec) = codec {
                        to.packet(to_rtp(&packet), codec, Instant::now());
                    }
                }
                Some(TrackRemoteEvent::OnRtcpPacket(compound)) => sender_reports(&to.shared, MediaKind::Video, &compound),
                Some(_) => {}
            },
            () = to.wake.notified() => {}
            () = until(wake) => {}
        }
        let (feedback, next) = to.advance(rtt.rtt(), Instant::now());
        wake = next;
        let Some(media_ssrc) = feedback.ssrc else { continue };
        let mut compound: Vec<Box<dyn Packet>> = Vec::new();
        if !feedback.nacks.is_empty() {
            compound.push(nack(media_ssrc, &feedback.nacks));
        }
        if feedback.pli {
            compound.push(Box::new(PictureLossIndication { sender_ssrc: FEEDBACK_SSRC, media_ssrc }));
        }
        if !compound.is_empty() {
            let _ = track.write_rtcp(compound).await;
        }
    }
}
