use std::sync::mpsc;

use super::*;
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::codec::new_decoder;
use crate::media::video::pattern::read;
use crate::media::video::source::CameraSource;

fn encoder(slot: &FrameSlot, config: EncoderConfig) -> (EncoderThread, mpsc::Receiver<EncodedFrame>) {
    let (sender, receiver) = mpsc::sync_channel(1_000);
    let sink: EncodedSink = Box::new(move |frame| sender.send(frame).expect("receiver"));
    (EncoderThread::start(slot.clone(), config, sink).expect("encoder"), receiver)
}

fn next(frames: &mpsc::Receiver<EncodedFrame>) -> EncodedFrame {
    frames.recv_timeout(Duration::from_secs(5)).expect("a frame")
}

/// A picture with some texture, so that the codec has work.
fn picture(width: u32, height: u32, seed: u32) -> Arc<VideoFrame> {
    let mut frame = VideoFrame::black(width, height);
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    for pixel in frame.y.iter_mut().step_by(3) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *pixel = (state >> 24) as u8;
    }
    Arc::new(frame)
}

#[test]
fn the_pattern_comes_through_an_encoder_with_rising_timestamps() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig { bitrate_bps: 600_000, ..EncoderConfig::default() });
    let source = CameraSource::parse("pattern:5:640x360@30").expect("source");
    let capture =
        Capture::open(&source, slot, Box::new(|event| assert!(!matches!(event, CaptureEvent::Failed { .. }))));
    let mut decoder = new_decoder(VideoCodec::Vp8).expect("decoder");
    let mut pool = FramePool::new(3);
    let mut last = None;
    for count in 0..20 {
        let frame = next(&frames);
        assert_eq!(frame.key_frame, count == 0);
        assert_eq!(frame.size, (count == 0).then_some((640, 360)));
        if let Some(last) = last {
            let step = frame.rtp_timestamp.wrapping_sub(last);
            // 33 ms are 3 000 ticks; a busy machine leaves pictures out, never doubles them.
            assert!((500..60_000).contains(&step), "{step}");
        }
        last = Some(frame.rtp_timestamp);
        let stamp = crate::media::video::codec::FrameStamp { at: frame.at, rtp_timestamp: frame.rtp_timestamp };
        let picture = decoder.decode(&frame.data, &mut pool, stamp).expect("decoded").expect("picture");
        let reading = read(&picture).expect("strip");
        assert!(reading.crc_ok && reading.id == 5);
    }
    capture.close();
    let stats = encoder.stats();
    assert!(stats.frames >= 20 && stats.key_frames == 1 && stats.failures == 0, "{stats:?}");
    assert_eq!((stats.width, stats.height), (640, 360));
    encoder.stop();
}

#[test]
fn an_empty_slot_gives_nothing_even_when_a_key_frame_is_asked_for() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig::default());
    encoder.request_key_frame();
    assert!(frames.recv_timeout(Duration::from_millis(300)).is_err());
    slot.put(picture(320, 180, 1));
    next(&frames);
    slot.clear();
    encoder.request_key_frame();
    assert!(frames.recv_timeout(Duration::from_millis(500)).is_err(), "a muted camera sends nothing");
}

#[test]
fn a_still_picture_is_sent_again_for_a_key_frame_and_requests_are_bundled() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig { tuning: Some(Tuning::Text), ..EncoderConfig::default() });
    slot.put(picture(640, 360, 1));
    assert!(next(&frames).key_frame);
    let asked = Instant::now();
    for _ in 0..10 {
        encoder.request_key_frame();
    }
    // Between them and afterwards the same picture comes finer and finer, and then no more.
    while !next(&frames).key_frame {}
    assert!(asked.elapsed() < Duration::from_secs(2));
    while let Ok(frame) = frames.recv_timeout(Duration::from_secs(1)) {
        assert!(!frame.key_frame, "one answer for ten requests");
        assert!(asked.elapsed() < Duration::from_secs(20), "a still picture costs nothing in the end");
    }
}

#[test]
fn key_frames_keep_their_distance() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig::default());
    let mut times = Vec::new();
    for i in 0..40 {
        encoder.request_key_frame();
        let frame = VideoFrame { at: Instant::now(), ..Arc::into_inner(picture(320, 180, i)).expect("own") };
        slot.put(Arc::new(frame));
        std::thread::sleep(Duration::from_millis(30));
        times.extend(frames.try_iter().filter(|f| f.key_frame).map(|f| f.at));
    }
    assert!(times.len() >= 2, "{}", times.len());
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= KEY_FRAME_INTERVAL - Duration::from_millis(40), "{:?}", pair[1] - pair[0]);
    }
}

#[test]
fn the_size_follows_the_bitrate() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig { bitrate_bps: 1_000_000, ..EncoderConfig::default() });
    let source = CameraSource::parse("pattern:1:1280x720@30").expect("source");
    let _capture = Capture::open(&source, slot, Box::new(|_| {}));
    assert_eq!(next(&frames).size, Some((1280, 720)));
    encoder.set_target_bitrate(200_000);
    let started = Instant::now();
    let small = loop {
        let frame = next(&frames);
        if let Some(size) = frame.size {
            break size;
        }
        assert!(started.elapsed() < Duration::from_secs(8));
    };
    assert_eq!(small, (320, 180));
    assert_eq!(encoder.stats().target_bitrate_bps, 200_000);
}

#[test]
fn a_limit_and_another_codec_take_effect_with_a_key_frame() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig::default());
    let source = CameraSource::parse("pattern:1:640x360@30").expect("source");
    let _capture = Capture::open(&source, slot, Box::new(|_| {}));
    assert_eq!(next(&frames).codec, VideoCodec::Vp8);
    encoder.set_codec(VideoCodec::H264);
    let frame = std::iter::from_fn(|| Some(next(&frames))).find(|f| f.codec == VideoCodec::H264).expect("H264");
    assert!(frame.key_frame);
    encoder.set_limit((320, 180), 30);
    let frame = std::iter::from_fn(|| Some(next(&frames))).find(|f| f.key_frame).expect("key frame");
    assert_eq!(frame.size, Some((320, 180)));
}

#[test]
fn a_fast_source_is_thinned_out_evenly() {
    let slot = FrameSlot::new();
    let config = EncoderConfig { max_fps: 10, bitrate_bps: 2_000_000, ..EncoderConfig::default() };
    let (encoder, frames) = encoder(&slot, config);
    let source = CameraSource::parse("pattern:1:320x180@60").expect("source");
    let capture = Capture::open(&source, slot, Box::new(|_| {}));
    let first = next(&frames).at;
    std::thread::sleep(Duration::from_secs(2));
    capture.close();
    encoder.stop();
    let times: Vec<_> = frames.try_iter().map(|f| f.at - first).filter(|t| *t < Duration::from_secs(2)).collect();
    assert!((15..=21).contains(&times.len()), "{} in 2 s", times.len());
}

#[test]
fn a_source_that_cannot_be_encoded_is_survived() {
    let slot = FrameSlot::new();
    let (encoder, frames) = encoder(&slot, EncoderConfig::default());
    for _ in 0..3 {
        slot.put(Arc::new(VideoFrame::black(8, 8)));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(encoder.stats().failures >= 1);
    slot.put(picture(320, 180, 1));
    assert!(next(&frames).key_frame);
}
