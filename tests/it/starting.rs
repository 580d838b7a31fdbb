//! Processes that are started before what they need is there, as pods are: they wait and say what for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kit::{
    Documents, Outcome, Relay, SERVICES, Session, Setup, Sink, Zones, free_port_on, message,
};

const SENDER: &str = "app@acme.example";
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until the readiness of a process has the status and contains the text; meanwhile it is always alive.
async fn wait_for(relay: &mut Relay, name: &str, status: u16, text: &str) -> Result<()> {
    let start = std::time::Instant::now();
    let mut last = String::new();
    while start.elapsed() < PATIENCE {
        if let Ok((alive, _)) = relay.health(name, "/livez").await {
            ensure!(alive == 200, "{name} is not alive");
            let (found, body) = relay.health(name, "/readyz").await?;
            if found == status && body.contains(text) {
                return Ok(());
            }
            last = format!("{found} {body}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("{name}: {status} {text:?} is expected, found {last}")
}

async fn submit(relay: &Relay, token: &str) -> Result<Outcome> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    let to = "user@one.example";
    let content = message(token, SENDER, to, 2000);
    session.submit(SENDER, &[to.to_owned()], &content).await
}

#[tokio::test]
async fn services_wait_for_nats_then_init_then_the_configuration_and_survive_a_restart_of_nats()
-> Result<()> {
    let address: IpAddr = Ipv4Addr::new(127, 24, 1, 1).into();
    let port = free_port_on(&[address])?;
    let sink = Sink::start(SocketAddr::new(address, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", address);
    let setup = Setup::new("starting", zones, Documents::new(port).yaml());
    let mut relay = Relay::prepare(&setup).await?;
    relay.nats.kill9()?;
    relay.redis.kill9()?;
    for name in SERVICES {
        relay.start_process(name)?;
    }
    for name in SERVICES {
        wait_for(
            &mut relay,
            name,
            503,
            "nats: not ready: no NATS server at nats://127.0.0.1",
        )
        .await?;
    }
    let refused = relay.command(&["init"]).await;
    ensure!(refused.is_err(), "init without --wait does not wait");

    relay.nats.restart().await?;
    for name in SERVICES {
        wait_for(&mut relay, name, 503, "`staffetta init` creates one").await?;
    }

    relay.command(&["init", "--wait", "20s"]).await?;
    wait_for(&mut relay, "scheduler", 200, "nats: ok").await?;
    for name in ["signer", "sender", "feedback", "ingress"] {
        wait_for(
            &mut relay,
            name,
            503,
            "configuration: not ready: none is applied yet",
        )
        .await?;
    }
    ensure!(
        Session::open(relay.submission(), Duration::from_secs(1))
            .await
            .is_err(),
        "ingress does not listen before it knows who may send"
    );

    relay.apply(&setup.documents).await?;
    relay.wait_ready().await?;
    relay.redis.restart().await?;
    ensure!(matches!(submit(&relay, "S-1").await?, Outcome::Accepted(_)));
    sink.wait_for(1, PATIENCE).await?;

    relay.nats.kill9()?;
    for name in SERVICES {
        wait_for(
            &mut relay,
            name,
            503,
            "nats: not ready: the connection is lost",
        )
        .await?;
    }
    let outcome = submit(&relay, "S-2").await?;
    ensure!(
        matches!(&outcome, Outcome::Refused(reply) if reply.starts_with("451")),
        "{outcome:?}"
    );
    relay.nats.restart().await?;
    relay.wait_ready().await?;
    ensure!(matches!(submit(&relay, "S-3").await?, Outcome::Accepted(_)));
    sink.wait_for(2, PATIENCE).await?;
    relay.finish()
}

/// The log of a process that must end.
async fn end_of(relay: &mut Relay, name: &str) -> Result<String> {
    let start = std::time::Instant::now();
    while start.elapsed() < PATIENCE {
        match relay.health(name, "/livez").await {
            Err(error) if error.to_string().contains("has ended") => return Ok(error.to_string()),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    bail!("{name} has not ended")
}

#[tokio::test]
async fn a_relaxed_server_or_a_lost_stream_ends_a_service_with_the_reason() -> Result<()> {
    let mut setup = Setup::new("starting_wrong", Zones::new(), String::new());
    "2m".clone_into(&mut setup.sync_interval);
    let mut relay = Relay::prepare(&setup).await?;
    relay.command(&["init"]).await?;
    relay.start_process("scheduler")?;
    let log = end_of(&mut relay, "scheduler").await?;
    ensure!(
        log.contains("durability is strict, but the NATS server syncs"),
        "{log}"
    );

    relay.nats.kill9()?;
    let lost = relay.folder().join("nats/jetstream/$G/streams/SPOOL_1");
    std::fs::remove_dir_all(&lost)?;
    relay.nats.restart().await?;
    relay.reconfigure("scheduler", "durability: strict", "durability: relaxed")?;
    relay.start_process("scheduler")?;
    let log = end_of(&mut relay, "scheduler").await?;
    ensure!(log.contains("stream SPOOL_1 is missing"), "{log}");
    Ok(())
}
