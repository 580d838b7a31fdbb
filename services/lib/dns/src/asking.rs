//! How a question gets its answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError, RetryDnsHandle};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig, TokioResolver};
use tokio::sync::Semaphore;

use crate::resolver::{Error, LONGEST_KEPT, SHORTEST_KEPT};

/// Time for one try of one question.
const TRY_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries of one question beside the first one.
const TRIES: usize = 2;
/// Time for a question with everything that it brings about (several servers, TCP, CNAMEs).
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Questions on their way to the servers at the same time; others wait.
const MOST_QUESTIONS: usize = 256;
/// Answers that hickory keeps beside, whatever their size: 64 KiB at most each.
const ANSWERS_KEPT: u64 = 1_024;
/// CNAMEs that are followed.
const MOST_ALIASES: usize = 8;

/// Asks the servers, so many questions at a time.
pub(crate) struct Asker {
    way: Way,
    places: Semaphore,
}

enum Way {
    /// Nothing is known of who has said it.
    Plain(Box<TokioResolver>),
    /// The servers check DNSSEC, and say so in each answer.
    Believing(RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>),
}

/// An answer with records.
pub(crate) struct Found {
    /// Those of the type that was asked for, and CNAMEs on the way to them.
    pub records: Vec<Record>,
    /// The name at the end of the CNAMEs, when there were any.
    pub alias: Option<Name>,
    /// A server that is believed has checked all of it.
    pub secure: bool,
    pub until: Instant,
}

pub(crate) enum Failure {
    NoSuchName,
    /// The name exists, without records of this type.
    NoRecords,
    Temporary(String),
}

impl Asker {
    pub fn new(servers: &[SocketAddr], believing: bool) -> Result<Self, Error> {
        let (config, mut options) = if servers.is_empty() {
            read_system_conf().map_err(|error| {
                Error::Temporary(format!("the system's resolver configuration: {error}"))
            })?
        } else {
            let servers = servers.iter().map(name_server).collect();
            (
                ResolverConfig::from_name_servers(servers),
                ResolverOpts::default(),
            )
        };
        options.timeout = TRY_TIMEOUT;
        options.attempts = TRIES;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = MOST_QUESTIONS * 2;
        options.positive_max_ttl = Some(LONGEST_KEPT);
        options.cache_size = ANSWERS_KEPT;
        options.negative_max_ttl = Some(Duration::from_secs(300));
        let set_up =
            |error: NetError| Error::Temporary(format!("the resolver can't be set up: {error}"));
        let provider = TokioRuntimeProvider::default();
        let way = if believing {
            let (_, _, servers) = config.into_parts();
            let context = PoolContext::new(options, TlsConfig::new().map_err(set_up)?);
            let pool = NameServerPool::from_config(servers, Arc::new(context), provider);
            Way::Believing(RetryDnsHandle::new(pool, TRIES))
        } else {
            let mut builder = TokioResolver::builder_with_config(config, provider);
            *builder.options_mut() = options;
            Way::Plain(Box::new(builder.build().map_err(set_up)?))
        };
        Ok(Self {
            way,
            places: Semaphore::new(MOST_QUESTIONS),
        })
    }

    /// Whether answers may be secure.
    pub fn believes(&self) -> bool {
        matches!(self.way, Way::Believing(_))
    }

    pub async fn ask(&self, name: &str, record_type: RecordType) -> Result<Found, Failure> {
        let mut name = Name::from_ascii(name).map_err(|_| Failure::NoSuchName)?;
        name.set_fqdn(true);
        let question = async {
            let _place = self
                .places
                .acquire()
                .await
                .expect("the semaphore is never closed");
            match &self.way {
                Way::Plain(dns) => Ok(dns.lookup(name, record_type).await?.into()),
                Way::Believing(dns) => believe(dns, name, record_type).await,
            }
        };
        match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Temporary(format!(
                "{record_type} lookup timed out"
            ))),
        }
    }
}

impl From<Lookup> for Found {
    fn from(lookup: Lookup) -> Self {
        let now = Instant::now();
        let until = lookup.valid_until();
        Self {
            records: lookup.answers().to_vec(),
            alias: None,
            secure: false,
            until: until.clamp(now + SHORTEST_KEPT, now + LONGEST_KEPT),
        }
    }
}

/// Asks with the bit DO, and takes the bit AD for what it says (RFC 4035 section 3.2.3): the whole answer was checked, every
/// CNAME in it included. A server that checks answers SERVFAIL to what is forged.
async fn believe(
    dns: &RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>,
    asked: Name,
    record_type: RecordType,
) -> Result<Found, Failure> {
    let mut options = DnsRequestOptions::default();
    options.use_edns = true;
    options.edns_set_dnssec_ok = true;
    let mut chain = Chain::new(asked);
    // A server that follows CNAMEs has it all in one answer.
    for _ in 0..=MOST_ALIASES {
        let query = Query::query(chain.name.clone(), record_type);
        let answer = dns.lookup(query, options).first_answer().await?;
        if let Some(found) = chain.take(answer, record_type)? {
            return Ok(found);
        }
    }
    Err(too_many_aliases())
}

/// CNAMEs on the way to records.
struct Chain {
    name: Name,
    followed: usize,
    secure: bool,
    shortest: u32,
}

impl Chain {
    fn new(name: Name) -> Self {
        Self {
            name,
            followed: 0,
            secure: true,
            shortest: u32::MAX,
        }
    }

    /// `None`: the answer ends at another name, which is to be asked for.
    fn take(&mut self, answer: DnsResponse, kind: RecordType) -> Result<Option<Found>, Failure> {
        match answer.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            code => return Err(Failure::Temporary(format!("DNS lookup failed: {code}"))),
        }
        self.secure &= answer.authentic_data;
        let before = self.followed;
        while kind != RecordType::CNAME
            && let Some((target, ttl)) = target_of(&answer.answers, &self.name)
        {
            self.followed += 1;
            if self.followed > MOST_ALIASES {
                return Err(too_many_aliases());
            }
            self.shortest = self.shortest.min(ttl);
            self.name = target;
        }
        let is_ours = |record: &&Record| record.name == self.name && record.record_type() == kind;
        let records: Vec<Record> = answer.answers.iter().filter(is_ours).cloned().collect();
        if let Some(ttl) = records.iter().map(|record| record.ttl).min() {
            let ttl = Duration::from_secs(self.shortest.min(ttl).into());
            return Ok(Some(Found {
                records,
                alias: (self.followed > 0).then(|| self.name.clone()),
                secure: self.secure,
                until: Instant::now() + ttl.clamp(SHORTEST_KEPT, LONGEST_KEPT),
            }));
        }
        let is_soa = |record: &Record| record.record_type() == RecordType::SOA;
        if answer.response_code == ResponseCode::NXDomain {
            Err(Failure::NoSuchName)
        } else if self.followed == before || answer.authorities.iter().any(is_soa) {
            Err(Failure::NoRecords)
        } else {
            Ok(None)
        }
    }
}

fn target_of(records: &[Record], name: &Name) -> Option<(Name, u32)> {
    records.iter().find_map(|record| match &record.data {
        RData::CNAME(target) if record.name == *name => Some((target.0.clone(), record.ttl)),
        _ => None,
    })
}

fn too_many_aliases() -> Failure {
    Failure::Temporary(format!(
        "DNS lookup failed: more than {MOST_ALIASES} CNAMEs"
    ))
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

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}
