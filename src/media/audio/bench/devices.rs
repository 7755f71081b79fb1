//! Sound devices in virtual time: they say one thing and do another, as devices do.

use crate::media::audio::callbacks::{Capturing, Playing};
use crate::media::audio::device::Port;
use crate::media::audio::host::{Devices, OpenOrder};
use crate::media::audio::line::Open;
use crate::media::audio::stream::lock;
use crate::media::audio::streams::no_device;
use crate::media::audio::{AudioDevice, AudioDevices, AudioError};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// What a microphone hears at this moment.
pub(crate) type Heard = Box<dyn FnMut(Instant) -> f32 + Send>;
/// Where a speaker's sound goes: the samples of one callback, and when the last of them has been heard.
pub(crate) type Played = Box<dyn FnMut(&[f32], Instant) + Send>;
/// Moves interleaved samples of one callback.
pub(crate) type Callback = Box<dyn FnMut(&mut [f32]) + Send>;

/// Which way sound goes.
pub(crate) enum Way {
    In(Heard),
    Out(Played),
}

/// A device.
pub(crate) struct VirtualDevice {
    /// Id and name.
    pub(crate) name: &'static str,
    /// The rate that it says it has, in Hz.
    pub(crate) told_hz: u32,
    /// The rate that it has.
    pub(crate) true_hz: f64,
    pub(crate) channels: u16,
    /// Frames of its callbacks, by turns; as many as it is asked for where there are none.
    pub(crate) callbacks: Vec<u32>,
    /// Whether its callbacks come.
    pub(crate) runs: bool,
    pub(crate) way: Way,
}

impl VirtualDevice {
    /// One channel at 48 kHz, `ppm` millionths too fast.
    pub(crate) fn new(name: &'static str, ppm: f64, way: Way) -> Self {
        let true_hz = 48_000.0 * (1.0 + ppm * 1e-6);
        Self { name, told_hz: 48_000, true_hz, channels: 1, callbacks: Vec::new(), runs: true, way }
    }

    pub(crate) fn is_microphone(&self) -> bool {
        matches!(self.way, Way::In(_))
    }
}

/// A stream that was opened.
struct Stream {
    device: &'static str,
    began: Instant,
    frames: u64,
    turn: usize,
    asked: u32,
    callback: Callback,
    /// Ends with the handle.
    open: Weak<()>,
}

impl Stream {
    fn next_frames(&self, device: &VirtualDevice) -> u32 {
        let sizes = device.callbacks.len().max(1);
        device.callbacks.get(self.turn % sizes).copied().unwrap_or(self.asked)
    }

    /// When the next callback has as many frames as it moves.
    fn due(&self, device: &VirtualDevice) -> Instant {
        let frames = self.frames + u64::from(self.next_frames(device));
        self.began + Duration::from_secs_f64(frames as f64 / device.true_hz)
    }
}

#[derive(Default)]
struct State {
    devices: Vec<VirtualDevice>,
    streams: Vec<Stream>,
    opened: u32,
}

/// The devices of a machine that is not there.
#[derive(Default)]
pub(crate) struct VirtualDevices {
    state: Mutex<State>,
}

impl VirtualDevices {
    pub(crate) fn new(devices: Vec<VirtualDevice>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { devices, ..State::default() }) })
    }

    /// Looks at or changes a device.
    pub(crate) fn with<T>(&self, name: &str, look: impl FnOnce(&mut VirtualDevice) -> T) -> Option<T> {
        lock(&self.state).devices.iter_mut().find(|d| d.name == name).map(look)
    }

    /// Names of all in one direction.
    pub(crate) fn names(&self, microphones: bool) -> Vec<&'static str> {
        let state = lock(&self.state);
        state.devices.iter().filter(|d| d.is_microphone() == microphones).map(|d| d.name).collect()
    }

    /// Begins callbacks of `asked` frames; they end with what is returned.
    pub(crate) fn play(&self, name: &'static str, asked: u32, callback: Callback, now: Instant) -> Arc<()> {
        let handle = Arc::new(());
        let open = Arc::downgrade(&handle);
        let mut state = lock(&self.state);
        // A device has one stream: the one before is being closed.
        state.streams.retain(|s| s.device != name);
        state.opened += 1;
        state.streams.push(Stream { device: name, began: now, frames: 0, turn: 0, asked, callback, open });
        handle
    }

    /// The stream of a device gives and takes nothing more; another one would.
    #[cfg(test)]
    pub(crate) fn stall(&self, name: &str) {
        lock(&self.state).streams.retain(|s| s.device != name);
    }

    /// How many streams have been opened.
    pub(crate) fn opened(&self) -> u32 {
        lock(&self.state).opened
    }

    /// When the next callback is.
    pub(crate) fn due(&self) -> Option<Instant> {
        let state = lock(&self.state);
        let of = |s: &Stream| state.devices.iter().find(|d| d.name == s.device && d.runs).map(|d| s.due(d));
        state.streams.iter().filter(|s| s.open.strong_count() > 0).filter_map(of).min()
    }

    /// Makes the callbacks that are due.
    pub(crate) fn run(&self, now: Instant) {
        let mut state = lock(&self.state);
        let State { devices, streams, .. } = &mut *state;
        streams.retain(|s| s.open.strong_count() > 0);
        for stream in streams {
            let Some(device) = devices.iter_mut().find(|d| d.name == stream.device && d.runs) else { continue };
            while stream.due(device) <= now {
                let (frames, at) = (stream.next_frames(device), stream.due(device));
                let first = stream.frames;
                stream.frames += u64::from(frames);
                stream.turn += 1;
                let channels = usize::from(device.channels.max(1));
                let mut samples = vec![0.0; frames as usize * channels];
                match &mut device.way {
                    Way::In(heard) => {
                        for (frame, number) in samples.chunks_exact_mut(channels).zip(first..) {
                            let since = Duration::from_secs_f64(number as f64 / device.true_hz);
                            frame.fill(heard(stream.began + since));
                        }
                        (stream.callback)(&mut samples);
                    }
                    Way::Out(played) => {
                        (stream.callback)(&mut samples);
                        let first: Vec<f32> = samples.iter().step_by(channels).copied().collect();
                        played(&first, at + Duration::from_secs_f64(f64::from(frames) / device.true_hz));
                    }
                }
            }
        }
    }
}

/// Straight to the callbacks, without a sound API in between.
impl Devices for VirtualDevices {
    fn list(&self) -> AudioDevices {
        let of = |microphones| {
            let names = self.names(microphones).into_iter().enumerate();
            let device = |(i, name): (usize, &str)| AudioDevice {
                id: name.to_owned(),
                name: name.to_owned(),
                is_default: i == 0,
                is_monitor: false,
                instance: None,
            };
            names.map(device).collect()
        };
        AudioDevices { host: "virtual".to_owned(), microphones: of(true), speakers: of(false) }
    }

    fn open(&self, order: &OpenOrder<'_>) -> Result<(Open, Port), AudioError> {
        let names = self.names(order.capture);
        let name = names.into_iter().find(|name| order.id.is_none_or(|id| id == *name));
        let name = name.ok_or_else(|| no_device(order.capture, "not there".to_owned()))?;
        let (told_hz, channels) = self.with(name, |d| (d.told_hz, d.channels)).unwrap_or((48_000, 1));
        let (port, pulse, callback): (_, _, Callback) = if order.capture {
            let (mut capturing, port) = Capturing::new(channels, told_hz, order);
            let pulse = Arc::clone(&port.pulse);
            (Port::Microphone(port), pulse, Box::new(move |samples| capturing.take_frames(samples)))
        } else {
            let (mut playing, port) = Playing::new(channels, told_hz, order);
            let pulse = Arc::clone(&port.pulse);
            (Port::Speaker(port), pulse, Box::new(move |samples| playing.give_frames(samples)))
        };
        let stream = self.play(name, order.frames, callback, order.clock.now());
        Ok((Open::new(Box::new(stream), pulse, name.to_owned(), name.to_owned(), told_hz), port))
    }
}
