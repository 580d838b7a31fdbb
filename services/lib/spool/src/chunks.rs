//! Reading the content of a large message.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use mail::PartitionId;
use proto::spool::{Chunks, IndexEntry};

use crate::link::Link;
use crate::{BlockDamage, ReadError, layout};

/// Chunks asked for ahead: at most 4 MiB.
const READ_AHEAD: usize = 4;

/// The content of a message.
#[derive(Debug)]
pub enum Content {
    /// In one piece.
    Inline(Bytes),
    /// To be read chunk by chunk.
    Chunks(ChunkReader),
}

impl Content {
    /// Bytes in all.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(content) => content.len() as u64,
            Self::Chunks(reader) => reader.length,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything in one piece of memory.
    pub async fn into_bytes(self) -> Result<Bytes, ReadError> {
        match self {
            Self::Inline(content) => Ok(content),
            Self::Chunks(mut reader) => {
                let mut whole =
                    BytesMut::with_capacity(usize::try_from(reader.length).unwrap_or(0));
                while let Some(chunk) = reader.next().await? {
                    whole.extend_from_slice(&chunk);
                }
                Ok(whole.freeze())
            }
        }
    }
}

/// Gives the chunks of a message in order; the checksum is verified with the last one.
pub struct ChunkReader {
    chunks: BoxStream<'static, Result<Bytes, ReadError>>,
    length: u64,
    given: u64,
    crc: u32,
    expected_crc: u32,
    ended: bool,
}

impl std::fmt::Debug for ChunkReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChunkReader")
            .field("length", &self.length)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl ChunkReader {
    pub(crate) fn new(
        link: Link,
        partition: PartitionId,
        chunks: &Chunks,
        entry: &IndexEntry,
    ) -> Self {
        let stream = layout::chunks_stream(partition);
        let subject = layout::chunk_subject(partition, &chunks.upload_id);
        let reads = futures::stream::iter(chunks.sequences.clone()).map(move |sequence| {
            let (link, stream, subject) = (link.clone(), stream.clone(), subject.clone());
            async move { read_chunk(&link, &stream, &subject, sequence).await }
        });
        Self {
            chunks: reads.buffered(READ_AHEAD).boxed(),
            length: chunks.length,
            given: 0,
            crc: 0,
            expected_crc: entry.crc,
            ended: false,
        }
    }

    /// Bytes in all.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The next chunk, up to 1 MiB; `None` after the last. When the content is damaged the error comes
    /// instead of the last chunk.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        if self.ended {
            return Ok(None);
        }
        let Some(chunk) = self.chunks.next().await.transpose()? else {
            self.ended = true;
            return if self.length == 0 {
                Ok(None)
            } else {
                Err(self.damaged())
            };
        };
        self.given += chunk.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &chunk);
        if self.given >= self.length {
            self.ended = true;
            if self.given > self.length || self.crc != self.expected_crc {
                return Err(self.damaged());
            }
        }
        Ok(Some(chunk))
    }

    /// Reads on until there are so many octets, or all: whole chunks, so there may be more.
    pub async fn opening(&mut self, length: usize) -> Result<Bytes, ReadError> {
        let mut opening = BytesMut::new();
        while opening.len() < length {
            let Some(chunk) = self.next().await? else {
                break;
            };
            opening.extend_from_slice(&chunk);
        }
        Ok(opening.freeze())
    }

    fn damaged(&self) -> ReadError {
        ReadError::Damaged(BlockDamage::Checksum)
    }
}

async fn read_chunk(
    link: &Link,
    stream: &str,
    subject: &str,
    sequence: u64,
) -> Result<Bytes, ReadError> {
    let record = link.record(stream, sequence).await?;
    match record.filter(|record| record.subject == subject) {
        Some(record) => Ok(record.payload),
        None => Err(ReadError::Damaged(BlockDamage::MissingChunk(sequence))),
    }
}
