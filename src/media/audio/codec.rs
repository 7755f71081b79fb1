//! Opus: encoder settings, encoder and decoder behind small traits so that tests can watch the samples.

#[cfg(not(feature = "opus"))]
use super::no_opus as opus;
use super::{AudioError, Frame, PACKET_SAMPLES, SAMPLE_RATE_HZ, mid_side};
use std::time::{Duration, Instant};

/// Opus packet that decodes to 20 ms of silence (CELT, fullband, mono): keeps a muted stream's receiver from concealing
/// and its path from closing, without an encoder having run.
pub const SILENT_PACKET: [u8; 3] = [0xf8, 0xff, 0xfe];
/// Largest packet we make, in bytes.
const MAX_PACKET: usize = 1_275;

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderSettings {
    /// Target in bit/s; 6 000 to 256 000.
    pub bitrate_bps: u32,
    /// 0 (cheap) to 10.
    pub complexity: u8,
    /// In-band forward error correction.
    pub fec: bool,
    /// Discontinuous transmission: nothing is sent while nobody speaks.
    pub dtx: bool,
    /// Loss to expect, in percent; decides how much of the rate goes to the correction.
    pub packet_loss_percent: u8,
    /// Tuned for music and not for speech.
    pub music: bool,
    /// Two channels: samples come interleaved.
    pub stereo: bool,
}

impl Default for EncoderSettings {
    fn default() -> Self {
        Self {
            bitrate_bps: 36_000,
            complexity: 7,
            fec: true,
            dtx: true,
            packet_loss_percent: 5,
            music: false,
            stereo: false,
        }
    }
}

/// Rate of one channel of original sound, in bit/s.
const MUSIC_BPS: u32 = 96_000;
/// Rate of two, in bit/s.
const MUSIC_STEREO_BPS: u32 = 160_000;

impl EncoderSettings {
    /// For sound that is to arrive as it is: music, no pauses.
    pub fn original_sound(self, stereo: bool) -> Self {
        let most = if stereo { MUSIC_STEREO_BPS } else { MUSIC_BPS };
        // On a path that cannot take it the rate of speech, trebled, is what is left for it.
        let bitrate_bps = most.min(self.bitrate_bps.saturating_mul(if stereo { 5 } else { 3 }));
        Self { bitrate_bps, complexity: 10, dtx: false, music: true, stereo, ..self }
    }
}

/// What to spend on speech where the picture is left `picture_bps`: the path is narrow when that is little.
pub fn voice_bitrate_bps(picture_bps: u64) -> u32 {
    match picture_bps {
        0..80_000 => 16_000,
        80_000..150_000 => 20_000,
        150_000..300_000 => 28_000,
        _ => EncoderSettings::default().bitrate_bps,
    }
}

/// Turns 20 ms of samples into a packet.
pub trait PacketEncoder: Send {
    /// Encodes 960 samples, or as many interleaved pairs with [`EncoderSettings::stereo`], into `packet` and returns its length in bytes; up to 2 means "not to be sent" (DTX).
    ///
    /// # Errors
    /// What the codec says.
    fn encode(&mut self, samples: &[f32], packet: &mut [u8]) -> Result<usize, String>;
    /// Forgets the past: what follows is a new talk spurt.
    fn reset(&mut self);
    /// Applies new settings.
    fn configure(&mut self, settings: EncoderSettings);
}

/// A packet that takes longer than this to encode, on the average, is too much for the machine: 7.5 % of its 20 ms.
const SLOW: Duration = Duration::from_micros(1_500);
/// One that takes less leaves room.
const FAST: Duration = Duration::from_micros(600);
/// Packets after which the complexity may be lowered, and after which it may be raised again.
const RELIEVE_AFTER: u32 = 50;
const RESTORE_AFTER: u32 = 500;
/// Steps of relief, each two of complexity.
const RELIEF_LIMIT: u8 = 3;

/// How much less complex than asked for, by how long encoding takes on this machine now.
#[derive(Debug, Default)]
struct Governor {
    mean_us: f32,
    packets: u32,
    relief: u8,
}

impl Governor {
    /// Notes how long a packet took; `true` when the complexity is to be set anew.
    fn took(&mut self, time: Duration) -> bool {
        self.mean_us += (time.as_micros() as f32 - self.mean_us) / 32.0;
        self.packets += 1;
        let before = self.relief;
        if self.packets >= RELIEVE_AFTER && self.mean_us > SLOW.as_micros() as f32 {
            self.relief = (self.relief + 1).min(RELIEF_LIMIT);
            self.packets = 0;
        } else if self.packets >= RESTORE_AFTER && self.mean_us < FAST.as_micros() as f32 {
            self.relief = self.relief.saturating_sub(1);
            self.packets = 0;
        }
        self.relief != before
    }

    fn complexity(&self, wanted: u8) -> u8 {
        wanted.min(10).saturating_sub(2 * self.relief).max(1)
    }
}

/// Opus, for voice or music.
pub struct OpusPacketEncoder {
    inner: opus::Encoder,
    settings: EncoderSettings,
    governor: Governor,
}

fn opus_encoder(settings: EncoderSettings) -> Result<opus::Encoder, opus::Error> {
    let channels = if settings.stereo { opus::Channels::Stereo } else { opus::Channels::Mono };
    let application = if settings.music { opus::Application::Audio } else { opus::Application::Voip };
    opus::Encoder::new(SAMPLE_RATE_HZ, channels, application)
}

impl OpusPacketEncoder {
    /// An encoder with these settings.
    ///
    /// # Errors
    /// [`AudioError::Codec`].
    pub fn new(settings: EncoderSettings) -> Result<Self, AudioError> {
        let inner = opus_encoder(settings).map_err(|e| AudioError::Codec(e.to_string()))?;
        let mut encoder = Self { inner, settings, governor: Governor::default() };
        encoder.configure(settings);
        Ok(encoder)
    }
}

impl PacketEncoder for OpusPacketEncoder {
    fn encode(&mut self, samples: &[f32], packet: &mut [u8]) -> Result<usize, String> {
        let began = Instant::now();
        let length = self.inner.encode_float(samples, packet).map_err(|e| e.to_string())?;
        if self.governor.took(began.elapsed()) {
            let complexity = self.governor.complexity(self.settings.complexity);
            tracing::debug!(complexity, "opus complexity by the machine's load");
            if let Err(error) = self.inner.set_complexity(i32::from(complexity)) {
                tracing::warn!(%error, "opus complexity");
            }
        }
        Ok(length)
    }

    fn reset(&mut self) {
        if let Err(error) = self.inner.reset_state() {
            tracing::warn!(%error, "opus encoder reset");
        }
    }

    fn configure(&mut self, s: EncoderSettings) {
        // Channels and purpose are of an encoder's birth.
        if (s.music, s.stereo) != (self.settings.music, self.settings.stereo) {
            match opus_encoder(s) {
                Ok(encoder) => self.inner = encoder,
                Err(error) => {
                    tracing::warn!(%error, "opus encoder");
                    return;
                }
            }
        }
        self.settings = s;
        let e = &mut self.inner;
        let applied = e
            .set_bitrate(opus::Bitrate::Bits(s.bitrate_bps.clamp(6_000, 256_000) as i32))
            .and_then(|()| e.set_complexity(i32::from(self.governor.complexity(s.complexity))))
            .and_then(|()| e.set_inband_fec(s.fec))
            .and_then(|()| e.set_dtx(s.dtx))
            .and_then(|()| e.set_packet_loss_perc(i32::from(s.packet_loss_percent.min(100))))
            .and_then(|()| e.set_vbr(true))
            .and_then(|()| e.set_signal(if s.music { opus::Signal::Music } else { opus::Signal::Voice }));
        if let Err(error) = applied {
            tracing::warn!(%error, "opus encoder settings");
        }
    }
}

/// Room for one packet.
pub(crate) fn packet_buffer() -> Vec<u8> {
    vec![0; MAX_PACKET]
}

/// Turns packets into frames at 48 kHz.
pub trait PacketDecoder: Send {
    /// Decodes `packet` and appends its samples. With `fec`, decodes what `packet` says about its predecessor of
    /// `samples` samples instead. Returns how many samples were appended.
    ///
    /// # Errors
    /// What the codec says about a malformed packet; nothing was appended then.
    fn decode(&mut self, packet: &[u8], fec: bool, samples: usize, out: &mut Vec<Frame>) -> Result<usize, String>;
    /// Makes up `samples` samples (a multiple of 120) in place of what is missing. Fades out by itself.
    fn conceal(&mut self, samples: usize, out: &mut Vec<Frame>);
    /// Forgets the past.
    fn reset(&mut self);
    /// Duration of a packet in samples at 48 kHz, from its first byte(s); `None` when malformed.
    fn duration(&self, packet: &[u8]) -> Option<usize>;
    /// Whether the packet carries forward error correction for its predecessor.
    fn has_fec(&self, packet: &[u8]) -> bool;
}

/// Opus, of one channel or two.
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
            opus::Decoder::new(SAMPLE_RATE_HZ, opus::Channels::Stereo).map_err(|e| AudioError::Codec(e.to_string()))?;
        // The longest packet is 120 ms (RFC 6716); two channels.
        Ok(Self { inner, scratch: vec![0.0; PACKET_SAMPLES * 6 * 2] })
    }
}

impl PacketDecoder for OpusPacketDecoder {
    fn decode(&mut self, packet: &[u8], fec: bool, samples: usize, out: &mut Vec<Frame>) -> Result<usize, String> {
        if packet.is_empty() {
            return Err("empty packet".to_owned());
        }
        let room = if fec { (2 * samples).min(self.scratch.len()) } else { self.scratch.len() };
        let scratch = self.scratch.get_mut(..room).unwrap_or_default();
        let n = self.inner.decode_float(packet, scratch, fec).map_err(|e| e.to_string())?;
        out.extend(frames(scratch).take(n));
        Ok(n)
    }

    fn conceal(&mut self, samples: usize, out: &mut Vec<Frame>) {
        let scratch = self.scratch.get_mut(..2 * samples).unwrap_or_default();
        let n = self.inner.decode_float(&[], scratch, false).unwrap_or(0);
        out.extend(frames(scratch).take(n));
        out.extend(std::iter::repeat_n([0.0; 2], samples.saturating_sub(n)));
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

/// Interleaved samples as frames.
fn frames(samples: &[f32]) -> impl Iterator<Item = Frame> {
    samples.chunks_exact(2).map(|pair| match pair {
        [left, right] => mid_side(sane(left), sane(right)),
        _ => [0.0; 2],
    })
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
        assert!(rms(out.as_flattened()) < 1e-4);
    }

    #[test]
    fn a_machine_that_is_too_slow_gets_less_to_do_and_more_again_later() {
        let mut governor = Governor::default();
        assert!((0..200).all(|_| !governor.took(Duration::from_micros(200))), "190 µs is what it costs");
        assert_eq!(governor.complexity(7), 7);
        let lowered = (0..400).filter(|_| governor.took(Duration::from_millis(4))).count();
        assert_eq!((lowered, governor.complexity(7), governor.complexity(2)), (3, 1, 1));
        let raised = (0..2_000).filter(|_| governor.took(Duration::from_micros(200))).count();
        assert_eq!((raised, governor.complexity(7)), (3, 7));
    }

    #[test]
    fn original_sound_is_wider_than_speech() {
        // A tone of 15 kHz: speech has none of it, music may.
        let through = |settings: EncoderSettings| {
            let mut encoder = OpusPacketEncoder::new(EncoderSettings::default()).unwrap();
            encoder.configure(settings);
            let mut decoder = OpusPacketDecoder::new().unwrap();
            let (mut packet, mut out) = (packet_buffer(), Vec::new());
            for k in 0..50 {
                let samples: Vec<f32> = (0..960)
                    .map(|i| 0.3 * (std::f32::consts::TAU * 15_000.0 * (k * 960 + i) as f32 / 48_000.0).sin())
                    .collect();
                let n = encoder.encode(&samples, &mut packet).unwrap();
                decoder.decode(&packet[..n], false, 960, &mut out).unwrap();
            }
            let mid: Vec<f32> = out.iter().map(|frame| frame[0]).collect();
            crate::media::audio::dsp::power_at(&mid[24_000..], 15_000.0, 48_000.0)
        };
        let quiet = EncoderSettings { bitrate_bps: 16_000, dtx: false, ..EncoderSettings::default() };
        let music = through(EncoderSettings::default().original_sound(false));
        assert!(music > 0.04 && through(quiet) < music / 10.0, "{music} {}", through(quiet));
        assert_eq!(voice_bitrate_bps(60_000), 16_000);
        assert_eq!(voice_bitrate_bps(2_000_000), 36_000);
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
        assert!(out.as_flattened().iter().all(|s| s.is_finite()));
    }
}
