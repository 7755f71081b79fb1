//! The embedded OpenVidu-compatible server.

pub mod sfu;
