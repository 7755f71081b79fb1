//! The host's certificate: self-signed, made once, kept.

use super::config::HostError;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CERTIFICATE_FILE: &str = "host-certificate.pem";
const KEY_FILE: &str = "host-key.pem";

/// What TLS needs.
pub(super) struct Identity {
    pub(super) config: Arc<rustls::ServerConfig>,
    /// `sha256:` and the digest of the certificate in hexadecimal.
    pub(super) fingerprint: String,
}

/// Reads certificate and key, or makes them if neither is there yet. A file that is there but not usable is an error and never replaced: people have
/// pinned it.
pub(super) fn identity(data_dir: &Path, names: &[String]) -> Result<Identity, HostError> {
    let (cert_path, key_path) = (data_dir.join(CERTIFICATE_FILE), data_dir.join(KEY_FILE));
    if !cert_path.exists() && !key_path.exists() {
        make(data_dir, &cert_path, &key_path, names)?;
    }
    #[cfg(unix)]
    keep_private(&key_path);
    let bad = |path: &PathBuf| {
        let path = path.clone();
        move |e: rustls::pki_types::pem::Error| HostError::Certificate { path, reason: e.to_string() }
    };
    let certificate = CertificateDer::from_pem_file(&cert_path).map_err(bad(&cert_path))?;
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(bad(&key_path))?;
    let digest = Sha256::digest(certificate.as_ref());
    let fingerprint = format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let unusable = |e: rustls::Error| HostError::Certificate { path: cert_path.clone(), reason: e.to_string() };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Identity { config: Arc::new(config), fingerprint })
}

fn make(data_dir: &Path, cert_path: &Path, key_path: &Path, names: &[String]) -> Result<(), HostError> {
    let failed = |path: &Path, reason: String| HostError::DataDir { path: path.to_owned(), reason };
    let key = rcgen::KeyPair::generate().map_err(|e| failed(key_path, e.to_string()))?;
    let mut params = rcgen::CertificateParams::new(names.to_vec()).map_err(|e| failed(cert_path, e.to_string()))?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "Tertulia host");
    let certificate = params.self_signed(&key).map_err(|e| failed(cert_path, e.to_string()))?;
    std::fs::create_dir_all(data_dir).map_err(|e| failed(data_dir, e.to_string()))?;
    write_private(key_path, key.serialize_pem().as_bytes()).map_err(|e| failed(key_path, e.to_string()))?;
    write_private(cert_path, certificate.pem().as_bytes()).map_err(|e| failed(cert_path, e.to_string()))
}

/// A key that others may read is told about and closed to them: copied folders and restored backups come that way.
#[cfg(unix)]
fn keep_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    // One that is missing or out of reach is told about by whoever reads it.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return;
    }
    let closed = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600));
    let path = path.display();
    match closed {
        Ok(()) => tracing::warn!("{path} could be read by others (mode {mode:o}); it is its owner's alone again"),
        Err(error) => tracing::warn!("{path} can be read by others (mode {mode:o}), make it private: {error}"),
    }
}

/// Writes a new file only its owner can read.
pub(super) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_kept_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = identity(dir.path(), &names).expect("made");
        let again = identity(dir.path(), &names).expect("read");
        assert_eq!(first.fingerprint, again.fingerprint);
        assert_eq!(first.fingerprint.len(), 7 + 64);
        #[cfg(unix)]
        for file in [CERTIFICATE_FILE, KEY_FILE] {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.path().join(file)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_closed_to_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        let first = identity(dir.path(), &[]).expect("made");
        let key = dir.path().join(KEY_FILE);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
        assert_eq!(identity(dir.path(), &[]).expect("read").fingerprint, first.fingerprint);
        assert_eq!(std::fs::metadata(&key).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_broken_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join(CERTIFICATE_FILE), "nonsense").expect("written");
        let error = identity(dir.path(), &[]).err().expect("refused").to_string();
        assert!(error.contains(CERTIFICATE_FILE), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join(CERTIFICATE_FILE)).expect("there"), "nonsense");
        assert!(!dir.path().join(KEY_FILE).exists());
    }
}
