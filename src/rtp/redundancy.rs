//! Sending sound twice where asking for what was lost takes too long or fails too often.
//!
//! The second copy is the same packet under the same number, some packets later: a receiver that has the first one drops it
//! as a duplicate, so nothing needs to be negotiated. It lies so far behind that a run of losses seldom takes both, and it
//! comes before an answer to a request could on a long path.

use std::time::Duration;

/// How many packets after the first one the copy leaves: 80 ms of 20 ms packets.
pub const COPY_BEHIND: u64 = 4;
/// A copy of something older than this is of no use any more, in ticks of the 48 kHz clock: 200 ms.
pub const COPY_AGE: u32 = 9_600;

/// Weight of one packet in the share of packets that were asked for: half is forgotten after 2.5 s.
const WEIGHT: f32 = 0.0055;
/// From this share on copies are sent ...
const LOSSY: f32 = 0.04;
/// ... or from this one, where an answer takes [`LONG_RTT`].
const LOSSY_AND_LONG: f32 = 0.015;
/// Round-trip time from which an answer comes too late to be waited for.
const LONG_RTT: Duration = Duration::from_millis(100);
/// Copies end when the share has fallen to this part of what they began at.
const ENOUGH: f32 = 0.5;

/// Follows what the receiver of one stream asks for, and says whether to send copies.
#[derive(Debug, Clone, Default)]
pub struct Redundancy {
    share: f32,
    on: bool,
}

impl Redundancy {
    /// A packet was sent for the first time.
    pub fn sent(&mut self) {
        self.share -= WEIGHT * self.share;
    }

    /// The receiver misses a packet and says so for the first time.
    pub fn asked(&mut self) {
        self.share = (self.share + WEIGHT).min(1.0);
    }

    /// Whether the packet sent just now is to be followed by a copy of the one [`COPY_BEHIND`] packets before. `congested`
    /// says that the losses come from a queue that is full: more packets would only make it fuller.
    pub fn wants_copies(&mut self, rtt: Option<Duration>, congested: bool) -> bool {
        let long = rtt.is_some_and(|rtt| rtt >= LONG_RTT);
        let begin = if long { LOSSY_AND_LONG } else { LOSSY };
        self.on = !congested && self.share > if self.on { begin * ENOUGH } else { begin };
        self.on
    }

    /// Share of what was sent that the receiver missed.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// Whether copies are being sent.
    pub fn is_on(&self) -> bool {
        self.on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `packets`, of which every `every`-th is asked for; how many were to be copied.
    fn copies(r: &mut Redundancy, packets: u32, every: u32, rtt_ms: u64, congested: bool) -> u32 {
        let mut copies = 0;
        for i in 0..packets {
            r.sent();
            if every > 0 && i % every == every - 1 {
                r.asked();
            }
            copies += u32::from(r.wants_copies(Some(Duration::from_millis(rtt_ms)), congested));
        }
        copies
    }

    #[test]
    fn copies_begin_with_losses_and_end_with_them() {
        let mut r = Redundancy::default();
        assert_eq!(copies(&mut r, 500, 0, 50, false), 0, "a clean path");
        assert_eq!(copies(&mut r, 1_000, 50, 50, false), 0, "2 % on a short path is for requests");
        let begun = copies(&mut r, 500, 10, 50, false);
        assert!((300..480).contains(&begun), "10 %: after two seconds, {begun}");
        let rest = copies(&mut r, 500, 0, 50, false);
        assert!((100..400).contains(&rest), "not at once off again, {rest}");
        assert_eq!(copies(&mut r, 500, 0, 50, false), 0);
    }

    #[test]
    fn a_long_path_begins_earlier_and_a_full_queue_never() {
        let mut r = Redundancy::default();
        assert!(copies(&mut r, 1_000, 40, 200, false) > 500, "2.5 % at 200 ms");
        assert_eq!(copies(&mut r, 1_000, 10, 200, true), 0);
    }
}
