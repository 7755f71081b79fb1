//! How often a packet that was asked for is sent again, and when.
//!
//! An answer is lost as easily as what it repairs, and then the picture has to wait for another round trip. So where much is
//! lost an answer is sent several times, so far apart that a run of losses should be over.

use std::collections::VecDeque;
use std::ops::Add;
use std::time::Duration;

use super::redundancy::Redundancy;

/// From such a share of losses on an answer is sent twice, or three times.
const TWICE: f32 = 0.025;
const THRICE: f32 = 0.08;
const COPY_PAUSE: Duration = Duration::from_millis(15);
/// The same packet is not repeated again before this: the first answer is still on its way.
const LEAST_PAUSE: Duration = Duration::from_millis(10);
/// Nor before this share of a round trip, which may have become shorter.
const PAUSE_SHARE: f32 = 0.9;
/// Answers remembered, and copies that wait for their time at most.
const ANSWERED: usize = 512;
const LATER: usize = 512;

/// A longer queue on the way is congestion: what is lost there is not helped by sending more.
pub const LONG_QUEUE: Duration = Duration::from_millis(50);

/// When an answer may be sent more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// Never: there is nothing to spare for it.
    Never,
    /// Where an earlier answer was lost. Nobody says how full the path is.
    Again,
    /// Also where much is lost.
    Losses,
}

/// The answers of one stream. `N` numbers its packets, `T` is a time: an `Instant`, or a `Duration` since an origin.
#[derive(Debug)]
pub struct Answers<N, T> {
    /// What was answered, and when last; in this order.
    answered: VecDeque<(N, T)>,
    /// Copies, and when they are due; in this order.
    later: VecDeque<(T, N)>,
}

impl<N, T> Default for Answers<N, T> {
    fn default() -> Self {
        Self { answered: VecDeque::new(), later: VecDeque::new() }
    }
}

impl<N: Copy + PartialEq, T: Copy + Ord + Add<Duration, Output = T>> Answers<N, T> {
    /// `number` was asked for: how often it is to be sent, 0 while an answer is on its way. One goes out at once, the others
    /// when [`Self::due`] says so.
    ///
    /// `round_trip` is the time an answer takes to be noticed at least, and what the stream loses is counted in `losses`.
    pub fn asked(&mut self, number: N, now: T, round_trip: Duration, losses: &mut Redundancy, copies: Copies) -> u32 {
        let before = self.answered.iter().rposition(|(other, _)| *other == number);
        if let Some((_, at)) = before.and_then(|before| self.answered.get(before)) {
            if *at + round_trip.mul_f32(PAUSE_SHARE).max(LEAST_PAUSE) > now {
                return 0;
            }
        } else {
            losses.asked();
        }
        if let Some(before) = before {
            self.answered.remove(before);
        } else if self.answered.len() >= ANSWERED {
            self.answered.pop_front();
        }
        self.answered.push_back((number, now));
        let share = if copies == Copies::Losses { losses.share() } else { 0.0 };
        let times = match copies {
            Copies::Never => 1,
            _ if share >= THRICE => 3,
            // The last answer was lost as well, or the request for it.
            _ if share >= TWICE || before.is_some() => 2,
            _ => 1,
        };
        for copy in 1..times {
            if self.later.len() >= LATER {
                return copy;
            }
            let due = now + COPY_PAUSE * copy;
            let at = self.later.partition_point(|(other, _)| *other <= due);
            self.later.insert(at, (due, number));
        }
        times
    }

    /// The next copy that is due.
    pub fn due(&mut self, now: T) -> Option<N> {
        self.later.pop_front_if(|(due, _)| *due <= now).map(|(_, number)| number)
    }

    /// When the next copy will be due.
    pub fn next(&self) -> Option<T> {
        self.later.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn losses(every: u32) -> Redundancy {
        let mut losses = Redundancy::default();
        for packet in 1..1_000 {
            losses.sent();
            if packet % every == 0 {
                losses.asked();
            }
        }
        losses
    }

    #[test]
    fn the_more_is_lost_the_more_often_an_answer_is_sent() {
        for (every, times) in [(500, 1), (25, 2), (8, 3)] {
            let mut answers = Answers::default();
            let mut losses = losses(every);
            assert_eq!(answers.asked(7u16, 10 * MS, ROUND_TRIP, &mut losses, Copies::Losses), times);
            assert_eq!(answers.due(24 * MS), None, "the run of losses may not be over");
            let copies: Vec<u16> = std::iter::from_fn(|| answers.due(45 * MS)).collect();
            assert_eq!(copies, vec![7; times as usize - 1]);
            assert_eq!(answers.next(), None);
            assert_eq!(answers.asked(8, 60 * MS, ROUND_TRIP, &mut losses, Copies::Never), 1);
            assert_eq!(answers.asked(9, 60 * MS, ROUND_TRIP, &mut losses, Copies::Again), 1);
            assert_eq!(answers.asked(9, 300 * MS, ROUND_TRIP, &mut losses, Copies::Again), 2);
        }
    }

    #[test]
    fn a_request_that_an_answer_is_on_its_way_for_is_none() {
        let mut answers = Answers::default();
        let mut losses = losses(1_000);
        let mut ask = |ms: u32| answers.asked(7u64, MS * ms, ROUND_TRIP, &mut losses, Copies::Losses);
        assert_eq!([ask(0), ask(12), ask(89)], [1, 0, 0]);
        assert_eq!(ask(91), 2, "the first answer was lost, or its request");
        assert_eq!([ask(120), ask(190)], [0, 2]);
    }

    #[test]
    fn whoever_asks_for_everything_fills_nothing() {
        let mut answers = Answers::default();
        let mut losses = losses(3);
        for number in 0..100_000u32 {
            answers.asked(number, Duration::ZERO, ROUND_TRIP, &mut losses, Copies::Losses);
        }
        assert!(answers.answered.len() <= ANSWERED && answers.later.len() <= LATER);
    }
}
