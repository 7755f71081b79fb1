//! How much of an echo is gone, and what becomes of the near end (F18): a whole engine in virtual time, whose microphone hears
//! its own speaker through a room.

use super::Speech;
use super::devices::{VirtualDevice, VirtualDevices, Way};
use super::rig::Rig;
use crate::media::audio::clock::Clock;
use crate::media::audio::codec::{EncoderSettings, OpusPacketEncoder, PacketEncoder, packet_buffer};
use crate::media::audio::host::SoundHost;
use crate::media::audio::processing::{Processing, Stages, VoiceChoice};
use crate::media::audio::stream::lock;
use crate::media::audio::{
    AudioConfig, AudioError, EncodedAudioSink, MicrophoneSource, PACKET_SAMPLES, SAMPLE_RATE_HZ, SpeakerSink,
};
use crate::rtp::frame::EncodedAudio;
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Direct path from loudspeaker to microphone, in samples: 60 ms.
const PATH: usize = 48 * 60;
/// Loudness of the direct path, and of the reflections of a room: how much later in ms, and how loud.
const DIRECT: f32 = 0.5;
const ROOM: [(usize, f32); 10] = [
    (4, 0.22),
    (9, -0.17),
    (15, 0.12),
    (23, -0.10),
    (34, 0.07),
    (47, 0.05),
    (61, -0.04),
    (78, 0.03),
    (97, -0.02),
    (120, 0.012),
];
/// Noise of the microphone, as a factor: −66 dBFS.
const NOISE: f32 = 0.000_6;

/// Figures of one run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EchoFigures {
    /// Echo gone in the first two seconds, from 2 to 5 s, and from 5 to 12 s, in dB.
    pub reduced_db: [f32; 3],
    /// Change of the near end when only that speaks, without the gain stage, in dB.
    pub near_end_db: f32,
}

/// Everything that a speaker has played since the beginning.
#[derive(Default)]
struct Room {
    played: Vec<f32>,
}

impl Room {
    /// Takes what was heard until the sample with this number.
    fn play(&mut self, samples: &[f32], until: usize) {
        self.played.resize(until, 0.0);
        for (place, sample) in self.played.iter_mut().rev().zip(samples.iter().rev()) {
            *place = *sample;
        }
    }

    /// What a microphone in it hears.
    fn hear(&self, sample: usize) -> f32 {
        let at = |back: usize| sample.checked_sub(back).and_then(|i| self.played.get(i)).copied().unwrap_or(0.0);
        DIRECT * at(PATH) + ROOM.iter().map(|(ms, gain)| gain * at(PATH + ms * 48)).sum::<f32>()
    }
}

/// Who speaks.
#[derive(Clone, Copy, PartialEq)]
enum Talker {
    Far,
    Near,
}

/// Runs twelve seconds of a far end alone, and as many of a near end alone.
///
/// # Errors
/// Opus.
pub fn echo(stages: Stages) -> Result<EchoFigures, AudioError> {
    echo_on(stages, |devices, clock| SoundHost::new(devices, clock))
}

/// As [`echo`], through the sound system that `host` makes of the devices.
pub(crate) fn echo_on(
    stages: Stages,
    host: impl Fn(Arc<VirtualDevices>, Clock) -> SoundHost,
) -> Result<EchoFigures, AudioError> {
    let far = powers(stages, Talker::Far, &host)?;
    let near = powers(Stages { gain: false, ..stages }, Talker::Near, &host)?;
    let db = |a: f64, b: f64| (10.0 * (a / b.max(1e-15)).log10()) as f32;
    let [_, settling, settled] = near;
    Ok(EchoFigures {
        reduced_db: far.map(|(before, after)| db(before, after)),
        near_end_db: db(settling.1 + settled.1, settling.0 + settled.0),
    })
}

/// Power before and after the processing: of the first two seconds, until the fifth, and until the twelfth.
fn powers(
    stages: Stages,
    talker: Talker,
    host: impl Fn(Arc<VirtualDevices>, Clock) -> SoundHost,
) -> Result<[(f64, f64); 3], AudioError> {
    let clock = Clock::standing();
    let origin = clock.now();
    let number = move |at: Instant| ((at - origin).as_secs_f64() * f64::from(SAMPLE_RATE_HZ)).round() as usize;
    let room = Arc::new(Mutex::new(Room::default()));
    let (heard, mut near, mut noise_seed) = (Arc::clone(&room), Speech::new(99), 1u32);
    let hears = Box::new(move |at: Instant| {
        noise_seed = noise_seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let noise = NOISE * ((noise_seed >> 8) as f32 / 8_388_608.0 - 1.0);
        let near = if talker == Talker::Near { near.next_sample() } else { noise };
        near + lock(&heard).hear(number(at))
    });
    let plays = Box::new(move |samples: &[f32], until| lock(&room).play(samples, number(until)));
    let devices = VirtualDevices::new(vec![
        VirtualDevice::new("microphone", 0.0, Way::In(hears)),
        VirtualDevice::new("speaker", 0.0, Way::Out(plays)),
    ]);
    let config = AudioConfig {
        microphone: MicrophoneSource::Device(None),
        speaker: SpeakerSink::Device(None),
        voice: VoiceChoice { stages, ..VoiceChoice::default() },
        levelling: Processing::Off,
        ..AudioConfig::default()
    };
    let mut rig = Rig::new(host(Arc::clone(&devices), clock), devices, config)?;
    let stream = rig.engine.open_stream();
    let mut far = FarEnd::new(rig.wire(&stream))?;
    let mut powers = [(0.0, 0.0); 3];
    for block in 0..1_200u64 {
        if talker == Talker::Far && block.is_multiple_of(2) {
            far.speak(origin + Duration::from_millis(block * 10))?;
        }
        rig.run_until(Duration::from_millis(block * 10 + 10));
        let part = match block {
            0..200 => powers.first_mut(),
            200..500 => powers.get_mut(1),
            _ => powers.last_mut(),
        };
        let levels = rig.engine.levels();
        let power = |dbfs: f32| 10f64.powf(f64::from(dbfs) / 10.0);
        if let Some(part) = part {
            part.0 += power(levels.captured_dbfs);
            part.1 += power(levels.processed_dbfs);
        }
    }
    Ok(powers)
}

/// Somebody at the other end of the network.
struct FarEnd {
    voice: Speech,
    encoder: OpusPacketEncoder,
    packet: Vec<u8>,
    rtp_timestamp: u32,
    wire: EncodedAudioSink,
}

impl FarEnd {
    fn new(wire: EncodedAudioSink) -> Result<Self, AudioError> {
        let encoder = OpusPacketEncoder::new(EncoderSettings { dtx: false, ..EncoderSettings::default() })?;
        Ok(Self { voice: Speech::new(7), encoder, packet: packet_buffer(), rtp_timestamp: 0, wire })
    }

    /// Says the next 20 ms.
    fn speak(&mut self, at: Instant) -> Result<(), AudioError> {
        let samples: Vec<f32> = (0..PACKET_SAMPLES).map(|_| self.voice.next_sample()).collect();
        let length = self.encoder.encode(&samples, &mut self.packet).map_err(AudioError::Codec)?;
        let data = Bytes::copy_from_slice(self.packet.get(..length).unwrap_or_default());
        let samples = PACKET_SAMPLES as u32;
        let rtp_timestamp = self.rtp_timestamp;
        self.rtp_timestamp = rtp_timestamp.wrapping_add(samples);
        (self.wire)(EncodedAudio { data, rtp_timestamp, samples, level: 30, voice: true, at });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_gone_after_five_seconds_and_the_near_end_stays() {
        let all = echo(Stages::default()).unwrap();
        assert!(all.reduced_db[2] >= 40.0, "{all:?}");
        assert!(all.near_end_db.abs() <= 1.0, "{all:?}");
        // Each stage can be switched off: what it did is no longer done.
        let without = echo(Stages { echo: false, ..Stages::default() }).unwrap();
        assert!(without.reduced_db[2] < 20.0, "{without:?}");
    }
}
