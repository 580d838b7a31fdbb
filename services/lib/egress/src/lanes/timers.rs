//! When lanes, and the limits that they share, go on by themselves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Whose;
use super::lease::Lease;

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

    pub(super) fn set_tell(&mut self, whose: Whose, last_ms: &mut u64, at_ms: u64) {
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

#[cfg(test)]
mod tests {
    use super::super::LaneId;
    use super::*;

    const WHOSE: Whose = Whose::Lane(LaneId(7));

    #[test]
    fn sets_a_timer_when_it_is_the_first_or_earlier_than_the_last_or_that_is_over() {
        let mut timers = Timers::default();
        let (mut turn_ms, mut tell_ms) = (0, 0);
        // Now, when, and how many there are then.
        for (now_ms, at_ms, count) in [(1, 20, 1), (2, 20, 1), (3, 30, 1), (4, 10, 2), (10, 40, 3)]
        {
            timers.set_turn(WHOSE, &mut turn_ms, now_ms, at_ms);
            assert_eq!(timers.turns.len(), count, "{now_ms}");
        }
        // When it is over its owner says so.
        for (at_ms, count) in [(20, 1), (20, 1), (30, 1), (10, 2)] {
            timers.set_tell(WHOSE, &mut tell_ms, at_ms);
            assert_eq!(timers.tells.len(), count, "{at_ms}");
        }
        assert_eq!(timers.next(), Some(10));
        assert_eq!((timers.due_turn(9), timers.due_tell(9)), (None, None));
        assert_eq!(timers.due_turn(10), Some(WHOSE));
        assert_eq!(timers.due_tell(10), Some((10, WHOSE)));
        assert_eq!(timers.next(), Some(20));
    }

    #[test]
    fn sets_one_timer_for_the_same_word_about_connections() {
        let (mut timers, mut lease) = (Timers::default(), Lease::default());
        timers.set_lease(WHOSE, &mut lease, 5);
        assert_eq!(timers.next(), None);
        lease.opened(20);
        for (now_ms, count) in [(5, 1), (6, 1), (20, 2)] {
            timers.set_lease(WHOSE, &mut lease, now_ms);
            assert_eq!(timers.leases.len(), count, "{now_ms}");
        }
        assert_eq!((timers.due_lease(19), timers.next()), (None, Some(20)));
        assert_eq!(timers.due_lease(20), Some(WHOSE));
    }
}
