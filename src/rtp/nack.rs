//! Which packets of a stream have come, which are missing, and when to ask for them (RFC 4585 §6.2.1).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::seq::Unwrapper;

/// Packets behind the highest one for which arrivals are remembered.
const WINDOW: u64 = 4096;
/// Sequence numbers asked for at once at most; the rest follows with the next call.
const MAX_PER_POLL: usize = 256;
/// Packets in a row from far behind after which the sender is taken to have started anew.
const RESTART_AFTER: u32 = 16;

/// A request that is repeated because requests or repairs get lost themselves follows after this: a run of losses is over.
const ECHO: Duration = Duration::from_millis(12);
/// Share of requests without a repair from which already the first request for a packet is repeated.
const UNHEARD: f32 = 0.003;
/// How the mean of that share follows: one request in vain is remembered for 140 others, or what helps would end as soon as it
/// has helped.
const UNHEARD_RISE: f32 = 0.05;
const UNHEARD_FALL: f32 = 0.02;

/// Mean share of requests that no repair comes for: requests and repairs get lost like anything else.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unheard(f32);

impl Unheard {
    /// A repair came for a request.
    pub fn repaired(&mut self) {
        self.0 -= self.0 * UNHEARD_FALL;
    }

    /// None came: the packet has to be asked for again.
    pub fn unrepaired(&mut self) {
        self.0 += (1.0 - self.0) * UNHEARD_RISE;
    }

    /// Whether a request, the `tries`-th for its packet, is to be sent twice. One that had no answer is: another round trip in
    /// vain would be seen.
    pub fn echoes(&self, tries: u32) -> bool {
        tries > 1 || self.0 > UNHEARD
    }
}

/// When to ask for a missing packet, and when to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NackConfig {
    /// Wait before the first request, for packets that were only overtaken.
    pub first_delay: Duration,
    /// Shortest time between two requests for the same packet; the round-trip time makes it longer.
    pub min_spacing: Duration,
    /// Requests per packet.
    pub max_requests: u32,
    /// Age of a gap at which asking ends.
    pub max_age: Duration,
    /// A jump ahead by more packets than this is a new beginning, not a loss.
    pub max_gap: u64,
}

impl Default for NackConfig {
    fn default() -> Self {
        Self {
            first_delay: Duration::from_millis(10),
            min_spacing: Duration::from_millis(20),
            max_requests: 10,
            max_age: Duration::from_secs(1),
            max_gap: 1000,
        }
    }
}

/// What an arriving packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Ahead of all others. The extended number.
    New(u64),
    /// It was missing, and had been asked for: a repair. The extended number.
    Recovered(u64),
    /// It was missing and had not been asked for: overtaken on the way. The extended number.
    Reordered(u64),
    /// It came before.
    Duplicate,
    /// Too old to tell.
    TooOld,
    /// The numbers jumped: everything known so far is void. The extended number of this packet.
    Restarted(u64),
}

#[derive(Debug, Clone, Copy)]
struct Missing {
    since: Instant,
    asked: u32,
    last: Option<Instant>,
    /// The last request is to be repeated.
    echo: bool,
}

impl Missing {
    fn new(since: Instant) -> Self {
        Self { since, asked: 0, last: None, echo: false }
    }
}

/// Arrivals of one SSRC.
#[derive(Debug, Clone)]
pub struct Tracker {
    config: NackConfig,
    unwrapper: Unwrapper,
    /// One bit per number of the window, at `extended % WINDOW`.
    seen: Vec<bool>,
    missing: BTreeMap<u64, Missing>,
    old_in_a_row: u32,
    rtt: Duration,
    unheard: Unheard,
    /// Time from a loss to its repair, and how it deviates, in seconds. A server in the middle may have to ask itself.
    repair: Option<(f32, f32)>,
    lost: u64,
    recovered: u64,
    requested: u64,
}

impl Tracker {
    /// A tracker that has seen nothing.
    pub fn new(config: NackConfig) -> Self {
        Self {
            config,
            unwrapper: Unwrapper::default(),
            seen: vec![false; WINDOW as usize],
            missing: BTreeMap::new(),
            old_in_a_row: 0,
            rtt: Duration::from_millis(50),
            unheard: Unheard::default(),
            repair: None,
            lost: 0,
            recovered: 0,
            requested: 0,
        }
    }

    /// Tells the round-trip time: a packet is asked for again after it, not before.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt.min(Duration::from_secs(2));
    }

    /// The round-trip time as told.
    pub fn rtt(&self) -> Duration {
        self.rtt
    }

    /// Takes one packet.
    pub fn push(&mut self, sequence: u16, now: Instant) -> Arrival {
        let Some(highest) = self.unwrapper.highest() else {
            let extended = self.unwrapper.unwrap(sequence);
            self.mark(extended);
            return Arrival::New(extended);
        };
        let extended = self.unwrapper.peek(sequence);
        if extended > highest {
            if extended - highest > self.config.max_gap {
                return self.restart(sequence);
            }
            self.old_in_a_row = 0;
            self.unwrapper.unwrap(sequence);
            for gone in highest + 1..extended {
                self.clear(gone);
                self.missing.insert(gone, Missing::new(now));
                self.lost += 1;
            }
            self.mark(extended);
            // Numbers that have left the window can no longer be told from duplicates.
            let floor = extended.saturating_sub(WINDOW - 1);
            self.drop_before(floor);
            return Arrival::New(extended);
        }
        if highest - extended >= WINDOW {
            self.old_in_a_row += 1;
            if self.old_in_a_row >= RESTART_AFTER {
                return self.restart(sequence);
            }
            return Arrival::TooOld;
        }
        self.old_in_a_row = 0;
        if self.is_seen(extended) {
            return Arrival::Duplicate;
        }
        self.mark(extended);
        match self.missing.remove(&extended) {
            Some(missing) if missing.asked > 0 => {
                self.recovered += 1;
                self.unheard.repaired();
                let took = now.saturating_duration_since(missing.since).as_secs_f32();
                // As TCP smooths its round trips (RFC 6298).
                self.repair = Some(self.repair.map_or((took, took / 2.0), |(mean, deviation)| {
                    (mean + (took - mean) / 8.0, deviation + ((took - mean).abs() - deviation) / 4.0)
                }));
                Arrival::Recovered(extended)
            }
            Some(_) => {
                // Overtaken, not lost.
                self.lost = self.lost.saturating_sub(1);
                Arrival::Reordered(extended)
            }
            // Given up before, or from before the first packet.
            None => Arrival::Reordered(extended),
        }
    }

    /// Sequence numbers to ask for now, oldest first, at most 256.
    pub fn poll(&mut self, now: Instant) -> Vec<u16> {
        let spacing = self.spacing();
        let mut due = Vec::new();
        for (&extended, missing) in &mut self.missing {
            if due.len() >= MAX_PER_POLL {
                break;
            }
            if due_at(&self.config, self.rtt, spacing, missing).is_none_or(|at| at > now) {
                continue;
            }
            if !std::mem::take(&mut missing.echo) {
                if missing.asked > 0 {
                    self.unheard.unrepaired();
                }
                missing.asked += 1;
                missing.last = Some(now);
                missing.echo = self.unheard.echoes(missing.asked);
            }
            // The low 16 bits are the number on the wire.
            due.push(extended as u16);
        }
        self.requested += due.len() as u64;
        due
    }

    /// When [`Tracker::poll`] has something to ask for.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let spacing = self.spacing();
        self.missing.values().filter_map(|missing| due_at(&self.config, self.rtt, spacing, missing)).min()
    }

    /// Forgets missing packets before `extended`: nobody waits for them any more.
    pub fn drop_before(&mut self, extended: u64) {
        self.missing = self.missing.split_off(&extended);
    }

    /// Since when a packet is missing; `None` when it is not, or was forgotten.
    pub fn missing_since(&self, extended: u64) -> Option<Instant> {
        self.missing.get(&extended).map(|missing| missing.since)
    }

    /// The highest extended number so far.
    pub fn highest(&self) -> Option<u64> {
        self.unwrapper.highest()
    }

    /// Packets that did not come in their turn and were not merely overtaken.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Packets that came after they were asked for.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Sequence numbers asked for, repeats included.
    pub fn requested(&self) -> u64 {
        self.requested
    }

    /// Time between two requests for one packet, before it grows with their number.
    pub fn spacing(&self) -> Duration {
        spacing(&self.config, self.rtt, self.repair)
    }

    /// By when nearly every repair has come, counted from the loss; `None` before the first one.
    pub fn repair_time(&self) -> Option<Duration> {
        self.repair.map(|(mean, deviation)| Duration::from_secs_f32((mean + 4.0 * deviation).clamp(0.0, 10.0)))
    }

    /// Mean time from a loss to its repair; `None` before the first one.
    pub fn mean_repair_time(&self) -> Option<Duration> {
        self.repair.map(|(mean, _)| Duration::from_secs_f32(mean.clamp(0.0, 10.0)))
    }

    fn restart(&mut self, sequence: u16) -> Arrival {
        // Keep the extended numbers growing, so that users never see one twice.
        let base = self.unwrapper.highest().unwrap_or_default() + 2 * 0x1_0000;
        let extended = (base & !0xffff) | u64::from(sequence);
        self.unwrapper = Unwrapper::starting_at(extended);
        self.seen.fill(false);
        self.missing.clear();
        self.old_in_a_row = 0;
        self.mark(extended);
        Arrival::Restarted(extended)
    }

    fn mark(&mut self, extended: u64) {
        if let Some(bit) = self.seen.get_mut((extended % WINDOW) as usize) {
            *bit = true;
        }
    }

    fn clear(&mut self, extended: u64) {
        if let Some(bit) = self.seen.get_mut((extended % WINDOW) as usize) {
            *bit = false;
        }
    }

    fn is_seen(&self, extended: u64) -> bool {
        self.seen.get((extended % WINDOW) as usize).copied().unwrap_or(false)
    }
}

/// Who repairs later than after a round trip is not asked more often for that.
fn spacing(config: &NackConfig, rtt: Duration, repair: Option<(f32, f32)>) -> Duration {
    let repair = repair.map_or(Duration::ZERO, |(mean, _)| Duration::from_secs_f32((mean / 2.0).clamp(0.0, 0.25)));
    config.min_spacing.max(rtt.mul_f32(1.25)).max(repair)
}

/// When a missing packet is to be asked for next; `None` when asking is over.
fn due_at(config: &NackConfig, rtt: Duration, spacing: Duration, missing: &Missing) -> Option<Instant> {
    let at = match missing.last {
        None => missing.since + config.first_delay,
        // Where a repair takes no longer than that, it is waited for first.
        Some(last) if missing.echo => return Some(last + ECHO.max(rtt / 8)),
        Some(last) => {
            // Repeats thin out, so that an outage does not end in a storm of requests.
            last + (spacing * (1 + missing.asked / 5)).min(spacing.max(Duration::from_millis(250)))
        }
    };
    (missing.asked < config.max_requests && at <= missing.since + config.max_age).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn gaps_are_asked_for_after_the_delay_and_then_once_per_round_trip() {
        let start = Instant::now();
        let mut tracker = Tracker::new(NackConfig::default());
        tracker.set_rtt(40 * MS);
        assert!(matches!(tracker.push(65_534, start), Arrival::New(_)));
        assert!(matches!(tracker.push(1, start), Arrival::New(_)));
        assert_eq!(tracker.poll_timeout(), Some(start + 10 * MS));
        assert!(tracker.poll(start + 9 * MS).is_empty());
        assert_eq!(tracker.poll(start + 10 * MS), [65_535, 0]);
        assert!(tracker.poll(start + 59 * MS).is_empty());
        assert_eq!(tracker.poll(start + 60 * MS), [65_535, 0]);
        assert!(matches!(tracker.push(0, start + 61 * MS), Arrival::Recovered(_)));
        assert_eq!(tracker.push(0, start + 62 * MS), Arrival::Duplicate);
        assert_eq!((tracker.lost(), tracker.recovered()), (2, 1));
        assert_eq!(tracker.poll(start + 110 * MS), [65_535]);
    }

    #[test]
    fn requests_without_an_answer_are_sent_twice() {
        let start = Instant::now();
        let mut tracker = Tracker::new(NackConfig::default());
        tracker.set_rtt(80 * MS);
        tracker.push(10, start);
        tracker.push(12, start);
        // On a path that answers, once.
        assert_eq!(tracker.poll(start + 10 * MS), [11]);
        assert!(tracker.poll(start + 109 * MS).is_empty());
        assert_eq!(tracker.poll(start + 110 * MS), [11]);
        assert!(tracker.poll(start + 121 * MS).is_empty());
        assert_eq!(tracker.poll(start + 122 * MS), [11]);
        assert!(tracker.poll(start + 209 * MS).is_empty());
        assert!(matches!(tracker.push(11, start + 200 * MS), Arrival::Recovered(_)));
        // By now it is known to be one that loses requests.
        tracker.push(14, start + 300 * MS);
        assert_eq!(tracker.poll(start + 310 * MS), [13]);
        assert_eq!(tracker.poll_timeout(), Some(start + 322 * MS));
    }

    #[test]
    fn overtaken_packets_are_neither_lost_nor_asked_for() {
        let start = Instant::now();
        let mut tracker = Tracker::new(NackConfig::default());
        tracker.push(10, start);
        tracker.push(12, start);
        assert!(matches!(tracker.push(11, start + 5 * MS), Arrival::Reordered(_)));
        assert!(tracker.poll(start + 50 * MS).is_empty());
        assert_eq!(tracker.lost(), 0);
    }

    #[test]
    fn asking_ends() {
        let start = Instant::now();
        let mut tracker = Tracker::new(NackConfig { max_requests: 4, ..NackConfig::default() });
        tracker.push(1, start);
        tracker.push(3, start);
        let asked: usize = (0..5_000).map(|ms| tracker.poll(start + MS * ms).len()).sum();
        // The later ones twice each.
        assert_eq!(asked, 1 + 3 * 2);
        assert_eq!(tracker.poll_timeout(), None);
        // By age as well.
        let mut tracker = Tracker::new(NackConfig { max_requests: u32::MAX, ..NackConfig::default() });
        tracker.push(1, start);
        tracker.push(3, start);
        let asked: usize = (0..5_000).map(|ms| tracker.poll(start + MS * ms).len()).sum();
        assert!((4..40).contains(&asked), "{asked}");
    }

    #[test]
    fn a_jump_either_way_is_a_new_beginning() {
        let start = Instant::now();
        let mut tracker = Tracker::new(NackConfig::default());
        tracker.push(100, start);
        assert!(matches!(tracker.push(5_000, start), Arrival::Restarted(_)));
        assert!(tracker.poll(start + 100 * MS).is_empty());
        // Far behind: a stray old packet is ignored, a run of them is a restart.
        let mut restarted = None;
        for step in 0..RESTART_AFTER as u16 {
            restarted = Some(tracker.push(60_000 + step, start));
        }
        assert!(matches!(restarted, Some(Arrival::Restarted(_))), "{restarted:?}");
    }

    proptest! {
        #[test]
        fn every_packet_is_counted_once(first: u16, order in prop::collection::vec(0u16..200, 1..400)) {
            let now = Instant::now();
            let mut tracker = Tracker::new(NackConfig::default());
            tracker.push(first, now);
            let mut seen = std::collections::HashSet::from([0]);
            for step in order {
                let duplicate = tracker.push(first.wrapping_add(step), now) == Arrival::Duplicate;
                prop_assert_eq!(duplicate, !seen.insert(step));
            }
            let highest = *seen.iter().max().unwrap() as usize;
            prop_assert_eq!(tracker.lost() as usize, highest + 1 - seen.len());
            prop_assert_eq!(tracker.poll(now + 10 * MS).len(), highest + 1 - seen.len());
        }
    }
}
