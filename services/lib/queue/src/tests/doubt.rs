//! Attempts whose outcome is not known.

use proto::journal::Disposition;

use super::*;

const AFTER_MS: u64 = 680_000;

/// One message whose only attempt is begun and whose sender is gone.
fn in_doubt(policy: InDoubt) -> (Desk, MessageId, DeliveryRef) {
    let mut desk = Desk::new();
    desk.rules.in_doubt = policy;
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.settle();
    desk.intake.session_gone(desk.now_ms, SESSION);
    (desk, id, delivery)
}

#[test]
fn waits_for_longer_than_a_permit_and_a_final_dot_can_last() {
    let settings = Settings::default();
    assert_eq!(settings.in_doubt_margin_ms + 600_000, AFTER_MS);
    assert!(settings.in_doubt_margin_ms >= settings.permit_within_ms + 60_000);
    let (mut desk, ..) = in_doubt(InDoubt::Retry);
    assert_eq!(desk.intake.next_wake(), Some(START_MS + AFTER_MS));
    desk.pass(AFTER_MS - 1);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.pass(1);
    assert!(desk.assign_to(SESSION).is_some());
}

#[test]
fn time_that_an_owner_saw_pass_counts_and_other_time_does_not_whatever_the_clocks_show() {
    for next_ms in [
        START_MS - 86_400_000,
        START_MS + 300_000,
        START_MS + 36_000_000,
    ] {
        let (mut desk, ..) = in_doubt(InDoubt::Retry);
        // The last record is written 100 s later, and the next owner looks at another clock.
        desk.pass(100_000);
        desk.message(&["b@two.example"]);
        desk.settle();
        desk.now_ms = next_ms;
        desk.crash();
        desk.settle();
        while desk.assign_to(SESSION).is_some() {}
        assert_eq!(desk.intake.in_doubt(), 1);
        desk.pass(AFTER_MS - 100_001);
        assert_eq!(desk.assign_to(SESSION), None, "clock at {next_ms}");
        desk.pass(1);
        assert!(desk.assign_to(SESSION).is_some(), "clock at {next_ms}");
    }
}

#[test]
fn is_in_doubt_after_a_crash_for_as_long() {
    let (mut desk, ..) = in_doubt(InDoubt::Retry);
    desk.crash();
    assert_eq!(desk.intake.in_doubt(), 1);
    desk.pass(AFTER_MS - 1);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.pass(1);
    assert!(desk.assign_to(SESSION).is_some());
    desk.settle();
    assert_eq!(
        desk.outcomes()[0].recipients[0].disposition(),
        Disposition::InDoubt
    );
}

#[test]
fn lasts_as_long_as_its_own_sender_waits_for_the_final_reply() {
    let margin_ms = Settings::default().in_doubt_margin_ms;
    for waits_ms in [1_000, 10_000, 3_600_000] {
        let mut desk = Desk::new();
        desk.message(&["a@one.example"]);
        let delivery = desk.assign();
        desk.begin_waiting(&delivery, waits_ms);
        desk.settle();
        desk.intake.session_gone(desk.now_ms, SESSION);
        let at = Some(START_MS + margin_ms + u64::from(waits_ms));
        assert_eq!(desk.intake.next_wake(), at);
        // Who takes over knows it by the journal, and by a snapshot.
        desk.crash();
        desk.settle();
        assert_eq!(desk.intake.next_wake(), at);
        desk.intake.begin_snapshot();
        desk.settle();
        desk.crash();
        desk.settle();
        assert_eq!(desk.intake.next_wake(), at);
        desk.pass(margin_ms + u64::from(waits_ms) - 1);
        assert_eq!(desk.assign_to(SESSION), None);
        desk.pass(1);
        assert!(desk.assign_to(SESSION).is_some());
    }
}

#[test]
fn a_snapshot_keeps_what_is_in_doubt() {
    let (mut desk, id, delivery) = in_doubt(InDoubt::Retry);
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    assert_eq!(desk.intake.in_doubt(), 1);
    assert_eq!(desk.intake.next_wake(), Some(START_MS + AFTER_MS));
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    assert!(!desk.is_live(id));
    assert_eq!(desk.acknowledged(&delivery), 1);
}

#[test]
fn a_report_from_any_epoch_is_accepted_once() {
    let (mut desk, id, delivery) = in_doubt(InDoubt::Retry);
    desk.crash();
    desk.crash();
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    assert!(!desk.is_live(id));
    assert_eq!(
        (desk.outcomes().len(), desk.acknowledged(&delivery)),
        (1, 2)
    );
}

#[test]
fn is_held_or_given_up_as_the_stream_says() {
    let (mut desk, id, _) = in_doubt(InDoubt::Hold);
    desk.pass(AFTER_MS);
    desk.settle();
    assert_eq!(desk.states(id)[0].1, State::Held);
    desk.crash();
    assert_eq!(desk.states(id)[0].1, State::Held);

    let (mut desk, id, _) = in_doubt(InDoubt::GiveUp);
    desk.pass(AFTER_MS);
    desk.settle();
    assert_eq!(desk.states(id), []);
    assert_eq!(desk.intake.totals().dsn_owed, 1);
}

#[test]
fn a_held_attempt_that_succeeded_after_all_is_over() {
    let (mut desk, id, delivery) = in_doubt(InDoubt::Hold);
    desk.pass(AFTER_MS);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn a_reported_doubt_is_retried_later_held_or_given_up() {
    for (policy, expected) in [
        (InDoubt::Retry, Some(State::Waiting)),
        (InDoubt::Hold, Some(State::Held)),
        (InDoubt::GiveUp, None),
    ] {
        let mut desk = Desk::new();
        desk.rules.in_doubt = policy;
        let id = desk.message(&["a@one.example"]);
        desk.attempt(Verdict::InDoubt);
        desk.settle();
        assert_eq!(
            desk.states(id).first().map(|state| state.1),
            expected,
            "{policy:?}"
        );
    }
}

#[test]
fn recipients_in_doubt_are_held_apart_from_those_deferred() {
    let mut desk = Desk::new();
    desk.rules.in_doubt = InDoubt::Hold;
    let id = desk.message(&["a@one.example", "b@one.example", "c@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.report(
        &delivery,
        &[
            (0, Verdict::InDoubt),
            (1, Verdict::Transient),
            (2, Verdict::InDoubt),
        ],
    );
    desk.settle();
    let states: Vec<_> = desk
        .states(id)
        .into_iter()
        .map(|(ordinals, state, _)| (ordinals, state))
        .collect();
    assert_eq!(
        states,
        [(vec![0, 2], State::Held), (vec![1], State::Waiting)]
    );
    assert_eq!(desk.intake.totals().waiting, 3);
    desk.crash();
    let states: Vec<_> = desk
        .states(id)
        .into_iter()
        .map(|(ordinals, state, _)| (ordinals, state))
        .collect();
    assert_eq!(
        states,
        [(vec![0, 2], State::Held), (vec![1], State::Waiting)]
    );
}

#[test]
fn what_is_given_up_or_tried_again_is_said_of_each_recipient() {
    for (policy, disposition, next_attempt_ms) in [
        (InDoubt::Retry, Disposition::InDoubt, START_MS + AFTER_MS),
        (InDoubt::Hold, Disposition::InDoubt, u64::MAX),
        (InDoubt::GiveUp, Disposition::Bounced, 0),
    ] {
        let mut desk = Desk::new();
        desk.rules.in_doubt = policy;
        let id = desk.id();
        let mut entry = entry(id, &["a@one.example", "b@one.example"]);
        // NOTIFY=NEVER.
        entry.envelope.as_mut().unwrap().recipients[1].notify = 1;
        desk.accept(vec![entry]);
        let mut of_both = Vec::new();
        while let Some(delivery) = desk.assign_to(SESSION) {
            of_both.extend(delivery.ordinals.iter().copied());
            desk.begin(&delivery);
        }
        assert_eq!(of_both, [0, 1]);
        desk.intake.session_gone(desk.now_ms, SESSION);
        desk.pass(AFTER_MS);
        desk.settle();
        let outcomes = desk.outcomes();
        for outcome in &outcomes {
            assert_eq!((outcome.attempt, outcome.finished_at_ms), (1, desk.now_ms));
        }
        let mut recipients: Vec<_> = outcomes.iter().flat_map(|of| &of.recipients).collect();
        recipients.sort_by_key(|recipient| recipient.ordinal);
        for (ordinal, recipient) in recipients.iter().enumerate() {
            assert_eq!(recipient.ordinal, ordinal as u32);
            assert_eq!(recipient.disposition(), disposition);
            assert_eq!(recipient.next_attempt_ms, next_attempt_ms);
            let owed = policy == InDoubt::GiveUp && ordinal == 0;
            assert_eq!(recipient.dsn_owed, owed, "{policy:?}");
            let reply = recipient.reply.as_ref().unwrap();
            assert_eq!(reply.text, "the outcome of the attempt is not known");
        }
        assert_eq!(recipients.len(), 2);
    }
}
