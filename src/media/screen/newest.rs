//! The newest picture of a screen, between the system's callback that brings it and the source that is asked for it.
//!
//! Systems bring a picture when something has changed; where nothing has, the last one is given again four times a second. Some bring
//! none before something changes for the first time: until then it is black.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{STILL, again};
use crate::media::video::capture::SourceEnd;
use crate::media::video::convert::{self, PixelFormat};
use crate::media::video::frame::{FramePool, VideoFrame, even_size};

/// A screen whose size is not known by then is none.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How soon an end that nobody calls out is seen.
const LOOK: Duration = Duration::from_millis(50);
/// Pictures in flight: the newest, the one in the encoder, the one that is drawn, the one being filled.
const POOL: usize = 4;

/// What the callback's thread and the source share.
#[derive(Default)]
pub(super) struct Newest {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Of the format that was agreed on, then of the pictures.
    size: Option<(u32, u32)>,
    picture: Option<Arc<VideoFrame>>,
    /// Grows with every picture.
    number: u64,
    ended: bool,
    /// Why, if it was not in order.
    error: Option<String>,
}

enum Waited<T> {
    There(T),
    Nothing,
    End(Option<String>),
}

impl Newest {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, picture: Arc<VideoFrame>) {
        let mut state = self.lock();
        state.size = Some((picture.width, picture.height));
        state.picture = Some(picture);
        state.number += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// The size of the pictures that will come.
    pub(super) fn announce(&self, width: u32, height: u32) {
        self.lock().size.get_or_insert((width, height));
        self.changed.notify_all();
    }

    /// The first end counts.
    pub(super) fn end(&self, error: Option<String>) {
        let mut state = self.lock();
        if !state.ended {
            state.ended = true;
            state.error = error;
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until `there` finds what it looks for.
    fn wait<T>(&self, limit: Duration, gone: &dyn Fn() -> bool, there: impl Fn(&State) -> Option<T>) -> Waited<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if state.ended || gone() {
                return Waited::End(state.error.clone());
            }
            if let Some(found) = there(&state) {
                return Waited::There(found);
            }
            let now = Instant::now();
            if now >= deadline {
                return Waited::Nothing;
            }
            state =
                self.changed.wait_timeout(state, LOOK.min(deadline - now)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The callback's side: makes pictures of pixels.
pub(super) struct Filler {
    newest: Arc<Newest>,
    pool: FramePool,
}

impl Filler {
    pub(super) fn new(newest: Arc<Newest>) -> Self {
        Self { newest, pool: FramePool::new(POOL) }
    }

    /// Converts at once: the pixels are the system's again afterwards. Rows are `stride` bytes apart.
    pub(super) fn fill(&mut self, layout: PixelFormat, (width, height): (u32, u32), stride: u32, pixels: &[u8]) {
        if width < 2 || height < 2 {
            return;
        }
        let picture = self.pool.draw(width, height, |frame| {
            frame.at = Instant::now();
            frame.rtp_timestamp = 0;
            convert::to_i420_strided(frame, layout, width, height, stride, pixels)
        });
        match picture {
            Ok(picture) => self.newest.put(picture),
            Err(error) => tracing::debug!(%error, "a picture of the screen was left out"),
        }
    }
}

/// The source's side. `gone` says that the screen has ended without a word.
pub(super) struct Reader {
    newest: Arc<Newest>,
    seen: u64,
    last: Option<Arc<VideoFrame>>,
}

impl Reader {
    pub(super) fn new(newest: Arc<Newest>) -> Self {
        Self { newest, seen: 0, last: None }
    }

    /// Waits until the pictures' size is known.
    pub(super) fn begin(&self, gone: &dyn Fn() -> bool) -> Result<(), String> {
        match self.newest.wait(BEGIN_TIMEOUT, gone, |s| s.size.map(|_| ())) {
            Waited::There(()) => Ok(()),
            Waited::Nothing => Err(format!("nothing came of the screen for {} s", BEGIN_TIMEOUT.as_secs())),
            Waited::End(why) => Err(why.unwrap_or_else(|| "the desktop ended the share".into())),
        }
    }

    pub(super) fn size(&self) -> (u32, u32) {
        let (width, height) = self.newest.lock().size.unwrap_or_default();
        even_size(width, height)
    }

    pub(super) fn next(&mut self, pool: &mut FramePool, gone: &dyn Fn() -> bool) -> Result<Arc<VideoFrame>, SourceEnd> {
        let seen = self.seen;
        let newer = |s: &State| s.picture.clone().filter(|_| s.number != seen).map(|p| (s.number, p));
        match self.newest.wait(STILL, gone, newer) {
            Waited::There((number, picture)) => {
                self.seen = number;
                self.last = Some(Arc::clone(&picture));
                Ok(picture)
            }
            Waited::Nothing => match &self.last {
                Some(last) => again(last, pool),
                None => {
                    let (width, height) = self.size();
                    again(&VideoFrame::black(width, height), pool)
                }
            },
            Waited::End(None) => Err(SourceEnd::Ended),
            Waited::End(Some(detail)) => Err(SourceEnd::Failed { key: "err.portal", detail }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HERE: &dyn Fn() -> bool = &|| false;

    #[test]
    fn it_is_black_then_the_newest_then_the_same_again() {
        let newest = Arc::new(Newest::default());
        let mut reader = Reader::new(Arc::clone(&newest));
        let mut pool = FramePool::new(2);
        newest.announce(5, 4);
        reader.begin(HERE).unwrap();
        let black = reader.next(&mut pool, HERE).unwrap();
        assert_eq!(((black.width, black.height), black.y.first()), ((4, 4), Some(&16)));
        // Rows with padding, an odd width, and two pictures of which the second counts.
        let mut filler = Filler::new(Arc::clone(&newest));
        filler.fill(PixelFormat::Bgra, (5, 4), 24, &[0; 24 * 4]);
        filler.fill(PixelFormat::Bgra, (5, 4), 24, &[255; 24 * 4]);
        let white = reader.next(&mut pool, HERE).unwrap();
        assert!(white.y.iter().all(|y| *y > 230), "{:?}", white.y);
        let still = reader.next(&mut pool, HERE).unwrap();
        assert_eq!(still.y, white.y);
        assert!(still.at > white.at);
    }

    #[test]
    fn pixels_that_are_too_few_are_left_out() {
        let newest = Arc::new(Newest::default());
        Filler::new(Arc::clone(&newest)).fill(PixelFormat::Bgra, (64, 64), 256, &[0; 1_000]);
        Filler::new(Arc::clone(&newest)).fill(PixelFormat::Bgra, (1, 64), 4, &[0; 256]);
        assert_eq!(newest.lock().number, 0);
    }

    #[test]
    fn the_first_end_is_told_and_so_is_one_without_a_word() {
        let newest = Arc::new(Newest::default());
        let mut reader = Reader::new(Arc::clone(&newest));
        let mut pool = FramePool::new(2);
        newest.announce(4, 4);
        assert_eq!(reader.next(&mut pool, &|| true).unwrap_err(), SourceEnd::Ended);
        newest.end(Some("broken".into()));
        newest.end(None);
        assert!(matches!(reader.next(&mut pool, HERE), Err(SourceEnd::Failed { detail, .. }) if detail == "broken"));
        assert_eq!(reader.begin(HERE).unwrap_err(), "broken");
    }
}
