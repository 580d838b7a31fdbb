//! When what waits is due.
//!
//! Time is cut into spans. What is due in the present one or before is in a heap, by its time; all else is only noted with
//! its span, 4 bytes for each, and comes into the heap when its span begins. So a million that wait for hours cost neither
//! memory nor comparisons to those that are due in a minute.
//!
//! Nothing is ever taken out before its time: who takes from here looks whether it is meant still.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Length of a span, milliseconds.
const SPAN_MS: u64 = 1 << 15;

/// A delivery in the heap: when it is due (Unix milliseconds), its slot and generation.
type Entry = (u64, u32, u32);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Due {
    soon: BinaryHeap<Reverse<Entry>>,
    /// Slots by the number of their span.
    later: BTreeMap<u64, Vec<u32>>,
    /// The first span that has not begun.
    next_span: u64,
}

impl Due {
    /// A delivery waits.
    pub(crate) fn push(&mut self, due_ms: u64, slot: u32, generation: u32) {
        let span = due_ms / SPAN_MS;
        if span < self.next_span {
            self.soon.push(Reverse((due_ms, slot, generation)));
            return;
        }
        let slots = self.later.entry(span).or_default();
        if slots.len() == slots.capacity() {
            // By a quarter, not by doubling: most of the memory is in these.
            slots.reserve_exact((slots.len() / 4).max(4));
        }
        slots.push(slot);
    }

    /// Lets the spans begin that do by now. `what_waits` gives the time and generation of what waits in a slot.
    pub(crate) fn advance(&mut self, now_ms: u64, what_waits: impl Fn(u32) -> Option<(u64, u32)>) {
        let present = now_ms / SPAN_MS;
        if present < self.next_span {
            return;
        }
        self.next_span = present + 1;
        while let Some(first) = self.later.first_entry() {
            if *first.key() > present {
                break;
            }
            let (span, slots) = first.remove_entry();
            for slot in slots {
                // Another time: it is noted there, too.
                let waits = what_waits(slot).filter(|(due_ms, _)| due_ms / SPAN_MS == span);
                if let Some((due_ms, generation)) = waits {
                    self.soon.push(Reverse((due_ms, slot, generation)));
                }
            }
        }
        if self.soon.is_empty() {
            self.soon.shrink_to_fit();
        }
    }

    /// What is due by now, once. [`Due::advance`] comes first.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Entry> {
        let Reverse(entry) = *self.soon.peek()?;
        if entry.0 > now_ms {
            return None;
        }
        self.soon.pop();
        Some(entry)
    }

    /// When to look again, Unix milliseconds: when the next is due, or a span begins that has some.
    pub(crate) fn next(&self) -> Option<u64> {
        let soon = self.soon.peek().map(|Reverse((due_ms, ..))| *due_ms);
        let later = self.later.first_key_value().map(|(span, _)| span * SPAN_MS);
        soon.into_iter().chain(later).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots that wait, by slot: time and generation.
    fn popped(due: &mut Due, waiting: &[(u64, u32)], now_ms: u64) -> Vec<u64> {
        due.advance(now_ms, |slot| waiting.get(slot as usize).copied());
        std::iter::from_fn(|| due.pop(now_ms))
            .map(|(due_ms, ..)| due_ms)
            .collect()
    }

    #[test]
    fn gives_what_is_due_in_order_across_spans_and_nothing_before_its_time() {
        let times = [
            5,
            3 * SPAN_MS,
            SPAN_MS + 7,
            SPAN_MS + 2,
            u64::MAX,
            90 * SPAN_MS,
        ];
        let waiting: Vec<(u64, u32)> = times.iter().map(|&time| (time, 1)).collect();
        let mut due = Due::default();
        for (time, slot) in times.into_iter().zip(0..) {
            due.push(time, slot, 1);
        }
        assert_eq!(due.next(), Some(0));
        assert_eq!(popped(&mut due, &waiting, 4), [0; 0]);
        assert_eq!(due.next(), Some(5));
        assert_eq!(popped(&mut due, &waiting, 5), [5]);
        assert_eq!(due.next(), Some(SPAN_MS));
        assert_eq!(popped(&mut due, &waiting, SPAN_MS + 6), [SPAN_MS + 2]);
        assert_eq!(due.next(), Some(SPAN_MS + 7));
        let late = [SPAN_MS + 7, 3 * SPAN_MS];
        assert_eq!(popped(&mut due, &waiting, 50 * SPAN_MS), late);
        assert_eq!(due.next(), Some(90 * SPAN_MS));
        assert_eq!(popped(&mut due, &waiting, 90 * SPAN_MS), [90 * SPAN_MS]);
    }

    #[test]
    fn what_waits_for_another_time_now_is_given_at_that_time_only() {
        let mut due = Due::default();
        due.push(2 * SPAN_MS, 0, 1);
        due.push(5 * SPAN_MS, 0, 1);
        let waiting = [(5 * SPAN_MS, 1)];
        assert_eq!(popped(&mut due, &waiting, 4 * SPAN_MS), [0; 0]);
        assert_eq!(popped(&mut due, &waiting, 5 * SPAN_MS), [5 * SPAN_MS]);
        assert_eq!(due.next(), None);
    }

    #[test]
    fn what_was_put_off_within_the_present_span_is_in_its_order() {
        let mut due = Due::default();
        assert_eq!(popped(&mut due, &[], 10 * SPAN_MS), [0; 0]);
        for time in [10 * SPAN_MS + 9, 10 * SPAN_MS + 3, 4] {
            due.push(time, 0, 1);
        }
        assert_eq!(
            popped(&mut due, &[], 10 * SPAN_MS + 3),
            [4, 10 * SPAN_MS + 3]
        );
        assert_eq!(due.next(), Some(10 * SPAN_MS + 9));
    }

    #[test]
    fn notes_take_little_more_than_their_four_bytes_and_are_seldom_moved_for_it() {
        let mut due = Due::default();
        let (mut rooms, notes) = (std::collections::BTreeSet::new(), 15_000);
        for slot in 0..notes {
            due.push(9 * SPAN_MS, slot, 1);
            rooms.insert(due.later[&9].capacity());
        }
        let room = rooms.last().copied().unwrap();
        assert!(room <= notes as usize * 5 / 4, "{room}");
        assert!(rooms.len() < 50, "{} times", rooms.len());
    }
}
