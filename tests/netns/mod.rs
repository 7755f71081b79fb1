//! Real processes in network namespaces, joined by the switch of `wire.c`, whose links get bad while a call runs.
//!
//! It needs root, `/dev/net/tun`, `ip` and a C compiler. Where one is missing the tests say so and prove nothing; with
//! `TERTULIA_NETNS=required` in the environment they fail instead.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Patience with anything that should happen soon.
const SOON: Duration = Duration::from_secs(30);
/// One call at a time: each needs the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

/// The program; another one, of a release build, by `TERTULIA_BIN`.
fn program() -> PathBuf {
    std::env::var_os("TERTULIA_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_tertulia")), PathBuf::from)
}

fn missing() -> Option<String> {
    let runs = |program: &str, argument: &str| {
        let run = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    if !root {
        return Some("not root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("there is no /dev/net/tun".to_owned());
    }
    let tools = [("ip", "-V"), ("cc", "--version")];
    if let Some((tool, _)) = tools.iter().find(|(tool, argument)| !runs(tool, argument)) {
        return Some(format!("there is no {tool}"));
    }
    let probe = format!("tt{}", std::process::id());
    if !Command::new("ip").args(["netns", "add", &probe]).output().is_ok_and(|out| out.status.success()) {
        return Some("network namespaces are not permitted".to_owned());
    }
    let _ = Command::new("ip").args(["netns", "del", &probe]).status();
    None
}

/// A process that does not outlive the test.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let until = Instant::now() + Duration::from_secs(8);
        while Instant::now() < until {
            if self.0.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Party {
    _process: Guard,
    input: ChildStdin,
    lines: Arc<Mutex<Vec<String>>>,
    dir: PathBuf,
    reports: u32,
}

impl Party {
    fn start(namespace: &str, dir: PathBuf, arguments: &[&str]) -> Self {
        std::fs::create_dir(&dir).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program()).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, kept) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
            }
        });
        let input = child.stdin.take().unwrap();
        Self { _process: Guard(child), input, lines, dir, reports: 0 }
    }

    fn find<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let until = Instant::now() + SOON;
        loop {
            if let Some(found) = self.lines.lock().unwrap().iter().find_map(|line| wanted(line)) {
                return found;
            }
            assert!(Instant::now() < until, "no {what} in {:#?}", self.lines.lock().unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn report(&mut self) -> Value {
        self.reports += 1;
        let path = self.dir.join(format!("{}.json", self.reports));
        writeln!(self.input, "{}", json!({"do": "report", "path": path})).expect("it reads its input");
        let until = Instant::now() + SOON;
        loop {
            if let Some(report) = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
                return report;
            }
            assert!(Instant::now() < until, "no report");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A host and two participants, each in its own namespace behind its own link: the publisher `pub`, the viewer `view`.
pub struct Call {
    publisher: Party,
    /// More of them behind the publisher's link.
    beside: Vec<Party>,
    invitation: String,
    viewer: Party,
    _host: Party,
    wire_input: ChildStdin,
    wire_output: BufReader<ChildStdout>,
    _wire: Guard,
    names: [(&'static str, String); 3],
    began: Instant,
    /// From the start of the publisher to the first picture at the viewer.
    pub connected_s: f64,
    _dir: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// What both ends say at one moment, in seconds since the first picture.
#[derive(Debug, Clone)]
pub struct Sample {
    pub at: f64,
    /// The publisher's sent video.
    pub sent: Value,
    /// The viewer's received video.
    pub video: Value,
    /// And audio.
    pub audio: Value,
}

impl Sample {
    pub fn target_bps(&self) -> f64 {
        self.sent["target_bitrate_bps"].as_f64().unwrap_or(0.0)
    }

    pub fn number(&self, member: &str) -> f64 {
        self.video[member].as_f64().unwrap_or(0.0)
    }
}

impl Call {
    /// Begins a call over these links (`pub up rate=1000,delay=50`); waits for the first picture. `None` where the machine
    /// does not permit it, which is said aloud.
    pub fn begin(links: &[&str], size: &str, seed: u32) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = missing() {
            assert!(std::env::var_os("TERTULIA_NETNS").is_none_or(|v| v != "required"), "no network namespaces: {why}");
            eprintln!("NOT RUN, nothing was proved here: no network namespaces ({why})");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let switch = dir.path().join("wire");
        let built = Command::new("cc").args(["-O2", "-o"]).arg(&switch).args(["tests/netns/wire.c", "-lm"]).status();
        assert!(built.is_ok_and(|status| status.success()), "the switch does not compile");
        let own = format!("t{}n{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let names = ["host", "pub", "view"].map(|name| (name, format!("{own}{name}")));
        let mut command = Command::new(&switch);
        command.arg(names.each_ref().map(|(_, name)| name.as_str()).join(",")).args(["--seed", &seed.to_string()]);
        for link in links {
            command.args(["--set", &named(&names, link)]);
        }
        let mut wire = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        let mut wire_output = BufReader::new(wire.stdout.take().unwrap());
        wire_output.read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready");
        let wire_input = wire.stdin.take().unwrap();
        let wire = Guard(wire);
        let at = |name: &str| dir.path().join(name);
        let host_dir = at("host");
        let host = Party::start(
            &names[0].1,
            host_dir.clone(),
            &["host", "--listen", "10.77.0.1:4443", "--no-tls", "--session", "room", "--data-dir", path(&host_dir)],
        );
        let invitation = host.find("invitation", |line| {
            serde_json::from_str::<Value>(line).ok()?["invitation"].as_str().map(str::to_owned)
        });
        let join = |name: &str, namespace: &str, more: &[&str]| {
            let dir = at(name);
            let mut arguments = vec!["join", &invitation, "--headless", "--name", name, "--config", path(&dir)];
            arguments.extend(more);
            Party::start(namespace, dir.clone(), &arguments)
        };
        let viewer = join("view", &names[2].1, &["--subscribe-only"]);
        viewer.find("joined", |line| line.contains("\"joined\"").then_some(()));
        let camera = format!("pattern+sync:3:{size}@30");
        let joining = Instant::now();
        let publisher = join("pub", &names[1].1, &["--camera", &camera, "--microphone", "tone"]);
        viewer.find("first picture", |line| line.contains("firstPicture").then_some(()));
        let began = Instant::now();
        Some(Self {
            publisher,
            beside: Vec::new(),
            invitation,
            viewer,
            _host: host,
            wire_input,
            wire_output,
            _wire: wire,
            names,
            began,
            connected_s: began.duration_since(joining).as_secs_f64(),
            _dir: dir,
            _turn: turn,
        })
    }

    /// Another publisher behind the same link, with a picture of its own.
    pub fn join_beside(&mut self, pattern: u8, size: &str) {
        let name = format!("pub{}", self.beside.len() + 2);
        let dir = self._dir.path().join(&name);
        let camera = format!("pattern+sync:{pattern}:{size}@30");
        let devices = ["--camera", camera.as_str(), "--microphone", "tone"];
        let mut arguments = vec!["join", &self.invitation, "--headless", "--name", &name, "--config", path(&dir)];
        arguments.extend(devices);
        let party = Party::start(&self.names[1].1, dir.clone(), &arguments);
        party.find("published", |line| line.contains("\"published\"").then_some(()));
        self.beside.push(party);
    }

    /// Rates of the pictures that each publisher sends, in kbit/s, the first one first.
    pub fn sent_kbps(&mut self) -> Vec<f64> {
        let parties = std::iter::once(&mut self.publisher).chain(&mut self.beside);
        let sent = |report: Value| {
            let streams = report["streams"].as_array().cloned().unwrap_or_default();
            let own = streams.into_iter().find(|stream| stream["direction"] == "send").unwrap_or_default();
            own["video"]["bitrate_bps"].as_f64().unwrap_or(0.0) / 1e3
        };
        parties.map(|party| sent(party.report())).collect()
    }

    /// Changes a link now.
    pub fn set(&mut self, link: &str) {
        writeln!(self.wire_input, "{}", named(&self.names, link)).expect("the switch reads its input");
    }

    /// What crossed the link `pub up` (or another) since the last time: bytes, and the 95th percentile of its queue in ms. `None` for a link
    /// without a limit.
    pub fn crossed(&mut self, link: &str) -> Option<(f64, f64)> {
        writeln!(self.wire_input, "stats").expect("the switch reads its input");
        let mut line = String::new();
        self.wire_output.read_line(&mut line).expect("the switch answers");
        let links: Value = serde_json::from_str(&line).expect("its answer");
        let (host, direction) = link.split_once(' ').expect("who, and which way");
        let (_, host) = self.names.iter().find(|(name, _)| *name == host).expect("host, pub or view");
        let link = links.as_array()?.iter().find(|l| l["host"] == **host && l["direction"] == *direction)?;
        Some((link["bytes"].as_f64()?, link["queue_ms_p95"].as_f64()?))
    }

    /// What both ends say now.
    pub fn sample(&mut self) -> Sample {
        let stream = |report: &Value, direction: &str| {
            let all = report["streams"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|stream| stream["direction"] == direction).unwrap_or_default()
        };
        let sent = stream(&self.publisher.report(), "send");
        let received = stream(&self.viewer.report(), "recv");
        let at = self.began.elapsed().as_secs_f64();
        Sample { at, sent: sent["video"].clone(), video: received["video"].clone(), audio: received["audio"].clone() }
    }

    /// A sample every second until this many seconds after the first picture.
    pub fn until(&mut self, seconds: f64) -> Vec<Sample> {
        let mut samples = Vec::new();
        while self.began.elapsed().as_secs_f64() < seconds {
            let next = Instant::now() + Duration::from_secs(1);
            let sample = self.sample();
            println!(
                "{:5.1} s: target {:4.0} sent {:4.0} kbit/s, {} lines, {:.1} fps, {} freezes ({} ms), held {:.0} ms, sound {:.0} ms",
                sample.at,
                sample.target_bps() / 1e3,
                sample.sent["bitrate_bps"].as_f64().unwrap_or(0.0) / 1e3,
                sample.sent["height"],
                sample.number("fps"),
                sample.video["freezes"],
                sample.video["freeze_ms"],
                sample.number("playout_delay_ms"),
                sample.audio["playout_delay_ms"].as_f64().unwrap_or(0.0),
            );
            samples.push(sample);
            let end = self.began + Duration::from_secs_f64(seconds);
            std::thread::sleep(next.min(end).saturating_duration_since(Instant::now()));
        }
        samples
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// A link's command in the names of this run.
fn named(names: &[(&str, String); 3], link: &str) -> String {
    let (who, rest) = link.split_once(' ').expect("who, and what");
    let (_, name) = names.iter().find(|(name, _)| *name == who).expect("host, pub or view");
    format!("{name} {rest}")
}
