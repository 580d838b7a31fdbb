//! `staffetta up`: local mode.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use mail::Domain;
use proto::admin::ApplyRequest;
use runtime::bootstrap::ListenerTls;
use runtime::{Bootstrap, Readiness, Shutdown};

use crate::cli::Global;
use crate::documents::{Documents, yaml_files};
use crate::local::{DataFolder, Ports, Servers, starter_documents};
use crate::services::{self, Service};
use crate::{admin, output};

/// How often it is seen whether the services are ready.
const LOOK: Duration = Duration::from_millis(100);
/// After the documents are applied, everything is ready within this time, unless something is wrong.
const READY: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder with everything that is kept: made at the first start
    #[arg(long, default_value = "data", value_name = "FOLDER")]
    data: PathBuf,
    /// Folder whose *.yaml are applied at every start; a first configuration is put there when it has none
    #[arg(long, default_value = "config", value_name = "FOLDER")]
    documents: PathBuf,
    /// Domain of the DKIM keys and of the first configuration
    #[arg(long, default_value = "example.test", value_parser = parse_domain)]
    domain: Domain,
    /// Choose free ports instead of the usual ones, when the data folder is made
    #[arg(long)]
    free_ports: bool,
}

fn parse_domain(text: &str) -> Result<Domain, mail::DomainError> {
    Domain::parse(text)
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let shutdown = runtime::shutdown_on_signals().context("signals")?;
    let domain = arguments.domain.as_str();
    let ports = || {
        if arguments.free_ports {
            Ports::free()
        } else {
            Ports::usual()
        }
    };
    let folder = DataFolder::open(&arguments.data, domain, ports)?;
    let path = global
        .given_config()
        .unwrap_or_else(|| folder.bootstrap_path());
    let bootstrap = Arc::new(Bootstrap::load(&path)?);

    let servers = Servers::start(&bootstrap, folder.path()).await?;
    let outcome = with_servers(&bootstrap, &folder, arguments, &path, &shutdown).await;
    // Last, so that what the services have to write at their end is written.
    servers.stop().await;
    outcome
}

async fn with_servers(
    bootstrap: &Arc<Bootstrap>,
    folder: &DataFolder,
    arguments: &Arguments,
    path: &Path,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    super::init::create(bootstrap).await.context("init")?;
    let services = BTreeSet::from(Service::ALL);
    let readiness = Readiness::new();
    let running = services::run(
        bootstrap.clone(),
        &services,
        readiness.clone(),
        shutdown.clone(),
    );
    let greeting = async {
        let applied = greet(bootstrap, folder, arguments, path, &readiness, shutdown).await;
        if applied.is_err() {
            shutdown.request();
        }
        applied
    };
    let (ended, greeted) = tokio::join!(running, greeting);
    ended.and(greeted)
}

/// When the services are ready: applies the documents and says how to begin.
async fn greet(
    bootstrap: &Bootstrap,
    folder: &DataFolder,
    arguments: &Arguments,
    path: &Path,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    // The others are ready when there is a configuration.
    while !readiness.holds(Service::Scheduler.as_str()) {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
    let made = make_first_documents(folder, arguments)?;
    apply(bootstrap, &arguments.documents).await?;
    let in_time = Instant::now() + READY;
    while !readiness.is_ready() && Instant::now() < in_time && !shutdown.is_requested() {
        tokio::time::sleep(LOOK).await;
    }
    if !readiness.is_ready() {
        output::complain(&anyhow::anyhow!("not ready yet:\n{}", readiness.describe()));
    }
    output::print(&greeting(bootstrap, arguments, path, made))
}

/// Puts a first configuration where there is none; tells whether it did.
fn make_first_documents(folder: &DataFolder, arguments: &Arguments) -> anyhow::Result<bool> {
    let documents = &arguments.documents;
    std::fs::create_dir_all(documents).with_context(|| documents.display().to_string())?;
    if !yaml_files(documents)?.is_empty() {
        return Ok(false);
    }
    let first = documents.join("local.yaml");
    let text = starter_documents(folder, arguments.domain.as_str());
    std::fs::write(&first, text).with_context(|| first.display().to_string())?;
    Ok(true)
}

/// Merges the documents of the folder into the configuration. Bad ones are told, and the last good
/// configuration stays.
async fn apply(bootstrap: &Bootstrap, folder: &Path) -> anyhow::Result<()> {
    let documents = Documents::read(&[folder.to_owned()])?;
    let mut scheduler =
        admin::connect(&format!("http://{}", bootstrap.scheduler.advertise)).await?;
    let request = ApplyRequest {
        documents: documents.text.clone(),
        prune: false,
        dry_run: false,
    };
    let response = scheduler
        .apply(request)
        .await
        .map_err(|status| admin::refused("apply", &status))?
        .into_inner();
    for problem in &response.problems {
        output::complain(&anyhow::Error::msg(documents.locate(problem)));
    }
    if !response.problems.is_empty() {
        let folder = folder.display();
        output::complain(&anyhow::anyhow!(
            "{folder} was not applied; the last good configuration stays"
        ));
    }
    Ok(())
}

fn greeting(bootstrap: &Bootstrap, arguments: &Arguments, path: &Path, made: bool) -> String {
    let listeners: Vec<String> = bootstrap
        .ingress
        .listeners
        .iter()
        .map(|listener| {
            let tls = match listener.tls {
                ListenerTls::StartTls(_) => "STARTTLS",
                ListenerTls::Implicit(_) => "TLS",
                ListenerTls::None => "no TLS",
            };
            format!("{} ({tls})", listener.address)
        })
        .collect();
    let first = bootstrap.ingress.listeners.first();
    let server = first.map_or_else(String::new, |listener| listener.address.to_string());
    let domain = &arguments.domain;
    let documents = arguments.documents.display();
    let configuration = if made {
        format!("{documents}/local.yaml, just made: put a domain of yours there")
    } else {
        format!("{documents}/*.yaml")
    };
    let config = path.display();
    format!(
        "\nStaffetta is running. Ctrl-C stops it.\n\n  \
           SMTP           {}\n  \
           metrics        http://{}/metrics\n  \
           configuration  {configuration}\n\n\
         Send a first message, see what waits, and what became of it (its id is in the 250):\n\n  \
           swaks --server {server} --from you@{domain} --to you@your-mailbox.example\n  \
           staffetta --config {config} queue\n  \
           staffetta --config {config} trace <message-id>\n\n",
        listeners.join(", "),
        bootstrap.all.metrics,
    )
}
