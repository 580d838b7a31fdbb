//! The tasks of an owned partition. They end when it is dropped.

use std::time::Duration;

use bytes::Bytes;
use journal::WriterEffect;
use mail::{MessageId, PartitionId, Place};
use prost::Message as _;
use proto::spool::{BlockIndex, IndexEntry};
use queue::Copy;
use spool::{
    Announcement, BlockDamage, BlockFollower, Followed, MessageReader, PartitionStatus, Stores,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::core::{Event, Events, tell};
use crate::machine::Input;
use crate::store_sizes::StoreSizes;
use crate::takeover::carry_out;

const PAUSE: Duration = Duration::from_millis(500);
/// How often the streams' sizes are looked at.
const USAGE_EVERY: Duration = Duration::from_secs(2);
/// How often abandoned uploads are looked for.
const UPLOADS_EVERY: Duration = Duration::from_secs(600);
/// Share of a stream's bound from which a snapshot is written and the head is copied forward, per cent.
const SHORT_OF_SPACE: u32 = 70;
/// Memory for blocks that are copied forward.
const COPY_CACHE: usize = 8 * 1024 * 1024;
/// Index bytes of a copy: parts before the block are avoided.
const COPY_INDEX: usize = 40 * 1024;
/// Content bytes of a copy.
const COPY_CONTENT: usize = 2 * 1024 * 1024;
/// Records older than this are deleted when a snapshot makes them needless.
const KEEP_JOURNAL: Duration = Duration::from_secs(3 * 86_400);
/// How long a partition's status is believed.
const STATUS_TTL: Duration = Duration::from_secs(6);

/// The handles to the tasks of a partition.
pub(crate) struct Partition {
    journal: mpsc::UnboundedSender<WriterEffect>,
    chores: mpsc::UnboundedSender<Chore>,
    reading: watch::Sender<bool>,
    fullness: watch::Sender<u32>,
    _tasks: JoinSet<()>,
}

enum Chore {
    TrimSpool(u64),
    TrimJournal(u64),
    DeleteUpload(Box<str>),
    Copy(Copy),
}

impl Partition {
    /// Starts the tasks.
    pub(crate) fn start(
        stores: &Stores,
        partition: PartitionId,
        blocks: BlockFollower,
        events: &Events,
    ) -> Self {
        let (journal, effects) = mpsc::unbounded_channel();
        let (chores, todo) = mpsc::unbounded_channel();
        // Not before the core has the intake: it drops blocks of partitions that it does not know, and those
        // would be missing until the next take-over.
        let (reading, may_read) = watch::channel(false);
        let (fullness, fill) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(write_journal(
            stores.clone(),
            partition,
            effects,
            events.clone(),
        ));
        tasks.spawn(read_blocks(partition, blocks, may_read, events.clone()));
        tasks.spawn(do_chores(stores.clone(), partition, todo, events.clone()));
        tasks.spawn(watch_usage(stores.clone(), partition, fill, events.clone()));
        tasks.spawn(delete_abandoned_uploads(
            stores.clone(),
            partition,
            events.clone(),
        ));
        Self {
            journal,
            chores,
            reading,
            fullness,
            _tasks: tasks,
        }
    }

    /// For the journal.
    pub(crate) fn journal(&self, effect: WriterEffect) {
        // A task ends before its handle only when the process stops; then nothing is to be done any more.
        self.journal.send(effect).ok();
    }

    /// Purge the spool.
    pub(crate) fn trim_spool(&self, below: u64) {
        self.chores.send(Chore::TrimSpool(below)).ok();
    }

    /// Records below are not needed for recovery.
    pub(crate) fn trim_journal(&self, below: u64) {
        self.chores.send(Chore::TrimJournal(below)).ok();
    }

    /// Delete the chunks of a finished message.
    pub(crate) fn delete_upload(&self, upload_id: Box<str>) {
        self.chores.send(Chore::DeleteUpload(upload_id)).ok();
    }

    /// Copy messages forward.
    pub(crate) fn copy(&self, copy: Copy) {
        self.chores.send(Chore::Copy(copy)).ok();
    }

    /// Whether more blocks are wanted, and how full the intake is (0 to 1).
    pub(crate) fn set_state(&self, wants_blocks: bool, fullness: f64) {
        self.reading
            .send_if_modified(|reading| std::mem::replace(reading, wants_blocks) != wants_blocks);
        let percent = (fullness * 100.0).clamp(0.0, 100.0) as u32;
        self.fullness
            .send_if_modified(|fill| std::mem::replace(fill, percent) != percent);
    }
}

async fn write_journal(
    stores: Stores,
    partition: PartitionId,
    mut effects: mpsc::UnboundedReceiver<WriterEffect>,
    events: Events,
) {
    let store = stores.journal(partition);
    while let Some(effect) = effects.recv().await {
        let event = carry_out(&store, effect).await;
        tell(&events, Input::Journal(partition, event)).await;
    }
}

async fn read_blocks(
    partition: PartitionId,
    mut blocks: BlockFollower,
    mut may_read: watch::Receiver<bool>,
    events: Events,
) {
    loop {
        if may_read.wait_for(|may| *may).await.is_err() {
            return;
        }
        match blocks.next().await {
            Ok(Followed::Block(block)) => {
                let input = Input::Block {
                    partition,
                    first: block.first_sequence,
                    sequence: block.sequence,
                    index: match block.result {
                        // Not damage: the intake stops before it, and an upgrade reads it.
                        Err(BlockDamage::UnknownFormat(format)) => Ok(BlockIndex {
                            format,
                            ..BlockIndex::default()
                        }),
                        result => result.map_err(|damage| damage.to_string()),
                    },
                };
                tell(&events, input).await;
            }
            Ok(Followed::CaughtUp { .. }) => tell(&events, Input::CaughtUp(partition)).await,
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the spool can't be read; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn do_chores(
    stores: Stores,
    partition: PartitionId,
    mut chores: mpsc::UnboundedReceiver<Chore>,
    events: Events,
) {
    let reader = stores.message_reader(COPY_CACHE);
    while let Some(chore) = chores.recv().await {
        // What fails is asked for again with the next trim; space is all that is lost meanwhile.
        match chore {
            Chore::TrimSpool(below) => {
                if let Err(error) = stores.purge_spool(partition, below).await {
                    tracing::warn!(partition = partition.0, %error, "the spool was not trimmed");
                }
            }
            Chore::TrimJournal(below) => trim_journal(&stores, partition, below).await,
            Chore::DeleteUpload(upload_id) => {
                if let Err(error) = stores.purge_chunks(partition, &upload_id).await {
                    tracing::warn!(partition = partition.0, upload = &*upload_id, %error, "the chunks were not deleted");
                }
            }
            Chore::Copy(copy) => {
                let copied = copy_forward(&stores, &reader, partition, &copy).await;
                let input = Input::Copied {
                    partition,
                    epoch: copy.epoch,
                    copy: copied,
                };
                tell(&events, input).await;
            }
        }
    }
}

/// Keeps records for the readers of events as long as they are young and there is space; never deletes what recovery
/// needs.
async fn trim_journal(stores: &Stores, partition: PartitionId, below: u64) {
    let store = stores.journal(partition);
    let trimmed = async {
        let info = store.info().await?;
        let short =
            info.bytes.saturating_mul(100) >= info.max_bytes.saturating_mul(SHORT_OF_SPACE.into());
        let below = if short {
            below
        } else {
            first_young(&store, info.first, below).await
        };
        if below > info.first {
            store.purge_below(below).await?;
        }
        Ok::<(), spool::Error>(())
    };
    if let Err(error) = trimmed.await {
        tracing::warn!(partition = partition.0, %error, "the journal was not trimmed");
    }
}

/// The first record in `first..below` that is younger than the time for which records are kept, by bisection.
async fn first_young(store: &spool::JournalStore, first: u64, below: u64) -> u64 {
    let horizon = runtime::now_ms()
        .saturating_sub(u64::try_from(KEEP_JOURNAL.as_millis()).unwrap_or(u64::MAX));
    let (mut old, mut young) = (first, below);
    while old < young {
        let middle = old + (young - old) / 2;
        let record = store.replay(middle, middle).next().await;
        let written_ms = match record {
            Some(Ok(record)) => {
                journal::decode(&record.bytes).map_or(u64::MAX, |record| record.written_at_ms)
            }
            _ => return first,
        };
        if written_ms < horizon {
            old = middle + 1;
        } else {
            young = middle;
        }
    }
    old
}

/// Copies messages into a new block; gives its sequence and the messages in it.
async fn copy_forward(
    stores: &Stores,
    reader: &MessageReader,
    partition: PartitionId,
    copy: &Copy,
) -> Option<(u64, Vec<MessageId>)> {
    let mut ids = Vec::new();
    let mut submissions = Vec::new();
    let (mut index_bytes, mut content_bytes) = (0, 0);
    for (id, place) in &copy.messages {
        // One that can't be read, or that is too large, must not keep the others where they are.
        let Some((entry, content)) = read_for_copy(reader, partition, *place, *id).await else {
            continue;
        };
        let (with_index, with_content) = (
            index_bytes + entry.encoded_len(),
            content_bytes + content.len(),
        );
        if with_index > COPY_INDEX || with_content > COPY_CONTENT {
            continue;
        }
        (index_bytes, content_bytes) = (with_index, with_content);
        ids.push(*id);
        submissions.push((entry, content));
    }
    if ids.is_empty() {
        return None;
    }
    let block_id = uuid::Uuid::now_v7().into_bytes();
    match stores
        .publish_block(partition, block_id, submissions, spool::BLOCK_COPY)
        .await
    {
        Ok(sequence) => Some((sequence, ids)),
        Err(error) => {
            tracing::warn!(partition = partition.0, %error, "messages were not copied forward");
            None
        }
    }
}

/// A message whose content is in chunks is copied without it: the chunks stay where they are.
async fn read_for_copy(
    reader: &MessageReader,
    partition: PartitionId,
    place: Place,
    id: MessageId,
) -> Option<(IndexEntry, Bytes)> {
    match reader.open(partition, place, id).await {
        Ok(message) => {
            let content = match message.content {
                spool::Content::Inline(content) => content,
                spool::Content::Chunks(_) => Bytes::new(),
            };
            Some(((*message.entry).clone(), content))
        }
        Err(error) => {
            tracing::warn!(partition = partition.0, message_id = %id, %error, "the message can't be copied forward");
            None
        }
    }
}

/// Looks at the streams' sizes, and tells the ingresses whether the partition takes more.
async fn watch_usage(
    stores: Stores,
    partition: PartitionId,
    mut fill: watch::Receiver<u32>,
    events: Events,
) {
    let mut announcement: Option<Announcement> = None;
    let sizes = StoreSizes::new(partition);
    loop {
        let fill_percent = *fill.borrow_and_update();
        let status = PartitionStatus {
            accepting: fill_percent < 100,
            fill_percent,
        };
        match &announcement {
            Some(announcement) => announcement.update_partition(status),
            None => match stores
                .members()
                .announce_partition(partition, status, STATUS_TTL)
                .await
            {
                Ok(announced) => announcement = Some(announced),
                Err(error) => {
                    tracing::warn!(partition = partition.0, %error, "the partition's state was not told")
                }
            },
        }
        let usage = stores.usage(partition).await;
        if let Ok(usage) = &usage {
            sizes.show(usage);
        }
        match usage {
            Ok(usage) if usage.percent() >= SHORT_OF_SPACE => {
                tracing::error!(
                    partition = partition.0,
                    percent = usage.percent(),
                    "the partition is short of space"
                );
                tell(&events, Input::ShortOfSpace(partition)).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the streams' sizes are not known")
            }
        }
        // Woken by a change or by time.
        tokio::select! {
            changed = fill.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(USAGE_EVERY) => {}
        }
    }
}

async fn delete_abandoned_uploads(stores: Stores, partition: PartitionId, events: Events) {
    loop {
        tokio::time::sleep(UPLOADS_EVERY).await;
        let uploads = match stores.list_uploads(partition).await {
            Ok(uploads) => uploads,
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "uploads can't be listed");
                continue;
            }
        };
        // Asked for after the uploads: when all blocks up to here are read, every block that names one of them is.
        let spool_last = match stores.usage(partition).await {
            Ok(usage) => usage.spool_last,
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "the streams' sizes are not known");
                continue;
            }
        };
        let mut live = std::collections::HashSet::new();
        for upload in uploads {
            let (answer, is_live) = oneshot::channel();
            let question = Event::HasUpload {
                partition,
                upload_id: upload.upload_id.clone(),
                spool_last,
                answer,
            };
            if events.send(question).await.is_err() {
                return;
            }
            if is_live.await.unwrap_or(true) {
                live.insert(upload.upload_id);
            }
        }
        match stores
            .purge_stale_chunks(partition, |upload| live.contains(upload))
            .await
        {
            Ok(0) => {}
            Ok(count) => {
                tracing::info!(partition = partition.0, count, "deleted abandoned uploads")
            }
            Err(error) => {
                tracing::warn!(partition = partition.0, %error, "abandoned uploads were not deleted")
            }
        }
    }
}
