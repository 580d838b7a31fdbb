//! Notices that delivery is delayed.

use mail::Span;
use proto::spool::ReportsDelay;

use super::*;

const HOUR_MS: u64 = 3_600_000;

/// A desk with notices at these ages, in hours, and waits of an hour between attempts.
fn desk(notices: &[u64], asked: &[u64]) -> Desk {
    let mut desk = Desk::new();
    let ages = |hours: &[u64]| hours.iter().map(|h| Span::from_secs(h * 3600)).collect();
    (desk.rules.notices, desk.rules.asked_notices) = (ages(notices), ages(asked));
    const WAITS: [Span; 1] = [Span::from_secs(3600)];
    desk.rules.retry.waits = Waits::List(&WAITS);
    desk
}

fn accept(desk: &mut Desk, change: impl FnOnce(&mut Envelope)) -> MessageId {
    let id = desk.id();
    let mut entry = entry(id, &["a@one.example"]);
    change(entry.envelope.as_mut().unwrap());
    desk.accept(vec![entry]);
    id
}

/// Deferred each hour; gives the notices that are owed by each attempt.
fn notices(desk: &mut Desk, hours: u64) -> Vec<u32> {
    let notice = |desk: &mut Desk| {
        desk.attempt(Verdict::Transient);
        desk.settle();
        let notice = desk.outcomes().last().unwrap().recipients[0].delay_notice;
        desk.pass(HOUR_MS);
        notice
    };
    (0..hours).map(|_| notice(desk)).collect()
}

fn notice(id: MessageId, original: MessageId, number: u32) -> IndexEntry {
    let mut entry = notification(id, original, &[0]);
    entry.reports_on = None;
    entry.reports_delay = Some(ReportsDelay {
        message_id: original.as_bytes().to_vec().into(),
        ordinals: vec![0],
        notice: number,
    });
    entry
}

#[test]
fn each_age_has_one_notice() {
    let mut desk = desk(&[2, 4], &[]);
    accept(&mut desk, |_| {});
    assert_eq!(notices(&mut desk, 7), [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn ages_that_pass_without_an_attempt_have_one_notice_together() {
    let mut desk = desk(&[1, 2, 3, 9], &[]);
    accept(&mut desk, |_| {});
    desk.pass(5 * HOUR_MS);
    assert_eq!(notices(&mut desk, 6), [3, 0, 0, 0, 4, 0]);
}

#[test]
fn notify_says_who_is_told() {
    for (notify, expected) in [
        (0, [1, 0]),
        (8, [0, 2]),
        (12, [0, 2]),
        (4, [0, 0]),
        (1, [0, 0]),
    ] {
        let mut desk = desk(&[0], &[0, 1]);
        accept(&mut desk, |envelope| envelope.recipients[0].notify = notify);
        let mut told = notices(&mut desk, 2);
        // With NOTIFY=DELAY the first attempt has the first notice.
        if notify & 8 != 0 {
            assert_eq!(told[0], 1);
            told[0] = 0;
        }
        assert_eq!(told, expected, "{notify}");
    }
}

#[test]
fn nobody_is_told_of_a_message_with_the_null_return_path() {
    let mut desk = desk(&[1], &[1]);
    accept(&mut desk, |envelope| {
        envelope.return_path.clear();
        envelope.recipients[0].notify = 8;
    });
    assert_eq!(notices(&mut desk, 4), [0, 0, 0, 0]);
}

#[test]
fn the_age_counts_from_the_first_attempt_that_is_allowed() {
    let mut desk = desk(&[2], &[]);
    let id = accept(&mut desk, |_| {});
    let not_before_ms = id.unix_ms() + 5 * HOUR_MS;
    desk.attempt(Verdict::Delivered);
    accept(&mut desk, |envelope| envelope.not_before_ms = not_before_ms);
    desk.pass(5 * HOUR_MS);
    assert_eq!(notices(&mut desk, 4), [0, 0, 1, 0]);
}

#[test]
fn a_notice_is_taken_once_and_only_while_it_is_owed() {
    for with_snapshot in [false, true] {
        let mut desk = desk(&[1, 3], &[]);
        let id = accept(&mut desk, |_| {});
        let (first, again, early) = (desk.id(), desk.id(), desk.id());
        assert_eq!(notices(&mut desk, 2), [0, 1]);
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        desk.accept(vec![
            notice(first, id, 1),
            notice(again, id, 1),
            notice(early, id, 2),
        ]);
        desk.settle();
        assert!(desk.is_live(first) && !desk.is_live(again) && !desk.is_live(early));
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        assert!(desk.is_live(id) && desk.is_live(first) && !desk.is_live(again));
        // And how many there were is known, too.
        desk.tick();
        while let Some(delivery) = desk.assign_to(SESSION) {
            desk.begin(&delivery);
            desk.report(&delivery, &[(0, Verdict::Transient)]);
        }
        desk.settle();
        let told: u32 = desk
            .outcomes()
            .iter()
            .map(|of| of.recipients[0].delay_notice)
            .sum();
        assert_eq!(told, 1);
    }
}

#[test]
fn a_notice_about_what_is_delivered_meanwhile_is_dropped() {
    let mut desk = desk(&[1], &[]);
    let id = accept(&mut desk, |_| {});
    let dsn = desk.id();
    assert_eq!(notices(&mut desk, 2), [0, 1]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.accept(vec![notice(dsn, id, 1)]);
    assert!(!desk.is_live(dsn));
    assert!(desk.intake.live.delays_owed.is_empty());
}

#[test]
fn a_notice_settles_no_failure() {
    let mut desk = desk(&[1], &[]);
    let id = accept(&mut desk, |_| {});
    let (late, dsn) = (desk.id(), desk.id());
    assert_eq!(notices(&mut desk, 2), [0, 1]);
    desk.attempt(Verdict::Permanent);
    desk.settle();
    desk.accept(vec![notice(late, id, 1)]);
    assert!(!desk.is_live(late) && desk.is_live(id));
    desk.accept(vec![notification(dsn, id, &[0])]);
    assert!(desk.is_live(dsn) && !desk.is_live(id));
}

#[test]
fn a_notice_says_until_when_it_is_tried() {
    let mut desk = desk(&[1], &[]);
    let id = accept(&mut desk, |_| {});
    assert_eq!(notices(&mut desk, 3), [0, 1, 0]);
    let outcomes = desk.outcomes().into_iter();
    let tried_until: Vec<u64> = outcomes.map(|of| of.recipients[0].tried_until_ms).collect();
    assert_eq!(tried_until, [0, id.unix_ms() + 24 * HOUR_MS, 0]);
}
