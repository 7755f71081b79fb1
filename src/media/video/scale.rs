//! Pictures to another size, plane by plane.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

use super::frame::VideoFrame;

/// A picture could not be scaled; in practice a plane of the wrong length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot scale: {0}")]
pub struct ScaleError(String);

/// Scales; keeps its work buffers between pictures.
pub struct Scaler {
    resizer: Resizer,
    options: ResizeOptions,
}

impl std::fmt::Debug for Scaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scaler").finish_non_exhaustive()
    }
}

impl Default for Scaler {
    fn default() -> Self {
        // Convolution and not interpolation: when a picture shrinks by more than half, interpolation drops pixels and
        // fine lines flicker; the price is 0.2 ms at 720p.
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
        Self { resizer: Resizer::new(), options }
    }
}

impl Scaler {
    /// A scaler.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `source` into `target` at the target's size, filling it; times are taken over.
    pub fn scale(&mut self, source: &VideoFrame, target: &mut VideoFrame) -> Result<(), ScaleError> {
        if !source.is_consistent() || !target.is_consistent() {
            return Err(ScaleError(format!(
                "{}x{} to {}x{}",
                source.width, source.height, target.width, target.height
            )));
        }
        let from = (source.width, source.height);
        let to = (target.width, target.height);
        let half = |(w, h): (u32, u32)| (w / 2, h / 2);
        self.plane(&source.y, from, &mut target.y, to)?;
        self.plane(&source.u, half(from), &mut target.u, half(to))?;
        self.plane(&source.v, half(from), &mut target.v, half(to))?;
        target.at = source.at;
        target.rtp_timestamp = source.rtp_timestamp;
        Ok(())
    }

    fn plane(&mut self, source: &[u8], from: (u32, u32), target: &mut [u8], to: (u32, u32)) -> Result<(), ScaleError> {
        if from == to && source.len() == target.len() {
            target.copy_from_slice(source);
            return Ok(());
        }
        let failed = |e: String| ScaleError(e);
        // Typed: the untyped way brings the code of every pixel type into the program, 3.5 MB.
        let source = TypedImageRef::<U8>::from_buffer(from.0, from.1, source).map_err(|e| failed(e.to_string()))?;
        let mut target = TypedImage::<U8>::from_buffer(to.0, to.1, target).map_err(|e| failed(e.to_string()))?;
        self.resizer.resize_typed(&source, &mut target, &self.options).map_err(|e| failed(e.to_string()))
    }
}

/// The largest even size of the same shape within `limit`; never larger than the picture itself.
pub fn fit_within((width, height): (u32, u32), limit: (u32, u32)) -> (u32, u32) {
    use super::frame::even_size;
    if width <= limit.0 && height <= limit.1 {
        return even_size(width, height);
    }
    let (w, h) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (lw, lh) = (u64::from(limit.0), u64::from(limit.1));
    let (tw, th) = if w * lh >= h * lw { (lw, h * lw / w) } else { (w * lh / h, lh) };
    even_size(u32::try_from(tw).unwrap_or(limit.0), u32::try_from(th).unwrap_or(limit.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_kept() {
        assert_eq!(fit_within((1280, 720), (640, 360)), (640, 360));
        assert_eq!(fit_within((640, 480), (640, 360)), (480, 360));
        assert_eq!(fit_within((720, 1280), (640, 360)), (202, 360));
        assert_eq!(fit_within((320, 180), (1280, 720)), (320, 180));
        assert_eq!(fit_within((641, 361), (1280, 720)), (640, 360));
        assert_eq!(fit_within((4000, 2), (640, 360)), (640, 2));
    }

    #[test]
    fn halves_keep_their_sides() {
        let mut source = VideoFrame::black(640, 360);
        source.rtp_timestamp = 42;
        for row in source.y.chunks_exact_mut(640) {
            row[320..].fill(235);
        }
        for row in source.u.chunks_exact_mut(320) {
            row[160..].fill(200);
        }
        let mut target = VideoFrame::black(320, 180);
        Scaler::new().scale(&source, &mut target).expect("scaled");
        assert_eq!((target.rtp_timestamp, target.at), (42, source.at));
        for row in target.y.chunks_exact(320) {
            assert!(row[..156].iter().all(|p| *p == 16) && row[164..].iter().all(|p| *p == 235));
        }
        for row in target.u.chunks_exact(160) {
            assert!(row[..78].iter().all(|p| *p == 128) && row[82..].iter().all(|p| *p == 200));
        }
    }

    #[test]
    fn a_picture_with_wrong_planes_is_refused() {
        let mut source = VideoFrame::black(64, 64);
        source.u.pop();
        assert!(Scaler::new().scale(&source, &mut VideoFrame::black(32, 32)).is_err());
    }
}
