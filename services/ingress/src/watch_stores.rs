//! What is followed in the stores while the service runs: the configuration, whether messages can be
//! stored, and what the writer did.

use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use runtime::{Readiness, Shutdown};
use spool::{Error, StoredConfig, Stores, WriterStats};
use tokio::sync::watch;

use crate::server::{READY, Shared};
use crate::session::Storage;

/// How often readiness and figures are renewed.
const TICK: Duration = Duration::from_millis(500);

/// The configuration as it is now; empty when none was ever applied.
pub(crate) async fn load_configuration(stores: &Stores) -> Result<Arc<Snapshot>, Error> {
    let stored = stores.config().load().await?;
    Ok(stored.as_ref().and_then(read).unwrap_or_default())
}

/// The configuration, beginning with `first`, and ever after.
pub(crate) fn follow_configuration(
    stores: &Stores,
    first: Arc<Snapshot>,
    shutdown: &Shutdown,
) -> watch::Receiver<Arc<Snapshot>> {
    let mut stored = stores.config().follow();
    let (sender, receiver) = watch::channel(first);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let present: Option<Arc<StoredConfig>> = stored.borrow_and_update().clone();
            if let Some(present) = present
                && present.hash != sender.borrow().hash()
                && let Some(snapshot) = read(&present)
            {
                sender.send_replace(snapshot);
            }
            let changed = tokio::select! {
                changed = stored.changed() => changed,
                () = shutdown.requested() => return,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    receiver
}

/// `None` for one that this release cannot read: it is reported, and the last good one stays.
fn read(stored: &StoredConfig) -> Option<Arc<Snapshot>> {
    match Snapshot::from_json(&stored.body) {
        Ok(snapshot) => {
            tracing::info!(
                version = stored.version,
                hash = stored.hash,
                resources = snapshot.len(),
                "configuration"
            );
            Some(Arc::new(snapshot))
        }
        Err(problems) => {
            let first = problems
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::error!(
                version = stored.version,
                first,
                "the configuration is not valid here; the last good one stays"
            );
            None
        }
    }
}

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
