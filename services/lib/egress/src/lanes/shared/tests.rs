mod trial;

use super::super::idle::IDLE_MS;
use super::super::tests::{granted, window};
use super::super::{Blocked, LaneLimits, SenderId, SlotId, SlotNews};
use super::*;
use crate::fair::Flow;
use crate::rate::{Became, GrantNews, Unit};

/// Lanes `site0`, `site1`, … that share what `limits` says; each may have three connections.
fn group(count: usize, limits: &SharedLimits) -> (Lanes<u32>, Vec<LaneId>, SharedId) {
    let mut lanes = Lanes::default();
    let (shared, is_new) = lanes.share(&"source".into(), &"big".into());
    assert!(is_new);
    lanes.set_limits_of_shared(shared, limits);
    let all = (0..count).map(|number| {
        let site = format!("site{number}").into();
        lanes.lane(&"source".into(), &site, || own(shared))
    });
    let all = all.collect();
    lanes.sender_up(SenderId(1), 100, []);
    (lanes, all, shared)
}

fn own(shared: SharedId) -> LaneLimits {
    LaneLimits {
        connections: 3,
        shared: Some(shared),
        ..LaneLimits::default()
    }
}

fn connections(count: u32) -> SharedLimits {
    SharedLimits {
        connections: Some(count),
        ..SharedLimits::default()
    }
}

fn rate(unit: Unit, count: u64) -> SharedLimits {
    SharedLimits {
        windows: vec![window(unit, count)],
        ..SharedLimits::default()
    }
}

fn push(lanes: &mut Lanes<u32>, lane: LaneId, items: std::ops::Range<u32>) {
    items.for_each(|item| lanes.push(lane, &Flow::default(), item, 0));
}

/// What happens until nothing does: `a` an assignment in the lane, `c` a connection that is to be closed.
fn done(lanes: &mut Lanes<u32>, now_ms: u64) -> String {
    let mut all = Vec::new();
    while let Some(decision) = lanes.next(now_ms) {
        all.push(match decision {
            Decision::Assign { lane, .. } => format!("a{}", lane.0),
            Decision::CloseSlot { lane, .. } => format!("c{}", lane.0),
            Decision::AskGrant { whose, word, .. } => format!("{whose:?}+{}", word.want),
            Decision::AskSlots {
                whose, have, want, ..
            } => format!("{whose:?}={have}+{want}"),
        });
    }
    assert!(lanes.shared.iter().all(|shared| shared.called == 0));
    all.join(" ")
}

fn leased(granted: u32, excess: u32) -> SlotNews {
    SlotNews::Leased {
        granted,
        excess,
        others_wait: excess > 0,
        until_ms: 20_000,
    }
}

fn share_of(connections: u32) -> SharedLimits {
    SharedLimits {
        connections: Some(connections),
        connection_share: Some(1),
        ..SharedLimits::default()
    }
}

#[test]
fn the_lanes_of_a_provider_have_no_more_connections_together_than_it_allows() {
    let (mut lanes, all, shared) = group(3, &connections(4));
    for lane in &all {
        push(&mut lanes, *lane, 0..3);
    }
    // In turn, and none has more than its own limit.
    assert_eq!(done(&mut lanes, 0), "a0 a1 a2 a0");
    assert!(lanes.shared[0].spare.is_empty());
    let blocked = Blocked::SharedConnections { allowed: 4 };
    assert_eq!(lanes.blocked(0, all[1]), Some(blocked));
    assert!(blocked.is_shared() && !Blocked::NoSender.is_shared());
    assert_eq!(lanes.sendable(0), 0);
    lanes.set_limits_of_shared(shared, &connections(6));
    assert_eq!(lanes.sendable(0), 2);
    assert_eq!(done(&mut lanes, 0), "a1 a2");
    // Nobody else's: another provider, another source.
    let (other, _) = lanes.share(&"source".into(), &"other".into());
    assert_eq!(lanes.all_shared().collect::<Vec<_>>(), [shared, other]);
    let lane = lanes.lane(&"source".into(), &"else".into(), || own(other));
    push(&mut lanes, lane, 0..1);
    assert_eq!(lanes.blocked(0, lane), None);
    assert_eq!(done(&mut lanes, 0), "a3");
}

#[test]
fn an_idle_connection_is_closed_for_a_lane_that_waits() {
    let (mut lanes, all, _) = group(3, &connections(1));
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "");
    push(&mut lanes, all[1], 0..1);
    push(&mut lanes, all[2], 0..1);
    // One is enough, though two wait.
    assert_eq!(done(&mut lanes, 0), "c0");
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a1");
    // And when it becomes idle while another waits already.
    lanes.released(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c1");
    lanes.slot_closed(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a2");
}

#[test]
fn who_gave_a_connection_up_that_it_did_not_use_has_its_turn_as_others_do() {
    let (mut lanes, all, _) = group(3, &connections(1));
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "c0");
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a1");
    push(&mut lanes, all[0], 0..1);
    push(&mut lanes, all[2], 0..1);
    assert_eq!(done(&mut lanes, 0), "");
    lanes.released(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c1");
    lanes.slot_closed(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a0");
}

#[test]
fn no_more_idle_connections_are_closed_than_are_waited_for() {
    let (mut lanes, all, _) = group(3, &connections(2));
    for lane in &all[..2] {
        push(&mut lanes, *lane, 0..1);
    }
    assert_eq!(done(&mut lanes, 0), "a0 a1");
    for lane in &all[..2] {
        lanes.released(*lane, SlotId(0), SenderId(1));
    }
    assert_eq!(done(&mut lanes, 0), "");
    push(&mut lanes, all[2], 0..1);
    assert_eq!(done(&mut lanes, 0), "c0");
}

#[test]
fn an_idle_connection_of_who_can_t_send_is_there_for_others_though_it_waited_for_another_itself() {
    let (mut lanes, all, shared) = group(2, &connections(1));
    push(&mut lanes, all[0], 0..3);
    assert_eq!(done(&mut lanes, 0), "a0");
    let suspended = LaneLimits {
        suspended_until_ms: 60_000,
        ..own(shared)
    };
    lanes.set_limits_of(all[0], suspended);
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "");
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "c0");
}

#[test]
fn a_lane_with_more_to_send_keeps_its_connection_for_a_turn_and_for_longer_when_nobody_waits() {
    let (mut lanes, all, _) = group(2, &connections(1));
    push(&mut lanes, all[0], 0..9);
    assert_eq!(done(&mut lanes, 0), "a0");
    let next = |lanes: &mut Lanes<u32>, now_ms| {
        lanes.now_ms = now_ms;
        lanes.released(all[0], SlotId(0), SenderId(1));
        done(lanes, now_ms)
    };
    assert_eq!(next(&mut lanes, 2 * TURN_MS), "a0");
    push(&mut lanes, all[1], 0..9);
    assert_eq!(done(&mut lanes, 2 * TURN_MS), "");
    assert_eq!(next(&mut lanes, 2 * TURN_MS), "c0");
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 2 * TURN_MS), "a1");
    lanes.now_ms = 3 * TURN_MS - 1;
    lanes.released(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 3 * TURN_MS - 1), "a1");
}

#[test]
fn a_connection_that_is_worn_out_goes_to_who_waits() {
    let (mut lanes, all, shared) = group(2, &connections(1));
    let limits = LaneLimits {
        messages_per_connection: 2,
        ..own(shared)
    };
    lanes.set_limits_of(all[0], limits);
    push(&mut lanes, all[0], 0..9);
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c0");
}

#[test]
fn who_waits_for_the_rate_keeps_its_connection_until_it_has_nothing_to_send() {
    let of_all = window(Unit::Messages, 10);
    let limits = SharedLimits {
        windows: vec![of_all],
        ..connections(1)
    };
    let (mut lanes, all, shared) = group(2, &limits);
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    lanes.grant(0, whose, of_all, granted(1, 900));
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    push(&mut lanes, all[0], 7..8);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    let nothing = GrantNews::Nothing { retry_ms: 900 };
    lanes.grant(0, whose, of_all, nothing);
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "");
    lanes.retain(|item| *item != 7);
    assert_eq!(done(&mut lanes, 0), "c0");
}

#[test]
fn a_connection_that_is_worn_out_stays_when_nobody_waits() {
    let (mut lanes, all, shared) = group(1, &connections(1));
    let limits = LaneLimits {
        messages_per_connection: 1,
        ..own(shared)
    };
    lanes.set_limits_of(all[0], limits);
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "");
}

#[test]
fn who_can_t_use_its_connection_now_gives_it_up() {
    for suspended_until_ms in [0, 60_000] {
        let (mut lanes, all, shared) = group(2, &connections(1));
        let own_rate = window(Unit::Messages, 1);
        let limits = LaneLimits {
            windows: match suspended_until_ms {
                0 => vec![own_rate],
                _ => Vec::new(),
            },
            ..own(shared)
        };
        lanes.set_limits_of(all[0], limits.clone());
        push(&mut lanes, all[0], 0..2);
        if suspended_until_ms == 0 {
            assert_eq!(done(&mut lanes, 0), "Lane(LaneId(0))+1");
            lanes.grant(0, Whose::Lane(all[0]), own_rate, granted(1, 60));
            assert_eq!(done(&mut lanes, 0), "a0");
            lanes.released(all[0], SlotId(0), SenderId(1));
            assert_eq!(done(&mut lanes, 0), "Lane(LaneId(0))+1");
            let nothing = GrantNews::Nothing { retry_ms: 900 };
            lanes.grant(0, Whose::Lane(all[0]), own_rate, nothing);
        } else {
            assert_eq!(done(&mut lanes, 0), "a0");
            lanes.set_limits_of(
                all[0],
                LaneLimits {
                    suspended_until_ms,
                    ..limits
                },
            );
            lanes.released(all[0], SlotId(0), SenderId(1));
        }
        assert_eq!(done(&mut lanes, 0), "");
        push(&mut lanes, all[1], 0..1);
        assert_eq!(done(&mut lanes, 0), "c0");
        lanes.slot_closed(all[0], SlotId(0), SenderId(1));
        assert_eq!(done(&mut lanes, 0), "a1");
    }
}

#[test]
fn a_rate_is_asked_for_once_for_all_and_its_lanes_take_turns() {
    let shared_rate = window(Unit::Messages, 40);
    let (mut lanes, all, shared) = group(3, &rate(Unit::Messages, 40));
    let whose = Whose::Shared(shared);
    for lane in &all {
        push(&mut lanes, *lane, 0..3);
    }
    // Those that are not looked at yet are not counted yet.
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+3");
    let grant = Blocked::SharedGrant {
        window: shared_rate,
    };
    assert_eq!(lanes.blocked(0, all[2]), Some(grant));
    lanes.grant(0, whose, shared_rate, granted(3, 60));
    assert_eq!(done(&mut lanes, 0), "a0 a1 a2 Shared(SharedId(0))+2");
    let nothing = GrantNews::Nothing { retry_ms: 300 };
    lanes.grant(0, whose, shared_rate, nothing);
    assert_eq!(done(&mut lanes, 0), "");
    let until_ms = 300;
    let blocked = Blocked::SharedRate {
        window: shared_rate,
        until_ms,
    };
    assert_eq!(lanes.blocked(0, all[1]), Some(blocked));
    assert_eq!(lanes.sendable(0), 0);
    assert_eq!(done(&mut lanes, 299), "");
    // Now all are counted.
    assert_eq!(done(&mut lanes, 300), "Shared(SharedId(0))+4");
    lanes.grant(300, whose, shared_rate, granted(6, 360));
    assert_eq!(done(&mut lanes, 300), "a0 a1 a2 a0 a1 a2");
}

#[test]
fn who_comes_while_a_turn_goes_round_goes_behind_those_that_wait() {
    let of_all = window(Unit::Messages, 10);
    let (mut lanes, all, shared) = group(3, &rate(Unit::Messages, 10));
    all.iter().for_each(|lane| push(&mut lanes, *lane, 0..1));
    done(&mut lanes, 0);
    lanes.grant(0, Whose::Shared(shared), of_all, granted(3, 900));
    assert_eq!(done(&mut lanes, 0), "a0 a1 a2");
    for lane in &all {
        lanes.released(*lane, SlotId(0), SenderId(1));
    }
    // Each has a connection now.
    push(&mut lanes, all[1], 0..1);
    push(&mut lanes, all[2], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    lanes.grant(0, Whose::Shared(shared), of_all, granted(2, 900));
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "a1 a2 Shared(SharedId(0))+1");
}

#[test]
fn what_is_drawn_on_both_is_settled_in_both_and_given_back_to_both() {
    let (own_rate, shared_rate) = (window(Unit::Messages, 10), window(Unit::Messages, 20));
    let (mut lanes, all, shared) = group(1, &rate(Unit::Messages, 20));
    let lane = all[0];
    lanes.set_limits_of(
        lane,
        LaneLimits {
            windows: vec![own_rate],
            ..own(shared)
        },
    );
    push(&mut lanes, lane, 0..2);
    assert_eq!(done(&mut lanes, 0), "Lane(LaneId(0))+2");
    lanes.grant(0, Whose::Lane(lane), own_rate, granted(1, 60));
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+2");
    // Nothing is taken of the own one as long as the shared one says no.
    lanes.grant(0, Whose::Shared(shared), shared_rate, granted(1, 60));
    let Some(Decision::Assign {
        drawn,
        slot,
        sender,
        ..
    }) = lanes.next(0)
    else {
        panic!("both are granted");
    };
    // Both are back: the next one needs no other grant.
    lanes.unassign(lane, slot, sender, drawn);
    let Some(Decision::Assign { drawn, .. }) = lanes.next(0) else {
        panic!("both were given back");
    };
    lanes.settle(lane, drawn, Unit::Messages, Became::Over(1));
    lanes.now_ms = 2;
    let words = lanes.hand_over();
    let dated: Vec<(Whose, u64, usize)> = words
        .iter()
        .map(|(whose, _, word)| (*whose, word.have, word.dated.len()))
        .collect();
    assert_eq!(
        dated,
        [(Whose::Lane(lane), 0, 1), (Whose::Shared(shared), 0, 1)]
    );
}

#[test]
fn the_rate_of_connections_is_shared_and_does_not_hold_up_who_has_one() {
    let opened = window(Unit::Connections, 1);
    let (mut lanes, all, shared) = group(2, &rate(Unit::Connections, 1));
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..3);
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    lanes.grant(0, whose, opened, granted(1, 60));
    assert_eq!(done(&mut lanes, 0), "a0 Shared(SharedId(0))+1");
    let nothing = GrantNews::Nothing { retry_ms: 1000 };
    lanes.grant(0, whose, opened, nothing);
    assert_eq!(done(&mut lanes, 0), "");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a0");
    // What is under way is spoken of first.
    assert_eq!(done(&mut lanes, 1000), "Shared(SharedId(0))+0");
    lanes.grant(1000, whose, opened, GrantNews::Nothing { retry_ms: 1000 });
    assert_eq!(done(&mut lanes, 1000), "Shared(SharedId(0))+1");
    lanes.grant(1000, whose, opened, granted(1, 1060));
    assert_eq!(done(&mut lanes, 1000), "a1 Shared(SharedId(0))+1");
}

#[test]
fn who_is_called_and_can_t_send_passes_its_turn_on() {
    let (mut lanes, all, shared) = group(3, &connections(1));
    for lane in &all {
        push(&mut lanes, *lane, 0..1);
    }
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.set_limits_of(
        all[1],
        LaneLimits {
            suspended_until_ms: 9_000,
            ..own(shared)
        },
    );
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c0");
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a2");
}

#[test]
fn connections_are_leased_for_all_lanes_together() {
    let (mut lanes, all, shared) = group(2, &share_of(4));
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..2);
    push(&mut lanes, all[1], 0..2);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))=0+1");
    lanes.slots(0, whose, leased(1, 0));
    assert_eq!(done(&mut lanes, 0), "a0 Shared(SharedId(0))=1+1");
    lanes.slots(0, whose, leased(1, 0));
    assert_eq!(done(&mut lanes, 0), "a1 Shared(SharedId(0))=2+2");
    lanes.slots(0, whose, leased(0, 1));
    let blocked = Blocked::SharedConnections { allowed: 4 };
    assert_eq!(lanes.blocked(0, all[0]), Some(blocked));
    // Others are to have one of them, whichever becomes idle first, though its lane has more to send.
    lanes.released(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 1), "c1");
    lanes.slot_closed(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 1), "Shared(SharedId(0))=1+1");
    // Those of a sender that is gone count until it must have closed them.
    lanes.slots(1, whose, leased(0, 0));
    lanes.sender_gone(SenderId(1));
    assert_eq!(done(&mut lanes, 5_000), "Shared(SharedId(0))=1+1");
}

#[test]
fn another_connection_is_leased_before_an_idle_one_is_closed_for_who_waits() {
    let (mut lanes, all, shared) = group(3, &share_of(2));
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))=0+1");
    lanes.slots(0, whose, leased(1, 0));
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))=1+1");
    lanes.slots(0, whose, leased(0, 0));
    assert_eq!(done(&mut lanes, 0), "c0");
    // What is closed is needed here, so it is not given back.
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a1");
    // All that the limit allows: nothing is asked for.
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 999), "");
    assert_eq!(done(&mut lanes, 1_000), "Shared(SharedId(0))=1+1");
    lanes.slots(1_000, whose, leased(1, 0));
    assert_eq!(done(&mut lanes, 1_000), "a0");
    push(&mut lanes, all[2], 0..1);
    assert_eq!(done(&mut lanes, 1_000), "");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 1_000), "c0");
    lanes.slot_closed(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 1_000), "a2");
    // Nobody needs it any more.
    lanes.released(all[1], SlotId(0), SenderId(1));
    lanes.slot_closed(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 1_000), "Shared(SharedId(0))=1+0");
}

#[test]
fn a_connection_that_is_opened_while_nobody_answers_is_said_as_soon_as_somebody_may() {
    let (mut lanes, all, shared) = group(1, &share_of(2));
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))=0+1");
    lanes.slots(0, whose, SlotNews::Away { over_ms: 20_000 });
    lanes.retain(|_| false);
    // The place of who waited asks once more.
    assert_eq!(done(&mut lanes, 30_000), "Shared(SharedId(0))=0+1");
    lanes.slots(30_000, whose, SlotNews::Away { over_ms: 50_000 });
    assert_eq!(done(&mut lanes, 31_000), "");
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 31_500), "a0 Shared(SharedId(0))=1+0");
}

#[test]
fn a_lane_that_goes_elsewhere_takes_its_connections_along() {
    let (mut lanes, all, shared) = group(2, &connections(1));
    push(&mut lanes, all[0], 0..1);
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    let (other, _) = lanes.share(&"source".into(), &"other".into());
    lanes.set_limits_of_shared(other, &connections(1));
    lanes.set_limits_of(all[0], own(other));
    assert_eq!(done(&mut lanes, 0), "a1");
    lanes.set_limits_of(
        all[1],
        LaneLimits {
            shared: None,
            ..own(shared)
        },
    );
    let third = lanes.lane(&"source".into(), &"third".into(), || own(shared));
    push(&mut lanes, third, 0..1);
    let fourth = lanes.lane(&"source".into(), &"fourth".into(), || own(other));
    push(&mut lanes, fourth, 0..1);
    assert_eq!(done(&mut lanes, 0), "a2");
    lanes.released(all[0], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c0");
}

#[test]
fn a_lane_that_went_elsewhere_is_not_called_and_keeps_its_connection() {
    let (mut lanes, all, _) = group(4, &connections(1));
    let (other, _) = lanes.share(&"source".into(), &"other".into());
    lanes.set_limits_of_shared(other, &connections(1));
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "a0");
    lanes.released(all[0], SlotId(0), SenderId(1));
    lanes.set_limits_of(all[0], own(other));
    for lane in &all[1..] {
        push(&mut lanes, *lane, 0..1);
    }
    assert_eq!(done(&mut lanes, 0), "a1");
    // There it has something to wait for, too.
    lanes.set_limits_of(all[2], own(other));
    assert_eq!(done(&mut lanes, 0), "c0");
    lanes.released(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "c1");
    lanes.slot_closed(all[1], SlotId(0), SenderId(1));
    assert_eq!(done(&mut lanes, 0), "a3");
}

#[test]
fn what_is_given_back_goes_to_who_waits_for_it() {
    let of_all = window(Unit::Messages, 10);
    let (mut lanes, all, shared) = group(2, &rate(Unit::Messages, 10));
    let whose = Whose::Shared(shared);
    push(&mut lanes, all[0], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    lanes.grant(0, whose, of_all, granted(1, 900));
    let Some(Decision::Assign { drawn, .. }) = lanes.next(0) else {
        panic!("it was granted");
    };
    push(&mut lanes, all[1], 0..1);
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    let nothing = GrantNews::Nothing { retry_ms: 800 };
    lanes.grant(0, whose, of_all, nothing);
    assert_eq!(done(&mut lanes, 0), "");
    lanes.settle(all[0], drawn, Unit::Messages, Became::Nothing);
    assert_eq!(done(&mut lanes, 0), "a1");
}

#[test]
fn lanes_that_come_and_go_leave_no_more_places_in_the_lists_than_there_are_lanes() {
    let (mut lanes, _, shared) = group(0, &connections(1));
    let rounds = 1_000;
    for round in 0..rounds {
        let now_ms = round * 2 * IDLE_MS;
        let lane = lanes.lane(&"source".into(), &"site".into(), || own(shared));
        push(&mut lanes, lane, 0..1);
        assert_eq!(done(&mut lanes, now_ms), "a0");
        lanes.released(lane, SlotId(0), SenderId(1));
        lanes.slot_closed(lane, SlotId(0), SenderId(1));
        assert_eq!(lanes.forget_idle(now_ms + IDLE_MS, 10), [lane]);
    }
    let places = lanes.shared[0].spare.len();
    assert!(places < 100, "{places} after {rounds} rounds");
}

#[test]
fn places_of_lanes_that_have_left_are_taken_out_when_they_are_most_of_all() {
    let of_all = window(Unit::Messages, 10);
    let (mut lanes, all, shared) = group(8, &rate(Unit::Messages, 10));
    let whose = Whose::Shared(shared);
    for lane in &all[..3] {
        push(&mut lanes, *lane, 0..1);
    }
    done(&mut lanes, 0);
    lanes.grant(0, whose, of_all, granted(3, 900));
    assert_eq!(done(&mut lanes, 0), "a0 a1 a2");
    // Three wait to send, five to open a connection, and three have an idle one.
    for lane in &all {
        lanes.released(*lane, SlotId(0), SenderId(1));
        push(&mut lanes, *lane, 0..1);
    }
    assert_eq!(done(&mut lanes, 0), "Shared(SharedId(0))+1");
    let retry_ms = u64::MAX;
    lanes.grant(0, whose, of_all, GrantNews::Nothing { retry_ms });
    assert_eq!(done(&mut lanes, 0), "");
    let places = |lanes: &Lanes<u32>| {
        let shared = &lanes.shared[0];
        let waiting = (shared.to_open.len(), shared.to_send.len());
        (waiting, shared.spare.len())
    };
    assert_eq!(places(&lanes), ((5, 3), 3));
    let mut rounds = 0;
    let mut now_ms = 0;
    loop {
        let lane = lanes.lane(&"source".into(), &"passing".into(), || own(shared));
        lanes.push(lane, &Flow::default(), 99, 0);
        while let Some(decision) = lanes.next(now_ms) {
            // What was used is said.
            assert!(matches!(decision, Decision::AskGrant { ref word, .. } if word.want == 0));
            lanes.grant(now_ms, whose, of_all, GrantNews::Nothing { retry_ms });
        }
        lanes.retain(|item| *item != 99);
        now_ms += IDLE_MS;
        assert_eq!(lanes.forget_idle(now_ms, 10), [lane]);
        rounds += 1;
        if places(&lanes) == ((5, 3), 3) {
            break;
        }
        assert_eq!(places(&lanes), ((5 + rounds, 3), 3));
    }
    // More than half of all, those included, and 32.
    assert_eq!(rounds, 76);
}
