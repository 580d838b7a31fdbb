//! The configuration snapshot: its body in chunks under its hash, and the key `current` that names it.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{Bucket, Written};
use crate::link::Link;

const CURRENT: &str = "current";
const CHUNK: usize = 256 << 10;
/// The longest body, bytes.
const MAX_BODY: usize = 64 << 20;

/// The snapshot as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredConfig {
    /// Rises with every change; 0 is never used.
    pub version: u64,
    /// SHA-256 of the body, hexadecimal.
    pub hash: String,
    /// The body.
    pub body: Bytes,
}

/// A snapshot was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ConfigConflict {
    /// Somebody else stored one: load it, merge, and try again.
    #[error("the configuration was changed by somebody else (version {expected} was expected)")]
    Changed {
        /// The version that was expected.
        expected: u64,
    },
    /// The hash is not that of the body, or the body is longer than 64 MiB.
    #[error("the snapshot can't be stored: {0}")]
    Invalid(String),
    /// The stores refuse or don't answer; after a lost answer it may be stored.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What the key `current` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Current {
    hash: String,
    chunks: usize,
    length: usize,
    /// Kept for those who are just reading it.
    #[serde(default)]
    previous: Option<String>,
}

/// The configuration of the installation. A cheap clone.
#[derive(Debug, Clone)]
pub struct ConfigStore {
    bucket: Bucket,
}

impl ConfigStore {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "config"),
        }
    }

    /// The present snapshot; `None` when none was ever stored. Its hash is verified.
    pub async fn load(&self) -> Result<Option<StoredConfig>, Error> {
        let state = self.bucket.get(CURRENT).await?;
        match state.value {
            Some(value) => self.read(state.revision, &value).await.map(Some),
            None => Ok(None),
        }
    }

    /// Stores a snapshot in place of the one with `expected_version` (0: of none); tells its version.
    pub async fn put(
        &self,
        body: Bytes,
        hash: &str,
        expected_version: u64,
    ) -> Result<u64, ConfigConflict> {
        if body.len() > MAX_BODY {
            return Err(ConfigConflict::Invalid(format!("{} bytes", body.len())));
        }
        if sha256(&body) != hash {
            return Err(ConfigConflict::Invalid(
                "the hash is not that of the body".to_owned(),
            ));
        }
        let conflict = || ConfigConflict::Changed {
            expected: expected_version,
        };
        let state = self.bucket.get(CURRENT).await?;
        if state.revision != expected_version {
            return Err(conflict());
        }
        let previous = state
            .value
            .and_then(|value| decode(&value).ok())
            .map(|current| current.hash);
        let chunks = body.len().div_ceil(CHUNK);
        for number in 0..chunks {
            let chunk = body.slice(number * CHUNK..body.len().min((number + 1) * CHUNK));
            self.bucket
                .put(&chunk_key(hash, number), chunk, None, None)
                .await?;
        }
        let current = Current {
            hash: hash.to_owned(),
            chunks,
            length: body.len(),
            previous,
        };
        let value = Bytes::from(
            serde_json::to_vec(&current).expect("strings and numbers can be written as JSON"),
        );
        match self
            .bucket
            .put(CURRENT, value, Some(expected_version), None)
            .await?
        {
            Written::Done(version) => {
                self.remove_others(&current).await;
                Ok(version)
            }
            Written::Conflict => Err(conflict()),
        }
    }

    /// The snapshot, now and ever after; `None` while there is none, or it is not known yet. One whose
    /// body can't be read or has another hash is logged and left out: the last good one stays.
    pub fn follow(&self) -> watch::Receiver<Option<Arc<StoredConfig>>> {
        let (sender, receiver) = watch::channel(None);
        let store = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = store.keep_following(&sender) => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }

    async fn keep_following(&self, sender: &watch::Sender<Option<Arc<StoredConfig>>>) {
        let mut keys = self.bucket.follow(CURRENT);
        loop {
            let present = keys
                .borrow_and_update()
                .as_ref()
                .and_then(|keys| keys.get(CURRENT).cloned());
            let known = sender.borrow().as_ref().map(|config| config.version);
            if let Some((revision, value)) = present
                && known != Some(revision)
            {
                match self.read(revision, &value).await {
                    Ok(config) => drop(sender.send_replace(Some(Arc::new(config)))),
                    Err(error) => {
                        tracing::error!(version = revision, %error, "the configuration can't be read; the last one stays");
                        // The next version, or a later attempt at this one.
                        if let Ok(Err(_)) =
                            tokio::time::timeout(Duration::from_secs(5), keys.changed()).await
                        {
                            return;
                        }
                        continue;
                    }
                }
            }
            if keys.changed().await.is_err() {
                return;
            }
        }
    }

    async fn read(&self, version: u64, value: &[u8]) -> Result<StoredConfig, Error> {
        let damaged = |detail: String| Error::Damaged {
            what: format!("version {version} of the configuration"),
            detail,
        };
        let current = decode(value).map_err(damaged)?;
        if current.length > MAX_BODY {
            return Err(damaged(format!("{} bytes", current.length)));
        }
        let mut body = BytesMut::with_capacity(current.length);
        for number in 0..current.chunks {
            let chunk = self
                .bucket
                .get(&chunk_key(&current.hash, number))
                .await?
                .value;
            let chunk = chunk.ok_or_else(|| damaged(format!("part {number} is missing")))?;
            if body.len() + chunk.len() > current.length {
                return Err(damaged("it is longer than it should be".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        if sha256(&body) != current.hash {
            return Err(damaged("its hash is not that of its body".to_owned()));
        }
        Ok(StoredConfig {
            version,
            hash: current.hash,
            body: body.freeze(),
        })
    }

    /// Removes the bodies of older versions; what is left over now is removed with the next change.
    async fn remove_others(&self, current: &Current) {
        let removed = async {
            let keys = self.bucket.list("body.*.0").await?;
            for key in keys.keys() {
                let hash = key
                    .strip_prefix("body.")
                    .and_then(|rest| rest.strip_suffix(".0"))
                    .unwrap_or_default();
                if hash != current.hash && Some(hash) != current.previous.as_deref() {
                    self.bucket.purge(&format!("body.{hash}.*")).await?;
                }
            }
            Ok::<(), Error>(())
        };
        if let Err(error) = removed.await {
            tracing::warn!(%error, "old versions of the configuration could not be removed");
        }
    }
}

fn chunk_key(hash: &str, number: usize) -> String {
    format!("body.{hash}.{number}")
}

fn decode(value: &[u8]) -> Result<Current, String> {
    let current: Current = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let is_hash =
        current.hash.len() == 64 && current.hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash {
        Ok(current)
    } else {
        Err("the hash is none".to_owned())
    }
}

fn sha256(body: &[u8]) -> String {
    digest(&SHA256, body)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
