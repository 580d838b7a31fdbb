//! Writes shards anew of which most is history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use proto::suppression::Change;
use spool::Rewritten;
use suppress::{AddressKey, SHARDS, Table, shard_of};

use super::Desk;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// After so many looks it is forgotten what was worth keeping, since some of it has ended; when space is short, earlier.
const LOOKS: u32 = 24 * 60;
const LOOKS_WHEN_SHORT: u32 = 60;
/// A shard with fewer changes is left alone; when space is short, one with less than that.
const LEAST: u64 = 2_000;
const LEAST_WHEN_SHORT: u64 = 16;
/// A shard is written anew when it has more changes than this part of what is worth keeping; the same when space is short.
const WORTH_PERCENT: u32 = 200;
const WORTH_PERCENT_WHEN_SHORT: u32 = 110;
/// From this part of its bound on the log is short of space, per cent.
const SHORT_PERCENT: u64 = 70;

#[derive(Debug, Default)]
struct Shard {
    /// Changes that are in it, as they were read.
    changes: AtomicU64,
    /// Those that were worth keeping when it was counted: entries, and for a while removals and strikes; 0: not known.
    kept: AtomicU64,
}

/// What is known of each shard.
#[derive(Debug, Clone)]
pub(super) struct Shards(Arc<[Shard]>);

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

impl Shards {
    pub(super) fn note(&self, change: &Change) {
        if let Ok(key) = AddressKey::try_from(&change.key[..])
            && let Some(shard) = self.0.get(usize::from(shard_of(&key)))
        {
            shard.changes.fetch_add(1, Relaxed);
        }
    }

    /// The shards that are worth it: those with more than twice as many changes as entries, or, when space is short, those
    /// with a tenth of history. What else was worth keeping counts as well.
    fn worth_rewriting(&self, entries: usize, is_short: bool) -> Vec<u8> {
        let of_each = entries as u64 / u64::from(SHARDS);
        let least = if is_short { LEAST_WHEN_SHORT } else { LEAST };
        let is_worth = |shard: &Shard| {
            let changes = shard.changes.load(Relaxed);
            let kept = of_each.max(shard.kept.load(Relaxed));
            changes >= least && changes * 100 > kept * u64::from(worth_percent(is_short))
        };
        let shards = self.0.iter().zip(0..SHARDS);
        shards
            .filter(|(shard, _)| is_worth(shard))
            .map(|(_, number)| number)
            .collect()
    }

    /// So many changes are left, and so many were worth keeping. Those that come again while they are followed are the same:
    /// at worst it is counted once more.
    fn counted(&self, shard: u8, rewritten: &Rewritten) {
        if let Some(shard) = self.0.get(usize::from(shard)) {
            shard.changes.store(rewritten.left() as u64, Relaxed);
            shard.kept.store(rewritten.kept as u64, Relaxed);
        }
    }

    fn forget_kept(&self) {
        self.0.iter().for_each(|shard| shard.kept.store(0, Relaxed));
    }
}

const fn worth_percent(is_short: bool) -> u32 {
    if is_short {
        WORTH_PERCENT_WHEN_SHORT
    } else {
        WORTH_PERCENT
    }
}

/// Until shutdown. Several replicas may do the same at the same time: one of them is overtaken, and finds nothing to do later.
pub(super) async fn run(desk: Desk, shards: Shards, table: Arc<Table>) {
    let mut looks = 0;
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
        looks += 1;
        if looks >= if is_short { LOOKS_WHEN_SHORT } else { LOOKS } {
            looks = 0;
            shards.forget_kept();
        }
        for shard in shards.worth_rewriting(table.len(), is_short) {
            let percent = worth_percent(is_short);
            let rewritten = tokio::select! {
                rewritten = desk.store.rewrite(shard, percent, runtime::now_ms()) => rewritten,
                () = desk.shutdown.requested() => return,
            };
            match rewritten {
                Ok(Some(rewritten)) => {
                    shards.counted(shard, &rewritten);
                    if rewritten.is_written {
                        tracing::info!(
                            shard,
                            kept = rewritten.kept,
                            removed = rewritten.removed,
                            "whom nothing is sent to is written anew"
                        );
                    }
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
    fn what_else_is_worth_keeping_is_no_history() {
        // Removals and strikes are no entries.
        let shards = Shards::default();
        let change = Change {
            key: vec![0; 16].into(),
            ..Change::default()
        };
        (0..5_000).for_each(|_| shards.note(&change));
        assert_eq!(shards.worth_rewriting(0, false), [0]);
        let counted = Rewritten {
            read: 5_000,
            kept: 4_900,
            ..Rewritten::default()
        };
        shards.counted(0, &counted);
        assert!(shards.worth_rewriting(0, false).is_empty());
        assert!(shards.worth_rewriting(0, true).is_empty());
        (0..4_801).for_each(|_| shards.note(&change));
        assert_eq!(shards.worth_rewriting(0, false), [0]);
        // Some of it ends.
        shards.counted(0, &counted);
        shards.forget_kept();
        assert_eq!(shards.worth_rewriting(0, false), [0]);
    }

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
        let written = |kept| Rewritten {
            read: 74_000,
            kept,
            is_written: true,
            removed: 1,
        };
        shards.counted(63, &written(10_000));
        assert_eq!(shards.worth_rewriting(entries, false), worth[..53]);
        // Little history is none.
        let few = Shards::default();
        (0..100).for_each(|_| few.note(&change(1)));
        assert!(few.worth_rewriting(0, false).is_empty());
        assert_eq!(few.worth_rewriting(0, true), [1]);
    }
}
