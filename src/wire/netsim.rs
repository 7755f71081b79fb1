//! A simulated network path: loss, bursts, delay, jitter, rate and queue, seeded. No socket, no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::str::FromStr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Datagrams under way at most in one direction; more are dropped like by a full queue.
const MAX_IN_FLIGHT: usize = 20_000;
/// Length of the queue in front of a limited rate when none is given.
const DEFAULT_QUEUE: Duration = Duration::from_millis(200);

/// One direction of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Share of datagrams lost, 0–1.
    pub loss: f64,
    /// Mean length of a run of losses in datagrams, at least 1 (1: independent losses).
    pub burst: f64,
    /// Time every datagram takes.
    pub delay: Duration,
    /// Added at random up to this, evenly spread; datagrams overtake each other.
    pub jitter: Duration,
    /// Bits per second; `None` for no limit.
    pub rate_bps: Option<u64>,
    /// Longest wait in front of a limited rate; what would wait longer is dropped.
    pub queue: Duration,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            loss: 0.0,
            burst: 1.0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            rate_bps: None,
            queue: DEFAULT_QUEUE,
        }
    }
}

/// Both directions, seen from the program that simulates.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Impairments {
    /// What we send.
    pub up: Profile,
    /// What we receive.
    pub down: Profile,
}

/// Why a specification was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Not `name=value`.
    #[error("'{0}' is not name=value")]
    NotAPair(String),
    /// A name that is none of loss, burst, delay, jitter, rate, queue.
    #[error("'{0}' is none of loss, burst, delay, jitter, rate, queue")]
    UnknownName(String),
    /// A value that is no number in range.
    #[error("'{value}' is no value for {name} ({expected})")]
    BadValue {
        /// The name.
        name: String,
        /// What was given.
        value: String,
        /// What would have been right.
        expected: &'static str,
    },
}

impl Impairments {
    /// Reads `loss=%,burst=packets,delay=ms,jitter=ms,rate=kbit/s,queue=ms`, for both directions or, behind `up:` or
    /// `down:`, for one. A prefix holds until the next one: `delay=20,up:loss=5,rate=800,down:loss=1`.
    ///
    /// # Errors
    /// [`ParseError`] for an unknown name or a value out of range.
    pub fn parse(spec: &str) -> Result<Self, ParseError> {
        let mut impairments = Self::default();
        let (mut up, mut down) = (true, true);
        for part in spec.split([',', ';']).map(str::trim).filter(|part| !part.is_empty()) {
            let pair = if let Some(pair) = part.strip_prefix("up:") {
                (up, down) = (true, false);
                pair
            } else if let Some(pair) = part.strip_prefix("down:") {
                (up, down) = (false, true);
                pair
            } else {
                part
            };
            let (name, value) = pair.split_once('=').ok_or_else(|| ParseError::NotAPair(part.to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            if up {
                impairments.up.set(name, value)?;
            }
            if down {
                impairments.down.set(name, value)?;
            }
        }
        Ok(impairments)
    }

    /// Whether nothing is impaired.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for Impairments {
    type Err = ParseError;

    fn from_str(spec: &str) -> Result<Self, ParseError> {
        Self::parse(spec)
    }
}

impl Profile {
    fn set(&mut self, name: &str, value: &str) -> Result<(), ParseError> {
        let number = |unit: &str, least: f64, most: f64, expected: &'static str| {
            let text = value.strip_suffix(unit).unwrap_or(value).trim();
            text.parse::<f64>()
                .ok()
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| ParseError::BadValue { name: name.to_owned(), value: value.to_owned(), expected })
        };
        let millis = |value: f64| Duration::from_secs_f64(value / 1000.0);
        match name {
            "loss" => self.loss = number("%", 0.0, 100.0, "0 to 100 %")? / 100.0,
            "burst" => self.burst = number("", 1.0, 10_000.0, "1 to 10000 packets")?,
            "delay" => self.delay = millis(number("ms", 0.0, 60_000.0, "0 to 60000 ms")?),
            "jitter" => self.jitter = millis(number("ms", 0.0, 60_000.0, "0 to 60000 ms")?),
            "queue" => self.queue = millis(number("ms", 0.0, 60_000.0, "0 to 60000 ms")?),
            "rate" => {
                let kbps = number("kbit/s", 1.0, 10_000_000.0, "1 to 10000000 kbit/s")?;
                self.rate_bps = Some((kbps * 1000.0) as u64);
            }
            other => return Err(ParseError::UnknownName(other.to_owned())),
        }
        Ok(())
    }
}

/// Counters of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Datagrams that came in.
    pub pushed: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped because the queue in front of the rate was full.
    pub overflowed: u64,
    /// Given out.
    pub delivered: u64,
}

/// One direction of a path: datagrams go in and come out later, or never.
#[derive(Debug)]
pub struct Link<T> {
    profile: Profile,
    random: SmallRng,
    /// Whether a run of losses is going on.
    losing: bool,
    /// When the last datagram accepted has left the queue.
    busy_until: Option<Instant>,
    order: u64,
    under_way: BinaryHeap<Reverse<Flight<T>>>,
    stats: LinkStats,
}

#[derive(Debug)]
struct Flight<T> {
    at: Instant,
    order: u64,
    datagram: T,
}

impl<T> PartialEq for Flight<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<T> Eq for Flight<T> {}

impl<T> PartialOrd for Flight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Flight<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<T> Link<T> {
    /// A path of that profile; the same seed and input give the same outcome.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            random: SmallRng::seed_from_u64(seed),
            losing: false,
            busy_until: None,
            order: 0,
            under_way: BinaryHeap::new(),
            stats: LinkStats::default(),
        }
    }

    /// Changes the profile for datagrams that come from now on.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// Takes a datagram of `bytes` bytes; false when it is lost.
    pub fn push(&mut self, datagram: T, bytes: usize, now: Instant) -> bool {
        self.stats.pushed += 1;
        if self.is_lost() {
            self.stats.lost += 1;
            return false;
        }
        let mut at = now;
        if let Some(rate) = self.profile.rate_bps {
            let start = self.busy_until.map_or(now, |busy| busy.max(now));
            if start.saturating_duration_since(now) > self.profile.queue {
                self.stats.overflowed += 1;
                return false;
            }
            at = start + Duration::from_secs_f64(bytes as f64 * 8.0 / rate.max(1) as f64);
            self.busy_until = Some(at);
        }
        if self.under_way.len() >= MAX_IN_FLIGHT {
            self.stats.overflowed += 1;
            return false;
        }
        at += self.profile.delay;
        if !self.profile.jitter.is_zero() {
            at += self.profile.jitter.mul_f64(self.random.random::<f64>());
        }
        self.order += 1;
        self.under_way.push(Reverse(Flight { at, order: self.order, datagram }));
        true
    }

    /// The next datagram that has arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        if self.next_timeout()? > now {
            return None;
        }
        self.stats.delivered += 1;
        self.under_way.pop().map(|Reverse(flight)| flight.datagram)
    }

    /// When [`Link::poll`] has something.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.under_way.peek().map(|Reverse(flight)| flight.at)
    }

    /// Counters so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Gilbert's model: runs of losses of the mean length `burst`, as often as the loss asks for.
    fn is_lost(&mut self) -> bool {
        let loss = self.profile.loss;
        if loss <= 0.0 {
            self.losing = false;
            return false;
        }
        if loss >= 1.0 {
            return true;
        }
        let burst = self.profile.burst.max(1.0 / (1.0 - loss));
        let change = if self.losing { 1.0 - 1.0 / burst } else { loss / (burst * (1.0 - loss)) };
        self.losing = self.random.random_bool(change.clamp(0.0, 1.0));
        self.losing
    }
}

#[cfg(test)]
#[path = "netsim_tests.rs"]
mod tests;
