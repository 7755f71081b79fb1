//! Adaptive jitter buffer of one stream: packets in, 10 ms of sound out whenever asked. No clock, no thread.
//!
//! Delay is measured against the fastest packet of the last 3 s and steered to what 97 % of the packets need
//! ([`super::histogram`]). Small errors (clock drift) are worked off by playing up to 0.08 % faster or slower, larger
//! ones by taking out or putting in a period ([`super::stretch`]); after a pause the delay is simply set anew. What is
//! missing when its time has come is taken from the next packet's forward error correction, else concealed.

mod stats;

pub use stats::JitterStats;

use super::arrival::{Arrival, ArrivalTracker, ts_us};
use super::codec::PacketDecoder;
use super::stretch::{self, Urgency};
use super::{BLOCK_SAMPLES, Block, Frame};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Packets kept; when full the oldest is dropped, which is the one that is too late anyway.
const PACKET_LIMIT: usize = 150;
/// Late and duplicate detection reaches this many packets back.
const SEEN_LIMIT: usize = 512;
/// Concealed in one go before the stream counts as paused: 120 ms. Opus has faded out by then.
const CONCEAL_LIMIT: u64 = 5_760;
/// Delay beyond the target that is thrown away at once instead of being worked off, in ms: what came in a stall is heard faster,
/// and whole.
const SKIP_EXCESS_MS: f32 = 1_000.0;
/// Comfort noise goes on this long into a pause, in pulls: 1 s. Then plain silence.
const COMFORT_PULLS: u32 = 100;
/// Fade from comfort noise to silence and from silence to sound.
const PAST_SAMPLES: usize = 960;
/// Input samples that a pull can need beyond a block (rate ±0.08 % and the interpolator's neighbors).
const SPARE: usize = 4;
/// Weight of one packet in the loss that is remembered: half is forgotten after 3 s.
const LOSS_WEIGHT: f32 = 0.005;
/// Loss from which waiting for the repair pays.
const LOSS_FOR_REPAIR: f32 = 0.008;

struct Packet {
    timestamp: i64,
    data: bytes::Bytes,
}

/// What Opus makes of zeros (see [`super::codec::SILENT_PACKET`]), mono or stereo, of any CELT duration.
fn is_digital_silence(packet: &[u8]) -> bool {
    matches!(packet, [toc, 0xff, 0xfe] if toc & 0x80 != 0)
}

/// See the module's text.
pub struct JitterBuffer {
    decoder: Box<dyn PacketDecoder>,
    arrivals: ArrivalTracker,
    packets: BTreeMap<i64, Packet>,
    seen: VecDeque<i64>,
    /// Sequence number of the next packet to decode, once playing.
    next_sequence: Option<i64>,
    /// Timestamp right behind what is decoded.
    next_timestamp: i64,
    pcm: VecDeque<Frame>,
    past: VecDeque<Frame>,
    scratch: Vec<Frame>,
    /// The mean of both channels where a period is looked for.
    mids: Vec<f32>,
    /// Whether the channels of the last block differ.
    wide: bool,
    side: Block,
    /// Between talk spurts: nothing is expected, and the next packet sets the delay anew.
    quiet: bool,
    quiet_pulls: u32,
    digital_silence: bool,
    /// Concealed without the timestamp having moved on.
    expanded: u64,
    /// Duration of the last packet, in samples.
    packet_samples: i64,
    expected_active: bool,
    /// The delay that the stream's picture needs, in ms.
    least_ms: f32,
    /// Share of packets lost of late.
    loss: f32,
    delay_ms: Option<f32>,
    pulls_since_stretch: u32,
    fraction: f64,
    stats: JitterStats,
}

impl JitterBuffer {
    /// An empty buffer in front of `decoder`.
    pub fn new(decoder: Box<dyn PacketDecoder>) -> Self {
        Self {
            decoder,
            arrivals: ArrivalTracker::default(),
            packets: BTreeMap::new(),
            seen: VecDeque::new(),
            next_sequence: None,
            next_timestamp: 0,
            pcm: VecDeque::new(),
            past: VecDeque::from(vec![[0.0; 2]; PAST_SAMPLES]),
            scratch: Vec::new(),
            mids: Vec::new(),
            wide: false,
            side: [0.0; BLOCK_SAMPLES],
            quiet: true,
            quiet_pulls: COMFORT_PULLS,
            digital_silence: true,
            expanded: 0,
            packet_samples: 960,
            expected_active: true,
            least_ms: 0.0,
            loss: 0.0,
            delay_ms: None,
            pulls_since_stretch: 0,
            fraction: 0.0,
            stats: JitterStats::default(),
        }
    }

    /// Says whether the sender announced an open microphone: with a closed one, missing packets are a pause at once.
    pub fn set_expected_active(&mut self, active: bool) {
        self.expected_active = active;
    }

    /// Keeps the delay at this at least, however quiet the line.
    pub fn set_least_delay(&mut self, ms: f32) {
        self.least_ms = ms;
    }

    /// Takes a packet that arrived `at` (since any fixed origin). Duplicates, late ones and strays are counted and dropped.
    pub fn insert(&mut self, sequence: u16, timestamp: u32, data: bytes::Bytes, at: Duration) {
        let (sequence, timestamp) = match self.arrivals.arrive(sequence, timestamp, at.as_micros() as i64) {
            Arrival::Place(s, t) => (s, t),
            Arrival::Restart(s, t) => {
                self.restart();
                (s, t)
            }
            Arrival::Stray => return,
        };
        if self.seen.contains(&sequence) {
            self.stats.packets_duplicate += 1;
            return;
        }
        if self.seen.len() >= SEEN_LIMIT {
            self.seen.pop_front();
        }
        self.seen.push_back(sequence);
        self.stats.packets += 1;
        self.stats.bytes += data.len() as u64;
        if self.next_sequence.is_some_and(|next| sequence < next) {
            self.stats.packets_late += 1;
            return;
        }
        let silent_already = self.is_idle() && self.digital_silence && self.next_sequence == Some(sequence);
        if silent_already && is_digital_silence(&data) {
            // A muted sender keeps the path alive with silence: that is no reason to wake up and play it.
            self.loss -= LOSS_WEIGHT * self.loss;
            self.next_sequence = Some(sequence + 1);
            self.next_timestamp = timestamp + self.packet_samples;
            return;
        }
        self.packets.insert(sequence, Packet { timestamp, data });
        while self.packets.len() > PACKET_LIMIT {
            self.packets.pop_first();
            if let (Some(next), Some((first, packet))) = (self.next_sequence.as_mut(), self.packets.first_key_value())
                && *first > *next
            {
                self.stats.accelerated_samples += (packet.timestamp - self.next_timestamp).clamp(0, 48_000) as u64;
                *next = *first;
                self.next_timestamp = packet.timestamp;
            }
        }
    }

    fn restart(&mut self) {
        self.packets.clear();
        self.seen.clear();
        self.next_sequence = None;
        self.delay_ms = None;
        self.expanded = 0;
        self.quiet = true;
        self.decoder.reset();
    }

    /// Nothing to hear and nothing waiting: need not be pulled.
    pub fn is_idle(&self) -> bool {
        self.packets.is_empty() && self.quiet && self.quiet_pulls >= COMFORT_PULLS
    }

    /// Whether the stream plays sound now, as opposed to waiting for its first or next talk spurt.
    pub fn is_playing(&self) -> bool {
        !self.quiet
    }

    /// RTP timestamp of the next sample that [`Self::pull`] returns; `None` before the first packet was played.
    pub fn position(&self) -> Option<u32> {
        self.next_sequence.map(|_| (self.next_timestamp - self.pcm.len() as i64) as u32)
    }

    /// Figures so far.
    pub fn stats(&self) -> JitterStats {
        JitterStats { jitter_ms: self.arrivals.jitter_ms(), target_delay_ms: self.target_ms(), ..self.stats }
    }

    /// Half the difference between the channels of the block that [`Self::pull`] gave last; `None` where both are the same.
    pub fn side(&self) -> Option<&Block> {
        self.wide.then_some(&self.side)
    }

    /// Gives the next 10 ms, the mean of both channels, to be heard from `now` on (same origin as arrivals).
    pub fn pull(&mut self, now: Duration) -> Block {
        let now_us = now.as_micros() as i64;
        self.pulls_since_stretch = self.pulls_since_stretch.saturating_add(1);
        self.fill(BLOCK_SAMPLES, now_us);
        let mut rate = 1.0;
        if !self.quiet {
            rate = self.steer(now_us);
            // The packet behind this block may still be on its way, and is not due yet.
            if !self.fill_ahead(BLOCK_SAMPLES + SPARE) {
                rate = rate.min(1.0);
            }
        }
        self.emit(rate)
    }

    /// Delay to aim at: what jitter needs, and while packets get lost one packet more, because the repair of a lost one
    /// travels in its successor; or what the picture needs, where that is more.
    fn target_ms(&self) -> f32 {
        let repair = if self.loss > LOSS_FOR_REPAIR { self.packet_samples.clamp(0, 1_920) as f32 / 48.0 } else { 0.0 };
        (self.arrivals.target_ms() + repair).max(self.least_ms)
    }

    /// Delay of the sample at the front of `pcm` if it were heard at `now_us`, in ms.
    fn front_delay_ms(&self, now_us: i64) -> f32 {
        let front = self.next_timestamp - self.pcm.len() as i64 + self.expanded as i64;
        (now_us - ts_us(front) - self.arrivals.base_us()) as f32 / 1_000.0
    }

    /// Measures the delay and changes it where needed; returns the playing speed.
    fn steer(&mut self, now_us: i64) -> f64 {
        let raw = self.front_delay_ms(now_us);
        let target = self.target_ms();
        let mut delay = self.delay_ms.map_or(raw, |d| d + 0.05 * (raw - d));
        if raw - target > SKIP_EXCESS_MS && self.skip_to(now_us, target) {
            self.delay_ms = None;
            return 1.0;
        }
        let excess = delay - target;
        if excess > 4.0 && raw > target {
            let (urgency, pause) = match excess {
                e if e > 60.0 => (Urgency::High, 3),
                e if e > 14.0 => (Urgency::Normal, 5),
                _ => (Urgency::OnlyQuiet, 5),
            };
            if self.pulls_since_stretch >= pause && self.fill_ahead(stretch::ACCELERATE_NEEDS) {
                self.mids.clear();
                self.mids.extend(self.pcm.iter().take(stretch::ACCELERATE_NEEDS).map(|[mid, _]| mid));
                if let Some(removed) = stretch::accelerate(&self.mids, urgency, (excess * 48.0) as usize) {
                    let (now, later) = (self.pcm.iter().copied(), self.pcm.iter().skip(removed).copied());
                    self.scratch.clear();
                    self.scratch.extend(stretch::crossfade(now, later, removed));
                    self.pcm.drain(..2 * removed);
                    for frame in self.scratch.iter().rev() {
                        self.pcm.push_front(*frame);
                    }
                    self.stats.accelerated_samples += removed as u64;
                    self.pulls_since_stretch = 0;
                    delay -= removed as f32 / 48.0;
                }
            }
        } else if excess < -4.0 && raw < target {
            let (urgency, pause) = match excess {
                e if e < -40.0 => (Urgency::High, 2),
                e if e < -12.0 => (Urgency::Normal, 4),
                _ => (Urgency::OnlyQuiet, 5),
            };
            if self.pulls_since_stretch >= pause && self.pcm.len() >= stretch::DECELERATE_NEEDS {
                self.mids.clear();
                self.mids.extend(self.past.iter().map(|[mid, _]| mid));
                self.mids.extend(self.pcm.iter().take(stretch::DECELERATE_NEEDS).map(|[mid, _]| mid));
                let (past, future) = self.mids.split_at(self.past.len());
                if let Some(added) = stretch::decelerate(past, future, urgency, (-excess * 48.0) as usize) {
                    let again = self.past.iter().skip(self.past.len().saturating_sub(added)).copied();
                    self.scratch.clear();
                    self.scratch.extend(stretch::crossfade(self.pcm.iter().copied(), again, added));
                    for frame in self.scratch.iter().rev() {
                        self.pcm.push_front(*frame);
                    }
                    self.stats.decelerated_samples += added as u64;
                    self.pulls_since_stretch = 0;
                    delay += added as f32 / 48.0;
                }
            }
        }
        self.delay_ms = Some(delay);
        // Stays readable through pauses.
        self.stats.playout_delay_ms = delay;
        1.0 + f64::from((delay - target) * 4e-4).clamp(-8e-4, 8e-4)
    }

    /// Jumps over what is hopelessly late: to the first packet whose delay is near the target.
    fn skip_to(&mut self, now_us: i64, target: f32) -> bool {
        let base = self.arrivals.base_us();
        let late = |p: &Packet| (now_us - ts_us(p.timestamp) - base) as f32 / 1_000.0 > target + 20.0;
        let Some((sequence, timestamp)) = self.packets.iter().find(|(_, p)| !late(p)).map(|(s, p)| (*s, p.timestamp))
        else {
            return false;
        };
        self.packets = self.packets.split_off(&sequence);
        self.stats.accelerated_samples += (timestamp - self.next_timestamp).clamp(0, 480_000) as u64;
        self.next_sequence = Some(sequence);
        self.next_timestamp = timestamp;
        self.expanded = 0;
        // Keeps 5 ms of what was there, faded out under the first 5 ms of what follows.
        let tail: Vec<Frame> = self.pcm.iter().take(240).copied().collect();
        self.pcm.clear();
        self.fill(BLOCK_SAMPLES, now_us);
        let n = tail.len().max(1) as f32;
        for (i, (new, old)) in self.pcm.iter_mut().zip(&tail).enumerate() {
            let w = i as f32 / n;
            *new = [new[0] * w + old[0] * (1.0 - w), new[1] * w + old[1] * (1.0 - w)];
        }
        true
    }

    /// Decodes packets that are there in order until `samples` are ready; never conceals.
    fn fill_ahead(&mut self, samples: usize) -> bool {
        while self.pcm.len() < samples {
            let Some(next) = self.next_sequence else { return false };
            let contiguous =
                self.packets.get(&next).is_some_and(|p| p.timestamp - self.next_timestamp <= 0 && p.data.len() > 2);
            if !contiguous {
                return false;
            }
            self.decode_first();
        }
        true
    }

    fn fill(&mut self, samples: usize, now_us: i64) {
        // Each round adds at least 2.5 ms, so this ends; the bound is for packets that decode to nothing.
        for _ in 0..256 {
            if self.pcm.len() >= samples {
                return;
            }
            self.advance(now_us);
        }
        self.pcm.resize(samples.max(self.pcm.len()), [0.0; 2]);
    }

    /// Adds the next piece of sound, wherever it comes from.
    fn advance(&mut self, now_us: i64) {
        let Some((sequence, timestamp)) = self.packets.first_key_value().map(|(s, p)| (*s, p.timestamp)) else {
            self.underrun();
            return;
        };
        // The moment at which the packet's first sample would be heard, against its fastest possible arrival.
        let heard_us = now_us + ts_us(self.pcm.len() as i64);
        let delay_ms = (heard_us - ts_us(timestamp) - self.arrivals.base_us()) as f32 / 1_000.0;
        let due = delay_ms + 5.0 >= self.target_ms();
        let Some(next) = self.next_sequence else {
            if due {
                self.begin_spurt(sequence, timestamp);
            } else {
                self.pause();
            }
            return;
        };
        let gap = timestamp - self.next_timestamp;
        if self.quiet {
            if due {
                self.count_lost(sequence - next);
                self.begin_spurt(sequence, timestamp);
            } else {
                self.pause();
            }
        } else if sequence <= next {
            if gap > 0 {
                // The sender paused without saying so.
                self.pause();
            } else {
                self.decode_first();
            }
        } else {
            self.bridge(sequence - next, gap, sequence);
        }
    }

    /// Starts decoding at the first waiting packet; the delay is what it is now.
    fn begin_spurt(&mut self, sequence: i64, timestamp: i64) {
        self.next_sequence = Some(sequence);
        self.next_timestamp = timestamp;
        self.expanded = 0;
        self.delay_ms = None;
        self.decode_first();
    }

    fn count_lost(&mut self, packets: i64) {
        let packets = packets.clamp(0, 1_000_000);
        self.stats.packets_lost += packets as u64;
        self.loss = (self.loss + LOSS_WEIGHT * packets.min(5) as f32).min(1.0);
    }

    /// `missing` packets, `gap` samples, in front of the packet `sequence` that is already here.
    fn bridge(&mut self, missing: i64, gap: i64, sequence: i64) {
        // What was concealed while nothing was there covers the beginning of the gap.
        let covered = (self.expanded as i64).min(gap.max(0));
        self.expanded -= covered as u64;
        self.next_timestamp += covered;
        let remaining = gap - covered;
        if remaining <= 0 || remaining > 48_000 * 5 {
            self.count_lost(missing);
            self.next_sequence = Some(sequence);
            if remaining > 0 {
                self.pause();
            } else {
                self.expanded = 0;
                self.decode_first();
            }
            return;
        }
        let fec = remaining <= self.packet_samples.max(960)
            && self.packets.get(&sequence).is_some_and(|p| self.decoder.has_fec(&p.data));
        if fec {
            let samples = (remaining as usize).div_ceil(120) * 120;
            self.scratch.clear();
            let decoded = match self.packets.get(&sequence) {
                Some(p) => self.decoder.decode(&p.data, true, samples, &mut self.scratch),
                None => Ok(0),
            };
            if let Ok(n @ 1..) = decoded {
                self.pcm.extend(self.scratch.iter().take(n));
                self.stats.fec_samples += n as u64;
                self.next_timestamp += remaining;
                self.count_lost(missing);
                self.next_sequence = Some(sequence);
                return;
            }
        }
        let samples = (remaining as usize).min(BLOCK_SAMPLES).div_ceil(120) * 120;
        self.conceal(samples);
        self.stats.concealed_samples += samples as u64;
        self.next_timestamp += (samples as i64).min(remaining);
    }

    /// Nothing is waiting.
    fn underrun(&mut self) {
        if self.quiet || self.next_sequence.is_none() || !self.expected_active || self.expanded >= CONCEAL_LIMIT {
            self.pause();
            return;
        }
        let missing = BLOCK_SAMPLES.saturating_sub(self.pcm.len());
        let samples = self.repeat_period(missing).unwrap_or_else(|| {
            let samples = missing.div_ceil(120) * 120;
            self.conceal(samples);
            samples
        });
        self.expanded += samples as u64;
        self.stats.concealed_samples += samples as u64;
    }

    /// Plays the last period once more, for a packet that may only be some milliseconds late: the decoder goes on then as if
    /// nothing had happened. How many samples that made; `None` where it would be heard, or has been done.
    fn repeat_period(&mut self, missing: usize) -> Option<usize> {
        if self.expanded > 0 {
            return None;
        }
        let played = || self.past.iter().chain(&self.pcm);
        self.mids.clear();
        self.mids.extend(played().map(|[mid, _]| mid));
        let lag = stretch::last_period(&self.mids, missing)?;
        self.scratch.clear();
        self.scratch.extend(played().skip(self.mids.len().saturating_sub(lag)));
        let times = missing.div_ceil(lag.max(1));
        for _ in 0..times {
            self.pcm.extend(&self.scratch);
        }
        Some(times * lag)
    }

    /// 10 ms between talk spurts.
    fn pause(&mut self) {
        if !self.quiet {
            self.quiet = true;
            self.quiet_pulls = 0;
            self.delay_ms = None;
        }
        self.quiet_pulls = self.quiet_pulls.saturating_add(1);
        if self.digital_silence || self.quiet_pulls > COMFORT_PULLS || self.next_sequence.is_none() {
            self.pcm.extend(std::iter::repeat_n([0.0; 2], BLOCK_SAMPLES));
        } else {
            self.conceal(BLOCK_SAMPLES);
        }
    }

    fn conceal(&mut self, samples: usize) {
        self.scratch.clear();
        self.decoder.conceal(samples, &mut self.scratch);
        self.pcm.extend(self.scratch.iter().take(samples));
    }

    /// Decodes the first waiting packet behind what is there.
    fn decode_first(&mut self) {
        let Some((sequence, packet)) = self.packets.pop_first() else { return };
        // After concealment that had to give up on it, a packet may overlap what was already played.
        let overlap = (self.next_timestamp - packet.timestamp).clamp(0, 5_760) as usize;
        self.next_sequence = Some(sequence + 1);
        self.scratch.clear();
        let silence = is_digital_silence(&packet.data);
        let spurt_ends = packet.data.len() <= 2 || silence;
        let decoded = if packet.data.is_empty() {
            self.decoder.conceal(960, &mut self.scratch);
            960
        } else {
            match self.decoder.decode(&packet.data, false, 0, &mut self.scratch) {
                Ok(n) => n,
                Err(error) => {
                    tracing::debug!(error, "undecodable opus packet");
                    self.decoder.conceal(960, &mut self.scratch);
                    self.stats.concealed_samples += 960;
                    960
                }
            }
        };
        self.packet_samples = decoded as i64;
        self.loss -= LOSS_WEIGHT * self.loss;
        self.pcm.extend(self.scratch.iter().skip(overlap.min(decoded)));
        self.next_timestamp = self.next_timestamp.max(packet.timestamp + decoded as i64);
        self.expanded = 0;
        if spurt_ends {
            self.digital_silence = silence;
            if !self.quiet {
                self.quiet_pulls = 0;
                self.delay_ms = None;
            }
            self.quiet = true;
        } else {
            self.quiet = false;
            self.digital_silence = false;
        }
    }

    /// Plays one block at `rate`, by cubic interpolation between samples when the rate is not 1.
    fn emit(&mut self, rate: f64) -> Block {
        let mut block = [0.0; BLOCK_SAMPLES];
        self.wide = false;
        let straight = self.quiet || ((rate - 1.0).abs() < 1e-4 && self.fraction == 0.0);
        if straight {
            self.fraction = 0.0;
        }
        // Behind what is there, the last sample stands for what comes.
        let at = |pcm: &VecDeque<Frame>, i: usize| pcm.get(i).or(pcm.back()).copied().unwrap_or_default();
        for (mid, side) in block.iter_mut().zip(&mut self.side) {
            if straight {
                let frame = self.pcm.pop_front().unwrap_or_default();
                [*mid, *side] = frame;
                self.past.push_back(frame);
            } else {
                let around = [
                    self.past.back().copied().unwrap_or_default(),
                    at(&self.pcm, 0),
                    at(&self.pcm, 1),
                    at(&self.pcm, 2),
                ];
                let t = self.fraction as f32;
                *mid = cubic(around.map(|[mid, _]| mid), t);
                *side = cubic(around.map(|[_, side]| side), t);
                self.fraction += rate;
                while self.fraction >= 1.0 {
                    self.fraction -= 1.0;
                    self.past.push_back(self.pcm.pop_front().unwrap_or_default());
                }
            }
            self.wide |= *side != 0.0;
        }
        let surplus = self.past.len().saturating_sub(PAST_SAMPLES);
        self.past.drain(..surplus);
        block
    }
}

/// Between the second and the third of four samples.
fn cubic([p0, p1, p2, p3]: [f32; 4], t: f32) -> f32 {
    p1 + 0.5 * t * (p2 - p0 + t * (2.0 * p0 - 5.0 * p1 + 4.0 * p2 - p3 + t * (3.0 * (p1 - p2) + p3 - p0)))
}

#[cfg(test)]
mod tests;
