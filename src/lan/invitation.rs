//! Invitations: a room key with the host's address and the fingerprint of its certificate.
//!
//! `tertulia://host:port/room#key=…&fp=sha256:…`, the same as `https://host:port/j/room#key=…&fp=…` for browsers.
//! A host without TLS (loopback and tests) writes `tls=off` instead of the fingerprint. The key stands in the fragment,
//! which no browser and no proxy sends along.

use thiserror::Error;
use url::Url;

/// Why a text is no invitation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvitationError {
    /// Neither scheme fits.
    #[error("not an invitation")]
    NotAnInvitation,
    /// Something is missing at the end.
    #[error("a part is missing: {0}")]
    Missing(&'static str),
}

/// An invitation to one room. `Debug` leaves the key out.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Host name or address, IPv6 in brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Room name.
    pub room: String,
    /// Room key, secret.
    pub key: String,
    /// `sha256:…` of the host's certificate, absent without TLS.
    pub fingerprint: Option<String>,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("room", &self.room)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port, room, key, fingerprint } = self;
        write!(f, "tertulia://{host}:{port}/{room}#key={key}&")?;
        match fingerprint {
            Some(fingerprint) => write!(f, "fp={fingerprint}"),
            None => f.write_str("tls=off"),
        }
    }
}

impl Invitation {
    /// Whether the text claims to be an invitation (it may still be cut off).
    pub fn looks_like_one(text: &str) -> bool {
        let text = text.trim();
        text.starts_with("tertulia:") || (text.starts_with("https://") && text.contains("/j/") && text.contains('#'))
    }

    /// Reads either form.
    ///
    /// # Errors
    /// The text is something else, or a part is missing.
    pub fn parse(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if !Self::looks_like_one(text) {
            return Err(InvitationError::NotAnInvitation);
        }
        let url = Url::parse(text).map_err(|_| InvitationError::Missing("the address"))?;
        let host = url.host_str().filter(|h| !h.is_empty()).ok_or(InvitationError::Missing("the address"))?.to_owned();
        let port = url.port_or_known_default().unwrap_or(4443);
        let path = url.path().trim_start_matches('/');
        let room = path.strip_prefix("j/").unwrap_or(path).trim_end_matches('/').to_owned();
        if room.is_empty() {
            return Err(InvitationError::Missing("the room"));
        }
        let fragment = url.fragment().ok_or(InvitationError::Missing("the key"))?;
        let value = |name: &str| {
            fragment
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
        };
        let key = value("key").ok_or(InvitationError::Missing("the key"))?;
        let fingerprint = value("fp");
        if fingerprint.is_none() && value("tls").as_deref() != Some("off") {
            return Err(InvitationError::Missing("the fingerprint"));
        }
        if fingerprint
            .as_ref()
            .is_some_and(|fp| fp.trim_start_matches("sha256:").chars().filter(char::is_ascii_hexdigit).count() != 64)
        {
            return Err(InvitationError::Missing("the end of the fingerprint"));
        }
        Ok(Self { host, port, room, key, fingerprint })
    }

    /// Base URL of the host.
    pub fn base_url(&self) -> String {
        let scheme = if self.fingerprint.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Invitation {
        Invitation {
            host: "192.168.1.5".into(),
            port: 4443,
            room: "design-review".into(),
            key: "s3cret".into(),
            fingerprint: Some(format!("sha256:{}", "ab".repeat(32))),
        }
    }

    #[test]
    fn reads_what_it_writes_and_hides_the_key() {
        let invitation = sample();
        assert_eq!(Invitation::parse(&invitation.to_string()).unwrap(), invitation);
        assert!(!format!("{invitation:?}").contains("s3cret"));
        let plain = Invitation { fingerprint: None, ..sample() };
        assert_eq!(Invitation::parse(&plain.to_string()).unwrap(), plain);
        assert_eq!(plain.base_url(), "http://192.168.1.5:4443");
    }

    #[test]
    fn a_cut_off_link_says_what_is_missing() {
        let whole = sample().to_string();
        for cut in 0..whole.len() {
            assert!(Invitation::parse(&whole[..cut]).is_err(), "accepted {}", &whole[..cut]);
        }
        assert!(Invitation::parse("https://host:4443/j/room#key=k&fp=sha256:00").is_err());
    }

    #[test]
    fn browser_form_and_ipv6() {
        let text = format!("https://[::1]:4443/j/room#key=k&fp=sha256:{}", "00".repeat(32));
        let invitation = Invitation::parse(&text).unwrap();
        assert_eq!((invitation.host.as_str(), invitation.room.as_str()), ("[::1]", "room"));
        assert_eq!(Invitation::parse("tertulia://h/r#key=k&tls=off").unwrap().port, 4443);
    }
}
