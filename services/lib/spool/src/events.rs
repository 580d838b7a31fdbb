//! The stream `EVENTS`: what others than the owner of a partition have to say. History, of which nothing depends: it is
//! written behind the back of what it tells of, in packs, and what does not get through is counted and gone.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message as _;
use proto::event::{Event, Record};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::consume::{Consumption, Delivered};
use crate::link::{Link, PublishFailure};
use crate::{Error, layout};

/// Format of the records that this release writes.
pub const EVENT_FORMAT: u32 = 1;

/// Events that wait for their record; more are dropped.
const QUEUE: usize = 4_096;
/// What one record holds at most: events, and octets of them.
const MOST_EVENTS: usize = 256;
const MOST_OCTETS: usize = 48 << 10;
/// The first event of a record waits so long for others.
const LINGER: Duration = Duration::from_millis(200);
/// A record is tried so long; JetStream knows its id for twice the time.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
/// How often the same trouble is logged.
const REMIND: Duration = Duration::from_secs(60);
/// How long the last events may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What became of the events so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventStats {
    /// They are stored.
    pub stored: u64,
    /// There was no room to wait in.
    pub crowded_out: u64,
    /// No record of them could be stored in time.
    pub given_up: u64,
}

#[derive(Debug, Default)]
struct Counters {
    stored: AtomicU64,
    crowded_out: AtomicU64,
    given_up: AtomicU64,
}

/// Writes events of one service. A cheap clone; never waits.
#[derive(Debug, Clone)]
pub struct EventWriter {
    queue: mpsc::Sender<Item>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Item {
    Event(Box<Event>),
    /// Answered when everything before it is stored or given up.
    Flush(oneshot::Sender<()>),
}

impl EventWriter {
    /// For a service, whose name is part of the subject. The task ends with the last clone.
    pub(crate) fn start(link: Link, service: &'static str) -> Self {
        let (queue, items) = mpsc::channel(QUEUE);
        let counters = Arc::new(Counters::default());
        let packing = Packing {
            link,
            service,
            items,
            counters: Arc::clone(&counters),
            told_at: None,
        };
        tokio::spawn(packing.run());
        Self { queue, counters }
    }

    /// Tells an event; `false` when there is no room and it is dropped.
    pub fn tell(&self, event: Event) -> bool {
        let sent = self.queue.try_send(Item::Event(Box::new(event))).is_ok();
        if !sent {
            self.counters.crowded_out.fetch_add(1, Relaxed);
        }
        sent
    }

    /// Waits until what was told so far is stored, at most two seconds: for the end of a process.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.queue.send(Item::Flush(done)).await.is_ok() {
                // The task has ended when this fails: there is nothing to wait for.
                flushed.await.ok();
            }
        };
        if tokio::time::timeout(LAST_WORDS, flush).await.is_err() {
            tracing::warn!("the last events could not be stored");
        }
    }

    /// What became of them.
    pub fn stats(&self) -> EventStats {
        EventStats {
            stored: self.counters.stored.load(Relaxed),
            crowded_out: self.counters.crowded_out.load(Relaxed),
            given_up: self.counters.given_up.load(Relaxed),
        }
    }
}

struct Packing {
    link: Link,
    service: &'static str,
    items: mpsc::Receiver<Item>,
    counters: Arc<Counters>,
    told_at: Option<Instant>,
}

impl Packing {
    async fn run(mut self) {
        let mut waiting = Vec::with_capacity(MOST_EVENTS);
        while self.items.recv_many(&mut waiting, 1).await > 0 {
            if !matches!(waiting.first(), Some(Item::Flush(_))) {
                tokio::time::sleep(LINGER).await;
            }
            self.take_waiting(&mut waiting);
            let (mut events, mut flushes) = (VecDeque::new(), Vec::new());
            for item in waiting.drain(..) {
                match item {
                    Item::Event(event) => events.push_back(*event),
                    Item::Flush(done) => flushes.push(done),
                }
            }
            while !events.is_empty() {
                let pack = pack(&mut events);
                self.store(pack).await;
            }
            for done in flushes {
                // Nobody waits any more when it fails.
                done.send(()).ok();
            }
        }
    }

    fn take_waiting(&mut self, waiting: &mut Vec<Item>) {
        while waiting.len() < MOST_EVENTS {
            match self.items.try_recv() {
                Ok(item) => waiting.push(item),
                Err(_) => return,
            }
        }
    }

    /// Until it is stored, or has taken too long.
    async fn store(&mut self, events: Vec<Event>) {
        let begun = Instant::now();
        let count = events.len() as u64;
        let id = Uuid::now_v7();
        let record = record_of(id, self.service, events);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id.to_string());
            let subject = layout::events_subject(self.service);
            let stored = self
                .link
                .publish_connected(subject, headers, record.clone());
            match stored.await {
                Ok(_) => {
                    self.counters.stored.fetch_add(count, Relaxed);
                    return;
                }
                Err(failure) if begun.elapsed() >= PATIENCE => {
                    self.counters.given_up.fetch_add(count, Relaxed);
                    self.tell(&failure);
                    return;
                }
                Err(failure) => self.tell(&failure),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn tell(&mut self, failure: &PublishFailure) {
        if self.told_at.is_some_and(|at| at.elapsed() < REMIND) {
            return;
        }
        self.told_at = Some(Instant::now());
        match failure {
            PublishFailure::NoStream => tracing::error!(
                "there is no stream EVENTS (or it has no leader): events wait, and are dropped after \
                 five minutes; mail goes on. `staffetta init` creates it and touches nothing else"
            ),
            other => tracing::warn!(reason = other.detail(), "events can't be stored yet"),
        }
    }
}

/// As many as a record holds; at least one.
fn pack(events: &mut VecDeque<Event>) -> Vec<Event> {
    let (mut pack, mut octets) = (Vec::new(), 0);
    while let Some(event) = events.front() {
        octets += event.encoded_len();
        if !pack.is_empty() && (octets > MOST_OCTETS || pack.len() >= MOST_EVENTS) {
            break;
        }
        pack.extend(events.pop_front());
    }
    pack
}

fn record_of(id: Uuid, service: &str, events: Vec<Event>) -> Bytes {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
    let record = Record {
        format: EVENT_FORMAT,
        id: Bytes::copy_from_slice(id.as_bytes()),
        written_at_ms: now_ms,
        service: service.to_owned(),
        events,
    };
    Bytes::from(record.encode_to_vec())
}

/// A record of `EVENTS` that this release can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventsUnreadable {
    /// It is no record.
    #[error("it is no record of events: {0}")]
    Malformed(String),
    /// Of a later release.
    #[error("it has format {0}, this release reads format {EVENT_FORMAT}")]
    Format(u32),
}

/// Reads a record.
pub fn decode_events(bytes: &[u8]) -> Result<Record, EventsUnreadable> {
    let record =
        Record::decode(bytes).map_err(|error| EventsUnreadable::Malformed(error.to_string()))?;
    match record.format {
        EVENT_FORMAT => Ok(record),
        other => Err(EventsUnreadable::Format(other)),
    }
}

/// A record of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvents {
    /// Its place in the stream.
    pub sequence: u64,
    /// `staffetta.event.v1.Record`.
    pub bytes: Bytes,
}

/// Reads the stream. A cheap clone.
#[derive(Debug, Clone)]
pub struct EventStore {
    control: Link,
    bulk: Link,
}

impl EventStore {
    pub(crate) fn new(control: Link, bulk: Link) -> Self {
        Self { control, bulk }
    }

    /// Stores events at once, for who writes few: an operator's doings.
    pub async fn store(&self, service: &str, events: Vec<Event>) -> Result<(), Error> {
        let id = Uuid::now_v7();
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id.to_string());
        let record = record_of(id, service, events);
        let subject = layout::events_subject(service);
        let stored = self.control.publish_connected(subject, headers, record);
        stored
            .await
            .map(drop)
            .map_err(|failure| failure.into_error("storing an event"))
    }

    /// First and last sequence; the first is `last + 1` when nothing is kept. [`Error::MissingStream`] in an installation
    /// that has no such stream.
    pub async fn bounds(&self) -> Result<(u64, u64), Error> {
        let state = self.control.stream_state(layout::EVENTS).await?.state;
        Ok((state.first_sequence.max(1), state.last_sequence))
    }

    /// Reads the records from a sequence on: to the end as it is when that is reached, or, when it follows, those to come as
    /// well. What was discarded is passed over. Dropping it ends it.
    pub fn read(&self, from: u64, follow: bool) -> EventReader {
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::EVENTS.to_owned(),
            "events.>".to_owned(),
            from.max(1) - 1,
        );
        let (sender, records) = mpsc::channel(64);
        let task = tokio::spawn(read(consumption, follow, sender));
        EventReader { records, task }
    }
}

async fn read(
    mut consumption: Consumption,
    follow: bool,
    sender: mpsc::Sender<Result<StoredEvents, Error>>,
) {
    loop {
        let item = match consumption.next().await {
            Delivered::Message(record) => Ok(StoredEvents {
                sequence: record.sequence,
                bytes: record.payload,
            }),
            Delivered::CaughtUp if !follow => return,
            Delivered::CaughtUp | Delivered::Restarted => continue,
            Delivered::Failed(error) => Err(error),
        };
        if sender.send(item).await.is_err() {
            return;
        }
    }
}

/// Gives records in order.
#[derive(Debug)]
pub struct EventReader {
    records: mpsc::Receiver<Result<StoredEvents, Error>>,
    task: tokio::task::JoinHandle<()>,
}

impl EventReader {
    /// The next record; `None` at the end. Safe to cancel. After an error it goes on.
    pub async fn next(&mut self) -> Option<Result<StoredEvents, Error>> {
        self.records.recv().await
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_holds_no_more_than_it_may() {
        let event = |length: usize| Event {
            tenant: "t".repeat(length),
            ..Event::default()
        };
        let packs = |events: Vec<Event>| {
            let mut events: VecDeque<Event> = events.into();
            std::iter::from_fn(|| (!events.is_empty()).then(|| pack(&mut events).len())).collect()
        };
        let many: Vec<usize> = packs(vec![event(1); 600]);
        assert_eq!(many, [256, 256, 88]);
        let large: Vec<usize> = packs(vec![event(20_000); 5]);
        assert_eq!(large, [2, 2, 1]);
        let too_large: Vec<usize> = packs(vec![event(100_000); 2]);
        assert_eq!(too_large, [1, 1]);
    }
}
