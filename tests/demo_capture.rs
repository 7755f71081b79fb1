//! What `demo` sends is seen on the network: a capture of loopback finds one port with DTLS and SRTP and nothing readable.
//! A test binary of its own, so that nobody else's datagrams are on loopback meanwhile.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

/// One captured datagram: ports and payload.
struct Datagram {
    from: u16,
    to: u16,
    data: Vec<u8>,
}

/// UDP over IPv4 out of a capture file of Ethernet frames (loopback has their header too), little-endian, microseconds.
fn datagrams(pcap: &[u8]) -> Vec<Datagram> {
    assert_eq!(pcap[..4], [0xd4, 0xc3, 0xb2, 0xa1], "a capture file");
    let mut found = Vec::new();
    let mut rest = &pcap[24..];
    while rest.len() >= 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let Some(frame) = rest.get(16..16 + length) else { break };
        rest = &rest[16 + length..];
        let ip = &frame[14..];
        let header = usize::from(ip[0] & 0x0f) * 4;
        if ip[0] >> 4 != 4 || ip[9] != 17 {
            continue;
        }
        let udp = &ip[header..];
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        found.push(Datagram { from: port(0), to: port(2), data: udp[8..].to_vec() });
    }
    found
}

/// `program` as the user who may capture: root, as for installing packages.
fn as_root(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output().expect("id").stdout;
    if id.trim_ascii() == b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["-n", program]);
    command
}

/// `tcpdump` on loopback while `run` runs; `None` where the system lets nobody capture.
fn capture_while(run: impl FnOnce()) -> Option<Vec<Datagram>> {
    let mut tcpdump = as_root("tcpdump")
        .args(["-i", "lo", "-U", "-w", "-", "-s", "256", "-B", "16384", "udp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tcpdump is installed (packaging/deps.sh)");
    let mut out = tcpdump.stdout.take().unwrap();
    let mut err = tcpdump.stderr.take().unwrap();
    let (begun, ready) = mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut piece = [0; 65_536];
        while let Ok(n @ 1..) = out.read(&mut piece) {
            all.extend_from_slice(&piece[..n]);
            let _ = begun.try_send(());
        }
        all
    });
    // The file's head comes once it listens.
    if ready.recv_timeout(Duration::from_secs(10)).is_err() {
        let _ = tcpdump.kill();
        let _ = tcpdump.wait();
        let mut why = String::new();
        let _ = err.read_to_string(&mut why);
        assert!(why.contains("ermission") || why.contains("password"), "tcpdump does not capture: {why}");
        return None;
    }
    run();
    std::thread::sleep(Duration::from_millis(300));
    let _ = as_root("kill").args(["-INT", &tcpdump.id().to_string()]).status();
    let _ = tcpdump.wait();
    Some(datagrams(&reader.join().unwrap()))
}

#[test]
fn the_demo_s_calls_are_dtls_and_srtp_on_one_port() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("demo.json");
    let seen = capture_while(|| {
        let status = Command::new(env!("CARGO_BIN_EXE_tertulia"))
            .args([
                "demo",
                "--participants",
                "3",
                "--size",
                "320x180@15",
                "--seconds",
                "5",
                "--headless",
                "--stats-json",
            ])
            .arg(&report)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    });
    let Some(seen) = seen else {
        eprintln!("not checked: this system lets nobody capture");
        return;
    };
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let streams: usize =
        report["participants"].as_array().unwrap().iter().map(|p| p["streams"].as_array().unwrap().len()).sum();
    assert_eq!(streams, 9, "three send and each receives two");

    // The host's port is the one all legs have in common.
    let mut by_port: HashMap<u16, usize> = HashMap::new();
    for datagram in &seen {
        *by_port.entry(datagram.from).or_default() += 1;
        *by_port.entry(datagram.to).or_default() += 1;
    }
    let (&host, _) = by_port.iter().max_by_key(|(_, count)| **count).expect("datagrams");
    let mut hellos: HashMap<u16, usize> = HashMap::new();
    let (mut stun, mut dtls, mut to_host, mut from_host, mut readable) = (0, 0, 0, 0, 0);
    for Datagram { from, to, data } in seen.iter().filter(|d| d.from == host || d.to == host) {
        match data.first() {
            Some(0..=3) => stun += 1,
            Some(20..=63) => {
                dtls += 1;
                // A handshake record (22) whose first message is a ClientHello (1).
                if data[0] == 22 && data[13] == 1 {
                    *hellos.entry(if *from == host { *to } else { *from }).or_default() += 1;
                }
            }
            Some(128..=191) => {
                if *to == host {
                    to_host += 1;
                } else {
                    from_host += 1;
                }
                // Start code of a VP8 key frame (RFC 6386 section 9.1).
                readable += usize::from(data.windows(3).any(|w| w == [0x9d, 0x01, 0x2a]));
            }
            other => panic!("neither STUN, DTLS, SRTP nor SRTCP: {other:?}, {} bytes", data.len()),
        }
    }
    assert!(stun >= streams * 2, "{stun}");
    assert_eq!(hellos.len(), streams, "every leg has shaken hands: {hellos:?}");
    assert!(dtls >= streams * 6, "{dtls}");
    // 3 senders for some seconds with at least 15 pictures and up to 50 packets of sound a second; each goes to two others.
    assert!(to_host > 3 * 4 * 15, "{to_host}");
    assert!(from_host > to_host, "{to_host} in, {from_host} out");
    assert!(
        readable <= 1,
        "{readable} packets with the start code of a key frame: three bytes may come about once by chance"
    );
}
