//! Figures of sound: echo (F18), drifting devices (F19), mouth to ear through real devices (F9).

mod drift;
mod echo;
pub mod mouth_to_ear;
mod speech;

pub use drift::{DriftFigures, drift};
pub use echo::{EchoFigures, echo};
pub use speech::Speech;
