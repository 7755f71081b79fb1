//! The immutable snapshot of a call that the window draws and tests assert on.

use crate::media::video::frame::FrameSlot;
pub use crate::media::video::source::Tuning;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Everything a window needs to draw a call. Replaced as a whole, never changed in place.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Session name.
    pub session: String,
    /// Host part of the server's address, for "Hosted by …".
    pub server: String,
    /// Who vouches for the server.
    pub trust: Vouched,
    /// Where the connection stands.
    pub connection: Connection,
    /// Myself.
    pub me: Me,
    /// Everybody else, in order of joining.
    pub people: Vec<Person>,
    /// Tiles in order of joining, own camera last.
    pub tiles: Vec<Tile>,
    /// Chat, oldest first, at most 5 000.
    pub chat: Vec<ChatLine>,
    /// Notices that still stand, newest last, at most 3 are shown.
    pub notices: Vec<Notice>,
    /// When the call started, for the clock in the top bar.
    pub joined_at: Option<std::time::Instant>,
    /// Round trip to the media server in ms, if known.
    pub rtt_ms: Option<f32>,
    /// No pictures are received, by the user's wish.
    pub sound_only: bool,
}

/// Who vouches for the server, and hence for what is said about the encryption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Vouched {
    /// Its certificate; or it is this very computer.
    #[default]
    Certificate,
    /// Nobody: any certificate was accepted (`--insecure`).
    Nobody,
    /// Nobody, and whoever is on the way can read all messages (`ws://`, `http://`).
    Plain,
}

/// State of the connection, each with its own text on the screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Connection {
    /// Nothing started.
    #[default]
    Idle,
    /// On the way in; the step is one of the three of the lobby.
    Joining(JoinStep),
    /// In the session.
    Connected,
    /// The socket is silent, not yet given up.
    Checking,
    /// The socket is gone, trying to resume.
    Reconnecting {
        /// Number of the attempt, from 1.
        attempt: u32,
        /// Milliseconds to the next try.
        retry_in_ms: u64,
        /// Milliseconds for which the server still keeps our place, 0 when over.
        place_kept_ms: u64,
    },
    /// The window has passed: joining again with a new token.
    Rejoining {
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Over, with the reason as `openvidu-browser` names it (`disconnect`, `forceDisconnectByUser` …) or a failure's key.
    Ended {
        /// Reason key.
        reason: String,
    },
    /// Could not join, or given up.
    Failed(Failure),
}

/// The three steps of joining that the lobby shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinStep {
    /// "Reaching {host}".
    Reaching,
    /// "Entering the room".
    Entering,
    /// "Opening sound and video".
    OpeningMedia,
}

/// A failure as `docs/failures.md` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Key of the text, for example `err.token`.
    pub key: &'static str,
    /// Values for the `{}` of the text.
    pub values: Vec<(&'static str, String)>,
    /// For the "Details" fold: code and technical cause, without tokens, secrets or names.
    pub detail: String,
}

/// Myself.
#[derive(Debug, Clone, Default)]
pub struct Me {
    /// My name.
    pub name: String,
    /// Connection id, once joined.
    pub connection_id: String,
    /// Whether the role allows publishing.
    pub may_publish: bool,
    /// Whether the role is MODERATOR.
    pub moderator: bool,
    /// Microphone.
    pub microphone: DeviceState,
    /// Camera.
    pub camera: DeviceState,
    /// Screen being shared.
    pub sharing: bool,
    /// What a shared screen is tuned for.
    pub tuning: Tuning,
    /// Level of my microphone after processing, before the gate.
    pub level: Level,
}

/// State of one of my devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DeviceState {
    /// Not wanted or not there.
    #[default]
    None,
    /// Muted by me: gate closed, camera device closed.
    Muted,
    /// Being opened.
    Opening,
    /// Live.
    On,
    /// Failed, with the key of the text (`dev.cam_busy` …).
    Failed(Failure),
}

/// Somebody else.
#[derive(Debug, Clone, Default)]
pub struct Person {
    /// Stable key: device key of our own clients, connection id of others. Volume and pin hang on it.
    pub key: String,
    /// Name.
    pub name: String,
    /// Connection id of the moment.
    pub connection_id: String,
    /// Volume, 1.0 is unchanged.
    pub gain: f32,
}

/// What a tile shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TileKind {
    /// A camera.
    #[default]
    Camera,
    /// A screen: never cropped.
    Screen,
}

/// One tile of the grid.
#[derive(Debug, Clone, Default)]
pub struct Tile {
    /// Stable key (person's key plus `/camera` or `/screen`).
    pub key: String,
    /// [`Person::key`]; `me` for my own.
    pub person: String,
    /// Stream id, empty before publishing.
    pub stream_id: String,
    /// Connection id.
    pub connection_id: String,
    /// Name to show.
    pub name: String,
    /// My own tile: mirrored, last.
    pub own: bool,
    /// Camera or screen.
    pub kind: TileKind,
    /// The person's microphone is on, as announced.
    pub audio_active: bool,
    /// The person's camera is on, as announced.
    pub video_active: bool,
    /// Pinned by the user.
    pub pinned: bool,
    /// Picture; empty while there is none.
    pub frames: FrameSlot,
    /// Voice level.
    pub level: Level,
    /// No packet for this long, in ms, when over 3 s: "No picture for 4 s. Reconnecting…".
    pub stalled_ms: Option<u64>,
    /// 0 to 4 bars.
    pub bars: u8,
    /// Failure to show in the tile (unsupported codec …).
    pub failure: Option<Failure>,
}

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatLine {
    /// Sender's name.
    pub name: String,
    /// Text.
    pub text: String,
    /// Mine.
    pub own: bool,
    /// Unix time in ms.
    pub at_unix_ms: u64,
}

/// A line that tells something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Rising number, so that the window can time each out.
    pub id: u64,
    /// Key of the text, for example `note.joined`.
    pub key: &'static str,
    /// Values for the `{}` of the text.
    pub values: Vec<(&'static str, String)>,
}

/// A level in dBFS that changes many times a second, beside the view.
#[derive(Debug, Clone, Default)]
pub struct Level(Arc<AtomicU32>);

impl Level {
    /// Writes a level in dBFS. True when a meter shows something else than before, or somebody begins or ends to speak.
    pub fn set_dbfs(&self, dbfs: f32) -> bool {
        let before = (self.mark(), self.speaking());
        self.0.store((dbfs + 200.0).max(0.0).to_bits(), Ordering::Relaxed);
        before != (self.mark(), self.speaking())
    }

    /// Marks of 2 dB above −60 dBFS: what is finer is not worth drawing a window again.
    fn mark(&self) -> i32 {
        (self.dbfs().clamp(-60.0, 0.0) / 2.0).round() as i32
    }

    /// Level in dBFS, −200 when nothing was ever written.
    pub fn dbfs(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed)) - 200.0
    }

    /// Whether somebody speaks, by level alone.
    pub fn speaking(&self) -> bool {
        self.dbfs() > -50.0
    }
}
