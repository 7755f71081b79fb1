//! How often the window is drawn, and what a bench may know of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::bridge::Repaint;

/// Time between two drawings that new pictures ask for, where drawing is cheap: a display shows 60 a second.
const QUICK: Duration = Duration::from_millis(15);
/// The same where the processor draws: a picture of a tile lives 33 ms, so each is still shown once.
const SLOW: Duration = Duration::from_millis(30);
/// Wishes of the same moment are carried out together. Any delay but zero also keeps the toolkit from drawing twice for one.
const TOGETHER: Duration = Duration::from_millis(2);

/// Carries the wishes of all tiles for a new drawing out together, no more often than a display or the processor can follow.
#[derive(Debug, Clone)]
pub struct Pace {
    origin: Instant,
    /// Start of the newest frame, in microseconds since `origin`.
    drawn_us: Arc<AtomicU64>,
    interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { origin: Instant::now(), drawn_us: Arc::new(AtomicU64::new(0)), interval: QUICK }
    }
}

impl Pace {
    /// A pace for a window that the processor draws, or a graphics card.
    pub fn new(software: bool) -> Self {
        Self { interval: if software { SLOW } else { QUICK }, ..Self::default() }
    }

    /// Call at the start of every frame.
    pub fn frame(&self) {
        self.drawn_us.store(self.origin.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// How long a wish of this moment has to wait.
    pub fn delay(&self) -> Duration {
        let since = (self.origin.elapsed().as_micros() as u64).saturating_sub(self.drawn_us.load(Ordering::Relaxed));
        self.interval.saturating_sub(Duration::from_micros(since)).max(TOGETHER)
    }

    /// The function that wakes the window.
    pub fn repaint(&self, ctx: &egui::Context) -> Repaint {
        let (ctx, pace) = (ctx.clone(), self.clone());
        Arc::new(move || ctx.request_repaint_after(pace.delay()))
    }
}

/// Frames a log keeps; more than any bench draws.
const MOST: usize = 20_000;

/// Writes down every frame, for a bench.
#[derive(Clone)]
pub struct FrameLog(Arc<Mutex<Log>>);

#[derive(Default)]
struct Log {
    frames: usize,
    began: Option<Instant>,
    ui_ms: Vec<f32>,
    pictures: Vec<(String, u64)>,
    usable: Option<Box<dyn FnOnce() + Send>>,
}

impl FrameLog {
    /// A log that calls `usable` once the first frame stands on the screen and the window listens.
    pub fn new(usable: impl FnOnce() + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Log { usable: Some(Box::new(usable)), ..Log::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames so far, and pictures drawn so far by stream.
    pub fn counts(&self) -> (usize, Vec<(String, u64)>) {
        let log = self.lock();
        (log.frames, log.pictures.clone())
    }

    /// Takes the times out, in ms, between the start of a frame and its hand-over to the graphics card. They are times of the
    /// clock: what else the processor did meanwhile is in them.
    pub fn take_ui_ms(&self) -> Vec<f32> {
        std::mem::take(&mut self.lock().ui_ms)
    }

    /// A frame begins. The shape it adds is drawn before all others, hence when everything is laid out and tessellated.
    pub(super) fn begin(&self, ui: &egui::Ui) {
        let mut log = self.lock();
        log.frames += 1;
        log.began = Some(Instant::now());
        match log.frames {
            1 => ui.ctx().request_repaint(),
            // With the second one begun, the first is on the screen.
            2 => {
                if let Some(usable) = log.usable.take() {
                    drop(log);
                    usable();
                }
            }
            _ => {}
        }
        let log = self.clone();
        let drawn = egui_glow::CallbackFn::new(move |_, _| {
            let mut log = log.lock();
            if let Some(began) = log.began.take()
                && log.ui_ms.len() < MOST
            {
                log.ui_ms.push(began.elapsed().as_secs_f32() * 1000.0);
            }
        });
        ui.painter().add(egui::PaintCallback { rect: ui.max_rect(), callback: Arc::new(drawn) });
    }

    pub(super) fn pictures(&self, pictures: Vec<(String, u64)>) {
        self.lock().pictures = pictures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_wait_longer_where_the_processor_draws() {
        for (software, least, most) in [(false, TOGETHER, QUICK), (true, QUICK, SLOW)] {
            let pace = Pace::new(software);
            pace.frame();
            let delay = pace.delay();
            assert!(delay > least && delay <= most, "{delay:?}");
        }
    }
}
