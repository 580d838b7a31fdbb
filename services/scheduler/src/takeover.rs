//! Taking a partition over: the claim, the replay of the journal, and catching up with the spool.

use std::time::{Duration, Instant};

use journal::{Append, Claimed, Lost, Tail, Writer, WriterEffect, WriterEvent};
use mail::PartitionId;
use queue::{BlockError, Intake, ReplayError, Settings};
use spool::{BlockDamage, BlockFollower, Followed, IndexedBlock, JournalStore, Stores};
use suppress::Keys;

use crate::clock::Clock;

/// Before the same thing is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// The partition can't be taken over; it stays as it is.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The journal is not there, or somebody else has it.
    #[error("{0}")]
    Lost(#[from] Lost),
    /// The journal can't be read: what was delivered is not known, so nothing of the partition is sent.
    #[error("the partition is quarantined: {0}")]
    Journal(#[from] spool::JournalError),
    /// A record can't be understood.
    #[error("the partition is quarantined: {0}")]
    Record(#[from] journal::DecodeError),
    /// A record can't be applied.
    #[error("the partition is quarantined: {0}")]
    Replay(#[from] ReplayError),
    /// A block can't be taken.
    #[error("{0}")]
    Block(#[from] BlockError),
}

/// A partition with everything that lives in it.
pub(crate) struct TakenOver {
    pub(crate) intake: Intake,
    pub(crate) blocks: BlockFollower,
}

/// Takes a partition over. Waits for the stores as long as it takes: the lease is what ends it.
pub(crate) async fn take_over(
    stores: &Stores,
    clock: Clock,
    partition: PartitionId,
    scheduler_id: &str,
    settings: Settings,
    keys: Option<Keys>,
) -> Result<TakenOver, Error> {
    let began = Instant::now();
    let store = stores.journal(partition);
    let (writer, claimed) = claim(&store, clock, scheduler_id).await?;
    let mut intake = Intake::new(partition, settings, writer);
    if let Some(keys) = keys {
        intake = intake.with_keys(keys);
    }
    let mut records = store.replay(claimed.replay_from, claimed.epoch);
    while let Some(record) = records.next().await {
        match record {
            Ok(record) => intake.replay(record.sequence, journal::decode(&record.bytes)?)?,
            Err(spool::JournalError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    let mut blocks = stores.follow_blocks(partition, intake.cursor());
    while intake.wants_blocks() {
        match blocks.next().await {
            Ok(Followed::Block(block)) => take_block(&mut intake, clock.now_ms(), block)?,
            Ok(Followed::CaughtUp { .. }) => {
                intake.caught_up();
                break;
            }
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the spool can't be read; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    intake.activate(clock.now_ms());
    let totals = intake.totals();
    tracing::info!(
        partition = partition.0,
        epoch = claimed.epoch,
        messages = totals.messages,
        in_doubt = totals.in_doubt,
        milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        "took the partition over"
    );
    Ok(TakenOver { intake, blocks })
}

fn take_block(intake: &mut Intake, now_ms: u64, block: IndexedBlock) -> Result<(), BlockError> {
    match block.result {
        Ok(index) => intake.block(now_ms, block.first_sequence, block.sequence, index),
        // Not damage: an upgrade reads it, so nothing about it goes into the journal.
        Err(BlockDamage::UnknownFormat(format)) => Err(BlockError::UnknownFormat {
            sequence: block.sequence,
            format,
        }),
        Err(damage) => {
            tracing::error!(sequence = block.sequence, %damage, "the block is quarantined");
            intake.damaged_block(block.sequence, &damage.to_string());
            Ok(())
        }
    }
}

async fn claim(
    store: &JournalStore,
    clock: Clock,
    scheduler_id: &str,
) -> Result<(Writer, Claimed), Lost> {
    let mut writer = Writer::new(scheduler_id, uuid::Uuid::now_v7().to_string());
    let mut effect = writer.claim();
    loop {
        let event = match effect {
            WriterEffect::Claimed(claimed) => return Ok((writer, claimed)),
            WriterEffect::Lost(lost) => return Err(lost),
            effect => carry_out(store, effect).await,
        };
        effect = match writer.step(clock.now_ms(), event) {
            Some(effect) => effect,
            None => WriterEffect::ReadTail,
        };
    }
}

/// Does what the writer wants of the store.
pub(crate) async fn carry_out(store: &JournalStore, effect: WriterEffect) -> WriterEvent {
    match effect {
        WriterEffect::Append { append, again } => {
            if again {
                tokio::time::sleep(PAUSE).await;
            }
            append_to(store, append).await
        }
        WriterEffect::ReadTail => match store.tail().await {
            Ok(tail) => WriterEvent::Tail(tail.map(|record| Tail {
                sequence: record.sequence,
                id: record.message_id,
                record: record.bytes,
            })),
            Err(error) => {
                tracing::warn!(%error, "the end of the journal can't be read; trying again");
                tokio::time::sleep(PAUSE).await;
                WriterEvent::Unknown
            }
        },
        WriterEffect::Claimed(_) | WriterEffect::Stored { .. } | WriterEffect::Lost(_) => {
            WriterEvent::Unknown
        }
    }
}

async fn append_to(store: &JournalStore, append: Append) -> WriterEvent {
    match store
        .append(append.record, &append.id, append.expected_last)
        .await
    {
        spool::Append::Stored(sequence) => WriterEvent::Stored(sequence),
        spool::Append::WrongLastSequence { .. } => WriterEvent::WrongLastSequence,
        spool::Append::Full => {
            tracing::error!("the journal is full");
            WriterEvent::Full
        }
        spool::Append::Unknown(error) => {
            tracing::warn!(error, "no answer of the journal; trying again");
            WriterEvent::Unknown
        }
    }
}
