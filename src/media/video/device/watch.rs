//! The thread that reads a camera, and the one that watches over it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{Claim, DeviceError, Node, choose, convert, lost, nodes, open, stride};
use crate::media::video::capture::{CaptureEvent, Outlet};
use crate::media::video::frame::FramePool;
use crate::media::video::source::{CameraChoice, VideoMode};

/// A camera that has given nothing for this long has stalled.
pub const STALL_AFTER: Duration = Duration::from_secs(2);
/// After this long the user is told that it does not come back by itself.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
/// Opening takes at most this long before it counts as failed.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts to open a lost camera again.
const RETRY: Duration = Duration::from_secs(1);
/// Threads that hang in the driver at once, at most; then nothing more is tried until one comes back.
const MAX_STUCK: u32 = 2;
/// How long closing waits for the reader: two pictures of the slowest camera, then it hangs.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(100);

/// What a reader thread reports.
enum Report {
    Opened(VideoMode),
    Picture,
    Failed(DeviceError),
}

/// A thread that reads one camera until told to end, or until the driver fails.
struct Reader {
    stop: Arc<AtomicBool>,
    reports: mpsc::Receiver<Report>,
}

impl Reader {
    fn start(node: &Node, mode: VideoMode, outlet: &Arc<Outlet>, stuck: &Arc<AtomicU32>) -> Result<Self, DeviceError> {
        let stop = Arc::new(AtomicBool::new(false));
        // Pictures go to the slot themselves; these are signs of life, of which one is as good as a hundred.
        let (sender, reports) = mpsc::sync_channel(8);
        let job = ReaderJob { node: node.clone(), mode, outlet: Arc::clone(outlet), stop: Arc::clone(&stop), sender };
        let (alive, ended) = (Arc::clone(stuck), Arc::clone(outlet));
        alive.fetch_add(1, Ordering::SeqCst);
        let spawned = std::thread::Builder::new().name("camera".into()).spawn(move || {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run())).is_err();
            if panicked {
                tracing::warn!("the camera's driver panicked");
            }
            alive.fetch_sub(1, Ordering::SeqCst);
            ended.nudge();
        });
        match spawned {
            Ok(_) => Ok(Self { stop, reports }),
            Err(error) => {
                stuck.fetch_sub(1, Ordering::SeqCst);
                Err(lost(&node.name, error.to_string()))
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

struct ReaderJob {
    node: Node,
    mode: VideoMode,
    outlet: Arc<Outlet>,
    stop: Arc<AtomicBool>,
    sender: mpsc::SyncSender<Report>,
}

impl ReaderJob {
    fn run(self) {
        if let Err(error) = self.read() {
            // The queue is emptied ten times a second; that the watchdog has gone is the only way for this to fail.
            let _ = self.sender.send(Report::Failed(error));
            self.outlet.nudge();
        }
    }

    fn read(&self) -> Result<(), DeviceError> {
        let name = &self.node.name;
        let _claim = Claim::new(self.node.number);
        let mut camera = open(&self.node, self.mode)?;
        let (format, mode) = camera.format();
        camera.start(name)?;
        // Of a camera that streams: only then is the format what it says.
        let stride = stride(&self.node);
        let _ = self.sender.try_send(Report::Opened(mode));
        self.outlet.nudge();
        let mut pool = FramePool::new(5);
        let mut bad = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let raw = camera.frame(name)?;
            let at = Instant::now();
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            match convert(&raw, format, mode, stride, &mut pool, at) {
                Ok(frame) => {
                    bad = 0;
                    if !self.outlet.put(frame) {
                        break;
                    }
                    let _ = self.sender.try_send(Report::Picture);
                }
                Err(detail) => {
                    // Cameras give a broken picture or two when they start.
                    bad += 1;
                    tracing::debug!(%detail, "a camera picture was not understood");
                    if bad > 60 {
                        return Err(lost(&self.node.name, detail));
                    }
                }
            }
        }
        // Stops the stream and closes the device.
        camera.stop();
        Ok(())
    }
}

fn failed(error: DeviceError) -> CaptureEvent {
    CaptureEvent::Failed { key: error.key, device: error.device, detail: error.detail }
}

/// Opens a camera and watches over it until the capture is closed.
pub(crate) fn run(outlet: &Arc<Outlet>, choice: &CameraChoice, mode: VideoMode) {
    let node = match choose(choice) {
        Ok(node) => node,
        Err(error) => return outlet.tell(failed(error)),
    };
    let alive = Arc::new(AtomicU32::new(0));
    let reader = match Reader::start(&node, mode, outlet, &alive) {
        Ok(reader) => reader,
        Err(error) => return outlet.tell(failed(error)),
    };
    let mut watch = Watch {
        outlet,
        node,
        mode,
        alive,
        reader: Some(reader),
        opened: false,
        last_picture: Instant::now(),
        lost: None,
        next_try: Instant::now(),
    };
    let ended = watch.watch();
    // The reader sees the closed outlet with its next picture; a muted camera's light must go out before we say so.
    watch.reader = None;
    let deadline = Instant::now() + CLOSE_PATIENCE;
    while watch.alive.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Err(error) = ended {
        outlet.tell(failed(error));
    }
}

struct Watch<'a> {
    outlet: &'a Arc<Outlet>,
    node: Node,
    mode: VideoMode,
    /// Reader threads that exist.
    alive: Arc<AtomicU32>,
    reader: Option<Reader>,
    opened: bool,
    last_picture: Instant,
    /// Since when it is lost, and whether the second notice was given.
    lost: Option<(Instant, bool)>,
    next_try: Instant,
}

impl Watch<'_> {
    fn watch(&mut self) -> Result<(), DeviceError> {
        let started = Instant::now();
        let mut nudges = 0;
        loop {
            if self.outlet.closed() {
                return Ok(());
            }
            self.hear()?;
            if !self.opened && started.elapsed() > OPEN_TIMEOUT {
                let detail = format!("it does not open within {} s", OPEN_TIMEOUT.as_secs());
                return Err(lost(&self.node.name, detail));
            }
            self.look();
            // Opening, failing and closing wake it; pictures only count.
            self.outlet.rest(&mut nudges, Instant::now() + LOOK);
        }
    }

    /// Takes what the reader has reported; an error before the first opening is final.
    fn hear(&mut self) -> Result<(), DeviceError> {
        while let Some(reader) = &self.reader {
            match reader.reports.try_recv() {
                Ok(Report::Opened(mode)) => self.has_opened(mode),
                Ok(Report::Picture) => self.has_picture(),
                Ok(Report::Failed(error)) if !self.opened => return Err(error),
                Ok(Report::Failed(error)) => {
                    tracing::info!(%error, "the camera is lost");
                    self.reader = None;
                    self.lose(Instant::now());
                }
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.reader = None;
                    if !self.opened {
                        return Err(lost(&self.node.name, "the driver ended without a word"));
                    }
                    self.lose(Instant::now());
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        Ok(())
    }

    fn has_opened(&mut self, mode: VideoMode) {
        if !std::mem::replace(&mut self.opened, true) {
            let VideoMode { width, height, fps } = mode;
            self.outlet.tell(CaptureEvent::Opened { name: self.node.name.clone(), width, height, fps });
        }
        self.last_picture = Instant::now();
    }

    fn has_picture(&mut self) {
        self.last_picture = Instant::now();
        if self.lost.take().is_some() {
            self.outlet.tell(CaptureEvent::Recovered);
        }
    }

    fn lose(&mut self, since: Instant) {
        if self.lost.is_none() {
            self.lost = Some((since, false));
            self.next_try = Instant::now() + RETRY;
            // No frozen face is left standing, and none is sent.
            self.outlet.blank();
            self.tell_stalled(since);
        }
    }

    fn tell_stalled(&self, since: Instant) {
        let for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.outlet.tell(CaptureEvent::Stalled { device: self.node.name.clone(), for_ms });
    }

    fn look(&mut self) {
        if self.opened && self.lost.is_none() && self.last_picture.elapsed() >= STALL_AFTER {
            self.lose(self.last_picture);
        }
        let Some((since, told)) = self.lost else { return };
        if !told && since.elapsed() >= GIVEN_UP_AFTER {
            self.lost = Some((since, true));
            self.tell_stalled(since);
        }
        let now = Instant::now();
        if now < self.next_try {
            return;
        }
        self.next_try = now + RETRY;
        self.try_again();
    }

    fn try_again(&mut self) {
        // A reader that hangs in the driver is kept: it is the one that hears it when the camera goes on. Only a camera
        // that is gone (unplugged: its reader has ended) is opened anew.
        if self.reader.is_some() || self.alive.load(Ordering::SeqCst) >= MAX_STUCK {
            return;
        }
        // It may come back under another number.
        let Some(node) = nodes().into_iter().find(|n| n.name == self.node.name) else { return };
        if let Ok(reader) = Reader::start(&node, self.mode, self.outlet, &self.alive) {
            self.node = node;
            self.reader = Some(reader);
        }
    }
}
