//! What can go wrong between us and a server, in the terms of `docs/failures.md`.

use thiserror::Error;

/// A failure of reaching, joining or asking a server. Texts carry no token and no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignalingError {
    /// The pasted text is neither a token, an invitation nor an address.
    #[error("this link is cut off or not a link of a session: {detail}")]
    BadLink {
        /// What is wrong with it.
        detail: String,
    },
    /// The name of the server is not known.
    #[error("{host} is not known")]
    UnknownHost {
        /// Host.
        host: String,
    },
    /// Nobody listens.
    #[error("{host} refuses connections on port {port}")]
    Refused {
        /// Host.
        host: String,
        /// Port.
        port: u16,
    },
    /// No route to it, or no network at all.
    #[error("{host} cannot be reached: {detail}")]
    Unreachable {
        /// Host.
        host: String,
        /// The system's words.
        detail: String,
    },
    /// No answer in time.
    #[error("{host} doesn't answer within {after_ms} ms")]
    Silent {
        /// Host.
        host: String,
        /// Port.
        port: u16,
        /// How long we waited, in ms.
        after_ms: u64,
    },
    /// The certificate is not trusted.
    #[error("nobody vouches for {host}: {detail}")]
    Untrusted {
        /// Host.
        host: String,
        /// The verifier's words.
        detail: String,
    },
    /// The certificate is not the pinned one.
    #[error("{host} shows another identity than the invitation names")]
    PinMismatch {
        /// Host.
        host: String,
    },
    /// Something else than an OpenVidu server answered.
    #[error("{host} is not a conferencing server: {detail}")]
    NotOpenVidu {
        /// Host.
        host: String,
        /// What came instead.
        detail: String,
    },
    /// Wrong secret, user or password.
    #[error("{host} refused the secret")]
    WrongSecret {
        /// Host.
        host: String,
    },
    /// The token or room key is not accepted.
    #[error("the server refused this invitation: it was used before, has expired, or belongs to another room")]
    TokenRefused,
    /// There is no such session.
    #[error("there is no room called {session}")]
    NoSession {
        /// Session.
        session: String,
    },
    /// The session is closed or closing.
    #[error("the room {session} is closed")]
    Closed {
        /// Session.
        session: String,
    },
    /// The session is full.
    #[error("the room {session} is full")]
    Full {
        /// Session.
        session: String,
    },
    /// The role does not allow it.
    #[error("the role does not allow this: {detail}")]
    NotAllowed {
        /// The server's words.
        detail: String,
    },
    /// The server forces a codec that we or the stream lack.
    #[error("the room uses a video format that does not fit: {detail}")]
    Codec {
        /// The server's words.
        detail: String,
    },
    /// Another error answer.
    #[error("the server answered with error {code}: {message}")]
    Server {
        /// Code of protocol §2.7.
        code: i64,
        /// Message.
        message: String,
    },
    /// The request had no answer in time, or was cut off by a reconnection.
    #[error("no answer to {method}")]
    NoAnswer {
        /// Method.
        method: String,
    },
    /// The connection is over.
    #[error("not connected")]
    NotConnected,
}

impl SignalingError {
    /// Key of the text on the screen (`docs/failures.md`).
    pub fn key(&self) -> &'static str {
        match self {
            Self::BadLink { .. } => "err.link",
            Self::UnknownHost { .. } => "err.dns",
            Self::Refused { .. } => "err.refused",
            Self::Unreachable { .. } => "err.offline",
            Self::Silent { .. } => "err.silent",
            Self::Untrusted { .. } => "err.cert",
            Self::PinMismatch { .. } => "err.pin",
            Self::NotOpenVidu { .. } => "err.not_openvidu",
            Self::WrongSecret { .. } => "err.auth",
            Self::TokenRefused => "err.token",
            Self::NoSession { .. } | Self::Closed { .. } => "err.no_room",
            Self::Full { .. } => "err.full",
            Self::NotAllowed { .. } => "err.rights",
            Self::Codec { .. } => "err.codec",
            Self::Server { .. } | Self::NoAnswer { .. } | Self::NotConnected => "err.internal",
        }
    }

    /// What to do about it, one line for the command line.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::BadLink { .. } => "copy it again, whole",
            Self::UnknownHost { .. } => "check the spelling, or whether a VPN is needed",
            Self::Refused { .. } => "check the port, or ask the server's owner to start it",
            Self::Unreachable { .. } => "connect to a network and try again",
            Self::Silent { .. } => "try again later, or ask whether a firewall blocks the port",
            Self::Untrusted { .. } => "ask its owner for an invitation link, or allow this one server with --insecure",
            Self::PinMismatch { .. } => "ask the host for a new invitation over another way",
            Self::NotOpenVidu { .. } => "check the address: it should be the one of an OpenVidu server",
            Self::WrongSecret { .. } => "check the value of the variable named by --secret-env",
            Self::TokenRefused => "ask the person who invited you for a new link, or join by session name",
            Self::NoSession { .. } | Self::Closed { .. } => "ask for a new invitation, or start the room",
            Self::Full { .. } => "wait for a place, or watch with --subscribe-only",
            Self::NotAllowed { .. } => "ask a moderator for another role",
            Self::Codec { .. } => "try --codec auto",
            Self::Server { .. } => "try again; if it stays, tell the server's owner",
            Self::NoAnswer { .. } | Self::NotConnected => "try again",
        }
    }

    /// Maps an error answer of the server (protocol §2.7).
    pub fn from_code(code: i64, message: &str, method: &str, session: &str) -> Self {
        let session = session.to_owned();
        match (code, method) {
            (401, "joinRoom") => Self::TokenRefused,
            (401, _) => Self::NotAllowed { detail: message.to_owned() },
            (202, _) => Self::NoSession { session },
            (203, _) => Self::Closed { session },
            (800, _) => Self::Codec { detail: message.to_owned() },
            _ => Self::Server { code, message: message.to_owned() },
        }
    }
}
