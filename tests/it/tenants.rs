//! Tenants on probation and in quarantine, over two schedulers and their restart.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones, free_port_on, message,
    metric, until,
};
use serde_json::Value;

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(120);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 41, 1, 1));
/// Of the pools `default`, `fresh` and `penalty`.
const OWN: &str = "127.41.1.71";
const FRESH: &str = "127.41.1.72";
const PENALTY: &str = "127.41.1.73";

fn documents(port: u16) -> String {
    let usual = "{ sources: [ { name: a, ehlo: relay.example.com } ] }";
    let mut documents = Documents::new(port);
    let source = |name: &str, address: &str| {
        format!("{{ name: {name}, address: {address}, ehlo: relay.example.com }}")
    };
    let pool = |name: &str, source: String| {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: {{ name: {name} }}\n\
             spec: {{ sources: [ {source} ] }}\n"
        )
    };
    let rules = "---\napiVersion: staffetta.dev/v1alpha1\nkind: Automation\nmetadata: { name: mine }\n\
                 spec: { rules: [ { reply: { text: this is spam }, action: quarantine, for: 1d } ] }\n";
    documents.more = [
        pool("fresh", source("b", FRESH)),
        pool("penalty", source("c", PENALTY)),
        rules.to_owned(),
    ]
    .concat();
    let own = format!(
        "{{ sources: [ {} ], maxTenants: 20, quarantine: penalty, probation: {{ pool: fresh, days: 1, delivered: 1 }} }}",
        source("a", OWN)
    );
    let documents = documents.yaml();
    assert!(documents.contains(usual));
    documents.replace(usual, &own)
}

/// How acme stands in the pool `default`, and by which pool its mail leaves.
async fn standing(relay: &Relay) -> Result<(String, String)> {
    let command = ["tenants", "--pool", "default", "--output", "json"];
    let value: Value = serde_json::from_str(&relay.command(&command).await?)?;
    let tenant = &value["pools"][0]["tenants"][0];
    ensure!(tenant["tenant"] == "acme", "{value}");
    let text = |name: &str| tenant[name].as_str().unwrap_or_default().to_owned();
    Ok((text("standing"), text("leavesBy")))
}

async fn decide(relay: &Relay, command: &str, reason: &str) -> Result<()> {
    let pool = ["--pool", "default", "--author", "alice"];
    let mut command = vec!["tenants", command, "acme"];
    command.extend(pool);
    command.extend(["--reason", reason]);
    relay.command(&command).await.map(drop)
}

/// Submits messages until one left by a source: a scheduler hears of a decision a moment later.
async fn sent_from(relay: &Relay, sink: &Sink, expected: &str) -> Result<()> {
    let expected: IpAddr = expected.parse()?;
    for number in 0..200 {
        let token = format!("{expected}-{number}");
        let mut session = Session::open(relay.submission(), PATIENCE).await?;
        let to = "user@one.example".to_owned();
        let content = message(&token, SENDER, &to, 1000);
        let outcome = session.submit(SENDER, &[to], &content).await?;
        ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        let from = until("it to arrive", PATIENCE, || async {
            let received = sink.received();
            let arrived = received.iter().find(|of| of.token == token)?;
            Some(arrived.peer.ip())
        })
        .await?;
        if from == expected {
            return Ok(());
        }
    }
    anyhow::bail!("nothing left by {expected}")
}

#[tokio::test]
async fn tenants_are_apart_as_they_stand_over_schedulers_and_restarts() -> Result<()> {
    let port = free_port_on(&[HOST])?;
    let sink = Sink::start(SocketAddr::new(HOST, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", HOST);
    let setup = Setup::new("tenants", zones, documents(port)).with("scheduler-2");
    let mut relay = Relay::start(setup).await?;
    // It is new, and nothing of it leaves by the pool's own source.
    sent_from(&relay, &sink, FRESH).await?;
    let all = sink.received();
    ensure!(all.iter().all(|of| of.peer.ip().to_string() == FRESH));
    ensure!(standing(&relay).await? == ("probation".to_owned(), "fresh".to_owned()));

    decide(&relay, "admit", "known from elsewhere").await?;
    sent_from(&relay, &sink, OWN).await?;

    // What the other side says makes a rule send it into quarantine.
    sink.set_rules(vec![
        Rule::reply(Stage::Recipient, "450 4.7.1 this is spam").times(1),
    ]);
    sent_from(&relay, &sink, PENALTY).await?;
    ensure!(standing(&relay).await? == ("quarantine".to_owned(), "penalty".to_owned()));

    // That survives both schedulers.
    for name in ["scheduler", "scheduler-2"] {
        relay.kill9(name)?;
    }
    let before = sink.count();
    for name in ["scheduler", "scheduler-2"] {
        relay.start_process(name)?;
    }
    relay.wait_ready().await?;
    sent_from(&relay, &sink, PENALTY).await?;
    let later = &sink.received()[before..];
    ensure!(later.iter().all(|of| of.peer.ip().to_string() == PENALTY));
    let gauge = "staffetta_scheduler_tenants";
    for name in ["scheduler", "scheduler-2"] {
        until("the gauge", PATIENCE, || async {
            let count = metric(&relay.metrics(name).await, gauge, "quarantine");
            (count == 1.0).then_some(())
        })
        .await?;
    }

    decide(&relay, "release", "list cleaned").await?;
    sent_from(&relay, &sink, FRESH).await?;
    let expected = [
        ("new", "probation", "its first mail for the pool", ""),
        ("probation", "member", "known from elsewhere", "alice"),
        ("member", "quarantine", "mine/0: 450 4.7.1 this is spam", ""),
        ("quarantine", "probation", "list cleaned", "alice"),
    ];
    let moves = until("the moves to be told", PATIENCE, || async {
        let events = relay.events().await.ok()?;
        let moves: Vec<Value> = events
            .lines()
            .filter(|line| line.contains("TenantMoved"))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (moves.len() >= expected.len()).then_some(moves)
    })
    .await?;
    ensure!(moves.len() == expected.len(), "told twice: {moves:?}");
    for (event, (from, to, cause, author)) in moves.iter().zip(expected) {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let told = (text("from"), text("to"), text("cause"), text("author"));
        ensure!(told == (from, to, cause, author), "{event}");
        ensure!((text("tenant"), text("pool")) == ("acme", "default"));
    }
    let refused = relay.command(&["tenants", "admit", "bravo", "--pool", "default"]);
    let error = refused.await.err().context("there is no bravo")?;
    ensure!(
        format!("{error:#}").contains("no route leads mail of"),
        "{error:#}"
    );
    relay.finish()
}
