//! Messages are shown to scanners before they are accepted (requirement A17).
//!
//! Each message has one task per scanner. The content goes to all of them as it goes to storage: pieces of large messages while
//! they come in, the rest when it is complete; pieces are shared, not copied. A message is stored only after every scanner has
//! said yes, or the policy of one that could not say anything. What was uploaded of one that is refused stays without a
//! block that names it, as when a client leaves, and its owner removes it.
//!
//! | module | what is in it |
//! |---|---|
//! | `judgement` | what follows from what a scanner says, or doesn't |
//! | `turns` | how many messages a scanner has at the same time, and whose is next |
//! | `health` | whether a scanner is worth being asked |
//! | `wire` | connections, and how long is waited for them |
//! | `clamav`, `rspamd`, `milter` | the dialogue with each, over the octets of `services/lib/scan` |

mod clamav;
mod health;
mod judgement;
mod metrics;
mod milter;
mod rspamd;
mod turns;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use config::{Engine, Scanner, Snapshot, WhenTooLarge};
use mail::MessageId;
use scan::{Envelope, Verdict};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::answer::Answer;
use crate::connection::Connection;
use crate::session::Transaction;

use health::{Health, Leave};
use judgement::{Failure, Judgement, judge};
use metrics::{ScanMetrics, ScannerMetrics};
use turns::Turns;
use wire::Patience;

/// Memory of the pieces that scanners have not taken yet, beside those on their way to storage, octets: one is being
/// written, one waits, one comes.
pub(crate) const SCAN_MEMORY: usize = 3 * 1024 * 1024;

/// Registers the metrics.
pub(crate) fn register_metrics() {
    ScanMetrics::new();
}

/// All scanners of the process.
pub(crate) struct Scanners {
    live: Mutex<HashMap<Box<str>, Arc<Live>>>,
    metrics: ScanMetrics,
}

/// A scanner of the configuration, and how it is.
struct Live {
    scanner: Arc<Scanner>,
    turns: Turns,
    health: Mutex<Health>,
    /// Connections to clamd in which more messages can follow.
    sessions: clamav::Sessions,
    metrics: ScannerMetrics,
}

impl Live {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What scanners want to be done with a message that is accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Header fields that go before it.
    pub(crate) fields: Vec<u8>,
    /// It is kept until somebody releases it.
    pub(crate) hold: bool,
}

/// A message that is being scanned. When it is dropped, its scanners are left.
pub(crate) struct Scanning {
    jobs: Vec<Job>,
}

/// One scanner at work on one message.
struct Job {
    scanner: Arc<Scanner>,
    /// Until it has all that it gets.
    pieces: Option<mpsc::Sender<Bytes>>,
    fed: u64,
    task: JoinHandle<Judgement>,
    settled: Option<Judgement>,
    metrics: ScannerMetrics,
}

impl Scanners {
    pub(crate) fn new() -> Self {
        Self {
            live: Mutex::default(),
            metrics: ScanMetrics::new(),
        }
    }

    /// The scanner, with what is known of it as long as its document is the same. Forgets those that are gone.
    fn live(&self, snapshot: &Snapshot, name: &str) -> Option<Arc<Live>> {
        let scanner = snapshot.scanner(name)?;
        let mut all = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = all.get(name)
            && live.scanner == *scanner
        {
            return Some(Arc::clone(live));
        }
        all.retain(|name, _| snapshot.scanner(name).is_some());
        let live = Arc::new(Live {
            scanner: Arc::clone(scanner),
            turns: Turns::new(scanner.connections as usize),
            health: Mutex::new(Health::new()),
            sessions: clamav::Sessions::default(),
            metrics: self.metrics.scanner(name),
        });
        all.insert(name.into(), Arc::clone(&live));
        Some(live)
    }
}

impl Connection {
    /// Begins to show a message to the scanners of its tenant and stream. `in_pieces`: the rest of it is still coming in.
    pub(crate) fn begin_scan(
        &self,
        id: MessageId,
        (transaction, snapshot): (&Transaction, &Snapshot),
        (stream, header_length): (&str, u32),
        in_pieces: bool,
    ) -> Scanning {
        let sender = &transaction.sender;
        let names = sender.rules.tenant.scanners_of(stream);
        if names.is_empty() {
            return Scanning { jobs: Vec::new() };
        }
        let client = self.session.origin();
        let envelope = Arc::new(Envelope {
            id: id.to_string(),
            hostname: self.wire.listening.policy.hostname.clone(),
            client: client.is_known().then_some(client.address),
            hello: self.session.client_name().to_owned(),
            user: sender.authenticated_as.clone(),
            return_path: transaction.return_path.clone(),
            recipients: transaction
                .recipients
                .iter()
                .map(|recipient| recipient.address.clone())
                .collect(),
            header_length: header_length as usize,
        });
        let tenant: Arc<str> = sender.tenant.as_str().into();
        let jobs = names
            .iter()
            .filter_map(|name| self.wire.shared.scanners.live(snapshot, name))
            .map(|live| {
                let (envelope, tenant) = (Arc::clone(&envelope), Arc::clone(&tenant));
                Job::begin(live, envelope, tenant, in_pieces)
            })
            .collect();
        Scanning { jobs }
    }
}

impl Scanning {
    /// Whether any scanner looks at the message.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Gives all scanners the next piece of the message; the first one has the header section whole. Waits until there is
    /// room for it, and gives the answer as soon as one of them refuses the message.
    pub(crate) async fn piece(&mut self, piece: &Bytes) -> Result<(), Answer> {
        for job in &mut self.jobs {
            job.feed(piece).await;
        }
        let judgements = self.jobs.iter().filter_map(|job| job.settled.as_ref());
        judgement::refusal(judgements).map_or(Ok(()), Err)
    }

    /// Gives them the last piece, and waits for what they say.
    pub(crate) async fn finish(mut self, rest: &Bytes) -> Result<Marks, Answer> {
        for job in &mut self.jobs {
            job.feed(rest).await;
            job.pieces = None;
        }
        let mut marks = Marks::default();
        for job in &mut self.jobs {
            job.settle().await;
        }
        let judgements = || self.jobs.iter().filter_map(|job| job.settled.as_ref());
        if let Some(refusal) = judgement::refusal(judgements()) {
            return Err(refusal);
        }
        for judgement in judgements() {
            marks.fields.extend_from_slice(&judgement.fields);
            marks.hold |= judgement.hold;
        }
        Ok(marks)
    }
}

impl Job {
    fn begin(live: Arc<Live>, envelope: Arc<Envelope>, tenant: Arc<str>, in_pieces: bool) -> Self {
        let (pieces, coming) = mpsc::channel(1);
        let (scanner, metrics) = (Arc::clone(&live.scanner), live.metrics.clone());
        let task = tokio::spawn(run(live, envelope, tenant, in_pieces, coming));
        Self {
            scanner,
            pieces: Some(pieces),
            fed: 0,
            task,
            settled: None,
            metrics,
        }
    }

    async fn feed(&mut self, piece: &Bytes) {
        let Some(pieces) = &self.pieces else {
            return;
        };
        let left = self.scanner.max_size.as_u64().saturating_sub(self.fed);
        let mut piece = piece.clone();
        let is_too_much = piece.len() as u64 > left;
        if is_too_much && self.scanner.when_too_large != WhenTooLarge::ScanHead {
            self.task.abort();
            self.pieces = None;
            let judgement = judge(&self.scanner, &Ok(scan::Opinion::TooLarge.into()));
            self.metrics.scanned(judgement.label);
            self.settled = Some(judgement);
            return;
        }
        if is_too_much {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        }
        self.fed += piece.len() as u64;
        let is_taken = pieces.send(piece).await.is_ok();
        if is_too_much {
            self.pieces = None;
        }
        if !is_taken {
            // It has decided before it saw everything, or failed.
            self.pieces = None;
            self.settle().await;
        }
    }

    /// Waits for what the scanner says.
    async fn settle(&mut self) {
        if self.settled.is_some() {
            return;
        }
        let judgement = match (&mut self.task).await {
            Ok(judgement) => judgement,
            Err(error) => {
                tracing::error!(scanner = self.scanner.name, %error, "a scan failed");
                judge(
                    &self.scanner,
                    &Err(Failure::Broken("its task failed".into())),
                )
            }
        };
        self.settled = Some(judgement);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Shows one message to one scanner.
async fn run(
    live: Arc<Live>,
    envelope: Arc<Envelope>,
    tenant: Arc<str>,
    in_pieces: bool,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Judgement {
    let _in_flight = live.metrics.begin();
    let begun = Instant::now();
    let mut patience = Patience::new(live.scanner.deadline.duration());
    let outcome = match live.leave(begun) {
        None => Err(Failure::Down),
        Some(trial) => {
            let outcome = attempt(
                &live,
                &trial,
                &envelope,
                &tenant,
                in_pieces,
                &mut patience,
                &mut pieces,
            )
            .await;
            trial.end(&outcome);
            outcome
        }
    };
    let judgement = judge(&live.scanner, &outcome);
    live.metrics.scanned(judgement.label);
    live.metrics.seconds.observe(patience.spent().as_secs_f64());
    report(&live.scanner, &envelope, &judgement, &outcome);
    judgement
}

async fn attempt(
    live: &Live,
    trial: &Trial<'_>,
    envelope: &Envelope,
    tenant: &str,
    in_pieces: bool,
    patience: &mut Patience,
    pieces: &mut mpsc::Receiver<Bytes>,
) -> Result<Verdict, Failure> {
    let slot = live.turns.take(tenant, in_pieces);
    let _slot = patience.spend(slot).await.map_err(|_| Failure::Busy)?;
    // It may have gone down while others were before this message.
    if !trial.is_probe && live.health().is_down() {
        return Err(Failure::Down);
    }
    let address = &live.scanner.address;
    match live.scanner.engine {
        Engine::ClamAv => clamav::scan(address, &live.sessions, patience, pieces).await,
        Engine::Rspamd { .. } => rspamd::scan(address, envelope, patience, pieces).await,
        Engine::Milter => milter::scan(address, envelope, patience, pieces).await,
    }
}

/// Leave to ask a scanner. When it is dropped without an outcome, as when the client leaves, nothing is learnt.
struct Trial<'a> {
    live: &'a Live,
    begun: Instant,
    is_probe: bool,
    has_ended: bool,
}

impl Live {
    fn leave(&self, now: Instant) -> Option<Trial<'_>> {
        let is_probe = match self.health().ask(now) {
            Leave::Yes => false,
            Leave::Probe => true,
            Leave::No => return None,
        };
        Some(Trial {
            live: self,
            begun: now,
            is_probe,
            has_ended: false,
        })
    }
}

impl Trial<'_> {
    fn end(mut self, outcome: &Result<Verdict, Failure>) {
        self.has_ended = true;
        let now = Instant::now();
        let name = self.live.scanner.name.as_str();
        let mut health = self.live.health();
        match outcome {
            Ok(_) => {
                if health.succeeded(now) {
                    tracing::info!(scanner = name, "the scanner answers again");
                }
            }
            // Nothing was learnt of it.
            Err(Failure::Busy | Failure::Down) if self.is_probe => health.abandoned(),
            Err(Failure::Busy | Failure::Down) => {}
            Err(failure) => {
                let went_down = match failure {
                    Failure::Unreachable(_) => health.unreachable(now, self.is_probe),
                    _ => health.failed(now, self.begun, self.is_probe),
                };
                if went_down {
                    tracing::warn!(scanner = name, reason = %failure, "the scanner is down: it is asked again after a pause");
                }
            }
        }
        self.live.metrics.up.set(i64::from(!health.is_down()));
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if self.is_probe && !self.has_ended {
            self.live.health().abandoned();
        }
    }
}

/// Says what became of a message, unless nothing was found.
fn report(
    scanner: &Scanner,
    envelope: &Envelope,
    judgement: &Judgement,
    outcome: &Result<Verdict, Failure>,
) {
    let (name, verdict, id) = (&scanner.name, judgement.label, &envelope.id);
    match outcome {
        Ok(Verdict {
            opinion: scan::Opinion::Unable(reason),
            ..
        }) => {
            tracing::warn!(
                scanner = name,
                message_id = id,
                reason,
                "the scanner can't look at a message"
            );
        }
        Ok(Verdict {
            opinion: scan::Opinion::Infected(found),
            ..
        }) => {
            tracing::info!(
                scanner = name,
                message_id = id,
                verdict,
                found,
                "message scanned"
            );
        }
        Ok(scanned) if judgement.is_clean() => {
            tracing::debug!(
                scanner = name,
                message_id = id,
                verdict,
                score = scanned.score,
                "message scanned"
            );
        }
        Ok(scanned) => {
            tracing::info!(
                scanner = name,
                message_id = id,
                verdict,
                score = scanned.score,
                "message scanned"
            );
        }
        // Said once, when the scanner goes down.
        Err(failure) => {
            tracing::debug!(scanner = name, message_id = id, verdict, reason = %failure, "message not scanned");
        }
    }
}
