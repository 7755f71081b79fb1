//! A scripted OpenVidu server with a Kurento: REST and WebSocket in the forms that were recorded from the real one, the recorded SDP with a
//! living stack behind it. It is as strict as the original: what that refuses, drops or answers with -1 is refused, dropped or answered so here.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod client;
pub mod leg;
pub mod media;
mod room;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use leg::{Control, KeyWish, Leg};
use media::{Feed, Person};

pub const ROOM: &str = "two-publishers";

/// What differs from test to test; may be changed while the server runs.
#[derive(Default)]
pub struct Script {
    /// `joinRoom` says `mediasoup`: the client lets the server make the offers.
    pub server_offers: bool,
    /// The server's candidates go out before the answer that they belong to.
    pub candidates_first: AtomicBool,
    /// No candidates of the server: only those of the client lead to a connection.
    pub no_candidates: AtomicBool,
    /// Subscribers get no key frame; each one kept back is counted.
    pub no_key_frames: AtomicBool,
    pub kept_back: AtomicU32,
    /// Pictures are lost on the way to subscribers, without a trace of them at the server that could be repeated.
    pub lose_pictures: AtomicBool,
    /// `forcedVideoCodec`, VP8 unless given.
    pub codec: Option<&'static str>,
    /// `customIceServers` of the join; the record's when there are none.
    pub ice_servers: Option<Value>,
    /// The session ends between the two requests of a client, once.
    pub ends_between: AtomicBool,
    /// Until then `publishVideo` is refused, with these codes in turn, as while a media server restarts.
    pub restarting: Mutex<Option<(Instant, Vec<i64>)>>,
    pub control: Arc<Control>,
}

/// A frame, a request or a close, in the order in which it came or went.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: Instant,
    /// Connection id, or `REST`; the token before the join.
    pub who: String,
    pub from_client: bool,
    /// The frame, `{"request": …}` or `{"close": code, "reason": …}`.
    pub what: Value,
}

pub struct Stream {
    pub info: Value,
    pub feed: Feed,
    pub wish: Arc<KeyWish>,
    /// Keeps a scripted person acting.
    person: Option<Person>,
}

struct Member {
    id: String,
    metadata: String,
    /// JSON-RPC session.
    rpc: String,
    created_at: u64,
    role: String,
    stream: Option<Stream>,
    /// Nothing is told to scripted ones.
    tell: Option<mpsc::Sender<String>>,
    /// By the connection that publishes: the own one for the publication.
    legs: HashMap<String, Arc<Leg>>,
    /// Candidates of the client for legs that do not exist yet.
    early: HashMap<String, Vec<String>>,
}

#[derive(Default)]
pub struct Room {
    created: bool,
    /// Unused tokens: connection id and role.
    tokens: HashMap<String, (String, String)>,
    members: BTreeMap<String, Member>,
    /// Every leg ever made: connection of the client, connection of the publisher, leg.
    pub legs: Vec<(String, String, Arc<Leg>)>,
    pub log: Vec<Entry>,
    numbers: u32,
    /// Ends a socket's tasks, in order of the sockets.
    cables: Vec<tokio::task::AbortHandle>,
}

pub struct Shared {
    pub script: Script,
    pub room: Mutex<Room>,
    addr: SocketAddr,
    secret: String,
}

pub struct Server {
    pub shared: Arc<Shared>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start(script: Script, secret: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { script, room: Mutex::default(), addr, secret: secret.to_owned() });
        let all = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let task = tokio::spawn(serve(stream, Arc::clone(&all)));
                all.room.lock().unwrap().cables.push(task.abort_handle());
            }
        });
        Self { shared, runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Somebody who publishes without a socket: the others are told as if there was one.
    pub fn add(&self, id: &str, person: Option<Person>, info: Value) {
        self.add_as(id, &json!({"clientData": id}).to_string(), person, info);
    }

    /// The same with metadata of one's own.
    pub fn add_as(&self, id: &str, metadata: &str, person: Option<Person>, info: Value) {
        let connection = format!("con_{id}");
        let created_at = 1_795_201_310_612_u64;
        let member = Member {
            id: connection.clone(),
            metadata: metadata.to_owned(),
            rpc: String::new(),
            created_at,
            role: "PUBLISHER".to_owned(),
            stream: None,
            tell: None,
            legs: HashMap::new(),
            early: HashMap::new(),
        };
        self.shared.room.lock().unwrap().members.insert(connection.clone(), member);
        let joined = json!({"id": connection, "createdAt": created_at, "metadata": metadata});
        self.shared.notify(Some(&connection), "participantJoined", &joined);
        self.publish(id, person, info);
    }

    /// A scripted member publishes; `info` is laid over what Chromium announces.
    pub fn publish(&self, id: &str, person: Option<Person>, info: Value) -> String {
        let connection = format!("con_{id}");
        let mut stream = json!({
            "id": format!("str_CAM_{:04}_{connection}", self.shared.number()), "createdAt": 1_795_201_311_004_u64,
            "hasAudio": true, "hasVideo": true, "videoActive": true, "audioActive": true, "typeOfVideo": "CAMERA",
            "frameRate": 30, "videoDimensions": "{\"width\":320,\"height\":180}", "filter": {},
        });
        for (name, value) in info.as_object().unwrap() {
            match value.is_null() {
                true => drop(stream.as_object_mut().unwrap().remove(name)),
                false => stream[name] = value.clone(),
            }
        }
        let stream_id = stream["id"].as_str().unwrap().to_owned();
        let feed = person.as_ref().map_or_else(media::feed, |p| p.feed.clone());
        let told = json!({"id": connection, "streams": [stream.clone()]});
        if let Some(member) = self.shared.room.lock().unwrap().members.get_mut(&connection) {
            member.stream = Some(Stream { info: stream, feed, wish: Arc::default(), person });
        }
        self.shared.notify(Some(&connection), "participantPublished", &told);
        stream_id
    }

    /// The switches of a scripted person.
    pub fn switches(&self, id: &str) -> Arc<media::Switches> {
        let room = self.shared.room.lock().unwrap();
        let stream = room.members[&format!("con_{id}")].stream.as_ref().unwrap();
        Arc::clone(&stream.person.as_ref().unwrap().switches)
    }

    /// A scripted person changes a property of the stream; told as the original tells it, the value as text.
    pub fn change(&self, id: &str, property: &str, value: &Value, reason: &str) {
        let connection = format!("con_{id}");
        let stream_id = {
            let mut room = self.shared.room.lock().unwrap();
            let info = &mut room.members.get_mut(&connection).unwrap().stream.as_mut().unwrap().info;
            info[property] = value.clone();
            info["id"].clone()
        };
        let told = json!({"connectionId": connection, "streamId": stream_id, "property": property,
            "newValue": value.to_string(), "reason": reason});
        self.shared.notify(Some(&connection), "streamPropertyChanged", &told);
    }

    /// A scripted person stops publishing, or the server stops whoever it is.
    pub fn unpublish(&self, connection: &str, reason: &str) {
        let _runtime = self.runtime.enter();
        if let Some(member) = self.shared.room.lock().unwrap().members.get_mut(connection) {
            member.stream = None;
        }
        self.shared.tear_down(connection);
        let not = (reason == "unpublish").then_some(connection);
        let told = json!({"connectionId": connection, "reason": reason});
        self.shared.notify(not, "participantUnpublished", &told);
    }

    /// Forgets what somebody publishes and tells nobody.
    pub fn forget(&self, connection: &str) {
        let _runtime = self.runtime.enter();
        if let Some(member) = self.shared.room.lock().unwrap().members.get_mut(connection) {
            member.stream = None;
        }
        self.shared.tear_down(connection);
    }

    /// Tells everybody.
    pub fn notify(&self, method: &str, params: &Value) {
        self.shared.notify(None, method, params);
    }

    /// Cuts the newest leg between a client and a publisher, as a media server that forgets it.
    pub fn cut(&self, client: &str, publisher: &str) {
        let leg = self.leg(client, publisher);
        self.runtime.block_on(leg.close());
    }

    /// Breaks every socket; whoever comes back with `connect` finds everything as it was.
    pub fn pull_cables(&self) {
        let mut room = self.shared.room.lock().unwrap();
        for cable in room.cables.drain(..) {
            cable.abort();
        }
        for member in room.members.values_mut() {
            member.tell = None;
        }
    }

    pub fn log(&self) -> Vec<Entry> {
        self.shared.room.lock().unwrap().log.clone()
    }

    /// Requests of one client with this method, in order.
    pub fn requests(&self, who: &str, method: &str) -> Vec<Value> {
        let all = self.log().into_iter();
        all.filter(|e| e.from_client && e.who == who && e.what["method"] == method).map(|e| e.what).collect()
    }

    pub fn legs(&self, client: &str, publisher: &str) -> Vec<Arc<Leg>> {
        let room = self.shared.room.lock().unwrap();
        room.legs.iter().filter(|(c, p, _)| c == client && p == publisher).map(|(_, _, leg)| Arc::clone(leg)).collect()
    }

    /// The newest leg between a client and a publisher.
    pub fn leg(&self, client: &str, publisher: &str) -> Arc<Leg> {
        self.legs(client, publisher).pop().expect("a leg")
    }

    /// Key frames that a client made on request, and how long each took.
    pub fn key_frame_times(&self, publisher: &str) -> Vec<Duration> {
        let room = self.shared.room.lock().unwrap();
        let wish = Arc::clone(&room.members[publisher].stream.as_ref().expect("it publishes").wish);
        drop(room);
        let times = wish.answered.lock().unwrap();
        times.clone()
    }

    /// Asks a publishing client for a key frame, as for a new subscriber.
    pub fn ask_key_frame(&self, publisher: &str) {
        self.shared.room.lock().unwrap().members[publisher].stream.as_ref().expect("it publishes").wish.wish();
    }
}

impl Shared {
    fn number(&self) -> u32 {
        let mut room = self.room.lock().unwrap();
        room.numbers += 1;
        room.numbers
    }

    /// The legs of a stream that is gone; nobody is told about those of its subscribers.
    fn tear_down(&self, publisher: &str) {
        let mut room = self.room.lock().unwrap();
        for leg in room.members.values_mut().filter_map(|m| m.legs.remove(publisher)) {
            leg.forget();
        }
    }

    fn note(&self, who: &str, from_client: bool, what: Value) {
        let entry = Entry { at: Instant::now(), who: who.to_owned(), from_client, what };
        self.room.lock().unwrap().log.push(entry);
    }

    /// Tells everybody but `not`.
    fn notify(&self, not: Option<&str>, method: &str, params: &Value) {
        let text = json!({"method": method, "params": params, "jsonrpc": "2.0"}).to_string();
        for member in self.room.lock().unwrap().members.values().filter(|m| Some(m.id.as_str()) != not) {
            if let Some(tell) = &member.tell {
                tell.try_send(text.clone()).expect("the client takes its notifications");
            }
        }
    }

    /// One REST exchange: path and body in, status and body out.
    fn rest(&self, method: &str, path: &str, authorized: bool, body: &str) -> (&'static str, String) {
        let parsed: Result<Value, _> = serde_json::from_str(body);
        self.note("REST", true, json!({"request": method, "path": path, "body": parsed.as_ref().ok()}));
        if !authorized {
            return ("401 Unauthorized", String::new());
        }
        let Ok(body) = parsed else { return ("403 Forbidden", String::new()) };
        let recorded: Vec<Value> = room::recording(ROOM).into_iter().filter(|l| l["event"] == "http").collect();
        match (method, path) {
            ("POST", "/openvidu/api/sessions") => {
                assert_eq!(body["customSessionId"], ROOM);
                if std::mem::replace(&mut self.room.lock().unwrap().created, true) {
                    return ("409 Conflict", String::new());
                }
                if self.script.ends_between.swap(false, std::sync::atomic::Ordering::Relaxed) {
                    self.room.lock().unwrap().created = false;
                }
                ("200 OK", recorded[0]["body"].to_string())
            }
            ("POST", p) if p == format!("/openvidu/api/sessions/{ROOM}/connection") => {
                let number = self.number();
                let mut room = self.room.lock().unwrap();
                if !room.created {
                    return ("404 Not Found", String::new());
                }
                let mut answer = recorded[1]["body"].clone();
                let id = format!("con_X{number:09}");
                let token = format!("ws://{}?sessionId={ROOM}&token=tok_A{number:015}", self.addr);
                for name in ["id", "connectionId"] {
                    answer[name] = json!(id);
                }
                let role = body["role"].as_str().unwrap_or("PUBLISHER").to_owned();
                answer["role"] = json!(role);
                answer["token"] = json!(token);
                room.tokens.insert(token, (id, role));
                ("200 OK", answer.to_string())
            }
            _ => ("403 Forbidden", String::new()),
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut head = [0; 4];
    while stream.peek(&mut head).await.unwrap_or(0) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if !head.starts_with(b"GET") {
        return rest(stream, &shared).await;
    }
    // The original answers 401 on any other path, a slash more included; the query is of no interest to it.
    #[allow(clippy::result_large_err)] // the handshake's own type
    let check = |request: &Request, response: Response| {
        let uri = request.uri();
        let query = uri.query().unwrap_or_default();
        assert_eq!(
            (uri.path(), query.trim_end_matches("&reconnect=true")),
            ("/openvidu", &*format!("sessionId={ROOM}"))
        );
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
    let (mut to_client, mut from_client) = socket.split();
    let (tell, mut told) = mpsc::channel::<String>(1_024);
    let (requests, queue) = mpsc::channel::<Value>(1_024);
    let who = Arc::new(Mutex::new(String::new()));
    let (all, name) = (Arc::clone(&shared), Arc::clone(&who));
    tokio::spawn(async move {
        while let Some(text) = told.recv().await {
            let who = name.lock().unwrap().clone();
            all.note(&who, false, serde_json::from_str(&text).unwrap());
            if to_client.send(Message::text(text)).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(room::work(Arc::clone(&shared), queue, tell.clone(), Arc::clone(&who)));
    while let Some(message) = from_client.next().await {
        let name = who.lock().unwrap().clone();
        match message {
            Ok(Message::Text(text)) => {
                assert!(text.len() <= 51_200, "the original closes the socket on a longer frame");
                let frame: Value = serde_json::from_str(text.as_str()).expect("JSON");
                shared.note(&name, true, frame.clone());
                assert!(frame["jsonrpc"] == "2.0" && frame["id"].is_i64(), "{frame}");
                if frame["method"] == "ping" {
                    // Answered ahead of what waits.
                    let pong = json!({"id": frame["id"], "result": {"value": "pong"}, "jsonrpc": "2.0"});
                    drop(tell.send(pong.to_string()).await);
                } else {
                    drop(requests.send(frame).await);
                }
            }
            Ok(Message::Close(frame)) => {
                let (code, reason) = frame.map_or((1005, String::new()), |f| (u16::from(f.code), f.reason.to_string()));
                shared.note(&name, true, json!({"close": code, "reason": reason}));
            }
            Ok(Message::Binary(_)) => panic!("a binary frame"),
            Ok(_) => {}
            Err(error) => {
                shared.note(&name, true, json!({"lost": error.to_string()}));
                return;
            }
        }
    }
}

async fn rest(mut stream: TcpStream, shared: &Shared) {
    let mut request = Vec::new();
    let (head, body) = loop {
        let mut more = [0; 4_096];
        let length = stream.read(&mut more).await.unwrap_or(0);
        request.extend_from_slice(&more[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let of = |name: &str| {
                head.lines().find_map(|l| {
                    let (key, value) = l.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let wanted: usize = of("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            if body.len() >= wanted || length == 0 {
                let json = of("content-type").is_some_and(|t| t.starts_with("application/json"));
                let user = base64::engine::general_purpose::STANDARD.encode(format!("OPENVIDUAPP:{}", shared.secret));
                let authorized = of("authorization") == Some(format!("Basic {user}"));
                let line = head.lines().next().unwrap_or_default().to_owned();
                break ((line, authorized, json), body.to_owned());
            }
        }
        assert!(length > 0, "an HTTP request that is not whole");
    };
    let (line, authorized, json) = head;
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // Another content type is answered like a page that does not exist.
    let (status, body) =
        if json { shared.rest(method, path, authorized, &body) } else { ("403 Forbidden", String::new()) };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    drop(stream.write_all(answer.as_bytes()).await);
}
