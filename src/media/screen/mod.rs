//! Screens and windows as sources of pictures.
//!
//! X11 monitors and windows are captured here; Wayland's portal waits for its own issue and says so.

use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::source::ScreenSource;

#[cfg(target_os = "linux")]
mod x11;

/// Opens a screen source. The test picture is none of ours.
pub(crate) fn open(source: &ScreenSource) -> Result<Box<dyn PictureSource>, SourceEnd> {
    let failed = |detail: String| SourceEnd::Failed { key: "err.portal", detail };
    match source {
        ScreenSource::Pattern(_) => Err(failed("the test picture is no screen".into())),
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
