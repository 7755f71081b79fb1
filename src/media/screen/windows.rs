//! Monitors and windows of Windows, by its Graphics Capture.
//!
//! **Unproved: written against the crate's sources; compiled and run on no Windows yet.**
//!
//! A thread of the crate takes every picture out of the graphics card's memory and keeps the newest ([`super::newest`]). A picture comes
//! when something has changed. Cursor and frame are as the system draws them by itself: both shown, and older systems refuse to be asked.
//! A minimised window brings no pictures: its last one stays.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use windows_capture::capture::{CaptureControl, Context, GraphicsCaptureApiHandler};
use windows_capture::frame::Frame;
use windows_capture::graphics_capture_api::{GraphicsCaptureApi, InternalCaptureControl};
use windows_capture::monitor::Monitor;
use windows_capture::settings::{
    ColorFormat, CursorCaptureSettings, DirtyRegionSettings, DrawBorderSettings, GraphicsCaptureItemType,
    MinimumUpdateIntervalSettings, SecondaryWindowSettings, Settings,
};
use windows_capture::window::Window;

use super::newest::{Filler, Newest, Reader};
use super::{FPS, LEAST, ScreenInfo};
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::convert::PixelFormat;
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::source::VideoMode;

/// A little less than a picture's time, so that of a monitor's 60 every second one is taken and not every third.
const INTERVAL: Duration = Duration::from_millis(30);

/// Opens the monitor `number`, counted from 0.
pub(super) fn open_monitor(number: u32) -> Result<Box<dyn PictureSource>, String> {
    let monitors = Monitor::enumerate().map_err(|e| e.to_string())?;
    let monitor = *monitors
        .get(number as usize)
        .ok_or_else(|| format!("there is no monitor {number}: this computer has {}", monitors.len()))?;
    let size = (monitor.width().unwrap_or(0), monitor.height().unwrap_or(0));
    open(monitor, format!("monitor {number}"), size)
}

/// Opens the window of this number, as [`list`] names it, else the first whose title holds `title`.
pub(super) fn open_window(title: &str) -> Result<Box<dyn PictureSource>, String> {
    let windows = others()?;
    let wanted = title.to_lowercase();
    let (window, name) = windows
        .iter()
        .find(|(window, _)| number(window) == wanted)
        .or_else(|| windows.iter().find(|(_, name)| name.to_lowercase().contains(&wanted)))
        .ok_or_else(|| format!("no window's title holds “{title}”"))?;
    open(*window, name.clone(), size(window))
}

/// Monitors and the windows of other programs.
pub(super) fn list() -> Result<Vec<ScreenInfo>, String> {
    let monitors = Monitor::enumerate().map_err(|e| e.to_string())?;
    let mut list: Vec<ScreenInfo> = monitors
        .iter()
        .enumerate()
        .map(|(number, monitor)| ScreenInfo {
            source: format!("monitor:{number}"),
            title: String::new(),
            width: monitor.width().unwrap_or(0),
            height: monitor.height().unwrap_or(0),
        })
        .collect();
    for (window, title) in others()? {
        let (width, height) = size(&window);
        if width >= u32::from(LEAST) && height >= u32::from(LEAST) {
            // By number: titles change, and two windows may have the same.
            list.push(ScreenInfo { source: format!("window:{}", number(&window)), title, width, height });
        }
    }
    Ok(list)
}

/// The windows of other programs, with their titles.
fn others() -> Result<Vec<(Window, String)>, String> {
    let own = std::process::id();
    let windows = Window::enumerate().map_err(|e| e.to_string())?;
    let titled = windows.into_iter().filter_map(|window| {
        // Asked for a title, a window of ours would have to answer in its own thread.
        if window.process_id().is_ok_and(|process| process == own) {
            return None;
        }
        window.title().ok().filter(|title| !title.is_empty()).map(|title| (window, title))
    });
    Ok(titled.collect())
}

fn number(window: &Window) -> String {
    format!("{:#x}", window.as_raw_hwnd().addr())
}

fn size(window: &Window) -> (u32, u32) {
    let side = |side: i32| u32::try_from(side).unwrap_or(0);
    (side(window.width().unwrap_or(0)), side(window.height().unwrap_or(0)))
}

fn open<T>(item: T, name: String, (width, height): (u32, u32)) -> Result<Box<dyn PictureSource>, String>
where
    T: TryInto<GraphicsCaptureItemType> + Send + 'static,
{
    let newest = Arc::new(Newest::default());
    newest.announce(width, height);
    // Systems that cannot be asked for it bring as many pictures as the monitor shows.
    let interval = if GraphicsCaptureApi::is_minimum_update_interval_supported().unwrap_or(false) {
        MinimumUpdateIntervalSettings::Custom(INTERVAL)
    } else {
        MinimumUpdateIntervalSettings::Default
    };
    let settings = Settings::new(
        item,
        CursorCaptureSettings::Default,
        DrawBorderSettings::Default,
        SecondaryWindowSettings::Default,
        interval,
        DirtyRegionSettings::Default,
        ColorFormat::Bgra8,
        Arc::clone(&newest),
    );
    let control = Taking::start_free_threaded(settings).map_err(|e| e.to_string())?;
    Ok(Box::new(WindowsSource { reader: Reader::new(newest), control: Some(control), name }))
}

/// What the capture's thread calls.
struct Taking {
    newest: Arc<Newest>,
    filler: Filler,
}

impl GraphicsCaptureApiHandler for Taking {
    type Flags = Arc<Newest>;
    type Error = Infallible;

    fn new(context: Context<Self::Flags>) -> Result<Self, Self::Error> {
        Ok(Self { filler: Filler::new(Arc::clone(&context.flags)), newest: context.flags })
    }

    fn on_frame_arrived(&mut self, frame: &mut Frame<'_>, control: InternalCaptureControl) -> Result<(), Self::Error> {
        match frame.buffer() {
            Ok(mut buffer) => {
                let (size, stride) = ((buffer.width(), buffer.height()), buffer.row_pitch());
                self.filler.fill(PixelFormat::Bgra, size, stride, buffer.as_raw_buffer());
            }
            // The graphics card was reset or has no memory left.
            Err(error) => {
                self.newest.end(Some(error.to_string()));
                control.stop();
            }
        }
        Ok(())
    }

    fn on_closed(&mut self) -> Result<(), Self::Error> {
        self.newest.end(None);
        Ok(())
    }
}

struct WindowsSource {
    reader: Reader,
    /// There until the source is dropped.
    control: Option<CaptureControl<Taking, Infallible>>,
    name: String,
}

impl Drop for WindowsSource {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // One that has ended by itself is fine, too.
            drop(control.stop());
        }
    }
}

impl PictureSource for WindowsSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> VideoMode {
        let (width, height) = self.reader.size();
        VideoMode { width, height, fps: FPS }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        self.reader.next(pool, &|| self.control.as_ref().is_none_or(CaptureControl::is_finished))
    }
}
