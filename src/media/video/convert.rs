//! Pixel formats of cameras and screens to I420, and I420 to RGBA for snapshots. BT.601 limited range throughout.

use yuv::{
    BufferStoreMut, YuvConversionMode, YuvError, YuvPackedImage, YuvPlanarImage, YuvPlanarImageMut, YuvRange,
    YuvStandardMatrix,
};

use super::frame::VideoFrame;

/// A buffer that cannot hold the picture it claims to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the picture's data do not fit its size: {0}")]
pub struct ConvertError(String);

impl From<YuvError> for ConvertError {
    fn from(error: YuvError) -> Self {
        Self(error.to_string())
    }
}

/// Layouts that [`to_i420`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PixelFormat {
    /// Y0 U Y1 V, 4:2:2.
    Yuyv,
    /// Luma plane, then interleaved U V at half size.
    Nv12,
    /// Three planes, 4:2:0.
    I420,
    /// Luma only.
    Gray,
    /// R G B.
    Rgb,
    /// B G R.
    Bgr,
    /// B G R and one byte of anything.
    Bgra,
    /// R G B and one byte of anything.
    Rgba,
}

impl PixelFormat {
    /// Bytes of a picture with tight rows.
    pub fn byte_len(self, width: u32, height: u32) -> usize {
        let pixels = width as usize * height as usize;
        match self {
            Self::Yuyv => pixels * 2,
            Self::Nv12 | Self::I420 => pixels + 2 * (width as usize).div_ceil(2) * (height as usize).div_ceil(2),
            Self::Gray => pixels,
            Self::Rgb | Self::Bgr => pixels * 3,
            Self::Bgra | Self::Rgba => pixels * 4,
        }
    }

    pub(super) fn row_bytes(self, width: u32) -> u32 {
        match self {
            Self::Yuyv => width * 2,
            Self::Nv12 | Self::I420 | Self::Gray => width,
            Self::Rgb | Self::Bgr => width * 3,
            Self::Bgra | Self::Rgba => width * 4,
        }
    }
}

/// Converts a picture of `source_width × source_height` with tight rows into `frame`.
///
/// Drivers hand out more bytes than a picture has (rounded up buffers): the tail is ignored. A source with an odd width
/// or height loses its last column or row, since `frame` has even sizes.
pub fn to_i420(
    frame: &mut VideoFrame,
    format: PixelFormat,
    source_width: u32,
    source_height: u32,
    data: &[u8],
) -> Result<(), ConvertError> {
    to_i420_strided(frame, format, source_width, source_height, format.row_bytes(source_width), data)
}

/// Like [`to_i420`] for rows that are `stride` bytes apart (padding at their end).
pub fn to_i420_strided(
    frame: &mut VideoFrame,
    format: PixelFormat,
    source_width: u32,
    source_height: u32,
    stride: u32,
    data: &[u8],
) -> Result<(), ConvertError> {
    let (width, height) = (frame.width, frame.height);
    if !frame.is_consistent() || width > source_width || height > source_height {
        return Err(ConvertError(format!("{source_width}x{source_height} into {width}x{height}")));
    }
    let rows = source_height as usize * stride as usize;
    let short = || ConvertError(format!("{} bytes for {format:?} {source_width}x{source_height}", data.len()));
    let (range, matrix) = (YuvRange::Limited, YuvStandardMatrix::Bt601);
    match format {
        PixelFormat::Yuyv => {
            let packed = YuvPackedImage { yuy: data.get(..rows).ok_or_else(short)?, yuy_stride: stride, width, height };
            // The crate wants the packed buffer to end with the picture.
            let used = height as usize * stride as usize;
            let packed = YuvPackedImage { yuy: packed.yuy.get(..used).ok_or_else(short)?, ..packed };
            yuv::yuyv422_to_yuv420(&mut planes(frame), &packed)?;
        }
        PixelFormat::Rgb | PixelFormat::Bgr | PixelFormat::Bgra | PixelFormat::Rgba => {
            // The last row may end with its last pixel; the crate checks that it is there.
            let used = data.get(..(height as usize * stride as usize).min(data.len())).ok_or_else(short)?;
            let mode = YuvConversionMode::Balanced;
            let mut target = planes(frame);
            match format {
                PixelFormat::Rgb => yuv::rgb_to_yuv420(&mut target, used, stride, range, matrix, mode)?,
                PixelFormat::Bgr => yuv::bgr_to_yuv420(&mut target, used, stride, range, matrix, mode)?,
                PixelFormat::Rgba => yuv::rgba_to_yuv420(&mut target, used, stride, range, matrix, mode)?,
                _ => yuv::bgra_to_yuv420(&mut target, used, stride, range, matrix, mode)?,
            }
        }
        PixelFormat::Gray => {
            let luma = data.get(..rows).ok_or_else(short)?;
            copy_rows(&mut frame.y, width, luma, stride);
            frame.u.fill(128);
            frame.v.fill(128);
        }
        PixelFormat::Nv12 => {
            let luma = data.get(..rows).ok_or_else(short)?;
            copy_rows(&mut frame.y, width, luma, stride);
            let chroma = data.get(rows..rows + stride as usize * (height as usize / 2)).ok_or_else(short)?;
            let half = width as usize / 2;
            let targets = frame.u.chunks_exact_mut(half).zip(frame.v.chunks_exact_mut(half));
            for ((u, v), row) in targets.zip(chroma.chunks_exact(stride as usize)) {
                for ((u, v), pair) in u.iter_mut().zip(v.iter_mut()).zip(row.chunks_exact(2)) {
                    if let [cb, cr] = pair {
                        *u = *cb;
                        *v = *cr;
                    }
                }
            }
        }
        PixelFormat::I420 => {
            let luma = data.get(..rows).ok_or_else(short)?;
            copy_rows(&mut frame.y, width, luma, stride);
            let half_stride = stride.div_ceil(2);
            let half_rows = (source_height as usize).div_ceil(2) * half_stride as usize;
            let u = data.get(rows..rows + half_rows).ok_or_else(short)?;
            let v = data.get(rows + half_rows..rows + 2 * half_rows).ok_or_else(short)?;
            copy_rows(&mut frame.u, width / 2, u, half_stride);
            copy_rows(&mut frame.v, width / 2, v, half_stride);
        }
    }
    Ok(())
}

/// Draws `pixels` (rows of `width`, alpha in the top byte, red, green and blue multiplied by it) over the picture with its
/// left upper corner at `(left, top)`; what lies outside is left away.
pub fn blend(frame: &mut VideoFrame, (left, top): (i32, i32), width: u32, pixels: &[u32]) {
    let Ok(row_length) = usize::try_from(width) else { return };
    if row_length == 0 || !frame.is_consistent() {
        return;
    }
    let (frame_width, frame_height) = (frame.width, frame.height);
    for (row, line) in (0i32..).zip(pixels.chunks_exact(row_length)) {
        for (column, pixel) in (0i32..).zip(line) {
            let (Ok(x), Ok(y)) = (u32::try_from(left + column), u32::try_from(top + row)) else { continue };
            let [alpha, red, green, blue] = pixel.to_be_bytes().map(i32::from);
            if alpha == 0 || x >= frame_width || y >= frame_height {
                continue;
            }
            // BT.601, limited range; the colors carry their alpha already, the offsets still lack theirs.
            let luma = (66 * red + 129 * green + 25 * blue) / 256 + 16 * alpha / 255;
            let over = |under: &mut u8, value: i32| {
                *under = (value + i32::from(*under) * (255 - alpha) / 255).clamp(0, 255) as u8;
            };
            if let Some(under) = frame.y.get_mut((y * frame_width + x) as usize) {
                over(under, luma);
            }
            // One color for four points: that of the left upper one.
            if x % 2 == 0 && y % 2 == 0 {
                let at = (y / 2 * (frame_width / 2) + x / 2) as usize;
                let cb = (-38 * red - 74 * green + 112 * blue) / 256 + 128 * alpha / 255;
                let cr = (112 * red - 94 * green - 18 * blue) / 256 + 128 * alpha / 255;
                if let Some(under) = frame.u.get_mut(at) {
                    over(under, cb);
                }
                if let Some(under) = frame.v.get_mut(at) {
                    over(under, cr);
                }
            }
        }
    }
}

/// I420 in full range (JPEG) squeezed into the limited range that codecs expect.
pub fn full_to_limited(frame: &mut VideoFrame) {
    let luma: [u8; 256] = std::array::from_fn(|i| u8::try_from(16 + (i * 219 + 127) / 255).unwrap_or(235));
    let chroma: [u8; 256] =
        std::array::from_fn(|i| u8::try_from((128 * 255 + i * 224 + 127 - 128 * 224) / 255).unwrap_or(240));
    let map = |plane: &mut [u8], table: &[u8; 256]| {
        for pixel in plane {
            *pixel = table.get(usize::from(*pixel)).copied().unwrap_or(*pixel);
        }
    };
    map(&mut frame.y, &luma);
    map(&mut frame.u, &chroma);
    map(&mut frame.v, &chroma);
}

/// RGBA, four bytes a pixel, tight rows: for snapshots and for drawing without our own shader.
pub fn to_rgba(frame: &VideoFrame) -> Result<Vec<u8>, ConvertError> {
    if !frame.is_consistent() {
        return Err(ConvertError(format!("{}x{}", frame.width, frame.height)));
    }
    let mut rgba = vec![255; frame.width as usize * frame.height as usize * 4];
    let image = YuvPlanarImage {
        y_plane: &frame.y,
        y_stride: frame.width,
        u_plane: &frame.u,
        u_stride: frame.width / 2,
        v_plane: &frame.v,
        v_stride: frame.width / 2,
        width: frame.width,
        height: frame.height,
    };
    yuv::yuv420_to_rgba(&image, &mut rgba, frame.width * 4, YuvRange::Limited, YuvStandardMatrix::Bt601)?;
    Ok(rgba)
}

fn planes(frame: &mut VideoFrame) -> YuvPlanarImageMut<'_, u8> {
    let VideoFrame { width, height, y, u, v, .. } = frame;
    YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(y),
        y_stride: *width,
        u_plane: BufferStoreMut::Borrowed(u),
        u_stride: *width / 2,
        v_plane: BufferStoreMut::Borrowed(v),
        v_stride: *width / 2,
        width: *width,
        height: *height,
    }
}

fn copy_rows(target: &mut [u8], width: u32, source: &[u8], stride: u32) {
    super::codec::copy_plane(target, source, width as usize, stride as usize);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A solid colour in every layout must come out as the same YUV, give or take rounding.
    #[test]
    fn every_layout_gives_the_same_colour() {
        // RGB (200, 60, 30) in BT.601 limited range: Y 100.6, U 94.1, V 191.6.
        let (width, height) = (64u32, 48u32);
        let pixels = (width * height) as usize;
        let yuyv = [100u8, 94, 100, 192].repeat(pixels / 2);
        let nv12 = [vec![100u8; pixels], [94u8, 192].repeat(pixels / 4)].concat();
        let i420 = [vec![100u8; pixels], vec![94; pixels / 4], vec![192; pixels / 4]].concat();
        let rgb = [200u8, 60, 30].repeat(pixels);
        let bgr = [30u8, 60, 200].repeat(pixels);
        let bgra = [30u8, 60, 200, 9].repeat(pixels);
        for (format, data) in [
            (PixelFormat::Yuyv, yuyv),
            (PixelFormat::Nv12, nv12),
            (PixelFormat::I420, i420),
            (PixelFormat::Rgb, rgb),
            (PixelFormat::Bgr, bgr),
            (PixelFormat::Bgra, bgra),
        ] {
            assert_eq!(data.len(), format.byte_len(width, height), "{format:?}");
            let mut frame = VideoFrame::black(width, height);
            // Drivers add a tail.
            let padded = [data.clone(), vec![7; 4096]].concat();
            to_i420(&mut frame, format, width, height, &padded).expect("converted");
            for (plane, wanted) in [(&frame.y, 100u8), (&frame.u, 94), (&frame.v, 192)] {
                assert!(plane.iter().all(|p| p.abs_diff(wanted) <= 3), "{format:?} {wanted} {:?}", plane.first());
            }
            let short = data.get(..data.len() - 1).expect("short");
            assert!(to_i420(&mut frame, format, width, height, short).is_err(), "{format:?}");
        }
    }

    #[test]
    fn padding_at_the_end_of_rows_is_left_out() {
        let (width, height, stride) = (32u32, 4u32, 40u32);
        let row: Vec<u8> = (0..stride).map(|x| if x < width { 100 } else { 250 }).collect();
        let mut frame = VideoFrame::black(width, height);
        to_i420_strided(&mut frame, PixelFormat::Gray, width, height, stride, &row.repeat(height as usize))
            .expect("converted");
        assert!(frame.y.iter().all(|p| *p == 100));
    }

    #[test]
    fn odd_sources_lose_a_column_and_a_row() {
        let mut frame = VideoFrame::black(32, 16);
        let data: Vec<u8> = (0..33 * 17).map(|i| (i % 33) as u8).collect();
        to_i420(&mut frame, PixelFormat::Gray, 33, 17, &data).expect("converted");
        assert_eq!(frame.y.get(..32), data.get(..32));
        assert_eq!(frame.y.get(32..64), data.get(33..65));
    }

    #[test]
    fn rgba_has_the_colours_of_the_picture() {
        let mut frame = VideoFrame::black(16, 16);
        frame.y.fill(100);
        frame.u.fill(94);
        frame.v.fill(192);
        let rgba = to_rgba(&frame).expect("rgba");
        assert_eq!(rgba.len(), 16 * 16 * 4);
        for pixel in rgba.chunks_exact(4) {
            for (value, wanted) in pixel.iter().zip([200u8, 60, 30, 255]) {
                assert!(value.abs_diff(wanted) <= 4, "{pixel:?}");
            }
        }
    }

    #[test]
    fn full_range_is_squeezed() {
        let mut frame = VideoFrame::black(2, 2);
        frame.y.copy_from_slice(&[0, 255, 128, 0]);
        frame.u.copy_from_slice(&[0]);
        frame.v.copy_from_slice(&[255]);
        full_to_limited(&mut frame);
        assert_eq!(frame.y, [16, 235, 126, 16]);
        assert_eq!((frame.u.clone(), frame.v.clone()), (vec![16], vec![240]));
    }
}
