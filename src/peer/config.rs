//! What a handle needs to know before it starts.

use super::transform::FrameTransform;
use crate::rtp::frame::{AudioPacket, EncodedFrame, VideoCodec};
use crate::wire::netsim::Impairments;
use std::net::IpAddr;
use std::sync::Arc;

/// A STUN or TURN server, as the join result names it.
#[derive(Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:host:port`, `turn:host:port?transport=udp` … `turns:` and `transport=tcp` are skipped with a warning: the stack has UDP only.
    pub url: String,
    /// User name for TURN.
    pub username: Option<String>,
    /// Password for TURN.
    pub credential: Option<String>,
}

impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // User name and password are secrets of the session.
        f.debug_struct("IceServer")
            .field("url", &self.url)
            .field("credential", &self.credential.as_ref().map(|_| "…"))
            .finish_non_exhaustive()
    }
}

/// How media travels, the same for all handles of a call.
#[derive(Debug, Clone, Default)]
pub struct TransportConfig {
    /// STUN and TURN servers; an empty list means host candidates only.
    pub ice_servers: Vec<IceServer>,
    /// Local addresses to use; empty means every usable interface.
    pub local_addrs: Vec<IpAddr>,
    /// Use the loopback interface too: needed when the server runs on this computer. It is used anyway when there is no other.
    pub include_loopback: bool,
    /// Use relayed candidates only.
    pub relay_only: bool,
    /// A worse network than there is, on this program's own media sockets (`--simulate-network`).
    pub impairment: Option<Impairments>,
    /// Transform of encoded frames, `None` for identity.
    pub transform: Option<Arc<dyn FrameTransform>>,
}

/// What to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishMedia {
    /// Offer Opus.
    pub audio: bool,
    /// Offer video with these codecs, best first; `None` for no video. See [`PublishMedia::any_video`].
    pub video: Option<Vec<VideoCodec>>,
    /// Announce two channels of sound.
    pub stereo: bool,
}

impl PublishMedia {
    /// All codecs, VP8 first: a session with a forced codec picks the one it wants.
    pub fn any_video() -> Option<Vec<VideoCodec>> {
        Some(VideoCodec::BUILT.to_vec())
    }
}

/// What to subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeMedia {
    /// The stream has audio and it is wanted.
    pub audio: bool,
    /// The stream has video and it is wanted.
    pub video: bool,
}

/// Where received media goes. Called on the packet tasks: hand over and return, never decode or wait.
#[derive(Clone)]
pub struct Sinks {
    /// Complete frames in decode order.
    pub video: Arc<dyn Fn(EncodedFrame) + Send + Sync>,
    /// Opus packets in order of arrival, without duplicates.
    pub audio: Arc<dyn Fn(AudioPacket) + Send + Sync>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sinks")
    }
}
