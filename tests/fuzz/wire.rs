//! The interceptors of a connection under packets of any content, from the wire and to it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::interceptor::{
    AttributedPacket, Interceptor, Packet, RTCPFeedback, RTPHeaderExtension, StreamInfo, TaggedPacket,
};
use rtc::sansio::Protocol as _;
use rtc::shared::TransportContext;
use rtc::shared::marshal::Unmarshal as _;
use tertulia::rtp::congestion::Bounds;
use tertulia::rtp::packet::RtpPacket;
use tertulia::rtp::rtx::RtxMap;
use tertulia::wire::{self, ABS_SEND_TIME_URI, MID_URI, RID_URI, RRID_URI, TRANSPORT_CC_URI, WireHandle, from_rtp};

use super::bits::Bits;

/// The stream that both ends know.
const MEDIA: u32 = 1;

fn stream() -> StreamInfo {
    let uris = [TRANSPORT_CC_URI, ABS_SEND_TIME_URI, MID_URI, RID_URI, RRID_URI];
    StreamInfo {
        ssrc: MEDIA,
        ssrc_rtx: Some(2),
        payload_type: 96,
        payload_type_rtx: Some(97),
        clock_rate: 90_000,
        mime_type: "video/VP8".to_owned(),
        rtcp_feedback: [("nack", ""), ("transport-cc", "")]
            .map(|(typ, parameter)| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() })
            .to_vec(),
        rtp_header_extensions: uris
            .iter()
            .zip(1u16..)
            .map(|(uri, id)| RTPHeaderExtension { uri: (*uri).to_owned(), id })
            .collect(),
        ..StreamInfo::default()
    }
}

/// Takes out what a chain has for both sides; gives the packets for the wire.
fn drain(chain: &mut impl Interceptor, limit: usize) -> usize {
    let read = std::iter::from_fn(|| chain.poll_read()).take(limit + 1).count();
    assert!(read <= limit, "more comes up than came in");
    std::iter::from_fn(|| chain.poll_write()).take(100_000).count()
}

/// Each step is a packet or a time: RTP and RTCP in at both ends, own packets out, a while.
pub fn wire(data: &[u8]) {
    let mut bits = Bits(data);
    let begin = Instant::now();
    let mut now = begin;
    let handles = [WireHandle::new(), WireHandle::new()];
    let bounds = Bounds { start_bps: 3e5, min_bps: 5e4, max_bps: 4e6 };
    let mut sender = wire::sending(&handles[0], Some(bounds)).build();
    let mut receiver = wire::receiving(&handles[1]).build();
    sender.bind_local_stream(&stream());
    receiver.bind_remote_stream(&stream());
    let mut map = RtxMap::default();
    map.add_payload_type(97, 96);
    map.add_ssrc(2, MEDIA);
    handles[1].add_rtx(map);
    let (mut sequence, mut sent) = (bits.u16(), 0usize);
    for _ in 0..400 {
        if bits.is_empty() {
            break;
        }
        let tagged = |packet| TaggedPacket {
            now,
            transport: TransportContext::default(),
            message: AttributedPacket::new(packet),
        };
        match bits.u8() % 5 {
            0 => {
                let mut bytes = Bytes::copy_from_slice(bits.piece());
                if let Ok(packet) = rtc::rtp::Packet::unmarshal(&mut bytes) {
                    let _ = receiver.handle_read(tagged(Packet::Rtp(packet)));
                }
                drain(&mut receiver, 1);
            }
            side @ (1 | 2) => {
                let piece = bits.piece();
                let mut bytes = Bytes::copy_from_slice(piece);
                if let Ok(compound) = rtc::rtcp::packet::unmarshal(&mut bytes) {
                    // One for each request in it.
                    let most = piece.len() + 1;
                    let message = tagged(Packet::Rtcp(compound));
                    if side == 1 {
                        let _ = receiver.handle_read(message);
                        drain(&mut receiver, most);
                    } else {
                        let _ = sender.handle_read(message);
                        let repeats = drain(&mut sender, most);
                        assert!(repeats <= sent * 2 + 16, "{repeats} packets for {sent}");
                    }
                }
            }
            3 => {
                let payload = Bytes::copy_from_slice(bits.piece());
                sequence = sequence.wrapping_add(1);
                sent += 1;
                let packet = RtpPacket { payload_type: 96, marker: true, sequence, timestamp: 9, ssrc: MEDIA, payload };
                let _ = sender.handle_write(tagged(Packet::Rtp(from_rtp(packet))));
                drain(&mut sender, 0);
            }
            _ => {
                now += Duration::from_millis(u64::from(bits.u8()));
                let _ = (sender.handle_timeout(now), receiver.handle_timeout(now));
                handles[0].tick(now);
                let _ = (drain(&mut sender, 0), drain(&mut receiver, 0));
            }
        }
        for handle in &handles {
            assert!(handle.rtt().is_none_or(|rtt| rtt <= now - begin), "a round trip longer than the connection");
        }
        if let Some(allowance) = handles[0].allowance() {
            assert!((bounds.min_bps..=bounds.max_bps).contains(&allowance.target_bps), "{allowance:?}");
            assert!(allowance.pacing_bps.is_finite() && allowance.pacing_bps > 0.0, "{allowance:?}");
        }
    }
}
