//! Follows `EVENTS`.

use std::time::Duration;

use spool::{PackReader, decode_events};
use tokio::time::Instant;

use super::{Desk, READER, RETRY, locked};

/// The position is written at most so often: each time is a durable write.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// Until shutdown; lost stores are waited for.
pub(super) async fn follow(desk: Desk) {
    while !desk.shutdown.is_requested() {
        let begun = tokio::select! {
            begun = begin(&desk) => begun,
            () = desk.shutdown.requested() => return,
        };
        match begun {
            Ok((position, reader)) => {
                if !read(&desk, position, reader).await {
                    return;
                }
            }
            Err(spool::Error::MissingStream { .. }) => {
                // It is history, and may be made again later.
                tracing::debug!("there is no stream EVENTS to follow");
            }
            Err(error) => {
                desk.metrics.errors.with_label_values(&["events"]).inc();
                tracing::warn!(%error, "EVENTS can't be followed for the suppression yet");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(10 * RETRY) => {}
            () = desk.shutdown.requested() => return,
        }
    }
}

/// The position, and what comes after it.
async fn begin(desk: &Desk) -> Result<(u64, PackReader), spool::Error> {
    let positions = desk.stores.reader_positions();
    let saved = positions.get_of_events(READER).await?;
    let events = desk.stores.events();
    let (first, last) = events.bounds().await?;
    let position = match saved {
        Some(position) if position <= last => position.max(first - 1),
        // The stream was made again.
        Some(_) => first - 1,
        // A new reader begins with what is there.
        None => first - 1,
    };
    Ok((position, events.read(position + 1, true)))
}

/// False at shutdown.
async fn read(desk: &Desk, position: u64, mut reader: PackReader) -> bool {
    let (mut done, mut saved) = (position, position);
    let mut save_at = Instant::now() + SAVE_EVERY;
    loop {
        if Instant::now() >= save_at {
            save_at = Instant::now() + SAVE_EVERY;
            if done > saved {
                match desk
                    .stores
                    .reader_positions()
                    .set_of_events(READER, done)
                    .await
                {
                    Ok(()) => saved = done,
                    Err(error) => {
                        tracing::warn!(%error, "the position in EVENTS can't be kept yet")
                    }
                }
            }
        }
        let record = tokio::select! {
            biased;
            () = desk.shutdown.requested() => return false,
            record = reader.next() => record,
            () = tokio::time::sleep_until(save_at) => continue,
        };
        let record = match record {
            None => return true,
            Some(Ok(record)) => record,
            Some(Err(error)) => {
                tracing::debug!(%error, "EVENTS can't be read at the moment");
                continue;
            }
        };
        match decode_events(&record.bytes) {
            Ok(events) => {
                let (config, now_ms) = (desk.tenants.snapshot(), runtime::now_ms());
                let changes = {
                    let mut book = locked(&desk.book);
                    let changes = events.events.iter();
                    changes
                        .filter_map(|event| book.told(event, &config, now_ms))
                        .collect()
                };
                if !desk.store(changes).await {
                    return false;
                }
            }
            Err(error) => {
                // History: one that can't be read keeps nobody from the others.
                desk.metrics.errors.with_label_values(&["format"]).inc();
                tracing::warn!(sequence = record.sequence, %error, "a record of EVENTS is passed over");
            }
        }
        done = record.sequence;
    }
}
