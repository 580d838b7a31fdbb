//! Histories: streams of which nothing depends. What is written into one goes behind the back of what it tells of, in packs,
//! and what does not get through is counted and gone.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::Error;
use crate::consume::{Consumption, Delivered};
use crate::link::{Link, PublishFailure};

/// A record is tried so long; JetStream knows its id for twice the time.
const PATIENCE: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(1);
/// How often the same trouble is logged.
const REMIND: Duration = Duration::from_secs(60);
/// How long the last of it may take when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What is told, many to a record.
pub trait Told: Message + Send + 'static {
    /// The stream.
    const STREAM: &'static str;
    /// What several of it are called.
    const NAME: &'static str;
    /// So many wait for their record; more are dropped.
    const QUEUE: usize;
    /// What one record holds at most, but at least one; and octets of it.
    const MOST: usize;
    /// See [`Told::MOST`].
    const MOST_OCTETS: usize;
    /// The first of a record waits so long for others.
    const LINGER: Duration;

    /// Where a service writes.
    fn subject(service: &str) -> String;

    /// The record of several.
    fn record(told: Vec<Self>, id: Bytes, written_at_ms: u64, service: &str) -> Bytes
    where
        Self: Sized;
}

/// What became of it so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PackStats {
    /// It is stored.
    pub stored: u64,
    /// There was no room to wait in.
    pub crowded_out: u64,
    /// No record of it could be stored in time.
    pub given_up: u64,
}

/// Octets that may wait at a writer, whatever their number.
const MOST_WAITING: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct Counters {
    /// Octets that wait.
    waiting: AtomicUsize,
    stored: AtomicU64,
    crowded_out: AtomicU64,
    given_up: AtomicU64,
}

/// Writes what one service tells. A cheap clone; never waits.
pub struct PackWriter<T> {
    queue: mpsc::Sender<Item<T>>,
    counters: Arc<Counters>,
}

impl<T> Clone for PackWriter<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            counters: Arc::clone(&self.counters),
        }
    }
}

impl<T> fmt::Debug for PackWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackWriter")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

enum Item<T> {
    Told(Box<T>),
    /// Answered when everything before it is stored or given up.
    Flush(oneshot::Sender<()>),
}

impl<T: Told> PackWriter<T> {
    /// For a service, whose name is part of the subject. The task ends with the last clone.
    pub(crate) fn start(link: Link, service: &'static str) -> Self {
        let (queue, items) = mpsc::channel(T::QUEUE);
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

    /// Tells something; `false` when there is no room and it is dropped.
    pub fn tell(&self, told: T) -> bool {
        let octets = told.encoded_len();
        let waiting = self.counters.waiting.fetch_add(octets, Relaxed) + octets;
        let sent =
            waiting <= MOST_WAITING && self.queue.try_send(Item::Told(Box::new(told))).is_ok();
        if !sent {
            self.counters.waiting.fetch_sub(octets, Relaxed);
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
            tracing::warn!("the last {} could not be stored", T::NAME);
        }
    }

    /// What became of it.
    pub fn stats(&self) -> PackStats {
        PackStats {
            stored: self.counters.stored.load(Relaxed),
            crowded_out: self.counters.crowded_out.load(Relaxed),
            given_up: self.counters.given_up.load(Relaxed),
        }
    }
}

struct Packing<T> {
    link: Link,
    service: &'static str,
    items: mpsc::Receiver<Item<T>>,
    counters: Arc<Counters>,
    told_at: Option<Instant>,
}

impl<T: Told> Packing<T> {
    async fn run(mut self) {
        let mut waiting = Vec::with_capacity(T::MOST);
        while self.items.recv_many(&mut waiting, 1).await > 0 {
            if !matches!(waiting.first(), Some(Item::Flush(_))) {
                tokio::time::sleep(T::LINGER).await;
            }
            self.take_waiting(&mut waiting);
            let (mut told, mut flushes) = (VecDeque::new(), Vec::new());
            for item in waiting.drain(..) {
                match item {
                    Item::Told(one) => told.push_back(*one),
                    Item::Flush(done) => flushes.push(done),
                }
            }
            while !told.is_empty() {
                let pack = pack(&mut told);
                let octets: usize = pack.iter().map(T::encoded_len).sum();
                self.store(pack).await;
                self.counters.waiting.fetch_sub(octets, Relaxed);
            }
            for done in flushes {
                // Nobody waits any more when it fails.
                done.send(()).ok();
            }
        }
    }

    fn take_waiting(&mut self, waiting: &mut Vec<Item<T>>) {
        while waiting.len() < T::MOST {
            match self.items.try_recv() {
                Ok(item) => waiting.push(item),
                Err(_) => return,
            }
        }
    }

    /// Until it is stored, or has taken too long.
    async fn store(&mut self, told: Vec<T>) {
        let begun = Instant::now();
        let count = told.len() as u64;
        let id = Uuid::now_v7();
        let record = record_of(id, self.service, told);
        loop {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id.to_string());
            let subject = T::subject(self.service);
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
                "there is no stream {} (or it has no leader): {} wait, and are dropped after \
                 five minutes; mail goes on. `staffetta init` creates it and touches nothing else",
                T::STREAM,
                T::NAME
            ),
            other => {
                tracing::warn!(reason = other.detail(), "{} can't be stored yet", T::NAME);
            }
        }
    }
}

/// As many as a record holds; at least one.
fn pack<T: Told>(told: &mut VecDeque<T>) -> Vec<T> {
    let (mut pack, mut octets) = (Vec::new(), 0);
    while let Some(one) = told.front() {
        octets += one.encoded_len();
        if !pack.is_empty() && (octets > T::MOST_OCTETS || pack.len() >= T::MOST) {
            break;
        }
        pack.extend(told.pop_front());
    }
    pack
}

/// The record of several, written now.
pub(crate) fn record_of<T: Told>(id: Uuid, service: &str, told: Vec<T>) -> Bytes {
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
    T::record(told, Bytes::copy_from_slice(id.as_bytes()), now_ms, service)
}

/// A record that this release can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackUnreadable {
    /// It is no record.
    #[error("it is no record: {0}")]
    Malformed(String),
    /// Of a later release.
    #[error("it has format {found}, this release reads format {known}")]
    Format {
        /// Of the record.
        found: u32,
        /// Of this release.
        known: u32,
    },
}

/// A record of such a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPack {
    /// Its place in the stream.
    pub sequence: u64,
    /// The record.
    pub bytes: Bytes,
}

/// Gives records in order.
#[derive(Debug)]
pub struct PackReader {
    records: mpsc::Receiver<Result<StoredPack, Error>>,
    task: tokio::task::JoinHandle<()>,
}

impl PackReader {
    /// To the end as it is when that is reached, or, when it follows, also what is to come.
    pub(crate) fn start(consumption: Consumption, follow: bool) -> Self {
        Self::start_ahead(consumption, follow, 64)
    }

    /// As [`PackReader::start`]; so many records are read ahead.
    pub(crate) fn start_ahead(consumption: Consumption, follow: bool, ahead: usize) -> Self {
        let (sender, records) = mpsc::channel(ahead);
        let task = tokio::spawn(read(consumption, follow, sender));
        Self { records, task }
    }

    /// The next record; `None` at the end. Safe to cancel. After an error it goes on.
    pub async fn next(&mut self) -> Option<Result<StoredPack, Error>> {
        self.records.recv().await
    }
}

impl Drop for PackReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(
    mut consumption: Consumption,
    follow: bool,
    sender: mpsc::Sender<Result<StoredPack, Error>>,
) {
    loop {
        let item = match consumption.next().await {
            Delivered::Message(record) => Ok(StoredPack {
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

#[cfg(test)]
mod tests {
    use proto::event::Event;

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
