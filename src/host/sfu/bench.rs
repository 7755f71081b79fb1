//! What forwarding costs: one publisher, some viewers, real sockets on loopback, CPU time of the media thread alone.
//!
//! The load comes from another thread of the same process, built on the same transport; the figure counts the media
//! thread only (`schedstat`), and the bare pair of system calls is measured in the same run to compare with.

mod memory;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub use memory::{MemoryReport, run as run_memory};

use crate::rtp::frame::VideoCodec;
use crate::rtp::sdp::Summary;

use super::answer::{LocalTransport, Plan, remote};
use super::packet::{Kind, RtpView, classify};
use super::transport::{Identity, Transport};
use super::{LegId, PublishSpec, Sfu, SfuConfig, SfuError};

/// Payload bytes of a video packet: 1.5 Mbit/s at 30 frames of six.
const VIDEO_PAYLOAD: usize = 1_042;
/// Payload bytes of an Opus packet.
const AUDIO_PAYLOAD: usize = 80;
/// The publisher's pacing: two video packets per tick, three ticks of every frame.
const TICK: Duration = Duration::from_millis(5);
/// Video packets per tick that sends.
const VIDEO_PER_TICK: usize = 2;
/// Pairs of system calls measured for the floor.
const FLOOR_PAIRS: u32 = 20_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Subscribers of the one publication.
    pub viewers: usize,
    /// How long media flows.
    pub duration: Duration,
    /// Use AES128_CM_HMAC_SHA1_80 as browsers do, else AES-GCM.
    pub aes_cm: bool,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { viewers: 10, duration: Duration::from_secs(10), aes_cm: true }
    }
}

/// The result; `serde` gives the JSON of `bench sfu --json`.
#[derive(Debug, Clone, serde::Serialize)]
pub struct BenchReport {
    /// Subscribers.
    pub viewers: usize,
    /// Seconds of media.
    pub seconds: f64,
    /// SRTP profile family, `AES-CM` or `AES-GCM`.
    pub cipher: &'static str,
    /// Media packets the forwarder took in.
    pub packets_in: u64,
    /// Media packets it sent, all viewers together.
    pub packets_forwarded: u64,
    /// Media packets the viewers decrypted.
    pub packets_received: u64,
    /// Forwarded and not received; 0 when the host lost nothing.
    pub lost: u64,
    /// CPU time of the media thread per forwarded packet, in microseconds, everything included.
    pub cpu_us_per_packet: f64,
    /// CPU time of one `sendto` and one `recvfrom` of the same size in the same run, in microseconds.
    pub floor_us: f64,
    /// Sending system calls; fewer than packets where segmentation offload joined them.
    pub send_calls: u64,
    /// Time until the slowest leg was connected, in milliseconds.
    pub slowest_connect_ms: u64,
}

/// One end of a leg under test.
struct Client {
    socket: UdpSocket,
    address: SocketAddr,
    transport: Transport,
    received: u64,
}

impl Client {
    fn new(identity: &Identity, offer: &Plan, direction: &str) -> Result<(Self, String), SfuError> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_nonblocking(true)?;
        // A viewer must not lose what the media thread sent just because this thread was busy.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20);
        let address = socket.local_addr()?;
        let (ufrag, pwd) = (super::worker::random_text(8), super::worker::random_text(24));
        let transport = Transport::new(identity, &[address], &ufrag, &pwd, true, Instant::now())?;
        let sdp = offer.to_sdp(&LocalTransport {
            ufrag: &ufrag,
            pwd: &pwd,
            fingerprint: &identity.fingerprint,
            setup: "actpass",
            candidates: &[address],
            session_id: 1,
            stream: "bench",
        });
        let client = Self { socket, address, transport, received: 0 };
        Ok((client, sdp.replace("a=sendonly", direction)))
    }

    fn answered(&mut self, answer: &str) -> Result<(), SfuError> {
        let now = Instant::now();
        let (remote, candidates) = remote(&Summary::parse(answer), true)?;
        self.transport.start(&remote, now)?;
        for candidate in candidates {
            let text = candidate.trim_start_matches("candidate:").to_owned();
            self.transport.add_candidate(&text, now)?;
        }
        Ok(())
    }

    /// Takes what arrived and what is due.
    fn turn(&mut self, buffer: &mut [u8]) {
        let now = Instant::now();
        while let Ok((length, from)) = self.socket.recv_from(buffer) {
            let data = buffer.get(..length).unwrap_or_default();
            match classify(data) {
                Some(Kind::Stun) => {
                    self.transport.stun(data, from, Some(self.address.ip()), now);
                }
                Some(Kind::Dtls) => {
                    self.transport.dtls(data, from, now);
                }
                Some(Kind::Rtp) => {
                    if let Some(plain) = self.transport.decrypt_rtp(data, from, now) {
                        self.received += u64::from(RtpView::parse(&plain).is_some());
                    }
                }
                _ => {}
            }
        }
        if self.transport.poll_timeout().is_some_and(|at| at <= now) {
            self.transport.timeout(now);
        }
        for datagram in self.transport.take_outgoing() {
            // A lost handshake datagram is repeated like any other.
            let _ = self.socket.send_to(&datagram.data, datagram.to);
        }
    }

    fn send_rtp(&mut self, packet: &[u8]) {
        let Some((to, _)) = self.transport.path() else {
            return;
        };
        if let Some(Ok(data)) = self.transport.exit().map(|exit| exit.context.encrypt_rtp(packet)) {
            let _ = self.socket.send_to(&data, to);
        }
    }
}

/// Numbers of the publisher's two streams.
struct Source {
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
}

impl Source {
    fn packet(&mut self, marker: bool, payload: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend([0x80, u8::from(marker) << 7 | self.payload_type]);
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.timestamp.to_be_bytes());
        out.extend(self.ssrc.to_be_bytes());
        out.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
    }
}

/// Runs the measurement on a runtime of its own; blocks for the duration and the connecting.
///
/// # Errors
/// Whatever keeps the forwarder from starting or a leg from connecting within 15 s.
pub fn run(options: &BenchOptions) -> Result<BenchReport, SfuError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut config = SfuConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.aes_cm_only = options.aes_cm;
    let (sfu, _events) = super::start(config)?;
    let result = measure(&runtime, &sfu, options);
    // It may have ended by itself; there is nothing left to stop then.
    let _ = runtime.block_on(sfu.shutdown());
    result
}

fn measure(runtime: &tokio::runtime::Runtime, sfu: &Sfu, options: &BenchOptions) -> Result<BenchReport, SfuError> {
    let identity = Identity::generate(options.aes_cm)?;
    let mut buffer = vec![0; 2_048];
    let (publisher, offer) = publish(runtime, sfu, &identity, 0, "bench")?;
    let (mut audio, mut video) = sources(&offer)?;
    let mut clients = vec![publisher];
    for viewer in 1..=options.viewers {
        clients.push(view(runtime, sfu, &identity, &offer, viewer as u64)?);
    }
    let begin = Instant::now();
    connect(&mut clients, &mut buffer)?;
    let slowest_connect_ms = begin.elapsed().as_millis() as u64;
    // Warm up: the cache fills, the first key frame passes.
    stream(&mut clients, &mut audio, &mut video, Duration::from_millis(1_500), &mut buffer);
    settle(&mut clients, &mut buffer);
    let stats = runtime.block_on(sfu.stats())?;
    let received: u64 = clients.iter().map(|client| client.received).sum();
    let cpu = media_thread_cpu();
    let begin = Instant::now();
    stream(&mut clients, &mut audio, &mut video, options.duration, &mut buffer);
    let seconds = begin.elapsed().as_secs_f64();
    settle(&mut clients, &mut buffer);
    let cpu = media_thread_cpu().saturating_sub(cpu);
    let after = runtime.block_on(sfu.stats())?;
    let packets_received = clients.iter().map(|client| client.received).sum::<u64>() - received;
    let packets_forwarded = after.rtp_forwarded - stats.rtp_forwarded;
    Ok(BenchReport {
        viewers: options.viewers,
        seconds,
        cipher: if options.aes_cm { "AES-CM" } else { "AES-GCM" },
        packets_in: after.rtp_in - stats.rtp_in,
        packets_forwarded,
        packets_received,
        lost: packets_forwarded.saturating_sub(packets_received),
        cpu_us_per_packet: cpu.as_secs_f64() * 1e6 / (packets_forwarded.max(1) as f64),
        floor_us: floor()?,
        send_calls: after.send_calls - stats.send_calls,
        slowest_connect_ms,
    })
}

/// A publishing client under `leg` and what it offered.
fn publish(
    runtime: &tokio::runtime::Runtime,
    sfu: &Sfu,
    identity: &Identity,
    leg: u64,
    stream: &str,
) -> Result<(Client, Plan), SfuError> {
    let mut number = 100;
    let offer = Plan::offer(true, Some(VideoCodec::Vp8), &mut || {
        number += 1;
        number
    });
    let (mut publisher, sdp) = Client::new(identity, &offer, "a=sendonly")?;
    let spec = PublishSpec {
        stream_id: stream.to_owned(),
        session: "bench".to_owned(),
        audio: true,
        video: true,
        loopback: false,
        forced_video: None,
        size: None,
    };
    let answer = runtime.block_on(sfu.publish(LegId(leg), spec, &sdp))?;
    publisher.answered(&answer.sdp)?;
    Ok((publisher, offer))
}

/// A viewer of the stream `bench` under `leg`.
fn view(
    runtime: &tokio::runtime::Runtime,
    sfu: &Sfu,
    identity: &Identity,
    offer: &Plan,
    leg: u64,
) -> Result<Client, SfuError> {
    let (mut client, sdp) = Client::new(identity, offer, "a=recvonly")?;
    let answer = runtime.block_on(sfu.subscribe(LegId(leg), "bench", &sdp))?;
    client.answered(&answer.sdp)?;
    Ok(client)
}

/// Runs the clients until all are connected.
fn connect(clients: &mut [Client], buffer: &mut [u8]) -> Result<(), SfuError> {
    let begin = Instant::now();
    while clients.iter().any(|client| !client.transport.connected()) {
        if begin.elapsed() > Duration::from_secs(15) {
            return Err(SfuError::TimedOut);
        }
        for client in clients.iter_mut() {
            client.turn(buffer);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The sound and the picture of an offer.
fn sources(offer: &Plan) -> Result<(Source, Source), SfuError> {
    let source = |plan: &super::answer::TrackPlan| Source {
        ssrc: plan.ssrc,
        payload_type: plan.payload_type,
        sequence: 1_000,
        timestamp: 0,
    };
    match (offer.audio(), offer.video()) {
        (Some(audio), Some((video, _))) => Ok((source(audio), source(video))),
        _ => Err(SfuError::InvalidSdp("own offer")),
    }
}

/// Takes what is still on its way.
fn settle(clients: &mut [Client], buffer: &mut [u8]) {
    for _ in 0..20 {
        for client in clients.iter_mut() {
            client.turn(buffer);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends media in paced ticks and lets every client read.
fn stream(clients: &mut [Client], audio: &mut Source, video: &mut Source, duration: Duration, buffer: &mut [u8]) {
    let begin = Instant::now();
    let mut packet = Vec::with_capacity(1_500);
    let mut payload = vec![0x5a; VIDEO_PAYLOAD];
    let sound = vec![0x33; AUDIO_PAYLOAD];
    let mut tick = 0u32;
    let mut frame = 0u16;
    while begin.elapsed() < duration {
        // 20 ticks are three frames of 33.3 ms: three sending ticks each, then pause.
        let step = tick % 20;
        let phase = match step {
            0..=2 => Some(step),
            7..=9 => Some(step - 7),
            14..=16 => Some(step - 14),
            _ => None,
        };
        if let Some(publisher) = clients.first_mut() {
            if let Some(phase) = phase {
                if phase == 0 {
                    frame = frame.wrapping_add(1) & 0x7fff;
                    video.timestamp = video.timestamp.wrapping_add(3_000);
                }
                for part in 0..VIDEO_PER_TICK {
                    let start = phase == 0 && part == 0;
                    let end = phase == 2 && part + 1 == VIDEO_PER_TICK;
                    let [high, low] = frame.to_be_bytes();
                    let first = if start { 0x90 } else { 0x80 };
                    let inter = u8::from(frame % 90 != 1);
                    if let Some(head) = payload.first_chunk_mut::<5>() {
                        *head = [first, 0x80, 0x80 | high, low, inter];
                    }
                    video.packet(end, &payload, &mut packet);
                    publisher.send_rtp(&packet);
                }
            }
            if tick.is_multiple_of(4) {
                audio.timestamp = audio.timestamp.wrapping_add(960);
                audio.packet(false, &sound, &mut packet);
                publisher.send_rtp(&packet);
            }
        }
        tick += 1;
        let next = begin + TICK * tick;
        for client in clients.iter_mut() {
            client.turn(buffer);
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// CPU time of one `sendto` and one `recvfrom` on loopback, in microseconds.
fn floor() -> Result<f64, SfuError> {
    let a = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let b = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let to = b.local_addr()?;
    let data = vec![0x5a; VIDEO_PAYLOAD + 12 + 10];
    let mut buffer = vec![0; 2_048];
    let before = own_thread_cpu();
    for _ in 0..FLOOR_PAIRS {
        a.send_to(&data, to)?;
        b.recv_from(&mut buffer)?;
    }
    let spent = own_thread_cpu().saturating_sub(before);
    Ok(spent.as_secs_f64() * 1e6 / f64::from(FLOOR_PAIRS))
}

/// First field of a `schedstat`: nanoseconds on the processor. Zero where the kernel does not say.
fn schedstat(path: &str) -> Duration {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let nanos = text.split_ascii_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn own_thread_cpu() -> Duration {
    schedstat("/proc/thread-self/schedstat")
}

/// CPU time of the threads named `sfu`: this process has one while it measures.
fn media_thread_cpu() -> Duration {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return Duration::ZERO;
    };
    tasks
        .flatten()
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "sfu"))
        .map(|task| schedstat(&task.path().join("schedstat").to_string_lossy()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_loses_nothing_and_counts_everything() {
        let options = BenchOptions { viewers: 4, duration: Duration::from_millis(1_500), aes_cm: true };
        let report = run(&options).unwrap();
        println!("{}", serde_json::to_string_pretty(&report).unwrap());
        assert!(report.packets_in > 200, "{report:?}");
        assert_eq!(report.packets_forwarded, report.packets_in * 4);
        assert_eq!(report.lost, 0);
        assert!(report.cpu_us_per_packet > 0.0 && report.floor_us > 0.0);
    }
}
