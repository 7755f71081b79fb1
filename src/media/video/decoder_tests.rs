use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::media::video::codec::{Content, EncoderSettings, VideoEncoder, new_encoder};
use crate::media::video::pattern::{PatternPainter, PatternStats, read, unix_ms};
use crate::media::video::source::{PatternSource, VideoMode};

/// A sender of test pictures, without threads.
struct Sender {
    encoder: Box<dyn VideoEncoder>,
    painter: PatternPainter,
    picture: VideoFrame,
    count: u64,
}

impl Sender {
    fn new(codec: VideoCodec, id: u8) -> Self {
        let (width, height) = (320, 180);
        let settings = EncoderSettings { width, height, fps: 30, bitrate_bps: 300_000, content: Content::Screen };
        let mode = VideoMode { width, height, fps: 30 };
        Self {
            encoder: new_encoder(codec, settings).expect("encoder"),
            painter: PatternPainter::new(PatternSource { id, mode, sync: false }),
            picture: VideoFrame::black(width, height),
            count: 0,
        }
    }

    fn next(&mut self, key_frame: bool) -> EncodedFrame {
        self.painter.draw(&mut self.picture, unix_ms());
        self.count += 1;
        let ticks = self.count * 3_000;
        let encoded = self.encoder.encode(&self.picture, ticks, key_frame).expect("encoded").expect("not left out");
        EncodedFrame {
            codec: self.encoder.codec(),
            data: encoded.data,
            rtp_timestamp: ticks as u32,
            key_frame: encoded.key_frame,
            size: None,
            at: Instant::now(),
        }
    }
}

fn stream(pool: &DecoderPool, hook: Option<FrameHook>) -> (DecoderStream, mpsc::Receiver<DecoderEvent>) {
    let (sender, receiver) = mpsc::sync_channel(1_000);
    let events: DecoderEvents = Box::new(move |event| sender.try_send(event).unwrap_or(()));
    (pool.stream(FrameSlot::new(), events, hook), receiver)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(5), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn asked(events: &mpsc::Receiver<DecoderEvent>) -> usize {
    events.try_iter().filter(|e| *e == DecoderEvent::NeedKeyFrame).count()
}

#[test]
fn pictures_arrive_in_order_and_the_hook_reads_them() {
    let pool = DecoderPool::with_threads(3).expect("pool");
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let stats = PatternStats::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (reader, seen) = (stats.clone(), Arc::clone(&order));
        let hook: FrameHook = Box::new(move |frame| {
            reader.observe(frame);
            lock(&seen).push(frame.rtp_timestamp);
        });
        let (stream, events) = stream(&pool, Some(hook));
        let mut sender = Sender::new(codec, 77);
        for i in 0..40 {
            stream.push(sender.next(i == 0));
            std::thread::sleep(Duration::from_millis(3));
        }
        wait_until("all shown", || stream.stats().shown == 40);
        assert_eq!(events.recv(), Ok(DecoderEvent::FirstPicture { width: 320, height: 180 }));
        assert_eq!(events.recv(), Ok(DecoderEvent::Picture));
        let order = lock(&order).clone();
        assert_eq!(order, (1..=40).map(|i| i * 3_000).collect::<Vec<u32>>());
        let report = stats.report().expect("pattern");
        assert_eq!((report.id, report.frames_read, report.crc_errors), (Some(77), 40, 0));
        assert!(report.latency_ms_p95.expect("latency") < 1_000.0);
        let s = stream.stats();
        assert_eq!((s.received, s.decoded, s.dropped, s.key_frames), (40, 40, 0, 1));
        assert_eq!((s.width, s.height), (320, 180));
        let picture = stream.slot().latest().expect("picture");
        assert_eq!(read(&picture).map(|r| r.id), Some(77));
    }
}

#[test]
fn without_a_key_frame_nothing_is_shown_and_one_is_asked_for_now_and_then() {
    let pool = DecoderPool::with_threads(1).expect("pool");
    let (stream, events) = stream(&pool, None);
    let mut sender = Sender::new(VideoCodec::Vp8, 1);
    let key = sender.next(true);
    for _ in 0..20 {
        stream.push(sender.next(false));
    }
    assert_eq!(asked(&events), 1, "rate limited");
    std::thread::sleep(KEY_FRAME_INTERVAL);
    stream.push(sender.next(false));
    assert_eq!(asked(&events), 1, "asked again");
    assert!(stream.slot().latest().is_none());
    assert_eq!(stream.stats().dropped, 21);
    drop(key);
    stream.push(sender.next(true));
    wait_until("shown", || stream.stats().shown == 1);
}

#[test]
fn damage_asks_for_a_key_frame_and_shows_nothing_until_it_comes() {
    let pool = DecoderPool::with_threads(2).expect("pool");
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let (stream, events) = stream(&pool, None);
        let mut sender = Sender::new(codec, 1);
        stream.push(sender.next(true));
        wait_until("first", || stream.stats().shown == 1);
        stream.push(EncodedFrame { data: Bytes::new(), ..sender.next(false) });
        let rubbish = EncodedFrame { data: Bytes::from_static(&[0, 0, 1, 0x67, 255, 1]), ..sender.next(true) };
        stream.push(rubbish);
        wait_until("asked", || asked(&events) > 0);
        stream.push(sender.next(false));
        assert_eq!(stream.stats().shown, 1);
        stream.push(sender.next(true));
        stream.push(sender.next(false));
        wait_until("mended", || stream.stats().shown == 3);
        assert!(stream.stats().damaged >= 1);
    }
}

#[test]
fn a_hidden_tile_is_not_decoded() {
    let pool = DecoderPool::with_threads(1).expect("pool");
    let (stream, events) = stream(&pool, None);
    let mut sender = Sender::new(VideoCodec::Vp8, 1);
    stream.push(sender.next(true));
    wait_until("first", || stream.stats().shown == 1);
    stream.set_visible(false);
    for i in 0..10 {
        stream.push(sender.next(i == 5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((stream.stats().decoded, stream.stats().hidden), (1, 10));
    let _ = asked(&events);
    stream.set_visible(true);
    assert_eq!(asked(&events), 1, "asked at once");
    stream.push(sender.next(false));
    stream.push(sender.next(true));
    wait_until("back", || stream.stats().shown == 2);
}

#[test]
fn a_decoder_that_is_behind_drops_to_the_next_key_frame() {
    let pool = DecoderPool::with_threads(1).expect("pool");
    // A hook that holds the only thread, so that the queue fills.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let hook: FrameHook = Box::new(move |_| {
        let mut open = lock(&held.0);
        while !*open {
            open = held.1.wait(open).expect("gate");
        }
    });
    let (stream, events) = stream(&pool, Some(hook));
    let mut sender = Sender::new(VideoCodec::Vp8, 1);
    stream.push(sender.next(true));
    wait_until("the thread is held", || stream.stats().decoded == 1);
    for _ in 0..QUEUE_LIMIT {
        stream.push(sender.next(false));
    }
    assert_eq!(asked(&events), 0);
    stream.push(sender.next(false));
    assert_eq!(asked(&events), 1);
    assert_eq!(stream.stats().dropped as usize, QUEUE_LIMIT + 1);
    stream.push(sender.next(false));
    stream.push(sender.next(true));
    stream.push(sender.next(false));
    *lock(&gate.0) = true;
    gate.1.notify_all();
    wait_until("caught up", || stream.stats().shown == 3);
    assert_eq!(stream.stats().damaged, 0);
}

#[test]
fn pictures_are_held_to_their_time_and_never_jump_back() {
    let pool = DecoderPool::with_threads(2).expect("pool");
    let shown = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&shown);
    let hook: FrameHook = Box::new(move |frame| lock(&seen).push((frame.rtp_timestamp, frame.at, Instant::now())));
    let (stream, _events) = stream(&pool, Some(hook));
    let mut sender = Sender::new(VideoCodec::Vp8, 1);
    let start = Instant::now() + Duration::from_millis(100);
    for i in 0..6u32 {
        // The fourth has no time: it must still wait for those before it.
        let at = (i != 3).then(|| start + Duration::from_millis(40) * i);
        stream.push_at(sender.next(i == 0), at);
    }
    wait_until("all shown", || stream.stats().shown == 6);
    let shown = lock(&shown).clone();
    assert_eq!(shown.iter().map(|s| s.0).collect::<Vec<_>>(), (1..=6).map(|i| i * 3_000).collect::<Vec<u32>>());
    for (i, (_, at, really)) in (0u32..).zip(&shown) {
        if i != 3 {
            assert_eq!(*at, start + Duration::from_millis(40) * i);
            assert!(really >= at, "{i} came too early");
        }
    }
}

#[test]
fn a_crazy_presentation_time_and_too_many_held_pictures_are_shown_at_once() {
    let pool = DecoderPool::with_threads(1).expect("pool");
    let (stream, _events) = stream(&pool, None);
    let mut sender = Sender::new(VideoCodec::Vp8, 1);
    stream.push_at(sender.next(true), Some(Instant::now() + Duration::from_secs(3_600)));
    wait_until("shown", || stream.stats().shown == 1);
    let late = Instant::now() + Duration::from_millis(900);
    for _ in 0..HELD_LIMIT + 4 {
        stream.push_at(sender.next(false), Some(late));
    }
    let started = Instant::now();
    wait_until("hurried", || stream.stats().shown > HELD_LIMIT as u64);
    assert!(started.elapsed() < Duration::from_millis(700), "{:?}", started.elapsed());
}

#[test]
fn many_streams_share_the_threads_and_end_cleanly() {
    let pool = DecoderPool::with_threads(2).expect("pool");
    let mut streams: Vec<_> = (0..9).map(|id| (stream(&pool, None), Sender::new(VideoCodec::Vp8, id))).collect();
    for i in 0..20 {
        for ((stream, _), sender) in &mut streams {
            stream.push(sender.next(i == 0));
        }
    }
    for ((stream, _), _) in &streams {
        wait_until("all shown", || stream.stats().shown == 20);
    }
    let survivor = streams.pop();
    drop(streams);
    drop(pool);
    if let Some(((stream, _), mut sender)) = survivor {
        stream.push(sender.next(false));
        wait_until("the pool lives with its streams", || stream.stats().shown == 21);
    }
}

#[test]
fn freezes_are_gaps_that_a_person_notices() {
    let mut counters = Counters::default();
    let start = Instant::now();
    let mut now = start;
    for i in 0..100u64 {
        now += Duration::from_millis(if i == 60 { 500 } else { 33 });
        counters.shown(640, 360, now);
    }
    assert_eq!((counters.stats.freezes, counters.stats.freeze_ms), (1, 500));
    assert!((counters.stats.fps - 30.0).abs() < 2.0, "{}", counters.stats.fps);
}

#[test]
fn a_camera_that_is_switched_off_has_not_frozen() {
    let mut counters = Counters::default();
    let started = Instant::now();
    let at = |ms: u64| started + Duration::from_millis(ms);
    (0..10).for_each(|i| counters.shown(320, 180, at(i * 33)));
    counters.interrupt(|c| c.switched_off = true);
    // Two more were under way.
    counters.shown(320, 180, at(330));
    counters.shown(320, 180, at(363));
    counters.interrupt(|c| c.switched_off = false);
    (0..10).for_each(|i| counters.shown(320, 180, at(4_400 + i * 33)));
    let stats = &counters.stats;
    assert_eq!((stats.freezes, stats.shown, stats.gaps), (0, 22, 18));
    assert_eq!(stats.live, Duration::from_millis(18 * 33));
}
