//! The interceptors of a connection that sends, and of one that receives.

use std::time::{Duration, Instant};

use rtc::interceptor::{ReceiverReportBuilder, Registry, SenderReportBuilder, Slot, TwccReceiverBuilder};

use crate::rtp::congestion::Bounds;

use super::{
    FEEDBACK_SLOT, Quiet, REMB_SLOT, RTCP_TO_APP_SLOT, RTX_UNWRAP_SLOT, Remb, Responder, RtcpToApp, RtxUnwrap,
    STAMP_SLOT, Stamp, StampConfig, WireHandle,
};

/// Receiver and sender reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Transport-wide feedback.
const TWCC_INTERVAL: Duration = Duration::from_millis(50);

/// For a connection that sends: repeats on request, sender reports, stamps; feedback reaches the application. With
/// `bounds` the path's rate is controlled by transport-wide feedback, see [`WireHandle::allowance`].
pub fn sending(handle: &WireHandle, bounds: Option<Bounds>) -> Registry {
    if let Some(bounds) = bounds {
        handle.control(bounds, Instant::now());
    }
    common(handle)
        .with(Slot::NackResponder, Responder::new(handle.clone()))
        .with(
            Slot::SenderReport,
            SenderReportBuilder::new().with_interval(REPORT_INTERVAL).with_use_latest_packet().build(),
        )
        .with(Slot::from(STAMP_SLOT), Stamp::new(StampConfig::default(), handle.clone()))
}

/// For a connection that receives: RTX unwrapped, transport-wide feedback, or REMB where that is not
/// agreed on. Missing packets are asked for by the
/// receiver of each stream ([`crate::rtp::receiver`]), so there is no NACK generator.
pub fn receiving(handle: &WireHandle) -> Registry {
    common(handle)
        .with(Slot::from(STAMP_SLOT), Stamp::new(StampConfig::default(), handle.clone()))
        .with(Slot::from(REMB_SLOT), Remb::new(handle.clone()))
        .with(Slot::from(RTX_UNWRAP_SLOT), RtxUnwrap::new(handle.clone()))
        .with(Slot::from(FEEDBACK_SLOT), Quiet::new(TwccReceiverBuilder::new().with_interval(TWCC_INTERVAL).build()))
}

fn common(handle: &WireHandle) -> Registry {
    Registry::new()
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().with_interval(REPORT_INTERVAL).build())
        .with(Slot::from(RTCP_TO_APP_SLOT), RtcpToApp::new(handle.clone()))
}
