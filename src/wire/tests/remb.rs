//! What a receiver tells of the path where there is no transport-wide feedback.

use super::*;

/// Packets over a link of this many kbit/s, sent at 1 Mbit/s, as REMB sees them; what it tells at last.
fn told_by_remb(extensions: &[(&str, u16)], kbps: u64) -> Option<f32> {
    let start = Instant::now();
    let handle = WireHandle::new();
    handle.tell_rate();
    let mut remb = Remb::new(handle);
    let feedback = RTCPFeedback { typ: "goog-remb".to_owned(), parameter: String::new() };
    remb.bind_remote_stream(&StreamInfo { rtcp_feedback: vec![feedback], ..stream(extensions) });
    let mut busy = 0;
    let mut told = None;
    for n in 0..600u64 {
        let sent_us = n * 8_000;
        busy = busy.max(sent_us) + 8_000_000 / kbps;
        let mut packet = from_rtp(RtpPacket { payload: Bytes::from(vec![0; 950]), ..media(n as u16) });
        let ticks = ((sent_us << 18) / 1_000_000) as u32;
        packet.header.set_extension(3, Bytes::copy_from_slice(&ticks.to_be_bytes()[1..])).unwrap();
        remb.handle_read(tagged(Packet::Rtp(packet), start + Duration::from_micros(busy))).unwrap();
        while let Some(out) = remb.poll_write() {
            let Packet::Rtcp(compound) = &out.message.packet else { panic!("only REMB leaves") };
            let message = compound[0].as_any().downcast_ref::<ReceiverEstimatedMaximumBitrate>().unwrap();
            assert_eq!(message.ssrcs, [VIDEO]);
            told = Some(message.bitrate);
        }
    }
    assert_eq!(read_all(&mut remb).len(), 600, "everything goes on");
    told
}

#[test]
fn a_receiver_tells_a_sender_without_transport_wide_feedback_what_arrives() {
    let bps = told_by_remb(&[(ABS_SEND_TIME_URI, 3)], 700).expect("a queue grows, and the sender is told");
    assert!((0.4e6..0.75e6).contains(&bps), "{bps}");
    assert_eq!(told_by_remb(&[(ABS_SEND_TIME_URI, 3)], 5_000), None, "there is room");
    assert_eq!(told_by_remb(&[(ABS_SEND_TIME_URI, 3), (TRANSPORT_CC_URI, 5)], 700), None, "the sender measures itself");
}

#[test]
fn an_estimate_about_no_stream_is_about_ours() {
    let mut to_app = RtcpToApp::new(WireHandle::new());
    to_app.bind_local_stream(&stream(&[]));
    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 9, bitrate: 500_000.0, ssrcs: Vec::new() };
    to_app.handle_read(tagged(Packet::Rtcp(vec![Box::new(remb)]), Instant::now())).unwrap();
    let out = read_all(&mut to_app);
    assert_eq!(out.len(), 1);
    assert_eq!(rtcp_of(&out[0]).destination_ssrc(), [VIDEO]);
}
