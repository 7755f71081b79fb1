//! `bench audio`: echo (F18), drifting devices (F19), and mouth to ear through virtual devices (F9).

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::call::process::ProcessMeter;
use crate::call::{VideoInput, start};
use crate::cli::args::Common;
use crate::cli::{Failure, common, demo};
use crate::media::audio::bench::mouth_to_ear::{Ear, Mouth};
use crate::media::audio::bench::{drift, echo};
use crate::media::audio::{MicrophoneSource, Processing, SpeakerSink, Stages, list_devices};
use crate::media::video::source::VideoMode;

/// How long the drifting devices run, in virtual time.
const DRIFT_LENGTH: Duration = Duration::from_secs(600);
/// Speakers that stand in for what the microphone hears and for what the listener hears.
const DEVICES: [&str; 2] = ["tertulia-mouth", "tertulia-ear"];
/// Before chirps count: devices open, the delay settles.
const WARM_UP: Duration = Duration::from_secs(6);
/// How long they are listened to.
const LISTEN: Duration = Duration::from_secs(20);
/// Networks of the two rows: a LAN, and 50 ms one way with 30 ms of jitter, on the speaker's leg.
const NETWORKS: [(&str, u32); 2] = [("", 90), ("delay=50,up:jitter=30", 180)];
/// Patience with a participant that leaves.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything about sound that is measured inside one run.
pub(super) fn audio(global: &Common, started: Instant) -> Result<Value, Failure> {
    common::remark("F18: echo");
    let all = echo(Stages::default()).map_err(Failure::failed)?;
    let plain = echo(Stages { noise: false, gain: false, ..Stages::default() }).map_err(Failure::failed)?;
    let mut drifts = Vec::new();
    for (microphone_ppm, speaker_ppm) in [(200.0, -200.0), (-200.0, 200.0)] {
        common::remark(&format!("F19: microphone {microphone_ppm} ppm, speaker {speaker_ppm} ppm"));
        let figures = drift(microphone_ppm, speaker_ppm, DRIFT_LENGTH).map_err(Failure::failed)?;
        drifts.push(json!({
            "microphone_ppm": microphone_ppm,
            "speaker_ppm": speaker_ppm,
            "seconds": DRIFT_LENGTH.as_secs(),
            "missing_frames": figures.missing_frames,
            "rebuilt": figures.rebuilt,
            "chirps": DRIFT_LENGTH.as_secs().saturating_sub(20),
            "heard": figures.heard,
            "concealed_ms": figures.concealed_ms,
            "delay_ms_least": figures.delay_ms.0,
            "delay_ms_most": figures.delay_ms.1,
            "tone_hz": figures.tone_hz,
        }));
    }
    let rows = common::runtime()?.block_on(mouth_to_ear(global, started))?;
    Ok(json!({
        "F18": {
            "reduced_db": {"0-2 s": all.reduced_db[0], "2-5 s": all.reduced_db[1], "5-12 s": all.reduced_db[2]},
            "reduced_db_canceller_alone": plain.reduced_db[2],
            "near_end_db": all.near_end_db,
        },
        "F19": drifts,
        "F9": rows,
    }))
}

/// Nothing where the two devices are not there.
async fn mouth_to_ear(global: &Common, started: Instant) -> Result<Value, Failure> {
    let speakers = tokio::task::spawn_blocking(list_devices).await.map_err(Failure::failed)?.speakers;
    let ids: Vec<String> = DEVICES
        .iter()
        .filter_map(|name| speakers.iter().find(|d| d.id.ends_with(name)))
        .map(|d| d.id.clone())
        .collect();
    let [mouth_id, ear_id] = ids.as_slice() else {
        common::remark(&format!("F9 is left out: there are no speakers named {}", DEVICES.join(" and ")));
        return Ok(Value::Null);
    };
    let mut rows = Vec::new();
    for (network, must_ms) in NETWORKS {
        common::remark(&format!("F9: {} ({} s)", if network.is_empty() { "LAN" } else { network }, LISTEN.as_secs()));
        let Heard { delays, possible, concealed_ms } = call(global, network, mouth_id, ear_id, started).await?;
        let (p50, p95) = (median(delays.clone()), share(delays.clone(), 0.95));
        rows.push(json!({
            "network": network,
            "chirps": possible,
            "heard": delays.len(),
            "p50_ms": p50,
            "p95_ms": p95,
            "must_ms": must_ms,
            "concealed_ms": concealed_ms,
        }));
    }
    Ok(Value::Array(rows))
}

/// What an ear heard of a mouth.
struct Heard {
    /// Delay of each chirp, in ms.
    delays: Vec<f32>,
    /// Chirps there could have been.
    possible: usize,
    concealed_ms: Option<u64>,
}

/// A call of somebody who speaks and somebody who listens, both through devices.
async fn call(
    global: &Common,
    network: &str,
    mouth_id: &str,
    ear_id: &str,
    started: Instant,
) -> Result<Heard, Failure> {
    let mode = VideoMode { width: 320, height: 180, fps: 15 };
    let demo = demo::begin(global, 0, mode, started, None)?;
    let invitation = demo.host.create_room("bench").map_err(|e| Failure::host(&e))?.to_string();
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let mut calls = Vec::new();
    for number in 1..=2u32 {
        let mut config = demo::participant(&invitation, number, mode, Instant::now(), &decoders, &meter)?;
        config.media.video = VideoInput::None;
        config.media.microphone = MicrophoneSource::None;
        if number == 1 {
            config.media.microphone = MicrophoneSource::Device(Some(format!("{mouth_id}.monitor")));
            config.media.processing = Processing::Auto;
            config.impairments =
                if network.is_empty() { None } else { Some(network.parse().map_err(Failure::failed)?) };
        } else {
            config.media.speaker = SpeakerSink::Device(Some(ear_id.to_owned()));
            config.media.subscribe_only = true;
        }
        calls.push(start(config));
    }
    tokio::time::sleep(WARM_UP).await;
    let mouth = Mouth::open(mouth_id).map_err(Failure::failed)?;
    let beside = Ear::open(&format!("{mouth_id}.monitor")).map_err(Failure::failed)?;
    let ear = Ear::open(&format!("{ear_id}.monitor")).map_err(Failure::failed)?;
    tokio::time::sleep(LISTEN).await;
    let (delays, possible) = tokio::task::block_in_place(|| ear.delays_ms(&beside));
    drop(mouth);
    let mut concealed_ms = None;
    for call in &calls {
        let streams = call.report().await.map(|r| r.streams).unwrap_or_default();
        let heard = streams.into_iter().find(|s| s.direction == "recv");
        concealed_ms = heard.and_then(|s| s.audio?.concealed_ms).or(concealed_ms);
    }
    drop(common::leave(&calls, LEAVE_TIMEOUT).await);
    demo.host.shutdown();
    Ok(Heard { delays, possible, concealed_ms })
}

fn share(mut values: Vec<f32>, share: f32) -> Option<f32> {
    values.sort_by(f32::total_cmp);
    values.get((((values.len() as f32 * share).ceil()) as usize).saturating_sub(1)).copied()
}

fn median(values: Vec<f32>) -> Option<f32> {
    share(values, 0.5)
}
