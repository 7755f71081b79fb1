//! The client of one connection: user actions, frames and time in; frames and events out.
