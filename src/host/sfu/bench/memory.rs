//! What a leg and a publication cost in memory: growth of the process when more of them come to a forwarder that is warm.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::super::cache::VIDEO_PACKETS;
use super::{
    Client, Identity, Sfu, SfuConfig, SfuError, Source, VIDEO_PAYLOAD, connect, publish, settle, sources, view,
};

/// Legs there are before anything is counted: libraries, pools and the allocator have what they want then.
const WARM_LEGS: u64 = 10;
/// Legs that are counted.
const LEGS: u64 = 60;
/// Publications that are counted.
const PUBLICATIONS: u64 = 12;

/// The result of [`run`]. The other end of each leg runs in the same process and is counted with it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct MemoryReport {
    /// Kilobytes for each further viewer of a publication.
    pub kb_per_leg: f64,
    /// Kilobytes for each further publication with a full cache, its own leg included.
    pub kb_per_publication: f64,
}

/// Measures on a runtime of its own; takes some seconds.
///
/// # Errors
/// Whatever keeps the forwarder from starting or a leg from connecting within 15 s.
pub fn run() -> Result<MemoryReport, SfuError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut config = SfuConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.aes_cm_only = true;
    let (sfu, _events) = super::super::start(config)?;
    let result = measure(&runtime, &sfu);
    // It may have ended by itself; there is nothing left to stop then.
    let _ = runtime.block_on(sfu.shutdown());
    result
}

fn measure(runtime: &tokio::runtime::Runtime, sfu: &Sfu) -> Result<MemoryReport, SfuError> {
    let identity = Identity::generate(true)?;
    let mut buffer = vec![0; 2_048];
    let (publisher, offer) = publish(runtime, sfu, &identity, 0, "bench")?;
    let mut videos = vec![sources(&offer)?.1];
    let mut clients = vec![publisher];
    let mut leg = 0;
    let mut add_viewers = |clients: &mut Vec<Client>, count: u64, buffer: &mut [u8]| {
        for _ in 0..count {
            leg += 1;
            clients.push(view(runtime, sfu, &identity, &offer, leg)?);
        }
        connect(clients, buffer)
    };
    add_viewers(&mut clients, WARM_LEGS, &mut buffer)?;
    fill(&mut clients, &mut videos, &mut buffer);
    let warm_kb = resident_kb();
    add_viewers(&mut clients, LEGS, &mut buffer)?;
    fill(&mut clients, &mut videos, &mut buffer);
    let viewed_kb = resident_kb();
    let mut publishers = Vec::new();
    videos.clear();
    for number in 0..PUBLICATIONS {
        let (client, offer) = publish(runtime, sfu, &identity, 1_000 + number, &format!("more{number}"))?;
        publishers.push(client);
        videos.push(sources(&offer)?.1);
    }
    connect(&mut publishers, &mut buffer)?;
    fill(&mut publishers, &mut videos, &mut buffer);
    let published_kb = resident_kb();
    let each = |from: u64, to: u64, count: u64| to.saturating_sub(from) as f64 / count as f64;
    Ok(MemoryReport {
        kb_per_leg: each(warm_kb, viewed_kb, LEGS),
        kb_per_publication: each(viewed_kb, published_kb, PUBLICATIONS),
    })
}

/// The first clients send more video than a cache holds, one each for every source.
fn fill(clients: &mut [Client], videos: &mut [Source], buffer: &mut [u8]) {
    let mut packet = Vec::with_capacity(1_500);
    let mut payload = vec![0x5a; VIDEO_PAYLOAD];
    for number in 0..VIDEO_PACKETS as u16 + 60 {
        let [high, low] = (number & 0x7fff).to_be_bytes();
        if let Some(head) = payload.first_chunk_mut::<5>() {
            *head = [0x90, 0x80, 0x80 | high, low, u8::from(!number.is_multiple_of(90))];
        }
        for (client, video) in clients.iter_mut().zip(videos.iter_mut()) {
            video.timestamp = video.timestamp.wrapping_add(3_000);
            video.packet(true, &payload, &mut packet);
            client.send_rtp(&packet);
        }
        for client in clients.iter_mut() {
            client.turn(buffer);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    settle(clients, buffer);
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
