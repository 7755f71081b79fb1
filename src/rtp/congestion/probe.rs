//! Short bursts above the present rate that measure what the path takes.

use std::collections::VecDeque;
use std::time::Duration;

use super::rate::BEYOND;

/// A burst lasts at least this long at the rate it tries.
const LENGTH: Duration = Duration::from_millis(30);
/// And has at least this many packets, of about this many bytes.
const PACKETS: usize = 4;
const PACKET_BYTES: usize = 1_150;
/// A burst that is not answered by then is given up.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Share of a burst's packets that must have arrived.
const ENOUGH: f64 = 0.8;
/// Pause between bursts while there is room above.
const INTERVAL: Duration = Duration::from_millis(2_500);
/// Calm after a decrease before the next burst.
const CALM: Duration = Duration::from_millis(1_000);
/// A second burst that confirms another comes within this time.
const CONFIRM: Duration = Duration::from_secs(2);
/// Until then the rate goes up to this share of what the path was thought to take.
const NEAR: f64 = 0.95;
/// So much of the way, as a factor's power, two bursts raise the rate: less each time that it falls again within this time.
const TRUST: (f64, f64) = (0.125, 0.5);
const REGRET: Duration = Duration::from_secs(2);
/// A burst whose result reaches this share of what it tried is followed by a higher one.
const GO_ON: f64 = 0.7;

/// A burst to be sent: `bytes` in all, media and padding, as fast as packets go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Probe {
    /// Goes into the departures of its packets.
    pub id: u32,
    /// The rate it tries.
    pub bps: f64,
    /// Bytes to send.
    pub bytes: usize,
}

#[derive(Debug)]
struct Flying {
    probe: Probe,
    begun: Duration,
    sent: usize,
    arrived: usize,
    arrived_bytes: usize,
    /// Time of arrival and size of the first and the last packet.
    first: Option<(Duration, usize)>,
    last: Option<(Duration, usize)>,
}

/// Plans bursts and reads their results.
#[derive(Debug)]
pub struct Prober {
    next_id: u32,
    planned: VecDeque<Probe>,
    flying: Vec<Flying>,
    begun: bool,
    last: Option<Duration>,
    /// What a burst has measured beyond what the path was thought to take, and when.
    promised: Option<(f64, Duration)>,
    /// When two of them raised the rate last, and how much of the way they may.
    raised: Option<Duration>,
    trust: f64,
}

impl Default for Prober {
    fn default() -> Self {
        Self {
            next_id: 1,
            planned: VecDeque::new(),
            flying: Vec::new(),
            begun: false,
            last: None,
            promised: None,
            raised: None,
            trust: TRUST.1,
        }
    }
}

impl Prober {
    /// Plans what is due, one burst at a time while `bps` is below `max_bps`.
    pub fn plan(&mut self, bps: f64, max_bps: f64, decreased: Option<Duration>, before_bps: f64, now: Duration) {
        self.flying.retain(|flying| now.saturating_sub(flying.begun) < TIMEOUT);
        if !self.planned.is_empty() || !self.flying.is_empty() {
            return;
        }
        if !self.begun {
            self.begun = true;
            self.last = Some(now);
            // The next one follows the answer, and only a good one: on a narrow path two at once would fill its queue
            // before the first picture is through.
            self.add(bps * 3.0, max_bps);
            return;
        }
        let calm = decreased.is_none_or(|at| now.saturating_sub(at) >= CALM);
        let due = self.last.is_none_or(|at| now.saturating_sub(at) >= INTERVAL);
        if calm && due && bps < max_bps * 0.97 {
            self.last = Some(now);
            // After a fall first back to where it was, if that is further than a doubling.
            let back =
                decreased.filter(|at| now.saturating_sub(*at) < Duration::from_secs(10)).map_or(0.0, |_| before_bps);
            self.add((bps * 2.0).max(back.min(bps * 3.0)), max_bps);
        }
    }

    fn add(&mut self, bps: f64, max_bps: f64) {
        // A little above the bound, so that the bound itself can be reached.
        let bps = bps.min(max_bps * 1.2);
        let bytes = ((bps / 8.0 * LENGTH.as_secs_f64()) as usize).max(PACKETS * PACKET_BYTES);
        self.planned.push_back(Probe { id: self.next_id, bps, bytes });
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// The next burst to send.
    pub fn take(&mut self, now: Duration) -> Option<Probe> {
        let probe = self.planned.pop_front()?;
        tracing::trace!(?probe, "burst begins");
        self.flying.push(Flying { probe, begun: now, sent: 0, arrived: 0, arrived_bytes: 0, first: None, last: None });
        Some(probe)
    }

    /// A packet of burst `id` left.
    pub fn sent(&mut self, id: u32) {
        if let Some(flying) = self.flying.iter_mut().find(|flying| flying.probe.id == id) {
            flying.sent += 1;
        }
    }

    /// A packet of burst `id` arrived, of so many bytes; the rate that the burst has measured, once enough of it has, on a
    /// path that `loses` this share of everything.
    pub fn arrived(
        &mut self,
        id: u32,
        (at, bytes): (Duration, usize),
        loses: f64,
        max_bps: f64,
        now: Duration,
    ) -> Option<f64> {
        let comes = 1.0 - loses.clamp(0.0, 0.5);
        let index = self.flying.iter().position(|flying| flying.probe.id == id)?;
        let flying = self.flying.get_mut(index)?;
        flying.arrived += 1;
        flying.arrived_bytes += bytes;
        if flying.first.is_none_or(|(first, _)| at < first) {
            flying.first = Some((at, bytes));
        }
        if flying.last.is_none_or(|(last, _)| at >= last) {
            flying.last = Some((at, bytes));
        }
        let whole = (flying.sent as f64 * ENOUGH * comes).ceil() as usize;
        let least = (flying.probe.bytes as f64 * 0.7 * comes) as usize;
        if flying.arrived < whole.max(PACKETS - 1) || flying.arrived_bytes < least {
            return None;
        }
        let flying = self.flying.swap_remove(index);
        let ((first, first_bytes), (last, _)) = (flying.first?, flying.last?);
        let took = last.saturating_sub(first).as_secs_f64();
        // The first packet opens the interval; its own bytes took time before.
        let bits = (flying.arrived_bytes - first_bytes) as f64 * 8.0 / comes;
        let measured = if took > 0.0 { bits / took } else { f64::INFINITY };
        let tried = flying.probe.bps;
        tracing::trace!(tried, measured, bytes = flying.arrived_bytes, "burst");
        // Slower than it was sent: that was the bottleneck's own rate.
        let result = if measured < tried * 0.9 { measured * 0.85 } else { tried };
        if result >= tried * GO_ON && result < max_bps * 0.97 {
            self.last = Some(now);
            self.add(result * 2.0, max_bps);
        }
        Some(result)
    }

    /// What of a measurement is to be believed where the path is thought to take `capacity`: beyond it two bursts in a row
    /// have to agree, since a delay of the first packet alone makes the others look fast, and then it is gone there in steps.
    pub fn believed(&mut self, bps: f64, present: f64, capacity: Option<f64>, now: Duration) -> f64 {
        let Some(capacity) = capacity.filter(|capacity| bps > capacity * BEYOND) else { return bps };
        match self.promised.take().filter(|(_, at)| now.saturating_sub(*at) < CONFIRM) {
            Some((before, _)) => {
                self.planned.clear();
                self.raised = Some(now);
                present * (bps.min(before) / present).max(1.0).powf(self.trust)
            }
            None => {
                self.promised = Some((bps, now));
                self.planned.clear();
                self.add(bps, f64::INFINITY);
                self.last = Some(now);
                capacity * NEAR
            }
        }
    }

    /// The rate fell: what was planned is too much now. Where there is a queue, a burst that had just raised it was wrong, as
    /// with shapers that let bursts through, and where others send too.
    pub fn fell(&mut self, queued: bool, now: Duration) {
        self.planned.clear();
        if let Some(at) = self.raised.take() {
            let wrong = queued && now.saturating_sub(at) < REGRET;
            self.trust = if wrong { (self.trust / 2.0).max(TRUST.0) } else { TRUST.1 };
        }
    }
}
