//! Weighted rotation.

use std::ops::Range;

/// The golden ratio as a part of 2^64: the multiples of it, taken modulo 2^64, spread over the whole range more evenly
/// than those of any other number, and so do those of every second, third or n-th of them.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Turns that are asked for at a time, at first and at most.
const TURNS: u32 = 256;
const MOST_TURNS: u32 = 4096;

/// Spreads choices over weighted candidates as evenly as can be.
///
/// Every choice has a number, and the number alone says which candidate it goes to: of any run of numbers each candidate
/// has its share, up to a few. Those who share a rotation draw runs of numbers from one count ([`Rotation::wants`],
/// [`Rotation::lend`]), so that the shares hold for all of them together, however many there are. What has no number
/// from there takes numbers of its own, with which the shares hold, too, for those alone.
///
/// A choice costs a binary search, and a look at every candidate when the chosen one can't be used.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Sums of the weights up to each candidate, itself included.
    sums: Vec<u64>,
    /// Numbers that are lent, and those after them.
    lent: Range<u64>,
    next_lent: Range<u64>,
    /// The next number of its own.
    own: u64,
    /// Some are asked for.
    asked: bool,
    turns: u32,
}

impl Rotation {
    /// A rotation over candidates with these weights; a weight of 0 is never chosen. Its own numbers begin with `first`.
    pub fn new(weights: impl IntoIterator<Item = u32>, first: u64) -> Self {
        let mut rotation = Self {
            sums: Vec::new(),
            lent: 0..0,
            next_lent: 0..0,
            own: first,
            asked: false,
            turns: TURNS,
        };
        rotation.set_weights(weights);
        rotation
    }

    /// Other candidates or weights from now on.
    pub fn set_weights(&mut self, weights: impl IntoIterator<Item = u32>) {
        let sum = |sum: &mut u64, weight| {
            *sum += u64::from(weight);
            Some(*sum)
        };
        self.sums.clear();
        self.sums.extend(weights.into_iter().scan(0, sum));
    }

    /// The position of the next candidate among those that `usable` allows; `None` when there is none.
    pub fn next(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        if self.lent.is_empty() {
            self.lent = std::mem::replace(&mut self.next_lent, 0..0);
        }
        let number = match self.lent.next() {
            Some(number) => number,
            None => {
                self.own = self.own.wrapping_add(1);
                self.own
            }
        };
        self.of_number(number, usable)
    }

    /// The candidate of a number, always the same as long as the candidates are and can be used.
    pub fn of_number(&self, number: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let total = *self.sums.last().filter(|total| **total > 0)?;
        let point = u128::from(number.wrapping_mul(STEP)) * u128::from(total);
        let target = (point >> 64) as u64;
        let position = self.sums.partition_point(|sum| *sum <= target);
        if usable(position) {
            return Some(position);
        }
        // Where it falls within its part is as evenly spread: by that the others share it.
        let (before, weight) = (self.before(position), self.weight(position).max(1));
        let within = (point - (u128::from(before) << 64)) / u128::from(weight);
        let others = || (0..self.sums.len()).filter(|position| usable(*position));
        let total: u64 = others().map(|position| self.weight(position)).sum();
        let mut target = ((within * u128::from(total)) >> 64) as u64;
        for position in others() {
            let weight = self.weight(position);
            if target < weight {
                return Some(position);
            }
            target -= weight;
        }
        None
    }

    /// How many numbers are to be asked for now. To be answered with [`Rotation::lend`].
    pub fn wants(&mut self) -> Option<u32> {
        let left = self.lent.end - self.lent.start;
        if self.asked || !self.next_lent.is_empty() || left >= u64::from(self.turns / 4) {
            return None;
        }
        self.asked = true;
        Some(self.turns)
    }

    /// So many numbers from `first` on are for this one; `None` when nobody answers.
    pub fn lend(&mut self, first: Option<u64>, count: u32) {
        self.asked = false;
        let Some(first) = first else {
            return;
        };
        if self.lent.is_empty() && self.turns == count {
            // They were used up before more came.
            self.turns = (self.turns * 2).min(MOST_TURNS);
        }
        self.next_lent = first..first.saturating_add(count.into());
    }

    fn before(&self, position: usize) -> u64 {
        let before = position.checked_sub(1);
        before.map_or(0, |before| self.sums.get(before).copied().unwrap_or(0))
    }

    fn weight(&self, position: usize) -> u64 {
        self.sums.get(position).copied().unwrap_or(0) - self.before(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_shares(counts: &[u64], weights: &[u32], off: u64) {
        let all: u64 = counts.iter().sum();
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        for (count, weight) in counts.iter().zip(weights) {
            let share = all * u64::from(*weight) / total;
            assert!(
                count.abs_diff(share) <= off,
                "{counts:?} by {weights:?}: {count} instead of {share}"
            );
        }
    }

    #[test]
    fn chooses_by_weight_and_passes_over_the_unusable() {
        let weights = [5, 1, 0, 2];
        let mut rotation = Rotation::new(weights, 7);
        let mut counts = [0; 4];
        for _ in 0..800 {
            counts[rotation.next(|_| true).unwrap()] += 1;
        }
        check_shares(&counts, &weights, 3);
        assert_eq!(counts[2], 0);
        assert!((0..10).all(|_| rotation.next(|position| position == 1) == Some(1)));
        assert_eq!(rotation.next(|_| false), None);
        assert_eq!(Rotation::new([0, 0], 0).next(|_| true), None);
    }

    #[test]
    fn what_an_unusable_one_would_have_is_shared_by_weight() {
        let mut rotation = Rotation::new([6, 3, 1], 0);
        let mut counts = [0; 3];
        for _ in 0..4000 {
            counts[rotation.next(|position| position != 0).unwrap()] += 1;
        }
        check_shares(&counts, &[0, 3, 1], 8);
    }

    /// A message for two sites takes two turns, so each site would always have the same source by turns in a row.
    #[test]
    fn every_nth_choice_is_spread_by_weight_too() {
        for nth in 2..12 {
            let mut rotation = Rotation::new([1, 1, 2], 3);
            let mut counts = [0; 3];
            for number in 0..nth * 400 {
                let position = rotation.next(|_| true).unwrap();
                counts[position] += u64::from(number % nth == 0);
            }
            check_shares(&counts, &[1, 1, 2], 6);
        }
    }

    #[test]
    fn shares_hold_for_all_who_draw_from_one_count_however_little_each_sends() {
        // A hundred replicas that are restarted after thirty messages each: by numbers of their own alone the
        // candidate of weight 1 in 1000 would have about none.
        let weights = [999, 1];
        let (mut count, mut counts) = (0, [0; 2]);
        for replica in 0..100_u64 {
            let mut rotation = Rotation::new(weights, replica << 32);
            let turns = rotation.wants().unwrap();
            assert_eq!(rotation.wants(), None, "asked once");
            rotation.lend(Some(count), turns);
            count += u64::from(turns);
            for _ in 0..turns {
                counts[rotation.next(|_| true).unwrap()] += 1;
            }
        }
        check_shares(&counts, &weights, 3);
    }

    #[test]
    fn goes_on_with_numbers_of_its_own_while_nobody_lends_and_asks_for_more_when_it_ran_out() {
        let mut rotation = Rotation::new([1, 1], 0);
        let asked = rotation.wants().unwrap();
        let mut counts = [0; 2];
        (0..1000).for_each(|_| counts[rotation.next(|_| true).unwrap()] += 1);
        check_shares(&counts, &[1, 1], 3);
        rotation.lend(None, asked);
        let asked = rotation.wants().unwrap();
        rotation.lend(Some(0), asked);
        (0..asked).for_each(|_| assert!(rotation.next(|_| true).is_some()));
        assert_eq!(rotation.wants(), Some(2 * TURNS));
    }

    #[test]
    fn asks_for_more_when_a_quarter_is_left_and_for_as_many_as_long_as_that_is_in_time() {
        let mut rotation = Rotation::new([1, 1], 0);
        let turns = |rotation: &mut Rotation, count: u32| {
            (0..count).for_each(|_| assert!(rotation.next(|_| true).is_some()));
        };
        rotation.lend(Some(0), TURNS / 2);
        turns(&mut rotation, TURNS / 4);
        for number in 1..4 {
            assert_eq!(rotation.wants(), None);
            turns(&mut rotation, 1);
            assert_eq!(rotation.wants(), Some(TURNS));
            rotation.lend(Some(number << 32), TURNS);
            turns(&mut rotation, TURNS / 4 - 1);
            assert_eq!(rotation.wants(), None, "more is lent than a quarter");
            turns(&mut rotation, TURNS - TURNS / 4);
        }
        assert_eq!(rotation.turns, TURNS);
    }
}
