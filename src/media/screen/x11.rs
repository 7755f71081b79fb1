//! Monitors and windows of an X11 display.
//!
//! Pictures come through shared memory ([`super::x11_shm`]) where the server is on this machine, else by `GetImage`. A window is read from a
//! pixmap of its own (Composite), so that what lies over it is not in the picture. Damage tells when nothing has changed:
//! then no picture is taken. The cursor is no part of any of this and is drawn in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use x11rb::connection::Connection;
use x11rb::protocol::composite::{ConnectionExt as _, Redirect};
use x11rb::protocol::damage::{ConnectionExt as _, Damage, ReportLevel};
use x11rb::protocol::randr::ConnectionExt as _;
use x11rb::protocol::xfixes::{ConnectionExt as _, GetCursorImageReply};
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, Drawable, ImageFormat, ImageOrder, Pixmap, Window};
use x11rb::protocol::{ErrorKind, Event};
use x11rb::rust_connection::{ConnectionError, ReplyError, RustConnection};

use super::x11_shm::Segment;
use super::{FPS, LEAST, STILL, ScreenInfo, again};
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::convert::{self, PixelFormat};
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::source::VideoMode;

/// Without shared memory a 1080p picture takes 10 ms of the server and as much of us: more would starve the call.
const FPS_BY_SOCKET: u32 = 15;
/// A screen on which nothing changes is looked at this often.
const LOOK: Duration = Duration::from_millis(30);

struct X11Source {
    connection: RustConnection,
    target: Target,
    name: String,
    width: u16,
    height: u16,
    memory: Option<Segment>,
    /// No second try after the server has refused shared memory.
    by_socket: bool,
    /// Reports changes of the target; `None` where the server cannot.
    damage: Option<Damage>,
    /// The server tells where the cursor is and what it looks like.
    cursor: bool,
    /// Position and number of the cursor in the last picture.
    cursor_was: Option<(i16, i16, u32)>,
    last: Option<Arc<VideoFrame>>,
}

enum Target {
    /// A part of the root window.
    Area { root: Window, x: i16, y: i16 },
    /// A window of its own; its size may change. The pixmap holds what it shows, for the size beside it.
    Window { window: Window, pixmap: Option<(Pixmap, u16, u16)>, redirected: bool },
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
    Ok(Box::new(X11Source::new(connection, Target::Area { root, x, y }, name, (width, height))))
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
    Some(X11Source::of_window(connection, window, name, (width, height)))
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
                    return Ok(Box::new(X11Source::of_window(connection, window, name, (width, height))));
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

/// What keeps a picture from being taken.
enum NoPicture {
    /// The window is not to be seen at the moment.
    Hidden,
    /// It is gone.
    Gone,
    Failed(String),
}

impl From<ReplyError> for NoPicture {
    fn from(error: ReplyError) -> Self {
        match &error {
            ReplyError::X11Error(x11) if x11.error_kind == ErrorKind::Match => Self::Hidden,
            ReplyError::X11Error(x11)
                if matches!(x11.error_kind, ErrorKind::Drawable | ErrorKind::Window | ErrorKind::Pixmap) =>
            {
                Self::Gone
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<ConnectionError> for NoPicture {
    fn from(error: ConnectionError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl X11Source {
    fn of_window(connection: RustConnection, window: Window, name: String, size: (u16, u16)) -> Self {
        // From now on the window is drawn into memory of its own and shown from there.
        let redirected = connection.composite_query_version(0, 4).ok().and_then(|c| c.reply().ok()).is_some()
            && connection.composite_redirect_window(window, Redirect::AUTOMATIC).is_ok_and(|c| c.check().is_ok());
        Self::new(connection, Target::Window { window, pixmap: None, redirected }, name, size)
    }

    fn new(connection: RustConnection, target: Target, name: String, (width, height): (u16, u16)) -> Self {
        let memory = Segment::new(&connection, width, height);
        let drawable = match &target {
            Target::Area { root, .. } => *root,
            Target::Window { window, .. } => *window,
        };
        let damage = || {
            connection.damage_query_version(1, 1).ok()?.reply().ok()?;
            let damage = connection.generate_id().ok()?;
            connection.damage_create(damage, drawable, ReportLevel::NON_EMPTY).ok()?.check().ok()?;
            Some(damage)
        };
        let damage = damage();
        let cursor = connection.xfixes_query_version(5, 0).ok().and_then(|c| c.reply().ok()).is_some();
        let by_socket = memory.is_none();
        Self {
            connection,
            target,
            name,
            width,
            height,
            memory,
            by_socket,
            damage,
            cursor,
            cursor_was: None,
            last: None,
        }
    }

    /// Whether anything was drawn since the last question.
    fn has_changed(&self) -> Result<bool, ConnectionError> {
        let Some(damage) = self.damage else { return Ok(true) };
        let mut changed = false;
        while let Some(event) = self.connection.poll_for_event()? {
            changed |= matches!(event, Event::DamageNotify(_));
        }
        if changed {
            // Emptied, so that the next change is told again.
            self.connection.damage_subtract(damage, x11rb::NONE, x11rb::NONE)?;
            self.connection.flush()?;
        }
        Ok(changed)
    }

    /// The cursor, its position relative to the picture; `None` where it is not over it.
    fn cursor(&self) -> Option<(GetCursorImageReply, i16, i16)> {
        if !self.cursor {
            return None;
        }
        let image = self.connection.xfixes_get_cursor_image().ok()?.reply().ok()?;
        let (left, top) = match self.target {
            Target::Area { x, y, .. } => (x, y),
            Target::Window { window, .. } => {
                let root = self.connection.setup().roots.first()?.root;
                let at = self.connection.translate_coordinates(window, root, 0, 0).ok()?.reply().ok()?;
                (at.dst_x, at.dst_y)
            }
        };
        let (x, y) = (image.x.checked_sub(left)?, image.y.checked_sub(top)?);
        let over = x >= 0 && y >= 0 && x < self.width.cast_signed() && y < self.height.cast_signed();
        over.then_some((image, x, y))
    }

    /// What to read from, after the window's size and pixmap are up to date.
    fn drawable(&mut self) -> Result<(Drawable, i16, i16), NoPicture> {
        match &mut self.target {
            Target::Area { root, x, y } => Ok((*root, *x, *y)),
            Target::Window { window, pixmap, redirected } => {
                let geometry = self.connection.get_geometry(*window)?.reply()?;
                (self.width, self.height) = (geometry.width, geometry.height);
                if !*redirected {
                    return Ok((*window, 0, 0));
                }
                if let Some((current, width, height)) = *pixmap {
                    if (width, height) == (self.width, self.height) {
                        return Ok((current, 0, 0));
                    }
                    self.connection.free_pixmap(current)?;
                    *pixmap = None;
                }
                let id = self.connection.generate_id().map_err(|e| NoPicture::Failed(e.to_string()))?;
                self.connection.composite_name_window_pixmap(*window, id)?.check()?;
                *pixmap = Some((id, self.width, self.height));
                Ok((id, 0, 0))
            }
        }
    }

    fn take(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, NoPicture> {
        let (drawable, x, y) = self.drawable()?;
        let (width, height) = (self.width, self.height);
        if !self.by_socket && self.memory.as_ref().is_none_or(|memory| !memory.holds(width, height)) {
            if let Some(small) = self.memory.take() {
                small.release(&self.connection);
            }
            self.memory = Segment::new(&self.connection, width, height);
            self.by_socket = self.memory.is_none();
        }
        let cursor = self.cursor();
        self.cursor_was = cursor.as_ref().map(|(image, x, y)| (*x, *y, image.cursor_serial));
        let fetched;
        let data = match &self.memory {
            Some(memory) => memory.fetch(&self.connection, drawable, (x, y, width, height))?,
            None => {
                let image = ImageFormat::Z_PIXMAP;
                fetched = self.connection.get_image(image, drawable, x, y, width, height, u32::MAX)?.reply()?.data;
                &fetched
            }
        };
        let (width, height) = (u32::from(width), u32::from(height));
        pool.draw(width, height, |frame| {
            frame.at = Instant::now();
            frame.rtp_timestamp = 0;
            convert::to_i420(frame, PixelFormat::Bgra, width, height, data)
                .map_err(|e| NoPicture::Failed(e.to_string()))?;
            if let Some((image, x, y)) = &cursor {
                let left = i32::from(*x) - i32::from(image.xhot);
                let top = i32::from(*y) - i32::from(image.yhot);
                convert::blend(frame, (left, top), u32::from(image.width), &image.cursor_image);
            }
            Ok(())
        })
    }
}

impl PictureSource for X11Source {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn mode(&self) -> VideoMode {
        let fps = if self.by_socket { FPS_BY_SOCKET } else { FPS };
        VideoMode { width: u32::from(self.width), height: u32::from(self.height), fps }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let failed = |detail: String| SourceEnd::Failed { key: "err.portal", detail };
        let begun = Instant::now();
        while let Some(last) = &self.last {
            let cursor = self.cursor().map(|(image, x, y)| (x, y, image.cursor_serial));
            if self.has_changed().map_err(|e| failed(e.to_string()))? || cursor != self.cursor_was {
                break;
            }
            if begun.elapsed() >= STILL {
                let last = Arc::clone(last);
                // A window that is gone changes no more either.
                match self.drawable() {
                    Err(NoPicture::Gone) => return Err(SourceEnd::Ended),
                    Err(NoPicture::Failed(detail)) => return Err(failed(detail)),
                    Err(NoPicture::Hidden) | Ok(_) => {}
                }
                return again(&last, pool);
            }
            std::thread::sleep(LOOK);
        }
        match self.take(pool) {
            Ok(picture) => {
                self.last = Some(Arc::clone(&picture));
                Ok(picture)
            }
            // A minimised window has no picture: black until it comes back.
            Err(NoPicture::Hidden) => {
                self.last = None;
                std::thread::sleep(LOOK);
                pool.draw(u32::from(self.width), u32::from(self.height), |frame| {
                    let mut black = VideoFrame::black(frame.width, frame.height);
                    std::mem::swap(frame, &mut black);
                    Ok(())
                })
            }
            Err(NoPicture::Gone) => Err(SourceEnd::Ended),
            Err(NoPicture::Failed(detail)) => Err(failed(detail)),
        }
    }
}
