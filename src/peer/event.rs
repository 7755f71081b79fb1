//! What a handle tells its owner.

use std::time::{Duration, Instant};

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

/// Why a connection must be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebuildReason {
    /// ICE connected, but DTLS was not done 3 s later (a lost flight can hang it for good, a wrong fingerprint always does).
    HandshakeStuck,
    /// Not connected 15 s after both descriptions were set.
    ConnectTimeout,
    /// The stack gave the connection up after it had worked, or no path was found.
    Failed,
    /// Disconnected, and not back within 4 s.
    Disconnected,
}

impl std::fmt::Display for RebuildReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::HandshakeStuck => "handshake_stuck",
            Self::ConnectTimeout => "connect_timeout",
            Self::Failed => "failed",
            Self::Disconnected => "disconnected",
        })
    }
}

/// An event of a [`super::Publication`] or [`super::Subscription`].
///
/// The channel is bounded (512). Figures ([`PeerEvent::TargetBitrate`], [`PeerEvent::LossReport`], [`PeerEvent::Rtt`],
/// [`PeerEvent::SenderReport`]) are dropped when it is half full: the next one replaces them.
#[derive(Debug, Clone, PartialEq)]
pub enum PeerEvent {
    /// A local candidate to be sent to the other side.
    LocalCandidate {
        /// The line, from `candidate:` on.
        candidate: String,
        /// `a=mid` of the m-line.
        sdp_mid: Option<String>,
        /// Index of the m-line.
        sdp_mline_index: Option<u16>,
    },
    /// ICE and DTLS are done: media flows from now on. Again after [`PeerEvent::Disconnected`] when it comes back by itself.
    Connected,
    /// No answer from the other side for about 2 s; either `Connected` or `NeedsRebuild` follows.
    Disconnected,
    /// This handle will not work any more: close it and build a new one. Sent once.
    NeedsRebuild {
        /// Why.
        why: RebuildReason,
    },
    /// The other side asks for a key frame (PLI or FIR; at most one event per 300 ms).
    KeyFrameRequested,
    /// The same for one layer of a picture that is sent in several; 0 is the lowest.
    LayerKeyFrameRequested {
        /// Which.
        layer: usize,
    },
    /// What the host wants of each layer at most, the lowest first, in bit/s; 0 for nothing.
    LayersWanted {
        /// One per layer.
        bps: Vec<u64>,
    },
    /// What the network carries towards the other side (REMB or own estimate), for the encoder.
    TargetBitrate {
        /// Bits per second for the picture: sound, headers and repeats are taken off.
        bps: u64,
    },
    /// The other side's receiver report.
    LossReport {
        /// Of what.
        kind: MediaKind,
        /// Share of packets lost since the previous report, 0.0 to 1.0.
        fraction: f32,
    },
    /// Round-trip time to the other side.
    Rtt {
        /// Smoothed.
        rtt: Duration,
    },
    /// The first RTP packet of a kind arrived.
    FirstPacket {
        /// Of what.
        kind: MediaKind,
    },
    /// Nothing can be decoded for want of a key frame, though packets come: since the first packet, or since a loss that nothing repaired. After
    /// 2 s with a Kurento, which passes no request on, so that only `reconnectStream` helps; after 5 s with others. Again after as long.
    NoKeyFrame,
    /// The first key frame of this connection arrived.
    FirstKeyFrame,
    /// No packet for 3 s though the stream is announced as active. Repeated every second while it lasts.
    Stalled {
        /// Of what.
        kind: MediaKind,
        /// Milliseconds since the last packet.
        ms: u64,
    },
    /// Packets flow again after [`PeerEvent::Stalled`].
    Resumed {
        /// Of what.
        kind: MediaKind,
    },
    /// Clock mapping of the sender, for lip sync: at NTP time `ntp` the sender's media clock showed `rtp`.
    SenderReport {
        /// Of what.
        kind: MediaKind,
        /// NTP time, 32.32 fixed point (RFC 3550 §6.4.1).
        ntp: u64,
        /// RTP timestamp for the same instant, at the kind's clock rate.
        rtp: u32,
        /// When it arrived here.
        at: Instant,
    },
}

impl PeerEvent {
    /// Whether a later event of the same sort makes this one worthless.
    pub(crate) fn is_figure(&self) -> bool {
        matches!(
            self,
            Self::TargetBitrate { .. } | Self::LossReport { .. } | Self::Rtt { .. } | Self::SenderReport { .. }
        )
    }
}
