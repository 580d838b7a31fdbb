//! The stream `TRANSCRIPTS`: what was said to and by mail hosts.

use std::time::Duration;

use async_nats::datetime::DateTime;
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use prost::Message as _;
use proto::transcript::{Record, Transcript};

use crate::consume::Consumption;
use crate::link::Link;
use crate::packs::{PackReader, PackUnreadable, PackWriter, Told};
use crate::{Error, layout};

/// Format of the records that this release writes.
pub const TRANSCRIPT_FORMAT: u32 = 1;

/// Writes transcripts of one service.
pub type TranscriptWriter = PackWriter<Transcript>;

/// They are larger than events, and nobody waits to see them at once: fewer wait, and longer.
impl Told for Transcript {
    const STREAM: &'static str = layout::TRANSCRIPTS;
    const NAME: &'static str = "transcripts";
    const QUEUE: usize = 2_048;
    const MOST: usize = 1_024;
    const MOST_OCTETS: usize = 256 << 10;
    const LINGER: Duration = Duration::from_millis(500);

    fn subject(service: &str) -> String {
        layout::transcripts_subject(service)
    }

    fn record(transcripts: Vec<Self>, id: Bytes, written_at_ms: u64, service: &str) -> Bytes {
        let record = Record {
            format: TRANSCRIPT_FORMAT,
            id,
            written_at_ms,
            service: service.to_owned(),
            transcripts,
        };
        Bytes::from(record.encode_to_vec())
    }
}

/// Reads a record of `TRANSCRIPTS`.
pub fn decode_transcripts(bytes: &[u8]) -> Result<Record, PackUnreadable> {
    let record =
        Record::decode(bytes).map_err(|error| PackUnreadable::Malformed(error.to_string()))?;
    match record.format {
        TRANSCRIPT_FORMAT => Ok(record),
        found => Err(PackUnreadable::Format {
            found,
            known: TRANSCRIPT_FORMAT,
        }),
    }
}

/// Reads the stream. A cheap clone.
#[derive(Debug, Clone)]
pub struct TranscriptStore {
    control: Link,
    bulk: Link,
}

impl TranscriptStore {
    pub(crate) fn new(control: Link, bulk: Link) -> Self {
        Self { control, bulk }
    }

    /// The records that were stored at this time (Unix milliseconds) or later, to the end as it is when that is reached.
    /// [`Error::MissingStream`] in an installation that has no such stream.
    pub async fn read(&self, since_ms: u64) -> Result<PackReader, Error> {
        self.control.stream_state(layout::TRANSCRIPTS).await?;
        let since = i64::try_from(since_ms / 1000).ok();
        let since = since.and_then(|seconds| DateTime::from_unix_timestamp(seconds).ok());
        let start = match since {
            Some(start_time) => DeliverPolicy::ByStartTime { start_time },
            None => DeliverPolicy::All,
        };
        let consumption = Consumption::new(
            self.bulk.clone(),
            layout::TRANSCRIPTS.to_owned(),
            "transcripts.>".to_owned(),
            start,
        );
        Ok(PackReader::start(consumption, false))
    }
}
