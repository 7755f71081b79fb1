//! Opus: encoder settings, encoder and decoder behind small traits so that tests can watch the samples.

use super::{AudioError, PACKET_SAMPLES, SAMPLE_RATE_HZ};

/// Opus packet that decodes to 20 ms of silence (CELT, fullband, mono): keeps a muted stream's receiver from concealing
/// and its path from closing, without an encoder having run.
pub const SILENT_PACKET: [u8; 3] = [0xf8, 0xff, 0xfe];
/// Largest packet we make, in bytes.
const MAX_PACKET: usize = 1_275;

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Target in bit/s; 6 000 to 128 000.
    pub bitrate_bps: u32,
    /// 0 (cheap) to 10.
    pub complexity: u8,
    /// In-band forward error correction.
    pub fec: bool,
    /// Discontinuous transmission: nothing is sent while nobody speaks.
    pub dtx: bool,
    /// Loss to expect, in percent; decides how much of the rate goes to the correction.
    pub packet_loss_percent: u8,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self { bitrate_bps: 36_000, complexity: 7, fec: true, dtx: true, packet_loss_percent: 5 }
    }
}

/// Turns 20 ms of samples into a packet.
pub trait PacketEncoder: Send {
    /// Encodes 960 samples into `packet` and returns its length in bytes; up to 2 means "not to be sent" (DTX).
    ///
    /// # Errors
    /// What the codec says.
    fn encode(&mut self, samples: &[f32], packet: &mut [u8]) -> Result<usize, String>;
    /// Forgets the past: what follows is a new talk spurt.
    fn reset(&mut self);
    /// Applies new settings.
    fn configure(&mut self, settings: EncoderSettings);
}

/// Opus for voice, mono.
pub struct OpusPacketEncoder {
    inner: opus::Encoder,
}

impl OpusPacketEncoder {
    /// An encoder with these settings.
    ///
    /// # Errors
    /// [`AudioError::Codec`].
    pub fn new(settings: EncoderSettings) -> Result<Self, AudioError> {
        let inner = opus::Encoder::new(SAMPLE_RATE_HZ, opus::Channels::Mono, opus::Application::Voip)
            .map_err(|e| AudioError::Codec(e.to_string()))?;
        let mut encoder = Self { inner };
        encoder.configure(settings);
        Ok(encoder)
    }
}

impl PacketEncoder for OpusPacketEncoder {
    fn encode(&mut self, samples: &[f32], packet: &mut [u8]) -> Result<usize, String> {
        self.inner.encode_float(samples, packet).map_err(|e| e.to_string())
    }

    fn reset(&mut self) {
        if let Err(error) = self.inner.reset_state() {
            tracing::warn!(%error, "opus encoder reset");
        }
    }

    fn configure(&mut self, s: EncoderSettings) {
        let e = &mut self.inner;
        let applied = e
            .set_bitrate(opus::Bitrate::Bits(s.bitrate_bps.clamp(6_000, 128_000) as i32))
            .and_then(|()| e.set_complexity(i32::from(s.complexity.min(10))))
            .and_then(|()| e.set_inband_fec(s.fec))
            .and_then(|()| e.set_dtx(s.dtx))
            .and_then(|()| e.set_packet_loss_perc(i32::from(s.packet_loss_percent.min(100))))
            .and_then(|()| e.set_vbr(true))
            .and_then(|()| e.set_signal(opus::Signal::Voice));
        if let Err(error) = applied {
            tracing::warn!(%error, "opus encoder settings");
        }
    }
}

/// Room for one packet.
pub(crate) fn packet_buffer() -> Vec<u8> {
    vec![0; MAX_PACKET]
}

/// Turns packets into samples at 48 kHz mono.
pub trait PacketDecoder: Send {
    /// Decodes `packet` and appends its samples. With `fec`, decodes what `packet` says about its predecessor of
    /// `samples` samples instead. Returns how many samples were appended.
    ///
    /// # Errors
    /// What the codec says about a malformed packet; nothing was appended then.
    fn decode(&mut self, packet: &[u8], fec: bool, samples: usize, out: &mut Vec<f32>) -> Result<usize, String>;
    /// Makes up `samples` samples (a multiple of 120) in place of what is missing. Fades out by itself.
    fn conceal(&mut self, samples: usize, out: &mut Vec<f32>);
    /// Forgets the past.
    fn reset(&mut self);
    /// Duration of a packet in samples at 48 kHz, from its first byte(s); `None` when malformed.
    fn duration(&self, packet: &[u8]) -> Option<usize>;
    /// Whether the packet carries forward error correction for its predecessor.
    fn has_fec(&self, packet: &[u8]) -> bool;
}

/// Opus to mono.
pub struct OpusPacketDecoder {
    inner: opus::Decoder,
    scratch: Vec<f32>,
}

impl OpusPacketDecoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`AudioError::Codec`].
    pub fn new() -> Result<Self, AudioError> {
        let inner =
            opus::Decoder::new(SAMPLE_RATE_HZ, opus::Channels::Mono).map_err(|e| AudioError::Codec(e.to_string()))?;
        // The longest packet is 120 ms (RFC 6716).
        Ok(Self { inner, scratch: vec![0.0; PACKET_SAMPLES * 6] })
    }
}

impl PacketDecoder for OpusPacketDecoder {
    fn decode(&mut self, packet: &[u8], fec: bool, samples: usize, out: &mut Vec<f32>) -> Result<usize, String> {
        if packet.is_empty() {
            return Err("empty packet".to_owned());
        }
        let room = if fec { samples.min(self.scratch.len()) } else { self.scratch.len() };
        let scratch = self.scratch.get_mut(..room).unwrap_or_default();
        let n = self.inner.decode_float(packet, scratch, fec).map_err(|e| e.to_string())?;
        out.extend(scratch.iter().take(n).map(|s| if s.is_finite() { s.clamp(-2.0, 2.0) } else { 0.0 }));
        Ok(n)
    }

    fn conceal(&mut self, samples: usize, out: &mut Vec<f32>) {
        let scratch = self.scratch.get_mut(..samples).unwrap_or_default();
        let n = self.inner.decode_float(&[], scratch, false).unwrap_or(0);
        out.extend(scratch.iter().take(n).map(sane));
        out.extend(std::iter::repeat_n(0.0, samples.saturating_sub(n)));
    }

    fn reset(&mut self) {
        if let Err(error) = self.inner.reset_state() {
            tracing::warn!(%error, "opus decoder reset");
        }
    }

    fn duration(&self, packet: &[u8]) -> Option<usize> {
        if packet.is_empty() {
            return None;
        }
        opus::packet::get_nb_samples(packet, SAMPLE_RATE_HZ).ok().filter(|n| (120..=5_760).contains(n))
    }

    fn has_fec(&self, packet: &[u8]) -> bool {
        has_lbrr(packet)
    }
}

/// What a hostile packet makes the decoder say must stay a sound.
fn sane(sample: &f32) -> f32 {
    if sample.is_finite() { sample.clamp(-2.0, 2.0) } else { 0.0 }
}

/// Whether a packet's SILK layer carries LBRR frames (RFC 6716, 4.2.3 and 4.2.4), as far as the first byte after the
/// TOC tells; only for one frame per packet of up to 20 ms, mono or stereo's mid channel. CELT has none.
fn has_lbrr(packet: &[u8]) -> bool {
    let (Some(toc), Some(first)) = (packet.first(), packet.get(1)) else {
        return false;
    };
    let config = toc >> 3;
    // Configurations 0–11 are SILK, 12–15 hybrid, 16–31 CELT; code 0 is one frame.
    if config >= 16 || toc & 3 != 0 {
        return false;
    }
    // VAD bits, then the LBRR bit, for as many SILK frames of 20 ms as the packet has (1, 2 or 3).
    let frames = match config {
        c if c >= 12 => 1,
        c => match c & 3 {
            0 | 1 => 1,
            2 => 2,
            _ => 3,
        },
    };
    first & (0x80 >> frames) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::audio::dsp::rms;

    #[test]
    fn the_silent_packet_decodes_to_silence() {
        let mut decoder = OpusPacketDecoder::new().unwrap();
        let mut out = Vec::new();
        assert_eq!(decoder.duration(&SILENT_PACKET), Some(960));
        assert_eq!(decoder.decode(&SILENT_PACKET, false, 960, &mut out).unwrap(), 960);
        assert!(rms(&out) < 1e-4);
    }

    #[test]
    fn garbage_is_an_error_not_a_crash() {
        let mut decoder = OpusPacketDecoder::new().unwrap();
        let mut out = Vec::new();
        let mut seed = 1u32;
        for length in 0..400usize {
            let packet: Vec<u8> = (0..length)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = decoder.duration(&packet);
            let _ = decoder.decode(&packet, false, 960, &mut out);
            let _ = decoder.decode(&packet, true, 960, &mut out);
        }
        assert!(out.iter().all(|s| s.is_finite()));
    }
}
