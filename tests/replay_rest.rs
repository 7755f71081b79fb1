//! The REST side of the room machine answers the recorded requests as the recorded server did: statuses, headers, bodies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "replay/ignored.rs"]
mod ignored;

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use tertulia::protocol::room::{
    MediaDone, MediaOp, RestRequest, Server, ServerConfig, ServerInput, ServerOutput, SocketId,
};
use tertulia::protocol::{Now, Sdp, Secret};

/// What this host answers otherwise, by file and part of the exchange: (file, part of "METHOD path", why).
const DEVIATIONS: &[(&str, &str, &str)] = &[
    ("config", "GET /openvidu/api/config ", "there is no CDR here"),
    ("config", "GET /openvidu/api/config/openvidu-cdr", "there is no CDR here"),
    ("config", "GET /openvidu/api/config/openvidu-recording-path", "nothing is recorded here"),
    ("config", "GET /openvidu/cdr", "there is no CDR here"),
    (
        "config",
        "GET /openvidu/api/health",
        "answered by this host ({\"status\":\"UP\"}), by the original in its Pro edition only",
    ),
    ("config", "GET /openvidu/accept-certificate", "the page is public, as the original means it to be"),
    ("config", "GET /accept-certificate", "the page is public, as the original means it to be"),
    ("http", "GET /config ", "there is no CDR here"),
    ("http", "GET /cdr", "there is no CDR here"),
    ("http", "GET /openvidu/api//sessions", "with the headers every other answer has"),
    ("active-session", "webRtcStats=true", "which candidates were chosen, and when, is not shown here"),
    (
        "active-session",
        "POST /openvidu/api/sessions/rest-active/connection ",
        "this host cannot fetch IP cameras (500)",
    ),
    ("active-session", "ipc_IPCAM", "this host cannot fetch IP cameras"),
    ("active-session", "GET /openvidu/api/sessions/rest-active/connection ", "without the IP camera at the end"),
];

/// Headers that are compared; `strict-transport-security` is not sent on purpose: it would lock other servers of the same name out of plain HTTP.
const HEADERS: [&str; 13] = [
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-xss-protection",
    "cache-control",
    "pragma",
    "expires",
    "x-frame-options",
    "content-type",
    "allow",
    "accept",
    "access-control-allow-origin",
    "access-control-allow-methods",
];

struct Rest {
    server: Server,
    ids: BTreeMap<String, String>,
    now: Now,
}

impl Rest {
    fn new() -> Self {
        let now = Now { mono: Duration::ZERO, unix_ms: 1_795_200_000_000 };
        let config = ServerConfig {
            secret: Secret::new("MY_SECRET"),
            public_url: "https://127.0.0.1:4443".into(),
            public_url_guessed: false,
            seed: [3; 32],
            limits: Default::default(),
        };
        Self { server: Server::new(config, now), ids: BTreeMap::new(), now }
    }

    fn swap(&self, text: &str, back: bool) -> String {
        self.ids
            .iter()
            .fold(text.to_owned(), |t, (a, b)| if back { t.replace(b.as_str(), a) } else { t.replace(a.as_str(), b) })
    }

    fn learn(&mut self, theirs: &Value, ours: &Value) {
        for name in ["id", "connectionId", "streamId"] {
            if let (Some(a), Some(b)) = (theirs[name].as_str(), ours[name].as_str())
                && a != b
                && !a.starts_with("wss:")
            {
                let head = |id: &str| id.split_once("_con_").map_or(id, |(h, _)| h).to_owned();
                self.ids.insert(head(a), head(b));
            }
        }
        if let (Some(a), Some(b)) = (theirs["token"].as_str(), ours["token"].as_str()) {
            let tail = |t: &str| t.split_once("token=").unwrap().1.to_owned();
            self.ids.insert(tail(a), tail(b));
        }
    }

    fn exchange(&mut self, recorded: &Value) -> Vec<String> {
        let r = &recorded["request"];
        let path = self.swap(r["path"].as_str().unwrap(), false);
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        let body = match r.get("body") {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(value) => self.swap(&value.to_string(), false),
        };
        let note = recorded["note"].as_str().unwrap_or_default();
        let mut headers = Vec::new();
        for (name, value) in r["headers"].as_object().unwrap() {
            let value = match (name.as_str(), note) {
                // The recording leaves the credentials out; the notes say which were wrong.
                ("authorization", "wrong secret") => "Basic T1BFTlZJRFVBUFA6V1JPTkc=".to_owned(),
                ("authorization", "wrong user") => "Basic b3RoZXI6TVlfU0VDUkVU".to_owned(),
                ("authorization", "not base64") => "Basic %%%".to_owned(),
                ("authorization", _) if recorded["status"] == 401 && !path.contains("//") => "Bearer x".to_owned(),
                ("authorization", _) => "Basic T1BFTlZJRFVBUFA6TVlfU0VDUkVU".to_owned(),
                _ => value.as_str().unwrap().to_owned(),
            };
            headers.push((name.clone(), value));
        }
        let request = RestRequest {
            method: r["method"].as_str().unwrap().into(),
            path: path.into(),
            query: query.into(),
            headers,
            body: body.into_bytes(),
        };
        let response = self.server.rest(&request, self.now);
        while self.server.poll_output().is_some() {}
        let text = String::from_utf8(response.body.clone()).unwrap();
        let ours: Value = match (text.is_empty(), serde_json::from_str::<Value>(&text)) {
            (true, _) => Value::Null,
            (_, Ok(value)) => value,
            (_, Err(_)) => Value::String(text),
        };
        self.learn(&recorded["body"], &ours);
        let mut wrong = Vec::new();
        if u64::from(response.status) != recorded["status"].as_u64().unwrap() {
            wrong.push(format!("status {} instead of {}", response.status, recorded["status"]));
        }
        for name in HEADERS {
            let mine = response.headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
            if mine != recorded["response_headers"][name].as_str() {
                wrong.push(format!("{name}: {mine:?} instead of {}", recorded["response_headers"][name]));
            }
        }
        let back: Value = serde_json::from_str(&self.swap(&ours.to_string(), true)).unwrap();
        let (a, b) = (ignored::normalize(&versionless(&recorded["body"])), ignored::normalize(&versionless(&back)));
        if a != b {
            wrong.push(format!("body {b}\n  instead of {a}"));
        }
        wrong
    }

    fn file(&mut self, name: &str) -> (Vec<String>, BTreeSet<usize>) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rest").join(format!("{name}.json"));
        let exchanges: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
        for e in &exchanges {
            let what =
                format!("{} {} ", e["request"]["method"].as_str().unwrap(), e["request"]["path"].as_str().unwrap());
            let differences = self.exchange(e);
            if differences.is_empty() {
                continue;
            }
            match DEVIATIONS.iter().position(|(f, part, _)| *f == name && what.contains(part)) {
                Some(i) => {
                    used.insert(i);
                }
                None => wrong.push(format!("{name}: {what}\n  {}", differences.join("\n  "))),
            }
        }
        (wrong, used)
    }

    /// Two people who publish and subscribe to each other, as at the start of `active-session`.
    fn two_publishers(&mut self) {
        let people = [
            ("con_PosAP8Rz2E", "tok_Oe467f8BwPzNiqUc", "Alice", "str_CAM_Oc36"),
            ("con_EWBn9AfTfr", "tok_LgQX0qTPfBBcQAwu", "Bob", ""),
        ];
        self.post("/openvidu/api/sessions", &json!({"customSessionId": "rest-active"}));
        let mut streams = Vec::new();
        for (i, (con, tok, name, stream)) in people.iter().enumerate() {
            let ticket = self.post("/openvidu/api/sessions/rest-active/connection", &json!({}));
            self.learn(&json!({"id": con, "token": format!("x?token={tok}")}), &ticket);
            let socket = SocketId(i as u64);
            self.server.handle(
                ServerInput::SocketOpened { socket, peer: "127.0.0.1".parse().unwrap(), cookie: "0".repeat(32) },
                self.now,
            );
            let join = json!({"token": ticket["token"], "session": "rest-active", "platform": "x", "metadata": json!({"clientData": name}).to_string(), "secret": ""});
            self.call(socket, "joinRoom", &join);
            let publish = json!({"doLoopback": false, "hasAudio": true, "hasVideo": true, "audioActive": true, "videoActive": true, "typeOfVideo": "CAMERA",
                "frameRate": 15, "videoDimensions": "{\"width\":320,\"height\":240}", "sdpOffer": "v=0"});
            let id = self.call(socket, "publishVideo", &publish)["id"].as_str().unwrap().to_owned();
            if !stream.is_empty() {
                self.ids.insert((*stream).into(), id.split_once("_con_").unwrap().0.into());
            }
            streams.push(id);
        }
        self.call(SocketId(1), "receiveVideoFrom", &json!({"sender": streams[0], "sdpOffer": "v=0"}));
        self.call(SocketId(0), "receiveVideoFrom", &json!({"sender": streams[1], "sdpOffer": "v=0"}));
        // Bob's stream is named only inside bodies.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rest/active-session.json");
        let text = std::fs::read_to_string(path).unwrap();
        let at = text.find("_con_EWBn9AfTfr").unwrap();
        self.ids.insert(text[at - 12..at].into(), streams[1].split_once("_con_").unwrap().0.into());
    }

    fn post(&mut self, path: &str, body: &Value) -> Value {
        let headers = vec![
            ("authorization".into(), "Basic T1BFTlZJRFVBUFA6TVlfU0VDUkVU".into()),
            ("content-type".into(), "application/json".into()),
        ];
        let request = RestRequest {
            method: "POST".into(),
            path: path.into(),
            query: String::new(),
            headers,
            body: body.to_string().into_bytes(),
        };
        serde_json::from_slice(&self.server.rest(&request, self.now).body).unwrap()
    }

    fn call(&mut self, socket: SocketId, method: &str, params: &Value) -> Value {
        let text = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        self.server.handle(ServerInput::Text { socket, text }, self.now);
        let mut result = Value::Null;
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { socket: s, text } if s == socket => {
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if frame["id"] == 1 {
                        result = frame["result"].clone();
                    }
                }
                ServerOutput::Media { op, request: MediaOp::Publish { .. } | MediaOp::Subscribe { .. } } => {
                    self.server
                        .handle(ServerInput::Media { op, result: Ok(MediaDone::Answer(Sdp::from("v=0"))) }, self.now);
                }
                _ => {}
            }
        }
        assert!(result.is_object(), "{method} failed");
        result
    }
}

/// The recorded server was 2.32.1, this host claims 2.32.2.
fn versionless(value: &Value) -> Value {
    match value {
        Value::String(s) if s == "2.32.1" || s == "2.32.2" => json!("2.32"),
        // Without quotes a version is no JSON, but a number is.
        other => other.clone(),
    }
}

#[test]
fn every_recorded_exchange() {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    let mut keep = |(w, u): (Vec<String>, BTreeSet<usize>)| {
        wrong.extend(w);
        used.extend(u);
    };
    // Recorded one after another on one server. `recordings`, `recording-individual-index` and `config-with-recording-and-webhook` need recording enabled.
    let mut rest = Rest::new();
    for name in [
        "sessions",
        "sessions-errors",
        "connections",
        "connections-errors",
        "tokens",
        "signal-and-streams-inactive",
        "config",
        "recordings-disabled",
    ] {
        keep(rest.file(name));
    }
    let mut http = Rest::new();
    for id in ["RestA", "RestC"] {
        http.post("/openvidu/api/sessions", &json!({"customSessionId": id}));
    }
    http.post(
        "/openvidu/api/sessions",
        &json!({"customSessionId": "RestB", "forcedVideoCodec": "NONE", "defaultRecordingProperties": {"name": "MyRec", "resolution": "640x480", "frameRate": 30}}),
    );
    keep(http.file("http"));
    let mut active = Rest::new();
    active.two_publishers();
    keep(active.file("active-session"));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    for (i, d) in DEVIATIONS.iter().enumerate() {
        assert!(used.contains(&i), "stale deviation: {d:?}");
    }
}
