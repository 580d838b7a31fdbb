//! Publishing one record, and one block, to one partition, until the outcome is known or five minutes
//! are over.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use bytes::Bytes;
use mail::PartitionId;
use proto::spool::IndexEntry;
use uuid::Uuid;

use crate::block::AssembledBlock;
use crate::link::{Acknowledgement, Link, PublishFailure};
use crate::{SubmitError, WriterOptions, layout};

/// A record this long is refused, bytes: the leader answers reads in base64, within 8 MiB.
const MAX_RECORD: usize = 5 << 20;

/// How long a record that could not even be sent waits for the connection.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// A record was not stored, or that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordFailure {
    /// Refused for want of room. Not stored.
    Full(String),
    /// Refused, or never sent. Not stored.
    Refused(String),
    /// Not known.
    Unknown(String),
}

impl From<RecordFailure> for SubmitError {
    fn from(failure: RecordFailure) -> Self {
        match failure {
            RecordFailure::Full(_) => Self::Full,
            RecordFailure::Refused(detail) => Self::Unavailable(detail),
            RecordFailure::Unknown(detail) => Self::Unknown(detail),
        }
    }
}

/// Publishes until the outcome is known. The headers carry the record's id, so that it is stored once.
/// `on_unknown` is called before every repetition.
pub(crate) async fn publish_record(
    link: &Link,
    subject: &str,
    headers: HeaderMap,
    payload: Bytes,
    repeat_for: Duration,
    mut on_unknown: impl FnMut(),
) -> Result<Acknowledgement, RecordFailure> {
    let begun = Instant::now();
    let mut maybe_stored = false;
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match link
            .publish(subject.to_owned(), headers.clone(), payload.clone())
            .await
        {
            Ok(acknowledgement) => return Ok(acknowledgement),
            Err(failure) => failure,
        };
        if !maybe_stored {
            match failure {
                PublishFailure::NotSent if begun.elapsed() >= CONNECTION_PATIENCE => {
                    return Err(RecordFailure::Refused(failure.detail()));
                }
                PublishFailure::NotSent => {
                    link.connected_within(CONNECTION_PATIENCE.saturating_sub(begun.elapsed()))
                        .await;
                    continue;
                }
                _ if failure.is_full() => return Err(RecordFailure::Full(failure.detail())),
                _ if failure.is_explicit() => return Err(RecordFailure::Refused(failure.detail())),
                _ => maybe_stored = true,
            }
        }
        // Even a refusal says nothing now of the attempt before.
        if begun.elapsed() >= repeat_for {
            return Err(RecordFailure::Unknown(failure.detail()));
        }
        on_unknown();
        link.connected_within(repeat_for.saturating_sub(begun.elapsed()))
            .await;
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Publishes the parts of the index that go first, then the block.
pub(crate) async fn publish_assembled(
    link: &Link,
    partition: PartitionId,
    block: &AssembledBlock,
    repeat_for: Duration,
    mut on_unknown: impl FnMut(),
) -> Result<Acknowledgement, RecordFailure> {
    let mut more = Vec::with_capacity(block.more.len());
    for (number, part) in block.more.iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert(
            async_nats::header::NATS_MESSAGE_ID,
            format!("{}-{number}", block.id),
        );
        let subject = layout::more_subject(partition);
        let stored = publish_record(
            link,
            &subject,
            headers,
            part.clone(),
            repeat_for,
            &mut on_unknown,
        )
        .await;
        match stored {
            Ok(acknowledgement) => more.push(acknowledgement.sequence),
            // Without the block that names them, parts are nothing.
            Err(RecordFailure::Unknown(detail)) => return Err(RecordFailure::Refused(detail)),
            Err(failure) => return Err(failure),
        }
    }
    let subject = layout::block_subject(partition);
    publish_record(
        link,
        &subject,
        block.headers(&more),
        block.payload.clone(),
        repeat_for,
        on_unknown,
    )
    .await
}

/// See [`crate::Stores::publish_block`].
pub(crate) async fn publish_block(
    link: &Link,
    partition: PartitionId,
    block_id: [u8; 16],
    messages: Vec<(IndexEntry, Bytes)>,
    flags: u64,
) -> Result<u64, SubmitError> {
    let block = AssembledBlock::new(Uuid::from_bytes(block_id), flags, messages);
    if block.size() > MAX_RECORD {
        return Err(SubmitError::TooLarge(block.size()));
    }
    let repeat_for = WriterOptions::default().repeat_for;
    let acknowledgement = publish_assembled(link, partition, &block, repeat_for, || {}).await?;
    Ok(acknowledgement.sequence)
}
