//! Lanes that have nothing any more.

use super::{LaneId, Lanes, hash_lane};
use crate::rate::Rates;

/// After so long with nothing that waits, no connection and no use that counts, a lane is forgotten, milliseconds.
pub(super) const IDLE_MS: u64 = 60_000;

impl<T> Lanes<T> {
    /// Puts a lane that has nothing any more on the list of those that may be forgotten.
    pub(super) fn note_idle(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        if !state.idle && state.is_idle() {
            state.idle = true;
            self.idle.push_back((self.now_ms, lane));
        }
    }

    pub(super) fn note_idle_lanes(&mut self) {
        (0..self.lanes.len()).for_each(|number| self.note_idle(LaneId(number as u32)));
        self.pass_on_all();
    }

    /// Forgets lanes that had nothing for long, at most `limit`; their numbers are free then.
    pub fn forget_idle(&mut self, now_ms: u64, limit: usize) -> Vec<LaneId> {
        let mut forgotten = Vec::new();
        for _ in 0..limit {
            let due = |(since_ms, _): &&(u64, LaneId)| since_ms + IDLE_MS <= now_ms;
            let Some(&(_, lane)) = self.idle.front().filter(due) else {
                break;
            };
            self.idle.pop_front();
            let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                continue;
            };
            state.idle = false;
            if !state.is_idle() {
                continue;
            }
            if !state.rates.are_unused(now_ms) {
                state.idle = true;
                self.idle.push_back((now_ms, lane));
                continue;
            }
            let hash = hash_lane(&self.hasher, state.source, state.site.as_deref());
            if let Ok(entry) = self.numbers.find_entry(hash, |&number| number == lane.0) {
                entry.remove();
            }
            state.site = None;
            state.rates = Rates::default();
            let member = state.member.take();
            self.left(member);
            self.vacant.push(lane);
            forgotten.push(lane);
        }
        forgotten
    }
}
