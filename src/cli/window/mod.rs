//! What the window asks of the rest of the program, carried out.

mod backend;
mod devices;
mod entering;
mod held;
mod running;

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::args::{Common, DemoArgs, MediaArgs};
use super::{Failure, common, demo};
use crate::call::process::ProcessMeter;
use crate::call::view::{DeviceState, Failure as Shown, Level};
use crate::call::{self, CallConfig, CallHandle, Command};
use crate::host;
use crate::lan::invitation::Invitation;
use crate::media::video::decoder::DecoderPool;
use crate::media::video::source::VideoMode;
use crate::settings::{Secrets, Settings, Store};
use crate::ui::app::{Start, run};
use crate::ui::bridge::{Call, Devices, Repaint, RoomState, Screens, Target};
use crate::ui::pace::FrameLog;
use devices::Previews;
use held::Held;
use running::Running;

/// How long a call may take to say good-bye when the window is closed.
const GOOD_BYE: Duration = Duration::from_secs(3);

/// The app: home first, or the lobby of a link.
pub(super) fn app(global: &Common, link: Option<String>, started: Instant) -> Result<(), Failure> {
    let desk = Desk::new(global, started)?;
    let start = match link {
        Some(link) => Start::Lobby(Target::Invitation(link)),
        None => Start::Home,
    };
    let log = global.exit_when_usable.then(|| {
        let shared = Arc::clone(&desk.shared);
        FrameLog::new(move || {
            // Whoever listened may be gone: then nobody measures.
            let _ = writeln!(std::io::stdout(), "usable");
            shared.close_window();
        })
    });
    open(desk, start, log)
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
            let _ = ending.send_in_turn(Command::Leave).await;
        });
    }
    let (report, runtime) = (handle.clone(), Arc::clone(&desk.runtime));
    let close = args.seconds.is_some();
    if close {
        let watched = handle.clone();
        let shared = Arc::clone(&desk.shared);
        desk.runtime.spawn(async move {
            watched.finished().await;
            shared.close_window();
        });
    }
    let result = open(desk, Start::Call(Box::new(Running::new(handle, &runtime)), place), None);
    let report = runtime.block_on(common::leave(&[report], GOOD_BYE)).pop().flatten();
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
    open(desk, Start::Call(Box::new(Running::new(first, &runtime)), Target::Hosted { name: "demo".to_owned() }), None)?;
    runtime.block_on(demo::finish(demo, args, true))
}

/// `bench tiles`: a call made up by the bench, whose frames it counts. `work` runs beside the window and closes it by ending.
pub(super) fn bench<T: Send + 'static>(
    global: &Common,
    started: Instant,
    call: Box<dyn Call>,
    log: FrameLog,
    work: impl FnOnce(&dyn Fn()) -> T + Send + 'static,
) -> Result<T, Failure> {
    let desk = Desk::new(global, started)?;
    let shared = Arc::clone(&desk.shared);
    let worker = std::thread::Builder::new()
        .name("bench".to_owned())
        .spawn(move || {
            let repaint = {
                let shared = Arc::clone(&shared);
                move || shared.repaint()
            };
            let result = work(&repaint);
            shared.close_window();
            result
        })
        .map_err(Failure::failed)?;
    open(desk, Start::Call(call, Target::Hosted { name: "bench".to_owned() }), Some(log))?;
    worker.join().map_err(|_| Failure::Failed("the bench broke off".to_owned()))
}

async fn draw(call: &CallHandle, path: Option<PathBuf>) {
    let Some(path) = path else { return };
    let view = call.view();
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || common::save_snapshot(&path, &view)).await {
        common::remark(&format!("tertulia: {error}"));
    }
}

fn open(desk: Desk, start: Start, log: Option<FrameLog>) -> Result<(), Failure> {
    let (shared, runtime) = (Arc::clone(&desk.shared), Arc::clone(&desk.runtime));
    let host = Arc::clone(&desk.host);
    let result = run(Box::new(desk), start, log)
        .map_err(|e| Failure::Failed(format!("no window could be opened: {e}; use --headless without a display")));
    // The window is gone; everybody in the calls is to hear that we left.
    let calls = std::mem::take(&mut shared.lock().calls);
    drop(runtime.block_on(common::leave(&calls, GOOD_BYE)));
    let closed = host.replace(&runtime, || None);
    // A room that is still opening may take longer than anybody wants to wait; it ends with the process.
    let _ = runtime.block_on(async { tokio::time::timeout(GOOD_BYE, closed).await });
    result
}

/// State that background tasks write and the window reads.
struct Shared {
    state: Mutex<State>,
    repaint: arc_swap::ArcSwapOption<Repaint>,
    close: AtomicBool,
    /// Devices are being listed: a driver that hangs is not asked a second time meanwhile.
    listing: AtomicBool,
    listing_cameras: AtomicBool,
    listing_screens: AtomicBool,
}

#[derive(Default)]
struct State {
    cameras: Devices,
    microphones: Devices,
    speakers: Devices,
    screens: Screens,
    camera: DeviceState,
    microphone: DeviceState,
    level: Level,
    room: RoomState,
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
        self.close.store(true, Ordering::Release);
        self.repaint();
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.repaint();
    }

    /// Puts a new value into its place, and draws only if it differs from what was there.
    fn set<T: PartialEq>(&self, place: impl FnOnce(&mut State) -> &mut T, value: T) {
        self.set_if(|| true, place, value);
    }

    /// The same for what is told by somebody whose word may count no more: asked while nobody else can write.
    fn set_if<T: PartialEq>(&self, counts: impl FnOnce() -> bool, place: impl FnOnce(&mut State) -> &mut T, value: T) {
        let changed = {
            let mut state = self.lock();
            if !counts() {
                return;
            }
            let old = place(&mut state);
            let changed = *old != value;
            *old = value;
            changed
        };
        if changed {
            self.repaint();
        }
    }
}

/// The rest of the program behind the window.
struct Desk {
    runtime: Arc<common::Threads>,
    shared: Arc<Shared>,
    store: Store,
    settings: Settings,
    secrets: Arc<Secrets>,
    decoders: DecoderPool,
    meter: Arc<ProcessMeter>,
    started: Instant,
    global: Common,
    previews: Previews,
    /// The room that this computer hosts.
    host: Arc<Held<host::Handle>>,
    saved: Arc<Held<()>>,
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
                close: AtomicBool::new(false),
                listing: AtomicBool::new(false),
                listing_cameras: AtomicBool::new(false),
                listing_screens: AtomicBool::new(false),
            }),
            store,
            settings,
            secrets: common::keep_screen_choice(Secrets::default()),
            decoders: common::decoders()?,
            meter: Arc::new(ProcessMeter::new(started)),
            started,
            global: global.clone(),
            previews: Previews::default(),
            host: Arc::default(),
            saved: Arc::default(),
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

    fn save(&self) {
        let (store, settings) = (self.store.clone(), self.settings.clone());
        // In turn: an older state must not be written over a newer one.
        drop(self.saved.replace(&self.runtime, move || {
            if let Err(error) = store.save(&settings) {
                warn!(%error, "settings not saved");
            }
            None
        }));
    }
}

fn shown(key: &'static str, detail: String) -> Shown {
    Shown { key, values: Vec::new(), detail }
}
