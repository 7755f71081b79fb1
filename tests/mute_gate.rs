//! Mute is provable: through 10 000 random transitions the encoder gets no sample while the gate is closed, and later none
//! that was captured while it was closed. With the feature `mute-gate-off`, which compiles the gate out, this test fails.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};
use tertulia::media::audio::codec::{EncoderSettings, PacketEncoder};
use tertulia::media::audio::processing::{CaptureProcessor, PassThrough, Stages, VoiceProcessor};
use tertulia::media::audio::{BLOCK_SAMPLES, CapturePipeline, MuteGate};

/// Sees every sample that would be encoded.
struct Spy {
    gate: MuteGate,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    samples: u64,
    while_muted: u64,
    loudest: f32,
}

impl PacketEncoder for Spy {
    fn encode(&mut self, samples: &[f32], packet: &mut [u8]) -> Result<usize, String> {
        let mut seen = self.seen.lock().unwrap();
        seen.samples += samples.len() as u64;
        if self.gate.is_muted() {
            seen.while_muted += samples.len() as u64;
        }
        seen.loudest = samples.iter().fold(seen.loudest, |l, s| l.max(s.abs()));
        packet[..4].copy_from_slice(b"opus");
        Ok(4)
    }
    fn reset(&mut self) {}
    fn configure(&mut self, _settings: EncoderSettings) {}
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

fn ten_thousand_transitions(seed: u64, mut processor: impl FnMut() -> Box<dyn CaptureProcessor>, secret_limit: f32) {
    let gate = MuteGate::new(false);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let spy = Spy { gate: gate.clone(), seen: Arc::clone(&seen) };
    let mut pipeline = CapturePipeline::new(gate.clone(), Box::new(spy), 0xffff_0000);
    let mut stage = processor();
    let mut rng = Rng(seed);
    let (mut sending, mut device, mut wide) = (true, true, false);
    let mut silent_packets = 0;
    for _ in 0..10_000 {
        match rng.below(12) {
            0..=2 => gate.set_muted(true),
            3..=6 => gate.set_muted(false),
            7 => {
                // Another device: new processing, no memory of the old one.
                pipeline.source_changed();
                device = rng.below(2) == 0;
                stage = processor();
            }
            8 if rng.below(2) == 0 => {
                // Original sound with both channels, and back.
                wide = !wide;
                pipeline.configure(EncoderSettings { stereo: wide, ..EncoderSettings::default() });
            }
            8 => sending = false,
            9 | 10 => sending = true,
            // Unplugged, suspended, rejoined: time passes without samples.
            _ => pipeline.skip(480 * rng.below(300) as u32),
        }
        for _ in 0..rng.below(6) {
            // What is said while muted is loud, what is said unmuted is soft: a loud sample in the encoder is a leak.
            let muted = gate.is_muted();
            let loudness = if muted { 0.9 } else { 0.05 };
            // With two channels it is all on the left: half of it in their mean, half in their difference.
            let loudness = if wide { loudness / 2.0 } else { loudness };
            let block: [f32; BLOCK_SAMPLES] = std::array::from_fn(|i| loudness * (i as f32 * 0.13).sin());
            let side = wide.then_some(&block);
            let before = seen.lock().unwrap().samples;
            let now = std::time::Instant::now();
            let step = pipeline.push_wide(block, side, stage.as_mut(), device, sending, now);
            if muted {
                assert_eq!(seen.lock().unwrap().samples, before, "the encoder got samples while muted");
                if let Some(packet) = step.packet {
                    assert_eq!(packet.data.as_ref(), tertulia::media::audio::codec::SILENT_PACKET);
                    silent_packets += 1;
                }
            }
        }
    }
    let seen = seen.lock().unwrap();
    assert!(seen.samples > 500_000, "the test must encode something: {}", seen.samples);
    assert!(silent_packets > 100);
    assert_eq!(seen.while_muted, 0);
    assert!(seen.loudest < secret_limit, "a sample captured while muted was encoded later: {}", seen.loudest);
}

#[test]
fn no_sample_passes_the_closed_gate() {
    for seed in [1, 42, 0x5eed_5eed] {
        ten_thousand_transitions(seed, || Box::new(PassThrough), 0.06);
    }
}

/// The filters of echo canceller and noise suppressor hold some milliseconds back: these may not leak either.
#[test]
fn no_sample_held_in_the_processing_leaks_after_opening() {
    let stages = Stages { gain: false, ..Stages::default() };
    ten_thousand_transitions(7, || Box::new(VoiceProcessor::new(stages)), 0.12);
}
