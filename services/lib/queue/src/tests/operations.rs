//! What operators do, in one partition.

use std::collections::HashSet;

use proto::journal::{AdminAction, Disposition, Phase, Reply};
use proto::operation::Operation;

use super::*;
use crate::Ended;

const OPERATION: &str = "0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f";

/// The keys of all deliveries, slice by slice.
fn keys(desk: &Desk) -> Vec<Key> {
    let (mut keys, mut from) = (Vec::new(), 0);
    loop {
        let (standings, next) = desk.intake.slice(from, 3);
        assert!(standings.len() <= 3);
        keys.extend(standings.iter().map(|standing| standing.key));
        if next == 0 {
            return keys;
        }
        from = next;
    }
}

fn bounce(desk: &mut Desk, key: Key) -> Ended {
    let reply = Reply {
        enhanced: "5.7.1".into(),
        text: "the campaign was a mistake".into(),
        ..Reply::default()
    };
    let (now_ms, bounced) = (desk.now_ms, Disposition::Bounced);
    let ended = desk.intake.end(now_ms, key, bounced, reply, OPERATION);
    desk.drain();
    ended
}

fn note(phase: Phase) -> AdminAction {
    AdminAction {
        operation: Some(Operation {
            id: OPERATION.into(),
            ..Operation::default()
        }),
        phase: phase.into(),
        ..AdminAction::default()
    }
}

#[test]
fn slices_show_every_delivery_once() {
    let mut desk = Desk::new();
    let expected: Vec<MessageId> = (0..10).map(|_| desk.message(&["a@one.example"])).collect();
    let found = keys(&desk);
    let ids: HashSet<MessageId> = found
        .iter()
        .map(|key| desk.intake.standing_of(*key).unwrap().id)
        .collect();
    assert_eq!(found.len(), 10);
    assert_eq!(ids, expected.into_iter().collect());
}

#[test]
fn what_is_ended_owes_a_dsn_and_says_by_which_operation() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@one.example"]);
    let key = keys(&desk)[0];
    assert_eq!(bounce(&mut desk, key), Ended::Now(2));
    assert_eq!(bounce(&mut desk, key), Ended::Gone);
    desk.settle();
    let outcomes = desk.outcomes();
    assert_eq!(outcomes.len(), 1, "asked twice, it is done once");
    assert_eq!(outcomes[0].operation, OPERATION);
    let recipient = &outcomes[0].recipients[0];
    assert_eq!(recipient.disposition(), Disposition::Bounced);
    assert!(recipient.dsn_owed);
    let text = recipient.reply.as_ref().map(|reply| reply.text.as_str());
    assert_eq!(text, Some("the campaign was a mistake"));
    assert!(desk.is_live(id), "until the DSN is spooled");
    assert!(desk.assign_to(SESSION).is_none());
    desk.crash();
    assert!(keys(&desk).is_empty());
}

#[test]
fn an_attempt_that_is_not_begun_is_refused_and_a_begun_one_goes_on() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    let key = keys(&desk)[0];
    assert_eq!(bounce(&mut desk, key), Ended::Now(1));
    desk.begin(&delivery);
    desk.settle();
    assert!(!desk.permitted(&delivery));
    assert_eq!(desk.refused(), ["no such attempt"]);

    let second = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    let key = keys(&desk)[0];
    assert_eq!(bounce(&mut desk, key), Ended::Begun);
    desk.settle();
    assert!(desk.permitted(&delivery));
    desk.report(&delivery, &[(0, Verdict::Transient)]);
    assert_eq!(bounce(&mut desk, key), Ended::Now(1));
    desk.settle();
    assert!(desk.is_live(id) && desk.is_live(second));
    assert_eq!(desk.intake.totals().dsn_owed, 2);
}

#[test]
fn what_waits_for_its_next_attempt_is_due_at_once_and_at_the_next_owner_too() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Transient);
    desk.settle();
    let later = desk.id();
    let mut not_before = entry(later, &["b@two.example"]);
    if let Some(envelope) = &mut not_before.envelope {
        envelope.not_before_ms = desk.now_ms + 50_000;
    }
    desk.accept(vec![not_before]);
    assert_eq!(desk.states(id)[0].1, State::Waiting);
    let all = keys(&desk);
    let now_ms = desk.now_ms;
    assert_eq!(desk.intake.hurry(now_ms, &all, OPERATION), 1);
    assert_eq!(desk.intake.hurry(now_ms, &all, OPERATION), 0, "due already");
    desk.settle();
    assert_eq!(desk.states(id)[0].1, State::Ready);
    let states = desk.states(later);
    assert_eq!(states[0].1, State::Waiting, "its time has not come");
    desk.crash();
    assert_eq!(desk.states(id)[0].2, now_ms);
    // Overdue retries are spread at a take-over.
    desk.pass(5_000);
    assert_eq!(desk.states(id)[0].1, State::Ready);
}

#[test]
fn what_is_held_or_in_quarantine_is_released_for_good() {
    let mut desk = Desk::new();
    let held = desk.id();
    let mut on_hold = entry(held, &["a@one.example"]);
    if let Some(envelope) = &mut on_hold.envelope {
        envelope.hold = true;
    }
    desk.accept(vec![on_hold]);
    let damaged = desk.message(&["b@two.example"]);
    let delivery = desk.assign();
    let place = desk.place_of(damaged);
    let now_ms = desk.now_ms;
    desk.intake
        .unreadable(now_ms, SESSION, &delivery, place, "damaged");
    desk.settle();
    for id in [held, damaged] {
        assert_eq!(desk.states(id)[0].1, State::Held);
    }
    let all = keys(&desk);
    let mut release = || {
        let released = desk.intake.release(now_ms, &all, OPERATION, &desk.rules);
        (released.recipients, released.refused)
    };
    assert_eq!(release(), (2, 0));
    assert_eq!(release(), (0, 0));
    desk.settle();
    for id in [held, damaged] {
        assert_eq!(desk.states(id)[0].1, State::Ready);
    }
    desk.crash();
    desk.settle();
    for id in [held, damaged] {
        assert_eq!(desk.states(id)[0].1, State::Ready);
    }
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.settle();
    assert_eq!(desk.states(damaged)[0].1, State::Ready);
}

#[test]
fn what_is_parked_leaves_its_line_to_others_and_comes_back() {
    let mut desk = Desk::new();
    let many = crate::lines::WINDOW as usize + 1;
    let ids: Vec<MessageId> = (0..many)
        .map(|_| desk.message(&["a@one.example"]))
        .collect();
    assert_eq!(desk.ready.len(), many - 1);
    let parked: Vec<Key> = desk.ready.drain(..).collect();
    for key in &parked {
        desk.intake.park(*key);
    }
    desk.drain();
    assert_eq!(desk.ready.len(), 1, "the one behind moved up");
    assert!(desk.intake.assign(parked[0], SESSION).is_none());
    assert_eq!(desk.states(ids[0])[0].1, State::Parked);
    desk.ready.clear();
    assert!(parked.iter().all(|key| desk.intake.unpark(*key)));
    assert!(!desk.intake.unpark(parked[0]));
    desk.drain();
    assert_eq!(desk.ready.len(), many - 2, "the window is full");
    // Nobody but the owner knew.
    desk.intake.park(parked[0]);
    desk.settle();
    desk.crash();
    desk.settle();
    assert_eq!(desk.states(ids[0])[0].1, State::Ready);
}

#[test]
fn notes_survive_the_owner_and_end() {
    let mut desk = Desk::new();
    let noted = |desk: &Desk| desk.intake.operation(OPERATION).map(AdminAction::phase);
    let now_ms = desk.now_ms;
    desk.intake.note_operation(now_ms, note(Phase::Begun));
    desk.drain();
    desk.settle();
    desk.crash();
    assert_eq!(noted(&desk), Some(Phase::Begun));
    desk.intake.forget_operations(&HashSet::new());
    assert_eq!(noted(&desk), Some(Phase::Begun), "it is not over");
    desk.intake.note_operation(now_ms, note(Phase::Done));
    desk.drain();
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    assert_eq!(desk.intake.operations(), [note(Phase::Done)]);
    desk.intake.forget_operations(&HashSet::new());
    assert_eq!((noted(&desk), desk.intake.operations().len()), (None, 0));
}

#[test]
fn an_operation_pauses_while_much_waits_for_the_journal() {
    let mut desk = Desk::new();
    let now_ms = desk.now_ms;
    // The first one is on its way.
    (0..1024).for_each(|_| desk.intake.note_operation(now_ms, note(Phase::Begun)));
    assert!(!desk.intake.is_busy());
    desk.intake.note_operation(now_ms, note(Phase::Begun));
    assert!(desk.intake.is_busy());
    desk.drain();
    desk.settle();
    assert!(!desk.intake.is_busy());
}
