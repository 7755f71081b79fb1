//! What was received of one stream over all subscriptions to it: one that is changed or taken back counts no less than one that lasts.

use std::time::{Duration, Instant};

use super::receiving::Subscribed;
use crate::call::line::received;
use crate::media::audio::PlayoutStats;
use crate::media::video::decoder::DecoderStats;
use crate::media::video::pattern::PatternReport;
use crate::peer::ReceiveStats;

/// Shorter than this there is no mean worth the name.
const MEANINGFUL: Duration = Duration::from_millis(500);

/// Figures by kind; absent for a kind that was never subscribed to.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    pub(super) video: Option<Video>,
    pub(super) audio: Option<Audio>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Video {
    pub(super) wire: ReceiveStats,
    pub(super) decoder: DecoderStats,
    pub(super) pattern: Option<PatternReport>,
    /// From the last packet to ready, once there was a picture.
    pub(super) held_ms: Option<f64>,
    pub(super) to_720p_ms: Option<u64>,
    /// How long it was connected.
    pub(super) connected: Duration,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Audio {
    pub(super) wire: ReceiveStats,
    pub(super) playout: Option<PlayoutStats>,
    pub(super) offset_ms: Option<f64>,
    pub(super) connected: Duration,
}

impl Received {
    /// Of a subscription, from its beginning.
    pub(super) fn of(subscribed: &Subscribed) -> Self {
        let wire = subscribed.line.figures();
        let connected = subscribed.connected_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        let decoder = subscribed.decoder.stats();
        Self {
            video: subscribed.media.video.then(|| Video {
                wire: wire.video.unwrap_or_default(),
                pattern: subscribed.pattern.report(),
                held_ms: (decoder.decoded > 0).then(|| subscribed.lips.held_ms().max(f64::from(decoder.decode_ms))),
                to_720p_ms: subscribed.times.to_720p_ms(),
                decoder,
                connected,
            }),
            audio: subscribed.media.audio.then(|| Audio {
                wire: wire.audio.unwrap_or_default(),
                playout: subscribed.playout.as_ref().map(|p| p.stats()),
                offset_ms: subscribed.lips.offset_ms(),
                connected,
            }),
        }
    }

    /// These, and those of a later subscription. What is no sum is the later one's.
    pub(super) fn then(self, later: Self) -> Self {
        Self { video: both(self.video, later.video, Video::then), audio: both(self.audio, later.audio, Audio::then) }
    }
}

fn both<T>(first: Option<T>, later: Option<T>, then: impl FnOnce(T, T) -> T) -> Option<T> {
    match (first, later) {
        (Some(first), Some(later)) => Some(then(first, later)),
        (first, later) => later.or(first),
    }
}

impl Video {
    fn then(self, later: Self) -> Self {
        let (a, b) = (self.decoder, later.decoder);
        let last = if b.decoded > 0 { b } else { a };
        Self {
            wire: received(&self.wire, later.wire),
            decoder: DecoderStats {
                received: a.received + b.received,
                decoded: a.decoded + b.decoded,
                shown: a.shown + b.shown,
                key_frames: a.key_frames + b.key_frames,
                dropped: a.dropped + b.dropped,
                hidden: a.hidden + b.hidden,
                damaged: a.damaged + b.damaged,
                freezes: a.freezes + b.freezes,
                freeze_ms: a.freeze_ms + b.freeze_ms,
                gaps: a.gaps + b.gaps,
                live: a.live + b.live,
                ..last
            },
            pattern: both(self.pattern, later.pattern, |a, b| PatternReport {
                id: b.id.or(a.id),
                frames_read: a.frames_read + b.frames_read,
                crc_errors: a.crc_errors + b.crc_errors,
                latency_ms_p50: b.latency_ms_p50.or(a.latency_ms_p50),
                latency_ms_p95: b.latency_ms_p95.or(a.latency_ms_p95),
                skipped: a.skipped + b.skipped,
            }),
            held_ms: later.held_ms.or(self.held_ms),
            to_720p_ms: self.to_720p_ms.or(later.to_720p_ms),
            connected: self.connected + later.connected,
        }
    }
}

impl Audio {
    fn then(self, later: Self) -> Self {
        Self {
            wire: received(&self.wire, later.wire),
            playout: both(self.playout, later.playout, |mut a, b| PlayoutStats {
                packets: a.packets + b.packets,
                packets_lost: a.packets_lost + b.packets_lost,
                packets_duplicate: a.packets_duplicate + b.packets_duplicate,
                packets_late: a.packets_late + b.packets_late,
                bytes: a.bytes + b.bytes,
                concealed_ms: a.concealed_ms + b.concealed_ms,
                fec_ms: a.fec_ms + b.fec_ms,
                accelerated_ms: a.accelerated_ms + b.accelerated_ms,
                decelerated_ms: a.decelerated_ms + b.decelerated_ms,
                delays_ms: {
                    a.delays_ms.extend(&b.delays_ms);
                    a.delays_ms
                },
                first_played_at: a.first_played_at.or(b.first_played_at),
                ..b
            }),
            offset_ms: later.offset_ms.or(self.offset_ms),
            connected: self.connected + later.connected,
        }
    }
}

/// Bits a second of a stream: over all its time in a report of its end, else as they are now. `None` where nothing was transported.
pub(super) fn bitrate(ended: bool, bytes: u64, connected: Duration, now_bps: u64) -> Option<u64> {
    if !ended {
        return (bytes > 0).then_some(now_bps);
    }
    (bytes > 0 && connected >= MEANINGFUL).then(|| (bytes as f64 * 8.0 / connected.as_secs_f64()).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(frames: u64, packets: u64, size: u32) -> Received {
        Received {
            video: Some(Video {
                wire: ReceiveStats { packets, bytes: 1_000 * packets, ..ReceiveStats::default() },
                decoder: DecoderStats { decoded: frames, width: size, ..DecoderStats::default() },
                pattern: Some(PatternReport { id: Some(7), frames_read: frames, ..PatternReport::default() }),
                connected: Duration::from_secs(2),
                ..Video::default()
            }),
            audio: None,
        }
    }

    #[test]
    fn subscriptions_of_one_stream_are_added() {
        let sound = Received { audio: Some(Audio::default()), video: None };
        // Pictures, then sound alone, then pictures of which none came.
        let all = seen(300, 900, 640).then(sound).then(seen(0, 10, 0));
        let video = all.video.unwrap();
        assert_eq!((video.decoder.decoded, video.wire.packets, video.decoder.width), (300, 910, 640));
        assert_eq!(video.pattern.unwrap().frames_read, 300);
        assert!(all.audio.is_some());
        let nothing = Received::default().then(Received::default());
        assert!(nothing.video.is_none() && nothing.audio.is_none(), "never subscribed to is no zero");
    }

    #[test]
    fn the_rate_of_a_whole_stream_is_its_mean() {
        let ten = Duration::from_secs(10);
        assert_eq!(bitrate(true, 1_000_000, ten, 5), Some(800_000));
        assert_eq!(bitrate(false, 1_000_000, ten, 5), Some(5));
        assert_eq!((bitrate(true, 0, ten, 5), bitrate(false, 0, ten, 0)), (None, None));
        assert_eq!(bitrate(true, 10, Duration::from_millis(1), 5), None);
    }
}
