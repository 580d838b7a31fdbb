//! All addresses behind some URLs: found by DNS again and again, used in turn, the dead ones passed over.
//!
//! One HTTP/2 connection leads to one server for as long as it stands, so a client of a service with many replicas
//! holds a connection to each: in Kubernetes a headless service gives the addresses of all its pods to one name. The
//! system's resolver is asked, since names of a cluster need its search list.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};

use crate::calls::CallError;

/// How often names are asked for.
const REFRESH: Duration = Duration::from_secs(5);
/// After a failure they are asked for at once, but no more often than this.
const REFRESH_AT_MOST: Duration = Duration::from_millis(500);
/// An address that failed is passed over for so long, while there is another.
const REST: Duration = Duration::from_secs(2);
/// For one question.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses that are used at most; a resolver's answer has no bound of its own.
const MOST_ADDRESSES: usize = 256;

/// Finds the addresses of `host:port`.
pub(crate) type Lookup = Arc<dyn Fn(String, u16) -> Found + Send + Sync>;
pub(crate) type Found = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// The system's resolver.
pub(crate) fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// One of the addresses, with a connection that is opened with the first call.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) address: SocketAddr,
    pub(crate) channel: Channel,
}

/// All addresses. Shared by clones of the `Arc`; the task that asks for names ends with the last one.
pub(crate) struct Endpoints {
    targets: Vec<Target>,
    lookup: Lookup,
    configure: fn(Endpoint) -> Endpoint,
    state: Mutex<State>,
    /// Counts the answers of the resolver; the error of the last one, when nothing is known at all.
    answers: watch::Sender<(u64, String)>,
    ask: Notify,
    next: AtomicUsize,
}

/// One of the URLs.
struct Target {
    url: String,
    host: String,
    port: u16,
}

#[derive(Default)]
struct State {
    known: Vec<Address>,
    failed: HashMap<SocketAddr, Instant>,
}

impl Endpoints {
    /// For URLs like `http://name:7102`, at least one. Must be called inside a tokio runtime.
    pub(crate) fn new(
        urls: &[String],
        lookup: Lookup,
        configure: fn(Endpoint) -> Endpoint,
    ) -> Result<Arc<Self>, CallError> {
        let targets: Vec<Target> = urls
            .iter()
            .map(|url| target(url))
            .collect::<Result<_, _>>()?;
        let endpoints = Arc::new(Self {
            targets,
            lookup,
            configure,
            state: Mutex::default(),
            answers: watch::Sender::new((0, String::new())),
            ask: Notify::new(),
            next: AtomicUsize::new(0),
        });
        tokio::spawn(keep_fresh(Arc::downgrade(&endpoints)));
        Ok(endpoints)
    }

    /// The addresses in the order in which one call tries them: each call begins with another one, those that failed a
    /// moment ago come last. Waits for the first answer of the resolver; empty when there is none until the deadline.
    pub(crate) async fn in_turn(&self, deadline: Instant) -> Vec<Address> {
        let mut answers = self.answers.subscribe();
        loop {
            answers.mark_unchanged();
            let found = self.order();
            if !found.is_empty() {
                return found;
            }
            self.ask.notify_one();
            match tokio::time::timeout_at(deadline, answers.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Vec::new(),
            }
        }
    }

    fn order(&self) -> Vec<Address> {
        let mut state = self.state();
        let now = Instant::now();
        state.failed.retain(|_, until| *until > now);
        let mut order = state.known.clone();
        if !order.is_empty() {
            let first = self.next.fetch_add(1, Ordering::Relaxed) % order.len();
            order.rotate_left(first);
            order.sort_by_key(|address| state.failed.contains_key(&address.address));
        }
        order
    }

    /// The address did not answer: others come first for a while, and the names are asked for again.
    pub(crate) fn failed(&self, address: SocketAddr) {
        self.state().failed.insert(address, Instant::now() + REST);
        self.ask.notify_one();
    }

    /// Why there is no address.
    pub(crate) fn problem(&self) -> String {
        self.answers.borrow().1.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for all names. What is not answered keeps the addresses that it had.
    async fn refresh(&self) {
        let mut problem = String::new();
        let mut found: Vec<(SocketAddr, &Target)> = Vec::new();
        let mut all_answered = true;
        for target in &self.targets {
            let lookup = (self.lookup)(target.host.clone(), target.port);
            match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
                Ok(Ok(addresses)) => {
                    found.extend(addresses.into_iter().map(|address| (address, target)));
                }
                Ok(Err(error)) => {
                    all_answered = false;
                    problem = format!("{}: {error}", target.url);
                }
                Err(_) => {
                    all_answered = false;
                    problem = format!("{}: the resolver does not answer", target.url);
                }
            }
        }
        self.adopt(&found, all_answered);
        if problem.is_empty() && found.is_empty() {
            "no address is known".clone_into(&mut problem);
        }
        self.answers.send_modify(|(count, last)| {
            *count += 1;
            *last = problem;
        });
    }

    fn adopt(&self, found: &[(SocketAddr, &Target)], all_answered: bool) {
        let mut state = self.state();
        if all_answered && !found.is_empty() {
            state
                .known
                .retain(|known| found.iter().any(|(address, _)| *address == known.address));
        }
        for (address, target) in found {
            let is_known = state.known.iter().any(|known| known.address == *address);
            if is_known || state.known.len() >= MOST_ADDRESSES {
                continue;
            }
            match connection(*address, target, self.configure) {
                Ok(channel) => {
                    tracing::debug!(%address, url = target.url, "an address more");
                    let address = *address;
                    state.known.push(Address { address, channel });
                }
                Err(error) => tracing::warn!(%address, %error, "the address can't be used"),
            }
        }
    }
}

/// Asks at the start, then every few seconds and after failures.
async fn keep_fresh(endpoints: Weak<Endpoints>) {
    loop {
        let Some(strong) = endpoints.upgrade() else {
            return;
        };
        strong.refresh().await;
        // Addresses that are written as such never change.
        let is_fixed = |target: &Target| target.host.parse::<IpAddr>().is_ok();
        if strong.targets.iter().all(is_fixed) {
            return;
        }
        drop(strong);
        tokio::time::sleep(REFRESH_AT_MOST).await;
        let Some(strong) = endpoints.upgrade() else {
            return;
        };
        // Not for ever, or the last reference would be this one.
        if tokio::time::timeout(REFRESH - REFRESH_AT_MOST, strong.ask.notified())
            .await
            .is_err()
            && Arc::strong_count(&strong) == 1
        {
            return;
        }
    }
}

fn connection(
    address: SocketAddr,
    target: &Target,
    configure: fn(Endpoint) -> Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let endpoint = match target.url.parse::<Uri>() {
        // The server sees the name that was asked for.
        Ok(origin) => endpoint.origin(origin),
        Err(_) => endpoint,
    };
    Ok(configure(endpoint).connect_lazy())
}

fn target(url: &str) -> Result<Target, CallError> {
    let invalid = || CallError {
        detail: format!("{url:?} is not a URL such as http://signer:7102"),
    };
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    if uri.scheme_str() != Some("http") {
        return Err(invalid());
    }
    let host = uri.host().ok_or_else(invalid)?;
    Ok(Target {
        url: url.to_owned(),
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(80),
    })
}
