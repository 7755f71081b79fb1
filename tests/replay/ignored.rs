//! What no replay compares: the one list of it.
#![allow(dead_code, reason = "each replay uses what it needs")]

use serde_json::{Map, Value};

/// Members whose value differs from run to run or is this product's own choice, wherever they stand.
pub const IGNORED_MEMBERS: &[(&str, &str)] = &[
    ("createdAt", "time"),
    ("activeAt", "time"),
    ("timestamp", "time"),
    ("finalUserId", "random"),
    ("sdpOffer", "session description: structure is tested where it is made"),
    ("sdpAnswer", "session description: structure is tested where it is made"),
    ("sdpString", "session description: structure is tested where it is made"),
    ("candidate", "addresses and ports"),
    ("platform", "says what runs, not what happens"),
    ("version", "this host claims 2.32.2, the recorded server was 2.32.1"),
    ("customIceServers", "the host names itself, the original its TURN server"),
    ("coturnIp", "no TURN server of its own"),
    ("coturnPort", "no TURN server of its own"),
    ("turnUsername", "no TURN server of its own"),
    ("turnCredential", "no TURN server of its own"),
    ("tertulia", "extension for our own client"),
    ("message", "texts of errors: clients match the code"),
    ("data:error", "stack traces"),
    ("sessionId:error", "artefact of the original's asynchronous errors"),
    ("data:top", "artefact of the original's asynchronous errors"),
];

/// Members of a client's frames that only the replay of the client leaves out.
pub const CLIENT_MEMBERS: &[(&str, &str)] = &[("id", "request ids: the machine counts its own pings in between")];

/// What the client machine may send at any time and in any number; it is answered generically.
pub const CLIENT_UNSOLICITED: &[(&str, &str)] = &[
    ("ping", "when and how often is a matter of clocks; form and place of the first one on a socket are asserted"),
    ("videoData:0x0", "the question whether the participant still exists, which openvidu-browser does not put"),
];

/// Arrays whose order is arbitrary: they are sorted by the id of their elements.
pub const UNORDERED: &[&str] = &["value", "content"];

fn ignored(name: &str, inside: &str) -> bool {
    IGNORED_MEMBERS.iter().any(|(member, _)| match member.split_once(':') {
        Some((member, place)) => member == name && place == inside,
        None => *member == name,
    })
}

/// A frame or body without what is ignored, and with arbitrary orders made equal. The text of a signal (`message` inside `params`) is kept.
pub fn normalize(value: &Value) -> Value {
    inner(value, if value.get("jsonrpc").is_some() { "top" } else { "" })
}

fn inner(value: &Value, place: &str) -> Value {
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> = map
                .iter()
                .filter(|(name, _)| !ignored(name, place) || (name.as_str() == "message" && place == "params"))
                .map(|(name, v)| {
                    let mut v = inner(v, name);
                    if let (true, Value::Array(list)) = (UNORDERED.contains(&name.as_str()), &mut v) {
                        list.sort_by_key(|e| e.get("id").and_then(Value::as_str).unwrap_or_default().to_owned());
                    }
                    (name.clone(), v)
                })
                .collect();
            Value::Object(kept)
        }
        Value::Array(list) => Value::Array(list.iter().map(|v| inner(v, "")).collect()),
        other => other.clone(),
    }
}
