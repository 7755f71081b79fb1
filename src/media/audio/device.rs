//! Real microphones and speakers by cpal: PulseAudio's protocol first (it also serves PipeWire), ALSA else.
//!
//! Threads of their own, one for each direction and one that lists, open and close streams, so that a hanging sound server
//! never stops the audio thread. Callbacks only move samples through wait-free rings and count (`pulse`); what is
//! done when they do not come is in `line`.

use super::AudioError;
use super::engine::{AudioEvent, EngineShared};
use super::host::SoundHost;
use super::line::Line;
use super::pulse::Pulse;
use super::stream::lock;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::thread::Thread;
use std::time::Duration;

/// How often a line of ours is looked at while its device is open.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// The same while nothing is wanted of it; a wish wakes it.
const REST: Duration = Duration::from_secs(5);
/// How often the system is asked which devices there are, while one is in use. The default is followed by the same answer.
pub(crate) const WATCH: Duration = Duration::from_secs(2);

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
    /// Number under which a sound server has it: another one after it was unplugged and plugged in again.
    pub instance: Option<u32>,
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

/// Lists the devices of this computer. May block as long as the sound server does: not for the window's thread. Empty
/// without any.
pub fn list_devices() -> AudioDevices {
    SoundHost::default().list_devices()
}

pub(crate) fn is_monitor(id: &str) -> bool {
    id.ends_with(".monitor")
}

/// ALSA lists converters as devices; nobody wants to speak into those.
pub(crate) fn is_plugin(id: &cpal::DeviceId) -> bool {
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
    microphone: Option<Thread>,
    speaker: Option<Thread>,
    watch: Option<Thread>,
}

impl Supervisor {
    /// Starts the threads. Call on the audio thread: that is the one callbacks wake.
    pub(crate) fn start(engine: &Arc<EngineShared>, host: &SoundHost) -> Result<Self, AudioError> {
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            started.map(|join| join.thread().clone()).map_err(|e| AudioError::Thread(e.to_string()))
        };
        let (mut this, [mut microphone, mut speaker], mut watch) = Self::standing(engine, host);
        let lines = [
            spawn("audio-in", Box::new(move || microphone.run()))?,
            spawn("audio-out", Box::new(move || speaker.run()))?,
        ];
        watch.lines = lines.to_vec();
        let watch = spawn("audio-devices", Box::new(move || watch.run()))?;
        let [microphone, speaker] = lines;
        (this.microphone, this.speaker, this.watch) = (Some(microphone), Some(speaker), Some(watch));
        Ok(this)
    }

    /// One without threads: whoever has the runs takes their steps.
    pub(crate) fn standing(engine: &Arc<EngineShared>, host: &SoundHost) -> (Self, [LineRun; 2], Watch) {
        let orders = Arc::new(Mutex::new(Orders::default()));
        let line = |capture| LineRun {
            orders: Arc::downgrade(&orders),
            engine: Arc::downgrade(engine),
            audio: std::thread::current(),
            line: Line::new(capture, host.clone()),
            wish: 0,
            asked: 0,
        };
        let runs = [line(true), line(false)];
        let watch = Watch {
            host: host.clone(),
            known: None,
            orders: Arc::downgrade(&orders),
            engine: Arc::downgrade(engine),
            lines: Vec::new(),
        };
        (Self { orders, microphone: None, speaker: None, watch: None }, runs, watch)
    }

    fn wake(line: &Option<Thread>) {
        line.iter().for_each(Thread::unpark);
    }

    /// Chooses the microphone; its port comes by [`Self::take_microphone`].
    pub(crate) fn want_microphone(&self, choice: Choice) {
        lock(&self.orders).microphone.want(choice);
        Self::wake(&self.microphone);
        Self::wake(&self.watch);
    }

    /// Chooses the speaker; its port comes by [`Self::take_speaker`].
    pub(crate) fn want_speaker(&self, choice: Choice) {
        lock(&self.orders).speaker.want(choice);
        Self::wake(&self.speaker);
        Self::wake(&self.watch);
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
            Self::wake(thread);
        }
    }
}

/// The audio thread's end of either.
pub(crate) enum Port {
    Microphone(MicrophonePort),
    Speaker(SpeakerPort),
}

/// The thread of one direction. Each has its own: one that hangs in the sound server keeps the other from nothing.
pub(crate) struct LineRun {
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
    pub(crate) fn step(&mut self) -> bool {
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
            self.line.follow(&devices, &engine);
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
pub(crate) struct Watch {
    host: SoundHost,
    known: Option<Arc<AudioDevices>>,
    orders: Weak<Mutex<Orders>>,
    engine: Weak<EngineShared>,
    lines: Vec<Thread>,
}

impl Watch {
    fn run(&mut self) {
        while let Some(busy) = self.step() {
            std::thread::park_timeout(if busy { WATCH } else { REST });
        }
    }

    /// Whether a device is in use; `None` at the end.
    pub(crate) fn step(&mut self) -> Option<bool> {
        let busy = lock(&*self.orders.upgrade()?).is_busy();
        if busy {
            let devices = Arc::new(self.host.list_devices());
            let (orders, engine) = (self.orders.upgrade()?, self.engine.upgrade()?);
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
        Some(busy)
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
            instance: None,
        };
        let one = Arc::new(AudioDevices { microphones: vec![device("a", true)], ..AudioDevices::default() });
        let two = Arc::new(AudioDevices {
            microphones: vec![device("b", true), device("a", false)],
            ..AudioDevices::default()
        });
        let host = SoundHost::default();
        let mut watch = Watch { host, known: None, orders: Weak::new(), engine: Weak::new(), lines: Vec::new() };
        assert!(!watch.is_news(&one) && !watch.is_news(&one));
        assert!(watch.is_news(&two) && !watch.is_news(&two));
        assert!(watch.is_news(&Arc::default()), "everything unplugged");
    }
}
