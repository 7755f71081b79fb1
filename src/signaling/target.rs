//! Where a token comes from, and how to get another one after a long cut.

use super::tls::Trust;
use crate::protocol::Secret;

/// The means to get a token.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// One raw token, used byte for byte; it cannot be had again.
    Raw(Secret),
    /// Room key of an embedded host: `POST {base}/tertulia/join`.
    RoomKey {
        /// Base URL.
        base: String,
        /// Room.
        room: String,
        /// Key.
        key: Secret,
        /// Role asked for; without it the highest that the key gives.
        role: Option<String>,
    },
    /// OpenVidu server with its secret: session and connection over REST.
    OpenVidu {
        /// Base URL.
        base: String,
        /// Session to create or join.
        session: String,
        /// The server's secret.
        secret: Secret,
        /// Role of the connection.
        role: String,
    },
    /// Application server as in OpenVidu's tutorials.
    Application {
        /// Base URL.
        base: String,
        /// Session to create or join.
        session: String,
    },
}

impl TokenSource {
    /// Whether messages go unencrypted to another computer.
    pub fn is_plain(&self) -> bool {
        let address = match self {
            Self::Raw(token) => token.expose(),
            Self::RoomKey { base, .. } | Self::OpenVidu { base, .. } | Self::Application { base, .. } => base,
        };
        let Ok(url) = url::Url::parse(address) else { return false };
        let local = match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
            Some(url::Host::Domain(name)) => name == "localhost",
            None => true,
        };
        matches!(url.scheme(), "ws" | "http") && !local
    }

    /// Whether another token can be had after a long cut.
    pub fn renewable(&self) -> bool {
        !matches!(self, Self::Raw(_))
    }
}

/// A session to join.
#[derive(Debug, Clone)]
pub struct Target {
    /// The means to get a token.
    pub source: TokenSource,
    /// How the server's certificate is judged.
    pub trust: Trust,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_is_what_others_can_read() {
        let raw = |token: &str| TokenSource::Raw(Secret::new(token)).is_plain();
        assert!(raw("ws://meet.example.org?sessionId=a&token=t") && raw("ws://192.168.1.7:4443?sessionId=a&token=t"));
        assert!(!raw("wss://meet.example.org?sessionId=a&token=t") && !raw("ws://127.0.0.1:4443?sessionId=a&token=t"));
        let base = |base: &str| TokenSource::Application { base: base.to_owned(), session: "s".to_owned() }.is_plain();
        assert!(base("http://meet.example.org") && !base("http://localhost:5000") && !base("http://[::1]:5000"));
    }
}
