//! What is done with a message.

use dkim::{Algorithm, Batches, Draft, SealError, Signed};
use proto::envelope::ChainStatus;
use proto::signer::sign_result::Kind;
use proto::signer::{SignError, SignErrorKind, SignRequest, SignResult};

use crate::keyring::{DomainKey, Keyring, Ring};
use crate::metrics::Metrics;

/// How mail of a domain is signed.
enum Policy<'a> {
    /// With each of these keys, in this order; at least one.
    Sign(&'a [DomainKey], &'a Ring),
    /// Not at all.
    Unsigned,
    /// It must be signed, and cannot be.
    NoKey(String, Option<&'a Ring>),
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
            let detail = format!("{} is not a sending domain", request.domain);
            Policy::NoKey(detail, None)
        };
    };
    if sending_domain.unsigned {
        return Policy::Unsigned;
    }
    let domain = &sending_domain.domain;
    let Some(ring) = keyring.of(domain) else {
        return Policy::NoKey(keyring.why_none(domain), None);
    };
    let goes_without = || {
        let (tenant, stream) = (&request.tenant, &request.stream);
        keyring.may_go_without(sending_domain, tenant, stream, request.own_message)
    };
    let keys = ring.all();
    if keys.is_empty() || ring.own().is_empty() && !goes_without() {
        return Policy::NoKey(keyring.why_none(domain), Some(ring));
    }
    Policy::Sign(keys, ring)
}

/// A request on its way to its answer.
pub(crate) enum Prepared<'a> {
    /// There is nothing to sign.
    Answered(SignResult),
    /// To be signed with each of the keys.
    Drafts(Vec<Result<Draft<'a>, dkim::SignError>>, &'a Ring),
}

/// Decides about one request, all but the signatures. `now` is in Unix seconds.
pub(crate) fn prepare<'a>(
    keyring: &'a Keyring,
    request: &SignRequest,
    now: u64,
    metrics: &Metrics,
) -> Prepared<'a> {
    if request.forwarded {
        return Prepared::Answered(forwarded(keyring, request, now, metrics));
    }
    let (keys, ring) = match policy(keyring, request) {
        Policy::Unsigned => {
            metrics.requests.with_label_values(&["unsigned"]).inc();
            return Prepared::Answered(SignResult {
                kind: Some(Kind::Fields(Vec::new().into())),
            });
        }
        Policy::NoKey(detail, ring) => {
            if let Some(ring) = ring {
                ring.metrics.no_key.inc();
            }
            return Prepared::Answered(refusal(SignErrorKind::NoKey, detail, metrics));
        }
        Policy::Unknown => {
            let detail = "the signer has no configuration yet".to_owned();
            return Prepared::Answered(refusal(SignErrorKind::Temporary, detail, metrics));
        }
        Policy::Sign(keys, ring) => (keys, ring),
    };
    let Ok(body_hash) = <&[u8; 32]>::try_from(&request.body_hash[..]) else {
        let detail = format!(
            "the body hash has {} bytes instead of 32",
            request.body_hash.len()
        );
        return Prepared::Answered(refusal(SignErrorKind::Invalid, detail, metrics));
    };
    let draft = |key: &'a DomainKey| {
        let draft = key.draft(&request.header, body_hash, now);
        if draft.is_err() {
            metrics
                .signatures
                .with_label_values(&[key.algorithm().as_str(), "failed"])
                .inc();
        }
        draft
    };
    Prepared::Drafts(keys.iter().map(draft).collect(), ring)
}

/// Mail of others: sealed when that is asked for, never signed in their name.
fn forwarded(keyring: &Keyring, request: &SignRequest, now: u64, metrics: &Metrics) -> SignResult {
    let Some(seal) = &request.seal else {
        metrics.requests.with_label_values(&["unsigned"]).inc();
        return SignResult {
            kind: Some(Kind::Fields(Vec::new().into())),
        };
    };
    let of_seal = SignRequest {
        domain: seal.domain.clone(),
        ..SignRequest::default()
    };
    // Its own, and RSA comes first, which every verifier of chains knows.
    let key = match policy(keyring, &of_seal) {
        Policy::Sign(_, ring) if !ring.own().is_empty() => &ring.own()[0],
        Policy::Sign(..) | Policy::Unsigned => {
            let detail = format!("{} has no key to seal with", seal.domain);
            return refusal(SignErrorKind::NoKey, detail, metrics);
        }
        Policy::NoKey(detail, _) => return refusal(SignErrorKind::NoKey, detail, metrics),
        Policy::Unknown => {
            let detail = "the signer has no configuration yet".to_owned();
            return refusal(SignErrorKind::Temporary, detail, metrics);
        }
    };
    let Ok(body_hash) = <&[u8; 32]>::try_from(&request.body_hash[..]) else {
        let detail = format!(
            "the body hash has {} bytes instead of 32",
            request.body_hash.len()
        );
        return refusal(SignErrorKind::Invalid, detail, metrics);
    };
    let set = dkim::Seal {
        instance: seal.instance,
        status: match seal.status() {
            ChainStatus::None => dkim::ChainStatus::None,
            ChainStatus::Pass => dkim::ChainStatus::Pass,
            ChainStatus::Fail => dkim::ChainStatus::Fail,
        },
        results: &seal.results,
    };
    let sealed = key.seal(&request.header, body_hash, &set, now);
    let result = if sealed.is_ok() { "sealed" } else { "failed" };
    let labels = [key.algorithm().as_str(), result];
    metrics.signatures.with_label_values(&labels).inc();
    match sealed {
        Ok(fields) => {
            metrics.requests.with_label_values(&["sealed"]).inc();
            SignResult {
                kind: Some(Kind::Fields(fields.into())),
            }
        }
        Err(error @ SealError::Sign(dkim::SignError::Failed)) => {
            refusal(SignErrorKind::Temporary, error.to_string(), metrics)
        }
        // Strangers wrote what it is over. A set helps, and is no condition: the mail goes without.
        Err(error) => {
            tracing::debug!(domain = seal.domain, %error, "mail of others is not sealed");
            metrics.requests.with_label_values(&["unsigned"]).inc();
            SignResult {
                kind: Some(Kind::Fields(Vec::new().into())),
            }
        }
    }
}

/// Signs what was prepared, all of it together; answers in the same order.
pub(crate) fn complete(
    prepared: Vec<Prepared<'_>>,
    batches: Batches,
    metrics: &Metrics,
) -> Vec<SignResult> {
    let mut drafts = Vec::with_capacity(prepared.len());
    let mut answers = Vec::with_capacity(prepared.len());
    for prepared in prepared {
        answers.push(match prepared {
            Prepared::Answered(result) => Err(result),
            Prepared::Drafts(of_request, ring) => {
                let mut number = 0;
                let mut failure = None;
                for draft in of_request {
                    match draft {
                        Ok(draft) => {
                            number += 1;
                            drafts.push(draft);
                        }
                        Err(error) => failure = Some(error),
                    }
                }
                Ok((number, failure, ring))
            }
        });
    }
    let algorithms: Vec<_> = drafts.iter().map(Draft::algorithm).collect();
    let mut signed = algorithms.into_iter().zip(batches.sign(drafts));
    answers
        .into_iter()
        .map(|answer| match answer {
            Ok((number, failure, ring)) => {
                join(signed.by_ref().take(number), failure, ring, metrics)
            }
            Err(result) => result,
        })
        .collect()
}

/// The signatures of a request. When only some fail, the others are enough to deliver with.
fn join(
    signed: impl Iterator<Item = (Algorithm, Signed)>,
    mut failure: Option<dkim::SignError>,
    ring: &Ring,
    metrics: &Metrics,
) -> SignResult {
    let mut fields = Vec::new();
    for (algorithm, signed) in signed {
        let result = if signed.field.is_ok() {
            "signed"
        } else {
            "failed"
        };
        metrics
            .signatures
            .with_label_values(&[algorithm.as_str(), result])
            .inc();
        if algorithm == Algorithm::RsaSha256 {
            metrics.rsa.with_label_values(&[signed.way.as_str()]).inc();
        }
        match signed.field {
            Ok(field) => fields.extend(field),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if fields.is_empty() => {
            ring.metrics.failed.inc();
            let kind = match error {
                dkim::SignError::NoFrom | dkim::SignError::TooManyFields => SignErrorKind::Invalid,
                dkim::SignError::Failed => SignErrorKind::Temporary,
            };
            refusal(kind, error.to_string(), metrics)
        }
        _ => {
            if ring.own().is_empty() {
                ring.metrics.service.inc();
            } else {
                ring.metrics.signed.inc();
            }
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
            ..SignRequest::default()
        }
    }

    /// The fields, or the kind of the error.
    fn outcome(keyring: &Keyring, request: &SignRequest) -> Result<String, SignErrorKind> {
        let metrics = Metrics::new();
        let prepared = prepare(keyring, request, 1, &metrics);
        let mut answers = complete(vec![prepared], Batches::detect(), &metrics);
        match answers.remove(0).kind.unwrap() {
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
    fn answers_many_requests_in_order_whatever_becomes_of_each() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(folder.path());
        let metrics = Metrics::new();
        let of_kind = |number: usize| match number % 4 {
            0 => request("foreign.example"),
            1 => request("unsigned.example"),
            _ => SignRequest {
                header: format!("From: a@acme.example\r\nSubject: {number}\r\n").into(),
                ..request("acme.example")
            },
        };
        let requests: Vec<_> = (0..40).map(of_kind).collect();
        let prepare = |request| prepare(&keyring, request, 1, &metrics);
        let in_batches = complete(
            requests.iter().map(prepare).collect(),
            Batches::detect(),
            &metrics,
        );
        assert_eq!(in_batches.len(), requests.len());
        for (request, answer) in requests.iter().zip(in_batches) {
            let alone = complete(vec![prepare(request)], Batches::one_by_one(), &metrics);
            assert_eq!(alone, [answer]);
        }
    }

    /// `acme.example` with a key that can't be read and this beside it, `relay.example` with one that can.
    fn with_service(folder: &Path, of_acme: &str) -> Keyring {
        let path = folder.join("relay");
        std::fs::write(&path, dkim::generate_ed25519()).unwrap();
        let document = |kind: &str, name: &str, spec: &str| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
            )
        };
        let key = |path: &Path| {
            let path = path.display();
            format!("dkim: [ {{ selector: e1, algorithm: ed25519-sha256, key: \"file:{path}\" }} ]")
        };
        let streams = "streams: [ { name: transactional }, { name: bulk } ]";
        let documents = [
            document(
                "Tenant",
                "acme",
                &format!("{{ defaultStream: bulk, {streams} }}"),
            ),
            document(
                "SendingDomain",
                "relay.example",
                &format!("{{ tenant: acme, {} }}", key(&path)),
            ),
            document(
                "SendingDomain",
                "acme.example",
                &format!("{{ tenant: acme, {}{of_acme} }}", key(&folder.join("acme"))),
            ),
        ];
        let snapshot = config::Snapshot::from_documents(&documents.concat()).unwrap();
        KeyFiles::new(Metrics::new()).refresh(&std::sync::Arc::new(snapshot), true)
    }

    fn of_stream(stream: &str) -> SignRequest {
        SignRequest {
            tenant: "acme".to_owned(),
            stream: stream.to_owned(),
            ..request("acme.example")
        }
    }

    #[test]
    fn without_a_key_the_service_domain_signs_what_is_urgent_and_the_rest_waits() {
        let folder = tempfile::tempdir().unwrap();
        for (of_acme, urgent, bulk) in [
            (", serviceDomain: relay.example", true, false),
            (
                ", serviceDomain: relay.example, withoutKey: byStream",
                true,
                false,
            ),
            (
                ", serviceDomain: relay.example, withoutKey: service",
                true,
                true,
            ),
            (
                ", serviceDomain: relay.example, withoutKey: wait",
                false,
                false,
            ),
            ("", false, false),
        ] {
            let keyring = with_service(folder.path(), of_acme);
            for (stream, is_signed) in [
                ("transactional", urgent),
                ("bulk", bulk),
                ("unknown", bulk),
                ("", bulk),
            ] {
                match outcome(&keyring, &of_stream(stream)) {
                    Ok(fields) => {
                        assert!(is_signed, "{of_acme} {stream}");
                        assert_eq!(fields.matches("d=relay.example;").count(), 1, "{fields}");
                        assert!(!fields.contains("d=acme.example"), "{fields}");
                    }
                    Err(kind) => {
                        assert_eq!(
                            (is_signed, kind),
                            (false, SignErrorKind::NoKey),
                            "{of_acme} {stream}"
                        );
                    }
                }
            }
            let own = SignRequest {
                own_message: true,
                ..of_stream("")
            };
            assert_eq!(outcome(&keyring, &own).is_ok(), urgent, "{of_acme}");
        }
    }

    #[test]
    fn the_service_domain_signs_beside_the_domain_itself() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("acme"), dkim::generate_ed25519()).unwrap();
        let more = ", serviceDomain: relay.example, signaturesExpireAfter: 1h";
        let keyring = with_service(folder.path(), more);
        let fields = outcome(&keyring, &of_stream("bulk")).unwrap();
        let (own, service) = fields.split_once("d=relay.example;").unwrap();
        assert!(
            own.contains("d=acme.example; s=e1;\r\n\tt=1; x=3601;"),
            "{own}"
        );
        // How long its signatures hold is its own affair.
        assert!(!service.contains("x="), "{service}");
        let of_service = outcome(&keyring, &request("relay.example")).unwrap();
        assert_eq!(of_service.matches("DKIM-Signature:").count(), 1);
        // Sets of others are sealed with the domain's own key only.
        let sealed = SignRequest {
            forwarded: true,
            seal: Some(proto::envelope::Seal {
                domain: "acme.example".to_owned(),
                instance: 1,
                status: ChainStatus::None.into(),
                results: "relay.example; arc=none".to_owned(),
            }),
            ..request("acme.example")
        };
        let set = outcome(&keyring, &sealed).unwrap();
        assert!(
            set.contains("d=acme.example") && !set.contains("d=relay.example"),
            "{set}"
        );
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
    fn mail_of_others_is_sealed_and_never_signed() {
        let folder = tempfile::tempdir().unwrap();
        let keyring = keyring(folder.path());
        let forwarded = |author: &str, seal: Option<&str>| SignRequest {
            header: format!("From: a@{author}\r\n").into(),
            forwarded: true,
            seal: seal.map(|domain| proto::envelope::Seal {
                domain: domain.to_owned(),
                instance: 1,
                status: ChainStatus::None.into(),
                results: "relay.example; arc=none".to_owned(),
            }),
            ..request("acme.example")
        };
        for author in ["foreign.example", "acme.example"] {
            assert_eq!(
                outcome(&keyring, &forwarded(author, None)),
                Ok(String::new())
            );
            let set = outcome(&keyring, &forwarded(author, Some("acme.example"))).unwrap();
            assert!(
                set.starts_with("ARC-Seal: i=1; a=rsa-sha256; cv=none;"),
                "{set}"
            );
            assert!(set.contains("ARC-Message-Signature: i=1;"), "{set}");
            assert!(set.contains("ARC-Authentication-Results: i=1; relay.example; arc=none\r\n"));
            assert!(!set.contains("DKIM-Signature:"));
        }
        for domain in ["unsigned.example", "foreign.example"] {
            let request = forwarded("foreign.example", Some(domain));
            assert_eq!(outcome(&keyring, &request), Err(SignErrorKind::NoKey));
        }
        let mut wrong = forwarded("foreign.example", Some("acme.example"));
        if let Some(seal) = &mut wrong.seal {
            seal.instance = 2;
        }
        assert_eq!(outcome(&keyring, &wrong), Ok(String::new()));
        let mut many = forwarded("foreign.example", Some("acme.example"));
        let fields = "DKIM-Signature:\r\n".repeat(2_000);
        many.header = format!("{fields}From: a@foreign.example\r\n").into();
        assert_eq!(outcome(&keyring, &many), Ok(String::new()));
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
