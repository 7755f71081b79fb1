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

/// Less than this is never asked for.
const MIN_BPS: f64 = 200_000.0;
/// No limit: more than any sender of ours needs.
const MAX_BPS: f64 = 6_000_000.0;
/// Before anything is known.
const RTT: Duration = Duration::from_millis(100);
/// Who asks, in feedback of a side that sends nothing.
const SENDER_SSRC: u32 = 1;

/// Watches what comes in and writes REMB.
pub struct Remb {
    handle: WireHandle,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
    /// Id of the send time by SSRC, of the streams whose sender wants to be told.
    streams: BTreeMap<u32, u8>,
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
        let Some(id) = self.streams.get(&packet.header.ssrc) else { return };
        let Some(time) = packet.header.get_extension(*id) else { return };
        let Some([high, middle, low]) = time.first_chunk::<3>() else { return };
        let time = u32::from_be_bytes([0, *high, *middle, *low]);
        let at = now.saturating_duration_since(*self.origin.get_or_insert(now));
        let rtt = self.handle.rtt().unwrap_or(RTT);
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
            self.streams.insert(ssrc, time);
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
