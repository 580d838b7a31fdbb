//! Operations on the live queue, in the bucket `config` beside the configuration: every scheduler follows them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::operation::Operation;
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{self, Bucket, KeyMap, Written, map_watch};
use crate::link::Link;

/// Operations that may be there at a time, those that are over and still shown included.
const MOST: usize = 1_000;
/// Octets of all of them together: they share their bucket with the configuration, and every scheduler holds them.
const MOST_OCTETS: usize = 4 << 20;
/// How long one stays after it is over, for those who want to see what became of it.
const AFTER_MS: u64 = 60_000;
/// How long a lifted one stays: partitions without an owner learn by it who lifted it. A minute, when it is in the way.
const LIFTED: Duration = Duration::from_secs(3600);
const LIFTED_IN_THE_WAY: Duration = Duration::from_secs(60);

/// An operation was not stored.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There are as many as there may be.
    #[error(
        "there are {count} operations of {kib} KiB, and with this one more than {MOST} or {} KiB: \
         `staffetta queue resume` those that are not needed, which are gone a minute later; others go when their time is over",
        MOST_OCTETS >> 10
    )]
    TooMany {
        /// Those that are there.
        count: usize,
        /// Their size.
        kib: usize,
    },
    /// Another one of the same id is there, and differs.
    #[error("operation {0} is there already, and another one")]
    Different(String),
    /// Others keep changing it.
    #[error("operation {0} is being changed by somebody else")]
    Changing(String),
    /// The stores refuse or don't answer; after a lost answer it may be stored.
    #[error(transparent)]
    Store(#[from] Error),
}

/// The operations that are not over. A cheap clone.
#[derive(Debug, Clone)]
pub struct Operations {
    bucket: Bucket,
}

impl Operations {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "config"),
        }
    }

    /// Stores a new operation; `now_ms` is the time (Unix milliseconds). One that was stored before by the same id is given
    /// back instead: sending twice does it once.
    pub async fn add(
        &self,
        operation: &Operation,
        now_ms: u64,
    ) -> Result<Option<Operation>, OperationError> {
        let key = key_of(&operation.id)?;
        let value = Bytes::from(operation.encode_to_vec());
        let known = self.bucket.list("operation.*").await?;
        let octets = octets_of(&known);
        let is_full = known.len() >= MOST || octets + value.len() > MOST_OCTETS;
        if !known.contains_key(&key) && is_full {
            return Err(OperationError::TooMany {
                count: known.len(),
                kib: octets.div_ceil(1 << 10),
            });
        }
        let ttl = match operation.expires_at_ms {
            0 => None,
            at_ms => Some(Duration::from_millis(
                at_ms.saturating_sub(now_ms) + AFTER_MS,
            )),
        };
        match self.bucket.put(&key, value, Some(0), ttl).await? {
            Written::Done(_) => Ok(None),
            Written::Conflict => {
                let state = self.bucket.get(&key).await?;
                let different = || OperationError::Different(operation.id.clone());
                let stored = state.value.as_deref().and_then(decode);
                let stored = stored.ok_or_else(different)?;
                if same(&stored, operation) {
                    Ok(Some(stored))
                } else {
                    Err(different())
                }
            }
        }
    }

    /// Changes an operation, and lets it end an hour later, or a minute later when there are many; `None` when it is not
    /// there.
    pub async fn lift(
        &self,
        id: &str,
        change: impl Fn(&mut Operation),
    ) -> Result<Option<Operation>, OperationError> {
        let key = key_of(id)?;
        let known = self.bucket.list("operation.*").await?;
        let are_many = known.len() > MOST / 2 || octets_of(&known) > MOST_OCTETS / 2;
        let stays = match are_many {
            true => LIFTED_IN_THE_WAY,
            false => LIFTED,
        };
        for _ in 0..5 {
            let state = self.bucket.get(&key).await?;
            let Some(mut operation) = state.value.as_deref().and_then(decode) else {
                return Ok(None);
            };
            change(&mut operation);
            let value = Bytes::from(operation.encode_to_vec());
            let written = self
                .bucket
                .put(&key, value, Some(state.revision), Some(stays))
                .await?;
            if matches!(written, Written::Done(_)) {
                return Ok(Some(operation));
            }
        }
        Err(OperationError::Changing(id.to_owned()))
    }

    /// The operations, now and ever after, in the order of their times; `None` until they are known.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Vec<Operation>>>> {
        map_watch(self.bucket.follow("operation.*"), None, |keys| {
            Some(Arc::new(read(keys)))
        })
    }
}

fn key_of(id: &str) -> Result<String, Error> {
    bucket::check_key(id)?;
    Ok(format!("operation.{id}"))
}

fn octets_of(keys: &KeyMap) -> usize {
    keys.values().map(|(_, value)| value.len()).sum()
}

fn decode(value: &[u8]) -> Option<Operation> {
    Operation::decode(value).ok()
}

fn read(keys: &KeyMap) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (key, (_, value)) in keys.iter() {
        match decode(value) {
            Some(operation) => operations.push(operation),
            None => tracing::error!(key, "the operation can't be read, and is not carried out"),
        }
    }
    operations.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
    operations
}

/// Whether two are the same but for the time of asking.
fn same(one: &Operation, other: &Operation) -> bool {
    let timeless = |operation: &Operation| {
        let mut operation = operation.clone();
        (operation.at_ms, operation.expires_at_ms, operation.lifted) = (0, 0, None);
        if let Some(selector) = &mut operation.selector {
            selector.accepted_before_ms = 0;
        }
        operation
    };
    timeless(one) == timeless(other)
}
