//! From an offer to a plan, and from a plan to the text of an answer or an offer.

mod write;

pub(super) use write::LocalTransport;

use crate::rtp::frame::VideoCodec;
use crate::rtp::sdp::{CodecSummary, Direction, MediaKind, MediaSummary, Summary};

use super::transport::Remote;
use super::{LocalCandidate, SfuError};

const ABS_SEND_TIME: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const ORIENTATION: &str = "urn:3gpp:video-orientation";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// Codec of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Opus,
    Video(VideoCodec),
}

impl Codec {
    pub(super) fn clock_hz(self) -> u32 {
        match self {
            Self::Opus => crate::rtp::frame::AUDIO_CLOCK_HZ,
            Self::Video(_) => crate::rtp::frame::VIDEO_CLOCK_HZ,
        }
    }

    pub(super) fn is_audio(self) -> bool {
        self == Self::Opus
    }

    fn rtpmap(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::Video(VideoCodec::Vp8) => "VP8/90000",
            Self::Video(VideoCodec::H264) => "H264/90000",
        }
    }
}

/// Negotiated header extension ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) abs_send_time: Option<u8>,
    pub(super) audio_level: Option<u8>,
    pub(super) mid: Option<u8>,
    pub(super) orientation: Option<u8>,
    pub(super) rid: Option<u8>,
    pub(super) transport_cc: Option<u8>,
}

/// One layer of a picture that is published in several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerPlan {
    pub(super) rid: String,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
}

/// More layers than this are not taken.
const LAYERS: usize = 3;

/// Negotiated feedback.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FeedbackKinds {
    pub(super) nack: bool,
    pub(super) pli: bool,
    pub(super) fir: bool,
    pub(super) remb: bool,
    pub(super) transport_cc: bool,
}

/// One negotiated track of a leg.
#[derive(Debug, Clone)]
pub(super) struct TrackPlan {
    pub(super) codec: Codec,
    pub(super) mid: String,
    pub(super) payload_type: u8,
    pub(super) rtx: Option<u8>,
    pub(super) fmtp: Option<String>,
    pub(super) extensions: Extensions,
    pub(super) feedback: FeedbackKinds,
    /// Our sources, when we send on it.
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: u32,
    /// The layers of a picture that we receive, the lowest first; none where it comes as one.
    pub(super) layers: Vec<LayerPlan>,
}

/// One m-line of the description to write.
#[derive(Debug, Clone)]
struct Line {
    kind: &'static str,
    proto: String,
    mid: String,
    /// Index into [`Plan::tracks`], none for a refused m-line.
    track: Option<usize>,
    formats: String,
}

/// A leg as negotiated.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    lines: Vec<Line>,
    pub(super) tracks: Vec<TrackPlan>,
    direction: &'static str,
    sends: bool,
}

/// What the offer says about its transport.
pub(super) fn remote(summary: &Summary, answer_to_ours: bool) -> Result<(Remote, Vec<String>), SfuError> {
    let media =
        summary.media.iter().find(|media| media.ufrag.is_some()).ok_or(SfuError::InvalidSdp("no ICE credentials"))?;
    let ufrag = media.ufrag.clone().unwrap_or_default();
    let pwd = media.pwd.clone().unwrap_or_default();
    if ufrag.is_empty() || ufrag.len() > 256 || pwd.len() < 22 || pwd.len() > 256 {
        return Err(SfuError::InvalidSdp("ICE credentials"));
    }
    let fingerprint = summary
        .media
        .iter()
        .filter_map(|media| media.fingerprint.as_deref())
        .find_map(|value| {
            let (hash, value) = value.split_once(' ')?;
            hash.eq_ignore_ascii_case("sha-256").then(|| value.trim().to_owned())
        })
        .ok_or(SfuError::InvalidSdp("no SHA-256 fingerprint"))?;
    // An offer leaves the choice to us (we open), an answer has chosen.
    let we_are_client = match media.setup.as_deref() {
        Some("active") => false,
        Some("passive") => true,
        _ if answer_to_ours => return Err(SfuError::InvalidSdp("no DTLS role in the answer")),
        _ => true,
    };
    let candidates = summary.media.iter().flat_map(|media| media.candidates.iter().cloned()).collect();
    let remote = Remote { ufrag, pwd, fingerprint, we_are_client };
    Ok((remote, candidates))
}

/// `transport_cc`: transport-wide numbers may be used, see [`extensions`].
fn feedback(codec: &CodecSummary, transport_cc: bool) -> FeedbackKinds {
    FeedbackKinds {
        nack: codec.has_feedback("nack", ""),
        pli: codec.has_feedback("nack", "pli"),
        fir: codec.has_feedback("ccm", "fir"),
        remb: codec.has_feedback("goog-remb", ""),
        transport_cc: transport_cc && codec.has_feedback("transport-cc", ""),
    }
}

fn extensions(media: &MediaSummary, audio: bool, transport_cc: bool) -> Extensions {
    // Ids above 14 need the two-byte form, which is not worth it here.
    let id = |uri| media.extension_id(uri).filter(|id| (1..=14).contains(id));
    Extensions {
        abs_send_time: id(ABS_SEND_TIME),
        audio_level: id(AUDIO_LEVEL).filter(|_| audio),
        mid: id(MID),
        orientation: id(ORIENTATION).filter(|_| !audio),
        rid: None,
        transport_cc: id(TRANSPORT_CC).filter(|_| transport_cc),
    }
}

/// Whether packets towards a subscriber carry transport-wide numbers: sound, which shows the path also while no picture is
/// sent, and pictures whose repeats are packets of their own. A picture's repeat on the same source would have to bear its
/// first number, and too many of those would have to be remembered.
pub(super) fn numbered(codec: Codec, rtx: Option<u8>) -> bool {
    codec.is_audio() || rtx.is_some()
}

/// The layers that an m-line offers. They must be named by source as well: the groups of repairs, or without repairs the
/// sources, stand in the order of the rids, the lowest layer first. Anything else is taken as one picture.
fn layers(media: &MediaSummary, codec: Codec) -> Vec<LayerPlan> {
    let count = media.rids.len();
    if codec != Codec::Video(VideoCodec::Vp8) || !(2..=LAYERS).contains(&count) {
        return Vec::new();
    }
    let sources: Vec<(u32, Option<u32>)> = match media.fid_groups.is_empty() {
        false => media.fid_groups.iter().map(|group| (group.primary, Some(group.rtx))).collect(),
        true => media.ssrcs.iter().map(|ssrc| (*ssrc, None)).collect(),
    };
    if sources.len() != count {
        return Vec::new();
    }
    let named = media.rids.iter().zip(sources);
    named.map(|(rid, (ssrc, rtx_ssrc))| LayerPlan { rid: rid.clone(), ssrc, rtx_ssrc }).collect()
}

/// The RTX payload type that repairs `payload_type`.
fn rtx_of(media: &MediaSummary, payload_type: u8) -> Option<u8> {
    media
        .codecs
        .iter()
        .find(|codec| {
            codec.name.eq_ignore_ascii_case("rtx")
                && codec.fmtp_parameter("apt").and_then(|apt| apt.parse().ok()) == Some(payload_type)
        })
        .map(|codec| codec.payload_type)
}

/// How well an H264 payload type fits; `None` for what we cannot forward to everybody.
fn h264_rank(codec: &CodecSummary) -> Option<u8> {
    if codec.fmtp_parameter("packetization-mode") != Some("1") {
        return None;
    }
    let profile = codec.fmtp_parameter("profile-level-id").unwrap_or("42e01f").to_ascii_lowercase();
    match profile.get(..4) {
        Some("42e0") => Some(0),
        Some(profile) if profile.starts_with("42") => Some(1),
        _ => None,
    }
}

fn find_codec(media: &MediaSummary, codec: Codec) -> Option<&CodecSummary> {
    let named = |name: &'static str| media.codecs.iter().filter(move |codec| codec.name.eq_ignore_ascii_case(name));
    match codec {
        Codec::Opus => named("opus").next(),
        Codec::Video(VideoCodec::Vp8) => named("VP8").next(),
        Codec::Video(VideoCodec::H264) => named("H264")
            .filter_map(|codec| Some((h264_rank(codec)?, codec)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, codec)| codec),
    }
}

/// The first video codec of the offer that we forward.
fn first_video(media: &MediaSummary, forced: Option<VideoCodec>) -> Option<VideoCodec> {
    if let Some(forced) = forced {
        return find_codec(media, Codec::Video(forced)).map(|_| forced);
    }
    let position = |codec| {
        let found = find_codec(media, Codec::Video(codec))?;
        media.codecs.iter().position(|other| other.payload_type == found.payload_type).map(|position| (position, codec))
    };
    let mut found: Vec<_> = [VideoCodec::Vp8, VideoCodec::H264].into_iter().filter_map(position).collect();
    found.sort_by_key(|(position, _)| *position);
    found.first().map(|(_, codec)| *codec)
}

/// What a leg's tracks are to be.
pub(super) struct Wanted {
    pub(super) audio: bool,
    /// `None`: no video.
    pub(super) video: Option<VideoChoice>,
}

/// How the video codec is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) enum VideoChoice {
    /// By the offer's order, or this one.
    Offered(Option<VideoCodec>),
    /// Exactly this one: the publisher's.
    Exactly(VideoCodec),
}

impl Plan {
    /// Plans the answer to `offer`. `receives`: the leg publishes; `sends`: it gets media from us.
    pub(super) fn answer(
        offer: &Summary,
        wanted: &Wanted,
        receives: bool,
        sends: bool,
        ssrc: &mut impl FnMut() -> u32,
    ) -> Result<Self, SfuError> {
        let mut plan = Self {
            lines: Vec::new(),
            tracks: Vec::new(),
            direction: match (receives, sends) {
                (true, true) => "sendrecv",
                (true, false) => "recvonly",
                _ => "sendonly",
            },
            sends,
        };
        if offer.media.is_empty() || offer.media.len() > 16 {
            return Err(SfuError::InvalidSdp("number of m-lines"));
        }
        let mut have_audio = false;
        let mut have_video = false;
        for media in &offer.media {
            let usable_direction = match media.direction {
                Direction::SendRecv => true,
                Direction::SendOnly => receives,
                Direction::RecvOnly => sends && !receives,
                Direction::Inactive => false,
            };
            let usable = usable_direction && (media.port != 0 || offer.bundle.contains(&media.mid));
            let codec = match media.kind {
                MediaKind::Audio if usable && wanted.audio && !have_audio => {
                    have_audio = true;
                    find_codec(media, Codec::Opus).ok_or(SfuError::NoCommonCodec { wanted: "opus" })?;
                    Some(Codec::Opus)
                }
                MediaKind::Video if usable && !have_video => match wanted.video {
                    None => None,
                    Some(VideoChoice::Exactly(codec)) => {
                        have_video = true;
                        Some(Codec::Video(codec))
                    }
                    Some(VideoChoice::Offered(forced)) => {
                        have_video = true;
                        let wanted = forced.map_or("VP8 or H264", VideoCodec::name);
                        let codec = first_video(media, forced).ok_or(SfuError::NoCommonCodec { wanted })?;
                        Some(Codec::Video(codec))
                    }
                },
                _ => None,
            };
            let track = match codec {
                Some(codec) => Some(plan.track(media, codec, receives, sends, ssrc)?),
                None => None,
            };
            plan.lines.push(Line {
                kind: match media.kind {
                    MediaKind::Audio => "audio",
                    MediaKind::Video => "video",
                    _ => "application",
                },
                proto: media.proto.clone(),
                mid: media.mid.clone(),
                track,
                formats: match media.codecs.first() {
                    Some(codec) => codec.payload_type.to_string(),
                    None => "webrtc-datachannel".to_owned(),
                },
            });
        }
        if plan.tracks.is_empty() {
            return Err(SfuError::InvalidSdp("nothing to negotiate"));
        }
        if !receives {
            plan.number_all_or_none();
        }
        Ok(plan)
    }

    /// Sound alone says nothing about what pictures may take beside it.
    fn number_all_or_none(&mut self) {
        if self.tracks.iter().all(|track| track.extensions.transport_cc.is_some()) {
            return;
        }
        for track in &mut self.tracks {
            track.extensions.transport_cc = None;
            track.feedback.transport_cc = false;
        }
    }

    fn track(
        &mut self,
        media: &MediaSummary,
        codec: Codec,
        receives: bool,
        sends: bool,
        ssrc: &mut impl FnMut() -> u32,
    ) -> Result<usize, SfuError> {
        let wanted = match codec {
            Codec::Opus => "opus",
            Codec::Video(codec) => codec.name(),
        };
        let found = find_codec(media, codec).ok_or(SfuError::NoCommonCodec { wanted })?;
        let rtx = rtx_of(media, found.payload_type).filter(|_| found.has_feedback("nack", ""));
        let feedback = feedback(found, receives || numbered(codec, rtx));
        let layers = if receives && !sends { layers(media, codec) } else { Vec::new() };
        let mut extensions = extensions(media, codec.is_audio(), feedback.transport_cc);
        extensions.rid = media.extension_id(RID).filter(|id| (1..=14).contains(id) && !layers.is_empty());
        self.tracks.push(TrackPlan {
            codec,
            mid: media.mid.clone(),
            payload_type: found.payload_type,
            rtx,
            fmtp: found.fmtp.clone(),
            extensions,
            feedback,
            ssrc: if sends { ssrc() } else { 0 },
            rtx_ssrc: if sends { ssrc() } else { 0 },
            layers,
        });
        Ok(self.tracks.len() - 1)
    }

    /// Plans our own offer to a subscriber.
    pub(super) fn offer(audio: bool, video: Option<VideoCodec>, ssrc: &mut impl FnMut() -> u32) -> Self {
        let mut plan = Self { lines: Vec::new(), tracks: Vec::new(), direction: "sendonly", sends: true };
        let codecs = audio.then_some(Codec::Opus).into_iter().chain(video.map(Codec::Video));
        for (index, codec) in codecs.enumerate() {
            let audio = codec.is_audio();
            let (payload_type, rtx, fmtp) = match codec {
                Codec::Opus => (111, None, Some("minptime=10;useinbandfec=1")),
                Codec::Video(VideoCodec::Vp8) => (96, Some(97), None),
                Codec::Video(VideoCodec::H264) => {
                    (102, Some(103), Some("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"))
                }
            };
            plan.tracks.push(TrackPlan {
                codec,
                mid: index.to_string(),
                payload_type,
                rtx,
                fmtp: fmtp.map(str::to_owned),
                extensions: Extensions {
                    abs_send_time: Some(2),
                    audio_level: audio.then_some(1),
                    mid: Some(4),
                    orientation: (!audio).then_some(13),
                    rid: None,
                    transport_cc: Some(3),
                },
                feedback: FeedbackKinds { nack: true, pli: !audio, fir: !audio, remb: !audio, transport_cc: true },
                ssrc: ssrc(),
                rtx_ssrc: ssrc(),
                layers: Vec::new(),
            });
            plan.lines.push(Line {
                kind: if audio { "audio" } else { "video" },
                proto: "UDP/TLS/RTP/SAVPF".to_owned(),
                mid: index.to_string(),
                track: Some(index),
                formats: String::new(),
            });
        }
        plan
    }

    /// Takes over what the answer to our own offer left of it.
    pub(super) fn answered(&mut self, answer: &Summary) -> Result<(), SfuError> {
        let mut kept = Vec::new();
        for mut track in std::mem::take(&mut self.tracks) {
            let Some(media) = answer.media.iter().find(|media| media.mid == track.mid) else {
                continue;
            };
            if media.port == 0 || !matches!(media.direction, Direction::RecvOnly | Direction::SendRecv) {
                continue;
            }
            let Some(found) = find_codec(media, track.codec) else {
                continue;
            };
            track.payload_type = found.payload_type;
            track.rtx = rtx_of(media, found.payload_type).filter(|_| found.has_feedback("nack", ""));
            track.feedback = feedback(found, numbered(track.codec, track.rtx));
            track.extensions = extensions(media, track.codec.is_audio(), track.feedback.transport_cc);
            kept.push(track);
        }
        self.tracks = kept;
        if self.tracks.is_empty() {
            return Err(SfuError::InvalidSdp("the answer accepts nothing"));
        }
        self.number_all_or_none();
        Ok(())
    }

    pub(super) fn audio(&self) -> Option<&TrackPlan> {
        self.tracks.iter().find(|track| track.codec.is_audio())
    }

    pub(super) fn video(&self) -> Option<(&TrackPlan, VideoCodec)> {
        self.tracks.iter().find_map(|track| match track.codec {
            Codec::Video(codec) => Some((track, codec)),
            Codec::Opus => None,
        })
    }
}

#[cfg(test)]
mod tests;
