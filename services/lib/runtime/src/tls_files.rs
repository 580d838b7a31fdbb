//! The certificates of a listener, followed when their files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use tokio_rustls::TlsAcceptor;

use crate::TlsError;
use crate::bootstrap::CertificateFiles;
use crate::tls::{tls_server_config, tls_server_config_asking};

/// TLS 1.2 and 1.3 with the certificates of PEM files, chosen by the name that a client asks for.
pub struct TlsFiles {
    files: Vec<CertificateFiles>,
    /// Who signs the certificates of clients; none are asked for without.
    clients: Option<PathBuf>,
    current: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    written: Written,
}

/// Times of the last change of all files; `None` where the file system does not say.
type Written = Vec<Option<SystemTime>>;

impl TlsFiles {
    /// Loads all files. `clients`: who signs the certificates of clients; none are asked for without.
    pub fn load(files: &[CertificateFiles], clients: Option<&Path>) -> Result<Self, TlsError> {
        let written = written(files, clients);
        let config = server_config(files, clients)?;
        Ok(Self {
            files: files.to_owned(),
            clients: clients.map(Path::to_owned),
            current: ArcSwap::from_pointee(Loaded { config, written }),
        })
    }

    /// For a new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.load().config))
    }

    /// Loads the files again if one was written since; what is in use stays when one of them is no good.
    /// `Ok(true)` when there is a new certificate.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let clients = self.clients.as_deref();
        let written = written(&self.files, clients);
        if written == self.current.load().written {
            return Ok(false);
        }
        let config = server_config(&self.files, clients)?;
        self.current.store(Arc::new(Loaded { config, written }));
        Ok(true)
    }
}

fn written(files: &[CertificateFiles], clients: Option<&Path>) -> Written {
    let written = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    };
    files
        .iter()
        .flat_map(|pair| [written(&pair.certificate), written(&pair.key)])
        .chain(clients.map(written))
        .collect()
}

fn server_config(
    files: &[CertificateFiles],
    clients: Option<&Path>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let config = match clients {
        None => tls_server_config(files),
        Some(clients) => tls_server_config_asking(clients, files),
    };
    let mut config = Arc::unwrap_or_clone(config?);
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

    fn write_pair(folder: &Path, name: &str) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed([format!("{name}.example")]).unwrap();
        let certificate = folder.join(format!("{name}.pem"));
        let key = folder.join(format!("{name}.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        CertificateFiles { certificate, key }
    }

    #[test]
    fn follows_the_files_and_keeps_what_works() {
        let folder = tempfile::tempdir().unwrap();
        let pairs = ["relay", "other"].map(|name| write_pair(folder.path(), name));
        let files = TlsFiles::load(&pairs, None).unwrap();
        assert!(!files.reload().unwrap());
        let [_, second] = pairs;
        let first = Arc::clone(&files.current.load().config);
        std::fs::write(&second.certificate, "broken").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(10);
        std::fs::File::options()
            .append(true)
            .open(&second.certificate)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(files.reload().is_err());
        assert!(Arc::ptr_eq(&first, &files.current.load().config));
        write_pair(folder.path(), "other");
        assert!(files.reload().unwrap());
        assert!(!Arc::ptr_eq(&first, &files.current.load().config));
    }

    #[test]
    fn says_which_file_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let there = write_pair(folder.path(), "relay");
        let missing = CertificateFiles {
            certificate: folder.path().join("none.pem"),
            key: folder.path().join("none.key"),
        };
        let error = TlsFiles::load(&[there, missing], None).err().unwrap();
        assert!(error.to_string().contains("none.pem"), "{error}");
    }
}
