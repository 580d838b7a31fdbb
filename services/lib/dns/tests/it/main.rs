//! The resolver against a real DNS server, dnsmasq.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod signed;

use std::net::IpAddr;

use dns::{Error, Family, Resolver};
use kit::{Dns, Zones};
use mail::Domain;
use tempfile::TempDir;

const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;

fn zones() -> Zones {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Zones::new()
        .only("example")
        .time_to_live(60)
        .mx("two.example", 20, "b.mx.example")
        .mx("two.example", 10, "A.mx.example")
        .mx("same.example", 10, "a.mx.example")
        .mx("same.example", 10, "b.mx.example")
        .address("a.mx.example", address("192.0.2.1"))
        .address("a.mx.example", address("2001:db8::1"))
        .address("b.mx.example", address("192.0.2.2"))
        .address("only-address.example", address("192.0.2.3"))
        .mx("null.example", 0, ".")
        .record("invalid.example", TYPE_MX, b"\0\x0a\x03a b\0")
        .text("text-only.example", "nothing else here")
        .text("long.example", &"k".repeat(600))
        .record("odd.example", TYPE_TXT, b"\x02\xc3\xa9")
        .record("odd.example", TYPE_TXT, b"\x01a\x01b")
        .alias("alias.mx.example", "a.mx.example")
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

/// A DNS server of the test's own; its folder is removed after it.
struct Server {
    dns: Dns,
    _folder: TempDir,
}

async fn started() -> (Server, Resolver) {
    let folder = tempfile::tempdir().unwrap();
    let dns = Dns::start(folder.path(), &zones()).await.unwrap();
    let resolver = Resolver::new(&[dns.address()]).unwrap();
    let server = Server {
        dns,
        _folder: folder,
    };
    (server, resolver)
}

#[tokio::test]
async fn mail_hosts_come_by_preference_in_lower_case() {
    let (_server, resolver) = started().await;
    let hosts = resolver.mail_hosts(&domain("two.example")).await.unwrap();
    let names: Vec<_> = hosts
        .hosts
        .iter()
        .map(|host| (host.preference, &*host.name))
        .collect();
    assert_eq!(names, [(10, "a.mx.example"), (20, "b.mx.example")]);
    assert!(!hosts.implicit);
    assert_eq!(hosts.site(), "a.mx.example,b.mx.example");
    assert_eq!(
        resolver
            .mail_hosts(&domain("same.example"))
            .await
            .unwrap()
            .site(),
        hosts.site()
    );
}

#[tokio::test]
async fn a_domain_without_mx_takes_mail_at_its_address() {
    let (_server, resolver) = started().await;
    let hosts = resolver
        .mail_hosts(&domain("only-address.example"))
        .await
        .unwrap();
    assert!(hosts.implicit);
    assert_eq!(hosts.site(), "only-address.example");
}

#[tokio::test]
async fn a_null_mx_and_a_missing_domain_are_permanent() {
    let (_server, resolver) = started().await;
    for (name, expected, enhanced) in [
        ("null.example", Error::NullMx, "5.1.10"),
        ("nowhere.example", Error::NoSuchDomain, "5.1.2"),
        ("text-only.example", Error::NoSuchDomain, "5.1.2"),
    ] {
        let error = resolver.mail_hosts(&domain(name)).await.unwrap_err();
        assert_eq!(error, expected, "{name}");
        assert!(error.is_permanent());
        assert_eq!(error.enhanced(), enhanced);
    }
}

#[tokio::test]
async fn refusals_and_unusable_names_are_temporary() {
    let (_server, resolver) = started().await;
    // dnsmasq has no server to ask for other zones and refuses.
    for name in ["elsewhere.test", "invalid.example"] {
        let error = resolver.mail_hosts(&domain(name)).await.unwrap_err();
        assert!(!error.is_permanent(), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn texts_come_with_their_strings_joined() {
    let (server, resolver) = started().await;
    let long = "k".repeat(600);
    for (name, expected) in [
        ("text-only.example", Ok("nothing else here")),
        ("LONG.example", Ok(long.as_str())),
        // The other one is no text of ours.
        ("odd.example", Ok("ab")),
        ("a.mx.example", Err(Error::NoSuchDomain)),
        ("none.example", Err(Error::NoSuchDomain)),
    ] {
        let texts = resolver.texts(name).await;
        let only = texts.as_ref().map(|texts| texts.concat());
        assert_eq!(
            only,
            expected.as_ref().map(|text| (*text).to_owned()),
            "{name}"
        );
    }
    assert!(
        !resolver
            .texts("elsewhere.test")
            .await
            .unwrap_err()
            .is_permanent()
    );
    // Kept for their time to live.
    drop(server);
    assert!(resolver.texts("text-only.example").await.is_ok());
}

#[tokio::test]
async fn addresses_are_of_the_family_asked_for() {
    let (_server, resolver) = started().await;
    let of = async |host: &str, family| {
        resolver
            .addresses(host, family)
            .await
            .map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(
        of("a.mx.example", Family::Any).await.unwrap(),
        ["192.0.2.1", "2001:db8::1"]
    );
    assert_eq!(of("a.mx.example", Family::V4).await.unwrap(), ["192.0.2.1"]);
    assert_eq!(
        of("a.mx.example", Family::V6).await.unwrap(),
        ["2001:db8::1"]
    );
    assert_eq!(
        of("alias.mx.example", Family::V4).await.unwrap(),
        ["192.0.2.1"]
    );
    assert_eq!(
        of("b.mx.example", Family::V6).await,
        Err(Error::NoSuchDomain)
    );
    assert_eq!(
        of("nowhere.example", Family::Any).await,
        Err(Error::NoSuchDomain)
    );
}

#[tokio::test]
async fn answers_survive_the_server_for_their_time_to_live() {
    let (server, resolver) = started().await;
    let before = resolver.mail_hosts(&domain("two.example")).await.unwrap();
    let missing = resolver.mail_hosts(&domain("nowhere.example")).await;
    drop(server.dns);
    assert_eq!(
        resolver.mail_hosts(&domain("two.example")).await.unwrap(),
        before
    );
    assert_eq!(
        resolver.mail_hosts(&domain("nowhere.example")).await,
        missing
    );
}
