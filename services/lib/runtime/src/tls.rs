//! The one rustls provider, and certificates from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{WantsServerCert, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig};

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
        /// "certificate", "key" or "clientAuthorities".
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
    /// A certificate can't be that of an authority.
    #[error("clientAuthorities {path}: {source}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
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
    with_certificate(
        ServerConfig::builder().with_no_client_auth(),
        certificate,
        key,
    )
}

/// A server of HTTP/2 for clients that show a certificate which the authorities in the PEM file `clients` have signed;
/// all others are turned away in the handshake. Reads the three files each time.
pub fn tls_server_config_for(
    clients: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    init_tls();
    let mut roots = RootCertStore::empty();
    for authority in certificates("clientAuthorities", clients)? {
        roots.add(authority).map_err(|source| TlsError::Authority {
            path: clients.to_owned(),
            source,
        })?;
    }
    // Fails for a store without authorities, and there is one.
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .map_err(|_| TlsError::Empty {
            path: clients.to_owned(),
        })?;
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    let mut config = Arc::unwrap_or_clone(with_certificate(builder, certificate, key)?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn with_certificate(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
        what: "key",
        path: key.to_owned(),
        source,
    })?;
    let config = builder
        .with_single_cert(chain, private_key)
        .map_err(|source| TlsError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
    Ok(Arc::new(config))
}

/// At least one.
fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File {
            what,
            path: path.to_owned(),
            source,
        })?;
    if found.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(found)
}
