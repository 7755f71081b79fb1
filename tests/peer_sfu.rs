//! Our handles through the host's forwarder: publish, subscribe in both negotiation modes, join late, lose packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use peer_support::{Taken, config, h264_frame, opus_packet, vp8_frame, wait_for};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tertulia::host::sfu::{self, Impairment, LegId, Negotiated, PublishSpec, Sfu, SfuConfig};
use tertulia::peer::{MediaKind, PeerEvent, Publication, PublishMedia, SubscribeMedia, Subscription};
use tertulia::rtp::frame::{EncodedFrame, VideoCodec};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(10);
type Log = Arc<Mutex<Vec<PeerEvent>>>;

fn has(log: &Log, which: impl Fn(&PeerEvent) -> bool) -> bool {
    log.lock().unwrap().iter().any(which)
}

/// Our candidates go to the forwarder, all events are kept.
fn pump(sfu: &Sfu, leg: LegId, mut events: mpsc::Receiver<PeerEvent>) -> Log {
    let log = Log::default();
    let (kept, sfu) = (Arc::clone(&log), sfu.clone());
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let PeerEvent::LocalCandidate { candidate, .. } = &event {
                sfu.add_candidate(leg, candidate).await.unwrap();
            }
            kept.lock().unwrap().push(event);
        }
    });
    log
}

async fn publish(sfu: &Sfu, leg: LegId, codec: VideoCodec) -> (Arc<Publication>, Log) {
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let (publication, events) = Publication::new(&config(), media).await.unwrap();
    let spec = PublishSpec {
        stream_id: "str_1".to_owned(),
        session: "room".to_owned(),
        audio: true,
        video: true,
        loopback: false,
        forced_video: Some(codec),
        size: None,
    };
    let Negotiated { sdp, candidates, .. } = sfu.publish(leg, spec, &publication.offer().await.unwrap()).await.unwrap();
    let log = pump(sfu, leg, events);
    publication.set_answer(&sdp).await.unwrap();
    for c in candidates {
        publication.add_candidate(&c.candidate, Some(c.sdp_mid), Some(c.sdp_mline_index)).await.unwrap();
    }
    assert_eq!(publication.video_codec(), Some(codec));
    wait_for("the publisher's connection", LIMIT, || has(&log, |e| *e == PeerEvent::Connected)).await;
    (Arc::new(publication), log)
}

async fn subscribe(sfu: &Sfu, leg: LegId, server_offers: bool, taken: &Taken) -> (Subscription, Log) {
    let wanted = SubscribeMedia { audio: true, video: true };
    let (subscription, events) = Subscription::new(&config(), wanted, taken.sinks()).await.unwrap();
    let (log, candidates);
    if server_offers {
        let negotiated = sfu.prepare_subscribe(leg, "str_1").await.unwrap();
        let answer = subscription.answer(&negotiated.sdp).await.unwrap();
        sfu.set_answer(leg, &answer).await.unwrap();
        log = pump(sfu, leg, events);
        candidates = negotiated.candidates;
    } else {
        let negotiated = sfu.subscribe(leg, "str_1", &subscription.offer().await.unwrap()).await.unwrap();
        log = pump(sfu, leg, events);
        subscription.set_answer(&negotiated.sdp).await.unwrap();
        candidates = negotiated.candidates;
    }
    for c in candidates {
        subscription.add_candidate(&c.candidate, Some(c.sdp_mid), Some(c.sdp_mline_index)).await.unwrap();
    }
    wait_for("the subscriber's connection", LIMIT, || has(&log, |e| *e == PeerEvent::Connected)).await;
    (subscription, log)
}

/// A source that runs until it is dropped and makes a key frame when asked, like an encoder thread.
struct Source {
    sent: Arc<Mutex<Vec<EncodedFrame>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn run(publication: &Arc<Publication>, log: &Log, codec: VideoCodec) -> Source {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (kept, publication, log) = (Arc::clone(&sent), Arc::clone(publication), Arc::clone(log));
    let task = tokio::spawn(async move {
        let mut asked = 0;
        for n in 0..u32::MAX {
            let now = log.lock().unwrap().iter().filter(|e| **e == PeerEvent::KeyFrameRequested).count();
            let key = n == 0 || now > asked;
            asked = now;
            let frame = match codec {
                VideoCodec::Vp8 => vp8_frame(n, key, if key { 12_000 } else { 2_500 }),
                VideoCodec::H264 => h264_frame(n, key, if key { 12_000 } else { 2_500 }),
            };
            publication.send_video(frame.clone());
            publication.send_audio(opus_packet(n));
            kept.lock().unwrap().push(frame);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    Source { sent, task }
}

/// Everything that arrived is byte for byte what was sent, without a gap, from a key frame on.
fn check_content(taken: &Taken, source: &Source) -> usize {
    let (got, sent) = (taken.video.lock().unwrap(), source.sent.lock().unwrap());
    assert!(got[0].key_frame);
    let first = sent.iter().position(|frame| frame.data == got[0].data).expect("the first frame was sent");
    for (got, sent) in got.iter().zip(&sent[first..]) {
        assert!(got.data == sent.data, "frame {}", sent.rtp_timestamp / 3000);
    }
    got.len()
}

async fn through_the_forwarder(codec: VideoCodec) {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let (publication, pub_log) = publish(&sfu, LegId(1), codec).await;
    let source = run(&publication, &pub_log, codec);
    let first = Taken::default();
    let (_early, early_log) = subscribe(&sfu, LegId(2), false, &first).await;
    wait_for("video at the first", LIMIT, || first.video.lock().unwrap().len() >= 25).await;
    // A late joiner: the forwarder asks for a key frame, the encoder makes one, both pictures go on.
    let second = Taken::default();
    let (late, late_log) = subscribe(&sfu, LegId(3), true, &second).await;
    wait_for("video at the second", LIMIT, || second.video.lock().unwrap().len() >= 50).await;
    check_content(&first, &source);
    check_content(&second, &source);
    assert!(second.audio.lock().unwrap().len() > 40);
    for kind in [MediaKind::Audio, MediaKind::Video] {
        for log in [&early_log, &late_log] {
            assert!(has(log, |e| matches!(e, PeerEvent::FirstPacket { kind: k } if *k == kind)));
            let report = |e: &PeerEvent| matches!(e, PeerEvent::SenderReport { kind: k, .. } if *k == kind);
            wait_for("a sender report", LIMIT, || has(log, report)).await;
        }
    }
    assert!(!has(&late_log, |e| matches!(e, PeerEvent::NoKeyFrame | PeerEvent::Stalled { .. })));
    wait_for("a report about us", LIMIT, || has(&pub_log, |e| matches!(e, PeerEvent::LossReport { .. }))).await;
    // The decoder lost its references: a key frame comes.
    let keys = || second.video.lock().unwrap().iter().filter(|f| f.key_frame).count();
    let before = keys();
    late.request_key_frame();
    wait_for("the key frame asked for", LIMIT, || keys() > before).await;
    assert!(late.stats().transport.rtt_ms.is_some());
    // The source stops: silence is told.
    drop(source);
    wait_for("the stall", LIMIT, || has(&late_log, |e| matches!(e, PeerEvent::Stalled { .. }))).await;
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vp8_through_the_forwarder() {
    through_the_forwarder(VideoCodec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h264_through_the_forwarder() {
    through_the_forwarder(VideoCodec::H264).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loss_on_both_sides_of_the_forwarder_is_repaired() {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let (publication, pub_log) = publish(&sfu, LegId(1), VideoCodec::Vp8).await;
    let taken = Taken::default();
    let (subscription, _log) = subscribe(&sfu, LegId(2), false, &taken).await;
    let loss = Impairment { loss_in: 0.05, loss_out: 0.05, seed: 7 };
    sfu.set_impairment(None, Some(loss)).await.unwrap();
    let source = run(&publication, &pub_log, VideoCodec::Vp8);
    tokio::time::sleep(Duration::from_secs(6)).await;
    let stats = subscription.stats().video.unwrap();
    let (got, sent) = (taken.video.lock().unwrap().len(), source.sent.lock().unwrap().len());
    println!("{got} of {sent}; {stats:?}; sent {:?}", publication.stats().video);
    assert!(stats.packets_recovered > 5, "{stats:?}");
    assert!(got * 100 >= sent * 90, "{got} of {sent} frames");
    sfu.shutdown().await.unwrap();
}
