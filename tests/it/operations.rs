//! What operators do holds over all schedulers, and survives them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Layout, Outcome, Relay, Session, Setup, Sink, Zones, free_port_on, message, metric,
    until,
};
use serde_json::Value;

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(60);
/// The address of the source of the other pool.
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 33, 1, 77);

fn host(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 33, 1, number).into()
}

async fn submit(relay: &Relay, token: &str, domain: &str) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let recipient = format!("user@{domain}");
    let content = message(token, SENDER, &recipient, 2000);
    let outcome = session.submit(SENDER, &[recipient], &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

/// `staffetta queue …`, by alice, as JSON.
async fn queue(relay: &Relay, arguments: &[&str]) -> Result<Value> {
    let command = [&["queue"], arguments, &["--output", "json"]].concat();
    let printed = relay.command(&command).await?;
    serde_json::from_str(&printed).with_context(|| printed)
}

async fn operate(relay: &Relay, arguments: &[&str]) -> Result<Value> {
    let value = queue(relay, &[arguments, &["--author", "alice"]].concat()).await?;
    let operation = value["operations"][0].clone();
    ensure!(operation["carriedOut"] == true, "{value}");
    Ok(operation)
}

/// What keeps the mail to a domain, one for each delivery: kind and text.
async fn why(relay: &Relay, domain: &str) -> Result<Vec<(String, String)>> {
    let printed = relay.command(&["why", domain, "--output", "json"]).await?;
    let value: Value = serde_json::from_str(&printed)?;
    let deliveries = value["deliveries"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let constraint = |delivery: &Value| {
        let constraint = &delivery["constraint"];
        (text(&constraint["kind"]), text(&constraint["text"]))
    };
    Ok(deliveries.iter().map(constraint).collect())
}

/// Waits until so much mail to a domain is kept by an operation, and by nothing else.
async fn suspended(relay: &Relay, domain: &str, count: usize) -> Result<()> {
    until(&format!("{domain} suspended"), PATIENCE, || async {
        let kept = why(relay, domain).await.ok()?;
        let is_it = |(kind, text): &(String, String)| {
            kind == "operation" && text.starts_with("suspended by alice: they asked for it")
        };
        (kept.len() == count && kept.iter().all(is_it)).then_some(())
    })
    .await
}

#[tokio::test]
async fn mail_on_hold_goes_out_when_it_is_released_and_not_before() -> Result<()> {
    let address = host(9);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", address);
    let mut documents = Documents::new(port);
    documents.more =
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: { name: held }\n\
                      spec: { tenant: acme, networks: [ \"127.0.0.9/32\" ], mode: hold }\n"
            .to_owned();
    let setup = Setup::new("hold", zones, documents.yaml()).layout(Layout::AllInOne);
    let relay = Relay::start(setup).await?;

    let held_client = Ipv4Addr::new(127, 0, 0, 9).into();
    let mut session = Session::open_from(held_client, relay.submission(), PATIENCE).await?;
    let recipients = ["user@one.example".to_owned()];
    let content = message("H-1", SENDER, &recipients[0], 300);
    let outcome = session.submit(SENDER, &recipients, &content).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    // Came later, and goes at once.
    submit(&relay, "H-2", "one.example").await?;
    let received = sink.wait_for(1, PATIENCE).await?;
    ensure!(received[0].text().contains("H-2"));
    until("the other is held", PATIENCE, || async {
        let kept = why(&relay, "one.example").await.ok()?;
        (kept.len() == 1 && kept[0].0 == "hold").then_some(())
    })
    .await?;
    ensure!(sink.count() == 1);

    let released = operate(&relay, &["release", "--tenant", "acme"]).await?;
    ensure!(!released["id"].is_null(), "{released}");
    let received = sink.wait_for(2, PATIENCE).await?;
    ensure!(received[1].text().contains("H-1"));
    relay.finish()
}

#[tokio::test]
async fn operations_hold_over_all_schedulers_and_survive_them() -> Result<()> {
    let hosts = [host(1), host(2), host(3)];
    let port = free_port_on(&hosts)?;
    let start = async |host| Sink::start(SocketAddr::new(host, port), Vec::new()).await;
    let [one, two, home] = [
        start(hosts[0]).await?,
        start(hosts[1]).await?,
        start(hosts[2]).await?,
    ];
    let zones = [
        ("one.example", hosts[0]),
        ("three.example", hosts[0]),
        ("four.example", hosts[0]),
        ("two.example", hosts[1]),
        ("acme.example", hosts[2]),
    ]
    .into_iter()
    .fold(Zones::new(), |zones, (domain, address)| {
        let mx = format!("mx.{domain}");
        zones.mx(domain, 10, &mx).address(&mx, address)
    });
    let mut documents = Documents::new(port);
    documents.more = format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: {{ name: other }}\n\
         spec: {{ sources: [ {{ name: b, address: {OTHER}, ehlo: relay.example.com }} ] }}\n"
    );
    let setup = Setup::new("operations", zones, documents.yaml()).with("scheduler-2");
    let mut relay = Relay::start(setup).await?;
    let owned = "staffetta_scheduler_owned_partitions";
    until("one partition for each", PATIENCE, || async {
        let first = metric(&relay.metrics("scheduler").await, owned, "");
        let second = metric(&relay.metrics("scheduler-2").await, owned, "");
        ((first, second) == (1.0, 1.0)).then_some(())
    })
    .await?;

    let nothing = relay
        .command(&["queue", "cancel", "--author", "alice"])
        .await;
    ensure!(nothing.is_err(), "an empty selection is refused");
    let selection = [
        "--domain",
        "one.example",
        "--domain",
        "three.example",
        "--domain",
        "four.example",
    ];
    let suspend = [
        &["suspend", "--reason", "they asked for it"],
        &selection[..],
    ]
    .concat();
    let suspension = operate(&relay, &suspend).await?;
    for (token, domain) in [
        ("O-1", "one.example"),
        ("O-2", "one.example"),
        ("O-3", "one.example"),
        ("O-4", "one.example"),
        ("O-5", "three.example"),
        ("O-6", "four.example"),
        ("O-7", "two.example"),
        ("O-8", "two.example"),
    ] {
        submit(&relay, token, domain).await?;
    }
    two.wait_for(2, PATIENCE).await?;
    suspended(&relay, "one.example", 4).await?;

    relay.kill9("scheduler-2")?;
    until("all partitions at one scheduler", PATIENCE, || async {
        (metric(&relay.metrics("scheduler").await, owned, "") == 2.0).then_some(())
    })
    .await?;
    suspended(&relay, "one.example", 4).await?;
    submit(&relay, "O-9", "two.example").await?;
    two.wait_for(3, PATIENCE).await?;

    let counted = queue(
        &relay,
        &[
            "cancel",
            "--domain",
            "four.example",
            "--dry-run",
            "--author",
            "a",
        ],
    );
    ensure!(counted.await?["recipients"] == 1);
    let cancelled = operate(&relay, &["cancel", "--domain", "four.example"]).await?;
    let bounce = [
        "bounce",
        "--tenant",
        "acme",
        "--domain",
        "three.example",
        "--reason",
        "sent by mistake",
    ];
    let bounced = operate(&relay, &bounce).await?;
    let dsn = home.wait_for(1, PATIENCE).await?.remove(0);
    ensure!(
        dsn.sender.is_empty() && dsn.recipients == [SENDER],
        "{dsn:?}"
    );
    ensure!(dsn.text().contains("sent by mistake"), "{}", dsn.text());
    suspended(&relay, "one.example", 4).await?;
    ensure!(one.count() == 0);

    operate(
        &relay,
        &["move", "--domain", "one.example", "--pool", "other"],
    )
    .await?;
    let resume = [&["resume", "--author", "bob"], &selection[..]].concat();
    let resumed = queue(&relay, &resume).await?;
    ensure!(
        resumed["operations"][0]["id"] == suspension["id"],
        "{resumed}"
    );
    let received = one.wait_for(4, PATIENCE).await?;
    for message in &received {
        ensure!(message.peer.ip() == IpAddr::V4(OTHER), "{:?}", message.peer);
        ensure!(message.recipients == ["user@one.example"]);
    }
    // What comes later leaves by its own pool.
    submit(&relay, "O-10", "one.example").await?;
    let received = one.wait_for(5, PATIENCE).await?;
    ensure!(received[4].peer.ip() != IpAddr::V4(OTHER));

    let events = relay.events().await?;
    let events: Vec<Value> = events
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let count = |expected: &[(&str, &Value)]| {
        let is_it = |event: &&Value| expected.iter().all(|(name, value)| event[*name] == **value);
        events.iter().filter(is_it).count()
    };
    for (kind, operation) in [
        ("Cancellation", &cancelled["id"]),
        ("Bounce", &bounced["id"]),
    ] {
        let found = count(&[("type", &kind.into()), ("operation", operation)]);
        ensure!(found == 1, "{kind}: {found}");
    }
    for (phase, more) in [("begun", "alice"), ("lifted", "alice")] {
        let told = count(&[
            ("type", &"AdminAction".into()),
            ("operation", &suspension["id"]),
            ("phase", &phase.into()),
            ("author", &more.into()),
        ]);
        ensure!(told == 2, "{phase}: once in each partition, not {told}");
    }
    let lifted_by = count(&[("lifted_by", &"bob".into())]);
    ensure!(lifted_by == 2, "{lifted_by}");
    relay.finish()
}

/// `staffetta why` over real services: what it names keeps the message, and nothing else that could be lifted does.
#[tokio::test]
async fn lifting_what_why_names_moves_the_message_and_lifting_anything_else_does_not() -> Result<()>
{
    let address = host(11);
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", address);
    let with = |rules: &str| {
        let mut documents = Documents::new(port);
        documents.shaping = format!("[ {{ connections: 10 }}{rules} ]");
        documents.yaml()
    };
    let rate = ", { match: { domain: one.example }, rate: 1/h }";
    let setup = Setup::new("why", zones, with(rate)).layout(Layout::AllInOne);
    let relay = Relay::start(setup).await?;
    let kept_by = async |kind: &str, begins: &str| {
        until(
            &format!("it to be kept by {kind}: {begins}"),
            PATIENCE,
            || async {
                let kept = why(&relay, "one.example").await.ok()?;
                let is_it =
                    |(named, text): &(String, String)| named == kind && text.starts_with(begins);
                kept.iter().any(is_it).then_some(())
            },
        )
        .await
    };

    // At most one of them may leave in this hour.
    submit(&relay, "W-1", "one.example").await?;
    submit(&relay, "W-2", "one.example").await?;
    kept_by("rate", "1 messages in 3600 s: used up").await?;
    operate(&relay, &["retry", "--all"]).await?;
    operate(&relay, &["release", "--all"]).await?;
    let more_connections = with(rate).replace("connections: 10", "connections: 20");
    relay.apply(&more_connections).await?;
    kept_by("rate", "1 messages in 3600 s: used up").await?;
    ensure!(sink.count() <= 1);
    relay.apply(&with("")).await?;
    sink.wait_for(2, PATIENCE).await?;

    let suspend = ["suspend", "--domain", "one.example", "--reason", "listed"];
    operate(&relay, &suspend).await?;
    let other = ["suspend", "--domain", "two.example"];
    operate(&relay, &other).await?;
    submit(&relay, "W-3", "one.example").await?;
    kept_by("operation", "suspended by alice: listed").await?;
    operate(&relay, &["retry", "--all"]).await?;
    operate(&relay, &["release", "--all"]).await?;
    queue(
        &relay,
        &["resume", "--domain", "two.example", "--author", "alice"],
    )
    .await?;
    kept_by("operation", "suspended").await?;
    ensure!(sink.count() == 2);
    queue(
        &relay,
        &["resume", "--domain", "one.example", "--author", "alice"],
    )
    .await?;
    sink.wait_for(3, PATIENCE).await?;
    relay.finish()
}
