//! Virtual-time tests against arrival traces; no clock, no sleeping.

use super::*;
use crate::media::audio::codec::{EncoderSettings, OpusPacketDecoder, OpusPacketEncoder, PacketEncoder, SILENT_PACKET};
use crate::media::audio::dsp::rms;
use crate::media::audio::meter::ToneMeter;
use crate::media::audio::source::ToneGenerator;
use bytes::Bytes;
use proptest::prelude::*;

mod trace_tests;

struct Rng(u64);

impl Rng {
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Opus packets of a tone, 20 ms each.
fn tone_packets(hz: f32, count: usize) -> Vec<Bytes> {
    let settings = EncoderSettings { dtx: false, packet_loss_percent: 10, ..EncoderSettings::default() };
    let mut encoder = OpusPacketEncoder::new(settings).unwrap();
    let mut tone = ToneGenerator::new(hz, false);
    let mut buffer = vec![0; 1_500];
    (0..count)
        .map(|_| {
            let samples: Vec<f32> = tone.next_block(500).iter().chain(&tone.next_block(500)).copied().collect();
            let n = encoder.encode(&samples, &mut buffer).unwrap();
            Bytes::copy_from_slice(&buffer[..n])
        })
        .collect()
}

struct Run {
    buffer: JitterBuffer,
    out: Vec<f32>,
    /// Target and delay after each second.
    seconds: Vec<(f32, f32)>,
}

/// Plays `packets`, where the i-th is sent at 20 ms × i (times `drift`) and `network` gives its delay in ms, `None` = lost.
fn run(packets: &[Bytes], drift: f64, mut network: impl FnMut(usize) -> Option<f64>) -> Run {
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    let mut arrivals: Vec<(f64, usize)> =
        (0..packets.len()).filter_map(|i| network(i).map(|delay| (i as f64 * 20.0 * drift + delay, i))).collect();
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut waiting = arrivals.into_iter().peekable();
    let (mut out, mut seconds) = (Vec::new(), Vec::new());
    let first = 7_000_000u32;
    for tick in 0..(packets.len() * 2) {
        let now_ms = 3.0 + tick as f64 * 10.0;
        while let Some((at, i)) = waiting.next_if(|(at, _)| *at <= now_ms) {
            let at = Duration::from_micros((at * 1_000.0) as u64);
            buffer.insert((i as u16).wrapping_add(65_500), first.wrapping_add(i as u32 * 960), packets[i].clone(), at);
        }
        out.extend(buffer.pull(Duration::from_micros((now_ms * 1_000.0) as u64)));
        if tick % 100 == 99 {
            let s = buffer.stats();
            seconds.push((s.target_delay_ms, s.playout_delay_ms));
        }
    }
    Run { buffer, out, seconds }
}

fn tone_of(samples: &[f32]) -> f32 {
    let mut meter = ToneMeter::new();
    for block in samples.chunks_exact(480) {
        meter.push(block.try_into().unwrap());
    }
    meter.tone_hz().unwrap_or(0.0)
}

#[test]
fn a_quiet_link_settles_at_a_small_delay_without_any_change_of_sound() {
    let packets = tone_packets(440.0, 500);
    let r = run(&packets, 1.0, |_| Some(20.0));
    let s = r.buffer.stats();
    assert_eq!((s.packets, s.packets_lost, s.packets_late, s.concealed_samples), (499, 0, 0, 0));
    assert!(s.target_delay_ms <= 20.0, "{s:?}");
    assert!((5.0..=40.0).contains(&s.playout_delay_ms), "{s:?}");
    let hz = tone_of(&r.out[48_000 * 8..]);
    assert!((hz - 440.0).abs() < 1.0, "{hz}");
    let level = rms(&r.out[48_000 * 8..48_000 * 9]);
    assert!((0.055..0.085).contains(&level), "{level}");
}

#[test]
fn the_delay_follows_jitter_up_and_comes_back() {
    let packets = tone_packets(500.0, 1_750);
    let mut rng = Rng(11);
    // 10 s quiet, 10 s with up to 100 ms of jitter (hence reordering), 15 s quiet.
    let r = run(&packets, 1.0, |i| Some(30.0 + if (500..1_000).contains(&i) { rng.unit() * 100.0 } else { 0.0 }));
    let s = r.buffer.stats();
    assert!(r.seconds[8].1 <= 40.0, "{:?}", r.seconds);
    // p95 of the jitter is 95 ms: at most 20 ms more.
    let under_jitter: Vec<f32> = r.seconds[14..19].iter().map(|s| s.1).collect();
    assert!(under_jitter.iter().all(|d| (70.0..=117.0).contains(d)), "{:?}", r.seconds);
    assert!(r.seconds[29].1 <= 40.0, "{:?}", r.seconds);
    assert!(s.accelerated_samples > 48 * 40 && s.decelerated_samples > 48 * 20, "{s:?}");
    // At most 4 % of the sound under jitter is made up, and the first surprise.
    assert!(s.concealed_samples < 48 * 600, "{s:?}");
    let hz = tone_of(&r.out[48_000 * 17..48_000 * 18]);
    assert!((hz - 500.0).abs() < 5.0, "{hz}");
}

#[test]
fn single_losses_are_recovered_by_forward_error_correction_or_concealed() {
    let packets = tone_packets(440.0, 1_000);
    let with_fec = packets.iter().filter(|p| OpusPacketDecoder::new().unwrap().has_fec(p)).count();
    let r = run(&packets, 1.0, |i| (i % 20 != 10).then_some(20.0));
    let s = r.buffer.stats();
    assert_eq!(s.packets_lost, 50, "{s:?}");
    let restored_ms = (s.concealed_samples + s.fec_samples) / 48;
    assert!((950..=1_100).contains(&restored_ms), "{s:?}");
    assert!(with_fec == 0 || s.fec_samples > 0, "{with_fec} packets carry it: {s:?}");
    let hz = tone_of(&r.out[48_000 * 10..]);
    assert!((hz - 440.0).abs() < 2.0, "{hz}");
}

fn has_fec(packet: &[u8]) -> bool {
    OpusPacketDecoder::new().unwrap().has_fec(packet)
}

#[test]
fn lost_packets_that_are_sent_again_are_waited_for() {
    let packets = tone_packets(440.0, 1_500);
    let mut rng = Rng(5);
    // 5 % lost on a path of 45 ms each way; a NACK after the next packet brings it again 20 + 90 ms later.
    let r = run(&packets, 1.0, |_| {
        let again = rng.unit() < 0.05;
        let twice = again && rng.unit() < 0.05;
        Some(45.0 + rng.unit() * 3.0 + if again { 110.0 } else { 0.0 } + if twice { 110.0 } else { 0.0 })
    });
    let s = r.buffer.stats();
    let made_up = s.concealed_samples as f64 / (1_500.0 * 960.0);
    assert!(made_up < 0.02, "{made_up} {s:?}");
    assert!(s.playout_delay_ms < 160.0, "{s:?}");
}

#[test]
fn speech_like_sound_carries_and_uses_forward_error_correction() {
    // A voiced buzz with changing pitch: SILK takes it, and with it LBRR.
    let settings =
        EncoderSettings { dtx: false, packet_loss_percent: 20, bitrate_bps: 32_000, ..EncoderSettings::default() };
    let mut encoder = OpusPacketEncoder::new(settings).unwrap();
    let mut buffer = vec![0; 1_500];
    let mut phase = 0.0f32;
    let packets: Vec<Bytes> = (0..500usize)
        .map(|i| {
            let pitch = 120.0 + 30.0 * (i as f32 / 25.0).sin();
            let samples: Vec<f32> = (0..960)
                .map(|_| {
                    phase = (phase + pitch / 48_000.0) % 1.0;
                    0.2 * (1..12).map(|h| (std::f32::consts::TAU * phase * h as f32).sin() / h as f32).sum::<f32>()
                })
                .collect();
            let n = encoder.encode(&samples, &mut buffer).unwrap();
            Bytes::copy_from_slice(&buffer[..n])
        })
        .collect();
    let repairable = (0..499).filter(|i| i % 10 == 5 && has_fec(&packets[i + 1])).count() as u64;
    let r = run(&packets, 1.0, |i| (i % 10 != 5).then_some(20.0));
    let s = r.buffer.stats();
    assert_eq!(s.packets_lost, 50);
    // The encoder decides which packets carry it; every one that does (but for the first losses, before the delay has
    // grown to wait for the successor) is used.
    assert!(repairable >= 20 && s.fec_samples / 960 + 3 >= repairable, "{repairable} {s:?}");
    assert!(s.fec_samples + s.concealed_samples <= 960 * 53, "{s:?}");
}

#[test]
fn clock_drift_is_followed_without_loss() {
    for drift in [1.0 - 200e-6, 1.0 + 200e-6] {
        let packets = tone_packets(700.0, 6_000);
        let r = run(&packets, drift, |_| Some(20.0));
        let s = r.buffer.stats();
        // The sender's clock is the only difference: a handful of ms over two minutes may be made up at most.
        assert!(s.concealed_samples <= 48 * 30, "{drift}: {s:?}");
        let late: Vec<f32> = r.seconds[30..].iter().map(|s| s.1).collect();
        let (low, high) = late.iter().fold((f32::MAX, f32::MIN), |(l, h), d| (l.min(*d), h.max(*d)));
        assert!(high - low <= 14.0 && high <= 45.0, "{drift}: {low}..{high}");
    }
}

#[test]
fn a_pause_of_the_sender_is_not_loss() {
    let packets = tone_packets(440.0, 300);
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    let (mut sequence, mut sent) = (10u16, 0usize);
    for tick in 0..1_200usize {
        let now = Duration::from_millis(tick as u64 * 10);
        if tick % 2 == 0 {
            let i = tick / 2;
            // Speaks for 2 s, silent packet, pauses for 2 s with a keep-alive every 400 ms.
            let data = match i % 200 {
                0..100 => Some(packets[i % 200].clone()),
                k if k % 20 == 0 => Some(Bytes::from_static(&SILENT_PACKET)),
                _ => None,
            };
            if let Some(data) = data {
                buffer.insert(sequence, 960 * i as u32, data, now);
                sequence = sequence.wrapping_add(1);
                sent += 1;
            }
        }
        let block = buffer.pull(now);
        if (320..400).contains(&tick) {
            assert!(rms(&block) < 1e-3, "{tick}");
        }
    }
    let s = buffer.stats();
    assert_eq!(s.packets, sent as u64);
    assert_eq!((s.packets_lost, s.concealed_samples), (0, 0), "{s:?}");
    assert!(s.playout_delay_ms <= 45.0, "{s:?}");
}

#[test]
fn an_outage_ends_in_a_short_delay_again() {
    let packets = tone_packets(440.0, 1_000);
    // From 5 s to 7 s nothing comes, then all of it at once.
    let r = run(&packets, 1.0, |i| {
        let sent = i as f64 * 20.0;
        Some(if (5_000.0..7_000.0).contains(&sent) { 7_020.0 - sent } else { 20.0 })
    });
    let s = r.buffer.stats();
    assert!(r.seconds[18].1 <= 60.0, "{:?} {s:?}", r.seconds);
    assert!(s.accelerated_samples > 48_000, "{s:?}");
}

#[test]
fn duplicates_late_packets_and_restarts_are_handled() {
    let packets = tone_packets(440.0, 400);
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    let mut played = 0.0;
    for tick in 0..800usize {
        let now = Duration::from_millis(tick as u64 * 10);
        if tick % 2 == 0 {
            let i = tick / 2;
            // At 4 s the sender comes back with other numbers (its SSRC changed), hours away.
            let (s, t) = if i < 200 {
                (i as u16, i as u32 * 960)
            } else {
                ((i as u16).wrapping_add(30_000), i as u32 * 960 + 1_500_000_000)
            };
            buffer.insert(s, t, packets[i].clone(), now);
            if i % 10 == 0 {
                buffer.insert(s, t, packets[i].clone(), now);
            }
            if i == 100 {
                buffer.insert(20, 20 * 960, packets[20].clone(), now);
                // A stray with wild numbers changes nothing.
                buffer.insert(40_000, 77, packets[20].clone(), now);
            }
        }
        let block = buffer.pull(now);
        if tick > 500 {
            played += rms(&block);
        }
    }
    let s = buffer.stats();
    assert_eq!(s.packets_duplicate, 40, "{s:?}");
    assert!(played / 299.0 > 0.06, "{played}");
    assert!(s.packets_lost <= 2, "{s:?}");
}

#[test]
fn a_thousand_packets_in_a_millisecond_are_bounded() {
    let packets = tone_packets(440.0, 50);
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    for i in 0..1_000usize {
        buffer.insert(i as u16, i as u32 * 960, packets[i % 50].clone(), Duration::from_millis(5));
    }
    assert!(buffer.packets.len() <= PACKET_LIMIT);
    for tick in 0..1_000u64 {
        buffer.pull(Duration::from_millis(5 + tick * 10));
    }
    assert!(buffer.packets.is_empty());
}

/// One second of sound, then `trouble`, then two seconds of sound whose packets begin with these numbers. Gives the loudness of
/// the last second, the largest step between two samples of it, and the figures.
fn after(trouble: impl FnOnce(&mut JitterBuffer, Duration), sequence: u16, timestamp: u32) -> (f32, f32, JitterStats) {
    let packets = tone_packets(440.0, 150);
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    let mut trouble = Some(trouble);
    let mut last = Vec::new();
    for tick in 0..300usize {
        let now = Duration::from_millis(tick as u64 * 10);
        if tick == 100
            && let Some(trouble) = trouble.take()
        {
            trouble(&mut buffer, now);
        }
        if tick % 2 == 0 {
            let i = tick / 2;
            let (s, t) = if i < 50 {
                (i as u16, i as u32 * 960)
            } else {
                (sequence.wrapping_add(i as u16 - 50), timestamp.wrapping_add((i as u32 - 50) * 960))
            };
            buffer.insert(s, t, packets[i].clone(), now);
        }
        let block = buffer.pull(now);
        if tick >= 200 {
            last.extend(block);
        }
    }
    let step = last.windows(2).map(|w: &[f32]| (w[1] - w[0]).abs()).fold(0.0, f32::max);
    (rms(&last), step, buffer.stats())
}

/// Whatever numbers a sender jumps to, a second later its sound is whole again.
#[test]
fn jumps_of_numbers_and_times_are_survived() {
    let hours = 3_600 * 48_000u32;
    for (what, sequence, timestamp) in [
        ("nothing", 50, 50 * 960),
        ("a sequence jump of 30 000", 30_050, 50 * 960),
        ("a sequence jump of 30 000 back", 50u16.wrapping_sub(30_000), 50 * 960),
        ("a jump of the time by five hours", 50, 50 * 960 + 5 * hours),
        ("a jump of the time by five hours back", 50, (50u32 * 960).wrapping_sub(5 * hours)),
        ("another source", 41_234, 3_111_222_333),
        ("both at their wraps", 65_530, u32::MAX - 2_000),
    ] {
        let (level, step, s) = after(|_, _| {}, sequence, timestamp);
        // A sine of −20 dBFS and 440 Hz has steps of 0.0058.
        assert!((0.06..0.08).contains(&level), "{what}: {level} {s:?}");
        assert!(step < 0.009, "{what}: a click of {step}");
        assert!(s.concealed_samples <= 48 * 300, "{what}: {s:?}");
    }
}

#[test]
fn packets_without_content_and_floods_do_no_harm() {
    let empty = |buffer: &mut JitterBuffer, now: Duration| {
        for i in 0..20 {
            buffer.insert(5_000 + i, 0, Bytes::new(), now);
            buffer.insert(40_000, u32::from(i) * 77, Bytes::from_static(&[0xff]), now);
        }
    };
    let (level, step, s) = after(empty, 50, 50 * 960);
    assert!((0.06..0.08).contains(&level) && step < 0.009, "{level} {step} {s:?}");
    // A thousand packets in one millisecond, from a sender that then goes on as before.
    let tone = tone_packets(440.0, 1)[0].clone();
    let flood = |buffer: &mut JitterBuffer, now: Duration| {
        for i in 0..1_000u16 {
            let at = now + Duration::from_micros(u64::from(i));
            buffer.insert(i.wrapping_mul(61), u32::from(i) * 12_345, tone.clone(), at);
        }
        assert!(buffer.packets.len() <= PACKET_LIMIT && buffer.seen.len() <= SEEN_LIMIT);
    };
    let (level, step, s) = after(flood, 50, 50 * 960);
    assert!((0.06..0.08).contains(&level) && step < 0.009, "{level} {step} {s:?}");
}

/// Jitter of both bounds that are asked for, and 5 % of packets overtaken: not more delay than the jitter needs and 20 ms.
#[test]
fn the_delay_is_what_jitter_needs_and_little_more() {
    let packets = tone_packets(440.0, 1_500);
    for (jitter_ms, reordered) in [(30.0, 0.0), (60.0, 0.0), (100.0, 0.0), (200.0, 0.0), (30.0, 0.05)] {
        let mut rng = Rng(77);
        let mut extra = Vec::new();
        let r = run(&packets, 1.0, |i| {
            let mut late = if i < 1_000 { rng.unit() * jitter_ms } else { 0.0 };
            if i < 1_000 && rng.unit() < reordered {
                late += 25.0;
            }
            if (500..1_000).contains(&i) {
                extra.push(late as f32);
            }
            Some(20.0 + late)
        });
        extra.sort_by(f32::total_cmp);
        // One packet in twenty that is overtaken is no jitter any more but worth waiting for: then nearly all count.
        let p95 = extra[extra.len() * if reordered > 0.0 { 98 } else { 95 } / 100];
        let under: Vec<f32> = r.seconds[12..19].iter().map(|s| s.1).collect();
        let mean = under.iter().sum::<f32>() / under.len() as f32;
        assert!(mean <= p95 + 20.0, "jitter {jitter_ms}: p95 {p95}, delay {under:?}");
        assert!(r.seconds[29].1 <= 40.0, "back to base: {:?}", &r.seconds[19..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn nothing_from_the_network_panics_or_grows(
        steps in proptest::collection::vec((any::<u16>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40), 0u64..60, 0u8..6), 1..200)
    ) {
        let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
        let mut now = Duration::ZERO;
        let (mut s, mut t) = (0u16, 0u32);
        for (sequence, timestamp, data, wait, kind) in steps {
            now += Duration::from_millis(wait);
            match kind {
                0 => buffer.insert(sequence, timestamp, data.into(), now),
                1 => {}
                _ => {
                    s = s.wrapping_add(u16::from(kind) - 1);
                    t = t.wrapping_add(960 * (u32::from(kind) - 1));
                    buffer.insert(s, t, data.into(), now);
                }
            }
            let block = buffer.pull(now);
            prop_assert!(block.iter().all(|x| x.is_finite() && x.abs() < 16.0));
            prop_assert!(buffer.packets.len() <= PACKET_LIMIT && buffer.pcm.len() < 48_000 && buffer.seen.len() <= SEEN_LIMIT);
        }
    }
}

#[test]
fn silence_that_keeps_a_path_alive_need_not_be_played() {
    let mut buffer = JitterBuffer::new(Box::new(OpusPacketDecoder::new().unwrap()));
    let speech = tone_packets(440.0, 50);
    let silent = || Bytes::from_static(&SILENT_PACKET);
    let at = Duration::from_millis;
    // The very first one is played: nothing is known of the stream before.
    buffer.insert(0, 0, silent(), at(0));
    assert!(!buffer.is_idle());
    pull_between(&mut buffer, 0, 400);
    assert!(buffer.is_idle());
    for n in 1..=3u16 {
        buffer.insert(n, u32::from(n) * 19_200, silent(), at(u64::from(n) * 400));
        assert!(buffer.is_idle(), "{n}");
    }
    // One that does not follow on is waited with: what is missing may be speech, and come late.
    buffer.insert(5, 5 * 19_200, silent(), at(2_000));
    assert!(!buffer.is_idle());
    pull_between(&mut buffer, 2_000, 2_400);
    assert!(buffer.is_idle());
    assert_eq!((buffer.stats().packets, buffer.stats().packets_lost), (5, 1));
    // Speech is played whole, and nothing of it is taken for lost.
    for (n, data) in speech.iter().enumerate() {
        let ms = 2_400 + n as u64 * 20;
        buffer.insert(6 + n as u16, 6 * 19_200 + n as u32 * 960, data.clone(), at(ms));
        assert!(!buffer.is_idle());
        let out = pull_between(&mut buffer, ms, ms + 20);
        if n > 10 {
            assert!(rms(&out) > 0.05, "{n}");
        }
    }
    let stats = buffer.stats();
    assert_eq!((stats.packets, stats.packets_lost, stats.packets_late), (55, 1, 0));
}

/// Pulls from one time in ms to another.
fn pull_between(buffer: &mut JitterBuffer, from_ms: u64, to_ms: u64) -> Vec<f32> {
    (from_ms..to_ms).step_by(10).flat_map(|ms| buffer.pull(Duration::from_millis(ms))).collect()
}
