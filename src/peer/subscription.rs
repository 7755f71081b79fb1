//! One stream on its way in.

use super::config::{Sinks, SubscribeMedia, TransportConfig};
use super::error::PeerError;
use super::event::PeerEvent;
use super::stats::SubscriptionStats;
use tokio::sync::mpsc;

/// A stream that we receive: one peer connection; either we offer (`offer`, `set_answer`) or the server does (`answer`).
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// Builds the connection. Must be called on a tokio runtime. The receiver's capacity is 512 events.
    pub async fn new(config: &TransportConfig, media: SubscribeMedia, sinks: Sinks) -> Result<(Self, mpsc::Receiver<PeerEvent>), PeerError> {
        let _ = (config, media, sinks);
        Err(PeerError::Closed)
    }

    /// The SDP offer (recvonly, audio before video) for servers that want one.
    pub async fn offer(&self) -> Result<String, PeerError> {
        Err(PeerError::Closed)
    }

    /// The other side's answer to our offer.
    pub async fn set_answer(&self, _sdp: &str) -> Result<(), PeerError> {
        Err(PeerError::Closed)
    }

    /// Our answer to the other side's offer.
    pub async fn answer(&self, _offer: &str) -> Result<String, PeerError> {
        Err(PeerError::Closed)
    }

    /// A candidate of the other side; kept until its description is there. Those of component 2 are dropped.
    pub async fn add_candidate(&self, _candidate: &str, _sdp_mid: Option<String>, _sdp_mline_index: Option<u16>) -> Result<(), PeerError> {
        Err(PeerError::Closed)
    }

    /// Asks the sender for a key frame (PLI; at most one per 300 ms goes out).
    pub fn request_key_frame(&self) {}

    /// What the sender has announced: [`PeerEvent::Stalled`] is only raised for active kinds. Both are active at the start.
    pub fn set_expected_active(&self, _audio: bool, _video: bool) {}

    /// Figures of now.
    pub fn stats(&self) -> SubscriptionStats {
        SubscriptionStats::default()
    }

    /// Ends the connection and its tasks; returns within 200 ms. Dropping the handle does the same without waiting.
    pub async fn close(&self) {}
}
