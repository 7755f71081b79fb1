//! Participants cut from their WebSocket: a short cut keeps place and media, a long one leads to a rejoin, a raw token ends by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod e2e_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e_support::{Host, Participant, Proxy, SOON, assert_failed, live, streams_of, token_at, wait};
use serde_json::Value;
use tertulia::call::config::{CallConfig, MediaChoice, VideoInput};
use tertulia::call::process::ProcessMeter;
use tertulia::call::{CallHandle, Command, start};
use tertulia::lan::invitation::Invitation;
use tertulia::media::audio::{MicrophoneSource, Processing, SpeakerSink};
use tertulia::media::video::decoder::DecoderPool;
use tertulia::protocol::Secret;
use tertulia::rtp::frame::VideoCodec;
use tertulia::signaling::target::{Target, TokenSource};
use tertulia::signaling::tls::Trust;

const ROOM: &str = "cut";
const BY_INVITATION: u8 = 1;
const OVER_REST: u8 = 2;
const WATCHER: u8 = 3;
const RAW: u8 = 4;
const PRESENTER: u8 = 5;
const SCREEN: u8 = 9;

/// Two participants whose signaling goes through the proxy; media goes straight to the host.
fn behind(proxy: &Proxy, host: &Host) -> (Participant, Participant) {
    let invitation = host.invitation_through(proxy.addr);
    let base = format!("http://{}", proxy.addr);
    let invited = Participant::join("invited", BY_INVITATION, &invitation, &[]);
    let rest = Participant::join("rest", OVER_REST, &base, &Participant::secret_options(ROOM));
    (invited, rest)
}

/// No close and no error, as when a laptop changes from one network to another: the host goes on writing to the dead socket.
#[test]
fn what_happens_while_a_line_is_silent_is_told_on_return() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let proxy = Proxy::to(host.addr());
    let mut here = Participant::join("here", WATCHER, &host.invitation(), &[]);
    let mut away = Participant::join("away", BY_INVITATION, &host.invitation_through(proxy.addr), &[]);
    let id = away.connection_id();
    away.sees(WATCHER);
    here.sees(BY_INVITATION);

    proxy.go_silent();
    let silent_at = Instant::now();
    here.tell(&serde_json::json!({"do": "mute", "audio": true}));
    here.tell(&serde_json::json!({"do": "signal", "type": "chat", "data": "while you are away"}));
    let newcomer = Participant::join("newcomer", PRESENTER, &host.invitation(), &[]);
    newcomer.stream_id();
    std::thread::sleep(Duration::from_secs(8).saturating_sub(silent_at.elapsed()));
    assert_eq!(away.count("signal"), 0, "the line is not silent");
    proxy.mend();

    away.named("reconnected");
    away.event("the message", |e| e["event"] == "signal" && e["data"] == "while you are away");
    away.event("the mute", |e| {
        e["event"] == "streamPropertyChanged" && e["property"] == "audioActive" && e["value"] == false
    });
    away.sees(PRESENTER);
    assert_eq!((away.connection_id(), away.count("rejoining")), (id, 0));
    assert_eq!((away.count("signal"), away.count("streamCreated")), (1, 2), "{:#?}", away.events());
    for participant in [here, away, newcomer] {
        participant.leave();
    }
}

#[test]
fn a_cut_of_four_seconds_keeps_connection_id_and_media() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let proxy = Proxy::to(host.addr());
    let (mut invited, mut rest) = behind(&proxy, &host);
    let mut watcher = Participant::join("watcher", WATCHER, &host.invitation(), &[]);
    let ids = [invited.connection_id(), rest.connection_id()];
    watcher.sees(BY_INVITATION);
    watcher.sees(OVER_REST);
    invited.sees(WATCHER);
    rest.sees(WATCHER);

    proxy.cut();
    let cut_at = Instant::now();
    invited.named("reconnecting");
    rest.named("reconnecting");
    // Media does not pass through the proxy, and goes on in both directions while the socket is away.
    let mut counted = |watcher: &mut Participant| {
        [
            watcher.frames_read(BY_INVITATION),
            watcher.frames_read(OVER_REST),
            invited.frames_read(WATCHER),
            rest.frames_read(WATCHER),
        ]
    };
    let before = counted(&mut watcher);
    std::thread::sleep(Duration::from_secs(4).saturating_sub(cut_at.elapsed()));
    let after = counted(&mut watcher);
    for (before, after) in before.iter().zip(after) {
        assert!(after > before + 10, "frames stop during the cut: {before} {after}");
    }
    assert_eq!((invited.count("reconnected"), rest.count("reconnected")), (0, 0), "still cut");
    proxy.mend();

    for participant in [&invited, &rest] {
        let back = participant.named("reconnected");
        let took_ms = back["took_ms"].as_u64().expect("how long it took");
        assert!((3_500..12_000).contains(&took_ms), "{took_ms}");
    }
    invited.sees(WATCHER);
    watcher.sees(BY_INVITATION);
    watcher.sees(OVER_REST);
    let watched = watcher.leave();
    for (participant, id) in [(invited, &ids[0]), (rest, &ids[1])] {
        let end = participant.leave();
        assert_eq!(end.report["session"]["connection_id"], *id);
        assert_eq!(end.report["connection"]["reconnects"], 1);
        assert_eq!(end.report["connection"]["reconnect_ms"].as_array().unwrap().len(), 1);
        let names: Vec<&str> =
            end.report["events"].as_array().unwrap().iter().filter_map(|e| e["event"].as_str()).collect();
        assert!(names.contains(&"reconnecting") && names.contains(&"reconnected"), "{names:?}");
        assert!(!names.contains(&"rejoining") && !names.contains(&"mediaReconnecting"), "{names:?}");
        let seen = streams_of(&end.report, WATCHER);
        assert_eq!(seen.len(), 1, "one stream from beginning to end");
        assert_eq!(seen[0]["video"]["pattern"]["crc_errors"], 0);
    }
    let gone: Vec<&Value> = watched.events.iter().filter(|e| e["event"] == "connectionDestroyed").collect();
    assert!(gone.is_empty(), "the others noticed: {gone:?}");
}

/// A participant inside the test, whose view can be looked at.
fn observer(host: &Host) -> CallHandle {
    let invitation = Invitation::parse(&host.invitation()).unwrap();
    let source = TokenSource::RoomKey {
        base: invitation.base_url(),
        room: invitation.room.clone(),
        key: Secret::new(invitation.key),
        role: None,
    };
    let started = Instant::now();
    start(CallConfig {
        target: Target { source, trust: Trust::System },
        name: "observer".to_owned(),
        device_key: "00000000-0000-4000-8000-000000000001".to_owned(),
        command: "join",
        started,
        media: MediaChoice {
            video: VideoInput::None,
            microphone: MicrophoneSource::None,
            speaker: SpeakerSink::Null,
            processing: Processing::Off,
            codecs: vec![VideoCodec::Vp8],
            audio_muted: false,
            video_muted: false,
            subscribe_only: true,
            publish_only: false,
            screen: None,
            default_tone_hz: 440.0,
            screen_sound: false,
            tuning: tertulia::media::video::source::Tuning::Auto,
            sync_clicks: false,
        },
        impairments: None,
        report_names: true,
        decoders: DecoderPool::new().unwrap(),
        meter: Arc::new(ProcessMeter::new(started)),
        repaint: None,
    })
}

/// Tile key, person's key, gain and pin of whoever has this name, once there are pictures.
fn tile_of(call: &CallHandle, name: &str) -> Option<(String, String, f32, bool)> {
    let view = call.view();
    let tile = view.tiles.iter().find(|t| !t.own && t.name == name && t.frames.latest().is_some())?;
    let person = view.people.iter().find(|p| p.key == tile.person)?;
    Some((tile.key.clone(), person.key.clone(), person.gain, tile.pinned))
}

#[test]
fn after_fifteen_seconds_it_joins_again_and_keeps_its_tile() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let proxy = Proxy::to(host.addr());
    let (mut invited, mut rest) = behind(&proxy, &host);
    // Somebody with a screen beside the camera: it is on a connection of its own, and cut off like the rest.
    let screen = format!("pattern:{SCREEN}:320x180@10");
    let presenter =
        Participant::join("presenter", PRESENTER, &host.invitation_through(proxy.addr), &["--screen", &screen]);
    presenter.named("shareStarted");
    let token = token_at(proxy.addr, ROOM, "PUBLISHER");
    assert!(token.contains(&proxy.addr.to_string()), "it leads back the way it was asked for: {token}");
    let mut raw = Participant::join("raw", RAW, &token, &[]);
    let mut watcher = Participant::join("watcher", WATCHER, &host.invitation(), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let observer = {
        let _inside = runtime.enter();
        observer(&host)
    };
    let ids = [invited.connection_id(), rest.connection_id()];
    for id in [BY_INVITATION, OVER_REST, RAW] {
        watcher.sees(id);
    }
    raw.sees(WATCHER);
    watcher.sees(SCREEN);
    let before = ["invited", "rest"].map(|name| wait("its tile", SOON, || tile_of(&observer, name)));
    // What the user set for a person belongs to the person, not to the connection.
    for (_, person, ..) in &before {
        observer.send(Command::Volume { person: person.clone(), gain: 0.5 }).unwrap();
        observer.send(Command::Pin { person: person.clone(), pinned: true }).unwrap();
    }

    proxy.cut();
    std::thread::sleep(Duration::from_secs(15));
    for id in &ids {
        let gone =
            watcher.event("the departure", |e| e["event"] == "connectionDestroyed" && e["connection_id"] == **id);
        assert_eq!(gone["reason"], "networkDisconnect");
    }
    proxy.mend();

    for (participant, old) in [(&invited, &ids[0]), (&rest, &ids[1])] {
        participant.named("reconnecting");
        // The server has forgotten us: it says so, or it lets us resume a place that is gone.
        let why = participant.named("rejoining")["reason"].clone();
        assert!(why == "expired" || why == "participantGone", "{why}");
        let back = participant.named("rejoined");
        let new = back["connection_id"].as_str().unwrap();
        assert_ne!(new, old, "a new connection");
        watcher.event("its return", |e| e["event"] == "connectionCreated" && e["connection_id"] == new);
    }
    for id in [BY_INVITATION, OVER_REST, PRESENTER, SCREEN] {
        watcher.sees(id);
    }
    invited.sees(WATCHER);
    invited.sees(OVER_REST);
    rest.sees(WATCHER);
    rest.sees(BY_INVITATION);
    for (name, (tile, person, ..)) in ["invited", "rest"].iter().zip(&before) {
        let now = wait("its tile again", SOON, || tile_of(&observer, name));
        assert_eq!((&now.0, &now.1, now.2, now.3), (tile, person, 0.5, true), "{name}");
    }

    // A raw token is used up: nobody can give another.
    let end = raw.end();
    assert_failed(&end, &["connection was lost", "one visit", "ask for a new invitation"]);
    assert!(end.events.iter().any(|e| e["event"] == "reconnecting"));
    assert!(end.events.iter().any(|e| e["event"] == "sessionDisconnected" && e["reason"] == "networkDisconnect"));
    assert_eq!(end.report["connection"]["state"], "failed");
    let seen = live(&end.report, WATCHER).expect("what it saw is in the report of a failed call, too");
    assert!(seen["video"]["frames"].as_u64().unwrap() > 0);

    runtime.block_on(async {
        observer.send(Command::Leave).unwrap();
        tokio::time::timeout(SOON, observer.finished()).await.unwrap();
    });
    for participant in [invited, rest] {
        let end = participant.leave();
        assert_eq!(end.report["connection"]["reconnects"], 1);
        let names: Vec<&str> =
            end.report["events"].as_array().unwrap().iter().filter_map(|e| e["event"].as_str()).collect();
        assert!(names.contains(&"rejoining") && names.contains(&"rejoined"), "{names:?}");
        assert_eq!(
            end.report["session"]["connection_id"],
            end.events.iter().rev().find(|e| e["event"] == "rejoined").unwrap()["connection_id"]
        );
    }
    assert_eq!(presenter.count("shareStopped"), 0, "the screen came back by itself");
    presenter.leave();
    watcher.leave();
}

/// Whoever hosts may lose power; with the host everything it knew of the call is gone.
#[test]
fn a_host_that_is_killed_gets_everybody_back_when_it_returns() {
    let host = Host::start(ROOM, &["--no-tls"]);
    let (mut invited, mut watcher) = (
        Participant::join("invited", BY_INVITATION, &host.invitation(), &[]),
        Participant::join("watcher", WATCHER, &host.invitation(), &[]),
    );
    watcher.sees(BY_INVITATION);
    invited.sees(WATCHER);
    let ids = [invited.connection_id(), watcher.connection_id()];
    let host = host.killed_for(Duration::from_secs(3), ROOM, &["--no-tls"]);
    let returned = Instant::now();
    for (participant, old) in [(&invited, &ids[0]), (&watcher, &ids[1])] {
        participant.named("reconnecting");
        let back = participant.named("rejoined");
        assert_ne!(back["connection_id"], **old, "a new host knows no old connection");
        println!("{} is back {:?} after the host", participant.name, returned.elapsed());
    }
    watcher.sees(BY_INVITATION);
    invited.sees(WATCHER);
    for participant in [invited, watcher] {
        let end = participant.leave();
        assert_eq!(end.report["connection"]["reconnects"], 1);
        assert!(end.report["connection"]["reconnect_ms"][0].as_u64().is_some_and(|took| took >= 3_000));
    }
    host.stop();
}
