//! RTCP that the other side sends about our media.

use super::connection::{Shared, lock};
use super::event::{MediaKind, PeerEvent};
use super::send::{KEY_FRAME_INTERVAL, Outbox};
use crate::rtp::congestion::Beside;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ};
use rtc::rtcp::Packet;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};

/// The control of the path lives by this beat.
const CONTROL_TICK: Duration = Duration::from_millis(25);
/// And by this one while hardly anything leaves: a call in which nobody speaks should sleep.
const QUIET_TICK: Duration = Duration::from_millis(200);
/// Packets within [`QUIET_TICK`] that are worth the quick beat. Speech is ten of them; what only keeps a muted call alive is fewer.
const BUSY_PACKETS: u64 = 4;
/// The encoder is told about small changes no more often than this, and about rises no more often than that.
const TARGET_INTERVAL: Duration = Duration::from_millis(500);
const RISE_INTERVAL: Duration = Duration::from_millis(100);
/// Of the bytes that sound and repeats leave on the path these are the picture's; the rest is headers and extensions.
const MEDIA_SHARE: f64 = 0.94;
/// So much more than is of use may be looked for: an estimate wavers.
const USEFUL_MARGIN: f64 = 1.05;
/// A REMB older than this no longer binds: Kurento repeats it every second.
const REMB_LIFETIME: Duration = Duration::from_secs(10);
/// More than any link of ours: a REMB can name astronomic rates.
const MOST_REMB_BPS: u64 = 1_000_000_000;
/// What a path is taken to carry about which the other side says nothing at all, and after which time.
const UNTOLD_BPS: f64 = 1_200_000.0;
const UNTOLD_AFTER: Duration = Duration::from_secs(3);
/// Once it stops telling, the path is thought to take more by this factor each second, up to that.
const UNTOLD_GROWTH: f64 = 1.08;
/// Estimates below this starve even audio.
const LEAST_TARGET_BPS: u64 = 50_000;

/// What a compound says, digested.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Digest {
    /// New key frame requests (PLI, and FIR with a new sequence number).
    pub(super) key_frames: u32,
    /// Packets asked for again.
    pub(super) nacks: u64,
    /// Last REMB in bit/s.
    pub(super) remb_bps: Option<u64>,
    /// Last report about `ssrc`: share lost, total lost, jitter in clock ticks.
    pub(super) report: Option<(f32, u64, u32)>,
}

/// Reads compounds about one SSRC.
#[derive(Debug)]
pub(super) struct Reader {
    ssrc: u32,
    /// Last FIR sequence number by requester: each counts once (RFC 5104 §4.3.1.1).
    fir: HashMap<u32, u8>,
}

impl Reader {
    pub(super) fn new(ssrc: u32) -> Self {
        Self { ssrc, fir: HashMap::new() }
    }

    pub(super) fn read(&mut self, compound: &[Box<dyn Packet>]) -> Digest {
        let mut digest = Digest::default();
        for packet in compound {
            let any = packet.as_any();
            if let Some(pli) = any.downcast_ref::<PictureLossIndication>() {
                digest.key_frames += u32::from(pli.media_ssrc == self.ssrc);
            } else if let Some(fir) = any.downcast_ref::<FullIntraRequest>() {
                for entry in fir.fir.iter().filter(|entry| entry.ssrc == self.ssrc) {
                    // A handful of requesters at most; a flood of made-up ones is not remembered.
                    if self.fir.len() >= 64 {
                        self.fir.clear();
                    }
                    if self.fir.insert(fir.sender_ssrc, entry.sequence_number) != Some(entry.sequence_number) {
                        digest.key_frames += 1;
                    }
                }
            } else if let Some(remb) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
                if remb.bitrate.is_finite() && remb.bitrate > 0.0 {
                    digest.remb_bps = Some((remb.bitrate as u64).min(MOST_REMB_BPS));
                }
            } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
                if nack.media_ssrc == self.ssrc {
                    digest.nacks +=
                        nack.nacks.iter().map(|pair| 1 + u64::from(pair.lost_packets.count_ones())).sum::<u64>();
                }
            } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
                for about in report.reports.iter().filter(|about| about.ssrc == self.ssrc) {
                    // 24 bit, signed: duplicates can make it negative.
                    let total = about.total_lost & 0x00ff_ffff;
                    let total = if total & 0x0080_0000 != 0 { 0 } else { u64::from(total) };
                    digest.report = Some((f32::from(about.fraction_lost) / 256.0, total, about.jitter));
                }
            }
        }
        digest
    }
}

/// One layer's reader, and the key frames asked for of it.
struct Asked {
    reader: Reader,
    told: Option<Instant>,
    wanted: bool,
    /// Packets lost, by the last report.
    lost: u64,
}

impl Asked {
    /// How long until a request may be passed on: one within 300 ms of the last one waits for the end of that time instead
    /// of getting lost.
    fn wait(&self) -> Duration {
        self.told.map_or(Duration::ZERO, |at| KEY_FRAME_INTERVAL.saturating_sub(at.elapsed()))
    }
}

/// Takes feedback about one of our tracks, with one source per layer, until it closes.
pub(super) async fn sender_task(
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    track: Arc<dyn TrackLocal>,
    ssrcs: Vec<u32>,
    kind: MediaKind,
) {
    let layered = ssrcs.len() > 1;
    let asked = |ssrc: &u32| Asked { reader: Reader::new(*ssrc), told: None, wanted: false, lost: 0 };
    let mut layers: Vec<Asked> = ssrcs.iter().map(asked).collect();
    loop {
        let wait = layers.iter().filter(|layer| layer.wanted).map(Asked::wait).min();
        let event = tokio::select! {
            event = track.poll() => Some(event),
            () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => None,
        };
        match event {
            None => {}
            Some(None) => return,
            Some(Some(TrackLocalEvent::OnRtcpPacket(compound))) => {
                for at in 0..layers.len() {
                    let Some(layer) = layers.get_mut(at) else { break };
                    let mut digest = layer.reader.read(&compound);
                    layer.wanted |= digest.key_frames > 0 && kind == MediaKind::Video;
                    if layered {
                        // Says what is wanted of a layer, see [`WireHandle::wish`].
                        digest.remb_bps = None;
                    }
                    if let Some((_, total, _)) = &mut digest.report {
                        layer.lost = *total;
                        *total = layers.iter().map(|layer| layer.lost).sum();
                    }
                    apply(&outbox, &shared, kind, &digest);
                }
            }
            Some(Some(_)) => {}
        }
        for (index, layer) in layers.iter_mut().enumerate() {
            if layer.wanted && layer.wait() == Duration::ZERO {
                layer.wanted = false;
                layer.told = Some(Instant::now());
                let only = (!layered).then_some(PeerEvent::KeyFrameRequested);
                shared.emit(only.unwrap_or(PeerEvent::LayerKeyFrameRequested { layer: index }));
            }
        }
    }
}

fn apply(outbox: &Outbox, shared: &Shared, kind: MediaKind, digest: &Digest) {
    {
        let (sent, clock) = match kind {
            MediaKind::Audio => (&outbox.audio_sent, AUDIO_CLOCK_HZ),
            MediaKind::Video => (&outbox.video_sent, VIDEO_CLOCK_HZ),
        };
        let mut sent = lock(sent);
        sent.stats.nacks += digest.nacks;
        sent.stats.plis += u64::from(digest.key_frames);
        if let Some((fraction, total, jitter)) = digest.report {
            sent.stats.fraction_lost = Some(fraction);
            sent.stats.packets_lost = Some(total);
            sent.stats.jitter_ms = Some(f64::from(jitter) * 1000.0 / f64::from(clock));
        }
    }
    if let Some((fraction, _, _)) = digest.report {
        shared.emit(PeerEvent::LossReport { kind, fraction });
    }
    if let Some(bps) = digest.remb_bps {
        *lock(&outbox.remb) = Some((bps, Instant::now()));
    }
}

/// What the path takes, from those who tell: our own control and the other side's REMB.
#[derive(Debug, Default)]
struct Told {
    last: Option<f64>,
}

impl Told {
    /// `passed` since the last time; `late`: nothing was told for long enough since the connection stands.
    fn path(&mut self, own: Option<f64>, remb: Option<f64>, late: bool, passed: Duration) -> Option<f64> {
        let told = own.into_iter().chain(remb).min_by(f64::total_cmp);
        self.last = match (told, self.last) {
            (Some(bps), _) => Some(bps),
            // Who never tells anything, or no more, is not believed to have a narrow path for ever.
            (None, Some(last)) if last < UNTOLD_BPS => {
                Some((last * UNTOLD_GROWTH.powf(passed.as_secs_f64())).min(UNTOLD_BPS))
            }
            (None, None) => late.then_some(UNTOLD_BPS),
            (None, last) => last,
        };
        self.last
    }
}

/// What is left for the encoder of a path that carries `path_bps` with sound at `audio_bps` on it.
fn picture_share(path_bps: f64, audio_bps: f64) -> u64 {
    (((path_bps - audio_bps) * MEDIA_SHARE) as u64).max(LEAST_TARGET_BPS)
}

/// What a path has to carry for a picture of `bps`, with sound at `audio_bps` on it.
fn path_for(bps: u64, audio_bps: f64) -> f64 {
    (bps as f64 / MEDIA_SHARE + audio_bps) * USEFUL_MARGIN
}

/// The beat of the control: quick while packets leave, slow while only what keeps the call alive does.
#[derive(Debug)]
struct Beat {
    /// Packets sent when the stretch of time began that is looked at.
    sent: u64,
    since: Instant,
    busy: bool,
}

impl Beat {
    fn new(now: Instant) -> Self {
        Self { sent: 0, since: now, busy: true }
    }

    fn tick(&self) -> Duration {
        if self.busy { CONTROL_TICK } else { QUIET_TICK }
    }

    /// `sent`: packets so far.
    fn follow(&mut self, sent: u64, now: Instant) {
        let enough = sent.saturating_sub(self.sent) >= BUSY_PACKETS;
        if enough || now.saturating_duration_since(self.since) >= QUIET_TICK {
            *self = Self { sent, since: now, busy: enough };
        }
    }
}

/// Joins REMB and what our own control of the path allows into the encoder's target.
///
/// `ssrcs`: one per layer, to be told what is wanted of each.
pub(super) async fn estimate_task(outbox: Arc<Outbox>, shared: Arc<Shared>, ssrcs: Vec<u32>) {
    let mut wished: Vec<u64> = Vec::new();
    let mut told: Option<(u64, Instant)> = None;
    let mut beat = Beat::new(Instant::now());
    let (mut repeats, mut path, mut ticked, mut useful) = (Beside::default(), Told::default(), Instant::now(), 0.0);
    let mut connected: Option<Instant> = None;
    loop {
        tokio::time::sleep(beat.tick()).await;
        let (now, stats) = (Instant::now(), outbox.wire.stats());
        beat.follow(stats.packets_sent, now);
        let passed = now.saturating_duration_since(std::mem::replace(&mut ticked, now));
        if !shared.is_connected() {
            beat = Beat { sent: stats.packets_sent, ..Beat::new(now) };
            continue;
        }
        let audio_bps = lock(&outbox.audio_sent).rate();
        let useful_now = path_for(outbox.useful_bps.load(Ordering::Relaxed), audio_bps);
        if (useful_now - useful).abs() > useful * 0.02 {
            useful = useful_now;
            outbox.wire.set_useful_bps(useful);
        }
        let connected = *connected.get_or_insert(now);
        outbox.wire.tick(now);
        if ssrcs.len() > 1 {
            let wishes: Option<Vec<u64>> = ssrcs.iter().map(|ssrc| outbox.wire.wish(*ssrc)).collect();
            if let Some(wishes) = wishes.filter(|wishes| *wishes != wished) {
                wished.clone_from(&wishes);
                shared.emit(PeerEvent::LayersWanted { bps: wishes });
            }
        }
        let repeats_bps = repeats.follow(stats.repeated_bytes, passed);
        // None until transport-wide feedback has come: with servers that send none (Kurento) only REMB counts.
        let own = outbox.wire.allowance().map(|allowance| allowance.target_bps - repeats_bps);
        let remb = lock(&outbox.remb).filter(|(_, at)| at.elapsed() < REMB_LIFETIME).map(|(bps, _)| bps as f64);
        let late = now.saturating_duration_since(connected) >= UNTOLD_AFTER;
        let Some(path) = path.path(own, remb, late, passed) else { continue };
        let bps = picture_share(path, audio_bps);
        outbox.target_bps.store(bps, Ordering::Relaxed);
        let tell = told.is_none_or(|(last, at)| {
            let age = now.saturating_duration_since(at);
            // Down at once, up soon, small things now and then: an encoder that changes all the time looks bad.
            (bps < last * 97 / 100)
                || (bps > last * 103 / 100 && age >= RISE_INTERVAL)
                || (bps != last && age >= TARGET_INTERVAL)
        });
        if tell {
            told = Some((bps, now));
            shared.emit(PeerEvent::TargetBitrate { bps });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rtc::rtcp::payload_feedbacks::full_intra_request::FirEntry;
    use rtc::rtcp::reception_report::ReceptionReport;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::NackPair;

    fn fir(sequence_number: u8) -> Box<dyn Packet> {
        Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![FirEntry { ssrc: 7, sequence_number }] })
    }

    #[test]
    fn the_control_beats_slowly_while_nobody_speaks() {
        let start = Instant::now();
        let mut beat = Beat::new(start);
        let mut now = start;
        // A packet every 400 ms keeps a muted call alive.
        let mut beats = 0;
        while now < start + Duration::from_secs(10) {
            now += beat.tick();
            beat.follow(now.duration_since(start).as_millis() as u64 / 400, now);
            beats += 1;
        }
        assert!(beats <= 60, "{beats} beats in ten seconds");
        // Speech: one every 20 ms. The first slow beat finds enough of it.
        let (spoken, before) = (now, beat.sent);
        for _ in 0..20 {
            now += beat.tick();
            beat.follow(before + now.duration_since(spoken).as_millis() as u64 / 20, now);
            assert_eq!(beat.tick(), CONTROL_TICK);
        }
    }

    #[test]
    fn each_fir_counts_once_and_kurentos_compound_is_read_whole() {
        let mut reader = Reader::new(7);
        // What Kurento sends: a report, FIR with media SSRC 0, REMB.
        let report =
            ReceptionReport { ssrc: 7, fraction_lost: 64, total_lost: 12, jitter: 900, ..ReceptionReport::default() };
        let compound: Vec<Box<dyn Packet>> = vec![
            Box::new(ReceiverReport { ssrc: 1, reports: vec![report], ..ReceiverReport::default() }),
            fir(3),
            Box::new(ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 300_000.0, ssrcs: vec![7] }),
        ];
        let digest = reader.read(&compound);
        assert_eq!(digest, Digest { key_frames: 1, nacks: 0, remb_bps: Some(300_000), report: Some((0.25, 12, 900)) });
        assert_eq!(reader.read(&[fir(3)]).key_frames, 0, "a repeat of the same request");
        assert_eq!(reader.read(&[fir(4)]).key_frames, 1);
        let pli = |media_ssrc| Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc }) as Box<dyn Packet>;
        assert_eq!(reader.read(&[pli(7), pli(8)]).key_frames, 1, "only about our own stream");
    }

    #[test]
    fn the_picture_gets_what_sound_and_headers_leave() {
        assert_eq!(picture_share(1_040_000.0, 40_000.0), 940_000);
        assert_eq!(picture_share(300_000.0, 0.0), 282_000);
        assert_eq!(picture_share(30_000.0, 40_000.0), LEAST_TARGET_BPS);
    }

    #[test]
    fn the_widest_path_is_enough_for_the_largest_picture() {
        let useful = crate::rtp::simulcast::useful_bps((1920, 1080), 3);
        assert!(path_for(useful, 40_000.0) <= crate::peer::engine::BOUNDS.max_bps);
        assert!(picture_share(path_for(useful, 40_000.0), 40_000.0) >= useful);
    }

    #[test]
    fn a_path_about_which_nothing_is_told_any_more_is_not_narrow_for_ever() {
        let (mut told, tick) = (Told::default(), Duration::from_millis(25));
        assert_eq!(told.path(None, None, false, tick), None);
        assert_eq!(told.path(None, None, true, tick), Some(UNTOLD_BPS));
        assert_eq!(told.path(None, Some(50_000.0), true, tick), Some(50_000.0));
        assert_eq!(told.path(Some(40_000.0), Some(50_000.0), true, tick), Some(40_000.0));
        let after = |told: &mut Told, seconds: u64| (0..seconds * 40).map(|_| told.path(None, None, true, tick)).last();
        let ten = after(&mut told, 10).flatten().unwrap();
        assert!((70_000.0..110_000.0).contains(&ten), "{ten}");
        assert_eq!(after(&mut told, 60).flatten(), Some(UNTOLD_BPS));
        told.path(Some(2e6), None, true, tick);
        assert_eq!(told.path(None, None, true, tick), Some(2e6));
    }

    #[test]
    fn nacks_count_packets() {
        let nack = TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: 7,
            nacks: vec![NackPair { packet_id: 5, lost_packets: 0b101 }],
        };
        assert_eq!(Reader::new(7).read(&[Box::new(nack)]).nacks, 3);
    }
}
