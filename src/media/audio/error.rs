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
    /// Another program holds the microphone.
    #[error("another program holds the microphone {device}: {detail}")]
    MicrophoneBusy {
        /// Its name, or what was asked for.
        device: String,
        /// Technical cause.
        detail: String,
    },
    /// Another program holds the speaker.
    #[error("another program holds the speaker {device}: {detail}")]
    SpeakerBusy {
        /// Its name, or what was asked for.
        device: String,
        /// Technical cause.
        detail: String,
    },
    /// The microphone is there and cannot be opened.
    #[error("the microphone {device} cannot be opened: {detail}")]
    MicrophoneRefuses {
        /// Its name, or what was asked for.
        device: String,
        /// Technical cause.
        detail: String,
    },
    /// The speaker is there and cannot be opened.
    #[error("the speaker {device} cannot be opened: {detail}")]
    SpeakerRefuses {
        /// Its name, or what was asked for.
        device: String,
        /// Technical cause.
        detail: String,
    },
    /// No playback device, or the chosen one is not there.
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
            Self::BadSource(_) | Self::NoMicrophone { .. } => "dev.mic_none",
            Self::MicrophoneDenied { .. } => "dev.mic_denied",
            Self::MicrophoneBusy { .. } => "dev.mic_busy",
            Self::MicrophoneRefuses { .. } => "dev.mic_refuses",
            Self::SpeakerBusy { .. } => "dev.spk_busy",
            Self::SpeakerRefuses { .. } => "dev.spk_refuses",
            Self::BadSink(_) | Self::NoSpeaker { .. } => "dev.spk_none",
            Self::File { .. } => "dev.sound_file",
            Self::Codec(_) | Self::Thread(_) => "dev.sound_start",
        }
    }

    /// Values for the `%{}` of the text.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MicrophoneBusy { device, .. }
            | Self::MicrophoneRefuses { device, .. }
            | Self::SpeakerBusy { device, .. }
            | Self::SpeakerRefuses { device, .. } => vec![("dev", device.clone())],
            // The name is enough on the screen; where it lies is nobody else's business.
            Self::File { path, .. } => {
                let name = std::path::Path::new(path).file_name().map_or(path.as_str().into(), |n| n.to_string_lossy());
                vec![("dev", name.into_owned())]
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_text_of_its_own() {
        let detail = || "d".to_owned();
        let all = [
            AudioError::NoMicrophone { detail: detail() },
            AudioError::MicrophoneDenied { detail: detail() },
            AudioError::MicrophoneBusy { device: "USB".to_owned(), detail: detail() },
            AudioError::MicrophoneRefuses { device: "USB".to_owned(), detail: detail() },
            AudioError::SpeakerRefuses { device: "USB".to_owned(), detail: detail() },
            AudioError::NoSpeaker { detail: detail() },
            AudioError::SpeakerBusy { device: "USB".to_owned(), detail: detail() },
            AudioError::File { path: "sounds/a.wav".to_owned(), detail: detail() },
            AudioError::Codec(detail()),
        ];
        let mut keys: Vec<&str> = all.iter().map(AudioError::key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), all.len(), "{keys:?}");
        assert_eq!(AudioError::Thread(detail()).key(), AudioError::Codec(detail()).key());
        assert_eq!(all[7].values(), [("dev", "a.wav".to_owned())]);
    }
}
