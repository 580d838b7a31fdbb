//! `staffetta suppression`: whom nothing is sent to.

mod change;
mod csv;
mod file;
mod list;

use crate::cli::Global;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Send nothing to an address any more
    Add(change::Add),
    /// Write to an address again
    Remove(change::Remove),
    /// Show what is known of an address
    Show(list::Show),
    /// Show all entries
    List(list::List),
    /// Add the entries of a file
    Import(file::Import),
    /// Write all entries into a file, or to standard output
    Export(file::Export),
}

pub(crate) async fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Add(add) => add.run(global).await,
        Command::Remove(remove) => remove.run(global).await,
        Command::Show(show) => show.run(global).await,
        Command::List(list) => list.run(global).await,
        Command::Import(import) => import.run(global).await,
        Command::Export(export) => export.run(global).await,
    }
}
