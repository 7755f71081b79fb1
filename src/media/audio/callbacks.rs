//! What the callbacks of devices do: they move samples between the device's format and our rings, and count.

use super::channels::ChannelMix;
use super::device::{MicrophonePort, SpeakerPort};
use super::dsp::sane;
use super::host::OpenOrder;
use super::pulse::{Pulse, ring_frames};
use super::{Frame, left_right, mid_side};
use cpal::{Data, FromSample, I24, SampleFormat, U24};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;

/// `$of` of the sample type of a format that we convert, else `$other`.
macro_rules! by_format {
    ($format:expr, $of:ident, $other:expr) => {
        match $format {
            SampleFormat::F32 => $of!(f32),
            SampleFormat::F64 => $of!(f64),
            SampleFormat::I64 => $of!(i64),
            SampleFormat::I32 => $of!(i32),
            SampleFormat::I24 => $of!(I24),
            SampleFormat::I16 => $of!(i16),
            SampleFormat::I8 => $of!(i8),
            SampleFormat::U64 => $of!(u64),
            SampleFormat::U32 => $of!(u32),
            SampleFormat::U24 => $of!(U24),
            SampleFormat::U16 => $of!(u16),
            SampleFormat::U8 => $of!(u8),
            _ => $other,
        }
    };
}

/// Whether we convert from and to this format.
pub(crate) fn converts(format: SampleFormat) -> bool {
    macro_rules! of {
        ($t:ty) => {
            true
        };
    }
    by_format!(format, of, false)
}

/// The callback of a microphone.
pub(crate) struct Capturing {
    channels: usize,
    mix: ChannelMix,
    frame: Vec<f32>,
    ring: rtrb::Producer<f32>,
    pulse: Arc<Pulse>,
    audio: Thread,
}

impl Capturing {
    /// With the audio thread's end of it.
    pub(crate) fn new(channels: u16, rate_hz: u32, order: &OpenOrder<'_>) -> (Self, MicrophonePort) {
        let channels = usize::from(channels.max(1));
        let frames = ring_frames(rate_hz, order.callback_ms);
        let (ring, samples) = rtrb::RingBuffer::new(2 * frames);
        let pulse = Arc::new(Pulse::new(frames, order.clock.clone()));
        let port = MicrophonePort { samples, rate_hz, pulse: Arc::clone(&pulse) };
        let (mix, frame) = (ChannelMix::new(channels), Vec::with_capacity(channels));
        (Self { channels, mix, frame, ring, pulse, audio: order.audio.clone() }, port)
    }

    pub(crate) fn take(&mut self, data: &Data) {
        macro_rules! of {
            ($t:ty) => {
                self.take_frames(data.as_slice::<$t>().unwrap_or_default())
            };
        }
        by_format!(data.sample_format(), of, ());
    }

    /// Puts frames of the channels into the ring; what finds no room is dropped.
    pub(crate) fn take_frames<T: cpal::SizedSample>(&mut self, samples: &[T])
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
        self.pulse.beat(frames);
        self.audio.unpark();
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

/// The callback of a speaker.
pub(crate) struct Playing {
    channels: usize,
    ring: rtrb::Consumer<f32>,
    pulse: Arc<Pulse>,
    audio: Thread,
}

impl Playing {
    /// With the audio thread's end of it.
    pub(crate) fn new(channels: u16, rate_hz: u32, order: &OpenOrder<'_>) -> (Self, SpeakerPort) {
        let frames = ring_frames(rate_hz, order.callback_ms);
        let (samples, ring) = rtrb::RingBuffer::new(2 * frames);
        let pulse = Arc::new(Pulse::new(frames, order.clock.clone()));
        let port = SpeakerPort { samples, rate_hz, pulse: Arc::clone(&pulse) };
        (Self { channels: usize::from(channels.max(1)), ring, pulse, audio: order.audio.clone() }, port)
    }

    pub(crate) fn give(&mut self, data: &mut Data) {
        macro_rules! of {
            ($t:ty) => {
                self.give_frames(data.as_slice_mut::<$t>().unwrap_or_default())
            };
        }
        by_format!(data.sample_format(), of, ());
    }

    /// Fills the channels from the ring, of more than two only those in front, with silence where it is empty.
    pub(crate) fn give_frames<T: cpal::SizedSample + FromSample<f32>>(&mut self, samples: &mut [T]) {
        let (mut frames, mut missing) = (0, 0);
        for frame in samples.chunks_exact_mut(self.channels) {
            let value = pop_frame(&mut self.ring).unwrap_or_else(|| {
                missing += 1;
                [0.0; 2]
            });
            // One channel gets both.
            let both = if self.channels == 1 { [value[0]; 2] } else { left_right(value) };
            for (channel, sample) in frame.iter_mut().enumerate() {
                *sample = T::from_sample_(both.get(channel).copied().unwrap_or(0.0));
            }
            frames += 1;
        }
        self.pulse.beat(frames);
        self.pulse.missing.fetch_add(missing, Ordering::Relaxed);
        if self.pulse.active.load(Ordering::Relaxed) {
            self.audio.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::clock::Clock;

    /// Both callbacks of devices with so many channels, and the other ends of their rings.
    fn ends(channels: u16) -> (Capturing, MicrophonePort, Playing, SpeakerPort) {
        let (audio, clock) = (std::thread::current(), Clock::default());
        let order = OpenOrder { capture: true, id: None, audio: &audio, frames: 256, callback_ms: 50, clock: &clock };
        let (capturing, microphone) = Capturing::new(channels, 48_000, &order);
        let (playing, speaker) = Playing::new(channels, 48_000, &order);
        (capturing, microphone, playing, speaker)
    }

    #[test]
    fn any_number_of_channels_becomes_one_and_one_becomes_any() {
        for channels in [1usize, 2, 6, 8] {
            let (mut capturing, mut microphone, mut playing, mut speaker) = ends(channels as u16);
            let captured: Vec<i16> = (0..100 * channels).map(|i| (i / channels) as i16 * 100).collect();
            capturing.take_frames(&captured);
            let frames: Vec<Frame> = std::iter::from_fn(|| pop_frame(&mut microphone.samples)).collect();
            assert!(frames.iter().all(|frame| frame[1] == 0.0), "{channels}");
            let got: Vec<f32> = frames.iter().map(|frame| frame[0]).collect();
            assert_eq!(got.len(), 100, "{channels}");
            assert!(got.iter().enumerate().all(|(i, s)| (s - i as f32 * 100.0 / 32_768.0).abs() < 1e-4), "{channels}");

            for _ in 0..50 {
                push_frame(&mut speaker.samples, [0.5, 0.0]);
            }
            let mut played = vec![7i16; 60 * channels];
            playing.give_frames(&mut played);
            assert_eq!((speaker.pulse.missing(), speaker.fill()), (10, 0));
            let (sound, silence) = played.split_at(50 * channels);
            assert!(silence.iter().all(|s| *s == 0), "{channels}");
            for frame in sound.chunks_exact(channels) {
                assert!(frame.iter().take(2).all(|s| *s > 16_000) && frame.iter().skip(2).all(|s| *s == 0));
            }
        }
        // Left stays left and right right.
        let (mut capturing, mut microphone, mut playing, mut speaker) = ends(2);
        capturing.take_frames(&[0.5f32, -0.25, 0.125, 0.0]);
        while let Some(frame) = pop_frame(&mut microphone.samples) {
            push_frame(&mut speaker.samples, frame);
        }
        let mut played = [0.0f32; 4];
        playing.give_frames(&mut played);
        assert_eq!(played, [0.5, -0.25, 0.125, 0.0]);
        // A frame that is not whole, and a ring that is full.
        capturing.take_frames(&[0.5f32; 15]);
        assert_eq!(microphone.samples.slots(), 14);
        capturing.take_frames(&[0.5f32; 48_000]);
        assert_eq!(microphone.samples.slots(), microphone.samples.buffer().capacity());
    }

    #[test]
    fn what_is_no_number_is_silence() {
        let (mut capturing, mut microphone, ..) = ends(1);
        capturing.take_frames(&[f32::NAN, 0.25, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30]);
        let frames: Vec<f32> =
            std::iter::from_fn(|| pop_frame(&mut microphone.samples)).map(|frame| frame[0]).collect();
        assert_eq!(frames[..4], [0.0, 0.25, 0.0, 0.0]);
        assert!(frames.len() == 6 && frames[4..].iter().all(|s| s.abs() <= 8.0), "{frames:?}");
        assert_eq!(f32::from_sample_(I24::new(-(1 << 22)).unwrap()), -0.5);
        assert!(converts(SampleFormat::U8) && !converts(SampleFormat::DsdU8));
    }
}
