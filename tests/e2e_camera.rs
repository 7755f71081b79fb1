//! A camera in a call, through the whole program: changed, unplugged, stalled, back again, and muted in between.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;
#[path = "fakecam/mod.rs"]
mod fakecam;

use std::path::PathBuf;
use std::time::Duration;

use e2e_support::{Host, Participant, Proxy, SOON, live, wait};
use serde_json::{Value, json};

const ROOM: &str = "camera";
/// Pattern of the first fake camera; the second one's is the next.
const FIRST: u8 = 41;

/// Somebody with two fake cameras.
struct Desk {
    person: Participant,
    log: PathBuf,
    control: PathBuf,
}

impl Desk {
    fn join(target: &str, dir: &tempfile::TempDir, trouble: &str) -> Self {
        let (log, control) = (dir.path().join("camera.log"), dir.path().join("control"));
        std::fs::write(&control, trouble).unwrap();
        let options = ["--camera", "device:0:320x180@15", "--microphone", "tone:700"];
        let person = Participant::join_with("desk", target, &options, |command| {
            command
                .env("LD_PRELOAD", fakecam::library())
                .env("FAKECAM_COUNT", "2")
                .env("FAKECAM_ID", FIRST.to_string())
                .env("FAKECAM_LOG", &log)
                .env("FAKECAM_CONTROL", &control);
        });
        Self { person, log, control }
    }

    /// What holds of the cameras from now on.
    fn trouble(&self, words: &str) {
        std::fs::write(&self.control, words).unwrap();
    }

    /// Waits for one more event of this name than there were.
    fn hears_again(&self, name: &str, before: usize) {
        wait(name, SOON, || (self.person.count(name) > before).then_some(()));
    }
}

/// Waits until ten more pictures of this pattern have come.
fn sees(watcher: &mut Participant, id: u8) {
    let before = watcher.frames_read(id);
    wait("its pictures", SOON, || {
        std::thread::sleep(Duration::from_millis(200));
        (watcher.frames_read(id) >= before + 10).then_some(())
    });
}

/// How often the others were told that the picture is on, or off.
fn told(watcher: &Participant, on: bool) -> usize {
    let is = |e: &Value| e["event"] == "streamPropertyChanged" && e["property"] == "videoActive" && e["value"] == on;
    watcher.events().iter().filter(|e| is(e)).count()
}

#[test]
fn changed_unplugged_stalled_and_back_again() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Participant::join("watcher", 12, &host.invitation(), &[]);
    // There is no camera at first; one that is plugged in later is taken by itself.
    let mut desk = Desk::join(&host.invitation(), &dir, "unplugged 0\nunplugged 1");
    assert_eq!(desk.person.named("deviceError")["key"], "dev.cam_none");
    desk.person.named("published");
    desk.trouble("");
    assert_eq!(desk.person.named("cameraOpened")["device"], "Fakecam 0");
    sees(&mut watcher, FIRST);

    // Another one, in the same stream.
    desk.person.tell(&json!({"do": "camera", "source": "device:Fakecam 1:320x180@15"}));
    sees(&mut watcher, FIRST + 1);
    desk.person.tell(&json!({"do": "camera", "source": "device:Fakecam 0:320x180@15"}));
    sees(&mut watcher, FIRST);

    // A stall that lasts: the others are told that there is no picture, and that there is one again.
    let (off, on) = (told(&watcher, false), told(&watcher, true));
    desk.trouble("stalled 0");
    assert!(desk.person.named("cameraStalled")["for_ms"].as_u64().unwrap() >= 2_000);
    wait("the end of the picture", SOON, || (told(&watcher, false) > off).then_some(()));
    desk.trouble("");
    desk.person.named("cameraRecovered");
    wait("the picture", SOON, || (told(&watcher, true) > on).then_some(()));
    sees(&mut watcher, FIRST);

    // Unplugged while the call begins anew: published without a picture, then with one.
    let (stalled, recovered) = (desk.person.count("cameraStalled"), desk.person.count("cameraRecovered"));
    desk.trouble("unplugged 0");
    desk.hears_again("cameraStalled", stalled);
    desk.person.tell(&json!({"do": "unpublish"}));
    let published = desk.person.count("published");
    desk.person.tell(&json!({"do": "publish"}));
    desk.hears_again("published", published);
    desk.trouble("");
    desk.hears_again("cameraRecovered", recovered);
    sees(&mut watcher, FIRST);

    let end = desk.person.leave();
    assert_eq!(end.report["devices"]["camera"], "Fakecam 0");
    watcher.leave();
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

/// Whatever happened before: muted, the device is closed, no picture is sent and silence is heard.
#[test]
fn muted_it_is_closed_and_silent_through_a_whole_call() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let proxy = Proxy::to(host.addr());
    let dir = tempfile::tempdir().unwrap();
    let mut watcher = Participant::join("watcher", 12, &host.invitation(), &[]);
    let mut desk = Desk::join(&host.invitation_through(proxy.addr), &dir, "");
    sees(&mut watcher, FIRST);
    let mut rng = Rng(0x0ca1_1ed5);
    for round in 0..24 {
        for _ in 0..=rng.below(3) {
            match rng.below(6) {
                0 => desk.person.tell(&json!({"do": "mute", "audio": false, "video": false})),
                1 => desk
                    .person
                    .tell(&json!({"do": "camera", "source": format!("device:Fakecam {}:320x180@15", rng.below(2))})),
                2 => desk
                    .person
                    .tell(&json!({"do": "microphone", "source": format!("tone:{}", 500 + 100 * rng.below(9))})),
                3 => desk.trouble(["unplugged 0", "stalled 0", "busy 1", "stalled 1"][rng.below(4) as usize]),
                4 => desk.trouble(""),
                _ => {
                    desk.person.tell(&json!({"do": "unpublish"}));
                    desk.person.tell(&json!({"do": "publish"}));
                }
            }
            std::thread::sleep(Duration::from_millis(rng.below(150)));
        }
        if round == 12 {
            // Cut off for longer than the server keeps a place: it joins anew.
            proxy.cut();
            std::thread::sleep(Duration::from_secs(12));
            proxy.mend();
            desk.person.named("rejoined");
        }
        let muted = desk.person.count("muted");
        desk.person.tell(&json!({"do": "mute", "audio": true, "video": true}));
        desk.hears_again("muted", muted);
        assert!(fakecam::closes(&desk.log), "open while muted in round {round}");
    }
    // Everything is fine with the devices, but it is muted.
    desk.trouble("");
    std::thread::sleep(Duration::from_secs(2));
    assert!(fakecam::closes(&desk.log));
    wait("silence", SOON, || {
        let report = watcher.report();
        let streams = report["streams"].as_array()?.clone();
        let heard = streams.iter().rev().find(|s| s["direction"] == "recv" && !s["audio"].is_null())?;
        heard["audio"]["level_dbfs"].as_f64().is_none_or(|l| l < -70.0).then_some(())
    });
    desk.person.tell(&json!({"do": "camera", "source": "device:Fakecam 0:320x180@15"}));
    desk.person.tell(&json!({"do": "mute", "audio": false, "video": false}));
    sees(&mut watcher, FIRST);
    assert!(live(&watcher.report(), FIRST).is_some());
    desk.person.leave();
    watcher.leave();
}
