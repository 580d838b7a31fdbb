//! Messages out of the spool.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::ReturnReason;
use proto::spool::IndexEntry;
use spool::{ChunkReader, MessageReader, ReadError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A message, of which at least the header section is in memory.
pub(crate) struct Loaded {
    pub entry: Arc<IndexEntry>,
    /// With the empty line after it.
    pub header: Bytes,
    pub content: Content,
    /// Room for a large one, free again when it is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

/// Header section and body.
pub(crate) enum Content {
    /// In memory.
    Whole(Bytes),
    /// To be read on the way, once.
    Pieces(Pieces),
}

/// Content that is read while it is sent.
pub(crate) struct Pieces {
    length: usize,
    /// Never locked: it makes what can only be sent to another thread shareable with it.
    pieces: Mutex<BoxStream<'static, Result<Bytes, Unreadable>>>,
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

impl Content {
    /// Octets in all.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(content) => content.len(),
            Self::Pieces(pieces) => pieces.length,
        }
    }
}

impl Pieces {
    /// Content of so many octets that comes in these pieces.
    pub fn new(length: usize, pieces: BoxStream<'static, Result<Bytes, Unreadable>>) -> Self {
        Self {
            length,
            pieces: Mutex::new(pieces),
        }
    }

    /// The next piece, in the form in which it is stored; `None` after the last. That the content is damaged is said
    /// instead of the last piece: what went out before must not be ended.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Unreadable> {
        let pieces = self.pieces.get_mut();
        let pieces = pieces.unwrap_or_else(PoisonError::into_inner);
        pieces.next().await.transpose()
    }
}

/// Larger messages are counted.
const LARGE: u64 = 256 * 1024;
/// Larger messages are read while they are sent.
const WHOLE: u64 = 4 * 1024 * 1024;
/// What such a one holds of itself, in KiB: four chunks that are read ahead, the one that is sent, and its form on the wire.
const PIECES_KIB: u32 = 6 * 1024;
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

    async fn room_for(&self, length: u64) -> Option<OwnedSemaphorePermit> {
        let wanted = match length {
            0..=LARGE => return None,
            length if length <= WHOLE => u32::try_from(length / 1024).unwrap_or(PIECES_KIB),
            _ => PIECES_KIB,
        };
        self.room.clone().acquire_many_owned(wanted).await.ok()
    }
}

impl ReadMessage for SpooledMessages {
    fn read(&self, partition: PartitionId, place: Place, expected: MessageId) -> Reading<'_> {
        Box::pin(async move {
            let spool::OpenMessage { entry, content } =
                self.reader.open(partition, place, expected).await?;
            let room = self.room_for(content.len()).await;
            let header_length = entry.header_length as usize;
            let (header, content) = match content {
                spool::Content::Chunks(chunks) if chunks.length() > WHOLE => {
                    in_pieces(chunks, header_length).await?
                }
                content => {
                    let content = content.into_bytes().await?;
                    let header = content.slice(..header_length.min(content.len()));
                    (header, Content::Whole(content))
                }
            };
            Ok(Loaded {
                entry,
                header,
                content,
                room,
            })
        })
    }
}

/// Reads no further than the header section goes.
async fn in_pieces(
    mut chunks: ChunkReader,
    header_length: usize,
) -> Result<(Bytes, Content), ReadError> {
    let length = usize::try_from(chunks.length()).unwrap_or(usize::MAX);
    let opening = chunks.opening(header_length).await?;
    let header = opening.slice(..header_length.min(opening.len()));
    let rest = futures::stream::try_unfold(chunks, |mut chunks| async move {
        let chunk = chunks.next().await?;
        Ok::<_, ReadError>(chunk.map(|chunk| (chunk, chunks)))
    });
    let pieces = futures::stream::iter([Ok(opening)]).chain(rest.map_err(Unreadable::from));
    Ok((header, Content::Pieces(Pieces::new(length, pieces.boxed()))))
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
