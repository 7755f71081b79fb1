//! The sound system that an engine finds its devices in.

use super::clock::Clock;
use super::device::Port;
use super::line::Open;
use super::streams::{hush, list, open_microphone, open_speaker};
use super::{AudioDevices, AudioError};
use std::sync::Arc;
use std::thread::Thread;

/// What lists and opens devices.
pub(crate) trait Devices: Send + Sync {
    fn list(&self) -> AudioDevices;
    /// Opens the device with this id, or the default one, with about so many frames in a callback at 48 kHz.
    fn open(&self, order: &OpenOrder<'_>) -> Result<(Open, Port), AudioError>;
}

/// Which device is to be opened, and how.
pub(crate) struct OpenOrder<'a> {
    pub(crate) capture: bool,
    /// Id or name; `None` is the default device.
    pub(crate) id: Option<&'a str>,
    /// What callbacks wake.
    pub(crate) audio: &'a Thread,
    /// Frames of a callback, at 48 kHz; as long in time at any other rate.
    pub(crate) frames: u32,
    /// Longest callback that the rings must hold, in ms.
    pub(crate) callback_ms: u32,
    pub(crate) clock: &'a Clock,
}

/// A sound system: that of the computer unless another one is given.
#[derive(Clone)]
pub struct SoundHost {
    devices: Arc<dyn Devices>,
    pub(crate) clock: Clock,
}

impl Default for SoundHost {
    fn default() -> Self {
        Self::from_cpal(cpal::default_host)
    }
}

impl std::fmt::Debug for SoundHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoundHost").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl SoundHost {
    /// Devices of what `make` gives. It is called for each list and each opening, since a sound server may have been
    /// started anew in between.
    pub fn from_cpal(make: impl Fn() -> cpal::Host + Send + Sync + 'static) -> Self {
        Self { devices: Arc::new(Cpal(make)), clock: Clock::default() }
    }

    /// Devices of any kind, in a time of their own.
    pub(crate) fn new(devices: Arc<dyn Devices>, clock: Clock) -> Self {
        Self { devices, clock }
    }

    /// Lists the devices. May block as long as the sound server does. Empty without any.
    pub fn list_devices(&self) -> AudioDevices {
        self.devices.list()
    }

    pub(crate) fn open(
        &self,
        capture: bool,
        id: Option<&str>,
        audio: &Thread,
        frames: u32,
        callback_ms: u32,
    ) -> Result<(Open, Port), AudioError> {
        self.devices.open(&OpenOrder { capture, id, audio, frames, callback_ms, clock: &self.clock })
    }
}

struct Cpal<F>(F);

impl<F: Fn() -> cpal::Host + Send + Sync> Devices for Cpal<F> {
    fn list(&self) -> AudioDevices {
        hush();
        list(&(self.0)())
    }

    fn open(&self, order: &OpenOrder<'_>) -> Result<(Open, Port), AudioError> {
        hush();
        let host = (self.0)();
        if order.capture { open_microphone(&host, order) } else { open_speaker(&host, order) }
    }
}
