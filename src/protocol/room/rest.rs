//! The REST API: paths, statuses and bodies of the original (Community Edition, recording disabled).

use super::api::ServerConfig;
use super::body::{self, Wanted};
use super::http::{RestRequest, RestResponse, json_body, preflight};
use super::keys::KeyRules;
use super::negotiated::Negotiations;
use super::request::unpublished;
use super::session::{ForcedCodec, Session, SessionProperties, Ticket};
use super::{OPENVIDU_VERSION, Server, view};
use crate::protocol::Now;
use crate::protocol::message::{Role, SignalEvent};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const API: &str = "/openvidu/api";

/// A browser shows this when asked to trust the certificate, and goes back.
const ACCEPT_CERTIFICATE: &str = "<!doctype html><meta charset=\"utf-8\"><title>Certificate accepted</title><script>history.back()</script><p>The certificate is accepted. Go back to continue.</p>";

/// Un-prefixed paths of older versions.
fn canonical(path: &str) -> String {
    let old = ["/api", "/config", "/cdr", "/recordings", "/layouts/custom", "/accept-certificate"];
    for prefix in old {
        let rest = path.strip_prefix(prefix);
        if rest.is_some_and(|r| r.is_empty() || r.starts_with('/')) {
            return if prefix == "/config" { format!("{API}{path}") } else { format!("/openvidu{path}") };
        }
    }
    path.to_owned()
}

/// A boolean of the query in the forms Spring knows; anything else is an error of the request.
fn query_flag(request: &RestRequest, name: &str, default: bool) -> Result<bool, RestResponse> {
    match request.query_value(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("") => Ok(default),
        Some("true" | "on" | "yes" | "1") => Ok(true),
        Some("false" | "off" | "no" | "0") => Ok(false),
        Some(_) => Err(RestResponse::not_mapped(None)),
    }
}

/// A token for a key is used at once; unused it must not take a place for long.
const KEY_TOKEN_LIFE_MS: u64 = 120_000;

impl Server {
    /// Answers a REST request. Whatever it causes for joined clients is in [`Server::poll_output`] afterwards.
    pub fn rest(&mut self, request: &RestRequest, now: Now) -> RestResponse {
        let response = preflight(request).unwrap_or_else(|| self.route(request, now).unwrap_or_else(|refusal| refusal));
        self.evict_overflowed(now);
        response.finish(request)
    }

    fn route(&mut self, request: &RestRequest, now: Now) -> Result<RestResponse, RestResponse> {
        if request.path.contains("//") {
            return Err(RestResponse::unauthorized());
        }
        let path = canonical(&request.path);
        let get = matches!(request.method.as_str(), "GET" | "HEAD");
        match path.as_str() {
            "/openvidu/api/config/openvidu-publicurl" if get => {
                return Ok(RestResponse::text(format!("{}/", self.config.public_url)));
            }
            "/openvidu/accept-certificate" if get => {
                let mut r = RestResponse::text(ACCEPT_CERTIFICATE);
                r.headers = vec![("content-type", "text/html;charset=UTF-8".into())];
                return Ok(r);
            }
            "/tertulia/join" if request.method == "POST" => return self.join_by_key(request, now),
            _ => {}
        }
        if !request.authorized(&self.config.secret) {
            return Err(RestResponse::unauthorized());
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments.as_slice() {
            ["openvidu", "api", rest @ ..] => self.api(request, rest, &path, now),
            ["openvidu", "cdr"] if get => Ok(RestResponse::json(200, &json!([]))),
            _ => Err(RestResponse::not_mapped(None)),
        }
    }

    /// What was negotiated, if it is asked for.
    fn stats(&self, request: &RestRequest) -> Result<Option<&Negotiations>, RestResponse> {
        Ok(query_flag(request, "webRtcStats", false)?.then_some(&self.negotiated))
    }

    fn api(
        &mut self,
        request: &RestRequest,
        rest: &[&str],
        path: &str,
        now: Now,
    ) -> Result<RestResponse, RestResponse> {
        let method = if request.method == "HEAD" { "GET" } else { request.method.as_str() };
        let not_allowed = |allow: &str| Err(RestResponse::not_mapped(Some(allow)));
        match (method, rest) {
            ("POST", ["sessions"]) => self.post_session(request, path, now),
            ("GET", ["sessions"]) => {
                let pending = query_flag(request, "pendingConnections", false)?;
                let stats = self.stats(request)?;
                Ok(RestResponse::json(
                    200,
                    &view::list(self.state.sessions.values().map(|s| view::session(s, pending, stats)).collect()),
                ))
            }
            (_, ["sessions"]) => not_allowed("POST, GET"),
            ("GET", ["sessions", id]) if !id.is_empty() => {
                let pending = query_flag(request, "pendingConnections", false)?;
                let stats = self.stats(request)?;
                let session = self.find(id, 404)?;
                Ok(RestResponse::json(200, &view::session(session, pending, stats)))
            }
            ("DELETE", ["sessions", id]) if !id.is_empty() => {
                let closed = self.close_session(id, "sessionClosedByServer", now);
                Ok(RestResponse::empty(if closed { 204 } else { 404 }))
            }
            (_, ["sessions", id]) if !id.is_empty() => not_allowed("GET, DELETE"),
            ("POST", ["sessions", id, "connection"]) => self.post_connection(request, id, path, now),
            ("GET", ["sessions", id, "connection"]) => {
                let pending = query_flag(request, "pendingConnections", true)?;
                let stats = self.stats(request)?;
                Ok(RestResponse::json(200, &view::connections(self.find(id, 404)?, pending, stats)))
            }
            (_, ["sessions", _, "connection"]) => not_allowed("POST, GET"),
            ("GET", ["sessions", id, "connection", connection]) => {
                let stats = self.stats(request)?;
                let session = self.find(id, 400)?;
                let active = session
                    .participants
                    .get(*connection)
                    .filter(|p| p.hidden.is_none())
                    .map(|p| view::participant(session, p, stats));
                let found = active.or_else(|| session.pending.get(*connection).map(|t| view::ticket(session, t)));
                Ok(found.map_or_else(|| RestResponse::empty(404), |v| RestResponse::json(200, &v)))
            }
            ("DELETE", ["sessions", id, "connection", connection]) => self.delete_connection(id, connection, now),
            (_, ["sessions", _, "connection", _]) => not_allowed("GET, DELETE"),
            ("DELETE", ["sessions", id, "stream", stream]) => self.delete_stream(id, stream),
            (_, ["sessions", _, "stream", _]) => not_allowed("DELETE"),
            ("POST", ["tokens"]) => self.post_token(request, path, now),
            (_, ["tokens"]) => not_allowed("POST"),
            ("POST", ["signal"]) => self.post_signal(request, path, now),
            (_, ["signal"]) => not_allowed("POST"),
            ("GET", ["config"]) => Ok(RestResponse::json(200, &config(&self.config))),
            ("GET", ["config", "openvidu-version"]) => Ok(version(request)),
            ("GET", ["config", "openvidu-recording" | "openvidu-cdr"]) => Ok(RestResponse::json(200, &json!(false))),
            ("GET", ["config", "openvidu-recording-path"]) => Ok(RestResponse::text("")),
            ("GET", ["health"]) => Ok(RestResponse::json(200, &json!({"status": "UP"}))),
            ("GET", ["recordings"]) | ("GET" | "DELETE", ["recordings", _]) => Ok(RestResponse::empty(501)),
            ("POST", ["recordings", "start"]) | ("POST", ["recordings", "stop", _]) => Ok(RestResponse::empty(501)),
            (_, ["recordings"]) => not_allowed("GET"),
            (_, ["recordings", "start"]) => not_allowed("POST"),
            (_, ["recordings", _]) => not_allowed("GET, DELETE"),
            _ => Err(RestResponse::not_mapped(None)),
        }
    }

    fn find(&self, id: &str, otherwise: u16) -> Result<&Session, RestResponse> {
        self.state.sessions.get(id).ok_or_else(|| RestResponse::empty(otherwise))
    }

    /// A session with default properties, if there is none of that name.
    pub(super) fn ensure_session(&mut self, name: &str, now: Now) -> bool {
        if self.state.sessions.contains_key(name) {
            return true;
        }
        let Ok(mut properties) = body::session_properties(&Map::new()) else { return false };
        properties.custom_session_id = name.to_owned();
        // Every publisher chooses: the program's own clients take each codec that this host forwards.
        properties.forced_video_codec = ForcedCodec::None;
        self.insert_session(name.to_owned(), properties, now)
    }

    fn insert_session(&mut self, id: String, properties: SessionProperties, now: Now) -> bool {
        if self.state.sessions.len() >= self.config.limits.sessions {
            return false;
        }
        let session = Session {
            id: id.clone(),
            created_at: now.unix_ms,
            properties,
            active: false,
            pending: BTreeMap::new(),
            participants: BTreeMap::new(),
        };
        self.state.sessions.insert(id, session);
        true
    }

    fn post_session(&mut self, request: &RestRequest, path: &str, now: Now) -> Result<RestResponse, RestResponse> {
        let body = json_body(request)?.unwrap_or_default();
        let properties =
            body::session_properties(&body).map_err(|e| RestResponse::error(400, &e, path, now.unix_ms))?;
        let id = match properties.custom_session_id.as_str() {
            "" => self.ids.id("ses_", 9),
            custom => custom.to_owned(),
        };
        if self.state.sessions.contains_key(&id) {
            return Ok(RestResponse::empty(409));
        }
        if !self.insert_session(id.clone(), properties, now) {
            return Err(RestResponse::error(503, "This host has as many sessions as it can hold", path, now.unix_ms));
        }
        Ok(RestResponse::json(200, &view::session(self.find(&id, 404)?, false, None)))
    }

    fn post_connection(
        &mut self,
        request: &RestRequest,
        id: &str,
        path: &str,
        now: Now,
    ) -> Result<RestResponse, RestResponse> {
        let body = json_body(request)?.unwrap_or_default();
        self.find(id, 404)?;
        let ticket = self.ticket(request, id, &body, path, now)?;
        Ok(RestResponse::json(200, &view::ticket(self.find(id, 404)?, &ticket)))
    }

    fn ticket(
        &mut self,
        request: &RestRequest,
        session_id: &str,
        body: &Map<String, Value>,
        path: &str,
        now: Now,
    ) -> Result<Ticket, RestResponse> {
        match body::connection(body, &mut self.ids, now.unix_ms)
            .map_err(|e| RestResponse::error(400, &e, path, now.unix_ms))?
        {
            Wanted::IpCamera => Err(RestResponse::error(500, "This host cannot fetch IP cameras", path, now.unix_ms)),
            Wanted::Ticket(ticket) => {
                let base = self.base_for_back_end(request);
                self.issue(session_id, ticket, &base).ok_or_else(|| {
                    RestResponse::error(503, "The session has as many unused tokens as it can hold", path, now.unix_ms)
                })
            }
        }
    }

    fn delete_connection(&mut self, id: &str, connection: &str, now: Now) -> Result<RestResponse, RestResponse> {
        self.find(id, 400)?;
        let session = self.state.sessions.get_mut(id);
        if session.is_some_and(|s| s.pending.remove(connection).is_some()) {
            return Ok(RestResponse::empty(204));
        }
        if !self.find(id, 400)?.participants.contains_key(connection) {
            return Ok(RestResponse::empty(404));
        }
        self.evict(id, connection, "forceDisconnectByServer", now);
        self.after_departure(id, now);
        Ok(RestResponse::empty(204))
    }

    fn delete_stream(&mut self, id: &str, stream: &str) -> Result<RestResponse, RestResponse> {
        let owner = self.find(id, 400)?.publisher(stream).map(|(p, _)| p.id().to_owned());
        let Some(owner) = owner else { return Ok(RestResponse::empty(404)) };
        self.drop_stream(id, &owner);
        self.broadcast(id, None, &unpublished(&owner, "forceUnpublishByServer"));
        Ok(RestResponse::empty(204))
    }

    /// `POST /tokens`, the older way to a token.
    fn post_token(&mut self, request: &RestRequest, path: &str, now: Now) -> Result<RestResponse, RestResponse> {
        let mut body = json_body(request)?.ok_or_else(|| RestResponse::not_mapped(None))?;
        let id = mandatory_session(&body, path, now)?;
        if !self.state.sessions.contains_key(&id) {
            return Err(RestResponse::error(404, &format!("Session {id} not found"), path, now.unix_ms));
        }
        if body.get("type").and_then(Value::as_str) == Some("IPCAM") {
            return Err(RestResponse::not_mapped(None));
        }
        body.remove("record");
        let ticket = self.ticket(request, &id, &body, &format!("{API}/sessions/{id}/connection"), now)?;
        let mut out = json!({
            "id": ticket.token, "token": ticket.token, "createdAt": ticket.created_at, "connectionId": ticket.connection_id, "session": id,
            "data": ticket.server_data, "role": ticket.role.as_str(),
        });
        if let (Some(options), Some(map)) = (ticket.kurento_options, out.as_object_mut()) {
            map.insert("kurentoOptions".into(), options);
        }
        Ok(RestResponse::json(200, &out))
    }

    fn post_signal(&mut self, request: &RestRequest, path: &str, now: Now) -> Result<RestResponse, RestResponse> {
        let body = json_body(request)?.ok_or_else(|| RestResponse::not_mapped(None))?;
        let wrong_type = || RestResponse::error(400, "Type error in some parameter", path, now.unix_ms);
        let id = mandatory_session(&body, path, now)?;
        let text = |name: &str| match body.get(name) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s.clone())),
            Some(_) => Err(wrong_type()),
        };
        let (kind, data) = (text("type")?, text("data")?);
        let to = match body.get("to") {
            None => Vec::new(),
            Some(Value::Array(list)) => list
                .iter()
                .map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong_type))
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(wrong_type()),
        };
        if !self.find(&id, 404)?.active {
            return Ok(RestResponse::empty(406));
        }
        if !self.deliver_signal(&id, to, &SignalEvent { data, kind, from: None }) {
            return Err(RestResponse::error(
                406,
                "\"to\" array has no valid connection identifiers",
                path,
                now.unix_ms,
            ));
        }
        Ok(RestResponse::empty(200))
    }

    /// `POST /tertulia/join`: a room key for a fresh token. A wrong key, a used one and one of no room are answered alike.
    ///
    /// Body: `{"key":"…", "role":"SUBSCRIBER"?, "data":"…"?}`; answer: `{"token":"wss://…","session":"…","connectionId":"con_…","role":"…"}`.
    fn join_by_key(&mut self, request: &RestRequest, now: Now) -> Result<RestResponse, RestResponse> {
        let refused = || RestResponse::json(403, &json!({"error": "The invitation is not valid (any more)"}));
        let body = json_body(request)?.unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        let redeemed = self.state.rooms.redeem(text("key").unwrap_or_default(), now.unix_ms);
        // Only wrong keys are slowed down: with 192 bits nobody guesses one, and strangers must not lock invited people out.
        let Some((room, KeyRules { role: highest, .. }, key)) = redeemed else {
            return Err(if self.wrong_keys.take(now.mono) {
                refused()
            } else {
                RestResponse::json(429, &json!({"error": "Too many attempts, try again in a moment"}))
            });
        };
        let role = text("role").and_then(Role::parse).unwrap_or(highest).min(highest);
        let full = |server: &mut Self| {
            server.state.rooms.give_back(key);
            RestResponse::json(503, &json!({"error": "The room is full"}))
        };
        if !self.ensure_session(&room, now) {
            return Err(full(self));
        }
        let ticket = Ticket {
            connection_id: String::new(),
            token: None,
            created_at: now.unix_ms,
            expires_at: Some(now.unix_ms.saturating_add(KEY_TOKEN_LIFE_MS)),
            key: Some(key),
            role,
            record: true,
            server_data: String::new(),
            kurento_options: None,
            ice_servers: Vec::new(),
        };
        // The client has reached this host by some name or address; the token has to lead it back the same way.
        let base = self.base_of(request).unwrap_or_else(|| self.config.public_url.clone());
        let Some(ticket) = self.issue(&room, ticket, &base) else { return Err(full(self)) };
        let out = json!({"token": ticket.token, "session": room, "connectionId": ticket.connection_id, "role": role.as_str()});
        Ok(RestResponse::json(200, &out))
    }

    /// The address under which the caller reached this host.
    fn base_of(&self, request: &RestRequest) -> Option<String> {
        let scheme = self.config.public_url.split_once("://").map_or("https", |(s, _)| s);
        request.header("host").filter(|h| is_authority(h)).map(|host| format!("{scheme}://{host}"))
    }

    /// Where a token leads that a back end fetches for somebody else. One that calls from this machine says nothing about the way of others.
    fn base_for_back_end(&self, request: &RestRequest) -> String {
        let public = &self.config.public_url;
        let same_reach = |base: &String| is_loopback(public) || !is_loopback(base);
        let guessed = self.config.public_url_guessed;
        self.base_of(request).filter(|base| guessed && same_reach(base)).unwrap_or_else(|| public.clone())
    }
}

fn is_loopback(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, a)| a);
    ["127.", "[::1]", "localhost"].iter().any(|p| authority.starts_with(p))
}

fn is_authority(host: &str) -> bool {
    !host.is_empty() && host.len() <= 255 && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
}

fn mandatory_session(body: &Map<String, Value>, path: &str, now: Now) -> Result<String, RestResponse> {
    let text = match body.get("session") {
        Some(Value::String(id)) => return Ok(id.clone()),
        None => "\"session\" parameter is mandatory",
        Some(_) => "Type error in some parameter",
    };
    Err(RestResponse::error(400, text, path, now.unix_ms))
}

/// As text, or as JSON for those who accept nothing else.
fn version(request: &RestRequest) -> RestResponse {
    let mut r = RestResponse::text(OPENVIDU_VERSION);
    if request.header("accept") == Some("application/json") {
        r.headers = vec![("content-type", "application/json".into())];
    }
    r
}

fn config(c: &ServerConfig) -> Value {
    let authority = c.public_url.split_once("://").map_or(c.public_url.as_str(), |(_, a)| a);
    let (host, port) = match authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|b| b < *colon)) {
        Some(colon) => (authority.get(..colon), authority.get(colon + 1..).and_then(|p| p.parse::<u16>().ok())),
        None => (Some(authority), None),
    };
    json!({
        "VERSION": OPENVIDU_VERSION, "DOMAIN_OR_PUBLIC_IP": host, "HTTPS_PORT": port.unwrap_or(443), "OPENVIDU_PUBLICURL": c.public_url,
        "OPENVIDU_CDR": false, "OPENVIDU_STREAMS_VIDEO_MAX_RECV_BANDWIDTH": 1000, "OPENVIDU_STREAMS_VIDEO_MIN_RECV_BANDWIDTH": 300,
        "OPENVIDU_STREAMS_VIDEO_MAX_SEND_BANDWIDTH": 1000, "OPENVIDU_STREAMS_VIDEO_MIN_SEND_BANDWIDTH": 300,
        "OPENVIDU_STREAMS_FORCED_VIDEO_CODEC": ForcedCodec::MediaServerPreferred.name(), "OPENVIDU_STREAMS_ALLOW_TRANSCODING": false,
        "OPENVIDU_WEBRTC_SIMULCAST": false, "OPENVIDU_SESSIONS_GARBAGE_INTERVAL": 900, "OPENVIDU_SESSIONS_GARBAGE_THRESHOLD": 3600,
        "OPENVIDU_RECORDING": false, "OPENVIDU_WEBHOOK": false,
    })
}
