//! Screens and windows as sources of pictures.
//!
//! X11 monitors and windows are captured here; Wayland's portal waits for its own issue and says so.

use std::sync::Arc;

use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::scale::{Scaler, fit_within};
use crate::media::video::source::ScreenSource;

#[cfg(target_os = "linux")]
mod x11;
#[cfg(target_os = "linux")]
mod x11_shm;

/// Opens a screen source. The test picture is none of ours.
pub(crate) fn open(source: &ScreenSource) -> Result<Box<dyn PictureSource>, SourceEnd> {
    let failed = |detail: String| SourceEnd::Failed { key: "err.portal", detail };
    match source {
        ScreenSource::Pattern(_) | ScreenSource::File(_) => Err(failed("a test picture or file is no screen".into())),
        ScreenSource::Portal => Err(failed(
            "the desktop's screen picker is not available in this build; use monitor or window:TITLE".into(),
        )),
        #[cfg(target_os = "linux")]
        ScreenSource::Monitor(number) => x11::open_monitor(*number).map_err(failed),
        #[cfg(target_os = "linux")]
        ScreenSource::Window(title) => x11::open_window(title).map_err(failed),
        #[cfg(not(target_os = "linux"))]
        ScreenSource::Monitor(_) | ScreenSource::Window(_) => {
            Err(failed("sharing a screen is not available on this system yet".into()))
        }
    }
}

/// A monitor or window that can be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScreenInfo {
    /// Its SOURCE.
    pub source: String,
    /// Title of a window, empty for a monitor.
    pub title: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// What can be captured: monitors by number, then the windows of other programs. Asks the display server: may take its time.
pub fn list() -> Vec<ScreenInfo> {
    #[cfg(target_os = "linux")]
    match x11::list() {
        Ok(list) => return list,
        Err(error) => tracing::info!(%error, "no screens to share"),
    }
    Vec::new()
}

/// Largest size of the small picture in a picker, for a sharp one at twice the usual scale.
const SMALL: (u32, u32) = (484, 272);

/// One small picture of a source of [`list`]. Opens and closes it: may take its time.
pub fn picture(source: &str) -> Option<Arc<VideoFrame>> {
    let mut screen = open(&ScreenSource::parse(source).ok()?).ok()?;
    let whole = screen.next(&mut FramePool::new(1)).ok()?;
    let (width, height) = fit_within((whole.width, whole.height), SMALL);
    let mut small = VideoFrame::black(width, height);
    Scaler::new().scale(&whole, &mut small).ok()?;
    Some(Arc::new(small))
}
