//! The audio thread: follows the user's wishes, captures, mixes, and sleeps in between.

use super::codec::{EncoderSettings, OpusPacketEncoder};
use super::device::Supervisor;
use super::dsp::{rms, sine_dbfs};
use super::engine::{AudioConfig, AudioEvent, EncodedAudioSink, EngineShared, Wanted};
use super::host::SoundHost;
use super::mixer::Mixer;
use super::pacing::{BLOCK, CATCH_UP, Pacer, Silence};
use super::pipeline::CapturePipeline;
use super::ports::{Captured, DeviceMicrophone, DeviceSpeaker};
use super::processing::{CaptureProcessor, PassThrough, Processing, Stages, VoiceProcessor};
use super::restart::Restarts;
use super::sink::WavSink;
use super::source::{ToneGenerator, WavLoop};
use super::stream::lock;
#[cfg(target_os = "linux")]
use super::system::SystemSound;
use super::{AudioError, BLOCK_SAMPLES, Block, MicrophoneSource, SAMPLE_RATE_HZ, SpeakerSink};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Sleep with nothing to do; wishes, packets and callbacks wake earlier.
const IDLE: Duration = Duration::from_millis(500);
/// How often a muted synthetic microphone and a silent sound file are brought up to date.
const LAZY: Duration = Duration::from_millis(200);
/// A device's callbacks wake us; this is for one that gives none.
const DEVICE: Duration = Duration::from_millis(100);

enum Microphone {
    None,
    Tone(ToneGenerator, Pacer),
    File(WavLoop, Pacer),
    #[cfg(target_os = "linux")]
    System(SystemSound, Pacer),
    Device(Option<Box<DeviceMicrophone>>),
}

enum Speaker {
    Null(Pacer),
    File(WavSink, Pacer),
    Device(Option<Box<DeviceSpeaker>>),
}

#[cfg(target_os = "linux")]
fn system_sound(now: Instant) -> Result<Microphone, AudioError> {
    let failed = |detail| AudioError::NoMicrophone { detail };
    Ok(Microphone::System(SystemSound::open().map_err(failed)?, Pacer::new(now)))
}

#[cfg(not(target_os = "linux"))]
fn system_sound(_now: Instant) -> Result<Microphone, AudioError> {
    Err(AudioError::NoMicrophone { detail: "the sound of this computer cannot be recorded on this system yet".into() })
}

/// State of the audio thread.
pub(crate) struct Worker {
    pub(super) shared: Arc<EngineShared>,
    pub(super) config: AudioConfig,
    pub(super) encoder: EncoderSettings,
    microphone: Microphone,
    speaker: Speaker,
    pub(super) pipeline: CapturePipeline,
    processor: Box<dyn CaptureProcessor>,
    /// Stages that run; none of them for sound as it is.
    stages: Stages,
    from_device: bool,
    pub(super) mixer: Mixer,
    sink: Option<EncodedAudioSink>,
    pub(super) supervisor: Option<Supervisor>,
    captured_until: Instant,
    mixing: bool,
    was_muted: bool,
    /// Pace of playout while a device is missing or being rebuilt.
    meanwhile: Pacer,
    /// Silence in place of a microphone that gives nothing.
    silence: Silence,
    pub(super) restarts: Restarts,
    /// Where devices are, and the time.
    pub(super) host: SoundHost,
}

impl Worker {
    /// Opens nothing yet: what cannot be opened is told as an event by [`Self::run`], and costs its own direction only.
    pub(crate) fn new(shared: Arc<EngineShared>, config: AudioConfig, host: SoundHost) -> Result<Self, AudioError> {
        let now = host.clock.now();
        let pipeline = CapturePipeline::new(
            shared.gate.clone(),
            Box::new(OpusPacketEncoder::new(config.encoder)?),
            rand::random(),
        );
        Ok(Self {
            shared,
            encoder: config.encoder,
            microphone: Microphone::None,
            speaker: Speaker::Null(Pacer::new(now)),
            pipeline,
            processor: Box::new(PassThrough),
            stages: Stages::NONE,
            from_device: false,
            mixer: Mixer::starting_at(now),
            sink: None,
            supervisor: None,
            captured_until: now,
            mixing: false,
            was_muted: false,
            meanwhile: Pacer::new(now),
            silence: Silence::new(now),
            restarts: Restarts::default(),
            config,
            host,
        })
    }

    /// The thread's body.
    pub(crate) fn run(mut self) {
        self.open();
        while let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.turns())) {
            if !self.recover(panic.as_ref()) {
                break;
            }
        }
        if let Speaker::File(file, _) = self.speaker
            && let Err(error) = file.finish()
        {
            tracing::error!(%error, "sound file");
        }
    }

    /// Opens what the configuration says.
    pub(super) fn open(&mut self) {
        let (microphone, speaker) = (self.config.microphone.clone(), self.config.speaker.clone());
        self.open_microphone(&microphone);
        self.open_speaker(&speaker);
    }

    fn turns(&mut self) {
        while !self.shared.closing.load(Ordering::Acquire) {
            let sleep = self.turn();
            if !sleep.is_zero() {
                std::thread::park_timeout(sleep);
            }
        }
    }

    /// Does what is due; how long nothing more is.
    pub(super) fn turn(&mut self) -> Duration {
        if self.shared.dirty.swap(false, Ordering::AcqRel) {
            self.follow_wishes();
        }
        self.drop_lost_devices();
        self.mixer.collect();
        self.shared.streams.store(self.mixer.len() as u32, Ordering::Relaxed);
        // Far end first: what is played now comes back through the microphone later.
        self.play();
        self.capture();
        self.sleep()
    }

    fn follow_wishes(&mut self) {
        let Wanted { microphone, speaker, sink, encoder, voice, levelling, new_streams, sounds } =
            std::mem::take(&mut *lock(&self.shared.wanted));
        if let Some(sink) = sink {
            self.sink = sink;
        }
        if let Some(encoder) = encoder {
            self.encoder = encoder;
            self.configure_encoder();
        }
        if let Some(voice) = voice
            && voice != self.config.voice
        {
            self.config.voice = voice;
            self.choose_stages(false);
        }
        if let Some(levelling) = levelling {
            self.config.levelling = levelling;
            self.choose_levelling();
        }
        for stream in new_streams {
            if let Err(error) = self.mixer.add(stream) {
                tracing::error!(%error, "playout stream");
            }
        }
        for sound in sounds {
            self.mixer.play(sound);
        }
        if let Some(source) = microphone {
            self.open_microphone(&source);
            self.config.microphone = source;
        }
        if let Some(sink) = speaker {
            self.open_speaker(&sink);
            self.config.speaker = sink;
        }
        self.take_ports();
    }

    /// A port whose stream the supervisor has closed gives and takes nothing more; the next one comes when it is rebuilt.
    fn drop_lost_devices(&mut self) {
        if let Microphone::Device(slot) = &mut self.microphone
            && slot.as_ref().is_some_and(|d| d.port.samples.is_abandoned())
        {
            *slot = None;
            set_level(&self.shared.captured, -120.0);
            set_level(&self.shared.processed, -120.0);
        }
        if let Speaker::Device(slot) = &mut self.speaker
            && slot.as_ref().is_some_and(|d| d.port.samples.is_abandoned())
        {
            *slot = None;
            self.meanwhile = Pacer::new(self.host.clock.now());
        }
    }

    fn take_ports(&mut self) {
        let Some(supervisor) = &self.supervisor else { return };
        if let Microphone::Device(slot) = &mut self.microphone
            && let Some(port) = supervisor.take_microphone()
        {
            match DeviceMicrophone::new(port) {
                Ok(device) => *slot = Some(Box::new(device)),
                Err(detail) => self.shared.tell(AudioEvent::MicrophoneFailed(AudioError::NoMicrophone { detail })),
            }
            self.pipeline.source_changed();
        }
        if let Speaker::Device(slot) = &mut self.speaker
            && let Some(port) = supervisor.take_speaker()
        {
            match DeviceSpeaker::new(port) {
                Ok(device) => *slot = Some(Box::new(device)),
                Err(detail) => self.shared.tell(AudioEvent::SpeakerFailed(AudioError::NoSpeaker { detail })),
            }
        }
    }

    /// The supervisor, started on first use.
    fn supervisor(&mut self) -> Result<&Supervisor, AudioError> {
        if self.supervisor.is_none() {
            self.supervisor = Some(Supervisor::start(&self.shared, &self.host)?);
        }
        self.supervisor.as_ref().ok_or_else(|| AudioError::Thread("no supervisor".to_owned()))
    }

    pub(super) fn open_microphone(&mut self, source: &MicrophoneSource) {
        if let (Some(supervisor), false) = (&self.supervisor, matches!(source, MicrophoneSource::Device(_))) {
            supervisor.want_microphone(None);
        }
        let opened = match source {
            MicrophoneSource::None => Ok(Microphone::None),
            MicrophoneSource::Tone(hz) => {
                let hz = hz.unwrap_or(self.config.default_tone_hz);
                Ok(Microphone::Tone(ToneGenerator::new(hz, self.config.sync_clicks), Pacer::new(self.host.clock.now())))
            }
            MicrophoneSource::File(path) => {
                WavLoop::open(path).map(|wav| Microphone::File(wav, Pacer::new(self.host.clock.now())))
            }
            MicrophoneSource::System => system_sound(self.host.clock.now()),
            MicrophoneSource::Device(id) => self.supervisor().map(|s| {
                s.want_microphone(Some(id.clone()));
                Microphone::Device(None)
            }),
        };
        set_level(&self.shared.captured, -120.0);
        set_level(&self.shared.processed, -120.0);
        match opened {
            Ok(microphone) => {
                self.microphone = microphone;
                self.prepare_processing(matches!(source, MicrophoneSource::Device(_)));
                // Devices tell when they are really open.
                if !matches!(source, MicrophoneSource::Device(_) | MicrophoneSource::None) {
                    self.shared.tell(AudioEvent::MicrophoneOpened(source.to_string()));
                }
            }
            Err(error) => {
                // Silence stands in: a published stream without packets would look to the others like a broken connection.
                self.microphone = Microphone::File(WavLoop::silence(), Pacer::new(self.host.clock.now()));
                self.prepare_processing(false);
                self.shared.tell(AudioEvent::MicrophoneFailed(error));
            }
        }
        self.pipeline.source_changed();
    }

    fn prepare_processing(&mut self, device: bool) {
        self.from_device = device;
        self.choose_stages(true);
    }

    /// Stages as the user wants them. What they have learned of the room is forgotten only where the source is `new`.
    fn choose_stages(&mut self, new: bool) {
        let stages = self.config.voice.stages_for(self.from_device);
        let before = std::mem::replace(&mut self.stages, stages);
        if stages == Stages::NONE {
            self.processor = Box::new(PassThrough);
        } else if new || before == Stages::NONE {
            self.processor = Box::new(VoiceProcessor::new(stages));
        } else {
            self.processor.set_stages(stages);
        }
        self.configure_encoder();
    }

    fn configure_encoder(&mut self) {
        let settings = if self.config.voice.original_sound {
            self.encoder.original_sound(true)
        } else {
            // A detector of speech takes a steady tone for silence: pauses only where speech is what comes.
            EncoderSettings { dtx: self.encoder.dtx && self.stages != Stages::NONE, ..self.encoder }
        };
        self.pipeline.configure(settings);
    }

    /// People are levelled where they are heard: a file is what was sent.
    pub(super) fn choose_levelling(&mut self) {
        self.mixer.set_levelling(match self.config.levelling {
            Processing::Auto => matches!(self.speaker, Speaker::Device(_)),
            Processing::On => true,
            Processing::Off => false,
        });
    }

    pub(super) fn open_speaker(&mut self, sink: &SpeakerSink) {
        if let (Some(supervisor), false) = (&self.supervisor, matches!(sink, SpeakerSink::Device(_))) {
            supervisor.want_speaker(None);
        }
        let opened = match sink {
            SpeakerSink::Null => Ok(Speaker::Null(Pacer::new(self.host.clock.now()))),
            SpeakerSink::File(path) => {
                WavSink::create(path).map(|wav| Speaker::File(wav, Pacer::new(self.host.clock.now())))
            }
            SpeakerSink::Device(id) => self.supervisor().map(|s| {
                s.want_speaker(Some(id.clone()));
                Speaker::Device(None)
            }),
        };
        let new = match opened {
            Ok(speaker) => {
                if matches!(sink, SpeakerSink::File(_)) {
                    self.shared.tell(AudioEvent::SpeakerOpened(sink.to_string()));
                }
                speaker
            }
            Err(error) => {
                self.shared.tell(AudioEvent::SpeakerFailed(error));
                Speaker::Null(Pacer::new(self.host.clock.now()))
            }
        };
        if let Speaker::File(file, _) = std::mem::replace(&mut self.speaker, new)
            && let Err(error) = file.finish()
        {
            tracing::error!(%error, "sound file");
        }
        self.choose_levelling();
    }

    /// Mixes what the speaker needs now.
    fn play(&mut self) {
        let idle = self.mixer.is_idle();
        if idle && self.mixing {
            set_level(&self.shared.playout, -120.0);
        }
        let began = !idle && !self.mixing;
        self.mixing = !idle;
        let now = self.host.clock.now();
        // Without a device the pace is ours; a device that is missing or being rebuilt is replaced by silence in real time.
        let device_gone = matches!(self.speaker, Speaker::Device(None));
        match &mut self.speaker {
            Speaker::Device(Some(device)) => {
                device.feed(&mut self.mixer, self.processor.as_mut(), &self.shared.playout, now, idle, began);
            }
            Speaker::Null(pacer) => {
                if began {
                    pacer.next = now;
                }
                while !idle && pacer.due(now).is_some() {
                    let at = pacer.next - BLOCK;
                    mixed(&mut self.mixer, self.processor.as_mut(), &self.shared.playout, at, Duration::ZERO);
                }
            }
            Speaker::File(file, pacer) => {
                let mut failed = None;
                while let Some(skipped) = pacer.due(now) {
                    let block = if idle {
                        [0.0; BLOCK_SAMPLES]
                    } else {
                        let at = pacer.next - BLOCK;
                        mixed(&mut self.mixer, self.processor.as_mut(), &self.shared.playout, at, Duration::ZERO)
                    };
                    // The file keeps real time also over a pause of the machine, up to a minute.
                    let silent = (skipped / BLOCK_SAMPLES as u32).min(6_000);
                    let written = (0..silent)
                        .try_for_each(|_| file.write(&[0.0; BLOCK_SAMPLES]))
                        .and_then(|()| file.write(&block));
                    if let Err(error) = written {
                        failed = Some(error);
                        break;
                    }
                }
                if let Some(error) = failed {
                    self.shared.tell(AudioEvent::SpeakerFailed(error));
                    self.speaker = Speaker::Null(Pacer::new(self.host.clock.now()));
                }
            }
            Speaker::Device(None) => {}
        }
        if device_gone && !idle {
            // Keeps jitter buffers moving.
            if began {
                self.meanwhile.next = now;
            }
            while self.meanwhile.due(now).is_some() {
                mixed(&mut self.mixer, self.processor.as_mut(), &self.shared.playout, now, Duration::ZERO);
            }
        }
    }

    /// Frames that the speaker's device had no sound for since it was opened.
    pub(super) fn speaker_missing(&self) -> u64 {
        if let Speaker::Device(Some(device)) = &self.speaker { device.port.pulse.missing() } else { 0 }
    }

    /// Takes what the microphone has.
    fn capture(&mut self) {
        let now = self.host.clock.now();
        let mut blocks: Vec<Captured> = Vec::new();
        let mut from_device = false;
        // Without a sink nobody waits for packets.
        let published = self.sink.is_some();
        match &mut self.microphone {
            Microphone::None | Microphone::Device(None) if published => self.silence.fill(now, &mut blocks),
            Microphone::None | Microphone::Device(None) => self.silence.standing_in = false,
            Microphone::Tone(tone, pacer) => {
                self.silence.standing_in = false;
                while let Some(skipped) = pacer.due(now) {
                    // The block begins when it was due, not when we got round to it.
                    let late = now.saturating_duration_since(pacer.next) + BLOCK;
                    let unix = SystemTime::now().checked_sub(late).unwrap_or(UNIX_EPOCH);
                    let unix_ms = unix.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
                    blocks.push(Captured::mono(skipped, pacer.next - BLOCK, tone.next_block(unix_ms)));
                }
            }
            Microphone::File(wav, pacer) => {
                self.silence.standing_in = false;
                while let Some(skipped) = pacer.due(now) {
                    let (mid, side) = wav.next_wide();
                    blocks.push(Captured { skipped, at: pacer.next - BLOCK, mid, side });
                }
            }
            #[cfg(target_os = "linux")]
            Microphone::System(sound, pacer) => {
                self.silence.standing_in = false;
                while let Some(skipped) = pacer.due(now) {
                    blocks.push(Captured::mono(skipped, pacer.next - BLOCK, sound.next_block()));
                }
            }
            Microphone::Device(Some(device)) => {
                from_device = true;
                device.set_wide(self.config.voice.original_sound);
                device.take_blocks(now, &mut blocks);
                if self.silence.heard(now, blocks.len()) {
                    // What waited in the ring is older than silence already sent, and may be older than an end of a mute.
                    blocks.drain(..blocks.len() - 1);
                    self.pipeline.source_changed();
                } else if blocks.is_empty() && published && self.silence.is_due(now) {
                    from_device = false;
                    self.silence.fill(now, &mut blocks);
                }
            }
        }
        if blocks.is_empty() {
            return;
        }
        // What was captured before the gate opened is not sent, however late we come to it.
        let muted = self.shared.gate.is_muted();
        if std::mem::replace(&mut self.was_muted, muted) && !muted {
            let stale = blocks.len() - 1;
            let skipped: u32 = blocks.drain(..stale).map(|block| block.skipped + BLOCK_SAMPLES as u32).sum();
            if skipped > 0 {
                self.pipeline.skip(skipped);
            }
        }
        for block in blocks {
            self.handle(&block, from_device);
        }
    }

    fn handle(&mut self, block: &Captured, from_device: bool) {
        let skipped = block.skipped;
        let now = self.host.clock.now();
        // Time without a source, or a device that was away: the RTP clock goes on.
        let gap = now.saturating_duration_since(self.captured_until);
        self.captured_until = now;
        if skipped > 0 {
            self.pipeline.skip(skipped);
        } else if gap > CATCH_UP {
            self.pipeline
                .skip((gap.as_millis() as u64 * u64::from(SAMPLE_RATE_HZ) / 1_000).min(u64::from(u32::MAX / 4)) as u32);
        }
        // Silence that stands in says nothing about the room: echo canceller and gain keep what they know of it.
        let processor: &mut dyn CaptureProcessor =
            if self.silence.standing_in { &mut PassThrough } else { self.processor.as_mut() };
        let (side, sending) = (block.side.as_ref(), self.sink.is_some());
        let step = self.pipeline.push_wide(block.mid, side, processor, from_device, sending, block.at);
        set_level(&self.shared.captured, step.captured_dbfs);
        set_level(&self.shared.processed, step.processed_dbfs);
        if step.talking_while_muted {
            self.shared.tell(AudioEvent::TalkingWhileMuted);
        }
        if let Some(silent) = step.silent {
            self.shared.tell(if silent { AudioEvent::MicrophoneSilent } else { AudioEvent::MicrophoneAudible });
        }
        if let (Some(packet), Some(sink)) = (step.packet, &self.sink) {
            self.shared.encoded_packets.fetch_add(u64::from(!packet.data.is_empty()), Ordering::Relaxed);
            sink(packet);
        }
    }

    /// How long nothing needs to be done.
    fn sleep(&self) -> Duration {
        let now = self.host.clock.now();
        let muted = self.shared.gate.is_muted() || self.sink.is_none();
        let until = |next: Instant, lazy: bool| {
            let wait = next.saturating_duration_since(now);
            if lazy { wait.max(LAZY) } else { wait }
        };
        let capture = match &self.microphone {
            Microphone::None | Microphone::Device(None) if self.sink.is_none() => IDLE,
            Microphone::None | Microphone::Device(None) => until(self.silence.pacer.next, muted),
            Microphone::Device(Some(_)) if self.silence.standing_in => until(self.silence.pacer.next, muted),
            Microphone::Device(Some(_)) => DEVICE,
            Microphone::Tone(_, pacer) | Microphone::File(_, pacer) => until(pacer.next, muted),
            #[cfg(target_os = "linux")]
            Microphone::System(_, pacer) => until(pacer.next, muted),
        };
        let playout = match &self.speaker {
            Speaker::File(_, pacer) => until(pacer.next, !self.mixing),
            _ if !self.mixing => IDLE,
            Speaker::Null(pacer) => until(pacer.next, false),
            Speaker::Device(Some(device)) if device.is_slow() => BLOCK / 2,
            Speaker::Device(Some(_)) => DEVICE,
            Speaker::Device(None) => until(self.meanwhile.next, false),
        };
        capture.min(playout)
    }
}

pub(crate) fn set_level(slot: &AtomicU32, dbfs: f32) {
    slot.store(dbfs.to_bits(), Ordering::Relaxed);
}

/// One mixed block, shown to the echo canceller.
pub(crate) fn mixed(
    mixer: &mut Mixer,
    processor: &mut dyn CaptureProcessor,
    level: &AtomicU32,
    now: Instant,
    delay: Duration,
) -> Block {
    let block = mixer.mix(now, delay);
    processor.far_end(&block);
    set_level(level, sine_dbfs(rms(&block)));
    block
}
