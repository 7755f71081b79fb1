//! Our handles against the recorded texts of a real Kurento, with media really flowing: another stack answers, and its answer is replaced by
//! the record in which only the transport (user name, password, fingerprint) is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use peer_support::*;
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tertulia::peer::{PeerEvent, Publication, PublishMedia, SubscribeMedia, Subscription};
use tertulia::rtp::frame::VideoCodec;
use tertulia::rtp::sdp::{Direction, Summary};
use tokio::sync::mpsc;
use webrtc::media_stream::track_local::TrackLocal;

const LIMIT: Duration = Duration::from_secs(8);

fn fixture(name: &str) -> String {
    std::fs::read_to_string(format!("tests/fixtures/sdp/{name}.sdp")).unwrap()
}

/// Keeps all events; our candidates go to the other side.
fn pump(mut events: mpsc::Receiver<PeerEvent>, to: Arc<Other>) -> Arc<Mutex<Vec<PeerEvent>>> {
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let PeerEvent::LocalCandidate { candidate, sdp_mid, sdp_mline_index } = &event {
                assert_eq!((sdp_mid.as_deref(), *sdp_mline_index), (Some("0"), Some(0)));
                to.add_candidate(candidate).await;
            }
            kept.lock().unwrap().push(event);
        }
    });
    log
}

fn has(log: &Arc<Mutex<Vec<PeerEvent>>>, event: &PeerEvent) -> bool {
    log.lock().unwrap().contains(event)
}

/// Publishes against a recorded answer and returns what arrived.
async fn publish_against(record: &str, media: PublishMedia, codec: VideoCodec) {
    let (name, video_pt) = if codec == VideoCodec::Vp8 { ("VP8", 96) } else { ("H264", 102) };
    let mut other = Other::new(111, name, video_pt).await;
    let (publication, events) = Publication::new(&config(), media).await.unwrap();
    let offer = publication.offer().await.unwrap();
    let living = other.answer(&offer).await;
    let candidate = tokio::time::timeout(LIMIT, other.candidates.recv()).await.unwrap().unwrap();
    let other = Arc::new(other);
    let log = pump(events, Arc::clone(&other));
    let ours = attribute(&offer, "fingerprint");
    // Candidates come before the answer here: they have to wait.
    let (hole, dead_port) = black_hole();
    for (line, mid, index) in kurento_candidates(&candidate, dead_port) {
        publication.add_candidate(&line, Some(mid), Some(index)).await.unwrap();
    }
    let started = Instant::now();
    publication.set_answer(&dressed_up(record, &living, Some(&ours))).await.unwrap();
    assert_eq!(publication.video_codec(), Some(codec));
    wait_for("connecting", LIMIT, || has(&log, &PeerEvent::Connected) && other.connected()).await;
    println!("connected after {:?}", started.elapsed());
    for n in 0..30u32 {
        let frame = if codec == VideoCodec::Vp8 { vp8_frame(n, n == 0, 3_000) } else { h264_frame(n, n == 0, 3_000) };
        publication.send_video(frame);
        publication.send_audio(opus_packet(n));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sent = || publication.stats().video.unwrap().packets as usize;
    let arrived = |kind| other.packets.lock().unwrap().iter().filter(|(k, _)| *k == kind).count();
    wait_for("media", LIMIT, || {
        arrived(RtpCodecKind::Audio) == 30 && sent() >= 90 && arrived(RtpCodecKind::Video) == sent()
    })
    .await;
    // Not one check may have gone to the second component.
    hole.set_nonblocking(true).unwrap();
    assert!(hole.recv(&mut [0; 2048]).is_err(), "a candidate of component 2 was used");
    for (kind, packet) in other.packets.lock().unwrap().iter() {
        let expected = if *kind == RtpCodecKind::Audio { 111 } else { video_pt };
        assert_eq!(packet.header.payload_type, expected, "{kind:?}");
    }
    // Kurento's compound: an empty report in front of FIR (media SSRC 0, target inside) and REMB; the same FIR comes again and again.
    let video_ssrc =
        other.packets.lock().unwrap().iter().find(|(kind, _)| *kind == RtpCodecKind::Video).unwrap().1.header.ssrc;
    let requests = || log.lock().unwrap().iter().filter(|e| **e == PeerEvent::KeyFrameRequested).count();
    let before = requests();
    let track = other.tracks.lock().unwrap()[0].clone();
    for sequence_number in [9, 9, 9, 10] {
        let fir = FirEntry { ssrc: video_ssrc, sequence_number };
        track
            .write_rtcp(vec![
                Box::new(ReceiverReport { ssrc: 5, ..Default::default() }),
                Box::new(FullIntraRequest { sender_ssrc: 5, media_ssrc: 0, fir: vec![fir] }),
                Box::new(ReceiverEstimatedMaximumBitrate {
                    sender_ssrc: 5,
                    bitrate: 300_000.0,
                    ssrcs: vec![video_ssrc],
                }),
            ])
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    assert_eq!(requests() - before, 2, "each FIR counts once");
    wait_for("the bandwidth", LIMIT, || {
        // Sound and headers are taken off.
        let near = |bps: u64| (230_000..=285_000).contains(&bps);
        log.lock().unwrap().iter().any(|e| matches!(e, PeerEvent::TargetBitrate { bps } if near(*bps)))
    })
    .await;
    publication.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_against_the_recorded_answer() {
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    publish_against(&fixture("kms-publish-answer"), media, VideoCodec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_against_an_answer_that_repeats_our_session_fingerprint() {
    let record = fixture("kms-webrtc-crate-publish-answer");
    assert!(record.find("a=fingerprint").unwrap() < record.find("m=audio").unwrap(), "the record has the trap");
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    publish_against(&record, media, VideoCodec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_h264_against_the_recorded_answer() {
    // Kurento lists what was offered: of the browser's six H264 types only the one that we offer, under our number.
    let record = fixture("kms-publish-h264-answer");
    let mut text = String::new();
    for line in record.lines().map(str::trim_end) {
        if line.starts_with("m=video") {
            text.push_str("m=video 1 UDP/TLS/RTP/SAVPF 102\r\n");
        } else if ["104", "108", "114", "116", "39"]
            .iter()
            .any(|pt| ["rtpmap", "rtcp-fb", "fmtp"].iter().any(|a| line.starts_with(&format!("a={a}:{pt} "))))
        {
            continue;
        } else {
            text.push_str(&line.replace("profile-level-id=42001f", "profile-level-id=42e01f"));
            text.push_str("\r\n");
        }
    }
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    publish_against(&text, media, VideoCodec::H264).await;
}

/// Sends from the bare side under the SSRCs of the record and checks that the subscription gets both kinds, apart.
async fn feed(
    other: &Other,
    audio: &dyn TrackLocal,
    video: &dyn TrackLocal,
    ssrcs: (u32, u32),
    pts: (u8, u8),
    taken: &Taken,
) {
    let _ = other;
    let packet = |pt: u8, ssrc: u32, n: u32, ts: u32, payload: Vec<u8>| rtc::rtp::Packet {
        header: rtc::rtp::Header {
            version: 2,
            marker: true,
            payload_type: pt,
            sequence_number: 65_500u32.wrapping_add(n) as u16,
            timestamp: ts,
            ssrc,
            ..Default::default()
        },
        payload: payload.into(),
    };
    for n in 0..50u32 {
        // Descriptor "start of partition 0" in front of the frame.
        let mut payload = vec![0x10];
        payload.extend_from_slice(&vp8_frame(n, n == 0, 900).data);
        video.write_rtp(packet(pts.1, ssrcs.1, n, n * 3000, payload)).await.unwrap();
        audio.write_rtp(packet(pts.0, ssrcs.0, n, n * 960, opus_packet(n).data.to_vec())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let all = || taken.video.lock().unwrap().len() == 50 && taken.audio.lock().unwrap().len() == 50;
    wait_for("media", LIMIT, all).await;
    for (n, got) in taken.video.lock().unwrap().iter().enumerate() {
        assert_eq!(got.data, vp8_frame(n as u32, n == 0, 900).data);
    }
    for (n, got) in taken.audio.lock().unwrap().iter().enumerate() {
        assert_eq!(got.data, opus_packet(n as u32).data);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_against_the_recorded_answer() {
    let record = fixture("kms-subscribe-answer");
    let summary = Summary::parse(&record);
    let ssrcs = (summary.media[0].ssrcs[0], summary.media[1].ssrcs[0]);
    let mut other = Other::new(111, "VP8", 96).await;
    let audio = other.add_track(opus(), ssrcs.0).await;
    let video = other.add_track(video("VP8"), ssrcs.1).await;
    let taken = Taken::default();
    let (subscription, events) =
        Subscription::new(&config(), SubscribeMedia { audio: true, video: true }, taken.sinks()).await.unwrap();
    let offer = subscription.offer().await.unwrap();
    let living = other.answer(&offer).await;
    let candidate = tokio::time::timeout(LIMIT, other.candidates.recv()).await.unwrap().unwrap();
    let other = Arc::new(other);
    let log = pump(events, Arc::clone(&other));
    let answer = dressed_up(&record, &living, None);
    assert!(!answer.contains("a=msid:") && !answer.contains("rtx") && !answer.contains("transport-cc"));
    subscription.set_answer(&answer).await.unwrap();
    let (_hole, dead_port) = black_hole();
    for (line, mid, index) in kurento_candidates(&candidate, dead_port) {
        subscription.add_candidate(&line, Some(mid), Some(index)).await.unwrap();
    }
    wait_for("connecting", LIMIT, || has(&log, &PeerEvent::Connected) && other.connected()).await;
    feed(&other, audio.as_ref(), video.as_ref(), ssrcs, (111, 96), &taken).await;
    subscription.close().await;
}

/// Kurento repeats packets under their old numbers, for seconds: hundreds of them must come through behind newer ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_hundreds_of_packets_is_repaired() {
    let record = fixture("kms-subscribe-answer");
    let ssrc = Summary::parse(&record).media[1].ssrcs[0];
    let mut other = Other::new(111, "VP8", 96).await;
    other.add_track(opus(), Summary::parse(&record).media[0].ssrcs[0]).await;
    let track = other.add_track(video("VP8"), ssrc).await;
    let taken = Taken::default();
    let (subscription, events) =
        Subscription::new(&config(), SubscribeMedia { audio: true, video: true }, taken.sinks()).await.unwrap();
    let living = other.answer(&subscription.offer().await.unwrap()).await;
    let candidate = tokio::time::timeout(LIMIT, other.candidates.recv()).await.unwrap().unwrap();
    // The only way to the other side: what goes back comes by it, too.
    let out = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&out);
    let fields: Vec<&str> = candidate.split(' ').collect();
    let media = |datagram: &[u8]| datagram.first().is_some_and(|b| (128..=191).contains(b));
    let dropped = move |d: &[u8]| flag.load(std::sync::atomic::Ordering::Relaxed) && media(d);
    let address = relay(format!("{}:{}", fields[4], fields[5]).parse().unwrap(), dropped).await;
    let other = Arc::new(other);
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let mut events = events;
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            kept.lock().unwrap().push(event);
        }
    });
    subscription.set_answer(&dressed_up(&record, &living, None)).await.unwrap();
    let line = format!("candidate:1 1 UDP 2015364095 127.0.0.1 {} typ host", address.port());
    subscription.add_candidate(&line, Some("0".to_owned()), Some(0)).await.unwrap();
    wait_for("connecting", LIMIT, || has(&log, &PeerEvent::Connected) && other.connected()).await;
    const PACKETS: u32 = 700;
    for n in 0..PACKETS {
        out.store((100..500).contains(&n), std::sync::atomic::Ordering::Relaxed);
        let mut payload = vec![0x10];
        payload.extend_from_slice(&vp8_frame(n, n == 0, 300).data);
        let header = rtc::rtp::Header {
            version: 2,
            marker: true,
            payload_type: 96,
            sequence_number: 65_300u32.wrapping_add(n) as u16,
            timestamp: n * 300,
            ssrc,
            ..Default::default()
        };
        track.write_rtp(rtc::rtp::Packet { header, payload: payload.into() }).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    wait_for("the repair", LIMIT, || taken.video.lock().unwrap().len() == PACKETS as usize).await;
    for (n, got) in taken.video.lock().unwrap().iter().enumerate() {
        assert_eq!(got.data, vp8_frame(n as u32, n == 0, 300).data);
    }
    let stats = subscription.stats().video.unwrap();
    assert!(stats.packets_recovered >= 400 && stats.frames_dropped == 0, "{stats:?}");
    subscription.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_when_the_server_makes_the_offer() {
    let record = fixture("kms-subscribe-offer");
    assert!(record.contains("RTP/SAVPF 96 0 8"), "the record has payload types without a mapping");
    let summary = Summary::parse(&record);
    let ssrcs = (summary.media[0].ssrcs[0], summary.media[1].ssrcs[0]);
    let mut other = Other::new(96, "VP8", 104).await;
    let audio = other.add_track(opus(), ssrcs.0).await;
    let video = other.add_track(video("VP8"), ssrcs.1).await;
    let living = other.offer().await;
    let taken = Taken::default();
    let (subscription, events) =
        Subscription::new(&config(), SubscribeMedia { audio: true, video: true }, taken.sinks()).await.unwrap();
    let answer = subscription.answer(&dressed_up(&record, &living, None)).await.unwrap();
    let said = Summary::parse(&answer);
    assert_eq!(said.media.len(), 2);
    for (media, mid) in said.media.iter().zip(["audio0", "video0"]) {
        assert_eq!((media.mid.as_str(), media.direction), (mid, Direction::RecvOnly));
        assert!(media.fingerprint.is_some() && media.port != 0);
    }
    // The other stack numbers its m-lines itself.
    let answer = answer.replace("audio0", "0").replace("video0", "1");
    let candidate = tokio::time::timeout(LIMIT, other.candidates.recv()).await.unwrap().unwrap();
    other.set_answer(&answer).await;
    let (_hole, dead_port) = black_hole();
    for (line, mid, index) in kurento_candidates(&candidate, dead_port) {
        let mid = if mid == "0" { "audio0" } else { "video0" };
        subscription.add_candidate(&line, Some(mid.to_owned()), Some(index)).await.unwrap();
    }
    let other = Arc::new(other);
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let to = Arc::clone(&other);
    tokio::spawn(async move {
        let mut events = events;
        while let Some(event) = events.recv().await {
            if let PeerEvent::LocalCandidate { candidate, sdp_mid, .. } = &event {
                assert_eq!(sdp_mid.as_deref(), Some("audio0"));
                to.add_candidate(candidate).await;
            }
            kept.lock().unwrap().push(event);
        }
    });
    wait_for("connecting", LIMIT, || has(&log, &PeerEvent::Connected) && other.connected()).await;
    feed(&other, audio.as_ref(), video.as_ref(), ssrcs, (96, 104), &taken).await;
    subscription.close().await;
}

/// The server offers both kinds and only the picture is wanted: the other m-line is refused, and candidates name the one that is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_picture_of_a_servers_offer() {
    let taken = Taken::default();
    let wanted = SubscribeMedia { audio: false, video: true };
    let (subscription, mut events) = Subscription::new(&config(), wanted, taken.sinks()).await.unwrap();
    let answer = subscription.answer(&fixture("kms-subscribe-offer")).await.unwrap();
    let said = Summary::parse(&answer);
    assert_eq!((said.media[0].port, said.media[1].direction), (0, Direction::RecvOnly), "{answer}");
    assert!(said.media[1].port != 0 && said.media[1].ufrag.is_some() && said.media[1].fingerprint.is_some());
    let event = tokio::time::timeout(LIMIT, events.recv()).await.unwrap().unwrap();
    let PeerEvent::LocalCandidate { sdp_mid, sdp_mline_index, .. } = event else { panic!("{event:?}") };
    assert_eq!((sdp_mid.as_deref(), sdp_mline_index), (Some("video0"), Some(1)));
}

/// Kurento's checks arrive before its candidates: the pair is peer-reflexive, and must be taken at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connecting_without_waiting_for_candidates() {
    let other = Arc::new(Other::new(111, "VP8", 96).await);
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let (publication, events) = Publication::new(&config(), media).await.unwrap();
    let offer = publication.offer().await.unwrap();
    let living = other.answer(&offer).await;
    let log = pump(events, Arc::clone(&other));
    publication.set_answer(&dressed_up(&fixture("kms-publish-answer"), &living, None)).await.unwrap();
    wait_for("connecting", LIMIT, || has(&log, &PeerEvent::Connected)).await;
    let connect_ms = publication.stats().transport.connect_ms.unwrap();
    assert!(connect_ms < 700, "{connect_ms} ms: the stack's own wait for peer-reflexive pairs is a second");
}

/// What Kurento wants of an offer, measured against the recorded browser offers that it took.
#[tokio::test]
async fn our_offers_have_the_form_of_the_recorded_browser_offers() {
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let (publication, _events) = Publication::new(&config(), media).await.unwrap();
    let taken = Taken::default();
    let (subscription, _events) =
        Subscription::new(&config(), SubscribeMedia { audio: true, video: true }, taken.sinks()).await.unwrap();
    for (offer, record, direction) in [
        (publication.offer().await.unwrap(), "chromium-publish-offer", Direction::SendOnly),
        (subscription.offer().await.unwrap(), "chromium-subscribe-offer", Direction::RecvOnly),
    ] {
        println!("{offer}");
        assert!(offer.len() < 50 * 1024);
        let session = offer.split("m=").next().unwrap();
        for name in ["fingerprint", "setup", "ice-ufrag", "candidate"] {
            assert!(!session.contains(&format!("a={name}")), "{name} belongs on the m-lines");
        }
        assert!(session.contains("a=group:BUNDLE 0 1"));
        let (ours, theirs) = (Summary::parse(&offer), Summary::parse(&fixture(record)));
        assert_eq!(ours.media.len(), 2);
        for (ours, theirs) in ours.media.iter().zip(&theirs.media) {
            assert_eq!((ours.kind, &ours.mid, &ours.proto), (theirs.kind, &theirs.mid, &theirs.proto));
            assert_eq!((ours.direction, theirs.direction), (direction, direction));
            assert_eq!(ours.setup.as_deref(), Some("actpass"));
            assert!(ours.rtcp_mux && ours.fingerprint.is_some() && ours.ufrag.is_some() && ours.pwd.is_some());
            let send_time = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
            assert_eq!(ours.extension_id(send_time), theirs.extension_id(send_time));
        }
        let opus = ours.media[0].codec("opus").unwrap();
        assert_eq!((opus.payload_type, opus.fmtp.as_deref()), (111, Some("minptime=10;useinbandfec=1")));
        assert_eq!(ours.media[0].extension_id("urn:ietf:params:rtp-hdrext:ssrc-audio-level"), Some(1));
        let names: Vec<_> = ours.media[1].codecs.iter().map(|c| (c.payload_type, c.name.as_str())).collect();
        assert_eq!(names, [(96, "VP8"), (97, "rtx"), (102, "H264"), (103, "rtx")]);
        let h264 = ours.media[1].codec("H264").unwrap();
        assert_eq!(h264.fmtp_parameter("profile-level-id"), Some("42e01f"));
        assert_eq!(h264.fmtp_parameter("packetization-mode"), Some("1"));
        for codec in ours.media[1].codecs.iter().filter(|c| c.name != "rtx") {
            for (kind, parameter) in
                [("goog-remb", ""), ("transport-cc", ""), ("ccm", "fir"), ("nack", ""), ("nack", "pli")]
            {
                assert!(codec.has_feedback(kind, parameter), "{} {kind} {parameter}", codec.name);
            }
        }
    }
}
