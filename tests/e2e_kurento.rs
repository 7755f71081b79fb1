//! `join` against a scripted OpenVidu server with a Kurento behind it: recorded frames and SDP, living media. See `kurento_support`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;
mod kurento_support;
mod peer_support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use e2e_support::{Participant, SECRET, SOON, live, tone_is, tone_of, wait};
use kurento_support::client::{join, published_bps, requested, sent, watch};
use kurento_support::media::{Person, judge};
use kurento_support::{ROOM, Script, Server};
use serde_json::{Value, json};

/// Both ways at once: what the client publishes is judged by the server, what the server's person sends by the client's report.
#[test]
fn pictures_and_sound_go_both_ways() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.stream_id();
    client.sees(7);
    let me = client.connection_id();
    let before = live(&client.report(), 7).unwrap()["video"]["frames"].as_u64().unwrap();
    let since = Instant::now();
    std::thread::sleep(Duration::from_secs(5));
    let report = client.report();
    let got = live(&report, 7).unwrap();
    let per_second = (got["video"]["frames"].as_u64().unwrap() - before) as f64 / since.elapsed().as_secs_f64();
    println!("received {per_second:.1} pictures a second: {got:#}");
    assert!(per_second > 25.0, "{per_second} pictures a second");
    assert_eq!(got["video"]["pattern"]["crc_errors"], 0, "{got:#}");
    assert!(tone_is(got, tone_of(7)), "{got:#}");
    assert_eq!((&got["video"]["codec"], &got["source"]), (&json!("VP8"), &json!("camera")));
    let own = sent(&report);
    assert_eq!(own["video"]["codec"], "VP8");

    let published = server.leg(&me, &me);
    let packets = published.other.packets.lock().unwrap().clone();
    let judgement = judge(&packets);
    println!("{judgement:?}");
    assert_eq!((judgement.ids.len(), judgement.ids.first(), judgement.unreadable), (1, Some(&3), 0), "{judgement:?}");
    assert!(judgement.frames > 100, "{judgement:?}");
    assert!(judgement.tone_hz.is_some_and(|hz| (f64::from(hz) - tone_of(3)).abs() < 10.0), "{judgement:?}");
    assert!(!published.component_two_was_used() && !server.leg(&me, "con_Bob").component_two_was_used());

    // How it began, and how it ends: as the browser in the record.
    let end = client.leave();
    assert_eq!(end.report["connection"]["reconnects"], 0);
    let log = wait("the close", SOON, || {
        let log = server.log();
        log.iter().any(|e| !e.what["close"].is_null() || !e.what["lost"].is_null()).then_some(log)
    });
    let said: Vec<&Value> = log.iter().filter(|e| e.from_client && e.who != "REST").map(|e| &e.what).collect();
    assert_eq!(
        (said[0]["method"].as_str(), &said[0]["params"], &said[0]["id"]),
        (Some("ping"), &json!({"interval": 5000}), &json!(0))
    );
    assert_eq!((said[1]["method"].as_str(), &said[1]["id"]), (Some("joinRoom"), &json!(1)));
    let last: Vec<&Value> = said.iter().rev().take(2).rev().copied().collect();
    assert_eq!(last[0]["method"], "leaveRoom", "{last:?}");
    assert_eq!(last[1], &json!({"close": 4102, "reason": "Connection closed by client"}));
}

/// The other way to subscribe, also when a transport has to be made anew.
#[test]
fn the_server_makes_the_offers() {
    let server = Server::start(Script { server_offers: true, ..Script::default() }, SECRET);
    server.add("Bob", Some(Person::new(8)), json!({}));
    server.add("Cid", Some(Person::new(9)), json!({"hasAudio": false, "audioActive": null}));
    let mut client = watch(&server, &[]);
    client.sees(8);
    client.sees(9);
    let me = client.connection_id();
    let stream_id = client.event("Bob's stream", |e| e["connection_id"] == "con_Bob" && e["event"] == "streamCreated")
        ["stream_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let asked = server.requests(&me, "prepareReceiveVideoFrom");
    assert_eq!(asked.len(), 2, "one each: {asked:?}");
    assert!(asked.iter().any(|a| a["params"] == json!({"sender": stream_id, "reconnect": false})), "{asked:?}");
    let answered = server.requests(&me, "receiveVideoFrom");
    let sdp = answered[0]["params"]["sdpAnswer"].as_str().expect("an answer");
    assert!(
        sdp.contains("a=setup:active") && sdp.contains("a=recvonly") && answered[0]["params"]["sdpOffer"].is_null()
    );
    let report = client.report();
    for id in [8, 9] {
        assert_eq!(live(&report, id).unwrap()["video"]["pattern"]["crc_errors"], 0);
        assert!(!server.leg(&me, if id == 8 { "con_Bob" } else { "con_Cid" }).component_two_was_used());
    }
    // The old transport is gone; candidates must lead to the new one, which the server does not help with.
    server.shared.script.no_candidates.store(true, Ordering::Relaxed);
    server.cut(&me, "con_Bob");
    let again = wait("a new transport", SOON, || server.requests(&me, "reconnectStream").first().cloned());
    assert_eq!((&again["params"]["stream"], &again["params"]["forciblyReconnect"]), (&json!(stream_id), &json!(false)));
    assert!(again["params"]["sdpString"].is_string() && again["params"]["sdpOffer"].is_null());
    assert_eq!(server.requests(&me, "prepareReceiveVideoFrom").last().unwrap()["params"]["reconnect"], true);
    client.sees(8);
    client.leave();
}

/// Two clients through the server: the second one's key frame is asked for by FIR, then by PLI; and the encoder follows the bandwidth.
#[test]
fn key_frames_and_bandwidth_as_a_kurento_asks_for_them() {
    let server = Server::start(Script::default(), SECRET);
    let control = &server.shared.script.control;
    control.remb_bps.store(300_000, Ordering::Relaxed);
    let camera = ["--camera", "pattern:3:640x360@30"];
    let rest = Participant::secret_options(ROOM);
    let a = Participant::join("Ada", 3, &server.url(), &[&rest[..], &camera, &["--microphone", "tone"]].concat());
    a.stream_id();
    let a_id = a.connection_id();
    let mut b = watch(&server, &[]);
    b.sees(3);
    let asked = wait("the first key frame", SOON, || server.key_frame_times(&a_id).first().copied());
    assert!(asked < Duration::from_millis(700), "{asked:?}");
    // Once each, although the request is repeated until it is met.
    for by_pli in [false, true] {
        control.by_pli.store(by_pli, Ordering::Relaxed);
        let before = server.key_frame_times(&a_id).len();
        server.ask_key_frame(&a_id);
        let times = wait("a key frame", SOON, || Some(server.key_frame_times(&a_id)).filter(|t| t.len() > before));
        assert!(times[before] < Duration::from_millis(700), "{times:?}");
    }
    let low = published_bps(&server, &a_id, Duration::from_secs(4));
    control.remb_bps.store(1_500_000, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3));
    let high = published_bps(&server, &a_id, Duration::from_secs(4));
    println!("{:.0} kbit/s at 300, {:.0} kbit/s at 1500", low / 1000.0, high / 1000.0);
    assert!(low < 330_000.0, "{low} bit/s at a REMB of 300 kbit/s");
    // The picture costs no more than that in its full size.
    assert!(high > low * 1.25, "{low}, then {high} bit/s");
    let mut a = a;
    let target = sent(&a.report())["video"]["target_bitrate_bps"].as_u64().unwrap();
    assert!((1_300_000..=1_500_000).contains(&target), "{target}");
    let frames = judge(&server.leg(&a_id, &a_id).other.packets.lock().unwrap().clone());
    println!("{frames:?}");
    assert_eq!((frames.unreadable, frames.ids.first()), (0, Some(&3)));
    assert!(frames.key_frames <= 8, "{frames:?}");
    assert!(frames.sizes.contains(&(640, 360)) && frames.sizes.len() > 1, "smaller at 300 kbit/s: {frames:?}");
    a.leave();
    b.leave();
}

/// Streams of one kind, both ways, and what is said about them.
#[test]
fn only_sound_and_only_pictures() {
    let server = Server::start(Script::default(), SECRET);
    let only_sound =
        json!({"hasVideo": false, "videoActive": null, "typeOfVideo": null, "videoDimensions": null, "frameRate": -1});
    server.add("Bob", Some(Person::new(5)), only_sound);
    server.add("Cid", Some(Person::new(6)), json!({"hasAudio": false, "audioActive": null}));
    let rest = Participant::secret_options(ROOM);
    let join = |name, more: &[&str]| Participant::join_with(name, &server.url(), &[&rest[..], more].concat(), |_| {});
    let mut speaker = join("Ada", &["--microphone", "tone:700"]);
    let mut silent = join("Eve", &["--camera", "pattern:4:320x180@30"]);
    for (client, has_video) in [(&mut speaker, false), (&mut silent, true)] {
        client.sees(6);
        wait("Bob's tone", SOON, || {
            let report = client.report();
            let all = report["streams"].as_array().unwrap().clone();
            let bob = all.iter().find(|s| s["connection_id"] == "con_Bob" && s["direction"] == "recv")?;
            assert!(bob["video"].is_null());
            tone_is(bob, tone_of(5)).then_some(())
        });
        client.stream_id();
        let me = client.connection_id();
        let said = server.requests(&me, "publishVideo").pop().unwrap()["params"].clone();
        assert_eq!((&said["hasVideo"], &said["hasAudio"]), (&json!(has_video), &json!(!has_video)));
        let absent =
            if has_video { vec!["audioActive"] } else { vec!["videoActive", "typeOfVideo", "videoDimensions"] };
        for name in absent {
            assert!(said.get(name).is_none(), "{name} in {said}");
        }
        assert_eq!(said["frameRate"], if has_video { 30 } else { -1 });
    }
    silent.sees(6);
    wait("the tone of the speaker", SOON, || {
        let report = silent.report();
        report["streams"]
            .as_array()
            .unwrap()
            .iter()
            .any(|s| {
                s["direction"] == "recv" && s["audio"]["tone_hz"].as_f64().is_some_and(|t| (t - 700.0).abs() < 10.0)
            })
            .then_some(())
    });
    speaker.sees(4);
    speaker.leave();
    silent.leave();
}

/// A server that cannot pause pictures is not asked for them, and asked again later.
#[test]
fn sound_alone() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(5)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.stream_id();
    client.sees(5);
    let asked = server.requests(&client.connection_id(), "receiveVideoFrom").len();
    client.tell(&json!({"do": "sound_only", "on": true}));
    client.event("the camera closed", |e| e["event"] == "muted" && e["video"] == true);
    let me = client.connection_id();
    wait("sound alone", SOON, || (server.requests(&me, "receiveVideoFrom").len() == asked + 1).then_some(()));
    let bob = |client: &mut Participant| live(&client.report(), 5).cloned();
    wait("Bob's sound without his pictures", SOON, || {
        let before = bob(&mut client)?["video"]["packets"].as_u64()?;
        std::thread::sleep(Duration::from_secs(2));
        let bob = bob(&mut client)?;
        (bob["video"]["packets"].as_u64()? == before && tone_is(&bob, tone_of(5))).then_some(())
    });
    client.tell(&json!({"do": "sound_only", "on": false}));
    client.sees(5);
    client.leave();
}

/// Muting, stopping and starting again, being stopped, being removed: orders and codes of the record.
#[test]
fn changes_of_streams_and_the_end() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.sees(7);
    let first = client.stream_id();
    let me = client.connection_id();
    client.tell(&json!({"do": "mute", "video": false}));
    client.tell(&json!({"do": "mute", "video": true}));
    let changed = wait("the mute", SOON, || server.requests(&me, "streamPropertyChanged").pop());
    assert_eq!(
        changed["params"],
        json!({"streamId": first, "property": "videoActive", "newValue": false, "reason": "publishVideo"})
    );
    client.tell(&json!({"do": "mute", "video": false}));
    wait("the return", SOON, || {
        server.requests(&me, "streamPropertyChanged").pop().filter(|r| r["params"]["newValue"] == true)
    });

    // Another camera and another microphone, as the record has it (`property-changes`): the track, and nothing about being on.
    let before = server.requests(&me, "streamPropertyChanged").len();
    client.tell(&json!({"do": "camera", "source": "pattern:4:320x180@30"}));
    client.event("the other camera", |e| e["event"] == "cameraOpened" && e["device"] == "pattern 4");
    client.tell(&json!({"do": "microphone", "source": "tone:700"}));
    let told = wait("both tracks", SOON, || {
        Some(server.requests(&me, "streamPropertyChanged").split_off(before)).filter(|r| r.len() >= 2)
    });
    let told: Vec<_> = told.iter().map(|r| r["params"].clone()).collect();
    assert_eq!(
        told,
        [("videoTrack", "pattern 4"), ("audioTrack", "tone:700")].map(|(property, label)| {
            json!({"streamId": first, "property": property, "newValue": {"label": label}, "reason": "trackReplaced"})
        })
    );

    // What Bob does; sizes come as JSON in JSON.
    server.change("Bob", "videoActive", &json!(false), "publishVideo");
    server.change("Bob", "videoDimensions", &json!("{\"width\":1000,\"height\":700}"), "screenResized");
    let event =
        client.event("the size", |e| e["event"] == "streamPropertyChanged" && e["property"] == "videoDimensions");
    assert_eq!((&event["value"], &event["reason"]), (&json!("1000x700"), &json!("screenResized")));
    let event = client.event("the mute", |e| e["event"] == "streamPropertyChanged" && e["property"] == "videoActive");
    assert_eq!(event["value"], false);
    server.change("Bob", "videoActive", &json!(true), "publishVideo");

    // Stop and start: another id.
    client.tell(&json!({"do": "unpublish"}));
    wait("the end of the stream", SOON, || server.requests(&me, "unpublishVideo").pop());
    client.tell(&json!({"do": "publish"}));
    let second =
        client.event("another stream", |e| e["event"] == "published" && e["stream_id"] != *first)["stream_id"].clone();
    // Stopped by the server: only the user starts again. A restarted media server is no such decision.
    server.unpublish(&me, "forceUnpublishByServer");
    let gone = client.event("the stop", |e| e["event"] == "streamDestroyed" && e["stream_id"] == second);
    assert_eq!(gone["reason"], "forceUnpublishByServer");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.requests(&me, "publishVideo").len(), 2);
    client.tell(&json!({"do": "publish"}));
    wait("the third stream", SOON, || Some(server.requests(&me, "publishVideo")).filter(|r| r.len() == 3));
    wait("its end to be possible", SOON, || (client.count("published") == 3).then_some(()));
    server.unpublish(&me, "mediaServerReconnect");
    wait("the fourth stream", SOON, || Some(server.requests(&me, "publishVideo")).filter(|r| r.len() == 4));

    // Bob publishes anew: another id, another subscription.
    server.unpublish("con_Bob", "unpublish");
    client.event("Bob's end", |e| e["event"] == "streamDestroyed" && e["connection_id"] == "con_Bob");
    server.publish("Bob", Some(Person::new(12)), json!({}));
    client.sees(12);

    // Removed: told to everybody, meant for one.
    server.notify("participantEvicted", &json!({"connectionId": "con_Bob", "reason": "forceDisconnectByServer"}));
    std::thread::sleep(Duration::from_millis(500));
    server.notify("participantEvicted", &json!({"connectionId": me, "reason": "forceDisconnectByServer"}));
    let end = client.end();
    assert!(end.report["error"].as_str().is_some_and(|e| e.contains("forceDisconnectByServer")), "{:#}", end.report);
    let close = wait("the close", SOON, || {
        server.log().into_iter().find(|e| !e.what["close"].is_null() || !e.what["lost"].is_null())
    });
    assert_eq!(close.what, json!({"close": 4102, "reason": "Connection closed by client"}));
    assert!(!requested(&server, &me).contains(&"leaveRoom".to_owned()), "an evicted client says nothing");
}

/// The relay that the answer to the join names, with its credentials, as `openvidu-server` makes them.
#[test]
fn candidates_of_the_relay_are_offered() {
    use base64::Engine as _;
    use hmac::{Hmac, Mac as _};
    let port = e2e_support::free_udp_port();
    let mut command = std::process::Command::new("turnserver");
    command.args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--realm=openvidu.io", "--no-cli"]);
    command.args(["--no-tls", "--no-dtls", "--use-auth-secret", "--static-auth-secret=test", "--log-file=stdout"]);
    command.arg(format!("--listening-port={port}")).arg("--pidfile=/dev/null");
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let Ok(relay) = command.spawn() else {
        eprintln!("turnserver is not installed: relays were not tried");
        return;
    };
    let _relay = Ended(relay);
    let valid_until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 86_400;
    let username = format!("{valid_until}:s97VwSDj");
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"test").unwrap();
    mac.update(username.as_bytes());
    let credential = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
    std::thread::sleep(Duration::from_secs(1));
    let entry = json!({"url": format!("turn:127.0.0.1:{port}"), "username": username, "credential": credential});
    // What cannot be used is left out: it must not spoil the rest.
    let tls = json!({"url": "turns:127.0.0.1:5349?transport=tcp", "username": "a", "credential": "b"});
    let script = Script { ice_servers: Some(json!([tls, entry])), ..Script::default() };
    let server = Server::start(script, SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.sees(7);
    client.stream_id();
    let me = client.connection_id();
    for end_point in [me.as_str(), "con_Bob"] {
        let kinds = wait("a relayed candidate", SOON, || {
            let of =
                server.requests(&me, "onIceCandidate").into_iter().filter(|c| c["params"]["endpointName"] == end_point);
            let lines: Vec<String> = of.map(|c| c["params"]["candidate"].as_str().unwrap().to_owned()).collect();
            lines.iter().any(|l| l.contains("typ relay raddr")).then_some(lines)
        });
        assert!(kinds.iter().all(|l| l.split(' ').nth(1) == Some("1")), "{kinds:?}");
    }
    let end = client.leave();
    assert!(!end.report.to_string().contains(&credential) && !end.report.to_string().contains(&username));
}

/// A process that does not outlive its test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Joined with everything off, taken in part, then whole.
#[test]
fn muted_from_the_start_and_taken_in_part() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &["--audio-off", "--video-off"]);
    client.sees(7);
    let own = client.stream_id();
    let me = client.connection_id();
    let said = server.requests(&me, "publishVideo").pop().unwrap()["params"].clone();
    assert_eq!((&said["audioActive"], &said["videoActive"]), (&json!(false), &json!(false)));
    assert_eq!(
        (&said["hasAudio"], &said["hasVideo"], &said["typeOfVideo"]),
        (&json!(true), &json!(true), &json!("CAMERA"))
    );
    let mut other = watch(&server, &[]);
    std::thread::sleep(Duration::from_secs(5));
    let other_id = other.connection_id();
    assert!(server.requests(&other_id, "reconnectStream").is_empty(), "nothing is missing");
    client.tell(&json!({"do": "mute", "video": false}));
    client.tell(&json!({"do": "mute", "audio": false}));
    other.sees(3);
    assert_eq!(server.requests(&other_id, "reconnectStream").len(), 0);

    // Sound alone, then both: the subscription ends by the connection's id and begins by the stream's.
    let stream_id = client.event("Bob's stream", |e| e["connection_id"] == "con_Bob" && e["event"] == "streamCreated")
        ["stream_id"]
        .as_str()
        .unwrap()
        .to_owned();
    client.tell(&json!({"do": "subscribe", "stream_id": stream_id, "audio": true, "video": false}));
    let only =
        wait("the sound alone", SOON, || Some(server.requests(&me, "receiveVideoFrom")).filter(|r| r.len() == 2));
    assert!(!only[1]["params"]["sdpOffer"].as_str().unwrap().contains("m=video"));
    assert_eq!(server.requests(&me, "unsubscribeFromVideo")[0]["params"], json!({"sender": "con_Bob"}));
    client.tell(&json!({"do": "subscribe", "stream_id": stream_id, "audio": true, "video": true}));
    wait("both", SOON, || Some(server.requests(&me, "receiveVideoFrom")).filter(|r| r.len() == 3));
    client.sees(7);
    let errors: Vec<Value> = client.events().into_iter().filter(|e| e["event"] == "error").collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(client.stream_id(), own);
    client.leave();
    other.leave();
}

/// A session with H264, and one with a codec that nobody here has.
#[test]
fn sessions_with_another_codec() {
    let server = Server::start(Script { codec: Some("H264"), ..Script::default() }, SECRET);
    let a = join(&server, "Ada", 3, &[]);
    a.stream_id();
    let a_id = a.connection_id();
    let mut b = watch(&server, &[]);
    let seen = b.sees(3);
    assert_eq!((&seen["video"]["codec"], &seen["video"]["pattern"]["crc_errors"]), (&json!("H264"), &json!(0)));
    assert!(server.requests(&b.connection_id(), "reconnectStream").is_empty());
    assert!(!server.key_frame_times(&a_id).is_empty());
    a.leave();
    b.leave();
    let server = Server::start(Script { codec: Some("VP9"), ..Script::default() }, SECRET);
    let mut client = join(&server, "Ada", 3, &[]);
    let refused = client.event("the refusal", |e| e["event"] == "error" && e["command"] == "publish");
    assert!(refused["message"].as_str().unwrap().contains("video format"), "{refused}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(server.requests(&client.connection_id(), "publishVideo").len(), 1, "asked once");
    client.tell(&json!({"do": "leave"}));
    e2e_support::assert_failed(&client.end(), &["publishing was asked for and never worked", "video format"]);
}

/// A session that exists already, and a secret that is wrong.
#[test]
fn sessions_over_rest() {
    let server = Server::start(Script::default(), SECRET);
    server.shared.script.ends_between.store(true, Ordering::Relaxed);
    let a = watch(&server, &[]);
    a.connection_id();
    let b = watch(&server, &["--role", "SUBSCRIBER", "--camera", "pattern:3:320x180@30"]);
    let b_id = b.connection_id();
    std::thread::sleep(Duration::from_secs(2));
    assert!(server.requests(&b_id, "publishVideo").is_empty(), "a subscriber does not ask for what is refused");
    let rest: Vec<Value> = server.log().into_iter().filter(|e| e.who == "REST").map(|e| e.what).collect();
    let sessions: Vec<&Value> = rest.iter().filter(|r| r["path"] == "/openvidu/api/sessions").collect();
    // One more than there are clients: the session had ended before the first one's token was asked for.
    assert_eq!((sessions.len(), &sessions[0]["body"]), (3, &json!({"customSessionId": ROOM})));
    let roles: Vec<&Value> = rest.iter().map(|r| &r["body"]["role"]).filter(|r| !r.is_null()).collect();
    assert!(roles.contains(&&json!("PUBLISHER")) && roles.contains(&&json!("SUBSCRIBER")), "{rest:?}");
    a.leave();
    b.leave();
    let server = Server::start(Script::default(), "another secret");
    e2e_support::assert_failed(&watch(&server, &[]).end(), &["refused the secret"]);
}

/// Kurento begins at 300 kbit/s and rises slowly: the default picture has to move and to be legible at that, on both sides.
#[test]
fn the_default_picture_at_the_first_bandwidth() {
    let server = Server::start(Script::default(), SECRET);
    server.shared.script.control.remb_bps.store(300_000, Ordering::Relaxed);
    let rest = Participant::secret_options(ROOM);
    let default = [&rest[..], &["--camera", "pattern:3", "--microphone", "tone"]].concat();
    let mut a = Participant::join_with("Ada", &server.url(), &default, |_| {});
    a.stream_id();
    let mut b = watch(&server, &[]);
    b.sees(3);
    std::thread::sleep(Duration::from_secs(2));
    let frames = |b: &mut Participant| live(&b.report(), 3).unwrap()["video"]["frames"].as_u64().unwrap();
    let (before, since) = (frames(&mut b), Instant::now());
    std::thread::sleep(Duration::from_secs(8));
    let per_second = (frames(&mut b) - before) as f64 / since.elapsed().as_secs_f64();
    let report = b.report();
    let video = &live(&report, 3).unwrap()["video"];
    println!("{per_second:.1} pictures a second: {video:#} {:#}", sent(&a.report())["video"]);
    assert!(per_second > 25.0, "{per_second}");
    assert_eq!((&video["pattern"]["crc_errors"], &video["freezes"]), (&json!(0), &json!(0)));
    a.leave();
    b.leave();
}

/// Everybody in the room reads a participant id. Who puts ours into their own metadata is a stranger all the same: seen, heard and listed.
#[test]
fn nobody_is_our_own_screen_who_only_says_so() {
    let server = Server::start(Script::default(), SECRET);
    let mut client = join(&server, "Ada", 3, &[]);
    client.stream_id();
    let me = client.connection_id();
    let log = server.log();
    let joined = log.iter().find(|e| e.what["method"] == "joinRoom").expect("it has joined");
    let mut metadata: Value = serde_json::from_str(joined.what["params"]["metadata"].as_str().unwrap()).unwrap();
    assert!(metadata["participantId"].as_str().is_some_and(|id| !id.is_empty()), "{metadata}");
    metadata["type"] = json!("SCREEN");
    server.add_as("Eve", &metadata.to_string(), Some(Person::new(11)), json!({"typeOfVideo": "SCREEN"}));
    client.event("the stranger's stream", |e| e["event"] == "streamCreated" && e["connection_id"] == "con_Eve");
    client.sees(11);
    assert_eq!(server.requests(&me, "receiveVideoFrom").len(), 1);
    client.leave();
}
