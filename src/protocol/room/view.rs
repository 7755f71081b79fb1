//! Sessions and connections as REST shows them: nulls are present here, unlike in RPC.

use super::api::LegId;
use super::negotiated::Negotiations;
use super::session::{Participant, Session, Stream, Ticket};
use crate::protocol::message::{IceServer, StreamInfo};
use serde_json::{Map, Value, json};

/// The session object.
pub(super) fn session(session: &Session, pending: bool, stats: Option<&Negotiations>) -> Value {
    let p = &session.properties;
    let mut out = json!({
        "id": session.id, "object": "session", "sessionId": session.id, "createdAt": session.created_at, "recording": false, "broadcasting": false,
        "mediaMode": p.media_mode, "recordingMode": p.recording_mode, "defaultRecordingProperties": p.recording,
        "customSessionId": p.custom_session_id, "forcedVideoCodec": p.forced_video_codec.name(), "allowTranscoding": p.allow_transcoding,
        "connections": connections(session, pending, stats),
    });
    if let (Some(node), Some(map)) = (&p.media_node, out.as_object_mut()) {
        map.insert("mediaNode".into(), node.clone());
    }
    out
}

/// `{"numberOfElements":n,"content":[…]}`
pub(super) fn list(content: Vec<Value>) -> Value {
    json!({"numberOfElements": content.len(), "content": content})
}

/// The connections of a session, with or without the tokens not yet used and what was negotiated.
pub(super) fn connections(session: &Session, pending: bool, stats: Option<&Negotiations>) -> Value {
    let active = session.participants.values().filter(|p| p.hidden.is_none()).map(|p| participant(session, p, stats));
    let waiting = session.pending.values().filter(|_| pending).map(|t| ticket(session, t));
    list(active.chain(waiting).collect())
}

fn common(session: &Session, t: &Ticket, status: &str) -> Map<String, Value> {
    let value = json!({
        "id": t.connection_id, "object": "connection", "status": status, "connectionId": t.connection_id, "sessionId": session.id,
        "createdAt": t.created_at, "type": "WEBRTC", "record": t.record, "role": t.role.as_str(), "kurentoOptions": t.kurento_options,
        "customIceServers": ice_servers(&t.ice_servers), "rtspUri": null, "adaptativeBitrate": null, "onlyPlayWithSubscribers": null,
        "networkCache": null, "serverData": t.server_data, "token": t.token,
        "activeAt": null, "location": null, "ip": null, "platform": null, "clientData": null, "publishers": null, "subscribers": null,
    });
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// A connection nobody has joined with.
pub(super) fn ticket(session: &Session, t: &Ticket) -> Value {
    Value::Object(common(session, t, "pending"))
}

/// A joined connection.
pub(super) fn participant(session: &Session, p: &Participant, stats: Option<&Negotiations>) -> Value {
    let mut out = common(session, &p.ticket, "active");
    let publishers: Vec<Value> = p.stream.iter().map(|s| with_stats(publisher(s), s.leg, &s.info.id, stats)).collect();
    let subscribers: Vec<Value> = p
        .subscriptions
        .iter()
        .map(|(id, s)| {
            let shown = json!({"createdAt": s.created_at, "streamId": id});
            with_stats(shown, s.leg, &format!("{}_{id}", p.id()), stats)
        })
        .collect();
    for (name, value) in [
        ("activeAt", json!(p.active_at)),
        ("location", json!("unknown")),
        ("ip", json!(p.ip)),
        ("platform", json!(p.platform)),
        ("clientData", json!(p.client_data)),
        ("publishers", Value::Array(publishers)),
        ("subscribers", Value::Array(subscribers)),
    ] {
        out.insert(name.into(), value);
    }
    Value::Object(out)
}

fn with_stats(mut shown: Value, leg: LegId, endpoint_name: &str, stats: Option<&Negotiations>) -> Value {
    if let (Some(negotiated), Some(members)) = (stats.and_then(|s| s.get(&leg)), shown.as_object_mut()) {
        negotiated.show(endpoint_name, members);
    }
    shown
}

fn publisher(stream: &Stream) -> Value {
    json!({"createdAt": stream.info.created_at, "streamId": stream.info.id, "mediaOptions": media_options(&stream.info)})
}

fn media_options(m: &StreamInfo) -> Value {
    let mut out = Map::new();
    out.insert("hasAudio".into(), json!(m.has_audio));
    out.insert("hasVideo".into(), json!(m.has_video));
    if m.has_audio {
        out.insert("audioActive".into(), json!(m.audio_active));
    }
    if m.has_video {
        out.insert("videoActive".into(), json!(m.video_active));
        out.insert("typeOfVideo".into(), json!(m.type_of_video));
        out.insert("frameRate".into(), json!(m.frame_rate));
        out.insert("videoDimensions".into(), json!(m.video_dimensions));
    }
    out.insert("filter".into(), json!({}));
    Value::Object(out)
}

/// ICE servers as REST and `joinRoom` show them.
pub(super) fn ice_servers(list: &[IceServer]) -> Value {
    serde_json::to_value(list).unwrap_or_else(|_| Value::Array(Vec::new()))
}
