//! `staffetta trace`: the timeline of one message, read from the journals and the streams `EVENTS` and `TRANSCRIPTS`.

use std::process::ExitCode;

use anyhow::Context;
use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use mail::{MessageId, PartitionId};
use proto::admin::admin_client::AdminClient;
use proto::admin::{EventsRequest, JournalRequest, TranscriptsRequest};
use tonic::Code;
use tonic::transport::Channel;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::dialogue;
use crate::output::{self, OutputFormat};
use crate::timeline::{Timeline, render};

/// Clocks of ingress and scheduler may differ by so much.
const CLOCK_MARGIN_MS: u64 = 60_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Id of the message, as the 250 gave it
    message_id: MessageId,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

/// Ends with 1 when the journals know nothing of the message.
pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut admin = arguments.server.connect(global).await?;
    let partitions = admin::partitions(&mut admin).await?;
    // An id says nothing of the place: all partitions are read, at the same time.
    let mut readers: FuturesUnordered<_> = partitions
        .iter()
        .map(|partition| read_partition(admin.clone(), partition.id, arguments.message_id))
        .collect();
    let mut timeline = Timeline::new(arguments.message_id.to_string());
    while let Some(found) = readers.try_next().await? {
        timeline.join(found);
    }
    timeline.join(read_told(admin.clone(), arguments.message_id).await?);
    // What is known beside them is shown all the same.
    match read_transcripts(admin, arguments.message_id).await {
        Ok(dialogues) => timeline.join(dialogues),
        Err(error) => output::complain(&error),
    }
    let events = timeline.events();
    if events.is_empty() {
        let message_id = arguments.message_id;
        output::complain(&anyhow::anyhow!(
            "the journals know nothing of message {message_id} (any more, or not yet)"
        ));
        return Ok(ExitCode::FAILURE);
    }
    output::print(&match arguments.output {
        OutputFormat::Text => {
            let message_id = arguments.message_id;
            render(&message_id.to_string(), &received_at(message_id), &events)
        }
        OutputFormat::Json => json_lines(&events),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The events of a partition that concern the message.
async fn read_partition(
    mut admin: AdminClient<Channel>,
    partition: u32,
    message_id: MessageId,
) -> anyhow::Result<Timeline> {
    let request = JournalRequest {
        partition,
        from_sequence: 0,
        since_ms: since_ms(message_id),
        follow: false,
    };
    let what = || format!("journal of partition {partition}");
    let answer = admin
        .journal(request)
        .await
        .map_err(|status| admin::refused(&what(), &status))?;
    let mut records = answer.into_inner();
    let mut timeline = Timeline::new(message_id.to_string());
    while let Some(found) = records
        .message()
        .await
        .map_err(|status| admin::refused(&what(), &status))?
    {
        let record = journal::decode(&found.record)
            .with_context(|| format!("{}, record {}", what(), found.sequence))?;
        for event in feedback::events::events(PartitionId(partition), found.sequence, &record) {
            timeline.add(event);
        }
    }
    Ok(timeline)
}

/// What ingress has said of the message; nothing where there is no stream `EVENTS`.
async fn read_told(
    mut admin: AdminClient<Channel>,
    message_id: MessageId,
) -> anyhow::Result<Timeline> {
    let mut timeline = Timeline::new(message_id.to_string());
    let request = EventsRequest {
        from_sequence: 0,
        since_ms: since_ms(message_id),
        follow: false,
    };
    let mut records = match admin.events(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
            return Ok(timeline);
        }
        Err(status) => return Err(crate::admin::refused("the stream EVENTS", &status)),
    };
    while let Some(found) = records
        .message()
        .await
        .map_err(|status| crate::admin::refused("the stream EVENTS", &status))?
    {
        let record = spool::decode_events(&found.record)
            .with_context(|| format!("stream EVENTS, record {}", found.sequence))?;
        for event in feedback::events::told(found.sequence, &record) {
            timeline.add(event);
        }
    }
    Ok(timeline)
}

/// What was said to and by mail hosts; nothing where there is no stream `TRANSCRIPTS`.
async fn read_transcripts(
    mut admin: AdminClient<Channel>,
    message_id: MessageId,
) -> anyhow::Result<Timeline> {
    let mut timeline = Timeline::new(message_id.to_string());
    let request = TranscriptsRequest {
        message_id: message_id.to_string(),
    };
    let refused = |status| admin::refused("the stream TRANSCRIPTS", &status);
    let mut transcripts = match admin.transcripts(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
            return Ok(timeline);
        }
        Err(status) => return Err(refused(status)),
    };
    while let Some(found) = transcripts.message().await.map_err(refused)? {
        if let Some(event) = dialogue::event(found) {
            timeline.add(event);
        }
    }
    Ok(timeline)
}

/// Nothing about the message is older.
fn since_ms(message_id: MessageId) -> u64 {
    message_id.unix_ms().saturating_sub(CLOCK_MARGIN_MS).max(1)
}

fn json_lines(events: &[serde_json::Value]) -> String {
    let mut text = String::new();
    for event in events {
        text.push_str(&format!("{event}\n"));
    }
    text
}

/// The time in the id.
fn received_at(message_id: MessageId) -> String {
    let milliseconds = i64::try_from(message_id.unix_ms()).ok();
    let timestamp =
        milliseconds.and_then(|milliseconds| jiff::Timestamp::from_millisecond(milliseconds).ok());
    timestamp.map_or_else(
        || "at an unknown time".to_owned(),
        |timestamp| format!("{timestamp:.3}"),
    )
}
