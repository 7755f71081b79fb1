//! How much of an echo is gone, and what becomes of the near end (F18).

use super::Speech;
use crate::media::audio::dsp::rms;
use crate::media::audio::processing::{CaptureProcessor, Stages, VoiceProcessor};
use crate::media::audio::{BLOCK_SAMPLES, Block};
use std::collections::VecDeque;

/// Direct path from loudspeaker to microphone, in samples: 60 ms.
const PATH: usize = 48 * 60;
/// Loudness of the direct path, and of the reflections of a room: how much later in ms, and how loud.
const DIRECT: f32 = 0.5;
const ROOM: [(usize, f32); 10] = [
    (4, 0.22),
    (9, -0.17),
    (15, 0.12),
    (23, -0.10),
    (34, 0.07),
    (47, 0.05),
    (61, -0.04),
    (78, 0.03),
    (97, -0.02),
    (120, 0.012),
];
/// Noise of the microphone, as a factor: −66 dBFS.
const NOISE: f32 = 0.000_6;

/// Figures of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EchoFigures {
    /// Echo gone in the first two seconds, from 2 to 5 s, and from 5 to 12 s, in dB.
    pub reduced_db: [f32; 3],
    /// Change of the near end when only that speaks, without the gain stage, in dB.
    pub near_end_db: f32,
}

/// The echo path of a room.
struct Room {
    past: VecDeque<f32>,
}

impl Room {
    fn new() -> Self {
        let longest = ROOM.iter().map(|(ms, _)| ms * 48).max().unwrap_or(0);
        Self { past: VecDeque::from(vec![0.0; PATH + longest + 1]) }
    }

    fn hear(&mut self, far: f32) -> f32 {
        self.past.pop_front();
        self.past.push_back(far);
        let newest = self.past.len() - 1;
        let at = |back: usize| self.past.get(newest.saturating_sub(back)).copied().unwrap_or(0.0);
        DIRECT * at(PATH) + ROOM.iter().map(|(ms, gain)| gain * at(PATH + ms * 48)).sum::<f32>()
    }
}

/// Runs twelve seconds of a far end alone, then ten of a near end alone.
pub fn echo(stages: Stages) -> EchoFigures {
    let mut processor = VoiceProcessor::new(stages);
    let (mut far_end, mut room) = (Speech::new(7), Room::new());
    let (mut hiss, mut hiss_seed) = (Speech::new(99), 1u32);
    let mut noise = move || {
        hiss_seed = hiss_seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        NOISE * ((hiss_seed >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    let mut heard = [0.0f64; 3];
    let mut left = [0.0f64; 3];
    for block in 0..1_200 {
        let far = far_end.next_block();
        processor.far_end(&far);
        let mut near: Block = std::array::from_fn(|i| far.get(i).map_or(0.0, |f| room.hear(*f)) + noise());
        let part = match block {
            0..200 => 0,
            200..500 => 1,
            _ => 2,
        };
        let square = |block: &Block| f64::from(rms(block)).powi(2);
        if let (Some(heard), Some(left)) = (heard.get_mut(part), left.get_mut(part)) {
            *heard += square(&near);
            processor.near_end(&mut near);
            *left += square(&near);
        }
    }
    let mut processor = VoiceProcessor::new(Stages { gain: false, ..stages });
    let (mut before, mut after) = (0.0f64, 0.0f64);
    for block in 0..1_000 {
        processor.far_end(&[0.0; BLOCK_SAMPLES]);
        let mut near = hiss.next_block();
        let square = f64::from(rms(&near)).powi(2);
        processor.near_end(&mut near);
        // The filters hold some milliseconds back, which a mean over seconds does not see.
        if block >= 200 {
            before += square;
            after += f64::from(rms(&near)).powi(2);
        }
    }
    let db = |a: f64, b: f64| (10.0 * (a / b.max(1e-15)).log10()) as f32;
    let mut reduced_db = [0.0; 3];
    for ((out, heard), left) in reduced_db.iter_mut().zip(heard).zip(left) {
        *out = db(heard, left);
    }
    EchoFigures { reduced_db, near_end_db: db(after, before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_gone_after_five_seconds_and_the_near_end_stays() {
        let all = echo(Stages::default());
        assert!(all.reduced_db[2] >= 40.0, "{all:?}");
        assert!(all.near_end_db.abs() <= 1.0, "{all:?}");
        // Each stage can be switched off: what it did is no longer done.
        let without = echo(Stages { echo: false, ..Stages::default() });
        assert!(without.reduced_db[2] < 20.0, "{without:?}");
    }
}
