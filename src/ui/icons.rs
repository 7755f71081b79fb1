//! Icons: Phosphor 2.1 by name, drawn with the families `icons` (outline) and `icons_fill`.
//!
//! Written by `assets/fonts/make_fonts.py`; the bundled subset holds exactly these.

/// `arrows-in`.
pub const ARROWS_IN: &str = "\u{E09A}";
/// `arrows-out`.
pub const ARROWS_OUT: &str = "\u{E0A2}";
/// `arrow-clockwise`.
pub const ARROW_CLOCKWISE: &str = "\u{E036}";
/// `arrow-down`.
pub const ARROW_DOWN: &str = "\u{E03E}";
/// `arrow-left`.
pub const ARROW_LEFT: &str = "\u{E058}";
/// `arrow-right`.
pub const ARROW_RIGHT: &str = "\u{E06C}";
/// `arrow-up`.
pub const ARROW_UP: &str = "\u{E08E}";
/// `bell`.
pub const BELL: &str = "\u{E0CE}";
/// `broadcast`.
pub const BROADCAST: &str = "\u{E0F2}";
/// `camera`.
pub const CAMERA: &str = "\u{E10E}";
/// `camera-slash`.
pub const CAMERA_SLASH: &str = "\u{E110}";
/// `caret-down`.
pub const CARET_DOWN: &str = "\u{E136}";
/// `caret-left`.
pub const CARET_LEFT: &str = "\u{E138}";
/// `caret-right`.
pub const CARET_RIGHT: &str = "\u{E13A}";
/// `caret-up`.
pub const CARET_UP: &str = "\u{E13C}";
/// `cell-signal-slash`.
pub const CELL_SIGNAL_SLASH: &str = "\u{E14C}";
/// `chat-circle`.
pub const CHAT_CIRCLE: &str = "\u{E168}";
/// `check`.
pub const CHECK: &str = "\u{E182}";
/// `check-circle`.
pub const CHECK_CIRCLE: &str = "\u{E184}";
/// `clock-counter-clockwise`.
pub const CLOCK_COUNTER_CLOCKWISE: &str = "\u{E1A0}";
/// `cloud-slash`.
pub const CLOUD_SLASH: &str = "\u{E1B6}";
/// `copy`.
pub const COPY: &str = "\u{E1CA}";
/// `desktop`.
pub const DESKTOP: &str = "\u{E560}";
/// `dots-three`.
pub const DOTS_THREE: &str = "\u{E1FE}";
/// `eye`.
pub const EYE: &str = "\u{E220}";
/// `eye-slash`.
pub const EYE_SLASH: &str = "\u{E224}";
/// `flip-horizontal`.
pub const FLIP_HORIZONTAL: &str = "\u{ED6A}";
/// `gear-six`.
pub const GEAR_SIX: &str = "\u{E272}";
/// `git-merge`.
pub const GIT_MERGE: &str = "\u{E280}";
/// `globe`.
pub const GLOBE: &str = "\u{E288}";
/// `grid-four`.
pub const GRID_FOUR: &str = "\u{E296}";
/// `hand`.
pub const HAND: &str = "\u{E298}";
/// `hard-drives`.
pub const HARD_DRIVES: &str = "\u{E2A0}";
/// `headphones`.
pub const HEADPHONES: &str = "\u{E2A6}";
/// `info`.
pub const INFO: &str = "\u{E2CE}";
/// `key`.
pub const KEY: &str = "\u{E2D6}";
/// `link`.
pub const LINK: &str = "\u{E2E2}";
/// `lock`.
pub const LOCK: &str = "\u{E2FA}";
/// `magnifying-glass`.
pub const MAGNIFYING_GLASS: &str = "\u{E30C}";
/// `microphone`.
pub const MICROPHONE: &str = "\u{E326}";
/// `microphone-slash`.
pub const MICROPHONE_SLASH: &str = "\u{E328}";
/// `minus`.
pub const MINUS: &str = "\u{E32A}";
/// `monitor-arrow-up`.
pub const MONITOR_ARROW_UP: &str = "\u{E58A}";
/// `paper-plane-right`.
pub const PAPER_PLANE_RIGHT: &str = "\u{E396}";
/// `password`.
pub const PASSWORD: &str = "\u{E752}";
/// `phone`.
pub const PHONE: &str = "\u{E3B8}";
/// `phone-disconnect`.
pub const PHONE_DISCONNECT: &str = "\u{E3BC}";
/// `play`.
pub const PLAY: &str = "\u{E3D0}";
/// `plug`.
pub const PLUG: &str = "\u{E946}";
/// `plugs-connected`.
pub const PLUGS_CONNECTED: &str = "\u{EB5A}";
/// `plus`.
pub const PLUS: &str = "\u{E3D4}";
/// `prohibit`.
pub const PROHIBIT: &str = "\u{E3DE}";
/// `push-pin`.
pub const PUSH_PIN: &str = "\u{E3E2}";
/// `question`.
pub const QUESTION: &str = "\u{E3E8}";
/// `record`.
pub const RECORD: &str = "\u{E3EE}";
/// `screencast`.
pub const SCREENCAST: &str = "\u{E404}";
/// `shield-check`.
pub const SHIELD_CHECK: &str = "\u{E40C}";
/// `shield-warning`.
pub const SHIELD_WARNING: &str = "\u{E412}";
/// `sign-out`.
pub const SIGN_OUT: &str = "\u{E42A}";
/// `sliders-horizontal`.
pub const SLIDERS_HORIZONTAL: &str = "\u{E434}";
/// `smiley`.
pub const SMILEY: &str = "\u{E436}";
/// `speaker-high`.
pub const SPEAKER_HIGH: &str = "\u{E44A}";
/// `speaker-slash`.
pub const SPEAKER_SLASH: &str = "\u{E45A}";
/// `spinner-gap`.
pub const SPINNER_GAP: &str = "\u{E66C}";
/// `squares-four`.
pub const SQUARES_FOUR: &str = "\u{E464}";
/// `ticket`.
pub const TICKET: &str = "\u{E490}";
/// `trash`.
pub const TRASH: &str = "\u{E4A6}";
/// `user`.
pub const USER: &str = "\u{E4C2}";
/// `users`.
pub const USERS: &str = "\u{E4D6}";
/// `users-three`.
pub const USERS_THREE: &str = "\u{E68E}";
/// `user-plus`.
pub const USER_PLUS: &str = "\u{E4D0}";
/// `video-camera`.
pub const VIDEO_CAMERA: &str = "\u{E4DA}";
/// `video-camera-slash`.
pub const VIDEO_CAMERA_SLASH: &str = "\u{E4DC}";
/// `wall`.
pub const WALL: &str = "\u{E688}";
/// `warning`.
pub const WARNING: &str = "\u{E4E0}";
/// `warning-circle`.
pub const WARNING_CIRCLE: &str = "\u{E4E2}";
/// `wifi-slash`.
pub const WIFI_SLASH: &str = "\u{E4F2}";
/// `x`.
pub const X: &str = "\u{E4F6}";
/// `x-circle`.
pub const X_CIRCLE: &str = "\u{E4F8}";
