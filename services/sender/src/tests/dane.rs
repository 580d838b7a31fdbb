//! Hosts whose certificates the DNS names (DANE, RFC 7672): signed zones are served by nsd and checked by unbound.

use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use kit::{SignedDns, SignedZones};

use super::host::{Host, authority, known};
use super::play::replies;
use super::trust::{
    ANOTHER, ENFORCE, FIRST, GOOD, MAIL, Net, OPTIONAL, REQUIRED, SECOND, SITE, USUAL, begin_tls,
    host, in_the_clear, message, takes,
};

/// Of a domain with one host, the first.
const ONE: &str = "first.dest.example";

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        write!(text, "{octet:02x}").unwrap();
        text
    })
}

/// The key of `tls by key`.
fn by_key() -> String {
    format!("3 1 1 {}", hex(digest(&SHA256, &known().1).as_ref()))
}

/// The authority of `tls as`.
fn by_authority() -> String {
    format!("2 0 0 {}", hex(&authority().der()))
}

fn by_nobody() -> String {
    format!("3 1 1 {}", "a".repeat(64))
}

/// Domains whose first host has this record for its port.
fn records(port: u16, tlsa: &str) -> String {
    let mut records = "first.dest.example. 60 IN A 127.0.0.2\n\
         second.dest.example. 60 IN A 127.0.0.3\n\
         dest.example. 60 IN MX 10 first.dest.example.\n\
         dest.example. 60 IN MX 20 second.dest.example.\n\
         single.example. 60 IN MX 10 first.dest.example.\n\
         same.example. 60 IN MX 10 first.dest.example.\n\
         _mta-sts.single.example. 60 IN TXT \"v=STSv1; id=1;\"\n\
         mta-sts.single.example. 60 IN A 127.0.0.1\n"
        .to_owned();
    if !tlsa.is_empty() {
        writeln!(
            records,
            "_{port}._tcp.first.dest.example. 60 IN TLSA {tlsa}"
        )
        .unwrap();
    }
    records
}

/// A zone `plain` beside it, whose domains use the same hosts and are not signed.
fn zones(port: u16, tlsa: &str) -> SignedZones {
    SignedZones::new()
        .signed("example", &records(port, tlsa))
        .unsigned("plain", "open.plain. 60 IN MX 10 first.dest.example.\n")
}

async fn net(zones: &SignedZones) -> Net {
    let folder = tempfile::tempdir().unwrap();
    let dns = SignedDns::start(folder.path(), zones).await.unwrap();
    let resolver = dns::Resolver::believing(&[dns.address()]).unwrap();
    Net::with_names(folder, resolver, Box::new(dns)).await
}

/// The first host, a sender, and a lane to that host alone.
async fn one_host(scripts: &[String], tlsa: &str) -> (Host, Net) {
    let first = host(FIRST, 0, scripts).await;
    let net = net(&zones(first.port, tlsa)).await;
    net.lane_with(first.port, |lane| lane.site = ONE.into())
        .await;
    (first, net)
}

fn stripped() -> String {
    "> 220 mx\n < EHLO\n > 250 mx\n < QUIT\n > 221 bye\n".to_owned()
}

fn quits(rest: &str) -> String {
    begin_tls(rest) + &takes(&[], MAIL) + "< QUIT\n > 221 bye\n"
}

#[tokio::test]
async fn a_host_that_shows_its_key_gets_the_mail_of_all_domains_whatever_its_certificate_says() {
    let script = begin_tls("tls by key") + &takes(&[], MAIL) + &message(MAIL) + &message(MAIL);
    let (first, mut net) = one_host(&[script], &by_key()).await;
    let report = net.send(USUAL, "same.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert!(report.tls);
    // The one has a policy that can't be had, the other has no DNSSEC.
    for domain in ["single.example", "open.plain"] {
        assert_eq!(net.result(ANOTHER, domain).await.1, 250, "{domain}");
    }
    first.done().await;
}

#[tokio::test]
async fn nothing_goes_to_a_host_that_does_not_show_what_is_named() {
    let handshake = |how: &str| begin_tls(how);
    for (script, tlsa, stage, code, enhanced) in [
        (stripped(), by_key(), "starttls", 0, "4.7.4"),
        (handshake("broken tls"), by_key(), "starttls", 0, ""),
        (
            handshake("refused tls as first.dest.example"),
            by_key(),
            "starttls",
            0,
            "4.7.5",
        ),
        (
            handshake("refused tls as first.dest.example"),
            by_nobody(),
            "starttls",
            0,
            "4.7.5",
        ),
        (
            handshake("refused tls as second.dest.example"),
            by_authority(),
            "starttls",
            0,
            "4.7.5",
        ),
        (
            handshake("refused tls as expired first.dest.example"),
            by_authority(),
            "starttls",
            0,
            "4.7.5",
        ),
    ] {
        let (first, mut net) = one_host(std::slice::from_ref(&script), &tlsa).await;
        let (found_stage, found_code, found) = net.result(USUAL, "same.example").await;
        assert_eq!(
            (found_stage, found_code, found.as_str()),
            (stage, code, enhanced),
            "{script} {tlsa}"
        );
        // The script is one connection: in the clear there was no other.
        first.done().await;
    }
}

#[tokio::test]
async fn the_next_host_is_asked_when_one_does_not_show_it() {
    let first = host(FIRST, 0, &[begin_tls("refused tls as first.dest.example")]).await;
    let second = host(SECOND, first.port, &[in_the_clear()]).await;
    let mut net = net(&zones(first.port, &by_key())).await;
    net.lane_with(first.port, |lane| lane.site = SITE.into())
        .await;
    let report = net.send(USUAL, "dest.example").await;
    assert_eq!(replies(&report)[0].2, 250, "{report:?}");
    assert_eq!(report.mx_host, "second.dest.example");
    first.done().await;
    second.done().await;
}

#[tokio::test]
async fn an_authority_vouches_for_the_host_by_name() {
    let good = begin_tls(GOOD) + &takes(&[], MAIL) + &message(MAIL);
    let (first, mut net) = one_host(&[good], &by_authority()).await;
    for domain in ["same.example", "single.example"] {
        assert_eq!(net.result(USUAL, domain).await.1, 250, "{domain}");
    }
    first.done().await;
    // What speaks for one domain does not for the next one; who asks for nothing takes it.
    let scripts = [
        begin_tls("tls as same.example")
            + &takes(&[], MAIL)
            + &message(MAIL)
            + "< QUIT\n > 221 bye\n",
        begin_tls("refused tls as same.example"),
    ];
    let (first, mut net) = one_host(&scripts, &by_authority()).await;
    for (domain, code) in [
        ("same.example", 250),
        ("open.plain", 250),
        ("single.example", 0),
    ] {
        assert_eq!(net.result(USUAL, domain).await.1, code, "{domain}");
    }
    first.done().await;
}

#[tokio::test]
async fn a_connection_to_whoever_it_may_be_does_not_serve_a_domain_with_dnssec() {
    let scripts = [
        quits("tls as other.example"),
        begin_tls("tls by key") + &takes(&[], MAIL),
    ];
    let (first, mut net) = one_host(&scripts, &by_key()).await;
    for domain in ["open.plain", "same.example"] {
        assert_eq!(net.result(USUAL, domain).await.1, 250, "{domain}");
    }
    first.done().await;
}

#[tokio::test]
async fn mta_sts_neither_rescues_what_dane_refuses_nor_refuses_what_dane_proves() {
    // A certificate that the policy would like.
    let (first, mut net) = one_host(&[begin_tls(&format!("refused {GOOD}"))], &by_key()).await;
    net.show(ENFORCE);
    let result = net.result(USUAL, "single.example").await;
    assert_eq!(result, ("starttls", 0, "4.7.5".to_owned()));
    first.done().await;
    // A host that the policy does not name.
    let script = begin_tls("tls by key") + &takes(&[], MAIL);
    let (first, mut net) = one_host(&[script], &by_key()).await;
    net.show(&ENFORCE.replace("*.dest", "mx.other"));
    assert_eq!(net.result(USUAL, "single.example").await.1, 250);
    first.done().await;
    // Without records the policy decides.
    let (first, mut net) = one_host(&[stripped()], "").await;
    net.show(ENFORCE);
    let result = net.result(USUAL, "single.example").await;
    assert_eq!(result, ("starttls", 0, "4.7.4".to_owned()));
    first.done().await;
    // And where nobody can use the records, too.
    let unusable = by_key().replacen("3 1", "1 1", 1);
    let script = begin_tls("refused tls as other.example");
    let (first, mut net) = one_host(&[script], &unusable).await;
    net.show(ENFORCE);
    let result = net.result(USUAL, "single.example").await;
    assert_eq!(result, ("starttls", 0, "4.7.5".to_owned()));
    first.done().await;
}

#[tokio::test]
async fn a_host_with_dnssec_and_without_records_is_spoken_to_as_ever() {
    let (first, mut net) = one_host(&[in_the_clear()], "").await;
    assert_eq!(net.result(USUAL, "same.example").await.1, 250);
    first.done().await;
}

#[tokio::test]
async fn records_that_nobody_can_use_ask_for_tls_with_any_certificate() {
    let unusable = by_key().replacen("3 1", "1 1", 1);
    let script = begin_tls("tls as other.example") + &takes(&[], MAIL);
    let (first, mut net) = one_host(&[script], &unusable).await;
    assert_eq!(net.result(USUAL, "same.example").await.1, 250);
    first.done().await;
    let (first, mut net) = one_host(&[stripped()], &unusable).await;
    let result = net.result(USUAL, "same.example").await;
    assert_eq!(result, ("starttls", 0, "4.7.4".to_owned()));
    first.done().await;
}

#[tokio::test]
async fn what_is_forged_or_has_expired_is_not_taken_for_missing() {
    // Nobody connects: there is nothing on port 9.
    let forged = SignedZones::new()
        .signed("example", &records(9, &by_key()))
        .forged(&by_key(), &by_nobody());
    let expired = SignedZones::new().expired("example", &records(9, &by_key()));
    // The domain is fine, and its host is not.
    let below = records(9, &by_key()).replace("example.", "late.");
    let host_expired = SignedZones::new()
        .signed("example", "same.example. 60 IN MX 10 first.dest.late.\n")
        .expired("late", &below);
    for (zones, site, enhanced) in [
        (forged, ONE, "4.7.5"),
        (expired, ONE, "4.4.3"),
        (host_expired, "first.dest.late", "4.7.5"),
    ] {
        let mut net = net(&zones).await;
        net.lane_with(9, |lane| lane.site = site.into()).await;
        let result = net.result(USUAL, "same.example").await;
        assert_eq!(result, ("dns", 0, enhanced.to_owned()), "{zones:?}");
    }
}

#[tokio::test]
async fn dnssec_names_the_hosts_that_a_message_that_requires_tls_needs() {
    let mail = "MAIL FROM:<a@sender.example> REQUIRETLS";
    for (handshake, tlsa) in [("tls by key", by_key()), (GOOD, String::new())] {
        let able = begin_tls(handshake) + &takes(&["REQUIRETLS"], mail);
        let (first, mut net) = one_host(&[able], &tlsa).await;
        assert_eq!(net.result(REQUIRED, "same.example").await.1, 250);
        first.done().await;
    }
    let unable = begin_tls("tls by key") + "< EHLO\n > 250 mx\n < QUIT\n > 221 bye\n";
    for (script, enhanced) in [
        (unable, "5.7.30"),
        (begin_tls(&format!("refused {GOOD}")), "5.7.10"),
    ] {
        let (first, mut net) = one_host(&[script], &by_key()).await;
        let result = net.result(REQUIRED, "same.example").await;
        assert_eq!(result, ("mail", 550, enhanced.to_owned()));
        first.done().await;
    }
}

#[tokio::test]
async fn what_need_not_be_secret_passes_where_dane_would_stop_it() {
    let (first, mut net) = one_host(&[in_the_clear()], &by_key()).await;
    assert_eq!(net.result(OPTIONAL, "same.example").await.1, 250);
    first.done().await;
}
