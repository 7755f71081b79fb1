//! A microphone and a loudspeaker whose clocks are not the same (F19), in virtual time.
//!
//! All between the callbacks of the two devices is what a call has: rings, conversion, Opus, jitter buffer, mixer.

use crate::media::audio::codec::{EncoderSettings, OpusPacketEncoder};
use crate::media::audio::device::{MicrophonePort, SpeakerPort};
use crate::media::audio::gate::MuteGate;
use crate::media::audio::mixer::Mixer;
use crate::media::audio::pipeline::CapturePipeline;
use crate::media::audio::ports::{DeviceMicrophone, DeviceSpeaker};
use crate::media::audio::processing::PassThrough;
use crate::media::audio::pulse::{Pulse, ring_frames};
use crate::media::audio::source::ToneGenerator;
use crate::media::audio::stream::{PlayoutStream, StreamShared, lock};
use crate::media::audio::streams::{pop_frame, push_frame};
use crate::media::audio::{AudioError, BLOCK_SAMPLES, SAMPLE_RATE_HZ};
use crate::rtp::frame::AudioPacket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The first seconds are for finding the delay.
const SETTLE: Duration = Duration::from_secs(20);
/// From encoder to playout: a LAN.
const NETWORK: Duration = Duration::from_millis(2);

/// Figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftFigures {
    /// Frames for which the loudspeaker had nothing to play.
    pub missing_frames: u64,
    /// Made-up sound, in ms.
    pub concealed_ms: u64,
    /// Least and greatest delay from microphone to loudspeaker, in ms, one a second.
    pub delay_ms: (f32, f32),
    /// Strongest frequency heard at the end, in Hz.
    pub tone_hz: Option<f32>,
}

/// Time of the `frames`-th frame of a device that is `ppm` millionths too fast.
fn time_of(frames: u64, ppm: f64) -> Duration {
    Duration::from_secs_f64(frames as f64 / (f64::from(SAMPLE_RATE_HZ) * (1.0 + ppm * 1e-6)))
}

/// Runs for `length` with devices that are so many millionths faster than they say.
///
/// # Errors
/// Opus.
pub fn drift(microphone_ppm: f64, speaker_ppm: f64, length: Duration) -> Result<DriftFigures, AudioError> {
    let text = |detail: String| AudioError::NoSpeaker { detail };
    let origin = Instant::now();
    let (mut captured, samples) = rtrb::RingBuffer::new(2 * ring_frames(SAMPLE_RATE_HZ));
    let pulse = Arc::new(Pulse::new(SAMPLE_RATE_HZ));
    let port = MicrophonePort { samples, rate_hz: SAMPLE_RATE_HZ, pulse: Arc::clone(&pulse) };
    let mut microphone = DeviceMicrophone::new(port).map_err(text)?;
    let (samples, mut played) = rtrb::RingBuffer::new(2 * ring_frames(SAMPLE_RATE_HZ));
    let pulse = Arc::new(Pulse::new(SAMPLE_RATE_HZ));
    let port = SpeakerPort { samples, rate_hz: SAMPLE_RATE_HZ, pulse: Arc::clone(&pulse) };
    let mut speaker = DeviceSpeaker::new(port).map_err(text)?;

    let settings = EncoderSettings { dtx: false, ..EncoderSettings::default() };
    let encoder = Box::new(OpusPacketEncoder::new(settings)?);
    let mut pipeline = CapturePipeline::new(MuteGate::new(false), encoder, 0);
    let shared = Arc::new(StreamShared::new(Arc::new(|| {})));
    let stream = PlayoutStream::new(Arc::clone(&shared));
    let mut mixer = Mixer::starting_at(origin);
    mixer.add(Arc::clone(&shared))?;
    let level = AtomicU32::new(0);

    let mut tone = ToneGenerator::new(440.0, false);
    let (mut in_frames, mut out_frames, mut sequence) = (0u64, 0u64, 0u16);
    let mut blocks = Vec::new();
    let mut waiting: std::collections::VecDeque<AudioPacket> = std::collections::VecDeque::new();
    let mut missing = 0;
    let (mut least, mut most) = (f32::MAX, f32::MIN);
    let mut next_look = SETTLE;
    let mut mixing = false;
    loop {
        let (capture_at, play_at) = (
            time_of(in_frames + BLOCK_SAMPLES as u64, microphone_ppm),
            time_of(out_frames + BLOCK_SAMPLES as u64, speaker_ppm),
        );
        let since = capture_at.min(play_at);
        let now = origin + since;
        if since > length {
            break;
        }
        if capture_at <= play_at {
            for sample in tone.next_block(0) {
                push_frame(&mut captured, [sample, 0.0]);
            }
            in_frames += BLOCK_SAMPLES as u64;
        } else {
            // What the callback of a loudspeaker does.
            let mut silent = 0;
            for _ in 0..BLOCK_SAMPLES {
                silent += u64::from(pop_frame(&mut played).is_none());
            }
            out_frames += BLOCK_SAMPLES as u64;
            pulse.beat(BLOCK_SAMPLES);
            pulse.missing.fetch_add(silent, Ordering::Relaxed);
            if since > SETTLE {
                missing += silent;
            }
        }
        // What the audio thread does when it is woken.
        while waiting.front().is_some_and(|packet| packet.at <= now) {
            waiting.pop_front().into_iter().for_each(|packet| stream.push(packet));
        }
        mixer.collect();
        let idle = mixer.is_idle();
        let began = !idle && !std::mem::replace(&mut mixing, !idle);
        speaker.feed(&mut mixer, &mut PassThrough, &level, now, idle, began);
        microphone.take_blocks(now, &mut blocks);
        for block in blocks.drain(..) {
            if block.skipped > 0 {
                pipeline.skip(block.skipped);
            }
            if let Some(packet) = pipeline.push(block.mid, &mut PassThrough, false, true, block.at).packet {
                sequence = sequence.wrapping_add(1);
                let (rtp_timestamp, data) = (packet.rtp_timestamp, packet.data);
                waiting.push_back(AudioPacket { sequence, rtp_timestamp, data, at: now + NETWORK });
            }
        }
        if since >= next_look {
            next_look += Duration::from_secs(1);
            let anchor = lock(&shared.figures).anchor;
            if let Some((rtp_timestamp, heard_at)) = anchor {
                let spoken_at = origin + time_of(u64::from(rtp_timestamp), microphone_ppm);
                let delay_ms = heard_at.saturating_duration_since(spoken_at).as_secs_f32() * 1_000.0;
                (least, most) = (least.min(delay_ms), most.max(delay_ms));
            }
        }
    }
    let stats = stream.stats();
    Ok(DriftFigures {
        missing_frames: missing,
        concealed_ms: stats.concealed_ms,
        delay_ms: (least, most),
        tone_hz: stats.tone_hz,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_neither_run_dry_nor_pile_up() {
        for (microphone, speaker) in [(200.0, -200.0), (-200.0, 200.0), (0.0, 0.0)] {
            let figures = drift(microphone, speaker, Duration::from_secs(120)).unwrap();
            assert_eq!(figures.missing_frames, 0, "{microphone} {speaker}: {figures:?}");
            assert!(figures.concealed_ms <= 40, "{microphone} {speaker}: {figures:?}");
            assert!(figures.delay_ms.1 - figures.delay_ms.0 <= 10.0, "{microphone} {speaker}: {figures:?}");
            assert!(figures.tone_hz.is_some_and(|hz| (hz - 440.0).abs() < 1.0), "{figures:?}");
        }
    }
}
