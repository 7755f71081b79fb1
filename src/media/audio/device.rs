//! Real microphones and speakers by cpal: PulseAudio's protocol first (it also serves PipeWire), ALSA else.
//!
//! Threads of their own, one for each direction and one that lists, open and close streams, so that a hanging sound server
//! never stops the audio thread. Callbacks only move samples through wait-free rings and count (`pulse`); what is
//! done when they do not come is in `line`.

use super::AudioError;
use super::engine::{AudioEvent, EngineShared};
use super::line::Line;
use super::pulse::Pulse;
use super::stream::lock;
use cpal::traits::{DeviceTrait, HostTrait};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How often a line of ours is looked at while its device is open.
const LOOK: Duration = Duration::from_millis(100);
/// The same while nothing is wanted of it; a wish wakes it.
const REST: Duration = Duration::from_secs(5);
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
pub(crate) type Choice = Option<Option<String>>;

/// A wish for one direction, and what came of it.
struct Order<P> {
    choice: Choice,
    /// Counts wishes: the same device chosen once more is opened anew, since whoever chose it waits for a port.
    wish: u64,
    port: Option<P>,
}

impl<P> Default for Order<P> {
    fn default() -> Self {
        Self { choice: None, wish: 0, port: None }
    }
}

impl<P> Order<P> {
    fn want(&mut self, choice: Choice) {
        self.choice = choice;
        self.wish += 1;
        self.port = None;
    }
}

#[derive(Default)]
struct Orders {
    microphone: Order<MicrophonePort>,
    speaker: Order<SpeakerPort>,
    /// What the system said last, and how often it has been asked.
    devices: Option<Arc<AudioDevices>>,
    asked: u64,
}

impl Orders {
    fn is_busy(&self) -> bool {
        self.microphone.choice.is_some() || self.speaker.choice.is_some()
    }
}

/// Handle to the threads that open and watch devices; they end with it.
pub(crate) struct Supervisor {
    orders: Arc<Mutex<Orders>>,
    microphone: Thread,
    speaker: Thread,
    watch: Thread,
}

impl Supervisor {
    /// Starts the threads. Call on the audio thread: that is the one callbacks wake.
    pub(crate) fn start(engine: &Arc<EngineShared>) -> Result<Self, AudioError> {
        let orders = Arc::new(Mutex::new(Orders::default()));
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            started.map(|join| join.thread().clone()).map_err(|e| AudioError::Thread(e.to_string()))
        };
        let line = |capture| {
            let mut run = LineRun {
                orders: Arc::downgrade(&orders),
                engine: Arc::downgrade(engine),
                audio: std::thread::current(),
                line: Line::new(capture),
                wish: 0,
                asked: 0,
            };
            spawn(if capture { "audio-in" } else { "audio-out" }, Box::new(move || run.run()))
        };
        let (microphone, speaker) = (line(true)?, line(false)?);
        let mut watch = Watch {
            known: None,
            orders: Arc::downgrade(&orders),
            engine: Arc::downgrade(engine),
            lines: [microphone.clone(), speaker.clone()],
        };
        let watch = spawn("audio-devices", Box::new(move || watch.run()))?;
        Ok(Self { orders, microphone, speaker, watch })
    }

    /// Chooses the microphone; its port comes by [`Self::take_microphone`].
    pub(crate) fn want_microphone(&self, choice: Choice) {
        lock(&self.orders).microphone.want(choice);
        self.microphone.unpark();
        self.watch.unpark();
    }

    /// Chooses the speaker; its port comes by [`Self::take_speaker`].
    pub(crate) fn want_speaker(&self, choice: Choice) {
        lock(&self.orders).speaker.want(choice);
        self.speaker.unpark();
        self.watch.unpark();
    }

    /// A new port, after each (re)building of the stream.
    pub(crate) fn take_microphone(&self) -> Option<MicrophonePort> {
        lock(&self.orders).microphone.port.take()
    }

    /// A new port, after each (re)building of the stream.
    pub(crate) fn take_speaker(&self) -> Option<SpeakerPort> {
        lock(&self.orders).speaker.port.take()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        for thread in [&self.microphone, &self.speaker, &self.watch] {
            thread.unpark();
        }
    }
}

/// The audio thread's end of either.
pub(crate) enum Port {
    Microphone(MicrophonePort),
    Speaker(SpeakerPort),
}

/// The thread of one direction. Each has its own: one that hangs in the sound server keeps the other from nothing.
struct LineRun {
    orders: Weak<Mutex<Orders>>,
    engine: Weak<EngineShared>,
    audio: Thread,
    line: Line,
    wish: u64,
    asked: u64,
}

impl LineRun {
    fn run(&mut self) {
        while self.step() {
            std::thread::park_timeout(if self.line.is_wanted() { LOOK } else { REST });
        }
    }

    /// `false` at the end.
    fn step(&mut self) -> bool {
        let (Some(orders), Some(engine)) = (self.orders.upgrade(), self.engine.upgrade()) else { return false };
        let (choice, wish, devices) = {
            let o = lock(&orders);
            let (choice, wish) = match self.line.is_microphone() {
                true => (o.microphone.choice.clone(), o.microphone.wish),
                false => (o.speaker.choice.clone(), o.speaker.wish),
            };
            let news = std::mem::replace(&mut self.asked, o.asked) != o.asked;
            (choice, wish, o.devices.clone().filter(|_| news))
        };
        if std::mem::replace(&mut self.wish, wish) != wish {
            self.line.choose(choice);
        }
        if let Some(devices) = devices {
            self.line.follow(&devices, &engine, Instant::now());
        }
        if let Some(port) = self.line.look(&engine, &self.audio) {
            let mut o = lock(&orders);
            // Another choice may have been made while the device opened: then this port is nobody's.
            match port {
                Port::Microphone(port) if o.microphone.wish == wish => o.microphone.port = Some(port),
                Port::Speaker(port) if o.speaker.wish == wish => o.speaker.port = Some(port),
                _ => {}
            }
            drop(o);
            engine.dirty.store(true, Ordering::Release);
            self.audio.unpark();
        }
        true
    }
}

/// The thread that asks which devices there are. The sound server may take its time over that, or never answer: nobody
/// waits for this thread.
struct Watch {
    known: Option<Arc<AudioDevices>>,
    orders: Weak<Mutex<Orders>>,
    engine: Weak<EngineShared>,
    lines: [Thread; 2],
}

impl Watch {
    fn run(&mut self) {
        loop {
            let Some(busy) = self.orders.upgrade().map(|orders| lock(&orders).is_busy()) else { return };
            if busy {
                let devices = Arc::new(list_devices());
                let (Some(orders), Some(engine)) = (self.orders.upgrade(), self.engine.upgrade()) else { return };
                {
                    let mut o = lock(&orders);
                    o.devices = Some(Arc::clone(&devices));
                    o.asked += 1;
                }
                self.lines.iter().for_each(Thread::unpark);
                if self.is_news(&devices) {
                    engine.tell(AudioEvent::DevicesChanged((*devices).clone()));
                }
            }
            std::thread::park_timeout(if busy { WATCH } else { REST });
        }
    }

    /// Whether something was plugged in or out. The first list is no news.
    fn is_news(&mut self, devices: &Arc<AudioDevices>) -> bool {
        let news = self.known.as_ref().is_some_and(|known| known != devices);
        if news || self.known.is_none() {
            self.known = Some(Arc::clone(devices));
        }
        news
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
        let one = Arc::new(AudioDevices { microphones: vec![device("a", true)], ..AudioDevices::default() });
        let two = Arc::new(AudioDevices {
            microphones: vec![device("b", true), device("a", false)],
            ..AudioDevices::default()
        });
        let lines = [std::thread::current(), std::thread::current()];
        let mut watch = Watch { known: None, orders: Weak::new(), engine: Weak::new(), lines };
        assert!(!watch.is_news(&one) && !watch.is_news(&one));
        assert!(watch.is_news(&two) && !watch.is_news(&two));
        assert!(watch.is_news(&Arc::default()), "everything unplugged");
    }
}
