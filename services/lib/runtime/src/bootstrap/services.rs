//! The section of each service.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::{Fields, Quota};
use mail::{ByteSize, Span};

use super::{CertificateFiles, Forwarding, Listener, WebListener};

/// Service `ingress`.
#[derive(Debug, Clone)]
pub struct Ingress {
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// SMTP listeners; `ingress` does not run without one.
    pub listeners: Vec<Listener>,
    /// Memory for the bodies of messages on their way in, all connections together.
    pub body_memory: ByteSize,
    /// How long a stop waits for messages that are coming in or being stored.
    pub drain_timeout: Span,
    /// Processes that share the quotas while Redis is away, 1 to 1,000: each has its part.
    pub replicas: u32,
    /// Failed logins of one client network with one user name; more are not even checked.
    pub failed_logins: Quota,
    /// What mail of foreign senders is forwarded with; `None`: there is none.
    pub forwarding: Option<Forwarding>,
}

/// Service `signer`.
#[derive(Debug, Clone)]
pub struct Signer {
    /// gRPC.
    pub listen: SocketAddr,
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// Threads that sign; 0 = as many as there are cores.
    pub threads: u32,
}

/// Service `scheduler`.
#[derive(Debug, Clone)]
pub struct Scheduler {
    /// gRPC (dispatch and admin).
    pub listen: SocketAddr,
    /// `host:port` at which senders and the command-line tool reach it.
    pub advertise: String,
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// For the command-line tool from outside.
    pub admin: Option<AdminListener>,
}

/// A listener with the admin service alone, over TLS, for clients that show a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminListener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it shows.
    pub files: CertificateFiles,
    /// PEM file of the authorities that sign the clients' certificates: whoever has one may do everything.
    pub client_authorities: PathBuf,
}

/// Service `sender`.
#[derive(Debug, Clone)]
pub struct Sender {
    /// URLs of the signers, `http://host:port`.
    pub signers: Vec<String>,
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// Assignments that each scheduler may have outstanding here, 1 to 65,536.
    pub credit: u32,
    /// Names of the egress sources whose addresses this host has; empty = any, as binding tells.
    pub sources: Vec<String>,
    /// How long a stop waits for open transactions (a final reply may take 10 minutes).
    pub drain_timeout: Span,
    /// PEM file of the authorities that sign the certificates of mail hosts and of policies' servers; the system's when
    /// there is none.
    pub authorities: Option<PathBuf>,
    /// The policies of domains.
    pub mta_sts: MtaSts,
    /// The resolvers check DNSSEC and are believed, so that what domains say with DANE holds (RFC 7672).
    pub dane: bool,
    /// What is kept of the dialogues with mail hosts.
    pub transcripts: Transcripts,
    /// How often is looked at what is published about sending domains, 10 min to 30 d; `None`: never.
    pub domain_checks: Option<Span>,
}

/// What is kept of the dialogues with mail hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transcripts {
    /// Those of failed attempts are, and samples of others.
    pub enabled: bool,
    /// Of so many attempts that succeed, one is kept; 0 = none.
    pub one_in: u32,
}

/// How the MTA-STS policies of domains are fetched (RFC 8461).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MtaSts {
    /// They are, and hold.
    pub enabled: bool,
    /// TCP port of their servers.
    pub port: u16,
    /// Servers at private addresses are asked, too.
    pub allow_private: bool,
}

/// Service `feedback`.
#[derive(Debug, Clone)]
pub struct Feedback {
    /// Health and metrics.
    pub metrics: SocketAddr,
    /// Where the links in messages lead; `None`: nobody answers them here.
    pub links: Option<WebListener>,
    /// Events are written into files.
    pub export: Option<Export>,
}

/// Events as JSON Lines in files of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Where they are; of nobody else.
    pub folder: PathBuf,
    /// A file is finished when it is so large.
    pub rotate_size: ByteSize,
    /// A file is finished when it is so old.
    pub rotate_every: Span,
    /// Finished files are removed when they are so old.
    pub keep: Span,
    /// The oldest finished files are removed when all together are larger.
    pub keep_size: Option<ByteSize>,
    /// Finished files are compressed with zstd.
    pub is_compressed: bool,
}

/// Several services in one process.
#[derive(Debug, Clone)]
pub struct All {
    /// Health and metrics of all of them together.
    pub metrics: SocketAddr,
}

impl Ingress {
    pub(super) fn read(fields: Fields<'_>, folder: &Path) -> Self {
        let ingress = Self {
            metrics: address(&fields, "metrics", 9101),
            listeners: Listener::read_all(&fields, folder),
            body_memory: fields
                .parsed("bodyMemory")
                .unwrap_or(ByteSize::from_mib(256)),
            drain_timeout: fields.parsed("drainTimeout").unwrap_or(Span::from_secs(30)),
            replicas: fields.small_integer("replicas", 1..=1000).unwrap_or(2),
            failed_logins: fields.parsed("failedLogins").unwrap_or(Quota {
                count: 10,
                window: Span::from_secs(600),
            }),
            forwarding: Forwarding::read(&fields, folder),
        };
        fields.close();
        ingress
    }
}

impl Signer {
    pub(super) fn read(fields: Fields<'_>) -> Self {
        let signer = Self {
            listen: address(&fields, "listen", 7102),
            metrics: address(&fields, "metrics", 9102),
            threads: fields.small_integer("threads", 0..=1024).unwrap_or(0),
        };
        fields.close();
        signer
    }
}

impl AdminListener {
    fn read(fields: Fields<'_>, folder: &Path) -> Option<Self> {
        let listen = fields
            .required_text("listen")
            .and_then(|_| socket_address(&fields, "listen"));
        let file = |name| fields.required_text(name).map(|text| folder.join(text));
        let (certificate, key) = (file("certificate"), file("key"));
        let client_authorities = file("clientAuthorities");
        fields.close();
        Some(Self {
            listen: listen?,
            files: CertificateFiles {
                certificate: certificate?,
                key: key?,
            },
            client_authorities: client_authorities?,
        })
    }
}

impl Scheduler {
    pub(super) fn read(fields: Fields<'_>, folder: &Path) -> Self {
        let listen = address(&fields, "listen", 7103);
        let advertise = match fields.text("advertise") {
            Some(text) if is_host_and_port(text) => with_brackets(text),
            Some(text) => {
                fields.problem(
                    "advertise",
                    format!("host:port is expected, found {text:?}"),
                );
                String::new()
            }
            None => {
                if listen.ip().is_unspecified() {
                    fields.problem(
                        "advertise",
                        "is missing: listen names no address that others could use",
                    );
                }
                listen.to_string()
            }
        };
        let scheduler = Self {
            listen,
            advertise,
            metrics: address(&fields, "metrics", 9103),
            admin: fields
                .is_given("admin")
                .then(|| AdminListener::read(fields.map("admin"), folder))
                .flatten(),
        };
        fields.close();
        scheduler
    }
}

impl Sender {
    pub(super) fn read(fields: Fields<'_>, folder: &Path) -> Self {
        let signers = fields.read_list("signers", |text| {
            if text.len() > "http://".len() && text.starts_with("http://") {
                Ok(text.to_owned())
            } else {
                Err("a URL http://host:port is expected".to_owned())
            }
        });
        let sender = Self {
            signers: if signers.is_empty() {
                vec!["http://127.0.0.1:7102".to_owned()]
            } else {
                signers
            },
            metrics: address(&fields, "metrics", 9104),
            credit: fields.small_integer("credit", 1..=65_536).unwrap_or(512),
            sources: fields.read_list("sources", |text| Ok(text.to_owned())),
            drain_timeout: fields
                .parsed("drainTimeout")
                .unwrap_or(Span::from_secs(660)),
            authorities: super::file(&fields, "authorities", folder),
            mta_sts: MtaSts::read(fields.map("mtaSts")),
            transcripts: Transcripts::read(fields.map("transcripts")),
            dane: read_dane(fields.map("dane")),
            domain_checks: read_domain_checks(&fields),
        };
        fields.close();
        sender
    }
}

fn read_dane(fields: Fields<'_>) -> bool {
    let enabled = fields.boolean("enabled").unwrap_or(false);
    fields.close();
    enabled
}

fn read_domain_checks(sender: &Fields<'_>) -> Option<Span> {
    if !sender.is_given("domainChecks") {
        return None;
    }
    let fields = sender.map("domainChecks");
    let every = fields.parsed("every").unwrap_or(Span::from_secs(6 * 3_600));
    if !(Span::from_secs(600)..=Span::from_secs(30 * 86_400)).contains(&every) {
        fields.problem("every", format!("10m to 30d is expected, found {every}"));
    }
    fields.close();
    Some(every)
}

impl MtaSts {
    fn read(fields: Fields<'_>) -> Self {
        let port = fields.small_integer("port", 1..=65_535);
        let mta_sts = Self {
            enabled: fields.boolean("enabled").unwrap_or(true),
            port: port
                .and_then(|port| u16::try_from(port).ok())
                .unwrap_or(443),
            allow_private: fields.boolean("allowPrivate").unwrap_or(false),
        };
        fields.close();
        mta_sts
    }
}

impl Transcripts {
    fn read(fields: Fields<'_>) -> Self {
        let transcripts = Self {
            enabled: fields.boolean("enabled").unwrap_or(true),
            one_in: fields
                .small_integer("sampleOneIn", 0..=1_000_000_000)
                .unwrap_or(0),
        };
        if !transcripts.enabled && transcripts.one_in > 0 {
            fields.problem("sampleOneIn", "has no use: enabled is false");
        }
        fields.close();
        transcripts
    }
}

impl Feedback {
    pub(super) fn read(fields: Fields<'_>, folder: &Path, has_tokens: bool) -> Self {
        let export = match fields.is_given("export") {
            true => Export::read(fields.map("export"), folder),
            false => None,
        };
        let feedback = Self {
            metrics: address(&fields, "metrics", 9105),
            links: WebListener::read(&fields, "links", folder),
            export,
        };
        if feedback.links.is_some() && !has_tokens {
            fields.problem("links", "can't be read without tokens, which are missing");
        }
        fields.close();
        feedback
    }
}

impl Export {
    fn read(fields: Fields<'_>, base: &Path) -> Option<Self> {
        let folder = super::file(&fields, "folder", base);
        if folder.is_none() {
            fields.problem("folder", "is missing: where the files are to be");
        }
        let span = |name, usual: Span, least: Span| {
            let span = fields.parsed(name).unwrap_or(usual);
            if span < least {
                fields.problem(name, format!("at least {least} is expected, found {span}"));
            }
            span
        };
        let rotate_every = span("rotateEvery", Span::from_secs(3600), Span::from_secs(1));
        let keep = span("keep", Span::from_secs(30 * 86_400), Span::from_secs(60));
        let size = |name| {
            let size: Option<ByteSize> = fields.parsed(name);
            if size.is_some_and(|size| size < ByteSize::from_mib(1)) {
                fields.problem(name, "at least 1MiB is expected");
            }
            size
        };
        let rotate_size = size("rotateSize").unwrap_or(ByteSize::from_mib(128));
        let keep_size = size("keepSize");
        let compress = fields.one_of("compress", &[("zstd", true), ("none", false)]);
        fields.close();
        Some(Self {
            folder: folder?,
            rotate_size,
            rotate_every,
            keep,
            keep_size,
            is_compressed: compress.unwrap_or(true),
        })
    }
}

impl All {
    pub(super) fn read(fields: Fields<'_>) -> Self {
        let all = Self {
            metrics: address(&fields, "metrics", 9090),
        };
        fields.close();
        all
    }
}

fn address(fields: &Fields<'_>, name: &'static str, default_port: u16) -> SocketAddr {
    socket_address(fields, name)
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, default_port)))
}

/// `IP:port`; the standard library's own error says too little.
pub(super) fn socket_address(fields: &Fields<'_>, name: &'static str) -> Option<SocketAddr> {
    let text = fields.text(name)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        fields.problem(
            name,
            format!("an address IP:port is expected, found {text:?}"),
        );
    }
    parsed
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// An IPv6 address gets the brackets that it needs before a port: `${POD_IP}:7103` can't know the family.
fn with_brackets(text: &str) -> String {
    match text.rsplit_once(':') {
        Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => {
            format!("[{host}]:{port}")
        }
        _ => text.to_owned(),
    }
}
