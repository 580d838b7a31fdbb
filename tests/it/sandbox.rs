//! The sandbox and the simulator: what never leaves, seen by those who would have to hear of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Layout, Outcome, Relay, Session, Setup, Sink, Zones, free_port_on, message, until,
};
use serde_json::Value;

const SENDER: &str = "app@acme.example";
const SIMULATOR: &str = "simulator.staffetta.invalid";
const PATIENCE: Duration = Duration::from_secs(120);
/// The client whose credential is for the sandbox.
const TRIAL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn credential(mode: &str) -> String {
    format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: trial }}\n\
         spec: {{ tenant: acme, networks: [ \"{TRIAL}/32\" ], mode: {mode} }}\n"
    )
}

/// An installation whose DNS is noted, and the host of all its domains.
async fn start(test: &str, number: u8, mode: &str) -> Result<(Relay, Sink, Documents)> {
    let host: IpAddr = Ipv4Addr::new(127, 36, 1, number).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = Zones::new()
        .logged()
        .mx("one.example", 10, "mx.one.example")
        .mx("acme.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let mut documents = Documents::new(port);
    documents.more = credential(mode);
    let setup = Setup::new(test, zones, documents.yaml()).layout(Layout::AllInOne);
    Ok((Relay::start(setup).await?, sink, documents))
}

/// Gives the message's id.
async fn submit(relay: &Relay, from: Ipv4Addr, token: &str, recipients: &[&str]) -> Result<String> {
    let mut session = Session::open_from(from.into(), relay.submission(), PATIENCE).await?;
    let recipients: Vec<String> = recipients.iter().map(|&text| text.to_owned()).collect();
    let content = message(token, SENDER, &recipients[0], 300);
    let outcome = session.submit(SENDER, &recipients, &content).await?;
    let Outcome::Accepted(reply) = outcome else {
        anyhow::bail!("{outcome:?}");
    };
    let id = reply.trim_end().rsplit(' ').next().unwrap_or_default();
    Ok(id.to_owned())
}

/// The events about a message, and the reception of DSNs about it.
async fn events(relay: &Relay, id: &str) -> Result<Vec<Value>> {
    let all = relay.events().await?;
    let all: Vec<Value> = all
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    let is_it = |event: &Value| event["message_id"] == id || event["reports_on"] == id;
    Ok(all.into_iter().filter(is_it).collect())
}

fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["type"] == kind)
        .collect()
}

async fn still(relay: &Relay) -> Result<()> {
    until("nothing is under way", PATIENCE, || async {
        let queue = relay.queue().await.ok()?;
        queue.is_still().then_some(())
    })
    .await
}

#[tokio::test]
async fn the_sandbox_asks_no_name_reaches_no_host_and_ends_as_the_addresses_say() -> Result<()> {
    let (mut relay, sink, documents) = start("sandbox", 1, "sandbox").await?;
    let (bounce, defer) = (
        format!("bounce@{SIMULATOR}"),
        format!("defer-2@{SIMULATOR}"),
    );
    let never = format!("defer@{SIMULATOR}");
    let recipients = ["user@one.example", &bounce, &defer];
    let id = submit(&relay, TRIAL, "S-1", &recipients).await?;
    let waits = submit(&relay, TRIAL, "S-2", &[&never]).await?;
    // It survives its owner, and a configuration for which it would be real mail.
    relay.kill9("all")?;
    relay.start_process("all")?;
    relay.wait_ready().await?;
    let real = documents.yaml().replace("mode: sandbox", "mode: send");
    ensure!(relay.apply(&real).await?.contains("Credential/trial"));

    let about = until("the end of all recipients", PATIENCE, || async {
        let about = events(&relay, &id).await.ok()?;
        let ended = of_type(&about, "Delivery").len() + of_type(&about, "DsnSpooled").len();
        (ended == 3).then_some(about)
    })
    .await?;
    let named = |kind: &str| -> Vec<(String, u64)> {
        let all = of_type(&about, kind).into_iter();
        let mut named: Vec<(String, u64)> = all
            .map(|event| {
                let recipient = event["recipient"].as_str().unwrap_or_default();
                (
                    recipient.to_owned(),
                    event["reply"]["code"].as_u64().unwrap_or(0),
                )
            })
            .collect();
        named.sort();
        named
    };
    let to = |address: &str, code: u64| (address.to_owned(), code);
    ensure!(named("Delivery") == [to(&defer, 250), to("user@one.example", 250)]);
    ensure!(named("Deferral") == [to(&defer, 451), to(&defer, 451)]);
    ensure!(named("Bounce") == [to(&bounce, 550)]);
    for kind in ["Reception", "Attempt", "Delivery", "Bounce", "DsnSpooled"] {
        let all = of_type(&about, kind);
        ensure!(!all.is_empty(), "{kind}: {about:?}");
        ensure!(all.iter().all(|event| event["sandbox"] == true), "{all:?}");
    }
    let delivered = of_type(&about, "Delivery");
    ensure!(
        delivered
            .iter()
            .all(|event| event["reply"]["text"] == "sandbox")
    );

    // The DSN stays there, too.
    let told = of_type(&about, "DsnSpooled")[0]["dsn_message_id"].clone();
    let dsn = told.as_str().context("the DSN has an id")?;
    until("the DSN is delivered", PATIENCE, || async {
        let about = events(&relay, dsn).await.ok()?;
        let delivered = of_type(&about, "Delivery");
        (delivered.len() == 1 && delivered[0]["sandbox"] == true).then_some(())
    })
    .await?;
    let recipients = "staffetta_scheduler_recipients_total";
    let counted = relay.metric(recipients, "disposition=\"delivered\"").await;
    ensure!(counted == 0.0, "{counted} are counted");
    let simulated = "staffetta_scheduler_simulated_recipients_total";
    ensure!(relay.metric(simulated, "disposition=\"delivered\"").await > 0.0);
    ensure!(sink.connections() == 0);
    let asked = relay.dns.questions();
    let are_asked = |asked: &[String]| asked.iter().any(|name| name.contains("one.example"));
    ensure!(!are_asked(&asked), "{asked:?}");

    // What is accepted from now on is real, and what waits is not.
    until("the client's mail is real", PATIENCE, || async {
        let id = submit(&relay, TRIAL, "S-3", &["user@one.example"])
            .await
            .ok()?;
        let about = until("it is read", PATIENCE, || async {
            let about = events(&relay, &id).await.ok()?;
            (!about.is_empty()).then_some(about)
        });
        let about = about.await.ok()?;
        about[0]["sandbox"].is_null().then_some(())
    })
    .await?;
    let received = sink.wait_for(1, PATIENCE).await?;
    ensure!(received[0].text().contains("S-3"));
    ensure!(are_asked(&relay.dns.questions()));
    let about = events(&relay, &waits).await?;
    ensure!(
        of_type(&about, "Deferral")
            .iter()
            .all(|event| event["sandbox"] == true)
    );
    let rows: Value = serde_json::from_str(&relay.command(&["queue", "--output", "json"]).await?)?;
    let rows = rows["rows"].as_array().context("rows")?;
    let of_simulator = rows.iter().find(|row| row["domain"] == SIMULATOR);
    ensure!(
        of_simulator.is_some_and(|row| row["simulated"] == 1),
        "{rows:?}"
    );
    ensure!(
        sink.received()
            .iter()
            .all(|mail| mail.text().contains("S-3"))
    );
    relay.finish()
}

#[tokio::test]
async fn the_simulator_answers_for_its_addresses_and_the_sender_is_told_for_real() -> Result<()> {
    let (relay, sink, _) = start("simulator", 2, "send").await?;
    let bounce = format!("bounce+552-5.2.2@{SIMULATOR}");
    let success = format!("success+label@{SIMULATOR}");
    let recipients = [&success, &bounce, "user@one.example"];
    let id = submit(&relay, TRIAL, "T-1", &recipients).await?;
    let received = sink.wait_for(2, PATIENCE).await?;
    still(&relay).await?;
    let (notices, messages): (Vec<_>, Vec<_>) =
        received.iter().partition(|mail| mail.sender.is_empty());
    ensure!(messages[0].recipients == ["user@one.example"]);
    ensure!(notices[0].recipients == [SENDER]);
    let text = notices[0].text();
    for part in [
        &format!("Final-Recipient: rfc822; {bounce}"),
        "Status: 5.2.2",
        "552 5.2.2 simulated",
    ] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    ensure!(!text.contains(&format!("rfc822; {success}")), "{text}");
    let about = events(&relay, &id).await?;
    let simulated: Vec<bool> = of_type(&about, "Delivery")
        .iter()
        .map(|event| event["simulated"] == true)
        .collect();
    ensure!(simulated.len() == 2 && simulated.contains(&true) && simulated.contains(&false));
    ensure!(about.iter().all(|event| event["sandbox"].is_null()));
    let asked = relay.dns.questions();
    ensure!(
        !asked.iter().any(|name| name.contains("simulator")),
        "{asked:?}"
    );
    relay.finish()
}
