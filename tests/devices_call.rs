//! A call with real devices: the V4L2 path on the camera of `tests/fakecam`, the sound path on PipeWire's virtual devices. What was
//! opened is named in the report, and the picture arrives.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e_support::{Host, Participant, SOON, wait};

/// The pattern that the fake camera shows.
const FAKECAM: u8 = 7;

/// Ends what it started when its input ends.
struct SoundServer(Child);

impl SoundServer {
    fn start(dir: &Path) -> Self {
        let mut script = Command::new("bash")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/audio_support/pipewire.sh"))
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let this = Self(script);
        assert!(said.starts_with("ready"), "no sound server: {said}; `make deps-test` installs what is missing");
        this
    }
}

impl Drop for SoundServer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        for _ in 0..100 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn fakecam(dir: &Path) -> PathBuf {
    let library = dir.join("libfakecam.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakecam/fakecam.c");
    let built = Command::new("cc")
        .args(["-O2", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .args([source, "-ldl", "-lpthread"])
        .status()
        .expect("a C compiler, which linking needs anyway");
    assert!(built.success(), "the fake camera does not compile");
    library
}

#[test]
fn the_report_names_camera_microphone_and_speaker() {
    if std::env::var_os("TERTULIA_SKIP_DEVICES").is_some_and(|v| v == "1") {
        return eprintln!("skipped: TERTULIA_SKIP_DEVICES=1");
    }
    let dir = tempfile::tempdir().unwrap();
    let _sound = SoundServer::start(dir.path());
    let (camera, runtime) = (fakecam(dir.path()), dir.path().join("run"));
    let host = Host::start("devices", &["--no-tls"]);
    let devices = ["--camera", "device", "--microphone", "device", "--speaker", "device"];
    let a = Participant::join_with("a", &host.invitation(), &devices, |command| {
        command
            .env("LD_PRELOAD", &camera)
            .env("XDG_RUNTIME_DIR", &runtime)
            .env("PULSE_SERVER", format!("unix:{}", runtime.join("pulse/native").display()))
            .env_remove("PULSE_SINK")
            .env_remove("PULSE_SOURCE");
    });
    let mut b = Participant::join("b", 3, &host.invitation(), &[]);
    for opened in ["cameraOpened", "microphoneOpened", "speakerOpened"] {
        a.named(opened);
    }
    wait("the camera's picture", SOON, || (b.frames_read(FAKECAM) > 10).then_some(()));
    let report = a.leave().report;
    let named =
        ["camera", "microphone", "speaker"].map(|device| report["devices"][device].as_str().unwrap_or_default());
    assert_eq!(named, ["Fakecam 0", "Virtual microphone", "Virtual speaker"], "{:#}", report["devices"]);
    let sent = report["streams"].as_array().unwrap().iter().find(|s| s["direction"] == "send").unwrap();
    assert!(sent["video"]["frames"].as_u64() > Some(10) && sent["audio"]["packets"].as_u64() > Some(10), "{sent:#}");
    b.leave();
}
