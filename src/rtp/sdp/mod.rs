//! A small, tolerant, line based SDP editor (RFC 8866, RFC 8829) and the measures that descriptions of other
//! implementations need.
//!
//! Nothing here fails on odd input: lines that are not understood are carried along unchanged.

mod candidate;
mod codecs;
mod lines;
mod measures;
mod summary;

pub use candidate::{CandidateLine, MediaRef, add_candidates, is_rtp_component};
pub(crate) use codecs::apt_pairs;
pub use codecs::{CodecMissing, force_video_codec, prefer_video_codec};
pub use lines::{Description, Section};
pub use measures::{
    add_msid, announce_stereo, drop_session_fingerprint, fingerprint_to_media, prepare_local, prepare_remote,
    strip_other_components, strip_unmapped_payload_types,
};
pub use summary::{CodecSummary, Direction, ExtMap, Feedback, FidGroup, MediaKind, MediaSummary, Summary};

#[cfg(test)]
mod tests;
