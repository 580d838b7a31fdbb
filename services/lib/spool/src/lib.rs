//! Durable storage on NATS JetStream: the spool of accepted messages, the journals of the
//! partitions, leases, members and the configuration snapshot. The only user of async-nats.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Stores`] | the three connections, and the way to everything else |
//! | `layout` | names, subjects and bounds of the streams and buckets |
//! | `init`, `open`, `durability` | creating the stores once; checking them at every start |
//! | `block` | the record of a block: its index, its checksums |
//! | [`BlockWriter`], [`Upload`] | accepting: group commit, chunks of large messages |
//! | [`MessageReader`], [`ChunkReader`] | reading one message, with a cache of blocks |
//! | [`BlockFollower`] | reading the indexes of all blocks, in order |
//! | [`JournalStore`] | the fenced log of a partition |
//! | `packs` | writing what nothing depends on, behind its back |
//! | [`EventWriter`], [`EventStore`] | what others than its owner have to say |
//! | [`InboundStore`] | what came back and is not handled yet |
//! | [`TranscriptWriter`], [`TranscriptStore`] | what was said to and by mail hosts |
//! | [`SuppressionStore`] | whom nothing is sent to |
//! | [`WebhookStore`] | how far webhooks are, and what was given up |
//! | [`Duties`] | what one of several processes does |
//! | `trim` | what only the owner of a partition does: purging, usage, abandoned uploads |
//! | `snapshots` | [`Stores::follow_snapshots`]: the configuration, parsed, now and ever after |
//! | [`Leases`], [`Members`], [`ReaderPositions`], [`Marks`], [`ConfigStore`], [`Operations`], [`PoolStandingsStore`], [`Measures`] | small shared state, in key-value buckets |
//!
//! Nothing here decides about mail: what to do when a partition is full, whether to take a lease,
//! and what a journal record means is decided by the callers.

mod acts;
mod block;
mod bucket;
mod cache;
mod chunks;
mod config_store;
mod consume;
mod durability;
mod duty;
mod error;
mod events;
mod follow;
mod inbound;
mod init;
mod journal;
mod layout;
mod leases;
mod link;
mod marks;
mod measures;
mod members;
mod monitor;
mod open;
mod operations;
mod packs;
mod positions;
mod reader;
mod records;
mod snapshots;
mod standings;
mod stores;
mod suppression;
mod transcripts;
mod trim;
mod upload;
mod webhooks;
mod writer;

pub use acts::Acts;
pub use block::{BLOCK_COPY, BlockDamage, MAX_INLINE_CONTENT};
pub use chunks::{ChunkReader, Content};
pub use config_store::{ConfigConflict, ConfigStore, StoredConfig};
pub use durability::{Durability, DurabilityMode, DurabilityReport, Verification};
pub use duty::{Duties, Duty};
pub use error::Error;
pub use events::{EVENT_FORMAT, EventStore, EventWriter, decode_events};
pub use follow::{BlockFollower, Followed, IndexedBlock};
pub use inbound::{INBOUND_FORMAT, InboundInfo, InboundStore, InboundUnstored, decode_inbound};
pub use init::{InitOptions, InitReport};
pub use journal::{Append, JournalError, JournalInfo, JournalReader, JournalRecord, JournalStore};
pub use layout::{FORMAT_VERSION, TranscriptBounds};
pub use leases::{Holder, Lease, LeaseHolder, Leases, Renewal};
pub use marks::{AtWork, Mark, Marks};
pub use measures::{MeasureMap, Measures};
pub use members::{Announcement, MemberMap, Members, PartitionStatus};
pub use open::Opened;
pub use operations::{OperationError, Operations};
pub use packs::{PackReader, PackStats, PackUnreadable, PackWriter, StoredPack, Told};
pub use positions::{ReaderPosition, ReaderPositions};
pub use reader::{Message, MessageReader, OpenMessage, ReadError, ReaderStats};
pub use standings::{PoolStandingsStore, StandingsError};
pub use stores::{Access, Options, Stores};
pub use suppression::{Rewritten, SuppressionFollower, SuppressionStore};
pub use transcripts::{TRANSCRIPT_FORMAT, TranscriptStore, TranscriptWriter, decode_transcripts};
pub use trim::{UploadSummary, Usage};
pub use upload::{Upload, Uploaded};
pub use webhooks::{WEBHOOK_FORMAT, WebhookStore, decode_dead_letter};
pub use writer::{BlockWriter, Stored, Submission, SubmitError, WriterOptions, WriterStats};
