//! `tertulia doctor`: devices, network and a server, each with what to do about it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::DoctorArgs;
use super::{Failure, common};
use crate::media::audio;
use crate::media::video::codec::{Content, EncoderSettings, VideoCodec, new_decoder, new_encoder};
use crate::media::video::device;
use crate::signaling::openvidu::rest::probe;
use crate::signaling::target::{Target, TokenSource};
use crate::signaling::tls::Trust;

/// Longest wait for a server, in ms.
const SERVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the drivers of one kind of device.
const DRIVER_TIMEOUT: Duration = Duration::from_secs(10);
const NO_ANSWER: &str = "the driver does not answer";

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    found: String,
    remedy: Option<String>,
}

impl Check {
    fn fine(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), remedy: None }
    }

    fn bad(name: &'static str, found: impl Into<String>, remedy: &str) -> Self {
        Self { name, ok: false, found: found.into(), remedy: Some(remedy.to_owned()) }
    }
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let mut checks = vec![cameras()];
    checks.extend(sound());
    checks.extend(VideoCodec::BUILT.iter().copied().map(codec));
    checks.push(network());
    if let Some(server) = &args.server {
        checks.push(common::runtime()?.block_on(reach(server)));
    }
    // A machine without a camera is no failure; a server that was asked for and cannot be reached is.
    let failed = checks.iter().find(|c| !c.ok && matches!(c.name, "server" | "network" | "VP8" | "H264"));
    if args.json {
        // In all what the exit code says; each check has its own.
        let ok = failed.is_none();
        let text = serde_json::to_string_pretty(
            &serde_json::json!({"schema": 1, "version": env!("CARGO_PKG_VERSION"), "ok": ok, "checks": checks}),
        );
        common::say(&text.map_err(Failure::failed)?)?;
    } else {
        for check in &checks {
            common::say(&format!("{} {:<12} {}", if check.ok { "ok " } else { "-- " }, check.name, check.found))?;
            if let Some(remedy) = &check.remedy {
                common::say(&format!("    {:<12} {remedy}", ""))?;
            }
        }
    }
    match failed {
        None => Ok(()),
        Some(check) => Err(Failure::Failed(format!(
            "{}: {}; {}",
            check.name,
            check.found,
            check.remedy.as_deref().unwrap_or("see above")
        ))),
    }
}

fn cameras() -> Check {
    let Some(found) = common::within(DRIVER_TIMEOUT, device::list_cameras) else {
        return Check::bad("camera", NO_ANSWER, "unplug the camera and plug it in again, or restart the computer");
    };
    let found: Vec<String> = found.into_iter().map(|c| format!("{} ({:?})", c.name, c.state).to_lowercase()).collect();
    if found.is_empty() {
        Check::bad("camera", "none", "plug one in, or join without video")
    } else {
        Check::fine("camera", found.join(", "))
    }
}

fn sound() -> [Check; 2] {
    let Some(devices) = common::within(DRIVER_TIMEOUT, audio::list_devices) else {
        let hangs = |name| Check::bad(name, NO_ANSWER, "restart the sound system or the computer");
        return [hangs("microphone"), hangs("speaker")];
    };
    let names = |list: &[audio::AudioDevice]| list.iter().map(|d| d.name.clone()).collect::<Vec<_>>().join(", ");
    let check = |name, list: &[audio::AudioDevice], remedy| {
        if list.is_empty() { Check::bad(name, "none", remedy) } else { Check::fine(name, names(list)) }
    };
    [
        check("microphone", &devices.microphones, "plug one in, or listen and chat only"),
        check("speaker", &devices.speakers, "plug one in, or you will hear nothing"),
    ]
}

fn codec(codec: VideoCodec) -> Check {
    let settings = EncoderSettings { width: 640, height: 360, fps: 30, bitrate_bps: 500_000, content: Content::Camera };
    match new_encoder(codec, settings).and_then(|_| new_decoder(codec)) {
        Ok(_) => Check::fine(codec.name(), "encodes and decodes"),
        Err(error) => Check::bad(codec.name(), error.to_string(), "reinstall the program"),
    }
}

fn network() -> Check {
    let addresses: Vec<String> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .filter(|i| !i.is_loopback() && !i.is_link_local())
        .map(|i| i.ip().to_string())
        .collect();
    if addresses.is_empty() {
        // Calls on this computer work all the same.
        return Check::fine("network", "loopback only");
    }
    match std::net::UdpSocket::bind("0.0.0.0:0") {
        Ok(_) => Check::fine("network", addresses.join(", ")),
        Err(error) => Check::bad("network", error.to_string(), "allow this program to use UDP"),
    }
}

async fn reach(server: &str) -> Check {
    let started = Instant::now();
    let Ok(url) = url::Url::parse(server) else {
        return Check::bad("server", "no address", "write it as https://host:port");
    };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Check::bad("server", "no host", "write it as https://host:port");
    };
    let connected =
        tokio::time::timeout(SERVER_TIMEOUT, tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), port)))
            .await;
    match connected {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => {
            let remedy = "check the address and whether the server runs";
            return Check::bad("server", format!("{host}:{port}: {error}"), remedy);
        }
        Err(_) => {
            let remedy = "ask whether a firewall blocks the port";
            return Check::bad("server", format!("{host}:{port} does not answer"), remedy);
        }
    }
    let reached_ms = started.elapsed().as_millis();
    let source = TokenSource::Application { base: server.to_owned(), session: String::new() };
    match probe(&Target { source, trust: Trust::System }, server).await {
        Ok(()) => Check::fine(
            "server",
            format!(
                "{host}:{port} answers after {reached_ms} ms, its OpenVidu after {} ms",
                started.elapsed().as_millis()
            ),
        ),
        Err(error) => Check::bad("server", format!("{host}:{port} is reached, but {error}"), error.remedy()),
    }
}
