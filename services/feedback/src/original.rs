//! Reading as much of the original as a DSN returns.

use std::sync::Arc;

use bytes::Bytes;
use mail::PartitionId;
use proto::envelope::DsnReturn;
use proto::spool::IndexEntry;
use spool::{Content, MessageReader, ReadError};

use crate::ledger::Owed;

/// The original's entry, and its content: whole, or at least its header.
#[derive(Debug)]
pub(crate) struct Original {
    pub(crate) entry: Arc<IndexEntry>,
    pub(crate) content: Bytes,
    /// The body is not there, or not all of it.
    pub(crate) is_partial: bool,
}

/// Reads the original; of a large one no more chunks than its header needs.
pub(crate) async fn read(
    reader: &MessageReader,
    partition: PartitionId,
    owed: &Owed,
) -> Result<Original, ReadError> {
    let message = reader.open(partition, owed.place, owed.message_id).await?;
    let entry = message.entry;
    let header_length = entry.header_length as usize;
    let wants_whole = entry
        .envelope
        .as_ref()
        .is_some_and(|envelope| envelope.ret() == DsnReturn::Full);
    let fits = message.content.len() <= dsn::FULL_RETURN_LIMIT as u64;
    match message.content {
        Content::Chunks(mut chunks) if !(wants_whole && fits) => {
            let mut content = chunks.opening(header_length).await?;
            content.truncate(header_length);
            Ok(Original {
                entry,
                content,
                is_partial: true,
            })
        }
        content => Ok(Original {
            entry,
            content: content.into_bytes().await?,
            is_partial: false,
        }),
    }
}
