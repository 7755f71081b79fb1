//! Media between our own handles over loopback sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod peer_support;

use peer_support::{Log, Pair, Taken, config, connected, h264_frame, opus_packet, pair, vp8_frame, wait_for};
use std::time::{Duration, Instant};
use tertulia::peer::{PeerEvent, PublishMedia, TransportConfig};
use tertulia::rtp::frame::VideoCodec;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vp8_and_opus_arrive_as_sent() {
    let taken = Taken::default();
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let Pair { publication, subscription, published: pub_log, subscribed: sub_log } =
        pair(&config(), &config(), media, &taken).await;
    assert_eq!(publication.video_codec(), Some(VideoCodec::Vp8));
    wait_for("connecting", Duration::from_secs(5), || connected(&pub_log) && connected(&sub_log)).await;

    let mut frames = Vec::new();
    for n in 0..60u32 {
        let frame = vp8_frame(n, n == 0, if n == 0 { 30_000 } else { 3_500 });
        publication.send_video(frame.clone());
        frames.push(frame);
        publication.send_audio(opus_packet(n));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait_for("all media", Duration::from_secs(5), || {
        taken.video.lock().unwrap().len() == 60 && taken.audio.lock().unwrap().len() == 60
    })
    .await;
    {
        let video = taken.video.lock().unwrap();
        for (n, (got, sent)) in video.iter().zip(&frames).enumerate() {
            assert_eq!(got.data, sent.data, "frame {n}");
            assert_eq!(got.key_frame, n == 0);
            assert_eq!(got.rtp_timestamp.wrapping_sub(video[0].rtp_timestamp), sent.rtp_timestamp);
        }
        let audio = taken.audio.lock().unwrap();
        for (n, got) in audio.iter().enumerate() {
            assert_eq!(got.data, opus_packet(n as u32).data, "packet {n}");
            assert_eq!(got.rtp_timestamp.wrapping_sub(audio[0].rtp_timestamp), n as u32 * 960);
        }
    }
    let (sent, got) = (publication.stats(), subscription.stats());
    for transport in [&sent.transport, &got.transport] {
        assert_eq!(transport.candidate.as_deref(), Some("host/udp"));
        assert!(transport.rtt_ms.unwrap() < 500.0 && transport.connect_ms.unwrap() < 5_000);
    }
    let (video_out, video_in) = (sent.video.unwrap(), got.video.unwrap());
    assert_eq!(
        (video_out.codec, video_out.frames, video_out.key_frames, video_out.frames_dropped),
        (Some("VP8"), 60, 1, 0)
    );
    assert_eq!((video_in.codec, video_in.frames, video_in.key_frames), (Some("VP8"), 60, 1));
    assert_eq!((video_in.packets, video_in.packets_lost), (video_out.packets, 0));
    assert!(video_out.bitrate_bps > 500_000 && video_in.bitrate_bps > 500_000);
    let (audio_out, audio_in) = (sent.audio.unwrap(), got.audio.unwrap());
    assert_eq!((audio_out.packets, audio_in.packets, audio_in.packets_lost), (60, 60, 0));
    let started = Instant::now();
    publication.close().await;
    subscription.close().await;
    assert!(started.elapsed() < Duration::from_millis(500), "close took {:?}", started.elapsed());
}

/// Publishes `frames` frames over a path with loss on the publisher's own sockets; everything has to arrive whole.
async fn through_a_bad_network(spec: &str, codec: VideoCodec) {
    let taken = Taken::default();
    let bad = TransportConfig { impairment: Some(spec.parse().unwrap()), ..config() };
    let media = PublishMedia { audio: true, video: Some(vec![codec]), stereo: false };
    // A lost handshake flight can hang the stack: as the engine does, build anew, at most three times.
    for attempt in 0.. {
        let Pair { publication, subscription, published: pub_log, subscribed: sub_log } =
            pair(&bad, &config(), media.clone(), &taken).await;
        let count =
            |log: &Log, which: fn(&PeerEvent) -> bool| log.lock().unwrap().iter().filter(|event| which(event)).count();
        let stuck = || {
            count(&pub_log, |e| matches!(e, PeerEvent::NeedsRebuild { .. })) > 0
                || count(&sub_log, |e| matches!(e, PeerEvent::NeedsRebuild { .. })) > 0
        };
        wait_for("connecting", Duration::from_secs(16), || stuck() || connected(&pub_log) && connected(&sub_log)).await;
        if stuck() {
            assert!(attempt < 3, "three attempts hung");
            continue;
        }
        let frames = 300u32;
        let mut asked = count(&pub_log, |e| *e == PeerEvent::KeyFrameRequested);
        let mut sent = Vec::new();
        for n in 0..frames {
            let now = count(&pub_log, |e| *e == PeerEvent::KeyFrameRequested);
            let key = n == 0 || now > asked;
            asked = now;
            // As an encoder does: no more than the path is said to take.
            let target_bps = pub_log.lock().unwrap().iter().rev().find_map(|event| match event {
                PeerEvent::TargetBitrate { bps } => Some(*bps),
                _ => None,
            });
            let bytes = (target_bps.unwrap_or(300_000) as usize * 15 / 8_000).clamp(400, 3_500);
            let frame = match codec {
                VideoCodec::Vp8 => vp8_frame(n, key, bytes),
                VideoCodec::H264 => h264_frame(n, key, bytes),
            };
            publication.send_video(frame.clone());
            publication.send_audio(opus_packet(n));
            sent.push(frame);
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        // The last repairs; a gap at the very end shows only with the next packet, which never comes.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && taken.video.lock().unwrap().len() < frames as usize {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let got = taken.video.lock().unwrap().clone();
        let (out, stats) = (publication.stats(), subscription.stats());
        println!("{spec}: {} of {frames} frames\n{:?}\n{:?}", got.len(), out.video, stats.video);
        let video = stats.video.unwrap();
        assert!(video.packets_recovered > 5, "nothing was repaired: {video:?}");
        assert!(got.len() as u32 >= frames * 95 / 100, "{} of {frames} frames arrived", got.len());
        // Whatever arrived is exactly what was sent, in order.
        // Where the very first packets were lost, it begins with the next key frame: find the first one by its content.
        let first = sent.iter().position(|frame| frame.data == got[0].data).expect("an unknown first frame");
        let base = got[0].rtp_timestamp.wrapping_sub(sent[first].rtp_timestamp);
        for frame in &got {
            let n = (frame.rtp_timestamp.wrapping_sub(base) / 3000) as usize;
            assert_eq!(frame.data, sent[n].data, "frame {n}");
        }
        let sounds = taken.audio.lock().unwrap().len();
        let audio = stats.audio.unwrap();
        assert!(sounds as u32 >= frames * 97 / 100, "{sounds} of {frames} Opus packets: {audio:?}");
        assert!(audio.packets_recovered > 3, "{audio:?}");
        assert!(out.video.unwrap().nacks > 20);
        publication.close().await;
        subscription.close().await;
        return;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vp8_survives_five_percent_loss() {
    through_a_bad_network("loss=5,delay=10", VideoCodec::Vp8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h264_survives_ten_percent_loss_upwards() {
    through_a_bad_network("up:loss=10,delay=10,jitter=5", VideoCodec::H264).await;
}
