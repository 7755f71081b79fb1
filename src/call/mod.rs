//! The engine of one call: one actor per call, [`Command`]s in, [`Event`]s and a [`View`] out.

pub mod command;
pub mod event;
pub mod view;

pub use command::Command;
pub use event::Event;
pub use view::View;
