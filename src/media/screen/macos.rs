//! Displays and windows of macOS, by ScreenCaptureKit.
//!
//! **Unproved: written against the crate's sources; compiled and run on no Mac yet.**
//!
//! A queue of the system's brings a picture when something has changed; the newest is kept ([`super::newest`]). The size is that of the
//! moment when the source was opened: a window that grows is scaled down to it by the system. The first question for what there is
//! makes the system ask the user for leave; without it there is an error.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use screencapturekit::cm::{CMSampleBuffer, CMSampleBufferExt as _, CMSampleBufferSCExt as _, SCFrameStatus};
use screencapturekit::error::{SCError, SCStreamErrorCode};
use screencapturekit::shareable_content::{SCDisplay, SCShareableContent, SCWindow};
use screencapturekit::stream::configuration::{PixelFormat as Pixels, SCStreamConfiguration};
use screencapturekit::stream::content_filter::SCContentFilter;
use screencapturekit::stream::output_type::SCStreamOutputType;
use screencapturekit::stream::{ErrorHandler, SCStream};

use super::newest::{Filler, Newest, Reader};
use super::{FPS, LEAST, STILL, ScreenInfo, macos_pixels};
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::convert::PixelFormat;
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::source::VideoMode;

/// How often it is asked whether a window on which nothing changes is still there.
const LOOK: Duration = Duration::from_secs(2);

/// Opens the display `number`, counted from 0.
pub(super) fn open_monitor(number: u32) -> Result<Box<dyn PictureSource>, String> {
    let displays = content()?.displays();
    let display = displays
        .get(number as usize)
        .ok_or_else(|| format!("there is no monitor {number}: this computer has {}", displays.len()))?;
    let (filter, size) = of_display(display)?;
    Ok(Box::new(MacSource::open(&filter, format!("monitor {number}"), size, None)?))
}

/// Opens the window of this number, as [`list`] names it, else the first whose title holds `title`.
pub(super) fn open_window(title: &str) -> Result<Box<dyn PictureSource>, String> {
    let windows = content()?.windows();
    let wanted = title.to_lowercase();
    let window = windows
        .iter()
        .find(|window| number(window) == wanted)
        .or_else(|| windows.iter().find(|w| w.title().is_some_and(|name| name.to_lowercase().contains(&wanted))))
        .ok_or_else(|| format!("no window's title holds “{title}”"))?;
    let (filter, size) = of_window(window)?;
    let name = window.title().unwrap_or_default();
    Ok(Box::new(MacSource::open(&filter, name, size, Some(window.window_id()))?))
}

/// Displays and the windows of other programs that are to be seen.
pub(super) fn list() -> Result<Vec<ScreenInfo>, String> {
    let content = content()?;
    let mut list = Vec::new();
    for (number, display) in content.displays().iter().enumerate() {
        let (_, (width, height)) = of_display(display)?;
        list.push(ScreenInfo { source: format!("monitor:{number}"), title: String::new(), width, height });
    }
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for window in content.windows() {
        let foreign = window.owning_application().is_some_and(|program| program.process_id() != own);
        // Other layers hold menus, the dock and the desktop.
        if !foreign || !window.is_on_screen() || window.window_layer() != 0 {
            continue;
        }
        let Some(title) = window.title().filter(|title| !title.is_empty()) else { continue };
        let Ok((_, (width, height))) = of_window(&window) else { continue };
        if width >= u32::from(LEAST) && height >= u32::from(LEAST) {
            // By number: titles change, and two windows may have the same.
            list.push(ScreenInfo { source: format!("window:{}", number(&window)), title, width, height });
        }
    }
    Ok(list)
}

fn content() -> Result<SCShareableContent, String> {
    SCShareableContent::create().with_exclude_desktop_windows(true).get().map_err(|e| e.to_string())
}

fn number(window: &SCWindow) -> String {
    format!("{:#x}", window.window_id())
}

/// What is asked for to have a display, and its size in pixels.
fn of_display(display: &SCDisplay) -> Result<(SCContentFilter, (u32, u32)), String> {
    let filter = SCContentFilter::create().with_display(display).with_excluding_windows(&[]).build();
    let filter = filter.map_err(|e| e.to_string())?;
    let size = (pixels(display.width().into(), &filter), pixels(display.height().into(), &filter));
    Ok((filter, size))
}

/// The same for a window.
fn of_window(window: &SCWindow) -> Result<(SCContentFilter, (u32, u32)), String> {
    let filter = SCContentFilter::create().with_window(window).build().map_err(|e| e.to_string())?;
    let points = window.frame().size;
    let size = (pixels(points.width, &filter), pixels(points.height, &filter));
    Ok((filter, size))
}

/// A length in points, in pixels. Before macOS 14 a point counts as one pixel.
fn pixels(points: f64, filter: &SCContentFilter) -> u32 {
    (points * f64::from(filter.point_pixel_scale())).round() as u32
}

struct MacSource {
    reader: Reader,
    stream: SCStream,
    name: String,
    /// Number of the window, if it is one.
    window: Option<u32>,
    /// When it was last asked for.
    looked: Instant,
}

impl MacSource {
    fn open(
        filter: &SCContentFilter,
        name: String,
        (width, height): (u32, u32),
        window: Option<u32>,
    ) -> Result<Self, String> {
        let mut configuration = SCStreamConfiguration::new()
            .with_width(width.max(2))
            .with_height(height.max(2))
            .with_pixel_format(Pixels::BGRA)
            .with_shows_cursor(true)
            .with_fps(FPS);
        // A shadow would take room from the window. Systems before macOS 14 cannot leave it out.
        drop(configuration.set_ignores_shadows_single_window(true));
        let newest = Arc::new(Newest::default());
        newest.announce(width, height);
        let ended = Arc::clone(&newest);
        let told = ErrorHandler::new(move |error: SCError| ended.end(why(&error)));
        let mut stream = SCStream::new_with_delegate(filter, &configuration, told).map_err(|e| e.to_string())?;
        let filler = Mutex::new(Filler::new(Arc::clone(&newest)));
        let take = move |sample: CMSampleBuffer, _: SCStreamOutputType| take(&filler, &sample);
        stream.add_output_handler(take, SCStreamOutputType::Screen).map_err(|e| e.to_string())?;
        stream.start_capture().map_err(|e| e.to_string())?;
        Ok(Self { reader: Reader::new(newest), stream, name, window, looked: Instant::now() })
    }
}

/// Why a stream that the system has ended is over; `None` where that is in order.
fn why(error: &SCError) -> Option<String> {
    match error {
        SCError::SCStreamError {
            code:
                SCStreamErrorCode::UserStopped | SCStreamErrorCode::SystemStoppedStream | SCStreamErrorCode::NoCaptureSource,
            ..
        } => None,
        other => Some(other.to_string()),
    }
}

fn take(filler: &Mutex<Filler>, sample: &CMSampleBuffer) {
    // The others bring no pixels, only the news that nothing has changed.
    if !matches!(sample.frame_status(), Some(SCFrameStatus::Complete | SCFrameStatus::Started)) {
        return;
    }
    let Some(buffer) = sample.pixel_buffer() else { return };
    let mut filler = filler.lock().unwrap_or_else(PoisonError::into_inner);
    macos_pixels::read(&buffer, |size, stride, pixels| filler.fill(PixelFormat::Bgra, size, stride, pixels));
}

impl Drop for MacSource {
    fn drop(&mut self) {
        // One that has ended by itself is fine, too.
        drop(self.stream.stop_capture());
    }
}

impl PictureSource for MacSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> VideoMode {
        let (width, height) = self.reader.size();
        VideoMode { width, height, fps: FPS }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let begun = Instant::now();
        let picture = self.reader.next(pool, &|| false)?;
        // Not every system tells that a window was closed: then no more pictures come of it.
        if let Some(window) = self.window
            && begun.elapsed() >= STILL
            && self.looked.elapsed() >= LOOK
        {
            self.looked = Instant::now();
            if content().is_ok_and(|content| content.windows().iter().all(|other| other.window_id() != window)) {
                return Err(SourceEnd::Ended);
            }
        }
        Ok(picture)
    }
}
