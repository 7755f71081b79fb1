//! The arrows between the rooms, and what is absent from each (ARCHITECTURE.md, "Invariants").
//!
//! The sources are read as tokens: comments and the contents of texts do not count, modules under `#[cfg(test)]` neither.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Which rooms a room may name. A room above may name one below, never the other way round: the list is ordered, and a test
/// holds every arrow to that order.
const ROOMS: &[(&str, &[&str])] = &[
    ("settings", &[]),
    ("protocol", &[]),
    ("rtp", &[]),
    ("wire", &["rtp"]),
    ("media", &["rtp"]),
    ("peer", &["rtp", "wire"]),
    ("signaling", &["protocol"]),
    ("lan", &["protocol"]),
    ("host", &["protocol", "rtp", "wire", "lan"]),
    // `wire` for one type only: the description of a simulated network, which the engine hands down to `peer`.
    ("call", &["protocol", "rtp", "wire", "media", "peer", "signaling"]),
    // `media` for the tile's slot and its picture only (`media::video::frame`); see `the_window_knows_pictures_only`.
    ("ui", &["settings", "media", "lan", "host", "call"]),
    ("cli", &["settings", "protocol", "rtp", "wire", "media", "peer", "signaling", "lan", "host", "call", "ui"]),
];

const WINDOW: &[&str] = &["egui", "eframe", "egui_glow", "winit", "glow"];
const TRANSPORT: &[&str] = &[
    "webrtc",
    "rtc",
    "tokio_tungstenite",
    "reqwest",
    "hyper",
    "hyper_util",
    "axum",
    "quinn_udp",
    "socket2",
    "if_addrs",
];
const CODECS_AND_DEVICES: &[&str] = &[
    "vpx_sys",
    "openh264",
    "openh264_sys2",
    "opus",
    "nokhwa",
    "cpal",
    "alsa",
    "x11rb",
    "windows_capture",
    "screencapturekit",
    "sonora",
];
const RUNTIME: &[&str] = &["tokio", "futures_util", "async_trait"];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["media/video/vp8.rs", "media/video/h264.rs", "media/screen/x11_shm.rs", "ui/video_gl.rs"];

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Name(String),
    /// `::`
    Path,
    Text(String),
    Mark(char),
}

struct Source {
    /// Below `src`, with `/`.
    name: String,
    tokens: Vec<(usize, Token)>,
}

impl Source {
    fn room(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// How deep its module lies: `ui/mod.rs` 1, `ui/tile.rs` 2.
    fn depth(&self) -> usize {
        let parts = self.name.split('/').count();
        if self.name.ends_with("/mod.rs") { parts - 1 } else { parts }
    }

    fn names(&self) -> impl Iterator<Item = (usize, &str, usize)> {
        self.tokens.iter().enumerate().filter_map(|(i, (line, t))| match t {
            Token::Name(name) => Some((i, name.as_str(), *line)),
            _ => None,
        })
    }

    fn is_path(&self, i: usize) -> bool {
        matches!(self.tokens.get(i), Some((_, Token::Path)))
    }

    fn name_at(&self, i: usize) -> Option<&str> {
        match self.tokens.get(i) {
            Some((_, Token::Name(name))) => Some(name),
            _ => None,
        }
    }

    fn mark_at(&self, i: usize) -> Option<char> {
        match self.tokens.get(i) {
            Some((_, Token::Mark(mark))) => Some(*mark),
            _ => None,
        }
    }

    /// The first names behind `A::` at `i`, also of every member of `A::{…}`.
    fn members(&self, i: usize) -> Vec<&str> {
        if !self.is_path(i + 1) {
            return Vec::new();
        }
        if let Some(name) = self.name_at(i + 2) {
            return vec![name];
        }
        let mut found = Vec::new();
        if self.mark_at(i + 2) != Some('{') {
            return found;
        }
        let (mut depth, mut first, mut at) = (1, true, i + 3);
        while depth > 0 && at < self.tokens.len() {
            match &self.tokens[at].1 {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                Token::Mark(',') if depth == 1 => {
                    first = true;
                    at += 1;
                    continue;
                }
                Token::Name(name) if depth == 1 && first => found.push(name.as_str()),
                _ => {}
            }
            first = false;
            at += 1;
        }
        found
    }

    /// Lines on which a path starts with one of these crates.
    fn crates(&self, crates: &[&str]) -> Vec<String> {
        self.names()
            .filter(|(i, name, _)| {
                crates.contains(name)
                    && (self.is_path(i + 1) || self.name_at(i.wrapping_sub(1)) == Some("use"))
                    && !self.is_path(i.wrapping_sub(1))
            })
            .map(|(_, name, line)| format!("{}:{line} names {name}", self.name))
            .collect()
    }

    /// Lines with `a::b`, also as `a::{b, …}`.
    fn paths(&self, a: &str, b: &[&str]) -> Vec<String> {
        self.names()
            .filter(|(_, name, _)| *name == a)
            .flat_map(|(i, _, line)| self.members(i).into_iter().map(move |m| (m, line)))
            .filter(|(m, _)| b.contains(m))
            .map(|(m, line)| format!("{}:{line} names {a}::{m}", self.name))
            .collect()
    }

    fn words(&self, words: &[&str]) -> Vec<String> {
        self.names()
            .filter(|(_, name, _)| words.contains(name))
            .map(|(_, name, line)| format!("{}:{line} says {name}", self.name))
            .collect()
    }
}

fn tokens(text: &str) -> Vec<(usize, Token)> {
    let c: Vec<char> = text.chars().collect();
    let (mut i, mut line, mut out) = (0, 1, Vec::new());
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    while i < c.len() {
        let start = line;
        match c[i] {
            '\n' => {
                line += 1;
                i += 1;
            }
            '/' if at(i + 1) == '/' => {
                while i < c.len() && c[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                while i < c.len() && !(c[i] == '*' && at(i + 1) == '/') {
                    line += usize::from(c[i] == '\n');
                    i += 1;
                }
                i += 2;
            }
            'r' if at(i + 1) == '"' || (at(i + 1) == '#' && matches!(at(i + 2), '"' | '#')) => {
                let hashes = c[i + 1..].iter().take_while(|x| **x == '#').count();
                let end: String = std::iter::once('"').chain("#".repeat(hashes).chars()).collect();
                i += hashes + 2;
                let mut content = String::new();
                while i < c.len() && c[i..].iter().take(end.len()).collect::<String>() != end {
                    line += usize::from(c[i] == '\n');
                    content.push(c[i]);
                    i += 1;
                }
                i += end.len();
                out.push((start, Token::Text(content)));
            }
            '"' => {
                i += 1;
                let mut content = String::new();
                while i < c.len() && c[i] != '"' {
                    line += usize::from(c[i] == '\n');
                    content.push(c[i]);
                    i += if c[i] == '\\' { 2 } else { 1 };
                }
                i += 1;
                out.push((start, Token::Text(content)));
            }
            // A character, else a lifetime.
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < c.len() && c[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ':' if at(i + 1) == ':' => {
                out.push((line, Token::Path));
                i += 2;
            }
            x if x.is_alphabetic() || x == '_' => {
                let from = i;
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                out.push((line, Token::Name(c[from..i].iter().collect())));
            }
            x if x.is_whitespace() => i += 1,
            x if x.is_ascii_digit() => {
                out.push((line, Token::Mark('0')));
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
            }
            x => {
                out.push((line, Token::Mark(x)));
                i += 1;
            }
        }
    }
    out
}

/// Cuts every item under `#[cfg(test)]` out.
fn without_tests(tokens: Vec<(usize, Token)>) -> Vec<(usize, Token)> {
    let is = |i: usize, t: &Token| tokens.get(i).is_some_and(|(_, x)| x == t);
    let name = |s: &str| Token::Name(s.to_owned());
    let (mut out, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        let starts = is(i, &Token::Mark('#'))
            && is(i + 2, &name("cfg"))
            && (is(i + 4, &name("test")) || (is(i + 4, &name("all")) && is(i + 6, &name("test"))));
        if !starts {
            out.push(tokens[i].clone());
            i += 1;
            continue;
        }
        let mut depth = 0;
        // Past the attribute, then past one item: to its `;` or the end of its braces.
        while !is(i, &Token::Mark(']')) {
            i += 1;
        }
        i += 1;
        while i < tokens.len() {
            match tokens[i].1 {
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => depth -= 1,
                _ => {}
            }
            let over = depth == 0 && matches!(tokens[i].1, Token::Mark(';' | '}'));
            i += 1;
            if over {
                break;
            }
        }
    }
    out
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    let all: Vec<Source> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
            Source { name, tokens: without_tests(tokens(&std::fs::read_to_string(path).unwrap())) }
        })
        .filter(|s| {
            let file = s.name.rsplit('/').next().unwrap();
            s.name.contains('/') && file != "tests.rs" && !file.ends_with("_tests.rs")
        })
        .collect();
    assert!(all.len() > 150, "the sources are not where they were: {} files", all.len());
    all
}

fn of<'a>(all: &'a [Source], rooms: &'a [&str]) -> impl Iterator<Item = &'a Source> {
    all.iter().filter(move |s| rooms.contains(&s.room()))
}

#[track_caller]
fn absent(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn the_reader_of_sources_sees_what_it_should() {
    let code = r##"
        // use crate::ui::x;
        use crate::{media::a::{b, c}, call, rtp::d as e};
        const S: &str = "crate::host \" \\"; const R: &str = r#"crate::lan"#; const C: char = '"';
        fn f<'a>(x: &'a str) { let _ = tokio::net::UdpSocket::bind(x); let c = '\''; unsafe { g() } }
        #[cfg(test)]
        mod tests { use crate::ui; fn f() { } }
        use super::super::z;
    "##;
    let s = Source { name: "rtp/x.rs".into(), tokens: without_tests(tokens(code)) };
    let seen: Vec<&str> = s.names().filter(|(_, n, _)| *n == "crate").flat_map(|(i, ..)| s.members(i)).collect();
    assert_eq!(seen, ["media", "call", "rtp"]);
    assert_eq!(s.crates(&["tokio"]), ["rtp/x.rs:5 names tokio"]);
    assert_eq!(s.words(&["unsafe"]).len(), 1);
    assert_eq!(s.words(&["super"]).len(), 2);
    assert_eq!(s.depth(), 2);
}

#[test]
fn arrows_point_downwards_only() {
    let order: Vec<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (i, (room, below)) in ROOMS.iter().enumerate() {
        for other in *below {
            let at = order.iter().position(|r| r == other).expect("a room");
            assert!(at < i, "{room} must not stand on {other}: it is not below");
        }
    }
    let mut wrong = Vec::new();
    for source in &sources() {
        let Some((_, below)) = ROOMS.iter().find(|(room, _)| *room == source.room()) else {
            wrong.push(format!("{}: no such room", source.name));
            continue;
        };
        for (i, name, line) in source.names() {
            if name == "crate" {
                for member in source.members(i) {
                    if order.contains(&member) && member != source.room() && !below.contains(&member) {
                        wrong.push(format!("{}:{line} names {member}", source.name));
                    }
                }
            }
            // `super` repeated until it is the crate would be a way round.
            if name == "super" && source.name_at(i.wrapping_sub(2)) != Some("super") {
                let ups = (0..).take_while(|n| source.name_at(i + 2 * n) == Some("super")).count();
                if ups >= source.depth() {
                    wrong.push(format!("{}:{line} leaves its room by super", source.name));
                }
            }
        }
    }
    absent("rooms may name only what lies below them", wrong);
}

#[test]
fn protocol_and_rtp_are_pure() {
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["protocol", "rtp"]) {
        for crates in [RUNTIME, TRANSPORT, WINDOW, CODECS_AND_DEVICES, &["rustls"]] {
            found.extend(s.crates(crates));
        }
        found.extend(s.paths("Instant", &["now"]));
        found.extend(s.paths("SystemTime", &["now"]));
        found.extend(s.paths("std", &["net", "fs", "thread", "env"]).into_iter().filter(|f| !only_addresses(s, f)));
        found.extend(s.words(&["async", "await", "sleep"]));
        // `Instant::elapsed` reads the clock.
        found.extend(
            s.names()
                .filter(|(i, n, _)| *n == "elapsed" && s.mark_at(i.wrapping_sub(1)) == Some('.'))
                .map(|(_, _, line)| format!("{}:{line} asks how much time has passed", s.name)),
        );
    }
    absent("time, bytes and frames come in as arguments", found);
}

/// `std::net` for addresses is a value, not a network: candidates carry them.
fn only_addresses(s: &Source, found: &str) -> bool {
    found.ends_with("std::net") && s.words(&["UdpSocket", "TcpStream", "TcpListener", "ToSocketAddrs"]).is_empty()
}

#[test]
fn the_window_never_touches_network_codec_or_runtime() {
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["ui"]) {
        for crates in [RUNTIME, TRANSPORT, CODECS_AND_DEVICES, &["rustls"]] {
            found.extend(s.crates(crates));
        }
        found.extend(s.paths("std", &["net"]));
        found.extend(s.words(&["async", "await", "block_on", "sleep", "UdpSocket", "TcpStream", "recv_timeout"]));
    }
    absent("the window draws and sends commands", found);
}

#[test]
fn the_window_knows_pictures_only() {
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["ui"]) {
        for (i, _, line) in s.names().filter(|(_, n, _)| *n == "crate") {
            let media = s.members(i).contains(&"media");
            let frame = s.name_at(i + 4) == Some("video") && s.name_at(i + 6) == Some("frame");
            if media && !frame {
                found.push(format!("{}:{line} names media beyond video::frame", s.name));
            }
        }
    }
    absent("of media the window knows the picture and its slot", found);
}

#[test]
fn media_knows_no_network_and_no_window() {
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["media"]) {
        found.extend(s.crates(TRANSPORT));
        found.extend(s.crates(WINDOW));
        found.extend(s.crates(&["url", "rustls"]));
        found.extend(s.paths("std", &["net"]));
        // Of the runtime only its bounded queues, by which notices leave.
        found.extend(s.paths("tokio", &["net", "io", "task", "spawn", "runtime", "time", "fs", "process"]));
        // The desktop's portal is a conversation with another program, and its crate has no other form; it has a thread of its own.
        if s.name != "media/screen/portal.rs" {
            found.extend(s.words(&["async", "await"]));
        }
    }
    absent("media is devices, codecs, processing and playout", found);
}

#[test]
fn network_rooms_know_no_device_codec_or_window() {
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["host", "peer", "signaling", "lan", "wire", "settings"]) {
        found.extend(s.crates(CODECS_AND_DEVICES));
        found.extend(s.crates(WINDOW));
    }
    for s in of(&all, &["call"]) {
        found.extend(s.crates(WINDOW));
        found.extend(s.crates(CODECS_AND_DEVICES));
        // No connection above `peer`: handles only.
        found.extend(s.crates(&["webrtc", "rtc"]));
    }
    for s in of(&all, &["wire"]) {
        found.extend(s.crates(&["tokio"]));
    }
    // The client's stack and the host's are two: neither names the other's crate.
    for s in of(&all, &["host"]) {
        found.extend(s.crates(&["webrtc"]));
    }
    absent("the network rooms move packets and messages", found);
}

#[test]
fn unsafe_stands_in_four_files_only() {
    let all = sources();
    let mut found = Vec::new();
    for s in all.iter().filter(|s| !UNSAFE.contains(&s.name.as_str())) {
        found.extend(s.words(&["unsafe", "unsafe_code"]));
    }
    absent("unsafe stays where it is reviewed", found);
}

#[test]
fn no_queue_is_unbounded() {
    let mut found = Vec::new();
    for s in &sources() {
        found.extend(s.words(&["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "unbounded"]));
        for (i, _, line) in s.names().filter(|(_, n, _)| *n == "channel") {
            // One answer to one question is bounded by nature.
            if s.name_at(i.wrapping_sub(2)) == Some("oneshot") {
                continue;
            }
            // Wakes PipeWire's loop once, to end it: the crate's one way to do so from another thread.
            if s.name == "media/screen/pipewire.rs" {
                continue;
            }
            // Tokio's takes its bound as argument; the one of `std` without argument has none.
            let mut at = i + 1;
            if s.is_path(at) {
                while s.mark_at(at) != Some('(') && at < i + 40 {
                    at += 1;
                }
            }
            if s.mark_at(at) == Some('(') && s.mark_at(at + 1) == Some(')') {
                found.push(format!("{}:{line} opens a channel without a bound", s.name));
            }
        }
    }
    absent("every queue has a bound", found);
}

#[test]
fn colours_and_fonts_live_in_the_theme_only() {
    // Not colours of ours: "draw nothing", "leave a picture as it is", "as the text says".
    let neutral = ["TRANSPARENT", "WHITE", "PLACEHOLDER"];
    let all = sources();
    let mut found = Vec::new();
    for s in of(&all, &["ui", "cli", "call"]).filter(|s| s.name != "ui/theme.rs") {
        for (i, _, line) in s.names().filter(|(_, n, _)| ["Color32", "Rgba", "Hsva"].contains(n)) {
            for member in s.members(i).into_iter().filter(|m| !neutral.contains(m)) {
                found.push(format!("{}:{line} makes a colour: {member}", s.name));
            }
        }
        found.extend(s.paths("FontId", &["new", "proportional", "monospace"]));
        found.extend(s.words(&["FontFamily", "FontDefinitions"]));
    }
    absent("the theme is one file", found);
}

#[test]
fn texts_for_people_come_from_the_table() {
    // A capital, a small letter and a second word: a sentence or a label. Names of things (ids, keys, formats) have none.
    fn is_prose(text: &str) -> bool {
        let mut letters = text.chars();
        letters.next().is_some_and(|c| c.is_ascii_uppercase())
            && letters.next().is_some_and(|c| c.is_ascii_lowercase())
            && text.contains(' ')
            && !text.contains("::")
    }
    let all = sources();
    let mut found = BTreeSet::new();
    for s in of(&all, &["ui"]) {
        for (line, token) in &s.tokens {
            if let Token::Text(text) = token
                && is_prose(text)
            {
                found.insert(format!("{}:{line} {text:?}", s.name));
            }
        }
    }
    absent("texts live in assets/locales", found.into_iter().collect());
}
