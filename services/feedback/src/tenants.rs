//! The traffic classes that DSNs go out in.

use std::sync::Arc;

use config::Snapshot;
use spool::{StoredConfig, Stores};
use tokio::sync::watch;

/// Follows the configuration for the tenants' default streams. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Tenants {
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Tenants {
    /// Follows what is stored, until the last clone is dropped.
    pub(crate) fn follow(stores: &Stores) -> Self {
        let mut stored = stores.config().follow();
        let (sender, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        tokio::spawn(async move {
            loop {
                let present = stored.borrow_and_update().clone();
                if let Some(present) = present {
                    adopt(&present, &sender);
                }
                tokio::select! {
                    changed = stored.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Self { snapshots }
    }

    /// The stream for mail of the tenant that names none; that of the original when the tenant is not known (any more).
    pub(crate) fn default_stream(&self, tenant: &str, of_original: &str) -> String {
        let snapshot = self.snapshots.borrow();
        match snapshot.tenant(tenant) {
            Some(tenant) => tenant.default_stream.clone(),
            None => of_original.to_owned(),
        }
    }
}

fn adopt(stored: &StoredConfig, sender: &watch::Sender<Arc<Snapshot>>) {
    match Snapshot::from_json(&stored.body) {
        Ok(snapshot) => drop(sender.send_replace(Arc::new(snapshot))),
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
        }
    }
}
