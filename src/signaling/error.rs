//! What can go wrong between us and a server, in the terms of `docs/failures.md`.

use thiserror::Error;

use crate::protocol::ErrorCode;

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
    /// The place in the session is gone, and what we joined with was good for one visit.
    #[error("the place in the room is gone, and this link was good for one visit only")]
    NeedsNewToken,
    /// Whoever or whatever was meant is not in the session (any more).
    #[error("whoever this was meant for is not in the room any more: {detail}")]
    Gone {
        /// The server's words.
        detail: String,
    },
    /// The server has no media node, or none with room.
    #[error("the server cannot carry another stream now: {detail}")]
    NoCapacity {
        /// The server's words.
        detail: String,
    },
    /// The server does not offer this at all: filters, recordings, what other editions have.
    #[error("the server does not offer this: {detail}")]
    Unsupported {
        /// The server's words.
        detail: String,
    },
    /// The connection is over.
    #[error("not connected")]
    NotConnected,
}

/// Longest part of a server's message that is shown or reported, in characters.
const MESSAGE_LIMIT: usize = 200;

/// A server's message without what must not be seen: the real one repeats the whole token in its refusal (protocol §1.3).
fn scrubbed(message: &str) -> String {
    without(message, &[SECRETS, &["://"]].concat()).chars().take(MESSAGE_LIMIT).collect()
}

/// What a word has that holds a token or a secret.
const SECRETS: &[&str] = &["tok_", "token=", "secret=", "key="];

/// A text of a server or of somebody through it without the words that hold tokens or secrets.
pub(super) fn without_tokens(text: &str) -> String {
    without(text, SECRETS)
}

fn without(text: &str, signs: &[&str]) -> String {
    let hit = |word: &str| {
        let word = word.to_ascii_lowercase();
        signs.iter().any(|sign| word.contains(sign))
    };
    if !hit(text) {
        return text.to_owned();
    }
    let words: Vec<&str> = text.split_whitespace().map(|word| if hit(word) { "…" } else { word }).collect();
    words.join(" ")
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
            Self::NoSession { .. } => "err.no_room",
            Self::Closed { .. } => "err.closed",
            Self::Full { .. } => "err.full",
            Self::NeedsNewToken => "err.new_token",
            Self::Gone { .. } => "err.gone",
            Self::NoCapacity { .. } => "err.no_capacity",
            Self::Unsupported { .. } => "err.unsupported",
            Self::NotAllowed { .. } => "err.rights",
            Self::Codec { .. } => "err.codec",
            Self::Server { .. } => "err.server",
            Self::NoAnswer { .. } | Self::NotConnected => "err.internal",
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
            Self::NoSession { .. } => "ask for a new invitation, or start the room",
            Self::Closed { .. } => "ask whoever opened it whether there is another",
            Self::NeedsNewToken => "ask for a new invitation",
            Self::Gone { .. } => "look who is there and try again",
            Self::NoCapacity { .. } => "try again later, or tell the server's owner",
            Self::Unsupported { .. } => "ask the server's owner what it offers",
            Self::Full { .. } => "wait for a place, or watch with --subscribe-only",
            Self::NotAllowed { .. } => "ask a moderator for another role",
            Self::Codec { .. } => "try --codec auto",
            Self::Server { .. } => "try again; if it stays, tell the server's owner",
            Self::NoAnswer { .. } | Self::NotConnected => "try again",
        }
    }

    /// Values for the `%{}` of the text.
    pub fn values(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::UnknownHost { host }
            | Self::Unreachable { host, .. }
            | Self::Untrusted { host, .. }
            | Self::PinMismatch { host }
            | Self::NotOpenVidu { host, .. }
            | Self::WrongSecret { host } => vec![("host", host.clone())],
            Self::Refused { host, port } | Self::Silent { host, port, .. } => {
                vec![("host", host.clone()), ("port", port.to_string())]
            }
            Self::NoSession { session } | Self::Closed { session } | Self::Full { session } => {
                vec![("room", session.clone())]
            }
            _ => Vec::new(),
        }
    }

    /// Maps an error answer of the server (protocol §2.7). What it says passes without tokens, and not at any length.
    pub fn from_code(code: i64, message: &str, method: &str, session: &str) -> Self {
        use ErrorCode::*;
        let (detail, session) = (scrubbed(message), session.to_owned());
        let joining = method == "joinRoom";
        let Some(known) = ErrorCode::from_code(code) else { return Self::Server { code, message: detail } };
        match known {
            UserUnauthorized | ExistingUserInRoom if joining => Self::TokenRefused,
            UserUnauthorized => Self::NotAllowed { detail },
            RoomNotFound => Self::NoSession { session },
            // Nothing of the protocol's own says "full": our host answers so, and a server with a limit of its own may.
            RoomClosed | RoomGeneric | RoomCannotBeCreated if joining && detail.contains("full") => {
                Self::Full { session }
            }
            RoomClosed => Self::Closed { session },
            RoomCannotBeCreated | MediaNodeNotFound | MediaNodeStatusWrong | MediaNodeNoCapacity => {
                Self::NoCapacity { detail }
            }
            UserNotFound | UserClosed | UserNotStreaming | PublisherEndpointNotFound | SignalToInvalid => {
                Self::Gone { detail }
            }
            ForcedCodecNotFoundInSdpOffer => Self::Codec { detail },
            ExistingFilterAlreadyApplied
            | FilterNotApplied
            | FilterEventListenerNotFound
            | RecordingStart
            | RecordingStop
            | RecordingList
            | RecordingNotFound
            | RecordingCompletion
            | RecordingDelete
            | RecordingPath
            | RecordingFileEmpty
            | DockerNotFound
            | BroadcastStart
            | BroadcastConcurrent
            | ServiceNotEnabled
            | WrongOpenViduEdition
            | WrongPath => Self::Unsupported { detail },
            Transport | ReconnectionError => Self::NotConnected,
            TransportRequest | TransportResponse => Self::NoAnswer { method: method.to_owned() },
            // Our own mistakes and the server's: nobody but a maintainer can mend them.
            Internal
            | UserGeneric
            | ExistingUserInRoom
            | UserAlreadyStreaming
            | RoomGeneric
            | MediaGeneric
            | MediaSdp
            | MediaEndpoint
            | MediaWebrtcEndpoint
            | MediaRtpEndpoint
            | MediaNotAWebEndpoint
            | MediaMute
            | MediaTypeRecordingProperties
            | MediaTypeStreamIncompatibleWithRecordingProperties
            | BadRequest
            | RoleNotFound
            | SessionIdCannotBeCreated
            | TokenCannotBeCreated
            | UserMetadataFormatInvalid
            | SignalFormatInvalid
            | Generic => Self::Server { code, message: detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: i64, message: &str, method: &str) -> &'static str {
        SignalingError::from_code(code, message, method, "room").key()
    }

    #[test]
    fn every_documented_code_has_its_text() {
        // What a real server was recorded to answer (fixtures `join-errors`, `rpc-errors`, `subscriber-role`, `codec-missing`),
        // and the rest of the protocol's table.
        for (code, message, method, expected) in [
            (401, "Unable to join session s. Token nonsense is not valid. Code: 401", "joinRoom", "err.token"),
            (104, "con_a is in session s already", "joinRoom", "err.token"),
            (
                202,
                "Unable to join session. Session NoSuchSession cannot be found. Code: 202",
                "joinRoom",
                "err.no_room",
            ),
            (203, "Session s is full", "joinRoom", "err.full"),
            (203, "Session s is closed. Code: 203", "joinRoom", "err.closed"),
            (204, "Session s cannot be created", "joinRoom", "err.no_capacity"),
            (902, "no capacity", "joinRoom", "err.no_capacity"),
            (-1, "java.lang.RuntimeException:Version \"x\" of openvidu-browser", "joinRoom", "err.server"),
            (
                401,
                "Unable to publish video. The user does not have a valid token. Code: 401",
                "publishVideo",
                "err.rights",
            ),
            (401, "Unable to force disconnect.", "forceDisconnect", "err.rights"),
            (102, "Connection not found when calling 'forceDisconnect'. Code: 102", "forceDisconnect", "err.gone"),
            (103, "closed", "receiveVideoFrom", "err.gone"),
            (105, "Participant 'con_a' is not streaming media. Code: 105", "receiveVideoFrom", "err.gone"),
            (408, "no publisher", "receiveVideoFrom", "err.gone"),
            (601, "Signal \"to\" field invalid", "sendMessage", "err.gone"),
            (106, "User con_a is already publishing in session s. Code: 106", "publishVideo", "err.server"),
            (302, "Unable to generate SDP answer", "receiveVideoFrom", "err.server"),
            (800, "Error forcing codec: 'VP9'", "publishVideo", "err.codec"),
            (406, "User has no filter applied", "removeFilter", "err.unsupported"),
            (711, "another broadcast", "startBroadcast", "err.unsupported"),
            (997, "Speech To Text requires OpenVidu Pro", "subscribeToSpeechToText", "err.unsupported"),
            (803, "No connection found for participant with privateId x", "publishVideo", "err.internal"),
            (40_007, "reconnection error", "connect", "err.internal"),
            (999, "lock time out", "joinRoom", "err.server"),
            (4_711, "unheard of", "joinRoom", "err.server"),
        ] {
            assert_eq!(key(code, message, method), expected, "{code} {method} {message}");
        }
    }

    #[test]
    fn a_token_that_the_server_repeats_goes_no_further() {
        let recorded =
            "Unable to do it. Token wss://127.0.0.1:4443?sessionId=s&token=tok_0hea0NvbNR7G9xq4 is not valid";
        for (code, method) in [(401, "publishVideo"), (999, "joinRoom"), (102, "forceDisconnect")] {
            let error = SignalingError::from_code(code, recorded, method, "s");
            let text = format!("{error} {error:?}");
            assert!(!text.contains("tok_") && !text.contains("wss:"), "{text}");
            assert!(text.contains("is not valid"), "{text}");
        }
        let long = SignalingError::from_code(999, &"x".repeat(10_000), "joinRoom", "s");
        assert!(long.to_string().len() < 300);
    }
}
