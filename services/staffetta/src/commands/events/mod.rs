//! `staffetta events`: what happens to messages as JSON Lines, from the journals of all partitions; and what ingress has to
//! say, from the stream `EVENTS`. All of it, or what is chosen.
//!
//! Resumable: with `--state` the position in each of them is written to a file after the lines are,
//! so that an interrupted reader repeats a few events and misses none. The `id` of an
//! event is the same each time.

mod choice;
mod feed;
mod state;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;
use mail::PartitionId;
use proto::admin::{EventRecord, JournalRecord};
use serde_json::json;

use crate::admin::{self, Server};
use crate::cli::Global;
use choice::Choice;
use feed::Read;
use state::Positions;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Go on with what happens later
    #[arg(long)]
    follow: bool,
    /// File that keeps the position, to continue there next time
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Begin with what happened since (RFC 3339) [default: the oldest that is there]
    #[arg(long, value_name = "TIME")]
    since: Option<jiff::Timestamp>,
    #[command(flatten)]
    choice: Choice,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    arguments.choice.check()?;
    let shutdown = runtime::shutdown_on_signals().context("signals")?;
    let mut admin = arguments.server.connect(global).await?;
    let partitions = admin::partitions(&mut admin).await?;
    let mut positions = match &arguments.state {
        Some(path) => Positions::load(path)?,
        None => Positions::default(),
    };
    let since_ms = arguments
        .since
        .and_then(|since| u64::try_from(since.as_millisecond()).ok())
        .unwrap_or(0);
    let ids = partitions.iter().map(|partition| partition.id);
    let mut feed = feed::start(admin, ids, &positions, since_ms, arguments.follow);
    let mut out = std::io::stdout().lock();
    loop {
        let batch = tokio::select! {
            batch = feed.next_batch() => batch?,
            () = shutdown.requested() => return Ok(()),
        };
        let Some(batch) = batch else { return Ok(()) };
        let mut lines = Vec::new();
        for read in &batch {
            match read {
                Read::Journal(partition, record) => {
                    write_record(
                        &mut lines,
                        *partition,
                        record,
                        &positions,
                        &arguments.choice,
                    )?;
                    positions.advance(*partition, record.sequence);
                }
                Read::Told(record) => {
                    write_told(&mut lines, record, &positions, &arguments.choice)?;
                    positions.advance_told(record.sequence);
                }
            }
        }
        match out.write_all(&lines).and_then(|()| out.flush()) {
            Ok(()) => {}
            // The reader has what it wanted; what it did not take is not counted as read.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error).context("standard output"),
        }
        if let Some(path) = &arguments.state {
            positions.save(path)?;
        }
    }
}

/// The lines of one record; a gap before it is told.
fn write_record(
    lines: &mut Vec<u8>,
    partition: u32,
    record: &JournalRecord,
    positions: &Positions,
    choice: &Choice,
) -> anyhow::Result<()> {
    if let Some(expected) = positions.next(partition)
        && record.sequence > expected
    {
        let gap = json!({
            "type": "gap", "partition": partition, "from": expected, "to": record.sequence - 1,
        });
        write_line(lines, &gap)?;
    }
    let decoded = journal::decode(&record.record).with_context(|| {
        format!(
            "journal of partition {partition}, record {}",
            record.sequence
        )
    })?;
    let events = feedback::events::events(PartitionId(partition), record.sequence, &decoded);
    for event in events.iter().filter(|event| choice.takes(event)) {
        write_line(lines, event)?;
    }
    Ok(())
}

/// The lines of one record of `EVENTS`; what was discarded before it is told.
fn write_told(
    lines: &mut Vec<u8>,
    record: &EventRecord,
    positions: &Positions,
    choice: &Choice,
) -> anyhow::Result<()> {
    if let Some(expected) = positions.next_told()
        && record.sequence > expected
    {
        let gap = json!({
            "type": "gap", "stream": "EVENTS", "from": expected, "to": record.sequence - 1,
        });
        write_line(lines, &gap)?;
    }
    let decoded = spool::decode_events(&record.record)
        .with_context(|| format!("stream EVENTS, record {}", record.sequence))?;
    let events = feedback::events::told(record.sequence, &decoded);
    for event in events.iter().filter(|event| choice.takes(event)) {
        write_line(lines, event)?;
    }
    Ok(())
}

fn write_line(lines: &mut Vec<u8>, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *lines, value).context("an event can't be written as JSON")?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_were_trimmed_before_they_were_read_are_told_as_a_gap() {
        let (mut positions, all) = (Positions::default(), Choice::default());
        let record = |sequence| JournalRecord {
            sequence,
            record: journal::genesis(1_000),
        };
        let mut lines = Vec::new();
        write_record(&mut lines, 2, &record(5), &positions, &all).unwrap();
        lines.clear();
        positions.advance(2, 5);
        write_record(&mut lines, 2, &record(9), &positions, &all).unwrap();
        let first = lines.split(|byte| *byte == b'\n').next().unwrap();
        let line: serde_json::Value = serde_json::from_slice(first).unwrap();
        assert_eq!(
            line,
            json!({ "type": "gap", "partition": 2, "from": 6, "to": 8 })
        );
    }
}
