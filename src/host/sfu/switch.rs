//! One unbroken stream for a subscriber, made of a publication's layers.
//!
//! Pure: packets and the time come in, numbers go out. What a subscriber gets is a row of segments, each of one layer and
//! each but a forced first one beginning with a key frame. Within a segment everything is shifted by fixed differences,
//! so that a packet that comes late, or is repeated from the cache, gets the same numbers as at its first time.

use std::collections::VecDeque;

/// Segments remembered, for repeats and late packets.
const SEGMENTS: usize = 16;
/// Timestamps between the last picture of a segment and the end of the zone in which those of the next are squeezed, where
/// the next begins with a picture that is not newer.
const ZONE: u32 = 300;
/// Layers whose clocks differ by more than this from what the time tells have no common clock.
const CLOCK_TOLERANCE_US: u64 = 2_000_000;
/// Ticks of the video clock in a millisecond.
const TICKS_PER_MS: u64 = 90;

/// What of a packet matters for its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of its layer, the lowest is 0.
    pub(super) layer: usize,
    /// Number in the layer.
    pub(super) number: u64,
    /// Timestamp in the layer.
    pub(super) timestamp: u32,
    /// A decoder can begin here.
    pub(super) key: bool,
    /// VP8 picture id, where it has one.
    pub(super) picture: Option<u16>,
    /// VP8 TL0PICIDX, where it has one.
    pub(super) tl0: Option<u8>,
}

/// Where a packet stands in the subscriber's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    /// Number in the subscriber's stream.
    pub(super) number: u64,
    /// Timestamp in it.
    pub(super) timestamp: u32,
    /// To be added to the picture id.
    pub(super) picture_shift: u16,
    /// To be added to TL0PICIDX.
    pub(super) tl0_shift: u8,
}

#[derive(Debug, Clone)]
struct Segment {
    layer: usize,
    /// Numbers of the layer: the first, and the highest so far.
    first: u64,
    last: u64,
    /// Subscriber's number of the first.
    out: u64,
    timestamp_shift: u32,
    /// Begin of the zone in the layer's timestamps, its length, and the last timestamp before it.
    zone: Option<(u32, u32, u32)>,
    picture_shift: u16,
    tl0_shift: u8,
    open: bool,
}

impl Segment {
    fn holds(&self, layer: usize, number: u64) -> bool {
        self.layer == layer && number >= self.first && (self.open || number <= self.last)
    }

    fn timestamp(&self, timestamp: u32) -> u32 {
        match self.zone {
            Some((begin, length, before)) if timestamp.wrapping_sub(begin) < length => {
                let at = u64::from(timestamp.wrapping_sub(begin));
                let squeezed = at * u64::from(ZONE - 1) / u64::from(length.max(1));
                before.wrapping_add(1).wrapping_add(squeezed as u32)
            }
            _ => timestamp.wrapping_add(self.timestamp_shift),
        }
    }

    fn place(&self, number: u64, timestamp: u32) -> Placed {
        Placed {
            number: self.out + number.saturating_sub(self.first),
            timestamp: self.timestamp(timestamp),
            picture_shift: self.picture_shift,
            tl0_shift: self.tl0_shift,
        }
    }
}

/// The newest packet that has a place.
#[derive(Debug, Clone, Copy)]
struct Newest {
    number: u64,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    at_us: u64,
}

/// Chooses and renumbers.
#[derive(Debug)]
pub(super) struct Switcher {
    target: Option<usize>,
    segments: VecDeque<Segment>,
    newest: Option<Newest>,
    /// First number that is not given up.
    kept: u64,
}

impl Switcher {
    /// Waits for a key frame of layer 0.
    pub(super) fn new() -> Self {
        Self { target: Some(0), segments: VecDeque::new(), newest: None, kept: 0 }
    }

    /// The layer wanted; `None` while paused.
    pub(super) fn target(&self) -> Option<usize> {
        self.target
    }

    /// The layer that is passed on now.
    pub(super) fn current(&self) -> Option<usize> {
        self.segments.back().filter(|segment| segment.open).map(|segment| segment.layer)
    }

    /// Another layer from its next key frame on; `None` ends the pictures at once.
    pub(super) fn set_target(&mut self, target: Option<usize>) {
        self.target = target;
        if target.is_none() {
            self.halt();
        }
    }

    /// Passes nothing more on until the wanted layer begins: there is no room for what was passed on until now, and none to
    /// repeat it.
    pub(super) fn halt(&mut self) {
        if let Some(segment) = self.segments.back_mut() {
            segment.open = false;
        }
        self.kept = self.newest.map_or(0, |newest| newest.number + 1);
    }

    /// Packets of this layer, as they come, are for the subscriber, or the next key frame among them is.
    pub(super) fn passes(&self, layer: usize) -> bool {
        [self.current(), self.target].contains(&Some(layer))
    }

    /// A layer must still be begun with a key frame.
    pub(super) fn waits_for_key_frame(&self) -> bool {
        self.target.is_some() && self.target != self.current()
    }

    /// Something has been passed on.
    pub(super) fn begun(&self) -> bool {
        self.newest.is_some()
    }

    /// Highest number given so far.
    pub(super) fn highest(&self) -> Option<u64> {
        self.newest.map(|newest| newest.number)
    }

    /// Places a packet as it comes; `None` if the subscriber does not get it. `forced`: begin with whatever there is.
    pub(super) fn take(&mut self, packet: &Place, forced: bool, now_us: u64) -> Option<Placed> {
        let wanted = self.waits_for_key_frame() && self.target == Some(packet.layer);
        if wanted && (packet.key || (forced && self.current().is_none())) {
            self.begin(packet, now_us);
        }
        let segment = self.segments.iter_mut().rev().find(|segment| segment.holds(packet.layer, packet.number))?;
        let placed = segment.place(packet.number, packet.timestamp);
        if placed.number < self.kept {
            return None;
        }
        if packet.number >= segment.last && segment.open {
            segment.last = packet.number;
            let before = self.newest.map_or((0, 0), |newest| (newest.picture, newest.tl0));
            self.newest = Some(Newest {
                number: placed.number,
                timestamp: placed.timestamp,
                picture: packet.picture.map_or(before.0, |picture| picture.wrapping_add(placed.picture_shift)),
                tl0: packet.tl0.map_or(before.1, |tl0| tl0.wrapping_add(placed.tl0_shift)),
                at_us: now_us,
            });
        }
        Some(placed)
    }

    /// A new segment that begins with this packet.
    fn begin(&mut self, packet: &Place, now_us: u64) {
        if let Some(old) = self.segments.back_mut() {
            old.open = false;
        }
        let mut segment = Segment {
            layer: packet.layer,
            first: packet.number,
            last: packet.number,
            out: packet.number,
            timestamp_shift: 0,
            zone: None,
            picture_shift: 0,
            tl0_shift: 0,
            open: true,
        };
        if let Some(newest) = self.newest {
            segment.out = newest.number + 1;
            segment.picture_shift =
                packet.picture.map_or(0, |picture| newest.picture.wrapping_add(1).wrapping_sub(picture));
            segment.tl0_shift = packet.tl0.map_or(0, |tl0| newest.tl0.wrapping_add(1).wrapping_sub(tl0));
            let shift = self.segments.back().map_or(0, |old| old.timestamp_shift);
            let passed_us = now_us.saturating_sub(newest.at_us);
            let passed = (passed_us * TICKS_PER_MS / 1_000) as u32;
            let natural = packet.timestamp.wrapping_add(shift);
            let ahead = natural.wrapping_sub(newest.timestamp) as i32;
            // What the time tells and what the layer's clock tells, in ticks of 11 microseconds.
            let tolerance = (CLOCK_TOLERANCE_US * TICKS_PER_MS / 1_000) as i32;
            let off = natural.wrapping_sub(newest.timestamp.wrapping_add(passed)) as i32;
            if off.unsigned_abs() > tolerance.unsigned_abs() {
                segment.timestamp_shift = newest.timestamp.wrapping_add(passed.max(1)).wrapping_sub(packet.timestamp);
            } else {
                segment.timestamp_shift = shift;
                if ahead <= 0 {
                    let length = ZONE + ahead.unsigned_abs();
                    segment.zone = Some((packet.timestamp, length, newest.timestamp));
                }
            }
        }
        if self.segments.len() >= SEGMENTS {
            self.segments.pop_front();
        }
        self.segments.push_back(segment);
    }

    /// Layer and number of what the subscriber got as `number`, unless that is given up.
    pub(super) fn origin(&self, number: u64) -> Option<(usize, u64)> {
        let segment = self.segments.iter().rev().find(|segment| number >= self.kept && segment.out <= number)?;
        let found = segment.first + (number - segment.out);
        (found <= segment.last).then_some((segment.layer, found))
    }

    /// The place that a packet of the cache had.
    pub(super) fn again(&self, number: u64, timestamp: u32) -> Option<Placed> {
        let segment = self.segments.iter().rev().find(|segment| segment.out <= number)?;
        Some(segment.place(segment.first + (number - segment.out), timestamp))
    }

    /// The subscriber's timestamp for one of the layer that is passed on, for sender reports.
    pub(super) fn timestamp(&self, timestamp: u32) -> u32 {
        let shift = self.segments.back().map_or(0, |segment| segment.timestamp_shift);
        timestamp.wrapping_add(shift)
    }
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
