//! What is done about credentials, in the bucket `config` beside the configuration: one value for each credential, which
//! every ingress follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use proto::watch::Measure;
use tokio::sync::watch;

use crate::Error;
use crate::bucket::{self, Bucket, KeyMap, Written, map_watch};
use crate::link::Link;

/// Format of the values that this release writes.
const FORMAT: u32 = 1;
/// How often it is tried again when others change the same credential.
const TRIES: usize = 10;
/// How much longer than it holds a measure stays: clocks may differ.
const AFTER_MS: u64 = 5_000;

/// Measures by the name of their credential.
pub type MeasureMap = Arc<BTreeMap<String, Measure>>;

/// The measures that are not over. A cheap clone.
#[derive(Debug, Clone)]
pub struct Measures {
    bucket: Bucket,
}

impl Measures {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "config"),
        }
    }

    /// Sets what is done about a credential, unless `keep` says of what is there that it stays. Gives what is stored now,
    /// and whether this call stored it: of several that do the same at once, one does. A measure with an end is forgotten
    /// by itself.
    pub async fn set(
        &self,
        measure: &Measure,
        now_ms: u64,
        keep: impl Fn(&Measure) -> bool,
    ) -> Result<(Measure, bool), Error> {
        let key = key_of(&measure.credential)?;
        let measure = Measure {
            format: FORMAT,
            ..measure.clone()
        };
        let ttl = (measure.until_ms > 0).then(|| {
            Duration::from_millis(measure.until_ms.saturating_sub(now_ms).max(1) + AFTER_MS)
        });
        let mut unanswered = false;
        for _ in 0..TRIES {
            let state = self.bucket.get(&key).await?;
            let present = state.value.as_deref().and_then(decoded);
            if state.value.is_some() && present.is_none() {
                return Err(unavailable(&measure, "it is of a later release"));
            }
            // Ours, of which the answer was lost. Others may take the very same one at the same time.
            if unanswered && present.as_ref() == Some(&measure) {
                return Ok((measure, true));
            }
            if let Some(present) = present.filter(|present| keep(present)) {
                return Ok((present, false));
            }
            let value = Bytes::from(measure.encode_to_vec());
            let written = self.bucket.put(&key, value, Some(state.revision), ttl);
            match written.await {
                Ok(Written::Done(_)) => return Ok((measure, true)),
                Ok(Written::Conflict) => {}
                // It may be stored: what is there says so.
                Err(Error::Unavailable { .. }) => unanswered = true,
                Err(error) => return Err(error),
            }
        }
        Err(unavailable(&measure, "others keep changing it; try again"))
    }

    /// All of them.
    pub async fn load(&self) -> Result<MeasureMap, Error> {
        Ok(read(&self.bucket.list("measure.*").await?))
    }

    /// All of them, now and ever after. Waits until they are known: nobody who is locked gets in before.
    pub async fn follow(&self) -> watch::Receiver<MeasureMap> {
        let mut keys = self.bucket.follow("measure.*");
        let known = match keys.wait_for(Option::is_some).await {
            Ok(present) => present.as_ref().map(read).unwrap_or_default(),
            // Its task lives as long as we listen.
            Err(_) => MeasureMap::default(),
        };
        map_watch(keys, known, read)
    }
}

fn unavailable(measure: &Measure, detail: &str) -> Error {
    Error::Unavailable {
        what: format!("what is done about the credential {}", measure.credential),
        detail: detail.to_owned(),
    }
}

/// Names of credentials may hold dots, which part keys, and no underscores.
fn key_of(credential: &str) -> Result<String, Error> {
    if credential.contains('_') {
        return Err(Error::InvalidKey(credential.to_owned()));
    }
    let name = credential.replace('.', "_");
    bucket::check_key(&name)?;
    Ok(format!("measure.{name}"))
}

/// One of a later release is not known: who knows it acts on it.
fn decoded(value: &[u8]) -> Option<Measure> {
    Measure::decode(value)
        .ok()
        .filter(|measure| measure.format == FORMAT)
}

fn read(keys: &KeyMap) -> MeasureMap {
    let measures = keys.values().filter_map(|(_, value)| decoded(value));
    let named = measures.map(|measure| (measure.credential.clone(), measure));
    Arc::new(named.collect())
}
