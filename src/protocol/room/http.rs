//! One REST exchange as plain values, and what every answer has in common.

use crate::protocol::Secret;
use base64::Engine as _;
use serde_json::{Value, json};
use std::fmt;
use subtle::ConstantTimeEq as _;

/// User name of the Basic credentials.
pub const USER: &str = "OPENVIDUAPP";

/// A request, read from the wire.
#[derive(Clone, Default)]
pub struct RestRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path as sent, without the query.
    pub path: String,
    /// Query as sent, without the `?`; may be empty.
    pub query: String,
    /// Headers with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body, already bounded by whoever read it.
    pub body: Vec<u8>,
}

impl RestRequest {
    /// A header by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A value of the query, undecoded.
    pub(super) fn query_value(&self, name: &str) -> Option<&str> {
        self.query.split('&').find_map(|pair| {
            let (n, v) = pair.split_once('=').unwrap_or((pair, ""));
            (n == name).then_some(v)
        })
    }

    /// Whether the Basic credentials are right, compared in constant time.
    pub(super) fn authorized(&self, secret: &Secret) -> bool {
        let given = self
            .header("authorization")
            .and_then(|h| h.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))
            .and_then(|(_, b64)| base64::engine::general_purpose::STANDARD.decode(b64.trim()).ok())
            .unwrap_or_default();
        let wanted = format!("{USER}:{}", secret.expose());
        !secret.is_empty() && bool::from(given.as_slice().ct_eq(wanted.as_bytes()))
    }
}

impl fmt::Debug for RestRequest {
    /// Method and path only: headers hold credentials, bodies hold tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method, self.path, self.body.len())
    }
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct RestResponse {
    /// HTTP status.
    pub status: u16,
    /// Headers; `content-length` is left to whoever writes them.
    pub headers: Vec<(&'static str, String)>,
    /// Body; a `HEAD` has none.
    pub body: Vec<u8>,
}

impl fmt::Debug for RestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.status, self.body.len())
    }
}

impl RestResponse {
    /// An answer without a body.
    pub(super) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// 403 for what is not there, with the methods that are.
    pub(super) fn not_mapped(allow: Option<&str>) -> Self {
        let mut r = Self::empty(403);
        if let Some(allow) = allow {
            r.headers.push(("allow", allow.to_owned()));
        }
        r
    }

    /// A JSON body.
    pub(super) fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".into())],
            body: value.to_string().into_bytes(),
        }
    }

    /// A text body.
    pub(super) fn text(body: impl Into<String>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "text/plain;charset=UTF-8".into())],
            body: body.into().into_bytes(),
        }
    }

    /// An error with the usual body.
    pub(super) fn error(status: u16, message: &str, path: &str, unix_ms: u64) -> Self {
        let name = match status {
            400 => "Bad Request",
            404 => "Not Found",
            406 => "Not Acceptable",
            409 => "Conflict",
            422 => "Unprocessable Entity",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        Self::json(
            status,
            &json!({"timestamp": unix_ms, "status": status, "error": name, "message": message, "path": path}),
        )
    }

    /// 401 of the Basic scheme.
    pub(super) fn unauthorized() -> Self {
        let mut r = Self::empty(401);
        r.headers.push(("www-authenticate", "Basic realm=\"Realm\"".into()));
        r
    }

    /// Adds what every answer has, and what a page of another origin needs to read it.
    pub(super) fn finish(mut self, request: &RestRequest) -> Self {
        if request.header("origin").is_some() {
            self.headers.push(("access-control-allow-origin", "*".into()));
        }
        for (name, value) in [
            ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
            ("x-content-type-options", "nosniff"),
            ("x-xss-protection", "0"),
            ("cache-control", "no-cache, no-store, max-age=0, must-revalidate"),
            ("pragma", "no-cache"),
            ("expires", "0"),
            ("x-frame-options", "DENY"),
        ] {
            self.headers.push((name, value.to_owned()));
        }
        if request.method == "HEAD" {
            self.body.clear();
        }
        self
    }
}

/// The answer to a preflight, if it is one: public, with the requested method and headers echoed.
pub(super) fn preflight(request: &RestRequest) -> Option<RestResponse> {
    if request.method != "OPTIONS" || request.header("origin").is_none() {
        return None;
    }
    let method = request.header("access-control-request-method")?;
    let mut r = RestResponse::empty(200);
    r.headers.push(("access-control-allow-methods", method.to_owned()));
    if let Some(headers) = request.header("access-control-request-headers") {
        let list: Vec<&str> = headers.split(',').map(str::trim).collect();
        r.headers.push(("access-control-allow-headers", list.join(", ")));
    }
    Some(r)
}

/// Why a body cannot be read as the JSON object that is wanted.
pub(super) enum BodyError {
    /// Not JSON, not an object, or none where one is needed.
    Unreadable,
    /// Not declared as JSON.
    ContentType,
}

impl From<BodyError> for RestResponse {
    /// The original answers all of them with 403, whatever the cause.
    fn from(error: BodyError) -> Self {
        let mut r = Self::empty(403);
        if matches!(error, BodyError::ContentType) {
            r.headers.push(("accept", "application/json, application/*+json".into()));
        }
        r
    }
}

/// The JSON object of a body without its `null` members; `None` when the body is empty.
pub(super) fn json_body(request: &RestRequest) -> Result<Option<serde_json::Map<String, Value>>, BodyError> {
    if request.body.is_empty() {
        return Ok(None);
    }
    let kind = request.header("content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
        return Err(BodyError::ContentType);
    }
    match serde_json::from_slice::<Value>(&request.body) {
        Ok(Value::Object(map)) => Ok(Some(map.into_iter().filter(|(_, v)| !v.is_null()).collect())),
        _ => Err(BodyError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_auth(value: &str) -> RestRequest {
        RestRequest { headers: vec![("authorization".into(), value.into())], ..RestRequest::default() }
    }

    #[test]
    fn basic_credentials() {
        let b64 = |s: &str| base64::engine::general_purpose::STANDARD.encode(s);
        let secret = Secret::new("MY_SECRET");
        assert!(with_auth(&format!("Basic {}", b64("OPENVIDUAPP:MY_SECRET"))).authorized(&secret));
        assert!(with_auth(&format!("basic {}", b64("OPENVIDUAPP:MY_SECRET"))).authorized(&secret));
        for wrong in
            ["OPENVIDUAPP:MY_SECRE", "OPENVIDUAPP:MY_SECRET2", "openviduapp:MY_SECRET", "OPENVIDUAPP:", ":", ""]
        {
            assert!(!with_auth(&format!("Basic {}", b64(wrong))).authorized(&secret), "{wrong}");
        }
        assert!(!with_auth("Basic %%%").authorized(&secret));
        assert!(!with_auth("Bearer MY_SECRET").authorized(&secret));
        assert!(!RestRequest::default().authorized(&secret));
        assert!(
            !with_auth(&format!("Basic {}", b64("OPENVIDUAPP:"))).authorized(&Secret::default()),
            "no secret set: nobody gets in"
        );
    }

    #[test]
    fn debug_tells_no_secret() {
        let r =
            RestRequest { method: "GET".into(), path: "/x".into(), body: b"tok_".to_vec(), ..with_auth("Basic abc") };
        assert_eq!(format!("{r:?}"), "GET /x (4 bytes)");
    }
}
