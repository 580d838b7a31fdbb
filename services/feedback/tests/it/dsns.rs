//! What is reported, once.

use bytes::Bytes;
use mail::MessageId;
use proto::journal::DsnSpooled;
use proto::journal::entry::Kind;
use spool::{Submission, WriterOptions};

use crate::installation::{Installation, P0, SENDER, bounce, entry};

const CONTENT: &str = "From: me@sender.example\r\nSubject: hello\r\n\r\nbody\r\n";

#[tokio::test]
async fn recipients_that_fail_together_are_one_dsn_to_the_return_path() {
    let mut installation = Installation::start().await;
    let message = installation
        .spool(
            &[
                "a@receiver.example",
                "b@receiver.example",
                "c@other.example",
            ],
            CONTENT,
        )
        .await;
    let feedback = installation.feedback();
    installation.write(vec![bounce(message, &[0, 1])]).await;
    let dsns = installation.dsns(1).await;
    assert_eq!(dsns.len(), 1);
    let envelope = dsns[0].entry.envelope.clone().unwrap();
    assert_eq!(
        (
            envelope.return_path.as_str(),
            envelope.recipients[0].address.as_str()
        ),
        ("", SENDER)
    );
    assert_eq!(
        (envelope.tenant.as_str(), envelope.recipients.len()),
        ("acme", 1)
    );
    let reports_on = dsns[0].entry.reports_on.clone().unwrap();
    assert_eq!(
        (&reports_on.message_id[..], reports_on.ordinals),
        (&message.0.as_bytes()[..], vec![0, 1])
    );
    let text = &dsns[0].text;
    assert!(
        text.contains("Final-Recipient: rfc822; a@receiver.example")
            && text.contains("rfc822; b@receiver.example"),
        "{text}"
    );
    assert!(
        text.contains("Subject: hello") && !text.contains("c@other.example"),
        "{text}"
    );

    // Those that fail later are another one.
    installation.write(vec![bounce(message, &[2])]).await;
    let dsns = installation.dsns(2).await;
    assert_eq!((dsns.len(), dsns[0].id == dsns[1].id), (2, false));
    feedback.stop().await;
    assert_eq!(installation.position().await, Some(2));
}

#[tokio::test]
async fn nothing_is_stored_twice_after_a_restart_from_an_old_position() {
    let mut installation = Installation::start().await;
    let message = installation.spool(&["a@receiver.example"], CONTENT).await;
    let feedback = installation.feedback();
    installation.write(vec![bounce(message, &[0])]).await;
    let first = installation.dsns(1).await;
    feedback.abort().await;

    installation.set_position(0).await;
    let feedback = installation.feedback();
    let other = installation.spool(&["b@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(other, &[0])]).await;
    let dsns = installation.dsns(2).await;
    let ids: Vec<MessageId> = dsns.iter().map(|dsn| dsn.id).collect();
    assert_eq!((ids.len(), ids[0]), (2, first[0].id));
    feedback.stop().await;
    assert_eq!(installation.position().await, Some(2));
}

#[tokio::test]
async fn what_the_journal_says_is_spooled_is_not_spooled_again() {
    let mut installation = Installation::start().await;
    let done = installation.spool(&["a@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(done, &[0])]).await;
    let spooled = DsnSpooled {
        message_id: Bytes::copy_from_slice(done.0.as_bytes()),
        ordinals: vec![0],
        ..DsnSpooled::default()
    };
    installation.write(vec![Kind::DsnSpooled(spooled)]).await;
    let owed = installation.spool(&["b@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(owed, &[0])]).await;

    let feedback = installation.feedback();
    let dsns = installation.dsns(1).await;
    feedback.stop().await;
    assert_eq!(dsns.len(), 1);
    assert_eq!(
        &dsns[0].entry.reports_on.as_ref().unwrap().message_id[..],
        owed.0.as_bytes()
    );
    assert_eq!(installation.dsns(1).await.len(), 1);
}

#[tokio::test]
async fn mail_with_the_null_return_path_is_never_reported_on() {
    let mut installation = Installation::start().await;
    let id = MessageId::now();
    let mut silent = entry(id, &["a@receiver.example"], CONTENT.as_bytes());
    silent.envelope.as_mut().unwrap().return_path.clear();
    let place = installation
        .publish(vec![(silent, Bytes::from_static(CONTENT.as_bytes()))], 0)
        .await;
    installation.write(vec![bounce((id, place), &[0])]).await;
    let other = installation.spool(&["b@receiver.example"], CONTENT).await;
    installation.write(vec![bounce(other, &[0])]).await;
    let feedback = installation.feedback();
    let dsns = installation.dsns(1).await;
    feedback.stop().await;
    assert_eq!(dsns.len(), 1);
    assert_eq!(installation.position().await, Some(2));
}

#[tokio::test]
async fn of_a_large_message_the_header_comes_back() {
    let mut installation = Installation::start().await;
    let writer = installation
        .stores()
        .block_writer(1, WriterOptions::default());
    let header = "Subject: large\r\n\r\n";
    let id = MessageId::now();
    let mut upload = writer.begin_upload().unwrap();
    upload
        .push(Bytes::from_static(header.as_bytes()))
        .await
        .unwrap();
    for _ in 0..3 {
        upload.push(Bytes::from(vec![b'x'; 1 << 20])).await.unwrap();
    }
    let uploaded = upload.finish().await.unwrap();
    let entry = entry(id, &["a@receiver.example"], header.as_bytes());
    let stored = writer
        .submit(Submission::uploaded(entry, uploaded))
        .await
        .unwrap();
    assert_eq!(stored.partition, P0);
    let feedback = installation.feedback();
    installation
        .write(vec![bounce((id, stored.place), &[0])])
        .await;
    let dsns = installation.dsns(1).await;
    feedback.stop().await;
    assert!(
        dsns[0].text.contains("Subject: large") && dsns[0].text.len() < 4096,
        "{}",
        dsns[0].text
    );
}
