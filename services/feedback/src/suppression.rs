//! Whom nothing is sent to any more: read out of the journals and of `EVENTS`, and stored in `SUPPRESSION`.
//!
//! | module | what is in it |
//! |---|---|
//! | `book` | what happenings come to: changes of the log, from what is known |
//! | `journals` | follows the journal of a partition |
//! | `told` | follows `EVENTS` |
//! | `rewriting` | writes shards anew of which most is history |
//!
//! Each reader keeps its position once what it read is stored. What is read twice, by a second replica or after a kill, says
//! the same again.

mod book;
mod journals;
mod rewriting;
mod told;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mail::PartitionId;
use proto::event::event::Kind as Told;
use proto::event::{Event, SuppressionChanged};
use proto::suppression::Change;
use proto::suppression::change::Kind;
use runtime::Shutdown;
use spool::{EventWriter, Stores, SuppressionStore};
use suppress::{Table, reason_name};
use tokio::task::{JoinError, JoinSet};

use crate::metrics::SuppressionMetrics;
use crate::tenants::Tenants;
use book::Book;

/// Name of the readers in the bucket of reader positions.
const READER: &str = "suppression";
/// Between two attempts at a store that does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// What the readers share.
#[derive(Clone)]
struct Desk {
    stores: Stores,
    store: SuppressionStore,
    tenants: Tenants,
    book: Arc<Mutex<Book>>,
    events: EventWriter,
    metrics: SuppressionMetrics,
    shutdown: Shutdown,
}

/// Starts the readers; without a stream `SUPPRESSION` there is nothing to do.
pub(crate) fn start(
    stores: &Stores,
    partitions: u32,
    tenants: &Tenants,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<()>,
) {
    let Some(store) = stores.suppression() else {
        return;
    };
    let table = Arc::new(Table::new(store.keys().clone()));
    let book = Arc::new(Mutex::new(Book::new(Arc::clone(&table))));
    let shards = rewriting::Shards::default();
    let follower = {
        let (book, shards) = (Arc::clone(&book), shards.clone());
        store.follow_changes(move |change, now_ms| {
            shards.note(change);
            locked(&book).read(change, now_ms);
        })
    };
    let desk = Desk {
        stores: stores.clone(),
        store,
        tenants: tenants.clone(),
        book,
        events: stores.event_writer("feedback"),
        metrics: SuppressionMetrics::new(),
        shutdown: shutdown.clone(),
    };
    let partitions = (0..partitions).map(PartitionId).collect::<Vec<_>>();
    let begin = {
        let (desk, shutdown) = (desk.clone(), shutdown.clone());
        async move {
            // What is known already decides what is new.
            let loaded = async { while !follower.loaded_within(Duration::from_secs(60)).await {} };
            tokio::select! {
                () = loaded => {}
                () = shutdown.requested() => return,
            }
            let mut readers = JoinSet::new();
            for partition in partitions {
                readers.spawn(journals::follow(desk.clone(), partition));
            }
            readers.spawn(told::follow(desk.clone()));
            readers.spawn(rewriting::run(desk, shards, table));
            while let Some(ended) = readers.join_next().await {
                ended.unwrap_or_else(raise);
            }
            drop(follower);
        }
    };
    tasks.spawn(begin);
}

/// A reader that panicked ends the service: else nobody would be suppressed any more, and nobody would know.
fn raise(ended: JoinError) {
    if ended.is_panic() {
        std::panic::resume_unwind(ended.into_panic());
    }
}

fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    // It is whole after every step.
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// Stores changes and tells them. False at shutdown: they are not stored, and read again at the next start.
    async fn store(&self, changes: Vec<Change>) -> bool {
        if changes.is_empty() {
            return true;
        }
        loop {
            let stored = tokio::select! {
                stored = self.store.store(changes.clone()) => stored,
                () = self.shutdown.requested() => return false,
            };
            match stored {
                Ok(()) => break,
                Err(error) => {
                    self.metrics.errors.with_label_values(&["store"]).inc();
                    tracing::warn!(%error, "whom nothing is sent to can't be stored, trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.shutdown.requested() => return false,
            }
        }
        for change in &changes {
            if let Some(Kind::Entry(entry)) = &change.kind {
                let reason = reason_name(entry.reason());
                self.metrics.added.with_label_values(&[reason]).inc();
                self.events.tell(event_of(change, entry.expires_ms, reason));
            }
        }
        true
    }
}

fn event_of(change: &Change, until_ms: u64, reason: &str) -> Event {
    let recipient = match change.address.as_str() {
        "" => {
            let digits = change.key.iter().map(|octet| format!("{octet:02x}"));
            "hash:".to_owned() + &digits.collect::<String>()
        }
        address => address.to_owned(),
    };
    Event {
        at_ms: change.at_ms,
        tenant: change.tenant.clone(),
        kind: Some(Told::SuppressionChanged(SuppressionChanged {
            stream: change.stream.clone(),
            recipient,
            reason: reason.to_owned(),
            until_ms,
            ..SuppressionChanged::default()
        })),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_panics_is_no_secret() {
        let broken = tokio::spawn(async { panic!("broken") });
        let ended = broken.await.unwrap_err();
        assert!(
            tokio::spawn(async { raise(ended) })
                .await
                .unwrap_err()
                .is_panic()
        );
        let waiting = tokio::spawn(std::future::pending::<()>());
        waiting.abort();
        raise(waiting.await.unwrap_err());
    }
}
