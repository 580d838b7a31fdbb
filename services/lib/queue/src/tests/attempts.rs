//! Assignments, begins, permits and reports.

use proto::dispatch::InFlight;
use proto::journal::{Disposition, Outcome, RecipientOutcome};

use super::*;

#[test]
fn the_permit_follows_the_stored_begin_and_the_acknowledgement_the_stored_outcome() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.settle();
    let delivery = desk.assign();
    desk.begin(&delivery);
    assert!(!desk.permitted(&delivery));
    desk.store();
    assert!(desk.permitted(&delivery));
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    assert_eq!(desk.acknowledged(&delivery), 0);
    // A repeated report is not acknowledged before the first either.
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    assert_eq!(desk.acknowledged(&delivery), 0);
    desk.store();
    assert_eq!(desk.acknowledged(&delivery), 2);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    assert_eq!(desk.acknowledged(&delivery), 3);
    assert_eq!(desk.outcomes().len(), 1);
}

#[test]
fn a_begin_that_took_long_to_be_stored_gets_no_permit_and_is_made_again() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.settle();
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.now_ms += Settings::default().permit_within_ms + 1;
    desk.store();
    assert!(!desk.permitted(&delivery));
    assert_eq!(desk.refused(), ["storing the begin took too long"]);
    desk.settle();
    assert_eq!(
        desk.outcomes()[0].recipients[0].disposition(),
        Disposition::Returned
    );
    desk.pass(1_000);
    assert_eq!(desk.assign().message_id, id.as_bytes().to_vec());
}

#[test]
fn refuses_begins_of_other_sessions_other_epochs_and_begun_attempts() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.intake
        .begin(START_MS, SessionId(2), super::VIA, &delivery, 0);
    let older = DeliveryRef {
        epoch: delivery.epoch - 1,
        ..delivery.clone()
    };
    desk.begin(&older);
    let unknown = DeliveryRef {
        message_id: vec![7; 16].into(),
        ..delivery.clone()
    };
    desk.begin(&unknown);
    desk.begin(&DeliveryRef {
        message_id: vec![7; 3].into(),
        ordinals: vec![70_000],
        ..delivery.clone()
    });
    desk.begin(&delivery);
    desk.begin(&delivery);
    desk.settle();
    let expected = [
        "the attempt is another sender's",
        "no such attempt",
        "no such attempt",
        "no such attempt",
        "the attempt is already begun",
    ];
    assert_eq!(desk.refused(), expected);
    assert!(desk.permitted(&delivery));
}

#[test]
fn a_deferral_waits_as_the_retry_rule_says_and_survives_the_owner() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.settle();
    assert_eq!(
        desk.states(id),
        [(vec![0], State::Waiting, START_MS + 60_000)]
    );
    desk.crash();
    assert_eq!(
        desk.states(id),
        [(vec![0], State::Waiting, START_MS + 60_000)]
    );
    desk.pass(59_999);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.pass(1);
    desk.attempt(Verdict::Transient);
    desk.settle();
    assert_eq!(desk.states(id)[0].2, desk.now_ms + 120_000);
    let last = desk.outcomes().pop().unwrap();
    assert_eq!(
        (last.attempt, last.tenant.as_str(), last.sequence),
        (2, "acme", 1)
    );
}

#[test]
fn retries_that_came_due_without_an_owner_are_spread() {
    let mut desk = Desk::new();
    for number in 0..200 {
        desk.message(&[&format!("a@{number}.example")]);
        desk.attempt(Verdict::Transient);
    }
    desk.settle();
    desk.now_ms += 3_600_000;
    desk.crash();
    desk.tick();
    let at_once = desk.ready.len();
    assert!(at_once < 20, "{at_once} at once");
    desk.pass(5_000);
    assert_eq!(desk.ready.len(), 200);
}

#[test]
fn a_returned_assignment_is_ready_again_and_counts_no_attempt() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.intake.returned(SessionId(2), &delivery, desk.now_ms);
    desk.tick();
    assert_eq!(desk.assign_to(SESSION), None);
    desk.intake.returned(SESSION, &delivery, desk.now_ms + 10);
    desk.pass(10);
    let second = desk.assign();
    assert_ne!(second.attempt, delivery.attempt);
    desk.begin(&second);
    // Begun: too late to give it back.
    desk.intake.returned(SESSION, &second, desk.now_ms);
    desk.tick();
    assert_eq!(desk.assign_to(SESSION), None);
    desk.report(&second, &[(0, Verdict::Returned)]);
    desk.settle();
    assert_eq!(desk.outcomes()[0].attempt, 0);
    desk.pass(1_000);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn a_message_that_is_not_where_it_was_is_tried_again_when_moved_else_quarantined() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let old = desk.place_of(id);
    let delivery = desk.assign();
    desk.intake.copied(desk.intake.epoch(), 7, &[id]);
    desk.intake
        .unreadable(desk.now_ms, SESSION, &delivery, old, "not found");
    desk.tick();
    let second = desk.assign();
    let place = desk.place_of(id);
    assert_eq!(
        place,
        Place {
            sequence: 7,
            index: 0
        }
    );
    desk.intake
        .unreadable(desk.now_ms, SESSION, &second, place, "not found");
    desk.settle();
    assert_eq!(desk.states(id)[0].1, State::Held);
    desk.pass(30 * 86_400_000);
    assert!(desk.is_live(id), "never bounced, never expired");
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    assert_eq!(desk.states(id)[0].1, State::Held);
}

#[test]
fn recipients_that_a_report_leaves_out_are_deferred_and_strangers_ignored() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@one.example", "c@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.report(
        &delivery,
        &[
            (0, Verdict::Delivered),
            (2, Verdict::Permanent),
            (9, Verdict::Delivered),
            (70_000, Verdict::Delivered),
        ],
    );
    desk.settle();
    assert_eq!(desk.states(id).len(), 1);
    assert_eq!(desk.states(id)[0].0, [1]);
    assert_eq!(desk.states(id)[0].1, State::Waiting);
}

#[test]
fn a_late_success_counts_a_late_failure_does_not_end_another_attempt() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@one.example"]);
    let first = desk.assign();
    desk.begin(&first);
    desk.settle();
    desk.intake.session_gone(desk.now_ms, SESSION);
    desk.pass(Settings::default().in_doubt_margin_ms + 600_000);
    let second = desk.assign();
    desk.report(&first, &[(0, Verdict::Delivered), (1, Verdict::Permanent)]);
    desk.settle();
    assert_eq!(desk.acknowledged(&first), 1);
    // The second attempt names a recipient that has the message: it is refused and made again for the other one.
    desk.begin(&second);
    assert_eq!(desk.refused(), ["some of the recipients are final"]);
    desk.tick();
    let third = desk.assign();
    assert_eq!(third.ordinals, [1]);
    desk.begin(&third);
    desk.report(&third, &[(1, Verdict::Delivered)]);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn a_report_and_a_return_find_a_delivery_that_lost_its_first_recipient() {
    for returns in [true, false] {
        let mut desk = Desk::new();
        desk.message(&["a@one.example", "b@one.example"]);
        let first = desk.assign();
        desk.begin(&first);
        desk.settle();
        desk.pass(Settings::default().in_doubt_margin_ms + 600_000);
        let second = desk.assign();
        desk.report(&first, &[(0, Verdict::Delivered), (1, Verdict::Transient)]);
        if returns {
            desk.intake.returned(SESSION, &second, desk.now_ms);
        } else {
            desk.report(&second, &[(0, Verdict::Transient), (1, Verdict::Transient)]);
        }
        desk.settle();
        desk.pass(3_600_000);
        assert_eq!(desk.assign().ordinals, [1]);
    }
}

#[test]
fn what_a_gone_sender_had_not_begun_is_ready_at_once() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.message(&["b@one.example"]);
    let (begun, assigned) = (desk.assign(), desk.assign());
    desk.begin(&begun);
    desk.intake.session_gone(desk.now_ms, SESSION);
    desk.tick();
    assert_eq!(desk.assign().message_id, assigned.message_id);
    assert_eq!(desk.assign_to(SESSION), None);
    assert_eq!(desk.intake.in_doubt(), 1);
    // It is back on another stream and still holds it.
    let inventory = [InFlight {
        delivery: Some(begun.clone()),
        begun: true,
    }];
    desk.intake.session_inventory(SessionId(2), &inventory);
    assert_eq!(desk.intake.in_doubt(), 0);
    // The old stream's end comes late.
    desk.intake.session_gone(desk.now_ms, SESSION);
    assert_eq!(desk.intake.in_doubt(), 0);
}

#[test]
fn expires_by_the_explicit_time_and_by_the_age_of_the_route() {
    let mut desk = Desk::new();
    let explicit = desk.id();
    let mut short = entry(explicit, &["a@one.example"]);
    short.envelope.as_mut().unwrap().expires_at_ms = START_MS + 90_000;
    desk.accept(vec![short]);
    let aged = desk.message(&["b@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.attempt(Verdict::Transient);
    desk.pass(60_000);
    // The next attempt would come too late: it expires with this one.
    desk.attempt(Verdict::Transient);
    desk.settle();
    assert!(
        desk.outcomes()
            .iter()
            .any(
                |outcome| outcome.recipients[0].disposition() == Disposition::Expired
                    && outcome.recipients[0].dsn_owed
            )
    );
    assert_eq!(desk.intake.totals().dsn_owed, 1);
    assert_eq!(desk.states(explicit), []);
    while !desk.states(aged).is_empty() {
        let due = desk.states(aged)[0].2;
        assert!(due < START_MS + 86_400_000);
        desk.now_ms = due;
        desk.tick();
        desk.attempt(Verdict::Transient);
        desk.settle();
    }
    assert_eq!(desk.intake.totals().dsn_owed, 2);
}

#[test]
fn a_ready_delivery_expires_before_it_is_assigned_but_a_first_attempt_is_never_too_old() {
    let mut desk = Desk::new();
    let explicit = desk.id();
    let mut short = entry(explicit, &["a@one.example"]);
    short.envelope.as_mut().unwrap().expires_at_ms = START_MS + 1_000;
    desk.accept(vec![short]);
    desk.message(&["b@one.example"]);
    let keys = desk.ready.clone();
    desk.now_ms += 7 * 86_400_000;
    let expired: Vec<bool> = keys
        .iter()
        .map(|key| desk.intake.expire(desk.now_ms, *key, &desk.rules))
        .collect();
    assert_eq!(expired, [true, false]);
    desk.settle();
    assert_eq!(
        desk.assign_to(SESSION)
            .map(|delivery| delivery.message_id == explicit.as_bytes().to_vec()),
        Some(false)
    );
}

#[test]
fn nothing_is_permitted_after_another_owner_wrote() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.settle();
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.intake
        .journal(desk.now_ms, WriterEvent::WrongLastSequence);
    let foreign = Tail {
        sequence: 99,
        id: "other".into(),
        record: journal::genesis(0),
    };
    desk.intake
        .journal(desk.now_ms, WriterEvent::Tail(Some(foreign)));
    desk.tick();
    assert!(desk.intake.lost().is_some());
    assert!(!desk.permitted(&delivery));
}

#[test]
fn the_journal_says_which_attempt_is_begun() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.pass(60_000);
    desk.attempt(Verdict::Transient);
    desk.settle();
    let number = |kind| match kind {
        Kind::Begin(begin) => Some(begin.number),
        _ => None,
    };
    let numbers: Vec<u32> = desk.entries().into_iter().filter_map(number).collect();
    assert_eq!(numbers, [1, 2]);
}

#[test]
fn only_its_own_sender_can_call_a_message_unreadable_and_only_before_it_begins() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let place = desk.place_of(id);
    let delivery = desk.assign();
    let now_ms = desk.now_ms;
    desk.intake
        .unreadable(now_ms, SessionId(2), &delivery, place, "damaged");
    assert_eq!(desk.states(id)[0].1, State::InFlight);
    desk.begin(&delivery);
    desk.intake
        .unreadable(now_ms, SESSION, &delivery, place, "damaged");
    assert_eq!(desk.states(id)[0].1, State::InFlight);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    assert!(!desk.is_live(id));
}

#[test]
fn an_inventory_counts_for_begun_attempts_of_its_partition_only() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.intake.session_gone(desk.now_ms, SESSION);
    let held = InFlight {
        delivery: Some(delivery.clone()),
        begun: true,
    };
    let not_begun = InFlight {
        begun: false,
        ..held.clone()
    };
    let elsewhere = InFlight {
        delivery: Some(DeliveryRef {
            partition: 1,
            ..delivery
        }),
        begun: true,
    };
    let session = SessionId(2);
    desk.intake
        .session_inventory(session, &[not_begun, elsewhere]);
    assert_eq!(desk.intake.in_doubt(), 1);
    desk.intake.session_inventory(session, &[held]);
    assert_eq!(desk.intake.in_doubt(), 0);
}

#[test]
fn the_journal_says_what_the_sender_reported() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    let report = Report {
        delivery: Some(delivery.clone()),
        mx_host: "mx.one.example".into(),
        mx_address: "192.0.2.1".into(),
        tls: true,
        started_at_ms: START_MS + 1,
        finished_at_ms: START_MS + 2,
        ..Report::default()
    };
    let reply = Reply {
        code: 250,
        ..Reply::default()
    };
    let accepted = Judged {
        address: "a@one.example".into(),
        reply: reply.clone(),
        ..judged(0, Verdict::Delivered)
    };
    let now_ms = START_MS + 500;
    desk.intake
        .report(now_ms, SESSION, &report, vec![accepted], VIA, &desk.rules);
    desk.drain();
    desk.settle();
    let recipient = RecipientOutcome {
        address: "a@one.example".into(),
        disposition: Disposition::Delivered.into(),
        reply: Some(reply),
        ..RecipientOutcome::default()
    };
    let expected = Outcome {
        message_id: id.as_bytes().to_vec().into(),
        attempt: 1,
        tenant: "acme".into(),
        stream: "mail".into(),
        recipients: vec![recipient],
        source: VIA.source.into(),
        site: VIA.site.into(),
        mx_host: report.mx_host,
        mx_address: report.mx_address,
        tls: true,
        started_at_ms: START_MS + 1,
        finished_at_ms: START_MS + 2,
        sender_id: VIA.sender_id.into(),
        sequence: 1,
        ..Outcome::default()
    };
    assert_eq!(desk.outcomes(), [expected]);
}

#[test]
fn the_time_in_the_queue_is_counted_of_what_is_delivered() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.pass(60_000);
    desk.attempt(Verdict::Delivered);
    let time = |effect: &Effect| match effect {
        Effect::Counted(Counted::QueueTime(waited_ms)) => Some(*waited_ms),
        _ => None,
    };
    let times: Vec<u64> = desk.seen.iter().filter_map(time).collect();
    assert_eq!(times, [60_000]);
}

#[test]
fn what_is_given_back_is_due_in_a_second() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Returned);
    let due_ms = START_MS + 1_000;
    assert_eq!(desk.states(id), [(vec![0], State::Waiting, due_ms)]);
}

#[test]
fn a_report_that_leaves_out_all_recipients_is_one_of_an_attempt() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.report(&delivery, &[]);
    desk.settle();
    assert_eq!(desk.outcomes()[0].attempt, 1);
    assert_eq!(desk.states(id)[0].1, State::Waiting);
}

#[test]
fn what_could_not_be_sent_keeps_its_number_of_attempts() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.pass(60_000);
    let (key, reply) = (desk.ready[0], Reply::default());
    desk.intake
        .defer(desk.now_ms, key, &reply, Class::Dns, &desk.rules);
    desk.drain();
    desk.settle();
    let outcome = desk.outcomes().pop().unwrap();
    assert_eq!((outcome.attempt, outcome.started_at_ms), (1, 0));
    assert_eq!(outcome.finished_at_ms, desk.now_ms);
    let recipient = &outcome.recipients[0];
    assert_eq!(recipient.disposition(), Disposition::Deferred);
    assert!(!recipient.dsn_owed);
    assert_eq!(desk.states(id)[0].2, desk.now_ms + 120_000);
}

#[test]
fn a_late_result_is_in_the_journal_with_its_reply() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@one.example", "c@one.example"]);
    let first = desk.assign();
    desk.begin(&first);
    desk.intake.session_gone(desk.now_ms, SESSION);
    desk.pass(Settings::default().in_doubt_margin_ms + 600_000);
    let late = |ordinal, verdict| Judged {
        address: "late@one.example".into(),
        reply: Reply {
            code: 550,
            ..Reply::default()
        },
        class: Class::Recipient,
        ..judged(ordinal, verdict)
    };
    let judged = vec![
        late(0, Verdict::Transient),
        late(1, Verdict::Permanent),
        late(2, Verdict::Delivered),
    ];
    desk.report_judged(&first, judged);
    desk.settle();
    let expected = |ordinal, disposition: Disposition, dsn_owed| RecipientOutcome {
        ordinal,
        address: "late@one.example".into(),
        disposition: disposition.into(),
        reply: Some(Reply {
            code: 550,
            ..Reply::default()
        }),
        dsn_owed,
        class: Class::Recipient.into(),
        ..RecipientOutcome::default()
    };
    let recipients = desk.outcomes().pop().unwrap().recipients;
    let bounced = expected(1, Disposition::Bounced, true);
    let delivered = expected(2, Disposition::Delivered, false);
    assert_eq!(recipients, [bounced, delivered]);
    assert_eq!(desk.states(id)[0].0, [0]);
}

#[test]
fn what_is_held_back_is_looked_at_when_it_may_go_or_expires_and_when_windows_change() {
    let mut desk = Desk::new();
    desk.rules.retry.max_age_ms = 1_000;
    let plain = desk.message(&["a@one.example"]);
    let explicit = desk.id();
    let mut short = entry(explicit, &["a@one.example"]);
    short.envelope.as_mut().unwrap().expires_at_ms = START_MS + 5_000;
    desk.accept(vec![short]);
    for key in std::mem::take(&mut desk.ready) {
        desk.intake.hold_back(key, START_MS + 60_000, &desk.rules);
        // It is not ready any more.
        desk.intake.hold_back(key, START_MS + 90_000, &desk.rules);
    }
    let held_back = |due_ms| [(vec![0], State::HeldBack, due_ms)];
    // A first attempt is never too old.
    assert_eq!(desk.states(plain), held_back(START_MS + 60_000));
    assert_eq!(desk.states(explicit), held_back(START_MS + 5_000));
    desk.pass(5_000);
    assert!(desk.states(explicit).is_empty(), "it is expired");
    desk.intake.release_held_back(desk.now_ms);
    desk.tick();
    assert_eq!(desk.states(plain)[0].1, State::Ready);

    // A retry is, by the age of its route.
    desk.rules.retry.max_age_ms = 100_000;
    desk.attempt(Verdict::Transient);
    desk.pass(60_000);
    let key = desk.ready.remove(0);
    desk.intake.hold_back(key, START_MS + 200_000, &desk.rules);
    assert_eq!(desk.states(plain), held_back(START_MS + 100_000));
}
