//! What we offer and accept: codecs, feedback, header extensions, interceptors.
//!
//! Payload types and attributes follow the recorded browser offers, which a real Kurento accepts; RTX is offered because our own host uses it,
//! and simply does not stand in Kurento's answers.

use super::error::PeerError;
use crate::rtp::congestion::Bounds;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, VideoCodec};
use crate::wire::{ABS_SEND_TIME_URI, AUDIO_LEVEL_URI, MID_URI, RID_URI, TRANSPORT_CC_URI};
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use webrtc::peer_connection::MediaEngine;

/// Bounds of the rate where there is transport-wide feedback: at most what a picture of 1920x1080 in layers makes use of, with
/// sound and headers. What the present picture does is looked for, see `useful_bps`. It begins with what a narrow path takes
/// without a queue; the first answers, a round trip later, tell what a wide one takes.
pub(super) const BOUNDS: Bounds = Bounds { start_bps: 300_000.0, min_bps: 100_000.0, max_bps: 6_800_000.0 };

const OPUS_PT: u8 = 111;
const VP8_PT: u8 = 96;
const VP8_RTX_PT: u8 = 97;
const H264_PT: u8 = 102;
const H264_RTX_PT: u8 = 103;
/// Constrained baseline, level 3.1, the profile every WebRTC stack decodes.
const H264_FMTP: &str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";

fn feedback(list: &[(&str, &str)]) -> Vec<RTCPFeedback> {
    list.iter()
        .map(|(typ, parameter)| RTCPFeedback { typ: (*typ).to_owned(), parameter: (*parameter).to_owned() })
        .collect()
}

/// The codec as the stack describes it.
pub(super) fn video_codec(codec: VideoCodec) -> RTCRtpCodec {
    let (mime, fmtp) = match codec {
        VideoCodec::Vp8 => ("video/VP8", ""),
        VideoCodec::H264 => ("video/H264", H264_FMTP),
    };
    RTCRtpCodec {
        mime_type: mime.to_owned(),
        clock_rate: VIDEO_CLOCK_HZ,
        channels: 0,
        sdp_fmtp_line: fmtp.to_owned(),
        rtcp_feedback: feedback(&[
            ("goog-remb", ""),
            ("transport-cc", ""),
            ("ccm", "fir"),
            ("nack", ""),
            ("nack", "pli"),
        ]),
    }
}

/// Opus as the stack describes it. `nack` costs nothing and one round trip (both stacks repeat audio when asked).
pub(super) fn audio_codec() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "audio/opus".to_owned(),
        clock_rate: AUDIO_CLOCK_HZ,
        channels: 2,
        sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
        rtcp_feedback: feedback(&[("transport-cc", ""), ("nack", "")]),
    }
}

/// Which of our codecs a stack description means.
pub(super) fn codec_of(codec: &RTCRtpCodec) -> Option<VideoCodec> {
    if codec.mime_type.eq_ignore_ascii_case("video/VP8") {
        Some(VideoCodec::Vp8)
    } else if codec.mime_type.eq_ignore_ascii_case("video/H264") {
        // Packetization mode 0 (one NAL unit per packet) cannot carry what our packetiser writes.
        codec.sdp_fmtp_line.split(';').any(|p| p.trim() == "packetization-mode=1").then_some(VideoCodec::H264)
    } else {
        None
    }
}

fn rtx(payload_type: u8, apt: u8) -> RTCRtpCodecParameters {
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: "video/rtx".to_owned(),
            clock_rate: VIDEO_CLOCK_HZ,
            channels: 0,
            sdp_fmtp_line: format!("apt={apt}"),
            rtcp_feedback: Vec::new(),
        },
        payload_type,
    }
}

/// Codecs in the given order, each followed by its RTX, and the header extensions; `layers`: that of their names too.
pub(super) fn media_engine(audio: bool, video: &[VideoCodec], layers: bool) -> Result<MediaEngine, PeerError> {
    let mut engine = MediaEngine::default();
    if audio {
        engine.register_codec(
            RTCRtpCodecParameters { rtp_codec: audio_codec(), payload_type: OPUS_PT },
            RtpCodecKind::Audio,
        )?;
    }
    for codec in video {
        let (pt, rtx_pt) = match codec {
            VideoCodec::Vp8 => (VP8_PT, VP8_RTX_PT),
            VideoCodec::H264 => (H264_PT, H264_RTX_PT),
        };
        engine.register_codec(
            RTCRtpCodecParameters { rtp_codec: video_codec(*codec), payload_type: pt },
            RtpCodecKind::Video,
        )?;
        engine.register_codec(rtx(rtx_pt, pt), RtpCodecKind::Video)?;
    }
    // In the order of the ids that a browser uses: 1 level, 2 send time, 3 transport-cc, 4 mid.
    for (uri, kinds) in [
        (AUDIO_LEVEL_URI, &[RtpCodecKind::Audio][..]),
        (ABS_SEND_TIME_URI, &[RtpCodecKind::Audio, RtpCodecKind::Video][..]),
        (TRANSPORT_CC_URI, &[RtpCodecKind::Audio, RtpCodecKind::Video][..]),
        (MID_URI, &[RtpCodecKind::Audio, RtpCodecKind::Video][..]),
    ] {
        for kind in kinds {
            engine.register_header_extension(RTCRtpHeaderExtensionCapability { uri: uri.to_owned() }, *kind, None)?;
        }
    }
    if layers {
        engine.register_header_extension(
            RTCRtpHeaderExtensionCapability { uri: RID_URI.to_owned() },
            RtpCodecKind::Video,
            None,
        )?;
    }
    Ok(engine)
}
