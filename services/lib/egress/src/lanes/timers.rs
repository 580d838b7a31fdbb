//! When lanes go on by themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::LaneId;
use super::lane::Lane;

/// One timer of a lane is enough, however often it is looked at meanwhile.
pub(super) fn set_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
    until_ms: u64,
) {
    if state.timer_ms <= now_ms || until_ms < state.timer_ms {
        state.timer_ms = until_ms;
        timers.push(Reverse((until_ms, lane)));
    }
}

/// As [`set_timer`], for when the lane speaks about its connections.
pub(super) fn set_lease_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
) {
    let Some(at_ms) = state.lease.speaks_at() else {
        return;
    };
    if state.lease.timer_ms <= now_ms || at_ms < state.lease.timer_ms {
        state.lease.timer_ms = at_ms;
        timers.push(Reverse((at_ms, lane)));
    }
}

/// As [`set_timer`], for when the lane says what it has used of its rates.
pub(super) fn set_tell_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
) {
    let Some(at_ms) = state.rates.tells_at(now_ms) else {
        return;
    };
    let at_ms = at_ms.max(1);
    if state.tell_timer_ms == 0 || at_ms < state.tell_timer_ms {
        state.tell_timer_ms = at_ms;
        timers.push(Reverse((at_ms, lane)));
    }
}
