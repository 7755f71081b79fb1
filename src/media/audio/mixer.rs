//! Adds what everybody says, and local sounds, to what the speaker plays.

use super::codec::OpusPacketDecoder;
use super::dsp::{rms, sine_dbfs};
use super::jitter::JitterBuffer;
use super::leveller::Leveller;
use super::meter::ClickDetector;
use super::stream::{StreamShared, lock};
use super::{AudioError, BLOCK_SAMPLES, Block};
use crate::rtp::frame::AudioPacket;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The limiter begins to work above this (−1 dBFS).
const CEILING: f32 = 0.891;
/// Recovery of the limiter per sample: about 200 ms for 10 dB.
const RELEASE: f32 = 1.000_12;
/// Samples in which the limiter goes down: 1 ms.
const ATTACK: f32 = 48.0;
/// Level figures cover this many blocks: 100 ms.
const LEVEL_BLOCKS: u32 = 10;
/// The delay is noted for the report once in so many blocks: 5 s.
const HISTORY_BLOCKS: u32 = 500;

/// Soft limiter: turns down within a millisecond, comes back slowly, and rounds off what is left above the ceiling.
/// Below the ceiling it changes nothing.
#[derive(Debug, Clone)]
pub struct Limiter {
    gain: f32,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { gain: 1.0 }
    }
}

impl Limiter {
    /// Limits a block in place; nothing leaves above 1.0.
    pub fn process(&mut self, block: &mut Block) {
        let peak = block.iter().fold(0.0f32, |p, s| p.max(s.abs()));
        let wanted = if peak > CEILING { CEILING / peak } else { 1.0 };
        if self.gain >= 1.0 && wanted >= 1.0 {
            return;
        }
        let step = (wanted - self.gain) / ATTACK;
        for sample in block.iter_mut() {
            self.gain =
                if wanted < self.gain { (self.gain + step).max(wanted) } else { (self.gain * RELEASE).min(wanted) };
            *sample = round_off(*sample * self.gain);
        }
    }
}

/// Linear to the ceiling, then bending towards 1.
fn round_off(x: f32) -> f32 {
    let over = x.abs() - CEILING;
    if over <= 0.0 {
        return x;
    }
    let room = 1.0 - CEILING;
    (CEILING + room * (over / room).tanh()).copysign(x)
}

struct Playing {
    shared: Arc<StreamShared>,
    jitter: JitterBuffer,
    gain: f32,
    leveller: Leveller,
    click: ClickDetector,
    power: f32,
    blocks: u32,
    /// Blocks until the delay is noted for the report.
    until_history: u32,
}

/// Playout of one call: the streams, the sounds, the limiter.
pub struct Mixer {
    origin: Instant,
    streams: Vec<Playing>,
    sounds: VecDeque<(Arc<[f32]>, usize)>,
    limiter: Limiter,
    inbox: Vec<AudioPacket>,
    levelling: bool,
}

impl Mixer {
    /// An empty mixer.
    pub fn new() -> Self {
        Self::starting_at(Instant::now())
    }

    /// An empty mixer for a time of the caller's own; nothing comes before `origin`.
    pub(crate) fn starting_at(origin: Instant) -> Self {
        Self {
            origin,
            streams: Vec::new(),
            sounds: VecDeque::new(),
            limiter: Limiter::default(),
            inbox: Vec::new(),
            levelling: false,
        }
    }

    /// Says whether people are brought near to one loudness.
    pub fn set_levelling(&mut self, on: bool) {
        if !std::mem::replace(&mut self.levelling, on) {
            for stream in &mut self.streams {
                stream.leveller = Leveller::default();
            }
        }
    }

    /// Takes in a stream.
    ///
    /// # Errors
    /// [`AudioError::Codec`].
    pub(crate) fn add(&mut self, shared: Arc<StreamShared>) -> Result<(), AudioError> {
        let jitter = JitterBuffer::new(Box::new(OpusPacketDecoder::new()?));
        let gain = shared.gain();
        self.streams.push(Playing {
            shared,
            jitter,
            gain,
            leveller: Leveller::default(),
            click: ClickDetector::default(),
            power: 0.0,
            blocks: 0,
            until_history: HISTORY_BLOCKS,
        });
        Ok(())
    }

    /// Plays a local sound once.
    pub fn play(&mut self, samples: Arc<[f32]>) {
        self.sounds.push_back((samples, 0));
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Moves arrived packets into the jitter buffers and forgets closed streams.
    pub fn collect(&mut self) {
        self.streams.retain(|s| !s.shared.is_closed());
        for stream in &mut self.streams {
            stream.shared.take_packets(&mut self.inbox);
            stream.jitter.set_expected_active(stream.shared.expected_active());
            for packet in self.inbox.drain(..) {
                let at = packet.at.saturating_duration_since(self.origin);
                stream.jitter.insert(packet.sequence, packet.rtp_timestamp, packet.data, at);
            }
        }
    }

    /// Whether a block would be silence and mixing can wait for the next packet or sound. Call [`Self::collect`] before.
    pub fn is_idle(&self) -> bool {
        self.sounds.is_empty() && self.streams.iter().all(|s| s.jitter.is_idle())
    }

    /// The next 10 ms, heard `output_delay` after `now`.
    pub fn mix(&mut self, now: Instant, output_delay: Duration) -> Block {
        self.collect();
        let mut mix = [0.0; BLOCK_SAMPLES];
        let since = now.saturating_duration_since(self.origin);
        for stream in &mut self.streams {
            if stream.jitter.is_idle() {
                stream.settle();
            } else {
                stream.play_into(&mut mix, now, since, output_delay, self.levelling);
            }
        }
        self.add_sounds(&mut mix);
        self.limiter.process(&mut mix);
        mix
    }

    fn add_sounds(&mut self, mix: &mut Block) {
        for (samples, position) in &mut self.sounds {
            let part = samples.get(*position..).unwrap_or_default();
            for (out, s) in mix.iter_mut().zip(part) {
                *out += s;
            }
            *position += BLOCK_SAMPLES;
        }
        self.sounds.retain(|(samples, position)| *position < samples.len());
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self::new()
    }
}

impl Playing {
    /// A stream that is not pulled shows silence.
    fn settle(&mut self) {
        if self.blocks != u32::MAX {
            self.blocks = u32::MAX;
            self.shared.set_level(-120.0);
            let mut figures = lock(&self.shared.figures);
            figures.level_dbfs = figures.level_dbfs.map(|_| -120.0);
            figures.tone = super::meter::ToneMeter::new();
            figures.jitter = self.jitter.stats();
        }
    }

    fn play_into(&mut self, mix: &mut Block, now: Instant, since: Duration, output_delay: Duration, levelling: bool) {
        if self.blocks == u32::MAX {
            self.blocks = 0;
            self.power = 0.0;
        }
        let position = self.jitter.position();
        let block = self.jitter.pull(since);
        let heard_at = now.checked_add(output_delay).unwrap_or(now);
        let level = rms(&block);
        self.shared.set_level(sine_dbfs(level));
        self.power += level * level;
        self.blocks += 1;
        let clicked = self.click.push(&block);
        {
            let mut figures = lock(&self.shared.figures);
            figures.tone.push(&block);
            figures.jitter = self.jitter.stats();
            self.until_history -= 1;
            if self.until_history == 0 {
                self.until_history = HISTORY_BLOCKS;
                figures.note_delay();
            }
            if let (Some(position), true) = (position, self.jitter.is_playing()) {
                figures.anchor = Some((position, heard_at));
                figures.first_played_at.get_or_insert(heard_at);
            }
            if clicked {
                figures.last_click_at = Some(heard_at);
            }
            if self.blocks >= LEVEL_BLOCKS {
                figures.level_dbfs = Some(sine_dbfs((self.power / self.blocks as f32).sqrt()));
            }
        }
        if self.blocks >= LEVEL_BLOCKS {
            self.blocks = 0;
            self.power = 0.0;
        }
        // The gain is ramped over the block, so that a slider never clicks.
        let level = if levelling { self.leveller.factor(level) } else { 1.0 };
        let (from, to) = (self.gain, self.shared.gain() * level);
        self.gain = to;
        let step = (to - from) / BLOCK_SAMPLES as f32;
        for (i, (out, s)) in mix.iter_mut().zip(&block).enumerate() {
            *out += s * (from + step * (i + 1) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limiter_leaves_soft_sound_alone_and_holds_loud_sound() {
        let mut limiter = Limiter::default();
        let soft: Block = std::array::from_fn(|i| 0.5 * (i as f32 * 0.05).sin());
        let mut block = soft;
        limiter.process(&mut block);
        assert_eq!(block, soft);
        let mut largest: f32 = 0.0;
        for k in 0..50 {
            let mut loud: Block = std::array::from_fn(|i| 4.0 * ((k * 480 + i) as f32 * 0.05).sin());
            limiter.process(&mut loud);
            largest = largest.max(loud.iter().fold(0.0, |p: f32, s| p.max(s.abs())));
            if k > 1 {
                assert!(rms(&loud) > 0.4);
            }
        }
        assert!(largest <= 1.0, "{largest}");
        // It lets go again: after a second of soft sound nothing is changed any more.
        for _ in 0..200 {
            block = soft;
            limiter.process(&mut block);
        }
        assert_eq!(block, soft);
    }

    #[test]
    fn local_sounds_are_mixed_and_end() {
        let mut mixer = Mixer::new();
        assert!(mixer.is_idle());
        mixer.play(vec![0.25; 700].into());
        assert!(!mixer.is_idle());
        let first = mixer.mix(Instant::now(), Duration::ZERO);
        assert!(first.iter().all(|s| *s == 0.25));
        let second = mixer.mix(Instant::now(), Duration::ZERO);
        assert_eq!(second.iter().filter(|s| **s == 0.25).count(), 220);
        assert!(mixer.is_idle());
    }
}
