//! Figures of sound: echo (F18), drifting devices (F19), mouth to ear through real devices (F9).

pub(crate) mod devices;
pub(crate) mod drift;
pub(crate) mod echo;
pub mod mouth_to_ear;
pub(crate) mod rig;
mod speech;

pub use drift::{DriftFigures, drift};
pub use echo::{EchoFigures, echo};
pub use speech::Speech;
