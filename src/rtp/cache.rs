//! Packets kept for those who ask for them again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::packet::RtpPacket;

/// The last packets of one source, bounded by number and age. Payloads are shared, not copied.
#[derive(Debug, Clone)]
pub struct PacketCache {
    max_packets: usize,
    max_age: Duration,
    /// Oldest first.
    order: VecDeque<(u16, Instant)>,
    /// Indexed by the low bits of the sequence number.
    slots: Vec<Option<RtpPacket>>,
}

impl PacketCache {
    /// A cache of at most `max_packets` (1–32 768, rounded up to a power of two for the index) that are at most
    /// `max_age` old.
    pub fn new(max_packets: usize, max_age: Duration) -> Self {
        let max_packets = max_packets.clamp(1, 32_768);
        Self { max_packets, max_age, order: VecDeque::new(), slots: vec![None; max_packets.next_power_of_two()] }
    }

    /// Keeps a packet; the oldest ones go when there are too many or they are too old.
    pub fn insert(&mut self, packet: RtpPacket, now: Instant) {
        self.expire(now);
        let sequence = packet.sequence;
        if self.contains(sequence) {
            return;
        }
        if self.order.len() >= self.max_packets {
            self.drop_oldest();
        }
        let index = self.index(sequence);
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(packet);
            self.order.push_back((sequence, now));
        }
    }

    /// The packet with that sequence number, if it is still kept.
    pub fn get(&mut self, sequence: u16, now: Instant) -> Option<&RtpPacket> {
        self.expire(now);
        self.slots.get(self.index(sequence))?.as_ref().filter(|packet| packet.sequence == sequence)
    }

    /// Packets kept.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn contains(&self, sequence: u16) -> bool {
        self.slots
            .get(self.index(sequence))
            .is_some_and(|slot| slot.as_ref().is_some_and(|packet| packet.sequence == sequence))
    }

    fn index(&self, sequence: u16) -> usize {
        usize::from(sequence) & (self.slots.len() - 1)
    }

    fn expire(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) > self.max_age) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((sequence, _)) = self.order.pop_front() {
            let index = self.index(sequence);
            // The slot may hold a newer packet by now.
            if let Some(slot) = self.slots.get_mut(index)
                && slot.as_ref().is_some_and(|packet| packet.sequence == sequence)
            {
                *slot = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn packet(sequence: u16) -> RtpPacket {
        RtpPacket {
            payload_type: 96,
            marker: false,
            sequence,
            timestamp: 0,
            ssrc: 1,
            payload: Bytes::from_static(b"x"),
        }
    }

    #[test]
    fn bounded_by_number_and_age_across_the_wrap() {
        let start = Instant::now();
        let mut cache = PacketCache::new(100, Duration::from_secs(1));
        for step in 0..300u16 {
            cache.insert(packet(65_400u16.wrapping_add(step)), start);
        }
        assert_eq!(cache.len(), 100);
        let last = 65_400u16.wrapping_add(299);
        assert_eq!(cache.get(last, start).map(|p| p.sequence), Some(last));
        assert!(cache.get(last.wrapping_sub(99), start).is_some());
        assert!(cache.get(last.wrapping_sub(100), start).is_none());
        // Another packet with the same index is not taken for it.
        assert!(cache.get(last.wrapping_add(128), start).is_none());
        cache.insert(packet(last), start);
        assert_eq!(cache.len(), 100, "a repeat is not kept twice");
        assert!(cache.get(last, start + Duration::from_millis(1_001)).is_none());
        assert!(cache.is_empty());
    }
}
