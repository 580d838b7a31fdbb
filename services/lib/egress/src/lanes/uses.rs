//! What is used of rates.

use super::timers::set_tell_timer;
use super::{LaneId, Lanes, SenderId, SlotId};
use crate::rate::{Became, GrantNews, Taken, Unit, Window, Word};

impl<T> Lanes<T> {
    /// An answer to a question for a grant.
    pub fn grant(&mut self, now_ms: u64, lane: LaneId, window: Window, news: GrantNews) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.news(now_ms, window, news);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
        }
        self.answered(lane);
        self.wake(lane);
    }

    /// What became of the message, or of the connection, of an assignment: once for each, also for those that have no
    /// rate.
    pub fn settle(&mut self, lane: LaneId, taken: Taken, unit: Unit, became: Became) {
        let now_ms = self.now_ms;
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.settle(now_ms, taken, unit, became);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
        }
        if became == Became::Nothing {
            self.wake(lane);
        }
    }

    /// An assignment was not made after all (the delivery was not there any more).
    pub fn unassign(&mut self, lane: LaneId, slot: SlotId, sender: SenderId, taken: Taken) {
        self.settle(lane, taken, Unit::Messages, Became::Nothing);
        self.settle(lane, taken, Unit::Connections, Became::Nothing);
        self.released(lane, slot, sender);
    }

    /// Gives back all that was granted and not used: what is to be said.
    pub fn hand_over(&mut self) -> Vec<(LaneId, Window, Word)> {
        let now_ms = self.now_ms;
        let mut words = Vec::new();
        for (lane, state) in (0..).map(LaneId).zip(&mut self.lanes) {
            let of_lane = state.rates.hand_over(now_ms).into_iter();
            words.extend(of_lane.map(|(window, word)| (lane, window, word)));
        }
        words
    }
}
