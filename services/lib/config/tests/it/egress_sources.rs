//! Smart hosts, proxies and certificates of egress sources.

use config::{AuthMechanism, AuthOver, ProxyProtocol, SmartHostTls, Snapshot};

use crate::document;

fn pool(sources: &str) -> String {
    document("EgressPool", "p", &format!("{{ sources: [ {sources} ] }}"))
}

/// Without their lines.
fn problems(documents: &str) -> Vec<String> {
    let problems = Snapshot::from_documents(documents).unwrap_err();
    let without_line = |text: String| match text.split_once(" (line ") {
        Some((before, after)) => {
            let (_, after) = after.split_once(')').unwrap();
            format!("{before}{after}")
        }
        None => text,
    };
    let texts = problems.iter().map(ToString::to_string);
    texts.map(without_line).collect()
}

const HYBRID: &str = "{ name: own, address: 192.0.2.1, weight: 9, certificate: { chain: \"file:/c.pem\", key: \"file:/k.pem\" } }, \
    { name: ses, smartHost: { host: Smtp.Example, auth: { mechanism: plain, username: u, password: \"file:/p\" } } }, \
    { name: google, smartHost: { host: smtp.example, port: 465, tls: required, allowPrivate: true, \
        auth: { mechanism: xoauth2, username: u, token: \"file:/t\", over: anyTls } } }, \
    { name: socks, family: ipv6, proxy: { protocol: socks5, address: \"[2001:db8::1]:1080\", username: u, password: \"file:/s\" } }, \
    { name: proxied, address: 192.0.2.7, proxy: { protocol: haproxy, address: \"10.0.0.1:8026\" } }";

#[test]
fn ways_of_sources_read_back_with_their_defaults_and_secrets_stay_in_files() {
    let snapshot = Snapshot::from_documents(&pool(HYBRID)).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    let pool = read.pool("p").unwrap();
    assert_eq!(pool.only_smart_hosts(), None);
    let source = |name: &str| {
        let mut sources = pool.sources.iter();
        sources.find(|source| source.name == name).unwrap()
    };
    assert!(source("own").smart_host.is_none() && source("own").certificate.is_some());
    let ses = source("ses").smart_host.as_ref().unwrap();
    assert_eq!((ses.host.as_str(), ses.port), ("smtp.example", 587));
    assert_eq!(
        (ses.tls, ses.implicit_tls, ses.allow_private),
        (SmartHostTls::Verified, false, false)
    );
    let auth = ses.auth.as_ref().unwrap();
    assert_eq!(
        (auth.mechanism, auth.over),
        (AuthMechanism::Plain, AuthOver::VerifiedTls)
    );
    assert_eq!(auth.secret.to_str(), Some("/p"));
    let google = source("google").smart_host.as_ref().unwrap();
    assert_eq!((google.port, google.implicit_tls), (465, true));
    let socks = source("socks").proxy.as_ref().unwrap();
    assert_eq!(socks.protocol, ProxyProtocol::Socks5);
    assert_eq!(socks.login, Some(("u".to_owned(), "/s".into())));
    assert_eq!(source("proxied").proxy.as_ref().unwrap().login, None);
}

#[test]
fn a_pool_of_smart_hosts_only_needs_no_names_of_destinations() {
    let host = |name: &str| format!("{{ name: {name}, smartHost: {{ host: {name}.example }} }}");
    let snapshot = Snapshot::from_documents(&pool(&format!("{}, {}", host("a"), host("b"))));
    let snapshot = snapshot.unwrap();
    assert_eq!(
        snapshot.pool("p").unwrap().only_smart_hosts(),
        Some("a.example")
    );
}

#[test]
fn each_bad_way_gets_its_message() {
    for (source, expected) in [
        (
            "smartHost: { port: 0, tls: some }",
            &[
                "smartHost.host: is missing",
                "smartHost.port: a whole number from 1 to 65535 is expected, found the number 0",
                "smartHost.tls: one of verified, required, opportunistic, none is expected, found \"some\"",
            ][..],
        ),
        (
            "smartHost: { host: h.example, implicitTls: true, tls: none, auth: { mechanism: cram, password: p } }",
            &[
                "smartHost.tls: with implicitTls there is TLS always: verified or required is expected",
                "smartHost.auth.mechanism: one of plain, login, xoauth2 is expected, found \"cram\"",
                "smartHost.auth.username: is missing",
            ],
        ),
        (
            "smartHost: { host: h.example, auth: { mechanism: login, username: u, password: geheim, token: \"file:/t\" } }",
            &[
                "smartHost.auth.token: is not for this mechanism: password is",
                "smartHost.auth.password: \"file:/path\" is expected; secrets are never written inline",
            ],
        ),
        (
            "smartHost: { host: h.example, tls: required, auth: { mechanism: xoauth2, username: u, token: \"file:/t\" } }",
            &[
                "smartHost.auth.over: credentials would never be sent: tls is required, and they go over verifiedTls only",
            ],
        ),
        (
            "smartHost: { host: h.example, tls: none, auth: { mechanism: plain, username: \"a\\nb\", password: \"file:/t\", over: anyTls } }",
            &[
                "smartHost.auth.username: 1 to 255 octets without control characters are expected, found \"a\\nb\"",
            ],
        ),
        (
            "proxy: { protocol: http, address: proxy }",
            &[
                "proxy.protocol: one of socks5, haproxy is expected, found \"http\"",
                "proxy.address: an address IP:port is expected, found \"proxy\"",
            ],
        ),
        (
            "proxy: { protocol: haproxy, address: \"10.0.0.1:1\", username: u }",
            &[
                "proxy.password: is missing: there is a username",
                "proxy.username: the PROXY protocol has no login: it is for socks5",
                "address: is missing: the proxy is told from which address it is to connect",
            ],
        ),
        (
            "address: 192.0.2.1, family: ipv6, proxy: { protocol: socks5, address: \"10.0.0.1:1\" }",
            &[
                "family: follows from the address, and must not be given",
                "address: SOCKS has no way to say from which address the proxy is to connect: leave it out, and say the family where it matters",
            ],
        ),
        (
            "certificate: { chain: c.pem }",
            &[
                "certificate.chain: \"file:/path\" is expected; secrets are never written inline",
                "certificate.key: is missing",
            ],
        ),
    ] {
        let expected = expected
            .iter()
            .map(|text| format!("doc 1 EgressPool/p spec.sources[0].{text}"));
        assert_eq!(
            problems(&pool(&format!("{{ name: a, {source} }}"))),
            expected.collect::<Vec<_>>(),
            "{source}"
        );
    }
}

#[test]
fn a_source_is_the_same_in_every_pool_and_has_one_smart_host() {
    let host = |port| format!("{{ name: a, smartHost: {{ host: h.example, port: {port} }} }}");
    let documents = pool(&host(25))
        + &document(
            "EgressPool",
            "q",
            &format!("{{ sources: [ {} ] }}", host(26)),
        )
        + &document("Route", "r", "{ pool: p, smartHost: other.example }");
    assert_eq!(
        problems(&documents),
        [
            "doc 3 Route/r spec.smartHost: EgressPool/p has a source with a smart host of its own (a)",
            "doc 2 EgressPool/q spec.sources[0]: EgressPool/p has a source named \"a\" that is not the same in all but its weight",
        ]
    );
    let snapshot = Snapshot::from_documents(
        &(pool("{ name: a }")
            + &document("EgressPool", "q", "{ sources: [ { name: a, weight: 5 } ] }")),
    );
    assert!(snapshot.is_ok());
}
