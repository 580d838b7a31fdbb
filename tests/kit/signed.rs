//! Signed zones below a root of the test's own, served by nsd, and a resolver that checks them, unbound.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use crate::Process;
use crate::place::{TRIES, free_port};
use crate::servers::{LOOPBACK, started};

/// Zones right below the root, which is signed; records in the form of master files (RFC 1035 section 5).
#[derive(Debug, Clone, Default)]
pub struct SignedZones {
    zones: Vec<Zone>,
}

#[derive(Debug, Clone)]
struct Zone {
    name: String,
    records: String,
    signed: Signed,
    /// Replaced after it was signed.
    forged: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signed {
    No,
    Yes,
    /// So that the signatures have run out.
    LongAgo,
}

impl SignedZones {
    /// No zones at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// A zone with valid signatures.
    pub fn signed(self, name: &str, records: &str) -> Self {
        self.with(name, records, Signed::Yes)
    }

    /// A zone whose signatures have expired.
    pub fn expired(self, name: &str, records: &str) -> Self {
        self.with(name, records, Signed::LongAgo)
    }

    /// A zone that is not signed, as the root says.
    pub fn unsigned(self, name: &str, records: &str) -> Self {
        self.with(name, records, Signed::No)
    }

    /// Changes what the last zone says after it was signed, wherever it says it.
    pub fn forged(mut self, says: &str, instead: &str) -> Self {
        let zone = self.zones.last_mut().expect("there is a zone to forge");
        zone.forged.push((says.to_owned(), instead.to_owned()));
        self
    }

    fn with(mut self, name: &str, records: &str, signed: Signed) -> Self {
        let zone = Zone {
            name: name.to_owned(),
            records: records.to_owned(),
            signed,
            forged: Vec::new(),
        };
        self.zones.push(zone);
        self
    }
}

/// A running nsd and a running unbound.
pub struct SignedDns {
    port: u16,
    resolver: Process,
    _server: Process,
}

impl SignedDns {
    /// Signs the zones in the folder, and starts both.
    pub async fn start(folder: &Path, zones: &SignedZones) -> Result<Self> {
        let mut last = Err(anyhow!("no port was tried"));
        write_zones(folder, zones)?;
        for _ in 0..TRIES {
            match Self::try_start(folder, zones).await {
                Ok(running) => return Ok(running),
                Err(error) => last = Err(error),
            }
        }
        last.context("nsd and unbound do not start")
    }

    async fn try_start(folder: &Path, zones: &SignedZones) -> Result<Self> {
        let (behind, port) = (free_port(LOOPBACK)?, free_port(LOOPBACK)?);
        let shown = folder.display();
        let mut configuration = format!(
            "server:\n ip-address: 127.0.0.1@{behind}\n username: \"\"\n zonesdir: \"{shown}\"\n database: \"\"\n \
             pidfile: \"\"\n xfrdfile: \"{shown}/xfrd\"\n zonelistfile: \"{shown}/zones\"\n server-count: 1\n \
             rrl-ratelimit: 0\n verbosity: 1\nremote-control:\n control-enable: no\n"
        );
        // `stub-zone` for each: they all are behind one address, which unbound would look for at port 53.
        let mut resolving = format!(
            "server:\n interface: 127.0.0.1@{port}\n username: \"\"\n chroot: \"\"\n directory: \"{shown}\"\n \
             pidfile: \"\"\n use-syslog: no\n log-queries: yes\n verbosity: 1\n num-threads: 1\n \
             do-not-query-localhost: no\n trust-anchor-file: \"{shown}/root.anchor\"\n \
             trust-anchor-signaling: no\nremote-control:\n control-enable: no\n"
        );
        let names = zones.zones.iter().map(|zone| zone.name.as_str());
        for name in names.chain(["."]) {
            let file = file_of(name);
            writeln!(
                configuration,
                "zone:\n name: \"{name}\"\n zonefile: \"{file}.served\""
            )?;
            writeln!(
                resolving,
                "stub-zone:\n name: \"{name}\"\n stub-addr: 127.0.0.1@{behind}"
            )?;
        }
        let paths = [folder.join("nsd.conf"), folder.join("unbound.conf")];
        std::fs::write(&paths[0], configuration)?;
        std::fs::write(&paths[1], resolving)?;
        let [serve, resolve] = paths.map(|path| ["-d".into(), "-c".into(), path.into_os_string()]);
        let mut server = Process::start("nsd", folder, &program("nsd")?, serve)?;
        started(&mut server, "nsd started").await?;
        let mut resolver = Process::start("unbound", folder, &program("unbound")?, resolve)?;
        started(&mut resolver, "start of service").await?;
        Ok(Self {
            port,
            resolver,
            _server: server,
        })
    }

    /// The resolver that checks.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(LOOPBACK, self.port)
    }

    /// What the resolver was asked so far, as in `MX one.example`.
    pub fn questions(&self) -> Vec<String> {
        let log = self.resolver.log();
        let questions = log.lines().filter_map(|line| {
            let (_, question) = line.split_once("info: 127.0.0.1 ")?;
            let mut words = question.split_whitespace();
            let name = words.next()?.trim_end_matches('.').to_owned();
            Some(format!("{} {name}", words.next()?))
        });
        questions.collect()
    }
}

fn write_zones(folder: &Path, zones: &SignedZones) -> Result<()> {
    let head = |name: &str| {
        format!("{name} 60 IN SOA ns. host. 1 7200 3600 1209600 60\n{name} 3600 IN NS ns.\n")
    };
    let mut root = head(".") + "ns. 3600 IN A 127.0.0.1\n";
    for zone in &zones.zones {
        let name = format!("{}.", zone.name);
        writeln!(root, "{name} 3600 IN NS ns.")?;
        let key = write_zone(folder, zone, &(head(&name) + &zone.records))?;
        root += &key;
    }
    let zone = Zone {
        name: ".".to_owned(),
        records: String::new(),
        signed: Signed::Yes,
        forged: Vec::new(),
    };
    let anchor = write_zone(folder, &zone, &root)?;
    std::fs::write(folder.join("root.anchor"), anchor)?;
    Ok(())
}

/// Writes the file that is served; the DS record of its key.
fn write_zone(folder: &Path, zone: &Zone, text: &str) -> Result<String> {
    let file = file_of(&zone.name);
    let served = format!("{file}.served");
    if zone.signed == Signed::No {
        std::fs::write(folder.join(served), text)?;
        return Ok(String::new());
    }
    std::fs::write(folder.join(&file), text)?;
    let key = run(
        folder,
        "ldns-keygen",
        &["-a", "ECDSAP256SHA256", "-k", &zone.name],
    )?;
    let key = key.trim();
    let times: &[&str] = match zone.signed {
        Signed::LongAgo => &["-i", "20190101000000", "-e", "20200101000000"],
        Signed::Yes | Signed::No => &[],
    };
    let arguments = [times, &["-f", &served, &file, key]].concat();
    run(folder, "ldns-signzone", &arguments)?;
    let path = folder.join(served);
    let mut text = std::fs::read_to_string(&path)?;
    for (says, instead) in &zone.forged {
        ensure!(
            text.contains(says),
            "the zone {} does not say {says}",
            zone.name
        );
        text = text.replace(says, instead);
    }
    std::fs::write(&path, text)?;
    Ok(std::fs::read_to_string(folder.join(format!("{key}.ds")))?)
}

fn file_of(name: &str) -> String {
    match name {
        "." => "root.zone".to_owned(),
        name => format!("{name}.zone"),
    }
}

fn run(folder: &Path, name: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program(name)?)
        .current_dir(folder)
        .args(arguments)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} {arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A program of a Debian package, which may be where a plain user's PATH does not look.
fn program(name: &str) -> Result<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin"].map(|place| Path::new(place).join(name));
    let found = places.into_iter().find(|path| path.exists());
    found.with_context(|| format!("{name} is missing: run `make servers` first"))
}
