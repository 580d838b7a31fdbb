//! The certificate that a source shows to hosts that ask for one.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use crate::reach::ClientCertificate;
use proto::journal::Stage;

/// What begins TLS as `config` does and shows the certificate. It is read for each connection, so that a new one holds from
/// the next on; sessions are not resumed, since they would be those of another source.
pub(super) async fn showing(
    config: &rustls::ClientConfig,
    files: &ClientCertificate,
) -> Result<TlsConnector, Failure> {
    let files = files.clone();
    let read = tokio::task::spawn_blocking(move || {
        runtime::certificate_of_files(&files.chain, &files.key)
    });
    let unusable = |text: &str| Failure::of_source(Stage::Connect, &format!("the source's {text}"));
    let pair: CertifiedKey = read
        .await
        .map_err(|_| unusable("certificate can't be read"))?
        .map_err(|error| unusable(&error.to_string()))?;
    let shown: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(Arc::new(pair)));
    let mut config = config.clone();
    config.client_auth_cert_resolver = shown;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config).into())
}
