//! Figures of a handle, as the report wants them. Absent values are `None`, never a made-up zero.

/// Where a handle's connection stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectionState {
    /// Waiting for descriptions or on the way.
    #[default]
    Connecting,
    /// ICE and DTLS done.
    Connected,
    /// Silent at the moment.
    Disconnected,
    /// Will not come back.
    Failed,
    /// Closed by us.
    Closed,
}

/// The connection itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TransportStats {
    /// State.
    pub state: ConnectionState,
    /// Candidate types and transport of the pair in use, local side (`host/udp`, `relay/udp`).
    pub candidate: Option<String>,
    /// Smoothed round-trip time in ms, from connectivity checks and receiver reports.
    pub rtt_ms: Option<f64>,
    /// Milliseconds from the moment both descriptions were set to the first `Connected`.
    pub connect_ms: Option<u64>,
}

/// One kind of media on its way out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SendStats {
    /// Negotiated codec name (`VP8`, `H264`, `opus`).
    pub codec: Option<&'static str>,
    /// RTP packets sent, without repeats.
    pub packets: u64,
    /// Payload bytes sent, without repeats.
    pub bytes: u64,
    /// Payload rate over the last two seconds.
    pub bitrate_bps: u64,
    /// Frames (video) or Opus packets (audio) sent.
    pub frames: u64,
    /// Key frames sent.
    pub key_frames: u64,
    /// Frames not sent: not connected yet, or the queue was full.
    pub frames_dropped: u64,
    /// Packets lost, by the receiver's reports.
    pub packets_lost: Option<u64>,
    /// Share lost in the last report, 0.0 to 1.0.
    pub fraction_lost: Option<f32>,
    /// Jitter in ms, by the receiver's reports.
    pub jitter_ms: Option<f64>,
    /// Packets that the receiver asked for again.
    pub nacks: u64,
    /// PLI and FIR received.
    pub plis: u64,
}

/// Figures of a [`super::Publication`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublicationStats {
    /// The connection.
    pub transport: TransportStats,
    /// Video, if published.
    pub video: Option<SendStats>,
    /// Audio, if published.
    pub audio: Option<SendStats>,
    /// Last target handed to the encoder, in bit/s.
    pub target_bitrate_bps: Option<u64>,
}

/// One kind of media on its way in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReceiveStats {
    /// Codec of what arrives.
    pub codec: Option<&'static str>,
    /// RTP packets received, without duplicates.
    pub packets: u64,
    /// Payload bytes received.
    pub bytes: u64,
    /// Payload rate over the last two seconds.
    pub bitrate_bps: u64,
    /// Packets that never came.
    pub packets_lost: u64,
    /// Packets that came late, on request.
    pub packets_recovered: u64,
    /// Packets asked for again (each request counts).
    pub nacks: u64,
    /// Key frames asked for.
    pub plis: u64,
    /// Inter-arrival jitter in ms (RFC 3550 §6.4.1), if two packets came.
    pub jitter_ms: Option<f64>,
    /// Complete frames handed on (video) or packets (audio).
    pub frames: u64,
    /// Key frames handed on.
    pub key_frames: u64,
    /// Frames given up because a part never came.
    pub frames_dropped: u64,
    /// Pauses longer than max(3 mean frame intervals, mean + 150 ms), as browsers count them.
    pub freezes: u64,
    /// Their length together.
    pub freeze_ms: u64,
}

/// Figures of a [`super::Subscription`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubscriptionStats {
    /// The connection.
    pub transport: TransportStats,
    /// Video, if subscribed.
    pub video: Option<ReceiveStats>,
    /// Audio, if subscribed.
    pub audio: Option<ReceiveStats>,
}
