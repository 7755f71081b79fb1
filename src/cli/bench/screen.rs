//! `bench screen`: how soon a shared page of text is sharp at a viewer behind a narrow path (F28), and that a still one costs
//! nothing. Sharer, host and viewer are in this process; the pages are drawn with the program's own fonts.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::args::Common;
use super::super::{Failure, common, demo};
use crate::call::process::ProcessMeter;
use crate::call::{CallHandle, VideoInput, start};
use crate::media::video::convert::{PixelFormat, to_i420};
use crate::media::video::frame::{FrameSlot, VideoFrame};
use crate::media::video::source::{ScreenSource, Tuning, VideoMode};
use crate::ui::raster::text_page;

/// The path that the screen takes.
const NETWORK: &str = "up:rate=1500,queue=300,delay=20,down:delay=20";
const SIZE: (u32, u32) = (1920, 1080);
/// Sharp, in dB of luma.
const SHARP_DB: f64 = 40.0;
/// Every page stands for so many seconds; the last of them are still, for longer than silence of a camera is borne.
const PAGE_SECONDS: u32 = 8;
/// Pages that are waited for after the first one.
const PAGES: usize = 4;
/// A page that takes longer to appear has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(4);
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &Common, started: Instant) -> Result<Value, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::failed)?;
    let pages = [page(0)?, page(1)?];
    let film = folder.path().join("pages.y4m");
    write_film(&film, &pages).map_err(Failure::failed)?;
    let mode = VideoMode { width: SIZE.0, height: SIZE.1, fps: 30 };
    let demo = demo::begin(global, 0, mode, started, None)?;
    let invitation = demo.host.create_room("bench").map_err(|e| Failure::host(&e))?.to_string();
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let mut viewer = demo::participant(&invitation, 2, mode, started, &decoders, &meter)?;
    viewer.media.subscribe_only = true;
    viewer.media.video = VideoInput::None;
    let viewer = start(viewer);
    let mut sharer = demo::participant(&invitation, 1, mode, started, &decoders, &meter)?;
    sharer.media.video = VideoInput::Screen(ScreenSource::File(film));
    sharer.media.tuning = Tuning::Text;
    sharer.impairments = Some(NETWORK.parse().map_err(Failure::failed)?);
    let sharer = start(sharer);
    let result = measure(&sharer, &viewer, &pages).await;
    drop(common::leave(&[sharer, viewer], LEAVE_TIMEOUT).await);
    demo.host.shutdown();
    Ok(
        json!({"row": "F28", "network": NETWORK, "size": format!("{}x{}", SIZE.0, SIZE.1), "sharp_db": SHARP_DB, "pages": result?}),
    )
}

async fn measure(sharer: &CallHandle, viewer: &CallHandle, pages: &[VideoFrame; 2]) -> Result<Vec<Value>, Failure> {
    let own = slot(sharer, true).await?;
    let received = slot(viewer, false).await?;
    // The page that stands there when the connection comes up is not timed: it began before it could be sent.
    let mut shown = wait_for_page(&own, pages, None).await?;
    let mut results = Vec::new();
    for _ in 0..PAGES {
        shown = wait_for_page(&own, pages, Some(shown)).await?;
        let turned = Instant::now();
        let page = pages.get(shown).ok_or_else(|| Failure::Failed("no such page".to_owned()))?;
        let (mut first_ms, mut sharp_ms, mut last_db) = (None, None, 0.0);
        let mut seen = received.version();
        let still_from = Duration::from_secs(u64::from(PAGE_SECONDS) - 2);
        while turned.elapsed() < still_from {
            tokio::time::sleep(LOOK).await;
            let version = received.version();
            let Some(picture) = received.latest().filter(|_| version != seen) else { continue };
            seen = version;
            let at_ms = turned.elapsed().as_millis() as u64;
            let other = pages.get(1 - shown).map_or(0.0, |page| psnr(page, &picture));
            last_db = psnr(page, &picture);
            if last_db > other {
                first_ms.get_or_insert(at_ms);
            }
            if last_db >= SHARP_DB {
                sharp_ms.get_or_insert(at_ms);
            }
        }
        // What comes from now on until shortly before the next page is the price of a still screen.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let still = received.version().saturating_sub(seen);
        let report = sharer.report().await;
        let sent = report.as_ref().and_then(|r| r.streams.iter().find(|s| s.direction == "send")?.video.as_ref());
        let target_bps = sent.and_then(|video| video.target_bitrate_bps);
        results.push(json!({"first_ms": first_ms, "sharp_ms": sharp_ms, "psnr_db": (last_db * 10.0).round() / 10.0, "pictures_when_still": still, "target_bitrate_bps": target_bps}));
    }
    Ok(results)
}

/// Where the pictures of the only tile of this kind appear.
async fn slot(call: &CallHandle, own: bool) -> Result<FrameSlot, Failure> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(tile) = call.view().tiles.iter().find(|t| t.own == own && t.frames.latest().is_some()) {
            return Ok(tile.frames.clone());
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Failed(format!("no picture of the screen within {PATIENCE:?}")))
}

/// Waits until the slot shows a page other than `not`; which one.
async fn wait_for_page(slot: &FrameSlot, pages: &[VideoFrame; 2], not: Option<usize>) -> Result<usize, Failure> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let picture = slot.latest();
        let shown = picture.and_then(|picture| pages.iter().position(|page| page.y == picture.y));
        if let Some(shown) = shown.filter(|shown| Some(*shown) != not) {
            return Ok(shown);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Failure::Failed("the page does not turn".to_owned()))
}

/// How like two pictures of one size are, in dB of luma; 0 for two sizes.
fn psnr(a: &VideoFrame, b: &VideoFrame) -> f64 {
    if a.y.len() != b.y.len() {
        return 0.0;
    }
    let squares: u64 = a.y.iter().zip(&b.y).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    if squares == 0 {
        return 99.0;
    }
    10.0 * (255.0 * 255.0 * a.y.len() as f64 / squares as f64).log10()
}

/// A page as an editor shows it: black on white, lines of words, all the way down.
fn page(number: usize) -> Result<VideoFrame, Failure> {
    const WORDS: [&str; 24] = [
        "latency", "of", "the", "jitter", "buffer", "falls", "on", "a", "quiet", "link,", "and", "rises", "where",
        "packets", "come", "late;", "see", "figure", "16.", "Nobody", "hears", "it:", "(half)", "=120ms",
    ];
    let mut text = String::new();
    for line in 0..52 {
        for word in 0..24 {
            let which = (line * 7 + word * 5 + number * 11 + line * word) % WORDS.len();
            text.push_str(WORDS.get(which).copied().unwrap_or_default());
            text.push(' ');
        }
        text.push('\n');
    }
    let image = text_page(SIZE.0, SIZE.1, &text);
    let bgra: Vec<u8> =
        image.rgba.chunks_exact(4).flat_map(|p| p.iter().take(3).rev().chain([&255])).copied().collect();
    let mut frame = VideoFrame::black(image.width, image.height);
    to_i420(&mut frame, PixelFormat::Bgra, image.width, image.height, &bgra).map_err(Failure::failed)?;
    Ok(frame)
}

/// One picture a second, page after page, so long that it is not over before the measurement is.
fn write_film(path: &Path, pages: &[VideoFrame; 2]) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(file, "YUV4MPEG2 W{} H{} F1:1 C420", SIZE.0, SIZE.1)?;
    for page in pages {
        for _ in 0..PAGE_SECONDS {
            file.write_all(b"FRAME\n")?;
            for plane in [&page.y, &page.u, &page.v] {
                file.write_all(plane)?;
            }
        }
    }
    file.flush()
}
