//! Lines: a bounded number of their deliveries is with the lanes.

use super::*;
use crate::lines::WINDOW;
use proto::journal::Disposition;

const MANY: usize = 5 * WINDOW as usize;

#[test]
fn hands_out_a_window_of_a_line_and_more_as_those_leave_in_order() {
    let mut desk = Desk::new();
    let ids: Vec<MessageId> = (0..MANY)
        .map(|_| desk.message(&["a@one.example"]))
        .collect();
    assert_eq!(desk.ready.len(), WINDOW as usize);
    let mut assigned = Vec::new();
    while let Some(delivery) = desk.assign_to(SESSION) {
        desk.drain();
        assert!(desk.ready.len() <= WINDOW as usize);
        assigned.push(MessageId::try_from(&delivery.message_id[..]).unwrap());
    }
    assert_eq!(assigned, ids);
}

#[test]
fn other_lines_are_not_behind_and_retries_are_a_line_of_their_own() {
    let mut desk = Desk::new();
    for _ in 0..10 {
        desk.message(&["a@one.example"]);
        desk.attempt(Verdict::Transient);
    }
    desk.settle();
    (0..MANY).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let before = desk.ready.len();
    assert_eq!(before, WINDOW as usize);
    desk.message(&["a@two.example"]);
    assert_eq!(desk.ready.len(), before + 1);
    desk.pass(3_600_000);
    assert_eq!(desk.ready.len(), before + 11);
}

#[test]
fn priority_is_not_behind_what_has_none() {
    let mut desk = Desk::new();
    (0..MANY).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    for (priority, more) in [(0, 0), (1, 1), (9, 1), (-1, 1)] {
        let before = desk.ready.len();
        let mut entry = entry(desk.id(), &["a@one.example"]);
        entry.envelope.as_mut().unwrap().priority = priority;
        desk.accept(vec![entry]);
        assert_eq!(desk.ready.len(), before + more, "{priority}");
    }
    let key = *desk.ready.last().unwrap();
    assert_eq!(desk.intake.route_of(key).unwrap().priority, -1);
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.pass(0);
    let priorities = desk
        .ready
        .iter()
        .filter_map(|key| desk.intake.route_of(*key));
    let said: Vec<i8> = priorities
        .map(|of| of.priority)
        .filter(|priority| *priority != 0)
        .collect();
    assert_eq!(said.len(), 3, "{said:?}");
}

#[test]
fn what_leaves_in_any_way_lets_others_move_up() {
    let mut desk = Desk::new();
    (0..MANY).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let mut seen = 0;
    let mut way = 0;
    while let Some(key) = desk.ready.pop() {
        seen += 1;
        way += 1;
        match way % 4 {
            0 => desk.intake.postpone(key, desk.now_ms + 60_000),
            1 => {
                let reply = Reply::default();
                desk.intake
                    .conclude(desk.now_ms, key, Disposition::Bounced, reply);
            }
            2 => {
                let rules = Rules::default();
                let reply = Reply::default();
                desk.intake
                    .defer(desk.now_ms, key, &reply, Class::Dns, &rules);
            }
            _ => {
                desk.intake.assign(key, SESSION).unwrap();
            }
        }
        desk.drain();
    }
    assert_eq!(seen, MANY);
    // Those that were postponed come back, and the line works as before.
    desk.pass(60_000);
    assert!(!desk.ready.is_empty());
    while let Some(delivery) = desk.assign_to(SESSION) {
        desk.drain();
        desk.intake.returned(SESSION, &delivery, u64::MAX - 1);
        desk.drain();
    }
    assert_eq!(desk.intake.live.lines.len(), 0);
}

#[test]
fn the_queue_counts_those_behind_as_ready_and_a_take_over_finds_them() {
    let mut desk = Desk::new();
    (0..MANY).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    assert_eq!(desk.intake.rows()[0].ready, MANY as u64);
    desk.settle();
    desk.crash();
    desk.tick();
    let mut assigned = 0;
    while desk.assign_to(SESSION).is_some() {
        desk.drain();
        assigned += 1;
    }
    assert_eq!(assigned, MANY);
}

#[test]
fn a_message_that_expired_behind_others_is_not_tried() {
    let mut desk = Desk::new();
    desk.rules.retry.max_age_ms = 86_400_000;
    (0..2 * WINDOW).for_each(|_| {
        desk.message(&["a@one.example"]);
        desk.attempt(Verdict::Transient);
    });
    desk.settle();
    desk.pass(200_000);
    assert_eq!(desk.ready.len(), WINDOW as usize);
    desk.now_ms += 2 * 86_400_000;
    let mut expired = 0;
    while !desk.ready.is_empty() {
        let key = desk.ready.remove(0);
        expired += u32::from(desk.intake.expire(desk.now_ms, key, &desk.rules));
        desk.drain();
    }
    assert_eq!(expired, 2 * WINDOW);
}

#[test]
fn moves_up_half_a_window_at_a_time() {
    let mut desk = Desk::new();
    (0..MANY).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let window = WINDOW as usize;
    for assigned in 1..window {
        desk.assign();
        desk.drain();
        let moved_up = if assigned < window / 2 { 0 } else { window / 2 };
        assert_eq!(desk.ready.len(), window - assigned + moved_up);
    }
}

/// A desk with a full line of messages to `one.example` and two behind them; the keys of those two.
fn two_behind() -> (Desk, [Key; 2]) {
    let mut desk = Desk::new();
    (0..WINDOW).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let behind = [(); 2].map(|()| {
        let id = desk.message(&["a@one.example"]);
        let slot = desk.intake.live.find(&id).unwrap();
        let slot = desk.intake.live.deliveries_of(slot)[0];
        desk.intake.live.key(slot).unwrap()
    });
    (desk, behind)
}

fn assign_all(desk: &mut Desk) -> Vec<MessageId> {
    let mut assigned = Vec::new();
    while let Some(delivery) = desk.assign_to(SESSION) {
        desk.drain();
        assigned.push(MessageId::try_from(&delivery.message_id[..]).unwrap());
    }
    assigned
}

#[test]
fn what_is_quarantined_behind_others_does_not_move_up() {
    let mut desk = Desk::new();
    (0..WINDOW).for_each(|_| {
        desk.message(&["a@one.example"]);
    });
    let id = desk.message(&["a@one.example", "a@two.example"]);
    let to_two = desk.ready.pop().unwrap();
    let delivery = desk.intake.assign(to_two, SESSION).unwrap().delivery;
    let place = desk.place_of(id);
    desk.intake
        .unreadable(desk.now_ms, SESSION, &delivery, place, "damaged");
    assert_eq!(assign_all(&mut desk).len(), WINDOW as usize);
    let states = desk.states(id);
    assert!(states.iter().all(|(_, state, _)| *state == State::Held));
}

#[test]
fn what_takes_the_place_of_one_that_ended_behind_others_keeps_its_own_turn() {
    let (mut desk, [ended, _]) = two_behind();
    (0..WINDOW).for_each(|_| {
        desk.message(&["a@two.example"]);
    });
    let reply = Reply::default();
    desk.intake
        .conclude(desk.now_ms, ended, Disposition::Cancelled, reply);
    let id = desk.message(&["a@two.example"]);
    let slot = desk.intake.live.find(&id).unwrap();
    assert_eq!(desk.intake.live.deliveries_of(slot), [ended.slot]);
    // The line to one.example moves up first, in which that place is still noted.
    let assigned = assign_all(&mut desk);
    assert_eq!(assigned.last(), Some(&id));
    assert_eq!(assigned.len(), 2 * WINDOW as usize + 2);
    assert_eq!(desk.intake.live.lines.len(), 0);
}
