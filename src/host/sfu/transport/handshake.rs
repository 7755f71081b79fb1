//! The DTLS side of a transport: flights, their repetition, and the keys at the end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::dtls::endpoint::EndpointEvent;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::error::Error as RtcError;
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

use super::{TUNNEL, Transport, TransportEvent};

/// Pause between copies of an unanswered handshake flight.
const FLIGHT_INTERVAL: Duration = Duration::from_millis(100);
/// Copies of one flight; the watchdog ends the rest.
const FLIGHT_COPIES: u32 = 100;
/// Copies of the very last flight, which nobody answers.
const LAST_FLIGHT_COPIES: u32 = 5;
/// Replay window of SRTP, in packets: wide enough for retransmissions on the same SSRC.
const REPLAY_WINDOW: usize = 1_024;

impl Transport {
    /// Feeds a DTLS datagram from a bound address.
    pub(in super::super) fn dtls(&mut self, data: &[u8], from: SocketAddr, now: Instant) -> bool {
        self.heard(from, now);
        let Some(endpoint) = self.dtls.as_mut() else {
            return false;
        };
        if self.client_config.is_some() {
            // As a client nothing was sent yet, so nothing can be an answer.
            return false;
        }
        let read = endpoint.read(now, TUNNEL, None, BytesMut::from(data));
        let mut sent = Vec::new();
        while let Some(transmit) = endpoint.poll_transmit() {
            sent.push(transmit.message);
        }
        let mut complete = false;
        let mut closed = false;
        let accepted = read.is_ok();
        match read {
            Ok(events) => {
                for event in events {
                    match event {
                        EndpointEvent::HandshakeComplete => complete = true,
                        EndpointEvent::PeerClosed => closed = true,
                        _ => {}
                    }
                }
            }
            Err(RtcError::ErrNoMatchingCertificateFingerprint | RtcError::ErrNonCertificate) => {
                self.fail("the certificate does not match the description");
                return false;
            }
            // Anything may be sent by anybody before the handshake ends; the watchdog judges.
            Err(_) => {}
        }
        if self.client && is_hello_verify(data) {
            self.verified = true;
        }
        if complete {
            self.flight.clear();
            self.flight_next = None;
            if !self.establish() {
                self.fail("no SRTP keys");
                return false;
            }
        }
        if !sent.is_empty() && (!self.connected) {
            self.flight = sent.iter().map(|message| message.to_vec()).collect();
            self.flight_next = Some(now + FLIGHT_INTERVAL);
            self.flight_copies = 0;
        }
        for message in sent {
            self.send(message);
        }
        if complete {
            self.connected = true;
            self.events.push(TransportEvent::Connected);
        }
        if closed {
            self.dead = true;
            self.events.push(TransportEvent::Closed);
        }
        accepted
    }

    fn establish(&mut self) -> bool {
        let keys = || -> Option<(Context, Context)> {
            let state = self.dtls.as_ref()?.get_connection_state(TUNNEL)?;
            let profile = match state.srtp_protection_profile() {
                SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
                SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
                _ => return None,
            };
            let mut config = rtc::srtp::config::Config { profile, ..Default::default() };
            let material = state
                .export_keying_material(rtc::srtp::config::LABEL_EXTRACTOR_DTLS_SRTP, &[], config.keying_material_len())
                .ok()?;
            config.set_session_keys_from_keying_material(material.as_ref(), state.is_client()).ok()?;
            let crypto = self.identity.crypto.crypto();
            let local = Context::new(
                &config.keys.local_master_key,
                &config.keys.local_master_salt,
                profile,
                None,
                None,
                crypto,
            )
            .ok()?;
            let remote = Context::new(
                &config.keys.remote_master_key,
                &config.keys.remote_master_salt,
                profile,
                Some(srtp_replay_protection(REPLAY_WINDOW)),
                Some(srtcp_replay_protection(64)),
                crypto,
            )
            .ok()?;
            Some((local, remote))
        };
        let Some((local, remote)) = keys() else {
            return false;
        };
        self.srtp_out = Some(local);
        self.srtp_in = Some(remote);
        true
    }

    /// The ClientHello leaves in the same turn as ICE connects, not at the next timer.
    pub(super) fn open_handshake(&mut self, now: Instant) {
        let (Some(config), Some(endpoint)) = (self.client_config.take(), self.dtls.as_mut()) else {
            return;
        };
        if endpoint.connect(now, TUNNEL, config, None).is_err() {
            self.fail("the DTLS handshake cannot start");
            return;
        }
        let mut sent = Vec::new();
        while let Some(transmit) = endpoint.poll_transmit() {
            sent.push(transmit.message);
        }
        self.flight = sent.iter().map(|message| message.to_vec()).collect();
        self.flight_next = Some(now + FLIGHT_INTERVAL);
        self.flight_copies = 0;
        for message in sent {
            self.send(message);
        }
    }

    /// The association's own timer: its repeats carry fresh record numbers, which our copies cannot.
    pub(super) fn handshake_timeout(&mut self, now: Instant) {
        let Some(endpoint) = self.dtls.as_mut() else {
            return;
        };
        if self.connected || endpoint.poll_timeout(&TUNNEL).is_none_or(|at| at > now) {
            return;
        }
        // An exhausted budget leaves the copies below running until the watchdog ends it.
        let _ = endpoint.handle_timeout(TUNNEL, now);
        let mut sent = Vec::new();
        while let Some(transmit) = endpoint.poll_transmit() {
            sent.push(transmit.message);
        }
        for message in sent {
            // A repeat with fresh record numbers that does not advance the peer disarms the timer of the same crate's
            // other end for good. So where the peer is the one to go on (a server after our cookie, any client) only
            // our exact copies are sent, which its replay window swallows.
            if self.client && !(self.verified && is_client_hello(&message)) {
                self.send(message);
            }
        }
    }

    /// Sends an unanswered flight once more. The association's timer alone can be disarmed for good by a duplicate
    /// that crosses it, and then nothing would ever happen again.
    pub(super) fn repeat_flight(&mut self, now: Instant) {
        if self.flight_next.is_none_or(|at| at > now) {
            return;
        }
        let limit = if self.connected { LAST_FLIGHT_COPIES } else { FLIGHT_COPIES };
        if self.flight_copies >= limit || self.flight.is_empty() {
            self.flight_next = None;
            return;
        }
        self.flight_copies += 1;
        self.flight_next = Some(now + FLIGHT_INTERVAL);
        let fresh = self.flight_copies.is_multiple_of(2) && self.fresh_copies_help();
        // After the first ClientHello the association goes on with low numbers, which must stay inside the server's
        // replay window of 64; after the last flight there are none to come.
        let step = if self.opening() { 6 + self.flight_copies } else { 64 * self.flight_copies };
        for message in self.flight.clone() {
            let mut message = BytesMut::from(message.as_slice());
            if fresh {
                renumber_plain_records(&mut message, step);
            }
            self.send(message);
        }
    }

    /// Whether copies under other record numbers are of use: the peer's answer may be what was lost, and it answers
    /// again only to what its replay window lets through. True for the first ClientHello and for a client's last flight;
    /// in between the server's own timer answers, and such a copy would disarm it.
    fn fresh_copies_help(&self) -> bool {
        let again = self.verified && self.opening();
        let early = !self.opening() || self.flight_copies < 48;
        self.client && !self.connected && !again && early
    }

    /// The unanswered flight is a ClientHello.
    fn opening(&self) -> bool {
        self.flight.first().is_some_and(|message| is_client_hello(message))
    }
}

/// Whether a datagram starts with a HelloVerifyRequest: record header of 13 bytes, then the message type.
fn is_hello_verify(data: &[u8]) -> bool {
    data.first() == Some(&22) && data.get(13) == Some(&3)
}

/// Whether a datagram starts with a ClientHello.
fn is_client_hello(data: &[u8]) -> bool {
    data.first() == Some(&22) && data.get(13) == Some(&1)
}

/// Moves the numbers of a flight's unencrypted records up (they are not authenticated).
fn renumber_plain_records(mut data: &mut [u8], step: u32) {
    while let Some((header, rest)) = data.split_first_chunk_mut::<13>() {
        let [_, _, _, e0, e1, _, _, n0, n1, n2, n3, l0, l1] = header;
        if (*e0, *e1) == (0, 0) {
            let number = u32::from_be_bytes([*n0, *n1, *n2, *n3]);
            [*n0, *n1, *n2, *n3] = number.wrapping_add(step).to_be_bytes();
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let Some(next) = rest.get_mut(length..) else {
            return;
        };
        data = next;
    }
}
