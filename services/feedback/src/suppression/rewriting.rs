//! Writes shards anew of which most is history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use proto::suppression::Change;
use suppress::{AddressKey, SHARDS, Table, shard_of};

use super::Desk;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A shard with fewer changes is left alone.
const LEAST: u64 = 2_000;
/// From this part of its bound on the log is short of space, per cent.
const SHORT_PERCENT: u64 = 70;

/// Changes that are in each shard, as they were read.
#[derive(Debug, Clone)]
pub(super) struct Shards(Arc<[AtomicU64]>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Shards {
    pub(super) fn note(&self, change: &Change) {
        if let Ok(key) = AddressKey::try_from(&change.key[..])
            && let Some(count) = self.0.get(usize::from(shard_of(&key)))
        {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The shards that are worth it: those with more than twice as many changes as entries, or, when space is short, those
    /// with a tenth of history.
    fn worth_rewriting(&self, entries: usize, is_short: bool) -> Vec<u8> {
        let of_each = entries as u64 / u64::from(SHARDS);
        let (most, least) = match is_short {
            true => (of_each + of_each / 10, 16),
            false => (2 * of_each, LEAST),
        };
        let counts = self.0.iter().zip(0..SHARDS);
        let counts = counts.map(|(count, shard)| (count.load(Relaxed), shard));
        counts
            .filter(|(count, _)| *count > most && *count >= least)
            .map(|(_, shard)| shard)
            .collect()
    }

    /// So many changes are left; those that come again while they are followed are the same.
    fn rewritten(&self, shard: u8, kept: usize) {
        if let Some(count) = self.0.get(usize::from(shard)) {
            count.store(kept as u64, Relaxed);
        }
    }
}

/// Until shutdown. Several replicas may do the same at the same time: one of them is overtaken.
pub(super) async fn run(desk: Desk, shards: Shards, table: Arc<Table>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = desk.shutdown.requested() => return,
        }
        desk.metrics.note_entries(table.len());
        let is_short = match desk.store.usage().await {
            Ok((octets, bound)) => {
                desk.metrics.note_usage(octets, bound);
                octets > bound / 100 * SHORT_PERCENT
            }
            Err(error) => {
                tracing::debug!(%error, "the size of SUPPRESSION is not known at the moment");
                continue;
            }
        };
        for shard in shards.worth_rewriting(table.len(), is_short) {
            let rewritten = tokio::select! {
                rewritten = desk.store.rewrite(shard, runtime::now_ms()) => rewritten,
                () = desk.shutdown.requested() => return,
            };
            match rewritten {
                Ok(Some(rewritten)) => {
                    shards.rewritten(shard, rewritten.kept);
                    tracing::info!(
                        shard,
                        kept = rewritten.kept,
                        removed = rewritten.removed,
                        "whom nothing is sent to is written anew"
                    );
                }
                Ok(None) => {
                    tracing::debug!(shard, "others are writing; the shard is left for later")
                }
                Err(error) => {
                    desk.metrics.errors.with_label_values(&["rewrite"]).inc();
                    tracing::warn!(shard, %error, "a shard of SUPPRESSION can't be written anew");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shards_that_are_mostly_history_are_worth_it() {
        let shards = Shards::default();
        let change = |shard: u8| Change {
            key: vec![shard << 2; 16].into(),
            ..Change::default()
        };
        for shard in 0..SHARDS {
            for _ in 0..(11_000 + u64::from(shard) * 1_000) {
                shards.note(&change(shard));
            }
        }
        let entries = 10_000 * usize::from(SHARDS);
        let worth: Vec<u8> = (10..SHARDS).collect();
        assert_eq!(shards.worth_rewriting(entries, false), worth);
        assert_eq!(shards.worth_rewriting(entries, true).len(), 63);
        shards.rewritten(63, 10_000);
        assert_eq!(shards.worth_rewriting(entries, false), worth[..53]);
        // Little history is none.
        let few = Shards::default();
        (0..100).for_each(|_| few.note(&change(1)));
        assert!(few.worth_rewriting(0, false).is_empty());
        assert_eq!(few.worth_rewriting(0, true), [1]);
    }
}
