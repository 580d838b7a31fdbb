//! `staffetta queue`: what waits, and what is done about it, over all schedulers.

mod list;
mod operate;
mod operations;
mod resume;
mod selection;

pub(crate) use operate::Author;

use crate::cli::Global;

/// Without a command it shows what waits, by site and tenant, and when it is due.
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
    /// Send nothing of some mail, and of what comes of it, until it is resumed
    Suspend(operate::Suspend),
    /// End suspensions and moves
    Resume(resume::Arguments),
    /// Let some mail leave by another pool
    Move(operate::Move),
    /// Try mail again now that waits for its next attempt
    Retry(operate::Once),
    /// End some mail as bounced, with a reason that its senders are told
    Bounce(operate::Bounce),
    /// End some mail as cancelled; nobody is told
    Cancel(operate::Once),
    /// Try mail again that is held or in quarantine
    Release(operate::Once),
    /// Show what operators have asked for, and how far it is
    Operations(operations::Arguments),
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    use proto::operation::Kind;
    match &arguments.command {
        None => list::run(global, &arguments.list).await,
        Some(Command::Suspend(suspend)) => suspend.run(global).await,
        Some(Command::Resume(resume)) => resume::run(global, resume).await,
        Some(Command::Move(of)) => of.run(global).await,
        Some(Command::Retry(once)) => once.run(global, Kind::Retry).await,
        Some(Command::Bounce(bounce)) => bounce.run(global).await,
        Some(Command::Cancel(once)) => once.run(global, Kind::Cancel).await,
        Some(Command::Release(once)) => once.run(global, Kind::Release).await,
        Some(Command::Operations(operations)) => operations::run(global, operations).await,
    }
}
