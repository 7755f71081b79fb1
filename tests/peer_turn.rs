//! Media over a real TURN server (coturn) with the long-term credentials that a server hands out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use hmac::{Hmac, Mac};
use peer_support::{Pair, Taken, config, connected, opus_packet, pair, vp8_frame, wait_for};
use sha1::Sha1;
use tertulia::peer::{IceServer, PublicationStats, PublishMedia, TransportConfig};

struct Coturn {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Coturn {
    /// On a free loopback port, with one user.
    async fn start() -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name).display().to_string();
        let child = Command::new("turnserver")
            .args(["-n", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", "--allow-loopback-peers", "--no-cli"])
            .args(["--use-auth-secret", "--static-auth-secret=coturn-secret", "--realm=tertulia.test", "--no-tls"])
            .args(["--no-dtls", "--fingerprint", "--verbose", "--simple-log", &format!("--listening-port={port}")])
            .args([
                &format!("--log-file={}", inside("log")),
                &format!("--userdb={}", inside("users")),
                &format!("--pidfile={}", inside("pid")),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("coturn is installed (packaging/deps.sh)");
        let coturn = Self { child, port, folder };
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.connect(("127.0.0.1", port)).unwrap();
        probe.set_nonblocking(true).unwrap();
        wait_for("the TURN server", Duration::from_secs(20), || {
            // A STUN binding request without attributes.
            let mut request = [0u8; 20];
            request[1] = 1;
            request[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            let _ = probe.send(&request);
            probe.recv(&mut [0; 200]).is_ok()
        })
        .await;
        coturn
    }

    /// As an OpenVidu server writes it: a name that says until when, and its HMAC as the password.
    fn server(&self, secret: &str) -> IceServer {
        let username = "2000000000:kQ2mZx8a".to_owned();
        let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(username.as_bytes());
        let credential = Some(BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        IceServer { url: format!("turn:127.0.0.1:{}", self.port), username: Some(username), credential }
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

/// Publishes with `own` to a subscriber on the plain loopback; the media that arrived and the publisher's figures.
async fn call(own: TransportConfig) -> Option<(usize, PublicationStats)> {
    let taken = Taken::default();
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let Pair { publication, subscription, published, subscribed } = pair(&own, &config(), media, &taken).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(6);
    while !connected(&published) || !connected(&subscribed) {
        if tokio::time::Instant::now() > end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for n in 0..40u32 {
        publication.send_video(vp8_frame(n, n == 0, if n == 0 { 30_000 } else { 3_500 }));
        publication.send_audio(opus_packet(n));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for("the sound", Duration::from_secs(5), || taken.audio.lock().unwrap().len() == 40).await;
    wait_for("the pictures", Duration::from_secs(5), || taken.video.lock().unwrap().len() == 40).await;
    let frames = taken.video.lock().unwrap().len();
    let stats = publication.stats();
    publication.close().await;
    subscription.close().await;
    Some((frames, stats))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn media_flows_over_a_relay_with_the_credentials_of_the_session() {
    let coturn = Coturn::start().await;
    let relayed = TransportConfig { ice_servers: vec![coturn.server("coturn-secret")], relay_only: true, ..config() };
    let (frames, stats) = call(relayed.clone()).await.expect("connects over the relay");
    assert_eq!(frames, 40);
    assert_eq!(stats.transport.candidate.as_deref(), Some("relay/udp"));
    // With wrong credentials there is no relay, hence no way.
    let wrong = TransportConfig { ice_servers: vec![coturn.server("wrong")], ..relayed };
    assert!(call(wrong).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_costs_nothing_where_a_straight_way_exists_and_a_dead_one_delays_nothing() {
    let coturn = Coturn::start().await;
    for server in [
        coturn.server("coturn-secret"),
        IceServer { url: "turn:127.0.0.1:9".to_owned(), ..coturn.server("coturn-secret") },
    ] {
        let own = TransportConfig { ice_servers: vec![server], ..config() };
        let (frames, stats) = call(own).await.expect("connects");
        assert_eq!(frames, 40);
        assert_eq!(stats.transport.candidate.as_deref(), Some("host/udp"));
        assert!(stats.transport.connect_ms.unwrap() < 2_000, "{:?}", stats.transport);
    }
}
