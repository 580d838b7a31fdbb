//! A DNS server with zones given as code.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Result, bail};

use crate::Process;
use crate::place::free_port;
use crate::servers::{LOOPBACK, listening, server};

/// What the DNS server knows. All other names do not exist.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    lines: Vec<String>,
}

impl Zones {
    /// No names at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// An MX record. `.` as host is a null MX (RFC 7505).
    pub fn mx(mut self, domain: &str, preference: u16, host: &str) -> Self {
        self.lines
            .push(format!("mx-host={domain},{host},{preference}"));
        self
    }

    /// An address record.
    pub fn address(mut self, host: &str, address: IpAddr) -> Self {
        self.lines.push(format!("host-record={host},{address}"));
        self
    }

    /// A TXT record.
    pub fn text(mut self, name: &str, text: &str) -> Self {
        let mut line = format!("txt-record={name}");
        // A string of a TXT record has 255 octets at most; our texts are ASCII.
        for piece in text.as_bytes().chunks(250) {
            write!(line, ",\"{}\"", String::from_utf8_lossy(piece))
                .expect("a String takes everything");
        }
        self.lines.push(line);
        self
    }
}

/// A running dnsmasq.
pub struct Dns {
    port: u16,
    _process: Process,
}

impl Dns {
    /// Starts one that answers on the loopback address.
    pub async fn start(folder: &Path, zones: &Zones) -> Result<Self> {
        for _ in 0..4 {
            let port = free_port(LOOPBACK)?;
            let mut configuration = format!(
                "no-resolv\nno-hosts\nbind-interfaces\nlisten-address=127.0.0.1\nport={port}\n\
                 pid-file=\ncache-size=0\nedns-packet-max=4096\n\
                 # What is not named does not exist, and is asked nowhere.\nlocal=/#/\n"
            );
            configuration.push_str(&zones.lines.join("\n"));
            configuration.push('\n');
            let path = folder.join("dnsmasq.conf");
            std::fs::write(&path, configuration)?;
            let arguments = [
                "--keep-in-foreground".to_owned(),
                format!("--conf-file={}", path.display()),
            ];
            let mut process = Process::start("dnsmasq", folder, &server("dnsmasq")?, arguments)?;
            if listening(&mut process, SocketAddr::new(LOOPBACK, port))
                .await
                .is_ok()
            {
                return Ok(Self {
                    port,
                    _process: process,
                });
            }
        }
        bail!(
            "dnsmasq does not start; its log is {:?}",
            folder.join("dnsmasq.log")
        )
    }

    /// Where resolvers ask.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.port)
    }
}
