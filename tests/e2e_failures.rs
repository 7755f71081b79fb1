//! What goes wrong on this computer, driven through the program: files that are not there, ports that are taken, folders that
//! cannot be written to. One line on standard error with the remedy, exit code 1, a report that says so; or the call goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use e2e_support::{Host, Participant, SECRET};
use serde_json::{Value, json};

/// Runs `host` with these options and gives what came of it and its report.
fn host(more: &[&str], data_dir: &Path) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let output = Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["host", "--seconds", "1", "--quiet", "--secret-env", "TERTULIA_TEST_SECRET"])
        .env("TERTULIA_TEST_SECRET", SECRET)
        .args(more)
        .arg("--data-dir")
        .arg(data_dir)
        .arg("--stats-json")
        .arg(&report)
        .output()
        .unwrap();
    let report = std::fs::read(&report).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or(Value::Null);
    (output, report)
}

/// The host does not start, and says why and what to do.
fn fails(more: &[&str], data_dir: &Path, words: &[&str]) {
    let (output, report) = host(more, data_dir);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "one line: {said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    assert!(output.stdout.is_empty(), "nothing is ready");
    assert_eq!((&report["ok"], &report["command"], &report["host"]), (&json!(false), &json!("host"), &Value::Null));
    assert!(said.contains(report["error"].as_str().unwrap()), "{report}");
    assert!(!said.contains(SECRET) && !report.to_string().contains(SECRET));
}

#[test]
fn ports_and_addresses_that_cannot_be_had() {
    let folder = tempfile::tempdir().unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap();
    fails(
        &["--listen", &taken.to_string()],
        folder.path(),
        &[&format!("TCP port {} is in use", taken.port()), "another port with --listen"],
    );
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port().to_string();
    fails(
        &["--listen", "127.0.0.1:0", "--udp-port", &port],
        folder.path(),
        &[&format!("UDP port {port} is in use"), "another port with --udp-port"],
    );
    // A documentation address, on nobody's machine.
    fails(&["--listen", "192.0.2.1:0"], folder.path(), &["192.0.2.1 is not an address", "0.0.0.0"]);
}

#[test]
fn folders_and_certificates_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let free = ["--listen", "127.0.0.1:0", "--udp-port", "0"];
    // Below a file there is no folder, whoever asks.
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    fails(&free, &file.join("below"), &["cannot be kept", "--data-dir"]);
    for name in ["host-certificate.pem", "host-key.pem"] {
        std::fs::write(folder.path().join(name), "nonsense").unwrap();
    }
    fails(&free, folder.path(), &["host-certificate.pem", "not usable", "move the file away"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("host-key.pem")).unwrap(), "nonsense", "left as it was");
    let name = ["--session", "no spaces"];
    let empty = tempfile::tempdir().unwrap();
    // Bad usage, by its exit code.
    let (output, report) = host(&[&free[..], &name[..]].concat(), empty.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("a room's name has") && said.contains("choose another name"), "{said}");
    assert_eq!(report["ok"], false);
    std::fs::write(empty.path().join("host-rooms.json"), "nonsense").unwrap();
    fails(&free, empty.path(), &["host-rooms.json", "cannot be read", "move the file away"]);
}

#[test]
fn a_host_that_ends_by_itself_reports_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let (output, report) = host(&["--listen", "127.0.0.1:0", "--udp-port", "0", "--session", "r"], folder.path());
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 1, "one line for machines: {lines:?}");
    for member in ["url", "udp", "fingerprint", "session", "invitation"] {
        assert!(lines[0][member].is_string(), "{member}: {}", lines[0]);
    }
    assert_eq!((&report["schema"], &report["ok"], &report["error"]), (&json!(1), &json!(true), &Value::Null));
    for member in ["sessions", "participants", "streams", "packets_in", "packets_out", "bytes_in", "bytes_out"] {
        assert!(report["host"][member].is_u64(), "{member}: {report}");
    }
    for member in ["plis", "nacks_answered", "dropped", "rss_peak_bytes"] {
        assert!(report["host"][member].is_u64(), "{member}: {report}");
    }
    assert!(report["host"]["cpu_s"].is_f64(), "{report}");
}

/// No device and no file is worth a call: whoever has none of its own still sees and hears the others.
#[test]
fn files_that_are_not_there_do_not_end_the_call() {
    let room = Host::start("files", &[]);
    let other = Participant::join("other", 3, &room.invitation(), &[]);
    let missing = ["--camera", "file:/nowhere/a.y4m", "--microphone", "file:/nowhere/b.wav"];
    let mut guest = Participant::join_with("guest", &room.invitation(), &missing, |_| {});
    let camera = guest.event("the camera's failure", |e| e["event"] == "deviceError" && e["device"] == "camera");
    assert_eq!(camera["key"], "dev.file", "{camera}");
    let sound = guest.event("the sound's failure", |e| e["event"] == "deviceError" && e["device"] == "microphone");
    assert_eq!(sound["key"], "dev.sound_file", "{sound}");
    guest.sees(3);
    other.named("connectionCreated");
    // They were asked for by name: the command has failed all the same.
    guest.tell(&json!({"do": "leave"}));
    let end = guest.end();
    assert_eq!((end.code, &end.report["ok"], end.complaint.len()), (Some(1), &json!(false), 1));
    for words in ["the camera was asked for and never worked", "check the path"] {
        assert!(end.complaint[0].contains(words), "{:?}", end.complaint);
    }
    other.leave();
}

/// Whoever has closed the pipe does not want to read any more; the call goes on.
#[test]
fn closed_pipes_end_nothing() {
    let room = Host::start("pipes", &[]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["join", &room.invitation(), "--headless", "--seconds", "3"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["doctor", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((doctor.stdout.take(), doctor.stderr.take()));
    let code = doctor.wait().unwrap().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}");
}

/// Who is in a room when its host stops hears it from the host, and does not look for a way back.
#[test]
fn a_host_that_stops_says_so() {
    let room = Host::start("stopped", &[]);
    let guest = Participant::join("guest", 3, &room.invitation(), &[]);
    guest.stream_id();
    let asked = std::time::Instant::now();
    room.stop();
    let end = guest.end();
    assert!(asked.elapsed() < std::time::Duration::from_secs(6), "{:?}", asked.elapsed());
    assert_eq!(end.code, Some(1));
    assert!(end.complaint[0].contains("the host was stopped"), "{:?}", end.complaint);
    let reasons = |e: &Value| e["event"] == "sessionDisconnected" && e["reason"] == "openviduServerStopped";
    assert!(end.events.iter().any(reasons) && !end.events.iter().any(|e| e["event"] == "reconnecting"));
}
