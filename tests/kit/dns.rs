//! A DNS server with zones given as code.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::Process;
use crate::place::{TRIES, free_port};
use crate::servers::{LOOPBACK, server, started};

/// What the DNS server knows. All other names do not exist.
#[derive(Debug, Clone, Default)]
pub struct Zones {
    lines: Vec<String>,
    only: Option<String>,
    time_to_live: u32,
    logged: bool,
}

impl Zones {
    /// No names at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// An MX record. `.` as host is a null MX (RFC 7505).
    pub fn mx(mut self, domain: &str, preference: u16, host: &str) -> Self {
        if host == "." {
            let [high, low] = preference.to_be_bytes();
            return self.record(domain, 15, &[high, low, 0]);
        }
        self.lines
            .push(format!("mx-host={domain},{host},{preference}"));
        self
    }

    /// An address record.
    pub fn address(mut self, host: &str, address: IpAddr) -> Self {
        self.lines.push(format!("host-record={host},{address}"));
        self
    }

    /// A CNAME record.
    pub fn alias(mut self, name: &str, of: &str) -> Self {
        self.lines.push(format!("cname={name},{of}"));
        self
    }

    /// Any record: its type and its data as on the wire, without compression.
    pub fn record(mut self, name: &str, number: u16, data: &[u8]) -> Self {
        let mut line = format!("dns-rr={name},{number},");
        for octet in data {
            write!(line, "{octet:02x}").expect("a String takes everything");
        }
        self.lines.push(line);
        self
    }

    /// Refuses to answer for names outside of this domain. Otherwise they do not exist.
    pub fn only(mut self, domain: &str) -> Self {
        self.only = Some(domain.to_owned());
        self
    }

    /// Seconds for which answers may be kept; 0 at first.
    pub fn time_to_live(mut self, seconds: u32) -> Self {
        self.time_to_live = seconds;
        self
    }

    /// Notes what it is asked: [`Dns::questions`].
    pub fn logged(mut self) -> Self {
        self.logged = true;
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
    process: Process,
}

impl Dns {
    /// Starts one that answers on the loopback address.
    pub async fn start(folder: &Path, zones: &Zones) -> Result<Self> {
        let ours = zones.only.as_deref().unwrap_or("#");
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            let port = free_port(LOOPBACK)?;
            // A process that changes its user outlives the test; so it does not.
            let mut configuration = format!(
                "no-resolv\nno-hosts\nbind-interfaces\nlisten-address=127.0.0.1\nport={port}\n\
                 user=\ngroup=\npid-file=\nlog-facility=-\n\
                 {}cache-size=0\nedns-packet-max=4096\nlocal-ttl={}\n\
                 # What is not named does not exist, and is asked nowhere.\nlocal=/{ours}/\n",
                if zones.logged { "log-queries\n" } else { "" },
                zones.time_to_live
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
            match started(&mut process, "started").await {
                Ok(()) => {
                    return Ok(Self { port, process });
                }
                Err(error) => last = Err(error),
            }
        }
        last.context("dnsmasq does not start")
    }

    /// What it was asked so far, as in `MX one.example`, if its zones are logged.
    pub fn questions(&self) -> Vec<String> {
        let log = self.process.log();
        let questions = log.lines().filter_map(|line| {
            let (_, question) = line.split_once("query[")?;
            let (kind, rest) = question.split_once("] ")?;
            Some(format!("{kind} {}", rest.split_once(' ')?.0))
        });
        questions.collect()
    }

    /// Where resolvers ask.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.port)
    }
}
