//! The journal: fenced appends, replay, following.

use std::time::Duration;

use bytes::Bytes;
use spool::{Append, JournalError};

use crate::blocks::P0;
use crate::server::{PATIENCE, Server};

#[tokio::test]
async fn an_append_behind_the_end_is_refused_and_a_repeated_one_is_stored_once() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let journal = stores.journal(P0);
    assert_eq!(journal.tail().await.unwrap(), None);
    assert_eq!(
        journal.append(Bytes::from_static(b"claim"), "a", 0).await,
        Append::Stored(1)
    );
    assert_eq!(
        journal.append(Bytes::from_static(b"second"), "b", 1).await,
        Append::Stored(2)
    );
    // A repetition after a lost answer, though the journal has gone on since.
    assert_eq!(
        journal.append(Bytes::from_static(b"claim"), "a", 0).await,
        Append::Stored(1)
    );
    let fenced = journal.append(Bytes::from_static(b"stale"), "c", 1).await;
    assert!(
        matches!(fenced, Append::WrongLastSequence { expected: 1, .. }),
        "{fenced:?}"
    );
    let tail = journal.tail().await.unwrap().unwrap();
    assert_eq!(
        (tail.sequence, tail.message_id.as_str(), tail.bytes.as_ref()),
        (2, "b", b"second".as_slice())
    );
    let info = journal.info().await.unwrap();
    assert_eq!((info.first, info.last), (1, 2));
    assert!(info.bytes > 0 && info.max_bytes > info.bytes);
}

#[tokio::test]
async fn replay_ends_where_it_should_and_following_goes_on() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let journal = stores.journal(P0);
    for number in 0..100_u64 {
        let record = Bytes::from(number.to_string());
        assert_eq!(
            journal.append(record, &format!("r{number}"), number).await,
            Append::Stored(number + 1)
        );
    }
    let mut replay = journal.replay(11, 90);
    for sequence in 11..=90 {
        let record = replay.next().await.unwrap().unwrap();
        assert_eq!(
            (record.sequence, record.bytes),
            (sequence, Bytes::from((sequence - 1).to_string()))
        );
    }
    assert!(replay.next().await.is_none());

    let mut follower = journal.follow(100);
    assert_eq!(follower.next().await.unwrap().unwrap().sequence, 100);
    assert_eq!(
        journal.append(Bytes::from_static(b"new"), "new", 100).await,
        Append::Stored(101)
    );
    assert_eq!(follower.next().await.unwrap().unwrap().bytes, "new");

    // What was purged is missed, not passed over.
    journal.purge_below(50).await.unwrap();
    assert_eq!(journal.info().await.unwrap().first, 50);
    let error = journal.follow(40).next().await.unwrap().unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Gap {
                expected: 40,
                found: Some(50)
            }
        ),
        "{error}"
    );
    let mut beyond = journal.replay(101, 102);
    assert_eq!(beyond.next().await.unwrap().unwrap().sequence, 101);
    assert!(matches!(
        beyond.next().await,
        Some(Err(JournalError::Gap {
            expected: 102,
            found: None
        }))
    ));
}

#[tokio::test]
async fn a_damaged_record_stops_the_reader() {
    let server = Server::start().await;
    let stores = server.stores(1).await;
    let journal = stores.journal(P0);
    assert_eq!(
        journal.append(Bytes::from_static(b"good"), "a", 0).await,
        Append::Stored(1)
    );
    let plain = server.plain().await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Staffetta-Crc", "00000000");
    plain
        .publish_with_headers("journal.0", headers, "bad".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let mut reader = journal.follow(1);
    assert!(reader.next().await.unwrap().is_ok());
    assert!(matches!(
        reader.next().await,
        Some(Err(JournalError::Damaged(2)))
    ));
    assert!(reader.next().await.is_none());
    assert!(matches!(
        journal.tail().await,
        Err(JournalError::Damaged(2))
    ));
}

#[tokio::test]
async fn a_full_journal_says_so() {
    let server = Server::start().await;
    // 20 % of 80 % of 16 MiB: 2.7 MB.
    let stores = server.stores_of(1, 16 << 20).await;
    let journal = stores.journal(P0);
    let mut last = 0;
    let refused = loop {
        match journal
            .append(Bytes::from(vec![0; 500_000]), &format!("r{last}"), last)
            .await
        {
            Append::Stored(sequence) => last = sequence,
            other => break other,
        }
    };
    assert_eq!((refused, last), (Append::Full, 5));
}

#[tokio::test]
async fn readers_survive_a_restart_of_the_server() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let journal = stores.journal(P0);
    let mut follower = journal.follow(1);
    let mut blocks = stores.follow_blocks(P0, 0);
    assert!(matches!(
        blocks.next().await.unwrap(),
        spool::Followed::CaughtUp { .. }
    ));
    assert_eq!(
        journal.append(Bytes::from_static(b"before"), "a", 0).await,
        Append::Stored(1)
    );
    assert_eq!(follower.next().await.unwrap().unwrap().sequence, 1);
    server.kill();
    server.restart().await;
    let stored = tokio::time::timeout(PATIENCE, async {
        loop {
            match journal.append(Bytes::from_static(b"after"), "b", 1).await {
                Append::Unknown(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                other => return other,
            }
        }
    });
    assert_eq!(stored.await.unwrap(), Append::Stored(2));
    let next = tokio::time::timeout(PATIENCE, async {
        loop {
            match follower.next().await.unwrap() {
                Ok(record) => return record,
                Err(error) => assert!(matches!(error, JournalError::Unavailable(_)), "{error}"),
            }
        }
    });
    assert_eq!(next.await.unwrap().sequence, 2);
    let (_, entry, content) = crate::blocks::message(10);
    // Blocks have a connection of their own, which may be back later.
    let published = tokio::time::timeout(PATIENCE, async {
        loop {
            let messages = vec![(entry.clone(), content.clone())];
            match stores.publish_block(P0, [1; 16], messages, 0).await {
                Ok(sequence) => return sequence,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    });
    let published = published.await.unwrap();
    let block = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(spool::Followed::Block(block)) = blocks.next().await {
                return block;
            }
        }
    });
    assert_eq!(block.await.unwrap().sequence, published);
}
