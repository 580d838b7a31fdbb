//! When deliveries are tried again, by the class of what was replied.

use proto::journal::Disposition;

use super::*;

const MINUTE_MS: u64 = 60_000;

fn list(waits: &'static [mail::Span]) -> Retry<'static> {
    Retry {
        waits: Waits::List(waits),
        own: true,
        ..Rules::default().retry
    }
}

const GREYLISTED: [mail::Span; 2] = [mail::Span::from_secs(300), mail::Span::from_secs(600)];
const FULL: [mail::Span; 1] = [mail::Span::from_secs(7200)];

fn desk() -> Desk {
    let mut desk = Desk::new();
    desk.rules.own = vec![
        (Class::Greylisted, list(&GREYLISTED)),
        (Class::MailboxFull, list(&FULL)),
    ];
    desk
}

/// Of a class, and how long the reply asks to wait.
fn deferred(ordinal: u32, class: Class, retry_after_ms: Option<u64>) -> Judged {
    Judged {
        class,
        retry_after_ms,
        ..judged(ordinal, Verdict::Transient)
    }
}

/// An attempt at what is ready; gives the time to the next one of each delivery.
fn attempt(desk: &mut Desk, id: MessageId, judged: Vec<Judged>) -> Vec<(Vec<u16>, u64)> {
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.report_judged(&delivery, judged);
    desk.settle();
    let states = desk.states(id).into_iter();
    states
        .map(|(ordinals, state, due_ms)| {
            assert_eq!(state, State::Waiting);
            (ordinals, due_ms - desk.now_ms)
        })
        .collect()
}

#[test]
fn each_class_has_its_schedule_which_begins_with_the_first_deferral_for_it() {
    let mut desk = desk();
    let id = desk.message(&["a@one.example"]);
    for (class, minutes) in [
        (Class::Greylisted, 5),
        (Class::Greylisted, 10),
        (Class::Greylisted, 10),
        (Class::Infrastructure, 1),
        (Class::Throttled, 2),
        (Class::Unspecified, 4),
        (Class::MailboxFull, 120),
        (Class::Greylisted, 5),
        (Class::Dns, 1),
    ] {
        let next = attempt(&mut desk, id, vec![deferred(0, class, None)]);
        assert_eq!(next, [(vec![0], minutes * MINUTE_MS)], "{class:?}");
        desk.pass(minutes * MINUTE_MS);
    }
}

#[test]
fn a_schedule_goes_on_after_a_take_over_with_or_without_a_snapshot() {
    for with_snapshot in [false, true] {
        let mut desk = desk();
        let id = desk.message(&["a@one.example"]);
        for class in [Class::Dns, Class::Greylisted] {
            let trouble = Judged {
                verdict: Verdict::HostTrouble,
                ..deferred(0, class, None)
            };
            attempt(&mut desk, id, vec![trouble]);
            if with_snapshot {
                desk.intake.begin_snapshot();
                desk.settle();
            }
            desk.crash();
            desk.pass(5 * MINUTE_MS);
        }
        let next = attempt(&mut desk, id, vec![deferred(0, Class::Greylisted, None)]);
        assert_eq!(next, [(vec![0], 10 * MINUTE_MS)]);
    }
}

#[test]
fn recipients_that_wait_for_different_times_part() {
    let mut desk = desk();
    let id = desk.message(&[
        "a@one.example",
        "b@one.example",
        "c@one.example",
        "d@one.example",
    ]);
    let next = attempt(
        &mut desk,
        id,
        vec![
            deferred(0, Class::Greylisted, None),
            deferred(1, Class::MailboxFull, None),
            deferred(2, Class::Infrastructure, None),
            deferred(3, Class::Greylisted, None),
        ],
    );
    let minutes = |m: u64| m * MINUTE_MS;
    let expected = [
        (vec![0, 3], minutes(5)),
        (vec![1], minutes(120)),
        (vec![2], minutes(1)),
    ];
    assert_eq!(next, expected);
    desk.crash();
    desk.tick();
    let states: Vec<Vec<u16>> = desk.states(id).into_iter().map(|(of, ..)| of).collect();
    assert_eq!(states, [vec![0, 3], vec![1], vec![2]]);
    desk.pass(minutes(1));
    assert_eq!(desk.attempt(Verdict::Delivered).ordinals, [2]);
    desk.pass(minutes(4));
    assert_eq!(desk.attempt(Verdict::Delivered).ordinals, [0, 3]);
    assert!(desk.assign_to(SESSION).is_none());
}

#[test]
fn recipients_of_different_classes_stay_together_where_one_schedule_holds() {
    let mut desk = Desk::new();
    desk.rules.retry.jitter_percent = 20;
    let id = desk.message(&["a@one.example", "b@one.example"]);
    let classes = vec![
        deferred(0, Class::Throttled, None),
        deferred(1, Class::Policy, None),
    ];
    assert_eq!(attempt(&mut desk, id, classes).len(), 1);
}

#[test]
fn a_time_that_a_reply_asks_for_is_honoured_within_bounds() {
    let mut desk = desk();
    let id = desk.message(&["a@one.example"]);
    for (asked_ms, expected_ms) in [
        (15 * MINUTE_MS, 15 * MINUTE_MS),
        (1_000, 10_000),
        (86_400_000, 60 * MINUTE_MS),
    ] {
        let judged = vec![deferred(0, Class::Greylisted, Some(asked_ms))];
        let next = attempt(&mut desk, id, judged);
        assert_eq!(next, [(vec![0], expected_ms)]);
        desk.pass(expected_ms);
    }
}

#[test]
fn recipients_of_a_class_go_on_when_the_longest_time_is_over_that_one_of_them_was_told() {
    for asked in [
        [None, Some(20), Some(15)],
        [Some(15), None, Some(20)],
        [Some(20), Some(15), None],
    ] {
        // Also where the class itself would wait for longer.
        for class in [Class::Greylisted, Class::MailboxFull] {
            let mut desk = desk();
            let id = desk.message(&["a@one.example", "b@one.example", "c@one.example"]);
            let judged = asked.iter().zip(0..).map(|(minutes, ordinal)| {
                deferred(ordinal, class, minutes.map(|minutes| minutes * MINUTE_MS))
            });
            let judged = judged.collect();
            let next = attempt(&mut desk, id, judged);
            assert_eq!(next, [(vec![0, 1, 2], 20 * MINUTE_MS)]);
        }
    }
}

#[test]
fn a_class_may_give_up_earlier() {
    let mut desk = desk();
    let full = Retry {
        max_age_ms: 3 * 3_600_000,
        ..list(&FULL)
    };
    desk.rules.own = vec![(Class::MailboxFull, full)];
    let id = desk.message(&["a@one.example", "b@two.example"]);
    for class in [Class::MailboxFull, Class::Infrastructure] {
        let delivery = desk.assign();
        desk.begin(&delivery);
        let ordinal = delivery.ordinals[0];
        desk.report_judged(&delivery, vec![deferred(ordinal, class, None)]);
    }
    desk.pass(120 * MINUTE_MS);
    for class in [Class::MailboxFull, Class::MailboxFull] {
        let delivery = desk.assign();
        desk.begin(&delivery);
        let ordinal = delivery.ordinals[0];
        desk.report_judged(&delivery, vec![deferred(ordinal, class, None)]);
    }
    desk.settle();
    assert_eq!(desk.states(id).len(), 0);
    let last = desk.outcomes().into_iter().rev().take(2);
    for outcome in last {
        assert_eq!(outcome.recipients[0].disposition(), Disposition::Expired);
        assert!(outcome.recipients[0].dsn_owed);
    }
}

#[test]
fn trouble_with_the_host_consumes_no_attempt_and_waits_like_one() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    for (verdict, minutes, attempts) in [
        (Verdict::HostTrouble, 1, 0),
        (Verdict::HostTrouble, 2, 0),
        (Verdict::Transient, 4, 1),
        (Verdict::HostTrouble, 8, 1),
        (Verdict::Transient, 16, 2),
    ] {
        let delivery = desk.assign();
        desk.begin(&delivery);
        desk.report(&delivery, &[(0, verdict)]);
        desk.settle();
        let outcomes = desk.outcomes();
        let outcome = outcomes.last().unwrap();
        assert_eq!(outcome.attempt, attempts);
        assert_eq!(desk.states(id)[0].2 - desk.now_ms, minutes * MINUTE_MS);
        desk.crash();
        desk.pass(minutes * MINUTE_MS);
    }
}

#[test]
fn a_message_that_only_met_trouble_expires_by_its_age() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    for _ in 0..100 {
        let Some(delivery) = desk.assign_to(SESSION) else {
            break;
        };
        desk.begin(&delivery);
        desk.report(&delivery, &[(0, Verdict::HostTrouble)]);
        desk.settle();
        desk.pass(3_600_000);
    }
    desk.settle();
    let outcomes = desk.outcomes();
    let last = outcomes.last().unwrap();
    assert_eq!(
        (last.attempt, last.recipients[0].disposition()),
        (0, Disposition::Expired)
    );
    let age = last.finished_at_ms.max(desk.now_ms) - id.unix_ms();
    assert!(age <= 86_400_000 + 3_600_000, "{age}");
}

/// As an earlier release wrote it, which counted attempts only.
#[test]
fn a_journal_of_an_earlier_release_goes_on_at_the_attempt_that_it_was_at() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.settle();
    let outcome = proto::journal::Outcome {
        attempt: 3,
        recipients: vec![proto::journal::RecipientOutcome {
            disposition: Disposition::Deferred.into(),
            next_attempt_ms: desk.now_ms + MINUTE_MS,
            ..Default::default()
        }],
        message_id: id.as_bytes().to_vec().into(),
        ..Default::default()
    };
    desk.intake.record_outcome(outcome, None);
    desk.settle();
    desk.crash();
    desk.pass(MINUTE_MS);
    let next = attempt(&mut desk, id, vec![deferred(0, Class::Unspecified, None)]);
    assert_eq!(next, [(vec![0], 8 * MINUTE_MS)]);
}

/// Where the delivery of a message to this domain goes on, when it is ready.
fn kept(desk: &Desk, key: Key) -> Option<String> {
    let to = desk.intake.route_of(key).expect("it is ready");
    to.kept_source.map(str::to_owned)
}

#[test]
fn what_was_greylisted_goes_on_by_its_source_until_something_else_is_said_also_after_a_take_over() {
    for with_snapshot in [false, true] {
        let mut desk = desk();
        let id = desk.message(&["a@one.example", "b@one.example"]);
        assert_eq!(kept(&desk, desk.ready[0]), None);
        // One of the two is put off for another reason: it parts, and goes on by any source.
        let judged = vec![
            deferred(0, Class::Greylisted, None),
            deferred(1, Class::Throttled, None),
        ];
        attempt(&mut desk, id, judged);
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        desk.pass(MINUTE_MS);
        assert_eq!(kept(&desk, desk.ready[0]), None);
        desk.attempt(Verdict::Delivered);
        desk.pass(4 * MINUTE_MS);
        assert_eq!(kept(&desk, desk.ready[0]).as_deref(), Some("source"));
        let trouble = Judged {
            verdict: Verdict::HostTrouble,
            ..deferred(0, Class::Infrastructure, None)
        };
        attempt(&mut desk, id, vec![trouble]);
        desk.pass(MINUTE_MS);
        assert_eq!(kept(&desk, desk.ready[0]).as_deref(), Some("source"));
        attempt(&mut desk, id, vec![deferred(0, Class::Throttled, None)]);
        desk.pass(3600 * 1000);
        assert_eq!(kept(&desk, desk.ready[0]), None);
        assert!(desk.intake.live.kept.is_empty());
    }
}

#[test]
fn what_parts_from_a_greylisted_delivery_goes_on_by_its_source_too() {
    let mut desk = desk();
    let id = desk.message(&["a@one.example", "b@one.example"]);
    let greylisted = |ordinal| deferred(ordinal, Class::Greylisted, None);
    attempt(&mut desk, id, vec![greylisted(0), greylisted(1)]);
    desk.pass(5 * MINUTE_MS);
    // Of the second one nothing is said.
    let trouble = Judged {
        verdict: Verdict::HostTrouble,
        ..deferred(1, Class::Infrastructure, None)
    };
    let next = attempt(&mut desk, id, vec![greylisted(0), trouble]);
    assert_eq!(next.len(), 2);
    desk.pass(10 * MINUTE_MS);
    assert_eq!(desk.ready.len(), 2);
    for key in &desk.ready {
        assert_eq!(kept(&desk, *key).as_deref(), Some("source"));
    }
}

#[test]
fn a_deferral_without_an_attempt_keeps_the_source_that_was_greylisted() {
    let mut desk = desk();
    let id = desk.message(&["a@one.example"]);
    attempt(&mut desk, id, vec![deferred(0, Class::Greylisted, None)]);
    desk.pass(5 * MINUTE_MS);
    let (key, reply) = (desk.ready.remove(0), Reply::default());
    desk.intake
        .defer(desk.now_ms, key, &reply, Class::Greylisted, &desk.rules);
    desk.drain();
    desk.pass(10 * MINUTE_MS);
    assert_eq!(kept(&desk, desk.ready[0]).as_deref(), Some("source"));
}
