//! From a lane and a domain to a connection that takes mail.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::{Family, MailHosts, Resolver, is_private_target};
use mail::Domain;
use proto::journal::{Reply, Stage};
use rustls::pki_types::ServerName;
use smtp::EhloCapabilities;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::connection::{Broken, Capabilities, Connection, Open};
use super::io::Io;
use super::targets::{in_order, literal};
use super::tls::{Remembered, client_config};
use super::{own_words, reported};
use crate::lane::{Lane, TlsPolicy};
use crate::metrics::Metrics;

/// Connections tried for one delivery.
const MOST_TRIES: usize = 5;
/// Time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A host with which TLS fails is spoken to without it for so long (opportunistic lanes only).
const BROKEN_TLS_TIME: Duration = Duration::from_secs(3600);
/// An address that does not answer is tried after the others for so long.
const UNREACHABLE_TIME: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The MX hosts of the domain are not those of the lane's site: the other site's name.
    SiteChanged(String),
    /// The lane's source address can't be bound here, and why.
    Unbound(String),
    /// The last that was tried.
    Failed {
        reply: Reply,
        host: String,
        address: Option<IpAddr>,
    },
}

/// Where the mail of a domain goes on a lane.
pub(crate) enum Way {
    /// A smart host or an address literal.
    Fixed(String),
    Mx(Arc<MailHosts>),
}

/// Makes connections.
pub(crate) struct Opener {
    resolver: Resolver,
    tls: TlsConnector,
    broken_tls: Remembered,
    unreachable: Remembered,
    own_name: String,
    metrics: Arc<Metrics>,
}

/// A try that failed, and what was to blame if it was not the host.
struct Failure {
    reply: Reply,
    in_handshake: bool,
    unbound: bool,
}

impl Failure {
    fn of(stage: Stage, reply: &smtp::Reply) -> Self {
        Self {
            reply: reported(stage, reply),
            in_handshake: false,
            unbound: false,
        }
    }

    fn broken(stage: Stage, broken: &Broken) -> Self {
        Self::says(stage, &broken.to_string())
    }

    fn says(stage: Stage, text: &str) -> Self {
        Self {
            reply: own_words(stage, 0, "", text),
            in_handshake: false,
            unbound: false,
        }
    }

    fn handshake(text: &str) -> Self {
        Self {
            in_handshake: true,
            ..Self::says(Stage::Starttls, text)
        }
    }
}

impl Opener {
    pub fn new(
        resolver: Resolver,
        own_name: String,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            resolver,
            tls: TlsConnector::from(Arc::new(client_config()?)),
            broken_tls: Remembered::new(BROKEN_TLS_TIME),
            unreachable: Remembered::new(UNREACHABLE_TIME),
            own_name,
            metrics,
        })
    }

    /// Where the mail of the domain goes, when that is still the lane's site. Cheap when asked before.
    pub async fn way(&self, lane: &Lane, domain: &str) -> Result<Way, OpenFailure> {
        if !lane.smart_host.is_empty() {
            return Ok(Way::Fixed(lane.smart_host.clone()));
        }
        if domain.starts_with('[') {
            return Ok(Way::Fixed(domain.to_owned()));
        }
        let dns_failed =
            |code, enhanced: &str, text: &str| failed(own_words(Stage::Dns, code, enhanced, text));
        let domain =
            Domain::parse(domain).map_err(|error| dns_failed(550, "5.1.2", &error.to_string()))?;
        let hosts = self.resolver.mail_hosts(&domain).await.map_err(|error| {
            let code = match error {
                dns::Error::NullMx => 556,
                dns::Error::NoSuchDomain => 550,
                dns::Error::Temporary(_) => 0,
            };
            dns_failed(code, error.enhanced(), &error.to_string())
        })?;
        let site = hosts.site();
        if site == lane.site {
            Ok(Way::Mx(hosts))
        } else {
            Err(OpenFailure::SiteChanged(site))
        }
    }

    /// What to say in EHLO: the source's name, else our own.
    fn name<'a>(&'a self, lane: &'a Lane) -> &'a str {
        if lane.ehlo.is_empty() {
            &self.own_name
        } else {
            &lane.ehlo
        }
    }

    /// Opens a connection to the first host that takes one.
    pub async fn open(&self, lane: &Lane, way: &Way) -> Result<Connection, OpenFailure> {
        let hosts = match way {
            Way::Fixed(host) => vec![host.as_str()],
            Way::Mx(hosts) => {
                let own_names = [self.own_name.as_str(), lane.ehlo.as_str()];
                in_order(&hosts.hosts, &own_names, || RandomState::new().hash_one(0)).ok_or_else(
                    || {
                        failed(own_words(
                            Stage::Dns,
                            554,
                            "5.4.6",
                            "the MX hosts of the domain lead back to this relay",
                        ))
                    },
                )?
            }
        };
        let mut last = None;
        let mut put_off = Vec::new();
        let mut tries = 0;
        for host in hosts {
            let addresses = match self.addresses(lane, host).await {
                Ok(addresses) => addresses,
                Err(reply) => {
                    last.get_or_insert(OpenFailure::Failed {
                        reply,
                        host: host.to_owned(),
                        address: None,
                    });
                    continue;
                }
            };
            for address in addresses {
                if self
                    .unreachable
                    .contains(address, std::time::Instant::now())
                {
                    put_off.push((host, address));
                } else if tries < MOST_TRIES {
                    tries += 1;
                    match self.try_address(lane, host, address).await {
                        Ok(connection) => return Ok(connection),
                        // It can't be bound for any other host either.
                        Err(failure @ OpenFailure::Unbound(_)) => return Err(failure),
                        Err(failure) => last = Some(failure),
                    }
                }
            }
        }
        for (host, address) in put_off.into_iter().take(MOST_TRIES - tries) {
            match self.try_address(lane, host, address).await {
                Ok(connection) => return Ok(connection),
                Err(failure) => last = Some(failure),
            }
        }
        Err(last
            .unwrap_or_else(|| failed(own_words(Stage::Dns, 0, "4.4.4", "no host to connect to"))))
    }

    async fn addresses(&self, lane: &Lane, host: &str) -> Result<Vec<IpAddr>, Reply> {
        let found = match literal(host) {
            Some(address) => vec![address],
            // A host that an MX record names and that has no address is a mistake that may be mended.
            None => self
                .resolver
                .addresses(host, Family::of_source(lane.source_address))
                .await
                .map_err(|error| {
                    own_words(
                        Stage::Dns,
                        0,
                        "4.4.3",
                        &format!("address of the host: {error}"),
                    )
                })?
                .to_vec(),
        };
        let usable: Vec<IpAddr> = found
            .into_iter()
            .filter(|address| lane.allow_private || !is_private_target(*address))
            .collect();
        if usable.is_empty() {
            return Err(own_words(
                Stage::Dns,
                0,
                "4.4.4",
                "the host has private addresses only, which the route does not allow",
            ));
        }
        Ok(usable)
    }

    async fn try_address(
        &self,
        lane: &Lane,
        host: &str,
        address: IpAddr,
    ) -> Result<Connection, OpenFailure> {
        let now = std::time::Instant::now();
        let opportunistic = lane.tls == TlsPolicy::Opportunistic;
        let with_tls = match lane.tls {
            TlsPolicy::None => false,
            TlsPolicy::Opportunistic => !self.broken_tls.contains(address, now),
            TlsPolicy::Required => true,
        };
        let mut made = self.dial(lane, host, address, with_tls).await;
        if opportunistic && made.as_ref().is_err_and(|failure| failure.in_handshake) {
            self.broken_tls.add(address, now);
            made = self.dial(lane, host, address, false).await;
        }
        let result = match &made {
            Ok(_) => "ok",
            Err(failure) => crate::metrics::stage_name(failure.reply.stage()),
        };
        self.metrics.connects.with_label_values(&[result]).inc();
        made.map_err(|failure| {
            if failure.unbound {
                return OpenFailure::Unbound(failure.reply.text);
            }
            if failure.reply.stage() == Stage::Connect {
                self.unreachable.add(address, now);
            }
            OpenFailure::Failed {
                reply: failure.reply,
                host: host.to_owned(),
                address: Some(address),
            }
        })
    }

    async fn dial(
        &self,
        lane: &Lane,
        host: &str,
        address: IpAddr,
        with_tls: bool,
    ) -> Result<Connection, Failure> {
        let address = SocketAddr::new(address, lane.port);
        let stream = connect(lane, address).await?;
        let mut connection = Connection::new(
            Io::Plain(stream),
            host.into(),
            address,
            Open::new(&self.metrics.connections),
        );
        let banner = connection
            .reply(within(lane))
            .await
            .map_err(|broken| Failure::broken(Stage::Banner, &broken))?;
        if banner.code != 220 {
            return Err(Failure::of(Stage::Banner, &banner));
        }
        greet(&mut connection, lane, self.name(lane)).await?;
        if !with_tls {
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        if !connection.capabilities.starttls {
            if lane.tls == TlsPolicy::Required {
                return Err(Failure::says(
                    Stage::Starttls,
                    "the host does not offer STARTTLS",
                ));
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        self.start_tls(connection, lane).await
    }

    async fn start_tls(
        &self,
        mut connection: Connection,
        lane: &Lane,
    ) -> Result<Connection, Failure> {
        let answer = connection
            .exchange(smtp::write::starttls, within(lane))
            .await
            .map_err(|broken| Failure::handshake(&broken.to_string()))?;
        if answer.code != 220 {
            if lane.tls == TlsPolicy::Required || answer.code == 421 {
                return Err(Failure::of(Stage::Starttls, &answer));
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        let (host, address) = (connection.host.clone(), connection.address);
        let (stream, open) = connection
            .into_tcp()
            .ok_or_else(|| Failure::handshake("the host spoke before TLS began"))?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .unwrap_or_else(|_| address.ip().into());
        let stream = timeout(HANDSHAKE_TIMEOUT, self.tls.connect(name, stream))
            .await
            .map_err(|_| Failure::handshake("no TLS handshake in time"))?
            .map_err(|error| Failure::handshake(&format!("TLS handshake: {error}")))?;
        let version = match stream.get_ref().1.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            _ => "other",
        };
        let mut connection = Connection::new(Io::Tls(Box::new(stream)), host, address, open);
        // Nothing learned before TLS counts (RFC 3207 section 4.2). A host that breaks right after the
        // handshake is as broken as one that fails in it.
        greet(&mut connection, lane, self.name(lane))
            .await
            .map_err(|failure| Failure {
                in_handshake: failure.reply.code == 0,
                ..failure
            })?;
        self.metrics.tls.with_label_values(&[version]).inc();
        Ok(connection)
    }
}

async fn connect(lane: &Lane, address: SocketAddr) -> Result<TcpStream, Failure> {
    let failed = |what: &str, error: std::io::Error| {
        Failure::says(Stage::Connect, &format!("{what}: {}", error.kind()))
    };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    };
    let socket = socket.map_err(|error| failed("no socket", error))?;
    if let Some(source) = lane.source_address {
        // Never from another address: its reputation is not the one that the scheduler chose.
        socket
            .bind(SocketAddr::new(source, 0))
            .map_err(|error| Failure {
                unbound: true,
                ..failed("the source address can't be used", error)
            })?;
    }
    let stream = timeout(lane.connect_timeout, socket.connect(address))
        .await
        .map_err(|_| Failure::says(Stage::Connect, "no connection in time"))?
        .map_err(|error| failed("no connection", error))?;
    stream
        .set_nodelay(true)
        .map_err(|error| failed("no connection", error))?;
    Ok(stream)
}

/// EHLO, and HELO for a host that knows none (RFC 5321 section 4.1.4).
async fn greet(connection: &mut Connection, lane: &Lane, name: &str) -> Result<(), Failure> {
    let broken = |broken: Broken| Failure::broken(Stage::Ehlo, &broken);
    let answer = connection
        .exchange(|out| smtp::write::ehlo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        connection.capabilities = Capabilities::from(&EhloCapabilities::from_reply(&answer));
        return Ok(());
    }
    if !answer.is_permanent() {
        return Err(Failure::of(Stage::Ehlo, &answer));
    }
    let answer = connection
        .exchange(|out| smtp::write::helo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        Ok(())
    } else {
        Err(Failure::of(Stage::Ehlo, &answer))
    }
}

fn within(lane: &Lane) -> Instant {
    Instant::now() + lane.timeouts.command
}

fn failed(reply: Reply) -> OpenFailure {
    OpenFailure::Failed {
        reply,
        host: String::new(),
        address: None,
    }
}
