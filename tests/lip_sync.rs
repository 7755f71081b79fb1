//! Sender reports name the time of capture, not of departure: sound and picture of one moment belong together at the receiver
//! however long each was under way to the socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use peer_support::{Log, Pair, Taken, config, connected, opus_packet, pair, vp8_frame, wait_for};
use tertulia::peer::{MediaKind, PeerEvent, PublishMedia};

/// From capture to the sender's hands: a picture is scaled and encoded, sound is collected for 20 ms.
const PICTURE_TAKES: Duration = Duration::from_millis(80);
const SOUND_TAKES: Duration = Duration::from_millis(20);
/// What a viewer may be off by; a picture lasts 33 ms.
const SKEW_MS: f64 = 5.0;

/// NTP seconds at which `rtp` was captured, by the last report of its kind.
fn captured(log: &Log, kind: MediaKind, rtp: u32, clock_hz: f64) -> Option<f64> {
    log.lock().unwrap().iter().rev().find_map(|event| match event {
        PeerEvent::SenderReport { kind: of, ntp, rtp: at, .. } if *of == kind => {
            Some(*ntp as f64 / 4_294_967_296.0 + f64::from(rtp.wrapping_sub(*at) as i32) / clock_hz)
        }
        _ => None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_and_picture_of_one_moment_have_one_time() {
    let taken = Taken::default();
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let Pair { publication, subscription, published: pub_log, subscribed: sub_log } =
        pair(&config(), &config(), media, &taken).await;
    wait_for("connecting", Duration::from_secs(5), || connected(&pub_log) && connected(&sub_log)).await;

    // Picture and sound with the same number were captured together; each comes to the sender when its encoder is done.
    // The random offset of the timestamps is found by the first packet of each kind, which the data names.
    let begin = Instant::now() + Duration::from_millis(20);
    let of = move |n: u32| begin + Duration::from_millis(20) * n;
    let last = 90;
    let (pictures, sounds) = (Arc::clone(&publication), Arc::clone(&publication));
    let video = tokio::spawn(async move {
        for n in 0..last {
            tokio::time::sleep_until((of(n) + PICTURE_TAKES).into()).await;
            let mut frame = vp8_frame(n, n == 0, if n % 30 == 0 { 30_000 } else { 2_000 });
            // 20 ms at 90 kHz.
            (frame.rtp_timestamp, frame.at) = (n * 1_800, of(n));
            pictures.send_video(frame);
        }
    });
    let audio = tokio::spawn(async move {
        for n in 0..last {
            tokio::time::sleep_until((of(n) + SOUND_TAKES).into()).await;
            let mut packet = opus_packet(n);
            packet.at = of(n);
            sounds.send_audio(packet);
        }
    });
    video.await.unwrap();
    audio.await.unwrap();
    wait_for("all media", Duration::from_secs(5), || {
        taken.video.lock().unwrap().len() == last as usize && taken.audio.lock().unwrap().len() == last as usize
    })
    .await;

    let frames: Vec<u32> = taken.video.lock().unwrap().iter().map(|f| f.rtp_timestamp).collect();
    let packets: Vec<u32> = taken.audio.lock().unwrap().iter().map(|p| p.rtp_timestamp).collect();
    for n in [0, 40, last as usize - 1] {
        let seen = captured(&sub_log, MediaKind::Video, frames[n], 90_000.0).expect("a report about the picture");
        let heard = captured(&sub_log, MediaKind::Audio, packets[n], 48_000.0).expect("a report about the sound");
        let skew_ms = (seen - heard) * 1000.0;
        assert!(skew_ms.abs() < SKEW_MS, "picture {n} is {skew_ms:.1} ms behind its sound");
    }
    publication.close().await;
    subscription.close().await;
}
