use super::*;

const PUBLISH: &str = include_str!("../../../../tests/fixtures/sdp/chromium-publish-offer.sdp");
const SUBSCRIBE: &str = include_str!("../../../../tests/fixtures/sdp/chromium-subscribe-offer.sdp");

fn numbers() -> impl FnMut() -> u32 {
    let mut next = 1_000;
    move || {
        next += 1;
        next
    }
}

fn write(plan: &Plan) -> String {
    plan.to_sdp(&LocalTransport {
        ufrag: "ufragufrag",
        pwd: "passwordpasswordpassword",
        fingerprint: "AB:CD",
        setup: "active",
        candidates: &[std::net::SocketAddr::from(([10, 0, 0, 1], 4443))],
        session_id: 7,
        stream: "str_CAM_x",
    })
}

#[test]
fn a_browser_publishes_vp8_and_opus() {
    let offer = Summary::parse(PUBLISH);
    let wanted = Wanted { audio: true, video: Some(VideoChoice::Offered(None)) };
    let plan = Plan::answer(&offer, &wanted, true, false, &mut numbers()).unwrap();
    let text = write(&plan);
    let answer = Summary::parse(&text);
    assert_eq!(answer.bundle, ["0", "1"]);
    let [audio, video] = answer.media.as_slice() else { panic!("two m-lines") };
    assert_eq!(audio.direction, Direction::RecvOnly);
    assert_eq!(audio.codecs.len(), 1);
    assert_eq!(audio.codecs[0].payload_type, 111);
    let types: Vec<u8> = video.codecs.iter().map(|codec| codec.payload_type).collect();
    assert_eq!(types, [96, 97]);
    assert!(video.codecs[0].has_feedback("transport-cc", ""));
    assert!(video.codecs[0].has_feedback("nack", "pli"));
    assert_eq!(video.extension_id(TRANSPORT_CC), Some(3));
    assert_eq!(video.extension_id(ORIENTATION), Some(13));
    assert!(video.ssrcs.is_empty());
    assert_eq!(video.setup.as_deref(), Some("active"));
    assert_eq!(video.candidates.len(), 1);
    let (remote, _) = remote(&offer, false).unwrap();
    assert!(remote.we_are_client);
    assert_eq!(remote.ufrag, "tMYl");
}

#[test]
fn h264_is_forced_to_the_profile_everybody_has() {
    let offer = Summary::parse(PUBLISH);
    let wanted = Wanted { audio: true, video: Some(VideoChoice::Offered(Some(VideoCodec::H264))) };
    let plan = Plan::answer(&offer, &wanted, true, false, &mut numbers()).unwrap();
    let (track, codec) = plan.video().unwrap();
    assert_eq!((codec, track.payload_type, track.rtx), (VideoCodec::H264, 108, Some(109)));
    let only = include_str!("../../../../tests/fixtures/sdp/webrtc-crate-publish-offer.sdp");
    let error = Plan::answer(&Summary::parse(only), &wanted, true, false, &mut numbers());
    assert!(matches!(error, Err(SfuError::NoCommonCodec { wanted: "H264" })));
}

#[test]
fn a_browser_subscribes() {
    let offer = Summary::parse(SUBSCRIBE);
    let wanted = Wanted { audio: true, video: Some(VideoChoice::Exactly(VideoCodec::Vp8)) };
    let plan = Plan::answer(&offer, &wanted, false, true, &mut numbers()).unwrap();
    let answer = Summary::parse(&write(&plan));
    let [audio, video] = answer.media.as_slice() else { panic!("two m-lines") };
    assert_eq!((audio.direction, video.direction), (Direction::SendOnly, Direction::SendOnly));
    assert_eq!(video.ssrcs.len(), 2);
    assert_eq!(video.fid_groups.len(), 1);
    assert!(video.msid.is_some());
    // Numbers on all that is sent, so that what the receiver takes can be measured.
    for media in [audio, video] {
        assert_eq!(media.extension_id(TRANSPORT_CC), Some(3));
        assert!(media.codecs[0].has_feedback("transport-cc", ""));
    }
    let without = SUBSCRIBE.replace(" rtx/90000", " other/90000");
    let plan = Plan::answer(&Summary::parse(&without), &wanted, false, true, &mut numbers()).unwrap();
    assert_eq!(plan.video().map(|(video, _)| (video.rtx, video.extensions.transport_cc)), Some((None, None)));
    assert_eq!(plan.audio().and_then(|audio| audio.extensions.transport_cc), None, "sound alone would say too little");
}

#[test]
fn layers_are_taken_where_sources_name_them() {
    let wanted = Wanted { audio: true, video: Some(VideoChoice::Offered(None)) };
    let groups = "a=ssrc-group:FID 100 200\r\na=ssrc-group:FID 101 201\r\na=ssrc-group:FID 102 202\r\n";
    let rids = "a=rid:q send\r\na=rid:h send\r\na=rid:f send\r\na=simulcast:send q;h;f\r\n";
    let kept: Vec<&str> = PUBLISH.lines().filter(|line| !line.starts_with("a=ssrc")).collect();
    let bare = kept.join("\r\n") + "\r\n";
    let video = |offer: &str| {
        let plan = Plan::answer(&Summary::parse(offer), &wanted, true, false, &mut numbers()).unwrap();
        (plan.video().unwrap().0.layers.clone(), write(&plan))
    };
    let (layers, text) = video(&format!("{bare}{groups}{rids}"));
    let sources: Vec<_> = layers.iter().map(|l| (l.rid.as_str(), l.ssrc, l.rtx_ssrc)).collect();
    assert_eq!(sources, [("q", 100, Some(200)), ("h", 101, Some(201)), ("f", 102, Some(202))]);
    assert!(text.contains("a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n"), "{text}");
    for plain in [PUBLISH.to_owned(), format!("{bare}{rids}"), format!("{bare}{groups}")] {
        let (layers, text) = video(&plain);
        assert!(layers.is_empty() && !text.contains("simulcast"), "{text}");
    }
}

#[test]
fn what_the_publisher_lacks_is_refused_line_by_line() {
    let offer = Summary::parse(SUBSCRIBE);
    let wanted = Wanted { audio: true, video: None };
    let plan = Plan::answer(&offer, &wanted, false, true, &mut numbers()).unwrap();
    let answer = Summary::parse(&write(&plan));
    assert_eq!(answer.media.len(), 2);
    assert_eq!(answer.media[1].port, 0);
    assert_eq!(answer.bundle, ["0"]);
}

#[test]
fn our_offer_can_be_answered() {
    let mut plan = Plan::offer(true, Some(VideoCodec::H264), &mut numbers());
    let text = write(&plan);
    let offer = Summary::parse(&text);
    assert_eq!(offer.media.len(), 2);
    let answer = Plan::answer(
        &offer,
        &Wanted { audio: true, video: Some(VideoChoice::Exactly(VideoCodec::H264)) },
        true,
        false,
        &mut numbers(),
    )
    .unwrap();
    plan.answered(&Summary::parse(&write(&answer))).unwrap();
    assert_eq!(plan.tracks.len(), 2);
    let recorded = include_str!("../../../../tests/fixtures/sdp/chromium-subscribe-answer.sdp");
    let _ = remote(&Summary::parse(recorded), true);
}

#[test]
fn every_recorded_description_is_survived_cut_anywhere() {
    for text in [PUBLISH, SUBSCRIBE] {
        for length in (0..text.len()).step_by(7) {
            let offer = Summary::parse(&text[..length]);
            let wanted = Wanted { audio: true, video: Some(VideoChoice::Offered(None)) };
            let _ = Plan::answer(&offer, &wanted, true, true, &mut numbers());
            let _ = remote(&offer, false);
        }
    }
}
