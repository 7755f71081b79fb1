//! RTCP as far as a forwarder needs it (RFC 3550 §6, RFC 4585, RFC 5104, REMB): read without copying, written into one buffer.

/// One piece of a compound packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Item<'a> {
    SenderReport {
        ssrc: u32,
        ntp: u64,
        rtp: u32,
    },
    Report(ReportBlock),
    Nack {
        media_ssrc: u32,
        /// Pairs of packet id and bit mask, four bytes each.
        pairs: &'a [u8],
    },
    KeyFrameRequest {
        media_ssrc: u32,
    },
    Remb {
        bitrate_bps: u64,
    },
    /// Transport-wide feedback: everything behind the two source words.
    TransportFeedback {
        body: &'a [u8],
    },
    Bye,
}

/// One reception report block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReportBlock {
    pub(super) ssrc: u32,
    /// In 1/256.
    pub(super) fraction_lost: u8,
    pub(super) cumulative_lost: u32,
    pub(super) highest: u32,
    pub(super) jitter: u32,
    pub(super) last_sr: u32,
    pub(super) delay_since_last_sr: u32,
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
}

fn blocks<'a>(body: &'a [u8], count: usize, visit: &mut impl FnMut(Item<'a>)) {
    for block in body.chunks_exact(24).take(count) {
        let read = || {
            let lost = word(block, 4)?;
            Some(ReportBlock {
                ssrc: word(block, 0)?,
                fraction_lost: (lost >> 24) as u8,
                cumulative_lost: lost & 0x00ff_ffff,
                highest: word(block, 8)?,
                jitter: word(block, 12)?,
                last_sr: word(block, 16)?,
                delay_since_last_sr: word(block, 20)?,
            })
        };
        if let Some(report) = read() {
            visit(Item::Report(report));
        }
    }
}

/// Visits every known item of a compound packet; stops at the first malformed part.
pub(super) fn parse<'a>(mut data: &'a [u8], mut visit: impl FnMut(Item<'a>)) {
    while let Some((&[b0, kind, l0, l1], rest)) = data.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([l0, l1])) * 4;
        let Some(body) = rest.get(..length) else {
            return;
        };
        if b0 >> 6 != 2 {
            return;
        }
        let count = b0 & 0x1f;
        match (kind, count) {
            (200, _) => {
                if let (Some(ssrc), Some(high), Some(low), Some(rtp)) =
                    (word(body, 0), word(body, 4), word(body, 8), word(body, 12))
                {
                    let ntp = u64::from(high) << 32 | u64::from(low);
                    visit(Item::SenderReport { ssrc, ntp, rtp });
                }
                blocks(body.get(24..).unwrap_or_default(), usize::from(count), &mut visit);
            }
            (201, _) => blocks(body.get(4..).unwrap_or_default(), usize::from(count), &mut visit),
            (203, _) => visit(Item::Bye),
            (205, 1) => {
                if let (Some(media_ssrc), Some(pairs)) = (word(body, 4), body.get(8..)) {
                    visit(Item::Nack { media_ssrc, pairs });
                }
            }
            (205, 15) => {
                if let Some(body) = body.get(8..) {
                    visit(Item::TransportFeedback { body });
                }
            }
            (206, 1) => {
                if let Some(media_ssrc) = word(body, 4) {
                    visit(Item::KeyFrameRequest { media_ssrc });
                }
            }
            (206, 4) => {
                // The target stands in the entry; the header's media source is 0 (RFC 5104 §4.3.1).
                for entry in body.get(8..).unwrap_or_default().chunks_exact(8).take(8) {
                    if let Some(media_ssrc) = word(entry, 0) {
                        visit(Item::KeyFrameRequest { media_ssrc });
                    }
                }
            }
            (206, 15) if body.get(8..12) == Some(b"REMB") => {
                if let Some(value) = word(body, 12) {
                    let exponent = (value >> 18) & 0x3f;
                    let mantissa = u64::from(value & 0x3_ffff);
                    let bitrate_bps = mantissa.checked_shl(exponent).unwrap_or(u64::MAX);
                    visit(Item::Remb { bitrate_bps });
                }
            }
            _ => {}
        }
        data = rest.get(length..).unwrap_or_default();
    }
}

/// Expands NACK pairs to sequence numbers, at most `limit` of them.
pub(super) fn nack_numbers(pairs: &[u8], limit: usize) -> impl Iterator<Item = u16> + '_ {
    pairs
        .chunks_exact(4)
        .flat_map(|pair| {
            let value = word(pair, 0).unwrap_or(0);
            let first = (value >> 16) as u16;
            (0..17u16)
                .filter(move |step| *step == 0 || value & (1 << (step - 1)) != 0)
                .map(move |step| first.wrapping_add(step))
        })
        .take(limit)
}

/// Builds one compound packet.
#[derive(Debug, Default)]
pub(super) struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    pub(super) fn clear(&mut self) {
        self.buffer.clear();
    }

    fn part(&mut self, count: u8, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.buffer.len();
        self.buffer.extend([0x80 | (count & 0x1f), kind, 0, 0]);
        fill(&mut self.buffer);
        while !self.buffer.len().is_multiple_of(4) {
            self.buffer.push(0);
        }
        let words = ((self.buffer.len() - start) / 4).saturating_sub(1) as u16;
        if let Some(length) = self.buffer.get_mut(start + 2..start + 4) {
            length.copy_from_slice(&words.to_be_bytes());
        }
    }

    /// A receiver report with up to 31 blocks.
    pub(super) fn receiver_report(&mut self, from: u32, reports: &[ReportBlock]) {
        let reports = reports.get(..31).unwrap_or(reports);
        self.part(reports.len() as u8, 201, |out| {
            out.extend(from.to_be_bytes());
            for report in reports {
                out.extend(report.ssrc.to_be_bytes());
                let lost = u32::from(report.fraction_lost) << 24 | report.cumulative_lost.min(0x7f_ffff);
                out.extend(lost.to_be_bytes());
                out.extend(report.highest.to_be_bytes());
                out.extend(report.jitter.to_be_bytes());
                out.extend(report.last_sr.to_be_bytes());
                out.extend(report.delay_since_last_sr.to_be_bytes());
            }
        });
    }

    /// A sender report without blocks.
    pub(super) fn sender_report(&mut self, ssrc: u32, ntp: u64, rtp: u32, packets: u32, octets: u32) {
        self.part(0, 200, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend(ntp.to_be_bytes());
            for value in [rtp, packets, octets] {
                out.extend(value.to_be_bytes());
            }
        });
    }

    /// The canonical name of a source.
    pub(super) fn canonical_name(&mut self, ssrc: u32, name: &str) {
        let name = name.as_bytes();
        let name = name.get(..255).unwrap_or(name);
        self.part(1, 202, |out| {
            out.extend(ssrc.to_be_bytes());
            out.extend([1, name.len() as u8]);
            out.extend_from_slice(name);
            // The list of items ends with at least one zero byte.
            out.push(0);
        });
    }

    /// Picture loss indication.
    pub(super) fn picture_loss(&mut self, from: u32, media: u32) {
        self.part(1, 206, |out| {
            out.extend(from.to_be_bytes());
            out.extend(media.to_be_bytes());
        });
    }

    /// Full intra request.
    pub(super) fn full_intra(&mut self, from: u32, media: u32, number: u8) {
        self.part(4, 206, |out| {
            out.extend(from.to_be_bytes());
            out.extend(0u32.to_be_bytes());
            out.extend(media.to_be_bytes());
            out.extend([number, 0, 0, 0]);
        });
    }

    /// Generic NACK for ascending sequence numbers.
    pub(super) fn nack(&mut self, from: u32, media: u32, numbers: &[u16]) {
        self.part(1, 205, |out| {
            out.extend(from.to_be_bytes());
            out.extend(media.to_be_bytes());
            let mut numbers = numbers.iter().copied().peekable();
            while let Some(first) = numbers.next() {
                let mut mask = 0u16;
                while let Some(next) = numbers.peek() {
                    let step = next.wrapping_sub(first);
                    if step == 0 || step > 16 {
                        break;
                    }
                    mask |= 1 << (step - 1);
                    numbers.next();
                }
                out.extend(first.to_be_bytes());
                out.extend(mask.to_be_bytes());
            }
        });
    }

    /// Receiver estimated maximum bitrate for the given sources.
    pub(super) fn remb(&mut self, from: u32, bitrate_bps: u64, media: &[u32]) {
        self.part(15, 206, |out| {
            out.extend(from.to_be_bytes());
            out.extend(0u32.to_be_bytes());
            out.extend_from_slice(b"REMB");
            let mut exponent = 0u32;
            let mut mantissa = bitrate_bps;
            while mantissa > 0x3_ffff {
                mantissa >>= 1;
                exponent += 1;
            }
            let value = (media.len().min(255) as u32) << 24 | exponent << 18 | mantissa as u32;
            out.extend(value.to_be_bytes());
            for ssrc in media.iter().take(255) {
                out.extend(ssrc.to_be_bytes());
            }
        });
    }

    /// Transport-wide feedback; `body` is everything after the two source words, and is padded here.
    pub(super) fn transport_feedback(&mut self, from: u32, media: u32, body: &[u8]) {
        self.part(15, 205, |out| {
            out.extend(from.to_be_bytes());
            out.extend(media.to_be_bytes());
            out.extend_from_slice(body);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(data: &[u8]) -> Vec<Item<'_>> {
        let mut found = Vec::new();
        parse(data, |item| found.push(item));
        found
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = ReportBlock {
            ssrc: 5,
            fraction_lost: 12,
            cumulative_lost: 34,
            highest: 0x1_0007,
            jitter: 8,
            last_sr: 9,
            delay_since_last_sr: 10,
        };
        let mut writer = Writer::default();
        writer.receiver_report(1, &[report]);
        writer.canonical_name(1, "name");
        writer.sender_report(2, 3 << 32 | 4, 5, 6, 7);
        writer.nack(1, 5, &[65_535, 0, 14, 15, 900]);
        writer.picture_loss(1, 5);
        writer.full_intra(1, 6, 3);
        writer.remb(1, 1_000_000, &[5, 6]);
        assert_eq!(writer.bytes().len() % 4, 0);
        let found = items(writer.bytes());
        assert_eq!(found.first(), Some(&Item::Report(report)));
        assert!(found.contains(&Item::SenderReport { ssrc: 2, ntp: 3 << 32 | 4, rtp: 5 }));
        assert!(found.contains(&Item::KeyFrameRequest { media_ssrc: 5 }));
        assert!(found.contains(&Item::KeyFrameRequest { media_ssrc: 6 }));
        let remb = found.iter().find_map(|item| match item {
            Item::Remb { bitrate_bps } => Some(*bitrate_bps),
            _ => None,
        });
        assert!((990_000..=1_000_000).contains(&remb.unwrap()));
        let numbers = found.iter().find_map(|item| match item {
            Item::Nack { pairs, .. } => Some(nack_numbers(pairs, 100).collect::<Vec<_>>()),
            _ => None,
        });
        assert_eq!(numbers.unwrap(), [65_535, 0, 14, 15, 900]);
    }

    #[test]
    fn the_rtc_crates_read_it_too() {
        let mut writer = Writer::default();
        writer.receiver_report(1, &[]);
        writer.canonical_name(1, "a");
        writer.nack(1, 5, &[3, 4]);
        writer.remb(1, 250_000, &[5]);
        let mut bytes = bytes::BytesMut::from(writer.bytes());
        let packets = rtc::rtcp::packet::unmarshal(&mut bytes).unwrap();
        assert_eq!(packets.len(), 4);
    }

    #[test]
    fn garbage_and_cuts_are_survived() {
        let mut writer = Writer::default();
        writer.sender_report(2, 3, 5, 6, 7);
        writer.nack(1, 5, &[1, 2, 300]);
        writer.full_intra(1, 6, 3);
        writer.remb(1, 1_000_000, &[5, 6]);
        let good = writer.bytes().to_vec();
        for at in 0..good.len() {
            let _ = items(&good[..at]);
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = items(&bad);
            }
        }
        assert_eq!(nack_numbers(&[0xff; 400], 50).count(), 50);
    }
}
