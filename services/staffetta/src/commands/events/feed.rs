//! The journals of all partitions as one feed.

use std::time::Duration;

use proto::admin::admin_client::AdminClient;
use proto::admin::{JournalRecord, JournalRequest};
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::state::Positions;
use crate::admin;

/// Records read and not yet written.
const WAITING: usize = 256;
const RETRY: Duration = Duration::from_secs(1);

type Item = anyhow::Result<(u32, JournalRecord)>;

/// Ends when every partition is read, or never when it follows.
pub(super) struct Feed {
    records: mpsc::Receiver<Item>,
}

/// Reads every partition, from where `positions` says or from `since_ms`.
pub(super) fn start(
    admin: AdminClient<Channel>,
    partitions: impl Iterator<Item = u32>,
    positions: &Positions,
    since_ms: u64,
    follow: bool,
) -> Feed {
    let (sender, records) = mpsc::channel(WAITING);
    for partition in partitions {
        let next = positions.next(partition);
        let request = JournalRequest {
            partition,
            from_sequence: next.unwrap_or(0),
            since_ms: if next.is_some() { 0 } else { since_ms },
            follow,
        };
        tokio::spawn(read_partition(admin.clone(), request, sender.clone()));
    }
    Feed { records }
}

impl Feed {
    /// What is there, at least one record; `None` at the end.
    pub(super) async fn next_batch(&mut self) -> anyhow::Result<Option<Vec<(u32, JournalRecord)>>> {
        let mut items = Vec::new();
        if self.records.recv_many(&mut items, WAITING).await == 0 {
            return Ok(None);
        }
        items
            .into_iter()
            .collect::<anyhow::Result<Vec<_>>>()
            .map(Some)
    }
}

/// Sends the records of one partition. When it follows, a lost scheduler is asked again.
async fn read_partition(
    mut admin: AdminClient<Channel>,
    mut request: JournalRequest,
    sender: mpsc::Sender<Item>,
) {
    loop {
        let ended = read_once(&mut admin, &mut request, &sender).await;
        match ended {
            Ok(()) if !request.follow => return,
            Err(status) if !request.follow => {
                let what = format!("journal of partition {}", request.partition);
                // Nobody listens any more when it can't be sent.
                drop(sender.send(Err(admin::refused(&what, &status))).await);
                return;
            }
            Ok(()) => {}
            Err(status) => {
                tracing::warn!(partition = request.partition, %status, "the journal can't be read, trying again");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = sender.closed() => return,
        }
    }
}

async fn read_once(
    admin: &mut AdminClient<Channel>,
    request: &mut JournalRequest,
    sender: &mpsc::Sender<Item>,
) -> Result<(), tonic::Status> {
    let mut records = admin.journal(*request).await?.into_inner();
    while let Some(record) = records.message().await? {
        request.from_sequence = record.sequence + 1;
        request.since_ms = 0;
        if sender.send(Ok((request.partition, record))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
