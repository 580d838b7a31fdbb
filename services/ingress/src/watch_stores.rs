//! What is watched of the stores while the service runs: whether messages can be stored, and what
//! the writer did.

use std::time::Duration;

use runtime::Readiness;
use spool::WriterStats;

use crate::server::{READY, Shared};
use crate::session::Storage;

/// How often readiness and figures are renewed.
const TICK: Duration = Duration::from_millis(500);

/// Keeps readiness and figures fresh until shutdown.
pub(crate) async fn until_shutdown(shared: &Shared, readiness: &Readiness) {
    let mut ready = None;
    let mut before = WriterStats::default();
    loop {
        let storage = shared.storage();
        if ready != Some(storage) {
            match storage {
                Storage::Ready => tracing::info!("messages can be stored"),
                Storage::Away => {
                    tracing::error!("no connection to NATS: messages are refused with 451")
                }
                Storage::Full => {
                    tracing::error!("the spool is full: messages are refused with 452")
                }
            }
            ready = Some(storage);
        }
        // A full spool is nothing that another replica could do better.
        match storage {
            Storage::Away => {
                readiness.wait(READY, "messages can't be stored: no connection to NATS")
            }
            Storage::Full | Storage::Ready => readiness.set(READY, true),
        }
        shared
            .metrics
            .body_pool_free
            .set(i64::try_from(shared.pool.free()).unwrap_or(i64::MAX));
        shared
            .metrics
            .redis_connected
            .set(i64::from(shared.quotas.is_connected()));
        shared.events.tick();
        shared.watcher.tick();
        let stats = shared.writer.stats();
        shared.metrics.blocks(&before, &stats);
        before = stats;
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = shared.shutdown.requested() => break,
        }
    }
    readiness.wait(READY, "stopping");
}
