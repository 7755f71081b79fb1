//! Real cameras by `nokhwa`: raw pictures in a thread of its own, and a watchdog beside it.
//!
//! `nokhwa` waits for ever when a camera stalls and may panic when a broken stream is dropped. So the thread that talks to
//! it is never joined, only watched: when it has given nothing for 2 s, another one tries to open the camera again.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use nokhwa::Camera;
use nokhwa::utils::{ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType};

use super::capture::{CaptureEvent, Outlet};
use super::convert::{self, PixelFormat};
use super::file::decode_jpeg;
use super::frame::{FramePool, VideoFrame};
use super::source::{CameraChoice, VideoMode};

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
/// How often the watchdog looks.
const LOOK: Duration = Duration::from_millis(100);

/// Formats that are understood, best first for equal sizes: uncompressed before compressed.
const FORMATS: [FrameFormat; 6] = [
    FrameFormat::NV12,
    FrameFormat::YUYV,
    FrameFormat::MJPEG,
    FrameFormat::RAWRGB,
    FrameFormat::RAWBGR,
    FrameFormat::GRAY,
];

/// Whether a camera can be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CameraState {
    /// It opens (or we have it open ourselves).
    Usable,
    /// Another program uses it.
    Busy,
    /// The system forbids it.
    Denied,
}

/// One camera of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CameraInfo {
    /// Position for `device:INDEX`.
    pub index: u32,
    /// Name for the user and for `device:NAME`.
    pub name: String,
    /// Whether it can be used now.
    pub state: CameraState,
}

/// Why a camera is not open, with the key of the text for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{device}: {detail}")]
pub struct DeviceError {
    /// `dev.cam_none`, `dev.cam_busy`, `dev.cam_denied` or `dev.cam_lost`.
    pub key: &'static str,
    /// The camera's name, as far as known.
    pub device: String,
    /// What the system said.
    pub detail: String,
}

impl DeviceError {
    fn new(device: &str, error: &nokhwa::NokhwaError) -> Self {
        let detail = error.to_string();
        // The crate hands the system's message through as text only. 16 EBUSY, 13 EACCES, 1 EPERM, 19 ENODEV, 2 ENOENT, 6 ENXIO.
        let has = |code: u32| detail.contains(&format!("(os error {code})"));
        let key = if has(16) || detail.to_lowercase().contains("busy") {
            "dev.cam_busy"
        } else if has(13) || has(1) || detail.to_lowercase().contains("permission") {
            "dev.cam_denied"
        } else if has(19) || has(2) || has(6) {
            "dev.cam_none"
        } else {
            "dev.cam_lost"
        };
        Self { key, device: device.to_owned(), detail }
    }
}

/// Cameras that this program has open: probing one would disturb its stream.
static OURS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

struct Node {
    /// Number that the system gives it (`/dev/videoN`).
    number: u32,
    name: String,
}

/// Every node of the system, in order; also those that are no cameras.
fn nodes() -> Vec<Node> {
    let found = std::panic::catch_unwind(|| nokhwa::query(native_backend()));
    let mut nodes: Vec<Node> = match found {
        Ok(Ok(found)) => found
            .into_iter()
            .filter_map(|info| Some(Node { number: info.index().as_index().ok()?, name: info.human_name() }))
            .collect(),
        Ok(Err(error)) => {
            tracing::debug!(%error, "cameras cannot be listed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    nodes.sort_by_key(|n| n.number);
    nodes
}

fn native_backend() -> ApiBackend {
    nokhwa::native_api_backend().unwrap_or(ApiBackend::Auto)
}

/// Tries a node; `None` if it is no camera (a metadata node, a loopback without a writer).
fn probe(node: &Node) -> Option<CameraState> {
    if OURS.lock().unwrap_or_else(PoisonError::into_inner).contains(&node.number) {
        return Some(CameraState::Usable);
    }
    // Asking for buffers is what tells a camera in use from a free one; its light stays off until pictures are asked for.
    let tried =
        connect(node).and_then(|mut camera| camera.open_stream().map_err(|error| DeviceError::new(&node.name, &error)));
    match tried {
        Ok(()) => Some(CameraState::Usable),
        Err(error) if error.key == "dev.cam_busy" => Some(CameraState::Busy),
        Err(error) if error.key == "dev.cam_denied" => Some(CameraState::Denied),
        Err(_) => None,
    }
}

/// The cameras of the machine, each tried. Takes up to some hundred milliseconds a camera: not for a window's thread.
pub fn list_cameras() -> Vec<CameraInfo> {
    let cameras = nodes().into_iter().filter_map(|node| probe(&node).map(|state| (node.name, state)));
    (0u32..).zip(cameras).map(|(index, (name, state))| CameraInfo { index, name, state }).collect()
}

fn none(detail: impl Into<String>) -> DeviceError {
    DeviceError { key: "dev.cam_none", device: String::new(), detail: detail.into() }
}

fn choose(choice: &CameraChoice) -> Result<Node, DeviceError> {
    let all = nodes();
    if all.is_empty() {
        return Err(none("no camera is connected"));
    }
    let mut tried: Option<DeviceError> = None;
    let mut position = 0u32;
    for node in all {
        match choice {
            CameraChoice::Name(name) => {
                if !node.name.to_lowercase().contains(&name.to_lowercase()) {
                    continue;
                }
            }
            CameraChoice::Default | CameraChoice::Index(_) => {}
        }
        let state = probe(&node);
        match (choice, state) {
            (_, None) => {}
            (CameraChoice::Index(wanted), Some(_)) => {
                if *wanted == position {
                    return Ok(node);
                }
                position += 1;
            }
            (_, Some(CameraState::Usable)) => return Ok(node),
            (_, Some(state)) => {
                let key = if state == CameraState::Busy { "dev.cam_busy" } else { "dev.cam_denied" };
                let detail = format!("{} is {}", node.name, if state == CameraState::Busy { "busy" } else { "denied" });
                tried.get_or_insert(DeviceError { key, device: node.name, detail });
            }
        }
    }
    Err(tried.unwrap_or_else(|| match choice {
        CameraChoice::Name(name) => none(format!("no camera is called “{name}”")),
        CameraChoice::Index(index) => none(format!("there is no camera {index}")),
        CameraChoice::Default => none("no camera is connected"),
    }))
}

/// Opens a node; it has some format and does not stream yet.
fn connect(node: &Node) -> Result<Camera, DeviceError> {
    let any = RequestedFormat::with_formats(RequestedFormatType::None, &FORMATS);
    // The listing inside may panic on odd drivers (stepwise sizes with a zero step).
    let opened =
        std::panic::catch_unwind(|| Camera::with_backend(CameraIndex::Index(node.number), any, native_backend()));
    match opened {
        Ok(Ok(camera)) => Ok(camera),
        Ok(Err(error)) => Err(DeviceError::new(&node.name, &error)),
        Err(_) => Err(lost(&node.name, "the driver panicked")),
    }
}

fn lost(device: &str, detail: impl Into<String>) -> DeviceError {
    DeviceError { key: "dev.cam_lost", device: device.to_owned(), detail: detail.into() }
}

/// Opens a node at the mode nearest to `mode`; it does not stream yet.
///
/// `nokhwa`'s own "closest" looks at one pixel format only and finds nothing when the size is not offered exactly.
fn open(node: &Node, mode: VideoMode) -> Result<Camera, DeviceError> {
    let mut camera = connect(node)?;
    let offered = camera.compatible_camera_formats().map_err(|e| DeviceError::new(&node.name, &e))?;
    let mut refused = None;
    // Drivers offer what they then refuse (USB bandwidth): the next best may do.
    for format in nearest(offered, mode).into_iter().take(4) {
        if camera.camera_format() == format {
            return Ok(camera);
        }
        let exactly = [format.format()];
        let exactly = RequestedFormat::with_formats(RequestedFormatType::Exact(format), &exactly);
        match camera.set_camera_requset(exactly) {
            Ok(_) => return Ok(camera),
            Err(error) => refused = Some(DeviceError::new(&node.name, &error)),
        }
    }
    Err(refused.unwrap_or_else(|| lost(&node.name, "it offers no format that is understood")))
}

/// What a camera offers, the best for `mode` first.
fn nearest(mut offered: Vec<CameraFormat>, mode: VideoMode) -> Vec<CameraFormat> {
    let cost = |f: &CameraFormat| {
        let pixels = f64::from(f.width()) * f64::from(f.height());
        let wanted = f64::from(mode.width) * f64::from(mode.height);
        let size = (pixels / wanted).max(wanted / pixels.max(1.0)) - 1.0;
        let shape = (f64::from(f.width()) / f64::from(f.height().max(1))
            - f64::from(mode.width) / f64::from(mode.height.max(1)))
        .abs();
        let rate = f64::from(f.frame_rate()) / f64::from(mode.fps.max(1));
        // Too slow is bad, too fast only wastes a little.
        let rate = if rate < 1.0 { 2.0 * (1.0 - rate) } else { 0.1 * (rate - 1.0) };
        let format = match f.format() {
            FrameFormat::NV12 | FrameFormat::YUYV => 0.0,
            // Costs decoding, but a camera on a slow bus has nothing else at full rate.
            FrameFormat::MJPEG => 0.1,
            FrameFormat::RAWRGB | FrameFormat::RAWBGR => 0.15,
            FrameFormat::GRAY => 3.0,
        };
        size + shape + rate + format
    };
    offered.retain(|f| FORMATS.contains(&f.format()) && f.width() >= 2 && f.height() >= 2);
    offered.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    offered.dedup();
    offered
}

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
        let job = ReaderJob {
            node: Node { number: node.number, name: node.name.clone() },
            mode,
            outlet: Arc::clone(outlet),
            stop: Arc::clone(&stop),
            sender,
        };
        let alive = Arc::clone(stuck);
        alive.fetch_add(1, Ordering::SeqCst);
        let spawned = std::thread::Builder::new().name("camera".into()).spawn(move || {
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job.run())).is_err();
            if panicked {
                tracing::warn!("the camera's driver panicked");
            }
            alive.fetch_sub(1, Ordering::SeqCst);
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

/// Registers a camera as ours for as long as it lives.
struct Claim(u32);

impl Claim {
    fn new(number: u32) -> Self {
        OURS.lock().unwrap_or_else(PoisonError::into_inner).push(number);
        Self(number)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ours.iter().position(|n| *n == self.0) {
            ours.swap_remove(at);
        }
    }
}

impl ReaderJob {
    fn run(self) {
        if let Err(error) = self.read() {
            // The watchdog reads this; when its queue is full it has signs of life enough and will see the silence.
            let _ = self.sender.send(Report::Failed(error));
        }
    }

    fn read(&self) -> Result<(), DeviceError> {
        let fail = |error: &nokhwa::NokhwaError| DeviceError::new(&self.node.name, error);
        let _claim = Claim::new(self.node.number);
        let mut camera = open(&self.node, self.mode)?;
        camera.open_stream().map_err(|e| fail(&e))?;
        let format = camera.camera_format();
        let mode = VideoMode { width: format.width(), height: format.height(), fps: format.frame_rate() };
        let _ = self.sender.try_send(Report::Opened(mode));
        let mut pool = FramePool::new(5);
        let mut bad = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let raw = camera.frame_raw().map_err(|e| fail(&e))?;
            let at = Instant::now();
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            match convert(&raw, format.format(), mode, &mut pool, at) {
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
        let _ = camera.stop_stream();
        Ok(())
    }
}

fn convert(
    raw: &[u8],
    format: FrameFormat,
    mode: VideoMode,
    pool: &mut FramePool,
    at: Instant,
) -> Result<Arc<VideoFrame>, String> {
    let pixels = match format {
        FrameFormat::MJPEG => return decode_jpeg(raw, pool),
        FrameFormat::YUYV => PixelFormat::Yuyv,
        FrameFormat::NV12 => PixelFormat::Nv12,
        FrameFormat::GRAY => PixelFormat::Gray,
        FrameFormat::RAWRGB => PixelFormat::Rgb,
        FrameFormat::RAWBGR => PixelFormat::Bgr,
    };
    pool.draw(mode.width, mode.height, |frame| {
        frame.at = at;
        frame.rtp_timestamp = 0;
        convert::to_i420(frame, pixels, mode.width, mode.height, raw).map_err(|e| e.to_string())
    })
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
    let deadline = Instant::now() + Duration::from_millis(500);
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
        loop {
            if self.outlet.closed() {
                return Ok(());
            }
            let report = match &self.reader {
                Some(reader) => reader.reports.recv_timeout(LOOK),
                None => {
                    self.outlet.sleep_until(Instant::now() + LOOK);
                    Err(mpsc::RecvTimeoutError::Timeout)
                }
            };
            match report {
                Ok(Report::Opened(mode)) => self.has_opened(mode),
                Ok(Report::Picture) => self.has_picture(),
                Ok(Report::Failed(error)) if !self.opened => return Err(error),
                Ok(Report::Failed(error)) => {
                    tracing::info!(%error, "the camera is lost");
                    self.reader = None;
                    self.lose(Instant::now());
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.reader = None;
                    if !self.opened {
                        return Err(lost(&self.node.name, "the driver ended without a word"));
                    }
                    self.lose(Instant::now());
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
            }
            if !self.opened && started.elapsed() > OPEN_TIMEOUT {
                let detail = format!("it does not open within {} s", OPEN_TIMEOUT.as_secs());
                return Err(lost(&self.node.name, detail));
            }
            self.look();
        }
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

#[cfg(test)]
mod tests {
    use nokhwa::utils::Resolution;

    use super::*;

    fn format(width: u32, height: u32, format: FrameFormat, fps: u32) -> CameraFormat {
        CameraFormat::new(Resolution::new(width, height), format, fps)
    }

    #[test]
    fn the_format_is_chosen_by_what_a_person_sees() {
        let slow = format(1280, 720, FrameFormat::YUYV, 10);
        let packed = format(1280, 720, FrameFormat::MJPEG, 30);
        let small = format(640, 480, FrameFormat::YUYV, 30);
        let raw = format(1280, 720, FrameFormat::YUYV, 30);
        let huge = format(3840, 2160, FrameFormat::NV12, 30);
        let grey = format(1280, 720, FrameFormat::GRAY, 30);
        let first = |offered: &[CameraFormat]| nearest(offered.to_vec(), VideoMode::DEFAULT).first().copied();
        assert_eq!(first(&[slow, packed, small, huge, grey]), Some(packed));
        assert_eq!(first(&[slow, packed, raw]), Some(raw));
        assert_eq!(first(&[slow, small]), Some(slow), "the asked for size, if slow, before a quarter of it");
        assert_eq!(first(&[small, huge]), Some(small));
        assert_eq!(first(&[grey]), Some(grey));
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn the_systems_words_become_keys() {
        let error = |text: &str| nokhwa::NokhwaError::OpenDeviceError("0".into(), text.into());
        for (text, key) in [
            ("V4L2 Error: Device or resource busy (os error 16)", "dev.cam_busy"),
            ("V4L2 Error: Permission denied (os error 13)", "dev.cam_denied"),
            ("No such device (os error 19)", "dev.cam_none"),
            ("No such file or directory (os error 2)", "dev.cam_none"),
            ("Input/output error (os error 5)", "dev.cam_lost"),
        ] {
            assert_eq!(DeviceError::new("Cam", &error(text)).key, key, "{text}");
        }
    }
}
