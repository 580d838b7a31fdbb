//! What is on hold: its age stands still, a release asks again who sent it, and it does not stay for ever.

use proto::journal::{Disposition, Outcome};

use super::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// On hold, to one recipient.
fn on_hold(desk: &mut Desk, change: impl FnOnce(&mut Envelope)) -> MessageId {
    let id = desk.id();
    let mut entry = entry(id, &["a@one.example"]);
    let envelope = entry.envelope.as_mut().unwrap();
    envelope.hold = true;
    envelope.credential = "app".into();
    change(envelope);
    desk.accept(vec![entry]);
    id
}

/// Time passes, and owners come and go, with snapshots and without.
fn days_of_owners(desk: &mut Desk, days: u64) {
    for day in 0..days {
        desk.pass(DAY_MS);
        if day % 2 == 0 {
            desk.intake.begin_snapshot();
        }
        desk.settle();
        desk.crash();
        desk.settle();
    }
}

/// The disposition of the last outcome, and when the next attempt is.
fn last(desk: &mut Desk) -> (Disposition, u64) {
    desk.settle();
    let outcome = desk.outcomes().pop().unwrap();
    let recipient = &outcome.recipients[0];
    (recipient.disposition(), recipient.next_attempt_ms)
}

fn ended(desk: &Desk) -> Vec<Outcome> {
    let outcomes = desk.outcomes();
    let ended = outcomes.into_iter().filter(|of| of.held_since_ms > 0);
    ended.collect()
}

#[test]
fn an_age_stands_still_on_hold_whoever_owns_the_partition() {
    // The maximum age is a day.
    let mut desk = Desk::new();
    let id = on_hold(&mut desk, |_| {});
    days_of_owners(&mut desk, 5);
    assert_eq!(desk.release().recipients, 1);
    days_of_owners(&mut desk, 0);
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.pass(0);
    desk.attempt(Verdict::Transient);
    assert_eq!(last(&mut desk).0, Disposition::Deferred);
    // A day after the release it is as old as it may get.
    desk.pass(DAY_MS - 1);
    assert!(desk.is_live(id));
    desk.attempt(Verdict::Transient);
    assert_eq!(last(&mut desk).0, Disposition::Expired);
}

#[test]
fn only_the_time_after_it_might_be_sent_counts() {
    let mut desk = Desk::new();
    let id = on_hold(&mut desk, |envelope| {
        envelope.not_before_ms = START_MS + 3 * DAY_MS;
    });
    desk.pass(DAY_MS);
    desk.release();
    desk.settle();
    let expected = (vec![0], State::Waiting, START_MS + 3 * DAY_MS);
    assert_eq!(
        desk.states(id),
        [expected],
        "it is not sent before its time"
    );
    desk.pass(2 * DAY_MS);
    desk.attempt(Verdict::Transient);
    desk.pass(DAY_MS - 1);
    desk.attempt(Verdict::Transient);
    assert_eq!(last(&mut desk).0, Disposition::Expired);
}

#[test]
fn the_expiry_of_a_stream_moves_and_that_of_a_client_is_kept() {
    for (expires_by_stream, expected) in [
        (true, Disposition::Delivered),
        (false, Disposition::Expired),
    ] {
        let mut desk = Desk::new();
        on_hold(&mut desk, |envelope| {
            envelope.expires_at_ms = START_MS + HOUR_MS;
            envelope.expires_by_stream = expires_by_stream;
        });
        desk.pass(30 * 60_000);
        days_of_owners(&mut desk, 2);
        desk.release();
        desk.pass(0);
        if expires_by_stream {
            desk.attempt(Verdict::Delivered);
        }
        assert_eq!(last(&mut desk).0, expected);
        assert!(ended(&desk).is_empty());
    }
}

#[test]
fn the_time_of_deliver_by_stands_still_as_long_as_all_is_on_hold() {
    let mut desk = Desk::new();
    let late = |desk: &mut Desk| {
        desk.settle();
        let outcomes = desk.outcomes();
        let of = outcomes.iter().flat_map(|outcome| &outcome.recipients);
        of.filter(|of| of.disposition() == Disposition::Late)
            .count()
    };
    let deliver_by = |envelope: &mut Envelope| envelope.deliver_by_ms = START_MS + HOUR_MS;
    on_hold(&mut desk, deliver_by);
    days_of_owners(&mut desk, 2);
    assert_eq!(late(&mut desk), 0);
    desk.release();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.pass(HOUR_MS - 1);
    assert_eq!(late(&mut desk), 0);
    desk.pass(1);
    assert_eq!(late(&mut desk), 1);
}

#[test]
fn what_is_in_doubt_and_held_does_not_age_and_is_not_ended() {
    let mut desk = Desk::new();
    desk.rules.in_doubt = InDoubt::Hold;
    desk.rules.longest_hold.most_ms = HOUR_MS;
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.settle();
    desk.intake.session_gone(desk.now_ms, SESSION);
    desk.pass(HOUR_MS);
    desk.settle();
    assert_eq!(desk.states(id)[0].1, State::Held);
    days_of_owners(&mut desk, 5);
    desk.release();
    desk.settle();
    desk.crash();
    desk.pass(5_000);
    desk.attempt(Verdict::Transient);
    assert_eq!(last(&mut desk).0, Disposition::Deferred);
    desk.pass(22 * HOUR_MS);
    desk.attempt(Verdict::Transient);
    assert_eq!(last(&mut desk).0, Disposition::Deferred);
    desk.pass(HOUR_MS);
    assert_eq!(last(&mut desk).0, Disposition::Expired);
}

#[test]
fn a_hold_that_is_too_long_ends_as_the_tenant_wants() {
    for (ends, disposition, dsn_owed) in [
        (HoldEnds::Return, Disposition::Expired, true),
        (HoldEnds::Discard, Disposition::Cancelled, false),
    ] {
        let mut desk = Desk::new();
        desk.rules.longest_hold = LongestHold {
            most_ms: 3 * DAY_MS,
            ends,
        };
        let id = on_hold(&mut desk, |_| {});
        desk.settle();
        days_of_owners(&mut desk, 2);
        assert_eq!(desk.intake.next_wake(), Some(START_MS + 3 * DAY_MS));
        desk.pass(DAY_MS - 1);
        assert!(ended(&desk).is_empty() && desk.is_live(id));
        desk.pass(1);
        desk.settle();
        let ended = ended(&desk);
        let [outcome] = &ended[..] else {
            panic!("{ended:?}");
        };
        let recipient = &outcome.recipients[0];
        assert_eq!(outcome.held_since_ms, START_MS);
        assert_eq!(recipient.disposition(), disposition);
        assert_eq!(recipient.dsn_owed, dsn_owed);
        assert_eq!(desk.release().recipients, 0);
        desk.crash();
        assert_eq!(desk.is_live(id), dsn_owed, "until the DSN is spooled");
    }
}

#[test]
fn a_shorter_hold_holds_for_what_is_on_hold_already() {
    let mut desk = Desk::new();
    let id = on_hold(&mut desk, |_| {});
    desk.pass(DAY_MS);
    desk.rules.longest_hold = LongestHold {
        most_ms: HOUR_MS,
        ends: HoldEnds::Discard,
    };
    desk.pass(0);
    assert!(desk.is_live(id));
    desk.intake.look_at_holds();
    desk.pass(0);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn a_time_of_the_client_ends_a_hold_without_a_word_of_it() {
    let mut desk = Desk::new();
    let id = on_hold(&mut desk, |envelope| {
        envelope.expires_at_ms = START_MS + HOUR_MS;
    });
    desk.pass(HOUR_MS - 1);
    assert_eq!(desk.states(id)[0].1, State::Held);
    desk.pass(1);
    assert_eq!(last(&mut desk).0, Disposition::Expired);
    assert!(ended(&desk).is_empty());
}

#[test]
fn what_its_sender_may_not_send_any_more_stays_on_hold() {
    let mut desk = Desk::new();
    let id = on_hold(&mut desk, |_| {});
    let other = on_hold(&mut desk, |envelope| envelope.credential = "other".into());
    days_of_owners(&mut desk, 1);
    desk.rules.gone.push("app");
    let released = desk.release();
    let expected = Released {
        recipients: 1,
        refused: 1,
    };
    assert_eq!(released, expected);
    desk.settle();
    assert_eq!(desk.states(id)[0].1, State::Held);
    assert_eq!(desk.states(other)[0].1, State::Ready);
    let standings = desk.intake.standings(&Which::Message(id), 1);
    let key = standings[0].key;
    assert_eq!(standings[0].hold.unwrap().since_ms, START_MS);
    let refusal = desk.intake.refusal_of(key, &desk.rules);
    assert_eq!(refusal.as_deref(), Some("app is gone"));
    desk.rules.gone.clear();
    assert_eq!(desk.release().recipients, 1);
}

#[test]
fn rows_tell_since_when_and_until_when() {
    let mut desk = Desk::new();
    on_hold(&mut desk, |_| {});
    desk.pass(HOUR_MS);
    on_hold(&mut desk, |_| {});
    let rows = desk.intake.rows();
    let longest_ms = desk.rules.longest_hold.most_ms;
    assert_eq!((rows.len(), rows[0].held), (1, 2));
    assert_eq!(rows[0].held_since_ms, Some(START_MS));
    assert_eq!(rows[0].held_until_ms, Some(START_MS + longest_ms));
}
