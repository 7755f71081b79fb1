//! Answers NACKs (RFC 4585 §6.2.1) by repeats, as RTX (RFC 4588) where that is negotiated; and sends repeats that nobody
//! asked for as padding of a probe ([`crate::rtp::congestion::Probe`]).

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use rtc::interceptor::{Attribute, AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;

use crate::rtp::answers::{Answers, Copies, LONG_QUEUE};
use crate::rtp::redundancy::{COPY_AGE, COPY_BEHIND, Redundancy};

use super::shared::MAX_SSRCS;
use super::{WireHandle, queues};

/// Packets kept per stream: four seconds of 2.5 Mbit/s.
const KEPT: usize = 1_024;
/// Packets that one NACK may ask for.
const PER_NACK: usize = 256;
/// Repeats may take this share of what the path takes, and this much in bit/s where that is unknown.
const SHARE: f64 = 0.8;
/// Behind a queue of this length the share is this one: repeats of what a full queue has dropped would fill it again.
const FULL_QUEUE: Duration = Duration::from_millis(100);
const QUEUED_SHARE: f64 = 0.1;
const UNKNOWN_BPS: f64 = 1_500_000.0;
/// What was not used is kept for this long, in seconds.
const KEPT_S: f64 = 0.5;
const QUEUED_KEPT_S: f64 = 0.1;
/// A layer is given up when so many pictures of the others have left after its last one: nobody waits for it any more.
const GIVEN_UP: u32 = 6;

/// Below this rate of the path, in bit/s, sound is sent once.
const COPIES_FROM_BPS: f64 = 300_000.0;

/// Header and extensions of a packet, about, and what is below it.
const HEADERS: usize = 60;

#[derive(Debug, Default)]
struct Stream {
    kept: VecDeque<rtc::rtp::Packet>,
    /// SSRC and payload type of repeats.
    rtx: Option<(u32, u8)>,
    rtx_sequence: u16,
    /// What is lost, and whether sound goes out twice for it.
    redundancy: Redundancy,
    sound: bool,
    /// Pictures of other streams since the last packet of this one.
    behind: u32,
    answers: Answers<u16, Instant>,
}

impl Stream {
    fn keep(&mut self, packet: rtc::rtp::Packet) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(packet);
    }

    /// Packets are kept in the order of their numbers, mostly without a gap.
    fn find(&self, sequence: u16) -> Option<&rtc::rtp::Packet> {
        let newest = self.kept.back()?.header.sequence_number;
        let back = usize::from(newest.wrapping_sub(sequence));
        let guess = self.kept.len().checked_sub(back + 1).and_then(|at| self.kept.get(at));
        let exact = guess.filter(|packet| packet.header.sequence_number == sequence);
        exact.or_else(|| self.kept.iter().find(|packet| packet.header.sequence_number == sequence))
    }

    fn repeat(&mut self, original: &rtc::rtp::Packet, now: Instant) -> TaggedPacket {
        let packet = match self.rtx {
            Some((ssrc, payload_type)) => {
                let mut payload = BytesMut::with_capacity(original.payload.len() + 2);
                payload.put_u16(original.header.sequence_number);
                payload.extend_from_slice(&original.payload);
                let sequence_number = self.rtx_sequence;
                self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
                let header = rtc::rtp::Header {
                    version: 2,
                    ssrc,
                    payload_type,
                    sequence_number,
                    timestamp: original.header.timestamp,
                    marker: original.header.marker,
                    ..rtc::rtp::Header::default()
                };
                rtc::rtp::Packet { header, payload: payload.freeze() }
            }
            None => original.clone(),
        };
        TaggedPacket {
            now,
            transport: TransportContext::default(),
            message: AttributedPacket::new(Packet::Rtp(packet)).with(Attribute::Retransmission),
        }
    }
}

/// Keeps what was sent and repeats it.
pub struct Responder {
    handle: WireHandle,
    streams: HashMap<u32, Stream>,
    /// Bytes that may be repeated now, and since when.
    budget: f64,
    budget_at: Option<Instant>,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Responder {
    /// Learns the round-trip time and what padding is wanted through `handle`.
    pub fn new(handle: WireHandle) -> Self {
        Self {
            handle,
            streams: HashMap::new(),
            budget: 0.0,
            budget_at: None,
            read: VecDeque::new(),
            write: VecDeque::new(),
        }
    }

    fn answer(&mut self, nack: &TransportLayerNack, now: Instant) {
        let path = self.handle.allowance();
        let queue = path.map_or(Duration::ZERO, |path| path.queue);
        // The queue may have grown since the round trip was measured, and the repeat stands in it.
        let round_trip = self.handle.rtt().unwrap_or_default() + queue;
        let (share, kept_s) = if queue < FULL_QUEUE { (SHARE, KEPT_S) } else { (QUEUED_SHARE, QUEUED_KEPT_S) };
        let bytes_per_s = path.map_or(UNKNOWN_BPS, |path| path.target_bps * share) / 8.0;
        let passed = self.budget_at.map_or(kept_s, |at| now.saturating_duration_since(at).as_secs_f64());
        self.budget = (self.budget + passed * bytes_per_s).min(kept_s * bytes_per_s);
        self.budget_at = Some(now);
        let Some(stream) = self.streams.get_mut(&nack.media_ssrc).filter(|stream| stream.behind < GIVEN_UP) else {
            return;
        };
        for sequence in nack.nacks.iter().flat_map(|pair| pair.packet_list()).take(PER_NACK) {
            let Some(original) = stream.find(sequence).cloned() else { continue };
            if self.budget <= 0.0 {
                // Whoever asks for everything again gets what the path can take beside the picture.
                break;
            }
            // Not into a queue, where copies would be what the next ones are lost by, nor instead of other answers.
            let spare = queue < LONG_QUEUE && self.budget > kept_s * bytes_per_s / 2.0;
            let copies = match path {
                _ if stream.rtx.is_none() || !spare => Copies::Never,
                // It might be full.
                None => Copies::Again,
                Some(_) => Copies::Losses,
            };
            let times = stream.answers.asked(sequence, now, round_trip, &mut stream.redundancy, copies);
            if times == 0 {
                continue;
            }
            let bytes = (original.payload.len() + HEADERS) * times as usize;
            self.budget -= bytes as f64;
            self.handle.note_repeat(bytes);
            let repeat = stream.repeat(&original, now);
            self.write.push_back(repeat);
        }
    }

    /// A copy of an earlier packet of sound, where the way loses so much that requests alone do not repair it in time.
    fn copy(&mut self, ssrc: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(&ssrc) else { return };
        stream.redundancy.sent();
        if !stream.sound || stream.rtx.is_some() {
            return;
        }
        let congested =
            self.handle.allowance().is_some_and(|path| path.queue > LONG_QUEUE || path.target_bps < COPIES_FROM_BPS);
        if !stream.redundancy.wants_copies(self.handle.rtt(), congested) {
            return;
        }
        let behind = COPY_BEHIND as usize;
        let (Some(newest), Some(earlier)) =
            (stream.kept.back(), stream.kept.len().checked_sub(behind + 1).and_then(|at| stream.kept.get(at)))
        else {
            return;
        };
        if newest.header.timestamp.wrapping_sub(earlier.header.timestamp) > COPY_AGE {
            return;
        }
        let original = earlier.clone();
        self.handle.note_repeat(original.payload.len() + HEADERS);
        let copy = stream.repeat(&original, now);
        self.write.push_back(copy);
    }

    /// Repeats of the newest packets of `ssrc`, as many as are wanted to fill a probe.
    fn pad(&mut self, ssrc: u32, now: Instant) {
        let Some(stream) = self.streams.get_mut(&ssrc).filter(|stream| stream.rtx.is_some()) else { return };
        let mut wanted = self.handle.take_padding();
        let mut back = 0;
        while wanted > 0 {
            let newest = stream.kept.len();
            let Some(original) =
                newest.checked_sub(1 + back % newest.max(1)).and_then(|at| stream.kept.get(at)).cloned()
            else {
                return;
            };
            back += 1;
            let repeat = stream.repeat(&original, now);
            wanted = wanted.saturating_sub(original.payload.len() + HEADERS);
            self.write.push_back(repeat);
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Responder {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(compound) = &message.message.packet {
            for nack in compound.iter().filter_map(|packet| packet.as_any().downcast_ref::<TransportLayerNack>()) {
                self.answer(nack, message.now);
            }
        }
        self.read.push_back(message);
        Ok(())
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        let mut of = None;
        if let Packet::Rtp(packet) = &message.message.packet
            && let Some(stream) = self.streams.get_mut(&packet.header.ssrc)
        {
            stream.keep(packet.clone());
            stream.behind = 0;
            of = Some((packet.header.ssrc, message.now));
            if packet.header.marker && !stream.sound {
                let pictures = self.streams.iter_mut().filter(|(_, other)| !other.sound);
                let others = pictures.filter(|(ssrc, _)| **ssrc != packet.header.ssrc);
                others.for_each(|(_, other)| other.behind += 1);
            }
        }
        self.write.push_back(message);
        if let Some((ssrc, now)) = of {
            self.pad(ssrc, now);
            self.copy(ssrc, now);
        }
        Ok(())
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        for stream in self.streams.values_mut() {
            while let Some(sequence) = stream.answers.due(now) {
                let Some(original) = stream.find(sequence).cloned() else { continue };
                let copy = stream.repeat(&original, now);
                self.write.push_back(copy);
            }
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.answers.next()).min()
    }

    queues!();
}

impl Interceptor for Responder {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        let nack = info.rtcp_feedback.iter().any(|feedback| feedback.typ == "nack" && feedback.parameter.is_empty());
        if nack && (self.streams.len() < MAX_SSRCS || self.streams.contains_key(&info.ssrc)) {
            let rtx = info.ssrc_rtx.zip(info.payload_type_rtx);
            let sound = info.mime_type.get(..6).is_some_and(|kind| kind.eq_ignore_ascii_case("audio/"));
            self.streams.insert(info.ssrc, Stream { rtx, sound, ..Stream::default() });
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.streams.remove(&info.ssrc);
    }

    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
