//! Messages that are not delivered by the time that their client asked for.

use proto::journal::Disposition;
use proto::spool::ReportsDelay;

use super::*;
use crate::deadlines::LATE_NOTICE;

/// To one recipient, wanted within a minute.
fn accept(desk: &mut Desk, change: impl FnOnce(&mut Envelope)) -> MessageId {
    let id = desk.id();
    let mut entry = entry(id, &["a@one.example"]);
    let envelope = entry.envelope.as_mut().unwrap();
    envelope.deliver_by_ms = desk.now_ms + 60_000;
    change(envelope);
    desk.accept(vec![entry]);
    id
}

/// Notices of the outcomes that say that a message is late.
fn late(desk: &mut Desk) -> Vec<u32> {
    desk.settle();
    let outcomes = desk.outcomes();
    let recipients = outcomes.iter().flat_map(|outcome| &outcome.recipients);
    recipients
        .filter(|recipient| recipient.disposition() == Disposition::Late)
        .map(|recipient| recipient.delay_notice)
        .collect()
}

#[test]
fn is_noted_once_when_the_time_is_over_and_the_message_is_tried_on() {
    let mut desk = Desk::new();
    let id = accept(&mut desk, |_| {});
    desk.attempt(Verdict::Transient);
    let states = desk.states(id);
    desk.pass(59_000);
    assert_eq!(late(&mut desk), []);
    assert_eq!(desk.intake.next_wake(), Some(START_MS + 60_000));
    desk.pass(1_000);
    assert_eq!(late(&mut desk), [LATE_NOTICE]);
    let outcome = desk.outcomes().pop().unwrap();
    assert_eq!(outcome.recipients[0].tried_until_ms, START_MS + 86_400_000);
    desk.crash();
    desk.pass(0);
    assert_eq!(late(&mut desk), [LATE_NOTICE]);
    assert_eq!(desk.states(id).len(), states.len());
    desk.pass(60_000);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn one_that_is_at_a_sender_stays_there() {
    let mut desk = Desk::new();
    let id = accept(&mut desk, |_| {});
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.settle();
    desk.pass(61_000);
    assert_eq!(late(&mut desk), [LATE_NOTICE]);
    assert_eq!(desk.states(id)[0].1, State::InFlight);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    // Nobody is told any more: it arrived.
    assert!(!desk.is_live(id) && desk.intake.live.delays_owed.is_empty());
}

#[test]
fn what_is_delivered_in_time_is_not_late() {
    let mut desk = Desk::new();
    accept(&mut desk, |_| {});
    desk.attempt(Verdict::Delivered);
    desk.pass(120_000);
    assert_eq!(late(&mut desk), []);
    assert_eq!(desk.intake.live.deadlines.next(), None);
}

#[test]
fn notify_says_who_is_told() {
    for (notify, path, expected) in [
        (0, "sender@acme.example", LATE_NOTICE),
        (8, "sender@acme.example", LATE_NOTICE),
        (4, "sender@acme.example", 0),
        (1, "sender@acme.example", 0),
        (0, "", 0),
    ] {
        let mut desk = Desk::new();
        accept(&mut desk, |envelope| {
            envelope.recipients[0].notify = notify;
            envelope.return_path = path.to_owned();
        });
        desk.pass(60_000);
        assert_eq!(late(&mut desk), [expected], "{notify} {path}");
        assert_eq!(desk.intake.live.delays_owed.is_empty(), expected == 0);
    }
}

#[test]
fn outlives_its_owner_with_and_without_a_snapshot() {
    for with_snapshot in [false, true] {
        let mut desk = Desk::new();
        accept(&mut desk, |_| {});
        desk.attempt(Verdict::Transient);
        desk.settle();
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        desk.pass(60_000);
        assert_eq!(late(&mut desk), [LATE_NOTICE], "{with_snapshot}");
    }
}

#[test]
fn its_notice_is_taken_once() {
    let mut desk = Desk::new();
    let id = accept(&mut desk, |_| {});
    desk.pass(60_000);
    desk.settle();
    let (first, again) = (desk.id(), desk.id());
    let notice = |own: MessageId| {
        let mut entry = notification(own, id, &[0]);
        entry.reports_on = None;
        entry.reports_delay = Some(ReportsDelay {
            message_id: id.as_bytes().to_vec().into(),
            ordinals: vec![0],
            notice: LATE_NOTICE,
        });
        entry
    };
    desk.accept(vec![notice(first), notice(again)]);
    assert!(desk.is_live(first) && !desk.is_live(again));
}
