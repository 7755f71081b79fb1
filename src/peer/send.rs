//! From encoded media to packets on their way: queue, packetiser, pacer.

use super::connection::{Shared, lock};
use super::event::{MediaKind, PeerEvent};
use super::meter::Meter;
use super::stats::SendStats;
use super::transform::FrameTransform;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, EncodedAudio, EncodedFrame, VIDEO_CLOCK_HZ, VideoCodec};
use crate::rtp::pace::Pacer;
use crate::rtp::packet::RtpPacket;
use crate::rtp::packetise::{AudioPacketizer, VideoPacketizer};
use crate::wire::{WireHandle, from_rtp};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use webrtc::media_stream::track_local::TrackLocal;

/// Frames waiting for the pacer; at 30 fps two thirds of a second.
const QUEUED_FRAMES: usize = 20;
/// Opus packets waiting: five seconds. It only fills when the stack has stopped.
const QUEUED_AUDIO: usize = 250;
/// The pacer's beat: waking the stack costs more than a packet does.
const PACER_TICK: Duration = Duration::from_millis(5);
/// A backlog leaves within this time, whatever the target.
const DRAIN: Duration = Duration::from_millis(200);
/// Above the target by this factor, so that frames larger than the mean do not pile up.
const PACING_FACTOR: f64 = 2.0;
/// Where pictures may take their time: of that pace, and how long a backlog has.
const PATIENT_SHARE: f64 = 1.1 / PACING_FACTOR;
const PATIENT_DRAIN: Duration = Duration::from_secs(1);
/// Key frame requests towards the encoder.
pub(super) const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(300);
/// Before anything is known of the path.
pub(super) const FIRST_TARGET_BPS: u64 = 300_000;
/// 50 Opus packets a second, each with about 58 bytes of headers and tags.
const AUDIO_OVERHEAD_BPS: f64 = 50.0 * 58.0 * 8.0;

/// What one kind has sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) stats: SendStats,
    meter: Meter,
}

impl Sent {
    fn packet(&mut self, now: Instant, bytes: usize) {
        self.stats.packets += 1;
        self.stats.bytes += bytes as u64;
        self.meter.add(now, bytes);
    }

    /// Bits per second on the path, with what lies below RTP.
    pub(super) fn rate(&mut self) -> f64 {
        let payload = self.meter.bps(Instant::now());
        if payload == 0 { 0.0 } else { payload as f64 + AUDIO_OVERHEAD_BPS }
    }

    pub(super) fn snapshot(&mut self) -> SendStats {
        self.stats.bitrate_bps = self.meter.bps(Instant::now());
        self.stats.clone()
    }
}

/// Frames of one layer.
#[derive(Debug)]
struct VideoQueue {
    frames: VecDeque<EncodedFrame>,
    /// Nothing but a key frame may follow: at the start, and after frames were dropped.
    await_key: bool,
    asked_at: Option<Instant>,
}

/// What a picture makes use of about whose size nothing was said, in bit/s.
const USEFUL_BPS: u64 = 2_500_000;

/// The queues between encoders and packet tasks.
#[derive(Debug)]
pub(super) struct Outbox {
    shared: Arc<Shared>,
    /// One queue per layer, the lowest first.
    video: Mutex<Vec<VideoQueue>>,
    wake: Notify,
    audio: mpsc::Sender<EncodedAudio>,
    pub(super) video_sent: Mutex<Sent>,
    pub(super) audio_sent: Mutex<Sent>,
    pub(super) target_bps: AtomicU64,
    /// More than this is of no use to the encoder.
    pub(super) useful_bps: AtomicU64,
    /// Pictures are large and may take their time: a page of text, not a film.
    pub(super) patient: AtomicBool,
    /// The connection's interceptors: what the path takes, and bursts that measure it.
    pub(super) wire: WireHandle,
    /// The last REMB and when it came.
    pub(super) remb: Mutex<Option<(u64, Instant)>>,
}

impl Outbox {
    pub(super) fn new(
        shared: Arc<Shared>,
        wire: WireHandle,
        layers: usize,
    ) -> (Arc<Self>, mpsc::Receiver<EncodedAudio>) {
        let (audio, audio_rx) = mpsc::channel(QUEUED_AUDIO);
        let queue = || VideoQueue { frames: VecDeque::new(), await_key: true, asked_at: None };
        let outbox = Self {
            shared,
            video: Mutex::new((0..layers.max(1)).map(|_| queue()).collect()),
            wake: Notify::new(),
            audio,
            video_sent: Mutex::default(),
            audio_sent: Mutex::default(),
            target_bps: AtomicU64::new(0),
            useful_bps: AtomicU64::new(USEFUL_BPS),
            patient: AtomicBool::new(false),
            wire,
            remb: Mutex::new(None),
        };
        (Arc::new(outbox), audio_rx)
    }

    pub(super) fn push_video(&self, frame: EncodedFrame) {
        self.push_layer(0, frame);
    }

    pub(super) fn push_layer(&self, layer: usize, frame: EncodedFrame) {
        let (dropped, ask, only) = {
            let mut queues = lock(&self.video);
            let only = queues.len() == 1;
            let Some(queue) = queues.get_mut(layer) else { return };
            let mut dropped = 0;
            if !self.shared.is_connected() {
                dropped += 1 + queue.frames.len();
                queue.frames.clear();
                queue.await_key = true;
                (dropped, false, only)
            } else {
                if queue.frames.len() >= QUEUED_FRAMES {
                    // What follows a gap cannot be decoded: drop the old ones and start again at a key frame.
                    dropped += queue.frames.len();
                    queue.frames.clear();
                    queue.await_key = true;
                }
                if queue.await_key && !frame.key_frame {
                    dropped += 1;
                } else {
                    queue.await_key = false;
                    queue.frames.push_back(frame);
                }
                let due = queue.asked_at.is_none_or(|at| at.elapsed() >= KEY_FRAME_INTERVAL);
                let ask = queue.await_key && due;
                if ask {
                    queue.asked_at = Some(Instant::now());
                }
                (dropped, ask, only)
            }
        };
        if dropped > 0 {
            lock(&self.video_sent).stats.frames_dropped += dropped as u64;
        }
        if ask {
            let only = only.then_some(PeerEvent::KeyFrameRequested);
            self.shared.emit(only.unwrap_or(PeerEvent::LayerKeyFrameRequested { layer }));
        }
        self.wake.notify_one();
    }

    pub(super) fn push_audio(&self, packet: EncodedAudio) {
        if packet.data.is_empty() {
            return;
        }
        if !self.shared.is_connected() || self.audio.try_send(packet).is_err() {
            lock(&self.audio_sent).stats.frames_dropped += 1;
        }
    }

    /// The next frame and its layer; lower layers go first.
    fn next_frame(&self) -> Option<(usize, EncodedFrame)> {
        let mut queues = lock(&self.video);
        queues.iter_mut().enumerate().find_map(|(layer, queue)| Some((layer, queue.frames.pop_front()?)))
    }
}

/// What the packet tasks know after negotiation.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) transform: Option<Arc<dyn FrameTransform>>,
    /// Id of the audio level extension, if negotiated.
    pub(super) level_id: Option<u8>,
    /// Offset of RTP timestamps from the encoder's: random, RFC 3550 §5.1.
    pub(super) timestamp_offset: u32,
    /// Stream on the wire, whose sender reports name capture times.
    pub(super) ssrc: u32,
}

/// Sends Opus packets as they come. Ends with the connection.
pub(super) async fn audio_task(
    outbox: Arc<Outbox>,
    mut packets: mpsc::Receiver<EncodedAudio>,
    track: Arc<dyn TrackLocal>,
    mut packetizer: AudioPacketizer,
    route: Route,
) {
    while let Some(mut audio) = packets.recv().await {
        if !outbox.shared.is_connected() {
            lock(&outbox.audio_sent).stats.frames_dropped += 1;
            continue;
        }
        if let Some(transform) = &route.transform {
            let Some(data) = transform.outbound(MediaKind::Audio, audio.data) else { continue };
            audio.data = data;
        }
        audio.rtp_timestamp = audio.rtp_timestamp.wrapping_add(route.timestamp_offset);
        outbox.wire.note_capture(route.ssrc, AUDIO_CLOCK_HZ, audio.rtp_timestamp, audio.at);
        let Some(packet) = packetizer.packetize(&audio) else { continue };
        let bytes = packet.payload.len();
        let mut packet = from_rtp(packet);
        if let Some(id) = route.level_id {
            // RFC 6464: voice flag in the top bit, level below.
            let level = (u8::from(audio.voice) << 7) | (audio.level & 0x7f);
            let _ = packet.header.set_extension(id, Bytes::copy_from_slice(&[level]));
        }
        if track.write_rtp(packet).await.is_err() {
            // Closed; the error's text holds the whole packet.
            return;
        }
        let mut sent = lock(&outbox.audio_sent);
        sent.packet(Instant::now(), bytes);
        sent.stats.frames += 1;
    }
}

/// Packetises frames and lets packets out in ticks of 5 ms. Ends with the connection.
pub(super) async fn video_task(
    outbox: Arc<Outbox>,
    track: Arc<dyn TrackLocal>,
    mut packetizers: Vec<VideoPacketizer>,
    codec: VideoCodec,
    route: Route,
) {
    let mut backlog: VecDeque<RtpPacket> = VecDeque::new();
    let mut fresh: Vec<RtpPacket> = Vec::new();
    let (mut pacer, begun) = (Pacer::default(), Instant::now());
    let mut ticks = tokio::time::interval(PACER_TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        while let Some((layer, mut frame)) = outbox.next_frame() {
            let Some(packetizer) = packetizers.get_mut(layer) else { continue };
            if frame.codec != codec {
                lock(&outbox.video_sent).stats.frames_dropped += 1;
                continue;
            }
            if let Some(transform) = &route.transform {
                let Some(data) = transform.outbound(MediaKind::Video, frame.data) else { continue };
                frame.data = data;
            }
            frame.rtp_timestamp = frame.rtp_timestamp.wrapping_add(route.timestamp_offset);
            let ssrc = packetizer.ssrc();
            outbox.wire.note_capture(ssrc, VIDEO_CLOCK_HZ, frame.rtp_timestamp, frame.at);
            packetizer.packetize(&frame, &mut fresh);
            if !fresh.is_empty() {
                let mut sent = lock(&outbox.video_sent);
                sent.stats.frames += 1;
                sent.stats.key_frames += u64::from(frame.key_frame);
            }
            backlog.extend(fresh.drain(..));
        }
        if backlog.is_empty() {
            outbox.wake.notified().await;
            continue;
        }
        // What it returns is when the tick was due: after a pause that is long ago.
        ticks.tick().await;
        let now = Instant::now();
        let waiting: usize = backlog.iter().map(|packet| packet.payload.len()).sum();
        let pacing = match (outbox.wire.allowance(), outbox.target_bps.load(Ordering::Relaxed)) {
            (Some(allowance), _) => allowance.pacing_bps,
            (None, 0) => FIRST_TARGET_BPS as f64 * PACING_FACTOR,
            (None, bps) => bps as f64 * PACING_FACTOR,
        };
        // A page at once would be a queue on the path, and be taken for one that is full.
        let patient = outbox.patient.load(Ordering::Relaxed);
        let (share, drain) = if patient { (PATIENT_SHARE, PATIENT_DRAIN) } else { (1.0, DRAIN) };
        pacer.tick(pacing * share, waiting, drain, Duration::ZERO, now.saturating_duration_since(begun));
        if let Some(probe) = outbox.wire.take_probe(waiting, now) {
            pacer.burst(probe.bytes);
        }
        while pacer.open() {
            let Some(packet) = backlog.pop_front() else { break };
            let bytes = packet.payload.len();
            pacer.left(bytes);
            if track.write_rtp(from_rtp(packet)).await.is_err() {
                return;
            }
            lock(&outbox.video_sent).packet(Instant::now(), bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use webrtc::peer_connection::RTCPeerConnectionState;

    fn frame(n: u32, key_frame: bool) -> EncodedFrame {
        EncodedFrame {
            codec: VideoCodec::Vp8,
            data: Bytes::from_static(b"x"),
            rtp_timestamp: n,
            key_frame,
            size: None,
            at: Instant::now(),
        }
    }

    fn audio(data: &'static [u8]) -> EncodedAudio {
        EncodedAudio {
            data: Bytes::from_static(data),
            rtp_timestamp: 0,
            samples: 960,
            level: 0,
            voice: false,
            at: Instant::now(),
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_old_video_until_a_key_frame_and_asks_for_one() {
        let (tx, mut events) = mpsc::channel(super::super::connection::EVENT_CAPACITY);
        let shared = Arc::new(Shared::new(tx));
        let (outbox, mut sounds) = Outbox::new(Arc::clone(&shared), WireHandle::new(), 1);
        // Before the connection stands everything is dropped and counted.
        outbox.push_video(frame(0, true));
        outbox.push_audio(audio(b"a"));
        assert_eq!(lock(&outbox.video_sent).stats.frames_dropped, 1);
        assert_eq!(lock(&outbox.audio_sent).stats.frames_dropped, 1);
        shared.on_state(RTCPeerConnectionState::Connected);
        assert_eq!(events.try_recv(), Ok(PeerEvent::Connected));
        // The key frame went before: an inter frame is of no use, and a new key frame is asked for.
        outbox.push_video(frame(1, false));
        assert_eq!(events.try_recv(), Ok(PeerEvent::KeyFrameRequested));
        outbox.push_video(frame(2, true));
        for n in 0..QUEUED_FRAMES as u32 - 1 {
            outbox.push_video(frame(3 + n, false));
        }
        assert_eq!(lock(&outbox.video_sent).stats.frames_dropped, 2);
        // One too many: all of it goes, also the newcomer, which has nothing left to refer to.
        outbox.push_video(frame(90, false));
        assert_eq!(lock(&outbox.video_sent).stats.frames_dropped, 3 + QUEUED_FRAMES as u64);
        assert!(outbox.next_frame().is_none());
        outbox.push_video(frame(91, true));
        outbox.push_video(frame(92, false));
        assert_eq!(outbox.next_frame().map(|(_, f)| f.rtp_timestamp), Some(91));
        assert_eq!(outbox.next_frame().map(|(_, f)| f.rtp_timestamp), Some(92));
        // Audio is untouched by all that; DTX silence is not sent.
        outbox.push_audio(audio(b"b"));
        outbox.push_audio(audio(b""));
        assert_eq!(sounds.try_recv().unwrap().data, Bytes::from_static(b"b"));
        assert!(sounds.try_recv().is_err());
        assert_eq!(lock(&outbox.audio_sent).stats.frames_dropped, 1);
    }
}
