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
