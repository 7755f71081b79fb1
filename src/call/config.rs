//! What a call needs to know before it starts.

use std::sync::Arc;
use std::time::Instant;

use super::process::ProcessMeter;
use crate::media::audio::{MicrophoneSource, Processing, SpeakerSink};
use crate::media::video::decoder::DecoderPool;
use crate::media::video::source::{CameraSource, ScreenSource, Tuning};
use crate::rtp::frame::VideoCodec;
use crate::signaling::target::Target;
use crate::wire::netsim::Impairments;

/// Wakes whoever draws.
pub type Repaint = Arc<dyn Fn() + Send + Sync>;

/// Everything about one call.
#[derive(Clone)]
pub struct CallConfig {
    /// Where to, and how to get a token.
    pub target: Target,
    /// Own name.
    pub name: String,
    /// Key of this installation: others recognise us by it after a rejoin, and camera and screen belong together by it.
    pub device_key: String,
    /// For the report: `join`, `call`, `demo`.
    pub command: &'static str,
    /// When the process started.
    pub started: Instant,
    /// Devices and codecs.
    pub media: MediaChoice,
    /// Impairments of our own media sockets.
    pub impairments: Option<Impairments>,
    /// Keep people's names in the report.
    pub report_names: bool,
    /// Decoder threads; shared by the participants of a demo.
    pub decoders: DecoderPool,
    /// Cost of the process.
    pub meter: Arc<ProcessMeter>,
    /// Called when something visible changed.
    pub repaint: Option<Repaint>,
}

impl std::fmt::Debug for CallConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallConfig").field("command", &self.command).field("media", &self.media).finish_non_exhaustive()
    }
}

/// What gives the picture that is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum VideoInput {
    /// Nothing: no video is published.
    None,
    /// A camera.
    Camera(CameraSource),
    /// A screen, in place of the camera.
    Screen(ScreenSource),
}

/// Devices and codecs.
#[derive(Debug, Clone)]
pub struct MediaChoice {
    /// Picture to send.
    pub video: VideoInput,
    /// Microphone SOURCE.
    pub microphone: MicrophoneSource,
    /// Speaker SINK.
    pub speaker: SpeakerSink,
    /// Echo, noise and gain stages.
    pub processing: Processing,
    /// Codecs to offer, best first.
    pub codecs: Vec<VideoCodec>,
    /// Start with the microphone's gate closed.
    pub audio_muted: bool,
    /// Start with the camera closed.
    pub video_muted: bool,
    /// Publish nothing.
    pub subscribe_only: bool,
    /// Subscribe to nobody: the second connection that carries a screen.
    pub publish_only: bool,
    /// Share this screen from the start.
    pub screen: Option<ScreenSource>,
    /// The sound of this computer goes with a shared screen.
    pub screen_sound: bool,
    /// What a shared screen is tuned for.
    pub tuning: Tuning,
    /// Frequency of `tone` without a number, in Hz.
    pub default_tone_hz: f32,
    /// Clicks of `pattern+sync` in the tone.
    pub sync_clicks: bool,
}
