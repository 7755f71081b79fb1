//! An open source of pictures: one thread each, paced on absolute deadlines, really closed when dropped.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::device;
use super::file::FileSource;
use super::frame::{FramePool, FrameSlot, VideoFrame};
use super::pattern::{PatternPainter, unix_ms};
use super::source::{CameraSource, PatternSource, ScreenSource, VideoMode};
use crate::media::screen;

/// What happens to a source. Called on the source's thread; must not block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaptureEvent {
    /// The source is open and will give pictures of this kind.
    Opened {
        /// The device's own name, the file's name, `pattern` …
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Pictures a second, as announced.
        fps: u32,
    },
    /// The source could not be opened or broke for good. Nothing follows, but for a camera: that is tried again, and
    /// [`CaptureEvent::Opened`] follows when it is there and free.
    Failed {
        /// Key of the text for the user (`dev.cam_busy`, `dev.cam_none`, `dev.cam_denied`, `dev.file`, `err.portal`).
        key: &'static str,
        /// Name for the text's `{dev}`.
        device: String,
        /// Technical cause, for the details.
        detail: String,
    },
    /// A device gives no pictures any more (key `dev.cam_lost`); it is opened again in the meantime. Told after 2 s, and
    /// once more after 5 s: then the text says that it does not come back by itself.
    Stalled {
        /// Name for the text's `{dev}`.
        device: String,
        /// For how long, in ms.
        for_ms: u64,
    },
    /// Pictures come again after [`CaptureEvent::Stalled`].
    Recovered,
    /// The source has ended by itself (shared window closed). Nothing follows.
    Ended,
}

/// Receives a source's events.
pub type CaptureEvents = Box<dyn Fn(CaptureEvent) + Send + Sync>;

/// What a source has given so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Pictures put into the slot.
    pub frames: u64,
    /// Pictures left out because their time had passed.
    pub late: u64,
}

/// Longest wait for the thread when closing. A driver that hangs is left behind, it can no longer reach the slot.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pictures in flight: in the slot, in the encoder, being drawn by the window, being filled.
const POOL: usize = 5;

/// An open source. Dropping it closes the device and empties the slot.
#[derive(Debug)]
pub struct Capture {
    outlet: Arc<Outlet>,
    thread: Option<JoinHandle<()>>,
}

/// The way from a source's thread to the slot, which can be shut.
pub(crate) struct Outlet {
    slot: FrameSlot,
    state: Mutex<OutletState>,
    changed: Condvar,
    events: CaptureEvents,
}

#[derive(Default)]
struct OutletState {
    closed: bool,
    nudges: u64,
    done: bool,
    stats: CaptureStats,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

impl Outlet {
    fn new(slot: FrameSlot, events: CaptureEvents) -> Self {
        Self { slot, state: Mutex::default(), changed: Condvar::new(), events }
    }

    fn lock(&self) -> MutexGuard<'_, OutletState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the capture was closed: time to end.
    pub(crate) fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Hands a picture over; `false` once closed.
    pub(crate) fn put(&self, frame: Arc<VideoFrame>) -> bool {
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        state.stats.frames += 1;
        self.slot.put(frame);
        true
    }

    /// Takes the picture away while the source is disturbed.
    pub(crate) fn blank(&self) {
        if !self.lock().closed {
            self.slot.clear();
        }
    }

    /// Tells an event, unless closed.
    pub(crate) fn tell(&self, event: CaptureEvent) {
        if !self.closed() {
            (self.events)(event);
        }
    }

    /// Sleeps until `deadline`; `false` as soon as the capture is closed.
    pub(crate) fn sleep_until(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let now = Instant::now();
            if now >= deadline {
                return true;
            }
            state = self.changed.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends a [`Outlet::rest`] that runs or comes next.
    pub(crate) fn nudge(&self) {
        self.lock().nudges += 1;
        self.changed.notify_all();
    }

    /// Rests until `deadline`, a nudge since the last rest with this `seen`, or the end of the capture.
    pub(crate) fn rest(&self, seen: &mut u64, deadline: Instant) {
        let mut state = self.lock();
        while !state.closed && state.nudges == *seen {
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            state = self.changed.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
        *seen = state.nudges;
    }

    fn close(&self) {
        let mut state = self.lock();
        // Once only: later the slot may hold another source's picture.
        if !std::mem::replace(&mut state.closed, true) {
            self.slot.clear();
        }
        drop(state);
        self.changed.notify_all();
    }
}

/// A source that is asked for one picture after the other.
pub(crate) trait PictureSource {
    /// Name for the user.
    fn name(&self) -> String;
    /// Size and rate of the pictures that will come.
    fn mode(&self) -> VideoMode;
    /// The next picture, stamped with the moment of its capture.
    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd>;
    /// Phase of the pictures against the wall clock, if it matters: pictures fall on multiples of the interval.
    fn aligned(&self) -> bool {
        false
    }
}

/// Why a source gives no picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceEnd {
    /// It has properly ended.
    Ended,
    /// It broke.
    Failed {
        /// Key of the text.
        key: &'static str,
        /// Technical cause.
        detail: String,
    },
}

impl Capture {
    /// Opens a camera source on its own thread; returns at once. What becomes of it is told by `events`.
    pub fn open(source: &CameraSource, slot: FrameSlot, events: CaptureEvents) -> Self {
        let source = source.clone();
        Self::start(slot, events, move |outlet| match source {
            CameraSource::None => outlet.tell(CaptureEvent::Ended),
            CameraSource::Pattern(pattern) => run(outlet, "pattern", move || Ok(Box::new(Pattern::new(pattern)))),
            CameraSource::File(path) => run_file(outlet, &path),
            CameraSource::Device { choice, mode } => device::run(outlet, &choice, mode),
        })
    }

    /// Opens a screen source on its own thread; returns at once.
    pub fn open_screen(source: &ScreenSource, slot: FrameSlot, events: CaptureEvents) -> Self {
        let source = source.clone();
        Self::start(slot, events, move |outlet| match source {
            ScreenSource::Pattern(pattern) => run(outlet, "pattern", move || Ok(Box::new(Pattern::new(pattern)))),
            ScreenSource::File(path) => run_file(outlet, &path),
            other => run(outlet, "screen", move || screen::open(&other, &|| outlet.closed())),
        })
    }

    fn start(slot: FrameSlot, events: CaptureEvents, body: impl FnOnce(&Arc<Outlet>) + Send + 'static) -> Self {
        let outlet = Arc::new(Outlet::new(slot, events));
        let inner = Arc::clone(&outlet);
        let spawned = std::thread::Builder::new().name("video-capture".into()).spawn(move || {
            // A driver's panic must not take the program with it.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&inner)));
            if result.is_err() {
                inner.tell(CaptureEvent::Failed {
                    key: "dev.cam_lost",
                    device: String::new(),
                    detail: "the capture thread panicked".into(),
                });
            }
            inner.lock().done = true;
            inner.changed.notify_all();
        });
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                outlet.lock().done = true;
                outlet.tell(CaptureEvent::Failed {
                    key: "dev.cam_lost",
                    device: String::new(),
                    detail: error.to_string(),
                });
                None
            }
        };
        Self { outlet, thread }
    }

    /// What it has given so far.
    pub fn stats(&self) -> CaptureStats {
        self.outlet.lock().stats
    }

    /// Whether it still runs; `false` after [`CaptureEvent::Failed`] and [`CaptureEvent::Ended`].
    pub fn is_running(&self) -> bool {
        !self.outlet.lock().done
    }

    /// Lets no further picture out and empties the slot, at once; the device closes meanwhile. [`Capture::close`] waits for it.
    pub fn shut(&self) {
        self.outlet.close();
    }

    /// Closes the device and empties the slot. Waits for the device, but not for one that hangs.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.outlet.close();
        let Some(thread) = self.thread.take() else { return };
        if thread.thread().id() == std::thread::current().id() {
            return;
        }
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let mut state = self.outlet.lock();
        while !state.done {
            let now = Instant::now();
            if now >= deadline {
                tracing::warn!("a video source does not close; its thread is left behind");
                return;
            }
            state = self.outlet.changed.wait_timeout(state, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        let _ = thread.join();
    }
}

fn run_file(outlet: &Outlet, path: &Path) {
    run(outlet, &path.display().to_string(), || {
        FileSource::open(path)
            .map(|source| Box::new(source) as Box<dyn PictureSource>)
            .map_err(|e| SourceEnd::Failed { key: "dev.file", detail: e.to_string() })
    });
}

/// Opens a source and hands its pictures over, each at its time.
fn run(outlet: &Outlet, device: &str, open: impl FnOnce() -> Result<Box<dyn PictureSource>, SourceEnd>) {
    let failed = |end: SourceEnd| match end {
        SourceEnd::Ended => CaptureEvent::Ended,
        SourceEnd::Failed { key, detail } => CaptureEvent::Failed { key, device: device.to_owned(), detail },
    };
    let mut source = match open() {
        Ok(source) => source,
        Err(end) => return outlet.tell(failed(end)),
    };
    let VideoMode { width, height, fps } = source.mode();
    outlet.tell(CaptureEvent::Opened { name: source.name(), width, height, fps });
    let mut pool = FramePool::new(POOL);
    let started = Instant::now() + if source.aligned() { to_next_second() } else { Duration::ZERO };
    let mut count: u64 = 0;
    loop {
        // Absolute deadlines: an interval that is rounded or a late wake-up must not add up.
        let due = started + Duration::from_nanos(count.saturating_mul(1_000_000_000) / u64::from(fps.max(1)));
        if !outlet.sleep_until(due) {
            return;
        }
        count += 1;
        match source.next(&mut pool) {
            Ok(frame) => {
                if !outlet.put(frame) {
                    return;
                }
            }
            Err(end) => {
                outlet.blank();
                return outlet.tell(failed(end));
            }
        }
        let behind = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let current = behind.saturating_mul(u64::from(fps)) / 1_000_000_000;
        if current > count {
            outlet.lock().stats.late += current - count;
            count = current;
        }
    }
}

fn to_next_second() -> Duration {
    Duration::from_millis(1_000 - unix_ms() % 1_000)
}

/// The test picture as a source.
struct Pattern {
    source: PatternSource,
    painter: PatternPainter,
}

impl Pattern {
    fn new(source: PatternSource) -> Self {
        Self { source, painter: PatternPainter::new(source) }
    }
}

impl PictureSource for Pattern {
    fn name(&self) -> String {
        format!("pattern {}", self.source.id)
    }

    fn mode(&self) -> VideoMode {
        let (width, height) = self.painter.size();
        VideoMode { width, height, fps: self.source.mode.fps }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let (width, height) = self.painter.size();
        pool.draw(width, height, |frame| {
            frame.at = Instant::now();
            frame.rtp_timestamp = 0;
            self.painter.draw(frame, unix_ms());
            Ok(())
        })
    }

    fn aligned(&self) -> bool {
        // The flash and the click come together only if a picture falls on the full second.
        self.source.sync
    }
}

#[cfg(test)]
#[path = "capture_tests.rs"]
mod tests;
