//! Follows the journal of a partition.

use std::time::Duration;

use mail::PartitionId;
use proto::suppression::Change;
use spool::{JournalError, JournalReader};
use tokio::time::Instant;

use super::{Desk, READER, RETRY, locked};

/// What is read is stored when nothing more comes for so long, or when there is so much of it.
const LINGER: Duration = Duration::from_millis(500);
const MOST: usize = 2_000;
/// The position is written at most so often: each time is a durable write.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Until shutdown; lost stores are waited for.
pub(super) async fn follow(desk: Desk, partition: PartitionId) {
    while !desk.shutdown.is_requested() {
        let begun = tokio::select! {
            begun = Reading::begin(&desk, partition) => begun,
            () = desk.shutdown.requested() => return,
        };
        let pause = match begun {
            Ok(mut reading) => match reading.run().await {
                // What was read is known to all readers, who won't say it again.
                Some(pause) if reading.store().await => pause,
                _ => return,
            },
            Err(error) => {
                desk.metrics.errors.with_label_values(&["journal"]).inc();
                tracing::warn!(%partition, %error, "the journal can't be followed for the suppression yet");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = desk.shutdown.requested() => return,
        }
    }
}

struct Reading<'a> {
    desk: &'a Desk,
    partition: PartitionId,
    journal: JournalReader,
    /// Up to here it is read, and up to there the position is kept.
    read: u64,
    saved: u64,
    save_at: Instant,
    /// Not stored yet.
    changes: Vec<Change>,
}

impl<'a> Reading<'a> {
    async fn begin(desk: &'a Desk, partition: PartitionId) -> Result<Self, spool::Error> {
        let store = desk.stores.journal(partition);
        let positions = desk.stores.reader_positions();
        let saved = positions.get(READER, partition).await?;
        let info = store.info().await?;
        // A new reader begins with what is there.
        let position = saved.unwrap_or(info.first - 1);
        let is_there = position + 1 >= info.first && position <= info.last;
        let from = if is_there { position + 1 } else { info.first };
        if !is_there {
            desk.metrics.errors.with_label_values(&["trimmed"]).inc();
            tracing::error!(
                %partition, position, first = info.first, last = info.last,
                "the journal does not go on where it was read up to: some bounces suppress nobody"
            );
        }
        if saved.is_none() {
            // From now on the journal is kept for us.
            positions.set(READER, partition, from - 1).await?;
        }
        Ok(Self {
            desk,
            partition,
            journal: store.follow(from),
            read: from - 1,
            saved: from - 1,
            save_at: Instant::now() + SAVE_EVERY,
            changes: Vec::new(),
        })
    }

    /// The time after which it is to begin anew; `None` at shutdown.
    async fn run(&mut self) -> Option<Duration> {
        let mut store_at = None;
        loop {
            let now = Instant::now();
            if self.changes.len() >= MOST || store_at.is_some_and(|at| now >= at) {
                store_at = None;
                if !self.store().await {
                    return None;
                }
            }
            if now >= self.save_at {
                self.save_at = now + SAVE_EVERY;
                if self.read > self.saved {
                    store_at = None;
                    if !self.store().await {
                        return None;
                    }
                    self.save().await;
                }
            }
            let wake_at = store_at.unwrap_or(self.save_at).min(self.save_at);
            let record = tokio::select! {
                biased;
                () = self.desk.shutdown.requested() => {
                    return None;
                }
                record = self.journal.next() => record,
                () = tokio::time::sleep_until(wake_at) => continue,
            };
            let record = match record {
                Some(Ok(record)) => record,
                Some(Err(JournalError::Unavailable(error))) => {
                    tracing::debug!(partition = %self.partition, %error, "the journal can't be read at the moment");
                    continue;
                }
                // The follower of notifications tells of it, once for both.
                Some(Err(_)) => return Some(Duration::from_secs(60)),
                None => return Some(RETRY),
            };
            let Ok(decoded) = journal::decode(&record.bytes) else {
                // Never skipped: a newer release of this service will read it.
                self.desk
                    .metrics
                    .errors
                    .with_label_values(&["format"])
                    .inc();
                return Some(Duration::from_secs(60));
            };
            let config = self.desk.tenants.snapshot();
            let now_ms = runtime::now_ms();
            let changes = locked(&self.desk.book).journal(&decoded, &config, now_ms);
            self.read = record.sequence;
            if !changes.is_empty() {
                self.changes.extend(changes);
                store_at.get_or_insert(Instant::now() + LINGER);
            }
        }
    }

    async fn store(&mut self) -> bool {
        let changes = std::mem::take(&mut self.changes);
        self.desk.store(changes).await
    }

    /// All that is read is stored.
    async fn save(&mut self) {
        let positions = self.desk.stores.reader_positions();
        match positions.set(READER, self.partition, self.read).await {
            Ok(()) => self.saved = self.read,
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, "the position in the journal can't be kept yet");
            }
        }
    }
}
