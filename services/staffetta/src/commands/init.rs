//! `staffetta init`: the only creator of streams and buckets.

use mail::PartitionId;
use runtime::Bootstrap;
use spool::{Append, InitOptions, InitReport, Stores};

use crate::cli::Global;
use crate::{output, stores};

pub(crate) async fn run(global: &Global) -> anyhow::Result<()> {
    let bootstrap = global.bootstrap()?;
    let report = create(&bootstrap).await?;
    output::print(&describe(&bootstrap, &report))
}

/// Creates what is missing.
pub(crate) async fn create(bootstrap: &Bootstrap) -> anyhow::Result<InitReport> {
    let stores = stores::connect(bootstrap, "init").await?;
    let options = InitOptions {
        partitions: bootstrap.partitions,
        replicas: bootstrap.storage.replicas,
        volume_bytes: bootstrap.storage.volume.as_u64(),
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
            anyhow::bail!("beginning the journal of partition {partition}: {detail}")
        }
    }
}

fn describe(bootstrap: &Bootstrap, report: &InitReport) -> String {
    let partitions = report.partitions;
    if report.created.is_empty() {
        return format!("nothing to do: the installation has {partitions} partitions already\n");
    }
    format!(
        "created {} of an installation with {partitions} partitions, {} replica(s), bounds for a volume of {}\n",
        report.created.join(", "),
        bootstrap.storage.replicas,
        bootstrap.storage.volume,
    )
}
