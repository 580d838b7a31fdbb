//! What is published about the sending domains, looked at again and again as `staffetta doctor domain` does: shown by metrics,
//! and told as an event when it is other than it was.
//!
//! One sender looks at a time: where it is, and what was found, stands in a mark that all senders read. Here and not
//! elsewhere, since senders ask the DNS and https servers outside anyhow, and reach the signers.

mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Snapshot;
use mail::{Domain, Span};
use proto::TellKeys;
use proto::event::event::Kind;
use proto::event::{DomainChecked, DomainFinding, Event};
use proto::signer::{KeyState, KeysRequest};
use records::{Doctor, Finding, Key, Source, Subject, Verdict, domains_and_pools};
use runtime::{Shutdown, now_ms};
use spool::{AtWork, Marks};
use tokio::sync::watch;

use crate::metrics::DomainMetrics;
use crate::reporting::Tell;
pub(crate) use state::{Difference, State, TOPICS};

/// How often is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(30);
/// Who looks writes so often how far it is.
const STEP: Duration = Duration::from_secs(30);
/// Who looks has not written for so long: another goes on.
const PATIENCE: Duration = Duration::from_secs(300);
/// For one domain and pool.
const LONGEST: Duration = Duration::from_secs(120);
/// Between two of them, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Domains with their pools; more are not looked at.
const MOST: usize = 10_000;
/// Name of the mark.
const WORK: &str = "domain-checks";

/// Looks at the domains of an installation.
pub(crate) struct DomainChecks {
    pub marks: Marks,
    /// The configuration.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub keys: Arc<dyn TellKeys>,
    pub doctor: Doctor,
    /// What sources say in EHLO that have no name of their own.
    pub hostname: String,
    /// From the begin of a pass over all of them to that of the next.
    pub every: Span,
    pub tell: Tell,
    pub metrics: DomainMetrics,
    pub shutdown: Shutdown,
}

/// Why a pass ended before its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Stores(#[from] spool::Error),
    #[error("{0}")]
    Signer(#[from] proto::CallError),
    #[error("another sender looks")]
    Overtaken,
    #[error("the sender stops")]
    Shutdown,
}

/// The mark, as we wrote or read it.
struct Written {
    state: State,
    revision: u64,
    at: Instant,
}

impl DomainChecks {
    /// Until shutdown.
    pub async fn run(self) {
        let mut others = AtWork::new(PATIENCE);
        while !self.shutdown.is_requested() {
            match self.look(&mut others).await {
                Ok(()) | Err(Ended::Overtaken | Ended::Shutdown) => {}
                Err(ended) => tracing::warn!(%ended, "domains are not looked at now"),
            }
            self.pause(LOOK).await;
        }
    }

    async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.shutdown.requested() => {}
        }
    }

    async fn look(&self, others: &mut AtWork) -> Result<(), Ended> {
        let mark = self.marks.get(WORK).await?;
        let somebody_is_at_it = others.sees(&mark, Instant::now());
        let state = State::read(mark.value.as_deref());
        self.metrics.show(&state);
        let is_due = state.is_due(now_ms(), self.every.as_millis());
        if !is_due || state.is_under_way() && somebody_is_at_it {
            return Ok(());
        }
        let snapshot = self.snapshots.borrow().clone();
        if snapshot.is_empty() {
            return Ok(());
        }
        let mut written = Written {
            state: state.begin(now_ms()),
            revision: mark.revision,
            at: Instant::now(),
        };
        self.write(&mut written).await?;
        let passed = self.pass(&snapshot, &mut written).await;
        others.wrote(written.revision);
        self.metrics.show(&written.state);
        passed
    }

    /// Looks at what was not looked at yet in this pass.
    async fn pass(&self, snapshot: &Snapshot, written: &mut Written) -> Result<(), Ended> {
        let pairs = domains_and_pools(snapshot);
        if pairs.len() > MOST {
            tracing::warn!(
                domains = pairs.len(),
                looked_at = MOST,
                "too many domains and pools to look at"
            );
        }
        let pairs: Vec<(String, String)> = pairs.into_iter().take(MOST).collect();
        written.state.keep_only(&pairs);
        let pause = self.pause_between(pairs.len());
        let keys = self.all_keys().await?;
        let mut has_looked = false;
        for (domain, pool) in &pairs {
            let name = state::name(domain, pool);
            if written.state.is_past(&name) {
                continue;
            }
            if has_looked {
                self.pause(pause).await;
            }
            if self.shutdown.is_requested() {
                self.write(written).await?;
                return Err(Ended::Shutdown);
            }
            has_looked = true;
            if let Some(findings) = self.examine(snapshot, &keys, domain, pool).await {
                let difference = written.state.note(&name, &findings);
                self.metrics.checked(difference);
                if difference == Difference::Changed {
                    let tenant = snapshot.sending_domain(domain).map(|of| of.tenant.clone());
                    (self.tell)(event(tenant.unwrap_or_default(), domain, pool, &findings));
                }
            }
            if written.at.elapsed() >= STEP {
                self.write(written).await?;
            }
        }
        written.state.end(now_ms());
        self.write(written).await
    }

    /// All together take half of the time that there is.
    fn pause_between(&self, pairs: usize) -> Duration {
        let whole = Duration::from_millis(self.every.as_millis() / 2);
        let pairs = u32::try_from(pairs.max(1)).unwrap_or(u32::MAX);
        (whole / pairs).min(LONGEST_PAUSE)
    }

    /// `None`: it is not configured as it was any more.
    async fn examine(
        &self,
        snapshot: &Snapshot,
        keys: &BTreeMap<String, Vec<KeyState>>,
        domain: &str,
        pool: &str,
    ) -> Option<Vec<Finding>> {
        let sending_domain = snapshot.sending_domain(domain)?;
        let sources = Source::of_pool(snapshot.pool(pool)?, Some(&self.hostname)).ok()?;
        let own = keys.get(domain).map_or(&[][..], Vec::as_slice);
        let now = now_ms();
        let keys = own.iter().map(|key| Key::of(key, now)).collect();
        let domain = Domain::parse(domain).ok()?;
        let subject = Subject::of(&domain, sending_domain, keys, sources);
        // Later, when it takes too long: the DNS of others is slow.
        tokio::time::timeout(LONGEST, self.doctor.examine(&subject))
            .await
            .ok()
    }

    /// The keys of all domains, by domain.
    async fn all_keys(&self) -> Result<BTreeMap<String, Vec<KeyState>>, Ended> {
        let mut keys: BTreeMap<String, Vec<KeyState>> = BTreeMap::new();
        let mut after = String::new();
        loop {
            let request = KeysRequest {
                domain: String::new(),
                after: after.clone(),
            };
            let answer = self.keys.keys(request).await?;
            let last = answer.keys.last().map(|key| key.domain.clone());
            for key in answer.keys {
                keys.entry(key.domain.clone()).or_default().push(key);
            }
            match last {
                // Domains come in order; one that does not go on would never end.
                Some(last) if answer.more && last > after => after = last,
                _ => return Ok(keys),
            }
        }
    }

    async fn write(&self, written: &mut Written) -> Result<(), Ended> {
        let value = written.state.written();
        match self.marks.set(WORK, value, written.revision).await? {
            Some(revision) => {
                written.revision = revision;
                written.at = Instant::now();
                Ok(())
            }
            None => Err(Ended::Overtaken),
        }
    }
}

fn event(tenant: String, domain: &str, pool: &str, findings: &[Finding]) -> Event {
    let told = findings.iter().filter_map(|finding| {
        let severity = match finding.verdict {
            Verdict::Wrong => "error",
            Verdict::Note => "warning",
            Verdict::Fine | Verdict::Unknown => return None,
        };
        Some(DomainFinding {
            check: finding.topic.as_str().to_owned(),
            severity: severity.to_owned(),
            text: format!("{}: {}", finding.at, finding.what),
        })
    });
    Event {
        at_ms: now_ms(),
        tenant,
        kind: Some(Kind::DomainChecked(DomainChecked {
            domain: domain.to_owned(),
            pool: pool.to_owned(),
            findings: told.collect(),
        })),
        ..Event::default()
    }
}
