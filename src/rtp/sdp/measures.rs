//! What has to be done to a description before the other side, or our own stack, accepts it.

use std::collections::HashSet;

use super::candidate::is_rtp_component;
use super::lines::{Description, attribute_name, attribute_value};

/// Transport attributes that belong on the m-lines of what we send: Kurento copies every session-level attribute of
/// an offer into its answer, next to its own on the m-lines.
const TRANSPORT_ATTRIBUTES: [&str; 4] = ["fingerprint", "setup", "ice-ufrag", "ice-pwd"];

/// All measures for a description of ours before it is sent: transport attributes on the m-lines, candidates of
/// component 1 only.
pub fn prepare_local(sdp: &str) -> String {
    strip_other_components(&fingerprint_to_media(sdp))
}

/// All measures for a remote description before it is set: the session-level fingerprint dropped where m-lines have
/// their own, `a=msid` added, payload types without `a=rtpmap` stripped, candidates of component 1 only.
pub fn prepare_remote(sdp: &str) -> String {
    strip_other_components(&strip_unmapped_payload_types(&add_msid(&drop_session_fingerprint(sdp))))
}

/// Moves fingerprint, setup, ICE user name and password from the session part to every m-line that lacks them.
///
/// A description without m-lines is left as it is.
pub fn fingerprint_to_media(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    if description.media.is_empty() {
        return description.to_text();
    }
    for name in TRANSPORT_ATTRIBUTES {
        let lines: Vec<String> =
            description.session.lines.iter().filter(|line| attribute_name(line) == Some(name)).cloned().collect();
        if lines.is_empty() {
            continue;
        }
        description.session.remove(name);
        for section in &mut description.media {
            if !section.has(name) {
                section.lines.extend(lines.iter().cloned());
            }
        }
    }
    description.to_text()
}

/// Removes the session-level fingerprint when every m-line has its own; the m-line's is the one that counts.
///
/// When only some have one, it is copied to the others first, so that nothing is lost and nothing conflicts.
pub fn drop_session_fingerprint(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    let own = description.media.iter().filter(|section| section.has("fingerprint")).count();
    if own == 0 {
        return description.to_text();
    }
    let session: Vec<String> =
        description.session.lines.iter().filter(|line| attribute_name(line) == Some("fingerprint")).cloned().collect();
    description.session.remove("fingerprint");
    for section in &mut description.media {
        if !section.has("fingerprint") {
            section.lines.extend(session.iter().cloned());
        }
    }
    description.to_text()
}

/// Adds `a=msid:` after `a=mid:` where an audio or video m-line has none, unique per m-line.
///
/// Without it every remote track has the same empty id, and video is delivered into the audio track.
pub fn add_msid(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    for (index, section) in description.media.iter_mut().enumerate() {
        let named = section.has("msid")
            || section
                .values("ssrc")
                .any(|value| value.split_once(' ').is_some_and(|(_, rest)| rest.starts_with("msid:")));
        if named || !matches!(section.kind(), "audio" | "video") {
            continue;
        }
        let line = format!("a=msid:remote {}{index}", section.kind());
        section.insert_after("mid", line);
    }
    description.to_text()
}

/// Removes payload types without an `a=rtpmap` line (Kurento's `0 8`) from audio and video m-lines, with their
/// `a=fmtp` and `a=rtcp-fb` lines.
///
/// An m-line that would be left without any payload type gets the static audio mappings of RFC 3551 instead, or
/// stays as it is.
pub fn strip_unmapped_payload_types(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    for section in &mut description.media {
        if !matches!(section.kind(), "audio" | "video") {
            continue;
        }
        let mapped: HashSet<u8> = section.values("rtpmap").filter_map(first_number).collect();
        let all = section.payload_types();
        let kept: Vec<u8> = all.iter().copied().filter(|payload_type| mapped.contains(payload_type)).collect();
        if kept.len() == all.len() {
            continue;
        }
        if kept.is_empty() {
            for (payload_type, map) in [(0u8, "PCMU/8000"), (8, "PCMA/8000"), (9, "G722/8000"), (13, "CN/8000")] {
                if all.contains(&payload_type) && section.kind() == "audio" {
                    section.lines.push(format!("a=rtpmap:{payload_type} {map}"));
                }
            }
            continue;
        }
        section.set_payload_types(&kept);
        section
            .lines
            .retain(|line| super::lines::payload_type_of(line).is_none_or(|payload_type| kept.contains(&payload_type)));
    }
    description.to_text()
}

/// Says of every Opus that two channels are sent and wanted (RFC 7587, 6.1: `sprop-stereo`, `stereo`). Without it a receiver
/// may decode one channel only.
pub fn announce_stereo(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    for section in &mut description.media {
        let is_opus = |value: &str| value.to_ascii_lowercase().contains(" opus/");
        let opus: Vec<u8> = section.values("rtpmap").filter(|v| is_opus(v)).filter_map(first_number).collect();
        for line in &mut section.lines {
            let of = attribute_value(line, "fmtp").and_then(first_number);
            if of.is_some_and(|payload_type| opus.contains(&payload_type)) && !line.contains("stereo=") {
                line.push_str(";stereo=1;sprop-stereo=1");
            }
        }
    }
    description.to_text()
}

fn first_number(value: &str) -> Option<u8> {
    value.split_ascii_whitespace().next()?.parse().ok()
}

/// Removes candidate lines of another component than RTP.
pub fn strip_other_components(sdp: &str) -> String {
    let mut description = Description::parse(sdp);
    for section in std::iter::once(&mut description.session).chain(&mut description.media) {
        section.lines.retain(|line| attribute_value(line, "candidate").is_none_or(is_rtp_component));
    }
    description.to_text()
}
