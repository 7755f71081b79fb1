//! One track from a publisher: repair, duplicates, loss, statistics, and its place in the publication.

use std::collections::BTreeMap;

use crate::rtp::nack::Unheard;
use crate::rtp::seq::Unwrapper;

use super::answer::{Codec, TrackPlan};
use super::cache::{AUDIO_PACKETS, Cache, VIDEO_PACKETS};
use super::packet::{RtpView, Vp8Descriptor, starts_key_frame};
use super::rtcp::ReportBlock;
use super::sequence::Sequence;

/// Duplicates are recognised this far back.
const WINDOW: u64 = 1_024;
/// Missing packets asked for at the same time; a bigger hole is a key frame request instead.
const MISSING: usize = 256;
/// Reordered packets get this long before they are asked for.
const REORDER_US: u64 = 8_000;
/// Time from a request to its repair before one was seen, and bounds of the pause before the request is repeated.
const FIRST_REPAIR_US: f64 = 40_000.0;
const RETRY_US: (u64, u64) = (30_000, 1_000_000);
/// Requests for the same packet.
const TRIES: u8 = 10;
/// Where requests or repairs get lost, one is sent three times: again after this, when a run of losses should be over, and about
/// half a round trip later.
const ECHO_US: u64 = 12_000;
const ECHOES: u8 = 2;
/// Another SSRC on the same payload type takes over when the present one was silent for this long.
const SOURCE_SILENCE_US: u64 = 500_000;

#[derive(Debug)]
struct Missing {
    since_us: u64,
    first_asked_us: u64,
    asked_us: u64,
    tries: u8,
    /// How often the last request is still to be repeated.
    echoes: u8,
}

impl Missing {
    /// When it is to be asked for (again), if repairs take `repair_us`.
    fn due_us(&self, repair_us: f64) -> u64 {
        match self.tries {
            _ if self.echoes == ECHOES => self.asked_us + ECHO_US,
            _ if self.echoes > 0 => {
                // Before its repair could be there: a publisher does not take it for another request then.
                let repair_us = repair_us as u64;
                self.asked_us + (3 * ECHO_US).max(repair_us / 2).min(repair_us * 2 / 3).max(ECHO_US)
            }
            0 => self.since_us + REORDER_US,
            // A longer pause each time: a request that nothing answers may lie in a long queue, as its repair may. But
            // first it is likely to be lost, and who waits sees a still picture.
            tries => {
                // One may come for the second request of three.
                let pause = (repair_us * 1.1) as u64 + ECHO_US + 3_000;
                let times = [2, 2, 3, 4, 6, 8, 12, 16, 24, 32].get(usize::from(tries - 1)).copied().unwrap_or(32);
                self.asked_us + (pause * times / 2).clamp(RETRY_US.0, RETRY_US.1)
            }
        }
    }
}

/// Numbers of one SSRC.
#[derive(Debug, Default)]
struct Source {
    ssrc: u32,
    unwrapper: Unwrapper,
    /// Bitmap of the last [`WINDOW`] numbers.
    seen: Vec<u64>,
    first: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    transit: i64,
    jitter: f64,
    heard_us: u64,
    missing: BTreeMap<u64, Missing>,
}

impl Source {
    fn mark(&mut self, number: u64) -> bool {
        let at = (number % WINDOW) as usize;
        let Some(word) = self.seen.get_mut(at / 64) else {
            return false;
        };
        let bit = 1u64 << (at % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn clear_mark(&mut self, number: u64) {
        let at = (number % WINDOW) as usize;
        if let Some(word) = self.seen.get_mut(at / 64) {
            *word &= !(1u64 << (at % 64));
        }
    }
}

/// What became of an inbound packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepted {
    /// It is in the cache under this number and is to be forwarded.
    Forward(u64),
    /// Nothing to forward.
    Nothing,
    /// Nothing to forward, and a key frame is needed to go on.
    NeedKeyFrame,
}

/// Counters of one track.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TrackCounters {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) duplicates: u64,
    pub(super) padding: u64,
    pub(super) lost: u64,
    pub(super) nacks: u64,
    pub(super) key_frames: u64,
}

/// The publication's side of one track; outlives the publisher's transports.
#[derive(Debug)]
pub(super) struct TrackIn {
    pub(super) plan: TrackPlan,
    source: Option<Source>,
    pub(super) sequence: Sequence,
    pub(super) cache: Cache,
    awaiting_key: bool,
    /// Smoothed time from a request to its repair.
    repair_us: f64,
    /// About the shortest such time.
    least_us: f64,
    unheard: Unheard,
    picture_shift: u16,
    tl0_shift: u8,
    last_picture: u16,
    last_tl0: u8,
    rebase_picture: bool,
    pub(super) counters: TrackCounters,
    pub(super) last_sr: Option<SenderClock>,
}

/// A publisher's sender report: which RTP time belongs to which wall time.
#[derive(Debug, Clone, Copy)]
pub(super) struct SenderClock {
    pub(super) ntp: u64,
    /// In the publication's timestamps.
    pub(super) rtp: u32,
    pub(super) at_us: u64,
}

impl TrackIn {
    pub(super) fn new(plan: TrackPlan, start: u16) -> Self {
        let capacity = if plan.codec.is_audio() { AUDIO_PACKETS } else { VIDEO_PACKETS };
        Self {
            sequence: Sequence::new(plan.codec.clock_hz(), start),
            cache: Cache::new(capacity),
            plan,
            source: None,
            awaiting_key: false,
            repair_us: FIRST_REPAIR_US,
            least_us: FIRST_REPAIR_US,
            unheard: Unheard::default(),
            picture_shift: 0,
            tl0_shift: 0,
            last_picture: 0,
            last_tl0: 0,
            rebase_picture: false,
            counters: TrackCounters::default(),
            last_sr: None,
        }
    }

    /// The publisher comes back on another transport.
    pub(super) fn replace(&mut self, plan: TrackPlan) {
        self.plan = plan;
        self.source = None;
        self.last_sr = None;
    }

    pub(super) fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.ssrc)
    }

    /// A packet of the media payload type.
    pub(super) fn media(&mut self, view: &RtpView<'_>, now_us: u64, abs: u32) -> Accepted {
        let other = self.source.as_ref().is_none_or(|s| s.ssrc != view.ssrc);
        if other {
            let silent = self.source.as_ref().is_none_or(|s| now_us.saturating_sub(s.heard_us) > SOURCE_SILENCE_US);
            if !silent {
                return Accepted::Nothing;
            }
            self.source = Some(Source { ssrc: view.ssrc, seen: vec![0; (WINDOW / 64) as usize], ..Source::default() });
            if self.sequence.begun() {
                self.awaiting_key = !self.plan.codec.is_audio();
                self.rebase_picture = true;
            }
            self.sequence.new_source();
        }
        self.accept(view, view.sequence, view.payload, now_us, abs, false)
    }

    /// A packet of the repair payload type.
    pub(super) fn repair(&mut self, view: &RtpView<'_>, now_us: u64, abs: u32) -> Accepted {
        let Some((number, payload)) = view.payload.split_first_chunk::<2>() else {
            self.counters.padding += 1;
            return Accepted::Nothing;
        };
        if self.source.is_none() {
            return Accepted::Nothing;
        }
        let number = u16::from_be_bytes(*number);
        self.accept(view, number, payload, now_us, abs, true)
    }

    fn accept(
        &mut self,
        view: &RtpView<'_>,
        number: u16,
        payload: &[u8],
        now_us: u64,
        abs: u32,
        repair: bool,
    ) -> Accepted {
        let Some(source) = self.source.as_mut() else {
            return Accepted::Nothing;
        };
        let mut hole = false;
        let highest = source.unwrapper.highest();
        let input = source.unwrapper.peek(number);
        match highest {
            None => {
                source.unwrapper.unwrap(number);
                source.first = input;
            }
            // A repair far ahead of the media says nothing about the media's progress.
            Some(highest) if input > highest && repair => return Accepted::Nothing,
            Some(highest) if input > highest => {
                source.unwrapper.unwrap(number);
                let step = input - highest;
                for skipped in (highest + 1..=input).rev().take(WINDOW as usize) {
                    source.clear_mark(skipped);
                }
                hole = step - 1 > MISSING as u64;
                if hole {
                    source.missing.clear();
                } else if self.plan.feedback.nack {
                    for skipped in highest + 1..input {
                        let since_us = now_us;
                        let missing = Missing { since_us, first_asked_us: 0, asked_us: 0, tries: 0, echoes: 0 };
                        source.missing.insert(skipped, missing);
                    }
                    while source.missing.len() > MISSING {
                        source.missing.pop_first();
                    }
                }
            }
            Some(highest) if highest - input >= WINDOW => return Accepted::Nothing,
            Some(_) => {}
        }
        if !source.mark(input) {
            self.counters.duplicates += 1;
            return Accepted::Nothing;
        }
        if let Some(found) = source.missing.remove(&input).filter(|missing| missing.tries > 0) {
            self.unheard.repaired();
            let since = |asked_us: u64| now_us.saturating_sub(asked_us) as f64;
            let (took, last) = (since(found.first_asked_us), since(found.asked_us));
            if found.tries == 1 {
                self.least_us = if took < self.least_us { took } else { self.least_us * 1.02 };
            }
            // Asked for several times it is unknown which request was answered: the last one, if that is possible at all,
            // or losses alone would make every pause longer.
            let took = if last >= self.least_us * 0.9 { last } else { took };
            if found.tries == 1 || took > self.repair_us {
                self.repair_us += (took - self.repair_us) / 8.0;
            }
        }
        source.received += 1;
        if !repair {
            source.heard_us = now_us;
            let arrival = now_us as i64 * i64::from(self.plan.codec.clock_hz()) / 1_000_000;
            let transit = arrival - i64::from(view.timestamp);
            let difference = (transit - source.transit).unsigned_abs() as f64;
            if source.transit != 0 && difference < f64::from(self.plan.codec.clock_hz()) {
                source.jitter += (difference - source.jitter) / 16.0;
            }
            source.transit = transit;
        }
        let need = |hole| if hole { Accepted::NeedKeyFrame } else { Accepted::Nothing };
        if payload.is_empty() {
            self.counters.padding += 1;
            if self.sequence.skip(input) {
                return need(hole);
            }
            // Too late to close the gap: the empty packet itself fills it.
        }
        self.store(view, input, payload, now_us, abs).map_or(need(hole), |accepted| match accepted {
            Accepted::Forward(_) => accepted,
            other if hole => need(other != Accepted::Forward(0)),
            other => other,
        })
    }

    fn store(&mut self, view: &RtpView<'_>, input: u64, payload: &[u8], now_us: u64, abs: u32) -> Option<Accepted> {
        let video = match self.plan.codec {
            Codec::Video(codec) => Some(codec),
            Codec::Opus => None,
        };
        let key = video.is_some_and(|codec| starts_key_frame(codec, payload));
        if self.awaiting_key {
            if !key {
                return Some(Accepted::NeedKeyFrame);
            }
            self.awaiting_key = false;
        }
        let (number, timestamp) = self.sequence.map(input, view.timestamp, now_us)?;
        self.counters.packets += 1;
        self.counters.bytes += payload.len() as u64;
        self.counters.key_frames += u64::from(key);
        let descriptor = match self.plan.codec {
            Codec::Video(crate::rtp::frame::VideoCodec::Vp8) => Vp8Descriptor::parse(payload),
            _ => None,
        };
        let slot = self.cache.slot(number)?;
        slot.timestamp = timestamp;
        slot.marker = view.marker;
        slot.starts_key_frame = key;
        slot.abs_send_time = abs;
        let byte = |id: Option<u8>| id.and_then(|id| view.extension(id)?.first().copied());
        slot.audio_level = byte(self.plan.extensions.audio_level);
        slot.orientation = byte(self.plan.extensions.orientation);
        slot.payload.extend_from_slice(payload);
        slot.vp8 = None;
        if let Some(descriptor) = descriptor {
            if self.rebase_picture {
                self.rebase_picture = false;
                if let Some((_, _, picture)) = descriptor.picture_id {
                    self.picture_shift = self.last_picture.wrapping_add(1).wrapping_sub(picture);
                }
                if let Some((_, tl0)) = descriptor.tl0 {
                    self.tl0_shift = self.last_tl0.wrapping_add(1).wrapping_sub(tl0);
                }
            }
            descriptor.renumber(&mut slot.payload, self.picture_shift, self.tl0_shift);
            let renumbered = Vp8Descriptor::parse(&slot.payload);
            if let Some((_, _, picture)) = renumbered.and_then(|now| now.picture_id) {
                self.last_picture = picture;
            }
            if let Some((_, tl0)) = renumbered.and_then(|now| now.tl0) {
                self.last_tl0 = tl0;
            }
            slot.vp8 = renumbered;
        }
        Some(Accepted::Forward(number))
    }

    /// Something may have to be asked for.
    pub(super) fn is_missing(&self) -> bool {
        self.source.as_ref().is_some_and(|source| !source.missing.is_empty())
    }

    /// Numbers to be asked for now, ascending; returns when to look again.
    pub(super) fn nacks(&mut self, now_us: u64, out: &mut Vec<u16>) -> Option<u64> {
        let repair_us = self.repair_us;
        let unheard = &mut self.unheard;
        let source = self.source.as_mut()?;
        let mut next: Option<u64> = None;
        let mut lost = 0;
        source.missing.retain(|number, missing| {
            if missing.due_us(repair_us) <= now_us && missing.echoes > 0 {
                missing.echoes -= 1;
                out.push(*number as u16);
            } else if missing.due_us(repair_us) <= now_us {
                if missing.tries >= TRIES {
                    lost += 1;
                    return false;
                }
                if missing.tries == 0 {
                    missing.first_asked_us = now_us;
                } else {
                    unheard.unrepaired();
                }
                missing.tries += 1;
                missing.asked_us = now_us;
                missing.echoes = if unheard.echoes(missing.tries.into()) { ECHOES } else { 0 };
                out.push(*number as u16);
            }
            let again = missing.due_us(repair_us);
            next = Some(next.map_or(again, |next| next.min(again)));
            true
        });
        self.counters.lost += lost;
        self.counters.nacks += out.len() as u64;
        next
    }

    /// The reception report for the publisher.
    pub(super) fn report(&mut self, now_us: u64, clock: Option<(u32, u64)>) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        let highest = source.unwrapper.highest()?;
        let expected = highest - source.first.min(highest) + 1;
        let lost = expected.saturating_sub(source.received);
        let expected_step = expected.saturating_sub(source.expected_prior);
        let received_step = source.received.saturating_sub(source.received_prior);
        let lost_step = expected_step.saturating_sub(received_step);
        source.expected_prior = expected;
        source.received_prior = source.received;
        let (last_sr, at_us) = clock.unwrap_or((0, now_us));
        let delay = now_us.saturating_sub(at_us).saturating_mul(65_536) / 1_000_000;
        Some(ReportBlock {
            ssrc: source.ssrc,
            fraction_lost: (lost_step * 256).checked_div(expected_step).unwrap_or(0).min(255) as u8,
            cumulative_lost: lost.min(0x7f_ffff) as u32,
            // The low 32 bits: cycles and number; the reference starts one turn up.
            highest: highest.saturating_sub(0x1_0000) as u32,
            jitter: source.jitter as u32,
            last_sr,
            delay_since_last_sr: if last_sr == 0 { 0 } else { delay as u32 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Extensions, FeedbackKinds};
    use super::*;
    use crate::rtp::frame::VideoCodec;

    fn plan() -> TrackPlan {
        TrackPlan {
            codec: Codec::Video(VideoCodec::Vp8),
            mid: "1".into(),
            payload_type: 96,
            rtx: Some(97),
            fmtp: None,
            extensions: Extensions::default(),
            feedback: FeedbackKinds { nack: true, ..FeedbackKinds::default() },
            ssrc: 0,
            rtx_ssrc: 0,
            layers: Vec::new(),
        }
    }

    fn packet(ssrc: u32, pt: u8, number: u16, payload: &[u8]) -> Vec<u8> {
        let mut data = vec![0x80, pt];
        data.extend(number.to_be_bytes());
        data.extend(u32::from(number).wrapping_mul(3_000).to_be_bytes());
        data.extend(ssrc.to_be_bytes());
        data.extend_from_slice(payload);
        data
    }

    fn vp8(key: bool, picture: u16) -> Vec<u8> {
        let [high, low] = picture.to_be_bytes();
        vec![0x90, 0x80, 0x80 | high, low, u8::from(!key), 1, 2]
    }

    #[test]
    fn loss_is_asked_for_once_and_the_repair_fits_in() {
        let mut track = TrackIn::new(plan(), 0);
        let take = |track: &mut TrackIn, number: u16, at: u64| {
            let data = packet(5, 96, number, &vp8(number == 10, number));
            track.media(&RtpView::parse(&data).unwrap(), at, 0)
        };
        let Accepted::Forward(first) = take(&mut track, 10, 0) else { panic!() };
        assert_eq!(take(&mut track, 12, 1_000), Accepted::Forward(first + 2));
        assert_eq!(take(&mut track, 12, 1_000), Accepted::Nothing);
        let mut asked = Vec::new();
        assert_eq!(track.nacks(2_000, &mut asked), Some(9_000));
        assert!(asked.is_empty());
        track.nacks(9_000, &mut asked);
        assert_eq!(asked, [11]);
        let mut body = 11u16.to_be_bytes().to_vec();
        body.extend(vp8(false, 11));
        let data = packet(6, 97, 1, &body);
        let view = RtpView::parse(&data).unwrap();
        assert_eq!(track.repair(&view, 20_000, 0), Accepted::Forward(first + 1));
        assert_eq!(track.repair(&view, 20_000, 0), Accepted::Nothing);
        asked.clear();
        assert_eq!(track.nacks(100_000, &mut asked), None);
        assert!(asked.is_empty());
        let report = track.report(1_000_000, None).unwrap();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (0, 0));
        assert_eq!(report.highest & 0xffff, 12);
    }

    #[test]
    fn a_new_source_waits_for_its_key_frame_and_picture_ids_go_on() {
        let mut track = TrackIn::new(plan(), 0);
        let take = |track: &mut TrackIn, ssrc, number: u16, key, picture, at: u64| {
            let data = packet(ssrc, 96, number, &vp8(key, picture));
            track.media(&RtpView::parse(&data).unwrap(), at, 0)
        };
        let Accepted::Forward(a) = take(&mut track, 5, 10, true, 700, 0) else { panic!() };
        // A second SSRC beside a live one is not mixed in.
        assert_eq!(take(&mut track, 6, 99, true, 3, 1_000), Accepted::Nothing);
        track.replace(plan());
        assert_eq!(take(&mut track, 6, 100, false, 3, 50_000), Accepted::NeedKeyFrame);
        assert_eq!(take(&mut track, 6, 101, true, 4, 60_000), Accepted::Forward(a + 1));
        let stored = track.cache.get(a + 1).unwrap();
        let descriptor = Vp8Descriptor::parse(&stored.payload).unwrap();
        assert_eq!(descriptor.picture_id.unwrap().2, 701);
        assert!(stored.starts_key_frame);
    }

    #[test]
    fn floods_of_numbers_stay_bounded() {
        let mut track = TrackIn::new(plan(), 0);
        let mut number = 1u16;
        for step in 0..20_000u64 {
            number = number.wrapping_mul(31_421).wrapping_add(6_927);
            let data = packet(5, 96, number, &vp8(false, 1));
            track.media(&RtpView::parse(&data).unwrap(), step, 0);
            assert!(track.source.as_ref().unwrap().missing.len() <= MISSING);
        }
    }
}
