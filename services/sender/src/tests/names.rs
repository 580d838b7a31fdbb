//! From a domain to a host, with a real DNS server.

use kit::{Dns, Zones};
use proto::dispatch::ReturnReason;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::host::Host;
use super::play::{CONTENT, EPOCH, Messages, Scheduler, Started, Stream, delivery, replies, start};

fn zones() -> Zones {
    Zones::new()
        .only("example")
        .mx("dest.example", 10, "first.dest.example")
        .mx("dest.example", 20, "second.dest.example")
        .address("first.dest.example", [127, 0, 0, 2].into())
        .address("second.dest.example", [127, 0, 0, 3].into())
        .address("bare.example", [127, 0, 0, 3].into())
        .mx("ours.example", 10, "relay.example")
        .address("relay.example", [127, 0, 0, 1].into())
        .mx("null.example", 0, ".")
        .mx("round.example", 10, "third.dest.example")
        .mx("backup.example", 10, "first.dest.example")
        .mx("backup.example", 20, "third.dest.example")
        .mx("backup.example", 30, "second.dest.example")
        .address("third.dest.example", [127, 0, 0, 4].into())
}

const SITE: &str = "first.dest.example,second.dest.example";
const WELL: &str =
    "hello\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 250 ok\n > 354 go on\n <data\n > 250 kept";

/// A DNS server of the test's own; its folder is removed after it.
struct Server {
    _dns: Dns,
    _folder: TempDir,
}

async fn started() -> (Server, Started, Scheduler, Stream) {
    let folder = tempfile::tempdir().unwrap();
    let dns = Dns::start(folder.path(), &zones()).await.unwrap();
    let resolver = dns::Resolver::new(&[dns.address()]).unwrap();
    let server = Server {
        _dns: dns,
        _folder: folder,
    };
    let mut messages = Messages::default();
    messages.add(1, &["b@dest.example"], CONTENT);
    let (scheduler, dispatch) = Scheduler::new();
    let started = start(messages, vec![dispatch], resolver);
    let stream = scheduler.stream(EPOCH).await;
    (server, started, scheduler, stream)
}

#[tokio::test]
async fn a_backup_is_tried_when_the_first_host_fails() {
    for first in [None, Some("> 421 4.3.2 too busy\n <end")] {
        let second = Host::start_at("127.0.0.3:0", &[WELL]).await;
        let first = match first {
            Some(script) => {
                Some(Host::start_at(&format!("127.0.0.2:{}", second.port), &[script]).await)
            }
            None => None,
        };
        let (_server, _started, _scheduler, mut stream) = started().await;
        stream
            .lane(second.port, |lane| {
                lane.smart_host.clear();
                lane.site = SITE.into();
            })
            .await;
        let report = stream.carry(1, &[0]).await;
        assert_eq!(replies(&report)[0].2, 250);
        assert_eq!(
            (report.mx_host.as_str(), report.mx_address.as_str()),
            ("second.dest.example", "127.0.0.3")
        );
        second.done().await;
        if let Some(first) = first {
            first.done().await;
        }
    }
}

#[tokio::test]
async fn a_domain_without_mx_gets_its_mail_at_its_address() {
    let host = Host::start_at("127.0.0.3:0", &[WELL]).await;
    let (_server, _started, _scheduler, mut stream) = started().await;
    stream
        .lane(host.port, |lane| {
            lane.smart_host.clear();
            lane.site = "bare.example".into();
        })
        .await;
    let delivery = delivery(1, &[0]);
    stream.assign_as(&delivery, 1, "bare.example").await;
    stream.begin().await;
    stream.permit(&delivery).await;
    assert_eq!(replies(&stream.report().await)[0].2, 250);
    host.done().await;
}

#[tokio::test]
async fn a_domain_with_other_hosts_than_the_site_is_returned() {
    let (_server, _started, _scheduler, mut stream) = started().await;
    stream
        .lane(9, |lane| {
            lane.smart_host.clear();
            lane.site = "old.dest.example".into();
        })
        .await;
    stream.assign(1, &[0]).await;
    assert_eq!(
        stream.returned().await,
        (ReturnReason::SiteChanged, SITE.into())
    );
}

#[tokio::test]
async fn domains_that_lead_nowhere_are_reported_as_such() {
    let (_server, _started, _scheduler, mut stream) = started().await;
    for (attempt, (domain, site, allow_private, code, enhanced)) in (10_u32..).zip([
        ("null.example", "", true, 556, "5.1.10"),
        ("nowhere.example", "", true, 550, "5.1.2"),
        ("elsewhere.test", "", true, 0, "4.4.3"),
        ("dest.example", SITE, false, 0, "4.4.4"),
        ("ours.example", "relay.example", true, 554, "5.4.6"),
    ]) {
        stream
            .lane(9, |lane| {
                lane.smart_host.clear();
                lane.site = site.into();
                lane.allow_private = allow_private;
            })
            .await;
        let mut delivery = delivery(1, &[0]);
        delivery.attempt = attempt;
        stream.assign_as(&delivery, 1, domain).await;
        let report = stream.report().await;
        let reply = report.recipients[0].reply.as_ref().unwrap();
        assert_eq!(
            (reply.stage(), reply.code, reply.enhanced.as_str()),
            (proto::journal::Stage::Dns, code, enhanced),
            "{domain}"
        );
        assert!(!report.dot_sent);
    }
}

#[tokio::test]
async fn a_host_that_has_our_name_is_us_whatever_it_is_called() {
    let us = "> 220 hello\n< EHLO relay.example\n> 250-Relay.Example at your service\n> 250 PIPELINING\n<end";
    let busy = "> 421 4.3.2 too busy\n<end";
    for (domain, site, first, expected) in [
        ("round.example", "third.dest.example", None, ("dns", 554)),
        // The host before us may take it later; the one behind us is not asked.
        (
            "backup.example",
            "first.dest.example,second.dest.example,third.dest.example",
            Some(busy),
            ("banner", 421),
        ),
    ] {
        let third = Host::start_at("127.0.0.4:0", &[us]).await;
        let first = match first {
            Some(script) => {
                Some(Host::start_at(&format!("127.0.0.2:{}", third.port), &[script]).await)
            }
            None => None,
        };
        let (_server, _started, _scheduler, mut stream) = started().await;
        stream
            .lane(third.port, |lane| {
                lane.smart_host.clear();
                lane.site = site.into();
            })
            .await;
        let delivery = delivery(1, &[0]);
        stream.assign_as(&delivery, 1, domain).await;
        let report = stream.report().await;
        let (_, stage, code, text) = replies(&report).remove(0);
        assert_eq!((stage, code), expected, "{domain}: {text}");
        third.done().await;
        if let Some(first) = first {
            first.done().await;
        }
    }
    // Nor is mail sent back because a host before us, which may take it later, was found away a moment ago.
    let third = Host::start_at("127.0.0.4:0", &[us, us]).await;
    let (_server, _started, _scheduler, mut stream) = started().await;
    stream
        .lane(third.port, |lane| {
            lane.smart_host.clear();
            lane.site = "first.dest.example,second.dest.example,third.dest.example".into();
        })
        .await;
    for attempt in [1, 2] {
        let mut delivery = delivery(1, &[0]);
        delivery.attempt = attempt;
        stream.assign_as(&delivery, 1, "backup.example").await;
        let (_, stage, code, text) = replies(&stream.report().await).remove(0);
        assert_eq!((stage, code), ("connect", 0), "attempt {attempt}: {text}");
        stream.stored(&delivery).await;
    }
    third.done().await;
    // A smart host is the operator's choice, and may have any name.
    let host = Host::start(&["> 220 hello
        < EHLO
        > 250-relay.example
        > 250 PIPELINING
        mail
        <data
        > 250 kept"])
    .await;
    let (_server, _started, _scheduler, mut stream) = started().await;
    stream.lane(host.port, |_| {}).await;
    assert_eq!(replies(&stream.carry(1, &[0]).await)[0].2, 250);
}

#[tokio::test]
async fn the_source_address_is_bound_or_nothing_is_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (_server, _started, _scheduler, mut stream) = started().await;
    stream
        .lane(port, |lane| lane.source_address = "127.0.0.9".into())
        .await;
    stream.assign(1, &[0]).await;
    let (mut connection, peer) = listener.accept().await.unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.9");
    connection.write_all(b"554 no\r\n").await.unwrap();
    assert_eq!(replies(&stream.report().await)[0].1, "banner");

    stream
        .lane(port, |lane| lane.source_address = "192.0.2.1".into())
        .await;
    let mut delivery = delivery(1, &[0]);
    delivery.attempt = 99;
    stream.assign_as(&delivery, 1, "dest.example").await;
    // No attempt was made: it is for another sender, or another source.
    let (reason, detail) = stream.returned().await;
    assert_eq!(reason, ReturnReason::Source);
    assert!(
        detail.starts_with("the source address can't be used"),
        "{detail}"
    );
}
