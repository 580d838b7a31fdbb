//! The listeners of `ingress`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use config::Fields;
use ipnet::IpNet;
use mail::{ByteSize, Domain, Span};

use super::services::socket_address;

/// One SMTP listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Unique; a label of metrics.
    pub name: String,
    /// Whom it is for.
    pub kind: ListenerKind,
    /// Where it listens.
    pub address: SocketAddr,
    /// When TLS begins.
    pub tls: ListenerTls,
    /// PEM file: who signs the certificates that clients may show.
    pub client_authorities: Option<PathBuf>,
    /// AUTH is offered without TLS to clients of these networks (loopback only).
    pub allow_plaintext_auth_from: Vec<IpNet>,
    /// AUTH SCRAM-SHA-256 is offered beside PLAIN and LOGIN.
    pub scram: bool,
    /// SIZE (RFC 1870).
    pub max_message_size: ByteSize,
    /// Recipients of one transaction, at least 100 (RFC 5321 section 4.5.3.1.8).
    pub max_recipients: u32,
    /// From one command to the next.
    pub command_timeout: Span,
    /// For the whole of the message text.
    pub data_timeout: Span,
    /// Connections open at once.
    pub max_connections: u32,
    /// The same of one client: an IPv4 address, an IPv6 /64.
    pub max_connections_per_client: Option<u32>,
    /// Every connection begins with a PROXY header, which names the client.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Clients of these networks are proxies that say with XCLIENT whose connection they hand on.
    pub xclient_trusted: Vec<IpNet>,
    /// For recipients of this domain the simulator answers.
    pub simulator_domain: Domain,
}

/// The simulator's domain when nothing is said: no mail to it can ever leave (RFC 6761 section 6.4).
const SIMULATOR: &str = "simulator.staffetta.invalid";

/// Connections come from load balancers that say whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Networks of the load balancers, at least one; nobody else is listened to.
    pub trusted: Vec<IpNet>,
    /// Within this time the header must be there.
    pub header_timeout: Span,
}

/// Whom a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerKind {
    /// Our clients: credentials are needed.
    Submission,
    /// Whoever has something to say about what was sent: reports, complaints. Nothing is relayed.
    Inbound,
}

/// When TLS begins, and what with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerTls {
    /// With the command STARTTLS (RFC 3207).
    StartTls(Vec<CertificateFiles>),
    /// At once (RFC 8314).
    Implicit(Vec<CertificateFiles>),
    /// Never.
    None,
}

impl ListenerTls {
    /// The certificates, that for clients who ask for no known name first; none without TLS.
    pub fn files(&self) -> &[CertificateFiles] {
        match self {
            Self::StartTls(files) | Self::Implicit(files) => files,
            Self::None => &[],
        }
    }
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

const KINDS: [(&str, ListenerKind); 2] = [
    ("submission", ListenerKind::Submission),
    ("inbound", ListenerKind::Inbound),
];

/// Where an inbound listener listens when nothing is said; a load balancer or a rule of the firewall has port 25.
const INBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 2526);

/// Fields of listeners for clients.
const NOT_INBOUND: [&str; 5] = [
    "allowPlaintextAuthFrom",
    "clientAuthorities",
    "scram",
    "simulatorDomain",
    "xclient",
];

#[derive(Clone, Copy)]
enum TlsWord {
    StartTls,
    Implicit,
    None,
}

impl Listener {
    pub(super) fn read_all(ingress: &Fields<'_>, folder: &Path) -> Vec<Self> {
        let mut listeners: Vec<Self> = Vec::new();
        for fields in ingress.maps("listeners") {
            let listener = Self::read(&fields, folder);
            if let Some(listener) = listener {
                if listeners.iter().any(|other| other.name == listener.name) {
                    fields.problem("name", format!("{:?} is used twice", listener.name));
                }
                let same_address = listeners.iter().find(|other| {
                    other.address == listener.address && listener.address.port() != 0
                });
                if let Some(other) = same_address {
                    fields.problem(
                        "address",
                        format!("the listener {:?} has the same", other.name),
                    );
                }
                listeners.push(listener);
            }
            fields.close();
        }
        listeners
    }

    fn read(fields: &Fields<'_>, folder: &Path) -> Option<Self> {
        let name = fields.required_text("name");
        let kind = fields
            .one_of("kind", &KINDS)
            .unwrap_or(ListenerKind::Submission);
        let is_inbound = kind == ListenerKind::Inbound;
        let address = match kind {
            ListenerKind::Inbound if !fields.is_given("address") => Some(INBOUND),
            _ => fields
                .required_text("address")
                .and_then(|_| socket_address(fields, "address")),
        };
        if is_inbound {
            for name in NOT_INBOUND {
                if fields.is_given(name) {
                    fields.problem(name, "has no use: nobody logs in, and nothing is relayed");
                }
            }
        }
        let tls = Self::read_tls(fields, folder);
        let client_authorities = fields
            .text("clientAuthorities")
            .filter(|path| !path.is_empty())
            .map(|path| folder.join(path));
        if client_authorities.is_some() && matches!(tls, Some(ListenerTls::None)) {
            fields.problem("clientAuthorities", "have no use: tls is none");
        }
        let allow_plaintext_auth_from: Vec<IpNet> =
            fields.read_list("allowPlaintextAuthFrom", |text| {
                let network: IpNet = text
                    .parse()
                    .map_err(|_| "a network such as 127.0.0.0/8 is expected".to_owned())?;
                if network.network().is_loopback() && network.broadcast().is_loopback() {
                    Ok(network)
                } else {
                    Err("only loopback networks are accepted".to_owned())
                }
            });
        let max_message_size = fields
            .parsed("maxMessageSize")
            .unwrap_or(ByteSize::from_mib(if is_inbound { 4 } else { 25 }));
        // Each of them is an event, or a message to people.
        let most_recipients = if is_inbound { 100 } else { 10_000 };
        // Strangers get less time to hold memory.
        let data_timeout = Span::from_secs(if is_inbound { 60 } else { 600 });
        // What comes back is one record each.
        let largest = ByteSize::from_mib(if is_inbound { 4 } else { 512 });
        if !(ByteSize::from_bytes(65_536)..=largest).contains(&max_message_size) {
            let what = format!("64KiB to {largest} is expected, found {max_message_size}");
            fields.problem("maxMessageSize", what);
        }
        let proxy_protocol = Self::read_proxy_protocol(fields);
        if proxy_protocol.is_some() && !allow_plaintext_auth_from.is_empty() {
            let what = "is not possible with proxyProtocol: who is on this machine is not known";
            fields.problem("allowPlaintextAuthFrom", what);
        }
        let xclient_trusted = Self::read_xclient(fields);
        if proxy_protocol.is_some() && !xclient_trusted.is_empty() {
            fields.problem("xclient", "is not possible with proxyProtocol");
        }
        Some(Self {
            proxy_protocol,
            xclient_trusted,
            simulator_domain: fields
                .domain("simulatorDomain")
                .unwrap_or_else(|| Domain::parse(SIMULATOR).expect("it is a domain name")),
            scram: fields.boolean("scram").unwrap_or(false),
            max_message_size,
            max_recipients: fields
                .small_integer("maxRecipients", 100..=most_recipients)
                .unwrap_or(100),
            command_timeout: positive(fields, "commandTimeout", Span::from_secs(300)),
            data_timeout: positive(fields, "dataTimeout", data_timeout),
            max_connections: fields
                .small_integer("maxConnections", 1..=1_000_000)
                .unwrap_or(if is_inbound { 1_000 } else { 10_000 }),
            max_connections_per_client: fields
                .small_integer("maxConnectionsPerClient", 1..=1_000_000)
                .or(is_inbound.then_some(20)),
            name: name?.to_owned(),
            kind,
            address: address?,
            tls: tls?,
            client_authorities,
            allow_plaintext_auth_from,
        })
    }

    fn read_proxy_protocol(fields: &Fields<'_>) -> Option<ProxyProtocol> {
        if !fields.is_given("proxyProtocol") {
            return None;
        }
        let proxy = fields.map("proxyProtocol");
        let trusted = proxy.read_list("trusted", |text| {
            text.parse::<IpNet>()
                .map_err(|_| "a network such as 10.0.0.0/8 is expected".to_owned())
        });
        if trusted.is_empty() {
            proxy.problem("trusted", "is missing: the networks of the load balancers");
        }
        let header_timeout = positive(&proxy, "headerTimeout", Span::from_secs(5));
        proxy.close();
        Some(ProxyProtocol {
            trusted,
            header_timeout,
        })
    }

    fn read_xclient(fields: &Fields<'_>) -> Vec<IpNet> {
        if !fields.is_given("xclient") {
            return Vec::new();
        }
        let xclient = fields.map("xclient");
        let trusted = xclient.read_list("trusted", |text| {
            text.parse::<IpNet>()
                .map_err(|_| "a network such as 10.0.0.0/8 is expected".to_owned())
        });
        if trusted.is_empty() {
            xclient.problem("trusted", "is missing: the networks of the proxies");
        }
        xclient.close();
        trusted
    }

    fn read_tls(fields: &Fields<'_>, folder: &Path) -> Option<ListenerTls> {
        let words = [
            ("starttls", TlsWord::StartTls),
            ("implicit", TlsWord::Implicit),
            ("none", TlsWord::None),
        ];
        let word = match fields.required_text("tls") {
            Some(_) => fields.one_of("tls", &words),
            None => None,
        };
        let others: Vec<Option<CertificateFiles>> = fields
            .maps("certificates")
            .into_iter()
            .map(|entry| {
                let files = read_files(&entry, folder, "each certificate has both");
                entry.close();
                files
            })
            .collect();
        if matches!(word, Some(TlsWord::None)) && !others.is_empty() {
            fields.problem("certificates", "have no use: tls is none");
        }
        let files = |word: &str| -> Option<Vec<CertificateFiles>> {
            let first = read_files(fields, folder, &format!("tls is {word}"));
            std::iter::once(first).chain(others).collect()
        };
        match word? {
            TlsWord::StartTls => files("starttls").map(ListenerTls::StartTls),
            TlsWord::Implicit => files("implicit").map(ListenerTls::Implicit),
            TlsWord::None => Some(ListenerTls::None),
        }
    }
}

pub(super) fn read_files(
    fields: &Fields<'_>,
    folder: &Path,
    why: &str,
) -> Option<CertificateFiles> {
    match (fields.text("certificate"), fields.text("key")) {
        (Some(certificate), Some(key)) => Some(CertificateFiles {
            certificate: folder.join(certificate),
            key: folder.join(key),
        }),
        (certificate, _) => {
            let missing = if certificate.is_none() {
                "certificate"
            } else {
                "key"
            };
            fields.problem(missing, format!("is missing: {why}"));
            None
        }
    }
}

fn positive(fields: &Fields<'_>, name: &'static str, default: Span) -> Span {
    let span = fields.parsed(name).unwrap_or(default);
    if span.as_millis() == 0 {
        fields.problem(name, "must not be 0");
    }
    span
}
