//! Desktops in one call through `tertulia host`, each a process of its own: what they see, hear, say and leave behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;
#[path = "fakecam/mod.rs"]
mod fakecam;

use std::path::Path;
use std::time::Duration;

use e2e_support::relay::{Sniffer, UdpRelay};
use e2e_support::{Host, Participant, SOON, assert_failed, live, streams_of, tone_of, wait};
use serde_json::{Value, json};

const ROOM: &str = "talk";

fn sent(report: &Value) -> &Value {
    report["streams"].as_array().unwrap().iter().find(|s| s["direction"] == "send").expect("an own stream")
}

/// One by a pinned invitation with H264, one over REST with `--insecure`, a third who only watches for some seconds.
#[test]
fn two_desktops_see_and_hear_each_other_over_tls() {
    let host = Host::start(ROOM, &[]);
    assert!(host.url().starts_with("https://") && host.invitation().contains("fp=sha256"), "{}", host.invitation());
    let mut a = Participant::join("Ada", 11, &host.invitation(), &["--codec", "h264"]);
    // Whoever comes first by an invitation opens a room in which each publisher chooses the codec; one made over REST has VP8.
    a.connection_id();
    let rest = Participant::secret_options(ROOM);
    let mut b =
        Participant::join("Bob", 12, &host.url(), &[&rest[..], &["--insecure", "--role", "MODERATOR"]].concat());
    let mut c = {
        let dir = tempfile::tempdir().unwrap();
        let picture = dir.path().join("grid.png");
        let path = picture.display().to_string();
        let only = ["--subscribe-only", "--seconds", "8", "--snapshot", &path];
        (Participant::join("Cid", 13, &host.invitation(), &only), picture, dir)
    };
    for (one, id, codec) in [(&mut a, 12, "VP8"), (&mut b, 11, "H264"), (&mut c.0, 11, "H264")] {
        let stream = one.sees(id);
        assert_eq!(stream["video"]["codec"], codec);
        assert_eq!(stream["audio"]["codec"], "opus");
        assert_eq!((&stream["video"]["width"], &stream["video"]["height"]), (&json!(320), &json!(180)));
        assert_eq!(stream["source"], "camera");
        let level = stream["audio"]["level_dbfs"].as_f64().unwrap();
        assert!((-26.0..-14.0).contains(&level), "a sine at -20 dBFS, heard at {level}");
    }
    let b_id = b.connection_id();

    let watched = c.0.end();
    assert_eq!(watched.code, Some(0), "{:?}", watched.complaint);
    assert_eq!(watched.report["session"]["role"], "PUBLISHER");
    assert!(watched.report["streams"].as_array().unwrap().iter().all(|s| s["direction"] == "recv"));
    let png = std::fs::read(&c.1).expect("the picture of half time");
    assert!(png.starts_with(b"\x89PNG") && png.len() > 2_000, "{} bytes", png.len());

    b.terminate();
    let gone = a.event("the departure", |e| e["event"] == "connectionDestroyed" && e["connection_id"] == *b_id);
    assert_eq!(gone["reason"], "disconnect", "it left properly");
    let b = b.end();
    assert_eq!(b.code, Some(0), "{:?}", b.complaint);
    let a = a.leave();

    for (end, id, codec) in [(&a, 12, "H264"), (&b, 11, "VP8")] {
        let report = &end.report;
        assert_eq!((&report["ok"], &report["error"]), (&json!(true), &Value::Null));
        assert_eq!(report["session"]["id"], ROOM);
        assert_eq!(report["session"]["server"], "tertulia");
        assert_eq!(report["connection"]["candidate"], "host/udp");
        let seen = live(report, id).unwrap();
        assert_eq!(seen["video"]["pattern"]["crc_errors"], 0);
        assert_eq!(seen["video"]["packets_lost"], 0);
        let own = sent(report);
        assert_eq!(own["video"]["codec"], codec);
        assert!(own["video"]["frames"].as_u64().unwrap() > 30);
        assert_eq!(own["audio"]["muted"], false);
        let times = &report["timeline_ms"];
        for step in ["socket_open", "joined", "published", "first_remote_audio", "first_remote_frame", "left"] {
            assert!(times[step].is_u64(), "{step} in {times}");
        }
        let text = report.to_string();
        assert!(!["Ada", "Bob", "Cid"].iter().any(|name| text.contains(name)), "names do not stand in a report");
        assert!(!text.contains("key=") && !text.contains(e2e_support::SECRET));
    }
    assert_eq!((&a.report["session"]["insecure"], &b.report["session"]["insecure"]), (&json!(false), &json!(true)));
    assert_eq!(b.report["session"]["role"], "MODERATOR");
    let host = host.stop();
    assert_eq!((&host["ok"], &host["command"]), (&json!(true), &json!("host")));
}

/// Whether the camera is open now, by its log.
fn camera_open(log: &Path) -> bool {
    assert!(log.exists(), "it never was");
    fakecam::open_handles(log) > 0
}

fn property(stream_id: &str, name: &'static str, value: bool) -> impl Fn(&Value) -> bool {
    move |e: &Value| {
        e["event"] == "streamPropertyChanged"
            && e["stream_id"] == stream_id
            && e["property"] == name
            && e["value"] == value
    }
}

#[test]
fn mute_share_signals_and_the_other_commands() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let dir = tempfile::tempdir().unwrap();
    let (library, log) = (fakecam::library(), dir.path().join("camera.log"));
    let token = host.token(ROOM, "MODERATOR");
    let camera = ["--camera", "device:0:320x180@15", "--microphone", "tone:1000"];
    // The camera's pattern is 27, the tone that goes with it is 1000 Hz.
    let mut a = Participant::join_with("a", &token, &camera, |command| {
        command.env("LD_PRELOAD", library).env("FAKECAM_LOG", &log).env("FAKECAM_ID", "27");
    });
    let mut b = Participant::join("b", 22, &host.invitation(), &[]);
    assert_eq!(tone_of(27), 1000.0);
    b.sees(27);
    a.sees(22);
    let (a_id, b_id, a_stream) = (a.connection_id(), b.connection_id(), a.stream_id());

    // Muted: the others are told, hear silence, see nothing; the device is closed.
    assert!(camera_open(&log));
    a.tell(&json!({"do": "mute", "audio": true, "video": true}));
    b.event("muted sound", property(&a_stream, "audioActive", false));
    b.event("muted picture", property(&a_stream, "videoActive", false));
    wait("the camera's end", SOON, || (!camera_open(&log)).then_some(()));
    wait("silence", SOON, || {
        let report = b.report();
        let audio = &live(&report, 27)?["audio"];
        (audio["muted"] == true && audio["level_dbfs"].as_f64().is_none_or(|l| l < -70.0)).then_some(())
    });
    let frozen = b.frames_read(27);

    // With a raw token a shared screen takes the camera's place, and a muted camera stays muted afterwards.
    a.tell(&json!({"do": "share", "screen": "pattern:29:320x180@15"}));
    assert_eq!(a.named("shareStarted")["own_connection"], false);
    let shown = wait("the screen", SOON, || {
        let report = b.report();
        live(&report, 29).filter(|s| s["video"]["pattern"]["frames_read"].as_u64() > Some(frozen + 5)).cloned()
    });
    assert_eq!(shown["stream_id"], *a_stream, "in the same stream");
    a.tell(&json!({"do": "share", "screen": null}));
    a.named("shareStopped");
    wait("the muted picture", SOON, || {
        let muted = b.events().iter().filter(|e| property(&a_stream, "videoActive", false)(e)).count();
        (muted >= 2).then_some(())
    });
    assert!(!camera_open(&log), "a muted camera stays closed after sharing");
    a.tell(&json!({"do": "mute", "audio": false, "video": false}));
    b.event("sound", property(&a_stream, "audioActive", true));
    b.sees(27);

    // Signals, to all and to one.
    a.tell(&json!({"do": "signal", "type": "chat", "data": "hello"}));
    b.tell(&json!({"do": "signal", "type": "chat", "data": "and back", "to": [a_id]}));
    let signal = |data: &'static str| move |e: &Value| e["event"] == "signal" && e["data"] == data;
    let heard = b.event("the signal", signal("hello"));
    assert_eq!((&heard["type"], &heard["from"]), (&json!("chat"), &json!(a_id)));
    assert_eq!(a.event("the answer", signal("and back"))["from"], b_id);
    assert!(!b.events().iter().any(signal("and back")), "it was for one only");

    // A hidden tile is not decoded, a visible one is again.
    b.tell(&json!({"do": "tile", "stream_id": a_stream, "size": "0x0"}));
    let hidden = wait("no more pictures", SOON, || {
        let before = b.frames_read(27);
        std::thread::sleep(Duration::from_millis(700));
        (b.frames_read(27) == before).then_some(before)
    });
    b.tell(&json!({"do": "tile", "stream_id": a_stream, "size": "320x180"}));
    wait("pictures again", SOON, || (b.frames_read(27) > hidden).then_some(()));

    // Receiving a kind less, nothing, and all of it again.
    for (audio, video) in [(true, false), (false, false), (true, true)] {
        b.tell(&json!({"do": "subscribe", "stream_id": a_stream, "audio": audio, "video": video}));
        let mut newest = || {
            let report = b.report();
            report["streams"].as_array()?.iter().rfind(|s| s["stream_id"] == *a_stream).cloned()
        };
        // What was received before is counted on: pictures are there if there are more and more of them.
        wait("what was chosen", SOON, || {
            let before = newest()?["video"]["pattern"]["frames_read"].as_u64()?;
            std::thread::sleep(Duration::from_millis(500));
            let stream = newest()?;
            let heard = stream["audio"]["tone_hz"].as_f64().is_some_and(|hz| (hz - 1000.0).abs() < 10.0);
            let seen = stream["video"]["pattern"]["frames_read"].as_u64() > Some(before + 2);
            ((heard, seen) == (audio, video)).then_some(())
        });
    }

    // With an invitation a shared screen is a second connection.
    b.tell(&json!({"do": "share", "screen": "pattern:28:320x180@15"}));
    assert_eq!(b.named("shareStarted")["own_connection"], true);
    let screen = wait("the screen", SOON, || {
        let report = a.report();
        live(&report, 28).filter(|s| s["video"]["frames"].as_u64() > Some(5)).cloned()
    });
    assert_eq!(screen["source"], "screen");
    assert_ne!(screen["connection_id"], *b_id);
    assert!(screen["audio"].is_null());
    assert_eq!(
        b.report()["streams"].as_array().unwrap().iter().filter(|s| s["video"]["pattern"]["id"] == 28).count(),
        0
    );
    b.tell(&json!({"do": "share", "screen": null}));
    let left = a.event("the screen's end", |e| {
        e["event"] == "connectionDestroyed" && e["connection_id"] == screen["connection_id"]
    });
    assert_eq!(left["reason"], "disconnect");

    // Another camera in the same stream; then none at all, and published anew.
    b.tell(&json!({"do": "camera", "source": "pattern:24:320x180@15"}));
    let b_stream = b.stream_id();
    assert_eq!(wait("another camera", SOON, || live(&a.report(), 24).cloned())["stream_id"], *b_stream);
    b.tell(&json!({"do": "unpublish"}));
    a.event("the stream's end", |e| e["event"] == "streamDestroyed" && e["stream_id"] == *b_stream);
    b.tell(&json!({"do": "publish"}));
    let anew = a.event("the new stream", |e| {
        e["event"] == "streamCreated" && e["connection_id"] == *b_id && e["stream_id"] != *b_stream
    });
    wait("the new stream's picture", SOON, || {
        let report = a.report();
        streams_of(&report, 24).into_iter().find(|s| s["stream_id"] == anew["stream_id"]).map(|_| ())
    });

    // What cannot be done is said, and changes nothing.
    for line in [
        "no JSON",
        "[]",
        "{}",
        r#"{"do":"dance"}"#,
        r#"{"do":"mute"}"#,
        r#"{"do":"camera","source":"film:1"}"#,
        r#"{"do":"signal"}"#,
        r#"{"do":"subscribe","stream_id":"str_none"}"#,
        r#"{"do":"tile","stream_id":"x","size":"big"}"#,
        r#"{"do":"answer","accept":true}"#,
        r#"{"do":"share","screen":"film"}"#,
        r#"{"do":"force_disconnect","connection_id":"con_none"}"#,
    ] {
        let before = b.count("error");
        b.tell_line(line);
        let error = wait("an error", SOON, || b.events().into_iter().filter(|e| e["event"] == "error").nth(before));
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{line}: {error}");
        assert!(!error["command"].is_null(), "{line}: {error}");
    }

    // The moderator may remove, the publisher may not.
    let errors = b.count("error");
    b.tell(&json!({"do": "force_disconnect", "connection_id": a_id}));
    wait("a refusal", SOON, || (b.count("error") > errors).then_some(()));
    a.tell(&json!({"do": "force_unpublish", "stream_id": anew["stream_id"]}));
    b.event("the end of its stream", |e| e["event"] == "streamDestroyed" && e["stream_id"] == anew["stream_id"]);
    a.tell(&json!({"do": "force_disconnect", "connection_id": b_id}));
    let b = b.end();
    assert_eq!(b.code, Some(1), "somebody else ended it");
    assert!(b.complaint[0].contains("removed from the session"), "{:?}", b.complaint);
    assert_eq!(b.report["ok"], false);
    let last = b.events.iter().rfind(|e| e["event"] == "sessionDisconnected").expect("an end");
    assert_eq!(last["reason"], "forceDisconnectByUser");
    // The token was used.
    let again = Participant::join("again", 23, &token, &[]).end();
    assert_failed(&again, &["used before", "new link"]);
    let a = a.leave();
    assert!(streams_of(&a.report, 22).iter().all(|s| s["video"]["pattern"]["crc_errors"] == 0));
    assert!(!camera_open(&log));
}

/// Everything between a participant and the host's UDP port is STUN, DTLS or SRTP; also where packets are lost.
#[test]
fn on_the_wire_there_is_dtls_and_srtp_only() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let relay = UdpRelay::to(host.udp());
    let proxy = Sniffer::to(host.addr(), host.udp().port(), relay.addr.port());
    let lossy = ["--simulate-network", "down:loss=3"];
    let mut a = Participant::join("a", 31, &host.invitation_through(proxy.addr), &lossy);
    let mut b = Participant::join("b", 32, &host.invitation(), &[]);
    a.sees(32);
    b.sees(31);
    let repaired = wait("a repaired loss", SOON, || {
        let report = a.report();
        let seen = live(&report, 32)?.clone();
        (seen["video"]["packets_recovered"].as_u64()? > 0).then_some(seen)
    });
    assert_eq!(repaired["video"]["pattern"]["crc_errors"], 0);
    a.leave();
    b.leave();

    let seen = relay.seen();
    for (way, packets) in [("to the host", &seen.0), ("from the host", &seen.1)] {
        let of = |range: std::ops::RangeInclusive<u8>| packets.iter().filter(|p| range.contains(&p[0])).count();
        let (stun, dtls, srtp) = (of(0..=3), of(20..=63), of(128..=191));
        assert_eq!(stun + dtls + srtp, packets.len(), "something else goes {way}");
        assert!(dtls >= 2 && srtp > 50, "{way}: {stun} STUN, {dtls} DTLS, {srtp} SRTP");
        // A handshake record says so, and media comes only after it.
        let first_dtls = packets.iter().position(|p| p[0] == 22).expect("a handshake");
        assert_eq!(packets[first_dtls][1], 0xfe, "DTLS, not TLS");
        let first_srtp = packets.iter().position(|p| p[0] >= 128).unwrap();
        assert!(first_dtls < first_srtp, "{way}");
        // The start code of a VP8 key frame stands at a fixed place in every key frame that is not encrypted.
        let clear =
            packets.iter().filter(|p| p[0] >= 128 && p.windows(3).take(60).any(|w| w == [0x9d, 0x01, 0x2a])).count();
        assert_eq!(clear, 0, "pictures in the clear {way}");
    }
}

/// Whoever has no microphone sends silence: nobody's watchdog takes that for a broken connection and rebuilds it.
#[test]
fn a_missing_microphone_disturbs_nobody() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let dir = tempfile::tempdir().unwrap();
    let camera = ["--camera", "pattern:15:320x180@15", "--microphone", "device", "--speaker", "null"];
    let a = Participant::join_with("a", &host.invitation(), &camera, |command| {
        command
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("PULSE_SERVER", format!("unix:{}", dir.path().join("none").display()))
            .env("ALSA_CONFIG_PATH", "/dev/null");
    });
    let mut b = Participant::join("b", 16, &host.invitation(), &[]);
    assert_eq!(a.event("the failure", |e| e["event"] == "deviceError")["key"], "dev.mic_none");
    wait("the picture", SOON, || (b.frames_read(15) > 10).then_some(()));
    // Past the 3 s of the watchdog and the second look behind it.
    std::thread::sleep(Duration::from_secs(7));
    let report = b.report();
    let audio = &live(&report, 15).unwrap()["audio"];
    assert!(audio["packets"].as_u64() > Some(15), "{audio}");
    let disturbed = |e: &Value| e["event"] == "streamStalled" || e["event"] == "mediaReconnecting";
    assert!(!b.events().iter().any(disturbed), "{:?}", b.events());
    a.terminate();
    let end = a.end();
    assert_eq!((end.code, &end.report["ok"]), (Some(1), &json!(false)));
    assert!(end.complaint[0].contains("--microphone none"), "{:?}", end.complaint);
    b.leave();
}
