//! Monitors and windows of an X11 display as sources, against a display of our own (Xvfb).
//!
//! The test runs itself again with `DISPLAY` set to that display.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use tertulia::media::screen;
use tertulia::media::video::capture::{Capture, CaptureEvent};
use tertulia::media::video::frame::{FrameSlot, VideoFrame};
use tertulia::media::video::source::ScreenSource;
use x11rb::COPY_DEPTH_FROM_PARENT;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    AtomEnum, ConfigureWindowAux, ConnectionExt as _, CreateWindowAux, PropMode, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Tells a test that it is the inner one.
const INNER: &str = "TERTULIA_SCREEN_TEST";

struct Xvfb(Child);

impl Drop for Xvfb {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn with_display(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INNER).is_some() {
        return body();
    }
    let mut server = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Xvfb (package xvfb) must be installed");
    let mut number = String::new();
    let mut output = BufReader::new(server.stdout.take().expect("its output"));
    let server = Xvfb(server);
    output.read_line(&mut number).expect("a display number");
    let result = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .env("DISPLAY", format!(":{}", number.trim()))
        .output()
        .expect("the test itself");
    drop(server);
    let text = format!("{}{}", String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    assert!(result.status.success() && text.contains("1 passed"), "{text}");
}

/// A window of one colour, not bothered by any window manager.
fn window(connection: &RustConnection, title: &str, area: (i16, i16, u16, u16), rgb: u32) -> Window {
    let root = connection.setup().roots.first().expect("screen").root;
    let id = connection.generate_id().expect("id");
    let aux = CreateWindowAux::new().background_pixel(rgb).override_redirect(1);
    let (x, y, width, height) = area;
    connection
        .create_window(COPY_DEPTH_FROM_PARENT, id, root, x, y, width, height, 0, WindowClass::INPUT_OUTPUT, 0, &aux)
        .expect("window");
    connection
        .change_property8(PropMode::REPLACE, id, AtomEnum::WM_NAME, AtomEnum::STRING, title.as_bytes())
        .expect("title");
    connection.map_window(id).expect("mapped");
    connection.sync().expect("done");
    id
}

struct Open {
    _capture: Capture,
    slot: FrameSlot,
    events: mpsc::Receiver<CaptureEvent>,
}

fn open(source: &str) -> Open {
    let slot = FrameSlot::new();
    let (sender, events) = mpsc::sync_channel(100);
    let source = ScreenSource::parse(source).expect("source");
    let tell = Box::new(move |event| sender.try_send(event).unwrap_or(()));
    Open { _capture: Capture::open_screen(&source, slot.clone(), tell), slot, events }
}

impl Open {
    fn event(&self) -> CaptureEvent {
        self.events.recv_timeout(Duration::from_secs(10)).expect("an event")
    }

    fn picture(&self, fits: impl Fn(&VideoFrame) -> bool) -> Arc<VideoFrame> {
        let started = Instant::now();
        let mut seen = 0;
        loop {
            seen = self.slot.wait(seen, Duration::from_millis(500));
            if let Some(frame) = self.slot.latest()
                && fits(&frame)
            {
                return frame;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "no such picture");
        }
    }
}

/// Y, U, V at a pixel.
fn pixel(frame: &VideoFrame, x: usize, y: usize) -> (u8, u8, u8) {
    let chroma = y / 2 * (frame.width as usize / 2) + x / 2;
    (frame.y[y * frame.width as usize + x], frame.u[chroma], frame.v[chroma])
}

fn near(a: (u8, u8, u8), b: (u8, u8, u8)) -> bool {
    a.0.abs_diff(b.0) < 5 && a.1.abs_diff(b.1) < 5 && a.2.abs_diff(b.2) < 5
}

const RED: (u8, u8, u8) = (82, 90, 240);
const BLUE: (u8, u8, u8) = (41, 240, 110);

#[test]
fn a_monitor_shows_what_is_on_it() {
    with_display("a_monitor_shows_what_is_on_it", || {
        let (connection, _) = x11rb::connect(None).expect("display");
        window(&connection, "red", (100, 100, 200, 100), 0x00ff_0000);
        let screen = open("monitor");
        let CaptureEvent::Opened { name, width, height, .. } = screen.event() else { panic!("not opened") };
        assert_eq!((name.as_str(), width, height), ("monitor 0", 800, 600));
        let frame = screen.picture(|_| true);
        assert!(near(pixel(&frame, 150, 150), RED), "{:?}", pixel(&frame, 150, 150));
        assert!(near(pixel(&frame, 50, 50), (16, 128, 128)), "{:?}", pixel(&frame, 50, 50));
        window(&connection, "blue", (40, 40, 40, 40), 0x0000_00ff);
        screen.picture(|frame| near(pixel(frame, 50, 50), BLUE));
    });
}

#[test]
fn a_window_alone_is_shown_and_its_end_is_told() {
    with_display("a_window_alone_is_shown_and_its_end_is_told", || {
        let (connection, _) = x11rb::connect(None).expect("display");
        let id = window(&connection, "My Slides - red", (100, 100, 201, 101), 0x00ff_0000);
        let screen = open("window:slides");
        let CaptureEvent::Opened { name, width, height, .. } = screen.event() else { panic!("not opened") };
        assert_eq!((name.as_str(), width, height), ("My Slides - red", 201, 101));
        let frame = screen.picture(|_| true);
        assert_eq!((frame.width, frame.height), (200, 100));
        assert!(near(pixel(&frame, 5, 5), RED) && near(pixel(&frame, 195, 95), RED));
        connection.destroy_window(id).expect("destroyed");
        connection.sync().expect("done");
        assert_eq!(screen.event(), CaptureEvent::Ended);
        assert!(screen.slot.latest().is_none());
    });
}

#[test]
fn a_window_is_shown_whatever_lies_over_it_and_follows_its_size() {
    with_display("a_window_is_shown_whatever_lies_over_it_and_follows_its_size", || {
        let (connection, _) = x11rb::connect(None).expect("display");
        let id = window(&connection, "Slides", (100, 100, 200, 100), 0x00ff_0000);
        let screen = open("window:slides");
        screen.picture(|frame| near(pixel(frame, 100, 50), RED));
        window(&connection, "over it", (90, 90, 400, 300), 0x0000_00ff);
        connection.configure_window(id, &ConfigureWindowAux::new().width(300).height(160)).expect("resized");
        connection.sync().expect("done");
        let larger = screen.picture(|frame| (frame.width, frame.height) == (300, 160));
        for (x, y) in [(5, 5), (150, 80), (290, 150)] {
            assert!(near(pixel(&larger, x, y), RED), "{:?} at {x},{y}", pixel(&larger, x, y));
        }
    });
}

#[test]
fn the_cursor_is_in_the_picture_and_a_still_screen_is_hardly_looked_at() {
    with_display("the_cursor_is_in_the_picture_and_a_still_screen_is_hardly_looked_at", || {
        let (connection, _) = x11rb::connect(None).expect("display");
        window(&connection, "red", (0, 0, 800, 600), 0x00ff_0000);
        let root = connection.setup().roots.first().expect("screen").root;
        let screen = open("monitor");
        let around = |frame: &VideoFrame, x: usize, y: usize| {
            let points = (y - 12..y + 12).flat_map(|y| (x - 12..x + 12).map(move |x| (x, y)));
            points.filter(|(x, y)| !near(pixel(frame, *x, *y), RED)).count()
        };
        for (x, y) in [(600i16, 200i16), (200, 400)] {
            connection.warp_pointer(x11rb::NONE, root, 0, 0, 0, 0, x, y).expect("moved");
            connection.sync().expect("done");
            screen.picture(|frame| around(frame, x as usize, y as usize) > 10);
        }
        let last = screen.slot.latest().expect("a picture");
        assert_eq!(around(&last, 600, 200), 0, "where it was there is nothing left of it");
        let before = screen.slot.version();
        std::thread::sleep(Duration::from_secs(2));
        let pictures = screen.slot.version() - before;
        assert!((2..=12).contains(&pictures), "{pictures} pictures of a still screen in 2 s");
    });
}

#[test]
fn what_is_not_there_is_told_in_words() {
    with_display("what_is_not_there_is_told_in_words", || {
        for (source, hint) in [("monitor:7", "no monitor 7"), ("window:nothing like this", "nothing like this")] {
            let CaptureEvent::Failed { key, detail, .. } = open(source).event() else { panic!("no failure") };
            assert_eq!(key, "err.portal");
            assert!(detail.contains(hint), "{detail}");
        }
    });
}

#[test]
fn what_can_be_shared_is_listed_without_our_own_windows() {
    with_display("what_can_be_shared_is_listed_without_our_own_windows", || {
        let (connection, _) = x11rb::connect(None).expect("display");
        let root = connection.setup().roots.first().expect("screen").root;
        // Two of the same title: only their numbers tell them apart.
        let red = window(&connection, "Slides", (0, 0, 200, 100), 0x00ff_0000);
        let blue = window(&connection, "Slides", (300, 0, 120, 80), 0x0000_00ff);
        let own = window(&connection, "Tertulia", (0, 300, 120, 80), 0x00ff_ffff);
        let property = |window, name: &[u8], kind: AtomEnum, values: &[u32]| {
            let atom = connection.intern_atom(false, name).expect("asked").reply().expect("atom").atom;
            connection.change_property32(PropMode::REPLACE, window, atom, kind, values).expect("set");
        };
        property(own, b"_NET_WM_PID", AtomEnum::CARDINAL, &[std::process::id()]);
        property(root, b"_NET_CLIENT_LIST", AtomEnum::WINDOW, &[red, blue, own]);
        connection.sync().expect("done");
        let list = screen::list();
        let found: Vec<_> = list.iter().map(|s| (s.source.clone(), s.title.as_str(), s.width, s.height)).collect();
        assert_eq!(
            found,
            [
                ("monitor:0".to_owned(), "", 800, 600),
                (format!("window:{red:#x}"), "Slides", 200, 100),
                (format!("window:{blue:#x}"), "Slides", 120, 80),
            ]
        );
        let picture = screen::picture(&list[2].source).expect("a small picture");
        assert!(near(pixel(&picture, 60, 40), BLUE), "{:?}", pixel(&picture, 60, 40));
        let monitor = screen::picture(&list[0].source).expect("a small picture");
        assert!(monitor.width <= 484 && monitor.height <= 272, "{}x{}", monitor.width, monitor.height);
    });
}
