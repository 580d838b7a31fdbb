//! `staffetta tenants`: who shares which pool, and how they stand there.

mod decide;
mod list;

use proto::admin::Decision;
use proto::standing::Standing;

use crate::cli::Global;

/// Without a command it shows the pools and their tenants.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    list: list::Listing,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let a tenant's mail leave by the pool for quarantine, or by none where there is no such pool
    Quarantine(decide::Quarantine),
    /// End a quarantine: the tenant is on probation then where there is one, else a member
    Release(decide::Decide),
    /// Make a tenant a member at once
    Admit(decide::Decide),
    /// Put a tenant on probation, from the beginning
    Probation(decide::Decide),
    /// Forget a tenant in a pool, as if it had never been there
    Forget(decide::Decide),
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        None => list::run(global, &arguments.list).await,
        Some(Command::Quarantine(quarantine)) => quarantine.run(global).await,
        Some(Command::Release(decide)) => decide.run(global, Decision::Release).await,
        Some(Command::Admit(decide)) => decide.run(global, Decision::Admit).await,
        Some(Command::Probation(decide)) => decide.run(global, Decision::Probation).await,
        Some(Command::Forget(decide)) => decide.run(global, Decision::Forget).await,
    }
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Unspecified => "new",
        Standing::Probation => "probation",
        Standing::Member => "member",
        Standing::Quarantine => "quarantine",
    }
}
