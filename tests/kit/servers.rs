//! nats-server and redis-server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::place::{TRIES, free_port, repository};
use crate::{Process, get, until};

pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long a start may take on a machine that does a lot else.
pub(crate) const READY: Duration = Duration::from_secs(60);

/// Where `make servers` puts the programs.
pub fn servers_folder() -> PathBuf {
    repository().join(".servers/bin")
}

/// A program of `make servers`.
pub(crate) fn server(name: &str) -> Result<PathBuf> {
    let program = servers_folder().join(name);
    if !program.exists() {
        bail!("{program:?} is missing: run `make servers` first");
    }
    Ok(program)
}

/// Waits until the process has printed what it says when it serves. Its port alone would not tell:
/// when that was taken meanwhile, somebody else listens on it. Fails early when the process ends.
pub(crate) async fn started(process: &mut Process, says: &str) -> Result<()> {
    let begun = Instant::now();
    while !process.has_printed(says) {
        if !process.is_running() {
            bail!("it ended at once:\n{}", process.log_tail());
        }
        if begun.elapsed() > READY {
            bail!("it did not start within {READY:?}:\n{}", process.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A nats-server with JetStream, an fsync for every record, and a data folder of its own.
pub struct NatsServer {
    folder: PathBuf,
    port: u16,
    monitor: u16,
    process: Option<Process>,
}

impl NatsServer {
    /// Starts one with its data in `<folder>/nats`.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_with_sync(folder, "always").await
    }

    /// Starts one with another `sync_interval` (`always`, `2m`, `100ms`).
    pub async fn start_with_sync(folder: &Path, sync_interval: &str) -> Result<Self> {
        Self::start_with(folder, sync_interval, "").await
    }

    /// Starts one with further lines in its configuration.
    pub async fn start_with(folder: &Path, sync_interval: &str, more: &str) -> Result<Self> {
        // A port that was free may be taken before the server binds it: then with another one.
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            let mut server = Self::configured(folder, sync_interval, more)?;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) => last = Err(error),
            }
        }
        last.context("nats-server does not start")
    }

    /// Starts so many as one cluster, each in a folder of its own.
    pub async fn start_cluster(
        folder: &Path,
        sync_interval: &str,
        members: u32,
    ) -> Result<Vec<Self>> {
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            match Self::try_cluster(folder, sync_interval, members).await {
                Ok(servers) => return Ok(servers),
                Err(error) => last = Err(error),
            }
        }
        last.context("the cluster of nats-servers does not start")
    }

    async fn try_cluster(folder: &Path, sync_interval: &str, members: u32) -> Result<Vec<Self>> {
        let ports: Vec<u16> = (0..members)
            .map(|_| free_port(LOOPBACK))
            .collect::<Result<_>>()?;
        let routes: Vec<String> = ports
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let mut servers = Vec::new();
        for (number, port) in (1..).zip(&ports) {
            let folder = folder.join(format!("nats-{number}"));
            std::fs::create_dir_all(&folder)?;
            let cluster = format!(
                "server_name: nats-{number}\n\
                 cluster {{ name: staffetta, listen: \"127.0.0.1:{port}\", routes: [{}] }}\n",
                routes.join(", ")
            );
            let mut server = Self::configured(&folder, sync_interval, &cluster)?;
            server.restart().await?;
            servers.push(server);
        }
        for server in &servers {
            server.wait_healthy().await?;
        }
        Ok(servers)
    }

    /// One that does not run yet, on ports that were free a moment ago.
    fn configured(folder: &Path, sync_interval: &str, more: &str) -> Result<Self> {
        let (port, monitor) = (free_port(LOOPBACK)?, free_port(LOOPBACK)?);
        let configuration = format!(
            "host: 127.0.0.1\nport: {port}\nhttp: \"127.0.0.1:{monitor}\"\n\
             max_payload: 8MB\nmax_pending: 256MB\nwrite_deadline: \"30s\"\n\
             jetstream {{ store_dir: \"{}\", max_mem: 1GB, max_file: 30GB, sync_interval: {sync_interval} }}\n{more}",
            folder.join("nats").display()
        );
        std::fs::write(folder.join("nats.conf"), configuration)?;
        Ok(Self {
            folder: folder.to_owned(),
            port,
            monitor,
            process: None,
        })
    }

    /// Waits until it says that it is healthy: in a cluster, until its copies of all streams are up to date.
    pub async fn wait_healthy(&self) -> Result<()> {
        let monitor = SocketAddr::new(LOOPBACK, self.monitor);
        until("a healthy nats-server", READY, || async move {
            matches!(get(monitor, "/healthz").await, Ok((200, _))).then_some(())
        })
        .await
        .with_context(|| {
            self.process
                .as_ref()
                .map_or_else(String::new, Process::log_tail)
        })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The monitoring endpoint.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// `kill -9`. The data stay.
    pub fn kill9(&mut self) -> Result<()> {
        self.process
            .take()
            .context("nats-server does not run")?
            .kill9()
    }

    /// Starts it again on the same data and port, and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        let configuration = self.folder.join("nats.conf");
        let arguments = ["-c".as_ref(), configuration.as_os_str()];
        let mut process = Process::start(
            "nats-server",
            &self.folder,
            &server("nats-server")?,
            arguments,
        )?;
        started(&mut process, "Server is ready").await?;
        self.process = Some(process);
        Ok(())
    }
}

/// A redis-server that keeps nothing on disk: a restart empties it.
pub struct RedisServer {
    folder: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts one.
    pub async fn start(folder: &Path) -> Result<Self> {
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            let mut server = Self {
                folder: folder.to_owned(),
                port: free_port(LOOPBACK)?,
                process: None,
            };
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) => last = Err(error),
            }
        }
        last.context("redis-server does not start")
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its process, while it runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The port of [`RedisServer::url`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`.
    pub fn kill9(&mut self) -> Result<()> {
        self.process
            .take()
            .context("redis-server does not run")?
            .kill9()
    }

    /// Starts it again, empty, on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        let (port, folder) = (self.port.to_string(), self.folder.display().to_string());
        let arguments = [
            ("--bind", "127.0.0.1"),
            ("--port", &port),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--dir", &folder),
            ("--repl-diskless-sync-delay", "0"),
        ];
        let arguments = arguments
            .into_iter()
            .flat_map(|(option, value)| [option, value]);
        let mut process = Process::start(
            "redis-server",
            &self.folder,
            &server("redis-server")?,
            arguments,
        )?;
        started(&mut process, "Ready to accept connections").await?;
        self.process = Some(process);
        Ok(())
    }
}
