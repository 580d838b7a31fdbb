//! One partition: its journal is read, what is owed is spooled, the position is kept.

use std::collections::HashMap;
use std::time::Duration;

use mail::PartitionId;
use runtime::Shutdown;
use spool::{JournalError, JournalReader, JournalRecord, MessageReader, ReadError, Stores};
use tokio::time::Instant;

use crate::ledger::{Key, Ledger, Owed};
use crate::metrics::Metrics;
use crate::notification::{NotOwed, notification};
use crate::original;
use crate::tenants::Tenants;

/// Name of this reader in the bucket of reader positions.
pub(crate) const READER: &str = "feedback";
/// The position is written at most so often: each time is a durable write.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Nothing more came for so long: what is owed is not answered further on.
const QUIET: Duration = Duration::from_millis(20);
/// More than this is not collected before it is worked on.
const MOST_PENDING: usize = 1024;
/// Between two attempts at a store that does not answer or a journal that can't be read.
const RETRY: Duration = Duration::from_secs(1);
/// An original that is nowhere is asked for again so long: the journal may still tell where it went.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the lag is looked up.
const LAG_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Follower {
    pub(crate) stores: Stores,
    pub(crate) partition: PartitionId,
    pub(crate) messages: MessageReader,
    pub(crate) tenants: Tenants,
    pub(crate) hostname: String,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
}

/// What became of an attempt to spool a DSN.
enum Spooled {
    /// Stored, or there is nothing to store.
    Done,
    /// The original is not where the journal said.
    Missing,
    /// The stores don't answer or are full.
    Later,
}

/// Why the reading of the journal ended.
enum Ended {
    Shutdown,
    /// Begin again at the saved position, later.
    Again(Duration),
}

/// What one pass of reading knows.
struct Reading {
    ledger: Ledger,
    journal: JournalReader,
    saved: u64,
    save_at: Instant,
    /// The journal's end when the reading began: before it, what is owed may have been spooled long ago.
    end: u64,
    /// Originals that were not found, and since when.
    missing: HashMap<Key, Instant>,
    retry_at: Instant,
}

impl Reading {
    /// So much is owed that it is worked on before more is read.
    fn is_full(&self) -> bool {
        self.ledger.len().saturating_sub(self.missing.len()) >= MOST_PENDING
    }

    /// When what is owed is worked on if no record comes before.
    fn work_at(&self, now: Instant) -> Instant {
        if self.ledger.len() == 0 {
            return now + LAG_EVERY;
        }
        let quiet = match self.ledger.read_up_to() >= self.end {
            _ if self.is_full() => Duration::ZERO,
            true => QUIET,
            // Records are still to come that may say that it is settled; but they are not waited for for ever.
            false => RETRY,
        };
        (now + quiet).max(self.retry_at)
    }
}

impl Follower {
    /// Until shutdown; lost stores are waited for.
    pub(crate) async fn run(self) {
        while !self.shutdown.is_requested() {
            let begun = tokio::select! {
                begun = self.begin() => begun,
                () = self.shutdown.requested() => return,
            };
            let pause = match begun {
                Ok(reading) => match self.follow(reading).await {
                    Ended::Shutdown => return,
                    Ended::Again(pause) => pause,
                },
                Err(error) => {
                    self.metrics.error("journal");
                    tracing::warn!(partition = %self.partition, %error, "the journal can't be followed yet");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    async fn begin(&self) -> Result<Reading, spool::Error> {
        let store = self.stores.journal(self.partition);
        let positions = self.stores.reader_positions();
        let saved = positions.get(READER, self.partition).await?;
        let info = store.info().await?;
        let position = saved.unwrap_or(0);
        // Behind what was removed, or beyond the end of a journal that was restored from a backup.
        let records_missing = position + 1 < info.first || position > info.last;
        let from = if records_missing {
            info.first
        } else {
            position + 1
        };
        if records_missing && saved.is_some() {
            self.metrics.error("trimmed");
            tracing::error!(
                partition = %self.partition, position, first = info.first, last = info.last,
                "the journal does not go on where it was read up to; what is owed is taken from its next snapshot"
            );
        }
        if saved.is_none() {
            // From now on the journal is kept for us.
            positions.set(READER, self.partition, from - 1).await?;
        }
        tracing::info!(partition = %self.partition, from, "following the journal");
        Ok(Reading {
            ledger: Ledger::new(from - 1, records_missing),
            journal: store.follow(from),
            saved: saved.unwrap_or(from - 1),
            save_at: Instant::now() + SAVE_EVERY,
            end: info.last,
            missing: HashMap::new(),
            retry_at: Instant::now(),
        })
    }

    async fn follow(&self, mut reading: Reading) -> Ended {
        let mut lag_at = Instant::now();
        loop {
            let now = Instant::now();
            if now >= lag_at {
                lag_at = now + LAG_EVERY;
                self.look_up_lag(&reading.ledger).await;
            }
            if now >= reading.save_at {
                self.save(&mut reading).await;
            }
            let work_at = reading.work_at(now);
            let wake_at = lag_at.min(reading.save_at).min(work_at);
            tokio::select! {
                biased;
                () = self.shutdown.requested() => {
                    self.save(&mut reading).await;
                    return Ended::Shutdown;
                }
                record = reading.journal.next(), if !reading.is_full() => {
                    if let Err(pause) = self.take(&mut reading, record) {
                        self.save(&mut reading).await;
                        return Ended::Again(pause);
                    }
                }
                () = tokio::time::sleep_until(wake_at) => {
                    if reading.ledger.len() > 0 && Instant::now() >= work_at {
                        self.work(&mut reading).await;
                    }
                }
            }
        }
    }

    /// Reads a record; an error is the time to wait before the journal is followed anew.
    fn take(
        &self,
        reading: &mut Reading,
        record: Option<Result<JournalRecord, JournalError>>,
    ) -> Result<(), Duration> {
        let partition = self.partition;
        let record = match record {
            Some(Ok(record)) => record,
            Some(Err(JournalError::Unavailable(error))) => {
                self.metrics.error("journal");
                tracing::warn!(%partition, %error, "the journal can't be read at the moment");
                return Ok(());
            }
            Some(Err(error @ JournalError::Gap { .. })) => {
                self.metrics.error("trimmed");
                tracing::error!(%partition, %error, "beginning anew");
                return Err(Duration::from_secs(5));
            }
            Some(Err(error @ JournalError::Damaged(_))) => {
                self.metrics.error("damaged");
                tracing::error!(%partition, %error, "waiting: a record of the journal is damaged");
                return Err(Duration::from_secs(60));
            }
            None => return Err(RETRY),
        };
        match journal::decode(&record.bytes) {
            Ok(decoded) => {
                reading.ledger.read(record.sequence, &decoded);
                self.note_pending(reading);
                Ok(())
            }
            Err(error) => {
                // Never skipped: a newer release of this service will read it.
                self.metrics.error("format");
                tracing::error!(%partition, sequence = record.sequence, %error, "waiting: a record of the journal can't be read");
                Err(Duration::from_secs(60))
            }
        }
    }

    /// Spools what is owed, oldest first, until the stores refuse.
    async fn work(&self, reading: &mut Reading) {
        reading.retry_at = Instant::now();
        let owed: Vec<(Key, Owed)> = reading
            .ledger
            .pending()
            .map(|(key, owed)| (key, owed.clone()))
            .collect();
        for (key, owed) in owed {
            // A publish may be repeated for minutes. What is broken off is done again, with the same ids.
            let spooled = tokio::select! {
                spooled = self.spool(&owed) => spooled,
                () = self.shutdown.requested() => return,
            };
            match spooled {
                Spooled::Done => self.settle(reading, key),
                Spooled::Missing => {
                    let since = *reading.missing.entry(key).or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE {
                        tracing::error!(
                            partition = %self.partition, message_id = %owed.message_id,
                            "the message that a notification is owed for is nowhere; its sender is not told"
                        );
                        self.metrics.give_up("missing");
                        self.settle(reading, key);
                    }
                    reading.retry_at = Instant::now() + RETRY;
                }
                Spooled::Later => {
                    reading.retry_at = Instant::now() + RETRY;
                    break;
                }
            }
        }
        self.note_pending(reading);
    }

    fn settle(&self, reading: &mut Reading, key: Key) {
        reading.ledger.settle(key);
        reading.missing.remove(&key);
    }

    fn note_pending(&self, reading: &mut Reading) {
        let ledger = &reading.ledger;
        reading.missing.retain(|key, _| ledger.get(*key).is_some());
        self.metrics
            .pending
            .set(i64::try_from(ledger.len()).unwrap_or(i64::MAX));
    }

    async fn spool(&self, owed: &Owed) -> Spooled {
        let (partition, message_id) = (self.partition, owed.message_id);
        let original = match original::read(&self.messages, partition, owed).await {
            Ok(original) => original,
            Err(ReadError::NotFound) => return Spooled::Missing,
            Err(ReadError::Unavailable(error)) => {
                self.metrics.error("read");
                tracing::warn!(%partition, %error, "originals can't be read at the moment");
                return Spooled::Later;
            }
            Err(ReadError::Damaged(damage)) => {
                self.metrics.give_up("damaged");
                tracing::error!(%partition, %message_id, %damage, "the original can't be read; its sender is not told");
                return Spooled::Done;
            }
        };
        let envelope = original.entry.envelope.as_ref();
        let stream = envelope
            .map(|envelope| {
                self.tenants
                    .default_stream(&envelope.tenant, &envelope.stream)
            })
            .unwrap_or_default();
        let notification = match notification(owed, &original, &self.hostname, &stream) {
            Ok(notification) => notification,
            Err(NotOwed::NullReturnPath) => {
                self.metrics.give_up("null_return_path");
                return Spooled::Done;
            }
            Err(NotOwed::NoSuchRecipients) => {
                self.metrics.give_up("no_such_recipients");
                tracing::error!(%partition, %message_id, "the journal names recipients that the message does not have");
                return Spooled::Done;
            }
        };
        let messages = vec![(notification.entry, notification.content)];
        match self
            .stores
            .publish_block(partition, notification.block_id, messages, 0)
            .await
        {
            Ok(sequence) => {
                self.metrics.spooled.inc();
                tracing::info!(%partition, %message_id, sequence, notice = owed.notice, "notification stored");
                Spooled::Done
            }
            Err(error) => {
                self.metrics.error("publish");
                tracing::warn!(%partition, %message_id, %error, "a notification could not be stored yet");
                Spooled::Later
            }
        }
    }

    async fn save(&self, reading: &mut Reading) {
        reading.save_at = Instant::now() + SAVE_EVERY;
        let position = reading.ledger.position();
        if position == reading.saved {
            return;
        }
        match self
            .stores
            .reader_positions()
            .set(READER, self.partition, position)
            .await
        {
            Ok(()) => reading.saved = position,
            Err(error) => {
                self.metrics.error("position");
                tracing::warn!(partition = %self.partition, %error, "the position could not be written");
            }
        }
    }

    async fn look_up_lag(&self, ledger: &Ledger) {
        if let Ok(info) = self.stores.journal(self.partition).info().await {
            let lag = info.last.saturating_sub(ledger.read_up_to());
            self.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
    }
}
