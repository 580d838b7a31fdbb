//! What comes back: to return paths of ours, into events, DSNs and people's mailboxes, over a kill.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kit::{
    Documents, Layout, Outcome, Received, Relay, Session, Setup, Sink, Zones, free_port,
    free_port_on, message, until,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 25, 40, 1));
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const APP: &str = "app@acme.example";

fn documents(port: u16) -> String {
    let usual = Documents::new(port).yaml();
    let (domain, stream) = (
        "{ tenant: acme, unsigned: true }",
        "{ name: transactional, inDoubt: retry }",
    );
    assert!(usual.contains(domain) && usual.contains(stream));
    usual
        .replace(
            domain,
            "{ tenant: acme, unsigned: true, returnPath: { mode: ours, domain: b.acme.example, forwardTo: people@acme.example } }",
        )
        .replace(
            stream,
            "{ name: transactional, inDoubt: retry, headers: { cfblAddress: ours } }",
        )
}

/// An installation with a listener for what comes back, and its address.
async fn start(sink_port: u16) -> Result<(Relay, SocketAddr)> {
    let zones = Zones::new()
        .mx("d.example", 10, "mx.d.example")
        .mx("acme.example", 10, "mx.d.example")
        .address("mx.d.example", HOST);
    let setup = Setup::new("inbound", zones, documents(sink_port)).layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    std::fs::write(
        relay.folder().join("tokens.keys"),
        "1 a secret of the test's own\n",
    )?;
    let inbound = SocketAddr::new(LOOPBACK, free_port(LOOPBACK)?);
    relay.reconfigure(
        "all",
        "ingress:\n",
        "tokens: { keys: tokens.keys }\ningress:\n",
    )?;
    relay.reconfigure(
        "all",
        "  listeners:\n",
        &format!(
            "  listeners:\n    - {{ name: inbound, kind: inbound, address: \"{inbound}\", tls: none }}\n"
        ),
    )?;
    relay.start_all(&setup).await?;
    Ok((relay, inbound))
}

/// Submits to two recipients, one of whom is watched over.
async fn submit(relay: &Relay) -> Result<()> {
    let mut session = Session::open(relay.submission(), PATIENCE).await?;
    for line in [
        "MAIL FROM:<app@acme.example> ENVID=QQ314159 RET=HDRS",
        "RCPT TO:<a@d.example> NOTIFY=FAILURE ORCPT=rfc822;first@d.example",
        "RCPT TO:<b@d.example>",
        "DATA",
    ] {
        let reply = session.command(line).await?;
        ensure!(reply.starts_with(['2', '3']), "{line}: {reply}");
    }
    session
        .write(&message("news", APP, "a@d.example", 1000))
        .await?;
    session.write(b".\r\n").await?;
    let reply = session.reply().await?;
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

async fn come_back(inbound: SocketAddr, from: &str, to: &str, content: &str) -> Result<()> {
    let mut session = Session::open(inbound, PATIENCE).await?;
    let content = content.replace('\n', "\r\n");
    let outcome = session
        .submit(from, &[to.to_owned()], content.as_bytes())
        .await?;
    ensure!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
    Ok(())
}

/// What the inbound listener says to a recipient.
async fn asked(inbound: SocketAddr, to: &str) -> Result<String> {
    let mut session = Session::open(inbound, PATIENCE).await?;
    session.command("MAIL FROM:<x@elsewhere.example>").await?;
    session.command(&format!("RCPT TO:<{to}>")).await
}

/// The event of a kind, once there is one; there may be no other.
async fn event(relay: &Relay, kind: &str) -> Result<Value> {
    until("the event", PATIENCE, || async {
        let events = relay.events().await.ok()?;
        let all: Vec<Value> = events
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|event: &Value| event["type"] == kind)
            .collect();
        assert!(all.len() < 2, "told twice: {all:?}");
        all.into_iter().next()
    })
    .await
}

async fn arrived(sink: &Sink, recipient: &str) -> Result<Received> {
    until("it to arrive", PATIENCE, || async {
        let all = sink.received().into_iter();
        all.filter(|of| of.recipients == [recipient]).next_back()
    })
    .await
}

fn report(recipient: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.d.example\nTo: x@b.acme.example\nSubject: Undelivered Mail Returned to Sender\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nSorry.\n--b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.d.example\n\n\
         Final-Recipient: rfc822; {recipient}\nAction: failed\nStatus: 5.1.1\nRemote-MTA: dns; store.d.example\n\
         Diagnostic-Code: smtp; 550 5.1.1 no such user\n\n--b--\n"
    )
}

#[tokio::test]
async fn what_comes_back_is_brought_to_its_message_over_a_kill() -> Result<()> {
    let port = free_port_on(&[HOST])?;
    let sink = Sink::start(SocketAddr::new(HOST, port), Vec::new()).await?;
    let (mut relay, inbound) = start(port).await?;
    submit(&relay).await?;
    let (a, b) = (
        arrived(&sink, "a@d.example").await?,
        arrived(&sink, "b@d.example").await?,
    );
    for of in [&a, &b] {
        ensure!(of.sender.starts_with("b1") && of.sender.ends_with("@b.acme.example"));
        ensure!(of.text().contains("\r\nCFBL-Address: c1"), "{}", of.text());
    }
    ensure!(a.sender != b.sender);

    // Nobody is let through to anywhere else.
    let forged = a.sender.replacen("b1", "c1", 1);
    for (to, code) in [
        ("a@d.example", "550 5.7.1"),
        ("people@acme.example", "550 5.7.1"),
        ("info@b.acme.example", "550 5.1.1"),
        (&forged, "550 5.1.1"),
        ("postmaster@b.acme.example", "250 2.1.5"),
    ] {
        let reply = asked(inbound, to).await?;
        ensure!(reply.starts_with(code), "{to}: {reply}");
    }

    // Answered, and killed.
    come_back(inbound, "", &a.sender, &report("a@d.example")).await?;
    relay.kill9("all")?;
    relay.start_process("all")?;
    relay.wait_ready().await?;
    let bounce = event(&relay, "OutOfBandBounce").await?;
    let text = |event: &Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    ensure!(text(&bounce, "tenant") == "acme" && text(&bounce, "stream") == "transactional");
    ensure!(
        text(&bounce, "recipient") == "a@d.example" && bounce["hard"] == true,
        "{bounce}"
    );
    ensure!(text(&bounce, "class") == "recipient" && text(&bounce, "action") == "failed");
    let told = arrived(&sink, APP).await?;
    ensure!(told.sender.is_empty(), "{told:?}");
    for field in [
        "Original-Envelope-Id: QQ314159\r\n",
        "Original-Recipient: rfc822; first@d.example\r\n",
        "Final-Recipient: rfc822; a@d.example\r\n",
        "Remote-MTA: dns; store.d.example\r\n",
    ] {
        ensure!(told.text().contains(field), "{field} in {}", told.text());
    }

    // A provider that tells nobody's address: the copy's return path says whose it is, and the journal the address.
    let complaint = format!(
        "From: fbl@provider.example\nTo: fbl@b.acme.example\nSubject: complaint\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nx\n--b\n\
         Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: p/1\nVersion: 1\n\n--b\n\
         Content-Type: message/rfc822\n\nReturn-Path: <{}>\nFrom: app@acme.example\nSubject: news\n\nx\n--b--\n",
        b.sender
    );
    come_back(
        inbound,
        "fbl@provider.example",
        "fbl@b.acme.example",
        &complaint,
    )
    .await?;
    let complaint = event(&relay, "Complaint").await?;
    ensure!(
        text(&complaint, "recipient") == "b@d.example",
        "{complaint}"
    );
    ensure!(text(&complaint, "message_id") == text(&bounce, "message_id"));

    let reply = "From: b@d.example\nTo: app@acme.example\nSubject: Re: news\n\nPlease call me.\n";
    come_back(inbound, "b@d.example", &b.sender, reply).await?;
    let people = arrived(&sink, "people@acme.example").await?;
    ensure!(people.sender.is_empty() && people.text().ends_with(&reply.replace('\n', "\r\n")));

    let away =
        "From: b@d.example\nSubject: Out of office\nAuto-Submitted: auto-replied\n\n550 5.1.1\n";
    come_back(inbound, "", &b.sender, away).await?;
    let metric = "staffetta_feedback_inbound_total";
    until("the automatic reply to be counted", PATIENCE, || async {
        let text = relay.metrics("all").await;
        (kit::metric(&text, metric, "automatic") == 1.0).then_some(())
    })
    .await?;
    // No second bounce of it.
    event(&relay, "OutOfBandBounce").await.context("one")?;
    relay.finish()
}
