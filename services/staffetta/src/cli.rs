//! The command line.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use runtime::Bootstrap;
use telemetry::LogFormat;

use crate::commands;

/// The NATS client tells every connection; ours are told by `spool`.
const DEFAULT_FILTER: &str = "info,async_nats=warn";

/// Staffetta: an SMTP relay that loses nothing.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Bootstrap file of the installation [default: staffetta.yaml, else data/staffetta.yaml]
    #[arg(long, global = true, env = "STAFFETTA_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is logged to standard error, such as `info,spool=debug`
    #[arg(long = "log", global = true, env = "STAFFETTA_LOG", default_value = DEFAULT_FILTER, value_name = "FILTER")]
    log_filter: String,
    /// `json` or `text` [default: text on a terminal, else json]
    #[arg(
        long,
        global = true,
        env = "STAFFETTA_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the streams and buckets of a new installation (once; again it changes nothing)
    Init(commands::init::Arguments),
    /// Run one service, several, or all in one process
    Run(commands::run::Arguments),
    /// Run everything on this machine, NATS and Redis too
    Up(commands::up::Arguments),
    /// Change the configuration by resource documents
    Apply(commands::apply::Arguments),
    /// Show what waits, by site and tenant; suspend, resume, retry, bounce, cancel, move, release some of it
    Queue(Box<commands::queue::Arguments>),
    /// Show who shares which pool, and how they stand there; put tenants into quarantine, on probation, and back
    Tenants(Box<commands::tenants::Arguments>),
    /// Show which credentials are locked since they may be stolen; lock and unlock them
    #[command(subcommand)]
    Credential(commands::credential::Command),
    /// Show, add and remove addresses that nothing is sent to
    #[command(subcommand)]
    Suppression(commands::suppression::Command),
    /// Say why mail does not move: a message, the mail to a domain or of a tenant
    Why(commands::why::Arguments),
    /// Which limits hold for mail to a domain, and why
    #[command(subcommand)]
    Shaping(commands::shaping::Command),
    /// Show the timeline of a message
    Trace(commands::trace::Arguments),
    /// Write what happens to messages as JSON Lines
    Events(commands::events::Arguments),
    /// Show how posts to webhooks do, and what was given up; post it again
    #[command(subcommand)]
    Webhook(commands::webhook::Command),
    /// Say what is missing on this machine, or in the DNS about a domain
    Doctor(commands::doctor::Arguments),
    /// Validate staffetta.yaml and resource documents without starting anything
    Check(commands::check::Arguments),
    /// The checks of messages before acceptance
    #[command(subcommand)]
    Preflight(commands::preflight::Command),
    /// Reports, complaints and answers that come back
    #[command(subcommand)]
    Bounce(commands::bounce::Command),
    /// Make the hash of a password (read from standard input) for a Credential
    HashPassword {
        /// The keys of SCRAM-SHA-256 instead of the Argon2 hash
        #[arg(long)]
        scram: bool,
    },
    /// Write docs/metrics.md from the code
    #[command(hide = true)]
    MetricsReference,
    /// DKIM keys
    #[command(subcommand)]
    Dkim(commands::dkim::Command),
    /// Return paths of forwarded mail
    #[command(subcommand)]
    Srs(commands::srs::Command),
}

impl Global {
    /// Where the bootstrap file is: as given, here, or in the folder of local mode.
    pub(crate) fn config_path(&self) -> PathBuf {
        let here = PathBuf::from("staffetta.yaml");
        let local = PathBuf::from("data/staffetta.yaml");
        match &self.config {
            Some(given) => given.clone(),
            None if !here.exists() && local.exists() => local,
            None => here,
        }
    }

    /// The path, when it was given.
    pub(crate) fn given_config(&self) -> Option<PathBuf> {
        self.config.clone()
    }

    /// The bootstrap file, read and validated.
    pub(crate) fn bootstrap(&self) -> anyhow::Result<Arc<Bootstrap>> {
        let path = self.config_path();
        let loaded = Bootstrap::load(&path);
        loaded.map(Arc::new).map_err(anyhow::Error::new)
    }

    fn start_logging(&self, services: bool) -> anyhow::Result<()> {
        let terminal = std::io::stderr().is_terminal();
        let by_default = if terminal || !services {
            LogFormat::Text
        } else {
            LogFormat::Json
        };
        // Commands answer on standard output; of the libraries' logs only trouble is of interest.
        let quiet = !services && self.log_filter == DEFAULT_FILTER;
        let filter = if quiet { "warn" } else { &self.log_filter };
        telemetry::init_logging(self.log_format.unwrap_or(by_default), filter)?;
        Ok(())
    }
}

/// Reads the command line and carries it out.
pub(crate) fn start() -> anyhow::Result<ExitCode> {
    let Cli { global, command } = Cli::parse();
    let services = matches!(command, Command::Run(_) | Command::Up(_));
    global.start_logging(services)?;
    runtime::init_tls();
    runtime::raise_open_files();
    let mut reactor = tokio::runtime::Builder::new_multi_thread();
    // Tokio reads the variable by itself.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        reactor.worker_threads(default_workers());
    }
    let reactor = reactor
        .enable_all()
        .build()
        .context("the asynchronous runtime can't start")?;
    reactor.block_on(carry_out(&global, command))
}

/// Half of the cores (or of the container's share of them), at least one: the other half is for NATS, the signer's
/// threads, the kernel and the other services. Each idle worker more costs wake-ups: on two cores 9 % of the CPU of a
/// message.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}

async fn carry_out(global: &Global, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(arguments) => commands::init::run(global, &arguments).await?,
        Command::Run(arguments) => commands::run::run(global, &arguments).await?,
        Command::Up(arguments) => commands::up::run(global, &arguments).await?,
        Command::Apply(arguments) => return commands::apply::run(global, &arguments).await,
        Command::Queue(arguments) => commands::queue::run(global, &arguments).await?,
        Command::Tenants(arguments) => commands::tenants::run(global, &arguments).await?,
        Command::Credential(command) => commands::credential::run(global, &command).await?,
        Command::Suppression(command) => commands::suppression::run(global, &command).await?,
        Command::Why(arguments) => commands::why::run(global, &arguments).await?,
        Command::Shaping(command) => return commands::shaping::run(global, &command).await,
        Command::Trace(arguments) => return commands::trace::run(global, &arguments).await,
        Command::Events(arguments) => commands::events::run(global, &arguments).await?,
        Command::Webhook(command) => commands::webhook::run(global, &command).await?,
        Command::Doctor(arguments) => return commands::doctor::run(global, &arguments).await,
        Command::Check(arguments) => return commands::check::run(global, &arguments),
        Command::Preflight(command) => return commands::preflight::run(&command),
        Command::Bounce(command) => commands::bounce::run(&command)?,
        Command::HashPassword { scram } => commands::hash_password::run(scram)?,
        Command::MetricsReference => commands::metrics_reference::run()?,
        Command::Dkim(command) => commands::dkim::run(global, &command).await?,
        Command::Srs(command) => commands::srs::run(global, &command)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
