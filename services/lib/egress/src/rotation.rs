//! Weighted rotation.

/// Spreads choices over weighted candidates as evenly as can be ("smooth weighted round robin": each choice goes to
/// the candidate that is furthest behind its share).
#[derive(Debug, Clone)]
pub struct Rotation {
    weights: Vec<i64>,
    credits: Vec<i64>,
}

impl Rotation {
    /// A rotation over candidates with these weights; a weight of 0 is never chosen.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<i64> = weights.into_iter().map(i64::from).collect();
        Self {
            credits: vec![0; weights.len()],
            weights,
        }
    }

    /// The position of the next candidate among those that `usable` allows; `None` when there is none.
    pub fn next(&mut self, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<usize> = None;
        for (position, weight) in self.weights.iter().enumerate() {
            if *weight == 0 || !usable(position) {
                continue;
            }
            total += weight;
            self.credits[position] += weight;
            if best.is_none_or(|best| self.credits[position] > self.credits[best]) {
                best = Some(position);
            }
        }
        self.credits[best?] -= total;
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_by_weight_and_passes_over_the_unusable() {
        let mut rotation = Rotation::new([5, 1, 0, 2]);
        let mut counts = [0; 4];
        for _ in 0..800 {
            counts[rotation.next(|_| true).unwrap()] += 1;
        }
        assert_eq!(counts, [500, 100, 0, 200]);
        assert!((0..10).all(|_| rotation.next(|position| position == 1) == Some(1)));
        assert_eq!(rotation.next(|_| false), None);
    }
}
