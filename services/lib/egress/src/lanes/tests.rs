mod idle;
mod leases;

use super::*;
use crate::rate::{Became, GrantNews, RateLimit, Unit};

const LIMITS: LaneLimits = LaneLimits {
    connections: 2,
    connection_share: None,
    messages_per_connection: 0,
    windows: Vec::new(),
    shared: None,
    ramp_ms: 0,
    suspended_until_ms: 0,
};

pub(super) fn window(unit: Unit, count: u64) -> Window {
    let limit = RateLimit {
        count,
        per_ms: 1000,
    };
    Window { unit, limit }
}

pub(super) fn granted(amount: u64, until_ms: u64) -> GrantNews {
    GrantNews::Granted { amount, until_ms }
}

fn leased(granted: u32, excess: u32) -> SlotNews {
    SlotNews::Leased {
        granted,
        excess,
        others_wait: excess > 0,
        until_ms: 20_000,
    }
}

/// What is asked for: the lane, what it has of its window, and how many more it wants.
fn asked(lanes: &mut Lanes<u32>) -> (LaneId, u64, u64) {
    asked_at(lanes, 0)
}

fn asked_at(lanes: &mut Lanes<u32>, now_ms: u64) -> (LaneId, u64, u64) {
    match lanes.next(now_ms) {
        Some(Decision::AskGrant {
            whose: Whose::Lane(lane),
            word,
            ..
        }) => (lane, word.have, word.want),
        other => panic!("{other:?}"),
    }
}

fn lanes() -> (Lanes<u32>, LaneId) {
    let mut lanes = Lanes::default();
    let lane = lanes.lane(&"source".into(), &"site".into(), || LIMITS);
    (lanes, lane)
}

fn assigned(lanes: &mut Lanes<u32>) -> Vec<(u32, u32, u64)> {
    let mut all = Vec::new();
    while let Some(Decision::Assign {
        slot, sender, item, ..
    }) = lanes.next(0)
    {
        all.push((item, slot.0, sender.0));
    }
    all
}

#[test]
fn never_opens_more_connections_than_allowed_and_reuses_idle_ones() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 10, []);
    (0..5).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(assigned(&mut lanes), [(0, 0, 1), (1, 1, 1)]);
    lanes.released(lane, SlotId(1), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(2, 1, 1)]);
    assert_eq!(lanes.waiting(), 2);
}

#[test]
fn stops_at_the_credit_and_goes_on_when_it_comes_back() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 1, []);
    (0..3).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    lanes.released(lane, SlotId(0), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(1, 0, 1)]);
}

#[test]
fn lanes_without_credit_take_turns_and_are_not_all_looked_at_for_each_credit() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let busy = lanes.lane(&"source".into(), &"busy".into(), || LIMITS);
    let others: Vec<LaneId> = (0..1000)
        .map(|n| lanes.lane(&"source".into(), &format!("site{n}").into(), || LIMITS))
        .collect();
    lanes.sender_up(SenderId(1), 1, []);
    (0..100).for_each(|item| lanes.push(busy, &Flow::default(), item, 0));
    for (lane, item) in others.iter().zip(1000..) {
        lanes.push(*lane, &Flow::default(), item, 0);
    }
    let mut at = busy;
    for turn in 0..1000 {
        let (decision, runnable) = (lanes.next(0), lanes.runnable.len());
        let Some(Decision::Assign {
            lane, slot, item, ..
        }) = decision
        else {
            panic!("{decision:?}")
        };
        assert!(turn == 0 || runnable <= 3, "{runnable} lanes were woken");
        assert_eq!(
            item >= 1000,
            turn > 0,
            "the busy lane took a turn of another"
        );
        assert_eq!(lanes.next(0), None);
        at = lane;
        lanes.released(lane, slot, SenderId(1));
    }
    assert_ne!(at, busy);
}

#[test]
fn lanes_ask_for_no_more_than_there_is_credit_for() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connection_share: Some(1),
        windows: vec![window(Unit::Messages, 1_000)],
        ..LIMITS
    };
    lanes.sender_up(SenderId(1), 3, []);
    for item in 0..1_000 {
        let lane = lanes.lane(&"source".into(), &format!("site{item}").into(), limits);
        lanes.push(lane, &Flow::default(), item, 0);
    }
    let (mut open, mut words, mut gone) = (Vec::new(), 0, 0);
    while gone < 1_000 {
        // All that can be done before an answer comes.
        let mut asked = Vec::new();
        while let Some(decision) = lanes.next(0) {
            match decision {
                Decision::Assign { lane, slot, .. } => open.push((lane, slot)),
                other => asked.push(other),
            }
        }
        assert!(asked.len() + open.len() <= 3, "{} {open:?}", asked.len());
        words += asked.len();
        for decision in asked {
            match decision {
                Decision::AskSlots { whose, .. } => lanes.slots(0, whose, leased(1, 0)),
                Decision::AskGrant { whose, window, .. } => {
                    lanes.grant(0, whose, window, granted(1, 60));
                }
                other => panic!("{other:?}"),
            }
        }
        for (lane, slot) in open.drain(..) {
            gone += 1;
            lanes.released(lane, slot, SenderId(1));
        }
    }
    assert_eq!(words, 2_000);
}

#[test]
fn a_credit_that_is_kept_for_who_is_given_nothing_goes_to_another() {
    let mut lanes: Lanes<u32> = Lanes::default();
    lanes.sender_up(SenderId(1), 1, []);
    let limits = || LaneLimits {
        windows: vec![window(Unit::Messages, 1_000)],
        ..LIMITS
    };
    let asks = lanes.lane(&"source".into(), &"asks".into(), limits);
    lanes.push(asks, &Flow::default(), 1, 0);
    assert_eq!(asked(&mut lanes), (asks, 0, 1));
    let other = lanes.lane(&"source".into(), &"other".into(), || LIMITS);
    lanes.push(other, &Flow::default(), 2, 0);
    assert_eq!(lanes.next(0), None);
    assert_eq!(lanes.blocked(0, other), Some(Blocked::NoCredit));
    let nothing = GrantNews::Nothing { retry_ms: 500 };
    lanes.grant(0, Whose::Lane(asks), window(Unit::Messages, 1_000), nothing);
    assert_eq!(assigned(&mut lanes), [(2, 0, 1)]);
    // What waits for nothing any more keeps nothing.
    lanes.released(other, SlotId(0), SenderId(1));
    assert_eq!(asked_at(&mut lanes, 500).0, asks);
    lanes.retain(|_| false);
    lanes.grant(
        500,
        Whose::Lane(asks),
        window(Unit::Messages, 1_000),
        nothing,
    );
    lanes.push(other, &Flow::default(), 3, 0);
    assert_eq!(assigned(&mut lanes), [(3, 0, 1)]);
}

#[test]
fn a_credit_that_one_lane_cannot_use_goes_to_another() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let other = lanes.lane(&"other".into(), &"site".into(), || LIMITS);
    let lane = lanes.lane(&"source".into(), &"site".into(), || LIMITS);
    let own = lanes.lane(&"source".into(), &"own".into(), || LIMITS);
    lanes.sender_up(SenderId(1), 1, ["source".into()]);
    lanes.push(own, &Flow::default(), 0, 0);
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    lanes.push(other, &Flow::default(), 1, 0);
    lanes.push(lane, &Flow::default(), 2, 0);
    assert_eq!(assigned(&mut lanes), []);
    lanes.released(own, SlotId(0), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(2, 0, 1)]);
    // Nobody can use it: all that wait are looked at once.
    lanes.released(lane, SlotId(0), SenderId(1));
    assert_eq!(assigned(&mut lanes), []);
    assert_eq!(lanes.waiting(), 1);
}

#[test]
fn closes_connections_when_fewer_are_allowed_than_are_open() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = |connections| LaneLimits {
        connections,
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), || limits(3));
    lanes.sender_up(SenderId(1), 10, []);
    (0..9).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(assigned(&mut lanes).len(), 3);
    lanes.set_limits_of(lane, limits(1));
    for slot in [SlotId(0), SlotId(1)] {
        lanes.released(lane, slot, SenderId(1));
        assert_eq!(
            lanes.next(0),
            Some(Decision::CloseSlot {
                lane,
                slot,
                sender: SenderId(1)
            })
        );
        lanes.slot_closed(lane, slot, SenderId(1));
        assert_eq!(lanes.next(0), None);
    }
    lanes.released(lane, SlotId(2), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(3, 2, 1)]);
}

#[test]
fn a_lane_that_waits_for_time_sets_one_timer() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 1);
    let lane = lanes.lane(&"source".into(), &"site".into(), || LaneLimits {
        connections: 1,
        windows: vec![rate],
        ..LIMITS
    });
    lanes.sender_up(SenderId(1), 10, []);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert!(matches!(lanes.next(0), Some(Decision::AskGrant { .. })));
    lanes.grant(
        0,
        Whose::Lane(lane),
        rate,
        GrantNews::Nothing { retry_ms: 500 },
    );
    for item in 1..100 {
        lanes.push(lane, &Flow::default(), item, 0);
        assert_eq!(lanes.next(1), None);
    }
    assert_eq!(lanes.timers.turns(), 1);
    assert!(matches!(lanes.next(500), Some(Decision::AskGrant { .. })));
    lanes.grant(
        500,
        Whose::Lane(lane),
        rate,
        GrantNews::Nothing { retry_ms: 900 },
    );
    assert_eq!(lanes.next(501), None);
    assert_eq!(lanes.next_wake(), Some(900));
}

#[test]
fn gives_deliveries_of_one_block_to_one_sender() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 100,
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 50, []);
    lanes.sender_up(SenderId(2), 50, []);
    (0..20).for_each(|item| lanes.push(lane, &Flow::default(), item, u64::from(item / 10)));
    let senders: Vec<u64> = assigned(&mut lanes)
        .iter()
        .map(|(_, _, sender)| *sender)
        .collect();
    assert!(senders[..10].iter().all(|sender| *sender == senders[0]));
    assert!(senders[10..].iter().all(|sender| *sender != senders[0]));
}

#[test]
fn blocks_that_differ_anywhere_in_their_number_go_to_different_senders() {
    let (mut lanes, lane) = lanes();
    for sender in 0..3 {
        lanes.sender_up(SenderId(sender), 50, []);
    }
    let limits = LaneLimits {
        connections: 100,
        ..LIMITS
    };
    lanes.set_limits_of(lane, limits);
    let affinities = [0, 1, 2, 1 << 32, 2 << 32, 1 << 32 | 1, 3 << 32 | 1];
    for (item, affinity) in (0..).zip(affinities) {
        lanes.push(lane, &Flow::default(), item, affinity);
    }
    let senders = assigned(&mut lanes);
    let senders: Vec<u64> = senders.iter().map(|(_, _, sender)| *sender).collect();
    // Both halves of the number, folded, modulo three.
    assert_eq!(senders, [0, 1, 2, 1, 2, 0, 2]);
}

#[test]
fn moves_a_slot_from_an_idle_sender_that_can_take_no_more() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 2, []);
    lanes.push(lane, &Flow::default(), 0, 0);
    lanes.push(lane, &Flow::default(), 1, 0);
    assert_eq!(assigned(&mut lanes).len(), 2);
    lanes.released(lane, SlotId(0), SenderId(1));
    lanes.sender_drains(SenderId(1));
    lanes.sender_up(SenderId(2), 2, []);
    lanes.push(lane, &Flow::default(), 2, 0);
    assert_eq!(
        lanes.next(0),
        Some(Decision::CloseSlot {
            lane,
            slot: SlotId(0),
            sender: SenderId(1)
        })
    );
    assert_eq!(lanes.next(0), None);
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(assigned(&mut lanes), [(2, 0, 2)]);
}

#[test]
fn uses_the_idle_connection_of_another_sender_that_can_take_more() {
    let (mut lanes, lane) = lanes();
    let one = LaneLimits {
        connections: 1,
        ..LIMITS
    };
    lanes.set_limits_of(lane, one);
    lanes.sender_up(SenderId(1), 2, []);
    lanes.sender_up(SenderId(2), 2, []);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    lanes.released(lane, SlotId(0), SenderId(1));
    // It would go to the second one.
    lanes.push(lane, &Flow::default(), 1, 1);
    assert_eq!(assigned(&mut lanes), [(1, 0, 1)]);
}

#[test]
fn frees_the_slots_of_a_sender_that_is_gone() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 5, []);
    (0..3).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(assigned(&mut lanes).len(), 2);
    lanes.sender_gone(SenderId(1));
    assert_eq!(assigned(&mut lanes), []);
    lanes.sender_up(SenderId(2), 5, []);
    assert_eq!(assigned(&mut lanes), [(2, 0, 2)]);
}

#[test]
fn uses_only_senders_that_have_the_source() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 5, ["other".into()]);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert_eq!(lanes.next(0), None);
    lanes.sender_up(SenderId(2), 5, ["source".into()]);
    assert_eq!(assigned(&mut lanes), [(0, 0, 2)]);
}

#[test]
fn holds_a_lane_to_its_rate_without_holding_up_others() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 10);
    let limited = LaneLimits {
        connections: 9,
        windows: vec![rate],
        ..LIMITS
    };
    let slow = lanes.lane(&"source".into(), &"slow".into(), || limited.clone());
    let free = lanes.lane(&"source".into(), &"free".into(), || LIMITS);
    lanes.sender_up(SenderId(1), 50, []);
    (0..3).for_each(|item| lanes.push(slow, &Flow::default(), item, 0));
    lanes.push(free, &Flow::default(), 9, 0);
    assert_eq!(asked(&mut lanes), (slow, 0, 2));
    assert_eq!(assigned(&mut lanes), [(9, 0, 1)]);
    lanes.grant(0, Whose::Lane(slow), rate, granted(1, 100));
    assert!(matches!(
        lanes.next(0),
        Some(Decision::Assign { item: 0, .. })
    ));
    assert_eq!(asked(&mut lanes), (slow, 1, 2));
    lanes.grant(
        0,
        Whose::Lane(slow),
        rate,
        GrantNews::Nothing { retry_ms: 70 },
    );
    assert_eq!(lanes.next(0), None);
    assert_eq!(lanes.next_wake(), Some(70));
}

#[test]
fn what_is_given_back_is_used_at_once() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 10);
    let lane = lanes.lane(&"source".into(), &"site".into(), || LaneLimits {
        windows: vec![rate],
        ..LIMITS
    });
    lanes.sender_up(SenderId(1), 50, []);
    (0..2).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(asked(&mut lanes), (lane, 0, 2));
    lanes.grant(0, Whose::Lane(lane), rate, granted(1, 900));
    let Some(Decision::Assign { drawn, .. }) = lanes.next(0) else {
        panic!("it was granted");
    };
    assert_eq!(asked(&mut lanes).0, lane);
    let nothing = GrantNews::Nothing { retry_ms: 800 };
    lanes.grant(0, Whose::Lane(lane), rate, nothing);
    assert_eq!(lanes.next(0), None);
    lanes.settle(lane, drawn, Unit::Messages, Became::Nothing);
    assert_eq!(assigned(&mut lanes), [(1, 1, 1)]);
}

#[test]
fn a_lane_begins_with_one_connection_and_has_one_more_after_each_step_of_its_ramp() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 3,
        ramp_ms: 1000,
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    (0..9).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    let assigned_at = |lanes: &mut Lanes<u32>, now_ms| {
        let mut count = 0;
        while let Some(Decision::Assign { .. }) = lanes.next(now_ms) {
            count += 1;
        }
        count
    };
    assert_eq!(assigned_at(&mut lanes, 5_000), 1);
    assert_eq!(lanes.next_wake(), Some(6_000));
    assert_eq!(assigned_at(&mut lanes, 5_999), 0);
    assert_eq!(assigned_at(&mut lanes, 6_000), 1);
    assert_eq!(assigned_at(&mut lanes, 7_000), 1);
    assert_eq!(assigned_at(&mut lanes, 60_000), 0);
    // Without a connection it begins anew.
    lanes.sender_gone(SenderId(1));
    lanes.sender_up(SenderId(2), 10, []);
    assert_eq!(assigned_at(&mut lanes, 61_000), 1);
}

#[test]
fn connections_are_counted_when_they_are_opened_and_again_when_they_are_worn_out() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let opened = window(Unit::Connections, 2);
    let lane = lanes.lane(&"source".into(), &"site".into(), || LaneLimits {
        connections: 1,
        messages_per_connection: 2,
        windows: vec![opened],
        ..LIMITS
    });
    lanes.sender_up(SenderId(1), 10, []);
    (0..9).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(asked(&mut lanes), (lane, 0, 1));
    lanes.grant(0, Whose::Lane(lane), opened, granted(2, 900));
    // Two connections of two messages each.
    for item in 0..4 {
        assert_eq!(assigned(&mut lanes), [(item, 0, 1)]);
        lanes.released(lane, SlotId(0), SenderId(1));
    }
    assert_eq!(asked(&mut lanes), (lane, 2, 1));
    lanes.grant(
        0,
        Whose::Lane(lane),
        opened,
        GrantNews::Nothing { retry_ms: 1000 },
    );
    assert_eq!(assigned(&mut lanes), []);
    assert_eq!(lanes.timers.turns(), 1);
    // What is under way is spoken of before.
    assert_eq!(lanes.next_wake(), Some(500));
}

#[test]
fn as_many_can_be_sent_as_there_may_be_connections_and_one_at_the_foot_of_a_ramp() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 10, []);
    (0..5).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(lanes.sendable(0), 2);
    let ramp = LaneLimits {
        ramp_ms: 1_000,
        ..LIMITS
    };
    lanes.set_limits_of(lane, ramp);
    assert_eq!(lanes.sendable(5_000), 1);
    let none = LaneLimits {
        connections: 0,
        ..LIMITS
    };
    lanes.set_limits_of(lane, none);
    assert_eq!(lanes.sendable(5_000), 0);
}

#[test]
fn names_what_keeps_a_lane_from_moving_and_lifting_it_lets_the_next_thing_appear() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 10);
    let limits = || LaneLimits {
        connections: 2,
        windows: vec![rate],
        ramp_ms: 1_000,
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    (0..9).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert_eq!(lanes.blocked(0, lane), Some(Blocked::NoSender));
    lanes.sender_up(SenderId(1), 10, [Arc::from("another")]);
    assert_eq!(lanes.blocked(0, lane), Some(Blocked::NoSender));
    lanes.sender_up(SenderId(2), 0, [Arc::from("source")]);
    assert_eq!(lanes.blocked(0, lane), Some(Blocked::NoCredit));
    lanes.sender_up(SenderId(2), 10, [Arc::from("source")]);
    assert_eq!((lanes.blocked(0, lane), lanes.sendable(0)), (None, 1));
    assert!(matches!(lanes.next(0), Some(Decision::AskGrant { .. })));
    assert_eq!(
        lanes.blocked(0, lane),
        Some(Blocked::Grant { window: rate })
    );
    lanes.grant(
        0,
        Whose::Lane(lane),
        rate,
        GrantNews::Nothing { retry_ms: 400 },
    );
    let until_ms = 400;
    assert_eq!(
        lanes.blocked(0, lane),
        Some(Blocked::Rate {
            window: rate,
            until_ms
        })
    );
    assert_eq!(lanes.sendable(0), 0);
    assert!(matches!(lanes.next(400), Some(Decision::AskGrant { .. })));
    lanes.grant(400, Whose::Lane(lane), rate, granted(5, 9_000));
    assert!(matches!(lanes.next(400), Some(Decision::Assign { .. })));
    let ramp = Blocked::Connections {
        allowed: 1,
        until_ms: Some(1_400),
    };
    assert_eq!(lanes.next(401), None);
    assert_eq!(lanes.blocked(401, lane), Some(ramp));
    assert!(matches!(lanes.next(1_400), Some(Decision::Assign { .. })));
    let full = Blocked::Connections {
        allowed: 2,
        until_ms: None,
    };
    assert_eq!(lanes.blocked(1_400, lane), Some(full));
    assert_eq!(lanes.sendable(1_400), 0);
    lanes.released(lane, SlotId(0), SenderId(2));
    assert_eq!(
        (lanes.blocked(1_400, lane), lanes.sendable(1_400)),
        (None, 1)
    );
}

#[test]
fn others_go_elsewhere_when_many_wait_in_a_lane_that_its_limits_keep() {
    let (mut lanes, lane) = lanes();
    let suspended = LaneLimits {
        suspended_until_ms: 5_000,
        ..LIMITS
    };
    lanes.set_limits_of(lane, suspended);
    lanes.sender_up(SenderId(1), 10, []);
    (0..7).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    assert!(!lanes.is_jammed(0, lane), "few wait");
    assert_eq!((lanes.sendable(0), lanes.sendable(5_000)), (0, 2));
    lanes.push(lane, &Flow::default(), 7, 0);
    assert!(lanes.is_jammed(0, lane));
    assert!(!lanes.is_jammed(5_000, lane), "nothing keeps it");
    lanes.take_out(&"source".into(), 9_000);
    assert!(lanes.is_jammed(5_000, lane));
    assert_eq!(lanes.sendable(5_000), 0);
}

#[test]
fn who_waits_for_credit_is_not_said_to_when_some_came_back() {
    let mut lanes: Lanes<u32> = Lanes::default();
    lanes.sender_up(SenderId(1), 1, []);
    let all = ["a", "b", "c"].map(|site| {
        let lane = lanes.lane(&"source".into(), &site.into(), || LIMITS);
        lanes.push(lane, &Flow::default(), 0, 0);
        lane
    });
    assert_eq!(assigned(&mut lanes).len(), 1);
    let blocked = |lanes: &Lanes<u32>| all.map(|lane| lanes.blocked(0, lane));
    let no_credit = Some(Blocked::NoCredit);
    assert_eq!(blocked(&lanes)[1..], [no_credit, no_credit]);
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(blocked(&lanes), [None, None, None]);
}

#[test]
fn takes_a_connection_from_the_list_of_many_idle_ones_and_counts_them() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let limits = || LaneLimits {
        connections: 40,
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 100, []);
    (0..40).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    let first: Vec<u32> = assigned(&mut lanes)
        .iter()
        .map(|(_, slot, _)| *slot)
        .collect();
    assert_eq!(first, (0..40).collect::<Vec<_>>());
    assert_eq!(lanes.slots_in_use(), 40);
    for slot in (0..40).map(SlotId) {
        lanes.released(lane, slot, SenderId(1));
    }
    for slot in (0..39).step_by(2).map(SlotId) {
        lanes.slot_closed(lane, slot, SenderId(1));
    }
    assert_eq!(lanes.slots_in_use(), 20);
    (0..40).for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
    let mut again: Vec<u32> = assigned(&mut lanes)
        .iter()
        .map(|(_, slot, _)| *slot)
        .collect();
    again.sort_unstable();
    assert_eq!(again, (0..40).collect::<Vec<_>>());
    lanes.sender_gone(SenderId(1));
    assert_eq!(lanes.slots_in_use(), 0);
}

#[test]
fn nothing_leaves_a_suspended_lane_before_its_time() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 10, []);
    lanes.set_limits_of(
        lane,
        LaneLimits {
            suspended_until_ms: 1000,
            ..LIMITS
        },
    );
    lanes.push(lane, &Flow::default(), 1, 0);
    assert_eq!(lanes.next(999), None);
    let until_ms = 1000;
    assert_eq!(
        lanes.blocked(999, lane),
        Some(Blocked::Suspended { until_ms })
    );
    assert_eq!(lanes.next_wake(), Some(1000));
    assert!(matches!(
        lanes.next(1000),
        Some(Decision::Assign { item: 1, .. })
    ));
    // Lifted before its time.
    let suspended_until_ms = 9000;
    let limits = LaneLimits {
        suspended_until_ms,
        ..LIMITS
    };
    lanes.set_limits_of(lane, limits);
    lanes.push(lane, &Flow::default(), 2, 0);
    assert_eq!(lanes.next(2000), None);
    lanes.set_limits_of(lane, LIMITS);
    assert!(matches!(
        lanes.next(2000),
        Some(Decision::Assign { item: 2, .. })
    ));
}

#[test]
fn tells_what_waits_where_and_takes_out_what_is_not_to_stay() {
    let (mut lanes, first) = lanes();
    let second = lanes.lane(&"source".into(), &"other".into(), || LIMITS);
    let names = lanes
        .names(second)
        .map(|(source, site)| (&**source, &**site));
    assert_eq!((names, lanes.count()), (Some(("source", "other")), 2));
    for item in 0..6 {
        let lane = if item < 4 { first } else { second };
        lanes.push(lane, &Flow::default(), item, 0);
    }
    let counts = |lanes: &Lanes<u32>| {
        let of = |lane| lanes.waiting_in(lane);
        (lanes.waiting(), of(first), of(second))
    };
    assert_eq!(counts(&lanes), (6, 4, 2));
    assert!(lanes.holds(first, |item| *item == 3) && !lanes.holds(second, |item| *item == 3));
    lanes.retain(|item| item % 2 == 1);
    assert_eq!(counts(&lanes), (3, 2, 1));
    assert_eq!(lanes.take_all(), [1, 3, 5]);
    assert_eq!(counts(&lanes), (0, 0, 0));
}
