//! What the configuration says of tenants: the traffic classes that DSNs go out in, and all else.

use std::sync::Arc;

use config::Snapshot;
use tokio::sync::watch;

/// Knows the tenants' default streams. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Tenants {
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Tenants {
    /// Looks them up in the newest of the snapshots.
    pub(crate) fn new(snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        Self { snapshots }
    }

    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The stream for mail of the tenant that names none; that of the original when the tenant is not known (any more).
    pub(crate) fn default_stream(&self, tenant: &str, of_original: &str) -> String {
        let snapshot = self.snapshots.borrow();
        match snapshot.tenant(tenant) {
            Some(tenant) => tenant.default_stream.clone(),
            None => of_original.to_owned(),
        }
    }

    /// The same for a tenant of our own; `None` when it is not known.
    pub(crate) fn known_default_stream(&self, tenant: &str) -> Option<String> {
        let snapshot = self.snapshots.borrow();
        let tenant = snapshot.tenant(tenant)?;
        Some(tenant.default_stream.clone())
    }
}
