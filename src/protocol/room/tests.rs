//! What replays cannot show: order on one connection, time-outs, bounds, taking over, and that nothing panics or stays unanswered.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;
use crate::protocol::Sdp;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

mod orders;
mod rosters;

struct Room {
    server: Server,
    now: Now,
    frames: Vec<(u64, Value)>,
    closed: Vec<(u64, u16)>,
    ops: Vec<(OpId, MediaOp)>,
    next_id: i64,
    /// Frames sent on each socket.
    sent: BTreeMap<u64, u64>,
    /// Sockets that take everything and pass nothing on.
    half_open: BTreeSet<u64>,
}

impl Room {
    fn new(limits: Limits) -> Self {
        let now = Now { mono: Duration::from_secs(1), unix_ms: 1_700_000_000_000 };
        let config = ServerConfig {
            secret: Secret::new("S"),
            public_url: "https://h:4443".into(),
            public_url_guessed: false,
            seed: [9; 32],
            limits,
        };
        Self {
            server: Server::new(config, now),
            now,
            frames: Vec::new(),
            closed: Vec::new(),
            ops: Vec::new(),
            next_id: 0,
            sent: BTreeMap::new(),
            half_open: BTreeSet::new(),
        }
    }

    fn handle(&mut self, input: ServerInput) {
        self.server.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { socket, text } => {
                    let sent = self.sent.entry(socket.0).or_default();
                    *sent += 1;
                    if !self.half_open.contains(&socket.0) {
                        self.frames.push((socket.0, serde_json::from_str(&text).unwrap()));
                        self.server.handle(ServerInput::Delivered { socket, frames: *sent }, self.now);
                    }
                }
                ServerOutput::Close { socket, code, .. } => self.closed.push((socket.0, code)),
                ServerOutput::Media { op, request } => self.ops.push((op, request)),
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let to = self.now.mono + time;
        while let Some(due) = self.server.poll_timeout().filter(|d| *d <= to) {
            self.now.mono = self.now.mono.max(due);
            self.handle(ServerInput::Tick);
        }
        self.now.mono = to;
    }

    fn post(&mut self, path: &str, body: &Value) -> (u16, Value) {
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "OPENVIDUAPP:S");
        let headers =
            vec![("authorization".into(), format!("Basic {auth}")), ("content-type".into(), "application/json".into())];
        let request = RestRequest {
            method: "POST".into(),
            path: path.into(),
            query: String::new(),
            headers,
            body: body.to_string().into_bytes(),
        };
        let r = self.server.rest(&request, self.now);
        self.drain();
        (r.status, serde_json::from_slice(&r.body).unwrap_or(Value::Null))
    }

    fn token(&mut self, role: &str) -> String {
        self.post("/openvidu/api/sessions", &json!({"customSessionId": "s"}));
        self.post("/openvidu/api/sessions/s/connection", &json!({"role": role})).1["token"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn open(&mut self, socket: u64) {
        self.handle(ServerInput::SocketOpened {
            socket: SocketId(socket),
            peer: "127.0.0.1".parse().unwrap(),
            cookie: "c".repeat(32),
        });
    }

    fn lose(&mut self, socket: u64) {
        self.handle(ServerInput::SocketClosed { socket: SocketId(socket), code: 1006, reason: String::new() });
    }

    fn request(&mut self, socket: u64, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        let text = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id}).to_string();
        self.handle(ServerInput::Text { socket: SocketId(socket), text });
        id
    }

    fn join(&mut self, socket: u64, role: &str) -> Value {
        let token = self.token(role);
        self.open(socket);
        let id = self.request(
            socket,
            "joinRoom",
            json!({"token": token, "session": "s", "platform": "x", "metadata": "", "secret": ""}),
        );
        self.answer(id)["result"].clone()
    }

    fn answer(&self, id: i64) -> Value {
        self.frames.iter().find(|(_, f)| f["id"] == id).map(|(_, f)| f.clone()).unwrap_or(Value::Null)
    }

    fn media(&mut self, result: &Result<MediaDone, MediaError>) {
        for (op, request) in std::mem::take(&mut self.ops) {
            if !matches!(request, MediaOp::Candidate { .. } | MediaOp::Draw { .. } | MediaOp::CloseLeg { .. }) {
                self.handle(ServerInput::Media { op, result: result.clone() });
            }
        }
    }

    /// What one socket got since the last call: methods, or `#id` for an answer.
    fn story(&mut self, socket: u64) -> Vec<String> {
        let name = |f: &Value| f["method"].as_str().map_or_else(|| format!("#{}", f["id"]), str::to_owned);
        let story = self.frames.iter().filter(|(s, _)| *s == socket).map(|(_, f)| name(f)).collect();
        self.frames.retain(|(s, _)| *s != socket);
        story
    }
}

fn publish() -> Value {
    json!({"doLoopback": false, "hasAudio": true, "hasVideo": true, "typeOfVideo": "CAMERA", "sdpOffer": "v=0"})
}

fn answered() -> Result<MediaDone, MediaError> {
    Ok(MediaDone::Answer(Sdp::from("v=0")))
}

#[test]
fn order_of_answers_and_notifications() {
    let mut room = Room::new(Limits::default());
    room.join(1, "MODERATOR");
    let b = room.join(2, "PUBLISHER");
    room.story(1);
    room.story(2);
    let id = room.request(1, "sendMessage", json!({"message": "{\"data\":\"x\",\"type\":\"signal:a\"}"}));
    assert_eq!(room.story(1), ["sendMessage".to_owned(), format!("#{id}")], "notifications, then the answer");
    room.story(2);
    let id = room.request(2, "publishVideo", publish());
    assert!(room.story(2).is_empty() && room.story(1).is_empty(), "nothing before the media server has answered");
    let echo = room.request(2, "echo", json!({}));
    assert!(room.story(2).is_empty(), "one after another");
    room.media(&answered());
    assert_eq!(room.story(2), [format!("#{id}"), format!("#{echo}")]);
    assert_eq!(room.story(1), ["participantPublished"]);
    let id = room.request(1, "forceDisconnect", json!({"connectionId": b["id"]}));
    assert_eq!(room.story(1), ["participantLeft".to_owned(), format!("#{id}"), "participantEvicted".to_owned()]);
    assert_eq!(room.story(2), ["participantEvicted"]);
    assert!(room.ops.iter().any(|(_, op)| matches!(op, MediaOp::CloseLeg { .. })), "its leg is closed");
    room.wait(Duration::from_secs(10));
    assert_eq!(room.closed, [(2, 1000)]);
}

#[test]
fn media_that_never_answers_is_an_error_and_no_stream() {
    let mut room = Room::new(Limits::default());
    room.join(1, "PUBLISHER");
    let id = room.request(1, "publishVideo", publish());
    let next = room.request(1, "echo", json!({}));
    room.wait(Duration::from_millis(7_900));
    assert_eq!(room.answer(id), Value::Null);
    room.wait(Duration::from_millis(200));
    assert_eq!(room.answer(id)["error"]["code"], 303);
    assert!(room.answer(next)["result"].is_object(), "what waited behind it goes on");
    assert_eq!(room.server.counts().streams, 0);
    let late = room.ops.first().unwrap().0;
    room.handle(ServerInput::Media { op: late, result: answered() });
    assert_eq!(room.server.counts().streams, 0, "a late answer changes nothing");
    let again = room.request(1, "publishVideo", publish());
    room.media(&answered());
    assert!(room.answer(again)["result"]["id"].as_str().unwrap().starts_with("str_CAM_"));
}

#[test]
fn candidates_wait_for_their_endpoint() {
    let mut room = Room::new(Limits::default());
    let a = room.join(1, "PUBLISHER");
    let candidate = json!({"endpointName": a["id"], "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0});
    for _ in 0..100 {
        room.request(1, "onIceCandidate", candidate.clone());
    }
    assert!(room.ops.is_empty());
    room.request(1, "publishVideo", publish());
    assert!(matches!(room.ops[0].1, MediaOp::Publish { .. }));
    assert_eq!(room.ops.len(), 1 + Limits::default().early_candidates, "bounded");
    let MediaOp::Publish { leg, .. } = room.ops[0].1 else { panic!() };
    let own = |room: &mut Room| {
        room.handle(ServerInput::LocalCandidate {
            leg,
            candidate: "candidate:2".into(),
            sdp_mid: "0".into(),
            sdp_mline_index: 0,
        });
    };
    room.story(1);
    own(&mut room);
    assert!(room.story(1).is_empty(), "held until the description is there");
    room.media(&answered());
    own(&mut room);
    let story = room.story(1);
    assert_eq!(&story[1..], ["iceCandidate", "iceCandidate"]);
}

#[test]
fn too_much_to_tell_an_absent_client_evicts_it() {
    let mut room = Room::new(Limits { queued_frames: 3, ..Limits::default() });
    room.join(1, "PUBLISHER");
    let b = room.join(2, "PUBLISHER");
    room.lose(2);
    for i in 0..3 {
        room.request(1, "sendMessage", json!({"message": format!("{{\"data\":{i}}}")}));
    }
    assert_eq!(room.server.counts().participants, 2);
    room.story(1);
    room.request(1, "sendMessage", json!({"message": "{}"}));
    assert_eq!(room.server.counts().participants, 1);
    assert!(room.story(1).contains(&"participantLeft".to_owned()));
    room.open(3);
    let id = room.request(3, "connect", json!({"sessionId": b["sessionId"], "reconnect": true}));
    assert_eq!(room.answer(id)["error"]["code"], 40007);
}

#[test]
fn what_was_negotiated_is_shown_to_the_owner_who_asks_for_it() {
    let mut room = Room::new(Limits::default());
    let (a, b) = (room.join(1, "PUBLISHER"), room.join(2, "SUBSCRIBER"));
    room.request(1, "publishVideo", publish());
    let candidate = json!({"endpointName": a["id"], "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0});
    room.request(1, "onIceCandidate", candidate);
    room.media(&answered());
    let (a_id, b_id) = (a["id"].as_str().unwrap(), b["id"].as_str().unwrap());
    let stream = room.server.state().sessions["s"].participants[a_id].stream.clone().unwrap().info.id;
    room.request(2, "receiveVideoFrom", json!({"sender": stream, "sdpOffer": "v=0 mine"}));
    room.media(&answered());
    let shown = |room: &mut Room, who: &str, query: &str| {
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "OPENVIDUAPP:S");
        let request = RestRequest {
            method: "GET".into(),
            path: format!("/openvidu/api/sessions/s/connection/{who}"),
            query: query.into(),
            headers: vec![("authorization".into(), format!("Basic {auth}"))],
            body: Vec::new(),
        };
        serde_json::from_slice::<Value>(&room.server.rest(&request, room.now).body).unwrap()
    };
    let publisher = shown(&mut room, a_id, "webRtcStats=true")["publishers"][0].clone();
    assert_eq!((&publisher["webrtcEndpointName"], &publisher["localSdp"]), (&json!(stream), &json!("v=0")));
    assert_eq!((&publisher["remoteSdp"], &publisher["localCandidate"]), (&json!("v=0"), &Value::Null));
    assert_eq!(publisher["clientIceCandidates"][0]["candidate"], "candidate:1");
    let subscriber = shown(&mut room, b_id, "webRtcStats=true")["subscribers"][0].clone();
    assert_eq!(subscriber["webrtcEndpointName"], format!("{b_id}_{stream}"));
    assert_eq!(subscriber["remoteSdp"], "v=0 mine");
    assert!(shown(&mut room, a_id, "")["publishers"][0].get("localSdp").is_none());
    // Nothing of it outlives the stream.
    room.request(1, "unpublishVideo", json!({}));
    assert!(room.server.negotiated.is_empty());
}

#[test]
fn what_a_dead_socket_took_along_is_sent_again() {
    let mut room = Room::new(Limits::default());
    let a = room.join(1, "PUBLISHER");
    let b = room.join(2, "PUBLISHER");
    room.request(1, "publishVideo", publish());
    room.media(&answered());
    room.story(2);
    // The host knows nothing of it: no close, no error.
    room.half_open.insert(2);
    room.join(3, "PUBLISHER");
    room.request(3, "publishVideo", publish());
    room.media(&answered());
    room.request(1, "sendMessage", json!({"message": "{\"data\":\"x\"}"}));
    room.open(4);
    room.request(4, "connect", json!({"sessionId": b["sessionId"], "reconnect": true}));
    assert_eq!(&room.story(4)[1..], ["participantJoined", "participantPublished", "sendMessage"]);
    // All of it has been read now: it does not come a third time.
    room.lose(4);
    room.open(5);
    room.request(5, "connect", json!({"sessionId": b["sessionId"], "reconnect": true}));
    assert_eq!(room.story(5).len(), 1);
    // What it asked for it has heard of, whatever the receipts say.
    room.half_open.insert(5);
    room.request(1, "unpublishVideo", json!({}));
    room.request(1, "publishVideo", publish());
    room.media(&answered());
    let stream = room.server.state().sessions["s"].participants[a["id"].as_str().unwrap()].stream.clone().unwrap();
    room.request(5, "receiveVideoFrom", json!({"sender": stream.info.id, "sdpOffer": "v=0"}));
    room.media(&answered());
    room.open(6);
    room.request(6, "connect", json!({"sessionId": b["sessionId"], "reconnect": true}));
    let story = room.story(6);
    assert!(story.contains(&"participantUnpublished".to_owned()), "{story:?}");
    assert!(!story.contains(&"participantPublished".to_owned()), "{story:?}");
}

#[test]
fn who_does_not_read_for_too_long_joins_again_instead_of_missing_something() {
    let mut room = Room::new(Limits { queued_frames: 3, ..Limits::default() });
    room.join(1, "PUBLISHER");
    let b = room.join(2, "PUBLISHER");
    room.half_open.insert(2);
    for i in 0..4 {
        room.request(1, "sendMessage", json!({"message": format!("{{\"data\":{i}}}")}));
    }
    assert_eq!(room.server.counts().participants, 2, "it may still read all of it");
    room.open(3);
    let id = room.request(3, "connect", json!({"sessionId": b["sessionId"], "reconnect": true}));
    assert_eq!(room.answer(id)["error"]["code"], 40007);
    assert_eq!(room.server.counts().participants, 1);
    assert!(room.closed.contains(&(2, 1008)));
}

#[test]
fn an_eviction_while_away_is_told_on_return() {
    let mut room = Room::new(Limits::default());
    room.join(1, "MODERATOR");
    let b = room.join(2, "PUBLISHER");
    room.lose(2);
    room.request(1, "forceDisconnect", json!({"connectionId": b["id"]}));
    room.wait(Duration::from_secs(2));
    room.open(3);
    room.request(3, "connect", json!({"sessionId": b["sessionId"]}));
    assert_eq!(&room.story(3)[1..], ["participantEvicted"]);
}

#[test]
fn bounds_against_the_hostile() {
    let limits = Limits {
        unjoined_sockets: 3,
        sockets: 10,
        sessions: 2,
        tokens: 2,
        signals: (2, 1),
        messages: (50, 1),
        ..Limits::default()
    };
    let mut room = Room::new(limits);
    for socket in 100..110 {
        room.open(socket);
    }
    assert_eq!(room.server.counts().sockets, 3, "the oldest of those that do not join make room");
    assert!(room.closed.iter().all(|(_, code)| *code == 1013));
    room.closed.clear();
    room.wait(Duration::from_secs(61));
    assert_eq!(room.server.counts().sockets, 0, "and the others have a minute");
    room.join(1, "PUBLISHER");
    let signal = json!({"message": "{\"data\":\"x\"}"});
    let ids: Vec<i64> = (0..3).map(|_| room.request(1, "sendMessage", signal.clone())).collect();
    assert_eq!(ids.iter().filter(|id| room.answer(**id)["error"]["code"] == 999).count(), 1);
    assert_eq!(room.post("/openvidu/api/sessions", &json!({})).0, 200);
    assert_eq!(room.post("/openvidu/api/sessions", &json!({})).0, 503);
    assert_eq!(
        (0..3).map(|_| room.post("/openvidu/api/sessions/s/connection", &json!({})).0).collect::<Vec<_>>(),
        [200, 200, 503]
    );
    for _ in 0..60 {
        room.handle(ServerInput::Text { socket: SocketId(1), text: "garbage".into() });
    }
    assert!(room.closed.contains(&(1, 1008)), "a flood is cut off");
}

#[test]
fn wrong_keys_are_slowed_down() {
    let mut room = Room::new(Limits { wrong_keys: (3, 1), ..Limits::default() });
    let (_, key) = room
        .server
        .create_room(
            "room",
            KeyRules { role: crate::protocol::message::Role::Publisher, ..KeyRules::default() },
            room.now,
        )
        .unwrap();
    let attempts: Vec<u16> = (0..5).map(|_| room.post("/tertulia/join", &json!({"key": "wrong"})).0).collect();
    assert_eq!(attempts, [403, 403, 403, 429, 429]);
    // Whoever has the right one is not kept out by that.
    let (status, body) = room.post("/tertulia/join", &json!({"key": key.expose(), "role": "MODERATOR"}));
    assert_eq!((status, &body["role"]), (200, &json!("PUBLISHER")), "a key gives no more than it holds");
    assert!(matches!(room.server.create_room("a b", KeyRules::default(), room.now), Err(RoomError::Name)));
}

#[test]
fn another_host_takes_over() {
    let mut room = Room::new(Limits::default());
    let a = room.join(1, "PUBLISHER");
    room.join(2, "SUBSCRIBER");
    room.request(1, "publishVideo", publish());
    room.media(&answered());
    let stream = room.server.state().sessions["s"].participants[a["id"].as_str().unwrap()].stream.clone().unwrap();
    room.request(2, "receiveVideoFrom", json!({"sender": stream.info.id, "sdpOffer": "v=0"}));
    room.media(&answered());
    room.server.create_room("other", KeyRules::default(), room.now).unwrap();
    let text = serde_json::to_string(room.server.state()).unwrap();
    let state: ServerState = serde_json::from_str(&text).unwrap();
    assert_eq!(&state, room.server.state());
    let mut next = Room::new(Limits::default());
    next.server = Server::restore(next.server.config.clone(), state, next.now);
    next.open(7);
    let id = next.request(7, "connect", json!({"sessionId": a["sessionId"], "reconnect": true}));
    assert_eq!(next.answer(id)["result"]["value"], "reconnection successful");
    let id = next.request(7, "reconnectStream", json!({"stream": stream.info.id, "sdpString": "v=0"}));
    assert!(matches!(next.ops[0].1, MediaOp::Publish { leg, .. } if leg > stream.leg), "legs are not numbered twice");
    next.media(&answered());
    assert_eq!(next.answer(id)["result"]["id"], json!(stream.info.id));
    next.wait(Duration::from_secs(11));
    assert_eq!(next.server.counts().participants, 1, "who does not come back is evicted");
}

#[test]
fn frames_and_tokens_are_not_in_debug_output() {
    let mut room = Room::new(Limits::default());
    let token = room.token("PUBLISHER");
    let secret = token.split_once("tok_").unwrap().1;
    let texts = [
        format!("{:?}", room.server),
        format!("{:?}", room.server.state()),
        format!("{:?}", ServerInput::Text { socket: SocketId(1), text: token.clone() }),
        format!("{:?}", ServerOutput::Send { socket: SocketId(1), text: token.clone() }),
    ];
    assert!(texts.iter().all(|t| !t.contains(secret)), "{texts:?}");
}

#[test]
fn unused_tokens_of_keys_keep_nobody_out() {
    let mut room = Room::new(Limits { tokens: 3, ..Limits::default() });
    let (_, key) = room.server.create_room("room", KeyRules::default(), room.now).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..8 {
        room.now.unix_ms += 1;
        let (status, body) = room.post("/tertulia/join", &json!({"key": key.expose()}));
        assert_eq!(status, 200, "{body}");
        tokens.push(body["token"].clone());
    }
    // What a back end has asked for stays: it may wait as long as the session.
    room.now.unix_ms += 200_000;
    for wanted in [200, 200, 200, 503] {
        let (status, _) = room.post("/openvidu/api/sessions/room/connection", &json!({}));
        assert_eq!(status, wanted, "the tokens of keys have expired and made room");
    }
    room.open(1);
    let expired = tokens.pop().unwrap();
    let id = room.request(1, "joinRoom", json!({"token": expired, "session": "room", "platform": "t", "secret": "", "recorder": false, "metadata": "{}"}));
    assert!(room.answer(id).get("error").is_some(), "{}", room.answer(id));
}
