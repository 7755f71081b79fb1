//! The fake camera of this folder for tests: built, preloaded, and asked by its log what is open.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Tells a test that it is the inner one.
pub const INNER: &str = "TERTULIA_CAMERA_TEST";

/// The library to preload, built once.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakecam/fakecam.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libfakecam-{}.so", std::process::id()));
        let status = Command::new("cc")
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .args(["-ldl", "-lpthread"])
            .status()
            .expect("a C compiler, which linking needs anyway");
        assert!(status.success(), "the fake camera does not compile");
        library
    })
}

/// Runs `body` in a process of its own with the fake camera and these settings.
pub fn with_fakecam(test: &str, settings: &[(&str, &str)], body: impl FnOnce()) {
    if std::env::var_os(INNER).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .env("LD_PRELOAD", library())
        .envs(settings.iter().copied())
        .output()
        .expect("the test itself");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// A file of this test that its inner run finds again; without what an earlier run left in it.
pub fn file_of(test: &str, kind: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fakecam-{test}.{kind}"));
    if std::env::var_os(INNER).is_none() {
        let _ = std::fs::remove_file(&path);
    }
    path
}

/// How many handles of any camera are open, by the log.
pub fn open_handles(log: &Path) -> i64 {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let count = |word: &str| text.lines().filter(|l| l.split(' ').next() == Some(word)).count() as i64;
    count("open") - count("close")
}

/// Waits until no handle is open, which a muted camera has half a second for.
pub fn closes(log: &Path) -> bool {
    let until = Instant::now() + Duration::from_millis(500);
    loop {
        if open_handles(log) == 0 {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
