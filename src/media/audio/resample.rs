//! Sample rate conversion between devices or files and our 48 kHz.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType, WindowFunction};

/// A streaming mono converter between two fixed rates.
///
/// Equal rates pass samples through. Otherwise a windowed sinc of 64 taps, with about 0.7 ms of delay.
pub struct RateConverter {
    inner: Option<Async<f32>>,
    pending: Vec<f32>,
    chunk: usize,
    out: Vec<f32>,
}

impl RateConverter {
    /// From `from_hz` to `to_hz`.
    ///
    /// # Errors
    /// A text when one of the rates is zero or the ratio is out of what the filter can do.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self, String> {
        if from_hz == 0 || to_hz == 0 {
            return Err("sample rate 0".to_owned());
        }
        let chunk = (from_hz as usize / 200).max(32);
        if from_hz == to_hz {
            return Ok(Self { inner: None, pending: Vec::new(), chunk, out: Vec::new() });
        }
        let parameters = SincInterpolationParameters {
            sinc_len: 64,
            f_cutoff: Some(0.95),
            interpolation: SincInterpolationType::Linear,
            oversampling_factor: 128,
            window: WindowFunction::BlackmanHarris2,
        };
        let ratio = f64::from(to_hz) / f64::from(from_hz);
        let inner = Async::new_sinc(ratio, 1.0, &parameters, chunk, 1, FixedAsync::Input).map_err(|e| e.to_string())?;
        let out = vec![0.0; inner.output_frames_max()];
        Ok(Self { inner: Some(inner), pending: Vec::with_capacity(chunk * 4), chunk, out })
    }

    /// Converts `input` and appends what is ready to `output`.
    pub fn push(&mut self, input: &[f32], output: &mut Vec<f32>) {
        let Some(inner) = &mut self.inner else {
            output.extend_from_slice(input);
            return;
        };
        self.pending.extend_from_slice(input);
        let mut used = 0;
        while let Some(chunk) = self.pending.get(used..used + self.chunk) {
            used += self.chunk;
            let room = self.out.len();
            let Ok(adapter_in) = SequentialSlice::new(chunk, 1, self.chunk) else {
                break;
            };
            let Ok(mut adapter_out) = SequentialSlice::new_mut(&mut self.out, 1, room) else {
                break;
            };
            match inner.process_into_buffer(&adapter_in, &mut adapter_out, None) {
                Ok((_, written)) => output.extend(self.out.iter().take(written)),
                Err(error) => tracing::warn!(%error, "sample rate conversion"),
            }
        }
        self.pending.drain(..used.min(self.pending.len()));
    }
}

/// Converts a whole clip.
///
/// # Errors
/// As [`RateConverter::new`].
pub fn resample_whole(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>, String> {
    let mut converter = RateConverter::new(from_hz, to_hz)?;
    let mut out =
        Vec::with_capacity((samples.len() as u64 * u64::from(to_hz) / u64::from(from_hz.max(1))) as usize + 1_024);
    converter.push(samples, &mut out);
    // The filter keeps a rest of less than a chunk: push it out with silence, then cut to the exact length.
    if converter.inner.is_some() {
        let rest = vec![0.0; converter.chunk * 2];
        converter.push(&rest, &mut out);
        out.truncate((samples.len() as u64 * u64::from(to_hz) / u64::from(from_hz)) as usize);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::meter::ToneMeter;

    #[test]
    fn rates_are_converted_without_changing_pitch() {
        for (from, to) in [(44_100, 48_000), (8_000, 48_000), (48_000, 44_100), (96_000, 48_000)] {
            let input: Vec<f32> =
                (0..from * 2).map(|i| (std::f32::consts::TAU * 700.0 * i as f32 / from as f32).sin() * 0.3).collect();
            let out = resample_whole(&input, from, to).unwrap();
            assert!((out.len() as i64 - i64::from(to) * 2).abs() <= 2, "{from}->{to}: {}", out.len());
            if to == 48_000 {
                let mut meter = ToneMeter::new();
                for block in out.chunks_exact(480) {
                    meter.push(block.try_into().unwrap());
                }
                let hz = meter.tone_hz().unwrap();
                assert!((hz - 700.0).abs() < 2.0, "{from}->{to}: {hz}");
            }
        }
        assert!(RateConverter::new(0, 48_000).is_err());
    }
}
