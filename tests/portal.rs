//! Sharing under Wayland, through the desktop's own picker: a headless sway, the portal, its wlroots back end and PipeWire, all real.
//!
//! Each test runs itself again inside such a desktop (`portal_support/desktop.sh`), where a file answers in place of a person.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use e2e_support::{Host, Participant};
use serde_json::json;
use tertulia::media::screen::{self, ChoiceStore, NotChosen};
use tertulia::media::video::capture::{Capture, CaptureEvent};
use tertulia::media::video::frame::{FrameSlot, VideoFrame};
use tertulia::media::video::source::ScreenSource;

/// Where the desktop's files are; tells a test that it is the inner one.
const INNER: &str = "PORTAL_TEST_DIR";
/// `#c04020`, the monitor's first colour, and `#2060c0`, as Y, U, V.
const RUST: (u8, u8, u8) = (101, 91, 182);
const BLUE: (u8, u8, u8) = (92, 179, 92);

fn in_desktop(test: &str, body: impl FnOnce(Desktop)) {
    if let Some(folder) = std::env::var_os(INNER) {
        return body(Desktop { folder: folder.into() });
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portal_support/desktop.sh");
    let result = Command::new("bash")
        .arg(script)
        .arg(folder.path())
        .arg(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .output()
        .expect("bash");
    let text = format!("{}{}", String::from_utf8_lossy(&result.stdout), String::from_utf8_lossy(&result.stderr));
    assert!(result.status.success() && text.contains("1 passed"), "{text}");
}

struct Desktop {
    folder: PathBuf,
}

impl Desktop {
    /// What the person chooses from now on.
    fn answer(&self, monitor: &str) {
        std::fs::write(self.folder.join("answer"), monitor).expect("an answer");
    }

    /// How often the person was asked.
    fn asked(&self) -> usize {
        std::fs::read_to_string(self.folder.join("asked")).expect("the count").lines().count()
    }

    /// Lets the person think for this long.
    fn think(&self, seconds: u32) {
        let script = format!("#!/bin/sh\necho asked >>{0}/asked\nexec sleep {seconds}\n", self.folder.display());
        std::fs::write(self.folder.join("choose"), script).expect("a script");
    }

    /// The desktop takes the share away.
    fn end_capture(&self) {
        let id = std::fs::read_to_string(self.folder.join("capturing")).expect("its process");
        assert!(Command::new("kill").arg(id.trim()).status().expect("kill").success());
    }

    fn sway(&self, words: &[&str]) {
        assert!(Command::new("swaymsg").args(words).output().expect("swaymsg").status.success(), "{words:?}");
    }
}

struct Open {
    capture: Capture,
    slot: FrameSlot,
    events: mpsc::Receiver<CaptureEvent>,
}

fn open(source: &str) -> Open {
    let slot = FrameSlot::new();
    let (sender, events) = mpsc::sync_channel(100);
    let source = ScreenSource::parse(source).expect("source");
    let tell = Box::new(move |event| sender.try_send(event).unwrap_or(()));
    Open { capture: Capture::open_screen(&source, slot.clone(), tell), slot, events }
}

impl Open {
    fn event(&self) -> CaptureEvent {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    fn shows(&self, color: (u8, u8, u8)) -> Arc<VideoFrame> {
        let started = Instant::now();
        let mut seen = 0;
        loop {
            seen = self.slot.wait(seen, Duration::from_millis(500));
            if let Some(frame) = self.slot.latest() {
                let middle = (frame.height as usize / 2) * frame.width as usize + frame.width as usize / 2;
                let chroma = (frame.height as usize / 4) * (frame.width as usize / 2) + frame.width as usize / 4;
                let is = (frame.y[middle], frame.u[chroma], frame.v[chroma]);
                if is.0.abs_diff(color.0) < 5 && is.1.abs_diff(color.1) < 5 && is.2.abs_diff(color.2) < 5 {
                    return frame;
                }
                assert!(started.elapsed() < Duration::from_secs(20), "{is:?} instead of {color:?}");
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "no picture; told: {:?}",
                self.events.try_iter().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn what_was_chosen_is_captured_as_it_changes_until_it_goes() {
    in_desktop("what_was_chosen_is_captured_as_it_changes_until_it_goes", |desktop| {
        let open = open("portal:ask");
        let CaptureEvent::Opened { width, height, .. } = open.event() else { panic!("not opened") };
        assert_eq!((width, height), (1280, 720));
        open.shows(RUST);
        desktop.sway(&["output", "HEADLESS-1", "bg", "#2060c0", "solid_color"]);
        let first = open.shows(BLUE);
        // A screen on which nothing changes is given again for those who have come meanwhile.
        let begun = open.capture.stats().frames;
        std::thread::sleep(Duration::from_secs(2));
        let still = open.capture.stats().frames - begun;
        assert!((4..=70).contains(&still), "{still} pictures in two seconds");
        assert!(open.slot.latest().is_some_and(|f| f.at > first.at));
        desktop.end_capture();
        let end = open.event();
        assert!(matches!(end, CaptureEvent::Ended | CaptureEvent::Failed { .. }), "{end:?}");
        assert_eq!(desktop.asked(), 1);
    });
}

#[test]
fn a_closed_dialog_is_a_normal_answer() {
    in_desktop("a_closed_dialog_is_a_normal_answer", |desktop| {
        desktop.answer("");
        assert_eq!(screen::choose(false, &|| false), Err(NotChosen::Cancelled));
        assert_eq!(desktop.asked(), 1);
        // And the next question is a new one.
        desktop.answer("HEADLESS-1");
        assert_eq!(screen::choose(false, &|| false), Ok(()));
        assert_eq!(desktop.asked(), 2);
        // What was granted waits for its source: nobody is asked again.
        let open = open("portal");
        open.shows(RUST);
        assert_eq!(desktop.asked(), 2);
    });
}

#[test]
fn whoever_does_not_want_to_wait_any_longer_does_not_wait() {
    in_desktop("whoever_does_not_want_to_wait_any_longer_does_not_wait", |desktop| {
        desktop.think(30);
        let cancelled = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(2));
                cancelled.store(true, Ordering::Release);
            });
            let started = Instant::now();
            assert_eq!(screen::choose(false, &|| cancelled.load(Ordering::Acquire)), Err(NotChosen::Cancelled));
            let took = started.elapsed();
            assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
        });
    });
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Option<String>>>);

impl ChoiceStore for Kept {
    fn load(&self) -> Option<String> {
        self.0.lock().expect("kept").clone()
    }

    fn save(&self, token: &str) {
        *self.0.lock().expect("kept") = Some(token.to_owned());
    }
}

#[test]
fn the_same_choice_is_had_again_without_a_question() {
    in_desktop("the_same_choice_is_had_again_without_a_question", |desktop| {
        let kept = Kept::default();
        screen::keep_choice_in(kept.clone());
        let first = open("portal");
        first.shows(RUST);
        assert_eq!(desktop.asked(), 1);
        assert!(kept.load().is_some_and(|token| !token.is_empty()), "the desktop's token is kept");
        drop(first);
        desktop.answer("");
        let second = open("portal");
        let CaptureEvent::Opened { width, height, .. } = second.event() else { panic!("not opened") };
        assert_eq!((width, height), (1280, 720));
        // This desktop gives no picture before something changes.
        desktop.sway(&["output", "HEADLESS-1", "bg", "#2060c0", "solid_color"]);
        second.shows(BLUE);
        assert_eq!(desktop.asked(), 1, "asked although the choice was known");
        drop(second);
        // Whoever wants to choose anew is asked.
        assert_eq!(screen::choose(false, &|| false), Err(NotChosen::Cancelled));
        assert_eq!(desktop.asked(), 2);
    });
}

#[test]
fn the_room_hears_of_a_share_when_something_was_chosen() {
    in_desktop("the_room_hears_of_a_share_when_something_was_chosen", |desktop| {
        let host = Host::start("Tea", &[]);
        let viewer = Participant::join("b", 2, &host.invitation(), &[]);
        let mut presenter = Participant::join("a", 1, &host.invitation(), &[]);
        desktop.answer("");
        presenter.tell(&json!({"do": "share", "screen": "portal:ask"}));
        assert_eq!(presenter.named("shareStopped")["reason"], "cancelled");
        assert_eq!(presenter.count("shareStarted"), 0);
        let screens = |p: &Participant| {
            p.events().iter().filter(|e| e["stream_id"].as_str().is_some_and(|id| id.starts_with("str_SCR"))).count()
        };
        assert_eq!(screens(&viewer), 0);
        desktop.answer("HEADLESS-1");
        presenter.tell(&json!({"do": "share", "screen": "portal:ask"}));
        presenter.named("shareStarted");
        viewer.event("the screen", |e| {
            e["event"] == "streamCreated" && e["stream_id"].as_str().is_some_and(|id| id.starts_with("str_SCR"))
        });
        presenter.tell(&json!({"do": "share", "screen": null}));
        viewer.event("the end of the screen", |e| {
            e["event"] == "streamDestroyed" && e["stream_id"].as_str().is_some_and(|id| id.starts_with("str_SCR"))
        });
        assert_eq!(desktop.asked(), 2);
    });
}
