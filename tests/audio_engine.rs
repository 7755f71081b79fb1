//! The audio engine from end to end without devices: tone → Opus → jitter buffer → mixer → sound file.
//!
//! These run in real time, so they assert on what was heard, never on when.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tertulia::media::audio::meter::ToneMeter;
use tertulia::media::audio::{
    AudioConfig, AudioEngine, AudioEvent, BLOCK_SAMPLES, EncodedAudioSink, MicrophoneSource, PlayoutStream, Processing,
    SpeakerSink, Stages, VoiceChoice,
};
use tertulia::rtp::frame::{AudioPacket, EncodedAudio};

/// Hands packets straight to a stream, as a network without delay would.
fn wire(stream: &PlayoutStream) -> EncodedAudioSink {
    let stream = stream.clone();
    let sequence = AtomicU16::new(60_000);
    Arc::new(move |packet: EncodedAudio| {
        if !packet.data.is_empty() {
            stream.push(AudioPacket {
                sequence: sequence.fetch_add(1, Ordering::Relaxed),
                rtp_timestamp: packet.rtp_timestamp,
                data: packet.data,
                at: Instant::now(),
            });
        }
    })
}

fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn near(value: Option<f32>, hz: f32) -> bool {
    value.is_some_and(|v| (v - hz).abs() < 3.0)
}

fn talker(hz: f32) -> AudioEngine {
    let config = AudioConfig { microphone: MicrophoneSource::Tone(Some(hz)), ..AudioConfig::default() };
    AudioEngine::start(config).unwrap().0
}

fn read_wav(path: &std::path::Path) -> Vec<f32> {
    let mut reader = hound::WavReader::open(path).unwrap();
    assert_eq!((reader.spec().sample_rate, reader.spec().channels), (48_000, 1));
    reader.samples::<i16>().map(|s| f32::from(s.unwrap()) / 32_768.0).collect()
}

fn tone_of(samples: &[f32]) -> Option<f32> {
    let mut meter = ToneMeter::new();
    for block in samples.chunks_exact(BLOCK_SAMPLES) {
        meter.push(block.try_into().unwrap());
    }
    meter.tone_hz()
}

#[test]
fn two_tones_are_heard_apart_in_the_figures_and_together_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("heard.wav");
    let config = AudioConfig { speaker: SpeakerSink::File(path.clone()), ..AudioConfig::default() };
    let (listener, _events) = AudioEngine::start(config).unwrap();
    let (low, high) = (talker(440.0), talker(1_300.0));
    let (from_low, from_high) = (listener.open_stream(), listener.open_stream());
    low.set_sink(Some(wire(&from_low)));
    high.set_sink(Some(wire(&from_high)));
    wait_until("both tones", Duration::from_secs(15), || {
        near(from_low.stats().tone_hz, 440.0) && near(from_high.stats().tone_hz, 1_300.0)
    });
    // The low one is turned down: the file's strongest tone is the high one then.
    from_low.set_gain(0.1);
    std::thread::sleep(Duration::from_millis(1_500));
    let stats = from_high.stats();
    assert!(stats.packets > 40 && stats.bytes > 2_000, "{stats:?}");
    assert_eq!(stats.packets_lost, 0);
    let level = stats.level_dbfs.unwrap();
    assert!((-23.0..-17.0).contains(&level), "{level}");
    assert!(from_high.playout_time(0).is_some() && stats.first_played_at.is_some());
    listener.close();
    let heard = read_wav(&path);
    assert!(near(tone_of(&heard[heard.len() - 48_000..]), 1_300.0));
    assert!(heard.iter().all(|s| s.abs() < 0.5));
}

#[test]
fn mute_is_silence_at_the_other_end_and_unmute_is_sound_again() {
    let (listener, _events) = AudioEngine::start(AudioConfig::default()).unwrap();
    let talker = talker(700.0);
    let stream = listener.open_stream();
    talker.set_sink(Some(wire(&stream)));
    wait_until("the tone", Duration::from_secs(15), || near(stream.stats().tone_hz, 700.0));
    talker.set_muted(true);
    wait_until("silence", Duration::from_secs(15), || stream.level_dbfs() < -80.0 && stream.stats().tone_hz.is_none());
    let before = stream.stats();
    // A muted stream stays alive by a packet every 400 ms.
    let packets = before.packets;
    wait_until("a keep-alive", Duration::from_secs(15), || stream.stats().packets >= packets + 2);
    assert!(stream.stats().concealed_ms <= before.concealed_ms + 20, "{before:?} {:?}", stream.stats());
    talker.set_muted(false);
    wait_until("the tone again", Duration::from_secs(15), || near(stream.stats().tone_hz, 700.0));
}

#[test]
fn sources_and_sinks_change_during_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let (listener, mut events) = AudioEngine::start(AudioConfig::default()).unwrap();
    let talker = talker(500.0);
    let stream = listener.open_stream();
    talker.set_sink(Some(wire(&stream)));
    wait_until("500 Hz", Duration::from_secs(15), || near(stream.stats().tone_hz, 500.0));
    talker.set_microphone(MicrophoneSource::Tone(Some(900.0)));
    wait_until("900 Hz", Duration::from_secs(15), || near(stream.stats().tone_hz, 900.0));
    // A reconnected transport: no sink for a while, then a new one.
    talker.set_sink(None);
    std::thread::sleep(Duration::from_millis(300));
    talker.set_sink(Some(wire(&stream)));
    wait_until("900 Hz again", Duration::from_secs(15), || stream.level_dbfs() > -25.0);
    // A file that does not exist is told and leaves the call without a microphone.
    let (other, mut other_events) = AudioEngine::start(AudioConfig::default()).unwrap();
    other.set_microphone(MicrophoneSource::File(dir.path().join("missing.wav")));
    let mut failed = None;
    wait_until("the failure", Duration::from_secs(15), || {
        while let Ok(event) = other_events.try_recv() {
            if let AudioEvent::MicrophoneFailed(error) = event {
                failed = Some(error.key());
            }
        }
        failed.is_some()
    });
    assert_eq!(failed, Some("dev.sound_file"));
    // The speaker moves into a file during the call.
    let path = dir.path().join("late.wav");
    listener.set_speaker(SpeakerSink::File(path.clone()));
    wait_until("the file", Duration::from_secs(15), || {
        std::iter::from_fn(|| events.try_recv().ok()).any(|e| matches!(e, AudioEvent::SpeakerOpened(_)))
    });
    std::thread::sleep(Duration::from_millis(1_500));
    listener.set_speaker(SpeakerSink::Null);
    wait_until("the file's end", Duration::from_secs(15), || {
        hound::WavReader::open(&path).is_ok_and(|r| r.duration() > 48_000)
    });
    listener.close();
    let heard = read_wav(&path);
    assert!(near(tone_of(&heard[heard.len() - 40_000..]), 900.0));
}

/// A stream that was published with sound and then has no microphone would look like a broken connection to the others.
#[test]
fn without_a_microphone_silence_is_sent_and_the_gate_holds_for_it_too() {
    let (engine, _events) = AudioEngine::start(AudioConfig::default()).unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let begun = Instant::now();
    engine
        .set_sink(Some(Arc::new(move |p: EncodedAudio| log.lock().unwrap().push((p.rtp_timestamp, p.level, p.data)))));
    wait_until("silence in real time", Duration::from_secs(15), || sent.lock().unwrap().len() >= 50);
    assert!(begun.elapsed() > Duration::from_millis(700), "50 packets of 20 ms in {:?}", begun.elapsed());
    let packets = std::mem::take(&mut *sent.lock().unwrap());
    assert!(packets.iter().all(|(_, level, _)| *level == 127), "nothing but silence");
    assert!(packets.windows(2).all(|w| w[1].0.wrapping_sub(w[0].0) == 960), "the RTP clock runs");
    engine.set_muted(true);
    std::thread::sleep(Duration::from_millis(300));
    sent.lock().unwrap().clear();
    wait_until("keep-alives", Duration::from_secs(15), || sent.lock().unwrap().len() >= 2);
    assert!(sent.lock().unwrap().iter().all(|(.., d)| d.as_ref() == tertulia::media::audio::codec::SILENT_PACKET));
    engine.set_muted(false);
    sent.lock().unwrap().clear();
    wait_until("silence again", Duration::from_secs(15), || sent.lock().unwrap().len() >= 20);
    engine.set_microphone(MicrophoneSource::Tone(None));
    wait_until("a tone", Duration::from_secs(15), || sent.lock().unwrap().last().is_some_and(|p| p.1 < 40));
}

#[test]
fn a_muted_engine_encodes_nothing_and_a_closed_one_ends() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let config = AudioConfig { microphone: MicrophoneSource::Tone(None), muted: true, ..AudioConfig::default() };
    let (engine, _events) = AudioEngine::start(config).unwrap();
    let log = Arc::clone(&sent);
    engine.set_sink(Some(Arc::new(move |p: EncodedAudio| log.lock().unwrap().push(p.data))));
    wait_until("keep-alives", Duration::from_secs(15), || sent.lock().unwrap().len() >= 4);
    assert!(sent.lock().unwrap().iter().all(|d| d.as_ref() == tertulia::media::audio::codec::SILENT_PACKET));
    assert!(engine.levels().processed_dbfs > -25.0, "{:?}", engine.levels());
    engine.close();
    let after = sent.lock().unwrap().len();
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(sent.lock().unwrap().len(), after);
}

#[test]
fn an_engine_with_nothing_to_do_sleeps() {
    let (engine, _events) = AudioEngine::start(AudioConfig::default()).unwrap();
    let stream = engine.open_stream();
    let wakes = AtomicUsize::new(0);
    // Nothing was pushed: the stream has played nothing, and the audio thread used next to no time.
    let cpu = || {
        let stat = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|t| {
            let dir = t.ok()?.path();
            let name = std::fs::read_to_string(dir.join("comm")).ok()?;
            let switches = std::fs::read_to_string(dir.join("status")).ok()?;
            let voluntary = switches
                .lines()
                .find(|l| l.starts_with("voluntary"))?
                .split_whitespace()
                .nth(1)?
                .parse::<usize>()
                .ok()?;
            (name.trim() == "audio").then_some(voluntary)
        });
        stat.min().unwrap_or(usize::MAX)
    };
    if cfg!(target_os = "linux") {
        let before = cpu();
        std::thread::sleep(Duration::from_secs(1));
        wakes.store(cpu().saturating_sub(before), Ordering::Relaxed);
        // The idlest audio thread of this process is at most this one.
        assert!(wakes.load(Ordering::Relaxed) <= 10, "{wakes:?} wake-ups a second");
    }
    assert_eq!(stream.stats().packets, 0);
}

/// Stages change while the microphone goes on, and original sound is sent at a higher rate.
#[test]
fn stages_and_original_sound_change_while_the_microphone_goes_on() {
    let config = AudioConfig {
        microphone: MicrophoneSource::Tone(Some(700.0)),
        voice: VoiceChoice { processing: Processing::On, ..VoiceChoice::default() },
        ..AudioConfig::default()
    };
    let (engine, _events) = AudioEngine::start(config).unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    engine.set_sink(Some(Arc::new(move |p: EncodedAudio| log.lock().unwrap().push(p.data.len()))));
    let levels = |what: &str, wanted: &dyn Fn(f32) -> bool| {
        wait_until(what, Duration::from_secs(30), || {
            let levels = engine.levels();
            // The meter before the processing shows the tone all the time.
            levels.captured_dbfs > -21.0 && wanted(levels.processed_dbfs)
        });
    };
    // A noise suppressor removes a steady tone.
    levels("the tone suppressed", &|dbfs| dbfs < -30.0);
    let voice = VoiceChoice { processing: Processing::On, ..VoiceChoice::default() };
    let without_noise = Stages { noise: false, gain: false, ..Stages::default() };
    engine.set_voice(VoiceChoice { stages: without_noise, ..voice });
    levels("the tone without the suppressor", &|dbfs| dbfs > -22.0);
    engine.set_voice(VoiceChoice { stages: Stages { gain: false, ..Stages::default() }, ..voice });
    levels("the tone suppressed again", &|dbfs| dbfs < -30.0);
    let mean = |what: &str| {
        sent.lock().unwrap().clear();
        wait_until(what, Duration::from_secs(15), || sent.lock().unwrap().len() >= 50);
        let sizes = sent.lock().unwrap();
        sizes.iter().rev().take(25).sum::<usize>() / 25
    };
    engine.set_voice(VoiceChoice { processing: Processing::Off, ..voice });
    levels("the tone as it is", &|dbfs| dbfs > -21.0);
    let speech = mean("speech");
    engine.set_voice(VoiceChoice { original_sound: true, ..voice });
    levels("the tone as it is, in original sound", &|dbfs| dbfs > -21.0);
    let music = mean("music");
    assert!(music > speech * 3 / 2, "{speech} bytes a packet for speech, {music} for original sound");
}

#[test]
fn sound_goes_on_after_a_panic_of_its_thread() {
    let config = AudioConfig { microphone: MicrophoneSource::Tone(Some(440.0)), ..AudioConfig::default() };
    let (talker, mut events) = AudioEngine::start(config).unwrap();
    let (listener, _) = AudioEngine::start(AudioConfig::default()).unwrap();
    let stream = listener.open_stream();
    let (inner, calls, last) = (wire(&stream), AtomicUsize::new(0), Mutex::new(None::<u32>));
    let longest = Arc::new(AtomicUsize::new(0));
    let gaps = Arc::clone(&longest);
    talker.set_sink(Some(Arc::new(move |packet: EncodedAudio| {
        let before = last.lock().unwrap().replace(packet.rtp_timestamp);
        let gap = before.map_or(0, |before| packet.rtp_timestamp.wrapping_sub(before));
        gaps.fetch_max(gap as usize, Ordering::Relaxed);
        if calls.fetch_add(1, Ordering::Relaxed) == 20 {
            panic!("meant to");
        }
        inner(packet);
    })));
    let told = |events: &mut tokio::sync::mpsc::Receiver<AudioEvent>| events.try_recv().ok();
    wait_until(
        "the loss is told",
        Duration::from_secs(20),
        || matches!(told(&mut events), Some(AudioEvent::MicrophoneLost(name)) if name == "tone:440"),
    );
    wait_until("it is told to be over", Duration::from_secs(20), || {
        matches!(told(&mut events), Some(AudioEvent::MicrophoneOpened(_)))
    });
    let packets = talker.packets_sent();
    wait_until("packets again", Duration::from_secs(20), || talker.packets_sent() > packets + 50);
    wait_until("440 Hz again", Duration::from_secs(20), || near(stream.stats().tone_hz, 440.0));
    assert!(longest.load(Ordering::Relaxed) < 48_000 * 5, "the RTP clock goes on: {longest:?}");
    // One that panics each time is told, and ends.
    talker.set_sink(Some(Arc::new(|_| panic!("always"))));
    wait_until(
        "the end is told",
        Duration::from_secs(20),
        || matches!(told(&mut events), Some(AudioEvent::MicrophoneFailed(error)) if error.key() == "dev.sound_start"),
    );
}
