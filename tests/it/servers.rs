//! The kit itself: servers that start, die and come back, a client and a sink that agree.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use kit::{
    Action, Dns, Load, LoadOptions, NatsServer, Outcome, Place, RedisServer, Rule, Session, Sink,
    Stage, Zones, message, until,
};

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn options(prefix: &str, messages: u64) -> LoadOptions {
    LoadOptions {
        connections: 4,
        rate: None,
        size: 3000,
        sender: "app@acme.example".to_owned(),
        domains: vec!["one.example".to_owned(), "two.example".to_owned()],
        prefix: prefix.to_owned(),
        messages,
    }
}

#[tokio::test]
async fn servers_come_back_on_the_same_port_after_kill_9() -> Result<()> {
    let place = Place::new("servers_come_back")?;
    let mut nats = NatsServer::start(place.path()).await?;
    let mut redis = RedisServer::start(place.path()).await?;
    let url = nats.url();
    nats.kill9()?;
    redis.kill9()?;
    nats.restart().await?;
    redis.restart().await?;
    assert_eq!(nats.url(), url);
    drop((nats, redis));
    place.finish()
}

#[tokio::test]
async fn dns_starts_with_the_zones_given() -> Result<()> {
    let place = Place::new("dns_starts")?;
    let zones = Zones::new()
        .mx("dest.example", 10, "mx.dest.example")
        .mx("null.example", 0, ".")
        .address("mx.dest.example", Ipv4Addr::LOCALHOST.into())
        .text("s1._domainkey.acme.example", &"v=DKIM1; ".repeat(40));
    let dns = Dns::start(place.path(), &zones).await?;
    assert_ne!(dns.address().port(), 0);
    drop(dns);
    place.finish()
}

#[tokio::test]
async fn the_ledger_of_a_client_and_a_sink_agree() -> Result<()> {
    let sink = Sink::start(loopback(), Vec::new()).await?;
    let ledger = Load::start(sink.address(), options("agree", 100))
        .finish()
        .await?;
    let balance = ledger.balance(&[&sink], &HashSet::new());
    assert_eq!(
        (balance.accepted, balance.delivered, balance.duplicates),
        (100, 100, 0),
        "{balance}"
    );
    assert!(sink.received().iter().all(|received| received.intact));
    Ok(())
}

#[tokio::test]
async fn a_sink_follows_its_rules() -> Result<()> {
    let rules = vec![
        Rule::reply(Stage::Recipient, "451 4.7.1 Later")
            .to("later@")
            .times(1),
        Rule::reply(Stage::Recipient, "550 5.1.1 Unknown").to("nobody@"),
        Rule::at(Stage::Dot, Action::TakeAndDrop)
            .to("doubt@")
            .times(1),
        Rule::at(Stage::Dot, Action::Drop).to("drop@").times(1),
    ];
    let sink = Sink::start(loopback(), rules).await?;
    let expected = [
        ("later@x.example", "451", false),
        ("later@x.example", "250", true),
        ("nobody@x.example", "550", false),
        ("doubt@x.example", "unknown", true),
        ("drop@x.example", "unknown", false),
    ];
    for (number, (recipient, reply, taken)) in expected.into_iter().enumerate() {
        let token = format!("rules-{number}");
        let mut session = Session::open(sink.address(), Duration::from_secs(60)).await?;
        let content = message(&token, "app@acme.example", recipient, 500);
        let outcome = session
            .submit("app@acme.example", &[recipient.to_owned()], &content)
            .await?;
        let found = match &outcome {
            Outcome::Accepted(reply) | Outcome::Refused(reply) => reply[..3].to_owned(),
            Outcome::Unknown(_) => "unknown".to_owned(),
        };
        assert_eq!(found, reply, "{recipient}");
        let is_taken = || async {
            sink.received()
                .iter()
                .any(|received| received.token == token)
                .then_some(())
        };
        let seen = until(
            "the message",
            Duration::from_millis(if taken { 60_000 } else { 50 }),
            is_taken,
        )
        .await;
        assert_eq!(seen.is_ok(), taken, "{recipient}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_in_doubt_counts_as_a_duplicate_only_when_it_came_twice() -> Result<()> {
    let sink = Sink::start(
        loopback(),
        vec![Rule::at(Stage::Dot, Action::TakeAndDrop).times(1)],
    )
    .await?;
    let ledger = Load::start(sink.address(), options("doubt", 10))
        .finish()
        .await?;
    let balance = ledger.balance(&[&sink], &HashSet::new());
    assert_eq!(
        (
            balance.unknown,
            balance.unknown_delivered,
            balance.duplicates
        ),
        (10, 10, 0),
        "{balance}"
    );
    Ok(())
}
