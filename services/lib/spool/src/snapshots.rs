//! The configuration as its readers use it: the present snapshot and every later one.

use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use tokio::sync::watch;

use crate::{Error, StoredConfig, Stores};

/// How often the first configuration is asked for while the stores do not answer.
const RETRY: Duration = Duration::from_secs(1);

impl Stores {
    /// The configuration, now and as long as a receiver is there. Returns once it is known what the
    /// present one is, so that nobody is told that there is no key when it is only not read yet;
    /// empty when none was ever applied. One that this release cannot read is told in the log, and
    /// the last good one stays.
    ///
    /// Waits for stores that do not answer; fails when there is no installation in them, or it lost a
    /// stream.
    pub async fn follow_snapshots(&self) -> Result<watch::Receiver<Arc<Snapshot>>, Error> {
        let (sender, receiver) = watch::channel(Arc::new(Snapshot::default()));
        let mut version = None;
        if let Some(first) = self.first_config().await? {
            adopt(&first, &sender, &mut version);
        }
        let mut stored = self.config().follow();
        tokio::spawn(async move {
            loop {
                let present = stored.borrow_and_update().clone();
                if let Some(present) = present {
                    adopt(&present, &sender, &mut version);
                }
                let followed = tokio::select! {
                    changed = stored.changed() => changed.is_ok(),
                    () = sender.closed() => false,
                };
                if !followed {
                    return;
                }
            }
        });
        Ok(receiver)
    }

    /// The present configuration; `None` when there is none.
    async fn first_config(&self) -> Result<Option<StoredConfig>, Error> {
        let store = self.config();
        let mut told = String::new();
        loop {
            match store.load().await {
                Ok(stored) => return Ok(stored),
                Err(
                    error @ (Error::MissingStream { .. }
                    | Error::NotInitialized { .. }
                    | Error::ForeignStream { .. }),
                ) => {
                    // The whole check tells a server that was never initialized from one that lost a stream.
                    return Err(self.open().await.err().unwrap_or(error));
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        tracing::warn!(%error, "the configuration can't be read yet; trying again");
                        told = text;
                    }
                }
            }
            tokio::time::sleep(RETRY).await;
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
            tracing::info!(
                version = stored.version,
                hash = stored.hash,
                resources = snapshot.len(),
                "configuration"
            );
            sender.send_replace(Arc::new(snapshot));
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
";

    #[test]
    fn publishes_each_version_once_and_keeps_the_last_good_one() {
        let (sender, mut receiver) = watch::channel(Arc::new(Snapshot::default()));
        let good = Snapshot::from_documents(DOCUMENTS).unwrap();
        let stored = |version, body: String| StoredConfig {
            version,
            hash: String::new(),
            body: body.into(),
        };
        let mut version = None;
        for (number, body, is_published) in [
            (7, good.to_json(), true),
            (7, good.to_json(), false),
            (8, "{".to_owned(), false),
            (9, good.to_json(), true),
        ] {
            adopt(&stored(number, body), &sender, &mut version);
            assert_eq!(receiver.has_changed().unwrap(), is_published, "{number}");
            assert_eq!(receiver.borrow_and_update().hash(), good.hash());
        }
    }
}
