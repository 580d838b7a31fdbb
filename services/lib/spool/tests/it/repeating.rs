//! A publish whose outcome is not known is repeated: nothing acknowledged is lost, nothing is stored twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mail::{MessageId, PartitionId};
use spool::{BlockWriter, Stored, Submission, SubmitError, WriterOptions};

use crate::blocks::{blocks_of, message};
use crate::server::{PATIENCE, Server};

const CLIENTS: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_under_load_loses_and_doubles_nothing() {
    let mut server = Server::start().await;
    let stores = server.stores(2).await;
    let writer = stores.block_writer(
        2,
        WriterOptions {
            patience: PATIENCE,
            ..WriterOptions::default()
        },
    );
    let done = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (writer, done, count) = (writer.clone(), done.clone(), count.clone());
            tokio::spawn(async move {
                let mut stored = Vec::new();
                while !done.load(Relaxed) {
                    stored.push(store(&writer).await);
                    count.fetch_add(1, Relaxed);
                }
                stored
            })
        })
        .collect();
    // At least three times, and until a kill has hit a publish that was under way.
    let mut kills = 0;
    while kills < 3 || (writer.stats().repeated == 0 && kills < 20) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart().await;
        more_are_stored(&count).await;
        kills += 1;
    }
    more_are_stored(&count).await;
    done.store(true, Relaxed);
    let mut stored = HashMap::new();
    for client in clients {
        stored.extend(client.await.unwrap());
    }
    assert!(stored.len() >= 4 * CLIENTS, "{}", stored.len());
    let mut found = HashMap::new();
    for partition in [0, 1].map(PartitionId) {
        for block in blocks_of(&stores, partition).await {
            for (position, entry) in (0_u32..).zip(&block.result.as_ref().unwrap().entries) {
                let id = MessageId::try_from(entry.message_id.as_ref()).unwrap();
                let before = found.insert(id, (partition, block.sequence, position));
                assert_eq!(before, None, "{id} is there twice");
            }
        }
    }
    for (id, at) in &stored {
        assert_eq!(
            found.get(id),
            Some(&(at.partition, at.place.sequence, at.place.index)),
            "{id}"
        );
    }
    assert_eq!(found.len(), stored.len());
    assert!(
        writer.stats().repeated > 0,
        "no publish was interrupted: {:?}",
        writer.stats()
    );
}

/// Waits until clients have stored as many messages again as there are clients.
async fn more_are_stored(count: &AtomicUsize) {
    let enough = count.load(Relaxed) + CLIENTS;
    let stored = tokio::time::timeout(PATIENCE, async {
        while count.load(Relaxed) < enough {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    stored.await.expect("messages are stored again");
}

/// As a client does: what was certainly not stored is sent again, with the same id here.
async fn store(writer: &BlockWriter) -> (MessageId, Stored) {
    let (id, entry, content) = message(3_000);
    loop {
        let submission = Submission::new(entry.clone(), content.clone());
        match writer.submit(submission).await {
            Ok(stored) => return (id, stored),
            Err(SubmitError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn without_a_server_messages_wait_and_then_are_refused() {
    let mut server = Server::start().await;
    let stores = server.stores(1).await;
    let options = WriterOptions {
        patience: Duration::from_secs(1),
        repeat_for: Duration::from_secs(2),
        ..WriterOptions::default()
    };
    let writer = stores.block_writer(1, options);
    server.kill();
    let (_, entry, content) = message(10);
    let refused = tokio::time::timeout(PATIENCE, writer.submit(Submission::new(entry, content)));
    let refused = refused.await.unwrap().unwrap_err();
    assert!(
        matches!(
            refused,
            spool::SubmitError::Unavailable(_) | spool::SubmitError::Unknown(_)
        ),
        "{refused}"
    );
    server.restart().await;
    let stored = tokio::time::timeout(PATIENCE, async {
        loop {
            let (_, entry, content) = message(10);
            if let Ok(stored) = writer.submit(Submission::new(entry, content)).await {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    stored.await.unwrap();
}
