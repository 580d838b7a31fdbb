//! Credentials that forward mail of foreign senders.

use config::{LongReturnPath, ReturnPath, Snapshot};

use crate::{COMPLETE, document};

/// The complete configuration with a tenant that may forward, and a credential of it.
fn with(may_forward: bool, foreign: &str) -> String {
    let documents = [
        document(
            "Tenant",
            "t",
            &format!(
                "{{ defaultStream: m, streams: [ {{ name: m }} ], mayForward: {may_forward} }}"
            ),
        ),
        document(
            "SendingDomain",
            "t.example",
            "{ tenant: t, unsigned: true }",
        ),
        document(
            "SendingDomain",
            "keys.t.example",
            "{ tenant: t, dkim: [ { selector: s, algorithm: rsa-sha256, key: \"file:/k\" } ] }",
        ),
        document(
            "Credential",
            "c",
            &format!("{{ tenant: t, networks: [ \"192.0.2.0/24\" ], foreignSenders: {foreign} }}"),
        ),
    ];
    format!("{COMPLETE}{}", documents.concat())
}

#[test]
fn how_a_credential_forwards_reads_back() {
    for (foreign, return_path, long, seal, results_of) in [
        (
            "{ domain: t.example }",
            ReturnPath::Srs,
            LongReturnPath::Reject,
            false,
            None,
        ),
        (
            "{ domain: T.example, returnPath: srs, longReturnPath: empty }",
            ReturnPath::Srs,
            LongReturnPath::Empty,
            false,
            None,
        ),
        (
            "{ domain: keys.t.example, returnPath: keep, seal: true, resultsOf: mx.t.example }",
            ReturnPath::Keep,
            LongReturnPath::Reject,
            true,
            Some("mx.t.example"),
        ),
    ] {
        let snapshot = Snapshot::from_documents(&with(true, foreign)).unwrap();
        let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
        assert_eq!(read.hash(), snapshot.hash());
        assert!(read.tenant("t").unwrap().may_forward);
        let credential = read.credential("c").unwrap();
        let found = credential.foreign_senders.as_ref().unwrap();
        assert_eq!(found.return_path, return_path);
        assert_eq!(found.long_return_path, long);
        assert_eq!(found.seal, seal);
        let server = found.results_of.as_ref().map(|server| server.as_str());
        assert_eq!(server, results_of);
    }
    let snapshot = Snapshot::from_documents(COMPLETE).unwrap();
    assert!(!snapshot.tenant("acme").unwrap().may_forward);
    let credential = snapshot.credential("acme-app").unwrap();
    assert_eq!(credential.foreign_senders, None);
}

#[test]
fn says_what_is_missing_to_forward() {
    for (may_forward, foreign, path, problem) in [
        (
            false,
            "{ domain: t.example }",
            "spec.foreignSenders",
            "the tenant t may not forward mail of others: its document must say `mayForward: true`",
        ),
        (
            true,
            "{}",
            "spec.foreignSenders.domain",
            "is missing: a sending domain",
        ),
        (
            true,
            "{ domain: sub.t.example }",
            "spec.foreignSenders.domain",
            "no SendingDomain named \"sub.t.example\"",
        ),
        (
            true,
            "{ domain: acme.example }",
            "spec.foreignSenders.domain",
            "acme.example is a domain of the tenant acme",
        ),
        (
            true,
            "{ domain: t.example, seal: true }",
            "spec.foreignSenders.seal",
            "SendingDomain/t.example has no dkim keys to seal with",
        ),
        (
            true,
            "{ domain: t.example, returnPath: arc }",
            "spec.foreignSenders.returnPath",
            "one of srs, keep is expected",
        ),
        (
            true,
            "{ domain: t.example, returnPath: keep, longReturnPath: empty }",
            "spec.foreignSenders.longReturnPath",
            "has no effect",
        ),
        (
            true,
            "{ domain: t.example, resultsOf: mx.t.example }",
            "spec.foreignSenders.resultsOf",
            "has no effect without `seal: true`",
        ),
        (
            true,
            "{ domain: t.example, relay: true }",
            "spec.foreignSenders.relay",
            "unknown field; known: domain, returnPath, longReturnPath, seal, resultsOf",
        ),
    ] {
        let problems = Snapshot::from_documents(&with(may_forward, foreign)).unwrap_err();
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            texts.len() == 1 && texts[0].contains(path) && texts[0].contains(problem),
            "{foreign}: {texts:?}"
        );
    }
}
