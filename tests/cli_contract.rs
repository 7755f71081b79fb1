//! What scripts rely on: exit codes, reports of failures, events, and commands that are neither lost nor misunderstood.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e_support::{Host, Participant, SOON, assert_failed, live, tone_is, wait};
use serde_json::{Value, json};

const ROOM: &str = "contract";

/// Runs a command to its end.
fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tertulia")).args(args).stdin(Stdio::null()).output().unwrap()
}

fn code(args: &[&str]) -> Option<i32> {
    run(args).status.code()
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("no report {}: {e}", path.display())))
        .unwrap()
}

/// Standard output and report tell the same story.
fn assert_same_events(end: &e2e_support::End) {
    let reported = end.report["events"].as_array().expect("events in the report");
    assert_eq!(&end.events, reported);
}

/// What somebody receives from this connection.
fn from<'a>(report: &'a Value, connection_id: &str) -> Option<&'a Value> {
    let all = report["streams"].as_array()?;
    all.iter().rfind(|s| s["direction"] == "recv" && s["connection_id"] == connection_id)
}

#[test]
fn a_sound_file_that_cannot_be_used_costs_its_own_direction_only() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let mut listener = Participant::join_with("listener", &host.invitation(), &[], |_| {});
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken.wav");
    std::fs::write(&broken, b"RIFF....").unwrap();
    let microphone = format!("file:{}", broken.display());
    let sound = ["--microphone", &microphone, "--speaker", "file:/nope/x.wav"];
    let mut talker = Participant::join_with("talker", &host.invitation(), &sound, |_| {});
    for device in ["microphone", "speaker"] {
        let error = talker.event(device, |e| e["event"] == "deviceError" && e["device"] == device);
        assert!(error["key"].as_str().is_some_and(|k| k.starts_with("dev.")), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains(".wav")), "{error}");
    }
    // Silence is sent in place of the file: without it the others would take the connection for broken.
    let id = talker.connection_id();
    talker.stream_id();
    wait("silence", SOON, || (from(&listener.report(), &id)?["audio"]["packets"].as_u64()? > 20).then_some(()));
    talker.tell(&json!({"do": "microphone", "source": "tone:600"}));
    assert_eq!(talker.named("microphoneOpened")["device"], "tone:600");
    wait("the tone", SOON, || from(&listener.report(), &id).is_some_and(|s| tone_is(s, 600.0)).then_some(()));
    let heard = listener.report();
    let sent = talker.report();
    // A stream of sound alone has the same source at both ends.
    assert_eq!(from(&heard, &id).unwrap()["source"], "camera");
    assert_eq!(sent["streams"][0]["source"], "camera");
    let speaker = dir.path().join("heard.wav");
    talker.tell(&json!({"do": "speaker", "sink": format!("file:{}", speaker.display())}));
    talker.named("speakerOpened");
    assert_same_events(&talker.leave());
    assert!(speaker.exists());
    assert_same_events(&listener.leave());
}

#[test]
fn four_hundred_commands_at_once_are_all_carried_out_and_wrong_ones_named() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let mut one = Participant::join_with("one", &host.invitation(), &["--microphone", "tone"], |_| {});
    let mut lines: Vec<String> = (0..400).map(|i| json!({"do": "mute", "audio": i % 2 == 0}).to_string()).collect();
    lines.push("tertulia://host/room#key=secret".to_owned());
    lines.push(json!({"do": "dance", "to": "key=secret"}).to_string());
    lines.push(json!({"do": "snapshot", "path": "/nonexist/x.png"}).to_string());
    lines.push(json!({"do": "report", "path": "/nonexist/x.json"}).to_string());
    lines.push(json!({"do": "camera", "source": "film"}).to_string());
    one.tell_line(&lines.join("\n"));
    one.event("the last error", |e| e["event"] == "error" && e["command"] == "camera");
    let end = one.leave();
    assert_same_events(&end);
    let muted: Vec<&Value> = end.events.iter().filter(|e| e["event"] == "muted").collect();
    assert_eq!(muted.len(), 400);
    assert!(muted.iter().enumerate().all(|(i, e)| e["audio"] == (i % 2 == 0)));
    let errors: Vec<&Value> = end.events.iter().filter(|e| e["event"] == "error").collect();
    let named: Vec<&str> = errors.iter().map(|e| e["command"].as_str().expect("a name")).collect();
    assert_eq!(named, ["", "dance", "snapshot", "report", "camera"]);
    assert!(errors.iter().all(|e| e["t_ms"].is_u64() && e["message"].as_str().is_some_and(|m| !m.is_empty())));
    assert!(!end.report.to_string().contains("secret"));
}

#[test]
fn a_failed_command_leaves_a_report() {
    for target in ["tertulia://127.0.0.1:4443/room#key=abc&fp=sha256:12", "tertulia://127.0.0.1:4443/room", ""] {
        assert_failed(&Participant::join_with("x", target, &[], |_| {}).end(), &["whole"]);
    }
    let empty = Participant::join_with("x", "-", &[], |_| {});
    assert_failed(&empty.end_of_input().end(), &["standard input"]);

    let dir = tempfile::tempdir().unwrap();
    let (report, data) = (dir.path().join("report.json"), dir.path().join("data"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let file = dir.path().join("file");
    std::fs::write(&file, "no folder").unwrap();
    let (report_path, data) = (report.to_str().unwrap(), data.to_str().unwrap());
    let free = "127.0.0.1:0";
    for (listen, data, more, expected) in
        [(taken.as_str(), data, None, 1), (free, data, Some("bad name"), 2), (free, file.to_str().unwrap(), None, 1)]
    {
        let mut args =
            vec!["host", "--listen", listen, "--data-dir", data, "--stats-json", report_path, "--seconds", "0"];
        args.extend(more.map(|name| ["--session", name]).iter().flatten());
        drop(std::fs::remove_file(&report));
        let done = run(&args);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(expected), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let report = json_of(&report);
        assert_eq!((&report["ok"], &report["command"]), (&json!(false), &json!("host")), "{report}");
        assert!(said.contains(report["error"].as_str().expect("why")), "{said} {report}");
    }
}

#[test]
fn only_three_exit_codes_exist() {
    for seconds in ["inf", "1e30", "nan", "-1", "soon"] {
        for command in [&["join", "tertulia://h/r#key=k", "--headless"][..], &["host"], &["demo", "--headless"]] {
            let args = [command, &["--seconds", seconds]].concat();
            assert_eq!(code(&args), Some(2), "{args:?}");
        }
    }
    // A full disk behind standard output or standard error is no panic.
    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let dir = tempfile::tempdir().unwrap();
        let host = ["host", "--listen", "127.0.0.1:0", "--udp-port", "0", "--seconds", "0", "--data-dir"];
        let host = [&host[..], &[dir.path().to_str().unwrap()]].concat();
        for args in [&host[..], &["doctor"], &["doctor", "--json"]] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tertulia"));
            command.args(args).stdin(Stdio::null()).stdout(full.try_clone().unwrap());
            let done = command.output().unwrap();
            assert_eq!(done.status.code(), Some(1), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_tertulia"));
        command.args(["join", "nonsense", "--headless"]).stdin(Stdio::null()).stderr(full);
        assert_eq!(command.output().unwrap().status.code(), Some(1));
    }
    assert_eq!(code(&["doctor", "--simulate-network", "junk"]), Some(2));
    assert_eq!(code(&["bench", "broadcast"]), Some(1), "it has a name already");
    assert_eq!(code(&["bench", "dance"]), Some(2));
    let doctor = run(&["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(said["ok"], doctor.status.success(), "{said:#}");
    // Also where there is no sound card: its library has opinions of its own.
    let host = Host::start(ROOM, &["--no-tls"]);
    let devices = ["--headless", "--quiet", "--microphone", "device", "--speaker", "device", "--seconds", "1"];
    let invitation = host.invitation();
    let joined = run(&[&["join", &invitation][..], &devices].concat());
    let said = String::from_utf8_lossy(&joined.stderr);
    assert!(!said.contains("ALSA lib"), "{said}");
    // Devices that were asked for by name are there, or the command says why not.
    let worked = joined.status.success() && said.is_empty();
    assert!(worked || joined.status.code() == Some(1) && said.contains("was asked for and never worked"), "{said}");
}

#[test]
fn a_headless_end_is_quick_and_the_picture_is_of_the_end_where_half_time_never_came() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let quick = Participant::join_with("quick", &host.invitation(), &["--seconds", "60"], |_| {});
    quick.named("joined");
    quick.terminate();
    quick.named("sessionDisconnected");
    let left = Instant::now();
    assert_eq!(quick.end().code, Some(0));
    assert!(left.elapsed() < Duration::from_millis(900), "{:?} after it had left", left.elapsed());

    let picture = tempfile::NamedTempFile::with_suffix(".png").unwrap();
    let options =
        ["--camera", "pattern:5:320x180@15", "--seconds", "60", "--snapshot", picture.path().to_str().unwrap()];
    let one = Participant::join_with("one", &host.invitation(), &options, |_| {});
    one.stream_id();
    // The host looks once a second how many there are.
    std::thread::sleep(Duration::from_millis(2_200));
    one.terminate();
    let end = one.end();
    assert_eq!(end.code, Some(0), "{:?}", end.complaint);
    let png = std::fs::read(picture.path()).unwrap();
    assert!(png.starts_with(b"\x89PNG"), "{} bytes", png.len());
    let wrong = ["--snapshot", "/nonexist/x.png", "--seconds", "0.2"];
    let wrong = Participant::join_with("two", &host.invitation(), &wrong, |_| {}).end();
    assert_eq!((wrong.code, &wrong.report["ok"]), (Some(1), &json!(false)), "{:?}", wrong.complaint);

    let host = host.stop();
    let figures = &host["host"];
    // Nobody is there any more.
    for member in ["sessions", "participants", "streams"] {
        assert!(figures[member].as_u64().is_some_and(|n| n >= 1), "{figures}");
    }
    assert!(figures["cpu_s"].is_f64() && figures["rss_peak_bytes"].is_u64(), "{figures}");
}

#[test]
fn a_role_is_asked_for_and_who_only_watches_opens_nothing() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let mut watcher = Participant::join("watcher", 3, &host.invitation(), &["--subscribe-only"]);
    assert_eq!(watcher.named("joined")["role"], "PUBLISHER", "the key's own");
    for (line, name) in [
        (json!({"do": "publish"}), "publish"),
        (json!({"do": "camera", "source": "pattern:4"}), "camera"),
        (json!({"do": "microphone", "source": "tone"}), "microphone"),
        (json!({"do": "share", "screen": "pattern:9"}), "share"),
    ] {
        watcher.tell(&line);
        watcher.event(name, |e| e["event"] == "error" && e["command"] == name);
    }
    let end = watcher.leave();
    assert!(!end.events.iter().any(|e| e["event"].as_str().is_some_and(|n| n.ends_with("Opened"))), "{:?}", end.events);
    assert_eq!((&end.report["devices"]["camera"], &end.report["streams"]), (&Value::Null, &json!([])));

    let subscriber = Participant::join("subscriber", 4, &host.invitation(), &["--role", "SUBSCRIBER"]);
    assert_eq!(subscriber.named("joined")["role"], "SUBSCRIBER");
    assert_eq!(subscriber.leave().report["session"]["role"], "SUBSCRIBER");
}

#[test]
fn a_camera_that_is_switched_off_has_not_frozen() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let mut a = Participant::join("a", 21, &host.invitation(), &[]);
    let mut b = Participant::join_with("b", &host.invitation(), &[], |_| {});
    b.sees(21);
    a.tell(&json!({"do": "mute", "video": true}));
    b.event("the switch", |e| e["event"] == "streamPropertyChanged" && e["value"] == false);
    std::thread::sleep(Duration::from_secs(3));
    let before = b.frames_read(21);
    a.tell(&json!({"do": "mute", "video": false}));
    wait("pictures again", SOON, || (b.frames_read(21) > before + 30).then_some(()));
    let report = b.report();
    let video = &live(&report, 21).unwrap()["video"];
    // A loaded machine may freeze for a moment; the three seconds are not among it.
    assert!(video["freeze_ms"].as_u64().unwrap() < 2_000, "{video:#}");
    assert!(video["pattern"]["skipped"].as_u64().unwrap() < 30, "{video:#}");
    assert!(video["fps"].as_f64().unwrap() > 11.0, "{video:#}");
    let sent = a.report();
    let sent = sent["streams"].as_array().unwrap().iter().find(|s| s["direction"] == "send").unwrap();
    assert!(sent["video"]["fps"].as_f64().unwrap() > 11.0, "{sent:#}");
    drop(b.leave());
    drop(a.leave());
}

#[test]
fn a_name_of_any_kind_arrives_and_no_log_holds_a_token() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let mut observer = Participant::join_with("observer", &host.invitation(), &["--report-names"], |_| {});
    observer.named("joined");
    let name = r#"Same "x" %/% y"#;
    let child = Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["join", "-", "--headless", "--name", name, "--camera", "pattern:9:320x180@15", "--seconds", "4"])
        .env("TERTULIA_LOG", "trace")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    {
        use std::io::Write as _;
        writeln!(child.stdin.as_ref().unwrap(), "{}", host.invitation()).unwrap();
    }
    let seen = wait("its stream", SOON, || {
        observer.report()["streams"].as_array()?.iter().find(|s| s["direction"] == "recv").cloned()
    });
    assert_eq!(seen["name"], name);
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    let log = String::from_utf8_lossy(&done.stderr);
    assert!(log.lines().count() > 20, "a log of everything: {log}");
    let key = host.invitation();
    let key = key.split("key=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    for line in log.lines() {
        assert!(!line.contains("tok_") && !line.contains(&key), "{line}");
    }
    drop(observer.leave());
}

#[test]
fn the_doctor_says_at_which_step_a_server_fails() {
    let server = |url: &str| {
        let said: Value = serde_json::from_slice(&run(&["doctor", "--json", "--server", url]).stdout).unwrap();
        let check = said["checks"].as_array().unwrap().iter().find(|c| c["name"] == "server").unwrap().clone();
        (check["ok"] == true, check["found"].as_str().unwrap().to_owned())
    };
    let plain = Host::start(ROOM, &["--no-tls"]);
    let (ok, found) = server(&plain.url());
    assert!(ok && found.contains("its OpenVidu"), "{found}");
    // Its own certificate is vouched for by nobody: said behind the connection that came about.
    let own = Host::start(ROOM, &[]);
    let (ok, found) = server(&own.url());
    assert!(!ok && found.contains("is reached, but") && found.contains("certificate"), "{found}");
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("http://{}", other.local_addr().unwrap());
    std::thread::spawn(move || {
        // The doctor's first connection only looks whether somebody is there.
        for mut stream in other.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                if std::io::Read::read(&mut stream, &mut [0; 1024]).is_ok_and(|n| n > 0) {
                    let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    std::io::Write::write_all(&mut stream, answer).unwrap();
                }
            });
        }
    });
    let (ok, found) = server(&elsewhere);
    assert!(!ok && found.contains("not a conferencing server"), "{found}");
    let (ok, found) = server(&format!("http://127.0.0.1:{}", e2e_support::dead_port()));
    assert!(!ok && !found.contains("is reached"), "{found}");
}
