//! Moved messages, a journal that was trimmed too early, a server that dies.

use bytes::Bytes;
use mail::{MessageId, Place};
use proto::journal::entry::Kind;
use proto::journal::{LiveMessage, Moved, SnapshotEnd, SnapshotPart, SnapshotStart};
use spool::BLOCK_COPY;

use crate::installation::{Installation, P0, PATIENCE, bounce, entry};

const CONTENT: &str = "From: me@sender.example\r\nSubject: hello\r\n\r\nbody\r\n";

fn bytes_of(id: MessageId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

#[tokio::test]
async fn a_message_that_was_moved_is_found_where_it_went() {
    let mut installation = Installation::start().await;
    let (id, old) = installation.spool(&["a@receiver.example"], CONTENT).await;
    let content = Bytes::from_static(CONTENT.as_bytes());
    let new = installation
        .publish(
            vec![(entry(id, &["a@receiver.example"], &content), content)],
            BLOCK_COPY,
        )
        .await;
    installation
        .stores()
        .purge_spool(P0, new.sequence)
        .await
        .unwrap();
    let feedback = installation.feedback();
    installation.write(vec![bounce((id, old), &[0])]).await;
    // It is looked for in vain until the journal tells.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    installation
        .write(vec![Kind::Moved(Moved {
            sequence: new.sequence,
            message_ids: vec![bytes_of(id)],
        })])
        .await;
    let dsns = installation.dsns(1).await;
    feedback.stop().await;
    assert!(dsns[0].text.contains("a@receiver.example"));
    assert_eq!(installation.position().await, Some(2));
}

#[tokio::test]
async fn what_was_trimmed_before_it_was_read_is_taken_from_the_snapshot() {
    let mut installation = Installation::start().await;
    let message = installation
        .spool(&["a@receiver.example", "b@receiver.example"], CONTENT)
        .await;
    installation.write(vec![bounce(message, &[1])]).await;
    let start = installation
        .write(vec![Kind::SnapshotStart(SnapshotStart {
            snapshot_id: Bytes::from_static(b"s"),
            ..SnapshotStart::default()
        })])
        .await;
    let live = LiveMessage {
        message_id: bytes_of(message.0),
        sequence: message.1.sequence,
        index: message.1.index,
        dsn_owed: vec![1],
        ..LiveMessage::default()
    };
    let part = SnapshotPart {
        snapshot_id: Bytes::from_static(b"s"),
        messages: vec![live],
        ..SnapshotPart::default()
    };
    installation.write(vec![Kind::SnapshotPart(part)]).await;
    installation
        .write(vec![Kind::SnapshotEnd(SnapshotEnd {
            snapshot_id: Bytes::from_static(b"s"),
            start,
        })])
        .await;
    installation.set_position(0).await;
    installation
        .stores()
        .journal(P0)
        .purge_below(start)
        .await
        .unwrap();

    let feedback = installation.feedback();
    let dsns = installation.dsns(1).await;
    feedback.stop().await;
    let reports_on = dsns[0].entry.reports_on.clone().unwrap();
    assert_eq!(
        (&reports_on.message_id[..], reports_on.ordinals),
        (&message.0.as_bytes()[..], vec![1])
    );
    assert!(
        dsns[0].text.contains("rfc822; b@receiver.example"),
        "{}",
        dsns[0].text
    );
    assert_eq!(installation.position().await, Some(4));
}

#[tokio::test]
async fn goes_on_when_the_server_was_killed() {
    let mut installation = Installation::start().await;
    let feedback = installation.feedback();
    let message = installation.spool(&["a@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(message, &[0])]).await;
    installation.dsns(1).await;
    installation.restart_server().await;
    let place: Place = message.1;
    let id = message.0;
    installation.write(vec![bounce((id, place), &[0])]).await;
    let again = loop {
        // The server may still be starting.
        let id = MessageId::now();
        let content = Bytes::from_static(CONTENT.as_bytes());
        let entry = entry(id, &["b@receiver.example"], &content);
        match installation
            .stores()
            .publish_block(P0, *id.as_bytes(), vec![(entry, content)], 0)
            .await
        {
            Ok(sequence) => break (id, Place { sequence, index: 0 }),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    };
    installation.write(vec![bounce(again, &[0])]).await;
    let dsns = installation.dsns(2).await;
    assert_eq!(dsns.len(), 2);
    feedback.stop().await;
}

#[tokio::test]
async fn stops_though_the_server_is_away() {
    let mut installation = Installation::start().await;
    let feedback = installation.feedback();
    let message = installation.spool(&["a@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(message, &[0])]).await;
    installation.dsns(1).await;
    installation.kill();
    tokio::time::timeout(PATIENCE, feedback.stop())
        .await
        .expect("it does not wait for the server");
}
