//! The journal of a partition: an ordered log that one owner at a time appends to.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use mail::PartitionId;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use crate::consume::{Consumption, Delivered, Record};
use crate::link::{Link, PublishFailure, WRONG_LAST_SEQUENCE, expect_last_sequence, unix_ms};
use crate::packs::PackReader;
use crate::{Error, layout};

/// CRC-32C of the record, eight hexadecimal digits.
const CRC_HEADER: &str = "Staffetta-Crc";

/// How long the replica that is read may take to have what its leader has.
const REPLICA_PATIENCE: Duration = Duration::from_secs(3);

/// Records read ahead of the reader.
const READ_AHEAD: usize = 64;

/// What an append came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Append {
    /// Stored with this sequence, now or by an earlier attempt with the same id.
    Stored(u64),
    /// Not stored: the journal does not end where the writer thinks. Somebody else may own it.
    WrongLastSequence {
        /// What was expected.
        expected: u64,
        /// JetStream's answer, which names the real one.
        detail: String,
    },
    /// Not stored: there is no room.
    Full,
    /// Stored or not: append the same record with the same id and expectation again.
    Unknown(String),
}

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// Its place in the log.
    pub sequence: u64,
    /// The id it was appended with.
    pub message_id: String,
    /// What was appended.
    pub bytes: Bytes,
}

/// Where a journal begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalInfo {
    /// Sequence of the first record kept; `last + 1` when none is.
    pub first: u64,
    /// Sequence of the last record ever appended; 0 = none.
    pub last: u64,
    /// When the first record that is kept was stored, Unix milliseconds; before 1970 and without any: 0.
    pub first_at_ms: u64,
    /// Bytes stored.
    pub bytes: u64,
    /// The bound of `bytes`.
    pub max_bytes: u64,
}

/// The journal can't be read on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A record is not the next one: what is between them was purged, or is lost.
    #[error("record {expected} of the journal is missing (the next one there is: {found:?})")]
    Gap {
        /// The record that should come.
        expected: u64,
        /// The record that came; `None` when the journal ends before.
        found: Option<u64>,
    },
    /// A record does not have the checksum it was appended with.
    #[error("record {0} of the journal is damaged")]
    Damaged(u64),
    /// The stores don't answer. Asking again goes on.
    #[error(transparent)]
    Unavailable(#[from] Error),
}

/// The journal of one partition. A cheap clone.
#[derive(Debug, Clone)]
pub struct JournalStore {
    control: Link,
    bulk: Link,
    partition: PartitionId,
}

impl JournalStore {
    pub(crate) fn new(control: Link, bulk: Link, partition: PartitionId) -> Self {
        Self {
            control,
            bulk,
            partition,
        }
    }

    fn stream(&self) -> String {
        layout::journal_stream(self.partition)
    }

    /// One attempt to append a record, if the journal ends at `expected_last` (0: is empty). `message_id`
    /// makes a repetition harmless within 10 minutes.
    pub async fn append(&self, record: Bytes, message_id: &str, expected_last: u64) -> Append {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        expect_last_sequence(&mut headers, expected_last);
        headers.insert(CRC_HEADER, format!("{:08x}", crc32c::crc32c(&record)));
        match self
            .control
            .publish_connected(layout::journal_subject(self.partition), headers, record)
            .await
        {
            Ok(acknowledgement) => Append::Stored(acknowledgement.sequence),
            Err(PublishFailure::Refused {
                code: WRONG_LAST_SEQUENCE,
                detail,
            }) => self.after_refusal(message_id, expected_last, detail).await,
            Err(failure) if failure.is_full() => Append::Full,
            Err(failure) => Append::Unknown(failure.detail()),
        }
    }

    /// The server looks at the expected sequence before it looks at the id, so that the repetition of an
    /// append that was stored is refused like one of another writer.
    async fn after_refusal(&self, message_id: &str, expected: u64, detail: String) -> Append {
        match self
            .control
            .record_from_leader(&self.stream(), expected + 1)
            .await
        {
            Ok(Some(record)) if has_id(&record, message_id) => Append::Stored(record.sequence),
            Ok(_) => Append::WrongLastSequence { expected, detail },
            Err(error) => Append::Unknown(error.to_string()),
        }
    }

    /// The last record, from the stream's leader; `None` when there is none.
    pub async fn tail(&self) -> Result<Option<JournalRecord>, JournalError> {
        let record = self
            .control
            .last_of(&self.stream(), &layout::journal_subject(self.partition))
            .await?;
        record.map(checked).transpose()
    }

    /// Reads the records `from..=to`, then ends. Fails with `Gap` when one is missing.
    pub fn replay(&self, from: u64, to: u64) -> JournalReader {
        self.read(from, Some(to))
    }

    /// Reads the records from `from` on (at least 1), and then those to come. Fails with `Gap` when one is missing,
    /// which for the first one means that it was purged: begin at [`JournalInfo::first`].
    pub fn follow(&self, from: u64) -> JournalReader {
        self.read(from, None)
    }

    fn read(&self, from: u64, to: Option<u64>) -> JournalReader {
        let from = from.max(1);
        let (sender, records) = mpsc::channel(READ_AHEAD);
        let consumption = Consumption::after(
            self.bulk.clone(),
            self.stream(),
            layout::journal_subject(self.partition),
            from - 1,
        );
        let reading = Reading {
            consumption,
            next: from,
            to,
            short_since: None,
            sender,
        };
        JournalReader {
            records,
            task: tokio::spawn(reading.run()),
        }
    }

    /// Reads the records that were stored at a time (Unix milliseconds) or later, to the end as it is when that is reached.
    /// Nothing says when some are missing or damaged: for who looks for something, and not for who follows.
    ///
    /// # Errors
    /// When there is no such time.
    pub fn since(&self, unix_ms: u64) -> Result<PackReader, Error> {
        let nanos = i128::from(unix_ms) * 1_000_000;
        let start_time =
            async_nats::datetime::from_nanos(nanos).map_err(|error| Error::Unavailable {
                what: "reading a journal from a time on".to_owned(),
                detail: error.to_string(),
            })?;
        let consumption = Consumption::new(
            self.bulk.clone(),
            self.stream(),
            layout::journal_subject(self.partition),
            DeliverPolicy::ByStartTime { start_time },
        );
        Ok(PackReader::start(consumption, false))
    }

    /// Where the journal begins and ends, and how full it is.
    pub async fn info(&self) -> Result<JournalInfo, Error> {
        let info = self.control.stream_state(&self.stream()).await?;
        Ok(JournalInfo {
            first: info.state.first_sequence.max(1),
            last: info.state.last_sequence,
            first_at_ms: unix_ms(info.state.first_timestamp),
            bytes: info.state.bytes,
            max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
        })
    }

    /// Removes the records below a sequence.
    pub async fn purge_below(&self, sequence: u64) -> Result<(), Error> {
        self.control
            .purge(&self.stream(), Some(sequence), None)
            .await
            .map(drop)
    }
}

/// Gives the records of a journal in order. Dropping it ends it.
#[derive(Debug)]
pub struct JournalReader {
    records: mpsc::Receiver<Result<JournalRecord, JournalError>>,
    task: JoinHandle<()>,
}

impl JournalReader {
    /// Waits for the next record; `None` at the end of a replay. Safe to cancel. After `Gap` and
    /// `Damaged` nothing more comes; after `Unavailable` it goes on.
    pub async fn next(&mut self) -> Option<Result<JournalRecord, JournalError>> {
        self.records.recv().await
    }
}

impl Drop for JournalReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reading {
    consumption: Consumption,
    next: u64,
    to: Option<u64>,
    /// Since when everything that there seems to be is delivered, and a replay is not at its end.
    short_since: Option<Instant>,
    sender: mpsc::Sender<Result<JournalRecord, JournalError>>,
}

impl Reading {
    /// `None` when a replay is not at its end and nothing more comes: a replica that is behind gets a while.
    async fn next_delivered(&mut self) -> Option<Delivered> {
        match self.short_since.filter(|_| self.to.is_some()) {
            None => Some(self.consumption.next().await),
            Some(since) => timeout_at((since + REPLICA_PATIENCE).into(), self.consumption.next())
                .await
                .ok(),
        }
    }

    async fn run(mut self) {
        while self.to.is_none_or(|to| self.next <= to) {
            let Some(delivered) = self.next_delivered().await else {
                let gap = JournalError::Gap {
                    expected: self.next,
                    found: None,
                };
                // Nobody waits for it any more when this fails.
                self.sender.send(Err(gap)).await.ok();
                return;
            };
            let item = match delivered {
                Delivered::Message(record) if record.sequence < self.next => continue,
                Delivered::Message(record) if record.sequence > self.next => {
                    Err(JournalError::Gap {
                        expected: self.next,
                        found: Some(record.sequence),
                    })
                }
                Delivered::Message(record) => {
                    self.next += 1;
                    checked(record)
                }
                Delivered::CaughtUp => {
                    self.short_since.get_or_insert_with(Instant::now);
                    continue;
                }
                Delivered::Restarted => continue,
                Delivered::Failed(error) => Err(error.into()),
            };
            let ends = matches!(
                item,
                Err(JournalError::Gap { .. } | JournalError::Damaged(_))
            );
            if self.sender.send(item).await.is_err() || ends {
                return;
            }
        }
    }
}

fn has_id(record: &Record, message_id: &str) -> bool {
    record
        .headers
        .get(NATS_MESSAGE_ID)
        .is_some_and(|id| id.as_str() == message_id)
}

fn checked(record: Record) -> Result<JournalRecord, JournalError> {
    let expected = record
        .headers
        .get(CRC_HEADER)
        .and_then(|crc| u32::from_str_radix(crc.as_str(), 16).ok());
    if expected != Some(crc32c::crc32c(&record.payload)) {
        return Err(JournalError::Damaged(record.sequence));
    }
    let message_id = record
        .headers
        .get(NATS_MESSAGE_ID)
        .map(|id| id.as_str().to_owned())
        .unwrap_or_default();
    Ok(JournalRecord {
        sequence: record.sequence,
        message_id,
        bytes: record.payload,
    })
}
