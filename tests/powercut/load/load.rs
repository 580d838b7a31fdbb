//! Load as the relay makes it: messages through the group commit, large ones in chunks, and the owners'
//! appends to the journals. It goes on while the machine is dead, as a relay does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use mail::{MessageId, PartitionId};
use proto::spool::IndexEntry;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use spool::{
    Append, BlockWriter, JournalStore, Stored, Stores, Submission, SubmitError, WriterOptions,
};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::PARTITIONS;
use crate::ledger::Ledger;

/// Clients at once.
const CLIENTS: u64 = 64;
/// How long what is under way may take after the end was asked for.
const PATIENCE: Duration = Duration::from_secs(60);

struct Shared {
    ledger: Ledger,
    stopping: AtomicBool,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    appended: AtomicU64,
}

/// Loads until standard input ends, then waits for what is under way. Gives a summary.
pub async fn run(stores: Stores, ledger: &Path, seed: u64) -> Result<String> {
    let shared = Arc::new(Shared {
        ledger: Ledger::append(ledger)?,
        stopping: AtomicBool::new(false),
        acknowledged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        unknown: AtomicU64::new(0),
        appended: AtomicU64::new(0),
    });
    let writer = stores.block_writer(PARTITIONS, WriterOptions::default());
    let mut tasks = JoinSet::new();
    for client in 0..CLIENTS {
        let dice = SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(client));
        tasks.spawn(client_of_messages(
            writer.clone(),
            shared.clone(),
            dice,
            client == 0,
        ));
    }
    for partition in (0..PARTITIONS).map(PartitionId) {
        let dice = SmallRng::seed_from_u64(
            seed.wrapping_mul(1_000)
                .wrapping_add(CLIENTS + u64::from(partition.0)),
        );
        tasks.spawn(owner(
            stores.journal(partition),
            partition,
            shared.clone(),
            dice,
        ));
    }
    // Nothing is written there; its end is the sign.
    let mut nothing = [0];
    while tokio::io::stdin().read(&mut nothing).await? > 0 {}
    shared.stopping.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(PATIENCE, async {
        while let Some(task) = tasks.join_next().await {
            task.context("a client panicked")??;
        }
        Ok(())
    });
    ended.await.unwrap_or_else(|_| {
        bail!(
            "submissions are not answered within {} s",
            PATIENCE.as_secs()
        )
    })?;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(format!(
        "acknowledged={} refused={} unknown={} appended={} blocks={}",
        count(&shared.acknowledged),
        count(&shared.refused),
        count(&shared.unknown),
        count(&shared.appended),
        writer.stats().blocks
    ))
}

/// One message after the other, each answered before the next.
async fn client_of_messages(
    writer: BlockWriter,
    shared: Arc<Shared>,
    mut dice: SmallRng,
    large: bool,
) -> Result<()> {
    while !shared.stopping.load(Ordering::Relaxed) {
        let length = if large {
            dice.random_range(1_200_000..3_000_000)
        } else {
            dice.random_range(1_024..=10_240)
        };
        let mut content = vec![0; length];
        dice.fill_bytes(&mut content);
        let content = Bytes::from(content);
        let id = MessageId::now();
        shared.ledger.submitted(id)?;
        match submit(&writer, id, content.clone(), large).await {
            Ok(stored) => {
                shared.ledger.acknowledged(id, stored, &content)?;
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(SubmitError::Unknown(_)) => _ = shared.unknown.fetch_add(1, Ordering::Relaxed),
            Err(
                SubmitError::TooLarge(_)
                | SubmitError::TooManyRecipients(_)
                | SubmitError::UploadExpired,
            ) => {
                bail!("the client's own mistake")
            }
            Err(SubmitError::Overloaded | SubmitError::Full | SubmitError::Unavailable(_)) => {
                shared.ledger.refused(id)?;
                shared.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        if large {
            tokio::time::sleep(Duration::from_millis(dice.random_range(200..800))).await;
        }
    }
    Ok(())
}

async fn submit(
    writer: &BlockWriter,
    id: MessageId,
    content: Bytes,
    large: bool,
) -> Result<Stored, SubmitError> {
    let entry = IndexEntry {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        ..Default::default()
    };
    if !large {
        return writer.submit(Submission::new(entry, content)).await;
    }
    let mut upload = writer.begin_upload()?;
    upload.push(content).await?;
    let uploaded = upload.finish().await?;
    writer.submit(Submission::uploaded(entry, uploaded)).await
}

/// Appends as the owner of a partition does: one record in flight, the same again while its fate is unknown.
async fn owner(
    journal: JournalStore,
    partition: PartitionId,
    shared: Arc<Shared>,
    mut dice: SmallRng,
) -> Result<()> {
    let mut last = journal.info().await?.last;
    while !shared.stopping.load(Ordering::Relaxed) {
        let mut record = vec![0; dice.random_range(100..4_000)];
        dice.fill_bytes(&mut record);
        let record = Bytes::from(record);
        let message_id = MessageId::now().to_string();
        loop {
            match journal.append(record.clone(), &message_id, last).await {
                Append::Stored(sequence) => {
                    shared.ledger.appended(partition, sequence, &record)?;
                    shared.appended.fetch_add(1, Ordering::Relaxed);
                    last = sequence;
                    break;
                }
                Append::Unknown(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                // Nobody else writes: the journal has lost its end. The check will say what.
                Append::WrongLastSequence { .. } => {
                    if let Ok(info) = journal.info().await {
                        last = info.last;
                    }
                    break;
                }
                Append::Full => bail!("the journal is full"),
            }
        }
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..50))).await;
    }
    Ok(())
}
