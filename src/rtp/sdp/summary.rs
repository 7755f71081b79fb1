//! What a description says, for decisions and for tests.

use super::lines::{Description, Section};

/// Kind of an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// `m=audio`.
    Audio,
    /// `m=video`.
    Video,
    /// `m=application` (data channels).
    Application,
    /// Anything else.
    Other,
}

/// Direction of an m-line, from the writer's point of view (RFC 8866 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `a=sendrecv`, also the default when no line says otherwise.
    SendRecv,
    /// `a=sendonly`.
    SendOnly,
    /// `a=recvonly`.
    RecvOnly,
    /// `a=inactive`.
    Inactive,
}

/// One `a=rtcp-fb` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// `nack`, `ccm`, `goog-remb`, `transport-cc`.
    pub kind: String,
    /// `pli`, `fir` or nothing.
    pub parameter: String,
}

/// One payload type with what is said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodecSummary {
    /// Payload type.
    pub payload_type: u8,
    /// Encoding name as written; empty when there is no `a=rtpmap`.
    pub name: String,
    /// Clock rate in Hz; 0 when there is no `a=rtpmap`.
    pub clock_hz: u32,
    /// Channels, where given.
    pub channels: Option<u16>,
    /// Parameters of `a=fmtp`, as written.
    pub fmtp: Option<String>,
    /// Feedback of this payload type, `a=rtcp-fb:*` included.
    pub feedback: Vec<Feedback>,
}

impl CodecSummary {
    /// Whether feedback `kind parameter` is listed (`parameter` empty for none).
    pub fn has_feedback(&self, kind: &str, parameter: &str) -> bool {
        self.feedback.iter().any(|feedback| feedback.kind == kind && feedback.parameter == parameter)
    }

    /// One `name=value` parameter of `a=fmtp`.
    pub fn fmtp_parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.as_deref()?.split(';').find_map(|parameter| {
            let (key, value) = parameter.trim().split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// One `a=extmap` line (RFC 8285).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtMap {
    /// Local identifier.
    pub id: u8,
    /// What it carries.
    pub uri: String,
}

/// One `a=ssrc-group:FID` line (RFC 5576): media and the RTX stream that repairs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FidGroup {
    /// SSRC of the media.
    pub primary: u32,
    /// SSRC of its repair stream.
    pub rtx: u32,
}

/// What one m-line says. Transport attributes fall back to the session part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaSummary {
    /// Kind.
    pub kind: MediaKind,
    /// `a=mid`, empty when missing.
    pub mid: String,
    /// Port; 0 for a refused m-line.
    pub port: u16,
    /// Transport protocol, `UDP/TLS/RTP/SAVPF` or Kurento's `RTP/SAVPF`.
    pub proto: String,
    /// Direction.
    pub direction: Direction,
    /// Payload types in m-line order.
    pub codecs: Vec<CodecSummary>,
    /// SSRCs in order of appearance.
    pub ssrcs: Vec<u32>,
    /// Repair groups.
    pub fid_groups: Vec<FidGroup>,
    /// Header extensions.
    pub extmaps: Vec<ExtMap>,
    /// `a=rid` identifiers in order.
    pub rids: Vec<String>,
    /// `a=msid`.
    pub msid: Option<String>,
    /// ICE user name fragment.
    pub ufrag: Option<String>,
    /// ICE password.
    pub pwd: Option<String>,
    /// `actpass`, `active` or `passive`.
    pub setup: Option<String>,
    /// Fingerprint, `sha-256 AB:…`; the m-line's own wins.
    pub fingerprint: Option<String>,
    /// Candidate lines without `a=`.
    pub candidates: Vec<String>,
    /// `a=rtcp-mux` is there.
    pub rtcp_mux: bool,
}

impl MediaSummary {
    /// The first codec of that name, without case.
    pub fn codec(&self, name: &str) -> Option<&CodecSummary> {
        self.codecs.iter().find(|codec| codec.name.eq_ignore_ascii_case(name))
    }

    /// The id of a header extension.
    pub fn extension_id(&self, uri: &str) -> Option<u8> {
        self.extmaps.iter().find(|extension| extension.uri == uri).map(|extension| extension.id)
    }
}

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// One per m-line, in order.
    pub media: Vec<MediaSummary>,
    /// The mids of the first `a=group:BUNDLE`.
    pub bundle: Vec<String>,
    /// Whether a fingerprint stands in the session part.
    pub session_fingerprint: bool,
}

impl Summary {
    /// Reads a description; whatever is missing or malformed is left out.
    pub fn parse(sdp: &str) -> Self {
        let description = Description::parse(sdp);
        Self {
            bundle: description
                .session
                .values("group")
                .find_map(|value| value.strip_prefix("BUNDLE"))
                .map(|mids| mids.split_ascii_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            session_fingerprint: description.session.has("fingerprint"),
            media: description.media.iter().map(|section| media(section, &description.session)).collect(),
        }
    }

    /// The first m-line of a kind.
    pub fn first(&self, kind: MediaKind) -> Option<&MediaSummary> {
        self.media.iter().find(|media| media.kind == kind)
    }
}

fn media(section: &Section, session: &Section) -> MediaSummary {
    let fields = section.m_fields();
    let shared = |name: &'static str| section.value(name).or_else(|| session.value(name)).map(str::to_owned);
    let direction = |part: &Section| {
        [
            ("sendrecv", Direction::SendRecv),
            ("sendonly", Direction::SendOnly),
            ("recvonly", Direction::RecvOnly),
            ("inactive", Direction::Inactive),
        ]
        .into_iter()
        .find_map(|(name, direction)| part.has(name).then_some(direction))
    };
    let mut ssrcs: Vec<u32> = Vec::new();
    for ssrc in section.values("ssrc").filter_map(first_number::<u32>) {
        if !ssrcs.contains(&ssrc) {
            ssrcs.push(ssrc);
        }
    }
    MediaSummary {
        kind: match section.kind() {
            "audio" => MediaKind::Audio,
            "video" => MediaKind::Video,
            "application" => MediaKind::Application,
            _ => MediaKind::Other,
        },
        mid: section.value("mid").unwrap_or_default().to_owned(),
        port: fields.get(1).and_then(|port| port.parse().ok()).unwrap_or(0),
        proto: fields.get(2).copied().unwrap_or_default().to_owned(),
        direction: direction(section).or_else(|| direction(session)).unwrap_or(Direction::SendRecv),
        codecs: codecs(section),
        ssrcs,
        fid_groups: section
            .values("ssrc-group")
            .filter_map(|value| {
                let mut numbers = value.strip_prefix("FID")?.split_ascii_whitespace();
                Some(FidGroup { primary: numbers.next()?.parse().ok()?, rtx: numbers.next()?.parse().ok()? })
            })
            .collect(),
        extmaps: section
            .values("extmap")
            .chain(session.values("extmap"))
            .filter_map(|value| {
                let mut fields = value.split_ascii_whitespace();
                // The id may carry a direction: `3/sendonly`.
                let id = fields.next()?.split('/').next()?.parse().ok()?;
                Some(ExtMap { id, uri: fields.next()?.to_owned() })
            })
            .collect(),
        rids: section
            .values("rid")
            .filter_map(|value| value.split_ascii_whitespace().next().map(str::to_owned))
            .collect(),
        msid: section.value("msid").map(str::to_owned),
        ufrag: shared("ice-ufrag"),
        pwd: shared("ice-pwd"),
        setup: shared("setup"),
        fingerprint: shared("fingerprint"),
        candidates: section.values("candidate").map(|value| format!("candidate:{value}")).collect(),
        rtcp_mux: section.has("rtcp-mux"),
    }
}

fn codecs(section: &Section) -> Vec<CodecSummary> {
    let about = |name: &'static str, payload_type: u8| {
        section.values(name).filter_map(move |value| {
            let (number, rest) = value.split_once(' ')?;
            (number.trim().parse::<u8>() == Ok(payload_type) || (name == "rtcp-fb" && number == "*"))
                .then(|| rest.trim())
        })
    };
    section
        .payload_types()
        .into_iter()
        .map(|payload_type| {
            let mut map = about("rtpmap", payload_type).next().unwrap_or_default().split('/');
            CodecSummary {
                payload_type,
                name: map.next().unwrap_or_default().to_owned(),
                clock_hz: map.next().and_then(|clock| clock.parse().ok()).unwrap_or(0),
                channels: map.next().and_then(|channels| channels.parse().ok()),
                fmtp: about("fmtp", payload_type).next().map(str::to_owned),
                feedback: about("rtcp-fb", payload_type)
                    .map(|value| {
                        let (kind, parameter) = value.split_once(' ').unwrap_or((value, ""));
                        Feedback { kind: kind.to_owned(), parameter: parameter.trim().to_owned() }
                    })
                    .collect(),
            }
        })
        .collect()
}

fn first_number<T: std::str::FromStr>(value: &str) -> Option<T> {
    value.split_ascii_whitespace().next()?.parse().ok()
}
