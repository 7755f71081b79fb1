//! The audio thread's ends of devices: rate conversion, blocks, and what to do when a ring runs empty or over.

use super::callbacks::{pop_frame, push_frame};
use super::channels::ChannelMix;
use super::device::{MicrophonePort, SpeakerPort};
use super::mixer::Mixer;
use super::processing::CaptureProcessor;
use super::resample::RateConverter;
use super::worker::mixed;
use super::{BLOCK_SAMPLES, Block, SAMPLE_RATE_HZ, left_right};
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

/// Captured but not handled samples beyond this are dropped: 100 ms of a machine that is too slow.
const BACKLOG_SAMPLES: usize = 4_800;
/// The speaker's ring grows by up to this after under-runs, in ms ...
const EXTRA_LIMIT_MS: usize = 60;
/// ... and gives back 1 ms after this many blocks (5 s) without one: what a busy machine needs it needs again.
const CALM_BLOCKS: u32 = 500;
/// What a callback longer than this takes is not mixed at once but as time passes: a jitter buffer that is asked for so much in
/// one moment would have to hold all of it, and some more.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Kept in the speaker's ring beside a callback's worth, in µs: what may pass until the audio thread runs.
const RESERVE_US: u64 = 7_000;

/// A microphone that is open.
pub(crate) struct DeviceMicrophone {
    pub(crate) port: MicrophonePort,
    pub(crate) converter: RateConverter,
    /// What the converter was made for.
    rate_hz: u32,
    pub(crate) raw: Vec<f32>,
    pub(crate) ready: Vec<f32>,
    /// The same for half the difference of two channels, while that is wanted.
    side: Option<Side>,
    /// What is heard of two channels where one is wanted.
    mix: ChannelMix,
}

/// What is on its way of the second channel.
struct Side {
    converter: RateConverter,
    raw: Vec<f32>,
    ready: Vec<f32>,
}

impl Side {
    fn new(from_hz: u32, to_hz: u32) -> Option<Self> {
        Some(Self { converter: RateConverter::new(from_hz, to_hz).ok()?, raw: Vec::new(), ready: Vec::new() })
    }
}

/// 10 ms from a source.
pub(crate) struct Captured {
    /// Samples that were dropped before it.
    pub(crate) skipped: u32,
    /// When its first sample was.
    pub(crate) at: Instant,
    /// The mean of its channels.
    pub(crate) mid: Block,
    /// Half their difference, where there are two and both are wanted.
    pub(crate) side: Option<Block>,
}

impl Captured {
    /// Of one channel.
    pub(crate) fn mono(skipped: u32, at: Instant, mid: Block) -> Self {
        Self { skipped, at, mid, side: None }
    }
}

impl DeviceMicrophone {
    /// Around a new port.
    ///
    /// # Errors
    /// A text when the device's rate cannot be converted.
    pub(crate) fn new(port: MicrophonePort) -> Result<Self, String> {
        let converter = RateConverter::new(port.rate_hz, SAMPLE_RATE_HZ)?;
        let rate_hz = port.rate_hz;
        let (raw, ready) = (Vec::with_capacity(9_600), Vec::new());
        Ok(Self { port, converter, rate_hz, raw, ready, side: None, mix: ChannelMix::new(2) })
    }

    /// Says whether the second channel is wanted.
    pub(crate) fn set_wide(&mut self, wide: bool) {
        if wide != self.side.is_some() {
            // Both begin with the same sample.
            self.ready.clear();
            self.side = if wide { Side::new(self.rate_hz, SAMPLE_RATE_HZ) } else { None };
            if let Ok(converter) = RateConverter::new(self.rate_hz, SAMPLE_RATE_HZ) {
                self.converter = converter;
            }
        }
    }

    /// Moves what the callback left by `now` into whole blocks.
    pub(crate) fn take_blocks(&mut self, now: Instant, blocks: &mut Vec<Captured>) {
        let rate_hz = self.port.pulse.rate_hz(self.port.rate_hz);
        if rate_hz != self.rate_hz
            && let Ok(converter) = RateConverter::new(rate_hz, SAMPLE_RATE_HZ)
        {
            (self.converter, self.rate_hz) = (converter, rate_hz);
            self.ready.clear();
            self.side = self.side.take().and_then(|_| Side::new(rate_hz, SAMPLE_RATE_HZ));
        }
        self.raw.clear();
        while let Some([mid, side]) = pop_frame(&mut self.port.samples) {
            match &mut self.side {
                Some(wide) => {
                    self.raw.push(mid);
                    wide.raw.push(side);
                }
                None => self.raw.push(self.mix.mix(&left_right([mid, side]))),
            }
        }
        self.converter.push(&self.raw, &mut self.ready);
        if let Some(side) = &mut self.side {
            side.converter.push(&side.raw, &mut side.ready);
            side.raw.clear();
        }
        // What a callback brings at once is no backlog.
        let callback = self.port.pulse.frames() * SAMPLE_RATE_HZ as usize / rate_hz.max(1) as usize;
        let mut dropped = self.ready.len().saturating_sub(BACKLOG_SAMPLES.max(2 * callback));
        dropped -= dropped % BLOCK_SAMPLES;
        self.drain(dropped);
        let whole = self.ready.len() - self.ready.len() % BLOCK_SAMPLES;
        let mut skipped = dropped as u32;
        let mut waiting = self.ready.len();
        for (number, chunk) in self.ready.get(..whole).unwrap_or_default().chunks_exact(BLOCK_SAMPLES).enumerate() {
            let copied = |chunk: &[f32]| <Block>::try_from(chunk).ok();
            // The last sample of all has just come.
            let ago = Duration::from_micros(waiting as u64 * 1_000_000 / u64::from(SAMPLE_RATE_HZ));
            waiting = waiting.saturating_sub(BLOCK_SAMPLES);
            let from = number * BLOCK_SAMPLES;
            let side = self.side.as_ref().and_then(|s| copied(s.ready.get(from..from + BLOCK_SAMPLES)?));
            let Some(mid) = copied(chunk) else { continue };
            let at = now.checked_sub(ago).unwrap_or(now);
            blocks.push(Captured { skipped: std::mem::take(&mut skipped), at, mid, side });
        }
        self.drain(whole);
    }

    fn drain(&mut self, samples: usize) {
        self.ready.drain(..samples);
        if let Some(side) = &mut self.side {
            side.ready.drain(..samples.min(side.ready.len()));
        }
    }
}

/// A speaker that is open.
pub(crate) struct DeviceSpeaker {
    pub(crate) port: SpeakerPort,
    pub(crate) converter: RateConverter,
    /// What the converter was made for.
    pub(crate) rate_hz: u32,
    pub(crate) ready: Vec<f32>,
    /// The same for half the difference of left and right.
    side: Side,
    /// Frames the callback had to fill with silence, as last seen.
    pub(crate) missing: u64,
    /// Silence played that the echo canceller has not been shown yet, in samples.
    pub(crate) silence: usize,
    /// Kept in the ring beyond the usual, in frames: grows with each under-run, shrinks slowly.
    pub(crate) extra: usize,
    pub(crate) calm_blocks: u32,
}

impl DeviceSpeaker {
    /// Around a new port.
    ///
    /// # Errors
    /// A text when the device's rate cannot be converted.
    pub(crate) fn new(port: SpeakerPort) -> Result<Self, String> {
        let converter = RateConverter::new(SAMPLE_RATE_HZ, port.rate_hz)?;
        let rate_hz = port.rate_hz;
        let side = Side::new(SAMPLE_RATE_HZ, rate_hz).ok_or_else(|| "sample rate".to_owned())?;
        Ok(Self { port, converter, rate_hz, ready: Vec::new(), side, missing: 0, silence: 0, extra: 0, calm_blocks: 0 })
    }

    /// Mixes as much as the next callback takes, and what may go by until we are woken again. With `idle` there is nothing to
    /// mix; `began` says that there was nothing before.
    pub(crate) fn feed(
        &mut self,
        mixer: &mut Mixer,
        processor: &mut dyn CaptureProcessor,
        level: &AtomicU32,
        now: Instant,
        idle: bool,
        began: bool,
    ) {
        self.port.pulse.set_active(!idle);
        self.account_for_silence(!idle && !began, processor);
        let rate = u64::from(self.rate_hz);
        let callback = self.port.pulse.frames();
        let reserve = (rate * RESERVE_US / 1_000_000) as usize + self.extra;
        let passed = self.passed(callback);
        let ahead = reserve + passed.map_or(callback, |passed| passed + self.rate_hz as usize / 100);
        // A burst of callbacks must not make us spin: at most 200 ms in one go, or what one of them takes.
        let most = (ahead * SAMPLE_RATE_HZ as usize / self.rate_hz.max(1) as usize / BLOCK_SAMPLES + 1).max(20);
        for _ in 0..if idle { 0 } else { most } {
            let fill = self.port.fill();
            if fill >= ahead {
                break;
            }
            let until_played = (fill + 2 * callback).saturating_sub(passed.unwrap_or(0));
            let delay = Duration::from_micros(until_played as u64 * 1_000_000 / rate.max(1));
            let block = mixed(mixer, processor, level, now, delay);
            self.play(&block, mixer.side());
        }
    }

    /// Frames of the next callback that are due by now, where that is a long one.
    fn passed(&self, callback: usize) -> Option<usize> {
        let frames = |time: Duration| (time.as_secs_f64() * f64::from(self.rate_hz)) as usize;
        (callback > frames(AT_ONCE)).then(|| frames(self.port.pulse.since_last()).min(callback))
    }

    /// Whether it is mixed as time passes, whatever callbacks come.
    pub(crate) fn is_slow(&self) -> bool {
        self.passed(self.port.pulse.frames()).is_some()
    }

    /// Hands a block to the callback, with half the difference of its channels where there are two.
    pub(crate) fn play(&mut self, block: &Block, side: Option<&Block>) {
        let rate_hz = self.port.pulse.rate_hz(self.port.rate_hz);
        if rate_hz != self.rate_hz
            && let (Ok(converter), Some(side)) =
                (RateConverter::new(SAMPLE_RATE_HZ, rate_hz), Side::new(SAMPLE_RATE_HZ, rate_hz))
        {
            (self.converter, self.side, self.rate_hz) = (converter, side, rate_hz);
        }
        self.ready.clear();
        self.side.ready.clear();
        self.converter.push(block, &mut self.ready);
        // Both go the same way, so that both are equally late.
        self.side.converter.push(side.unwrap_or(&[0.0; BLOCK_SAMPLES]), &mut self.side.ready);
        for (mid, side) in self.ready.iter().zip(&self.side.ready) {
            // The ring has more than twice the room of what is ever kept in it.
            push_frame(&mut self.port.samples, [*mid, *side]);
        }
        self.calm_blocks += 1;
        if self.calm_blocks >= CALM_BLOCKS {
            self.calm_blocks = 0;
            self.extra = self.extra.saturating_sub(self.rate_hz as usize / 1_000);
        }
    }

    /// Shows the echo canceller the silence that the device played because the ring was empty, between talk spurts or in
    /// an under-run: else what it is shown and what is heard drift apart, and it has to find the echo anew each time.
    pub(crate) fn account_for_silence(&mut self, under_run: bool, processor: &mut dyn CaptureProcessor) {
        let rate = self.rate_hz.max(1) as usize;
        let missing = self.port.pulse.missing();
        let new = missing.saturating_sub(self.missing) as usize;
        self.missing = missing;
        if new > 0 && under_run {
            self.extra = (self.extra + rate / 200).min(rate * EXTRA_LIMIT_MS / 1_000);
            self.calm_blocks = 0;
        }
        // More than a second is no alignment but a new beginning.
        self.silence = (self.silence + new * SAMPLE_RATE_HZ as usize / rate).min(SAMPLE_RATE_HZ as usize);
        while self.silence >= BLOCK_SAMPLES {
            self.silence -= BLOCK_SAMPLES;
            processor.far_end(&[0.0; BLOCK_SAMPLES]);
        }
    }
}
