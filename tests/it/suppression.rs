//! Whom nothing is sent to: what hosts and readers say, through real servers, and by hand.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones, free_port_on, message,
    until,
};
use proto::event::event::Kind;
use proto::event::{Complaint, Event};
use serde_json::Value;
use spool::{Options, Stores};

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(120);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 41, 5, 1));
const GONE: &str = "gone@one.example";
const BLOCKED: &str = "blocked@one.example";
const READER: &str = "reader@one.example";

fn documents(port: u16) -> String {
    let documents = Documents::new(port).yaml();
    let changed = documents
        .replace("streams: [ {", "streams: [ { name: bulk }, {")
        .replace(
            "stream: transactional,",
            "stream: transactional, mayChoose: [ bulk ],",
        );
    assert!(changed.contains("name: bulk") && changed.contains("mayChoose"));
    changed
}

/// Submits a message, of the stream.
async fn submit(relay: &Relay, to: &str, stream: &str, token: &str) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let mut content = format!("X-Staffetta-Stream: {stream}\r\n").into_bytes();
    content.extend(message(token, SENDER, to, 500));
    let outcome = session.submit(SENDER, &[to.to_owned()], &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

async fn events(relay: &Relay, kind: &str) -> Result<Vec<Value>> {
    let all = relay.events().await?;
    let of_kind = |event: &Value| event["type"] == kind;
    let events: Result<Vec<Value>, _> = all.lines().map(serde_json::from_str).collect();
    Ok(events?.into_iter().filter(of_kind).collect())
}

/// Waits for so many events of a type.
async fn wait_for(relay: &Relay, kind: &str, count: usize) -> Result<Vec<Value>> {
    until(&format!("{count} events {kind}"), PATIENCE, || async move {
        let events = events(relay, kind).await.ok()?;
        (events.len() >= count).then_some(events)
    })
    .await
}

/// Outcomes so far, whatever they are.
async fn outcomes(relay: &Relay) -> Result<usize> {
    let mut count = 0;
    for kind in ["Delivery", "Bounce", "Suppression"] {
        count += events(relay, kind).await?.len();
    }
    Ok(count)
}

/// Submits a message and waits until it ended, one way or the other.
async fn submit_to_end(relay: &Relay, to: &str, stream: &str, token: &str) -> Result<()> {
    let before = outcomes(relay).await?;
    submit(relay, to, stream, token).await?;
    until("the message to end", PATIENCE, || async {
        let count = outcomes(relay).await.ok()?;
        (count > before).then_some(())
    })
    .await
}

/// Submits messages until one of them is suppressed: a scheduler hears of an entry a moment later.
async fn until_suppressed(relay: &Relay, to: &str, stream: &str) -> Result<Value> {
    let before = events(relay, "Suppression").await?.len();
    for number in 0..100 {
        submit_to_end(relay, to, stream, &format!("{to}-{stream}-{number}")).await?;
        let mut suppressed = events(relay, "Suppression").await?;
        if suppressed.len() > before {
            return suppressed.pop().context("there is one");
        }
    }
    anyhow::bail!("{to} is not suppressed")
}

/// Submits messages until one of them arrives.
async fn until_sent(relay: &Relay, sink: &Sink, to: &str, stream: &str) -> Result<()> {
    let before = sink.count();
    for number in 0..100 {
        submit_to_end(relay, to, stream, &format!("again-{to}-{stream}-{number}")).await?;
        if sink.count() > before {
            return Ok(());
        }
    }
    anyhow::bail!("nothing is sent to {to}")
}

async fn run(relay: &Relay, arguments: &[&str]) -> Result<String> {
    let mut command = vec!["suppression"];
    command.extend(arguments);
    relay.command(&command).await
}

#[tokio::test]
async fn who_is_not_there_is_not_written_to_again_and_who_refuses_us_is() -> Result<()> {
    let port = free_port_on(&[HOST])?;
    let rules = vec![
        Rule::reply(Stage::Recipient, "550 5.1.1 No such user here").to("gone@"),
        Rule::reply(Stage::Recipient, "550 5.7.1 Your network is blocked").to("blocked@"),
    ];
    let sink = Sink::start(SocketAddr::new(HOST, port), rules).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", HOST);
    let mut relay = Relay::start(Setup::new("suppression", zones, documents(port))).await?;

    // What bounces while nobody looks is found later.
    relay.kill9("feedback")?;
    submit(&relay, GONE, "bulk", "first-gone").await?;
    submit(&relay, BLOCKED, "bulk", "first-blocked").await?;
    let bounces = wait_for(&relay, "Bounce", 2).await?;
    ensure!(bounces.len() == 2, "{bounces:?}");
    relay.start_process("feedback")?;
    let changed = wait_for(&relay, "SuppressionChanged", 1).await?;
    ensure!(changed.len() == 1, "{changed:?}");
    let told = &changed[0];
    ensure!(
        told["recipient"] == GONE && told["reason"] == "hard",
        "{told}"
    );
    ensure!(
        told["tenant"] == "acme" && told["stream"] == "bulk",
        "{told}"
    );

    let suppressed = until_suppressed(&relay, GONE, "bulk").await?;
    ensure!(suppressed["reply"]["enhanced"] == "5.7.1", "{suppressed}");
    ensure!(suppressed["dsn_owed"] != true, "{suppressed}");
    let asked = |sink: &Sink, who: &str| {
        let commands = sink.commands();
        let of = |line: &&String| line.starts_with("RCPT") && line.contains(who);
        commands.iter().filter(of).count()
    };
    let before = (asked(&sink, "gone@"), asked(&sink, "blocked@"));
    submit_to_end(&relay, GONE, "bulk", "second-gone").await?;
    submit_to_end(&relay, BLOCKED, "bulk", "second-blocked").await?;
    let after = (asked(&sink, "gone@"), asked(&sink, "blocked@"));
    ensure!(after == (before.0, before.1 + 1), "{before:?} {after:?}");

    // A restarted scheduler knows it before it sends anything.
    relay.kill9("scheduler")?;
    relay.start_process("scheduler")?;
    relay.wait_ready().await?;
    until_suppressed(&relay, GONE, "bulk").await?;
    ensure!(asked(&sink, "gone@") == before.0);

    // A complaint about bulk mail is one about bulk mail.
    let stores = Stores::connect(&Options {
        url: relay.nats.url(),
        name: "test".to_owned(),
        ..Options::default()
    })
    .await?;
    let complaint = Event {
        at_ms: runtime::now_ms(),
        tenant: "acme".to_owned(),
        kind: Some(Kind::Complaint(Complaint {
            stream: "bulk".to_owned(),
            recipient: READER.to_owned(),
            feedback_type: "abuse".to_owned(),
            ..Complaint::default()
        })),
        ..Event::default()
    };
    stores.events().store("feedback", vec![complaint]).await?;
    until_suppressed(&relay, READER, "bulk").await?;
    until_sent(&relay, &sink, READER, "transactional").await?;

    by_hand(&relay, &sink).await?;
    relay.finish()
}

async fn by_hand(relay: &Relay, sink: &Sink) -> Result<()> {
    let shown = run(relay, &["show", GONE, "--output", "json"]).await?;
    let shown: Value = serde_json::from_str(shown.trim())?;
    ensure!(
        shown["reason"] == "hard" && shown["stream"] == "bulk",
        "{shown}"
    );
    ensure!(shown["cause"] == "550 5.1.1 No such user here", "{shown}");
    let listed = run(relay, &["list", "--reason", "complaint"]).await?;
    ensure!(
        listed.contains(READER) && !listed.contains(GONE),
        "{listed}"
    );

    let author = ["--author", "alice"];
    let mut add = vec!["add", READER, "--global", "--reason", "asked by phone"];
    add.extend(author);
    run(relay, &add).await?;
    until_suppressed(relay, READER, "transactional").await?;
    let path = relay.folder().join("all.csv").display().to_string();
    run(relay, &["export", &path]).await?;
    let table = std::fs::read_to_string(&path)?;
    ensure!(table.lines().count() == 4, "{table}");

    let mut remove = vec!["remove", READER, "--global"];
    remove.extend(author);
    run(relay, &remove).await?;
    until_sent(relay, sink, READER, "transactional").await?;
    ensure!(run(relay, &["show", READER]).await?.contains("acme/bulk"));
    let mut import = vec!["import", &*path, "--global"];
    import.extend(author);
    ensure!(run(relay, &import).await? == "added: 3\n");
    until_suppressed(relay, READER, "transactional").await?;

    let bad = relay.folder().join("bad.csv");
    std::fs::write(
        &bad,
        "address,tenant,stream\na@one.example,acme,bulk\nb,acme,bulk\n",
    )?;
    let bad = bad.display().to_string();
    let mut import = vec!["import", &*bad];
    import.extend(author);
    let refused = run(relay, &import).await.err().context("b is no address")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("line 3: address: it is none"), "{refused}");
    Ok(())
}
