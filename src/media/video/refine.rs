//! When a page of text on a shared screen is encoded, and how well.
//!
//! The first look at something new comes at once and coarse; then, as soon as the picture stands still and the path has taken
//! what was sent, the same picture again and finer until it is sharp, and after that nothing at all. The picture keeps its size,
//! and the number of pictures a second is what the path takes, from 5 to 15.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::codec::{Content, Quality};
use super::frame::VideoFrame;

/// Pictures come no closer together …
const INTERVAL: Duration = Duration::from_millis(66);
/// … and where the path is behind, about this far apart.
const SLOW_INTERVAL: Duration = Duration::from_millis(200);
/// What may still be on its way when the next picture follows: at full speed, slowly, and for a key frame.
const BEHIND: Duration = Duration::from_millis(80);
const FAR_BEHIND: Duration = Duration::from_millis(600);
/// More is not remembered: the rate has fallen meanwhile, or was not known yet.
const FORGET: Duration = Duration::from_secs(2);
/// Until then it is looked again this often.
const LOOK: Duration = Duration::from_millis(20);
/// A picture without a change for so long stands still.
const STILL: Duration = Duration::from_millis(120);
/// What still is on its way when a picture is made finer: the pause between is lost for what makes it readable.
const FIRST_REFINE_BEHIND: Duration = Duration::from_millis(260);
const REFINE_BEHIND: Duration = Duration::from_millis(40);
/// While something goes on moving, all the rest is made finer this often.
const ALL_THE_SAME: Duration = Duration::from_millis(1_000);
/// Where the others take silence for a fault, nothing is said for no longer than this.
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);
/// Each time the quantizer falls to this part, in percent: larger steps are larger bursts.
const STEP_PERCENT: u32 = 66;
/// Where the path takes so much, the second look is the one to read by: about 40 dB of a page of letters.
const WIDE_BPS: u32 = 800_000;
const READABLE: u8 = 19;
/// From here on nobody sees a difference: about 48 dB.
const SHARP: u8 = 8;
/// A codec that does not take a quantizer gets finer by itself; so often, or until there is nothing more to say.
const PASSES: u32 = 12;
const NOTHING_MORE_BYTES: usize = 400;

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Encode the newest picture.
    Encode(Quality),
    /// Not yet; ask again after this time or when something is new.
    Wait(Duration),
    /// Nothing to do until something is new.
    Rest,
}

/// The state of one shared page.
#[derive(Debug, Default)]
pub(super) struct Refiner {
    /// What was given out and has not passed the path yet, in bits, as of `counted_at`.
    behind_bits: f64,
    counted_at: Option<Instant>,
    /// There is something that was not encoded yet.
    pending: bool,
    changed_at: Option<Instant>,
    encoded_at: Option<Instant>,
    refined_at: Option<Instant>,
    /// How well what stands still is out there: quantizer, and passes since the last change.
    reached: Option<u8>,
    passes: u32,
    done: bool,
}

impl Refiner {
    /// Another picture, which differs from the one encoded last.
    pub(super) fn changed(&mut self, now: Instant) {
        self.pending = true;
        self.changed_at = Some(now);
    }

    /// There is no picture any more.
    pub(super) fn clear(&mut self) {
        let (behind_bits, counted_at) = (self.behind_bits, self.counted_at);
        *self = Self { behind_bits, counted_at, ..Self::default() };
    }

    fn behind(&mut self, now: Instant, bitrate_bps: u32) -> Duration {
        let rate = f64::from(bitrate_bps.max(1));
        if let Some(at) = self.counted_at {
            self.behind_bits -= now.saturating_duration_since(at).as_secs_f64() * rate;
        }
        self.counted_at = Some(now);
        self.behind_bits = self.behind_bits.clamp(0.0, rate * FORGET.as_secs_f64());
        Duration::from_secs_f64(self.behind_bits / rate)
    }

    /// What to do at this moment.
    ///
    /// `keep_alive`: what stands still is sent again now and then.
    pub(super) fn next(&mut self, now: Instant, bitrate_bps: u32, key_frame: bool, keep_alive: bool) -> Next {
        let behind = self.behind(now, bitrate_bps);
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        let until = |limit: Duration| Next::Wait(behind.saturating_sub(limit).max(Duration::from_millis(5)));
        if key_frame {
            return if behind <= FAR_BEHIND { Next::Encode(Quality::Rate) } else { until(FAR_BEHIND) };
        }
        if self.pending {
            let encoded = since(self.encoded_at);
            if encoded < INTERVAL {
                return Next::Wait(INTERVAL.saturating_sub(encoded));
            }
            if behind <= BEHIND {
                let starved = !self.done && since(self.refined_at) >= ALL_THE_SAME && self.passes > 0;
                return Next::Encode(if starved { self.finer(bitrate_bps) } else { Quality::Rate });
            }
            if behind <= FAR_BEHIND && encoded >= SLOW_INTERVAL {
                return Next::Encode(Quality::Rate);
            }
            return Next::Wait(LOOK);
        }
        if self.done || self.encoded_at.is_none() {
            let silent = self.done && keep_alive && since(self.encoded_at) >= KEEP_ALIVE;
            return if silent { Next::Encode(Quality::Quantizer(SHARP)) } else { Next::Rest };
        }
        let still = since(self.changed_at);
        if still < STILL {
            return Next::Wait(STILL.saturating_sub(still));
        }
        let limit = if self.passes <= 1 { FIRST_REFINE_BEHIND } else { REFINE_BEHIND };
        if behind > limit {
            return until(limit);
        }
        Next::Encode(self.finer(bitrate_bps))
    }

    fn finer(&self, bitrate_bps: u32) -> Quality {
        let from = u32::from(self.reached.unwrap_or(63));
        let to = u8::try_from(from * STEP_PERCENT / 100).unwrap_or(SHARP);
        // Steps between cost bytes: every one codes again what the last one left over.
        let to = if bitrate_bps >= WIDE_BPS { to.min(READABLE) } else { to };
        Quality::Quantizer(if to < SHARP + SHARP / 2 { SHARP } else { to })
    }

    /// The newest picture was encoded: how well, with which quantizer where that is known, how long it became.
    pub(super) fn encoded(&mut self, now: Instant, quality: Quality, quantizer: Option<u8>, bytes: usize) {
        self.behind_bits += bytes as f64 * 8.0;
        self.encoded_at = Some(now);
        self.passes = if self.pending || quality == Quality::Rate { 1 } else { self.passes + 1 };
        self.pending = false;
        self.reached = quantizer;
        self.done = match (quality, quantizer) {
            (Quality::Quantizer(_), Some(quantizer)) => quantizer <= SHARP,
            (Quality::Quantizer(_), None) => self.passes > PASSES || bytes < NOTHING_MORE_BYTES,
            (Quality::Rate, _) => false,
        };
        if quality != Quality::Rate {
            self.refined_at = Some(now);
        }
    }
}

/// A picture in which at least one of this many rows has changed is one of something that moves.
const MOVING_ROWS: usize = 5;
/// So many of them within a second are a film …
const FILM: u32 = 12;
/// … if it goes on for so long: people also scroll.
const FILM_AFTER: Duration = Duration::from_millis(3_000);
/// With fewer, it is over.
const NO_FILM: u32 = 6;
const SECOND: Duration = Duration::from_secs(1);

/// Finds out whether a screen shows a film or a page.
#[derive(Debug, Default)]
pub(super) struct MotionDetector {
    since: Option<Instant>,
    moving: u32,
    film_since: Option<Instant>,
    film: bool,
}

impl MotionDetector {
    /// Another picture and the one before it; what the screen shows.
    pub(super) fn picture(&mut self, before: Option<&VideoFrame>, picture: &VideoFrame, now: Instant) -> Content {
        let moving =
            before.is_some_and(|before| changed_rows(before, picture) * MOVING_ROWS >= picture.height as usize);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SECOND {
            if self.moving >= FILM {
                let from = *self.film_since.get_or_insert(since);
                self.film |= now.saturating_duration_since(from) >= FILM_AFTER;
            } else {
                self.film_since = None;
                self.film &= self.moving >= NO_FILM;
            }
            (self.since, self.moving) = (Some(now), 0);
        }
        self.moving += u32::from(moving);
        if self.film { Content::Motion } else { Content::Screen }
    }
}

fn changed_rows(a: &VideoFrame, b: &VideoFrame) -> usize {
    if (a.width, a.height) != (b.width, b.height) || a.width == 0 {
        return b.height as usize;
    }
    let width = a.width as usize;
    a.y.chunks_exact(width).zip(b.y.chunks_exact(width)).filter(|(a, b)| a != b).count()
}

/// Whether two pictures show the same.
pub(super) fn same(a: &Arc<VideoFrame>, b: &Arc<VideoFrame>) -> bool {
    Arc::ptr_eq(a, b) || ((a.width, a.height) == (b.width, b.height) && a.y == b.y && a.u == b.u && a.v == b.v)
}

#[cfg(test)]
#[path = "refine_tests.rs"]
mod tests;
