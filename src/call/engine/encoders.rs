//! The encoders of my picture: one, or one per layer where the host takes several.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::media::video::codec::{CodecError, VideoCodec};
use crate::media::video::encoder::{Clock, EncoderConfig, EncoderStats, EncoderThread, LayerConfig};
use crate::media::video::frame::FrameSlot;
use crate::media::video::overuse::Overuse;
use crate::media::video::source::Tuning;
use crate::rtp::frame::EncodedFrame;
use crate::rtp::simulcast;

/// A shared page or film makes use of at least this much, in bit/s, however small it is.
const SCREEN_BPS: u64 = 2_900_000;

/// Where frames of a layer go, the lowest is 0. Called on encoder threads; must not block.
pub(super) type LayerSink = Arc<dyn Fn(usize, EncodedFrame) + Send + Sync>;

/// All encoders of one publication.
#[derive(Debug)]
pub(super) struct Encoders {
    slot: FrameSlot,
    config: EncoderConfig,
    sink: Sink,
    clock: Clock,
    /// One per layer, the lowest first; made when it is wanted for the first time.
    threads: Vec<Option<EncoderThread>>,
    /// What the host wants of each at most, in bit/s.
    wanted: Vec<u64>,
    /// Which are running.
    sent: Vec<bool>,
    target_bps: u64,
    /// Whether the machine is fast enough for the highest layer of a camera, and by how many pictures that is known.
    overuse: Overuse,
    judged: u64,
    /// Pictures encoded, each counted once however many layers it had.
    pictures: Arc<Pictures>,
}

#[derive(Clone)]
struct Sink(LayerSink);

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

#[derive(Debug, Default)]
struct Pictures {
    count: AtomicU64,
    newest: AtomicU32,
}

impl Pictures {
    fn note(&self, timestamp: u32) {
        let before = self.newest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |newest| {
            let newer = self.count.load(Ordering::Relaxed) == 0 || timestamp.wrapping_sub(newest) as i32 > 0;
            newer.then_some(timestamp)
        });
        if before.is_ok() {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Encoders {
    /// Starts `layers` encoders of the pictures in `slot`; with one layer it runs at once, with several each waits until it
    /// is wanted.
    pub(super) fn start(
        slot: FrameSlot,
        config: EncoderConfig,
        layers: usize,
        sink: LayerSink,
    ) -> Result<Self, CodecError> {
        let layers = layers.max(1);
        let mut encoders = Self {
            slot,
            config,
            sink: Sink(sink),
            clock: Clock::start(),
            threads: (0..layers).map(|_| None).collect(),
            wanted: vec![0; layers],
            sent: vec![false; layers],
            target_bps: u64::from(config.bitrate_bps),
            overuse: Overuse::of_layers(layers),
            judged: 0,
            pictures: Arc::default(),
        };
        // At least the library is tried here, where the failure can be told.
        let first = encoders.make(0, config.bitrate_bps)?;
        if let Some(slot) = encoders.threads.first_mut() {
            *slot = Some(first);
        }
        Ok(encoders)
    }

    fn make(&self, index: usize, bitrate_bps: u32) -> Result<EncoderThread, CodecError> {
        let count = self.threads.len();
        let layer = (count > 1).then(|| LayerConfig {
            divisor: simulcast::divisor(index, count),
            adapts: index == 0,
            clock: self.clock,
        });
        let (sink, pictures) = (self.sink.clone(), Arc::clone(&self.pictures));
        let out = Box::new(move |frame: EncodedFrame| {
            pictures.note(frame.rtp_timestamp);
            (sink.0)(index, frame);
        });
        EncoderThread::start(self.slot.clone(), EncoderConfig { layer, bitrate_bps, ..self.config }, out)
    }

    fn running(&self) -> impl Iterator<Item = &EncoderThread> {
        self.threads
            .iter()
            .zip(&self.sent)
            .filter(|(_, sent)| **sent || self.threads.len() == 1)
            .filter_map(|(t, _)| t.as_ref())
    }

    /// Key frames of everything that is sent.
    pub(super) fn request_key_frame(&self) {
        self.running().for_each(EncoderThread::request_key_frame);
    }

    /// A key frame of one layer.
    pub(super) fn request_layer_key_frame(&self, layer: usize) {
        if let Some(Some(thread)) = self.threads.get(layer) {
            thread.request_key_frame();
        }
    }

    /// Goes on with another codec.
    pub(super) fn set_codec(&mut self, codec: VideoCodec) {
        self.config.codec = codec;
        self.threads.iter().flatten().for_each(|thread| thread.set_codec(codec));
    }

    /// What the network carries of the picture, in bit/s, all layers together.
    pub(super) fn set_target(&mut self, bps: u64) {
        self.target_bps = bps;
        self.divide();
    }

    /// More than this is of no use to the picture, in bit/s, all layers together.
    pub(super) fn useful_bps(&self) -> u64 {
        match self.config.tuning {
            None => simulcast::useful_bps(self.config.max_size, self.threads.len()),
            Some(_) => simulcast::most_bps(self.config.max_size).max(SCREEN_BPS),
        }
    }

    /// Looks whether the machine keeps up; to be called every now and then. One encoder alone sees to that itself.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.threads.len() == 1 || self.config.tuning.is_some() {
            return;
        }
        let top = self.threads.iter().zip(&self.sent).rev().find(|(_, sent)| **sent).and_then(|(t, _)| t.as_ref());
        let Some(stats) = top.map(EncoderThread::stats) else { return };
        if stats.frames != std::mem::replace(&mut self.judged, stats.frames) {
            self.judge(stats.encode_ms * self.config.max_fps as f32 / 1e3, now);
        }
    }

    fn judge(&mut self, share: f32, now: Instant) {
        if self.overuse.judge(share, now) {
            tracing::info!(left_out = self.overuse.steps(), "the layers follow the machine");
            self.divide();
        }
    }

    /// What the host wants of each layer at most.
    pub(super) fn set_wanted(&mut self, wanted: &[u64]) {
        if wanted.len() == self.wanted.len() {
            self.wanted.clear();
            self.wanted.extend_from_slice(wanted);
            self.divide();
        }
    }

    /// Another source: its size and whether it is a screen, whose letters want all of the rate.
    pub(super) fn set_source(&mut self, tuning: Option<Tuning>, size: (u32, u32), fps: u32) {
        (self.config.max_size, self.config.max_fps) = (size, fps);
        self.threads.iter().flatten().for_each(|thread| thread.set_limit(size, fps));
        self.set_tuning(tuning);
    }

    /// What the pictures are from now on: a screen tuned for this, or a camera.
    pub(super) fn set_tuning(&mut self, tuning: Option<Tuning>) {
        self.config.tuning = tuning;
        self.threads.iter().flatten().for_each(|thread| thread.set_tuning(tuning));
        self.divide();
    }

    /// There is a new way for the pictures.
    pub(super) fn begin_anew(&self) {
        self.running().for_each(EncoderThread::begin_anew);
    }

    /// Starts, stops and paces layers by what is wanted and what there is.
    fn divide(&mut self) {
        let rate = |bps: u64| u32::try_from(bps).unwrap_or(u32::MAX);
        if self.threads.len() == 1 {
            if let Some(Some(thread)) = self.threads.first() {
                thread.set_target_bitrate(rate(self.target_bps.min(self.useful_bps())));
            }
            return;
        }
        let rates = match self.config.tuning {
            None => {
                let mut wanted = self.wanted.clone();
                simulcast::leave_out(&mut wanted, self.overuse.steps(), self.config.max_size);
                simulcast::divide(self.target_bps, &wanted, &self.sent, self.config.max_size)
            }
            Some(_) => {
                // One sharp picture for everybody.
                let most = self.wanted.iter().copied().max().unwrap_or(0).min(self.target_bps);
                let top = self.threads.len() - 1;
                (0..=top).map(|index| (index == top && most > 0).then_some(most)).collect()
            }
        };
        for (index, bps) in rates.into_iter().enumerate() {
            let made = self.threads.get(index).is_some_and(Option::is_some);
            if let (Some(bps), false) = (bps, made) {
                match self.make(index, rate(bps)) {
                    Ok(thread) => {
                        if let Some(slot) = self.threads.get_mut(index) {
                            *slot = Some(thread);
                        }
                    }
                    Err(error) => tracing::warn!(%error, layer = index, "a layer cannot be encoded"),
                }
            }
            let Some(Some(thread)) = self.threads.get(index) else { continue };
            if let Some(bps) = bps {
                thread.set_target_bitrate(rate(bps));
            }
            if let Some(sent) = self.sent.get_mut(index)
                && (*sent != bps.is_some() || !made)
            {
                *sent = bps.is_some();
                thread.set_paused(bps.is_none());
                tracing::debug!(layer = index, ?bps, "layer");
            }
        }
    }

    /// Names of the layers that are sent, the lowest first; `None` where there is none, or only one to begin with.
    pub(super) fn layers_sent(&self) -> Option<String> {
        let count = self.threads.len();
        let names = simulcast::RIDS.iter().skip(simulcast::RIDS.len().saturating_sub(count));
        let sent = names.zip(&self.sent).filter(|(_, sent)| **sent).map(|(name, _)| *name);
        (count > 1).then(|| sent.collect::<Vec<_>>().join("+")).filter(|names| !names.is_empty())
    }

    /// Figures of the picture: sums of all layers, size and rate of pictures of the highest that is sent, or was.
    pub(super) fn stats(&self) -> EncoderStats {
        if self.threads.len() == 1 {
            return self.threads.iter().flatten().next().map(EncoderThread::stats).unwrap_or_default();
        }
        let all: Vec<EncoderStats> = self.threads.iter().flatten().map(EncoderThread::stats).collect();
        let shown = self.threads.iter().zip(&self.sent).rev().find(|(_, sent)| **sent).and_then(|(t, _)| t.as_ref());
        let shown = shown.map(EncoderThread::stats).or_else(|| all.iter().rev().find(|s| s.width > 0).copied());
        EncoderStats {
            frames: self.pictures.count.load(Ordering::Relaxed),
            key_frames: all.iter().map(|s| s.key_frames).sum(),
            bytes: all.iter().map(|s| s.bytes).sum(),
            failures: all.iter().map(|s| s.failures).sum(),
            bitrate_bps: all.iter().map(|s| s.bitrate_bps).fold(0, u32::saturating_add),
            target_bitrate_bps: u32::try_from(self.target_bps).unwrap_or(u32::MAX),
            ..shown.unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::video::codec::Content;
    use crate::media::video::ladder::Ladder;
    use std::time::Duration;

    fn encoders(size: (u32, u32), layers: usize, tuning: Option<Tuning>) -> Encoders {
        let config = EncoderConfig { max_size: size, tuning, ..EncoderConfig::default() };
        Encoders::start(FrameSlot::new(), config, layers, Arc::new(|_, _| {})).expect("encoders")
    }

    #[test]
    fn a_slow_machine_leaves_out_the_highest_layer_until_it_is_faster() {
        let mut encoders = encoders((1280, 720), 3, None);
        encoders.set_target(3_000_000);
        encoders.set_wanted(&[0, 0, 20_000_000]);
        assert_eq!(encoders.layers_sent().as_deref(), Some("f"));
        let start = Instant::now();
        let mut at = 0;
        let mut run = |encoders: &mut Encoders, seconds: u64, whole: f32| {
            for _ in 0..seconds * 4 {
                at += 250;
                // A quarter of the pixels is encoded with more care: about a third of the work.
                let quarters = encoders.overuse.steps() as i32;
                encoders.judge(whole * 0.35f32.powi(quarters), start + Duration::from_millis(at));
            }
        };
        run(&mut encoders, 3, 1.3);
        assert_eq!(encoders.layers_sent().as_deref(), Some("f"), "a moment is sat out");
        run(&mut encoders, 3, 1.3);
        assert_eq!(encoders.layers_sent().as_deref(), Some("h"));
        run(&mut encoders, 60, 0.8);
        assert_eq!(encoders.layers_sent().as_deref(), Some("h"), "it would be too slow again");
        run(&mut encoders, 20, 5.0);
        assert_eq!(encoders.layers_sent().as_deref(), Some("q"));
        run(&mut encoders, 60, 0.2);
        assert_eq!(encoders.layers_sent().as_deref(), Some("f"));
    }

    #[test]
    fn what_is_useful_reaches_the_highest_rung() {
        for (layers, tuning, content) in [(1, None, Content::Camera), (3, Some(Tuning::Motion), Content::Motion)] {
            let useful = encoders((1920, 1080), layers, tuning).useful_bps();
            let mut ladder = Ladder::new(content, 300_000);
            let start = Instant::now();
            for ms in (0..2_000).step_by(33) {
                ladder.update(useful as u32, start + Duration::from_millis(ms));
            }
            assert_eq!(ladder.rung().limit, (1920, 1080), "{content:?}");
        }
    }
}
