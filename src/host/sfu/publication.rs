//! A publication: its tracks, its subscribers, and what is asked of its publisher on their behalf.

use super::LegId;
use super::answer::{Codec, Plan, TrackPlan};
use super::demux::LegKey;
use super::inbound::{Accepted, TrackIn};
use super::packet::RtpView;
use super::rtcp::Writer;
use super::twcc::TwccRecorder;

/// Pause between key frame requests, however many subscribers ask.
const KEY_FRAME_INTERVAL_US: u64 = 400_000;
/// Requests for one key frame before it is left to the next subscriber who asks.
const KEY_FRAME_TRIES: u32 = 8;
/// Pause between transport-wide feedback packets.
const TRANSPORT_CC_INTERVAL_US: u64 = 50_000;
/// Pause between receiver reports.
const REPORT_INTERVAL_US: u64 = 500_000;
/// A subscriber's bandwidth estimate is worth this long.
const ESTIMATE_AGE_US: u64 = 5_000_000;
/// No subscriber can press a publisher below this.
const LOWEST_BITRATE_BPS: u64 = 300_000;
/// A viewer who comes this soon after a key frame gets it, and all since, from the cache: no new one is asked for.
const REPLAY_AGE_US: u64 = 500_000;
/// As long as it is not more than this: a burst on top of what the leg has to take anyway.
const REPLAY_BYTES: usize = 128 * 1_024;
/// What is written when nobody limits any more.
const UNLIMITED_BPS: u64 = 20_000_000;

/// Which of the two tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TrackKind {
    Audio,
    Video,
}

/// Everything that outlives a publisher's transport.
#[derive(Debug)]
pub(super) struct Publication {
    pub(super) stream_id: String,
    pub(super) session: String,
    pub(super) publisher: Option<LegKey>,
    /// Name of the present or last publisher's leg.
    pub(super) publisher_id: LegId,
    pub(super) subscribers: Vec<LegKey>,
    pub(super) audio: Option<TrackIn>,
    pub(super) video: Option<TrackIn>,
    /// Our own SSRC in RTCP towards the publisher.
    pub(super) own_ssrc: u32,
    pub(super) announced: bool,
    pub(super) highest_audio: u64,
    pub(super) highest_video: u64,
    key_wanted: bool,
    key_asked_us: u64,
    key_tries: u32,
    fir_number: u8,
    pub(super) plis_sent: u64,
    twcc: TwccRecorder,
    twcc_next_us: Option<u64>,
    report_next_us: u64,
    nack_next_us: Option<u64>,
    /// Middle 32 bits of the publisher's last sender report and its arrival, per track.
    clock_audio: Option<(u32, u64)>,
    clock_video: Option<(u32, u64)>,
    key_frame: Option<KeyFrame>,
    estimates: Vec<(LegKey, u64, u64)>,
    limited: bool,
    rate_bytes: u64,
    rate_bps: u64,
    scratch: Vec<u8>,
    numbers: Vec<u16>,
}

/// Where the last key frame starts in the cache.
#[derive(Debug, Clone, Copy)]
struct KeyFrame {
    number: u64,
    timestamp: u32,
    at_us: u64,
}

/// What feeding a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    pub(super) kind: TrackKind,
    /// Number in the track's cache.
    pub(super) number: u64,
}

impl Publication {
    pub(super) fn new(stream_id: String, session: String, random: &mut impl FnMut() -> u32) -> Self {
        Self {
            stream_id,
            session,
            publisher: None,
            publisher_id: LegId(0),
            subscribers: Vec::new(),
            audio: None,
            video: None,
            own_ssrc: random() | 1,
            announced: false,
            highest_audio: 0,
            highest_video: 0,
            key_wanted: false,
            key_asked_us: 0,
            key_tries: 0,
            fir_number: 0,
            plis_sent: 0,
            twcc: TwccRecorder::default(),
            twcc_next_us: None,
            report_next_us: 0,
            nack_next_us: None,
            clock_audio: None,
            clock_video: None,
            key_frame: None,
            estimates: Vec::new(),
            limited: false,
            rate_bytes: 0,
            rate_bps: 0,
            scratch: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// A (new) publisher transport with its negotiated tracks.
    pub(super) fn attach(&mut self, leg: LegKey, id: LegId, plan: &Plan, random: &mut impl FnMut() -> u32) {
        self.publisher = Some(leg);
        self.publisher_id = id;
        self.announced = false;
        self.twcc = TwccRecorder::default();
        self.twcc_next_us = None;
        self.clock_audio = None;
        self.clock_video = None;
        self.key_frame = None;
        let mut place = |slot: &mut Option<TrackIn>, plan: Option<&TrackPlan>| match (slot, plan) {
            (Some(track), Some(plan)) => track.replace(plan.clone()),
            (slot, Some(plan)) => *slot = Some(TrackIn::new(plan.clone(), random() as u16)),
            (slot, None) => *slot = None,
        };
        place(&mut self.audio, plan.audio());
        place(&mut self.video, plan.video().map(|(plan, _)| plan));
    }

    pub(super) fn video_codec(&self) -> Option<crate::rtp::frame::VideoCodec> {
        self.video.as_ref().and_then(|track| match track.plan.codec {
            Codec::Video(codec) => Some(codec),
            Codec::Opus => None,
        })
    }

    pub(super) fn track(&self, kind: TrackKind) -> Option<&TrackIn> {
        match kind {
            TrackKind::Audio => self.audio.as_ref(),
            TrackKind::Video => self.video.as_ref(),
        }
    }

    pub(super) fn highest(&self, kind: TrackKind) -> u64 {
        match kind {
            TrackKind::Audio => self.highest_audio,
            TrackKind::Video => self.highest_video,
        }
    }

    /// Takes a decrypted packet from the publisher.
    pub(super) fn feed(&mut self, view: &RtpView<'_>, now_us: u64, abs: u32) -> Option<Fed> {
        let owns = |track: &Option<TrackIn>| {
            track.as_ref().is_some_and(|track| {
                track.plan.payload_type == view.payload_type || track.plan.rtx == Some(view.payload_type)
            })
        };
        let kind = if owns(&self.video) {
            TrackKind::Video
        } else if owns(&self.audio) {
            TrackKind::Audio
        } else {
            return None;
        };
        let track = match kind {
            TrackKind::Audio => self.audio.as_mut()?,
            TrackKind::Video => self.video.as_mut()?,
        };
        if let Some(number) =
            track.plan.extensions.transport_cc.and_then(|id| view.extension(id)?.first_chunk::<2>().copied())
        {
            self.twcc.record(u16::from_be_bytes(number), now_us);
            self.twcc_next_us.get_or_insert(now_us + TRANSPORT_CC_INTERVAL_US);
        }
        self.rate_bytes += view.payload.len() as u64;
        let accepted = if view.payload_type == track.plan.payload_type {
            track.media(view, now_us, abs)
        } else {
            track.repair(view, now_us, abs)
        };
        let missing = track.is_missing();
        let fed = match accepted {
            Accepted::Forward(number) => {
                let stored = track.cache.get(number)?;
                if stored.starts_key_frame {
                    self.key_wanted = false;
                    self.key_tries = 0;
                    // Parameter sets and slices of one H264 key frame may each count as its start.
                    match &mut self.key_frame {
                        Some(key) if key.timestamp == stored.timestamp => key.number = key.number.min(number),
                        Some(key) if key.number > number => {}
                        key => *key = Some(KeyFrame { number, timestamp: stored.timestamp, at_us: now_us }),
                    }
                }
                let highest = match kind {
                    TrackKind::Audio => &mut self.highest_audio,
                    TrackKind::Video => &mut self.highest_video,
                };
                *highest = (*highest).max(number);
                Some(Fed { kind, number })
            }
            Accepted::NeedKeyFrame => {
                self.want_key_frame();
                None
            }
            Accepted::Nothing => None,
        };
        if missing && self.nack_next_us.is_none_or(|next| next > now_us + 8_000) {
            self.nack_next_us = Some(now_us + 8_000);
        }
        fed
    }

    /// A subscriber (or a hole) needs a key frame; any number of wishes become one request.
    pub(super) fn want_key_frame(&mut self) {
        if !self.key_wanted {
            self.key_wanted = true;
            self.key_tries = 0;
        }
    }

    /// Numbers of the video packets with which a new viewer can start at once: the last key frame and all since, while
    /// that is recent and little. A storm of viewers then costs the publisher one key frame, and none of them waits.
    pub(super) fn replay(&self, now_us: u64) -> Option<std::ops::RangeInclusive<u64>> {
        let key = self.key_frame.filter(|key| now_us.saturating_sub(key.at_us) <= REPLAY_AGE_US)?;
        let cache = &self.video.as_ref()?.cache;
        let run = key.number..=self.highest_video;
        // The start must be there; holes are requested by the viewer like any other loss.
        cache.get(key.number)?;
        let bytes: usize = run.clone().filter_map(|number| cache.get(number)).map(|stored| stored.payload.len()).sum();
        (bytes <= REPLAY_BYTES).then_some(run)
    }

    /// A subscriber's own estimate of what it can take.
    pub(super) fn estimate(&mut self, leg: LegKey, bitrate_bps: u64, now_us: u64) {
        self.forget_estimate(leg);
        self.estimates.push((leg, bitrate_bps, now_us));
    }

    pub(super) fn forget_estimate(&mut self, leg: LegKey) {
        self.estimates.retain(|(other, _, _)| *other != leg);
    }

    /// The publisher's sender report.
    pub(super) fn sender_report(&mut self, ssrc: u32, ntp: u64, rtp: u32, now_us: u64) {
        let middle = (ntp >> 16) as u32;
        for (track, clock) in [(&mut self.audio, &mut self.clock_audio), (&mut self.video, &mut self.clock_video)] {
            if let Some(track) = track.as_mut().filter(|track| track.ssrc() == Some(ssrc)) {
                *clock = Some((middle, now_us));
                track.last_sr = Some(super::inbound::SenderClock {
                    ntp,
                    rtp: rtp.wrapping_add(track.sequence.timestamp_shift()),
                    at_us: now_us,
                });
            }
        }
    }

    /// When [`Publication::tick`] wants to be called.
    pub(super) fn next_us(&self) -> u64 {
        let key = self.key_wanted.then_some(self.key_asked_us + KEY_FRAME_INTERVAL_US);
        [Some(self.report_next_us), self.nack_next_us, self.twcc_next_us, key]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Writes what is due for the publisher; returns (packets asked for, key frame requests).
    pub(super) fn tick(&mut self, now_us: u64, out: &mut Writer) -> (u64, u64) {
        let mut asked = 0;
        let mut requests = 0;
        let own = self.own_ssrc;
        let video_ssrc = self.video.as_ref().and_then(TrackIn::ssrc);
        if now_us >= self.report_next_us {
            self.rate_bps = self.rate_bytes * 8 * 1_000_000
                / (now_us + REPORT_INTERVAL_US - self.report_next_us).max(REPORT_INTERVAL_US);
            self.rate_bytes = 0;
            self.report_next_us = now_us + REPORT_INTERVAL_US;
            let mut reports = Vec::with_capacity(2);
            for (track, clock) in [(&mut self.audio, self.clock_audio), (&mut self.video, self.clock_video)] {
                reports.extend(track.as_mut().and_then(|track| track.report(now_us, clock)));
            }
            out.receiver_report(own, &reports);
            out.canonical_name(own, "tertulia");
            self.limit(now_us, video_ssrc, out);
        }
        if self.nack_next_us.is_some_and(|next| next <= now_us) {
            let mut next = None;
            for track in [&mut self.audio, &mut self.video].into_iter().flatten() {
                self.numbers.clear();
                let again = track.nacks(now_us, &mut self.numbers);
                next = match (next, again) {
                    (Some(a), Some(b)) => Some(std::cmp::min::<u64>(a, b)),
                    (a, b) => a.or(b),
                };
                if let (Some(ssrc), false) = (track.ssrc(), self.numbers.is_empty()) {
                    reduced(out, own);
                    out.nack(own, ssrc, &self.numbers);
                    asked += self.numbers.len() as u64;
                }
            }
            self.nack_next_us = next;
        }
        if self.twcc_next_us.is_some_and(|next| next <= now_us) {
            self.twcc_next_us = None;
            let media = video_ssrc.or_else(|| self.audio.as_ref().and_then(TrackIn::ssrc)).unwrap_or(0);
            // Two at most: the second one when times did not fit into the first.
            for _ in 0..2 {
                if self.twcc.take(&mut self.scratch) {
                    reduced(out, own);
                    out.transport_feedback(own, media, &self.scratch);
                }
            }
        }
        if self.key_wanted && now_us >= self.key_asked_us + KEY_FRAME_INTERVAL_US {
            if let (Some(ssrc), Some(track)) = (video_ssrc, self.video.as_ref()) {
                self.key_asked_us = now_us;
                self.key_tries += 1;
                reduced(out, own);
                if track.plan.feedback.pli || !track.plan.feedback.fir {
                    out.picture_loss(own, ssrc);
                } else {
                    self.fir_number = self.fir_number.wrapping_add(1);
                    out.full_intra(own, ssrc, self.fir_number);
                }
                self.plis_sent += 1;
                requests += 1;
                self.key_wanted = self.key_tries < KEY_FRAME_TRIES;
            } else {
                // No packet yet, so no source to ask; its first frame will be a key frame anyway.
                self.key_asked_us = now_us;
            }
        }
        (asked, requests)
    }

    /// Passes the weakest subscriber's estimate on while it lies below what is sent.
    fn limit(&mut self, now_us: u64, video_ssrc: Option<u32>, out: &mut Writer) {
        let wanted = self.video.as_ref().is_some_and(|track| track.plan.feedback.remb);
        let Some(ssrc) = video_ssrc.filter(|_| wanted) else {
            return;
        };
        self.estimates.retain(|(_, _, at_us)| now_us.saturating_sub(*at_us) < ESTIMATE_AGE_US);
        let lowest = self.estimates.iter().map(|(_, bps, _)| *bps).min();
        match lowest {
            Some(bps) if bps < self.rate_bps * 95 / 100 || (self.limited && bps < self.rate_bps * 3 / 2) => {
                self.limited = true;
                out.remb(self.own_ssrc, bps.max(LOWEST_BITRATE_BPS), &[ssrc]);
            }
            _ if self.limited => {
                self.limited = false;
                out.remb(self.own_ssrc, UNLIMITED_BPS, &[ssrc]);
            }
            _ => {}
        }
    }

    /// Counters of both tracks together.
    pub(super) fn stats(&self) -> super::StreamStats {
        let mut stats = super::StreamStats {
            stream_id: self.stream_id.clone(),
            session: self.session.clone(),
            subscribers: self.subscribers.len(),
            packets_in: 0,
            bytes_in: 0,
            lost: 0,
            nacks_sent: 0,
            plis_sent: self.plis_sent,
            key_frames: 0,
            duplicates: 0,
            padding: 0,
        };
        for track in [&self.audio, &self.video].into_iter().flatten() {
            let counters = track.counters;
            stats.packets_in += counters.packets;
            stats.bytes_in += counters.bytes;
            stats.lost += counters.lost;
            stats.nacks_sent += counters.nacks;
            stats.key_frames += counters.key_frames;
            stats.duplicates += counters.duplicates;
            stats.padding += counters.padding;
        }
        stats
    }
}

/// A compound must start with a report unless reduced size was agreed; an empty one always may.
fn reduced(out: &mut Writer, own: u32) {
    if out.bytes().is_empty() {
        out.receiver_report(own, &[]);
    }
}
