//! What is used of rates.

use super::{Drawn, LaneId, Lanes, SenderId, SharedId, SlotId, Whose};
use crate::rate::{Became, GrantNews, Unit, Window, Word};

impl<T> Lanes<T> {
    /// An answer to a question for a grant.
    pub fn grant(&mut self, now_ms: u64, whose: Whose, window: Window, news: GrantNews) {
        self.now_ms = now_ms;
        match whose {
            Whose::Lane(lane) => {
                if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
                    state.rates.news(now_ms, window, news);
                }
                self.set_tell(whose);
                self.answered(lane);
                self.wake(lane);
            }
            Whose::Shared(id) => {
                if let Some(shared) = self.shared.get_mut(id.0 as usize) {
                    shared.rates.news(now_ms, window, news);
                }
                self.set_tell(whose);
                self.call(id);
            }
        }
    }

    /// What became of the message, or of the connection, of an assignment: once for each, also for those that have no
    /// rate.
    pub fn settle(&mut self, lane: LaneId, drawn: Drawn, unit: Unit, became: Became) {
        let now_ms = self.now_ms;
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.settle(now_ms, drawn.own, unit, became);
            self.set_tell(Whose::Lane(lane));
        }
        if let Some((id, taken)) = drawn.shared
            && let Some(shared) = self.shared.get_mut(id.0 as usize)
        {
            shared.rates.settle(now_ms, taken, unit, became);
            self.set_tell(Whose::Shared(id));
            if became == Became::Nothing {
                self.call(id);
            }
        }
        if became == Became::Nothing {
            self.wake(lane);
        }
    }

    /// An assignment was not made after all (the delivery was not there any more).
    pub fn unassign(&mut self, lane: LaneId, slot: SlotId, sender: SenderId, drawn: Drawn) {
        self.settle(lane, drawn, Unit::Messages, Became::Nothing);
        self.settle(lane, drawn, Unit::Connections, Became::Nothing);
        self.released(lane, slot, sender);
    }

    /// Gives back all that was granted and not used: what is to be said.
    pub fn hand_over(&mut self) -> Vec<(Whose, Window, Word)> {
        let now_ms = self.now_ms;
        let lanes = (0..).map(LaneId).map(Whose::Lane).zip(&mut self.lanes);
        let lanes = lanes.map(|(whose, lane)| (whose, &mut lane.rates));
        let shared = (0..).map(SharedId).map(Whose::Shared).zip(&mut self.shared);
        let shared = shared.map(|(whose, shared)| (whose, &mut shared.rates));
        let mut words = Vec::new();
        for (whose, rates) in lanes.chain(shared) {
            let of_it = rates.hand_over(now_ms).into_iter();
            words.extend(of_it.map(|(window, word)| (whose, window, word)));
        }
        words
    }

    /// What this replica may use by itself is another part of each rate from now on.
    pub fn doubt_shares(&mut self, now_ms: u64) {
        let lanes = self.lanes.iter_mut().map(|lane| &mut lane.rates);
        let shared = self.shared.iter_mut().map(|shared| &mut shared.rates);
        lanes
            .chain(shared)
            .for_each(|rates| rates.doubt_shares(now_ms));
    }

    /// It may have something to say about its rates later.
    pub(super) fn set_tell(&mut self, whose: Whose) {
        let now_ms = self.now_ms;
        let set = match whose {
            Whose::Lane(lane) => self
                .lanes
                .get_mut(lane.0 as usize)
                .map(|state| (state.rates.tells_at(now_ms), &mut state.tell_timer_ms)),
            Whose::Shared(id) => self
                .shared
                .get_mut(id.0 as usize)
                .map(|shared| (shared.rates.tells_at(now_ms), &mut shared.tell_timer_ms)),
        };
        if let Some((Some(at_ms), last_ms)) = set {
            self.timers.set_tell(whose, last_ms, at_ms);
        }
    }
}
