//! From packets of one video stream to complete frames: reorder, repair, assemble.
//!
//! Nothing incomplete is ever handed out: a gap holds everything behind it until it is repaired, or until a complete
//! key frame behind it makes it pointless. Memory is bounded by [`ReceiverConfig::max_packets`]; when it is full, the
//! gap is given up.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::depacketise::{assemble, begins_frame, begins_key_frame, carries_parameter_sets};
use super::frame::{EncodedFrame, VIDEO_CLOCK_HZ, VideoCodec};
use super::h264::{Completed, ParameterSets, picture_size};
use super::jitter::Jitter;
use super::nack::{Arrival, NackConfig, Tracker};
use super::packet::RtpPacket;

/// Complete frames that may wait for [`VideoReceiver::poll_frame`]; when full, all are dropped and a key frame is
/// asked for.
const MAX_READY: usize = 300;
/// Requests that fit into the adaptive wait: after this many the repair is taken to be late.
const ATTEMPTS_IN_WAIT: u32 = 5;
/// Repairs that always fit into it. A key frame needs a round trip as well, and is more packets that may get lost.
const REPAIRS_IN_WAIT: u32 = 3;
/// But not longer than this.
const LONGEST_WAIT: Duration = Duration::from_millis(1_500);

/// How a stream is repaired.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiverConfig {
    /// Codec of the stream.
    pub codec: VideoCodec,
    /// When to ask for packets; `None` where NACK is not negotiated.
    pub nack: Option<NackConfig>,
    /// Upper limit of the adaptive wait for a gap, after which a key frame is asked for.
    pub max_wait: Duration,
    /// Age at which a gap is given up although its repair is still being asked for.
    pub patience: Duration,
    /// Shortest time between two key frame requests.
    pub pli_interval: Duration,
    /// Packets held at most.
    pub max_packets: usize,
}

impl ReceiverConfig {
    /// For servers that answer a key frame request: a gap is given up after a second.
    pub fn standard(codec: VideoCodec) -> Self {
        Self {
            codec,
            nack: Some(NackConfig::default()),
            max_wait: Duration::from_millis(400),
            patience: Duration::from_secs(1),
            pli_interval: Duration::from_millis(500),
            max_packets: 2048,
        }
    }

    /// For Kurento: it repairs outages of seconds by NACK and does not pass key frame requests of subscribers on.
    pub fn kurento(codec: VideoCodec) -> Self {
        Self {
            nack: Some(NackConfig {
                max_requests: 60,
                max_age: Duration::from_secs(5),
                max_gap: 2000,
                ..NackConfig::default()
            }),
            patience: Duration::from_secs(5),
            max_packets: 4096,
            ..Self::standard(codec)
        }
    }
}

/// What the sender should be told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feedback {
    /// The stream, once a packet has come.
    pub ssrc: Option<u32>,
    /// Sequence numbers to ask for again.
    pub nacks: Vec<u16>,
    /// Ask for a key frame.
    pub pli: bool,
}

/// Counters of one stream since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ReceiverStats {
    /// Packets that came, repairs and padding included, duplicates not.
    pub packets: u64,
    /// Payload bytes of `packets`.
    pub bytes: u64,
    /// Packets that did not come when they should have; those of `packets_recovered` are among them.
    pub packets_lost: u64,
    /// Packets that came after they were asked for.
    pub packets_recovered: u64,
    /// Packets that came again.
    pub duplicates: u64,
    /// Packets that came after their place was given up.
    pub late: u64,
    /// Packets without payload.
    pub padding: u64,
    /// Sequence numbers asked for, repeats included.
    pub nacks: u64,
    /// Key frame requests.
    pub plis: u64,
    /// Inter-arrival jitter (RFC 3550) in milliseconds.
    pub jitter_ms: f64,
    /// Frames handed out.
    pub frames: u64,
    /// Key frames handed out.
    pub key_frames: u64,
    /// Times that frames were given up: by a gap, a malformed frame or a full queue.
    pub frames_dropped: u64,
    /// Freezes as WebRTC statistics define them: a frame came later than three average intervals, and than the
    /// average and 150 ms.
    pub freezes: u64,
    /// Length of all freezes.
    pub freeze_ms: u64,
}

#[derive(Debug, Clone)]
struct Slot {
    payload: Bytes,
    timestamp: u32,
    marker: bool,
    arrived: Instant,
}

/// Reorders and assembles one video stream.
#[derive(Debug)]
pub struct VideoReceiver {
    config: ReceiverConfig,
    ssrc: Option<u32>,
    tracker: Tracker,
    slots: BTreeMap<u64, Slot>,
    /// Everything before is handed out or given up.
    floor: u64,
    /// Everything from `floor` up to here is there and belongs to one frame that is not complete yet.
    scan: u64,
    /// Since when only a key frame helps.
    waiting: Option<Instant>,
    /// The missing packet that holds everything up, and since when.
    blocked: Option<(u64, Instant)>,
    last_pli: Option<Instant>,
    ready: VecDeque<EncodedFrame>,
    parameters: ParameterSets,
    jitter: Jitter,
    rhythm: Rhythm,
    /// Lost, recovered and asked for of earlier SSRCs.
    before: (u64, u64, u64),
    stats: ReceiverStats,
}

impl VideoReceiver {
    /// A receiver that waits for its first key frame.
    pub fn new(config: ReceiverConfig) -> Self {
        Self {
            config,
            ssrc: None,
            tracker: Tracker::new(config.nack.unwrap_or_default()),
            slots: BTreeMap::new(),
            floor: 0,
            scan: 0,
            waiting: None,
            blocked: None,
            last_pli: None,
            ready: VecDeque::new(),
            parameters: ParameterSets::default(),
            jitter: Jitter::new(VIDEO_CLOCK_HZ),
            rhythm: Rhythm::default(),
            before: (0, 0, 0),
            stats: ReceiverStats::default(),
        }
    }

    /// Tells the round-trip time: requests are spaced by it.
    pub fn set_rtt(&mut self, rtt: Duration) {
        self.tracker.set_rtt(rtt);
    }

    /// Takes one packet. A new SSRC is a new stream: it begins with a key frame, the counters go on.
    pub fn push(&mut self, packet: RtpPacket, now: Instant) {
        if self.ssrc != Some(packet.ssrc) {
            self.reset(packet.ssrc, now);
        }
        let sequence = match self.tracker.push(packet.sequence, now) {
            Arrival::New(sequence) => {
                if !packet.payload.is_empty() {
                    self.jitter.update(packet.timestamp, now);
                }
                sequence
            }
            Arrival::Recovered(sequence) | Arrival::Reordered(sequence) => sequence,
            Arrival::Restarted(sequence) => {
                self.slots.clear();
                self.wait_for_key_frame(now);
                self.move_floor(sequence);
                self.stats.frames_dropped += 1;
                sequence
            }
            Arrival::Duplicate => {
                self.stats.duplicates += 1;
                return;
            }
            Arrival::TooOld => {
                self.stats.late += 1;
                return;
            }
        };
        self.stats.packets += 1;
        self.stats.bytes += packet.payload.len() as u64;
        if packet.payload.is_empty() {
            self.stats.padding += 1;
        }
        if sequence < self.floor {
            self.stats.late += 1;
            return;
        }
        self.slots.insert(
            sequence,
            Slot { payload: packet.payload, timestamp: packet.timestamp, marker: packet.marker, arrived: now },
        );
        if self.waiting.is_some() {
            // Without markers, a frame is only known to be over by the packet behind it.
            let before = || sequence.checked_sub(1).and_then(|before| self.key_frame_around(before));
            if let Some(start) = self.key_frame_around(sequence).or_else(before) {
                self.begin_at(start);
            } else if self.slots.len() > self.config.max_packets {
                // Only the newest can still be part of a key frame that is coming in.
                if let Some(oldest) = self.slots.keys().nth(self.config.max_packets / 2).copied() {
                    self.move_floor(oldest);
                }
            }
        }
        self.advance(now);
        // A key frame behind a gap that has lasted too long is what was asked for: go on with it at once.
        let overdue = self.blocked.is_some_and(|(_, since)| now.saturating_duration_since(since) >= self.wait());
        if overdue && self.key_frame_around(sequence).is_some() {
            self.skip_to_key_frame(now);
        }
        if self.waiting.is_none() && self.slots.len() > self.config.max_packets {
            self.give_up(now);
        }
    }

    /// The next complete frame in decode order.
    pub fn poll_frame(&mut self) -> Option<EncodedFrame> {
        self.ready.pop_front()
    }

    /// What to tell the sender now; also gives up what has waited too long. Call it after pushing packets and when
    /// [`VideoReceiver::poll_timeout`] is over.
    pub fn poll_feedback(&mut self, now: Instant) -> Feedback {
        if let Some((_, since)) = self.blocked {
            let age = now.saturating_duration_since(since);
            if age >= self.wait() {
                self.skip_to_key_frame(now);
            }
            if self.blocked.is_some() && age >= self.config.patience.max(self.wait()) {
                self.give_up(now);
            }
        }
        let nacks = match self.config.nack {
            Some(_) => self.tracker.poll(now),
            None => Vec::new(),
        };
        let pli = self.pli_due().is_some_and(|due| due <= now);
        if pli {
            self.last_pli = Some(now);
            self.stats.plis += 1;
        }
        Feedback { ssrc: self.ssrc, nacks, pli }
    }

    /// When [`VideoReceiver::poll_feedback`] is to be called again at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let nack = self.config.nack.and_then(|_| self.tracker.poll_timeout());
        let give_up = self.blocked.map(|(_, since)| since + self.config.patience.max(self.wait()));
        [nack, self.pli_due(), give_up].into_iter().flatten().min()
    }

    /// The decoder lost its references: everything up to the next key frame is useless, and one is asked for.
    pub fn decoder_lost(&mut self, now: Instant) {
        self.ready.clear();
        if self.waiting.is_none() {
            self.give_up(now);
        }
    }

    /// The sender said that it pauses, or we asked it to: the silence that follows is no freeze.
    pub fn note_pause(&mut self) {
        self.rhythm = Rhythm::default();
    }

    /// Whether only a key frame helps now.
    pub fn needs_key_frame(&self) -> bool {
        self.waiting.is_some() || self.ssrc.is_none()
    }

    /// Since when only a key frame helps; `None` while frames come out, or before the first packet. With a server that
    /// ignores key frame requests, a stream that waits for seconds has to be made anew.
    pub fn waiting_since(&self) -> Option<Instant> {
        self.waiting
    }

    /// Counters so far.
    pub fn stats(&self) -> ReceiverStats {
        let (lost, recovered, requested) = self.before;
        ReceiverStats {
            packets_lost: lost + self.tracker.lost(),
            packets_recovered: recovered + self.tracker.recovered(),
            nacks: requested + self.tracker.requested(),
            jitter_ms: self.jitter.ms(),
            ..self.stats
        }
    }

    /// How long a gap may hold frames before a key frame is asked for: time for a few requests, and for the jitter.
    fn wait(&self) -> Duration {
        let (jitter, most) = (self.jitter.duration() * 4, self.config.max_wait);
        let Some(nack) = self.config.nack else { return (Duration::from_millis(10) + jitter).min(most) };
        let spacing = self.tracker.spacing();
        // Before the first repair nothing is known of how long one takes: a server in the middle may have to ask itself.
        let usual = self.tracker.repair_time().unwrap_or(most);
        let repairs = self.tracker.mean_repair_time().map_or(spacing, |mean| mean.max(spacing)) * REPAIRS_IN_WAIT;
        (nack.first_delay + spacing * ATTEMPTS_IN_WAIT + jitter).max(usual).min(most).max(repairs.min(LONGEST_WAIT))
    }

    /// When a key frame is to be asked for; `None` when none is needed.
    fn pli_due(&self) -> Option<Instant> {
        let wanted = match (self.waiting, self.blocked) {
            // A key frame that is coming in already should not be asked for.
            (Some(since), _) => since + self.wait().min(Duration::from_millis(100)),
            (None, Some((_, since))) => since + self.wait(),
            (None, None) => return None,
        };
        Some(self.last_pli.map_or(wanted, |last| wanted.max(last + self.config.pli_interval)))
    }

    fn reset(&mut self, ssrc: u32, now: Instant) {
        self.before.0 += self.tracker.lost();
        self.before.1 += self.tracker.recovered();
        self.before.2 += self.tracker.requested();
        let rtt = self.tracker.rtt();
        self.tracker = Tracker::new(self.config.nack.unwrap_or_default());
        self.tracker.set_rtt(rtt);
        self.ssrc = Some(ssrc);
        self.slots.clear();
        self.floor = 0;
        self.scan = 0;
        self.jitter = Jitter::new(VIDEO_CLOCK_HZ);
        self.parameters = ParameterSets::default();
        self.wait_for_key_frame(now);
    }

    fn wait_for_key_frame(&mut self, now: Instant) {
        self.waiting.get_or_insert(now);
        self.blocked = None;
    }

    fn move_floor(&mut self, floor: u64) {
        if floor > self.floor {
            self.floor = floor;
            self.slots = self.slots.split_off(&floor);
            self.tracker.drop_before(floor);
        }
        self.scan = self.floor;
    }

    fn begin_at(&mut self, start: u64) {
        self.move_floor(start);
        self.waiting = None;
        self.blocked = None;
    }

    /// Nothing up to the next key frame is of use any more.
    fn give_up(&mut self, now: Instant) {
        self.stats.frames_dropped += 1;
        self.wait_for_key_frame(now);
        // What blocks is skipped; a key frame that is coming in behind it is kept.
        let blocked = self.scan;
        let next = self.slots.range(blocked..).find(|(_, slot)| begins_key_frame(self.config.codec, &slot.payload));
        let keep = next.map(|(sequence, _)| *sequence).or_else(|| self.slots.keys().last().map(|last| last + 1));
        self.move_floor(keep.unwrap_or(blocked));
        self.skip_to_key_frame(now);
    }

    /// Goes on with a complete key frame behind the gap, if there is one.
    fn skip_to_key_frame(&mut self, now: Instant) {
        let candidates: Vec<u64> = self
            .slots
            .range(self.scan..)
            .filter(|(_, slot)| begins_key_frame(self.config.codec, &slot.payload))
            .map(|(sequence, _)| *sequence)
            .collect();
        // The newest complete one: what lies before it would only be shown late.
        if let Some(start) = candidates.into_iter().rev().find_map(|candidate| self.key_frame_around(candidate)) {
            if self.waiting.is_none() {
                self.stats.frames_dropped += 1;
            }
            self.begin_at(start);
            self.advance(now);
        }
    }

    /// The first packet of the complete key frame that `sequence` is part of.
    fn key_frame_around(&self, sequence: u64) -> Option<u64> {
        let timestamp = self.slots.get(&sequence)?.timestamp;
        let mut start = sequence;
        // Backwards to the first packet of this timestamp that is there without a gap.
        while let Some(slot) = start.checked_sub(1).and_then(|before| self.slots.get(&before)) {
            if slot.timestamp != timestamp || slot.payload.is_empty() || slot.marker {
                break;
            }
            start -= 1;
        }
        let first = self.slots.get(&start)?;
        if !begins_key_frame(self.config.codec, &first.payload) {
            return None;
        }
        // An H264 key frame may begin with an IDR slice, or the parameter sets before it are still missing.
        let certain = self.config.codec == VideoCodec::Vp8
            || carries_parameter_sets(&first.payload)
            || start == self.floor
            || start.checked_sub(1).is_some_and(|before| self.slots.contains_key(&before));
        if !certain {
            return None;
        }
        let mut at = sequence;
        loop {
            match self.slots.get(&at) {
                Some(slot) if slot.timestamp != timestamp => return Some(start),
                Some(slot) if slot.marker => return Some(start),
                Some(_) => at += 1,
                None => return None,
            }
        }
    }

    /// Hands out every frame that is complete at the floor.
    fn advance(&mut self, now: Instant) {
        while self.waiting.is_none() {
            // Padding between frames.
            while self.slots.get(&self.floor).is_some_and(|slot| slot.payload.is_empty()) {
                self.slots.remove(&self.floor);
                self.floor += 1;
            }
            self.scan = self.scan.max(self.floor);
            let Some(end) = self.frame_end() else {
                break;
            };
            self.hand_out(end, now);
        }
        let missing = self.scan;
        if self.waiting.is_some() || self.slots.range(missing..).next().is_none() {
            self.blocked = None;
        } else if self.blocked.is_none_or(|(sequence, _)| sequence != missing) {
            // The time counts from when the gap was noticed, also when an earlier one has held it up since.
            let since = self.tracker.missing_since(missing).unwrap_or(now);
            self.blocked = Some((missing, since));
        }
    }

    /// The last packet of the frame at the floor, when all of it is there.
    fn frame_end(&mut self) -> Option<u64> {
        let timestamp = self.slots.get(&self.floor)?.timestamp;
        while let Some(slot) = self.slots.get(&self.scan) {
            if !slot.payload.is_empty() && slot.timestamp != timestamp {
                // No marker, but another frame: the one before is over.
                return self.scan.checked_sub(1);
            }
            if slot.marker {
                return Some(self.scan);
            }
            self.scan += 1;
        }
        None
    }

    fn hand_out(&mut self, end: u64, now: Instant) {
        let rest = self.slots.split_off(&(end + 1));
        let packets = std::mem::replace(&mut self.slots, rest);
        self.floor = end + 1;
        self.scan = self.floor;
        let payloads = || packets.values().map(|slot| &slot.payload).filter(|payload| !payload.is_empty());
        let assembled = match payloads().next() {
            Some(first) if begins_frame(self.config.codec, first) != Some(false) => {
                assemble(self.config.codec, payloads()).ok()
            }
            _ => None,
        };
        let Some(assembled) = assembled else {
            // Malformed: what follows refers to it.
            self.stats.frames_dropped += 1;
            self.wait_for_key_frame(now);
            return;
        };
        let (data, key_frame, size) = match self.config.codec {
            VideoCodec::Vp8 => (assembled.data, assembled.key_frame, assembled.size),
            VideoCodec::H264 => match self.parameters.complete(assembled.data) {
                Completed::NoPicture => return,
                Completed::Inter(data) => (data, false, assembled.size),
                Completed::Key(data) => {
                    let size = picture_size(&data);
                    (data, true, size)
                }
                Completed::KeyWithoutParameters => {
                    self.stats.frames_dropped += 1;
                    self.wait_for_key_frame(now);
                    return;
                }
            },
        };
        if self.ready.len() >= MAX_READY {
            self.ready.clear();
            self.stats.frames_dropped += 1;
            self.wait_for_key_frame(now);
            return;
        }
        self.stats.frames += 1;
        self.stats.key_frames += u64::from(key_frame);
        if let Some(freeze) = self.rhythm.frame(now) {
            self.stats.freezes += 1;
            self.stats.freeze_ms += freeze.as_millis() as u64;
        }
        self.ready.push_back(EncodedFrame {
            codec: self.config.codec,
            data,
            rtp_timestamp: packets.values().find(|slot| !slot.payload.is_empty()).map_or(0, |slot| slot.timestamp),
            key_frame,
            size,
            at: packets.values().map(|slot| slot.arrived).max().unwrap_or(now),
        });
    }
}

/// Intervals between frames, for freezes.
#[derive(Debug, Default)]
struct Rhythm {
    last: Option<Instant>,
    intervals: VecDeque<Duration>,
}

impl Rhythm {
    /// Takes a frame; gives the length of the freeze that it ended.
    fn frame(&mut self, now: Instant) -> Option<Duration> {
        let last = self.last.replace(now)?;
        let interval = now.saturating_duration_since(last);
        let count = u32::try_from(self.intervals.len()).unwrap_or(u32::MAX);
        let average = self.intervals.iter().sum::<Duration>().checked_div(count).unwrap_or_default();
        let freeze = count >= 5 && interval > (average * 3).max(average + Duration::from_millis(150));
        self.intervals.push_back(interval);
        if self.intervals.len() > 30 {
            self.intervals.pop_front();
        }
        freeze.then_some(interval)
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
