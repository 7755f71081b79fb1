//! What the window, the control channel and tests ask of the engine.

use crate::media::audio::{Processing, VoiceChoice};
use crate::media::video::source::Tuning;

/// What is to be different about the microphone's sound; `None` stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VoiceChange {
    /// Whether stages run at all.
    pub mode: Option<Processing>,
    /// Echo canceller.
    pub echo: Option<bool>,
    /// Noise suppressor.
    pub noise: Option<bool>,
    /// Automatic gain.
    pub gain: Option<bool>,
    /// High pass.
    pub high_pass: Option<bool>,
    /// Music: nothing is done to it, and it is sent at a higher rate.
    pub original_sound: Option<bool>,
}

impl VoiceChange {
    /// Makes the change.
    pub fn apply(self, voice: &mut VoiceChoice) {
        let stages = &mut voice.stages;
        for (wanted, stage) in [
            (self.echo, &mut stages.echo),
            (self.noise, &mut stages.noise),
            (self.gain, &mut stages.gain),
            (self.high_pass, &mut stages.high_pass),
            (self.original_sound, &mut voice.original_sound),
        ] {
            *stage = wanted.unwrap_or(*stage);
        }
        voice.processing = self.mode.unwrap_or(voice.processing);
    }
}

/// One wish of the user. Applied in order; a refused one gives an `error` event and changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Close (`true`) or open the microphone's gate.
    MuteAudio(bool),
    /// Close (`true`) or open the camera device.
    MuteVideo(bool),
    /// Another camera SOURCE, in the notation of the command line (`pattern:4`, `device:0`, `none`).
    Camera(String),
    /// Another microphone SOURCE.
    Microphone(String),
    /// Another speaker SINK.
    Speaker(String),
    /// Other stages on the microphone's sound; the device stays open.
    Voice(VoiceChange),
    /// Bring people near to one loudness, or leave them as they are.
    Levelling(bool),
    /// Share a screen SOURCE, `None` stops.
    Share(Option<String>),
    /// What shared screens are tuned for, from now on.
    Tune(Tuning),
    /// Whether the sound of this computer goes with shared screens, from now on.
    ShareSound(bool),
    /// Send a signal. `kind` is without the `signal:` prefix; empty `to` is everybody.
    Signal {
        /// Type without prefix, for example `chat`.
        kind: String,
        /// Text.
        data: String,
        /// Connection ids, empty for everybody.
        to: Vec<String>,
    },
    /// Publish again after [`Command::Unpublish`].
    Publish,
    /// Stop publishing, stay in the session.
    Unpublish,
    /// Receive or stop receiving a kind of media of one stream; both `false` unsubscribes.
    Subscribe {
        /// Stream id.
        stream_id: String,
        /// Receive audio.
        audio: bool,
        /// Receive video.
        video: bool,
    },
    /// Receive no pictures and close the camera, or receive them again.
    SoundOnly(bool),
    /// The size a tile is drawn at; `(0, 0)` when it is not visible (then nothing is decoded).
    Tile {
        /// Stream id.
        stream_id: String,
        /// Size in physical pixels.
        size: (u32, u32),
    },
    /// Volume of one person, 1.0 is unchanged, up to 2.0.
    Volume {
        /// [`super::view::Person::key`].
        person: String,
        /// Factor, 0.0 to 2.0.
        gain: f32,
    },
    /// Pin or unpin somebody's tile.
    Pin {
        /// [`super::view::Person::key`].
        person: String,
        /// Whether to pin.
        pinned: bool,
    },
    /// Moderator: remove a connection.
    ForceDisconnect(String),
    /// Moderator: stop a stream.
    ForceUnpublish(String),
    /// Try to reconnect at once instead of waiting for the timer.
    ReconnectNow,
    /// Answer an incoming call.
    Answer(bool),
    /// Leave, cleanly.
    Leave,
}

impl Command {
    /// Its name in the notation of the command line, if it is one of those that send something of ours.
    pub(super) fn of_publishing(&self) -> Option<&'static str> {
        match self {
            Self::Camera(_) => Some("camera"),
            Self::Microphone(_) => Some("microphone"),
            Self::Share(_) | Self::Tune(_) | Self::ShareSound(_) => Some("share"),
            Self::Publish => Some("publish"),
            _ => None,
        }
    }
}
