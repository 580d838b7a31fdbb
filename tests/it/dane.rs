//! DANE from a client to hosts whose certificates the DNS names: an authority's zones in nsd, signed, checked by unbound.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use kit::{
    Authority, Documents, Layout, Outcome, Relay, Session, Setup, SignedDns, SignedZones, Sink,
    Zones, free_port_on, message, until,
};

const PATIENCE: Duration = Duration::from_secs(120);
const SENDER: &str = "app@acme.example";

/// A TLSA record that names the authority, all of it.
fn named(authority: &Authority) -> String {
    let mut record = "2 0 0 ".to_owned();
    for octet in authority.der().iter() {
        write!(record, "{octet:02x}").expect("a String takes everything");
    }
    record
}

#[tokio::test]
async fn mail_goes_to_hosts_that_show_what_is_named_and_waits_at_the_others() -> Result<()> {
    let addresses: [IpAddr; 3] = [1, 2, 3].map(|number| Ipv4Addr::new(127, 25, 34, number).into());
    let port = free_port_on(&addresses)?;
    let [good, moved, stripped] = addresses.map(|address| SocketAddr::new(address, port));
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let good = Sink::start_certified(good, &authority, &["mx.good.example"], Vec::new()).await?;
    let moved = Sink::start_certified(moved, &stranger, &["mx.moved.example"], Vec::new()).await?;
    let stripped = Sink::start(stripped, Vec::new()).await?;

    let record = named(&authority);
    let host = |zone: &str, name: &str, sink: &Sink| {
        let host = format!("mx.{name}.{zone}.");
        let address = sink.address().ip();
        format!(
            "{name}.{zone}. 60 IN MX 10 {host}\n{host} 60 IN A {address}\n\
             _{port}._tcp.{host} 60 IN TLSA {record}\n"
        )
    };
    let example = host("example", "good", &good)
        + &host("example", "moved", &moved)
        + &host("example", "stripped", &stripped);
    let zones = SignedZones::new()
        .signed("example", &example)
        // Nobody vouches for these records, so they ask for nothing.
        .unsigned("plain", &host("plain", "stripped", &stripped))
        .expired("late", &host("late", "good", &good));
    let setup = Setup::new("dane", Zones::new(), Documents::new(port).yaml());
    let setup = setup.layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    let dns = SignedDns::start(relay.folder(), &zones).await?;
    let resolvers = format!("resolvers: [\"{}\"]\n#", dns.address());
    relay.reconfigure("all", "resolvers:", &resolvers)?;
    let sender = "drainTimeout: 20s, dane: { enabled: true } }";
    relay.reconfigure("all", "drainTimeout: 20s }", sender)?;
    relay.start_all(&setup).await?;
    let validated = async || {
        let shown = relay.metric("staffetta_sender_dnssec_validated", "").await;
        (shown > 0.0).then_some(())
    };
    until("the resolver says that it checks", PATIENCE, validated).await?;

    for domain in [
        "moved.example",
        "stripped.example",
        "good.late",
        "good.example",
        "stripped.plain",
    ] {
        let to = format!("user@{domain}");
        let mut session = Session::open(relay.submission(), PATIENCE).await?;
        let content = message(domain, SENDER, &to, 2000);
        let outcome = session.submit(SENDER, &[to], &content).await?;
        ensure!(matches!(outcome, Outcome::Accepted(_)), "{domain}");
    }
    let arrived = good.wait_for(1, PATIENCE).await?;
    ensure!(arrived[0].tls && arrived[0].recipients == ["user@good.example"]);
    let arrived = stripped.wait_for(1, PATIENCE).await?;
    ensure!(!arrived[0].tls && arrived[0].recipients == ["user@stripped.plain"]);
    for (metric, labels) in [
        (
            "staffetta_sender_tls_policy_total",
            r#"policy="dane",result="ok""#,
        ),
        (
            "staffetta_sender_tls_policy_total",
            r#"policy="dane",result="certificate""#,
        ),
        (
            "staffetta_sender_tls_policy_total",
            r#"policy="dane",result="no_tls""#,
        ),
        (
            "staffetta_sender_tls_results_total",
            r#"policy="tlsa",result="success""#,
        ),
        (
            "staffetta_sender_tls_results_total",
            r#"policy="tlsa",result="validation-failure""#,
        ),
        (
            "staffetta_sender_tls_results_total",
            r#"policy="tlsa",result="starttls-not-supported""#,
        ),
        (
            "staffetta_sender_tls_results_total",
            r#"policy="no-policy-found",result="starttls-not-supported""#,
        ),
        ("staffetta_sender_tlsa_lookups_total", r#"result="usable""#),
    ] {
        let counted = async || (relay.metric(metric, labels).await > 0.0).then_some(());
        until(labels, PATIENCE, counted).await?;
    }
    ensure!(good.count() == 1 && moved.count() == 0 && stripped.count() == 1);
    // They wait.
    until("three wait", PATIENCE, async || {
        let queue = relay.queue().await.ok()?;
        (queue.waiting == 3 && queue.in_flight == 0).then_some(())
    })
    .await?;
    relay.finish()
}
