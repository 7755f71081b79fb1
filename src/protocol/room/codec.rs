//! Whether an offer can meet the codec that is forced on a session.

use super::session::VideoCodecName;

/// Whether the video of an offer lists `codec`; an offer without video meets any.
pub fn offers_codec(sdp: &str, codec: VideoCodecName) -> bool {
    let mut in_video = false;
    let mut has_video = false;
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            in_video = media.starts_with("video ");
            has_video |= in_video;
        } else if in_video
            && let Some(map) = line.strip_prefix("a=rtpmap:")
            && let Some((_, name)) = map.split_once(' ')
            && name.split('/').next().is_some_and(|n| n.eq_ignore_ascii_case(codec.name()))
        {
            return true;
        }
    }
    !has_video
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_offers() {
        let all = include_str!("../../../tests/fixtures/sdp/chromium-publish-offer.sdp");
        for codec in [VideoCodecName::Vp8, VideoCodecName::Vp9, VideoCodecName::H264] {
            assert!(offers_codec(all, codec), "{codec:?}");
        }
        let only_vp8 = "v=0\r\nm=audio 9 X 96\r\na=rtpmap:96 H264/90000\r\nm=video 9 UDP/TLS/RTP/SAVPF 97 98\r\na=rtpmap:97 vp8/90000\r\na=rtpmap:98 rtx/90000\r\n";
        assert!(offers_codec(only_vp8, VideoCodecName::Vp8));
        assert!(!offers_codec(only_vp8, VideoCodecName::H264), "the audio section does not count");
        let audio = include_str!("../../../tests/fixtures/sdp/chromium-publish-audio-only-offer.sdp");
        assert!(offers_codec(audio, VideoCodecName::H264));
    }
}
