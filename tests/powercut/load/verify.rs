//! Compares the stores with the ledger.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use mail::{MessageId, PartitionId};
use spool::{Followed, JournalError, MessageReader, ReadError, Stores};
use tokio::time::Instant;

use crate::PARTITIONS;
use crate::ledger::{Acknowledged, Entries};

const CACHE: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads everything there is, and every acknowledged message where it was reported to be.
pub async fn run(stores: &Stores, ledger: &Path) -> Result<String> {
    let entries = Entries::read(ledger)?;
    let mut found: HashMap<MessageId, u32> = HashMap::new();
    let mut damaged_blocks = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        damaged_blocks += indexed(stores, partition, &mut found).await?;
    }
    let reader = stores.message_reader(CACHE);
    let mut in_order: Vec<_> = entries.acknowledged.iter().collect();
    in_order.sort_by_key(|(_, message)| (message.stored.partition, message.stored.place));
    let mut lost = 0;
    for (id, message) in in_order {
        if let Err(reason) = is_there(&reader, *id, message).await? {
            if lost < 5 {
                eprintln!("lost: {id} at {:?}: {reason}", message.stored);
            }
            lost += 1;
        }
    }
    let journal_lost = journal_lost(stores, &entries).await?;
    let mut twice = 0;
    let mut unseen = 0;
    let mut refused_but_stored = 0;
    for (id, times) in &found {
        twice += u64::from(*times > 1);
        unseen +=
            u64::from(entries.submitted.contains(id) && !entries.acknowledged.contains_key(id));
        refused_but_stored += u64::from(entries.refused.contains(id));
    }
    Ok(format!(
        "acknowledged={} lost={lost} appended={} journal_lost={journal_lost} damaged_blocks={damaged_blocks} \
         stored_twice={twice} stored_unacknowledged={unseen} stored_refused={refused_but_stored}",
        entries.acknowledged.len(),
        entries.journal.len(),
    ))
}

/// Counts the messages that the blocks' indexes name; gives how many blocks have none that can be read.
async fn indexed(
    stores: &Stores,
    partition: PartitionId,
    found: &mut HashMap<MessageId, u32>,
) -> Result<u64> {
    let mut follower = stores.follow_blocks(partition, 0);
    let mut damaged = 0;
    loop {
        let next = tokio::time::timeout(PATIENCE, follower.next()).await?;
        match next? {
            Followed::CaughtUp { .. } => return Ok(damaged),
            Followed::Block(block) => match block.result {
                Ok(index) => {
                    for entry in index.entries {
                        *found
                            .entry(MessageId::try_from(entry.message_id.as_ref())?)
                            .or_default() += 1;
                    }
                }
                Err(_) => damaged += 1,
            },
        }
    }
}

/// Whether the message is at its place with its content; else what is wrong.
async fn is_there(
    reader: &MessageReader,
    id: MessageId,
    message: &Acknowledged,
) -> Result<Result<(), String>> {
    let begun = Instant::now();
    loop {
        match reader
            .read(message.stored.partition, message.stored.place, id)
            .await
        {
            Ok(read) => {
                let same = read.content.len() == message.length
                    && crc32c::crc32c(&read.content) == message.crc;
                return Ok(if same {
                    Ok(())
                } else {
                    Err("another content".to_owned())
                });
            }
            Err(ReadError::Unavailable(error)) if begun.elapsed() > PATIENCE => bail!(error),
            Err(ReadError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => return Ok(Err(error.to_string())),
        }
    }
}

/// Acknowledged records of the journals that are not there, or are others.
async fn journal_lost(stores: &Stores, entries: &Entries) -> Result<usize> {
    let mut found = HashMap::new();
    for partition in (0..PARTITIONS).map(PartitionId) {
        let journal = stores.journal(partition);
        let info = journal.info().await?;
        let mut records = journal.replay(info.first, info.last);
        while let Some(record) = tokio::time::timeout(PATIENCE, records.next()).await? {
            match record {
                Ok(record) => {
                    let content = (record.bytes.len(), crc32c::crc32c(&record.bytes));
                    found.insert((partition, record.sequence), content);
                }
                Err(JournalError::Gap {
                    found: Some(next), ..
                }) => records = journal.replay(next, info.last),
                Err(JournalError::Gap { found: None, .. }) => break,
                Err(JournalError::Damaged(sequence)) => {
                    records = journal.replay(sequence + 1, info.last)
                }
                Err(JournalError::Unavailable(error)) => bail!(error),
            }
        }
    }
    Ok(entries
        .journal
        .iter()
        .filter(|(place, content)| found.get(place) != Some(content))
        .count())
}
