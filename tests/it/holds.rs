//! Mail on hold: it does not age, and does not stay for ever.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use kit::{
    Documents, Layout, Outcome, Relay, Rule, Session, Setup, Sink, Stage, Zones, free_port_on,
    message, until,
};
use serde_json::Value;

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(120);

fn host(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 36, 2, number).into()
}

/// Documents with this of the tenant, all whose mail is on hold.
fn held(documents: &Documents, tenant: &str) -> String {
    let before = "{ defaultStream: transactional,";
    let with = format!("{{ mode: hold{tenant}, defaultStream: transactional,");
    documents.yaml().replace(before, &with)
}

fn zones(host: IpAddr) -> Zones {
    Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .mx("acme.example", 10, "mx.one.example")
        .address("mx.one.example", host)
}

async fn submit(relay: &Relay, token: &str) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let recipients = ["user@one.example".to_owned()];
    let content = message(token, SENDER, &recipients[0], 300);
    let outcome = session.submit(SENDER, &recipients, &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

/// Since when, and until when, what is on hold is so at most, Unix milliseconds.
async fn row(relay: &Relay) -> Option<(u64, u64)> {
    let printed = relay.command(&["queue", "--output", "json"]).await.ok()?;
    let value: Value = serde_json::from_str(&printed).ok()?;
    let row = value["rows"].as_array()?.first()?.clone();
    let times = (row["heldSinceMs"].as_u64()?, row["heldUntilMs"].as_u64()?);
    (row["held"] == 1 && times.1 > 0).then_some(times)
}

async fn events(relay: &Relay, kind: &str) -> Result<Vec<Value>> {
    let all = relay.events().await?;
    let all: Vec<Value> = all
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let is_it = |event: &Value| event["type"] == kind;
    Ok(all.into_iter().filter(is_it).collect())
}

#[tokio::test]
async fn what_was_on_hold_for_longer_than_it_may_get_old_is_tried_as_long_as_other_mail()
-> Result<()> {
    let host = host(1);
    let port = free_port_on(&[host])?;
    let rules = vec![Rule::reply(Stage::Recipient, "451 4.3.0 later").times(1)];
    let sink = Sink::start(SocketAddr::new(host, port), rules).await?;
    let mut documents = Documents::new(port);
    documents.max_age = "20s".to_owned();
    let setup = Setup::new("hold-age", zones(host), held(&documents, ""));
    let mut relay = Relay::start(setup.layout(Layout::AllInOne)).await?;
    submit(&relay, "A-1").await?;
    let older = Duration::from_secs(21);
    until("it is older than it may get", PATIENCE, || async {
        let (since_ms, until_ms) = row(&relay).await?;
        assert_eq!(until_ms - since_ms, 7 * 86_400_000);
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).ok()?;
        (now > Duration::from_millis(since_ms) + older).then_some(())
    })
    .await?;
    relay.kill9("all")?;
    relay.start_process("all")?;
    relay.wait_ready().await?;
    ensure!(sink.connections() == 0);
    let release = ["queue", "release", "--tenant", "acme", "--author", "alice"];
    relay.command(&release).await?;
    // Deferred once: without the time on hold it would be too old for another attempt.
    let received = sink.wait_for(1, PATIENCE).await?;
    ensure!(received[0].text().contains("A-1"));
    ensure!(!received[0].sender.is_empty(), "it is no DSN");
    ensure!(events(&relay, "Deferral").await?.len() == 1);
    ensure!(events(&relay, "Reception").await?[0]["hold"] == true);
    relay.finish()
}

#[tokio::test]
async fn a_hold_that_is_too_long_ends_with_an_event_and_as_the_tenant_wants() -> Result<()> {
    let host = host(2);
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let documents = Documents::new(port);
    let setup = Setup::new("hold-end", zones(host), held(&documents, ", maxHold: 30d"));
    let relay = Relay::start(setup.layout(Layout::AllInOne)).await?;
    submit(&relay, "E-1").await?;
    until("it is on hold", PATIENCE, || row(&relay)).await?;
    // Holds for what is on hold already.
    relay.apply(&held(&documents, ", maxHold: 1s")).await?;
    let notice = sink.wait_for(1, PATIENCE).await?.remove(0);
    ensure!(notice.sender.is_empty() && notice.recipients == [SENDER]);
    let text = notice.text();
    ensure!(text.contains("not released in time"), "{text}");
    ensure!(text.contains("Status: 4.4.7"), "{text}");
    let ended = events(&relay, "HoldExpired").await?;
    ensure!(
        ended.len() == 1 && ended[0]["ends"] == "return",
        "{ended:?}"
    );
    ensure!(ended[0]["held_since"].is_string() && ended[0]["tenant"] == "acme");
    ensure!(events(&relay, "Expiration").await?.len() == 1);

    // Once the longer hold is known, another message is on hold, and then not for long any more.
    relay.apply(&held(&documents, ", maxHold: 30d")).await?;
    until("the longer hold holds", PATIENCE, || async {
        submit(&relay, "E-2").await.ok()?;
        let is_long = async || {
            let (since_ms, until_ms) = row(&relay).await?;
            (until_ms - since_ms == 30 * 86_400_000).then_some(())
        };
        until("it is on hold", Duration::from_secs(5), is_long)
            .await
            .ok()
    })
    .await?;
    let discard = held(&documents, ", maxHold: 1s, whenHoldEnds: discard");
    relay.apply(&discard).await?;
    until("the other hold ends", PATIENCE, || async {
        let ended = events(&relay, "HoldExpired").await.ok()?;
        (ended.last()?["ends"] == "discard").then_some(())
    })
    .await?;
    ensure!(events(&relay, "Cancellation").await?.len() == 1);
    let told = events(&relay, "Expiration").await?.len();
    ensure!(sink.wait_for(told, PATIENCE).await?.len() == told);
    relay.finish()
}
