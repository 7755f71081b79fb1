//! The interceptors of a connection that sends, and of one that receives.

use std::time::Duration;

use rtc::interceptor::{
    CongestionControlBuilder, Gcc, NackResponderBuilder, ReceiverReportBuilder, Registry, SenderReportBuilder, Slot,
    TwccReceiverBuilder,
};

use super::{RTCP_TO_APP_SLOT, RTX_UNWRAP_SLOT, RtcpToApp, RtxUnwrap, STAMP_SLOT, Stamp, StampConfig, WireHandle};

/// Receiver and sender reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Transport-wide feedback.
const TWCC_INTERVAL: Duration = Duration::from_millis(50);
/// Packets kept for repeats: four seconds of a 2.5 Mbit/s stream.
const RESPONDER_PACKETS: u16 = 1024;

/// Bounds of the bandwidth estimate in bit/s.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Where it begins.
    pub start_bps: f64,
    /// Lower bound.
    pub min_bps: f64,
    /// Upper bound.
    pub max_bps: f64,
}

/// For a connection that sends: repeats on request, sender reports, stamps; feedback reaches the application. With
/// `estimate` the stack's own estimator takes part, without its pacer, behind which audio would wait for video.
pub fn sending(handle: &WireHandle, estimate: Option<Estimate>) -> Registry {
    let registry = common(handle)
        .with(Slot::NackResponder, NackResponderBuilder::new().with_size(RESPONDER_PACKETS).build())
        .with(
            Slot::SenderReport,
            SenderReportBuilder::new().with_interval(REPORT_INTERVAL).with_use_latest_packet().build(),
        );
    let stamp = Stamp::new(StampConfig::default(), handle.clone());
    match estimate {
        // The estimator looks for numbers on packets that have passed the stack's own numbering; ours takes that
        // place, because it numbers repeats too.
        Some(estimate) => registry.with(Slot::TwccSender, stamp).with(
            Slot::CongestionControl,
            CongestionControlBuilder::new(Gcc::new(estimate.start_bps, estimate.min_bps, estimate.max_bps)).build(),
        ),
        None => registry.with(Slot::from(STAMP_SLOT), stamp),
    }
}

/// For a connection that receives: RTX unwrapped, transport-wide feedback. Missing packets are asked for by the
/// receiver of each stream ([`crate::rtp::receiver`]), so there is no NACK generator.
pub fn receiving(handle: &WireHandle) -> Registry {
    common(handle)
        .with(Slot::from(STAMP_SLOT), Stamp::new(StampConfig::default(), handle.clone()))
        .with(Slot::from(RTX_UNWRAP_SLOT), RtxUnwrap::new(handle.clone()))
        .with(Slot::TwccReceiver, TwccReceiverBuilder::new().with_interval(TWCC_INTERVAL).build())
}

fn common(handle: &WireHandle) -> Registry {
    Registry::new()
        .with(Slot::ReceiverReport, ReceiverReportBuilder::new().with_interval(REPORT_INTERVAL).build())
        .with(Slot::from(RTCP_TO_APP_SLOT), RtcpToApp::new(handle.clone()))
}
