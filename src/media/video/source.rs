//! Where pictures come from, as the command line and the settings name it.

use std::path::PathBuf;
use std::str::FromStr;

use super::codec::MAX_DIMENSION;

/// A SOURCE that cannot be understood; the text says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(String);

/// Size and frame rate wanted from a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoMode {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Pictures a second.
    pub fps: u32,
}

impl VideoMode {
    /// What is asked for when nothing is said: 1280x720@30.
    pub const DEFAULT: Self = Self { width: 1280, height: 720, fps: 30 };
}

impl FromStr for VideoMode {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let wrong = || SourceError(format!("“{text}” is no size: write it like 1280x720@30"));
        let (size, fps) = text.split_once('@').ok_or_else(wrong)?;
        let (width, height) = size.split_once('x').ok_or_else(wrong)?;
        let number = |s: &str| s.parse::<u32>().map_err(|_| wrong());
        let (width, height, fps) = (number(width)?, number(height)?, number(fps)?);
        let fits = |d: u32| (64..=MAX_DIMENSION).contains(&d) && d.is_multiple_of(2);
        if !fits(width) || !fits(height) {
            return Err(SourceError(format!("“{text}”: width and height are even numbers from 64 to {MAX_DIMENSION}")));
        }
        if !(1..=120).contains(&fps) {
            return Err(SourceError(format!("“{text}”: from 1 to 120 pictures a second are possible")));
        }
        Ok(Self { width, height, fps })
    }
}

/// The test picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternSource {
    /// Number in the strip and in the picture.
    pub id: u8,
    /// Size and rate.
    pub mode: VideoMode,
    /// Whether it flashes on every full second.
    pub sync: bool,
}

/// Which of the cameras.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraChoice {
    /// The first that opens.
    Default,
    /// By position in [`super::device::list_cameras`].
    Index(u32),
    /// By (part of) its name.
    Name(String),
}

/// A camera SOURCE: `pattern[+sync][:ID[:WxH@FPS]]`, `file:PATH`, `device[:INDEX or NAME[:WxH@FPS]]` or `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraSource {
    /// No camera.
    None,
    /// The test picture.
    Pattern(PatternSource),
    /// A y4m, ivf or mjpeg file, looped.
    File(PathBuf),
    /// A real camera.
    Device {
        /// Which.
        choice: CameraChoice,
        /// What to ask it for; it may give something near.
        mode: VideoMode,
    },
}

impl CameraSource {
    /// Reads the notation of the command line. Errors are for the user's eyes.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let (kind, rest) = split_kind(text);
        match kind {
            "none" if rest.is_none() => Ok(Self::None),
            "pattern" | "pattern+sync" => Ok(Self::Pattern(pattern(rest, kind == "pattern+sync")?)),
            "file" => match rest {
                Some(path) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
                _ => Err(SourceError("file: needs a path, like file:talk.y4m".into())),
            },
            "device" => {
                let (choice, mode) = match rest {
                    None => (CameraChoice::Default, VideoMode::DEFAULT),
                    Some(rest) => device(rest)?,
                };
                Ok(Self::Device { choice, mode })
            }
            _ => Err(SourceError(format!("“{text}” is no camera source: use pattern, file:PATH, device or none"))),
        }
    }

    /// What the source will most likely give, before it is open.
    pub fn mode(&self) -> Option<VideoMode> {
        match self {
            Self::Pattern(pattern) => Some(pattern.mode),
            Self::Device { mode, .. } => Some(*mode),
            Self::None | Self::File(_) => None,
        }
    }
}

/// A screen SOURCE: `pattern[:ID[:WxH@FPS]]`, `file:PATH`, `monitor[:N]`, `window:TITLE` or `portal[:ask]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScreenSource {
    /// The test picture.
    Pattern(PatternSource),
    /// A y4m, ivf or mjpeg file, looped.
    File(PathBuf),
    /// A monitor, counted from 0.
    Monitor(u32),
    /// The window of this number (`0x…`, as X11 counts), else the first whose title holds this text.
    Window(String),
    /// The desktop's own picker (Wayland).
    Portal {
        /// The last choice without a dialog, where the desktop still knows it.
        again: bool,
    },
}

impl ScreenSource {
    /// Reads the notation of the command line. Errors are for the user's eyes.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let (kind, rest) = split_kind(text);
        match (kind, rest) {
            ("pattern" | "pattern+sync", _) => Ok(Self::Pattern(pattern(rest, kind == "pattern+sync")?)),
            ("file", Some(path)) if !path.is_empty() => Ok(Self::File(PathBuf::from(path))),
            ("monitor", None) => Ok(Self::Monitor(0)),
            ("monitor", Some(number)) => number
                .parse()
                .map(Self::Monitor)
                .map_err(|_| SourceError(format!("“{number}” is no monitor number: 0 is the first"))),
            ("window", Some(title)) if !title.is_empty() => Ok(Self::Window(title.to_owned())),
            ("window", _) => Err(SourceError("window: needs a part of the window's title, like window:Slides".into())),
            ("portal", None) => Ok(Self::Portal { again: true }),
            ("portal", Some("ask")) => Ok(Self::Portal { again: false }),
            _ => Err(SourceError(format!(
                "“{text}” is no screen source: use pattern, file:PATH, monitor, window:TITLE or portal"
            ))),
        }
    }
}

/// What a shared screen is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tuning {
    /// Text, until a film is seen on it.
    #[default]
    Auto,
    /// Every pixel and sharp letters, up to 15 pictures a second.
    Text,
    /// Up to 1920x1080@30; details may be softer.
    Motion,
}

impl Tuning {
    /// All of them, in the order they are offered.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Text, Self::Motion];

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Motion => "motion",
        }
    }

    /// Reads the word of the command line.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        Self::ALL
            .into_iter()
            .find(|tuning| tuning.name() == text)
            .ok_or_else(|| SourceError(format!("a screen is tuned for auto, text or motion, not “{text}”")))
    }
}

fn split_kind(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (text, None),
    }
}

fn pattern(rest: Option<&str>, sync: bool) -> Result<PatternSource, SourceError> {
    let Some(rest) = rest else {
        return Ok(PatternSource { id: 0, mode: VideoMode::DEFAULT, sync });
    };
    let (id, mode) = match rest.split_once(':') {
        Some((id, mode)) => (id, mode.parse()?),
        None => (rest, VideoMode::DEFAULT),
    };
    let id = id.parse().map_err(|_| SourceError(format!("“{id}” is no pattern number: 0 to 255")))?;
    Ok(PatternSource { id, mode, sync })
}

fn device(rest: &str) -> Result<(CameraChoice, VideoMode), SourceError> {
    // A camera's name may itself hold colons: only a tail that looks like a size is one.
    let (name, mode) = match rest.rsplit_once(':') {
        Some((name, tail)) if tail.contains('@') => (name, tail.parse()?),
        _ => (rest, VideoMode::DEFAULT),
    };
    let choice = if name.is_empty() {
        CameraChoice::Default
    } else if let Ok(index) = name.parse() {
        CameraChoice::Index(index)
    } else {
        CameraChoice::Name(name.to_owned())
    };
    Ok((choice, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_the_command_line_is_read() {
        let default = PatternSource { id: 0, mode: VideoMode::DEFAULT, sync: false };
        assert_eq!(CameraSource::parse("pattern"), Ok(CameraSource::Pattern(default)));
        assert_eq!(
            CameraSource::parse("pattern+sync:4"),
            Ok(CameraSource::Pattern(PatternSource { id: 4, sync: true, ..default }))
        );
        let small = VideoMode { width: 640, height: 360, fps: 15 };
        assert_eq!(
            CameraSource::parse("pattern:255:640x360@15"),
            Ok(CameraSource::Pattern(PatternSource { id: 255, mode: small, sync: false }))
        );
        assert_eq!(CameraSource::parse("none"), Ok(CameraSource::None));
        assert_eq!(CameraSource::parse("file:a:b.y4m"), Ok(CameraSource::File("a:b.y4m".into())));
        let device = |choice, mode| Ok(CameraSource::Device { choice, mode });
        assert_eq!(CameraSource::parse("device"), device(CameraChoice::Default, VideoMode::DEFAULT));
        assert_eq!(CameraSource::parse("device:1"), device(CameraChoice::Index(1), VideoMode::DEFAULT));
        assert_eq!(CameraSource::parse("device:1:640x360@15"), device(CameraChoice::Index(1), small));
        assert_eq!(
            CameraSource::parse("device:HD Cam: Rear:640x360@15"),
            device(CameraChoice::Name("HD Cam: Rear".into()), small)
        );
        assert_eq!(
            CameraSource::parse("device:HD Cam: Rear"),
            device(CameraChoice::Name("HD Cam: Rear".into()), VideoMode::DEFAULT)
        );
        assert_eq!(ScreenSource::parse("monitor"), Ok(ScreenSource::Monitor(0)));
        assert_eq!(ScreenSource::parse("monitor:2"), Ok(ScreenSource::Monitor(2)));
        assert_eq!(ScreenSource::parse("window:My: slides"), Ok(ScreenSource::Window("My: slides".into())));
        assert_eq!(ScreenSource::parse("portal"), Ok(ScreenSource::Portal { again: true }));
        assert_eq!(ScreenSource::parse("file:a:b.y4m"), Ok(ScreenSource::File("a:b.y4m".into())));
        assert_eq!(Tuning::parse("motion"), Ok(Tuning::Motion));
        assert!(Tuning::parse("Text").is_err());
        assert_eq!(ScreenSource::parse("pattern:9"), Ok(ScreenSource::Pattern(PatternSource { id: 9, ..default })));
    }

    #[test]
    fn wrong_sources_say_what_was_expected() {
        for (text, hint) in [
            ("", "pattern"),
            ("webcam", "pattern"),
            ("none:1", "pattern"),
            ("pattern:256", "0 to 255"),
            ("pattern:x", "0 to 255"),
            ("pattern:1:640x360", "1280x720@30"),
            ("pattern:1:641x360@30", "even"),
            ("pattern:1:99999x360@30", "even"),
            ("pattern:1:640x360@0", "1 to 120"),
            ("file:", "path"),
            ("device:0:1x1@30", "even"),
        ] {
            let error = CameraSource::parse(text).expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        for text in ["", "monitor:x", "window:", "window", "portal:1", "device", "file:"] {
            assert!(ScreenSource::parse(text).is_err(), "{text}");
        }
    }
}
