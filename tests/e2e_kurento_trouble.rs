//! `join` against the scripted server of `kurento_support` when something is missing, late, lost or broken: what is tried again, and what is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;
mod kurento_support;
mod peer_support;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use e2e_support::{SECRET, SOON, tone_is, tone_of, wait};
use kurento_support::client::{join, watch};
use kurento_support::media::{Person, judge};
use kurento_support::{Script, Server};
use serde_json::{Value, json};

/// Kurento passes no subscriber's request on: only a new subscription brings the key frame; but not one after the other for ever.
#[test]
fn a_stream_without_a_key_frame_is_subscribed_anew() {
    let server = Server::start(Script::default(), SECRET);
    server.shared.script.no_key_frames.store(true, Ordering::Relaxed);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = watch(&server, &[]);
    let me = client.connection_id();
    let subscribed = wait("the subscription", SOON, || {
        server.log().into_iter().find(|e| e.from_client && e.what["method"] == "receiveVideoFrom")
    });
    let first = wait("a new transport", SOON, || server.requests(&me, "reconnectStream").first().cloned());
    let after = subscribed.at.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&after), "{after:?}");
    assert!(first["params"]["sdpOffer"].is_string() && first["params"]["sdpString"].is_null(), "{first}");
    std::thread::sleep(Duration::from_secs(14));
    let times = server.requests(&me, "reconnectStream").len();
    assert!((3..=4).contains(&times), "{times} new transports within 17 s");
    server.shared.script.no_key_frames.store(false, Ordering::Relaxed);
    client.sees(7);
    client.leave();
}

/// Nothing comes and nothing is to come: no reason for a new transport. Nothing comes although it should: one, then patience.
#[test]
fn silent_streams_are_left_alone() {
    let server = Server::start(Script::default(), SECRET);
    let muted = Person::new(7);
    muted.switches.camera_off.store(true, Ordering::Relaxed);
    server.add("Bob", Some(muted), json!({"videoActive": false}));
    // As an unreachable camera of the server's: announced, and never a packet.
    server.add("Cid", None, json!({"typeOfVideo": "IPCAM", "frameRate": null, "videoDimensions": null}));
    let mut client = watch(&server, &[]);
    let me = client.connection_id();
    let deadline = Instant::now() + Duration::from_secs(15);
    wait("the sound", SOON, || {
        let report = client.report();
        let all = report["streams"].as_array().unwrap().clone();
        all.iter().any(|s| s["connection_id"] == "con_Bob" && tone_is(s, tone_of(7))).then_some(())
    });
    std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
    let again = server.requests(&me, "reconnectStream");
    let of = |who: &str| again.iter().filter(|r| r["params"]["stream"].as_str().unwrap().ends_with(who)).count();
    assert_eq!((of("con_Bob"), of("con_Cid")), (0, 1), "{again:?}");
    // The camera goes on: its key frame is the first packet, for the publisher's encoder begins.
    let switches = server.switches("Bob");
    switches.key_frame.store(true, Ordering::Relaxed);
    switches.camera_off.store(false, Ordering::Relaxed);
    server.change("Bob", "videoActive", &json!(true), "publishVideo");
    client.sees(7);
    assert_eq!(server.requests(&me, "reconnectStream").len(), 1);
    client.leave();
}

/// Every candidate of the server comes before the answer it belongs to; then none comes at all.
#[test]
fn candidates_too_early_or_never() {
    let server = Server::start(Script::default(), SECRET);
    server.shared.script.candidates_first.store(true, Ordering::Relaxed);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.sees(7);
    client.stream_id();
    let me = client.connection_id();
    assert!(!server.leg(&me, &me).component_two_was_used());
    server.shared.script.no_candidates.store(true, Ordering::Relaxed);
    server.add("Cid", Some(Person::new(9)), json!({}));
    client.sees(9);
    // Both ways anew: the stream keeps its id, and its subscribers their picture.
    let mut other = watch(&server, &[]);
    other.sees(3);
    let stream_id = client.stream_id();
    server.cut(&me, &me);
    let again = wait("the publication anew", SOON, || server.requests(&me, "reconnectStream").first().cloned());
    assert_eq!(
        (again["params"]["stream"].as_str(), &again["params"]["sdpOffer"]),
        (Some(stream_id.as_str()), &Value::Null)
    );
    assert!(again["params"]["sdpString"].as_str().unwrap().contains("a=sendonly"));
    other.sees(3);
    assert_eq!(server.requests(&me, "publishVideo").len(), 1);
    server.cut(&me, "con_Bob");
    client.sees(7);
    let last = server.requests(&me, "reconnectStream").pop().unwrap();
    assert!(last["params"]["sdpOffer"].as_str().unwrap().contains("a=recvonly"), "{last}");
    client.leave();
    other.leave();
}

/// Pictures get lost and nothing repairs them: Kurento is asked for repeats for seconds, then only a new subscription helps.
#[test]
fn a_loss_that_nothing_repairs() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = watch(&server, &[]);
    client.sees(7);
    let me = client.connection_id();
    server.shared.script.lose_pictures.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(400));
    server.shared.script.lose_pictures.store(false, Ordering::Relaxed);
    let lost = Instant::now();
    wait("a new transport", SOON, || server.requests(&me, "reconnectStream").first().cloned());
    let after = lost.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(10)).contains(&after), "{after:?}");
    client.sees(7);
    assert_eq!(server.requests(&me, "reconnectStream").len(), 1);
    client.leave();
}

/// A tile that was hidden is not decoded; shown again, it needs a key frame, for which asking is no use.
#[test]
fn a_tile_that_is_shown_again() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = watch(&server, &[]);
    let stream_id = client.sees(7)["stream_id"].clone();
    let me = client.connection_id();
    client.tell(&json!({"do": "tile", "stream_id": stream_id, "size": "0x0"}));
    std::thread::sleep(Duration::from_secs(3));
    assert!(server.requests(&me, "reconnectStream").is_empty(), "nobody looks");
    let before = client.frames_read(7);
    client.tell(&json!({"do": "tile", "stream_id": stream_id, "size": "320x180"}));
    let shown = Instant::now();
    wait("the picture", SOON, || (client.frames_read(7) > before).then_some(()));
    assert!(shown.elapsed() < Duration::from_millis(1_500), "{:?}", shown.elapsed());
    assert_eq!(server.requests(&me, "reconnectStream").len(), 1);
    client.leave();
}

/// The socket breaks and the media do not: nothing is renegotiated, and nobody notices.
#[test]
fn a_socket_that_breaks_while_media_flow() {
    let server = Server::start(Script::default(), SECRET);
    server.add("Bob", Some(Person::new(7)), json!({}));
    let mut client = join(&server, "Ada", 3, &[]);
    client.sees(7);
    client.stream_id();
    let me = client.connection_id();
    server.pull_cables();
    client.named("reconnected");
    let resumed = server.log().into_iter().find(|e| e.what["method"] == "connect").expect("a resume");
    assert_eq!(resumed.what["params"]["reconnect"], true);
    // A mute that follows arrives over the new socket.
    client.tell(&json!({"do": "mute", "audio": true}));
    wait("the mute", SOON, || server.requests(&me, "streamPropertyChanged").pop());
    client.tell(&json!({"do": "mute", "audio": false}));
    server.change("Bob", "audioActive", &json!(false), "publishAudio");
    client.event("a notification", |e| e["event"] == "streamPropertyChanged" && e["property"] == "audioActive");
    server.change("Bob", "audioActive", &json!(true), "publishAudio");
    client.sees(7);
    assert_eq!((client.connection_id(), server.requests(&me, "reconnectStream").len()), (me.clone(), 0));
    let judgement = judge(&server.leg(&me, &me).other.packets.lock().unwrap().clone());
    assert_eq!((judgement.key_frames, judgement.unreadable), (1, 0), "{judgement:?}");
    assert_eq!(client.leave().report["connection"]["reconnects"], 1);
}

/// The way of our stream breaks, and the server does not know the stream any more: it is published anew, not given up.
#[test]
fn a_stream_that_the_server_forgot_is_published_anew() {
    let server = Server::start(Script::default(), SECRET);
    let client = join(&server, "Ada", 3, &[]);
    let first = client.stream_id();
    let me = client.connection_id();
    server.forget(&me);
    wait("the old stream is asked for", Duration::from_secs(40), || {
        server.requests(&me, "reconnectStream").iter().any(|r| r["params"]["stream"] == first.as_str()).then_some(())
    });
    wait("the stream is published anew", SOON, || (server.requests(&me, "publishVideo").len() == 2).then_some(()));
    let judgement = wait("the picture", SOON, || {
        let packets = server.leg(&me, &me).other.packets.lock().unwrap().clone();
        Some(judge(&packets)).filter(|j| j.frames > 30)
    });
    assert_eq!((judgement.ids.len(), judgement.ids.first()), (1, Some(&3)), "{judgement:?}");
    let end = client.leave();
    assert_eq!(end.report["error"], Value::Null);
}

/// A media server that restarts takes a while until it takes streams again; until then it refuses them in one way or another.
#[test]
fn a_media_server_that_restarts_gets_our_stream_again() {
    let server = Server::start(Script::default(), SECRET);
    let client = join(&server, "Ada", 3, &[]);
    client.stream_id();
    let me = client.connection_id();
    let until = Instant::now() + Duration::from_secs(3);
    *server.shared.script.restarting.lock().unwrap() = Some((until, vec![102, 204, 303, -1]));
    server.unpublish(&me, "mediaServerReconnect");
    let told = Instant::now();
    wait("the first try", SOON, || (server.requests(&me, "publishVideo").len() == 2).then_some(()));
    assert!(told.elapsed() >= Duration::from_millis(900), "after {:?}", told.elapsed());
    wait("the stream", SOON, || (client.count("published") == 2).then_some(()));
    let tries = server.requests(&me, "publishVideo").len();
    assert!((4..=6).contains(&tries), "{tries} tries");
    assert_eq!(client.count("error"), 0);
    client.leave();
}
