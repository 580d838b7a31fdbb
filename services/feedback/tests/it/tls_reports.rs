//! What domains are told of TLS to their hosts: counted by senders, told once.

use bytes::Bytes;
use config::Snapshot;
use kit::{Dns, Zones};
use proto::event::event::Kind;
use proto::event::{Event, TlsFailure, TlsPolicy, TlsSessions};
use proto::spool::IndexEntry;
use runtime::now_ms;
use serde_json::Value;

use crate::installation::{Installation, PATIENCE};

const DAY_MS: u64 = 86_400_000;

fn sessions(domain: &str, at_ms: u64, succeeded: u64, failed: u64) -> Event {
    let told = TlsSessions {
        domain: domain.into(),
        policy: Some(TlsPolicy {
            r#type: "no-policy-found".into(),
            domain: domain.into(),
            ..TlsPolicy::default()
        }),
        succeeded,
        failures: vec![TlsFailure {
            result: "starttls-not-supported".into(),
            source_address: "192.0.2.1".into(),
            host: format!("mx.{domain}"),
            address: "192.0.2.25".into(),
            sessions: failed,
        }],
    };
    Event {
        at_ms,
        kind: Some(Kind::TlsSessions(told)),
        ..Event::default()
    }
}

async fn is_done(installation: &Installation) -> bool {
    let mark = installation.stores().marks().get("tls-reports").await;
    let written = mark.unwrap().value.unwrap_or_default();
    let value: Value = serde_json::from_slice(&written).unwrap_or_default();
    value["done"] == true
}

/// The reports in the spool, and the domains that they are for.
async fn reports(installation: &Installation) -> Vec<(String, IndexEntry, String)> {
    let messages = installation.messages().await;
    let report = |(entry, text): (IndexEntry, String)| {
        let (_, rest) = text.split_once("TLS-Report-Domain: ")?;
        let domain = rest.split("\r\n").next()?.to_owned();
        Some((domain, entry, text))
    };
    messages.into_iter().filter_map(report).collect()
}

#[tokio::test]
async fn each_domain_that_asks_gets_one_report_of_a_day_however_many_processes_there_are() {
    let installation = Installation::start().await;
    let folder = tempfile::tempdir().unwrap();
    let zones = Zones::new()
        .only("example")
        .text(
            "_smtp._tls.one.example",
            "v=TLSRPTv1;rua=mailto:tls@one.example,mailto:TLS@reports.example",
        )
        .text(
            "_smtp._tls.two.example",
            "v=TLSRPTv1; rua=mailto:tls@two.example",
        )
        .text("_smtp._tls.bad.example", "v=TLSRPTv1; rua=gopher:tls");
    let dns = Dns::start(folder.path(), &zones).await.unwrap();
    let documents = "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: { name: ops }\nspec: { defaultStream: reports, streams: [ { name: reports } ] }\n";
    let snapshot = Snapshot::from_documents(documents).unwrap();
    let config = installation.stores().config();
    let body = Bytes::from(snapshot.to_json());
    config.put(body, snapshot.hash(), 0).await.unwrap();

    // Whichever of the two days is the last that is reported: early in the day it is the one before.
    let events = installation.stores().events();
    let now = now_ms();
    for day in [1, 2] {
        let at = now - day * DAY_MS;
        for event in [
            sessions("one.example", at, 3, 2),
            sessions("one.example", at, 4, 1),
            sessions("two.example", at, 1, 0),
            sessions("bad.example", at, 1, 1),
            sessions("none.example", at, 1, 1),
        ] {
            events.store("sender", vec![event]).await.unwrap();
        }
    }
    events
        .store("sender", vec![sessions("two.example", now, 100, 0)])
        .await
        .unwrap();
    events
        .store(
            "ingress",
            vec![sessions("two.example", now - DAY_MS, 100, 0)],
        )
        .await
        .unwrap();

    let more = format!(
        "resolvers: [\"{}\"]\ntlsReports: {{ organization: Relay, contact: ops@relay.example, from: tls@relay.example, tenant: ops }}\n",
        dns.address()
    );
    let both = [
        installation.feedback_with("", &more),
        installation.feedback_with("", &more),
    ];
    let begun = std::time::Instant::now();
    while !is_done(&installation).await {
        assert!(begun.elapsed() < PATIENCE, "the reports are not made");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for feedback in both {
        feedback.stop().await;
    }
    // One that starts later finds nothing to do.
    let late = installation.feedback_with("", &more);
    late.stop().await;

    let reports = reports(&installation).await;
    let domains: Vec<&str> = reports.iter().map(|(domain, ..)| domain.as_str()).collect();
    assert_eq!(domains, ["one.example", "two.example"]);
    let (_, entry, text) = &reports[0];
    let envelope = entry.envelope.clone().unwrap();
    let to: Vec<&str> = envelope
        .recipients
        .iter()
        .map(|to| to.address.as_str())
        .collect();
    assert_eq!(to, ["tls@one.example", "TLS@reports.example"]);
    assert_eq!((&*envelope.tenant, &*envelope.stream), ("ops", "reports"));
    assert_eq!(
        (&*envelope.return_path, &*envelope.from_domain),
        ("tls@relay.example", "relay.example")
    );
    assert!(envelope.tls_optional && envelope.not_before_ms > 0);
    assert!(text.contains("TLS-Required: No\r\n"), "{text}");
    let report = tlsrpt_json(text);
    assert_eq!(report["organization-name"], "Relay");
    let summary = &report["policies"][0]["summary"];
    assert_eq!(summary["total-successful-session-count"], 7);
    assert_eq!(summary["total-failure-session-count"], 3);
    let details = report["policies"][0]["failure-details"]
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(details.len(), 1);
    assert_eq!(details[0]["receiving-mx-hostname"], "mx.one.example");
}

/// The report that is attached.
fn tlsrpt_json(text: &str) -> Value {
    use std::io::Read as _;
    let (_, attached) = text.split_once("filename=").unwrap();
    let (_, encoded) = attached.split_once("\r\n\r\n").unwrap();
    let encoded: String = encoded.split("--").next().unwrap().split("\r\n").collect();
    let octets =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, encoded).unwrap();
    let mut json = String::new();
    flate2::read::GzDecoder::new(&octets[..])
        .read_to_string(&mut json)
        .unwrap();
    serde_json::from_str(&json).unwrap()
}
