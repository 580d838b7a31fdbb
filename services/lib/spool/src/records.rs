//! Reads single messages of a stream.

use std::time::Duration;

use async_nats::header::{NATS_SEQUENCE, NATS_SUBJECT};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};
use futures::StreamExt;

use crate::Error;
use crate::consume::Record;
use crate::link::{Link, REQUEST_TIMEOUT};

/// Between two questions to a leader whose answer was that there is no such message.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What a leader's answer that there is no such message means.
#[derive(Debug, PartialEq, Eq)]
enum Absence {
    /// It was purged.
    Purged,
    /// The stream goes beyond it and does not hold it: lost, or the answer came just before it was applied.
    Hole,
    /// The stream does not go so far on this server yet: a replica applies what the others have in its own time,
    /// the leader too.
    NotYet,
}

impl Absence {
    fn of(sequence: u64, first: u64, last: u64) -> Self {
        if sequence < first && sequence <= last {
            Self::Purged
        } else if sequence <= last {
            Self::Hole
        } else {
            Self::NotYet
        }
    }
}

impl Link {
    /// A message by its sequence, from any replica; when that has none, from the leader. `None` = the
    /// stream surely has no such message.
    pub(crate) async fn record(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Record>, Error> {
        match self.record_from_replica(stream, sequence).await? {
            Some(record) => Ok(Some(record)),
            None => self.record_or_surely_none(stream, sequence).await,
        }
    }

    /// From the leader. `None` only when the stream surely has no such message: since mail is quarantined by that
    /// answer, a leader that is behind a follower, for moments after it was elected or when its disk is slow, must not
    /// be believed. Then the answer is that the store is unavailable.
    pub(crate) async fn record_or_surely_none(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Record>, Error> {
        let mut has_looked = false;
        loop {
            if let Some(record) = self.record_from_leader(stream, sequence).await? {
                return Ok(Some(record));
            }
            let info = self.stream_state(stream).await?;
            if info.config.num_replicas <= 1 {
                return Ok(None);
            }
            let state = info.state;
            match Absence::of(sequence, state.first_sequence, state.last_sequence) {
                Absence::Purged => return Ok(None),
                Absence::Hole if has_looked => return Ok(None),
                // It may have been applied between the two answers.
                Absence::Hole => {
                    has_looked = true;
                    tokio::time::sleep(LOOKED_AGAIN_AFTER).await;
                }
                Absence::NotYet => {
                    let last = state.last_sequence;
                    let detail = format!("its leader ends at {last}, before {sequence}");
                    return Err(unavailable(stream, detail));
                }
            }
        }
    }

    /// By direct get: cheap, but a replica may be behind or damaged.
    pub(crate) async fn record_from_replica(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Record>, Error> {
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
    pub(crate) async fn record_from_leader(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Record>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        read_from_leader(stream, handle.raw_message_builder().sequence(sequence)).await
    }

    /// The last message of a subject, from the leader.
    pub(crate) async fn last_of(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Record>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        read_from_leader(
            stream,
            handle.raw_message_builder().last_by_subject(subject),
        )
        .await
    }
}

impl Link {
    /// When the last message of a subject was stored, Unix milliseconds.
    pub(crate) async fn last_time_of(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<u64>, Error> {
        let handle = self.jetstream().get_stream_no_info(stream).await;
        let handle = handle.map_err(|error| unavailable(stream, error.to_string()))?;
        match handle
            .raw_message_builder()
            .last_by_subject(subject)
            .send()
            .await
        {
            Ok(message) => Ok(u64::try_from(message.time.unix_timestamp_nanos() / 1_000_000).ok()),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unavailable(stream, error.to_string())),
        }
    }
}

impl Link {
    /// The last message of every subject that matches (at most 1,024), in no order.
    pub(crate) async fn last_of_each(
        &self,
        stream: &str,
        subjects: &str,
    ) -> Result<Vec<Record>, Error> {
        let inbox = self.client().new_inbox();
        let client_error = |error: &dyn std::fmt::Display| unavailable(stream, error.to_string());
        let mut answers = self
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| client_error(&error))?;
        let request = serde_json::json!({ "multi_last": [subjects] }).to_string();
        self.client()
            .publish_with_reply(
                format!("$JS.API.DIRECT.GET.{stream}"),
                inbox,
                request.into(),
            )
            .await
            .map_err(|error| client_error(&error))?;
        let mut records = Vec::new();
        loop {
            let answer = tokio::time::timeout(REQUEST_TIMEOUT, answers.next()).await;
            let message = answer
                .ok()
                .flatten()
                .ok_or_else(|| unavailable(stream, "no answer".to_owned()))?;
            match message.status.map(|status| status.as_u16()) {
                None => records.extend(from_direct_get(message)),
                // The end, and that there are none.
                Some(204 | 404) => return Ok(records),
                Some(status) => {
                    let detail = message.description.unwrap_or_default();
                    return Err(unavailable(stream, format!("{status} {detail}")));
                }
            }
        }
    }
}

/// What a message was, from what the server says of it in additional headers.
fn from_direct_get(message: async_nats::Message) -> Option<Record> {
    let headers = message.headers.unwrap_or_default();
    let sequence = headers.get(NATS_SEQUENCE)?.as_str().parse().ok()?;
    let subject = headers.get(NATS_SUBJECT)?.to_string();
    Some(Record {
        sequence,
        subject,
        headers,
        payload: message.payload,
    })
}

async fn read_from_leader(
    stream: &str,
    request: async_nats::jetstream::stream::RawMessageBuilder<
        async_nats::jetstream::stream::WithHeaders,
    >,
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
            RawMessageErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Err(Error::MissingStream {
                    stream: stream.to_owned(),
                })
            }
            _ => Err(unavailable(stream, error.to_string())),
        },
    }
}

fn unavailable(stream: &str, detail: String) -> Error {
    Error::Unavailable {
        what: format!("reading stream {stream}"),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_does_not_hold_is_lost_only_when_it_goes_beyond() {
        for (sequence, first, last, expected) in [
            (7, 8, 20, Absence::Purged),
            (8, 8, 20, Absence::Hole),
            (20, 8, 20, Absence::Hole),
            (21, 8, 20, Absence::NotYet),
            // Everything was purged: the first is the one to come.
            (20, 21, 20, Absence::Purged),
            (21, 21, 20, Absence::NotYet),
            (1, 0, 0, Absence::NotYet),
        ] {
            assert_eq!(
                Absence::of(sequence, first, last),
                expected,
                "{sequence} of {first} to {last}"
            );
        }
    }
}
