//! The room machine, fed with every recorded client side, produces the recorded server side.
//!
//! All recorded clients and the application back end are played in file order with the recorded times; the media back end is scripted and answers when the
//! original did. Compared are the answers of each connection, its notifications in their order, the closes and the REST exchanges.
//! What is not compared for any file is in `replay/ignored.rs`; what this host does differently on purpose is in `replay/room_deviations.rs`, each with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "replay/room_deviations.rs"]
mod deviations;
#[path = "replay/ignored.rs"]
mod ignored;

use deviations::{DEVIATIONS, Deviation, Side};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tertulia::protocol::room::{
    MediaDone, MediaError, MediaOp, OpId, RestRequest, Server, ServerConfig, ServerInput, ServerOutput, SocketId,
};
use tertulia::protocol::{Now, Sdp, Secret};

const START_UNIX_MS: u64 = 1_795_200_000_000;

fn fixtures(dir: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(dir)
}

#[derive(Default)]
struct Log {
    /// Request id → our frames with that id.
    answers: BTreeMap<i64, Vec<Value>>,
    notifications: Vec<Value>,
    /// Ids in the order of their answers, without those answered out of order.
    order: Vec<i64>,
    closes: Vec<(u64, u16, String)>,
}

struct Recorded {
    answers: BTreeMap<i64, Vec<Value>>,
    notifications: Vec<Value>,
    order: Vec<i64>,
    methods: BTreeMap<i64, String>,
}

struct Replay {
    file: String,
    server: Server,
    now: Now,
    sockets: HashMap<(String, u64), SocketId>,
    owners: HashMap<SocketId, (String, u64)>,
    next_socket: u64,
    /// recorded id → our id
    ids: BTreeMap<String, String>,
    logs: BTreeMap<String, Log>,
    recorded: BTreeMap<String, Recorded>,
    /// Our connection id → letter of the connection.
    people: HashMap<String, String>,
    held: Vec<(String, OpId, MediaOp)>,
    differences: Vec<String>,
    used: BTreeSet<usize>,
    /// Frames sent on each socket.
    written: HashMap<SocketId, u64>,
    /// Connections whose line is silent: nothing that is sent to them arrives.
    silent: BTreeSet<String>,
}

fn out_of_order(method: Option<&String>) -> bool {
    matches!(method.map(String::as_str), Some("ping" | "connect" | "closeSession"))
}

impl Replay {
    fn new(file: &str, lines: &[Value]) -> Self {
        let config = ServerConfig {
            secret: Secret::new("MY_SECRET"),
            public_url: "https://127.0.0.1:4443".into(),
            public_url_guessed: false,
            seed: [7; 32],
            limits: Default::default(),
        };
        let now = Now { mono: Duration::ZERO, unix_ms: START_UNIX_MS };
        let mut recorded: BTreeMap<String, Recorded> = BTreeMap::new();
        for line in lines {
            let Some(conn) = line["conn"].as_str() else { continue };
            let r = recorded.entry(conn.to_owned()).or_insert_with(|| Recorded {
                answers: BTreeMap::new(),
                notifications: Vec::new(),
                order: Vec::new(),
                methods: BTreeMap::new(),
            });
            let frame = &line["frame"];
            match (line["dir"].as_str(), frame["id"].as_i64()) {
                (Some("c2s"), Some(id)) => {
                    r.methods.insert(id, frame["method"].as_str().unwrap_or_default().to_owned());
                }
                (Some("s2c"), Some(id)) => {
                    r.answers.entry(id).or_default().push(frame.clone());
                    if !out_of_order(r.methods.get(&id)) && !r.order.contains(&id) {
                        r.order.push(id);
                    }
                }
                (Some("s2c"), None) if frame["method"].is_string() && frame["method"] != "iceCandidate" => {
                    r.notifications.push(frame.clone());
                }
                _ => {}
            }
        }
        Self {
            file: file.into(),
            server: Server::new(config, now),
            now,
            sockets: HashMap::new(),
            owners: HashMap::new(),
            next_socket: 1,
            ids: BTreeMap::new(),
            logs: BTreeMap::new(),
            recorded,
            people: HashMap::new(),
            held: Vec::new(),
            differences: Vec::new(),
            used: BTreeSet::new(),
            written: HashMap::new(),
            silent: BTreeSet::new(),
        }
    }

    fn at(ms: f64) -> Now {
        Self::moment(Duration::from_micros((ms * 1000.0) as u64))
    }

    fn moment(mono: Duration) -> Now {
        Now { mono, unix_ms: START_UNIX_MS + mono.as_millis() as u64 }
    }

    fn handle(&mut self, input: ServerInput) {
        self.server.handle(input, self.now);
        self.drain();
    }

    /// Lets time pass, with a tick at every moment the machine asks for.
    fn advance(&mut self, to: Now) {
        while let Some(due) = self.server.poll_timeout().filter(|d| *d <= to.mono) {
            self.now = Self::moment(due.max(self.now.mono));
            self.handle(ServerInput::Tick);
        }
        self.now = to;
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { socket, text } => {
                    let written = self.written.entry(socket).or_default();
                    *written += 1;
                    let frames = *written;
                    if self.owners.get(&socket).is_some_and(|(conn, ws)| !self.silent.contains(&format!("{conn}{ws}")))
                    {
                        self.server.handle(ServerInput::Delivered { socket, frames }, self.now);
                        self.sent(socket, &text);
                    }
                }
                ServerOutput::Close { socket, code, reason } => {
                    if let Some((conn, ws)) = self.owners.remove(&socket) {
                        self.sockets.remove(&(conn.clone(), ws));
                        self.logs.entry(conn).or_default().closes.push((ws, code, reason.into()));
                    }
                }
                ServerOutput::Media { op, request } => {
                    let con = match &request {
                        MediaOp::Publish { stream, .. } => &stream.connection_id,
                        MediaOp::Subscribe { receiver, .. } | MediaOp::PrepareSubscribe { receiver, .. } => receiver,
                        MediaOp::SetAnswer { .. } => "",
                        MediaOp::Candidate { .. } | MediaOp::Draw { .. } | MediaOp::CloseLeg { .. } => continue,
                    };
                    let conn = self.people.get(con).cloned().unwrap_or_default();
                    self.held.push((conn, op, request));
                }
            }
        }
    }

    fn sent(&mut self, socket: SocketId, text: &str) {
        let Some((conn, _)) = self.owners.get(&socket).cloned() else { return };
        let frame: Value = serde_json::from_str(text).expect("the host sends JSON");
        assert_eq!(frame["jsonrpc"], "2.0");
        let recorded = self.recorded.get(&conn);
        match frame["id"].as_i64() {
            Some(id) => {
                if let Some(theirs) = recorded.and_then(|r| r.answers.get(&id)).and_then(|a| a.first()) {
                    for name in ["id", "sessionId"] {
                        if let (Some(a), Some(b)) = (theirs["result"][name].as_str(), frame["result"][name].as_str()) {
                            // The tail of a stream id is a connection id, which has its own entry.
                            let head = |id: &str| id.split_once("_con_").map_or(id, |(head, _)| head).to_owned();
                            self.ids.insert(head(a), head(b));
                        }
                    }
                }
                let method = recorded.and_then(|r| r.methods.get(&id)).cloned();
                if method.as_deref() == Some("joinRoom")
                    && let Some(id) = frame["result"]["id"].as_str()
                {
                    self.people.insert(id.into(), conn.clone());
                }
                let log = self.logs.entry(conn).or_default();
                if !out_of_order(method.as_ref()) {
                    log.order.push(id);
                }
                log.answers.entry(id).or_default().push(frame);
            }
            None => self.logs.entry(conn).or_default().notifications.push(frame),
        }
    }

    /// Recorded text with our ids in it.
    fn ours(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |t, (theirs, ours)| t.replace(theirs.as_str(), ours))
    }

    /// Our value with the recorded ids in it.
    fn theirs(&self, value: &Value) -> Value {
        let text = self.ids.iter().fold(value.to_string(), |t, (theirs, ours)| t.replace(ours.as_str(), theirs));
        serde_json::from_str(&text).unwrap()
    }

    /// The media back end answers what it was asked on behalf of one connection (or of all that waited too long).
    fn answer_media(&mut self, conn: Option<&str>) {
        let mut held = std::mem::take(&mut self.held);
        let answered: Vec<_> =
            held.extract_if(.., |(c, ..)| conn.is_none_or(|conn| c == conn || c.is_empty())).collect();
        self.held = held;
        for (_, op, request) in answered {
            let stand_in = |offer: &Sdp| match offer.starts_with("v=0") {
                true => Ok(MediaDone::Answer(Sdp::from("v=0\r\ns=stand-in\r\n"))),
                false => Err(MediaError::BadSdp("no v=0".into())),
            };
            let result = match &request {
                MediaOp::Publish { offer, .. } | MediaOp::Subscribe { offer, .. } => stand_in(offer),
                MediaOp::PrepareSubscribe { .. } => Ok(MediaDone::Offer(Sdp::from("v=0\r\ns=stand-in\r\n"))),
                _ => Ok(MediaDone::Done),
            };
            self.handle(ServerInput::Media { op, result });
        }
    }

    fn line(&mut self, line: &Value) {
        let conn = line["conn"].as_str().unwrap().to_owned();
        let ws = line["ws"].as_u64().unwrap_or(1);
        self.advance(Self::at(line["t_ms"].as_f64().unwrap()));
        if line["dir"] == "s2c" {
            let id = line["frame"]["id"].as_i64();
            if id.is_some() {
                self.answer_media(Some(&conn));
            }
            return;
        }
        if line["dir"] == "c2s" {
            let Some(socket) = self.sockets.get(&(conn, ws)).copied() else { return };
            let text = match line.get("frame") {
                Some(frame) => frame.to_string(),
                None => line["text"].as_str().unwrap().to_owned(),
            };
            let text = expand(&self.ours(&text));
            self.handle(ServerInput::Text { socket, text });
            return;
        }
        match line["event"].as_str().unwrap() {
            "open" => {
                let socket = SocketId(self.next_socket);
                self.next_socket += 1;
                self.sockets.insert((conn.clone(), ws), socket);
                self.owners.insert(socket, (conn.clone(), ws));
                let cookie = format!("{conn:0>2}AABBCCDDEEFF0011223344556677");
                self.handle(ServerInput::SocketOpened { socket, peer: "127.0.0.1".parse().unwrap(), cookie });
            }
            "close" => {
                // What the client saw. If the server closed, ours must have done so by now; else ours learns it here.
                if let Some(socket) = self.sockets.remove(&(conn.clone(), ws)) {
                    self.owners.remove(&socket);
                    if line["by"] == "server" && line["code"] != 1006 {
                        self.difference(&conn, Side::Recorded, &format!("close {} {}", line["code"], line["reason"]));
                    }
                    self.handle(ServerInput::SocketClosed {
                        socket,
                        code: line["code"].as_u64().unwrap() as u16,
                        reason: String::new(),
                    });
                } else if line["by"] == "server" && line["code"] != 1006 {
                    let reason = line["reason"].as_str().unwrap_or_default();
                    let code = line["code"].as_u64().unwrap() as u16;
                    let closes = &self.logs.entry(conn.clone()).or_default().closes;
                    if !closes.iter().any(|(w, c, r)| *w == ws && *c == code && r == reason) {
                        self.difference(&conn, Side::Recorded, &format!("close {code} {reason}"));
                    }
                }
            }
            "http" => self.rest(line),
            "A half open" => drop(self.silent.insert("A1".to_owned())),
            "killed" if conn == "MEDIA-SERVER" => {
                // Back within a second or gone for longer: the original reacts to what follows, so does the script.
                let quick = self.file.contains("quick");
                self.handle(if quick { ServerInput::MediaRestarted } else { ServerInput::MediaGone });
            }
            "binary-frame-sent" => {
                // The transport closes on binary frames (1003), before the room machine sees them.
                if let Some(socket) = self.sockets.remove(&(conn, ws)) {
                    self.owners.remove(&socket);
                    self.handle(ServerInput::SocketClosed { socket, code: 1003, reason: String::new() });
                }
            }
            _ => {}
        }
    }

    fn rest(&mut self, line: &Value) {
        let r = &line["request"];
        let path = self.ours(r["path"].as_str().unwrap());
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let body = r.get("body").filter(|b| !b.is_null()).map(|b| self.ours(&b.to_string())).unwrap_or_default();
        let mut headers = vec![("authorization".into(), "Basic T1BFTlZJRFVBUFA6TVlfU0VDUkVU".into())];
        if !body.is_empty() {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let request = RestRequest {
            method: r["method"].as_str().unwrap().into(),
            path: path.into(),
            query: query.into(),
            headers,
            body: body.into_bytes(),
        };
        let response = self.server.rest(&request, self.now);
        let ours: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        learn(&mut self.ids, &line["body"], &ours);
        self.drain();
        let what = format!("{} {}", r["method"].as_str().unwrap(), r["path"].as_str().unwrap());
        if u64::from(response.status) != line["status"].as_u64().unwrap() {
            self.difference("REST", Side::Recorded, &format!("{what} {}", line["status"]));
            return;
        }
        let (a, b) = (ignored::normalize(&line["body"]), ignored::normalize(&self.theirs(&ours)));
        if a != b {
            self.difference("REST", Side::Recorded, &format!("{what} {a} ours {b}"));
        }
    }

    /// Notes a difference, unless it is a wanted one.
    fn difference(&mut self, conn: &str, side: Side, what: &str) {
        let wanted = DEVIATIONS.iter().position(|d: &Deviation| {
            (d.file == self.file || d.file == "*")
                && (d.conn == conn || d.conn == "*")
                && d.side == side
                && what.contains(d.what)
        });
        match wanted {
            Some(i) => {
                self.used.insert(i);
            }
            None => self.differences.push(format!(
                "{} {conn} {side:?}: {}",
                self.file,
                what.chars().take(1500).collect::<String>()
            )),
        }
    }

    fn compare(&mut self) {
        let recorded = std::mem::take(&mut self.recorded);
        for (conn, theirs) in &recorded {
            let log = self.logs.remove(conn).unwrap_or_default();
            // Every request has at most one answer.
            for (id, frames) in &log.answers {
                assert_eq!(frames.len(), 1, "{} {conn}: {} answers to request {id}", self.file, frames.len());
            }
            for (id, frames) in &theirs.answers {
                let a = ignored::normalize(&frames[0]);
                let method = theirs.methods.get(id).cloned().unwrap_or_default();
                match log.answers.get(id).map(|f| ignored::normalize(&self.theirs(&f[0]))) {
                    // An exception of the original: any other answer is sensible, as long as there is one and it is not another exception.
                    Some(b) if a["error"]["code"] == -1 => {
                        assert_ne!(b["error"]["code"], -1, "{} {conn} {method} {id}", self.file);
                    }
                    Some(b) if a == b => {}
                    Some(b) => self.difference(conn, Side::Recorded, &format!("answer {id} {method} {a} ours {b}")),
                    None => self.difference(conn, Side::Recorded, &format!("answer {id} {method} {a} ours nothing")),
                }
            }
            for id in log.answers.keys().filter(|id| !theirs.answers.contains_key(id)) {
                let ours = ignored::normalize(&log.answers[id][0]);
                let method = theirs.methods.get(id).cloned().unwrap_or_default();
                self.difference(conn, Side::Ours, &format!("answer {id} {method} {ours}"));
            }
            let both =
                |order: &[i64], other: &[i64]| order.iter().filter(|i| other.contains(i)).copied().collect::<Vec<_>>();
            assert_eq!(
                both(&theirs.order, &log.order),
                both(&log.order, &theirs.order),
                "{} {conn}: order of the answers",
                self.file
            );
            let a: Vec<Value> = theirs.notifications.iter().map(|n| ignored::normalize(&expanded(n))).collect();
            let b: Vec<Value> = log.notifications.iter().map(|n| ignored::normalize(&self.theirs(n))).collect();
            let common = lcs(&a, &b);
            for (i, n) in a.iter().enumerate().filter(|(i, _)| !common.iter().any(|(x, _)| x == i)) {
                self.difference(conn, Side::Recorded, &format!("notification {i} {n}"));
            }
            for (i, n) in b.iter().enumerate().filter(|(i, _)| !common.iter().any(|(_, y)| y == i)) {
                self.difference(conn, Side::Ours, &format!("notification {i} {n}"));
            }
        }
    }
}

/// A page that is closed does not live to record it: the close is put where the server must have seen it, ten seconds before it gave up.
fn with_silent_closes(mut lines: Vec<Value>) -> Vec<Value> {
    let mut missing = Vec::new();
    for line in &lines {
        let params = &line["frame"]["params"];
        if line["frame"]["method"] != "participantLeft" || params["reason"] != "networkDisconnect" {
            continue;
        }
        let joined = lines.iter().find(|l| l["dir"] == "s2c" && l["frame"]["result"]["id"] == params["connectionId"]);
        let Some(conn) = joined.map(|l| &l["conn"]) else { continue };
        if !lines.iter().any(|l| l["conn"] == *conn && l["event"] == "close") {
            let at = line["t_ms"].as_f64().unwrap() - 10_000.0;
            missing.push(
                serde_json::json!({"t_ms": at, "conn": conn, "ws": 1, "event": "close", "code": 1001, "by": "client"}),
            );
        }
    }
    for close in missing {
        let at = close["t_ms"].as_f64().unwrap();
        let i = lines.iter().position(|l| l["t_ms"].as_f64().unwrap() > at).unwrap();
        lines.insert(i, close);
    }
    lines
}

/// Runs of `x` that the recording abbreviates.
fn expand(text: &str) -> String {
    let Some(at) = text.find("<x repeated ") else { return text.to_owned() };
    let rest = &text[at + 12..];
    let n: usize = rest.split(' ').next().unwrap().parse().unwrap();
    let end = at + text[at..].find('>').unwrap() + 1;
    format!("{}{}{}", &text[..at], "x".repeat(n), &text[end..])
}

fn expanded(frame: &Value) -> Value {
    serde_json::from_str(&expand(&frame.to_string())).unwrap()
}

/// Learns which of our ids stands for which recorded one from two answers of the same form.
fn learn(ids: &mut BTreeMap<String, String>, theirs: &Value, ours: &Value) {
    for name in ["id", "connectionId", "sessionId"] {
        if let (Some(a), Some(b)) = (theirs[name].as_str(), ours[name].as_str())
            && a != b
        {
            ids.insert(a.into(), b.into());
        }
    }
    if let (Some(a), Some(b)) = (theirs["token"].as_str(), ours["token"].as_str()) {
        let tail = |t: &str| t.split_once("token=").unwrap().1.to_owned();
        ids.insert(tail(a), tail(b));
    }
}

/// Pairs of indices of a longest common subsequence.
fn lcs(a: &[Value], b: &[Value]) -> Vec<(usize, usize)> {
    let mut n = vec![vec![0u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            n[i][j] = if a[i] == b[j] { n[i + 1][j + 1] + 1 } else { n[i + 1][j].max(n[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < a.len() && j < b.len() {
        if a[i] == b[j] {
            out.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if n[i + 1][j] >= n[i][j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

#[test]
fn every_recorded_call() {
    let mut differences = Vec::new();
    let mut used = BTreeSet::new();
    let mut files: Vec<PathBuf> = std::fs::read_dir(fixtures("calls")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 50, "fixtures are missing");
    for path in &files {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let lines: Vec<Value> =
            std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let lines = with_silent_closes(lines);
        let mut replay = Replay::new(name, &lines);
        for line in &lines {
            replay.line(line);
        }
        replay.answer_media(None);
        replay.compare();
        differences.append(&mut replay.differences);
        used.append(&mut replay.used);
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
    for (i, d) in DEVIATIONS.iter().enumerate() {
        assert!(used.contains(&i), "stale deviation: {d:?}");
        assert!(!d.why.is_empty());
    }
}
