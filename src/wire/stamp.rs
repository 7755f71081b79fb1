//! The last interceptor before the wire: numbers, send times and mids on the way out; clocks, reports and round-trip
//! time on the way in.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::interceptor::{Attribute, Interceptor, Packet, StreamInfo, TaggedPacket, convert_twcc};
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::marshal::MarshalSize;

use crate::rtp::congestion::Arrival;

use super::shared::{Departure, MAX_SSRCS, Report, SenderClock, WireHandle, bounded_insert};
use super::{ABS_SEND_TIME_URI, MID_URI, RID_URI, TRANSPORT_CC_URI, queues};

/// Stamps remembered per stream, for repeats: as many as the responder keeps packets.
const HISTORY: usize = 1024;
/// A host that wants less than this of a layer wants nothing.
const LEAST_WISH_BPS: f32 = 1_000.0;
/// Own sender reports remembered, for the round-trip time.
const SENT_REPORTS: usize = 64;

/// What [`Stamp`] writes, where it is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StampConfig {
    /// Transport-wide sequence numbers, on repeats too.
    pub transport_cc: bool,
    /// Absolute send time.
    pub abs_send_time: bool,
}

impl Default for StampConfig {
    fn default() -> Self {
        Self { transport_cc: true, abs_send_time: true }
    }
}

/// Extension ids of one outgoing stream.
#[derive(Debug, Clone, Copy, Default)]
struct Ids {
    transport_cc: Option<u8>,
    abs_send_time: Option<u8>,
    mid: Option<u8>,
    rid: Option<u8>,
}

/// What was written into a packet.
#[derive(Debug, Clone, Default)]
struct Written {
    sequence: u16,
    transport_cc: Option<u16>,
    extensions: Vec<(u8, Bytes)>,
}

/// Writes and reads what belongs to the wire.
pub struct Stamp {
    config: StampConfig,
    handle: WireHandle,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
    ids: HashMap<u32, Ids>,
    history: HashMap<u32, VecDeque<Written>>,
    next_number: u16,
    /// Origin of the absolute send time: receivers use differences only.
    origin: Option<Instant>,
    /// Middle 32 bits of the NTP time of our reports, and when they left.
    sent_reports: VecDeque<(u32, Instant)>,
    turns: Turns,
}

/// The reference time of feedback counts 64 ms in 24 bits and begins anew every twelve days.
#[derive(Debug, Default)]
struct Turns {
    last: u32,
    turns: u32,
}

impl Turns {
    const TICKS: u32 = 1 << 24;

    /// What is to be added to the times of a message with this reference time.
    fn of(&mut self, reference: u32) -> Duration {
        // A little back is a message that was overtaken; far back is a new turn.
        if reference < self.last && self.last - reference > Self::TICKS / 2 {
            self.turns = self.turns.saturating_add(1);
        }
        self.last = reference;
        Duration::from_millis(64) * self.turns.saturating_mul(Self::TICKS)
    }
}

impl Stamp {
    /// Shares what it learns through `handle`.
    pub fn new(config: StampConfig, handle: WireHandle) -> Self {
        Self {
            config,
            handle,
            read: VecDeque::new(),
            write: VecDeque::new(),
            ids: HashMap::new(),
            history: HashMap::new(),
            next_number: 0,
            origin: None,
            sent_reports: VecDeque::new(),
            turns: Turns::default(),
        }
    }

    fn depart(&mut self, packet: &mut rtc::rtp::Packet, retransmission: bool, now: Instant) {
        let ssrc = packet.header.ssrc;
        let sequence = packet.header.sequence_number;
        // A repeat with its own SSRC and number (RTX) is a new packet. One that reuses number and SSRC has to be the
        // same byte for byte: with AES-GCM both are encrypted under one nonce, and a difference gives the key away.
        let before = retransmission
            .then(|| self.history.get(&ssrc)?.iter().rev().find(|written| written.sequence == sequence).cloned())
            .flatten();
        let written = before.unwrap_or_else(|| {
            let written = self.stamp(ssrc, sequence, now);
            if self.history.len() < MAX_SSRCS || self.history.contains_key(&ssrc) {
                let history = self.history.entry(ssrc).or_default();
                if history.len() >= HISTORY {
                    history.pop_front();
                }
                history.push_back(written.clone());
            }
            written
        });
        for (id, value) in &written.extensions {
            // Refused ids and sizes leave the packet as it was; media matters more than its stamps.
            if let Err(error) = packet.header.set_extension(*id, value.clone()) {
                tracing::debug!(%error, id, "header extension not written");
            }
        }
        self.handle.lock().note_departure(Departure {
            transport_cc: written.transport_cc,
            bytes: packet.marshal_size(),
            retransmission,
            at: now,
        });
    }

    fn stamp(&mut self, ssrc: u32, sequence: u16, now: Instant) -> Written {
        let mut written = Written { sequence, ..Written::default() };
        let Some(ids) = self.ids.get(&ssrc).copied() else {
            return written;
        };
        if let Some(id) = ids.transport_cc.filter(|_| self.config.transport_cc) {
            written.transport_cc = Some(self.next_number);
            written.extensions.push((id, Bytes::copy_from_slice(&self.next_number.to_be_bytes())));
            self.next_number = self.next_number.wrapping_add(1);
        }
        if let Some(id) = ids.abs_send_time.filter(|_| self.config.abs_send_time) {
            let elapsed = now.saturating_duration_since(*self.origin.get_or_insert(now));
            written.extensions.push((id, Bytes::copy_from_slice(&abs_send_time(elapsed))));
        }
        if ids.mid.is_some() || ids.rid.is_some() {
            let state = self.handle.lock();
            if !state.reports.contains_key(&ssrc) {
                for (id, names) in [(ids.mid, &state.mids), (ids.rid, &state.rids)] {
                    if let (Some(id), Some(name)) = (id, names.get(&ssrc)) {
                        written.extensions.push((id, Bytes::copy_from_slice(name.as_bytes())));
                    }
                }
            }
        }
        written
    }

    /// The stack's sender reports take the departure of a packet for the moment its timestamp names. Pictures leave later
    /// after their capture than sound does: lips would move behind the voice by the difference.
    fn name_capture_times(&self, compound: &mut [Box<dyn rtc::rtcp::Packet>], now: Instant) {
        let state = self.handle.lock();
        for packet in compound {
            let Some(report) = packet.as_any().downcast_ref::<SenderReport>() else { continue };
            if let Some(capture) = state.captures.get(&report.ssrc) {
                *packet = Box::new(SenderReport { rtp_time: capture.timestamp(now), ..report.clone() });
            }
        }
    }

    fn note_blocks(&self, blocks: &[ReceptionReport], now: Instant) {
        for block in blocks {
            let rtt = self
                .sent_reports
                .iter()
                .rev()
                .find(|(middle, _)| block.last_sender_report != 0 && *middle == block.last_sender_report)
                .map(|(_, left)| {
                    now.saturating_duration_since(*left)
                        .saturating_sub(Duration::from_secs_f64(f64::from(block.delay) / 65_536.0))
                });
            let mut state = self.handle.lock();
            if let Some(rtt) = rtt {
                state.note_rtt(rtt);
            }
            let report = Report {
                fraction_lost: f32::from(block.fraction_lost) / 256.0,
                packets_lost: signed_24(block.total_lost),
                jitter: block.jitter,
                rtt,
                at: now,
            };
            bounded_insert(&mut state.reports, block.ssrc, report);
        }
    }
}

/// The 24 bit extension value: seconds with 18 fractional bits, modulo 64 s.
fn abs_send_time(elapsed: Duration) -> [u8; 3] {
    let ticks = (elapsed.as_micros() << 18) / 1_000_000;
    let [.., high, middle, low] = ticks.to_be_bytes();
    [high, middle, low]
}

/// The cumulative loss is a 24 bit two's complement number (RFC 3550 §6.4.1).
fn signed_24(value: u32) -> i32 {
    // Shifted up and down again, so that the sign spreads.
    ((value << 8) as i32) >> 8
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Stamp {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(compound) = &message.message.packet {
            for packet in compound {
                let any = packet.as_any();
                if let Some(report) = any.downcast_ref::<SenderReport>() {
                    let clock = SenderClock { ntp: report.ntp_time, rtp: report.rtp_time, at: message.now };
                    bounded_insert(&mut self.handle.lock().clocks, report.ssrc, clock);
                    self.note_blocks(&report.reports, message.now);
                } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
                    self.note_blocks(&report.reports, message.now);
                } else if let Some(remb) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>()
                    && remb.bitrate.is_finite()
                    && remb.bitrate >= 0.0
                {
                    let mut state = self.handle.lock();
                    match remb.ssrcs.as_slice() {
                        [layer] if state.rids.contains_key(layer) => {
                            let wish = if remb.bitrate < LEAST_WISH_BPS { 0 } else { remb.bitrate as u64 };
                            bounded_insert(&mut state.wishes, *layer, wish);
                        }
                        _ => state.remb = Some((remb.bitrate as u64, message.now)),
                    }
                } else if let Some(feedback) = any.downcast_ref::<TransportLayerCc>() {
                    let turn = self.turns.of(feedback.reference_time);
                    let arrivals: Vec<Arrival> = convert_twcc(feedback)
                        .into_iter()
                        // The last chunk may name more than the message is about.
                        .take(usize::from(feedback.packet_status_count))
                        // One that arrived at an untold time says nothing.
                        .filter(|told| !told.arrived || told.arrival.is_some())
                        .map(|told| Arrival { number: told.sequence_number, at: told.arrival.map(|at| at + turn) })
                        .collect();
                    self.handle.lock().note_feedback(&arrivals, message.now);
                }
            }
        }
        self.read.push_back(message);
        Ok(())
    }

    fn handle_write(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        let now = message.now;
        let retransmission = message.message.has(&Attribute::Retransmission);
        match &mut message.message.packet {
            Packet::Rtp(packet) => self.depart(packet, retransmission, now),
            Packet::Rtcp(compound) => {
                self.name_capture_times(compound, now);
                for report in compound.iter().filter_map(|packet| packet.as_any().downcast_ref::<SenderReport>()) {
                    if self.sent_reports.len() >= SENT_REPORTS {
                        self.sent_reports.pop_front();
                    }
                    // The middle 32 bits, as a receiver repeats them.
                    self.sent_reports.push_back(((report.ntp_time >> 16) as u32, now));
                }
            }
            _ => {}
        }
        self.write.push_back(message);
        Ok(())
    }

    queues!();
}

impl Interceptor for Stamp {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        let id = |uri: &str| {
            info.rtp_header_extensions
                .iter()
                .find(|extension| extension.uri == uri)
                .and_then(|extension| u8::try_from(extension.id).ok())
        };
        let ids = Ids {
            transport_cc: id(TRANSPORT_CC_URI),
            abs_send_time: id(ABS_SEND_TIME_URI),
            mid: id(MID_URI),
            rid: id(RID_URI),
        };
        bounded_insert(&mut self.ids, info.ssrc, ids);
        if let Some(rtx) = info.ssrc_rtx {
            // A repaired rid would be another extension; FID lines say what repairs what.
            bounded_insert(&mut self.ids, rtx, Ids { rid: None, ..ids });
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        for ssrc in std::iter::once(info.ssrc).chain(info.ssrc_rtx) {
            self.ids.remove(&ssrc);
            self.history.remove(&ssrc);
        }
    }

    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
