//! V4L2 below `nokhwa`, for what that cannot say or do: wait for a picture with an end, how far apart the rows of a picture
//! are, rates that are no whole numbers (29.97 of capture cards), and where a camera is plugged in.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use nokhwa::utils::{CameraFormat, FrameFormat, Resolution};
use v4l::buffer::Type;
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::mmap::Stream;
use v4l::io::traits::CaptureStream as _;
use v4l::video::Capture as _;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC, Fraction};

use super::{DeviceError, NO_FORMAT, Node, lost, nearest};
use crate::media::video::source::VideoMode;

/// How long one wait for a picture lasts: so soon a reader notices that it is to end.
const WAIT: Duration = Duration::from_millis(100);
/// Pause before a driver is asked again that said it was ready and was not.
const NOT_READY: Duration = Duration::from_millis(10);
const BUFFERS: u32 = 4;
/// `POLLIN` of `poll(2)`.
const READABLE: i16 = 1;

const KNOWN: [(&[u8; 4], FrameFormat); 6] = [
    (b"NV12", FrameFormat::NV12),
    (b"YUYV", FrameFormat::YUYV),
    (b"MJPG", FrameFormat::MJPEG),
    (b"RGB3", FrameFormat::RAWRGB),
    (b"BGR3", FrameFormat::RAWBGR),
    (b"GREY", FrameFormat::GRAY),
];

/// Where a node is: the socket of its device and its place among the device's nodes. The same after a restart, unlike its number.
pub(super) fn place(number: u32) -> Option<String> {
    let node = format!("/sys/class/video4linux/video{number}");
    let link = std::fs::read_link(&node).ok()?;
    let index = std::fs::read_to_string(format!("{node}/index")).ok()?;
    Some(format!("{}/{}", socket(&link)?, index.trim()))
}

/// `…/0000:00:14.0/usb1/1-2/1-2:1.0/video4linux/video0` → `0000:00:14.0-2:1.0`: the buses are numbered as they are found.
fn socket(link: &Path) -> Option<String> {
    let device = link.parent()?.parent()?;
    let last = device.file_name()?.to_str()?;
    let is_pci = |name: &&str| name.len() == 12 && name.matches(':').count() == 2 && name.contains('.');
    let controller = device.iter().rev().skip(1).filter_map(|name| name.to_str()).find(is_pci);
    match (controller, last.split_once('-')) {
        (Some(controller), Some((bus, port))) if bus.parse::<u32>().is_ok() => Some(format!("{controller}-{port}")),
        _ => Some(last.to_owned()),
    }
}

fn device(node: &Node) -> std::io::Result<Device> {
    Device::new(usize::try_from(node.number).unwrap_or(usize::MAX))
}

/// A camera that is read directly.
pub(super) struct Direct {
    device: Device,
    stream: Option<Stream<'static>>,
    /// Whether the stream runs with every buffer in the driver's hands, none in ours.
    all_queued: bool,
    streams: bool,
    format: FrameFormat,
    mode: VideoMode,
}

/// What a camera offers, with the exact times between its pictures.
fn offered(device: &Device, mode: VideoMode) -> Vec<(CameraFormat, Fraction)> {
    let mut modes = Vec::new();
    for (name, format) in KNOWN {
        let fourcc = FourCC::new(name);
        for size in device.enum_framesizes(fourcc).unwrap_or_default() {
            // Stepwise sizes are those of cards and virtual cameras; they take what is asked for.
            let (width, height) = match size.size {
                FrameSizeEnum::Discrete(size) => (size.width, size.height),
                FrameSizeEnum::Stepwise(range) => (
                    mode.width.clamp(range.min_width, range.max_width.max(range.min_width)),
                    mode.height.clamp(range.min_height, range.max_height.max(range.min_height)),
                ),
            };
            let asked_for = Fraction::new(1, mode.fps);
            let intervals = device.enum_frameintervals(fourcc, width, height).unwrap_or_default().into_iter();
            let mut intervals: Vec<Fraction> = intervals
                .map(|interval| match interval.interval {
                    FrameIntervalEnum::Discrete(interval) => interval,
                    FrameIntervalEnum::Stepwise(_) => asked_for,
                })
                .collect();
            if intervals.is_empty() {
                // A driver that does not list them has one, or takes what is asked for.
                intervals.push(asked_for);
            }
            for interval in intervals {
                modes.push((CameraFormat::new(Resolution::new(width, height), format, whole(interval)), interval));
            }
        }
    }
    modes
}

/// What is tried, in order. What `nokhwa` has negotiated comes first, but for better modes that it does not see: those with
/// rates that are no whole numbers.
fn in_order(
    offered: &[(CameraFormat, Fraction)],
    mode: VideoMode,
    negotiated: Option<CameraFormat>,
) -> Vec<(CameraFormat, Fraction)> {
    let interval = |wanted: &CameraFormat| offered.iter().find(|(format, _)| format == wanted).map(|(_, i)| *i);
    let mut order: Vec<_> = nearest(offered.iter().map(|(format, _)| *format).collect(), mode)
        .into_iter()
        .filter_map(|format| interval(&format).map(|interval| (format, interval)))
        .collect();
    if let Some(negotiated) = negotiated {
        let at = order.iter().position(|(format, _)| *format == negotiated).unwrap_or(order.len());
        let mut rest = order.split_off(at);
        // Better ones with whole rates were refused by the driver.
        order.retain(|(_, interval)| interval.numerator != 1);
        if rest.is_empty() {
            rest.push((negotiated, Fraction::new(1, negotiated.frame_rate())));
        }
        order.append(&mut rest);
    }
    order
}

impl Direct {
    /// Whether a node could be opened now. Asking for buffers is what tells a camera in use from a free one; its light stays
    /// off, and its mode as it is.
    pub(super) fn probe(node: &Node) -> Result<(), DeviceError> {
        let failed = |error: std::io::Error| DeviceError::of_system(&node.name, error.to_string());
        let device = device(node).map_err(failed)?;
        if offered(&device, VideoMode::DEFAULT).is_empty() {
            return Err(lost(&node.name, NO_FORMAT));
        }
        Stream::with_buffers(&device, Type::VideoCapture, BUFFERS).map(drop).map_err(failed)
    }

    /// Opens a node at the mode nearest to `mode`, of which `nokhwa` may have negotiated one; it does not stream yet.
    pub(super) fn open(node: &Node, mode: VideoMode, negotiated: Option<CameraFormat>) -> Result<Self, DeviceError> {
        let failed = |error: std::io::Error| DeviceError::of_system(&node.name, error.to_string());
        let device = device(node).map_err(failed)?;
        for (wanted, interval) in in_order(&offered(&device, mode), mode, negotiated).into_iter().take(4) {
            let Some((name, _)) = KNOWN.iter().find(|(_, format)| *format == wanted.format()) else { continue };
            let asked = Format::new(wanted.width(), wanted.height(), FourCC::new(name));
            let given = device.set_format(&asked).map_err(failed)?;
            if given.fourcc != asked.fourcc || given.width < 2 || given.height < 2 {
                continue;
            }
            // Drivers with one rate only need not take one.
            let fps = device.set_params(&Parameters::new(interval)).map_or(wanted.frame_rate(), |p| whole(p.interval));
            let mode = VideoMode { width: given.width, height: given.height, fps };
            return Ok(Self { device, stream: None, all_queued: false, streams: false, format: wanted.format(), mode });
        }
        Err(lost(&node.name, NO_FORMAT))
    }

    /// Asks for buffers, which only one reader gets; the camera streams with the first wait for a picture.
    pub(super) fn start(&mut self, name: &str) -> Result<(), DeviceError> {
        let mut stream = Stream::with_buffers(&self.device, Type::VideoCapture, BUFFERS)
            .map_err(|e| DeviceError::of_system(name, e.to_string()))?;
        stream.set_timeout(WAIT);
        self.stream = Some(stream);
        Ok(())
    }

    /// The next picture as the camera gives it; `None` if there is none for a moment.
    pub(super) fn frame(&mut self, name: &str) -> Result<Option<&[u8]>, DeviceError> {
        let Some(stream) = &mut self.stream else { return Err(lost(name, "it does not stream")) };
        let failed = |error: std::io::Error| DeviceError::of_system(name, error.to_string());
        if self.streams {
            let ready = stream.handle().poll(READABLE, i32::try_from(WAIT.as_millis()).unwrap_or(0));
            match ready {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
        if std::mem::take(&mut self.all_queued) {
            // A picture can be looked at only by `next`, which first gives one buffer back: so one is taken unseen.
            return match stream.dequeue() {
                Ok(_) => Ok(None),
                Err(error) => {
                    self.all_queued = true;
                    not_yet(error).map_err(failed).map(|()| None)
                }
            };
        }
        self.streams = true;
        match stream.next() {
            Ok((data, about)) => {
                Ok(Some(data.get(..about.bytesused as usize).filter(|d| !d.is_empty()).unwrap_or(data)))
            }
            Err(error) => {
                self.all_queued = true;
                not_yet(error).map_err(failed).map(|()| None)
            }
        }
    }

    /// Bytes from one row to the next of the pictures that it gives now; drivers pad rows. `None` where nobody knows.
    pub(super) fn stride(&self) -> Option<u32> {
        let format = self.device.format().ok()?;
        (format.stride > 0).then_some(format.stride)
    }

    pub(super) fn format(&self) -> (FrameFormat, VideoMode) {
        (self.format, self.mode)
    }
}

/// Tells a driver that has no picture yet from one that failed.
fn not_yet(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => {
            std::thread::sleep(NOT_READY);
            Ok(())
        }
        _ => Err(error),
    }
}

/// Pictures a second, rounded.
fn whole(interval: Fraction) -> u32 {
    (interval.denominator + interval.numerator / 2).checked_div(interval.numerator).unwrap_or(30).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_rounded() {
        for (numerator, denominator, fps) in
            [(1, 30, 30), (1001, 30_000, 30), (1001, 60_000, 60), (2, 15, 8), (0, 5, 30)]
        {
            assert_eq!(whole(Fraction::new(numerator, denominator)), fps, "{numerator}/{denominator}");
        }
    }
    #[test]
    fn a_camera_is_known_by_its_socket() {
        for (link, wanted) in [
            (
                "../../devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.4/1-2.4:1.0/video4linux/video3",
                "0000:00:14.0-2.4:1.0",
            ),
            ("../../devices/pci0000:00/0000:00:1f.3/video4linux/video0", "0000:00:1f.3"),
            ("../../devices/platform/vivid.0/video4linux/video1", "vivid.0"),
            ("../../devices/virtual/video4linux/video9", "virtual"),
        ] {
            assert_eq!(socket(Path::new(link)).as_deref(), Some(wanted), "{link}");
        }
    }

    #[test]
    fn a_mode_that_nokhwa_does_not_see_is_tried_before_the_one_it_took() {
        let mode = |width, height, numerator, denominator| {
            let interval = Fraction::new(numerator, denominator);
            (CameraFormat::new(Resolution::new(width, height), FrameFormat::YUYV, whole(interval)), interval)
        };
        let (odd, slow, small) = (mode(1280, 720, 1001, 30_000), mode(1280, 720, 1, 10), mode(640, 360, 1, 30));
        let order = |offered: &[_], negotiated: (CameraFormat, Fraction)| {
            in_order(offered, VideoMode::DEFAULT, Some(negotiated.0))
                .iter()
                .map(|(format, _)| *format)
                .collect::<Vec<_>>()
        };
        assert_eq!(order(&[slow, odd], slow), [odd.0, slow.0]);
        // It refused the whole one that is better; what it took is what it gets.
        let whole = mode(1280, 720, 1, 30);
        assert_eq!(order(&[whole, slow, small], slow), [slow.0, small.0]);
        // Rates that differ by their thousandth are one.
        assert_eq!(order(&[whole, odd], whole), [whole.0]);
    }
}
