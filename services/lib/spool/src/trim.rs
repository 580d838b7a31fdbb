//! What only the owner of a partition does: keep its streams short.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mail::PartitionId;
use uuid::Uuid;

use crate::link::Link;
use crate::{Error, Stores, layout};

/// An upload that no block names is deleted so long after its newest chunk.
const ABANDONED_AFTER: Duration = Duration::from_secs(2 * 3600);

/// How full the streams of a partition are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in SPOOL.
    pub spool_bytes: u64,
    /// Its bound.
    pub spool_max_bytes: u64,
    /// Bytes in CHUNKS.
    pub chunks_bytes: u64,
    /// Its bound.
    pub chunks_max_bytes: u64,
    /// Bytes in JOURNAL.
    pub journal_bytes: u64,
    /// Its bound.
    pub journal_max_bytes: u64,
    /// Sequence of the first record kept in SPOOL.
    pub spool_first: u64,
    /// Sequence of the last record ever stored in SPOOL.
    pub spool_last: u64,
}

impl Usage {
    /// Fill of the fuller one of SPOOL and JOURNAL, per cent.
    pub fn percent(&self) -> u32 {
        let percent = |bytes: u64, bound: u64| bytes.saturating_mul(100) / bound.max(1);
        let fullest = percent(self.spool_bytes, self.spool_max_bytes)
            .max(percent(self.journal_bytes, self.journal_max_bytes));
        u32::try_from(fullest).unwrap_or(u32::MAX)
    }
}

/// The chunks of one upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadSummary {
    /// As in `Chunks.upload_id`.
    pub upload_id: String,
    /// Number of chunks stored.
    pub chunks: u64,
    /// When it began, Unix milliseconds: the time that its id carries.
    pub begun_ms: u64,
}

impl Stores {
    /// How full the streams of a partition are.
    pub async fn usage(&self, partition: PartitionId) -> Result<Usage, Error> {
        let (spool, chunks, journal) = (
            layout::spool_stream(partition),
            layout::chunks_stream(partition),
            layout::journal_stream(partition),
        );
        let link = self.control();
        let (spool, chunks, journal) = futures::try_join!(
            link.stream_state(&spool),
            link.stream_state(&chunks),
            link.stream_state(&journal)
        )?;
        let bound = |max_bytes: i64| u64::try_from(max_bytes).unwrap_or(u64::MAX);
        Ok(Usage {
            spool_bytes: spool.state.bytes,
            spool_max_bytes: bound(spool.config.max_bytes),
            chunks_bytes: chunks.state.bytes,
            chunks_max_bytes: bound(chunks.config.max_bytes),
            journal_bytes: journal.state.bytes,
            journal_max_bytes: bound(journal.config.max_bytes),
            spool_first: spool.state.first_sequence,
            spool_last: spool.state.last_sequence,
        })
    }

    /// Removes everything below a sequence from the spool of a partition. Keep what
    /// [`crate::IndexedBlock::first_sequence`] of the first live block says.
    pub async fn purge_spool(&self, partition: PartitionId, below: u64) -> Result<(), Error> {
        self.control()
            .purge(&layout::spool_stream(partition), Some(below), None)
            .await
            .map(drop)
    }

    /// Removes the chunks of one upload: its message is final.
    pub async fn purge_chunks(
        &self,
        partition: PartitionId,
        upload_id: &str,
    ) -> Result<u64, Error> {
        check_upload_id(upload_id)?;
        let subject = layout::chunk_subject(partition, upload_id);
        self.control()
            .purge(&layout::chunks_stream(partition), None, Some(&subject))
            .await
    }

    /// The uploads of which chunks are stored, in the order of their begin.
    pub async fn list_uploads(&self, partition: PartitionId) -> Result<Vec<UploadSummary>, Error> {
        let subjects = self
            .control()
            .subjects_of(&layout::chunks_stream(partition))
            .await?;
        let prefix_length = layout::chunk_subject(partition, "").len();
        let mut uploads: Vec<UploadSummary> = subjects
            .into_iter()
            .filter_map(|(subject, chunks)| {
                let upload_id = subject.get(prefix_length..)?.to_owned();
                let begun_ms = begun_ms(&upload_id)?;
                Some(UploadSummary {
                    upload_id,
                    chunks,
                    begun_ms,
                })
            })
            .collect();
        uploads.sort_by(|a, b| a.upload_id.cmp(&b.upload_id));
        Ok(uploads)
    }

    /// Removes the uploads whose newest chunk is two hours old and of which `is_live` says no: no block
    /// names them, and none will. Returns how many.
    pub async fn purge_stale_chunks(
        &self,
        partition: PartitionId,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<u64, Error> {
        self.purge_uploads(partition, ABANDONED_AFTER, is_live)
            .await
    }

    /// The same for uploads whose newest chunk is older than `unused_for`.
    pub async fn purge_uploads(
        &self,
        partition: PartitionId,
        unused_for: Duration,
        is_live: impl Fn(&str) -> bool,
    ) -> Result<u64, Error> {
        let unused_ms = u64::try_from(unused_for.as_millis()).unwrap_or(u64::MAX);
        let old_before = now_ms().saturating_sub(unused_ms);
        let mut removed = 0;
        for upload in self.list_uploads(partition).await? {
            // No chunk of it, nor of those behind it, is older than its begin.
            if upload.begun_ms >= old_before {
                break;
            }
            if is_live(&upload.upload_id)
                || self.newest_chunk_ms(partition, &upload.upload_id).await? >= old_before
            {
                continue;
            }
            self.purge_chunks(partition, &upload.upload_id).await?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Unix milliseconds; 0 when there is none.
    async fn newest_chunk_ms(&self, partition: PartitionId, upload_id: &str) -> Result<u64, Error> {
        let stream = layout::chunks_stream(partition);
        let newest = self
            .control()
            .last_time_of(&stream, &layout::chunk_subject(partition, upload_id))
            .await?;
        Ok(newest.unwrap_or(0))
    }
}

impl Link {
    /// The subjects of a stream with the number of their messages.
    async fn subjects_of(&self, stream: &str) -> Result<HashMap<String, u64>, Error> {
        #[derive(serde::Deserialize)]
        struct Answer {
            state: State,
        }
        #[derive(serde::Deserialize)]
        struct State {
            #[serde(default)]
            subjects: HashMap<String, u64>,
        }
        let mut all = HashMap::new();
        loop {
            let body = serde_json::json!({ "subjects_filter": ">", "offset": all.len() });
            let page: Answer = self.api(&format!("STREAM.INFO.{stream}"), &body).await?;
            let before = all.len();
            all.extend(page.state.subjects);
            // Pages have 100,000 subjects.
            if all.len() < before + 100_000 {
                return Ok(all);
            }
        }
    }
}

fn begun_ms(upload_id: &str) -> Option<u64> {
    let id: mail::MessageId = upload_id.parse().ok()?;
    Some(id.unix_ms())
}

fn check_upload_id(upload_id: &str) -> Result<(), Error> {
    Uuid::parse_str(upload_id)
        .map(drop)
        .map_err(|_| Error::InvalidKey(upload_id.to_owned()))
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
