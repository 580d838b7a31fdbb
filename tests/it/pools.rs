//! Egress pools over several schedulers: shares of sources, sources that don't work, and nothing from elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use kit::{
    Documents, Load, LoadOptions, Outcome, Relay, Session, Setup, Sink, Zones, free_port_on,
    message, metric, until,
};
use serde_json::Value;

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(90);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 36, 1, 1));
const A: &str = "127.36.1.71";
const B: &str = "127.36.1.72";
/// Of a network for documentation: no machine has it.
const NOWHERE: &str = "192.0.2.1";

fn documents(port: u16, sources: &str) -> String {
    let usual = "{ sources: [ { name: a, ehlo: relay.example.com } ] }";
    let documents = Documents::new(port).yaml();
    assert!(documents.contains(usual));
    documents.replace(usual, &format!("{{ sources: [ {sources} ] }}"))
}

fn source(name: &str, address: &str, weight: u32) -> String {
    format!("{{ name: {name}, address: {address}, ehlo: relay.example.com, weight: {weight} }}")
}

/// Kind and text of what keeps the first delivery to the domain.
async fn why(relay: &Relay) -> Option<(String, String)> {
    let command = ["why", "one.example", "--output", "json"];
    let value: Value = serde_json::from_str(&relay.command(&command).await.ok()?).ok()?;
    let constraint = &value["deliveries"].as_array()?.first()?["constraint"];
    let text = |name: &str| constraint[name].as_str().unwrap_or_default().to_owned();
    Some((text("kind"), text("text")))
}

#[tokio::test]
async fn sources_have_their_shares_and_a_pool_without_one_that_works_holds_its_mail() -> Result<()>
{
    let port = free_port_on(&[HOST])?;
    let sink = Sink::start(SocketAddr::new(HOST, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", HOST);
    let three = [
        source("a", A, 3),
        source("b", B, 1),
        source("nowhere", NOWHERE, 1),
    ];
    let setup = Setup::new("pools", zones, documents(port, &three.join(", "))).with("scheduler-2");
    let relay = Relay::start(setup).await?;
    let owned = "staffetta_scheduler_owned_partitions";
    until("one partition for each", PATIENCE, || async {
        let first = metric(&relay.metrics("scheduler").await, owned, "");
        let second = metric(&relay.metrics("scheduler-2").await, owned, "");
        ((first, second) == (1.0, 1.0)).then_some(())
    })
    .await?;
    let options = LoadOptions {
        connections: 4,
        rate: None,
        size: 1000,
        sender: SENDER.to_owned(),
        domains: vec!["one.example".to_owned()],
        prefix: "pools".to_owned(),
        messages: 240,
    };
    Load::start(relay.submission(), options).finish().await?;
    let received = sink.wait_for(240, PATIENCE).await?;
    let from = |address: &str| {
        let address: IpAddr = address.parse().expect("an address");
        received.iter().filter(|of| of.peer.ip() == address).count()
    };
    let (a, b) = (from(A), from(B));
    ensure!(a + b == 240, "{a} and {b}, and others from elsewhere");
    ensure!(
        (150..=205).contains(&a),
        "{a} and {b} instead of 180 and 60"
    );
    let out = "staffetta_scheduler_sources_out";
    let mut outages = 0.0;
    for scheduler in ["scheduler", "scheduler-2"] {
        outages += metric(&relay.metrics(scheduler).await, out, "");
    }
    ensure!(outages >= 1.0, "{outages}");
    let events = relay.events().await?;
    let is_outage = |line: &str| {
        line.contains("\"measure\":\"out\"") && line.contains("\"source\":\"nowhere\"")
    };
    ensure!(events.lines().any(is_outage), "{events}");

    relay
        .apply(&documents(port, &source("nowhere", NOWHERE, 1)))
        .await?;
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let to = "user@one.example".to_owned();
    let content = message("held", SENDER, &to, 1000);
    let outcome = session.submit(SENDER, &[to], &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    let text = until("the pool to be named", PATIENCE, || async {
        let (kind, text) = why(&relay).await?;
        (kind == "no-source").then_some(text)
    })
    .await?;
    let expected =
        "no source of the pool default can be used: nowhere: the source address can't be used";
    ensure!(text.starts_with(expected), "{text}");
    ensure!(sink.count() == 240, "it went out from elsewhere");

    relay.apply(&documents(port, &source("b", B, 1))).await?;
    let received = sink.wait_for(241, PATIENCE).await?;
    let last = received.iter().find(|of| of.token == "held");
    ensure!(last.is_some_and(|last| last.peer.ip().to_string() == B));
    relay.finish()
}
