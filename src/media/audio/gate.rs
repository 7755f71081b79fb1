//! The mute gate: one atomic between processing and encoder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(all(feature = "mute-gate-off", not(debug_assertions)))]
compile_error!("mute-gate-off is for a test that must fail: no program for people is built with it");

/// Says whether samples may reach the encoder. Clones share the same state.
///
/// Closing takes effect within the 10 ms block that is being handled: the capture path asks before the encoder gets a
/// block and again before a finished packet leaves.
#[derive(Debug, Clone, Default)]
pub struct MuteGate(Arc<AtomicBool>);

impl MuteGate {
    /// A gate, closed when `muted`.
    pub fn new(muted: bool) -> Self {
        Self(Arc::new(AtomicBool::new(muted)))
    }

    /// Closes (`true`) or opens the gate.
    pub fn set_muted(&self, muted: bool) {
        self.0.store(muted, Ordering::SeqCst);
    }

    /// Whether the gate was told to be closed; what the user sees.
    pub fn is_muted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether samples must be stopped. Differs from [`Self::is_muted`] only in the build that proves the mute test can
    /// fail (feature `mute-gate-off`).
    pub fn stops_samples(&self) -> bool {
        if cfg!(feature = "mute-gate-off") {
            return false;
        }
        self.is_muted()
    }
}
