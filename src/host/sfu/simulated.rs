//! The media socket on a simulated path (`--simulate-network`): one [`Link`] in each direction, for all clients together.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use crate::wire::netsim::{Impairments, Link, LinkStats};

/// A datagram that has arrived, or is about to leave.
pub(super) struct Datagram {
    /// The other side.
    pub(super) remote: SocketAddr,
    /// Our own address, where it matters.
    pub(super) local: Option<IpAddr>,
    pub(super) data: Vec<u8>,
}

/// Both directions of the path.
pub(super) struct Simulated {
    down: Link<Datagram>,
    up: Link<Datagram>,
}

impl Simulated {
    pub(super) fn new(impairments: Impairments) -> Self {
        Self { down: Link::new(impairments.down, rand::random()), up: Link::new(impairments.up, rand::random()) }
    }

    /// Takes what the socket received.
    pub(super) fn receive(&mut self, remote: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant) {
        self.down.push(Datagram { remote, local, data: data.to_vec() }, data.len(), now);
    }

    /// What has arrived by now.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        self.down.poll(now)
    }

    /// Takes what is to be sent.
    pub(super) fn send(&mut self, remote: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant) {
        self.up.push(Datagram { remote, local, data: data.to_vec() }, data.len(), now);
    }

    /// What leaves by now.
    pub(super) fn leaving(&mut self, now: Instant) -> Option<Datagram> {
        self.up.poll(now)
    }

    /// When something arrives or leaves next.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        [self.down.next_timeout(), self.up.next_timeout()].into_iter().flatten().min()
    }

    /// Datagrams that got lost on the path.
    pub(super) fn lost(&self) -> u64 {
        let lost = |stats: LinkStats| stats.lost + stats.overflowed;
        lost(self.down.stats()) + lost(self.up.stats())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_direction_has_its_own_path() {
        let mut path = Simulated::new(Impairments::parse("up:delay=40,down:delay=10,loss=100").unwrap());
        let (now, peer) = (Instant::now(), SocketAddr::from(([10, 0, 0, 1], 5)));
        path.send(peer, None, b"out", now);
        path.receive(peer, None, b"in", now);
        assert_eq!(path.lost(), 1, "everything that comes in is lost");
        assert_eq!(path.next_timeout(), Some(now + Duration::from_millis(40)));
        assert!(path.leaving(now + Duration::from_millis(39)).is_none());
        let out = path.leaving(now + Duration::from_millis(40)).expect("it leaves");
        assert_eq!((out.remote, out.data.as_slice()), (peer, &b"out"[..]));
        assert!(path.arrived(now + Duration::from_secs(1)).is_none());
        assert_eq!(path.next_timeout(), None);
    }
}
