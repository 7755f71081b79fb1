//! Retransmissions become the packets they repeat before anything reads a sequence number.
//!
//! `rtc` unwraps RTX behind its interceptors, so that a NACK generator never sees the repair and asks for ever. It also
//! ignores FID lines next to rids; the map here comes from the description, from bound streams, and from repaired rids.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

use super::packet::to_rtp;
use super::shared::{MAX_SSRCS, WireHandle};
use super::{RID_URI, RRID_URI, queues};
use crate::rtp::rtx::Unwrapped;
use crate::rtp::seq::Unwrapper;

/// Packets behind the highest one among which a duplicate is recognized.
const WINDOW: u64 = 2048;
/// Rids remembered.
const MAX_RIDS: usize = 16;

/// Unwraps RTX (RFC 4588) and drops packets that came before: senders probe with repeats of old packets.
pub struct RtxUnwrap {
    handle: WireHandle,
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
    seen: HashMap<u32, Seen>,
    rid_id: Option<u8>,
    rrid_id: Option<u8>,
    rids: HashMap<Bytes, u32>,
}

impl RtxUnwrap {
    /// Uses the map of `handle` ([`WireHandle::add_rtx`]).
    pub fn new(handle: WireHandle) -> Self {
        Self {
            handle,
            read: VecDeque::new(),
            write: VecDeque::new(),
            seen: HashMap::new(),
            rid_id: None,
            rrid_id: None,
            rids: HashMap::new(),
        }
    }

    /// Notes which SSRC a rid stands for, and which one a repaired rid repairs.
    fn learn(&mut self, header: &rtc::rtp::Header) {
        if let Some(rid) = self.rid_id.and_then(|id| header.get_extension(id))
            && (self.rids.len() < MAX_RIDS || self.rids.contains_key(&rid))
        {
            self.rids.insert(rid, header.ssrc);
        }
        if let Some(rrid) = self.rrid_id.and_then(|id| header.get_extension(id))
            && let Some(&primary) = self.rids.get(&rrid)
            && primary != header.ssrc
        {
            self.handle.lock().rtx.add_ssrc(header.ssrc, primary);
        }
    }

    /// Whether this packet is to go on.
    fn take(&mut self, packet: &mut rtc::rtp::Packet) -> bool {
        if !packet.header.extensions.is_empty() {
            self.learn(&packet.header);
        }
        let unwrapped = {
            let mut state = self.handle.lock();
            let unwrapped = if state.rtx.is_rtx(packet.header.payload_type) {
                state.rtx.unwrap(&to_rtp(packet))
            } else {
                Unwrapped::NotRtx
            };
            match unwrapped {
                Unwrapped::Packet(_) => state.stats.rtx_received += 1,
                Unwrapped::Padding => state.stats.rtx_padding += 1,
                Unwrapped::UnknownSource => state.stats.rtx_unknown += 1,
                Unwrapped::NotRtx => {}
            }
            unwrapped
        };
        match unwrapped {
            Unwrapped::NotRtx => {}
            Unwrapped::Padding | Unwrapped::UnknownSource => return false,
            Unwrapped::Packet(original) => {
                packet.header.payload_type = original.payload_type;
                packet.header.sequence_number = original.sequence;
                packet.header.ssrc = original.ssrc;
                packet.payload = original.payload;
            }
        }
        let ssrc = packet.header.ssrc;
        if !self.seen.contains_key(&ssrc) && self.seen.len() >= MAX_SSRCS {
            return true;
        }
        let first = self.seen.entry(ssrc).or_default().first_time(packet.header.sequence_number);
        if !first {
            self.handle.lock().stats.duplicates += 1;
        }
        first
    }
}

/// The last sequence numbers of one SSRC.
#[derive(Debug)]
struct Seen {
    unwrapper: Unwrapper,
    numbers: Vec<u64>,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            unwrapper: Unwrapper::default(),
            // No extended number is zero: they begin a turn of the circle later.
            numbers: vec![0; WINDOW as usize],
        }
    }
}

impl Seen {
    fn first_time(&mut self, sequence: u16) -> bool {
        let extended = self.unwrapper.unwrap(sequence);
        let behind = self.unwrapper.highest().unwrap_or(extended).saturating_sub(extended);
        if behind >= WINDOW {
            // Too far back to tell; whoever reorders decides.
            return true;
        }
        match self.numbers.get_mut((extended % WINDOW) as usize) {
            Some(slot) if *slot == extended => false,
            Some(slot) => {
                *slot = extended;
                true
            }
            None => true,
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for RtxUnwrap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        let goes_on = match &mut message.message.packet {
            Packet::Rtp(packet) => self.take(packet),
            _ => true,
        };
        if goes_on {
            self.read.push_back(message);
        }
        Ok(())
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.write.push_back(message);
        Ok(())
    }

    queues!();
}

impl Interceptor for RtxUnwrap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        for extension in &info.rtp_header_extensions {
            let id = u8::try_from(extension.id).ok();
            match extension.uri.as_str() {
                RID_URI => self.rid_id = id,
                RRID_URI => self.rrid_id = id,
                _ => {}
            }
        }
        let mut state = self.handle.lock();
        if let Some(payload_type) = info.payload_type_rtx {
            state.rtx.add_payload_type(payload_type, info.payload_type);
        }
        if let Some(ssrc) = info.ssrc_rtx {
            state.rtx.add_ssrc(ssrc, info.ssrc);
        }
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.seen.remove(&info.ssrc);
    }
}
