//! Local addresses, and the runtime whose sockets time STUN checks and can imitate a bad network.

use super::config::TransportConfig;
use super::error::PeerError;
use super::impaired::ImpairedSocket;
use crate::wire::netsim::Impairments;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime,
    Transmit,
};

/// Addresses to bind, port 0: one socket each, no wildcard.
pub(super) fn bind_addresses(config: &TransportConfig) -> Result<Vec<SocketAddr>, PeerError> {
    let mut found: Vec<IpAddr> = if config.local_addrs.is_empty() {
        if_addrs::get_if_addrs()
            .map_err(|_| PeerError::NoAddress)?
            .into_iter()
            .map(|interface| interface.ip())
            .filter(|ip| !link_local(ip) && !ip.is_unspecified())
            .collect()
    } else {
        config.local_addrs.clone()
    };
    if config.local_addrs.is_empty() {
        let other = found.iter().any(|ip| !ip.is_loopback());
        if other && !config.include_loopback {
            found.retain(|ip| !ip.is_loopback());
        }
    }
    found.sort();
    found.dedup();
    // An address may be configured and still not be usable (IPv6 switched off): try each.
    found.retain(|ip| std::net::UdpSocket::bind(SocketAddr::new(*ip, 0)).is_ok());
    if found.is_empty() {
        return Err(PeerError::NoAddress);
    }
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
}

fn link_local(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments().first().is_some_and(|s| s & 0xffc0 == 0xfe80),
    }
}

/// Round-trip time from connectivity checks, shared between the sockets and the handle.
#[derive(Debug, Default)]
pub(super) struct RttProbe(Mutex<Probe>);

#[derive(Debug, Default)]
struct Probe {
    /// Transaction id and departure of the latest checks, oldest first, at most [`PENDING_CHECKS`].
    pending: VecDeque<([u8; 12], Instant)>,
    smoothed: Option<Duration>,
}

const PENDING_CHECKS: usize = 32;
const STUN_BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const STUN_BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const STUN_MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Message type and transaction id of a STUN message (RFC 8489 §5).
fn stun_header(datagram: &[u8]) -> Option<([u8; 2], [u8; 12])> {
    let header = datagram.get(..20)?;
    let (kind, rest) = header.split_first_chunk::<2>()?;
    let (_, rest) = rest.split_first_chunk::<2>()?;
    let (magic, rest) = rest.split_first_chunk::<4>()?;
    let id = rest.first_chunk::<12>()?;
    (*magic == STUN_MAGIC).then_some((*kind, *id))
}

impl RttProbe {
    fn sent(&self, datagram: &[u8]) {
        let Some((STUN_BINDING_REQUEST, id)) = stun_header(datagram) else { return };
        let mut probe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if probe.pending.len() >= PENDING_CHECKS {
            probe.pending.pop_front();
        }
        probe.pending.push_back((id, Instant::now()));
    }

    fn received(&self, datagram: &[u8]) {
        let Some((STUN_BINDING_SUCCESS, id)) = stun_header(datagram) else { return };
        let mut probe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = probe.pending.iter().position(|(pending, _)| *pending == id) else { return };
        let Some((_, sent)) = probe.pending.remove(at) else { return };
        let sample = sent.elapsed();
        // RFC 6298's smoothing: new = 7/8 old + 1/8 sample.
        probe.smoothed = Some(probe.smoothed.map_or(sample, |old| (old * 7 + sample) / 8));
    }

    /// Smoothed round-trip time, if a check was ever answered.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).smoothed
    }
}

/// Tokio with our sockets.
#[derive(Debug)]
pub(super) struct PeerRuntime {
    inner: TokioRuntime,
    probe: Arc<RttProbe>,
    impairment: Option<Impairments>,
}

impl PeerRuntime {
    pub(super) fn new(config: &TransportConfig, probe: Arc<RttProbe>) -> Self {
        let impairment = config.impairment.filter(|impairment| !impairment.is_clean());
        Self { inner: TokioRuntime, probe, impairment }
    }
}

impl Runtime for PeerRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        self.inner.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = self.inner.wrap_udp_socket(socket)?;
        let inner = match self.impairment {
            Some(impairment) => Arc::new(ImpairedSocket::new(inner, impairment)?) as Arc<dyn AsyncUdpSocket>,
            None => inner,
        };
        Ok(Arc::new(ProbedSocket { inner, probe: Arc::clone(&self.probe) }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.inner.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote_addr: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        self.inner.connect_tcp(remote_addr)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.inner.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.inner.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.inner.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.inner.block_on(future);
    }

    fn yield_now(&self) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.inner.yield_now()
    }
}

/// A socket that watches STUN go by.
#[derive(Debug)]
struct ProbedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    probe: Arc<RttProbe>,
}

impl AsyncUdpSocket for ProbedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let sent = self.inner.poll_send(cx, transmit);
        if matches!(sent, Poll::Ready(Ok(_))) {
            self.probe.sent(transmit.contents);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &received {
            for (buf, meta) in bufs.iter().zip(meta.iter()).take(*count) {
                if let Some(datagram) = buf.get(..meta.len.min(meta.stride)) {
                    self.probe.received(datagram);
                }
            }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn stun(kind: [u8; 2], id: u8) -> Vec<u8> {
        let mut m = vec![kind[0], kind[1], 0, 0];
        m.extend_from_slice(&STUN_MAGIC);
        m.extend_from_slice(&[id; 12]);
        m
    }

    #[test]
    fn a_check_and_its_answer_give_a_round_trip() {
        let probe = RttProbe::default();
        probe.sent(&stun(STUN_BINDING_REQUEST, 1));
        probe.received(&stun(STUN_BINDING_SUCCESS, 2));
        assert_eq!(probe.rtt(), None, "a foreign answer counts for nothing");
        probe.received(&[0x80, 0, 0]);
        std::thread::sleep(Duration::from_millis(20));
        probe.received(&stun(STUN_BINDING_SUCCESS, 1));
        let rtt = probe.rtt().unwrap();
        assert!(rtt >= Duration::from_millis(20) && rtt < Duration::from_secs(2), "{rtt:?}");
    }

    #[test]
    fn loopback_is_used_only_when_asked_or_alone() {
        let with = TransportConfig { include_loopback: true, ..TransportConfig::default() };
        let all = bind_addresses(&with).unwrap();
        assert!(all.iter().any(|a| a.ip().is_loopback()));
        let without = bind_addresses(&TransportConfig::default()).unwrap();
        let other = all.iter().any(|a| !a.ip().is_loopback());
        assert_eq!(without.iter().any(|a| a.ip().is_loopback()), !other);
        let fixed = TransportConfig { local_addrs: vec![IpAddr::from([127, 0, 0, 1])], ..TransportConfig::default() };
        assert_eq!(bind_addresses(&fixed).unwrap(), vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    }
}
