//! Scanners that are slow, go away and come back, and what becomes of large messages; a real milter.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kit::{
    Documents, Layout, Outcome, Process, Relay, ScriptedScanner, Session, Setup, Sink, Zones,
    free_port, free_port_on, until,
};

const PATIENCE: Duration = Duration::from_secs(120);
const SENDER: &str = "app@scanned.example";
const RECIPIENT: &str = "user@one.example";

/// Tenant `scanned`, whose mail the scanner of this specification looks at, sends from 127.7.0.0/16.
fn documents(port: u16, scanner: &str) -> String {
    let mut documents = Documents::new(port);
    for (kind, name, spec) in [
        ("Scanner", "one", scanner),
        (
            "Tenant",
            "scanned",
            "defaultStream: mail, streams: [ { name: mail } ], scanners: [ one ]",
        ),
        (
            "Credential",
            "scanned",
            "tenant: scanned, networks: [\"127.7.0.0/16\"]",
        ),
        (
            "SendingDomain",
            "scanned.example",
            "tenant: scanned, unsigned: true",
        ),
    ] {
        documents.more += &format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: {kind}\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n"
        );
    }
    documents.yaml()
}

/// A relay, and the host to which its mail goes.
async fn start(test: &str, host: [u8; 4], scanner: &str) -> Result<(Relay, Sink)> {
    let host: IpAddr = Ipv4Addr::from(host).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let setup = Setup::new(test, zones, documents(port, scanner)).layout(Layout::AllInOne);
    Ok((Relay::start(setup).await?, sink))
}

async fn session(relay: &Relay) -> Result<Session> {
    let from = IpAddr::V4(Ipv4Addr::new(127, 7, 0, 1));
    Session::open_from(from, relay.submission(), PATIENCE).await
}

/// The reply to a message with this header section and body.
async fn submit(session: &mut Session, header: &str, body: &[u8]) -> Result<String> {
    let mut content = format!("From: {SENDER}\r\nTo: {RECIPIENT}\r\n{header}\r\n").into_bytes();
    content.extend_from_slice(body);
    let recipients = [RECIPIENT.to_owned()];
    Ok(match session.submit(SENDER, &recipients, &content).await? {
        Outcome::Accepted(reply) | Outcome::Refused(reply) | Outcome::Unknown(reply) => reply,
    })
}

fn lines(megabytes: usize) -> Vec<u8> {
    let line = [&[b'x'; 62][..], b"\r\n"].concat();
    line.repeat(megabytes << 14)
}

#[tokio::test]
async fn a_large_message_is_scanned_while_it_comes_in_and_refused_at_its_end() -> Result<()> {
    let scanner = ScriptedScanner::start().await?;
    let spec = format!(
        "clamav: {{ address: \"{}\" }}, deadline: 1m",
        scanner.address()
    );
    let (relay, sink) = start("scan-large", [127, 27, 1, 1], &spec).await?;
    let mut client = session(&relay).await?;
    let infected = [lines(6), b"X-Scan: infected\r\n".to_vec()].concat();
    let reply = submit(&mut client, "", &infected).await?;
    ensure!(
        reply == "554 5.7.1 Message refused: it contains Test.Infected",
        "{reply}"
    );
    let reply = submit(&mut client, "X-Token: L-1\r\n", &lines(6)).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let arrived = sink.wait_for(1, PATIENCE).await?.remove(0);
    ensure!(arrived.token == "L-1");
    // As it was stored, octet by octet, in one session.
    let seen = scanner.messages();
    ensure!(seen.len() == 2 && scanner.connections() == 1);
    let stored = seen.last().map(Vec::as_slice).unwrap_or_default();
    ensure!(
        arrived.content.ends_with(stored),
        "what was scanned is not what was sent"
    );
    ensure!(stored.starts_with(b"Received: "));

    // It does not even read: the client waits no longer than the deadline, and a message is answered once.
    relay.apply(&documents_of_impatient(&scanner)).await?;
    let stalled = [b"X-Scan: stall\r\n".to_vec(), lines(6)].concat();
    until("the new deadline", PATIENCE, || async {
        let mut client = session(&relay).await.ok()?;
        let begun = Instant::now();
        let reply = submit(&mut client, "", &stalled).await.ok()?;
        let is_new = begun.elapsed() < Duration::from_secs(50);
        (is_new && reply.starts_with("451 4.7.1 ")).then_some(())
    })
    .await?;
    ensure!(sink.count() == 1);
    relay.finish()
}

fn documents_of_impatient(scanner: &ScriptedScanner) -> String {
    format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: Scanner\nmetadata: {{ name: one }}\n\
         spec: {{ clamav: {{ address: \"{}\" }}, deadline: 1s }}\n",
        scanner.address()
    )
}

#[tokio::test]
async fn a_scanner_that_is_down_is_left_alone_and_found_again() -> Result<()> {
    let address = SocketAddr::new(
        Ipv4Addr::LOCALHOST.into(),
        free_port(Ipv4Addr::LOCALHOST.into())?,
    );
    let spec = format!("clamav: {{ address: \"{address}\" }}, deadline: 1m");
    let (relay, sink) = start("scan-down", [127, 27, 2, 1], &spec).await?;
    let mut client = session(&relay).await?;
    for _ in 0..5 {
        let reply = submit(&mut client, "", b"x\r\n").await?;
        ensure!(
            reply == "451 4.7.1 The message can't be scanned now; try again later",
            "{reply}"
        );
    }
    ensure!(
        relay
            .metric("staffetta_ingress_scanner_up", "scanner=\"one\"")
            .await
            == 0.0
    );

    let scanner = ScriptedScanner::start_at(address).await?;
    let client = tokio::sync::Mutex::new(client);
    until("the scanner to be asked again", PATIENCE, || async {
        let reply = submit(&mut *client.lock().await, "X-Token: D-1\r\n", b"x\r\n").await;
        reply.ok()?.starts_with("250").then_some(())
    })
    .await?;
    ensure!(
        relay
            .metric("staffetta_ingress_scanner_up", "scanner=\"one\"")
            .await
            == 1.0
    );
    sink.wait_for(1, PATIENCE).await?;

    // Started anew, while a session with it rests: nobody notices.
    drop(scanner);
    let _scanner = until("the port to be free", PATIENCE, || async {
        ScriptedScanner::start_at(address).await.ok()
    })
    .await?;
    let reply = submit(&mut *client.lock().await, "", b"x\r\n").await?;
    ensure!(reply.starts_with("250"), "{reply}");
    relay.finish()
}

#[tokio::test]
async fn what_rspamd_is_told_and_what_it_adds() -> Result<()> {
    let scanner = ScriptedScanner::start().await?;
    let spec = format!(
        "rspamd: {{ address: \"{}\" }}, deadline: 1m",
        scanner.address()
    );
    let (relay, sink) = start("scan-rspamd", [127, 27, 3, 1], &spec).await?;
    let mut client = session(&relay).await?;
    let header = "X-Scan: action add header\r\nX-Token: R-1\r\n";
    // In pieces: the fields come first all the same.
    let reply = submit(&mut client, header, &lines(2)).await?;
    ensure!(reply.starts_with("250"), "{reply}");
    let id = reply.rsplit(' ').next().unwrap_or_default();
    let request = scanner.requests().remove(0);
    for line in [
        "IP: 127.7.0.1",
        "Helo: client.example",
        &format!("From: <{SENDER}>"),
        &format!("Rcpt: <{RECIPIENT}>"),
        &format!("Queue-Id: {id}"),
    ] {
        ensure!(request.contains(&format!("{line}\r\n")), "{request}");
    }
    let arrived = sink.wait_for(1, PATIENCE).await?.remove(0);
    let fields = "X-Spam: Yes\r\nX-Spam-Status: Yes, score=7.50 required=6.00\r\nReceived: ";
    ensure!(
        arrived.text().starts_with(fields),
        "{}",
        &arrived.text()[..300]
    );
    relay.finish()
}

#[tokio::test]
async fn a_real_milter_sees_the_message_and_adds_a_field() -> Result<()> {
    let address = SocketAddr::new(
        Ipv4Addr::LOCALHOST.into(),
        free_port(Ipv4Addr::LOCALHOST.into())?,
    );
    let spec = format!("milter: {{ address: \"{address}\" }}, deadline: 1m");
    let (relay, sink) = start("scan-milter", [127, 27, 4, 1], &spec).await?;
    let configuration = relay.folder().join("opendkim.conf");
    std::fs::write(
        &configuration,
        format!(
            "Mode v\nSocket inet:{}@127.0.0.1\nBackground no\nSyslog no\nKeepAuthResults yes\nAlwaysAddARHeader yes\n\
             AuthservID verifier.example\nNameservers 127.0.0.1\nPidFile {}\n",
            address.port(),
            relay.folder().join("opendkim.pid").display()
        ),
    )?;
    let arguments = ["-f".into(), "-x".into(), configuration.into_os_string()];
    let program = std::path::Path::new("/usr/sbin/opendkim");
    let _opendkim = Process::start("opendkim", relay.folder(), program, arguments)?;
    until("opendkim", PATIENCE, || async {
        tokio::net::TcpStream::connect(address).await.ok().map(drop)
    })
    .await?;
    let client = tokio::sync::Mutex::new(session(&relay).await?);
    for body in [b"x\r\n".to_vec(), lines(3)] {
        let reply = submit(&mut *client.lock().await, "X-Token: M\r\n", &body).await?;
        ensure!(reply.starts_with("250"), "{reply}");
    }
    for arrived in sink.wait_for(2, PATIENCE).await? {
        let text = arrived.text();
        let field = "Authentication-Results: verifier.example; dkim=none";
        ensure!(text.starts_with(field), "{}", &text[..300.min(text.len())]);
    }
    relay.finish()
}
