//! How tenants stand in pools, in the bucket `config` beside the configuration: one value for each pool, which every
//! scheduler follows.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::standing::PoolStandings;
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{self, Bucket, KeyMap, Written, map_watch};
use crate::link::Link;

/// Octets of a value at most: a message of the stores holds no more than a mebibyte.
const MOST_OCTETS: usize = 900 << 10;
/// How often it is tried again when others change the same pool.
const TRIES: usize = 20;

/// A change was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StandingsError {
    /// So many tenants have been there that nothing more can be kept of any.
    #[error(
        "of the pool {pool} {tenants} tenants are known, and that is as much as can be stored: \
         `staffetta tenants forget` those that are gone"
    )]
    Full {
        /// The pool.
        pool: String,
        /// Tenants.
        tenants: usize,
    },
    /// What is stored was written by a later release.
    #[error("what is stored of the pool {0} can't be read by this release")]
    Unreadable(String),
    /// Others keep changing it.
    #[error("how tenants stand in the pool {0} is being changed by others")]
    Changing(String),
    /// The stores refuse or don't answer; after a lost answer it may be stored.
    #[error(transparent)]
    Store(#[from] Error),
}

/// How tenants stand in all pools. A cheap clone.
#[derive(Debug, Clone)]
pub struct PoolStandingsStore {
    bucket: Bucket,
}

impl PoolStandingsStore {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "config"),
        }
    }

    /// Changes what is stored of a pool: `change` gets it (`none` when there is nothing) and says whether it is to be stored
    /// so; it is called again when somebody else was faster. Gives what is stored now, and whether this call changed it.
    pub async fn change(
        &self,
        none: &PoolStandings,
        mut change: impl FnMut(&mut PoolStandings) -> bool,
    ) -> Result<(PoolStandings, bool), StandingsError> {
        let key = key_of(&none.pool)?;
        for _ in 0..TRIES {
            let state = self.bucket.get(&key).await?;
            let unreadable = || StandingsError::Unreadable(none.pool.clone());
            let mut record = match state.value.as_deref() {
                None => none.clone(),
                Some(value) => PoolStandings::decode(value)
                    .ok()
                    .filter(|record| record.format == none.format)
                    .ok_or_else(unreadable)?,
            };
            let tenants = record.tenants.len();
            if !change(&mut record) {
                return Ok((record, false));
            }
            let value = Bytes::from(record.encode_to_vec());
            if value.len() > MOST_OCTETS {
                let pool = none.pool.clone();
                return Err(StandingsError::Full { pool, tenants });
            }
            let written = self.bucket.put(&key, value, Some(state.revision), None);
            if matches!(written.await?, Written::Done(_)) {
                return Ok((record, true));
            }
        }
        Err(StandingsError::Changing(none.pool.clone()))
    }

    /// What is stored of all pools.
    pub async fn load(&self) -> Result<Vec<PoolStandings>, Error> {
        Ok(read(&self.bucket.list("standing.*").await?))
    }

    /// What is stored of all pools, now and ever after; `None` until it is known.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Vec<PoolStandings>>>> {
        map_watch(self.bucket.follow("standing.*"), None, |keys| {
            Some(Arc::new(read(keys)))
        })
    }
}

/// Names of pools may hold dots, which part keys, and no underscores.
fn key_of(pool: &str) -> Result<String, Error> {
    let name = pool.replace('.', "_");
    bucket::check_key(&name)?;
    Ok(format!("standing.{name}"))
}

/// One that can't be read has its pool and no format: nothing leaves by that pool.
fn read(keys: &KeyMap) -> Vec<PoolStandings> {
    let record = |(key, (_, value)): (&String, &(u64, Bytes))| {
        PoolStandings::decode(&value[..]).unwrap_or_else(|error| {
            tracing::error!(key, %error, "how tenants stand in a pool can't be read: nothing leaves by it");
            let pool = key.trim_start_matches("standing.").replace('_', ".");
            PoolStandings {
                pool,
                ..PoolStandings::default()
            }
        })
    };
    keys.iter().map(record).collect()
}
