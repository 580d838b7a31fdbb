//! From a lane and a domain to a connection that takes mail.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dns::{Family, MailHosts, Resolver, is_private_target};
use mail::Domain;
use proto::journal::{Reply, Stage};
use rustls::RootCertStore;
use sts::Known;
use tokio::time::Instant;

use super::connection::Connection;
use super::demand::{Demand, Encryption, HostDemand, Lack, Level, Seen, Wish};
use super::dial::Dial;
use super::failure::Failure;
use super::fault::Fault;
use super::own_words;
use super::targets::{in_order, literal};
use super::tls::{Connectors, Remembered};
use super::tried::{Tried, encryption_needed};
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::policies::Policies;
use crate::reporting::{Reporting, Session};
use crate::transcript;

/// A lookup that takes longer has waited for an answer that did not come.
const SLOW_LOOKUP: Duration = Duration::from_secs(5);
/// Connections tried for one delivery, and lookups waited for.
const MOST_TRIES: usize = 5;
/// The same for mail that requires TLS: before it goes back every host is asked (RFC 8689 section 4.2.1), and there are 20 at
/// most. Where their addresses are more, it is deferred rather than sent back.
const MOST_TRIES_TO_KEEP_A_PROMISE: usize = 20;
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
    pub reporting: Reporting,
    /// Mail is not sent to hosts of that name.
    pub own_name: String,
}

/// Makes connections.
pub(crate) struct Opener {
    pub(super) names: Names,
    pub(super) tls: Connectors,
    broken_tls: Remembered,
    valid: Remembered,
    invalid: Remembered,
    unreachable: Remembered,
    pub(super) metrics: Arc<Metrics>,
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
        let demand = if self.names.reporting.is_on() {
            demand.reported_to(domain.as_str())
        } else {
            demand
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
    pub(super) fn name<'a>(&'a self, lane: &'a Lane) -> &'a str {
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
                self.tls_came_to(lane, &asked, host, None, Some(Fault::Other));
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
        if is_tls || fault.is_some() {
            self.tls_came_to(lane, demand, host, Some(address), fault);
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

    /// Counts what TLS came to at an address of a host, or before one was spoken to.
    pub(super) fn tls_came_to(
        &self,
        lane: &Lane,
        demand: &HostDemand<'_>,
        host: &str,
        address: Option<IpAddr>,
        fault: Option<Fault>,
    ) {
        let result = fault.map_or("success", Fault::name);
        self.metrics.tls_result(demand.policy_type(), result);
        let Some(domain) = demand.reported_to() else {
            return;
        };
        self.names.reporting.note(Session {
            domain,
            policy: demand.policy_of(domain, host),
            failure: fault.map(|fault| tlsrpt::Failure {
                result: fault.name().to_owned(),
                source: lane.reach.source_address,
                host: host.to_owned(),
                address,
            }),
        });
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
}

pub(super) fn leads_back() -> Reply {
    let text = "the MX hosts of the domain lead back to this relay";
    own_words(Stage::Dns, 554, "5.4.6", text)
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
