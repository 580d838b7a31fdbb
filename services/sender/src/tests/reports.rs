//! What is counted for reports about TLS (RFC 8460), with real hosts and a real DNS server.

use std::sync::{Arc, Mutex};

use kit::{Dns, Zones};
use proto::dispatch::sender_item::Kind as Item;
use proto::event::event::Kind;
use proto::event::{Event, TlsSessions};

use super::host::Host;
use super::play::{CONTENT, EPOCH, Messages, Scheduler, delivery, replies, start_with};

#[tokio::test]
async fn sessions_are_counted_for_the_domains_that_ask_for_reports() {
    let folder = tempfile::tempdir().unwrap();
    let zones = Zones::new()
        .only("example")
        .mx("asks.example", 10, "mx.hosts.example")
        .mx("silent.example", 10, "mx.hosts.example")
        .text(
            "_smtp._tls.asks.example",
            "v=TLSRPTv1; rua=mailto:tls@asks.example",
        )
        .address("mx.hosts.example", [127, 0, 0, 2].into());
    let dns = Dns::start(folder.path(), &zones).await.unwrap();
    let resolver = dns::Resolver::new(&[dns.address()]).unwrap();
    let takes = "< EHLO\n > 250-mx\n > 250 PIPELINING\n < MAIL\n < RCPT\n < DATA\n > 250 ok\n > 250 ok\n > 354 go on\n <data\n > 250 kept\n < QUIT\n > 221 bye\n";
    let with_tls = format!(
        "> 220 mx\n < EHLO\n > 250-mx\n > 250 STARTTLS\n < STARTTLS\n > 220 go on\n tls\n {takes}"
    );
    let without = format!("> 220 mx\n {takes}");
    let host = Host::start_at("127.0.0.2:0", &[&with_tls, &without, &with_tls]).await;

    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let (scheduler, dispatch) = Scheduler::new();
    let mut messages = Messages::default();
    for message in 1..=3 {
        messages.add(message, &["b@dest.example"], CONTENT);
    }
    let heard = told.clone();
    let started = start_with(messages, vec![dispatch], resolver, |settings| {
        settings.reporting = Some(Arc::new(move |event| heard.lock().unwrap().push(event)));
    });
    let mut stream = scheduler.stream(EPOCH).await;
    stream
        .lane(host.port, |lane| {
            lane.smart_host.clear();
            lane.site = "mx.hosts.example".into();
            lane.source_address = "127.0.0.1".into();
            lane.messages_per_connection = 1;
        })
        .await;
    for (message, domain) in [
        (1, "asks.example"),
        (2, "asks.example"),
        (3, "silent.example"),
    ] {
        let delivery = delivery(message, &[0]);
        stream.assign_as(&delivery, message, domain).await;
        let Item::Begin(_) = stream.next_of_delivery().await else {
            panic!("it is not begun");
        };
        stream.permit(&delivery).await;
        let report = stream.report().await;
        assert_eq!(replies(&report)[0].2, 250, "{report:?}");
        stream.stored(&delivery).await;
    }
    host.done().await;
    started.shutdown.request();
    started.task.await.unwrap();

    let told = told.lock().unwrap();
    let sessions: Vec<&TlsSessions> = told
        .iter()
        .map(|event| match &event.kind {
            Some(Kind::TlsSessions(sessions)) => sessions,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(sessions.len(), 1, "{sessions:?}");
    let policy = sessions[0].policy.clone().unwrap();
    assert_eq!(
        (&*policy.r#type, &*policy.domain),
        ("no-policy-found", "asks.example")
    );
    assert_eq!(sessions[0].succeeded, 1);
    let failure = &sessions[0].failures[0];
    assert_eq!(
        (&*failure.result, failure.sessions),
        ("starttls-not-supported", 1)
    );
    assert_eq!(
        (&*failure.host, &*failure.address),
        ("mx.hosts.example", "127.0.0.2")
    );
    assert_eq!(failure.source_address, "127.0.0.1");
}
