//! What was wrong with the TLS of a host, in the words of RFC 8460 section 4.3.

use rustls::{CertificateError, Error};

/// Why a session did not come up to what is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// STARTTLS is not offered, or refused.
    NoStarttls,
    /// The certificate is for other names.
    HostMismatch,
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is signed by nobody who is trusted.
    NotTrusted,
    /// The host has TLSA records, and none that can be used.
    TlsaInvalid,
    /// What the DNS says of the host can't be had, or is forged.
    DnssecInvalid,
    /// Anything else.
    Other,
}

impl Fault {
    /// Value of the label `result`.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoStarttls => "starttls-not-supported",
            Self::HostMismatch => "certificate-host-mismatch",
            Self::Expired => "certificate-expired",
            Self::NotTrusted => "certificate-not-trusted",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::Other => "validation-failure",
        }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        let Error::InvalidCertificate(certificate) = error else {
            return Self::Other;
        };
        match certificate {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::HostMismatch
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::UnknownIssuer => Self::NotTrusted,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_fail_for_reasons_that_have_names() {
        let certificate = |error: CertificateError| Error::from(error);
        for (error, name) in [
            (
                certificate(CertificateError::NotValidForName),
                "certificate-host-mismatch",
            ),
            (
                certificate(CertificateError::Expired),
                "certificate-expired",
            ),
            (
                certificate(CertificateError::UnknownIssuer),
                "certificate-not-trusted",
            ),
            (
                certificate(CertificateError::BadSignature),
                "validation-failure",
            ),
            (Error::NoCertificatesPresented, "validation-failure"),
        ] {
            assert_eq!(Fault::from(&error).name(), name);
        }
    }
}
