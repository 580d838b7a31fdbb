//! What ingress tells, read back through the real stream `EVENTS`; and credentials that may be stolen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kit::{Documents, Layout, Outcome, Relay, Session, Setup, Zones, free_port_on, message, until};
use serde_json::{Value, json};

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(60);
const DOCUMENT: &str = "---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\n";

/// The events so far, of one type.
async fn events(relay: &Relay, kind: &str) -> Result<Vec<Value>> {
    let all = relay.events().await?;
    let of_kind = |event: &Value| event["type"] == kind;
    let events: Result<Vec<Value>, _> = all.lines().map(serde_json::from_str).collect();
    Ok(events?.into_iter().filter(of_kind).collect())
}

/// Waits for an event of a type that is as wanted.
async fn event(relay: &Relay, kind: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let wanted = &wanted;
    until(&format!("event {kind}"), PATIENCE, || async move {
        let events = events(relay, kind).await.ok()?;
        events.into_iter().find(|event| wanted(event))
    })
    .await
}

async fn say(session: &mut Session, line: &str, expected: &str) -> Result<()> {
    let reply = session.command(line).await?;
    ensure!(reply.starts_with(expected), "{line}: {reply}");
    Ok(())
}

/// Names recipients that are refused.
async fn name_literals(session: &mut Session, count: usize) -> Result<()> {
    say(session, &format!("MAIL FROM:<{SENDER}>"), "250").await?;
    for number in 0..count {
        let rcpt = format!("RCPT TO:<user{number}@[192.0.2.1]>");
        say(session, &rcpt, "550 5.1.2").await?;
    }
    say(session, "RSET", "250").await
}

#[tokio::test]
async fn what_is_refused_is_told_and_killing_ingress_loses_nothing_that_was_told() -> Result<()> {
    let documents = Documents::new(25);
    let setup = Setup::new("events", Zones::new(), documents.yaml())
        .layout(Layout::AllInOne)
        .with("ingress-2");
    let mut relay = Relay::start(setup).await?;
    let second = relay.submission_of("ingress-2")?;

    let mut session = Session::open(second, PATIENCE).await?;
    say(&mut session, "MAIL FROM:<boss@bank.example>", "550 5.7.1").await?;
    name_literals(&mut session, 3).await?;
    let told = event(&relay, "Rejection", |told| told["reply"]["stage"] == "mail").await?;
    for (field, expected) in [
        ("tenant", json!("acme")),
        ("credential", json!("acme-app")),
        ("network", json!("127.0.0.0/24")),
        ("service", json!("ingress")),
        ("reason", json!("not_allowed")),
        ("version", json!(1)),
    ] {
        ensure!(told[field] == expected, "{field}: {told}");
    }
    let text = "This credential may not send as bank.example";
    let reply = json!({ "stage": "mail", "code": 550, "enhanced": "5.7.1", "text": text });
    ensure!(told["reply"] == reply, "{told}");
    let third = |told: &Value| told["recipient"] == "user2@[192.0.2.1]";
    let told = event(&relay, "Rejection", third).await?;
    ensure!(told["reason"] == "address_literal", "{told}");

    let recipients = ["user@one.example".to_owned()];
    let content = message("E-1", SENDER, &recipients[0], 300);
    let outcome = session.submit(SENDER, &recipients, &content).await?;
    let Outcome::Accepted(reply) = outcome else {
        anyhow::bail!("{outcome:?}");
    };
    let id = reply.rsplit(' ').next().context("the reply has an id")?;
    relay.kill9("ingress-2")?;
    event(&relay, "Reception", |told| told["message_id"] == id).await?;
    ensure!(events(&relay, "Rejection").await?.len() == 4);

    relay.start_process("ingress-2")?;
    relay.wait_ready().await?;
    let mut session = Session::open(second, PATIENCE).await?;
    name_literals(&mut session, 30).await?;
    drop(session);
    // Ten singly, and the others together when the process ends.
    relay.stop("ingress-2", PATIENCE)?;
    let together = event(&relay, "Rejection", |told| told["count"] == 20).await?;
    ensure!(together["recipient"].is_null(), "{together}");
    ensure!(together["reason"] == "address_literal", "{together}");
    let all = events(&relay, "Rejection").await?;
    ensure!(all.len() == 4 + 10 + 1, "{all:#?}");
    let mut ids: Vec<&str> = all
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() == all.len());
    relay.finish()
}

/// A password hash that costs nothing.
fn hash(password: &str) -> Result<String> {
    let parameters =
        argon2::Params::new(64, 1, 1, None).map_err(|error| anyhow::anyhow!("{error}"))?;
    let argon2 = Argon2::new(
        argon2::Algorithm::Argon2id,
        argon2::Version::V0x13,
        parameters,
    );
    let hash = argon2.hash_password(password.as_bytes());
    Ok(hash
        .map_err(|error| anyhow::anyhow!("{error}"))?
        .to_string())
}

fn network(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 44, number, 1).into()
}

/// Logs in; gives the answer.
async fn login(
    from: IpAddr,
    to: SocketAddr,
    user: &str,
    password: &str,
) -> Result<(Session, String)> {
    let mut session = Session::open_from(from, to, PATIENCE).await?;
    let response = STANDARD.encode(format!("\0{user}\0{password}"));
    let reply = session.command(&format!("AUTH PLAIN {response}")).await?;
    Ok((session, reply))
}

async fn submit(session: &mut Session, token: &str, recipients: usize) -> Result<Outcome> {
    let recipients: Vec<String> = (0..recipients)
        .map(|number| format!("user{number}@{token}.example"))
        .collect();
    let content = message(token, SENDER, &recipients[0], 300);
    session.submit(SENDER, &recipients, &content).await
}

/// `staffetta credential …` as JSON.
async fn credential(relay: &Relay, arguments: &[&str]) -> Result<Value> {
    let command = [&["credential"], arguments, &["--output", "json"]].concat();
    let printed = relay.command(&command).await?;
    serde_json::from_str(&printed).with_context(|| printed)
}

/// Waits until this is done about a credential.
async fn measure(relay: &Relay, name: &str, action: &str) -> Result<Value> {
    until(&format!("{name}: {action}"), PATIENCE, || async {
        let all = credential(relay, &["list-locks"]).await.ok()?;
        let mut measures = all["credentials"].as_array()?.clone().into_iter();
        measures.find(|of| of["credential"] == name && of["action"] == action)
    })
    .await
}

/// Why the mail to a domain waits.
async fn why(relay: &Relay, domain: &str, kind: &str) -> Result<()> {
    until(&format!("{domain}: {kind}"), PATIENCE, || async {
        let printed = relay
            .command(&["why", domain, "--output", "json"])
            .await
            .ok()?;
        let value: Value = serde_json::from_str(&printed).ok()?;
        let deliveries = value["deliveries"].as_array()?.clone();
        let kept = |of: &Value| of["constraint"]["kind"] == kind;
        (!deliveries.is_empty() && deliveries.iter().all(kept)).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_stolen_credential_is_slowed_locked_and_unlocked_and_the_others_go_on() -> Result<()> {
    let hash = hash("secret")?;
    let credential_of = |name: &str, watch: &str| {
        format!(
            "{DOCUMENT}metadata: {{ name: {name} }}\nspec: {{ tenant: acme, username: {name}, passwordHash: \"{hash}\", \
             watch: {{ learn: 0, signals: {{ newNetworks: {{ atLeast: 5 }}, volume: {{ atLeast: 40 }} }}, {watch} }} }}\n"
        )
    };
    let mut documents = Documents::new(25);
    documents.more = credential_of("shop", "slowAt: 2, lockAt: 5, slowTo: 10/h, lasts: 1h")
        + &credential_of("news", "holdAt: 3");
    let setup = Setup::new("stolen", Zones::new(), documents.yaml())
        .layout(Layout::AllInOne)
        .with("ingress-2");
    let mut relay = Relay::prepare(&setup).await?;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let mut doors = Vec::new();
    for name in ["all", "ingress-2"] {
        let door = SocketAddr::new(local, free_port_on(&[local])?);
        let listener = format!(
            "  listeners:\n    - {{ name: login, address: \"{door}\", tls: none, allowPlaintextAuthFrom: [\"127.0.0.0/8\"] }}\n"
        );
        relay.reconfigure(name, "  listeners:\n", &listener)?;
        doors.push(door);
    }
    relay.start_all(&setup).await?;

    // At home, a lot: 48 recipients, seen by two processes.
    let (mut home, reply) = login(network(0), doors[0], "shop", "secret").await?;
    ensure!(reply.starts_with("235"), "{reply}");
    let (mut also_home, _) = login(network(0), doors[1], "shop", "secret").await?;
    for session in [&mut home, &mut also_home] {
        for _ in 0..3 {
            let outcome = submit(session, "home", 8).await?;
            ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        }
    }
    let slowed = measure(&relay, "shop", "slow").await?;
    let evidence = &slowed["evidence"][0];
    ensure!(
        (&evidence["signal"], &evidence["threshold"]) == (&json!("volume"), &json!(40)),
        "{slowed}"
    );
    let noticed = event(&relay, "CredentialNoticed", |of| of["credential"] == "shop").await?;
    ensure!(noticed["evidence"][0]["signal"] == "volume", "{noticed}");
    ensure!(noticed["tenant"] == "acme", "{noticed}");
    // It goes on, by ten an hour: the first ten at once.
    until("the pace is known", PATIENCE, || async {
        let (mut session, _) = login(network(0), doors[1], "shop", "secret").await.ok()?;
        submit(&mut session, "slow", 10).await.ok()?;
        let outcome = submit(&mut session, "later", 10).await.ok()?;
        let waits = why(&relay, "later.example", "not-before");
        match outcome {
            Outcome::Accepted(_) => waits.await.ok(),
            Outcome::Refused(reply) => reply.starts_with("451 4.7.28").then_some(()),
            Outcome::Unknown(_) => None,
        }
    })
    .await?;

    // From many networks: it is locked in all processes, whoever has a session.
    for number in 1..=6 {
        let door = doors[usize::from(number) % 2];
        let (session, _) = login(network(number), door, "shop", "secret").await?;
        drop(session);
    }
    let locked = measure(&relay, "shop", "lock").await?;
    ensure!(
        locked["until"].is_null() && locked["author"].is_null(),
        "{locked}"
    );
    let told = event(&relay, "CredentialMeasure", |of| of["action"] == "lock").await?;
    let networks = told["evidence"]
        .as_array()
        .and_then(|all| all.iter().find(|of| of["signal"] == "newNetworks"))
        .with_context(|| told.to_string())?;
    let seen = networks["observed"].as_u64().unwrap_or(0);
    let listed = networks["networks"].as_array().map_or(0, Vec::len) as u64;
    ensure!((5..=6).contains(&seen) && listed == seen, "{told}");
    ensure!(
        networks["networks"].to_string().contains("127.44.1.0/24"),
        "{told}"
    );
    for session in [&mut home, &mut also_home] {
        until_locked(session).await?;
    }
    for door in &doors {
        let (_, reply) = login(network(0), *door, "shop", "secret").await?;
        ensure!(
            reply.starts_with("535 5.7.8 This credential is locked"),
            "{reply}"
        );
    }
    event(&relay, "Rejection", |of| {
        of["reason"] == "locked" && of["reply"]["stage"] == "auth"
    })
    .await?;

    // One that has just started knows it before it listens.
    relay.kill9("ingress-2")?;
    relay.start_process("ingress-2")?;
    relay.wait_ready().await?;
    let (_, reply) = login(network(0), doors[1], "shop", "secret").await?;
    ensure!(
        reply.starts_with("535 5.7.8 This credential is locked"),
        "{reply}"
    );

    // Without Redis, too; and the others of the tenant go on.
    relay.redis.kill9()?;
    let (_, reply) = login(network(0), doors[0], "shop", "secret").await?;
    ensure!(
        reply.starts_with("535 5.7.8 This credential is locked"),
        "{reply}"
    );
    let mut other = Session::open(relay.submission(), PATIENCE).await?;
    let outcome = submit(&mut other, "other", 1).await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    relay.redis.restart().await?;

    let author = ["--author", "alice", "--reason", "new password"];
    let unlock = credential(&relay, &[&["unlock", "shop"][..], &author].concat()).await?;
    ensure!(unlock["action"] == "pardon", "{unlock}");
    until("the login works", PATIENCE, || async {
        let (_, reply) = login(network(0), doors[1], "shop", "secret").await.ok()?;
        reply.starts_with("235").then_some(())
    })
    .await?;
    let told = event(&relay, "CredentialMeasure", |of| of["action"] == "pardon").await?;
    ensure!(
        told["author"] == "alice" && told["service"] == "scheduler",
        "{told}"
    );

    // Another is held by what it does, and its mail is kept.
    let (mut home, _) = login(network(0), doors[0], "news", "secret").await?;
    submit(&mut home, "before", 1).await?;
    // What comes in the first moment is where it belongs, so that others come until it is noticed.
    let others = AtomicU8::new(10);
    until("the other is held", PATIENCE, || async {
        for _ in 0..6 {
            let number = others.fetch_add(1, Ordering::Relaxed);
            login(network(number), doors[0], "news", "secret")
                .await
                .ok()?;
        }
        measure_now(&relay, "news").await
    })
    .await?;
    until("mail is held", PATIENCE, || async {
        let (mut session, _) = login(network(0), doors[0], "news", "secret").await.ok()?;
        submit(&mut session, "kept", 1).await.ok()?;
        let printed = relay
            .command(&["why", "kept.example", "--output", "json"])
            .await
            .ok()?;
        printed.contains("\"hold\"").then_some(())
    })
    .await?;

    let author = ["--author", "bob", "--for", "1h"];
    credential(&relay, &[&["lock", "news"][..], &author].concat()).await?;
    until("bob's lock", PATIENCE, || async {
        let (_, reply) = login(network(0), doors[0], "news", "secret").await.ok()?;
        reply.starts_with("535").then_some(())
    })
    .await?;
    let unknown = credential(&relay, &["lock", "nobody", "--author", "bob"]).await;
    ensure!(unknown.is_err());
    relay.finish()
}

/// Whether the credential is held.
async fn measure_now(relay: &Relay, name: &str) -> Option<()> {
    let all = credential(relay, &["list-locks"]).await.ok()?;
    let measures = all["credentials"].as_array()?;
    let held = measures
        .iter()
        .any(|of| of["credential"] == name && of["action"] == "hold");
    held.then_some(())
}

/// MAIL is refused when the process knows of the lock.
async fn until_locked(session: &mut Session) -> Result<()> {
    for _ in 0..600 {
        let reply = session.command(&format!("MAIL FROM:<{SENDER}>")).await?;
        if reply.starts_with("550 5.7.1 This credential is locked") {
            return Ok(());
        }
        session.command("RSET").await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("the session goes on")
}

#[tokio::test]
async fn failed_logins_are_told_without_the_name_that_was_typed() -> Result<()> {
    let hash = hash("secret")?;
    let mut documents = Documents::new(25);
    documents.more = format!(
        "{DOCUMENT}metadata: {{ name: user }}\nspec: {{ tenant: acme, username: user, passwordHash: \"{hash}\" }}\n"
    );
    let setup =
        Setup::new("failed-logins", Zones::new(), documents.yaml()).layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let door = SocketAddr::new(local, free_port_on(&[local])?);
    let listener = format!(
        "  failedLogins: 2/h\n  listeners:\n    - {{ name: login, address: \"{door}\", tls: none, allowPlaintextAuthFrom: [\"127.0.0.0/8\"] }}\n"
    );
    relay.reconfigure("all", "  listeners:\n", &listener)?;
    relay.start_all(&setup).await?;
    login(local, door, "user", "guess").await?;
    login(local, door, "my secret password", "user").await?;
    let known = event(&relay, "LoginFailed", |of| of["credential"] == "user").await?;
    ensure!(
        known["tenant"] == "acme" && known["network"] == "127.0.0.0/24",
        "{known}"
    );
    let unknown = event(&relay, "LoginFailed", |of| of["credential"].is_null()).await?;
    ensure!(
        unknown["user"].as_str().map(str::len) == Some(12),
        "{unknown}"
    );
    ensure!(!relay.events().await?.contains("secret password"));
    for _ in 0..3 {
        login(local, door, "user", "guess").await?;
    }
    let blocked = event(&relay, "LoginsBlocked", |of| of["credential"] == "user").await?;
    ensure!(blocked["user"] == known["user"], "{blocked}");
    relay.finish()
}
