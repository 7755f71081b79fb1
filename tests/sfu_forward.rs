//! The forwarder between real WebRTC clients on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sfu_support;

use std::time::Duration;

use sfu_support::{Publisher, answering_subscriber, spec, subscriber, unbroken, wait_for};
use tertulia::host::sfu::{self, Impairment, LegId, SfuConfig, SfuError, SfuEvent};

fn config() -> SfuConfig {
    SfuConfig::new("127.0.0.1:0".parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_publisher_reaches_three_subscribers_in_order_and_without_a_hole() {
    let (sfu, mut events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    // Another payload type than the publisher's, and one leg that answers our offer.
    let mut legs = vec![
        subscriber(&sfu, 2, "one", 96).await,
        subscriber(&sfu, 3, "one", 120).await,
        answering_subscriber(&sfu, 4, "one").await,
    ];
    for leg in &mut legs {
        let took = leg.connected(Duration::from_secs(10)).await.expect("connects");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    publisher.send(200, 0, 65_300, 10_000).await;
    for (leg, pt) in legs.iter().zip([96, 120, 96]) {
        assert!(wait_for(Duration::from_secs(5), || leg.got("video").len() >= 600).await, "{}", leg.got("video").len());
        let video = leg.got("video");
        let audio = leg.got("audio");
        assert_eq!(unbroken(&video), (0..600).collect::<Vec<_>>());
        assert_eq!(unbroken(&audio), (0..200).collect::<Vec<_>>());
        assert!(video.iter().all(|packet| packet.payload_type == pt));
        assert_ne!(video[0].ssrc, audio[0].ssrc);
        for pair in video.windows(2) {
            assert_eq!(pair[1].timestamp.wrapping_sub(pair[0].timestamp) % 900, 0);
        }
        assert_eq!(video.iter().filter(|packet| packet.marker).count(), 200);
    }
    let stats = sfu.stats().await.unwrap();
    assert_eq!(stats.rtp_in, 800);
    assert_eq!(stats.rtp_forwarded, 2_400);
    assert_eq!(stats.nacks_sent, 0);
    assert_eq!(stats.streams.len(), 1);
    assert_eq!(stats.streams[0].subscribers, 3);
    assert!(stats.legs.iter().all(|leg| leg.connected));
    let mut started = false;
    let mut connected = 0;
    while let Ok(event) = events.try_recv() {
        match event {
            SfuEvent::StreamStarted { stream_id, .. } => started = stream_id == "one",
            SfuEvent::LegConnected { .. } => connected += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(started);
    assert_eq!(connected, 4);
    // Sender reports came through: the subscribers' reports give a round-trip time.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let stats = sfu.stats().await.unwrap();
    assert!(stats.legs.iter().filter(|leg| !leg.publisher).all(|leg| leg.rtt_ms.is_some()), "{:?}", stats.legs);
    for leg in 1..=4 {
        sfu.close(LegId(leg)).await.unwrap();
    }
    let stats = sfu.stats().await.unwrap();
    assert!(stats.legs.is_empty() && stats.streams.is_empty());
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_comes_back_on_a_new_transport_and_subscribers_notice_nothing() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut leg = subscriber(&sfu, 2, "one", 96).await;
    leg.connected(Duration::from_secs(10)).await.expect("connects");
    publisher.send(100, 0, 4_000, 10_000).await;
    assert!(wait_for(Duration::from_secs(5), || leg.got("video").len() >= 300).await);
    let again = Publisher::reconnect(&sfu, 3, "one").await;
    again.send(100, 1_000, 31_000, 10_000).await;
    assert!(wait_for(Duration::from_secs(5), || leg.got("video").len() >= 600).await, "{}", leg.got("video").len());
    let video = leg.got("video");
    let expected: Vec<u32> = (0..300).chain(1_000..1_300).collect();
    assert_eq!(unbroken(&video), expected);
    let audio: Vec<u32> = (0..100).chain(1_000..1_100).collect();
    assert_eq!(unbroken(&leg.got("audio")), audio);
    for pair in video.windows(2) {
        let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp);
        assert!(step < 90_000 * 10, "timestamps go on: {step}");
        let picture = pair[1].picture.unwrap().wrapping_sub(pair[0].picture.unwrap()) & 0x7fff;
        assert!(picture <= 1, "picture ids go on: {picture}");
    }
    assert!(matches!(sfu.close(LegId(1)).await, Err(SfuError::UnknownLeg(_))), "the old leg is gone");
    assert_eq!(sfu.stats().await.unwrap().streams.len(), 1);
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_subscriber_costs_the_publisher_nothing() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut good = subscriber(&sfu, 2, "one", 96).await;
    let mut lossy = subscriber(&sfu, 3, "one", 96).await;
    good.connected(Duration::from_secs(10)).await.expect("connects");
    lossy.connected(Duration::from_secs(10)).await.expect("connects");
    // Their key frame requests of the start are behind us before the loss begins.
    publisher.send(30, 0, 100, 10_000).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    let before = sfu.stats().await.unwrap();
    let loss = Impairment { loss_in: 0.05, loss_out: 0.05, seed: 7 };
    sfu.set_impairment(Some(LegId(3)), Some(loss)).await.unwrap();
    publisher.send(500, 90, 190, 10_000).await;
    // That the very last ones are missing shows by the next one only, which never comes.
    let complete = wait_for(Duration::from_secs(5), || lossy.got("video").len() >= 1_587).await;
    // And the last picture is on its way to the other one still.
    assert!(wait_for(Duration::from_secs(5), || good.got("video").len() >= 1_590).await);
    let after = sfu.stats().await.unwrap();
    assert!(complete, "{} of 1590 after repair", lossy.got("video").len());
    let mut repaired = lossy.got("video");
    let first = repaired[0].sequence;
    repaired.retain(|packet| packet.sequence.wrapping_sub(first) < 1_580);
    assert_eq!(unbroken(&repaired).len(), 1_580);
    assert_eq!(unbroken(&good.got("video")).len(), 1_590);
    assert!(after.impaired > 40, "{}", after.impaired);
    assert!(after.nacks_answered - before.nacks_answered > 40, "{}", after.nacks_answered);
    assert_eq!(after.nacks_sent, before.nacks_sent, "the publisher was asked for nothing");
    assert_eq!(after.plis_sent, before.plis_sent, "no key frame was asked for");
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_is_sent_twice_to_a_leg_that_loses_much_and_to_nobody_else() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut good = subscriber(&sfu, 2, "one", 96).await;
    let mut lossy = subscriber(&sfu, 3, "one", 96).await;
    good.connected(Duration::from_secs(10)).await.expect("connects");
    lossy.connected(Duration::from_secs(10)).await.expect("connects");
    publisher.send(30, 0, 100, 10_000).await;
    assert_eq!(sfu.stats().await.unwrap().copies_sent, 0);
    let loss = Impairment { loss_in: 0.15, loss_out: 0.15, seed: 11 };
    sfu.set_impairment(Some(LegId(3)), Some(loss)).await.unwrap();
    publisher.send(600, 90, 190, 10_000).await;
    let complete = wait_for(Duration::from_secs(5), || lossy.got("audio").len() >= 628).await;
    let stats = sfu.stats().await.unwrap();
    assert!(stats.copies_sent > 300, "{}", stats.copies_sent);
    assert!(stats.copies_sent < 640, "to one leg only: {}", stats.copies_sent);
    assert!(complete, "{} of 630", lossy.got("audio").len());
    // Whatever came twice was handed on once, in its place. That the last one is lost nobody can see.
    let mut all = lossy.got("audio");
    let first = all[0].sequence;
    all.retain(|packet| packet.sequence.wrapping_sub(first) < 620);
    assert_eq!(unbroken(&all).len(), 620);
    assert!(wait_for(Duration::from_secs(5), || good.got("audio").len() >= 630).await);
    assert_eq!(unbroken(&good.got("audio")).len(), 630);
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_who_come_soon_after_a_key_frame_start_with_it_and_cost_no_other() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut first = subscriber(&sfu, 2, "one", 96).await;
    first.connected(Duration::from_secs(10)).await.expect("connects");
    publisher.send(10, 0, 100, 10_000).await;
    assert!(wait_for(Duration::from_secs(5), || first.got("video").len() >= 30).await);
    let before = sfu.stats().await.unwrap().plis_sent;
    let mut late = subscriber(&sfu, 3, "one", 96).await;
    late.connected(Duration::from_secs(10)).await.expect("connects");
    assert!(wait_for(Duration::from_secs(5), || late.got("video").len() >= 30).await, "{}", late.got("video").len());
    publisher.send(10, 30, 130, 10_000).await;
    assert!(wait_for(Duration::from_secs(5), || late.got("video").len() >= 60).await, "{}", late.got("video").len());
    assert_eq!(unbroken(&late.got("video")), (0..60).collect::<Vec<_>>());
    assert_eq!(sfu.stats().await.unwrap().plis_sent, before, "nothing was asked of the publisher");
    // Much later the cache is no help: a new key frame is.
    tokio::time::sleep(Duration::from_millis(700)).await;
    let mut later = subscriber(&sfu, 4, "one", 96).await;
    later.connected(Duration::from_secs(10)).await.expect("connects");
    let asked = async || sfu.stats().await.unwrap().plis_sent > before;
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while !asked().await && tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked().await, "a key frame is asked for");
    assert!(later.got("video").is_empty());
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lossy_publisher_is_repaired_for_everybody() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut leg = subscriber(&sfu, 2, "one", 96).await;
    leg.connected(Duration::from_secs(10)).await.expect("connects");
    publisher.send(30, 0, 100, 10_000).await;
    let loss = Impairment { loss_in: 0.05, loss_out: 0.05, seed: 11 };
    sfu.set_impairment(Some(LegId(1)), Some(loss)).await.unwrap();
    publisher.send(400, 90, 190, 10_000).await;
    sfu.set_impairment(Some(LegId(1)), None).await.unwrap();
    publisher.send(20, 1_290, 1_390, 10_000).await;
    let complete = wait_for(Duration::from_secs(5), || leg.got("video").len() >= 1_350).await;
    assert!(complete, "{} of 1350", leg.got("video").len());
    assert_eq!(unbroken(&leg.got("video")), (0..1_350).collect::<Vec<_>>());
    let stats = sfu.stats().await.unwrap();
    assert!(stats.nacks_sent > 30, "{}", stats.nacks_sent);
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_commands_are_refused_and_nothing_leaks() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let offer = include_str!("fixtures/sdp/chromium-publish-offer.sdp");
    let watch = include_str!("fixtures/sdp/chromium-subscribe-offer.sdp");
    assert!(matches!(sfu.subscribe(LegId(9), "none", watch).await, Err(SfuError::UnknownStream)));
    assert!(matches!(sfu.publish(LegId(1), spec("a"), "v=0\r\n").await, Err(SfuError::InvalidSdp(_))));
    assert!(matches!(sfu.publish(LegId(1), spec("a"), &"x".repeat(100_000)).await, Err(SfuError::Limit(_))));
    sfu.publish(LegId(1), spec("a"), offer).await.unwrap();
    assert!(matches!(sfu.publish(LegId(1), spec("b"), offer).await, Err(SfuError::Duplicate("leg"))));
    assert!(matches!(sfu.publish(LegId(2), spec("a"), offer).await, Err(SfuError::Duplicate(_))));
    let no_vp8 = watch.replace("VP8/90000", "VP7/90000");
    assert!(matches!(sfu.subscribe(LegId(3), "a", &no_vp8).await, Err(SfuError::NoCommonCodec { wanted: "VP8" })));
    sfu.subscribe(LegId(3), "a", watch).await.unwrap();
    assert!(matches!(sfu.set_answer(LegId(3), watch).await, Err(SfuError::UnexpectedAnswer)));
    assert!(matches!(sfu.add_candidate(LegId(77), "").await, Err(SfuError::UnknownLeg(_))));
    assert!(matches!(sfu.add_candidate(LegId(3), "candidate:x y").await, Err(SfuError::InvalidCandidate)));
    for harmless in [
        "",
        "candidate:1 2 udp 2015363327 127.0.0.1 9 typ host",
        "candidate:1 1 tcp 2015363327 127.0.0.1 9 typ host tcptype active",
        "candidate:1 1 udp 2015363327 abc.local 9000 typ host",
        "candidate:842163049 1 udp 1677729535 203.0.113.7 46154 typ srflx raddr 10.0.0.5 rport 46154 generation 0 ufrag EEtu network-cost 999",
    ] {
        sfu.add_candidate(LegId(3), harmless).await.unwrap();
    }
    sfu.close(LegId(1)).await.unwrap();
    assert!(matches!(sfu.subscribe(LegId(4), "a", watch).await, Err(SfuError::UnknownStream)));
    let stats = sfu.stats().await.unwrap();
    assert_eq!((stats.legs.len(), stats.streams.len()), (1, 0));
    sfu.shutdown().await.unwrap();
    assert!(matches!(sfu.stats().await, Err(SfuError::Closed | SfuError::TimedOut)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leg_that_never_connects_is_given_up_and_its_stream_can_still_be_ended() {
    let (sfu, mut events) = sfu::start(config()).unwrap();
    let offer = include_str!("fixtures/sdp/chromium-publish-offer.sdp");
    sfu.publish(LegId(1), spec("a"), offer).await.unwrap();
    let event = tokio::time::timeout(Duration::from_secs(17), events.recv()).await;
    let Ok(Some(SfuEvent::LegFailed { leg, reason })) = event else {
        panic!("{event:?}");
    };
    assert_eq!(leg, LegId(1));
    assert!(reason.contains("15 s"), "{reason}");
    let stats = sfu.stats().await.unwrap();
    assert_eq!((stats.legs.len(), stats.streams.len()), (0, 1), "the publisher may still reconnect");
    sfu.close(LegId(1)).await.unwrap();
    assert!(sfu.stats().await.unwrap().streams.is_empty());
    assert!(matches!(sfu.close(LegId(1)).await, Err(SfuError::UnknownLeg(_))));
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_asks_for_loopback_gets_its_own_media_back() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish_loopback(&sfu, 1, "one").await;
    publisher.send(100, 0, 500, 10_000).await;
    let got = || publisher.client.got("video").len();
    assert!(wait_for(Duration::from_secs(5), || got() >= 300).await, "{}", got());
    assert_eq!(unbroken(&publisher.client.got("video")), (0..300).collect::<Vec<_>>());
    assert_eq!(unbroken(&publisher.client.got("audio")), (0..100).collect::<Vec<_>>());
    sfu.shutdown().await.unwrap();
}
