//! A UDP socket on a simulated path, one [`Link`] in each direction.
//!
//! Loss, delay and rate act on single datagrams, below SRTP. Each direction has a task that ends with the socket.

use crate::wire::netsim::{Impairments, Link};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

/// What the kernel hands over at most in one piece.
const PIECE: usize = 65_536;
/// How long a task sleeps at most before it looks whether its socket still lives.
const LOOK: Duration = Duration::from_millis(500);

type Datagram = (SocketAddr, Vec<u8>);

#[derive(Debug)]
struct Inbound {
    link: Link<Datagram>,
    /// Who waits for a datagram.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Path {
    socket: Arc<dyn AsyncUdpSocket>,
    up: Mutex<Link<Datagram>>,
    down: Mutex<Inbound>,
    sent: Notify,
    failed: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket as the stack sees it.
#[derive(Debug)]
pub(super) struct ImpairedSocket {
    path: Arc<Path>,
}

impl ImpairedSocket {
    /// Wraps a socket; must be called on a tokio runtime.
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, impairments: Impairments) -> io::Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
        let path = Arc::new(Path {
            socket,
            up: Mutex::new(Link::new(impairments.up, rand::random())),
            down: Mutex::new(Inbound { link: Link::new(impairments.down, rand::random()), waker: None }),
            sent: Notify::new(),
            failed: AtomicBool::new(false),
        });
        runtime.spawn(upwards(Arc::downgrade(&path)));
        runtime.spawn(downwards(Arc::downgrade(&path)));
        Ok(Self { path })
    }
}

/// Lets datagrams out when their time has come.
async fn upwards(path: Weak<Path>) {
    loop {
        let Some(path) = path.upgrade() else { return };
        let next = {
            let now = Instant::now();
            loop {
                let due = lock(&path.up).poll(now);
                let Some((to, datagram)) = due else { break };
                // An unreachable address is the peer's affair, as on a real path.
                let _ = path.socket.send_to(&datagram, to).await;
            }
            lock(&path.up).next_timeout()
        };
        let at = next.unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK);
        tokio::select! {
            () = tokio::time::sleep_until(at.into()) => {}
            () = path.sent.notified() => {}
        }
    }
}

async fn receive(socket: &dyn AsyncUdpSocket, buffer: &mut [u8]) -> io::Result<RecvMeta> {
    let mut meta = [RecvMeta::default()];
    std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(buffer)], &mut meta)).await?;
    let [meta] = meta;
    Ok(meta)
}

/// Takes datagrams in, and wakes the reader when their time has come.
async fn downwards(path: Weak<Path>) {
    let mut buffer = vec![0u8; PIECE];
    loop {
        let Some(path) = path.upgrade() else { return };
        let next = lock(&path.down).link.next_timeout();
        let at = next.unwrap_or_else(|| Instant::now() + LOOK).min(Instant::now() + LOOK);
        tokio::select! {
            got = receive(path.socket.as_ref(), &mut buffer) => match got {
                Ok(meta) => {
                    let now = Instant::now();
                    let mut down = lock(&path.down);
                    // The kernel may hand over several datagrams in one piece.
                    for datagram in buffer.get(..meta.len).unwrap_or_default().chunks(meta.stride.max(1)) {
                        down.link.push((meta.addr, datagram.to_vec()), datagram.len(), now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Err(error) => {
                    tracing::debug!(%error, "a media socket failed");
                    path.failed.store(true, Ordering::Relaxed);
                    if let Some(waker) = lock(&path.down).waker.take() {
                        waker.wake();
                    }
                    return;
                }
            },
            () = tokio::time::sleep_until(at.into()) => {}
        }
        let waker = {
            let mut down = lock(&path.down);
            match down.link.next_timeout() {
                Some(at) if at <= Instant::now() => down.waker.take(),
                _ => None,
            }
        };
        match waker {
            Some(waker) => waker.wake(),
            // Due, but nobody is reading yet: do not spin.
            None if next.is_some_and(|at| at <= Instant::now()) => tokio::task::yield_now().await,
            None => {}
        }
    }
}

impl AsyncUdpSocket for ImpairedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.path.socket.local_addr()
    }

    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let now = Instant::now();
        {
            let mut up = lock(&self.path.up);
            for datagram in transmit.contents.chunks(segment) {
                up.push((transmit.destination, datagram.to_vec()), datagram.len(), now);
            }
        }
        self.path.sent.notify_one();
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.path.failed.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let now = Instant::now();
        let mut down = lock(&self.path.down);
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta.iter_mut()) {
            let Some((from, datagram)) = down.link.poll(now) else { break };
            let length = datagram.len().min(buf.len());
            if let (Some(to), Some(data)) = (buf.get_mut(..length), datagram.get(..length)) {
                to.copy_from_slice(data);
            }
            *meta = RecvMeta::default();
            meta.addr = from;
            meta.len = length;
            meta.stride = length.max(1);
            count += 1;
        }
        if count > 0 {
            return Poll::Ready(Ok(count));
        }
        down.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
