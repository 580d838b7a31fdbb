//! The connections, and the way to everything else.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use mail::PartitionId;
use proto::spool::IndexEntry;

use crate::acts::Acts;
use crate::link::Link;
use crate::standings::PoolStandingsStore;
use crate::{
    BlockFollower, BlockWriter, ConfigStore, Durability, Error, EventStore, EventWriter,
    InboundStore, JournalStore, Leases, Measures, Members, MessageReader, Operations,
    ReaderPositions, TranscriptStore, TranscriptWriter, WriterOptions,
};

/// How to reach the stores.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Of the NATS server, `nats://[user:password@]host:port` or `tls://…`, or several separated by commas.
    pub url: String,
    /// What it wants to see, and what we want to see of it.
    pub access: Access,
    /// Its monitoring endpoint, `http://host:port`, to check `sync_interval`.
    pub monitor: Option<String>,
    /// Name of the service; names the connections on the server's side.
    pub name: String,
    /// What an acknowledgement must mean.
    pub durability: Durability,
}

/// How we and the NATS server know each other.
#[derive(Clone, Default)]
pub struct Access {
    /// Name and password.
    pub login: Option<(String, String)>,
    /// Credentials file (`.creds`: JWT and seed), read at each start.
    pub credentials: Option<PathBuf>,
    /// PEM file of the authorities that sign the server's certificate; the system's when there is none.
    pub authorities: Option<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("login", &self.login.as_ref().map(|_| "…"))
            .field("credentials", &self.credentials)
            .field("authorities", &self.authorities)
            .field("certificate", &self.certificate)
            .finish()
    }
}

/// The stores of an installation. A cheap clone; three connections, so that bulk never delays a lease.
#[derive(Debug, Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: Options,
    control: Link,
    blocks: Link,
    bulk: Link,
    partitions: OnceLock<u32>,
}

impl Stores {
    /// Opens the connections; `Error::Unreachable` when no server answers (the caller tries again).
    /// Once connected, lost connections are replaced for ever.
    pub async fn connect(options: &Options) -> Result<Self, Error> {
        let connect = |purpose: &str| Link::connect(options, format!("{}-{purpose}", options.name));
        let (control, blocks, bulk) =
            futures::try_join!(connect("control"), connect("blocks"), connect("bulk"))?;
        let inner = Inner {
            options: options.clone(),
            control,
            blocks,
            bulk,
            partitions: OnceLock::new(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Whether the control connection stands at the moment.
    pub fn is_connected(&self) -> bool {
        self.inner.control.state().borrow().connected
    }

    /// Accepts messages by group commit. `partitions` as [`Stores::open`] told.
    pub fn block_writer(&self, partitions: u32, options: WriterOptions) -> BlockWriter {
        BlockWriter::start(self, partitions, options)
    }

    /// Writes one block to one partition, for its owner and for feedback: with the same `block_id` it
    /// is stored once (within 10 minutes). Entries with `chunks` refer to the same partition; the others
    /// get offset, length and checksum here. `flags` as in `BlockIndex.flags` ([`crate::BLOCK_COPY`]).
    ///
    /// Returns the sequence of the block, its first message's place is index 0.
    pub async fn publish_block(
        &self,
        partition: PartitionId,
        block_id: [u8; 16],
        messages: Vec<(IndexEntry, bytes::Bytes)>,
        flags: u64,
    ) -> Result<u64, crate::SubmitError> {
        crate::writer::publish_block(&self.inner.blocks, partition, block_id, messages, flags).await
    }

    /// Reads messages; blocks up to `cache_bytes` in all are kept.
    pub fn message_reader(&self, cache_bytes: usize) -> MessageReader {
        MessageReader::new(self.inner.bulk.clone(), cache_bytes)
    }

    /// Reads the indexes of the blocks after a sequence, in order, and then of those to come.
    pub fn follow_blocks(&self, partition: PartitionId, after_sequence: u64) -> BlockFollower {
        BlockFollower::start(self.inner.bulk.clone(), partition, after_sequence)
    }

    /// The journal of a partition. Appends go over the control connection, reads over the bulk one.
    pub fn journal(&self, partition: PartitionId) -> JournalStore {
        JournalStore::new(
            self.inner.control.clone(),
            self.inner.bulk.clone(),
            partition,
        )
    }

    /// Who owns which partition.
    pub fn leases(&self) -> Leases {
        Leases::new(self.control().clone())
    }

    /// Who is there.
    pub fn members(&self) -> Members {
        Members::new(self.control().clone())
    }

    /// How far readers of the journals are.
    pub fn reader_positions(&self) -> ReaderPositions {
        ReaderPositions::new(self.control().clone())
    }

    /// The configuration snapshot.
    pub fn config(&self) -> ConfigStore {
        ConfigStore::new(self.control().clone())
    }

    /// How tenants stand in pools.
    pub fn standings(&self) -> PoolStandingsStore {
        PoolStandingsStore::new(self.control().clone())
    }

    /// Writes events of a service, such as `ingress`, into the stream `EVENTS`.
    pub fn event_writer(&self, service: &'static str) -> EventWriter {
        EventWriter::start(self.inner.bulk.clone(), service)
    }

    /// The stream `EVENTS`.
    pub fn events(&self) -> EventStore {
        EventStore::new(self.inner.control.clone(), self.inner.bulk.clone())
    }

    /// The stream `INBOUND`.
    pub fn inbound(&self) -> InboundStore {
        InboundStore::new(self.inner.control.clone(), self.inner.bulk.clone())
    }

    /// Writes transcripts of a service, such as `sender`, into the stream `TRANSCRIPTS`.
    pub fn transcript_writer(&self, service: &'static str) -> TranscriptWriter {
        TranscriptWriter::start(self.inner.bulk.clone(), service)
    }

    /// The stream `TRANSCRIPTS`.
    pub fn transcripts(&self) -> TranscriptStore {
        TranscriptStore::new(self.inner.control.clone(), self.inner.bulk.clone())
    }

    /// What is done about credentials that may be stolen.
    pub fn measures(&self) -> Measures {
        Measures::new(self.control().clone())
    }

    /// What is done about replies by any scheduler.
    pub fn acts(&self) -> Acts {
        Acts::new(self.control().clone())
    }

    /// The operations on the live queue that are not over.
    pub fn operations(&self) -> Operations {
        Operations::new(self.control().clone())
    }

    /// Number of partitions, once `open` or `init` has told it.
    pub fn partitions(&self) -> Option<u32> {
        self.inner.partitions.get().copied()
    }

    pub(crate) fn note_partitions(&self, partitions: u32) {
        self.inner.partitions.get_or_init(|| partitions);
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    pub(crate) fn control(&self) -> &Link {
        &self.inner.control
    }

    pub(crate) fn blocks(&self) -> &Link {
        &self.inner.blocks
    }
}
