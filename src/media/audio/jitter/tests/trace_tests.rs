//! Arrival traces of networks that stall and change: how late each sample is heard, and whether any is passed over.

use super::*;

/// One sample as a value: seconds of sound stay exact to a fraction of a sample.
const SCALE: f32 = 524_288.0;

/// Sound that says where it is: a sample's value is its timestamp. What is made up stands still.
#[derive(Default)]
struct Ramp {
    last: f32,
}

impl PacketDecoder for Ramp {
    fn decode(&mut self, packet: &[u8], _: bool, _: usize, out: &mut Vec<Frame>) -> Result<usize, String> {
        let timestamp = u32::from_be_bytes(packet.try_into().map_err(|_| "length")?);
        out.extend((0..960).map(|i| [(timestamp + i) as f32 / SCALE, 0.0]));
        self.last = (timestamp + 959) as f32 / SCALE;
        Ok(960)
    }

    fn conceal(&mut self, samples: usize, out: &mut Vec<Frame>) {
        out.extend(std::iter::repeat_n([self.last, 0.0], samples));
    }

    fn reset(&mut self) {}

    fn duration(&self, _: &[u8]) -> Option<usize> {
        Some(960)
    }

    fn has_fec(&self, _: &[u8]) -> bool {
        false
    }
}

struct Trace {
    /// Which sample was played, at each moment.
    positions: Vec<f32>,
    stats: JitterStats,
}

/// Plays for so many seconds; a packet sent at this many ms takes so many ms.
fn play(seconds: usize, mut network: impl FnMut(f64) -> f64) -> Trace {
    let mut buffer = JitterBuffer::new(Box::new(Ramp::default()));
    let sent = (0..seconds * 50).map(|i| i as f64 * 20.0);
    let mut arrivals: Vec<(f64, usize)> = sent.enumerate().map(|(i, sent)| (sent + network(sent), i)).collect();
    arrivals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut waiting = arrivals.into_iter().peekable();
    let mut positions = Vec::new();
    for tick in 0..seconds * 100 {
        let now_ms = 3.0 + tick as f64 * 10.0;
        while let Some((at, i)) = waiting.next_if(|(at, _)| *at <= now_ms) {
            let (timestamp, at) = (i as u32 * 960, Duration::from_secs_f64(at / 1_000.0));
            let data = Bytes::copy_from_slice(&timestamp.to_be_bytes());
            buffer.insert((i as u16).wrapping_add(65_400), timestamp, data, at);
        }
        positions.extend(buffer.pull(Duration::from_secs_f64(now_ms / 1_000.0)).iter().map(|s| s * SCALE));
    }
    Trace { positions, stats: buffer.stats() }
}

impl Trace {
    /// From mouth to ear at the end of a second, in ms.
    fn late_ms(&self, second: usize) -> f32 {
        let at = second * 48_000 - 1;
        (at as f32 - self.positions[at]) / 48.0 + 3.0
    }

    /// The most that was played of the sound in any 10 ms, in ms: 20 where a period is taken out, more where some is passed over.
    fn fastest_ms(&self, from_s: usize) -> f32 {
        let steps = self.positions[from_s * 48_000..].windows(480).map(|w| w[479] - w[0]);
        steps.fold(0.0, f32::max) / 48.0
    }
}

/// What comes between `from_ms` and `until_ms` comes at its end, all at once.
fn stalled(sent: f64, from_ms: f64, until_ms: f64) -> f64 {
    if (from_ms..until_ms).contains(&sent) { until_ms + 20.0 - sent } else { 20.0 }
}

#[test]
fn after_a_stall_the_delay_comes_back_and_nothing_is_passed_over() {
    for stall_ms in [100.0, 300.0, 500.0, 900.0] {
        let trace = play(25, |sent| stalled(sent, 5_000.0, 5_000.0 + stall_ms));
        let late: Vec<f32> = (1..=25).map(|s| trace.late_ms(s)).collect();
        println!("{stall_ms}: {late:?} {}", trace.fastest_ms(4));
        assert!(late[4] <= 60.0, "{stall_ms}: before it {late:?}");
        assert!(trace.late_ms(15) <= late[4] + 15.0, "{stall_ms}: ten seconds later {late:?}");
        assert!(trace.fastest_ms(4) < 25.0, "{stall_ms}: sound was passed over: {}", trace.fastest_ms(4));
        assert!(trace.stats.concealed_samples <= 48 * 130, "{stall_ms}: {:?}", trace.stats);
    }
}

#[test]
fn stalls_that_come_again_are_worked_off_each_time() {
    let trace = play(65, |sent| {
        let begin = (sent / 15_000.0).floor() * 15_000.0;
        if sent < 15_000.0 { 20.0 } else { stalled(sent, begin, begin + 500.0) }
    });
    let before: Vec<f32> = [14, 29, 44, 59].map(|s| trace.late_ms(s)).to_vec();
    println!("{before:?} {}", trace.fastest_ms(10));
    assert!(before.iter().all(|ms| *ms <= before[0] + 15.0), "{before:?}");
    assert!(trace.fastest_ms(10) < 25.0, "{}", trace.fastest_ms(10));
}

#[test]
fn a_path_that_gets_longer_and_shorter_is_followed() {
    for far_ms in [120.0, 320.0] {
        let trace = play(30, |sent| if (8_000.0..18_000.0).contains(&sent) { far_ms } else { 20.0 });
        let late: Vec<f32> = (1..=30).map(|s| trace.late_ms(s)).collect();
        println!("{far_ms}: {late:?} {}", trace.fastest_ms(5));
        // The delay grows as the path does and not once more.
        assert!(late[13] - far_ms as f32 <= late[6] - 20.0 + 30.0, "{far_ms}: just longer {late:?}");
        // As far from the path's delay as before.
        assert!(late[16] - far_ms as f32 <= late[6] - 20.0 + 15.0, "{far_ms}: longer {late:?}");
        assert!(late[26] <= late[6] + 15.0, "{far_ms}: shorter {late:?}");
        assert!(trace.fastest_ms(5) < 25.0, "{far_ms}: {}", trace.fastest_ms(5));
    }
}

#[test]
fn packets_in_bursts_are_waited_for_and_no_longer() {
    // Five packets come together every 100 ms, from the tenth second to the twentieth.
    let trace = play(35, |sent| {
        let bursts = (10_000.0..20_000.0).contains(&sent);
        20.0 + if bursts { (sent / 100.0).floor() * 100.0 + 80.0 - sent } else { 0.0 }
    });
    let late: Vec<f32> = (1..=35).map(|s| trace.late_ms(s)).collect();
    println!("{late:?} {:?}", trace.stats);
    assert!(late[13..19].iter().all(|ms| *ms <= 20.0 + 80.0 + 40.0), "{late:?}");
    assert!(late[29] <= late[8] + 15.0, "{late:?}");
    assert!(trace.stats.concealed_samples <= 48 * 200 && trace.stats.packets_late <= 4, "{:?}", trace.stats);
    assert!(trace.fastest_ms(5) < 25.0, "{}", trace.fastest_ms(5));
}
