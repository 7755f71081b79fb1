//! Two transports in memory, and what they make of mutilated datagrams and of repairs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::rtp::frame::VideoCodec;

use super::answer::{Codec, Extensions, FeedbackKinds, TrackPlan};
use super::cache::Cache;
use super::outbound::TrackOut;
use super::packet::{Kind, RtpView, classify};
use super::rtcp;
use super::transport::{Identity, Outgoing, Remote, Transport};

/// Mutilated datagrams fed to each of the two transports under test.
const MUTATIONS: usize = 20_000;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn host(identity: &Identity, peer: &Identity, now: Instant) -> Transport {
    let mut host = Transport::new(identity, &[address(1000)], "hosthost", &"h".repeat(24), false, now).unwrap();
    let remote = Remote {
        ufrag: "clientcl".to_owned(),
        pwd: "c".repeat(24),
        fingerprint: peer.fingerprint.clone(),
        we_are_client: true,
    };
    host.start(&remote, now).unwrap();
    host
}

fn client(identity: &Identity, peer: &Identity, now: Instant) -> Transport {
    let mut client = Transport::new(identity, &[address(2000)], "clientcl", &"c".repeat(24), true, now).unwrap();
    let remote = Remote {
        ufrag: "hosthost".to_owned(),
        pwd: "h".repeat(24),
        fingerprint: peer.fingerprint.clone(),
        we_are_client: false,
    };
    client.start(&remote, now).unwrap();
    client.add_candidate("1 1 udp 2130706431 127.0.0.1 1000 typ host", now).unwrap();
    client
}

fn feed(to: &mut Transport, data: &[u8], from: SocketAddr, local: SocketAddr, now: Instant) {
    match classify(data) {
        Some(Kind::Stun) => {
            to.stun(data, from, Some(local.ip()), now);
        }
        Some(Kind::Dtls) => {
            to.dtls(data, from, now);
        }
        Some(Kind::Rtp) => {
            if let Some(plain) = to.decrypt_rtp(data, from, now) {
                let _ = RtpView::parse(&plain);
            }
        }
        Some(Kind::Rtcp) => {
            if let Some(plain) = to.decrypt_rtcp(data, from, now) {
                rtcp::parse(&plain, |_| {});
            }
        }
        None => {}
    }
}

/// Connects both; returns everything the client had sent.
fn connect(host: &mut Transport, client: &mut Transport, mut now: Instant) -> (Instant, Vec<Vec<u8>>) {
    let mut recorded = Vec::new();
    for _ in 0..400 {
        now += Duration::from_millis(5);
        client.timeout(now);
        host.timeout(now);
        for _ in 0..4 {
            let sent: Vec<Outgoing> = client.take_outgoing().collect();
            for datagram in sent {
                recorded.push(datagram.data.to_vec());
                feed(host, &datagram.data, address(2000), address(1000), now);
            }
            let sent: Vec<Outgoing> = host.take_outgoing().collect();
            for datagram in sent {
                feed(client, &datagram.data, address(1000), address(2000), now);
            }
        }
        if host.connected() && client.connected() {
            return (now, recorded);
        }
    }
    panic!("not connected");
}

fn mutate(data: &mut Vec<u8>, random: &mut SmallRng) {
    match random.random_range(0..8) {
        0 => data.truncate(random.random_range(0..=data.len())),
        1 => data.extend((0..random.random_range(1..40)).map(|_| 0xff)),
        _ => {}
    }
    for _ in 0..random.random_range(1..5) {
        if !data.is_empty() {
            let at = random.random_range(0..data.len());
            data[at] = random.random();
        }
    }
}

#[test]
fn mutilated_datagrams_harm_neither_a_young_nor_an_established_leg() {
    let begin = Instant::now();
    let (ours, theirs) = (Identity::generate(true).unwrap(), Identity::generate(true).unwrap());
    let (mut a, mut b) = (host(&ours, &theirs, begin), client(&theirs, &ours, begin));
    let (now, mut recorded) = connect(&mut a, &mut b, begin);
    let packet = |sequence: u16| {
        let mut data = vec![0x80, 96];
        data.extend(sequence.to_be_bytes());
        data.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        data.extend([7; 100]);
        data
    };
    recorded.push(b.exit().unwrap().context.encrypt_rtp(&packet(1)).unwrap().to_vec());
    let mut report = rtcp::Writer::default();
    report.receiver_report(5, &[]);
    b.send_rtcp(report.bytes());
    recorded.extend(b.take_outgoing().map(|datagram| datagram.data.to_vec()));
    assert!(recorded.len() > 6, "checks, handshake, media and control were recorded");
    let mut random = SmallRng::seed_from_u64(1);
    let mut young = host(&ours, &theirs, begin);
    for round in 0..MUTATIONS {
        let mut data = recorded[random.random_range(0..recorded.len())].clone();
        mutate(&mut data, &mut random);
        feed(&mut a, &data, address(2000), address(1000), now);
        if round % 500 == 0 {
            young = host(&ours, &theirs, begin);
        }
        feed(&mut young, &data, address(2000), address(1000), begin);
        // Whatever they answer is thrown away: it must not pile up either.
        a.take_outgoing();
        young.take_outgoing();
    }
    let good = b.exit().unwrap().context.encrypt_rtp(&packet(2)).unwrap();
    assert!(a.decrypt_rtp(&good, address(2000), now).is_some(), "the call goes on");
    assert!(a.decrypt_rtp(&good, address(2000), now).is_none(), "a replay does not");
}

#[test]
fn a_repair_comes_on_its_own_source_or_as_the_very_same_bytes() {
    let begin = Instant::now();
    let (ours, theirs) = (Identity::generate(true).unwrap(), Identity::generate(true).unwrap());
    let (mut a, mut b) = (host(&ours, &theirs, begin), client(&theirs, &ours, begin));
    let (now, _) = connect(&mut a, &mut b, begin);
    for rtx in [Some(121), None] {
        let plan = TrackPlan {
            codec: Codec::Video(VideoCodec::Vp8),
            mid: "1".to_owned(),
            payload_type: 120,
            rtx,
            fmtp: None,
            extensions: Extensions { abs_send_time: Some(2), mid: Some(4), ..Extensions::default() },
            feedback: FeedbackKinds::default(),
            ssrc: if rtx.is_some() { 500 } else { 700 },
            rtx_ssrc: 600,
            layers: Vec::new(),
        };
        let mut track = TrackOut::new(plan, 1_000);
        let mut cache = Cache::new(16);
        let mut sent = Vec::new();
        for sequence in 70_000..70_003 {
            let slot = cache.slot(sequence).unwrap();
            slot.timestamp = 90;
            slot.starts_key_frame = sequence == 70_000;
            slot.abs_send_time = 0x123456;
            slot.payload.extend([sequence as u8; 50]);
            let stored = cache.get(sequence).unwrap();
            sent.push(track.forward(0, stored, &mut a.exit().unwrap(), 0).unwrap());
        }
        let number = 70_001u64 as u16;
        let repair = track.repair(number, |_| Some(&cache), &mut a.exit().unwrap(), 1_000_000).unwrap();
        for data in [&sent[0], &sent[2]] {
            let plain = b.decrypt_rtp(data, address(1000), now).unwrap();
            let view = RtpView::parse(&plain).unwrap();
            assert_eq!((view.payload_type, view.timestamp), (120, 1_090));
            assert_eq!(view.extension(2), Some(&[0x12, 0x34, 0x56][..]));
            assert_eq!(view.extension(4), Some(&b"1"[..]));
        }
        match rtx {
            None => assert_eq!(repair, sent[1], "one nonce, one message"),
            Some(rtx) => {
                let plain = b.decrypt_rtp(&repair, address(1000), now).unwrap();
                let view = RtpView::parse(&plain).unwrap();
                assert_eq!((view.payload_type, view.ssrc), (rtx, 600));
                assert_eq!(view.payload[..2], number.to_be_bytes());
                assert_eq!(view.payload[2..], [70_001u64 as u8; 50]);
            }
        }
        let missed = track.repair(number.wrapping_add(40), |_| Some(&cache), &mut a.exit().unwrap(), 1_000_000);
        assert!(missed.is_none(), "never sent, never repaired");
        // A flood of requests runs into the budget.
        let answered = (0..2_000)
            .filter(|_| track.repair(number, |_| Some(&cache), &mut a.exit().unwrap(), 1_000_000).is_some())
            .count();
        assert!(answered <= 300, "{answered}");
    }
}
