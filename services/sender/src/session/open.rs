//! From a lane and a domain to a connection that takes mail.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dns::{Family, MailHosts, Resolver, is_private_target};
use mail::Domain;
use proto::journal::{Reply, Stage};
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use smtp::EhloCapabilities;
use sts::Known;
use tokio::time::{Instant, timeout};

use super::connect::{connect, stage_before_banner};
use super::connection::{Broken, Capabilities, Connection, Open};
use super::dane::{Dane, Verifier};
use super::demand::{Demand, Encryption, HostDemand, Lack, Level, Seen, Wish};
use super::fault::Fault;
use super::identity::showing;
use super::io::Io;
use super::targets::{in_order, literal};
use super::tls::{Connector, Connectors, Remembered};
use super::tried::{Tried, encryption_needed};
use super::{own_words, reported};
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::transcript;

/// A lookup that takes longer has waited for an answer that did not come.
const SLOW_LOOKUP: Duration = Duration::from_secs(5);
/// Connections tried for one delivery, and lookups waited for.
const MOST_TRIES: usize = 5;
/// The same for mail that requires TLS: before it goes back every host is asked (RFC 8689 section 4.2.1), and there are 20 at
/// most. Where their addresses are more, it is deferred rather than sent back.
const MOST_TRIES_TO_KEEP_A_PROMISE: usize = 20;
/// Time for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A host with which TLS fails is spoken to without it for so long (opportunistic lanes only).
const BROKEN_TLS_TIME: Duration = Duration::from_secs(3600);
/// Whether a certificate was valid is remembered for so long, to ask for no more than there is.
const CERTIFICATE_TIME: Duration = Duration::from_secs(3600);
/// An address that does not answer is tried after the others for so long.
const UNREACHABLE_TIME: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The MX hosts of the domain are not those of the lane's site: the other site's name.
    SiteChanged(String),
    /// The lane's source can't be used here, and why: its address can't be bound, its proxy or its own smart host fails.
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

/// What is known of domains, and our own name among them.
pub(crate) struct Names {
    pub resolver: Resolver,
    pub policies: Policies,
    /// Mail is not sent to hosts of that name.
    pub own_name: String,
}

/// Makes connections.
pub(crate) struct Opener {
    pub(super) names: Names,
    tls: Connectors,
    broken_tls: Remembered,
    valid: Remembered,
    invalid: Remembered,
    unreachable: Remembered,
    pub(super) metrics: Arc<Metrics>,
}

/// A try that failed, and what was to blame if it was not the host.
pub(super) struct Failure {
    pub(super) reply: Reply,
    in_handshake: bool,
    /// The source is to blame.
    unbound: bool,
    /// It is this relay that was connected to.
    loops: bool,
    lack: Option<Lack>,
    /// What is wrong with its TLS.
    fault: Option<Fault>,
}

/// How a connection is made.
#[derive(Clone, Copy)]
struct Dial<'a> {
    lane: &'a Lane,
    host: &'a str,
    address: IpAddr,
    encryption: Encryption,
    demand: &'a HostDemand<'a>,
    /// Without TLS there is to be no connection.
    must: bool,
}

impl Failure {
    pub fn of(stage: Stage, reply: &smtp::Reply) -> Self {
        Self {
            reply: reported(stage, reply),
            in_handshake: false,
            unbound: false,
            loops: false,
            lack: None,
            fault: None,
        }
    }

    pub fn broken(stage: Stage, broken: &Broken) -> Self {
        Self::says(stage, &broken.to_string())
    }

    pub fn says(stage: Stage, text: &str) -> Self {
        Self {
            reply: own_words(stage, 0, "", text),
            in_handshake: false,
            unbound: false,
            loops: false,
            lack: None,
            fault: None,
        }
    }

    /// The source is to blame: nothing is said of the host.
    pub fn of_source(stage: Stage, text: &str) -> Self {
        Self::says(stage, text).by_source()
    }

    pub fn by_source(self) -> Self {
        Self {
            unbound: true,
            ..self
        }
    }

    fn loops() -> Self {
        Self {
            reply: leads_back(),
            loops: true,
            ..Self::says(Stage::Ehlo, "")
        }
    }

    fn handshake(text: &str) -> Self {
        Self {
            in_handshake: true,
            fault: Some(Fault::Other),
            ..Self::says(Stage::Starttls, text)
        }
    }

    /// The enhanced codes are those that Postfix has for the same.
    fn lacks(lack: Lack, text: &str) -> Self {
        let enhanced = match lack {
            Lack::Tls => "4.7.4",
            Lack::Host | Lack::Certificate => "4.7.5",
            Lack::RequireTls => "4.7.30",
        };
        Self {
            reply: own_words(Stage::Starttls, 0, enhanced, text),
            in_handshake: false,
            unbound: false,
            loops: false,
            lack: Some(lack),
            fault: (lack == Lack::Tls).then_some(Fault::NoStarttls),
        }
    }

    /// TLS failed: by what the host shows and speaks, which it will do again, or by what became of the connection.
    fn of_tls(error: &std::io::Error) -> Self {
        let inner = error.get_ref();
        let cause = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let lack = cause.map(|cause| match cause {
            rustls::Error::InvalidCertificate(_) => Lack::Certificate,
            _ => Lack::Tls,
        });
        let text = format!("TLS handshake: {error}");
        Self {
            in_handshake: true,
            fault: Some(cause.map_or(Fault::Other, Fault::from)),
            ..lack.map_or_else(|| Self::handshake(&text), |lack| Self::lacks(lack, &text))
        }
    }
}

impl Opener {
    /// `authorities` are trusted to have signed the certificates of hosts.
    pub fn new(
        names: Names,
        authorities: Option<RootCertStore>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            names,
            tls: Connectors::new(authorities)?,
            broken_tls: Remembered::new(BROKEN_TLS_TIME),
            valid: Remembered::new(CERTIFICATE_TIME),
            invalid: Remembered::new(CERTIFICATE_TIME),
            unreachable: Remembered::new(UNREACHABLE_TIME),
            metrics,
        })
    }

    /// Where the mail of the domain goes, when that is still the lane's site, and what is asked of the connection. Cheap
    /// when asked before.
    pub async fn way(
        &self,
        lane: &Lane,
        domain: &str,
        wish: Wish,
    ) -> Result<(Way, Demand), OpenFailure> {
        // A host that is named by the configuration, or by the address itself, needs nobody's word.
        if !lane.smart_host.is_empty() {
            let way = Way::Fixed(lane.smart_host.clone());
            return Ok((way, Demand::new(wish, None)));
        }
        if domain.starts_with('[') {
            let way = Way::Fixed(domain.to_owned());
            return Ok((way, Demand::new(wish, None)));
        }
        let dns_failed =
            |code, enhanced: &str, text: &str| failed(own_words(Stage::Dns, code, enhanced, text));
        let domain =
            Domain::parse(domain).map_err(|error| dns_failed(550, "5.1.2", &error.to_string()))?;
        let hosts = self.names.resolver.mail_hosts(&domain).await;
        let hosts = hosts.map_err(|error| {
            let code = match error {
                dns::Error::NullMx => 556,
                dns::Error::NoSuchDomain => 550,
                dns::Error::Temporary(_) => 0,
            };
            dns_failed(code, error.enhanced(), &error.to_string())
        })?;
        let site = hosts.site();
        if site != lane.site {
            return Err(OpenFailure::SiteChanged(site));
        }
        let demand = self.demand(&domain, wish, hosts.secure);
        let demand = demand.await.map_err(failed)?;
        Ok((Way::Mx(hosts), demand))
    }

    /// What the domain and the message ask for. REQUIRETLS needs hosts that are known to be the domain's (RFC 8689 section
    /// 4.2.1), and only DNSSEC and a policy that is enforced say which they are.
    async fn demand(&self, domain: &Domain, wish: Wish, secure: bool) -> Result<Demand, Reply> {
        if wish == Wish::Optional {
            return Ok(Demand::new(wish, None));
        }
        let known = self.names.policies.of(domain).await;
        let demand = match &known {
            Known::Policy(policy) => Demand::new(wish, Some(policy.clone())),
            _ => Demand::new(wish, None),
        };
        if secure {
            return Ok(demand.signed(domain.as_str()));
        }
        if wish != Wish::Required || demand.enforced().is_some() {
            return Ok(demand);
        }
        Err(match known {
            Known::Unavailable => own_words(
                Stage::Dns,
                0,
                "4.7.5",
                "whether the domain has an MTA-STS policy can't be found out, and REQUIRETLS needs one",
            ),
            _ => encryption_needed(
                Stage::Dns,
                "REQUIRETLS needs hosts that can be trusted, and the domain names none with DNSSEC, or with MTA-STS in mode enforce",
            ),
        })
    }

    /// What to say in EHLO: the source's name, else our own.
    fn name<'a>(&'a self, lane: &'a Lane) -> &'a str {
        if lane.ehlo.is_empty() {
            &self.names.own_name
        } else {
            &lane.ehlo
        }
    }

    /// Opens a connection to the first host that takes one. Where the host is the source's own, what fails before mail is
    /// the source's failure; but not what a message asks of TLS, nor a host that asks for patience.
    pub async fn open(
        &self,
        lane: &Lane,
        way: &Way,
        demand: &Demand,
    ) -> Result<Connection, OpenFailure> {
        let opened = self.open_any(lane, way, demand).await;
        let asks_patience = |reply: &Reply| (400..500).contains(&reply.code);
        match opened {
            Err(OpenFailure::Failed { reply, host, .. })
                if lane.reach.own_host.is_some()
                    && !demand.requires_tls()
                    && !asks_patience(&reply) =>
            {
                let host = if host.is_empty() {
                    &lane.smart_host
                } else {
                    &host
                };
                Err(OpenFailure::Unbound(told(host, &reply)))
            }
            opened => opened,
        }
    }

    async fn open_any(
        &self,
        lane: &Lane,
        way: &Way,
        demand: &Demand,
    ) -> Result<Connection, OpenFailure> {
        let hosts = match way {
            Way::Fixed(host) => vec![host.as_str()],
            Way::Mx(hosts) => {
                let own_names = [self.names.own_name.as_str(), lane.ehlo.as_str()];
                in_order(&hosts.hosts, &own_names, || RandomState::new().hash_one(0))
                    .ok_or_else(|| failed(leads_back()))?
            }
        };
        let mut tried = Tried::default();
        let mut put_off = Vec::new();
        let mut us = None;
        let mut tries = 0;
        let most = if demand.requires_tls() {
            MOST_TRIES_TO_KEEP_A_PROMISE
        } else {
            MOST_TRIES
        };
        let mut slow = 0;
        'hosts: for host in hosts {
            // A lookup to which no answer comes takes its time, as a host does that does not answer.
            if slow >= most {
                tried.is_cut_short();
                continue;
            }
            let asking = Instant::now();
            let asked = match self.asked(lane, host, demand).await {
                Ok(asked) => asked,
                Err(reply) => {
                    slow += usize::from(asking.elapsed() > SLOW_LOOKUP);
                    tried.has_no_address(host, reply);
                    continue;
                }
            };
            if asked.forbids(host) {
                self.judged(&asked, Some(Lack::Host));
                self.metrics.tls_result("sts", Fault::Other.name());
                let text = "the domain does not name this host in what it enforces with MTA-STS";
                tried.is_forbidden(host, own_words(Stage::Dns, 0, "4.7.5", text));
                continue;
            }
            let addresses = match self.addresses(lane, host).await {
                Ok(addresses) => addresses,
                Err(reply) => {
                    slow += usize::from(asking.elapsed() > SLOW_LOOKUP);
                    tried.has_no_address(host, reply);
                    continue;
                }
            };
            for address in addresses {
                if self
                    .unreachable
                    .contains(address, std::time::Instant::now())
                {
                    put_off.push((host, address, asked.clone()));
                } else if tries < most {
                    tries += 1;
                    match self.try_address(lane, host, address, &asked).await {
                        Ok(connection) => return Ok(connection),
                        Err(failure) if failure.unbound => return Err(unbound(host, failure)),
                        Err(failure) if failure.loops => {
                            // Those that come behind us are not asked.
                            us = Some((host, address, failure.reply));
                            break 'hosts;
                        }
                        Err(Failure {
                            reply,
                            lack: Some(lack),
                            ..
                        }) => {
                            tried.lacks(host, address, reply, lack);
                            if lack == Lack::RequireTls {
                                // It is one host, whichever of its addresses is asked.
                                continue 'hosts;
                            }
                        }
                        Err(failure) => tried.failed(host, address, failure.reply),
                    }
                } else {
                    tried.is_cut_short();
                }
            }
        }
        if put_off.len() > most - tries {
            tried.is_cut_short();
        }
        for (host, address, asked) in put_off.into_iter().take(most - tries) {
            match self.try_address(lane, host, address, &asked).await {
                Ok(connection) => return Ok(connection),
                Err(failure) if failure.unbound => return Err(unbound(host, failure)),
                Err(failure) if failure.loops => {
                    us = Some((host, address, failure.reply));
                    break;
                }
                Err(failure) => match failure.lack {
                    Some(lack) => tried.lacks(host, address, failure.reply, lack),
                    None => tried.failed(host, address, failure.reply),
                },
            }
        }
        Err(match us {
            // Of those before us, one may take it later.
            Some((host, address, reply)) => tried.end_before(host, address, reply),
            None => tried.end(demand),
        })
    }

    /// No host got the mail: when that may be for a policy, it is looked at again soon.
    pub fn doubt(&self, demand: &Demand, domain: &str) {
        if demand.enforced().is_some() {
            self.names.policies.doubt(domain);
        }
    }

    /// Counts what mail that asks for more found at a host.
    fn judged(&self, demand: &HostDemand<'_>, lack: Option<Lack>) {
        if let Some(policy) = demand.name() {
            self.metrics
                .tls_policy(policy, lack.map_or("ok", Lack::name));
        }
    }

    async fn addresses(&self, lane: &Lane, host: &str) -> Result<Vec<IpAddr>, Reply> {
        let found = match literal(host) {
            Some(address) => vec![address],
            // A host that an MX record names and that has no address is a mistake that may be mended.
            None => self
                .names
                .resolver
                .addresses(host, lane.reach.family)
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
        // An address in the place of a name may be of any family.
        let is_of_family = |address: &IpAddr| match lane.reach.family {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
            Family::Any => true,
        };
        let reached: Vec<IpAddr> = found.into_iter().filter(is_of_family).collect();
        if reached.is_empty() {
            let text = "the host has no address that the source can reach";
            return Err(own_words(Stage::Dns, 0, "4.4.4", text));
        }
        let usable: Vec<IpAddr> = reached
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

    /// Connects, with what the lane and the mail ask for.
    async fn try_address(
        &self,
        lane: &Lane,
        host: &str,
        address: IpAddr,
        demand: &HostDemand<'_>,
    ) -> Result<Connection, Failure> {
        let now = std::time::Instant::now();
        let seen = Seen {
            broken: self.broken_tls.contains(address, now),
            valid: self.valid.contains(address, now),
            invalid: self.invalid.contains(address, now),
        };
        let must = demand.level(lane.tls) >= Level::Encrypted;
        let mut made = Err(Failure::handshake("TLS was not tried"));
        let mut fault = demand.fault();
        for encryption in demand.steps(lane.tls, seen) {
            let dial = Dial {
                lane,
                host,
                address,
                encryption: *encryption,
                demand,
                must,
            };
            made = match self.dial(dial).await {
                Ok(connection) => self.log_in(connection, lane).await,
                Err(failure) => Err(failure),
            };
            if let Err(failure) = &made
                && failure.reply.code == 0
            {
                transcript::note(format_args!("{}", failure.reply.text));
            }
            self.remember(dial, &made, now);
            fault = fault.or(match &made {
                Ok(connection) => demand.fault_of(*encryption, connection.peer()),
                Err(failure) => failure.fault,
            });
            if !made.as_ref().is_err_and(|failure| failure.in_handshake) {
                break;
            }
        }
        let is_tls = made.as_ref().is_ok_and(Connection::is_tls);
        if let Some(result) = fault.map(Fault::name).or(is_tls.then_some("success")) {
            self.metrics.tls_result(demand.policy_type(), result);
        }
        let result = match &made {
            Ok(_) => "ok",
            Err(failure) => crate::metrics::stage_name(failure.reply.stage()),
        };
        self.metrics.connects.with_label_values(&[result]).inc();
        // What a proxy can't reach others may.
        if lane.reach.proxy.is_none()
            && made
                .as_ref()
                .is_err_and(|failure| failure.reply.stage() == Stage::Connect && !failure.unbound)
        {
            self.unreachable.add(address, now);
        }
        self.with_all_that_is_asked(lane, made, demand).await
    }

    /// What TLS came to at an address.
    fn remember(
        &self,
        dial: Dial<'_>,
        made: &Result<Connection, Failure>,
        now: std::time::Instant,
    ) {
        let failed = made.as_ref().is_err_and(|failure| failure.in_handshake);
        let is_verified = made.as_ref().is_ok_and(|connection| connection.verified);
        let lacks_certificate = made
            .as_ref()
            .is_err_and(|failure| failure.lack == Some(Lack::Certificate));
        match dial.encryption {
            // A certificate or a proxy of the source may be what breaks it: the host stays as it was for other sources.
            _ if failed && dial.lane.reach.is_in_between() => {}
            Encryption::AnyCertificate if failed && !dial.must => {
                self.broken_tls.add(dial.address, now);
            }
            Encryption::ValidCertificate if is_verified => self.valid.add(dial.address, now),
            Encryption::ValidCertificate if lacks_certificate => {
                self.invalid.add(dial.address, now);
            }
            _ => {}
        }
    }

    /// The connection, when the mail may go over it (RFC 8689 section 4.2.1).
    async fn with_all_that_is_asked(
        &self,
        lane: &Lane,
        made: Result<Connection, Failure>,
        demand: &HostDemand<'_>,
    ) -> Result<Connection, Failure> {
        let lack = match &made {
            Ok(connection) => demand.lack(connection.peer()),
            Err(failure) => match failure.lack {
                Some(lack) => Some(lack),
                // It says nothing of what the host has.
                None => return made,
            },
        };
        self.judged(demand, lack);
        match (made, lack) {
            (Ok(connection), Some(lack)) if !demand.is_met(lane.tls, connection.peer()) => {
                connection.quit().await;
                let text = match lack {
                    Lack::RequireTls => "the host does not offer REQUIRETLS",
                    _ => "the host has not proved who it is",
                };
                Err(Failure::lacks(lack, text))
            }
            (made, _) => made,
        }
    }

    async fn dial(&self, dial: Dial<'_>) -> Result<Connection, Failure> {
        let Dial { lane, host, .. } = dial;
        let address = SocketAddr::new(dial.address, lane.port);
        transcript::note(format_args!("connecting to {host} {address}"));
        let stream = connect(lane, address).await?;
        let mut connection = Connection::new(
            Io::Plain(stream),
            host.into(),
            address,
            Open::new(&self.metrics.connections),
        );
        let by_tls = lane.reach.implicit_tls();
        let mut version = "none";
        if by_tls {
            (connection, version) = self.handshake(connection, dial).await?;
        }
        let banner = connection.reply(within(lane)).await.map_err(|broken| {
            Failure::broken(stage_before_banner(&lane.reach, &broken), &broken)
        })?;
        if banner.code != 220 {
            return Err(Failure::of(Stage::Banner, &banner));
        }
        // Where TLS is a must, whoever is on the way has no say before it in whether the mail goes back.
        let is_heard = by_tls || !dial.must;
        self.greet(&mut connection, lane, is_heard).await?;
        if by_tls || dial.encryption == Encryption::None {
            self.metrics.tls.with_label_values(&[version]).inc();
            return Ok(connection);
        }
        if !connection.capabilities.starttls {
            if dial.must {
                connection.quit().await;
                let text = "the host does not offer STARTTLS";
                return Err(Failure::lacks(Lack::Tls, text));
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        self.start_tls(connection, dial).await
    }

    /// Says hello. With `is_heard`, a host that has our own name is us.
    async fn greet(
        &self,
        connection: &mut Connection,
        lane: &Lane,
        is_heard: bool,
    ) -> Result<(), Failure> {
        let name = self.name(lane);
        let answer = hello(connection, lane, name).await?;
        let own_names = [name, &self.names.own_name];
        let is_us = |answer: &smtp::Reply| own_names.iter().any(|own| greets_as(answer, own));
        if is_heard && lane.smart_host.is_empty() && answer.as_ref().is_some_and(is_us) {
            return Err(Failure::loops());
        }
        Ok(())
    }

    /// What asks the host for what its TLSA records name, if that is asked of it.
    fn named(&self, dial: Dial<'_>) -> Result<Option<(Connector, Arc<Verifier>)>, Failure> {
        let (Encryption::NamedCertificate, Dane::Usable(tlsa)) =
            (dial.encryption, dial.demand.dane())
        else {
            return Ok(None);
        };
        let host = server_name(dial.host, dial.address);
        let named = self
            .tls
            .named(tlsa.clone(), dial.demand.signed_domain(), host);
        named
            .map(Some)
            .map_err(|error| Failure::handshake(&format!("TLS: {error}")))
    }

    async fn start_tls(
        &self,
        mut connection: Connection,
        dial: Dial<'_>,
    ) -> Result<Connection, Failure> {
        let lane = dial.lane;
        let answer = connection
            .exchange(smtp::write::starttls, within(lane))
            .await
            .map_err(|broken| Failure::handshake(&broken.to_string()))?;
        if answer.code != 220 {
            if dial.must || answer.code == 421 {
                return Err(Failure {
                    lack: answer.is_permanent().then_some(Lack::Tls),
                    fault: (answer.code != 421).then_some(Fault::NoStarttls),
                    ..Failure::of(Stage::Starttls, &answer)
                });
            }
            self.metrics.tls.with_label_values(&["none"]).inc();
            return Ok(connection);
        }
        let (mut connection, version) = self.handshake(connection, dial).await?;
        // Nothing learned before TLS counts (RFC 3207 section 4.2). A host that breaks right after the
        // handshake is as broken as one that fails in it.
        self.greet(&mut connection, lane, true)
            .await
            .map_err(|failure| Failure {
                in_handshake: failure.reply.code == 0,
                fault: (failure.reply.code == 0).then_some(Fault::Other),
                ..failure
            })?;
        self.metrics.tls.with_label_values(&[version]).inc();
        Ok(connection)
    }

    /// The connection under TLS, and the version of it.
    async fn handshake(
        &self,
        connection: Connection,
        dial: Dial<'_>,
    ) -> Result<(Connection, &'static str), Failure> {
        let named = self.named(dial)?;
        let connector = match (&named, dial.encryption) {
            (Some((connector, _)), _) => Some(connector),
            (None, Encryption::ValidCertificate) => self.tls.verifying.as_ref(),
            (None, _) => Some(&self.tls.any),
        };
        let connector = connector.ok_or_else(|| Failure {
            in_handshake: true,
            fault: Some(Fault::NotTrusted),
            ..Failure::lacks(
                Lack::Certificate,
                "no authority is trusted that could have signed its certificate",
            )
        })?;
        let showing = match &dial.lane.reach.certificate {
            Some(files) => Some(showing(connector.config(), files).await?),
            None => None,
        };
        let connector = showing.as_ref().unwrap_or(connector.begins());
        let (host, address) = (connection.host.clone(), connection.address);
        let (stream, open) = connection
            .into_tcp()
            .ok_or_else(|| Failure::handshake("the host spoke before TLS began"))?;
        let name = match dial.demand.dane() {
            // RFC 7672 section 3.2.1 and 8.1: it may have a certificate for each of its names.
            Dane::Usable(tlsa) => server_name(&tlsa.base, address.ip()),
            _ => server_name(&host, address.ip()),
        };
        let stream = timeout(HANDSHAKE_TIMEOUT, connector.connect(name, stream))
            .await
            .map_err(|_| Failure::handshake("no TLS handshake in time"))?
            .map_err(|error| Failure::of_tls(&error))?;
        let mut connection = Connection::new(Io::Tls(Box::new(stream)), host, address, open);
        let version = connection.tls_version();
        connection.verified = dial.encryption == Encryption::ValidCertificate;
        if let Some((proved, is_valid)) = named.and_then(|(_, verifier)| verifier.found()) {
            connection.verified = is_valid;
            connection.proved = Some(proved);
        }
        let certificate = match (connection.verified, &connection.proved) {
            (true, _) => "a valid certificate",
            (false, Some(_)) => "a certificate that TLSA records name",
            (false, None) => "a certificate that was not checked",
        };
        transcript::note(format_args!("TLS {version}, {certificate}"));
        Ok((connection, version))
    }
}

fn server_name(host: &str, address: IpAddr) -> ServerName<'static> {
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    name.unwrap_or_else(|_| address.into())
}

/// EHLO, and HELO for a host that knows none (RFC 5321 section 4.1.4). The answer to EHLO, when it is one.
async fn hello(
    connection: &mut Connection,
    lane: &Lane,
    name: &str,
) -> Result<Option<smtp::Reply>, Failure> {
    let broken = |broken: Broken| Failure::broken(Stage::Ehlo, &broken);
    let answer = connection
        .exchange(|out| smtp::write::ehlo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        connection.capabilities = Capabilities::from(&EhloCapabilities::from_reply(&answer));
        return Ok(Some(answer));
    }
    if !answer.is_permanent() {
        return Err(Failure::of(Stage::Ehlo, &answer));
    }
    let answer = connection
        .exchange(|out| smtp::write::helo(out, name), within(lane))
        .await
        .map_err(broken)?;
    if answer.is_positive() {
        Ok(None)
    } else {
        Err(Failure::of(Stage::Ehlo, &answer))
    }
}

/// The host gives our own name as its own: it is us, by whatever name and address it is known. `localhost` is nobody's own.
fn greets_as(answer: &smtp::Reply, name: &str) -> bool {
    let first = answer.lines.first().map_or("", |line| line.trim_start());
    let word = first.split(' ').next();
    name.contains('.') && word.is_some_and(|word| word.eq_ignore_ascii_case(name))
}

fn leads_back() -> Reply {
    let text = "the MX hosts of the domain lead back to this relay";
    own_words(Stage::Dns, 554, "5.4.6", text)
}

fn within(lane: &Lane) -> Instant {
    Instant::now() + lane.timeouts.command
}

/// The source can't be used for any other host either.
fn unbound(host: &str, failure: Failure) -> OpenFailure {
    OpenFailure::Unbound(match failure.reply.stage() {
        Stage::Connect => failure.reply.text,
        _ => told(host, &failure.reply),
    })
}

/// What a host said, as a reason for an operator.
fn told(host: &str, reply: &Reply) -> String {
    match reply.code {
        0 => format!("{host}: {}", reply.text),
        code => format!("{host}: {code} {} {}", reply.enhanced, reply.text),
    }
}

pub(super) fn failed(reply: Reply) -> OpenFailure {
    OpenFailure::Failed {
        reply,
        host: String::new(),
        address: None,
    }
}
