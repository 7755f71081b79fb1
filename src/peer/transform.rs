//! The frame transform hook: whole encoded frames pass it after encoding and before decoding.
//!
//! Identity today; end-to-end encryption later. It sits above the packetiser, which writes descriptors and marker bits in clear.

use super::event::MediaKind;
use bytes::Bytes;

/// Changes encoded frames on their way out and back in. Must be cheap: it runs on the packet tasks.
pub trait FrameTransform: Send + Sync + std::fmt::Debug {
    /// After the encoder, before the packetiser. `None` drops the frame.
    fn outbound(&self, kind: MediaKind, frame: Bytes) -> Option<Bytes>;
    /// After reassembly, before the decoder. `None` drops the frame.
    fn inbound(&self, kind: MediaKind, frame: Bytes) -> Option<Bytes>;
}

/// Leaves frames as they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl FrameTransform for Identity {
    fn outbound(&self, _kind: MediaKind, frame: Bytes) -> Option<Bytes> {
        Some(frame)
    }

    fn inbound(&self, _kind: MediaKind, frame: Bytes) -> Option<Bytes> {
        Some(frame)
    }
}
