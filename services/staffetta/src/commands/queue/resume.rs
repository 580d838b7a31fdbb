//! `staffetta queue resume`: ends suspensions and moves, or takes back what is not done yet.

use std::time::{Duration, Instant};

use mail::Span;
use proto::admin::LiftRequest;
use proto::operation::{Kind, Operation, Selector};

use super::operate::Author;
use super::operations::overview;
use super::selection::Target;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Operations, by their ids
    #[arg(value_name = "OPERATION")]
    ids: Vec<String>,
    /// Instead of ids: suspensions and moves of just this selection; with --all, all of them
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    author: Author,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
    /// Only show what would end
    #[arg(long)]
    dry_run: bool,
    /// How long it is waited for the partitions; they do it, too, when nobody waits
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: Span,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(
        arguments.ids.is_empty() || arguments.target.is_missing(),
        "give ids of operations or a selection, not both"
    );
    let author = arguments.author.name()?;
    let selector = match arguments.ids.is_empty() {
        true => Some(arguments.target.selector()?),
        false => None,
    };
    let mut admin = arguments.server.connect(global).await?;
    let mut present = overview(&mut admin).await?;
    present.retain(|operation| {
        operation.lifted.is_none()
            && match &selector {
                Some(selector) => is_of(operation, selector),
                None => arguments.ids.contains(&operation.id),
            }
    });
    let ids: Vec<String> = present.operations().map(|op| op.id.clone()).collect();
    for id in &arguments.ids {
        anyhow::ensure!(ids.contains(id), "no operation {id} holds");
    }
    anyhow::ensure!(
        !ids.is_empty(),
        "nothing of this selection is suspended or moved"
    );
    if !arguments.dry_run {
        let request = LiftRequest {
            ids: ids.clone(),
            author,
            reason: arguments.reason.clone(),
        };
        admin
            .lift(request)
            .await
            .map_err(|status| admin::refused("resume", &status))?;
        let until = Instant::now() + arguments.timeout.duration();
        loop {
            present = overview(&mut admin).await?;
            present.retain(|operation| ids.contains(&operation.id));
            let is_known = present.operations().all(|op| op.lifted.is_some());
            if is_known && present.is_carried_out() || Instant::now() >= until {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    output::print(&match arguments.output {
        OutputFormat::Text => present.text(runtime::now_ms()),
        OutputFormat::Json => present.json(),
    })
}

/// Whether it is a suspension or move of just this selection.
fn is_of(operation: &Operation, selector: &Selector) -> bool {
    let own = operation.selector.clone().unwrap_or_default();
    let is_it = Selector {
        accepted_before_ms: 0,
        ..own
    } == *selector;
    matches!(operation.kind(), Kind::Suspend | Kind::Move) && (is_it || selector.all)
}
