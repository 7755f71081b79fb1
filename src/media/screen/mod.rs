//! Screens and windows as sources of pictures.
//!
//! X11 monitors and windows directly; under Wayland what the user picks in the desktop's own dialog (feature `portal`). Windows and macOS
//! by their own interfaces, which is unproved.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::scale::{Scaler, fit_within};
use crate::media::video::source::ScreenSource;

#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(windows, all(target_os = "linux", any(feature = "portal", test))))]
mod newest;
#[cfg(all(target_os = "linux", feature = "portal"))]
mod pipewire;
#[cfg(all(target_os = "linux", feature = "portal"))]
mod portal;
#[cfg(windows)]
mod windows;
#[cfg(target_os = "linux")]
mod x11;
#[cfg(target_os = "linux")]
mod x11_shm;

#[cfg(target_os = "macos")]
use self::macos as system;
#[cfg(windows)]
use self::windows as system;
#[cfg(target_os = "linux")]
use self::x11 as system;

/// Pictures a second that are asked for.
const FPS: u32 = 30;
/// Windows that are smaller are hidden helpers of programs.
const LEAST: u16 = 48;
/// The last picture of a screen on which nothing changes is given again after this time, for those who have come meanwhile.
const STILL: Duration = Duration::from_millis(250);

/// Why the desktop's picker gave nothing to share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotChosen {
    /// Its user closed it, which is a normal answer, or we did.
    Cancelled,
    /// There is none, or it broke. Technical cause.
    Failed(String),
}

/// Keeps the token by which the desktop gives the same choice again without asking. It is like a password: never in the clear on disk.
pub trait ChoiceStore: Send + Sync {
    /// The kept one.
    fn load(&self) -> Option<String>;
    /// Keeps a new one in its place.
    fn save(&self, token: &str);
}

/// Whether what is shared is chosen in the desktop's own dialog: under Wayland.
pub fn chosen_by_desktop() -> bool {
    cfg!(all(target_os = "linux", feature = "portal")) && is_wayland()
}

fn is_wayland() -> bool {
    std::env::var_os("WAYLAND_DISPLAY").is_some_and(|name| !name.is_empty())
}

/// Where the desktop's token is kept beyond the program's end.
pub fn keep_choice_in(store: impl ChoiceStore + 'static) {
    #[cfg(all(target_os = "linux", feature = "portal"))]
    portal::keep_choice_in(Arc::new(store));
    #[cfg(not(all(target_os = "linux", feature = "portal")))]
    drop(store);
}

/// Lets the user choose in the desktop's dialog, which may take minutes; `again` = the last choice without a dialog, where the desktop still
/// knows it. What was chosen is opened by the next [`ScreenSource::Portal`]. Ends soon after `cancelled`.
pub fn choose(again: bool, cancelled: &dyn Fn() -> bool) -> Result<(), NotChosen> {
    #[cfg(all(target_os = "linux", feature = "portal"))]
    return portal::choose(again, cancelled);
    #[cfg(not(all(target_os = "linux", feature = "portal")))]
    {
        let _ = (again, cancelled);
        Err(NotChosen::Failed(NO_PORTAL.into()))
    }
}

/// Gives back what was chosen and not opened.
pub fn forget_choice() {
    #[cfg(all(target_os = "linux", feature = "portal"))]
    portal::forget();
}

#[cfg(not(all(target_os = "linux", feature = "portal")))]
const NO_PORTAL: &str =
    "this program was built without the desktop's screen picker (feature portal); use monitor or window:TITLE";

/// Opens a screen source; soon after `cancelled` it gives up. The test picture is none of ours.
pub(crate) fn open(source: &ScreenSource, cancelled: &dyn Fn() -> bool) -> Result<Box<dyn PictureSource>, SourceEnd> {
    let failed = |detail: String| SourceEnd::Failed { key: "err.portal", detail };
    match source {
        ScreenSource::Pattern(_) | ScreenSource::File(_) => Err(failed("a test picture or file is no screen".into())),
        #[cfg(all(target_os = "linux", feature = "portal"))]
        ScreenSource::Portal { again } => portal::open(*again, cancelled),
        #[cfg(not(all(target_os = "linux", feature = "portal")))]
        ScreenSource::Portal { .. } => {
            let _ = cancelled;
            Err(failed(NO_PORTAL.into()))
        }
        ScreenSource::Monitor(number) => system::open_monitor(*number).map_err(failed),
        ScreenSource::Window(title) => system::open_window(title).map_err(failed),
    }
}

/// The last picture once more, as of now.
fn again(last: &VideoFrame, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
    pool.draw(last.width, last.height, |frame| {
        frame.y.copy_from_slice(&last.y);
        frame.u.copy_from_slice(&last.u);
        frame.v.copy_from_slice(&last.v);
        frame.at = Instant::now();
        frame.rtp_timestamp = 0;
        Ok(())
    })
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

/// What can be captured: monitors by number, then the windows of other programs. Asks the display server: may take its time. Under Wayland
/// there is no list; X11 there shows black.
pub fn list() -> Vec<ScreenInfo> {
    if is_wayland() {
        return Vec::new();
    }
    system::list().unwrap_or_else(|error| {
        tracing::info!(%error, "no screens to share");
        Vec::new()
    })
}

/// Largest size of the small picture in a picker, for a sharp one at twice the usual scale.
const SMALL: (u32, u32) = (484, 272);

/// One small picture of a source of [`list`]. Opens and closes it: may take its time.
pub fn picture(source: &str) -> Option<Arc<VideoFrame>> {
    let mut screen = open(&ScreenSource::parse(source).ok()?, &|| false).ok()?;
    let whole = screen.next(&mut FramePool::new(1)).ok()?;
    let (width, height) = fit_within((whole.width, whole.height), SMALL);
    let mut small = VideoFrame::black(width, height);
    Scaler::new().scale(&whole, &mut small).ok()?;
    Some(Arc::new(small))
}
