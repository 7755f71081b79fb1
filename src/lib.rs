//! Tertulia: a native desktop conferencing client for OpenVidu 2 sessions, with an embedded host.
//!
//! The rooms of the house, arrows only downwards (`tests/arrows.rs` keeps them; ARCHITECTURE.md explains them).

pub mod call;
pub mod cli;
pub mod host;
pub mod lan;
pub mod media;
pub mod peer;
pub mod protocol;
pub mod rtp;
pub mod settings;
pub mod signaling;
pub mod ui;
pub mod wire;
