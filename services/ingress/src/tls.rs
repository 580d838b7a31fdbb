//! The certificate of a listener, followed when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use runtime::TlsError;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

/// TLS 1.2 and 1.3 with the certificate of two PEM files.
pub(crate) struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    written: Written,
}

/// Times of the last change of both files; `None` where the file system does not say.
type Written = [Option<SystemTime>; 2];

impl TlsFiles {
    /// Loads both files.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let written = written(certificate, key);
        let config = server_config(certificate, key)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            current: ArcSwap::from_pointee(Loaded { config, written }),
        })
    }

    /// For a new connection.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Loads the files again if they were written since; what is in use stays when they are no good.
    /// `Ok(true)` when there is a new certificate.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let written = written(&self.certificate, &self.key);
        if written == self.current.load().written {
            return Ok(false);
        }
        let config = server_config(&self.certificate, &self.key)?;
        self.current.store(Arc::new(Loaded { config, written }));
        Ok(true)
    }
}

fn written(certificate: &Path, key: &Path) -> Written {
    [certificate, key].map(|path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    })
}

fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = Arc::unwrap_or_clone(runtime::tls_server_config(certificate, key)?);
    // Resumption by tickets: no memory per client.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match aws_lc_rs::Ticketer::new() {
        Ok(ticketer) => config.ticketer = ticketer,
        Err(error) => tracing::warn!(%error, "TLS sessions will not be resumed"),
    }
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(folder: &Path) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    #[test]
    fn follows_the_files_and_keeps_what_works() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = write_pair(folder.path());
        let files = TlsFiles::load(&certificate, &key).unwrap();
        assert!(!files.reload().unwrap());
        let first = Arc::clone(&files.current.load().config);
        std::fs::write(&certificate, "broken").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(10);
        std::fs::File::options()
            .append(true)
            .open(&certificate)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(files.reload().is_err());
        assert!(Arc::ptr_eq(&first, &files.current.load().config));
        write_pair(folder.path());
        assert!(files.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &files.current.load().config));
    }

    #[test]
    fn says_which_file_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let error = TlsFiles::load(
            &folder.path().join("none.pem"),
            &folder.path().join("none.key"),
        )
        .err()
        .unwrap();
        assert!(error.to_string().contains("none.pem"), "{error}");
    }
}
