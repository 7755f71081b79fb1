//! Selective forwarding: every publication's RTP to every subscriber over one UDP port.
//!
//! [`start`] opens the socket and its own thread; [`Sfu`] is the cheap handle the rest of the host
//! keeps. The thread owns every leg (one per negotiated stream direction, as OpenVidu 2 has one
//! PeerConnection per stream): an ICE agent, a DTLS association and two SRTP contexts of the sans-IO
//! `rtc` crates. Packets are taken from the socket in batches, decrypted once, and encrypted once per
//! subscriber; nothing is decoded. Every queue is bounded; what happens when one is full is written
//! where it is declared.

mod allocate;
mod answer;
pub mod bench;
mod cache;
mod demux;
mod egress;
mod error;
#[cfg(test)]
mod hostile;
mod inbound;
mod layer;
#[cfg(test)]
mod lossy;
mod outbound;
mod packet;
mod publication;
mod receiver;
mod rtcp;
mod sequence;
mod simulated;
mod stats;
mod switch;
mod transport;
mod twcc;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::rtp::frame::VideoCodec;

pub use error::SfuError;
pub use stats::{LegStats, SfuStats, StreamStats};

/// How long a command may take until its caller is told [`SfuError::TimedOut`].
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
/// Commands waiting for the media thread; a full queue makes callers wait, up to [`COMMAND_TIMEOUT`].
const COMMAND_QUEUE: usize = 256;
/// Events waiting for the host; when it is full the oldest state is dropped with a count, never blocking media.
const EVENT_QUEUE: usize = 1024;

/// One transport of the forwarder, named by its caller; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LegId(pub u64);

/// What the forwarder needs to start.
#[derive(Debug, Clone)]
pub struct SfuConfig {
    /// Address of the one media socket; port 0 lets the system choose.
    pub udp: SocketAddr,
    /// Addresses written as host candidates into every SDP. Empty: the bound address, or for a
    /// wildcard every usable interface (loopback only if there is no other).
    pub advertised: Vec<IpAddr>,
    /// Artificial loss for tests; `None` in production.
    pub impairment: Option<Impairment>,
    /// A simulated path in front of the socket (`--simulate-network`).
    pub network: Option<crate::wire::netsim::Impairments>,
    /// Upper bounds against a hostile or runaway host.
    pub limits: SfuLimits,
    /// Offer only AES128_CM_HMAC_SHA1_80 (what browsers use) instead of preferring AES-GCM.
    pub aes_cm_only: bool,
}

impl SfuConfig {
    /// Defaults for one socket address.
    pub fn new(udp: SocketAddr) -> Self {
        Self {
            udp,
            advertised: Vec::new(),
            impairment: None,
            network: None,
            limits: SfuLimits::default(),
            aes_cm_only: false,
        }
    }
}

/// Random loss at the media socket, each direction on its own.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Impairment {
    /// Probability, 0 to 1, that a datagram from a client is lost.
    pub loss_in: f64,
    /// Probability, 0 to 1, that a datagram to a client is lost.
    pub loss_out: f64,
    /// Seed of the losses, so that a failing run can be repeated.
    pub seed: u64,
}

/// Upper bounds; beyond them commands fail with [`SfuError::Limit`].
#[derive(Debug, Clone, Copy)]
pub struct SfuLimits {
    /// Legs in all.
    pub legs: usize,
    /// Publications in all.
    pub streams: usize,
    /// Subscribers of one publication.
    pub subscribers_per_stream: usize,
    /// Remote candidates of one leg; more are ignored.
    pub candidates_per_leg: usize,
    /// Bytes of an SDP.
    pub sdp_bytes: usize,
}

impl Default for SfuLimits {
    fn default() -> Self {
        Self { legs: 2_000, streams: 500, subscribers_per_stream: 1_000, candidates_per_leg: 24, sdp_bytes: 64 * 1024 }
    }
}

/// What is to be published on a leg.
#[derive(Debug, Clone)]
pub struct PublishSpec {
    /// Name of the publication; subscribers give it.
    pub stream_id: String,
    /// Session it belongs to (statistics only).
    pub session: String,
    /// The publication has audio.
    pub audio: bool,
    /// The publication has video.
    pub video: bool,
    /// Answer `sendrecv` and send the publication back on the same leg (`doLoopback`).
    pub loopback: bool,
    /// The session's forced video codec; `None`: the offer's order decides.
    pub forced_video: Option<VideoCodec>,
    /// Width and height of the picture, where the publisher tells them.
    pub size: Option<(u32, u32)>,
}

/// An ICE candidate as it is trickled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCandidate {
    /// `candidate:…` line without `a=`.
    pub candidate: String,
    /// Media identification of the m-line.
    pub sdp_mid: String,
    /// Index of the m-line.
    pub sdp_mline_index: u16,
}

/// The forwarder's half of a negotiation.
#[derive(Debug, Clone)]
pub struct Negotiated {
    /// Answer or offer, complete with candidates.
    pub sdp: String,
    /// The same candidates one by one, for a caller that also trickles them.
    pub candidates: Vec<LocalCandidate>,
    /// Opus was negotiated.
    pub audio: bool,
    /// Negotiated video codec.
    pub video: Option<VideoCodec>,
}

/// What happens to legs without being asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SfuEvent {
    /// ICE and DTLS are up; media flows.
    LegConnected {
        /// Which leg.
        leg: LegId,
        /// Time from the negotiation to this, in milliseconds.
        after_ms: u64,
    },
    /// Never came up, or was given up after an interruption; the leg is gone.
    LegFailed {
        /// Which leg.
        leg: LegId,
        /// Why, in words for a log.
        reason: String,
    },
    /// Nothing heard for 5 s; the leg is kept and may come back.
    LegDisconnected {
        /// Which leg.
        leg: LegId,
    },
    /// Heard again after [`SfuEvent::LegDisconnected`].
    LegReconnected {
        /// Which leg.
        leg: LegId,
    },
    /// The other end closed its DTLS association; the leg is gone.
    LegClosed {
        /// Which leg.
        leg: LegId,
    },
    /// The first media packet of a publication arrived (again after each reconnection).
    StreamStarted {
        /// Which publication.
        stream_id: String,
        /// Its publisher's leg.
        leg: LegId,
    },
}

/// A request to the media thread; each carries the way back for its answer.
pub(crate) enum Command {
    Publish {
        leg: LegId,
        spec: PublishSpec,
        offer: String,
        reply: oneshot::Sender<Result<Negotiated, SfuError>>,
    },
    ReconnectPublisher {
        leg: LegId,
        stream_id: String,
        offer: String,
        reply: oneshot::Sender<Result<Negotiated, SfuError>>,
    },
    Subscribe {
        leg: LegId,
        stream_id: String,
        receiver: Option<String>,
        offer: String,
        reply: oneshot::Sender<Result<Negotiated, SfuError>>,
    },
    PrepareSubscribe {
        leg: LegId,
        stream_id: String,
        receiver: Option<String>,
        reply: oneshot::Sender<Result<Negotiated, SfuError>>,
    },
    SetAnswer {
        leg: LegId,
        answer: String,
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
    AddCandidate {
        leg: LegId,
        candidate: String,
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
    Close {
        leg: LegId,
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
    Draw {
        leg: LegId,
        size: (u32, u32),
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
    SetImpairment {
        leg: Option<LegId>,
        impairment: Option<Impairment>,
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
    Stats {
        reply: oneshot::Sender<Result<SfuStats, SfuError>>,
    },
    Shutdown {
        reply: oneshot::Sender<Result<(), SfuError>>,
    },
}

#[derive(Debug)]
struct Shared {
    commands: mpsc::Sender<Command>,
    udp_addr: SocketAddr,
    fingerprint: String,
    candidates: Vec<SocketAddr>,
}

/// Handle of the media thread; clones share it. The thread ends with [`Sfu::shutdown`] or with the last clone.
#[derive(Debug, Clone)]
pub struct Sfu {
    shared: Arc<Shared>,
}

/// Opens the media socket and starts the media thread.
///
/// # Errors
/// [`SfuError::Socket`] if the socket cannot be opened, [`SfuError::Crypto`] if no certificate can be made.
pub fn start(config: SfuConfig) -> Result<(Sfu, mpsc::Receiver<SfuEvent>), SfuError> {
    let (command_tx, command_rx) = mpsc::channel(COMMAND_QUEUE);
    let (event_tx, event_rx) = mpsc::channel(EVENT_QUEUE);
    let started = worker::spawn(config, command_rx, event_tx)?;
    let shared = Shared {
        commands: command_tx,
        udp_addr: started.udp_addr,
        fingerprint: started.fingerprint,
        candidates: started.candidates,
    };
    Ok((Sfu { shared: Arc::new(shared) }, event_rx))
}

impl Sfu {
    /// Address the media socket is bound to.
    pub fn udp_addr(&self) -> SocketAddr {
        self.shared.udp_addr
    }

    /// SHA-256 fingerprint of the DTLS certificate, as in `a=fingerprint`.
    pub fn fingerprint(&self) -> &str {
        &self.shared.fingerprint
    }

    /// The advertised host candidates.
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.shared.candidates
    }

    async fn request<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, SfuError>>) -> Command,
    ) -> Result<T, SfuError> {
        let (reply, answer) = oneshot::channel();
        let work = async {
            self.shared.commands.send(make(reply)).await.map_err(|_| SfuError::Closed)?;
            answer.await.map_err(|_| SfuError::Closed)?
        };
        tokio::time::timeout(COMMAND_TIMEOUT, work).await.map_err(|_| SfuError::TimedOut)?
    }

    /// Accepts a publisher's offer.
    ///
    /// # Errors
    /// Bad SDP, no common codec, a leg or stream id already in use, a limit.
    pub async fn publish(&self, leg: LegId, spec: PublishSpec, offer: &str) -> Result<Negotiated, SfuError> {
        let offer = offer.to_owned();
        self.request(|reply| Command::Publish { leg, spec, offer, reply }).await
    }

    /// Replaces a publisher's transport: same stream id, its subscribers stay and go on without a seam.
    ///
    /// # Errors
    /// As [`Sfu::publish`], and [`SfuError::UnknownStream`].
    pub async fn reconnect_publisher(&self, leg: LegId, stream_id: &str, offer: &str) -> Result<Negotiated, SfuError> {
        let (stream_id, offer) = (stream_id.to_owned(), offer.to_owned());
        self.request(|reply| Command::ReconnectPublisher { leg, stream_id, offer, reply }).await
    }

    /// Accepts a subscriber's offer.
    ///
    /// # Errors
    /// Bad SDP, [`SfuError::UnknownStream`], the publisher's codec missing in the offer, a limit.
    pub async fn subscribe(&self, leg: LegId, stream_id: &str, offer: &str) -> Result<Negotiated, SfuError> {
        self.subscribe_as(leg, stream_id, None, offer).await
    }

    /// As [`Sfu::subscribe`], for somebody who has other legs too: what `receiver` can take is estimated and divided over
    /// all of them.
    ///
    /// # Errors
    /// As [`Sfu::subscribe`].
    pub async fn subscribe_as(
        &self,
        leg: LegId,
        stream_id: &str,
        receiver: Option<&str>,
        offer: &str,
    ) -> Result<Negotiated, SfuError> {
        let (stream_id, offer, receiver) = (stream_id.to_owned(), offer.to_owned(), receiver.map(str::to_owned));
        self.request(|reply| Command::Subscribe { leg, stream_id, receiver, offer, reply }).await
    }

    /// Makes an offer to a subscriber; [`Sfu::set_answer`] completes it.
    ///
    /// # Errors
    /// [`SfuError::UnknownStream`], a limit.
    pub async fn prepare_subscribe(&self, leg: LegId, stream_id: &str) -> Result<Negotiated, SfuError> {
        self.prepare_subscribe_as(leg, stream_id, None).await
    }

    /// As [`Sfu::prepare_subscribe`], for somebody who has other legs too.
    ///
    /// # Errors
    /// As [`Sfu::prepare_subscribe`].
    pub async fn prepare_subscribe_as(
        &self,
        leg: LegId,
        stream_id: &str,
        receiver: Option<&str>,
    ) -> Result<Negotiated, SfuError> {
        let (stream_id, receiver) = (stream_id.to_owned(), receiver.map(str::to_owned));
        self.request(|reply| Command::PrepareSubscribe { leg, stream_id, receiver, reply }).await
    }

    /// How large a subscriber draws the picture, in pixels: it gets a layer that fills this. Zero for a hidden one, which
    /// gets no pictures until it is drawn again.
    ///
    /// # Errors
    /// [`SfuError::UnknownLeg`].
    pub async fn draw(&self, leg: LegId, size: (u32, u32)) -> Result<(), SfuError> {
        self.request(|reply| Command::Draw { leg, size, reply }).await
    }

    /// The subscriber's answer to [`Sfu::prepare_subscribe`].
    ///
    /// # Errors
    /// Bad SDP, [`SfuError::UnknownLeg`], an answer that was not asked for.
    pub async fn set_answer(&self, leg: LegId, answer: &str) -> Result<(), SfuError> {
        let answer = answer.to_owned();
        self.request(|reply| Command::SetAnswer { leg, answer, reply }).await
    }

    /// A candidate the client trickled, with or without `candidate:`. Empty strings, TCP, mDNS and
    /// component 2 are ignored.
    ///
    /// # Errors
    /// [`SfuError::UnknownLeg`], [`SfuError::InvalidCandidate`].
    pub async fn add_candidate(&self, leg: LegId, candidate: &str) -> Result<(), SfuError> {
        let candidate = candidate.to_owned();
        self.request(|reply| Command::AddCandidate { leg, candidate, reply }).await
    }

    /// Closes a leg. Closing a publisher ends its publication, also when its transport had failed by itself before;
    /// subscribers' legs stay until closed.
    ///
    /// # Errors
    /// [`SfuError::UnknownLeg`].
    pub async fn close(&self, leg: LegId) -> Result<(), SfuError> {
        self.request(|reply| Command::Close { leg, reply }).await
    }

    /// Sets artificial loss for one leg, or for all (`None`); for tests and `bench`.
    ///
    /// # Errors
    /// [`SfuError::UnknownLeg`].
    pub async fn set_impairment(&self, leg: Option<LegId>, impairment: Option<Impairment>) -> Result<(), SfuError> {
        self.request(|reply| Command::SetImpairment { leg, impairment, reply }).await
    }

    /// Counters of everything.
    ///
    /// # Errors
    /// [`SfuError::Closed`], [`SfuError::TimedOut`].
    pub async fn stats(&self) -> Result<SfuStats, SfuError> {
        self.request(|reply| Command::Stats { reply }).await
    }

    /// Closes every leg and ends the thread.
    ///
    /// # Errors
    /// [`SfuError::Closed`] if it had ended before.
    pub async fn shutdown(&self) -> Result<(), SfuError> {
        self.request(|reply| Command::Shutdown { reply }).await
    }
}
