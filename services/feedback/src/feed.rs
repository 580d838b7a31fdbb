//! The events of one source, read once for all that want them: what is new is kept in a window, and who is behind reads for
//! itself until it is there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mail::PartitionId;
use runtime::Shutdown;
use serde_json::Value;
use spool::{JournalError, Stores};
use tokio::sync::{Semaphore, watch};

use crate::events;

/// Records that a window holds at most.
const MOST_RECORDS: usize = 4_096;
/// Octets of the events in all windows together, and in one at least and at most.
const ALL_WINDOWS: usize = 64 << 20;
const SMALLEST_WINDOW: usize = 1 << 20;
const LARGEST_WINDOW: usize = 16 << 20;
/// Octets of what all that are behind have read ahead: beyond it each reads one record at a time.
const MOST_AHEAD: usize = 64 << 20;
/// Records that one that is behind reads at a time, and octets of their events.
const CHUNK: u64 = 256;
const CHUNK_OCTETS: usize = 1 << 20;
/// How many that are behind read at once, in all sources.
const READERS: usize = 8;
/// Between two attempts at a stream that can't be read.
const RETRY: Duration = Duration::from_secs(1);
/// Between two attempts at a record that can't be read: it is never skipped.
const RETRY_DAMAGED: Duration = Duration::from_secs(60);

/// Where events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The journal of a partition.
    Journal(PartitionId),
    /// The stream `EVENTS`.
    Told,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal(partition) => write!(f, "{partition}"),
            Self::Told => f.write_str("events"),
        }
    }
}

/// An event, as it is posted, and what it is chosen by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) json: Bytes,
    pub(crate) kind: Box<str>,
    /// Empty where there is none.
    pub(crate) tenant: Box<str>,
    /// Empty where there is none.
    pub(crate) stream: Box<str>,
    /// The webhook that it is about; empty where there is none.
    pub(crate) webhook: Box<str>,
}

impl Piece {
    pub(crate) fn of(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().unwrap_or_default().into();
        Self {
            json: Bytes::from(event.to_string()),
            kind: text("type"),
            tenant: text("tenant"),
            stream: text("stream"),
            webhook: text("webhook"),
        }
    }
}

/// The events of one record.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) sequence: u64,
    /// Unix milliseconds.
    pub(crate) written_at_ms: u64,
    pub(crate) pieces: Vec<Piece>,
}

impl Parsed {
    fn octets(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.json.len() + 128);
        pieces.sum::<usize>() + 64
    }
}

/// The first sequence and the last; the first is the last + 1 when nothing is kept.
pub(crate) type Bounds = (u64, u64);

#[derive(Debug, Default)]
struct Window {
    records: VecDeque<Arc<Parsed>>,
    octets: usize,
    /// What comes next; 0 = it is not known yet.
    next: u64,
}

enum Found {
    Record(Arc<Parsed>),
    /// It is older than the window.
    Older,
    /// There is nothing newer.
    None,
}

/// What all sources share.
#[derive(Debug)]
pub(crate) struct Shared {
    readers: Semaphore,
    /// Octets that were read ahead.
    ahead: AtomicUsize,
    /// Octets of each window.
    window: usize,
}

impl Shared {
    /// For so many sources.
    pub(crate) fn among(sources: usize) -> Self {
        let window = ALL_WINDOWS / sources.max(1);
        Self {
            readers: Semaphore::new(READERS),
            ahead: AtomicUsize::new(0),
            window: window.clamp(SMALLEST_WINDOW, LARGEST_WINDOW),
        }
    }

    /// Octets that one that is behind may read at a time; at least one record.
    fn chunk(&self) -> usize {
        match self.ahead.load(Relaxed) >= MOST_AHEAD {
            true => 1,
            false => CHUNK_OCTETS,
        }
    }
}

/// One source.
pub(crate) struct Feed {
    pub(crate) source: Source,
    stores: Stores,
    window: Mutex<Window>,
    /// Sequence of the newest record in the window.
    newest: watch::Sender<u64>,
    shared: Arc<Shared>,
}

/// Why a record can't be had now.
enum Trouble {
    Unavailable,
    Unreadable,
    /// Records are gone; the first that is there.
    Gap(u64),
}

impl Feed {
    pub(crate) fn new(source: Source, stores: Stores, shared: Arc<Shared>) -> Self {
        Self {
            source,
            stores,
            window: Mutex::default(),
            newest: watch::Sender::new(0),
            shared,
        }
    }

    /// First and last sequence of the source now.
    pub(crate) async fn bounds(&self) -> Result<Bounds, spool::Error> {
        match self.source {
            Source::Journal(partition) => {
                let info = self.stores.journal(partition).info().await?;
                Ok((info.first, info.last))
            }
            Source::Told => self.stores.events().bounds().await,
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, next: u64) -> Found {
        let window = self.window();
        if window.next == 0 || next >= window.next {
            return Found::None;
        }
        match window.records.front() {
            Some(first) if first.sequence <= next => {
                let at = window
                    .records
                    .partition_point(|record| record.sequence < next);
                match window.records.get(at) {
                    Some(record) => Found::Record(Arc::clone(record)),
                    None => Found::None,
                }
            }
            _ => Found::Older,
        }
    }

    fn push(&self, parsed: Parsed) {
        let sequence = parsed.sequence;
        {
            let mut window = self.window();
            window.octets += parsed.octets();
            window.next = sequence + 1;
            window.records.push_back(Arc::new(parsed));
            while window.records.len() > MOST_RECORDS
                || window.octets > self.shared.window && window.records.len() > 1
            {
                let oldest = window.records.pop_front();
                window.octets -= oldest.map_or(0, |oldest| oldest.octets());
            }
        }
        self.newest.send_replace(sequence);
    }

    /// Reads what is new from a sequence on, until shutdown.
    pub(crate) async fn run(&self, from: u64, shutdown: Shutdown) {
        let mut next = from.max(1);
        self.window().next = next;
        while !shutdown.is_requested() {
            let trouble = tokio::select! {
                trouble = self.follow(&mut next) => trouble,
                () = shutdown.requested() => return,
            };
            let pause = match trouble {
                Trouble::Gap(first) => {
                    // Whoever reads it for itself tells what is missing.
                    next = first;
                    let mut window = self.window();
                    *window = Window {
                        next,
                        ..Window::default()
                    };
                    RETRY
                }
                Trouble::Unavailable => RETRY,
                Trouble::Unreadable => RETRY_DAMAGED,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => return,
            }
        }
    }

    async fn follow(&self, next: &mut u64) -> Trouble {
        match self.source {
            Source::Journal(partition) => {
                let mut reader = self.stores.journal(partition).follow(*next);
                loop {
                    match self.journal_record(reader.next().await) {
                        Ok(Some(parsed)) => {
                            *next = parsed.sequence + 1;
                            self.push(parsed);
                        }
                        Ok(None) | Err(Trouble::Unavailable) => return Trouble::Unavailable,
                        Err(trouble) => return trouble,
                    }
                }
            }
            Source::Told => {
                let mut reader = self.stores.events().read(*next, true);
                loop {
                    match self.told_record(reader.next().await) {
                        Ok(Some(parsed)) => {
                            *next = parsed.sequence + 1;
                            self.push(parsed);
                        }
                        Ok(None) | Err(Trouble::Unavailable) => return Trouble::Unavailable,
                        Err(trouble) => return trouble,
                    }
                }
            }
        }
    }

    fn journal_record(
        &self,
        read: Option<Result<spool::JournalRecord, JournalError>>,
    ) -> Result<Option<Parsed>, Trouble> {
        let (Source::Journal(partition), Some(read)) = (self.source, read) else {
            return Ok(None);
        };
        let record = match read {
            Ok(record) => record,
            Err(JournalError::Unavailable(error)) => {
                tracing::warn!(source = %self.source, %error, "events can't be read at the moment");
                return Err(Trouble::Unavailable);
            }
            Err(JournalError::Gap {
                found: Some(first), ..
            }) => return Err(Trouble::Gap(first)),
            Err(error) => {
                tracing::error!(source = %self.source, %error, "events can't be read");
                return Err(Trouble::Unreadable);
            }
        };
        match journal::decode(&record.bytes) {
            Ok(decoded) => Ok(Some(Parsed {
                sequence: record.sequence,
                written_at_ms: decoded.written_at_ms,
                pieces: events::events(partition, record.sequence, &decoded)
                    .iter()
                    .map(Piece::of)
                    .collect(),
            })),
            Err(error) => {
                tracing::error!(source = %self.source, sequence = record.sequence, %error, "waiting: a record can't be read");
                Err(Trouble::Unreadable)
            }
        }
    }

    fn told_record(
        &self,
        read: Option<Result<spool::StoredPack, spool::Error>>,
    ) -> Result<Option<Parsed>, Trouble> {
        let pack = match read {
            None => return Ok(None),
            Some(Ok(pack)) => pack,
            Some(Err(error)) => {
                tracing::warn!(source = %self.source, %error, "events can't be read at the moment");
                return Err(Trouble::Unavailable);
            }
        };
        match spool::decode_events(&pack.bytes) {
            Ok(record) => Ok(Some(Parsed {
                sequence: pack.sequence,
                written_at_ms: record.written_at_ms,
                pieces: events::told(pack.sequence, &record)
                    .iter()
                    .map(Piece::of)
                    .collect(),
            })),
            Err(error) => {
                tracing::error!(source = %self.source, sequence = pack.sequence, %error, "waiting: a record can't be read");
                Err(Trouble::Unreadable)
            }
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        while self.take_ahead().is_some() {}
    }
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Taken {
    Record(Arc<Parsed>),
    /// These records were removed before they were read: from and to.
    Missing(u64, u64),
}

/// The place of one reader.
#[derive(Debug)]
pub(crate) struct Cursor {
    feed: Arc<Feed>,
    next: u64,
    ahead: VecDeque<Arc<Parsed>>,
}

impl Cursor {
    /// After a sequence.
    pub(crate) fn after(feed: Arc<Feed>, sequence: u64) -> Self {
        Self {
            feed,
            next: sequence + 1,
            ahead: VecDeque::new(),
        }
    }

    pub(crate) fn source(&self) -> Source {
        self.feed.source
    }

    /// Holds nothing in memory that was read ahead: it is read again when it is wanted.
    pub(crate) fn forget(&mut self) {
        if let Some(first) = self.ahead.front() {
            self.next = first.sequence;
        }
        while self.take_ahead().is_some() {}
        self.ahead = VecDeque::new();
    }

    fn push_ahead(&mut self, record: Parsed) {
        self.feed.shared.ahead.fetch_add(record.octets(), Relaxed);
        self.ahead.push_back(Arc::new(record));
    }

    fn take_ahead(&mut self) -> Option<Arc<Parsed>> {
        let record = self.ahead.pop_front()?;
        self.feed.shared.ahead.fetch_sub(record.octets(), Relaxed);
        Some(record)
    }

    /// Waits for the next record. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Taken {
        let mut newest = self.feed.newest.subscribe();
        loop {
            newest.mark_unchanged();
            let found = match self.take_ahead() {
                Some(record) => Found::Record(record),
                None => self.feed.find(self.next),
            };
            match found {
                Found::Record(record) if record.sequence > self.next => {
                    let missing = Taken::Missing(self.next, record.sequence - 1);
                    self.next = record.sequence;
                    self.feed.shared.ahead.fetch_add(record.octets(), Relaxed);
                    self.ahead.push_front(record);
                    return missing;
                }
                Found::Record(record) => {
                    self.next = record.sequence + 1;
                    return Taken::Record(record);
                }
                Found::Older => {
                    if let Err(trouble) = self.catch_up().await
                        && self.ahead.is_empty()
                    {
                        if let Trouble::Gap(first) = trouble
                            && first > self.next
                        {
                            let missing = Taken::Missing(self.next, first - 1);
                            self.next = first;
                            return missing;
                        }
                        let pause = match trouble {
                            Trouble::Unreadable => RETRY_DAMAGED,
                            _ => RETRY,
                        };
                        tokio::time::sleep(pause).await;
                    }
                }
                // The feed lives as long as its readers.
                Found::None => drop(newest.changed().await),
            }
        }
    }

    /// Reads some records that are older than the window.
    async fn catch_up(&mut self) -> Result<(), Trouble> {
        let feed = Arc::clone(&self.feed);
        // The semaphore is never closed.
        let _permit = feed.shared.readers.acquire().await;
        let end = {
            let window = feed.window();
            let first = window.records.front();
            first.map_or(window.next, |first| first.sequence)
        };
        let to = (self.next + CHUNK).min(end).saturating_sub(1);
        if to < self.next {
            return Ok(());
        }
        let (mut octets, most) = (0, feed.shared.chunk());
        match feed.source {
            Source::Journal(partition) => {
                let mut reader = feed.stores.journal(partition).replay(self.next, to);
                while octets < most
                    && let Some(parsed) = feed.journal_record(reader.next().await)?
                {
                    octets += parsed.octets();
                    self.push_ahead(parsed);
                }
            }
            Source::Told => {
                let mut reader = feed.stores.events().read(self.next, false);
                while octets < most
                    && let Some(parsed) = feed.told_record(reader.next().await)?
                {
                    octets += parsed.octets();
                    let is_last = parsed.sequence >= to;
                    if parsed.sequence >= end {
                        // It is in the window; what was between is gone.
                        return match self.ahead.is_empty() {
                            true => Err(Trouble::Gap(end)),
                            false => Ok(()),
                        };
                    }
                    self.push_ahead(parsed);
                    if is_last {
                        break;
                    }
                }
            }
        }
        match self.ahead.is_empty() {
            true => Err(Trouble::Unavailable),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_and_what_is_read_ahead_have_one_budget() {
        for (sources, mib) in [(1, 16), (5, 12), (65, 1), (4_097, 1)] {
            assert_eq!(Shared::among(sources).window >> 20, mib, "{sources}");
        }
        let shared = Shared::among(9);
        assert_eq!(shared.chunk(), CHUNK_OCTETS);
        shared.ahead.store(MOST_AHEAD, Relaxed);
        assert_eq!(shared.chunk(), 1);
    }
}
