//! Questions to the DNS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::{RData, Record, RecordType};
use mail::Domain;

use crate::asking::{Asker, Failure, Found};
use crate::hosts::{MailHost, MailHosts};
use crate::memo::Memo;
use crate::tlsa::{Tlsa, TooMany, tlsa_of};

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

/// Domains and hosts whose answers are kept, each.
const MEMO_CAPACITY: usize = 50_000;
/// Answers are not kept longer, whatever their time to live.
pub(crate) const LONGEST_KEPT: Duration = Duration::from_secs(3600);
/// Answers are kept at least so long: with a time to live of 0 each message would ask anew.
pub(crate) const SHORTEST_KEPT: Duration = Duration::from_secs(5);
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
/// Hosts whose TLSA records are kept: 100 octets each, 16 KiB at most.
const TLSA_CAPACITY: usize = 5_000;
/// Addresses of one host that are kept.
const MOST_ADDRESSES: usize = 16;

/// Asks the DNS, with caches for answers, "no such" and failures. Cheap to clone.
///
/// CNAMEs are followed eight deep. Search lists and `/etc/hosts` are not used: names in mail are full names.
#[derive(Clone)]
pub struct Resolver {
    pub(crate) inner: Arc<Inner>,
}

/// As it is kept.
type Answer<T> = Result<Arc<T>, Error>;
/// The records of a host; `None` when it has none that are protected.
type Named = Result<Option<Arc<Tlsa>>, Error>;

pub(crate) struct Inner {
    pub(crate) asker: Asker,
    mail_hosts: Memo<Domain, Answer<MailHosts>>,
    addresses: Memo<(Box<str>, Family), Result<Addresses, Error>>,
    texts: Memo<Box<str>, Answer<[Box<str>]>>,
    tlsa: Memo<(Box<str>, u16), Named>,
    /// Whether what an alias says of itself is signed, of those that lead to where nothing is.
    signed_aliases: Memo<Box<str>, Result<bool, Error>>,
}

/// The addresses of a host.
#[derive(Debug, Clone)]
struct Addresses {
    list: Arc<[IpAddr]>,
    /// All of them were checked with DNSSEC.
    secure: bool,
    /// The name at the end of its CNAMEs, when it has any.
    alias: Option<Box<str>>,
}

impl Resolver {
    /// A resolver that asks these servers (UDP, and TCP when the answer is too long); none = those of
    /// `/etc/resolv.conf`. Fails when that can't be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, Error> {
        Self::asking(Asker::new(servers, false)?)
    }

    /// The same with servers that check DNSSEC, and that are believed when they say what they have checked (the bit AD, RFC
    /// 4035 section 3.2.3). Nobody may be able to change answers on their way from there.
    pub fn believing(servers: &[SocketAddr]) -> Result<Self, Error> {
        Self::asking(Asker::new(servers, true)?)
    }

    fn asking(asker: Asker) -> Result<Self, Error> {
        Ok(Self {
            inner: Arc::new(Inner {
                asker,
                mail_hosts: Memo::new(MEMO_CAPACITY),
                addresses: Memo::new(MEMO_CAPACITY),
                texts: Memo::new(TEXTS_CAPACITY),
                tlsa: Memo::new(TLSA_CAPACITY),
                signed_aliases: Memo::new(TLSA_CAPACITY),
            }),
        })
    }

    /// Whether the servers check DNSSEC: what they say of the root, which is signed. False as well when they are not
    /// believed.
    pub async fn is_validated(&self) -> Result<bool, Error> {
        if !self.inner.asker.believes() {
            return Ok(false);
        }
        let found = self.inner.asker.ask(".", RecordType::NS).await?;
        Ok(found.secure)
    }

    /// The hosts that take mail for the domain (RFC 5321 section 5.1): its MX hosts by preference, at
    /// most 20, or the domain itself when it has no MX record but an address.
    pub async fn mail_hosts(&self, domain: &Domain) -> Result<Arc<MailHosts>, Error> {
        if let Some(known) = self.inner.mail_hosts.get(domain, Instant::now()) {
            return known;
        }
        let begun = Instant::now();
        let (found, until) = self.find_mail_hosts(domain).await;
        let until = kept(&found, until, begun);
        self.inner
            .mail_hosts
            .put(domain.clone(), found.clone(), until, Instant::now());
        found
    }

    /// Addresses of a host, at most 16, IPv4 before IPv6; never empty. `NoSuchDomain` when the host has
    /// none of the family.
    pub async fn addresses(&self, host: &str, family: Family) -> Result<Arc<[IpAddr]>, Error> {
        let found = self.host(host, family).await?;
        Ok(found.list)
    }

    /// The TLSA records of the host's port, when they and the host's addresses are known for sure (RFC 7672 section 2.2).
    /// `None` when there are none, or none that DNSSEC protects. With an error nobody knows what the host must show, and it
    /// is not to be spoken to (section 2.1.2).
    pub async fn tlsa(
        &self,
        host: &str,
        port: u16,
        family: Family,
    ) -> Result<Option<Arc<Tlsa>>, Error> {
        if !self.inner.asker.believes() {
            return Ok(None);
        }
        let found = self.host(host, family).await?;
        match found.alias {
            // The name at the end of the CNAMEs goes first.
            Some(alias) if found.secure => match self.tlsa_of(&alias, port).await? {
                Some(tlsa) => Ok(Some(tlsa)),
                None => self.tlsa_of(host, port).await,
            },
            None if found.secure => self.tlsa_of(host, port).await,
            // It leads to where nothing is signed. What it says of itself may be signed all the same.
            Some(_) if self.is_signed_alias(host).await? => self.tlsa_of(host, port).await,
            Some(_) => Ok(None),
            // Servers of zones that are not signed may stumble over such questions: they are not asked.
            None => Ok(None),
        }
    }

    async fn is_signed_alias(&self, host: &str) -> Result<bool, Error> {
        if let Some(known) = self.inner.signed_aliases.get(host, Instant::now()) {
            return known;
        }
        let begun = Instant::now();
        let (found, until) = match self.inner.asker.ask(host, RecordType::CNAME).await {
            Ok(cname) => (Ok(cname.secure), cname.until),
            Err(Failure::NoSuchName | Failure::NoRecords) => {
                (Ok(false), Instant::now() + NEGATIVE_KEPT)
            }
            Err(failure) => ended(failure.into()),
        };
        let memo = &self.inner.signed_aliases;
        let now = Instant::now();
        memo.put(host.into(), found.clone(), kept(&found, until, begun), now);
        found
    }

    async fn tlsa_of(&self, base: &str, port: u16) -> Result<Option<Arc<Tlsa>>, Error> {
        let key = (Box::from(base), port);
        if let Some(known) = self.inner.tlsa.get(&key, Instant::now()) {
            return known;
        }
        let begun = Instant::now();
        let (found, until) = self.find_tlsa(base, port).await;
        let until = kept(&found, until, begun);
        self.inner
            .tlsa
            .put(key, found.clone(), until, Instant::now());
        found
    }

    async fn find_tlsa(&self, base: &str, port: u16) -> (Named, Instant) {
        let name = format!("_{port}._tcp.{base}");
        match self.inner.asker.ask(&name, RecordType::TLSA).await {
            Ok(found) if found.secure => match tlsa_of(&found.records) {
                Ok(records) if records.is_empty() => (Ok(None), found.until),
                Ok(records) => {
                    let base = base.into();
                    (Ok(Some(Arc::new(Tlsa { base, records }))), found.until)
                }
                Err(TooMany) => ended(Error::Temporary("there are too many TLSA records".into())),
            },
            Ok(found) => (Ok(None), found.until),
            Err(Failure::NoSuchName | Failure::NoRecords) => {
                (Ok(None), Instant::now() + NEGATIVE_KEPT)
            }
            Err(failure) => ended(failure.into()),
        }
    }

    async fn host(&self, host: &str, family: Family) -> Result<Addresses, Error> {
        let key = (Box::from(host), family);
        if let Some(known) = self.inner.addresses.get(&key, Instant::now()) {
            return known;
        }
        let begun = Instant::now();
        let (found, until) = self.find_addresses(host, family).await;
        let until = kept(&found, until, begun);
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
        let (found, until) = match self.inner.asker.ask(name, RecordType::TXT).await {
            Ok(found) => match texts_of(&found) {
                texts if texts.is_empty() => ended(Error::NoSuchDomain),
                texts => (Ok(texts.into()), found.until),
            },
            Err(failure) => ended(failure.into()),
        };
        let now = Instant::now();
        self.inner.texts.put(key, found.clone(), until, now);
        found
    }

    async fn find_mail_hosts(&self, domain: &Domain) -> (Result<Arc<MailHosts>, Error>, Instant) {
        let lookup = match self.inner.asker.ask(domain.as_str(), RecordType::MX).await {
            Ok(found) => found,
            Err(Failure::NoRecords) => return self.fall_back_to_address(domain).await,
            Err(failure) => return ended(failure.into()),
        };
        let until = lookup.until;
        let mut records = Vec::new();
        let (mut null, mut invalid) = (false, false);
        for record in &lookup.records {
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
        match MailHosts::from_records(records, lookup.secure) {
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
            (Ok(found), until) => {
                let hosts = MailHosts::implicit(domain, found.secure);
                (Ok(Arc::new(hosts)), until)
            }
            (Err(error), until) => (Err(error), until),
        }
    }

    async fn find_addresses(
        &self,
        host: &str,
        family: Family,
    ) -> (Result<Addresses, Error>, Instant) {
        let asked: &[RecordType] = match family {
            Family::Any => &[RecordType::A, RecordType::AAAA],
            Family::V4 => &[RecordType::A],
            Family::V6 => &[RecordType::AAAA],
        };
        let mut addresses = Vec::new();
        let mut until: Option<Instant> = None;
        let (mut failed, mut alias, mut secure) = (None, None, true);
        for record_type in asked {
            match self.inner.asker.ask(host, *record_type).await {
                Ok(found) => {
                    until = Some(until.map_or(found.until, |until| until.min(found.until)));
                    secure &= found.secure;
                    alias = alias.or(found.alias);
                    addresses.extend(found.records.iter().filter_map(
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
        let found = Addresses {
            list: addresses.into(),
            secure,
            alias: alias
                .and_then(|name| Some(Domain::parse(&name.to_ascii()).ok()?.as_str().into())),
        };
        match (found.list.is_empty(), failed) {
            (false, None) => (
                Ok(found),
                until.unwrap_or_else(|| Instant::now() + NEGATIVE_KEPT),
            ),
            // One family failed: use the other, but not for long.
            (false, Some(_)) => (Ok(found), Instant::now() + FAILURE_KEPT),
            (true, None) => ended(Error::NoSuchDomain),
            (true, Some(detail)) => ended(Error::Temporary(detail)),
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

/// A failure is kept at least as long as it took to find out: else, of two that take long, one would always be forgotten.
fn kept<T>(found: &Result<T, Error>, until: Instant, begun: Instant) -> Instant {
    match found {
        Ok(_) => until,
        Err(_) => until + begun.elapsed(),
    }
}

fn texts_of(found: &Found) -> Vec<Box<str>> {
    let joined = |record: &Record| match &record.data {
        RData::TXT(txt) => {
            let octets = txt.txt_data.concat();
            let is_text = octets.is_ascii() && octets.len() <= LONGEST_TEXT;
            is_text.then(|| String::from_utf8(octets).ok()).flatten()
        }
        _ => None,
    };
    let mut octets = 0;
    let texts = found.records.iter().filter_map(joined);
    texts
        .take(MOST_TEXTS)
        .take_while(|text| {
            octets += text.len();
            octets <= MOST_OCTETS
        })
        .map(String::into_boxed_str)
        .collect()
}
