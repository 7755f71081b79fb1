//! What can go wrong with sound, each with the key of its text.

/// A failure of the audio room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// A microphone SOURCE that is not in the notation of the command line.
    #[error("microphone source {0:?} is not one of tone[:HZ], file:PATH, device[:ID], none")]
    BadSource(String),
    /// A speaker SINK that is not in the notation of the command line.
    #[error("speaker sink {0:?} is not one of device[:ID], file:PATH, null")]
    BadSink(String),
    /// A sound file cannot be read or written.
    #[error("sound file {path}: {detail}")]
    File {
        /// Path as given.
        path: String,
        /// What the file system or the WAV reader said.
        detail: String,
    },
    /// No capture device, or the chosen one is not there.
    #[error("no microphone found: {detail}")]
    NoMicrophone {
        /// Technical cause.
        detail: String,
    },
    /// The system refuses the microphone.
    #[error("the system denies the microphone: {detail}")]
    MicrophoneDenied {
        /// Technical cause.
        detail: String,
    },
    /// No playback device, or the chosen one is not there, or it is refused.
    #[error("no speaker found: {detail}")]
    NoSpeaker {
        /// Technical cause.
        detail: String,
    },
    /// Opus could not be set up.
    #[error("opus: {0}")]
    Codec(String),
    /// A thread could not be started.
    #[error("audio thread: {0}")]
    Thread(String),
}

impl AudioError {
    /// Key of the text for the user, as in the table of user-visible strings.
    pub fn key(&self) -> &'static str {
        match self {
            Self::BadSource(_) | Self::NoMicrophone { .. } | Self::File { .. } | Self::Codec(_) | Self::Thread(_) => {
                "dev.mic_none"
            }
            Self::MicrophoneDenied { .. } => "dev.mic_denied",
            Self::BadSink(_) | Self::NoSpeaker { .. } => "dev.spk_none",
        }
    }
}
