//! Carries out what [`crate::protocol::client::Client`] wants: sockets, timers, fresh tokens.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::super::tls::Trust;
use super::super::{Joined, ServerKind, SignalingError, SignalingEvent};
use super::changes;
use super::handle::ConnectConfig;
use super::rest;
use super::socket::{Socket, SocketEvent};
use super::told;
use crate::protocol::client::{
    Action, ActionError, ActionId, Answer, Client, ClientConfig, ClientEvent, EndReason, Input, LostPlace, Output,
    SDK_VERSION, Seed, State,
};
use crate::protocol::message::{JoinResult, MediaServer};
use crate::protocol::token::Token;
use crate::protocol::{Now, Secret};

/// Socket events that may wait; a socket's reader waits when it is full.
const SOCKET_QUEUE: usize = 256;

/// One call of the handle.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) action: Action,
    pub(super) method: &'static str,
    pub(super) reply: Option<oneshot::Sender<Result<Answer, SignalingError>>>,
}

struct Waiting {
    method: &'static str,
    reply: oneshot::Sender<Result<Answer, SignalingError>>,
}

type FreshToken = Result<Secret, SignalingError>;

pub(super) struct Driver {
    config: ConnectConfig,
    asks: mpsc::Receiver<Ask>,
    events: mpsc::Sender<SignalingEvent>,
    started: Instant,
    waiting: HashMap<ActionId, Waiting>,
    next_action: ActionId,
    socket: Option<(u32, Socket)>,
    /// What the last socket that failed died of, in our own terms.
    last_failure: Option<SignalingError>,
    host: String,
    session: String,
    tls_trust: Trust,
    /// Whether the machine was away, so that `Joined` means "back".
    was_checking: bool,
    lost_cause: Option<&'static str>,
    /// The join was interrupted: it is to be tried again, which is done once.
    again: bool,
    tried_again: bool,
}

impl Driver {
    pub(super) fn new(config: ConnectConfig, asks: mpsc::Receiver<Ask>, events: mpsc::Sender<SignalingEvent>) -> Self {
        let tls_trust = config.target.trust;
        Self {
            config,
            asks,
            events,
            started: Instant::now(),
            waiting: HashMap::new(),
            next_action: 1,
            socket: None,
            last_failure: None,
            host: String::new(),
            session: String::new(),
            tls_trust,
            was_checking: false,
            lost_cause: None,
            again: false,
            tried_again: false,
        }
    }

    fn now(&self) -> Now {
        let unix_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        Now { mono: self.started.elapsed(), unix_ms }
    }

    async fn tell(&self, event: SignalingEvent) {
        // The engine gone means that the call is over; the asks queue will say so.
        drop(self.events.send(event).await);
    }

    pub(super) async fn run(mut self) {
        while self.join().await {}
    }

    /// One visit; `true` when it ended before it began and is worth another try.
    async fn join(&mut self) -> bool {
        let token = tokio::select! {
            token = rest::fetch_token(&self.config.target) => token,
            () = gave_up(&mut self.asks) => return false,
        };
        let token = match token.and_then(|t| parse(&t)) {
            Ok(token) => token,
            Err(error) => {
                self.tell(SignalingEvent::Failed(error)).await;
                return false;
            }
        };
        self.adopt(&token);
        let client = Client::new(ClientConfig {
            token,
            platform: format!(
                "Tertulia {} on {} {}",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::OS,
                std::env::consts::ARCH
            ),
            sdk_version: SDK_VERSION.to_owned(),
            metadata: self.config.metadata.to_json(),
            can_rejoin: self.config.target.source.renewable(),
            seed: Seed(rand::random()),
        });
        self.drive(client).await;
        std::mem::take(&mut self.again)
    }

    fn adopt(&mut self, token: &Token) {
        self.host = token.authority().to_owned();
        self.session = token.session().to_owned();
    }

    async fn drive(&mut self, mut client: Client) {
        let (socket_events, mut sockets) = mpsc::channel(SOCKET_QUEUE);
        let (token_found, mut tokens) = mpsc::channel::<FreshToken>(4);
        let (network, mut networks) = mpsc::channel(1);
        tokio::spawn(changes::watch(network));
        client.handle(Input::User(0, Action::Join), self.now());
        let mut leaving = false;
        loop {
            while let Some(output) = client.poll_output() {
                match output {
                    Output::OpenSocket { socket, url } => {
                        self.socket = Some((socket, Socket::open(socket, url, self.tls_trust, socket_events.clone())));
                    }
                    Output::CloseSocket { socket, code, reason } => {
                        if self.socket.as_ref().is_some_and(|(id, _)| *id == socket)
                            && let Some((_, open)) = self.socket.take()
                        {
                            open.close(code, reason);
                        }
                    }
                    Output::Send { socket, text } => {
                        let sent = self.socket.as_ref().is_some_and(|(id, open)| *id == socket && open.send(text.0));
                        if !sent {
                            let lost = Input::SocketClosed { socket, code: 1006, reason: "not writable".to_owned() };
                            client.handle(lost, self.now());
                        }
                    }
                    Output::Event(event) => {
                        if let ClientEvent::RejoinNeeded { attempt, cause } = &event {
                            self.lost_cause = Some(cause_name(*cause));
                            info!(attempt, ?cause, "joining again with a fresh token");
                            let (target, found) = (self.config.target.clone(), token_found.clone());
                            tokio::spawn(async move { drop(found.send(rest::fetch_token(&target).await).await) });
                        }
                        if self.translate(event).await {
                            return;
                        }
                    }
                }
            }
            let wake = client.poll_timeout().map(|at| self.started + at);
            let input = tokio::select! {
                Some((id, event)) = sockets.recv() => self.socket_input(id, event).await,
                Some(found) = tokens.recv() => Some(Input::User(0, self.token_action(found))),
                Some(()) = networks.recv() => {
                    info!("the network changed, or the computer slept");
                    Some(Input::User(0, Action::NetworkChanged))
                }
                () = sleep_until(wake) => Some(Input::Timeout),
                ask = self.asks.recv(), if !leaving => match ask {
                    Some(ask) => Some(self.take(ask)),
                    None => {
                        leaving = true;
                        Some(Input::User(0, Action::Leave))
                    }
                },
            };
            if let Some(input) = input {
                let now = self.now();
                client.handle(input, now);
            }
        }
    }

    fn take(&mut self, ask: Ask) -> Input {
        let id = self.next_action;
        self.next_action += 1;
        if let Some(reply) = ask.reply {
            self.waiting.insert(id, Waiting { method: ask.method, reply });
        }
        Input::User(id, ask.action)
    }

    fn token_action(&mut self, found: FreshToken) -> Action {
        match found.and_then(|t| parse(&t)) {
            Ok(token) => {
                self.adopt(&token);
                Action::Rejoin(token)
            }
            Err(error) => {
                warn!(%error, "no fresh token");
                let for_good = matches!(
                    error,
                    SignalingError::TokenRefused
                        | SignalingError::WrongSecret { .. }
                        | SignalingError::PinMismatch { .. }
                        | SignalingError::Untrusted { .. }
                );
                self.last_failure = Some(error);
                Action::NoToken { for_good }
            }
        }
    }

    async fn socket_input(&mut self, id: u32, event: SocketEvent) -> Option<Input> {
        Some(match event {
            SocketEvent::Open => {
                if self.socket.as_ref().is_some_and(|(current, _)| *current == id) {
                    self.tell(SignalingEvent::SocketOpen).await;
                }
                Input::SocketOpen(id)
            }
            SocketEvent::Text(text) => Input::Text { socket: id, text: text.into() },
            SocketEvent::Closed { code, reason } => Input::SocketClosed { socket: id, code, reason },
            SocketEvent::Failed(error) => {
                debug!(%error, "socket not opened");
                let detail = error.to_string();
                self.last_failure = Some(error);
                Input::SocketFailed { socket: id, detail }
            }
        })
    }

    fn at(&self, mono: Duration) -> Instant {
        self.started + mono
    }

    /// Hands an event of the machine to the engine; `true` when it was the last.
    async fn translate(&mut self, event: ClientEvent) -> bool {
        let told = match event {
            ClientEvent::Answered { action, outcome } => {
                if let Some(waiting) = self.waiting.remove(&action) {
                    let outcome = outcome.map_err(|error| self.action_error(error, waiting.method));
                    // The caller may have stopped waiting.
                    drop(waiting.reply.send(outcome));
                }
                return false;
            }
            ClientEvent::State(state) => return self.state(state).await,
            ClientEvent::Joined { result, rejoined } => {
                self.lost_cause = None;
                let event = SignalingEvent::Joined { joined: Box::new(joined(&result, &self.host)), rejoined };
                self.tell(event).await;
                match told::running_recording(&result) {
                    Some(recording) => recording,
                    None => return false,
                }
            }
            ClientEvent::ParticipantJoined(info) => SignalingEvent::ParticipantJoined(Box::new(info)),
            ClientEvent::ParticipantLeft { connection_id, reason } => {
                SignalingEvent::ParticipantLeft { connection_id, reason }
            }
            ClientEvent::StreamPublished { connection_id, stream } => {
                SignalingEvent::StreamPublished { connection_id, stream: Box::new(stream) }
            }
            ClientEvent::StreamUnpublished { connection_id, stream_id, reason } => {
                SignalingEvent::StreamUnpublished { connection_id, stream_id, reason }
            }
            ClientEvent::OwnStreamUnpublished { reason, .. } => SignalingEvent::OwnStreamUnpublished { reason },
            ClientEvent::RemoteCandidate { connection_id, candidate, sdp_mid, sdp_m_line_index, .. } => {
                SignalingEvent::RemoteCandidate {
                    connection_id,
                    candidate,
                    sdp_mid,
                    sdp_mline_index: u16::try_from(sdp_m_line_index).unwrap_or(0),
                }
            }
            ClientEvent::Signal { from, kind, data } => SignalingEvent::Signal { from, kind, data },
            ClientEvent::PropertyChanged { connection_id, stream_id, property, reason } => {
                let property = told::property(property);
                SignalingEvent::PropertyChanged { connection_id, stream_id, property, reason }
            }
            ClientEvent::RoleChanged(role) => SignalingEvent::RoleChanged(role),
            ClientEvent::Reconnected { .. } => SignalingEvent::Reconnected,
            ClientEvent::Other(notification) => told::other(*notification),
            ClientEvent::Garbage { what, count } => SignalingEvent::Garbage { what, count },
            ClientEvent::RejoinNeeded { attempt, cause } => {
                SignalingEvent::Rejoining { attempt, retry_at: None, cause: Some(cause_name(cause)) }
            }
            ClientEvent::Pong { .. } => return false,
            ClientEvent::ForciblyReconnect { stream_id, connection_id, sdp_offer } => {
                SignalingEvent::ServerOffers { connection_id, stream_id, sdp_offer: sdp_offer.as_str().to_owned() }
            }
        };
        self.tell(told).await;
        false
    }

    async fn state(&mut self, state: State) -> bool {
        let told = match state {
            State::Checking => {
                self.was_checking = true;
                SignalingEvent::Checking
            }
            State::Joined if self.was_checking => {
                self.was_checking = false;
                SignalingEvent::CheckedWell
            }
            State::Reconnecting { attempt, retry_at, place_kept_until } => {
                self.was_checking = false;
                SignalingEvent::Reconnecting {
                    attempt,
                    retry_at: retry_at.map(|at| self.at(at)),
                    place_kept_until: self.at(place_kept_until),
                }
            }
            State::Resuming { attempt, place_kept_until } => {
                SignalingEvent::Reconnecting { attempt, retry_at: None, place_kept_until: self.at(place_kept_until) }
            }
            State::Rejoining { attempt } => {
                SignalingEvent::Rejoining { attempt, retry_at: None, cause: self.lost_cause }
            }
            State::RejoinPaused { attempt, retry_at } => {
                SignalingEvent::Rejoining { attempt, retry_at: Some(self.at(retry_at)), cause: self.lost_cause }
            }
            State::GivenUp => SignalingEvent::GivenUp,
            // The token is spent, perhaps; another one can be had.
            State::Ended(EndReason::JoinInterrupted { code: 1006 })
                if self.config.target.source.renewable() && !self.tried_again =>
            {
                info!("the connection broke while joining: once more");
                (self.again, self.tried_again) = (true, true);
                return true;
            }
            State::Ended(reason) => {
                let last = self.ended(reason);
                self.tell(last).await;
                return true;
            }
            // Told with its cause by the event that asks for the token.
            State::AwaitingToken { .. } => return false,
            State::Idle | State::Connecting | State::Joining | State::Joined | State::Leaving => return false,
        };
        self.tell(told).await;
        false
    }

    fn ended(&mut self, reason: EndReason) -> SignalingEvent {
        let host = self.host.clone();
        let (name, port) = host
            .rsplit_once(':')
            .and_then(|(h, p)| Some((h.to_owned(), p.parse().ok()?)))
            .unwrap_or((host.clone(), 443));
        let error = match reason {
            EndReason::Left => return SignalingEvent::Left,
            EndReason::Evicted { reason } => return SignalingEvent::Evicted { reason },
            EndReason::Refused(error) => {
                SignalingError::from_code(error.code, &error.message, "joinRoom", &self.session)
            }
            EndReason::Unreachable { detail } => {
                self.last_failure.take().unwrap_or(SignalingError::Unreachable { host: name, detail })
            }
            EndReason::JoinTimedOut => SignalingError::Silent { host: name, port, after_ms: 10_000 },
            // Without a close frame it was the way that broke, or the server that fell over.
            EndReason::JoinInterrupted { code: 1006 } => {
                SignalingError::Unreachable { host: name, detail: "the connection broke while joining".to_owned() }
            }
            EndReason::JoinInterrupted { code } => SignalingError::NotOpenVidu {
                host: name,
                detail: format!("it closed the connection while joining, code {code}"),
            },
            EndReason::BadServer => SignalingError::NotOpenVidu {
                host: name,
                detail: "its answer to the join lacks a connection id".to_owned(),
            },
            EndReason::NeedsNewToken => SignalingError::NeedsNewToken,
            EndReason::RejoinImpossible => self.last_failure.take().unwrap_or(SignalingError::TokenRefused),
        };
        SignalingEvent::Failed(error)
    }

    fn action_error(&self, error: ActionError, method: &str) -> SignalingError {
        match error {
            ActionError::Refused(error) => SignalingError::from_code(error.code, &error.message, method, &self.session),
            ActionError::TimedOut | ActionError::Cancelled | ActionError::BadAnswer | ActionError::TooMany => {
                SignalingError::NoAnswer { method: method.to_owned() }
            }
            ActionError::NotJoined => SignalingError::NotConnected,
            ActionError::NotPublishing => SignalingError::NotAllowed { detail: "not publishing".to_owned() },
            ActionError::TooLong => SignalingError::NotAllowed { detail: "longer than a server takes".to_owned() },
        }
    }
}

fn cause_name(cause: LostPlace) -> &'static str {
    match cause {
        LostPlace::Expired => "expired",
        LostPlace::ParticipantGone => "participantGone",
        LostPlace::NetworkEviction => "networkDisconnect",
        LostPlace::NoResume => "noResume",
        LostPlace::MissedNews => "missedNews",
        LostPlace::RejoinFailed => "rejoinFailed",
    }
}

fn parse(token: &Secret) -> Result<Token, SignalingError> {
    Token::parse(token.expose()).map_err(|e| SignalingError::BadLink { detail: e.to_string() })
}

fn joined(result: &JoinResult, host: &str) -> Joined {
    let offers = |what: &str| result.tertulia.as_ref().and_then(|extra| extra.get(what)?.as_bool()).unwrap_or(false);
    Joined {
        connection_id: result.id.clone(),
        session: result.session.clone(),
        role: result.role(),
        ice_servers: result.custom_ice_servers.clone(),
        server_offers: MediaServer::parse(&result.media_server) == MediaServer::Mediasoup,
        simulcast: offers("simulcast"),
        tiles: offers("tiles"),
        server: if result.tertulia.is_some() { ServerKind::Tertulia } else { ServerKind::OpenVidu },
        host: host.to_owned(),
    }
}

/// Ends when the handle was dropped or asked to leave before anything began.
async fn gave_up(asks: &mut mpsc::Receiver<Ask>) {
    while let Some(ask) = asks.recv().await {
        if ask.action == Action::Leave {
            return;
        }
        if let Some(reply) = ask.reply {
            drop(reply.send(Err(SignalingError::NotConnected)));
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
