//! The program as a user starts it: hosts and participants as processes, driven over standard input, judged by events and report.
#![allow(dead_code)] // each test binary uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod bottleneck;
pub mod relay;

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Patience with anything that should happen soon; a limit for broken runs, not a measure.
pub const SOON: Duration = Duration::from_secs(30);
/// The secret of the test hosts, handed over in the environment.
pub const SECRET: &str = "correct horse battery staple";
const SECRET_ENV: &str = "TERTULIA_TEST_SECRET";

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tertulia"));
    command.env(SECRET_ENV, SECRET).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Asks until the answer is there.
pub fn wait<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Arc<Self> {
        let this = Arc::new(Self::default());
        let writer = Arc::clone(&this);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                writer.lines.lock().unwrap().push(line);
                writer.more.notify_all();
            }
        });
        this
    }

    fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn find<T>(&self, limit: Duration, mut wanted: impl FnMut(&[String]) -> Option<T>) -> Option<T> {
        let until = Instant::now() + limit;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(found) = wanted(&lines) {
                return Some(found);
            }
            let left = until.checked_duration_since(Instant::now())?;
            lines = self.more.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// A process that does not outlive the test.
struct Process {
    child: Child,
    out: Arc<Lines>,
    err: Arc<Lines>,
}

impl Process {
    fn spawn(mut command: Command) -> (Self, ChildStdin) {
        let mut child = command.spawn().expect("the program starts");
        let out = Lines::read(child.stdout.take().unwrap());
        let err = Lines::read(child.stderr.take().unwrap());
        let input = child.stdin.take().unwrap();
        (Self { child, out, err }, input)
    }

    fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= until {
                panic!("still running after {limit:?}: {:#?} {:#?}", self.out.all(), self.err.all());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let (out, err) = (self.out.all(), self.err.all());
            eprintln!("--- {}: {}\n{}", self.child.id(), tail(&err, 12), tail(&out, 40));
        }
    }
}

fn tail(lines: &[String], count: usize) -> String {
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// `tertulia host` with one room, REST secret and free ports.
pub struct Host {
    process: Process,
    _input: ChildStdin,
    /// What it printed when it was ready.
    pub ready: Value,
    dir: TempDir,
    report: PathBuf,
}

impl Host {
    pub fn start(room: &str, more: &[&str]) -> Self {
        Self::run(tempfile::tempdir().unwrap(), "127.0.0.1:0", room, more)
    }

    /// Is killed, and begins anew at the same address after a while.
    pub fn killed_for(self, down: Duration, room: &str, more: &[&str]) -> Self {
        let (addr, Self { mut process, dir, .. }) = (self.addr().to_string(), self);
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        std::thread::sleep(down);
        Self::run(dir, &addr, room, more)
    }

    fn run(dir: TempDir, listen: &str, room: &str, more: &[&str]) -> Self {
        let report = dir.path().join("host.json");
        let mut command = program();
        command.args(["host", "--listen", listen, "--udp-port", "0", "--session", room, "--secret-env", SECRET_ENV]);
        command.args(more).arg("--data-dir").arg(dir.path()).arg("--stats-json").arg(&report);
        let (process, input) = Process::spawn(command);
        let Some(line) = process.out.find(SOON, |lines| lines.first().cloned()) else {
            panic!("the host does not get ready: {}", tail(&process.err.all(), 10));
        };
        let ready: Value = serde_json::from_str(&line).expect("one line of JSON");
        assert_eq!(ready["ready"], true);
        Self { process, _input: input, ready, dir, report }
    }

    pub fn url(&self) -> String {
        self.ready["url"].as_str().unwrap().to_owned()
    }

    pub fn addr(&self) -> SocketAddr {
        self.url().split_once("://").unwrap().1.parse().unwrap()
    }

    pub fn udp(&self) -> SocketAddr {
        self.ready["udp"].as_str().unwrap().parse().unwrap()
    }

    pub fn invitation(&self) -> String {
        self.ready["invitation"].as_str().unwrap().to_owned()
    }

    /// The invitation, leading elsewhere.
    pub fn invitation_through(&self, addr: SocketAddr) -> String {
        let here = self.addr().to_string();
        let invitation = self.invitation();
        assert!(invitation.contains(&here), "{invitation}");
        invitation.replace(&here, &addr.to_string())
    }

    /// A fresh token over REST (plain HTTP only).
    pub fn token(&self, room: &str, role: &str) -> String {
        token_at(self.addr(), room, role)
    }

    /// Ends it and gives its report.
    pub fn stop(mut self) -> Value {
        self.process.terminate();
        assert!(self.process.wait(SOON).success());
        serde_json::from_slice(&std::fs::read(&self.report).unwrap()).unwrap()
    }
}

/// Fetches a token at this address.
pub fn token_at(addr: SocketAddr, room: &str, role: &str) -> String {
    let (status, body) =
        http(addr, "POST", &format!("/openvidu/api/sessions/{room}/connection"), &json!({"role": role}));
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

/// One request with the secret.
pub fn http(addr: SocketAddr, method: &str, path: &str, body: &Value) -> (u16, String) {
    use base64::Engine as _;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("OPENVIDUAPP:{SECRET}"));
    let body = body.to_string();
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Basic {auth}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

/// `tertulia join --headless`.
pub struct Participant {
    process: Process,
    input: Option<ChildStdin>,
    pub name: String,
    dir: TempDir,
    report: PathBuf,
    reports: AtomicU32,
}

/// How a participant ended.
pub struct End {
    pub code: Option<i32>,
    pub report: Value,
    /// What it said at the end on standard error, apart from the lines of state and the log.
    pub complaint: Vec<String>,
    pub events: Vec<Value>,
}

impl Participant {
    /// Joins with a small pattern and its tone; `more` may change that.
    pub fn join(name: &str, id: u8, target: &str, more: &[&str]) -> Self {
        let camera = format!("pattern:{id}:320x180@15");
        let mut args = vec!["--camera", &camera, "--microphone", "tone"];
        args.retain(|_| !more.contains(&"--camera"));
        args.extend(more);
        Self::join_with(name, target, &args, |_| {})
    }

    /// Closes its standard input.
    pub fn end_of_input(mut self) -> Self {
        self.input = None;
        self
    }

    /// Joins with exactly these options, in this environment.
    pub fn join_with(name: &str, target: &str, more: &[&str], prepare: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report.json");
        let mut command = program();
        command.args(["join", target, "--headless", "--name", name]).args(more);
        command.arg("--stats-json").arg(&report).arg("--config").arg(dir.path());
        prepare(&mut command);
        let (process, input) = Process::spawn(command);
        Self { process, input: Some(input), name: name.to_owned(), dir, report, reports: AtomicU32::new(0) }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn secret_options(session: &str) -> [&str; 4] {
        ["--session", session, "--secret-env", SECRET_ENV]
    }

    /// Writes one command.
    pub fn tell(&mut self, command: &Value) {
        self.tell_line(&command.to_string());
    }

    pub fn tell_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("it reads its input");
    }

    pub fn events(&self) -> Vec<Value> {
        parse(&self.process.out.all())
    }

    pub fn count(&self, name: &str) -> usize {
        self.events().iter().filter(|e| e["event"] == name).count()
    }

    /// Waits for an event, earlier ones included. `wanted` must not ask this participant: its lines are locked meanwhile.
    pub fn event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let found = self.process.out.find(SOON, |lines| parse(lines).into_iter().find(&wanted));
        found.unwrap_or_else(|| panic!("{}: no {what} in {:#?}", self.name, self.events()))
    }

    pub fn named(&self, name: &str) -> Value {
        self.event(name, |e| e["event"] == name)
    }

    /// The connection id, once joined.
    pub fn connection_id(&self) -> String {
        self.named("joined")["connection_id"].as_str().unwrap().to_owned()
    }

    /// The own stream's id, once published.
    pub fn stream_id(&self) -> String {
        self.named("published")["stream_id"].as_str().unwrap().to_owned()
    }

    /// The report as of now.
    pub fn report(&mut self) -> Value {
        let path = self.dir.path().join(format!("now-{}.json", self.reports.fetch_add(1, Ordering::Relaxed)));
        self.tell(&json!({"do": "report", "path": path}));
        wait("a report", SOON, || serde_json::from_slice(&std::fs::read(&path).ok()?).ok())
    }

    /// Waits until pictures with this pattern and its tone come in, and gives that stream's part of the report.
    pub fn sees(&mut self, id: u8) -> Value {
        let before = self.frames_read(id);
        let name = self.name.clone();
        let mut last = Value::Null;
        let until = Instant::now() + SOON;
        while Instant::now() < until {
            last = self.report();
            if let Some(stream) = live(&last, id)
                && stream["video"]["pattern"]["frames_read"].as_u64().unwrap_or(0) >= before + 10
                && (stream["audio"].is_null() || tone_is(stream, tone_of(id)))
            {
                return stream.clone();
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        panic!("{name} does not see and hear {id}: {last:#}");
    }

    /// Pictures read so far in the newest stream with this pattern.
    pub fn frames_read(&mut self, id: u8) -> u64 {
        live(&self.report(), id).and_then(|s| s["video"]["pattern"]["frames_read"].as_u64()).unwrap_or(0)
    }

    pub fn terminate(&self) {
        self.process.terminate();
    }

    /// Waits for the end.
    pub fn end(mut self) -> End {
        let status = self.process.wait(SOON);
        // The readers see the end of their pipes a moment later.
        std::thread::sleep(Duration::from_millis(100));
        let report =
            std::fs::read(&self.report).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null);
        let complaint = self.process.err.all().into_iter().filter(|l| l.starts_with("tertulia: ")).collect();
        End { code: status.code(), report, complaint, events: self.events() }
    }

    /// Asks it to leave and waits for a good end.
    pub fn leave(mut self) -> End {
        self.tell(&json!({"do": "leave"}));
        let name = self.name.clone();
        let end = self.end();
        assert_eq!((end.code, &end.report["ok"]), (Some(0), &json!(true)), "{name}: {:?}", end.complaint);
        end
    }
}

fn parse(lines: &[String]) -> Vec<Value> {
    lines
        .iter()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|_| panic!("not JSON on standard output: {l}")))
        .collect()
}

/// The tone that goes with a pattern.
pub fn tone_of(id: u8) -> f64 {
    300.0 + 100.0 * f64::from(id % 20)
}

pub fn tone_is(stream: &Value, hz: f64) -> bool {
    stream["audio"]["tone_hz"].as_f64().is_some_and(|t| (t - hz).abs() < 10.0)
}

/// Received streams with this pattern, oldest first.
pub fn streams_of(report: &Value, id: u8) -> Vec<&Value> {
    let all = report["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|s| s["direction"] == "recv" && s["video"]["pattern"]["id"] == id).collect()
}

/// The newest received stream with this pattern.
pub fn live(report: &Value, id: u8) -> Option<&Value> {
    streams_of(report, id).pop()
}

/// A failed run: exit code 1, one line that says why, a report that says so too.
pub fn assert_failed(end: &End, words: &[&str]) {
    assert_eq!(end.code, Some(1), "{:?}", end.complaint);
    assert_eq!(end.complaint.len(), 1, "one line says why: {:?}", end.complaint);
    for word in words {
        assert!(end.complaint[0].contains(word), "{word:?} is not in {:?}", end.complaint[0]);
    }
    assert_eq!(end.report["ok"], false, "{:#}", end.report);
    let error = end.report["error"].as_str().expect("the report names the error");
    assert!(end.complaint[0].contains(error), "{error} / {:?}", end.complaint);
    let key = end.events.iter().rev().find(|e| e["event"] == "error");
    assert!(key.is_some(), "{:?}", end.events);
}

/// A TCP proxy whose cable can be pulled.
pub struct Proxy {
    pub addr: SocketAddr,
    cut: Arc<AtomicBool>,
    silent: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<Cable>>>,
}

/// Both ends of one connection.
struct Cable {
    ends: [TcpStream; 2],
    silent: Arc<AtomicBool>,
}

impl Proxy {
    pub fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let this = Self { addr, cut: Arc::default(), silent: Arc::default(), open: Arc::default() };
        let (is_cut, is_silent, open) = (Arc::clone(&this.cut), Arc::clone(&this.silent), Arc::clone(&this.open));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(upstream) else { continue };
                let silent = Arc::new(AtomicBool::new(is_silent.load(Ordering::SeqCst)));
                let ends = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                open.lock().unwrap().push(Cable { ends, silent: Arc::clone(&silent) });
                pump(client.try_clone().unwrap(), server.try_clone().unwrap(), Arc::clone(&silent));
                pump(server, client, silent);
            }
        });
        this
    }

    /// Cuts every connection and lets none through until [`Self::mend`].
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        for cable in self.open.lock().unwrap().drain(..) {
            for end in cable.ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }

    /// Every connection takes what it is sent and passes nothing on, for ever; new ones until [`Self::mend`], too. Nobody is told.
    pub fn go_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
        for cable in self.open.lock().unwrap().iter() {
            cable.silent.store(true, Ordering::SeqCst);
        }
    }

    pub fn mend(&self) {
        self.cut.store(false, Ordering::SeqCst);
        self.silent.store(false, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, silent: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        // The end of a silent connection is as silent as the rest of it.
        if !silent.load(Ordering::SeqCst) {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        }
    });
}

/// A port of this machine on which nobody listens.
pub fn dead_port() -> u16 {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    taken.local_addr().unwrap().port()
}

/// A free UDP port; somebody else could take it before it is used, which then fails loudly.
pub fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
