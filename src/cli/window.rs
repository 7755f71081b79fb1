//! What the window asks of the rest of the program, carried out.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::runtime::Runtime;
use tracing::warn;

use super::args::{Common, DemoArgs, MediaArgs};
use super::{Failure, common, demo};
use crate::call::process::ProcessMeter;
use crate::call::view::{DeviceState, Failure as Shown, Level, View};
use crate::call::{self, CallConfig, CallHandle, Command, MediaChoice, VideoInput};
use crate::host::{self, HostConfig, HostError, Tls};
use crate::lan::invitation::Invitation;
use crate::media::audio::{
    self, AudioConfig, AudioEngine, AudioError, AudioEvent, MicrophoneSource, Processing, SpeakerSink,
};
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::decoder::DecoderPool;
use crate::media::video::device;
use crate::media::video::frame::FrameSlot;
use crate::media::video::source::{CameraSource, VideoMode};
use crate::rtp::frame::VideoCodec;
use crate::settings::{self, RecentSession, Secrets, Settings, Store, Theme};
use crate::signaling::tls::Trust;
use crate::ui::app::{Start, run};
use crate::ui::bridge::{
    Backend, Call, Device, DeviceChoice, Devices, JoinRequest, Preferences, Preview, Recent, Repaint, RoomState,
    Server, Target, ThemeChoice,
};

/// How long a call may take to say good-bye when the window is closed.
const GOOD_BYE: Duration = Duration::from_secs(3);

/// The app: home first, or the lobby of a link.
pub(super) fn app(global: &Common, link: Option<String>, started: Instant) -> Result<(), Failure> {
    let desk = Desk::new(global, started)?;
    let start = match link {
        Some(link) => Start::Lobby(Target::Invitation(link)),
        None => Start::Home,
    };
    open(desk, start)
}

/// What the command line named, as the window needs it for its invitation and for joining again.
pub(super) fn place(text: &str, session: Option<&str>) -> Target {
    match session {
        Some(name) => Target::Session { server: text.to_owned(), name: name.to_owned() },
        None if Invitation::looks_like_one(text) => Target::Invitation(text.to_owned()),
        None => Target::Token(text.to_owned()),
    }
}

/// `join` with a window: straight into the call.
pub(super) fn call(global: &Common, config: CallConfig, args: &MediaArgs, place: Target) -> Result<(), Failure> {
    let desk = Desk::new(global, config.started)?;
    let (config, shared) = (desk.ready(config), Arc::clone(&desk.shared));
    let handle = {
        let _inside = desk.runtime.enter();
        call::start(config)
    };
    shared.lock().calls.push(handle.clone());
    if let Some(seconds) = args.seconds {
        let (ending, snapshot) = (handle.clone(), args.snapshot.clone());
        desk.runtime.spawn(async move {
            let half = Duration::from_secs_f64(seconds / 2.0);
            tokio::time::sleep(half).await;
            draw(&ending, snapshot).await;
            tokio::time::sleep(half).await;
            // Over already is what was wanted.
            let _ = ending.send(Command::Leave);
        });
    }
    let (report, runtime) = (handle.clone(), desk.runtime.handle().clone());
    let close = args.seconds.is_some();
    if close {
        let watched = handle.clone();
        let shared = Arc::clone(&desk.shared);
        desk.runtime.spawn(async move {
            watched.finished().await;
            shared.close_window();
        });
    }
    let result = open(desk, Start::Call(Box::new(Running(handle)), place));
    let report = runtime.block_on(async {
        let _ = report.send(Command::Leave);
        tokio::time::timeout(GOOD_BYE, report.finished()).await.ok().flatten()
    });
    if let Some(report) = report {
        common::save_report(args.stats_json.as_deref(), &*report)?;
    }
    result
}

/// `demo` with a window: the grid of the first participant.
pub(super) fn demo(global: &Common, args: &DemoArgs, mode: VideoMode, started: Instant) -> Result<(), Failure> {
    let desk = Desk::new(global, started)?;
    let shared = Arc::clone(&desk.shared);
    let runtime = Arc::clone(&desk.runtime);
    let demo = {
        let _inside = runtime.enter();
        let waker = Arc::clone(&shared);
        demo::begin(global, args.participants, mode, started, Some(Arc::new(move || waker.repaint())))?
    };
    let Some(first) = demo.calls.first().cloned() else {
        return Err(Failure::Usage("a demo needs participants".to_owned()));
    };
    if let Some(seconds) = args.seconds {
        let (shared, first, snapshot) = (Arc::clone(&shared), first.clone(), args.snapshot.clone());
        runtime.spawn(async move {
            let half = Duration::from_secs_f64(seconds / 2.0);
            tokio::time::sleep(half).await;
            draw(&first, snapshot).await;
            tokio::time::sleep(half).await;
            shared.close_window();
        });
    }
    open(desk, Start::Call(Box::new(Running(first)), Target::Hosted { name: "demo".to_owned() }))?;
    runtime.block_on(demo::finish(demo, args, true))
}

async fn draw(call: &CallHandle, path: Option<PathBuf>) {
    let Some(path) = path else { return };
    let view = call.view();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || common::save_snapshot(&path, &view)).await {
        common::remark(&format!("tertulia: {error}"));
    }
}

fn open(desk: Desk, start: Start) -> Result<(), Failure> {
    let (shared, runtime) = (Arc::clone(&desk.shared), Arc::clone(&desk.runtime));
    let result = run(Box::new(desk), start)
        .map_err(|e| Failure::Failed(format!("no window could be opened: {e}; use --headless without a display")));
    // The window is gone; everybody in the calls is to hear that we left.
    let (calls, room) = {
        let mut state = shared.lock();
        (std::mem::take(&mut state.calls), state.host.take())
    };
    runtime.block_on(async {
        for call in &calls {
            let _ = call.send(Command::Leave);
        }
        for call in &calls {
            drop(tokio::time::timeout(GOOD_BYE, call.finished()).await);
        }
    });
    if let Some(room) = room {
        room.shutdown();
    }
    result
}

/// State that background tasks write and the window reads.
struct Shared {
    state: Mutex<State>,
    repaint: arc_swap::ArcSwapOption<Repaint>,
    close: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct State {
    cameras: Devices,
    microphones: Devices,
    speakers: Devices,
    camera: DeviceState,
    microphone: DeviceState,
    level: Level,
    room: RoomState,
    host: Option<host::Handle>,
    hosted_invitation: Option<String>,
    calls: Vec<CallHandle>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn repaint(&self) {
        if let Some(repaint) = &*self.repaint.load() {
            repaint();
        }
    }

    /// Asks the window to close itself with its next frame.
    fn close_window(&self) {
        self.close.store(true, std::sync::atomic::Ordering::Release);
        self.repaint();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.repaint();
    }
}

/// The rest of the program behind the window.
struct Desk {
    runtime: Arc<Runtime>,
    shared: Arc<Shared>,
    store: Store,
    settings: Settings,
    secrets: Arc<Secrets>,
    decoders: DecoderPool,
    meter: Arc<ProcessMeter>,
    started: Instant,
    global: Common,
    choice: DeviceChoice,
    slot: FrameSlot,
    capture: Option<Capture>,
    microphone: Option<AudioEngine>,
}

impl Desk {
    fn new(global: &Common, started: Instant) -> Result<Self, Failure> {
        let store = Store::open(global.config.as_deref()).map_err(Failure::failed)?;
        let mut settings = store.load().unwrap_or_else(|error| {
            warn!(%error, "starting with fresh settings; the old file is left alone until something is changed");
            Settings::default()
        });
        if settings.device_key.is_empty() {
            settings.device_key = common::new_device_key();
        }
        if settings.name.is_empty() {
            settings.name = common::default_name();
        }
        Ok(Self {
            runtime: Arc::new(common::runtime()?),
            shared: Arc::new(Shared {
                state: Mutex::new(State::default()),
                repaint: arc_swap::ArcSwapOption::empty(),
                close: std::sync::atomic::AtomicBool::new(false),
            }),
            store,
            settings,
            secrets: Arc::new(Secrets::default()),
            decoders: common::decoders()?,
            meter: Arc::new(ProcessMeter::new(started)),
            started,
            global: global.clone(),
            choice: DeviceChoice::default(),
            slot: FrameSlot::new(),
            capture: None,
            microphone: None,
        })
    }

    /// Fills in what belongs to this process.
    fn ready(&self, mut config: CallConfig) -> CallConfig {
        let waker = Arc::clone(&self.shared);
        config.repaint = Some(Arc::new(move || waker.repaint()));
        config.decoders = self.decoders.clone();
        config.meter = Arc::clone(&self.meter);
        config.device_key.clone_from(&self.settings.device_key);
        config
    }

    fn close_preview(&mut self) {
        let (capture, microphone) = (self.capture.take(), self.microphone.take());
        // Closing waits for drivers: not on the window's thread.
        std::thread::Builder::new()
            .name("close-preview".to_owned())
            .spawn(move || {
                drop(capture);
                drop(microphone);
            })
            .ok();
        self.slot.clear();
    }

    fn preview_camera(&mut self, source: Option<&str>) {
        self.capture = None;
        self.slot.clear();
        let parsed = source.map(CameraSource::parse);
        let state = match parsed {
            None | Some(Ok(CameraSource::None)) => DeviceState::None,
            Some(Err(error)) => DeviceState::Failed(shown("dev.cam_none", error.to_string())),
            Some(Ok(source)) => {
                let shared = Arc::clone(&self.shared);
                let events = Box::new(move |event: CaptureEvent| {
                    let state = match event {
                        CaptureEvent::Opened { .. } | CaptureEvent::Recovered => DeviceState::On,
                        CaptureEvent::Failed { key, device, detail } => {
                            DeviceState::Failed(Shown { key, values: vec![("dev", device)], detail })
                        }
                        CaptureEvent::Stalled { device, for_ms } => DeviceState::Failed(Shown {
                            key: "dev.cam_lost",
                            values: vec![("dev", device)],
                            detail: format!("no picture for {for_ms} ms"),
                        }),
                        CaptureEvent::Ended => DeviceState::None,
                    };
                    shared.change(|s| s.camera = state);
                });
                self.capture = Some(Capture::open(&source, self.slot.clone(), events));
                DeviceState::Opening
            }
        };
        self.shared.change(|s| s.camera = state);
    }

    fn preview_microphone(&mut self, choice: &DeviceChoice) {
        self.microphone = None;
        let source = choice.microphone.as_deref().map(str::parse::<MicrophoneSource>);
        let state = match source {
            None | Some(Ok(MicrophoneSource::None)) => DeviceState::None,
            Some(Err(error)) => DeviceState::Failed(shown("dev.mic_none", error.to_string())),
            Some(Ok(source)) => {
                let speaker = choice.speaker.as_deref().and_then(|s| s.parse().ok()).unwrap_or(SpeakerSink::Null);
                // Nothing is encoded or sent in a lobby: the engine has no sink.
                match AudioEngine::start(AudioConfig { microphone: source, speaker, ..AudioConfig::default() }) {
                    Ok((engine, events)) => {
                        self.follow_microphone(events);
                        self.microphone = Some(engine);
                        DeviceState::Opening
                    }
                    Err(error) => DeviceState::Failed(sound_failure(&error)),
                }
            }
        };
        self.shared.change(|s| s.microphone = state);
    }

    fn follow_microphone(&self, mut events: tokio::sync::mpsc::Receiver<AudioEvent>) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn(async move {
            while let Some(event) = events.recv().await {
                let state = match event {
                    AudioEvent::MicrophoneOpened(_) | AudioEvent::MicrophoneAudible => DeviceState::On,
                    AudioEvent::MicrophoneFailed(error) => DeviceState::Failed(sound_failure(&error)),
                    AudioEvent::MicrophoneSilent => DeviceState::Failed(shown("dev.mic_silent", String::new())),
                    _ => continue,
                };
                shared.change(|s| s.microphone = state);
            }
        });
    }

    fn target_of(&self, target: &Target) -> Result<crate::signaling::target::Target, Shown> {
        let link = |error: Failure| shown("err.link", error.to_string());
        match target {
            Target::Invitation(text) | Target::Token(text) => {
                common::target(text, None, None, "PUBLISHER", false).map_err(link)
            }
            Target::Hosted { .. } => {
                let invitation = self.shared.lock().hosted_invitation.clone();
                let text = invitation.ok_or_else(|| shown("err.no_room", "no room is open here".to_owned()))?;
                common::target(&text, None, None, "PUBLISHER", false).map_err(link)
            }
            Target::Session { server, name } => {
                let mut target = common::target(server, Some(name), None, "PUBLISHER", false).map_err(link)?;
                if let Some(secret) = self.secrets.get(server) {
                    target.source = crate::signaling::target::TokenSource::OpenVidu {
                        base: server.trim_end_matches('/').to_owned(),
                        session: name.clone(),
                        secret: crate::protocol::Secret::new(secret),
                        role: "PUBLISHER".to_owned(),
                    };
                }
                Ok(target)
            }
        }
    }

    fn remember(&mut self, target: &Target) {
        let visit = match target {
            Target::Session { server, name } => (
                name.clone(),
                url::Url::parse(server).ok().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default(),
            ),
            Target::Invitation(text) => match Invitation::parse(text) {
                Ok(invitation) => (invitation.room, invitation.host),
                Err(_) => return,
            },
            Target::Token(_) | Target::Hosted { .. } => return,
        };
        let at_unix_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        self.settings.visited(RecentSession { session: visit.0, host: visit.1, at_unix_ms });
        self.save();
    }

    fn save(&self) {
        let (store, settings) = (self.store.clone(), self.settings.clone());
        self.runtime.spawn_blocking(move || {
            if let Err(error) = store.save(&settings) {
                warn!(%error, "settings not saved");
            }
        });
    }
}

fn shown(key: &'static str, detail: String) -> Shown {
    Shown { key, values: Vec::new(), detail }
}

fn sound_failure(error: &AudioError) -> Shown {
    Shown { key: error.key(), values: error.values(), detail: error.to_string() }
}

struct Running(CallHandle);

impl Call for Running {
    fn send(&self, command: Command) {
        if let Err(error) = self.0.send(command) {
            warn!(%error, "command not taken");
        }
    }

    fn view(&self) -> Arc<View> {
        self.0.view()
    }
}

/// A call that never began: its view says why.
struct Refused(Arc<View>);

impl Call for Refused {
    fn send(&self, _command: Command) {}

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.0)
    }
}

impl Backend for Desk {
    fn set_repaint(&mut self, repaint: Repaint) {
        self.shared.repaint.store(Some(Arc::new(repaint)));
        self.refresh_devices();
    }

    fn preferences(&self) -> Preferences {
        let s = &self.settings;
        Preferences {
            name: s.name.clone(),
            room_name: if s.room_name.is_empty() { "my-room".to_owned() } else { s.room_name.clone() },
            servers: s
                .servers
                .iter()
                .map(|k| Server { url: k.url.clone(), own_certificate: k.own_certificate })
                .collect(),
            recent: s
                .recent
                .iter()
                .map(|r| Recent { session: r.session.clone(), host: r.host.clone(), at_unix_ms: r.at_unix_ms })
                .collect(),
            theme: match s.theme {
                Theme::System => ThemeChoice::System,
                Theme::Dark => ThemeChoice::Dark,
                Theme::Light => ThemeChoice::Light,
            },
            language: s.language.clone(),
            devices: DeviceChoice {
                camera: s.devices.camera.clone(),
                microphone: s.devices.microphone.clone(),
                speaker: s.devices.speaker.clone(),
            },
            join_muted: s.join_muted,
            join_without_camera: s.join_without_camera,
            mirror: s.mirror,
        }
    }

    fn set_preferences(&mut self, preferences: &Preferences) {
        let s = &mut self.settings;
        s.name.clone_from(&preferences.name);
        s.room_name.clone_from(&preferences.room_name);
        s.servers = preferences
            .servers
            .iter()
            .map(|server| settings::KnownServer { url: server.url.clone(), own_certificate: server.own_certificate })
            .collect();
        s.recent = preferences
            .recent
            .iter()
            .map(|r| RecentSession { session: r.session.clone(), host: r.host.clone(), at_unix_ms: r.at_unix_ms })
            .collect();
        s.theme = match preferences.theme {
            ThemeChoice::System => Theme::System,
            ThemeChoice::Dark => Theme::Dark,
            ThemeChoice::Light => Theme::Light,
        };
        s.language.clone_from(&preferences.language);
        s.devices = settings::Device {
            camera: preferences.devices.camera.clone(),
            microphone: preferences.devices.microphone.clone(),
            speaker: preferences.devices.speaker.clone(),
        };
        s.join_muted = preferences.join_muted;
        s.join_without_camera = preferences.join_without_camera;
        s.mirror = preferences.mirror;
        self.save();
    }

    fn set_secret(&mut self, server: &str, secret: String) {
        let (secrets, server) = (Arc::clone(&self.secrets), server.to_owned());
        self.runtime.spawn_blocking(move || secrets.set(&server, &secret));
    }

    fn refresh_devices(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn_blocking(move || {
            let cameras = device::list_cameras()
                .into_iter()
                .map(|c| Device { source: format!("device:{}", c.index), name: c.name })
                .collect();
            shared.change(|s| s.cameras = Devices::Known(cameras));
            let devices = audio::list_devices();
            let known = |list: Vec<audio::AudioDevice>| {
                Devices::Known(
                    list.into_iter().map(|d| Device { source: format!("device:{}", d.id), name: d.name }).collect(),
                )
            };
            shared.change(|s| {
                s.microphones = known(devices.microphones);
                s.speakers = known(devices.speakers);
            });
        });
    }

    fn cameras(&self) -> Devices {
        self.shared.lock().cameras.clone()
    }

    fn microphones(&self) -> Devices {
        self.shared.lock().microphones.clone()
    }

    fn speakers(&self) -> Devices {
        self.shared.lock().speakers.clone()
    }

    fn set_preview(&mut self, choice: &DeviceChoice) {
        if *choice == self.choice {
            return;
        }
        let before = std::mem::replace(&mut self.choice, choice.clone());
        if *choice == DeviceChoice::default() {
            self.close_preview();
            self.shared.change(|s| {
                s.camera = DeviceState::None;
                s.microphone = DeviceState::None;
            });
            return;
        }
        if before.camera != choice.camera {
            self.preview_camera(choice.camera.as_deref());
        }
        if before.microphone != choice.microphone || before.speaker != choice.speaker {
            self.preview_microphone(choice);
        }
    }

    fn preview(&self) -> Preview {
        let state = self.shared.lock();
        if let Some(engine) = &self.microphone {
            state.level.set_dbfs(engine.levels().captured_dbfs);
        }
        Preview {
            frames: self.slot.clone(),
            camera: state.camera.clone(),
            microphone: state.microphone.clone(),
            level: state.level.clone(),
        }
    }

    fn test_speaker(&mut self) {
        if let Some(engine) = &self.microphone {
            let rate = audio::SAMPLE_RATE_HZ as f32;
            let tone: Vec<f32> = (0..audio::SAMPLE_RATE_HZ / 2)
                .map(|i| 0.1 * (i as f32 * 440.0 * std::f32::consts::TAU / rate).sin())
                .collect();
            engine.play_sound(tone.into());
        }
    }

    fn start_room(&mut self, name: &str, port: u16) {
        self.shared.change(|s| s.room = RoomState::Starting);
        let port = if port == 0 { host::DEFAULT_PORT } else { port };
        let config = HostConfig {
            listen: ([0, 0, 0, 0], port).into(),
            tls: Tls::SelfSigned,
            data_dir: self.store.folder().join("host"),
            ..HostConfig::default()
        };
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.runtime.spawn_blocking(move || {
            let old = shared.lock().host.take();
            if let Some(old) = old {
                old.shutdown();
            }
            let opened = host::start(config).and_then(|handle| Ok((handle.create_room(&name)?, handle)));
            match opened {
                Ok((invitation, handle)) => shared.change(|s| {
                    let text = invitation.to_string();
                    s.room = RoomState::Open {
                        name,
                        invitation: text.clone(),
                        browser_link: None,
                        port: handle.listen_addr().port(),
                    };
                    s.hosted_invitation = Some(text);
                    s.host = Some(handle);
                }),
                Err(error) => shared.change(|s| s.room = RoomState::Failed(room_failure(&error))),
            }
        });
    }

    fn room(&self) -> RoomState {
        self.shared.lock().room.clone()
    }

    fn stop_room(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn_blocking(move || {
            let host = {
                let mut state = shared.lock();
                state.room = RoomState::None;
                state.hosted_invitation = None;
                state.host.take()
            };
            if let Some(host) = host {
                host.shutdown();
            }
            shared.repaint();
        });
    }

    fn wants_close(&self) -> bool {
        self.shared.close.load(std::sync::atomic::Ordering::Acquire)
    }

    fn window_file(&self) -> Option<PathBuf> {
        Some(self.store.folder().join("window.ron"))
    }

    fn can_share(&self) -> bool {
        // Under Wayland only the desktop's own dialog hands out a screen, and XWayland's root window is empty.
        cfg!(target_os = "linux")
            && std::env::var_os("DISPLAY").is_some_and(|d| !d.is_empty())
            && std::env::var_os("WAYLAND_DISPLAY").is_none_or(|d| d.is_empty())
    }

    fn join(&mut self, request: JoinRequest) -> Box<dyn Call> {
        let target = match self.target_of(&request.target) {
            Ok(mut target) => {
                if request.own_certificate && target.trust == Trust::System {
                    target.trust = Trust::Anything;
                }
                target
            }
            Err(failure) => {
                let view = View { connection: call::view::Connection::Failed(failure), ..View::default() };
                return Box::new(Refused(Arc::new(view)));
            }
        };
        self.remember(&request.target);
        // The call opens the devices itself: a driver gives a camera to one reader only.
        self.choice = DeviceChoice::default();
        self.close_preview();
        let media = MediaChoice {
            video: match request.devices.camera.as_deref().map(CameraSource::parse) {
                None | Some(Ok(CameraSource::None) | Err(_)) => VideoInput::None,
                Some(Ok(source)) => VideoInput::Camera(source),
            },
            microphone: request
                .devices
                .microphone
                .as_deref()
                .and_then(|s| s.parse().ok())
                .unwrap_or(MicrophoneSource::None),
            speaker: request
                .devices
                .speaker
                .as_deref()
                .and_then(|s| s.parse().ok())
                .unwrap_or(SpeakerSink::Device(None)),
            processing: Processing::Auto,
            codecs: vec![VideoCodec::Vp8, VideoCodec::H264],
            audio_muted: request.muted,
            video_muted: request.camera_off,
            subscribe_only: false,
            publish_only: false,
            screen: None,
            default_tone_hz: audio::source::default_tone_hz(0),
            sync_clicks: false,
        };
        let config = CallConfig {
            target,
            name: request.name,
            device_key: String::new(),
            command: "join",
            started: self.started,
            media,
            impairments: common::impairments(&self.global).unwrap_or_default(),
            report_names: false,
            decoders: self.decoders.clone(),
            meter: Arc::clone(&self.meter),
            repaint: None,
        };
        let config = self.ready(config);
        let handle = {
            let _inside = self.runtime.enter();
            call::start(config)
        };
        let mut state = self.shared.lock();
        state.calls.retain(|call| !call.is_over());
        state.calls.push(handle.clone());
        drop(state);
        Box::new(Running(handle))
    }
}

fn room_failure(error: &HostError) -> Shown {
    Shown { key: error.key(), values: error.values(), detail: error.to_string() }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close_preview();
    }
}
