//! When lanes, and the limits that they share, go on by themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Whose;
use super::lease::Lease;
use crate::rate::Rates;

type Heap = BinaryHeap<Reverse<(u64, Whose)>>;

/// One timer of each kind is enough for each, however often it is looked at meanwhile: the last that was set is kept
/// with it.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When something that waits for time goes on.
    turns: Heap,
    /// When it is said how many connections there are.
    leases: Heap,
    /// When it is said what is used of rates.
    tells: Heap,
}

impl Timers {
    /// The first of all.
    pub(super) fn next(&self) -> Option<u64> {
        let heaps = [&self.turns, &self.leases, &self.tells].into_iter();
        let times = heaps.filter_map(|heap| heap.peek().map(|Reverse((at, _))| *at));
        times.min()
    }

    pub(super) fn set_turn(&mut self, whose: Whose, last_ms: &mut u64, now_ms: u64, until_ms: u64) {
        if *last_ms <= now_ms || until_ms < *last_ms {
            *last_ms = until_ms;
            self.turns.push(Reverse((until_ms, whose)));
        }
    }

    pub(super) fn set_lease(&mut self, whose: Whose, lease: &mut Lease, now_ms: u64) {
        let Some(at_ms) = lease.speaks_at() else {
            return;
        };
        if lease.timer_ms <= now_ms || at_ms < lease.timer_ms {
            lease.timer_ms = at_ms;
            self.leases.push(Reverse((at_ms, whose)));
        }
    }

    pub(super) fn set_tell(&mut self, whose: Whose, last_ms: &mut u64, rates: &Rates, now_ms: u64) {
        let Some(at_ms) = rates.tells_at(now_ms) else {
            return;
        };
        let at_ms = at_ms.max(1);
        if *last_ms == 0 || at_ms < *last_ms {
            *last_ms = at_ms;
            self.tells.push(Reverse((at_ms, whose)));
        }
    }

    pub(super) fn due_turn(&mut self, now_ms: u64) -> Option<Whose> {
        due(&mut self.turns, now_ms).map(|(_, whose)| whose)
    }

    pub(super) fn due_lease(&mut self, now_ms: u64) -> Option<Whose> {
        due(&mut self.leases, now_ms).map(|(_, whose)| whose)
    }

    /// With its time: an earlier one may have been set since.
    pub(super) fn due_tell(&mut self, now_ms: u64) -> Option<(u64, Whose)> {
        due(&mut self.tells, now_ms)
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }
}

fn due(heap: &mut Heap, now_ms: u64) -> Option<(u64, Whose)> {
    let Reverse((at, _)) = heap.peek()?;
    if *at > now_ms {
        return None;
    }
    heap.pop().map(|Reverse(due)| due)
}
