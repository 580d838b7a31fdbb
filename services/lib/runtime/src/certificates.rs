//! The certificates of a server, by the name that a client asks for (SNI, RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::TlsError;
use crate::bootstrap::CertificateFiles;

/// Certificates, each found under the DNS names that it is for. There may be several of one name, as one with an RSA key
/// and one with an ECDSA key: a client gets the first whose signatures it can check.
#[derive(Debug)]
pub(crate) struct CertificatesByName {
    /// Places in `all`, by name in lower case; a wildcard as it is written (`*.example.com`).
    by_name: HashMap<Box<str>, Vec<usize>>,
    /// As configured, at least one.
    all: Vec<Arc<CertifiedKey>>,
}

impl CertificatesByName {
    /// Takes certificates in the order of `files`. One that is not the first must have a name, or nobody would ever see it.
    pub(crate) fn new(
        certificates: Vec<CertifiedKey>,
        files: &[CertificateFiles],
    ) -> Result<Self, TlsError> {
        let first = files.first().ok_or(TlsError::None)?;
        let mut by_name: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (place, (certificate, files)) in certificates.iter().zip(files).enumerate() {
            let names = names(certificate);
            if names.is_empty() && place > 0 {
                return Err(TlsError::Nameless {
                    path: files.certificate.clone(),
                    first: first.certificate.clone(),
                });
            }
            for name in names {
                by_name.entry(name).or_default().push(place);
            }
        }
        Ok(Self {
            by_name,
            all: certificates.into_iter().map(Arc::new).collect(),
        })
    }

    /// The certificate for a client that asks for `name` and can check signatures of these kinds.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let fits =
            |certificate: &&Arc<CertifiedKey>| certificate.key.choose_scheme(schemes).is_some();
        let named = name.and_then(|name| self.places(&name.to_ascii_lowercase()));
        named
            .into_iter()
            .flatten()
            .filter_map(|place| self.all.get(*place))
            .find(fits)
            .or_else(|| self.all.iter().find(fits))
    }

    /// An exact name comes before a wildcard, which stands for one label (RFC 6125 section 6.4.3).
    fn places(&self, name: &str) -> Option<&Vec<usize>> {
        self.by_name.get(name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(format!("*.{parent}").as_str())
        })
    }
}

impl ResolvesServerCert for CertificatesByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
            .cloned()
    }
}

/// Of one that can't be read there are none: whoever gets it will say why not.
fn names(certificate: &CertifiedKey) -> Vec<Box<str>> {
    certificate
        .end_entity_cert()
        .map(certificate_names)
        .unwrap_or_default()
}

/// The DNS names in a certificate, lower case; none when it can't be read.
pub fn certificate_names(certificate: &CertificateDer<'_>) -> Vec<Box<str>> {
    webpki::EndEntityCert::try_from(certificate)
        .map(|certificate| {
            let names = certificate.valid_dns_names();
            names.map(|name| name.to_ascii_lowercase().into()).collect()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::PrivateKeyDer;

    const ALL: [SignatureScheme; 2] = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ED25519,
    ];

    fn certificate(names: &[&str], key: &rcgen::KeyPair) -> CertifiedKey {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::CertificateParams::new(names)
            .unwrap()
            .self_signed(key)
            .unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![made.der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        CertifiedKey::from_der(chain, key, &provider).unwrap()
    }

    fn by_name(certificates: Vec<CertifiedKey>) -> Result<CertificatesByName, TlsError> {
        let files = |number: usize| CertificateFiles {
            certificate: format!("{number}.pem").into(),
            key: format!("{number}.key").into(),
        };
        let files: Vec<CertificateFiles> = (0..certificates.len()).map(files).collect();
        CertificatesByName::new(certificates, &files)
    }

    #[test]
    fn a_client_gets_the_certificate_of_the_name_it_asks_for() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificates = by_name(vec![
            certificate(&["relay.example"], &key),
            certificate(&["mail.acme.example", "Smtp.Acme.Example"], &key),
            certificate(&["*.other.example"], &key),
            certificate(&["mail.other.example"], &key),
        ])
        .unwrap();
        for (name, place) in [
            (None, 0),
            (Some("relay.example"), 0),
            (Some("mail.acme.example"), 1),
            (Some("SMTP.acme.example"), 1),
            (Some("any.other.example"), 2),
            (Some("mail.other.example"), 3),
            (Some("a.b.other.example"), 0),
            (Some("other.example"), 0),
            (Some("example"), 0),
        ] {
            let chosen = certificates.choose(name, &ALL).unwrap();
            assert!(Arc::ptr_eq(chosen, &certificates.all[place]), "{name:?}");
        }
        assert!(certificates.choose(None, &[]).is_none());
    }

    #[test]
    fn of_two_for_a_name_the_one_that_the_client_can_check_is_chosen() {
        let ecdsa = rcgen::KeyPair::generate().unwrap();
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificates = by_name(vec![
            certificate(&["relay.example"], &ed25519),
            certificate(&["relay.example"], &ecdsa),
        ])
        .unwrap();
        for (schemes, place) in [(&ALL[..], 0), (&ALL[..1], 1), (&ALL[1..], 0)] {
            for name in [Some("relay.example"), None] {
                let chosen = certificates.choose(name, schemes).unwrap();
                assert!(Arc::ptr_eq(chosen, &certificates.all[place]), "{schemes:?}");
            }
        }
    }

    #[test]
    fn only_the_first_may_be_without_a_name() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = |names: &[&str]| certificate(names, &key);
        assert!(by_name(vec![made(&[]), made(&["relay.example"])]).is_ok());
        let error = by_name(vec![made(&["relay.example"]), made(&[])]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("certificate 1.pem: it is for no host name")
        );
        assert!(matches!(by_name(Vec::new()), Err(TlsError::None)));
    }
}
