//! The configuration, from the stores.

use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use runtime::Shutdown;
use spool::{Error, StoredConfig, Stores};
use tokio::sync::watch;

/// How often the first configuration is asked for while the stores do not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The configuration, now and ever after. Returns once it is known what the present one is, so that
/// nobody is told that there is no key when it is only not read yet; empty when there is none, or
/// when shutdown comes first. One that this release cannot read is told in the log, and the last
/// good one stays.
///
/// Waits for stores that do not answer; fails when there is no installation in them, or it lost a
/// stream.
pub async fn follow_configuration(
    stores: &Stores,
    shutdown: &Shutdown,
) -> Result<watch::Receiver<Arc<Snapshot>>, Error> {
    let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
    let mut version = None;
    if let Some(first) = first(stores, shutdown).await? {
        adopt(&first, &sender, &mut version);
    }
    let mut stored = stores.config().follow();
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let present = stored.borrow_and_update().clone();
            if let Some(present) = present {
                adopt(&present, &sender, &mut version);
            }
            let followed = tokio::select! {
                changed = stored.changed() => changed.is_ok(),
                () = shutdown.requested() => false,
                () = sender.closed() => false,
            };
            if !followed {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The present configuration; `None` when there is none or shutdown comes first.
async fn first(stores: &Stores, shutdown: &Shutdown) -> Result<Option<StoredConfig>, Error> {
    let store = stores.config();
    let mut told = String::new();
    loop {
        let loaded = tokio::select! {
            loaded = store.load() => loaded,
            () = shutdown.requested() => return Ok(None),
        };
        match loaded {
            Ok(stored) => return Ok(stored),
            Err(
                error @ (Error::MissingStream { .. }
                | Error::NotInitialized { .. }
                | Error::ForeignStream { .. }),
            ) => {
                // The whole check tells a server that was never initialized from one that lost a stream.
                return Err(stores.open().await.err().unwrap_or(error));
            }
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!(%error, "the configuration can't be read yet; trying again");
                    told = text;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.requested() => return Ok(None),
        }
    }
}

/// Publishes a snapshot that differs in its version from the last one seen.
fn adopt(stored: &StoredConfig, sender: &watch::Sender<Arc<Snapshot>>, version: &mut Option<u64>) {
    if version.replace(stored.version) == Some(stored.version) {
        return;
    }
    match Snapshot::from_json(&stored.body) {
        Ok(snapshot) => {
            let resources = snapshot.len();
            tracing::info!(
                version = stored.version,
                hash = stored.hash,
                resources,
                "configuration"
            );
            sender.send_replace(Arc::new(snapshot));
        }
        Err(problems) => {
            let first = problems
                .first()
                .map(ToString::to_string)
                .unwrap_or_default();
            let version = stored.version;
            tracing::error!(
                version,
                first,
                "the configuration is not valid here; the last good one stays"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::keys::tests::snapshot;

    #[test]
    fn publishes_each_version_once_and_keeps_the_last_good_one() {
        let (sender, mut receiver) = watch::channel(Arc::new(Snapshot::default()));
        let snapshot = snapshot(&[("s1", "rsa-sha256", Path::new("/none"))]);
        let stored = |version, body: String| StoredConfig {
            version,
            hash: String::new(),
            body: body.into(),
        };
        let mut version = None;
        let good = stored(7, snapshot.to_json().to_string());
        adopt(&good, &sender, &mut version);
        assert!(receiver.has_changed().unwrap());
        assert_eq!(receiver.borrow_and_update().len(), snapshot.len());
        adopt(&good, &sender, &mut version);
        adopt(&stored(8, "{".to_owned()), &sender, &mut version);
        assert!(!receiver.has_changed().unwrap());
        adopt(
            &stored(9, good.body.iter().map(|byte| char::from(*byte)).collect()),
            &sender,
            &mut version,
        );
        assert!(receiver.has_changed().unwrap());
    }
}
