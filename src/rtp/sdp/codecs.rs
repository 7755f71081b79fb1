//! Codec order and forced codecs, as openvidu-server does it for `forcedVideoCodec`.

use std::collections::HashSet;

use super::lines::{Description, Section, payload_type_of};

/// A video m-line does not offer the codec that a session insists on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("codec '{codec}' is not offered")]
pub struct CodecMissing {
    /// The codec asked for.
    pub codec: String,
}

/// Reduces every video m-line to the payload types of `codec` (compared without case) and the RTX payload types that
/// repair them, in the order of the m-line. A refused m-line (port 0) is left alone.
///
/// # Errors
/// [`CodecMissing`] when a video m-line does not list the codec.
pub fn force_video_codec(sdp: &str, codec: &str) -> Result<String, CodecMissing> {
    let mut description = Description::parse(sdp);
    for section in description.media.iter_mut().filter(|section| section.kind() == "video" && !section.is_refused()) {
        let kept = payload_types_of(section, codec);
        if kept.is_empty() {
            return Err(CodecMissing { codec: codec.to_owned() });
        }
        section.set_payload_types(&kept);
        section.lines.retain(|line| payload_type_of(line).is_none_or(|payload_type| kept.contains(&payload_type)));
    }
    Ok(description.to_text())
}

/// Moves the payload types of `codec` and their RTX to the front of every video m-line and keeps the others behind
/// them. A codec that is not there changes nothing.
pub fn prefer_video_codec(sdp: &str, codec: &str) -> String {
    let mut description = Description::parse(sdp);
    for section in description.media.iter_mut().filter(|section| section.kind() == "video") {
        let mut order = payload_types_of(section, codec);
        let rest: Vec<u8> =
            section.payload_types().into_iter().filter(|payload_type| !order.contains(payload_type)).collect();
        order.extend(rest);
        section.set_payload_types(&order);
    }
    description.to_text()
}

/// Payload types of `codec` and of the RTX that repairs them, in m-line order.
fn payload_types_of(section: &Section, codec: &str) -> Vec<u8> {
    let primary: HashSet<u8> = section
        .values("rtpmap")
        .filter_map(|value| {
            let (payload_type, map) = value.split_once(' ')?;
            let name = map.split('/').next()?;
            name.trim().eq_ignore_ascii_case(codec).then(|| payload_type.parse().ok())?
        })
        .collect();
    let repair: HashSet<u8> = apt_pairs(section)
        .filter(|(_, primary_type)| primary.contains(primary_type))
        .map(|(repair, _)| repair)
        .collect();
    section
        .payload_types()
        .into_iter()
        .filter(|payload_type| primary.contains(payload_type) || repair.contains(payload_type))
        .collect()
}

/// `(rtx payload type, payload type it repairs)` from the `a=fmtp:… apt=…` lines of a section (RFC 4588 §8.6).
pub(crate) fn apt_pairs(section: &Section) -> impl Iterator<Item = (u8, u8)> + '_ {
    section.values("fmtp").filter_map(|value| {
        let (payload_type, parameters) = value.split_once(' ')?;
        let apt = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("apt="))?;
        Some((payload_type.trim().parse().ok()?, apt.trim().parse().ok()?))
    })
}
