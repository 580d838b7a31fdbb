//! The scheduler: owns partitions, keeps their queues, and decides when each delivery leaves, from where and by whom.
//!
//! | module | what is in it |
//! |---|---|
//! | [`machine`] | everything that decides, as one state machine without I/O |
//! | `core` | the task that feeds the machine and passes on what it wants |
//! | `ownership` | leases: which partitions are ours |
//! | `takeover` | claim, replay of the journal, catching up with the spool |
//! | `partition` | the tasks of an owned partition: journal, blocks, trimming, usage |
//! | `oldest`, `store_sizes` | the age of the oldest message and the fill of streams, for Prometheus |
//! | [`lending`] | what is said to Redis, and what its answers mean |
//! | `errands` | what crosses the network: sites, grants |
//! | `dispatch`, `admin` | the gRPC services |
//! | `outside` | TLS for the command-line tool outside, with certificates on both sides |
//! | `operate` | what an operation on the live queue must be to be stored |

mod admin;
mod clock;
mod core;
mod dispatch;
mod errands;
pub mod lending;
pub mod machine;
mod measures;
mod metrics;
mod oldest;
mod operate;
mod outside;
mod ownership;
mod partition;
mod run;
mod store_sizes;
mod suppression;
mod takeover;
mod tenants;
mod transcripts;
mod webhooks;

pub use run::{Error, Scheduler, run, serve};

/// Registers the metrics of the service, so that they can be described without running it.
pub fn register_metrics() {
    metrics::Metrics::new();
    metrics::redis_connected();
    metrics::suppression();
    oldest::Oldest::new();
    errands::answers();
    errands::leases();
    store_sizes::StoreSizes::new(mail::PartitionId(0));
}
