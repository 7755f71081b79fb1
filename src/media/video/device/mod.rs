//! Real cameras: `nokhwa` lists them and negotiates the mode; pictures are read in a thread of its own, and a watchdog beside it.
//!
//! A driver may hang wherever it is asked something, and a broken stream may panic when it is dropped. So the thread that talks
//! to a camera is never joined, only watched. Pictures are waited for with an end (`direct`): one that stalls is closed and
//! opened again, as is one that was unplugged, under whatever number it comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nokhwa::Camera;
use nokhwa::utils::{ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType};

use super::convert::{self, PixelFormat};
use super::file::decode_jpeg;
use super::frame::{FramePool, VideoFrame};
use super::source::{CameraChoice, VideoMode};

pub(crate) use watch::run;
pub use watch::{GIVEN_UP_AFTER, OPEN_TIMEOUT, STALL_AFTER};

#[cfg(target_os = "linux")]
mod direct;
#[cfg(not(target_os = "linux"))]
mod through;
mod watch;

/// A camera that is open.
#[cfg(target_os = "linux")]
use direct::Direct as Handle;
#[cfg(not(target_os = "linux"))]
use through::Through as Handle;

/// How long a camera that we are closing may take before it is tried all the same.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);

/// What is said of a camera whose pictures nobody here can read.
const NO_FORMAT: &str = "it offers no format that is understood";

/// Key of what is neither missing nor in use nor forbidden.
const LOST: &str = "dev.cam_lost";

/// More pictures a second no camera gives.
const FASTEST: u32 = 480;

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
    /// Where it is plugged in, where the system tells.
    pub place: Option<String>,
    /// Whether it can be used now.
    pub state: CameraState,
}

impl CameraInfo {
    /// The SOURCE that means this camera, also after a restart and beside another one of the same name.
    pub fn source(&self) -> String {
        match &self.place {
            Some(place) => format!("device:{} [{place}]", self.name),
            None => format!("device:{}", self.index),
        }
    }
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
        Self::of_system(device, error.to_string())
    }

    fn of_system(device: &str, detail: String) -> Self {
        // The crate hands the system's message through as text only. 16 EBUSY, 13 EACCES, 1 EPERM, 19 ENODEV, 2 ENOENT, 6 ENXIO.
        let has = |code: u32| detail.contains(&format!("(os error {code})"));
        let key = if has(16) || detail.to_lowercase().contains("busy") {
            "dev.cam_busy"
        } else if has(13) || has(1) || detail.to_lowercase().contains("permission") {
            "dev.cam_denied"
        } else if has(19) || has(2) || has(6) {
            "dev.cam_none"
        } else {
            LOST
        };
        Self { key, device: device.to_owned(), detail }
    }
}

/// Cameras that this program has open or tries: probing one would disturb its stream.
static OURS: Mutex<Vec<u32>> = Mutex::new(Vec::new());

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    /// Number that the system gives it (`/dev/videoN`).
    number: u32,
    name: String,
    place: Option<String>,
}

impl Node {
    fn new(number: u32, name: String) -> Self {
        #[cfg(target_os = "linux")]
        let place = direct::place(number);
        #[cfg(not(target_os = "linux"))]
        let place = None;
        Self { number, name, place }
    }
}

/// Every node of the system, in order; also those that are no cameras.
fn nodes() -> Vec<Node> {
    let found = std::panic::catch_unwind(|| nokhwa::query(native_backend()));
    let mut nodes: Vec<Node> = match found {
        Ok(Ok(found)) => found
            .into_iter()
            .filter_map(|info| Some(Node::new(info.index().as_index().ok()?, info.human_name())))
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
    // One that we have open ourselves is not disturbed.
    let Some(_claim) = Claim::at_once(node.number) else { return Some(CameraState::Usable) };
    #[cfg(target_os = "linux")]
    let try_it = || Handle::probe(node);
    #[cfg(not(target_os = "linux"))]
    let try_it = || open(node, VideoMode::DEFAULT).and_then(|mut camera| camera.start(&node.name));
    match std::panic::catch_unwind(try_it) {
        Ok(Ok(())) => Some(CameraState::Usable),
        Ok(Err(error)) if error.key == "dev.cam_busy" => Some(CameraState::Busy),
        Ok(Err(error)) if error.key == "dev.cam_denied" => Some(CameraState::Denied),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// The cameras of the machine, each tried. Takes up to some hundred milliseconds a camera, and as long as it likes when a
/// driver hangs: not for a window's thread.
pub fn list_cameras() -> Vec<CameraInfo> {
    let cameras = nodes().into_iter().filter_map(|node| probe(&node).map(|state| (node, state)));
    (0u32..)
        .zip(cameras)
        .map(|(index, (node, state))| CameraInfo { index, name: node.name, place: node.place, state })
        .collect()
}

fn none(detail: impl Into<String>) -> DeviceError {
    DeviceError { key: "dev.cam_none", device: String::new(), detail: detail.into() }
}

/// A camera that was found, with what tells it from others when it is looked for again.
#[derive(Debug, Clone)]
struct Found {
    node: Node,
    /// Where other nodes of its name are: none of these is it.
    twins: Vec<String>,
}

impl Found {
    fn new(node: Node, all: &[Node]) -> Self {
        let twins = all.iter().filter(|n| n.number != node.number && n.name == node.name);
        Self { twins: twins.filter_map(|n| n.place.clone()).collect(), node }
    }
}

/// Nodes that a name means, the most likely ones only: `NAME [PLACE]` as [`CameraInfo::source`] writes it, else any part of
/// a name.
fn called(all: &[Node], text: &str) -> Vec<Node> {
    let some = |means: &dyn Fn(&Node) -> bool| all.iter().filter(|n| means(n)).cloned().collect::<Vec<_>>();
    if let Some((name, place)) = text.strip_suffix(']').and_then(|t| t.rsplit_once(" [")) {
        let there = some(&|n| n.name == name && n.place.as_deref() == Some(place));
        // Plugged in elsewhere it is still the one of that name.
        let anywhere = || some(&|n| n.name == name);
        let found = if there.is_empty() { anywhere() } else { there };
        if !found.is_empty() {
            return found;
        }
    }
    let text = text.to_lowercase();
    some(&|n| n.name.to_lowercase().contains(&text))
}

fn choose(choice: &CameraChoice) -> Result<Found, DeviceError> {
    let all = nodes();
    if all.is_empty() {
        return Err(none("no camera is connected"));
    }
    let candidates = match choice {
        CameraChoice::Name(name) => called(&all, name),
        CameraChoice::Default | CameraChoice::Index(_) => all.clone(),
    };
    let mut tried: Option<DeviceError> = None;
    let mut position = 0u32;
    for node in candidates {
        match (choice, probe(&node)) {
            (_, None) => {}
            (CameraChoice::Index(wanted), Some(_)) => {
                if *wanted == position {
                    return Ok(Found::new(node, &all));
                }
                position += 1;
            }
            (_, Some(CameraState::Usable)) => return Ok(Found::new(node, &all)),
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

/// Name of the camera that is most likely meant; none is opened.
fn likely_name(choice: &CameraChoice) -> String {
    let all = nodes();
    let likely = match choice {
        CameraChoice::Name(name) => called(&all, name).into_iter().next(),
        CameraChoice::Index(index) => all.into_iter().nth(usize::try_from(*index).unwrap_or(0)),
        CameraChoice::Default => all.into_iter().next(),
    };
    likely.map(|node| node.name).unwrap_or_default()
}

/// A camera that was lost, where it is now: in its place or, under its name, where no twin of it was.
fn find_again(lost: &Found) -> Result<Found, DeviceError> {
    let all = nodes();
    let same_name = |n: &&Node| n.name == lost.node.name;
    let in_place = |n: &&Node| n.place == lost.node.place;
    let is_twin = |n: &&Node| n.place.as_ref().is_some_and(|place| lost.twins.contains(place));
    let named = || all.iter().filter(same_name);
    let candidates = named().filter(in_place).chain(named().filter(|n| !in_place(n) && !is_twin(n)));
    candidates
        .filter(|n| probe(n) == Some(CameraState::Usable))
        .map(|n| Found::new(n.clone(), &all))
        .next()
        .ok_or_else(|| none(format!("{} is not there", lost.node.name)))
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
    DeviceError { key: LOST, device: device.to_owned(), detail: detail.into() }
}

/// Opens a node at the mode nearest to `mode`; it does not stream yet.
#[cfg(target_os = "linux")]
fn open(node: &Node, mode: VideoMode) -> Result<Handle, DeviceError> {
    let negotiated = match open_by_nokhwa(node, mode) {
        Ok(camera) => Some(camera.camera_format()),
        // What it does not open for reasons of its own is opened without it.
        Err(error) if error.key == LOST => {
            tracing::debug!(%error, "the camera is opened directly");
            None
        }
        Err(error) => return Err(error),
    };
    Handle::open(node, mode, negotiated)
}

#[cfg(not(target_os = "linux"))]
fn open(node: &Node, mode: VideoMode) -> Result<Handle, DeviceError> {
    open_by_nokhwa(node, mode).map(Handle::new)
}

/// Opens a node at the mode nearest to `mode`; it does not stream yet.
///
/// `nokhwa`'s own "closest" looks at one pixel format only and finds nothing when the size is not offered exactly.
fn open_by_nokhwa(node: &Node, mode: VideoMode) -> Result<Camera, DeviceError> {
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
    Err(refused.unwrap_or_else(|| lost(&node.name, NO_FORMAT)))
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
    // Of odd times between pictures `nokhwa` takes a part for the rate.
    let possible = |f: &CameraFormat| f.width() >= 2 && f.height() >= 2 && f.frame_rate() <= FASTEST;
    offered.retain(|f| FORMATS.contains(&f.format()) && possible(f));
    offered.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    offered.dedup();
    offered
}

/// Registers a camera as ours for as long as it lives.
struct Claim(u32);

impl Claim {
    /// Waits for a camera that we are just closing ourselves: muting and unmuting at once must not find it busy. `None` when
    /// told to stop meanwhile.
    fn wait(number: u32, stop: &AtomicBool) -> Option<Self> {
        let deadline = Instant::now() + CLAIM_TIMEOUT;
        loop {
            if stop.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(claim) = Self::at_once(number) {
                return Some(claim);
            }
            if Instant::now() >= deadline {
                Self::ours().push(number);
                return Some(Self(number));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `None` where we have it open already.
    fn at_once(number: u32) -> Option<Self> {
        let mut ours = Self::ours();
        if ours.contains(&number) {
            return None;
        }
        ours.push(number);
        Some(Self(number))
    }

    fn ours() -> std::sync::MutexGuard<'static, Vec<u32>> {
        OURS.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut ours = Self::ours();
        if let Some(at) = ours.iter().position(|n| *n == self.0) {
            ours.swap_remove(at);
        }
    }
}

fn convert(
    raw: &[u8],
    format: FrameFormat,
    mode: VideoMode,
    stride: Option<u32>,
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
        let tight = pixels.row_bytes(mode.width);
        // Some say nothing or nonsense.
        let stride = stride.filter(|stride| (tight..tight.saturating_mul(4)).contains(stride)).unwrap_or(tight);
        convert::to_i420_strided(frame, pixels, mode.width, mode.height, stride, raw).map_err(|e| e.to_string())
    })
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
    fn a_camera_is_found_by_place_and_name_and_its_twin_is_another() {
        let node = |number, name: &str, place: &str| Node { number, name: name.into(), place: Some(place.into()) };
        let (left, right, other) = (node(0, "HD Cam", "2/0"), node(2, "HD Cam", "3/0"), node(4, "HD Cam Pro", "4/0"));
        let all = [left.clone(), right, other];
        let numbers = |text: &str| called(&all, text).iter().map(|n| n.number).collect::<Vec<_>>();
        assert_eq!(numbers("HD Cam [3/0]"), [2]);
        assert_eq!(numbers("HD Cam [7/0]"), [0, 2], "moved to another socket");
        assert_eq!(numbers("pro"), [4]);
        assert!(numbers("Web [3/0]").is_empty(), "another one is plugged in there");
        assert_eq!(Found::new(left, &all).twins, ["3/0"]);
        let info =
            CameraInfo { index: 1, name: "HD Cam".into(), place: Some("3/0".into()), state: CameraState::Usable };
        assert_eq!(info.source(), "device:HD Cam [3/0]");
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
