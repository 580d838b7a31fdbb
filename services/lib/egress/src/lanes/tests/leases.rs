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

#[test]
fn connections_of_a_sender_that_is_gone_stay_leased_until_it_must_have_closed_them() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 1,
        connection_share: Some(1),
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    lanes.sender_up(SenderId(2), 10, []);
    (0..2).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(said(lanes.next(0)), Some((0, 1)));
    lanes.slots(0, Whose::Lane(lane), leased(1, 0));
    assert_eq!(assigned(&mut lanes).len(), 1);
    lanes.sender_gone(SenderId(1));
    for now_ms in [1, 5_000, 10_000, 19_000] {
        assert_eq!(said(lanes.next(now_ms)), Some((1, 1)), "{now_ms}");
        lanes.slots(now_ms, Whose::Lane(lane), leased(0, 0));
    }
    assert_eq!(said(lanes.next(20_000)), Some((0, 1)));
}

#[test]
fn a_lane_is_not_forgotten_while_connections_are_leased() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 1,
        connection_share: Some(1),
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
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
