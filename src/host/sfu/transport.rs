//! One leg's transport: an ICE agent, a DTLS association and two SRTP contexts of the sans-IO `rtc` crates.
//!
//! The pieces are driven directly instead of through `RTCPeerConnection`: a forwarder needs neither its
//! transceivers nor its interceptors, and packets cost less than half.

mod handshake;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::RTCCryptoProvider;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::Endpoint;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::ice::candidate::candidate_host::CandidateHostConfig;
use rtc::ice::candidate::{CandidateConfig, unmarshal_candidate};
use rtc::ice::mdns::MulticastDnsMode;
use rtc::ice::state::ConnectionState;
use rtc::ice::{Agent, AgentConfig, Event};
use rtc::sansio::Protocol;
use rtc::shared::error::Error as RtcError;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};
use rtc::srtp::context::Context;
use sha2::{Digest, Sha256};

use super::SfuError;
use super::demux::{BINDING_REQUEST, BINDING_SUCCESS, stun_head, uses_candidate};

/// Pause between ICE checks while connecting.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Checks per pair: enough for the whole connect time.
const CHECKS_PER_PAIR: u16 = 300;
/// A leg that is not up after this is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A silent path gives way to a checked new one after this.
const PATH_SILENCE: Duration = Duration::from_millis(300);

/// The peer as DTLS sees it: one address for ever, so that a moved path does not disturb the association.
const TUNNEL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

/// What all legs share: certificate and crypto.
#[derive(Clone)]
pub(super) struct Identity {
    crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    pub(super) fingerprint: String,
    profiles: Vec<SrtpProtectionProfile>,
}

impl Identity {
    pub(super) fn generate(aes_cm_only: bool) -> Result<Self, SfuError> {
        let crypto = rtc::crypto::default_provider().map_err(|error| SfuError::Crypto(error.to_string()))?;
        let certificate = Certificate::generate_self_signed(vec!["tertulia".to_owned()], crypto.crypto())
            .map_err(|error| SfuError::Crypto(error.to_string()))?;
        let der = certificate.certificate.first().ok_or_else(|| SfuError::Crypto("empty certificate".to_owned()))?;
        let fingerprint = fingerprint(der.as_ref());
        let mut profiles = vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80];
        if !aes_cm_only {
            profiles.insert(0, SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm);
        }
        Ok(Self { crypto, certificate, fingerprint, profiles })
    }
}

/// SHA-256 of a certificate as `a=fingerprint` writes it.
fn fingerprint(der: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(der) {
        if !text.is_empty() {
            text.push(':');
        }
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

/// What the remote description says about its transport.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    /// Hexadecimal SHA-256 fingerprint.
    pub(super) fingerprint: String,
    /// We open the DTLS handshake.
    pub(super) we_are_client: bool,
}

/// A change of state to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TransportEvent {
    Connected,
    Disconnected,
    Reconnected,
    Failed(&'static str),
    Closed,
}

/// A datagram to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) to: SocketAddr,
    /// Source address, where it was learned from a datagram; else the system chooses.
    pub(super) from_ip: Option<IpAddr>,
    pub(super) data: BytesMut,
}

/// Where the peer is now.
#[derive(Debug, Clone, Copy)]
struct Path {
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    heard: Instant,
}

/// What became of a STUN datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct StunOutcome {
    /// The check was authentic: its address may be bound.
    pub(super) authentic: bool,
    /// The check was answered with success, which an agent does once its own check of the pair went well.
    pub(super) answered: bool,
    /// The peer moved to this address.
    pub(super) moved: bool,
}

/// What an RTP packet of a leg needs to leave.
pub(super) struct Exit<'a> {
    pub(super) context: &'a mut Context,
    /// The next transport-wide number: the tracks of a leg share one count.
    pub(super) transport_number: &'a mut u16,
}

/// ICE, DTLS and SRTP of one leg.
pub(super) struct Transport {
    identity: Identity,
    agent: Agent,
    locals: Vec<SocketAddr>,
    controlling: bool,
    dtls: Option<Endpoint>,
    /// Set until the client handshake is opened.
    client_config: Option<Arc<HandshakeConfig>>,
    client: bool,
    srtp_in: Option<Context>,
    srtp_out: Option<Context>,
    transport_number: u16,
    /// Addresses the agent believes in once a pair is selected: (local, remote).
    canonical: Option<(SocketAddr, SocketAddr)>,
    path: Option<Path>,
    /// Destination of the last STUN datagram.
    arrived_at: Option<IpAddr>,
    flight: Vec<Vec<u8>>,
    flight_next: Option<Instant>,
    flight_copies: u32,
    verified: bool,
    created: Instant,
    connected: bool,
    interrupted: bool,
    dead: bool,
    events: Vec<TransportEvent>,
    out: Vec<Outgoing>,
}

impl Transport {
    /// A transport that waits for its remote description.
    pub(super) fn new(
        identity: &Identity,
        locals: &[SocketAddr],
        ufrag: &str,
        pwd: &str,
        controlling: bool,
        now: Instant,
    ) -> Result<Self, SfuError> {
        let crypto_error = |error: RtcError| SfuError::Crypto(error.to_string());
        let config = AgentConfig {
            local_ufrag: ufrag.to_owned(),
            local_pwd: pwd.to_owned(),
            multicast_dns_mode: MulticastDnsMode::Disabled,
            check_interval: CHECK_INTERVAL,
            max_binding_requests: Some(CHECKS_PER_PAIR),
            keepalive_interval: Some(Duration::from_secs(2)),
            disconnected_timeout: Some(Duration::from_secs(5)),
            failed_timeout: Some(Duration::from_secs(25)),
            srflx_acceptance_min_wait: Some(Duration::ZERO),
            prflx_acceptance_min_wait: Some(Duration::ZERO),
            relay_acceptance_min_wait: Some(Duration::ZERO),
            is_controlling: controlling,
            ..AgentConfig::default()
        };
        let mut agent = Agent::new(now, Arc::new(config), identity.crypto.clone()).map_err(crypto_error)?;
        for local in locals {
            let network = if local.is_ipv4() { "udp4" } else { "udp6" };
            let candidate = CandidateHostConfig {
                base_config: CandidateConfig {
                    network: network.to_owned(),
                    address: local.ip().to_string(),
                    port: local.port(),
                    component: 1,
                    ..CandidateConfig::default()
                },
                ..CandidateHostConfig::default()
            }
            .new_candidate_host()
            .map_err(crypto_error)?;
            agent.add_local_candidate(candidate).map_err(crypto_error)?;
        }
        Ok(Self {
            identity: identity.clone(),
            agent,
            locals: locals.to_vec(),
            controlling,
            dtls: None,
            client_config: None,
            client: false,
            srtp_in: None,
            srtp_out: None,
            transport_number: 0,
            canonical: None,
            path: None,
            arrived_at: None,
            flight: Vec::new(),
            flight_next: None,
            flight_copies: 0,
            verified: false,
            created: now,
            connected: false,
            interrupted: false,
            dead: false,
            events: Vec::new(),
            out: Vec::new(),
        })
    }

    /// Takes the remote description and starts checking.
    pub(super) fn start(&mut self, remote: &Remote, now: Instant) -> Result<(), SfuError> {
        let expected = remote.fingerprint.to_ascii_uppercase();
        let verify = move |certificates: &[Vec<u8>], _: &[_]| match certificates.first() {
            Some(der) if fingerprint(der) == expected => Ok(()),
            Some(_) => Err(RtcError::ErrNoMatchingCertificateFingerprint),
            None => Err(RtcError::ErrNonCertificate),
        };
        let config = ConfigBuilder::default()
            .with_crypto_provider(self.identity.crypto.clone())
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_srtp_protection_profiles(self.identity.profiles.clone())
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // The fingerprint of the signalled description is the only trust anchor in WebRTC.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(Arc::new(verify)))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .with_replay_protection_window(64)
            .build(remote.we_are_client, None)
            .map_err(|error| SfuError::Crypto(error.to_string()))?;
        let config = Arc::new(config);
        self.client = remote.we_are_client;
        let server = (!self.client).then(|| config.clone());
        self.client_config = self.client.then_some(config);
        self.dtls = Some(Endpoint::new(TUNNEL, TransportProtocol::UDP, server));
        self.created = now;
        self.agent
            .start_connectivity_checks(now, self.controlling, remote.ufrag.clone(), remote.pwd.clone())
            .map_err(|_| SfuError::InvalidSdp("ICE credentials"))?;
        self.drive(now);
        Ok(())
    }

    /// Adds a remote candidate, already checked to be UDP and component 1.
    pub(super) fn add_candidate(&mut self, text: &str, now: Instant) -> Result<(), SfuError> {
        let candidate = unmarshal_candidate(text).map_err(|_| SfuError::InvalidCandidate)?;
        self.agent.add_remote_candidate(candidate).map_err(|_| SfuError::InvalidCandidate)?;
        if !self.dead {
            let _ = self.agent.handle_timeout(now);
        }
        self.drive(now);
        Ok(())
    }

    pub(super) fn connected(&self) -> bool {
        self.connected
    }

    pub(super) fn path(&self) -> Option<(SocketAddr, Option<IpAddr>)> {
        self.path.map(|path| (path.remote, path.local_ip))
    }

    /// What packets need to leave, once the keys are there.
    pub(super) fn exit(&mut self) -> Option<Exit<'_>> {
        let transport_number = &mut self.transport_number;
        self.srtp_out.as_mut().map(|context| Exit { context, transport_number })
    }

    pub(super) fn take_outgoing(&mut self) -> std::vec::Drain<'_, Outgoing> {
        self.out.drain(..)
    }

    pub(super) fn take_events(&mut self) -> Vec<TransportEvent> {
        std::mem::take(&mut self.events)
    }

    /// The local candidate that stands for a destination address: with a NAT in front they differ.
    fn local_for(&self, ip: Option<IpAddr>, remote: SocketAddr) -> SocketAddr {
        let same = self.locals.iter().find(|local| Some(local.ip()) == ip);
        let family = || self.locals.iter().find(|local| local.is_ipv4() == remote.is_ipv4());
        same.or_else(family).or(self.locals.first()).copied().unwrap_or(TUNNEL)
    }

    /// Feeds a STUN datagram.
    ///
    /// Until a pair is selected the agent sees true addresses. From then on it sees the first pair for ever, and
    /// what it writes there is sent to where the peer proved to be last: a controlled agent never re-selects.
    pub(super) fn stun(
        &mut self,
        data: &[u8],
        from: SocketAddr,
        local_ip: Option<IpAddr>,
        now: Instant,
    ) -> StunOutcome {
        let mut outcome = StunOutcome::default();
        let Some((kind, transaction)) = stun_head(data) else {
            return outcome;
        };
        let local = self.local_for(local_ip, from);
        self.arrived_at = local_ip;
        let (agent_local, agent_remote) = self.canonical.unwrap_or((local, from));
        let message = TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: agent_local,
                peer_addr: agent_remote,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            },
            message: BytesMut::from(data),
        };
        // An error only says that the message was not for us; the answer below is what counts.
        let _ = self.agent.handle_read(message);
        while let Some(written) = self.agent.poll_write() {
            let reply = stun_head(&written.message);
            if kind == BINDING_REQUEST && reply == Some((BINDING_SUCCESS, transaction)) {
                outcome.authentic = true;
                outcome.answered = true;
                self.out.push(Outgoing { to: from, from_ip: local_ip, data: written.message });
            } else {
                // A nominating check of a pair that is not proved yet gets a check of our own instead of an answer. Browsers
                // nominate with their very first check, so their answers to ours must find the way back to this leg.
                outcome.authentic |= kind == BINDING_REQUEST
                    && written.transport.peer_addr == agent_remote
                    && reply.is_some_and(|(kind, _)| kind == BINDING_REQUEST);
                self.send_from_agent(written);
            }
        }
        if outcome.answered {
            self.note_check(from, local_ip, uses_candidate(data), now, &mut outcome);
        }
        self.drive(now);
        outcome
    }

    fn note_check(
        &mut self,
        from: SocketAddr,
        local_ip: Option<IpAddr>,
        nominates: bool,
        now: Instant,
        outcome: &mut StunOutcome,
    ) {
        let Some(path) = &mut self.path else {
            return;
        };
        if path.remote == from {
            path.heard = now;
            path.local_ip = local_ip;
        } else if nominates || now.saturating_duration_since(path.heard) > PATH_SILENCE {
            *path = Path { remote: from, local_ip, heard: now };
            outcome.moved = true;
        }
    }

    /// Media or DTLS came from here.
    fn heard(&mut self, from: SocketAddr, now: Instant) {
        if let Some(path) = self.path.as_mut().filter(|path| path.remote == from) {
            path.heard = now;
        }
    }

    fn send_from_agent(&mut self, written: TaggedBytesMut) {
        // The agent's local address may be one in front of a NAT, which no socket here can send from.
        let (mut to, mut from_ip) = (written.transport.peer_addr, None);
        if let (Some((_, remote)), Some(path)) = (self.canonical, self.path)
            && remote == to
        {
            to = path.remote;
            from_ip = path.local_ip;
        }
        self.out.push(Outgoing { to, from_ip, data: written.message });
    }

    fn send(&mut self, data: BytesMut) {
        if let Some(path) = self.path {
            self.out.push(Outgoing { to: path.remote, from_ip: path.local_ip, data });
        }
    }

    /// Decrypts a media packet; `None` if it is not authentic or came too early.
    pub(super) fn decrypt_rtp(&mut self, data: &[u8], from: SocketAddr, now: Instant) -> Option<BytesMut> {
        let plain = self.srtp_in.as_mut()?.decrypt_rtp(data).ok()?;
        self.authentic(from, now);
        Some(plain)
    }

    /// Decrypts an RTCP compound; `None` if it is not authentic or came too early.
    pub(super) fn decrypt_rtcp(&mut self, data: &[u8], from: SocketAddr, now: Instant) -> Option<BytesMut> {
        let plain = self.srtp_in.as_mut()?.decrypt_rtcp(data).ok()?;
        self.authentic(from, now);
        Some(plain)
    }

    fn authentic(&mut self, from: SocketAddr, now: Instant) {
        // The peer has the keys: our last flight arrived.
        self.flight.clear();
        self.flight_next = None;
        self.heard(from, now);
    }

    /// Encrypts and queues an RTCP compound.
    pub(super) fn send_rtcp(&mut self, compound: &[u8]) -> bool {
        let Some(Ok(data)) = self.srtp_out.as_mut().map(|context| context.encrypt_rtcp(compound)) else {
            return false;
        };
        self.send(data);
        true
    }

    fn fail(&mut self, reason: &'static str) {
        if !self.dead {
            self.dead = true;
            self.events.push(TransportEvent::Failed(reason));
        }
    }

    /// Takes what agent and association have to say.
    fn drive(&mut self, now: Instant) {
        while let Some(event) = self.agent.poll_event() {
            match event.event {
                Event::ConnectionStateChange(state) => self.ice_state(state),
                Event::SelectedCandidatePairChange(local, remote) => {
                    if self.canonical.is_none() {
                        self.canonical = Some((local.addr(), remote.addr()));
                        self.path = Some(Path { remote: remote.addr(), local_ip: self.arrived_at, heard: now });
                    }
                    self.open_handshake(now);
                }
                _ => {}
            }
        }
        while let Some(written) = self.agent.poll_write() {
            self.send_from_agent(written);
        }
    }

    fn ice_state(&mut self, state: ConnectionState) {
        match state {
            ConnectionState::Disconnected if self.connected => {
                self.interrupted = true;
                self.events.push(TransportEvent::Disconnected);
            }
            ConnectionState::Connected if self.interrupted => {
                self.interrupted = false;
                self.events.push(TransportEvent::Reconnected);
            }
            ConnectionState::Failed => self.fail("no answer to connectivity checks"),
            _ => {}
        }
    }

    /// When [`Transport::timeout`] wants to be called.
    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        if self.dead {
            return None;
        }
        let dtls = self.dtls.as_ref().and_then(|endpoint| endpoint.poll_timeout(&TUNNEL)).filter(|_| !self.connected);
        let watchdog = (!self.connected).then_some(self.created + CONNECT_TIMEOUT);
        [self.agent.poll_timeout(), dtls, self.flight_next, watchdog].into_iter().flatten().min()
    }

    /// Runs every timer that is due.
    pub(super) fn timeout(&mut self, now: Instant) {
        if self.dead {
            return;
        }
        if !self.connected && now.saturating_duration_since(self.created) >= CONNECT_TIMEOUT {
            let reason = if self.canonical.is_none() {
                "no connectivity check succeeded within 15 s"
            } else {
                "the DTLS handshake did not end within 15 s"
            };
            self.fail(reason);
            return;
        }
        let _ = self.agent.handle_timeout(now);
        self.drive(now);
        self.handshake_timeout(now);
        self.repeat_flight(now);
    }

    /// Ends the association politely.
    pub(super) fn close(&mut self, now: Instant) {
        if let Some(endpoint) = self.dtls.as_mut().filter(|_| self.connected) {
            let _ = endpoint.close(now);
            let mut sent = Vec::new();
            while let Some(transmit) = endpoint.poll_transmit() {
                sent.push(transmit.message);
            }
            for message in sent {
                self.send(message);
            }
        }
        self.dead = true;
        let _ = self.agent.close();
    }
}
