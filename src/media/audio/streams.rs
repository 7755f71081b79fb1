//! Building cpal streams: which device, which format, and the callbacks.

use super::channels::ChannelMix;
use super::device::{MicrophonePort, Port, SpeakerPort, is_monitor};
use super::dsp::sane;
use super::line::Open;
use super::pulse::{Pulse, ring_frames};
use super::{AudioError, Frame, SAMPLE_RATE_HZ, left_right, mid_side};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{BufferSize, Data, ErrorKind, FromSample, I24, SampleFormat, StreamConfig, U24};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;
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
        _ => no_device(capture, detail),
    }
}

/// The device with this id (or bare name), or the default one.
pub(crate) fn find(id: Option<&str>, capture: bool) -> Result<cpal::Device, AudioError> {
    hush();
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
        .map_err(|e| device_error(capture, id, &e))?
        .filter(|d| if capture { d.supports_input() } else { d.supports_output() })
        .find(|d| {
            d.id().is_ok_and(|known| known.to_string() == id || known.id() == id)
                || d.description().is_ok_and(|n| n.name() == id)
        })
        .ok_or_else(|| no_device(capture, format!("{id} is not there")))
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
    let best = ranges
        .into_iter()
        .filter(|r: &cpal::SupportedStreamConfigRange| r.channels() == default.channels())
        .filter_map(|r| r.try_with_sample_rate(SAMPLE_RATE_HZ))
        .min_by_key(|c| match c.sample_format() {
            SampleFormat::F32 => 0,
            SampleFormat::I32 => 1,
            SampleFormat::I24 => 2,
            SampleFormat::I16 => 3,
            _ => 4,
        });
    let chosen = best.filter(|c| converts(c.sample_format())).unwrap_or(default);
    if !converts(chosen.sample_format()) {
        return Err(no_device(capture, format!("sample format {} is not supported", chosen.sample_format())));
    }
    // The same time at any rate: at 8 kHz as many frames as at 48 kHz would be six times as long.
    let frames = (frames * (chosen.sample_rate() / 1_000) / (SAMPLE_RATE_HZ / 1_000)).max(64);
    let config = StreamConfig { buffer_size: BufferSize::Fixed(frames), ..chosen.config() };
    Ok((config, chosen.sample_format()))
}

fn converts(format: SampleFormat) -> bool {
    matches!(
        format,
        SampleFormat::F32
            | SampleFormat::I32
            | SampleFormat::I24
            | SampleFormat::I16
            | SampleFormat::I8
            | SampleFormat::U24
            | SampleFormat::U16
            | SampleFormat::U8
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

pub(crate) fn open_microphone(id: Option<&str>, audio: &Thread, frames: u32) -> Result<(Open, Port), AudioError> {
    let device = find(id, true)?;
    let (id, name) = identify(&device);
    let (config, format) = choose_config(&device, true, frames)?;
    let channels = usize::from(config.channels.max(1));
    let rate_hz = config.sample_rate;
    let (producer, samples) = rtrb::RingBuffer::new(2 * ring_frames(rate_hz));
    let mut taking = Taking::new(channels, producer);
    let pulse = Arc::new(Pulse::new(rate_hz));
    let (beat, failed, wake) = (Arc::clone(&pulse), Arc::clone(&pulse), audio.clone());
    let callback = move |data: &Data, _: &cpal::InputCallbackInfo| {
        let frames = match data.sample_format() {
            SampleFormat::F32 => taking.take::<f32>(data),
            SampleFormat::F64 => taking.take::<f64>(data),
            SampleFormat::I32 => taking.take::<i32>(data),
            SampleFormat::I24 => taking.take::<I24>(data),
            SampleFormat::I16 => taking.take::<i16>(data),
            SampleFormat::I8 => taking.take::<i8>(data),
            SampleFormat::U24 => taking.take::<U24>(data),
            SampleFormat::U16 => taking.take::<u16>(data),
            SampleFormat::U8 => taking.take::<u8>(data),
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
        .map_err(|e| device_error(true, &name, &e))?;
    stream.play().map_err(|e| device_error(true, &name, &e))?;
    let open = Open::new(stream, Arc::clone(&pulse), name, id, rate_hz);
    Ok((open, Port::Microphone(MicrophonePort { samples, rate_hz, pulse })))
}

/// What the callback of a microphone does.
struct Taking {
    channels: usize,
    mix: ChannelMix,
    frame: Vec<f32>,
    ring: rtrb::Producer<f32>,
}

impl Taking {
    fn new(channels: usize, ring: rtrb::Producer<f32>) -> Self {
        Self { channels, mix: ChannelMix::new(channels), frame: Vec::with_capacity(channels), ring }
    }

    /// Puts frames of the channels into the ring; what finds no room is dropped.
    fn take<T: cpal::SizedSample>(&mut self, data: &Data) -> usize
    where
        f32: FromSample<T>,
    {
        data.as_slice::<T>().map_or(0, |samples| self.take_frames(samples))
    }

    fn take_frames<T: cpal::SizedSample>(&mut self, samples: &[T]) -> usize
    where
        f32: FromSample<T>,
    {
        let mut frames = 0;
        for frame in samples.chunks_exact(self.channels) {
            self.frame.clear();
            self.frame.extend(frame.iter().map(|s| sane(f32::from_sample_(*s))));
            let frame = match *self.frame {
                [left, right] => mid_side(left, right),
                // More than two are an array of microphones, or empty sockets beside one that is used.
                _ => [self.mix.mix(&self.frame), 0.0],
            };
            push_frame(&mut self.ring, frame);
            frames += 1;
        }
        frames
    }
}

/// Whole frames only: half of one would exchange the channels for good.
pub(crate) fn push_frame(ring: &mut rtrb::Producer<f32>, [mid, side]: Frame) {
    if ring.slots() >= 2 {
        let _ = ring.push(mid);
        let _ = ring.push(side);
    }
}

/// The next whole frame.
pub(crate) fn pop_frame(ring: &mut rtrb::Consumer<f32>) -> Option<Frame> {
    (ring.slots() >= 2).then(|| [ring.pop().unwrap_or(0.0), ring.pop().unwrap_or(0.0)])
}

pub(crate) fn open_speaker(id: Option<&str>, audio: &Thread, frames: u32) -> Result<(Open, Port), AudioError> {
    let device = find(id, false)?;
    let (id, name) = identify(&device);
    let (config, format) = choose_config(&device, false, frames)?;
    let channels = usize::from(config.channels.max(1));
    let rate_hz = config.sample_rate;
    let (samples, mut consumer) = rtrb::RingBuffer::new(2 * ring_frames(rate_hz));
    let pulse = Arc::new(Pulse::new(rate_hz));
    let (beat, failed, wake) = (Arc::clone(&pulse), Arc::clone(&pulse), audio.clone());
    let callback = move |data: &mut Data, _: &cpal::OutputCallbackInfo| {
        let (frames, missing) = match data.sample_format() {
            SampleFormat::F32 => give::<f32>(data, channels, &mut consumer),
            SampleFormat::F64 => give::<f64>(data, channels, &mut consumer),
            SampleFormat::I32 => give::<i32>(data, channels, &mut consumer),
            SampleFormat::I24 => give::<I24>(data, channels, &mut consumer),
            SampleFormat::I16 => give::<i16>(data, channels, &mut consumer),
            SampleFormat::I8 => give::<i8>(data, channels, &mut consumer),
            SampleFormat::U24 => give::<U24>(data, channels, &mut consumer),
            SampleFormat::U16 => give::<u16>(data, channels, &mut consumer),
            SampleFormat::U8 => give::<u8>(data, channels, &mut consumer),
            _ => (0, 0),
        };
        beat.beat(frames);
        beat.missing.fetch_add(missing, Ordering::Relaxed);
        if beat.active.load(Ordering::Relaxed) {
            wake.unpark();
        }
    };
    let on_error = move |error: cpal::Error| {
        if !is_harmless(error.kind()) {
            failed.failed.store(true, Ordering::Relaxed);
        }
    };
    let stream = device
        .build_output_stream_raw(config, format, callback, on_error, Some(BUILD_TIMEOUT))
        .map_err(|e| device_error(false, &name, &e))?;
    stream.play().map_err(|e| device_error(false, &name, &e))?;
    let open = Open::new(stream, Arc::clone(&pulse), name, id, rate_hz);
    Ok((open, Port::Speaker(SpeakerPort { samples, rate_hz, pulse })))
}

/// Fills the channels from the ring, of more than two only those in front, silence where it is empty. Returns frames and those without sound.
fn give<T: cpal::SizedSample + FromSample<f32>>(
    data: &mut Data,
    channels: usize,
    ring: &mut rtrb::Consumer<f32>,
) -> (usize, u64) {
    data.as_slice_mut::<T>().map_or((0, 0), |samples| give_frames(samples, channels, ring))
}

fn give_frames<T: cpal::SizedSample + FromSample<f32>>(
    samples: &mut [T],
    channels: usize,
    ring: &mut rtrb::Consumer<f32>,
) -> (usize, u64) {
    let (mut frames, mut missing) = (0, 0);
    for frame in samples.chunks_exact_mut(channels) {
        let value = pop_frame(ring).unwrap_or_else(|| {
            missing += 1;
            [0.0; 2]
        });
        // One channel gets both.
        let both = if channels == 1 { [value[0]; 2] } else { left_right(value) };
        for (channel, sample) in frame.iter_mut().enumerate() {
            *sample = T::from_sample_(both.get(channel).copied().unwrap_or(0.0));
        }
        frames += 1;
    }
    (frames, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_channels_becomes_one_and_one_becomes_any() {
        for channels in [1usize, 2, 6, 8] {
            let (producer, mut consumer) = rtrb::RingBuffer::new(1_000);
            let captured: Vec<i16> = (0..100 * channels).map(|i| (i / channels) as i16 * 100).collect();
            assert_eq!(Taking::new(channels, producer).take_frames(&captured), 100);
            let frames: Vec<Frame> = std::iter::from_fn(|| pop_frame(&mut consumer)).collect();
            assert!(frames.iter().all(|frame| frame[1] == 0.0), "{channels}");
            let got: Vec<f32> = frames.iter().map(|frame| frame[0]).collect();
            assert_eq!(got.len(), 100, "{channels}");
            assert!(got.iter().enumerate().all(|(i, s)| (s - i as f32 * 100.0 / 32_768.0).abs() < 1e-4), "{channels}");

            let (mut producer, mut consumer) = rtrb::RingBuffer::new(1_000);
            for _ in 0..50 {
                push_frame(&mut producer, [0.5, 0.0]);
            }
            let mut played = vec![7i16; 60 * channels];
            assert_eq!(give_frames(&mut played, channels, &mut consumer), (60, 10));
            let (sound, silence) = played.split_at(50 * channels);
            assert!(silence.iter().all(|s| *s == 0), "{channels}");
            for frame in sound.chunks_exact(channels) {
                assert!(frame.iter().take(2).all(|s| *s > 16_000) && frame.iter().skip(2).all(|s| *s == 0));
            }
        }
        // Left stays left and right right.
        let (producer, mut consumer) = rtrb::RingBuffer::new(8);
        Taking::new(2, producer).take_frames(&[0.5f32, -0.25, 0.125, 0.0]);
        let mut played = [0.0f32; 4];
        give_frames(&mut played, 2, &mut consumer);
        assert_eq!(played, [0.5, -0.25, 0.125, 0.0]);
        // A frame that is not whole, and a ring that is full.
        let (producer, _consumer) = rtrb::RingBuffer::new(4);
        assert_eq!(Taking::new(2, producer).take_frames(&[0.5f32; 15]), 7);
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let (producer, mut consumer) = rtrb::RingBuffer::new(64);
        let captured = [f32::NAN, 0.25, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30];
        assert_eq!(Taking::new(1, producer).take_frames(&captured), 6);
        let frames: Vec<f32> = std::iter::from_fn(|| pop_frame(&mut consumer)).map(|frame| frame[0]).collect();
        assert_eq!(frames[..4], [0.0, 0.25, 0.0, 0.0]);
        assert!(frames[4..].iter().all(|s| s.abs() <= 8.0), "{frames:?}");
        assert_eq!(f32::from_sample_(I24::new(-(1 << 22)).unwrap()), -0.5);
    }

    #[test]
    fn a_busy_device_and_a_denied_one_are_told_apart_from_a_missing_one() {
        let key = |capture, kind| device_error(capture, "USB", &cpal::Error::new(kind)).key();
        assert_eq!(key(true, ErrorKind::DeviceBusy), "dev.mic_busy");
        assert_eq!(key(false, ErrorKind::DeviceBusy), "dev.spk_busy");
        assert_eq!(key(true, ErrorKind::PermissionDenied), "dev.mic_denied");
        assert_eq!(key(true, ErrorKind::DeviceNotAvailable), "dev.mic_none");
        assert_eq!(key(false, ErrorKind::DeviceNotAvailable), "dev.spk_none");
    }
}
