//! Layers through the whole program: one publisher, receivers on lines and with tiles of different sizes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e_support::bottleneck::Bottleneck;
use e2e_support::relay::Sniffer;
use e2e_support::{Host, Participant, live, wait};
use serde_json::{Value, json};

const ROOM: &str = "layers";
/// One call at a time: two of them are too much for two cores, and then the highest layer is left out, as it should be.
static ALONE: Mutex<()> = Mutex::new(());
/// Estimates take their time on a busy machine; a limit for broken runs, not a measure.
const SETTLED: Duration = Duration::from_secs(60);

fn width(report: &Value, id: u8) -> Option<u64> {
    live(report, id)?["video"]["width"].as_u64()
}

fn number(report: &Value, id: u8, what: &str) -> u64 {
    live(report, id).and_then(|stream| stream["video"][what].as_u64()).unwrap_or(0)
}

/// Waits until the picture has a width that is wanted, and has come on by some pictures at it.
fn gets(who: &mut Participant, id: u8, what: &str, wanted: impl Fn(u64) -> bool) -> Value {
    let name = who.name.clone();
    wait(&format!("{what} at {name}"), SETTLED, || {
        let report = who.report();
        wanted(width(&report, id)?).then_some(())?;
        let before = live(&report, id)?["video"]["pattern"]["frames_read"].as_u64()?;
        std::thread::sleep(Duration::from_millis(1_000));
        let report = who.report();
        let read = live(&report, id)?["video"]["pattern"]["frames_read"].as_u64()?;
        (read > before + 5 && wanted(width(&report, id)?)).then_some(report)
    })
}

fn sent(report: &Value) -> Value {
    let streams = report["streams"].as_array().unwrap();
    streams.iter().find(|s| s["direction"] == "send").expect("an own stream")["video"].clone()
}

#[test]
fn each_receiver_gets_the_layer_that_fits_its_line_and_its_tile() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::start(ROOM, &["--no-tls"]);
    let camera = ["--camera", "pattern:41:1280x720@30", "--microphone", "tone"];
    let mut ada = Participant::join("Ada", 41, &host.invitation(), &camera);
    let stream = ada.stream_id();
    // Nobody watches: nothing is encoded.
    std::thread::sleep(Duration::from_secs(1));
    let alone = sent(&ada.report());
    assert_eq!(alone["layer"], Value::Null, "{alone}");
    assert_eq!(alone["frames"], 0, "{alone}");

    let line = Bottleneck::to(host.udp(), 450);
    let proxy = Sniffer::to(host.addr(), host.udp().port(), line.addr.port());
    let mut cid = Participant::join("Cid", 43, &host.invitation(), &["--subscribe-only"]);
    let seen = gets(&mut cid, 41, "the full picture", |width| width == 1280);
    assert_eq!(live(&seen, 41).unwrap()["video"]["codec"], "VP8");
    let mut bob = Participant::join("Bob", 42, &host.invitation_through(proxy.addr), &["--subscribe-only"]);
    gets(&mut bob, 41, "a smaller picture", |width| width == 640 || width == 320);
    let both = sent(&ada.report());
    assert!(["h+f", "q+f", "q+h+f"].iter().any(|layers| both["layer"] == *layers), "{both}");
    gets(&mut cid, 41, "still the full picture", |width| width == 1280);

    // The line gets better, and worse again.
    line.set_kbps(20_000);
    gets(&mut bob, 41, "the full picture on a good line", |width| width == 1280);
    line.set_kbps(450);
    gets(&mut bob, 41, "a smaller picture on a bad line", |width| width == 640 || width == 320);

    // A small tile, a hidden one, a large one.
    cid.tell(&json!({"do": "tile", "stream_id": stream, "size": "160x90"}));
    gets(&mut cid, 41, "the smallest picture", |width| width == 320);
    cid.tell(&json!({"do": "tile", "stream_id": stream, "size": "0x0"}));
    std::thread::sleep(Duration::from_secs(1));
    let (before, heard) = (cid.report(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let after = cid.report();
    assert_eq!(number(&before, 41, "packets"), number(&after, 41, "packets"), "no pictures for a hidden tile");
    let sound = |report: &Value| live(report, 41).unwrap()["audio"]["packets"].as_u64().unwrap();
    assert!(sound(&after) > sound(&before) + 50, "{:?} of sound", heard.elapsed());
    assert_eq!(after["events"].as_array().unwrap().iter().filter(|e| e["event"] == "streamStalled").count(), 0);
    let shown = Instant::now();
    let frames = number(&after, 41, "frames");
    cid.tell(&json!({"do": "tile", "stream_id": stream, "size": "1280x720"}));
    wait("the picture again", SETTLED, || (number(&cid.report(), 41, "frames") > frames).then_some(()));
    println!("shown again after {:?}", shown.elapsed());
    gets(&mut cid, 41, "the full picture again", |width| width == 1280);

    // Nobody looks any more.
    for one in [&mut bob, &mut cid] {
        one.tell(&json!({"do": "tile", "stream_id": stream, "size": "0x0"}));
    }
    wait("an end of encoding", SETTLED, || sent(&ada.report())["layer"].is_null().then_some(()));
    let idle = sent(&ada.report())["frames"].clone();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(sent(&ada.report())["frames"], idle);
    for one in [bob, cid] {
        let end = one.leave();
        let seen = live(&end.report, 41).unwrap();
        assert_eq!(seen["video"]["pattern"]["crc_errors"], 0, "{seen:#}");
    }
    ada.leave();
}

/// Two publishers, one receiver on a slow line: both legs together do not ask for more than the line takes.
#[test]
fn the_legs_of_one_receiver_share_its_line() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let host = Host::start(ROOM, &["--no-tls"]);
    let join = |name: &str, id: u8| {
        let camera = format!("pattern:{id}:1280x720@30");
        let more = ["--camera", camera.as_str(), "--microphone", "tone"];
        Participant::join_with(name, &host.invitation(), &more, |_| {})
    };
    let (one, two) = (join("one", 51), join("two", 52));
    let line = Bottleneck::to(host.udp(), 900);
    let proxy = Sniffer::to(host.addr(), host.udp().port(), line.addr.port());
    let mut bob = Participant::join("Bob", 53, &host.invitation_through(proxy.addr), &["--subscribe-only"]);
    for id in [51, 52] {
        gets(&mut bob, id, "a picture", |_| true);
    }
    // After settling: both move, and next to nothing is lost for good.
    std::thread::sleep(Duration::from_secs(10));
    let before = bob.report();
    std::thread::sleep(Duration::from_secs(8));
    let after = bob.report();
    let mut rate = 0;
    for id in [51, 52] {
        let frames = number(&after, id, "frames") - number(&before, id, "frames");
        println!("{id}: {frames} pictures, {}", live(&after, id).unwrap()["video"]);
        assert!(frames > 60, "{id}: {frames} pictures in 8 s");
        rate += number(&after, id, "bitrate_bps");
    }
    assert!((200_000..1_000_000).contains(&rate), "{rate} bit/s over a line of 900 kbit/s");
    bob.leave();
    one.leave();
    two.leave();
}
