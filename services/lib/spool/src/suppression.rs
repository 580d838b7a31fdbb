//! The stream `SUPPRESSION`: whom nothing is sent to.
//!
//! It is a log of changes in 64 shards, by the first bits of the address's key; a shard is a subject. Who asks about
//! recipients reads all of it at its start and follows it. When most of a shard is history it is written anew: what holds
//! is repeated at its end, and what was read for that is removed. Nobody need know: the repeated changes say what the
//! earlier ones came to.

mod overtaken;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message as _;
use proto::suppression::{Change, Record};
use suppress::{AddressKey, FORMAT, Fold, Keys, Table, shard_of};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::consume::{Consumption, Delivered};
use crate::link::{Link, PublishFailure, WRONG_LAST_SEQUENCE, expect_last_subject_sequence};
use crate::{Error, layout};
use overtaken::Overtaken;

/// A record is tried so long.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// Changes of a record at most, and octets of them.
const MOST: usize = 4_096;
const MOST_OCTETS: usize = 512 << 10;
/// How often a rewriting is overtaken by other writers before it is left for later.
const TRIES: usize = 100;
/// A record that can't be read is told again so often.
const REMIND: Duration = Duration::from_secs(60);

/// What rewriting a shard came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Changes that it had.
    pub read: usize,
    /// Those of them that are worth keeping.
    pub kept: usize,
    /// Whether only those are left now, but for what came meanwhile. Otherwise nothing was touched.
    pub is_written: bool,
    /// Records that were removed.
    pub removed: u64,
}

impl Rewritten {
    /// Changes that the shard has now, but for what came meanwhile.
    pub const fn left(&self) -> usize {
        if self.is_written {
            self.kept
        } else {
            self.read
        }
    }
}

/// Whom nothing is sent to. A cheap clone.
#[derive(Debug, Clone)]
pub struct SuppressionStore {
    control: Link,
    bulk: Link,
    keys: Keys,
}

impl SuppressionStore {
    pub(crate) fn new(control: Link, bulk: Link, keys: Keys) -> Self {
        Self {
            control,
            bulk,
            keys,
        }
    }

    /// What makes keys of addresses.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Stores changes; those of one address keep their order. After an error some may be stored: doing it again does no
    /// harm.
    pub async fn store(&self, changes: Vec<Change>) -> Result<(), Error> {
        let mut shards: BTreeMap<u8, VecDeque<Change>> = BTreeMap::new();
        for change in changes {
            let key = AddressKey::try_from(&change.key[..]).map_err(|_| Error::Damaged {
                what: "a change of the suppression".to_owned(),
                detail: "it has no key".to_owned(),
            })?;
            shards.entry(shard_of(&key)).or_default().push_back(change);
        }
        let each = shards.into_iter().map(|(shard, mut changes)| async move {
            while !changes.is_empty() {
                self.store_record(shard, pack(&mut changes)).await?;
            }
            Ok::<(), Error>(())
        });
        futures::future::try_join_all(each).await.map(drop)
    }

    async fn store_record(&self, shard: u8, changes: Vec<Change>) -> Result<(), Error> {
        let begun = Instant::now();
        let id = Uuid::now_v7().to_string();
        let record = record_of(changes);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id.as_str());
            let subject = layout::suppression_subject(shard);
            let stored = self
                .control
                .publish_connected(subject, headers, record.clone());
            match stored.await {
                Ok(_) => return Ok(()),
                Err(failure) if failure.is_full() || begun.elapsed() >= PATIENCE => {
                    return Err(failure.into_error("storing whom nothing is sent to"));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// What the changes of a shard (below [`suppress::SHARDS`]) come to, those that are wanted: by address or scope, since
    /// a change that is left out would be replaced by none.
    pub async fn shard(&self, shard: u8, wanted: impl Fn(&Change) -> bool) -> Result<Fold, Error> {
        let mut fold = Fold::default();
        let take = |_, changes: Vec<Change>| {
            let changes = changes.into_iter().filter(|change| wanted(change));
            changes.for_each(|change| fold.apply(change));
        };
        self.read(shard, 0, take).await?;
        Ok(fold)
    }

    /// Gives the records of a shard after a sequence, to the end as it is when that is reached.
    async fn read(
        &self,
        shard: u8,
        after: u64,
        mut take: impl FnMut(u64, Vec<Change>),
    ) -> Result<(), Error> {
        let subject = layout::suppression_subject(shard);
        let stream = layout::SUPPRESSION.to_owned();
        let mut consumption = Consumption::after(self.bulk.clone(), stream, subject, after);
        loop {
            match consumption.next().await {
                Delivered::Message(record) => {
                    let changes = decode(&record.payload)?;
                    take(record.sequence, changes);
                }
                Delivered::CaughtUp => return Ok(()),
                Delivered::Restarted => {}
                Delivered::Failed(error) => return Err(error),
            }
        }
    }

    /// Writes a shard anew, without what is over, if it has more changes than `percent` of those that are worth keeping (100:
    /// more than those); else it only counts. `None` when others wrote so much meanwhile that it is left for later.
    pub async fn rewrite(
        &self,
        shard: u8,
        percent: u32,
        now_ms: u64,
    ) -> Result<Option<Rewritten>, Error> {
        let mut fold = Fold::default();
        let (mut read, mut read_up_to) = (0, 0);
        let take = |sequence, changes: Vec<Change>| {
            read_up_to = sequence;
            read += changes.len();
            changes.into_iter().for_each(|change| fold.apply(change));
        };
        self.read(shard, 0, take).await?;
        let count = fold.worth_keeping(now_ms).count();
        let counted = Rewritten {
            read,
            kept: count,
            ..Rewritten::default()
        };
        if read as u64 * 100 <= count as u64 * u64::from(percent) {
            return Ok(Some(counted));
        }
        let mut kept: VecDeque<Change> = fold.worth_keeping(now_ms).cloned().collect();
        drop(fold);
        let mut last = read_up_to;
        let mut others = Overtaken::default();
        let mut tries = 0;
        let mut next: Vec<Change> = Vec::new();
        loop {
            if next.is_empty() {
                next = pack(&mut kept);
            }
            next = others.left(next);
            if next.is_empty() && kept.is_empty() {
                break;
            }
            match self.repeat(shard, &next, last).await {
                Ok(sequence) => {
                    last = sequence;
                    next.clear();
                }
                Err(failure) if tries >= TRIES => {
                    return match failure {
                        PublishFailure::Refused { code, .. } if code == WRONG_LAST_SEQUENCE => {
                            Ok(None)
                        }
                        other => Err(other.into_error("rewriting whom nothing is sent to")),
                    };
                }
                Err(failure) if failure.is_full() => {
                    return Err(failure.into_error("rewriting whom nothing is sent to"));
                }
                Err(_) => {
                    tries += 1;
                    let before = last;
                    self.read(shard, last, |sequence, changes| {
                        last = sequence;
                        changes.into_iter().for_each(|change| others.note(change));
                    })
                    .await?;
                    if last == before {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        let subject = layout::suppression_subject(shard);
        let removed = self
            .control
            .purge(layout::SUPPRESSION, Some(read_up_to + 1), Some(&subject))
            .await?;
        Ok(Some(Rewritten {
            is_written: true,
            removed,
            ..counted
        }))
    }

    /// Stores changes if nobody wrote into the shard since. An answer that is lost looks like another writer, who wrote the
    /// same.
    async fn repeat(
        &self,
        shard: u8,
        changes: &[Change],
        last: u64,
    ) -> Result<u64, PublishFailure> {
        let mut headers = HeaderMap::new();
        expect_last_subject_sequence(&mut headers, last);
        let subject = layout::suppression_subject(shard);
        let record = record_of(changes.to_vec());
        let stored = self.bulk.publish_connected(subject, headers, record);
        stored.await.map(|acknowledged| acknowledged.sequence)
    }

    /// Octets that are stored, and the bound.
    pub async fn usage(&self) -> Result<(u64, u64), Error> {
        let info = self.control.stream_state(layout::SUPPRESSION).await?;
        let bound = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX);
        Ok((info.state.bytes, bound))
    }

    /// Keeps a table as the log says, from its first record on.
    pub fn follow(&self, table: Arc<Table>) -> SuppressionFollower {
        self.follow_changes(move |change, now_ms| table.apply(change, now_ms))
    }

    /// Gives all changes, from the first record on and as they come, with the time at which they are read (Unix milliseconds).
    pub fn follow_changes(
        &self,
        take: impl FnMut(&Change, u64) + Send + 'static,
    ) -> SuppressionFollower {
        let (known, loaded) = watch::channel(false);
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::SUPPRESSION.to_owned(),
            layout::SUPPRESSION_SUBJECTS.to_owned(),
            0,
        );
        let task = tokio::spawn(keep_following(consumption, take, known));
        SuppressionFollower {
            loaded,
            task: Arc::new(Task(task)),
        }
    }
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the log until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct SuppressionFollower {
    loaded: watch::Receiver<bool>,
    #[expect(dead_code, reason = "dropping it ends the task")]
    task: Arc<Task>,
}

impl SuppressionFollower {
    /// Whether all is read that was there at the start.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits for that, at most so long; `false` when it took longer.
    pub async fn loaded_within(&self, limit: Duration) -> bool {
        let mut loaded = self.loaded.clone();
        let waiting = loaded.wait_for(|loaded| *loaded);
        matches!(tokio::time::timeout(limit, waiting).await, Ok(Ok(_)))
    }
}

async fn keep_following(
    mut consumption: Consumption,
    mut take: impl FnMut(&Change, u64),
    known: watch::Sender<bool>,
) {
    loop {
        match consumption.next().await {
            Delivered::Message(record) => match decode(&record.payload) {
                Ok(changes) => {
                    let now_ms = now_ms();
                    changes.iter().for_each(|change| take(change, now_ms));
                }
                // Never skipped: a newer release reads it.
                Err(error) => loop {
                    tracing::error!(
                        sequence = record.sequence, %error,
                        "waiting: whom nothing is sent to can't be read any further by this release"
                    );
                    tokio::time::sleep(REMIND).await;
                },
            },
            Delivered::CaughtUp => {
                known.send_replace(true);
            }
            Delivered::Restarted => {}
            Delivered::Failed(error) => {
                tracing::warn!(%error, "can't follow whom nothing is sent to, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

fn record_of(changes: Vec<Change>) -> Bytes {
    let record = Record {
        format: FORMAT,
        written_at_ms: now_ms(),
        changes,
    };
    Bytes::from(record.encode_to_vec())
}

fn decode(bytes: &[u8]) -> Result<Vec<Change>, Error> {
    // An `init` that was killed left its first record behind, which is empty.
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let record = Record::decode(bytes).map_err(|error| Error::Damaged {
        what: "a record of SUPPRESSION".to_owned(),
        detail: error.to_string(),
    })?;
    match record.format {
        FORMAT => Ok(record.changes),
        found => Err(Error::UnknownFormat {
            found,
            known: FORMAT,
        }),
    }
}

/// As many as a record holds; at least one.
fn pack(changes: &mut VecDeque<Change>) -> Vec<Change> {
    let (mut pack, mut octets) = (Vec::new(), 0);
    while let Some(change) = changes.front() {
        octets += change.encoded_len() + 4;
        if !pack.is_empty() && (octets > MOST_OCTETS || pack.len() >= MOST) {
            break;
        }
        pack.extend(changes.pop_front());
    }
    pack
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_init_left_behind_says_nothing() {
        assert_eq!(decode(b"").unwrap(), []);
        let newer = Record {
            format: FORMAT + 1,
            ..Record::default()
        };
        assert!(decode(&newer.encode_to_vec()).is_err());
        assert_eq!(
            decode(&record_of(vec![Change::default()])).unwrap().len(),
            1
        );
    }
}
