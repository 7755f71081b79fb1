//! The room machine under frames, REST bodies and answers of any content.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tertulia::protocol::room::{
    Limits, MediaDone, MediaError, MediaOp, OpId, RestRequest, Server, ServerConfig, ServerInput, ServerOutput,
    SocketId,
};
use tertulia::protocol::{Now, Sdp, Secret, rpc};

/// Lines of one input that are carried out.
const LINES: usize = 96;

struct Host {
    server: Server,
    now: Now,
    open: BTreeSet<SocketId>,
    /// The socket that a letter stands for at present.
    letters: BTreeMap<u8, SocketId>,
    next_socket: u64,
    sent: BTreeMap<SocketId, u64>,
    waiting: Vec<OpId>,
    /// Legs that were asked for and not closed.
    legs: BTreeSet<u64>,
    /// What `$T`, `$P`, `$S` and `$R` stand for: tokens, connections, streams, JSON-RPC sessions.
    names: BTreeMap<u8, Vec<String>>,
}

impl Host {
    fn handle(&mut self, input: ServerInput) {
        self.server.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        for _ in 0..20_000 {
            match self.server.poll_output() {
                Some(ServerOutput::Send { socket, text }) => {
                    assert!(rpc::ServerFrame::parse(&text).is_ok(), "no client reads {text}");
                    self.learn(&text);
                    if self.open.contains(&socket) {
                        let sent = self.sent.entry(socket).or_default();
                        *sent += 1;
                        let frames = *sent;
                        self.server.handle(ServerInput::Delivered { socket, frames }, self.now);
                    }
                }
                Some(ServerOutput::Close { socket, .. }) => drop(self.open.remove(&socket)),
                Some(ServerOutput::Media { op, request }) => match request {
                    MediaOp::Publish { leg, .. }
                    | MediaOp::Subscribe { leg, .. }
                    | MediaOp::PrepareSubscribe { leg, .. } => {
                        assert!(self.legs.insert(leg.0), "a leg is made twice");
                        self.waiting.push(op);
                    }
                    MediaOp::SetAnswer { .. } => self.waiting.push(op),
                    MediaOp::CloseLeg { leg } => drop(self.legs.remove(&leg.0)),
                    MediaOp::Candidate { .. } | MediaOp::Draw { .. } => {}
                },
                None => return,
            }
        }
        panic!("the machine never comes to rest");
    }

    /// Notes names that later lines may mean.
    fn learn(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<serde_json::Value>(text) else { return };
        let result = &frame["result"];
        let told = [(b'P', &result["id"]), (b'R', &result["sessionId"]), (b'S', &result["streamId"])];
        for (letter, value) in told {
            if let Some(name) = value.as_str() {
                let letter = if name.starts_with("str_") { b'S' } else { letter };
                let names = self.names.entry(letter).or_default();
                if names.len() < 64 && !names.iter().any(|known| known == name) {
                    names.push(name.to_owned());
                }
            }
        }
    }

    /// The text with names for `$P0` and its like; every token serves once.
    fn named(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let letter = after.bytes().next().unwrap_or(b' ');
            let names = self.names.entry(letter).or_default();
            rest = after;
            match letter {
                b'T' => {
                    out.push_str(&names.pop().unwrap_or_default());
                    rest = &after[1..];
                }
                b'P' | b'S' | b'R' => {
                    let index = after[1..].chars().next().and_then(|c| c.to_digit(10));
                    let name = index.and_then(|index| names.get(index as usize));
                    out.push_str(name.map_or("", String::as_str));
                    rest = &after[if index.is_some() { 2 } else { 1 }..];
                }
                _ => out.push('$'),
            }
        }
        out.push_str(rest);
        out
    }

    fn socket(&mut self, letter: u8) -> SocketId {
        if let Some(socket) = self.letters.get(&letter).filter(|socket| self.open.contains(socket)) {
            return *socket;
        }
        self.next_socket += 1;
        let socket = SocketId(self.next_socket);
        self.letters.insert(letter, socket);
        self.open.insert(socket);
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        self.handle(ServerInput::SocketOpened { socket, peer, cookie: "c".repeat(32) });
        socket
    }

    fn lose(&mut self, socket: SocketId) {
        if self.open.remove(&socket) {
            self.handle(ServerInput::SocketClosed { socket, code: 1006, reason: String::new() });
        }
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.mono + time;
        for _ in 0..2_000 {
            let Some(due) = self.server.poll_timeout().filter(|due| *due <= until) else {
                self.now.mono = until;
                return;
            };
            self.now.mono = self.now.mono.max(due);
            self.handle(ServerInput::Tick);
        }
        panic!("its timer spins");
    }

    fn rest(&mut self, method: &str, path: &str, body: &str, authorized: bool) -> Vec<u8> {
        use base64::Engine as _;
        let credentials = base64::engine::general_purpose::STANDARD.encode("OPENVIDUAPP:S");
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        if authorized {
            headers.push(("authorization".to_owned(), format!("Basic {credentials}")));
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = RestRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers,
            body: body.as_bytes().to_vec(),
        };
        let response = self.server.rest(&request, self.now);
        assert!((200..600).contains(&response.status), "{}", response.status);
        self.drain();
        response.body
    }

    fn media(&mut self, result: &Result<MediaDone, MediaError>) {
        for op in std::mem::take(&mut self.waiting) {
            self.handle(ServerInput::Media { op, result: result.clone() });
        }
    }
}

/// Each line is one event: `A`…`H` a frame on a socket, `m` and `f` the media server's answers, `x` a lost socket, `w` so many milliseconds, `r` and `u`
/// a REST request with and without credentials, `n` a media server that begins anew.
pub fn room(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let now = Now { mono: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
    let config = ServerConfig {
        secret: Secret::new("S"),
        public_url: "https://h:4443".to_owned(),
        public_url_guessed: false,
        seed: [9; 32],
        limits: Limits::default(),
    };
    let mut host = Host {
        server: Server::new(config, now),
        now,
        open: BTreeSet::new(),
        letters: BTreeMap::new(),
        next_socket: 0,
        sent: BTreeMap::new(),
        waiting: Vec::new(),
        legs: BTreeSet::new(),
        names: BTreeMap::new(),
    };
    host.rest("POST", "/openvidu/api/sessions", r#"{"customSessionId":"s"}"#, true);
    for role in ["MODERATOR", "SUBSCRIBER", "PUBLISHER", "MODERATOR", "PUBLISHER", "PUBLISHER"] {
        let body = format!(r#"{{"role":"{role}"}}"#);
        let answer = host.rest("POST", "/openvidu/api/sessions/s/connection", &body, true);
        let answer: serde_json::Value = serde_json::from_slice(&answer).expect("an answer in JSON");
        let token = answer["token"].as_str().expect("a token").to_owned();
        host.names.entry(b'T').or_default().push(token);
    }
    for line in text.lines().take(LINES) {
        let Some(letter) = line.bytes().next().filter(u8::is_ascii) else { continue };
        let rest = &line[1..];
        match letter {
            b'A'..=b'H' => {
                let text = host.named(rest);
                let socket = host.socket(letter);
                host.handle(ServerInput::Text { socket, text });
            }
            b'm' => host.media(&Ok(MediaDone::Answer(Sdp::from("v=0")))),
            b'f' => host.media(&Err(MediaError::BadSdp("x".to_owned()))),
            b'x' => {
                let socket = rest.bytes().next().and_then(|letter| host.letters.get(&letter)).copied();
                if let Some(socket) = socket {
                    host.lose(socket);
                }
            }
            b'w' => host.wait(Duration::from_millis(rest.trim().parse::<u64>().unwrap_or(100).min(60_000))),
            b'r' | b'u' => {
                let rest = host.named(rest);
                let mut words = rest.splitn(3, ' ');
                let mut word = || words.next().unwrap_or("").to_owned();
                let (method, path, body) = (word(), word(), word());
                host.rest(&method, &path, &body, letter == b'r');
            }
            b'n' => {
                // It has lost them all by itself.
                host.legs.clear();
                host.handle(ServerInput::MediaRestarted);
            }
            _ => {}
        }
        let (counts, limits) = (host.server.counts(), Limits::default());
        assert!(counts.sockets <= host.open.len(), "{counts:?}");
        assert!(counts.sessions <= limits.sessions && counts.streams <= counts.participants, "{counts:?}");
    }
    // Everybody is gone: so is everything that was kept for them.
    for socket in host.open.clone() {
        host.lose(socket);
    }
    host.wait(Duration::from_secs(30));
    let counts = host.server.counts();
    assert_eq!((counts.participants, counts.streams, counts.sockets), (0, 0, 0), "{counts:?}");
    assert!(host.legs.is_empty(), "legs that nobody closes: {:?}", host.legs);
}
