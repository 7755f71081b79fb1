//! Which leg a datagram belongs to: by address once bound, before that by the user name of its check.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Addresses one leg may hold; the oldest gives way.
const ADDRESSES_PER_LEG: usize = 8;

/// Index of a leg in the worker's table.
pub(super) type LegKey = usize;

/// Both look-up tables of the one socket.
#[derive(Debug, Default)]
pub(super) struct Demux {
    by_addr: HashMap<SocketAddr, LegKey>,
    by_ufrag: HashMap<Box<[u8]>, LegKey>,
    /// Addresses per leg, oldest first.
    bound: HashMap<LegKey, Vec<SocketAddr>>,
}

impl Demux {
    pub(super) fn add(&mut self, ufrag: &str, leg: LegKey) {
        self.by_ufrag.insert(ufrag.as_bytes().into(), leg);
    }

    pub(super) fn remove(&mut self, ufrag: &str, leg: LegKey) {
        self.by_ufrag.remove(ufrag.as_bytes());
        for address in self.bound.remove(&leg).unwrap_or_default() {
            if self.by_addr.get(&address) == Some(&leg) {
                self.by_addr.remove(&address);
            }
        }
    }

    /// The leg an address is bound to.
    pub(super) fn bound_to(&self, from: SocketAddr) -> Option<LegKey> {
        self.by_addr.get(&from).copied()
    }

    /// The leg whose ICE user name a binding request carries.
    pub(super) fn by_username(&self, datagram: &[u8]) -> Option<LegKey> {
        self.by_ufrag.get(request_ufrag(datagram)?).copied()
    }

    /// Binds an address after its check was answered; another leg's older claim ends.
    pub(super) fn bind(&mut self, from: SocketAddr, leg: LegKey) {
        if let Some(previous) = self.by_addr.insert(from, leg) {
            if previous == leg {
                return;
            }
            if let Some(list) = self.bound.get_mut(&previous) {
                list.retain(|address| *address != from);
            }
        }
        let list = self.bound.entry(leg).or_default();
        list.push(from);
        if list.len() > ADDRESSES_PER_LEG {
            let oldest = list.remove(0);
            if self.by_addr.get(&oldest) == Some(&leg) {
                self.by_addr.remove(&oldest);
            }
        }
    }

    /// Bound addresses in all, for statistics and tests.
    #[cfg(test)]
    pub(super) fn bound_addresses(&self) -> usize {
        self.by_addr.len()
    }
}

/// STUN message types that matter here (RFC 8489 §5).
pub(super) const BINDING_REQUEST: u16 = 0x0001;
/// A success response to a binding request.
pub(super) const BINDING_SUCCESS: u16 = 0x0101;

/// Type and transaction id of a STUN message; `None` for anything that is not one.
pub(super) fn stun_head(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (&[t0, t1, l0, l1, m0, m1, m2, m3], rest) = datagram.split_first_chunk::<8>()?;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let transaction = rest.get(..12)?;
    (t0 < 4 && [m0, m1, m2, m3] == [0x21, 0x12, 0xa4, 0x42] && length + 20 == datagram.len())
        .then_some((u16::from_be_bytes([t0, t1]), transaction))
}

/// Visits the attributes of a STUN message until `take` finds what it wants.
fn attribute<'a, T>(datagram: &'a [u8], mut take: impl FnMut(u16, &'a [u8]) -> Option<T>) -> Option<T> {
    let mut rest = datagram.get(20..)?;
    // A check has about eight attributes; more than that is not worth the time.
    for _ in 0..24 {
        let (&[t0, t1, l0, l1], body) = rest.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = body.get(..length)?;
        if let Some(found) = take(u16::from_be_bytes([t0, t1]), value) {
            return Some(found);
        }
        rest = body.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// Our user name fragment out of a binding request (`ours:theirs`), without allocating.
pub(super) fn request_ufrag(datagram: &[u8]) -> Option<&[u8]> {
    let (kind, _) = stun_head(datagram)?;
    if kind != BINDING_REQUEST {
        return None;
    }
    attribute(datagram, |name, value| {
        (name == 0x0006).then(|| {
            let end = value.iter().position(|byte| *byte == b':')?;
            value.get(..end)
        })?
    })
}

/// Whether a check nominates its pair (`USE-CANDIDATE`).
pub(super) fn uses_candidate(datagram: &[u8]) -> bool {
    attribute(datagram, |name, _| (name == 0x0025).then_some(())).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(username: &[u8]) -> Vec<u8> {
        let mut data = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        data.extend([7; 12]);
        data.extend([0, 6]);
        data.extend((username.len() as u16).to_be_bytes());
        data.extend_from_slice(username);
        while data.len() % 4 != 0 {
            data.push(0);
        }
        data.extend([0, 0x25, 0, 0]);
        let length = (data.len() - 20) as u16;
        data[2..4].copy_from_slice(&length.to_be_bytes());
        data
    }

    #[test]
    fn the_user_name_leads_to_the_leg() {
        let mut demux = Demux::default();
        demux.add("abcdefgh", 3);
        let check = request(b"abcdefgh:them");
        assert_eq!(demux.by_username(&check), Some(3));
        assert!(uses_candidate(&check));
        assert_eq!(demux.by_username(&request(b"abcdefgi:them")), None);
        assert_eq!(demux.by_username(&request(b"abcdefgh")), None);
        demux.remove("abcdefgh", 3);
        assert_eq!(demux.by_username(&check), None);
    }

    #[test]
    fn an_address_moves_to_the_leg_that_proved_it_and_lists_stay_short() {
        let mut demux = Demux::default();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        demux.bind(address(1), 1);
        demux.bind(address(1), 2);
        assert_eq!(demux.bound_to(address(1)), Some(2));
        demux.remove("x", 1);
        assert_eq!(demux.bound_to(address(1)), Some(2));
        for port in 10..200 {
            demux.bind(address(port), 2);
        }
        assert_eq!(demux.bound_addresses(), ADDRESSES_PER_LEG);
        demux.remove("x", 2);
        assert_eq!(demux.bound_addresses(), 0);
    }

    #[test]
    fn mutilated_checks_are_survived() {
        let check = request(b"abcdefgh:them");
        for length in 0..check.len() {
            let _ = request_ufrag(&check[..length]);
        }
        for at in 0..check.len() {
            for value in 0..=255u8 {
                let mut changed = check.clone();
                changed[at] = value;
                let _ = request_ufrag(&changed);
                let _ = uses_candidate(&changed);
            }
        }
    }
}
