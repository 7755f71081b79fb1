//! RTCP of a leg: reports, requests for packets and key frames, and what its receiver can take.

use super::super::demux::LegKey;
use super::super::outbound::TrackOut;
use super::super::publication::TrackKind;
use super::super::rtcp::{self, Item};
use super::{Leg, Worker};

/// Requested packets looked up per RTCP packet.
const NACKS_PER_PACKET: usize = 256;

impl Worker {
    /// Takes one compound.
    pub(super) fn control(&mut self, key: LegKey, plain: &[u8], now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let Some(publication) = self.streams.get_mut(leg.stream).and_then(Option::as_mut) else {
            return;
        };
        let stats = &mut self.stats;
        let dirty = &mut self.dirty;
        let mut viewer = leg.viewing.receiver.and_then(|at| self.receivers.get_mut(at)?.as_mut());
        let arrivals = &mut self.arrivals;
        rtcp::parse(plain, |item| match item {
            Item::SenderReport { ssrc, ntp, rtp } if leg.publishes => {
                publication.sender_report(ssrc, ntp, rtp, now_us);
            }
            Item::Report(block) => {
                let track =
                    [&mut leg.audio, &mut leg.video].into_iter().flatten().find(|track| track.plan.ssrc == block.ssrc);
                if let Some(track) = track {
                    report(track, &block, now_us);
                }
            }
            Item::Nack { media_ssrc, pairs } => {
                for (kind, track) in [(TrackKind::Audio, &mut leg.audio), (TrackKind::Video, &mut leg.video)] {
                    let Some(track) = track.as_mut().filter(|track| track.plan.ssrc == media_ssrc) else {
                        continue;
                    };
                    let publication = &*publication;
                    let missed = track.missed;
                    for number in rtcp::nack_numbers(pairs, NACKS_PER_PACKET) {
                        let Some(mut exit) = leg.transport.exit() else {
                            break;
                        };
                        let caches = |layer| publication.track(kind, layer).map(|source| &source.cache);
                        if let Some(data) = track.repair(number, caches, &mut exit, now_us) {
                            let departed = track.departed.take();
                            if let Some(viewer) = viewer.as_mut() {
                                viewer.repeated(key, departed, now_us);
                            }
                            stats.nacks_answered += 1;
                            if leg.queue.is_empty() {
                                dirty.push(key);
                            }
                            leg.queue.push(data);
                        }
                    }
                    stats.nacks_missed += track.missed - missed;
                    self.next_us = self.next_us.min(track.next_copy_us().unwrap_or(u64::MAX));
                }
            }
            Item::KeyFrameRequest { media_ssrc }
                if leg.video.as_ref().is_some_and(|track| track.plan.ssrc == media_ssrc) =>
            {
                stats.plis_received += 1;
                // Of the layer that is to come, if another one is: the present one is about to end.
                if let Some(layer) = leg.video.as_ref().and_then(|track| track.switch.target()) {
                    publication.want_key_frame(layer);
                }
            }
            Item::TransportFeedback { body } if !leg.publishes => {
                if let Some(viewer) = &mut viewer {
                    viewer.fed_back(key, body, arrivals, now_us);
                }
            }
            Item::Remb { bitrate_bps } if leg.video.is_some() && !leg.publishes => {
                publication.estimate(key, bitrate_bps, now_us);
            }
            _ => {}
        });
        let next = publication.next_us();
        self.next_us = self.next_us.min(next);
    }

    /// Copies of answers that are due on a leg.
    pub(super) fn copy_answers(&mut self, key: LegKey, now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else { return };
        let Some(publication) = self.streams.get(leg.stream).and_then(Option::as_ref) else { return };
        let (Some(track), Some(mut exit)) = (leg.video.as_mut(), leg.transport.exit()) else { return };
        let caches = |layer| publication.track(TrackKind::Video, layer).map(|source| &source.cache);
        let mut viewer = leg.viewing.receiver.and_then(|at| self.receivers.get_mut(at)?.as_mut());
        while let Some(data) = track.copy_due(caches, &mut exit, now_us) {
            let departed = track.departed.take();
            if let Some(viewer) = viewer.as_mut() {
                viewer.repeated(key, departed, now_us);
            }
            self.stats.copies_sent += 1;
            if leg.queue.is_empty() {
                self.dirty.push(key);
            }
            leg.queue.push(data);
        }
    }
}

impl Leg {
    /// When the next copy of an answer is due.
    pub(super) fn next_copy_us(&self) -> Option<u64> {
        self.video.as_ref().filter(|_| self.transport.connected())?.next_copy_us()
    }
}

/// Takes a subscriber's reception report.
fn report(track: &mut TrackOut, block: &rtcp::ReportBlock, now_us: u64) {
    track.fraction_lost = block.fraction_lost;
    let Some((middle, sent_us)) = track.sr_sent else {
        return;
    };
    if block.last_sr != middle {
        return;
    }
    let held = u64::from(block.delay_since_last_sr) * 1_000_000 / 65_536;
    let rtt = now_us.saturating_sub(sent_us).saturating_sub(held) as f64;
    track.note_rtt(rtt);
}
