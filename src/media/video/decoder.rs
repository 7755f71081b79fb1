//! Decoding off the network tasks: a pool of threads for all received streams, order kept within each stream.
//!
//! A stream's queue is bounded: when the decoder is behind, everything up to the next key frame is dropped and a key
//! frame is asked for. Audio is never touched by this.

mod present;

use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use present::{HELD_LIMIT, Held};

use super::codec::{CodecError, FrameStamp, VideoCodec, VideoDecoder, new_decoder};
use super::frame::{FramePool, FrameSlot, VideoFrame};
use crate::rtp::frame::EncodedFrame;

/// Encoded frames that wait for one stream's decoder: a second at 30 fps.
pub const QUEUE_LIMIT: usize = 30;
/// A key frame is asked for at most this often.
const KEY_FRAME_INTERVAL: Duration = Duration::from_millis(500);
/// What a stream tells its owner. Called on a pool thread; must not block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecoderEvent {
    /// Decoding cannot go on without a key frame.
    NeedKeyFrame,
    /// The first picture is in the slot.
    FirstPicture {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A new picture is in the slot: repaint.
    Picture,
    /// The codec's library does not start; nothing will ever be shown.
    Failed,
}

/// Called with every picture at the moment it is ready to be shown.
pub type FrameHook = Box<dyn Fn(&VideoFrame) + Send + Sync>;
/// Receives a stream's events.
pub type DecoderEvents = Box<dyn Fn(DecoderEvent) + Send + Sync>;

/// What a stream has decoded so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DecoderStats {
    /// Frames pushed.
    pub received: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Pictures put into the slot.
    pub shown: u64,
    /// Key frames decoded.
    pub key_frames: u64,
    /// Frames not decoded: waiting for a key frame, queue full, damaged.
    pub dropped: u64,
    /// Frames not decoded because the tile is hidden.
    pub hidden: u64,
    /// Damaged frames among the dropped.
    pub damaged: u64,
    /// Width of the last picture in pixels, 0 before the first.
    pub width: u32,
    /// Height of the last picture in pixels, 0 before the first.
    pub height: u32,
    /// Pictures a second over the last second or so.
    pub fps: f32,
    /// Gaps between pictures that a person notices.
    pub freezes: u64,
    /// Their length together, in ms.
    pub freeze_ms: u64,
    /// Gaps between pictures, those left out in which there was nothing to show: see [`DecoderStream::set_active`].
    pub gaps: u64,
    /// Their length together.
    pub live: Duration,
    /// Time to decode one picture, moving average in ms.
    pub decode_ms: f32,
}

/// Threads that decode for all streams. Cheap to clone; the threads end with the last clone and stream.
#[derive(Clone)]
pub struct DecoderPool {
    inner: Arc<PoolHandle>,
}

impl std::fmt::Debug for DecoderPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderPool").finish_non_exhaustive()
    }
}

struct PoolHandle {
    pool: Arc<Pool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Pool {
    stop: AtomicBool,
    /// Streams with work. Each is in here at most once, so the number of streams is the bound.
    ready: Mutex<VecDeque<Arc<Stream>>>,
    work: Condvar,
    held: Mutex<BinaryHeap<Held>>,
    due: Condvar,
    order: AtomicU64,
}

struct Stream {
    state: Mutex<StreamState>,
    slot: FrameSlot,
    events: DecoderEvents,
    hook: Option<FrameHook>,
    held: AtomicU64,
    /// Presentation time of the picture handed out last: later ones never overtake it.
    last_at: Mutex<Option<Instant>>,
    closed: AtomicBool,
    stats: Mutex<Counters>,
}

struct StreamState {
    queue: VecDeque<Queued>,
    scheduled: bool,
    visible: bool,
    need_key_frame: bool,
    asked_at: Option<Instant>,
    /// Absent while a pool thread works with it.
    decoder: Option<Decoding>,
    failed: bool,
    started: bool,
}

struct Decoding {
    decoder: Option<Box<dyn VideoDecoder>>,
    frames: FramePool,
}

struct Queued {
    frame: EncodedFrame,
    present_at: Option<Instant>,
}

#[derive(Default)]
struct Counters {
    stats: DecoderStats,
    last_shown: Option<Instant>,
    mean_gap_ms: f32,
    window_from: Option<Instant>,
    window_frames: u32,
    /// Switched off by the sender, or hidden by us.
    switched_off: bool,
    hidden: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DecoderPool {
    /// A pool with as many threads as the machine has cores, from 1 to 4, and one that presents.
    pub fn new() -> std::io::Result<Self> {
        Self::with_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, 4)))
    }

    /// A pool with this many decoding threads, at least one.
    pub fn with_threads(threads: usize) -> std::io::Result<Self> {
        let pool = Arc::new(Pool {
            stop: AtomicBool::new(false),
            ready: Mutex::default(),
            work: Condvar::new(),
            held: Mutex::default(),
            due: Condvar::new(),
            order: AtomicU64::new(0),
        });
        let handle = Arc::new(PoolHandle { pool: Arc::clone(&pool), threads: Mutex::default() });
        for number in 0..threads.max(1) {
            let pool = Arc::clone(&pool);
            let name = format!("video-decoder-{number}");
            let thread = std::thread::Builder::new().name(name).spawn(move || pool.decode_loop())?;
            lock(&handle.threads).push(thread);
        }
        let thread = std::thread::Builder::new().name("video-present".into()).spawn(move || pool.present_loop())?;
        lock(&handle.threads).push(thread);
        Ok(Self { inner: handle })
    }

    /// A new stream whose pictures go to `slot`. The codec is taken from the frames and may change with a key frame.
    pub fn stream(&self, slot: FrameSlot, events: DecoderEvents, hook: Option<FrameHook>) -> DecoderStream {
        let stream = Arc::new(Stream {
            state: Mutex::new(StreamState {
                queue: VecDeque::new(),
                scheduled: false,
                visible: true,
                need_key_frame: true,
                asked_at: None,
                // Pictures held for later, one in the slot, one being drawn, one being decoded.
                decoder: Some(Decoding { decoder: None, frames: FramePool::new(HELD_LIMIT + 3) }),
                failed: false,
                started: false,
            }),
            slot,
            events,
            hook,
            held: AtomicU64::new(0),
            last_at: Mutex::new(None),
            closed: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        DecoderStream { pool: self.clone(), stream }
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        self.pool.stop.store(true, Ordering::SeqCst);
        // Taking each lock once makes sure that no thread is between its look at `stop` and its wait.
        drop(lock(&self.pool.ready));
        self.pool.work.notify_all();
        drop(lock(&self.pool.held));
        self.pool.due.notify_all();
        let me = std::thread::current().id();
        for thread in lock(&self.threads).drain(..) {
            if thread.thread().id() != me {
                let _ = thread.join();
            }
        }
    }
}

/// One received video stream. Dropping it stops decoding and empties nothing: the last picture stays in the slot.
pub struct DecoderStream {
    pool: DecoderPool,
    stream: Arc<Stream>,
}

impl std::fmt::Debug for DecoderStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderStream").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl DecoderStream {
    /// Gives the next frame in decode order, to be shown as soon as it is decoded. Never blocks.
    pub fn push(&self, frame: EncodedFrame) {
        self.push_at(frame, None);
    }

    /// Gives the next frame in decode order, to be shown at `present_at` (or when decoded, if that is later).
    pub fn push_at(&self, frame: EncodedFrame, present_at: Option<Instant>) {
        let stream = &self.stream;
        lock(&stream.stats).stats.received += 1;
        let mut state = lock(&stream.state);
        if !state.visible {
            drop(state);
            lock(&stream.stats).stats.hidden += 1;
            return;
        }
        if state.failed {
            return;
        }
        let mut dropped = 0;
        if frame.key_frame {
            // What waits before a key frame would only delay it, if there is a lot of it.
            if state.queue.len() >= QUEUE_LIMIT / 2 {
                dropped += state.queue.len();
                state.queue.clear();
            }
            state.need_key_frame = false;
        } else if state.need_key_frame {
            dropped += 1;
        } else if state.queue.len() >= QUEUE_LIMIT {
            dropped += state.queue.len() + 1;
            state.queue.clear();
            state.need_key_frame = true;
        }
        let ask = state.need_key_frame && state.ask();
        let mut schedule = false;
        if !state.need_key_frame {
            state.queue.push_back(Queued { frame, present_at });
            schedule = !std::mem::replace(&mut state.scheduled, true);
        }
        drop(state);
        if dropped > 0 {
            lock(&stream.stats).stats.dropped += dropped as u64;
        }
        if ask {
            (stream.events)(DecoderEvent::NeedKeyFrame);
        }
        if schedule {
            self.pool.inner.pool.schedule(Arc::clone(stream));
        }
    }

    /// Whether the sender gives pictures: a camera that is switched off has not frozen. Pictures still under way when it is
    /// switched off are shown all the same.
    pub fn set_active(&self, active: bool) {
        lock(&self.stream.stats).interrupt(|c| c.switched_off = !active);
    }

    /// A hidden tile is not decoded at all; when it is shown again, a key frame is asked for at once.
    pub fn set_visible(&self, visible: bool) {
        lock(&self.stream.stats).interrupt(|c| c.hidden = !visible);
        let mut state = lock(&self.stream.state);
        if state.visible == visible {
            return;
        }
        state.visible = visible;
        state.need_key_frame = true;
        let hidden = state.queue.len();
        state.queue.clear();
        let ask = visible && {
            state.asked_at = None;
            state.ask()
        };
        drop(state);
        let mut counters = lock(&self.stream.stats);
        counters.stats.hidden += hidden as u64;
        // The gap of a hidden tile is no freeze.
        counters.last_shown = None;
        drop(counters);
        if ask {
            (self.stream.events)(DecoderEvent::NeedKeyFrame);
        }
    }

    /// The transport lost something for good: nothing is decoded until the next key frame.
    pub fn reset(&self) {
        let mut state = lock(&self.stream.state);
        state.need_key_frame = true;
        let dropped = state.queue.len();
        state.queue.clear();
        drop(state);
        lock(&self.stream.stats).stats.dropped += dropped as u64;
    }

    /// What it has decoded so far.
    pub fn stats(&self) -> DecoderStats {
        lock(&self.stream.stats).stats
    }

    /// The slot its pictures go to.
    pub fn slot(&self) -> &FrameSlot {
        &self.stream.slot
    }
}

impl Drop for DecoderStream {
    fn drop(&mut self) {
        self.stream.closed.store(true, Ordering::SeqCst);
        let mut state = lock(&self.stream.state);
        state.queue.clear();
        state.visible = false;
    }
}

impl StreamState {
    /// Whether a key frame is to be asked for now.
    fn ask(&mut self) -> bool {
        let now = Instant::now();
        if self.asked_at.is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_INTERVAL) {
            return false;
        }
        self.asked_at = Some(now);
        true
    }
}

impl Pool {
    fn schedule(&self, stream: Arc<Stream>) {
        lock(&self.ready).push_back(stream);
        self.work.notify_one();
    }

    fn decode_loop(&self) {
        loop {
            let mut ready = lock(&self.ready);
            let stream = loop {
                if self.stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(stream) = ready.pop_front() {
                    break stream;
                }
                ready = self.work.wait(ready).unwrap_or_else(PoisonError::into_inner);
            };
            drop(ready);
            // One frame per turn: a stream with a long queue does not starve the others.
            if self.decode_one(&stream) {
                self.schedule(stream);
            }
        }
    }

    /// Decodes one frame; whether there are more.
    fn decode_one(&self, stream: &Arc<Stream>) -> bool {
        let mut state = lock(&stream.state);
        let (Some(queued), Some(mut decoding)) = (state.queue.pop_front(), state.decoder.take()) else {
            state.scheduled = false;
            return false;
        };
        drop(state);
        let started = Instant::now();
        let result = decoding.decode(&queued);
        let took = started.elapsed().as_secs_f32() * 1000.0;

        let mut state = lock(&stream.state);
        let mut ask = false;
        let mut failed = false;
        match &result {
            Ok(_) => {}
            Err(CodecError::Setup { .. }) => {
                failed = !std::mem::replace(&mut state.failed, true);
                state.queue.clear();
            }
            Err(_) => {
                // References are broken: everything up to the next key frame would show garbage.
                let key = state.queue.iter().position(|q| q.frame.key_frame);
                let dropped = key.unwrap_or(state.queue.len());
                state.queue.drain(..dropped);
                lock(&stream.stats).stats.dropped += dropped as u64;
                if key.is_none() {
                    state.need_key_frame = true;
                    ask = state.ask();
                }
            }
        }
        let visible = state.visible;
        state.decoder = Some(decoding);
        let more = !state.queue.is_empty();
        state.scheduled = more;
        drop(state);

        match result {
            Ok(picture) => {
                {
                    let mut counters = lock(&stream.stats);
                    let s = &mut counters.stats;
                    s.key_frames += u64::from(queued.frame.key_frame);
                    s.decoded += u64::from(picture.is_some());
                    s.decode_ms = if s.decode_ms == 0.0 { took } else { s.decode_ms * 0.9 + took * 0.1 };
                }
                if let Some(picture) = picture
                    && visible
                {
                    self.present(stream, picture, queued.present_at);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a received frame was not decoded");
                let mut counters = lock(&stream.stats);
                counters.stats.dropped += 1;
                counters.stats.damaged += 1;
            }
        }
        if failed {
            (stream.events)(DecoderEvent::Failed);
        }
        if ask {
            (stream.events)(DecoderEvent::NeedKeyFrame);
        }
        more
    }
}

impl Decoding {
    fn decode(&mut self, queued: &Queued) -> Result<Option<Arc<VideoFrame>>, CodecError> {
        let codec: VideoCodec = queued.frame.codec;
        if self.decoder.as_ref().is_none_or(|d| d.codec() != codec) {
            self.decoder = Some(new_decoder(codec)?);
        }
        let stamp =
            FrameStamp { at: queued.present_at.unwrap_or(queued.frame.at), rtp_timestamp: queued.frame.rtp_timestamp };
        match &mut self.decoder {
            Some(decoder) => decoder.decode(&queued.frame.data, &mut self.frames, stamp),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
