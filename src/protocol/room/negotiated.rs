//! What was negotiated on each leg, for `webRtcStats=true`: the owner of the server looks there when media does not get through.

use super::Server;
use super::api::{LegId, MediaDone, MediaOp};
use crate::protocol::Sdp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Candidates of a client that are kept for one leg; further ones are not shown.
const CANDIDATES: usize = 64;

/// By leg.
pub(super) type Negotiations = BTreeMap<LegId, Negotiated>;

/// Descriptions and candidates of one leg.
#[derive(Default)]
pub(super) struct Negotiated {
    local: Option<Sdp>,
    remote: Option<Sdp>,
    candidates: Vec<Value>,
}

impl Negotiated {
    /// The members of `webRtcStats`. Which candidates were chosen, and when what happened, the media server keeps to itself.
    pub(super) fn show(&self, endpoint_name: &str, out: &mut Map<String, Value>) {
        let text = |sdp: &Option<Sdp>| sdp.as_ref().map(|s| s.as_str().to_owned());
        for (name, value) in [
            ("webrtcEndpointName", json!(endpoint_name)),
            ("remoteSdp", json!(text(&self.remote))),
            ("localSdp", json!(text(&self.local))),
            ("clientIceCandidates", json!(self.candidates)),
            ("serverIceCandidates", Value::Array(self.local.as_ref().map(|s| described(s)).unwrap_or_default())),
            ("localCandidate", Value::Null),
            ("remoteCandidate", Value::Null),
            ("events", json!([])),
        ] {
            out.insert(name.to_owned(), value);
        }
    }
}

/// The candidates in a description, each with its m-line.
fn described(sdp: &str) -> Vec<Value> {
    let (mut index, mut mid, mut all) = (-1, "", Vec::new());
    for line in sdp.lines() {
        if line.starts_with("m=") {
            index += 1;
        } else if let Some(name) = line.strip_prefix("a=mid:") {
            mid = name;
        } else if let Some(candidate) = line.strip_prefix("a=").filter(|l| l.starts_with("candidate:")) {
            all.push(json!({"candidate": candidate, "sdpMid": mid, "sdpMLineIndex": index}));
        }
    }
    all
}

impl Server {
    /// Notes what a client said, on its way to the media server.
    pub(super) fn note_asked(&mut self, request: &MediaOp) {
        match request {
            MediaOp::Publish { leg, offer, .. } | MediaOp::Subscribe { leg, offer, .. } => {
                self.negotiated.entry(*leg).or_default().remote = Some(offer.clone());
            }
            MediaOp::SetAnswer { leg, answer } => {
                self.negotiated.entry(*leg).or_default().remote = Some(answer.clone());
            }
            MediaOp::Candidate { leg, candidate, sdp_mid, sdp_mline_index } => {
                if let Some(known) = self.negotiated.get_mut(leg).filter(|n| n.candidates.len() < CANDIDATES) {
                    let shown = json!({"candidate": candidate, "sdpMid": sdp_mid, "sdpMLineIndex": sdp_mline_index});
                    known.candidates.push(shown);
                }
            }
            MediaOp::CloseLeg { leg } => drop(self.negotiated.remove(leg)),
            MediaOp::PrepareSubscribe { .. } | MediaOp::Draw { .. } => {}
        }
    }

    /// Notes what the media server said. A leg that has been closed meanwhile is not kept.
    pub(super) fn note_done(&mut self, leg: LegId, done: &MediaDone) {
        if let MediaDone::Answer(sdp) | MediaDone::Offer(sdp) = done
            && self.legs.contains_key(&leg)
        {
            self.negotiated.entry(leg).or_default().local = Some(sdp.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read_from_a_description() {
        let sdp = "v=0\r\nm=audio 9 X 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 127.0.0.1 4443 typ host\r\nm=video 9 X 0\r\na=mid:1\r\na=candidate:2 1 UDP 1 127.0.0.1 4443 typ host\r\n";
        let all = described(sdp);
        assert_eq!(all.len(), 2);
        assert_eq!(
            all[1],
            json!({"candidate": "candidate:2 1 UDP 1 127.0.0.1 4443 typ host", "sdpMid": "1", "sdpMLineIndex": 1})
        );
    }
}
