//! Pure RTP: packetise, depacketise, reorder and assemble, NACK and RTX logic, VP8 descriptors, SDP helpers.
//!
//! No clock, no socket, no runtime: time comes in as an argument, bytes and frames come in and go out as values.

pub mod frame;
