//! Media of the server's side: people made of the test picture and the tone, and a judge of what a client publishes. Packets are cut and put
//! together by the `rtc` crate, not by the code under test.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::rtp::codec::vp8::{Vp8Packet, Vp8Payloader};
use rtc::rtp::packetizer::{Depacketizer as _, Payloader as _};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use tertulia::media::audio::codec::{
    EncoderSettings as OpusSettings, OpusPacketDecoder, OpusPacketEncoder, PacketDecoder as _, PacketEncoder as _,
};
use tertulia::media::audio::meter::ToneMeter;
use tertulia::media::audio::source::{ToneGenerator, default_tone_hz};
use tertulia::media::audio::{BLOCK_SAMPLES, Block, PACKET_SAMPLES};
use tertulia::media::video::codec::{Content, EncoderSettings, FrameStamp, VideoCodec, new_decoder, new_encoder};
use tertulia::media::video::frame::{FramePool, VideoFrame};
use tertulia::media::video::pattern::{PatternPainter, read, unix_ms};
use tertulia::media::video::source::{PatternSource, VideoMode};
use tokio::sync::broadcast;

/// Payload bytes of a packet.
const MTU: usize = 1_100;
/// Packets that a slow taker may be behind.
const FEED: usize = 4_096;

/// One packet on its way through the server, without the numbers that belong to a leg.
#[derive(Clone)]
pub struct Packet {
    pub kind: RtpCodecKind,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Bytes,
}

impl Packet {
    /// Whether it begins a key frame of VP8, or an access unit with parameter sets in one packet of H264.
    pub fn begins_key_frame(&self) -> bool {
        // STAP-A with a sequence parameter set first; no VP8 descriptor of these streams looks like it.
        if self.kind == RtpCodecKind::Video && self.payload.len() > 3 && self.payload[0] & 0x1f == 24 {
            return self.payload[3] & 0x1f == 7;
        }
        let mut descriptor = Vp8Packet::default();
        self.kind == RtpCodecKind::Video
            && descriptor.depacketize(&self.payload).is_ok_and(|data| {
                descriptor.s == 1 && descriptor.pid == 0 && data.first().is_some_and(|tag| tag & 1 == 0)
            })
    }
}

/// What a stream sends, for everybody who takes it.
pub type Feed = broadcast::Sender<Packet>;

pub fn feed() -> Feed {
    broadcast::channel(FEED).0
}

/// Switches of a scripted person.
#[derive(Default)]
pub struct Switches {
    pub key_frame: AtomicBool,
    pub camera_off: AtomicBool,
    pub microphone_off: AtomicBool,
    gone: AtomicBool,
}

/// A person of the server: 320×180 at 30 pictures a second with this pattern, and its tone. Ends when dropped.
pub struct Person {
    pub id: u8,
    pub feed: Feed,
    pub switches: Arc<Switches>,
}

impl Person {
    pub fn new(id: u8) -> Self {
        let person = Self { id, feed: feed(), switches: Arc::default() };
        let (feed, switches) = (person.feed.clone(), Arc::clone(&person.switches));
        std::thread::spawn(move || act(id, &feed, &switches));
        person
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.switches.gone.store(true, Ordering::Relaxed);
    }
}

fn act(id: u8, feed: &Feed, switches: &Switches) {
    let mode = VideoMode { width: 320, height: 180, fps: 30 };
    let mut painter = PatternPainter::new(PatternSource { id, mode, sync: false });
    let (width, height) = painter.size();
    let settings = EncoderSettings { width, height, fps: 30, bitrate_bps: 400_000, content: Content::Camera };
    let mut encoder = new_encoder(VideoCodec::Vp8, settings).unwrap();
    let mut payloader = Vp8Payloader::default();
    payloader.enable_picture_id = true;
    let mut picture = VideoFrame::black(width, height);
    let mut tone = ToneGenerator::new(default_tone_hz(id), false);
    let mut opus = OpusPacketEncoder::new(OpusSettings { dtx: false, ..OpusSettings::default() }).unwrap();
    let begin = Instant::now();
    let (mut pictures, mut sounds) = (0u32, 0u32);
    while !switches.gone.load(Ordering::Relaxed) {
        let (next_picture, next_sound) =
            (begin + Duration::from_secs(1) * pictures / 30, begin + Duration::from_millis(20) * sounds);
        let next = next_picture.min(next_sound);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if next == next_picture {
            pictures += 1;
            if switches.camera_off.load(Ordering::Relaxed) {
                continue;
            }
            painter.draw(&mut picture, unix_ms());
            let key = switches.key_frame.swap(false, Ordering::Relaxed);
            let Some(encoded) = encoder.encode(&picture, u64::from(pictures) * 3_000, key).unwrap() else { continue };
            let payloads = payloader.payload(MTU, &encoded.data).unwrap();
            let last = payloads.len() - 1;
            for (i, payload) in payloads.into_iter().enumerate() {
                let (kind, timestamp) = (RtpCodecKind::Video, pictures * 3_000);
                drop(feed.send(Packet { kind, timestamp, marker: i == last, payload }));
            }
        } else {
            sounds += 1;
            let mut samples: Vec<f32> = tone.next_block(unix_ms()).to_vec();
            samples.extend(tone.next_block(unix_ms()));
            let mut packet = [0; 1_275];
            let length = opus.encode(&samples, &mut packet).unwrap();
            if !switches.microphone_off.load(Ordering::Relaxed) {
                let payload = Bytes::copy_from_slice(&packet[..length]);
                let (kind, timestamp) = (RtpCodecKind::Audio, sounds * PACKET_SAMPLES as u32);
                drop(feed.send(Packet { kind, timestamp, marker: sounds == 1, payload }));
            }
        }
    }
}

/// What a client published.
#[derive(Debug, Default)]
pub struct Judgement {
    pub frames: u32,
    pub key_frames: u32,
    /// Pictures without a strip, or with one that contradicts itself.
    pub unreadable: u32,
    pub ids: BTreeSet<u8>,
    pub sizes: BTreeSet<(u32, u32)>,
    pub tone_hz: Option<f32>,
    pub sounds: u32,
}

/// Decodes everything, from the first packet on. A frame that does not decode is an error.
pub fn judge(packets: &[(RtpCodecKind, rtc::rtp::Packet)]) -> Judgement {
    let mut judgement = Judgement::default();
    let of = |wanted| {
        let mut some: Vec<&rtc::rtp::Packet> = packets.iter().filter(|(k, _)| *k == wanted).map(|(_, p)| p).collect();
        // By number from the first one; it may wrap once.
        let first = some.first().map_or(0, |p| p.header.sequence_number.wrapping_sub(64));
        some.sort_by_key(|p| p.header.sequence_number.wrapping_sub(first));
        some.dedup_by_key(|p| p.header.sequence_number);
        some
    };
    let mut decoder = new_decoder(VideoCodec::Vp8).unwrap();
    let mut pool = FramePool::new(8);
    let mut frame = Vec::new();
    for packet in of(RtpCodecKind::Video) {
        if packet.payload.is_empty() {
            continue;
        }
        frame.extend_from_slice(&Vp8Packet::default().depacketize(&packet.payload).expect("a VP8 payload"));
        if !packet.header.marker {
            continue;
        }
        let data = std::mem::take(&mut frame);
        judgement.key_frames += u32::from(data[0] & 1 == 0);
        assert!(judgement.key_frames > 0, "the first frame is no key frame");
        let stamp = FrameStamp { at: Instant::now(), rtp_timestamp: packet.header.timestamp };
        let Some(picture) = decoder.decode(&data, &mut pool, stamp).expect("decodable") else { continue };
        judgement.frames += 1;
        judgement.sizes.insert((picture.width, picture.height));
        match read(&picture) {
            Some(reading) if reading.crc_ok => {
                judgement.ids.insert(reading.id);
            }
            _ => judgement.unreadable += 1,
        }
    }
    let mut opus = OpusPacketDecoder::new().unwrap();
    let mut meter = ToneMeter::new();
    let mut samples = Vec::new();
    for packet in of(RtpCodecKind::Audio) {
        opus.decode(&packet.payload, false, PACKET_SAMPLES, &mut samples).expect("decodable");
        judgement.sounds += 1;
        while samples.len() >= BLOCK_SAMPLES {
            let block: Block =
                samples.drain(..BLOCK_SAMPLES).map(|[mid, _]| mid).collect::<Vec<_>>().try_into().unwrap();
            meter.push(&block);
        }
    }
    judgement.tone_hz = meter.tone_hz();
    judgement
}
