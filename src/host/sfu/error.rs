//! What can go wrong, in terms a caller can answer with.

use super::LegId;

/// Errors of the forwarder's commands.
#[derive(Debug, thiserror::Error)]
pub enum SfuError {
    /// The media socket cannot be opened.
    #[error("media socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Certificate or key material cannot be made.
    #[error("crypto: {0}")]
    Crypto(String),
    /// The SDP is not usable.
    #[error("unusable SDP: {0}")]
    InvalidSdp(&'static str),
    /// The offer lacks a codec that is needed.
    #[error("no common codec: {wanted} is not offered")]
    NoCommonCodec {
        /// What was looked for.
        wanted: &'static str,
    },
    /// A trickled candidate cannot be parsed.
    #[error("unusable ICE candidate")]
    InvalidCandidate,
    /// No such publication.
    #[error("no such stream")]
    UnknownStream,
    /// No such leg.
    #[error("no leg {}", .0.0)]
    UnknownLeg(LegId),
    /// The leg or stream id is already in use.
    #[error("{0} is already in use")]
    Duplicate(&'static str),
    /// An answer without an offer, or a second one.
    #[error("no answer is expected")]
    UnexpectedAnswer,
    /// An upper bound of [`super::SfuLimits`] is reached.
    #[error("limit reached: {0}")]
    Limit(&'static str),
    /// The media thread has ended.
    #[error("the forwarder has ended")]
    Closed,
    /// The media thread did not answer in time.
    #[error("the forwarder did not answer in time")]
    TimedOut,
}
