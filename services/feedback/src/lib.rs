//! Feedback: reads the journals and tells people what became of their mail.
//!
//! | module | what is in it |
//! |---|---|
//! | [`run`] | start, one follower for each partition, stop |
//! | `follower` | one partition: reads its journal, spools what is owed, keeps its position |
//! | `ledger` | which DSNs are owed, from the journal alone: a state machine |
//! | `notification` | a DSN as a message of the spool, with ids that follow from the original |
//! | `original` | reading as much of the original as a DSN returns |
//! | `links` | where the links in messages lead: unsubscribes |
//! | [`events`] | the journal as events, one JSON object each |
//! | `inbound` | reports, complaints and other mail that comes back |
//! | `tenants`, `metrics` | default streams; counters |
//!
//! A DSN goes into the same partition as the message it reports on. Its ids are derived from the original's, so
//! that it is stored once however often it is written: the journal's owner drops a DSN of which no recipient is
//! owed one any more. Several replicas, a restart from an old position and a `kill -9` at any place are harmless.

pub mod events;
mod follower;
mod inbound;
mod ledger;
mod links;
mod metrics;
mod notification;
mod original;
mod service;
mod tenants;

pub use service::{Error, run};

/// Registers the metrics of the service, so that they can be described without running it.
pub fn register_metrics() {
    metrics::Metrics::new(mail::PartitionId(0));
    metrics::LinkMetrics::new();
    metrics::Metrics::came_back();
    metrics::Metrics::waiting();
}
