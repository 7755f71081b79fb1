//! Counters, readable at any time.

use super::LegId;

/// Counters of the whole forwarder since its start, and of what is alive now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SfuStats {
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes received (UDP payload).
    pub bytes_in: u64,
    /// Bytes sent (UDP payload).
    pub bytes_out: u64,
    /// System calls that sent; below `datagrams_out` where segmentation offload joined them.
    pub send_calls: u64,
    /// Media packets received and accepted.
    pub rtp_in: u64,
    /// Media packets forwarded, all subscribers together, retransmissions not counted.
    pub rtp_forwarded: u64,
    /// Retransmissions sent to subscribers, from the cache.
    pub nacks_answered: u64,
    /// Retransmissions subscribers asked for that the cache no longer or not yet held.
    pub nacks_missed: u64,
    /// Sound sent a second time to subscribers that lose much, without being asked.
    pub copies_sent: u64,
    /// Packets asked for again from publishers.
    pub nacks_sent: u64,
    /// Key frame requests sent to publishers.
    pub plis_sent: u64,
    /// Key frame requests received from subscribers.
    pub plis_received: u64,
    /// Datagrams from unknown sources, dropped.
    pub unknown_source: u64,
    /// Datagrams that failed to parse, decrypt or authenticate, dropped.
    pub rejected: u64,
    /// Datagrams the system refused to send.
    pub send_failed: u64,
    /// Datagrams dropped by artificial loss.
    pub impaired: u64,
    /// Address changes followed.
    pub rebinds: u64,
    /// Events lost because their receiver did not keep up.
    pub events_dropped: u64,
    /// Legs alive.
    pub legs: Vec<LegStats>,
    /// Publications alive.
    pub streams: Vec<StreamStats>,
}

/// One leg.
#[derive(Debug, Clone, PartialEq)]
pub struct LegStats {
    /// Its name.
    pub leg: LegId,
    /// Publication it carries.
    pub stream_id: String,
    /// It receives from a publisher (else it sends to a subscriber).
    pub publisher: bool,
    /// ICE and DTLS are up.
    pub connected: bool,
    /// Media packets received (publisher) or sent (subscriber), without retransmissions.
    pub packets: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Retransmissions sent.
    pub retransmitted: u64,
    /// Smoothed round-trip time from receiver reports, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Loss the receiver last reported, 0 to 1.
    pub fraction_lost: f64,
}

/// One publication.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStats {
    /// Its name.
    pub stream_id: String,
    /// Its session.
    pub session: String,
    /// Subscribers attached.
    pub subscribers: usize,
    /// Media packets received.
    pub packets_in: u64,
    /// Their payload bytes.
    pub bytes_in: u64,
    /// Sequence numbers that never arrived.
    pub lost: u64,
    /// Packets asked for again.
    pub nacks_sent: u64,
    /// Key frame requests sent.
    pub plis_sent: u64,
    /// Key frames seen.
    pub key_frames: u64,
    /// Copies dropped.
    pub duplicates: u64,
    /// Packets without media (padding), not forwarded.
    pub padding: u64,
}
