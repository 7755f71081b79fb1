//! The embedded OpenVidu-compatible server.
//!
//! REST and WebSocket share one TCP port (`server`), media has one UDP port and its own thread ([`sfu`]). In between, on one further thread, the control
//! task feeds the room machine of [`crate::protocol::room`] and carries out what it answers. Nothing of it runs on the workers of whoever starts it.

mod config;
mod control;
mod rooms;
mod server;
pub mod sfu;
mod tls;

pub use config::{DEFAULT_PORT, HostConfig, HostError, Tls};

use crate::lan::invitation::Invitation;
use crate::protocol::Secret;
use crate::protocol::room::{Counts, KeyRules, Server, ServerConfig, ServerInput, ServerState};
use control::{Clock, Control, Message};
use rand::RngCore as _;
use rooms::RoomsFile;
use serde::Serialize;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::sync::mpsc as sync;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// How long a call on [`Handle`] waits for the control task.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Figures of a host, as the report shows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostStats {
    /// Sessions, joined or not.
    pub sessions: usize,
    /// Participants in all sessions.
    pub participants: usize,
    /// Published streams.
    pub streams: usize,
    /// Open WebSockets.
    pub sockets: usize,
    /// Most sessions at once since the start.
    pub most_sessions: usize,
    /// Most participants at once.
    pub most_participants: usize,
    /// Most streams at once.
    pub most_streams: usize,
    /// Media packets received.
    pub packets_in: Option<u64>,
    /// Media packets forwarded, all receivers together.
    pub packets_out: Option<u64>,
    /// Bytes of all datagrams received.
    pub bytes_in: Option<u64>,
    /// Bytes of all datagrams sent.
    pub bytes_out: Option<u64>,
    /// Key frame requests sent to publishers.
    pub plis: Option<u64>,
    /// Packets sent again from the cache.
    pub nacks_answered: Option<u64>,
    /// Datagrams that were not forwarded: unknown source, unreadable, refused by the system.
    pub dropped: Option<u64>,
}

/// A running host. Dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    url: String,
    udp_addr: SocketAddr,
    listen_addr: SocketAddr,
    fingerprint: Option<String>,
    control: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Starts a host.
///
/// # Errors
/// A port that is taken or not allowed, a certificate that cannot be used, a media thread that does not start, a session name that cannot be one.
pub fn start(config: HostConfig) -> Result<Handle, HostError> {
    let listener = listen(config.listen)?;
    let listen_addr = listener.local_addr().map_err(|e| HostError::listen("TCP", config.listen, e))?;
    let (sfu, events) = start_media(&config, listen_addr)?;
    let udp_addr = sfu.udp_addr();
    let restart: control::MediaStart = {
        let mut config = config.clone();
        // Clients know this port.
        config.udp_port = Some(udp_addr.port());
        Box::new(move || start_media(&config, listen_addr))
    };
    let address = reachable(listen_addr.ip());
    let scheme = if config.tls == Tls::None { "http" } else { "https" };
    let url = match &config.public_url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{scheme}://{}", SocketAddr::new(address, listen_addr.port())),
    };
    let identity = match config.tls {
        Tls::None => None,
        Tls::SelfSigned => Some(tls::identity(&config.data_dir, &certificate_names(address))?),
    };
    let clock = Clock::start();
    let mut rooms = config.keep_rooms.then(|| RoomsFile::open(&config.data_dir)).transpose()?;
    let state = ServerState { rooms: rooms.as_ref().map(RoomsFile::rooms).unwrap_or_default(), ..Default::default() };
    let mut server = Server::restore(
        ServerConfig {
            secret: config.secret.clone().unwrap_or_else(random_secret),
            public_url: url.clone(),
            public_url_guessed: config.public_url.is_none(),
            seed: random(),
            limits: Default::default(),
        },
        state,
        clock.now(),
    );
    for session in &config.sessions {
        server.create_room(session, KeyRules::default(), clock.now())?;
    }
    server.handle(ServerInput::Tick, clock.now());
    if let Some(file) = &mut rooms {
        file.keep(&server.state().rooms);
    }
    let (control, messages) = mpsc::channel(control::CONTROL_QUEUE);
    let state = Control {
        server,
        rooms,
        clock,
        sfu,
        restart,
        to_self: control.clone(),
        sockets: HashMap::new(),
        legs: HashMap::new(),
        most: Counts::default(),
    };
    let fingerprint = identity.as_ref().map(|i| i.fingerprint.clone());
    let acceptor = identity.map(|i| TlsAcceptor::from(i.config));
    let shared = server::Shared::new(control.clone(), acceptor.is_some());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| HostError::Media(e.to_string()))?;
    let (ready, started) = sync::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("host".into())
        .spawn(move || {
            runtime.block_on(async move {
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => {
                        let _ = ready.try_send(Err(HostError::listen("TCP", listen_addr, error)));
                        return;
                    }
                };
                let accepting = tokio::spawn(server::accept(listener, acceptor, shared));
                let _ = ready.try_send(Ok(()));
                state.run(messages, events).await;
                accepting.abort();
                // Let the close frames out.
                tokio::time::sleep(Duration::from_millis(100)).await;
            });
        })
        .map_err(|_| HostError::NotRunning)?;
    started.recv_timeout(CALL_TIMEOUT).map_err(|_| HostError::NotRunning)??;
    tracing::info!(url, udp = %udp_addr, "host is listening");
    Ok(Handle { url, udp_addr, listen_addr, fingerprint, control, thread: Mutex::new(Some(thread)) })
}

fn listen(addr: SocketAddr) -> Result<std::net::TcpListener, HostError> {
    let failed = |e| HostError::listen("TCP", addr, e);
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).map_err(failed)?;
    // A host that is restarted must not wait for the old connections' TIME_WAIT.
    #[cfg(unix)]
    socket.set_reuse_address(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&addr.into()).map_err(failed)?;
    socket.listen(256).map_err(failed)?;
    Ok(socket.into())
}

fn start_media(
    config: &HostConfig,
    listen_addr: SocketAddr,
) -> Result<(sfu::Sfu, mpsc::Receiver<sfu::SfuEvent>), HostError> {
    let attempt = |port: u16| {
        let mut media = sfu::SfuConfig::new(SocketAddr::new(listen_addr.ip(), port));
        media.advertised.clone_from(&config.advertised);
        media.network = config.impairments;
        sfu::start(media).map_err(|e| match e {
            sfu::SfuError::Socket(e) => HostError::listen("UDP", SocketAddr::new(listen_addr.ip(), port), e),
            other => HostError::Media(other.to_string()),
        })
    };
    match config.udp_port {
        Some(port) => attempt(port),
        // Any port was asked for: the same number is a nicety, not a need.
        None if config.listen.port() == 0 => attempt(listen_addr.port()).or_else(|_| attempt(0)),
        None => attempt(listen_addr.port()),
    }
}

/// The address others reach: the one listened on, or the first of the local network.
fn reachable(listen: IpAddr) -> IpAddr {
    if !listen.is_unspecified() {
        return listen;
    }
    let mut all: Vec<IpAddr> = if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|i| i.ip()).collect();
    all.retain(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    all.sort_by_key(|ip| match ip {
        IpAddr::V4(v4) if v4.is_private() => 0,
        IpAddr::V4(v4) if !v4.is_link_local() => 1,
        IpAddr::V4(_) => 3,
        IpAddr::V6(_) => 2,
    });
    all.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn certificate_names(address: IpAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !address.is_loopback() {
        names.push(address.to_string());
    }
    names
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

fn random_secret() -> Secret {
    Secret::new(random::<24>().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

impl Handle {
    /// `https://host:port` (`http` without TLS), reachable for others on the local network.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Address of the media socket.
    pub fn udp_addr(&self) -> SocketAddr {
        self.udp_addr
    }

    /// Address REST and WebSocket are served on.
    pub fn listen_addr(&self) -> SocketAddr {
        self.listen_addr
    }

    /// `sha256:…` of the certificate; `None` without TLS.
    pub fn fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// Makes a room (or finds it) and an invitation to it, which lasts as long as the host.
    ///
    /// # Errors
    /// A name that cannot be one, a full host, a host that has ended.
    pub fn create_room(&self, name: &str) -> Result<Invitation, HostError> {
        self.invite(name, KeyRules::default())
    }

    /// The same with rules: role, time, number of uses.
    ///
    /// # Errors
    /// As [`Handle::create_room`].
    pub fn invite(&self, name: &str, rules: KeyRules) -> Result<Invitation, HostError> {
        let key = self.call(|reply| Message::Room { name: name.to_owned(), rules, reply })??;
        let authority = self.url.split_once("://").map_or(self.url.as_str(), |(_, a)| a);
        let default_port = if self.url.starts_with("https") { 443 } else { 80 };
        let (host, port) = match authority.rfind(':').filter(|colon| authority.rfind(']').is_none_or(|b| b < *colon)) {
            Some(colon) => {
                let port = authority.get(colon + 1..).and_then(|p| p.parse().ok()).unwrap_or(default_port);
                (authority.get(..colon).unwrap_or(authority), port)
            }
            None => (authority, default_port),
        };
        Ok(Invitation {
            host: host.to_owned(),
            port,
            room: name.to_owned(),
            key: key.expose().to_owned(),
            fingerprint: self.fingerprint.clone(),
        })
    }

    /// Figures so far; those of media are absent when the media thread does not answer.
    pub fn stats(&self) -> HostStats {
        let Ok((counts, most, media)) = self.call(|reply| Message::Stats { reply }) else {
            return HostStats::default();
        };
        let m = media.as_ref();
        HostStats {
            sessions: counts.sessions,
            participants: counts.participants,
            streams: counts.streams,
            sockets: counts.sockets,
            most_sessions: most.sessions,
            most_participants: most.participants,
            most_streams: most.streams,
            packets_in: m.map(|m| m.rtp_in),
            packets_out: m.map(|m| m.rtp_forwarded),
            bytes_in: m.map(|m| m.bytes_in),
            bytes_out: m.map(|m| m.bytes_out),
            plis: m.map(|m| m.plis_sent),
            nacks_answered: m.map(|m| m.nacks_answered),
            dropped: m.map(|m| m.unknown_source + m.rejected + m.send_failed),
        }
    }

    /// Closes every socket and stops; harmless when it has stopped.
    pub fn shutdown(&self) {
        let thread = self.thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        if self.call(|reply| Message::Shutdown { reply }).is_ok() && thread.join().is_err() {
            tracing::error!("the host's thread has panicked");
        }
    }

    fn call<T>(&self, message: impl FnOnce(sync::SyncSender<T>) -> Message) -> Result<T, HostError> {
        let (reply, answer) = sync::sync_channel(1);
        let mut message = message(reply);
        // The queue is full only for moments; waiting must work with and without a runtime around.
        for _ in 0..500 {
            match self.control.try_send(message) {
                Ok(()) => return answer.recv_timeout(CALL_TIMEOUT).map_err(|_| HostError::NotRunning),
                Err(mpsc::error::TrySendError::Full(back)) => {
                    message = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(mpsc::error::TrySendError::Closed(_)) => break,
            }
        }
        Err(HostError::NotRunning)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}
