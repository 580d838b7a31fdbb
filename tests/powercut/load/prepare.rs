//! An installation that has stored something before.

use std::collections::HashSet;

use anyhow::{Result, bail};
use bytes::Bytes;
use mail::{MessageId, PartitionId};
use proto::spool::IndexEntry;
use spool::{Append, InitOptions, Stores, WriterOptions};

use crate::PARTITIONS;

/// Room for more messages than the rounds on one disk bring.
const VOLUME: u64 = 3 << 30;
/// Uploads after which each partition must have had one.
const UPLOADS: usize = 200;

/// Creates the stores and stores something in each stream: nats-server 2.15.1 can lose all of a stream
/// that was empty when its state was last written (README.md, "What it has found").
pub async fn run(stores: &Stores) -> Result<()> {
    stores
        .init(&InitOptions {
            partitions: PARTITIONS,
            replicas: 1,
            volume_bytes: VOLUME,
            transcripts: spool::TranscriptBounds::USUAL,
        })
        .await?;
    stores.open().await?;
    for partition in (0..PARTITIONS).map(PartitionId) {
        let id = *MessageId::now().as_bytes();
        let entry = IndexEntry {
            message_id: Bytes::copy_from_slice(&id),
            ..Default::default()
        };
        stores
            .publish_block(
                partition,
                id,
                vec![(entry, Bytes::from_static(b"first"))],
                0,
            )
            .await?;
        let appended = stores
            .journal(partition)
            .append(Bytes::from_static(b"first"), "first", 0)
            .await;
        if appended != Append::Stored(1) {
            bail!("the first record of a journal: {appended:?}");
        }
    }
    let writer = stores.block_writer(PARTITIONS, WriterOptions::default());
    let mut uploaded = HashSet::new();
    for _ in 0..UPLOADS {
        let mut upload = writer.begin_upload()?;
        upload.push(Bytes::from_static(b"first")).await?;
        uploaded.insert(upload.finish().await?.partition());
        if uploaded.len() == PARTITIONS as usize {
            return Ok(());
        }
    }
    bail!("after {UPLOADS} uploads not every partition has one");
}
