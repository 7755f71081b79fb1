//! What happens by the clock: transports' timeouts, sender reports, what publications ask of their publishers.

use std::time::Instant;

use super::super::demux::LegKey;
use super::super::publication::TrackKind;
use super::{Leg, Worker};

/// Timers are not looked at more often than this.
const TICK_US: u64 = 5_000;
/// Pause between sender reports of a leg.
const SENDER_REPORT_US: u64 = 1_000_000;

impl Worker {
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let now_us = now.saturating_duration_since(self.origin).as_micros() as u64;
        if now_us < self.next_us {
            self.flush();
            return;
        }
        let mut next = now_us + 1_000_000;
        for key in 0..self.legs.len() {
            let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            if leg.next_us <= now_us {
                leg.transport.timeout(now);
                self.noisy.push(key);
            }
            if leg.sends() && leg.transport.connected() && leg.report_us <= now_us {
                leg.report_us = now_us + SENDER_REPORT_US;
                self.sender_reports(key, now_us);
                self.noisy.push(key);
            }
            if self.legs.get(key).and_then(Option::as_ref).and_then(Leg::next_copy_us).is_some_and(|at| at <= now_us) {
                self.copy_answers(key, now_us);
            }
        }
        for stream in 0..self.streams.len() {
            let Some(publication) = self.streams.get_mut(stream).and_then(Option::as_mut) else {
                continue;
            };
            if publication.next_us() <= now_us {
                self.writer.clear();
                let (asked, requests) = publication.tick(now_us, &mut self.writer);
                self.stats.nacks_sent += asked;
                self.stats.plis_sent += requests;
                if let Some(key) = publication.publisher
                    && let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut)
                    && !self.writer.bytes().is_empty()
                {
                    leg.transport.send_rtcp(self.writer.bytes());
                    self.noisy.push(key);
                }
            }
            next = next.min(publication.next_us());
        }
        next = next.min(self.tick_receivers(now_us));
        self.let_out(now_us);
        if !self.holding.is_empty() {
            next = now_us + TICK_US;
        }
        // `flush` lowers it again for every leg it pumps.
        self.next_us = u64::MAX;
        self.flush();
        for leg in self.legs.iter().flatten() {
            next = next.min(leg.next_us);
            if leg.sends() && leg.transport.connected() {
                next = next.min(leg.report_us).min(leg.next_copy_us().unwrap_or(u64::MAX));
            }
        }
        self.next_us = self.next_us.min(next).max(now_us + TICK_US);
    }

    /// Sender reports: the publisher's clock, carried on to now, in this leg's timestamps.
    fn sender_reports(&mut self, key: LegKey, now_us: u64) {
        let Some(leg) = self.legs.get_mut(key).and_then(Option::as_mut) else {
            return;
        };
        let Some(publication) = self.streams.get(leg.stream).and_then(Option::as_ref) else {
            return;
        };
        let cname = &publication.stream_id;
        for (kind, track) in [(TrackKind::Audio, &mut leg.audio), (TrackKind::Video, &mut leg.video)] {
            let Some(track) = track.as_mut().filter(|track| track.started()) else {
                continue;
            };
            let Some(clock) = track
                .switch
                .current()
                .and_then(|layer| publication.track(kind, layer))
                .and_then(|source| source.last_sr)
            else {
                continue;
            };
            let elapsed = now_us.saturating_sub(clock.at_us);
            let fraction = (u128::from(elapsed) << 32) / 1_000_000;
            let ntp = clock.ntp.wrapping_add(fraction as u64);
            let ticks = elapsed * u64::from(track.plan.codec.clock_hz()) / 1_000_000;
            let rtp = track.timestamp(clock.rtp.wrapping_add(ticks as u32));
            track.sr_sent = Some(((ntp >> 16) as u32, now_us));
            self.writer.clear();
            self.writer.sender_report(track.plan.ssrc, ntp, rtp, track.packets as u32, track.octets as u32);
            self.writer.canonical_name(track.plan.ssrc, cname);
            leg.transport.send_rtcp(self.writer.bytes());
        }
    }
}
