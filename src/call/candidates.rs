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

/// Whether a candidate can be of use: everything goes over UDP and over one component. Others never get into a queue, where a server that
/// sends many would leave no room for good ones. What cannot be read is left to whoever reads it.
pub(super) fn of_use(candidate: &str) -> bool {
    let mut fields = candidate.split_whitespace().skip(1);
    let component = fields.next().is_none_or(|c| c == "1" || c.parse::<u16>().is_err());
    let transport = fields.next().is_none_or(|t| !t.eq_ignore_ascii_case("tcp"));
    component && transport
}

/// An unusable candidate is not worth a connection: others follow, and the other side finds us by its own checks.
pub(super) async fn add_candidate(handle: &impl TakesCandidates, told: LegInput) {
    if let LegInput::Candidate { candidate, sdp_mid, sdp_mline_index } = told
        && let Err(error) = handle.take(&candidate, sdp_mid, sdp_mline_index).await
    {
        debug!(%error, "candidate of the server not used");
    }
}

#[cfg(test)]
mod tests {
    use super::of_use;

    #[test]
    fn only_what_leads_somewhere_is_kept() {
        assert!(of_use("candidate:1 1 UDP 2015363327 10.0.0.1 9 typ host"));
        assert!(!of_use("candidate:1 2 UDP 2015363326 10.0.0.1 9 typ host"));
        assert!(!of_use("candidate:2 1 TCP 1019216383 10.0.0.1 9 typ host tcptype active"));
        assert!(of_use("") && of_use("nonsense") && of_use("candidate:1 x y"));
    }
}
