//! Real microphones and speakers by cpal: PulseAudio's protocol first (it also serves PipeWire), ALSA else.
//!
//! A supervisor thread, started with the first device, opens and closes streams, so that a hanging sound server never
//! stops the audio thread. Callbacks only move samples through wait-free rings and count; a callback that does not come
//! for 350 ms, or an error, makes the supervisor rebuild the stream.

use super::engine::{AudioEvent, EngineShared};
use super::stream::lock;
use super::{AudioError, SAMPLE_RATE_HZ};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Data, ErrorKind, FromSample, SampleFormat, StreamConfig};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Frames asked for per callback: 10 ms. PulseAudio's default would be 2 s.
const CALLBACK_FRAMES: u32 = 480;
/// Ring between callback and audio thread, in frames: 200 ms at 48 kHz; when full the newest samples are dropped.
const RING_FRAMES: usize = 9_600;
/// How often the supervisor looks while a device is open.
const LOOK: Duration = Duration::from_millis(50);
/// No callback for this long is a stall.
const STALL: Duration = Duration::from_millis(350);
/// The first callback may take longer.
const FIRST_CALLBACK: Duration = Duration::from_secs(3);
/// Between two tries to open a device.
const RETRY: Duration = Duration::from_millis(500);
/// The later tries of a device that does not come.
const RETRY_LATER: Duration = Duration::from_secs(2);
/// How long a sound server may take to set up a stream.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the system's default is looked at when it is to be followed.
const FOLLOW_DEFAULT: Duration = Duration::from_secs(2);

/// One device of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioDevice {
    /// Stable id, for `device:ID` and the settings.
    pub id: String,
    /// Name to show.
    pub name: String,
    /// The system's default.
    pub is_default: bool,
    /// What a speaker plays, as a source: not a microphone, but usable as one.
    pub is_monitor: bool,
}

/// Devices present now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AudioDevices {
    /// Sound API in use (`pulseaudio`, `alsa` …).
    pub host: String,
    /// Capture devices, monitors last.
    pub microphones: Vec<AudioDevice>,
    /// Playback devices.
    pub speakers: Vec<AudioDevice>,
}

/// Lists the devices. May block as long as the sound server does: not for the window's thread. Empty without any.
pub fn list_devices() -> AudioDevices {
    let host = cpal::default_host();
    let default_in = host.default_input_device().and_then(|d| d.id().ok());
    let default_out = host.default_output_device().and_then(|d| d.id().ok());
    let mut list = AudioDevices { host: host.id().to_string(), ..AudioDevices::default() };
    let Ok(devices) = host.devices() else { return list };
    for device in devices {
        let (Ok(id), Ok(description)) = (device.id(), device.description()) else { continue };
        if is_plugin(&id) {
            continue;
        }
        let entry = |is_default| AudioDevice {
            id: id.to_string(),
            name: description.name().to_owned(),
            is_default,
            is_monitor: is_monitor(id.id()),
        };
        // On ALSA both lists can hold the same device.
        if device.supports_input() {
            list.microphones.push(entry(default_in.as_ref() == Some(&id)));
        }
        if device.supports_output() {
            list.speakers.push(entry(default_out.as_ref() == Some(&id)));
        }
    }
    list.microphones.sort_by_key(|d| d.is_monitor);
    list
}

fn is_monitor(id: &str) -> bool {
    id.ends_with(".monitor")
}

/// ALSA lists converters as devices; nobody wants to speak into those.
fn is_plugin(id: &cpal::DeviceId) -> bool {
    const PLUGINS: [&str; 10] =
        ["null", "lavrate", "samplerate", "speexrate", "speex", "upmix", "vdownmix", "oss", "jack", "usbstream"];
    id.host().to_string().eq_ignore_ascii_case("alsa")
        && PLUGINS.iter().any(|p| id.id().split(':').next().is_some_and(|name| name == *p))
}

/// What callbacks report.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    calls: AtomicU64,
    /// Frames of the last callback.
    frames: AtomicU32,
    failed: AtomicBool,
    /// Frames that had no sound while there was something to play.
    missing: AtomicU64,
}

impl Pulse {
    /// Frames of a callback, as far as known.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed).clamp(CALLBACK_FRAMES / 4, RING_FRAMES as u32 / 4) as usize
    }

    fn beat(&self, frames: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.frames.store(frames as u32, Ordering::Relaxed);
    }
}

/// The audio thread's end of a microphone.
pub(crate) struct MicrophonePort {
    pub(crate) samples: rtrb::Consumer<f32>,
    pub(crate) rate_hz: u32,
}

/// The audio thread's end of a speaker.
pub(crate) struct SpeakerPort {
    pub(crate) samples: rtrb::Producer<f32>,
    pub(crate) rate_hz: u32,
    pub(crate) pulse: Arc<Pulse>,
}

impl SpeakerPort {
    /// Frames in the ring.
    pub(crate) fn fill(&self) -> usize {
        self.samples.buffer().capacity().saturating_sub(self.samples.slots())
    }
}

/// What is wanted: `None` nothing, `Some(None)` the default device.
type Choice = Option<Option<String>>;

#[derive(Default)]
struct Orders {
    microphone: Choice,
    speaker: Choice,
    changed: bool,
    microphone_port: Option<MicrophonePort>,
    speaker_port: Option<SpeakerPort>,
}

/// Handle to the supervisor thread; the thread ends with it.
pub(crate) struct Supervisor {
    orders: Arc<Mutex<Orders>>,
    thread: Thread,
}

impl Supervisor {
    /// Starts the thread. Call on the audio thread: that is the one callbacks wake.
    pub(crate) fn start(engine: &Arc<EngineShared>) -> Result<Self, AudioError> {
        let orders = Arc::new(Mutex::new(Orders::default()));
        let mut run = Run {
            orders: Arc::downgrade(&orders),
            engine: Arc::downgrade(engine),
            audio: std::thread::current(),
            microphone: Line::new(true),
            speaker: Line::new(false),
        };
        let join = std::thread::Builder::new()
            .name("audio-devices".to_owned())
            .spawn(move || run.run())
            .map_err(|e| AudioError::Thread(e.to_string()))?;
        Ok(Self { orders, thread: join.thread().clone() })
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let mut orders = lock(&self.orders);
        change(&mut orders);
        orders.changed = true;
        drop(orders);
        self.thread.unpark();
    }

    /// Chooses the microphone; its port comes by [`Self::take_microphone`].
    pub(crate) fn want_microphone(&self, choice: Choice) {
        self.order(|o| {
            o.microphone = choice;
            o.microphone_port = None;
        });
    }

    /// Chooses the speaker; its port comes by [`Self::take_speaker`].
    pub(crate) fn want_speaker(&self, choice: Choice) {
        self.order(|o| {
            o.speaker = choice;
            o.speaker_port = None;
        });
    }

    /// A new port, after each (re)building of the stream.
    pub(crate) fn take_microphone(&self) -> Option<MicrophonePort> {
        lock(&self.orders).microphone_port.take()
    }

    /// A new port, after each (re)building of the stream.
    pub(crate) fn take_speaker(&self) -> Option<SpeakerPort> {
        lock(&self.orders).speaker_port.take()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

/// An open stream and how it fares.
struct Open {
    /// Callbacks run as long as this lives.
    _stream: cpal::Stream,
    pulse: Arc<Pulse>,
    name: String,
    id: String,
    calls: u64,
    since: Instant,
}

/// One direction.
struct Line {
    capture: bool,
    choice: Choice,
    open: Option<Open>,
    retry_at: Option<Instant>,
    tries: u32,
    failure: Option<AudioError>,
    look_at_default: Instant,
}

enum Port {
    Microphone(MicrophonePort),
    Speaker(SpeakerPort),
}

struct Run {
    orders: Weak<Mutex<Orders>>,
    engine: Weak<EngineShared>,
    audio: Thread,
    microphone: Line,
    speaker: Line,
}

impl Run {
    fn run(&mut self) {
        loop {
            {
                let (Some(orders), Some(engine)) = (self.orders.upgrade(), self.engine.upgrade()) else { return };
                let change = {
                    let mut o = lock(&orders);
                    std::mem::take(&mut o.changed).then(|| (o.microphone.clone(), o.speaker.clone()))
                };
                if let Some((microphone, speaker)) = change {
                    self.microphone.choose(microphone);
                    self.speaker.choose(speaker);
                }
                for line in [&mut self.microphone, &mut self.speaker] {
                    let Some(port) = line.look(&engine, &self.audio) else { continue };
                    let mut o = lock(&orders);
                    // Another choice may have been made while the device opened: then this port is nobody's.
                    match port {
                        Port::Microphone(port) if o.microphone == line.choice => o.microphone_port = Some(port),
                        Port::Speaker(port) if o.speaker == line.choice => o.speaker_port = Some(port),
                        _ => {}
                    }
                    drop(o);
                    engine.dirty.store(true, Ordering::Release);
                    self.audio.unpark();
                }
            }
            let busy = self.microphone.choice.is_some() || self.speaker.choice.is_some();
            std::thread::park_timeout(if busy { LOOK } else { Duration::from_secs(5) });
        }
    }
}

impl Line {
    fn new(capture: bool) -> Self {
        Self {
            capture,
            choice: None,
            open: None,
            retry_at: None,
            tries: 0,
            failure: None,
            look_at_default: Instant::now(),
        }
    }

    fn choose(&mut self, choice: Choice) {
        if self.choice != choice {
            self.choice = choice;
            self.discard();
            self.tries = 0;
            self.failure = None;
            self.retry_at = self.choice.is_some().then(Instant::now);
        }
    }

    /// Closes the stream without waiting: a sound server that hangs makes closing hang, too. There is at most one such
    /// thread per lost stream, and the next stream is opened only when the server answers again.
    fn discard(&mut self) {
        let Some(open) = self.open.take() else { return };
        let dropped = std::thread::Builder::new().name("audio-close".to_owned()).spawn(move || drop(open));
        if let Err(error) = dropped {
            tracing::warn!(%error, "thread for closing a sound device");
        }
    }

    /// Checks the open stream, opens what is due.
    fn look(&mut self, engine: &EngineShared, audio: &Thread) -> Option<Port> {
        let now = Instant::now();
        self.check(engine, now);
        self.follow_default(now);
        if self.retry_at.is_none_or(|at| at > now) {
            return None;
        }
        let id = self.choice.as_ref()?.clone();
        let built =
            if self.capture { open_microphone(id.as_deref(), audio) } else { open_speaker(id.as_deref(), audio) };
        match built {
            Ok((open, port)) => {
                tracing::info!(device = open.name, rebuilt = self.tries, capture = self.capture, "sound device opened");
                let name = open.name.clone();
                engine.tell(if self.capture {
                    AudioEvent::MicrophoneOpened(name)
                } else {
                    AudioEvent::SpeakerOpened(name)
                });
                self.open = Some(open);
                self.retry_at = None;
                self.tries = 0;
                self.failure = None;
                self.look_at_default = Instant::now() + FOLLOW_DEFAULT;
                Some(port)
            }
            Err(error) => {
                self.tries += 1;
                self.retry_at = Some(Instant::now() + if self.tries > 4 { RETRY_LATER } else { RETRY });
                // The same failure is told once.
                if self.failure.as_ref().map(AudioError::key) != Some(error.key()) {
                    tracing::warn!(%error, "sound device");
                    self.failure = Some(error.clone());
                    engine.tell(if self.capture {
                        AudioEvent::MicrophoneFailed(error)
                    } else {
                        AudioEvent::SpeakerFailed(error)
                    });
                }
                None
            }
        }
    }

    fn check(&mut self, engine: &EngineShared, now: Instant) {
        let Some(open) = &mut self.open else { return };
        let calls = open.pulse.calls.load(Ordering::Relaxed);
        if calls != open.calls {
            open.calls = calls;
            open.since = now;
        }
        let patience = if open.calls == 0 { FIRST_CALLBACK } else { STALL };
        let stalled = now.duration_since(open.since) > patience;
        if stalled || open.pulse.failed.load(Ordering::Relaxed) {
            let name = open.name.clone();
            tracing::warn!(device = name, stalled, "sound device lost, rebuilding");
            self.retry_at = Some(now);
            engine.tell(if self.capture { AudioEvent::MicrophoneLost(name) } else { AudioEvent::SpeakerLost(name) });
            self.discard();
        }
    }

    /// With no device chosen, the system's default is followed when it changes.
    fn follow_default(&mut self, now: Instant) {
        if self.choice != Some(None) || now < self.look_at_default {
            return;
        }
        let Some(open) = &self.open else { return };
        self.look_at_default = now + FOLLOW_DEFAULT;
        if let Ok(device) = find(None, self.capture)
            && let Ok(id) = device.id()
            && id.to_string() != open.id
        {
            self.discard();
            self.retry_at = Some(now);
        }
    }
}

fn no_device(capture: bool, detail: String) -> AudioError {
    if capture { AudioError::NoMicrophone { detail } } else { AudioError::NoSpeaker { detail } }
}

fn device_error(capture: bool, error: &cpal::Error) -> AudioError {
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::PermissionDenied if capture => AudioError::MicrophoneDenied { detail },
        _ => no_device(capture, detail),
    }
}

/// The device with this id (or bare name), or the default one.
fn find(id: Option<&str>, capture: bool) -> Result<cpal::Device, AudioError> {
    let host = cpal::default_host();
    let Some(id) = id else {
        let device = if capture { host.default_input_device() } else { host.default_output_device() };
        let device = device.ok_or_else(|| no_device(capture, "no default device".to_owned()))?;
        // A server without any microphone offers what the speaker plays: never send that unasked.
        if capture && device.id().is_ok_and(|id| is_monitor(id.id())) {
            return Err(no_device(true, "only monitors of speakers".to_owned()));
        }
        return Ok(device);
    };
    host.devices()
        .map_err(|e| device_error(capture, &e))?
        .filter(|d| if capture { d.supports_input() } else { d.supports_output() })
        .find(|d| {
            d.id().is_ok_and(|known| known.to_string() == id || known.id() == id)
                || d.description().is_ok_and(|n| n.name() == id)
        })
        .ok_or_else(|| no_device(capture, format!("{id} is not there")))
}

/// 48 kHz where the device can, in a format we convert.
fn choose_config(device: &cpal::Device, capture: bool) -> Result<(StreamConfig, SampleFormat), AudioError> {
    let default = if capture { device.default_input_config() } else { device.default_output_config() }
        .map_err(|e| device_error(capture, &e))?;
    let ranges: Vec<_> = if capture {
        device.supported_input_configs().map(Iterator::collect).unwrap_or_default()
    } else {
        device.supported_output_configs().map(Iterator::collect).unwrap_or_default()
    };
    let best = ranges
        .into_iter()
        .filter(|r: &cpal::SupportedStreamConfigRange| r.channels() == default.channels())
        .filter_map(|r| r.try_with_sample_rate(SAMPLE_RATE_HZ))
        .min_by_key(|c| match c.sample_format() {
            SampleFormat::F32 => 0,
            SampleFormat::I32 => 1,
            SampleFormat::I16 => 2,
            _ => 3,
        });
    let chosen = best.filter(|c| converts(c.sample_format())).unwrap_or(default);
    if !converts(chosen.sample_format()) {
        return Err(no_device(capture, format!("sample format {} is not supported", chosen.sample_format())));
    }
    let config = StreamConfig { buffer_size: BufferSize::Fixed(CALLBACK_FRAMES), ..chosen.config() };
    Ok((config, chosen.sample_format()))
}

fn converts(format: SampleFormat) -> bool {
    matches!(
        format,
        SampleFormat::F32
            | SampleFormat::I32
            | SampleFormat::I16
            | SampleFormat::U8
            | SampleFormat::U16
            | SampleFormat::F64
    )
}

fn identify(device: &cpal::Device) -> (String, String) {
    let id = device.id().map(|id| id.to_string()).unwrap_or_default();
    let name = device.description().map(|d| d.name().to_owned()).unwrap_or_else(|_| id.clone());
    (id, name)
}

/// Errors that do not need a rebuild.
fn is_harmless(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Xrun | ErrorKind::DeviceChanged | ErrorKind::RealtimeDenied)
}

fn open_microphone(id: Option<&str>, audio: &Thread) -> Result<(Open, Port), AudioError> {
    let device = find(id, true)?;
    let (config, format) = choose_config(&device, true)?;
    let channels = usize::from(config.channels.max(1));
    let rate_hz = config.sample_rate;
    let (mut producer, samples) = rtrb::RingBuffer::new(RING_FRAMES);
    let pulse = Arc::new(Pulse::default());
    let (beat, failed, wake) = (Arc::clone(&pulse), Arc::clone(&pulse), audio.clone());
    let callback = move |data: &Data, _: &cpal::InputCallbackInfo| {
        let frames = match data.sample_format() {
            SampleFormat::F32 => take::<f32>(data, channels, &mut producer),
            SampleFormat::I32 => take::<i32>(data, channels, &mut producer),
            SampleFormat::I16 => take::<i16>(data, channels, &mut producer),
            SampleFormat::U8 => take::<u8>(data, channels, &mut producer),
            SampleFormat::U16 => take::<u16>(data, channels, &mut producer),
            SampleFormat::F64 => take::<f64>(data, channels, &mut producer),
            _ => 0,
        };
        beat.beat(frames);
        wake.unpark();
    };
    let on_error = move |error: cpal::Error| {
        if !is_harmless(error.kind()) {
            failed.failed.store(true, Ordering::Relaxed);
        }
    };
    let stream = device
        .build_input_stream_raw(config, format, callback, on_error, Some(BUILD_TIMEOUT))
        .map_err(|e| device_error(true, &e))?;
    stream.play().map_err(|e| device_error(true, &e))?;
    let (id, name) = identify(&device);
    let open = Open { _stream: stream, pulse, name, id, calls: 0, since: Instant::now() };
    Ok((open, Port::Microphone(MicrophonePort { samples, rate_hz })))
}

/// Mixes the channels of each frame into the ring; what finds no room is dropped.
fn take<T: cpal::SizedSample>(data: &Data, channels: usize, ring: &mut rtrb::Producer<f32>) -> usize
where
    f32: FromSample<T>,
{
    let Some(samples) = data.as_slice::<T>() else { return 0 };
    let mut frames = 0;
    for frame in samples.chunks_exact(channels) {
        let sum: f32 = frame.iter().map(|s| f32::from_sample_(*s)).sum();
        let _ = ring.push(sum / channels as f32);
        frames += 1;
    }
    frames
}

fn open_speaker(id: Option<&str>, audio: &Thread) -> Result<(Open, Port), AudioError> {
    let device = find(id, false)?;
    let (config, format) = choose_config(&device, false)?;
    let channels = usize::from(config.channels.max(1));
    let rate_hz = config.sample_rate;
    let (samples, mut consumer) = rtrb::RingBuffer::new(RING_FRAMES);
    let pulse = Arc::new(Pulse::default());
    let (beat, failed, wake) = (Arc::clone(&pulse), Arc::clone(&pulse), audio.clone());
    let callback = move |data: &mut Data, _: &cpal::OutputCallbackInfo| {
        let (frames, missing) = match data.sample_format() {
            SampleFormat::F32 => give::<f32>(data, channels, &mut consumer),
            SampleFormat::I32 => give::<i32>(data, channels, &mut consumer),
            SampleFormat::I16 => give::<i16>(data, channels, &mut consumer),
            SampleFormat::U8 => give::<u8>(data, channels, &mut consumer),
            SampleFormat::U16 => give::<u16>(data, channels, &mut consumer),
            SampleFormat::F64 => give::<f64>(data, channels, &mut consumer),
            _ => (0, 0),
        };
        beat.beat(frames);
        beat.missing.fetch_add(missing, Ordering::Relaxed);
        wake.unpark();
    };
    let on_error = move |error: cpal::Error| {
        if !is_harmless(error.kind()) {
            failed.failed.store(true, Ordering::Relaxed);
        }
    };
    let stream = device
        .build_output_stream_raw(config, format, callback, on_error, Some(BUILD_TIMEOUT))
        .map_err(|e| device_error(false, &e))?;
    stream.play().map_err(|e| device_error(false, &e))?;
    let (id, name) = identify(&device);
    let open = Open { _stream: stream, pulse: Arc::clone(&pulse), name, id, calls: 0, since: Instant::now() };
    Ok((open, Port::Speaker(SpeakerPort { samples, rate_hz, pulse })))
}

/// Fills all channels from the ring, silence where it is empty. Returns frames and those without sound.
fn give<T: cpal::SizedSample + FromSample<f32>>(
    data: &mut Data,
    channels: usize,
    ring: &mut rtrb::Consumer<f32>,
) -> (usize, u64) {
    let Some(samples) = data.as_slice_mut::<T>() else { return (0, 0) };
    let (mut frames, mut missing) = (0, 0);
    for frame in samples.chunks_exact_mut(channels) {
        let value = match ring.pop() {
            Ok(value) => value,
            Err(_) => {
                missing += 1;
                0.0
            }
        };
        frame.fill(T::from_sample_(value));
        frames += 1;
    }
    (frames, missing)
}
