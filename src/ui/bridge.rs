//! What the window asks of the rest of the program, as traits: the composition implements them, tests bring a scripted one.
//!
//! Nothing here blocks. A wish is handed over and returns at once; its outcome is read from a snapshot on a later frame,
//! and whoever produces one calls the repaint function the window was given in [`Backend::set_repaint`].

use std::sync::Arc;

use crate::call::Command;
use crate::call::view::{DeviceState, Failure, Level, View};
use crate::media::video::frame::FrameSlot;

/// Wakes the window. Cheap, callable from any thread.
pub type Repaint = Arc<dyn Fn() + Send + Sync>;

/// One device of the machine, or a source without one (`pattern`, `tone`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// SOURCE or SINK in the notation of the command line (`device:0`, `pattern:4`).
    pub source: String,
    /// Name for people.
    pub name: String,
    /// What a speaker plays, as a source: never used unasked.
    pub monitor: bool,
}

impl Device {
    /// A source that is no monitor.
    pub fn new(source: impl Into<String>, name: impl Into<String>) -> Self {
        Self { source: source.into(), name: name.into(), monitor: false }
    }

    /// Whether this row is whatever the system says at the moment; its name is that of the device it is now.
    pub fn follows_system(&self) -> bool {
        self.source == Self::SYSTEM
    }

    /// The source of such a row.
    pub const SYSTEM: &str = "device";
}

/// The devices of one kind as far as they are known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Devices {
    /// Still being listed.
    #[default]
    Looking,
    /// The list; empty when there is none. The first that is no monitor is the system's choice.
    Known(Vec<Device>),
}

impl Devices {
    /// The list, empty while it is being made.
    pub fn list(&self) -> &[Device] {
        match self {
            Self::Looking => &[],
            Self::Known(list) => list,
        }
    }
}

/// A monitor or window that can be shared.
#[derive(Debug, Clone)]
pub struct Screen {
    /// Screen SOURCE (`monitor:0`, `window:…`).
    pub source: String,
    /// Title of a window; empty for a monitor.
    pub title: String,
    /// Size in pixels.
    pub size: (u32, u32),
    /// A small picture of it, once there is one.
    pub frames: FrameSlot,
}

/// What can be shared, as far as it is known.
#[derive(Debug, Clone, Default)]
pub enum Screens {
    /// Still being listed.
    #[default]
    Looking,
    /// Monitors from left to right, then windows.
    Known(Vec<Screen>),
}

/// What the lobby holds open. `None` is a closed device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceChoice {
    /// Camera SOURCE.
    pub camera: Option<String>,
    /// Microphone SOURCE.
    pub microphone: Option<String>,
    /// Speaker SINK.
    pub speaker: Option<String>,
}

/// What the lobby shows of the devices it holds open.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// Own picture.
    pub frames: FrameSlot,
    /// State of the camera.
    pub camera: DeviceState,
    /// State of the microphone.
    pub microphone: DeviceState,
    /// Level of the microphone.
    pub level: Level,
}

/// A server that sessions can be joined on by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// Base address, `https://meet.example.org`.
    pub url: String,
    /// The user knows this server: its certificate need not be vouched for by anybody.
    pub own_certificate: bool,
}

/// A session joined before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recent {
    /// Session name.
    pub session: String,
    /// Host part of the server.
    pub host: String,
    /// Unix time in ms of the last visit.
    pub at_unix_ms: u64,
}

/// What the window keeps between starts; the composition stores it with the other settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Preferences {
    /// Own name.
    pub name: String,
    /// Name offered for a room started here.
    pub room_name: String,
    /// Known servers, the chosen one first.
    pub servers: Vec<Server>,
    /// Newest first, at most 20.
    pub recent: Vec<Recent>,
    /// `dark`, `light` or `system`.
    pub theme: ThemeChoice,
    /// Language tag, empty for the system's.
    pub language: String,
    /// Devices chosen last; `None` is the default device.
    pub devices: DeviceChoice,
    /// The microphone is muted on joining.
    pub join_muted: bool,
    /// The camera is off on joining.
    pub join_without_camera: bool,
    /// The own picture is mirrored, for oneself only.
    pub mirror: bool,
}

/// Which palette is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThemeChoice {
    /// As the desktop says.
    #[default]
    System,
    /// Dark.
    Dark,
    /// Light.
    Light,
}

/// Where to go.
#[derive(Clone, PartialEq, Eq)]
pub enum Target {
    /// An invitation as it was pasted. Holds a key: never printed.
    Invitation(String),
    /// A token or token address as it was pasted. Never printed.
    Token(String),
    /// A session by name on a known server.
    Session {
        /// Base address of the server.
        server: String,
        /// Session name.
        name: String,
    },
    /// The room this computer hosts, started by [`Backend::start_room`].
    Hosted {
        /// Room name.
        name: String,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Invitation(_) => f.write_str("Invitation(…)"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Session { server, name } => {
                f.debug_struct("Session").field("server", server).field("name", name).finish()
            }
            Self::Hosted { name } => f.debug_struct("Hosted").field("name", name).finish(),
        }
    }
}

/// One wish to enter a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Where to.
    pub target: Target,
    /// The name others see.
    pub name: String,
    /// Devices; `None` joins without one.
    pub devices: DeviceChoice,
    /// Start with the microphone's gate closed.
    pub muted: bool,
    /// Start with the camera closed.
    pub camera_off: bool,
    /// The user allowed this server's own certificate ([`Server::own_certificate`]); never set for an invitation, which pins it.
    pub own_certificate: bool,
}

/// A running call.
pub trait Call: Send {
    /// Hands a command over; never blocks.
    fn send(&self, command: Command);
    /// The newest snapshot; a pointer swap.
    fn view(&self) -> Arc<View>;
}

/// The room this computer hosts.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum RoomState {
    /// None.
    #[default]
    None,
    /// Being started.
    Starting,
    /// Open.
    Open {
        /// Room name.
        name: String,
        /// `tertulia://…`, to be copied. Holds a key: never printed.
        invitation: String,
        /// The same for a browser, if there is one.
        browser_link: Option<String>,
        /// TCP and UDP port.
        port: u16,
    },
    /// Could not start (`err.port`, `err.host_net`).
    Failed(Failure),
}

impl std::fmt::Debug for RoomState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Starting => f.write_str("Starting"),
            Self::Open { name, port, .. } => f.debug_struct("Open").field("name", name).field("port", port).finish(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// The rest of the program, as the window sees it. Every method returns at once.
pub trait Backend {
    /// Called once before the first frame.
    fn set_repaint(&mut self, repaint: Repaint);

    /// What was stored.
    fn preferences(&self) -> Preferences;
    /// Stores. Called on a change, not on every frame.
    fn set_preferences(&mut self, preferences: &Preferences);
    /// Keeps the secret of a server (user `OPENVIDUAPP`) in the keyring, or for this run where there is none.
    fn set_secret(&mut self, server: &str, secret: String);

    /// Asks for fresh lists; they appear in the three readers below.
    fn refresh_devices(&mut self);
    /// Cameras.
    fn cameras(&self) -> Devices;
    /// Microphones.
    fn microphones(&self) -> Devices;
    /// Speakers.
    fn speakers(&self) -> Devices;

    /// Makes the lobby hold exactly these devices open; all `None` closes everything. Devices open in the background.
    fn set_preview(&mut self, choice: &DeviceChoice);
    /// What the lobby's devices give.
    fn preview(&self) -> Preview;
    /// Plays a short tone on the chosen speaker.
    fn test_speaker(&mut self);

    /// Starts hosting a room of this name; `port` 0 is the default. The outcome appears in [`Backend::room`].
    fn start_room(&mut self, name: &str, port: u16);
    /// The hosted room.
    fn room(&self) -> RoomState;
    /// Ends hosting.
    fn stop_room(&mut self);

    /// Enters a room. The lobby's devices are taken over; progress and refusal are in the call's view.
    fn join(&mut self, request: JoinRequest) -> Box<dyn Call>;

    /// Whether the window is to close itself, without asking: the time given on the command line is over, or the program was
    /// told to end. Read on every frame; whoever sets it calls the repaint function.
    fn wants_close(&self) -> bool {
        false
    }

    /// The file that keeps place and size of the window; `None` is the toolkit's own.
    fn window_file(&self) -> Option<std::path::PathBuf> {
        None
    }

    /// Whether a screen can be shared here.
    fn can_share(&self) -> bool {
        false
    }

    /// Whether the desktop asks what to share, in a dialog of its own: then there is none of ours (source `portal:ask`).
    fn desktop_picks_screen(&self) -> bool {
        false
    }

    /// Asks for a fresh list of what can be shared; it appears in [`Backend::screens`].
    fn refresh_screens(&mut self) {}

    /// What can be shared.
    fn screens(&self) -> Screens {
        Screens::Known(Vec::new())
    }
}
