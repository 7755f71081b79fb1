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
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
