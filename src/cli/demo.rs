//! `tertulia demo`: a host and several participants in this process, through the real stack.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::args::{Common, DemoArgs};
use super::picture::Picture;
use super::{Failure, common};
use crate::call::process::ProcessMeter;
use crate::call::report::Report;
use crate::call::{CallConfig, CallHandle, MediaChoice, VideoInput, start};
use crate::host::{self, HostConfig, Tls};
use crate::media::audio::source::default_tone_hz;
use crate::media::audio::{MicrophoneSource, Processing, SpeakerSink};
use crate::media::video::decoder::DecoderPool;
use crate::media::video::source::{CameraSource, PatternSource, Tuning, VideoMode};
use crate::rtp::frame::VideoCodec;

/// How long a demo without a window runs unless told otherwise.
const HEADLESS_SECONDS: f64 = 15.0;
/// More would need a bigger machine than this program is made for.
const MOST_PARTICIPANTS: u32 = 25;

/// A running demo: the host and everybody in its room.
pub(super) struct Demo {
    pub(super) host: host::Handle,
    pub(super) calls: Vec<CallHandle>,
    _folder: tempfile::TempDir,
}

impl Demo {
    /// What the first one sees. Must be called on a runtime.
    pub(super) fn picture(&self, args: &DemoArgs, seconds: Option<f64>) -> Option<Picture> {
        Some(Picture::of(self.calls.first()?, args.snapshot.as_deref(), seconds))
    }
}

pub(super) fn run(global: &Common, args: &DemoArgs, started: Instant) -> Result<(), Failure> {
    if args.participants == 0 || args.participants > MOST_PARTICIPANTS {
        return Err(Failure::Usage(format!("--participants is a number from 1 to {MOST_PARTICIPANTS}")));
    }
    let mode: VideoMode = args.size.parse().map_err(|e| Failure::Usage(format!("--size: {e}")))?;
    if !args.headless {
        return super::window::demo(global, args, mode, started);
    }
    let runtime = common::runtime()?;
    runtime.block_on(async {
        let demo = match begin(global, args.participants, mode, started, None) {
            Ok(demo) => demo,
            Err(failure) => {
                let error = failure.to_string();
                common::save_report(args.stats_json.as_deref(), &report(Some(&error), &[], None))?;
                return Err(failure);
            }
        };
        let seconds = args.seconds.unwrap_or(HEADLESS_SECONDS).max(0.0);
        let picture = demo.picture(args, Some(seconds));
        watch(&demo, seconds).await;
        finish(demo, args, picture, None).await
    })
}

/// Starts host and participants. Must be called on a runtime.
pub(super) fn begin(
    global: &Common,
    participants: u32,
    mode: VideoMode,
    started: Instant,
    repaint: Option<crate::call::Repaint>,
) -> Result<Demo, Failure> {
    let folder = tempfile::tempdir().map_err(Failure::failed)?;
    let host = host::start(HostConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        tls: Tls::SelfSigned,
        data_dir: folder.path().to_owned(),
        ..HostConfig::default()
    })
    .map_err(|e| Failure::host(&e))?;
    let invitation = host.create_room("demo").map_err(|e| Failure::host(&e))?.to_string();
    let impairments = common::impairments(global)?;
    let (decoders, meter) = (common::decoders()?, Arc::new(ProcessMeter::new(started)));
    let calls = (1..=participants)
        .map(|number| {
            let mut config = participant(&invitation, number, mode, started, &decoders, &meter)?;
            config.impairments.clone_from(&impairments);
            // The window shows the first one's view.
            config.repaint = repaint.clone().filter(|_| number == 1);
            Ok(start(config))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(Demo { host, calls, _folder: folder })
}

pub(super) fn participant(
    invitation: &str,
    number: u32,
    mode: VideoMode,
    started: Instant,
    decoders: &DecoderPool,
    meter: &Arc<ProcessMeter>,
) -> Result<CallConfig, Failure> {
    let id = u8::try_from(number).unwrap_or(u8::MAX);
    let target = common::target(invitation, None, None, "PUBLISHER", false)?;
    let media = MediaChoice {
        video: VideoInput::Camera(CameraSource::Pattern(PatternSource { id, mode, sync: false })),
        microphone: MicrophoneSource::Tone(None),
        speaker: SpeakerSink::Null,
        processing: Processing::Off,
        codecs: VideoCodec::BUILT.to_vec(),
        audio_muted: false,
        video_muted: false,
        subscribe_only: false,
        publish_only: false,
        screen: None,
        default_tone_hz: default_tone_hz(id),
        screen_sound: false,
        tuning: Tuning::Auto,
        sync_clicks: false,
    };
    Ok(CallConfig {
        target,
        name: format!("Participant {number}"),
        device_key: common::new_device_key(),
        command: "demo",
        started,
        media,
        impairments: None,
        report_names: false,
        decoders: decoders.clone(),
        meter: Arc::clone(meter),
        repaint: None,
    })
}

/// Shows a live table until the time is up or the user has had enough.
async fn watch(demo: &Demo, seconds: f64) {
    let end = tokio::time::sleep(Duration::from_secs_f64(seconds));
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let asked = common::asked_to_end();
    tokio::pin!(end, asked);
    loop {
        tokio::select! {
            () = &mut end => return,
            () = &mut asked => return,
            _ = tick.tick() => table(demo).await,
        }
    }
}

async fn table(demo: &Demo) {
    for (number, call) in demo.calls.iter().enumerate() {
        let Some(report) = call.report().await else { continue };
        let cells: Vec<String> = report
            .streams
            .iter()
            .filter(|s| s.direction == "recv")
            .map(|s| {
                let video = s.video.as_ref();
                let pattern = video.and_then(|v| v.pattern.as_ref());
                format!(
                    "{}: {:.0} fps, {:.0} ms, {:.0} Hz",
                    pattern.and_then(|p| p.id).map_or_else(|| "?".to_owned(), |id| id.to_string()),
                    video.and_then(|v| v.fps).unwrap_or(0.0),
                    pattern.and_then(|p| p.latency_ms_p50).unwrap_or(0.0),
                    s.audio.as_ref().and_then(|a| a.tone_hz).unwrap_or(0.0),
                )
            })
            .collect();
        common::remark(&format!("participant {} sees | {}", number + 1, cells.join(" | ")));
    }
    common::remark("");
}

/// Ends everybody and writes picture and report; `failed` is what has gone wrong already.
pub(super) async fn finish(
    demo: Demo,
    args: &DemoArgs,
    picture: Option<Picture>,
    failed: Option<String>,
) -> Result<(), Failure> {
    let reports = common::leave(&demo.calls, common::GOOD_BYE).await;
    let reports: Vec<Report> = reports.into_iter().flatten().map(|r| (*r).clone()).collect();
    let stats = demo.host.stats();
    demo.host.shutdown();
    let drawn = match picture {
        Some(picture) => picture.taken().await,
        None => Ok(()),
    };
    let problem = failed.or_else(|| problem(&reports, demo.calls.len())).or(drawn.err());
    let host = reports.first().map(|r| super::host::figures(&stats, &r.process));
    common::save_report(args.stats_json.as_deref(), &report(problem.as_deref(), &reports, host))?;
    match problem {
        None => Ok(()),
        Some(problem) => Err(Failure::Failed(problem)),
    }
}

fn report(problem: Option<&str>, participants: &[Report], host: Option<Value>) -> Value {
    json!({
        "schema": crate::call::report::SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "command": "demo",
        "ok": problem.is_none(),
        "error": problem,
        "participants": participants,
        "host": host,
    })
}

/// What kept the demo from being a call in which everybody sees everybody.
fn problem(reports: &[Report], participants: usize) -> Option<String> {
    if reports.len() < participants {
        return Some(format!("{} of {participants} participants did not end in time", participants - reports.len()));
    }
    if let Some(error) = reports.iter().find_map(|r| r.error.clone()) {
        return Some(error);
    }
    let blind = reports.iter().filter(|r| {
        let seen = r
            .streams
            .iter()
            .filter(|s| s.direction == "recv" && s.video.as_ref().is_some_and(|v| v.frames.unwrap_or(0) > 0))
            .count();
        seen + 1 < participants
    });
    let blind = blind.count();
    (blind > 0).then(|| format!("{blind} of {participants} participants did not see everybody"))
}
