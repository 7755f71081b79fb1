//! The audio engine of one call: one thread that captures, plays and mixes in blocks of 10 ms.

use super::codec::EncoderSettings;
use super::gate::MuteGate;
use super::host::SoundHost;
use super::stream::{PlayoutStream, StreamShared, lock};
use super::worker::Worker;
use super::{AudioDevices, AudioError, MicrophoneSource, Processing, Sound, SpeakerSink, VoiceChoice};
use crate::rtp::frame::EncodedAudio;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, Thread};
use tokio::sync::mpsc;

/// Where encoded packets go. Called on the audio thread: must return at once.
pub type EncodedAudioSink = Arc<dyn Fn(EncodedAudio) + Send + Sync>;

/// Events that may wait; when full the newest is dropped and logged.
const EVENT_LIMIT: usize = 64;
/// Playout streams of one engine; further ones are refused (see [`AudioEngine::open_stream`]).
const STREAM_LIMIT: usize = 512;
/// Local sounds that may wait; when full the newest is dropped.
const SOUND_LIMIT: usize = 8;

/// How to begin.
#[derive(Debug, Clone)]
pub struct AudioConfig {
    /// Microphone SOURCE.
    pub microphone: MicrophoneSource,
    /// Frequency of `tone` without a number, in Hz; see [`super::source::default_tone_hz`].
    pub default_tone_hz: f32,
    /// Adds the click of `pattern+sync` to the tone.
    pub sync_clicks: bool,
    /// Speaker SINK.
    pub speaker: SpeakerSink,
    /// Echo, noise and gain stages, or sound as it is.
    pub voice: VoiceChoice,
    /// Whether people are brought near to one loudness; `Auto` where they are heard, on a device.
    pub levelling: Processing,
    /// Whether the gate starts closed.
    pub muted: bool,
    /// Opus settings. DTX applies only where processing is on: a detector of speech takes a steady tone for silence.
    pub encoder: EncoderSettings,
}

impl Default for AudioConfig {
    fn default() -> Self {
        Self {
            microphone: MicrophoneSource::None,
            default_tone_hz: 300.0,
            sync_clicks: false,
            speaker: SpeakerSink::Null,
            voice: VoiceChoice::default(),
            levelling: Processing::Auto,
            muted: false,
            encoder: EncoderSettings::default(),
        }
    }
}

/// What the engine tells. Delivered through the receiver of [`AudioEngine::start`].
#[derive(Debug, Clone, PartialEq)]
pub enum AudioEvent {
    /// The microphone gives sound; the name is the device's, or the SOURCE.
    MicrophoneOpened(String),
    /// The microphone cannot be opened. A device is tried again until another source is chosen; success is told by
    /// [`Self::MicrophoneOpened`].
    MicrophoneFailed(AudioError),
    /// The device stopped giving sound and is being rebuilt.
    MicrophoneLost(String),
    /// The speaker takes sound.
    SpeakerOpened(String),
    /// The speaker cannot be opened; devices are tried again.
    SpeakerFailed(AudioError),
    /// The device stopped taking sound and is being rebuilt.
    SpeakerLost(String),
    /// A device runs at another rate than it says, and is taken at the true one from now on.
    RateCorrected {
        /// Its name.
        device: String,
        /// What it says, in Hz.
        told_hz: u32,
        /// What it does, in Hz.
        true_hz: u32,
    },
    /// Nothing but zeros from the device for 3 s: `dev.mic_silent`.
    MicrophoneSilent,
    /// Sound again after [`Self::MicrophoneSilent`].
    MicrophoneAudible,
    /// Somebody talks into the muted microphone: `mute.talking`. At most every 10 s.
    TalkingWhileMuted,
    /// A device was plugged in or unplugged, or the system's default is another one: what there is now. Told while a device
    /// is in use.
    DevicesChanged(AudioDevices),
}

/// Levels of the own microphone, in dBFS, −120 when silent or off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Levels {
    /// As captured.
    pub captured_dbfs: f32,
    /// After processing, before the mute gate: moves also while muted.
    pub processed_dbfs: f32,
    /// Of what the mixer plays.
    pub playout_dbfs: f32,
}

/// What the user wants; the audio thread follows.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) microphone: Option<MicrophoneSource>,
    pub(crate) speaker: Option<SpeakerSink>,
    pub(crate) sink: Option<Option<EncodedAudioSink>>,
    pub(crate) encoder: Option<EncoderSettings>,
    pub(crate) voice: Option<VoiceChoice>,
    pub(crate) levelling: Option<Processing>,
    pub(crate) new_streams: Vec<Arc<StreamShared>>,
    pub(crate) sounds: VecDeque<Arc<[f32]>>,
}

/// Shared by handle and audio thread.
pub(crate) struct EngineShared {
    pub(crate) gate: MuteGate,
    pub(crate) wanted: Mutex<Wanted>,
    pub(crate) dirty: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) captured: AtomicU32,
    pub(crate) processed: AtomicU32,
    pub(crate) playout: AtomicU32,
    pub(crate) streams: AtomicU32,
    pub(crate) encoded_packets: AtomicU64,
    thread: OnceLock<Thread>,
    events: mpsc::Sender<AudioEvent>,
}

impl EngineShared {
    pub(crate) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    pub(crate) fn tell(&self, event: AudioEvent) {
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            tracing::warn!(?event, "audio event dropped: nobody reads them");
        }
    }
}

/// Sound of one call. Dropping it closes everything.
pub struct AudioEngine {
    shared: Arc<EngineShared>,
    encoder: Mutex<EncoderSettings>,
    join: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for AudioEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AudioEngine").field("muted", &self.is_muted()).finish_non_exhaustive()
    }
}

impl AudioEngine {
    /// Starts the audio thread. Devices and files open in the background: their success and failure are events. Silence
    /// stands in for what cannot be opened, so that another choice can be made later.
    ///
    /// # Errors
    /// Opus, or the thread itself.
    pub fn start(config: AudioConfig) -> Result<(Self, mpsc::Receiver<AudioEvent>), AudioError> {
        Self::start_on(SoundHost::default(), config)
    }

    /// As [`Self::start`], with the devices of another sound system.
    ///
    /// # Errors
    /// Opus, or the thread itself.
    pub fn start_on(host: SoundHost, config: AudioConfig) -> Result<(Self, mpsc::Receiver<AudioEvent>), AudioError> {
        let (mut this, worker, receiver) = Self::assemble(host, config)?;
        let join = std::thread::Builder::new()
            .name("audio".to_owned())
            .spawn(move || worker.run())
            .map_err(|e| AudioError::Thread(e.to_string()))?;
        // Set before anybody holds the engine; a wake-up before this line is not needed, the thread has just begun.
        let _ = this.shared.thread.set(join.thread().clone());
        this.join = Some(join);
        Ok((this, receiver))
    }

    /// The handle and what is to run on the audio thread.
    pub(crate) fn assemble(
        host: SoundHost,
        config: AudioConfig,
    ) -> Result<(Self, Worker, mpsc::Receiver<AudioEvent>), AudioError> {
        let (events, receiver) = mpsc::channel(EVENT_LIMIT);
        let silent = || AtomicU32::new((-120.0f32).to_bits());
        let shared = Arc::new(EngineShared {
            gate: MuteGate::new(config.muted),
            wanted: Mutex::new(Wanted::default()),
            dirty: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            captured: silent(),
            processed: silent(),
            playout: silent(),
            streams: AtomicU32::new(0),
            encoded_packets: AtomicU64::new(0),
            thread: OnceLock::new(),
            events,
        });
        let encoder = config.encoder;
        let worker = Worker::new(Arc::clone(&shared), config, host)?;
        Ok((Self { shared, encoder: Mutex::new(encoder), join: None }, worker, receiver))
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut lock(&self.shared.wanted));
        self.shared.dirty.store(true, Ordering::Release);
        self.shared.wake();
    }

    /// Changes the microphone. The latest wish wins; the result is an event.
    pub fn set_microphone(&self, source: MicrophoneSource) {
        self.want(|w| w.microphone = Some(source));
    }

    /// Changes the speaker. The latest wish wins; the result is an event.
    pub fn set_speaker(&self, sink: SpeakerSink) {
        self.want(|w| w.speaker = Some(sink));
    }

    /// Closes (`true`) or opens the mute gate: at once, whatever the audio thread is doing.
    pub fn set_muted(&self, muted: bool) {
        self.shared.gate.set_muted(muted);
        self.shared.wake();
    }

    /// Whether the gate is closed.
    pub fn is_muted(&self) -> bool {
        self.shared.gate.is_muted()
    }

    /// Says where encoded packets go; `None` stops the encoder (not published, or between two transports). RTP
    /// timestamps go on through changes.
    pub fn set_sink(&self, sink: Option<EncodedAudioSink>) {
        self.want(|w| w.sink = Some(sink));
    }

    /// Loss the receivers report, 0 to 1: sets how much error correction is sent.
    pub fn set_packet_loss(&self, fraction: f32) {
        let percent = if fraction.is_finite() { (fraction * 100.0).clamp(0.0, 60.0).ceil() as u8 } else { 0 };
        self.change_encoder(|e| e.packet_loss_percent = percent);
    }

    /// Changes what is done to captured sound, at once and without opening the device anew.
    pub fn set_voice(&self, voice: VoiceChoice) {
        self.want(|w| w.voice = Some(voice));
    }

    /// Says whether people are brought near to one loudness.
    pub fn set_levelling(&self, levelling: Processing) {
        self.want(|w| w.levelling = Some(levelling));
    }

    /// Plays a sound of the program.
    pub fn play(&self, sound: Sound) {
        self.play_sound(sound.samples());
    }

    /// What the path leaves for the picture, in bit/s: where that is little, sound is sent at a lower rate as well.
    pub fn set_bandwidth(&self, picture_bps: u64) {
        self.set_bitrate(super::codec::voice_bitrate_bps(picture_bps));
    }

    /// Target bitrate of Opus in bit/s.
    pub fn set_bitrate(&self, bitrate_bps: u32) {
        self.change_encoder(|e| e.bitrate_bps = bitrate_bps);
    }

    fn change_encoder(&self, change: impl FnOnce(&mut EncoderSettings)) {
        let settings = {
            let mut current = lock(&self.encoder);
            let before = *current;
            change(&mut current);
            if *current == before {
                return;
            }
            *current
        };
        self.want(|w| w.encoder = Some(settings));
    }

    /// Opens the playout of one remote stream. Beyond 512 open streams the handle works but is never heard.
    pub fn open_stream(&self) -> PlayoutStream {
        let engine = Arc::downgrade(&self.shared);
        let wake = Arc::new(move || {
            if let Some(engine) = engine.upgrade() {
                engine.wake();
            }
        });
        let shared = Arc::new(StreamShared::new(wake));
        if (self.shared.streams.load(Ordering::Relaxed) as usize) < STREAM_LIMIT {
            let stream = Arc::clone(&shared);
            self.want(|w| w.new_streams.push(stream));
        } else {
            tracing::warn!("too many audio streams");
        }
        PlayoutStream::new(shared)
    }

    /// Plays a local sound (48 kHz mono) through the mixer, hence also through the echo canceller's far end.
    pub fn play_sound(&self, samples: Arc<[f32]>) {
        self.want(|w| {
            if w.sounds.len() < SOUND_LIMIT {
                w.sounds.push_back(samples);
            }
        });
    }

    /// Levels for the meters. Cheap.
    pub fn levels(&self) -> Levels {
        let get = |level: &AtomicU32| f32::from_bits(level.load(Ordering::Relaxed));
        Levels {
            captured_dbfs: get(&self.shared.captured),
            processed_dbfs: get(&self.shared.processed),
            playout_dbfs: get(&self.shared.playout),
        }
    }

    /// Packets handed to the sink so far, the silent ones of a muted stream included.
    pub fn packets_sent(&self) -> u64 {
        self.shared.encoded_packets.load(Ordering::Relaxed)
    }

    /// Stops everything and waits for the audio thread; sound files are complete afterwards.
    pub fn close(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("the audio thread panicked");
        }
    }
}

impl Drop for AudioEngine {
    fn drop(&mut self) {
        self.shut_down();
    }
}
