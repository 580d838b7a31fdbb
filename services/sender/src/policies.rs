//! What domains say about TLS to their mail hosts (MTA-STS, RFC 8461): looked up once for many messages.
//!
//! A delivery to a domain of which nothing is known waits for the first look, for [`PATIENCE`] from its beginning at most;
//! later looks go on beside deliveries. What decides is in `sts::Book`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dns::{Family, Resolver, is_private_target};
use mail::{Domain, HttpsUrl};
use runtime::{Get, HttpsClient};
use sts::{Book, Bounds, Finding, Known, Policy};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::reporting::Reporting;

/// How long deliveries wait for the first look at a domain, from its beginning.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a policy to be fetched (RFC 8461 section 3.3).
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Octets of the longest policy (RFC 8461 section 3.2).
const LONGEST_POLICY: usize = 64 * 1024;
/// Policies fetched at a time; others wait. Servers that take their time must be many to keep others from theirs.
const MOST_FETCHES: usize = 256;
/// What is kept.
const BOUNDS: Bounds = Bounds {
    domains: 50_000,
    octets: 32 * 1024 * 1024,
};
/// How often is looked whether a policy is to be refreshed to whose domain nothing is sent.
const REFRESH_LOOK: Duration = Duration::from_secs(60);
/// Of these, at a time.
const MOST_REFRESHED: usize = 32;

/// How policies are fetched.
pub(crate) struct Fetching {
    pub https: HttpsClient,
    /// 443, but in tests.
    pub port: u16,
    /// Servers at private addresses are asked, too.
    pub allow_private: bool,
    pub clock: Clock,
}

/// Tells the time; tests may have it ahead.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    ahead_seconds: Arc<AtomicU64>,
}

impl Clock {
    fn now(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.ahead_seconds.load(Ordering::Relaxed))
    }

    #[cfg(test)]
    pub fn advance(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

/// The policies of domains. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Policies {
    /// `None`: nobody asks.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    book: Mutex<Book>,
    resolver: Resolver,
    fetching: Fetching,
    places: Semaphore,
    /// A look is over.
    news: Notify,
    metrics: Arc<Metrics>,
    reporting: Reporting,
}

impl Policies {
    pub fn new(
        resolver: Resolver,
        fetching: Fetching,
        metrics: Arc<Metrics>,
        reporting: Reporting,
    ) -> Self {
        let shared = Shared {
            book: Mutex::new(Book::new(BOUNDS)),
            resolver,
            fetching,
            places: Semaphore::new(MOST_FETCHES),
            news: Notify::new(),
            metrics,
            reporting,
        };
        Self {
            shared: Some(Arc::new(shared)),
        }
    }

    /// No domain has any.
    pub fn off() -> Self {
        Self { shared: None }
    }

    /// What the domain says; never [`Known::Awaited`].
    pub async fn of(&self, domain: &Domain) -> Known {
        let Some(shared) = &self.shared else {
            return Known::Absent;
        };
        let since = match shared.ask(domain) {
            Known::Awaited { since } => since,
            known => return known,
        };
        let waited = shared.now().saturating_duration_since(since);
        let awaited = timeout(PATIENCE.saturating_sub(waited), shared.awaited(domain));
        awaited.await.unwrap_or(Known::Unavailable)
    }

    /// No host of the domain fits its policy.
    pub fn doubt(&self, domain: &str) {
        if let (Some(shared), Ok(domain)) = (&self.shared, Domain::parse(domain)) {
            shared.book().doubt(&domain);
        }
    }

    /// Refreshes policies while they hold, although nothing is sent to their domains: who can hinder it must do so for all
    /// of their time.
    pub async fn keep_fresh(self) {
        let Some(shared) = &self.shared else {
            return;
        };
        loop {
            tokio::time::sleep(REFRESH_LOOK).await;
            let due = shared.book().due(shared.now(), MOST_REFRESHED);
            for domain in due {
                shared.begin_look(domain);
            }
        }
    }
}

impl Shared {
    /// What a look that is under way comes to.
    async fn awaited(self: &Arc<Self>, domain: &Domain) -> Known {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // From here on nothing is missed.
            news.as_mut().enable();
            match self.ask(domain) {
                Known::Awaited { .. } => news.await,
                known => return known,
            }
        }
    }

    fn ask(self: &Arc<Self>, domain: &Domain) -> Known {
        let (known, look) = self.book().ask(domain, self.now());
        if look {
            self.begin_look(domain.clone());
        }
        known
    }

    fn begin_look(self: &Arc<Self>, domain: Domain) {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let looked = shared.look(&domain).await;
            let result = match &looked {
                Ok(Finding::NoRecord) => "none",
                Ok(Finding::Unchanged) => "unchanged",
                Ok(_) => "fetched",
                Err(failed) => failed.name(),
            };
            shared.metrics.policy_lookups(result);
            if let Some(result) = looked.as_ref().err().and_then(Failed::reported) {
                shared.reporting.note_policy(domain.as_str(), result);
            }
            let (finding, why) = match looked {
                Ok(finding) => (finding, None),
                Err(failed) => (Finding::Failed, Some(failed)),
            };
            let at_stake = shared.book().found(&domain, finding, shared.now());
            if let Some(why) = why {
                if at_stake {
                    tracing::warn!(%domain, %why, "an MTA-STS policy can't be refreshed; the old one holds until its time is over");
                } else {
                    tracing::debug!(%domain, %why, "an MTA-STS policy can't be had");
                }
            }
            shared.news.notify_waiters();
        });
    }

    async fn look(&self, domain: &Domain) -> Result<Finding, Failed> {
        let records = match self.resolver.texts(&format!("_mta-sts.{domain}")).await {
            Err(dns::Error::NoSuchDomain) => return Ok(Finding::NoRecord),
            found => found?,
        };
        let Some(id) = sts::policy_id(records.iter().map(|record| record.as_bytes())) else {
            return Ok(Finding::NoRecord);
        };
        if !self.book().needs_fetch(domain, id, self.now()) {
            return Ok(Finding::Unchanged);
        }
        // Who waits for longer is not waited for any more: servers that drip must not make others pile up.
        let place = tokio::time::timeout(PATIENCE, self.places.acquire())
            .await
            .map_err(|_| Failed::Fetch("too many policies are being fetched".into()))?;
        let policy = self.fetch(domain).await?;
        drop(place);
        Ok(Finding::Policy {
            id: id.into(),
            policy,
        })
    }

    /// RFC 8461 section 3.3: the certificate is for the policy's host, no redirection is followed, nothing comes out of a
    /// cache.
    async fn fetch(&self, domain: &Domain) -> Result<Policy, Failed> {
        let host = format!("mta-sts.{domain}");
        let url: HttpsUrl = format!("https://{host}/.well-known/mta-sts.txt")
            .parse()
            .map_err(|_| Failed::Fetch("the name of its host is too long".into()))?;
        let found = self.resolver.addresses(&host, Family::Any).await?;
        let Fetching {
            https,
            port,
            allow_private,
            ..
        } = &self.fetching;
        let addresses: Vec<SocketAddr> = found
            .iter()
            .filter(|address| *allow_private || !is_private_target(**address))
            .map(|address| SocketAddr::new(*address, *port))
            .collect();
        if addresses.is_empty() {
            return Err(Failed::Fetch("its host has private addresses only".into()));
        }
        let get = Get {
            url: &url,
            addresses: &addresses,
            etag: None,
            patience: FETCH_TIMEOUT,
            most: LONGEST_POLICY,
        };
        let fetched = https
            .get(get)
            .await
            .map_err(|error| Failed::Fetch(error.to_string()))?;
        if !is_plain_text(fetched.content_type.as_deref()) {
            return Err(Failed::Policy("it is not text/plain".into()));
        }
        let document = fetched
            .document
            .ok_or_else(|| Failed::Fetch("the server says that it has not changed".into()))?;
        Policy::parse(&document).map_err(|error| Failed::Policy(error.to_string()))
    }

    fn now(&self) -> Instant {
        self.fetching.clock.now()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// RFC 8461 section 3.2: parameters, such as the character set, do not matter.
fn is_plain_text(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|text| text.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("text/plain"))
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("DNS: {0}")]
    Dns(#[from] dns::Error),
    #[error("{0}")]
    Fetch(String),
    #[error("{0}")]
    Policy(String),
}

impl Failed {
    /// Value of the label `result`.
    fn name(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns_failed",
            Self::Fetch(_) => "fetch_failed",
            Self::Policy(_) => "invalid",
        }
    }

    /// What the domain is told (RFC 8460 section 4.3.2.2), when it has a policy.
    fn reported(&self) -> Option<&'static str> {
        match self {
            Self::Dns(_) => None,
            Self::Fetch(_) => Some("sts-policy-fetch-error"),
            Self::Policy(_) => Some("sts-policy-invalid"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_plain_text_whatever_its_parameters_are() {
        for (content_type, is_plain) in [
            (Some("text/plain"), true),
            (Some("Text/Plain; charset=utf-8"), true),
            (Some("text/plain ;x"), true),
            (Some("text/html"), false),
            (Some("text/plainer"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(is_plain_text(content_type), is_plain, "{content_type:?}");
        }
    }
}
