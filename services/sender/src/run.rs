//! The service: start, work, graceful stop.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proto::{BatchingSigner, Dispatch, GrpcDispatch, Sign, TellKeys};
use runtime::{Bootstrap, HttpsClient, Shutdown};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::content::{ReadMessage, SpooledMessages};
use crate::delivery::Tools;
use crate::desk::Desk;
use crate::domain_checks::DomainChecks;
use crate::metrics::{DomainMetrics, Metrics};
use crate::policies::{Clock, Fetching, Policies};
use crate::reporting::{Reporting, Tell};
use crate::session::{Names, Opener};
use crate::stream::{Sender, hold_stream};
use crate::transcript::Keeping;

/// The ways to the other services.
pub struct Links {
    /// Signs; calls are batched here.
    pub signer: Arc<dyn Sign>,
    /// Tells of its keys.
    pub keys: Arc<dyn TellKeys>,
    /// Assigns work.
    pub schedulers: Schedulers,
}

/// Where the schedulers are.
pub enum Schedulers {
    /// These and no others: in the same process.
    Fixed(Vec<Arc<dyn Dispatch>>),
    /// Those that are announced in the stores as members of the kind `scheduler`, with `host:port` as value.
    Announced,
}

/// The sender can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The resolver can't be set up.
    #[error("DNS: {0}")]
    Dns(#[from] dns::Error),
    /// The TLS library refuses its configuration.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The authorities that are to be trusted can't be read.
    #[error("sender.{0}")]
    Authorities(#[from] runtime::TlsError),
    /// What is published about domains can't be looked at.
    #[error("sender.domainChecks: {0}")]
    Doctor(#[from] records::Error),
    /// The stores are not those of an installation.
    #[error("{0}")]
    Stores(#[from] spool::Error),
}

/// Kind under which schedulers announce themselves.
const SCHEDULER: &str = "scheduler";
/// Memory for blocks.
const BLOCK_CACHE: usize = 64 * 1024 * 1024;
/// After the last delivery, reports may take so long to be stored.
const STORING_PATIENCE: Duration = Duration::from_secs(15);
/// The last of what is counted for reports may take so long to be told.
const LAST_TELLING: Duration = Duration::from_secs(3);
/// How often a stop looks whether everything is done.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// Runs the sender until shutdown, then finishes what is begun (at most `drainTimeout`).
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    links: Links,
    stores: spool::Stores,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let reader = stores.message_reader(BLOCK_CACHE);
    let cache = reader.clone();
    let resolver = if bootstrap.sender.dane {
        dns::Resolver::believing(&bootstrap.resolvers)?
    } else {
        tracing::info!("DANE is off: sender.dane is not enabled");
        dns::Resolver::new(&bootstrap.resolvers)?
    };
    let validation = crate::validation::watch(resolver.clone(), bootstrap.sender.dane);
    let configured = bootstrap.sender.transcripts;
    let transcripts = configured
        .enabled
        .then(|| stores.transcript_writer("sender"));
    let keeping = transcripts.clone().map(|writer| Keeping {
        keep: Arc::new(move |transcript| {
            // What finds no room is counted by the writer.
            let _kept: bool = writer.tell(transcript);
        }),
        one_in: configured.one_in,
    });
    let watching = count(cache, transcripts.clone(), shutdown.clone());
    let is_told = bootstrap.tls_reports.is_some() || bootstrap.sender.domain_checks.is_some();
    let events = is_told.then(|| stores.event_writer("sender"));
    let tell = events.clone().map(|writer| -> Tell {
        Arc::new(move |event| {
            // What finds no room is lost: it is history, and counts.
            let _kept: bool = writer.tell(event);
        })
    });
    let checks = domain_checks(&bootstrap, &stores, &links, tell.clone(), &shutdown).await?;
    let checking = tokio::spawn(async move {
        if let Some(checks) = checks {
            checks.run().await;
        }
    });
    let reporting = tell.filter(|_| bootstrap.tls_reports.is_some());
    let (authorities, fetching) = trust(&bootstrap.sender)?;
    let settings = Settings {
        hostname: bootstrap.hostname.to_string(),
        credit: bootstrap.sender.credit,
        sources: bootstrap.sender.sources.clone(),
        drain_timeout: bootstrap.sender.drain_timeout.duration(),
        authorities,
        fetching,
        transcripts: keeping,
        reporting,
    };
    let served = serve(
        settings,
        links,
        Arc::new(SpooledMessages::new(reader)),
        resolver,
        Some(stores.members()),
        shutdown,
    );
    let served = tokio::select! {
        served = served => served,
        never = watching => match never {},
        never = validation => match never {},
    };
    if let Some(transcripts) = transcripts {
        transcripts.flush().await;
    }
    checking.abort();
    if let Some(events) = events {
        events.flush().await;
    }
    served
}

/// What looks at what is published about domains, when it is configured.
async fn domain_checks(
    bootstrap: &Bootstrap,
    stores: &spool::Stores,
    links: &Links,
    tell: Option<Tell>,
    shutdown: &Shutdown,
) -> Result<Option<DomainChecks>, Error> {
    let (Some(every), Some(tell)) = (bootstrap.sender.domain_checks, tell) else {
        return Ok(None);
    };
    let mut doctor = records::Doctor::new(&bootstrap.resolvers)?;
    let authorities = bootstrap.sender.authorities.as_deref();
    if let Err(error) = doctor.fetch(authorities, bootstrap.sender.mta_sts.port) {
        tracing::warn!(%error, "MTA-STS policies of our domains are not looked at");
    }
    let snapshots = tokio::select! {
        snapshots = stores.follow_snapshots() => snapshots?,
        () = shutdown.requested() => return Ok(None),
    };
    Ok(Some(DomainChecks {
        marks: stores.marks(),
        snapshots,
        keys: links.keys.clone(),
        doctor,
        hostname: bootstrap.hostname.to_string(),
        every,
        tell,
        metrics: DomainMetrics::new(),
        shutdown: shutdown.clone(),
    }))
}

/// Who is trusted to have signed certificates, and how policies are fetched. A system that names nobody is no reason to
/// send nothing; a file that names nobody is a mistake.
fn trust(
    configured: &runtime::bootstrap::Sender,
) -> Result<(Option<rustls::RootCertStore>, Option<Fetching>), runtime::TlsError> {
    let file = configured.authorities.as_deref();
    let authorities = match runtime::trusted_authorities(file) {
        Err(error) if file.is_none() => {
            tracing::warn!(%error, "no certificate can be checked: MTA-STS is off, and mail with REQUIRETLS is returned");
            return Ok((None, None));
        }
        authorities => authorities?,
    };
    let mta_sts = &configured.mta_sts;
    let fetching = Fetching {
        https: HttpsClient::trusting(file)?,
        port: mta_sts.port,
        allow_private: mta_sts.allow_private,
        clock: Clock::default(),
    };
    Ok((
        Some(authorities),
        Some(fetching).filter(|_| mta_sts.enabled),
    ))
}

/// What a sender is told.
pub(crate) struct Settings {
    /// Our own name: mail is not sent to hosts of that name.
    pub hostname: String,
    /// Deliveries that each scheduler may have here.
    pub credit: u32,
    /// Names of the egress sources that it has; empty = all.
    pub sources: Vec<String>,
    /// Time for what is begun when a stop is asked for.
    pub drain_timeout: Duration,
    /// Who may have signed the certificates of mail hosts; `None`: nobody is trusted.
    pub authorities: Option<rustls::RootCertStore>,
    /// How the policies of domains are fetched; `None`: they are not.
    pub fetching: Option<Fetching>,
    /// What is kept of dialogues; `None`: nothing.
    pub transcripts: Option<Keeping>,
    /// Who hears what TLS came to, of domains that ask for reports; `None`: nobody.
    pub reporting: Option<Tell>,
}

/// [`run`] with other sources of messages and names.
pub(crate) async fn serve(
    settings: Settings,
    links: Links,
    messages: Arc<dyn ReadMessage>,
    resolver: dns::Resolver,
    members: Option<spool::Members>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new());
    let desk = Desk::new(metrics.clone());
    let reporting = Reporting::new(settings.reporting);
    let policies = match settings.fetching {
        Some(fetching) => Policies::new(
            resolver.clone(),
            fetching,
            metrics.clone(),
            reporting.clone(),
        ),
        None => Policies::off(),
    };
    let fresh = tokio::spawn(policies.clone().keep_fresh());
    let telling = tokio::spawn(reporting.clone().keep_telling(resolver.clone()));
    let names = Names {
        resolver: resolver.clone(),
        policies,
        reporting: reporting.clone(),
        own_name: settings.hostname,
    };
    let opener = Opener::new(names, settings.authorities, metrics.clone())?;
    let sender = Arc::new(Sender {
        sender_id: uuid::Uuid::now_v7().to_string(),
        credit: settings.credit,
        sources: settings.sources,
        desk: desk.clone(),
        tools: Arc::new(Tools {
            messages,
            signer: Arc::new(BatchingSigner::new(links.signer)),
            opener,
            transcripts: settings.transcripts,
            metrics,
        }),
        draining: CancellationToken::new(),
    });
    let end = CancellationToken::new();
    match (links.schedulers, members) {
        (Schedulers::Fixed(schedulers), _) => {
            for scheduler in schedulers {
                let (_, wanted) = watch::channel(true);
                tokio::spawn(hold_stream(sender.clone(), scheduler, wanted, end.clone()));
            }
        }
        (Schedulers::Announced, Some(members)) => drop(tokio::spawn(follow_members(
            sender.clone(),
            members,
            end.clone(),
        ))),
        (Schedulers::Announced, None) => tracing::error!("no members to find the schedulers among"),
    }
    tracing::info!(
        sender = sender.sender_id,
        credit = sender.credit,
        "sender started"
    );

    shutdown.requested().await;
    drain(&desk, &sender.draining, settings.drain_timeout).await;
    end.cancel();
    fresh.abort();
    telling.abort();
    let told = tokio::time::timeout(LAST_TELLING, reporting.tell(&resolver));
    if told.await.is_err() {
        tracing::warn!(
            "some of what TLS came to is missing in reports: the DNS did not answer in time"
        );
    }
    Ok(())
}

async fn drain(desk: &Desk, draining: &CancellationToken, timeout: Duration) {
    draining.cancel();
    desk.drain();
    let until = Instant::now() + timeout;
    while desk.open().0 > 0 && Instant::now() < until {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    let (cut, _) = desk.open();
    if cut > 0 {
        tracing::warn!(
            cut,
            "deliveries are cut off: those whose final dot was sent are in doubt"
        );
    }
    let until = Instant::now() + STORING_PATIENCE;
    while desk.open().1 > 0 && Instant::now() < until {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
    let (_, unstored) = desk.open();
    if unstored > 0 {
        tracing::warn!(
            unstored,
            "reports that no scheduler stored are lost: their deliveries are in doubt"
        );
    }
    // What the outboxes hold goes out, and QUIT is answered.
    tokio::time::sleep(DRAIN_LOOK).await;
}

/// Holds a stream to every announced scheduler. One whose announcement ends keeps its stream as long as
/// that stands: the stores may be slow, and the scheduler well.
async fn follow_members(sender: Arc<Sender>, members: spool::Members, end: CancellationToken) {
    let mut announced = members.watch(SCHEDULER);
    let mut streams: HashMap<String, (watch::Sender<bool>, JoinHandle<()>)> = HashMap::new();
    loop {
        let present = announced.borrow_and_update().clone();
        if let Some(present) = present {
            let addresses: HashSet<String> = present
                .values()
                .filter_map(|value| String::from_utf8(value.to_vec()).ok())
                .collect();
            streams.retain(|address, (wanted, task)| {
                wanted.send_replace(addresses.contains(address));
                !task.is_finished()
            });
            for address in addresses {
                if streams.contains_key(&address) {
                    continue;
                }
                match GrpcDispatch::new(&address) {
                    Ok(scheduler) => {
                        let (wanted, is_wanted) = watch::channel(true);
                        let task = tokio::spawn(hold_stream(
                            sender.clone(),
                            Arc::new(scheduler),
                            is_wanted,
                            end.clone(),
                        ));
                        streams.insert(address, (wanted, task));
                    }
                    Err(error) => {
                        tracing::error!(%error, "an announced scheduler has no usable address")
                    }
                }
            }
        }
        tokio::select! {
            changed = announced.changed() => if changed.is_err() { return },
            () = end.cancelled() => return,
        }
    }
}

/// Shows the counters of the block cache, and of transcripts.
async fn count(
    reader: spool::MessageReader,
    transcripts: Option<spool::TranscriptWriter>,
    shutdown: Shutdown,
) -> std::convert::Infallible {
    let metrics = crate::metrics::cache();
    let told = crate::metrics::transcripts();
    let mut seen = spool::ReaderStats::default();
    let mut seen_told = spool::PackStats::default();
    loop {
        let stats = reader.stats();
        metrics.hits.inc_by(stats.hits - seen.hits);
        metrics.fetches.inc_by(stats.fetches - seen.fetches);
        metrics
            .bytes
            .set(i64::try_from(stats.cached_bytes).unwrap_or(i64::MAX));
        seen = stats;
        if let Some(transcripts) = &transcripts {
            let now = transcripts.stats();
            told.stored.inc_by(now.stored - seen_told.stored);
            told.crowded_out
                .inc_by(now.crowded_out - seen_told.crowded_out);
            told.given_up.inc_by(now.given_up - seen_told.given_up);
            seen_told = now;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        if shutdown.is_requested() {
            std::future::pending::<()>().await;
        }
    }
}
