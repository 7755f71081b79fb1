//! A publication: its tracks, its subscribers, and what is asked of its publisher on their behalf.

use super::LegId;
use super::answer::{Codec, Plan};
use super::demux::LegKey;
use super::inbound::{Accepted, TrackIn};
use super::layer::Layer;
use super::packet::RtpView;
use super::rtcp::Writer;
use super::twcc::TwccRecorder;

/// Pause between transport-wide feedback packets.
const TRANSPORT_CC_INTERVAL_US: u64 = 50_000;
/// Pause between receiver reports.
const REPORT_INTERVAL_US: u64 = 500_000;
/// A subscriber's bandwidth estimate is worth this long.
const ESTIMATE_AGE_US: u64 = 5_000_000;
/// No subscriber can press a publisher below this.
const LOWEST_BITRATE_BPS: u64 = 300_000;
/// What is written when nobody limits any more.
pub(super) const UNLIMITED_BPS: u64 = 20_000_000;
/// What a picture is taken for whose publisher does not tell its size.
const DEFAULT_SIZE: (u32, u32) = (1280, 720);
/// "Nothing" in a REMB. It could say 0 as well, but there are readers (that of `rtc`) that take a mantissa of 0 for one of 1.
const NOTHING_BPS: u64 = 1;
/// A change of what is wanted waits this long for others.
const WISH_DELAY_US: u64 = 20_000;
/// How the loudness follows a packet of 20 ms: over about half a second.
const LOUDNESS_SHARE: f32 = 0.04;

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
    /// The picture's layers, the lowest first; one for a publisher without layers, none without a picture.
    pub(super) layers: Vec<Layer>,
    /// Our own SSRC in RTCP towards the publisher.
    pub(super) own_ssrc: u32,
    pub(super) announced: bool,
    pub(super) plis_sent: u64,
    twcc: TwccRecorder,
    twcc_next_us: Option<u64>,
    report_next_us: u64,
    reported_us: u64,
    nack_next_us: Option<u64>,
    /// Middle 32 bits of the publisher's last sender report about its sound, and its arrival.
    clock_audio: Option<(u32, u64)>,
    /// Size of the whole picture.
    pub(super) size: (u32, u32),
    /// How loud it is, 0 to 127, smoothed.
    pub(super) loudness: f32,
    /// Nobody in its session is louder.
    pub(super) speaks: bool,
    estimates: Vec<(LegKey, u64, u64)>,
    limited: bool,
    rate_bytes: u64,
    rate_bps: u64,
    scratch: Vec<u8>,
    numbers: Vec<u16>,
}

/// What feeding a packet came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fed {
    pub(super) kind: TrackKind,
    /// Layer of the picture; 0 for sound.
    pub(super) layer: usize,
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
            layers: Vec::new(),
            own_ssrc: random() | 1,
            announced: false,
            plis_sent: 0,
            twcc: TwccRecorder::default(),
            twcc_next_us: None,
            report_next_us: 0,
            reported_us: 0,
            nack_next_us: None,
            clock_audio: None,
            size: DEFAULT_SIZE,
            loudness: 0.0,
            speaks: false,
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
        match (&mut self.audio, plan.audio()) {
            (Some(track), Some(plan)) => track.replace(plan.clone()),
            (slot, Some(plan)) => *slot = Some(TrackIn::new(plan.clone(), random() as u16)),
            (slot, None) => *slot = None,
        }
        let Some((video, _)) = plan.video() else { return self.layers.clear() };
        self.layers.truncate(video.layers.len().max(1));
        for index in 0..video.layers.len().max(1) {
            match self.layers.get_mut(index) {
                Some(layer) => layer.replace(video.clone()),
                None => self.layers.push(Layer::new(video.clone(), random() as u16)),
            }
            let named = video.layers.get(index);
            if let Some(layer) = self.layers.get_mut(index) {
                layer.ssrc = named.map(|named| named.ssrc);
                layer.rtx_ssrc = named.and_then(|named| named.rtx_ssrc);
            }
        }
    }

    /// The publisher sends several layers.
    pub(super) fn is_layered(&self) -> bool {
        self.layers.len() > 1
    }

    pub(super) fn video_codec(&self) -> Option<crate::rtp::frame::VideoCodec> {
        self.layers.first().and_then(|layer| match layer.track.plan.codec {
            Codec::Video(codec) => Some(codec),
            Codec::Opus => None,
        })
    }

    pub(super) fn track(&self, kind: TrackKind, layer: usize) -> Option<&TrackIn> {
        match kind {
            TrackKind::Audio => self.audio.as_ref(),
            TrackKind::Video => self.layers.get(layer).map(|layer| &layer.track),
        }
    }

    /// Which track a packet belongs to; layers are told apart by the sources that the description names.
    fn owner(&self, view: &RtpView<'_>) -> Option<(TrackKind, usize)> {
        let owns =
            |track: &TrackIn| track.plan.payload_type == view.payload_type || track.plan.rtx == Some(view.payload_type);
        if !self.layers.first().is_some_and(|layer| owns(&layer.track)) {
            return self.audio.as_ref().is_some_and(owns).then_some((TrackKind::Audio, 0));
        }
        if !self.is_layered() {
            return Some((TrackKind::Video, 0));
        }
        let source = Some(view.ssrc);
        let layer = self.layers.iter().position(|layer| layer.ssrc == source || layer.rtx_ssrc == source)?;
        Some((TrackKind::Video, layer))
    }

    /// Takes a decrypted packet from the publisher.
    pub(super) fn feed(&mut self, view: &RtpView<'_>, now_us: u64, abs: u32) -> Option<Fed> {
        let (kind, layer) = self.owner(view)?;
        let track = match kind {
            TrackKind::Audio => self.audio.as_mut()?,
            TrackKind::Video => &mut self.layers.get_mut(layer)?.track,
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
                match (kind, self.layers.get_mut(layer)) {
                    (TrackKind::Video, Some(layer)) => layer.arrived(number, now_us),
                    _ => self.hear(number),
                }
                Some(Fed { kind, layer, number })
            }
            Accepted::NeedKeyFrame => {
                if let (TrackKind::Video, Some(layer)) = (kind, self.layers.get_mut(layer)) {
                    layer.want_key_frame();
                }
                None
            }
            Accepted::Nothing => None,
        };
        if missing && self.nack_next_us.is_none_or(|next| next > now_us + 8_000) {
            self.nack_next_us = Some(now_us + 8_000);
        }
        fed
    }

    /// Follows how loud the publisher is.
    fn hear(&mut self, number: u64) {
        let level = self.audio.as_ref().and_then(|track| track.cache.get(number)?.audio_level);
        if let Some(level) = level {
            // 0 is loud, 127 silence; the top bit says that it is a voice.
            let loud = 127.0 - f32::from(level & 0x7f);
            self.loudness += (loud - self.loudness) * LOUDNESS_SHARE;
        }
    }

    /// A subscriber (or a hole) needs a key frame; any number of wishes become one request.
    pub(super) fn want_key_frame(&mut self, layer: usize) {
        if let Some(layer) = self.layers.get_mut(layer) {
            layer.want_key_frame();
        }
    }

    /// Rate of a layer in bit/s while it is sent.
    pub(super) fn live(&self, layer: usize, now_us: u64) -> Option<u64> {
        let found = self.layers.get(layer)?;
        let gave_way = self.layers.iter().take(layer).any(|lower| found.gave_way_to(lower));
        found.live(now_us).filter(|_| !gave_way)
    }

    /// At what rate each layer is wanted at most, 0 for not at all; told the publisher where it has layers.
    pub(super) fn want_layers(&mut self, wanted: &[u64], now_us: u64) {
        for (layer, wanted) in self.layers.iter_mut().zip(wanted) {
            let (old, new) = (layer.wanted_bps, *wanted);
            if old == new {
                continue;
            }
            layer.wanted_bps = new;
            // On, off and down are told at once, a little more goes with the next report.
            if (old == 0) != (new == 0) || new < old {
                self.report_next_us = self.report_next_us.min(now_us + WISH_DELAY_US);
            }
        }
    }

    /// A subscriber's own estimate of what it can take.
    pub(super) fn estimate(&mut self, leg: LegKey, bitrate_bps: u64, now_us: u64) {
        self.forget_estimate(leg);
        self.estimates.push((leg, bitrate_bps, now_us));
    }

    pub(super) fn forget_estimate(&mut self, leg: LegKey) {
        self.estimates.retain(|(other, _, _)| *other != leg);
    }

    /// What a subscriber said itself that it can take, while that is fresh.
    pub(super) fn estimated(&self, leg: LegKey, now_us: u64) -> Option<u64> {
        let fresh = |at_us: &u64| now_us.saturating_sub(*at_us) < ESTIMATE_AGE_US;
        self.estimates.iter().find(|(other, _, at_us)| *other == leg && fresh(at_us)).map(|(_, bps, _)| *bps)
    }

    /// The publisher's sender report.
    pub(super) fn sender_report(&mut self, ssrc: u32, ntp: u64, rtp: u32, now_us: u64) {
        let middle = (ntp >> 16) as u32;
        let layers = self.layers.iter_mut().map(|layer| (&mut layer.track, &mut layer.clock));
        let audio = self.audio.as_mut().map(|track| (track, &mut self.clock_audio));
        for (track, clock) in audio.into_iter().chain(layers) {
            if track.ssrc() == Some(ssrc) {
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
        let key = self.layers.iter().filter_map(Layer::next_us).min();
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
        let video_ssrc = self.layers.iter().find_map(|layer| layer.track.ssrc());
        if now_us >= self.report_next_us {
            // Reports about changed wishes come early: what was counted since the last one is over what has passed.
            let passed = now_us.saturating_sub(self.reported_us);
            if passed >= REPORT_INTERVAL_US / 2 {
                self.rate_bps = self.rate_bytes * 8 * 1_000_000 / passed.max(1);
                self.rate_bytes = 0;
                self.reported_us = now_us;
            }
            self.report_next_us = now_us + REPORT_INTERVAL_US;
            let mut reports = Vec::with_capacity(4);
            reports.extend(self.audio.as_mut().and_then(|track| track.report(now_us, self.clock_audio)));
            reports.extend(self.layers.iter_mut().filter_map(|layer| layer.track.report(now_us, layer.clock)));
            out.receiver_report(own, &reports);
            out.canonical_name(own, "tertulia");
            if self.is_layered() {
                self.tell_wishes(out);
            } else {
                self.limit(now_us, video_ssrc, out);
            }
        }
        if self.nack_next_us.is_some_and(|next| next <= now_us) {
            let mut next = None;
            let layers = self.layers.iter_mut().map(|layer| &mut layer.track);
            for track in self.audio.iter_mut().chain(layers) {
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
        for layer in &mut self.layers {
            if layer.next_us().is_some_and(|next| next <= now_us) {
                reduced(out, own);
                let asked = layer.tick(own, now_us, out);
                self.plis_sent += u64::from(asked);
                requests += u64::from(asked);
            }
        }
        (asked, requests)
    }

    /// Tells which layers are wanted: a REMB each, with the most that anybody takes of it, and [`NOTHING_BPS`] for a layer
    /// that nobody gets. Told with every report, since any of them may be lost.
    fn tell_wishes(&mut self, out: &mut Writer) {
        for layer in &self.layers {
            if let Some(ssrc) = layer.source() {
                out.remb(self.own_ssrc, layer.wanted_bps.clamp(NOTHING_BPS, UNLIMITED_BPS), &[ssrc]);
            }
        }
    }

    /// Passes the weakest subscriber's estimate on while it lies below what is sent.
    fn limit(&mut self, now_us: u64, video_ssrc: Option<u32>, out: &mut Writer) {
        let wanted = self.layers.first().is_some_and(|layer| layer.track.plan.feedback.remb);
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
        for track in self.audio.iter().chain(self.layers.iter().map(|layer| &layer.track)) {
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
