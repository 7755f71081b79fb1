//! What participants say about themselves: `client`, `server` or `client%/%server`.

use serde::Serialize;
use serde_json::Value;

/// Between the client's part and the server's part.
pub const SEPARATOR: &str = "%/%";

/// Longest name shown, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// What a client writes: a name, a stable id that groups a person's camera and screen, and which of the two this is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientMetadata {
    /// Name.
    pub client_data: String,
    /// The same for all connections of one person.
    pub participant_id: String,
    /// `CAMERA` or `SCREEN`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl ClientMetadata {
    /// Metadata of a camera connection.
    pub fn camera(name: &str, participant_id: &str) -> Self {
        Self { client_data: name.to_owned(), participant_id: participant_id.to_owned(), kind: "CAMERA".into() }
    }

    /// Metadata of a screen connection; the name gets the suffix that openvidu-call expects.
    pub fn screen(name: &str, participant_id: &str) -> Self {
        Self { client_data: format!("{name}_SCREEN"), participant_id: participant_id.to_owned(), kind: "SCREEN".into() }
    }

    /// The text for `joinRoom.metadata`. It never holds [`SEPARATOR`], whatever the name: everybody cuts the server's part off
    /// there. In JSON a percent sign stands inside a string only, and may be written as an escape.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default().replace("%/", "\\u0025/")
    }
}

/// What can be read from somebody's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Persona {
    /// Name to show, without control characters and bidirectional controls; `None` when there is none.
    pub name: Option<String>,
    /// The same for all connections of one person.
    pub participant_id: Option<String>,
    /// This is somebody's screen.
    pub screen: bool,
}

impl Persona {
    /// Reads full metadata as leniently as the consumers in the field: the client's part as JSON (`clientData`), else as plain text, else the server's part.
    pub fn parse(metadata: &str) -> Self {
        let (client, server) = match metadata.split_once(SEPARATOR) {
            Some((client, server)) => (client, server),
            None => (metadata, ""),
        };
        let own = Self::parse_part(client);
        if own.name.is_some() || own.participant_id.is_some() {
            return own;
        }
        Self { screen: own.screen, ..Self::parse_part(server) }
    }

    fn parse_part(part: &str) -> Self {
        let part = part.trim();
        match serde_json::from_str::<Value>(part) {
            Ok(Value::Object(map)) => {
                let text =
                    |name: &str| map.get(name).and_then(super::lenient::to_text).filter(|t| !t.trim().is_empty());
                let nick = text("clientData").or_else(|| text("nickname")).or_else(|| text("serverData"));
                let kind = text("type");
                let (name, suffixed) = match nick.as_deref().and_then(|n| n.strip_suffix("_SCREEN")) {
                    Some(stripped) => (Some(stripped.to_owned()), true),
                    None => (nick, false),
                };
                Self {
                    name: name.as_deref().and_then(clean_name),
                    participant_id: text("participantId")
                        .map(|id| id.chars().filter(|c| !is_unsafe(*c)).take(128).collect()),
                    screen: kind.map_or(suffixed, |k| k == "SCREEN"),
                }
            }
            Ok(Value::String(text)) => Self { name: clean_name(&text), ..Self::default() },
            Ok(Value::Null | Value::Array(_)) => Self::default(),
            _ => Self { name: clean_name(part), ..Self::default() },
        }
    }
}

/// A name fit for the screen: no control characters, no characters that turn the direction of the text, one line, blanks folded, at most
/// [`MAX_NAME_CHARS`] characters. `None` if nothing is left.
pub fn clean_name(text: &str) -> Option<String> {
    let visible: String =
        text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).filter(|c| !is_unsafe(*c)).collect();
    let folded = visible.split(' ').filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
    let cut: String = folded.chars().take(MAX_NAME_CHARS).collect();
    let cut = cut.trim_end().to_owned();
    (!cut.is_empty()).then_some(cut)
}

/// Control characters, bidirectional controls, invisible marks that only serve to imitate somebody else's name.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061C}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
}

/// Full metadata as the server composes it: client part first, both only when both are there.
pub fn full(client: &str, server: &str) -> String {
    match (client.is_empty(), server.is_empty()) {
        (false, false) => format!("{client}{SEPARATOR}{server}"),
        (true, _) => server.to_owned(),
        (_, true) => client.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openvidu_call_style_goes_round() {
        let m = ClientMetadata::camera("Alice", "id-1").to_json();
        assert_eq!(m, r#"{"clientData":"Alice","participantId":"id-1","type":"CAMERA"}"#);
        let p = Persona::parse(&m);
        assert_eq!(p, Persona { name: Some("Alice".into()), participant_id: Some("id-1".into()), screen: false });
        let p = Persona::parse(&ClientMetadata::screen("Alice", "id-1").to_json());
        assert_eq!(p, Persona { name: Some("Alice".into()), participant_id: Some("id-1".into()), screen: true });
    }

    #[test]
    fn a_name_cannot_be_taken_for_the_servers_part() {
        for name in ["Same \"x\" %/% y", "%/%/%", "100 %", "%%//%%", "a%/", "\\u0025/%"] {
            let m = ClientMetadata::camera(name, "id-1").to_json();
            assert!(!m.contains(SEPARATOR), "{m}");
            let p = Persona::parse(&full(&m, "{\"serverData\":\"s\"}"));
            assert_eq!((p.name.as_deref(), p.participant_id.as_deref()), (Some(name), Some("id-1")), "{m}");
        }
    }

    #[test]
    fn what_others_write_is_read() {
        let name = |m: &str| Persona::parse(m).name;
        assert_eq!(name(r#"{"clientData":"Bob"}%/%{"serverData":"user"}"#).as_deref(), Some("Bob"));
        assert_eq!(name(r#"{"clientData":"Bob"}%/%{}"#).as_deref(), Some("Bob"));
        assert_eq!(name("plain name").as_deref(), Some("plain name"));
        assert_eq!(name("\"quoted\"").as_deref(), Some("quoted"));
        assert_eq!(name("Front door").as_deref(), Some("Front door"));
        assert_eq!(name(r#"{"serverData":"user"}"#).as_deref(), Some("user"));
        assert_eq!(name("{}%/%Porch").as_deref(), Some("Porch"));
        assert_eq!(name("007").as_deref(), Some("007"));
        assert_eq!(name(r#"{"clientData":5}"#).as_deref(), Some("5"));
        for empty in ["", "{}", "null", "[1]", r#"{"clientData":""}"#, r#"{"clientData":{"a":1}}"#] {
            assert_eq!(name(empty), None, "{empty}");
        }
        assert!(Persona::parse(r#"{"clientData":"Bob_SCREEN"}"#).screen);
    }

    #[test]
    fn names_cannot_turn_or_break_the_line() {
        assert_eq!(clean_name("a\u{202E}b\u{2066}\n\tc\u{0}").as_deref(), Some("ab c"));
        assert_eq!(clean_name("\u{200F}\u{200B}"), None);
        assert_eq!(clean_name(&"x".repeat(200)).map(|n| n.chars().count()), Some(MAX_NAME_CHARS));
        assert_eq!(clean_name("مرحبا").as_deref(), Some("مرحبا"));
    }

    #[test]
    fn the_server_part_comes_second() {
        assert_eq!(full("c", "s"), "c%/%s");
        assert_eq!(full("", "s"), "s");
        assert_eq!(full("c", ""), "c");
        assert_eq!(full("", ""), "");
    }
}
