//! What holds for all schedulers: shares of sources, sources that don't work and nothing from elsewhere, and what is done
//! about replies.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use kit::{
    Documents, Load, LoadOptions, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones,
    free_port_on, message, metric, until,
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

async fn submit(relay: &Relay, token: &str) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let to = "user@one.example".to_owned();
    let content = message(token, SENDER, &to, 1000);
    let outcome = session.submit(SENDER, &[to], &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

async fn one_partition_for_each(relay: &Relay) -> Result<()> {
    until("one partition for each", PATIENCE, || async {
        let owned = both(relay, "staffetta_scheduler_owned_partitions").await;
        (owned == (1.0, 1.0)).then_some(())
    })
    .await
}

/// A metric of both schedulers.
async fn both(relay: &Relay, name: &str) -> (f64, f64) {
    let first = metric(&relay.metrics("scheduler").await, name, "");
    let second = metric(&relay.metrics("scheduler-2").await, name, "");
    (first, second)
}

#[tokio::test]
async fn what_one_scheduler_does_about_a_reply_holds_at_the_other_and_after_a_restart() -> Result<()>
{
    let host = IpAddr::V4(Ipv4Addr::new(127, 36, 1, 2));
    let port = free_port_on(&[host])?;
    let rules = vec![Rule::reply(
        Stage::Recipient,
        "451 4.7.1 We have had enough of you",
    )];
    let sink = Sink::start(SocketAddr::new(host, port), rules).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let mut documents = Documents::new(port);
    documents.more =
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Automation\nmetadata: { name: mine }\n\
         spec: { rules: [ { reply: { text: had enough }, action: suspend, for: 1h } ] }\n"
            .to_owned();
    let setup = Setup::new("acts", zones, documents.yaml()).with("scheduler-2");
    let mut relay = Relay::start(setup).await?;
    one_partition_for_each(&relay).await?;
    submit(&relay, "first").await?;
    let active = "staffetta_scheduler_automation_active";
    until("both to suspend the lane", PATIENCE, || async {
        (both(&relay, active).await == (1.0, 1.0)).then_some(())
    })
    .await?;
    // One of them heard it, and told the other.
    let begun = "staffetta_scheduler_automation_total";
    let begun = async |name: &str| metric(&relay.metrics(name).await, begun, "suspend");
    ensure!(begun("scheduler").await + begun("scheduler-2").await == 1.0);
    let refused = |sink: &Sink| {
        let commands = sink.commands();
        commands
            .iter()
            .filter(|line| line.starts_with("RCPT"))
            .count()
    };
    ensure!(refused(&sink) == 1);
    for number in 0..8 {
        submit(&relay, &format!("more-{number}")).await?;
    }
    until("all of it to be suspended", PATIENCE, || async {
        let command = ["why", "one.example", "--output", "json"];
        let value: Value = serde_json::from_str(&relay.command(&command).await.ok()?).ok()?;
        let kept = value["deliveries"].as_array()?.iter();
        let kind = |delivery: &Value| delivery["constraint"]["kind"] == "suspended";
        (kept.filter(|delivery| kind(delivery)).count() >= 8).then_some(())
    })
    .await?;
    ensure!(refused(&sink) == 1, "the other scheduler tried it, too");
    relay.kill9("scheduler-2")?;
    relay.start_process("scheduler-2")?;
    relay.wait_ready().await?;
    until("it to know", PATIENCE, || async {
        (both(&relay, active).await == (1.0, 1.0)).then_some(())
    })
    .await?;
    relay.finish()
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
    one_partition_for_each(&relay).await?;
    let options = LoadOptions {
        connections: 4,
        // So slow that no lane is jammed: what would wait at one goes to another source of the pool.
        rate: Some(40.0),
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
    // Gauges follow each second, and the journal is read behind its writers.
    until("the outage to be told", PATIENCE, || async {
        let out = "staffetta_scheduler_sources_out";
        let mut outages = 0.0;
        for scheduler in ["scheduler", "scheduler-2"] {
            outages += metric(&relay.metrics(scheduler).await, out, "");
        }
        let is_outage = |line: &str| {
            line.contains("\"measure\":\"out\"") && line.contains("\"source\":\"nowhere\"")
        };
        let events = relay.events().await.unwrap_or_default();
        (outages >= 1.0 && events.lines().any(is_outage)).then_some(())
    })
    .await?;

    relay
        .apply(&documents(port, &source("nowhere", NOWHERE, 1)))
        .await?;
    submit(&relay, "held").await?;
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
