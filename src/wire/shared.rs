//! What the interceptors of one connection learn and are told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::rtp::congestion::{Arrival, Bounds, Congestion, Departed, Probe};
use crate::rtp::rtx::RtxMap;

/// SSRCs remembered per connection; more than any real one has, so that made-up ones cannot fill memory.
pub(super) const MAX_SSRCS: usize = 64;
/// Bytes of a packet below RTP: IPv4, UDP and the SRTP tag.
pub(super) const BELOW_RTP: usize = 20 + 8 + 10;

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
pub(super) struct Departure {
    /// Transport-wide number, where one is written.
    pub(super) transport_cc: Option<u16>,
    /// Size of header and payload in bytes, before SRTP.
    pub(super) bytes: usize,
    /// Answer to a request, or padding.
    pub(super) retransmission: bool,
    /// When.
    pub(super) at: Instant,
}

/// What a path takes, by transport-wide feedback. Bytes below RTP are in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// What may be sent, in bit/s.
    pub target_bps: f64,
    /// What a pacer lets out, in bit/s.
    pub pacing_bps: f64,
    /// How long the queue on the way is.
    pub queue: Duration,
}

/// Congestion control of a connection, driven by what leaves and by what is fed back.
#[derive(Debug)]
pub(super) struct Control {
    congestion: Congestion,
    origin: Instant,
    /// The burst that is leaving, and what is left of it in bytes.
    probe: Option<(u32, usize)>,
    padding: usize,
    /// Packets carry numbers: feedback may be expected.
    numbered: bool,
    /// Feedback has come.
    fed: bool,
}

/// A timestamp and when what it names was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capture {
    clock_hz: u32,
    rtp: u32,
    at: Instant,
}

/// A capture time that differs by more from what was expected is believed at once: another source, or a pause.
const CAPTURE_JUMP: Duration = Duration::from_millis(250);
/// Weight of a later capture time, as a shift: a thread that came late is no drift.
const CAPTURE_SMOOTHING: u32 = 6;

impl Capture {
    /// The timestamp of this moment.
    pub(super) fn timestamp(&self, now: Instant) -> u32 {
        let ticks = |span: Duration| (span.as_nanos() * u128::from(self.clock_hz) / 1_000_000_000) as u32;
        match now.checked_duration_since(self.at) {
            Some(since) => self.rtp.wrapping_add(ticks(since)),
            None => self.rtp.wrapping_sub(ticks(self.at - now)),
        }
    }

    /// The same clock, later; `None` where it does not go on.
    fn next(&self, rtp: u32, at: Instant) -> Option<Self> {
        let ahead = rtp.wrapping_sub(self.rtp) as i32;
        let span =
            Duration::from_nanos(u64::from(u32::try_from(ahead).ok()?) * 1_000_000_000 / u64::from(self.clock_hz));
        let expected = self.at.checked_add(span)?;
        let at = match at.checked_duration_since(expected) {
            // Nothing is captured before it is: an earlier time is the better one.
            None => at,
            Some(late) if late > CAPTURE_JUMP => return None,
            Some(late) => expected + late / (1 << CAPTURE_SMOOTHING),
        };
        Some(Self { rtp, at, ..*self })
    }
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
    /// Bytes of answers to requests, without padding.
    pub repeated_bytes: u64,
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
    pub(super) captures: HashMap<u32, Capture>,
    pub(super) reports: HashMap<u32, Report>,
    pub(super) rtt: Option<Duration>,
    pub(super) remb: Option<(u64, Instant)>,
    /// What is wanted of layers, by SSRC, see [`WireHandle::wish`].
    pub(super) wishes: HashMap<u32, u64>,
    pub(super) control: Option<Control>,
    /// The other side listens to REMB.
    pub(super) tells_rate: bool,
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

    /// Says when the sample or picture with this timestamp was captured: from now on the sender reports of `ssrc` carry on
    /// from there, and not from the moment at which the packet happened to leave.
    pub fn note_capture(&self, ssrc: u32, clock_hz: u32, rtp: u32, at: Instant) {
        let mut state = self.lock();
        let capture = state.captures.get(&ssrc).and_then(|known| known.next(rtp, at));
        bounded_insert(&mut state.captures, ssrc, capture.unwrap_or(Capture { clock_hz, rtp, at }));
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

    /// The other side adapts to what it is told by REMB.
    pub fn tell_rate(&self) {
        self.lock().tells_rate = true;
    }

    /// How much our own host wants of a layer at most, in bit/s, 0 for nothing; `None` while it has not said.
    ///
    /// It says so by a REMB about the one SSRC of the layer. That is not what the path takes: transport-wide feedback tells that.
    pub fn wish(&self, ssrc: u32) -> Option<u64> {
        self.lock().wishes.get(&ssrc).copied()
    }

    /// Starts congestion control within `bounds`; times count from `origin`.
    pub fn control(&self, bounds: Bounds, origin: Instant) {
        let congestion = Congestion::new(bounds);
        let control = Control { congestion, origin, probe: None, padding: 0, numbered: false, fed: false };
        self.lock().control = Some(control);
    }

    /// What the path takes; `None` while no feedback has come, as from servers that send none.
    pub fn allowance(&self) -> Option<Allowance> {
        let state = self.lock();
        let control = state.control.as_ref().filter(|control| control.fed)?;
        Some(Allowance {
            target_bps: control.congestion.target_bps(),
            pacing_bps: control.congestion.pacing_bps(),
            queue: control.congestion.queue(),
        })
    }

    /// More than this is of no use on the path for now, in bit/s, everything included.
    pub fn set_useful_bps(&self, bps: f64) {
        if let Some(control) = &mut self.lock().control {
            control.congestion.set_useful_bps(bps);
        }
    }

    /// Lets the clock take effect; every 25 to 100 ms.
    pub fn tick(&self, now: Instant) {
        let mut state = self.lock();
        let sent = state.stats;
        if let Some(control) = state.control.as_mut().filter(|control| control.numbered) {
            control.congestion.tick(now.saturating_duration_since(control.origin));
            let (target_bps, queue) = (control.congestion.target_bps(), control.congestion.queue());
            tracing::trace!(target_bps, ?queue, sent.bytes_sent, sent.repeated_bytes, "estimate");
        }
    }

    /// A burst to send at once, if one is due: what leaves from now on belongs to it until it is complete. What the
    /// `waiting` bytes of media do not fill of it is filled with repeats.
    pub fn take_probe(&self, waiting: usize, now: Instant) -> Option<Probe> {
        let mut state = self.lock();
        let control = state.control.as_mut().filter(|control| control.numbered)?;
        let probe = control.congestion.take_probe(now.saturating_duration_since(control.origin))?;
        control.probe = Some((probe.id, probe.bytes));
        control.padding = probe.bytes.saturating_sub(waiting);
        Some(probe)
    }

    /// An answer to a request leaves.
    pub(super) fn note_repeat(&self, bytes: usize) {
        self.lock().stats.repeated_bytes += bytes as u64;
    }

    /// Bytes of repeats wanted as padding, once.
    pub(super) fn take_padding(&self) -> usize {
        self.lock().control.as_mut().map_or(0, |control| std::mem::take(&mut control.padding))
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
        let (Some(number), Some(control)) = (departure.transport_cc, self.control.as_mut()) else { return };
        control.numbered = true;
        let bytes = departure.bytes + BELOW_RTP;
        let probe = control.probe.map(|(id, _)| id);
        control.probe =
            control.probe.and_then(|(id, left)| Some((id, left.checked_sub(bytes).filter(|left| *left > 0)?)));
        let at = departure.at.saturating_duration_since(control.origin);
        control.congestion.departed(Departed { number, bytes, at, probe });
    }

    pub(super) fn note_feedback(&mut self, arrivals: &[Arrival], now: Instant) {
        if let Some(control) = &mut self.control {
            control.fed = true;
            control.congestion.feedback(arrivals, now.saturating_duration_since(control.origin));
        }
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
