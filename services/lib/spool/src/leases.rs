//! Who owns which partition: one key per partition that expires unless it is renewed.
//!
//! A lease is not exclusive by itself (a holder that sleeps may wake up late): what makes one writer is
//! the expected last sequence of the journal. The lease keeps two schedulers from disputing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::PartitionId;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{Bucket, Written, map_watch};
use crate::link::Link;

/// Who wants a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Of the scheduler process, unique.
    pub id: String,
    /// Where the senders reach it.
    pub address: String,
}

/// What a key holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Value {
    holder: String,
    address: String,
    /// Sequence of the claim in the journal; 0 until it is stored.
    epoch: u64,
    /// Of this acquisition, to know an own write again.
    session: String,
}

/// A partition that is held.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The partition.
    pub partition: PartitionId,
    value: Value,
    ttl: Duration,
    revision: u64,
    asked_at: Instant,
}

impl Lease {
    /// The clock just before the request was sent that made or last renewed the lease: it holds until
    /// `asked_at + ttl` at least.
    pub fn asked_at(&self) -> Instant {
        self.asked_at
    }

    /// Until when nobody else gets it.
    pub fn valid_until(&self) -> Instant {
        self.asked_at + self.ttl
    }

    /// Goes with the next renewal: the sequence of the claim in the journal.
    pub fn set_epoch(&mut self, epoch: u64) {
        self.value.epoch = epoch;
    }

    fn encoded(&self) -> Bytes {
        Bytes::from(
            serde_json::to_vec(&self.value).expect("strings and numbers can be written as JSON"),
        )
    }
}

/// What a renewal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// Valid for the time to live from this moment on.
    Renewed(Instant),
    /// Somebody else has it, or it expired.
    Lost,
}

/// Who holds a partition now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// The partition.
    pub partition: PartitionId,
    /// Its scheduler.
    pub holder: Holder,
    /// Sequence of the claim in the journal; 0 while it is not claimed.
    pub epoch: u64,
}

/// The leases of all partitions. A cheap clone.
#[derive(Debug, Clone)]
pub struct Leases {
    bucket: Bucket,
}

impl Leases {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "leases"),
        }
    }

    /// Takes a partition that nobody holds; `None` when somebody does. `ttl` in whole seconds.
    pub async fn acquire(
        &self,
        partition: PartitionId,
        holder: &Holder,
        ttl: Duration,
    ) -> Result<Option<Lease>, Error> {
        let key = key_of(partition);
        let state = self.bucket.get(&key).await?;
        if state.value.is_some() {
            return Ok(None);
        }
        let value = Value {
            holder: holder.id.clone(),
            address: holder.address.clone(),
            epoch: 0,
            session: uuid::Uuid::now_v7().to_string(),
        };
        let asked_at = Instant::now();
        let mut lease = Lease {
            partition,
            value,
            ttl,
            revision: 0,
            asked_at,
        };
        match self
            .bucket
            .put(&key, lease.encoded(), Some(state.revision), Some(ttl))
            .await?
        {
            Written::Done(revision) => {
                lease.revision = revision;
                Ok(Some(lease))
            }
            Written::Conflict => Ok(None),
        }
    }

    /// Renews a lease for its whole time to live. An error leaves open whether it was renewed: try again
    /// before [`Lease::valid_until`].
    pub async fn renew(&self, lease: &mut Lease) -> Result<Renewal, Error> {
        let key = key_of(lease.partition);
        for _ in 0..2 {
            let asked_at = Instant::now();
            match self
                .bucket
                .put(&key, lease.encoded(), Some(lease.revision), Some(lease.ttl))
                .await?
            {
                Written::Done(revision) => {
                    lease.revision = revision;
                    lease.asked_at = asked_at;
                    return Ok(Renewal::Renewed(asked_at));
                }
                // Maybe our own renewal whose acknowledgement was lost.
                Written::Conflict => {
                    let state = self.bucket.get(&key).await?;
                    let ours = state
                        .value
                        .as_deref()
                        .and_then(decode)
                        .is_some_and(|value| value.session == lease.value.session);
                    if !ours {
                        return Ok(Renewal::Lost);
                    }
                    lease.revision = state.revision;
                }
            }
        }
        Ok(Renewal::Lost)
    }

    /// Gives a partition back, so that another scheduler need not wait for the lease to expire.
    pub async fn release(&self, lease: Lease) -> Result<(), Error> {
        self.bucket
            .delete(&key_of(lease.partition), Some(lease.revision))
            .await
            .map(drop)
    }

    /// Who holds what now, by partition.
    pub async fn holders(&self) -> Result<Vec<LeaseHolder>, Error> {
        let keys = self.bucket.list("partition.*").await?;
        let mut holders: Vec<LeaseHolder> = keys
            .iter()
            .filter_map(|(key, (_, value))| holder_of(key, value))
            .collect();
        holders.sort_by_key(|holder| holder.partition);
        Ok(holders)
    }

    /// The partitions that somebody holds, now and ever after; `None` until they are known. A renewal is no change.
    pub fn watch_held(&self) -> watch::Receiver<Option<BTreeSet<PartitionId>>> {
        map_watch(self.bucket.follow("partition.*"), None, |keys| {
            let held = keys
                .iter()
                .filter_map(|(key, (_, value))| holder_of(key, value));
            Some(held.map(|holder| holder.partition).collect())
        })
    }
}

fn key_of(partition: PartitionId) -> String {
    format!("partition.{partition}")
}

fn decode(value: &[u8]) -> Option<Value> {
    serde_json::from_slice(value).ok()
}

fn holder_of(key: &str, value: &[u8]) -> Option<LeaseHolder> {
    let partition = key
        .strip_prefix("partition.")?
        .parse()
        .ok()
        .map(PartitionId)?;
    let Value {
        holder,
        address,
        epoch,
        ..
    } = decode(value)?;
    Some(LeaseHolder {
        partition,
        holder: Holder {
            id: holder,
            address,
        },
        epoch,
    })
}
