//! `tertulia bench`: figures that are measured inside one run.

mod audio;
mod calls;
mod client;
mod screen;
mod tree;
mod windows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{BenchArgs, Common};
use super::{Failure, common, demo};
use crate::call::process::ProcessMeter;
use crate::call::report::write_json;
use crate::call::{CallHandle, start};
use crate::host::sfu::bench::{BenchOptions, run as forward, run_memory};
use crate::media::video::source::VideoMode;

/// Benches that have a name already and nothing else.
const LATER: [&str; 2] = ["ui", "broadcast"];
/// The others.
const THERE_ARE: &str = "sfu, join, latency, network, audio, client, screen, start, tiles";
/// Joins of `bench join` (F4).
const JOINS: usize = 20;
/// A join that takes longer has failed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Length of the forwarding run (F5).
const FORWARDING: Duration = Duration::from_secs(10);
/// Viewers of the forwarding run (F5) and of the big one (F26).
const VIEWERS: [usize; 2] = [10, 100];

pub(super) fn run(global: &Common, args: &BenchArgs, started: Instant) -> Result<(), Failure> {
    let figures = match args.what.as_str() {
        "sfu" => sfu()?,
        "join" => common::runtime()?.block_on(join(global, started))?,
        "latency" => common::runtime()?.block_on(calls::latency(global, started))?,
        "network" => common::runtime()?.block_on(calls::network(global, started))?,
        "audio" => audio::audio(global, started)?,
        "client" => common::runtime()?.block_on(client::client(global, started))?,
        "screen" => common::runtime()?.block_on(screen::run(global, started))?,
        "start" => windows::start()?,
        "tiles" => windows::tiles(global, started)?,
        other if LATER.contains(&other) => {
            return Err(Failure::Failed(format!("bench {other} comes with a later version; there are: {THERE_ARE}")));
        }
        other => return Err(Failure::Usage(format!("there is no bench {other:?}; there are: {THERE_ARE}"))),
    };
    let figures = json!({"schema": 1, "version": env!("CARGO_PKG_VERSION"), "bench": args.what, "machine": machine(), "figures": figures});
    common::say(&serde_json::to_string_pretty(&figures).map_err(Failure::failed)?)?;
    if let Some(path) = &args.json {
        write_json(path, &figures).map_err(|e| Failure::Failed(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

/// Processor, cores and load: a figure without them says nothing.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map_or("unknown processor", |l| l.trim_start_matches(['\t', ' ', ':']));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores, load {}", load.split(' ').next().unwrap_or("unknown"))
}

fn sfu() -> Result<Value, Failure> {
    let mut runs = Vec::new();
    for viewers in VIEWERS {
        let report = forward(&BenchOptions { viewers, duration: FORWARDING, aes_cm: true }).map_err(Failure::failed)?;
        runs.push(serde_json::to_value(report).map_err(Failure::failed)?);
    }
    let memory = run_memory().map_err(Failure::failed)?;
    Ok(json!({"forwarding": runs, "memory": memory}))
}

/// From `joined` to the first remote picture, over and over into a running room.
async fn join(global: &Common, started: Instant) -> Result<Value, Failure> {
    let mode = VideoMode { width: 640, height: 360, fps: 30 };
    let demo = demo::begin(global, 1, mode, started, None)?;
    let invitation = demo.host.create_room("demo").map_err(|e| Failure::host(&e))?.to_string();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let mut times_ms = Vec::new();
    for number in 0..JOINS {
        // People do not come right after one another: soon after a key frame, and long after it.
        tokio::time::sleep(Duration::from_millis(100 + (number as u64 * 370) % 1_500)).await;
        let joiner = u32::try_from(number).unwrap_or(0) + 2;
        let config = demo::participant(&invitation, joiner, mode, Instant::now(), &decoders, &meter)?;
        let call = start(config);
        let took_ms = first_picture(&call).await;
        drop(common::leave(&[call], JOIN_TIMEOUT).await);
        times_ms.push(
            took_ms.ok_or_else(|| Failure::Failed(format!("join {number} saw no picture within {JOIN_TIMEOUT:?}")))?,
        );
    }
    drop(common::leave(&demo.calls, JOIN_TIMEOUT).await);
    demo.host.shutdown();
    let mut sorted = times_ms.clone();
    sorted.sort_unstable();
    let at = |share: f64| sorted.get(((sorted.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    Ok(json!({"joins": times_ms.len(), "p50_ms": at(0.5), "p95_ms": at(0.95), "samples_ms": times_ms}))
}

async fn first_picture(call: &CallHandle) -> Option<u64> {
    let end = Instant::now() + JOIN_TIMEOUT;
    while Instant::now() < end {
        let timeline = call.report().await?.timeline_ms;
        if let (Some(joined), Some(seen)) = (timeline.joined, timeline.first_remote_frame) {
            return Some(seen.saturating_sub(joined));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}
