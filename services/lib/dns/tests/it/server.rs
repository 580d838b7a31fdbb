//! A DNS server of the test's own.

use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// dnsmasq with a zone; ends with the test.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts dnsmasq (Debian's dnsmasq-base) with these records on a free port, and waits until it is ready.
    pub async fn start(records: &[&str]) -> Self {
        for _ in 0..10 {
            let address = UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            if let Some(child) = try_start(address, records).await {
                return Self { address, child };
            }
        }
        panic!("dnsmasq did not start: is dnsmasq-base installed?");
    }

    pub async fn stop(mut self) {
        self.child.kill().await.unwrap();
    }
}

async fn try_start(address: SocketAddr, records: &[&str]) -> Option<Child> {
    let path = format!(
        "{}:/usr/sbin:/usr/local/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let mut child = Command::new("dnsmasq")
        .env("PATH", path)
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
        ])
        .args([
            "--listen-address=127.0.0.1",
            "--local-ttl=60",
            "--pid-file=",
            "--user=",
            "--group=",
            "--log-facility=-",
        ])
        .arg(format!("--port={}", address.port()))
        .args(records)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut lines = BufReader::new(child.stderr.take()?).lines();
    // The first line says that it started, or why not (the port was taken in between).
    let line = lines.next_line().await.ok()??;
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    line.contains("started").then_some(child)
}
