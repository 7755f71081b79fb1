//! One picture in planar YUV 4:2:0, and the slot that hands the newest one over.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;

/// A picture in I420, BT.601 limited range unless said, planes tightly packed (stride = width).
#[derive(Debug)]
pub struct VideoFrame {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Luma, `width × height` bytes.
    pub y: Vec<u8>,
    /// Blue difference, `width/2 × height/2` bytes.
    pub u: Vec<u8>,
    /// Red difference, `width/2 × height/2` bytes.
    pub v: Vec<u8>,
    /// Capture time (own picture) or presentation time (received).
    pub at: Instant,
    /// RTP timestamp it was received with, 0 for own pictures.
    pub rtp_timestamp: u32,
}

/// Latest-value slot: the newest frame wins, the reader never waits and never sees an old one twice unless it wants to.
#[derive(Debug, Clone, Default)]
pub struct FrameSlot {
    inner: Arc<SlotInner>,
}

#[derive(Debug, Default)]
struct SlotInner {
    frame: ArcSwapOption<VideoFrame>,
    version: std::sync::atomic::AtomicU64,
}

impl FrameSlot {
    /// An empty slot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame in; whatever was there is dropped.
    pub fn put(&self, frame: Arc<VideoFrame>) {
        self.inner.frame.store(Some(frame));
        self.inner.version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// Takes the picture away (camera closed, stream gone).
    pub fn clear(&self) {
        self.inner.frame.store(None);
        self.inner.version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// The newest frame, left in place.
    pub fn latest(&self) -> Option<Arc<VideoFrame>> {
        self.inner.frame.load_full()
    }

    /// Rises with every `put` and `clear`; lets a drawer skip uploads.
    pub fn version(&self) -> u64 {
        self.inner.version.load(std::sync::atomic::Ordering::Acquire)
    }
}
