use std::time::Instant;

use super::*;
use crate::media::video::pattern::{PatternPainter, read};
use crate::media::video::source::{PatternSource, VideoMode};

fn settings(width: u32, height: u32, bitrate_bps: u32) -> EncoderSettings {
    EncoderSettings { width, height, fps: 30, bitrate_bps, content: Content::Camera }
}

fn stamp() -> FrameStamp {
    FrameStamp { at: Instant::now(), rtp_timestamp: 0 }
}

fn painter(width: u32, height: u32) -> (PatternPainter, VideoFrame) {
    let mode = VideoMode { width, height, fps: 30 };
    (PatternPainter::new(PatternSource { id: 200, mode, sync: false }), VideoFrame::black(width, height))
}

#[test]
fn an_idr_has_its_parameter_sets_and_is_constrained_baseline() {
    let mut encoder = H264Encoder::new(settings(640, 360, 500_000)).expect("encoder");
    let (mut painter, mut frame) = painter(640, 360);
    for i in 0..30u64 {
        painter.draw(&mut frame, i * 33);
        let encoded = encoder.encode(&frame, i * 3_000, i == 15).expect("encoded");
        let Some(encoded) = encoded else {
            assert!(i != 0 && i != 15, "an asked for IDR is not left out");
            continue;
        };
        let types: Vec<u8> = nal_types(&encoded.data).collect();
        if i == 0 || i == 15 {
            assert!(encoded.key_frame);
            assert_eq!(types, [7, 8, 5], "one slice, parameter sets before it");
            let sps = encoded.data.windows(4).position(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7).expect("SPS") + 4;
            let [profile, constraints] = encoded.data[sps..sps + 2] else { panic!("cut off") };
            assert_eq!(profile, 66);
            assert_ne!(constraints & 0x40, 0, "constraint_set1: constrained baseline");
        } else {
            assert!(!encoded.key_frame);
            assert_eq!(types, [1]);
        }
    }
}

#[test]
fn the_pattern_survives_at_320x180() {
    let mut encoder = H264Encoder::new(settings(320, 180, 150_000)).expect("encoder");
    let mut decoder = H264Decoder::new().expect("decoder");
    let mut pool = FramePool::new(3);
    let (mut painter, mut frame) = painter(320, 180);
    let (mut frames, mut right) = (0, 0);
    for i in 0..60u64 {
        painter.draw(&mut frame, 1_000_000 + i * 33);
        let Some(encoded) = encoder.encode(&frame, i * 3_000, false).expect("encoded") else { continue };
        frames += 1;
        let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
        assert_eq!((picture.width, picture.height), (320, 180), "cropped to the true height");
        right += u32::from(read(&picture).is_some_and(|r| r.crc_ok && r.id == 200));
    }
    assert!(frames >= 40, "{frames}");
    assert_eq!(right, frames);
}

#[test]
fn the_bitrate_follows_up_and_down_at_run_time() {
    let mut encoder = H264Encoder::new(settings(640, 360, 400_000)).expect("encoder");
    let (mut painter, mut frame) = painter(640, 360);
    let mut seed = 1u32;
    let targets = [400_000u32, 1_600_000, 200_000];
    let mut bytes = [0usize; 3];
    for i in 0..270u64 {
        let phase = (i / 90) as usize;
        if i % 90 == 0 && i > 0 {
            encoder.configure(settings(640, 360, targets[phase])).expect("configured");
        }
        painter.draw(&mut frame, i * 33);
        for pixel in frame.y.iter_mut().skip(640 * 40) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = pixel.saturating_add((seed >> 28) as u8);
        }
        if let Some(encoded) = encoder.encode(&frame, i * 3_000, false).expect("encoded") {
            assert_eq!(encoded.key_frame, i == 0, "a new rate costs no key frame");
            if i % 90 > 30 {
                bytes[phase] += encoded.data.len();
            }
        }
    }
    let rates = bytes.map(|b| b * 8 / 2);
    println!("{rates:?} bit/s for {targets:?}");
    assert!(rates[1] > rates[0] * 2 && rates[2] * 3 < rates[1], "{rates:?}");
}

#[test]
fn another_size_and_frame_rate_are_taken() {
    let mut encoder = H264Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    let mut decoder = H264Decoder::new().expect("decoder");
    let mut pool = FramePool::new(3);
    for (step, (width, height, fps)) in
        [(320, 180, 30), (320, 180, 15), (1280, 720, 30), (640, 360, 30)].into_iter().enumerate()
    {
        encoder.configure(EncoderSettings { fps, ..settings(width, height, 500_000) }).expect("configured");
        let (mut painter, mut frame) = painter(width, height);
        for i in 0..3u64 {
            painter.draw(&mut frame, i * 33);
            let at = (step as u64 * 3 + i) * 3_000;
            let Some(encoded) = encoder.encode(&frame, at, false).expect("encoded") else { continue };
            let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
            assert_eq!((picture.width, picture.height), (width, height));
        }
    }
}

#[test]
fn damage_is_an_error_until_the_next_key_frame() {
    let mut encoder = H264Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    let mut decoder = H264Decoder::new().expect("decoder");
    let mut pool = FramePool::new(3);
    let (mut painter, mut frame) = painter(320, 180);
    let mut at = 0u64;
    let mut encode = |key| {
        at += 1;
        painter.draw(&mut frame, at * 33);
        encoder.encode(&frame, at * 3_000, key).expect("encoded").expect("frame").data
    };
    let first = encode(true);
    let second = encode(false);
    assert!(matches!(decoder.decode(&second, &mut pool, stamp()), Err(CodecError::Corrupt(_))));
    assert!(decoder.decode(&first, &mut pool, stamp()).expect("decoded").is_some());
    let mut seed = 5u32;
    for length in 1..300usize {
        let mut rubbish = second.to_vec();
        for byte in rubbish.iter_mut().skip(5 + length % 9).step_by(5) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
        rubbish.truncate(length);
        let _ = decoder.decode(&rubbish, &mut pool, stamp());
    }
    let again = encode(true);
    assert!(decoder.decode(&again, &mut pool, stamp()).expect("decoded").is_some());
}

#[test]
fn impossible_sizes_are_refused() {
    for (width, height) in [(0, 0), (321, 180), (4000, 180), (4000, 4000)] {
        assert!(H264Encoder::new(settings(width, height, 300_000)).is_err(), "{width}x{height}");
    }
}
