//! The client machine away from any recording: losses, resumes, rejoins, queues, and any order of anything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tertulia::protocol::Now;
use tertulia::protocol::client::reconnect::{GIVE_UP_AFTER, RETRY_INTERVAL, TOKEN_TIMEOUT};
use tertulia::protocol::client::{
    Action, ActionError, Answer, Client, ClientConfig, ClientEvent, EndReason, Input, LostPlace, Output, OwnProperty,
    PublishProperties, REQUEST_TIMEOUT, SDK_VERSION, Seed, State,
};
use tertulia::protocol::token::Token;

const TOKEN: &str = "wss://ov.lan:4443?sessionId=SessionA&token=tok_Hush567890123456";

/// A client, its clock, and what it has put out.
struct Rig {
    client: Client,
    now: Duration,
    /// Newest socket and whether it is open.
    socket: Option<(u32, bool)>,
    urls: Vec<String>,
    sent: Vec<Value>,
    closes: Vec<u16>,
    events: Vec<ClientEvent>,
}

impl Rig {
    fn new(can_rejoin: bool) -> Self {
        let config = ClientConfig {
            token: Token::parse(TOKEN).unwrap(),
            platform: "test".into(),
            sdk_version: SDK_VERSION.into(),
            metadata: "{\"clientData\":\"Ann\"}".into(),
            can_rejoin,
            seed: Seed(1),
        };
        Self {
            client: Client::new(config),
            now: Duration::from_secs(1000),
            socket: None,
            urls: Vec::new(),
            sent: Vec::new(),
            closes: Vec::new(),
            events: Vec::new(),
        }
    }

    fn put(&mut self, input: Input) {
        self.client.handle(input, Now { mono: self.now, unix_ms: 0 });
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::OpenSocket { socket, url } => {
                    assert!(!url.contains("tok_"), "the token does not belong into the URL");
                    self.socket = Some((socket, false));
                    self.urls.push(url);
                }
                Output::CloseSocket { socket, code, .. } => {
                    if self.socket.is_some_and(|(s, _)| s == socket) {
                        self.socket = None;
                    }
                    self.closes.push(code);
                }
                Output::Send { socket, text } => {
                    assert_eq!(self.socket, Some((socket, true)), "sends only on the open socket");
                    assert!(!format!("{text:?}").contains("tok_"));
                    self.sent.push(serde_json::from_str(&text.0).unwrap());
                }
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    fn act(&mut self, id: u64, action: Action) {
        self.put(Input::User(id, action));
    }

    fn open(&mut self) {
        let (socket, _) = self.socket.expect("a socket to open");
        self.socket = Some((socket, true));
        self.put(Input::SocketOpen(socket));
    }

    fn cut(&mut self, code: u16) {
        if let Some((socket, _)) = self.socket.take() {
            self.put(Input::SocketClosed { socket, code, reason: String::new() });
        }
    }

    fn refuse(&mut self) {
        if let Some((socket, _)) = self.socket.take() {
            self.put(Input::SocketFailed { socket, detail: "refused".into() });
        }
    }

    fn say(&mut self, frame: Value) {
        if let Some((socket, true)) = self.socket {
            self.put(Input::Text { socket, text: frame.to_string().into() });
        }
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.say(json!({"method":method,"params":params,"jsonrpc":"2.0"}));
    }

    fn last(&self, method: &str) -> Value {
        self.sent.iter().rev().find(|f| f["method"] == method).cloned().unwrap_or_else(|| panic!("no {method}"))
    }

    fn count(&self, method: &str) -> usize {
        self.sent.iter().filter(|f| f["method"] == method).count()
    }

    fn answer(&mut self, method: &str, result: Value) {
        let id = self.last(method)["id"].clone();
        self.say(json!({"id":id,"result":result,"jsonrpc":"2.0"}));
    }

    fn refuse_request(&mut self, method: &str, code: i64) {
        let id = self.last(method)["id"].clone();
        self.say(json!({"id":id,"error":{"code":code,"message":"no"},"jsonrpc":"2.0"}));
    }

    /// Lets time pass; answers pings when `alive`.
    fn wait(&mut self, ms: u64, alive: bool) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(due) = self.client.poll_timeout().filter(|d| *d <= end) {
            self.now = self.now.max(due);
            let before = self.sent.len();
            self.put(Input::Timeout);
            if alive {
                let pings: Vec<Value> =
                    self.sent[before..].iter().filter(|f| f["method"] == "ping").map(|f| f["id"].clone()).collect();
                for id in pings {
                    self.say(json!({"id":id,"result":{"value":"pong"},"jsonrpc":"2.0"}));
                }
            }
        }
        self.now = end;
    }

    fn join_answer() -> Value {
        json!({"id":"con_Me","createdAt":1,"metadata":"","value":[{"id":"con_Bob","createdAt":1,"metadata":"{}",
            "streams":[{"id":"str_CAM_a_con_Bob","hasAudio":true,"hasVideo":true}]}],
            "session":"SessionA","version":"2.32.2","mediaServer":"kurento","role":"PUBLISHER","customIceServers":[],"sessionId":"rpcHush"})
    }

    fn joined(can_rejoin: bool) -> Self {
        let mut rig = Self::new(can_rejoin);
        rig.act(0, Action::Join);
        rig.open();
        rig.answer("ping", json!({"value":"pong"}));
        rig.answer("joinRoom", Self::join_answer());
        assert_eq!(*rig.client.state(), State::Joined);
        rig
    }

    fn publish(&mut self, action: u64) {
        let properties =
            PublishProperties { has_audio: true, audio_active: Some(true), ..PublishProperties::default() };
        self.act(action, Action::Publish { properties, sdp_offer: "v=0".into() });
    }

    fn publishing(can_rejoin: bool) -> Self {
        let mut rig = Self::joined(can_rejoin);
        rig.publish(1);
        rig.answer("publishVideo", json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me","createdAt":5}));
        rig
    }

    fn outcome(&self, id: u64) -> Option<&Result<Answer, ActionError>> {
        let mut found = self.events.iter().filter_map(|e| match e {
            ClientEvent::Answered { action, outcome } if *action == id => Some(outcome),
            _ => None,
        });
        let first = found.next();
        assert!(found.next().is_none(), "action {id} ended twice");
        first
    }

    fn token() -> Token {
        Token::parse("wss://ov.lan:4443?sessionId=SessionA&token=tok_Fresh78901234567").unwrap()
    }
}

fn candidate(n: u32) -> Value {
    json!({"senderConnectionId":"con_Bob","endpointName":"con_Me_str_CAM_a_con_Bob","sdpMLineIndex":0,"sdpMid":"0","candidate":format!("candidate:{n} 1 UDP 1 10.0.0.1 1 typ host")})
}

#[test]
fn who_is_there_is_announced_after_joining() {
    let rig = Rig::joined(false);
    let kinds: Vec<_> =
        rig.events.iter().filter(|e| !matches!(e, ClientEvent::State(_) | ClientEvent::Pong { .. })).collect();
    assert!(matches!(kinds[0], ClientEvent::Joined { rejoined: false, .. }));
    assert!(matches!(kinds[1], ClientEvent::ParticipantJoined(p) if p.id == "con_Bob" && p.streams.is_empty()));
    assert!(matches!(kinds[2], ClientEvent::StreamPublished { stream, .. } if stream.id == "str_CAM_a_con_Bob"));
    let debug = format!("{:?} {:?}", rig.client, rig.events);
    for secret in ["tok_Hush", "rpcHush"] {
        assert!(!debug.contains(secret), "{secret} in Debug");
    }
}

#[test]
fn early_candidates_wait_for_the_description_in_both_modes() {
    for prepare in [false, true] {
        let mut rig = Rig::joined(false);
        rig.tell("iceCandidate", candidate(0)); // nobody asked for it
        let stream_id = "str_CAM_a_con_Bob".to_owned();
        let method = if prepare {
            rig.act(7, Action::PrepareSubscribe { stream_id, reconnect: false });
            "prepareReceiveVideoFrom"
        } else {
            rig.act(7, Action::Subscribe { stream_id, sdp_offer: "v=0".into() });
            "receiveVideoFrom"
        };
        rig.tell("iceCandidate", candidate(1));
        rig.tell("iceCandidate", candidate(2));
        let before = rig.events.len();
        rig.answer(method, json!({"sdpAnswer":"v=1","sdpOffer":"v=1"}));
        rig.tell("iceCandidate", candidate(3));
        let order: Vec<String> = rig.events[before..]
            .iter()
            .map(|e| match e {
                ClientEvent::Answered { action: 7, outcome: Ok(_) } => "answer".to_owned(),
                ClientEvent::RemoteCandidate { connection_id, candidate, .. } => {
                    assert_eq!(connection_id, "con_Bob");
                    candidate[10..11].to_owned()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, ["answer", "1", "2", "3"]);
        assert_eq!(rig.client.counters().dropped_candidates, 1);
    }
}

#[test]
fn a_candidate_queue_is_bounded_and_the_oldest_gives_way() {
    let mut rig = Rig::joined(false);
    rig.act(7, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    for n in 0..300 {
        rig.tell("iceCandidate", candidate(n));
    }
    rig.answer("receiveVideoFrom", json!({"sdpAnswer":"v=1"}));
    let got = rig.events.iter().filter(|e| matches!(e, ClientEvent::RemoteCandidate { .. })).count();
    assert_eq!((got, rig.client.counters().dropped_candidates), (256, 44));
}

#[test]
fn a_cut_of_four_seconds_keeps_the_place() {
    let mut rig = Rig::publishing(true);
    rig.act(5, Action::Signal { kind: "chat".into(), data: "x".into(), to: vec![] });
    rig.act(6, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    rig.cut(1006);
    assert_eq!(rig.outcome(5), Some(&Err(ActionError::Cancelled)));
    assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, retry_at: None, .. }));
    assert_eq!(rig.urls.last().unwrap(), "wss://ov.lan:4443/openvidu?sessionId=SessionA&reconnect=true");
    rig.refuse();
    rig.wait(2900, true);
    rig.refuse();
    rig.wait(1100, true);
    // Muted while away: only the last value counts.
    rig.act(8, Action::PropertyChanged(OwnProperty::AudioActive(true)));
    rig.act(9, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    rig.wait(2000, true);
    rig.open();
    assert_eq!(rig.last("connect")["params"], json!({"sessionId":"rpcHush","reconnect":true}));
    rig.answer("connect", json!({"value":"reconnection successful","sessionId":"rpcHush"}));
    assert!(matches!(rig.client.state(), State::Resuming { .. }));
    assert_eq!(rig.last("ping")["params"], json!({"interval":5000}));
    let changes = rig.count("streamPropertyChanged");
    rig.answer("videoData", json!({"sessionId":"rpcHush"}));
    assert_eq!(*rig.client.state(), State::Joined);
    let reconnected = ClientEvent::Reconnected { own_stream: Some("str_MIC_x_con_Me".into()), subscribed: vec![] };
    assert!(rig.events.contains(&reconnected));
    assert_eq!(rig.count("streamPropertyChanged"), changes + 1);
    assert_eq!(rig.last("streamPropertyChanged")["params"]["newValue"], false);
    rig.answer("streamPropertyChanged", json!({}));
    for overtaken in [6, 8] {
        assert_eq!(rig.outcome(overtaken), Some(&Ok(Answer::Done)));
    }
    assert_eq!(rig.outcome(9), Some(&Ok(Answer::Done)));
    assert_eq!(rig.client.connection_id(), Some("con_Me"));
}

#[test]
fn a_cut_of_fifteen_seconds_ends_in_a_rejoin_with_a_fresh_token() {
    let mut rig = Rig::publishing(true);
    rig.cut(1006);
    let end = rig.now + Duration::from_secs(15);
    while rig.now < end {
        rig.refuse();
        rig.wait(500, true);
    }
    rig.wait(3000, true);
    rig.open();
    rig.refuse_request("connect", 40007);
    assert_eq!(rig.closes.last(), Some(&4101));
    assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::Expired }));
    assert_eq!(*rig.client.state(), State::AwaitingToken { attempt: 1 });
    rig.wait(200, true);
    rig.act(0, Action::Rejoin(Rig::token()));
    assert_eq!(rig.urls.last().unwrap(), "wss://ov.lan:4443/openvidu?sessionId=SessionA");
    rig.open();
    assert!(rig.last("joinRoom")["params"]["token"].as_str().unwrap().ends_with("tok_Fresh78901234567"));
    let mut answer = Rig::join_answer();
    answer["id"] = json!("con_New");
    rig.answer("joinRoom", answer);
    assert_eq!((rig.client.state(), rig.client.connection_id()), (&State::Joined, Some("con_New")));
    assert!(rig.events.iter().any(|e| matches!(e, ClientEvent::Joined { rejoined: true, .. })));
    assert_eq!(rig.client.own_stream(), None);
}

#[test]
fn a_resume_without_participant_is_noticed_within_five_seconds() {
    for can_rejoin in [true, false] {
        let mut rig = Rig::publishing(can_rejoin);
        rig.cut(1006);
        rig.wait(1000, true);
        rig.open();
        rig.answer("connect", json!({"value":"reconnection successful","sessionId":"rpcHush"}));
        rig.answer("ping", json!({"value":"pong"}));
        rig.wait(5000, true);
        // Behind this code the server evicts whoever might still be there.
        assert_eq!(rig.closes.last(), Some(&4104));
        if can_rejoin {
            assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::ParticipantGone }));
        } else {
            assert_eq!(*rig.client.state(), State::Ended(EndReason::NeedsNewToken));
            assert_eq!(rig.client.poll_timeout(), None);
        }
    }
}

#[test]
fn an_error_proves_that_the_participant_exists() {
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.open();
    rig.answer("connect", json!({"value":"reconnection successful"}));
    rig.answer("ping", json!({"value":"pong"}));
    rig.refuse_request("videoData", 105);
    assert_eq!(*rig.client.state(), State::Joined);
    rig.wait(60_000, true);
    assert_eq!(*rig.client.state(), State::Joined, "a healthy connection stays");
}

#[test]
fn a_silent_socket_is_checked_then_replaced() {
    let mut rig = Rig::joined(true);
    rig.wait(5000, false);
    assert_eq!(rig.count("ping"), 2);
    rig.wait(1600, false);
    assert_eq!(*rig.client.state(), State::Checking);
    rig.wait(3500, false);
    assert_eq!(rig.closes.last(), Some(&4104));
    assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, .. }));
}

#[test]
fn a_late_pong_ends_the_checking() {
    let mut rig = Rig::joined(true);
    rig.wait(7000, false);
    assert_eq!(*rig.client.state(), State::Checking);
    rig.answer("ping", json!({"value":"pong"}));
    assert_eq!(*rig.client.state(), State::Joined);
    assert!(rig.events.contains(&ClientEvent::Pong { rtt: Duration::from_secs(2) }));
}

#[test]
fn after_a_minute_it_gives_up_until_asked() {
    for nudge in [Action::RetryNow, Action::NetworkChanged] {
        let mut rig = Rig::publishing(true);
        rig.cut(1006);
        rig.act(4, Action::PropertyChanged(OwnProperty::AudioActive(false)));
        let mut waited = Duration::ZERO;
        while *rig.client.state() != State::GivenUp {
            rig.refuse();
            rig.wait(100, true);
            waited += Duration::from_millis(100);
            assert!(waited <= GIVE_UP_AFTER + Duration::from_millis(200));
        }
        assert_eq!(rig.client.poll_timeout(), None, "rests");
        assert_eq!(rig.outcome(4), Some(&Err(ActionError::Cancelled)));
        rig.wait(300_000, true);
        rig.act(0, nudge);
        assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, retry_at: None, .. }));
        rig.open();
        rig.refuse_request("connect", 40007);
        assert!(matches!(rig.client.state(), State::AwaitingToken { .. }));
    }
}

#[test]
fn tokens_that_never_come_and_joins_that_fail_end_after_a_minute_too() {
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.open();
    rig.refuse_request("connect", 40007);
    let lost = rig.now;
    rig.wait(u64::try_from(TOKEN_TIMEOUT.as_millis()).unwrap(), true);
    rig.act(0, Action::NoToken { for_good: false });
    while *rig.client.state() != State::GivenUp {
        if matches!(rig.client.state(), State::AwaitingToken { .. }) {
            rig.act(0, Action::Rejoin(Rig::token()));
            rig.open();
            rig.refuse_request("joinRoom", 401);
        }
        rig.wait(500, true);
        assert!(rig.now - lost <= GIVE_UP_AFTER + RETRY_INTERVAL);
    }
    rig.act(0, Action::RetryNow);
    assert!(matches!(rig.client.state(), State::AwaitingToken { .. }));
    rig.act(0, Action::NoToken { for_good: true });
    assert_eq!(*rig.client.state(), State::Ended(EndReason::RejoinImpossible));
}

#[test]
fn a_server_that_drops_us_at_once_is_not_hammered() {
    let mut rig = Rig::joined(true);
    let start = rig.now;
    while rig.now - start < Duration::from_secs(30) {
        rig.cut(1000);
        if rig.socket.is_some() {
            rig.open();
            rig.answer("connect", json!({"value":"reconnection successful"}));
            rig.answer("videoData", json!({}));
        }
        rig.wait(50, true);
    }
    assert!(rig.urls.len() <= 13, "{} sockets in 30 s", rig.urls.len());
}

#[test]
fn an_eviction_ends_it_and_a_network_eviction_rejoins() {
    for (reason, code, ends) in [
        ("forceDisconnectByUser", 4102, true),
        ("sessionClosedByServer", 4102, true),
        ("nodeCrashed", 4102, true),
        ("networkDisconnect", 4102, false),
        ("", 4102, false),
    ] {
        let mut rig = Rig::joined(true);
        rig.tell("participantEvicted", json!({"connectionId":"con_Bob","reason":reason}));
        assert_eq!(*rig.client.state(), State::Joined, "somebody else's");
        rig.publish(3);
        rig.tell("participantEvicted", json!({"connectionId":"con_Me","reason":reason}));
        assert_eq!(rig.closes, [code]);
        assert_eq!(rig.count("leaveRoom"), 0);
        assert_eq!(rig.outcome(3), Some(&Err(ActionError::Cancelled)));
        if ends {
            assert_eq!(*rig.client.state(), State::Ended(EndReason::Evicted { reason: reason.into() }));
        } else {
            assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::NetworkEviction }));
        }
    }
    let mut rig = Rig::joined(true);
    rig.tell("masterNodeCrashedNotification", json!({}));
    assert_eq!(
        (rig.closes.as_slice(), rig.client.state()),
        (&[4103][..], &State::Ended(EndReason::Evicted { reason: "nodeCrashed".into() }))
    );
}

#[test]
fn leaving_ends_with_any_answer_with_none_and_from_every_state() {
    type Step = fn(&mut Rig);
    let answers: [Step; 4] = [
        |r| r.answer("leaveRoom", json!({})),
        |r| r.refuse_request("leaveRoom", -1),
        |r| r.wait(3000, true),
        |r| r.cut(1000),
    ];
    for end in answers {
        let mut rig = Rig::joined(true);
        rig.act(0, Action::Leave);
        assert_eq!(*rig.client.state(), State::Leaving);
        end(&mut rig);
        assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
        assert!(rig.closes.iter().all(|c| *c == 4102));
    }
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.act(0, Action::Leave);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.open();
    rig.act(0, Action::Leave);
    assert_eq!(rig.count("leaveRoom"), 1, "in order behind the join");
    rig.answer("joinRoom", Rig::join_answer());
    assert_eq!(*rig.client.state(), State::Leaving);
    rig.refuse_request("leaveRoom", 803);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.act(0, Action::Leave);
    assert_eq!((rig.client.state(), rig.client.poll_timeout()), (&State::Ended(EndReason::Left), None));
}

#[test]
fn joining_fails_by_name() {
    let start = || {
        let mut rig = Rig::new(true);
        rig.act(0, Action::Join);
        rig
    };
    let mut rig = start();
    rig.refuse();
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Unreachable { detail: "refused".into() }));
    let mut rig = start();
    rig.wait(10_000, true);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Unreachable { detail: "timed out".into() }));
    let mut rig = start();
    rig.open();
    rig.answer("ping", json!({"value":"pong"}));
    rig.wait(10_000, true);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::JoinTimedOut));
    let mut rig = start();
    rig.open();
    rig.cut(1011);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::JoinInterrupted { code: 1011 }));
    let mut rig = start();
    rig.open();
    rig.refuse_request("joinRoom", 401);
    assert!(matches!(rig.client.state(), State::Ended(EndReason::Refused(e)) if e.code == 401));
    let mut rig = start();
    rig.open();
    rig.answer("joinRoom", json!({}));
    assert_eq!(*rig.client.state(), State::Ended(EndReason::BadServer));
}

#[test]
fn requests_time_out_once_and_late_publications_are_undone() {
    let mut rig = Rig::joined(true);
    rig.publish(1);
    let publish = rig.last("publishVideo")["id"].clone();
    rig.act(2, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    let subscribe = rig.last("receiveVideoFrom")["id"].clone();
    rig.act(3, Action::ForceUnpublish { stream_id: "str_x".into() });
    rig.wait(u64::try_from(REQUEST_TIMEOUT.as_millis()).unwrap(), true);
    for id in 1..=3 {
        assert_eq!(rig.outcome(id), Some(&Err(ActionError::TimedOut)));
    }
    rig.say(json!({"id":publish,"result":{"sdpAnswer":"v=0","id":"str_MIC_x_con_Me"},"jsonrpc":"2.0"}));
    assert_eq!(rig.count("unpublishVideo"), 1);
    rig.say(json!({"id":subscribe,"result":{"sdpAnswer":"v=0"},"jsonrpc":"2.0"}));
    assert_eq!(rig.last("unsubscribeFromVideo")["params"], json!({"sender":"con_Bob"}));
    rig.say(json!({"id":subscribe,"result":{"sdpAnswer":"v=0"},"jsonrpc":"2.0"}));
    assert_eq!((rig.count("unsubscribeFromVideo"), rig.client.counters().stray_answers), (1, 1));
}

#[test]
fn a_probe_without_answer_replaces_the_socket() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::Probe);
    assert_eq!(rig.last("echo")["params"], json!({}));
    rig.wait(3000, true);
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::TimedOut)));
    assert!(matches!(rig.client.state(), State::Reconnecting { .. }));
    let mut rig = Rig::joined(true);
    rig.act(0, Action::NetworkChanged);
    assert_eq!(rig.count("ping"), 2, "a standing connection is checked");
    rig.wait(3000, false);
    assert!(matches!(rig.client.state(), State::Reconnecting { .. }));
}

#[test]
fn muting_before_the_publication_is_answered_is_not_lost() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::NotPublishing)));
    rig.publish(2);
    rig.act(3, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    assert_eq!(rig.count("streamPropertyChanged"), 0);
    rig.answer("publishVideo", json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me","createdAt":5}));
    assert_eq!(rig.last("streamPropertyChanged")["params"]["streamId"], "str_MIC_x_con_Me");
    rig.answer("streamPropertyChanged", json!({}));
    assert_eq!(rig.outcome(3), Some(&Ok(Answer::Done)));
}

#[test]
fn streams_are_renegotiated_with_the_parameters_of_each_side() {
    let mut rig = Rig::publishing(true);
    rig.act(2, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    rig.answer("receiveVideoFrom", json!({"sdpAnswer":"v=1"}));
    rig.act(3, Action::ReconnectPublisher { sdp_offer: "v=2".into() });
    assert_eq!(rig.last("reconnectStream")["params"], json!({"stream":"str_MIC_x_con_Me","sdpString":"v=2"}));
    rig.answer("reconnectStream", json!({"sdpAnswer":"v=3","id":"str_MIC_x_con_Me","createdAt":9}));
    assert!(matches!(rig.outcome(3), Some(Ok(Answer::Published { .. }))));
    rig.act(4, Action::ReconnectSubscriber { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=4".into() });
    assert_eq!(
        rig.last("reconnectStream")["params"],
        json!({"stream":"str_CAM_a_con_Bob","sdpOffer":"v=4","forciblyReconnect":false})
    );
    rig.tell("iceCandidate", candidate(1));
    assert!(
        !rig.events.iter().any(|e| matches!(e, ClientEvent::RemoteCandidate { .. })),
        "it belongs to the new description"
    );
    rig.answer("reconnectStream", json!({"sdpAnswer":"v=5"}));
    assert!(rig.events.iter().any(|e| matches!(e, ClientEvent::RemoteCandidate { .. })));
    rig.tell(
        "forciblyReconnectSubscriber",
        json!({"connectionId":"con_Bob","streamId":"str_CAM_a_con_Bob","sdpOffer":"v=6"}),
    );
    assert!(matches!(rig.events.last(), Some(ClientEvent::ForciblyReconnect { .. })));
    let action = Action::ReconnectSubscriberAnswer {
        stream_id: "str_CAM_a_con_Bob".into(),
        sdp_answer: "v=7".into(),
        forcibly: true,
    };
    rig.act(5, action);
    assert_eq!(
        rig.last("reconnectStream")["params"],
        json!({"stream":"str_CAM_a_con_Bob","sdpString":"v=7","forciblyReconnect":true})
    );
}

#[test]
fn a_left_participant_takes_its_stream_along_and_duplicates_are_dropped() {
    let mut rig = Rig::joined(true);
    let before = rig.events.len();
    rig.tell("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_a_con_Bob"}]}));
    rig.tell("participantJoined", json!({"id":"con_Bob"}));
    assert_eq!(rig.events.len(), before, "known already");
    rig.tell("participantPublished", json!({"id":"con_Eve","streams":[{"id":"str_CAM_b_con_Eve"}]}));
    assert!(matches!(&rig.events[before], ClientEvent::ParticipantJoined(p) if p.id == "con_Eve"));
    rig.tell("streamPropertyChanged", json!({"connectionId":"con_Eve","streamId":"str_CAM_b_con_Eve","property":"videoActive","newValue":"false","reason":"publishVideo"}));
    let eve = rig.client.participants().find(|p| p.id == "con_Eve").unwrap();
    assert_eq!(eve.streams[0].video_active, Some(false));
    let before = rig.events.len();
    rig.tell("participantLeft", json!({"connectionId":"con_Eve","reason":"disconnect"}));
    rig.tell("participantLeft", json!({"connectionId":"con_Eve","reason":"disconnect"}));
    assert!(
        matches!(&rig.events[before], ClientEvent::StreamUnpublished { stream_id, .. } if stream_id == "str_CAM_b_con_Eve")
    );
    assert!(matches!(&rig.events[before + 1], ClientEvent::ParticipantLeft { .. }));
    assert_eq!(rig.events.len(), before + 2);
}

#[test]
fn garbage_is_counted_and_unknown_things_are_passed_on() {
    let mut rig = Rig::joined(true);
    for text in [
        "",
        "x",
        "[]",
        "{}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"participantLeft\",\"params\":{}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":1}",
    ] {
        let (socket, _) = rig.socket.unwrap();
        rig.put(Input::Text { socket, text: text.into() });
    }
    assert_eq!(rig.client.counters().garbage, 6);
    assert_eq!(*rig.client.state(), State::Joined);
    rig.tell("somethingNew", json!({"a":1}));
    assert!(matches!(rig.events.last(), Some(ClientEvent::Other(n)) if n.method() == "somethingNew"));
    // What an older socket still has to say is ignored.
    let frames = rig.client.counters().frames_in;
    rig.put(Input::Text { socket: 999, text: "{}".into() });
    rig.put(Input::SocketClosed { socket: 999, code: 1000, reason: String::new() });
    assert_eq!((rig.client.counters().frames_in, rig.client.state()), (frames, &State::Joined));
}

#[test]
fn too_much_is_refused_at_once() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::Signal { kind: "chat".into(), data: "x".repeat(60_000), to: vec![] });
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::TooLong)));
    for n in 0..600 {
        rig.act(100 + n, Action::Signal { kind: "chat".into(), data: "x".into(), to: vec![] });
    }
    assert_eq!(rig.outcome(100), None);
    assert_eq!(rig.outcome(699), Some(&Err(ActionError::TooMany)));
}

#[derive(Debug, Clone)]
enum Step {
    Open,
    Refuse,
    Cut(u16),
    Wait(u64, bool),
    Act(usize),
    Answer(usize, bool),
    AnswerOld(i64),
    Tell(usize),
    Text(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Open),
        1 => Just(Step::Refuse),
        2 => prop_oneof![Just(1000u16), Just(1006), Just(4102)].prop_map(Step::Cut),
        3 => (0u64..12_000, any::<bool>()).prop_map(|(ms, alive)| Step::Wait(ms, alive)),
        8 => (0usize..20).prop_map(Step::Act),
        8 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(n, ok)| Step::Answer(n, ok)),
        1 => (-2i64..40).prop_map(Step::AnswerOld),
        4 => (0usize..13).prop_map(Step::Tell),
        1 => "\\PC{0,40}".prop_map(Step::Text),
    ];
    prop::collection::vec(step, 1..120)
}

fn some_action(n: usize) -> (bool, Action) {
    let stream = || "str_CAM_a_con_Bob".to_owned();
    let sdp = || "v=0".into();
    // (whether it is answered, the action)
    match n {
        0 => (false, Action::Join),
        1 => (true, Action::Publish { properties: PublishProperties::default(), sdp_offer: sdp() }),
        2 => (true, Action::Unpublish),
        3 => (true, Action::Subscribe { stream_id: stream(), sdp_offer: sdp() }),
        4 => (true, Action::PrepareSubscribe { stream_id: stream(), reconnect: true }),
        5 => (true, Action::SubscribeAnswer { stream_id: stream(), sdp_answer: sdp() }),
        6 => (true, Action::Unsubscribe { stream_id: stream() }),
        7 => (true, Action::Signal { kind: String::new(), data: String::new(), to: vec![] }),
        8 => (true, Action::PropertyChanged(OwnProperty::AudioActive(true))),
        9 => (true, Action::PropertyChanged(OwnProperty::VideoTrack("cam".into()))),
        10 => (true, Action::ReconnectPublisher { sdp_offer: sdp() }),
        11 => (true, Action::ReconnectSubscriber { stream_id: stream(), sdp_offer: sdp() }),
        12 => (true, Action::Probe),
        13 => (true, Action::ForceDisconnect { connection_id: "con_Bob".into() }),
        14 => (false, Action::Rejoin(Rig::token())),
        15 => (false, Action::NoToken { for_good: false }),
        16 => (false, Action::NetworkChanged),
        17 => (false, Action::RetryNow),
        18 => (false, Action::Leave),
        _ => (
            true,
            Action::IceCandidate {
                connection_id: "con_Me".into(),
                candidate: String::new(),
                sdp_mid: "0".into(),
                sdp_m_line_index: 0,
            },
        ),
    }
}

fn some_notification(n: usize) -> (&'static str, Value) {
    match n {
        0 => ("participantJoined", json!({"id":"con_Eve"})),
        1 => ("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_a_con_Bob"}]})),
        2 => ("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_z_con_Bob"}]})),
        3 => ("participantUnpublished", json!({"connectionId":"con_Me","reason":"forceUnpublishByUser"})),
        4 => ("participantLeft", json!({"connectionId":"con_Bob"})),
        5 => ("participantEvicted", json!({"connectionId":"con_Me","reason":"networkDisconnect"})),
        6 => ("iceCandidate", candidate(1)),
        7 => ("iceCandidate", json!({"senderConnectionId":"con_Me"})),
        8 => ("forciblyReconnectSubscriber", json!({"streamId":"str_CAM_a_con_Bob","sdpOffer":"v=0"})),
        9 => ("connectionPropertyChanged", json!({"property":"role","newValue":"SUBSCRIBER"})),
        10 => {
            ("streamPropertyChanged", json!({"streamId":"str_CAM_a_con_Bob","property":"videoDimensions","newValue":5}))
        }
        11 => ("participantEvicted", json!({"connectionId":"con_Me","reason":"forceDisconnectByUser"})),
        _ => ("unknown", json!([1])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// No order of messages, timeouts and wishes panics, leaves a request without an end, ends one twice, or keeps the machine busy for ever.
    #[test]
    fn any_order_of_anything(can_rejoin: bool, begin_joined: bool, steps in steps()) {
        let mut rig = if begin_joined { Rig::joined(can_rejoin) } else { Rig::new(can_rejoin) };
        let mut asked = Vec::new();
        let mut next = 1000u64;
        for step in steps {
            match step {
                Step::Open => if let Some((_, false)) = rig.socket { rig.open() },
                Step::Refuse => rig.refuse(),
                Step::Cut(code) => rig.cut(code),
                Step::Wait(ms, alive) => rig.wait(ms, alive),
                Step::Act(n) => {
                    let (answered, action) = some_action(n);
                    if answered { asked.push(next); }
                    rig.act(next, action);
                    next += 1;
                }
                Step::Answer(back, ok) => {
                    let Some(frame) = rig.sent.iter().rev().nth(back).cloned() else { continue };
                    let id = frame["id"].clone();
                    if ok {
                        let result = match frame["method"].as_str().unwrap() {
                            "joinRoom" => Rig::join_answer(),
                            "publishVideo" | "reconnectStream" => json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me"}),
                            "receiveVideoFrom" => json!({"sdpAnswer":"v=0"}),
                            "prepareReceiveVideoFrom" => json!({"sdpOffer":"v=0"}),
                            _ => json!({}),
                        };
                        rig.say(json!({"id":id,"result":result,"jsonrpc":"2.0"}));
                    } else {
                        let code = if frame["method"] == "connect" { 40007 } else { -1 };
                        rig.say(json!({"id":id,"error":{"code":code,"message":""},"jsonrpc":"2.0"}));
                    }
                }
                Step::AnswerOld(id) => rig.say(json!({"id":id,"result":null,"jsonrpc":"2.0"})),
                Step::Tell(n) => { let (method, params) = some_notification(n); rig.tell(method, params) }
                Step::Text(text) => if let Some((socket, true)) = rig.socket {
                    rig.put(Input::Text { socket, text: text.into() });
                },
            }
        }
        // The line goes dead. Everything has to come to rest by itself.
        rig.wait(200_000, false);
        prop_assert_eq!(rig.client.poll_timeout(), None, "{:?}", rig.client.state());
        let resting = matches!(rig.client.state(), State::Idle | State::GivenUp | State::Ended(_));
        prop_assert!(resting, "{:?}", rig.client.state());
        let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
        for event in &rig.events {
            if let ClientEvent::Answered { action, .. } = event { *ends.entry(*action).or_default() += 1; }
        }
        for id in asked {
            prop_assert_eq!(ends.get(&id), Some(&1), "action {}", id);
        }
        // Every change of state is told, and told once.
        let states: Vec<_> = rig.events.iter().filter_map(|e| if let ClientEvent::State(s) = e { Some(s) } else { None }).collect();
        prop_assert!(states.windows(2).all(|w| w[0] != w[1]));
        if let Some(last) = states.last() { prop_assert_eq!(*last, rig.client.state()); }
    }
}
