use std::io::Write;

use super::*;
use crate::media::video::codec::{Content, EncoderSettings, VideoEncoder};
use crate::media::video::pattern::{PatternPainter, read};
use crate::media::video::source::PatternSource;
use crate::media::video::vp8::Vp8Encoder;

const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;

/// Pictures whose strip carries times 0, 40, 80 …
fn pictures(count: u64) -> Vec<VideoFrame> {
    let mode = VideoMode { width: WIDTH, height: HEIGHT, fps: 25 };
    let mut painter = PatternPainter::new(PatternSource { id: 42, mode, sync: false });
    (0..count)
        .map(|i| {
            let mut frame = VideoFrame::black(WIDTH, HEIGHT);
            painter.draw(&mut frame, i * 40);
            frame
        })
        .collect()
}

fn file(content: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(content).expect("written");
    file
}

fn y4m(head: &str, count: u64) -> Vec<u8> {
    let mut out = format!("YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 {head}\n").into_bytes();
    for frame in pictures(count) {
        out.extend_from_slice(b"FRAME\n");
        for plane in [&frame.y, &frame.u, &frame.v] {
            out.extend_from_slice(plane);
        }
    }
    out
}

fn times(source: &mut FileSource, count: usize) -> Vec<u32> {
    let mut pool = FramePool::new(3);
    (0..count)
        .map(|_| {
            let picture = source.next(&mut pool).expect("picture");
            let reading = read(&picture).expect("strip");
            assert!(reading.crc_ok && reading.id == 42);
            reading.time_ms
        })
        .collect()
}

#[test]
fn y4m_is_read_and_looped() {
    let file = file(&y4m("Ip A1:1 C420jpeg", 3));
    let mut source = FileSource::open(file.path()).expect("open");
    assert_eq!(source.mode(), VideoMode { width: WIDTH, height: HEIGHT, fps: 25 });
    assert_eq!(times(&mut source, 7), [0, 40, 80, 0, 40, 80, 0]);
}

#[test]
fn a_y4m_that_is_cut_off_loops_at_its_last_whole_picture() {
    let mut content = y4m("", 3);
    content.truncate(content.len() - 100);
    let file = file(&content);
    assert_eq!(times(&mut FileSource::open(file.path()).expect("open"), 4), [0, 40, 0, 40]);
}

#[test]
fn ivf_is_decoded_and_looped() {
    let settings =
        EncoderSettings { width: WIDTH, height: HEIGHT, fps: 25, bitrate_bps: 500_000, content: Content::Screen };
    let mut encoder = Vp8Encoder::new(settings).expect("encoder");
    let mut out = b"DKIF\0\0\x20\0VP80".to_vec();
    for half in [WIDTH as u16, HEIGHT as u16] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    for word in [25u32, 1, 3, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for (i, frame) in (0u64..).zip(pictures(3)) {
        let encoded = encoder.encode(&frame, i * 3_600, false).expect("encoded").expect("frame");
        out.extend_from_slice(&(encoded.data.len() as u32).to_le_bytes());
        out.extend_from_slice(&i.to_le_bytes());
        out.extend_from_slice(&encoded.data);
    }
    let file = file(&out);
    let mut source = FileSource::open(file.path()).expect("open");
    assert_eq!(source.mode(), VideoMode { width: WIDTH, height: HEIGHT, fps: 25 });
    assert_eq!(times(&mut source, 7), [0, 40, 80, 0, 40, 80, 0]);
}

#[test]
fn jpegs_are_split_by_their_structure() {
    // A header with an end mark inside of a segment, picture data with a stuffed ff and a restart mark.
    let one = [
        &[0xff, 0xd8, 0xff, 0xe1, 0, 6, 0xff, 0xd9, 1, 2][..],
        &[0xff, 0xda, 0, 3, 7, 1, 0xff, 0, 2, 0xff, 0xd0, 3, 0xff, 0xd9],
    ]
    .concat();
    let mut data = one.clone();
    data.extend_from_slice(&[0, 0, 0]);
    data.extend_from_slice(&one);
    assert_eq!(split_jpegs(&data), [(0, one.len()), (one.len() + 3, 2 * one.len() + 3)]);
    data.truncate(data.len() - 1);
    assert_eq!(split_jpegs(&data).len(), 1, "a cut off picture is left out");
    for length in 0..data.len() {
        split_jpegs(&data[..length]);
    }
}

#[test]
fn files_that_are_something_else_are_refused_with_words() {
    for (content, hint) in [
        (&b"hello"[..], "neither"),
        (b"", "neither"),
        (b"YUV4MPEG2 W320 H180 F25:1 C422\n", "4:2:0"),
        (b"YUV4MPEG2 W0 H180 F25:1\n", "size"),
        (b"YUV4MPEG2 W99999 H180 F25:1\n", "size"),
        (b"YUV4MPEG2 W320", "header"),
        (b"DKIF\0\0\x20\0VP90\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "VP8"),
        (b"DKIF", "header"),
        (&[0xff, 0xd8, 0xff], "picture"),
    ] {
        let file = file(content);
        let error = FileSource::open(file.path()).err().expect("refused").to_string();
        assert!(error.contains(hint), "{error}");
    }
    let empty = file(b"YUV4MPEG2 W320 H180 F25:1\n");
    let mut source = FileSource::open(empty.path()).expect("open");
    assert!(matches!(source.next(&mut FramePool::new(1)), Err(SourceEnd::Failed { key: "dev.file", .. })));
}
