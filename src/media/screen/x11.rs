//! Monitors and windows of an X11 display, by `GetImage`. The cursor is not drawn yet.

use std::sync::Arc;
use std::time::Instant;

use x11rb::connection::Connection;
use x11rb::protocol::ErrorKind;
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, ImageFormat, ImageOrder, Window};
use x11rb::rust_connection::{ReplyError, RustConnection};

use super::ScreenInfo;
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::convert::{self, PixelFormat};
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::source::VideoMode;

/// Without shared memory a 1080p picture takes 10 ms of the server and as much of us: more would starve the call.
const FPS: u32 = 15;

struct X11Source {
    connection: RustConnection,
    target: Target,
    name: String,
    width: u16,
    height: u16,
}

enum Target {
    /// A part of the root window.
    Area { root: Window, x: i16, y: i16 },
    /// A window of its own; its size may change.
    Window(Window),
}

fn connect() -> Result<(RustConnection, Window), String> {
    let (connection, screen) = x11rb::connect(None).map_err(|e| format!("no X11 display can be reached ({e})"))?;
    let setup = connection.setup();
    let screen = setup.roots.get(screen).ok_or("the X11 display has no screen")?;
    let deep_enough = setup.pixmap_formats.iter().any(|f| f.depth == screen.root_depth && f.bits_per_pixel == 32);
    if !deep_enough || setup.image_byte_order != ImageOrder::LSB_FIRST {
        return Err(format!("the X11 display's pixels ({} bit) are not understood", screen.root_depth));
    }
    let root = screen.root;
    Ok((connection, root))
}

/// Opens the monitor `number`, counted from 0.
pub(super) fn open_monitor(number: u32) -> Result<Box<dyn PictureSource>, String> {
    let (connection, root) = connect()?;
    let monitors = connection
        .randr_get_monitors(root, true)
        .map_err(|e| e.to_string())?
        .reply()
        .map(|reply| reply.monitors)
        .unwrap_or_default();
    let (x, y, width, height) = if monitors.is_empty() && number == 0 {
        // A server without RandR has one screen.
        let geometry = connection.get_geometry(root).map_err(|e| e.to_string())?.reply().map_err(|e| e.to_string())?;
        (0, 0, geometry.width, geometry.height)
    } else {
        let monitor = monitors
            .get(number as usize)
            .ok_or_else(|| format!("there is no monitor {number}: this display has {}", monitors.len()))?;
        (monitor.x, monitor.y, monitor.width, monitor.height)
    };
    let name = format!("monitor {number}");
    Ok(Box::new(X11Source { connection, target: Target::Area { root, x, y }, name, width, height }))
}

/// Monitors and the windows that the window manager knows, our own left out.
pub(super) fn list() -> Result<Vec<ScreenInfo>, String> {
    let (connection, root) = connect()?;
    let monitors = connection.randr_get_monitors(root, true).map_err(|e| e.to_string())?.reply();
    let mut sizes: Vec<(u16, u16)> =
        monitors.map(|r| r.monitors.iter().map(|m| (m.width, m.height)).collect()).unwrap_or_default();
    if sizes.is_empty() {
        let geometry = connection.get_geometry(root).map_err(|e| e.to_string())?.reply().map_err(|e| e.to_string())?;
        sizes.push((geometry.width, geometry.height));
    }
    let mut list: Vec<ScreenInfo> = sizes
        .into_iter()
        .enumerate()
        .map(|(number, (width, height))| ScreenInfo {
            source: format!("monitor:{number}"),
            title: String::new(),
            width: u32::from(width),
            height: u32::from(height),
        })
        .collect();
    for window in numbers(&connection, root, b"_NET_CLIENT_LIST").unwrap_or_default() {
        let own = numbers(&connection, window, b"_NET_WM_PID").is_some_and(|p| p.contains(&std::process::id()));
        let Some(title) = window_title(&connection, window).filter(|_| !own) else { continue };
        let Ok(cookie) = connection.get_geometry(window) else { continue };
        let Ok(geometry) = cookie.reply() else { continue };
        if geometry.width < LEAST || geometry.height < LEAST {
            continue;
        }
        let (width, height) = (u32::from(geometry.width), u32::from(geometry.height));
        // By number: titles change, and two windows may have the same.
        list.push(ScreenInfo { source: format!("window:{window:#x}"), title, width, height });
    }
    Ok(list)
}

/// Smaller windows are hidden helpers of programs.
const LEAST: u16 = 48;

/// The 32 bit numbers of a property.
fn numbers(connection: &RustConnection, window: Window, name: &[u8]) -> Option<Vec<u32>> {
    let atom = connection.intern_atom(true, name).ok()?.reply().ok()?.atom;
    let reply = connection.get_property(false, window, atom, AtomEnum::ANY, 0, 4096).ok()?.reply().ok()?;
    Some(reply.value32()?.collect())
}

/// `0x3a00007`: a window by its number, as [`list`] names it.
fn by_number(connection: &RustConnection, text: &str) -> Option<X11Source> {
    let window = Window::from_str_radix(text.strip_prefix("0x")?, 16).ok()?;
    let name = window_title(connection, window)?;
    let geometry = connection.get_geometry(window).ok()?.reply().ok()?;
    let (connection, _) = connect().ok()?;
    let (width, height) = (geometry.width, geometry.height);
    Some(X11Source { connection, target: Target::Window(window), name, width, height })
}

/// Opens the window of this number, else the first whose title holds `title`.
pub(super) fn open_window(title: &str) -> Result<Box<dyn PictureSource>, String> {
    let (connection, root) = connect()?;
    if let Some(source) = by_number(&connection, title) {
        return Ok(Box::new(source));
    }
    let wanted = title.to_lowercase();
    let mut level = vec![root];
    // Window managers put a window into one or two frames of their own.
    for _ in 0..4 {
        let mut next = Vec::new();
        for parent in level {
            let Ok(tree) = connection.query_tree(parent).map_err(|e| e.to_string())?.reply() else { continue };
            for window in tree.children {
                if let Some(name) = window_title(&connection, window)
                    && name.to_lowercase().contains(&wanted)
                {
                    let geometry = connection
                        .get_geometry(window)
                        .map_err(|e| e.to_string())?
                        .reply()
                        .map_err(|e| e.to_string())?;
                    let (width, height) = (geometry.width, geometry.height);
                    return Ok(Box::new(X11Source { connection, target: Target::Window(window), name, width, height }));
                }
                next.push(window);
            }
        }
        level = next;
    }
    Err(format!("no window's title holds “{title}”"))
}

fn window_title(connection: &RustConnection, window: Window) -> Option<String> {
    let utf8 = connection.intern_atom(false, b"_NET_WM_NAME").ok()?.reply().ok()?.atom;
    for property in [utf8, AtomEnum::WM_NAME.into()] {
        let reply = connection.get_property(false, window, property, AtomEnum::ANY, 0, 256).ok()?.reply().ok()?;
        if !reply.value.is_empty() {
            return Some(String::from_utf8_lossy(&reply.value).into_owned());
        }
    }
    None
}

impl PictureSource for X11Source {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> VideoMode {
        VideoMode { width: u32::from(self.width), height: u32::from(self.height), fps: FPS }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let failed = |detail: String| SourceEnd::Failed { key: "err.portal", detail };
        let (drawable, x, y) = match self.target {
            Target::Area { root, x, y } => (root, x, y),
            Target::Window(window) => {
                match self.connection.get_geometry(window).map_err(|e| failed(e.to_string()))?.reply() {
                    Ok(geometry) => (self.width, self.height) = (geometry.width, geometry.height),
                    // The window was closed.
                    Err(ReplyError::X11Error(_)) => return Err(SourceEnd::Ended),
                    Err(error) => return Err(failed(error.to_string())),
                }
                (window, 0, 0)
            }
        };
        let (width, height) = (self.width, self.height);
        let reply = self
            .connection
            .get_image(ImageFormat::Z_PIXMAP, drawable, x, y, width, height, u32::MAX)
            .map_err(|e| failed(e.to_string()))?
            .reply();
        let (width, height) = (u32::from(width), u32::from(height));
        match reply {
            Ok(image) => pool.draw(width, height, |frame| {
                frame.at = Instant::now();
                frame.rtp_timestamp = 0;
                convert::to_i420(frame, PixelFormat::Bgra, width, height, &image.data)
                    .map_err(|e| failed(e.to_string()))
            }),
            // A minimised window, or one partly off the screen, has no picture: black until it comes back.
            Err(ReplyError::X11Error(error)) if error.error_kind == ErrorKind::Match => {
                pool.draw(width, height, |frame| {
                    let mut black = VideoFrame::black(width, height);
                    std::mem::swap(frame, &mut black);
                    Ok(())
                })
            }
            Err(ReplyError::X11Error(error)) if error.error_kind == ErrorKind::Drawable => Err(SourceEnd::Ended),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}
