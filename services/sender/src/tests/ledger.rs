//! The ledger by itself.

use std::time::{Duration, Instant};

use proto::dispatch::{DeliveryRef, Report, ReturnReason, SenderItem, sender_item::Kind};

use super::play::{EPOCH, delivery, owns};
use crate::attempt::{Denied, Effect, StreamId, Ticket};
use crate::ledger::Ledger;

const A: StreamId = StreamId(1);
const B: StreamId = StreamId(2);
const MINUTE: Duration = Duration::from_secs(60);

type Effects = Vec<Effect<&'static str, &'static str>>;

fn ledger() -> Ledger<&'static str, &'static str> {
    let mut ledger = Ledger::new(3);
    assert!(ledger.attach(A, 2).is_empty());
    assert!(ledger.owns(A, &owns(EPOCH).partitions).is_empty());
    ledger
}

fn assign(ledger: &mut Ledger<&'static str, &'static str>, delivery: &DeliveryRef) -> Ticket {
    let mut effects = Effects::new();
    let ticket = ledger.assign(A, delivery, &mut effects).unwrap();
    assert_eq!(ledger.started(ticket, "task"), None);
    assert_eq!(effects, []);
    ticket
}

fn begin(ledger: &mut Ledger<&'static str, &'static str>, ticket: Ticket) {
    let mut effects = Effects::new();
    ledger
        .begin(ticket, 10 * MINUTE, "waiter", &mut effects)
        .unwrap();
    assert!(matches!(
        effects[..],
        [Effect::Send(
            A,
            SenderItem {
                kind: Some(Kind::Begin(_))
            }
        )]
    ));
}

fn report(delivery: &DeliveryRef) -> Report {
    Report {
        delivery: Some(delivery.clone()),
        ..Report::default()
    }
}

fn is_report(effect: &Effect<&'static str, &'static str>, to: StreamId) -> bool {
    matches!(effect, Effect::Send(stream, SenderItem { kind: Some(Kind::Report(_)) }) if *stream == to)
}

#[test]
fn no_more_is_held_than_the_credit_and_no_more_owed_than_the_bound() {
    let mut ledger = ledger();
    let mut effects = Effects::new();
    let tickets: Vec<Ticket> = (1..=2)
        .map(|n| assign(&mut ledger, &delivery(n, &[0])))
        .collect();
    assert!(ledger.assign(A, &delivery(3, &[0]), &mut effects).is_err());
    for (n, ticket) in (1..).zip(tickets) {
        ledger
            .finish(ticket, report(&delivery(n, &[0])), &mut effects)
            .unwrap();
    }
    let third = assign(&mut ledger, &delivery(3, &[0]));
    ledger
        .finish(third, report(&delivery(3, &[0])), &mut effects)
        .unwrap();
    assert_eq!((ledger.held(), ledger.owed()), (0, 3));
    assert!(ledger.assign(A, &delivery(4, &[0]), &mut effects).is_err());
    ledger.stored(&delivery(1, &[0]));
    assert!(ledger.assign(A, &delivery(4, &[0]), &mut effects).is_ok());
}

#[test]
fn an_attempt_that_is_held_or_owed_is_not_taken_again() {
    let mut ledger = ledger();
    let mut effects = Effects::new();
    let ticket = assign(&mut ledger, &delivery(1, &[0]));
    assert!(ledger.assign(A, &delivery(1, &[0]), &mut effects).is_err());
    ledger
        .finish(ticket, report(&delivery(1, &[0])), &mut effects)
        .unwrap();
    assert!(ledger.assign(A, &delivery(1, &[0]), &mut effects).is_err());
}

#[test]
fn the_dot_needs_a_permit_that_lasts() {
    let now = Instant::now();
    let mut ledger = ledger();
    let ticket = assign(&mut ledger, &delivery(1, &[0]));
    assert_eq!(
        ledger.permit(A, &delivery(1, &[0]), MINUTE, now),
        None,
        "nothing is begun"
    );
    assert_eq!(ledger.may_send_dot(ticket, now), Err(Denied::NoPermit));
    begin(&mut ledger, ticket);
    assert_eq!(ledger.may_send_dot(ticket, now), Err(Denied::NoPermit));
    assert_eq!(
        ledger.permit(B, &delivery(1, &[0]), MINUTE, now),
        None,
        "another scheduler"
    );
    let answer = ledger.permit(A, &delivery(1, &[0]), MINUTE, now);
    assert_eq!(answer, Some(Effect::Answer("waiter", Ok(now + MINUTE))));
    assert_eq!(
        ledger.may_send_dot(ticket, now + MINUTE),
        Err(Denied::Expired)
    );
    assert_eq!(
        ledger.may_send_dot(ticket, now + MINUTE - Duration::from_millis(1)),
        Ok(())
    );
    assert_eq!(
        ledger.may_send_dot(ticket, now),
        Err(Denied::NoPermit),
        "one dot for one permit"
    );
}

#[test]
fn a_broken_stream_drops_what_is_not_begun_and_denies_what_waits() {
    let now = Instant::now();
    let mut ledger = Ledger::new(9);
    ledger.attach(A, 9);
    let preparing = assign(&mut ledger, &delivery(1, &[0]));
    let begun = assign(&mut ledger, &delivery(2, &[0]));
    let permitted = assign(&mut ledger, &delivery(3, &[0]));
    begin(&mut ledger, begun);
    begin(&mut ledger, permitted);
    ledger.permit(A, &delivery(3, &[0]), MINUTE, now);
    let mut effects = ledger.detach(A);
    effects.sort_by_key(|effect| matches!(effect, Effect::Stop(_)));
    assert_eq!(
        effects,
        [
            Effect::Answer("waiter", Err(Denied::StreamBroken)),
            Effect::Stop("task")
        ]
    );
    assert!(
        ledger
            .begin(preparing, MINUTE, "waiter", &mut effects)
            .is_err()
    );
    assert_eq!(ledger.may_send_dot(begun, now), Err(Denied::StreamBroken));
    assert_eq!(ledger.attach(B, 9).len(), 2);
    assert_eq!(
        ledger.may_send_dot(permitted, now),
        Ok(()),
        "the permit stands"
    );
    // Both end while nobody owns the partition; the next owner gets the reports, a second one again.
    effects.clear();
    ledger
        .finish(begun, report(&delivery(2, &[0])), &mut effects)
        .unwrap();
    ledger
        .finish(permitted, report(&delivery(3, &[0])), &mut effects)
        .unwrap();
    assert_eq!(effects, []);
    let sent = ledger.owns(B, &owns(EPOCH).partitions);
    assert!(sent.len() == 2 && sent.iter().all(|effect| is_report(effect, B)));
    assert!(
        ledger.owns(B, &owns(EPOCH).partitions).is_empty(),
        "said before"
    );
    ledger.attach(A, 9);
    let sent = ledger.owns(A, &owns(EPOCH + 1).partitions);
    assert!(sent.len() == 2 && sent.iter().all(|effect| is_report(effect, A)));
    // A scheduler that lost the partition and took it again, on the same stream, has lost what it had not stored.
    let sent = ledger.owns(A, &owns(EPOCH + 2).partitions);
    assert!(sent.len() == 2 && sent.iter().all(|effect| is_report(effect, A)));
    assert!(ledger.owns(A, &owns(EPOCH + 2).partitions).is_empty());
    assert!(
        ledger.owns(B, &owns(EPOCH).partitions).is_empty(),
        "an older epoch gets nothing"
    );
}

#[test]
fn a_newer_epoch_ends_what_has_no_permit_and_keeps_the_dot_back_from_what_has() {
    let now = Instant::now();
    let mut ledger = Ledger::new(9);
    ledger.attach(A, 9);
    ledger.attach(B, 9);
    let preparing = assign(&mut ledger, &delivery(1, &[0]));
    let permitted = assign(&mut ledger, &delivery(3, &[0]));
    begin(&mut ledger, permitted);
    ledger.permit(A, &delivery(3, &[0]), MINUTE, now);
    let effects = ledger.owns(B, &owns(EPOCH + 1).partitions);
    assert!(matches!(
        &effects[..],
        [Effect::Stop("task"), Effect::Send(A, SenderItem { kind: Some(Kind::Returned(returned)) })] if returned.reason() == ReturnReason::StaleEpoch
    ));
    assert!(
        ledger
            .begin(preparing, MINUTE, "waiter", &mut Vec::new())
            .is_err()
    );
    assert_eq!(ledger.may_send_dot(permitted, now), Err(Denied::StaleEpoch));
    let refused = ledger.assign(A, &delivery(4, &[0]), &mut Vec::new());
    assert_eq!(refused.unwrap_err().0, ReturnReason::StaleEpoch);
}

#[test]
fn a_stop_gives_back_what_is_not_begun() {
    let mut ledger = ledger();
    let begun = assign(&mut ledger, &delivery(1, &[0]));
    begin(&mut ledger, begun);
    assign(&mut ledger, &delivery(2, &[0]));
    let effects = ledger.drain();
    assert!(matches!(
        &effects[..],
        [Effect::Stop("task"), Effect::Send(A, SenderItem { kind: Some(Kind::Returned(returned)) })] if returned.reason() == ReturnReason::Draining
    ));
    assert_eq!(ledger.held(), 1);
    assert_eq!(
        ledger
            .assign(A, &delivery(3, &[0]), &mut Vec::new())
            .unwrap_err()
            .0,
        ReturnReason::Draining
    );
}

#[test]
fn a_task_that_was_over_before_it_was_known_is_ended() {
    let mut ledger = ledger();
    let ticket = ledger
        .assign(A, &delivery(1, &[0]), &mut Vec::new())
        .unwrap();
    assert_eq!(ledger.detach(A), []);
    assert_eq!(ledger.started(ticket, "task"), Some("task"));
}
