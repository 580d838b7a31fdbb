//! The schedulers' admin service, as the commands use it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use mail::Span;
use proto::admin::admin_client::AdminClient;
use proto::admin::{Partition, PartitionsRequest};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::cli::Global;
use crate::waiting::Waiting;

/// Journal records and queues are answers of many rows.
const LARGEST_ANSWER: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a scheduler at an address `https://…` and we know each other.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Tls {
    /// PEM file of the authorities that sign the server's certificate [default: those of the system]
    #[arg(long, env = "STAFFETTA_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// PEM file with our own certificate, which scheduler.admin asks for
    #[arg(
        long,
        env = "STAFFETTA_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(
        long,
        env = "STAFFETTA_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,
    /// Name in the server's certificate, where it is reached by another, as through a port-forward
    #[arg(long, env = "STAFFETTA_TLS_NAME", value_name = "NAME")]
    tls_name: Option<String>,
}

impl Tls {
    fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        let mut config = match &self.tls_ca {
            Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let (Some(certificate), Some(key)) = (&self.tls_certificate, &self.tls_key) {
            config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        if let Some(name) = &self.tls_name {
            config = config.domain_name(name);
        }
        Ok(config)
    }
}

/// Where to reach a scheduler.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// Any scheduler, `host:port`, or `https://host:port` of a scheduler.admin [default: scheduler.advertise of the bootstrap
    /// file, else 127.0.0.1:7103]
    #[arg(long, env = "STAFFETTA_SERVER", value_name = "ADDRESS")]
    server: Option<String>,
    #[command(flatten)]
    tls: Tls,
    /// How long a scheduler is waited for when none answers, such as `5m`
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    wait: Span,
}

impl Server {
    /// Connects to the scheduler.
    pub(crate) async fn connect(&self, global: &Global) -> anyhow::Result<AdminClient<Channel>> {
        let url = self.url(global)?;
        let until = Instant::now() + self.wait.duration();
        let mut waiting = Waiting::new();
        loop {
            let error = match connect_over(&url, &self.tls).await {
                Ok(admin) => return Ok(admin),
                Err(error) => error,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(error);
            }
            waiting.tell(error);
            tokio::time::sleep(waiting.pause().min(left)).await;
        }
    }

    fn url(&self, global: &Global) -> anyhow::Result<String> {
        if let Some(server) = &self.server {
            return Ok(if server.contains("://") {
                server.clone()
            } else {
                format!("http://{server}")
            });
        }
        let configured = global.given_config().is_some() || global.config_path().exists();
        if configured {
            return Ok(format!(
                "http://{}",
                global.bootstrap()?.scheduler.advertise
            ));
        }
        Ok("http://127.0.0.1:7103".to_owned())
    }
}

/// A request for the scheduler at an address, which the one that is asked passes on: from outside of a cluster only one
/// may be reached.
pub(crate) fn for_owner<T>(address: &str, request: T) -> anyhow::Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(request);
    let owner = address
        .parse()
        .with_context(|| format!("the address {address:?} of a scheduler"))?;
    request.metadata_mut().insert("staffetta-owner", owner);
    Ok(request)
}

/// Connects to the scheduler at a URL, as the services do.
pub(crate) async fn connect(url: &str) -> anyhow::Result<AdminClient<Channel>> {
    connect_over(url, &Tls::default()).await
}

async fn connect_over(url: &str, tls: &Tls) -> anyhow::Result<AdminClient<Channel>> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .with_context(|| format!("{url:?} is not a URL such as http://127.0.0.1:7103"))?;
    if url.starts_with("https://") {
        endpoint = endpoint.tls_config(tls.config()?).context("TLS")?;
    }
    let channel = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("no scheduler answers at {url}"))?;
    Ok(AdminClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
}

/// All partitions, by number.
pub(crate) async fn partitions(admin: &mut AdminClient<Channel>) -> anyhow::Result<Vec<Partition>> {
    let mut partitions = admin
        .partitions(PartitionsRequest {})
        .await
        .map_err(|status| refused("the list of partitions", &status))?
        .into_inner()
        .partitions;
    partitions.sort_by_key(|partition| partition.id);
    anyhow::ensure!(
        !partitions.is_empty(),
        "the scheduler knows of no partition"
    );
    Ok(partitions)
}

/// The addresses of the schedulers that own partitions, and the partitions that nobody owns.
pub(crate) async fn owners(
    admin: &mut AdminClient<Channel>,
) -> anyhow::Result<(BTreeSet<String>, Vec<u32>)> {
    let (mut owners, mut unowned) = (BTreeSet::new(), Vec::new());
    for partition in partitions(admin).await? {
        if partition.address.is_empty() {
            unowned.push(partition.id);
        } else {
            owners.insert(partition.address);
        }
    }
    Ok((owners, unowned))
}

/// Says which partitions nobody answers for; empty when there are none.
pub(crate) fn not_counted(unowned: &[u32]) -> String {
    if unowned.is_empty() {
        return String::new();
    }
    let ids: Vec<String> = unowned.iter().map(u32::to_string).collect();
    format!(
        "not counted: partitions without an owner: {}\n",
        ids.join(", ")
    )
}

/// A call that the scheduler did not carry out.
pub(crate) fn refused(what: &str, status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!(
        "{what}: the scheduler answers {}: {}",
        status.code(),
        status.message()
    )
}
