//! The way of a message from a client's session to the destination's MX, through real processes.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kit::{
    Action, Documents, Layout, Load, LoadOptions, Outcome, Received, Relay, Rule, Session, Setup,
    Sink, Stage, Zones, free_port_on, message,
};

const SENDER: &str = "app@acme.example";
/// Longer than anything that must happen takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

/// An address for an MX host of the test with this number; no two tests share one.
fn host(test: u8, host: u8) -> IpAddr {
    Ipv4Addr::new(127, 20, test, host).into()
}

/// Zones in which each domain has one MX host.
fn zones(domains: &[(&str, IpAddr)]) -> Zones {
    domains
        .iter()
        .fold(Zones::new(), |zones, (domain, address)| {
            let mx = format!("mx.{domain}");
            zones.mx(domain, 10, &mx).address(&mx, *address)
        })
}

/// Waits until so many messages are at the sink; else tells what the relay knows of the rest.
async fn arrivals(relay: &Relay, sink: &Sink, count: usize) -> Result<Vec<Received>> {
    match sink.wait_for(count, PATIENCE).await {
        Ok(received) => Ok(received),
        Err(error) => Err(error.context(state(relay).await)),
    }
}

/// Submits a test message and gives the reply of its 250.
async fn submit(relay: &Relay, token: &str, recipients: &[&str]) -> Result<String> {
    submit_sized(relay, token, recipients, 2000).await
}

async fn submit_sized(
    relay: &Relay,
    token: &str,
    recipients: &[&str],
    size: usize,
) -> Result<String> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let recipients: Vec<String> = recipients
        .iter()
        .map(|&recipient| recipient.to_owned())
        .collect();
    let content = message(token, SENDER, &recipients[0], size);
    match session.submit(SENDER, &recipients, &content).await? {
        Outcome::Accepted(reply) => Ok(reply),
        other => bail!("{token} was not accepted: {other:?}"),
    }
}

/// The DSN at the sink that names the recipient.
async fn dsn(relay: &Relay, sink: &Sink, recipient: &str) -> Result<Received> {
    let found = kit::until("a DSN", PATIENCE, || async {
        sink.received().into_iter().find(|received| {
            received.sender.is_empty()
                && received.recipients.iter().any(|to| to == SENDER)
                && received.text().contains(recipient)
        })
    })
    .await;
    match found {
        Ok(received) => Ok(received),
        Err(error) => Err(error.context(state(relay).await)),
    }
}

/// What the relay knows, for the text of a failure.
async fn state(relay: &Relay) -> String {
    let queue = relay
        .command(&["queue"])
        .await
        .unwrap_or_else(|error| format!("{error:#}"));
    let events = relay
        .events()
        .await
        .unwrap_or_else(|error| format!("{error:#}"));
    let last: Vec<&str> = events.lines().rev().take(10).collect();
    format!("{queue}\nlast events:\n{}", last.join("\n"))
}

#[tokio::test]
async fn a_message_goes_through_separate_processes_to_its_mx() -> Result<()> {
    let address = host(1, 1);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let relay = Relay::start(Setup::new(
        "separate",
        zones(&[("one.example", address)]),
        Documents::new(port).yaml(),
    ))
    .await?;

    submit(&relay, "T-1", &["user@one.example"]).await?;
    let received = arrivals(&relay, &sink, 1).await?.remove(0);

    assert_eq!((received.token.as_str(), received.intact), ("T-1", true));
    assert_eq!(received.sender, SENDER);
    assert_eq!(received.recipients, ["user@one.example"]);
    assert_eq!(received.ehlo, "relay.example.com");
    assert!(
        received.text().starts_with("Received: "),
        "{}",
        received.text()
    );
    relay.finish()
}

#[tokio::test]
async fn one_process_with_all_services_delivers_too() -> Result<()> {
    let address = host(2, 1);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = zones(&[("one.example", address)]);
    let setup =
        Setup::new("all-in-one", zones, Documents::new(port).yaml()).layout(Layout::AllInOne);
    let relay = Relay::start(setup).await?;

    let options = LoadOptions {
        connections: 4,
        rate: None,
        size: 4000,
        sender: SENDER.to_owned(),
        domains: vec!["one.example".to_owned()],
        prefix: "all".to_owned(),
        messages: 200,
    };
    let ledger = Load::start(relay.submission(), options).finish().await?;
    arrivals(&relay, &sink, 200).await?;

    let balance = ledger.balance(&[&sink], &HashSet::new());
    assert_eq!(
        (balance.accepted, balance.delivered, balance.duplicates),
        (200, 200, 0),
        "{balance}"
    );
    assert!(sink.received().iter().all(|received| received.intact));
    assert!(
        sink.connections() < 200,
        "connections are used for several messages"
    );
    relay.finish()
}

#[tokio::test]
async fn recipients_of_two_domains_get_one_copy_each() -> Result<()> {
    let (one, two) = (host(3, 1), host(3, 2));
    let port = free_port_on(&[one, two])?;
    let first = Sink::start(SocketAddr::new(one, port), Vec::new()).await?;
    let second = Sink::start(SocketAddr::new(two, port), Vec::new()).await?;
    let zones = zones(&[("one.example", one), ("two.example", two)]);
    let relay = Relay::start(Setup::new(
        "two-domains",
        zones,
        Documents::new(port).yaml(),
    ))
    .await?;

    submit(
        &relay,
        "T-2",
        &["a@one.example", "b@two.example", "c@one.example"],
    )
    .await?;
    let at_first = arrivals(&relay, &first, 1).await?;
    let at_second = arrivals(&relay, &second, 1).await?;

    assert_eq!(
        at_first[0].recipients,
        ["a@one.example", "c@one.example"],
        "one transaction for both"
    );
    assert_eq!(at_second[0].recipients, ["b@two.example"]);
    assert_eq!((first.count(), second.count()), (1, 1));
    relay.finish()
}

#[tokio::test]
async fn the_backup_mx_is_used_when_the_first_does_not_answer() -> Result<()> {
    let (best, backup) = (host(4, 1), host(4, 2));
    let port = free_port_on(&[best, backup])?;
    let sink = Sink::start(SocketAddr::new(backup, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx1.one.example")
        .mx("one.example", 20, "mx2.one.example")
        .address("mx1.one.example", best)
        .address("mx2.one.example", backup);
    let relay = Relay::start(Setup::new("backup-mx", zones, Documents::new(port).yaml())).await?;

    submit(&relay, "T-3", &["user@one.example"]).await?;
    arrivals(&relay, &sink, 1).await?;

    let preferred = Sink::start(SocketAddr::new(best, port), Vec::new()).await?;
    submit(&relay, "T-4", &["user@one.example"]).await?;
    kit::until("the second message", PATIENCE, || async {
        (preferred.count() + sink.count() == 2).then_some(())
    })
    .await?;
    relay.finish()
}

#[tokio::test]
async fn a_451_is_tried_again_and_delivered_once() -> Result<()> {
    let address = host(5, 1);
    let port = free_port_on(&[address])?;
    let rules = vec![
        Rule::reply(Stage::Recipient, "451 4.7.1 Greylisted")
            .to("grey@")
            .times(2),
        Rule::reply(Stage::Dot, "452 4.3.1 Full")
            .to("full@")
            .times(1),
        Rule::at(Stage::Data, Action::Drop).to("drop@").times(1),
    ];
    let sink = Sink::start(SocketAddr::new(address, port), rules).await?;
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new("retry", zones, Documents::new(port).yaml())).await?;

    let greylisted = submit(&relay, "grey", &["grey@one.example"]).await?;
    for user in ["full", "drop"] {
        submit(&relay, user, &[&format!("{user}@one.example")]).await?;
    }
    let received = arrivals(&relay, &sink, 3).await?;

    let tokens: HashSet<&str> = received
        .iter()
        .map(|received| received.token.as_str())
        .collect();
    assert_eq!(tokens, HashSet::from(["grey", "full", "drop"]));

    // Each failed attempt left what was said, and those that succeeded nothing.
    let id = greylisted.rsplit(' ').next().unwrap_or_default();
    let told = kit::until("transcripts", PATIENCE, || async {
        let told = relay.command(&["trace", id]).await.ok()?;
        let transcripts = told.matches("  Transcript ").count();
        (transcripts == 2).then_some(told)
    })
    .await?;
    for said in [
        "> MAIL FROM:<app@acme.example>",
        "> RCPT TO:<grey@one.example>",
        "< 451 4.7.1 Greylisted",
    ] {
        assert_eq!(told.matches(said).count(), 2, "{told}");
    }
    assert!(!told.contains("X-Token"), "{told}");
    let told = relay.command(&["trace", id, "--output", "json"]).await?;
    let transcripts = told.lines().filter(|line| {
        line.contains(r#""type":"Transcript""#) && line.contains(r#""speaker":"client""#)
    });
    assert_eq!(transcripts.count(), 2);
    relay.finish()
}

#[tokio::test]
async fn a_refused_recipient_is_reported_to_the_sender_and_the_others_are_served() -> Result<()> {
    let (address, home) = (host(6, 1), host(6, 2));
    let port = free_port_on(&[address, home])?;
    let rules = vec![Rule::reply(Stage::Recipient, "550 5.1.1 No such user").to("nobody@")];
    let sink = Sink::start(SocketAddr::new(address, port), rules).await?;
    let senders = Sink::start(SocketAddr::new(home, port), Vec::new()).await?;
    let zones = zones(&[("one.example", address), ("acme.example", home)]);
    let relay = Relay::start(Setup::new("bounce", zones, Documents::new(port).yaml())).await?;

    submit(&relay, "T-5", &["nobody@one.example", "user@one.example"]).await?;
    let report = dsn(&relay, &senders, "nobody@one.example").await?;
    let received = arrivals(&relay, &sink, 1).await?;

    assert_eq!(received[0].recipients, ["user@one.example"]);
    let text = report.text();
    for expected in [
        "multipart/report",
        "Action: failed",
        "Status: 5.1.1",
        "550 5.1.1 No such user",
        "X-Token: T-5",
    ] {
        assert!(text.contains(expected), "{expected} is missing in\n{text}");
    }
    assert_eq!(senders.count(), 1, "one report, and none for the report");
    relay.finish()
}

#[tokio::test]
async fn domains_that_take_no_mail_are_reported_at_once() -> Result<()> {
    let home = host(7, 1);
    let port = free_port_on(&[home])?;
    let senders = Sink::start(SocketAddr::new(home, port), Vec::new()).await?;
    let zones = zones(&[("acme.example", home)]).mx("null.example", 0, ".");
    let relay = Relay::start(Setup::new("no-mx", zones, Documents::new(port).yaml())).await?;

    submit(&relay, "T-6", &["user@null.example"]).await?;
    submit(&relay, "T-7", &["user@does-not-exist.example"]).await?;

    // RFC 7505 section 4.2, RFC 3463 section 3.2.
    assert!(
        dsn(&relay, &senders, "user@null.example")
            .await?
            .text()
            .contains("5.1.10")
    );
    assert!(
        dsn(&relay, &senders, "user@does-not-exist.example")
            .await?
            .text()
            .contains("5.1.2")
    );
    relay.finish()
}

#[tokio::test]
async fn what_is_too_old_is_reported_and_tried_no_more() -> Result<()> {
    let (address, home) = (host(8, 1), host(8, 2));
    let port = free_port_on(&[address, home])?;
    let sink = Sink::start(
        SocketAddr::new(address, port),
        vec![Rule::reply(Stage::Mail, "451 4.3.0 Not today")],
    )
    .await?;
    let senders = Sink::start(SocketAddr::new(home, port), Vec::new()).await?;
    let zones = zones(&[("one.example", address), ("acme.example", home)]);
    let mut documents = Documents::new(port);
    // Enough for the first attempt on a machine that is busy.
    documents.max_age = "15s".to_owned();
    let relay = Relay::start(Setup::new("expired", zones, documents.yaml())).await?;

    submit(&relay, "T-8", &["user@one.example"]).await?;
    let report = dsn(&relay, &senders, "user@one.example").await?.text();

    assert!(
        report.contains("451 4.3.0 Not today"),
        "the last reply is in the report:\n{report}"
    );
    assert_eq!(sink.count(), 0);
    relay.finish()
}

#[tokio::test]
async fn tls_is_used_where_it_is_offered() -> Result<()> {
    let address = host(9, 1);
    let port = free_port_on(&[address])?;
    let sink =
        Sink::start_with_tls(SocketAddr::new(address, port), "mx.one.example", Vec::new()).await?;
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new("tls", zones, Documents::new(port).yaml())).await?;

    submit(&relay, "T-9", &["user@one.example"]).await?;

    assert!(arrivals(&relay, &sink, 1).await?[0].tls);
    relay.finish()
}

#[tokio::test]
async fn a_large_message_comes_whole() -> Result<()> {
    let address = host(10, 1);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new("large", zones, Documents::new(port).yaml())).await?;

    for (token, size) in [("L-1", 100_000), ("L-2", 1_100_000), ("L-3", 8 << 20)] {
        submit_sized(&relay, token, &["user@one.example"], size).await?;
    }
    let received = arrivals(&relay, &sink, 3).await?;

    for received in &received {
        assert!(
            received.intact,
            "{} with {} bytes",
            received.token,
            received.content.len()
        );
    }
    relay.finish()
}

#[tokio::test]
async fn a_lane_has_no_more_connections_than_its_shaping_says() -> Result<()> {
    let address = host(11, 1);
    let port = free_port_on(&[address])?;
    let rules = vec![Rule::at(
        Stage::Dot,
        Action::Delay(Duration::from_millis(30)),
    )];
    let sink = Sink::start(SocketAddr::new(address, port), rules).await?;
    let mut documents = Documents::new(port);
    documents.shaping = "[ { connections: 2, messagesPerConnection: 20 } ]".to_owned();
    let zones = zones(&[("one.example", address)]);
    let setup = Setup::new("connections", zones, documents.yaml()).with("sender-2");
    let relay = Relay::start(setup).await?;

    let options = LoadOptions {
        connections: 4,
        rate: None,
        size: 1000,
        sender: SENDER.to_owned(),
        domains: vec!["one.example".to_owned()],
        prefix: "lane".to_owned(),
        messages: 100,
    };
    Load::start(relay.submission(), options).finish().await?;
    let received = arrivals(&relay, &sink, 100).await?;

    assert!(
        sink.most_open_connections() <= 2,
        "{} were open at once",
        sink.most_open_connections()
    );
    let busiest = (0..sink.connections())
        .map(|connection| {
            received
                .iter()
                .filter(|received| received.connection == connection)
                .count()
        })
        .max()
        .context("there were connections")?;
    assert!(busiest <= 20, "{busiest} messages on one connection");
    relay.finish()
}

#[tokio::test]
async fn messages_leave_no_faster_than_the_rate() -> Result<()> {
    let address = host(12, 1);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let mut documents = Documents::new(port);
    documents.shaping = "[ { connections: 5, rate: \"10/s\" } ]".to_owned();
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new("rate", zones, documents.yaml())).await?;

    let options = LoadOptions {
        connections: 4,
        rate: None,
        size: 1000,
        sender: SENDER.to_owned(),
        domains: vec!["one.example".to_owned()],
        prefix: "rate".to_owned(),
        messages: 100,
    };
    Load::start(relay.submission(), options).finish().await?;
    let received = arrivals(&relay, &sink, 100).await?;

    // The limit counts when a delivery is given to the sender; the sink sees its end, later by whatever the machine is
    // busy with. 81 deliveries are 8 windows; half of that is left for the delays. That no window is ever exceeded is
    // tested where the limits are.
    let arrivals: Vec<_> = received.iter().map(|received| received.at).collect();
    for window in arrivals.windows(81) {
        let span = window[80] - window[0];
        assert!(span > Duration::from_secs(4), "81 messages within {span:?}");
    }
    relay.finish()
}

#[tokio::test]
async fn a_changed_configuration_is_followed_without_a_restart() -> Result<()> {
    let address = host(13, 1);
    let port = free_port_on(&[address])?;
    let before = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let after = Sink::start(
        SocketAddr::new(address, free_port_on(&[address])?),
        Vec::new(),
    )
    .await?;
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new(
        "live-config",
        zones,
        Documents::new(port).yaml(),
    ))
    .await?;

    submit(&relay, "before", &["user@one.example"]).await?;
    arrivals(&relay, &before, 1).await?;
    relay
        .apply(&Documents::new(after.address().port()).yaml())
        .await?;
    // The change is on its way to all services; each message tells where they are.
    let start = Instant::now();
    for number in 0.. {
        submit(&relay, &format!("after-{number}"), &["user@one.example"]).await?;
        if after.count() > 0 || start.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }

    arrivals(&relay, &after, 1).await?;
    relay.finish()
}

#[tokio::test]
async fn a_broken_configuration_is_refused_with_its_reason_and_mail_still_flows() -> Result<()> {
    let address = host(14, 1);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = zones(&[("one.example", address)]);
    let relay = Relay::start(Setup::new(
        "broken-config",
        zones,
        Documents::new(port).yaml(),
    ))
    .await?;

    let mut broken = Documents::new(port);
    broken.retry = "{ initial: soon }".to_owned();
    broken.in_doubt = "forget".to_owned();
    let refused = relay
        .apply(&broken.yaml())
        .await
        .expect_err("it is not valid");

    let text = format!("{refused:#}");
    assert!(
        text.contains("Route/default") && text.contains("Tenant/acme"),
        "all problems at once:\n{text}"
    );
    submit(&relay, "T-10", &["user@one.example"]).await?;
    arrivals(&relay, &sink, 1).await?;
    relay.finish()
}
