//! Connections that are leased.

use super::*;

fn said(decision: Option<Decision<u32>>) -> Option<(u32, u32)> {
    match decision {
        Some(Decision::AskSlots { have, want, .. }) => Some((have, want)),
        _ => None,
    }
}

#[test]
fn opens_leased_connections_only_and_closes_what_others_wait_for() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 9,
        connection_share: Some(3),
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    (0..5).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(said(lanes.next(0)), Some((0, 1)));
    assert_eq!(assigned(&mut lanes), []);
    lanes.slots(0, Whose::Lane(lane), leased(1, 0));
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    // The word about the next one went out and is not answered.
    lanes.slots(0, Whose::Lane(lane), leased(1, 0));
    assert_eq!(assigned(&mut lanes), [(1, 1, 1)]);
    lanes.slots(0, Whose::Lane(lane), leased(0, 0));
    assert_eq!(assigned(&mut lanes), []);
    assert_eq!(
        lanes.blocked(0, lane),
        Some(Blocked::Connections {
            allowed: 9,
            until_ms: None
        })
    );
    // Told to give one up: it is closed when it is idle, and that is said.
    assert_eq!(said(lanes.next(1_000)), Some((2, 2)));
    lanes.slots(1_000, Whose::Lane(lane), leased(0, 1));
    lanes.released(lane, SlotId(0), SenderId(1));
    assert!(matches!(
        lanes.next(1_000),
        Some(Decision::CloseSlot {
            slot: SlotId(0),
            ..
        })
    ));
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(said(lanes.next(1_000)), Some((1, 1)));
}

/// A lane that may have so many connections, of which as many are its share when nobody answers.
fn sharing(connections: u32) -> (Lanes<u32>, LaneId) {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections,
        connection_share: Some(connections),
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    (lanes, lane)
}

/// The same, with two connections that are leased and idle.
fn with_two_idle() -> (Lanes<u32>, LaneId) {
    let (mut lanes, lane) = sharing(2);
    (0..2).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    for have in 0..2 {
        assert_eq!(said(lanes.next(0)), Some((have, 1)));
        lanes.slots(0, Whose::Lane(lane), leased(1, 0));
        assert!(matches!(lanes.next(0), Some(Decision::Assign { .. })));
    }
    for slot in [SlotId(0), SlotId(1)] {
        lanes.released(lane, slot, SenderId(1));
    }
    (lanes, lane)
}

#[test]
fn connections_of_a_sender_that_is_gone_stay_leased_until_it_must_have_closed_them() {
    let (mut lanes, lane) = sharing(2);
    lanes.sender_up(SenderId(2), 10, []);
    for item in 0..3 {
        lanes.push(lane, &Flow::default(), item, u64::from(item));
    }
    for have in 0..2 {
        assert_eq!(said(lanes.next(0)), Some((have, 1)));
        lanes.slots(0, Whose::Lane(lane), leased(1, 0));
        assert!(matches!(lanes.next(0), Some(Decision::Assign { .. })));
    }
    lanes.sender_gone(SenderId(1));
    for now_ms in [1, 5_000, 10_000, 19_000] {
        assert_eq!(said(lanes.next(now_ms)), Some((2, 1)), "{now_ms}");
        lanes.slots(now_ms, Whose::Lane(lane), leased(0, 0));
    }
    assert_eq!(said(lanes.next(20_000)), Some((1, 1)));
}

#[test]
fn an_idle_connection_that_others_are_to_have_is_closed_at_once() {
    let (mut lanes, lane) = with_two_idle();
    assert_eq!(said(lanes.next(5_000)), Some((2, 0)));
    lanes.slots(5_000, Whose::Lane(lane), leased(0, 1));
    let slot = SlotId(1);
    let sender = SenderId(1);
    let close = Decision::CloseSlot { lane, slot, sender };
    assert_eq!(lanes.next(5_000), Some(close));
    assert_eq!(lanes.next(5_000), None);
}

#[test]
fn a_connection_that_is_closed_is_given_back_at_once_unless_another_is_opened_in_its_place() {
    let (mut lanes, lane) = with_two_idle();
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(said(lanes.next(1)), Some((1, 0)));
    let (mut lanes, lane) = with_two_idle();
    (2..5).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(assigned(&mut lanes).len(), 2);
    lanes.released(lane, SlotId(0), SenderId(1));
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(4, 0, 1)]);
}

#[test]
fn a_connection_that_is_opened_while_nobody_answers_is_said_as_soon_as_somebody_may() {
    let (mut lanes, lane) = sharing(2);
    let away = |over_ms| SlotNews::Away { over_ms };
    for (now_ms, over_ms) in [(0, 20_000), (30_000, 50_000)] {
        lanes.push(lane, &Flow::default(), 0, 0);
        assert_eq!(said(lanes.next(now_ms)), Some((0, 1)));
        lanes.slots(now_ms, Whose::Lane(lane), away(over_ms));
        lanes.retain(|_| false);
        // What waited went another way: nothing is said any more.
        assert_eq!(lanes.next(now_ms + 1_000), None);
    }
    lanes.push(lane, &Flow::default(), 0, 0);
    assert!(matches!(lanes.next(31_500), Some(Decision::Assign { .. })));
    assert_eq!(said(lanes.next(31_500)), Some((1, 0)));
}

#[test]
fn a_lane_is_not_forgotten_while_connections_are_leased() {
    let (mut lanes, lane) = sharing(1);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert_eq!(said(lanes.next(0)), Some((0, 1)));
    lanes.slots(0, Whose::Lane(lane), leased(1, 0));
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    lanes.released(lane, SlotId(0), SenderId(1));
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(lanes.forget_idle(200_000, 9), []);
    assert_eq!(said(lanes.next(200_000)), Some((0, 0)));
    lanes.slots(200_000, Whose::Lane(lane), leased(0, 0));
    assert_eq!(lanes.forget_idle(300_000, 9), [lane]);
}
