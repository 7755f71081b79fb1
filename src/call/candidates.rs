//! Candidates, both ways.

use tracing::debug;

use super::leg::LegInput;
use crate::peer::{PeerError, PeerEvent, Publication, Subscription};
use crate::signaling::{LocalCandidate, Signaling};

/// Sends one of ours, which belongs to the stream of this connection, to the server.
pub(super) async fn forward_candidate(signaling: &dyn Signaling, endpoint: &str, event: PeerEvent) {
    if let PeerEvent::LocalCandidate { candidate, sdp_mid, sdp_mline_index } = event {
        let candidate = LocalCandidate {
            endpoint: endpoint.to_owned(),
            candidate,
            sdp_mid: sdp_mid.unwrap_or_default(),
            sdp_mline_index: sdp_mline_index.unwrap_or(0),
        };
        signaling.candidate(candidate).await;
    }
}

/// Both handles take the server's candidates.
pub(super) trait TakesCandidates {
    fn take(
        &self,
        candidate: &str,
        sdp_mid: Option<String>,
        sdp_mline_index: Option<u16>,
    ) -> impl Future<Output = Result<(), PeerError>> + Send;
}

impl TakesCandidates for Publication {
    fn take(
        &self,
        candidate: &str,
        sdp_mid: Option<String>,
        sdp_mline_index: Option<u16>,
    ) -> impl Future<Output = Result<(), PeerError>> + Send {
        self.add_candidate(candidate, sdp_mid, sdp_mline_index)
    }
}

impl TakesCandidates for Subscription {
    fn take(
        &self,
        candidate: &str,
        sdp_mid: Option<String>,
        sdp_mline_index: Option<u16>,
    ) -> impl Future<Output = Result<(), PeerError>> + Send {
        self.add_candidate(candidate, sdp_mid, sdp_mline_index)
    }
}

/// An unusable candidate is not worth a connection: others follow, and the other side finds us by its own checks.
pub(super) async fn add_candidate(handle: &impl TakesCandidates, told: LegInput) {
    if let LegInput::Candidate { candidate, sdp_mid, sdp_mline_index } = told
        && let Err(error) = handle.take(&candidate, sdp_mid, sdp_mline_index).await
    {
        debug!(%error, "candidate of the server not used");
    }
}
