//! The one rustls provider, and certificates from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientCertVerifierBuilder, WantsServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ConfigBuilder, RootCertStore, ServerConfig};

use crate::bootstrap::CertificateFiles;
use crate::certificates::CertificatesByName;

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
        /// "certificate", "key", "clientAuthorities" or "authorities".
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
    #[error("{what} {path}: {source}")]
    Authority {
        /// "clientAuthorities" or "authorities".
        what: &'static str,
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
    /// No client could ask for it.
    #[error("certificate {path}: it is for no host name, and would never be shown beside {first}")]
    Nameless {
        /// The file.
        path: PathBuf,
        /// The certificate that clients get who ask for no known name.
        first: PathBuf,
    },
    /// The system trusts nobody.
    #[error(
        "the system names no authority that it trusts: install ca-certificates, set SSL_CERT_FILE, or name a file"
    )]
    NoAuthorities,
    /// There is nothing to show.
    #[error("no certificate is named")]
    None,
}

/// A server with the certificates of these PEM files (TLS 1.2 and 1.3, no client certificates): the client gets one for the
/// name that it asks for (SNI), and the first one when there is none or it asks for no name. Reads the files each time.
pub fn tls_server_config(files: &[CertificateFiles]) -> Result<Arc<ServerConfig>, TlsError> {
    init_tls();
    with_certificates(ServerConfig::builder().with_no_client_auth(), files)
}

/// The same for clients that may show a certificate, too: one that the authorities in the PEM file `clients` have not signed ends
/// the handshake, none at all is fine.
pub fn tls_server_config_asking(
    clients: &Path,
    files: &[CertificateFiles],
) -> Result<Arc<ServerConfig>, TlsError> {
    init_tls();
    let verifier = of_authorities(clients)?
        .allow_unauthenticated()
        .build()
        .map_err(|_| no_authority(clients))?;
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    with_certificates(builder, files)
}

/// A server of HTTP/2 for clients that show a certificate which the authorities in the PEM file `clients` have signed;
/// all others are turned away in the handshake. Reads the three files each time.
pub fn tls_server_config_for(
    clients: &Path,
    certificate: &Path,
    key: &Path,
) -> Result<Arc<ServerConfig>, TlsError> {
    init_tls();
    let verifier = of_authorities(clients)?
        .build()
        .map_err(|_| no_authority(clients))?;
    let builder = ServerConfig::builder().with_client_cert_verifier(verifier);
    let files = CertificateFiles {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
    };
    let mut config = Arc::unwrap_or_clone(with_certificates(builder, &[files])?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn of_authorities(clients: &Path) -> Result<ClientCertVerifierBuilder, TlsError> {
    let roots = roots_of("clientAuthorities", clients)?;
    Ok(WebPkiClientVerifier::builder(Arc::new(roots)))
}

/// The authorities in a PEM file, at least one; `what` names its field.
pub(crate) fn roots_of(what: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(what, path)? {
        roots.add(authority).map_err(|source| TlsError::Authority {
            what,
            path: path.to_owned(),
            source,
        })?;
    }
    Ok(roots)
}

/// A verifier can't be built only of a store without authorities, and there is one.
fn no_authority(clients: &Path) -> TlsError {
    TlsError::Empty {
        path: clients.to_owned(),
    }
}

fn with_certificates(
    builder: ConfigBuilder<ServerConfig, WantsServerCert>,
    files: &[CertificateFiles],
) -> Result<Arc<ServerConfig>, TlsError> {
    let pairs = files
        .iter()
        .map(load_pair)
        .collect::<Result<Vec<_>, TlsError>>()?;
    let by_name = CertificatesByName::new(pairs, files)?;
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(by_name))))
}

fn load_pair(files: &CertificateFiles) -> Result<CertifiedKey, TlsError> {
    certificate_of_files(&files.certificate, &files.key)
}

/// A certificate with its chain, and its key, from two PEM files. Reads the files each time.
pub fn certificate_of_files(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("certificate", certificate)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::File {
        what: "key",
        path: key.to_owned(),
        source,
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, private_key, &provider).map_err(|source| TlsError::Pair {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
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
