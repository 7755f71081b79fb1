//! Small helpers over samples: energy, FFT, similarity.

/// Nothing that a converter gives is louder than 18 dB above full scale.
const LOUDEST: f32 = 8.0;

/// Root mean square.
pub(crate) fn rms(samples: &[f32]) -> f32 {
    if samples.is_empty() {
        return 0.0;
    }
    (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
}

/// Level of an RMS value in dBFS where a full-scale sine is 0 dBFS (AES17); −120 for silence.
pub(crate) fn sine_dbfs(rms: f32) -> f32 {
    if rms <= 1e-6 { -120.0 } else { (20.0 * (rms * std::f32::consts::SQRT_2).log10()).max(-120.0) }
}

/// RFC 6464 level of an RMS value: 0 (a full-scale square) to 127 (silence), in −dBov.
pub(crate) fn dbov_level(rms: f32) -> u8 {
    if rms <= 1e-7 {
        return 127;
    }
    (-20.0 * rms.log10()).round().clamp(0.0, 127.0) as u8
}

/// Normalized cross-correlation of two equally long pieces, −1 to 1; 0 when one of them is silent.
pub(crate) fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let (mut ab, mut aa, mut bb) = (0.0f32, 0.0f32, 0.0f32);
    for (x, y) in a.iter().zip(b) {
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    let scale = (aa * bb).sqrt();
    if scale < 1e-9 { 0.0 } else { ab / scale }
}

/// Power at one frequency, as the mean square of that component (Goertzel).
pub(crate) fn power_at(samples: &[f32], hz: f32, rate_hz: f32) -> f32 {
    let coefficient = 2.0 * (std::f32::consts::TAU * hz / rate_hz).cos();
    let (mut s1, mut s2) = (0.0f32, 0.0f32);
    for x in samples {
        let s = x + coefficient * s1 - s2;
        s2 = s1;
        s1 = s;
    }
    let n = samples.len().max(1) as f32;
    ((s1 * s1 + s2 * s2 - coefficient * s1 * s2) * 2.0 / (n * n)).max(0.0)
}

/// Power spectrum of a real signal whose length is a power of two (else empty): the first half of the bins.
pub(crate) fn power_spectrum(signal: &[f32]) -> Vec<f32> {
    let n = signal.len();
    if n < 2 || !n.is_power_of_two() {
        return Vec::new();
    }
    let bits = n.trailing_zeros();
    // Decimation in time: samples in bit-reversed order, then butterflies of growing size.
    let mut data: Vec<(f32, f32)> = (0..n)
        .map(|i| (signal.get((i as u32).reverse_bits() as usize >> (32 - bits)).copied().unwrap_or(0.0), 0.0))
        .collect();
    let mut size = 2;
    while size <= n {
        let half = size / 2;
        let step = -std::f32::consts::TAU / size as f32;
        let twiddles: Vec<(f32, f32)> = (0..half).map(|k| ((step * k as f32).cos(), (step * k as f32).sin())).collect();
        for chunk in data.chunks_exact_mut(size) {
            let (low, high) = chunk.split_at_mut(half);
            for ((a, b), (wr, wi)) in low.iter_mut().zip(high.iter_mut()).zip(&twiddles) {
                let t = (b.0 * wr - b.1 * wi, b.0 * wi + b.1 * wr);
                *b = (a.0 - t.0, a.1 - t.1);
                *a = (a.0 + t.0, a.1 + t.1);
            }
        }
        size *= 2;
    }
    data.iter().take(n / 2).map(|(re, im)| re * re + im * im).collect()
}
/// What a device or a file gives may be no number, or out of all measure: filters would never forget it.
pub(crate) fn sane(sample: f32) -> f32 {
    if sample.is_finite() { sample.clamp(-LOUDEST, LOUDEST) } else { 0.0 }
}
