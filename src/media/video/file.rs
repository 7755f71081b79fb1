//! Pictures from a file, looped: y4m, ivf (VP8) and mjpeg (JPEG after JPEG).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::capture::{PictureSource, SourceEnd};
use super::codec::{CodecError, FrameStamp, MAX_DIMENSION, VideoCodec, VideoDecoder, new_decoder};
use super::convert::{self, PixelFormat, full_to_limited};
use super::frame::{FramePool, VideoFrame};
use super::source::VideoMode;

/// mjpeg files say no frame rate; this is what cameras that write them use.
const MJPEG_FPS: u32 = 30;
/// mjpeg is held in memory up to this size.
const MJPEG_LIMIT: u64 = 256 << 20;
/// A single compressed picture larger than this is a broken file.
const FRAME_LIMIT: usize = 32 << 20;

/// Why a file cannot be played. The text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The content is not what the reader knows.
    #[error("{path}: {detail}")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// A file as a camera.
pub struct FileSource {
    path: PathBuf,
    mode: VideoMode,
    kind: Kind,
}

enum Kind {
    Y4m { file: BufReader<File>, first_frame: u64, full_range: bool, mono: bool, buffer: Vec<u8> },
    Ivf { file: BufReader<File>, first_frame: u64, decoder: Box<dyn VideoDecoder>, buffer: Vec<u8> },
    Mjpeg { data: Vec<u8>, frames: Vec<(usize, usize)>, next: usize },
}

impl FileSource {
    /// Opens a file; its kind is recognised by its content.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let io = |source| FileError::Io { path: path.to_owned(), source };
        let format = |detail: String| FileError::Format { path: path.to_owned(), detail };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let head = file.fill_buf().map_err(io)?;
        let (mode, kind) = if head.starts_with(b"YUV4MPEG2 ") {
            open_y4m(file).map_err(format)?
        } else if head.starts_with(b"DKIF") {
            open_ivf(file).map_err(format)?
        } else if head.starts_with(&[0xff, 0xd8]) {
            open_mjpeg(file).map_err(format)?
        } else {
            return Err(format("neither y4m, ivf nor mjpeg".into()));
        };
        Ok(Self { path: path.to_owned(), mode, kind })
    }

    fn next_picture(&mut self, pool: &mut FramePool) -> Result<Option<Arc<VideoFrame>>, String> {
        let VideoMode { width, height, .. } = self.mode;
        match &mut self.kind {
            Kind::Y4m { file, first_frame, full_range, mono, buffer } => {
                if !y4m_frame(file, buffer)? {
                    file.seek(SeekFrom::Start(*first_frame)).map_err(|e| e.to_string())?;
                    if !y4m_frame(file, buffer)? {
                        return Err("no picture in it".into());
                    }
                }
                let format = if *mono { PixelFormat::Gray } else { PixelFormat::I420 };
                let full_range = *full_range;
                pool.draw(width, height, |frame| {
                    convert::to_i420(frame, format, width, height, buffer).map_err(|e| e.to_string())?;
                    if full_range {
                        full_to_limited(frame);
                    }
                    stamp(frame);
                    Ok(())
                })
                .map(Some)
            }
            Kind::Ivf { file, first_frame, decoder, buffer } => {
                if !ivf_frame(file, buffer)? {
                    file.seek(SeekFrom::Start(*first_frame)).map_err(|e| e.to_string())?;
                    if !ivf_frame(file, buffer)? {
                        return Err("no picture in it".into());
                    }
                }
                let now = FrameStamp { at: Instant::now(), rtp_timestamp: 0 };
                match decoder.decode(buffer, pool, now) {
                    Ok(picture) => Ok(picture),
                    // One damaged frame in a file is no reason to stop: the next key frame mends it.
                    Err(CodecError::Corrupt(_)) => Ok(None),
                    Err(error) => Err(error.to_string()),
                }
            }
            Kind::Mjpeg { data, frames, next } => {
                let Some((from, to)) = frames.get(*next % frames.len().max(1)).copied() else {
                    return Err("no picture in it".into());
                };
                *next = (*next + 1) % frames.len();
                decode_jpeg(data.get(from..to).unwrap_or_default(), pool).map(Some)
            }
        }
    }
}

fn stamp(frame: &mut VideoFrame) {
    frame.at = Instant::now();
    frame.rtp_timestamp = 0;
}

impl PictureSource for FileSource {
    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn mode(&self) -> VideoMode {
        self.mode
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let failed = |detail| SourceEnd::Failed { key: "dev.file", detail };
        // A frame that gives no picture is followed by one that does; a file without any is broken.
        for _ in 0..300 {
            if let Some(picture) = self.next_picture(pool).map_err(failed)? {
                return Ok(picture);
            }
        }
        Err(failed("no picture in it".into()))
    }
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    let fits = |d: u32| (2..=MAX_DIMENSION).contains(&d);
    if fits(width) && fits(height) { Ok(()) } else { Err(format!("size {width}x{height} is not possible")) }
}

fn rate(numerator: u32, denominator: u32) -> u32 {
    ((f64::from(numerator) / f64::from(denominator.max(1))).round() as u32).clamp(1, 120)
}

fn open_y4m(mut file: BufReader<File>) -> Result<(VideoMode, Kind), String> {
    let header = read_line(&mut file)?.ok_or("no header")?;
    let (mut width, mut height, mut fps, mut full_range, mut mono) = (0, 0, 30, false, false);
    for word in header.split(' ').skip(1) {
        let mut characters = word.chars();
        let tag = characters.next();
        let value = characters.as_str();
        match tag {
            Some('W') => width = value.parse().unwrap_or(0),
            Some('H') => height = value.parse().unwrap_or(0),
            Some('F') => {
                let (n, d) = value.split_once(':').ok_or("bad frame rate")?;
                fps = rate(n.parse().unwrap_or(30), d.parse().unwrap_or(1));
            }
            Some('C') => match value {
                "420" | "420jpeg" | "420mpeg2" | "420paldv" => {}
                "mono" => mono = true,
                other => return Err(format!("colour format {other}: only 4:2:0 with 8 bits and mono can be read")),
            },
            Some('X') if value == "COLORRANGE=FULL" => full_range = true,
            _ => {}
        }
    }
    check_size(width, height)?;
    let first_frame = file.stream_position().map_err(|e| e.to_string())?;
    let format = if mono { PixelFormat::Gray } else { PixelFormat::I420 };
    let buffer = vec![0; format.byte_len(width, height)];
    let mode = VideoMode { width, height, fps };
    Ok((mode, Kind::Y4m { file, first_frame, full_range, mono, buffer }))
}

/// A header line without its end; `None` at the end of the file. No header of ours is longer than 256 bytes.
fn read_line(file: &mut BufReader<File>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    file.take(257).read_until(b'\n', &mut line).map_err(|e| e.to_string())?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(String::from_utf8_lossy(&line).into_owned())),
        Some(_) => Err("damaged header".into()),
    }
}

/// Reads the next frame into `buffer`; `false` at the end, also at a last frame that is cut off.
fn y4m_frame(file: &mut BufReader<File>, buffer: &mut [u8]) -> Result<bool, String> {
    match read_line(file)? {
        Some(line) if line.starts_with("FRAME") => read_all(file, buffer),
        Some(_) => Err("damaged frame header".into()),
        None => Ok(false),
    }
}

fn read_all(file: &mut BufReader<File>, buffer: &mut [u8]) -> Result<bool, String> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e.to_string()),
    }
}

fn open_ivf(mut file: BufReader<File>) -> Result<(VideoMode, Kind), String> {
    let mut header = [0u8; 32];
    if !read_all(&mut file, &mut header)? {
        return Err("no header".into());
    }
    // DKIF, version, header length, fourcc, width, height, rate, scale, frames, unused; all little endian.
    let half = |at: usize| header.get(at..at + 2).map_or(0, |b| b.iter().rev().fold(0, |n, b| n << 8 | u32::from(*b)));
    let word = |at: usize| half(at) | half(at + 2) << 16;
    if header.get(8..12) != Some(b"VP80".as_slice()) {
        return Err("only VP8 can be read".into());
    }
    let (width, height) = (half(12), half(14));
    check_size(width, height)?;
    let fps = rate(word(16), word(20));
    let first_frame = u64::from(half(6)).max(32);
    file.seek(SeekFrom::Start(first_frame)).map_err(|e| e.to_string())?;
    let decoder = new_decoder(VideoCodec::Vp8).map_err(|e| e.to_string())?;
    Ok((VideoMode { width, height, fps }, Kind::Ivf { file, first_frame, decoder, buffer: Vec::new() }))
}

fn ivf_frame(file: &mut BufReader<File>, buffer: &mut Vec<u8>) -> Result<bool, String> {
    let mut header = [0u8; 12];
    if !read_all(file, &mut header)? {
        return Ok(false);
    }
    let [a, b, c, d, ..] = header;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > FRAME_LIMIT {
        return Err(format!("a frame of {length} bytes"));
    }
    buffer.resize(length, 0);
    read_all(file, buffer)
}

fn open_mjpeg(mut file: BufReader<File>) -> Result<(VideoMode, Kind), String> {
    let length = file.get_ref().metadata().map_err(|e| e.to_string())?.len();
    if length > MJPEG_LIMIT {
        return Err(format!("larger than {} MB", MJPEG_LIMIT >> 20));
    }
    let mut data = Vec::new();
    file.read_to_end(&mut data).map_err(|e| e.to_string())?;
    let frames = split_jpegs(&data);
    let (from, to) = *frames.first().ok_or("no picture in it")?;
    let mut first = JpegDecoder::new(ZCursor::new(data.get(from..to).unwrap_or_default()));
    first.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = first.dimensions().ok_or("no size")?;
    let (width, height) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
    check_size(width, height)?;
    Ok((VideoMode { width, height, fps: MJPEG_FPS }, Kind::Mjpeg { data, frames, next: 0 }))
}

/// Where each JPEG of a file begins and ends. Segments are skipped by their length: a thumbnail inside of one has an end
/// mark of its own.
fn split_jpegs(data: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while let Some(start) = find(data, at, 0xd8) {
        match jpeg_end(data, start) {
            Some(end) => {
                frames.push((start, end));
                at = end;
            }
            None => break,
        }
    }
    frames
}

/// Position of the next marker `ff second` at or after `from`.
fn find(data: &[u8], from: usize, second: u8) -> Option<usize> {
    let rest = data.get(from..)?;
    rest.windows(2).position(|w| w == [0xff, second]).map(|at| at + from)
}

fn jpeg_end(data: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 2;
    loop {
        let marker = match (*data.get(at)?, *data.get(at + 1)?) {
            (0xff, 0xff) => {
                at += 1;
                continue;
            }
            (0xff, marker) => marker,
            _ => return None,
        };
        match marker {
            0xd9 => return Some(at + 2),
            0x01 | 0xd0..=0xd7 => at += 2,
            _ => {
                let length = usize::from(*data.get(at + 2)?) << 8 | usize::from(*data.get(at + 3)?);
                at += 2 + length;
                if marker == 0xda {
                    // Picture data: up to the next marker that is neither a stuffed ff nor a restart.
                    loop {
                        match (*data.get(at)?, *data.get(at + 1)?) {
                            (0xff, 0x00 | 0xd0..=0xd7) => at += 2,
                            (0xff, 0xff) => at += 1,
                            (0xff, _) => break,
                            _ => at += 1,
                        }
                    }
                }
            }
        }
    }
}

/// The segment that tells the decoder to take the standard's Huffman tables: an APP0 of AVI's Motion JPEG.
const STANDARD_TABLES: &[u8] = b"\xff\xe0\x00\x10AVI1\0\0\0\0\0\0\0\0\0\0";

/// Whether a picture has no Huffman tables of its own. Most webcams leave out the standard ones, and not all say so.
fn lacks_tables(data: &[u8]) -> bool {
    let mut rest = data.get(2..).unwrap_or_default();
    loop {
        match *rest {
            [0xff, 0xc4, ..] => return false,
            [0xff, 0xda, ..] => return true,
            // Filling, and markers that stand alone.
            [0xff, 0xff, ..] => rest = rest.get(1..).unwrap_or_default(),
            [0xff, 0x01 | 0xd0..=0xd8, ..] => rest = rest.get(2..).unwrap_or_default(),
            [0xff, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                rest = rest.get(2 + length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
}

/// One JPEG (camera or file) to I420; bytes after its end are ignored.
pub(super) fn decode_jpeg(data: &[u8], pool: &mut FramePool) -> Result<Arc<VideoFrame>, String> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(MAX_DIMENSION as usize)
        .set_max_height(MAX_DIMENSION as usize);
    let marked;
    let data = if lacks_tables(data) {
        marked = [data.get(..2).unwrap_or_default(), STANDARD_TABLES, data.get(2..).unwrap_or_default()].concat();
        &marked
    } else {
        data
    };
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    let rgb = decoder.decode().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("no size")?;
    let (width, height) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
    check_size(width, height)?;
    pool.draw(width, height, |frame| {
        convert::to_i420(frame, PixelFormat::Rgb, width, height, &rgb).map_err(|e| e.to_string())?;
        stamp(frame);
        Ok(())
    })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
