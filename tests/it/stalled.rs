//! A sender that reads nothing keeps what it holds, for a while; others go on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{Documents, Load, LoadOptions, Relay, Setup, Sink, Zones, free_port_on, until};
use proto::dispatch::{Hello, SenderFrame, SenderItem, sender_item};
use proto::{Attached, Dispatch, GrpcDispatch};
use serde_json::Value;

/// Longer than anything that must happen takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(180);
const MESSAGES: u64 = 300;
const CONNECTIONS: u32 = 4;

/// Names of the senders that hold mail to a domain.
async fn holders(relay: &Relay, domain: &str) -> Result<Vec<String>> {
    let printed = relay.command(&["why", domain, "--output", "json"]).await?;
    let value: Value = serde_json::from_str(&printed)?;
    let deliveries = value["deliveries"].as_array().cloned().unwrap_or_default();
    let text = |delivery: &Value| {
        let text = delivery["constraint"]["text"].as_str();
        text.unwrap_or_default().to_owned()
    };
    Ok(deliveries.iter().map(text).collect())
}

/// A stream of a sender that wants all there is, and never looks at what it is told.
async fn deaf_sender(scheduler: SocketAddr) -> Result<Attached> {
    let mut attached = GrpcDispatch::new(&scheduler.to_string())?.attach().await?;
    let hello = Hello {
        sender_id: "deaf".to_owned(),
        credit: 1_000,
        answers_pings: true,
        ..Hello::default()
    };
    let first = SenderFrame {
        items: vec![SenderItem {
            kind: Some(sender_item::Kind::Hello(hello)),
        }],
    };
    attached.frames.send(first).await.context("it is open")?;
    attached.events.recv().await.context("a welcome")?;
    Ok(attached)
}

#[tokio::test]
async fn a_sender_that_reads_nothing_keeps_others_from_nothing_for_long() -> Result<()> {
    let host: IpAddr = Ipv4Addr::new(127, 35, 1, 1).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start_counting(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = ["one", "two", "three"]
        .iter()
        .fold(Zones::new(), |zones, name| {
            zones.mx(&format!("{name}.example"), 10, "mx.example")
        })
        .address("mx.example", host);
    let mut documents = Documents::new(port);
    documents.shaping = format!("[ {{ connections: {CONNECTIONS} }} ]");
    let mut relay = Relay::start(Setup::new("deaf-sender", zones, documents.yaml())).await?;
    let mut deaf = deaf_sender(relay.scheduler_of("scheduler")?).await?;
    let options = LoadOptions {
        connections: 4,
        rate: None,
        size: 1000,
        sender: "app@acme.example".to_owned(),
        domains: ["one.example", "two.example", "three.example"]
            .map(str::to_owned)
            .into(),
        prefix: "deaf".to_owned(),
        messages: MESSAGES,
    };
    let ledger = Load::start(relay.submission(), options).finish().await?;
    until("mail at the deaf sender", PATIENCE, || async {
        let mut all = Vec::new();
        for domain in ["one.example", "two.example", "three.example"] {
            all.extend(holders(&relay, domain).await.ok()?);
        }
        all.iter()
            .any(|text| text == "sender deaf has it")
            .then_some(())
    })
    .await?;
    // It says nothing, and is left after a while; what it held is delivered by the other one.
    sink.wait_for(MESSAGES as usize, PATIENCE).await?;
    let balance = ledger.balance(&[&sink], &Default::default());
    ensure!(
        balance.missing.is_empty() && balance.duplicates == 0,
        "{balance}"
    );
    let ended = async { while deaf.events.recv().await.is_some() {} };
    tokio::time::timeout(PATIENCE, ended)
        .await
        .context("its stream is ended")?;
    relay.finish()
}
