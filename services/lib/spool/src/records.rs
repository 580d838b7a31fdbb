//! Reads single messages of a stream.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};

use crate::Error;
use crate::consume::Record;
use crate::link::Link;

impl Link {
    /// A message by its sequence, from any replica; when that has none, from the leader. `None` = the
    /// stream has no such message.
    pub(crate) async fn record(&self, stream: &str, sequence: u64) -> Result<Option<Record>, Error> {
        match self.record_from_replica(stream, sequence).await? {
            Some(record) => Ok(Some(record)),
            None => self.record_from_leader(stream, sequence).await,
        }
    }

    /// By direct get: cheap, but a replica may be behind or damaged.
    pub(crate) async fn record_from_replica(&self, stream: &str, sequence: u64) -> Result<Option<Record>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        match handle.direct_get(sequence).await {
            Ok(message) => Ok(Some(Record {
                sequence: message.sequence,
                subject: message.subject.to_string(),
                headers: message.headers,
                payload: message.payload,
            })),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            // No replica answers direct gets: the leader decides whether there is such a stream.
            Err(error) if matches!(error.kind(), DirectGetErrorKind::ErrorResponse(..)) => Ok(None),
            Err(error) => Err(unavailable(stream, error.to_string())),
        }
    }

    /// From the leader: base64 in JSON, so for the exception.
    pub(crate) async fn record_from_leader(&self, stream: &str, sequence: u64) -> Result<Option<Record>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        read_from_leader(stream, handle.raw_message_builder().sequence(sequence)).await
    }

    /// The last message of a subject, from the leader.
    pub(crate) async fn last_of(&self, stream: &str, subject: &str) -> Result<Option<Record>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        read_from_leader(stream, handle.raw_message_builder().last_by_subject(subject)).await
    }
}

impl Link {
    /// When the last message of a subject was stored, Unix milliseconds.
    pub(crate) async fn last_time_of(&self, stream: &str, subject: &str) -> Result<Option<u64>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        match handle.raw_message_builder().last_by_subject(subject).send().await {
            Ok(message) => Ok(u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).ok()),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(stream, error.to_string())),
        }
    }
}

async fn read_from_leader(
    stream: &str,
    request: async_nats::jetstream::stream::RawMessageBuilder<async_nats::jetstream::stream::WithHeaders>,
) -> Result<Option<Record>, Error> {
    match request.send().await {
        Ok(message) => Ok(Some(Record {
            sequence: message.sequence,
            subject: message.subject.to_string(),
            headers: message.headers,
            payload: message.payload,
        })),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(refusal) if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(Error::MissingStream { stream: stream.to_owned() })
            }
            _ => Err(unavailable(stream, error.to_string())),
        },
    }
}

fn unavailable(stream: &str, detail: String) -> Error {
    Error::Unavailable { what: format!("reading stream {stream}"), detail }
}
