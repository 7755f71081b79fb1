//! The thread that reads a camera, and the one that watches over it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::{Claim, DeviceError, Found, LOST, choose, convert, find_again, likely_name, lost, open};
use crate::media::video::capture::{CaptureEvent, Outlet};
use crate::media::video::frame::FramePool;
use crate::media::video::source::{CameraChoice, VideoMode};

/// A camera that has given nothing for this long has stalled.
pub const STALL_AFTER: Duration = Duration::from_secs(2);
/// A reader without pictures ends by itself after this long, when the watchdog has noticed.
const CLOSED_AFTER: Duration = Duration::from_millis(2_200);
/// After this long the user is told that it does not come back by itself.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(5);
/// Opening takes at most this long before it counts as failed.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The first picture may take longer than those after it: capture cards wait for their signal.
const FIRST_PICTURE: Duration = Duration::from_secs(5);
/// Pause between attempts to open a lost camera again.
const RETRY: Duration = Duration::from_secs(1);
/// Pause between attempts to open one that has not been there or not been free yet.
const RETRY_FIRST: Duration = Duration::from_secs(3);
/// Threads that hang in the driver at once, at most; then nothing more is tried until one comes back.
const MAX_STUCK: u32 = 2;
/// How long closing waits for the reader: two pictures of the slowest camera, then it hangs.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(100);

/// What a reader thread reports.
enum Report {
    Opened(Found, VideoMode),
    Picture,
    Failed(DeviceError),
}

/// Which camera a reader is to open.
#[derive(Clone)]
enum Wanted {
    Chosen(CameraChoice),
    Again(Found),
}

impl Wanted {
    fn find(&self) -> Result<Found, DeviceError> {
        match self {
            Self::Chosen(choice) => choose(choice),
            Self::Again(found) => find_again(found),
        }
    }
}

/// A thread that finds, opens and reads one camera until told to end, or until the driver fails.
struct Reader {
    stop: Arc<AtomicBool>,
    reports: mpsc::Receiver<Report>,
}

impl Reader {
    fn start(
        wanted: Wanted,
        mode: VideoMode,
        outlet: &Arc<Outlet>,
        alive: &Arc<AtomicU32>,
    ) -> Result<Self, DeviceError> {
        let stop = Arc::new(AtomicBool::new(false));
        // Pictures go to the slot themselves; these are signs of life, of which one is as good as a hundred.
        let (sender, reports) = mpsc::sync_channel(8);
        let job = ReaderJob { wanted, mode, outlet: Arc::clone(outlet), stop: Arc::clone(&stop), sender };
        let (own, ended) = (Arc::clone(alive), Arc::clone(outlet));
        alive.fetch_add(1, Ordering::SeqCst);
        let spawned = std::thread::Builder::new().name("camera".into()).spawn(move || {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run())).is_err();
            if panicked {
                tracing::warn!("the camera's driver panicked");
            }
            own.fetch_sub(1, Ordering::SeqCst);
            ended.nudge();
        });
        match spawned {
            Ok(_) => Ok(Self { stop, reports }),
            Err(error) => {
                alive.fetch_sub(1, Ordering::SeqCst);
                Err(lost("", error.to_string()))
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
    wanted: Wanted,
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

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn read(&self) -> Result<(), DeviceError> {
        let found = self.wanted.find()?;
        let name = &found.node.name;
        // Muted meanwhile: not even opened for a moment.
        let Some(_claim) = Claim::wait(found.node.number, &self.stop) else { return Ok(()) };
        let mut camera = open(&found.node, self.mode)?;
        if self.stopped() {
            return Ok(());
        }
        let (format, mode) = camera.format();
        camera.start(name)?;
        let _ = self.sender.try_send(Report::Opened(found.clone(), mode));
        self.outlet.nudge();
        let mut pool = FramePool::new(5);
        let (stride, mut bad) = (camera.stride(), 0);
        let (mut last, mut patience) = (Instant::now(), FIRST_PICTURE);
        while !self.stopped() {
            let Some(raw) = camera.frame(name)? else {
                if last.elapsed() >= patience {
                    // Opening it anew is what helps most of those that stall.
                    return Err(lost(name, format!("no picture for {} ms", patience.as_millis())));
                }
                continue;
            };
            let at = Instant::now();
            (last, patience) = (at, CLOSED_AFTER);
            if self.stopped() {
                break;
            }
            match convert(raw, format, mode, stride, &mut pool, at) {
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
                        return Err(lost(name, detail));
                    }
                }
            }
        }
        // Dropping it stops the stream and closes the device.
        Ok(())
    }
}

fn failed(error: DeviceError) -> CaptureEvent {
    CaptureEvent::Failed { key: error.key, device: error.device, detail: error.detail }
}

/// Opens a camera and watches over it until the capture is closed.
pub(crate) fn run(outlet: &Arc<Outlet>, choice: &CameraChoice, mode: VideoMode) {
    let now = Instant::now();
    let mut watch = Watch {
        outlet,
        choice,
        mode,
        alive: Arc::new(AtomicU32::new(0)),
        reader: None,
        found: None,
        told: None,
        since: now,
        last_picture: now,
        lost: None,
        next_try: now,
    };
    watch.watch();
    // The reader sees it within a moment; a muted camera's light must go out before we say so.
    watch.reader = None;
    let deadline = Instant::now() + CLOSE_PATIENCE;
    while watch.alive.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Watch<'a> {
    outlet: &'a Arc<Outlet>,
    choice: &'a CameraChoice,
    mode: VideoMode,
    /// Reader threads that exist.
    alive: Arc<AtomicU32>,
    reader: Option<Reader>,
    /// The camera, once it was open.
    found: Option<Found>,
    /// Key of the failure that was told while it never was open.
    told: Option<&'static str>,
    /// When the reader was started.
    since: Instant,
    last_picture: Instant,
    /// Since when it is lost, and whether the second notice was given.
    lost: Option<(Instant, bool)>,
    next_try: Instant,
}

impl Watch<'_> {
    fn watch(&mut self) {
        let mut nudges = 0;
        while !self.outlet.closed() {
            self.hear();
            self.look();
            // Opening, failing and closing wake it; pictures only count.
            self.outlet.rest(&mut nudges, Instant::now() + LOOK);
        }
    }

    /// Takes what the reader has reported.
    fn hear(&mut self) {
        while let Some(reader) = &self.reader {
            match reader.reports.try_recv() {
                Ok(Report::Opened(found, mode)) => self.has_opened(found, mode),
                Ok(Report::Picture) => self.has_picture(),
                Ok(Report::Failed(error)) => self.has_ended(error),
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.has_ended(lost(&self.name(), "the driver ended without a word"));
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
    }

    fn name(&self) -> String {
        self.found.as_ref().map_or_else(|| likely_name(self.choice), |f| f.node.name.clone())
    }

    fn has_ended(&mut self, error: DeviceError) {
        self.reader = None;
        if self.found.is_none() {
            self.next_try = Instant::now() + RETRY_FIRST;
            return self.fail(error);
        }
        tracing::info!(%error, "the camera is lost");
        self.lose();
    }

    /// It never was open: told once, and again only if the cause is another one.
    fn fail(&mut self, error: DeviceError) {
        if self.told.replace(error.key) != Some(error.key) {
            self.outlet.tell(failed(error));
        }
    }

    fn has_opened(&mut self, found: Found, mode: VideoMode) {
        self.last_picture = Instant::now();
        self.told = None;
        let name = found.node.name.clone();
        if self.found.replace(found).is_none() {
            let VideoMode { width, height, fps } = mode;
            self.outlet.tell(CaptureEvent::Opened { name, width, height, fps });
        }
    }

    fn has_picture(&mut self) {
        self.last_picture = Instant::now();
        if self.lost.take().is_some() {
            self.outlet.tell(CaptureEvent::Recovered);
        }
    }

    fn lose(&mut self) {
        if self.lost.is_none() {
            let since = self.last_picture;
            self.lost = Some((since, false));
            self.next_try = Instant::now() + RETRY;
            // No frozen face is left standing, and none is sent.
            self.outlet.blank();
            self.tell_stalled(since);
        }
    }

    fn tell_stalled(&self, since: Instant) {
        let for_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.outlet.tell(CaptureEvent::Stalled { device: self.name(), for_ms });
    }

    fn look(&mut self) {
        let opening = self.found.is_none() && self.reader.is_some();
        if opening && self.since.elapsed() > OPEN_TIMEOUT && self.told != Some(LOST) {
            self.fail(lost(&self.name(), format!("it does not open within {} s", OPEN_TIMEOUT.as_secs())));
        }
        if self.found.is_some() && self.lost.is_none() && self.last_picture.elapsed() >= STALL_AFTER {
            self.lose();
        }
        if let Some((since, false)) = self.lost
            && since.elapsed() >= GIVEN_UP_AFTER
        {
            self.lost = Some((since, true));
            self.tell_stalled(since);
        }
        let now = Instant::now();
        if now >= self.next_try {
            self.next_try = now + RETRY;
            self.try_it();
        }
    }

    fn try_it(&mut self) {
        // A reader that hangs in the driver is kept: it is the one that hears it when the camera goes on.
        if self.reader.is_some() || self.alive.load(Ordering::SeqCst) >= MAX_STUCK {
            return;
        }
        let wanted = match &self.found {
            Some(found) => Wanted::Again(found.clone()),
            None => Wanted::Chosen(self.choice.clone()),
        };
        self.since = Instant::now();
        match Reader::start(wanted, self.mode, self.outlet, &self.alive) {
            Ok(reader) => self.reader = Some(reader),
            Err(error) => self.has_ended(error),
        }
    }
}
