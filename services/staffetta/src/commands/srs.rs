//! `staffetta srs`.

use std::sync::Arc;

use anyhow::Context;
use mail::{Address, Domain};
use srs::{Rewriter, Secrets};

use crate::cli::Global;
use crate::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say whom a rewritten return path leads back to
    Decode {
        /// Such as SRS0=hash=day=domain=local@ours.example
        address: String,
    },
    /// Rewrite a return path as forwarded mail gets it
    Encode {
        /// The sender's return path
        address: String,
        /// Sending domain that it becomes one of
        #[arg(long)]
        domain: String,
    },
}

/// With the secrets that `ingress` has, of the bootstrap file.
pub(crate) fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    let bootstrap = global.bootstrap()?;
    let forwarding = bootstrap.ingress.forwarding.as_ref().context(
        "the bootstrap file has no ingress.forwarding, so there are no secrets to rewrite with",
    )?;
    let path = &forwarding.secrets;
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let secrets = Secrets::parse_and_forget(text).with_context(|| path.display().to_string())?;
    let rewriter = Rewriter::new(
        Arc::new(secrets),
        forwarding.hash_length,
        forwarding.max_age_days(),
    );
    let now = runtime::now_ms() / 1000;
    let parse = |address: &str| Address::parse(address).with_context(|| address.to_owned());
    let result = match command {
        Command::Decode { address } => rewriter.reverse(&parse(address)?, now)?,
        Command::Encode { address, domain } => {
            let domain = Domain::parse(domain).with_context(|| format!("--domain {domain}"))?;
            rewriter.forward(&parse(address)?, &domain, now)?
        }
    };
    output::print(&format!("{result}\n"))
}
