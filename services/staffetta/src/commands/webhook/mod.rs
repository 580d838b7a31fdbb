//! `staffetta webhook`: how posts to webhooks do, and what was given up.

mod dead;
mod list;
mod log;
mod set;

use crate::cli::Global;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the webhooks, how far behind they are, and which accept nothing
    List(list::Arguments),
    /// Show the last posts to a webhook, and what came of them
    Log(log::Arguments),
    /// Show the events that a webhook did not accept in time
    Dead(dead::Arguments),
    /// Post the events again that a webhook did not accept in time
    Replay(set::Arguments),
    /// Post again to a webhook whose endpoint said that it is gone (410)
    Enable(set::Arguments),
}

pub(crate) async fn run(global: &Global, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::List(arguments) => list::run(global, arguments).await,
        Command::Log(arguments) => log::run(global, arguments).await,
        Command::Dead(arguments) => dead::run(global, arguments).await,
        Command::Replay(arguments) => arguments.replay(global).await,
        Command::Enable(arguments) => arguments.enable(global).await,
    }
}

/// RFC 3339 in whole seconds.
fn time(unix_ms: u64) -> String {
    let milliseconds = i64::try_from(unix_ms).ok();
    let timestamp = milliseconds.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| "?".to_owned(), |timestamp| format!("{timestamp:.0}"))
}
