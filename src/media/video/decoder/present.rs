//! Decoded pictures until they are seen: held until they are due, shown, counted.

use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Counters, DecoderEvent, Pool, Stream, lock};
use crate::media::video::frame::VideoFrame;

/// Decoded pictures of one stream that wait for their time; more are shown at once, oldest first.
pub(super) const HELD_LIMIT: usize = 10;
/// A presentation time further away than this is a broken clock: the picture is shown at once.
const MAX_HOLD: Duration = Duration::from_secs(1);
/// A picture that took this long over the last one counts as a freeze (WebRTC statistics: 150 ms over the average, 3 times it).
const FREEZE: Duration = Duration::from_millis(150);

/// A decoded picture that waits for its time.
pub(super) struct Held {
    at: Instant,
    order: u64,
    stream: Arc<Stream>,
    frame: Arc<VideoFrame>,
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Held {}
impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // The heap gives the greatest: the earliest must be it.
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl Pool {
    pub(super) fn present(&self, stream: &Arc<Stream>, frame: Arc<VideoFrame>, at: Option<Instant>) {
        let now = Instant::now();
        let held = stream.held.load(Ordering::SeqCst);
        let mut at = at.filter(|at| *at > now && *at - now <= MAX_HOLD).unwrap_or(now);
        if held == 0 && at <= now {
            return stream.show(frame);
        }
        {
            // A late picture waits for those before it, or the picture would jump back.
            let mut last = lock(&stream.last_at);
            if held > 0 {
                at = last.map_or(at, |last| at.max(last));
            }
            *last = Some(at);
        }
        stream.held.fetch_add(1, Ordering::SeqCst);
        let order = self.order.fetch_add(1, Ordering::Relaxed);
        let mut waiting = lock(&self.held);
        waiting.push(Held { at, order, stream: Arc::clone(stream), frame });
        if held >= HELD_LIMIT as u64 {
            let hurried = waiting.drain().map(|mut h| {
                if Arc::ptr_eq(&h.stream, stream) {
                    h.at = now;
                }
                h
            });
            let hurried: BinaryHeap<_> = hurried.collect();
            *waiting = hurried;
            *lock(&stream.last_at) = Some(now);
        }
        drop(waiting);
        self.due.notify_one();
    }

    pub(super) fn present_loop(&self) {
        let mut held = lock(&self.held);
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Some(next) = held.peek().map(|h| h.at) else {
                held = self.due.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let now = Instant::now();
            if next > now {
                held = self.due.wait_timeout(held, next - now).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(due) = held.pop() {
                drop(held);
                due.stream.show(due.frame);
                due.stream.held.fetch_sub(1, Ordering::SeqCst);
                held = lock(&self.held);
            }
        }
    }
}

impl Stream {
    fn show(&self, frame: Arc<VideoFrame>) {
        if self.closed.load(Ordering::SeqCst) {
            return;
        }
        if let Some(hook) = &self.hook {
            hook(&frame);
        }
        let (width, height) = (frame.width, frame.height);
        self.slot.put(frame);
        lock(&self.stats).shown(width, height, Instant::now());
        let first = !std::mem::replace(&mut lock(&self.state).started, true);
        if first {
            (self.events)(DecoderEvent::FirstPicture { width, height });
        }
        (self.events)(DecoderEvent::Picture);
    }
}

impl Counters {
    /// Pictures stop or come again on purpose: the time between is no gap. Until they come again none is measured, since some
    /// are still under way.
    pub(super) fn interrupt(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.last_shown = None;
        self.window_from = None;
        self.window_frames = 0;
    }

    pub(super) fn shown(&mut self, width: u32, height: u32, now: Instant) {
        let s = &mut self.stats;
        s.shown += 1;
        (s.width, s.height) = (width, height);
        if let Some(last) = self.last_shown {
            let gap = now.saturating_duration_since(last);
            let gap_ms = gap.as_secs_f32() * 1000.0;
            s.gaps += 1;
            s.live += gap;
            let limit = (3.0 * self.mean_gap_ms).max(self.mean_gap_ms + FREEZE.as_secs_f32() * 1000.0);
            if self.mean_gap_ms > 0.0 && gap_ms > limit {
                s.freezes += 1;
                s.freeze_ms += u64::try_from(gap.as_millis()).unwrap_or(0);
            } else {
                self.mean_gap_ms =
                    if self.mean_gap_ms == 0.0 { gap_ms } else { self.mean_gap_ms * 0.95 + gap_ms * 0.05 };
            }
        }
        self.last_shown = (!self.switched_off && !self.hidden).then_some(now);
        self.window_frames += 1;
        let from = *self.window_from.get_or_insert(now);
        let seconds = now.saturating_duration_since(from).as_secs_f32();
        if seconds >= 1.0 {
            s.fps = self.window_frames as f32 / seconds;
            self.window_frames = 0;
            self.window_from = Some(now);
        }
    }
}
