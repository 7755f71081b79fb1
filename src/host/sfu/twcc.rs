//! Transport-wide congestion feedback for publishers (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use crate::rtp::seq::Unwrapper;

/// Arrivals kept until the next feedback; more than that in one interval is not reported.
const PENDING: usize = 2_048;
/// A longer run of losses than this is a restart, not a report.
const LONGEST_GAP: u64 = 4_096;

/// Collects arrival times and writes them up.
#[derive(Debug, Default)]
pub(super) struct TwccRecorder {
    unwrapper: Unwrapper,
    arrivals: Vec<(u64, u64)>,
    next: Option<u64>,
    count: u8,
}

impl TwccRecorder {
    /// Notes that packet `number` arrived `at_us` microseconds after some fixed origin.
    pub(super) fn record(&mut self, number: u16, at_us: u64) {
        let number = self.unwrapper.unwrap(number);
        if self.arrivals.len() < PENDING {
            self.arrivals.push((number, at_us));
        }
    }

    /// Writes one feedback body (behind the source words) into `out`; false when there is nothing to say.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        self.arrivals.sort_unstable();
        self.arrivals.dedup_by_key(|(number, _)| *number);
        let Some(&(first, first_at)) = self.arrivals.first() else {
            return false;
        };
        let base = match self.next {
            Some(next) if next < first && first - next < LONGEST_GAP => next,
            _ => first,
        };
        let reference = first_at / 64_000;
        let mut clock = reference * 64_000 / 250;
        let mut symbols: Vec<u8> = Vec::with_capacity(self.arrivals.len() + 16);
        let mut deltas: Vec<u8> = Vec::with_capacity(self.arrivals.len() * 2);
        let mut expected = base;
        let mut used = 0;
        for &(number, at_us) in &self.arrivals {
            let tick = at_us / 250;
            let delta = tick as i64 - clock as i64;
            let Ok(delta) = i16::try_from(delta) else {
                break;
            };
            if number - base >= LONGEST_GAP {
                // The rest is told next time: a message counts its packets in 16 bits.
                break;
            }
            while expected < number {
                symbols.push(0);
                expected += 1;
            }
            match u8::try_from(delta) {
                Ok(small) => {
                    symbols.push(1);
                    deltas.push(small);
                }
                Err(_) => {
                    symbols.push(2);
                    deltas.extend(delta.to_be_bytes());
                }
            }
            expected += 1;
            clock = tick;
            used += 1;
        }
        if used == 0 {
            self.arrivals.clear();
            self.next = None;
            return false;
        }
        self.arrivals.drain(..used);
        self.next = Some(expected);
        out.extend((base as u16).to_be_bytes());
        out.extend((symbols.len() as u16).to_be_bytes());
        out.extend((reference as u32).to_be_bytes().get(1..).unwrap_or_default());
        out.push(self.count);
        self.count = self.count.wrapping_add(1);
        chunks(&symbols, out);
        out.extend(deltas);
        true
    }
}

/// Packets of one feedback that are read; more is made up.
const READ: usize = 2_048;

/// Reads a feedback body (behind the source words): numbers and times of arrival in microseconds since any origin.
pub(super) fn read(body: &[u8], out: &mut Vec<(u16, Option<u64>)>) {
    out.clear();
    let Some((&[b0, b1, c0, c1, r0, r1, r2, _], rest)) = body.split_first_chunk::<8>() else { return };
    let base = u16::from_be_bytes([b0, b1]);
    let count = usize::from(u16::from_be_bytes([c0, c1]));
    let mut clock_us = u64::from(u32::from_be_bytes([0, r0, r1, r2])) * 64_000;
    let mut symbols: Vec<u8> = Vec::with_capacity(count.min(READ));
    let mut rest = rest;
    let mut left = count;
    // The times stand behind all of the chunks, also behind those that are not read.
    while left > 0 {
        let Some((&[high, low], tail)) = rest.split_first_chunk::<2>() else { return };
        rest = tail;
        let chunk = u16::from_be_bytes([high, low]);
        let room = READ - symbols.len();
        let told = match chunk >> 14 {
            0 | 1 => {
                let run = usize::from(chunk & 0x1fff).min(left);
                symbols.resize(symbols.len() + run.min(room), (chunk >> 13) as u8 & 3);
                if run == 0 {
                    return;
                }
                run
            }
            2 => {
                symbols.extend((0..14).map(|at| (chunk >> (13 - at)) as u8 & 1).take(left.min(room)));
                14
            }
            _ => {
                symbols.extend((0..7).map(|at| (chunk >> (12 - 2 * at)) as u8 & 3).take(left.min(room)));
                7
            }
        };
        left = left.saturating_sub(told);
    }
    for (step, symbol) in (0u16..).zip(symbols) {
        let number = base.wrapping_add(step);
        let arrived = match symbol {
            1 => {
                let Some((&delta, tail)) = rest.split_first() else { return };
                rest = tail;
                clock_us += u64::from(delta) * 250;
                Some(clock_us)
            }
            2 => {
                let Some((&[high, low], tail)) = rest.split_first_chunk::<2>() else { return };
                rest = tail;
                let delta = i64::from(i16::from_be_bytes([high, low])) * 250;
                clock_us = clock_us.saturating_add_signed(delta);
                Some(clock_us)
            }
            _ => None,
        };
        out.push((number, arrived));
    }
}

/// Run-length chunks for long runs, two-bit vectors for the rest.
fn chunks(mut symbols: &[u8], out: &mut Vec<u8>) {
    while let Some(&first) = symbols.first() {
        let run = symbols.iter().take(0x1fff).take_while(|symbol| **symbol == first).count();
        if run >= 7 || run == symbols.len() {
            let chunk = u16::from(first) << 13 | run as u16;
            out.extend(chunk.to_be_bytes());
            symbols = symbols.get(run..).unwrap_or_default();
        } else {
            let mut chunk = 0xc000u16;
            for (at, symbol) in symbols.iter().take(7).enumerate() {
                chunk |= u16::from(*symbol) << (12 - 2 * at);
            }
            out.extend(chunk.to_be_bytes());
            symbols = symbols.get(7..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rtcp::Writer;
    use super::*;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;

    fn feedback(recorder: &mut TwccRecorder) -> Option<Vec<bool>> {
        let mut body = Vec::new();
        recorder.take(&mut body).then(|| {
            let mut writer = Writer::default();
            writer.transport_feedback(1, 2, &body);
            let mut bytes = bytes::BytesMut::from(writer.bytes());
            let packets = rtc::rtcp::packet::unmarshal(&mut bytes).unwrap();
            let cc = packets[0].as_any().downcast_ref::<TransportLayerCc>().expect("transport feedback");
            rtc::interceptor::convert_twcc(cc).iter().map(|packet| packet.arrived).collect()
        })
    }

    #[test]
    fn another_implementation_reads_arrivals_and_losses() {
        let mut recorder = TwccRecorder::default();
        assert!(feedback(&mut recorder).is_none());
        for (number, at) in [(65_534u16, 1_000_000u64), (65_535, 1_001_000), (2, 1_003_250), (1, 1_200_000)] {
            recorder.record(number, at);
        }
        let seen = feedback(&mut recorder).unwrap();
        // The crate shows the unused symbols of the last vector chunk too.
        assert_eq!(seen[..5], [true, true, false, true, true]);
        assert!(seen[5..].iter().all(|arrived| !arrived));
        recorder.record(30, 1_300_000);
        let seen = feedback(&mut recorder).unwrap();
        assert_eq!(seen.len(), 28);
        assert_eq!(seen.iter().filter(|arrived| **arrived).count(), 1);
        assert!(seen[27]);
    }

    #[test]
    fn what_is_written_is_read_and_garbage_is_survived() {
        let mut recorder = TwccRecorder::default();
        let times = [(65_534u16, 1_000_000u64), (65_535, 1_001_000), (2, 1_003_250), (1, 1_200_000), (40, 1_900_000)];
        for (number, at) in times {
            recorder.record(number, at);
        }
        let (mut body, mut read_back) = (Vec::new(), Vec::new());
        assert!(recorder.take(&mut body));
        read(&body, &mut read_back);
        assert_eq!(read_back.len(), 43);
        let arrived: Vec<(u16, u64)> = read_back.iter().filter_map(|(n, at)| Some((*n, (*at)?))).collect();
        assert_eq!(
            arrived,
            [(65_534, 1_000_000), (65_535, 1_001_000), (1, 1_200_000), (2, 1_003_250), (40, 1_900_000)]
        );
        for cut in 0..body.len() {
            read(&body[..cut], &mut read_back);
            for value in [0, 0x3f, 0x80, 0xff] {
                let mut bad = body.clone();
                bad[cut] = value;
                read(&bad, &mut read_back);
                assert!(read_back.len() <= READ);
            }
        }
    }

    #[test]
    fn of_more_than_is_read_the_times_are_right() {
        let mut recorder = TwccRecorder::default();
        for step in 0..60u16 {
            recorder.record(step * 50, 1_000_000 + u64::from(step) * 1_000);
        }
        let (mut body, mut read_back) = (Vec::new(), Vec::new());
        assert!(recorder.take(&mut body));
        read(&body, &mut read_back);
        assert_eq!(read_back.len(), READ);
        let arrived: Vec<(u16, u64)> = read_back.iter().filter_map(|(n, at)| Some((*n, (*at)?))).collect();
        assert_eq!(arrived, (0..41u16).map(|n| (n * 50, 1_000_000 + u64::from(n) * 1_000)).collect::<Vec<_>>());
    }

    #[test]
    fn gaps_add_up_to_no_more_than_one_message_tells() {
        let mut recorder = TwccRecorder::default();
        let numbers: Vec<u16> = (0..30).map(|step: u16| step.wrapping_mul(4_000)).collect();
        for number in &numbers {
            recorder.record(*number, 1_000_000);
        }
        let (mut body, mut arrived) = (Vec::new(), Vec::new());
        while recorder.take(&mut body) {
            let count = u16::from_be_bytes([body[2], body[3]]);
            assert!(u64::from(count) <= LONGEST_GAP, "{count}");
            let mut writer = Writer::default();
            writer.transport_feedback(1, 2, &body);
            let packets = rtc::rtcp::packet::unmarshal(&mut bytes::BytesMut::from(writer.bytes())).unwrap();
            let cc = packets[0].as_any().downcast_ref::<TransportLayerCc>().expect("transport feedback");
            let told = rtc::interceptor::convert_twcc(cc);
            arrived.extend(told.iter().filter(|packet| packet.arrived).map(|packet| packet.sequence_number));
        }
        assert_eq!(arrived, numbers);
    }

    #[test]
    fn long_silence_and_floods_do_not_hurt() {
        let mut recorder = TwccRecorder::default();
        for number in 0..60_000u32 {
            recorder.record(number as u16, u64::from(number) * 100);
        }
        assert!(feedback(&mut recorder).is_some());
        recorder.record(3, 1 << 50);
        let mut body = Vec::new();
        for _ in 0..20 {
            recorder.take(&mut body);
        }
        assert!(!recorder.take(&mut body));
    }
}
