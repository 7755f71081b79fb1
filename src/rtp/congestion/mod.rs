//! Congestion control of a sender that gets transport-wide feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Delay first: a growing queue lowers the rate before anything is lost (`trendline`, `rate`). Losses limit only as far
//! as they come with the rate (`loss`). Upwards it does not grope but measures, by short bursts (`probe`).
//! Times are differences to one origin of the caller's; arrivals have an origin of their own.

mod beside;
mod loss;
mod probe;
mod rate;
mod remote;
mod throughput;
mod trendline;

#[cfg(test)]
mod simulation;

use std::collections::VecDeque;
use std::time::Duration;

pub use beside::Beside;
use loss::LossLimit;
pub use probe::Probe;
use probe::Prober;
use rate::{Path, RateControl};
pub use remote::RemoteEstimate;
use throughput::Throughput;
use trendline::Trendline;

/// Departures remembered until feedback tells about them: five seconds of 8 Mbit/s.
const HISTORY: usize = 4_096;
/// Departures older than this are taken for lost without feedback.
const HISTORY_AGE: Duration = Duration::from_secs(5);
/// A packet that is missing for this long is lost; before, it may just have been overtaken.
const PATIENCE: Duration = Duration::from_millis(120);
/// Missing packets that are remembered.
const MISSING: usize = 1_024;
/// Without any feedback for this long, while packets leave, the rate is halved; again after each such time.
const SILENCE: Duration = Duration::from_millis(1_500);
/// A packet that comes although one that left this shortly before it has not may have overtaken that one.
pub const AHEAD: Duration = Duration::from_millis(100);
/// Behind a queue that is longer than this a burst tells how fast the path is, but not that there is room on it.
const ROOM: Duration = Duration::from_millis(40);
/// What is sent is measured over this time.
const SENT_WINDOW: Duration = Duration::from_millis(500);
/// Above the target, so that frames larger than the mean do not pile up in the pacer.
const PACING_FACTOR: f64 = 2.0;

/// Bounds of the rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Where it begins, in bit/s.
    pub start_bps: f64,
    /// It never goes below, in bit/s.
    pub min_bps: f64,
    /// More is of no use to the source, in bit/s; nothing is probed beyond.
    pub max_bps: f64,
}

/// A packet that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departed {
    /// Transport-wide number as written.
    pub number: u16,
    /// Size in bytes.
    pub bytes: usize,
    /// When.
    pub at: Duration,
    /// The burst it belongs to, see [`Congestion::take_probe`].
    pub probe: Option<u32>,
}

/// What feedback says about one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Transport-wide number.
    pub number: u16,
    /// When it arrived, by the receiver's clock since any origin; `None` if it had not yet.
    pub at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    packet: Departed,
    arrived: bool,
    missing: bool,
    /// Left more than once under this number: which of them arrived is unknown, and so is how long it took.
    repeated: bool,
}

/// The controller of one path.
#[derive(Debug)]
pub struct Congestion {
    bounds: Bounds,
    /// Nothing is probed beyond.
    useful_bps: f64,
    history: VecDeque<Flight>,
    /// Numbers that feedback passed over, and when.
    missing: VecDeque<(u16, Duration)>,
    trendline: Trendline,
    throughput: Throughput,
    rate: RateControl,
    loss: LossLimit,
    prober: Prober,
    rtt: Option<Duration>,
    newest_sent: Duration,
    /// The present, as far as known here.
    now: Duration,
    /// The last number that feedback was about.
    covered: Option<u16>,
    heard: Option<Duration>,
    sent_since_heard: bool,
    /// Feedback stayed away; what is lost meanwhile says nothing about the rate.
    silent: bool,
}

impl Congestion {
    /// Begins at the start rate.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            useful_bps: bounds.max_bps,
            history: VecDeque::new(),
            missing: VecDeque::new(),
            trendline: Trendline::default(),
            throughput: Throughput::default(),
            rate: RateControl::new(bounds.start_bps, bounds.min_bps, bounds.max_bps),
            loss: LossLimit::default(),
            prober: Prober::default(),
            rtt: None,
            newest_sent: Duration::ZERO,
            now: Duration::ZERO,
            covered: None,
            heard: None,
            sent_since_heard: false,
            silent: false,
        }
    }

    /// What may be sent, in bit/s.
    pub fn target_bps(&self) -> f64 {
        let loss = self.loss.limit_bps().unwrap_or(f64::INFINITY);
        self.rate.bps().min(loss).clamp(self.bounds.min_bps, self.bounds.max_bps)
    }

    /// What a pacer lets out, in bit/s.
    pub fn pacing_bps(&self) -> f64 {
        self.target_bps() * PACING_FACTOR
    }

    /// More than this is of no use to the source for now: nothing is probed beyond. What was reached stays.
    pub fn set_useful_bps(&mut self, bps: f64) {
        self.useful_bps = bps.clamp(self.bounds.min_bps, self.bounds.max_bps);
    }

    /// Smoothed round-trip time by the feedback.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// When a queue took the rate down last.
    pub fn fell_at(&self) -> Option<Duration> {
        self.rate.decreased_at()
    }

    /// How long the queue on the way to the receiver is: what the newest arrivals met there, less what has drained since where little was
    /// sent after them.
    pub fn queue(&self) -> Duration {
        let met = self.trendline.queue();
        let later = self.history.iter().rev().take_while(|flight| flight.packet.at > self.newest_sent);
        let bytes: usize = later.map(|flight| flight.packet.bytes).sum();
        let fresh = Duration::from_secs_f64(bytes as f64 * 8.0 / self.target_bps());
        met.min((met + fresh).saturating_sub(self.now.saturating_sub(self.newest_sent)))
    }

    /// A packet left.
    pub fn departed(&mut self, packet: Departed) {
        self.now = self.now.max(packet.at);
        if let Some(last) = self.history.back() {
            match packet.number.wrapping_sub(last.packet.number) {
                1 => {}
                0 | 0x8000.. => {
                    self.left_again(packet.number);
                    return;
                }
                // Numbers were left out: nothing can be found by counting any more.
                _ => self.history.clear(),
            }
        }
        while self.history.len() >= HISTORY
            || self.history.front().is_some_and(|old| packet.at.saturating_sub(old.packet.at) > HISTORY_AGE)
        {
            self.history.pop_front();
        }
        if let Some(id) = packet.probe {
            self.prober.sent(id);
        }
        self.sent_since_heard = true;
        self.history.push_back(Flight { packet, arrived: false, missing: false, repeated: false });
    }

    /// A packet left once more under its former number: that adds nothing but doubt about when it left.
    pub fn left_again(&mut self, number: u16) {
        if let Some(flight) = find(&mut self.history, number) {
            flight.repeated = true;
        }
    }

    /// Takes one feedback message, in the order of its numbers.
    pub fn feedback(&mut self, arrivals: &[Arrival], now: Duration) {
        self.now = self.now.max(now);
        self.heard = Some(now);
        self.sent_since_heard = false;
        let (mut arrived, mut bytes) = (0, 0);
        let mut measured: Option<f64> = None;
        let mut newest: Option<Duration> = None;
        let mut news: Vec<(Duration, Departed, bool, bool)> = Vec::with_capacity(arrivals.len());
        // When the last one left that has not come: overtaken ones are not reported again by everybody.
        let mut absent: Option<Duration> = None;
        for arrival in arrivals {
            let Some(flight) = find(&mut self.history, arrival.number) else { continue };
            match arrival.at {
                Some(at) if !flight.arrived => {
                    flight.arrived = true;
                    arrived += 1;
                    bytes += flight.packet.bytes;
                    newest = newest.max((!flight.repeated).then_some(flight.packet.at));
                    let ahead = absent.is_some_and(|sent| flight.packet.at.saturating_sub(sent) < AHEAD);
                    news.push((at, flight.packet, flight.repeated, ahead));
                }
                None if !flight.arrived => {
                    absent = Some(flight.packet.at);
                    if std::mem::replace(&mut flight.missing, true) {
                        continue;
                    }
                    if self.missing.len() < MISSING {
                        self.missing.push_back((arrival.number, now));
                    }
                }
                _ => {}
            }
        }
        let unheard = self.unheard(arrivals, arrived);
        news.sort_by_key(|(at, ..)| *at);
        if let Some((first, ..)) = news.first() {
            self.throughput.add(*first, unheard, false);
        }
        let loses = self.loss.base();
        for (at, packet, repeated, ahead) in news {
            let queued = !repeated && self.trendline.packet(packet.at, at, ahead);
            self.throughput.add(at, packet.bytes, queued);
            if let Some(id) = packet.probe
                && let Some(bps) = self.prober.arrived(id, (at, packet.bytes), loses, self.useful_bps, now)
            {
                measured = Some(measured.map_or(bps, |best| best.max(bps)));
            }
        }
        if let Some(sent) = newest {
            self.newest_sent = self.newest_sent.max(sent);
            let sample = now.saturating_sub(sent);
            self.rtt = Some(self.rtt.map_or(sample, |old| (old * 7 + sample) / 8));
        }
        let mut lost = 0;
        let decreased = self.rate.decreased_at();
        while let Some((number, since)) = self.missing.front().copied()
            && now.saturating_sub(since) >= PATIENCE
        {
            self.missing.pop_front();
            // What was lost at a rate that has been taken back is no reason to go down again.
            let counts = |flight: &mut Flight| !flight.arrived && decreased.is_none_or(|at| flight.packet.at > at);
            lost += u32::from(find(&mut self.history, number).is_some_and(counts));
        }
        if std::mem::take(&mut self.silent) {
            self.loss = LossLimit::default();
        } else {
            let (target, queue) = (self.target_bps(), self.trendline.queue());
            self.loss.add((arrived, lost), bytes, target, queue, now);
        }
        let before = self.rate.bps();
        let rtt = self.rtt.unwrap_or(Duration::from_millis(100));
        let (long_bps, short_bps) = (self.throughput.long_bps(), self.throughput.short_bps());
        let busy_bps = self.throughput.busy_bps();
        let sent_bps = Some(self.sent_bps());
        let path = Path {
            rtt,
            queue: self.trendline.queue(),
            newest_sent: self.newest_sent,
            long_bps,
            short_bps,
            busy_bps,
            sent_bps,
        };
        if self.rate.update(self.trendline.usage(), self.throughput.bps(), path, now) {
            self.trendline.rebase();
        }
        if self.rate.bps() < before {
            self.prober.fell(self.trendline.queue() >= ROOM / 2, now);
        }
        if let Some(bps) = measured.map(|bps| self.prober.believed(bps, self.rate.bps(), self.rate.capacity_bps(), now))
            && bps > self.rate.bps()
            && self.trendline.usage() != trendline::Usage::Over
            && self.trendline.queue() < ROOM
        {
            self.rate.jump(bps, now);
        }
        self.loss.release_above(self.rate.bps());
    }

    /// What was sent per second, of what feedback tells about by now.
    fn sent_bps(&self) -> f64 {
        let known = self.history.iter().rev().map(|flight| flight.packet).skip_while(|p| p.at > self.newest_sent);
        let recent = known.take_while(|packet| self.newest_sent.saturating_sub(packet.at) <= SENT_WINDOW);
        recent.map(|packet| packet.bytes).sum::<usize>() as f64 * 8.0 / SENT_WINDOW.as_secs_f64()
    }

    /// Bytes that feedback which got lost was about, as far as they will have arrived: like those of this one.
    fn unheard(&mut self, arrivals: &[Arrival], arrived: u32) -> usize {
        let (Some(first), Some(last)) = (arrivals.first(), arrivals.last()) else { return 0 };
        let before = self.covered.replace(last.number);
        let Some(gap) = before.map(|covered| first.number.wrapping_sub(covered.wrapping_add(1))) else { return 0 };
        if gap == 0 || usize::from(gap) >= HISTORY / 4 || arrived == 0 {
            return 0;
        }
        let covered = before.unwrap_or_default();
        let numbers = (1..=gap).map(|step| covered.wrapping_add(step));
        let bytes: usize = numbers
            .filter_map(|number| {
                find(&mut self.history, number).filter(|flight| !flight.arrived).map(|flight| flight.packet.bytes)
            })
            .sum();
        bytes * arrived as usize / arrivals.len().max(1)
    }

    /// What happens by the clock; to be called every 25–100 ms while media is sent.
    pub fn tick(&mut self, now: Duration) {
        self.listen(now);
        if self.loss.limit_bps().is_none() && self.trendline.queue() < ROOM {
            let (decreased, before) = (self.rate.decreased_at(), self.rate.before_decrease_bps());
            self.prober.plan(self.rate.bps(), self.useful_bps, decreased, before, now);
        }
    }

    /// The same while no bursts can be sent.
    pub fn listen(&mut self, now: Duration) {
        self.now = self.now.max(now);
        let heard = *self.heard.get_or_insert(now);
        if self.sent_since_heard && now.saturating_sub(heard) >= SILENCE {
            // The way back or forth is blocked. Less until it opens.
            self.heard = Some(now);
            // Once for what was sent; again only when more is sent into the silence.
            self.sent_since_heard = false;
            self.silent = true;
            let halved = self.rate.bps() / 2.0;
            self.rate = RateControl::new(halved, self.bounds.min_bps, self.bounds.max_bps);
            self.prober.fell(self.trendline.queue() >= ROOM / 2, now);
        }
    }

    /// A burst to send now, if one is due. Its packets carry its id in [`Departed::probe`].
    pub fn take_probe(&mut self, now: Duration) -> Option<Probe> {
        self.prober.take(now)
    }
}

/// The departure numbered `number`; the numbers in the history follow one another.
fn find(history: &mut VecDeque<Flight>, number: u16) -> Option<&mut Flight> {
    let first = history.front()?.packet.number;
    let index = usize::from(number.wrapping_sub(first));
    history.get_mut(index).filter(|flight| flight.packet.number == number)
}
