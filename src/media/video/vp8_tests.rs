use std::time::Instant;

use super::*;
use crate::media::video::codec::{new_decoder, new_encoder};
use crate::media::video::pattern::{PatternPainter, read};
use crate::media::video::scale::Scaler;
use crate::media::video::source::{PatternSource, VideoMode};

fn settings(width: u32, height: u32, bitrate_bps: u32) -> EncoderSettings {
    EncoderSettings { width, height, fps: 30, bitrate_bps, content: Content::Camera }
}

fn stamp() -> FrameStamp {
    FrameStamp { at: Instant::now(), rtp_timestamp: 7 }
}

fn painter(width: u32, height: u32) -> (PatternPainter, VideoFrame) {
    let mode = VideoMode { width, height, fps: 30 };
    (PatternPainter::new(PatternSource { id: 9, mode, sync: false }), VideoFrame::black(width, height))
}

/// Encodes and decodes `count` test pictures; how many were read right, how many frames came, and their bytes.
fn round_trip(codec: VideoCodec, settings: EncoderSettings, count: u64) -> (u64, u64, usize) {
    let mut encoder = new_encoder(codec, settings).expect("encoder");
    let mut decoder = new_decoder(codec).expect("decoder");
    let mut pool = FramePool::new(3);
    let (mut painter, mut big) = painter(1280, 720);
    let mut scaler = Scaler::new();
    let mut small = VideoFrame::black(settings.width, settings.height);
    let (mut right, mut frames, mut bytes) = (0, 0, 0);
    for i in 0..count {
        let unix_ms = 1_763_000_000_000 + i * 33;
        painter.draw(&mut big, unix_ms);
        scaler.scale(&big, &mut small).expect("scaled");
        let Some(encoded) = encoder.encode(&small, i * 3_000, false).expect("encoded") else { continue };
        frames += 1;
        bytes += encoded.data.len();
        assert_eq!(encoded.key_frame, frames == 1, "key frames come on request only");
        let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
        assert_eq!((picture.width, picture.height, picture.rtp_timestamp), (settings.width, settings.height, 7));
        if let Some(reading) = read(&picture)
            && reading.crc_ok
            && reading.id == 9
            && u64::from(reading.time_ms) == unix_ms % (1 << 20)
        {
            right += 1;
        }
    }
    (right, frames, bytes)
}

#[test]
fn a_narrower_path_is_obeyed_at_once() {
    // For seconds it may take more than the pattern needs, then about half of that.
    let mut settings = settings(1280, 720, 2_000_000);
    let mut encoder = new_encoder(VideoCodec::Vp8, settings).expect("encoder");
    let (mut painter, mut picture) = painter(1280, 720);
    let mut bits = Vec::new();
    for i in 0..300u64 {
        if i == 240 {
            settings.bitrate_bps = 500_000;
            encoder.configure(settings).expect("configured");
        }
        painter.draw(&mut picture, 1_763_000_000_000 + i * 33);
        let encoded = encoder.encode(&picture, i * 3_000, false).expect("encoded");
        bits.push(encoded.map_or(0, |encoded| encoded.data.len() * 8));
    }
    let rate = |from: usize, to: usize| bits[from..to].iter().sum::<usize>() * 30 / (to - from);
    let (before, fifth, half, second) = (rate(180, 240), rate(240, 246), rate(240, 255), rate(270, 300));
    let shown = bits[240..].iter().filter(|bits| **bits > 0).count();
    println!("{before} bit/s before, then {fifth} in 0.2 s, {half} in 0.5 s, {second} later, {shown} of 60 pictures");
    assert!(before > 800_000, "the pattern needs more than there is later");
    assert!(fifth <= 600_000 && half <= 550_000, "{fifth} {half}");
    assert!(shown >= 55, "{shown}");
}

#[test]
fn the_pattern_survives_vp8_at_320x180() {
    let (right, frames, bytes) = round_trip(VideoCodec::Vp8, settings(320, 180, 150_000), 90);
    println!("{right} of {frames} right, {} bit/s", bytes * 8 / 3);
    assert!(frames >= 80, "{frames}");
    assert_eq!(right, frames);
}

#[test]
fn the_pattern_survives_vp8_at_720p() {
    let (right, frames, _) = round_trip(VideoCodec::Vp8, settings(1280, 720, 1_000_000), 40);
    assert!(frames >= 35, "{frames}");
    assert_eq!(right, frames);
}

#[test]
fn a_key_frame_comes_when_asked_for_and_tells_its_size() {
    let mut encoder = Vp8Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    let (mut painter, mut frame) = painter(320, 180);
    for i in 0..20u64 {
        painter.draw(&mut frame, i * 33);
        let encoded = encoder.encode(&frame, i * 3_000, i == 10).expect("encoded");
        if i == 0 || i == 10 {
            let encoded = encoded.expect("a key frame is never left out");
            assert!(encoded.key_frame);
            assert_eq!(key_frame_size(&encoded.data), Some(Some((320, 180))));
        } else if let Some(encoded) = encoded {
            assert_eq!(key_frame_size(&encoded.data), Some(None));
        }
    }
}

#[test]
fn the_bitrate_follows_at_run_time() {
    let mut encoder = Vp8Encoder::new(settings(640, 360, 1_500_000)).expect("encoder");
    let (mut painter, mut frame) = painter(640, 360);
    let mut seed = 1u32;
    let mut bytes = [0usize; 2];
    for i in 0..180u64 {
        if i == 90 {
            encoder.configure(settings(640, 360, 150_000)).expect("configured");
        }
        painter.draw(&mut frame, i * 33);
        // Noise, so that the encoder has something to spend its bits on.
        for pixel in frame.y.iter_mut().skip(640 * 40) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = pixel.saturating_add((seed >> 28) as u8);
        }
        if let Some(encoded) = encoder.encode(&frame, i * 3_000, false).expect("encoded")
            && (i % 90) > 30
        {
            bytes[(i / 90) as usize] += encoded.data.len();
        }
    }
    let rate = bytes.map(|b| b * 8 / 2);
    println!("{rate:?} bit/s");
    assert!(rate[1] * 3 < rate[0], "{rate:?}");
    assert!(rate[1] < 250_000, "{rate:?}");
}

#[test]
fn another_size_begins_with_a_key_frame() {
    let mut encoder = Vp8Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    let mut decoder = Vp8Decoder::new().expect("decoder");
    let mut pool = FramePool::new(3);
    for (step, (width, height)) in [(320, 180), (1280, 720), (640, 360), (642, 362)].into_iter().enumerate() {
        encoder.configure(settings(width, height, 500_000)).expect("configured");
        let (mut painter, mut frame) = painter(width, height);
        for i in 0..3u64 {
            painter.draw(&mut frame, i * 33);
            let at = (step as u64 * 3 + i) * 3_000;
            let Some(encoded) = encoder.encode(&frame, at, false).expect("encoded") else { continue };
            assert_eq!(encoded.key_frame, i == 0);
            let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
            assert_eq!((picture.width, picture.height), (width, height));
        }
    }
}

#[test]
fn damage_is_an_error_until_the_next_key_frame() {
    let mut encoder = Vp8Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    let mut decoder = Vp8Decoder::new().expect("decoder");
    let mut pool = FramePool::new(3);
    let (mut painter, mut frame) = painter(320, 180);
    let mut encode = |i: u64, key| {
        painter.draw(&mut frame, i * 33);
        encoder.encode(&frame, i * 3_000, key).expect("encoded").expect("frame").data
    };
    let first = encode(0, true);
    let second = encode(1, false);
    assert!(matches!(decoder.decode(&second, &mut pool, stamp()), Err(CodecError::Corrupt(_))), "no key frame yet");
    assert!(decoder.decode(&first, &mut pool, stamp()).expect("decoded").is_some());
    assert!(decoder.decode(&[], &mut pool, stamp()).is_err());
    assert!(decoder.decode(&second, &mut pool, stamp()).is_err(), "references are doubtful after damage");
    assert!(decoder.decode(&first[..9], &mut pool, stamp()).is_err());
    // A key frame that announces a huge picture is refused before memory is taken for it.
    let mut huge = first.to_vec();
    huge[6..10].copy_from_slice(&[0xff, 0x3f, 0xff, 0x3f]);
    assert!(decoder.decode(&huge, &mut pool, stamp()).is_err());
    let again = encode(2, true);
    assert!(decoder.decode(&again, &mut pool, stamp()).expect("decoded").is_some());
    // Any rubbish at all: an error or a picture, never a crash.
    let mut seed = 5u32;
    for length in 0..400usize {
        let mut rubbish = again.to_vec();
        for byte in rubbish.iter_mut().skip(10 + length % 50).step_by(7) {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (seed >> 24) as u8;
        }
        rubbish.truncate(10 + length);
        let _ = decoder.decode(&rubbish, &mut pool, stamp());
    }
    assert!(decoder.decode(&encode(3, true), &mut pool, stamp()).expect("decoded").is_some());
}

#[test]
fn impossible_sizes_are_refused() {
    for (width, height) in [(0, 0), (15, 15), (321, 180), (320, 181), (8_000, 180)] {
        assert!(Vp8Encoder::new(settings(width, height, 300_000)).is_err(), "{width}x{height}");
    }
    let mut encoder = Vp8Encoder::new(settings(320, 180, 300_000)).expect("encoder");
    assert!(encoder.encode(&VideoFrame::black(640, 360), 0, false).is_err());
    let mut wrong = VideoFrame::black(320, 180);
    wrong.v.pop();
    assert!(encoder.encode(&wrong, 0, false).is_err());
}

#[test]
fn h264_carries_the_pattern_too() {
    let (right, frames, _) = round_trip(VideoCodec::H264, settings(640, 360, 500_000), 60);
    assert!(frames >= 50, "{frames}");
    assert_eq!(right, frames);
}

/// Pages of 4096 bytes that are in memory, in the middle of the room for tokens.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn resident(pages: &std::ops::Range<usize>) -> usize {
    use std::os::unix::fs::FileExt as _;
    let map = std::fs::File::open("/proc/self/pagemap").expect("pagemap");
    let mut entries = vec![0; pages.len() / 4096 * 8];
    map.read_exact_at(&mut entries, (pages.start / 4096 * 8) as u64).expect("entries");
    // The top bit of each: present (proc(5)).
    entries.chunks_exact(8).filter(|entry| entry[7] & 0x80 != 0).count()
}

#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[test]
fn room_for_tokens_takes_no_memory_and_pictures_are_the_same_without() {
    let settings = settings(1280, 720, 2_500_000);
    let mut encoder = Vp8Encoder::new(settings).expect("encoder");
    let mut keeps = Vp8Encoder::new(settings).expect("encoder");
    let pages = encoder.tokens.clone().expect("found");
    let kept = keeps.tokens.take().expect("found");
    assert!(pages.end <= kept.start || kept.end <= pages.start, "each has its own");
    assert!(pages.len() > 20 << 20 && pages.len() <= 1280 * 720 * 24, "{}", pages.len());
    assert_eq!(resident(&pages), 0);
    // Smaller pictures have less.
    let small = Vp8Encoder::new(EncoderSettings { width: 640, height: 360, ..settings }).expect("encoder");
    assert!(small.tokens.as_ref().expect("found").len() <= 640 * 368 * 24);

    let (mut painter, mut frame) = painter(1280, 720);
    let mut most = 0;
    for i in 0..40u64 {
        painter.draw(&mut frame, i * 33);
        // A picture that is all noise has as many tokens as any.
        if i == 20 {
            let mut seed = 5u32;
            for pixel in frame.y.iter_mut() {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *pixel = (seed >> 24) as u8;
            }
        }
        let key = i % 16 == 0;
        let both = [&mut encoder, &mut keeps].map(|e| e.encode(&frame, i * 3_000, key).expect("encoded"));
        let both = both.map(|picture| picture.map(|p| (p.data, p.key_frame)));
        assert_eq!(both[0], both[1], "picture {i}");
        most = most.max(resident(&kept));
        if both[0].as_ref().is_some_and(|(_, key)| *key) {
            assert_eq!(resident(&pages), 0, "after a key frame");
        }
    }
    assert!(most > resident(&pages), "{most}");
    // What is still used is written again.
    drop(encoder);
    painter.draw(&mut frame, 2_000);
    assert!(keeps.encode(&frame, 200_000, true).expect("encoded").is_some());
}
