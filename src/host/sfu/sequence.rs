//! One unbroken numbering for a publication, whatever its sources do.

use std::collections::VecDeque;

/// Positions of padding remembered; packets older than the oldest are not forwarded any more.
const GAPS: usize = 256;

/// Maps a source's extended sequence numbers and timestamps to those of the publication.
///
/// A source is one SSRC of one publisher transport. When it changes, numbers go on where the last one ended; when
/// a packet carries no media, the numbers behind it close up.
#[derive(Debug)]
pub(super) struct Sequence {
    clock_hz: u32,
    /// First number of the current source; older ones belong to nobody.
    first_in: Option<u64>,
    /// `out = in + shift` for numbers behind every gap.
    shift: i64,
    gaps: VecDeque<u64>,
    highest_out: u64,
    timestamp_shift: u32,
    last_timestamp: u32,
    last_at_us: u64,
    begun: bool,
}

impl Sequence {
    /// Starts at a random number; the low half of the circle keeps both ends' rollover counters unambiguous.
    pub(super) fn new(clock_hz: u32, start: u16) -> Self {
        Self {
            clock_hz,
            first_in: None,
            shift: 0,
            gaps: VecDeque::new(),
            highest_out: 0x1_0000 + u64::from(start & 0x3fff) + 0x400,
            timestamp_shift: 0,
            last_timestamp: 0,
            last_at_us: 0,
            begun: false,
        }
    }

    /// The next packet comes from another source.
    pub(super) fn new_source(&mut self) {
        self.first_in = None;
        self.gaps.clear();
    }

    /// A source had been forwarded before the present one.
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    /// Publication number and timestamp of a packet; `None` if it cannot be placed any more.
    pub(super) fn map(&mut self, input: u64, timestamp: u32, now_us: u64) -> Option<(u64, u32)> {
        let first = match self.first_in {
            Some(first) => first,
            None => self.start_source(input, timestamp, now_us),
        };
        if input < first {
            return None;
        }
        let later_gaps = self.gaps.iter().rev().take_while(|gap| **gap > input).count();
        if self.gaps.contains(&input) || (later_gaps == GAPS) {
            return None;
        }
        let output = input.checked_add_signed(self.shift)?.checked_add(later_gaps as u64)?;
        let out_timestamp = timestamp.wrapping_add(self.timestamp_shift);
        if output > self.highest_out {
            self.highest_out = output;
            self.last_timestamp = out_timestamp;
            self.last_at_us = now_us;
        }
        Some((output, out_timestamp))
    }

    fn start_source(&mut self, input: u64, timestamp: u32, now_us: u64) -> u64 {
        // Before anything was forwarded there is room below for packets that were overtaken by this one.
        let slack = if self.begun { 0 } else { 64 };
        let next = self.highest_out + 1 + slack;
        // Both are far below 2^63.
        self.shift = next as i64 - input as i64;
        if self.begun {
            let gap_us = now_us.saturating_sub(self.last_at_us).clamp(10_000, 60_000_000);
            let ticks = gap_us * u64::from(self.clock_hz) / 1_000_000;
            let wanted = self.last_timestamp.wrapping_add(ticks as u32);
            self.timestamp_shift = wanted.wrapping_sub(timestamp);
        }
        self.begun = true;
        let first = input.saturating_sub(slack);
        self.first_in = Some(first);
        first
    }

    /// The packet carries nothing: numbers behind it close up. Returns false when it came too late for that.
    pub(super) fn skip(&mut self, input: u64) -> bool {
        let Some(first) = self.first_in else {
            // Nothing forwarded from this source yet: nothing to close.
            return true;
        };
        let Some(next) = self.highest_out.checked_add(1).map(|out| out as i64 - self.shift) else {
            return false;
        };
        let newest_gap = self.gaps.back().copied().unwrap_or(0);
        if input < first || (input as i64) < next || input <= newest_gap {
            return false;
        }
        self.gaps.push_back(input);
        if self.gaps.len() > GAPS {
            self.gaps.pop_front();
        }
        self.shift -= 1;
        true
    }

    /// Offset between source and publication timestamps.
    pub(super) fn timestamp_shift(&self) -> u32 {
        self.timestamp_shift
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_leaves_no_hole_even_for_packets_that_arrive_late() {
        let mut s = Sequence::new(90_000, 7);
        let (a, _) = s.map(1_000, 10, 0).unwrap();
        assert_eq!(s.map(1_001, 10, 0).unwrap().0, a + 1);
        // 1002 is late, 1003 and 1004 are padding, 1005 is media.
        assert!(s.skip(1_003));
        assert!(s.skip(1_004));
        assert_eq!(s.map(1_005, 20, 0).unwrap().0, a + 3);
        assert_eq!(s.map(1_002, 20, 0).unwrap().0, a + 2);
        assert_eq!(s.map(1_003, 20, 0), None);
        assert!(!s.skip(1_002));
        assert_eq!(s.map(1_006, 20, 0).unwrap().0, a + 4);
    }

    #[test]
    fn a_new_source_goes_on_where_the_old_one_ended() {
        let mut s = Sequence::new(90_000, 7);
        let (a, t) = s.map(70_000, 5_000, 0).unwrap();
        s.map(70_001, 8_000, 33_000).unwrap();
        s.new_source();
        let (b, u) = s.map(9, 999_999, 133_000).unwrap();
        assert_eq!(b, a + 2);
        assert_eq!(u, t + 3_000 + 9_000);
        assert_eq!(s.map(8, 999_000, 133_000), None);
        assert_eq!(s.map(10, 1_002_999, 166_000).unwrap(), (a + 3, u + 3_000));
    }

    #[test]
    fn packets_overtaken_at_the_very_start_have_room() {
        let mut s = Sequence::new(48_000, 0xffff);
        let (a, _) = s.map(1_000, 10, 0).unwrap();
        assert_eq!(s.map(990, 1, 0).unwrap().0, a - 10);
        assert_eq!(s.map(900, 1, 0), None);
    }
}
