//! Pictures as RGB, for where the processor draws: band by band, since a whole picture beside the one that is drawn from is
//! memory for nothing, and half as wide and high where a picture is drawn so small that nobody sees a difference.

use yuv::{YuvError, YuvPlanarImage, YuvRange, YuvStandardMatrix};

use crate::media::video::frame::VideoFrame;

/// Rows of a band: what the next step reads is still in the processor's cache.
const ROWS: usize = 64;

/// Memory that is used again and again.
#[derive(Default)]
pub(super) struct Bands {
    rgb: Vec<u8>,
    luma: Vec<u8>,
}

/// Width and height in pixels of what [`Bands::each`] gives.
pub(super) fn size(frame: &VideoFrame, halved: bool) -> (u32, u32) {
    let divisor = if halved { 2 } else { 1 };
    (frame.width / divisor, frame.height / divisor)
}

impl Bands {
    /// Gives `frame` in bands from the top as RGBA, or BGRA, each with its first row and its number of rows. `None` when the
    /// planes are too short.
    pub(super) fn each(
        &mut self,
        frame: &VideoFrame,
        halved: bool,
        bgra: bool,
        mut band: impl FnMut(u32, u32, &[u8]),
    ) -> Option<()> {
        let width = frame.width as usize;
        let (out_width, out_height) = size(frame, halved);
        // Luma rows of a band are even in number: two have one row of color differences.
        let luma_rows = if halved { 2 * ROWS } else { ROWS };
        let mut first = 0;
        while first < out_height {
            let rows = (ROWS as u32).min(out_height - first);
            let from = first as usize * if halved { 2 } else { 1 };
            let luma_rows = luma_rows.min(frame.height as usize - from);
            let luma = frame.y.get(from * width..(from + luma_rows) * width)?;
            let color = from / 2 * (width / 2)..(from + luma_rows) / 2 * (width / 2);
            let (u_plane, v_plane) = (frame.u.get(color.clone())?, frame.v.get(color)?);
            self.rgb.resize(out_width as usize * rows as usize * 4, 0);
            let planes = |y_plane| YuvPlanarImage {
                y_plane,
                y_stride: out_width,
                u_plane,
                u_stride: frame.width / 2,
                v_plane,
                v_stride: frame.width / 2,
                width: out_width,
                height: rows,
            };
            let (range, matrix, stride) = (YuvRange::Limited, YuvStandardMatrix::Bt601, out_width * 4);
            let converted: Result<(), YuvError> = if halved {
                halve(luma, width, &mut self.luma);
                let convert = if bgra { yuv::yuv444_to_bgra } else { yuv::yuv444_to_rgba };
                convert(&planes(&self.luma), &mut self.rgb, stride, range, matrix)
            } else {
                let convert = if bgra { yuv::yuv420_to_bgra } else { yuv::yuv420_to_rgba };
                convert(&planes(luma), &mut self.rgb, stride, range, matrix)
            };
            converted.ok()?;
            band(first, rows, &self.rgb);
            first += rows;
        }
        Some(())
    }
}

/// Means of squares of four pixels.
fn halve(luma: &[u8], width: usize, out: &mut Vec<u8>) {
    out.clear();
    for pair in luma.chunks_exact(2 * width) {
        let (upper, lower) = pair.split_at(width);
        out.extend(upper.chunks_exact(2).zip(lower.chunks_exact(2)).map(|(a, b)| {
            let sum: u16 = a.iter().chain(b).map(|pixel| u16::from(*pixel)).sum();
            ((sum + 2) / 4) as u8
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32) -> VideoFrame {
        let mut frame = VideoFrame::black(width, height);
        for (i, pixel) in frame.y.iter_mut().enumerate() {
            *pixel = (i * 7 % 219) as u8 + 16;
        }
        for (i, (u, v)) in frame.u.iter_mut().zip(&mut frame.v).enumerate() {
            (*u, *v) = ((i * 3 % 224) as u8 + 16, (i * 5 % 224) as u8 + 16);
        }
        frame
    }

    fn whole(frame: &VideoFrame, halved: bool, bgra: bool) -> Vec<u8> {
        let (mut bands, mut out) = (Bands::default(), Vec::new());
        let (width, height) = size(frame, halved);
        bands
            .each(frame, halved, bgra, |first, rows, bytes| {
                assert_eq!(first as usize * width as usize * 4, out.len());
                assert_eq!(rows as usize * width as usize * 4, bytes.len());
                out.extend_from_slice(bytes);
            })
            .expect("converted");
        assert_eq!(out.len(), width as usize * height as usize * 4);
        out
    }

    #[test]
    fn bands_make_the_same_picture_as_one_conversion() {
        // The last band is whole, cut off, and the only one.
        for (width, height) in [(1280, 128), (642, 362), (2, 2)] {
            let frame = picture(width, height);
            for bgra in [false, true] {
                let planes = YuvPlanarImage {
                    y_plane: &frame.y,
                    y_stride: width,
                    u_plane: &frame.u,
                    u_stride: width / 2,
                    v_plane: &frame.v,
                    v_stride: width / 2,
                    width,
                    height,
                };
                let mut once = vec![0; (width * height * 4) as usize];
                let convert = if bgra { yuv::yuv420_to_bgra } else { yuv::yuv420_to_rgba };
                convert(&planes, &mut once, width * 4, YuvRange::Limited, YuvStandardMatrix::Bt601).expect("converted");
                assert!(whole(&frame, false, bgra) == once, "{width}x{height} {bgra}");
            }
        }
    }

    #[test]
    fn half_a_picture_has_the_means_of_its_pixels() {
        // 642 × 362 halved has odd sides.
        for (width, height) in [(1280, 720), (642, 362), (2, 2)] {
            let frame = picture(width, height);
            // The same picture with each square in one color: every second pixel of it is what is looked for.
            let mut flat = VideoFrame {
                y: frame.y.clone(),
                u: frame.u.clone(),
                v: frame.v.clone(),
                ..VideoFrame::black(width, height)
            };
            for y in 0..height as usize {
                for x in 0..width as usize {
                    let at = |dx, dy| u32::from(frame.y[(y / 2 * 2 + dy) * width as usize + x / 2 * 2 + dx]);
                    flat.y[y * width as usize + x] = ((at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) / 4) as u8;
                }
            }
            let large = whole(&flat, false, false);
            let half = whole(&frame, true, false);
            for (n, pixel) in half.chunks_exact(4).enumerate() {
                let (x, y) = (n % (width as usize / 2) * 2, n / (width as usize / 2) * 2);
                let there = &large[(y * width as usize + x) * 4..][..4];
                let off = pixel.iter().zip(there).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(off <= Some(1), "{width}x{height} at {x},{y}: {pixel:?} {there:?}");
            }
        }
    }

    #[test]
    fn planes_that_are_short_are_refused() {
        for halved in [false, true] {
            let mut frame = picture(64, 200);
            frame.u.pop();
            assert!(Bands::default().each(&frame, halved, false, |_, _, _| {}).is_none());
            let mut frame = picture(64, 200);
            frame.y.pop();
            assert!(Bands::default().each(&frame, halved, false, |_, _, _| {}).is_none());
        }
    }
}
