//! Benches of the window: cold start (F7) and many tiles (F21). They need a display; a virtual one does.

use std::io::{BufRead as _, BufReader};
use std::process::{Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::Command;
use crate::call::process::cpu_seconds;
use crate::call::view::{Connection, DeviceState, Me, Person, Tile, View};
use crate::cli::args::Common;
use crate::cli::{Failure, window};
use crate::media::video::frame::{FrameSlot, VideoFrame};
use crate::ui::bridge::Call;
use crate::ui::pace::FrameLog;

/// Cold starts of `bench start`.
const STARTS: usize = 10;
/// A start that takes longer has failed.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Tiles of `bench tiles`, and their pictures a second.
const TILES: usize = 25;
const FPS: u32 = 30;
/// Before the counting begins: shaders are compiled, fonts are drawn.
const WARM_UP: Duration = Duration::from_secs(2);
const MOVING: Duration = Duration::from_secs(10);
const RESTING: Duration = Duration::from_secs(5);

/// From the start of the process until its first frame is on the screen and it listens, in a fresh folder of settings.
pub(super) fn start() -> Result<Value, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut samples_ms = Vec::new();
    for _ in 0..STARTS {
        let folder = tempfile::tempdir().map_err(Failure::failed)?;
        let began = Instant::now();
        let mut child = Program::new(&program)
            .arg("--exit-when-usable")
            .arg("--config")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Failure::failed)?;
        let usable = first_line(&mut child);
        let took_ms = usable.map(|at| at.duration_since(began).as_secs_f64() * 1000.0);
        // Usable or not: it is not needed any longer.
        drop(child.kill());
        child.wait().map_err(Failure::failed)?;
        samples_ms.push(took_ms.ok_or_else(|| Failure::Failed("no window became usable; is there a display?".into()))?);
    }
    let rounded: Vec<u64> = samples_ms.iter().map(|ms| ms.round() as u64).collect();
    Ok(
        json!({"starts": STARTS, "p50_ms": share(&samples_ms, 0.5).map(f64::round), "worst_ms": rounded.iter().max(), "samples_ms": rounded}),
    )
}

/// When the child says its first line, unless it takes too long.
fn first_line(child: &mut std::process::Child) -> Option<Instant> {
    let output = child.stdout.take()?;
    let (said, heard) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("bench-start".to_owned())
        .spawn(move || {
            let mut line = String::new();
            let whole = BufReader::new(output).read_line(&mut line).is_ok() && line.trim() == "usable";
            // Nobody waits any longer when the time is over.
            let _ = said.send(whole.then(Instant::now));
        })
        .ok()?;
    heard.recv_timeout(START_TIMEOUT).ok().flatten()
}

/// Twenty-five tiles with pictures that come at their own times, and then a call in which nothing moves.
pub(super) fn tiles(global: &Common, started: Instant) -> Result<Value, Failure> {
    let view = View {
        session: "bench".to_owned(),
        server: "this-computer".to_owned(),
        connection: Connection::Connected,
        me: Me {
            name: "Person 1".to_owned(),
            may_publish: true,
            microphone: DeviceState::Muted,
            camera: DeviceState::On,
            ..Me::default()
        },
        people: (1..TILES).map(person).collect(),
        tiles: (0..TILES).map(tile).collect(),
        joined_at: Some(Instant::now()),
        ..View::default()
    };
    let slots: Vec<FrameSlot> = view.tiles.iter().map(|t| t.frames.clone()).collect();
    let log = FrameLog::new(|| {});
    let counter = log.clone();
    let call = Box::new(Still(Arc::new(view)));
    window::bench(global, started, call, log, move |repaint| measure(&slots, &counter, repaint))
}

/// A call that stays as it is but for its pictures.
struct Still(Arc<View>);

impl Call for Still {
    fn send(&self, _command: Command) {}

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }
}

fn person(number: usize) -> Person {
    let key = format!("person-{number}");
    Person { name: format!("Person {}", number + 1), connection_id: key.clone(), key, gain: 1.0 }
}

fn tile(number: usize) -> Tile {
    let own = number == 0;
    Tile {
        key: format!("tile-{number}"),
        person: if own { "me".to_owned() } else { format!("person-{number}") },
        stream_id: if own { String::new() } else { format!("stream-{number}") },
        name: format!("Person {}", number + 1),
        own,
        audio_active: !number.is_multiple_of(3),
        video_active: true,
        bars: 4,
        ..Tile::default()
    }
}

/// A picture of the size a tile of this grid is sent in, with something that moves.
fn picture(step: u32) -> Arc<VideoFrame> {
    let mut frame = VideoFrame::black(320, 180);
    for (i, luma) in frame.y.iter_mut().enumerate() {
        let (x, y) = (i as u32 % 320, i as u32 / 320);
        *luma = ((x + y + step * 8) % 200) as u8 + 20;
    }
    frame.u.fill(110);
    frame.v.fill(150);
    Arc::new(frame)
}

fn measure(slots: &[FrameSlot], log: &FrameLog, repaint: &dyn Fn()) -> Value {
    let pictures: Vec<Arc<VideoFrame>> = (0..25).map(picture).collect();
    feed(slots, &pictures, repaint, WARM_UP);
    drop(log.take_ui_ms());
    let (frames_before, drawn_before) = log.counts();
    let (cpu_before, began) = (cpu_seconds(), Instant::now());
    feed(slots, &pictures, repaint, MOVING);
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds().zip(cpu_before).map(|(after, before)| (after - before) / seconds);
    let (frames, drawn) = log.counts();
    let ui_ms: Vec<f64> = log.take_ui_ms().into_iter().map(f64::from).collect();
    let slowest = drawn
        .iter()
        .map(|(key, n)| n - drawn_before.iter().find(|(k, _)| k == key).map_or(0, |(_, before)| *before))
        .min();
    // What is still under way is drawn before the rest is counted.
    std::thread::sleep(Duration::from_secs(1));
    let resting_before = log.counts().0;
    std::thread::sleep(RESTING);
    let resting = log.counts().0 - resting_before;
    let two = |x: f64| (x * 100.0).round() / 100.0;
    json!({
        "tiles": slots.len(),
        "slowest_tile_fps": slowest.map(|n| two(n as f64 / seconds)),
        "frames_a_second": two((frames - frames_before) as f64 / seconds),
        "cores": cpu.map(two),
        "ui_ms_p50": share(&ui_ms, 0.5).map(two),
        "ui_ms_p99": share(&ui_ms, 0.99).map(two),
        "resting_frames_a_second": two(resting as f64 / RESTING.as_secs_f64()),
    })
}

/// Gives every tile its pictures, each tile at its own time of the interval, as decoders do.
fn feed(slots: &[FrameSlot], pictures: &[Arc<VideoFrame>], repaint: &dyn Fn(), length: Duration) {
    let began = Instant::now();
    let step = Duration::from_secs(1) / FPS / slots.len().max(1) as u32;
    for (turn, (slot, picture)) in (0u32..).zip(
        std::iter::repeat_with(|| slots.iter())
            .flatten()
            .zip(pictures.iter().cycle().flat_map(|p| std::iter::repeat_n(p, slots.len()))),
    ) {
        let due = step * turn;
        if due >= length {
            return;
        }
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        slot.put(Arc::clone(picture));
        repaint();
    }
}

fn share(samples: &[f64], part: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(((sorted.len() as f64 * part).ceil() as usize).saturating_sub(1)).copied()
}
