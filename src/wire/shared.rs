//! What the interceptors of one connection learn and are told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::rtp::rtx::RtxMap;

/// SSRCs remembered per connection; more than any real one has, so that made-up ones cannot fill memory.
pub(super) const MAX_SSRCS: usize = 64;
/// Departures kept for an estimator; the oldest goes when nobody takes them.
const MAX_DEPARTURES: usize = 2048;

/// A sender's clock: which of its RTP timestamps belongs to which NTP time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderClock {
    /// NTP time of the sender, 32.32 fixed point.
    pub ntp: u64,
    /// RTP timestamp at that time.
    pub rtp: u32,
    /// When the report arrived.
    pub at: Instant,
}

/// What the other side reported last about one of our streams.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Share of packets lost since the report before, 0–1.
    pub fraction_lost: f32,
    /// Packets lost in all; negative when repeats arrived (RFC 3550 §6.4.1).
    pub packets_lost: i32,
    /// Jitter in timestamp units.
    pub jitter: u32,
    /// Round-trip time, where the report allows one.
    pub rtt: Option<Duration>,
    /// When it arrived.
    pub at: Instant,
}

/// One RTP packet that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Transport-wide number, where one is written.
    pub transport_cc: Option<u16>,
    /// Stream.
    pub ssrc: u32,
    /// Size of header and payload in bytes, before SRTP.
    pub bytes: usize,
    /// Answer to a request.
    pub retransmission: bool,
    /// When.
    pub at: Instant,
}

/// Counters of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WireStats {
    /// RTP packets that left, repeats included.
    pub packets_sent: u64,
    /// Bytes of those, before SRTP.
    pub bytes_sent: u64,
    /// Repeats among them.
    pub retransmissions_sent: u64,
    /// Retransmissions that were unwrapped.
    pub rtx_received: u64,
    /// RTX packets without content, sent as probes.
    pub rtx_padding: u64,
    /// RTX packets of streams that nothing names.
    pub rtx_unknown: u64,
    /// RTP packets dropped because they had come before.
    pub duplicates: u64,
    /// Key frame requests that arrived: PLI, and FIR with a new sequence number.
    pub key_frame_requests: u64,
    /// FIR that repeated a request.
    pub fir_repeats: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) rtx: RtxMap,
    pub(super) mids: HashMap<u32, String>,
    pub(super) rids: HashMap<u32, String>,
    pub(super) clocks: HashMap<u32, SenderClock>,
    pub(super) reports: HashMap<u32, Report>,
    pub(super) rtt: Option<Duration>,
    pub(super) remb: Option<(u64, Instant)>,
    pub(super) departures: VecDeque<Departure>,
    pub(super) stats: WireStats,
}

/// Shared view of the interceptors of one connection; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct WireHandle(Arc<Mutex<State>>);

impl WireHandle {
    /// Nothing learned yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data: usable whatever happened to a thread that held it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells which payload types and SSRCs are retransmissions, from the remote description
    /// ([`RtxMap::from_sdp`]). Adds to what is known.
    pub fn add_rtx(&self, map: RtxMap) {
        self.lock().rtx.merge(map);
    }

    /// Writes this mid into packets of `ssrc` until the other side has reported on it.
    pub fn set_mid(&self, ssrc: u32, mid: &str) {
        self.lock().mids.insert(ssrc, mid.to_owned());
    }

    /// Writes this rid into packets of `ssrc` until the other side has reported on it.
    pub fn set_rid(&self, ssrc: u32, rid: &str) {
        self.lock().rids.insert(ssrc, rid.to_owned());
    }

    /// Clock of a remote sender, from its last sender report.
    pub fn sender_clock(&self, ssrc: u32) -> Option<SenderClock> {
        self.lock().clocks.get(&ssrc).copied()
    }

    /// The last report about one of our streams.
    pub fn report(&self, ssrc: u32) -> Option<Report> {
        self.lock().reports.get(&ssrc).copied()
    }

    /// Smoothed round-trip time from RTCP; `None` until a report answers one of ours.
    pub fn rtt(&self) -> Option<Duration> {
        self.lock().rtt
    }

    /// The last REMB in bit/s and when it arrived.
    pub fn remb(&self) -> Option<(u64, Instant)> {
        self.lock().remb
    }

    /// Takes the departures noted since the last call, oldest first; at most the last 2 048.
    pub fn take_departures(&self, out: &mut Vec<Departure>) {
        out.extend(self.lock().departures.drain(..));
    }

    /// Counters so far.
    pub fn stats(&self) -> WireStats {
        self.lock().stats
    }
}

impl State {
    pub(super) fn note_departure(&mut self, departure: Departure) {
        self.stats.packets_sent += 1;
        self.stats.bytes_sent += departure.bytes as u64;
        self.stats.retransmissions_sent += u64::from(departure.retransmission);
        if self.departures.len() >= MAX_DEPARTURES {
            self.departures.pop_front();
        }
        self.departures.push_back(departure);
    }

    pub(super) fn note_rtt(&mut self, sample: Duration) {
        // RFC 6298's smoothing: 7/8 old + 1/8 sample.
        self.rtt = Some(self.rtt.map_or(sample, |old| (old * 7 + sample) / 8));
    }
}

/// Inserts unless the map is full of other keys.
pub(super) fn bounded_insert<V>(map: &mut HashMap<u32, V>, key: u32, value: V) {
    if map.len() < MAX_SSRCS || map.contains_key(&key) {
        map.insert(key, value);
    }
}
