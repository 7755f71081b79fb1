//! The engine of one call: one actor per call, [`Command`]s in, [`Event`]s and a [`View`] out.

mod active;
mod candidates;
pub mod command;
pub mod config;
mod engine;
pub mod event;
mod handle;
mod leg;
mod leg_error;
mod leg_waits;
mod line;
mod patience;
pub mod process;
pub mod report;
mod sync;
pub mod view;

pub use command::Command;
pub use config::{CallConfig, MediaChoice, Repaint, VideoInput};
pub use event::Event;
pub use handle::{CallHandle, SendError, start, start_listening};
pub use view::View;
