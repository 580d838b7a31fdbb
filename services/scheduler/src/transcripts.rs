//! What was said about a message, for those who ask.

use mail::MessageId;
use proto::admin::StoredTranscript;
use spool::{PackReader, TranscriptStore, decode_transcripts};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Clocks of ingress and NATS may differ by so much.
const CLOCK_MARGIN_MS: u64 = 60_000;
/// Transcripts that wait for the client.
const READ_AHEAD: usize = 16;

/// Those of a message, as they come. Nothing about it is older than its id.
pub(crate) async fn about(
    store: &TranscriptStore,
    message: MessageId,
) -> Result<ReceiverStream<Result<StoredTranscript, Status>>, Status> {
    let since_ms = message.unix_ms().saturating_sub(CLOCK_MARGIN_MS);
    let reader = store.read(since_ms).await.map_err(|error| match error {
        spool::Error::MissingStream { .. } => Status::not_found(
            "this installation has no stream TRANSCRIPTS; `staffetta init` creates it and touches nothing else",
        ),
        error => Status::unavailable(error.to_string()),
    })?;
    let (found, stream) = mpsc::channel(READ_AHEAD);
    tokio::spawn(send(reader, message, found));
    Ok(ReceiverStream::new(stream))
}

async fn send(
    mut reader: PackReader,
    message: MessageId,
    found: mpsc::Sender<Result<StoredTranscript, Status>>,
) {
    loop {
        let record = tokio::select! {
            record = reader.next() => record,
            () = found.closed() => return,
        };
        let record = match record {
            None => return,
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                tracing::debug!(%error, "TRANSCRIPTS can't be read at the moment");
                let status = Status::unavailable("TRANSCRIPTS can't be read at the moment");
                // Nobody waits any more when it fails.
                found.send(Err(status)).await.ok();
                return;
            }
        };
        let sequence = record.sequence;
        let transcripts = match decode_transcripts(&record.bytes) {
            Ok(record) => record.transcripts,
            Err(error) => {
                // History: one that can't be read keeps nobody from the others.
                tracing::warn!(sequence, %error, "a record of TRANSCRIPTS is passed over");
                continue;
            }
        };
        for transcript in transcripts {
            if transcript.message_id[..] != message.as_bytes()[..] {
                continue;
            }
            let item = StoredTranscript {
                sequence,
                transcript: Some(transcript),
            };
            if found.send(Ok(item)).await.is_err() {
                return;
            }
        }
    }
}
