//! One picture in planar YUV 4:2:0, and the slot that hands the newest one over.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

/// A picture in I420, BT.601 limited range unless said, planes tightly packed (stride = width).
#[derive(Debug)]
pub struct VideoFrame {
    /// Width in pixels, even.
    pub width: u32,
    /// Height in pixels, even.
    pub height: u32,
    /// Luma, `width × height` bytes.
    pub y: Vec<u8>,
    /// Blue difference, `width/2 × height/2` bytes.
    pub u: Vec<u8>,
    /// Red difference, `width/2 × height/2` bytes.
    pub v: Vec<u8>,
    /// Capture time (own picture) or presentation time (received).
    pub at: Instant,
    /// RTP timestamp it was received with, 0 for own pictures.
    pub rtp_timestamp: u32,
}

/// Latest-value slot: the newest frame wins, the reader never waits and never sees an old one twice unless it wants to.
#[derive(Debug, Clone, Default)]
pub struct FrameSlot {
    inner: Arc<SlotInner>,
}

#[derive(Debug, Default)]
struct SlotInner {
    frame: ArcSwapOption<VideoFrame>,
    version: AtomicU64,
    waiters: AtomicUsize,
    gate: Mutex<()>,
    changed: Condvar,
}

impl FrameSlot {
    /// An empty slot.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame in; whatever was there is dropped.
    pub fn put(&self, frame: Arc<VideoFrame>) {
        self.inner.frame.store(Some(frame));
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// Takes the picture away (camera closed, stream gone).
    pub fn clear(&self) {
        self.inner.frame.store(None);
        self.inner.version.fetch_add(1, Ordering::SeqCst);
        self.wake();
    }

    /// The newest frame, left in place.
    pub fn latest(&self) -> Option<Arc<VideoFrame>> {
        self.inner.frame.load_full()
    }

    /// Rises with every `put` and `clear`; lets a drawer skip uploads.
    pub fn version(&self) -> u64 {
        self.inner.version.load(Ordering::SeqCst)
    }

    /// Waits until the version differs from `seen`, [`FrameSlot::wake`] is called or `timeout` is over; returns the version.
    ///
    /// For threads of their own only: a drawer never waits.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let inner = &*self.inner;
        inner.waiters.fetch_add(1, Ordering::SeqCst);
        let guard = inner.gate.lock().unwrap_or_else(PoisonError::into_inner);
        // The version is read under the lock that `wake` takes, so that no change slips in between reading and waiting.
        let now = inner.version.load(Ordering::SeqCst);
        if now == seen {
            drop(inner.changed.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner));
        } else {
            drop(guard);
        }
        inner.waiters.fetch_sub(1, Ordering::SeqCst);
        self.version()
    }

    /// Ends every running [`FrameSlot::wait`] at once.
    pub fn wake(&self) {
        // Nobody waits on most slots (tiles): then no lock is touched.
        if self.inner.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner));
            self.inner.changed.notify_all();
        }
    }
}

impl VideoFrame {
    /// A black picture; odd sizes are rounded down to even, never below 2.
    pub fn black(width: u32, height: u32) -> Self {
        let (width, height) = even_size(width, height);
        let luma = (width as usize) * (height as usize);
        Self {
            width,
            height,
            y: vec![16; luma],
            u: vec![128; luma / 4],
            v: vec![128; luma / 4],
            at: Instant::now(),
            rtp_timestamp: 0,
        }
    }

    /// Whether the planes have the lengths that the size promises.
    pub fn is_consistent(&self) -> bool {
        let luma = (self.width as usize) * (self.height as usize);
        self.width >= 2
            && self.height >= 2
            && self.width.is_multiple_of(2)
            && self.height.is_multiple_of(2)
            && self.y.len() == luma
            && self.u.len() == luma / 4
            && self.v.len() == luma / 4
    }
}

/// Rounds down to even, never below 2: 4:2:0 has no odd sizes here.
pub fn even_size(width: u32, height: u32) -> (u32, u32) {
    ((width & !1).max(2), (height & !1).max(2))
}

/// Reuses the memory of pictures that nobody holds any longer; keeps at most `limit` of them, and of those no more than were
/// needed lately.
///
/// A 720p picture is 1.4 MB: allocating 30 of them a second means as many page faults, which cost more than the copy.
#[derive(Debug)]
pub struct FramePool {
    /// The first that is free is taken, so that those at the end rest when fewer do.
    frames: Vec<Arc<VideoFrame>>,
    limit: usize,
    /// Pictures drawn since it was last looked how many are needed, and that many were.
    drawn: u32,
    needed: usize,
}

/// Pictures after which those that were not needed meanwhile are let go: four seconds.
const LOOKED_AT_AFTER: u32 = 120;

impl FramePool {
    /// A pool that keeps up to `limit` pictures.
    pub fn new(limit: usize) -> Self {
        Self { frames: Vec::new(), limit, drawn: 0, needed: 0 }
    }

    /// A picture of this size (rounded down to even) written by `draw`, which finds old or black content.
    /// On an error of `draw` the picture goes back to the pool.
    pub fn draw<E>(
        &mut self,
        width: u32,
        height: u32,
        draw: impl FnOnce(&mut VideoFrame) -> Result<(), E>,
    ) -> Result<Arc<VideoFrame>, E> {
        let (width, height) = even_size(width, height);
        // Pictures of another size are let go as soon as they are free: sizes change rarely and then for good.
        self.frames.retain(|f| (f.width, f.height) == (width, height) || Arc::strong_count(f) > 1);
        self.drawn += 1;
        if self.drawn > LOOKED_AT_AFTER {
            self.frames.truncate(self.needed);
            (self.drawn, self.needed) = (1, 0);
        }
        for (at, frame) in self.frames.iter_mut().enumerate() {
            if (frame.width, frame.height) == (width, height)
                && let Some(picture) = Arc::get_mut(frame)
            {
                self.needed = self.needed.max(at + 1);
                draw(picture)?;
                return Ok(Arc::clone(frame));
            }
        }
        let mut picture = VideoFrame::black(width, height);
        draw(&mut picture)?;
        let frame = Arc::new(picture);
        if self.frames.len() >= self.limit {
            self.frames.remove(0);
        }
        self.frames.push(Arc::clone(&frame));
        self.needed = self.frames.len();
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_reader_is_woken_by_put_clear_and_wake() {
        for step in 0..3 {
            let slot = FrameSlot::new();
            let other = slot.clone();
            let seen = slot.version();
            let started = Instant::now();
            let thread = std::thread::spawn(move || other.wait(seen, Duration::from_secs(10)));
            while slot.inner.waiters.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            match step {
                0 => slot.put(Arc::new(VideoFrame::black(2, 2))),
                1 => slot.clear(),
                _ => slot.wake(),
            }
            let version = thread.join().expect("reader");
            assert_eq!(version != seen, step < 2);
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn wait_ends_by_itself() {
        let slot = FrameSlot::new();
        assert_eq!(slot.wait(slot.version(), Duration::from_millis(5)), 0);
    }

    #[test]
    fn the_pool_reuses_memory_only_when_free() {
        let mut pool = FramePool::new(4);
        let draw = |pool: &mut FramePool, w, h| pool.draw(w, h, |_| Ok::<_, ()>(())).expect("drawn");
        let first = draw(&mut pool, 64, 64);
        let address = first.y.as_ptr();
        let second = draw(&mut pool, 64, 64);
        assert_ne!(second.y.as_ptr(), address, "a picture in use is not drawn over");
        drop(first);
        assert_eq!(draw(&mut pool, 64, 64).y.as_ptr(), address);
        let other = draw(&mut pool, 33, 31);
        assert_eq!((other.width, other.height), (32, 30));
        assert!(other.is_consistent());
        let held: Vec<_> = (0..10).map(|_| draw(&mut pool, 64, 64)).collect();
        assert!(pool.frames.len() <= 4);
        assert_eq!(held.len(), 10);
    }

    #[test]
    fn the_pool_lets_go_of_what_is_not_needed_any_more() {
        let mut pool = FramePool::new(8);
        let draw = |pool: &mut FramePool| pool.draw(64, 64, |_| Ok::<_, ()>(())).expect("drawn");
        let held: Vec<_> = (0..6).map(|_| draw(&mut pool)).collect();
        drop(held);
        // Two at a time are enough from now on.
        let mut last = draw(&mut pool);
        for _ in 0..LOOKED_AT_AFTER {
            last = draw(&mut pool);
        }
        assert_eq!(pool.frames.len(), 6, "they were needed in that time");
        for _ in 0..=LOOKED_AT_AFTER {
            last = draw(&mut pool);
        }
        assert_eq!(pool.frames.len(), 2);
        let address = last.y.as_ptr();
        draw(&mut pool);
        assert_ne!(draw(&mut pool).y.as_ptr(), address, "what is held is not drawn over");
    }
}
