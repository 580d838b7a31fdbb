//! `staffetta credential`: what is done about credentials that may be stolen.

mod decide;
mod list;

use proto::watch::Action;

use crate::cli::Global;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the credentials that are slowed, held or locked, by whom and what for
    ListLocks(list::Arguments),
    /// Let a credential neither log in nor send
    Lock(decide::Lock),
    /// End what is done about a credential, whoever did it; for an hour no rule does it again
    Unlock(decide::Unlock),
}

pub(crate) async fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::ListLocks(arguments) => list::run(global, arguments).await,
        Command::Lock(lock) => lock.run(global).await,
        Command::Unlock(unlock) => unlock.run(global).await,
    }
}

/// What is done, for people.
fn done(action: Action) -> &'static str {
    match action {
        Action::Unspecified | Action::Tell => "nothing",
        Action::Slow => "slowed",
        Action::Hold => "held",
        Action::Lock => "locked",
        Action::Pardon => "released",
    }
}
