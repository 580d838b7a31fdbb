//! Reading one message of the spool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use mail::{MessageId, PartitionId, Place};
use prost::Message as _;
use proto::spool::IndexEntry;

use crate::cache::{BlockCache, BlockKey, CachedBlock};
use crate::consume::Record;
use crate::link::Link;
use crate::{BlockDamage, ChunkReader, Content, Error, block, layout};

/// A message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is at the place, on the stream's leader neither, which goes beyond it: the block was trimmed (the
    /// message may have moved), or lost.
    #[error("nothing is at the place")]
    NotFound,
    /// What is at the place can't be the message, on the stream's leader neither.
    #[error("damaged: {0}")]
    Damaged(#[from] BlockDamage),
    /// The stores don't answer. Later they may.
    #[error(transparent)]
    Unavailable(#[from] Error),
}

/// A message with its content in memory.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its entry in the index.
    pub entry: Arc<IndexEntry>,
    /// Its content; keeps the whole block in memory.
    pub content: Bytes,
}

/// A message whose content may still have to be read.
#[derive(Debug)]
pub struct OpenMessage {
    /// Its entry in the index.
    pub entry: Arc<IndexEntry>,
    /// Its content.
    pub content: Content,
}

/// Counters of a reader.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReaderStats {
    /// Messages asked for whose block was in memory.
    pub hits: u64,
    /// Blocks fetched.
    pub fetches: u64,
    /// Blocks asked of the stream's leader, since a replica had none or a damaged one.
    pub leader_fetches: u64,
    /// Bytes held.
    pub cached_bytes: u64,
}

/// Reads messages, and keeps the blocks they are in. A cheap clone.
#[derive(Debug, Clone)]
pub struct MessageReader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: Link,
    cache: BlockCache,
    hits: AtomicU64,
    fetches: AtomicU64,
    leader_fetches: AtomicU64,
}

impl MessageReader {
    pub(crate) fn new(link: Link, cache_bytes: usize) -> Self {
        let inner = Inner {
            link,
            cache: BlockCache::new(cache_bytes),
            hits: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            leader_fetches: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Reads a message with its whole content. The content of a large message is held in memory at once;
    /// [`MessageReader::open`] spares that.
    pub async fn read(
        &self,
        partition: PartitionId,
        place: Place,
        expected: MessageId,
    ) -> Result<Message, ReadError> {
        let OpenMessage { entry, content } = self.open(partition, place, expected).await?;
        Ok(Message {
            entry,
            content: content.into_bytes().await?,
        })
    }

    /// Reads a message; the content of a large one is read by the caller, chunk by chunk.
    pub async fn open(
        &self,
        partition: PartitionId,
        place: Place,
        expected: MessageId,
    ) -> Result<OpenMessage, ReadError> {
        let key = (partition, place.sequence);
        let (slot, hit) = self.inner.cache.slot(key);
        if hit {
            self.inner.hits.fetch_add(1, Relaxed);
        }
        let read = slot.get_or_try_init(|| async {
            let fetched = self.inner.fetch(key).await?;
            self.inner.cache.filled(key, &slot, fetched.bytes());
            Ok(fetched)
        });
        let read = read.await;
        let message = read.and_then(|cached| {
            let message = self.inner.message(cached, partition, place, expected)?;
            if cached.note_read(place.index) {
                self.inner.cache.spent(key, &slot);
            }
            Ok(message)
        });
        match message {
            Ok(message) => Ok(message),
            Err(error) => {
                self.inner.cache.forget(key, &slot);
                match error {
                    ReadError::Damaged(_) => {
                        self.inner.ask_leader(partition, place, expected).await
                    }
                    other => Err(other),
                }
            }
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> ReaderStats {
        ReaderStats {
            hits: self.inner.hits.load(Relaxed),
            fetches: self.inner.fetches.load(Relaxed),
            leader_fetches: self.inner.leader_fetches.load(Relaxed),
            cached_bytes: self.inner.cache.bytes() as u64,
        }
    }
}

impl Inner {
    async fn fetch(&self, (partition, sequence): BlockKey) -> Result<Arc<CachedBlock>, ReadError> {
        self.fetches.fetch_add(1, Relaxed);
        let stream = layout::spool_stream(partition);
        let record = match self.link.record_from_replica(&stream, sequence).await? {
            Some(record) => record,
            None => {
                self.leader_fetches.fetch_add(1, Relaxed);
                let record = self.link.record_or_surely_none(&stream, sequence).await?;
                record.ok_or(ReadError::NotFound)?
            }
        };
        self.decode(partition, record).await
    }

    async fn decode(
        &self,
        partition: PartitionId,
        record: Record,
    ) -> Result<Arc<CachedBlock>, ReadError> {
        if record.subject != layout::block_subject(partition) {
            return Err(BlockDamage::NoIndex.into());
        }
        let stream = layout::spool_stream(partition);
        let mut more = Vec::new();
        for sequence in block::more_sequences(&record.headers)? {
            let part = self.link.record(&stream, sequence).await?;
            more.push(part.ok_or(BlockDamage::MissingPart(sequence))?.payload);
        }
        let index = block::decode_index(&record.headers, &more)?;
        let index_bytes = index.encoded_len();
        let block = CachedBlock::new(index.entries, record.payload, index_bytes);
        Ok(Arc::new(block))
    }

    fn message(
        &self,
        cached: &CachedBlock,
        partition: PartitionId,
        place: Place,
        expected: MessageId,
    ) -> Result<OpenMessage, ReadError> {
        let entry = cached
            .entry(place.index)
            .ok_or(BlockDamage::NoEntry(place.index))?;
        block::check_message(entry, expected)?;
        let content = match &entry.chunks {
            Some(chunks) => Content::Chunks(ChunkReader::new(
                self.link.clone(),
                partition,
                chunks,
                entry,
            )),
            None => Content::Inline(block::content_of(entry, &cached.payload)?),
        };
        Ok(OpenMessage {
            entry: entry.clone(),
            content,
        })
    }

    /// A replica's disk may be bad where the leader's is not.
    async fn ask_leader(
        &self,
        partition: PartitionId,
        place: Place,
        expected: MessageId,
    ) -> Result<OpenMessage, ReadError> {
        self.leader_fetches.fetch_add(1, Relaxed);
        let record = self
            .link
            .record_or_surely_none(&layout::spool_stream(partition), place.sequence)
            .await?;
        let cached = self
            .decode(partition, record.ok_or(ReadError::NotFound)?)
            .await?;
        self.message(&cached, partition, place, expected)
    }
}
