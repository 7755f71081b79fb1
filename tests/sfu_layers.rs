//! A picture published in layers: told apart, chosen by tile, joined to one stream, stopped where nobody looks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;
mod sfu_support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use peer_support::{config, opus_packet, wait_for};
use sfu_support::{Client, Got, spec, subscriber};
use tertulia::host::sfu::{self, LegId, Sfu, SfuConfig};
use tertulia::peer::{PeerEvent, Publication, PublishMedia};
use tertulia::rtp::frame::{EncodedFrame, VideoCodec};

const LIMIT: Duration = Duration::from_secs(10);

/// A publisher with three layers that encodes what is wanted, as the program does.
struct Layered {
    wanted: Arc<Mutex<Vec<u64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Layered {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A frame whose bytes all name its layer, but the first, which says whether it is a key frame.
fn frame(layer: usize, n: u32, key_frame: bool) -> EncodedFrame {
    let mut data = vec![layer as u8; 700 + 1_500 * layer];
    data[0] = 0x10 | u8::from(!key_frame);
    let rtp_timestamp = n * 3_000;
    EncodedFrame {
        codec: VideoCodec::Vp8,
        data: Bytes::from(data),
        rtp_timestamp,
        key_frame,
        size: None,
        at: Instant::now(),
    }
}

async fn publish(sfu: &Sfu) -> Layered {
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let (publication, mut events) = Publication::layered(&config(), media, 3).await.unwrap();
    let offer = publication.offer().await.unwrap();
    assert!(offer.contains("a=simulcast:send q;h;f"), "{offer}");
    let negotiated = sfu.publish(LegId(1), spec("layers"), &offer).await.unwrap();
    assert!(negotiated.sdp.contains("a=simulcast:recv q;h;f"), "{}", negotiated.sdp);
    publication.set_answer(&negotiated.sdp).await.unwrap();
    for c in negotiated.candidates {
        publication.add_candidate(&c.candidate, Some(c.sdp_mid), Some(c.sdp_mline_index)).await.unwrap();
    }
    let wanted = Arc::new(Mutex::new(vec![0; 3]));
    let (told, sfu) = (Arc::clone(&wanted), sfu.clone());
    let task = tokio::spawn(async move {
        let sender = publication.sender();
        let (mut keys, mut on) = ([true; 3], [false; 3]);
        let mut ticks = tokio::time::interval(Duration::from_millis(33));
        let mut n = 0;
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    None => return,
                    Some(PeerEvent::LocalCandidate { candidate, .. }) => {
                        sfu.add_candidate(LegId(1), &candidate).await.unwrap();
                    }
                    Some(PeerEvent::LayersWanted { bps }) => {
                        for layer in 0..3 {
                            keys[layer] |= bps[layer] > 0 && !on[layer];
                            on[layer] = bps[layer] > 0;
                        }
                        *told.lock().unwrap() = bps;
                    }
                    Some(PeerEvent::LayerKeyFrameRequested { layer }) => keys[layer] = true,
                    Some(PeerEvent::KeyFrameRequested) => panic!("of which layer?"),
                    Some(_) => {}
                },
                _ = ticks.tick() => {
                    n += 1;
                    sender.send_audio(opus_packet(n));
                    for layer in 0..3 {
                        if on[layer] {
                            sender.send_layer(layer, frame(layer, n, std::mem::take(&mut keys[layer])));
                        }
                    }
                }
            }
        }
    });
    Layered { wanted, task }
}

fn layer(packet: &Got) -> u8 {
    (packet.number >> 24) as u8
}

/// Waits until the newest packets are of this layer.
async fn gets(client: &Client, wanted: u8) {
    wait_for(&format!("layer {wanted}"), LIMIT, || {
        client.got("video").iter().rev().take(5).filter(|packet| layer(packet) == wanted).count() == 5
    })
    .await;
}

/// Whatever was switched: numbers without a hole, pictures in a row, a clock that rises.
fn assert_one_stream(packets: &[Got]) {
    let mut changes = 0;
    for pair in packets.windows(2) {
        let (a, b) = (&pair[0], &pair[1]);
        assert_eq!(b.ssrc, a.ssrc);
        assert_eq!(b.sequence, a.sequence.wrapping_add(1), "{a:?} {b:?}");
        let step = b.picture.unwrap().wrapping_sub(a.picture.unwrap()) & 0x7fff;
        let ahead = b.timestamp.wrapping_sub(a.timestamp) as i32;
        assert_eq!(step, u16::from(ahead != 0), "{a:?} {b:?}");
        assert!((0..90_000 * 5).contains(&ahead), "{a:?} {b:?}");
        if layer(a) != layer(b) {
            changes += 1;
            assert_eq!(step, 1, "a layer begins with a picture of its own");
        }
    }
    assert!(changes >= 3, "{changes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tile_decides_and_the_subscriber_sees_one_stream() {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let publisher = publish(&sfu).await;
    let mut client = subscriber(&sfu, 2, "layers", 120).await;
    assert!(client.connected(LIMIT).await.is_some());
    gets(&client, 2).await;
    let wanted = |of: &Layered| of.wanted.lock().unwrap().iter().map(|bps| *bps > 0).collect::<Vec<_>>();
    assert_eq!(wanted(&publisher), [false, false, true], "one viewer costs one layer");
    for (size, layer) in [((160, 90), 0), ((640, 360), 1), ((1920, 1080), 2), ((320, 180), 0)] {
        sfu.draw(LegId(2), size).await.unwrap();
        gets(&client, layer).await;
    }
    wait_for("an end of the others", LIMIT, || wanted(&publisher) == [true, false, false]).await;
    // Hidden: no pictures, but sound; nothing is encoded.
    sfu.draw(LegId(2), (0, 0)).await.unwrap();
    wait_for("an end of all", LIMIT, || wanted(&publisher) == [false, false, false]).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (pictures, sounds) = (client.got("video").len(), client.got("audio").len());
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(client.got("video").len(), pictures);
    assert!(client.got("audio").len() > sounds + 5);
    sfu.draw(LegId(2), (1280, 720)).await.unwrap();
    gets(&client, 2).await;
    assert_one_stream(&client.got("video"));
    sfu.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_subscriber_has_its_own_layer() {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let publisher = publish(&sfu).await;
    let mut large = subscriber(&sfu, 2, "layers", 120).await;
    let mut small = subscriber(&sfu, 3, "layers", 98).await;
    sfu.draw(LegId(3), (200, 200)).await.unwrap();
    for client in [&mut large, &mut small] {
        assert!(client.connected(LIMIT).await.is_some());
    }
    gets(&large, 2).await;
    gets(&small, 0).await;
    let wanted: Vec<bool> = publisher.wanted.lock().unwrap().iter().map(|bps| *bps > 0).collect();
    assert_eq!(wanted, [true, false, true]);
    // Somebody who comes late gets something at once, and then what fits.
    let mut late = subscriber(&sfu, 4, "layers", 96).await;
    sfu.draw(LegId(4), (640, 360)).await.unwrap();
    assert!(late.connected(LIMIT).await.is_some());
    gets(&late, 1).await;
    sfu.close(LegId(3)).await.unwrap();
    wait_for("an end of the lowest", LIMIT, || publisher.wanted.lock().unwrap()[0] == 0).await;
    gets(&large, 2).await;
    sfu.shutdown().await.unwrap();
}

/// What one receiver misses is repeated from the layer it got, whichever that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_round_switches_are_repaired() {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let _publisher = publish(&sfu).await;
    let mut client = subscriber(&sfu, 2, "layers", 120).await;
    assert!(client.connected(LIMIT).await.is_some());
    gets(&client, 2).await;
    let loss = sfu::Impairment { loss_in: 0.0, loss_out: 0.05, seed: 11 };
    sfu.set_impairment(Some(LegId(2)), Some(loss)).await.unwrap();
    for size in [(160, 90), (640, 360), (1280, 720), (160, 90), (1280, 720)] {
        sfu.draw(LegId(2), size).await.unwrap();
        tokio::time::sleep(Duration::from_millis(800)).await;
    }
    sfu.set_impairment(Some(LegId(2)), None).await.unwrap();
    gets(&client, 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut got = client.got("video");
    let first = got[0].sequence;
    got.sort_by_key(|packet| packet.sequence.wrapping_sub(first));
    got.dedup_by_key(|packet| packet.sequence);
    assert_one_stream(&got);
    sfu.shutdown().await.unwrap();
}
