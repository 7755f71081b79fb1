//! ICE candidates inside and outside of a description.

use super::lines::Description;

/// The fields of a candidate line that decisions are made on (RFC 8839 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateLine<'a> {
    /// Foundation.
    pub foundation: &'a str,
    /// Component: 1 for RTP, 2 for RTCP.
    pub component: u16,
    /// `udp` or `tcp` in the writer's own case.
    pub transport: &'a str,
    /// Priority.
    pub priority: u32,
    /// Address or `.local` name.
    pub address: &'a str,
    /// Port.
    pub port: u16,
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: &'a str,
    /// `active`, `passive` or `so` for TCP.
    pub tcp_type: Option<&'a str>,
}

impl<'a> CandidateLine<'a> {
    /// Parses `candidate:…` with or without `a=` in front; `None` when a needed field is missing or no number.
    pub fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix("a=").unwrap_or(text);
        let text = text.strip_prefix("candidate:").unwrap_or(text);
        let mut fields = text.split_ascii_whitespace();
        let foundation = fields.next()?;
        let component = fields.next()?.parse().ok()?;
        let transport = fields.next()?;
        let priority = fields.next()?.parse().ok()?;
        let address = fields.next()?;
        let port = fields.next()?.parse().ok()?;
        let mut kind = None;
        let mut tcp_type = None;
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            match name {
                "typ" => kind = Some(value),
                "tcptype" => tcp_type = Some(value),
                _ => {}
            }
        }
        Some(Self { foundation, component, transport, priority, address, port, kind: kind?, tcp_type })
    }
}

/// Whether a candidate may be given to an ICE agent that multiplexes RTCP: its component is 1.
///
/// Kurento sends every candidate for component 2 too; an agent that ignores the component may nominate such a pair,
/// and then DTLS never starts. Text that is no candidate line (an empty end-of-candidates mark) is refused as well.
pub fn is_rtp_component(candidate: &str) -> bool {
    CandidateLine::parse(candidate).is_some_and(|candidate| candidate.component == 1)
}

/// Which m-line something belongs to, as `iceCandidate` messages say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaRef<'a> {
    /// By `a=mid`.
    Mid(&'a str),
    /// By position.
    Index(usize),
}

/// Appends candidates to the m-line that `media` names, or to the first one when it names none (bundled media share
/// one transport). A candidate that is there already, and one of another component than RTP, is left out.
pub fn add_candidates(sdp: &str, media: MediaRef<'_>, candidates: &[String]) -> String {
    let mut description = Description::parse(sdp);
    let position = match media {
        MediaRef::Mid(mid) => description.media.iter().position(|section| section.value("mid") == Some(mid)),
        MediaRef::Index(index) => (index < description.media.len()).then_some(index),
    };
    if let Some(section) = description.media.get_mut(position.unwrap_or(0)) {
        for candidate in candidates.iter().filter(|candidate| is_rtp_component(candidate)) {
            let text = candidate.trim();
            let text = text.strip_prefix("a=").unwrap_or(text);
            let text = text.strip_prefix("candidate:").unwrap_or(text);
            let line = format!("a=candidate:{text}");
            if !section.lines.contains(&line) {
                // An end-of-candidates line has to stay last.
                let end = section.lines.iter().position(|line| line == "a=end-of-candidates");
                match end {
                    Some(end) => section.lines.insert(end, line),
                    None => section.lines.push(line),
                }
            }
        }
    }
    description.to_text()
}
