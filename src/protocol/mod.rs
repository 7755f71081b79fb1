//! OpenVidu 2 messages and state machines, pure.
//!
//! Nothing in here opens a socket, reads a clock or starts a thread: text and time come in as arguments, text and events go out as values.
//! Client and host share the message types of [`message`], so what one writes the other reads.

pub mod client;
pub mod error_code;
pub mod ids;
pub mod lenient;
pub mod message;
pub mod metadata;
pub mod room;
pub mod rpc;
pub mod secret;
pub mod token;

pub use error_code::ErrorCode;
pub use secret::{Sdp, Secret};

use std::time::Duration;

/// The moment at which something happens, handed in by the caller.
///
/// Waits are measured on `mono` alone, so that a clock set by hand has no effect; `unix_ms` only becomes `createdAt` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Time since an arbitrary but fixed origin, never going back.
    pub mono: Duration,
    /// UTC milliseconds since 1970.
    pub unix_ms: u64,
}
