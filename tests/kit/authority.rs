//! An authority that signs certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// An authority of the test's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

impl Authority {
    /// With a key of its own.
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Its own certificate, DER.
    pub fn der(&self) -> rustls_pki_types::CertificateDer<'static> {
        self.certificate.der().clone()
    }

    /// The server's end of TLS, with a certificate for these host names and IP addresses.
    pub fn acceptor(&self, names: &[&str]) -> Result<TlsAcceptor> {
        self.acceptor_with(names, |_| {})
    }

    /// The same with a certificate that has expired.
    pub fn expired_acceptor(&self, names: &[&str]) -> Result<TlsAcceptor> {
        self.acceptor_with(names, |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        })
    }

    /// One that takes clients only that show a certificate which this authority has signed.
    pub fn asking_acceptor(&self, names: &[&str]) -> Result<TlsAcceptor> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            provider.clone(),
        );
        let (certificate, key) = self.certificate(names, |_| {})?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(builder.build()?)
            .with_single_cert(vec![certificate.der().clone()], private)?;
        Ok(Arc::new(config).into())
    }

    /// Writes certificate and key for these names into PEM files of the folder.
    pub fn write_certificate(&self, folder: &Path, names: &[&str]) -> Result<(PathBuf, PathBuf)> {
        let (certificate, key) = self.certificate(names, |_| {})?;
        let paths = (folder.join("certified.pem"), folder.join("certified.key"));
        std::fs::write(&paths.0, certificate.pem())?;
        std::fs::write(&paths.1, key.serialize_pem())?;
        Ok(paths)
    }

    fn acceptor_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<TlsAcceptor> {
        let (certificate, key) = self.certificate(names, change)?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)?;
        Ok(Arc::new(config).into())
    }

    fn certificate(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        change(&mut params);
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }
}
