//! V4L2 without `nokhwa`, for what that does not say or does not take: how far apart the rows of a picture are, and cameras whose
//! rates are no whole numbers (29.97 of capture cards).

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

use super::{DeviceError, Node, lost, nearest};
use crate::media::video::source::VideoMode;

/// A camera that gives nothing for this long is read anew by whoever watches over it.
const TIMEOUT: Duration = Duration::from_millis(1_500);
const BUFFERS: u32 = 4;

const KNOWN: [(&[u8; 4], FrameFormat); 6] = [
    (b"NV12", FrameFormat::NV12),
    (b"YUYV", FrameFormat::YUYV),
    (b"MJPG", FrameFormat::MJPEG),
    (b"RGB3", FrameFormat::RAWRGB),
    (b"BGR3", FrameFormat::RAWBGR),
    (b"GREY", FrameFormat::GRAY),
];

/// Bytes from one row to the next of the pictures that the camera gives now; `None` where nobody knows.
pub(super) fn stride(node: &Node) -> Option<u32> {
    let format = device(node).ok()?.format().ok()?;
    (format.stride > 0).then_some(format.stride)
}

/// A camera that is read directly.
pub(super) struct Direct {
    device: Device,
    stream: Option<Stream<'static>>,
    format: FrameFormat,
    mode: VideoMode,
}

fn device(node: &Node) -> std::io::Result<Device> {
    Device::new(usize::try_from(node.number).unwrap_or(usize::MAX))
}

impl Direct {
    /// Opens a node at the mode nearest to `mode`; it does not stream yet.
    pub(super) fn open(node: &Node, mode: VideoMode) -> Result<Self, DeviceError> {
        let failed = |error: std::io::Error| DeviceError::of_system(&node.name, error.to_string());
        let device = device(node).map_err(failed)?;
        let mut modes: Vec<(CameraFormat, Fraction)> = Vec::new();
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
                for interval in device.enum_frameintervals(fourcc, width, height).unwrap_or_default() {
                    let interval = match interval.interval {
                        FrameIntervalEnum::Discrete(interval) => interval,
                        FrameIntervalEnum::Stepwise(_) => Fraction::new(1, mode.fps),
                    };
                    modes.push((CameraFormat::new(Resolution::new(width, height), format, whole(interval)), interval));
                }
            }
        }
        let offered = modes.iter().map(|(format, _)| *format).collect();
        for wanted in nearest(offered, mode).into_iter().take(4) {
            let Some((name, _)) = KNOWN.iter().find(|(_, format)| *format == wanted.format()) else { continue };
            let Some((_, interval)) = modes.iter().find(|(format, _)| *format == wanted) else { continue };
            let asked = Format::new(wanted.width(), wanted.height(), FourCC::new(name));
            let given = device.set_format(&asked).map_err(failed)?;
            if given.fourcc != asked.fourcc || given.width < 2 || given.height < 2 {
                continue;
            }
            // Drivers with one rate only need not take one.
            let fps = device.set_params(&Parameters::new(*interval)).map_or(wanted.frame_rate(), |p| whole(p.interval));
            let mode = VideoMode { width: given.width, height: given.height, fps };
            return Ok(Self { device, stream: None, format: wanted.format(), mode });
        }
        Err(lost(&node.name, "it offers no format that is understood"))
    }

    /// Begins to stream: the first picture is asked for.
    pub(super) fn start(&mut self) -> std::io::Result<()> {
        let mut stream = Stream::with_buffers(&self.device, Type::VideoCapture, BUFFERS)?;
        stream.set_timeout(TIMEOUT);
        self.stream = Some(stream);
        Ok(())
    }

    /// The next picture as the camera gives it; waits for it, but not for ever.
    pub(super) fn frame(&mut self) -> std::io::Result<&[u8]> {
        let stream = self.stream.as_mut().ok_or_else(|| std::io::Error::other("it does not stream"))?;
        let (data, about) = stream.next()?;
        Ok(data.get(..about.bytesused as usize).filter(|d| !d.is_empty()).unwrap_or(data))
    }

    /// Stops the stream.
    pub(super) fn stop(&mut self) {
        self.stream = None;
    }

    pub(super) fn format(&self) -> FrameFormat {
        self.format
    }

    pub(super) fn mode(&self) -> VideoMode {
        self.mode
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
}
