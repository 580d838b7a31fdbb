//! `staffetta shaping`: which limits hold, and why.

mod explain;
mod replay;

use std::path::PathBuf;
use std::process::ExitCode;

use config::Snapshot;
use proto::admin::ConfigurationRequest;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::documents::Documents;
use crate::output;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the limits for mail to a domain, and the rule that each comes from
    Explain(explain::Arguments),
    /// Show what the rules for replies would have done about recorded events
    Replay(replay::Arguments),
}

pub(crate) async fn run(global: &Global, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Explain(arguments) => explain::run(global, arguments).await,
        Command::Replay(arguments) => replay::run(global, arguments).await,
    }
}

/// Which configuration is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// File or folder with resource documents that are a whole configuration, instead of what is applied; can be repeated
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    server: Server,
}

impl Source {
    /// `None` when the documents are bad, which is told.
    pub(crate) async fn snapshot(&self, global: &Global) -> anyhow::Result<Option<Snapshot>> {
        if self.files.is_empty() {
            return self.applied(global).await.map(Some);
        }
        let documents = Documents::read(&self.files)?;
        match Snapshot::from_documents(&documents.text) {
            Ok(snapshot) => Ok(Some(snapshot)),
            Err(problems) => {
                for problem in problems {
                    let text = documents.locate(&problem.to_string());
                    output::complain(&anyhow::Error::msg(text));
                }
                Ok(None)
            }
        }
    }

    async fn applied(&self, global: &Global) -> anyhow::Result<Snapshot> {
        let mut admin = self.server.connect(global).await?;
        let answer = admin
            .configuration(ConfigurationRequest {})
            .await
            .map_err(|status| admin::refused("the configuration", &status))?
            .into_inner();
        if answer.version == 0 {
            return Ok(Snapshot::default());
        }
        Snapshot::from_json(answer.json.as_bytes()).map_err(|problems| {
            let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("the configuration can't be read: {}", texts.join("; "))
        })
    }
}
