//! Measuring a stream: strongest frequency, level, the lip-sync click.

use super::dsp::{power_at, power_spectrum, rms, sine_dbfs};
use super::source::CLICK_HZ;
use super::{Block, SAMPLE_RATE_HZ};
use std::collections::VecDeque;

const DECIMATION: usize = 8;
const DECIMATED_HZ: f32 = SAMPLE_RATE_HZ as f32 / DECIMATION as f32;
/// One second of decimated samples.
const WINDOW: usize = 6_000;
const FFT_SIZE: usize = 8_192;
/// Range in which the strongest frequency is looked for, in Hz.
const TONE_RANGE_HZ: std::ops::RangeInclusive<f32> = 100.0..=2_500.0;
/// Below this level of the last second, in dBFS, there is no tone to report.
const SILENT_DBFS: f32 = -60.0;

/// Strongest frequency over the last second, 100 to 2 500 Hz.
///
/// Pushing is cheap (a decimation by 8); the spectrum is computed only when asked for.
#[derive(Debug, Clone)]
pub struct ToneMeter {
    recent: VecDeque<f32>,
    // Two one-pole low passes at about 2.5 kHz keep what decimation would fold back small enough.
    low: (f32, f32),
}

impl Default for ToneMeter {
    fn default() -> Self {
        Self::new()
    }
}

impl ToneMeter {
    /// An empty meter.
    pub fn new() -> Self {
        Self { recent: VecDeque::with_capacity(WINDOW + DECIMATION), low: (0.0, 0.0) }
    }

    /// Takes 10 ms.
    pub fn push(&mut self, block: &Block) {
        const ALPHA: f32 = 0.28;
        for group in block.chunks_exact(DECIMATION) {
            for sample in group {
                self.low.0 += ALPHA * (sample - self.low.0);
                self.low.1 += ALPHA * (self.low.0 - self.low.1);
            }
            if self.recent.len() >= WINDOW {
                self.recent.pop_front();
            }
            self.recent.push_back(self.low.1);
        }
    }

    /// Strongest frequency in Hz, to about 1 Hz; `None` when the last second is silent or shorter than half a second.
    pub fn tone_hz(&self) -> Option<f32> {
        if self.recent.len() < WINDOW / 2 {
            return None;
        }
        let (front, back) = self.recent.as_slices();
        let level = rms(front).max(rms(back));
        if sine_dbfs(level) < SILENT_DBFS {
            return None;
        }
        let n = self.recent.len() as f32;
        let mut windowed: Vec<f32> = self
            .recent
            .iter()
            .enumerate()
            .map(|(i, s)| s * (0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / n).cos()))
            .collect();
        windowed.resize(FFT_SIZE, 0.0);
        let spectrum = power_spectrum(&windowed);
        let bin_hz = DECIMATED_HZ / FFT_SIZE as f32;
        let (peak, power) = spectrum
            .iter()
            .enumerate()
            .filter(|(bin, _)| TONE_RANGE_HZ.contains(&(*bin as f32 * bin_hz)))
            .max_by(|a, b| a.1.total_cmp(b.1))?;
        // Parabola through the logarithms of the peak and its neighbors.
        let around = |bin: usize| spectrum.get(bin).copied().unwrap_or(0.0).max(1e-20).ln();
        let (left, mid, right) = (around(peak.saturating_sub(1)), power.max(1e-20).ln(), around(peak + 1));
        let bend = left - 2.0 * mid + right;
        let shift = if bend.abs() < 1e-9 { 0.0 } else { (0.5 * (left - right) / bend).clamp(-0.5, 0.5) };
        Some((peak as f32 + shift) * bin_hz)
    }
}

/// Finds the onset of the lip-sync click: a rise of 1 kHz over what was there.
#[derive(Debug, Clone, Default)]
pub struct ClickDetector {
    before: f32,
    hold_blocks: u32,
}

impl ClickDetector {
    /// Whether a click begins in this block; at most once in half a second.
    pub fn push(&mut self, block: &Block) -> bool {
        let power = power_at(block, CLICK_HZ, SAMPLE_RATE_HZ as f32);
        let onset = self.hold_blocks == 0 && power > 0.01 && power > self.before * 4.0;
        self.before = 0.8 * self.before + 0.2 * power;
        self.hold_blocks = if onset { 50 } else { self.hold_blocks.saturating_sub(1) };
        onset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::source::ToneGenerator;

    #[test]
    fn every_default_tone_is_measured_to_one_hertz() {
        for id in 0..20 {
            let hz = crate::media::audio::source::default_tone_hz(id);
            let mut tone = ToneGenerator::new(hz, false);
            let mut meter = ToneMeter::new();
            for _ in 0..110 {
                meter.push(&tone.next_block(0));
            }
            let got = meter.tone_hz().unwrap();
            assert!((got - hz).abs() < 1.0, "{hz}: {got}");
        }
    }

    #[test]
    fn silence_has_no_tone() {
        let mut meter = ToneMeter::new();
        for _ in 0..200 {
            meter.push(&[0.0; 480]);
        }
        assert_eq!(meter.tone_hz(), None);
    }

    #[test]
    fn a_click_is_found_once_even_on_a_tone_of_its_own_frequency() {
        for hz in [440.0, 1_000.0] {
            let mut tone = ToneGenerator::new(hz, true);
            let mut detector = ClickDetector::default();
            let onsets: Vec<u64> =
                (50..350).filter(|i| detector.push(&tone.next_block(i * 10))).map(|i| i * 10).collect();
            assert_eq!(onsets, vec![1_000, 2_000, 3_000], "{hz}");
        }
    }
}
