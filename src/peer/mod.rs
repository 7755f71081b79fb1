//! Media transport over `webrtc`: publish and subscribe handles.
//!
//! A [`Publication`] is one stream on its way out, a [`Subscription`] one stream on its way in; each owns one peer connection that nobody above
//! this room ever sees. A failed connection is never repaired: [`PeerEvent::NeedsRebuild`] asks the caller to close the handle and make a new one
//! (at most three times in a row).
//!
//! Everything runs as tasks on the current tokio runtime; `close` and `Drop` end them.

mod config;
mod connection;
mod engine;
mod error;
mod event;
mod feedback;
mod ice;
mod impaired;
mod inbound;
mod meter;
mod net;
mod publication;
mod receive;
mod send;
mod stats;
mod subscription;
mod transform;

pub use config::{IceServer, PublishMedia, Sinks, SubscribeMedia, TransportConfig};
pub use error::PeerError;
pub use event::{MediaKind, PeerEvent, RebuildReason};
pub use publication::{MediaSender, Publication};
pub use stats::{ConnectionState, PublicationStats, ReceiveStats, SendStats, SubscriptionStats, TransportStats};
pub use subscription::Subscription;
pub use transform::{FrameTransform, Identity};
