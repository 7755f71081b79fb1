//! Tokens: the URL a client joins with.

use super::secret::Secret;

/// A token, taken apart. The text itself is kept byte for byte: the server compares the whole of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    raw: Secret,
    tls: bool,
    authority: String,
    session: String,
    secret: Secret,
    recorder: bool,
    stt: bool,
    pro: bool,
}

/// Why a text is no token. No variant carries any part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Neither `ws://` nor `wss://`.
    #[error("a token begins with wss:// or ws://")]
    Scheme,
    /// No host, or a port that is no number.
    #[error("the token names no host")]
    Host,
    /// No `sessionId`.
    #[error("the token names no session")]
    Session,
    /// Neither `token` nor `secret`.
    #[error("the token carries no key")]
    Key,
    /// Longer than [`Token::MAX_BYTES`], or with control characters or spaces inside.
    #[error("the text is no token")]
    Text,
}

impl Token {
    /// Longest text taken for a token.
    pub const MAX_BYTES: usize = 4096;

    /// Takes a token apart. Blanks and line breaks around it, as pasting leaves them, are dropped; nothing else is changed.
    ///
    /// Unlike `openvidu-browser`, IPv6 literals in brackets are understood, and a token without session or key is refused here
    /// instead of by the server.
    ///
    /// # Errors
    /// [`TokenError`], without any part of the text.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let raw = text.trim();
        if raw.len() > Self::MAX_BYTES || raw.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(TokenError::Text);
        }
        let (tls, rest) = match (strip_scheme(raw, "wss://"), strip_scheme(raw, "ws://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            _ => return Err(TokenError::Scheme),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        if !is_authority(authority) {
            return Err(TokenError::Host);
        }
        let query = decode_uri(rest.split('?').nth(1).unwrap_or_default());
        let param = |name: &str| {
            query.split('&').find_map(|pair| {
                let mut parts = pair.split('=');
                (parts.next() == Some(name)).then(|| parts.next().unwrap_or_default().to_owned())
            })
        };
        let session = param("sessionId").filter(|s| !s.is_empty()).ok_or(TokenError::Session)?;
        let secret = Secret::from(param("secret").unwrap_or_default());
        if secret.is_empty() && param("token").is_none_or(|t| t.is_empty()) {
            return Err(TokenError::Key);
        }
        let filled = |name: &str| param(name).is_some_and(|v| !v.is_empty());
        Ok(Self {
            tls,
            authority: authority.to_owned(),
            session,
            secret,
            recorder: filled("recorder"),
            stt: filled("stt"),
            pro: param("edition").is_some_and(|e| e == "pro" || e == "enterprise"),
            raw: raw.into(),
        })
    }

    /// The whole token, for `joinRoom`.
    pub fn raw(&self) -> &Secret {
        &self.raw
    }

    /// OpenVidu session id.
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Server's secret, for hidden participants; usually empty.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Joins as a hidden recorder.
    pub fn recorder(&self) -> bool {
        self.recorder
    }

    /// Joins as a hidden speech-to-text worker.
    pub fn stt(&self) -> bool {
        self.stt
    }

    /// Whether the server is a Pro or Enterprise edition.
    pub fn is_pro(&self) -> bool {
        self.pro
    }

    /// Whether the socket is encrypted (`wss`).
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// Host and, if given, port.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Host alone, an IPv6 literal without its brackets.
    pub fn host(&self) -> &str {
        if let Some(inner) = self.authority.strip_prefix('[') {
            return inner.split(']').next().unwrap_or_default();
        }
        self.authority.split(':').next().unwrap_or_default()
    }

    /// Port, 443 or 80 when the token names none.
    pub fn port(&self) -> u16 {
        let after_host = self.authority.rsplit(']').next().unwrap_or_default();
        let port = after_host.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
        port.unwrap_or(if self.tls { 443 } else { 80 })
    }

    /// The socket's URL: host of the token, path `/openvidu`, the session, and `reconnect=true` on a reconnection.
    pub fn socket_url(&self, reconnect: bool) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        let tail = if reconnect { "&reconnect=true" } else { "" };
        format!("{scheme}://{}/openvidu?sessionId={}{tail}", self.authority, encode_component(&self.session))
    }

    /// `http` or `https` and host, for REST calls to the same server.
    pub fn http_url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority)
    }
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| text.get(scheme.len()..)).flatten()
}

/// `host`, `host:port` or `[v6]:port`.
fn is_authority(text: &str) -> bool {
    let (host_ok, rest) = if let Some(inner) = text.strip_prefix('[') {
        match inner.split_once(']') {
            Some((v6, rest)) => (v6.parse::<std::net::Ipv6Addr>().is_ok(), rest),
            None => (false, ""),
        }
    } else {
        match text.find(':') {
            Some(at) => (at > 0, text.get(at..).unwrap_or_default()),
            None => (!text.is_empty(), ""),
        }
    };
    let port_ok = rest.is_empty() || rest.strip_prefix(':').is_some_and(|p| p.parse::<u16>().is_ok_and(|p| p > 0));
    host_ok && port_ok && !text.contains('@')
}

/// ECMAScript's `decodeURI`: percent sequences except those of reserved characters. Broken ones stay as they are.
fn decode_uri(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&b) = bytes.get(at) {
        let hex = bytes
            .get(at + 1..at + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match hex {
            Some(decoded) if b == b'%' && !b";/?:@&=+$,#".contains(&decoded) => {
                out.push(decoded);
                at += 3;
            }
            _ => {
                out.push(b);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// Percent-encodes all but unreserved characters.
fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~!*'()".contains(&b) {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_token_of_a_ce_server() {
        let t = Token::parse("  wss://localhost:4443?sessionId=SessionA&token=tok_Jc3aB9xYk0PqLm2Z\n").unwrap();
        assert_eq!(t.raw().expose(), "wss://localhost:4443?sessionId=SessionA&token=tok_Jc3aB9xYk0PqLm2Z");
        assert_eq!((t.session(), t.host(), t.port(), t.tls()), ("SessionA", "localhost", 4443, true));
        assert_eq!(t.socket_url(false), "wss://localhost:4443/openvidu?sessionId=SessionA");
        assert_eq!(t.socket_url(true), "wss://localhost:4443/openvidu?sessionId=SessionA&reconnect=true");
        assert_eq!(t.http_url(), "https://localhost:4443");
        assert!(t.secret().is_empty() && !t.recorder() && !t.is_pro());
        assert!(!format!("{t:?}").contains("tok_"));
    }

    #[test]
    fn other_shapes() {
        let t = Token::parse("ws://[::1]:4443/some/path?sessionId=a&token=tok_x&role=PUBLISHER&edition=pro").unwrap();
        assert_eq!((t.host(), t.port(), t.is_pro()), ("::1", 4443, true));
        assert_eq!(t.socket_url(false), "ws://[::1]:4443/openvidu?sessionId=a");
        let t = Token::parse("wss://h?sessionId=a%20b&secret=S&recorder=true").unwrap();
        assert_eq!((t.session(), t.port(), t.recorder(), t.secret().expose()), ("a b", 443, true, "S"));
        assert_eq!(t.socket_url(false), "wss://h/openvidu?sessionId=a%20b");
    }

    #[test]
    fn what_is_no_token() {
        for (text, want) in [
            ("", TokenError::Scheme),
            ("https://h?sessionId=a&token=t", TokenError::Scheme),
            ("wss://?sessionId=a&token=t", TokenError::Host),
            ("wss://h:port?sessionId=a&token=t", TokenError::Host),
            ("wss://user@h?sessionId=a&token=t", TokenError::Host),
            ("wss://[::1?sessionId=a&token=t", TokenError::Host),
            ("wss://h?token=t", TokenError::Session),
            ("wss://h", TokenError::Session),
            ("wss://h?sessionId=a", TokenError::Key),
            ("wss://h?sessionId=a&token=x y", TokenError::Text),
        ] {
            assert_eq!(Token::parse(text).unwrap_err(), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept(text in "\\PC{0,80}", tail in "(wss?://)?[a-z0-9.:\\[\\]/?&=%#]{0,60}") {
            for t in [&text, &tail] {
                if let Ok(token) = Token::parse(t) {
                    prop_assert_eq!(token.raw().expose(), t.trim());
                    prop_assert!(token.socket_url(true).contains("/openvidu?sessionId="));
                }
            }
        }
    }
}
