//! The journal of a partition: how its records are written and read, and by whom.
//!
//! - [`encode`], [`decode`], [`genesis`]: the record format (`proto/staffetta/journal/v1/journal.proto`).
//! - [`Writer`]: the fenced writer. It takes the partition with a claim, packs entries into records,
//!   keeps one record in flight and finds out what became of it when a reply is lost.

mod record;
mod writer;

pub use record::{DecodeError, FORMAT, decode, encode, entry, genesis};
pub use writer::{Append, Claimed, Lost, Tail, Writer, WriterEffect, WriterEvent};
