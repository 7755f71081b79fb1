//! What the window asks of the rest of the program, carried out.

mod backend;
mod devices;
mod entering;
mod held;
mod running;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::warn;

use super::args::{Common, DemoArgs, MediaArgs};
use super::common::GOOD_BYE;
use super::{Failure, common, demo, join};
use crate::call::process::ProcessMeter;
use crate::call::view::{DeviceState, Failure as Shown, Level};
use crate::call::{self, CallConfig, CallHandle};
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
    let runtime = Arc::clone(&desk.runtime);
    let (gone, window_gone) = oneshot::channel();
    let ending = {
        let (handle, args) = (handle.clone(), args.clone());
        runtime.spawn(async move {
            let window_gone = async { window_gone.await.unwrap_or_default() };
            let outcome = join::to_the_end(&handle, &args, window_gone).await;
            // Without a limit it stays: somebody may want to read why it ended, or to join again.
            if args.seconds.is_some() {
                shared.close_window();
            }
            outcome
        })
    };
    let opened = open(desk, Start::Call(Box::new(Running::new(handle, &runtime)), place), None);
    let _ = gone.send(opened.as_ref().err().map(ToString::to_string));
    let ended = runtime.block_on(ending).unwrap_or_else(|_| Err(Failure::Failed("the call broke off".to_owned())));
    opened.and(ended)
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
    let picture = {
        let _inside = runtime.enter();
        demo.picture(args, args.seconds)
    };
    if let Some(seconds) = args.seconds {
        let shared = Arc::clone(&shared);
        runtime.spawn(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            shared.close_window();
        });
    }
    let target = Target::Hosted { name: "demo".to_owned() };
    let opened = open(desk, Start::Call(Box::new(Running::new(first, &runtime)), target), None);
    let failed = opened.as_ref().err().map(ToString::to_string);
    opened.and(runtime.block_on(demo::finish(demo, args, picture, failed)))
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

fn open(desk: Desk, start: Start, log: Option<FrameLog>) -> Result<(), Failure> {
    let (shared, runtime) = (Arc::clone(&desk.shared), Arc::clone(&desk.runtime));
    let host = Arc::clone(&desk.host);
    let asked = runtime.spawn(close_when_asked(Arc::clone(&shared)));
    let result = run(Box::new(desk), start, log)
        .map_err(|e| Failure::Failed(format!("no window could be opened: {e}; use --headless without a display")));
    asked.abort();
    // The window is gone; everybody in the calls is to hear that we left.
    let calls = std::mem::take(&mut shared.lock().calls);
    drop(runtime.block_on(common::leave(&calls, GOOD_BYE)));
    let closed = host.replace(&runtime, || None);
    // A room that is still opening may take longer than anybody wants to wait; it ends with the process.
    let _ = runtime.block_on(async { tokio::time::timeout(GOOD_BYE, closed).await });
    result
}

/// Ctrl-C and SIGTERM close the window, without a question. Should it hang, its calls are left all the same, and the process
/// ends without it; at once when it is asked a second time.
async fn close_when_asked(shared: Arc<Shared>) {
    common::asked_to_end().await;
    shared.close_window();
    let calls = shared.lock().calls.clone();
    let patience = async {
        drop(common::leave(&calls, GOOD_BYE).await);
        tokio::time::sleep(GOOD_BYE).await;
    };
    tokio::select! {
        () = patience => {}
        () = common::asked_to_end() => {}
    }
    common::remark("tertulia: the window does not close");
    std::process::exit(i32::from(super::FAILED));
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
