//! Reading and checking the bodies of REST requests. Strings are not taken for numbers or booleans here, unlike in RPC.

use super::random::IdSource;
use super::session::{ForcedCodec, SessionProperties, Ticket};
use crate::protocol::Secret;
use crate::protocol::message::{IceServer, Role};
use base64::Engine as _;
use hmac::{Hmac, Mac};
use serde_json::{Map, Value, json};
use sha1::Sha1;

type Body = Map<String, Value>;
type Checked<T> = Result<T, String>;

fn text<'a>(body: &'a Body, name: &str) -> Checked<Option<&'a str>> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(s)) => Ok(Some(s)),
        Some(_) => Err(format!("Type error in parameter '{name}': not a string")),
    }
}

fn boolean(body: &Body, name: &str) -> Checked<Option<bool>> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(b)) => Ok(Some(*b)),
        Some(_) => Err(format!("Type error in parameter '{name}': not a boolean")),
    }
}

fn one_of<'a>(body: &Body, name: &str, allowed: &[&'a str], default: &'a str) -> Checked<&'a str> {
    match text(body, name)? {
        None => Ok(default),
        Some(given) => allowed
            .iter()
            .find(|a| **a == given)
            .copied()
            .ok_or_else(|| format!("Some parameter is not valid. Parameter '{name}' cannot be {given}")),
    }
}

/// The properties of a session from the body of `POST /sessions`.
pub(super) fn session_properties(body: &Body) -> Checked<SessionProperties> {
    let custom = text(body, "customSessionId")?.unwrap_or_default();
    if !custom.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) || custom.len() > 128 {
        return Err("Some parameter is not valid. Parameter 'customSessionId' is wrong. Must be an alphanumeric string [a-zA-Z0-9_-]".into());
    }
    let codec = match text(body, "forcedVideoCodec")? {
        None => ForcedCodec::MediaServerPreferred,
        Some(name) => ForcedCodec::from_name(name)
            .ok_or_else(|| format!("Invalid value for parameter 'forcedVideoCodec': no codec {name}"))?,
    };
    let media_node = match body.get("mediaNode") {
        None => None,
        Some(Value::Object(node)) => Some(json!({"id": node.get("id").cloned().unwrap_or(Value::Null)})),
        Some(_) => {
            return Err(
                "Some parameter is not valid. Error in parameter 'mediaNode'. It is not a valid JSON object".into()
            );
        }
    };
    let recording = match body.get("defaultRecordingProperties") {
        None => recording_properties(&Body::new())?,
        Some(Value::Object(props)) => {
            let props: Body = props.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
            recording_properties(&props).map_err(|e| {
                format!("Some parameter is not valid. Parameter 'defaultRecordingProperties' is not valid: {e}")
            })?
        }
        Some(_) => {
            return Err("Some parameter is not valid. Error in parameter 'defaultRecordingProperties'. It is not a valid JSON object".into());
        }
    };
    Ok(SessionProperties {
        custom_session_id: custom.to_owned(),
        media_mode: one_of(body, "mediaMode", &["ROUTED", "RELAYED"], "ROUTED")?.to_owned(),
        recording_mode: one_of(body, "recordingMode", &["MANUAL", "ALWAYS"], "MANUAL")?.to_owned(),
        forced_video_codec: codec,
        allow_transcoding: boolean(body, "allowTranscoding")?.unwrap_or(false),
        recording,
        media_node,
    })
}

fn in_range(body: &Body, name: &str, default: i64, range: std::ops::RangeInclusive<i64>, help: &str) -> Checked<i64> {
    match body.get(name) {
        None => Ok(default),
        Some(v) => {
            let n = v.as_i64().ok_or_else(|| format!("Type error in parameter '{name}'"))?;
            if range.contains(&n) { Ok(n) } else { Err(format!("Wrong '{name}' parameter. {help}")) }
        }
    }
}

/// Recording properties with defaults: nothing is recorded, but they are part of a session and checked like the original does.
fn recording_properties(body: &Body) -> Checked<Value> {
    let name = text(body, "name")?.unwrap_or_default();
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-~".contains(&b)) {
        return Err("Parameter 'name' is wrong. Must be an alphanumeric string [a-zA-Z0-9_-~]+".into());
    }
    let audio = boolean(body, "hasAudio")?.unwrap_or(true);
    let video = boolean(body, "hasVideo")?.unwrap_or(true);
    if !audio && !video {
        return Err("Cannot start a recording with both \"hasAudio\" and \"hasVideo\" set to false".into());
    }
    let mode = one_of(body, "outputMode", &["COMPOSED", "COMPOSED_QUICK_START", "INDIVIDUAL"], "COMPOSED")
        .map_err(|_| "Type error in parameter 'outputMode'".to_owned())?;
    let mut out = json!({"name": name, "hasAudio": audio, "hasVideo": video, "outputMode": mode});
    let composed = mode != "INDIVIDUAL";
    let layouts = ["BEST_FIT", "PICTURE_IN_PICTURE", "VERTICAL_PRESENTATION", "HORIZONTAL_PRESENTATION", "CUSTOM"];
    let layout = one_of(body, "recordingLayout", &layouts, "BEST_FIT")
        .map_err(|_| "Type error in parameter 'recordingLayout'".to_owned())?;
    let resolution = text(body, "resolution")?.unwrap_or("1280x720");
    let ok = resolution.split_once('x').is_some_and(|(w, h)| {
        [w, h]
            .iter()
            .all(|n| n.bytes().all(|b| b.is_ascii_digit()) && n.parse::<u32>().is_ok_and(|n| (100..=1999).contains(&n)))
    });
    if !ok {
        return Err("Wrong 'resolution' parameter. Acceptable values from 100 to 1999 for both width and height".into());
    }
    let rate = in_range(body, "frameRate", 25, 1..=120, "Acceptable values are within range [1,120]")?;
    let shm = in_range(body, "shmSize", 536_870_912, 134_217_728..=i64::MAX, "Must be 134217728 (128 MB) minimum")?;
    if let Some(map) = out.as_object_mut() {
        if composed && video {
            map.insert("recordingLayout".into(), json!(layout));
            if let Some(custom) = text(body, "customLayout")?.filter(|_| layout == "CUSTOM") {
                map.insert("customLayout".into(), json!(custom));
            }
            map.insert("resolution".into(), json!(resolution));
            map.insert("frameRate".into(), json!(rate));
            map.insert("shmSize".into(), json!(shm));
        } else if !composed {
            map.insert("ignoreFailedStreams".into(), json!(boolean(body, "ignoreFailedStreams")?.unwrap_or(false)));
        }
    }
    Ok(out)
}

/// What `POST …/connection` asks for.
pub(super) enum Wanted {
    /// A token.
    Ticket(Ticket),
    /// An IP camera, which this host does not have.
    IpCamera,
}

/// The connection from the body of `POST …/connection`; ids and token are filled in by the caller.
pub(super) fn connection(body: &Body, ids: &mut IdSource, unix_ms: u64) -> Checked<Wanted> {
    let kind = text(body, "type")?.unwrap_or("WEBRTC");
    if kind != "WEBRTC" && kind != "IPCAM" {
        return Err(format!("Parameter 'type' {kind} is not defined"));
    }
    let data = text(body, "data")?.unwrap_or_default().to_owned();
    let record = boolean(body, "record")?.unwrap_or(true);
    if kind == "IPCAM" {
        let uri = text(body, "rtspUri")?.ok_or("Type error in parameter 'rtspUri': it is mandatory")?;
        let scheme = uri.split_once("://").map(|(s, _)| s).unwrap_or_default();
        if !["file", "rtsp", "rtsps", "http", "https"].contains(&scheme) {
            return Err("Error in parameter 'rtspUri': RTSP URI does not contain a valid protocol [file, rtsp, rtsps, http, https]".into());
        }
        boolean(body, "adaptativeBitrate")?;
        boolean(body, "onlyPlayWithSubscribers")?;
        if body.get("networkCache").is_some_and(|v| !v.is_number()) {
            return Err("Type error in parameter 'networkCache': not a number".into());
        }
        return Ok(Wanted::IpCamera);
    }
    let role = match text(body, "role")? {
        None => Role::Publisher,
        Some(name) => Role::parse(name).ok_or_else(|| format!("Parameter role {name} is not defined"))?,
    };
    Ok(Wanted::Ticket(Ticket {
        connection_id: String::new(),
        token: None,
        created_at: unix_ms,
        expires_at: None,
        key: None,
        role,
        record,
        server_data: data,
        kurento_options: kurento_options(body)?,
        ice_servers: ice_servers(body, ids, unix_ms)?,
    }))
}

fn kurento_options(body: &Body) -> Checked<Option<Value>> {
    let options = match body.get("kurentoOptions") {
        None => return Ok(None),
        Some(Value::Object(o)) => o,
        Some(_) => return Err("Error in parameter 'kurentoOptions'. It is not a valid JSON object".into()),
    };
    let mut out = Map::new();
    for name in ["videoMaxRecvBandwidth", "videoMinRecvBandwidth", "videoMaxSendBandwidth", "videoMinSendBandwidth"] {
        match options.get(name) {
            None | Some(Value::Null) => {}
            Some(v) if v.is_i64() => {
                out.insert(name.into(), v.clone());
            }
            Some(_) => return Err(format!("Type error in some parameter of 'kurentoOptions': {name}")),
        }
    }
    match options.get("allowedFilters") {
        None | Some(Value::Null) => {}
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            out.insert("allowedFilters".into(), Value::Array(list.clone()));
        }
        Some(_) => return Err("Type error in some parameter of 'kurentoOptions': allowedFilters".into()),
    }
    Ok(Some(Value::Object(out)))
}

fn ice_servers(body: &Body, ids: &mut IdSource, unix_ms: u64) -> Checked<Vec<IceServer>> {
    let list = match body.get("customIceServers") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= 32 => list,
        Some(_) => return Err("Error in parameter 'customIceServersJson'. It is not a valid JSON object".into()),
    };
    list.iter()
        .map(|entry| {
            let bad = |what: &str| format!("Type error in some parameter of 'customIceServers': {what}");
            let member = |name: &str| entry.get(name).and_then(Value::as_str);
            let url = member("url").ok_or_else(|| bad("url is mandatory"))?;
            let (scheme, rest) = url.split_once(':').ok_or_else(|| bad("not an ICE URL"))?;
            let turn = match scheme {
                "turn" | "turns" => true,
                "stun" | "stuns" => false,
                other => {
                    return Err(bad(&format!(
                        "The protocol '{other}' is invalid. Only valid values are: [turn, turns] [stuns, stun]"
                    )));
                }
            };
            let (host, query) = rest.split_once('?').map_or((rest, None), |(h, q)| (h, Some(q)));
            if host.is_empty() || host.bytes().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
                return Err(bad("no host"));
            }
            if query.is_some_and(|q| !turn || (q != "transport=tcp" && q != "transport=udp")) {
                return Err(bad("only ?transport=udp and ?transport=tcp are possible, with turn"));
            }
            let (mut user, mut credential) =
                (member("username").map(str::to_owned), member("credential").map(Secret::from));
            if let Some(shared) = member("staticAuthSecret").filter(|_| turn) {
                let name = format!("{}:{}", unix_ms / 1000 + 86_400, ids.alnum(8));
                credential = Some(turn_credential(shared, &name));
                user = Some(name);
            }
            match (turn, user.is_some(), credential.is_some()) {
                (true, true, true) | (false, false, false) => {}
                (true, ..) => return Err(bad("Credentials must be defined while using turn")),
                (false, ..) => return Err(bad("Credentials can not be defined while using stun.")),
            }
            Ok(IceServer { url: url.to_owned(), username: user, credential })
        })
        .collect()
}

/// Password of a TURN server with a shared secret: base64 of HMAC-SHA1 over the user name.
fn turn_credential(shared: &str, user: &str) -> Secret {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(shared.as_bytes()) else { return Secret::default() };
    mac.update(user.as_bytes());
    Secret::new(base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes()))
}

/// The connection id asked for inside the server data (`{"openviduCustomConnectionId":"…"}`), without what an id cannot hold.
pub(super) fn custom_connection_id(server_data: &str) -> Option<String> {
    let value: Value = serde_json::from_str(server_data).ok()?;
    let wanted = value.get("openviduCustomConnectionId")?.as_str()?;
    let kept: String = wanted.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
    let kept = kept.replace("con_", "");
    (!kept.is_empty()).then(|| format!("con_{kept}"))
}
