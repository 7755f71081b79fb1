//! Getting a token: OpenVidu's REST API, the tutorials' application server, and the room keys of our own host.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::super::SignalingError;
use super::super::target::{Target, TokenSource};
use super::super::tls;
use crate::protocol::Secret;

/// Longest wait for one HTTP answer, in ms.
pub const HTTP_TIMEOUT_MS: u64 = 10_000;
/// Longest body taken from a server, in bytes.
const BODY_LIMIT_BYTES: usize = 256 * 1024;

/// Fetches a token for `target`. A raw one is handed back as it is.
///
/// # Errors
/// Each way in which the server, its certificate, the secret or the session can be wrong.
pub async fn fetch_token(target: &Target) -> Result<Secret, SignalingError> {
    match &target.source {
        TokenSource::Raw(token) => Ok(token.clone()),
        TokenSource::RoomKey { base, room, key, role } => {
            let http = Http::new(base, target)?;
            let mut body = json!({"room": room, "key": key.expose()});
            if let (Some(role), Some(members)) = (role, body.as_object_mut()) {
                members.insert("role".to_owned(), json!(role));
            }
            let answer = http.send(http.post("/tertulia/join").json(&body)).await?;
            match answer.status() {
                StatusCode::OK => http.token_member(answer).await,
                StatusCode::SERVICE_UNAVAILABLE => Err(SignalingError::Full { session: room.clone() }),
                // A host says 429 to wrong keys only.
                StatusCode::UNAUTHORIZED
                | StatusCode::FORBIDDEN
                | StatusCode::NOT_FOUND
                | StatusCode::GONE
                | StatusCode::TOO_MANY_REQUESTS => Err(SignalingError::TokenRefused),
                status => Err(http.not_openvidu(format!("HTTP {status}"))),
            }
        }
        TokenSource::OpenVidu { base, session, secret, role } => openvidu(target, base, session, secret, role).await,
        TokenSource::Application { base, session } => application(target, base, session).await,
    }
}

/// Whether an OpenVidu server answers there: it asks for the secret before it says anything about itself.
///
/// # Errors
/// Each way in which the server or its certificate can be wrong.
pub async fn probe(target: &Target, base: &str) -> Result<(), SignalingError> {
    let http = Http::new(base, target)?;
    let answer = http.send(http.client.get(http.url("/openvidu/api/config"))).await?;
    match answer.status() {
        StatusCode::OK | StatusCode::UNAUTHORIZED => Ok(()),
        status => Err(http.not_openvidu(format!("HTTP {status}"))),
    }
}

async fn openvidu(
    target: &Target,
    base: &str,
    session: &str,
    secret: &Secret,
    role: &str,
) -> Result<Secret, SignalingError> {
    let http = Http::new(base, target)?;
    let auth = |r: RequestBuilder| r.basic_auth("OPENVIDUAPP", Some(secret.expose()));
    let path = format!("/openvidu/api/sessions/{session}/connection");
    let mut tries_left = 2;
    loop {
        tries_left -= 1;
        let created =
            http.send(auth(http.post("/openvidu/api/sessions").json(&json!({"customSessionId": session})))).await?;
        match created.status() {
            // 409: it exists already, which is what we want.
            StatusCode::OK | StatusCode::CONFLICT => {}
            StatusCode::UNAUTHORIZED => return Err(SignalingError::WrongSecret { host: http.host }),
            StatusCode::BAD_REQUEST => {
                let detail = "the server does not accept this session name".to_owned();
                return Err(SignalingError::BadLink { detail });
            }
            status => return Err(http.not_openvidu(format!("HTTP {status}"))),
        }
        let answer = http.send(auth(http.post(&path).json(&json!({"role": role})))).await?;
        match answer.status() {
            StatusCode::OK => return http.token_member(answer).await,
            StatusCode::UNAUTHORIZED => return Err(SignalingError::WrongSecret { host: http.host }),
            // Whoever was in it has just left, and the session ended with them: it can be made again.
            StatusCode::NOT_FOUND if tries_left > 0 => {}
            StatusCode::NOT_FOUND => return Err(SignalingError::NoSession { session: session.to_owned() }),
            status => return Err(http.not_openvidu(format!("HTTP {status}"))),
        }
    }
}

async fn application(target: &Target, base: &str, session: &str) -> Result<Secret, SignalingError> {
    let http = Http::new(base, target)?;
    let created = http.send(http.post("/api/sessions").json(&json!({"customSessionId": session}))).await?;
    if created.status() == StatusCode::UNAUTHORIZED || created.status() == StatusCode::FORBIDDEN {
        return Err(SignalingError::WrongSecret { host: http.host });
    }
    if !created.status().is_success() && created.status() != StatusCode::CONFLICT {
        let status = created.status();
        return Err(http.not_openvidu(format!("HTTP {status}")));
    }
    let id = plain_or_member(&http.text(created).await?, "sessionId");
    let id = if id.is_empty() { session.to_owned() } else { id };
    let answer = http.send(http.post(&format!("/api/sessions/{id}/connections")).json(&json!({}))).await?;
    if !answer.status().is_success() {
        let status = answer.status();
        return Err(http.not_openvidu(format!("HTTP {status}")));
    }
    let token = plain_or_member(&http.text(answer).await?, "token");
    http.checked(token)
}

/// The tutorials answer with plain text, some back ends with a JSON string or object.
fn plain_or_member(body: &str, member: &str) -> String {
    match serde_json::from_str::<Value>(body.trim()) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(map)) => {
            map.get(member).or_else(|| map.get("0")).and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        _ => body.trim().to_owned(),
    }
}

struct Http {
    client: Client,
    base: Url,
    host: String,
    port: u16,
}

impl Http {
    fn new(base: &str, target: &Target) -> Result<Self, SignalingError> {
        let bad = |detail: &str| SignalingError::BadLink { detail: detail.to_owned() };
        let base = Url::parse(base).map_err(|_| bad("the address of the server is not complete"))?;
        let host = base.host_str().ok_or_else(|| bad("the address of the server has no host"))?.to_owned();
        let port = base.port_or_known_default().unwrap_or(443);
        let config = tls::client_config(target.trust)
            .map_err(|e| SignalingError::Untrusted { host: host.clone(), detail: e.to_string() })?;
        let client = Client::builder()
            .tls_backend_preconfigured(config)
            .timeout(Duration::from_millis(HTTP_TIMEOUT_MS))
            .connect_timeout(Duration::from_millis(HTTP_TIMEOUT_MS))
            .redirect(reqwest::redirect::Policy::none())
            // A desktop call server is reached directly; a proxy from the environment must not see its secret.
            .no_proxy()
            .build()
            .map_err(|e| SignalingError::Unreachable { host: host.clone(), detail: e.to_string() })?;
        Ok(Self { client, base, host, port })
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, SignalingError> {
        let answer = request.send().await.map_err(|error| self.explain(&error))?;
        // The secret goes nowhere else than where it was sent to: whoever moved is named, not followed.
        if answer.status().is_redirection() {
            let to = answer.headers().get(reqwest::header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| self.base.join(to).ok()).map(|to| to.origin().ascii_serialization());
            let elsewhere = to.unwrap_or_else(|| "another address".to_owned());
            return Err(self.not_openvidu(format!("it sends on to {elsewhere}, use that one")));
        }
        Ok(answer)
    }

    fn explain(&self, error: &reqwest::Error) -> SignalingError {
        if error.is_timeout() {
            return SignalingError::Silent { host: self.host.clone(), port: self.port, after_ms: HTTP_TIMEOUT_MS };
        }
        if error.is_connect() || error.is_request() {
            return explain_connect(&chain(error), &self.host, self.port);
        }
        self.not_openvidu("its answer is not HTTP".to_owned())
    }

    fn not_openvidu(&self, detail: String) -> SignalingError {
        SignalingError::NotOpenVidu { host: self.host.clone(), detail }
    }

    async fn text(&self, response: Response) -> Result<String, SignalingError> {
        let mut response = response;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.explain(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_LIMIT_BYTES {
                return Err(self.not_openvidu("its answer is too long".to_owned()));
            }
        }
        String::from_utf8(body).map_err(|_| self.not_openvidu("its answer is not text".to_owned()))
    }

    async fn token_member(&self, response: Response) -> Result<Secret, SignalingError> {
        let body = self.text(response).await?;
        self.checked(plain_or_member(&body, "token"))
    }

    fn checked(&self, token: String) -> Result<Secret, SignalingError> {
        if token.starts_with("ws://") || token.starts_with("wss://") {
            Ok(Secret::new(token))
        } else {
            Err(self.not_openvidu("its answer has no token".to_owned()))
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Sorts the causes of a connection that did not come about by the system's words.
pub(super) fn explain_connect(text: &str, host: &str, port: u16) -> SignalingError {
    let host = host.to_owned();
    let lower = text.to_lowercase();
    if tls::is_pin_mismatch(text) {
        SignalingError::PinMismatch { host }
    } else if lower.contains("certificate") || lower.contains("unknownissuer") {
        SignalingError::Untrusted {
            host,
            detail: "its certificate is not signed by an authority that this system trusts".to_owned(),
        }
    } else if lower.contains("refused") {
        SignalingError::Refused { host, port }
    } else if lower.contains("lookup")
        || lower.contains("dns")
        || lower.contains("name or service")
        || lower.contains("resolve")
    {
        SignalingError::UnknownHost { host }
    } else if lower.contains("corrupt message") || lower.contains("invalid content type") || lower.contains("alert") {
        SignalingError::NotOpenVidu { host, detail: "it does not speak TLS on this port".to_owned() }
    } else if lower.contains("timed out") {
        SignalingError::Silent { host, port, after_ms: HTTP_TIMEOUT_MS }
    } else {
        SignalingError::Unreachable { host, detail: last_part(text) }
    }
}

/// The innermost cause: what comes before it are URLs, which may name a session.
fn last_part(text: &str) -> String {
    text.rsplit(": ").next().unwrap_or("no connection").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_json_string_and_object_give_the_token() {
        assert_eq!(plain_or_member("wss://h?t=1\n", "token"), "wss://h?t=1");
        assert_eq!(plain_or_member("\"wss://h\"", "token"), "wss://h");
        assert_eq!(plain_or_member("{\"token\":\"wss://h\"}", "token"), "wss://h");
        assert_eq!(plain_or_member("{\"0\":\"wss://h\"}", "token"), "wss://h");
    }

    #[test]
    fn causes_are_told_apart() {
        let key = |text: &str| explain_connect(text, "h", 1).key();
        assert_eq!(key("connect: Connection refused (os error 111)"), "err.refused");
        assert_eq!(key("dns error: failed to lookup address information"), "err.dns");
        assert_eq!(key("invalid peer certificate: UnknownIssuer"), "err.cert");
        assert_eq!(key("certificate does not match the pin"), "err.pin");
        assert_eq!(key("received corrupt message of type InvalidContentType"), "err.not_openvidu");
        assert_eq!(key("Network is unreachable (os error 101)"), "err.offline");
    }
}
