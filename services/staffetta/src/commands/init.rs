//! `staffetta init`: the only creator of streams and buckets.

use std::time::Instant;

use mail::{ByteSize, PartitionId, Span};
use runtime::Bootstrap;
use serde_json::json;
use spool::{Append, InitOptions, InitReport, Stores, TranscriptBounds};

use crate::cli::Global;
use crate::output::{self, OutputFormat};
use crate::stores;
use crate::waiting::Waiting;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long NATS is waited for when it does not answer, such as `5m`
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    wait: Span,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let bootstrap = global.bootstrap()?;
    let until = Instant::now() + arguments.wait.duration();
    let mut waiting = Waiting::new();
    let report = loop {
        match create(&bootstrap).await {
            Ok(report) => break report,
            Err(error) => {
                let left = until.saturating_duration_since(Instant::now());
                let may_pass = error
                    .downcast_ref::<spool::Error>()
                    .is_some_and(spool::Error::may_pass);
                if left.is_zero() || !may_pass {
                    return Err(error);
                }
                waiting.tell(error);
                tokio::time::sleep(waiting.pause().min(left)).await;
            }
        }
    };
    output::print(&match arguments.output {
        OutputFormat::Text => describe(&bootstrap, &report),
        OutputFormat::Json => {
            let (partitions, created) = (report.partitions, &report.created);
            let changed = &report.changed;
            format!(
                "{}\n",
                json!({ "partitions": partitions, "created": created, "changed": changed })
            )
        }
    })
}

/// Creates what is missing.
pub(crate) async fn create(bootstrap: &Bootstrap) -> anyhow::Result<InitReport> {
    let stores = stores::connect(bootstrap, "init").await?;
    let options = InitOptions {
        partitions: bootstrap.partitions,
        replicas: bootstrap.storage.replicas,
        volume_bytes: bootstrap.storage.volume.as_u64(),
        transcripts: TranscriptBounds {
            max_age: bootstrap.storage.transcripts_age.duration(),
            max_bytes: bootstrap.storage.transcripts_size.map(ByteSize::as_u64),
        },
    };
    let report = stores.init(&options).await?;
    for partition in (0..report.partitions).map(PartitionId) {
        begin_journal(&stores, partition).await?;
    }
    Ok(report)
}

/// Writes the first record of a journal, which tells an empty partition from a lost one. Refused by the store where
/// there ever was a record.
async fn begin_journal(stores: &Stores, partition: PartitionId) -> anyhow::Result<()> {
    let first = journal::genesis(runtime::now_ms());
    match stores.journal(partition).append(first, "genesis", 0).await {
        Append::Stored(_) | Append::WrongLastSequence { .. } => Ok(()),
        Append::Full => {
            anyhow::bail!("the journal of partition {partition} has no room for its first record")
        }
        Append::Unknown(detail) => {
            let what = format!("beginning the journal of partition {partition}");
            Err(spool::Error::Unavailable { what, detail }.into())
        }
    }
}

fn describe(bootstrap: &Bootstrap, report: &InitReport) -> String {
    let partitions = report.partitions;
    let changed = match &*report.changed {
        [] => String::new(),
        changed => format!("changed the bounds of {}\n", changed.join(", ")),
    };
    if report.created.is_empty() {
        return match changed.is_empty() {
            true => {
                format!("nothing to do: the installation has {partitions} partitions already\n")
            }
            false => changed,
        };
    }
    changed
        + &format!(
            "created {} of an installation with {partitions} partitions, {} replica(s), bounds for a volume of {}\n",
            report.created.join(", "),
            bootstrap.storage.replicas,
            bootstrap.storage.volume,
        )
}
