//! The pixels of a picture that macOS lends: in memory that it shares with the graphics card, hence behind a lock.
//!
//! **Unproved: written against the crate's sources; compiled and run on no Mac yet.**
#![allow(unsafe_code)]

use screencapturekit::cv::CVPixelBuffer;

/// Gives `to` the picture's size, the bytes from row to row, and the pixels. Nothing where the system does not let them be read.
pub(super) fn read(buffer: &CVPixelBuffer, to: impl FnOnce((u32, u32), u32, &[u8])) {
    let Ok(locked) = buffer.lock_read_only() else { return };
    let number = |n: usize| u32::try_from(n).unwrap_or(0);
    let (size, stride) = ((number(locked.width()), number(locked.height())), number(locked.bytes_per_row()));
    // SAFETY: the buffer is locked for reading and stays so until after the last use. The system draws into a buffer of the stream
    // again only when the sample that came with it was given back, which the caller holds; we ourselves never write to it.
    if let Some(pixels) = unsafe { locked.as_slice() } {
        to(size, stride, pixels);
    }
}
