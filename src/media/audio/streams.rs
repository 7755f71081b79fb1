//! Building cpal streams: which device, and in which format.

use super::callbacks::{Capturing, Playing, converts};
use super::device::{AudioDevice, AudioDevices, Port, is_monitor, is_plugin};
use super::host::OpenOrder;
use super::line::Open;
use super::{AudioError, SAMPLE_RATE_HZ};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Data, ErrorKind, SampleFormat, StreamConfig, SupportedBufferSize};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a sound server may take to set up a stream.
const BUILD_TIMEOUT: Duration = Duration::from_secs(3);

/// Keeps ALSA's library from writing what it thinks of a missing device to standard error, where one line of ours is to say
/// it: for this thread, until called again. What it says stays with us and is dropped then.
pub(crate) fn hush() {
    #[cfg(target_os = "linux")]
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA keeps talking");
    }
}

pub(crate) fn no_device(capture: bool, detail: String) -> AudioError {
    if capture { AudioError::NoMicrophone { detail } } else { AudioError::NoSpeaker { detail } }
}

pub(crate) fn device_error(capture: bool, device: &str, error: &cpal::Error) -> AudioError {
    let (device, detail) = (device.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::PermissionDenied if capture => AudioError::MicrophoneDenied { detail },
        ErrorKind::DeviceBusy if capture => AudioError::MicrophoneBusy { device, detail },
        ErrorKind::DeviceBusy => AudioError::SpeakerBusy { device, detail },
        ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => no_device(capture, detail),
        _ if capture => AudioError::MicrophoneRefuses { device, detail },
        _ => AudioError::SpeakerRefuses { device, detail },
    }
}

/// The device with this id (or bare name), or the default one.
pub(crate) fn find(host: &cpal::Host, id: Option<&str>, capture: bool) -> Result<cpal::Device, AudioError> {
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
        .map_err(|e| device_error(capture, id, &e))?
        .filter(|d| if capture { d.supports_input() } else { d.supports_output() })
        .find(|d| {
            d.id().is_ok_and(|known| known.to_string() == id || known.id() == id)
                || d.description().is_ok_and(|n| n.name() == id)
        })
        .ok_or_else(|| no_device(capture, format!("{id} is not there")))
}

/// The devices of a host.
pub(crate) fn list(host: &cpal::Host) -> AudioDevices {
    let default_in = host.default_input_device().and_then(|d| d.id().ok());
    let default_out = host.default_output_device().and_then(|d| d.id().ok());
    let mut list = AudioDevices { host: host.id().to_string(), ..AudioDevices::default() };
    let Ok(devices) = host.devices() else { return list };
    let instances = instances(host);
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
            instance: instances.get(id.id()).copied(),
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

/// Numbers of the devices of a sound server.
fn instances(host: &cpal::Host) -> HashMap<String, u32> {
    #[cfg(target_os = "linux")]
    if host.id().to_string().eq_ignore_ascii_case("pulseaudio") {
        return super::sound_server::instances();
    }
    let _ = host;
    HashMap::new()
}

/// 48 kHz where the device can, in a format we convert.
fn choose_config(
    device: &cpal::Device,
    capture: bool,
    frames: u32,
) -> Result<(StreamConfig, SampleFormat), AudioError> {
    let default = if capture { device.default_input_config() } else { device.default_output_config() }
        .map_err(|e| device_error(capture, &identify(device).1, &e))?;
    let ranges: Vec<_> = if capture {
        device.supported_input_configs().map(Iterator::collect).unwrap_or_default()
    } else {
        device.supported_output_configs().map(Iterator::collect).unwrap_or_default()
    };
    let usable = || ranges.iter().filter(|r| converts(r.sample_format()));
    let best = usable()
        .filter(|r| r.channels() == default.channels())
        .filter_map(|r| r.try_with_sample_rate(SAMPLE_RATE_HZ))
        .min_by_key(|c| match c.sample_format() {
            SampleFormat::F32 => 0,
            SampleFormat::I32 => 1,
            SampleFormat::I24 => 2,
            SampleFormat::I16 => 3,
            _ => 4,
        });
    let chosen = best
        .or(Some(default).filter(|c| converts(c.sample_format())))
        .or_else(|| usable().next().map(|r| r.with_max_sample_rate()))
        .ok_or_else(|| no_device(capture, format!("sample format {} is not supported", default.sample_format())))?;
    // The same time at any rate: at 8 kHz as many frames as at 48 kHz would be six times as long.
    let frames = (frames * (chosen.sample_rate() / 1_000) / (SAMPLE_RATE_HZ / 1_000)).max(64);
    // What a device does not do it may refuse altogether.
    let frames = match chosen.buffer_size() {
        SupportedBufferSize::Range { min, max } => frames.min(*max).max(*min),
        SupportedBufferSize::Unknown => frames,
    };
    let config = StreamConfig { buffer_size: BufferSize::Fixed(frames), ..chosen.config() };
    Ok((config, chosen.sample_format()))
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

pub(crate) fn open_microphone(host: &cpal::Host, order: &OpenOrder<'_>) -> Result<(Open, Port), AudioError> {
    let device = find(host, order.id, true)?;
    let (id, name) = identify(&device);
    let (config, format) = choose_config(&device, true, order.frames)?;
    let rate_hz = config.sample_rate;
    let (mut capturing, port) = Capturing::new(config.channels, rate_hz, order);
    let (pulse, failed) = (Arc::clone(&port.pulse), Arc::clone(&port.pulse));
    let callback = move |data: &Data, _: &cpal::InputCallbackInfo| capturing.take(data);
    let on_error = move |error: cpal::Error| {
        if !is_harmless(error.kind()) {
            failed.failed.store(true, Ordering::Relaxed);
        }
    };
    let stream = device
        .build_input_stream_raw(config, format, callback, on_error, Some(BUILD_TIMEOUT))
        .and_then(|stream| stream.play().map(|()| stream))
        .map_err(|e| device_error(true, &name, &e))?;
    Ok((Open::new(Box::new(stream), pulse, name, id, rate_hz), Port::Microphone(port)))
}

pub(crate) fn open_speaker(host: &cpal::Host, order: &OpenOrder<'_>) -> Result<(Open, Port), AudioError> {
    let device = find(host, order.id, false)?;
    let (id, name) = identify(&device);
    let (config, format) = choose_config(&device, false, order.frames)?;
    let rate_hz = config.sample_rate;
    let (mut playing, port) = Playing::new(config.channels, rate_hz, order);
    let (pulse, failed) = (Arc::clone(&port.pulse), Arc::clone(&port.pulse));
    let callback = move |data: &mut Data, _: &cpal::OutputCallbackInfo| playing.give(data);
    let on_error = move |error: cpal::Error| {
        if !is_harmless(error.kind()) {
            failed.failed.store(true, Ordering::Relaxed);
        }
    };
    let stream = device
        .build_output_stream_raw(config, format, callback, on_error, Some(BUILD_TIMEOUT))
        .and_then(|stream| stream.play().map(|()| stream))
        .map_err(|e| device_error(false, &name, &e))?;
    Ok((Open::new(Box::new(stream), pulse, name, id, rate_hz), Port::Speaker(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_device_and_a_denied_one_are_told_apart_from_a_missing_one() {
        let key = |capture, kind| device_error(capture, "USB", &cpal::Error::new(kind)).key();
        assert_eq!(key(true, ErrorKind::DeviceBusy), "dev.mic_busy");
        assert_eq!(key(false, ErrorKind::DeviceBusy), "dev.spk_busy");
        assert_eq!(key(true, ErrorKind::PermissionDenied), "dev.mic_denied");
        assert_eq!(key(true, ErrorKind::UnsupportedConfig), "dev.mic_refuses");
        assert_eq!(key(false, ErrorKind::PermissionDenied), "dev.spk_refuses");
        assert_eq!(key(true, ErrorKind::DeviceNotAvailable), "dev.mic_none");
        assert_eq!(key(false, ErrorKind::DeviceNotAvailable), "dev.spk_none");
    }
}
