//! Mute is provable: through 10 000 random transitions the encoder gets no sample while the gate is closed, and later none
//! that was captured while it was closed; through 10 000 more of a running engine nothing but silence leaves it; and a muted
//! camera is a closed device, whatever happens to it. With the feature `mute-gate-off`, which compiles the gate out, the tests
//! of sound fail. `e2e_camera.rs` does the same to a whole call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fakecam/mod.rs"]
mod fakecam;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tertulia::media::audio::codec::{EncoderSettings, PacketEncoder, SILENT_PACKET};
use tertulia::media::audio::processing::{CaptureProcessor, PassThrough, Stages, VoiceProcessor};
use tertulia::media::audio::{
    AudioConfig, AudioEngine, BLOCK_SAMPLES, CapturePipeline, EncodedAudioSink, MicrophoneSource, MuteGate,
};
use tertulia::media::video::capture::Capture;
use tertulia::media::video::frame::FrameSlot;
use tertulia::media::video::source::CameraSource;
use tertulia::rtp::frame::EncodedAudio;

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
                    assert_eq!(packet.data.as_ref(), SILENT_PACKET);
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

/// What leaves a running engine.
#[derive(Default)]
struct Line {
    /// Counts the changes; odd while the gate is surely closed.
    turn: AtomicU64,
    /// The turn in which one packet came that was being handed over when the gate closed.
    straggler: AtomicU64,
    sounds: AtomicU64,
    silences: AtomicU64,
    leaks: AtomicU64,
}

impl Line {
    fn sink(self: &Arc<Self>) -> EncodedAudioSink {
        let line = Arc::clone(self);
        Arc::new(move |packet: EncodedAudio| {
            let turn = line.turn.load(Ordering::SeqCst);
            let silent = packet.data.is_empty() || packet.data.as_ref() == SILENT_PACKET;
            let counter = match (turn % 2 == 1, silent) {
                (true, true) => &line.silences,
                (true, false) if line.straggler.swap(turn, Ordering::SeqCst) != turn => return,
                (true, false) => &line.leaks,
                (false, _) => &line.sounds,
            };
            counter.fetch_add(1, Ordering::SeqCst);
        })
    }
}

/// Mutes from one thread, other devices and reconnections from another, in real time.
fn engine_transitions(seed: u64, mutes: u64) -> Arc<Line> {
    let config = AudioConfig { microphone: MicrophoneSource::Tone(Some(440.0)), ..AudioConfig::default() };
    let (engine, mut events) = AudioEngine::start(config).unwrap();
    let line: Arc<Line> = Arc::default();
    engine.set_sink(Some(line.sink()));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng(seed ^ 0xdead_beef);
            while !ended.load(Ordering::SeqCst) {
                match rng.below(8) {
                    0 => engine.set_microphone(MicrophoneSource::None),
                    1 => engine.set_sink(None),
                    2 | 3 => engine.set_sink(Some(line.sink())),
                    _ => engine.set_microphone(MicrophoneSource::Tone(Some(300.0 + rng.below(2_000) as f32))),
                }
                while events.try_recv().is_ok() {}
                std::thread::sleep(Duration::from_millis(5 + rng.below(60)));
            }
        });
        let mut rng = Rng(seed);
        for turn in 0..mutes {
            if turn % 2 == 0 {
                engine.set_muted(true);
                line.turn.fetch_add(1, Ordering::SeqCst);
            } else {
                line.turn.fetch_add(1, Ordering::SeqCst);
                engine.set_muted(false);
            }
            // Now and then long enough for the packet that keeps a muted stream alive, else within a packet.
            std::thread::sleep(Duration::from_millis(match rng.below(100) {
                0 => 450,
                1..=9 => 40,
                _ => rng.below(4),
            }));
        }
        ended.store(true, Ordering::SeqCst);
    });
    engine.close();
    line
}

#[test]
fn nothing_but_silence_leaves_a_muted_engine() {
    let engines: Vec<_> =
        (1..=4).map(|seed| std::thread::spawn(move || engine_transitions(seed * 7_919, 2_500))).collect();
    for engine in engines {
        let line = engine.join().unwrap();
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        assert_eq!(count(&line.leaks), 0, "sound left a muted engine");
        assert!(
            count(&line.sounds) > 50 && count(&line.silences) > 5,
            "{} {}",
            count(&line.sounds),
            count(&line.silences)
        );
    }
}

/// Opened and closed, changed, unplugged, stalled, taken by others: muted, it is closed within half a second.
#[test]
fn a_muted_camera_is_a_closed_device() {
    const STEPS: u32 = 500;
    let test = "a_muted_camera_is_a_closed_device";
    let (log, control) = (fakecam::file_of(test, "log"), fakecam::file_of(test, "control"));
    let (log_path, control_path) = (log.display().to_string(), control.display().to_string());
    let settings = [
        ("FAKECAM_COUNT", "2"),
        ("FAKECAM_FORMATS", "YUYV"),
        ("FAKECAM_INTERVALS", "1/100"),
        ("FAKECAM_LOG", &log_path),
        ("FAKECAM_CONTROL", &control_path),
    ];
    fakecam::with_fakecam(test, &settings, || {
        let (mut rng, slot) = (Rng(0xca3e_7a11), FrameSlot::new());
        let mut troubles: BTreeSet<String> = BTreeSet::new();
        let (mut camera, mut index): (Option<Capture>, u64) = (None, 0);
        let (mut pictures, mut mutes) = (0, 0);
        let open = |index: u64| {
            let source = CameraSource::parse(&format!("device:Fakecam {index}:320x180@100")).unwrap();
            Capture::open(&source, slot.clone(), Box::new(|_| ()))
        };
        // As a call does it: nothing more comes out at once, and the closing is waited for elsewhere.
        let mut close = |camera: Option<Capture>| {
            let Some(camera) = camera else { return };
            camera.shut();
            pictures += camera.stats().frames;
            assert!(slot.latest().is_none());
            std::thread::spawn(move || camera.close());
        };
        for step in 0..STEPS {
            match rng.below(12) {
                0..=3 => {
                    close(camera.take());
                    mutes += 1;
                    let version = slot.version();
                    let all = || std::fs::read_to_string(&log).unwrap_or_default();
                    assert!(fakecam::closes(&log), "open while muted at step {step}: {troubles:?} {}", all());
                    assert_eq!(slot.version(), version, "a picture of a muted camera at step {step}");
                }
                4..=6 => _ = camera.get_or_insert_with(|| open(index)),
                7 | 8 => {
                    // The other one; or the same again, as with another place in the room.
                    index = rng.below(2);
                    if camera.is_some() {
                        close(camera.take());
                        camera = Some(open(index));
                    }
                }
                _ => {
                    let word = ["unplugged", "stalled", "busy"][rng.below(3) as usize];
                    if troubles.is_empty() || rng.below(3) == 0 {
                        troubles.insert(format!("{word} {}", rng.below(2)));
                    } else {
                        troubles.clear();
                    }
                    std::fs::write(&control, troubles.iter().cloned().collect::<Vec<_>>().join("\n")).unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(rng.below(40)));
        }
        close(camera.take());
        assert!(fakecam::closes(&log));
        assert!(pictures > 50 && mutes > 100, "{pictures} {mutes}");
    });
}
