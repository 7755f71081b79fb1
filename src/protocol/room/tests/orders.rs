//! Any order of anything: nothing panics, and every request has one end.

use super::*;
use proptest::prelude::*;

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Lose(u64),
    Join(u64, u8),
    Ask(u64, usize, u64),
    Raw(u64, String),
    Resume(u64, u64),
    Media(bool),
    Wait(u64),
    Rest(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let s = 0u64..5;
    prop_oneof![
        s.clone().prop_map(Step::Open),
        s.clone().prop_map(Step::Lose),
        (s.clone(), 0u8..3).prop_map(|(s, r)| Step::Join(s, r)),
        (s.clone(), 0usize..40, 0u64..5).prop_map(|(s, m, o)| Step::Ask(s, m, o)),
        (s.clone(), 0usize..40, 0u64..5).prop_map(|(s, m, o)| Step::Ask(s, m, o)),
        (s.clone(), ".{0,40}").prop_map(|(s, t)| Step::Raw(s, t)),
        (s.clone(), s).prop_map(|(a, b)| Step::Resume(a, b)),
        any::<bool>().prop_map(Step::Media),
        (0u64..12_000).prop_map(Step::Wait),
        (0u8..6).prop_map(Step::Rest),
    ]
}

/// A request of one of the methods, well or badly formed, about somebody.
fn ask(method: usize, other: &str, stream: &str) -> (&'static str, Value) {
    let methods = crate::protocol::message::Request::METHODS;
    let name = methods[method % methods.len()];
    let params = json!({
        "endpointName": other, "candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0, "sender": if name == "unsubscribeFromVideo" { other } else { stream },
        "reconnect": method.is_multiple_of(2), "sdpOffer": "v=0", "doLoopback": false, "hasAudio": true, "hasVideo": method.is_multiple_of(3), "typeOfVideo": "SCREEN",
        "message": format!("{{\"to\":[\"{other}\"],\"data\":\"x\"}}"), "streamId": stream, "stream": stream, "property": "audioActive", "newValue": false, "reason": "x",
        "connectionId": other, "height": 1, "width": 1, "videoActive": true, "audioActive": true, "interval": 5000, "sdpString": "v=0",
    });
    (name, if method >= methods.len() { json!({}) } else { params })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn nothing_panics_and_every_request_ends(steps in proptest::collection::vec(step(), 1..80)) {
        let mut room = Room::new(Limits { messages: (10_000, 1_000), ..Limits::default() });
        let (mut sockets, mut generation) = (BTreeMap::<u64, u64>::new(), 1000u64);
        let mut asked: Vec<(i64, u64)> = Vec::new();
        let mut rpc_ids: BTreeMap<u64, String> = BTreeMap::new();
        let mut lost: BTreeSet<u64> = BTreeSet::new();
        for step in steps {
            let people: Vec<String> = room.server.state().sessions.values().flat_map(|s| s.participants.keys().cloned()).collect();
            let streams: Vec<String> =
                room.server.state().sessions.values().flat_map(|s| s.participants.values()).filter_map(|p| p.stream.as_ref().map(|s| s.info.id.clone())).collect();
            match step {
                Step::Open(s) => {
                    generation += 1;
                    if let Some(old) = sockets.insert(s, generation) {
                        lost.insert(old);
                        room.lose(old);
                    }
                    room.open(generation);
                }
                Step::Lose(s) => {
                    if let Some(old) = sockets.remove(&s) {
                        lost.insert(old);
                        room.lose(old);
                    }
                }
                Step::Join(s, role) => {
                    let token = room.token(["SUBSCRIBER", "PUBLISHER", "MODERATOR"][usize::from(role)]);
                    if let Some(socket) = sockets.get(&s).copied() {
                        let id = room.request(socket, "joinRoom", json!({"token": token, "session": "s", "platform": "x", "metadata": "", "secret": ""}));
                        asked.push((id, socket));
                        if let Some(rpc) = room.answer(id)["result"]["sessionId"].as_str() {
                            rpc_ids.insert(s, rpc.to_owned());
                        }
                    }
                }
                Step::Ask(s, method, other) => {
                    if let Some(socket) = sockets.get(&s).copied() {
                        let pick = |list: &[String]| list.get(other as usize % list.len().max(1)).cloned().unwrap_or_default();
                        let (name, params) = ask(method, &pick(&people), &pick(&streams));
                        let id = room.request(socket, name, params);
                        asked.push((id, socket));
                    }
                }
                Step::Raw(s, text) => {
                    if let Some(socket) = sockets.get(&s) {
                        room.handle(ServerInput::Text { socket: SocketId(*socket), text });
                    }
                }
                Step::Resume(s, who) => {
                    if let (Some(socket), Some(rpc)) = (sockets.get(&s).copied(), rpc_ids.get(&who).cloned()) {
                        let id = room.request(socket, "connect", json!({"sessionId": rpc, "reconnect": true}));
                        prop_assert!(!room.answer(id).is_null());
                        // Both sockets now speak for somebody else; what was open on them is not followed further.
                        lost.insert(socket);
                        lost.extend(sockets.get(&who));
                    }
                }
                Step::Media(ok) => room.media(&if ok { answered() } else { Err(MediaError::BadSdp("x".into())) }),
                Step::Wait(ms) => room.wait(Duration::from_millis(ms)),
                Step::Rest(what) => {
                    let _ = match what {
                        0 => room.post("/openvidu/api/signal", &json!({"session": "s", "data": "x"})),
                        1 => { room.handle(ServerInput::MediaRestarted); (0, Value::Null) }
                        2 => { room.handle(ServerInput::MediaGone); (0, Value::Null) }
                        _ => room.post("/openvidu/api/sessions/s/connection", &json!({"data": what})),
                    };
                }
            }
            for (socket, _) in std::mem::take(&mut room.closed) {
                lost.insert(socket);
                sockets.retain(|_, s| *s != socket);
            }
        }
        // Media never answers any more: what waits for it has to end all the same.
        room.wait(Duration::from_secs(9));
        for (socket, _) in std::mem::take(&mut room.closed) {
            lost.insert(socket);
        }
        for (id, socket) in asked {
            let answers = room.frames.iter().filter(|(_, f)| f["id"] == id).count();
            prop_assert!(answers <= 1, "{answers} answers to {id}");
            if !lost.contains(&socket) {
                prop_assert_eq!(answers, 1, "request {} of socket {} has no end", id, socket);
            }
        }
    }
}
