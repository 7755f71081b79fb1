//! What several commands need.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Runtime};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, filter};

use super::Failure;
use super::args::{Codec, Common, MediaArgs, Processing, ScreenFor};
use crate::call::process::ProcessMeter;
use crate::call::report::{Report, write_json};
use crate::call::{CallConfig, CallHandle, Command, MediaChoice, VideoInput, View};
use crate::lan::invitation::Invitation;
use crate::media::audio::source::default_tone_hz;
use crate::media::audio::{self, MicrophoneSource, SpeakerSink};
use crate::media::screen;
use crate::media::video::decoder::DecoderPool;
use crate::media::video::source::{CameraSource, ScreenSource, Tuning};
use crate::protocol::Secret;
use crate::protocol::token::Token;
use crate::rtp::frame::VideoCodec;
use crate::settings::Secrets;
use crate::signaling::target::{Target, TokenSource};
use crate::signaling::tls::{Fingerprint, Trust};
use crate::wire::netsim::Impairments;

/// Size of `--snapshot` pictures: the window's own.
pub(super) const SNAPSHOT_SIZE: (u32, u32) = (1280, 800);

/// How long calls and rooms may take to say good-bye: longer than the engine waits for its server's answer.
pub(super) const GOOD_BYE: Duration = Duration::from_secs(8);

/// How long a command that is over waits for what is still under way in the background.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Crates that print what goes over the wire, hence tokens, keys and passwords.
const TALKATIVE: [&str; 9] =
    ["tungstenite", "tokio_tungstenite", "hyper", "hyper_util", "reqwest", "axum", "axum_core", "h2", "rustls"];

/// What may never be in a log, whatever the filter says.
fn is_harmless(line: &Metadata<'_>) -> bool {
    let from = line.target().split("::").next().unwrap_or_default();
    !TALKATIVE.contains(&from) || *line.level() <= LevelFilter::INFO
}

/// Writes a line to standard output. Whoever closed the pipe does not want it: that is no reason to fall over. A full disk is.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output cannot be written to: {e}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. That nobody can read it is no reason to end anything.
pub(super) fn remark(line: &str) {
    drop(writeln!(std::io::stderr().lock(), "{line}"));
}

/// Log lines go to stderr; what the media stacks say about single packets stays out at every level.
pub(super) fn start_logging(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => return,
        (false, 0) => "warn",
        (false, 1) => "info,tertulia=debug",
        (false, 2) => "info,tertulia=trace",
        (false, _) => "debug,tertulia=trace",
    };
    let fallback = format!(
        "{level},rtc=error,rtc_dtls=off,rtc_ice=error,rtc_sctp=off,webrtc=off,rtc_interceptor=error,pulseaudio=off,zbus=error"
    );
    let filter = EnvFilter::try_from_env("TERTULIA_LOG").unwrap_or_else(|_| EnvFilter::new(fallback));
    // A second call (tests in one process) keeps the first subscriber.
    drop(
        tracing_subscriber::registry()
            .with(filter)
            .with(filter::filter_fn(is_harmless))
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(std::io::stderr)
                    .with_ansi(std::io::stderr().is_terminal())
                    // It would say so on the very stream that cannot be written to.
                    .log_internal_errors(false),
            )
            .try_init(),
    );
}

/// The one runtime of the process. Its end does not wait for what hangs: a driver that never answers or an open question of
/// the keyring would keep a process without a window alive for good.
pub(super) struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl std::ops::Deref for Threads {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(LAST_WORK);
        }
    }
}

/// Starts the threads that a command runs on.
pub(super) fn runtime() -> Result<Threads, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tertulia-net")
        .enable_all()
        .build()
        .map(|runtime| Threads { handle: runtime.handle().clone(), runtime: Some(runtime) })
        .map_err(|e| Failure::Failed(format!("no threads to be had: {e}")))
}

/// Has all of them leave at once, waits no longer than `patience`, and gives the reports of those that ended, in their order.
pub(super) async fn leave(calls: &[CallHandle], patience: Duration) -> Vec<Option<Arc<Report>>> {
    let leaving: Vec<_> = calls
        .iter()
        .cloned()
        .map(|call| {
            tokio::spawn(tokio::time::timeout(patience, async move {
                // One that is over already is what was wanted; one with a full queue is asked when there is room.
                let _ = call.send_in_turn(Command::Leave).await;
                call.finished().await
            }))
        })
        .collect();
    let mut reports = Vec::with_capacity(leaving.len());
    for call in leaving {
        reports.push(call.await.ok().and_then(Result::ok).flatten());
    }
    reports
}

/// Asks a driver or whatever else may never answer, on a thread of its own.
pub(super) fn within<T: Send + 'static>(patience: Duration, ask: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (answer, answered) = std::sync::mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("driver".to_owned())
        .spawn(move || {
            // Nobody waits any longer where it took too long.
            let _ = answer.send(ask());
        })
        .ok()?;
    answered.recv_timeout(patience).ok()
}

pub(super) fn impairments(common: &Common) -> Result<Option<Impairments>, Failure> {
    common
        .simulate_network
        .as_deref()
        .map(|spec| Impairments::parse(spec).map_err(|e| Failure::Usage(format!("--simulate-network: {e}"))))
        .transpose()
}

/// Reads a secret out of the environment. Its value is never printed.
pub(super) fn secret_from(variable: &str) -> Result<Secret, Failure> {
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Ok(Secret::new(value)),
        _ => Err(Failure::Usage(format!("--secret-env names {variable}, but that variable is empty or not set"))),
    }
}

/// Refuses a token with a server's secret where everybody reads it who lists the processes.
pub(super) fn no_secret_in(argument: &str) -> Result<(), Failure> {
    if Token::parse(argument).is_ok_and(|t| !t.secret().is_empty()) {
        return Err(Failure::Usage(
            "the server's secret does not belong on the command line: give such a token on standard input (-), or name a variable \
             with --secret-env"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Understands what `join` was given.
pub(super) fn target(
    text: &str,
    session: Option<&str>,
    secret_env: Option<&str>,
    role: &str,
    insecure: bool,
) -> Result<Target, Failure> {
    let text = text.trim();
    let loose = if insecure { Trust::Anything } else { Trust::System };
    if Invitation::looks_like_one(text) {
        let invitation = Invitation::parse(text)
            .map_err(|e| Failure::Failed(format!("this link is cut off: {e}; copy it again, whole")))?;
        let trust = match &invitation.fingerprint {
            Some(fingerprint) => {
                let pin = Fingerprint::parse(fingerprint).ok_or_else(|| {
                    Failure::Failed("this link is cut off: its fingerprint is not whole; copy it again".to_owned())
                })?;
                Trust::Pinned(pin)
            }
            None => loose,
        };
        let source = TokenSource::RoomKey {
            base: invitation.base_url(),
            room: invitation.room.clone(),
            key: Secret::new(invitation.key),
            role: None,
        };
        return Ok(Target { source, trust });
    }
    if text.starts_with("ws://") || text.starts_with("wss://") {
        return Ok(Target { source: TokenSource::Raw(Secret::new(text)), trust: loose });
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        let session = session.ok_or_else(|| Failure::Usage("a server's address needs --session NAME".to_owned()))?;
        if session.is_empty() || !session.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
            return Err(Failure::Usage("a session name has letters, digits, - and _, no spaces".to_owned()));
        }
        if url::Url::parse(text).is_ok_and(|u| u.password().is_some()) {
            return Err(Failure::Usage(
                "a password does not belong on the command line: name a variable with --secret-env".to_owned(),
            ));
        }
        let (base, session) = (text.trim_end_matches('/').to_owned(), session.to_owned());
        let source = match secret_env {
            Some(variable) => {
                TokenSource::OpenVidu { base, session, secret: secret_from(variable)?, role: role.to_owned() }
            }
            None => TokenSource::Application { base, session },
        };
        return Ok(Target { source, trust: loose });
    }
    Err(Failure::Failed(
        "this is neither a token, an invitation nor a server's address; copy it again, whole".to_owned(),
    ))
}

/// Media options of the command line as the engine takes them.
pub(super) fn media(args: &MediaArgs) -> Result<MediaChoice, Failure> {
    let usage = |e: &dyn std::fmt::Display| Failure::Usage(e.to_string());
    let (camera, microphone, speaker) =
        if args.headless { ("none", "none", "null") } else { ("device", "device", "device") };
    let screen = args.screen.as_deref().map(|s| ScreenSource::parse(s).map_err(|e| usage(&e))).transpose()?;
    let camera = CameraSource::parse(args.camera.as_deref().unwrap_or(camera)).map_err(|e| usage(&e))?;
    let (tone, sync) = match &camera {
        CameraSource::Pattern(pattern) => (default_tone_hz(pattern.id), pattern.sync),
        _ => (default_tone_hz(0), false),
    };
    let microphone =
        args.microphone.as_deref().unwrap_or(microphone).parse::<MicrophoneSource>().map_err(|e| usage(&e))?;
    let codecs = match args.codec {
        Codec::Auto => VideoCodec::BUILT.to_vec(),
        Codec::Vp8 => vec![VideoCodec::Vp8],
        Codec::H264 => vec![VideoCodec::H264],
    };
    if let Some(left_out) = codecs.iter().find(|codec| !VideoCodec::BUILT.contains(codec)) {
        return Err(Failure::Usage(format!("this program was built without {}", left_out.name())));
    }
    // Who only watches and listens has no camera light on.
    let watching = args.subscribe_only;
    Ok(MediaChoice {
        video: match camera {
            CameraSource::None => VideoInput::None,
            _ if watching => VideoInput::None,
            source => VideoInput::Camera(source),
        },
        microphone: if watching { MicrophoneSource::None } else { microphone },
        speaker: args.speaker.as_deref().unwrap_or(speaker).parse::<SpeakerSink>().map_err(|e| usage(&e))?,
        processing: match args.processing {
            Processing::Auto => audio::Processing::Auto,
            Processing::On => audio::Processing::On,
            Processing::Off => audio::Processing::Off,
        },
        codecs,
        audio_muted: args.audio_off,
        video_muted: args.video_off,
        subscribe_only: watching,
        publish_only: false,
        screen: screen.filter(|_| !watching),
        default_tone_hz: tone,
        screen_sound: args.screen_sound,
        tuning: match args.screen_for {
            ScreenFor::Auto => Tuning::Auto,
            ScreenFor::Text => Tuning::Text,
            ScreenFor::Motion => Tuning::Motion,
        },
        sync_clicks: sync,
    })
}

/// Decoder threads for the whole process.
pub(super) fn decoders() -> Result<DecoderPool, Failure> {
    DecoderPool::new().map_err(|e| Failure::Failed(format!("no threads to be had: {e}")))
}

/// The parts of a call's configuration that every command fills alike.
pub(super) fn call_config(
    target: Target,
    media: MediaChoice,
    name: String,
    command: &'static str,
    started: Instant,
) -> Result<CallConfig, Failure> {
    Ok(CallConfig {
        target,
        name,
        device_key: new_device_key(),
        command,
        started,
        media,
        impairments: None,
        report_names: false,
        decoders: decoders()?,
        meter: Arc::new(ProcessMeter::new(started)),
        repaint: None,
    })
}

/// A random key in the form of a UUID, as other clients of OpenVidu use for `participantId`.
pub(super) fn new_device_key() -> String {
    let r: u128 = rand::random();
    let hex = format!("{r:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// A name for people who gave none.
pub(super) fn default_name() -> String {
    ["USER", "USERNAME"]
        .iter()
        .find_map(|v| std::env::var(v).ok())
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "Tertulia".to_owned())
}

pub(super) fn save_report(path: Option<&Path>, report: &impl serde::Serialize) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    write_json(path, report)
        .map_err(|e| Failure::Failed(format!("the report could not be written to {}: {e}", path.display())))
}

/// Draws the grid as a user would see it.
pub(super) fn save_snapshot(path: &Path, view: &View) -> Result<(), String> {
    let failed = |e: &dyn std::fmt::Display| format!("the picture could not be written to {}: {e}", path.display());
    let png =
        crate::ui::snapshot::render_grid(view, SNAPSHOT_SIZE.0, SNAPSHOT_SIZE.1).to_png().map_err(|e| failed(&e))?;
    std::fs::write(path, png).map_err(|e| failed(&e))
}

/// Resolves on Ctrl-C or SIGTERM.
pub(super) async fn asked_to_end() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    drop(tokio::signal::ctrl_c().await);
}

/// Place of the desktop's token among the secrets.
const SCREEN_CHOICE: &str = "screen-portal";

struct ScreenChoice(Arc<Secrets>);

impl screen::ChoiceStore for ScreenChoice {
    fn load(&self) -> Option<String> {
        self.0.get(SCREEN_CHOICE)
    }

    fn save(&self, token: &str) {
        self.0.set(SCREEN_CHOICE, token);
    }
}

/// From now on what was chosen in the desktop's picker is kept with the other secrets.
pub(super) fn keep_screen_choice(secrets: Secrets) -> Arc<Secrets> {
    let secrets = Arc::new(secrets);
    screen::keep_choice_in(ScreenChoice(Arc::clone(&secrets)));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str, session: Option<&str>) -> Result<Target, Failure> {
        target(text, session, None, "PUBLISHER", false)
    }

    #[test]
    fn targets_are_told_apart_and_secrets_refused() {
        let invitation = format!("tertulia://h:4443/room#key=k&fp=sha256:{}", "0f".repeat(32));
        assert!(matches!(understood(&invitation, None).unwrap().trust, Trust::Pinned(_)));
        assert!(matches!(understood(&invitation[..invitation.len() - 4], None), Err(Failure::Failed(_))));
        assert!(matches!(understood("wss://h?sessionId=a&token=t", None).unwrap().source, TokenSource::Raw(_)));
        let hidden = "wss://h?sessionId=a&secret=s&recorder=true";
        assert!(matches!(no_secret_in(hidden), Err(Failure::Usage(_))));
        assert!(no_secret_in("wss://h?sessionId=a&token=t").is_ok() && no_secret_in("nonsense").is_ok());
        assert!(matches!(understood(hidden, None).unwrap().source, TokenSource::Raw(_)), "not from the command line");
        assert!(matches!(understood("https://h", None), Err(Failure::Usage(_))));
        assert!(matches!(understood("https://h", Some("no spaces")), Err(Failure::Usage(_))));
        assert!(matches!(understood("https://h/", Some("ok")).unwrap().source, TokenSource::Application { .. }));
        assert!(matches!(understood("nonsense", None), Err(Failure::Failed(_))));
    }

    #[test]
    fn what_hangs_in_the_background_does_not_keep_a_command_from_its_end() {
        let hangs = |hung: std::sync::mpsc::Receiver<()>| {
            let _ = hung.recv_timeout(Duration::from_secs(60));
        };
        let (go_on, hung) = std::sync::mpsc::sync_channel(1);
        let (begun, seen) = std::sync::mpsc::sync_channel(1);
        let runtime = runtime().unwrap();
        runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            hangs(hung);
        });
        seen.recv_timeout(Duration::from_secs(20)).unwrap();
        let ending = Instant::now();
        drop(runtime);
        assert!(ending.elapsed() < Duration::from_secs(30), "it waited for {:?}", ending.elapsed());
        drop(go_on);

        let (go_on, hung) = std::sync::mpsc::sync_channel(1);
        assert_eq!(within(Duration::from_millis(100), move || hangs(hung)), None);
        drop(go_on);
        assert_eq!(within(Duration::from_secs(20), || 7), Some(7));
    }

    #[test]
    fn device_keys_look_like_uuids_and_differ() {
        let (a, b) = (new_device_key(), new_device_key());
        assert_ne!(a, b);
        assert_eq!(a.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
