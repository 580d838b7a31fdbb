//! Accepting messages: group commit.
//!
//! Messages that are submitted within the same moment share one block, so one fsync. One block is in
//! flight at a time, to one partition after the other; another one only when a block closed by size
//! ([`WriterOptions::block_messages`], [`WriterOptions::block_bytes`]). While a block is in flight the
//! next one collects. With little traffic nothing waits; above [`WriterOptions::linger_rate`] a block
//! waits up to [`WriterOptions::linger`] for company.

mod fill;
mod packing;
mod publish;
mod stats;
mod task;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mail::{PartitionId, Place};
use prost::Message as _;
use proto::spool::IndexEntry;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::block;
use crate::link::Link;
use crate::{MAX_INLINE_CONTENT, Stores, Upload, Uploaded};

use fill::Partitions;
pub(crate) use publish::{RecordFailure, publish_block, publish_record};
pub use stats::WriterStats;

/// A message is charged at least so much of the queue, bytes.
const MIN_CHARGE: usize = 4 << 10;

/// How blocks are made. The defaults are those of the design.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Messages that close a block. 16.
    pub block_messages: usize,
    /// Bytes of content that close a block. 160 KiB.
    pub block_bytes: usize,
    /// The longest wait for company. 3 ms.
    pub linger: Duration,
    /// Messages per second above which a block waits for company. 300.
    pub linger_rate: u32,
    /// Full blocks in flight at once, per partition. 2.
    pub blocks_in_flight: usize,
    /// Content that waits to be stored, bytes; more is refused with `SubmitError::Overloaded`. A message
    /// counts for at least 4 KiB. 64 MiB.
    pub queue_bytes: usize,
    /// How long a message waits for a partition that can take it before `SubmitError::Unavailable`. 10 s.
    pub patience: Duration,
    /// How long a publish of unknown outcome is repeated before `SubmitError::Unknown`. 5 minutes, and
    /// never more than that: JetStream remembers ids for 10.
    pub repeat_for: Duration,
    /// Fill of SPOOL or JOURNAL, per cent, from which a partition takes no more. 85.
    pub watermark_percent: u32,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            block_messages: 16,
            block_bytes: 160 << 10,
            linger: Duration::from_millis(3),
            linger_rate: 300,
            blocks_in_flight: 2,
            queue_bytes: 64 << 20,
            patience: Duration::from_secs(10),
            repeat_for: Duration::from_secs(300),
            watermark_percent: 85,
        }
    }
}

/// A message to store.
#[derive(Debug)]
pub struct Submission {
    entry: IndexEntry,
    content: Bytes,
    uploaded: Option<Uploaded>,
}

impl Submission {
    /// A message of up to [`MAX_INLINE_CONTENT`] bytes; the entry's `offset`, `length` and `crc` are set
    /// when the block is made.
    pub fn new(entry: IndexEntry, content: Bytes) -> Self {
        Self {
            entry,
            content,
            uploaded: None,
        }
    }

    /// A message whose content was uploaded before; the entry's `chunks` and `crc` are set from that.
    pub fn uploaded(mut entry: IndexEntry, uploaded: Uploaded) -> Self {
        entry.chunks = Some(uploaded.chunks.clone());
        entry.crc = uploaded.crc;
        Self {
            entry,
            content: Bytes::new(),
            uploaded: Some(uploaded),
        }
    }
}

/// Where a message was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The partition.
    pub partition: PartitionId,
    /// The place in it.
    pub place: Place,
}

/// A message was not stored, or that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// More waits to be stored than [`WriterOptions::queue_bytes`]. Nothing was sent.
    #[error("too much waits to be stored")]
    Overloaded,
    /// No partition takes more: the streams are at their watermark, or JetStream refused. Not stored.
    #[error("the spool is full")]
    Full,
    /// The stores can't be reached, or refuse. Not stored.
    #[error("the spool is unavailable: {0}")]
    Unavailable(String),
    /// The outcome of the publish is not known, after it was repeated for five minutes: the message may
    /// be stored, and delivered (`accept_unknown`).
    #[error("whether the message was stored is not known: {0}")]
    Unknown(String),
    /// The content is longer than a block may hold: it has to be uploaded in chunks.
    #[error("{0} bytes are too much for a block")]
    TooLarge(usize),
    /// Recipients and what each gets put before the message are too much for an index: fewer at once will do. Not stored.
    #[error("{0} bytes are too much for an index")]
    TooManyRecipients(usize),
    /// The upload began more than an hour ago; the owner may have deleted its chunks.
    #[error("the upload is too old")]
    UploadExpired,
}

/// The group commit of one process. A cheap clone; ends when the last clone is dropped and everything
/// submitted is answered.
#[derive(Debug, Clone)]
pub struct BlockWriter {
    shared: Arc<Shared>,
    submissions: mpsc::UnboundedSender<Pending>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub link: Link,
    pub options: WriterOptions,
    pub partitions: Partitions,
    pub stats: stats::Counters,
    /// Something changed that the task can't see otherwise.
    pub changed: Notify,
    /// In KiB.
    queue: Arc<Semaphore>,
}

/// A submission that waits for its answer.
#[derive(Debug)]
pub(crate) struct Pending {
    pub entry: IndexEntry,
    pub content: Bytes,
    /// Where its chunks are.
    pub pinned: Option<PartitionId>,
    pub since: Instant,
    pub reply: oneshot::Sender<Result<Stored, SubmitError>>,
    _charge: OwnedSemaphorePermit,
}

impl BlockWriter {
    pub(crate) fn start(stores: &Stores, partitions: u32, mut options: WriterOptions) -> Self {
        options.repeat_for = options.repeat_for.min(WriterOptions::default().repeat_for);
        let queue_kib =
            (options.queue_bytes >> 10).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let shared = Arc::new(Shared {
            link: stores.blocks().clone(),
            partitions: Partitions::new(partitions, options.watermark_percent),
            stats: stats::Counters::default(),
            changed: Notify::new(),
            queue: Arc::new(Semaphore::new(queue_kib)),
            options,
        });
        let (submissions, received) = mpsc::unbounded_channel();
        tokio::spawn(task::Task::new(shared.clone(), received).run());
        fill::watch(&shared, stores);
        Self {
            shared,
            submissions,
        }
    }

    /// Stores a message; answers when the block it is in is acknowledged, or certainly not stored.
    ///
    /// When the future is dropped before its block is made, the message is not stored; later it is.
    pub async fn submit(&self, submission: Submission) -> Result<Stored, SubmitError> {
        let Submission {
            entry,
            content,
            uploaded,
        } = submission;
        if content.len() > MAX_INLINE_CONTENT {
            return Err(SubmitError::TooLarge(content.len()));
        }
        if block::is_too_long(&entry) {
            return Err(SubmitError::TooManyRecipients(entry.encoded_len()));
        }
        if uploaded.as_ref().is_some_and(Uploaded::has_expired) {
            return Err(SubmitError::UploadExpired);
        }
        if uploaded.is_none() && !self.is_accepting() {
            return Err(SubmitError::Full);
        }
        let charge_kib = content.len().max(MIN_CHARGE).div_ceil(1 << 10) as u32;
        let charge = self.shared.queue.clone().try_acquire_many_owned(charge_kib);
        let Ok(charge) = charge else {
            self.shared.stats.count_overloaded();
            return Err(SubmitError::Overloaded);
        };
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            entry,
            content,
            pinned: uploaded.map(|uploaded| uploaded.partition),
            since: Instant::now(),
            reply,
            _charge: charge,
        };
        let ended = || SubmitError::Unavailable("the writer has ended".to_owned());
        self.submissions.send(pending).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Begins to store a large message in chunks; it is pinned to a partition by that.
    pub fn begin_upload(&self) -> Result<Upload, SubmitError> {
        let partition = self
            .shared
            .partitions
            .choose_for_upload()
            .ok_or(SubmitError::Full)?;
        Ok(Upload::begin(
            self.shared.link.clone(),
            partition,
            self.shared.options.repeat_for,
        ))
    }

    /// Whether any partition takes mail: neither at its watermark nor reported full by its owner.
    /// When not, a listener can say so (452) before a message is sent.
    pub fn is_accepting(&self) -> bool {
        self.shared.partitions.is_any_accepting()
    }

    /// How full the emptiest accepting partition is, per cent (the fullest of its streams and its owner's
    /// memory); 100 when none accepts. To turn away the less important mail first.
    pub fn fill_percent(&self) -> u32 {
        self.shared.partitions.least_fill_percent()
    }

    /// Counters since the start.
    pub fn stats(&self) -> WriterStats {
        self.shared.stats.snapshot(
            self.shared.options.queue_bytes,
            self.shared.queue.available_permits() << 10,
        )
    }
}
