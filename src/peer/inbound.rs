//! The packet tasks of a subscription.

use super::connection::{Shared, lock};
use super::event::{MediaKind, PeerEvent};
use super::receive::Incoming;
use super::stats::ReceiveStats;
use super::transform::FrameTransform;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, AudioPacket, EncodedFrame, VideoCodec};
use crate::rtp::jitter::Jitter;
use crate::rtp::packet::RtpPacket;
use crate::rtp::seq::Unwrapper;
use rtc::rtcp::Packet;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::sender_report::SenderReport;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};

/// A key frame request on its way: at most one per this time.
const PLI_INTERVAL: Duration = Duration::from_millis(300);
/// Sequence numbers remembered for telling duplicates.
const REMEMBERED: u64 = 128;

type VideoSink = Arc<dyn Fn(EncodedFrame) + Send + Sync>;
type AudioSink = Arc<dyn Fn(AudioPacket) + Send + Sync>;

fn from_wire(packet: rtc::rtp::Packet) -> RtpPacket {
    RtpPacket {
        payload_type: packet.header.payload_type,
        marker: packet.header.marker,
        sequence: packet.header.sequence_number,
        timestamp: packet.header.timestamp,
        ssrc: packet.header.ssrc,
        payload: packet.payload,
    }
}

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

/// Which sequence numbers came, for duplicates and loss.
#[derive(Debug, Default)]
struct Tally {
    numbers: Unwrapper,
    first: Option<u64>,
    /// Bit n: highest − n has come.
    seen: u128,
    received: u64,
}

impl Tally {
    /// Whether this number is new.
    fn note(&mut self, sequence: u16) -> bool {
        let before = self.numbers.highest();
        let number = self.numbers.unwrap(sequence);
        let first = *self.first.get_or_insert(number);
        match before {
            Some(highest) if number > highest => {
                let step = number - highest;
                self.seen = if step >= REMEMBERED { 0 } else { self.seen << step };
                self.seen |= 1;
            }
            Some(highest) => {
                let age = highest - number;
                if age >= REMEMBERED || self.seen & (1 << age) != 0 {
                    return false;
                }
                self.seen |= 1 << age;
            }
            None => self.seen = 1,
        }
        self.first = Some(first.min(number));
        self.received += 1;
        true
    }

    fn lost(&self) -> u64 {
        match (self.first, self.numbers.highest()) {
            (Some(first), Some(highest)) => (highest - first + 1).saturating_sub(self.received),
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct AudioState {
    tally: Tally,
    jitter: Jitter,
    bytes: u64,
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
        let state = AudioState { tally: Tally::default(), jitter: Jitter::new(AUDIO_CLOCK_HZ), bytes: 0 };
        Self { incoming: Arc::new(Incoming::new(MediaKind::Audio)), shared, sink, transform, state: Mutex::new(state) }
    }

    fn packet(&self, packet: RtpPacket, now: Instant) {
        if packet.payload.is_empty() {
            return;
        }
        {
            let mut state = lock(&self.state);
            if !state.tally.note(packet.sequence) {
                return;
            }
            state.bytes += packet.payload.len() as u64;
            state.jitter.update(packet.timestamp, now);
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

    pub(super) fn stats(&self) -> ReceiveStats {
        let state = lock(&self.state);
        let packets = state.tally.received;
        ReceiveStats {
            codec: (packets > 0).then_some("opus"),
            packets,
            bytes: state.bytes,
            bitrate_bps: lock(&self.incoming.rate).bps(Instant::now()),
            packets_lost: state.tally.lost(),
            jitter_ms: (packets > 1).then(|| state.jitter.ms()),
            frames: packets,
            ..ReceiveStats::default()
        }
    }
}

/// Moves the packets of one audio track; without a taker it only empties the queue.
pub(super) async fn audio_task(track: Arc<dyn TrackRemote>, to: Option<Arc<AudioIn>>) {
    while let Some(event) = track.poll().await {
        let Some(to) = &to else { continue };
        match event {
            TrackRemoteEvent::OnRtpPacket(packet) => to.packet(from_wire(packet), Instant::now()),
            TrackRemoteEvent::OnRtcpPacket(compound) => sender_reports(&to.shared, MediaKind::Audio, &compound),
            _ => {}
        }
    }
}

struct VideoState {
    tally: Tally,
    jitter: Jitter,
    bytes: u64,
    plis: u64,
    pli_at: Option<Instant>,
    payloads: Vec<bytes::Bytes>,
    frames: u64,
    key_frames: u64,
    codec: Option<VideoCodec>,
}

/// Video on its way in.
pub(super) struct VideoIn {
    pub(super) incoming: Arc<Incoming>,
    shared: Arc<Shared>,
    sink: VideoSink,
    transform: Option<Arc<dyn FrameTransform>>,
    state: Mutex<VideoState>,
    wanted: Notify,
}

impl VideoIn {
    pub(super) fn new(shared: Arc<Shared>, sink: VideoSink, transform: Option<Arc<dyn FrameTransform>>) -> Self {
        let state = VideoState {
            tally: Tally::default(),
            jitter: Jitter::new(90_000),
            bytes: 0,
            plis: 0,
            pli_at: None,
            payloads: Vec::new(),
            frames: 0,
            key_frames: 0,
            codec: None,
        };
        Self {
            incoming: Arc::new(Incoming::new(MediaKind::Video)),
            shared,
            sink,
            transform,
            state: Mutex::new(state),
            wanted: Notify::new(),
        }
    }

    pub(super) fn request_key_frame(&self) {
        self.wanted.notify_one();
    }

    fn packet(&self, packet: RtpPacket, codec: VideoCodec, now: Instant) {
        self.incoming.packet(&self.shared, now, packet.payload.len());
        let frame = {
            let mut state = lock(&self.state);
            if packet.payload.is_empty() || !state.tally.note(packet.sequence) {
                return;
            }
            state.codec = Some(codec);
            state.bytes += packet.payload.len() as u64;
            state.jitter.update(packet.timestamp, now);
            state.payloads.push(packet.payload);
            if !packet.marker {
                return;
            }
            let payloads = std::mem::take(&mut state.payloads);
            let Ok(frame) = crate::rtp::depacketise::assemble(codec, payloads.iter()) else { return };
            state.frames += 1;
            state.key_frames += u64::from(frame.key_frame);
            frame
        };
        if frame.key_frame {
            lock(&self.incoming.arrivals).key_frame();
        }
        let data = match &self.transform {
            Some(transform) => transform.inbound(MediaKind::Video, frame.data),
            None => Some(frame.data),
        };
        if let Some(data) = data {
            (self.sink)(EncodedFrame {
                codec,
                data,
                rtp_timestamp: packet.timestamp,
                key_frame: frame.key_frame,
                size: frame.size,
                at: now,
            });
        }
    }

    pub(super) fn stats(&self) -> ReceiveStats {
        let state = lock(&self.state);
        ReceiveStats {
            codec: state.codec.map(VideoCodec::name),
            packets: state.tally.received,
            bytes: state.bytes,
            bitrate_bps: lock(&self.incoming.rate).bps(Instant::now()),
            packets_lost: state.tally.lost(),
            plis: state.plis,
            jitter_ms: (state.tally.received > 1).then(|| state.jitter.ms()),
            frames: state.frames,
            key_frames: state.key_frames,
            ..ReceiveStats::default()
        }
    }
}

/// Moves the packets of one video track and sends its feedback.
pub(super) async fn video_task(track: Arc<dyn TrackRemote>, to: Option<Arc<VideoIn>>) {
    let Some(to) = to else {
        while track.poll().await.is_some() {}
        return;
    };
    let mut ssrc = None;
    let mut codec = None;
    loop {
        let event = tokio::select! {
            event = track.poll() => event,
            () = to.wanted.notified() => {
                if let Some(media_ssrc) = ssrc {
                    let due = {
                        let mut state = lock(&to.state);
                        let due = state.pli_at.is_none_or(|at| at.elapsed() >= PLI_INTERVAL);
                        if due {
                            state.pli_at = Some(Instant::now());
                            state.plis += 1;
                        }
                        due
                    };
                    if due {
                        let _ = track.write_rtcp(vec![Box::new(PictureLossIndication { sender_ssrc: 0, media_ssrc })]).await;
                    }
                }
                continue;
            }
        };
        let Some(event) = event else { return };
        match event {
            TrackRemoteEvent::OnRtpPacket(packet) => {
                if ssrc != Some(packet.header.ssrc) {
                    ssrc = Some(packet.header.ssrc);
                    codec = track.codec(packet.header.ssrc).await.and_then(|codec| super::engine::codec_of(&codec));
                }
                if let Some(codec) = codec {
                    to.packet(from_wire(packet), codec, Instant::now());
                }
            }
            TrackRemoteEvent::OnRtcpPacket(compound) => sender_reports(&to.shared, MediaKind::Video, &compound),
            _ => {}
        }
    }
}
