//! A microphone and a loudspeaker whose clocks are not the same (F19): a whole engine in virtual time, from the callbacks of the
//! one to those of the other.

use super::devices::{VirtualDevice, VirtualDevices, Way};
use super::mouth_to_ear::{Recording, sung};
use super::rig::Rig;
use crate::media::audio::clock::Clock;
use crate::media::audio::host::SoundHost;
use crate::media::audio::stream::lock;
use crate::media::audio::{AudioConfig, AudioError, MicrophoneSource, Processing, SpeakerSink, VoiceChoice};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The first seconds are for finding the delay.
const SETTLE: Duration = Duration::from_secs(20);
/// What is recorded is looked through in pieces of this length.
const PIECE: Duration = Duration::from_secs(20);

/// Figures of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct DriftFigures {
    /// Frames for which the loudspeaker had nothing to play.
    pub missing_frames: u64,
    /// How often one of the devices was opened anew.
    pub rebuilt: u32,
    /// Made-up sound, in ms.
    pub concealed_ms: u64,
    /// Least and greatest delay from what the microphone hears to what the loudspeaker plays, in ms, one a second.
    pub delay_ms: (f32, f32),
    /// Seconds in which it could be heard.
    pub heard: usize,
    /// Strongest frequency heard at the end, in Hz.
    pub tone_hz: Option<f32>,
}

/// Runs for `length` with devices that are so many millionths faster than they say.
///
/// # Errors
/// Opus.
pub fn drift(microphone_ppm: f64, speaker_ppm: f64, length: Duration) -> Result<DriftFigures, AudioError> {
    drift_on(microphone_ppm, speaker_ppm, length, |devices, clock| SoundHost::new(devices, clock))
}

/// As [`drift`], through the sound system that `host` makes of the devices.
pub(crate) fn drift_on(
    microphone_ppm: f64,
    speaker_ppm: f64,
    length: Duration,
    host: impl FnOnce(Arc<VirtualDevices>, Clock) -> SoundHost,
) -> Result<DriftFigures, AudioError> {
    let clock = Clock::standing();
    let origin = clock.now();
    let ear = Arc::new(Mutex::new(Recording::default()));
    let heard = Arc::clone(&ear);
    let hears = Box::new(move |at: Instant| sung((at - origin).as_secs_f64()));
    let plays = Box::new(move |samples: &[f32], until| lock(&heard).take(samples.iter().copied(), until));
    let devices = VirtualDevices::new(vec![
        VirtualDevice::new("microphone", microphone_ppm, Way::In(hears)),
        VirtualDevice::new("speaker", speaker_ppm, Way::Out(plays)),
    ]);
    let config = AudioConfig {
        microphone: MicrophoneSource::Device(None),
        speaker: SpeakerSink::Device(None),
        voice: VoiceChoice { processing: Processing::Off, ..VoiceChoice::default() },
        ..AudioConfig::default()
    };
    let mut rig = Rig::new(host(Arc::clone(&devices), clock), Arc::clone(&devices), config)?;
    let stream = rig.engine.open_stream();
    rig.engine.set_sink(Some(rig.wire(&stream)));
    rig.run_until(SETTLE.min(length));
    let (missing, opened) = (rig.speaker_missing(), devices.opened());
    let mut figures = DriftFigures {
        missing_frames: 0,
        rebuilt: 0,
        concealed_ms: 0,
        delay_ms: (f32::MAX, f32::MIN),
        heard: 0,
        tone_hz: None,
    };
    while rig.since() + PIECE <= length {
        *lock(&ear) = Recording::default();
        rig.run_until(rig.since() + PIECE);
        for at in lock(&ear).times() {
            // A chirp was spoken at each full second.
            let delay_ms = at.saturating_duration_since(origin).subsec_micros() as f32 / 1_000.0;
            figures.heard += 1;
            figures.delay_ms = (figures.delay_ms.0.min(delay_ms), figures.delay_ms.1.max(delay_ms));
        }
    }
    let stats = stream.stats();
    figures.missing_frames = rig.speaker_missing().saturating_sub(missing);
    figures.rebuilt = devices.opened() - opened;
    (figures.concealed_ms, figures.tone_hz) = (stats.concealed_ms, stats.tone_hz);
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_neither_run_dry_nor_pile_up() {
        for (microphone, speaker) in [(200.0, -200.0), (-200.0, 200.0), (0.0, 0.0)] {
            let figures = drift(microphone, speaker, Duration::from_secs(120)).unwrap();
            assert_eq!((figures.missing_frames, figures.rebuilt), (0, 0), "{microphone} {speaker}: {figures:?}");
            assert!(figures.heard >= 90, "{microphone} {speaker}: {figures:?}");
            assert!(figures.concealed_ms <= 40, "{microphone} {speaker}: {figures:?}");
            assert!(figures.delay_ms.1 - figures.delay_ms.0 <= 10.0, "{microphone} {speaker}: {figures:?}");
            assert!(figures.tone_hz.is_some_and(|hz| (hz - 440.0).abs() < 1.0), "{figures:?}");
        }
    }
}
