//! One track towards a subscriber: its own numbers, payload type and extensions, and its repairs.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rtc::rtp::header::{EXTENSION_PROFILE_ONE_BYTE, Extension, Header};

use crate::rtp::answers::{Answers, Copies};
use crate::rtp::redundancy::{COPY_AGE, COPY_BEHIND, Redundancy};

use super::answer::{TrackPlan, numbered};
use super::cache::{AUDIO_PACKETS, Cache, Stored};
use super::switch::{Place, Placed, Switcher};
use super::transport::Exit;

/// Retransmissions one leg may be sent in a second, more are not answered; and the least where the path takes little.
pub(super) const REPAIRS_PER_SECOND: f64 = 600.0;
pub(super) const LEAST_REPAIRS_PER_SECOND: f64 = 40.0;
/// A round-trip time that is longer than the shortest one by this, in µs, is a queue that grows.
const QUEUE_US: f64 = 100_000.0;
/// A leg that saw no key frame for this long gets whatever there is.
const KEY_FRAME_PATIENCE_US: u64 = 3_000_000;

/// Packets of which padding is made, and how many of them at most.
const PADDING_CHOICE: u64 = 16;
const PADDING_PACKETS: u64 = 512;

static ZEROS: [u8; 64] = [0; 64];

/// A packet with a transport-wide number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    pub(super) number: u16,
    pub(super) bytes: usize,
    /// It left before under this number.
    pub(super) again: bool,
}

/// How a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    First,
    /// On its own source, byte for byte as before: two messages must not share one SRTP nonce.
    Again,
    /// As a packet of the source for repairs, of this payload type and number.
    Repair(u8, u16),
}

/// The subscriber's side of one track.
#[derive(Debug)]
pub(super) struct TrackOut {
    pub(super) plan: TrackPlan,
    pub(super) switch: Switcher,
    timestamp_shift: u32,
    rtx_sequence: u16,
    /// Transport-wide numbers of the newest packets, where a repeat has to bear the same one: number here, and there.
    numbered: VecDeque<(u64, u16)>,
    /// What has been written with a transport-wide number, until the worker takes it.
    pub(super) departed: Option<Departure>,
    /// Lengths for the cipher; the bytes come from `scratch`.
    header: Header,
    scratch: Vec<u8>,
    waiting_since_us: Option<u64>,
    /// Retransmissions in a second: what the path takes of them.
    pub(super) repairs_per_s: f64,
    repair_budget: f64,
    repair_at_us: u64,
    /// What is lost, and whether sound goes out twice for it.
    redundancy: Redundancy,
    /// Newest number that was followed by a copy.
    copied: u64,
    answers: Answers<u64, Duration>,
    /// The receiver's feedback says that its path has no queue: answers may be sent several times.
    pub(super) roomy: bool,
    least_rtt_us: f64,
    pub(super) copies: u64,
    pub(super) packets: u64,
    pub(super) octets: u64,
    pub(super) repaired: u64,
    pub(super) missed: u64,
    pub(super) fraction_lost: u8,
    pub(super) sr_sent: Option<(u32, u64)>,
    pub(super) rtt_us: Option<f64>,
}

impl TrackOut {
    pub(super) fn new(plan: TrackPlan, timestamp_shift: u32) -> Self {
        Self {
            plan,
            switch: Switcher::new(),
            timestamp_shift,
            rtx_sequence: timestamp_shift as u16 >> 2,
            numbered: VecDeque::new(),
            departed: None,
            header: Header { version: 2, extension_profile: EXTENSION_PROFILE_ONE_BYTE, ..Header::default() },
            scratch: Vec::with_capacity(1_500),
            waiting_since_us: None,
            repairs_per_s: REPAIRS_PER_SECOND,
            repair_budget: REPAIRS_PER_SECOND / 2.0,
            repair_at_us: 0,
            redundancy: Redundancy::default(),
            copied: 0,
            answers: Answers::default(),
            roomy: false,
            least_rtt_us: f64::INFINITY,
            copies: 0,
            packets: 0,
            octets: 0,
            repaired: 0,
            missed: 0,
            fraction_lost: 0,
            sr_sent: None,
            rtt_us: None,
        }
    }

    /// Timestamp of this leg for one of the layer that is passed on.
    pub(super) fn timestamp(&self, publication: u32) -> u32 {
        self.switch.timestamp(publication).wrapping_add(self.timestamp_shift)
    }

    /// Something was forwarded on this track.
    pub(super) fn started(&self) -> bool {
        self.switch.begun()
    }

    /// Forwards a packet of a layer; `None` if it is not for this leg (yet) or cannot be encrypted.
    pub(super) fn forward(
        &mut self,
        layer: usize,
        stored: &Stored,
        exit: &mut Exit<'_>,
        now_us: u64,
    ) -> Option<BytesMut> {
        let audio = self.plan.codec.is_audio();
        let mut forced = audio;
        if !audio && !self.started() && self.switch.target() == Some(layer) {
            let since = *self.waiting_since_us.get_or_insert(now_us);
            forced = now_us.saturating_sub(since) >= KEY_FRAME_PATIENCE_US;
        }
        let place = Place {
            layer,
            number: stored.sequence,
            timestamp: stored.timestamp,
            key: stored.starts_key_frame,
            picture: stored.vp8.and_then(|vp8| Some(vp8.picture_id?.2)),
            tl0: stored.vp8.and_then(|vp8| Some(vp8.tl0?.1)),
        };
        let placed = self.switch.take(&place, forced, now_us)?;
        let data = self.encrypt(stored, placed, exit, Sent::First)?;
        self.packets += 1;
        self.octets += stored.payload.len() as u64;
        if !audio {
            self.redundancy.sent();
        }
        Some(data)
    }

    /// The copy of an earlier packet of sound that is to follow `stored`, where the leg loses so much that asking alone does
    /// not repair it in time.
    pub(super) fn copy(&mut self, stored: &Stored, cache: &Cache, exit: &mut Exit<'_>) -> Option<BytesMut> {
        if !self.plan.codec.is_audio() || !self.started() || stored.sequence <= self.copied {
            return None;
        }
        self.copied = stored.sequence;
        self.redundancy.sent();
        let rtt = self.rtt_us.map(|us| Duration::from_micros(us as u64));
        let congested = self.rtt_us.is_some_and(|us| us > self.least_rtt_us + QUEUE_US);
        if !self.redundancy.wants_copies(rtt, congested) {
            return None;
        }
        let (_, earlier) = self.switch.origin(stored.sequence.checked_sub(COPY_BEHIND)?)?;
        let earlier = cache.get(earlier).filter(|e| stored.timestamp.wrapping_sub(e.timestamp) <= COPY_AGE)?;
        let placed = self.switch.again(earlier.sequence, earlier.timestamp)?;
        let data = self.encrypt(earlier, placed, exit, Sent::Again)?;
        self.copies += 1;
        Some(data)
    }

    /// Notes a measured round-trip time.
    pub(super) fn note_rtt(&mut self, rtt_us: f64) {
        self.least_rtt_us = self.least_rtt_us.min(rtt_us);
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |old| old + (rtt_us - old) / 8.0));
    }

    /// Answers a request for `number` from the caches of the layers. Where much is lost copies follow: [`Self::copy_due`].
    pub(super) fn repair<'a>(
        &mut self,
        number: u16,
        caches: impl Fn(usize) -> Option<&'a Cache>,
        exit: &mut Exit<'_>,
        now_us: u64,
    ) -> Option<BytesMut> {
        let elapsed = now_us.saturating_sub(self.repair_at_us) as f64 / 1_000_000.0;
        self.repair_at_us = now_us;
        self.repair_budget = (self.repair_budget + elapsed * self.repairs_per_s).min(self.repairs_per_s / 2.0);
        if self.repair_budget < 1.0 {
            return None;
        }
        let highest = self.switch.highest()?;
        // The nearest number at or below the highest one.
        let number = highest.checked_sub(u64::from((highest as u16).wrapping_sub(number)))?;
        let Some((stored, placed)) = self.find(number, caches) else {
            self.missed += 1;
            return None;
        };
        let spare = self.roomy && self.plan.rtx.is_some() && self.repair_budget > self.repairs_per_s / 4.0;
        let copies = if spare { Copies::Losses } else { Copies::Never };
        // The shortest one so far: an answer that is late does no harm, a request that is taken for an echo does.
        let round_trip_us = if self.least_rtt_us.is_finite() { self.least_rtt_us as u64 } else { 0 };
        let (now, round_trip) = (Duration::from_micros(now_us), Duration::from_micros(round_trip_us));
        let times = self.answers.asked(number, now, round_trip, &mut self.redundancy, copies);
        if times == 0 {
            return None;
        }
        let data = self.again(stored, placed, exit)?;
        self.repair_budget -= f64::from(times);
        self.repaired += 1;
        Some(data)
    }

    /// Copies of answers that are due, one at a time.
    pub(super) fn copy_due<'a>(
        &mut self,
        caches: impl Fn(usize) -> Option<&'a Cache>,
        exit: &mut Exit<'_>,
        now_us: u64,
    ) -> Option<BytesMut> {
        while let Some(number) = self.answers.due(Duration::from_micros(now_us)) {
            let Some((stored, placed)) = self.find(number, &caches) else { continue };
            self.copies += 1;
            return self.again(stored, placed, exit);
        }
        None
    }

    /// When [`Self::copy_due`] has something next.
    pub(super) fn next_copy_us(&self) -> Option<u64> {
        self.answers.next().map(|at| at.as_micros() as u64)
    }

    /// A packet that was sent before, and its numbers.
    fn find<'a>(&self, number: u64, caches: impl Fn(usize) -> Option<&'a Cache>) -> Option<(&'a Stored, Placed)> {
        let (layer, origin) = self.switch.origin(number)?;
        let stored = caches(layer)?.get(origin)?;
        Some((stored, self.switch.again(number, stored.timestamp)?))
    }

    /// It once more.
    fn again(&mut self, stored: &Stored, placed: Placed, exit: &mut Exit<'_>) -> Option<BytesMut> {
        let sent = self.plan.rtx.map_or(Sent::Again, |payload_type| {
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            Sent::Repair(payload_type, self.rtx_sequence)
        });
        self.encrypt(stored, placed, exit, sent)
    }

    /// Whether [`Self::pad`] has something to send.
    pub(super) fn pads(&self) -> bool {
        self.switch.current().is_some() && self.plan.rtx.is_some() && self.plan.extensions.transport_cc.is_some()
    }

    /// Repeats of the newest packets, newest first, until `bytes` are full: they measure what the path takes. Only where
    /// repeats are packets of their own.
    pub(super) fn pad<'a>(
        &mut self,
        mut bytes: usize,
        caches: impl Fn(usize) -> Option<&'a Cache>,
        exit: &mut Exit<'_>,
        mut out: impl FnMut(BytesMut, Option<Departure>),
    ) {
        let Some(highest) = self.switch.highest().filter(|_| self.plan.rtx.is_some()) else { return };
        for step in 0..PADDING_PACKETS {
            if bytes == 0 {
                return;
            }
            // A handful of packets again and again: little is kept of a low layer.
            let number = highest.saturating_sub(step % PADDING_CHOICE);
            let found = self.find(number, &caches);
            let Some(data) = found.and_then(|(stored, placed)| self.again(stored, placed, exit)) else { continue };
            bytes = bytes.saturating_sub(data.len());
            out(data, self.departed.take());
        }
    }

    fn encrypt(&mut self, stored: &Stored, placed: Placed, exit: &mut Exit<'_>, sent: Sent) -> Option<BytesMut> {
        let number = placed.number as u16;
        let (payload_type, sequence, ssrc) = match sent {
            Sent::Repair(payload_type, sequence) => (payload_type, sequence, self.plan.rtx_ssrc),
            Sent::First | Sent::Again => (self.plan.payload_type, number, self.plan.ssrc),
        };
        let ids = self.plan.extensions;
        let transport = match ids.transport_cc.filter(|_| numbered(self.plan.codec, self.plan.rtx)) {
            Some(id) => Some((id, self.transport_number(placed.number, sent, exit.transport_number)?)),
            None => None,
        };
        let timestamp = placed.timestamp.wrapping_add(self.timestamp_shift);
        let out = &mut self.scratch;
        out.clear();
        let marker = u8::from(stored.marker) << 7;
        out.extend([0x80, marker | payload_type]);
        out.extend(sequence.to_be_bytes());
        out.extend(timestamp.to_be_bytes());
        out.extend(ssrc.to_be_bytes());
        let block = out.len();
        out.extend([0xbe, 0xde, 0, 0]);
        if let Some(id) = ids.abs_send_time {
            out.push(id << 4 | 2);
            out.extend(stored.abs_send_time.to_be_bytes().get(1..)?);
        }
        if let (Some(id), Some(level)) = (ids.audio_level, stored.audio_level) {
            out.extend([id << 4, level]);
        }
        if let (Some(id), Some(orientation)) = (ids.orientation, stored.orientation) {
            out.extend([id << 4, orientation]);
        }
        if let Some((id, number)) = transport {
            out.push(id << 4 | 1);
            out.extend(number.to_be_bytes());
        }
        let mid = self.plan.mid.as_bytes();
        if let (Some(id), 1..=16) = (ids.mid, mid.len()) {
            out.push(id << 4 | (mid.len() - 1) as u8);
            out.extend_from_slice(mid);
        }
        while !out.len().is_multiple_of(4) {
            out.push(0);
        }
        let extension_bytes = out.len() - block - 4;
        if extension_bytes == 0 {
            out.truncate(block);
        } else {
            *out.first_mut()? |= 0x10;
            let words = (extension_bytes / 4) as u16;
            out.get_mut(block + 2..block + 4)?.copy_from_slice(&words.to_be_bytes());
        }
        if matches!(sent, Sent::Repair(..)) {
            out.extend(number.to_be_bytes());
        }
        let payload = out.len();
        out.extend_from_slice(&stored.payload);
        if let Some(vp8) = &stored.vp8 {
            vp8.renumber(out.get_mut(payload..)?, placed.picture_shift, placed.tl0_shift);
        }
        // The cipher reads number, source and length of the header only.
        let header = &mut self.header;
        header.sequence_number = sequence;
        header.ssrc = ssrc;
        header.extension = extension_bytes > 0;
        let length = extension_bytes.saturating_sub(1);
        if header.extension && header.extensions.first().map(|e| e.payload.len()) != Some(length) {
            header.extensions.clear();
            header.extensions.push(Extension { id: 1, payload: Bytes::from_static(ZEROS.get(..length)?) });
        }
        let data = exit.context.encrypt_rtp_with_header(out, header).ok()?;
        self.departed =
            transport.map(|(_, number)| Departure { number, bytes: data.len(), again: sent == Sent::Again });
        Some(data)
    }

    /// The transport-wide number of a packet. One that is sent again on its source has to stay the same bytes, so it bears the
    /// number of the first time, and is not sent if that is forgotten.
    fn transport_number(&mut self, number: u64, sent: Sent, next: &mut u16) -> Option<u16> {
        if sent == Sent::Again {
            return self.numbered.iter().rev().find(|(other, _)| *other == number).map(|(_, first)| *first);
        }
        let fresh = *next;
        *next = next.wrapping_add(1);
        if self.plan.rtx.is_none() {
            if self.numbered.len() >= AUDIO_PACKETS {
                self.numbered.pop_front();
            }
            self.numbered.push_back((number, fresh));
        }
        Some(fresh)
    }
}
