//! Events written into files as JSON Lines: everything that happens, once, and again after a crash.
//!
//! The position is in the folder, beside the files: whoever copies the folder has both. What was removed from the streams
//! before it was written is told by a line of the type `gap`.

mod folder;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::PartitionId;
use runtime::bootstrap::Export;
use runtime::{Shutdown, now_ms};
use serde_json::json;
use spool::Stores;
use telemetry::{IntCounter, IntGauge};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::feed::{Cursor, Feed, Shared, Source, Taken};
use folder::{Folder, Places};

/// Records that wait to be written.
const WAITING: usize = 256;
/// Octets that are written together.
const MOST_OCTETS: usize = 1 << 20;
/// What came since is written so long after the first of it.
const LINGER: Duration = Duration::from_secs(1);
/// Between two attempts at a folder that can't be written.
const RETRY: Duration = Duration::from_secs(5);

/// Counters of the export.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    events: IntCounter,
    failures: IntCounter,
    failing: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            events: telemetry::counter(
                "staffetta_feedback_export_events_total",
                "Events that were written into files.",
            ),
            failures: telemetry::counter(
                "staffetta_feedback_export_failures_total",
                "Attempts at writing events into files that failed: the disk is full, or the folder can't be written.",
            ),
            failing: telemetry::gauge(
                "staffetta_feedback_export_failing",
                "1 while events can't be written into files; nothing is lost as long as the journals are kept.",
            ),
        }
    }
}

/// Lines of one record.
struct Item {
    source: Source,
    /// The last record that is in the lines, or before.
    sequence: u64,
    events: u64,
    lines: Vec<u8>,
}

/// Writes until shutdown.
pub(crate) async fn run(stores: Stores, partitions: u32, settings: Export, shutdown: Shutdown) {
    let metrics = Metrics::new();
    while !shutdown.is_requested() {
        let opened = {
            let settings = settings.clone();
            on_disk(move || Folder::open(settings, now_ms())).await
        };
        match opened {
            Ok((folder, places)) => {
                metrics.failing.set(0);
                tracing::info!(folder = %settings.folder.display(), "writing events into files");
                write(&stores, partitions, folder, places, &metrics, &shutdown).await;
            }
            Err(error) => {
                metrics.failures.inc();
                metrics.failing.set(1);
                tracing::error!(folder = %settings.folder.display(), %error, "events can't be written into files yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.requested() => return,
        }
    }
}

/// Until shutdown.
async fn write(
    stores: &Stores,
    partitions: u32,
    mut folder: Folder,
    mut places: Places,
    metrics: &Metrics,
    shutdown: &Shutdown,
) {
    let (sender, mut items) = mpsc::channel(WAITING);
    let mut tasks = JoinSet::new();
    let shared = Arc::new(Shared::among(partitions as usize + 1));
    let journals = (0..partitions).map(|partition| Source::Journal(PartitionId(partition)));
    for source in journals.chain([Source::Told]) {
        let feed = Arc::new(Feed::new(source, stores.clone(), Arc::clone(&shared)));
        let place = match (feed.bounds().await, places.get(&source.to_string())) {
            // A stream that was restored from a backup, or made anew.
            (Ok((first, last)), place) if place > last => first - 1,
            (Ok(_), place) => place,
            (Err(error), _) => {
                tracing::warn!(%source, %error, "events can't be read yet");
                return;
            }
        };
        let cursor = Cursor::after(Arc::clone(&feed), place);
        let follow_until = shutdown.child();
        tasks.spawn(async move { feed.run(place + 1, follow_until).await });
        tasks.spawn(read(cursor, sender.clone(), shutdown.child()));
    }
    drop(sender);
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            () = shutdown.requested() => break,
            read = items.recv_many(&mut batch, 1) => if read == 0 { break },
            () = tokio::time::sleep(LINGER) => {}
        }
        if !batch.is_empty() {
            collect(&mut items, &mut batch).await;
        }
        let is_empty = batch.is_empty();
        let (mut lines, mut events) = (Vec::new(), 0);
        for item in batch {
            lines.extend_from_slice(&item.lines);
            places.set(item.source.to_string(), item.sequence);
            events += item.events;
        }
        // Until it is written: what waits behind it waits in the streams.
        let mut text = (!is_empty).then(|| Bytes::from(lines));
        loop {
            let (lines, at) = (text.clone(), places.clone());
            let written = on_disk(move || {
                let written = match lines {
                    Some(lines) => folder.append(&lines, &at, now_ms()).inspect_err(|_| {
                        // The disk may be full: the next attempt has the room that is ours to make.
                        if let Err(error) = folder.make_room(now_ms()) {
                            tracing::warn!(%error, "old files of events can't be removed");
                        }
                    }),
                    None => folder.maintain(&at, now_ms()),
                };
                Ok((folder, written))
            });
            let Ok((back, written)) = written.await else {
                return;
            };
            folder = back;
            match (written, text.take()) {
                (Ok(()), None) => break,
                (Ok(()), Some(_)) => metrics.events.inc_by(events),
                (Err(error), None) => {
                    metrics.failures.inc();
                    tracing::error!(%error, "files of events can't be finished, compressed or removed yet");
                    break;
                }
                (Err(error), unwritten) => {
                    metrics.failures.inc();
                    metrics.failing.set(1);
                    tracing::error!(%error, "events can't be written into files; they wait");
                    text = unwritten;
                    tokio::select! {
                        () = tokio::time::sleep(RETRY) => {}
                        () = shutdown.requested() => return,
                    }
                }
            }
        }
        metrics.failing.set(0);
    }
}

/// Waits a moment for more.
async fn collect(items: &mut mpsc::Receiver<Item>, batch: &mut Vec<Item>) {
    let until = tokio::time::Instant::now() + LINGER;
    let mut octets = 0;
    while octets < MOST_OCTETS {
        match tokio::time::timeout_at(until, items.recv()).await {
            Ok(Some(item)) => {
                octets += item.lines.len();
                batch.push(item);
            }
            _ => return,
        }
    }
}

async fn read(mut cursor: Cursor, items: mpsc::Sender<Item>, shutdown: Shutdown) {
    let source = cursor.source();
    loop {
        let taken = tokio::select! {
            taken = cursor.next() => taken,
            () = shutdown.requested() => return,
        };
        let (sequence, lines, events) = match taken {
            Taken::Record(record) => {
                let mut lines = Vec::new();
                for piece in &record.pieces {
                    lines.extend_from_slice(&piece.json);
                    lines.push(b'\n');
                }
                (record.sequence, lines, record.pieces.len() as u64)
            }
            Taken::Missing(from, to) => {
                tracing::error!(%source, from, to, "records of events were removed before they were written into files");
                let gap = match source {
                    Source::Journal(partition) => {
                        json!({ "type": "gap", "partition": partition.0, "from": from, "to": to })
                    }
                    Source::Told => {
                        json!({ "type": "gap", "stream": "EVENTS", "from": from, "to": to })
                    }
                };
                (to, format!("{gap}\n").into_bytes(), 0)
            }
        };
        let item = Item {
            source,
            sequence,
            events,
            lines,
        };
        if items.send(item).await.is_err() {
            return;
        }
    }
}

/// Runs what waits for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(std::io::Error::other)?
}
