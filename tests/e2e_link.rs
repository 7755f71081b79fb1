//! A path that loses too much for pictures: sound alone is offered, and taken without a word of it being lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::time::Duration;

use e2e_support::{Host, Participant, tone_is, tone_of, wait};
use serde_json::{Value, json};

const ROOM: &str = "link";
/// Estimates take their time on a busy machine; a limit for broken runs, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

/// What comes from `from` at the moment.
fn stream(who: &mut Participant, from: &Participant) -> Option<Value> {
    let (report, from) = (who.report(), from.connection_id());
    let mut streams = report["streams"].as_array().unwrap().iter().filter(|s| s["direction"] == "recv");
    streams.rfind(|s| s["connection_id"] == from.as_str()).cloned()
}

fn pictures(who: &mut Participant, from: &Participant) -> u64 {
    stream(who, from).and_then(|stream| stream["video"]["packets"].as_u64()).unwrap_or(0)
}

/// Pictures that come within two seconds, in packets.
fn coming(who: &mut Participant, from: &Participant) -> u64 {
    let before = pictures(who, from);
    std::thread::sleep(Duration::from_secs(2));
    pictures(who, from).saturating_sub(before)
}

fn hears(who: &mut Participant, from: &Participant, id: u8) -> Option<()> {
    stream(who, from).is_some_and(|stream| tone_is(&stream, tone_of(id))).then_some(())
}

#[test]
fn sound_alone_is_offered_where_a_fifth_is_lost() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let camera = |id: u8| format!("pattern:{id}:640x360@30");
    let mut ada = Participant::join("Ada", 51, &host.invitation(), &["--camera", &camera(51), "--microphone", "tone"]);
    let own = camera(52);
    let link = "down:loss=20,delay=20,up:delay=20";
    let lossy = ["--camera", &own, "--microphone", "tone", "--simulate-network", link];
    let mut bob = Participant::join("Bob", 52, &host.invitation(), &lossy);
    bob.sees(51);
    ada.sees(52);
    let told = wait("the offer", PATIENCE, || bob.events().into_iter().find(|e| e["event"] == "slowLink"));
    assert!((15..=30).contains(&told["loss_percent"].as_u64().unwrap()), "{told}");
    assert_eq!(ada.count("slowLink"), 0, "her path is well");

    bob.tell(&json!({"do": "sound_only", "on": true}));
    bob.event("the camera closed", |e| e["event"] == "muted" && e["video"] == true);
    wait("no picture any more", PATIENCE, || (coming(&mut bob, &ada) == 0).then_some(()));
    wait("her voice", PATIENCE, || hears(&mut bob, &ada, 51));
    wait("no picture of his", PATIENCE, || (coming(&mut ada, &bob) == 0).then_some(()));
    wait("his voice", PATIENCE, || hears(&mut ada, &bob, 52));
    // Whoever comes now is heard, too.
    let cid = Participant::join("Cid", 53, &host.invitation(), &["--camera", &camera(53), "--microphone", "tone"]);
    cid.stream_id();
    wait("the new voice", PATIENCE, || hears(&mut bob, &cid, 53));
    wait("without a picture", PATIENCE, || (coming(&mut bob, &cid) == 0).then_some(()));

    bob.tell(&json!({"do": "sound_only", "on": false}));
    bob.sees(51);
    bob.sees(53);
    let opened = bob.events().into_iter().filter(|e| e["event"] == "muted" && e["video"] == false).count();
    assert_eq!(opened, 0, "his own camera stays closed");
}
