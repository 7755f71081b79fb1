//! When to try again after a lost connection, when to ask and when to give up. Pure: times go in, times come out.
//!
//! ```text
//! lost ──0 s──► attempt ──fail──► wait ≤ 3 s ──► attempt … ──60 s without success──► given up
//!      └── the server keeps the place for 10 s; a later `connect` is still tried, its refusal (40007) leads to a rejoin
//! ```

use std::time::Duration;

/// Time between pings, and what the first ping on a socket declares.
pub const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A ping without answer for this long means the socket is dead.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// After this long without an answer to a ping the user is told that the connection is being checked.
pub const CHECKING_AFTER: Duration = Duration::from_millis(1500);
/// A ping sent to check a standing connection after a change of network, or an `echo`, must be answered within this time.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait between two attempts.
pub const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Retries come up to this much earlier, so that many clients do not return in the same instant.
pub const RETRY_JITTER: Duration = Duration::from_millis(600);
/// An attempt that has not opened a socket within this time has failed.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server is sure to keep the place of a client whose socket closed.
pub const RESUME_WINDOW: Duration = Duration::from_secs(10);
/// A resumed connection must answer within this time, else the participant is taken to be gone.
pub const VERIFY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for a fresh token.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);
/// After this long without success nothing more is tried until the user or the network asks for it.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Start value of the jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seed(pub u64);

impl Seed {
    /// The next value between 0 and `limit`, by SplitMix64.
    fn next_below(&mut self, limit: Duration) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        Duration::from_millis(z % millis)
    }
}

/// What comes after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again at this time.
    RetryAt(Duration),
    /// Stop trying.
    GiveUp,
}

/// One loss of the connection, from its beginning until it is over or given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconnect {
    lost_at: Duration,
    /// When patience began: at the loss, or at the last reset.
    patient_since: Duration,
    attempt: u32,
    started_at: Duration,
    seed: Seed,
}

impl Reconnect {
    /// The connection was lost at `now`.
    pub fn new(now: Duration, seed: Seed) -> Self {
        Self { lost_at: now, patient_since: now, attempt: 0, started_at: now, seed }
    }

    /// When the first attempt is due: at once, unless the last attempt of an earlier loss (`last_attempt`) was only just made. A server that
    /// takes a client back only to lose it again is so asked no more often than one that is away.
    pub fn first_try_at(&self, last_attempt: Option<Duration>) -> Duration {
        last_attempt.map_or(self.lost_at, |last| self.lost_at.max(last + RETRY_INTERVAL))
    }

    /// Begins the next attempt and gives its number, from 1.
    pub fn start_attempt(&mut self, now: Duration) -> u32 {
        self.attempt = self.attempt.saturating_add(1);
        self.started_at = now;
        self.attempt
    }

    /// The running attempt has failed: the next one starts at most [`RETRY_INTERVAL`] after this one started, or at once if that is past.
    pub fn attempt_failed(&mut self, now: Duration) -> Next {
        let pause = RETRY_INTERVAL.saturating_sub(self.seed.next_below(RETRY_JITTER));
        let at = (self.started_at + pause).max(now);
        if at >= self.give_up_at() { Next::GiveUp } else { Next::RetryAt(at) }
    }

    /// The network changed, the machine woke up or the user asked: patience starts over, the attempts are counted from 1 again.
    pub fn reset(&mut self, now: Duration) {
        self.patient_since = now;
        self.attempt = 0;
        self.started_at = now;
    }

    /// Until when the server is sure to keep the place.
    pub fn place_kept_until(&self) -> Duration {
        self.lost_at + RESUME_WINDOW
    }

    /// When to stop trying.
    pub fn give_up_at(&self) -> Duration {
        self.patient_since + GIVE_UP_AFTER
    }

    /// Number of the running or last attempt, 0 before the first.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Start value for the jitter of the next loss.
    pub fn seed(&self) -> Seed {
        self.seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dead_server_is_tried_about_every_three_seconds_for_a_minute() {
        let mut now = Duration::from_secs(100);
        let mut r = Reconnect::new(now, Seed(7));
        let mut starts = Vec::new();
        loop {
            assert_eq!(r.start_attempt(now) as usize, starts.len() + 1);
            starts.push(now);
            match r.attempt_failed(now + Duration::from_millis(20)) {
                Next::RetryAt(at) => now = at,
                Next::GiveUp => break,
            }
        }
        assert!((20..=25).contains(&starts.len()), "{}", starts.len());
        for pair in starts.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap <= RETRY_INTERVAL && gap >= RETRY_INTERVAL - RETRY_JITTER, "{gap:?}");
        }
        assert_eq!(r.place_kept_until(), Duration::from_secs(110));
    }

    #[test]
    fn a_reset_starts_patience_over() {
        let mut r = Reconnect::new(Duration::ZERO, Seed(1));
        r.start_attempt(Duration::from_secs(59));
        assert_eq!(r.attempt_failed(Duration::from_secs(59)), Next::GiveUp);
        r.reset(Duration::from_secs(60));
        assert_eq!(r.start_attempt(Duration::from_secs(60)), 1);
        assert!(matches!(r.attempt_failed(Duration::from_secs(60)), Next::RetryAt(_)));
        assert_eq!(r.place_kept_until(), Duration::from_secs(10), "the server knows nothing of our patience");
    }

    proptest! {
        #[test]
        fn however_long_attempts_take_it_ends(seed: u64, durations in prop::collection::vec(0u64..9_000, 200)) {
            let mut now = Duration::from_secs(5);
            let mut r = Reconnect::new(now, Seed(seed));
            let mut ended = false;
            let mut last = 0;
            for ms in durations {
                let n = r.start_attempt(now);
                prop_assert_eq!(n, last + 1);
                last = n;
                let started = now;
                now += Duration::from_millis(ms);
                match r.attempt_failed(now) {
                    Next::RetryAt(at) => {
                        prop_assert!(at >= now);
                        prop_assert!(at <= now.max(started + RETRY_INTERVAL));
                        prop_assert!(at < r.give_up_at());
                        now = at;
                    }
                    Next::GiveUp => { ended = true; break; }
                }
            }
            prop_assert!(ended);
            prop_assert!(now <= Duration::from_secs(5) + GIVE_UP_AFTER + Duration::from_secs(9));
        }
    }
}
