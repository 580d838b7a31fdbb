//! A listener behind a load balancer: who the client is, says the PROXY header of one that is trusted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kit::{Documents, Relay, Setup, Sink, Zones, free_port_on, metric};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(from: Ipv4Addr, to: SocketAddr, first: &[u8]) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(first).await?;
    Ok(stream)
}

/// Reads as long as the text does not end a reply; empty when the connection was closed.
async fn reply(stream: &mut TcpStream) -> Result<String> {
    let mut text = Vec::new();
    let read = async {
        while !is_reply(&text) {
            // A reset is an end as well: what was not read of us.
            if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    timeout(PATIENCE, read).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn is_reply(text: &[u8]) -> bool {
    let line = text.strip_suffix(b"\r\n").unwrap_or_default();
    let line = line.rsplit(|octet| *octet == b'\n').next();
    line.is_some_and(|line| line.get(3) == Some(&b' '))
}

/// What is answered to MAIL by a client that the header names.
async fn mail(to: SocketAddr, header: &[u8]) -> Result<String> {
    let mut stream = connect(BALANCER, to, header).await?;
    ensure!(reply(&mut stream).await?.starts_with("220 "));
    stream.write_all(b"EHLO c.example\r\n").await?;
    reply(&mut stream).await?;
    stream
        .write_all(b"MAIL FROM:<app@acme.example>\r\n")
        .await?;
    reply(&mut stream).await
}

#[tokio::test]
async fn the_header_of_a_trusted_load_balancer_decides_who_the_client_is() -> Result<()> {
    let host: IpAddr = Ipv4Addr::new(127, 24, 2, 1).into();
    let port = free_port_on(&[host])?;
    let sink = Sink::start(SocketAddr::new(host, port), Vec::new()).await?;
    let zones = Zones::new()
        .mx("one.example", 10, "mx.one.example")
        .address("mx.one.example", host);
    let setup = Setup::new("proxy", zones, Documents::new(port).yaml());
    let mut relay = Relay::prepare(&setup).await?;
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let proxied = SocketAddr::new(local, free_port_on(&[local])?);
    relay.reconfigure(
        "ingress",
        "  listeners:\n",
        &format!(
            "  listeners:\n    - {{ name: proxied, address: \"{proxied}\", tls: none, \
         proxyProtocol: {{ trusted: [\"{BALANCER}/32\"], headerTimeout: 1s }} }}\n"
        ),
    )?;
    relay.start_all(&setup).await?;

    // The credential of the documents is for 127.0.0.0/8.
    let ours = b"PROXY TCP4 127.9.9.9 127.0.0.1 4000 25\r\n";
    ensure!(mail(proxied, ours).await?.starts_with("250"));
    let foreign = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n";
    ensure!(
        mail(proxied, foreign).await?.starts_with("530"),
        "the header decides, not the connection"
    );
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    ensure!(
        mail(proxied, local).await?.starts_with("530"),
        "the load balancer itself may not send"
    );
    ensure!(
        mail(proxied, b"PROXY UNKNOWN\r\n")
            .await?
            .starts_with("530")
    );

    for (from, first) in [
        (STRANGER, &ours[..]),
        (BALANCER, b"EHLO c.example\r\n"),
        (BALANCER, b"PROXY TCP4 x\r\n"),
    ] {
        let mut stream = connect(from, proxied, first).await?;
        ensure!(reply(&mut stream).await?.is_empty(), "{first:?}");
    }
    let silent = Instant::now();
    let mut stream = connect(BALANCER, proxied, b"PROXY TCP4 ").await?;
    ensure!(reply(&mut stream).await?.is_empty());
    ensure!(
        (1..5).contains(&silent.elapsed().as_secs()),
        "{:?}",
        silent.elapsed()
    );
    let metrics = relay.metrics("ingress").await;
    for reason in ["untrusted", "missing", "malformed", "timeout"] {
        let label = format!("listener=\"proxied\",reason=\"{reason}\"");
        let count = metric(&metrics, "staffetta_ingress_proxy_refusals_total", &label);
        ensure!(count == 1.0, "{reason}: {count}");
    }

    let mut stream = connect(BALANCER, proxied, ours).await?;
    reply(&mut stream).await?;
    let content = kit::message("P-1", "app@acme.example", "user@one.example", 500);
    for command in [
        "EHLO c.example",
        "MAIL FROM:<app@acme.example>",
        "RCPT TO:<user@one.example>",
        "DATA",
    ] {
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        reply(&mut stream).await?;
    }
    stream.write_all(&content).await?;
    stream.write_all(b"\r\n.\r\n").await?;
    ensure!(reply(&mut stream).await?.starts_with("250"));
    let received = sink.wait_for(1, PATIENCE).await?.remove(0);
    ensure!(
        received.text().contains("[127.9.9.9]"),
        "{}",
        received.text()
    );
    relay.finish()
}
