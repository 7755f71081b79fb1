//! The measures on every recorded description and candidate list.

use std::collections::HashSet;

use super::*;

/// Name and text of every recorded description.
fn recorded() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/sdp");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sdp"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 40, "{} descriptions", all.len());
    all
}

fn one(name: &str) -> String {
    recorded().into_iter().find(|(stem, _)| stem == name).unwrap().1
}

fn candidates(name: &str) -> Vec<String> {
    let path = format!("{}/tests/fixtures/sdp/candidates-{name}.json", env!("CARGO_MANIFEST_DIR"));
    let list: Vec<serde_json::Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    list.iter().map(|entry| entry["candidate"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_channels_are_announced_of_opus_and_nothing_else_changes() {
    for (name, text) in recorded() {
        let announced = announce_stereo(&text);
        let (before, after): (Vec<&str>, Vec<&str>) = (text.lines().collect(), announced.lines().collect());
        assert_eq!(before.len(), after.len(), "{name}");
        let changed: Vec<(&str, &str)> = before.into_iter().zip(after).filter(|(b, a)| b != a).collect();
        for (before, after) in &changed {
            assert!(before.contains("useinbandfec=1"), "{name}: {before}");
            assert_eq!(*after, format!("{before};stereo=1;sprop-stereo=1"), "{name}");
        }
        assert_eq!(changed.is_empty(), !text.contains("useinbandfec=1"), "{name}");
        assert_eq!(announce_stereo(&announced), announced, "{name}: said once");
        let opus = |text: &str| Summary::parse(text).media.iter().find_map(|m| m.codec("opus").cloned());
        if !changed.is_empty() {
            assert_eq!(opus(&announced).unwrap().fmtp_parameter("stereo"), Some("1"), "{name}");
        }
    }
}

#[test]
fn parsing_and_writing_changes_nothing() {
    for (name, text) in recorded() {
        assert_eq!(Description::parse(&text).to_text(), text, "{name}");
    }
    assert_eq!(Description::parse("v=0\nm=audio 9 X 0\n\n").to_text(), "v=0\r\nm=audio 9 X 0\r\n");
}

#[test]
fn prepared_remote_descriptions_keep_what_the_stack_needs() {
    for (name, text) in recorded() {
        let prepared = prepare_remote(&text);
        let (before, after) = (Summary::parse(&text), Summary::parse(&prepared));
        assert_eq!(before.media.len(), after.media.len(), "{name}");
        let mut msids = HashSet::new();
        for (old, new) in before.media.iter().zip(&after.media) {
            // The fingerprint of the m-line is the one that counts, and there is only one.
            assert_eq!(old.fingerprint, new.fingerprint, "{name}");
            assert!(new.fingerprint.is_some() && !(after.session_fingerprint && name.starts_with("kms-")), "{name}");
            assert_eq!(
                (&old.ufrag, &old.pwd, &old.mid, &old.ssrcs),
                (&new.ufrag, &new.pwd, &new.mid, &new.ssrcs),
                "{name}"
            );
            assert!(new.codecs.iter().all(|codec| !codec.name.is_empty()), "{name}");
            assert!(new.candidates.iter().all(|candidate| is_rtp_component(candidate)), "{name}");
            if matches!(new.kind, MediaKind::Audio | MediaKind::Video) {
                assert!(!new.codecs.is_empty(), "{name}");
                let named = new.msid.clone().or_else(|| old.msid.clone());
                if name.starts_with("kms-") {
                    assert!(msids.insert(named.expect("an msid")), "{name}: msid not unique");
                }
            }
        }
        assert_eq!(prepare_remote(&prepared), prepared, "{name}: not stable");
    }
}

#[test]
fn the_answer_that_repeats_our_fingerprint_is_repaired() {
    for name in ["kms-webrtc-crate-publish-answer", "kms-webrtc-crate-subscribe-answer"] {
        let text = one(name);
        assert!(Summary::parse(&text).session_fingerprint);
        let repaired = drop_session_fingerprint(&text);
        let summary = Summary::parse(&repaired);
        assert!(!summary.session_fingerprint);
        assert_eq!(summary.media[0].fingerprint, summary.media[1].fingerprint);
        assert!(summary.media[0].fingerprint.as_ref().unwrap().starts_with("sha-256 47:72:E2"));
    }
}

#[test]
fn our_offer_carries_its_transport_on_the_m_lines() {
    for name in ["webrtc-crate-publish-offer", "webrtc-crate-subscribe-offer", "webrtc-crate-subscribe-answer"] {
        let prepared = prepare_local(&one(name));
        let description = Description::parse(&prepared);
        for attribute in ["fingerprint", "setup", "ice-ufrag", "ice-pwd"] {
            assert!(!description.session.has(attribute), "{name}");
            for section in &description.media {
                assert_eq!(section.values(attribute).count(), 1, "{name} {attribute}");
            }
        }
        let before = Summary::parse(&one(name));
        for (old, new) in before.media.iter().zip(Summary::parse(&prepared).media) {
            assert_eq!(old.fingerprint, new.fingerprint);
            assert!(new.candidates.iter().all(|candidate| is_rtp_component(candidate)));
        }
        assert_eq!(prepare_local(&prepared), prepared);
    }
}

#[test]
fn a_half_given_fingerprint_is_completed() {
    let text = "v=0\r\na=fingerprint:sha-256 AA\r\nm=audio 9 X 0\r\na=fingerprint:sha-256 BB\r\nm=video 9 X 96\r\n";
    let summary = Summary::parse(&drop_session_fingerprint(text));
    let all: Vec<_> = summary.media.iter().map(|media| media.fingerprint.clone().unwrap()).collect();
    assert_eq!(all, ["sha-256 BB", "sha-256 AA"]);
    assert!(!summary.session_fingerprint);
}

#[test]
fn kurento_offers_lose_the_payload_types_without_rtpmap() {
    for name in ["kms-offer", "kms-offer-gathered", "kms-subscribe-offer"] {
        let text = one(name);
        let (before, after) = (Summary::parse(&text), Summary::parse(&strip_unmapped_payload_types(&text)));
        let types =
            |summary: &Summary| -> Vec<u8> { summary.media[0].codecs.iter().map(|codec| codec.payload_type).collect() };
        assert_eq!(types(&before), [96, 0, 8], "{name}");
        assert_eq!(types(&after), [96], "{name}");
        assert_eq!(before.media[1], after.media[1], "{name}");
    }
    // An m-line of static types only would be left empty: they get their mapping.
    let bare = strip_unmapped_payload_types("m=audio 9 RTP/SAVPF 0 8\r\n");
    assert_eq!(bare, "m=audio 9 RTP/SAVPF 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n");
}

#[test]
fn msids_are_added_after_the_mid_only_where_missing() {
    let text = add_msid(&one("kms-publish-answer"));
    assert!(text.contains("a=mid:0\r\na=msid:remote audio0\r\n"), "{text}");
    assert!(text.contains("a=mid:1\r\na=msid:remote video1\r\n"));
    let browser = one("chromium-publish-offer");
    assert_eq!(add_msid(&browser), browser);
    let data = add_msid(&one("kms-offer-data-channels"));
    for section in Description::parse(&data).media.iter().filter(|section| section.kind() == "application") {
        assert!(!section.has("msid"));
    }
}

#[test]
fn candidates_of_the_second_component_are_refused() {
    for list in ["publish", "subscribe"] {
        let all = candidates(list);
        let kept = all.iter().filter(|candidate| is_rtp_component(candidate)).count();
        let second = all.iter().filter(|candidate| candidate.split(' ').nth(1) == Some("2")).count();
        assert!(second > 0 && kept + second == all.len(), "{list}: {kept} + {second} of {}", all.len());
        for candidate in &all {
            let parsed = CandidateLine::parse(candidate).unwrap();
            assert!(matches!(parsed.component, 1 | 2) && matches!(parsed.kind, "host" | "srflx" | "relay"));
        }
    }
    for odd in ["", "candidate:", "candidate:1 x udp 1 1.2.3.4 5 typ host", "end-of-candidates"] {
        assert!(!is_rtp_component(odd), "{odd}");
    }
    let text = one("kms-offer-gathered");
    assert_eq!(text.matches("a=candidate").count(), 12);
    assert_eq!(strip_other_components(&text).matches("a=candidate").count(), 6);
}

#[test]
fn candidates_are_added_to_the_m_line_they_are_for() {
    let text = one("kms-publish-answer");
    let list = candidates("publish");
    let added = add_candidates(&text, MediaRef::Mid("1"), &list);
    let summary = Summary::parse(&added);
    assert!(summary.media[0].candidates.is_empty());
    let unique: HashSet<_> = list.iter().filter(|candidate| is_rtp_component(candidate)).collect();
    assert_eq!(summary.media[1].candidates.len(), unique.len());
    assert_eq!(add_candidates(&added, MediaRef::Index(1), &list), added);
    // An unknown m-line is the first one: bundled media share a transport.
    assert_eq!(
        Summary::parse(&add_candidates(&text, MediaRef::Mid(""), &list)).media[0].candidates.len(),
        unique.len()
    );
    let ended = "m=audio 9 X 0\r\na=end-of-candidates\r\n";
    let ended = add_candidates(ended, MediaRef::Index(0), &["a=candidate:1 1 udp 1 10.0.0.1 5 typ host".to_owned()]);
    assert!(ended.ends_with("a=candidate:1 1 udp 1 10.0.0.1 5 typ host\r\na=end-of-candidates\r\n"));
}

#[test]
fn forced_codecs_leave_that_codec_and_its_repair() {
    let text = one("chromium-publish-offer");
    let types = |text: &str| -> Vec<u8> {
        let summary = Summary::parse(text);
        summary.first(MediaKind::Video).unwrap().codecs.iter().map(|codec| codec.payload_type).collect()
    };
    let forced = force_video_codec(&text, "vp8").unwrap();
    assert_eq!(types(&forced), [96, 97]);
    assert!(!forced.contains("a=rtpmap:102") && !forced.contains("a=fmtp:109") && !forced.contains("a=rtcp-fb:98"));
    let h264 = Summary::parse(&force_video_codec(&text, "H264").unwrap());
    let video = h264.first(MediaKind::Video).unwrap();
    assert!(video.codecs.iter().all(|codec| codec.name == "H264" || codec.name == "rtx"));
    assert_eq!(video.codecs.len(), 12);
    assert_eq!(h264.media[0], Summary::parse(&text).media[0], "audio is left alone");
    // The rest of the m-line stays: extensions, SSRCs, groups.
    assert_eq!(video.fid_groups, [FidGroup { primary: 3_247_169_190, rtx: 980_958_193 }]);
    let missing = force_video_codec(&one("kms-publish-answer"), "VP9").unwrap_err();
    assert_eq!(missing, CodecMissing { codec: "VP9".to_owned() });
    let audio = one("chromium-publish-audio-only-offer");
    assert_eq!(force_video_codec(&audio, "VP9").unwrap(), audio);
    let refused = "m=video 0 UDP/TLS/RTP/SAVPF 98\r\na=rtpmap:98 VP9/90000\r\n";
    assert_eq!(force_video_codec(refused, "VP8").unwrap(), refused);
    let preferred = prefer_video_codec(&text, "H264");
    assert_eq!(types(&preferred).first(), Some(&102));
    let (before, after): (HashSet<u8>, HashSet<u8>) =
        (types(&text).into_iter().collect(), types(&preferred).into_iter().collect());
    assert_eq!(before, after);
}

#[test]
fn the_summary_of_a_browser_and_of_kurento() {
    let offer = Summary::parse(&one("chromium-publish-offer"));
    assert_eq!(offer.bundle, ["0", "1"]);
    let video = offer.first(MediaKind::Video).unwrap();
    assert_eq!((video.mid.as_str(), video.direction, video.port), ("1", Direction::SendOnly, 9));
    assert_eq!(video.proto, "UDP/TLS/RTP/SAVPF");
    assert_eq!(video.extension_id("urn:ietf:params:rtp-hdrext:sdes:mid"), Some(4));
    assert_eq!(video.ssrcs, [3_247_169_190, 980_958_193]);
    assert_eq!(video.setup.as_deref(), Some("actpass"));
    assert_eq!(video.ufrag.as_deref(), Some("tMYl"));
    let vp8 = video.codec("VP8").unwrap();
    assert!(
        vp8.payload_type == 96
            && vp8.clock_hz == 90_000
            && vp8.has_feedback("nack", "pli")
            && vp8.has_feedback("nack", "")
    );
    let opus = offer.first(MediaKind::Audio).unwrap().codec("OPUS").unwrap();
    assert_eq!((opus.channels, opus.fmtp_parameter("useinbandfec")), (Some(2), Some("1")));
    let kurento = Summary::parse(&one("kms-offer"));
    let video = kurento.first(MediaKind::Video).unwrap();
    assert_eq!(
        (video.proto.as_str(), video.mid.as_str(), video.direction),
        ("RTP/SAVPF", "video0", Direction::SendRecv)
    );
    let h264 = video.codec("h264").unwrap();
    assert!(!h264.has_feedback("goog-remb", "") && h264.fmtp_parameter("packetization-mode") == Some("1"));
    assert!(video.rtcp_mux);
}

proptest::proptest! {
    #[test]
    fn nothing_panics_on_any_text(text in "(v=0|m=|m=audio 9 X|m=video 9 X 96 97|a=mid:|a=rtpmap:96|a=rtpmap:96 VP8|a=fmtp:97 apt=|a=fmtp:97 apt=96|a=candidate:|a=ssrc-group:FID 1|a=extmap:|a=fingerprint:x|[ -~]{0,12}|\r?\n){0,30}") {
        let _ = Summary::parse(&text);
        let _ = prepare_local(&text);
        let _ = prepare_remote(&text);
        let _ = prefer_video_codec(&text, "VP8");
        let _ = force_video_codec(&text, "VP8");
        let _ = add_candidates(&text, MediaRef::Index(0), std::slice::from_ref(&text));
    }
}
