//! Operations on the live queue, as they are stored.

use prost::Message as _;
use proto::operation::{Kind, Lifted, Operation, Selector};
use spool::OperationError;

use crate::server::Server;

const NOW_MS: u64 = 1_800_000_000_000;

/// A suspension of so many domains of a long name.
fn suspension(number: usize, domains: usize) -> Operation {
    Operation {
        id: format!("operation-{number}"),
        kind: Kind::Suspend.into(),
        author: "alice".to_owned(),
        selector: Some(Selector {
            domains: vec!["d".repeat(255); domains],
            ..Selector::default()
        }),
        ..Operation::default()
    }
}

#[tokio::test]
async fn operations_are_bounded_by_number_and_the_error_says_how_to_make_room() {
    let server = Server::start().await;
    let operations = server.stores(1).await.operations();
    // All at once, past what looks at the bound.
    let plain = server.plain().await;
    let mut stored = Vec::new();
    for number in 1..1_000 {
        let operation = suspension(number, 0);
        let subject = format!("$KV.config.operation.{}", operation.id);
        let value = operation.encode_to_vec().into();
        stored.push(plain.publish(subject, value).await.unwrap());
    }
    for stored in stored {
        stored.await.unwrap();
    }
    operations.add(&suspension(0, 0), NOW_MS).await.unwrap();
    let refused = operations
        .add(&suspension(1_000, 0), NOW_MS)
        .await
        .unwrap_err();
    assert!(
        matches!(refused, OperationError::TooMany { count: 1_000, .. }),
        "{refused}"
    );
    let text = refused.to_string();
    assert!(
        text.contains("1000") && text.contains("queue resume"),
        "{text}"
    );
    // One that is stored already is not one more.
    let again = operations.add(&suspension(7, 0), NOW_MS).await.unwrap();
    assert_eq!(
        again.map(|stored| stored.id).as_deref(),
        Some("operation-7")
    );
    // What is lifted while there are many stays for a minute, as the stream's time to live says.
    let lift = |operation: &mut Operation| operation.lifted = Some(Lifted::default());
    operations.lift("operation-7", lift).await.unwrap().unwrap();
    let stream = plain.get_stream("KV_config").await.unwrap();
    let stored = stream
        .get_last_raw_message_by_subject("$KV.config.operation.operation-7")
        .await
        .unwrap();
    let ttl = stored
        .headers
        .get("Nats-TTL")
        .map(|ttl| ttl.as_str().to_owned());
    assert_eq!(ttl.as_deref(), Some("60"));
}

#[tokio::test]
async fn operations_are_bounded_by_their_octets() {
    let server = Server::start().await;
    // The buckets' bound is a part of the volume.
    let operations = server.stores_of(1, 8 << 30).await.operations();
    let mut number = 0;
    let refused = loop {
        match operations.add(&suspension(number, 800), NOW_MS).await {
            Ok(_) => number += 1,
            Err(refused) => break refused,
        }
    };
    assert!(
        matches!(refused, OperationError::TooMany { .. }),
        "{refused}"
    );
    assert_eq!(number, (4 << 20) / (800 * 258 + 24));
    operations.add(&suspension(1_000, 0), NOW_MS).await.unwrap();
}
