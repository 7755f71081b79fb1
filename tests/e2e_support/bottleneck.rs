//! A slow line between a participant and the host's media port, one queue for all its connections; its rate can change.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// What would wait longer is dropped.
const QUEUE: Duration = Duration::from_millis(300);

/// Passes datagrams on, those towards the participant no faster than its rate.
pub struct Bottleneck {
    pub addr: SocketAddr,
    bps: Arc<AtomicU64>,
}

impl Bottleneck {
    pub fn to(host: SocketAddr, kbps: u64) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let addr = front.local_addr().unwrap();
        let bps = Arc::new(AtomicU64::new(kbps * 1_000));
        let (queue, waiting) = mpsc::sync_channel::<(Instant, SocketAddr, Vec<u8>)>(10_000);
        let out = Arc::clone(&front);
        std::thread::spawn(move || {
            while let Ok((at, client, data)) = waiting.recv() {
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                let _ = out.send_to(&data, client);
            }
        });
        let (rate, free_at) = (Arc::clone(&bps), Arc::new(Mutex::new(Instant::now())));
        std::thread::spawn(move || {
            let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = front.recv_from(&mut buffer) {
                let back = ways.entry(client).or_insert_with(|| {
                    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    socket.connect(host).unwrap();
                    let (from, queue, rate, free_at) =
                        (Arc::clone(&socket), queue.clone(), Arc::clone(&rate), Arc::clone(&free_at));
                    std::thread::spawn(move || {
                        let mut buffer = [0; 2048];
                        while let Ok(length) = from.recv(&mut buffer) {
                            let (now, mut free_at) = (Instant::now(), free_at.lock().unwrap());
                            let begin = (*free_at).max(now);
                            if begin - now > QUEUE {
                                continue;
                            }
                            let bits = (length + 28) as f64 * 8.0;
                            *free_at = begin + Duration::from_secs_f64(bits / rate.load(Ordering::Relaxed) as f64);
                            let _ = queue.send((*free_at, client, buffer[..length].to_vec()));
                        }
                    });
                    socket
                });
                let _ = back.send(&buffer[..length]);
            }
        });
        Self { addr, bps }
    }

    pub fn set_kbps(&self, kbps: u64) {
        self.bps.store(kbps * 1_000, Ordering::Relaxed);
    }
}
