//! The test picture: for people to judge, and for programs to read.
//!
//! The top twelfth is one row of 40 equal cells, white = 1, black = 0, most significant bit first: `1010`, 8 bits source ID,
//! 20 bits capture time (Unix time in ms modulo 2²⁰), CRC-8 over the 28 bits before it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crc::{CRC_8_SMBUS, Crc};

use super::frame::{VideoFrame, even_size};
use super::source::PatternSource;

/// Cells in the strip.
const CELLS: u32 = 40;
/// The strip is this part of the height.
const STRIP_PART: u32 = 12;
/// The capture time counts to here.
pub const TIME_MODULO_MS: u32 = 1 << 20;
/// CRC-8 with polynomial 0x07 and start 0, as the command line's page asks.
const CRC: Crc<u8> = Crc::<u8>::new(&CRC_8_SMBUS);

/// What the strip of one picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternReading {
    /// Source ID.
    pub id: u8,
    /// Capture time, Unix time in ms modulo [`TIME_MODULO_MS`].
    pub time_ms: u32,
    /// Whether the check sum fits; if not, the other two are noise.
    pub crc_ok: bool,
}

/// Unix time in ms.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis().try_into().unwrap_or(u64::MAX))
}

/// The 40 bits of the strip, in the low bits of the result.
pub fn strip_bits(id: u8, unix_ms: u64) -> u64 {
    let time = unix_ms % u64::from(TIME_MODULO_MS);
    let body = (u64::from(id) << 20) | time;
    (0b1010 << 36) | (body << 8) | u64::from(crc_of(body))
}

fn crc_of(body: u64) -> u8 {
    // 28 bits, padded with four zero bits in front: exactly a u32.
    CRC.checksum(&u32::try_from(body).unwrap_or(0).to_be_bytes())
}

/// Reads the strip; `None` if the picture does not begin with one.
pub fn read(frame: &VideoFrame) -> Option<PatternReading> {
    let (width, height) = (frame.width as usize, frame.height as usize);
    if frame.width < CELLS * 2 || frame.height < STRIP_PART * 2 || !frame.is_consistent() {
        return None;
    }
    let row_start = (height / (STRIP_PART as usize * 2)) * width;
    let row = frame.y.get(row_start..row_start + width)?;
    let mut bits = 0u64;
    let (mut lightest, mut darkest) = (0u8, 255u8);
    for cell in 0..CELLS as usize {
        let luma = *row.get((2 * cell + 1) * width / (2 * CELLS as usize))?;
        bits = (bits << 1) | u64::from(luma > 125);
        if cell < 4 {
            lightest = lightest.max(luma);
            darkest = darkest.min(luma);
        }
    }
    // The four fixed cells must be plainly black and white: one camera picture in sixteen would pass a mere threshold.
    if bits >> 36 != 0b1010 || lightest.saturating_sub(darkest) < 90 {
        return None;
    }
    let body = (bits >> 8) & 0x0fff_ffff;
    Some(PatternReading {
        id: u8::try_from(body >> 20).unwrap_or(0),
        time_ms: u32::try_from(body & u64::from(TIME_MODULO_MS - 1)).unwrap_or(0),
        crc_ok: u64::from(crc_of(body)) == bits & 0xff,
    })
}

/// How long ago `time_ms` was, with the wrap of the 20 bits undone.
pub fn age_ms(time_ms: u32, now_unix_ms: u64) -> u32 {
    let now = u32::try_from(now_unix_ms % u64::from(TIME_MODULO_MS)).unwrap_or(0);
    now.wrapping_sub(time_ms) % TIME_MODULO_MS
}

/// One colour in BT.601 limited range.
type Color = (u8, u8, u8);
const WHITE: Color = (235, 128, 128);
const BLACK: Color = (16, 128, 128);
const PANEL: Color = (40, 128, 128);
/// 75 % bars: white, yellow, cyan, green, magenta, red, blue.
const BARS: [Color; 7] =
    [(180, 128, 128), (162, 44, 142), (131, 156, 44), (112, 72, 58), (84, 184, 198), (65, 100, 212), (35, 212, 114)];

/// Draws the test picture of one source. Everything that stands still is drawn once.
#[derive(Debug)]
pub struct PatternPainter {
    source: PatternSource,
    backdrop: VideoFrame,
    last_second: u64,
}

impl PatternPainter {
    /// A painter for one source.
    pub fn new(source: PatternSource) -> Self {
        let (width, height) = even_size(source.mode.width, source.mode.height);
        let mut backdrop = VideoFrame::black(width, height);
        let layout = Layout::of(width, height);
        let bars = BARS.len() as u32;
        for (i, color) in (0u32..).zip(BARS) {
            let (left, right) = (i * width / bars, (i + 1) * width / bars);
            fill(&mut backdrop, left, layout.strip, right - left, layout.panel - layout.strip, color);
        }
        fill(&mut backdrop, 0, layout.panel, width, height - layout.panel, PANEL);
        // Grey ramp along the bottom: banding and range errors show at once.
        for i in 0..16u32 {
            let (left, right) = (i * width / 16, (i + 1) * width / 16);
            let luma = u8::try_from(16 + i * 219 / 15).unwrap_or(235);
            fill(&mut backdrop, left, layout.ramp, right - left, height - layout.ramp, (luma, 128, 128));
        }
        let number = source.id.to_string();
        let scale = layout.number_scale;
        let (text_width, text_height) = (text_width(&number, scale), 7 * scale);
        let left = (width.saturating_sub(text_width)) / 2;
        let top = layout.strip + (layout.panel - layout.strip).saturating_sub(text_height) / 2;
        let margin = scale * 2;
        fill(
            &mut backdrop,
            left.saturating_sub(margin),
            top.saturating_sub(margin),
            text_width + 2 * margin,
            text_height + 2 * margin,
            BLACK,
        );
        text(&mut backdrop, left, top, scale, &number, WHITE);
        Self { source, backdrop, last_second: 0 }
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.backdrop.width, self.backdrop.height)
    }

    /// Draws the picture of this moment into `frame`, which has [`PatternPainter::size`]; another size is made to fit.
    pub fn draw(&mut self, frame: &mut VideoFrame, unix_ms: u64) {
        let (width, height) = self.size();
        if (frame.width, frame.height) == (width, height) && frame.is_consistent() {
            frame.y.copy_from_slice(&self.backdrop.y);
            frame.u.copy_from_slice(&self.backdrop.u);
            frame.v.copy_from_slice(&self.backdrop.v);
        } else {
            frame.width = width;
            frame.height = height;
            frame.y.clone_from(&self.backdrop.y);
            frame.u.clone_from(&self.backdrop.u);
            frame.v.clone_from(&self.backdrop.v);
        }
        let layout = Layout::of(width, height);
        draw_strip(frame, layout.strip, strip_bits(self.source.id, unix_ms));
        // A ball that crosses the bars in 3 s and bounces in 1 s, a sweep through the panel in 2 s.
        let ball = layout.ball;
        let x = triangle(unix_ms, 6_000, width.saturating_sub(ball));
        let y = layout.strip + triangle(unix_ms, 2_000, (layout.panel - layout.strip).saturating_sub(ball));
        fill(frame, x, y, ball, ball, WHITE);
        fill(frame, x + ball / 4, y + ball / 4, ball / 2, ball / 2, BLACK);
        let sweep = u32::try_from(unix_ms % 2_000).unwrap_or(0) * width / 2_000;
        fill(frame, sweep, layout.panel, (width / 80).max(2), layout.ramp - layout.panel, BARS[1]);
        let clock = clock_text(unix_ms);
        let scale = layout.clock_scale;
        let left = width.saturating_sub(text_width(&clock, scale)) / 2;
        let top = layout.panel + (layout.ramp - layout.panel).saturating_sub(7 * scale) / 2;
        text(frame, left, top, scale, &clock, WHITE);
        if self.source.sync {
            let second = unix_ms / 1_000;
            let flash = self.last_second != 0 && second != self.last_second;
            self.last_second = second;
            let side = (height / 6) & !1;
            fill(frame, width - side.min(width), height - side, side, side, if flash { WHITE } else { BLACK });
        }
    }
}

/// Whether the sync square (lower right corner) is lit.
pub fn sync_flash(frame: &VideoFrame) -> bool {
    let side = frame.height / 6;
    let (x, y) = (frame.width.saturating_sub(side / 2) as usize, frame.height.saturating_sub(side / 2) as usize);
    frame.y.get(y * frame.width as usize + x).is_some_and(|luma| *luma > 125)
}

struct Layout {
    strip: u32,
    panel: u32,
    ramp: u32,
    ball: u32,
    number_scale: u32,
    clock_scale: u32,
}

impl Layout {
    fn of(width: u32, height: u32) -> Self {
        let even = |n: u32| n & !1;
        Self {
            strip: (height / STRIP_PART + 1) & !1,
            panel: even(height * 7 / 10),
            ramp: even(height * 14 / 15),
            ball: even((height / 8).max(4)),
            number_scale: even((height / 20).min(width / 24)).max(2),
            clock_scale: (height / 50).min(width / 76).max(1),
        }
    }
}

fn draw_strip(frame: &mut VideoFrame, rows: u32, bits: u64) {
    let width = frame.width;
    for cell in 0..CELLS {
        let (left, right) = (cell * width / CELLS, (cell + 1) * width / CELLS);
        let color = if (bits >> (CELLS - 1 - cell)) & 1 == 1 { WHITE } else { BLACK };
        fill(frame, left, 0, right - left, rows, color);
    }
}

/// 0 up to `range` and back, once in `period_ms`.
fn triangle(unix_ms: u64, period_ms: u64, range: u32) -> u32 {
    let phase = unix_ms % period_ms;
    let half = period_ms / 2;
    let up = if phase < half { phase } else { period_ms - phase };
    u32::try_from(up * u64::from(range) / half).unwrap_or(0) & !1
}

fn clock_text(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    format!("{:02}:{:02}:{:02}.{:03}", (seconds / 3_600) % 24, (seconds / 60) % 60, seconds % 60, unix_ms % 1_000)
}

fn text_width(text: &str, scale: u32) -> u32 {
    let cells = u32::try_from(text.len()).unwrap_or(0) * 6;
    cells.saturating_sub(1) * scale
}

/// Digits, colon and point in 5 × 7.
fn glyph(character: char) -> [u8; 7] {
    match character {
        '0' => [0b01110, 0b10001, 0b10011, 0b10101, 0b11001, 0b10001, 0b01110],
        '1' => [0b00100, 0b01100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110],
        '2' => [0b01110, 0b10001, 0b00001, 0b00010, 0b00100, 0b01000, 0b11111],
        '3' => [0b11111, 0b00010, 0b00100, 0b00010, 0b00001, 0b10001, 0b01110],
        '4' => [0b00010, 0b00110, 0b01010, 0b10010, 0b11111, 0b00010, 0b00010],
        '5' => [0b11111, 0b10000, 0b11110, 0b00001, 0b00001, 0b10001, 0b01110],
        '6' => [0b00110, 0b01000, 0b10000, 0b11110, 0b10001, 0b10001, 0b01110],
        '7' => [0b11111, 0b00001, 0b00010, 0b00100, 0b01000, 0b01000, 0b01000],
        '8' => [0b01110, 0b10001, 0b10001, 0b01110, 0b10001, 0b10001, 0b01110],
        '9' => [0b01110, 0b10001, 0b10001, 0b01111, 0b00001, 0b00010, 0b01100],
        ':' => [0, 0b00100, 0b00100, 0, 0b00100, 0b00100, 0],
        '.' => [0, 0, 0, 0, 0, 0b01100, 0b01100],
        _ => [0; 7],
    }
}

fn text(frame: &mut VideoFrame, left: u32, top: u32, scale: u32, text: &str, color: Color) {
    for (position, character) in (0u32..).zip(text.chars()) {
        for (row, bits) in (0u32..).zip(glyph(character)) {
            for column in 0..5u32 {
                if (bits >> (4 - column)) & 1 == 1 {
                    let x = left + (position * 6 + column) * scale;
                    fill(frame, x, top + row * scale, scale, scale, color);
                }
            }
        }
    }
}

/// Fills a rectangle, cut off at the edges; the colour planes are touched where the rectangle covers half of their pixel.
fn fill(frame: &mut VideoFrame, left: u32, top: u32, width: u32, height: u32, (y, u, v): Color) {
    let stride = frame.width as usize;
    fill_plane(&mut frame.y, stride, left, top, width, height, y);
    let (c_left, c_top) = (left / 2, top / 2);
    let (c_width, c_height) = ((left + width).div_ceil(2) - c_left, (top + height).div_ceil(2) - c_top);
    fill_plane(&mut frame.u, stride / 2, c_left, c_top, c_width, c_height, u);
    fill_plane(&mut frame.v, stride / 2, c_left, c_top, c_width, c_height, v);
}

fn fill_plane(plane: &mut [u8], stride: usize, left: u32, top: u32, width: u32, height: u32, value: u8) {
    if stride == 0 {
        return;
    }
    let left = (left as usize).min(stride);
    let right = left.saturating_add(width as usize).min(stride);
    for row in plane.chunks_exact_mut(stride).skip(top as usize).take(height as usize) {
        if let Some(part) = row.get_mut(left..right) {
            part.fill(value);
        }
    }
}

/// What was read from a stream of test pictures so far, as the report shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PatternReport {
    /// ID of the last good reading.
    pub id: Option<u8>,
    /// Strips with the right check sum.
    pub frames_read: u64,
    /// Strips found whose check sum was wrong.
    pub crc_errors: u64,
    /// Capture to ready, median in ms.
    pub latency_ms_p50: Option<f64>,
    /// Capture to ready, 95th percentile in ms.
    pub latency_ms_p95: Option<f64>,
    /// Pictures of the source that are missing between two that were read.
    pub skipped: u64,
}

/// Collects readings of one stream. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct PatternStats {
    inner: Arc<Mutex<Collected>>,
}

#[derive(Debug, Default)]
struct Collected {
    id: Option<u8>,
    frames_read: u64,
    crc_errors: u64,
    skipped: u64,
    /// Nothing is to come now: what comes all the same is late, and what comes afterwards is no gap.
    paused: bool,
    last_time_ms: Option<u32>,
    steps: Ring<32>,
    latencies: Ring<4096>,
}

/// The newest `N` values.
#[derive(Debug, Default)]
struct Ring<const N: usize> {
    values: Vec<u32>,
    next: usize,
}

impl<const N: usize> Ring<N> {
    fn push(&mut self, value: u32) {
        if let Some(slot) = self.values.get_mut(self.next) {
            *slot = value;
        } else {
            self.values.push(value);
        }
        self.next = (self.next + 1) % N;
    }

    /// Nearest rank.
    fn percentile(&self, percent: usize) -> Option<u32> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

impl PatternStats {
    /// Nothing collected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads one picture that is ready to be shown. A picture without a strip changes nothing.
    pub fn observe(&self, frame: &VideoFrame) -> Option<PatternReading> {
        let reading = read(frame)?;
        self.add(reading, unix_ms());
        Some(reading)
    }

    fn add(&self, reading: PatternReading, now_unix_ms: u64) {
        let mut c = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !reading.crc_ok {
            c.crc_errors += 1;
            return;
        }
        if c.id != Some(reading.id) {
            // Another source: its clock goes on, its rhythm is not known.
            c.id = Some(reading.id);
            c.last_time_ms = None;
        }
        c.frames_read += 1;
        c.latencies.push(age_ms(reading.time_ms, now_unix_ms));
        if let Some(last) = c.last_time_ms {
            let step = reading.time_ms.wrapping_sub(last) % TIME_MODULO_MS;
            if let Some(usual) = c.steps.percentile(50)
                && c.steps.values.len() >= 8
                && usual > 0
                && step > usual + usual / 2
                // Longer than 10 s is a muted camera, not missing pictures.
                && step < 10_000
            {
                c.skipped += u64::from((step + usual / 2) / usual) - 1;
            }
            c.steps.push(step);
        }
        c.last_time_ms = (!c.paused).then_some(reading.time_ms);
    }

    /// Pictures stop on purpose (mute, hidden tile), or come again: the gap is not counted as skipped.
    pub fn set_active(&self, active: bool) {
        let mut c = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        c.paused = !active;
        c.last_time_ms = None;
    }

    /// What was collected so far; `None` if no strip was ever seen.
    pub fn report(&self) -> Option<PatternReport> {
        let c = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (c.frames_read + c.crc_errors > 0).then(|| PatternReport {
            id: c.id,
            frames_read: c.frames_read,
            crc_errors: c.crc_errors,
            latency_ms_p50: c.latencies.percentile(50).map(f64::from),
            latency_ms_p95: c.latencies.percentile(95).map(f64::from),
            skipped: c.skipped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::video::source::VideoMode;

    fn source(id: u8, width: u32, height: u32) -> PatternSource {
        PatternSource { id, mode: VideoMode { width, height, fps: 30 }, sync: false }
    }

    #[test]
    fn the_strip_has_the_bits_of_the_specification() {
        // ID 3, time 0x12345: 28 bits 0x0312345; CRC-8/SMBUS of 00 31 23 45 computed bit by bit.
        let mut crc = 0u8;
        for byte in [0x00u8, 0x31, 0x23, 0x45] {
            crc ^= byte;
            for _ in 0..8 {
                crc = if crc & 0x80 != 0 { (crc << 1) ^ 0x07 } else { crc << 1 };
            }
        }
        assert_eq!(strip_bits(3, 0x12345), (0xA << 36) | (0x0031_2345 << 8) | u64::from(crc));
        assert_eq!(strip_bits(3, 0x12345 + (7 << 20)), strip_bits(3, 0x12345));
    }

    #[test]
    fn what_is_drawn_is_read_at_every_size() {
        for (width, height) in [(1920, 1080), (1280, 720), (640, 360), (320, 180), (642, 482), (160, 90)] {
            for id in [0, 3, 170, 255] {
                let mut painter = PatternPainter::new(source(id, width, height));
                let mut frame = VideoFrame::black(width, height);
                for unix_ms in [0, 1_763_671_234_567u64, 1_763_671_234_600] {
                    painter.draw(&mut frame, unix_ms);
                    let time_ms = (unix_ms % (1 << 20)) as u32;
                    assert_eq!(read(&frame), Some(PatternReading { id, time_ms, crc_ok: true }));
                }
            }
        }
    }

    #[test]
    fn something_moves_and_the_number_shows() {
        let mut one = PatternPainter::new(source(1, 640, 360));
        let mut eight = PatternPainter::new(source(8, 640, 360));
        let (mut a, mut b, mut c) =
            (VideoFrame::black(640, 360), VideoFrame::black(640, 360), VideoFrame::black(640, 360));
        one.draw(&mut a, 1_000_000);
        one.draw(&mut b, 1_000_040);
        eight.draw(&mut c, 1_000_000);
        let below = 640 * 60;
        let differing = |p: &[u8], q: &[u8]| p.iter().zip(q).filter(|(p, q)| p != q).count();
        assert!(differing(&a.y[below..], &b.y[below..]) > 500);
        assert!(differing(&a.y[below..], &c.y[below..]) > 500);
    }

    #[test]
    fn no_strip_is_no_reading() {
        assert_eq!(read(&VideoFrame::black(640, 360)), None);
        assert_eq!(read(&VideoFrame::black(2, 2)), None);
        let mut grey = VideoFrame::black(640, 360);
        grey.y.fill(126);
        assert_eq!(read(&grey), None);
    }

    #[test]
    fn a_damaged_cell_is_a_crc_error() {
        let mut painter = PatternPainter::new(source(7, 640, 360));
        let mut frame = VideoFrame::black(640, 360);
        painter.draw(&mut frame, 77);
        for row in frame.y.chunks_exact_mut(640).take(30) {
            row[16 * 9..16 * 10].iter_mut().for_each(|p| *p = if *p > 125 { 16 } else { 235 });
        }
        assert!(!read(&frame).expect("strip").crc_ok);
        let stats = PatternStats::new();
        stats.observe(&frame);
        let report = stats.report().expect("report");
        assert_eq!((report.frames_read, report.crc_errors, report.id), (0, 1, None));
    }

    #[test]
    fn latency_wraps_and_gaps_are_counted() {
        let stats = PatternStats::new();
        assert_eq!(stats.report(), None);
        let start = u64::from(TIME_MODULO_MS) * 5 - 500;
        for i in 0..30u64 {
            if i == 20 || i == 21 {
                continue;
            }
            let time = start + i * 33;
            let reading = PatternReading { id: 1, time_ms: (time % u64::from(TIME_MODULO_MS)) as u32, crc_ok: true };
            stats.add(reading, time + 40 + i);
        }
        let report = stats.report().expect("report");
        assert_eq!((report.frames_read, report.skipped, report.crc_errors), (28, 2, 0));
        assert_eq!(report.latency_ms_p50, Some(53.0));
        assert_eq!(report.latency_ms_p95, Some(68.0));
    }

    #[test]
    fn a_camera_that_was_switched_off_has_skipped_nothing() {
        let stats = PatternStats::new();
        let show = |from: u64, count: u64| {
            for i in 0..count {
                stats.add(PatternReading { id: 1, time_ms: (from + i * 33) as u32, crc_ok: true }, from + i * 33);
            }
        };
        show(1_000, 20);
        stats.set_active(false);
        // Two more were under way.
        show(1_660, 2);
        stats.set_active(true);
        show(6_000, 20);
        assert_eq!(stats.report().map(|r| (r.frames_read, r.skipped)), Some((42, 0)));
    }

    #[test]
    fn the_flash_comes_once_a_second() {
        let mut painter = PatternPainter::new(PatternSource { sync: true, ..source(1, 640, 360) });
        let mut frame = VideoFrame::black(640, 360);
        let mut flashes = Vec::new();
        for i in 0..90u64 {
            let unix_ms = 1_000_010 + i * 1000 / 30;
            painter.draw(&mut frame, unix_ms);
            if sync_flash(&frame) {
                flashes.push(unix_ms);
            }
        }
        assert_eq!(flashes.len(), 2, "{flashes:?}");
        assert!(flashes.iter().all(|ms| ms % 1_000 < 34));
    }

    #[test]
    fn drawing_is_cheap_enough() {
        let mut painter = PatternPainter::new(source(12, 1280, 720));
        let mut frame = VideoFrame::black(1280, 720);
        let started = std::time::Instant::now();
        for i in 0..50 {
            painter.draw(&mut frame, 1_000_000 + i * 33);
        }
        let each = started.elapsed() / 50;
        println!("{each:?} a picture");
        // Three milliseconds on a quiet machine; the bound leaves room for one that is not.
        assert!(each < std::time::Duration::from_millis(15), "{each:?}");
    }
}
