//! Forged checks, garbage, floods, and an address that changes in the middle of a call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sfu_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sfu_support::{Publisher, subscriber, unbroken, wait_for};
use tertulia::host::sfu::{self, LegId, SfuConfig};
use tokio::net::UdpSocket;

fn config() -> SfuConfig {
    SfuConfig::new("127.0.0.1:0".parse().unwrap())
}

/// A binding request as ICE sends it, with a MESSAGE-INTEGRITY that is not authentic.
fn forged_check(ufrag: &str, salt: u8) -> Vec<u8> {
    let mut data = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    data.extend([salt; 12]);
    let mut attribute = |kind: u16, value: &[u8]| {
        data.extend(kind.to_be_bytes());
        data.extend((value.len() as u16).to_be_bytes());
        data.extend_from_slice(value);
        while data.len() % 4 != 0 {
            data.push(0);
        }
    };
    attribute(0x0006, format!("{ufrag}:them").as_bytes());
    attribute(0x0025, &[]);
    attribute(0x802a, &[salt; 8]);
    attribute(0x0024, &[0x6e, 0, 1, 0xff]);
    attribute(0x0008, &[salt; 20]);
    let length = (data.len() - 20) as u16;
    data[2..4].copy_from_slice(&length.to_be_bytes());
    data
}

fn ufrag_of(sdp: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_checks_get_no_answer_and_bind_no_address() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let offer = include_str!("fixtures/sdp/chromium-publish-offer.sdp");
    let answer = sfu.publish(LegId(5), sfu_support::spec("other"), offer).await.unwrap();
    let ufrag = ufrag_of(&answer.sdp);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let before = sfu.stats().await.unwrap();
    for salt in 0..100 {
        socket.send_to(&forged_check(&ufrag, salt), sfu.udp_addr()).await.unwrap();
    }
    let mut buffer = [0; 2048];
    let reply = tokio::time::timeout(Duration::from_millis(500), socket.recv_from(&mut buffer)).await;
    assert!(reply.is_err(), "no byte goes back to a forger");
    let after = sfu.stats().await.unwrap();
    assert_eq!(after.rejected - before.rejected, 100);
    // The address is still nobody's.
    socket.send_to(&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9], sfu.udp_addr()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(sfu.stats().await.unwrap().unknown_source - after.unknown_source, 1);
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_survives_garbage_and_a_flood_from_strangers() {
    let (sfu, _events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let mut leg = subscriber(&sfu, 2, "one", 96).await;
    leg.connected(Duration::from_secs(10)).await.expect("connects");
    let target = sfu.udp_addr();
    let flood = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = 1u32;
        let mut data = [0u8; 400];
        for round in 0..30_000u32 {
            for byte in &mut data {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (random >> 24) as u8;
            }
            data[0] = [0, 22, 0x80, 0x90, 255, 64][round as usize % 6];
            if data[0] == 0 {
                // A well-formed head with nobody's user name.
                data[..8].copy_from_slice(&[0, 1, 1, 0x7c, 0x21, 0x12, 0xa4, 0x42]);
            }
            let length = 1 + (random as usize % 400);
            let _ = socket.send_to(&data[..length.min(400)], target);
            if round % 50 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
        }
    });
    publisher.send(150, 0, 100, 10_000).await;
    flood.join().unwrap();
    assert!(wait_for(Duration::from_secs(5), || leg.got("video").len() >= 450).await, "{}", leg.got("video").len());
    assert_eq!(unbroken(&leg.got("video")), (0..450).collect::<Vec<_>>());
    let stats = sfu.stats().await.unwrap();
    assert!(stats.unknown_source > 20_000, "{}", stats.unknown_source);
    assert!(stats.legs.iter().all(|leg| leg.connected));
    sfu.shutdown().await.unwrap();
}

/// A NAT: datagrams of the client leave from a socket that can be exchanged.
struct Nat {
    inside: SocketAddr,
    outside: Arc<AtomicUsize>,
}

impl Nat {
    async fn start(server: SocketAddr) -> Self {
        let inner = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let inside = inner.local_addr().unwrap();
        let outside = Arc::new(AtomicUsize::new(0));
        let sockets = [
            Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
            Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap()),
        ];
        let client = Arc::new(std::sync::Mutex::new(None::<SocketAddr>));
        for (index, socket) in sockets.iter().enumerate() {
            let (socket, inner, client, outside) = (socket.clone(), inner.clone(), client.clone(), outside.clone());
            tokio::spawn(async move {
                let mut buffer = [0; 2048];
                while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
                    let to = *client.lock().unwrap();
                    // What still comes to the old mapping is lost.
                    if let (Some(to), true) = (to, outside.load(Ordering::Relaxed) == index) {
                        let _ = inner.send_to(&buffer[..length], to).await;
                    }
                }
            });
        }
        let mapping = outside.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = inner.recv_from(&mut buffer).await {
                *client.lock().unwrap() = Some(from);
                let socket = &sockets[mapping.load(Ordering::Relaxed)];
                let _ = socket.send_to(&buffer[..length], server).await;
            }
        });
        Self { inside, outside }
    }

    fn remap(&self) {
        self.outside.store(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_whose_address_changes_goes_on_receiving() {
    let (sfu, mut events) = sfu::start(config()).unwrap();
    let publisher = Publisher::publish(&sfu, 1, "one").await;
    let nat = Nat::start(sfu.udp_addr()).await;
    let mut leg = sfu_support::subscriber_by(&sfu, 2, "one", 96, nat.inside).await;
    leg.connected(Duration::from_secs(10)).await.expect("connects");
    publisher.send(100, 0, 100, 10_000).await;
    assert!(wait_for(Duration::from_secs(3), || leg.got("video").len() >= 300).await);
    nat.remap();
    publisher.send(400, 300, 400, 10_000).await;
    let all = wait_for(Duration::from_secs(5), || leg.got("video").len() >= 1_500).await;
    let stats = sfu.stats().await.unwrap();
    assert!(all, "{} of 1500 after the move: {stats:?}", leg.got("video").len());
    assert_eq!(unbroken(&leg.got("video")), (0..1_500).collect::<Vec<_>>());
    assert_eq!(stats.rebinds, 1);
    assert!(stats.legs.iter().all(|leg| leg.connected));
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, sfu::SfuEvent::LegDisconnected { .. } | sfu::SfuEvent::LegFailed { .. }), "{event:?}");
    }
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_fingerprint_fails_at_once_and_says_so() {
    let (sfu, mut events) = sfu::start(config()).unwrap();
    let _publisher = Publisher::publish(&sfu, 1, "one").await;
    let _client = sfu_support::subscriber_with(&sfu, 2, "one", 96, |offer| {
        let mut lines: Vec<String> = offer.lines().map(str::to_owned).collect();
        for line in &mut lines {
            if let Some(value) = line.strip_prefix("a=fingerprint:sha-256 ") {
                let first = if value.starts_with('0') { "1" } else { "0" };
                *line = format!("a=fingerprint:sha-256 {first}{}", &value[1..]);
            }
        }
        lines.join("\r\n") + "\r\n"
    })
    .await;
    let failed = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            match events.recv().await.unwrap() {
                sfu::SfuEvent::LegFailed { leg, reason } => return (leg, reason),
                sfu::SfuEvent::LegConnected { leg, .. } => assert_eq!(leg, LegId(1)),
                _ => {}
            }
        }
    })
    .await
    .expect("told within 5 s");
    assert_eq!(failed.0, LegId(2));
    assert!(failed.1.contains("certificate"), "{}", failed.1);
    sfu.shutdown().await.unwrap();
}
