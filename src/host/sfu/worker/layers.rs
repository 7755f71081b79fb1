//! Which layer every subscriber gets: tiles and estimates in, targets and wishes out.

use std::collections::HashMap;
use std::time::Duration;

use super::super::allocate::{Choice, LayerState, Wish, allocate};
use super::super::demux::LegKey;
use super::super::outbound::{Departure, LEAST_REPAIRS_PER_SECOND, REPAIRS_PER_SECOND, TrackOut};
use super::super::publication::{Publication, UNLIMITED_BPS};
use super::super::receiver::{BELOW_RTP, Estimator};
use super::super::twcc;
use super::climb::Climb;
use super::{Leg, NO_STREAM, Worker};
use crate::rtp::answers;
use crate::rtp::congestion::Beside;
use crate::rtp::pace::Pacer;
use crate::rtp::simulcast::{layer_size, least_bps, most_bps};

/// Choices are made this often.
const CHOOSE_US: u64 = 100_000;
/// The estimators' clock …
const BEAT_US: u64 = 25_000;
/// … while so many packets leave between two choices. Otherwise it goes with the choices: a call in which nobody speaks should
/// sleep.
const BUSY_PACKETS: u32 = 3;
/// The first packets of a new receiver are not to wait for it.
const YOUNG_US: u64 = 3_000_000;
/// A layer that was asked for and has not come by then is not waited for: another one is taken meanwhile.
const PATIENCE_US: u64 = 700_000;
/// A key frame that has not come by then is asked for once more.
const ASK_AGAIN_US: u64 = 1_500_000;
/// Of what sound and repeats leave of the estimate this share is the picture's; the rest is headers and what the estimate is
/// wrong by.
const PICTURE_PERCENT: u64 = 92;
/// However much is repeated, pictures keep this share of the estimate.
const LEAST_PICTURE_PERCENT: u64 = 40;
/// Pictures up to what the pace gives in this time leave without a wait: a frame, while all is well.
const AT_ONCE: Duration = Duration::from_millis(30);
/// Behind a queue of this length few repeats are of use: what it drops comes from it.
const LONG_QUEUE: Duration = Duration::from_millis(100);
const QUEUED_REPAIRS_PER_SECOND: f64 = 5.0;
/// Of the estimate this share may be repeats, of packets of so many bits.
const REPAIRS_SHARE: f64 = 0.5;
const PACKET_BITS: f64 = 9_600.0;
/// A share that moves by less than this, in percent, is not told anew.
const STEADY_PERCENT: u64 = 5;
/// Louder than this, of 127, somebody speaks; whoever spoke last keeps it until another one is so much louder.
const SPEAKS: f32 = 77.0;
const LOUDER: f32 = 6.0;

/// Somebody who receives, with all legs to them.
#[derive(Debug)]
pub(super) struct Receiver {
    name: String,
    legs: Vec<LegKey>,
    estimator: Estimator,
    /// Bytes of sound and of repeats so far, and what they take of the path.
    beside_bytes: u64,
    beside: Beside,
    looked_us: u64,
    /// Packets since the last choice.
    departures: u32,
    born_us: u64,
    /// Pictures leave at its pace; sound, repeats and bursts do not wait.
    pacer: Pacer,
}

/// What the path of a receiver takes.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// In all, in bit/s.
    estimate_bps: u64,
    /// What of that is left for pictures, in bit/s.
    pictures_bps: u64,
    /// How long its queue is.
    queue: Duration,
}

impl Receiver {
    fn new(name: String, now_us: u64) -> Self {
        let estimator = Estimator::new();
        Self {
            name,
            legs: Vec::new(),
            estimator,
            beside_bytes: 0,
            beside: Beside::default(),
            looked_us: now_us,
            departures: 0,
            born_us: now_us,
            pacer: Pacer::default(),
        }
    }

    /// Whether the path has to be watched closely.
    fn is_busy(&self, now_us: u64) -> bool {
        self.departures >= BUSY_PACKETS || now_us.saturating_sub(self.born_us) < YOUNG_US
    }

    /// What left was no picture, but sound or a repeat.
    pub(super) fn beside(&mut self, bytes: usize) {
        self.beside_bytes += (bytes + BELOW_RTP) as u64;
    }

    /// A repeat left on one of its legs.
    pub(super) fn repeated(&mut self, leg: LegKey, departed: Option<Departure>, now_us: u64) {
        if let Some(departure) = departed {
            self.departed(leg, departure, now_us);
            self.beside(departure.bytes);
        }
    }

    /// What the path takes, if that is known.
    fn room(&mut self, now_us: u64) -> Option<Room> {
        let passed = since(now_us.saturating_sub(std::mem::replace(&mut self.looked_us, now_us)));
        let beside_bps = self.beside.follow(self.beside_bytes, passed) as u64;
        self.estimator.bps().map(|bps| Room {
            estimate_bps: bps,
            pictures_bps: bps.saturating_sub(beside_bps).max(bps * LEAST_PICTURE_PERCENT / 100),
            queue: self.estimator.queue(),
        })
    }

    /// Whether another packet of a picture may leave now, where `waiting_bytes` of its leg do already.
    pub(super) fn lets_out(&mut self, waiting_bytes: usize, now_us: u64) -> bool {
        let Some((pacing_bps, drain)) = self.estimator.pacing(since(now_us)) else { return true };
        self.pacer.tick(pacing_bps, waiting_bytes, drain, AT_ONCE, since(now_us));
        self.pacer.open()
    }

    /// A packet left on one of its legs.
    pub(super) fn departed(&mut self, leg: LegKey, departure: Departure, now_us: u64) {
        self.departures = self.departures.saturating_add(1);
        self.pacer.left(departure.bytes);
        self.estimator.departed(leg, departure, None, since(now_us));
    }

    /// Transport-wide feedback about one of its legs.
    pub(super) fn fed_back(&mut self, leg: LegKey, body: &[u8], arrivals: &mut Vec<(u16, Option<u64>)>, now_us: u64) {
        twcc::read(body, arrivals);
        self.estimator.feedback(leg, arrivals, since(now_us));
    }
}

/// What a subscriber's leg knows about its picture.
#[derive(Debug, Clone, Default)]
pub(super) struct Viewing {
    /// Index of its receiver.
    pub(super) receiver: Option<usize>,
    /// Size of the tile, where the receiver tells it.
    pub(super) tile: Option<(u32, u32)>,
    /// What it is to get, whether that is there yet or not.
    choice: Choice,
    chosen_us: u64,
    asked_us: u64,
    climb: Climb,
    begun: bool,
}

/// The best two shares of a layer, and whose the best is.
#[derive(Debug, Clone, Copy, Default)]
struct Shares {
    best: Option<(LegKey, u64)>,
    second: u64,
}

impl Shares {
    fn add(&mut self, leg: LegKey, share: u64) {
        match self.best {
            Some((_, best)) if best >= share => self.second = self.second.max(share),
            Some((_, best)) => {
                self.second = best;
                self.best = Some((leg, share));
            }
            None => self.best = Some((leg, share)),
        }
    }

    fn without(&self, leg: LegKey) -> u64 {
        match self.best {
            Some((whose, _)) if whose == leg => self.second,
            Some((_, best)) => best,
            None => 0,
        }
    }

    fn most(&self) -> u64 {
        self.best.map_or(0, |(_, share)| share)
    }
}

fn since(now_us: u64) -> Duration {
    Duration::from_micros(now_us)
}

impl Worker {
    /// Adds a leg to its receiver; one without a name is a receiver of its own.
    pub(super) fn receive_on(&mut self, key: LegKey, name: Option<&str>) {
        let now_us = self.now_us();
        let name = name.map_or_else(|| format!("leg {key}"), str::to_owned);
        let found = self.receivers.iter().position(|slot| slot.as_ref().is_some_and(|receiver| receiver.name == name));
        let at = found.unwrap_or_else(|| {
            let receiver = Receiver::new(name, now_us);
            match self.receivers.iter().position(Option::is_none) {
                Some(at) => {
                    if let Some(slot) = self.receivers.get_mut(at) {
                        *slot = Some(receiver);
                    }
                    at
                }
                None => {
                    self.receivers.push(Some(receiver));
                    self.receivers.len() - 1
                }
            }
        });
        if let Some(Some(receiver)) = self.receivers.get_mut(at) {
            receiver.legs.push(key);
        }
        if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
            leg.viewing.receiver = Some(at);
        }
    }

    /// A leg is gone.
    pub(super) fn received_on(&mut self, key: LegKey, leg: &Leg) {
        self.choose_us = 0;
        let Some(slot) = leg.viewing.receiver.and_then(|at| self.receivers.get_mut(at)) else { return };
        if let Some(receiver) = slot {
            receiver.legs.retain(|other| *other != key);
            receiver.estimator.forget(key);
            if receiver.legs.is_empty() {
                *slot = None;
            }
        }
    }

    /// The receiver tells how large it draws a picture.
    pub(super) fn draw(&mut self, key: LegKey, size: (u32, u32)) {
        if let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) {
            leg.viewing.tile = Some(size);
        }
        let now_us = self.now_us();
        self.choose(now_us);
    }

    /// What is due for the receivers; when to look again.
    pub(super) fn tick_receivers(&mut self, now_us: u64) -> u64 {
        if self.receivers.iter().all(Option::is_none) && self.streams.iter().flatten().all(|s| !s.is_layered()) {
            return u64::MAX;
        }
        let beat = self.beat_us <= now_us;
        if beat {
            self.busy |= self.receivers.iter().flatten().any(|receiver| receiver.is_busy(now_us));
            for at in 0..self.receivers.len() {
                let Some(Some(receiver)) = self.receivers.get_mut(at) else { continue };
                let pads = |key: &LegKey| self.legs.get(*key).and_then(Option::as_ref).is_some_and(Leg::pads);
                let pictures = receiver.legs.iter().any(pads);
                if let Some(probe) = receiver.estimator.tick(pictures, since(now_us)) {
                    self.burst(at, probe.id, probe.bytes, now_us);
                }
            }
        }
        if self.choose_us <= now_us {
            self.choose(now_us);
        }
        if beat {
            self.beat_us = if self.busy { now_us + BEAT_US } else { self.choose_us };
        }
        self.beat_us.min(self.choose_us)
    }

    /// A burst of repeats that measures what a receiver can take.
    fn burst(&mut self, at: usize, probe: u32, bytes: usize, now_us: u64) {
        let Some(Some(receiver)) = self.receivers.get_mut(at) else { return };
        for &key in &receiver.legs {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { continue };
            let (Some(track), Some(publication)) =
                (leg.video.as_mut(), self.streams.get(leg.stream).and_then(Option::as_ref))
            else {
                continue;
            };
            if !track.pads() {
                continue;
            }
            let Some(mut exit) = leg.transport.exit() else { continue };
            let caches = |layer: usize| publication.layers.get(layer).map(|layer| &layer.track.cache);
            let (estimator, queue, dirty) = (&mut receiver.estimator, &mut leg.queue, &mut self.dirty);
            track.pad(bytes, caches, &mut exit, |data, departed| {
                if let Some(departure) = departed {
                    estimator.departed(key, departure, Some(probe), since(now_us));
                }
                if queue.is_empty() {
                    dirty.push(key);
                }
                queue.push(data);
            });
            return;
        }
    }

    /// Who speaks in each session, by stream.
    fn note_speakers(&mut self) {
        let mut loudest: HashMap<&str, (usize, f32)> = HashMap::new();
        for (at, publication) in self.streams.iter().enumerate() {
            let Some(publication) = publication else { continue };
            let loudness = publication.loudness + if publication.speaks { LOUDER } else { 0.0 };
            if loudness >= SPEAKS && loudest.get(publication.session.as_str()).is_none_or(|(_, most)| loudness > *most)
            {
                loudest.insert(&publication.session, (at, loudness));
            }
        }
        let speaking: Vec<usize> = loudest.into_values().map(|(at, _)| at).collect();
        for (at, publication) in self.streams.iter_mut().enumerate() {
            if let Some(publication) = publication {
                publication.speaks = speaking.contains(&at);
            }
        }
    }

    /// Chooses for everybody.
    pub(super) fn choose(&mut self, now_us: u64) {
        self.choose_us = now_us + CHOOSE_US;
        // Packets of the last stretch say whether the next one is busy.
        self.busy = self.receivers.iter().flatten().any(|receiver| receiver.is_busy(now_us));
        self.receivers.iter_mut().flatten().for_each(|receiver| receiver.departures = 0);
        self.note_speakers();
        let shares = self.shares();
        for at in 0..self.receivers.len() {
            let Some(Some(receiver)) = self.receivers.get_mut(at) else { continue };
            let legs = receiver.legs.clone();
            let room = receiver.room(now_us);
            let wishes: Vec<(LegKey, Wish)> =
                legs.into_iter().filter_map(|key| Some((key, self.wish(key, &shares, room, now_us)?))).collect();
            let useful: u64 =
                wishes.iter().filter_map(|(_, wish)| Some(wish.useful(wish.highest()?))).fold(0, u64::saturating_add);
            let useful_bps = useful * 100 / PICTURE_PERCENT + useful / 10;
            if let Some(Some(receiver)) = self.receivers.get_mut(at) {
                receiver.estimator.set_useful_bps(useful_bps);
            }
            // Behind a queue copies of answers would lengthen it; where less is left, they would cost the layer.
            let roomy =
                room.is_some_and(|room| room.queue < answers::LONG_QUEUE && room.estimate_bps >= useful_bps / 2);
            tracing::trace!(receiver = at, ?room, useful, "estimate");
            let (keys, wishes): (Vec<LegKey>, Vec<Wish>) = wishes.into_iter().unzip();
            let choices = allocate(room.map(|room| room.pictures_bps * PICTURE_PERCENT / 100), &wishes);
            for ((key, wish), choice) in keys.into_iter().zip(&wishes).zip(choices) {
                if let Some(track) = self.legs.get_mut(key).and_then(Option::as_mut).and_then(|leg| leg.video.as_mut())
                {
                    track.roomy = roomy;
                }
                let limited = choice.layer < wish.highest();
                self.apply(key, choice, limited, room, now_us);
            }
        }
        self.tell_publishers(now_us);
    }

    /// What everybody gets, by stream and layer.
    fn shares(&self) -> Vec<[Shares; 3]> {
        let mut shares = vec![[Shares::default(); 3]; self.streams.len()];
        for (key, leg) in self.legs.iter().enumerate() {
            let Some(leg) = leg.as_ref().filter(|leg| leg.viewing.begun) else { continue };
            let Some(layer) = leg.viewing.choice.layer else { continue };
            if let Some(slot) = shares.get_mut(leg.stream).and_then(|layers| layers.get_mut(layer)) {
                slot.add(key, leg.viewing.choice.share_bps);
            }
        }
        shares
    }

    fn wish(&self, key: LegKey, shares: &[[Shares; 3]], room: Option<Room>, now_us: u64) -> Option<Wish> {
        let leg = self.legs.get(key)?.as_ref()?;
        leg.video.as_ref().filter(|_| leg.transport.connected())?;
        let publication = self.streams.get(leg.stream)?.as_ref()?;
        let shares = shares.get(leg.stream)?;
        let layers = (0..publication.layers.len()).zip(shares).map(|(layer, shares)| LayerState {
            live_bps: publication.live(layer, now_us),
            others_bps: shares.without(key),
        });
        let viewing = &leg.viewing;
        Some(Wish {
            speaks: publication.speaks,
            tile: viewing.tile,
            full: publication.size,
            layers: layers.collect(),
            before: viewing.choice.layer.filter(|_| viewing.begun),
            may_rise: viewing.climb.may_rise(room.map(|room| room.estimate_bps), now_us),
            own_bps: publication.estimated(key, now_us).filter(|_| publication.is_layered()),
        })
    }

    /// Carries out a choice.
    ///
    /// `limited`: a larger layer would fill the tile better.
    fn apply(&mut self, key: LegKey, choice: Choice, limited: bool, room: Option<Room>, now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { return };
        let Some(publication) = self.streams.get_mut(leg.stream).and_then(Option::as_mut) else { return };
        let Some(track) = leg.video.as_mut() else { return };
        let viewing = &mut leg.viewing;
        let before = viewing.choice;
        let first = !viewing.begun;
        if !viewing.begun || choice.layer != before.layer {
            viewing.chosen_us = now_us;
            let estimate_bps = room.map(|room| room.estimate_bps);
            if viewing.begun && choice.layer < before.layer {
                viewing.climb.fell(estimate_bps, now_us);
            } else {
                viewing.climb.rose(estimate_bps, now_us);
            }
            tracing::debug!(leg = leg.id.0, layer = ?choice.layer, share_bps = choice.share_bps, "layer");
        }
        viewing.begun = true;
        let steady = before.share_bps.abs_diff(choice.share_bps) * 100 < before.share_bps * STEADY_PERCENT;
        viewing.choice = Choice { share_bps: if steady { before.share_bps } else { choice.share_bps }, ..choice };
        if let Some(room) = room {
            // Repeats of what a full queue has dropped would fill it again.
            let least = if room.queue < LONG_QUEUE { LEAST_REPAIRS_PER_SECOND } else { QUEUED_REPAIRS_PER_SECOND };
            let repeats = room.estimate_bps as f64 * REPAIRS_SHARE / PACKET_BITS;
            track.repairs_per_s = repeats.max(least).min(REPAIRS_PER_SECOND);
        }
        if room.is_some() && !publication.is_layered() {
            publication.estimate(key, choice.share_bps, now_us);
        }
        let waited = now_us.saturating_sub(viewing.chosen_us) >= PATIENCE_US;
        let target =
            choice.layer.map(|layer| available(publication, layer, track.switch.current(), waited, limited, now_us));
        let fresh = first || target != track.switch.target();
        track.switch.set_target(target);
        if limited && publication.is_layered() && target < track.switch.current() {
            // The line is full of what is too much for it: better a moment of nothing.
            track.switch.halt();
            leg.held.clear();
        }
        if track.switch.waits_for_key_frame() {
            let ask = fresh || now_us.saturating_sub(viewing.asked_us) >= ASK_AGAIN_US;
            if ask {
                viewing.asked_us = now_us;
            }
            self.begin_layer(key, ask, now_us);
        }
    }

    /// Tells publishers with layers which are wanted, and at what rate.
    fn tell_publishers(&mut self, now_us: u64) {
        let mut wanted = vec![[Shares::default(); 3]; self.streams.len()];
        for (key, leg) in self.legs.iter().enumerate() {
            let Some(leg) = leg.as_ref().filter(|leg| leg.viewing.begun && leg.stream != NO_STREAM) else { continue };
            let Some(choice) = leg.viewing.choice.layer else { continue };
            let Some(layers) = wanted.get_mut(leg.stream) else { continue };
            if let Some(slot) = layers.get_mut(choice) {
                slot.add(key, leg.viewing.choice.share_bps);
            }
            // Until the chosen one has begun the present one goes on, with as little as will do: else a path that is wide
            // enough for one of them would never get from one to the other.
            let current = leg.video.as_ref().and_then(|track| track.switch.current()).filter(|layer| *layer < choice);
            let publication = self.streams.get(leg.stream).and_then(Option::as_ref);
            if let (Some(current), Some(publication)) = (current, publication)
                && let Some(slot) = layers.get_mut(current)
            {
                let size = layer_size(publication.size, current, publication.layers.len());
                slot.add(key, least_bps(size).min(leg.viewing.choice.share_bps));
            }
        }
        for (publication, wanted) in self.streams.iter_mut().zip(&wanted) {
            let Some(publication) = publication.as_mut().filter(|publication| publication.is_layered()) else {
                continue;
            };
            let rates: Vec<u64> = wanted.iter().map(|shares| shares.most().min(UNLIMITED_BPS)).collect();
            publication.want_layers(&rates, now_us);
            self.next_us = self.next_us.min(publication.next_us());
        }
    }
}

impl Leg {
    /// Whether bursts can be made of what is sent here.
    fn pads(&self) -> bool {
        self.transport.connected() && self.video.as_ref().is_some_and(TrackOut::pads)
    }
}

impl Wish {
    /// What a layer makes use of at most, in bit/s.
    fn useful(&self, layer: usize) -> u64 {
        most_bps(layer_size(self.full, layer, self.layers.len()))
    }
}

/// The layer to take for a choice that may not be sent yet: the best one below it that is, else the lowest above, unless
/// it is what the line takes that has limited the choice.
fn available(
    publication: &Publication,
    choice: usize,
    shown: Option<usize>,
    waited: bool,
    limited: bool,
    now_us: u64,
) -> usize {
    let live = |layer: &usize| publication.live(*layer, now_us).is_some();
    // What is shown may go on until the chosen one comes; and where nothing is shown, something is better than nothing.
    let patient = !waited && shown.is_some_and(|shown| live(&shown));
    if live(&choice) || patient {
        return choice;
    }
    let below = (0..choice).rev().find(live);
    let above = || (choice..publication.layers.len()).find(live).filter(|_| !limited);
    below.or_else(above).unwrap_or(choice)
}
