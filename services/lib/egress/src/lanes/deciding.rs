//! Which lane does what next.

use std::cmp::Reverse;

use super::lease;
use super::slots::Choice;
use super::timers::{set_lease_timer, set_tell_timer, set_timer};
use super::{Decision, LaneId, Lanes};
use crate::rate::TakeAll;

impl<T> Lanes<T> {
    /// The next decision; `None` when nothing can move now. Lanes take turns.
    pub fn next(&mut self, now_ms: u64) -> Option<Decision<T>> {
        self.now_ms = now_ms;
        if let Some((lane, slot, sender)) = self.closing.pop_front() {
            return Some(Decision::CloseSlot { lane, slot, sender });
        }
        while let Some(&Reverse((at, lane))) = self.timers.peek() {
            if at > now_ms {
                break;
            }
            self.timers.pop();
            self.wake(lane);
        }
        while let Some(&Reverse((at, lane))) = self.leases.peek() {
            if at > now_ms {
                break;
            }
            self.leases.pop();
            if let Some(decision) = self.speak(now_ms, lane) {
                return Some(decision);
            }
        }
        if let Some(decision) = self.tell(now_ms) {
            return Some(decision);
        }
        loop {
            let Some(lane) = self.runnable.pop_front() else {
                if self.senders.has_credit() && self.revive() {
                    continue;
                }
                return None;
            };
            if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
                state.runnable = false;
            }
            if let Some(decision) = self.decide(now_ms, lane) {
                self.wake(lane);
                return Some(decision);
            }
            self.note_idle(lane);
            if let Some((lane, slot, sender)) = self.closing.pop_front() {
                return Some(Decision::CloseSlot { lane, slot, sender });
            }
        }
    }

    /// What a lane says about its rates, if it is time for one.
    fn tell(&mut self, now_ms: u64) -> Option<Decision<T>> {
        while let Some(&Reverse((at, lane))) = self.tells.peek() {
            if at > now_ms {
                return None;
            }
            self.tells.pop();
            let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                continue;
            };
            if at != state.tell_timer_ms {
                continue;
            }
            state.tell_timer_ms = 0;
            let said = state.rates.tell(now_ms);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
            if let Some((window, word)) = said {
                return Some(Decision::AskGrant { lane, window, word });
            }
        }
        None
    }

    /// What a lane says about its connections, if it is time.
    fn speak(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        if state.lease.speaks_at()? > now_ms {
            set_lease_timer(&mut self.leases, state, lane, now_ms);
            return None;
        }
        let said = state.speak(now_ms, self.away_ms);
        if said.is_none() {
            self.note_idle(lane);
        }
        let (limit, share, lease::Word { have, want }) = said?;
        Some(Decision::AskSlots {
            lane,
            limit,
            share,
            have,
            want,
        })
    }

    fn decide(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        self.expects(lane, false);
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let (_, affinity) = self.fair.peek(state.queue)?;
        if let Some(until_ms) = self.outages.keeps(state.source, now_ms) {
            set_timer(&mut self.timers, state, lane, now_ms, until_ms);
            return None;
        }
        if now_ms < state.suspended_until_ms {
            let until_ms = state.suspended_until_ms;
            set_timer(&mut self.timers, state, lane, now_ms, until_ms);
            return None;
        }
        let Some(sender) = self.senders.choose(affinity, state.source) else {
            if !state.starved {
                state.starved = true;
                self.starved.push_back(lane);
            }
            return None;
        };
        if state.ramp.every_ms > 0 && state.slots.used() == 0 {
            state.ramp.since_ms = now_ms;
        }
        let allowed = state.allowed(now_ms);
        let able = |sender| self.senders.is_able(sender, state.source);
        let (slot, sender) = match state.slots.choose(allowed, sender, able) {
            Choice::Slot(slot, sender) => (slot, sender),
            Choice::Close(slot, holder) => {
                state.slots.close(slot);
                self.closing.push_back((lane, slot, holder));
                return None;
            }
            Choice::Full => {
                let ramped = state.ramped(now_ms);
                if ramped < state.connections {
                    let until_ms = state.ramp.next_ms(now_ms);
                    set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                }
                if state.connection_share.is_none() || state.slots.used() >= ramped {
                    return None;
                }
                if state.lease.runs_short(now_ms) {
                    let asks = self.speak(now_ms, lane);
                    self.expects(lane, asks.is_some());
                    return asks;
                }
                set_lease_timer(&mut self.leases, state, lane, now_ms);
                let asked = state.lease.is_asking();
                self.expects(lane, asked);
                return None;
            }
        };
        let opens = state.slots.opens(slot, state.messages_per_connection);
        let taken = match state.rates.take(now_ms, opens, state.queue.len() as u64) {
            TakeAll::Yes(taken) => taken,
            TakeAll::Asked => {
                self.expects(lane, true);
                return None;
            }
            TakeAll::Wait(until_ms) => {
                set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                return None;
            }
            TakeAll::Ask { window, word } => {
                self.expects(lane, true);
                return Some(Decision::AskGrant { lane, window, word });
            }
        };
        let before = state.slots.used() as usize;
        state.slots.occupy(slot, sender, opens);
        self.slots_in_use = self.slots_in_use + state.slots.used() as usize - before;
        if opens && state.connection_share.is_some() && state.lease.opened(now_ms) {
            set_lease_timer(&mut self.leases, state, lane, now_ms);
        }
        self.senders.take(sender);
        self.outages.tried(state.source, now_ms);
        let (_, item, _) = self.fair.pop(&mut state.queue)?;
        self.waiting -= 1;
        Some(Decision::Assign {
            lane,
            slot,
            sender,
            item,
            taken,
        })
    }
}
