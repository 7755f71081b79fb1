use std::sync::mpsc;

use super::*;
use crate::media::video::pattern::{PatternStats, read, sync_flash};

fn open(source: &str) -> (Capture, FrameSlot, mpsc::Receiver<CaptureEvent>) {
    let slot = FrameSlot::new();
    let (sender, events) = mpsc::sync_channel(100);
    let source = CameraSource::parse(source).expect("source");
    let capture = Capture::open(&source, slot.clone(), Box::new(move |event| sender.try_send(event).unwrap_or(())));
    (capture, slot, events)
}

fn event(events: &mpsc::Receiver<CaptureEvent>) -> CaptureEvent {
    events.recv_timeout(Duration::from_secs(5)).expect("an event")
}

#[test]
fn the_pattern_opens_and_keeps_its_rate() {
    let (capture, slot, events) = open("pattern:6:320x180@30");
    assert_eq!(event(&events), CaptureEvent::Opened { name: "pattern 6".into(), width: 320, height: 180, fps: 30 });
    let stats = PatternStats::new();
    let mut seen = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        seen = slot.wait(seen, Duration::from_millis(200));
        if let Some(frame) = slot.latest() {
            stats.observe(&frame);
        }
    }
    let given = capture.stats();
    assert!((57..=62).contains(&(given.frames + given.late)), "{given:?}");
    let report = stats.report().expect("pattern");
    assert_eq!((report.id, report.crc_errors), (Some(6), 0));
}

#[test]
fn closing_empties_the_slot_and_nothing_comes_afterwards() {
    let (capture, slot, events) = open("pattern:1:320x180@60");
    event(&events);
    while slot.latest().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let outlet = Arc::downgrade(&capture.outlet);
    capture.close();
    assert!(slot.latest().is_none());
    assert!(outlet.upgrade().is_none(), "the thread is gone and with it all that it held");
    let version = slot.version();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(slot.version(), version);
}

#[test]
fn shutting_is_at_once_and_the_next_source_keeps_its_picture() {
    let (old, slot, events) = open("pattern:1:320x180@60");
    event(&events);
    while slot.latest().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    old.shut();
    assert!(slot.latest().is_none());
    // As a call changes cameras: the new one is open before the old one has closed.
    let source = CameraSource::parse("pattern:2:320x180@1").expect("source");
    let _new = Capture::open(&source, slot.clone(), Box::new(|_| ()));
    while slot.latest().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    old.close();
    assert!(slot.latest().is_some());
}

#[test]
fn closing_within_the_event_does_not_hang() {
    let (sender, opened) = mpsc::sync_channel::<()>(1);
    let cell: Arc<Mutex<Option<Capture>>> = Arc::default();
    let inner = Arc::clone(&cell);
    let source = CameraSource::parse("pattern:1:320x180@30").expect("source");
    let slot = FrameSlot::new();
    let events: CaptureEvents = Box::new(move |_| {
        while inner.lock().expect("cell").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(inner.lock().expect("cell").take());
        sender.try_send(()).unwrap_or(());
    });
    *cell.lock().expect("cell") = Some(Capture::open(&source, slot.clone(), events));
    opened.recv_timeout(Duration::from_secs(5)).expect("closed");
    assert!(slot.latest().is_none());
}

#[test]
fn no_camera_ends_at_once() {
    let (capture, slot, events) = open("none");
    assert_eq!(event(&events), CaptureEvent::Ended);
    while capture.is_running() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(slot.latest().is_none());
}

#[test]
fn a_missing_file_says_which() {
    let (capture, _slot, events) = open("file:/nonexistent/talk.y4m");
    let CaptureEvent::Failed { key, device, detail } = event(&events) else { panic!("no failure") };
    assert_eq!(key, "dev.file");
    assert!(device.contains("talk.y4m") && detail.contains("talk.y4m"), "{device} {detail}");
    drop(capture);
}

#[test]
fn the_flash_falls_on_the_full_second() {
    let (_capture, slot, _events) = open("pattern+sync:1:320x180@30");
    let mut seen = 0;
    let started = Instant::now();
    let mut flash = None;
    while started.elapsed() < Duration::from_millis(3_500) && flash.is_none() {
        seen = slot.wait(seen, Duration::from_millis(200));
        if let Some(frame) = slot.latest()
            && sync_flash(&frame)
        {
            flash = read(&frame);
        }
    }
    let reading = flash.expect("a flash within three seconds");
    // Back to Unix time, of which the strip holds the lower 20 bits.
    let now = unix_ms();
    let age = u64::from(super::super::pattern::age_ms(reading.time_ms, now));
    let phase = (now - age) % 1_000;
    assert!(phase < 100, "{phase} ms after the second");
}

/// With the feature it asks the desktop on which the tests run; `tests/portal.rs` brings its own.
#[cfg(not(feature = "portal"))]
#[test]
fn a_portal_share_fails_with_words() {
    let slot = FrameSlot::new();
    let (sender, events) = mpsc::sync_channel(10);
    let source = ScreenSource::parse("portal").expect("source");
    let _capture = Capture::open_screen(&source, slot, Box::new(move |event| sender.try_send(event).unwrap_or(())));
    let CaptureEvent::Failed { key, detail, .. } = event(&events) else { panic!("no failure") };
    assert_eq!(key, "err.portal");
    assert!(detail.contains("built without the desktop's screen picker"), "{detail}");
}
