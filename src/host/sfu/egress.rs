//! The one socket: batched reads, writes joined by segmentation offload, and artificial loss for tests.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Impairment;
use super::simulated::{Datagram, Simulated};
use crate::wire::netsim::Impairments;

/// Socket buffers asked for; the system may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// Datagrams joined into one system call at most (the kernel's own bound is 64).
const SEGMENTS: usize = 32;
/// Bytes joined at most.
const JOINED_BYTES: usize = 60_000;
/// Bytes of one receive buffer: a GRO batch.
const RECEIVE_BUFFER: usize = 65_535;

/// The socket as the runtime sees it. On Unix it is asked for readability only: with writability registered as well,
/// every datagram that leaves the send buffer would wake the thread once more.
#[cfg(unix)]
type Registered = tokio::io::unix::AsyncFd<std::net::UdpSocket>;
#[cfg(not(unix))]
type Registered = tokio::net::UdpSocket;

// The successor of this function is `unsafe`, for types whose descriptor may change; that of a `UdpSocket` does not.
#[cfg(unix)]
#[allow(deprecated)]
fn register(socket: std::net::UdpSocket) -> io::Result<Registered> {
    Registered::with_interest(socket, tokio::io::Interest::READABLE)
}

#[cfg(not(unix))]
fn register(socket: std::net::UdpSocket) -> io::Result<Registered> {
    Registered::from_std(socket)
}

/// Socket, offload state and counters.
pub(super) struct Wire {
    socket: Registered,
    state: UdpSocketState,
    ipv6: bool,
    /// Bound to every address: the source of a datagram matters.
    wildcard: bool,
    joined: Vec<u8>,
    simulated: Option<Simulated>,
    pub(super) datagrams_out: u64,
    pub(super) bytes_out: u64,
    pub(super) send_calls: u64,
    pub(super) send_failed: u64,
}

impl Wire {
    /// Takes a bound, non-blocking socket; has to be called within the runtime.
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        // Smaller buffers are slower, not wrong.
        let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER);
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER);
        let bound = socket.local_addr()?;
        let (ipv6, wildcard) = (bound.is_ipv6(), bound.ip().is_unspecified());
        Ok(Self {
            socket: register(socket)?,
            state,
            ipv6,
            wildcard,
            joined: Vec::with_capacity(JOINED_BYTES),
            simulated: None,
            datagrams_out: 0,
            bytes_out: 0,
            send_calls: 0,
            send_failed: 0,
        })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        // What was read is told by `receive`; this only wakes up.
        self.socket.readable().await.map(|_| ())
    }

    #[cfg(unix)]
    fn raw(&self) -> quinn_udp::UdpSockRef<'_> {
        self.socket.get_ref().into()
    }

    #[cfg(not(unix))]
    fn raw(&self) -> quinn_udp::UdpSockRef<'_> {
        (&self.socket).into()
    }

    /// Reads one batch; `WouldBlock` when there is nothing.
    pub(super) fn receive(&self, buffers: &mut Receiver) -> io::Result<usize> {
        let mut slices: Vec<io::IoSliceMut<'_>> =
            buffers.storage.iter_mut().map(|buffer| io::IoSliceMut::new(buffer)).collect();
        // `WouldBlock` inside clears the readiness, so that the next `readable` waits.
        let interest = tokio::io::Interest::READABLE;
        let meta = &mut buffers.meta;
        #[cfg(unix)]
        let read = self.socket.try_io(interest, |socket| self.state.recv(socket.into(), &mut slices, meta));
        #[cfg(not(unix))]
        let read = self.socket.try_io(interest, || self.state.recv(self.raw(), &mut slices, meta));
        read
    }

    fn transmit(&mut self, to: SocketAddr, from: Option<IpAddr>, data: &[u8], segment: Option<usize>) {
        let from = from.filter(|_| self.wildcard);
        let (destination, source) = if self.ipv6 { (to_v6(to), from.map(ip_to_v6)) } else { (to, from) };
        let transmit = Transmit { destination, ecn: None, contents: data, segment_size: segment, src_ip: source };
        let count = segment.map_or(1, |segment| data.len().div_ceil(segment.max(1)));
        self.send_calls += 1;
        // A full socket buffer loses the packet, as a full queue on the path would: repair is per packet.
        match self.state.try_send(self.raw(), &transmit) {
            Ok(()) => {
                self.datagrams_out += count as u64;
                self.bytes_out += data.len() as u64;
            }
            Err(_) => self.send_failed += count as u64,
        }
    }

    /// From now on the socket lies on a path with these impairments.
    pub(super) fn simulate(&mut self, impairments: Impairments) {
        self.simulated = Some(Simulated::new(impairments));
    }

    /// Sends one datagram.
    pub(super) fn send(&mut self, to: SocketAddr, from: Option<IpAddr>, data: &[u8]) {
        match &mut self.simulated {
            Some(path) => path.send(to, from, data, Instant::now()),
            None => self.transmit(to, from, data, None),
        }
    }

    /// Puts what was read on the simulated path; `false` where there is none.
    pub(super) fn delayed(&mut self, from: SocketAddr, local: Option<IpAddr>, data: &[u8], now: Instant) -> bool {
        let Some(path) = &mut self.simulated else { return false };
        path.receive(from, local, data, now);
        true
    }

    /// What has come over the simulated path by now.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Datagram> {
        self.simulated.as_mut()?.arrived(now)
    }

    /// Lets out what has come to the end of the simulated path.
    pub(super) fn let_out(&mut self, now: Instant) {
        while let Some(Datagram { remote, local, data }) = self.simulated.as_mut().and_then(|path| path.leaving(now)) {
            self.transmit(remote, local, &data, None);
        }
    }

    /// How long nothing happens on the simulated path.
    pub(super) fn quiet_for(&self, now: Instant) -> Option<Duration> {
        Some(self.simulated.as_ref()?.next_timeout()?.saturating_duration_since(now))
    }

    /// Datagrams lost on the simulated path.
    pub(super) fn simulated_losses(&self) -> u64 {
        self.simulated.as_ref().map_or(0, Simulated::lost)
    }

    /// Sends datagrams to one destination, in order; equal sizes are joined.
    pub(super) fn send_all(&mut self, to: SocketAddr, from: Option<IpAddr>, queue: &mut Vec<BytesMut>) {
        if let Some(path) = &mut self.simulated {
            let now = Instant::now();
            for data in queue.drain(..) {
                path.send(to, from, &data, now);
            }
            return;
        }
        let most = self.state.max_gso_segments().min(SEGMENTS);
        let mut joined = std::mem::take(&mut self.joined);
        let mut rest = queue.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            let size = first.len();
            // A run: equal sizes, and one shorter datagram may end it.
            let mut run = 1;
            let mut bytes = size;
            for next in tail.iter().take(most.saturating_sub(1)) {
                if next.len() > size || bytes + next.len() > JOINED_BYTES {
                    break;
                }
                run += 1;
                bytes += next.len();
                if next.len() < size {
                    break;
                }
            }
            if run == 1 {
                self.transmit(to, from, first, None);
            } else {
                joined.clear();
                for datagram in rest.iter().take(run) {
                    joined.extend_from_slice(datagram);
                }
                self.transmit(to, from, &joined, Some(size));
            }
            rest = rest.get(run..).unwrap_or_default();
        }
        self.joined = joined;
        queue.clear();
    }
}

fn ip_to_v6(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    }
}

fn to_v6(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(ip_to_v6(address.ip()), address.port())
}

/// Buffers of one read.
pub(super) struct Receiver {
    storage: Vec<Vec<u8>>,
    meta: Vec<RecvMeta>,
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            storage: vec![vec![0; RECEIVE_BUFFER]; quinn_udp::BATCH_SIZE],
            meta: vec![RecvMeta::default(); quinn_udp::BATCH_SIZE],
        }
    }

    /// Visits the datagrams of the first `count` messages.
    pub(super) fn each(&self, count: usize, mut visit: impl FnMut(SocketAddr, Option<IpAddr>, &[u8])) {
        for (meta, buffer) in self.meta.iter().zip(&self.storage).take(count) {
            let from = SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port());
            let local = meta.dst_ip.map(|ip| ip.to_canonical());
            let data = buffer.get(..meta.len).unwrap_or_default();
            for datagram in data.chunks(meta.stride.max(1)) {
                visit(from, local, datagram);
            }
        }
    }
}

/// Draws losses.
#[derive(Debug)]
pub(super) struct Loss {
    impairment: Impairment,
    random: SmallRng,
}

impl Loss {
    pub(super) fn new(impairment: Impairment) -> Self {
        Self { random: SmallRng::seed_from_u64(impairment.seed), impairment }
    }

    pub(super) fn inbound(&mut self) -> bool {
        self.random.random_bool(self.impairment.loss_in.clamp(0.0, 1.0))
    }

    pub(super) fn outbound(&mut self) -> bool {
        self.random.random_bool(self.impairment.loss_out.clamp(0.0, 1.0))
    }
}
