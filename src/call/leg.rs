//! One stream's way over the network: negotiate, watch, rebuild.
//!
//! A leg is a task that owns one transport handle at a time. It offers, forwards candidates both ways, and when the handle
//! says that it will not work any more it builds the next one over `reconnectStream`. What it carries (encoder, decoder,
//! playout) hangs on the engine and survives a rebuild.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, OwnedMutexGuard, mpsc};
use tracing::{debug, warn};

use super::active::Active;
use super::candidates::{add_candidate, forward_candidate};
pub(super) use super::leg_error::LegError;
use super::leg_waits::{Gate, Told, before_rebuild};
pub(super) use super::line::Line;
use super::patience::{Failures, Patience};
use crate::peer::{
    MediaKind, MediaSender, PeerError, PeerEvent, Publication, PublishMedia, Sinks, SubscribeMedia, Subscription,
    TransportConfig,
};
use crate::rtp::frame::VideoCodec;
use crate::signaling::{PublishRequest, Signaling, SignalingError};

/// Candidates that may wait for a leg; a server sends fewer than 30 per stream.
pub(super) const LEG_QUEUE: usize = 128;

/// What the engine tells a leg.
#[derive(Debug)]
pub(super) enum LegInput {
    /// A candidate of the server.
    Candidate {
        /// Line.
        candidate: String,
        /// Media id.
        sdp_mid: Option<String>,
        /// Index of the m-line.
        sdp_mline_index: Option<u16>,
    },
    /// Build a new transport now (after a socket resume, or a stall).
    Rebuild,
    /// The server wants a new transport and offers it.
    ServerOffers(String),
    /// What the publisher announces as active.
    ExpectActive {
        /// Audio.
        audio: bool,
        /// Video.
        video: bool,
    },
    /// The decoder cannot go on without a key frame.
    NeedKeyFrame,
}

/// What a leg tells the engine.
#[derive(Debug)]
pub(super) enum LegReport {
    /// The server gave our publication an id.
    Published {
        /// Stream id.
        stream_id: String,
        /// What the request announced as on: sound, picture.
        active: (bool, bool),
    },
    /// A publishing transport is negotiated: this is where encoded media goes.
    Sender {
        /// Sending end.
        sender: MediaSender,
        /// Negotiated video codec.
        codec: Option<VideoCodec>,
    },
    /// Media flows.
    Connected,
    /// The transport is silent or being rebuilt.
    Interrupted {
        /// Why, in one word.
        why: String,
    },
    /// The other side wants a key frame.
    KeyFrame,
    /// The host wants a key frame of one layer.
    LayerKeyFrame(usize),
    /// What the host wants of each layer at most, in bit/s.
    LayersWanted(Vec<u64>),
    /// What the network carries of the picture, in bit/s.
    Target(u64),
    /// Share of our packets lost on the way, 0.0 to 1.0.
    Loss(MediaKind, f32),
    /// First packet of a kind.
    FirstPacket(MediaKind),
    /// No packet of a kind for so many ms; `None` when they flow again.
    Stalled(MediaKind, Option<u64>),
    /// Sender's clock mapping, for lip sync.
    SenderReport {
        /// Of what.
        kind: MediaKind,
        /// NTP time, 32.32.
        ntp: u64,
        /// RTP timestamp at that time.
        rtp: u32,
    },
    /// The server or the stack refused for good.
    Refused(LegError),
}

impl LegReport {
    /// Whether it may change what the window shows. The others come all the time, also when nothing happens.
    pub(super) fn is_shown(&self) -> bool {
        match self {
            Self::Published { .. }
            | Self::Sender { .. }
            | Self::Connected
            | Self::Interrupted { .. }
            | Self::FirstPacket(_)
            | Self::Stalled(..)
            | Self::Refused(_) => true,
            Self::KeyFrame
            | Self::LayerKeyFrame(_)
            | Self::LayersWanted(_)
            | Self::Target(_)
            | Self::Loss(..)
            | Self::SenderReport { .. } => false,
        }
    }
}

/// Reports of all legs go through one bounded queue, tagged with the leg.
#[derive(Debug, Clone)]
pub(super) struct Reporter {
    pub(super) leg: LegId,
    pub(super) queue: mpsc::Sender<(LegId, LegReport)>,
}

/// Names a leg within one call; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LegId(pub(super) u64);

impl Reporter {
    async fn tell(&self, report: LegReport) {
        // The engine outlives its legs; a closed queue means that the call is over.
        drop(self.queue.send((self.leg, report)).await);
    }
}

/// The publication's parameters that do not change.
#[derive(Debug, Clone)]
pub(super) struct PublishSpec {
    pub(super) transport: TransportConfig,
    pub(super) own_connection_id: String,
    pub(super) media: PublishMedia,
    /// Layers of the picture; 1 where the server takes no more.
    pub(super) layers: usize,
    pub(super) request: PublishRequest,
    pub(super) active: Arc<Active>,
}

/// The subscription's parameters that do not change.
#[derive(Clone)]
pub(super) struct SubscribeSpec {
    pub(super) transport: TransportConfig,
    pub(super) connection_id: String,
    pub(super) stream_id: String,
    pub(super) media: SubscribeMedia,
    pub(super) sinks: Sinks,
    /// Its picture may stand still: a screen.
    pub(super) may_rest: bool,
    pub(super) server_offers: bool,
    pub(super) turn: Turn,
    pub(super) gate: Gate,
}

/// One leg at a time asks the server about a stream: whoever holds it. Inside stands whether the server may believe that we
/// are subscribed, so that the next one unsubscribes first.
pub(super) type Turn = Arc<Mutex<bool>>;

/// Runs a publication until the input closes.
pub(super) async fn publish(
    spec: PublishSpec,
    signaling: Arc<dyn Signaling>,
    mut input: mpsc::Receiver<LegInput>,
    reporter: Reporter,
    line: Line<Publication>,
) {
    let mut stream_id: Option<String> = None;
    let mut failures = Failures::default();
    // Closed: nobody wants it any more, or the server has ended it itself.
    while !input.is_closed() {
        let outcome =
            publish_once(&spec, &signaling, &mut input, &reporter, &line, &mut stream_id, &mut failures).await;
        if let Some(old) = line.retire() {
            old.close().await;
        }
        match outcome {
            Outcome::Over => return,
            Outcome::Refused(error) => {
                reporter.tell(LegReport::Refused(error)).await;
                return;
            }
            // Nobody offers a publication to us.
            Outcome::Answer(_) => {}
            Outcome::Rebuild(why) => {
                reporter.tell(LegReport::Interrupted { why }).await;
                if !before_rebuild(&mut failures, &signaling, &mut input, &mut Told::default()).await {
                    return;
                }
            }
        }
    }
}

enum Outcome {
    Over,
    Refused(LegError),
    Rebuild(String),
    /// A new transport by this offer of the server's.
    Answer(String),
}

/// What a request that went wrong leads to.
fn after(failures: &mut Failures, error: SignalingError) -> Outcome {
    match failures.again_after(&error) {
        Some(why) => Outcome::Rebuild(why.to_owned()),
        None => Outcome::Refused(error.into()),
    }
}

/// What something that went wrong on this computer leads to: most of it passes, as a network without an address does.
fn after_local(failures: &mut Failures, error: PeerError) -> Outcome {
    if failures.again_after_local(&error) {
        warn!(%error, "no media transport for now");
        return Outcome::Rebuild("local_error".to_owned());
    }
    Outcome::Refused(error.into())
}

async fn publish_once(
    spec: &PublishSpec,
    signaling: &Arc<dyn Signaling>,
    input: &mut mpsc::Receiver<LegInput>,
    reporter: &Reporter,
    line: &Line<Publication>,
    stream_id: &mut Option<String>,
    failures: &mut Failures,
) -> Outcome {
    if std::mem::take(&mut failures.doubtful) && stream_id.is_none() {
        // Refused when there is nothing to end, which is as good.
        drop(signaling.unpublish().await);
    }
    let (publication, mut events) = match Publication::layered(&spec.transport, spec.media.clone(), spec.layers).await {
        Ok(made) => made,
        Err(e) => return after_local(failures, e),
    };
    let publication = Arc::new(publication);
    line.set(Arc::clone(&publication));
    let offer = match publication.offer().await {
        Ok(offer) => offer,
        Err(e) => return after_local(failures, e),
    };
    if input.is_closed() {
        // The end of the stream is asked for already: nothing may follow it.
        return Outcome::Over;
    }
    let server = Arc::clone(signaling);
    let (known_id, active) = (stream_id.clone(), spec.active.get());
    let request = PublishRequest {
        sdp_offer: offer.clone(),
        audio_active: active.0,
        video_active: active.1,
        ..spec.request.clone()
    };
    let ask = async move {
        match known_id {
            None => server.publish(request).await.map(|p| (p.stream_id, p.sdp_answer)),
            Some(id) => server.reconnect_publication(&offer).await.map(|answer| (id, answer)),
        }
    };
    tokio::pin!(ask);
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut ask => break answer,
            Some(event) = events.recv() => forward_candidate(&**signaling, &spec.own_connection_id, event).await,
            told = input.recv() => match told {
                None => return Outcome::Over,
                Some(told) => add_candidate(&*publication, told).await,
            },
        }
    };
    let sdp_answer = match answer {
        Ok((id, sdp)) => {
            if stream_id.is_none() {
                reporter.tell(LegReport::Published { stream_id: id.clone(), active }).await;
            }
            *stream_id = Some(id);
            sdp
        }
        // Not there any more, and nobody said that it was ended on purpose: publish anew.
        Err(SignalingError::Gone { .. }) if stream_id.take().is_some() => {
            return Outcome::Rebuild("stream_gone".to_owned());
        }
        // There is nothing yet that could be gone: a server that is putting its streams in order says so.
        Err(e @ SignalingError::Gone { .. }) => {
            return match failures.refused() {
                Some(why) => Outcome::Rebuild(why.to_owned()),
                None => Outcome::Refused(e.into()),
            };
        }
        Err(e) => return after(failures, e),
    };
    if let Err(e) = publication.set_answer(&sdp_answer).await {
        return after_local(failures, e);
    }
    reporter.tell(LegReport::Sender { sender: publication.sender(), codec: publication.video_codec() }).await;
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return Outcome::Rebuild("closed".to_owned()) };
                if let PeerEvent::Connected = event {
                    failures.connected();
                }
                if let Some(outcome) = pass_on(event, &**signaling, &spec.own_connection_id, reporter).await {
                    return outcome;
                }
            }
            told = input.recv() => match told {
                None => return Outcome::Over,
                Some(LegInput::Rebuild) => return Outcome::Rebuild("asked".to_owned()),
                Some(told) => add_candidate(&*publication, told).await,
            },
        }
    }
}

/// Runs a subscription until the input closes.
pub(super) async fn subscribe(
    spec: SubscribeSpec,
    signaling: Arc<dyn Signaling>,
    mut input: mpsc::Receiver<LegInput>,
    reporter: Reporter,
    line: Line<Subscription>,
) {
    let mut state = Watching {
        subscribed: false,
        failures: Failures::default(),
        patience: Patience::default(),
        told: Told::default(),
    };
    let Some(mut at_server) = my_turn(&spec, &signaling, &mut input, &mut state).await else { return };
    // From here on an offer may be on its way: whoever comes next has to take it back.
    *at_server = true;
    while !input.is_closed() {
        let outcome = subscribe_once(&spec, &signaling, &mut input, &reporter, &line, &mut state).await;
        if let Some(old) = line.retire() {
            old.close().await;
        }
        match outcome {
            Outcome::Over => return,
            Outcome::Refused(error) => {
                reporter.tell(LegReport::Refused(error)).await;
                return;
            }
            Outcome::Answer(offer) => {
                reporter.tell(LegReport::Interrupted { why: "server_offers".to_owned() }).await;
                state.told.offered = Some(offer);
            }
            Outcome::Rebuild(why) => {
                reporter.tell(LegReport::Interrupted { why }).await;
                if !before_rebuild(&mut state.failures, &signaling, &mut input, &mut state.told).await {
                    return;
                }
            }
        }
    }
}

/// What a subscribing leg keeps from one transport to the next.
struct Watching {
    subscribed: bool,
    failures: Failures,
    patience: Patience,
    told: Told,
}

/// Waits until the leg before this one has ended, and takes back what it had asked for; `None` when closed meanwhile.
async fn my_turn(
    spec: &SubscribeSpec,
    signaling: &Arc<dyn Signaling>,
    input: &mut mpsc::Receiver<LegInput>,
    state: &mut Watching,
) -> Option<OwnedMutexGuard<bool>> {
    let begin = begin_turn(Arc::clone(&spec.turn), Arc::clone(signaling), spec.stream_id.clone());
    tokio::pin!(begin);
    loop {
        tokio::select! {
            turn = &mut begin => return Some(turn),
            // Anything else belongs to the transport that is about to end.
            told = input.recv() => if let LegInput::ExpectActive { audio, video } = told? {
                state.told.active = (audio, video);
            },
        }
    }
}

async fn begin_turn(turn: Turn, signaling: Arc<dyn Signaling>, stream_id: String) -> OwnedMutexGuard<bool> {
    let mut at_server = turn.lock_owned().await;
    if *at_server {
        // A refusal says that the server knew nothing of it: that is what was wanted.
        if let Err(error) = signaling.unsubscribe(&stream_id).await {
            debug!(%error, "nothing to unsubscribe");
        }
        *at_server = false;
    }
    at_server
}

/// Ends a subscription at the server, behind everything that was asked about the stream before.
pub(super) async fn unsubscribe(turn: Turn, signaling: Arc<dyn Signaling>, stream_id: String) {
    drop(begin_turn(turn, signaling, stream_id).await);
}

/// Waits for a request; our candidates follow it on the way to the server, those of the server are taken in.
///
/// A candidate must not overtake the request that makes its end point: the server would give it to the old one.
async fn ask<T>(
    request: impl Future<Output = Result<T, SignalingError>>,
    subscription: &Subscription,
    (events, input): (&mut mpsc::Receiver<PeerEvent>, &mut mpsc::Receiver<LegInput>),
    (signaling, endpoint): (&dyn Signaling, &str),
    state: &mut Watching,
) -> Result<T, Outcome> {
    tokio::pin!(request);
    loop {
        tokio::select! {
            biased;
            answer = &mut request => return answer.map_err(|error| after(&mut state.failures, error)),
            Some(event) = events.recv() => forward_candidate(signaling, endpoint, event).await,
            told = input.recv() => match told {
                None => return Err(Outcome::Over),
                Some(LegInput::ServerOffers(offer)) => return Err(Outcome::Answer(offer)),
                Some(LegInput::ExpectActive { audio, video }) => state.told.active = (audio, video),
                Some(told) => add_candidate(subscription, told).await,
            },
        }
    }
}

/// Agrees with the server on a transport.
async fn negotiate(
    spec: &SubscribeSpec,
    server: &dyn Signaling,
    subscription: &Subscription,
    (events, input): (&mut mpsc::Receiver<PeerEvent>, &mut mpsc::Receiver<LegInput>),
    state: &mut Watching,
) -> Result<(), Outcome> {
    let (stream_id, way, again) = (spec.stream_id.as_str(), (server, spec.connection_id.as_str()), state.subscribed);
    if let Some(offer) = state.told.offered.take() {
        let answer = subscription.answer(&offer).await.map_err(|e| after_local(&mut state.failures, e))?;
        let request = server.reconnect_subscription_answer(stream_id, &answer, true);
        ask(request, subscription, (events, input), way, state).await?;
    } else if spec.server_offers {
        let request = server.prepare_subscribe(stream_id, again);
        let offer = ask(request, subscription, (&mut *events, &mut *input), way, state).await?;
        // From here on the server has it, whatever becomes of the answer.
        state.subscribed = true;
        let answer = subscription.answer(&offer).await.map_err(|e| after_local(&mut state.failures, e))?;
        let request = async {
            match again {
                true => server.reconnect_subscription_answer(stream_id, &answer, false).await,
                false => server.answer_subscribe(stream_id, &answer).await,
            }
        };
        ask(request, subscription, (events, input), way, state).await?;
    } else {
        let offer = subscription.offer().await.map_err(|e| after_local(&mut state.failures, e))?;
        let request = async {
            match again {
                true => server.reconnect_subscription(stream_id, &offer).await,
                false => server.subscribe(stream_id, &offer).await,
            }
        };
        let answer = ask(request, subscription, (events, input), way, state).await?;
        state.subscribed = true;
        subscription.set_answer(&answer).await.map_err(|e| after_local(&mut state.failures, e))?;
    }
    state.subscribed = true;
    Ok(())
}

async fn subscribe_once(
    spec: &SubscribeSpec,
    signaling: &Arc<dyn Signaling>,
    input: &mut mpsc::Receiver<LegInput>,
    reporter: &Reporter,
    line: &Line<Subscription>,
    state: &mut Watching,
) -> Outcome {
    let server = &**signaling;
    let Some(permit) = spec.gate.enter(input, &mut state.told).await else { return Outcome::Over };
    if std::mem::take(&mut state.failures.doubtful) {
        // The server refuses a second subscription, and takes the end of one that is not there.
        state.subscribed = false;
        drop(server.unsubscribe(&spec.stream_id).await);
    }
    let (subscription, mut events) = match Subscription::new(&spec.transport, spec.media, spec.sinks.clone()).await {
        Ok(made) => made,
        Err(e) => return after_local(&mut state.failures, e),
    };
    let subscription = Arc::new(subscription);
    line.set(Arc::clone(&subscription));
    subscription.set_may_rest(spec.may_rest);
    subscription.set_expected_active(state.told.active.0, state.told.active.1);
    if let Err(outcome) = negotiate(spec, server, &subscription, (&mut events, input), state).await {
        return outcome;
    }
    drop(permit);
    subscription.set_expected_active(state.told.active.0, state.told.active.1);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { return Outcome::Rebuild("closed".to_owned()) };
                match &event {
                    PeerEvent::Connected => state.failures.connected(),
                    PeerEvent::FirstKeyFrame => state.patience.key_frame(),
                    PeerEvent::FirstPacket { kind } | PeerEvent::Resumed { kind } => state.patience.packets(*kind),
                    PeerEvent::NoKeyFrame if state.patience.without_key_frame(Instant::now()) => {
                        return Outcome::Rebuild("no_key_frame".to_owned());
                    }
                    PeerEvent::Stalled { kind, ms } if state.patience.without_packets(*kind, Instant::now()) => {
                        reporter.tell(LegReport::Stalled(*kind, Some(*ms))).await;
                        return Outcome::Rebuild("stalled".to_owned());
                    }
                    _ => {}
                }
                if let Some(outcome) = pass_on(event, server, &spec.connection_id, reporter).await {
                    return outcome;
                }
            }
            told = input.recv() => match told {
                None => return Outcome::Over,
                Some(LegInput::Rebuild) => return Outcome::Rebuild("asked".to_owned()),
                Some(LegInput::ServerOffers(offer)) => return Outcome::Answer(offer),
                // A tile that is shown again, mostly: where asking does nothing, there is no use in waiting either.
                Some(LegInput::NeedKeyFrame) => {
                    if !subscription.request_key_frame() && state.patience.without_key_frame(Instant::now()) {
                        return Outcome::Rebuild("no_key_frame".to_owned());
                    }
                }
                Some(LegInput::ExpectActive { audio, video }) => {
                    state.told.active = (audio, video);
                    subscription.set_expected_active(audio, video);
                }
                Some(told) => add_candidate(&*subscription, told).await,
            },
        }
    }
}

async fn pass_on(event: PeerEvent, signaling: &dyn Signaling, endpoint: &str, reporter: &Reporter) -> Option<Outcome> {
    let report = match event {
        PeerEvent::LocalCandidate { .. } => {
            forward_candidate(signaling, endpoint, event).await;
            return None;
        }
        PeerEvent::NeedsRebuild { why } => {
            warn!(%why, "media transport will be rebuilt");
            return Some(Outcome::Rebuild(why.to_string()));
        }
        PeerEvent::Connected => LegReport::Connected,
        PeerEvent::Disconnected => LegReport::Interrupted { why: "disconnected".to_owned() },
        PeerEvent::KeyFrameRequested => LegReport::KeyFrame,
        PeerEvent::LayerKeyFrameRequested { layer } => LegReport::LayerKeyFrame(layer),
        PeerEvent::LayersWanted { bps } => LegReport::LayersWanted(bps),
        PeerEvent::TargetBitrate { bps } => LegReport::Target(bps),
        PeerEvent::LossReport { kind, fraction } => LegReport::Loss(kind, fraction),
        PeerEvent::Rtt { .. } | PeerEvent::NoKeyFrame | PeerEvent::FirstKeyFrame => return None,
        PeerEvent::FirstPacket { kind } => LegReport::FirstPacket(kind),
        PeerEvent::Stalled { kind, ms } => LegReport::Stalled(kind, Some(ms)),
        PeerEvent::Resumed { kind } => LegReport::Stalled(kind, None),
        PeerEvent::SenderReport { kind, ntp, rtp, .. } => LegReport::SenderReport { kind, ntp, rtp },
    };
    reporter.tell(report).await;
    None
}

#[cfg(test)]
#[path = "leg_tests.rs"]
mod tests;
