//! Hosts whose certificates the DNS names (DANE, RFC 7672).

mod certificate;
mod verifier;

use std::sync::Arc;

use dns::{Tlsa, TlsaRecord};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, Error};
use webpki::{EndEntityCert, KeyUsage};

pub(super) use verifier::Verifier;

/// DANE-TA: an authority that signs the host's certificate.
const AUTHORITY: u8 = 2;
/// DANE-EE: the host's own certificate or key.
const OWN: u8 = 3;

/// Authorities of which is looked whether they have signed: the host decides how many it shows.
const MOST_AUTHORITIES: usize = 8;

/// What DNSSEC says of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Dane {
    /// Nothing.
    #[default]
    Absent,
    /// Records that nobody can use: TLS must be spoken, with any certificate (RFC 7672 section 2.2).
    Unusable,
    /// What it must show.
    Usable(Arc<Tlsa>),
}

impl From<Option<Arc<Tlsa>>> for Dane {
    fn from(found: Option<Arc<Tlsa>>) -> Self {
        match found {
            None => Self::Absent,
            Some(tlsa) if tlsa.records.iter().any(is_usable) => Self::Usable(tlsa),
            Some(_) => Self::Unusable,
        }
    }
}

/// How a host has shown what it must.
#[derive(Debug, Clone)]
pub(super) struct Proved {
    tlsa: Arc<Tlsa>,
    /// Its certificate speaks for this recipient domain, and not for the host.
    domain: Option<Arc<str>>,
}

impl Proved {
    /// Whether that is enough for mail of the domain, when the host must show this.
    pub fn is_enough(&self, tlsa: &Arc<Tlsa>, domain: Option<&str>) -> bool {
        let same = Arc::ptr_eq(&self.tlsa, tlsa) || self.tlsa == *tlsa;
        same && (self.domain.is_none() || self.domain.as_deref() == domain)
    }
}

/// For whom a certificate speaks.
#[derive(Debug, PartialEq, Eq)]
enum For {
    Host,
    Domain,
}

/// RFC 7672 section 3.1: other usages are for other protocols. What this side does not understand is passed over.
fn is_usable(record: &TlsaRecord) -> bool {
    let length = record.data.len();
    let has_form = match record.matching {
        0 => length > 0,
        1 => length == 32,
        2 => length == 64,
        _ => false,
    };
    matches!(record.usage, AUTHORITY | OWN) && record.selector <= 1 && has_form
}

/// The usable records that count: where there is a SHA-512, no SHA-256 of the same kind does (RFC 7671 section 9).
fn counting(records: &[TlsaRecord]) -> impl Iterator<Item = &TlsaRecord> {
    let is_outdone = |record: &TlsaRecord| {
        let same = |other: &&TlsaRecord| {
            (other.usage, other.selector, other.matching) == (record.usage, record.selector, 2)
        };
        let mut usable = records.iter().filter(|other| is_usable(other));
        record.matching == 1 && usable.any(|other| same(&other))
    };
    let usable = records.iter().filter(|record| is_usable(record));
    usable.filter(move |record| !is_outdone(record))
}

#[derive(Debug, thiserror::Error)]
#[error("it is none that the TLSA records of the host name")]
struct NoMatch;

/// What the chain of a host proves, the host's own certificate first. `domain` is that of the recipients.
fn prove(
    tlsa: &Tlsa,
    domain: Option<&str>,
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<For, Error> {
    let Some((own, rest)) = chain.split_first() else {
        return Err(Error::NoCertificatesPresented);
    };
    let records: Vec<&TlsaRecord> = counting(&tlsa.records).collect();
    let is_named = |usage: u8, certificate: &CertificateDer<'_>| {
        let mut of_usage = records.iter().filter(|record| record.usage == usage);
        of_usage.any(|record| certificate::matches(record, certificate))
    };
    if is_named(OWN, own) {
        // Neither its names nor its time say anything (RFC 7672 section 3.1.1).
        return Ok(For::Host);
    }
    // An authority need not send its certificate when all of it is in the record.
    let is_whole = |record: &&&TlsaRecord| {
        (record.usage, record.selector, record.matching) == (AUTHORITY, 0, 0)
    };
    let told = records.iter().filter(is_whole);
    let told: Vec<CertificateDer<'_>> = told.map(|record| record.data.as_ref().into()).collect();
    let shown = chain.iter().filter(|one| is_named(AUTHORITY, one));
    let mut last = Error::from(CertificateError::Other(rustls::OtherError(Arc::new(
        NoMatch,
    ))));
    for authority in shown.chain(&told).take(MOST_AUTHORITIES) {
        match signed_by(authority, own, rest, now, provider) {
            Ok(end) => return names(&end, tlsa, domain),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The host's certificate, when the authority has signed it, through others of the chain or directly.
fn signed_by<'a>(
    authority: &CertificateDer<'_>,
    own: &'a CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<EndEntityCert<'a>, Error> {
    let anchor = webpki::anchor_from_trusted_cert(authority).map_err(error_of)?;
    let end = EndEntityCert::try_from(own).map_err(error_of)?;
    end.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &[anchor],
        rest,
        now,
        KeyUsage::server_auth(),
        None,
        None,
    )
    .map_err(error_of)?;
    Ok(end)
}

/// RFC 7672 section 3.2.2.
fn names(end: &EndEntityCert<'_>, tlsa: &Tlsa, domain: Option<&str>) -> Result<For, Error> {
    let is_for = |name: &str| {
        let name = ServerName::try_from(name).ok();
        name.is_some_and(|name| end.verify_is_valid_for_subject_name(&name).is_ok())
    };
    if is_for(&tlsa.base) {
        Ok(For::Host)
    } else if domain.is_some_and(is_for) {
        Ok(For::Domain)
    } else {
        Err(CertificateError::NotValidForName.into())
    }
}

fn error_of(error: webpki::Error) -> Error {
    match error {
        webpki::Error::CertExpired { .. } => CertificateError::Expired,
        webpki::Error::CertNotValidYet { .. } => CertificateError::NotValidYet,
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::BadDer | webpki::Error::BadDerTime => CertificateError::BadEncoding,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    }
    .into()
}

#[cfg(test)]
mod tests;
