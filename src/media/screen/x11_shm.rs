//! Pictures of an X server through memory that both have mapped (MIT-SHM): no copy over the socket.
#![allow(unsafe_code)]

use std::fs::File;

use memmap2::{Mmap, MmapOptions};
use x11rb::connection::Connection as _;
use x11rb::protocol::shm::{ConnectionExt as _, Seg};
use x11rb::protocol::xproto::{Drawable, ImageFormat};
use x11rb::rust_connection::{ReplyError, RustConnection};

/// Bytes of a pixel in every format that is captured here.
const PIXEL_BYTES: usize = 4;
/// The largest picture asked for: 8K.
const MOST_BYTES: usize = 7_680 * 4_320 * PIXEL_BYTES;

/// Memory that the server writes pictures into.
pub(super) struct Segment {
    id: Seg,
    map: Mmap,
}

impl Segment {
    /// Room for a picture of this size; `None` where the server or the system cannot (a display over the network).
    pub(super) fn new(connection: &RustConnection, width: u16, height: u16) -> Option<Self> {
        let bytes = usize::from(width) * usize::from(height) * PIXEL_BYTES;
        if bytes == 0 || bytes > MOST_BYTES {
            return None;
        }
        connection.shm_query_version().ok()?.reply().ok()?;
        let id = connection.generate_id().ok()?;
        let reply = connection.shm_create_segment(id, u32::try_from(bytes).ok()?, false).ok()?.reply().ok()?;
        let file = File::from(reply.shm_fd);
        if usize::try_from(file.metadata().ok()?.len()).ok()? < bytes {
            return None;
        }
        // SAFETY: the descriptor is an anonymous segment that the server has made for this client alone, and it is as long as
        // the mapping. The server writes to it only while it answers `fetch`, which waits for the end of that.
        let map = unsafe { MmapOptions::new().len(bytes).map(&file) }.ok()?;
        Some(Self { id, map })
    }

    /// Whether a picture of this size fits.
    pub(super) fn holds(&self, width: u16, height: u16) -> bool {
        usize::from(width) * usize::from(height) * PIXEL_BYTES <= self.map.len()
    }

    /// The picture of a part of `drawable`, row by row without gaps.
    pub(super) fn fetch(
        &self,
        connection: &RustConnection,
        drawable: Drawable,
        (x, y, width, height): (i16, i16, u16, u16),
    ) -> Result<&[u8], ReplyError> {
        connection
            .shm_get_image(drawable, x, y, width, height, u32::MAX, ImageFormat::Z_PIXMAP.into(), self.id, 0)?
            .reply()?;
        let bytes = usize::from(width) * usize::from(height) * PIXEL_BYTES;
        Ok(self.map.get(..bytes).unwrap_or_default())
    }

    /// Gives the memory back to the server.
    pub(super) fn release(self, connection: &RustConnection) {
        // When the connection is gone, so is the segment.
        let _ = connection.shm_detach(self.id);
    }
}
