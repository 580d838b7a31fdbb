//! What is done about replies, in the bucket `config` beside the configuration: what one scheduler heard holds at all.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::journal::Acted;
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{self, Bucket, KeyMap, map_watch};
use crate::link::Link;

/// How much longer than it holds an act stays: clocks of schedulers may differ.
const AFTER_MS: u64 = 5_000;

/// The acts that are not over. A cheap clone.
#[derive(Debug, Clone)]
pub struct Acts {
    bucket: Bucket,
}

impl Acts {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "config"),
        }
    }

    /// Tells the other schedulers of an act, in place of what was told by this key before (letters, digits, `-` and `_`).
    /// `now_ms` is the time, Unix milliseconds; when the act is over it is forgotten by itself.
    pub async fn tell(&self, key: &str, act: &Acted, now_ms: u64) -> Result<(), Error> {
        bucket::check_key(key)?;
        let left_ms = act.until_ms.saturating_sub(now_ms) + AFTER_MS;
        let value = Bytes::from(act.encode_to_vec());
        let ttl = Some(Duration::from_millis(left_ms));
        // Without an expected revision there is nothing that it could contradict.
        self.bucket
            .put(&format!("act.{key}"), value, None, ttl)
            .await?;
        Ok(())
    }

    /// The acts, now and ever after; `None` until they are known.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<Vec<Acted>>>> {
        map_watch(self.bucket.follow("act.*"), None, |keys| {
            Some(Arc::new(read(keys)))
        })
    }
}

/// One that can't be read is of a later release: who knows it acts on it.
fn read(keys: &KeyMap) -> Vec<Acted> {
    let values = keys.values();
    values
        .filter_map(|(_, value)| Acted::decode(&value[..]).ok())
        .collect()
}
