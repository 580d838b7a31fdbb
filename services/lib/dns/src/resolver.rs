//! Questions to the DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mail::Domain;
use tokio::sync::Semaphore;

use crate::hosts::{MailHost, MailHosts};
use crate::memo::Memo;

/// Why the mail of a domain can't go anywhere now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The domain says that it takes no mail (RFC 7505): permanent, 5.1.10.
    #[error("the domain accepts no mail (null MX)")]
    NullMx,
    /// The domain does not exist, or has neither MX nor address records: permanent, 5.1.2.
    #[error("the domain does not exist")]
    NoSuchDomain,
    /// No answer, a failure of the servers, or an answer of no use: ask again later, 4.4.3.
    #[error("{0}")]
    Temporary(String),
}

impl Error {
    /// Whether asking again later can't help.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Temporary(_))
    }

    /// Enhanced status code (RFC 3463, RFC 7505 section 4.2).
    pub fn enhanced(&self) -> &'static str {
        match self {
            Self::NullMx => "5.1.10",
            Self::NoSuchDomain => "5.1.2",
            Self::Temporary(_) => "4.4.3",
        }
    }
}

/// Which addresses of a host to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4 first, then IPv6.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// The family that can be reached from a source address; any when no address is to be bound.
    pub fn of_source(source: Option<IpAddr>) -> Self {
        match source {
            None => Self::Any,
            Some(IpAddr::V4(_)) => Self::V4,
            Some(IpAddr::V6(_)) => Self::V6,
        }
    }
}

/// Time for one try of one question.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a question with everything that it brings about (several servers, TCP, CNAMEs).
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Questions on their way to the servers at the same time; others wait.
const MOST_QUESTIONS: usize = 256;
/// Domains and hosts whose answers are kept, each.
const MEMO_CAPACITY: usize = 50_000;
/// Answers are not kept longer, whatever their time to live.
const LONGEST_KEPT: Duration = Duration::from_secs(3600);
/// Answers are kept at least so long: with a time to live of 0 each message would ask anew.
const SHORTEST_KEPT: Duration = Duration::from_secs(5);
/// "Does not exist" is kept this long (hickory keeps it as the SOA says, beside).
const NEGATIVE_KEPT: Duration = Duration::from_secs(30);
/// Failures are kept this long, so that a broken domain is not asked for each of its messages.
const FAILURE_KEPT: Duration = Duration::from_secs(5);
/// The same of texts, which are longer.
const TEXTS_CAPACITY: usize = 5_000;
/// Texts of one name that are kept.
const MOST_TEXTS: usize = 8;
/// A longer text is none that mail has to do with, octets.
const LONGEST_TEXT: usize = 2048;
/// The same of all texts of a name together: strangers choose whose texts are asked for.
const MOST_OCTETS: usize = 4096;
/// Answers that hickory keeps beside, whatever their size: 64 KiB at most each.
const ANSWERS_KEPT: u64 = 1_024;
/// Addresses of one host that are kept.
const MOST_ADDRESSES: usize = 16;

/// Asks the DNS, with caches for answers, "no such" and failures. Cheap to clone.
///
/// CNAMEs are followed eight deep. Search lists and `/etc/hosts` are not used: names in mail are full names.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

/// As it is kept.
type Answer<T> = Result<Arc<T>, Error>;

struct Inner {
    dns: TokioResolver,
    places: Semaphore,
    mail_hosts: Memo<Domain, Answer<MailHosts>>,
    addresses: Memo<(Box<str>, Family), Answer<[IpAddr]>>,
    texts: Memo<Box<str>, Answer<[Box<str>]>>,
}

impl Resolver {
    /// A resolver that asks these servers (UDP, and TCP when the answer is too long); none = those of
    /// `/etc/resolv.conf`. Fails when that can't be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, Error> {
        let mut builder = if servers.is_empty() {
            TokioResolver::builder_tokio().map_err(|error| {
                Error::Temporary(format!("the system's resolver configuration: {error}"))
            })?
        } else {
            let servers = servers.iter().map(name_server).collect();
            TokioResolver::builder_with_config(
                ResolverConfig::from_name_servers(servers),
                TokioRuntimeProvider::default(),
            )
        };
        let options = builder.options_mut();
        options.timeout = TRY_TIMEOUT;
        options.attempts = 2;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MOST_QUESTIONS * 2;
        options.positive_max_ttl = Some(LONGEST_KEPT);
        options.cache_size = ANSWERS_KEPT;
        options.negative_max_ttl = Some(Duration::from_secs(300));
        let dns = builder
            .build()
            .map_err(|error| Error::Temporary(format!("the resolver can't be set up: {error}")))?;
        Ok(Self {
            inner: Arc::new(Inner {
                dns,
                places: Semaphore::new(MOST_QUESTIONS),
                mail_hosts: Memo::new(MEMO_CAPACITY),
                addresses: Memo::new(MEMO_CAPACITY),
                texts: Memo::new(TEXTS_CAPACITY),
            }),
        })
    }

    /// The hosts that take mail for the domain (RFC 5321 section 5.1): its MX hosts by preference, at
    /// most 20, or the domain itself when it has no MX record but an address.
    pub async fn mail_hosts(&self, domain: &Domain) -> Result<Arc<MailHosts>, Error> {
        if let Some(known) = self.inner.mail_hosts.get(domain, Instant::now()) {
            return known;
        }
        let (found, until) = self.find_mail_hosts(domain).await;
        self.inner
            .mail_hosts
            .put(domain.clone(), found.clone(), until, Instant::now());
        found
    }

    /// Addresses of a host, at most 16, IPv4 before IPv6; never empty. `NoSuchDomain` when the host has
    /// none of the family.
    pub async fn addresses(&self, host: &str, family: Family) -> Result<Arc<[IpAddr]>, Error> {
        let key = (Box::from(host), family);
        if let Some(known) = self.inner.addresses.get(&key, Instant::now()) {
            return known;
        }
        let (found, until) = self.find_addresses(host, family).await;
        self.inner
            .addresses
            .put(key, found.clone(), until, Instant::now());
        found
    }

    /// The TXT records of a name, at most 8, each with its strings joined; never empty. Those with octets beyond ASCII, and
    /// those of more than 8 KiB, are left out. `NoSuchDomain` when there is none.
    pub async fn texts(&self, name: &str) -> Result<Arc<[Box<str>]>, Error> {
        let key = name.to_ascii_lowercase().into_boxed_str();
        if let Some(known) = self.inner.texts.get(&key, Instant::now()) {
            return known;
        }
        let (found, until) = match self.ask(name, RecordType::TXT).await {
            Ok(lookup) => match texts_of(&lookup) {
                texts if texts.is_empty() => ended(Error::NoSuchDomain),
                texts => (Ok(texts.into()), kept_until(&lookup)),
            },
            Err(failure) => ended(failure.into()),
        };
        let now = Instant::now();
        self.inner.texts.put(key, found.clone(), until, now);
        found
    }

    async fn find_mail_hosts(&self, domain: &Domain) -> (Result<Arc<MailHosts>, Error>, Instant) {
        let lookup = match self.ask(domain.as_str(), RecordType::MX).await {
            Ok(lookup) => lookup,
            Err(Failure::NoRecords) => return self.fall_back_to_address(domain).await,
            Err(failure) => return ended(failure.into()),
        };
        let until = kept_until(&lookup);
        let mut records = Vec::new();
        let (mut null, mut invalid) = (false, false);
        for record in lookup.answers() {
            let RData::MX(mx) = &record.data else {
                continue;
            };
            if mx.exchange.is_root() {
                null = true;
            } else if let Ok(name) = Domain::parse(&mx.exchange.to_ascii()) {
                records.push(MailHost {
                    preference: mx.preference,
                    name: name.as_str().into(),
                });
            } else {
                invalid = true;
            }
        }
        match MailHosts::from_records(records) {
            Some(hosts) => (Ok(Arc::new(hosts)), until),
            None if null => (Err(Error::NullMx), until),
            None if invalid => ended(Error::Temporary("the MX records name no valid host".into())),
            None => self.fall_back_to_address(domain).await,
        }
    }

    async fn fall_back_to_address(
        &self,
        domain: &Domain,
    ) -> (Result<Arc<MailHosts>, Error>, Instant) {
        match self.find_addresses(domain.as_str(), Family::Any).await {
            (Ok(_), until) => (Ok(Arc::new(MailHosts::implicit(domain))), until),
            (Err(error), until) => (Err(error), until),
        }
    }

    async fn find_addresses(
        &self,
        host: &str,
        family: Family,
    ) -> (Result<Arc<[IpAddr]>, Error>, Instant) {
        let asked: &[RecordType] = match family {
            Family::Any => &[RecordType::A, RecordType::AAAA],
            Family::V4 => &[RecordType::A],
            Family::V6 => &[RecordType::AAAA],
        };
        let mut addresses = Vec::new();
        let mut until: Option<Instant> = None;
        let mut failed = None;
        for record_type in asked {
            match self.ask(host, *record_type).await {
                Ok(lookup) => {
                    let kept = kept_until(&lookup);
                    until = Some(until.map_or(kept, |until| until.min(kept)));
                    addresses.extend(lookup.answers().iter().filter_map(
                        |record| match &record.data {
                            RData::A(a) => Some(IpAddr::V4(a.0)),
                            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                            _ => None,
                        },
                    ));
                }
                Err(Failure::NoRecords) => {}
                // The name does not exist: there is no other type to ask for.
                Err(Failure::NoSuchName) => break,
                Err(Failure::Temporary(detail)) => failed = Some(detail),
            }
        }
        addresses.truncate(MOST_ADDRESSES);
        match (addresses.is_empty(), failed) {
            (false, None) => (
                Ok(addresses.into()),
                until.unwrap_or_else(|| Instant::now() + NEGATIVE_KEPT),
            ),
            // One family failed: use the other, but not for long.
            (false, Some(_)) => (Ok(addresses.into()), Instant::now() + FAILURE_KEPT),
            (true, None) => ended(Error::NoSuchDomain),
            (true, Some(detail)) => ended(Error::Temporary(detail)),
        }
    }

    pub(crate) async fn ask(&self, name: &str, record_type: RecordType) -> Result<Lookup, Failure> {
        let mut name = Name::from_ascii(name).map_err(|_| Failure::NoSuchName)?;
        name.set_fqdn(true);
        let question = async {
            let _place = self
                .inner
                .places
                .acquire()
                .await
                .expect("the semaphore is never closed");
            self.inner.dns.lookup(name, record_type).await
        };
        match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Failure::Temporary(format!(
                "{record_type} lookup timed out"
            ))),
        }
    }
}

pub(crate) enum Failure {
    NoSuchName,
    /// The name exists, without records of this type.
    NoRecords,
    Temporary(String),
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
                ResponseCode::NXDomain => Self::NoSuchName,
                ResponseCode::NoError => Self::NoRecords,
                code => Self::Temporary(format!("DNS lookup failed: {code}")),
            },
            NetError::Dns(DnsError::ResponseCode(code)) => {
                Self::Temporary(format!("DNS lookup failed: {code}"))
            }
            other => Self::Temporary(format!("DNS lookup failed: {other}")),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoSuchName | Failure::NoRecords => Self::NoSuchDomain,
            Failure::Temporary(detail) => Self::Temporary(detail),
        }
    }
}

fn ended<T>(error: Error) -> (Result<T, Error>, Instant) {
    let kept = if error.is_permanent() {
        NEGATIVE_KEPT
    } else {
        FAILURE_KEPT
    };
    (Err(error), Instant::now() + kept)
}

fn kept_until(lookup: &Lookup) -> Instant {
    let now = Instant::now();
    lookup
        .valid_until()
        .clamp(now + SHORTEST_KEPT, now + LONGEST_KEPT)
}

fn texts_of(lookup: &Lookup) -> Vec<Box<str>> {
    let joined = |record: &Record| match &record.data {
        RData::TXT(txt) => {
            let octets = txt.txt_data.concat();
            let is_text = octets.is_ascii() && octets.len() <= LONGEST_TEXT;
            is_text.then(|| String::from_utf8(octets).ok()).flatten()
        }
        _ => None,
    };
    let mut octets = 0;
    let texts = lookup.answers().iter().filter_map(joined);
    texts
        .take(MOST_TEXTS)
        .take_while(|text| {
            octets += text.len();
            octets <= MOST_OCTETS
        })
        .map(String::into_boxed_str)
        .collect()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}
