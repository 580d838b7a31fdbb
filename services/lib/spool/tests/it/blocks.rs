//! Writing blocks, following their indexes, reading messages.

use std::time::Duration;

use bytes::Bytes;
use mail::{MessageId, PartitionId, Place};
use proto::spool::IndexEntry;
use spool::{
    BlockDamage, Followed, IndexedBlock, ReadError, Stored, Stores, Submission, SubmitError,
    WriterOptions,
};

use crate::server::{PATIENCE, Server};

pub const P0: PartitionId = PartitionId(0);

/// A message with its id.
pub fn message(length: usize) -> (MessageId, IndexEntry, Bytes) {
    let id = MessageId::now();
    let entry = IndexEntry {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        ..Default::default()
    };
    let pattern: Vec<u8> = id.as_bytes().iter().copied().cycle().take(length).collect();
    (id, entry, Bytes::from(pattern))
}

/// All blocks there are.
pub async fn blocks_of(stores: &Stores, partition: PartitionId) -> Vec<IndexedBlock> {
    let mut follower = stores.follow_blocks(partition, 0);
    let mut blocks = Vec::new();
    loop {
        match follower.next().await.unwrap() {
            Followed::Block(block) => blocks.push(block),
            Followed::CaughtUp { .. } => return blocks,
        }
    }
}

#[tokio::test]
async fn what_was_stored_is_followed_and_read() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let writer = stores.block_writer(2, WriterOptions::default());
    let reader = stores.message_reader(1 << 20);
    let mut stored = Vec::new();
    for length in [0, 1, 10_000, 200_000, 1 << 20] {
        let (id, entry, content) = message(length);
        let at = writer
            .submit(Submission::new(entry, content.clone()))
            .await
            .unwrap();
        stored.push((id, at, content));
    }
    for (id, Stored { partition, place }, content) in &stored {
        let read = reader.read(*partition, *place, *id).await.unwrap();
        assert_eq!(read.content, content);
        assert_eq!(read.entry.message_id, id.as_bytes().as_slice());
    }
    let followed: usize = [0, 1]
        .map(PartitionId)
        .into_iter()
        .map(|partition| {
            stored
                .iter()
                .filter(|(_, at, _)| at.partition == partition)
                .count()
        })
        .sum();
    assert_eq!(followed, stored.len());
    for partition in [0, 1].map(PartitionId) {
        let blocks = blocks_of(&stores, partition).await;
        let expected: Vec<_> = stored
            .iter()
            .filter(|(_, at, _)| at.partition == partition)
            .collect();
        assert_eq!(blocks.len(), expected.len());
        for (block, (id, at, content)) in blocks.iter().zip(expected) {
            assert_eq!(
                (block.sequence, block.size_bytes),
                (at.place.sequence, content.len() as u64)
            );
            let index = block.result.as_ref().unwrap();
            assert_eq!(index.entries[0].message_id, id.as_bytes().as_slice());
        }
    }
}

#[tokio::test]
async fn a_follower_goes_on_with_what_comes() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.block_writer(1, WriterOptions::default());
    let mut follower = stores.follow_blocks(P0, 0);
    assert!(matches!(
        follower.next().await.unwrap(),
        Followed::CaughtUp { sequence: 0 }
    ));
    // `init` stored a record and removed it, so blocks begin with sequence 2.
    for expected in 2..=4 {
        let (_, entry, content) = message(100);
        let stored = writer
            .submit(Submission::new(entry, content))
            .await
            .unwrap();
        assert_eq!(
            stored.place,
            Place {
                sequence: expected,
                index: 0
            }
        );
        match follower.next().await.unwrap() {
            Followed::Block(block) => assert_eq!(block.sequence, expected),
            other => panic!("{other:?}"),
        }
    }
    let mut later = stores.follow_blocks(P0, 3);
    assert!(matches!(later.next().await.unwrap(), Followed::Block(block) if block.sequence == 4));
    assert!(matches!(
        later.next().await.unwrap(),
        Followed::CaughtUp { sequence: 4 }
    ));
}

#[tokio::test]
async fn messages_of_the_same_moment_share_a_block() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let writer = stores.block_writer(2, WriterOptions::default());
    let submits = (0..400).map(|_| {
        let (_, entry, content) = message(2_000);
        let writer = writer.clone();
        tokio::spawn(async move {
            writer
                .submit(Submission::new(entry, content))
                .await
                .unwrap()
        })
    });
    let stored: Vec<_> = futures::future::join_all(submits)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let stats = writer.stats();
    assert_eq!(stats.messages, 400);
    assert!(stats.blocks <= 60, "{} blocks", stats.blocks);
    assert!(stored.iter().all(|at| at.place.index < 16));
    assert_eq!(stats.queued_bytes, 0);
    // One block is fetched once, whoever asks.
    let blocks = blocks_of(&stores, P0).await;
    let index = blocks[0].result.as_ref().unwrap().clone();
    let reader = stores.message_reader(64 << 20);
    let reads = (0..).zip(&index.entries).map(|(position, entry)| {
        let id = MessageId::try_from(entry.message_id.as_ref()).unwrap();
        let place = Place {
            sequence: blocks[0].sequence,
            index: position,
        };
        let reader = reader.clone();
        async move { reader.read(P0, place, id).await.unwrap() }
    });
    futures::future::join_all(reads).await;
    assert_eq!(reader.stats().fetches, 1);
}

#[tokio::test]
async fn an_index_too_large_for_a_header_goes_before_its_block() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.block_writer(1, WriterOptions::default());
    let (id, mut entry, content) = message(1_000);
    entry.header_variants = (0..100).map(|_| Bytes::from(vec![b'h'; 10_000])).collect();
    let stored = writer
        .submit(Submission::new(entry.clone(), content.clone()))
        .await
        .unwrap();
    assert!(writer.stats().more_records > 0);
    let blocks = blocks_of(&stores, P0).await;
    assert_eq!(blocks.len(), 1);
    assert!(blocks[0].first_sequence < blocks[0].sequence);
    let indexed = &blocks[0].result.as_ref().unwrap().entries[0];
    assert_eq!(indexed.header_variants, entry.header_variants);
    let read = stores
        .message_reader(1 << 20)
        .read(P0, stored.place, id)
        .await
        .unwrap();
    assert_eq!(
        (read.content, &read.entry.header_variants),
        (content, &entry.header_variants)
    );

    // A part that is not there makes the block damaged, not lost.
    stores.purge_spool(P0, blocks[0].sequence).await.unwrap();
    let blocks = blocks_of(&stores, P0).await;
    assert!(
        matches!(blocks[0].result, Err(BlockDamage::MissingPart(_))),
        "{:?}",
        blocks[0].result
    );
}

#[tokio::test]
async fn damaged_content_is_told_from_what_is_not_there() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.block_writer(1, WriterOptions::default());
    let (id, entry, content) = message(5_000);
    let stored = writer
        .submit(Submission::new(entry, content))
        .await
        .unwrap();
    let plain = server.plain().await;
    let good = plain
        .get_stream("SPOOL_0")
        .await
        .unwrap()
        .direct_get(stored.place.sequence)
        .await
        .unwrap();
    let mut bad = good.payload.to_vec();
    bad[2_500] ^= 1;
    let mut headers = good.headers.clone();
    headers.insert("Nats-Msg-Id", "another");
    let ack = plain
        .publish_with_headers("spool.0.block", headers, bad.into())
        .await
        .unwrap()
        .await
        .unwrap();

    let reader = stores.message_reader(1 << 20);
    let damaged = Place {
        sequence: ack.sequence,
        index: 0,
    };
    let error = reader.read(P0, damaged, id).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Damaged(BlockDamage::Checksum)),
        "{error}"
    );
    let nowhere = Place {
        sequence: 99,
        index: 0,
    };
    assert!(matches!(
        reader.read(P0, nowhere, id).await,
        Err(ReadError::NotFound)
    ));
    let other = reader
        .read(P0, stored.place, MessageId::now())
        .await
        .unwrap_err();
    assert!(
        matches!(other, ReadError::Damaged(BlockDamage::WrongMessage { .. })),
        "{other}"
    );
    let no_entry = Place {
        index: 1,
        ..stored.place
    };
    assert!(matches!(
        reader.read(P0, no_entry, id).await,
        Err(ReadError::Damaged(BlockDamage::NoEntry(1)))
    ));
    assert_eq!(
        reader
            .read(P0, stored.place, id)
            .await
            .unwrap()
            .content
            .len(),
        5_000
    );

    plain
        .publish("spool.0.block", "no block".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let blocks = blocks_of(&stores, P0).await;
    assert!(matches!(blocks[2].result, Err(BlockDamage::NoIndex)));
}

#[tokio::test]
async fn a_block_of_the_owner_is_stored_once_for_its_id() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let (id, entry, content) = message(100);
    let block_id = *MessageId::now().as_bytes();
    let messages = vec![(entry, content)];
    let first = stores
        .publish_block(P0, block_id, messages.clone(), spool::BLOCK_COPY)
        .await
        .unwrap();
    let again = stores
        .publish_block(P0, block_id, messages, spool::BLOCK_COPY)
        .await
        .unwrap();
    assert_eq!(first, again);
    let blocks = blocks_of(&stores, P0).await;
    assert_eq!(blocks.len(), 1);
    assert_eq!(blocks[0].result.as_ref().unwrap().flags, spool::BLOCK_COPY);
    let place = Place {
        sequence: first,
        index: 0,
    };
    assert_eq!(
        stores
            .message_reader(0)
            .read(P0, place, id)
            .await
            .unwrap()
            .content
            .len(),
        100
    );
}

#[tokio::test]
async fn a_full_spool_refuses_and_keeps_nothing_half() {
    let server = Server::start().await;
    // 55 % of 80 % of 16 MiB: 7.4 MB.
    let stores = server.stores_of(1, 16 << 20).await;
    // The watermark is out of the way, so that JetStream is what refuses.
    let options = WriterOptions {
        watermark_percent: 1_000,
        ..WriterOptions::default()
    };
    let writer = stores.block_writer(1, options);
    let mut stored = 0;
    let refusal = loop {
        let (_, entry, content) = message(500_000);
        match writer.submit(Submission::new(entry, content)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 20);
    };
    assert_eq!(refusal, SubmitError::Full);
    assert!(stored >= 13, "{stored}");
    let blocks = blocks_of(&stores, P0).await;
    assert_eq!(blocks.len(), stored);
    let usage = stores.usage(P0).await.unwrap();
    assert!(usage.percent() > 85, "{usage:?}");

    // With the default watermark the writer turns mail away before that.
    let writer = stores.block_writer(1, WriterOptions::default());
    tokio::time::timeout(PATIENCE, async {
        while writer.is_accepting() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the writer sees that the spool is full");
    let (_, entry, content) = message(10);
    assert_eq!(
        writer.submit(Submission::new(entry, content)).await,
        Err(SubmitError::Full)
    );

    // And takes it again when there is room.
    stores.purge_spool(P0, usage.spool_last + 1).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while !writer.is_accepting() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the writer sees that there is room");
    let (_, entry, content) = message(10);
    assert!(writer.submit(Submission::new(entry, content)).await.is_ok());
}

#[tokio::test]
async fn too_much_at_once_is_refused_at_once() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.block_writer(
        1,
        WriterOptions {
            queue_bytes: 64 << 10,
            ..WriterOptions::default()
        },
    );
    let submits = (0..100).map(|_| {
        let (_, entry, content) = message(1_000);
        let writer = writer.clone();
        async move { writer.submit(Submission::new(entry, content)).await }
    });
    let results = futures::future::join_all(submits).await;
    let stored = results.iter().filter(|result| result.is_ok()).count();
    let overloaded = results
        .iter()
        .filter(|result| **result == Err(SubmitError::Overloaded))
        .count();
    assert_eq!((stored, overloaded), (16, 84));
    let (_, entry, content) = message((1 << 20) + 1);
    assert_eq!(
        writer.submit(Submission::new(entry, content)).await,
        Err(SubmitError::TooLarge((1 << 20) + 1))
    );
}
