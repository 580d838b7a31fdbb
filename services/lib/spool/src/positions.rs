//! How far the readers of the journals are: the owner keeps what they have not read.

use std::time::Duration;

use bytes::Bytes;
use mail::PartitionId;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::bucket::{self, Bucket};
use crate::link::Link;

/// A reader of a journal and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderPosition {
    /// Name of the reader: letters, digits, "-" and "_".
    pub reader: String,
    /// The partition whose journal it reads.
    pub partition: PartitionId,
    /// Sequence up to which it is done; 0 = nothing yet.
    pub sequence: u64,
}

/// In keys, in place of a partition.
const EVENTS: &str = "events";

#[derive(Serialize, Deserialize)]
struct Value {
    sequence: u64,
}

/// The positions of all registered readers. A cheap clone.
#[derive(Debug, Clone)]
pub struct ReaderPositions {
    bucket: Bucket,
}

impl ReaderPositions {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "readers"),
        }
    }

    /// Registers a reader, or moves it on. Each call is a durable write: not for every record.
    pub async fn set(
        &self,
        reader: &str,
        partition: PartitionId,
        sequence: u64,
    ) -> Result<(), Error> {
        let key = key_of(reader, partition)?;
        let value =
            serde_json::to_vec(&Value { sequence }).expect("a number can be written as JSON");
        self.bucket
            .put(&key, Bytes::from(value), None, None::<Duration>)
            .await
            .map(drop)
    }

    /// How far a reader is; `None` when it is not registered.
    pub async fn get(&self, reader: &str, partition: PartitionId) -> Result<Option<u64>, Error> {
        self.read(&key_of(reader, partition)?).await
    }

    async fn read(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.bucket.get(key).await?.value else {
            return Ok(None);
        };
        let value: Value = serde_json::from_slice(&value).map_err(|error| Error::Damaged {
            what: format!("position {key}"),
            detail: error.to_string(),
        })?;
        Ok(Some(value.sequence))
    }

    /// As [`ReaderPositions::set`], in the stream `EVENTS`, which is not kept for anybody.
    pub async fn set_of_events(&self, reader: &str, sequence: u64) -> Result<(), Error> {
        bucket::check_key(reader)?;
        let value =
            serde_json::to_vec(&Value { sequence }).expect("a number can be written as JSON");
        let key = format!("{reader}.{EVENTS}");
        let value = Bytes::from(value);
        let set = self.bucket.put(&key, value, None, None::<Duration>);
        set.await.map(drop)
    }

    /// As [`ReaderPositions::get`], in the stream `EVENTS`.
    pub async fn get_of_events(&self, reader: &str) -> Result<Option<u64>, Error> {
        bucket::check_key(reader)?;
        self.read(&format!("{reader}.{EVENTS}")).await
    }

    /// Ends a registration: the journal need not be kept for this reader.
    pub async fn remove(&self, reader: &str, partition: PartitionId) -> Result<(), Error> {
        self.bucket
            .delete(&key_of(reader, partition)?, None)
            .await
            .map(drop)
    }

    /// The registered readers of a partition's journal.
    pub async fn list(&self, partition: PartitionId) -> Result<Vec<ReaderPosition>, Error> {
        let keys = self.bucket.list(&format!("*.{partition}")).await?;
        let positions = keys.iter().filter_map(|(key, (_, value))| {
            let (reader, _) = key.split_once('.')?;
            let value: Value = serde_json::from_slice(value).ok()?;
            Some(ReaderPosition {
                reader: reader.to_owned(),
                partition,
                sequence: value.sequence,
            })
        });
        Ok(positions.collect())
    }
}

fn key_of(reader: &str, partition: PartitionId) -> Result<String, Error> {
    bucket::check_key(reader)?;
    Ok(format!("{reader}.{partition}"))
}
