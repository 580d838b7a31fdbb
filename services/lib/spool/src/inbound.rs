//! The stream `INBOUND`: what came to the inbound listener and is not handled yet.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message as _;
use proto::inbound::Record;
use uuid::Uuid;

use crate::consume::Consumption;
use crate::link::{Link, PublishFailure, unix_ms};
use crate::packs::{PackReader, PackUnreadable};
use crate::{Error, layout};

/// Format of the records that this release writes.
pub const INBOUND_FORMAT: u32 = 1;

/// Records that are asked for, and kept, ahead of who handles them: each may have 4 MiB.
const READ_AHEAD: usize = 4;

/// JetStream: there is no message with that sequence (any more).
const NOT_THERE: [u64; 2] = [10043, 10057];

/// What is in the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundInfo {
    /// Sequence of the first record; that of the next one when nothing waits.
    pub first: u64,
    /// Records that wait.
    pub count: u64,
    /// When the stream was made, Unix milliseconds: a lost one is made again, and counts from 1.
    pub created_ms: u64,
}

/// A message could not be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InboundUnstored {
    /// The stream, or the volume, is full.
    #[error("there is no room: {0}")]
    Full(String),
    /// It may be stored or not: whoever sends it sends it again.
    #[error("{0}")]
    Unavailable(String),
}

/// Reads a record of `INBOUND`.
///
/// # Errors
/// When it is none, or of a later release.
pub fn decode_inbound(bytes: &[u8]) -> Result<Record, PackUnreadable> {
    let record =
        Record::decode(bytes).map_err(|error| PackUnreadable::Malformed(error.to_string()))?;
    match record.format {
        INBOUND_FORMAT => Ok(record),
        found => Err(PackUnreadable::Format {
            found,
            known: INBOUND_FORMAT,
        }),
    }
}

/// Stores what comes back, and gives it to who handles it. A cheap clone.
#[derive(Debug, Clone)]
pub struct InboundStore {
    control: Link,
    bulk: Link,
}

impl InboundStore {
    pub(crate) fn new(control: Link, bulk: Link) -> Self {
        Self { control, bulk }
    }

    /// Stores a message; `Ok` only when the store has acknowledged it. One attempt. Its format is set here.
    ///
    /// # Errors
    /// When it is not stored, or may not be.
    pub async fn store(&self, mut record: Record) -> Result<(), InboundUnstored> {
        record.format = INBOUND_FORMAT;
        let mut headers = HeaderMap::new();
        if let Ok(id) = Uuid::from_slice(&record.id) {
            headers.insert(NATS_MESSAGE_ID, id.to_string());
        }
        let subject = layout::INBOUND_SUBJECT.to_owned();
        let payload = Bytes::from(record.encode_to_vec());
        // Over the connection of what is large, so that no lease waits for it.
        let stored = self.bulk.publish_connected(subject, headers, payload).await;
        stored.map(drop).map_err(|failure| match failure {
            failure if failure.is_full() => InboundUnstored::Full(failure.detail()),
            PublishFailure::NoStream => InboundUnstored::Unavailable(
                "there is no stream INBOUND (or it has no leader); `staffetta init` creates it"
                    .to_owned(),
            ),
            failure => InboundUnstored::Unavailable(failure.detail()),
        })
    }

    /// What is there. [`Error::MissingStream`] in an installation that has no such stream.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn info(&self) -> Result<InboundInfo, Error> {
        let info = self.control.stream_state(layout::INBOUND).await?;
        Ok(InboundInfo {
            first: info.state.first_sequence.max(1),
            count: info.state.messages,
            created_ms: unix_ms(info.created),
        })
    }

    /// All that is there, in order, and then what is to come. Dropping it ends it.
    pub fn follow(&self) -> PackReader {
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::INBOUND.to_owned(),
            layout::INBOUND_SUBJECT.to_owned(),
            0,
        );
        PackReader::start_ahead(consumption.batch(READ_AHEAD), true, READ_AHEAD)
    }

    /// Removes what is handled, and nothing else: what comes before it in a stream that was made again is not handled. It may be
    /// gone already.
    ///
    /// # Errors
    /// When the store does not answer; it may be removed all the same.
    pub async fn remove(&self, sequence: u64) -> Result<(), Error> {
        match self.control.delete(layout::INBOUND, sequence).await {
            Err(Error::Refused { code, .. }) if NOT_THERE.contains(&code) => Ok(()),
            removed => removed,
        }
    }
}
