//! The real camera path (`nokhwa`, V4L2) against the fake camera of `tests/fakecam`: every pixel format, unplugging,
//! stalling, busy, denied and missing cameras, and that a closed camera really is closed.
//!
//! Each test runs itself again with the fake camera preloaded; no root, no kernel module and no device is needed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fakecam/mod.rs"]
mod fakecam;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use fakecam::{INNER, file_of, open_handles, with_fakecam};
use tertulia::media::video::capture::{Capture, CaptureEvent};
use tertulia::media::video::device::{CameraInfo, CameraState, list_cameras};
use tertulia::media::video::frame::FrameSlot;
use tertulia::media::video::pattern::{PatternReport, PatternStats};
use tertulia::media::video::source::CameraSource;

struct Open {
    capture: Capture,
    slot: FrameSlot,
    events: mpsc::Receiver<CaptureEvent>,
}

fn open(source: &str) -> Open {
    let slot = FrameSlot::new();
    let (sender, events) = mpsc::sync_channel(100);
    let source = CameraSource::parse(source).expect("source");
    let tell = Box::new(move |event| sender.try_send(event).unwrap_or(()));
    Open { capture: Capture::open(&source, slot.clone(), tell), slot, events }
}

impl Open {
    fn event(&self) -> CaptureEvent {
        self.events.recv_timeout(Duration::from_secs(10)).expect("an event")
    }

    /// Reads the strips for this long.
    fn watch(&self, time: Duration) -> PatternReport {
        let stats = PatternStats::new();
        let (started, mut seen) = (Instant::now(), self.slot.version());
        while started.elapsed() < time {
            let version = self.slot.wait(seen, Duration::from_millis(100));
            if version != seen
                && let Some(frame) = self.slot.latest()
            {
                stats.observe(&frame);
            }
            seen = version;
        }
        stats.report().expect("pictures with a strip")
    }
}

fn opened(name: &str, width: u32, height: u32, fps: u32) -> CaptureEvent {
    CaptureEvent::Opened { name: name.into(), width, height, fps }
}

/// A camera of the list, at its socket.
fn usable(index: u32, name: &str, socket: u32) -> CameraInfo {
    let place = Some(format!("0000:00:14.0-{socket}:1.0/0"));
    CameraInfo { index, name: name.into(), place, state: CameraState::Usable }
}

fn check_format(source: &str, size: (u32, u32, u32)) {
    let camera = open(source);
    assert_eq!(camera.event(), opened("Fakecam 0", size.0, size.1, size.2));
    let report = camera.watch(Duration::from_secs(2));
    assert_eq!((report.id, report.crc_errors), (Some(7), 0), "{report:?}");
    let most = u64::from(size.2) * 2;
    assert!((most / 2..=most + 3).contains(&report.frames_read), "{report:?}");
    assert!(report.latency_ms_p50.expect("latency") < 100.0, "{report:?}");
    let frame = camera.slot.latest().expect("picture");
    assert_eq!((frame.width, frame.height), (size.0, size.1));
    // The colour is the same in every format: U 140, V 116, give or take the JPEG's detour over RGB.
    for (plane, wanted) in [(&frame.u, 140u8), (&frame.v, 116)] {
        let middle = plane.get(plane.len() / 2).copied().expect("chroma");
        assert!(middle.abs_diff(wanted) <= 6, "{middle} instead of {wanted}");
    }
}

#[test]
fn yuyv() {
    with_fakecam("yuyv", &[("FAKECAM_FORMATS", "YUYV")], || check_format("device", (1280, 720, 30)));
}

#[test]
fn nv12() {
    with_fakecam("nv12", &[("FAKECAM_FORMATS", "NV12")], || check_format("device:0:640x360@15", (640, 360, 15)));
}

#[test]
fn mjpeg() {
    with_fakecam("mjpeg", &[("FAKECAM_FORMATS", "MJPG")], || check_format("device:Fake:1280x720@30", (1280, 720, 30)));
}

#[test]
fn every_size_is_given_in_the_format_that_costs_least() {
    with_fakecam("every_size_is_given_in_the_format_that_costs_least", &[], || {
        for (width, height) in [(320, 180), (640, 360), (640, 480), (1280, 720), (1920, 1080)] {
            let camera = open(&format!("device:0:{width}x{height}@15"));
            assert_eq!(camera.event(), opened("Fakecam 0", width, height, 15));
            assert_eq!(camera.watch(Duration::from_millis(700)).crc_errors, 0);
        }
    });
}

#[test]
fn rows_with_padding_are_read_where_they_are() {
    for (format, mode) in [("YUYV", "640x360@30"), ("NV12", "1280x720@30")] {
        let test = "rows_with_padding_are_read_where_they_are";
        let settings = [("FAKECAM_FORMATS", format), ("FAKECAM_PADDING", "64"), ("FAKECAM_TEST_MODE", mode)];
        with_fakecam(test, &settings, || {
            let mode = std::env::var("FAKECAM_TEST_MODE").expect("a mode");
            let size = if mode.starts_with("640") { (640, 360, 30) } else { (1280, 720, 30) };
            check_format(&format!("device:0:{mode}"), size);
        });
        if std::env::var_os(INNER).is_some() {
            return;
        }
    }
}

#[test]
fn rates_that_are_no_whole_numbers_are_taken() {
    let test = "rates_that_are_no_whole_numbers_are_taken";
    with_fakecam(
        test,
        &[("FAKECAM_INTERVALS", "1001/30000,1001/15000"), ("FAKECAM_PADDING", "32"), ("FAKECAM_FORMATS", "YUYV")],
        || {
            assert_eq!(list_cameras(), [usable(0, "Fakecam 0", 1)]);
            check_format("device:0:640x360@30", (640, 360, 30));
            // It is free again.
            check_format("device:0:1280x720@15", (1280, 720, 15));
        },
    );
}

#[test]
fn a_size_that_is_not_offered_gives_the_nearest() {
    with_fakecam("a_size_that_is_not_offered_gives_the_nearest", &[], || {
        check_format("device:0:1200x700@30", (1280, 720, 30));
    });
}

#[test]
fn closing_closes_the_device_and_opening_again_works() {
    let test = "closing_closes_the_device_and_opening_again_works";
    let log = file_of(test, "log");
    let path = log.display().to_string();
    with_fakecam(test, &[("FAKECAM_LOG", &path)], || {
        for round in 0..3 {
            let camera = open("device");
            assert_eq!(camera.event(), opened("Fakecam 0", 1280, 720, 30));
            camera.watch(Duration::from_millis(200));
            let started = Instant::now();
            camera.capture.close();
            assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
            assert!(camera.slot.latest().is_none());
            let lines = std::fs::read_to_string(&log).expect("log");
            let last: Vec<&str> = lines.lines().rev().take(2).collect();
            assert_eq!(last, ["close 0", "streamoff 0"], "round {round}: {lines}");
            let version = camera.slot.version();
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(camera.slot.version(), version, "a closed camera gives nothing");
        }
    });
}

#[test]
fn two_cameras_at_once_and_the_list_does_not_disturb_them() {
    let test = "two_cameras_at_once_and_the_list_does_not_disturb_them";
    with_fakecam(test, &[("FAKECAM_COUNT", "2"), ("FAKECAM_ID", "100")], || {
        let first = open("device:0:320x180@30");
        let second = open("device:Fakecam 1:640x360@15");
        assert_eq!(first.event(), opened("Fakecam 0", 320, 180, 30));
        assert_eq!(second.event(), opened("Fakecam 1", 640, 360, 15));
        assert_eq!(list_cameras(), [usable(0, "Fakecam 0", 1), usable(1, "Fakecam 1", 2)]);
        let report = first.watch(Duration::from_secs(1));
        assert_eq!((report.id, report.crc_errors), (Some(100), 0));
        assert!(report.frames_read > 20, "{report:?}");
        assert_eq!(second.watch(Duration::from_millis(500)).id, Some(101));
    });
}

#[test]
fn metadata_nodes_are_no_cameras() {
    with_fakecam("metadata_nodes_are_no_cameras", &[("FAKECAM_META", "1")], || {
        let cameras = list_cameras();
        assert_eq!(cameras.len(), 1, "{cameras:?}");
        let camera = open("device:0");
        assert_eq!(camera.event(), opened("Fakecam 1", 1280, 720, 30));
    });
}

fn failure(source: &str) -> (&'static str, String) {
    let camera = open(source);
    let CaptureEvent::Failed { key, device, detail } = camera.event() else { panic!("no failure") };
    assert!(!detail.is_empty());
    assert!(camera.slot.latest().is_none());
    (key, device)
}

#[test]
fn no_camera() {
    with_fakecam("no_camera", &[("FAKECAM_COUNT", "0")], || {
        assert_eq!(list_cameras(), []);
        assert_eq!(failure("device").0, "dev.cam_none");
        assert_eq!(failure("device:3").0, "dev.cam_none");
        assert_eq!(failure("device:Logitech").0, "dev.cam_none");
    });
}

#[test]
fn a_busy_camera_is_told_apart_and_a_free_one_taken_instead() {
    let test = "a_busy_camera_is_told_apart_and_a_free_one_taken_instead";
    with_fakecam(test, &[("FAKECAM_COUNT", "2"), ("FAKECAM_BUSY", "0")], || {
        assert_eq!(failure("device:Fakecam 0"), ("dev.cam_busy", "Fakecam 0".into()));
        assert_eq!(failure("device:0").0, "dev.cam_busy");
        let states: Vec<_> = list_cameras().into_iter().map(|c| c.state).collect();
        assert_eq!(states, [CameraState::Busy, CameraState::Usable]);
        assert_eq!(open("device").event(), opened("Fakecam 1", 1280, 720, 30));
    });
}

#[test]
fn a_forbidden_camera() {
    with_fakecam("a_forbidden_camera", &[("FAKECAM_DENIED", "0")], || {
        assert_eq!(failure("device"), ("dev.cam_denied", "Fakecam 0".into()));
    });
}

#[test]
fn unplugged_and_plugged_in_again() {
    let settings = [("FAKECAM_UNPLUG_AFTER", "20"), ("FAKECAM_REPLUG_MS", "1500")];
    with_fakecam("unplugged_and_plugged_in_again", &settings, || {
        let camera = open("device:0:320x180@30");
        assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 30));
        let CaptureEvent::Stalled { device, .. } = camera.event() else { panic!("not told") };
        assert_eq!(device, "Fakecam 0");
        assert!(camera.slot.latest().is_none(), "no frozen face is left standing");
        assert_eq!(camera.event(), CaptureEvent::Recovered);
        let report = camera.watch(Duration::from_millis(700));
        assert!(report.frames_read > 10, "{report:?}");
    });
}

#[test]
fn unplugged_for_good_is_told_twice_and_closes_at_once() {
    let test = "unplugged_for_good_is_told_twice_and_closes_at_once";
    with_fakecam(test, &[("FAKECAM_UNPLUG_AFTER", "10")], || {
        let camera = open("device:0:320x180@30");
        camera.event();
        assert!(matches!(camera.event(), CaptureEvent::Stalled { for_ms, .. } if for_ms < 1_000));
        assert!(matches!(camera.event(), CaptureEvent::Stalled { for_ms, .. } if for_ms >= 5_000));
        let started = Instant::now();
        camera.capture.close();
        assert!(started.elapsed() < Duration::from_millis(500));
    });
}

#[test]
fn a_stall_is_noticed_within_2_s_and_its_end_too() {
    let settings = [("FAKECAM_STALL_AFTER", "20"), ("FAKECAM_STALL_MS", "3500")];
    with_fakecam("a_stall_is_noticed_within_2_s_and_its_end_too", &settings, || {
        let camera = open("device:0:320x180@30");
        assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 30));
        let CaptureEvent::Stalled { for_ms, .. } = camera.event() else { panic!("not told") };
        assert!((2_000..2_500).contains(&for_ms), "{for_ms}");
        assert_eq!(camera.event(), CaptureEvent::Recovered);
        assert!(camera.watch(Duration::from_millis(500)).frames_read > 5);
    });
}

#[test]
fn a_camera_that_stalls_until_it_is_opened_anew_is() {
    let settings = [("FAKECAM_STALL_AFTER", "20"), ("FAKECAM_STALL_REOPEN", "1")];
    with_fakecam("a_camera_that_stalls_until_it_is_opened_anew_is", &settings, || {
        let camera = open("device:0:320x180@30");
        assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 30));
        let CaptureEvent::Stalled { for_ms, .. } = camera.event() else { panic!("not told") };
        assert!((2_000..2_500).contains(&for_ms), "{for_ms}");
        assert!(camera.slot.latest().is_none(), "no frozen face is left standing");
        let stalled = Instant::now();
        assert_eq!(camera.event(), CaptureEvent::Recovered);
        assert!(stalled.elapsed() < Duration::from_millis(2_500), "{:?}", stalled.elapsed());
        assert!(camera.watch(Duration::from_millis(700)).frames_read > 10);
    });
}

#[test]
fn a_camera_that_is_muted_while_it_stalls_is_closed() {
    let test = "a_camera_that_is_muted_while_it_stalls_is_closed";
    let (log, control) = (file_of(test, "log"), file_of(test, "control"));
    let (log_path, control_path) = (log.display().to_string(), control.display().to_string());
    with_fakecam(test, &[("FAKECAM_LOG", &log_path), ("FAKECAM_CONTROL", &control_path)], || {
        let camera = open("device:0:320x180@30");
        assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 30));
        camera.watch(Duration::from_millis(200));
        std::fs::write(&control, "stalled 0").expect("control");
        // Both before and after the stall has been noticed.
        for wait in [300, 3_500] {
            std::thread::sleep(Duration::from_millis(wait));
            let stalling = open("device:0:320x180@30");
            let started = Instant::now();
            stalling.capture.close();
            assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        }
        assert!(matches!(camera.event(), CaptureEvent::Stalled { .. }));
        let started = Instant::now();
        camera.capture.close();
        assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
        assert_eq!(open_handles(&log), 0);
        // Unmuted it is not busy by ourselves.
        std::fs::write(&control, "").expect("control");
        assert_eq!(open("device:0:320x180@30").event(), opened("Fakecam 0", 320, 180, 30));
    });
}

#[test]
fn a_driver_that_hangs_for_good_does_not_hang_us() {
    let settings = [("FAKECAM_STALL_AFTER", "5"), ("FAKECAM_HANG", "read")];
    with_fakecam("a_driver_that_hangs_for_good_does_not_hang_us", &settings, || {
        let camera = open("device:0:320x180@30");
        camera.event();
        assert!(matches!(camera.event(), CaptureEvent::Stalled { .. }));
        assert!(matches!(camera.event(), CaptureEvent::Stalled { for_ms, .. } if for_ms >= 5_000));
        let started = Instant::now();
        camera.capture.close();
        assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
        assert!(camera.slot.latest().is_none());
    });
}

#[test]
fn a_driver_that_hangs_when_it_is_opened_is_told() {
    with_fakecam("a_driver_that_hangs_when_it_is_opened_is_told", &[("FAKECAM_HANG", "open")], || {
        let asked = Instant::now();
        assert_eq!(failure("device"), ("dev.cam_lost", "Fakecam 0".into()));
        assert!((4..7).contains(&asked.elapsed().as_secs()), "{:?}", asked.elapsed());
    });
}

#[test]
fn a_camera_that_is_missing_or_busy_at_first_is_opened_when_it_is_there() {
    let test = "a_camera_that_is_missing_or_busy_at_first_is_opened_when_it_is_there";
    let control = file_of(test, "control");
    let path = control.display().to_string();
    with_fakecam(test, &[("FAKECAM_CONTROL", &path)], || {
        for (trouble, key) in [("unplugged 0", "dev.cam_none"), ("busy 0", "dev.cam_busy")] {
            std::fs::write(&control, trouble).expect("control");
            let camera = open("device:0:320x180@30");
            let CaptureEvent::Failed { key: told, .. } = camera.event() else { panic!("no failure") };
            assert_eq!(told, key);
            // Told once, however often it is tried.
            assert_eq!(camera.events.recv_timeout(Duration::from_secs(4)), Err(mpsc::RecvTimeoutError::Timeout));
            std::fs::write(&control, "").expect("control");
            assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 30));
            assert!(camera.watch(Duration::from_millis(500)).frames_read > 5);
        }
    });
}

#[test]
fn twins_are_told_apart_by_their_sockets() {
    let test = "twins_are_told_apart_by_their_sockets";
    let control = file_of(test, "control");
    let path = control.display().to_string();
    // As uvcvideo makes them: every camera has a second node of its own name; the first nodes here give pictures, too.
    let settings = [
        ("FAKECAM_COUNT", "4"),
        ("FAKECAM_NAMES", "HD Cam,HD Cam,HD Cam,HD Cam"),
        ("FAKECAM_PORTS", "2,2,3,3"),
        ("FAKECAM_ID", "100"),
        ("FAKECAM_CONTROL", &path),
    ];
    with_fakecam(test, &settings, || {
        let sources: Vec<String> = list_cameras().iter().map(CameraInfo::source).collect();
        assert_eq!(sources[2], "device:HD Cam [0000:00:14.0-3:1.0/0]");
        let camera = open(&sources[2]);
        assert_eq!(camera.event(), opened("HD Cam", 1280, 720, 30));
        assert_eq!(camera.watch(Duration::from_millis(300)).id, Some(102));
        // Its twin is not taken in its place; it is found again where it was.
        std::fs::write(&control, "unplugged 2").expect("control");
        assert!(matches!(camera.event(), CaptureEvent::Stalled { .. }));
        assert_eq!(camera.events.recv_timeout(Duration::from_secs(3)), Err(mpsc::RecvTimeoutError::Timeout));
        std::fs::write(&control, "").expect("control");
        assert_eq!(camera.event(), CaptureEvent::Recovered);
        assert_eq!(camera.watch(Duration::from_millis(300)).id, Some(102));
    });
}

#[test]
fn a_camera_that_comes_back_under_another_number_is_found() {
    // Behind the metadata node of the same name and device.
    let settings = [
        ("FAKECAM_META", "1"),
        ("FAKECAM_NAMES", "HD Cam,HD Cam"),
        ("FAKECAM_PORTS", "2,2"),
        ("FAKECAM_UNPLUG", "1"),
        ("FAKECAM_UNPLUG_AFTER", "20"),
        ("FAKECAM_REPLUG_MS", "1000"),
        ("FAKECAM_REPLUG_NODE", "5"),
    ];
    with_fakecam("a_camera_that_comes_back_under_another_number_is_found", &settings, || {
        let camera = open("device:HD Cam:320x180@30");
        assert_eq!(camera.event(), opened("HD Cam", 320, 180, 30));
        assert!(matches!(camera.event(), CaptureEvent::Stalled { .. }));
        assert_eq!(camera.event(), CaptureEvent::Recovered);
        assert_eq!(camera.watch(Duration::from_millis(500)).id, Some(8));
    });
}

#[test]
fn the_better_of_mixed_rates_is_taken() {
    let settings = [("FAKECAM_INTERVALS", "1001/30000,1/10"), ("FAKECAM_FORMATS", "YUYV")];
    with_fakecam("the_better_of_mixed_rates_is_taken", &settings, || {
        check_format("device:0:1280x720@30", (1280, 720, 30));
        check_format("device:0:320x180@10", (320, 180, 10));
    });
}

#[test]
fn mjpeg_without_tables() {
    let settings = [("FAKECAM_FORMATS", "MJPG"), ("FAKECAM_NO_TABLES", "1")];
    with_fakecam("mjpeg_without_tables", &settings, || check_format("device:0:640x360@30", (640, 360, 30)));
}

#[test]
fn muting_and_unmuting_at_once_finds_the_camera_free() {
    with_fakecam("muting_and_unmuting_at_once_finds_the_camera_free", &[], || {
        let mut camera = open("device:0:320x180@15");
        camera.event();
        for _ in 0..5 {
            // The new one is opened before the old one has let go of the device.
            let again = open("device:0:320x180@15");
            drop(std::mem::replace(&mut camera, again));
            assert_eq!(camera.event(), opened("Fakecam 0", 320, 180, 15));
        }
        assert!(camera.watch(Duration::from_millis(300)).frames_read > 1);
    });
}
