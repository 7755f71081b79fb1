//! Why a stream cannot be sent or received.

use super::view::Failure;
use crate::peer::PeerError;
use crate::signaling::SignalingError;

/// Why a leg ended by itself.
#[derive(Debug, Clone)]
pub(super) enum LegError {
    /// The server said no.
    Signaling(SignalingError),
    /// The stack said no.
    Peer(PeerError),
}

impl LegError {
    /// What is shown of it.
    pub(super) fn failure(&self) -> Failure {
        let key = match self {
            Self::Signaling(error) => error.key(),
            Self::Peer(PeerError::NoCommonCodec(_)) => "err.codec",
            Self::Peer(_) => "err.media",
        };
        let values = match self {
            Self::Signaling(error) => error.values(),
            Self::Peer(_) => Vec::new(),
        };
        Failure { key, values, detail: self.to_string() }
    }
}

impl std::fmt::Display for LegError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signaling(e) => e.fmt(f),
            Self::Peer(e) => e.fmt(f),
        }
    }
}

impl From<SignalingError> for LegError {
    fn from(e: SignalingError) -> Self {
        Self::Signaling(e)
    }
}

impl From<PeerError> for LegError {
    fn from(e: PeerError) -> Self {
        Self::Peer(e)
    }
}
