//! Real microphones and speakers by cpal: PulseAudio's protocol first (it also serves PipeWire), ALSA else.
//!
//! A supervisor thread, started with the first device, opens and closes streams, so that a hanging sound server never
//! stops the audio thread. Callbacks only move samples through wait-free rings and count; a callback that does not come
//! for 350 ms, or an error, makes the supervisor rebuild the stream.

use super::AudioError;
use super::engine::{AudioEvent, EngineShared};
use super::rates::RateWatch;
use super::stream::lock;
use super::streams::{open_microphone, open_speaker};
use cpal::traits::{DeviceTrait, HostTrait};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Frames asked for per callback: 10 ms. PulseAudio's default would be 2 s.
pub(crate) const CALLBACK_FRAMES: u32 = 480;
/// On a machine too busy for that, buffers are doubled up to this: 40 ms.
const CALLBACK_FRAMES_MAX: u32 = 1_920;
/// Samples lost in this window ...
const GLITCH_WINDOW: Duration = Duration::from_secs(2);
/// ... by more than this share mean that the machine is too busy; clocks of devices are true to 0.1 %.
const GLITCH_SHARE: f64 = 0.012;
/// Ring between callback and audio thread, in frames: 200 ms at 48 kHz; when full the newest samples are dropped.
pub(crate) const RING_FRAMES: usize = 9_600;
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
/// How often the system is asked which devices there are, while one is in use. The default is followed by the same answer.
const WATCH: Duration = Duration::from_secs(2);

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
    /// Capture devices: the system's default first, monitors last.
    pub microphones: Vec<AudioDevice>,
    /// Playback devices, the system's default first.
    pub speakers: Vec<AudioDevice>,
}

/// Lists the devices. May block as long as the sound server does: not for the window's thread. Empty without any.
pub fn list_devices() -> AudioDevices {
    super::streams::hush();
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
    // The system's own choice is offered first.
    list.microphones.sort_by_key(|d| (d.is_monitor, !d.is_default));
    list.speakers.sort_by_key(|d| !d.is_default);
    list
}

pub(crate) fn is_monitor(id: &str) -> bool {
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
    pub(crate) calls: AtomicU64,
    /// Frames of all callbacks.
    pub(crate) total: AtomicU64,
    /// Frames of the last callback.
    pub(crate) frames: AtomicU32,
    pub(crate) failed: AtomicBool,
    /// Frames that the ring had no sound for.
    pub(crate) missing: AtomicU64,
    /// Frames a second as found by counting, where the device is not true to what it says; else 0.
    pub(crate) true_rate_hz: AtomicU32,
    /// Whether the audio thread has something to play and wants to be woken.
    pub(crate) active: AtomicBool,
}

impl Pulse {
    /// Frames of a callback, as far as known.
    pub(crate) fn frames(&self) -> usize {
        self.frames.load(Ordering::Relaxed).clamp(CALLBACK_FRAMES / 4, RING_FRAMES as u32 / 4) as usize
    }

    /// Frames filled with silence so far.
    pub(crate) fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Says whether callbacks of the speaker shall wake the audio thread.
    pub(crate) fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Relaxed);
    }

    /// The rate at which frames really come or go.
    pub(crate) fn rate_hz(&self, told_hz: u32) -> u32 {
        match self.true_rate_hz.load(Ordering::Relaxed) {
            0 => told_hz,
            hz => hz,
        }
    }

    /// Notes a callback.
    pub(crate) fn beat(&self, frames: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(frames as u64, Ordering::Relaxed);
        self.frames.store(frames as u32, Ordering::Relaxed);
    }
}

/// The audio thread's end of a microphone.
pub(crate) struct MicrophonePort {
    pub(crate) samples: rtrb::Consumer<f32>,
    pub(crate) rate_hz: u32,
    pub(crate) pulse: Arc<Pulse>,
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
        self.samples.buffer().capacity().saturating_sub(self.samples.slots()) / 2
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
            list: ListWatch::default(),
            list_at: Instant::now(),
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
pub(crate) struct Open {
    /// Callbacks run as long as this lives.
    pub(crate) _stream: cpal::Stream,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) calls: u64,
    pub(crate) since: Instant,
    pub(crate) rate_hz: u32,
    /// When the window for [`GLITCH_SHARE`] began, and the frames until then.
    pub(crate) window: Option<(Instant, u64)>,
    pub(crate) rates: RateWatch,
}

/// One direction.
struct Line {
    capture: bool,
    choice: Choice,
    open: Option<Open>,
    retry_at: Option<Instant>,
    tries: u32,
    failure: Option<AudioError>,
    buffer_frames: u32,
    /// The rebuild is for a larger buffer, which nobody needs to be told.
    silent_rebuild: bool,
}

/// The audio thread's end of either.
pub(crate) enum Port {
    Microphone(MicrophonePort),
    Speaker(SpeakerPort),
}

/// Notices when devices come and go.
#[derive(Debug, Default)]
struct ListWatch {
    known: Option<AudioDevices>,
}

impl ListWatch {
    fn is_news(&mut self, devices: &AudioDevices) -> bool {
        let news = self.known.as_ref().is_some_and(|known| known != devices);
        if news || self.known.is_none() {
            self.known = Some(devices.clone());
        }
        news
    }
}

struct Run {
    list: ListWatch,
    list_at: Instant,
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
                self.watch_list(&engine);
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
            let busy = self.is_busy();
            std::thread::park_timeout(if busy { LOOK } else { Duration::from_secs(5) });
        }
    }
}

impl Run {
    fn is_busy(&self) -> bool {
        self.microphone.choice.is_some() || self.speaker.choice.is_some()
    }

    /// Tells what was plugged in or out. Not while a stream is silent: a server that hangs would keep us from noticing.
    fn watch_list(&mut self, engine: &EngineShared) {
        let now = Instant::now();
        let well = |line: &Line| line.open.as_ref().is_none_or(|open| open.since.elapsed() < STALL / 2);
        if !self.is_busy() || now < self.list_at || !well(&self.microphone) || !well(&self.speaker) {
            return;
        }
        let devices = list_devices();
        self.list_at = Instant::now() + WATCH;
        if self.list.is_news(&devices) {
            engine.tell(AudioEvent::DevicesChanged(devices.clone()));
        }
        self.microphone.follow(&devices, now);
        self.speaker.follow(&devices, now);
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
            buffer_frames: CALLBACK_FRAMES,
            silent_rebuild: false,
        }
    }

    fn choose(&mut self, choice: Choice) {
        if self.choice != choice {
            self.choice = choice;
            self.buffer_frames = CALLBACK_FRAMES;
            self.silent_rebuild = false;
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
        self.check_glitches(now);
        if self.retry_at.is_none_or(|at| at > now) {
            return None;
        }
        let id = self.choice.as_ref()?.clone();
        let built = if self.capture {
            open_microphone(id.as_deref(), audio, self.buffer_frames)
        } else {
            open_speaker(id.as_deref(), audio, self.buffer_frames)
        };
        match built {
            Ok((open, port)) => {
                tracing::info!(device = open.name, rebuilt = self.tries, capture = self.capture, "sound device opened");
                let name = open.name.clone();
                if !std::mem::take(&mut self.silent_rebuild) {
                    engine.tell(if self.capture {
                        AudioEvent::MicrophoneOpened(name)
                    } else {
                        AudioEvent::SpeakerOpened(name)
                    });
                }
                self.open = Some(open);
                self.retry_at = None;
                self.tries = 0;
                self.failure = None;
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

    /// A stream that loses samples all the time gets larger buffers: more delay, but the sound is whole, and the echo
    /// canceller keeps its alignment.
    fn check_glitches(&mut self, now: Instant) {
        let Some(open) = &mut self.open else { return };
        let total = open.pulse.total.load(Ordering::Relaxed);
        if open.calls < 50 {
            return;
        }
        let (began, before) = *open.window.get_or_insert((now, total));
        let elapsed = now.duration_since(began);
        if elapsed < GLITCH_WINDOW {
            return;
        }
        open.window = Some((now, total));
        let counted_hz = total.saturating_sub(before) as f64 / elapsed.as_secs_f64();
        let (told_hz, name) = (open.pulse.rate_hz(open.rate_hz), &open.name);
        if let Some(hz) = open.rates.counted(counted_hz, told_hz) {
            tracing::warn!(device = name, told_hz, counted_hz, "the device runs at another rate than it says");
            open.pulse.true_rate_hz.store(hz, Ordering::Relaxed);
            return;
        }
        if open.rates.suspects() {
            return;
        }
        let expected = elapsed.as_secs_f64() * f64::from(told_hz);
        let lost = 1.0 - total.saturating_sub(before) as f64 / expected.max(1.0);
        if lost > GLITCH_SHARE && self.buffer_frames < CALLBACK_FRAMES_MAX {
            self.buffer_frames *= 2;
            tracing::warn!(capture = self.capture, lost, frames = self.buffer_frames, "sound is lost, larger buffers");
            self.silent_rebuild = true;
            self.retry_at = Some(now);
            self.discard();
        }
    }

    /// Follows the system's default where no device is chosen, and takes a device that was missing as soon as it is there.
    fn follow(&mut self, devices: &AudioDevices, now: Instant) {
        let list = if self.capture { &devices.microphones } else { &devices.speakers };
        match (&self.choice, &self.open) {
            (Some(None), Some(open)) => {
                let default = list.iter().find(|d| d.is_default && !(self.capture && d.is_monitor));
                if default.is_some_and(|d| d.id != open.id) {
                    self.discard();
                    self.retry_at = Some(now);
                }
            }
            (Some(Some(id)), None) if list.iter().any(|d| d.id == *id || d.name == *id) => self.retry_at = Some(now),
            (Some(None), None) if list.iter().any(|d| d.is_default) => self.retry_at = Some(now),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_list_is_no_news_and_a_change_is() {
        let device = |id: &str, is_default| AudioDevice {
            id: id.to_owned(),
            name: id.to_uppercase(),
            is_default,
            is_monitor: false,
        };
        let one = AudioDevices { microphones: vec![device("a", true)], ..AudioDevices::default() };
        let two = AudioDevices { microphones: vec![device("b", true), device("a", false)], ..AudioDevices::default() };
        let mut watch = ListWatch::default();
        assert!(!watch.is_news(&one) && !watch.is_news(&one));
        assert!(watch.is_news(&two) && !watch.is_news(&two));
        assert!(watch.is_news(&AudioDevices::default()), "everything unplugged");
    }
}
