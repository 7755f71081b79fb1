//! What can go wrong with a handle.

/// A failed operation of a handle. Messages carry no addresses, passwords or SDP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Neither audio nor video was asked for.
    #[error("nothing to send or receive: neither audio nor video was asked for")]
    NoMedia,
    /// No local address could be bound.
    #[error("no usable network address on this computer")]
    NoAddress,
    /// The peer connection could not be built.
    #[error("the media connection could not be built: {0}")]
    Build(String),
    /// An offer or answer that cannot be used, with the reason.
    #[error("the media description of the other side cannot be used: {0}")]
    BadDescription(String),
    /// The other side accepted no codec that we speak for this kind.
    #[error("no common {0} codec with the other side")]
    NoCommonCodec(&'static str),
    /// A candidate line that cannot be read.
    #[error("unreadable ICE candidate")]
    BadCandidate,
    /// The step does not fit the state (an answer without an offer, a second offer).
    #[error("out of order: {0}")]
    OutOfOrder(&'static str),
    /// The handle is closed.
    #[error("the media connection is closed")]
    Closed,
    /// The stack did not answer in time.
    #[error("the media connection did not answer within {0} ms")]
    Timeout(u64),
    /// An error of the stack below.
    #[error("media connection: {0}")]
    Stack(String),
}

impl From<webrtc::error::Error> for PeerError {
    fn from(error: webrtc::error::Error) -> Self {
        // Some variants print a whole packet: keep the text short.
        let mut text = error.to_string();
        if let Some((at, _)) = text.char_indices().nth(200) {
            text.truncate(at);
        }
        Self::Stack(text)
    }
}
