//! A client machine with its clock, its socket and everything it has put out.
#![allow(dead_code, reason = "each test uses what it needs")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::time::Duration;
use tertulia::protocol::Now;
use tertulia::protocol::client::{
    Action, ActionError, Answer, Client, ClientConfig, ClientEvent, Input, Output, PublishProperties, SDK_VERSION,
    Seed, State,
};
use tertulia::protocol::token::Token;

const TOKEN: &str = "wss://ov.lan:4443?sessionId=SessionA&token=tok_Hush567890123456";

/// A client, its clock, and what it has put out.
pub struct Rig {
    pub client: Client,
    pub now: Duration,
    /// Newest socket and whether it is open.
    pub socket: Option<(u32, bool)>,
    pub urls: Vec<String>,
    pub sent: Vec<Value>,
    pub closes: Vec<u16>,
    pub events: Vec<ClientEvent>,
}

impl Rig {
    pub fn new(can_rejoin: bool) -> Self {
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

    pub fn put(&mut self, input: Input) {
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

    pub fn act(&mut self, id: u64, action: Action) {
        self.put(Input::User(id, action));
    }

    pub fn open(&mut self) {
        let (socket, _) = self.socket.expect("a socket to open");
        self.socket = Some((socket, true));
        self.put(Input::SocketOpen(socket));
    }

    pub fn cut(&mut self, code: u16) {
        if let Some((socket, _)) = self.socket.take() {
            self.put(Input::SocketClosed { socket, code, reason: String::new() });
        }
    }

    pub fn refuse(&mut self) {
        if let Some((socket, _)) = self.socket.take() {
            self.put(Input::SocketFailed { socket, detail: "refused".into() });
        }
    }

    pub fn say(&mut self, frame: Value) {
        if let Some((socket, true)) = self.socket {
            self.put(Input::Text { socket, text: frame.to_string().into() });
        }
    }

    pub fn tell(&mut self, method: &str, params: Value) {
        self.say(json!({"method":method,"params":params,"jsonrpc":"2.0"}));
    }

    pub fn last(&self, method: &str) -> Value {
        self.sent.iter().rev().find(|f| f["method"] == method).cloned().unwrap_or_else(|| panic!("no {method}"))
    }

    pub fn count(&self, method: &str) -> usize {
        self.sent.iter().filter(|f| f["method"] == method).count()
    }

    pub fn answer(&mut self, method: &str, result: Value) {
        let id = self.last(method)["id"].clone();
        self.say(json!({"id":id,"result":result,"jsonrpc":"2.0"}));
    }

    pub fn refuse_request(&mut self, method: &str, code: i64) {
        let id = self.last(method)["id"].clone();
        self.say(json!({"id":id,"error":{"code":code,"message":"no"},"jsonrpc":"2.0"}));
    }

    /// Lets time pass; answers pings when `alive`.
    pub fn wait(&mut self, ms: u64, alive: bool) {
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

    pub fn join_answer() -> Value {
        json!({"id":"con_Me","createdAt":1,"metadata":"","value":[{"id":"con_Bob","createdAt":1,"metadata":"{}",
            "streams":[{"id":"str_CAM_a_con_Bob","hasAudio":true,"hasVideo":true}]}],
            "session":"SessionA","version":"2.32.2","mediaServer":"kurento","role":"PUBLISHER","customIceServers":[],"sessionId":"rpcHush"})
    }

    pub fn joined(can_rejoin: bool) -> Self {
        let mut rig = Self::new(can_rejoin);
        rig.act(0, Action::Join);
        rig.open();
        rig.answer("ping", json!({"value":"pong"}));
        rig.answer("joinRoom", Self::join_answer());
        assert_eq!(*rig.client.state(), State::Joined);
        rig
    }

    pub fn publish(&mut self, action: u64) {
        let properties =
            PublishProperties { has_audio: true, audio_active: Some(true), ..PublishProperties::default() };
        self.act(action, Action::Publish { properties, sdp_offer: "v=0".into() });
    }

    pub fn publishing(can_rejoin: bool) -> Self {
        let mut rig = Self::joined(can_rejoin);
        rig.publish(1);
        rig.answer("publishVideo", json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me","createdAt":5}));
        rig
    }

    pub fn outcome(&self, id: u64) -> Option<&Result<Answer, ActionError>> {
        let mut found = self.events.iter().filter_map(|e| match e {
            ClientEvent::Answered { action, outcome } if *action == id => Some(outcome),
            _ => None,
        });
        let first = found.next();
        assert!(found.next().is_none(), "action {id} ended twice");
        first
    }

    pub fn token() -> Token {
        Token::parse("wss://ov.lan:4443?sessionId=SessionA&token=tok_Fresh78901234567").unwrap()
    }
}

pub fn candidate(n: u32) -> Value {
    json!({"senderConnectionId":"con_Bob","endpointName":"con_Me_str_CAM_a_con_Bob","sdpMLineIndex":0,"sdpMid":"0","candidate":format!("candidate:{n} 1 UDP 1 10.0.0.1 1 typ host")})
}
