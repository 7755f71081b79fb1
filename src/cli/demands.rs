//! What the command line asked for by name, and whether it ever worked. The call goes on without it; the command has failed.

use super::args::MediaArgs;
use crate::call::Event;
use crate::call::report::Report;

/// What to do where the call went on without a device, a file or a publication, by the key of what went wrong.
const REMEDIES: [(&str, &str); 18] = [
    ("dev.cam_none", "plug one in, or join with --camera none"),
    ("dev.cam_busy", "close the other program, or choose another with --camera device:NAME"),
    ("dev.cam_denied", "allow it in the system's settings, or join with --camera none"),
    ("dev.cam_lost", "plug it in again, or choose another with --camera device:NAME"),
    ("dev.file", "check the path; y4m, ivf and mjpeg can be played"),
    ("dev.sound_file", "check the path; wav can be played and written"),
    ("dev.sound_start", "restart the sound system, or join with --microphone none --speaker null"),
    ("dev.mic_none", "plug one in, or join with --microphone none"),
    ("dev.mic_denied", "allow it in the system's settings, or join with --microphone none"),
    ("dev.mic_busy", "close the other program, or choose another with --microphone device:ID"),
    ("dev.mic_refuses", "plug it in anew, or choose another with --microphone device:ID"),
    ("dev.mic_silent", "switch it on, or choose another with --microphone device:ID"),
    ("dev.spk_none", "plug one in, or join with --speaker null"),
    ("dev.spk_busy", "close the other program, or choose another with --speaker device:ID"),
    ("dev.spk_refuses", "plug it in anew, or choose another with --speaker device:ID"),
    ("err.portal", "share a screen with --screen monitor, or a window with --screen window:TITLE"),
    ("err.codec", "try --codec auto"),
    ("err.rights", "ask a moderator for another role"),
];

/// Why the command has failed although the call went on; `None` where everything that was asked for by name worked for a time.
/// What is lost later is an event only.
pub(super) fn unmet(args: &MediaArgs, report: &Report) -> Option<String> {
    let named = |option: &Option<String>| option.as_deref().is_some_and(|o| o != "none" && o != "null");
    let (camera, microphone, speaker) = (named(&args.camera), named(&args.microphone), named(&args.speaker));
    let screen_sent = report.streams.iter().any(|s| s.direction == "send" && s.source == "screen");
    let screen = args.screen.is_some() && !screen_sent;
    [
        (camera, "the camera", Failed::Device("camera"), "cameraOpened"),
        (microphone, "the microphone", Failed::Device("microphone"), "microphoneOpened"),
        (speaker, "the speaker", Failed::Device("speaker"), "speakerOpened"),
        (camera || microphone, "publishing", Failed::Publication, "published"),
        (screen, "the screen", Failed::Screen, ""),
    ]
    .into_iter()
    .filter(|(asked, ..)| *asked)
    .find_map(|(_, what, failed, works)| {
        let failure = report.events.iter().find(|e| failed.is(e))?;
        if report.events.iter().any(|e| e.event == works) {
            return None;
        }
        let key = [text(failure, "key"), text(failure, "reason")].concat();
        let cause = match text(failure, "message") {
            "" => key.as_str(),
            message => message,
        };
        let remedy = REMEDIES.iter().find(|(k, _)| *k == key).map_or("try again", |(_, remedy)| remedy);
        Some(format!("{what} was asked for and never worked: {cause}; {remedy}"))
    })
}

/// How the events tell that something does not work.
enum Failed {
    Device(&'static str),
    Publication,
    Screen,
}

impl Failed {
    fn is(&self, event: &Event) -> bool {
        match self {
            // Without the machinery of sound there is neither of its devices.
            Self::Device(device) => {
                let sound = *device != "camera" && is(event, "device", "audio");
                event.event == "deviceError" && (sound || is(event, "device", device))
            }
            // A command of the user's own that is refused has no key.
            Self::Publication => {
                event.event == "error" && is(event, "command", "publish") && event.detail.contains_key("key")
            }
            // Reasons of the user's own are words, the others are keys.
            Self::Screen => event.event == "shareStopped" && text(event, "reason").contains('.'),
        }
    }
}

fn text<'a>(event: &'a Event, member: &str) -> &'a str {
    event.detail.get(member).and_then(serde_json::Value::as_str).unwrap_or_default()
}

fn is(event: &Event, member: &str, value: &str) -> bool {
    text(event, member) == value
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::args::{Cli, CommandLine};
    use super::*;
    use crate::call::report::{ProcessReport, StreamReport};

    fn args(more: &[&str]) -> MediaArgs {
        let line = [&["tertulia", "join", "wss://h?sessionId=s&token=t"][..], more].concat();
        let Some(CommandLine::Join(args)) = Cli::parse_from(line).command else { panic!("a join") };
        args.media
    }

    fn report(events: &[Event]) -> Report {
        let mut report = Report::not_begun("join", "", Event::new(0, "joined"), ProcessReport::default());
        report.events.extend_from_slice(events);
        report
    }

    fn failed(device: &str, key: &str) -> Event {
        Event::new(1, "deviceError").with("device", device).with("key", key).with("message", "there is none")
    }

    #[test]
    fn what_was_asked_for_by_name_and_never_worked_is_a_failure() {
        let camera = args(&["--camera", "device"]);
        let none = report(&[failed("camera", "dev.cam_none")]);
        let error = unmet(&camera, &none).unwrap();
        assert!(error.contains("the camera") && error.contains("--camera none"), "{error}");
        // Nobody asked for it by name.
        assert_eq!(unmet(&args(&[]), &none), None);
        assert_eq!(unmet(&args(&["--camera", "none"]), &none), None);
        // Lost later, or another one taken meanwhile.
        let lost = report(&[Event::new(0, "cameraOpened"), failed("camera", "dev.cam_lost")]);
        assert_eq!(unmet(&camera, &lost), None);
        let late = report(&[failed("camera", "dev.cam_busy"), Event::new(2, "cameraOpened")]);
        assert_eq!(unmet(&camera, &late), None);
    }

    #[test]
    fn sound_publications_and_screens_count_alike() {
        let no_sound = report(&[failed("audio", "dev.sound_start")]);
        assert!(unmet(&args(&["--microphone", "device"]), &no_sound).unwrap().contains("the microphone"));
        assert!(unmet(&args(&["--speaker", "device"]), &no_sound).unwrap().contains("the speaker"));
        let refused = Event::new(1, "error").with("command", "publish").with("key", "err.codec").with("message", "no");
        let refused = report(&[refused]);
        assert!(unmet(&args(&["--camera", "pattern"]), &refused).unwrap().contains("--codec auto"));
        // A command of the user's own that was refused has no key.
        let twice = report(&[Event::new(1, "error").with("command", "publish").with("message", "already published")]);
        assert_eq!(unmet(&args(&["--camera", "pattern"]), &twice), None);
        let screen = args(&["--screen", "monitor"]);
        let mut stopped = report(&[Event::new(1, "shareStopped").with("reason", "err.portal")]);
        assert!(unmet(&screen, &stopped).unwrap().contains("the screen"));
        stopped.streams.push(StreamReport {
            direction: "send",
            source: "screen".to_owned(),
            ..StreamReport::default()
        });
        assert_eq!(unmet(&screen, &stopped), None);
        assert_eq!(unmet(&screen, &report(&[Event::new(1, "shareStopped").with("reason", "cancelled")])), None);
    }

    #[test]
    fn the_page_of_failures_says_the_same() {
        let page = include_str!("../../docs/failures.md");
        for (key, remedy) in REMEDIES {
            let row = page.lines().find(|l| l.contains(&format!("| `{key}` |")) && l.contains(remedy));
            assert!(row.is_some_and(|r| r.contains("| goes on; 1 at the end |") || key == "dev.mic_silent"), "{key}");
        }
    }
}
