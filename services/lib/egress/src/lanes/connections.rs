//! What senders have: credit and connections.

use std::sync::Arc;

use super::slots::Slots;
use super::{LaneId, Lanes, SenderId, SlotId, SlotNews, Whose};

impl<T> Lanes<T> {
    /// A sender is attached. `sources` empty = it can use every source.
    pub fn sender_up(
        &mut self,
        sender: SenderId,
        credit: u32,
        sources: impl IntoIterator<Item = Arc<str>>,
    ) {
        self.senders
            .up(sender, credit, sources.into_iter().collect());
        (0..self.lanes.len()).for_each(|number| self.wake(LaneId(number as u32)));
    }

    /// A sender takes no more deliveries.
    pub fn sender_drains(&mut self, sender: SenderId) {
        self.senders.drains(sender);
    }

    /// A sender is gone with all its connections.
    pub fn sender_gone(&mut self, sender: SenderId) {
        self.senders.gone(sender);
        let now_ms = self.now_ms;
        for number in 0..self.lanes.len() {
            let before = self.lanes[number].slots.used();
            self.with_slots(LaneId(number as u32), |slots| slots.gone(sender));
            let state = &mut self.lanes[number];
            // It may have them open until it sees that it is not attached any more.
            let lost = before - state.slots.used();
            if state.connection_share.is_some() {
                state.lease.lose(now_ms, lost);
            }
            if let Some(member) = &state.member
                && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
                && shared.connection_share.is_some()
            {
                shared.lease.lose(now_ms, lost);
            }
            self.wake(LaneId(number as u32));
        }
        self.pass_on_all();
    }

    /// An assignment is over (reported, returned or refused): the slot is idle again and the credit comes back.
    pub fn released(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.with_slots(lane, |slots| slots.release(slot, sender));
        self.close_surplus(lane);
        self.pass_on(lane);
        self.senders.give(sender);
        // Who waited longest goes first: else the lane that just had its turn would take the credit again.
        self.hopeful = self.starved.len();
        self.revive();
        self.wake(lane);
    }

    /// Wakes the lane that has been without a sender for longest. One at a time: credit for one delivery is no use
    /// to ten thousand lanes. False when there is none left to try.
    pub(super) fn revive(&mut self) -> bool {
        if self.hopeful == 0 {
            return false;
        }
        self.hopeful -= 1;
        let Some(starved) = self.starved.pop_front() else {
            return false;
        };
        if let Some(lane) = self.lanes.get_mut(starved.0 as usize) {
            lane.starved = false;
        }
        self.wake(starved);
        true
    }

    /// Keeps a credit for a lane that waits for an answer, or no more.
    pub(super) fn expects(&mut self, lane: LaneId, expects: bool) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        match (state.expects, expects) {
            (false, true) => self.senders.keep(),
            (true, false) => self.senders.let_go(),
            _ => {}
        }
        state.expects = expects;
    }

    /// A lane has its answer. What was kept for it is for others, unless it goes before them.
    pub(super) fn answered(&mut self, lane: LaneId) {
        if self
            .lanes
            .get(lane.0 as usize)
            .is_some_and(|state| state.expects)
        {
            self.expects(lane, false);
            self.hopeful = self.starved.len();
        }
    }

    /// A sender has closed the connection of a slot.
    pub fn slot_closed(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.with_slots(lane, |slots| slots.closed(slot, sender));
        let now_ms = self.now_ms;
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        let (used, is_needed) = (state.slots.used(), !state.queue.is_empty());
        if state.connection_share.is_some() && state.lease.gave_back(now_ms, used, is_needed) {
            let whose = Whose::Lane(lane);
            self.timers.set_lease(whose, &mut state.lease, now_ms);
        }
        if let Some(id) = state.member.as_ref().map(|member| member.of) {
            self.shared_closed(id);
        }
        self.wake(lane);
    }

    /// An answer to what was said about connections.
    pub fn slots(&mut self, now_ms: u64, whose: Whose, news: SlotNews) {
        self.now_ms = now_ms;
        match whose {
            Whose::Lane(lane) => {
                let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                    return;
                };
                state.lease.news(now_ms, news);
                self.timers.set_lease(whose, &mut state.lease, now_ms);
                self.answered(lane);
                self.close_surplus(lane);
                self.note_idle(lane);
                self.wake(lane);
            }
            Whose::Shared(id) => {
                let Some(shared) = self.shared.get_mut(id.0 as usize) else {
                    return;
                };
                shared.lease.news(now_ms, news);
                self.timers.set_lease(whose, &mut shared.lease, now_ms);
                self.make_room(id);
                self.call(id);
            }
        }
    }

    /// A connection is opened: it is said now when there was nothing to say so far.
    pub(super) fn opened(&mut self, lane: LaneId) {
        let now_ms = self.now_ms;
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        if state.connection_share.is_some() && state.lease.opened(now_ms) {
            let whose = Whose::Lane(lane);
            self.timers.set_lease(whose, &mut state.lease, now_ms);
        }
        if let Some(member) = &state.member
            && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
            && shared.connection_share.is_some()
            && shared.lease.opened(now_ms)
        {
            let whose = Whose::Shared(member.of);
            self.timers.set_lease(whose, &mut shared.lease, now_ms);
        }
    }

    /// A sender is asked to close an idle connection.
    pub(super) fn close(&mut self, lane: LaneId, slot: SlotId, holder: SenderId) {
        self.with_slots(lane, |slots| slots.close(slot));
        self.closing.push_back((lane, slot, holder));
    }

    /// Idle connections are closed when more are open than are leased.
    pub(super) fn close_surplus(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get(lane.0 as usize) else {
            return;
        };
        if state.connection_share.is_none() {
            return;
        }
        let allowed = state.allowed(self.now_ms);
        while let Some(state) = self.lanes.get(lane.0 as usize)
            && let Some((slot, holder)) = state.slots.surplus(allowed)
        {
            self.close(lane, slot, holder);
        }
    }

    /// Changes the slots of a lane, and counts those in use.
    pub(super) fn with_slots(&mut self, lane: LaneId, change: impl FnOnce(&mut Slots)) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        let before = (state.slots.used(), state.slots.open());
        change(&mut state.slots);
        let after = (state.slots.used(), state.slots.open());
        self.slots_in_use = self.slots_in_use + after.0 as usize - before.0 as usize;
        if let Some(member) = &state.member
            && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
        {
            shared.count(before, after);
        }
        self.note_idle(lane);
    }
}
