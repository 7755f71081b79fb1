//! Displays and windows of macOS, by ScreenCaptureKit.
//!
//! **Unproved: written against the crate's sources; compiled and run on no Mac yet.**
//!
//! The system is asked for one picture after the other: its streams give pixels only through memory that it shares, which the crate cannot
//! lend without `unsafe`. The size is that of the moment when the source was opened: a window that grows is scaled down to it by the system.
//! The first question for what there is makes the system ask the user for leave; without it there is an error.

use std::sync::Arc;
use std::time::Instant;

use screencapturekit::error::{SCError, SCStreamErrorCode};
use screencapturekit::screenshot_manager::{CGImageExt as _, SCScreenshotManager};
use screencapturekit::shareable_content::{SCDisplay, SCShareableContent, SCWindow};
use screencapturekit::stream::configuration::{PixelFormat as Pixels, SCStreamConfiguration};
use screencapturekit::stream::content_filter::SCContentFilter;

use super::{FPS, LEAST, ScreenInfo};
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::convert::{self, PixelFormat};
use crate::media::video::frame::{FramePool, VideoFrame, even_size};
use crate::media::video::source::VideoMode;

/// Opens the display `number`, counted from 0.
pub(super) fn open_monitor(number: u32) -> Result<Box<dyn PictureSource>, String> {
    let displays = content()?.displays();
    let display = displays
        .get(number as usize)
        .ok_or_else(|| format!("there is no monitor {number}: this computer has {}", displays.len()))?;
    let (filter, size) = of_display(display)?;
    Ok(Box::new(MacSource::open(filter, format!("monitor {number}"), size)))
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
    Ok(Box::new(MacSource::open(filter, name, size)))
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
    filter: SCContentFilter,
    configuration: SCStreamConfiguration,
    name: String,
    size: (u32, u32),
}

impl MacSource {
    fn open(filter: SCContentFilter, name: String, size: (u32, u32)) -> Self {
        let (width, height) = size;
        let mut configuration = SCStreamConfiguration::new()
            .with_width(width.max(2))
            .with_height(height.max(2))
            .with_pixel_format(Pixels::BGRA)
            .with_shows_cursor(true);
        // A shadow would take room from the window. Systems before macOS 14 cannot leave it out.
        drop(configuration.set_ignores_shadows_single_window(true));
        Self { filter, configuration, name, size }
    }
}

/// Why there is no picture: the window is closed, which is in order, or something broke.
fn why(error: &SCError) -> SourceEnd {
    match error {
        SCError::SCStreamError {
            code:
                SCStreamErrorCode::UserStopped | SCStreamErrorCode::SystemStoppedStream | SCStreamErrorCode::NoCaptureSource,
            ..
        } => SourceEnd::Ended,
        other => SourceEnd::Failed { key: "err.portal", detail: other.to_string() },
    }
}

impl PictureSource for MacSource {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> VideoMode {
        let (width, height) = even_size(self.size.0, self.size.1);
        VideoMode { width, height, fps: FPS }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let image = SCScreenshotManager::capture_image(&self.filter, &self.configuration).map_err(|e| why(&e))?;
        let pixels = image.bgra_data().map_err(|e| why(&e))?;
        let side = |n: usize| u32::try_from(n).unwrap_or(0);
        let (width, height) = (side(image.width()), side(image.height()));
        pool.draw(width, height, |frame| {
            frame.at = Instant::now();
            frame.rtp_timestamp = 0;
            convert::to_i420(frame, PixelFormat::Bgra, width, height, &pixels)
        })
        .map_err(|e| SourceEnd::Failed { key: "err.portal", detail: e.to_string() })
    }
}
