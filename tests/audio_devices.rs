//! Microphone and speaker on the true cpal path, against PipeWire's virtual devices in a runtime directory of our own.
//!
//! Needs the packages pipewire, wireplumber, pipewire-pulse, pulseaudio-utils and dbus; without them the test fails and
//! says so, unless TERTULIA_SKIP_DEVICES=1. The sound server's address is an environment variable, so what touches devices
//! runs in a child process of this test: the functions marked `ignore`, which do nothing when started by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tertulia::media::audio::{
    AudioConfig, AudioEngine, AudioEvent, EncodedAudioSink, MicrophoneSource, PlayoutStream, Processing, SpeakerSink,
    VoiceChoice, list_devices,
};
use tertulia::rtp::frame::{AudioPacket, EncodedAudio};

const LIMIT: Duration = Duration::from_secs(60);

struct SoundServer {
    script: Child,
    dir: tempfile::TempDir,
    pids: String,
}

impl SoundServer {
    fn start() -> Option<Self> {
        if std::env::var_os("TERTULIA_SKIP_DEVICES").is_some_and(|v| v == "1") {
            eprintln!("skipped: TERTULIA_SKIP_DEVICES=1");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio_support/pipewire.sh");
        let mut script = Command::new("bash")
            .arg(script)
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        let first = lines.next().and_then(Result::ok).unwrap_or_default();
        let Some(pids) = first.strip_prefix("ready ") else {
            let rest: Vec<String> = lines.map_while(Result::ok).collect();
            panic!(
                "no sound server: {first}\n{}\nInstall with: apt-get install --no-install-recommends pipewire wireplumber \
                 pipewire-pulse pulseaudio-utils dbus (or set TERTULIA_SKIP_DEVICES=1)",
                rest.join("\n")
            );
        };
        Some(Self { script, pids: pids.to_owned(), dir })
    }

    /// Runs one of the ignored functions of this file with this server in its environment.
    fn run(&self, name: &str) {
        let runtime = self.dir.path().join("run");
        run_child(name, |c| {
            c.env("XDG_RUNTIME_DIR", &runtime)
                .env("PULSE_SERVER", format!("unix:{}", runtime.join("pulse/native").display()))
                .env("TERTULIA_TEST_PIDS", &self.pids)
        });
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        // The script ends what it started when its input ends.
        drop(self.script.stdin.take());
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end && !matches!(self.script.try_wait(), Ok(Some(_))) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

fn run_child(name: &str, environment: impl FnOnce(&mut Command) -> &mut Command) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"]);
    environment(command.env("TERTULIA_TEST_CHILD", "1").env_remove("PULSE_SINK").env_remove("PULSE_SOURCE"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    print!("{text}");
    assert!(output.status.success(), "{name} failed:\n{text}");
    assert!(text.contains("1 passed"), "{name} did not run:\n{text}");
}

/// Whether this process is the child with the sound server.
fn is_child() -> bool {
    std::env::var_os("TERTULIA_TEST_CHILD").is_some()
}

#[test]
fn devices_work_through_a_sound_server() {
    let Some(server) = SoundServer::start() else { return };
    server.run("child_lists_devices");
    server.run("child_plays_and_captures");
    server.run("child_cancels_its_own_echo");
    server.run("child_survives_a_stalled_server");
    server.run("child_shares_what_others_play_and_not_itself");
    server.run("child_waits_for_a_device_to_be_plugged_in");
}

#[test]
fn a_machine_without_sound_says_so_and_the_call_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    run_child("child_has_no_sound", |c| {
        c.env("XDG_RUNTIME_DIR", dir.path())
            .env("PULSE_SERVER", format!("unix:{}", dir.path().join("none").display()))
            // No ALSA configuration, hence no ALSA device either, whatever this machine has.
            .env("ALSA_CONFIG_PATH", "/dev/null")
    });
}

fn wire(stream: &PlayoutStream) -> EncodedAudioSink {
    let stream = stream.clone();
    let sequence = AtomicU16::new(1);
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

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn hears(stream: &PlayoutStream, hz: f32) -> bool {
    stream.stats().tone_hz.is_some_and(|v| (v - hz).abs() < 4.0)
}

type Events = tokio::sync::mpsc::Receiver<AudioEvent>;

fn wait_for(events: &mut Events, what: &str, mut wanted: impl FnMut(&AudioEvent) -> bool) -> AudioEvent {
    let mut found = None;
    wait_until(what, || {
        while let Ok(event) = events.try_recv() {
            println!("{event:?}");
            if wanted(&event) {
                found = Some(event);
                return true;
            }
        }
        false
    });
    found.unwrap()
}

/// A tone through our speaker path into vspeaker, and our microphone path from its monitor to a figure.
struct Loop {
    _talker: AudioEngine,
    speaker: AudioEngine,
    speaker_events: Events,
    _spoken: PlayoutStream,
    microphone: AudioEngine,
    microphone_events: Events,
    _listener: AudioEngine,
    heard: PlayoutStream,
}

fn device_loop(hz: f32, speaker: &str, microphone: &str) -> Loop {
    let tone = AudioConfig { microphone: MicrophoneSource::Tone(Some(hz)), ..AudioConfig::default() };
    let (talker, _) = AudioEngine::start(tone).unwrap();
    let out =
        AudioConfig { speaker: format!("device:{speaker}").parse::<SpeakerSink>().unwrap(), ..AudioConfig::default() };
    let (speaker, speaker_events) = AudioEngine::start(out).unwrap();
    let spoken = speaker.open_stream();
    talker.set_sink(Some(wire(&spoken)));
    // Without processing: a noise suppressor removes a steady tone.
    let input = AudioConfig {
        microphone: format!("device:{microphone}").parse().unwrap(),
        voice: VoiceChoice { processing: Processing::Off, ..VoiceChoice::default() },
        ..AudioConfig::default()
    };
    let (microphone, microphone_events) = AudioEngine::start(input).unwrap();
    let (listener, _) = AudioEngine::start(AudioConfig::default()).unwrap();
    let heard = listener.open_stream();
    microphone.set_sink(Some(wire(&heard)));
    Loop {
        _talker: talker,
        speaker,
        speaker_events,
        _spoken: spoken,
        microphone,
        microphone_events,
        _listener: listener,
        heard,
    }
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_lists_devices() {
    if !is_child() {
        return;
    }
    let list = list_devices();
    println!("{list:?}");
    assert!(list.host.eq_ignore_ascii_case("pulseaudio"), "{}", list.host);
    let speaker = list.speakers.iter().find(|d| d.id == "pulseaudio:vspeaker").unwrap();
    assert!(speaker.is_default && !speaker.is_monitor);
    assert_eq!(speaker.name, "Virtual speaker");
    assert!(list.microphones.iter().any(|d| d.id == "pulseaudio:vmic" && d.is_default && !d.is_monitor));
    assert!(list.microphones.last().unwrap().is_monitor);
    assert_eq!(list, list_devices());
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_plays_and_captures() {
    if !is_child() {
        return;
    }
    let mut l = device_loop(440.0, "pulseaudio:vspeaker", "pulseaudio:vspeaker.monitor");
    let opened = wait_for(&mut l.speaker_events, "the speaker", |e| matches!(e, AudioEvent::SpeakerOpened(_)));
    assert_eq!(opened, AudioEvent::SpeakerOpened("Virtual speaker".to_owned()));
    wait_for(&mut l.microphone_events, "the microphone", |e| matches!(e, AudioEvent::MicrophoneOpened(_)));
    wait_until("440 Hz through both devices", || hears(&l.heard, 440.0));
    // A glitch of a busy machine may spoil one figure of 100 ms, not all of them.
    wait_until("the tone at its level", || {
        l.heard.stats().level_dbfs.is_some_and(|level| (-23.0..-17.0).contains(&level))
    });
    wait_until("the captured level", || l.microphone.levels().captured_dbfs > -26.0);

    l.microphone.set_muted(true);
    wait_until("silence while muted", || l.heard.level_dbfs() < -80.0 && l.heard.stats().tone_hz.is_none());
    // The meter goes on while the gate is closed: the device stays open for "you are talking while muted".
    wait_until("the meter", || l.microphone.levels().captured_dbfs > -26.0);
    l.microphone.set_muted(false);
    wait_until("440 Hz after unmuting", || hears(&l.heard, 440.0));

    // Another device during the call: vmic carries nothing at all, which is told.
    l.microphone.set_microphone(MicrophoneSource::Device(Some("pulseaudio:vmic".to_owned())));
    wait_for(
        &mut l.microphone_events,
        "the other microphone",
        |e| matches!(e, AudioEvent::MicrophoneOpened(n) if n == "Virtual microphone"),
    );
    wait_for(&mut l.microphone_events, "digital silence", |e| *e == AudioEvent::MicrophoneSilent);
    l.microphone.set_microphone(MicrophoneSource::Device(Some("pulseaudio:vspeaker.monitor".to_owned())));
    wait_until("440 Hz after changing back", || hears(&l.heard, 440.0));
}

/// Writes ten seconds of something like speech: a buzz of moving pitch and level, with pauses.
fn write_speech(path: &std::path::Path) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 48_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut wav = hound::WavWriter::create(path, spec).unwrap();
    let (mut phase, mut seed) = (0.0f32, 1u32);
    for i in 0..480_000 {
        let t = i as f32 / 48_000.0;
        phase = (phase + (130.0 + 40.0 * (t * 3.1).sin()) / 48_000.0) % 1.0;
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let hiss = (seed >> 8) as f32 / 16_777_216.0 - 0.5;
        let buzz: f32 = (1..20).map(|h| (std::f32::consts::TAU * phase * h as f32).sin() / h as f32).sum();
        let envelope = (t * 9.0).sin().max(0.0) * if (t * 0.7).fract() < 0.8 { 1.0 } else { 0.0 };
        wav.write_sample((envelope * (buzz * 0.15 + hiss * 0.1) * 32_767.0) as i16).unwrap();
    }
    wav.finalize().unwrap();
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_cancels_its_own_echo() {
    if !is_child() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("speech.wav");
    write_speech(&path);
    let remote = AudioConfig { microphone: MicrophoneSource::File(path), ..AudioConfig::default() };
    let (remote, _) = AudioEngine::start(remote).unwrap();
    // The microphone hears nothing but what our own speaker plays.
    let config = AudioConfig {
        microphone: "device:pulseaudio:vspeaker.monitor".parse().unwrap(),
        speaker: "device:pulseaudio:vspeaker".parse().unwrap(),
        ..AudioConfig::default()
    };
    let (engine, _events) = AudioEngine::start(config).unwrap();
    let stream = engine.open_stream();
    remote.set_sink(Some(wire(&stream)));
    wait_until("the remote voice in the microphone", || engine.levels().captured_dbfs > -40.0);
    // It takes the canceller some seconds to find the echo, on a busy machine also larger buffers: the best 2 s count.
    wait_until("an echo reduced by 15 dB", || {
        let (mut captured, mut processed) = (0.0f32, 0.0f32);
        for _ in 0..100 {
            std::thread::sleep(Duration::from_millis(20));
            let levels = engine.levels();
            captured += 10f32.powf(levels.captured_dbfs / 10.0);
            processed += 10f32.powf(levels.processed_dbfs / 10.0);
        }
        let reduced_db = 10.0 * (captured / processed.max(1e-12)).log10();
        println!("echo reduced by {reduced_db:.1} dB");
        captured > 1e-3 && reduced_db > 15.0
    });
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_survives_a_stalled_server() {
    if !is_child() {
        return;
    }
    let mut l = device_loop(600.0, "pulseaudio:vspeaker", "pulseaudio:vspeaker.monitor");
    wait_until("600 Hz", || hears(&l.heard, 600.0));
    let pids = std::env::var("TERTULIA_TEST_PIDS").unwrap();
    let pulse = pids.split_whitespace().last().unwrap();
    let signal = |name: &str| assert!(Command::new("kill").args([name, pulse]).status().unwrap().success());
    // Callbacks stop without any error: only the heartbeat can tell.
    signal("-STOP");
    wait_for(&mut l.microphone_events, "the loss of the microphone", |e| matches!(e, AudioEvent::MicrophoneLost(_)));
    wait_for(&mut l.speaker_events, "the loss of the speaker", |e| matches!(e, AudioEvent::SpeakerLost(_)));
    // The handle answers at once all the same.
    let asked = Instant::now();
    l.microphone.set_muted(true);
    l.microphone.set_muted(false);
    l.speaker.set_speaker("device:pulseaudio:vspeaker".parse().unwrap());
    assert!(asked.elapsed() < Duration::from_secs(1));
    signal("-CONT");
    let at = Instant::now();
    wait_for(&mut l.microphone_events, "the microphone again", |e| matches!(e, AudioEvent::MicrophoneOpened(_)));
    wait_for(&mut l.speaker_events, "the speaker again", |e| matches!(e, AudioEvent::SpeakerOpened(_)));
    let ms = at.elapsed().as_millis();
    println!("open again {ms} ms after the server goes on");
    assert!(ms <= 1_500, "{ms} ms; 500 are meant, on a machine that has time");
    wait_until("600 Hz again", || hears(&l.heard, 600.0));
}

type Stamped = std::sync::mpsc::Receiver<(Instant, AudioEvent)>;

/// Events with the moments at which they were told.
fn stamped(mut events: Events) -> Stamped {
    let (tell, told) = std::sync::mpsc::sync_channel(256);
    std::thread::spawn(move || {
        while let Some(event) = events.blocking_recv() {
            println!("{event:?}");
            let _ = tell.send((Instant::now(), event));
        }
    });
    told
}

fn next(events: &Stamped, wanted: impl Fn(&AudioEvent) -> bool) -> Instant {
    let end = Instant::now() + LIMIT;
    loop {
        let (at, event) = events.recv_timeout(end.saturating_duration_since(Instant::now())).expect("told in time");
        if wanted(&event) {
            return at;
        }
    }
}

fn rebuilt(events: &Stamped, lost: impl Fn(&AudioEvent) -> bool, opened: impl Fn(&AudioEvent) -> bool) {
    let lost = next(events, lost);
    let ms = next(events, opened).duration_since(lost).as_millis();
    println!("lost, and open again after {ms} ms");
    assert!(ms <= 1_500, "{ms} ms; 500 are meant, on a machine that has time");
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_waits_for_a_device_to_be_plugged_in() {
    if !is_child() {
        return;
    }
    let mut l = device_loop(800.0, "pulseaudio:late", "pulseaudio:late.monitor");
    let failed = wait_for(&mut l.speaker_events, "the failure", |e| matches!(e, AudioEvent::SpeakerFailed(_)));
    assert!(matches!(failed, AudioEvent::SpeakerFailed(error) if error.key() == "dev.spk_none"));
    wait_for(
        &mut l.microphone_events,
        "the failure",
        |e| matches!(e, AudioEvent::MicrophoneFailed(x) if x.key() == "dev.mic_none"),
    );
    // What is there when an engine looks for the first time is no news: both have looked by now.
    std::thread::sleep(Duration::from_secs(2));
    let plugged = Command::new("pactl").args(["load-module", "module-null-sink", "sink_name=late"]).status().unwrap();
    assert!(plugged.success());
    wait_until("800 Hz through what was plugged in", || hears(&l.heard, 800.0));
    // The list is told when something comes and when it goes.
    let lists = |e: &AudioEvent, there: bool| matches!(e, AudioEvent::DevicesChanged(d) if d.speakers.iter().any(|s| s.id == "pulseaudio:late") == there);
    for events in [&mut l.speaker_events, &mut l.microphone_events] {
        wait_for(events, "the new device in the list", |e| lists(e, true));
    }
    // Who follows the system's default is taken along.
    let config = AudioConfig { speaker: SpeakerSink::Device(None), ..AudioConfig::default() };
    let (follower, mut events) = AudioEngine::start(config).unwrap();
    let opened = |e: &AudioEvent, name: &str| matches!(e, AudioEvent::SpeakerOpened(n) if n.contains(name));
    wait_for(&mut events, "the default", |e| opened(e, "Virtual speaker"));
    let pactl = |args: &[&str]| assert!(Command::new("pactl").args(args).status().unwrap().success());
    pactl(&["set-default-sink", "late"]);
    wait_for(&mut events, "the other default", |e| opened(e, "late"));
    // Unplugged: lost at once, and back on what is the default then.
    pactl(&["set-default-sink", "vspeaker"]);
    wait_for(&mut events, "the first default again", |e| opened(e, "Virtual speaker"));
    pactl(&["unload-module", "module-null-sink"]);
    wait_for(&mut events, "the list without it", |e| lists(e, false));
    drop(follower);
    // Who chose it is told.
    let mic_opened = |e: &AudioEvent, name: &str| matches!(e, AudioEvent::MicrophoneOpened(n) if n.contains(name));
    let speaker_lost = |e: &AudioEvent| matches!(e, AudioEvent::SpeakerLost(n) if n.contains("late"));
    let mic_lost = |e: &AudioEvent| matches!(e, AudioEvent::MicrophoneLost(n) if n.contains("late"));
    wait_for(&mut l.speaker_events, "the loss of the chosen speaker", speaker_lost);
    wait_for(&mut l.microphone_events, "the loss of the chosen microphone", mic_lost);
    pactl(&["load-module", "module-null-sink", "sink_name=late"]);
    wait_for(&mut l.speaker_events, "the chosen speaker", |e| opened(e, "late"));
    wait_for(&mut l.microphone_events, "the chosen microphone", |e| mic_opened(e, "late"));
    wait_until("800 Hz through what is back", || hears(&l.heard, 800.0));
    let (speaker, microphone) = (stamped(l.speaker_events), stamped(l.microphone_events));
    // It has been listed by then.
    std::thread::sleep(Duration::from_secs(3));
    // The server moves streams to another device without a word, and does not move them back. Where nobody looked in between,
    // they are opened anew all the same.
    pactl(&["unload-module", "module-null-sink"]);
    pactl(&["load-module", "module-null-sink", "sink_name=late"]);
    next(&speaker, speaker_lost);
    next(&microphone, mic_lost);
    next(&speaker, |e| opened(e, "late"));
    next(&microphone, |e| mic_opened(e, "late"));
    wait_until("800 Hz after it was away for a moment", || hears(&l.heard, 800.0));
    std::thread::sleep(Duration::from_secs(3));
    pactl(&["unload-module", "module-null-sink"]);
    rebuilt(&speaker, speaker_lost, |e| opened(e, "Virtual speaker"));
    rebuilt(&microphone, mic_lost, |e| mic_opened(e, "Virtual microphone"));
    // Back, and taken again.
    pactl(&["load-module", "module-null-sink", "sink_name=late"]);
    next(&speaker, |e| opened(e, "late"));
    next(&microphone, |e| mic_opened(e, "late"));
    wait_until("800 Hz through what is back", || hears(&l.heard, 800.0));
    // Chosen once more while it is open: that is no reason to fall silent.
    l.speaker.set_speaker("device:pulseaudio:late".parse().unwrap());
    next(&speaker, |e| opened(e, "late"));
    wait_until("800 Hz through the same speaker", || hears(&l.heard, 800.0));
}

#[test]
#[ignore = "run by a_machine_without_sound_says_so_and_the_call_goes_on"]
fn child_has_no_sound() {
    if !is_child() {
        return;
    }
    assert!(list_devices().speakers.is_empty());
    let config = AudioConfig {
        microphone: MicrophoneSource::Device(None),
        speaker: SpeakerSink::Device(None),
        ..AudioConfig::default()
    };
    let (engine, mut events) = AudioEngine::start(config).unwrap();
    wait_for(
        &mut events,
        "no microphone",
        |e| matches!(e, AudioEvent::MicrophoneFailed(x) if x.key() == "dev.mic_none"),
    );
    let (other, mut other_events) =
        AudioEngine::start(AudioConfig { speaker: SpeakerSink::Device(None), ..AudioConfig::default() }).unwrap();
    wait_for(
        &mut other_events,
        "no speaker",
        |e| matches!(e, AudioEvent::SpeakerFailed(x) if x.key() == "dev.spk_none"),
    );
    // One listens to the other all the same.
    let stream = other.open_stream();
    engine.set_sink(Some(wire(&stream)));
    engine.set_microphone(MicrophoneSource::Tone(Some(500.0)));
    wait_until("500 Hz without any device", || hears(&stream, 500.0));
}

/// Ends another program that plays.
struct Playing(Child);

impl Drop for Playing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Another program plays a tone of −30 dBFS: 10 dB below our own.
fn another_plays(dir: &std::path::Path, hz: f32) -> Playing {
    let path = dir.join(format!("{hz}.raw"));
    let samples =
        (0..48_000 * 20).map(|i| (std::f32::consts::TAU * hz * i as f32 / 48_000.0).sin() * 0.0316 * 32_767.0);
    std::fs::write(&path, samples.flat_map(|s| (s as i16).to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let program = Command::new("paplay")
        .args(["--raw", "--rate=48000", "--channels=1", "--format=s16le"])
        .arg(&path)
        .spawn()
        .expect("paplay (package pulseaudio-utils)");
    Playing(program)
}

#[test]
#[ignore = "run by devices_work_through_a_sound_server"]
fn child_shares_what_others_play_and_not_itself() {
    if !is_child() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // We play 440 Hz to the same speaker.
    let playing = device_loop(440.0, "vspeaker", "vspeaker.monitor");
    wait_until("our own tone is played", || hears(&playing.heard, 440.0));
    let system = AudioConfig { microphone: "system".parse().unwrap(), ..AudioConfig::default() };
    let (system, _events) = AudioEngine::start(system).unwrap();
    let (listener, _) = AudioEngine::start(AudioConfig::default()).unwrap();
    let heard = listener.open_stream();
    system.set_sink(Some(wire(&heard)));
    std::thread::sleep(Duration::from_secs(1));
    assert!(!hears(&heard, 440.0), "our own playout is in it: {:?}", heard.stats());
    assert!(system.levels().captured_dbfs < -80.0, "{:?}", system.levels());
    // One that begins while we record, and then a second one, louder than both together would be if we were in it.
    let first = another_plays(dir.path(), 1_000.0);
    wait_until("the other program is heard, and not ourselves", || hears(&heard, 1_000.0));
    drop(first);
    wait_until("it has ended", || system.levels().captured_dbfs < -80.0);
    let _second = another_plays(dir.path(), 700.0);
    wait_until("the next one is heard", || hears(&heard, 700.0));
}
