//! The data folder of local mode, made at the first start.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::commands::dkim::{self, Algorithm};

/// Where local mode keeps everything.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

/// What `staffetta.yaml` of a new folder says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) submission: u16,
    pub(crate) submission_587: u16,
    pub(crate) submissions: u16,
    pub(crate) nats: u16,
    pub(crate) nats_monitor: u16,
    pub(crate) redis: u16,
    pub(crate) signer: u16,
    pub(crate) scheduler: u16,
    pub(crate) metrics: u16,
}

impl Ports {
    /// The usual ones, or others where another program has them (for the servers: nobody connects
    /// to those by hand).
    pub(crate) fn usual() -> anyhow::Result<Self> {
        let free_or = |usual: u16| {
            if is_free(usual) {
                Ok(usual)
            } else {
                free_port()
            }
        };
        Ok(Self {
            submission: 2525,
            submission_587: 2587,
            submissions: 2465,
            nats: free_or(4222)?,
            nats_monitor: free_or(8222)?,
            redis: free_or(6379)?,
            signer: 7102,
            scheduler: 7103,
            metrics: 9090,
        })
    }

    /// Any that are free.
    pub(crate) fn free() -> anyhow::Result<Self> {
        Ok(Self {
            submission: free_port()?,
            submission_587: free_port()?,
            submissions: free_port()?,
            nats: free_port()?,
            nats_monitor: free_port()?,
            redis: free_port()?,
            signer: free_port()?,
            scheduler: free_port()?,
            metrics: free_port()?,
        })
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn free_port() -> anyhow::Result<u16> {
    let listener =
        TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).context("no port is free")?;
    Ok(listener.local_addr().context("no port is free")?.port())
}

impl DataFolder {
    /// Opens the folder; a new one gets a certificate, DKIM keys for `domain` and `staffetta.yaml`
    /// (last, so that a start that was interrupted is done again).
    pub(crate) fn open(
        path: &Path,
        domain: &str,
        ports: impl FnOnce() -> anyhow::Result<Ports>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let path = path
            .canonicalize()
            .with_context(|| path.display().to_string())?;
        let folder = Self { path };
        folder.make_certificate()?;
        folder.make_dkim_keys(domain)?;
        let bootstrap = folder.bootstrap_path();
        if !bootstrap.exists() {
            fs::write(&bootstrap, bootstrap_yaml(&ports()?))
                .with_context(|| bootstrap.display().to_string())?;
        }
        Ok(folder)
    }

    /// The folder, as an absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `staffetta.yaml`.
    pub(crate) fn bootstrap_path(&self) -> PathBuf {
        self.path.join("staffetta.yaml")
    }

    /// The private key of a selector.
    pub(crate) fn dkim_key(&self, selector: &str, domain: &str) -> PathBuf {
        self.path
            .join("dkim")
            .join(format!("{selector}.{domain}.pem"))
    }

    /// Self-signed, for this machine's names: clients that check certificates refuse it.
    fn make_certificate(&self) -> anyhow::Result<()> {
        let folder = self.path.join("tls");
        let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        if certificate.exists() && key.exists() {
            return Ok(());
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let names = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        let made =
            rcgen::generate_simple_self_signed(names).context("a certificate can't be made")?;
        if key.exists() {
            fs::remove_file(&key).with_context(|| key.display().to_string())?;
        }
        write_secret(&key, &made.signing_key.serialize_pem())?;
        fs::write(&certificate, made.cert.pem()).with_context(|| certificate.display().to_string())
    }

    fn make_dkim_keys(&self, domain: &str) -> anyhow::Result<()> {
        let folder = self.path.join("dkim");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        for (selector, algorithm) in [
            ("s1", Algorithm::RsaSha256),
            ("e1", Algorithm::Ed25519Sha256),
        ] {
            let path = self.dkim_key(selector, domain);
            if path.exists() {
                continue;
            }
            let record = dkim::generate(algorithm, &path)?;
            let record_path = path.with_extension("dns");
            let line = dkim::zone_line(selector, domain, &record);
            fs::write(&record_path, line + "\n")
                .with_context(|| record_path.display().to_string())?;
        }
        Ok(())
    }
}

/// Writes a file that only its owner can read; one that exists is never replaced.
pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

fn bootstrap_yaml(ports: &Ports) -> String {
    let Ports {
        submission,
        submission_587,
        submissions,
        nats,
        nats_monitor,
        redis,
        signer,
        scheduler,
        metrics,
    } = ports;
    let tls = "certificate: tls/certificate.pem, key: tls/key.pem";
    let plaintext = "allowPlaintextAuthFrom: [\"127.0.0.0/8\", \"::1/128\"]";
    format!(
        r#"# Made by `staffetta up`; change it as you like. Paths are relative to this file's folder.
hostname: localhost
nats: {{ url: "nats://127.0.0.1:{nats}", monitor: "http://127.0.0.1:{nats_monitor}" }}
redis: {{ url: "redis://127.0.0.1:{redis}" }}
durability: strict
partitions: 4
storage: {{ volumeBytes: 20GiB, replicas: 1 }}
ingress:
  listeners:
    - {{ name: smtp, kind: submission, address: "127.0.0.1:{submission}", tls: starttls, {tls}, {plaintext} }}
    - {{ name: submission, kind: submission, address: "127.0.0.1:{submission_587}", tls: starttls, {tls}, {plaintext} }}
    - {{ name: submissions, kind: submission, address: "127.0.0.1:{submissions}", tls: implicit, {tls} }}
signer: {{ listen: "127.0.0.1:{signer}" }}
scheduler: {{ listen: "127.0.0.1:{scheduler}" }}
sender: {{ signers: ["http://127.0.0.1:{signer}"] }}
all: {{ metrics: "127.0.0.1:{metrics}" }}
"#
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use runtime::Bootstrap;

    use super::*;
    use crate::commands::check::certificate_problems;

    #[test]
    fn a_new_folder_has_all_that_a_start_needs_and_a_second_start_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let folder = DataFolder::open(&path, "example.test", Ports::free).unwrap();
        let bootstrap = Bootstrap::load(&folder.bootstrap_path()).unwrap();
        assert_eq!(bootstrap.ingress.listeners.len(), 3);
        assert_eq!(certificate_problems(&bootstrap), Vec::<String>::new());
        for selector in ["s1", "e1"] {
            let key = folder.dkim_key(selector, "example.test");
            assert_eq!(
                fs::metadata(&key).unwrap().permissions().mode() & 0o777,
                0o600
            );
            let record = fs::read_to_string(key.with_extension("dns")).unwrap();
            assert!(record.starts_with(&format!(
                "{selector}._domainkey.example.test. IN TXT ( \"v=DKIM1;"
            )));
        }
        let key = fs::read(folder.dkim_key("s1", "example.test")).unwrap();
        DataFolder::open(&path, "example.test", || {
            panic!("the ports are chosen already")
        })
        .unwrap();
        assert_eq!(
            fs::read(folder.dkim_key("s1", "example.test")).unwrap(),
            key
        );
    }
}
