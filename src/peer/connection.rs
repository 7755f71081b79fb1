//! The peer connection under a handle: building it, candidates, watchdogs, closing.

use super::config::TransportConfig;
use super::error::PeerError;
use super::event::{PeerEvent, RebuildReason};
use super::ice;
use super::net::{self, PeerRuntime, RttProbe};
use super::stats::{ConnectionState, TransportStats};
use crate::rtp::sdp;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCIceConnectionState, RTCIceTransportPolicy, RTCPeerConnectionIceEvent,
    RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
};

/// Capacity of a handle's event channel.
pub(super) const EVENT_CAPACITY: usize = 512;
/// ICE connected, DTLS not done: a lost flight can hang the stack for good, a wrong fingerprint always does.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// Both descriptions set, not connected.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Disconnected and not back (openvidu-browser waits as long).
const DISCONNECTED_LIMIT: Duration = Duration::from_secs(4);
/// Interval of ICE checks, and how many unanswered ones a pair survives: 5 s of silence while signaling is slow.
const ICE_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const ICE_CHECKS: u16 = 250;
const ICE_DISCONNECTED: Duration = Duration::from_secs(3);
const ICE_FAILED: Duration = Duration::from_secs(15);
/// Short, so that a server notices a moved address soon.
const ICE_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Packets behind the newest one that are still taken. Kurento repeats under the old number: with the stack's own 64, whatever was lost longer
/// ago than half a second is asked for, repeated, and thrown away.
const REPLAY_WINDOW: usize = 2_048;
/// How often the watchdogs look.
pub(super) const TICK: Duration = Duration::from_millis(250);
const CLOSE_LIMIT: Duration = Duration::from_millis(200);
/// Any single call into the stack.
const STACK_LIMIT: Duration = Duration::from_secs(5);
/// Candidates that arrived before their description; more than any server sends.
const QUEUED_CANDIDATES: usize = 128;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves plain figures behind: go on with them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What handler, watchdog and handle share.
#[derive(Debug)]
pub(super) struct Shared {
    events: mpsc::Sender<PeerEvent>,
    progress: Mutex<Progress>,
    connected: AtomicBool,
    /// The m-line that our candidates are reported for: the first one that is not refused (all are bundled).
    first_line: OnceLock<(String, u16)>,
}

/// Where the connection stands, and since when.
#[derive(Debug, Clone, Default)]
struct Progress {
    state: ConnectionState,
    negotiated_at: Option<Instant>,
    ice_connected_at: Option<Instant>,
    disconnected_at: Option<Instant>,
    failed: bool,
    connect_ms: Option<u64>,
    rebuild_sent: bool,
    candidate: Option<String>,
}

impl Progress {
    /// Why this connection has to be given up now, if so.
    fn overdue(&self, now: Instant) -> Option<RebuildReason> {
        if self.rebuild_sent || self.state == ConnectionState::Closed {
            return None;
        }
        if self.failed {
            return Some(RebuildReason::Failed);
        }
        let past =
            |since: Option<Instant>, limit| since.is_some_and(|since| now.saturating_duration_since(since) >= limit);
        match self.state {
            ConnectionState::Connecting if past(self.ice_connected_at, HANDSHAKE_LIMIT) => {
                Some(RebuildReason::HandshakeStuck)
            }
            ConnectionState::Connecting if past(self.negotiated_at, CONNECT_LIMIT) => {
                Some(RebuildReason::ConnectTimeout)
            }
            ConnectionState::Disconnected if past(self.disconnected_at, DISCONNECTED_LIMIT) => {
                Some(RebuildReason::Disconnected)
            }
            _ => None,
        }
    }
}

impl Shared {
    pub(super) fn new(events: mpsc::Sender<PeerEvent>) -> Self {
        Self { events, progress: Mutex::default(), connected: AtomicBool::new(false), first_line: OnceLock::new() }
    }

    /// Sends an event, or drops it as [`PeerEvent`] documents. Never waits: this runs on the stack's own task.
    pub(super) fn emit(&self, event: PeerEvent) {
        if event.is_figure() && self.events.capacity() < EVENT_CAPACITY / 2 {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            tracing::warn!(event = ?std::mem::discriminant(&event), "event channel of a media connection is full");
        }
    }

    /// Whether media may be sent.
    pub(super) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    pub(super) fn on_state(&self, state: RTCPeerConnectionState) {
        let event = {
            let mut progress = lock(&self.progress);
            if progress.state == ConnectionState::Closed {
                return;
            }
            match state {
                RTCPeerConnectionState::Connected => {
                    progress.state = ConnectionState::Connected;
                    progress.disconnected_at = None;
                    if progress.connect_ms.is_none() {
                        progress.connect_ms = progress.negotiated_at.map(|at| at.elapsed().as_millis() as u64);
                    }
                    Some(PeerEvent::Connected)
                }
                RTCPeerConnectionState::Disconnected if progress.state == ConnectionState::Connected => {
                    progress.state = ConnectionState::Disconnected;
                    progress.disconnected_at = Some(Instant::now());
                    Some(PeerEvent::Disconnected)
                }
                RTCPeerConnectionState::Failed => {
                    progress.failed = true;
                    None
                }
                _ => None,
            }
        };
        if let Some(event) = event {
            self.connected.store(event == PeerEvent::Connected, Ordering::Release);
            self.emit(event);
        }
        self.check_overdue(Instant::now());
    }

    fn on_ice_state(&self, state: RTCIceConnectionState) {
        {
            let mut progress = lock(&self.progress);
            match state {
                RTCIceConnectionState::Connected | RTCIceConnectionState::Completed => {
                    progress.ice_connected_at.get_or_insert_with(Instant::now);
                }
                RTCIceConnectionState::Failed => progress.failed = true,
                _ => {}
            }
        }
        self.check_overdue(Instant::now());
    }

    /// Raises [`PeerEvent::NeedsRebuild`] when due; once.
    fn check_overdue(&self, now: Instant) {
        let why = {
            let mut progress = lock(&self.progress);
            let why = progress.overdue(now);
            if why.is_some() {
                progress.rebuild_sent = true;
                progress.state = ConnectionState::Failed;
            }
            why
        };
        if let Some(why) = why {
            self.connected.store(false, Ordering::Release);
            tracing::info!(%why, "media connection has to be rebuilt");
            self.emit(PeerEvent::NeedsRebuild { why });
        }
    }
}

/// Callbacks of the stack. They run on its driver task: nothing here waits.
struct Handler {
    shared: Arc<Shared>,
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        let Ok(init) = event.candidate.to_json() else { return };
        if !sdp::is_rtp_component(&init.candidate) {
            return;
        }
        let (mid, index) = self.shared.first_line.get().cloned().unwrap_or_else(|| ("0".to_owned(), 0));
        self.shared.emit(PeerEvent::LocalCandidate {
            candidate: init.candidate,
            sdp_mid: Some(mid),
            sdp_mline_index: Some(index),
        });
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        self.shared.on_ice_state(state);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.shared.on_state(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if self.tracks.try_send(track).is_err() {
            tracing::warn!("a track more than this connection can take was ignored");
        }
    }
}

#[derive(Debug, Default)]
struct Negotiation {
    remote_set: bool,
    queued: Vec<RTCIceCandidateInit>,
}

/// A peer connection with its tasks.
pub(super) struct Connection {
    pub(super) pc: Arc<dyn PeerConnection>,
    pub(super) shared: Arc<Shared>,
    probe: Arc<RttProbe>,
    negotiation: Mutex<Negotiation>,
    tasks: Mutex<Vec<AbortHandle>>,
    closed: watch::Sender<bool>,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("state", &lock(&self.shared.progress).state).finish_non_exhaustive()
    }
}

/// Runs one call into the stack with a limit.
pub(super) async fn limited<T, E: Into<PeerError>>(call: impl Future<Output = Result<T, E>>) -> Result<T, PeerError> {
    match tokio::time::timeout(STACK_LIMIT, call).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(PeerError::Timeout(STACK_LIMIT.as_millis() as u64)),
    }
}

/// A new connection with the receiving ends of its events and tracks.
pub(super) type Built = (Connection, mpsc::Receiver<PeerEvent>, mpsc::Receiver<Arc<dyn TrackRemote>>);

impl Connection {
    pub(super) async fn build(
        config: &TransportConfig,
        engine: MediaEngine,
        interceptors: Registry,
    ) -> Result<Built, PeerError> {
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| PeerError::Build("no tokio runtime".to_owned()))?;
        let addresses = net::bind_addresses(config)?;
        let loopback = addresses.iter().any(|a| a.ip().is_loopback());
        let (events_tx, events_rx) = mpsc::channel(EVENT_CAPACITY);
        let (tracks_tx, tracks_rx) = mpsc::channel(8);
        let shared = Arc::new(Shared::new(events_tx));
        let probe = Arc::new(RttProbe::default());
        let settings = SettingEngineBuilder::new()
            .with_include_loopback_candidate(loopback)
            .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
            .with_ice_connection_attempts(Some(ICE_CHECK_INTERVAL), Some(ICE_CHECKS))
            .with_ice_timeouts(Some(ICE_DISCONNECTED), Some(ICE_FAILED), Some(ICE_KEEP_ALIVE))
            // Kurento checks before its candidates reach us: without this every connect takes a second longer.
            .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
            // With relayed candidates only there is nothing better to wait for.
            .with_relay_acceptance_min_wait(config.relay_only.then_some(Duration::ZERO))
            .with_sdp_media_level_fingerprints(true)
            .with_srtp_replay_protection_window(REPLAY_WINDOW)
            // Our own host tells layers apart by their sources.
            .with_write_ssrc_attributes_for_simulcast(true)
            .build();
        let policy = if config.relay_only { RTCIceTransportPolicy::Relay } else { RTCIceTransportPolicy::All };
        let builder = PeerConnectionBuilder::new()
            .with_configuration(
                RTCConfigurationBuilder::new()
                    .with_ice_servers(ice::servers(config))
                    .with_ice_transport_policy(policy)
                    .build(),
            )
            .with_media_engine(engine)
            .with_setting_engine(settings)
            .with_interceptor_registry(interceptors)
            .with_runtime(Arc::new(PeerRuntime::new(config, Arc::clone(&probe))))
            .with_handler(Arc::new(Handler { shared: Arc::clone(&shared), tracks: tracks_tx }))
            .with_udp_addrs(addresses);
        let pc = limited(async { builder.build().await }).await.map_err(|error| PeerError::Build(error.to_string()))?;
        let connection = Self {
            pc: Arc::new(pc),
            shared,
            probe,
            negotiation: Mutex::default(),
            tasks: Mutex::default(),
            closed: watch::channel(false).0,
            runtime,
        };
        connection.spawn(watch_over(
            Arc::clone(&connection.pc),
            Arc::clone(&connection.shared),
            Arc::clone(&connection.probe),
        ));
        Ok((connection, events_rx, tracks_rx))
    }

    /// Starts a task that ends with the connection.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut closed = self.closed.subscribe();
        let handle = self.runtime.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = closed.wait_for(|closed| *closed) => {}
            }
        });
        let mut tasks = lock(&self.tasks);
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.abort_handle());
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    fn open(&self) -> Result<(), PeerError> {
        if self.is_closed() { Err(PeerError::Closed) } else { Ok(()) }
    }

    /// Our offer, as the other side gets it.
    pub(super) async fn offer(&self) -> Result<String, PeerError> {
        self.open()?;
        let offer = limited(self.pc.create_offer(None)).await?;
        let text = sdp::prepare_local(&offer.sdp);
        self.note_first_line(&text);
        limited(self.pc.set_local_description(offer)).await?;
        Ok(text)
    }

    /// Applies the answer to our offer and the candidates that waited for it.
    pub(super) async fn set_answer(&self, answer: &str) -> Result<(), PeerError> {
        self.open()?;
        if self.pc.pending_local_description().await.is_none() {
            return Err(PeerError::OutOfOrder("an answer without an offer"));
        }
        let description = RTCSessionDescription::answer(sdp::prepare_remote(answer)).map_err(bad_description)?;
        limited(self.pc.set_remote_description(description)).await.map_err(as_bad_description)?;
        self.negotiated().await;
        Ok(())
    }

    /// Applies the other side's offer and answers it.
    pub(super) async fn answer(&self, offer: &str) -> Result<String, PeerError> {
        self.open()?;
        let description = RTCSessionDescription::offer(sdp::prepare_remote(offer)).map_err(bad_description)?;
        limited(self.pc.set_remote_description(description)).await.map_err(as_bad_description)?;
        let answer = limited(self.pc.create_answer(None)).await?;
        let text = sdp::prepare_local(&answer.sdp);
        self.note_first_line(&text);
        limited(self.pc.set_local_description(answer)).await?;
        self.negotiated().await;
        Ok(text)
    }

    fn note_first_line(&self, text: &str) {
        let lines = sdp::Summary::parse(text).media;
        if let Some((index, media)) = lines.into_iter().enumerate().find(|(_, media)| media.port != 0) {
            let _ = self.shared.first_line.set((media.mid, u16::try_from(index).unwrap_or_default()));
        }
    }

    async fn negotiated(&self) {
        lock(&self.shared.progress).negotiated_at.get_or_insert_with(Instant::now);
        let queued = {
            let mut negotiation = lock(&self.negotiation);
            negotiation.remote_set = true;
            std::mem::take(&mut negotiation.queued)
        };
        for candidate in queued {
            if let Err(error) = limited(self.pc.add_ice_candidate(candidate)).await {
                tracing::debug!(%error, "a queued candidate was refused");
            }
        }
    }

    /// Adds or queues a candidate of the other side. An empty line (end of candidates) is accepted and ignored.
    pub(super) async fn add_candidate(
        &self,
        candidate: &str,
        sdp_mid: Option<String>,
        sdp_mline_index: Option<u16>,
    ) -> Result<(), PeerError> {
        self.open()?;
        if candidate.trim().is_empty() {
            return Ok(());
        }
        let line = sdp::CandidateLine::parse(candidate).ok_or(PeerError::BadCandidate)?;
        // Component 2: the agent does not look at the component and could nominate the pair; then DTLS never starts.
        // TCP: we open no TCP sockets. A `.local` name: mDNS is off.
        if line.component != 1 || !line.transport.eq_ignore_ascii_case("udp") || line.address.ends_with(".local") {
            return Ok(());
        }
        let candidate = candidate.trim();
        let init = RTCIceCandidateInit {
            candidate: candidate.strip_prefix("a=").unwrap_or(candidate).to_owned(),
            sdp_mid,
            sdp_mline_index,
            ..RTCIceCandidateInit::default()
        };
        {
            let mut negotiation = lock(&self.negotiation);
            if !negotiation.remote_set {
                if negotiation.queued.len() < QUEUED_CANDIDATES {
                    negotiation.queued.push(init);
                }
                return Ok(());
            }
        }
        limited(self.pc.add_ice_candidate(init)).await.map_err(|_| PeerError::BadCandidate)
    }

    pub(super) fn transport_stats(&self) -> TransportStats {
        let progress = lock(&self.shared.progress).clone();
        TransportStats {
            state: progress.state,
            candidate: progress.candidate,
            rtt_ms: self.probe.rtt().map(|rtt| rtt.as_secs_f64() * 1000.0),
            connect_ms: progress.connect_ms,
        }
    }

    pub(super) fn probe(&self) -> Arc<RttProbe> {
        Arc::clone(&self.probe)
    }

    /// Ends tasks and connection; at most [`CLOSE_LIMIT`].
    pub(super) async fn close(&self) {
        if self.closed.send_replace(true) {
            return;
        }
        lock(&self.shared.progress).state = ConnectionState::Closed;
        self.shared.connected.store(false, Ordering::Release);
        close_pc(Arc::clone(&self.pc)).await;
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
    }
}

async fn close_pc(pc: Arc<dyn PeerConnection>) {
    if tokio::time::timeout(CLOSE_LIMIT, pc.close()).await.is_err() {
        tracing::debug!("a media connection did not close in time; its tasks end by themselves");
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.closed.send_replace(true) {
            return;
        }
        self.shared.connected.store(false, Ordering::Release);
        for task in lock(&self.tasks).drain(..) {
            task.abort();
        }
        self.runtime.spawn(close_pc(Arc::clone(&self.pc)));
    }
}

fn bad_description(error: webrtc::error::Error) -> PeerError {
    as_bad_description(PeerError::from(error))
}

fn as_bad_description(error: PeerError) -> PeerError {
    match error {
        PeerError::Stack(why) => PeerError::BadDescription(why),
        other => other,
    }
}

/// Watchdogs and slow figures of one connection.
async fn watch_over(pc: Arc<dyn PeerConnection>, shared: Arc<Shared>, probe: Arc<RttProbe>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = None;
    let mut count = 0u32;
    loop {
        ticks.tick().await;
        count = count.wrapping_add(1);
        shared.check_overdue(Instant::now());
        if !shared.is_connected() {
            continue;
        }
        if lock(&shared.progress).candidate.is_none()
            && let Some(candidate) = candidate_in_use(pc.as_ref()).await
        {
            lock(&shared.progress).candidate = Some(candidate);
        }
        if !count.is_multiple_of(4) {
            continue;
        }
        let rtt = probe.rtt();
        if rtt != told
            && let Some(rtt) = rtt
        {
            shared.emit(PeerEvent::Rtt { rtt });
        }
        told = rtt;
    }
}

/// Local candidate type and transport of the pair that media uses.
async fn candidate_in_use(pc: &dyn PeerConnection) -> Option<String> {
    let dtls = match pc.get_senders().await.first() {
        Some(sender) => sender.transport().await.ok().flatten(),
        None => pc.get_receivers().await.first()?.transport().await.ok().flatten(),
    }?;
    let pair = dtls.ice_transport().get_selected_candidate_pair().await.ok().flatten()?.to_string();
    // The pair shows itself only as text: "(local) udp host 192.0.2.1:5000 <-> (remote) …".
    let mut words = pair.split_ascii_whitespace().skip_while(|word| *word != "(local)").skip(1);
    let (protocol, kind) = (words.next()?, words.next()?);
    Some(format!("{kind}/{}", protocol.to_ascii_lowercase()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn watchdogs_are_due_when_they_should_be_and_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut p = Progress { negotiated_at: Some(start), ..Progress::default() };
        assert_eq!(p.overdue(at(14_900)), None);
        assert_eq!(p.overdue(at(15_000)), Some(RebuildReason::ConnectTimeout));
        p.ice_connected_at = Some(at(1_000));
        assert_eq!(p.overdue(at(3_900)), None);
        assert_eq!(p.overdue(at(4_000)), Some(RebuildReason::HandshakeStuck));
        p.state = ConnectionState::Connected;
        assert_eq!(p.overdue(at(60_000)), None);
        p.state = ConnectionState::Disconnected;
        p.disconnected_at = Some(at(60_000));
        assert_eq!(p.overdue(at(63_900)), None);
        assert_eq!(p.overdue(at(64_000)), Some(RebuildReason::Disconnected));
        p.rebuild_sent = true;
        assert_eq!(p.overdue(at(99_000)), None);
        let failed = Progress { failed: true, ..Progress::default() };
        assert_eq!(failed.overdue(start), Some(RebuildReason::Failed));
    }

    #[test]
    fn figures_make_way_and_states_do_not() {
        let (tx, mut rx) = mpsc::channel(EVENT_CAPACITY);
        let shared = Shared::new(tx);
        for bps in 0..EVENT_CAPACITY as u64 {
            shared.emit(PeerEvent::TargetBitrate { bps });
        }
        shared.emit(PeerEvent::Connected);
        let mut all = Vec::new();
        while let Ok(event) = rx.try_recv() {
            all.push(event);
        }
        assert!(all.len() < EVENT_CAPACITY);
        assert_eq!(all.last(), Some(&PeerEvent::Connected));
    }
}
