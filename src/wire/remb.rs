//! Tells a sender without transport-wide feedback what the path takes (REMB, draft-alvestrand-rmcat-remb-03), where
//! [`WireHandle::tell_rate`] says that it listens: Kurento does. Estimated from the send times in the packets; without those
//! nothing is told.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rtc::interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;
use rtc::shared::marshal::MarshalSize;

use super::shared::{BELOW_RTP, MAX_SSRCS};
use super::{ABS_SEND_TIME_URI, TRANSPORT_CC_URI, WireHandle, queues};
use crate::rtp::congestion::RemoteEstimate;
use crate::rtp::seq::Unwrapper;

/// Less than this is never asked for.
const MIN_BPS: f64 = 200_000.0;
/// No limit: more than any sender of ours needs.
const MAX_BPS: f64 = 6_000_000.0;
/// Before anything is known.
const RTT: Duration = Duration::from_millis(100);
/// Who asks, in feedback of a side that sends nothing.
const SENDER_SSRC: u32 = 1;

/// A packet that is missing for this long at most, or for a round trip, is lost: what comes later was sent again.
const PATIENCE: Duration = Duration::from_millis(120);
/// Missing packets that are remembered, of each stream; more is another beginning of the stream.
const MISSING: u64 = 512;

/// One stream that comes in.
struct Stream {
    /// Id of the send time.
    time: u8,
    numbers: Unwrapper,
    /// Numbers that were passed over, and when.
    missing: VecDeque<(u64, Duration)>,
}

impl Stream {
    fn new(time: u8) -> Self {
        Self { time, numbers: Unwrapper::default(), missing: VecDeque::new() }
    }

    /// Takes a packet's number; how many others are lost for good by now.
    fn lost(&mut self, number: u16, patience: Duration, at: Duration) -> u32 {
        let before = self.numbers.highest();
        let number = self.numbers.unwrap(number);
        match before {
            Some(high) if number > high + MISSING => self.missing.clear(),
            Some(high) if number > high => self.missing.extend((high + 1..number).map(|missing| (missing, at))),
            _ => self.missing.retain(|(missing, _)| *missing != number),
        }
        let mut lost = 0;
        while self
            .missing
            .front()
            .is_some_and(|(_, since)| at.saturating_sub(*since) >= patience || self.missing.len() as u64 > MISSING)
        {
            self.missing.pop_front();
            lost += 1;
        }
        lost
    }
}

/// Watches what comes in and writes REMB.
pub struct Remb {
    handle: WireHandle,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
    /// By SSRC, the streams whose sender wants to be told.
    streams: BTreeMap<u32, Stream>,
    /// The streams that are named in messages: pictures.
    limited: Vec<u32>,
    estimate: RemoteEstimate,
    origin: Option<Instant>,
}

impl Remb {
    /// Learns the round-trip time through `handle`.
    pub fn new(handle: WireHandle) -> Self {
        Self {
            handle,
            read: VecDeque::new(),
            write: VecDeque::new(),
            streams: BTreeMap::new(),
            limited: Vec::new(),
            estimate: RemoteEstimate::new(MIN_BPS, MAX_BPS),
            origin: None,
        }
    }

    fn take(&mut self, packet: &rtc::rtp::Packet, now: Instant) {
        let Some(stream) = self.streams.get_mut(&packet.header.ssrc) else { return };
        let Some(time) = packet.header.get_extension(stream.time) else { return };
        let Some([high, middle, low]) = time.first_chunk::<3>() else { return };
        let time = u32::from_be_bytes([0, *high, *middle, *low]);
        let at = now.saturating_duration_since(*self.origin.get_or_insert(now));
        let rtt = self.handle.rtt().unwrap_or(RTT);
        self.estimate.lost(stream.lost(packet.header.sequence_number, rtt.min(PATIENCE), at));
        self.estimate.packet(time, packet.marshal_size() + BELOW_RTP, at, rtt);
        if let Some(bps) = self.estimate.message(at)
            && !self.limited.is_empty()
            && self.handle.lock().tells_rate
        {
            let message = ReceiverEstimatedMaximumBitrate {
                sender_ssrc: SENDER_SSRC,
                bitrate: bps as f32,
                ssrcs: self.limited.clone(),
            };
            self.write.push_back(TaggedPacket {
                now,
                transport: TransportContext::default(),
                message: AttributedPacket::new(Packet::Rtcp(vec![Box::new(message)])),
            });
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Remb {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(packet) = &message.message.packet {
            self.take(packet, message.now);
        }
        self.read.push_back(message);
        Ok(())
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(message);
        Ok(())
    }

    queues!();
}

impl Interceptor for Remb {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        let id = |uri: &str| {
            let found = info.rtp_header_extensions.iter().find(|extension| extension.uri == uri);
            found.and_then(|extension| u8::try_from(extension.id).ok())
        };
        let (Some(time), None) = (id(ABS_SEND_TIME_URI), id(TRANSPORT_CC_URI)) else { return };
        if self.streams.len() >= MAX_SSRCS {
            return;
        }
        for ssrc in std::iter::once(info.ssrc).chain(info.ssrc_rtx) {
            self.streams.insert(ssrc, Stream::new(time));
        }
        let wanted = info.rtcp_feedback.iter().any(|feedback| feedback.typ == "goog-remb");
        if wanted && info.mime_type.starts_with("video/") && !self.limited.contains(&info.ssrc) {
            self.limited.push(info.ssrc);
        }
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        for ssrc in std::iter::once(info.ssrc).chain(info.ssrc_rtx) {
            self.streams.remove(&ssrc);
        }
        self.limited.retain(|ssrc| *ssrc != info.ssrc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_lost_that_neither_comes_nor_was_overtaken() {
        let mut stream = Stream::new(3);
        let mut lost = |number: u16, ms: u64| stream.lost(number, Duration::from_millis(50), Duration::from_millis(ms));
        assert_eq!([lost(65_534, 0), lost(65_535, 10), lost(2, 20)], [0, 0, 0], "two are missing across the turn");
        assert_eq!(lost(1, 40), 0, "one was overtaken");
        assert_eq!([lost(3, 60), lost(4, 71)], [0, 1], "the other is lost");
        assert_eq!(lost(0, 90), 0, "and sent again");
        assert_eq!([lost(20_000, 100), lost(20_001, 200)], [0, 0], "another beginning");
        let flood: u32 = (0..100u16).map(|n| lost(20_001u16.wrapping_add(n * 500), 201)).sum();
        assert!(flood > 40_000, "{flood}: what is remembered has a limit");
    }
}
