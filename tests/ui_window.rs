//! The app as a person uses it: two real windows on a virtual display, driven by mouse and keyboard, judged by their pixels.
//!
//! One window starts a room, the other joins by the invitation found in the clipboard. The pictures are read back by the
//! machine-readable strip of the test pattern; they are kept in `artefacts/window-*.png`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use e2e_support::{Host, dead_port};
use serde_json::Value;

/// Until something appears on the screen; generous, because software rendering shares the processor with everything else.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where things are in a window of 1280 × 800, from `ui.md` §2: left, top, width and height in pixels.
type Area = (f64, f64, f64, f64);
const START_ROOM: (u32, u32) = (848, 391);
const JOIN_NOW: (u32, u32) = (1040, 533);
const PREVIEW: Area = (40.0, 105.0, 760.0, 427.5);
/// The other one fills the stage.
const OTHER: Area = (28.5, 44.0, 1223.0, 688.0);
/// The own picture floats in its lower right corner.
const OWN: Area = (995.0, 581.0, 240.0, 135.0);
/// … or of the stage, while nobody else is there.
const OWN_ALONE: Area = (1028.0, 597.0, 240.0, 135.0);

/// Ended with the test, however it ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Desktop {
    display: String,
    artefacts: PathBuf,
    _server: Running,
    _manager: Running,
}

struct Picture {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

struct Window<'a> {
    desktop: &'a Desktop,
    process: Running,
    id: String,
}

fn needed() {
    let programs = [
        ("Xvfb", "xvfb"),
        ("openbox", "openbox"),
        ("xdotool", "xdotool"),
        ("import", "imagemagick"),
        ("xclip", "xclip"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing: Vec<&str> = programs
        .into_iter()
        .filter(|(program, _)| !std::env::split_paths(&path).any(|folder| folder.join(program).exists()))
        .map(|(_, package)| package)
        .collect();
    assert!(missing.is_empty(), "missing packages: {}; `make deps-test` installs them", missing.join(" "));
}

impl Desktop {
    fn start() -> Self {
        needed();
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-screen", "0", "2600x860x24", "-nolisten", "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Xvfb starts");
        let mut number = String::new();
        BufReader::new(server.stdout.take().expect("piped")).read_line(&mut number).expect("Xvfb names its display");
        let server = Running(server);
        assert!(!number.trim().is_empty(), "Xvfb did not start");
        let display = format!(":{}", number.trim());
        let manager = Command::new("openbox")
            .env("DISPLAY", &display)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openbox starts");
        let artefacts = Path::new(env!("CARGO_MANIFEST_DIR")).join("artefacts");
        std::fs::create_dir_all(&artefacts).expect("a folder for pictures");
        Self { display, artefacts, _server: server, _manager: Running(manager) }
    }

    fn run(&self, program: &str, args: &[&str]) -> Option<String> {
        let output = Command::new(program).args(args).env("DISPLAY", &self.display).output().expect("is installed");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts the program and waits for its window, which is then moved to the column `x`.
    fn open(&self, config: &Path, args: &[&str], input: Option<&str>, x: u32) -> Window<'_> {
        let started = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tertulia"))
            .args(args)
            .arg("--config")
            .arg(config)
            .env("DISPLAY", &self.display)
            .env_remove("WAYLAND_DISPLAY")
            // No devices of the machine, whatever it has.
            .env("PULSE_SERVER", "unix:/nonexistent")
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .spawn()
            .expect("the program starts");
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            writeln!(stdin, "{text}").expect("the program reads");
        }
        let pid = child.id().to_string();
        let process = Running(child);
        let id = until("a window", || {
            let found = self.run("xdotool", &["search", "--onlyvisible", "--pid", &pid])?;
            found.lines().last().map(str::to_owned)
        });
        eprintln!("window visible after {} ms", started.elapsed().as_millis());
        self.run("xdotool", &["windowmove", &id, &x.to_string(), "20"]);
        let window = Window { desktop: self, process, id };
        until("the first picture of the window", || {
            let picture = window.picture("first");
            picture.rgb.chunks_exact(3).any(|p| p[0] > 200 && p[1] > 200).then_some(())
        });
        eprintln!("window drawn after {} ms", started.elapsed().as_millis());
        window
    }
}

impl Window<'_> {
    fn click(&self, (x, y): (u32, u32)) {
        self.desktop.run("xdotool", &["mousemove", "--window", &self.id, &x.to_string(), &y.to_string()]);
        std::thread::sleep(Duration::from_millis(200));
        self.desktop.run("xdotool", &["click", "1"]);
    }

    fn key(&self, keys: &str) {
        self.desktop.run("xdotool", &["windowactivate", "--sync", &self.id]);
        self.desktop.run("xdotool", &["key", "--clearmodifiers", keys]);
    }

    fn title(&self) -> Option<String> {
        self.desktop.run("xdotool", &["getwindowname", &self.id])
    }

    fn wait_for_title(&self, what: &str, fits: impl Fn(&str) -> bool) {
        until(&format!("the title to be {what}"), || self.title().filter(|t| fits(t)));
    }

    /// What the window shows now, kept under this name.
    fn picture(&self, name: &str) -> Picture {
        let path = self.desktop.artefacts.join(format!("window-{name}.png"));
        let target = format!("png24:{}", path.display());
        self.desktop.run("import", &["-window", &self.id, &target]).expect("a screenshot");
        let file = std::io::BufReader::new(std::fs::File::open(&path).expect("the screenshot"));
        let mut reader = png::Decoder::new(file).read_info().expect("a PNG file");
        let mut rgb = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut rgb).expect("whole");
        assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Rgb, png::BitDepth::Eight));
        Picture { width: info.width as usize, height: info.height as usize, rgb }
    }

    /// Waits until the pattern with this number is in that area, and returns the time it carries.
    fn wait_for_pattern(&self, name: &str, area: Area, id: u8) -> u32 {
        until(&format!("pattern {id} in {name}"), || self.picture(name).strip(area, id))
    }

    /// The pattern is there, it is of now, and it goes on.
    fn moves(&self, name: &str, area: Area, id: u8) {
        let first = self.wait_for_pattern(name, area, id);
        std::thread::sleep(Duration::from_secs(1));
        let second = until(&format!("pattern {id} in {name} to go on"), || {
            self.picture(name).strip(area, id).filter(|time| *time != first)
        });
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis() as u32;
        let advanced = second.wrapping_sub(first) & 0xF_FFFF;
        let age = now.wrapping_sub(second) & 0xF_FFFF;
        eprintln!("{name}: pattern {id} went on by {advanced} ms and is {age} ms old");
        assert!((500..30_000).contains(&advanced), "{name}: the picture went on by {advanced} ms");
        assert!(age < 5_000, "{name}: the picture is {age} ms old");
    }

    fn ends(self) {
        let code = self.exit_code();
        assert_eq!(code, Some(0), "the program ended with {code:?}");
    }

    fn exit_code(mut self) -> Option<i32> {
        until("the program to end", || self.process.0.try_wait().expect("own child")).code()
    }
}

impl Picture {
    /// Reads the strip of an unmirrored pattern: its time, if the marks, the number and the checksum are right.
    fn strip(&self, (left, top, width, height): Area, id: u8) -> Option<u32> {
        let offsets = [0.0, -2.0, 2.0, -4.0, 4.0];
        let read = |dx: f64| -> Option<u32> {
            let y = (top + height / 24.0).round() as usize;
            let bits = (0..40).try_fold(0_u64, |bits, cell| {
                let x = (left + dx + (f64::from(cell) + 0.5) * width / 40.0).round() as usize;
                let inside = x < self.width && y < self.height;
                let at = inside.then_some((y * self.width + x) * 3)?;
                let sum: u32 = self.rgb[at..at + 3].iter().map(|c| u32::from(*c)).sum();
                Some(bits << 1 | u64::from(sum > 3 * 125))
            })?;
            let (mark, number, time) = (bits >> 36, (bits >> 28) as u8, (bits >> 8 & 0xF_FFFF) as u32);
            let payload = (bits >> 8 & 0x0FFF_FFFF) as u32;
            (mark == 0b1010 && number == id && crc8(payload) == bits as u8).then_some(time)
        };
        offsets.into_iter().find_map(read)
    }
}

fn crc8(payload: u32) -> u8 {
    payload
        .to_be_bytes()
        .into_iter()
        .fold(0, |crc, byte| (0..8).fold(crc ^ byte, |c, _| if c & 0x80 == 0 { c << 1 } else { c << 1 ^ 0x07 }))
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Settings without devices: pattern, tone, and no mirror, so that the strip can be read.
fn settings(name: &str, pattern: u8) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let text = format!(
        "name = \"{name}\"\ntheme = \"dark\"\nlanguage = \"en\"\nmirror = false\n\n[devices]\n\
         camera = \"pattern:{pattern}:640x360@30\"\nmicrophone = \"tone\"\nspeaker = \"null\"\n"
    );
    std::fs::write(folder.path().join("settings.toml"), text).expect("settings");
    folder
}

#[test]
fn two_windows_meet_in_a_room_started_in_one_of_them() {
    let desktop = Desktop::start();
    until("port 4443 to be free", || std::net::TcpListener::bind(("0.0.0.0", 4443)).ok());

    // Home, room, lobby.
    let config = settings("Ines", 4);
    let ines = desktop.open(config.path(), &[], None, 0);
    ines.picture("home");
    ines.click(START_ROOM);
    ines.moves("lobby", PREVIEW, 4);
    ines.click(JOIN_NOW);
    ines.wait_for_title("the room's", |title| title == "my-room, Tertulia");
    ines.wait_for_pattern("alone", OWN_ALONE, 4);

    // The invitation goes through the clipboard.
    let invitation = until("an invitation in the clipboard", || {
        ines.key("ctrl+i");
        std::thread::sleep(Duration::from_millis(300));
        let text = desktop.run("timeout", &["3", "xclip", "-o", "-selection", "clipboard"])?;
        text.starts_with("tertulia://").then_some(text)
    });
    let other = settings("Marek", 8);
    let args = [
        "join",
        "-",
        "--name",
        "Marek",
        "--camera",
        "pattern:8:640x360@30",
        "--microphone",
        "tone",
        "--speaker",
        "null",
    ];
    let marek = desktop.open(other.path(), &args, Some(&invitation), 1300);

    // Both see both, moving.
    ines.moves("call-ines", OTHER, 8);
    ines.moves("call-ines", OWN, 4);
    marek.moves("call-marek", OTHER, 4);
    marek.moves("call-marek", OWN, 8);

    // Mute is in the title, a stopped camera is seen by the other, and both come back.
    ines.key("m");
    ines.wait_for_title("muted", |title| title == "my-room, muted, Tertulia");
    ines.key("v");
    until("the camera to be off for the other", || marek.picture("camera-off").strip(OTHER, 4).is_none().then_some(()));
    ines.picture("muted");
    ines.key("v");
    marek.moves("camera-back", OTHER, 4);
    ines.key("m");
    ines.wait_for_title("not muted", |title| title == "my-room, Tertulia");

    // One leaves, the other is alone again and leaves, too.
    marek.key("ctrl+shift+l");
    marek.wait_for_title("without a room", |title| title == "Tertulia");
    marek.picture("left");
    ines.wait_for_pattern("alone-again", OWN_ALONE, 4);
    ines.key("ctrl+shift+l");
    ines.wait_for_title("without a room", |title| title == "Tertulia");
    marek.key("alt+F4");
    marek.ends();
    ines.key("alt+F4");
    ines.ends();
}

/// What it wrote at its end.
fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a report")).expect("whole")
}

#[test]
fn a_signal_ends_a_call_in_a_window_as_leaving_does() {
    let desktop = Desktop::start();
    let host = Host::start("window", &["--no-tls"]);
    let config = settings("Ines", 4);
    let (wanted, grid) = (config.path().join("report.json"), config.path().join("grid.png"));
    let (wanted_text, grid_text) = (wanted.display().to_string(), grid.display().to_string());
    let args = [
        "join",
        "-",
        "--camera",
        "pattern:4:640x360@30",
        "--microphone",
        "tone",
        "--speaker",
        "null",
        "--stats-json",
        &wanted_text,
        "--snapshot",
        &grid_text,
    ];
    let window = desktop.open(config.path(), &args, Some(&host.invitation()), 0);
    window.wait_for_title("the room's", |title| title == "window, Tertulia");
    window.wait_for_pattern("signal", OWN_ALONE, 4);
    desktop.run("kill", &["-TERM", &window.process.0.id().to_string()]);
    window.ends();
    let report = report(&wanted);
    assert_eq!((&report["ok"], &report["connection"]["state"]), (&true.into(), &"connected".into()), "{report:#}");
    assert!(report["timeline_ms"]["left"].is_u64(), "it did not leave: {report:#}");
    assert!(std::fs::metadata(&grid).expect("a picture of the grid").len() > 1_000);
}

#[test]
fn a_failed_call_in_a_window_ends_with_code_1_as_without_one() {
    let desktop = Desktop::start();
    let config = settings("Ines", 4);
    let wanted = config.path().join("report.json");
    let (wanted_text, nowhere) = (wanted.display().to_string(), format!("ws://127.0.0.1:{}", dead_port()));
    let token = format!("{nowhere}?sessionId=window&token=tok_0123456789abcdef");
    let mut child = Command::new(env!("CARGO_BIN_EXE_tertulia"))
        .args(["join", "-", "--seconds", "20", "--camera", "none", "--microphone", "none", "--speaker", "null"])
        .args(["--stats-json", &wanted_text, "--config"])
        .arg(config.path())
        .env("DISPLAY", &desktop.display)
        .env_remove("WAYLAND_DISPLAY")
        .stdin(Stdio::piped())
        .spawn()
        .map(Running)
        .expect("the program starts");
    writeln!(child.0.stdin.take().expect("piped"), "{token}").expect("the program reads");
    let status = until("the program to end", || child.0.try_wait().expect("own child"));
    assert_eq!(status.code(), Some(1));
    let report = report(&wanted);
    assert_eq!(report["ok"], false);
    assert!(report["error"].as_str().expect("an error").contains("refuses"), "{report:#}");
}
