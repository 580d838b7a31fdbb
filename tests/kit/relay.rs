//! A whole installation: servers, DNS and the processes of Staffetta.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::bootstrap::{Bootstrap, Ports};
use crate::place::{repository, target_folder};
use crate::{
    Dns, NatsServer, Place, Process, Queue, RedisServer, Session, Signal, Zones, get, metric, until,
};

/// The services in the order in which they are started.
pub const SERVICES: [&str; 5] = ["signer", "scheduler", "sender", "feedback", "ingress"];

const READY: Duration = Duration::from_secs(120);

/// How the services are spread over processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A process for each service.
    Separate,
    /// All in one process.
    AllInOne,
}

/// What an installation is made of.
pub struct Setup {
    /// Name of the test; its folder.
    pub test: String,
    /// Processes.
    pub layout: Layout,
    /// What DNS knows.
    pub zones: Zones,
    /// Resource documents, applied at the start.
    pub documents: String,
    /// `strict` or `relaxed`.
    pub durability: String,
    /// `sync_interval` of nats-server.
    pub sync_interval: String,
    /// Servers of the NATS cluster, each of which has a copy of every stream; 1 or 3.
    pub nats_servers: u32,
    /// Number of partitions.
    pub partitions: u32,
    /// Bound of all streams together, in a unit such as `2GiB`.
    pub volume: String,
    /// Further processes, such as `scheduler-2` or `sender-2`.
    pub more: Vec<String>,
}

impl Setup {
    /// Separate processes, strict, two partitions.
    pub fn new(test: &str, zones: Zones, documents: String) -> Self {
        Self {
            test: test.to_owned(),
            layout: Layout::Separate,
            zones,
            documents,
            durability: "strict".to_owned(),
            sync_interval: "always".to_owned(),
            nats_servers: 1,
            partitions: 2,
            volume: "2GiB".to_owned(),
            more: Vec::new(),
        }
    }

    /// In the layout.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.layout = layout;
        self
    }

    /// With one more process of a service, such as `scheduler-2`.
    pub fn with(mut self, instance: &str) -> Self {
        self.more.push(instance.to_owned());
        self
    }
}

/// A running installation. Everything in it ends when it is dropped.
pub struct Relay {
    /// The NATS server, the first of its cluster.
    pub nats: NatsServer,
    /// The other servers of the cluster.
    pub nats_peers: Vec<NatsServer>,
    /// The Redis server.
    pub redis: RedisServer,
    /// The DNS server.
    pub dns: Dns,
    instances: BTreeMap<String, Instance>,
    order: Vec<String>,
    place: Place,
}

struct Instance {
    ports: Ports,
    configuration: PathBuf,
    process: Option<Process>,
}

impl Relay {
    /// Starts the servers, creates the installation, starts its processes, applies the documents and
    /// waits until everything is ready.
    pub async fn start(setup: Setup) -> Result<Self> {
        let mut relay = Self::prepare(&setup).await?;
        relay.start_all(&setup).await?;
        Ok(relay)
    }

    /// What [`Relay::start`] does after [`Relay::prepare`].
    pub async fn start_all(&mut self, setup: &Setup) -> Result<()> {
        self.command(&["init"]).await?;
        for name in self.order.clone() {
            self.start_process(&name)?;
        }
        self.apply(&setup.documents).await?;
        self.wait_ready().await?;
        self.wait_accepting().await
    }

    /// Changes the `staffetta.yaml` of a process that is started later.
    pub fn reconfigure(&mut self, name: &str, old: &str, new: &str) -> Result<()> {
        let configuration = &self.instance(name)?.configuration;
        let text = std::fs::read_to_string(configuration)?;
        if !text.contains(old) {
            bail!("{configuration:?} has no {old:?}");
        }
        Ok(std::fs::write(configuration, text.replace(old, new))?)
    }

    /// Starts the servers and writes what the processes will read. Nothing is created, and nothing of Staffetta runs.
    pub async fn prepare(setup: &Setup) -> Result<Self> {
        let place = Place::new(&setup.test)?;
        let (nats, nats_peers) = match setup.nats_servers {
            1 => {
                let nats = NatsServer::start_with_sync(place.path(), &setup.sync_interval).await?;
                (nats, Vec::new())
            }
            members => {
                let cluster =
                    NatsServer::start_cluster(place.path(), &setup.sync_interval, members).await?;
                let mut cluster = cluster.into_iter();
                let first = cluster.next().context("a cluster has members")?;
                (first, cluster.collect())
            }
        };
        let nats_urls: Vec<String> = std::iter::once(&nats)
            .chain(&nats_peers)
            .map(NatsServer::url)
            .collect();
        let redis = RedisServer::start(place.path()).await?;
        let dns = Dns::start(place.path(), &setup.zones).await?;

        let mut order: Vec<String> = match setup.layout {
            Layout::Separate => SERVICES.iter().map(|&service| service.to_owned()).collect(),
            Layout::AllInOne => vec!["all".to_owned()],
        };
        order.extend(setup.more.iter().cloned());
        let mut ports = BTreeMap::new();
        for name in &order {
            ports.insert(name.clone(), Ports::free()?);
        }
        let signers = ports
            .iter()
            .filter(|(name, _)| matches!(service(name), "signer" | "all"));
        let bootstrap = Bootstrap {
            nats_url: nats_urls.join(","),
            nats_monitor: nats.monitor_url(),
            redis_url: redis.url(),
            resolver: dns.address(),
            durability: &setup.durability,
            partitions: setup.partitions,
            replicas: setup.nats_servers,
            signers: signers.map(|(_, ports)| ports.signer).collect(),
            volume: &setup.volume,
        };
        let mut instances = BTreeMap::new();
        for (name, ports) in ports {
            let configuration = place.path().join(format!("{name}.yaml"));
            std::fs::write(&configuration, bootstrap.yaml(&ports))?;
            instances.insert(
                name,
                Instance {
                    ports,
                    configuration,
                    process: None,
                },
            );
        }

        Ok(Self {
            nats,
            nats_peers,
            redis,
            dns,
            instances,
            order,
            place,
        })
    }

    /// What a process answers at `/livez`, `/readyz` or `/metrics`: status and body. An error when it has ended.
    pub async fn health(&mut self, name: &str, path: &str) -> Result<(u16, String)> {
        let instance = self.instance(name)?;
        let metrics = instance.ports.metrics;
        let process = instance.process.as_mut();
        let process = process.with_context(|| format!("{name} does not run"))?;
        if !process.is_running() {
            bail!("{name} has ended:\n{}", process.log_tail());
        }
        get(metrics, path).await
    }

    /// Waits until ingress has the configuration: until it takes the sender of the test documents.
    async fn wait_accepting(&self) -> Result<()> {
        let mut last = String::new();
        let accepting = async {
            loop {
                last = match Session::open(self.submission(), Duration::from_secs(20)).await {
                    Ok(mut session) => {
                        match session.command("MAIL FROM:<app@acme.example>").await {
                            Ok(reply) if reply.starts_with("250") => return,
                            Ok(reply) => reply,
                            Err(error) => format!("{error:#}"),
                        }
                    }
                    Err(error) => format!("{error:#}"),
                };
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let in_time = tokio::time::timeout(READY, accepting).await;
        in_time.with_context(|| format!("ingress does not accept: {last}"))
    }

    /// The folder of the test.
    pub fn folder(&self) -> &Path {
        self.place.path()
    }

    /// Names of all processes.
    pub fn names(&self) -> &[String] {
        &self.order
    }

    /// Where ingress takes submissions.
    pub fn submission(&self) -> SocketAddr {
        let ingress = self
            .instances
            .get("ingress")
            .or_else(|| self.instances.get("all"));
        ingress
            .expect("every layout has an ingress")
            .ports
            .submission
    }

    /// Where this process takes submissions.
    pub fn submission_of(&mut self, name: &str) -> Result<SocketAddr> {
        Ok(self.instance(name)?.ports.submission)
    }

    /// Where a scheduler listens.
    pub fn scheduler_of(&mut self, name: &str) -> Result<SocketAddr> {
        Ok(self.instance(name)?.ports.scheduler)
    }

    fn instance(&mut self, name: &str) -> Result<&mut Instance> {
        self.instances
            .get_mut(name)
            .with_context(|| format!("no process {name:?} in this layout"))
    }

    /// Starts a process that does not run.
    pub fn start_process(&mut self, name: &str) -> Result<()> {
        let folder = self.place.path().to_owned();
        let instance = self.instance(name)?;
        let configuration = instance.configuration.display().to_string();
        let arguments = ["--config", &configuration, "run", service(name)];
        instance.process = Some(Process::start(name, &folder, binary()?, arguments)?);
        Ok(())
    }

    /// `kill -9` of one process.
    pub fn kill9(&mut self, name: &str) -> Result<()> {
        self.instance(name)?
            .process
            .take()
            .with_context(|| format!("{name} does not run"))?
            .kill9()
    }

    /// Asks one process to end, and waits until it has.
    pub fn stop(&mut self, name: &str, limit: Duration) -> Result<()> {
        self.instance(name)?
            .process
            .take()
            .with_context(|| format!("{name} does not run"))?
            .stop(limit)
    }

    /// Waits until a process that was asked to end has ended, and that it ended well.
    pub fn ended(&mut self, name: &str, limit: Duration) -> Result<()> {
        self.instance(name)?
            .process
            .take()
            .with_context(|| format!("{name} does not run"))?
            .ended(limit)
    }

    /// Whether a process was started and has not ended.
    pub fn is_running(&mut self, name: &str) -> Result<bool> {
        let process = self.instance(name)?.process.as_mut();
        Ok(process.is_some_and(Process::is_running))
    }

    /// Sends a signal to one process.
    pub fn signal(&mut self, name: &str, signal: Signal) -> Result<()> {
        self.instance(name)?
            .process
            .as_ref()
            .with_context(|| format!("{name} does not run"))?
            .signal(signal)
    }

    /// Waits until every process that should run says that it is ready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        for (name, instance) in &mut self.instances {
            let Some(process) = instance.process.as_mut() else {
                continue;
            };
            let metrics = instance.ports.metrics;
            let ready = until(&format!("{name} ready"), READY, || {
                let running = process.is_running();
                async move {
                    if !running {
                        return Some(false);
                    }
                    matches!(get(metrics, "/readyz").await, Ok((200, _))).then_some(true)
                }
            })
            .await;
            match ready {
                Ok(true) => {}
                Ok(false) => bail!("{name} has ended:\n{}", process.log_tail()),
                Err(error) => {
                    let answer = get(metrics, "/readyz")
                        .await
                        .map(|(_, body)| body)
                        .unwrap_or_default();
                    return Err(error).with_context(|| format!("{answer}\n{}", process.log_tail()));
                }
            }
        }
        Ok(())
    }

    /// Runs a command of the binary and gives what it prints; it talks to the first scheduler.
    pub async fn command(&self, arguments: &[&str]) -> Result<String> {
        let first = self
            .schedulers()
            .next()
            .context("every layout has a scheduler")?;
        self.command_of(first, arguments, Duration::from_secs(60))
            .await
    }

    fn schedulers(&self) -> impl Iterator<Item = &Instance> {
        let names = self
            .order
            .iter()
            .filter(|name| matches!(service(name), "scheduler" | "all"));
        names.map(|name| &self.instances[name])
    }

    async fn command_of(
        &self,
        instance: &Instance,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<String> {
        let mut command = tokio::process::Command::new(binary()?);
        command
            .arg("--config")
            .arg(&instance.configuration)
            .args(arguments)
            .kill_on_drop(true);
        let run = tokio::time::timeout(limit, command.output());
        let output = run
            .await
            .with_context(|| format!("staffetta {arguments:?} takes too long"))??;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "staffetta {arguments:?}: {}\n{printed}{complaint}",
                output.status
            );
        }
        Ok(printed)
    }

    /// What waits, as the first scheduler that answers tells it.
    pub async fn queue(&self) -> Result<Queue> {
        let mut last = None;
        for instance in self
            .schedulers()
            .filter(|instance| instance.process.is_some())
        {
            match self
                .command_of(
                    instance,
                    &["queue", "--output", "json"],
                    Duration::from_secs(20),
                )
                .await
            {
                Ok(printed) => return Queue::from_json(&printed),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no scheduler runs")))
    }

    /// Reads the events that are new since the last call and gives those of all calls so far, as JSON lines.
    pub async fn events(&self) -> Result<String> {
        let state = self.place.path().join("events.state").display().to_string();
        let kept = self.place.path().join("events.jsonl");
        let mut last = anyhow::anyhow!("no scheduler runs");
        for instance in self
            .schedulers()
            .filter(|instance| instance.process.is_some())
        {
            match self
                .command_of(
                    instance,
                    &["events", "--state", &state],
                    Duration::from_secs(60),
                )
                .await
            {
                Ok(printed) => {
                    let mut all = std::fs::read_to_string(&kept).unwrap_or_default();
                    all.push_str(&printed);
                    std::fs::write(&kept, &all)?;
                    return Ok(all);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// How many recipients were settled as in doubt so far, by the events read.
    pub async fn settled_in_doubt(&self) -> Result<u64> {
        let events = self.events().await?;
        Ok(events
            .lines()
            .filter(|line| line.contains("\"type\":\"InDoubt\""))
            .count() as u64)
    }

    /// Applies resource documents.
    pub async fn apply(&self, documents: &str) -> Result<String> {
        let path = self.place.path().join("resources.yaml");
        std::fs::write(&path, documents)?;
        self.command(&["apply", "--wait", "60s", "-f", &path.display().to_string()])
            .await
    }

    /// The metrics of one process in text form; empty when it does not answer.
    pub async fn metrics(&self, name: &str) -> String {
        match self.instances.get(name) {
            Some(instance) => get(instance.ports.metrics, "/metrics")
                .await
                .map(|(_, body)| body)
                .unwrap_or_default(),
            None => String::new(),
        }
    }

    /// The sum of a metric over all processes.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let mut sum = 0.0;
        for process in &self.order {
            sum += metric(&self.metrics(process).await, name, labels);
        }
        sum
    }

    /// Stops everything in order and removes the folder: the test has passed.
    pub fn finish(mut self) -> Result<()> {
        for name in self.order.iter().rev() {
            let instance = self
                .instances
                .get_mut(name)
                .expect("every name has an instance");
            if let Some(process) = instance.process.take() {
                process.stop(READY)?;
            }
        }
        let Self {
            nats,
            nats_peers,
            redis,
            dns,
            place,
            ..
        } = self;
        drop((nats, nats_peers, redis, dns));
        place.finish()
    }
}

/// The service of a process name: `scheduler` of `scheduler-2`.
fn service(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}

/// The binary under test: `STAFFETTA_BIN`, or the one of this checkout, brought up to date once.
fn binary() -> Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| find_binary().map_err(|error| format!("{error:#}")));
    found
        .as_deref()
        .map_err(|error| anyhow::anyhow!("no staffetta to test: {error}"))
}

fn find_binary() -> Result<PathBuf> {
    if let Some(binary) = std::env::var_os("STAFFETTA_BIN") {
        return Ok(binary.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let build = ["build", "--quiet", "-p", "staffetta"];
    let status = Command::new(cargo)
        .args(build)
        .current_dir(repository())
        .status()?;
    if !status.success() {
        bail!("cargo build -p staffetta failed");
    }
    Ok(target_folder().join("debug/staffetta"))
}
