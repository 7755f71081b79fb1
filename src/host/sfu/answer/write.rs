//! A plan as the text of a description, and our candidates.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{ABS_SEND_TIME, AUDIO_LEVEL, Line, LocalCandidate, MID, ORIENTATION, Plan, RID, TRANSPORT_CC, TrackPlan};

/// Our side of the transport, as written into every m-line.
pub(in crate::host::sfu) struct LocalTransport<'a> {
    pub(in crate::host::sfu) ufrag: &'a str,
    pub(in crate::host::sfu) pwd: &'a str,
    pub(in crate::host::sfu) fingerprint: &'a str,
    pub(in crate::host::sfu) setup: &'static str,
    pub(in crate::host::sfu) candidates: &'a [SocketAddr],
    pub(in crate::host::sfu) session_id: u64,
    /// Name of the stream and canonical name of its sources.
    pub(in crate::host::sfu) stream: &'a str,
}

/// Candidate lines without `a=`, best first.
fn candidate_lines(candidates: &[SocketAddr]) -> Vec<String> {
    candidates
        .iter()
        .enumerate()
        .map(|(index, address)| {
            // Type preference 126 (host), falling local preference, component 1 (RFC 8445 §5.1.2.1).
            let local = 65_535u32.saturating_sub(index as u32);
            let priority = 126u32 << 24 | local << 8 | 255;
            let foundation = index + 1;
            format!("candidate:{foundation} 1 udp {priority} {} {} typ host", address.ip(), address.port())
        })
        .collect()
}

impl Plan {
    /// The candidates one by one, for the first accepted m-line (bundled media share one transport).
    pub(in crate::host::sfu) fn trickle(&self, candidates: &[SocketAddr]) -> Vec<LocalCandidate> {
        let first = self.lines.iter().position(|line| line.track.is_some());
        let index = first.unwrap_or(0);
        let mid = self.lines.get(index).map(|line| line.mid.clone());
        candidate_lines(candidates)
            .into_iter()
            .map(|candidate| LocalCandidate {
                candidate,
                sdp_mid: mid.clone().unwrap_or_default(),
                sdp_mline_index: index as u16,
            })
            .collect()
    }

    /// Writes the description.
    pub(in crate::host::sfu) fn to_sdp(&self, local: &LocalTransport<'_>) -> String {
        let mut out = String::with_capacity(2_048);
        let mids: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| line.track.is_some() && !line.mid.is_empty())
            .map(|line| line.mid.as_str())
            .collect();
        // Writing to a String cannot fail.
        let _ = write!(out, "v=0\r\no=- {} 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", local.session_id);
        if !mids.is_empty() {
            let _ = write!(out, "a=group:BUNDLE {}\r\n", mids.join(" "));
        }
        let _ = write!(out, "a=msid-semantic: WMS {}\r\n", local.stream);
        for line in &self.lines {
            match line.track.and_then(|index| self.tracks.get(index)) {
                Some(track) => self.accepted(&mut out, line, track, local),
                None => refused(&mut out, line),
            }
        }
        out
    }

    fn accepted(&self, out: &mut String, line: &Line, track: &TrackPlan, local: &LocalTransport<'_>) {
        let pt = track.payload_type;
        let _ = write!(out, "m={} 9 {} {pt}", line.kind, line.proto);
        if let Some(rtx) = track.rtx {
            let _ = write!(out, " {rtx}");
        }
        let _ = write!(
            out,
            "\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=ice-options:trickle\r\na=fingerprint:sha-256 {}\r\na=setup:{}\r\n",
            local.ufrag, local.pwd, local.fingerprint, local.setup
        );
        if !line.mid.is_empty() {
            let _ = write!(out, "a=mid:{}\r\n", line.mid);
        }
        let extensions = track.extensions;
        for (id, uri) in [
            (extensions.audio_level, AUDIO_LEVEL),
            (extensions.abs_send_time, ABS_SEND_TIME),
            (extensions.transport_cc, TRANSPORT_CC),
            (extensions.mid, MID),
            (extensions.orientation, ORIENTATION),
            (extensions.rid, RID),
        ] {
            if let Some(id) = id {
                let _ = write!(out, "a=extmap:{id} {uri}\r\n");
            }
        }
        let _ = write!(out, "a={}\r\n", self.direction);
        if self.sends {
            let _ = write!(out, "a=msid:{} {}\r\n", local.stream, line.kind);
        }
        out.push_str("a=rtcp-mux\r\na=rtcp-rsize\r\n");
        let _ = write!(out, "a=rtpmap:{pt} {}\r\n", track.codec.rtpmap());
        for (on, name) in [
            (track.feedback.remb, "goog-remb"),
            (track.feedback.transport_cc, "transport-cc"),
            (track.feedback.fir, "ccm fir"),
            (track.feedback.nack, "nack"),
            (track.feedback.pli, "nack pli"),
        ] {
            if on {
                let _ = write!(out, "a=rtcp-fb:{pt} {name}\r\n");
            }
        }
        if let Some(fmtp) = &track.fmtp {
            let _ = write!(out, "a=fmtp:{pt} {fmtp}\r\n");
        }
        if let Some(rtx) = track.rtx {
            let clock = track.codec.clock_hz();
            let _ = write!(out, "a=rtpmap:{rtx} rtx/{clock}\r\na=fmtp:{rtx} apt={pt}\r\n");
        }
        if self.sends {
            let mut sources = vec![track.ssrc];
            if track.rtx.is_some() {
                sources.push(track.rtx_ssrc);
                let _ = write!(out, "a=ssrc-group:FID {} {}\r\n", track.ssrc, track.rtx_ssrc);
            }
            for ssrc in sources {
                let _ =
                    write!(out, "a=ssrc:{ssrc} cname:{0}\r\na=ssrc:{ssrc} msid:{0} {1}\r\n", local.stream, line.kind);
            }
        }
        if !track.layers.is_empty() {
            let rids: Vec<&str> = track.layers.iter().map(|layer| layer.rid.as_str()).collect();
            for rid in &rids {
                let _ = write!(out, "a=rid:{rid} recv\r\n");
            }
            let _ = write!(out, "a=simulcast:recv {}\r\n", rids.join(";"));
        }
        for candidate in candidate_lines(local.candidates) {
            let _ = write!(out, "a={candidate}\r\n");
        }
        out.push_str("a=end-of-candidates\r\n");
    }
}

fn refused(out: &mut String, line: &Line) {
    let _ = write!(out, "m={} 0 {} {}\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\n", line.kind, line.proto, line.formats);
    if !line.mid.is_empty() {
        let _ = write!(out, "a=mid:{}\r\n", line.mid);
    }
}
