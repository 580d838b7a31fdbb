//! A nats-server of a test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spool::{Durability, InitOptions, Options, Stores};

/// Stopped and removed when dropped.
pub struct Server {
    process: Option<Child>,
    directory: tempfile::TempDir,
    port: u16,
    monitor_port: u16,
    sync: &'static str,
}

/// Small enough for a test's volume, large enough for its mail.
pub const VOLUME: u64 = 512 << 20;

impl Server {
    /// With `sync_interval: always`.
    pub async fn start() -> Self {
        Self::start_with("sync_interval: always").await
    }

    /// With these lines in the block `jetstream`.
    pub async fn start_with(sync: &'static str) -> Self {
        let (port, monitor_port) = (free_port(), free_port());
        let directory = tempfile::tempdir().unwrap();
        let mut server = Self {
            process: None,
            directory,
            port,
            monitor_port,
            sync,
        };
        server.restart().await;
        server
    }

    /// Starts it (again) with what it has stored.
    pub async fn restart(&mut self) {
        let directory = self.directory.path();
        let configuration = format!(
            "host: 127.0.0.1\nport: {}\nhttp: \"127.0.0.1:{}\"\nmax_payload: 8MB\nmax_pending: 256MB\nwrite_deadline: \"30s\"\n\
             jetstream {{ store_dir: \"{}\", max_mem: 64MB, max_file: 4GB, {} }}\n",
            self.port,
            self.monitor_port,
            directory.display(),
            self.sync
        );
        let file = directory.join("nats.conf");
        std::fs::write(&file, configuration).unwrap();
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("nats.log"))
            .unwrap();
        let process = Command::new(nats_server())
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server can be started");
        self.process = Some(process);
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port))
            .await
            .is_err()
        {
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "nats-server does not listen"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGKILL: what it has not written is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub fn options(&self, durability: Durability) -> Options {
        let monitor = Some(format!("http://127.0.0.1:{}", self.monitor_port));
        Options {
            url: self.url(),
            monitor,
            name: "test".to_owned(),
            durability,
        }
    }

    pub async fn connect(&self) -> Stores {
        Stores::connect(&self.options(Durability::Strict))
            .await
            .unwrap()
    }

    /// Connected, created and opened.
    pub async fn stores(&self, partitions: u32) -> Stores {
        self.stores_of(partitions, VOLUME).await
    }

    pub async fn stores_of(&self, partitions: u32, volume_bytes: u64) -> Stores {
        let stores = self.connect().await;
        stores
            .init(&InitOptions {
                partitions,
                replicas: 1,
                volume_bytes,
            })
            .await
            .unwrap();
        stores.open().await.unwrap();
        stores
    }

    /// A plain client, to do what the crate does not.
    pub async fn plain(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn nats_server() -> PathBuf {
    if let Some(path) = std::env::var_os("STAFFETTA_NATS_SERVER") {
        return path.into();
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = here
        .ancestors()
        .map(|directory| directory.join(".servers/bin/nats-server"));
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&in_path).map(|directory| directory.join("nats-server"));
    beside.chain(in_path).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("no nats-server: set STAFFETTA_NATS_SERVER, or run `make servers` to get .servers/bin/nats-server")
    })
}
