//! Reading by `nokhwa` where nothing below it is named. It waits for ever for a picture: a camera that stalls keeps its thread.

use nokhwa::Camera;
use nokhwa::utils::FrameFormat;

use super::DeviceError;
use crate::media::video::source::VideoMode;

/// A camera that is read by `nokhwa`.
pub(super) struct Through {
    camera: Camera,
    picture: Vec<u8>,
}

impl Through {
    pub(super) fn new(camera: Camera) -> Self {
        Self { camera, picture: Vec::new() }
    }

    /// Begins to stream.
    pub(super) fn start(&mut self, name: &str) -> Result<(), DeviceError> {
        self.camera.open_stream().map_err(|e| DeviceError::new(name, &e))
    }

    /// The next picture, as the camera gives it.
    pub(super) fn frame(&mut self, name: &str) -> Result<Option<&[u8]>, DeviceError> {
        self.picture = self.camera.frame_raw().map_err(|e| DeviceError::new(name, &e))?.into_owned();
        Ok(Some(&self.picture))
    }

    /// Bytes from one row to the next: it does not say.
    pub(super) fn stride(&self) -> Option<u32> {
        None
    }

    pub(super) fn format(&self) -> (FrameFormat, VideoMode) {
        let format = self.camera.camera_format();
        let mode = VideoMode { width: format.width(), height: format.height(), fps: format.frame_rate() };
        (format.format(), mode)
    }
}
