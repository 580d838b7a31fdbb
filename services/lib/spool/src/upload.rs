//! Storing a large message in chunks, before the block that names them.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::{Bytes, BytesMut};
use mail::PartitionId;
use proto::spool::Chunks;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::link::Link;
use crate::writer::{RecordFailure, publish_record};
use crate::{SubmitError, layout};

const MIN_CHUNK: usize = 512 << 10;
const MAX_CHUNK: usize = 1 << 20;

/// Chunks in flight of one upload: 4 MiB at most.
const IN_FLIGHT: usize = 4;

/// An upload older than that is not committed; its owner deletes its chunks an hour later.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// A large message on its way into one partition. When it is dropped before
/// [`crate::Submission::uploaded`] is stored, its chunks are left to the partition's owner.
#[derive(Debug)]
pub struct Upload {
    link: Link,
    partition: PartitionId,
    id: Uuid,
    begun: Instant,
    repeat_for: Duration,
    /// Too short for a chunk so far.
    gathered: BytesMut,
    in_flight: JoinSet<(usize, Result<u64, RecordFailure>)>,
    /// Sequences by the number of the chunk; 0 = not known yet.
    sequences: Vec<u64>,
    length: u64,
    crc: u32,
}

/// A content that is stored and waits for its block.
#[derive(Debug, Clone)]
pub struct Uploaded {
    pub(crate) partition: PartitionId,
    pub(crate) chunks: Chunks,
    pub(crate) crc: u32,
    begun: Instant,
}

impl Uploaded {
    /// Bytes of the content.
    pub fn length(&self) -> u64 {
        self.chunks.length
    }

    /// The partition that it is in.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    pub(crate) fn has_expired(&self) -> bool {
        self.begun.elapsed() > MAX_AGE
    }
}

impl Upload {
    pub(crate) fn begin(link: Link, partition: PartitionId, repeat_for: Duration) -> Self {
        Self {
            link,
            partition,
            id: Uuid::now_v7(),
            begun: Instant::now(),
            repeat_for,
            gathered: BytesMut::new(),
            in_flight: JoinSet::new(),
            sequences: Vec::new(),
            length: 0,
            crc: 0,
        }
    }

    /// Adds to the content. Waits while four chunks are in flight. Pieces of 512 KiB to 1 MiB are sent as
    /// they are, others are gathered or divided. After an error the upload is of no use.
    pub async fn push(&mut self, mut piece: Bytes) -> Result<(), SubmitError> {
        self.length += piece.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, &piece);
        while self.gathered.is_empty() && piece.len() > MAX_CHUNK {
            let chunk = piece.split_to(MAX_CHUNK);
            self.send(chunk).await?;
        }
        if self.gathered.is_empty() && piece.len() >= MIN_CHUNK {
            return self.send(piece).await;
        }
        while !piece.is_empty() {
            let take = piece.len().min(MAX_CHUNK - self.gathered.len());
            self.gathered.extend_from_slice(&piece.split_to(take));
            if self.gathered.len() >= MIN_CHUNK {
                let chunk = self.gathered.split().freeze();
                self.send(chunk).await?;
            }
        }
        Ok(())
    }

    /// Waits until everything is stored.
    pub async fn finish(mut self) -> Result<Uploaded, SubmitError> {
        if !self.gathered.is_empty() {
            let chunk = self.gathered.split().freeze();
            self.send(chunk).await?;
        }
        while !self.in_flight.is_empty() {
            self.land().await?;
        }
        let sequences = std::mem::take(&mut self.sequences);
        let chunks = Chunks {
            upload_id: self.id.to_string(),
            sequences,
            length: self.length,
        };
        Ok(Uploaded {
            partition: self.partition,
            chunks,
            crc: self.crc,
            begun: self.begun,
        })
    }

    async fn send(&mut self, chunk: Bytes) -> Result<(), SubmitError> {
        if self.begun.elapsed() > MAX_AGE {
            return Err(SubmitError::UploadExpired);
        }
        while self.in_flight.len() >= IN_FLIGHT {
            self.land().await?;
        }
        let number = self.sequences.len();
        self.sequences.push(0);
        let (link, repeat_for) = (self.link.clone(), self.repeat_for);
        let subject = layout::chunk_subject(self.partition, &self.id.to_string());
        let mut headers = HeaderMap::new();
        headers.insert(
            async_nats::header::NATS_MESSAGE_ID,
            format!("{}-{number}", self.id),
        );
        self.in_flight.spawn(async move {
            let stored = publish_record(&link, &subject, headers, chunk, repeat_for, || {}).await;
            (
                number,
                stored.map(|acknowledgement| acknowledgement.sequence),
            )
        });
        Ok(())
    }

    async fn land(&mut self) -> Result<(), SubmitError> {
        match self.in_flight.join_next().await {
            Some(Ok((number, Ok(sequence)))) => {
                self.sequences[number] = sequence;
                Ok(())
            }
            // A chunk alone is nothing: the message is certainly not stored.
            Some(Ok((_, Err(RecordFailure::Unknown(detail))))) => {
                Err(SubmitError::Unavailable(detail))
            }
            Some(Ok((_, Err(failure)))) => Err(failure.into()),
            Some(Err(error)) => Err(SubmitError::Unavailable(error.to_string())),
            None => Ok(()),
        }
    }
}
