//! A `custom` host of cpal with virtual devices in it, for tests of all that stands on cpal.

use super::bench::devices::VirtualDevices;
use super::clock::Clock;
use super::host::SoundHost;
use super::stream::lock;
use cpal::platform::CustomHost;
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Data, DeviceDescription, DeviceDescriptionBuilder, DeviceId, Error, ErrorKind, FromSample, HostId, I24,
    InputCallbackInfo, InputStreamTimestamp, OutputCallbackInfo, OutputStreamTimestamp, SampleFormat, SizedSample,
    StreamConfig, StreamInstant, SupportedBufferSize, SupportedStreamConfig, SupportedStreamConfigRange,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a device speaks to whoever opens it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) format: SampleFormat,
    /// Least and greatest number of frames that may be asked for.
    pub(crate) frames: Option<(u32, u32)>,
    /// Why it cannot be opened.
    pub(crate) refuses: Option<ErrorKind>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { format: SampleFormat::F32, frames: None, refuses: None }
    }
}

pub(crate) type Manners = Arc<Mutex<HashMap<&'static str, Manner>>>;

/// A sound system with these devices; they have the manners that are named, else the usual ones.
pub(crate) fn sound_host(devices: &Arc<VirtualDevices>, manners: &Manners, clock: &Clock) -> SoundHost {
    let host = Host { devices: Arc::clone(devices), manners: Arc::clone(manners), clock: clock.clone() };
    let mut sound_host = SoundHost::from_cpal(move || cpal::Host::from(CustomHost::from_host(host.clone())));
    sound_host.clock = clock.clone();
    sound_host
}

#[derive(Clone)]
struct Host {
    devices: Arc<VirtualDevices>,
    manners: Manners,
    clock: Clock,
}

impl Host {
    fn of(&self, microphones: bool) -> Vec<Device> {
        let names = self.devices.names(microphones).into_iter();
        names.map(|name| Device { name, microphone: microphones, host: self.clone() }).collect()
    }
}

impl HostTrait for Host {
    type Devices = std::vec::IntoIter<Device>;
    type Device = Device;

    fn is_available() -> bool {
        true
    }

    fn devices(&self) -> Result<Self::Devices, Error> {
        Ok([self.of(true), self.of(false)].concat().into_iter())
    }

    fn default_input_device(&self) -> Option<Device> {
        self.of(true).into_iter().next()
    }

    fn default_output_device(&self) -> Option<Device> {
        self.of(false).into_iter().next()
    }
}

#[derive(Clone)]
struct Device {
    name: &'static str,
    microphone: bool,
    host: Host,
}

impl Device {
    fn manner(&self) -> Manner {
        lock(&self.host.manners).get(self.name).copied().unwrap_or_default()
    }

    fn config(&self, microphone: bool) -> Result<SupportedStreamConfigRange, Error> {
        if microphone != self.microphone {
            return Err(Error::new(ErrorKind::UnsupportedOperation));
        }
        let (hz, channels) = self.host.devices.with(self.name, |d| (d.told_hz, d.channels)).unwrap();
        let manner = self.manner();
        let frames = match manner.frames {
            Some((min, max)) => SupportedBufferSize::Range { min, max },
            None => SupportedBufferSize::Unknown,
        };
        Ok(SupportedStreamConfigRange::new(channels, hz, hz, frames, manner.format))
    }

    fn open(
        &self,
        config: StreamConfig,
        format: SampleFormat,
        call: impl FnMut(&mut Data) + Send + 'static,
    ) -> Result<Stream, Error> {
        let (manner, range) = (self.manner(), self.config(self.microphone)?);
        if let Some(kind) = manner.refuses {
            return Err(Error::new(kind));
        }
        let BufferSize::Fixed(asked) = config.buffer_size else {
            panic!("the length of a callback is always asked for")
        };
        let fits = manner.frames.is_none_or(|(min, max)| (min..=max).contains(&asked));
        let same = (config.channels, config.sample_rate) == (range.channels(), range.max_sample_rate());
        if !fits || !same || format != manner.format {
            return Err(Error::new(ErrorKind::UnsupportedConfig));
        }
        let call: Call = Box::new(call);
        Ok(Stream { device: self.clone(), asked, format, call: Arc::new(Mutex::new(call)), runs: Mutex::default() })
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Device {}

impl std::hash::Hash for Device {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl DeviceTrait for Device {
    type SupportedInputConfigs = std::vec::IntoIter<SupportedStreamConfigRange>;
    type SupportedOutputConfigs = std::vec::IntoIter<SupportedStreamConfigRange>;
    type Stream = Stream;

    fn description(&self) -> Result<DeviceDescription, Error> {
        Ok(DeviceDescriptionBuilder::new(self.name).build())
    }

    fn id(&self) -> Result<DeviceId, Error> {
        Ok(DeviceId::new(HostId::Custom, self.name))
    }

    fn supports_input(&self) -> bool {
        self.microphone
    }

    fn supports_output(&self) -> bool {
        !self.microphone
    }

    fn supported_input_configs(&self) -> Result<Self::SupportedInputConfigs, Error> {
        Ok(vec![self.config(true)?].into_iter())
    }

    fn supported_output_configs(&self) -> Result<Self::SupportedOutputConfigs, Error> {
        Ok(vec![self.config(false)?].into_iter())
    }

    fn default_input_config(&self) -> Result<SupportedStreamConfig, Error> {
        Ok(self.config(true)?.with_max_sample_rate())
    }

    fn default_output_config(&self) -> Result<SupportedStreamConfig, Error> {
        Ok(self.config(false)?.with_max_sample_rate())
    }

    fn build_input_stream_raw<D, E>(
        &self,
        config: StreamConfig,
        format: SampleFormat,
        mut callback: D,
        _: E,
        _: Option<Duration>,
    ) -> Result<Stream, Error>
    where
        D: FnMut(&Data, &InputCallbackInfo) + Send + 'static,
        E: FnMut(Error) + Send + 'static,
    {
        let at = StreamInstant::new(0, 0);
        let info = InputCallbackInfo::new(InputStreamTimestamp { callback: at, capture: at });
        self.open(config, format, move |data| callback(data, &info))
    }

    fn build_output_stream_raw<D, E>(
        &self,
        config: StreamConfig,
        format: SampleFormat,
        mut callback: D,
        _: E,
        _: Option<Duration>,
    ) -> Result<Stream, Error>
    where
        D: FnMut(&mut Data, &OutputCallbackInfo) + Send + 'static,
        E: FnMut(Error) + Send + 'static,
    {
        let at = StreamInstant::new(0, 0);
        let info = OutputCallbackInfo::new(OutputStreamTimestamp { callback: at, playback: at });
        self.open(config, format, move |data| callback(data, &info))
    }
}

type Call = Box<dyn FnMut(&mut Data) + Send>;

/// A stream; its callbacks come between `play` and `pause`.
struct Stream {
    device: Device,
    asked: u32,
    format: SampleFormat,
    call: Arc<Mutex<Call>>,
    runs: Mutex<Option<Arc<()>>>,
}

impl StreamTrait for Stream {
    fn play(&self) -> Result<(), Error> {
        let (call, format) = (Arc::clone(&self.call), self.format);
        let callback = Box::new(move |samples: &mut [f32]| in_format(samples, format, &mut **lock(&call)));
        let host = &self.device.host;
        *lock(&self.runs) = Some(host.devices.play(self.device.name, self.asked, callback, host.clock.now()));
        Ok(())
    }

    fn pause(&self) -> Result<(), Error> {
        *lock(&self.runs) = None;
        Ok(())
    }

    fn now(&self) -> StreamInstant {
        StreamInstant::new(0, 0)
    }

    fn buffer_size(&self) -> Result<u32, Error> {
        Ok(self.asked)
    }
}

/// Hands samples over in this format and takes them back.
fn in_format(samples: &mut [f32], format: SampleFormat, call: &mut dyn FnMut(&mut Data)) {
    match format {
        SampleFormat::I16 => converted::<i16>(samples, call),
        SampleFormat::I24 => converted::<I24>(samples, call),
        SampleFormat::I32 => converted::<i32>(samples, call),
        SampleFormat::U8 => converted::<u8>(samples, call),
        SampleFormat::U16 => converted::<u16>(samples, call),
        SampleFormat::U32 => converted::<u32>(samples, call),
        SampleFormat::F64 => converted::<f64>(samples, call),
        _ => converted::<f32>(samples, call),
    }
}

#[allow(unsafe_code)]
fn converted<T: SizedSample + FromSample<f32>>(samples: &mut [f32], call: &mut dyn FnMut(&mut Data))
where
    f32: FromSample<T>,
{
    let mut buffer: Vec<T> = samples.iter().map(|s| T::from_sample_(*s)).collect();
    // SAFETY: pointer and length are those of one vector that outlives the call, and its samples are of the format named.
    let mut data = unsafe { Data::from_parts(buffer.as_mut_ptr().cast(), buffer.len(), T::FORMAT) };
    call(&mut data);
    samples.iter_mut().zip(buffer).for_each(|(to, from)| *to = f32::from_sample_(from));
}
