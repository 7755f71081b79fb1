//! The audio thread.

use super::codec::{EncoderSettings, OpusPacketEncoder};
use super::engine::{AudioConfig, AudioEvent, EncodedAudioSink, EngineShared};
use super::pipeline::CapturePipeline;
use super::processing::{CaptureProcessor, PassThrough};
use super::source::{ToneGenerator, WavLoop};
use super::stream::lock;
use super::{AudioError, MicrophoneSource};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

enum Microphone {
    None,
    Tone(ToneGenerator),
    File(WavLoop),
}

pub(crate) struct Worker {
    shared: Arc<EngineShared>,
    microphone: Microphone,
    pipeline: CapturePipeline,
    processor: Box<dyn CaptureProcessor>,
    sink: Option<EncodedAudioSink>,
    next: Instant,
    config: AudioConfig,
}

impl Worker {
    pub(crate) fn new(shared: Arc<EngineShared>, config: AudioConfig) -> Result<Self, AudioError> {
        let settings = EncoderSettings {
            dtx: false,
            ..config.encoder
        };
        let pipeline = CapturePipeline::new(
            shared.gate.clone(),
            Box::new(OpusPacketEncoder::new(settings)?),
            rand::random(),
        );
        let mut worker = Self {
            shared,
            microphone: Microphone::None,
            pipeline,
            processor: Box::new(PassThrough),
            sink: None,
            next: Instant::now(),
            config,
        };
        let source = worker.config.microphone.clone();
        worker.open_microphone(&source)?;
        Ok(worker)
    }

    fn open_microphone(&mut self, source: &MicrophoneSource) -> Result<(), AudioError> {
        self.microphone = match source {
            MicrophoneSource::Tone(hz) => Microphone::Tone(ToneGenerator::new(
                hz.unwrap_or(self.config.default_tone_hz),
                self.config.sync_clicks,
            )),
            MicrophoneSource::File(path) => Microphone::File(WavLoop::open(path)?),
            MicrophoneSource::Device(_) | MicrophoneSource::None => Microphone::None,
        };
        self.pipeline.source_changed();
        Ok(())
    }

    pub(crate) fn run(mut self) {
        while !self.shared.closing.load(Ordering::Acquire) {
            if self.shared.dirty.swap(false, Ordering::AcqRel) {
                let (microphone, sink) = {
                    let mut wanted = lock(&self.shared.wanted);
                    (wanted.microphone.take(), wanted.sink.take())
                };
                if let Some(sink) = sink {
                    self.sink = sink;
                }
                if let Some(source) = microphone
                    && let Err(error) = self.open_microphone(&source)
                {
                    self.shared.tell(AudioEvent::MicrophoneFailed(error));
                }
            }
            let now = Instant::now();
            while self.next <= now {
                self.next += Duration::from_millis(10);
                let unix_ms = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_millis() as u64;
                let block = match &mut self.microphone {
                    Microphone::Tone(tone) => tone.next_block(unix_ms),
                    Microphone::File(wav) => wav.next_block(),
                    Microphone::None => continue,
                };
                let step =
                    self.pipeline
                        .push(block, self.processor.as_mut(), false, self.sink.is_some());
                if let (Some(packet), Some(sink)) = (step.packet, &self.sink) {
                    sink(packet);
                }
            }
            std::thread::park_timeout(self.next.saturating_duration_since(Instant::now()));
        }
    }
}
