//! `docs/failures.md` against the sources: every key, title, remedy and test it names is there, and every key there is in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use tertulia::host::HostError;
use tertulia::media::audio::AudioError;
use tertulia::protocol::room::RoomError;
use tertulia::signaling::SignalingError;
use tertulia::ui::{failure, text};

struct Row {
    what: String,
    key: String,
    title: String,
    remedy: String,
    exit: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    std::fs::read_to_string(root().join("docs/failures.md")).unwrap()
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = page()
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
            let [what, key, title, remedy, exit, tests] = cells.as_slice() else { return None };
            let key = key.strip_prefix('`')?.strip_suffix('`')?;
            assert!(tests.starts_with('`'), "{what}: no test raises it");
            Some(Row {
                what: (*what).to_owned(),
                key: key.to_owned(),
                title: (*title).to_owned(),
                remedy: (*remedy).to_owned(),
                exit: (*exit).to_owned(),
            })
        })
        .collect();
    assert!(rows.len() >= 28, "the tables are not where they were: {} rows", rows.len());
    rows
}

#[test]
fn every_key_has_the_title_the_page_says() {
    for row in rows() {
        assert_eq!(text::t(&format!("{}.title", row.key)), row.title, "{}", row.what);
        assert!(text::has(&format!("{}.text", row.key)), "{}: no text", row.key);
        assert!(!failure::remedies(&row.key).is_empty(), "{}: no way on", row.key);
        assert!(!row.remedy.is_empty(), "{}: the page has no remedy", row.what);
        let exits = ["1", "goes on", "goes on; 1 at the end", "1 while joining, else goes on"];
        assert!(exits.contains(&row.exit.as_str()), "{}: {}", row.what, row.exit);
    }
}

fn every_signaling_error() -> Vec<SignalingError> {
    use SignalingError::*;
    let (host, detail, session) = (|| "h".to_owned(), || "d".to_owned(), || "s".to_owned());
    let all = vec![
        BadLink { detail: detail() },
        UnknownHost { host: host() },
        Refused { host: host(), port: 1 },
        Unreachable { host: host(), detail: detail() },
        Silent { host: host(), port: 1, after_ms: 1 },
        Untrusted { host: host(), detail: detail() },
        PinMismatch { host: host() },
        NotOpenVidu { host: host(), detail: detail() },
        WrongSecret { host: host() },
        TokenRefused,
        NoSession { session: session() },
        Closed { session: session() },
        Full { session: session() },
        NotAllowed { detail: detail() },
        Codec { detail: detail() },
        Server { code: 1, message: detail() },
        NoAnswer { method: "m".to_owned() },
        NotConnected,
        NeedsNewToken,
        Gone { detail: detail() },
        NoCapacity { detail: detail() },
        Unsupported { detail: detail() },
    ];
    // A new variant does not compile here until it is in the list above and on the page.
    for error in &all {
        match error {
            BadLink { .. } | UnknownHost { .. } | Refused { .. } | Unreachable { .. } | Silent { .. } => {}
            Untrusted { .. } | PinMismatch { .. } | NotOpenVidu { .. } | WrongSecret { .. } | TokenRefused => {}
            NoSession { .. } | Closed { .. } | Full { .. } | NotAllowed { .. } | Codec { .. } => {}
            Server { .. } | NoAnswer { .. } | NotConnected | NeedsNewToken => {}
            Gone { .. } | NoCapacity { .. } | Unsupported { .. } => {}
        }
    }
    all
}

#[test]
fn every_failure_of_signaling_is_on_the_page_with_its_remedy() {
    let rows = rows();
    for error in every_signaling_error() {
        let found: Vec<&Row> = rows.iter().filter(|r| r.key == error.key()).collect();
        assert!(!found.is_empty(), "{} is not on the page", error.key());
        // The page gives the shortest form; a server's own error adds whom to tell.
        assert!(
            found.iter().any(|r| error.remedy().starts_with(&r.remedy) && !r.remedy.is_empty()),
            "{}: the page does not say {:?}",
            error.key(),
            error.remedy()
        );
    }
}

/// The text of a key with these values has no gap left in it.
fn whole(key: &str, values: &[(&'static str, String)]) {
    for part in ["title", "text"] {
        let text = text::tv(&format!("{key}.{part}"), values);
        assert!(!text.contains("%{"), "{key}.{part}: {text}");
    }
}

#[test]
fn every_text_of_a_server_and_of_a_device_can_be_filled_in() {
    for error in every_signaling_error() {
        whole(error.key(), &error.values());
    }
    for error in every_audio_error() {
        whole(error.key(), &error.values());
    }
    for error in every_host_error() {
        whole(error.key(), &error.values());
    }
}

fn every_audio_error() -> Vec<AudioError> {
    use AudioError::*;
    let (device, detail) = (|| "USB".to_owned(), || "d".to_owned());
    let all = vec![
        BadSource(detail()),
        BadSink(detail()),
        File { path: "a.wav".to_owned(), detail: detail() },
        NoMicrophone { detail: detail() },
        MicrophoneDenied { detail: detail() },
        MicrophoneBusy { device: device(), detail: detail() },
        MicrophoneRefuses { device: device(), detail: detail() },
        SpeakerBusy { device: device(), detail: detail() },
        SpeakerRefuses { device: device(), detail: detail() },
        NoSpeaker { detail: detail() },
        Codec(detail()),
        Thread(detail()),
    ];
    for error in &all {
        match error {
            BadSource(_) | BadSink(_) | File { .. } | NoMicrophone { .. } | MicrophoneDenied { .. } => {}
            MicrophoneBusy { .. } | SpeakerBusy { .. } | NoSpeaker { .. } | Codec(_) | Thread(_) => {}
            MicrophoneRefuses { .. } | SpeakerRefuses { .. } => {}
        }
    }
    all
}

fn every_host_error() -> Vec<HostError> {
    use HostError::*;
    let addr = "10.0.0.1:4443".parse().unwrap();
    let listen = |kind: std::io::ErrorKind| Listen { protocol: "TCP", addr, source: kind.into() };
    let all = vec![
        PortTaken { protocol: "TCP", port: 4443 },
        PortTaken { protocol: "UDP", port: 4443 },
        NoPermission { protocol: "TCP", port: 443 },
        NoSuchAddress(addr.ip()),
        listen(std::io::ErrorKind::NetworkUnreachable),
        listen(std::io::ErrorKind::Other),
        DataDir { path: "d".into(), reason: "r".to_owned() },
        Certificate { path: "c".into(), reason: "r".to_owned() },
        Rooms { path: "r".into(), reason: "r".to_owned() },
        Media("m".to_owned()),
        NotRunning,
        Room(RoomError::Name),
        Room(RoomError::Full),
    ];
    for error in &all {
        match error {
            PortTaken { .. } | NoPermission { .. } | NoSuchAddress(_) | Listen { .. } | DataDir { .. } => {}
            Certificate { .. } | Rooms { .. } | Media(_) | NotRunning | Room(RoomError::Name | RoomError::Full) => {}
        }
    }
    all
}

#[test]
fn every_failure_of_hosting_is_on_the_page_with_its_remedy() {
    let rows = rows();
    for error in every_host_error() {
        let row = rows.iter().find(|r| r.key == error.key());
        let row = row.unwrap_or_else(|| panic!("{} is not on the page", error.key()));
        assert!(error.remedy().starts_with(&row.remedy) && !row.remedy.is_empty(), "{}: {}", row.key, error.remedy());
    }
}

/// What the issue asks for by name.
#[test]
fn nothing_of_what_was_asked_for_is_missing() {
    let rows = rows();
    for what in [
        "malformed token",
        "used, expired",
        "wrong secret",
        "unknown host",
        "nobody listens",
        "no network",
        "TLS not trusted",
        "session full",
        "session closed",
        "no camera",
        "busy camera",
        "no microphone",
        "unsupported or forced codec",
        "server that never answers",
        "server that sends garbage",
    ] {
        assert!(rows.iter().any(|r| r.what.starts_with(what)), "{what}");
    }
}

/// Whoever runs into one of these with the program in hand sees it there: those rows name a test that starts the program.
#[test]
fn what_ends_the_command_is_raised_by_running_it() {
    // A port below 1024 belongs to nobody where tests run as root; a machine without a network, or full, is not to be had.
    let elsewhere =
        ["err.port_denied", "err.host_net", "err.host_listen", "err.host_start", "err.host_full", "err.offline"];
    for line in page().lines().filter(|l| l.contains("| 1 |")) {
        let key = line.split('`').nth(1).unwrap();
        if !elsewhere.contains(&key) && key.starts_with("err.") {
            assert!(line.contains("tests/e2e_"), "{key} is not raised by running the program");
        }
    }
}

#[test]
fn every_failure_of_devices_is_on_the_page() {
    let rows = rows();
    let on_page = |key: &str| assert!(rows.iter().any(|r| r.key == key), "{key} is not on the page");
    for error in every_audio_error() {
        on_page(error.key());
    }
    // The keys of the rooms below, found as texts: whoever adds one describes it.
    let mut seen = 0;
    let mut folders =
        vec![root().join("src/media"), root().join("src/call"), root().join("src/signaling"), root().join("src/host")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for key in source.split('"').skip(1).filter(|t| t.starts_with("err.") || t.starts_with("dev.")) {
                if key.bytes().all(|b| b.is_ascii_lowercase() || b"._".contains(&b)) {
                    on_page(key);
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 30, "the keys are not where they were: {seen}");
}

#[test]
fn every_test_the_page_names_is_there() {
    let mut seen = 0;
    for name in page().split('`').filter(|t| (t.starts_with("tests/") || t.starts_with("src/")) && t.contains(".rs")) {
        let (file, function) = match name.split_once("::") {
            Some((file, function)) => (file, Some(function)),
            None => (name, None),
        };
        let source =
            std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("the page names {file}: {e}"));
        if let Some(function) = function {
            assert!(source.contains(&format!("fn {function}(")), "{file} has no test {function}");
        }
        seen += 1;
    }
    assert!(seen > 40, "the tests are not where they were: {seen}");
}
