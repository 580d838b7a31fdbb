//! Recipients that nothing is sent to any more, where a tenant wants its clients to hear of that at RCPT.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use config::{AtRecipient, Snapshot, Stream};
use runtime::Shutdown;
use spool::{Stores, SuppressionStore};
use suppress::Table;
use tokio::sync::watch;

use crate::policy::Sender;

/// How often it is looked whether all is read.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whom nothing is sent to. It is read only where some stream refuses recipients for that; until it is, all are accepted,
/// and the scheduler sends them nothing.
#[derive(Debug, Default)]
pub(crate) struct Suppressed(Arc<OnceLock<Arc<Table>>>);

impl Suppressed {
    pub(crate) fn start(
        stores: &Stores,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        shutdown: Shutdown,
    ) -> Self {
        let suppressed = Self::default();
        if let Some(store) = stores.suppression() {
            let loaded = Arc::clone(&suppressed.0);
            tokio::spawn(async move {
                tokio::select! {
                    () = load(store, snapshots, loaded) => {}
                    () = shutdown.requested() => {}
                }
            });
        }
        suppressed
    }

    /// `None` until all is read.
    pub(crate) fn table(&self) -> Option<&Table> {
        self.0.get().map(|table| &**table)
    }
}

async fn load(
    store: SuppressionStore,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    loaded: Arc<OnceLock<Arc<Table>>>,
) {
    if snapshots
        .wait_for(|snapshot| refuses(snapshot))
        .await
        .is_err()
    {
        return;
    }
    let table = Arc::new(Table::new(store.keys().clone()));
    let follower = store.follow(Arc::clone(&table));
    while !follower.loaded_within(LOOK_EVERY).await {
        tracing::warn!("it is not known yet whom nothing is sent to; such recipients are accepted");
    }
    loaded.get_or_init(|| table);
    // The follower lives as long as this.
    std::future::pending::<()>().await;
}

fn refuses(snapshot: &Snapshot) -> bool {
    let mut streams = snapshot.tenants().flat_map(|tenant| &tenant.streams);
    streams.any(|stream| stream.suppression.at_recipient == AtRecipient::Reject)
}

/// Whether a recipient is refused: by every stream that the message may be of, since which one it is comes with its header.
pub(crate) fn is_refused(table: &Table, sender: &Sender, address: &str, now_ms: u64) -> bool {
    let tenant = &sender.rules.tenant;
    let streams = || {
        let all = tenant.streams.iter();
        all.filter(|stream| sender.may_be_of(&stream.name))
    };
    let refuses = |stream: &Stream| stream.suppression.at_recipient == AtRecipient::Reject;
    if streams().next().is_none() || !streams().all(refuses) {
        return false;
    }
    let Some(key) = table.keys().short_of(address) else {
        return false;
    };
    table.knows(key)
        && streams().all(|stream| {
            let is_transactional = stream.transactional;
            table
                .lookup_key(&tenant.name, &stream.name, is_transactional, key, now_ms)
                .is_some()
        })
}
