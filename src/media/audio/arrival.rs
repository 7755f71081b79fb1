//! When packets come: order, restarts of the sender, and how late each is.

use super::SAMPLE_RATE_HZ;
use super::histogram::DelayHistogram;
use std::collections::VecDeque;

/// The fastest packet of this long is the zero of the delay, in µs.
const BASE_WINDOW_US: i64 = 3_000_000;
/// After a pause this long a shift of the sender's clock is taken as new, in µs.
const PAUSE_US: i64 = 500_000;
/// Shift after a pause that makes the old zero worthless, in µs.
const PAUSE_SHIFT_US: i64 = 100_000;
/// Timestamps that disagree with the clock by this much come from another sender, in µs.
const WILD_SHIFT_US: i64 = 3_000_000;
/// Sequence numbers further apart than this come from another sender (RFC 3550, A.1: MAX_DROPOUT).
const WILD_SEQUENCE: i64 = 3_000;
/// Packets in order from behind, over this time in µs, that make another sender.
const BEHIND_PACKETS: u32 = 12;
const BEHIND_US: i64 = 200_000;
/// A rise of the zero that is another path and no chance, in µs.
const LONGER_PATH_US: i64 = 20_000;
/// Packets further apart than this are not enough to tell one from the other, in µs.
const GAP_US: i64 = 100_000;
/// Share of packets that shall be in time.
const QUANTILE: f32 = 0.97;
/// Packets out of order, mostly lost ones sent again, are too rare for the quantile above and yet worth waiting for when
/// they are more than this share ...
const REORDERED_SHARE: f32 = 0.008;
/// ... as long as this share of them then comes in time ...
const REORDERED_QUANTILE: f32 = 0.85;
/// ... and it does not take longer than this, in ms.
const REORDERED_LIMIT_MS: f32 = 400.0;
/// Weight of one packet in that share: half is forgotten after 1.7 s.
const REORDERED_WEIGHT: f32 = 0.008;
/// Ceiling of that share, so that it is forgotten within 5 s after any amount of reordering.
const REORDERED_CEILING: f32 = 0.05;
/// On top of the histogram: one pull, in ms.
const MARGIN_MS: f32 = 10.0;
/// Bounds of the target, in ms.
const TARGET_MS: (f32, f32) = (15.0, 500.0);

/// Timestamp difference in µs.
pub(crate) fn ts_us(samples: i64) -> i64 {
    samples * 1_000_000 / i64::from(SAMPLE_RATE_HZ)
}

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Place it here: unwrapped sequence number and timestamp.
    Place(i64, i64),
    /// The sender began anew: forget everything, then place it.
    Restart(i64, i64),
    /// A stray that fits nothing (so far): drop.
    Stray,
}

/// Follows one sender.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalTracker {
    newest: Option<Newest>,
    /// Sequence number that would confirm a restart.
    suspect: Option<u16>,
    /// Packets from behind that follow one another while nothing new comes: the last number, how many, since when.
    behind: Option<(u16, u32, i64)>,
    /// Minima of (arrival − timestamp), oldest first, rising: the front is the minimum of the window.
    minima: VecDeque<(i64, i64)>,
    histogram: DelayHistogram,
    /// What the histogram counts from, in µs.
    histogram_base_us: Option<i64>,
    /// Since when packets have come one after the other, and when the last one came, in µs.
    dense: Option<(i64, i64)>,
    reordered: DelayHistogram,
    reordered_share: f32,
    jitter_us: f64,
}

impl Default for ArrivalTracker {
    fn default() -> Self {
        Self {
            newest: None,
            suspect: None,
            behind: None,
            minima: VecDeque::new(),
            histogram: DelayHistogram::new(),
            histogram_base_us: None,
            dense: None,
            reordered: DelayHistogram::with_forgetting(0.95),
            reordered_share: 0.0,
            jitter_us: 0.0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Newest {
    sequence: i64,
    timestamp: i64,
    arrival_us: i64,
}

impl ArrivalTracker {
    /// Notes a packet's arrival.
    pub(crate) fn arrive(&mut self, sequence: u16, timestamp: u32, arrival_us: i64) -> Arrival {
        let Some(newest) = self.newest else {
            let (s, t) = (i64::from(sequence), i64::from(timestamp));
            self.accept(s, t, arrival_us);
            return Arrival::Restart(s, t);
        };
        let ds = i64::from(sequence.wrapping_sub(newest.sequence as u16) as i16);
        let dt = i64::from(timestamp.wrapping_sub(newest.timestamp as u32) as i32);
        let elapsed = arrival_us - newest.arrival_us;
        let shift = elapsed - ts_us(dt);
        // A burst after an outage is late by its length, which is no reason to start anew; running ahead is.
        let late_burst = ds >= 0 && dt >= 0 && shift > 0 && ds < WILD_SEQUENCE;
        let wild = ds.abs() > WILD_SEQUENCE
            || (shift.abs() > WILD_SHIFT_US && !late_burst && elapsed < 30_000_000)
            || ts_us(dt).abs() > 60_000_000 + elapsed;
        if wild {
            if self.suspect != Some(sequence) {
                self.suspect = Some(sequence.wrapping_add(1));
                return Arrival::Stray;
            }
            *self = Self { histogram: std::mem::take(&mut self.histogram), ..Self::default() };
            let (s, t) = (i64::from(sequence), i64::from(timestamp));
            self.accept(s, t, arrival_us);
            return Arrival::Restart(s, t);
        }
        self.suspect = None;
        if self.is_somebody_else(sequence, ds, arrival_us) {
            *self = Self::default();
            let (s, t) = (i64::from(sequence), i64::from(timestamp));
            self.accept(s, t, arrival_us);
            return Arrival::Restart(s, t);
        }
        if elapsed > PAUSE_US && shift.abs() > PAUSE_SHIFT_US {
            self.minima.clear();
        }
        let difference = shift.abs() as f64;
        if ds > 0 {
            self.jitter_us += (difference.min(1_000_000.0) - self.jitter_us) / 16.0;
        }
        let (s, t) = (newest.sequence + ds, newest.timestamp + dt);
        self.accept(s, t, arrival_us);
        Arrival::Place(s, t)
    }

    /// A sender that begins anew may do so right behind where the last one was. Repairs come from there as well, but never for
    /// long without anything new.
    fn is_somebody_else(&mut self, sequence: u16, ds: i64, arrival_us: i64) -> bool {
        if ds > 0 {
            self.behind = None;
            return false;
        }
        self.behind = match self.behind {
            Some((last, count, since)) if sequence == last.wrapping_add(1) => Some((sequence, count + 1, since)),
            _ => Some((sequence, 1, arrival_us)),
        };
        self.behind.is_some_and(|(_, count, since)| count >= BEHIND_PACKETS && arrival_us - since >= BEHIND_US)
    }

    fn accept(&mut self, sequence: i64, timestamp: i64, arrival_us: i64) {
        let reordered = self.newest.is_some_and(|n| sequence < n.sequence);
        if self.newest.is_none_or(|n| sequence > n.sequence) {
            self.newest = Some(Newest { sequence, timestamp, arrival_us });
        }
        let offset = arrival_us - ts_us(timestamp);
        while self.minima.back().is_some_and(|(_, o)| *o >= offset) {
            self.minima.pop_back();
        }
        self.minima.push_back((arrival_us, offset));
        // The newest always stays, however old.
        while self.minima.len() > 1 && self.minima.front().is_some_and(|(at, _)| *at < arrival_us - BASE_WINDOW_US) {
            self.minima.pop_front();
        }
        let from = self.histogram_base_us.map_or(self.base_us(), |from| from.min(self.base_us()));
        self.histogram_base_us = Some(from);
        let later = self.base_us() - from;
        let dense_since =
            self.dense.filter(|(_, last)| arrival_us - last < GAP_US).map_or(arrival_us, |(since, _)| since);
        self.dense = Some((dense_since, arrival_us));
        // The fastest of a few packets is not what the path takes.
        if later >= LONGER_PATH_US && arrival_us - dense_since > BASE_WINDOW_US {
            // Else the delay would be kept as long again as the path has become longer.
            let done = self.histogram.rebase(later as f32 / 1_000.0);
            self.histogram_base_us = Some(from + (done * 1_000.0) as i64);
        }
        let relative = offset - self.base_us();
        let relative_ms = relative as f32 / 1_000.0;
        self.histogram.add(relative_ms);
        self.reordered_share *= 1.0 - REORDERED_WEIGHT;
        if reordered && relative_ms < REORDERED_LIMIT_MS {
            self.reordered_share = (self.reordered_share + REORDERED_WEIGHT).min(REORDERED_CEILING);
            self.reordered.add(relative_ms);
        }
    }

    /// Offset of the fastest packet of late: arrival minus timestamp, in µs.
    pub(crate) fn base_us(&self) -> i64 {
        self.minima.front().map_or(0, |(_, offset)| *offset)
    }

    /// Delay to aim at, in ms.
    pub(crate) fn target_ms(&self) -> f32 {
        let mut needed = self.histogram.quantile_ms(QUANTILE);
        if self.reordered_share > REORDERED_SHARE {
            needed = needed.max(self.reordered.quantile_ms(REORDERED_QUANTILE));
        }
        (needed + MARGIN_MS).clamp(TARGET_MS.0, TARGET_MS.1)
    }

    /// Inter-arrival jitter in ms.
    pub(crate) fn jitter_ms(&self) -> f32 {
        (self.jitter_us / 1_000.0) as f32
    }
}
