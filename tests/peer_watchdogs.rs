//! Connections that cannot work have to say so by themselves: the stack below never does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use peer_support::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tertulia::peer::{
    ConnectionState, PeerError, PeerEvent, Publication, PublishMedia, RebuildReason, SubscribeMedia, Subscription,
};
use tokio::sync::mpsc;

fn media() -> PublishMedia {
    PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false }
}

async fn next_of(
    events: &mut mpsc::Receiver<PeerEvent>,
    limit: Duration,
    wanted: impl Fn(&PeerEvent) -> bool,
) -> PeerEvent {
    tokio::time::timeout(limit, async {
        loop {
            let event = events.recv().await.expect("events end");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
    .expect("the event did not come in time")
}

/// A publication whose only path to the other side leads over a relay.
async fn over_relay(drop: impl Fn(&[u8]) -> bool + Send + 'static) -> (Publication, mpsc::Receiver<PeerEvent>, Other) {
    let mut other = Other::new(111, "VP8", 96).await;
    let (publication, events) = Publication::new(&config(), media()).await.unwrap();
    let answer = other.answer(&publication.offer().await.unwrap()).await;
    let candidate = other.candidates.recv().await.unwrap();
    let fields: Vec<&str> = candidate.split(' ').collect();
    let address = relay(format!("{}:{}", fields[4], fields[5]).parse().unwrap(), drop).await;
    publication.set_answer(&answer).await.unwrap();
    let line = format!("candidate:1 1 udp 2015364095 127.0.0.1 {} typ host", address.port());
    publication.add_candidate(&line, Some("0".to_owned()), Some(0)).await.unwrap();
    (publication, events, other)
}

/// First byte of a DTLS record, RFC 7983.
fn is_dtls(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|b| (20..=63).contains(b))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_handshake_is_given_up_after_three_seconds() {
    let started = Instant::now();
    let (publication, mut events, _other) = over_relay(is_dtls).await;
    let event = next_of(&mut events, Duration::from_secs(5), |e| {
        matches!(e, PeerEvent::NeedsRebuild { .. } | PeerEvent::Connected)
    })
    .await;
    assert_eq!(event, PeerEvent::NeedsRebuild { why: RebuildReason::HandshakeStuck });
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(publication.stats().transport.state, ConnectionState::Failed);
    // What is sent now is counted, not queued.
    publication.send_video(vp8_frame(0, true, 1000));
    assert_eq!(publication.stats().video.unwrap().frames_dropped, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fingerprint_is_refused_within_five_seconds() {
    let mut other = Other::new(111, "VP8", 96).await;
    let (publication, mut events) = Publication::new(&config(), media()).await.unwrap();
    let answer = other.answer(&publication.offer().await.unwrap()).await;
    let fingerprint = attribute(&answer, "fingerprint");
    let wrong: String = fingerprint.chars().map(|c| if c == 'A' { 'B' } else { c }).collect();
    let wrong = if wrong == fingerprint { fingerprint.replace('1', "2") } else { wrong };
    publication.set_answer(&answer.replace(&fingerprint, &wrong)).await.unwrap();
    let candidate = other.candidates.recv().await.unwrap();
    publication.add_candidate(&candidate, Some("0".to_owned()), Some(0)).await.unwrap();
    let event = next_of(&mut events, Duration::from_secs(5), |e| {
        matches!(e, PeerEvent::NeedsRebuild { .. } | PeerEvent::Connected)
    })
    .await;
    assert!(matches!(event, PeerEvent::NeedsRebuild { .. }), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_that_dies_is_told_and_given_up() {
    let dead = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dead);
    let (publication, mut events, _other) = over_relay(move |_| flag.load(Ordering::Relaxed)).await;
    next_of(&mut events, Duration::from_secs(5), |e| *e == PeerEvent::Connected).await;
    dead.store(true, Ordering::Relaxed);
    let cut = Instant::now();
    next_of(&mut events, Duration::from_secs(6), |e| *e == PeerEvent::Disconnected).await;
    assert_eq!(publication.stats().transport.state, ConnectionState::Disconnected);
    let event = next_of(&mut events, Duration::from_secs(8), |e| matches!(e, PeerEvent::NeedsRebuild { .. })).await;
    assert_eq!(event, PeerEvent::NeedsRebuild { why: RebuildReason::Disconnected });
    assert!(cut.elapsed() < Duration::from_secs(9), "{:?}", cut.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn misuse_and_nonsense_give_errors_and_closing_is_fast() {
    let none = PublishMedia { audio: false, video: None, stereo: false };
    assert_eq!(Publication::new(&config(), none).await.err(), Some(PeerError::NoMedia));
    let taken = Taken::default();
    let nothing = SubscribeMedia { audio: false, video: false };
    assert_eq!(Subscription::new(&config(), nothing, taken.sinks()).await.err(), Some(PeerError::NoMedia));

    let (publication, mut events) = Publication::new(&config(), media()).await.unwrap();
    assert!(publication.set_answer("v=0\r\n").await.is_err());
    publication.offer().await.unwrap();
    assert!(matches!(
        publication.set_answer("what is this?").await,
        Err(PeerError::NoCommonCodec(_) | PeerError::BadDescription(_))
    ));
    assert_eq!(publication.add_candidate("nonsense", None, None).await, Err(PeerError::BadCandidate));
    assert_eq!(publication.add_candidate("", None, None).await, Ok(()));
    let started = Instant::now();
    publication.close().await;
    publication.close().await;
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!(publication.offer().await, Err(PeerError::Closed));
    assert_eq!(publication.stats().transport.state, ConnectionState::Closed);
    drop(publication);
    tokio::time::timeout(Duration::from_secs(2), async { while events.recv().await.is_some() {} })
        .await
        .expect("events end");

    let (subscription, mut events) =
        Subscription::new(&config(), SubscribeMedia { audio: true, video: true }, taken.sinks()).await.unwrap();
    assert!(matches!(subscription.answer("m=video").await, Err(PeerError::BadDescription(_))));
    drop(subscription);
    tokio::time::timeout(Duration::from_secs(2), async { while events.recv().await.is_some() {} })
        .await
        .expect("Drop ends all");
}
