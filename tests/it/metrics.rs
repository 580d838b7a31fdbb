//! What Prometheus finds when it scrapes a running installation.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Outcome, Relay, SERVICES, Session, Setup, Sink, Zones, free_port_on, message,
    metric, until,
};

/// `promtool check metrics` says nothing against the text.
fn check(text: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is missing: run `make servers` first")?;
    promtool
        .stdin
        .take()
        .context("promtool reads its standard input")?
        .write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && said.is_empty(), "{said}");
    Ok(())
}

#[tokio::test]
async fn what_every_service_shows_is_in_order_for_prometheus() -> Result<()> {
    let host: IpAddr = Ipv4Addr::new(127, 24, 4, 1).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let relay = Relay::start(Setup::new("metrics", zones, Documents::new(port).yaml())).await?;
    for number in 0..5 {
        let mut session = Session::open(relay.submission(), Duration::from_secs(20)).await?;
        let to = "user@one.example".to_owned();
        let content = message(&format!("M-{number}"), "app@acme.example", &to, 2000);
        let outcome = session.submit("app@acme.example", &[to], &content).await?;
        ensure!(matches!(outcome, Outcome::Accepted(_)));
    }
    sink.wait_for(5, Duration::from_secs(30)).await?;
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"))?;
    for service in SERVICES {
        let text = relay.metrics(service).await;
        check(&text).with_context(|| service.to_owned())?;
        ensure!(metric(&text, "staffetta_build_info", "version=") == 1.0);
        for line in text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE staffetta_"))
        {
            let name = line.split(' ').next().unwrap_or_default();
            ensure!(
                page.contains(&format!("`staffetta_{name}`")),
                "docs/metrics.md has no {name}"
            );
        }
    }
    // An answer that comes late ends the connection, and the gauge follows each second.
    until("a connection to Redis", Duration::from_secs(30), || async {
        let text = relay.metrics("scheduler").await;
        (metric(&text, "staffetta_scheduler_redis_connected", "") == 1.0).then_some(())
    })
    .await?;
    let sender = relay.metrics("sender").await;
    ensure!(metric(&sender, "staffetta_sender_credit_deliveries", "") == 512.0);
    let accepted = metric(
        &relay.metrics("ingress").await,
        "staffetta_ingress_messages_total",
        "tenant=\"acme\"",
    );
    ensure!(accepted == 5.0, "{accepted}");
    relay.finish()
}
