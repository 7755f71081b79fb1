//! `bench latency` and `bench network`: two participants of one room in this process, real sockets and codecs, and a leg that
//! is as bad as the scenario says. What the second one receives is the figure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::args::Common;
use super::super::{Failure, common, demo};
use crate::call::process::ProcessMeter;
use crate::call::report::Report;
use crate::call::start;
use crate::media::video::source::VideoMode;
use crate::wire::netsim::Impairments;

/// A scenario, after the rows of the list of figures.
struct Scenario {
    row: &'static str,
    /// Which leg is bad: the publisher's or the viewer's.
    publisher: bool,
    network: &'static str,
    mode: VideoMode,
    seconds: u64,
}

const HD: VideoMode = VideoMode { width: 1280, height: 720, fps: 30 };
const SMALL: VideoMode = VideoMode { width: 640, height: 360, fps: 30 };

/// One lossy leg (F13 to F15), jitter (F16), narrow links with a long queue (F17's capacities, one by one).
const NETWORK: [Scenario; 11] = [
    Scenario { row: "F13", publisher: false, network: "loss=5,delay=45", mode: SMALL, seconds: MINUTE },
    Scenario { row: "F13", publisher: true, network: "loss=5,delay=45", mode: SMALL, seconds: MINUTE },
    Scenario { row: "F14", publisher: false, network: "loss=10,burst=3,delay=30", mode: SMALL, seconds: MINUTE },
    Scenario { row: "F14", publisher: true, network: "loss=10,burst=3,delay=30", mode: SMALL, seconds: MINUTE },
    Scenario { row: "F15", publisher: false, network: "loss=30,delay=20", mode: SMALL, seconds: SHORT },
    Scenario { row: "F15", publisher: true, network: "loss=30,delay=20", mode: SMALL, seconds: SHORT },
    Scenario { row: "F16", publisher: false, network: "delay=50,jitter=30", mode: SMALL, seconds: SHORT },
    Scenario { row: "F16", publisher: false, network: "delay=100,jitter=100", mode: SMALL, seconds: SHORT },
    Scenario {
        row: "F17",
        publisher: true,
        network: "up:rate=2500,queue=300,delay=50,down:delay=50",
        mode: HD,
        seconds: SHORT,
    },
    Scenario {
        row: "F17",
        publisher: true,
        network: "up:rate=1000,queue=300,delay=50,down:delay=50",
        mode: HD,
        seconds: SHORT,
    },
    Scenario {
        row: "F17",
        publisher: true,
        network: "up:rate=600,queue=300,delay=50,down:delay=50",
        mode: HD,
        seconds: SHORT,
    },
];

/// Length of a scenario in s; where freezes a minute are asked for, it is a minute.
const SHORT: u64 = 25;
const MINUTE: u64 = 60;
/// Patience with a participant that leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// From the camera's picture to a picture ready to be shown, 720p30 over a clean link (F8, F10).
pub(super) async fn latency(global: &Common, started: Instant) -> Result<Value, Failure> {
    let clean = Scenario { row: "F8", publisher: true, network: "", mode: HD, seconds: SHORT };
    run(global, &clean, started).await
}

/// Every scenario, one after the other.
pub(super) async fn network(global: &Common, started: Instant) -> Result<Value, Failure> {
    let mut results = Vec::new();
    for scenario in &NETWORK {
        common::remark(&format!("{}: {} ({} s)", scenario.row, scenario.network, scenario.seconds));
        results.push(run(global, scenario, started).await?);
    }
    Ok(Value::Array(results))
}

async fn run(global: &Common, scenario: &Scenario, started: Instant) -> Result<Value, Failure> {
    let demo = demo::begin(global, 0, scenario.mode, started, None)?;
    let invitation = demo.host.create_room("bench").map_err(|e| Failure::host(&e))?.to_string();
    let impairments: Option<Impairments> = match scenario.network {
        "" => None,
        spec => Some(spec.parse().map_err(Failure::failed)?),
    };
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let mut calls = Vec::new();
    for number in 1..=2u32 {
        let mut config = demo::participant(&invitation, number, scenario.mode, Instant::now(), &decoders, &meter)?;
        if (number == 1) == scenario.publisher {
            config.impairments = impairments;
        }
        config.media.subscribe_only = number == 2;
        calls.push(start(config));
    }
    tokio::time::sleep(Duration::from_secs(scenario.seconds)).await;
    let mut reports = Vec::new();
    for call in &calls {
        reports.push(call.report().await);
    }
    drop(common::leave(&calls, LEAVE_TIMEOUT).await);
    demo.host.shutdown();
    let mut reports = reports.into_iter().flatten();
    let (Some(publisher), Some(viewer)) = (reports.next(), reports.next()) else {
        return Err(Failure::Failed("a participant ended during the measurement".to_owned()));
    };
    Ok(figures(scenario, &publisher, &viewer))
}

fn figures(scenario: &Scenario, publisher: &Report, viewer: &Report) -> Value {
    let sent = publisher.streams.iter().find(|s| s.direction == "send").and_then(|s| s.video.as_ref());
    let stream = viewer.streams.iter().find(|s| s.direction == "recv");
    let video = stream.and_then(|s| s.video.as_ref());
    let audio = stream.and_then(|s| s.audio.as_ref());
    let pattern = video.and_then(|v| v.pattern.as_ref());
    json!({
        "row": scenario.row,
        "leg": if scenario.publisher { "publisher" } else { "viewer" },
        "network": scenario.network,
        "size": format!("{}x{}", scenario.mode.width, scenario.mode.height),
        "seconds": scenario.seconds,
        "fps": video.and_then(|v| v.fps),
        "freezes": video.and_then(|v| v.freezes),
        "freeze_ms": video.and_then(|v| v.freeze_ms),
        "crc_errors": pattern.map(|p| p.crc_errors),
        "latency_ms_p50": pattern.and_then(|p| p.latency_ms_p50),
        "latency_ms_p95": pattern.and_then(|p| p.latency_ms_p95),
        "time_to_720p_ms": video.and_then(|v| v.time_to_720p_ms),
        "sent_bps": sent.and_then(|v| v.bitrate_bps),
        "target_bitrate_bps": sent.and_then(|v| v.target_bitrate_bps),
        "audio_concealed_ms": audio.and_then(|a| a.concealed_ms),
        "audio_playout_delay_ms": audio.and_then(|a| a.playout_delay_ms),
        "tone_hz": audio.and_then(|a| a.tone_hz),
    })
}
