//! The packets of one track as they were forwarded, for retransmission without asking the publisher.

use super::packet::Vp8Descriptor;

/// Video packets kept: 3 s at 1.5 Mbit/s, at most about 0.75 MB.
pub(super) const VIDEO_PACKETS: usize = 640;
/// Audio packets kept: 2.5 s of 20 ms.
pub(super) const AUDIO_PACKETS: usize = 128;

/// One forwarded packet in the publication's numbering; each leg adds its own offsets.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Publication sequence number; 0 in an unused slot.
    pub(super) sequence: u64,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
    pub(super) starts_key_frame: bool,
    /// `abs-send-time` of the first forwarding: a repeat on the same SSRC must be the same bytes, or two
    /// messages would share one SRTP nonce.
    pub(super) abs_send_time: u32,
    pub(super) audio_level: Option<u8>,
    pub(super) orientation: Option<u8>,
    /// What of the payload may be rewritten for a leg.
    pub(super) vp8: Option<Vp8Descriptor>,
    pub(super) payload: Vec<u8>,
}

/// Ring of [`Stored`], addressed by sequence number. Slots keep their buffers: no allocation once it is warm.
#[derive(Debug)]
pub(super) struct Cache {
    slots: Vec<Stored>,
    capacity: usize,
}

impl Cache {
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: Vec::new(), capacity }
    }

    /// The slot for `sequence`, to be filled by the caller; `None` if a newer packet is in it.
    pub(super) fn slot(&mut self, sequence: u64) -> Option<&mut Stored> {
        let at = (sequence % self.capacity as u64) as usize;
        if self.slots.len() <= at {
            self.slots.resize_with(self.capacity, Stored::default);
        }
        let slot = self.slots.get_mut(at)?;
        if slot.sequence > sequence {
            return None;
        }
        slot.sequence = sequence;
        slot.payload.clear();
        Some(slot)
    }

    /// The packet numbered `sequence`, if it is still there.
    pub(super) fn get(&self, sequence: u64) -> Option<&Stored> {
        let at = (sequence % self.capacity as u64) as usize;
        self.slots.get(at).filter(|slot| slot.sequence == sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_the_last_ones_and_never_goes_back() {
        let mut cache = Cache::new(4);
        for sequence in 10..16 {
            cache.slot(sequence).unwrap().payload.push(sequence as u8);
        }
        assert!(cache.get(11).is_none());
        assert_eq!(cache.get(12).unwrap().payload, [12]);
        assert_eq!(cache.get(15).unwrap().payload, [15]);
        assert!(cache.slot(11).is_none());
        assert!(cache.get(16).is_none());
    }
}
