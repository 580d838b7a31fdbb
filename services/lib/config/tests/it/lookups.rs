use config::{DkimAlgorithm, InDoubt, PasswordHash, Shaping, ShapingQuery, Snapshot, TlsPolicy};
use mail::Span;

use crate::{COMPLETE, document};

fn base() -> String {
    [
        document(
            "Tenant",
            "acme",
            "{ defaultStream: main, streams: [ { name: main }, { name: bulk } ] }",
        ),
        document(
            "Tenant",
            "other",
            "{ defaultStream: main, streams: [ { name: main } ] }",
        ),
        document(
            "EgressPool",
            "default",
            "{ sources: [ { name: a }, { name: b } ] }",
        ),
        document("EgressPool", "warm", "{ sources: [ { name: c } ] }"),
    ]
    .concat()
}

fn snapshot(more: &[String]) -> Snapshot {
    Snapshot::from_documents(&(base() + &more.concat())).unwrap()
}

#[test]
fn a_complete_configuration_has_the_values_that_were_written() {
    let snapshot = Snapshot::from_documents(COMPLETE).unwrap();
    assert_eq!(snapshot.len(), 6);
    let tenant = snapshot.tenant("acme").unwrap();
    assert_eq!(tenant.stream("bulk").unwrap().in_doubt, InDoubt::Hold);
    let credential = snapshot.credential_by_username("app@acme.example").unwrap();
    assert_eq!(credential.tenant, "acme");
    let login = credential.login.as_ref().unwrap();
    assert!(
        matches!(&login.password_hash, PasswordHash::Phc(phc) if phc.starts_with("$argon2id$"))
    );
    assert_eq!(format!("{:?}", login.password_hash), "Phc(…)");
    let domain = snapshot.sending_domain("acme.example").unwrap();
    let algorithms: Vec<_> = domain.dkim.iter().map(|key| key.algorithm).collect();
    assert_eq!(
        algorithms,
        [DkimAlgorithm::RsaSha256, DkimAlgorithm::Ed25519Sha256]
    );
    let route = snapshot.route("acme", "bulk", "somewhere.example").unwrap();
    assert_eq!(
        (route.port, route.allow_private, route.max_age),
        (2525, true, Span::from_secs(432_000))
    );
}

#[test]
fn the_network_with_the_longest_prefix_gives_the_credential() {
    let snapshot = snapshot(&[
        document(
            "Credential",
            "wide",
            "{ tenant: acme, networks: [ \"10.0.0.0/8\" ] }",
        ),
        document(
            "Credential",
            "narrow",
            "{ tenant: acme, networks: [ \"10.1.0.0/16\", \"2001:db8::/32\" ] }",
        ),
    ]);
    let name = |address: &str| {
        snapshot
            .credential_for_network(address.parse().unwrap())
            .map(|credential| credential.name.as_str())
    };
    assert_eq!(name("10.2.0.1"), Some("wide"));
    assert_eq!(name("10.1.0.1"), Some("narrow"));
    assert_eq!(name("::ffff:10.1.0.1"), Some("narrow"));
    assert_eq!(name("2001:db8::1"), Some("narrow"));
    assert_eq!(name("192.0.2.1"), None);
}

#[test]
fn a_sending_domain_has_its_subdomains_only_when_it_says_so() {
    let snapshot = snapshot(&[
        document(
            "SendingDomain",
            "acme.example",
            "{ tenant: acme, unsigned: true, includeSubdomains: true }",
        ),
        document(
            "SendingDomain",
            "own.acme.example",
            "{ tenant: other, unsigned: true }",
        ),
    ]);
    let tenant = |domain: &str| {
        snapshot
            .sending_domain(domain)
            .map(|found| found.tenant.as_str())
    };
    assert_eq!(tenant("acme.example"), Some("acme"));
    assert_eq!(tenant("a.b.acme.example"), Some("acme"));
    assert_eq!(tenant("own.acme.example"), Some("other"));
    assert_eq!(tenant("below.own.acme.example"), Some("acme"));
    assert_eq!(tenant("notacme.example"), None);
    assert_eq!(tenant("example"), None);
}

#[test]
fn the_most_specific_route_wins_domain_before_stream_before_tenant() {
    let route = |name: &str, matched: &str| {
        document(
            "Route",
            name,
            &format!("{{ match: {matched}, pool: default }}"),
        )
    };
    let snapshot = snapshot(&[
        route("any", "{}"),
        route("tenant", "{ tenants: [ acme ] }"),
        route("stream", "{ streams: [ bulk ] }"),
        route("below", "{ domains: [ .example ] }"),
        route("below-longer", "{ domains: [ .mail.example ] }"),
        route(
            "exact",
            "{ domains: [ a.mail.example ], tenants: [ acme ] }",
        ),
    ]);
    let name = |tenant, stream, domain| {
        snapshot
            .route(tenant, stream, domain)
            .unwrap()
            .name
            .as_str()
    };
    assert_eq!(name("other", "main", "b.test"), "any");
    assert_eq!(name("acme", "main", "b.test"), "tenant");
    assert_eq!(name("acme", "bulk", "b.test"), "stream");
    assert_eq!(name("acme", "bulk", "x.example"), "below");
    assert_eq!(name("acme", "bulk", "x.mail.example"), "below-longer");
    assert_eq!(name("acme", "main", "a.mail.example"), "exact");
    // The exact one is not for this tenant: the next by domain.
    assert_eq!(name("other", "main", "a.mail.example"), "below-longer");
    assert_eq!(name("other", "main", "example"), "any");
}

#[test]
fn without_a_matching_route_there_is_none() {
    let snapshot = snapshot(&[document(
        "Route",
        "r",
        "{ match: { tenants: [ acme ] }, pool: default }",
    )]);
    assert!(snapshot.route("other", "main", "b.test").is_none());
}

fn times_of(shaping: &Shaping) -> [Span; 3] {
    [
        shaping.command_timeout,
        shaping.data_timeout,
        shaping.final_reply_timeout,
    ]
}

#[test]
fn shaping_takes_each_field_from_the_most_specific_rule_that_sets_it() {
    let rules = r#"
  rules:
    - { match: {}, connections: 10, rate: 100/s, tls: required }
    - { match: { pool: default }, connections: 11, messagesPerConnection: 50, commandTimeout: 1m, dataTimeout: 2m, finalReplyTimeout: 1h }
    - { match: { site: .google.test }, connections: 12, rate: none }
    - { match: { domain: big.example }, connections: 13 }
    - { match: { source: b }, connections: 14, tls: none }"#;
    let snapshot = snapshot(&[document("Shaping", "default", rules)]);
    let shaping = |source, domain, site, pool| {
        snapshot.shaping(&ShapingQuery {
            site,
            domain,
            stream: "main",
            source,
            pool,
        })
    };
    let plain = shaping("c", "x.test", "mx.x.test", "warm");
    assert_eq!(
        (plain.connections, plain.messages_per_connection),
        (10, 100)
    );
    assert_eq!(plain.rates, ["100/s".parse().unwrap()]);
    assert_eq!(plain.idle_timeout, Shaping::default().idle_timeout);
    assert_eq!(times_of(&plain), times_of(&Shaping::default()));
    let pooled = shaping("a", "x.test", "mx.x.test", "default");
    assert_eq!(
        (pooled.connections, pooled.messages_per_connection),
        (11, 50)
    );
    assert_eq!(times_of(&pooled), [60, 120, 3600].map(Span::from_secs));
    let sited = shaping("a", "x.test", "mx1.google.test", "default");
    assert_eq!(
        (
            sited.connections,
            sited.messages_per_connection,
            sited.rates.len()
        ),
        (12, 50, 0)
    );
    let named = shaping("a", "big.example", "mx1.google.test", "default");
    assert_eq!((named.connections, named.rates.len()), (13, 0));
    let sourced = shaping("b", "big.example", "mx1.google.test", "default");
    assert_eq!((sourced.connections, sourced.tls), (14, TlsPolicy::None));
}
