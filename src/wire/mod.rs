//! The adapter that a WebRTC connection plugs into `rtc`: RTX unwrapping, RTCP for the application, numbering and
//! send times, clocks of senders, round-trip time; and a simulated network for tests and `--simulate-network`.
//!
//! Interceptors are moved into the connection, so what they learn is shared through a [`WireHandle`]. Its lock is held
//! for a few assignments at a time, never across a call out.

pub mod netsim;
mod packet;
mod quiet;
mod registry;
mod remb;
mod responder;
mod rtcp_to_app;
mod rtx_unwrap;
mod shared;
mod stamp;

pub use packet::{from_rtp, to_rtp};
pub use quiet::Quiet;
pub use registry::{receiving, sending};
pub use remb::Remb;
pub use responder::Responder;
pub use rtcp_to_app::RtcpToApp;
pub use rtx_unwrap::RtxUnwrap;
pub use shared::{Allowance, Report, SenderClock, WireHandle, WireStats};
pub use stamp::{Stamp, StampConfig};

/// Distance from the wire of transport-wide feedback: before [`RtxUnwrap`], which drops the repeats that a sender measures
/// the path with. They would be taken for lost.
pub const FEEDBACK_SLOT: usize = 6_400;
/// Distance from the wire of [`RtxUnwrap`]: before anything that reads sequence numbers.
pub const RTX_UNWRAP_SLOT: usize = 6_500;
/// Distance from the wire of [`RtcpToApp`]: after everything that consumes RTCP.
pub const RTCP_TO_APP_SLOT: usize = 14_000;
/// Distance from the wire of [`Remb`]: it counts repeats as what they are.
pub const REMB_SLOT: usize = 600;
/// Distance from the wire of [`Stamp`]: what it stamps is what leaves.
pub const STAMP_SLOT: usize = 500;

/// Transport-wide sequence number.
pub const TRANSPORT_CC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Departure time, 24 bit of seconds at 2⁻¹⁸.
pub const ABS_SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// Media identification (RFC 9143 §15).
pub const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// RTP stream id (RFC 8852).
pub const RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Repaired RTP stream id (RFC 8852).
pub const RRID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Audio level (RFC 6464).
pub const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// The parts of the sans-IO protocol that every interceptor here does the same way: two queues, no events.
macro_rules! queues {
    () => {
        fn poll_read(&mut self) -> Option<rtc::interceptor::TaggedPacket> {
            self.read.pop_front()
        }

        fn poll_write(&mut self) -> Option<rtc::interceptor::TaggedPacket> {
            self.write.pop_front()
        }
    };
}
pub(crate) use queues;

#[cfg(test)]
mod tests;
