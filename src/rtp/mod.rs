//! Pure RTP: packetise, depacketise, reorder and assemble, NACK and RTX logic, VP8 descriptors, SDP helpers.
//!
//! No clock, no socket, no runtime: time comes in as an argument, bytes and frames come in and go out as values.

pub mod answers;
pub mod congestion;
pub mod depacketise;
pub mod frame;
pub mod h264;
pub mod jitter;
pub mod nack;
pub mod pace;
pub mod packet;
pub mod packetise;
pub mod playout;
pub mod receiver;
pub mod redundancy;
pub mod rtx;
pub mod sdp;
pub mod seq;
pub mod simulcast;
pub mod vp8;
