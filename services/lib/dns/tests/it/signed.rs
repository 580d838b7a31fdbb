//! The resolver against signed zones: nsd serves them, unbound checks them.

use dns::{Error, Family, Resolver, Tlsa, TlsaRecord};
use kit::{SignedDns, SignedZones};
use mail::Domain;
use tempfile::TempDir;

const ONE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A domain with a host, its address and its TLSA record, below the zone.
fn domain_of(zone: &str) -> String {
    format!(
        "dest.{zone}. 60 IN MX 10 mx.dest.{zone}.\n\
         mx.dest.{zone}. 60 IN A 127.0.0.2\n\
         _25._tcp.mx.dest.{zone}. 60 IN TLSA 3 1 1 {ONE}\n"
    )
}

fn zones() -> SignedZones {
    let example = domain_of("example")
        + &format!(
            "bare.example. 60 IN A 127.0.0.3\n\
             none.example. 60 IN MX 10 mx.none.example.\n\
             mx.none.example. 60 IN A 127.0.0.3\n\
             mx.alias.example. 60 IN CNAME mx.dest.example.\n\
             own.alias.example. 60 IN CNAME mx.none.example.\n\
             _25._tcp.own.alias.example. 60 IN TLSA 2 0 1 {OTHER}\n\
             leaves.example. 60 IN CNAME mx.dest.plain.\n\
             _25._tcp.leaves.example. 60 IN TLSA 3 1 1 {OTHER}\n\
             _25._tcp.borrows.example. 60 IN CNAME _25._tcp.mx.dest.example.\n\
             borrows.example. 60 IN A 127.0.0.4\n"
        )
        + &(0..9)
            .map(|n| format!("c{n}.example. 60 IN CNAME c{}.example.\n", n + 1))
            .collect::<String>()
        + "c9.example. 60 IN A 127.0.0.4\n\
           big.example. 60 IN A 127.0.0.4\n\
           wide.example. 60 IN A 127.0.0.4\n"
        + &(0..65)
            .map(|n| {
                let name = if n < 33 { "big" } else { "wide" };
                format!("_25._tcp.{name}.example. 60 IN TLSA 3 1 1 {n:064x}\n")
            })
            .collect::<String>();
    let plain = domain_of("plain") + "enters.plain. 60 IN CNAME mx.dest.example.\n";
    SignedZones::new()
        .signed("example", &example)
        .unsigned("plain", &plain)
        .expired("late", &domain_of("late"))
        .signed(
            "forged",
            &(domain_of("forged") + "dest2.forged. 60 IN MX 10 mx.dest.forged.\n"),
        )
        .forged(ONE, OTHER)
}

struct Server {
    dns: SignedDns,
    _folder: TempDir,
}

async fn started() -> (Server, Resolver) {
    let folder = tempfile::tempdir().unwrap();
    let dns = SignedDns::start(folder.path(), &zones()).await.unwrap();
    let resolver = Resolver::believing(&[dns.address()]).unwrap();
    let server = Server {
        dns,
        _folder: folder,
    };
    (server, resolver)
}

async fn tlsa(resolver: &Resolver, host: &str) -> Result<Option<(String, u8)>, Error> {
    let found = resolver.tlsa(host, 25, Family::Any).await?;
    Ok(found.map(|found| {
        let Tlsa { base, records } = &*found;
        (base.to_string(), records[0].data[0])
    }))
}

#[tokio::test]
async fn secure_insecure_and_bogus_are_told_apart() {
    let (server, resolver) = started().await;
    let hosts = async |name| resolver.mail_hosts(&Domain::parse(name).unwrap()).await;
    for (name, secure) in [
        ("dest.example", true),
        ("dest.plain", false),
        // The domain itself is the host.
        ("bare.example", true),
    ] {
        assert_eq!(hosts(name).await.unwrap().secure, secure, "{name}");
    }
    assert!(matches!(hosts("dest.late").await, Err(Error::Temporary(_))));
    assert_eq!(hosts("nowhere.example").await, Err(Error::NoSuchDomain));
    assert_eq!(resolver.is_validated().await, Ok(true));

    let one = |base: &str| Ok(Some((base.to_owned(), 0xaa)));
    assert_eq!(
        tlsa(&resolver, "mx.dest.example").await,
        one("mx.dest.example")
    );
    assert_eq!(tlsa(&resolver, "mx.none.example").await, Ok(None));
    assert_eq!(tlsa(&resolver, "mx.dest.plain").await, Ok(None));
    for bogus in ["mx.dest.late", "mx.dest.forged", "big.example"] {
        let found = tlsa(&resolver, bogus).await;
        assert!(
            matches!(found, Err(Error::Temporary(_))),
            "{bogus} {found:?}"
        );
    }
    let expected = TlsaRecord {
        usage: 3,
        selector: 1,
        matching: 1,
        data: [0xaa; 32].into(),
    };
    let found = resolver.tlsa("mx.dest.example", 25, Family::V4).await;
    assert_eq!(*found.unwrap().unwrap().records, [expected]);
    // Too long for UDP.
    let found = resolver.tlsa("wide.example", 25, Family::V4).await;
    assert_eq!(found.unwrap().unwrap().records.len(), 32);
    assert_eq!(
        resolver.tlsa("mx.dest.example", 26, Family::V4).await,
        Ok(None)
    );
    // A server of a zone that is not signed is not bothered.
    let questions = server.dns.questions();
    assert!(
        !questions
            .iter()
            .any(|question| question == "TLSA _25._tcp.mx.dest.plain")
    );
}

#[tokio::test]
async fn the_name_at_the_end_of_secure_aliases_goes_first() {
    let (_server, resolver) = started().await;
    for (host, expected) in [
        ("mx.alias.example", Some(("mx.dest.example", 0xaa))),
        // There it has none.
        ("own.alias.example", Some(("own.alias.example", 0xbb))),
        // What is not secure there leaves the host's own.
        ("leaves.example", Some(("leaves.example", 0xbb))),
        // The alias may be anybody's.
        ("enters.plain", None),
        ("borrows.example", Some(("borrows.example", 0xaa))),
    ] {
        let expected = expected.map(|(base, octet)| (base.to_owned(), octet));
        assert_eq!(tlsa(&resolver, host).await, Ok(expected), "{host}");
    }
    // Eight are followed.
    let addresses = async |host| resolver.addresses(host, Family::V4).await;
    assert!(addresses("c1.example").await.is_ok());
    assert!(matches!(
        addresses("c0.example").await,
        Err(Error::Temporary(_))
    ));
}

#[tokio::test]
async fn a_server_that_is_not_believed_makes_nothing_secure() {
    let (server, _) = started().await;
    let resolver = Resolver::new(&[server.dns.address()]).unwrap();
    let domain = Domain::parse("dest.example").unwrap();
    assert!(!resolver.mail_hosts(&domain).await.unwrap().secure);
    assert_eq!(tlsa(&resolver, "mx.dest.example").await, Ok(None));
    assert_eq!(resolver.is_validated().await, Ok(false));
}
