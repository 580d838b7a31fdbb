//! nats-server and redis-server.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
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
    /// Where the servers of a cluster talk to each other; `None` = it is in none.
    bus: Option<u16>,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts one, with its log in the folder, which no other has.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_on(folder, || Ok(None)).await
    }

    async fn start_on(folder: &Path, bus: impl Fn() -> Result<Option<u16>>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            let mut server = Self {
                folder: folder.to_owned(),
                port: free_port(LOOPBACK)?,
                bus: bus()?,
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
        let bus = self.bus.unwrap_or_default().to_string();
        let mut arguments = vec![
            ("--bind", "127.0.0.1"),
            ("--port", &port),
            ("--save", ""),
            ("--appendonly", "no"),
            ("--dir", &folder),
            ("--repl-diskless-sync-delay", "0"),
        ];
        if self.bus.is_some() {
            arguments.extend([
                ("--cluster-enabled", "yes"),
                ("--cluster-port", &bus),
                // Nobody is replaced but on demand, however busy the machine is.
                ("--cluster-node-timeout", "60000"),
                ("--cluster-require-full-coverage", "no"),
            ]);
        }
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

    /// Its answer to a command: what it says, the parts of a list one a line. An error when it says so.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut stream = TcpStream::connect((LOOPBACK, self.port))?;
        stream.set_read_timeout(Some(READY))?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes())?;
        read_answer(&mut BufReader::new(stream)).with_context(|| words.join(" "))
    }

    /// Makes it a replica of another one, and waits until it has what that one has.
    pub async fn follow(&self, master: &Self) -> Result<()> {
        match self.bus {
            None => self.ask(&["REPLICAOF", "127.0.0.1", &master.port.to_string()])?,
            Some(_) => self.ask(&["CLUSTER", "REPLICATE", &master.ask(&["CLUSTER", "MYID"])?])?,
        };
        until("a replica that follows", READY, || async {
            let info = self.ask(&["INFO", "replication"]).ok()?;
            info.contains("master_link_status:up").then_some(())
        })
        .await
    }

    /// Makes a replica the master, whatever has become of its own.
    pub fn promote(&self) -> Result<()> {
        match self.bus {
            None => self.ask(&["REPLICAOF", "NO", "ONE"])?,
            Some(_) => self.ask(&["CLUSTER", "FAILOVER", "TAKEOVER"])?,
        };
        Ok(())
    }
}

fn read_answer(reader: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some((kind, rest)) = line.split_at_checked(1) else {
        bail!("redis-server has closed the connection");
    };
    match kind {
        "-" => bail!("{rest}"),
        "$" if rest == "-1" => Ok(String::new()),
        "$" => {
            let mut body = vec![0; rest.parse::<usize>()? + 2];
            reader.read_exact(&mut body)?;
            body.truncate(body.len() - 2);
            Ok(String::from_utf8(body)?)
        }
        "*" => {
            let parts = (0..rest.parse::<usize>()?).map(|_| read_answer(reader));
            Ok(parts.collect::<Result<Vec<_>>>()?.join("\n"))
        }
        _ => Ok(rest.to_owned()),
    }
}

/// Servers of a Redis Cluster: masters, each with a replica of the same number when wanted.
pub struct RedisCluster {
    /// The masters.
    pub masters: Vec<RedisServer>,
    /// Their replicas; none or as many.
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts one that has all slots.
    pub async fn start(folder: &Path, masters: u16, with_replicas: bool) -> Result<Self> {
        let mut cluster = Self {
            masters: Vec::new(),
            replicas: Vec::new(),
        };
        for number in 0..masters {
            let folder = folder.join(format!("redis-{number}"));
            cluster.masters.push(Self::server(&folder).await?);
            if with_replicas {
                let folder = folder.join("replica");
                cluster.replicas.push(Self::server(&folder).await?);
            }
        }
        let last_slot = |number: u16| u32::from(number) * 16_384 / u32::from(masters);
        for (number, master) in (0..).zip(&cluster.masters) {
            let (from, to) = (last_slot(number), last_slot(number + 1) - 1);
            let (from, to) = (from.to_string(), to.to_string());
            master.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()])?;
            master.ask(&["CLUSTER", "ADDSLOTSRANGE", &from, &to])?;
        }
        let first = &cluster.masters[0];
        for other in cluster.servers().skip(1) {
            let (port, bus) = (other.port.to_string(), other.bus.unwrap_or_default());
            first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus.to_string()])?;
        }
        let known = format!("cluster_known_nodes:{}", cluster.servers().count());
        for server in cluster.servers() {
            until("servers of Redis that know each other", READY, || async {
                let info = server.ask(&["CLUSTER", "INFO"]).ok()?;
                (info.contains("cluster_state:ok") && info.contains(&known)).then_some(())
            })
            .await?;
        }
        for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
            replica.follow(master).await?;
        }
        Ok(cluster)
    }

    async fn server(folder: &Path) -> Result<RedisServer> {
        RedisServer::start_on(folder, || Ok(Some(free_port(LOOPBACK)?))).await
    }

    fn servers(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Where clients connect: the masters, which tell of the others.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.masters.iter().map(RedisServer::url).collect();
        urls.join(",")
    }
}
