//! What comes from others need not be well made: sizes that jump, odd ones, huge ones, profiles nobody knows, and rubbish.

use std::time::Instant;

use super::super::h264::nal_types;
use super::super::vp8::key_frame_size;
use super::*;

fn stamp() -> FrameStamp {
    FrameStamp { at: Instant::now(), rtp_timestamp: 1 }
}

fn encode(codec: VideoCodec, width: u32, height: u32, frames: u64) -> Vec<EncodedPicture> {
    let settings = EncoderSettings { width, height, fps: 30, bitrate_bps: 1_000_000, content: Content::Screen };
    let mut encoder = new_encoder(codec, settings).expect("encoder");
    let mut picture = VideoFrame::black(width, height);
    let each = |i: u64| {
        for (n, row) in picture.y.chunks_exact_mut(width as usize).enumerate() {
            row.fill(16 + ((n as u64 * 3 + i * 40) % 200) as u8);
        }
        encoder.encode(&picture, i * 3_000, false).expect("encoded")
    };
    (0..frames).filter_map(each).collect()
}

/// A VP8 key frame that says another size than it was made with.
fn resized(key_frame: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut data = key_frame.to_vec();
    data[6..8].copy_from_slice(&width.to_le_bytes());
    data[8..10].copy_from_slice(&height.to_le_bytes());
    data
}

#[test]
fn vp8_may_change_its_size_with_every_key_frame_up_to_a_limit() {
    let mut decoder = new_decoder(VideoCodec::Vp8).expect("decoder");
    let mut pool = FramePool::new(3);
    for (width, height) in
        [(320, 180), (16, 16), (4096, 2304), (16, 16), (2304, 4096), (640, 360), (1280, 720), (16, 720)]
    {
        for encoded in encode(VideoCodec::Vp8, width, height, 2) {
            let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
            assert_eq!((picture.width, picture.height), (width, height));
            assert!(picture.is_consistent());
        }
    }
    let small = encode(VideoCodec::Vp8, 320, 180, 2);
    for (width, height) in [(4098, 16), (16, 4098), (4096, 4096), (16_383, 16_383), (0, 180), (320, 0)] {
        let wrong = resized(&small[0].data, width, height);
        assert!(matches!(decoder.decode(&wrong, &mut pool, stamp()), Err(CodecError::Corrupt(_))), "{width}x{height}");
        // What refers to the refused picture is refused as well.
        assert!(matches!(decoder.decode(&small[1].data, &mut pool, stamp()), Err(CodecError::Corrupt(_))));
    }
    assert!(decoder.decode(&small[0].data, &mut pool, stamp()).expect("decoded").is_some());
    assert!(decoder.decode(&small[1].data, &mut pool, stamp()).expect("decoded").is_some());
}

#[test]
fn odd_sizes_lose_a_row_or_a_column_and_nothing_else() {
    let mut decoder = new_decoder(VideoCodec::Vp8).expect("decoder");
    let mut pool = FramePool::new(3);
    let key_frame = &encode(VideoCodec::Vp8, 320, 192, 1)[0].data;
    let whole = decoder.decode(key_frame, &mut pool, stamp()).expect("decoded").expect("picture");
    // As many blocks as the picture was made of, so that its content is still a picture.
    for (width, height) in [(319, 192), (320, 191), (319, 191), (305, 177)] {
        let odd = resized(key_frame, width, height);
        assert_eq!(key_frame_size(&odd), Some(Some((u32::from(width), u32::from(height)))));
        let picture = decoder.decode(&odd, &mut pool, stamp()).expect("decoded").expect("picture");
        assert_eq!((picture.width, picture.height), (u32::from(width) & !1, u32::from(height) & !1));
        assert!(picture.is_consistent());
        let width = picture.width as usize;
        for (odd, even) in picture.y.chunks_exact(width).zip(whole.y.chunks_exact(320)) {
            assert_eq!(odd, &even[..width]);
        }
    }
    // Less than one pixel of color is nothing to show.
    for (width, height) in [(1, 1), (1, 192), (320, 1)] {
        assert!(!matches!(decoder.decode(&resized(key_frame, width, height), &mut pool, stamp()), Ok(Some(_))));
    }
}

#[test]
fn h264_of_unknown_profiles_is_refused_and_what_follows_is_shown() {
    let good = encode(VideoCodec::H264, 320, 180, 3);
    let sps = good[0].data.windows(4).position(|w| w[..3] == [0, 0, 1] && w[3] & 0x1f == 7).expect("parameter set") + 4;
    let mut decoder = new_decoder(VideoCodec::H264).expect("decoder");
    let mut pool = FramePool::new(3);
    for profile in 0..=255u8 {
        let mut strange = good[0].data.to_vec();
        // Profile, constraints and level.
        strange[sps] = profile;
        strange[sps + 1] = profile.rotate_left(3);
        strange[sps + 2] = profile.wrapping_mul(7);
        if let Ok(Some(picture)) = decoder.decode(&strange, &mut pool, stamp()) {
            assert!(picture.is_consistent());
        }
        for encoded in &good {
            let picture = decoder.decode(&encoded.data, &mut pool, stamp());
            assert!(matches!(picture, Ok(Some(_))), "after profile {profile}: {picture:?}");
        }
    }
}

#[test]
fn h264_may_change_its_size_with_every_idr() {
    let mut decoder = new_decoder(VideoCodec::H264).expect("decoder");
    let mut pool = FramePool::new(3);
    for (width, height) in [(320, 180), (16, 16), (3840, 2160), (16, 16), (1080, 1920), (322, 182), (1920, 1080)] {
        for encoded in encode(VideoCodec::H264, width, height, 2) {
            let picture = decoder.decode(&encoded.data, &mut pool, stamp()).expect("decoded").expect("picture");
            assert_eq!((picture.width, picture.height), (width, height));
        }
    }
}

/// Ten thousand damaged frames for each codec: an error or a whole picture, never anything else, and always back again.
#[test]
fn rubbish_is_an_error_or_a_picture_and_never_the_end() {
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let good = encode(codec, 160, 96, 6);
        let mut decoder = new_decoder(codec).expect("decoder");
        let mut pool = FramePool::new(3);
        let mut seed = 0x9e37_79b9u32;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed as usize % below.max(1)
        };
        for round in 0..10_000 {
            let mut data = good[random(good.len())].data.to_vec();
            match random(4) {
                0 => data.truncate(random(data.len() + 1)),
                1 => (0..=random(20)).for_each(|_| {
                    let at = random(data.len());
                    data[at] = random(256) as u8;
                }),
                2 => {
                    let by = random(40).min(data.len());
                    data.rotate_left(by);
                }
                _ => {
                    let (from, to) = (random(data.len()), random(data.len()));
                    let part = data[from.min(to)..from.max(to)].to_vec();
                    data.extend(part);
                }
            }
            // A size that grows without bounds would only take time here.
            let large = key_frame_size(&data).flatten().is_some_and(|(w, h)| w * h > 1 << 20);
            if (codec == VideoCodec::Vp8 && large) || (codec == VideoCodec::H264 && nal_types(&data).any(|t| t == 7)) {
                continue;
            }
            if let Ok(Some(picture)) = decoder.decode(&data, &mut pool, stamp()) {
                assert!(picture.is_consistent());
            }
            if round % 100 == 0 {
                let back = decoder.decode(&good[0].data, &mut pool, stamp());
                assert!(matches!(back, Ok(Some(_))), "{codec:?} round {round}: {back:?}");
            }
        }
    }
}
