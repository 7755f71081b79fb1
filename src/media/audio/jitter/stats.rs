//! What a jitter buffer counts and measures.

/// Figures of a jitter buffer; sample counts at 48 kHz.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct JitterStats {
    /// Packets received, without duplicates.
    pub packets: u64,
    /// Packets that never came in time to be heard or used.
    pub packets_lost: u64,
    /// Packets that came twice.
    pub packets_duplicate: u64,
    /// Packets that came after their time.
    pub packets_late: u64,
    /// Bytes of Opus received.
    pub bytes: u64,
    /// Samples made up by concealment.
    pub concealed_samples: u64,
    /// Samples regained from forward error correction.
    pub fec_samples: u64,
    /// Samples cut out by time scaling and by skipping an overfull buffer.
    pub accelerated_samples: u64,
    /// Samples stretched in by time scaling.
    pub decelerated_samples: u64,
    /// Inter-arrival jitter, RFC 3550 6.4.1, in ms.
    pub jitter_ms: f32,
    /// Delay now, in ms.
    pub playout_delay_ms: f32,
    /// Delay aimed at, in ms.
    pub target_delay_ms: f32,
}
