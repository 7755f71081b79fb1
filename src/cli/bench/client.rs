//! `bench client`: what a call of two costs on a desktop, beside Chromium with `openvidu-browser` in the same room (F11),
//! without a window (F12), and when nothing happens (F20). Everything measured is a process of its own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::args::Common;
use super::super::{Failure, common, demo};
use super::tree;
use crate::call::process::ProcessMeter;
use crate::call::{CallHandle, Command, start};
use crate::host::{self, HostConfig, Tls};
use crate::media::video::source::VideoMode;
use crate::protocol::Secret;
use crate::signaling::openvidu::rest::fetch_token;
use crate::signaling::target::{Target, TokenSource};
use crate::signaling::tls::Trust;

const HD: VideoMode = VideoMode { width: 1280, height: 720, fps: 30 };
/// Pairs of measurements, ours and Chromium's in turn.
const PAIRS: usize = 5;
/// Length of one measurement.
const MEASURED: Duration = Duration::from_secs(10);
/// An idle call is measured for longer: it uses little.
const MEASURED_IDLE: Duration = Duration::from_secs(20);
/// The other side must see 720p by then; Chromium alone needs 25 s for it.
const FULL_SIZE_TIMEOUT: Duration = Duration::from_secs(60);
/// After full size is there, before the measuring begins.
const SETTLING: Duration = Duration::from_secs(3);
/// Patience with a participant that leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The page that Chromium shows; it is there in a source tree.
const PAGE: &str = "tests/browser/bench.html";
/// Threads whose time is the codecs' own.
const CODECS: [&str; 2] = ["video-encoder", "video-decoder"];

/// A room with one other participant, in this process.
struct Room {
    host: host::Handle,
    partner: CallHandle,
    secret: Secret,
    _folder: tempfile::TempDir,
}

pub(super) async fn client(global: &Common, started: Instant) -> Result<Value, Failure> {
    let room = room(started)?;
    let result = measure(global, &room).await;
    drop(common::leave(std::slice::from_ref(&room.partner), LEAVE_TIMEOUT).await);
    room.host.shutdown();
    result
}

async fn measure(global: &Common, room: &Room) -> Result<Value, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::failed)?;
    let ours = |arguments: &[&str]| ours(global, room, folder.path(), arguments);
    let sending = ["--camera", "pattern:3:1280x720@30", "--microphone", "tone", "--speaker", "null"];
    let mut pairs = Vec::new();
    let display = std::env::var_os("DISPLAY").is_some();
    let chromium = chromium();
    if display {
        for pair in 0..PAIRS {
            common::remark(&format!("pair {} of {PAIRS}", pair + 1));
            let mine = full(room, ours(&sending)?).await?;
            let theirs = match &chromium {
                Some(program) => Some(full(room, browser(program, room, folder.path()).await?).await?),
                None => None,
            };
            pairs.push((mine, theirs));
        }
    } else {
        common::remark("no display: the comparison of windows is left out");
    }
    common::remark("without a window");
    let mut headless = sending.to_vec();
    headless.push("--headless");
    let bare = full(room, ours(&headless)?).await?;
    common::remark("nothing happens");
    let idle = idle(room, &ours).await?;
    let median = |values: Vec<f64>| middle(values).map(|v| (v * 1000.0).round() / 1000.0);
    let ratios = |of: fn(&Figures) -> f64| {
        pairs.iter().filter_map(|(mine, theirs)| Some(of(mine) / of(theirs.as_ref()?))).collect::<Vec<_>>()
    };
    let (cpu, memory) = (ratios(Figures::cores), ratios(|f| f.pss_mib));
    Ok(json!({
        "window": {
            "cores": median(pairs.iter().map(|(mine, _)| mine.cores()).collect()),
            "pss_mib": median(pairs.iter().map(|(mine, _)| mine.pss_mib).collect()),
            "chromium_cores": median(pairs.iter().filter_map(|(_, theirs)| Some(theirs.as_ref()?.cores())).collect()),
            "chromium_pss_mib": median(pairs.iter().filter_map(|(_, theirs)| Some(theirs.as_ref()?.pss_mib)).collect()),
            "cpu_ratio": median(cpu.clone()),
            "cpu_ratios": cpu,
            "memory_ratio": median(memory.clone()),
            "memory_ratios": memory,
            "samples": pairs.iter().map(|(mine, theirs)| json!({"tertulia": mine.json(), "chromium": theirs.as_ref().map(Figures::json)})).collect::<Vec<_>>(),
        },
        "headless": {"cores": bare.cores(), "not_codec_cores": bare.cores_without(&CODECS), "sample": bare.json()},
        "idle": idle,
    }))
}

fn room(started: Instant) -> Result<Room, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::failed)?;
    let secret = Secret::new(common::new_device_key());
    let host = host::start(HostConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Tls::None,
        secret: Some(secret.clone()),
        data_dir: folder.path().to_owned(),
        ..HostConfig::default()
    })
    .map_err(|e| Failure::host(&e))?;
    let invitation = host.create_room("bench").map_err(|e| Failure::host(&e))?.to_string();
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let partner = start(demo::participant(&invitation, 1, HD, started, &decoders, &meter)?);
    Ok(Room { host, partner, secret, _folder: folder })
}

/// A process that is ended whatever happens.
struct Subject(Child);

impl Drop for Subject {
    fn drop(&mut self) {
        // Asked first, so that it leaves the room; what is gone already is as good.
        drop(Program::new("kill").arg(self.0.id().to_string()).status());
        let end = Instant::now() + LEAVE_TIMEOUT;
        while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// This program in the room.
fn ours(global: &Common, room: &Room, folder: &Path, arguments: &[&str]) -> Result<Subject, Failure> {
    let invitation = room.host.create_room("bench").map_err(|e| Failure::host(&e))?.to_string();
    let mut child = Program::new(std::env::current_exe().map_err(Failure::failed)?)
        .args(["join", "-", "--name", "Subject", "--processing", "off", "--quiet"])
        .args(arguments)
        .arg("--config")
        .arg(global.config.clone().unwrap_or_else(|| folder.join("settings")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Failure::failed)?;
    if let Some(input) = &mut child.stdin {
        writeln!(input, "{invitation}").map_err(Failure::failed)?;
    }
    Ok(Subject(child))
}

fn chromium() -> Option<PathBuf> {
    if !Path::new(PAGE).is_file() {
        common::remark("not in a source tree: Chromium is left out");
        return None;
    }
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let found = named.into_iter().chain([PathBuf::from("/usr/bin/chromium")]).find(|path| path.is_file());
    if found.is_none() {
        common::remark("no Chromium here (CHROMIUM names one): it is left out");
    }
    found
}

/// Chromium with the page in the room, its own fake camera and microphone, and software GL as our window has.
async fn browser(program: &Path, room: &Room, folder: &Path) -> Result<Subject, Failure> {
    let target = Target {
        source: TokenSource::OpenVidu {
            base: room.host.url().to_owned(),
            session: "bench".to_owned(),
            secret: room.secret.clone(),
            role: "PUBLISHER".to_owned(),
        },
        trust: Trust::System,
    };
    let token = fetch_token(&target).await.map_err(Failure::failed)?;
    let mut page = url::Url::from_file_path(Path::new(PAGE).canonicalize().map_err(Failure::failed)?)
        .map_err(|()| Failure::Failed("the page has no address".to_owned()))?;
    page.set_fragment(Some(token.expose()));
    let profile = tempfile::tempdir_in(folder).map_err(Failure::failed)?;
    let child = Program::new(program)
        .arg(format!("--app={page}"))
        .arg(format!("--user-data-dir={}", profile.keep().display()))
        .args(["--window-size=1280,800", "--no-sandbox", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--disable-default-apps"])
        .args(["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"])
        .args(["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream=fps=30"])
        .args(["--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(Failure::failed)?;
    Ok(Subject(child))
}

/// What one process tree used while it was measured.
struct Figures {
    seconds: f64,
    threads_s: BTreeMap<String, f64>,
    pss_mib: f64,
    processes: usize,
    /// What the other side received of it meanwhile.
    received_fps: f64,
}

impl Figures {
    fn cores(&self) -> f64 {
        self.threads_s.values().sum::<f64>() / self.seconds
    }

    fn cores_without(&self, names: &[&str]) -> f64 {
        let of_names: f64 =
            self.threads_s.iter().filter(|(name, _)| names.contains(&name.as_str())).map(|(_, s)| s).sum();
        self.cores() - of_names / self.seconds
    }

    fn json(&self) -> Value {
        json!({"cores": self.cores(), "pss_mib": self.pss_mib, "processes": self.processes, "received_fps": self.received_fps, "threads_s": self.threads_s})
    }
}

/// Waits until the partner sees the subject in full size, then measures.
async fn full(room: &Room, subject: Subject) -> Result<Figures, Failure> {
    let end = Instant::now() + FULL_SIZE_TIMEOUT;
    while received(room).await.is_none_or(|(height, _)| height < HD.height) {
        if Instant::now() > end {
            return Err(Failure::Failed(format!("no 720p from the other side within {FULL_SIZE_TIMEOUT:?}")));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(SETTLING).await;
    let frames_before = received(room).await.map_or(0, |(_, frames)| frames);
    let (before, began) = (tree::look(subject.0.id()), Instant::now());
    tokio::time::sleep(MEASURED).await;
    let (after, seconds) = (tree::look(subject.0.id()), began.elapsed().as_secs_f64());
    let frames = received(room).await.map_or(0, |(_, frames)| frames);
    gone(room, subject).await?;
    Ok(Figures {
        seconds,
        threads_s: after.cpu_s_since(&before),
        pss_mib: after.pss_bytes as f64 / f64::from(1 << 20),
        processes: after.processes,
        received_fps: frames.saturating_sub(frames_before) as f64 / seconds,
    })
}

/// Ends the subject and waits until its stream is gone, so that the next one is not taken for it.
async fn gone(room: &Room, subject: Subject) -> Result<(), Failure> {
    drop(subject);
    let end = Instant::now() + FULL_SIZE_TIMEOUT;
    while received(room).await.is_some() {
        if Instant::now() > end {
            return Err(Failure::Failed("a participant that was ended did not leave the room".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Height and number of the pictures that the partner received of the only other one who is there now.
async fn received(room: &Room) -> Option<(u32, u64)> {
    if room.partner.view().tiles.iter().all(|tile| tile.own) {
        return None;
    }
    let report = room.partner.report().await?;
    let video = report.streams.iter().rev().find(|s| s.direction == "recv")?.video.as_ref()?;
    Some((video.height.unwrap_or(0), video.frames.unwrap_or(0)))
}

/// Two in a room, cameras and microphones off.
async fn idle(room: &Room, ours: &impl Fn(&[&str]) -> Result<Subject, Failure>) -> Result<Value, Failure> {
    room.partner.send(Command::MuteAudio(true)).map_err(Failure::failed)?;
    room.partner.send(Command::MuteVideo(true)).map_err(Failure::failed)?;
    let arguments = ["--camera", "pattern:3:1280x720@30", "--microphone", "tone", "--speaker", "null"];
    let mut figures = serde_json::Map::new();
    for (name, headless) in [("headless", true), ("window", false)] {
        if !headless && std::env::var_os("DISPLAY").is_none() {
            continue;
        }
        let mut arguments = arguments.to_vec();
        arguments.extend(["--audio-off", "--video-off"]);
        arguments.extend(headless.then_some("--headless"));
        let subject = ours(&arguments)?;
        tokio::time::sleep(Duration::from_secs(6)).await;
        let (before, began) = (tree::look(subject.0.id()), Instant::now());
        tokio::time::sleep(MEASURED_IDLE).await;
        let (after, seconds) = (tree::look(subject.0.id()), began.elapsed().as_secs_f64());
        let threads_s = after.cpu_s_since(&before);
        let wakeups: BTreeMap<String, f64> =
            after.wakeups_since(&before).into_iter().map(|(name, count)| (name, count as f64 / seconds)).collect();
        figures.insert(
            name.to_owned(),
            json!({
                "cores": threads_s.values().sum::<f64>() / seconds,
                "wakeups_a_second": wakeups,
                "threads_s": threads_s,
            }),
        );
        drop(subject);
    }
    Ok(Value::Object(figures))
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
