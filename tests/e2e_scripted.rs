//! `join` against servers that behave badly: evicted all the same, silent, talking nonsense, not what they should be, not to be trusted.
//! Each failure ends with exit code 1, one line that says why and what to do, and a report that says so, too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use e2e_support::{Host, Participant, SECRET, assert_failed, dead_port};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const ROOM: &str = "scripted";
/// In the token of a hidden recorder.
const HIDDEN_SECRET: &str = "MY_SECRET";

/// What the server does.
#[derive(Clone, Copy, PartialEq)]
enum Script {
    /// The recorded one: the place is lost while the client is away, `connect` succeeds all the same, and then only pings are answered.
    EvictsWhileAway,
    /// Upgrades and says nothing ever.
    NeverAnswers,
    /// Frames that are no JSON-RPC, or of unknown kinds, between good ones.
    TalksNonsense,
    /// Another kind of web server.
    NotOpenVidu,
    /// Answers a method with this error, code and message.
    Refuses(&'static str, i64, &'static str),
    /// Takes whoever has the server's secret in as its hidden recorder, and closes the socket instead of answering the leave, as recorded.
    Hidden,
    /// The first socket breaks with the join on its way.
    BreaksWhileJoining,
    /// Removes everybody soon after the join, for this reason.
    Evicts(&'static str),
}

struct Server {
    addr: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(script: Script) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let sockets = Arc::new(AtomicU32::new(0));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, script, addr, Arc::clone(&sockets)));
            }
        });
        Self { addr, _runtime: runtime }
    }

    fn token(&self) -> String {
        format!("ws://{}?sessionId={ROOM}&token=tok_0123456789abcdef", self.addr)
    }
}

async fn serve(mut stream: TcpStream, script: Script, addr: SocketAddr, sockets: Arc<AtomicU32>) {
    let mut head = [0; 4];
    while stream.peek(&mut head).await.unwrap_or(0) < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if script == Script::NotOpenVidu || head.starts_with(b"POST") {
        let mut request = vec![0; 16_384];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let text = String::from_utf8_lossy(&request[..length]).into_owned();
        let (status, body) = match (script, text.split(' ').nth(1)) {
            (Script::NotOpenVidu, _) => ("404 Not Found", json!({"error": "no such page"})),
            (_, Some(path)) if path.ends_with("/connection") => {
                let token = format!("ws://{addr}?sessionId={ROOM}&token=tok_{:016}", sockets.load(Ordering::SeqCst));
                ("200 OK", json!({"id": "con_x", "token": token}))
            }
            _ => ("200 OK", json!({"id": ROOM, "sessionId": ROOM})),
        };
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
        return;
    }
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let number = sockets.fetch_add(1, Ordering::SeqCst);
    talk(socket, script, number).await;
}

/// The join result as recorded from a real server, without anybody else.
fn joined(number: u32) -> Value {
    json!({
        "id": format!("con_scripted{number}"), "finalUserId": "D0DD218E4C6DCC78", "createdAt": 1_795_201_847_413_u64,
        "metadata": "{\"clientData\":\"A\"}", "value": [], "session": ROOM, "version": "2.32.1", "mediaServer": "kurento",
        "record": true, "role": "PUBLISHER", "coturnIp": "127.0.0.1", "coturnPort": 3478, "customIceServers": [],
        "sessionId": format!("rpc{number}"),
    })
}

/// What the recorder was answered in the recording `hidden-and-secret`.
fn hidden() -> Value {
    let recording = std::fs::read_to_string("tests/fixtures/calls/hidden-and-secret.jsonl").unwrap();
    let frames = recording.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["frame"]["result"].clone());
    frames.into_iter().find(|result| result["id"] == "RECORDER").expect("the answer to its join")
}

async fn talk(mut socket: WebSocketStream<TcpStream>, script: Script, number: u32) {
    let nonsense = [
        "not json",
        "[]",
        "{}",
        "\"text\"",
        r#"{"jsonrpc":"2.0","id":99,"result":{}}"#,
        r#"{"jsonrpc":"1.0","method":"x"}"#,
        r#"{"jsonrpc":"2.0","method":"participantJoined","params":[]}"#,
        r#"{"jsonrpc":"2.0","method":"iceCandidate","params":{"senderConnectionId":7}}"#,
        r#"{"jsonrpc":"2.0","method":"participantPublished","params":{"id":"con_nobody","streams":[{}]}}"#,
    ];
    let away = tokio::time::sleep(Duration::from_millis(1_500));
    tokio::pin!(away);
    loop {
        let frame = tokio::select! {
            frame = socket.next() => match frame {
                Some(Ok(Message::Text(text))) => text.to_string(),
                Some(Ok(_)) => continue,
                _ => return,
            },
            // The cable is pulled.
            () = &mut away, if script == Script::EvictsWhileAway && number == 0 => return,
        };
        if script == Script::NeverAnswers {
            continue;
        }
        let request: Value = serde_json::from_str(&frame).expect("the client speaks JSON");
        if let Script::Refuses(method, code, message) = script
            && request["method"] == method
        {
            let error = json!({"id": request["id"], "error": {"code": code, "message": message}, "jsonrpc": "2.0"});
            let _ = socket.send(Message::text(error.to_string())).await;
            continue;
        }
        if script == Script::BreaksWhileJoining && number == 0 && request["method"] == "joinRoom" {
            return;
        }
        let result = match request["method"].as_str().unwrap_or_default() {
            "ping" => json!({"value": "pong"}),
            "joinRoom" if script == Script::Hidden => {
                let params = &request["params"];
                assert_eq!((&params["secret"], &params["recorder"]), (&json!(HIDDEN_SECRET), &json!(true)));
                hidden()
            }
            "leaveRoom" if script == Script::Hidden => return drop(socket.close(None).await),
            "joinRoom" => joined(number),
            "connect" => json!({"value": "reconnection successful", "sessionId": request["params"]["sessionId"]}),
            "leaveRoom" => json!({"sessionId": "rpc"}),
            // Nobody is there any more who could ask.
            _ if script == Script::EvictsWhileAway && number == 1 => continue,
            _ => json!({"sessionId": "rpc"}),
        };
        if script == Script::TalksNonsense {
            for text in nonsense {
                let _ = socket.send(Message::text(text)).await;
            }
            let _ = socket.send(Message::binary(vec![0, 1, 2])).await;
        }
        let answer = json!({"id": request["id"], "result": result, "jsonrpc": "2.0"});
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
        if let Script::Evicts(reason) = script
            && request["method"] == "joinRoom"
        {
            let params = json!({"connectionId": "con_scripted0", "reason": reason});
            let notice = json!({"method": "participantEvicted", "params": params, "jsonrpc": "2.0"});
            let _ = socket.send(Message::text(notice.to_string())).await;
        }
    }
}

/// Joins without devices.
fn join(target: &str, more: &[&str]) -> Participant {
    Participant::join_with("guest", target, more, |_| {})
}

#[test]
fn evicted_although_connect_succeeds() {
    let server = Server::start(Script::EvictsWhileAway);
    let base = format!("http://{}", server.addr);
    let over_rest = join(&base, &Participant::secret_options(ROOM));
    let first = over_rest.connection_id();
    let lost = over_rest.named("reconnecting");
    let noticed = over_rest.named("rejoining");
    assert_eq!(noticed["reason"], "participantGone");
    let after_ms = noticed["t_ms"].as_u64().unwrap() - lost["t_ms"].as_u64().unwrap();
    assert!(after_ms < 5_000, "noticed after {after_ms} ms");
    assert_ne!(over_rest.named("rejoined")["connection_id"], *first);
    let end = over_rest.leave();
    assert_eq!(end.report["session"]["server"], "openvidu");

    let server = Server::start(Script::EvictsWhileAway);
    let end = join(&server.token(), &[]).end();
    assert_failed(&end, &["connection was lost", "one visit", "ask for a new invitation"]);
    assert!(end.events.iter().any(|e| e["event"] == "error" && e["key"] == "err.new_token"), "{:?}", end.events);
}

#[test]
fn a_server_that_never_answers() {
    let server = Server::start(Script::NeverAnswers);
    let end = join(&server.token(), &[]).end();
    assert_failed(&end, &["doesn't answer", "firewall"]);
    assert!(end.events.iter().any(|e| e["event"] == "error" && e["key"] == "err.silent"), "{:?}", end.events);
}

#[test]
fn a_call_that_was_never_joined_is_none_when_its_time_is_up() {
    let server = Server::start(Script::NeverAnswers);
    let end = join(&server.token(), &["--seconds", "2"]).end();
    assert_eq!(end.code, Some(1), "{:?}", end.complaint);
    assert_eq!((end.complaint.len(), &end.report["ok"]), (1, &json!(false)), "{:?}", end.complaint);
    assert!(end.report["error"].as_str().unwrap().contains("--seconds"), "{:#}", end.report);
    // Who ends it himself has what he wanted.
    let guest = join(&server.token(), &[]);
    std::thread::sleep(Duration::from_millis(500));
    guest.terminate();
    let end = guest.end();
    assert_eq!((end.code, &end.report["ok"]), (Some(0), &json!(true)), "{:?}", end.complaint);
}

#[test]
fn a_server_that_talks_nonsense_in_between() {
    let server = Server::start(Script::TalksNonsense);
    let guest = join(&server.token(), &[]);
    guest.named("joined");
    guest.named("garbage");
    std::thread::sleep(Duration::from_secs(1));
    let end = guest.leave();
    assert_eq!(end.report["connection"]["reconnects"], 0);
}

fn fails(target: &str, more: &[&str], key: &str, words: &[&str]) {
    let end = join(target, more).end();
    assert_failed(&end, words);
    let error = end.events.iter().find(|e| e["event"] == "error").unwrap();
    assert_eq!(error["key"], key, "{error}");
    assert!(!end.report.to_string().contains(SECRET) && !end.complaint[0].contains(SECRET));
}

#[test]
fn servers_that_cannot_be_used() {
    let server = Server::start(Script::NotOpenVidu);
    fails(&server.token(), &[], "err.not_openvidu", &["127.0.0.1", "not a conferencing server"]);
    let base = format!("http://{}", server.addr);
    fails(&base, &Participant::secret_options(ROOM), "err.not_openvidu", &["check the address"]);

    let dead = dead_port();
    let nobody = format!("127.0.0.1:{dead}");
    fails(&format!("ws://{nobody}?sessionId=s&token=tok_1"), &[], "err.refused", &[&dead.to_string(), "refuses"]);
    fails(&format!("http://{nobody}"), &Participant::secret_options(ROOM), "err.refused", &["refuses"]);
    fails("wss://nobody.invalid?sessionId=s&token=tok_1", &[], "err.dns", &["nobody.invalid", "spelling"]);
}

#[test]
fn servers_that_cannot_be_trusted_and_secrets_that_are_wrong() {
    let host = Host::start(ROOM, &[]);
    let rest = Participant::secret_options(ROOM);
    fails(&host.url(), &rest, "err.cert", &["nobody vouches", "--insecure"]);
    let allowed = join(&host.url(), &[&rest[..], &["--insecure", "--seconds", "2"]].concat()).end();
    assert_eq!(
        (allowed.code, &allowed.report["session"]["insecure"]),
        (Some(0), &json!(true)),
        "{:?}",
        allowed.complaint
    );

    // Another host's identity behind an address that is known.
    let (pinned, fingerprint) = (host.invitation(), host.ready["fingerprint"].as_str().unwrap().to_owned());
    let digit = if fingerprint.ends_with('0') { "1" } else { "0" };
    let other = format!("{}{digit}", &fingerprint[..fingerprint.len() - 1]);
    fails(&pinned.replace(&fingerprint, &other), &[], "err.pin", &["another identity", "new invitation"]);

    let used_up = pinned.replace("key=", "key=x");
    fails(&used_up, &[], "err.token", &["refused this invitation"]);

    let wrong = Participant::join_with("guest", &host.url(), &[&rest[..], &["--insecure"]].concat(), |command| {
        command.env("TERTULIA_TEST_SECRET", "guessed");
    });
    assert_failed(&wrong.end(), &["refused the secret", "--secret-env"]);
}

/// What a server says to a join, each with its own words; a token that it repeats goes no further.
#[test]
fn refusals_of_a_join_have_words_of_their_own() {
    let used =
        "Unable to join session s. Token wss://h:1?sessionId=s&token=tok_0hea0NvbNR7G9xq4 is not valid. Code: 401";
    for (code, message, key, words) in [
        (203, "Session scripted is full. Code: 203", "err.full", ["is full", "wait for a place"]),
        (203, "Session scripted is closing. Code: 203", "err.closed", ["is closed", "ask whoever opened it"]),
        (
            202,
            "Unable to join session. Session scripted cannot be found. Code: 202",
            "err.no_room",
            ["no room", "invitation"],
        ),
        (401, used, "err.token", ["refused this invitation", "new link"]),
        (902, "No media node with room. Code: 902", "err.no_capacity", ["cannot carry", "try again later"]),
        (-1, "java.lang.NullPointerException:null", "err.server", ["error -1", "tell the server's owner"]),
    ] {
        let server = Server::start(Script::Refuses("joinRoom", code, message));
        let end = join(&server.token(), &[]).end();
        assert_failed(&end, &words);
        let error = end.events.iter().find(|e| e["event"] == "error").unwrap();
        assert_eq!(error["key"], key, "{error}");
        let said = format!("{:?} {} {:?}", end.complaint, end.report, end.events);
        assert!(!said.contains("tok_"), "{said}");
    }
}

/// A refused publication does not end the call.
#[test]
fn a_stream_that_the_server_does_not_take_is_told_and_the_call_goes_on() {
    for (code, message, key) in [
        (800, "Error forcing codec: 'VP9', for PARTICIPANT: 'con_a'. Code: 800", "err.codec"),
        (401, "Unable to publish video. The user does not have a valid token. Code: 401", "err.rights"),
    ] {
        let server = Server::start(Script::Refuses("publishVideo", code, message));
        let guest = join(&server.token(), &["--camera", "pattern:1:160x120@5"]);
        let error = guest.named("error");
        assert_eq!((&error["command"], &error["key"]), (&json!("publish"), &json!(key)), "{error}");
        std::thread::sleep(Duration::from_millis(300));
        guest.terminate();
        assert_failed(&guest.end(), &["publishing was asked for", "never worked"]);
    }
}

/// A token with the server's secret comes on standard input, where no list of processes shows it; its bearer is nobody among the others.
#[test]
fn a_hidden_recorder_joins_by_standard_input() {
    let server = Server::start(Script::Hidden);
    let token = format!("ws://{}?sessionId={ROOM}&secret={HIDDEN_SECRET}&recorder=true", server.addr);
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["join", &token, "--headless"])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let mut recorder = join("-", &["--camera", "pattern:1:160x120@5"]);
    recorder.tell_line(&token);
    let joined = recorder.named("joined");
    assert_eq!((&joined["connection_id"], &joined["role"]), (&json!("RECORDER"), &json!("SUBSCRIBER")));
    recorder.named("connectionCreated");
    let end = recorder.leave();
    assert_eq!((end.code, &end.report["ok"]), (Some(0), &json!(true)), "{:?}", end.complaint);
    assert!(!end.report.to_string().contains(HIDDEN_SECRET));
}

/// A network that breaks at the wrong moment is no other kind of server; who can get another token tries again.
#[test]
fn a_join_that_is_interrupted_is_tried_once_more() {
    let server = Server::start(Script::BreaksWhileJoining);
    let base = format!("http://{}", server.addr);
    let guest = join(&base, &Participant::secret_options(ROOM));
    guest.named("joined");
    guest.leave();
    let server = Server::start(Script::BreaksWhileJoining);
    fails(&server.token(), &[], "err.offline", &["cannot be reached", "broke while joining"]);
}

#[test]
fn removed_or_closed_says_by_whom_and_what_to_do() {
    for (reason, words) in [
        ("forceDisconnectByUser", ["removed from the session", "a moderator did it"]),
        ("sessionClosedByServer", ["the room was closed", "whether there is another"]),
        ("nodeCrashed", ["the media server stopped", "join again"]),
    ] {
        let server = Server::start(Script::Evicts(reason));
        let end = join(&server.token(), &[]).end();
        assert_eq!(end.code, Some(1));
        for word in words {
            assert!(end.complaint[0].contains(word), "{word}: {:?}", end.complaint);
        }
        assert!(end.events.iter().any(|e| e["event"] == "sessionDisconnected" && e["reason"] == reason));
    }
}

/// What is no link at all fails like a call: event, report, one line.
#[test]
fn what_is_no_link_fails_like_a_call() {
    for target in ["nonsense", "tertulia://127.0.0.1:4443/room#key=k&fp=sha256:00", "wss://h:1?token=tok_1"] {
        fails(target, &[], "err.link", &["copy it again"]);
    }
}
