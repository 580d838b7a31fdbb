//! What is done with a message.

use proto::signer::sign_result::Kind;
use proto::signer::{SignError, SignErrorKind, SignRequest, SignResult};

use crate::keys::{DomainKey, Keyring};
use crate::metrics::Metrics;

/// How mail of a domain is signed.
enum Policy<'a> {
    /// With each of these keys, in this order; at least one.
    Sign(&'a [DomainKey]),
    /// Not at all.
    Unsigned,
    /// It must be signed, and cannot be.
    NoKey(String),
    /// There is no configuration yet, so nothing is known of the domain.
    Unknown,
}

fn policy<'a>(keyring: &'a Keyring, request: &SignRequest) -> Policy<'a> {
    if keyring.snapshot.is_empty() {
        return Policy::Unknown;
    }
    let Some(sending_domain) = keyring.snapshot.sending_domain(&request.domain) else {
        return if request.own_message {
            Policy::Unsigned
        } else {
            Policy::NoKey(format!("{} is not a sending domain", request.domain))
        };
    };
    if sending_domain.unsigned {
        return Policy::Unsigned;
    }
    match keyring.of(&sending_domain.domain) {
        [] => Policy::NoKey(format!("no key of {} is loaded", sending_domain.domain)),
        keys => Policy::Sign(keys),
    }
}

/// Answers one request; takes the time of its signatures. `now` is in Unix seconds.
pub(crate) fn answer(
    keyring: &Keyring,
    request: &SignRequest,
    now: u64,
    metrics: &Metrics,
) -> SignResult {
    match policy(keyring, request) {
        Policy::Unsigned => {
            metrics.requests.with_label_values(&["unsigned"]).inc();
            SignResult {
                kind: Some(Kind::Fields(Vec::new().into())),
            }
        }
        Policy::NoKey(detail) => refusal(SignErrorKind::NoKey, detail, metrics),
        Policy::Unknown => {
            let detail = "the signer has no configuration yet".to_owned();
            refusal(SignErrorKind::Temporary, detail, metrics)
        }
        Policy::Sign(keys) => sign(keys, request, now, metrics),
    }
}

/// Signs with every key. When only some fail, the others' signatures are enough to deliver with.
fn sign(keys: &[DomainKey], request: &SignRequest, now: u64, metrics: &Metrics) -> SignResult {
    let Ok(body_hash) = <&[u8; 32]>::try_from(&request.body_hash[..]) else {
        let detail = format!(
            "the body hash has {} bytes instead of 32",
            request.body_hash.len()
        );
        return refusal(SignErrorKind::Invalid, detail, metrics);
    };
    let mut fields = Vec::new();
    let mut failure = None;
    for key in keys {
        let signed = key.sign(&request.header, body_hash, now);
        let result = if signed.is_ok() { "signed" } else { "failed" };
        metrics
            .signatures
            .with_label_values(&[key.algorithm().as_str(), result])
            .inc();
        match signed {
            Ok(field) => fields.extend(field),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if fields.is_empty() => {
            let kind = match error {
                dkim::SignError::NoFrom | dkim::SignError::TooManyFields => SignErrorKind::Invalid,
                dkim::SignError::Failed => SignErrorKind::Temporary,
            };
            refusal(kind, error.to_string(), metrics)
        }
        _ => {
            metrics.requests.with_label_values(&["signed"]).inc();
            SignResult {
                kind: Some(Kind::Fields(fields.into())),
            }
        }
    }
}

/// An error, counted.
pub(crate) fn refusal(kind: SignErrorKind, detail: String, metrics: &Metrics) -> SignResult {
    let result = match kind {
        SignErrorKind::NoKey => "no_key",
        SignErrorKind::Invalid => "invalid",
        SignErrorKind::Temporary | SignErrorKind::Unspecified => "temporary",
    };
    metrics.requests.with_label_values(&[result]).inc();
    let error = SignError {
        kind: kind.into(),
        detail,
    };
    SignResult {
        kind: Some(Kind::Error(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::keys::KeyFiles;
    use crate::keys::tests::snapshot;

    fn request(domain: &str) -> SignRequest {
        SignRequest {
            domain: domain.to_owned(),
            header: b"From: a@acme.example\r\n".as_slice().into(),
            body_hash: vec![7; 32].into(),
            own_message: false,
        }
    }

    /// The fields, or the kind of the error.
    fn outcome(keyring: &Keyring, request: &SignRequest) -> Result<String, SignErrorKind> {
        match answer(keyring, request, 1, &Metrics::new()).kind.unwrap() {
            Kind::Fields(fields) => Ok(String::from_utf8(fields.to_vec()).unwrap()),
            Kind::Error(error) => Err(error.kind()),
        }
    }

    fn keyring(folder: &Path) -> Keyring {
        let (rsa, ed25519) = (folder.join("r"), folder.join("e"));
        std::fs::write(&rsa, dkim::generate_rsa2048()).unwrap();
        std::fs::write(&ed25519, dkim::generate_ed25519()).unwrap();
        let snapshot = snapshot(&[
            ("e1", "ed25519-sha256", &ed25519),
            ("s1", "rsa-sha256", &rsa),
        ]);
        KeyFiles::new(Metrics::new()).refresh(&snapshot, true)
    }

    #[test]
    fn signs_once_with_each_key_of_the_domain_rsa_first() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(folder.path());
        for domain in ["acme.example", "news.acme.example"] {
            let fields = outcome(&keyring, &request(domain)).unwrap();
            assert_eq!(fields.matches("DKIM-Signature:").count(), 2);
            assert!(
                fields.find("a=rsa-sha256").unwrap() < fields.find("a=ed25519-sha256").unwrap()
            );
            assert_eq!(fields.matches("d=acme.example;").count(), 2, "{fields}");
            assert!(fields.ends_with("\r\n"));
        }
    }

    #[test]
    fn leaves_unsigned_only_what_may_be() {
        let snapshot = snapshot(&[("s1", "rsa-sha256", Path::new("/none"))]);
        let keyring = KeyFiles::new(Metrics::new()).refresh(&snapshot, true);
        assert_eq!(
            outcome(&keyring, &request("unsigned.example")),
            Ok(String::new())
        );
        assert_eq!(
            outcome(&keyring, &request("foreign.example")),
            Err(SignErrorKind::NoKey)
        );
        let own = SignRequest {
            own_message: true,
            ..request("foreign.example")
        };
        assert_eq!(outcome(&keyring, &own), Ok(String::new()));
        // It has keys, but none could be loaded: that must not turn into unsigned mail.
        for own_message in [false, true] {
            let request = SignRequest {
                own_message,
                ..request("acme.example")
            };
            assert_eq!(outcome(&keyring, &request), Err(SignErrorKind::NoKey));
        }
    }

    #[test]
    fn knows_nothing_before_there_is_a_configuration() {
        let keyring = KeyFiles::new(Metrics::new()).refresh(&std::sync::Arc::default(), true);
        for own_message in [false, true] {
            let request = SignRequest {
                own_message,
                ..request("acme.example")
            };
            assert_eq!(outcome(&keyring, &request), Err(SignErrorKind::Temporary));
        }
    }

    #[test]
    fn refuses_requests_that_are_not_well_formed() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(folder.path());
        let short_hash = SignRequest {
            body_hash: vec![7; 31].into(),
            ..request("acme.example")
        };
        assert_eq!(outcome(&keyring, &short_hash), Err(SignErrorKind::Invalid));
        let no_from = SignRequest {
            header: b"To: a@b\r\n".as_slice().into(),
            ..request("acme.example")
        };
        assert_eq!(outcome(&keyring, &no_from), Err(SignErrorKind::Invalid));
    }
}
