//! Messages out of the spool.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::ReturnReason;
use proto::spool::IndexEntry;
use spool::{MessageReader, ReadError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A message in memory.
pub(crate) struct Loaded {
    pub entry: Arc<IndexEntry>,
    pub content: Bytes,
    /// Room for a large one, free again when it is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The message can't be sent, because it can't be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub reason: ReturnReason,
    pub detail: String,
}

/// What is returned by a [`ReadMessage`].
pub(crate) type Reading<'a> = Pin<Box<dyn Future<Output = Result<Loaded, Unreadable>> + Send + 'a>>;

/// Where messages come from.
pub(crate) trait ReadMessage: Send + Sync + 'static {
    fn read(&self, partition: PartitionId, place: Place, expected: MessageId) -> Reading<'_>;
}

/// Larger messages are counted.
const LARGE: u64 = 256 * 1024;
/// Memory for large messages, all together, in KiB.
const ROOM_KIB: u32 = 256 * 1024;

/// The spool, with its cache of blocks, and a bound on the memory for large messages.
pub(crate) struct SpooledMessages {
    reader: MessageReader,
    room: Arc<Semaphore>,
}

impl SpooledMessages {
    pub fn new(reader: MessageReader) -> Self {
        Self {
            reader,
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
        }
    }
}

impl ReadMessage for SpooledMessages {
    fn read(&self, partition: PartitionId, place: Place, expected: MessageId) -> Reading<'_> {
        Box::pin(async move {
            let message = self.reader.open(partition, place, expected).await?;
            let length = message.content.len();
            let room = if length > LARGE {
                let wanted = u32::try_from(length / 1024)
                    .unwrap_or(ROOM_KIB)
                    .min(ROOM_KIB);
                self.room.clone().acquire_many_owned(wanted).await.ok()
            } else {
                None
            };
            Ok(Loaded {
                content: message.content.into_bytes().await?,
                entry: message.entry,
                room,
            })
        })
    }
}

impl From<ReadError> for Unreadable {
    fn from(error: ReadError) -> Self {
        let reason = match error {
            ReadError::NotFound => ReturnReason::NotFound,
            ReadError::Damaged(_) => ReturnReason::Damaged,
            ReadError::Unavailable(_) => ReturnReason::StorageUnavailable,
        };
        Self {
            reason,
            detail: error.to_string(),
        }
    }
}
