//! Time for what has no clock of its own: tones, files, and silence in place of a microphone that gives nothing.

use super::BLOCK_SAMPLES;
use super::ports::Captured;
use std::time::{Duration, Instant};

pub(super) const BLOCK: Duration = Duration::from_millis(10);
/// A pacer this far behind (the machine slept) starts anew instead of catching up.
pub(super) const CATCH_UP: Duration = Duration::from_millis(400);

/// Says when a source or sink without a clock of its own is due.
pub(super) struct Pacer {
    pub(super) next: Instant,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now }
    }

    /// Whether another block is due; what cannot be caught up is returned as skipped samples.
    pub(super) fn due(&mut self, now: Instant) -> Option<u32> {
        if now < self.next {
            return None;
        }
        let behind = now.duration_since(self.next);
        let mut skipped = 0;
        if behind > CATCH_UP {
            let blocks = (behind.as_millis() / 10) as u32;
            self.next += BLOCK * blocks;
            skipped = blocks.saturating_mul(BLOCK_SAMPLES as u32);
        }
        self.next += BLOCK;
        Some(skipped)
    }
}

/// Stands in for a microphone that is missing, busy, lost or chosen away: a published stream without packets looks to the
/// others like a broken connection, which they would rebuild again and again, picture included.
pub(super) struct Silence {
    pub(super) pacer: Pacer,
    /// When the device gave its last block.
    heard: Instant,
    pub(super) standing_in: bool,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { pacer: Pacer::new(now), heard: now, standing_in: false }
    }

    /// Notes what a device that is open gave. `true` when it has just come back after silence stood in for it.
    pub(super) fn heard(&mut self, now: Instant, blocks: usize) -> bool {
        if blocks == 0 {
            return false;
        }
        self.heard = now;
        std::mem::replace(&mut self.standing_in, false)
    }

    /// Whether a device that is open has given nothing for so long that it is not on its way to the next callback.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.standing_in || now.saturating_duration_since(self.heard) > CATCH_UP
    }

    /// Blocks of zeros up to now.
    pub(super) fn fill(&mut self, now: Instant, blocks: &mut Vec<Captured>) {
        if !std::mem::replace(&mut self.standing_in, true) {
            self.pacer.next = now;
        }
        while let Some(skipped) = self.pacer.due(now) {
            blocks.push(Captured::mono(skipped, self.pacer.next - BLOCK, [0.0; BLOCK_SAMPLES]));
        }
    }
}
