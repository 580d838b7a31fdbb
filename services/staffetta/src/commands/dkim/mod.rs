//! `staffetta dkim`: private keys and their DNS records.

mod generate;
mod list;
mod record;

pub(crate) use generate::{Algorithm, generate};
pub(crate) use record::{zone_line, zone_text};

use crate::cli::Global;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a private key, and show the DNS record and the lines of the SendingDomain for it
    Generate(generate::Arguments),
    /// Check a private key that is there already, and show the same of it
    Record(record::Arguments),
    /// Show the keys of sending domains, which of them sign, and what the DNS shows of them
    List(list::Arguments),
}

pub(crate) async fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(arguments) => generate::run(arguments),
        Command::Record(arguments) => record::run(arguments),
        Command::List(arguments) => list::run(global, arguments).await,
    }
}
