//! The keys of those who issue tokens: fetched ahead, again from time to time, and at once when a token is of a key that
//! is not known.

mod cache;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bearer::{KeySet, KeySetError};
use config::{Snapshot, TokenIssuer, TokenKeys};
use runtime::{Get, HttpsClient, HttpsError, Shutdown, TlsError};
use telemetry::IntCounter;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Metrics;
use cache::{Answer, Cache, PAUSE};

/// For one fetch.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of the longest key set.
const LONGEST: usize = 128 * 1024;

/// All issuers of the configuration.
pub(crate) struct Issuers {
    by_name: Mutex<HashMap<String, Arc<Issuer>>>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
    pause: Duration,
}

/// The keys of one.
struct Issuer {
    name: String,
    source: TokenKeys,
    cache: Mutex<Cache>,
    /// Held while keys are fetched: once at a time, however many clients wait.
    flight: tokio::sync::Mutex<()>,
    counters: Counters,
    /// Ends the task that fetches them.
    gone: Shutdown,
}

struct Counters {
    new: IntCounter,
    same: IntCounter,
    failed: IntCounter,
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("{0}")]
    Https(#[from] HttpsError),
    #[error("{0}")]
    Authorities(#[from] TlsError),
    #[error("the authorities could not be read")]
    Aborted,
    #[error("{0}: {1}")]
    File(PathBuf, std::io::Error),
    #[error("longer than {LONGEST} octets")]
    TooLong,
    #[error("{0}")]
    KeySet(#[from] KeySetError),
}

impl Issuers {
    fn new(metrics: &Arc<Metrics>, shutdown: Shutdown, pause: Duration) -> Self {
        Self {
            by_name: Mutex::default(),
            metrics: Arc::clone(metrics),
            shutdown,
            pause,
        }
    }

    /// Fetches the keys of all issuers, as long as they are in the configuration.
    pub(crate) fn follow(
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        metrics: &Arc<Metrics>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let issuers = Arc::new(Self::new(metrics, shutdown.clone(), PAUSE));
        let following = Arc::clone(&issuers);
        tokio::spawn(async move {
            loop {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                following.keep_to(&snapshot);
                tokio::select! {
                    changed = snapshots.changed() => if changed.is_err() { return },
                    () = shutdown.requested() => return,
                }
            }
        });
        issuers
    }

    /// The keys that hold now; asks if there are none, unless that was done just now. `None` when they can't be had.
    pub(crate) async fn keys(&self, issuer: &TokenIssuer) -> Option<Arc<KeySet>> {
        let keep = issuer.keep_keys_for.duration();
        let issuer = self.issuer(issuer);
        if let Some(keys) = issuer.cache().keys(keep, Instant::now()) {
            return Some(keys);
        }
        issuer.ask_again().await;
        issuer.cache().keys(keep, Instant::now())
    }

    /// For a token of a key that is not among those: asks again, unless that was done just now. `None` when nobody can
    /// say.
    pub(crate) async fn newer_keys(&self, issuer: &TokenIssuer) -> Option<Arc<KeySet>> {
        let keep = issuer.keep_keys_for.duration();
        let issuer = self.issuer(issuer);
        issuer.ask_again().await;
        let cache = issuer.cache();
        cache
            .keys(keep, Instant::now())
            .filter(|_| !cache.has_failed())
    }

    fn keep_to(&self, snapshot: &Snapshot) {
        let mut names: Vec<&str> = Vec::new();
        for issuer in snapshot.token_issuers() {
            names.push(&issuer.name);
            self.issuer(issuer);
        }
        let mut by_name = self.lock();
        by_name.retain(|name, _| names.contains(&name.as_str()));
    }

    /// The one of the document; another one when its keys are elsewhere now.
    fn issuer(&self, issuer: &TokenIssuer) -> Arc<Issuer> {
        let mut by_name = self.lock();
        if let Some(found) = by_name.get(&issuer.name)
            && found.source == issuer.keys
        {
            return Arc::clone(found);
        }
        let counter = |outcome| self.metrics.token_key_fetches(&issuer.name, outcome);
        let made = Arc::new(Issuer {
            name: issuer.name.clone(),
            source: issuer.keys.clone(),
            cache: Mutex::new(Cache::new(self.pause)),
            flight: tokio::sync::Mutex::default(),
            counters: Counters {
                new: counter("new"),
                same: counter("same"),
                failed: counter("failed"),
            },
            gone: self.shutdown.child(),
        });
        let of_task = Arc::downgrade(&made);
        let gone = made.gone.clone();
        tokio::spawn(async move {
            while let Some(issuer) = of_task.upgrade() {
                let asked = Instant::now();
                issuer.fetch(asked).await;
                let due = issuer.cache().due(asked);
                drop(issuer);
                tokio::select! {
                    () = tokio::time::sleep_until(due) => {}
                    () = gone.requested() => return,
                }
            }
        });
        by_name.insert(issuer.name.clone(), Arc::clone(&made));
        made
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Issuer>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.gone.request();
    }
}

impl Issuer {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_again(&self) {
        let now = Instant::now();
        if self.cache().may_ask(now) {
            self.fetch(now).await;
        }
    }

    /// Fetches the keys, unless somebody else has since `asked`.
    async fn fetch(&self, asked: Instant) {
        let _flight = self.flight.lock().await;
        if self.cache().was_told_after(asked) {
            return;
        }
        let etag = self.cache().etag();
        let fetched = fetch(&self.source, etag.as_deref()).await;
        let had_failed = self.cache().has_failed();
        match fetched {
            Ok((keys, answer)) => {
                match &keys {
                    Some(keys) => self.report(keys),
                    None => self.counters.same.inc(),
                }
                if had_failed {
                    tracing::info!(
                        issuer = self.name,
                        "the keys of the token issuer can be had again"
                    );
                }
                self.cache().told(Instant::now(), keys, answer);
            }
            Err(error) => {
                self.counters.failed.inc();
                self.cache().failed(Instant::now());
                if had_failed {
                    tracing::debug!(issuer = self.name, %error, "still no keys of the token issuer");
                } else {
                    tracing::error!(issuer = self.name, %error, "the keys of the token issuer cannot be had; those that are there hold as long as keepKeysFor says");
                }
            }
        }
    }

    fn report(&self, keys: &KeySet) {
        self.counters.new.inc();
        tracing::debug!(
            issuer = self.name,
            keys = keys.len(),
            "keys of the token issuer"
        );
        if keys.is_empty() {
            tracing::warn!(
                issuer = self.name,
                "the token issuer has no key that can be used: none of its tokens is taken"
            );
        }
    }
}

/// The keys, unless they are those that the etag is of.
async fn fetch(
    source: &TokenKeys,
    etag: Option<&str>,
) -> Result<(Option<KeySet>, Answer), FetchError> {
    let (document, answer) = match source {
        TokenKeys::File(path) => (Some(read_file(path).await?), Answer::of_file()),
        TokenKeys::Url { url, authorities } => {
            let authorities = authorities.clone();
            // Read each time: they may have been renewed.
            let client =
                tokio::task::spawn_blocking(move || HttpsClient::trusting(authorities.as_deref()));
            let client = client.await.map_err(|_| FetchError::Aborted)??;
            let fetched = client
                .get(Get {
                    url,
                    addresses: &[],
                    etag,
                    patience: PATIENCE,
                    most: LONGEST,
                })
                .await?;
            let answer = Answer {
                etag: fetched.etag,
                holds_for: fetched.max_age,
            };
            (fetched.document, answer)
        }
    };
    let Some(document) = document else {
        return Ok((None, answer));
    };
    let (keys, left_out) = KeySet::read(&document)?;
    for key in left_out {
        tracing::debug!(key = key.id, error = %key.error, "a key of a token issuer is left out");
    }
    Ok((Some(keys), answer))
}

async fn read_file(path: &Path) -> Result<Vec<u8>, FetchError> {
    let failed = |error| FetchError::File(path.to_owned(), error);
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut document = Vec::new();
    let mut file = file.take(LONGEST as u64 + 1);
    file.read_to_end(&mut document).await.map_err(failed)?;
    if document.len() > LONGEST {
        return Err(FetchError::TooLong);
    }
    Ok(document)
}

#[cfg(test)]
mod tests;
