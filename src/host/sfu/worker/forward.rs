//! Packets to subscribers: as they come while the path takes them, else at its pace; and the last picture to whoever comes.

use std::collections::VecDeque;

use super::super::cache::{Cache, Stored};
use super::super::demux::LegKey;
use super::super::publication::{Fed, TrackKind};
use super::super::{SfuStats, outbound::TrackOut};
use super::{Leg, Viewer, Worker};

/// Packets that one leg may hold: as many as the cache keeps of a layer. What came first leaves when there are more.
const HELD_PACKETS: usize = super::super::cache::VIDEO_PACKETS;

/// Packets of a leg's picture that wait for its receiver's pace, by layer and number; the cache has their bytes.
#[derive(Debug, Default)]
pub(super) struct Held {
    packets: VecDeque<(usize, u64, usize)>,
    bytes: usize,
}

impl Held {
    fn push(&mut self, layer: usize, number: u64, bytes: usize) {
        self.bytes += bytes;
        self.packets.push_back((layer, number, bytes));
    }

    fn pop(&mut self) -> Option<(usize, u64)> {
        let (layer, number, bytes) = self.packets.pop_front()?;
        self.bytes -= bytes;
        Some((layer, number))
    }

    /// Forgets all of it: another picture begins.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Worker {
    /// One packet to every subscriber.
    pub(super) fn forward(&mut self, stream: usize, fed: Fed, now_us: u64) {
        let Some(publication) = self.streams.get(stream).and_then(Option::as_ref) else { return };
        let Some(cache) = publication.track(fed.kind, fed.layer).map(|track| &track.cache) else { return };
        let Some(stored) = cache.get(fed.number) else { return };
        for &key in &publication.subscribers {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { continue };
            if !leg.transport.connected() {
                continue;
            }
            let mut receiver = leg.viewing.receiver.and_then(|at| self.receivers.get_mut(at)?.as_mut());
            if fed.kind == TrackKind::Video
                && let (Some(track), Some(receiver)) = (&leg.video, &mut receiver)
                && track.switch.passes(fed.layer)
                && (!leg.held.packets.is_empty() || !receiver.lets_out(0, now_us))
            {
                if leg.held.packets.is_empty() && !self.holding.contains(&key) {
                    self.holding.push(key);
                    self.next_us = 0;
                }
                leg.held.push(fed.layer, fed.number, stored.payload.len());
                continue;
            }
            let empty = leg.queue.is_empty();
            leg.pass_on(key, fed, stored, receiver.as_deref_mut(), &mut self.stats, now_us);
            if fed.kind == TrackKind::Audio {
                leg.copy(key, stored, cache, receiver, &mut self.stats, now_us);
            }
            if empty && !leg.queue.is_empty() {
                self.dirty.push(key);
            }
        }
    }

    /// Lets out what the paces of the receivers allow of what is held.
    pub(super) fn let_out(&mut self, now_us: u64) {
        let mut holding = std::mem::take(&mut self.holding);
        holding.retain(|&key| {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { return false };
            let Some(publication) = self.streams.get(leg.stream).and_then(Option::as_ref) else { return false };
            let mut receiver = leg.viewing.receiver.and_then(|at| self.receivers.get_mut(at)?.as_mut());
            let empty = leg.queue.is_empty();
            while !leg.held.packets.is_empty() {
                let late = leg.held.packets.len() > HELD_PACKETS;
                let open = receiver.as_mut().is_none_or(|receiver| receiver.lets_out(leg.held.bytes, now_us));
                if !late && !open {
                    break;
                }
                let Some((layer, number)) = leg.held.pop() else { break };
                let fed = Fed { kind: TrackKind::Video, layer, number };
                let stored = publication.track(fed.kind, layer).and_then(|track| track.cache.get(number));
                if let Some(stored) = stored {
                    leg.pass_on(key, fed, stored, receiver.as_deref_mut(), &mut self.stats, now_us);
                }
            }
            if empty && !leg.queue.is_empty() {
                self.dirty.push(key);
            }
            !leg.held.packets.is_empty()
        });
        self.holding = holding;
    }

    /// A layer begins with a key frame: with the last one if nothing is shown now and it is recent, else one is asked for.
    pub(super) fn begin_layer(&mut self, key: LegKey, ask: bool, now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { return };
        let (Some(track), Some(publication)) =
            (leg.video.as_mut(), self.streams.get_mut(leg.stream).and_then(Option::as_mut))
        else {
            return;
        };
        let Some(target) = track.switch.target() else { return };
        let shown = track.switch.current().is_some_and(|layer| publication.live(layer, now_us).is_some());
        let run = publication.layers.get(target).filter(|_| !shown).and_then(|layer| layer.replay(now_us));
        let Some(run) = run else {
            if ask {
                publication.want_key_frame(target);
                self.next_us = 0;
            }
            return;
        };
        let Some(layer) = publication.layers.get(target) else { return };
        leg.held.clear();
        for stored in run.filter_map(|number| layer.track.cache.get(number)) {
            leg.held.push(target, stored.sequence, stored.payload.len());
        }
        if !self.holding.contains(&key) {
            self.holding.push(key);
        }
        self.next_us = 0;
        self.let_out(now_us);
    }
}

impl Leg {
    /// Writes a packet for this leg, if it is for it.
    fn pass_on(
        &mut self,
        key: LegKey,
        fed: Fed,
        stored: &Stored,
        receiver: Option<&mut Viewer>,
        stats: &mut SfuStats,
        now_us: u64,
    ) {
        let track = match fed.kind {
            TrackKind::Audio => self.audio.as_mut(),
            TrackKind::Video => self.video.as_mut(),
        };
        let (Some(track), Some(mut exit)) = (track, self.transport.exit()) else { return };
        let Some(data) = track.forward(fed.layer, stored, &mut exit, now_us) else { return };
        stats.rtp_forwarded += 1;
        self.queue.push(data);
        if let (Some(departure), Some(receiver)) = (track.departed.take(), receiver) {
            receiver.departed(key, departure, now_us);
            if fed.kind == TrackKind::Audio {
                receiver.beside(departure.bytes);
            }
        }
    }

    /// The copy of an earlier packet of sound that is to follow `stored`, if one is.
    fn copy(
        &mut self,
        key: LegKey,
        stored: &Stored,
        cache: &Cache,
        receiver: Option<&mut Viewer>,
        stats: &mut SfuStats,
        now_us: u64,
    ) {
        let (Some(track), Some(mut exit)) = (self.audio.as_mut(), self.transport.exit()) else { return };
        if let Some(copy) = TrackOut::copy(track, stored, cache, &mut exit) {
            stats.copies_sent += 1;
            self.queue.push(copy);
            if let Some(receiver) = receiver {
                receiver.repeated(key, track.departed.take(), now_us);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_leaves_in_its_order_and_its_bytes_are_counted() {
        let mut held = Held::default();
        for (layer, number, bytes) in [(2, 7, 1_100), (2, 8, 300), (0, 90, 500)] {
            held.push(layer, number, bytes);
        }
        assert_eq!((held.pop(), held.pop(), held.bytes), (Some((2, 7)), Some((2, 8)), 500));
        held.clear();
        assert_eq!((held.pop(), held.bytes), (None, 0));
    }
}
