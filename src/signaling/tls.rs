//! Whom we trust: the system's certificate authorities, one pinned certificate, or (said aloud) anybody.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_platform_verifier::ConfigVerifierExt as _;
use sha2::{Digest as _, Sha256};

/// SHA-256 over a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl Fingerprint {
    /// Reads `sha256:` and 64 hex digits, colons between bytes allowed.
    pub fn parse(text: &str) -> Option<Self> {
        let hex: Vec<char> = text.strip_prefix("sha256:")?.chars().filter(|c| *c != ':').collect();
        if hex.len() != 64 {
            return None;
        }
        let mut bytes = [0u8; 32];
        for (slot, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *slot = u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).ok()?;
        }
        Some(Self(bytes))
    }

    /// The fingerprint of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

/// How the server's certificate is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A chain to one of the system's authorities.
    System,
    /// Exactly this certificate, whatever it says about itself.
    Pinned(Fingerprint),
    /// Any certificate of this one server; shown on the screen and in the report.
    Anything,
}

/// Marks a refused pin in the error text of the TLS library, so that it can be told from other refusals.
const PIN_MISMATCH: &str = "certificate does not match the pin";

/// Installs the one crypto provider; later calls change nothing.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Losing the race to another thread means that the same provider is there already.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

/// A client configuration that judges as `trust` says.
///
/// # Errors
/// The system's certificate store cannot be read.
pub fn client_config(trust: Trust) -> Result<ClientConfig, Error> {
    install_crypto_provider();
    let pin = match trust {
        Trust::System => return ClientConfig::with_platform_verifier(),
        Trust::Pinned(fingerprint) => Some(fingerprint),
        Trust::Anything => None,
    };
    let provider =
        CryptoProvider::get_default().cloned().ok_or_else(|| Error::General("no crypto provider".to_owned()))?;
    Ok(ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(OneCertificate { pin, provider }))
        .with_no_client_auth())
}

/// Whether a TLS error text says that the pin did not match.
pub fn is_pin_mismatch(error_text: &str) -> bool {
    error_text.contains(PIN_MISMATCH)
}

#[derive(Debug)]
struct OneCertificate {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl OneCertificate {
    /// Where any certificate will do, one that the library cannot read (version 1, short keys) will do as well: a proof that its key was used
    /// would keep out nobody who may bring a certificate of their own.
    fn judge(&self, proof: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        match proof {
            Err(Error::InvalidCertificate(_)) if self.pin.is_none() => Ok(HandshakeSignatureValid::assertion()),
            proof => proof,
        }
    }
}

impl ServerCertVerifier for OneCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.pin {
            Some(pin) if pin != Fingerprint::of(end_entity) => Err(Error::General(PIN_MISMATCH.to_owned())),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge(verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge(verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::ResolvesServerCert;
    use rustls::sign::{CertifiedKey, SingleCertAndKey};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    /// A certificate of version 1, as `openssl x509 -req -signkey` makes it, and its key.
    const OLD_CERTIFICATE: &str = "MIIBEjCBuQIUaACdNBp50L0nJgiy1Imk+Qf+v+8wCgYIKoZIzj0EAwIwDDEKMAgGA1UEAwwBeDAeFw0yNjExMjEwMDQyNDha\
         Fw0zNjExMTgwMDQyNDhaMAwxCjAIBgNVBAMMAXgwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASEOR1xaZKiRo7IvFuh6KUU\
         F1JO7nUEsyLqB6IlaNyt2u+b4xOOmsTxb57aDU4GO6JmHTZJGOljOlIsXfDyLw/cMAoGCCqGSM49BAMCA0gAMEUCIQCZ0eZY\
         gL1cslZm+R7Qbed50650MpIH//NsLLPVx+98GQIgFAjN1cXLbMAA98cNJY4an/Z0MrP2coA+b1y8C9m7GII=";
    const OLD_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgxtXFnoyC+nMTYAEHH18nbMQDBs+8b+TpjTdlHBzWCY+hRANC\
         AASEOR1xaZKiRo7IvFuh6KUUF1JO7nUEsyLqB6IlaNyt2u+b4xOOmsTxb57aDU4GO6JmHTZJGOljOlIsXfDyLw/c";

    /// Shakes hands with a server that shows the old certificate.
    fn meet(trust: Trust) -> Result<(), Error> {
        let bytes = |text: &str| base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let mut client =
            ClientConnection::new(Arc::new(client_config(trust)?), ServerName::try_from("10.0.0.1").unwrap())?;
        let key = PrivatePkcs8KeyDer::from(bytes(OLD_KEY)).into();
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![bytes(OLD_CERTIFICATE).into()], key));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::new(shown);
        let config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(resolver);
        let mut server = ServerConnection::new(Arc::new(config))?;
        while client.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn any_certificate_means_any() {
        assert_eq!(meet(Trust::Anything), Ok(()));
        let certificate = base64::engine::general_purpose::STANDARD.decode(OLD_CERTIFICATE).unwrap();
        let pinned = meet(Trust::Pinned(Fingerprint::of(&certificate)));
        assert!(matches!(pinned, Err(Error::InvalidCertificate(_))), "a pin wants the proof: {pinned:?}");
    }

    #[test]
    fn fingerprint_reads_what_it_writes() {
        let fp = Fingerprint::of(b"certificate");
        assert_eq!(Fingerprint::parse(&fp.to_string()), Some(fp));
        assert_eq!(Fingerprint::parse("sha256:00"), None);
        assert_eq!(Fingerprint::parse("sha1:00"), None);
        let with_colons = fp.to_string().as_bytes()[7..]
            .chunks(2)
            .map(|c| String::from_utf8_lossy(c).to_string())
            .collect::<Vec<_>>()
            .join(":");
        assert_eq!(Fingerprint::parse(&format!("sha256:{with_colons}")), Some(fp));
    }
}
