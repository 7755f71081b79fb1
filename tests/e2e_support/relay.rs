//! A witness between a participant and the host's media port.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};

type Packets = Arc<Mutex<(Vec<Vec<u8>>, Vec<Vec<u8>>)>>;

/// Passes datagrams on and keeps a copy of each.
pub struct UdpRelay {
    pub addr: SocketAddr,
    seen: Packets,
}

impl UdpRelay {
    pub fn to(host: SocketAddr) -> Self {
        // Five digits like the host's own port: the sniffer exchanges them in place.
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let addr = front.local_addr().unwrap();
        let seen = Packets::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
            let mut buffer = [0; 2048];
            while let Ok((length, client)) = front.recv_from(&mut buffer) {
                let packet = &buffer[..length];
                kept.lock().unwrap().0.push(packet.to_vec());
                let back = ways.entry(client).or_insert_with(|| {
                    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    socket.connect(host).unwrap();
                    let (socket_in, front, kept) = (Arc::clone(&socket), Arc::clone(&front), Arc::clone(&kept));
                    std::thread::spawn(move || {
                        let mut buffer = [0; 2048];
                        while let Ok(length) = socket_in.recv(&mut buffer) {
                            kept.lock().unwrap().1.push(buffer[..length].to_vec());
                            let _ = front.send_to(&buffer[..length], client);
                        }
                    });
                    socket
                });
                let _ = back.send(packet);
            }
        });
        Self { addr, seen }
    }

    /// Datagrams to the host and from it, in order.
    pub fn seen(&self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.seen.lock().unwrap().clone()
    }
}

/// A TCP proxy in front of a host without TLS that names another UDP port in what the server says.
pub struct Sniffer {
    pub addr: SocketAddr,
}

impl Sniffer {
    pub fn to(upstream: SocketAddr, real: u16, named: u16) -> Self {
        let (real, named) = (format!(" {real} typ host"), format!(" {named} typ host"));
        assert_eq!(real.len(), named.len(), "the frames keep their lengths");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(upstream).unwrap();
                let (mut up_from, mut up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut up_from, &mut up_to);
                    let _ = up_to.shutdown(Shutdown::Both);
                });
                let (real, named) = (real.clone(), named.clone());
                std::thread::spawn(move || {
                    rewrite(server, &client, real.as_bytes(), named.as_bytes());
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { addr }
    }
}

/// Copies, exchanging one text for another of the same length; a text that is cut by the end of a read waits for its rest.
fn rewrite(mut from: TcpStream, mut to: &TcpStream, real: &[u8], named: &[u8]) {
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let Ok(length) = from.read(&mut buffer) else { return };
        if length == 0 {
            return;
        }
        held.extend_from_slice(&buffer[..length]);
        while let Some(at) = held.windows(real.len()).position(|w| w == real) {
            held[at..at + real.len()].copy_from_slice(named);
        }
        let open = (1..real.len()).rev().find(|n| held.ends_with(&real[..*n])).unwrap_or(0);
        let ready = held.len() - open;
        if to.write_all(&held[..ready]).is_err() {
            return;
        }
        held.drain(..ready);
    }
}
