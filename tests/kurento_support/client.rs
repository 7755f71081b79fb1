//! The program as it joins the scripted server, and what the server has got of it.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ROOM, Server};
use crate::e2e_support::Participant;

/// Joins over REST with the pattern at 320×180, 30 pictures a second.
pub fn join(server: &Server, name: &str, id: u8, more: &[&str]) -> Participant {
    let camera = format!("pattern:{id}:320x180@30");
    let rest = Participant::secret_options(ROOM);
    Participant::join(
        name,
        id,
        &server.url(),
        &[&rest[..], &["--camera", &camera, "--microphone", "tone"], more].concat(),
    )
}

pub fn watch(server: &Server, more: &[&str]) -> Participant {
    let rest = Participant::secret_options(ROOM);
    Participant::join_with("watcher", &server.url(), &[&rest[..], more].concat(), |_| {})
}

pub fn sent(report: &Value) -> &Value {
    report["streams"].as_array().unwrap().iter().find(|s| s["direction"] == "send").expect("an own stream")
}

pub fn requested(server: &Server, who: &str) -> Vec<String> {
    let log = server.log().into_iter().filter(|e| e.from_client && e.who == who);
    log.filter_map(|e| Some(e.what["method"].as_str()?.to_owned())).collect()
}

/// Bits a second that the server gets of a client's pictures.
pub fn published_bps(server: &Server, who: &str, over: Duration) -> f64 {
    let leg = server.leg(who, who);
    let bytes = || {
        let packets = leg.other.packets.lock().unwrap();
        let video = packets.iter().filter(|(k, _)| *k == rtc::rtp_transceiver::rtp_sender::RtpCodecKind::Video);
        video.map(|(_, p)| p.payload.len()).sum::<usize>()
    };
    let (before, since) = (bytes(), Instant::now());
    std::thread::sleep(over);
    (bytes() - before) as f64 * 8.0 / since.elapsed().as_secs_f64()
}
