//! The events of one source for one webhook: gathered, posted one batch at a time, and settled in order.

use std::sync::Arc;
use std::time::Duration;

use proto::event::event::Kind;
use proto::event::{Event, WebhookGivenUp};
use proto::webhook::{Attempt, DeadLetter, Order};
use runtime::{WebConnection, now_ms};
use spool::{EventWriter, WebhookStore};
use tokio::time::{Instant, timeout_at};

use super::batch::{Batch, id_of};
use super::hook::{Hook, Outcome, reason, verdict};
use super::metrics;
use super::pace::{Next, Pace, Verdict};
use super::shelf::Shelf;
use crate::feed::{Cursor, Parsed, Taken};

/// Records that are passed over before others get their turn.
const BREATH: u32 = 256;
/// Between two attempts at storing what is given up.
const RETRY: Duration = Duration::from_secs(2);

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Delivered,
    /// The last answer, or why there was none.
    GivenUp(String),
}

/// Who is told what becomes of batches.
pub(crate) trait Books: Send {
    /// Something has become of all of it.
    fn settled(&mut self, part: Batch, settled: Settled) -> impl Future<Output = ()> + Send;

    /// Since when the endpoint accepts nothing, Unix milliseconds; 0 = it accepts.
    fn failing(&self, since_ms: u64);
}

/// Posts batches, one after the other.
pub(crate) struct Poster {
    pub(crate) hook: Arc<Hook>,
    /// A partition, `events` or `dead`.
    pub(crate) source: String,
    pub(crate) pace: Pace,
    /// No event counts as older than this, Unix milliseconds.
    pub(crate) not_before_ms: u64,
    connection: Option<WebConnection>,
    /// Of the last failure.
    reason: String,
}

impl Poster {
    pub(crate) fn new(hook: Arc<Hook>, source: String, failing_since_ms: u64) -> Self {
        let pace = Pace::new(hook.config.max_age.duration(), failing_since_ms);
        Self {
            hook,
            source,
            pace,
            not_before_ms: 0,
            connection: None,
            reason: String::new(),
        }
    }

    /// Posts a batch until something has become of all of it, part after part where it was halved.
    pub(crate) async fn settle(&mut self, batch: Batch, books: &mut impl Books) {
        let mut parts = vec![batch];
        'parts: while let Some(part) = parts.pop() {
            let mut posted = part.posted();
            posted.youngest_ms = posted.youngest_ms.max(self.not_before_ms);
            if self.pace.is_hopeless(now_ms(), posted) {
                let given_up = Settled::GivenUp(self.reason.clone());
                books.settled(part, given_up).await;
                continue;
            }
            let mut number = 0;
            loop {
                self.hook.active().await;
                number += 1;
                let (begun, at_ms) = (Instant::now(), now_ms());
                // Not kept while it waits: many may wait.
                let body = part.body(&self.hook.config.name, &self.source);
                let id = id_of(&body);
                let post = self.hook.post(&mut self.connection, &id, &body, at_ms);
                let outcome = post.await;
                drop(body);
                let verdict = verdict(&outcome);
                self.note(&outcome, verdict, &id, part.len(), number, at_ms, begun);
                let next = self.pace.judge(now_ms(), posted, verdict, chance());
                books.failing(self.pace.failing_since_ms());
                match next {
                    Next::Advance => {
                        books.settled(part, Settled::Delivered).await;
                        continue 'parts;
                    }
                    Next::GiveUp => {
                        let given_up = Settled::GivenUp(self.reason.clone());
                        books.settled(part, given_up).await;
                        continue 'parts;
                    }
                    Next::Halve => {
                        let (first, second) = part.halves();
                        parts.extend([second, first]);
                        continue 'parts;
                    }
                    Next::Stop => {
                        tracing::warn!(
                            webhook = self.hook.config.name,
                            "the endpoint is gone (410): nothing is posted until `staffetta webhook enable`"
                        );
                        self.hook.gone(now_ms());
                    }
                    Next::Again(wait) => {
                        self.connection = None;
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of an attempt")]
    fn note(
        &mut self,
        outcome: &Outcome,
        verdict: Verdict,
        id: &str,
        events: usize,
        number: u32,
        at_ms: u64,
        begun: Instant,
    ) {
        let result = match verdict {
            Verdict::Accepted => "accepted",
            Verdict::Refused => "refused",
            Verdict::Gone => "gone",
            Verdict::Failed(_) => "failed",
        };
        self.hook.metrics.attempt(result);
        if verdict != Verdict::Accepted {
            self.reason = reason(outcome);
            tracing::info!(
                webhook = self.hook.config.name,
                source = self.source,
                number,
                reason = self.reason,
                "a post was not accepted"
            );
        }
        self.hook.note(Attempt {
            at_ms,
            took_ms: u32::try_from(begun.elapsed().as_millis()).unwrap_or(u32::MAX),
            id: id.to_owned(),
            source: self.source.clone(),
            events: u32::try_from(events).unwrap_or(u32::MAX),
            number,
            status: outcome.as_ref().map_or(0, |answer| answer.status.into()),
            error: outcome
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default(),
        });
    }
}

/// One source of a webhook.
pub(crate) struct Line {
    pub(crate) poster: Poster,
    pub(crate) cursor: Cursor,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) store: WebhookStore,
    pub(crate) told: EventWriter,
    /// The record that is being gathered from, and the next event in it.
    current: Option<(Arc<Parsed>, usize)>,
}

impl Line {
    pub(crate) fn new(
        poster: Poster,
        cursor: Cursor,
        shelf: Arc<Shelf>,
        store: WebhookStore,
        told: EventWriter,
    ) -> Self {
        Self {
            poster,
            cursor,
            shelf,
            store,
            told,
            current: None,
        }
    }

    /// For ever. What is under way when it is dropped is posted again.
    pub(crate) async fn run(mut self) {
        loop {
            self.poster.hook.active().await;
            let batch = self.gather().await;
            if self.poster.pace.failing_since_ms() > 0 {
                // Many may fail, and for days.
                self.cursor.forget();
            }
            let mut books = Kept {
                hook: Arc::clone(&self.poster.hook),
                source: self.poster.source.clone(),
                shelf: Arc::clone(&self.shelf),
                store: self.store.clone(),
                told: self.told.clone(),
            };
            self.poster.settle(batch, &mut books).await;
        }
    }

    /// Waits for an event, and a little for others.
    async fn gather(&mut self) -> Batch {
        let hook = Arc::clone(&self.poster.hook);
        let most = hook.config.batch;
        let mut batch = Batch::default();
        let mut until = None;
        let mut passed = 0;
        loop {
            if let Some((record, from)) = self.current.take() {
                for (at, piece) in record.pieces.iter().enumerate().skip(from) {
                    if !hook.wants(piece) {
                        continue;
                    }
                    if !batch.takes(&piece.json, most) {
                        self.current = Some((record, at));
                        return batch;
                    }
                    batch.push(piece.json.clone(), record.written_at_ms);
                }
                match batch.is_empty() {
                    true => self.shelf.advance(&hook.config.name, record.sequence),
                    false => batch.reaches(record.sequence),
                }
            }
            if batch.len() >= most {
                return batch;
            }
            if !batch.is_empty() && until.is_none() {
                until = Some(Instant::now() + hook.config.linger.duration());
            }
            passed += 1;
            if passed % BREATH == 0 {
                tokio::task::yield_now().await;
            }
            let taken = match until {
                None => self.cursor.next().await,
                Some(until) => match timeout_at(until, self.cursor.next()).await {
                    Ok(taken) => taken,
                    Err(_) => return batch,
                },
            };
            match taken {
                Taken::Record(record) => self.current = Some((record, 0)),
                Taken::Missing(from, to) => self.missing(from, to),
            }
        }
    }

    fn missing(&self, from: u64, to: u64) {
        let hook = &self.poster.hook;
        let source = self.cursor.source();
        hook.metrics.missed.inc_by(to - from + 1);
        tracing::error!(
            webhook = hook.config.name, %source, from, to,
            "records of events were removed before they were posted"
        );
        let reason =
            format!("records {from} to {to} of {source} were removed before they were read");
        tell(&self.told, hook, 0, reason);
    }
}

/// The books of a line: its place moves, and what is given up is kept elsewhere first.
struct Kept {
    hook: Arc<Hook>,
    source: String,
    shelf: Arc<Shelf>,
    store: WebhookStore,
    told: EventWriter,
}

impl Books for Kept {
    async fn settled(&mut self, part: Batch, settled: Settled) {
        match settled {
            Settled::Delivered => self.hook.metrics.delivered.inc_by(part.len() as u64),
            Settled::GivenUp(reason) => self.bury(&part, reason).await,
        }
        self.shelf.advance(&self.hook.config.name, part.through());
    }

    fn failing(&self, since_ms: u64) {
        self.shelf.failing(&self.hook.config.name, since_ms);
    }
}

impl Kept {
    /// Keeps what is given up, and tells it. Waits until it is stored: what is nowhere is not given up.
    async fn bury(&self, part: &Batch, reason: String) {
        let (hook, source) = (&*self.hook, &self.source);
        let name = &hook.config.name;
        let events = part.events().to_vec();
        let id = format!("dead-{}", id_of(&part.body(name, source)));
        let letter = DeadLetter {
            webhook: name.clone(),
            given_up_ms: now_ms(),
            reason: reason.clone(),
            source: source.clone(),
            events,
            ..DeadLetter::default()
        };
        while let Err(error) = self.store.bury(letter.clone(), &id).await {
            metrics::error("dead_letter");
            tracing::warn!(webhook = name, %error, "what is given up can't be stored yet; posts to this webhook wait");
            tokio::time::sleep(RETRY).await;
        }
        let count = part.len() as u64;
        hook.metrics.given_up.inc_by(count);
        tracing::warn!(
            webhook = name,
            source,
            events = count,
            reason,
            "events were given up"
        );
        tell(&self.told, hook, count, reason);
    }
}

fn tell(told: &EventWriter, hook: &Hook, events: u64, reason: String) {
    // When there is no room it is counted there.
    told.tell(Event {
        at_ms: now_ms(),
        tenant: hook.config.tenant.clone().unwrap_or_default(),
        kind: Some(Kind::WebhookGivenUp(WebhookGivenUp {
            webhook: hook.config.name.clone(),
            events,
            reason,
        })),
        ..Event::default()
    });
}

/// The books of a replay: what is given up again stays where it is.
struct Replayed {
    hook: Arc<Hook>,
    is_accepted: bool,
}

impl Books for Replayed {
    async fn settled(&mut self, part: Batch, settled: Settled) {
        match settled {
            Settled::Delivered => self.hook.metrics.delivered.inc_by(part.len() as u64),
            Settled::GivenUp(_) => self.is_accepted = false,
        }
    }

    fn failing(&self, _: u64) {}
}

/// Posts again what was given up, up to the sequence of an order; what is accepted is removed, and the rest stays. One
/// order at a time, each once.
pub(crate) async fn replay(mut poster: Poster, store: WebhookStore, order: Order) {
    let hook = Arc::clone(&poster.hook);
    let name = &hook.config.name;
    let _one = hook.replay.lock().await;
    if hook.replayed_ms() >= order.replay_at_ms {
        return;
    }
    let mut reader = loop {
        match store.dead_letters(name).await {
            Ok(reader) => break reader,
            Err(error) => {
                tracing::warn!(webhook = name, %error, "what was given up can't be read yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let mut left = 0;
    while let Some(read) = reader.next().await {
        let Ok(pack) = read else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        if pack.sequence > order.replay_to {
            break;
        }
        let letter = match spool::decode_dead_letter(&pack.bytes) {
            Ok(letter) => letter,
            Err(error) => {
                tracing::error!(webhook = name, sequence = pack.sequence, %error, "a dead letter can't be read, and stays");
                left += 1;
                continue;
            }
        };
        let mut batch = Batch::default();
        for event in letter.events {
            batch.push(event, letter.given_up_ms);
        }
        let mut books = Replayed {
            hook: Arc::clone(&hook),
            is_accepted: true,
        };
        poster.settle(batch, &mut books).await;
        if !books.is_accepted {
            left += 1;
        } else if let Err(error) = store.unbury(pack.sequence).await {
            tracing::warn!(webhook = name, %error, "a dead letter was accepted, and is still kept");
        }
    }
    hook.replayed(order.replay_at_ms);
    tracing::info!(
        webhook = name,
        left,
        "what was given up is posted again; what was not accepted either stays"
    );
}

fn chance() -> u8 {
    let mut octet = [0];
    // Without chance, the longest wait.
    aws_lc_rs::rand::fill(&mut octet).ok();
    octet[0]
}
