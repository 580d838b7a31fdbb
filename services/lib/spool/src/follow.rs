//! Reads the indexes of the blocks of a partition, without their contents.

use bytes::Bytes;
use mail::PartitionId;
use proto::spool::BlockIndex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::consume::{Consumption, Delivered, Record};
use crate::layout;
use crate::link::Link;
use crate::{BlockDamage, Error, block};

/// Blocks read ahead of the reader.
const READ_AHEAD: usize = 64;

const SIZE_HEADER: &str = "Nats-Msg-Size";

/// A block's index and place.
#[derive(Debug, Clone)]
pub struct IndexedBlock {
    /// Stream sequence of the block: `Place.sequence` of its messages.
    pub sequence: u64,
    /// Lowest sequence of what belongs to the block (parts of a large index go before it); purging
    /// below it keeps the block whole.
    pub first_sequence: u64,
    /// The index, or why it can't be read (the block is to be kept and quarantined).
    pub result: Result<BlockIndex, BlockDamage>,
    /// Bytes of the contents.
    pub size_bytes: u64,
}

/// What comes next.
#[derive(Debug, Clone)]
pub enum Followed {
    /// The next block; sequences rise, and no block is left out.
    Block(IndexedBlock),
    /// All blocks that were there when the following began have been given. Comes once.
    CaughtUp {
        /// Sequence of the last block given, or the one that the following began after.
        sequence: u64,
    },
}

/// Reads on for as long as it is asked; not asking is how to pause (64 blocks are read ahead).
/// Lost connections are healed inside; dropping it ends it.
#[derive(Debug)]
pub struct BlockFollower {
    items: mpsc::Receiver<Result<Followed, Error>>,
    task: JoinHandle<()>,
}

impl BlockFollower {
    pub(crate) fn start(link: Link, partition: PartitionId, after_sequence: u64) -> Self {
        let (sender, items) = mpsc::channel(READ_AHEAD);
        let reading = Reading {
            link,
            partition,
            sender,
        };
        Self {
            items,
            task: tokio::spawn(reading.run(after_sequence)),
        }
    }

    /// Waits for the next block. Safe to cancel. An error means that the stream can't be read at the
    /// moment, or is not there (`Error::MissingStream`); asking again goes on where it stopped.
    pub async fn next(&mut self) -> Result<Followed, Error> {
        match self.items.recv().await {
            Some(item) => item,
            None => Err(Error::Unavailable {
                what: "following the blocks".to_owned(),
                detail: "the task has ended".to_owned(),
            }),
        }
    }
}

impl Drop for BlockFollower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    link: Link,
    partition: PartitionId,
    sender: mpsc::Sender<Result<Followed, Error>>,
}

impl Reading {
    async fn run(self, after_sequence: u64) {
        let stream = layout::spool_stream(self.partition);
        let filter = layout::block_subject(self.partition);
        let mut consumption =
            Consumption::after(self.link.clone(), stream, filter, after_sequence).headers_only();
        let mut last = after_sequence;
        let mut caught_up = false;
        loop {
            let item = match consumption.next().await {
                Delivered::Message(record) => {
                    last = record.sequence;
                    Ok(Followed::Block(self.index(record).await))
                }
                Delivered::CaughtUp if !caught_up => {
                    caught_up = true;
                    Ok(Followed::CaughtUp { sequence: last })
                }
                Delivered::CaughtUp | Delivered::Restarted => continue,
                Delivered::Failed(error) => Err(error),
            };
            if self.sender.send(item).await.is_err() {
                return;
            }
        }
    }

    async fn index(&self, record: Record) -> IndexedBlock {
        let size_bytes = record
            .headers
            .get(SIZE_HEADER)
            .and_then(|size| size.as_str().parse().ok())
            .unwrap_or(0);
        let mut first_sequence = record.sequence;
        let result = match block::more_sequences(&record.headers) {
            Ok(sequences) => {
                first_sequence = sequences.iter().copied().fold(first_sequence, u64::min);
                match self.parts(&sequences).await {
                    Ok(parts) => block::decode_index(&record.headers, &parts),
                    Err(damage) => Err(damage),
                }
            }
            Err(damage) => Err(damage),
        };
        IndexedBlock {
            sequence: record.sequence,
            first_sequence,
            result,
            size_bytes,
        }
    }

    /// Waits for ever while the stream can't be asked: a part that can't be read now is not damaged.
    async fn parts(&self, sequences: &[u64]) -> Result<Vec<Bytes>, BlockDamage> {
        let stream = layout::spool_stream(self.partition);
        let mut parts = Vec::with_capacity(sequences.len());
        for sequence in sequences {
            let part = loop {
                match self.link.record(&stream, *sequence).await {
                    Ok(part) => break part,
                    Err(error) => {
                        tracing::warn!(%stream, sequence, %error, "can't read a part of an index, trying again");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            };
            parts.push(part.ok_or(BlockDamage::MissingPart(*sequence))?.payload);
        }
        Ok(parts)
    }
}
