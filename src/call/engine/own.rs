//! My own devices and my own stream: what the engine knows of them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::DEVICE_PATIENCE;
use super::encoders::Encoders;
use crate::call::active::Active;
use crate::call::config::{CallConfig, VideoInput};
use crate::call::leg::{LegId, LegInput, Line};
use crate::call::view::{DeviceState, Failure, Level};
use crate::media::audio::{MicrophoneSource, SpeakerSink, VoiceChoice};
use crate::media::video::capture::Capture;
use crate::media::video::frame::FrameSlot;
use crate::media::video::source::{CameraSource, ScreenSource, Tuning, VideoMode};
use crate::peer::{MediaSender, Publication};

/// So much of the path is looked for in any case, in bit/s: a larger picture, or a screen, has it at once.
const LEAST_LOOKED_FOR_BPS: u64 = 1_600_000;
/// What a picture makes use of before there is an encoder, in bit/s.
const USEFUL_BPS: u64 = 2_500_000;

/// Devices and publication.
pub(super) struct Own {
    pub(super) video: VideoInput,
    /// What the camera was before a screen took its place, and whether it was muted: it must not come back on by itself.
    pub(super) camera_before_share: Option<(VideoInput, bool)>,
    pub(super) capture: Option<Capture>,
    pub(super) capture_number: u64,
    pub(super) slot: FrameSlot,
    /// Written ten times a second, read by whoever draws.
    pub(super) level: Level,
    pub(super) camera_state: DeviceState,
    pub(super) microphone_state: DeviceState,
    pub(super) camera_name: Option<String>,
    pub(super) microphone_name: Option<String>,
    pub(super) speaker_name: Option<String>,
    pub(super) speaker_is_device: bool,
    pub(super) audio_muted: bool,
    pub(super) video_muted: bool,
    pub(super) has_microphone: bool,
    /// What is done to the microphone's sound.
    pub(super) voice: VoiceChoice,
    /// What the others are told, shared with the leg that tells it.
    pub(super) active: Arc<Active>,
    pub(super) mode: VideoMode,
    pub(super) opening_since: Option<Instant>,
    pub(super) unpublished: bool,
    /// The server refused to let us publish: not asked again in this place.
    pub(super) refused: bool,
    /// Camera and microphone are closed although they are wanted: nothing of them could be sent.
    pub(super) withheld: bool,
    /// The microphone that is wanted.
    pub(super) microphone: MicrophoneSource,
    /// The media server restarts: nothing is published before.
    pub(super) not_before: Option<Instant>,
    pub(super) publishing: Option<Publishing>,
    pub(super) encoder: Option<Encoders>,
    /// Layers that are negotiated for the picture.
    pub(super) layers: usize,
    /// Everybody was told that the picture is a screen: it may stand still.
    pub(super) announced_screen: bool,
    pub(super) sender: Arc<ArcSwapOption<MediaSender>>,
    pub(super) encoded_since: Option<Instant>,
    /// Since when there has been no picture to encode on purpose, and for how long in all before.
    off_since: Option<Instant>,
    off_before: Duration,
    pub(super) target_bps: Option<u64>,
    pub(super) sent_720p_after_ms: Option<u64>,
    pub(super) frames_total: Arc<AtomicU64>,
}

/// A running publication.
pub(super) struct Publishing {
    pub(super) leg: LegId,
    pub(super) input: mpsc::Sender<LegInput>,
    pub(super) line: Line<Publication>,
    pub(super) stream_id: Option<String>,
    pub(super) has_audio: bool,
    pub(super) has_video: bool,
    pub(super) flowing: bool,
    pub(super) connected_at: Option<Instant>,
}

impl Own {
    pub(super) fn new(config: &CallConfig) -> Self {
        let media = &config.media;
        let has_microphone = media.microphone != MicrophoneSource::None;
        Self {
            camera_state: to_be_opened(media.video != VideoInput::None, media.video_muted),
            microphone_state: to_be_opened(has_microphone, media.audio_muted),
            video: media.video.clone(),
            camera_before_share: None,
            capture: None,
            capture_number: 0,
            slot: FrameSlot::new(),
            level: Level::default(),
            camera_name: None,
            microphone_name: None,
            speaker_name: None,
            speaker_is_device: matches!(media.speaker, SpeakerSink::Device(_)),
            audio_muted: media.audio_muted,
            video_muted: media.video_muted,
            has_microphone,
            voice: VoiceChoice { processing: media.processing, ..VoiceChoice::default() },
            active: Arc::new(Active::default()),
            mode: mode_of(&media.video),
            opening_since: None,
            unpublished: media.subscribe_only,
            refused: false,
            withheld: false,
            microphone: media.microphone.clone(),
            not_before: None,
            publishing: None,
            encoder: None,
            layers: 1,
            announced_screen: false,
            sender: Arc::new(ArcSwapOption::empty()),
            encoded_since: None,
            off_since: None,
            off_before: Duration::ZERO,
            target_bps: None,
            sent_720p_after_ms: None,
            frames_total: Arc::new(AtomicU64::new(0)),
        }
    }

    pub(super) fn microphone_failed(&mut self, failure: Failure) {
        self.microphone_state = DeviceState::Failed(failure);
    }

    /// Whether others are to be told that we can be heard: a microphone that gives nothing is not announced as open.
    pub(super) fn audio_active(&self) -> bool {
        self.has_microphone && !self.audio_muted && !matches!(self.microphone_state, DeviceState::Failed(_))
    }

    /// More than this is of no use to the picture, in bit/s.
    pub(super) fn useful_bps(&self) -> u64 {
        self.encoder.as_ref().map_or(USEFUL_BPS, |e| e.useful_bps().max(LEAST_LOOKED_FOR_BPS))
    }

    pub(super) fn tick(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            encoder.tick(Instant::now());
        }
        if let Some(since) = self.opening_since
            && since.elapsed() > DEVICE_PATIENCE
        {
            self.opening_since = None;
        }
        if self.sent_720p_after_ms.is_none()
            && let (Some(since), Some(encoder)) = (self.encoded_since, &self.encoder)
            && encoder.stats().height >= 720
        {
            self.sent_720p_after_ms = u64::try_from(since.elapsed().as_millis()).ok();
        }
    }

    /// Whether a publication should be started now: allowed, wanted, and the camera has made up its mind.
    pub(super) fn wants_publishing(&self, allowed: bool) -> bool {
        allowed
            && !self.unpublished
            && !self.refused
            && self.publishing.is_none()
            && self.not_before.is_none_or(|at| Instant::now() >= at)
            && self.opening_since.is_none()
            && (self.has_microphone || self.sends_video())
    }

    /// Neither is a stream of ours in the room nor will one come by itself.
    pub(super) fn has_nothing_to_publish(&self) -> bool {
        self.publishing.is_none() && self.opening_since.is_none() && !self.has_microphone && !self.sends_video()
    }

    pub(super) fn sends_video(&self) -> bool {
        self.video != VideoInput::None && !matches!(self.camera_state, DeviceState::Failed(_))
    }

    pub(super) fn new_place(&mut self) {
        self.refused = false;
    }

    pub(super) fn close(&mut self) {
        self.stop_publishing();
        self.capture = None;
    }

    pub(super) fn stop_publishing(&mut self) {
        self.sender.store(None);
        self.publishing = None;
        self.encoder = None;
        self.encoded_since = None;
    }

    /// The encoder has started.
    pub(super) fn encoding(&mut self) {
        let now = Instant::now();
        self.encoded_since = Some(now);
        self.off_before = Duration::ZERO;
        self.off_since = self.video_muted.then_some(now);
    }

    /// The picture goes off or comes back on purpose.
    pub(super) fn note_video(&mut self, active: bool) {
        if !active {
            self.off_since.get_or_insert_with(Instant::now);
        } else if let Some(since) = self.off_since.take() {
            self.off_before += since.elapsed();
        }
    }

    /// Time over which there were pictures to encode.
    pub(super) fn live(&self) -> Option<Duration> {
        let off = self.off_before + self.off_since.map_or(Duration::ZERO, |at| at.elapsed());
        Some(self.encoded_since?.elapsed().saturating_sub(off))
    }

    /// What the encoder is told about the pictures: a screen tuned for something, or a camera.
    pub(super) fn tuning(&self, config: &CallConfig) -> Option<Tuning> {
        matches!(self.video, VideoInput::Screen(_)).then_some(config.media.tuning)
    }

    /// What the others are told of a picture's source: a device by its name; neither the title of a window nor where a file lies.
    pub(super) fn video_label(&self, name: &str) -> String {
        match &self.video {
            VideoInput::Camera(CameraSource::File(_)) => "file".to_owned(),
            VideoInput::Screen(_) => "screen".to_owned(),
            _ => name.to_owned(),
        }
    }

    pub(super) fn source_word(&self) -> &'static str {
        match self.video {
            VideoInput::Screen(_) => "screen",
            _ => "camera",
        }
    }
}

/// The state of a device before it has opened.
pub(super) fn to_be_opened(there: bool, muted: bool) -> DeviceState {
    match (there, muted) {
        (false, _) => DeviceState::None,
        (true, true) => DeviceState::Muted,
        (true, false) => DeviceState::Opening,
    }
}

pub(super) fn mode_of(video: &VideoInput) -> VideoMode {
    match video {
        VideoInput::Camera(source) => source.mode().unwrap_or(VideoMode::DEFAULT),
        VideoInput::Screen(ScreenSource::Pattern(pattern)) => pattern.mode,
        VideoInput::Screen(_) => VideoMode { width: 1920, height: 1080, fps: 15 },
        VideoInput::None => VideoMode::DEFAULT,
    }
}
