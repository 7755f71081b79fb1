//! Odd devices, through cpal's own types: an engine in virtual time whose microphone and speaker are devices of a custom host.

use super::bench::devices::{VirtualDevice, VirtualDevices, Way};
use super::bench::drift::{drift, drift_on};
use super::bench::echo::echo_on;
use super::bench::mouth_to_ear::{TONE_HZ, TONE_LOUDNESS, chirps, sung};
use super::bench::rig::Rig;
use super::clock::Clock;
use super::custom_host_tests::{Manner, Manners, sound_host};
use super::dsp::{power_at, rms};
use super::resample::resample_whole;
use super::stream::lock;
use super::{AudioConfig, AudioEvent, MicrophoneSource, PlayoutStream, Processing, SpeakerSink, Stages, VoiceChoice};
use cpal::{ErrorKind, SampleFormat};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MICROPHONE: &str = "microphone";
const SPEAKER: &str = "speaker";

/// What a device is like; the rest is as with one at 48 kHz with one channel.
#[derive(Debug, Clone)]
struct Odd {
    told_hz: u32,
    true_hz: f64,
    channels: u16,
    callbacks: Vec<u32>,
    manner: Manner,
}

impl Default for Odd {
    fn default() -> Self {
        Self { told_hz: 48_000, true_hz: 48_000.0, channels: 1, callbacks: Vec::new(), manner: Manner::default() }
    }
}

impl Odd {
    fn rate(hz: u32) -> Self {
        Self { told_hz: hz, true_hz: f64::from(hz), ..Self::default() }
    }

    fn lying(true_hz: f64) -> Self {
        Self { true_hz, ..Self::default() }
    }

    fn callbacks(sizes: &[u32]) -> Self {
        Self { callbacks: sizes.to_vec(), ..Self::default() }
    }

    fn device(&self, name: &'static str, way: Way) -> VirtualDevice {
        VirtualDevice {
            name,
            told_hz: self.told_hz,
            true_hz: self.true_hz,
            channels: self.channels,
            callbacks: self.callbacks.clone(),
            runs: true,
            way,
        }
    }
}

/// An engine that hears itself over a LAN: what the microphone hears comes out of the speaker.
struct Call {
    rig: Rig,
    devices: Arc<VirtualDevices>,
    manners: Manners,
    stream: PlayoutStream,
    /// What the speaker played since the beginning, at its true rate.
    played: Arc<Mutex<Vec<f32>>>,
    speaker_hz: f64,
    /// Whether the microphone gives nothing but zeros.
    dead: Arc<Mutex<bool>>,
}

impl Call {
    fn new(microphone: &Odd, speaker: &Odd) -> Self {
        let clock = Clock::standing();
        let origin = clock.now();
        let (played, dead) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(false)));
        let is_dead = Arc::clone(&dead);
        let hears = move |at: Instant| if *lock(&is_dead) { 0.0 } else { sung((at - origin).as_secs_f64()) };
        let (to, speaker_hz) = (Arc::clone(&played), speaker.true_hz);
        let plays = move |samples: &[f32], until: Instant| {
            let end = ((until - origin).as_secs_f64() * speaker_hz).round() as usize;
            let mut played = lock(&to);
            let begin = end.saturating_sub(samples.len()).max(played.len());
            // Where no stream was open nothing was played.
            if begin > played.len() + samples.len() {
                played.resize(begin, 0.0);
            }
            played.extend_from_slice(samples);
        };
        let devices = VirtualDevices::new(vec![
            microphone.device(MICROPHONE, Way::In(Box::new(hears))),
            speaker.device(SPEAKER, Way::Out(Box::new(plays))),
        ]);
        let manners = Manners::default();
        lock(&manners).extend([(MICROPHONE, microphone.manner), (SPEAKER, speaker.manner)]);
        let config = AudioConfig {
            microphone: MicrophoneSource::Device(None),
            speaker: SpeakerSink::Device(None),
            voice: VoiceChoice { processing: Processing::Off, ..VoiceChoice::default() },
            levelling: Processing::Off,
            ..AudioConfig::default()
        };
        let rig = Rig::new(sound_host(&devices, &manners, &clock), Arc::clone(&devices), config).unwrap();
        let stream = rig.engine.open_stream();
        rig.engine.set_sink(Some(rig.wire(&stream)));
        Self { rig, devices, manners, stream, played, speaker_hz, dead }
    }

    fn run_until(&mut self, seconds: f64) {
        self.rig.run_until(Duration::from_secs_f64(seconds));
    }

    /// When something was told for the first time after so many seconds.
    fn told(&self, after: f64, wanted: impl Fn(&AudioEvent) -> bool) -> Option<f64> {
        let told = self.rig.told.iter().map(|(at, event)| (at.as_secs_f64(), event));
        told.filter(|(at, _)| *at >= after).find(|(_, event)| wanted(event)).map(|(at, _)| at)
    }

    /// What was heard in these seconds.
    fn heard(&self, from: usize, until: usize) -> Heard {
        let played = lock(&self.played).clone();
        let sound = match self.speaker_hz.round() as u32 {
            48_000 => played,
            hz => resample_whole(&played, hz, 48_000).unwrap(),
        };
        let mut heard = Heard::default();
        let part = &sound[from * 48_000..(until * 48_000).min(sound.len())];
        for at in chirps(part) {
            // A chirp begins with each second.
            heard.delays_ms.push((at % 48_000) as f32 / 48.0);
        }
        let late = heard.delays_ms.iter().copied().fold(0.0, f32::max) as usize * 48;
        for second in part.chunks_exact(48_000) {
            // The tone is there from 200 ms after a second's beginning to 950 ms.
            let tone = &second[(15_000 + late).min(24_000)..45_000];
            let strongest = (0..400).map(|i| 400.0 + 0.2 * i as f32);
            let strongest =
                strongest.max_by(|a, b| power_at(tone, *a, 48_000.0).total_cmp(&power_at(tone, *b, 48_000.0)));
            heard.hz.extend(strongest);
            heard.gaps += tone.chunks_exact(120).filter(|piece| rms(piece) < 0.4 * TONE_LOUDNESS).count();
            heard.steps.extend(tone.windows(2).map(|w| (w[1] - w[0]).abs()));
        }
        heard.steps.sort_by(f32::total_cmp);
        heard
    }
}

#[derive(Debug, Default)]
struct Heard {
    /// Strongest frequency of each second.
    hz: Vec<f32>,
    /// Pieces of 2.5 ms in which the tone is missing.
    gaps: usize,
    /// From one sample to the next, sorted.
    steps: Vec<f32>,
    delays_ms: Vec<f32>,
}

/// The largest step of the tone, and what is allowed for the codec.
const SMOOTH: f32 = TONE_LOUDNESS * std::f32::consts::TAU * TONE_HZ / 48_000.0 * 1.7;

impl Heard {
    fn clicks(&self, limit: f32) -> usize {
        self.steps.iter().filter(|step| **step > limit).count()
    }

    fn delay_ms(&self) -> (f32, f32) {
        self.delays_ms.iter().fold((f32::MAX, f32::MIN), |(low, high), ms| (low.min(*ms), high.max(*ms)))
    }

    /// The tone is right, without gap or click, and no later than this.
    fn is_whole(&self, what: &str, limit: f32, most_ms: f32) {
        let clicks = self.clicks(limit);
        let (least, most) = self.delay_ms();
        println!("{what}: {:?} Hz, {} gaps, {clicks} clicks, {least:.1} to {most:.1} ms", self.hz, self.gaps);
        assert!(!self.hz.is_empty() && self.delays_ms.len() + 1 >= self.hz.len(), "{what}: chirps are missing");
        assert!(self.hz.iter().all(|hz| (hz / TONE_HZ - 1.0).abs() < 0.005), "{what}: {:?}", self.hz);
        assert_eq!((self.gaps, clicks), (0, 0), "{what}: gaps and clicks");
        assert!(most <= most_ms, "{what}: {most} ms late");
    }
}

#[test]
fn any_rate_channel_count_and_format_sounds_right() {
    let format = |format| Odd { manner: Manner { format, ..Manner::default() }, ..Odd::default() };
    let odd = [
        ("8 kHz", Odd { manner: format(SampleFormat::I16).manner, ..Odd::rate(8_000) }),
        ("44.1 kHz stereo", Odd { channels: 2, manner: format(SampleFormat::I16).manner, ..Odd::rate(44_100) }),
        ("96 kHz", Odd::rate(96_000)),
        ("192 kHz", Odd::rate(192_000)),
        ("7.1", Odd { channels: 8, manner: format(SampleFormat::I32).manner, ..Odd::default() }),
        ("24 bit", format(SampleFormat::I24)),
        ("16 bit", format(SampleFormat::I16)),
        ("16 bit unsigned", format(SampleFormat::U16)),
        ("32 bit unsigned", format(SampleFormat::U32)),
        ("8 bit", format(SampleFormat::U8)),
        ("64 bit floating point", format(SampleFormat::F64)),
    ];
    for (what, device) in odd {
        let mut call = Call::new(&device, &device);
        call.run_until(9.0);
        // Steps of 8 bits are steps.
        let limit = SMOOTH + if device.manner.format == SampleFormat::U8 { 0.02 } else { 0.0 };
        call.heard(4, 9).is_whole(what, limit, 120.0);
        assert_eq!(call.devices.opened(), 2, "{what}: {:?}", call.rig.told);
    }
}

#[test]
fn callbacks_of_any_length_are_whole_sound() {
    let odd: [(&str, &[u32], f32); 6] = [
        ("tiny", &[16], 120.0),
        ("10 ms", &[480], 120.0),
        ("of no round number", &[441], 120.0),
        ("by turns", &[64, 1_024], 160.0),
        ("wild", &[300, 17, 900, 256, 2_000, 64, 64, 512], 260.0),
        ("43 ms", &[2_048], 260.0),
    ];
    for (what, sizes, most_ms) in odd {
        for (side, microphone, speaker) in
            [(MICROPHONE, Odd::callbacks(sizes), Odd::default()), (SPEAKER, Odd::default(), Odd::callbacks(sizes))]
        {
            let mut call = Call::new(&microphone, &speaker);
            call.run_until(25.0);
            call.heard(15, 25).is_whole(&format!("{what}, {side}"), SMOOTH, most_ms);
            assert!(call.devices.opened() <= 4, "{what}: {:?}", call.rig.told);
        }
    }
}

/// What comes at once is more than the rings are made for at first: they become larger, and no sound is lost on its way.
#[test]
fn callbacks_that_are_far_too_long_are_provided_for() {
    for (frames, most_ms) in [(4_096, 260.0), (8_192, 430.0)] {
        let long = Odd::callbacks(&[frames]);
        for (side, microphone, speaker) in [(MICROPHONE, &long, &Odd::default()), (SPEAKER, &Odd::default(), &long)] {
            let mut call = Call::new(microphone, speaker);
            call.run_until(25.0);
            call.heard(15, 25).is_whole(&format!("{frames} {side}"), SMOOTH, most_ms);
            assert!(call.devices.opened() <= 4, "{frames}: {:?}", call.rig.told);
        }
    }
}

#[test]
fn a_device_that_lies_about_its_rate_sounds_right_all_the_same() {
    for true_hz in [44_100.0, 47_000.0, 49_500.0] {
        for (side, microphone, speaker) in
            [("microphone", Odd::lying(true_hz), Odd::default()), ("speaker", Odd::default(), Odd::lying(true_hz))]
        {
            let mut call = Call::new(&microphone, &speaker);
            call.run_until(25.0);
            let before = call.heard(1, 8);
            println!("before it is known: {:?} Hz, {} gaps, {:?} ms", before.hz, before.gaps, before.delay_ms());
            call.heard(18, 25).is_whole(&format!("{true_hz} Hz, {side}"), SMOOTH, 120.0);
            let told = call.told(0.0, |e| {
                matches!(e, AudioEvent::RateCorrected { device, told_hz: 48_000, true_hz: found }
                    if device == side && (f64::from(*found) / true_hz - 1.0).abs() < 0.003)
            });
            assert!(told.is_some_and(|at| at < 10.0), "{:?}", call.rig.told);
            assert!(call.stream.stats().playout_delay_ms < 100.0, "{:?}", call.stream.stats());
        }
    }
}

#[test]
fn a_clock_that_is_off_by_less_than_a_rate_is_followed() {
    for true_hz in [47_600.0, 47_952.0, 48_048.0, 48_400.0] {
        for (side, microphone, speaker) in
            [("microphone", Odd::lying(true_hz), Odd::default()), ("speaker", Odd::default(), Odd::lying(true_hz))]
        {
            let mut call = Call::new(&microphone, &speaker);
            call.run_until(75.0);
            let before = call.heard(10, 40);
            println!(
                "as it is: {} gaps, {:?} ms, {:?}",
                before.gaps,
                before.delay_ms(),
                call.stream.stats().concealed_ms
            );
            assert!(before.gaps < 40 && before.delay_ms().1 < 120.0, "{true_hz} {side}: {} gaps", before.gaps);
            call.heard(60, 75).is_whole(&format!("{true_hz} Hz, {side}"), SMOOTH, 120.0);
        }
    }
}

#[test]
fn a_microphone_that_gives_zeros_is_told_and_so_is_its_coming_back() {
    let mut call = Call::new(&Odd::rate(44_100), &Odd::default());
    *lock(&call.dead) = true;
    call.run_until(6.0);
    let silent = call.told(0.0, |e| *e == AudioEvent::MicrophoneSilent).unwrap();
    assert!((2.9..3.6).contains(&silent), "{silent}");
    *lock(&call.dead) = false;
    call.run_until(12.0);
    let audible = call.told(0.0, |e| *e == AudioEvent::MicrophoneAudible).unwrap();
    assert!((5.9..7.1).contains(&audible), "{audible}");
    call.heard(8, 12).is_whole("awake", SMOOTH, 120.0);
    assert_eq!(call.rig.told.iter().filter(|(_, e)| *e == AudioEvent::MicrophoneSilent).count(), 1);
}

#[test]
fn a_device_whose_callbacks_stop_is_opened_anew_within_half_a_second() {
    for name in [MICROPHONE, SPEAKER] {
        let mut call = Call::new(&Odd::default(), &Odd::default());
        call.run_until(5.0);
        // Its driver hangs; a new stream works.
        call.devices.with(name, |d| d.runs = false).unwrap();
        call.run_until(5.35);
        call.devices.with(name, |d| d.runs = true).unwrap();
        call.devices.stall(name);
        call.run_until(12.0);
        let lost = call.told(5.0, |e| matches!(e, AudioEvent::MicrophoneLost(_) | AudioEvent::SpeakerLost(_))).unwrap();
        let opened =
            call.told(lost, |e| matches!(e, AudioEvent::MicrophoneOpened(_) | AudioEvent::SpeakerOpened(_))).unwrap();
        println!("{name}: lost at {lost}, open again at {opened}");
        assert!(opened <= 5.5, "{name}: {:?}", call.rig.told);
        call.heard(8, 12).is_whole(name, SMOOTH, 120.0);
    }
}

#[test]
fn a_device_that_cannot_be_opened_is_named_and_the_other_goes_on() {
    let cases = [
        (ErrorKind::DeviceBusy, "dev.mic_busy", "dev.spk_busy"),
        (ErrorKind::PermissionDenied, "dev.mic_denied", "dev.spk_refuses"),
        (ErrorKind::DeviceNotAvailable, "dev.mic_none", "dev.spk_none"),
        (ErrorKind::UnsupportedConfig, "dev.mic_refuses", "dev.spk_refuses"),
        (ErrorKind::BackendError, "dev.mic_refuses", "dev.spk_refuses"),
    ];
    for (kind, microphone, speaker) in cases {
        let refuses = Odd { manner: Manner { refuses: Some(kind), ..Manner::default() }, ..Odd::default() };
        let mut call = Call::new(&refuses, &Odd::default());
        call.run_until(6.0);
        let failed = |call: &Call| -> Vec<&'static str> {
            let told = call.rig.told.iter().filter_map(|(_, event)| match event {
                AudioEvent::MicrophoneFailed(error) | AudioEvent::SpeakerFailed(error) => Some(error.key()),
                _ => None,
            });
            told.collect()
        };
        assert_eq!(failed(&call), [microphone], "told once: {:?}", call.rig.told);
        assert!(call.told(0.0, |e| *e == AudioEvent::SpeakerOpened(SPEAKER.to_owned())).is_some());
        // It is tried again, and works as soon as it can be had.
        lock(&call.manners).remove(MICROPHONE);
        call.run_until(14.0);
        call.heard(10, 14).is_whole("had at last", SMOOTH, 120.0);

        let mut call = Call::new(&Odd::default(), &refuses);
        call.run_until(6.0);
        assert_eq!(failed(&call), [speaker], "told once: {:?}", call.rig.told);
        assert!(call.rig.engine.packets_sent() > 250, "what I say is sent all the same");
        lock(&call.manners).remove(SPEAKER);
        call.run_until(14.0);
        call.heard(10, 14).is_whole("had at last", SMOOTH, 120.0);
    }
}

#[test]
fn clocks_that_drift_neither_run_dry_nor_pile_up_through_cpal() {
    let host = |devices: Arc<VirtualDevices>, clock: Clock| sound_host(&devices, &Manners::default(), &clock);
    let figures = drift_on(200.0, -200.0, Duration::from_secs(80), host).unwrap();
    println!("{figures:?}");
    assert_eq!((figures.missing_frames, figures.rebuilt, figures.concealed_ms), (0, 0, 0), "{figures:?}");
    assert!(figures.heard >= 58 && figures.delay_ms.1 - figures.delay_ms.0 <= 10.0, "{figures:?}");
    // What is measured without cpal in between is the same.
    let direct = drift(200.0, -200.0, Duration::from_secs(80)).unwrap();
    assert!((figures.delay_ms.0 - direct.delay_ms.0).abs() < 3.0, "{figures:?} {direct:?}");
}

#[test]
fn an_echo_through_cpal_is_gone() {
    let host = |devices: Arc<VirtualDevices>, clock: Clock| sound_host(&devices, &Manners::default(), &clock);
    let figures = echo_on(Stages::default(), host).unwrap();
    println!("{figures:?}");
    assert!(figures.reduced_db[2] >= 40.0 && figures.near_end_db.abs() <= 1.0, "{figures:?}");
}

#[test]
fn a_device_that_takes_only_its_own_lengths_of_callbacks_is_asked_for_those() {
    for frames in [(1_024, 4_096), (16, 64)] {
        let own = Odd { manner: Manner { frames: Some(frames), ..Manner::default() }, ..Odd::default() };
        let mut call = Call::new(&own, &own);
        call.run_until(12.0);
        call.heard(7, 12).is_whole(&format!("{frames:?}"), SMOOTH, 200.0);
    }
}
