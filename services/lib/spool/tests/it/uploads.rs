//! Large messages.

use std::time::Duration;

use bytes::Bytes;
use mail::{MessageId, PartitionId};
use spool::{BlockDamage, Content, ReadError, Submission, WriterOptions};

use crate::blocks::message;
use crate::server::Server;

/// Twenty megabytes that are not all alike.
fn large() -> Bytes {
    (0..20_u32 << 20)
        .map(|position| (position.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect::<Vec<_>>()
        .into()
}

#[tokio::test]
async fn twenty_megabytes_go_in_chunks_and_come_back() {
    let server = Server::start().await;
    let stores = server.stores(2).await;
    let writer = stores.block_writer(2, WriterOptions::default());
    let content = large();
    let mut upload = writer.begin_upload().unwrap();
    // Pieces of all sizes: gathered, as they are, divided.
    let mut rest = content.clone();
    for length in [1_000, 300_000, 600_000, 4_000_000].into_iter().cycle() {
        let piece = rest.split_to(length.min(rest.len()));
        upload.push(piece).await.unwrap();
        if rest.is_empty() {
            break;
        }
    }
    let uploaded = upload.finish().await.unwrap();
    assert_eq!(uploaded.length(), content.len() as u64);
    let partition = uploaded.partition();
    let (id, entry, _) = message(0);
    let stored = writer
        .submit(Submission::uploaded(entry, uploaded))
        .await
        .unwrap();
    assert_eq!(stored.partition, partition);

    let reader = stores.message_reader(1 << 20);
    let read = reader.read(partition, stored.place, id).await.unwrap();
    assert_eq!(read.content, content);
    let chunks = read.entry.chunks.as_ref().unwrap();
    assert!(
        chunks.sequences.len() >= 20 && chunks.sequences.len() <= 40,
        "{}",
        chunks.sequences.len()
    );
    let opened = reader.open(partition, stored.place, id).await.unwrap();
    let Content::Chunks(mut streamed) = opened.content else {
        panic!("it has chunks")
    };
    let mut length = 0;
    while let Some(chunk) = streamed.next().await.unwrap() {
        assert!(chunk.len() <= 1 << 20);
        length += chunk.len();
    }
    assert_eq!(length, content.len());

    let uploads = stores.list_uploads(partition).await.unwrap();
    assert_eq!(uploads.len(), 1);
    assert_eq!(
        (uploads[0].upload_id.as_str(), uploads[0].chunks),
        (chunks.upload_id.as_str(), chunks.sequences.len() as u64)
    );
    assert!(uploads[0].begun_ms.abs_diff(id.unix_ms()) < 60_000);
    // It is young: nothing is stale, whatever is said of it.
    assert_eq!(
        stores
            .purge_stale_chunks(partition, |_| false)
            .await
            .unwrap(),
        0
    );
    stores
        .purge_chunks(partition, &chunks.upload_id)
        .await
        .unwrap();
    assert!(stores.list_uploads(partition).await.unwrap().is_empty());
    let error = reader.read(partition, stored.place, id).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Damaged(BlockDamage::MissingChunk(_))),
        "{error}"
    );
}

#[tokio::test]
async fn an_upload_that_is_given_up_leaves_its_chunks_to_the_owner() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let writer = stores.block_writer(1, WriterOptions::default());
    let mut upload = writer.begin_upload().unwrap();
    for _ in 0..6 {
        upload.push(Bytes::from(vec![7; 600_000])).await.unwrap();
    }
    drop(upload);
    let partition = PartitionId(0);
    let uploads = stores.list_uploads(partition).await.unwrap();
    assert_eq!(uploads.len(), 1);
    let upload_id = uploads[0].upload_id.clone();
    assert!(upload_id.parse::<MessageId>().is_ok());
    tokio::time::sleep(Duration::from_millis(20)).await;
    let unused_for = Duration::from_millis(10);
    assert_eq!(
        stores
            .purge_uploads(partition, unused_for, |id| id == upload_id)
            .await
            .unwrap(),
        0
    );
    // An old upload that goes on is left alone: what counts is its newest chunk.
    let old = "01234567-0000-7000-8000-000000000000";
    let plain = server.plain().await;
    plain
        .publish(format!("chunks.0.{old}"), "new".into())
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(
        stores
            .purge_stale_chunks(partition, |_| false)
            .await
            .unwrap(),
        0
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(
        stores
            .purge_uploads(partition, unused_for, |_| false)
            .await
            .unwrap(),
        2
    );
    assert!(stores.list_uploads(partition).await.unwrap().is_empty());
}
