//! Inbound RTCP for the application.
//!
//! `rtc` gives none to the application unless it is marked, and routes a compound as a whole by the SSRC of its first
//! packet: Kurento's `RR (empty) + SDES + FIR + REMB` is lost that way, and with it every key frame request. So a
//! compound is taken apart here, and each fact leaves as a packet of its own for the one stream it is about, key frame
//! requests first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use rtc::interceptor::{Attribute, AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

use super::queues;
use super::shared::{MAX_SSRCS, WireHandle};

/// Hands PLI, FIR, REMB, NACK, SR and RR to the application, one packet each.
pub struct RtcpToApp {
    handle: WireHandle,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
    /// Last FIR sequence number by requester and target: each one counts once (RFC 5104 §4.3.1.1).
    fir: HashMap<(u32, u32), u8>,
    /// SSRCs that we send.
    local: BTreeSet<u32>,
}

type Boxed = Box<dyn rtc::rtcp::Packet>;

impl RtcpToApp {
    /// Counts into `handle`.
    pub fn new(handle: WireHandle) -> Self {
        Self { handle, read: VecDeque::new(), write: VecDeque::new(), fir: HashMap::new(), local: BTreeSet::new() }
    }

    /// The facts of a compound, most urgent first.
    fn take_apart(&mut self, compound: &[Boxed]) -> Vec<Boxed> {
        let mut urgent: Vec<Boxed> = Vec::new();
        let mut bandwidth: Vec<Boxed> = Vec::new();
        let mut rest: Vec<Boxed> = Vec::new();
        for packet in compound {
            let any = packet.as_any();
            if let Some(pli) = any.downcast_ref::<PictureLossIndication>() {
                self.handle.lock().stats.key_frame_requests += 1;
                urgent.push(Box::new(pli.clone()));
            } else if let Some(fir) = any.downcast_ref::<FullIntraRequest>() {
                for entry in &fir.fir {
                    if self.is_new(fir.sender_ssrc, entry.ssrc, entry.sequence_number) {
                        urgent.push(Box::new(FullIntraRequest { fir: vec![entry.clone()], ..fir.clone() }));
                    }
                }
            } else if let Some(remb) = any.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
                // Without a list it is about the whole session (some write it so): routed by the streams that are ours.
                let ours: Vec<u32> = self.local.iter().copied().collect();
                for ssrc in if remb.ssrcs.is_empty() { &ours } else { &remb.ssrcs } {
                    bandwidth.push(Box::new(ReceiverEstimatedMaximumBitrate { ssrcs: vec![*ssrc], ..remb.clone() }));
                }
            } else if any.is::<TransportLayerNack>() {
                urgent.push(packet.clone());
            } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
                rest.extend(per_stream(report.ssrc, &report.reports));
            } else if let Some(report) = any.downcast_ref::<SenderReport>() {
                // Without its blocks it is about its own sender only.
                rest.push(Box::new(SenderReport { reports: Vec::new(), ..report.clone() }));
                rest.extend(per_stream(report.ssrc, &report.reports));
            }
        }
        urgent.extend(bandwidth);
        urgent.extend(rest);
        urgent
    }

    fn is_new(&mut self, sender: u32, target: u32, sequence: u8) -> bool {
        if self.fir.len() >= MAX_SSRCS && !self.fir.contains_key(&(sender, target)) {
            self.fir.clear();
        }
        let new = self.fir.insert((sender, target), sequence) != Some(sequence);
        let mut state = self.handle.lock();
        state.stats.key_frame_requests += u64::from(new);
        state.stats.fir_repeats += u64::from(!new);
        new
    }
}

/// One receiver report per block, so that each finds its stream.
fn per_stream(ssrc: u32, reports: &[ReceptionReport]) -> impl Iterator<Item = Boxed> + '_ {
    reports.iter().map(move |report| -> Boxed {
        Box::new(ReceiverReport { ssrc, reports: vec![report.clone()], ..ReceiverReport::default() })
    })
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for RtcpToApp {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(compound) = &message.message.packet {
            for packet in self.take_apart(compound) {
                self.read.push_back(TaggedPacket {
                    now: message.now,
                    transport: message.transport,
                    message: AttributedPacket::new(Packet::Rtcp(vec![packet])).with(Attribute::DeliverToApplication),
                });
            }
            // What other interceptors attached has to go on; the packets in it have been taken already.
            if message.message.attributes.is_empty() {
                return Ok(());
            }
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

impl Interceptor for RtcpToApp {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        if self.local.len() < MAX_SSRCS {
            self.local.insert(info.ssrc);
        }
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.local.remove(&info.ssrc);
    }

    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
