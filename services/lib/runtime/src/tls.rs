//! The one rustls provider, and certificates from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};

/// Installs aws-lc-rs as the provider of the process; later calls change nothing. Call it before
/// anything uses TLS.
pub fn init_tls() {
    // An error means that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// A certificate or key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read, or is no PEM file of the kind.
    #[error("{what} {path}: {source}")]
    File {
        /// "certificate" or "key".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("certificate {path}: there is no certificate in the file")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not belong together, or are of an unsupported kind.
    #[error("certificate {certificate} with key {key}: {source}")]
    Pair {
        /// The chain's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

/// A server that shows the chain in the PEM file `certificate` (TLS 1.2 and 1.3, no client
/// certificates). Reads the two files each time.
pub fn tls_server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    init_tls();
    let file_error = |what, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { what, path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(file_error("certificate", certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty {
            path: certificate.to_owned(),
        });
    }
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(file_error("key", key))?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private_key)
        .map_err(|source| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    Ok(Arc::new(config))
}
