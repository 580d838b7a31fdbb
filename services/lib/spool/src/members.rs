//! Who is there: every process tells its kind, id and what others should know of it, again and again;
//! what is not told again expires.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::PartitionId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Error;
use crate::bucket::{self, Bucket, map_watch};
use crate::link::Link;

/// Kind under which owners tell the state of their partitions; the id is the partition's number.
const PARTITION: &str = "partition";

/// Members of a kind: what each tells (JSON), by id.
pub type MemberMap = BTreeMap<String, Bytes>;

/// What the owner of a partition tells the ingresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Whether it takes more mail.
    pub accepting: bool,
    /// How full its memory is, per cent.
    pub fill_percent: u32,
}

/// The members of the installation. A cheap clone.
#[derive(Debug, Clone)]
pub struct Members {
    bucket: Bucket,
}

impl Members {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "members"),
        }
    }

    /// Tells that a member is there, and every third of `ttl` (whole seconds, at least 3 s) again until
    /// the announcement is withdrawn or dropped. `kind` and `id`: letters, digits, "-" and "_".
    pub async fn announce(
        &self,
        kind: &str,
        id: &str,
        value: Bytes,
        ttl: Duration,
    ) -> Result<Announcement, Error> {
        bucket::check_key(kind)?;
        bucket::check_key(id)?;
        let key = format!("{kind}.{id}");
        self.bucket
            .put(&key, value.clone(), None, Some(ttl))
            .await?;
        let (values, receiver) = watch::channel(value);
        let task = tokio::spawn(keep_announcing(
            self.bucket.clone(),
            key.clone(),
            receiver,
            ttl,
        ));
        Ok(Announcement {
            bucket: self.bucket.clone(),
            key,
            values,
            task,
        })
    }

    /// Tells the state of a partition; update it with [`Announcement::update_partition`].
    pub async fn announce_partition(
        &self,
        partition: PartitionId,
        status: PartitionStatus,
        ttl: Duration,
    ) -> Result<Announcement, Error> {
        self.announce(PARTITION, &partition.to_string(), encode(status), ttl)
            .await
    }

    /// The members of a kind, now and ever after; `None` until they are known. While the stores don't
    /// answer the last known ones stay.
    pub fn watch(&self, kind: &str) -> watch::Receiver<Option<Arc<MemberMap>>> {
        let prefix = format!("{kind}.");
        let keys = self.bucket.follow(&format!("{kind}.*"));
        map_watch(keys, None, move |keys| {
            let members = keys.iter().filter_map(|(key, (_, value))| {
                Some((key.strip_prefix(&prefix)?.to_owned(), value.clone()))
            });
            Some(Arc::new(members.collect()))
        })
    }

    /// What the owners tell of their partitions; a partition without owner is not in it.
    pub fn watch_partitions(&self) -> watch::Receiver<Arc<BTreeMap<PartitionId, PartitionStatus>>> {
        let keys = self.bucket.follow(&format!("{PARTITION}.*"));
        map_watch(keys, Arc::default(), |keys| {
            let statuses = keys.iter().filter_map(|(key, (_, value))| {
                let partition = key
                    .strip_prefix("partition.")?
                    .parse()
                    .ok()
                    .map(PartitionId)?;
                Some((partition, serde_json::from_slice(value).ok()?))
            });
            Arc::new(statuses.collect())
        })
    }
}

/// A member that is announced. Dropping it ends the renewals, and it expires; `withdraw` is quicker.
#[derive(Debug)]
pub struct Announcement {
    bucket: Bucket,
    key: String,
    values: watch::Sender<Bytes>,
    task: JoinHandle<()>,
}

impl Announcement {
    /// Tells something else, at once.
    pub fn update(&self, value: Bytes) {
        self.values.send_if_modified(|present| {
            let differs = *present != value;
            *present = value;
            differs
        });
    }

    /// Tells another state of a partition, at once.
    pub fn update_partition(&self, status: PartitionStatus) {
        self.update(encode(status));
    }

    /// Tells that the member is gone.
    pub async fn withdraw(self) -> Result<(), Error> {
        self.task.abort();
        self.bucket.delete(&self.key, None).await.map(drop)
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn encode(status: PartitionStatus) -> Bytes {
    Bytes::from(serde_json::to_vec(&status).expect("a flag and a number can be written as JSON"))
}

async fn keep_announcing(
    bucket: Bucket,
    key: String,
    mut values: watch::Receiver<Bytes>,
    ttl: Duration,
) {
    let period = (ttl / 3).max(Duration::from_secs(1));
    let mut pause = period;
    loop {
        if let Ok(Err(_)) = tokio::time::timeout(pause, values.changed()).await {
            return;
        }
        let value = values.borrow_and_update().clone();
        pause = match bucket.put(&key, value, None, Some(ttl)).await {
            Ok(_) => period,
            Err(error) => {
                tracing::warn!(key, %error, "can't announce, trying again");
                Duration::from_secs(1)
            }
        };
    }
}
