//! Adds what everybody says, and local sounds, to what the speaker plays.

use super::codec::OpusPacketDecoder;
use super::dsp::{rms, sine_dbfs};
use super::jitter::JitterBuffer;
use super::leveller::Leveller;
use super::meter::ClickDetector;
use super::stream::{StreamShared, lock};
use super::{AudioError, BLOCK_SAMPLES, Block, left_right, mid_side};
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
        self.process_wide(block, None);
    }

    /// As [`Self::process`], with half the difference of two channels: both are turned down alike.
    pub fn process_wide(&mut self, block: &mut Block, side: Option<&mut Block>) {
        let mut none = [0.0; BLOCK_SAMPLES];
        let wide = side.is_some();
        let side = side.unwrap_or(&mut none);
        // The louder one of left and right is |mid| + |side|.
        let peak = block.iter().zip(side.iter()).fold(0.0f32, |p, (m, s)| p.max(m.abs() + s.abs()));
        let wanted = if peak > CEILING { CEILING / peak } else { 1.0 };
        if self.gain >= 1.0 && wanted >= 1.0 {
            return;
        }
        let step = (wanted - self.gain) / ATTACK;
        for (mid, side) in block.iter_mut().zip(side.iter_mut()) {
            self.gain =
                if wanted < self.gain { (self.gain + step).max(wanted) } else { (self.gain * RELEASE).min(wanted) };
            if wide {
                let [left, right] = left_right([*mid * self.gain, *side * self.gain]);
                [*mid, *side] = mid_side(round_off(left), round_off(right));
            } else {
                *mid = round_off(*mid * self.gain);
            }
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
    /// Half the difference of the channels of the last block, and whether there is any.
    side: Block,
    wide: bool,
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
            side: [0.0; BLOCK_SAMPLES],
            wide: false,
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

    /// Its streams, for another mixer in its place.
    pub(crate) fn streams(&self) -> Vec<Arc<StreamShared>> {
        self.streams.iter().map(|s| Arc::clone(&s.shared)).collect()
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
            let some = !self.inbox.is_empty();
            for packet in self.inbox.drain(..) {
                let at = packet.at.saturating_duration_since(self.origin);
                stream.jitter.insert(packet.sequence, packet.rtp_timestamp, packet.data, at);
            }
            // What need not be played is counted all the same.
            if some && stream.jitter.is_idle() {
                lock(&stream.shared.figures).jitter = stream.jitter.stats();
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
        if std::mem::take(&mut self.wide) {
            self.side = [0.0; BLOCK_SAMPLES];
        }
        let since = now.saturating_duration_since(self.origin);
        for stream in &mut self.streams {
            stream.jitter.set_least_delay(stream.shared.least_delay_ms(now) as f32);
            if stream.jitter.is_idle() {
                stream.settle();
            } else {
                self.wide |= stream.play_into(&mut mix, &mut self.side, now, since, output_delay, self.levelling);
            }
        }
        self.add_sounds(&mut mix);
        self.limiter.process_wide(&mut mix, self.wide.then_some(&mut self.side));
        mix
    }

    /// Half the difference between left and right of the block that [`Self::mix`] gave last; `None` where both are the same.
    pub fn side(&self) -> Option<&Block> {
        self.wide.then_some(&self.side)
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

    /// Whether the channels of the stream differ: then half their difference went into `side`.
    fn play_into(
        &mut self,
        mix: &mut Block,
        side: &mut Block,
        now: Instant,
        since: Duration,
        output_delay: Duration,
        levelling: bool,
    ) -> bool {
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
        let Some(difference) = self.jitter.side() else { return false };
        for (i, (out, s)) in side.iter_mut().zip(difference).enumerate() {
            *out += s * (from + step * (i + 1) as f32);
        }
        true
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

    /// Left and right of music arrive apart, through stretching and the limiter as well, and one volume holds for both.
    #[test]
    fn two_channels_stay_apart() {
        use crate::media::audio::codec::{EncoderSettings, OpusPacketEncoder, PacketEncoder};
        use crate::media::audio::dsp::power_at;
        let origin = Instant::now();
        let mut mixer = Mixer::starting_at(origin);
        let shared = Arc::new(StreamShared::new(Arc::new(|| {})));
        let stream = crate::media::audio::PlayoutStream::new(Arc::clone(&shared));
        mixer.add(shared).unwrap();
        let settings = EncoderSettings::default().original_sound(true);
        assert!(settings.stereo && !settings.dtx && settings.bitrate_bps > 128_000);
        let mut encoder = OpusPacketEncoder::new(settings).unwrap();
        let (mut packet, mut left, mut right) = (vec![0; 1_500], Vec::new(), Vec::new());
        for number in 0..400u32 {
            let samples: Vec<f32> = (0..960u32)
                .flat_map(|i| {
                    let t = (number * 960 + i) as f32 / 48_000.0;
                    [440.0f32, 1_000.0].map(|hz| 0.3 * (std::f32::consts::TAU * hz * t).sin())
                })
                .collect();
            let n = encoder.encode(&samples, &mut packet).unwrap();
            // After two seconds every packet is 60 ms later: the length of the sound is changed.
            let late = if number < 100 { 0 } else { 60 };
            let at = origin + Duration::from_millis(u64::from(number) * 20 + late);
            let data = bytes::Bytes::copy_from_slice(&packet[..n]);
            stream.push(AudioPacket { sequence: number as u16, rtp_timestamp: number * 960, data, at });
            if number == 300 {
                stream.set_gain(0.5);
            }
            for half in 0..2u64 {
                let now = at + Duration::from_millis(10 * half);
                let mid = mixer.mix(now, Duration::ZERO);
                let side = mixer.side().copied().unwrap_or([0.0; BLOCK_SAMPLES]);
                for (m, s) in mid.iter().zip(&side) {
                    let [l, r] = left_right([*m, *s]);
                    left.push(l);
                    right.push(r);
                }
            }
        }
        // A sine of 0.3 has a power of 0.045.
        for (second, expected) in [(1, 0.045), (5, 0.045), (7, 0.045 / 4.0)] {
            // Short pieces: while the delay is steered the pitch is off by less than a hertz.
            let part = second * 48_000..second * 48_000 + 4_800;
            let power = |samples: &[f32], hz| power_at(&samples[part.clone()], hz, 48_000.0);
            let of = [power(&left, 440.0), power(&left, 1_000.0), power(&right, 440.0), power(&right, 1_000.0)];
            assert!(of[0] > expected * 0.7 && of[3] > expected * 0.7, "{second}: {of:?}");
            assert!(of[1] < expected * 0.01 && of[2] < expected * 0.01, "{second}: {of:?}");
        }
        let stats = stream.stats();
        assert!(stats.decelerated_ms > 10 || stats.accelerated_ms > 10, "{stats:?}");
        // Nothing is louder than full scale on either side.
        let mut limiter = Limiter::default();
        for _ in 0..20 {
            let mut mid: Block = std::array::from_fn(|i| (i as f32 * 0.05).sin());
            let mut side: Block = std::array::from_fn(|i| 0.9 * (i as f32 * 0.05).sin());
            limiter.process_wide(&mut mid, Some(&mut side));
            let loudest = mid.iter().zip(&side).fold(0.0f32, |p, (m, s)| p.max(m.abs() + s.abs()));
            assert!(loudest <= 1.0001, "{loudest}");
        }
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
