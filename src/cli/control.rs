//! Control of a running client: one JSON command a line in, one JSON event a line out.

use serde_json::{Map, Value};
use std::path::PathBuf;

use crate::call::Command;
use crate::call::command::VoiceChange;
use crate::media::video::source::Tuning;

/// What a line asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// Commands of the engine, in order.
    Engine(Vec<Command>),
    /// Write the picture of the grid.
    Snapshot(PathBuf),
    /// Write the report as of now.
    Report(PathBuf),
}

/// Reads one line.
///
/// # Errors
/// What is wrong with it, for the `message` of the error event.
pub(super) fn parse(line: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(line).map_err(|_| "this is not JSON".to_owned())?;
    let members = value.as_object().ok_or("a command is a JSON object")?;
    let engine = |command| Ok(Line::Engine(vec![command]));
    match text(members, "do")?.as_str() {
        "mute" => {
            let commands: Vec<Command> =
                [flag(members, "audio")?.map(Command::MuteAudio), flag(members, "video")?.map(Command::MuteVideo)]
                    .into_iter()
                    .flatten()
                    .collect();
            if commands.is_empty() {
                Err("mute needs \"audio\" or \"video\"".to_owned())
            } else {
                Ok(Line::Engine(commands))
            }
        }
        "camera" => engine(Command::Camera(text(members, "source")?)),
        "microphone" => engine(Command::Microphone(text(members, "source")?)),
        "speaker" => engine(Command::Speaker(text(members, "sink")?)),
        "processing" => {
            let change = VoiceChange {
                mode: match members.get("mode") {
                    None => None,
                    Some(mode) => Some(mode.as_str().unwrap_or_default().parse()?),
                },
                echo: flag(members, "echo")?,
                noise: flag(members, "noise")?,
                gain: flag(members, "gain")?,
                high_pass: flag(members, "high_pass")?,
                original_sound: flag(members, "original_sound")?,
            };
            if change == VoiceChange::default() {
                return Err("processing needs \"mode\", \"original_sound\" or a stage".to_owned());
            }
            engine(Command::Voice(change))
        }
        "levelling" => engine(Command::Levelling(flag(members, "on")?.ok_or("levelling needs \"on\"")?)),
        "share" => share(members),
        "signal" => {
            let to = match members.get("to") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(ids)) => ids
                    .iter()
                    .map(|id| {
                        id.as_str().map(str::to_owned).ok_or_else(|| "\"to\" is a list of connection ids".to_owned())
                    })
                    .collect::<Result<_, _>>()?,
                Some(_) => return Err("\"to\" is a list of connection ids".to_owned()),
            };
            engine(Command::Signal { kind: text(members, "type")?, data: optional_text(members, "data")?, to })
        }
        "publish" => engine(Command::Publish),
        "unpublish" => engine(Command::Unpublish),
        "subscribe" => engine(Command::Subscribe {
            stream_id: text(members, "stream_id")?,
            audio: flag(members, "audio")?.unwrap_or(true),
            video: flag(members, "video")?.unwrap_or(true),
        }),
        "sound_only" => engine(Command::SoundOnly(flag(members, "on")?.ok_or("sound_only needs \"on\"")?)),
        "tile" => {
            engine(Command::Tile { stream_id: text(members, "stream_id")?, size: size(&text(members, "size")?)? })
        }
        "volume" => {
            let gain = members.get("gain").and_then(Value::as_f64).ok_or("volume needs \"gain\": a number")?;
            engine(Command::Volume { person: text(members, "person")?, gain: gain as f32 })
        }
        "force_disconnect" => engine(Command::ForceDisconnect(text(members, "connection_id")?)),
        "force_unpublish" => engine(Command::ForceUnpublish(text(members, "stream_id")?)),
        "reconnect" => engine(Command::ReconnectNow),
        "answer" => engine(Command::Answer(flag(members, "accept")?.ok_or("answer needs \"accept\"")?)),
        "hang_up" | "leave" => engine(Command::Leave),
        "snapshot" => Ok(Line::Snapshot(text(members, "path")?.into())),
        "report" => Ok(Line::Report(text(members, "path")?.into())),
        other => Err(format!("there is no command {other:?}")),
    }
}

fn share(members: &Map<String, Value>) -> Result<Line, String> {
    let mut commands = Vec::new();
    if members.contains_key("for") {
        commands.push(Command::Tune(Tuning::parse(&text(members, "for")?).map_err(|e| e.to_string())?));
    }
    if let Some(on) = flag(members, "sound")? {
        commands.push(Command::ShareSound(on));
    }
    match members.get("screen") {
        None if !commands.is_empty() => {}
        Some(Value::Null) => commands.push(Command::Share(None)),
        Some(Value::String(source)) => commands.push(Command::Share(Some(source.clone()))),
        _ => return Err("share needs \"screen\": a source or null".to_owned()),
    }
    Ok(Line::Engine(commands))
}

/// Longest name of a command that comes back, in characters.
const NAME_LIMIT: usize = 32;

/// What the error event of a refused line names as its `command`: what stands under `do`, empty where nothing does. Never more
/// of the line: it may hold what does not belong in a report, a link with its key for example.
pub(super) fn name(line: &str) -> String {
    let value: Option<Value> = serde_json::from_str(line).ok();
    let name = value.as_ref().and_then(|v| v.get("do")).and_then(Value::as_str).unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(NAME_LIMIT).collect()
}

fn text(members: &Map<String, Value>, name: &str) -> Result<String, String> {
    members
        .get(name)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| format!("{name:?} is missing or no text"))
}

fn optional_text(members: &Map<String, Value>, name: &str) -> Result<String, String> {
    if members.contains_key(name) { text(members, name) } else { Ok(String::new()) }
}

fn flag(members: &Map<String, Value>, name: &str) -> Result<Option<bool>, String> {
    match members.get(name) {
        None => Ok(None),
        Some(Value::Bool(on)) => Ok(Some(*on)),
        Some(_) => Err(format!("{name:?} is true or false")),
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    text.split_once('x')
        .and_then(|(w, h)| Some((w.parse::<u32>().ok()?, h.parse::<u32>().ok()?)))
        .filter(|(w, h)| (*w == 0) == (*h == 0))
        .ok_or_else(|| "a size is written 320x180, 0x0 for a hidden tile".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_commands_are_understood() {
        for line in [
            r#"{"do":"mute","audio":true}"#,
            r#"{"do":"mute","video":false}"#,
            r#"{"do":"camera","source":"pattern:4"}"#,
            r#"{"do":"microphone","source":"tone:500"}"#,
            r#"{"do":"processing","mode":"on"}"#,
            r#"{"do":"processing","echo":false,"noise":true,"gain":false,"high_pass":true}"#,
            r#"{"do":"processing","original_sound":true}"#,
            r#"{"do":"levelling","on":true}"#,
            r#"{"do":"sound_only","on":true}"#,
            r#"{"do":"share","screen":"pattern:9"}"#,
            r#"{"do":"share","screen":null}"#,
            r#"{"do":"share","screen":"monitor","for":"text"}"#,
            r#"{"do":"share","for":"motion"}"#,
            r#"{"do":"share","screen":"monitor","sound":true}"#,
            r#"{"do":"signal","type":"chat","data":"hello","to":["con_A"]}"#,
            r#"{"do":"publish"}"#,
            r#"{"do":"unpublish"}"#,
            r#"{"do":"subscribe","stream_id":"s","audio":true,"video":false}"#,
            r#"{"do":"tile","stream_id":"s","size":"320x180"}"#,
            r#"{"do":"force_disconnect","connection_id":"c"}"#,
            r#"{"do":"force_unpublish","stream_id":"s"}"#,
            r#"{"do":"answer","accept":true}"#,
            r#"{"do":"hang_up"}"#,
            r#"{"do":"snapshot","path":"p"}"#,
            r#"{"do":"report","path":"p"}"#,
            r#"{"do":"leave"}"#,
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        assert_eq!(
            parse(r#"{"do":"mute","audio":true,"video":true}"#).unwrap(),
            Line::Engine(vec![Command::MuteAudio(true), Command::MuteVideo(true)])
        );
    }

    #[test]
    fn anything_else_is_refused_with_a_reason() {
        for line in [
            "",
            "{",
            "[]",
            r#"{"do":"dance"}"#,
            r#"{"do":"mute"}"#,
            r#"{"do":"mute","audio":1}"#,
            r#"{"do":"processing"}"#,
            r#"{"do":"processing","mode":"loud"}"#,
            r#"{"do":"levelling"}"#,
            r#"{"do":"sound_only","on":1}"#,
            r#"{"do":"share"}"#,
            r#"{"do":"share","for":"speed"}"#,
            r#"{"do":"tile","stream_id":"s","size":"big"}"#,
            r#"{"do":"tile","stream_id":"s","size":"0x180"}"#,
            r#"{"do":"signal","type":"x","to":"all"}"#,
        ] {
            assert!(!parse(line).unwrap_err().is_empty(), "{line}");
        }
        assert_eq!(name(r#"{"do":"dance","with":"key=secret"}"#), "dance");
        for nameless in ["tertulia://h/room#key=secret", "[]", r#"{"do":7}"#, "{"] {
            assert_eq!(name(nameless), "", "{nameless}");
        }
    }
}
