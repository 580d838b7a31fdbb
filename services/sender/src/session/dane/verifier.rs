//! Asks a host for what its TLSA records name, in the handshake.

use std::sync::{Arc, OnceLock};

use dns::Tlsa;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{For, Proved, prove};

/// For one handshake.
#[derive(Debug)]
pub(in crate::session) struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Those that have no TLSA records are asked by this one.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    tlsa: Arc<Tlsa>,
    /// Of the recipients.
    domain: Option<Arc<str>>,
    /// The MX host.
    host: ServerName<'static>,
    found: OnceLock<(Proved, bool)>,
}

impl Verifier {
    pub fn new(
        provider: Arc<CryptoProvider>,
        authorities: Option<Arc<WebPkiServerVerifier>>,
        tlsa: Arc<Tlsa>,
        domain: Option<Arc<str>>,
        host: ServerName<'static>,
    ) -> Self {
        Self {
            provider,
            authorities,
            tlsa,
            domain,
            host,
            found: OnceLock::new(),
        }
    }

    /// What the host has proved, and whether its certificate is valid for its name besides. `None` before the handshake.
    pub fn found(&self) -> Option<(Proved, bool)> {
        self.found.get().cloned()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _base: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<CertificateDer<'_>> = std::iter::once(own).chain(rest).cloned().collect();
        let domain = self.domain.as_deref();
        let speaks_for = prove(&self.tlsa, domain, &chain, now, &self.provider)?;
        let proved = Proved {
            tlsa: self.tlsa.clone(),
            domain: match speaks_for {
                For::Host => None,
                For::Domain => self.domain.clone(),
            },
        };
        // So that the connection serves domains, too, of whose hosts DNSSEC says nothing, and MTA-STS does.
        let is_valid = self.authorities.as_ref().is_some_and(|authorities| {
            let verified =
                authorities.verify_server_cert(own, rest, &self.host, ocsp_response, now);
            verified.is_ok()
        });
        self.found.get_or_init(|| (proved, is_valid));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
