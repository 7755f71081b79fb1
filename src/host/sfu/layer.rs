//! One layer of a publication's picture: its track, its key frames, and how much of it is wanted.

use super::answer::TrackPlan;
use super::inbound::TrackIn;
use super::rtcp::Writer;

/// Pause between key frame requests, however many subscribers ask.
const KEY_FRAME_INTERVAL_US: u64 = 400_000;
/// Requests for one key frame before it is left to the next subscriber who asks.
const KEY_FRAME_TRIES: u32 = 8;
/// A viewer who comes this soon after a key frame gets it, and all since, from the cache: no new one is asked for.
const REPLAY_AGE_US: u64 = 500_000;
/// As long as it is not more than this: a burst on top of what the leg has to take anyway.
const REPLAY_BYTES: usize = 128 * 1_024;
/// A layer of which nothing came for this long is not sent.
const SILENT_US: u64 = 600_000;
/// Nor one of which nothing came for this long while pictures of a lower one did: the publisher has gone down to that.
const GAVE_WAY_US: u64 = 250_000;
const GAVE_WAY_PICTURES: usize = 3;
/// Over this time the rate is measured.
const RATE_US: u64 = 500_000;

/// Where the last key frame starts in the cache.
#[derive(Debug, Clone, Copy)]
struct KeyFrame {
    number: u64,
    timestamp: u32,
    at_us: u64,
}

/// One layer; a publication that has only one has one of these.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) track: TrackIn,
    /// Middle 32 bits of the last sender report and its arrival.
    pub(super) clock: Option<(u32, u64)>,
    /// Source by the description, where that names it.
    pub(super) ssrc: Option<u32>,
    /// Source of its repairs.
    pub(super) rtx_ssrc: Option<u32>,
    /// What is told the publisher: the most it is wanted at in bit/s, 0 for not at all.
    pub(super) wanted_bps: u64,
    highest: u64,
    key_wanted: bool,
    key_asked_us: u64,
    key_tries: u32,
    fir_number: u8,
    key_frame: Option<KeyFrame>,
    heard_us: Option<u64>,
    /// When the last pictures ended, newest first.
    pictures_us: [u64; GAVE_WAY_PICTURES],
    rate_bytes: u64,
    rate_since_us: u64,
    rate_bps: u64,
}

impl Layer {
    pub(super) fn new(plan: TrackPlan, start: u16) -> Self {
        Self {
            track: TrackIn::new(plan, start),
            clock: None,
            ssrc: None,
            rtx_ssrc: None,
            wanted_bps: 0,
            highest: 0,
            key_wanted: false,
            key_asked_us: 0,
            key_tries: 0,
            fir_number: 0,
            key_frame: None,
            heard_us: None,
            pictures_us: [0; GAVE_WAY_PICTURES],
            rate_bytes: 0,
            rate_since_us: 0,
            rate_bps: 0,
        }
    }

    /// The publisher comes back on another transport.
    pub(super) fn replace(&mut self, plan: TrackPlan) {
        self.track.replace(plan);
        self.clock = None;
        self.key_frame = None;
        self.heard_us = None;
    }

    /// The source to be named in feedback.
    pub(super) fn source(&self) -> Option<u32> {
        self.ssrc.or_else(|| self.track.ssrc())
    }

    /// A packet of it was taken.
    pub(super) fn arrived(&mut self, number: u64, now_us: u64) {
        let Some(stored) = self.track.cache.get(number) else { return };
        self.heard_us = Some(now_us);
        if stored.marker {
            self.pictures_us.rotate_right(1);
            if let Some(newest) = self.pictures_us.first_mut() {
                *newest = now_us;
            }
        }
        self.rate_bytes += stored.payload.len() as u64;
        let passed = now_us.saturating_sub(self.rate_since_us);
        if passed >= RATE_US {
            let fresh = self.rate_bytes * 8 * 1_000_000 / passed;
            // The first figure after a silence is about the silence.
            self.rate_bps =
                if passed > 2 * RATE_US || self.rate_bps == 0 { fresh } else { (self.rate_bps + fresh) / 2 };
            self.rate_bytes = 0;
            self.rate_since_us = now_us;
        }
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
        self.highest = self.highest.max(number);
    }

    /// It is being sent: its rate in bit/s.
    pub(super) fn live(&self, now_us: u64) -> Option<u64> {
        self.heard_us.filter(|at| now_us.saturating_sub(*at) < SILENT_US).map(|_| self.rate_bps)
    }

    /// The publisher sends `lower` instead of it.
    pub(super) fn gave_way_to(&self, lower: &Self) -> bool {
        let [newest, .., oldest] = lower.pictures_us;
        // Pictures in the dark may lie far apart.
        self.heard_us.is_some_and(|own| newest.saturating_sub(own) >= GAVE_WAY_US && oldest > own)
    }

    /// A subscriber (or a hole) needs a key frame; any number of wishes become one request.
    pub(super) fn want_key_frame(&mut self) {
        if !self.key_wanted {
            self.key_wanted = true;
            self.key_tries = 0;
        }
    }

    /// Numbers of the packets with which a new viewer can start at once: the last key frame and all since, while that is
    /// recent and little. A storm of viewers then costs the publisher one key frame, and none of them waits.
    pub(super) fn replay(&self, now_us: u64) -> Option<std::ops::RangeInclusive<u64>> {
        let key = self.key_frame.filter(|key| now_us.saturating_sub(key.at_us) <= REPLAY_AGE_US)?;
        let cache = &self.track.cache;
        let run = key.number..=self.highest;
        // The start must be there; holes are requested by the viewer like any other loss.
        cache.get(key.number)?;
        let bytes: usize = run.clone().filter_map(|number| cache.get(number)).map(|stored| stored.payload.len()).sum();
        (bytes <= REPLAY_BYTES).then_some(run)
    }

    /// When [`Layer::tick`] wants to be called.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.key_wanted.then_some(self.key_asked_us + KEY_FRAME_INTERVAL_US)
    }

    /// Writes a request for a key frame if one is due; whether it did.
    pub(super) fn tick(&mut self, own: u32, now_us: u64, out: &mut Writer) -> bool {
        if !self.key_wanted || now_us < self.key_asked_us + KEY_FRAME_INTERVAL_US {
            return false;
        }
        self.key_asked_us = now_us;
        let Some(ssrc) = self.source() else {
            // No packet yet, so no source to ask; its first frame will be a key frame anyway.
            return false;
        };
        self.key_tries += 1;
        if self.track.plan.feedback.pli || !self.track.plan.feedback.fir {
            out.picture_loss(own, ssrc);
        } else {
            self.fir_number = self.fir_number.wrapping_add(1);
            out.full_intra(own, ssrc, self.fir_number);
        }
        self.key_wanted = self.key_tries < KEY_FRAME_TRIES;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Codec, Extensions, FeedbackKinds};
    use super::*;
    use crate::rtp::frame::VideoCodec;

    fn layer() -> Layer {
        let plan = TrackPlan {
            codec: Codec::Video(VideoCodec::Vp8),
            mid: "1".into(),
            payload_type: 96,
            rtx: None,
            fmtp: None,
            extensions: Extensions::default(),
            feedback: FeedbackKinds::default(),
            ssrc: 0,
            rtx_ssrc: 0,
            layers: Vec::new(),
        };
        Layer::new(plan, 0)
    }

    /// A picture of one packet.
    fn hear(layer: &mut Layer, at_us: u64) {
        let stored = layer.track.cache.slot(at_us).unwrap();
        stored.payload.push(1);
        stored.marker = true;
        layer.arrived(at_us, at_us);
    }

    #[test]
    fn a_layer_that_ends_where_a_lower_one_goes_on_has_given_way() {
        let (mut low, mut high) = (layer(), layer());
        assert!(!high.gave_way_to(&low));
        for ms in (1_000..2_000u64).step_by(33) {
            hear(&mut low, ms * 1_000);
            hear(&mut high, ms * 1_000 + 4_000);
            assert!(!high.gave_way_to(&low) && !low.gave_way_to(&high));
        }
        for ms in (2_000..3_000u64).step_by(33) {
            hear(&mut low, ms * 1_000);
            assert_eq!(high.gave_way_to(&low), ms >= 2_250, "{ms}");
        }
        assert!(low.live(3_000_000).is_some());
    }

    #[test]
    fn pictures_that_lie_far_apart_are_no_end() {
        let (mut low, mut high) = (layer(), layer());
        for ms in (1_000..4_000u64).step_by(300) {
            hear(&mut low, ms * 1_000);
            assert!(!high.gave_way_to(&low), "{ms}");
            hear(&mut high, ms * 1_000 + 40_000);
        }
    }
}
