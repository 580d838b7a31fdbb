//! Begin, permit, report: nothing goes out twice, and no outcome is lost.

use std::time::Duration;

use proto::dispatch::scheduler_item::Kind as ToSender;
use proto::dispatch::sender_item::Kind as FromSender;
use proto::dispatch::{CloseSlot, Refused, Report, ReturnReason};

use super::host::Host;
use super::play::{
    ARRIVED, EPOCH, Messages, Scheduler, delivery, no_names, owns, replies, simple, start,
};

/// A host that accepts everything up to the content, then records what comes.
const UP_TO_CONTENT: &str = "hello\n mail\n <end";

fn assert_aborted(report: &Report, why: &str) {
    assert_eq!(replies(report), [(0, "prepare", 0, why.to_owned())]);
    assert!(!report.dot_sent);
}

#[tokio::test]
async fn without_a_permit_the_transaction_is_given_up_without_a_dot() {
    // So large that it goes out before the permit: when its end has come, the permit is waited for.
    let host = Host::start(&["hello\n mail\n <until last line\n tell\n <end"]).await;
    let mut messages = Messages::default();
    messages.add(
        1,
        &["b@dest.example"],
        &format!(
            "From: a@sender.example\r\n\r\n{}last line\r\n",
            "0123456789\r\n".repeat(10_000)
        ),
    );
    let (_started, _scheduler, mut stream) = super::play::with(messages).await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0]).await;
    stream.begin().await;
    host.told().await;
    tokio::time::pause();
    assert_aborted(&stream.report().await, "no permit came");
    // The rest is between sockets, for which a paused clock does not wait.
    tokio::time::resume();
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn a_permit_that_has_run_out_is_none() {
    let host = Host::start(&[UP_TO_CONTENT]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    stream.permit_for(&delivery, 0).await;
    assert_aborted(&stream.report().await, "the permit ran out");
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn a_permit_of_another_attempt_or_epoch_is_none() {
    let host = Host::start(&[UP_TO_CONTENT]).await;
    let (_started, scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    let mut other_attempt = delivery.clone();
    other_attempt.attempt += 1;
    let mut other_epoch = delivery.clone();
    other_epoch.epoch += 1;
    let mut other_recipients = delivery.clone();
    other_recipients.ordinals.push(1);
    for other in [other_attempt, other_epoch, other_recipients] {
        stream.permit(&other).await;
    }
    drop(stream);
    let mut stream = scheduler.stream(EPOCH).await;
    assert_aborted(
        &stream.report().await,
        "the stream to the scheduler broke before the permit",
    );
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn a_refused_begin_ends_the_dialogue_and_is_not_reported() {
    let host = Host::start(&[UP_TO_CONTENT, "hello\n mail\n <data\n > 250 kept"]).await;
    let (_started, scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    stream
        .send(ToSender::Refused(Refused {
            delivery: Some(delivery.clone()),
            reason: "unknown".into(),
        }))
        .await;
    assert!(
        matches!(stream.next().await, FromSender::SlotClosed(_)),
        "the connection is closed"
    );
    drop(stream);
    let mut stream = scheduler.stream(EPOCH).await;
    assert!(stream.hello.inventory.is_empty());
    stream.lane(host.port, |_| {}).await;
    assert_eq!(replies(&stream.carry(2, &[0]).await)[0].2, 250);
    host.done().await;
}

#[tokio::test]
async fn assignments_of_an_older_epoch_are_returned() {
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(9, |_| {}).await;
    stream.send(ToSender::Owns(owns(EPOCH + 1))).await;
    stream.assign(1, &[0]).await;
    assert_eq!(stream.returned().await.0, ReturnReason::StaleEpoch);
}

#[tokio::test]
async fn a_new_epoch_between_begin_and_permit_ends_the_transaction() {
    let host = Host::start(&[UP_TO_CONTENT]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    stream.send(ToSender::Owns(owns(EPOCH + 1))).await;
    stream.permit(&delivery).await;
    assert_aborted(&stream.report().await, "the partition has a new owner");
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn a_new_owner_between_permit_and_dot_ends_the_transaction_and_gets_the_report() {
    let host = Host::start(&[
        "hello\n < MAIL\n < RCPT\n < DATA\n gate\n > 250 ok\n > 250 ok\n > 354 go on\n <end",
    ])
    .await;
    let mut messages = Messages::default();
    messages.add(1, &["b@dest.example"], super::play::CONTENT);
    let (first, first_dispatch) = Scheduler::new();
    let (second, second_dispatch) = Scheduler::new();
    let _started = start(messages, vec![first_dispatch, second_dispatch], no_names());
    let mut old = first.stream(EPOCH).await;
    let mut new = second.bare_stream().await;
    old.lane(host.port, |_| {}).await;
    let delivery = old.assign(1, &[0]).await;
    old.begin().await;
    old.permit(&delivery).await;
    // Answered in order: when this comes back, the permit has been seen.
    old.send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(matches!(old.next().await, FromSender::SlotClosed(_)));
    new.send(ToSender::Owns(owns(EPOCH + 1))).await;
    new.send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(matches!(new.next().await, FromSender::SlotClosed(_)));
    host.open_gate();
    assert_aborted(&new.report().await, "the partition has a new owner");
    assert_eq!(host.done().await, [""]);
}

#[tokio::test]
async fn what_is_under_permit_finishes_without_the_stream_and_is_reported_until_stored() {
    let host = Host::start(&["hello\n mail\n <data\n gate\n > 250 kept"]).await;
    let (_started, scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    // The stream breaks when the content is at the host; it has no other way to tell.
    stream.permit(&delivery).await;
    stream
        .send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(matches!(stream.next().await, FromSender::SlotClosed(_)));
    drop(stream);
    let mut stream = scheduler.stream(EPOCH).await;
    let inventory = std::mem::take(&mut stream.hello.inventory);
    assert_eq!(inventory.len(), 1);
    assert!(inventory[0].begun);
    assert_eq!(inventory[0].delivery.as_ref(), Some(&delivery));
    host.open_gate();
    let report = stream.report().await;
    assert_eq!(replies(&report)[0].2, 250);
    assert!(report.dot_sent);
    assert_eq!(host.done().await, [ARRIVED]);
    for _ in 0..2 {
        drop(stream);
        stream = scheduler.stream(EPOCH).await;
        assert_eq!(stream.report().await, report);
    }
    stream.stored(&delivery).await;
    // Not before the report is known to be stored.
    stream
        .send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(matches!(stream.next().await, FromSender::SlotClosed(_)));
    drop(stream);
    let mut stream = scheduler.stream(EPOCH).await;
    stream
        .send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(
        matches!(stream.next().await, FromSender::SlotClosed(_)),
        "nothing is reported any more"
    );
}

#[tokio::test]
async fn what_is_not_begun_when_the_stream_breaks_may_be_assigned_again() {
    let host = Host::start(&["tell\n <end", "hello\n mail\n <data\n > 250 kept"]).await;
    let (_started, scheduler, stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    stream.assign(1, &[0]).await;
    host.told().await;
    drop(stream);
    let mut stream = scheduler.stream(EPOCH).await;
    assert!(stream.hello.inventory.is_empty());
    stream.lane(host.port, |_| {}).await;
    // The same attempt.
    assert_eq!(replies(&stream.carry(1, &[0]).await)[0].2, 250);
    host.done().await;
}

#[tokio::test]
async fn a_stop_returns_what_is_not_begun_and_finishes_the_rest() {
    let host = Host::start(&["hello\n mail\n <data\n > 250 kept\n < QUIT\n > 221 bye"]).await;
    let (started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    let first = stream.assign(1, &[0]).await;
    stream.begin().await;
    // Waits for the slot.
    stream.assign(2, &[0]).await;
    stream
        .send(ToSender::CloseSlot(CloseSlot { lane: 5, slot: 5 }))
        .await;
    assert!(matches!(stream.next().await, FromSender::SlotClosed(_)));
    started.shutdown.request();
    let (mut draining, mut returned) = (false, false);
    while !(draining && returned) {
        match stream.next_of_delivery().await {
            FromSender::Draining(_) => draining = true,
            FromSender::Returned(item) => {
                assert_eq!(item.reason(), ReturnReason::Draining);
                returned = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let late = delivery(2, &[0]);
    stream.assign_as(&late, 2, "dest.example").await;
    assert_eq!(stream.returned().await.0, ReturnReason::Draining);
    stream.permit(&first).await;
    let report = stream.report().await;
    assert_eq!(replies(&report)[0].2, 250);
    assert!(!started.task.is_finished());
    stream.stored(&first).await;
    started.task.await.unwrap();
    host.done().await;
}

#[tokio::test]
async fn a_slot_that_is_taken_back_ends_its_idle_connection() {
    let host = Host::start(&["hello\n mail\n <data\n > 250 kept\n < QUIT\n > 221 bye"]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream.lane(host.port, |_| {}).await;
    stream.carry(1, &[0]).await;
    stream
        .send(ToSender::CloseSlot(CloseSlot { lane: 1, slot: 0 }))
        .await;
    assert!(matches!(stream.next().await, FromSender::SlotClosed(_)));
    host.done().await;
}

#[tokio::test]
async fn what_the_simulator_answers_for_is_returned_and_nobody_is_connected_to() {
    let mut messages = Messages::default();
    for sequence in [1, 2] {
        let recipients = ["b@dest.example", "c@dest.example"];
        let entry = messages.add(sequence, &recipients, super::play::CONTENT);
        let envelope = entry.envelope.as_mut().unwrap();
        match sequence {
            1 => envelope.sandbox = true,
            _ => envelope.recipients[1].simulated = Some(Default::default()),
        }
    }
    let (_started, _scheduler, mut stream) = super::play::with(messages).await;
    // A port at which nobody would answer.
    stream.lane(9, |_| {}).await;
    for (sequence, ordinals, ordinal) in [(1, &[0][..], 0), (2, &[1], 1), (2, &[0, 1], 1)] {
        stream.assign(sequence, ordinals).await;
        let (reason, detail) = stream.returned().await;
        assert_eq!(reason, ReturnReason::Damaged);
        assert_eq!(detail, format!("recipient {ordinal} is the simulator's"));
    }
}

#[tokio::test]
async fn assignments_that_can_not_be_carried_out_are_returned_with_the_reason() {
    let mut messages = Messages::default();
    messages.add(1, &["b@dest.example"], super::play::CONTENT);
    let (_started, _scheduler, mut stream) = super::play::with(messages).await;
    stream.assign(1, &[0]).await;
    assert_eq!(
        stream.returned().await.0,
        ReturnReason::Unspecified,
        "no such lane"
    );
    stream.lane(9, |_| {}).await;
    stream.assign(99, &[0]).await;
    assert_eq!(stream.returned().await.0, ReturnReason::NotFound);
    stream.assign(1, &[4]).await;
    assert_eq!(
        stream.returned().await.0,
        ReturnReason::Damaged,
        "no such recipient"
    );
}

#[tokio::test]
async fn a_scheduler_that_wants_to_know_hears_of_the_dot_before_the_reply_to_it() {
    let host = Host::start(&["hello\n mail\n <until .\n tell\n <end"]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream
        .lane(host.port, |lane| lane.left_within_ms = 600_000)
        .await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    stream.permit(&delivery).await;
    let FromSender::Left(left) = stream.next_of_delivery().await else {
        panic!("the dot was sent");
    };
    assert_eq!(left.delivery, Some(delivery));
}

#[tokio::test]
async fn a_message_that_is_long_under_way_counts_as_left_before_its_dot() {
    let host = Host::start(&[UP_TO_CONTENT]).await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream
        .lane(host.port, |lane| lane.left_within_ms = 50)
        .await;
    let delivery = stream.assign(1, &[0]).await;
    stream.begin().await;
    // There is no permit, so no dot.
    let FromSender::Left(left) = stream.next_of_delivery().await else {
        panic!("it was long enough under way");
    };
    assert_eq!(left.delivery, Some(delivery));
}

#[tokio::test]
async fn the_time_until_a_message_counts_as_left_begins_with_mail() {
    let host = Host::start(&["> 220 mx
        < EHLO
        > 250 mx
        < MAIL
        > 250 ok
        < RCPT
        > 550 no
        < RSET
        tell
        gate
        > 250 ok
        < MAIL
        tell
        <end"])
    .await;
    let (_started, _scheduler, mut stream) = simple().await;
    stream
        .lane(host.port, |lane| lane.left_within_ms = 50)
        .await;
    stream.assign(1, &[0]).await;
    while !matches!(stream.next_of_delivery().await, FromSender::Report(_)) {}
    let delivery = stream.assign(2, &[0]).await;
    stream.begin().await;
    host.told().await;
    // The host takes its time for RSET.
    let early = tokio::time::timeout(Duration::from_millis(300), stream.next_of_delivery());
    assert!(early.await.is_err(), "MAIL is not out yet");
    host.open_gate();
    host.told().await;
    let FromSender::Left(left) = stream.next_of_delivery().await else {
        panic!("it was long enough under way");
    };
    assert_eq!(left.delivery, Some(delivery));
}
