//! Whether sound and picture of our own stream are on, as the others should know it.

use std::sync::atomic::{AtomicBool, Ordering};

/// Read for each request that announces it: between the start of a publication and a request the user may have muted.
#[derive(Debug, Default)]
pub(super) struct Active {
    audio: AtomicBool,
    video: AtomicBool,
}

impl Active {
    /// Sound is on or off.
    pub(super) fn set_audio(&self, on: bool) {
        self.audio.store(on, Ordering::SeqCst);
    }

    /// The picture is on or off.
    pub(super) fn set_video(&self, on: bool) {
        self.video.store(on, Ordering::SeqCst);
    }

    /// Sound, picture.
    pub(super) fn get(&self) -> (bool, bool) {
        (self.audio.load(Ordering::SeqCst), self.video.load(Ordering::SeqCst))
    }
}
