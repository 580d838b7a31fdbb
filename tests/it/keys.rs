//! Keys that take the place of others, and a domain as it is seen from outside.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{Documents, Layout, Outcome, Relay, Session, Setup, Sink, Zones, free_port_on, until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const HOST: Ipv4Addr = Ipv4Addr::new(127, 25, 33, 1);
/// The source of the pool `bulk`, by which nothing is sent here; resolvers have names of their own for loopback addresses.
const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

const MESSAGE: &[u8] =
    b"From: Jo <jo@acme.example>\r\nTo: friend@dest.example\r\nSubject: s\r\n\r\nHello\r\n";

/// The lines of JSON that a command prints.
fn lines(printed: &str) -> Result<Vec<Value>> {
    let lines = printed.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

fn key(folder: &Path, selector: &str) -> Result<(String, String)> {
    let pem = dkim::generate_rsa2048();
    let path = folder.join(format!("{selector}.pem"));
    std::fs::write(&path, &pem)?;
    let record = dkim::Key::from_pem(pem.as_bytes())?.dns_record();
    Ok((path.display().to_string(), record))
}

fn zones(first: &str, second: &str) -> Zones {
    Zones::new()
        .mx("dest.example", 10, "mx.example")
        .mx("acme.example", 10, "mx.example")
        .address("mx.example", HOST.into())
        .address("out1.acme.example", SOURCE.into())
        .text("acme.example", &format!("v=spf1 ip4:{SOURCE} -all"))
        .text("s1._domainkey.acme.example", first)
        .text("s2._domainkey.acme.example", second)
        .text(
            "_dmarc.acme.example",
            "v=DMARC1; p=reject; rua=mailto:dmarc@acme.example",
        )
}

#[tokio::test]
async fn a_published_key_takes_over_and_the_doctor_finds_what_is_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (first_path, first) = key(folder.path(), "s1")?;
    let (second_path, second) = key(folder.path(), "s2")?;
    let port = free_port_on(&[HOST.into()])?;
    let sink = Sink::start(SocketAddr::new(HOST.into(), port), Vec::new()).await?;
    let mut documents = Documents::new(port);
    documents.dkim = format!(
        "[ {{ selector: s1, algorithm: rsa-sha256, key: \"file:{first_path}\" }}, \
           {{ selector: s2, algorithm: rsa-sha256, key: \"file:{second_path}\", replaces: s1 }} ]"
    );
    documents.more = format!(
        "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: {{ name: bulk }}\n\
         spec: {{ sources: [ {{ name: bulk-1, address: {SOURCE}, ehlo: out1.acme.example }} ] }}\n\
         ---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: {{ name: stray }}\n\
         spec: {{ sources: [ {{ name: stray-1, address: 192.0.2.8, ehlo: out2.acme.example }} ] }}\n"
    );
    let setup = Setup::new("keys", zones(&first, &second), documents.yaml());
    let relay = Relay::start(setup.layout(Layout::AllInOne)).await?;

    // The signer finds the record by itself.
    until("s2 signs in place of s1", PATIENCE, || async {
        let list = ["dkim", "list", "--output", "json"];
        let keys = lines(&relay.command(&list).await.ok()?).ok()?;
        let of_key = |key: &Value| format!("{} {} {}", key["selector"], key["use"], key["dns"]);
        let uses: Vec<String> = keys.iter().map(of_key).collect();
        let wanted = [r#""s1" "retiring" "shown""#, r#""s2" "active" "shown""#];
        (uses == wanted).then_some(())
    })
    .await?;
    let mut session =
        Session::open_from(IpAddr::from([127, 0, 0, 1]), relay.submission(), PATIENCE).await?;
    let recipients = ["friend@dest.example".to_owned()];
    let outcome = session
        .submit("jo@acme.example", &recipients, MESSAGE)
        .await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    let received = sink.wait_for(1, PATIENCE).await?.pop().context("one")?;
    let text = String::from_utf8_lossy(&received.content).into_owned();
    ensure!(text.matches("DKIM-Signature:").count() == 1, "{text}");
    ensure!(text.contains("d=acme.example; s=s2;"), "{text}");

    // What is right about one pool is wrong about another.
    let doctor = [
        "doctor",
        "domain",
        "acme.example",
        "--output",
        "json",
        "--pool",
    ];
    let findings = lines(&relay.command(&[&doctor[..], &["bulk"]].concat()).await?)?;
    let of = |topic: &str, verdict: &str| {
        let fits = |finding: &&Value| finding["topic"] == topic && finding["verdict"] == verdict;
        findings.iter().filter(fits).count()
    };
    for (topic, verdict, number) in [
        ("spf", "ok", 1),
        ("dkim", "ok", 2),
        ("dmarc", "ok", 2),
        ("return-path", "ok", 1),
        ("names", "ok", 1),
        ("mta-sts", "note", 1),
        ("tls-rpt", "note", 1),
    ] {
        ensure!(of(topic, verdict) == number, "{topic}: {findings:#?}");
    }
    ensure!(findings.len() == 9, "{findings:#?}");
    let stray = relay
        .command(&["doctor", "domain", "acme.example", "--pool", "stray"])
        .await;
    let complaint = format!("{:#}", stray.err().context("something is wrong")?);
    for part in [
        "exit status: 1",
        "WRONG    spf          acme.example: 192.0.2.8 (source stray-1) is not among those that may send (fail)",
        "acme.example. IN TXT ( \"v=spf1 ip4:192.0.2.7 ip4:192.0.2.8 -all\" )",
        "8.2.0.192.in-addr.arpa. IN PTR out2.acme.example.",
    ] {
        ensure!(complaint.contains(part), "{part}: {complaint}");
    }
    Ok(())
}
