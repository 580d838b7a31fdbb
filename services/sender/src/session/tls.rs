//! Opportunistic TLS: encryption against those who listen, no proof of who the other side is. And verified TLS, for
//! those who ask for the proof.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dns::Tlsa;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::dane::Verifier;

/// What begins TLS, version 1.2 or 1.3. Neither resumes a session of the other.
pub(super) struct Connectors {
    /// Takes any certificate (RFC 7435: to refuse the certificate would only mean to send the mail in plain text).
    pub any: Connector,
    /// Takes one that is valid for the host's name, and that an authority which is trusted has signed. `None`: no
    /// authority is trusted.
    pub verifying: Option<Connector>,
    /// Looks at certificates as `verifying` does.
    authorities: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

/// Begins TLS; what it does can be changed for a connection.
pub(super) struct Connector {
    config: Arc<ClientConfig>,
    begins: TlsConnector,
}

impl Connector {
    fn new(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        Self {
            begins: config.clone().into(),
            config,
        }
    }

    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    pub fn begins(&self) -> &TlsConnector {
        &self.begins
    }
}

impl Connectors {
    pub fn new(authorities: Option<RootCertStore>) -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
        };
        let any = AnyCertificate {
            provider: provider.clone(),
        };
        let any = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(any))
            .with_no_client_auth();
        let authorities = match authorities {
            Some(authorities) => {
                let builder = WebPkiServerVerifier::builder_with_provider(
                    Arc::new(authorities),
                    provider.clone(),
                );
                Some(builder.build().map_err(no_authorities)?)
            }
            None => None,
        };
        let verifying = match &authorities {
            Some(authorities) => {
                let builder = builder()?.with_webpki_verifier(authorities.clone());
                Some(Connector::new(builder.with_no_client_auth()))
            }
            None => None,
        };
        Ok(Self {
            any: Connector::new(any),
            verifying,
            authorities,
            provider,
        })
    }

    /// What takes a certificate that the TLSA records name, for one handshake: a session that is resumed shows none.
    pub fn named(
        &self,
        tlsa: Arc<Tlsa>,
        domain: Option<Arc<str>>,
        host: ServerName<'static>,
    ) -> Result<(Connector, Arc<Verifier>), Error> {
        let (provider, authorities) = (self.provider.clone(), self.authorities.clone());
        let verifier = Verifier::new(provider.clone(), authorities, tlsa, domain, host);
        let verifier = Arc::new(verifier);
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok((Connector::new(config), verifier))
    }
}

fn no_authorities(error: VerifierBuilderError) -> Error {
    Error::General(error.to_string())
}

#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A signature proves only that the host has the key of a certificate that nobody vouches for.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Hosts at which something failed lately, with an end each. Bounded.
pub(super) struct Remembered {
    until: Mutex<HashMap<IpAddr, Instant>>,
    time: Duration,
}

/// Addresses kept.
const MOST_REMEMBERED: usize = 10_000;

impl Remembered {
    pub fn new(time: Duration) -> Self {
        Self {
            until: Mutex::new(HashMap::new()),
            time,
        }
    }

    pub fn add(&self, address: IpAddr, now: Instant) {
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if until.len() >= MOST_REMEMBERED {
            until.retain(|_, end| now < *end);
            if until.len() >= MOST_REMEMBERED {
                until.clear();
            }
        }
        until.insert(address, now + self.time);
    }

    pub fn contains(&self, address: IpAddr, now: Instant) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.get(&address).is_some_and(|end| now < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_host_is_forgotten_after_its_time_and_there_is_a_bound() {
        let remembered = Remembered::new(Duration::from_secs(3600));
        let start = Instant::now();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        remembered.add(address(1), start);
        assert!(remembered.contains(address(1), start + Duration::from_secs(3599)));
        assert!(!remembered.contains(address(1), start + Duration::from_secs(3600)));
        for n in 0..25_000 {
            remembered.add(address(n), start);
        }
        assert!(remembered.until.lock().unwrap().len() <= MOST_REMEMBERED);
    }
}
