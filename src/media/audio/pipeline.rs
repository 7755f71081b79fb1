//! The capture path after the source: processing → meters and detectors → mute gate → Opus. No device, no clock.

use super::codec::{EncoderSettings, PacketEncoder, SILENT_PACKET, packet_buffer};
use super::dsp::{dbov_level, rms, sine_dbfs};
use super::gate::MuteGate;
use super::processing::CaptureProcessor;
use super::{BLOCK_SAMPLES, Block, PACKET_SAMPLES, SAMPLE_RATE_HZ, left_right};
use crate::rtp::frame::EncodedAudio;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// Blocks dropped when the gate opens: what was said before is still inside the filters of the processing.
const GUARD_BLOCKS: u32 = 2;
/// Fade-in after opening: 5 ms.
const FADE_SAMPLES: u32 = 240;
/// Silent packets at the beginning of a mute, 20 ms each, so that receivers end cleanly instead of concealing.
const SILENT_LEAD: u64 = 3;
/// Then one in 400 ms, as Opus itself does in DTX: keeps the path and the receiver's watchdog alive.
const SILENT_EVERY: u64 = 20;
/// Zeros for this many blocks are a dead microphone: 3 s.
const DEAD_BLOCKS: u32 = 300;
/// Voice in this many of the last 100 blocks is talking: 400 ms in a second.
const TALKING_BLOCKS: u32 = 40;
/// The talking-while-muted notice comes at most every 10 s.
const TALKING_PAUSE_BLOCKS: u32 = 1_000;

/// What one block led to.
#[derive(Debug, Clone, Default)]
pub struct CaptureStep {
    /// A packet to send.
    pub packet: Option<EncodedAudio>,
    /// Level as captured, in dBFS.
    pub captured_dbfs: f32,
    /// Level after processing, before the gate, in dBFS.
    pub processed_dbfs: f32,
    /// Somebody began to talk into the closed gate.
    pub talking_while_muted: bool,
    /// The microphone fell silent (`Some(true)`) or came back (`Some(false)`).
    pub silent: Option<bool>,
}

/// Energy-based voice detector: well above the noise floor it has followed.
#[derive(Debug, Clone)]
struct VoiceDetector {
    floor: f32,
}

impl VoiceDetector {
    fn is_voice(&mut self, rms: f32) -> bool {
        // Falls at once, rises 3 dB in a second: speech does not become the floor, a fan does.
        self.floor = if rms < self.floor { rms.max(1e-5) } else { self.floor * 1.0035 };
        rms > 0.003 && rms > self.floor * 2.5
    }
}

/// Blocks in, packets out.
pub struct CapturePipeline {
    gate: MuteGate,
    encoder: Box<dyn PacketEncoder>,
    /// Samples of the packet that is being filled, interleaved where there are two channels.
    pending: Vec<f32>,
    channels: usize,
    packet: Vec<u8>,
    rtp_timestamp: u32,
    was_open: bool,
    guard: u32,
    fade: u32,
    closed_blocks: u64,
    voice: VoiceDetector,
    pending_voice: bool,
    talking: u32,
    talking_pause: u32,
    zero_blocks: u32,
    silent: bool,
    in_dtx: bool,
}

impl CapturePipeline {
    /// A path through `gate` into `encoder`, whose first sample has `rtp_timestamp`.
    pub fn new(gate: MuteGate, encoder: Box<dyn PacketEncoder>, rtp_timestamp: u32) -> Self {
        Self {
            gate,
            encoder,
            pending: Vec::with_capacity(2 * PACKET_SAMPLES),
            channels: 1,
            packet: packet_buffer(),
            rtp_timestamp,
            was_open: false,
            guard: 0,
            fade: FADE_SAMPLES,
            closed_blocks: 0,
            voice: VoiceDetector { floor: 1.0 },
            pending_voice: false,
            talking: 0,
            talking_pause: 0,
            zero_blocks: 0,
            silent: false,
            in_dtx: false,
        }
    }

    /// Timestamp of what comes next.
    pub fn rtp_timestamp(&self) -> u32 {
        self.rtp_timestamp
    }

    /// Applies encoder settings.
    pub fn configure(&mut self, settings: EncoderSettings) {
        self.encoder.configure(settings);
        let channels = if settings.stereo { 2 } else { 1 };
        if std::mem::replace(&mut self.channels, channels) != channels {
            self.pending.clear();
        }
    }

    /// Lets time pass without samples (no source, or the machine slept).
    pub fn skip(&mut self, samples: u32) {
        self.rtp_timestamp = self.rtp_timestamp.wrapping_add(samples - samples % BLOCK_SAMPLES as u32);
        self.pending.clear();
        self.was_open = false;
    }

    /// Forgets what detectors know of the old source.
    pub fn source_changed(&mut self) {
        self.pending.clear();
        self.was_open = false;
        self.zero_blocks = 0;
        self.silent = false;
        self.talking = 0;
        self.voice.floor = 1.0;
    }

    /// As [`Self::push_wide`], of one channel.
    pub fn push(
        &mut self,
        block: Block,
        processor: &mut dyn CaptureProcessor,
        from_device: bool,
        sending: bool,
        captured: Instant,
    ) -> CaptureStep {
        self.push_wide(block, None, processor, from_device, sending, captured)
    }

    /// Takes 10 ms: the mean of the channels, and half their difference, which no stage of the processing sees. `from_device` turns on the detectors; `sending` says whether there is a sink at all; `captured` is when the
    /// first sample was.
    pub fn push_wide(
        &mut self,
        mut block: Block,
        side: Option<&Block>,
        processor: &mut dyn CaptureProcessor,
        from_device: bool,
        sending: bool,
        captured: Instant,
    ) -> CaptureStep {
        let mut step = CaptureStep { captured_dbfs: sine_dbfs(rms(&block)), ..CaptureStep::default() };
        if from_device {
            step.silent = self.detect_silence(&block);
        }
        processor.near_end(&mut block);
        let level = rms(&block);
        step.processed_dbfs = sine_dbfs(level);
        let voice = self.voice.is_voice(level);
        let at = self.rtp_timestamp;
        self.rtp_timestamp = at.wrapping_add(BLOCK_SAMPLES as u32);

        // The gate. Nothing behind this point has seen a sample of this block.
        if !sending || self.gate.stops_samples() {
            let closed_by_user = self.gate.is_muted();
            step.talking_while_muted = from_device && closed_by_user && self.detect_talking(voice);
            if self.was_open {
                self.was_open = false;
                self.pending.clear();
                self.closed_blocks = 0;
            }
            if sending && closed_by_user {
                step.packet = self.silent_packet(at, captured);
            }
            return step;
        }
        if !self.was_open {
            self.was_open = true;
            self.encoder.reset();
            self.pending.clear();
            self.pending_voice = false;
            self.in_dtx = false;
            self.guard = GUARD_BLOCKS;
            self.fade = 0;
            self.talking = 0;
        }
        if self.guard > 0 {
            self.guard -= 1;
            return step;
        }
        let side = side.unwrap_or(&[0.0; BLOCK_SAMPLES]);
        for (mid, side) in block.iter().zip(side) {
            let gain = (self.fade as f32 / FADE_SAMPLES as f32).min(1.0);
            self.fade = (self.fade + 1).min(FADE_SAMPLES);
            if self.channels == 2 {
                self.pending.extend(left_right([mid * gain, side * gain]));
            } else {
                self.pending.push(mid * gain);
            }
        }
        self.pending_voice |= voice;
        if self.pending.len() >= PACKET_SAMPLES * self.channels {
            let before = (self.pending.len() / self.channels - BLOCK_SAMPLES) as u32;
            let began = Duration::from_micros(u64::from(before) * 1_000_000 / u64::from(SAMPLE_RATE_HZ));
            step.packet = self.encode(at.wrapping_sub(before), captured.checked_sub(began).unwrap_or(captured));
        }
        step
    }

    fn encode(&mut self, rtp_timestamp: u32, at: Instant) -> Option<EncodedAudio> {
        let level = dbov_level(rms(&self.pending));
        let result = self.encoder.encode(&self.pending, &mut self.packet);
        self.pending.clear();
        let voice = std::mem::take(&mut self.pending_voice);
        // Closed while the encoder ran: the packet does not leave.
        if self.gate.stops_samples() {
            return None;
        }
        match result {
            Ok(length) => {
                // Up to two bytes is Opus saying that nothing needs to be sent. The first one goes out all the same: it
                // tells the receiver that what follows is a pause and not loss (as WebRTC does).
                let pause = length <= 2;
                let data = if pause && self.in_dtx {
                    Bytes::new()
                } else {
                    self.in_dtx = pause;
                    Bytes::copy_from_slice(self.packet.get(..length).unwrap_or_default())
                };
                Some(EncodedAudio { data, rtp_timestamp, samples: PACKET_SAMPLES as u32, level, voice, at })
            }
            Err(error) => {
                tracing::warn!(error, "opus encoder");
                None
            }
        }
    }

    /// A constant packet at the beginning of a mute and every 400 ms; no sample goes into it.
    fn silent_packet(&mut self, rtp_timestamp: u32, at: Instant) -> Option<EncodedAudio> {
        let blocks = self.closed_blocks;
        self.closed_blocks += 1;
        let due = blocks.is_multiple_of(2) && (blocks / 2 < SILENT_LEAD || (blocks / 2).is_multiple_of(SILENT_EVERY));
        due.then(|| EncodedAudio {
            data: Bytes::from_static(&SILENT_PACKET),
            rtp_timestamp,
            samples: PACKET_SAMPLES as u32,
            level: 127,
            voice: false,
            at,
        })
    }

    fn detect_talking(&mut self, voice: bool) -> bool {
        // A leaky count: one block of voice weighs as much as one and a half without.
        self.talking = if voice { self.talking + 3 } else { self.talking.saturating_sub(2) };
        self.talking_pause = self.talking_pause.saturating_sub(1);
        if self.talking >= TALKING_BLOCKS * 3 && self.talking_pause == 0 {
            self.talking = 0;
            self.talking_pause = TALKING_PAUSE_BLOCKS;
            return true;
        }
        self.talking = self.talking.min(TALKING_BLOCKS * 3);
        false
    }

    fn detect_silence(&mut self, block: &Block) -> Option<bool> {
        if block.iter().all(|s| *s == 0.0) {
            self.zero_blocks = self.zero_blocks.saturating_add(1);
            if self.zero_blocks == DEAD_BLOCKS {
                self.silent = true;
                return Some(true);
            }
        } else {
            self.zero_blocks = 0;
            if std::mem::take(&mut self.silent) {
                return Some(false);
            }
        }
        None
    }
}
