//! The stream `INBOUND`: what came to the inbound listener and is not handled yet.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message as _;
use proto::inbound::Record;
use uuid::Uuid;

use crate::consume::Consumption;
use crate::link::{Link, PublishFailure};
use crate::packs::{PackReader, PackUnreadable};
use crate::{Error, layout};

/// Format of the records that this release writes.
pub const INBOUND_FORMAT: u32 = 1;

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

    /// First and last sequence; the first is `last + 1` when nothing waits. [`Error::MissingStream`] in an installation
    /// that has no such stream.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn bounds(&self) -> Result<(u64, u64), Error> {
        let state = self.control.stream_state(layout::INBOUND).await?.state;
        Ok((state.first_sequence.max(1), state.last_sequence))
    }

    /// All that is there, in order, and then what is to come. Dropping it ends it.
    pub fn follow(&self) -> PackReader {
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::INBOUND.to_owned(),
            layout::INBOUND_SUBJECT.to_owned(),
            0,
        );
        PackReader::start(consumption, true)
    }

    /// Removes what is handled, up to a sequence and with it.
    ///
    /// # Errors
    /// When the store does not answer; it may be removed all the same.
    pub async fn remove_up_to(&self, sequence: u64) -> Result<(), Error> {
        let below = Some(sequence.saturating_add(1));
        self.control.purge(layout::INBOUND, below, None).await?;
        Ok(())
    }
}
