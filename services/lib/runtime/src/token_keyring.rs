//! The keys of tokens, followed when their file changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bounce::TokenKeys;

use crate::Shutdown;
use crate::bootstrap::Tokens;

/// How often the file is looked at.
const CHECK: Duration = Duration::from_secs(60);

/// The keys that tokens are made and read with (ADR 37).
#[derive(Debug)]
pub struct TokenKeyring {
    configured: Tokens,
    current: ArcSwap<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    keys: Arc<TokenKeys>,
    /// When the file was changed last; `None` where the file system does not say.
    written: Option<SystemTime>,
}

/// The keys can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the keys of tokens, {}: {why}", path.display())]
pub struct TokenKeyringError {
    path: PathBuf,
    /// Says nothing of what is in the file.
    why: String,
}

impl TokenKeyring {
    /// Reads the file.
    ///
    /// # Errors
    /// When it can't be read, or has something else than keys.
    pub fn load(configured: &Tokens) -> Result<Self, TokenKeyringError> {
        Ok(Self {
            current: ArcSwap::from_pointee(read(configured)?),
            configured: configured.clone(),
        })
    }

    /// Those that hold now.
    pub fn keys(&self) -> Arc<TokenKeys> {
        Arc::clone(&self.current.load().keys)
    }

    /// Until when a token is taken that is made at `now`, Unix seconds both.
    pub fn end(&self, now: u64) -> u64 {
        now.saturating_add(self.configured.lifetime.as_millis() / 1000)
    }

    /// Follows the file until shutdown. Keys in use stay when new ones are no good.
    pub async fn follow(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(CHECK) => {}
                () = shutdown.requested() => return,
            }
            match self.reload() {
                Ok(true) => tracing::info!("new keys of tokens"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "the changed keys are no good; the old ones stay");
                }
            }
        }
    }

    /// Reads the keys again if they were written since. `Ok(true)` when there are new ones.
    fn reload(&self) -> Result<bool, TokenKeyringError> {
        if written(&self.configured) == self.current.load().written {
            return Ok(false);
        }
        self.current.store(Arc::new(read(&self.configured)?));
        Ok(true)
    }
}

fn written(configured: &Tokens) -> Option<SystemTime> {
    let file = std::fs::metadata(&configured.keys);
    file.and_then(|file| file.modified()).ok()
}

fn read(configured: &Tokens) -> Result<Loaded, TokenKeyringError> {
    let error = |why: String| TokenKeyringError {
        path: configured.keys.clone(),
        why,
    };
    // Before the file is read: what is written meanwhile is read again.
    let written = written(configured);
    let text =
        std::fs::read_to_string(&configured.keys).map_err(|found| error(found.to_string()))?;
    let keys = TokenKeys::parse_and_forget(text).map_err(|found| error(found.to_string()))?;
    Ok(Loaded {
        keys: Arc::new(keys),
        written,
    })
}

#[cfg(test)]
mod tests {
    use mail::Span;

    use super::*;

    #[test]
    fn takes_new_keys_and_keeps_the_old_ones_when_they_are_no_good() {
        let folder = tempfile::tempdir().unwrap();
        let configured = Tokens {
            keys: folder.path().join("keys"),
            lifetime: Span::from_secs(86_400),
        };
        assert!(TokenKeyring::load(&configured).is_err());
        let write = |text: &str, at: u64| {
            std::fs::write(&configured.keys, text).unwrap();
            let file = std::fs::File::options().write(true).open(&configured.keys);
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            file.unwrap().set_modified(at).unwrap();
        };
        write("1 a secret of sixteen octets", 1);
        let keyring = TokenKeyring::load(&configured).unwrap();
        assert_eq!(keyring.end(10), 86_410);
        assert!(!keyring.reload().unwrap());
        write("no key", 2);
        let error = keyring.reload().unwrap_err().to_string();
        assert!(
            error.contains("line 1") && !error.contains("no key"),
            "{error}"
        );
        assert_eq!(format!("{:?}", keyring.keys()), "TokenKeys(1)");
        write("2 another secret of ours\n1 a secret of sixteen octets", 3);
        assert!(keyring.reload().unwrap());
        assert_eq!(format!("{:?}", keyring.keys()), "TokenKeys(2)");
    }
}
