use config::{Snapshot, WithoutKey};
use mail::Span;

use crate::document;

fn tenant() -> String {
    document(
        "Tenant",
        "t",
        "{ defaultStream: m, streams: [ { name: m } ] }",
    )
}

fn key(selector: &str, more: &str) -> String {
    format!("{{ selector: {selector}, algorithm: rsa-sha256, key: \"file:/{selector}\"{more} }}")
}

fn domain(name: &str, spec: &str) -> String {
    document("SendingDomain", name, &format!("{{ tenant: t, {spec} }}"))
}

fn problems(documents: &str) -> Vec<String> {
    let service = domain("relay.example", &format!("dkim: [ {} ]", key("r", "")));
    match Snapshot::from_documents(&(tenant() + &service + documents)) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn how_a_domain_is_signed_reads_back() {
    let keys = [
        key("s1", ""),
        key("s2", ", replaces: S1"),
        key("s3", ", whenPublished: true"),
    ];
    let documents = [
        tenant(),
        domain("relay.example", &format!("dkim: [ {} ]", key("r", ""))),
        domain(
            "a.example",
            &format!(
                "dkim: [ {} ], serviceDomain: Relay.example, withoutKey: wait, signaturesExpireAfter: 7d",
                keys.join(", ")
            ),
        ),
        domain(
            "b.example",
            "serviceDomain: relay.example, withoutKey: service",
        ),
    ];
    let snapshot = Snapshot::from_documents(&documents.concat()).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let found = read.sending_domain("a.example").unwrap();
    let staged: Vec<_> = found
        .dkim
        .iter()
        .map(|key| (key.when_published, key.replaces.as_deref()))
        .collect();
    assert_eq!(staged, [(false, None), (true, Some("s1")), (true, None)]);
    assert_eq!(
        found.service_domain.as_ref().map(|domain| domain.as_str()),
        Some("relay.example")
    );
    assert_eq!(found.without_key, WithoutKey::Wait);
    assert_eq!(
        found.signatures_expire_after,
        Some(Span::from_secs(7 * 86_400))
    );
    let usual = read.sending_domain("relay.example").unwrap();
    assert_eq!(usual.without_key, WithoutKey::ByStream);
    assert!(read.sending_domain("b.example").unwrap().dkim.is_empty());
}

#[test]
fn what_cannot_be_signed_so_is_said() {
    let two = |more: &str| format!("dkim: [ {}, {} ]", key("s1", ""), key("s2", more));
    for (spec, problem) in [
        (
            two(", replaces: s3"),
            "dkim[1].replaces: no key above this one has the selector \"s3\"",
        ),
        (
            two(", replaces: s2"),
            "dkim[1].replaces: no key above this one",
        ),
        (
            two(", replaces: s1, whenPublished: false"),
            "dkim[1].whenPublished: is false, and a key that replaces another waits",
        ),
        (
            two(", replaces: s1").replacen(
                "s1, algorithm: rsa-sha256",
                "s1, algorithm: ed25519-sha256",
                1,
            ),
            "dkim[1].replaces: s1 has another algorithm",
        ),
        (
            two(", replaces: s1").replace(" ]", &format!(", {} ]", key("s3", ", replaces: s1"))),
            "dkim[2].replaces: s1 is replaced by s2 already",
        ),
        (
            "serviceDomain: none.example".to_owned(),
            "serviceDomain: no SendingDomain named \"none.example\"",
        ),
        (
            "serviceDomain: a.example".to_owned(),
            "serviceDomain: is the domain itself",
        ),
        (
            "unsigned: true, serviceDomain: relay.example".to_owned(),
            "unsigned: is true, and there is a serviceDomain",
        ),
        (
            two("") + ", withoutKey: service",
            "withoutKey: is service, and there is no serviceDomain",
        ),
        (
            two("") + ", withoutKey: unsigned",
            "withoutKey: one of byStream, service, wait is expected",
        ),
        (
            two("") + ", signaturesExpireAfter: 5m",
            "signaturesExpireAfter: 1h to 365d is expected, found 5m",
        ),
    ] {
        let found = problems(&domain("a.example", &spec));
        assert_eq!(found.len(), 1, "{spec}: {found:?}");
        let (path, what) = problem.split_once(": ").unwrap();
        assert!(
            found[0].contains(path) && found[0].contains(what),
            "{spec}: {found:?}"
        );
    }
    let unsigned =
        domain("c.example", "unsigned: true") + &domain("a.example", "serviceDomain: c.example");
    assert!(
        problems(&unsigned)[0].contains("SendingDomain/c.example has no dkim keys to sign with")
    );
    assert!(problems(&domain("a.example", "serviceDomain: relay.example")).is_empty());
}
