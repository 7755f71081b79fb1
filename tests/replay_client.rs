//! The client machine, fed with the recorded server side and with what the recorded user did, produces the recorded client side.
//!
//! Every connection of every file in `fixtures/calls` is played with its recorded times. From each recorded request the wish behind it is derived
//! ([`wish`]) and put to the machine; what the machine then sends must be the recorded frame. What the machine sends of itself (`ping`, `joinRoom`,
//! `connect`, closing the socket) is not asked for but must come. What is not compared for any file is in `replay/ignored.rs`; what single connections
//! do that no client of sound mind would is in `replay/excused.rs`, each with its reason.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "replay/excused.rs"]
mod excused;
#[path = "replay/ignored.rs"]
mod ignored;

use excused::Excuse::{All, Close, Method, RestFrom, Unreadable};
use excused::{EXCUSED, Excuse, excuses};
use ignored::{CLIENT_MEMBERS, CLIENT_UNSOLICITED, normalize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tertulia::protocol::Now;
use tertulia::protocol::client::{
    Action, Client, ClientConfig, ClientEvent, DimensionsReason, EndReason, Input, Output, OwnProperty,
    PublishProperties, Seed, State,
};
use tertulia::protocol::message::{Request, SignalMessage, VideoDimensions};
use tertulia::protocol::token::Token;

fn at(ms: f64) -> Duration {
    Duration::from_micros((ms * 1000.0) as u64)
}

fn text(v: &Value, name: &str) -> String {
    v[name].as_str().unwrap_or_default().to_owned()
}

/// The wish behind a recorded request, `None` for what the machine sends of itself.
fn wish(method: &str, p: &Value, client: &Client) -> Option<Action> {
    let dims = |s: &str| VideoDimensions::parse(s).expect("recorded dimensions");
    let sdp = |name: &str| p[name].as_str().unwrap_or_default().into();
    Some(match method {
        "ping" | "joinRoom" | "connect" => return None,
        "publishVideo" => Action::Publish {
            properties: PublishProperties {
                do_loopback: p["doLoopback"] == true,
                has_audio: p["hasAudio"] == true,
                has_video: p["hasVideo"] == true,
                audio_active: p["audioActive"].as_bool(),
                video_active: p["videoActive"].as_bool(),
                type_of_video: p["typeOfVideo"].as_str().map(str::to_owned),
                frame_rate: p["frameRate"].as_i64().map(|n| n as i32),
                video_dimensions: p["videoDimensions"].as_str().map(dims),
                filter: None,
            },
            sdp_offer: sdp("sdpOffer"),
        },
        "unpublishVideo" => Action::Unpublish,
        "receiveVideoFrom" if p["sdpAnswer"].is_string() => {
            Action::SubscribeAnswer { stream_id: text(p, "sender"), sdp_answer: sdp("sdpAnswer") }
        }
        "receiveVideoFrom" => Action::Subscribe { stream_id: text(p, "sender"), sdp_offer: sdp("sdpOffer") },
        "prepareReceiveVideoFrom" => {
            Action::PrepareSubscribe { stream_id: text(p, "sender"), reconnect: p["reconnect"] == true }
        }
        "unsubscribeFromVideo" => {
            let sender = text(p, "sender");
            let known = client.participants().find(|q| q.id == sender).and_then(|q| q.streams.first());
            Action::Unsubscribe { stream_id: known.map_or(format!("str_CAM_gone_{sender}"), |s| s.id.clone()) }
        }
        "onIceCandidate" => Action::IceCandidate {
            connection_id: text(p, "endpointName"),
            candidate: text(p, "candidate"),
            sdp_mid: text(p, "sdpMid"),
            sdp_m_line_index: p["sdpMLineIndex"].as_u64().unwrap() as u32,
        },
        "sendMessage" => {
            let message = text(p, "message");
            match SignalMessage::parse(&message) {
                Ok(m)
                    if SignalMessage::new(
                        m.kind.as_deref().unwrap_or(""),
                        m.data.as_deref().unwrap_or(""),
                        m.to.clone(),
                    )
                    .to_json()
                        == message =>
                {
                    Action::Signal { kind: m.kind.unwrap(), data: m.data.unwrap(), to: m.to }
                }
                // A signal of a form that our own actions do not give, sent as it is.
                _ => raw(method, p)?,
            }
        }
        "streamPropertyChanged" if client.own_stream() == p["streamId"].as_str() => {
            let value = &p["newValue"];
            Action::PropertyChanged(match p["property"].as_str().unwrap() {
                "audioActive" => OwnProperty::AudioActive(value == true),
                "videoActive" => OwnProperty::VideoActive(value == true),
                "audioTrack" => OwnProperty::AudioTrack(text(value, "label")),
                "videoTrack" => OwnProperty::VideoTrack(text(value, "label")),
                "videoDimensions" => OwnProperty::VideoDimensions {
                    dimensions: dims(value.as_str().unwrap()),
                    reason: match p["reason"].as_str().unwrap() {
                        "screenResized" => DimensionsReason::ScreenResized,
                        "deviceRotated" => DimensionsReason::DeviceRotated,
                        _ => DimensionsReason::TrackReplaced,
                    },
                },
                other => panic!("property {other}"),
            })
        }
        "reconnectStream" if client.own_stream() == p["stream"].as_str() => {
            Action::ReconnectPublisher { sdp_offer: sdp("sdpString") }
        }
        "reconnectStream" if p["sdpOffer"].is_string() => {
            Action::ReconnectSubscriber { stream_id: text(p, "stream"), sdp_offer: sdp("sdpOffer") }
        }
        "reconnectStream" if p["forciblyReconnect"].is_boolean() => Action::ReconnectSubscriberAnswer {
            stream_id: text(p, "stream"),
            sdp_answer: sdp("sdpString"),
            forcibly: p["forciblyReconnect"] == true,
        },
        "echo" => Action::Probe,
        "forceDisconnect" => Action::ForceDisconnect { connection_id: text(p, "connectionId") },
        "forceUnpublish" => Action::ForceUnpublish { stream_id: text(p, "streamId") },
        "leaveRoom" => Action::Leave,
        _ => raw(method, p)?,
    })
}

/// A request without an action of its own: filters, speech to text, and the odd forms of scripts.
fn raw(method: &str, p: &Value) -> Option<Action> {
    Request::parse(method, Some(p)).ok().map(|r| Action::Request(Box::new(r)))
}

struct Replay<'a> {
    name: String,
    excuses: Vec<Excuse>,
    client: Client,
    now: Duration,
    /// The machine's newest socket, and whether it was told that it is open.
    socket: Option<(u32, bool)>,
    /// Frames sent on the socket so far.
    sent_on_socket: usize,
    resumed_socket: bool,
    /// Sent and not yet compared.
    produced: VecDeque<Value>,
    /// Recorded request id → the machine's.
    ids: HashMap<i64, i64>,
    /// On this socket: the machine's pings, the recorded ones, and which recorded ones were answered already.
    pings: Vec<i64>,
    recorded_pings: &'a HashMap<u64, Vec<i64>>,
    answered_pings: BTreeSet<usize>,
    ws: u64,
    closes: Vec<(u16, String)>,
    urls: Vec<String>,
    events: Vec<ClientEvent>,
    /// When the server dropped us while we were away.
    evicted_while_away: Option<Duration>,
    compared: usize,
    differences: Vec<String>,
}

impl Replay<'_> {
    fn differ(&mut self, what: String) {
        self.differences.push(format!("{} at {:.1} ms: {what}", self.name, self.now.as_secs_f64() * 1000.0));
    }

    fn put(&mut self, input: Input) {
        self.client.handle(input, Now { mono: self.now, unix_ms: 0 });
        self.drain();
    }

    fn say(&mut self, frame: &Value) {
        if let Some((socket, true)) = self.socket {
            self.put(Input::Text { socket, text: frame.to_string().into() });
        }
    }

    fn drain(&mut self) {
        let mut answers = Vec::new();
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::OpenSocket { socket, url } => {
                    self.socket = Some((socket, false));
                    self.urls.push(url);
                }
                Output::CloseSocket { socket, code, reason } => {
                    if self.socket.is_some_and(|(s, _)| s == socket) {
                        self.socket = None;
                        self.closes.push((code, reason.to_owned()));
                    }
                }
                Output::Send { socket, text } => {
                    assert_eq!(self.socket, Some((socket, true)), "{}: sends on a socket that is not open", self.name);
                    let frame: Value = serde_json::from_str(&text.0).unwrap();
                    assert_eq!(frame["jsonrpc"], "2.0");
                    let id = frame["id"].as_i64().unwrap();
                    // `connect` comes first on a resumed socket, a ping with its interval in front of everything else.
                    let index = self.sent_on_socket;
                    self.sent_on_socket += 1;
                    if index == 0 {
                        self.resumed_socket = frame["method"] == "connect";
                    }
                    if index == usize::from(self.resumed_socket) {
                        assert_eq!(frame["method"], "ping", "{}", self.name);
                        assert_eq!(frame["params"], json!({"interval":5000}));
                    } else if frame["method"] == "ping" {
                        assert!(frame.get("params").is_none(), "{}: only the first ping has parameters", self.name);
                    }
                    let size = |name: &str| frame["params"][name].as_u64();
                    let name = match frame["method"].as_str().unwrap() {
                        "videoData" if (size("width"), size("height")) == (Some(0), Some(0)) => "videoData:0x0",
                        name => name,
                    };
                    match name {
                        _ if CLIENT_UNSOLICITED.iter().all(|(unsolicited, _)| *unsolicited != name) => {
                            self.produced.push_back(frame);
                        }
                        "ping" => {
                            let nth = self.pings.len();
                            self.pings.push(id);
                            let recorded = self.recorded_pings.get(&self.ws).and_then(|p| p.get(nth));
                            // One that the recorded client did not send, or whose answer the recording gave already.
                            if recorded.is_none() || self.answered_pings.contains(&nth) {
                                answers.push(json!({"id":id,"result":{"value":"pong"},"jsonrpc":"2.0"}));
                            }
                        }
                        // The server drops it when the participant is gone.
                        _ => {
                            if self.evicted_while_away.is_none_or(|t| t > self.now) {
                                answers.push(json!({"id":id,"result":{"sessionId":"x"},"jsonrpc":"2.0"}));
                            }
                        }
                    }
                }
                Output::Event(event) => self.events.push(event),
            }
        }
        for answer in answers {
            self.say(&answer);
        }
    }

    /// Lets the time pass, with every timer on its way.
    fn advance(&mut self, to: Duration) {
        let mut rounds = 0;
        while let Some(due) = self.client.poll_timeout().filter(|d| *d <= to) {
            self.now = self.now.max(due);
            self.put(Input::Timeout);
            rounds += 1;
            assert!(rounds < 1000, "{}: the timers never come to rest", self.name);
        }
        self.now = to;
    }

    fn expect(&mut self, recorded: &Value) {
        let Some(ours) = self.produced.pop_front() else {
            return self.differ(format!("nothing sent for {}", short(recorded)));
        };
        if let (Some(theirs), Some(mine)) = (recorded["id"].as_i64(), ours["id"].as_i64()) {
            self.ids.insert(theirs, mine);
        }
        let strip = |frame: &Value| {
            let mut frame = normalize(frame);
            for (member, _) in CLIENT_MEMBERS {
                frame.as_object_mut().unwrap().remove(*member);
            }
            frame
        };
        if strip(&ours) != strip(recorded) {
            self.differ(format!("sent {} instead of {}", short(&ours), short(recorded)));
        }
        self.compared += 1;
    }

    fn client_frame(&mut self, frame: &Value, open: bool, connects: usize) -> bool {
        let method = frame["method"].as_str().unwrap_or_default();
        let numbered = format!("{method}#{connects}");
        let ended = matches!(self.client.state(), State::Ended(_));
        for excuse in self.excuses.clone() {
            match excuse {
                RestFrom(m) if m == numbered || (m == method && (ended || method != "joinRoom")) => return false,
                Method(m) if m == method => {
                    if method == "joinRoom" {
                        // Ours goes out in its place and gets its answer.
                        let ours = self.produced.pop_front().expect("a join");
                        self.ids.insert(frame["id"].as_i64().unwrap(), ours["id"].as_i64().unwrap());
                    }
                    return true;
                }
                Unreadable if Request::parse(method, frame.get("params")).is_err() => return true,
                _ => {}
            }
        }
        if method == "ping" {
            return true;
        }
        match wish(method, &frame["params"], &self.client) {
            Some(action) => {
                self.put(Input::User(0, action));
                if open {
                    self.expect(frame);
                }
            }
            None => self.expect(frame),
        }
        true
    }

    fn server_frame(&mut self, frame: &Value) {
        let Some(id) = frame.get("id").and_then(Value::as_i64) else { return self.say(frame) };
        let ping = self.recorded_pings.get(&self.ws).and_then(|p| p.iter().position(|ping| *ping == id));
        let ours = match ping {
            Some(nth) => {
                self.answered_pings.insert(nth);
                self.pings.get(nth)
            }
            None => self.ids.get(&id),
        };
        if let Some(ours) = ours {
            let mut frame = frame.clone();
            frame["id"] = json!(ours);
            self.say(&frame);
        }
    }
}

fn short(frame: &Value) -> String {
    let text = normalize(frame).to_string();
    text.chars().take(300).collect()
}

fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/calls");
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "jsonl"));
    files.sort();
    files
}

/// Plays one connection. Gives the frames compared and the differences.
fn play(file: &str, conn: &str, lines: &[Value], evicted_while_away: Option<Duration>) -> (usize, Vec<String>) {
    let excuses = excuses(file, conn);
    if excuses.contains(&All) {
        return (0, Vec::new());
    }
    let mut recorded_pings: HashMap<u64, Vec<i64>> = HashMap::new();
    for line in lines.iter().filter(|l| l["frame"]["method"] == "ping") {
        let id = line["frame"]["id"].as_i64().unwrap();
        recorded_pings.entry(line["ws"].as_u64().unwrap()).or_default().push(id);
    }
    let join = lines.iter().find(|l| l["frame"]["method"] == "joinRoom").expect("a join");
    let params = &join["frame"]["params"];
    let config = ClientConfig {
        token: Token::parse(params["token"].as_str().unwrap()).expect("recorded token"),
        platform: "test".to_owned(),
        sdk_version: params["sdkVersion"].as_str().unwrap_or("2.32.2").to_owned(),
        metadata: params["metadata"].as_str().unwrap_or_default().to_owned(),
        can_rejoin: false,
        seed: Seed(file.len() as u64),
    };
    let mut r = Replay {
        name: format!("{file}/{conn}"),
        excuses,
        client: Client::new(config),
        now: at(lines[0]["t_ms"].as_f64().unwrap()),
        socket: None,
        sent_on_socket: 0,
        resumed_socket: false,
        produced: VecDeque::new(),
        ids: HashMap::new(),
        pings: Vec::new(),
        recorded_pings: &recorded_pings,
        answered_pings: BTreeSet::new(),
        ws: 0,
        closes: Vec::new(),
        urls: Vec::new(),
        events: Vec::new(),
        evicted_while_away,
        compared: 0,
        differences: Vec::new(),
    };
    r.put(Input::User(0, Action::Join));
    let mut open = false;
    let mut connects = 0;
    let mut complete = true;
    let mut evicted = None;
    for line in lines {
        r.advance(at(line["t_ms"].as_f64().unwrap()));
        match (line["event"].as_str(), line["dir"].as_str()) {
            (Some("open"), _) => {
                if let Some((socket, true)) = r.socket {
                    // The script opens its next socket before a client could know that the old one is dead.
                    r.put(Input::SocketClosed { socket, code: 1006, reason: String::new() });
                }
                let Some((socket, false)) = r.socket else {
                    r.differ("opens no socket".to_owned());
                    break;
                };
                r.socket = Some((socket, true));
                r.ws = line["ws"].as_u64().unwrap();
                r.pings.clear();
                r.answered_pings.clear();
                r.sent_on_socket = 0;
                open = true;
                let url = r.urls.last().cloned().unwrap_or_default();
                if line["url"] != url.as_str() {
                    r.differ(format!("opened {url} instead of {}", line["url"]));
                }
                r.put(Input::SocketOpen(socket));
            }
            (Some("error"), _) if !open => {
                if let Some((socket, false)) = r.socket {
                    r.socket = None;
                    r.put(Input::SocketFailed { socket, detail: "refused".to_owned() });
                }
            }
            (Some("close"), _) => {
                let code = line["code"].as_u64().unwrap() as u16;
                if line["ws"].as_u64() != Some(r.ws) || !open {
                    continue;
                }
                open = false;
                let ours = r.closes.last().map(|(code, _)| *code);
                if let Some((socket, true)) = r.socket {
                    if line["by"] == "client" && code != 1006 && !r.excuses.contains(&Close) {
                        r.differ(format!("does not close with {code}"));
                    }
                    r.socket = None;
                    r.put(Input::SocketClosed { socket, code, reason: text(line, "reason") });
                } else if line["by"] == "client" && code != 1006 {
                    let wished = lines.iter().filter(|l| l["event"] == "closing" && l["ws"] == line["ws"]);
                    let mut codes: Vec<_> = wished.filter_map(|l| l["code"].as_u64()).collect();
                    codes.push(u64::from(code));
                    if !ours.is_some_and(|c| codes.contains(&u64::from(c))) {
                        r.differ(format!("closed with {ours:?} instead of {codes:?}"));
                    }
                }
            }
            (None, Some("c2s")) => {
                // In browsers the old socket counts until the next one is open; nothing sent on it then reaches the server.
                let open = open && line["ws"].as_u64() == Some(r.ws);
                let frame = &line["frame"];
                connects += usize::from(frame["method"] == "connect");
                if !r.client_frame(frame, open && r.socket.is_some(), connects) {
                    complete = false;
                    break;
                }
                if open && r.socket.is_none() && frame["method"] != "ping" && frame["method"] != "videoData" {
                    r.differ(format!("has closed the socket before {}", short(frame)));
                }
            }
            (None, Some("s2c")) if line["ws"].as_u64() == Some(r.ws) => {
                let own = r.client.connection_id().map(str::to_owned);
                let p = &line["frame"]["params"];
                if line["frame"]["method"] == "participantEvicted" && p["connectionId"].as_str() == own.as_deref() {
                    evicted = Some(text(p, "reason"));
                }
                r.server_frame(&line["frame"]);
            }
            _ => {}
        }
        let resumed = line["frame"]["result"]["value"] == "reconnection successful";
        if evicted_while_away.is_some_and(|t| t <= r.now) && resumed {
            // From here on the recorded client believes to be in the session. Ours has to notice within five seconds.
            let limit = r.now + Duration::from_secs(5);
            r.advance(limit);
            if *r.client.state() != State::Ended(EndReason::NeedsNewToken) {
                let state = r.client.state().clone();
                r.differ(format!("does not notice that it was evicted: {state:?}"));
            }
            return (r.compared, r.differences);
        }
    }
    if let Some(extra) = r.produced.pop_front().filter(|_| complete) {
        r.differ(format!("sends more than the recorded client: {}", short(&extra)));
    }
    let state = r.client.state().clone();
    let left = lines.iter().any(|l| l["frame"]["method"] == "leaveRoom" && l["dir"] == "c2s");
    match evicted {
        Some(reason) if state != State::Ended(EndReason::Evicted { reason: reason.clone() }) => {
            r.differ(format!("{state:?} after an eviction ({reason})"));
        }
        None if complete
            && left
            && r.evicted_while_away.is_none()
            && file != "reconnect-after-window"
            && state != State::Ended(EndReason::Left) =>
        {
            r.differ(format!("{state:?} after leaving"));
        }
        _ => {}
    }
    (r.compared, r.differences)
}

#[test]
fn every_recorded_client_is_replayed() {
    let mut compared = 0;
    let mut connections = 0;
    let mut differences = Vec::new();
    let mut used = BTreeSet::new();
    for path in fixtures() {
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let content = std::fs::read_to_string(&path).unwrap();
        let all: Vec<Value> = content.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        let mut by_conn: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for line in &all {
            by_conn.entry(text(line, "conn")).or_default().push(line.clone());
        }
        for (conn, lines) in by_conn.iter().filter(|(_, lines)| lines.iter().any(|l| l["dir"] == "c2s")) {
            used.insert((file.clone(), conn.clone()));
            // Evicted behind its back: the others are told while it has no socket.
            let own = lines
                .iter()
                .find_map(|l| l["frame"]["result"]["session"].as_str().map(|_| text(&l["frame"]["result"], "id")));
            let away = all.iter().find(|l| {
                l["frame"]["method"] == "participantEvicted"
                    && l["conn"] != conn.as_str()
                    && Some(text(&l["frame"]["params"], "connectionId")) == own
                    && l["frame"]["params"]["reason"] == ""
            });
            let away = away.map(|l| at(l["t_ms"].as_f64().unwrap()));
            let (frames, found) = play(&file, conn, lines, away);
            compared += frames;
            connections += 1;
            differences.extend(found);
        }
    }
    for (file, conn, _, reason) in EXCUSED {
        assert!(used.contains(&((*file).to_owned(), (*conn).to_owned())), "no such connection: {file}/{conn}");
        assert!(!reason.is_empty());
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
    println!("{compared} frames of {connections} connections");
    assert!(compared > 2000 && connections >= 120, "{compared} frames of {connections} connections");
}
