//! The audio thread after a panic: sound goes on with what can be trusted, and ends with a word where it cannot.

use super::codec::OpusPacketEncoder;
use super::engine::AudioEvent;
use super::mixer::Mixer;
use super::pipeline::CapturePipeline;
use super::worker::Worker;
use super::{AudioError, MicrophoneSource, SpeakerSink};
use std::any::Any;
use std::time::{Duration, Instant};

/// Panics that are got over ...
const LIMIT: u32 = 5;
/// ... in this time; more are one that comes again and again.
const WINDOW: Duration = Duration::from_secs(60);

/// Counts them.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    since: Option<Instant>,
    count: u32,
}

impl Restarts {
    /// Notes a panic; whether it can be got over.
    fn another(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) > WINDOW) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count <= LIMIT
    }
}

impl Worker {
    /// Makes all anew that may be half done, and keeps what others hold: streams, files, the RTP clock. `false` when sound
    /// has to end, which is told.
    pub(crate) fn recover(&mut self, panic: &(dyn Any + Send)) -> bool {
        let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.unwrap_or("unknown"), "the audio thread panicked");
        let again = self.restarts.another(self.host.clock.now());
        let encoder = OpusPacketEncoder::new(self.encoder);
        let (Ok(encoder), true) = (encoder, again) else {
            let error = || AudioError::Thread(text.unwrap_or("panic").to_owned());
            self.shared.tell(AudioEvent::MicrophoneFailed(error()));
            self.shared.tell(AudioEvent::SpeakerFailed(error()));
            return false;
        };
        let (source, sink) = (self.config.microphone.clone(), self.config.speaker.clone());
        if source != MicrophoneSource::None {
            self.shared.tell(AudioEvent::MicrophoneLost(source.to_string()));
        }
        if sink != SpeakerSink::Null {
            self.shared.tell(AudioEvent::SpeakerLost(sink.to_string()));
        }
        self.pipeline =
            CapturePipeline::new(self.shared.gate.clone(), Box::new(encoder), self.pipeline.rtp_timestamp());
        let streams = self.mixer.streams();
        self.mixer = Mixer::starting_at(self.host.clock.now());
        for stream in streams {
            if let Err(error) = self.mixer.add(stream) {
                tracing::error!(%error, "playout stream");
            }
        }
        self.open_microphone(&source);
        match sink {
            // Opened anew it would begin from nothing.
            SpeakerSink::File(_) => self.shared.tell(AudioEvent::SpeakerOpened(sink.to_string())),
            sink => self.open_speaker(&sink),
        }
        self.choose_levelling();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_now_and_then_is_got_over_and_one_after_the_other_is_not() {
        let (mut restarts, start) = (Restarts::default(), Instant::now());
        let mut at = |s: u64| restarts.another(start + Duration::from_secs(s));
        assert!((0..20).all(|n| at(n * 20)));
        assert!((0..4).all(|_| at(1_000)) && at(1_001) && !at(1_002));
    }
}
