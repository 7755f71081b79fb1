//! One track towards a subscriber: its own numbers, payload type and extensions, and its repairs.

use bytes::{Bytes, BytesMut};
use rtc::rtp::header::{EXTENSION_PROFILE_ONE_BYTE, Extension, Header};
use rtc::srtp::context::Context;

use crate::rtp::redundancy::{COPY_AGE, COPY_BEHIND, Redundancy};

use super::answer::TrackPlan;
use super::cache::{Cache, Stored};

/// Retransmissions one leg may be sent in a second, more are not answered.
const REPAIRS_PER_SECOND: f64 = 600.0;
/// A round-trip time that is longer than the shortest one by this, in µs, is a queue that grows.
const QUEUE_US: f64 = 100_000.0;
/// A leg that saw no key frame for this long gets whatever there is.
const KEY_FRAME_PATIENCE_US: u64 = 3_000_000;

static ZEROS: [u8; 64] = [0; 64];

/// The subscriber's side of one track.
#[derive(Debug)]
pub(super) struct TrackOut {
    pub(super) plan: TrackPlan,
    sequence_shift: u16,
    timestamp_shift: u32,
    rtx_sequence: u16,
    /// Lengths for the cipher; the bytes come from `scratch`.
    header: Header,
    scratch: Vec<u8>,
    started: bool,
    waiting_since_us: Option<u64>,
    /// First number forwarded: what lies before was never sent.
    first: u64,
    repair_budget: f64,
    repair_at_us: u64,
    /// Sound only: whether it goes out twice.
    redundancy: Redundancy,
    /// Newest number that was followed by a copy, and newest that was asked for.
    copied: u64,
    asked: u64,
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
    pub(super) fn new(plan: TrackPlan, sequence_shift: u16, timestamp_shift: u32) -> Self {
        Self {
            plan,
            sequence_shift,
            timestamp_shift,
            rtx_sequence: sequence_shift >> 2,
            header: Header { version: 2, extension_profile: EXTENSION_PROFILE_ONE_BYTE, ..Header::default() },
            scratch: Vec::with_capacity(1_500),
            started: false,
            waiting_since_us: None,
            first: 0,
            repair_budget: REPAIRS_PER_SECOND / 2.0,
            repair_at_us: 0,
            redundancy: Redundancy::default(),
            copied: 0,
            asked: 0,
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

    /// Timestamp of this leg for one of the publication.
    pub(super) fn timestamp(&self, publication: u32) -> u32 {
        publication.wrapping_add(self.timestamp_shift)
    }

    /// Something was forwarded on this track.
    pub(super) fn started(&self) -> bool {
        self.started
    }

    /// Forwards a packet; `None` if it is not for this leg (yet) or cannot be encrypted.
    pub(super) fn forward(&mut self, stored: &Stored, context: &mut Context, now_us: u64) -> Option<BytesMut> {
        if !self.started {
            let since = *self.waiting_since_us.get_or_insert(now_us);
            let patient = now_us.saturating_sub(since) < KEY_FRAME_PATIENCE_US;
            if !self.plan.codec.is_audio() && !stored.starts_key_frame && patient {
                return None;
            }
            self.started = true;
            self.first = stored.sequence;
        }
        if stored.sequence < self.first {
            return None;
        }
        let data = self.encrypt(stored, context, None)?;
        self.packets += 1;
        self.octets += stored.payload.len() as u64;
        Some(data)
    }

    /// The copy of an earlier packet of sound that is to follow `stored`, where the leg loses so much that asking alone does
    /// not repair it in time.
    pub(super) fn copy(&mut self, stored: &Stored, cache: &Cache, context: &mut Context) -> Option<BytesMut> {
        if !self.plan.codec.is_audio() || !self.started || stored.sequence <= self.copied {
            return None;
        }
        self.copied = stored.sequence;
        self.redundancy.sent();
        let rtt = self.rtt_us.map(|us| std::time::Duration::from_micros(us as u64));
        let congested = self.rtt_us.is_some_and(|us| us > self.least_rtt_us + QUEUE_US);
        if !self.redundancy.wants_copies(rtt, congested) {
            return None;
        }
        let earlier = stored.sequence.checked_sub(COPY_BEHIND).filter(|number| *number >= self.first)?;
        let earlier = cache.get(earlier).filter(|e| stored.timestamp.wrapping_sub(e.timestamp) <= COPY_AGE)?;
        let data = self.encrypt(earlier, context, None)?;
        self.copies += 1;
        Some(data)
    }

    /// Notes a measured round-trip time.
    pub(super) fn note_rtt(&mut self, rtt_us: f64) {
        self.least_rtt_us = self.least_rtt_us.min(rtt_us);
        self.rtt_us = Some(self.rtt_us.map_or(rtt_us, |old| old + (rtt_us - old) / 8.0));
    }

    /// Answers a request for `number` from the cache.
    pub(super) fn repair(
        &mut self,
        number: u16,
        highest: u64,
        cache: &Cache,
        context: &mut Context,
        now_us: u64,
    ) -> Option<BytesMut> {
        let elapsed = now_us.saturating_sub(self.repair_at_us) as f64 / 1_000_000.0;
        self.repair_at_us = now_us;
        self.repair_budget = (self.repair_budget + elapsed * REPAIRS_PER_SECOND).min(REPAIRS_PER_SECOND / 2.0);
        if self.repair_budget < 1.0 {
            return None;
        }
        let wanted = number.wrapping_sub(self.sequence_shift);
        // The nearest publication number at or below the highest one.
        let back = (highest as u16).wrapping_sub(wanted);
        let stored = highest
            .checked_sub(u64::from(back))
            .filter(|sequence| *sequence >= self.first && self.started)
            .and_then(|sequence| cache.get(sequence));
        let Some(stored) = stored else {
            self.missed += 1;
            return None;
        };
        // Numbers are asked for in rising order, again and again: each counts once as lost.
        if stored.sequence > self.asked {
            self.asked = stored.sequence;
            self.redundancy.asked();
        }
        let rtx = self.plan.rtx.map(|payload_type| {
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            (payload_type, self.rtx_sequence)
        });
        let data = self.encrypt(stored, context, rtx)?;
        self.repair_budget -= 1.0;
        self.repaired += 1;
        Some(data)
    }

    fn encrypt(&mut self, stored: &Stored, context: &mut Context, rtx: Option<(u8, u16)>) -> Option<BytesMut> {
        let number = (stored.sequence as u16).wrapping_add(self.sequence_shift);
        let (payload_type, sequence, ssrc) = match rtx {
            Some((payload_type, sequence)) => (payload_type, sequence, self.plan.rtx_ssrc),
            None => (self.plan.payload_type, number, self.plan.ssrc),
        };
        let timestamp = self.timestamp(stored.timestamp);
        let ids = self.plan.extensions;
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
        if rtx.is_some() {
            out.extend(number.to_be_bytes());
        }
        out.extend_from_slice(&stored.payload);
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
        context.encrypt_rtp_with_header(out, header).ok()
    }
}
