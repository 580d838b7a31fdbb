//! Clocks. A scheduler reads the wall clock when it starts and counts on from there; what becomes of the wall clock later
//! is seen by its next life.

use super::*;

/// By how much wall clocks are wrong, mostly, milliseconds.
const MINUTES_MS: i64 = 180_000;
/// And now and then.
const MORE_MS: i64 = 1_200_000;

impl World {
    /// The time of a scheduler, Unix milliseconds.
    pub(super) fn clock(&self, node: usize) -> u64 {
        self.now.saturating_add_signed(self.nodes[node].ahead)
    }

    /// Somebody sets the wall clock of a scheduler's machine, right or wrong.
    pub(super) fn set_wall_clock(&mut self) {
        let node = self.rng.random_range(0..MEMBERS);
        let most = if self.chance(10) { MORE_MS } else { MINUTES_MS };
        let is_right = self.chance(30);
        let wrong = self.rng.random_range(-most..most);
        self.walls[node] = if is_right { 0 } else { wrong };
    }
}
