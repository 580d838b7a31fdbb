//! Reports about TLS to the domains that ask for them (RFC 8460): one for each domain and UTC day, for the whole installation.
//!
//! Some time after midnight, what senders have told of the day before is read out of the stream `EVENTS`, added up, and
//! sent as mail of our own. One process does so at a time: how far it is stands in a mark that nobody else may have written
//! meanwhile. A report has ids that follow from its domain and day, so that one that is stored again is stored once.

mod letter;
mod progress;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use mail::{Address, PartitionId};
use proto::event::event::Kind;
use runtime::bootstrap::TlsReports;
use runtime::{Shutdown, now_ms};
use spool::{AtWork, Stores, decode_events};
use tlsrpt::{Day, Endpoint, Report, Reporter, Tally};

use crate::metrics::TlsReportMetrics;
use crate::tenants::Tenants;
use letter::{Ids, block};
use progress::Progress;

/// Senders tell what they counted a few minutes later.
const AFTER_MIDNIGHT: Duration = Duration::from_secs(20 * 60);
/// Reports leave within so long from then on, each at its own time (RFC 8460 section 4: a wait of up to four hours).
const SPREAD: Duration = Duration::from_secs(3 * 3600);
/// How often is looked whether there is something to do.
const LOOK: Duration = Duration::from_secs(60);
/// Who does the work has not written for so long: another goes on.
const PATIENCE: Duration = Duration::from_secs(120);
/// Recipients of a report.
const MOST_RECIPIENTS: usize = 4;
/// Name of the mark.
const WORK: &str = "tls-reports";
/// Who tells what TLS came to.
const SENDER: &str = "sender";

/// Makes the reports of an installation.
pub(crate) struct TlsReporting {
    pub(crate) stores: Stores,
    pub(crate) partitions: u32,
    pub(crate) configured: TlsReports,
    pub(crate) resolver: dns::Resolver,
    pub(crate) tenants: Tenants,
    pub(crate) metrics: TlsReportMetrics,
    pub(crate) shutdown: Shutdown,
}

/// Why a pass over a day ended before its end.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Stores(#[from] spool::Error),
    #[error("a report can't be stored: {0}")]
    Publish(#[from] spool::SubmitError),
    #[error("the DNS does not answer about {0} domains")]
    Dns(usize),
    #[error("there is no tenant {0}")]
    NoTenant(String),
    #[error("another process does it")]
    Overtaken,
}

impl TlsReporting {
    /// Until shutdown.
    pub(crate) async fn run(self) {
        let mut others = AtWork::new(PATIENCE);
        loop {
            tokio::select! {
                looked = self.look(&mut others) => match looked {
                    Ok(()) | Err(Ended::Overtaken) => {}
                    Err(ended) => {
                        self.metrics.failed.inc();
                        tracing::warn!(%ended, "reports about TLS wait");
                    }
                },
                () = self.shutdown.requested() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    /// Does what is to be done, unless somebody else is at it.
    async fn look(&self, others: &mut AtWork) -> Result<(), Ended> {
        let since_midnight = u64::try_from(AFTER_MIDNIGHT.as_millis()).unwrap_or(u64::MAX);
        let day = Day::of(now_ms().saturating_sub(since_midnight)).before();
        let mark = self.stores.marks().get(WORK).await?;
        let somebody_is_at_it = others.sees(&mark, Instant::now());
        let progress = Progress::read(mark.value.as_deref());
        if progress.is_done(day) {
            return Ok(());
        }
        if progress.is_under_way(day) && somebody_is_at_it {
            return Ok(());
        }
        let mut at = Mark {
            revision: mark.revision,
            progress: progress.begin(day),
        };
        self.step(&mut at).await?;
        let reported = self.report(day, &mut at).await;
        others.wrote(at.revision);
        reported
    }

    /// Reports what is not reported yet of a day.
    async fn report(&self, day: Day, at: &mut Mark) -> Result<(), Ended> {
        let tenant = &self.configured.tenant;
        let stream = self.tenants.known_default_stream(tenant);
        let stream = stream.ok_or_else(|| Ended::NoTenant(tenant.clone()))?;
        let (tally, next) = self.tally(day, at.progress.from).await?;
        if tally.left_out() > 0 {
            tracing::warn!(%day, sessions = tally.left_out(), "too many domains ask for reports about TLS: some sessions are in none");
        }
        let is_late = now_ms() > day.after().after().start_ms();
        let again = at.progress.unanswered.clone();
        let after = at.progress.after.clone();
        let again = again.iter().map(String::as_str);
        for domain in again.chain(tally.domains(&after)) {
            let is_answered = match self.send(domain, day, &tally, &stream).await {
                Ok(()) => true,
                Err(Ended::Dns(_)) => is_late,
                Err(ended) => return Err(ended),
            };
            if !at.progress.pass(domain, is_answered) {
                break;
            }
            self.step(at).await?;
        }
        let unanswered = at.progress.unanswered.len();
        if unanswered > 0 {
            return Err(Ended::Dns(unanswered));
        }
        at.progress = Progress::done(day, next);
        self.step(at).await?;
        tracing::info!(%day, domains = tally.domains("").count(), "reports about TLS are made");
        Ok(())
    }

    /// Writes down how far it is.
    async fn step(&self, at: &mut Mark) -> Result<(), Ended> {
        let value = at.progress.written();
        let marks = self.stores.marks();
        match marks.set(WORK, value, at.revision).await? {
            Some(revision) => {
                at.revision = revision;
                Ok(())
            }
            None => Err(Ended::Overtaken),
        }
    }

    /// What senders told of a day, and the sequence at which that of the next one begins.
    async fn tally(&self, day: Day, from: u64) -> Result<(Tally, u64), Ended> {
        let mut reader = self.stores.events().read_of(SENDER, from);
        let mut tally = Tally::default();
        let mut read_up_to = from.max(1) - 1;
        let mut later = None;
        while let Some(record) = reader.next().await {
            let record = record?;
            read_up_to = record.sequence;
            // History: what can't be read is not there.
            let Ok(events) = decode_events(&record.bytes) else {
                continue;
            };
            for event in events.events {
                let of = Day::of(event.at_ms);
                match event.kind {
                    Some(Kind::TlsSessions(told)) if of == day => tally.add(&told),
                    Some(Kind::TlsSessions(_)) if of > day => {
                        later.get_or_insert(record.sequence);
                    }
                    _ => {}
                }
            }
        }
        Ok((tally, later.unwrap_or(read_up_to + 1)))
    }

    /// Sends the report of a domain, if it still wants one.
    async fn send(&self, domain: &str, day: Day, tally: &Tally, stream: &str) -> Result<(), Ended> {
        let Some(policies) = tally.of(domain) else {
            return Ok(());
        };
        let recipients = self.recipients(domain).await?;
        if recipients.is_empty() {
            self.metrics.reports.with_label_values(&["unwanted"]).inc();
            return Ok(());
        }
        let TlsReports {
            organization,
            contact,
            from,
            tenant,
        } = &self.configured;
        let reporter = Reporter {
            organization: organization.clone(),
            contact: contact.clone(),
            domain: from
                .domain()
                .map_or_else(String::new, |domain| domain.to_string()),
        };
        let ids = Ids::of(domain, day, &reporter);
        let report = Report {
            reporter: &reporter,
            domain,
            day,
            id: &ids.report(),
            policies,
        };
        let spread = u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX);
        let after_midnight = u64::try_from(AFTER_MIDNIGHT.as_millis()).unwrap_or(u64::MAX);
        let not_before_ms = day.after().start_ms() + after_midnight + ids.share_of(spread);
        let (entry, content) = block(
            &letter::Way {
                tenant,
                stream,
                from,
                to: &recipients,
                not_before_ms,
            },
            report,
            &ids,
        );
        let partition = PartitionId(ids.partition(self.partitions));
        self.stores
            .publish_block(partition, ids.block(), vec![(entry, content)], 0)
            .await?;
        self.metrics.reports.with_label_values(&["mail"]).inc();
        tracing::debug!(%day, "a report about TLS is stored");
        Ok(())
    }

    /// Who is to get the domain's report by mail, each once.
    async fn recipients(&self, domain: &str) -> Result<Vec<Address>, Ended> {
        let texts = match self.resolver.texts(&format!("_smtp._tls.{domain}")).await {
            Ok(texts) => texts,
            Err(error) if error.is_permanent() => return Ok(Vec::new()),
            Err(_) => return Err(Ended::Dns(1)),
        };
        let endpoints = tlsrpt::endpoints(texts.iter().map(|text| &**text)).unwrap_or_default();
        let mut known = HashSet::new();
        let by_mail = endpoints.into_iter().filter_map(|endpoint| match endpoint {
            Endpoint::Mail(address) => Some(address),
            Endpoint::Https(_) => None,
        });
        Ok(by_mail
            .filter(|address| known.insert(address.clone()))
            .take(MOST_RECIPIENTS)
            .collect())
    }
}

/// Where the work is.
struct Mark {
    revision: u64,
    progress: Progress,
}
