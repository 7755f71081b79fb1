//! One voice from several microphones: those that hear something, and not against each other.
//!
//! A device with many sockets has silence in most of them, and some have one of two turned over: the mean of all would be
//! far too quiet, or nothing. Choices are made every 10 ms from levels that fall slowly, and weights glide.

/// Frames between two choices.
const BLOCK: u32 = 480;
/// A channel counts from 20 dB below the loudest on ...
const JOINS: f32 = 0.01;
/// ... until it is 26 dB below it.
const LEAVES: f32 = 0.002_5;
/// Nothing is chosen by less than −90 dBFS.
const SILENCE: f32 = 1e-9;
/// How much of a rise, and of a fall, a block is believed: levels remember a word for seconds.
const RISE: f32 = 0.3;
const FALL: f32 = 0.004;
/// Channels whose mean is this much below them are against each other ...
const AGAINST: f32 = 0.03;
/// ... until it is as near as this.
const TOGETHER: f32 = 0.12;
/// Another channel takes over from the one that is heard alone when it is louder by 6 dB.
const LOUDER: f32 = 4.0;
/// Share of the way to its new weight that a channel goes in one frame: 50 ms.
const GLIDE: f32 = 1.0 / 2_400.0;

/// A mean square that rises at once and falls slowly.
#[derive(Debug, Clone, Copy, Default)]
struct Power {
    sum: f32,
    level: f32,
}

impl Power {
    fn add(&mut self, sample: f32) {
        self.sum += sample * sample;
    }

    fn end_block(&mut self) {
        let mean = std::mem::take(&mut self.sum) / BLOCK as f32;
        self.level += (mean - self.level) * if mean > self.level { RISE } else { FALL };
    }
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    power: Power,
    live: bool,
    weight: f32,
    wanted: f32,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct ChannelMix {
    channels: Vec<Channel>,
    /// Of the mean of the channels that count.
    mean: Power,
    /// The one that is heard alone, where they are against each other.
    alone: Option<usize>,
    frames: u32,
}

impl ChannelMix {
    pub(crate) fn new(channels: usize) -> Self {
        let weight = 1.0 / channels.max(1) as f32;
        let channel = Channel { power: Power::default(), live: true, weight, wanted: weight };
        Self { channels: vec![channel; channels], mean: Power::default(), alone: None, frames: 0 }
    }

    /// What is heard of one frame, in which each channel has its sample.
    pub(crate) fn mix(&mut self, frame: &[f32]) -> f32 {
        let (mut heard, mut sum, mut live) = (0.0, 0.0, 0.0f32);
        for (channel, sample) in self.channels.iter_mut().zip(frame) {
            channel.power.add(*sample);
            channel.weight += (channel.wanted - channel.weight) * GLIDE;
            heard += channel.weight * sample;
            if channel.live {
                sum += sample;
                live += 1.0;
            }
        }
        self.mean.add(sum / live.max(1.0));
        self.frames += 1;
        if self.frames >= BLOCK {
            self.frames = 0;
            self.choose();
        }
        heard
    }

    fn choose(&mut self) {
        self.mean.end_block();
        self.channels.iter_mut().for_each(|c| c.power.end_block());
        let loudest = self.channels.iter().map(|c| c.power.level).fold(0.0, f32::max);
        if loudest < SILENCE {
            return;
        }
        let before = self.live();
        for channel in &mut self.channels {
            channel.live = channel.power.level > loudest * if channel.live { LEAVES } else { JOINS };
        }
        let live = self.live();
        if live != before {
            // The mean is another one from now on: it is believed to agree until it is known.
            self.mean = Power { sum: 0.0, level: loudest };
            self.alone = None;
        }
        let levels = self.channels.iter().filter(|c| c.live).map(|c| c.power.level).sum::<f32>() / live.max(1) as f32;
        let limit = if self.alone.is_some() { TOGETHER } else { AGAINST };
        if live > 1 && self.mean.level < levels * limit {
            let level = |i: Option<usize>| i.and_then(|i| self.channels.get(i)).map_or(0.0, |c| c.power.level);
            if loudest > level(self.alone) * LOUDER {
                self.alone = self.channels.iter().position(|c| c.power.level >= loudest);
            }
        } else {
            self.alone = None;
        }
        let share = 1.0 / live.max(1) as f32;
        for (i, channel) in self.channels.iter_mut().enumerate() {
            channel.wanted = match self.alone {
                Some(alone) => f32::from(u8::from(i == alone)),
                None if channel.live => share,
                None => 0.0,
            };
        }
    }

    fn live(&self) -> usize {
        self.channels.iter().filter(|c| c.live).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Level of the last second against one channel alone, in dB.
    fn gain_db(gains: &[f32], seconds: u32) -> f32 {
        let mut mix = ChannelMix::new(gains.len());
        let (mut alone, mut heard) = (0.0, 0.0);
        for i in 0..seconds * 48_000 {
            let t = i as f32 / 48_000.0;
            // A voice with pauses.
            let voice = if ((t * 2.0) as u32).is_multiple_of(3) {
                0.0
            } else {
                0.1 * (t * 300.0 * std::f32::consts::TAU).sin()
            };
            let frame: Vec<f32> = gains.iter().map(|gain| gain * voice).collect();
            let out = mix.mix(&frame);
            if i >= (seconds - 3) * 48_000 {
                alone += voice * voice;
                heard += out * out;
            }
        }
        10.0 * (heard / alone).log10()
    }

    #[test]
    fn a_voice_is_as_loud_whichever_channels_hear_it() {
        for gains in [
            vec![1.0],
            vec![1.0, 1.0],
            vec![1.0, 0.0],
            vec![0.0, 1.0],
            vec![0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
            vec![1.0; 8],
            // Something of it in the wires of the others.
            vec![1.0, 0.01, 0.02, 0.01],
        ] {
            let db = gain_db(&gains, 8);
            assert!(db.abs() < 0.5, "{gains:?}: {db} dB");
        }
    }

    #[test]
    fn two_that_are_turned_against_each_other_are_one() {
        for gains in [vec![1.0, -1.0], vec![-1.0, 1.0], vec![1.0, -0.9]] {
            let db = gain_db(&gains, 12);
            assert!(db.abs() < 1.0, "{gains:?}: {db} dB");
        }
    }

    #[test]
    fn channels_of_their_own_are_all_heard() {
        // Two noises that have nothing to do with each other: no reason to drop either.
        let (mut mix, mut seed) = (ChannelMix::new(2), 1u32);
        let mut noise = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / 16_777_216.0 - 0.5
        };
        for _ in 0..5 * 48_000 {
            let frame = [noise(), noise()];
            mix.mix(&frame);
        }
        assert!(mix.channels.iter().all(|c| (c.weight - 0.5).abs() < 1e-3), "{mix:?}");
    }
}
