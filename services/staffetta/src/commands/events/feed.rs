//! The journals of all partitions, and the stream `EVENTS`, as one feed.

use std::time::Duration;

use proto::admin::admin_client::AdminClient;
use proto::admin::{EventRecord, EventsRequest, JournalRecord, JournalRequest};
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Channel;

use super::state::Positions;
use crate::admin;

/// Records read and not yet written.
const WAITING: usize = 256;
const RETRY: Duration = Duration::from_secs(1);

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// Of the journal of a partition.
    Journal(u32, JournalRecord),
    /// Of the stream `EVENTS`.
    Told(EventRecord),
}

type Item = anyhow::Result<Read>;

/// Ends when everything is read, or never when it follows.
pub(super) struct Feed {
    records: mpsc::Receiver<Item>,
}

/// Reads every partition and the stream `EVENTS`, from where `positions` says or from `since_ms`.
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
    let next = positions.next_told();
    let request = EventsRequest {
        from_sequence: next.unwrap_or(0),
        since_ms: if next.is_some() { 0 } else { since_ms },
        follow,
    };
    tokio::spawn(read_told(admin, request, sender));
    Feed { records }
}

impl Feed {
    /// What is there, at least one record; `None` at the end.
    pub(super) async fn next_batch(&mut self) -> anyhow::Result<Option<Vec<Read>>> {
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
        let read = Read::Journal(request.partition, record);
        if sender.send(Ok(read)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends the records of `EVENTS`. An installation or a scheduler that is older than it has none: that is said once, and
/// asked again when it follows.
async fn read_told(
    mut admin: AdminClient<Channel>,
    mut request: EventsRequest,
    sender: mpsc::Sender<Item>,
) {
    let mut said = false;
    loop {
        let ended = read_told_once(&mut admin, &mut request, &sender).await;
        match ended {
            Ok(()) if !request.follow => return,
            Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                if !said {
                    tracing::warn!(
                        reason = status.message(),
                        "what ingress has to say is left out"
                    );
                }
                said = true;
                if !request.follow {
                    return;
                }
            }
            Err(status) if !request.follow => {
                // Nobody listens any more when it can't be sent.
                drop(
                    sender
                        .send(Err(crate::admin::refused("the stream EVENTS", &status)))
                        .await,
                );
                return;
            }
            Ok(()) => {}
            Err(status) => tracing::warn!(%status, "EVENTS can't be read, trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = sender.closed() => return,
        }
    }
}

async fn read_told_once(
    admin: &mut AdminClient<Channel>,
    request: &mut EventsRequest,
    sender: &mpsc::Sender<Item>,
) -> Result<(), tonic::Status> {
    let mut records = admin.events(*request).await?.into_inner();
    while let Some(record) = records.message().await? {
        request.from_sequence = record.sequence + 1;
        request.since_ms = 0;
        if sender.send(Ok(Read::Told(record))).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
