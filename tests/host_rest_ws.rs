//! The host over real sockets on loopback, without media: TLS with the printed fingerprint, REST, WebSocket, invitations, resuming, hostile input.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tertulia::host::{self, Handle, HostConfig, HostError, Tls};
use tertulia::protocol::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const SECRET: &str = "S3CRET";
const PATIENCE: Duration = Duration::from_secs(5);

/// Accepts one certificate only.
#[derive(Debug)]
struct Pin(String, rustls::crypto::CryptoProvider);

impl rustls::client::danger::ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        let digest: String = Sha256::digest(end_entity.as_ref()).iter().map(|b| format!("{b:02x}")).collect();
        if format!("sha256:{digest}") == self.0 {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate".into()))
        }
    }
    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.1.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.1.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

struct Host {
    handle: Handle,
    dir: tempfile::TempDir,
}

fn host() -> Host {
    host_in(tempfile::tempdir().unwrap())
}

fn host_in(dir: tempfile::TempDir) -> Host {
    let config = HostConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        secret: Some(Secret::new(SECRET)),
        data_dir: dir.path().to_owned(),
        keep_rooms: true,
        ..HostConfig::default()
    };
    Host { handle: host::start(config).unwrap(), dir }
}

type Stream = TlsStream<TcpStream>;

impl Host {
    fn addr(&self) -> SocketAddr {
        self.handle.listen_addr()
    }

    async fn tls(&self, fingerprint: &str) -> std::io::Result<Stream> {
        let provider = rustls::crypto::ring::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pin(fingerprint.into(), provider)))
            .with_no_client_auth();
        let stream = TcpStream::connect(self.addr()).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("localhost").unwrap(), stream)
            .await
    }

    async fn connect(&self) -> Stream {
        self.tls(self.handle.fingerprint().unwrap()).await.unwrap()
    }

    async fn rest(&self, method: &str, path: &str, auth: bool, body: Option<Value>) -> (u16, String) {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let auth = if auth { "Authorization: Basic T1BFTlZJRFVBUFA6UzNDUkVU\r\n" } else { "" };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{auth}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.addr(),
            body.len()
        );
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer");
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    async fn session(&self, name: &str) {
        assert_eq!(
            self.rest("POST", "/openvidu/api/sessions", true, Some(json!({"customSessionId": name}))).await.0,
            200
        );
    }

    async fn token(&self, session: &str, role: &str) -> Value {
        let path = format!("/openvidu/api/sessions/{session}/connection");
        let (status, body) = self.rest("POST", &path, true, Some(json!({"role": role}))).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn socket(&self) -> Client {
        let stream = self.connect().await;
        let url = format!("wss://{}/openvidu?sessionId=x", self.addr());
        let (ws, response) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        assert!(response.headers()["set-cookie"].to_str().unwrap().starts_with("OVJSESSIONID="));
        Client { ws, id: 0, rpc_id: String::new(), notifications: Vec::new() }
    }

    async fn join(&self, session: &str, role: &str) -> (Client, Value) {
        let token = self.token(session, role).await["token"].as_str().unwrap().to_owned();
        let mut client = self.socket().await;
        let joined = client.join(session, &token).await["result"].clone();
        assert!(joined["id"].is_string());
        client.rpc_id = joined["sessionId"].as_str().unwrap().into();
        (client, joined)
    }
}

struct Client {
    ws: WebSocketStream<Stream>,
    id: i64,
    rpc_id: String,
    notifications: Vec<Value>,
}

impl Client {
    async fn send(&mut self, text: impl Into<String>) {
        self.ws.send(Message::text(text.into())).await.unwrap();
    }

    async fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.id;
        self.id += 1;
        self.send(json!({"jsonrpc": "2.0", "method": method, "params": params, "id": id}).to_string()).await;
        loop {
            let frame = self.frame().await;
            if frame["id"] == id {
                return frame;
            }
            self.notifications.push(frame);
        }
    }

    async fn join(&mut self, session: &str, token: &str) -> Value {
        let params = json!({"token": token, "session": session, "platform": "test", "metadata": "", "secret": ""});
        self.request("joinRoom", params).await
    }

    async fn frame(&mut self) -> Value {
        loop {
            match tokio::time::timeout(PATIENCE, self.ws.next())
                .await
                .expect("a frame in time")
                .expect("not the end")
                .unwrap()
            {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn notification(&mut self, method: &str, within: Duration) -> Value {
        let until = Instant::now() + within;
        loop {
            if let Some(i) = self.notifications.iter().position(|n| n["method"] == method) {
                return self.notifications.remove(i)["params"].clone();
            }
            let left = until.saturating_duration_since(Instant::now());
            let next =
                tokio::time::timeout(left, self.ws.next()).await.unwrap_or_else(|_| panic!("no {method} in time"));
            if let Some(Ok(Message::Text(text))) = next {
                self.notifications.push(serde_json::from_str(&text).unwrap());
            }
        }
    }

    /// The close code the host ends this socket with.
    async fn closed(&mut self, within: Duration) -> u16 {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.ws.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(frame))) => return frame.map_or(1005, |f| u16::from(f.code)),
                Some(Ok(_)) => {}
                Some(Err(e)) => panic!("{e}"),
                None => panic!("closed without a frame"),
            }
        }
    }

    /// Cuts the TCP connection without a word.
    fn cut(self) {
        drop(self.ws);
    }
}

fn signal(data: &str) -> Value {
    json!({"message": json!({"to": [], "data": data, "type": "signal:chat"}).to_string()})
}

#[tokio::test]
async fn the_certificate_is_the_printed_one() {
    let host = host();
    assert!(host.handle.url().starts_with("https://127.0.0.1:"));
    assert!(
        host.tls(&format!("sha256:{}", "00".repeat(32))).await.is_err(),
        "another fingerprint is refused before anything is sent"
    );
    assert_eq!(host.rest("GET", "/openvidu/api/config/openvidu-version", true, None).await, (200, "2.32.2".into()));
    assert_eq!(host.rest("GET", "/openvidu/api/sessions", false, None).await.0, 401);
    let (status, page) = host.rest("GET", "/openvidu/accept-certificate", false, None).await;
    assert!(status == 200 && page.contains("history.back()"));
    assert_eq!(host.rest("GET", "/openvidu/", false, None).await.0, 401);
}

#[tokio::test]
async fn two_people_talk_and_one_is_evicted() {
    let host = host();
    host.session("s").await;
    let (mut a, joined) = host.join("s", "MODERATOR").await;
    assert_eq!(joined["role"], "MODERATOR");
    assert_eq!(joined["tertulia"]["version"], 1);
    assert_eq!(joined["customIceServers"], json!([{"url": "stun:127.0.0.1:9"}]));
    let (mut b, joined_b) = host.join("s", "PUBLISHER").await;
    assert_eq!(a.notification("participantJoined", PATIENCE).await["id"], joined_b["id"]);
    assert_eq!(b.request("sendMessage", signal("hello")).await["result"]["sessionId"], b.rpc_id);
    assert_eq!(b.notification("sendMessage", PATIENCE).await["data"], "hello", "the sender hears itself");
    assert_eq!(a.notification("sendMessage", PATIENCE).await["from"], joined_b["id"]);
    let refused = b.request("forceDisconnect", json!({"connectionId": joined["id"]})).await;
    assert_eq!(refused["error"]["code"], 401, "not a moderator");
    let stats = host.handle.stats();
    assert_eq!((stats.sessions, stats.participants, stats.sockets), (1, 2, 2));
    a.request("forceDisconnect", json!({"connectionId": joined_b["id"]})).await;
    assert_eq!(b.notification("participantEvicted", PATIENCE).await["reason"], "forceDisconnectByUser");
    assert_eq!(b.request("echo", json!({})).await["result"]["sessionId"], b.rpc_id);
    assert_eq!(b.closed(Duration::from_secs(12)).await, 1000, "closed when it does not leave by itself");
    a.request("leaveRoom", json!({})).await;
    assert_eq!(host.rest("GET", "/openvidu/api/sessions/s", true, None).await.0, 404, "the last one closes the door");
}

#[tokio::test]
async fn a_token_works_once_and_only_for_its_session() {
    let host = host();
    host.session("s").await;
    host.session("other").await;
    let token = host.token("s", "SUBSCRIBER").await["token"].as_str().unwrap().to_owned();
    let mut a = host.socket().await;
    assert_eq!(a.join("other", &token).await["error"]["code"], 401);
    assert_eq!(a.join("nowhere", &token).await["error"]["code"], 202);
    assert_eq!(a.join("s", &token.replace("wss", "ws")).await["error"]["code"], 401, "compared as a whole");
    assert!(a.join("s", &token).await["result"]["id"].is_string());
    let mut b = host.socket().await;
    assert_eq!(b.join("s", &token).await["error"]["code"], 401);
    let publish = json!({"doLoopback": false, "hasAudio": true, "hasVideo": false, "sdpOffer": "v=0"});
    assert_eq!(a.request("publishVideo", publish).await["error"]["code"], 401, "a subscriber publishes nothing");
}

#[tokio::test]
async fn a_short_cut_is_survived_and_nothing_is_missed() {
    let host = host();
    host.session("s").await;
    let (mut a, _) = host.join("s", "PUBLISHER").await;
    let (b, joined_b) = host.join("s", "PUBLISHER").await;
    let rpc_id = b.rpc_id.clone();
    b.cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.request("sendMessage", signal("while you were away")).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut b = host.socket().await;
    let answer = b.request("connect", json!({"sessionId": rpc_id, "reconnect": true})).await;
    assert_eq!(answer["result"]["value"], "reconnection successful");
    assert_eq!(b.notification("sendMessage", PATIENCE).await["data"], "while you were away");
    let path = format!("/openvidu/api/sessions/s/connection/{}", joined_b["id"].as_str().unwrap());
    assert_eq!(host.rest("GET", &path, true, None).await.0, 200, "the same connection id");
    assert!(a.notifications.iter().all(|n| n["method"] != "participantLeft"), "nobody else notices");
}

#[tokio::test]
async fn a_long_cut_evicts() {
    let host = host();
    host.session("s").await;
    let (mut a, _) = host.join("s", "PUBLISHER").await;
    let (b, joined_b) = host.join("s", "PUBLISHER").await;
    let rpc_id = b.rpc_id.clone();
    let cut = Instant::now();
    b.cut();
    let left = a.notification("participantLeft", Duration::from_secs(12)).await;
    assert!(cut.elapsed() >= Duration::from_secs(10), "not before the window is over");
    assert_eq!((&left["connectionId"], &left["reason"]), (&joined_b["id"], &json!("networkDisconnect")));
    a.notification("participantEvicted", PATIENCE).await;
    let mut b = host.socket().await;
    let answer = b.request("connect", json!({"sessionId": rpc_id, "reconnect": true})).await;
    assert_eq!(answer["error"]["code"], 40007);
}

#[tokio::test]
async fn hostile_input_is_answered_and_others_are_served() {
    let host = host();
    host.session("s").await;
    let (mut good, _) = host.join("s", "PUBLISHER").await;
    let mut early = host.socket().await;
    assert_eq!(early.request("echo", json!({})).await["error"]["code"], 803);
    for garbage in
        ["not json", "[]", "{}", "\"x\"", "{\"method\":5,\"id\":1}", "{\"method\":\"echo\",\"id\":\"x\"}", "\u{0}"]
    {
        early.send(garbage).await;
    }
    assert_eq!(
        early.request("noSuchMethod", json!({})).await["error"]["code"],
        803,
        "garbage is ignored, the socket lives"
    );
    let message = |size| {
        json!({"jsonrpc": "2.0", "method": "sendMessage", "params": {"message": "x".repeat(size)}, "id": 1}).to_string()
    };
    let (mut big, _) = host.join("s", "PUBLISHER").await;
    big.send(message(60_000)).await;
    assert_eq!(big.closed(PATIENCE).await, 1009);
    // Far too much is not even read: the connection ends while it is still being sent.
    let (mut huge, _) = host.join("s", "PUBLISHER").await;
    let ended = tokio::time::timeout(PATIENCE, async {
        let _ = huge.ws.send(Message::text(message(50 << 20))).await;
        while let Some(Ok(frame)) = huge.ws.next().await {
            assert!(!matches!(frame, Message::Text(t) if t.contains("result")), "it was carried out");
        }
    });
    ended.await.expect("the connection ends");
    let (mut binary, _) = host.join("s", "PUBLISHER").await;
    binary.ws.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(binary.closed(PATIENCE).await, u16::from(CloseCode::Unsupported));
    // Connections that never say anything cost a place for some seconds and nothing else.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(host.addr()).await.unwrap());
    }
    assert!(good.request("echo", json!({})).await["result"].is_object());
    assert_eq!(host.rest("GET", "/openvidu/api/sessions/s", true, None).await.0, 200);
    // Half a request and nothing more: the connection is given up.
    let mut slow = host.connect().await;
    slow.write_all(b"GET /openvidu/api/sessions HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(15), slow.read_to_end(&mut rest)).await.expect("given up").ok();
    let mut nothing = [0; 1];
    let first = silent.first_mut().unwrap();
    assert!(
        matches!(tokio::time::timeout(PATIENCE, first.read(&mut nothing)).await, Ok(Ok(0) | Err(_))),
        "silent ones are given up too"
    );
    assert!(good.request("sendMessage", signal("still here")).await["result"].is_object());
}

#[tokio::test]
async fn publishing_and_subscribing_reach_the_media_thread() {
    let host = host();
    host.session("s").await;
    let (mut a, _) = host.join("s", "PUBLISHER").await;
    let (mut b, _) = host.join("s", "PUBLISHER").await;
    let publish = |offer: &str| {
        json!({"doLoopback": false, "hasAudio": true, "hasVideo": true, "audioActive": true, "videoActive": true, "typeOfVideo": "CAMERA",
            "frameRate": 30, "videoDimensions": "{\"width\":640,\"height\":480}", "sdpOffer": offer})
    };
    assert_eq!(a.request("publishVideo", publish("not an sdp")).await["error"]["code"], 302);
    let published =
        a.request("publishVideo", publish(include_str!("fixtures/sdp/chromium-publish-offer.sdp"))).await["result"]
            .clone();
    let answer = published["sdpAnswer"].as_str().expect("an answer");
    assert!(answer.contains("a=recvonly") && answer.contains("VP8/90000") && !answer.contains("VP9/90000"), "{answer}");
    assert!(
        answer.contains(&format!(" {} typ host", host.handle.udp_addr().port())),
        "with the host's own candidate: {answer}"
    );
    let stream = b.notification("participantPublished", PATIENCE).await["streams"][0]["id"].clone();
    assert_eq!(stream, published["id"]);
    let offer = include_str!("fixtures/sdp/chromium-subscribe-offer.sdp");
    let received = b.request("receiveVideoFrom", json!({"sender": stream, "sdpOffer": offer})).await;
    assert!(received["result"]["sdpAnswer"].as_str().expect("an answer").contains("a=sendonly"));
    assert!(
        b.request(
            "onIceCandidate",
            json!({"endpointName": published["id"], "candidate": "", "sdpMid": "0", "sdpMLineIndex": 0})
        )
        .await["result"]
            .is_object()
    );
    let prepared = b.request("prepareReceiveVideoFrom", json!({"sender": stream, "reconnect": true})).await;
    assert!(prepared["result"]["sdpOffer"].as_str().expect("an offer").contains("m=video"), "{prepared}");
    let again = include_str!("fixtures/sdp/chromium-reconnect-publisher-offer.sdp");
    let reconnected = a.request("reconnectStream", json!({"stream": stream, "sdpString": again})).await;
    assert_eq!(reconnected["result"]["id"], stream);
    assert_eq!(host.handle.stats().streams, 1);
    a.request("unpublishVideo", json!({})).await;
    assert_eq!(b.notification("participantUnpublished", PATIENCE).await["reason"], "unpublish");
    let late = b.request("receiveVideoFrom", json!({"sender": stream, "sdpOffer": offer})).await;
    assert_eq!(late["error"]["code"], 105);
    assert_eq!(host.handle.stats().streams, 0);
}

#[tokio::test]
async fn an_invitation_opens_the_room_again_and_again() {
    let host = host();
    let invitation = host.handle.create_room("room").unwrap();
    assert_eq!(invitation.fingerprint.as_deref(), host.handle.fingerprint());
    assert!(invitation.to_string().starts_with(&format!("tertulia://127.0.0.1:{}/room#key=", host.addr().port())));
    for _ in 0..2 {
        let (status, body) =
            host.rest("POST", "/tertulia/join", false, Some(json!({"room": "room", "key": invitation.key}))).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        let token = answer["token"].as_str().unwrap();
        assert!(
            token.starts_with(&format!("wss://{}?sessionId=room&token=tok_", host.addr())),
            "leads back the way the client came"
        );
        let mut client = host.socket().await;
        assert!(client.join("room", token).await["result"]["id"].is_string());
        // The last one leaves: the session is gone, the invitation is not.
        client.request("leaveRoom", json!({})).await;
        assert_eq!(host.rest("GET", "/openvidu/api/sessions/room", true, None).await.0, 404);
    }
    let wrong = host.rest("POST", "/tertulia/join", false, Some(json!({"room": "room", "key": "wrong"}))).await;
    let unknown = host.rest("POST", "/tertulia/join", false, Some(json!({"room": "nowhere", "key": "wrong"}))).await;
    assert_eq!((wrong.0, &wrong), (403, &unknown), "nothing says whether a room exists");
}

#[tokio::test]
async fn an_invitation_outlives_a_restart_of_the_host() {
    let first = host();
    let key = first.handle.create_room("room").unwrap().key;
    first.handle.shutdown();
    let kept = std::fs::read_to_string(first.dir.path().join("host-rooms.json")).unwrap();
    assert!(!kept.contains(&key), "a digest is kept, not the key");
    let Host { handle, dir } = first;
    drop(handle);
    let second = host_in(dir);
    let (status, body) = second.rest("POST", "/tertulia/join", false, Some(json!({"key": key}))).await;
    assert_eq!(status, 200, "{body}");
    let token = serde_json::from_str::<Value>(&body).unwrap()["token"].as_str().unwrap().to_owned();
    let mut client = second.socket().await;
    assert!(client.join("room", &token).await["result"]["id"].is_string());
}

#[tokio::test]
async fn a_close_is_answered_and_a_violation_is_named() {
    let host = host();
    let mut client = host.socket().await;
    let reason = "Connection closed by client";
    let close = CloseFrame { code: CloseCode::Library(4102), reason: reason.into() };
    client.ws.send(Message::Close(Some(close.clone()))).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.ws.next()).await.unwrap();
    assert!(matches!(&answer, Some(Ok(Message::Close(Some(frame)))) if frame.code == close.code), "{answer:?}");
    // Text that is not UTF-8, masked with zeros, and a frame with a reserved bit.
    for (frame, code) in [(vec![0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe], 1007), (vec![0xc1, 0x80, 0, 0, 0, 0], 1002)] {
        let mut client = host.socket().await;
        client.ws.get_mut().write_all(&frame).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, client.ws.next()).await.unwrap();
        assert!(
            matches!(&answer, Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == code),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn a_taken_port_is_named_in_the_users_words() {
    let host = host();
    let dir = tempfile::tempdir().unwrap();
    let config =
        HostConfig { listen: host.addr(), tls: Tls::None, data_dir: dir.path().to_owned(), ..HostConfig::default() };
    let error = host::start(config).unwrap_err();
    assert!(matches!(error, HostError::PortTaken { protocol: "TCP", .. }));
    assert!(error.to_string().contains("in use by another program"), "{error}");
    let config = HostConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        udp_port: Some(host.handle.udp_addr().port()),
        data_dir: dir.path().to_owned(),
        ..HostConfig::default()
    };
    assert!(matches!(host::start(config).unwrap_err(), HostError::PortTaken { protocol: "UDP", .. }));
    host.handle.shutdown();
    assert!(matches!(host.handle.create_room("late"), Err(HostError::NotRunning)));
    assert!(TcpStream::connect(host.addr()).await.is_err(), "nobody listens any more");
}
